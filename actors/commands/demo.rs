//! `millpond demo`: a few nodes, real input at full speed, the leader of a shard killed while requests to it are
//! unanswered, and every acknowledged record read back and compared. With one node more than copies it may stay lost: then
//! the demo waits until the others hold everything it held.

/// Tells of the demo. It goes on where nobody listens any more: its exit code still says what came of it.
macro_rules! tell {
    ($($text:tt)*) => { drop(say!($($text)*)) };
}

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::input::{self, Generator, Line};
use millpond_actors::load::Client;
use millpond_actors::local::{LocalCluster, Plan, wait_ready};
use millpond_actors::observe::{self, ObserveError, ShardView, Source};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::human_bytes;
use super::traffic::{Found, Pressure, Traffic};
use super::whole::{Glance, Restored, restored};

/// Time for a node to serve after its start.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time for one attempt; a node answers 504 before.
const ATTEMPT: Duration = Duration::from_secs(15);
/// How long a request is tried; longer than any election.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for answers that are on their way when a node is frozen.
const IN_TRANSIT: Duration = Duration::from_millis(20);
/// Time to catch a shard with requests unanswered; at full speed it takes milliseconds.
const CATCH_WITHIN: Duration = Duration::from_secs(10);
/// How long a node may be gone before its replicas are given to others, where one is lost for good.
const GRACE: Duration = Duration::from_secs(5);
/// Time for every shard to be on three nodes again.
const RESTORED_WITHIN: Duration = Duration::from_secs(300);
/// Shards of the cluster.
const SHARDS: u32 = 16;
/// Copies of each.
const COPIES: usize = 3;
/// Time for a shard to be read back although a leader just changed.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Text of `/var/log` that is taken at most, and that is enough.
const VAR_LOG_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=16 << 20;
/// Text of `--input` that is taken at most.
const INPUT_BYTES_MAX: usize = 256 << 20;
/// Lines that the generator makes where there is no other input.
const GENERATED_LINES: usize = 50_000;

/// Run a few nodes, kill one under load, and prove that nothing acknowledged was lost
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  millpond demo                                  logs of this machine, else generated ones
  millpond demo --input app.log.zst --seconds 60
  millpond demo --nodes 4 --lose-node            the node stays lost: the others take over what it held
  millpond demo --keep                           leave the cluster running to look around

Processes of this binary are started on free ports of 127.0.0.1 with a configuration like cluster-config/three. Half way a
node that leads a shard is killed with SIGKILL while requests to that shard are unanswered. At the end every acknowledged
record is read back by its offset and compared byte by byte with what was sent. With --lose-node the killed node never
comes back: after 5 s its replicas are made anew on the other nodes, under load, before anything is read back.

Exit codes: 0 nothing missing, nothing doubled, with --lose-node nothing under-replicated; 1 anything else.")]
pub(crate) struct Args {
    /// Lines to send, repeated; plain or NDJSON, also .gz and .zst
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// The killed node is lost for good; there must be a fourth to take its place
    #[arg(long)]
    lose_node: bool,
    /// How long to send, at least
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..))]
    seconds: u64,
    /// Leave the cluster running until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Where data, configuration and logs go; a temporary folder if not given
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// What happened at the kill.
struct Kill {
    node: u64,
    shard: u32,
    unanswered: usize,
    led: BTreeSet<u32>,
    at: Instant,
}

/// Where everything is; a temporary folder is removed when the demo went well.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(!args.lose_node || args.nodes > 3, "a node can only be lost for good with a fourth: add --nodes 4");
    let folder = make_folder(&args)?;
    let kept = || format!("configuration, data and logs are in {}", folder.path.display());
    let played = tokio::select! {
        played = play(&args, &folder.path) => played.with_context(kept)?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("waiting for Ctrl-C")?;
            folder.clear()?;
            bail!("interrupted; the nodes were stopped");
        }
    };
    let (good, cluster) = played;
    if args.keep {
        tell!("the cluster is left running, {}; Ctrl-C ends it", kept());
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
    }
    drop(cluster);
    if good {
        folder.clear()?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}", kept());
    Ok(ExitCode::FAILURE)
}

impl Folder {
    /// Removes it, if nobody asked for it by name.
    fn clear(&self) -> Result<()> {
        if self.temporary {
            fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))?;
        }
        Ok(())
    }
}

fn make_folder(args: &Args) -> Result<Folder> {
    let (path, temporary) = match &args.folder {
        Some(path) => (path.clone(), false),
        None => (std::env::temp_dir().join(format!("millpond-demo-{}", std::process::id())), true),
    };
    let taken = path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!taken, "{} is not empty: name another --folder", path.display());
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(Folder { path, temporary })
}

/// The whole story; whether nothing was lost, doubled or altered, and the cluster as it runs then.
async fn play(args: &Args, folder: &Path) -> Result<(bool, LocalCluster)> {
    let lines = find_input(args)?;
    let client = Client::new(ATTEMPT);
    let executable = std::env::current_exe().context("finding this executable")?;
    let cluster_settings =
        if args.lose_node { format!("rehome_after = \"{}s\"\n", GRACE.as_secs()) } else { String::new() };
    let plan =
        Plan { nodes: args.nodes, shards: SHARDS, cluster_settings, ..Plan::three(executable, folder.to_owned()) };
    tell!("starting {} nodes in {}", args.nodes, folder.display());
    let mut cluster = LocalCluster::start(&plan, &client, READY_WITHIN).await?;
    show_tree(&cluster.nodes[0].url);

    let traffic = Traffic::learn(lines, client.clone(), cluster.urls()).await?;
    let pressure =
        Pressure { writers_per_shard: 2, request_bytes: 256 << 10, patience: PATIENCE, bytes_per_second: None };
    let began = Instant::now();
    let mut writers = traffic.start(pressure);
    let half = Duration::from_secs(args.seconds) / 2;
    let bar = ProgressBar::new(args.seconds * 1_000);
    bar.set_style(ProgressStyle::with_template("sending {bar:40} {msg}").expect("a valid template"));
    send_until(&traffic, &mut writers, &bar, began, began + half).await?;
    let kill = kill_a_leader(&mut cluster, &traffic, &client).await?;
    let Kill { node, shard, unanswered, .. } = kill;
    bar.suspend(|| {
        tell!("killed node {node}, leader of shard {shard}, with {unanswered} requests to that shard unanswered")
    });
    if args.lose_node {
        let restored = rehome(&cluster, node, &traffic, &mut writers, &client, &bar).await?;
        let (after, took) = (restored.began - kill.at, restored.ended - restored.began);
        let (after, took, moves) = (after.as_secs_f64(), took.as_secs_f64(), restored.moves);
        bar.suspend(|| {
            tell!("node {node} was given up after {after:.1} s; {moves} replicas were made anew in {took:.1} s, under load")
        });
    }
    send_until(&traffic, &mut writers, &bar, began, began + half * 2).await?;
    traffic.finish(writers).await?;
    let took = began.elapsed();
    bar.finish_and_clear();

    let found = read_back(&traffic, &client, &cluster, kill.node).await?;
    let mut under_replicated = None;
    if args.lose_node {
        let glance = Glance::take(&client, &living(&cluster), SHARDS, COPIES).await?;
        under_replicated = Some(glance.under_replicated);
    } else {
        cluster.node(kill.node).start()?;
        wait_ready(cluster.node(kill.node), &client, READY_WITHIN).await?;
        tell!("started node {} again: it serves", kill.node);
    }
    let good = summarize(&traffic, &found, &kill, took, &cluster, under_replicated);
    Ok((good, cluster))
}

fn living(cluster: &LocalCluster) -> Vec<String> {
    cluster.nodes.iter().filter(|node| node.is_running()).map(|node| node.url.clone()).collect()
}

/// Waits, under load, until every shard is on three living nodes, and shows how far the moves are.
async fn rehome(
    cluster: &LocalCluster,
    node: u64,
    traffic: &Traffic,
    writers: &mut JoinSet<Result<()>>,
    client: &Client,
    bar: &ProgressBar,
) -> Result<Restored> {
    let mut shown = BTreeSet::new();
    let look = |glance: &Glance| {
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer")??;
        }
        for under_way in glance.moves.iter().filter(|under_way| shown.insert(under_way.id)) {
            let shard = &under_way.shard;
            match under_way.to {
                Some(to) => bar.suspend(|| tell!("  {shard} is copied to node {to}")),
                None => bar.suspend(|| tell!("  {shard} goes on without node {node}")),
            }
        }
        bar.set_message(format!("{} acknowledged; {}", human_bytes(traffic.acknowledged_bytes()), glance.words()));
        Ok(())
    };
    restored(client, &living(cluster), SHARDS, RESTORED_WITHIN, look).await
}

fn find_input(args: &Args) -> Result<Vec<Line>> {
    if let Some(path) = &args.input {
        let mut lines =
            input::read_all(path, INPUT_BYTES_MAX).with_context(|| format!("reading {}", path.display()))?;
        let service = path.file_name().and_then(|name| name.to_str()?.split('.').next()).unwrap_or("input");
        give_service(&mut lines, service);
        tell!("input: {} lines of {}", lines.len(), path.display());
        return Ok(lines);
    }
    let lines = read_var_log(Path::new("/var/log"));
    if lines.iter().map(|line| line.text.len()).sum::<usize>() >= *VAR_LOG_BYTES.start() {
        tell!("input: {} lines of /var/log", lines.len());
        return Ok(lines);
    }
    tell!("input: {GENERATED_LINES} generated lines (/var/log has too little that may be read)");
    Ok(Generator::new(1).lines(GENERATED_LINES))
}

fn give_service(lines: &mut [Line], service: &str) {
    for line in lines {
        if !line.labels.iter().any(|(name, _)| name == "service_name") {
            line.labels.push(("service_name".to_owned(), service.to_owned()));
        }
    }
}

/// Every text file of the folder and of the folders in it that may be read, up to a bound.
fn read_var_log(folder: &Path) -> Vec<Line> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let Ok(entries) = folder.read_dir() else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let (folders, mut files): (Vec<_>, Vec<_>) = entries(folder).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| entries(folder)).filter(|path| path.is_file()));
    let mut lines = Vec::new();
    let mut room = *VAR_LOG_BYTES.end();
    for file in files.iter().filter(|file| is_text(file)) {
        let Ok(mut of_file) = input::read_all(file, room) else { continue };
        let service = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("log");
        give_service(&mut of_file, service);
        room = room.saturating_sub(of_file.iter().map(|line| line.text.len()).sum());
        lines.append(&mut of_file);
        if room == 0 {
            break;
        }
    }
    lines
}

fn is_text(file: &Path) -> bool {
    let mut start = vec![0; 4_096];
    let read = input::open(file).and_then(|mut reader| reader.read(&mut start));
    let Ok(read @ 1..) = read else { return false };
    let whole = match std::str::from_utf8(&start[..read]) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    whole && !start[..read].contains(&0)
}

/// The supervision tree as `millpond tree` draws it.
fn show_tree(url: &str) {
    let drawn = std::env::current_exe().and_then(|me| Command::new(me).args(["tree", "--node", url]).status());
    if let Err(error) = drawn {
        eprintln!("the supervision tree could not be drawn: {error}");
    }
}

/// Lets the writers run until `until`, and fails as soon as one of them does.
async fn send_until(
    traffic: &Traffic,
    writers: &mut JoinSet<Result<()>>,
    bar: &ProgressBar,
    began: Instant,
    until: Instant,
) -> Result<()> {
    while Instant::now() < until {
        sleep(Duration::from_millis(100)).await;
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer")??;
        }
        let (bytes, took) = (traffic.acknowledged_bytes(), began.elapsed());
        let rate = bytes as f64 / 1e6 / took.as_secs_f64();
        bar.set_position(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{} acknowledged, {rate:.0} MB/s", human_bytes(bytes)));
    }
    Ok(())
}

/// Waits until a shard has requests unanswered, and kills the node that leads it. The node is frozen for a moment
/// first, so that no answer slips out between looking and killing.
async fn kill_a_leader(cluster: &mut LocalCluster, traffic: &Traffic, client: &Client) -> Result<Kill> {
    let deadline = Instant::now() + CATCH_WITHIN;
    let views = led_shards(client, &cluster.urls(), &traffic.shards()).await?;
    loop {
        let busiest = views.iter().max_by_key(|view| traffic.unanswered(view.shard).len()).expect("shards are led");
        let before = traffic.unanswered(busiest.shard);
        let node = busiest.leader.expect("only shards with a leader are asked for");
        if !before.is_empty() {
            cluster.node(node).freeze()?;
            sleep(IN_TRANSIT).await;
            let unanswered = before.intersection(&traffic.unanswered(busiest.shard)).count();
            if unanswered > 0 {
                cluster.node(node).kill()?;
                let led = views.iter().filter(|view| view.leader == Some(node)).map(|view| view.shard).collect();
                return Ok(Kill { node, shard: busiest.shard, unanswered, led, at: Instant::now() });
            }
            cluster.node(node).thaw()?;
        }
        ensure!(Instant::now() < deadline, "no request to shard {} was unanswered in time", busiest.shard);
        sleep(Duration::from_millis(1)).await;
    }
}

async fn led_shards(client: &Client, urls: &[String], of: &BTreeSet<u32>) -> Result<Vec<ShardView>> {
    let mut last = None;
    for url in urls {
        match observe::shards(client, url).await {
            Ok(views) => {
                let led: Vec<ShardView> =
                    views.into_iter().filter(|view| of.contains(&view.shard) && view.leader.is_some()).collect();
                ensure!(!led.is_empty(), "{url} knows no leader of any shard");
                return Ok(led);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there are nodes")).context("asking who leads")
}

/// Reads every shard by offset from its leader.
async fn read_back(traffic: &Traffic, client: &Client, cluster: &LocalCluster, killed: u64) -> Result<Found> {
    let urls: Vec<String> =
        cluster.nodes.iter().filter(|node| node.id != killed).map(|node| node.url.clone()).collect();
    let bar = ProgressBar::new(traffic.totals().acknowledged);
    bar.set_style(ProgressStyle::with_template("reading {bar:40} {pos}/{len} records").expect("a valid template"));
    let mut counting = traffic.count();
    for shard in traffic.shards() {
        let deadline = Instant::now() + READ_WITHIN;
        let mut next = 0;
        for attempt in 0_usize.. {
            let url = &urls[attempt % urls.len()];
            let mut seen = next;
            let read = observe::read_shard(client, url, shard, next, Source::Leader, |record| {
                seen = record.offset + 1;
                counting.see(shard, &record);
                bar.inc(1);
            });
            match read.await {
                Ok(_) => break,
                Err(error) => {
                    let refused = matches!(&error, ObserveError::Status { status, .. } if status.is_client_error());
                    if refused || Instant::now() >= deadline {
                        return Err(error).with_context(|| format!("reading shard {shard}"));
                    }
                    next = seen;
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    bar.finish_and_clear();
    Ok(counting.finish())
}

fn summarize(
    traffic: &Traffic,
    found: &Found,
    kill: &Kill,
    took: Duration,
    cluster: &LocalCluster,
    under_replicated: Option<usize>,
) -> bool {
    let totals = traffic.totals();
    let after = kill.at..Instant::now();
    let longest = |of: &mut dyn Iterator<Item = u32>| {
        of.filter_map(|shard| Some((traffic.longest_pause(shard, &after)?, shard))).max()
    };
    let seconds = |pause: Option<(Duration, u32)>| {
        pause.map_or_else(
            || "never".to_owned(),
            |(pause, shard)| format!("{:.2} s (shard {shard})", pause.as_secs_f64()),
        )
    };
    let paused = longest(&mut kill.led.iter().copied());
    let others = longest(&mut traffic.shards().into_iter().filter(|shard| !kill.led.contains(shard)));
    let rate = totals.line_bytes as f64 / 1e6 / took.as_secs_f64();
    tell!();
    tell!("sent          {} records in {} requests", totals.sent, totals.requests);
    tell!("acknowledged  {} records, {} of lines, {rate:.0} MB/s", totals.acknowledged, human_bytes(totals.line_bytes));
    tell!("found         {} of them by offset, each compared byte by byte", found.found);
    tell!("sent again    {} requests", totals.again);
    tell!("unanswered    {} requests to shard {} when node {} was killed", kill.unanswered, kill.shard, kill.node);
    tell!("writes paused {} on the {} shards that node {} led", seconds(paused), kill.led.len(), kill.node);
    tell!("              {} on the other shards", seconds(others));
    tell!("search at     {}", living(cluster).first().map_or("", String::as_str));
    if found.altered > 0 {
        tell!("altered       {} records", found.altered);
        found.shown.iter().for_each(|shown| tell!("  {shown}"));
    }
    let short = under_replicated.map_or_else(String::new, |shards| format!(" under-replicated {shards}"));
    tell!("missing {} doubled {}{short}", found.missing, found.doubled);
    let all = totals.sent == totals.acknowledged && found.found == totals.acknowledged;
    under_replicated.unwrap_or(0) == 0 && all && found.missing == 0 && found.doubled == 0 && found.altered == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_a_log_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("apt")).unwrap();
        fs::write(folder.path().join("apt/history.log"), "one\ntwo\n").unwrap();
        fs::write(folder.path().join("wtmp"), [0, 1, 2]).unwrap();
        fs::write(folder.path().join("broken.gz"), "not gzip").unwrap();
        fs::write(folder.path().join("empty.log"), "").unwrap();
        let lines = read_var_log(folder.path());
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "two"]);
        assert_eq!(lines[0].labels, [("service_name".to_owned(), "history".to_owned())]);
    }
}
