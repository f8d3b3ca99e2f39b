//! One run: a cluster of real nodes in one process, clients, faults, then calm, and the judgement of what was promised.
//!
//! Everything runs on one thread and one runtime whose time passes only when nobody has anything to do. Each thing that
//! varies draws from a random stream of its own, so that leaving a fault out changes nothing else at its root.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use millpond::config::{ByteSize, ClusterFile, Config, NodeFile, Span};
use millpond::consensus::Role;
use millpond::id::{Offset, ShardId};
use millpond::limits;
use millpond::storage::lossy::LossyDisk;
use millpond::storage::wal::WalOptions;
use millpond_actors::knobs::Knobs as NodeKnobs;
use millpond_actors::supervision::{GiveUp, Restart};
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::case::{Case, Report};
use crate::faults::{Victims, play};
use crate::ground::{Pace, SimClock, SimRandom};
use crate::history::{Held, check};
use crate::network::{Network, Weather};
use crate::node::{Fate, Node, NodeParts};
use crate::observe::{Listener, Observed};
use crate::trace::Trace;
use crate::workload::Workload;

/// Virtual time after the faults in which replicas converge and writes resume.
const CALM: Duration = Duration::from_secs(30);
/// Between two looks at whether they have.
const LOOK: Duration = Duration::from_millis(100);
/// Virtual time after which a node that was killed has no actor left.
const SETTLE: Duration = Duration::from_secs(2);

/// The seed of a random stream, by name.
fn stream(seed: u64, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

/// Runs one case in this process, which must not have run another before: ractor's registries are the process's own.
pub fn run(case: &Case, trace: Option<Box<dyn Write + Send>>) -> Report {
    #[cfg(feature = "mutants")]
    if let Some(mutant) = &case.mutant {
        millpond::mutant::plant(mutant).expect("whoever made the case knows its mutant");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads or sockets starts");
    runtime.block_on(async {
        let observed = Arc::new(Observed::new(Trace::new(trace)));
        let listener = tracing::Dispatch::new(Listener(Arc::clone(&observed)));
        let _listening = tracing::dispatcher::set_default(&listener);
        let hook = Arc::clone(&observed);
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            hook.panicked(words_of(panic.payload()), &place);
        }));
        let world = World::new(case, Arc::clone(&observed));
        world.live(case).await;
        let _ = std::panic::take_hook();
        report(&observed)
    })
}

/// What a panic says.
pub fn words_of(payload: &dyn std::any::Any) -> &str {
    let words = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    words.unwrap_or("a panic without words")
}

fn report(observed: &Observed) -> Report {
    let (violations, seen) = observed.outcome();
    for violation in &violations {
        observed.trace.line(format_args!("violated: {violation}"));
    }
    let virtual_ms = u64::try_from(observed.trace.elapsed().as_millis()).unwrap_or(u64::MAX);
    let ended = observed.trace.end();
    Report { violations, digest: ended.digest, lines: ended.count, tail: ended.tail, seen, virtual_ms }
}

struct World {
    nodes: Vec<Arc<Node>>,
    victims: Arc<Victims>,
    workload: Arc<Workload>,
    observed: Arc<Observed>,
    shards: u32,
    actors_before: usize,
}

impl World {
    fn new(case: &Case, observed: Arc<Observed>) -> Self {
        let knobs = &case.knobs;
        let weather = Weather { drop: 0, repeat: 0, delay_us: knobs.latency_us, reorders: false };
        let network = Network::new(stream(case.seed, "network"), weather, Arc::clone(&observed));
        let start = Instant::now();
        let nodes: Vec<Arc<Node>> = (1..=case.nodes)
            .map(|id| Arc::new(Node::new(parts(case, id, start), network.clone(), Arc::clone(&observed))))
            .collect();
        let victims = Victims { nodes: nodes.clone(), network, weather, observed: Arc::clone(&observed) };
        let workload = Workload::new(nodes.clone(), knobs.clone(), Arc::clone(&observed));
        let actors_before = ractor::registry::get_all_pids().len();
        Self { nodes, victims: Arc::new(victims), workload, observed, shards: knobs.shards, actors_before }
    }

    async fn live(&self, case: &Case) {
        for node in &self.nodes {
            tokio::spawn(Arc::clone(node).run());
        }
        self.workload.start(stream(case.seed, "workload"));
        let busy = Duration::from_millis(case.busy_ms);
        let faults = play(Arc::clone(&self.victims), case);
        // A plan is made to end before, so nothing of it is left to happen in the calm.
        let _ = tokio::time::timeout(busy, async { tokio::join!(faults, sleep(busy)) }).await;
        self.calm().await;
        self.compare().await;
        for violation in check(&self.workload.history()) {
            self.observed.violation(violation);
        }
        self.stop().await;
    }

    /// Nothing goes wrong any more: within [`CALM`] clients finish and replicas agree.
    async fn calm(&self) {
        self.observed.trace.line("calm");
        self.victims.network.heal_all();
        self.victims.network.set_weather(self.victims.weather);
        for node in &self.nodes {
            node.calm();
            node.pace.slow(1);
        }
        self.workload.finish();
        let deadline = Instant::now() + CALM;
        let mut settled = false;
        loop {
            let waiting = || self.workload.waiting().map(|client| format!("{client} has not ended"));
            let Some(missing) = self.missing().or_else(waiting) else {
                if settled {
                    return;
                }
                // What a client gave up may still be on its way in an ingester.
                sleep(limits::INGEST_DEADLINE).await;
                settled = true;
                continue;
            };
            if Instant::now() >= deadline + if settled { limits::INGEST_DEADLINE } else { Duration::ZERO } {
                self.observed.violation(format_args!("calm: {CALM:?} after the last fault {missing}"));
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Nodes that must be whole in the end.
    fn sound(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(|node| node.fate() == Fate::Lives && !node.is_damaged())
    }

    /// What keeps the cluster from being at rest.
    fn missing(&self) -> Option<String> {
        if let Some(node) = self.nodes.iter().find(|node| node.fate() == Fate::Wiped) {
            return Some(format!("the wiped node {} has not been turned away", node.id));
        }
        for shard in (0..self.shards).map(ShardId) {
            let mut ends = Vec::new();
            for node in self.sound() {
                let Some(up) = node.up() else { return Some(format!("node {} is down", node.id)) };
                let cluster = up.site.board.cluster().borrow().clone();
                let Some(placement) = cluster.shards().placement(shard) else {
                    return Some(format!("node {} knows no place of {shard}", node.id));
                };
                if !placement.replicas.contains_key(&node.id) {
                    continue;
                }
                let standing = up.site.board.standing(shard)?;
                if standing.leader.is_none() {
                    return Some(format!("{shard} has no leader on node {}", node.id));
                }
                ends.push((standing.next_offset, node.id, standing.role == Role::Leader));
            }
            if ends.windows(2).any(|pair| pair[0].0 != pair[1].0) {
                return Some(format!("replicas of {shard} end at {ends:?}"));
            }
        }
        None
    }

    /// Reads every replica whole, for the history to be judged by.
    async fn compare(&self) {
        for node in &self.nodes {
            for shard in (0..self.shards).map(ShardId) {
                if self.holds(node, shard) {
                    self.read(node, shard).await;
                }
            }
        }
    }

    fn holds(&self, node: &Node, shard: ShardId) -> bool {
        node.up().is_some_and(|up| {
            let cluster = up.site.board.cluster().borrow().clone();
            cluster.shards().placement(shard).is_some_and(|placement| placement.replicas.contains_key(&node.id))
        })
    }

    async fn read(&self, node: &Arc<Node>, shard: ShardId) {
        let records = self.workload.records(node, shard, "local", 0).await;
        let held = |(offset, id, digest)| Held { offset: Offset(offset), id, digest };
        match records {
            Some((records, _)) => {
                let records = records.into_iter().map(held).collect();
                self.workload.history().final_content(node.id, shard, records);
                if node.is_damaged() {
                    self.workload.history().exclude(node.id, shard);
                }
            }
            None if node.is_damaged() => self.observed.saw("damaged record refused"),
            None => {
                self.observed.violation(format_args!("read: node {} does not show its {shard} in the calm", node.id))
            }
        }
    }

    /// Ends every node; nothing of them is left.
    async fn stop(&self) {
        for node in &self.nodes {
            node.leave();
        }
        sleep(SETTLE).await;
        let left = ractor::registry::get_all_pids().len().saturating_sub(self.actors_before);
        if left > 0 {
            self.observed.violation(format_args!("leak: {left} actors live after their nodes were killed"));
        }
    }
}

fn parts(case: &Case, id: u64, start: Instant) -> NodeParts {
    let knobs = &case.knobs;
    let seed = |name: &str| stream(case.seed, &format!("node {id} {name}"));
    let mut draws = millpond::storage::lossy::Draws::new(seed("clock"));
    let skew =
        i64::try_from(draws.below(2 * knobs.skew_ms + 1)).unwrap_or(0) - i64::try_from(knobs.skew_ms).unwrap_or(0);
    let mut isolated = Restart { intensity: knobs.restart_intensity, ..Restart::ISOLATED };
    isolated.after_budget = GiveUp::DownThenRetry(Duration::from_millis(knobs.down_ms));
    NodeParts {
        config: config(case, id),
        knobs: NodeKnobs {
            consensus: millpond::consensus::Knobs {
                election_ticks: knobs.election_ticks,
                heartbeat_ticks: knobs.heartbeat_ticks,
                append_bytes_max: knobs.append_bytes_max,
                inflight_appends_max: knobs.inflight_appends_max,
                apply_bytes_max: knobs.apply_bytes_max,
                ..millpond::consensus::Knobs::default()
            },
            part_bytes_max: knobs.part_bytes,
            entry_bytes_max: knobs.entry_bytes,
            entries_in_flight_max: knobs.entries_in_flight,
            group_bytes_max: knobs.group_bytes,
            link_credit_bytes: knobs.link_credit_bytes,
            isolated,
        },
        wal: WalOptions {
            segment_bytes: knobs.wal_segment_bytes,
            bytes_max: 256 * knobs.wal_segment_bytes,
            reserve_bytes: knobs.wal_segment_bytes / 2,
            pin_bytes_max: knobs.wal_segment_bytes / 16,
        },
        workers: knobs.workers,
        clock: Arc::new(SimClock::new(start, skew * 1_000_000)),
        pace: Arc::new(Pace::new(seed("pace"), knobs.disk_us)),
        random: Arc::new(SimRandom::new(seed("random"))),
        disk: LossyDisk::new(seed("disk")),
    }
}

fn config(case: &Case, id: u64) -> Config {
    let replication = if case.nodes < 3 { 1 } else { 3 };
    let mut text = format!(
        "name = \"simulation\"\nshards = {}\nreplication = {replication}\nrouting = \"hash\"\ncookie = \"simulation\"\n",
        case.knobs.shards
    );
    for node in 1..=case.nodes {
        text.push_str(&format!(
            "[[nodes]]\nid = {node}\nname = \"node-{node}\"\npeer = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n",
            4_100 + node,
            3_100 + node
        ));
    }
    let cluster = ClusterFile::parse(&text, "cluster.toml").expect("the simulation's cluster file keeps the rules");
    let node = format!("cluster = \"cluster.toml\"\nid = {id}\nfault_injection = true\n");
    let node = NodeFile::parse(&node, "node.toml").expect("the simulation's node file keeps the rules");
    let mut config = node.resolve("node.toml", Some((cluster, "cluster.toml"))).expect("and both together do");
    // Smaller than an operator may choose, so that a short run seals often.
    config.node.limits.head_bytes_max = ByteSize(case.knobs.head_bytes_max);
    // Some nodes refuse ingest while they have room left, others only when the log has none.
    config.node.limits.disk_refuse_percent = if id.is_multiple_of(2) { 95 } else { 100 };
    config.node.limits.head_age_max = Span(Duration::from_millis(case.knobs.head_age_ms));
    config
}
