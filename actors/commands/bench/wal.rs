//! The log of one node, driven as its log-writer drives it, beside plain appends with an fdatasync every 4 MiB. Rounds of
//! both alternate, because disks drift.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args as ClapArgs;
use millpond::entry::{Entry, EntryKind, Position};
use millpond::id::{Index, ReplicaId, ShardId, Term};
use millpond::storage::wal::{LogOp, Wal, WalOptions};
use millpond_actors::disk::FolderDisk;
use millpond_actors::input::Generator;

use super::super::bytes_argument;
use super::{Common, Report, Scratch, quantile};

/// Payload bytes of one group.
const GROUP_BYTES: u64 = 4 << 20;
/// Shards that share the log.
const SHARDS: u32 = 16;
/// Groups between two rounds of housekeeping, which trims what sealing would have sealed.
const GROUPS_PER_TENDING: u64 = 8;
/// Alternating rounds.
const ROUNDS: usize = 3;

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Payload bytes of one round
    #[arg(long, default_value = "1GB", value_parser = bytes_argument)]
    bytes: u64,
    /// Payload bytes of one entry
    #[arg(long, default_value = "64KiB", value_parser = bytes_argument)]
    entry: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

struct Round {
    took: Duration,
    payload: u64,
    written: u64,
    syncs: u64,
}

pub(super) fn run(args: &Args) -> Result<Report> {
    if args.common.input.is_some() {
        bail!("the log does not look into its entries: leave --input out");
    }
    if args.entry == 0 || args.entry > GROUP_BYTES {
        bail!("--entry must be from 1 byte to {GROUP_BYTES}");
    }
    let scratch = Scratch::make(&args.common)?;
    let mut draw = Generator::new(1);
    let size = usize::try_from(args.entry).expect("at most a group");
    let payload: Bytes = (0..size.div_ceil(8)).flat_map(|_| draw.draw().to_le_bytes()).take(size).collect();
    let (mut plain, mut logged) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        plain.push(append(&scratch.0.join(format!("plain-{round}")), args, &payload)?);
        logged.push(log(&scratch.0.join(format!("log-{round}")), args, &payload, draw.draw())?);
    }
    let rate = |rounds: &[Round]| {
        let mut times: Vec<Duration> = rounds.iter().map(|round| round.took).collect();
        times.sort_unstable();
        rounds[0].payload as f64 / 1e6 / quantile(&times, 0.5).as_secs_f64()
    };
    let data = format!("{ROUNDS} rounds of {} bytes in entries of {} bytes, {SHARDS} shards", args.bytes, args.entry);
    let mut report = Report::new("wal", data);
    let baseline = rate(&plain);
    report.figure_over("committed by the log, median", rate(&logged), "MB/s", baseline);
    report.figure("baseline: append + fdatasync in 4 MiB groups, median", baseline, "MB/s");
    let (payload, written): (u64, u64) =
        (logged.iter().map(|r| r.payload).sum(), logged.iter().map(|r| r.written).sum());
    report.figure("write amplification", written as f64 / payload as f64, "");
    let syncs: u64 = logged.iter().map(|round| round.syncs).sum();
    report.figure("entries per sync", (payload / args.entry) as f64 / syncs as f64, "");
    Ok(report)
}

/// The same bytes at the end of one growing file.
fn append(path: &Path, args: &Args, payload: &[u8]) -> Result<Round> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut round = Round { took: Duration::ZERO, payload: 0, written: 0, syncs: 0 };
    let mut group = Vec::new();
    while (group.len() as u64) < GROUP_BYTES {
        group.extend_from_slice(payload);
    }
    let began = Instant::now();
    while round.payload < args.bytes {
        file.write_all(&group)?;
        file.sync_data()?;
        round.payload += group.len() as u64;
        round.syncs += 1;
    }
    round.took = began.elapsed();
    round.written = round.payload;
    std::fs::remove_file(path)?;
    Ok(round)
}

/// The same bytes through the log; what is behind by a tending is trimmed, as sealing would.
fn log(folder: &Path, args: &Args, payload: &Bytes, seed: u64) -> Result<Round> {
    let disk = Arc::new(FolderDisk::open(folder)?);
    let (mut wal, _) = Wal::open(disk, WalOptions::default(), seed)?;
    wal.tend()?;
    let entries_per_shard = (GROUP_BYTES / args.entry).div_ceil(u64::from(SHARDS));
    let mut round = Round { took: Duration::ZERO, payload: 0, written: 0, syncs: 0 };
    let (mut next, mut sealed) = (1, 0);
    let began = Instant::now();
    for group in 1.. {
        if round.payload >= args.bytes {
            break;
        }
        for shard in 0..SHARDS {
            let entry =
                |index| Entry { index: Index(index), term: Term(1), kind: EntryKind::Normal, payload: payload.clone() };
            let entries = (next..next + entries_per_shard).map(entry).collect();
            let op = LogOp::Append { truncate_from: None, entries, hard_state: None };
            wal.append(ShardId(shard), ReplicaId(1), op)?;
        }
        next += entries_per_shard;
        round.payload += entries_per_shard * u64::from(SHARDS) * args.entry;
        let flushed = wal.flush()?;
        round.written += flushed.bytes;
        round.syncs += flushed.syncs;
        if group % GROUPS_PER_TENDING == 0 {
            for shard in (0..SHARDS).filter(|_| sealed > 0) {
                let through = Position { index: Index(sealed), term: Term(1) };
                wal.append(ShardId(shard), ReplicaId(1), LogOp::Trim { through })?;
            }
            sealed = next - 1;
            wal.tend()?;
        }
    }
    round.took = began.elapsed();
    drop(wal);
    std::fs::remove_dir_all(folder)?;
    Ok(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_writes_little_more_than_its_payload() {
        let folder = tempfile::tempdir().unwrap();
        let common = Common { json: false, folder: None, input: None };
        let args = Args { bytes: 200 << 20, entry: 64 << 10, common };
        let payload = Bytes::from(vec![7; 64 << 10]);
        let round = log(&folder.path().join("log"), &args, &payload, 1).unwrap();
        assert!(round.payload >= 200 << 20);
        assert!((1.0..1.05).contains(&(round.written as f64 / round.payload as f64)), "{}", round.written);
    }
}
