//! `millpond backup`: makes backups of a running cluster, lists those in a store, and reads them back.
//!
//! `run` asks a node, which does the work; `list` and `verify` talk to the store alone.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args as ClapArgs, Subcommand};
use futures_util::stream::{self, StreamExt};
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use millpond::backup::{Manifest, SegmentEntry, SegmentImage};
use millpond::config::StoreUrl;
use millpond::id::ShardId;
use millpond_actors::backup::report::{BackupBegun, BackupReport, BackupRequest, Counts};
use millpond_actors::backup::store::Store;
use millpond_actors::load::Client;
use millpond_actors::moment;

use super::admin::{fitting, table};
use super::screen::Screen;
use super::{NodesArgs, ask, human_bytes, silence, unanswered};

/// How often a node is asked how far its backup is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long a node that makes a backup may not answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// One question to a node.
const ASK: Duration = Duration::from_secs(5);
/// Segments that are read back at once, each whole in memory.
const VERIFY_AT_ONCE: usize = 2;
/// What is shown of the backups in a store.
const HEAD: [&str; 8] = ["BACKUP", "BEGAN", "TOOK", "CLUSTER", "SHARDS", "SEGMENTS", "RECORDS", "BYTES"];
/// What a narrow terminal is not shown, the first first.
const SPARED: [&str; 6] = ["BEGAN", "SHARDS", "TOOK", "SEGMENTS", "CLUSTER", "BYTES"];
/// Time between two lines of progress where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Back the cluster up into a folder or an S3 bucket
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  millpond backup run file:///var/backups/millpond          a folder of the node that is asked
  millpond backup run s3://bucket/millpond                  credentials and endpoint from that node's environment
  millpond backup list s3://bucket/millpond                 credentials and endpoint from this environment
  millpond backup verify s3://bucket/millpond --backup 20261121T200509Z-1a2b3c4d

A backup holds everything that was acknowledged before it began. What an earlier one uploaded is not uploaded again. The
environment is that of AWS's own tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; for another store than
AWS also AWS_ENDPOINT, and AWS_ALLOW_HTTP=true where it has no TLS. A schedule is set in the cluster file:

  [backup]
  url = \"s3://bucket/millpond\"
  every = \"6h\"
  keep = 28

Exit codes: 0 done, and nothing is wrong; 1 it failed, or something is missing or damaged; 2 wrong usage.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a backup now, and wait for it
    Run {
        /// Where to; left out, where the schedule puts them
        #[arg(value_name = "URL", value_parser = store_argument)]
        url: Option<StoreUrl>,
        #[command(flatten)]
        nodes: NodesArgs,
    },
    /// List the backups in a store
    List {
        /// The store
        #[arg(value_name = "URL", value_parser = store_argument)]
        url: StoreUrl,
        /// Print JSON, one backup a line
        #[arg(long)]
        json: bool,
    },
    /// Read a backup back, every record of it, and say what is missing or damaged
    Verify {
        /// The store
        #[arg(value_name = "URL", value_parser = store_argument)]
        url: StoreUrl,
        /// Which backup; the newest if left out
        #[arg(long, value_name = "ID")]
        backup: Option<String>,
    },
}

/// The address of a store given on the command line.
pub(super) fn store_argument(text: &str) -> Result<StoreUrl, String> {
    StoreUrl::try_from(text.to_owned())
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Run { url, nodes } => make(url, &nodes).await,
        Command::List { url, json } => list(&url, json).await,
        Command::Verify { url, backup } => verify(&url, backup).await,
    }
}

async fn make(url: Option<StoreUrl>, nodes: &NodesArgs) -> Result<ExitCode> {
    let client = Client::new(ASK);
    let node = nodes.urls().into_iter().next().context("no node was named")?;
    let asked = format!("{node}/api/v1/backup");
    let report: BackupReport = ask(&NodesArgs::of(vec![node.clone()]), "/api/v1/backup").await?;
    let url = match url {
        Some(url) => url.to_string(),
        None => report.schedule.context("the cluster has no schedule of backups: say where to put this one")?,
    };
    let body = serde_json::to_vec(&BackupRequest { url: url.clone() })?;
    let headers = [("content-type", "application/json")];
    let answer = client.request(Method::POST, &asked, &headers, body.into()).await;
    let answer = answer.map_err(|error| unanswered(&[silence(&node, &error)]))?;
    if answer.status != StatusCode::ACCEPTED {
        bail!("{asked}: {}: {}", answer.status, answer.text());
    }
    let BackupBegun { id } = serde_json::from_slice(&answer.body).context("not the answer expected")?;
    let mut progress = Progress::new(&format!("backup {id}"));
    let mut heard = Instant::now();
    loop {
        match report_of(&client, &asked).await {
            Ok(report) => {
                heard = Instant::now();
                if let Some(ended) = report.last.filter(|last| last.id == id) {
                    progress.end();
                    return match ended.error {
                        None => {
                            say!("{}", made(&id, &ended.url, &ended.counts))?;
                            Ok(ExitCode::SUCCESS)
                        }
                        Some(error) => Err(anyhow!("backup {id}: {error}")),
                    };
                }
                let running = report.running.filter(|running| running.id == id);
                let counts = running.context("the node was restarted and has given the backup up")?.counts;
                progress.show(counts.bytes_uploaded + counts.bytes_reused, counts.bytes, &shards_of(&counts));
            }
            Err(error) if heard.elapsed() > SILENCE_MAX => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn report_of(client: &Client, url: &str) -> Result<BackupReport> {
    let answer = client.get(url).await?;
    if !answer.status.is_success() {
        bail!("{url}: {}: {}", answer.status, answer.text());
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("{url}: not the answer expected"))
}

fn shards_of(counts: &Counts) -> String {
    format!("{} of {} shards", counts.shards_done, counts.shards)
}

fn made(id: &str, url: &str, counts: &Counts) -> String {
    let elsewhere = match counts.segments_elsewhere {
        0 => String::new(),
        count => format!("; {count} of them from other replicas, as their leaders did not have them whole"),
    };
    format!(
        "backup {id} in {url}: {} segments, {}; uploaded {}, {}; there already {}, {}{elsewhere}",
        counts.segments,
        human_bytes(counts.bytes),
        counts.segments_uploaded,
        human_bytes(counts.bytes_uploaded),
        counts.segments_reused,
        human_bytes(counts.bytes_reused),
    )
}

async fn list(url: &StoreUrl, json: bool) -> Result<ExitCode> {
    let store = Store::open(url)?;
    let ids = store.backups().await?;
    if ids.is_empty() {
        eprintln!("there is no backup in {url}");
    }
    let (mut wrong, mut rows) = (false, vec![HEAD.map(str::to_owned).to_vec()]);
    for id in ids {
        match store.manifest(&id).await {
            Ok(manifest) if json => say!("{}", in_json(&manifest))?,
            Ok(manifest) => rows.push(row(&manifest)),
            Err(error) => {
                wrong = true;
                eprintln!("{id}: {error}");
            }
        }
    }
    if rows.len() > 1 {
        let lines = table(&fitting(rows, &SPARED, Screen::stdout().width()));
        lines.iter().try_for_each(|line| say!("{line}"))?;
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn row(manifest: &Manifest) -> Vec<String> {
    let took = Duration::from_nanos(u64::try_from(manifest.ended - manifest.began).unwrap_or(0));
    vec![
        manifest.id.clone(),
        moment::format(manifest.began),
        format!("{:.1} s", took.as_secs_f64()),
        format!("{} ({:08x})", manifest.name, manifest.cluster >> 96),
        manifest.shards.len().to_string(),
        manifest.segments().count().to_string(),
        manifest.records().to_string(),
        human_bytes(manifest.bytes()),
    ]
}

fn in_json(manifest: &Manifest) -> serde_json::Value {
    serde_json::json!({
        "id": manifest.id,
        "began": moment::format(manifest.began),
        "ended": moment::format(manifest.ended),
        "cluster": manifest.cluster().to_string(),
        "name": manifest.name,
        "shards": manifest.shards.len(),
        "segments": manifest.segments().count(),
        "records": manifest.records(),
        "bytes": manifest.bytes(),
    })
}

/// The manifest of a backup; of the newest where none is named.
pub(super) async fn chosen(store: &Store, url: &StoreUrl, backup: Option<String>) -> Result<Manifest> {
    let id = match backup {
        Some(id) => id,
        None => store.backups().await?.pop().with_context(|| format!("there is no backup in {url}"))?,
    };
    Ok(store.manifest(&id).await?)
}

async fn verify(url: &StoreUrl, backup: Option<String>) -> Result<ExitCode> {
    let store = Store::open(url)?;
    let manifest = chosen(&store, url, backup).await?;
    // A segment may be named by two shards of no cluster that is sound; still each name is read once.
    let segments: BTreeMap<String, (ShardId, SegmentEntry)> =
        manifest.segments().map(|(shard, entry)| (entry.object(), (shard, *entry))).collect();
    let mut progress = Progress::new(&format!("verify {}", manifest.id));
    let (mut bytes, mut records) = (0, 0);
    let mut wrong = Vec::new();
    let checks = segments.values().map(|(shard, entry)| check(&store, *shard, *entry));
    let mut checks = stream::iter(checks).buffer_unordered(VERIFY_AT_ONCE);
    while let Some((shard, entry, outcome)) = checks.next().await {
        bytes += entry.bytes;
        match outcome {
            Ok(found) => records += found,
            Err(error) => {
                let what = format!("{shard}, offsets {} to {}: {error:#}", entry.from, entry.to);
                progress.say(&what);
                wrong.push(what);
            }
        }
        progress.show(bytes, manifest.bytes(), &format!("{records} records"));
    }
    progress.end();
    let (id, count) = (&manifest.id, segments.len());
    if wrong.is_empty() {
        say!("backup {id} is whole: {count} segments, {records} records, {}", human_bytes(bytes))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("backup {id} is not whole: {} of {count} segments are missing or damaged", wrong.len())?;
    Ok(ExitCode::FAILURE)
}

/// The records in a segment, all of them decoded.
async fn check(store: &Store, shard: ShardId, entry: SegmentEntry) -> (ShardId, SegmentEntry, Result<u64>) {
    let outcome = async {
        let bytes = store.segment(&entry).await?;
        let decoded = tokio::task::spawn_blocking(move || {
            let rows = SegmentImage::open(shard, &entry, bytes)?.rows()?;
            Ok::<_, anyhow::Error>(rows.iter().map(|rows| rows.len() as u64).sum())
        });
        decoded.await?
    };
    (shard, entry, outcome.await)
}

/// A bar on a terminal, and now and then a plain line elsewhere; both on standard error.
pub(super) struct Progress {
    title: String,
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Progress {
    pub(super) fn new(title: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar.set_prefix(title.to_owned());
            bar
        });
        if bar.is_none() {
            eprintln!("{title}: begins");
        }
        Self { title: title.to_owned(), bar, shown: Instant::now() }
    }

    pub(super) fn show(&mut self, done: u64, all: u64, said: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
            bar.set_message(said.to_owned());
        } else if self.shown.elapsed() >= PLAIN_EVERY {
            self.shown = Instant::now();
            eprintln!("{}: {} of {}, {said}", self.title, human_bytes(done), human_bytes(all));
        }
    }

    /// A line above the bar.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
