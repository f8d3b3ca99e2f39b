//! `millpond bench`: the project's own load tool. Every bench prints the machine, the data, the figures, and beside them
//! the baselines measured in the same run.

mod drain;
mod failover;
mod fill;
mod filled;
mod idle;
mod ingest;
mod plain;
mod query;
mod rehome;
mod report;
mod set;
mod wal;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args as ClapArgs, Subcommand};
use millpond_actors::input::{self, Generator, Line};
use millpond_actors::load::Client;
use millpond_actors::local::{LocalCluster, Plan};
use tokio::time::{Instant, sleep};

use report::Report;

/// Time for nodes to serve after their start.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time for one attempt; a node answers 504 before.
const ATTEMPT: Duration = Duration::from_secs(15);
/// A cluster is quiet when each node uses less than this share of a core for this long; idle ticks alone are far below.
const QUIET: (f64, Duration) = (0.05, Duration::from_secs(2));
/// Sealing that is not over by then is counted as it stands.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// Lines that the generator makes for a bench; they are repeated.
const GENERATED_LINES: usize = 400_000;

/// Measure this machine with this binary
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  millpond bench ingest                              one node, 1 GB of generated lines in 1 MiB pushes
  millpond bench ingest --nodes 3 --bytes 2GB --input app.log.zst
  millpond bench failover --json                     ten kills of a leader
  millpond bench rehome --fill 2GiB                  lose one of four nodes
  millpond bench fill --sealed 10GiB --wal 256MiB    restart a node that holds much
  millpond bench query --rows 200000 --input logs.ndjson.zst    ten queries, each held to a plain count and to its figure
  millpond bench idle

Nodes are child processes on free ports of 127.0.0.1. Run a release build; the load shares the machine with the nodes, but
their processor time is counted alone.")]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// Throughput, processor time, latency and disk of pushes
    Ingest(ingest::Args),
    /// Ten queries over a day of logs, beside plain searches of the same lines
    Query(query::Args),
    /// The log of one node against plain appends
    Wal(wal::Args),
    /// Time until writes resume after a leader was killed
    Failover(failover::Args),
    /// What nodes cost that do nothing
    Idle(idle::Args),
    /// A node lost for good: how fast its replicas are made anew
    Rehome(rehome::Args),
    /// Time until a node is ready that holds much
    Fill(fill::Args),
    /// For how long writes pause while a node is emptied
    Drain(drain::Args),
}

/// What every bench takes.
#[derive(ClapArgs, Clone, Debug)]
struct Common {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where data goes while it runs; it must be empty. Choose the disk to measure
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Lines to send instead of generated ones; plain or NDJSON, also .gz and .zst
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let is_strict = matches!(&args.bench, Bench::Query(args) if args.strict);
    let (report, json) = match args.bench {
        Bench::Ingest(args) => (ingest::run(&args).await?, args.common.json),
        Bench::Query(args) => (query::run(&args).await?, args.common.json),
        Bench::Wal(args) => (wal::run(&args)?, args.common.json),
        Bench::Failover(args) => (failover::run(&args).await?, args.common.json),
        Bench::Idle(args) => (idle::run(&args).await?, args.common.json),
        Bench::Rehome(args) => (rehome::run(&args).await?, args.common.json),
        Bench::Fill(args) => (fill::run(&args).await?, args.common.json),
        Bench::Drain(args) => (drain::run(&args).await?, args.common.json),
    };
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    let failed = !report.is_right() || is_strict && report.misses() > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A folder of this bench alone, removed when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn make(common: &Common) -> Result<Self> {
        let name = format!("millpond-bench-{}", std::process::id());
        let path = common.folder.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        ensure!(path.read_dir()?.next().is_none(), "{} is not empty: name another --folder", path.display());
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}

async fn start(scratch: &Scratch, nodes: u64, shards: u32, client: &Client) -> Result<LocalCluster> {
    let executable = std::env::current_exe().context("finding this executable")?;
    let folder = scratch.0.join("cluster");
    let plan = Plan { executable, folder, nodes, shards, settings: String::new(), cluster_settings: String::new() };
    Ok(LocalCluster::start(&plan, client, READY_WITHIN).await?)
}

/// The lines to send, and what they are.
fn lines(common: &Common) -> Result<(Vec<Line>, String)> {
    let Some(path) = &common.input else {
        let lines = Generator::new(1).lines(GENERATED_LINES);
        return Ok((lines, format!("{GENERATED_LINES} generated lines, seed 1")));
    };
    let mut lines = input::read_all(path, 1 << 30).with_context(|| format!("reading {}", path.display()))?;
    ensure!(!lines.is_empty(), "{} has no lines", path.display());
    let service = path.file_name().and_then(|name| name.to_str()?.split('.').next()).unwrap_or("input");
    for line in &mut lines {
        if !line.labels.iter().any(|(name, _)| name == "service_name") {
            line.labels.push(("service_name".to_owned(), service.to_owned()));
        }
    }
    let count = lines.len();
    Ok((lines, format!("{count} lines of {}", path.display())))
}

/// Waits until the nodes have nothing left to do, sealing included. Whether they came to rest.
async fn quiet(cluster: &LocalCluster) -> Result<bool> {
    let deadline = Instant::now() + QUIET_WITHIN;
    while Instant::now() < deadline {
        let before = cluster.cpu()?;
        let began = Instant::now();
        sleep(QUIET.1).await;
        let used = cluster.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
        if used < QUIET.0 * cluster.nodes.len() as f64 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The value below which the share `of` of the sorted values lies.
fn quantile(sorted: &[Duration], of: f64) -> Duration {
    let at = ((sorted.len() as f64 * of) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
