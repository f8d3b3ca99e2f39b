//! What the black-box tests share: clusters of the real binary, producers that remember what was acknowledged, and the
//! judgement that every acknowledged record is on every replica exactly once and in order.
//!
//! It talks to nodes only as their users do: HTTP, signals and the command line.

#![allow(dead_code, reason = "every test takes what it needs of the harness")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::Method;
use millpond_actors::input::Generator;
use millpond_actors::listeners::http::nodes::{ClusterReport, MemberReport, NodeReport};
use millpond_actors::load::{Answer, Client, Pusher, StreamBody, encode};
use millpond_actors::local::{LocalCluster, LocalNode, Plan, wait_ready};
use millpond_actors::observe::{self, ObserveError, ShardView, Source};
use millpond_actors::tree::{ActorReport, TreeReport};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The binary under test.
pub const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");
/// A generous deadline for what should take a second or two: the machine may be busy.
pub const SOON: Duration = Duration::from_secs(60);
/// One attempt of a producer; shorter than a frozen node keeps it waiting.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Time for the grace period and the copies of all shards, on a busy machine.
pub const REHOMED_WITHIN: Duration = Duration::from_secs(120);
/// How long a producer tries one request.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster in a temporary folder.
pub struct World {
    /// The nodes.
    pub cluster: LocalCluster,
    /// A client of the test itself.
    pub client: Client,
    /// Where everything is; removed at the end.
    pub folder: TempDir,
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Asks again until `condition` holds, and panics with what it saw last when `within` is over.
pub async fn wait_until<F: Future<Output = Result<T, String>>, T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: not within {within:?}; last seen: {seen}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl World {
    /// Writes the configuration of a cluster; nothing runs yet.
    pub fn prepare(nodes: u64, settings: &str) -> Self {
        Self::prepare_with(nodes, settings, "")
    }

    /// The same, with further lines of the cluster's file.
    pub fn prepare_with(nodes: u64, settings: &str, cluster_settings: &str) -> Self {
        Self::prepare_shards(nodes, 16, settings, cluster_settings)
    }

    /// The same, with another number of shards.
    pub fn prepare_shards(nodes: u64, shards: u32, settings: &str, cluster_settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            executable: MILLPOND.into(),
            folder: folder.path().to_owned(),
            nodes,
            shards,
            settings: settings.to_owned(),
            cluster_settings: cluster_settings.to_owned(),
        };
        let cluster = LocalCluster::prepare(&plan).unwrap();
        Self { cluster, client: Client::new(Duration::from_secs(15)), folder }
    }

    /// Writes the configuration of one more node, which knows all others; it does not run yet, and belongs to no cluster.
    pub fn newcomer(&mut self) -> u64 {
        self.cluster.add_node().unwrap()
    }

    /// One node with so many shards; nothing runs yet.
    pub fn prepare_single(shards: u32) -> Self {
        Self::prepare_shards(1, shards, "", "")
    }

    /// A cluster that serves.
    pub async fn start(nodes: u64, settings: &str) -> Self {
        let mut world = Self::prepare(nodes, settings);
        world.start_all().await;
        world
    }

    /// Starts the nodes that do not run, and waits until all serve.
    pub async fn start_all(&mut self) {
        self.cluster.start_all(&self.client, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts one node and waits until it serves.
    pub async fn start_node(&mut self, id: u64) {
        let node = self.cluster.node(id);
        node.start().unwrap();
        wait_ready(node, &self.client, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The address of a node.
    pub fn url(&self, id: u64) -> String {
        self.cluster.nodes.iter().find(|node| node.id == id).expect("a node of this cluster").url.clone()
    }

    /// The running nodes' addresses.
    pub fn running(&self) -> Vec<String> {
        self.cluster.nodes.iter().filter(|node| node.is_running()).map(|node| node.url.clone()).collect()
    }

    /// GET.
    pub async fn get(&self, id: u64, path: &str) -> Answer {
        self.client.get(&format!("{}{path}", self.url(id))).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// POST with a content type.
    pub async fn post(&self, id: u64, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.post_with(id, path, &[("content-type", content_type)], body).await
    }

    /// POST with headers.
    pub async fn post_with(&self, id: u64, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let url = format!("{}{path}", self.url(id));
        self.client.request(Method::POST, &url, headers, body.into()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs one command of the binary to its end.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        tokio::process::Command::new(MILLPOND).args(arguments).output().await.unwrap()
    }

    /// Runs one command of the binary, which must succeed; what it prints.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "millpond {}: {}: {told}{said}", arguments.join(" "), output.status);
        told.into_owned()
    }

    /// Runs one command of the binary, which must fail; what it says.
    pub async fn run_in_vain(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "millpond {}: {said}", arguments.join(" "));
        said
    }

    /// Who a node says that it is.
    pub async fn who(&self, id: u64) -> Result<NodeReport, String> {
        self.look(id, "/api/v1/node").await
    }

    /// The cluster as a node sees it.
    pub async fn members(&self, id: u64) -> Result<ClusterReport, String> {
        self.look(id, "/api/v1/nodes").await
    }

    /// One node as another sees it.
    pub async fn member(&self, ask: u64, id: u64) -> Result<MemberReport, String> {
        let cluster = self.members(ask).await?;
        let found = cluster.nodes.into_iter().find(|member| member.node.0 == id);
        found.ok_or_else(|| format!("node {ask} knows no node {id}"))
    }

    async fn look<T: serde::de::DeserializeOwned>(&self, id: u64, path: &str) -> Result<T, String> {
        let url = format!("{}{path}", self.url(id));
        let answer = self.client.get(&url).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}: {}", answer.text()))
    }

    /// Waits until every shard has so many replicas, all of them on these nodes, and nothing is on its way.
    pub async fn all_homed(&self, ask: u64, copies: usize, on: &BTreeSet<u64>) {
        wait_until("every shard has its copies where they belong", REHOMED_WITHIN, || async {
            let shards = observe::shards(&self.client, &self.url(ask)).await.map_err(|error| error.to_string())?;
            let homes = |view: &ShardView| view.replicas.iter().map(|replica| replica.node).collect();
            let wrong: Vec<(u32, BTreeSet<u64>)> = shards
                .iter()
                .map(|view| (view.shard, homes(view)))
                .filter(|(_, homes): &(u32, BTreeSet<u64>)| homes.len() != copies || !homes.is_subset(on))
                .collect();
            let moves = self.members(ask).await?.moves;
            let done = !shards.is_empty() && wrong.is_empty() && moves.is_empty();
            if done { Ok(()) } else { Err(format!("shards {wrong:?}; moves {moves:?}")) }
        })
        .await;
    }

    /// The shards, as a running node sees them, once every one has a leader that runs.
    pub async fn led_shards(&self) -> Vec<ShardView> {
        let url = self.running().remove(0);
        let running: BTreeSet<u64> = self.cluster.nodes.iter().filter(|n| n.is_running()).map(|n| n.id).collect();
        wait_until("every shard has a leader", SOON, || async {
            let shards = observe::shards(&self.client, &url).await.map_err(|error| error.to_string())?;
            let led = |shard: &ShardView| shard.leader.is_some_and(|leader| running.contains(&leader));
            let without: Vec<u32> = shards.iter().filter(|shard| !led(shard)).map(|shard| shard.shard).collect();
            if shards.is_empty() || !without.is_empty() { Err(format!("no leader: {without:?}")) } else { Ok(shards) }
        })
        .await
    }

    /// The supervision tree of a node, flat.
    pub async fn actors(&self, id: u64) -> Vec<ActorReport> {
        let answer = self.get(id, "/api/v1/tree").await;
        let tree: TreeReport = serde_json::from_slice(&answer.body).unwrap();
        let mut flat = Vec::new();
        let mut waiting = tree.actors;
        while let Some(mut actor) = waiting.pop() {
            waiting.append(&mut actor.children);
            flat.push(actor);
        }
        flat
    }

    /// Records of one page of a shard as text lines, or what the node answers instead.
    pub async fn shard_lines(&self, id: u64, shard: u32, source: Source) -> Result<Vec<String>, ObserveError> {
        let mut lines = Vec::new();
        observe::read_shard(&self.client, &self.url(id), shard, 0, source, |record| {
            lines.push(record.line.into_owned());
        })
        .await?;
        Ok(lines)
    }

    /// What a shard's leader has, asked again until it answers: a leader may just be elected.
    pub async fn leader_lines(&self, id: u64, shard: u32) -> Vec<String> {
        let read = || async { self.shard_lines(id, shard, Source::Leader).await.map_err(|error| error.to_string()) };
        wait_until("the leader answers", SOON, read).await
    }
}

/// Letters of which each says six bits.
fn noise(draw: &mut Generator, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..bytes.div_ceil(8))
        .flat_map(|_| draw.draw().to_le_bytes())
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

/// One line of a producer.
fn line_of(producer: usize, number: u64, padding: &str) -> String {
    format!("producer={producer} seq={number} {padding}")
}

fn parse_line(line: &str) -> Option<(usize, u64)> {
    let mut words = line.split(' ');
    let producer = words.next()?.strip_prefix("producer=")?.parse().ok()?;
    Some((producer, words.next()?.strip_prefix("seq=")?.parse().ok()?))
}

/// How hard producers press.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Producers, each with a stream of its own.
    pub producers: usize,
    /// Records of one request.
    pub records: u64,
    /// Bytes of one line, about.
    pub line_bytes: usize,
    /// Pause between an answer and the next request.
    pub pause: Duration,
    /// Requests of one producer begin this far apart, so that two runs carry the same load whatever the machine
    /// could do; late ones are caught up. Zero: as soon as the pause is over.
    pub every: Duration,
    /// Whether lines are of drawn letters, so that they do not compress to nothing.
    pub noise: bool,
}

impl Load {
    /// Enough to keep every shard at work, little enough to be read back often.
    pub fn light() -> Self {
        Self {
            producers: 16,
            records: 10,
            line_bytes: 120,
            pause: Duration::from_millis(40),
            every: Duration::ZERO,
            noise: false,
        }
    }

    /// A few requests of every producer each second, the same in every run: little enough for a busy machine beside
    /// copies, and to be read back soon.
    pub fn even() -> Self {
        let every = Duration::from_millis(250);
        Self { producers: 16, records: 8, line_bytes: 400, pause: Duration::ZERO, every, noise: true }
    }

    /// As much as can be stored, in lines that stay large.
    pub fn bulk() -> Self {
        Self { producers: 16, records: 64, line_bytes: 4_000, noise: true, ..Self::even() }
    }

    /// About 4 MB/s of lines, the same in every run.
    pub fn steady() -> Self {
        let every = Duration::from_millis(500);
        Self { producers: 16, records: 128, line_bytes: 1_000, pause: Duration::ZERO, every, noise: false }
    }
}

/// Reads, over and over, what the command line shows of moves.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    /// Begins to look at these nodes.
    pub fn start(nodes: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(nodes, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Every line about a move or a copy that was shown, after the command that showed it.
    pub async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn watch(nodes: Vec<String>, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    while !stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(100)).await;
        for node in &nodes {
            for command in ["tree", "node list", "status"] {
                let words = command.split(' ').chain(["--node", node.as_str()]);
                let output = tokio::process::Command::new(MILLPOND).args(words).output().await.unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                let about = |line: &&str| ["moves=shard-", "copy=", "move "].iter().any(|word| line.contains(word));
                shown.extend(text.lines().filter(about).map(|line| format!("{command}: {line}")));
            }
        }
    }
    shown
}

#[derive(Debug, Default)]
struct Progress {
    acknowledged: AtomicU64,
    sent: AtomicU64,
    /// Of the requests since it was last looked at.
    attempts: AtomicU64,
    /// The same, in milliseconds from the first attempt to the acknowledgement.
    slowest: AtomicU64,
}

/// What the unluckiest requests of some time went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// How often one was sent.
    pub attempts: u64,
    /// From the first attempt of one to its acknowledgement.
    pub took: Duration,
}

impl Produced {
    /// What must be found of them in a copy that was begun when so much was acknowledged, and may be found.
    pub fn by_then(&self, acknowledged: Vec<u64>) -> Self {
        Self { acknowledged, sent: self.sent.clone() }
    }
}

/// Producers at work. Each sends one request after the other, and the same request again until it is acknowledged.
pub struct Producers {
    progress: Vec<Arc<Progress>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

/// What producers were told: records acknowledged and records sent, by producer.
pub struct Produced {
    acknowledged: Vec<u64>,
    sent: Vec<u64>,
}

impl Producers {
    /// Starts them on all nodes of a cluster.
    pub fn start(cluster: &LocalCluster, load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let progress: Vec<Arc<Progress>> = (0..load.producers).map(|_| Arc::default()).collect();
        let client = Client::new(ATTEMPT);
        let spawn = |(at, progress): (usize, &Arc<Progress>)| {
            let pusher = Pusher::new(client.clone(), cluster.urls(), at, PATIENCE);
            tokio::spawn(produce(at, pusher, load, Arc::clone(progress), Arc::clone(&stop)))
        };
        let tasks = progress.iter().enumerate().map(spawn).collect();
        Self { progress, stop, tasks }
    }

    /// Records acknowledged so far, by producer.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.progress.iter().map(|progress| progress.acknowledged.load(Ordering::SeqCst)).collect()
    }

    /// The worst of all requests that were acknowledged since this was last asked.
    pub fn worst(&self) -> Worst {
        let most = |of: fn(&Progress) -> &AtomicU64| {
            self.progress.iter().map(|progress| of(progress).swap(0, Ordering::SeqCst)).max().unwrap_or(0)
        };
        let took = Duration::from_millis(most(|progress| &progress.slowest));
        Worst { attempts: most(|progress| &progress.attempts), took }
    }

    /// Waits until every producer had a request acknowledged that it began after this call.
    pub async fn all_progress(&self, within: Duration) {
        // The request on its way when this is called may have been stored before: it takes two.
        for _ in 0..2 {
            let before = self.acknowledged();
            wait_until("every producer is acknowledged", within, || async {
                if let Some(ended) = self.tasks.iter().position(JoinHandle::is_finished) {
                    return Err(format!("producer {ended} ended"));
                }
                let now = self.acknowledged();
                let behind: Vec<usize> = (0..now.len()).filter(|at| now[*at] <= before[*at]).collect();
                if behind.is_empty() { Ok(()) } else { Err(format!("no acknowledgement of producers {behind:?}")) }
            })
            .await;
        }
    }

    /// Ends them after the request each is at.
    pub async fn stop(self) -> Produced {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
        }
        let read = |of: fn(&Progress) -> &AtomicU64| -> Vec<u64> {
            self.progress.iter().map(|progress| of(progress).load(Ordering::SeqCst)).collect()
        };
        Produced { acknowledged: read(|progress| &progress.acknowledged), sent: read(|progress| &progress.sent) }
    }
}

async fn produce(
    at: usize,
    mut pusher: Pusher,
    load: Load,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    let mut padding = "x".repeat(load.line_bytes);
    let mut draw = Generator::new(at as u64);
    let mut next = 0;
    let mut turns = tokio::time::interval(load.every.max(Duration::from_millis(1)));
    while !stop.load(Ordering::SeqCst) {
        let mut stream = StreamBody::new(format!(r#"{{service_name="producer",producer="{at}"}}"#));
        for number in next..next + load.records {
            if load.noise {
                padding = noise(&mut draw, load.line_bytes);
            }
            stream.push(now(), &line_of(at, number, &padding), []);
        }
        next += load.records;
        progress.sent.store(next, Ordering::SeqCst);
        let began = Instant::now();
        let stored = pusher.push(&encode([&stream])).await.map_err(|error| format!("producer {at}: {error}"))?;
        progress.acknowledged.store(next, Ordering::SeqCst);
        progress.attempts.fetch_max(u64::from(stored.attempts), Ordering::SeqCst);
        progress.slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::SeqCst);
        if load.every.is_zero() {
            sleep(load.pause).await;
        } else {
            turns.tick().await;
        }
    }
    Ok(())
}

/// What one replica of a shard holds, read by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    next: u64,
    digest: u64,
    numbers: BTreeMap<usize, Vec<u64>>,
}

impl Copy {
    async fn read_on(&mut self, client: &Client, url: &str, shard: u32, source: Source) -> Result<(), ObserveError> {
        let from = self.next;
        observe::read_shard(client, url, shard, from, source, |record| {
            assert_eq!(record.offset, self.next, "shard {shard} at {url}: offsets are contiguous");
            self.next += 1;
            let mut hasher = DefaultHasher::new();
            (self.digest, record.timestamp, &record.line, &record.labels, &record.metadata).hash(&mut hasher);
            self.digest = hasher.finish();
            if let Some((producer, number)) = parse_line(&record.line) {
                self.numbers.entry(producer).or_default().push(number);
            }
        })
        .await?;
        Ok(())
    }
}

impl World {
    /// Finds every acknowledged record exactly once and in its producer's order, on every replica, and every replica equal
    /// to the others.
    pub async fn verify(&self, produced: &Produced) {
        self.agreed().await;
        let mut numbers: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for ShardView { shard, replicas, .. } in self.led_shards().await {
            let homes: BTreeSet<u64> = replicas.iter().map(|replica| replica.node).collect();
            let mut leader = Copy::default();
            let url = self.running().remove(0);
            leader.read_on(&self.client, &url, shard, Source::Leader).await.unwrap();
            for node in self.cluster.nodes.iter().filter(|node| node.is_running() && homes.contains(&node.id)) {
                let copy = self.caught_up(node, shard, leader.next).await;
                assert!(copy == leader, "shard {shard} on node {} differs from its leader's", node.id);
            }
            for (producer, mut of_shard) in leader.numbers {
                numbers.entry(producer).or_default().append(&mut of_shard);
            }
        }
        for (producer, (acknowledged, sent)) in produced.acknowledged.iter().zip(&produced.sent).enumerate() {
            let found = numbers.remove(&producer).unwrap_or_default();
            let out_of_place = (0..).zip(&found).find(|(at, number)| at != *number);
            assert_eq!(
                out_of_place, None,
                "producer {producer}: the first record that is doubled, lost or out of order"
            );
            let found = found.len() as u64;
            assert!(
                (*acknowledged..=*sent).contains(&found),
                "producer {producer}: {found} found, {acknowledged} acknowledged, {sent} sent"
            );
        }
        assert!(produced.acknowledged.iter().all(|count| *count > 0), "every producer was acknowledged");
    }

    /// Waits until all running nodes say the same of where replicas are: one that was stopped for a while knows it late.
    async fn agreed(&self) {
        wait_until("all nodes know where the replicas are", SOON, || async {
            let mut seen: BTreeSet<Vec<(u32, BTreeSet<u64>)>> = BTreeSet::new();
            for url in self.running() {
                let shards = observe::shards(&self.client, &url).await.map_err(|error| error.to_string())?;
                let homes = |view: &ShardView| view.replicas.iter().map(|replica| replica.node).collect();
                seen.insert(shards.iter().map(|view| (view.shard, homes(view))).collect());
            }
            if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    /// What a node itself holds of a shard, once it holds as much as the leader did.
    async fn caught_up(&self, node: &LocalNode, shard: u32, next: u64) -> Copy {
        let mut copy = Copy::default();
        let deadline = Instant::now() + SOON;
        while copy.next < next {
            let read = copy.read_on(&self.client, &node.url, shard, Source::Local).await;
            let seen = copy.next;
            assert!(Instant::now() < deadline, "node {} holds shard {shard} up to {seen} of {next}: {read:?}", node.id);
            sleep(Duration::from_millis(20)).await;
        }
        copy
    }

    /// Pushes lines of one stream through a node, again while it asks for that, until they are stored; returns the shard.
    pub async fn store(&self, id: u64, labels: &str, lines: &[String]) -> Vec<u32> {
        let mut stream = StreamBody::new(labels);
        lines.iter().for_each(|line| stream.push(now(), line, []));
        let mut pusher = Pusher::new(self.client.clone(), vec![self.url(id)], 0, SOON);
        pusher.push(&encode([&stream])).await.unwrap_or_else(|error| panic!("{error}")).shards
    }

    /// The lines that a LogQL query finds in the last hour, oldest first.
    pub async fn query(&self, id: u64, query: &str) -> Vec<String> {
        let output = self
            .command(&["query", query, "--node", &self.url(id), "--raw", "--direction", "forward", "--limit", "5000"])
            .await;
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The files below a folder whose path ends with `end`, sorted.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
