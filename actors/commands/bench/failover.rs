//! SIGKILL of a leader under load, several times: the time until acknowledged writes to its shards resume.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use millpond_actors::load::Client;
use millpond_actors::local::{LocalCluster, wait_ready};
use millpond_actors::observe;
use tokio::time::{Instant, sleep};

use super::super::traffic::{Pressure, Traffic};
use super::{ATTEMPT, Common, READY_WITHIN, Report, Scratch, lines, quantile, start};

/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Load before a kill, so that every shard is written to.
const WARM: Duration = Duration::from_secs(2);
/// Writes that have not resumed by then have not resumed.
const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// Time for a restarted node to lead again before another is chosen.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// How many kills
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let (lines, what) = lines(&args.common)?;
    let scratch = Scratch::make(&args.common)?;
    let client = Client::new(ATTEMPT);
    let mut cluster = start(&scratch, 3, 16, &client).await?;
    let traffic = Traffic::learn(lines, client.clone(), cluster.urls()).await?;
    let mut writers = traffic.start(Pressure {
        writers_per_shard: 1,
        request_bytes: 16 << 10,
        patience: PATIENCE,
        bytes_per_second: None,
    });
    let (mut worst, mut every) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        sleep(WARM).await;
        let (victim, led) = choose(&cluster, &client, &traffic, round).await?;
        cluster.node(victim).kill()?;
        let at = Instant::now();
        let pauses = resume(&traffic, &led, at).await?;
        eprintln!(
            "round {}: node {victim} led {} shards, writes resumed after {:?}",
            round + 1,
            led.len(),
            pauses.last()
        );
        worst.extend(pauses.last().copied());
        every.extend(pauses);
        cluster.node(victim).start()?;
        wait_ready(cluster.node(victim), &client, READY_WITHIN).await?;
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer")??;
        }
    }
    traffic.stop();
    while let Some(writer) = writers.join_next().await {
        writer.context("a writer")??;
    }
    worst.sort_unstable();
    every.sort_unstable();
    let bench = format!("failover, 3 nodes, 16 shards, {} kills", args.rounds);
    let mut report = Report::new(bench, format!("{what}, one request of 16 KiB at a time to every shard"));
    report.milliseconds("last shard resumed, median of kills", quantile(&worst, 0.5));
    report.milliseconds("last shard resumed, worst kill", worst.last().copied().unwrap_or_default());
    report.milliseconds("any shard resumed, median", quantile(&every, 0.5));
    let totals = traffic.totals();
    report.figure("requests sent again", totals.again as f64, "");
    report.figure("records acknowledged", totals.acknowledged as f64, "");
    Ok(report)
}

/// The node to kill, each in turn as far as it leads anything, and the shards it leads.
async fn choose(
    cluster: &LocalCluster,
    client: &Client,
    traffic: &Traffic,
    round: u64,
) -> Result<(u64, BTreeSet<u32>)> {
    let of = traffic.shards();
    let deadline = Instant::now() + LEAD_WITHIN;
    let mut turn = round;
    loop {
        let wanted = turn % cluster.nodes.len() as u64 + 1;
        let views = observe::shards(client, &cluster.nodes[0].url).await?;
        let led: BTreeSet<u32> = views
            .iter()
            .filter(|view| view.leader == Some(wanted))
            .map(|view| view.shard)
            .filter(|shard| of.contains(shard))
            .collect();
        if !led.is_empty() {
            return Ok((wanted, led));
        }
        if Instant::now() >= deadline {
            bail!("no node leads a shard that is written to");
        }
        turn += 1;
        sleep(Duration::from_millis(100)).await;
    }
}

/// The time from the kill to the first acknowledgement of each shard, of requests that were sent after it; ascending.
async fn resume(traffic: &Traffic, led: &BTreeSet<u32>, killed: Instant) -> Result<Vec<Duration>> {
    while killed.elapsed() < RESUME_WITHIN {
        let resumed: Option<Vec<Duration>> =
            led.iter().map(|shard| Some(traffic.resumed_at(*shard, killed)? - killed)).collect();
        if let Some(mut pauses) = resumed {
            pauses.sort_unstable();
            return Ok(pauses);
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("writes to shards {led:?} did not resume within {RESUME_WITHIN:?}")
}
