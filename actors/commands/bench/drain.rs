//! A node is emptied under load: for how long writes pause while others come to lead what it led, and whether a client
//! needs more than a second attempt.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use millpond::id::NodeId;
use millpond_actors::listeners::http::nodes::{ClusterReport, MemberReport};
use millpond_actors::load::Client;
use millpond_actors::local::{LocalCluster, Plan};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::traffic::{Pressure, Traffic};
use super::super::whole::{Glance, get};
use super::super::{NodesArgs, admin};
use super::{ATTEMPT, Common, READY_WITHIN, Report, Scratch, lines, quantile};

/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Load before a drain, which is the baseline.
const BEFORE: Duration = Duration::from_secs(5);
/// Time for a node to be emptied, and to lead again afterwards.
const DONE_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Raw bytes of one request.
const REQUEST_BYTES: usize = 4 << 10;

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// How many drains, of one node after the other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let (lines, what) = lines(&args.common)?;
    let scratch = Scratch::make(&args.common)?;
    let client = Client::new(ATTEMPT);
    let executable = std::env::current_exe().context("finding this executable")?;
    let folder = scratch.0.join("cluster");
    let (settings, cluster_settings) = (String::new(), String::new());
    let plan = Plan { executable, folder, nodes: 4, shards: 16, settings, cluster_settings };
    let cluster = LocalCluster::start(&plan, &client, READY_WITHIN).await?;
    let traffic = Traffic::learn(lines, client.clone(), cluster.urls()).await?;
    let pressure =
        Pressure { writers_per_shard: 1, request_bytes: REQUEST_BYTES, patience: PATIENCE, bytes_per_second: None };
    let mut writers = traffic.start(pressure);
    let (mut calm, mut drained, mut attempts) = (Vec::new(), Vec::new(), 0);
    let pauses = |span: &std::ops::Range<Instant>| -> Vec<Duration> {
        traffic.shards().into_iter().filter_map(|shard| traffic.longest_pause(shard, span)).collect()
    };
    for round in 0..args.rounds {
        let node = round % cluster.nodes.len() as u64 + 1;
        leads(&cluster, &client, node).await?;
        let from = Instant::now();
        sleep(BEFORE).await;
        let began = Instant::now();
        calm.extend(pauses(&(from..began)));
        change(&cluster, node, "drain").await?;
        empty(&cluster, &client, node).await?;
        let span = began..Instant::now();
        let of_round = pauses(&span);
        let longest = of_round.iter().max().copied().unwrap_or_default();
        eprintln!("round {}: node {node} empty after {:?}, longest pause {longest:?}", round + 1, began.elapsed());
        drained.extend(of_round);
        attempts = attempts.max(traffic.most_attempts(&span));
        change(&cluster, node, "undrain").await?;
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer")??;
        }
    }
    traffic.finish(writers).await?;
    drop(cluster);
    calm.sort_unstable();
    drained.sort_unstable();
    let mut report = Report::new(
        format!("drain, 4 nodes, 16 shards, {} drains", args.rounds),
        format!("{what}, one request of {REQUEST_BYTES} bytes at a time to every shard"),
    );
    let millis = |of: Option<&Duration>| of.copied().unwrap_or_default().as_secs_f64() * 1e3;
    let baseline = millis(calm.last());
    report.figure_over(
        "longest pause of writes to a shard while a node is drained",
        millis(drained.last()),
        "ms",
        baseline,
    );
    report.figure("baseline: longest pause in the 5 s before", baseline, "ms");
    report.milliseconds("longest pause of a shard, median of shards", quantile(&drained, 0.5));
    report.figure("most attempts that a request took while a node was drained", f64::from(attempts), "");
    let totals = traffic.totals();
    report.figure("requests", totals.requests as f64, "");
    report.figure("  of them sent again", totals.again as f64, "times");
    Ok(report)
}

async fn change(cluster: &LocalCluster, node: u64, action: &str) -> Result<()> {
    let nodes = NodesArgs::of(cluster.urls());
    admin::post(&nodes, &format!("/api/v1/nodes/{node}/{action}"), &json!({})).await
}

/// Waits until the node leads a shard and nothing moves.
async fn leads(cluster: &LocalCluster, client: &Client, node: u64) -> Result<()> {
    until(cluster, client, node, |_, glance| led(glance, node) > 0 && glance.is_whole()).await
}

/// Waits until nothing is left on the node and nothing moves.
async fn empty(cluster: &LocalCluster, client: &Client, node: u64) -> Result<()> {
    until(cluster, client, node, |member, glance| {
        led(glance, node) == 0 && member.is_empty() && glance.moves.is_empty()
    })
    .await
}

fn led(glance: &Glance, node: u64) -> usize {
    glance.leads.get(&NodeId(node)).copied().unwrap_or(0)
}

async fn until(
    cluster: &LocalCluster,
    client: &Client,
    node: u64,
    so: impl Fn(&MemberReport, &Glance) -> bool,
) -> Result<()> {
    let (deadline, url) = (Instant::now() + DONE_WITHIN, &cluster.nodes[0].url);
    loop {
        let report: ClusterReport = get(client, &format!("{url}/api/v1/nodes")).await?;
        let glance = Glance::take(client, &cluster.urls(), 16, 3).await?;
        if so(admin::member(&report, node)?, &glance) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("node {node} was not as it should be within {DONE_WITHIN:?}: {}", glance.words());
        }
        sleep(LOOK_EVERY).await;
    }
}
