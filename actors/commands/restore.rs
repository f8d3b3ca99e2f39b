//! `millpond restore`: reads a backup and stores its records in a cluster, however many nodes and shards that has.
//!
//! The segments of a shard are replayed one after the other, each request when the one before is on a majority, so that
//! a stream keeps its order; several shards at once. What was sent and not noted as done is sent again under the same
//! keys, so a restore that was killed is begun again by the same command.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hyper::{Method, StatusCode};
use millpond::backup::replay::{Replay, Request};
use millpond::backup::{Manifest, RestoreProgress, RetentionEntry, RuleEntry, SegmentEntry, SegmentImage, ShardEntry};
use millpond::block::l0::Encoder;
use millpond::config::StoreUrl;
use millpond::id::{ClusterId, ShardId};
use millpond::limits;
use millpond_actors::backup::report::BackupReport;
use millpond_actors::backup::store::Store;
use millpond_actors::load::{Client, Outcome};
use millpond_actors::moment;
use millpond_actors::observe;

use super::backup::{Progress, chosen, store_argument};
use super::{ask, human_bytes, node_argument, now};

/// One attempt at a request; a node answers 504 before.
const ATTEMPT: Duration = Duration::from_secs(15);
/// First and longest wait before a request is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Requests of one segment that are encoded ahead of the one on its way.
const REQUESTS_AHEAD_MAX: usize = 2;

/// Store the records of a backup in an empty cluster
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  millpond restore --from file:///var/backups/millpond --to http://127.0.0.1:3101
  millpond restore --from s3://bucket/millpond --backup 20261121T200509Z-1a2b3c4d --to http://10.0.0.1:3100

The cluster may have another number of nodes and shards than the one that was backed up. It must be empty: a cluster that
holds records is refused, unless they are those of the same restore, which then goes on. How far it has come is noted
in the store, so the credentials must allow writing. Run it again after anything that went wrong.

How long records are kept is a setting of each cluster. Where the backed up cluster kept them by other rules, the restore says
so and stores nothing: what was hidden there would be seen here, or what was kept there would go. It prints what to set;
--other-retention goes on as it is.

What clients sent before and send again is stored again: a restore brings back records, not which requests they came in.

Exit codes: 0 everything is stored on a majority; 1 it is not; 2 wrong usage.")]
pub(crate) struct Args {
    /// The store
    #[arg(long, value_name = "URL", value_parser = store_argument)]
    from: StoreUrl,
    /// Which backup; the newest if left out
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    #[command(flatten)]
    nodes: ToArgs,
    /// Restore although this cluster keeps records by other rules than the one that was backed up
    #[arg(long)]
    other_retention: bool,
    /// How long a request is tried before the restore is given up
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = moment::parse_duration)]
    patience: Duration,
}

/// Where the records go.
#[derive(ClapArgs, Debug)]
struct ToArgs {
    /// Address of a node of the new cluster; give it several times to go on with the next when one fails
    #[arg(long = "to", value_name = "URL", required = true, value_parser = node_argument)]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let store = Store::open(&args.from)?;
    let manifest = chosen(&store, &args.from, args.backup).await?;
    let nodes = super::NodesArgs { nodes: args.nodes.nodes };
    let report: BackupReport = ask(&nodes, "/api/v1/backup").await?;
    let cluster = report.cluster.context("the cluster has not formed yet")?;
    let cluster = ClusterId(u128::from_str_radix(&cluster, 16).context("not the answer expected")?);
    if !args.other_retention {
        same_retention(manifest.retention.as_ref(), report.retention.as_ref())?;
    }
    let nodes = nodes.urls();
    let noted = store.progress(&manifest.id, cluster).await?;
    match &noted {
        Some(noted) if noted.finished => {
            say!("backup {} was restored into this cluster before; there is nothing to do", manifest.id)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(noted) if !noted.is_fresh(now()) => bail!(
            "this restore stopped at {}, too long ago: the cluster does not know any more what it stored. Restore into \
             a new cluster",
            moment::format(noted.updated)
        ),
        Some(_) => eprintln!("this restore was begun before and goes on"),
        None => refuse_records(&nodes).await?,
    }
    let progress = noted.unwrap_or_else(|| RestoreProgress::new(&manifest.id, cluster, now()));
    store.note(&progress).await?;
    let all = manifest.bytes();
    let restore = Restore {
        backup: &manifest.id,
        store: &store,
        client: Client::new(ATTEMPT),
        nodes,
        patience: args.patience,
        state: Mutex::new(State {
            progress,
            noted: Instant::now(),
            bar: Progress::new(&format!("restore {}", manifest.id)),
            bytes: 0,
            records: 0,
        }),
        all,
    };
    let began = Instant::now();
    let outcome = restore.everything(&manifest).await;
    let state = restore.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.bar.end();
    outcome?;
    let (records, took) = (state.records, began.elapsed().as_secs_f64());
    say!("backup {} is restored: {records} records of {} sent in {took:.1} s", manifest.id, human_bytes(all))?;
    Ok(ExitCode::SUCCESS)
}

/// Both clusters must keep records by the same rules, as far as both say by which.
fn same_retention(there: Option<&RetentionEntry>, here: Option<&RetentionEntry>) -> Result<()> {
    let (Some(there), Some(here)) = (there, here) else { return Ok(()) };
    if there == here {
        return Ok(());
    }
    bail!(
        "the backed up cluster kept records by other rules than this one, which would show what was hidden there, or hide or \
         drop what was not:\n  there: {}\n  here:  {}\nSet this in the cluster file of every node here and start them again, \
         or go on with --other-retention:\n\n{}",
        kept(there),
        kept(here),
        table(there)?
    )
}

/// A retention in one line.
fn kept(RetentionEntry { age, bytes, rules }: &RetentionEntry) -> String {
    let rule = |RuleEntry { selector, age, tenant }: &RuleEntry| {
        let tenant = tenant.as_ref().map_or_else(String::new, |tenant| format!(" of {tenant}"));
        format!("{selector}{tenant} shown for {age}")
    };
    let age = age.iter().map(|age| format!("kept for {age}"));
    let bytes = bytes.iter().map(|bytes| format!("at most {bytes}"));
    let words: Vec<String> = age.chain(bytes).chain(rules.iter().map(rule)).collect();
    if words.is_empty() { "kept for ever".to_owned() } else { words.join(", ") }
}

/// A retention as a cluster file has it.
fn table(retention: &RetentionEntry) -> Result<String> {
    let table = toml::to_string(&BTreeMap::from([("retention", retention)]))?;
    Ok(if retention == &RetentionEntry::default() { "# without [retention]".to_owned() } else { table })
}

/// Every shard must be empty, as its leader says.
async fn refuse_records(nodes: &[String]) -> Result<()> {
    let client = Client::new(ATTEMPT);
    let node = nodes.first().context("no node was named")?;
    for shard in observe::shards(&client, node).await? {
        let url = format!("{node}/api/v1/shards/{}/records?from=0&limit=1&source=leader", shard.shard);
        let answer = client.get(&url).await?;
        if !answer.status.is_success() {
            bail!("{url}: {}: {}", answer.status, answer.text());
        }
        if !answer.body.is_empty() {
            bail!("the cluster holds records already (shard {}): restore into an empty one", shard.shard);
        }
    }
    Ok(())
}

struct Restore<'a> {
    backup: &'a str,
    store: &'a Store,
    client: Client,
    nodes: Vec<String>,
    patience: Duration,
    state: Mutex<State>,
    /// Bytes of all segments.
    all: u64,
}

struct State {
    progress: RestoreProgress,
    noted: Instant,
    bar: Progress,
    bytes: u64,
    records: u64,
}

impl Restore<'_> {
    async fn everything(&self, manifest: &Manifest) -> Result<()> {
        let shards = stream::iter(&manifest.shards).map(|shard| self.shard(shard));
        let shards: Vec<()> = shards.buffer_unordered(limits::RESTORE_SHARDS_AT_ONCE).try_collect().await?;
        drop(shards);
        let progress = self.change(|state| {
            (state.progress.finished, state.progress.updated) = (true, now());
            state.progress.clone()
        });
        Ok(self.store.note(&progress).await?)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn shard(&self, shard: &ShardEntry) -> Result<()> {
        let done = self.change(|state| state.progress.done.get(&shard.shard).copied().unwrap_or(0));
        for (number, entry) in shard.segments.iter().enumerate() {
            if number >= done {
                let place = || format!("shard {}, offsets {} to {}", shard.shard, entry.from, entry.to);
                self.segment(ShardId(shard.shard), *entry).await.with_context(place)?;
            }
            let note = self.change(|state| {
                state.bytes += entry.bytes;
                let held = state.progress.done.entry(shard.shard).or_default();
                *held = (*held).max(number + 1);
                state.bar.show(state.bytes, self.all, &format!("{} records", state.records));
                let due = state.noted.elapsed() >= limits::RESTORE_NOTE_EVERY;
                due.then(|| {
                    (state.noted, state.progress.updated) = (Instant::now(), now());
                    state.progress.clone()
                })
            });
            if let Some(progress) = note {
                self.store.note(&progress).await?;
            }
        }
        Ok(())
    }

    async fn segment(&self, shard: ShardId, entry: SegmentEntry) -> Result<()> {
        let bytes = self.store.segment(&entry).await?;
        let (sender, mut requests) = tokio::sync::mpsc::channel(REQUESTS_AHEAD_MAX);
        let backup = self.backup.to_owned();
        let encoding = tokio::task::spawn_blocking(move || {
            let rows = SegmentImage::open(shard, &entry, bytes)?.rows()?;
            let (mut replay, mut encoder) = (Replay::new(&backup, shard, &entry, rows), Encoder::new());
            while let Some(request) = replay.next(&mut encoder) {
                if sender.blocking_send(request).is_err() {
                    break;
                }
            }
            Ok::<_, millpond::backup::BackupError>(())
        });
        while let Some(request) = requests.recv().await {
            let records = request.records as u64;
            self.send(request).await?;
            self.change(|state| state.records += records);
        }
        Ok(encoding.await??)
    }

    /// Sends the same request until it is on a majority.
    async fn send(&self, request: Request) -> Result<()> {
        let key = request.key.to_string();
        let headers = [("content-type", "application/octet-stream"), ("idempotency-key", key.as_str())];
        let (began, mut backoff) = (Instant::now(), BACKOFF.0);
        for node in self.nodes.iter().cycle() {
            let url = format!("{node}/api/v1/restore");
            let answer = self.client.request(Method::POST, &url, &headers, request.body.clone()).await;
            match Outcome::of(answer) {
                Outcome::Stored { .. } => return Ok(()),
                Outcome::Refused { status, text } => return Err(refusal(&url, status, &text)),
                Outcome::Again { reason, .. } if began.elapsed() >= self.patience => {
                    bail!("not confirmed within {:?}; run the same command again. Last: {reason}", self.patience);
                }
                Outcome::Again { .. } => {
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
        bail!("no node was named")
    }
}

fn refusal(url: &str, status: StatusCode, text: &str) -> anyhow::Error {
    anyhow!("{url}: {status}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rules_are_named_with_what_to_set() {
        let rule = |tenant: Option<&str>| RuleEntry {
            selector: r#"{app="debug"}"#.to_owned(),
            age: "1d".to_owned(),
            tenant: tenant.map(str::to_owned),
        };
        let there = RetentionEntry {
            age: Some("30d".to_owned()),
            bytes: Some("500 GiB".to_owned()),
            rules: vec![rule(None), rule(Some("acme"))],
        };
        assert!(same_retention(Some(&there), Some(&there.clone())).is_ok());
        assert!(same_retention(Some(&there), None).is_ok() && same_retention(None, Some(&there)).is_ok());
        let said = same_retention(Some(&there), Some(&RetentionEntry::default())).unwrap_err().to_string();
        assert!(said.contains("  here:  kept for ever\n"), "{said}");
        let shown = "kept for 30d, at most 500 GiB, {app=\"debug\"} shown for 1d, {app=\"debug\"} of acme shown for 1d";
        assert!(said.contains(shown), "{said}");
        let (_, table) = said.split_once("\n\n").unwrap();
        let read: toml::Table = table.parse().unwrap();
        assert_eq!(read["retention"]["rules"].as_array().unwrap().len(), 2, "{table}");
        let said = same_retention(Some(&RetentionEntry::default()), Some(&there)).unwrap_err().to_string();
        assert!(said.ends_with("# without [retention]"), "{said}");
    }
}
