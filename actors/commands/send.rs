//! `millpond send`: files, standard input or a growing file to the push API, in batches of about 1 MiB.
//!
//! Reading and encoding run on threads; batches travel one after the other, so the order of a file is the order of its
//! stream. A batch that was not confirmed is sent again, the same bytes, which a node stores once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args as ClapArgs;
use hyper::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::input::{self, Format, Line, Reader};
use millpond_actors::load::{self, Client, PushError, Pusher, StreamBody};
use millpond_actors::moment;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{NodesArgs, human_bytes, label_argument, now, selector};

/// Batches read ahead of the one on its way.
const BATCHES_AHEAD_MAX: usize = 2;
/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Longest time a line of a followed file waits for company.
const LINGER: Duration = Duration::from_secs(1);
/// Who waits longer for one batch is told why nothing moves.
const QUIET_FOR: Duration = Duration::from_secs(3);
/// Time for one attempt; a node answers 504 before.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Send log lines from files or standard input
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  millpond send /var/log/syslog                          a file; label service_name=syslog
  millpond send --label service_name=api app.log.zst     .zst and .gz are inflated
  journalctl -o cat -f | millpond send --label service_name=journal
  millpond send --follow /var/log/nginx/access.log       keep sending what is appended, across rotation
  millpond send events.ndjson                            objects with ts, message, service, host, level, ...

An object's `ts`, `timestamp` or `time` is its time; `line`, `message`, `msg` or `log` its text; `service`, `host`, `level`
and what is in `labels` its labels; other scalar fields its metadata. Lines without a time get the time of sending.

Exit codes: 0 everything is stored on a majority; 1 something was refused or not confirmed; 2 wrong usage.")]
pub(crate) struct Args {
    /// Files to send; `-` or none is standard input
    files: Vec<PathBuf>,
    /// Keep sending what is appended to the files
    #[arg(long, short)]
    follow: bool,
    /// Label of every line; may be given several times, and wins over what a line brings
    #[arg(long = "label", short, value_name = "NAME=VALUE", value_parser = label_argument)]
    labels: Vec<(String, String)>,
    /// How lines are read
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How long a batch is tried before it is given up
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = moment::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    nodes: NodesArgs,
}

struct Batch {
    body: Bytes,
    records: usize,
    line_bytes: usize,
    read_bytes: u64,
}

#[derive(Default)]
struct Summary {
    records: usize,
    line_bytes: usize,
    again: u32,
    refused: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let stdin = PathBuf::from("-");
    let files = if args.files.is_empty() { vec![stdin] } else { args.files.clone() };
    if args.follow && files.iter().any(|file| file.as_os_str() == "-") {
        bail!("standard input is followed anyway: leave --follow out, or name files");
    }
    for file in files.iter().filter(|file| file.as_os_str() != "-") {
        File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let bar = progress(&args, &files);
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD_MAX);
    let mut readers = Vec::new();
    let groups: Vec<Vec<PathBuf>> =
        if args.follow { files.into_iter().map(|file| vec![file]).collect() } else { vec![files] };
    for group in groups {
        let (sender, labels, format, follow) = (sender.clone(), args.labels.clone(), args.format, args.follow);
        readers.push(thread::spawn(move || {
            group.iter().try_for_each(|file| read_file(file, &labels, format, follow, &sender))
        }));
    }
    drop(sender);

    let began = Instant::now();
    let mut pusher = Pusher::new(Client::new(ATTEMPT), args.nodes.urls(), 0, args.patience);
    let mut summary = Summary::default();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let interrupted = loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            _ = interrupt.recv() => break true,
        };
        let Some(batch) = batch else { break false };
        tokio::select! {
            sent = send(&mut pusher, batch, &mut summary, &bar) => sent?,
            _ = interrupt.recv() => {
                bar.suspend(|| eprintln!("interrupted: the batch that was on its way may be stored or not"));
                break true;
            }
        }
    };
    bar.finish_and_clear();
    if !interrupted {
        for reader in readers {
            reader.join().expect("readers do not panic").context("reading the input")?;
        }
    }
    report(&summary, began.elapsed());
    let failed = !summary.refused.is_empty() || (interrupted && !args.follow);
    Ok(ExitCode::from(u8::from(failed)))
}

async fn send(pusher: &mut Pusher, batch: Batch, summary: &mut Summary, bar: &ProgressBar) -> Result<()> {
    let patience = pusher.patience;
    let mut pushing = std::pin::pin!(pusher.push(&batch.body));
    let pushed = match timeout(QUIET_FOR, &mut pushing).await {
        Ok(pushed) => pushed,
        Err(_) => {
            let (waited, patience) = (QUIET_FOR.as_secs(), patience.as_secs());
            bar.suspend(|| {
                eprintln!("not stored within {waited} s, tried again and again for {patience} s (--patience)")
            });
            pushing.await
        }
    };
    match pushed {
        Ok(acknowledged) => {
            summary.records += batch.records;
            summary.line_bytes += batch.line_bytes;
            summary.again += acknowledged.attempts - 1;
        }
        Err(PushError::Refused { status, text }) if status == StatusCode::BAD_REQUEST => {
            bar.suspend(|| eprintln!("of a batch of {} lines: {text}", batch.records));
            summary.refused.push(text);
        }
        Err(error) => return Err(error).context(format!("after {} records", summary.records)),
    }
    bar.inc(batch.read_bytes);
    bar.set_message(format!("{} records", summary.records));
    Ok(())
}

fn report(summary: &Summary, took: Duration) {
    let Summary { records, line_bytes, again, refused } = summary;
    let rate = *line_bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    let bytes = human_bytes(*line_bytes as u64);
    eprintln!("{records} records, {bytes} stored in {:.1} s ({rate:.1} MB/s), {again} sent again", took.as_secs_f64());
    if !refused.is_empty() {
        eprintln!("{} batches had lines that were refused", refused.len());
    }
}

fn progress(args: &Args, files: &[PathBuf]) -> ProgressBar {
    let plain = |file: &PathBuf| {
        let inflated = file.extension().is_some_and(|extension| extension == "gz" || extension == "zst");
        if inflated { None } else { file.metadata().ok().map(|metadata| metadata.len()) }
    };
    let total: Option<u64> = if args.follow { None } else { files.iter().map(plain).sum() };
    let template = match total {
        Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}",
        None => "{spinner} {bytes} {bytes_per_sec} {msg}",
    };
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
    bar
}

/// Lines of one source on their way into a batch.
struct Batcher<'a> {
    labels: &'a [(String, String)],
    defaults: Vec<(String, String)>,
    streams: BTreeMap<String, StreamBody>,
    encoded: usize,
    last: i64,
    read_bytes: u64,
    began: Instant,
}

impl<'a> Batcher<'a> {
    /// Raw bytes at which a batch is closed.
    const BYTES: usize = 1 << 20;

    fn new(file: &Path, labels: &'a [(String, String)]) -> Self {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let stem = name.split('.').find(|part| !part.is_empty() && *part != "-").unwrap_or("stdin");
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let mut defaults = vec![("service_name".to_owned(), stem.to_owned())];
        if !host.is_empty() {
            defaults.push(("host".to_owned(), host));
        }
        Self { labels, defaults, streams: BTreeMap::new(), encoded: 0, last: 0, read_bytes: 0, began: Instant::now() }
    }

    fn push(&mut self, line: &Line) {
        if self.streams.is_empty() {
            self.began = Instant::now();
        }
        let labels = self.labels.iter().chain(&line.labels).chain(&self.defaults);
        let text = selector(labels.map(|(name, value)| (name.as_str(), value.as_str())));
        // Lines of the same instant keep their order by being a nanosecond apart.
        let timestamp = line.timestamp.unwrap_or_else(|| {
            self.last = now().max(self.last + 1);
            self.last
        });
        let stream = self.streams.entry(text).or_insert_with_key(|labels| StreamBody::new(labels.as_str()));
        let before = stream.encoded_bytes();
        let metadata = line.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        stream.push(timestamp, &line.text, metadata);
        self.encoded += stream.encoded_bytes() - before;
    }

    fn is_due(&self) -> bool {
        self.encoded >= Self::BYTES || (!self.streams.is_empty() && self.began.elapsed() >= LINGER)
    }

    fn take(&mut self, consumed: u64) -> Option<Batch> {
        let streams = std::mem::take(&mut self.streams);
        self.encoded = 0;
        let read_bytes = consumed - self.read_bytes;
        self.read_bytes = consumed;
        (!streams.is_empty()).then(|| Batch {
            body: load::encode(streams.values()),
            records: streams.values().map(StreamBody::records).sum(),
            line_bytes: streams.values().map(StreamBody::line_bytes).sum(),
            read_bytes,
        })
    }
}

/// Sends the lines of one file into `batches`; with `follow` it does not end before the receiver is gone.
fn read_file(
    file: &Path,
    labels: &[(String, String)],
    format: Format,
    follow: bool,
    batches: &mpsc::Sender<Batch>,
) -> io::Result<()> {
    let mut batcher = Batcher::new(file, labels);
    if follow {
        return follow_file(file, format, &mut batcher, batches);
    }
    let source: Box<dyn BufRead> =
        if file.as_os_str() == "-" { Box::new(BufReader::new(io::stdin())) } else { input::open(file)? };
    let mut reader = Reader::new(source, format);
    while let Some(line) = reader.next_line()? {
        batcher.push(&line);
        if batcher.is_due() && !hand_over(&mut batcher, reader.consumed(), batches) {
            return Ok(());
        }
    }
    if let Some(line) = reader.rest() {
        batcher.push(&line);
    }
    hand_over(&mut batcher, reader.consumed(), batches);
    Ok(())
}

/// Whether anyone still takes batches.
fn hand_over(batcher: &mut Batcher<'_>, consumed: u64, batches: &mpsc::Sender<Batch>) -> bool {
    batcher.take(consumed).is_none_or(|batch| batches.blocking_send(batch).is_ok())
}

fn follow_file(
    file: &Path,
    format: Format,
    batcher: &mut Batcher<'_>,
    batches: &mpsc::Sender<Batch>,
) -> io::Result<()> {
    loop {
        let opened = File::open(file)?;
        let identity = opened.metadata()?.ino();
        let mut reader = Reader::new(BufReader::new(opened), format);
        batcher.read_bytes = 0;
        loop {
            while let Some(line) = reader.next_line()? {
                batcher.push(&line);
                if batcher.is_due() && !hand_over(batcher, reader.consumed(), batches) {
                    return Ok(());
                }
            }
            if !hand_over(batcher, reader.consumed(), batches) || batches.is_closed() {
                return Ok(());
            }
            // A file of another identity took the name, or the file was cut: begin again at its start.
            match std::fs::metadata(file) {
                Ok(metadata) if metadata.ino() == identity && metadata.len() >= reader.consumed() => {}
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            thread::sleep(FOLLOW_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_service_and_the_command_line_wins() {
        let labels = [("env".to_owned(), "test".to_owned())];
        let mut batcher = Batcher::new(Path::new("/var/log/nginx.access.log.gz"), &labels);
        let brought = vec![("env".to_owned(), "no".to_owned()), ("host".to_owned(), "a".to_owned())];
        batcher.push(&Line { labels: brought, text: "x".into(), ..Line::default() });
        let streams: Vec<&str> = batcher.streams.keys().map(String::as_str).collect();
        assert_eq!(streams, [r#"{env="test",host="a",service_name="nginx"}"#]);
    }

    #[test]
    fn every_line_of_a_file_is_in_one_batch_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.log");
        let text: String = (0..40_000).map(|at| format!("line {at} {}\n", "x".repeat(60))).collect();
        std::fs::write(&file, &text).unwrap();
        let (sender, mut batches) = mpsc::channel(16);
        read_file(&file, &[], Format::Auto, false, &sender).unwrap();
        drop(sender);
        let (mut records, mut bytes, mut read) = (0, 0, 0);
        while let Some(batch) = batches.blocking_recv() {
            records += batch.records;
            bytes += batch.line_bytes;
            read += batch.read_bytes;
        }
        assert_eq!((records, bytes, read), (40_000, text.len() - 40_000, text.len() as u64));
    }
}
