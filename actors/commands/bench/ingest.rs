//! Pushes of 1 MiB of raw lines to one node or three: throughput, processor time of the nodes, latency and disk, beside
//! decoding the same bodies and appending them to a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::input::Line;
use millpond_actors::load::{self, Client, Pusher, StreamBody};
use millpond_actors::local::LocalCluster;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::{bytes_argument, now, selector};
use super::{ATTEMPT, Common, Report, Scratch, lines, quantile, quiet, start};

/// Raw bytes of lines in one push.
pub(super) const PUSH_BYTES: usize = 1 << 20;
/// Bytes that the append baseline writes before it syncs.
const GROUP_BYTES: usize = 4 << 20;
/// How long a push is tried.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Nodes of the cluster; with three every record is on a majority
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// Bytes of lines to send
    #[arg(long, default_value = "1GB", value_parser = bytes_argument)]
    bytes: u64,
    /// Pushes at once
    #[arg(long, default_value_t = 8)]
    writers: usize,
    #[command(flatten)]
    pub(super) common: Common,
}

/// A push, ready to send.
#[derive(Clone, Debug)]
pub(super) struct Push {
    pub(super) body: Bytes,
    pub(super) line_bytes: usize,
}

/// What a load came to.
pub(super) struct Loaded {
    pub(super) took: Duration,
    pub(super) line_bytes: u64,
    latencies: Vec<Duration>,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let (lines, what) = lines(&args.common)?;
    let pushes = prepare(&lines, args.bytes);
    let line_bytes: u64 = pushes.iter().map(|push| push.line_bytes as u64).sum();
    let sent_bytes: u64 = pushes.iter().map(|push| push.body.len() as u64).sum();
    let data = format!("{what}, repeated to {line_bytes} bytes in {} pushes of {sent_bytes} bytes", pushes.len());
    let mut report = Report::new(format!("ingest, {} nodes, {} writers", args.nodes, args.writers), data);

    let scratch = Scratch::make(&args.common)?;
    let client = Client::new(ATTEMPT);
    let cluster = start(&scratch, args.nodes, 16, &client).await?;
    let cpu_before = cluster.cpu()?;
    let loaded = load(&cluster, &client, line_bytes, pushes.iter().cloned(), args.writers).await?;
    let cpu_acknowledged = cluster.cpu()?.saturating_sub(cpu_before);
    let rested = quiet(&cluster).await?;
    let cpu = cluster.cpu()?.saturating_sub(cpu_before);
    let disk: u64 = cluster.nodes.iter().map(|node| node.disk_bytes()).sum();
    let peaks = cluster.nodes.iter().map(|node| node.resident_bytes().map(|(_, peak)| peak));
    let peak = peaks.collect::<Result<Vec<u64>, _>>()?.into_iter().max().unwrap_or(0);
    drop(cluster);

    let gb = line_bytes as f64 / 1e9;
    let decode = decode_only(&pushes)?;
    let append = append_only(&scratch.0.join("append"), &pushes)?;
    let append_rate = line_bytes as f64 / 1e6 / append.as_secs_f64();
    report.figure_over(
        "raw lines acknowledged",
        line_bytes as f64 / 1e6 / loaded.took.as_secs_f64(),
        "MB/s",
        append_rate,
    );
    report.figure("baseline: append + fdatasync of the same bodies in 4 MiB groups", append_rate, "MB/s of raw lines");
    let decode_cost = decode.as_secs_f64() / gb;
    report.figure_over("processor time of all nodes, sealing included", cpu.as_secs_f64() / gb, "s/GB", decode_cost);
    report.figure("of it until the last acknowledgement", cpu_acknowledged.as_secs_f64() / gb, "s/GB");
    report.figure("baseline: decode only", decode_cost, "s/GB");
    let mut sorted = loaded.latencies;
    sorted.sort_unstable();
    report.milliseconds("latency of a push, p50", quantile(&sorted, 0.5));
    report.milliseconds("latency of a push, p99", quantile(&sorted, 0.99));
    report.figure_over("on the disks of all nodes", disk as f64 / 1e6, "MB", sent_bytes as f64 / 1e6);
    report.figure("baseline: the bodies as sent", sent_bytes as f64 / 1e6, "MB");
    report.figure("most memory of one node", peak as f64 / 1e6, "MB");
    report.figure("nodes at rest when read (1 is yes)", f64::from(u8::from(rested)), "");
    Ok(report)
}

/// The lines, repeated to at least `bytes`, as pushes; each record has its own time, so no push is a retry of another.
fn prepare(lines: &[Line], bytes: u64) -> Vec<Push> {
    let selectors: Vec<String> = lines
        .iter()
        .map(|line| selector(line.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
        .collect();
    let (mut pushes, mut total, mut timestamp) = (Vec::new(), 0, now());
    let mut rows = lines.iter().zip(&selectors).cycle();
    while total < bytes {
        let mut streams: BTreeMap<&str, StreamBody> = BTreeMap::new();
        let mut line_bytes = 0;
        while line_bytes < PUSH_BYTES {
            let (line, selector) = rows.next().expect("a cycle of lines has no end");
            let stream = streams.entry(selector).or_insert_with(|| StreamBody::new(selector.as_str()));
            stream.push(timestamp, &line.text, line.metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            timestamp += 1;
            line_bytes += line.text.len();
        }
        pushes.push(Push { body: load::encode(streams.values()), line_bytes });
        total += line_bytes as u64;
    }
    pushes
}

/// Sends every push once, `writers` at a time; about `line_bytes` of raw lines in all.
pub(super) async fn load(
    cluster: &LocalCluster,
    client: &Client,
    line_bytes: u64,
    pushes: impl Iterator<Item = Push>,
    writers: usize,
) -> Result<Loaded> {
    let bar = ProgressBar::new(line_bytes);
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}").expect("a valid template"),
    );
    let (sender, receiver) = mpsc::channel::<Push>(writers);
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
    let mut tasks: JoinSet<Result<Vec<Duration>>> = JoinSet::new();
    for writer in 0..writers {
        let (receiver, bar) = (receiver.clone(), bar.clone());
        let mut pusher = Pusher::new(client.clone(), cluster.urls(), writer, PATIENCE);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let Some(push) = receiver.lock().await.recv().await else { return Ok(latencies) };
                let began = Instant::now();
                pusher.push(&push.body).await?;
                latencies.push(began.elapsed());
                bar.inc(push.line_bytes as u64);
            }
        });
    }
    let began = Instant::now();
    let mut line_bytes = 0;
    for push in pushes {
        line_bytes += push.line_bytes as u64;
        if sender.send(push).await.is_err() {
            break;
        }
    }
    drop(sender);
    let mut latencies = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies.extend(task.context("a writer")??);
    }
    let took = began.elapsed();
    bar.finish_and_clear();
    Ok(Loaded { took, line_bytes, latencies })
}

/// Time on one core to undo snappy and walk the protobuf of every push, and nothing else.
fn decode_only(pushes: &[Push]) -> Result<Duration> {
    let began = Instant::now();
    let mut bytes = 0;
    for push in pushes {
        bytes += decoded_line_bytes(&push.body)?;
    }
    let took = began.elapsed();
    anyhow::ensure!(
        bytes == pushes.iter().map(|push| push.line_bytes).sum::<usize>(),
        "the pushes decode to other lines"
    );
    Ok(took)
}

fn decoded_line_bytes(body: &[u8]) -> Result<usize> {
    use prost::Message as _;
    let raw = snap::raw::Decoder::new().decompress_vec(body).context("a push that was encoded here")?;
    let request = wire::PushRequest::decode(Bytes::from(raw)).context("a push that was encoded here")?;
    let entries = request.streams.iter().flat_map(|stream| &stream.entries);
    Ok(entries.map(|entry| entry.line.len()).sum())
}

/// The published push message, as a generated decoder reads it.
mod wire {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Stream {
        #[prost(string, tag = "1")]
        pub(super) labels: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Entry {
        #[prost(message, optional, tag = "1")]
        pub(super) timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        pub(super) line: String,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }
}

/// Time to append every body to a file, with an fdatasync every 4 MiB.
fn append_only(path: &Path, pushes: &[Push]) -> Result<Duration> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let began = Instant::now();
    let mut unsynced = 0;
    for push in pushes {
        file.write_all(&push.body)?;
        unsynced += push.body.len();
        if unsynced >= GROUP_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_data()?;
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use millpond_actors::input::Generator;

    use super::*;

    #[test]
    fn pushes_hold_the_bytes_asked_for_and_no_two_are_alike() {
        let pushes = prepare(&Generator::new(3).lines(1_000), 3_000_000);
        assert_eq!(pushes.len(), 3);
        assert!(pushes.iter().all(|push| (PUSH_BYTES..PUSH_BYTES + 1_024).contains(&push.line_bytes)));
        assert!(pushes[0].body != pushes[1].body && pushes[1].body != pushes[2].body);
        decode_only(&pushes).unwrap();
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&values, 0.99), Duration::from_millis(100));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
