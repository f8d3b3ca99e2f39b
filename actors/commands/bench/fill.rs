//! The start of a node that holds much: killed with sealed data and a log to replay, the time until it is ready.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use millpond_actors::board::Standing;
use millpond_actors::local::wait_ready;
use tokio::time::Instant;

use super::super::bytes_argument;
use super::super::whole::get;
use super::filled::{Filled, Wanted};
use super::{Common, READY_WITHIN, Report, quantile};

/// The node.
const NODE: u64 = 1;
/// Bytes of lines that one byte of the log holds, in percent: random base64 is packed to three quarters.
const LINES_PER_LOG_PERCENT: u64 = 134;
/// Part of the budget of the heads that stays when the fullest of sixteen was just sealed, in percent.
const HEADS_LEFT_PERCENT: u64 = 90;

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Bytes of sealed segments on the node
    #[arg(long, default_value = "1GiB", value_parser = bytes_argument)]
    sealed: u64,
    /// Bytes of the log that hold records which are in no segment
    #[arg(long, default_value = "64MiB", value_parser = bytes_argument)]
    wal: u64,
    /// How often it is killed and started
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let heads = args.wal / 100 * LINES_PER_LOG_PERCENT / HEADS_LEFT_PERCENT * 100;
    let settings = format!("\n[limits]\nhead_bytes_max = {heads}\nwal_bytes_max = {}\n", (4 * args.wal).max(1 << 30));
    let wanted = Wanted {
        nodes: 1,
        sealed: args.sealed,
        on: NODE,
        settings,
        cluster_settings: String::new(),
        common: &args.common,
    };
    let Filled { mut cluster, client, files, sealed, scratch, .. } = Filled::make(wanted).await?;
    let node = cluster.node(NODE);
    let standings: Vec<Standing> = get(&client, &format!("{}/api/v1/replicas", node.url)).await?;
    let head: u64 = standings.iter().map(|standing| standing.head_bytes).sum();
    let logged = head * 100 / LINES_PER_LOG_PERCENT;
    let log = node.data.join("wal");
    let (mut ready, mut read, mut log_bytes) = (Vec::new(), Vec::new(), 0);
    for round in 0..args.rounds {
        node.kill()?;
        let began = Instant::now();
        log_bytes = read_through(&log)?;
        read.push(began.elapsed());
        let began = Instant::now();
        node.start()?;
        wait_ready(node, &client, READY_WITHIN).await?;
        ready.push(began.elapsed());
        eprintln!("round {}: ready after {:?}", round + 1, began.elapsed());
    }
    drop((cluster, scratch));
    ready.sort_unstable();
    read.sort_unstable();
    let data = format!(
        "{sealed} bytes in {} segments of 16 shards; {head} raw bytes of lines in the log, about {logged} bytes of its \
         {log_bytes}",
        files.len()
    );
    let mut report = Report::new(format!("fill, one node, killed {} times", args.rounds), data);
    let baseline = quantile(&read, 0.5).as_secs_f64();
    report.figure_over("ready after a kill, median", quantile(&ready, 0.5).as_secs_f64(), "s", baseline);
    report.figure("ready after a kill, slowest", ready.last().copied().unwrap_or_default().as_secs_f64(), "s");
    report.figure("baseline: reading the log's files once", baseline, "s");
    Ok(report)
}

/// Reads every file of a folder; how many bytes there were.
fn read_through(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        bytes += fs::read(file?.path())?.len() as u64;
    }
    ensure!(bytes > 0, "{} is empty", folder.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_through() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_through(folder.path()).is_err());
        fs::write(folder.path().join("a"), [1; 300]).unwrap();
        fs::write(folder.path().join("b"), [1; 44]).unwrap();
        assert_eq!(read_through(folder.path()).unwrap(), 344);
    }
}
