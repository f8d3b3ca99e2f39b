//! Three nodes with many shards and nothing to do: share of a core and memory of each.

use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_actors::load::Client;
use tokio::time::{Instant, sleep};

use super::{ATTEMPT, Common, Report, Scratch, quiet, start};

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Shards of the cluster, with three replicas each
    #[arg(long, default_value_t = 64)]
    shards: u32,
    /// How long to look
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let scratch = Scratch::make(&args.common)?;
    let client = Client::new(ATTEMPT);
    let cluster = start(&scratch, 3, args.shards, &client).await?;
    quiet(&cluster).await?;
    let before = cluster.nodes.iter().map(|node| node.cpu()).collect::<Result<Vec<Duration>, _>>()?;
    let began = Instant::now();
    sleep(Duration::from_secs(args.seconds)).await;
    let took = began.elapsed().as_secs_f64();
    let mut report = Report::new(format!("idle, 3 nodes, {} shards", args.shards), format!("none, for {took:.0} s"));
    for (node, before) in cluster.nodes.iter().zip(before) {
        let used = node.cpu()?.saturating_sub(before).as_secs_f64() / took * 100.0;
        report.figure(&format!("node {}, processor", node.id), used, "% of a core");
        report.figure(
            &format!("node {}, memory", node.id),
            node.resident_bytes()?.0 as f64 / f64::from(1 << 20),
            "MiB",
        );
    }
    Ok(report)
}
