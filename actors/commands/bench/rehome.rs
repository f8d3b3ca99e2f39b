//! A node of four is lost for good: how fast its replicas are made anew on the other three, beside copying the same files
//! by plain TCP with an fsync; and what that does to writes that go on meanwhile.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::super::bytes_argument;
use super::super::traffic::Pressure;
use super::super::whole::{Restored, restored};
use super::filled::{Filled, PATIENCE, Wanted};
use super::{Common, Report, quantile};

/// The node that is lost.
const LOST: u64 = 4;
/// The least time that a node may be gone before its replicas are given to others.
const GRACE: Duration = Duration::from_secs(2);
/// How long to wait until everything is replicated again.
const WHOLE_WITHIN: Duration = Duration::from_secs(900);
/// Bytes that the baseline moves at once.
const PIECE_BYTES: usize = 1 << 20;
/// Raw bytes of one request of the foreground load.
const REQUEST_BYTES: usize = 16 << 10;
/// Load that is not counted, before that which is.
const WARM: Duration = Duration::from_secs(3);

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Bytes of sealed segments on the node that is lost
    #[arg(long, default_value = "256MiB", value_parser = bytes_argument)]
    fill: u64,
    /// Bytes of lines in a second that are written during the second rehoming
    #[arg(long, default_value = "5MB", value_parser = bytes_argument)]
    load: u64,
    /// How long that load is measured before the node is lost
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Leave the second rehoming, under load, out
    #[arg(long)]
    no_load: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// A node that was lost, and what followed.
struct Loss {
    killed: Instant,
    restored: Restored,
}

impl Loss {
    fn copying(&self) -> Range<Instant> {
        self.restored.began..self.restored.ended
    }
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let mut filled = fill(args).await?;
    let mut report = Report::new("rehome, 4 nodes, 16 shards, one node lost", filled.data());
    let baseline = copy_plainly(&filled.files, &filled.scratch.0.join("plain"))?;
    let loss = lose(&mut filled).await?;
    let rate = |took: Duration| filled.sealed as f64 / 1e6 / took.as_secs_f64();
    let took = loss.restored.ended - loss.restored.began;
    report.figure_over("sealed bytes replicated again, no load", rate(took), "MB/s", rate(baseline));
    report.figure("baseline: the same files by one TCP stream, fsync at the end", rate(baseline), "MB/s");
    report.figure("from the first move to the last", took.as_secs_f64(), "s");
    report.figure("moves", loss.restored.moves as f64, "");
    let before = loss.restored.began - loss.killed;
    let noticed = before.saturating_sub(GRACE);
    report.figure("not counted: until the node was missed, without the grace of 2 s", noticed.as_secs_f64(), "s");
    drop(filled);
    if !args.no_load {
        under_load(args, &mut report).await?;
    }
    Ok(report)
}

async fn fill(args: &Args) -> Result<Filled> {
    let cluster_settings = format!("rehome_after = \"{}s\"\n", GRACE.as_secs());
    let common = &args.common;
    let wanted = Wanted { nodes: 4, sealed: args.fill, on: LOST, settings: String::new(), cluster_settings, common };
    Filled::make(wanted).await
}

/// Kills the node and waits until everything has its copies on the others.
async fn lose(filled: &mut Filled) -> Result<Loss> {
    filled.cluster.node(LOST).kill()?;
    let killed = Instant::now();
    let living = filled.cluster.nodes.iter().filter(|node| node.is_running());
    let urls: Vec<String> = living.map(|node| node.url.clone()).collect();
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("rehoming {elapsed} {wide_msg}").expect("a valid template"));
    let restored = restored(&filled.client, &urls, 16, WHOLE_WITHIN, |glance| {
        bar.set_message(glance.words());
        bar.tick();
        Ok(())
    });
    let restored = restored.await?;
    bar.finish_and_clear();
    Ok(Loss { killed, restored })
}

/// The same again while records are written at a steady rate.
async fn under_load(args: &Args, report: &mut Report) -> Result<()> {
    let mut filled = fill(args).await?;
    let pressure = Pressure {
        writers_per_shard: 1,
        request_bytes: REQUEST_BYTES,
        patience: PATIENCE,
        bytes_per_second: Some(args.load),
    };
    let traffic = filled.traffic.clone();
    let writers = traffic.start(pressure);
    sleep(WARM).await;
    let from = Instant::now();
    sleep(Duration::from_secs(args.seconds)).await;
    let calm = from..Instant::now();
    let loss = lose(&mut filled).await?;
    traffic.finish(writers).await?;
    let took = loss.restored.ended - loss.restored.began;
    let load = args.load as f64 / 1e6;
    report.figure(&format!("with {load} MB/s of writes: from the first move to the last"), took.as_secs_f64(), "s");
    let copied = filled.sealed as f64 / 1e6 / took.as_secs_f64();
    report.figure("  sealed bytes replicated again", copied, "MB/s");
    let (before, during) = (traffic.latencies(&calm), traffic.latencies(&loss.copying()));
    let baseline = quantile(&before, 0.99).as_secs_f64() * 1e3;
    report.figure_over("  p99 of writes meanwhile", quantile(&during, 0.99).as_secs_f64() * 1e3, "ms", baseline);
    report.figure("  baseline: p99 before the node was lost", baseline, "ms");
    report.milliseconds("  p50 of writes meanwhile", quantile(&during, 0.5));
    report.milliseconds("  p50 before", quantile(&before, 0.5));
    report.milliseconds("  slowest write meanwhile", during.last().copied().unwrap_or_default());
    report.figure("  writes measured meanwhile", during.len() as f64, "");
    Ok(())
}

/// Time to send the files over one connection on loopback, write them on the other side and make them durable. The copies
/// are removed.
fn copy_plainly(files: &[PathBuf], into: &Path) -> Result<Duration> {
    std::fs::create_dir_all(into)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening for the plain copy")?;
    let address = listener.local_addr()?;
    let folder = into.to_owned();
    let began = Instant::now();
    let receiver = thread::spawn(move || receive(&listener, &folder));
    let mut stream = TcpStream::connect(address).context("connecting the plain copy")?;
    for file in files {
        let mut file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        stream.write_all(&file.metadata()?.len().to_le_bytes())?;
        pass(&mut file, &mut stream, u64::MAX)?;
    }
    drop(stream);
    receiver.join().map_err(|_| anyhow!("the receiver of the plain copy panicked"))?.context("receiving")?;
    let took = began.elapsed();
    std::fs::remove_dir_all(into)?;
    Ok(took)
}

fn receive(listener: &TcpListener, into: &Path) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let (mut files, mut length) = (Vec::new(), [0; 8]);
    while stream.read_exact(&mut length).is_ok() {
        let mut file = File::create(into.join(files.len().to_string()))?;
        pass(&mut stream, &mut file, u64::from_le_bytes(length))?;
        files.push(file);
    }
    files.iter().try_for_each(File::sync_all)
}

/// Moves bytes until the end or so many.
fn pass(from: &mut impl io::Read, into: &mut impl io::Write, bytes: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let room = piece.len().min(usize::try_from(left).unwrap_or(PIECE_BYTES));
        let read = from.read(&mut piece[..room])?;
        if read == 0 {
            break;
        }
        into.write_all(&piece[..read])?;
        left -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_copy_receives_what_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..3).map(|at| folder.path().join(format!("file-{at}"))).collect();
        for (at, file) in files.iter().enumerate() {
            std::fs::write(file, vec![7; at * 1_500_000]).unwrap();
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, into) = (listener.local_addr().unwrap(), folder.path().to_owned());
        let receiver = thread::spawn(move || receive(&listener, &into).unwrap());
        let mut stream = TcpStream::connect(address).unwrap();
        for file in &files {
            let bytes = std::fs::read(file).unwrap();
            stream.write_all(&(bytes.len() as u64).to_le_bytes()).unwrap();
            pass(&mut &bytes[..], &mut stream, u64::MAX).unwrap();
        }
        drop(stream);
        receiver.join().unwrap();
        for (at, file) in files.iter().enumerate() {
            assert!(std::fs::read(file).unwrap() == std::fs::read(folder.path().join(at.to_string())).unwrap());
        }
        assert!(copy_plainly(&files, &folder.path().join("plain")).unwrap() > Duration::ZERO);
        assert!(!folder.path().join("plain").exists());
    }
}
