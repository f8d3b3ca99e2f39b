//! One run: a cluster of real nodes in one process, clients, faults, then calm, and the judgement of what was promised.
//!
//! Everything runs on one thread and one runtime whose time passes only when nobody has anything to do. Each thing that
//! varies draws from a random stream of its own, so that leaving a fault out changes nothing else at its root.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use millpond::cluster::Cluster;
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
use crate::draw::Dice;
use crate::faults::{Victims, play};
use crate::ground::{Pace, SimClock, SimRandom};
use crate::history::{Held, check};
use crate::membership;
use crate::network::{Network, Weather};
use crate::node::{Fate, Node, NodeParts};
use crate::observe::{Listener, Observed};
use crate::operate::{self, Operators};
use crate::trace::Trace;
use crate::workload::Workload;

/// Virtual time after the faults in which replicas converge and writes resume.
const CALM: Duration = Duration::from_secs(30);
/// The same where replicas may have to move first, beside the time that a node may be gone.
const CALM_MOVING: Duration = Duration::from_secs(60);
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
    operators: Arc<Operators>,
    workload: Arc<Workload>,
    observed: Arc<Observed>,
    shards: u32,
    /// How long after the last fault everything may take to be well again.
    patience: Duration,
    actors_before: usize,
}

impl World {
    fn new(case: &Case, observed: Arc<Observed>) -> Self {
        let knobs = &case.knobs;
        let weather = Weather { drop: 0, repeat: 0, delay_us: knobs.latency_us, reorders: false };
        let network = Network::new(stream(case.seed, "network"), weather, Arc::clone(&observed));
        let start = Instant::now();
        let membership = &case.membership;
        let nodes: Vec<Arc<Node>> = (1..=case.nodes + membership.spares)
            .map(|id| Arc::new(Node::new(parts(case, id, start), network.clone(), Arc::clone(&observed))))
            .collect();
        let victims = Victims { nodes: nodes.clone(), network, weather, observed: Arc::clone(&observed) };
        let workload = Workload::new(nodes.clone(), knobs.clone(), Arc::clone(&observed));
        let operators = Arc::new(Operators { nodes: nodes.clone(), observed: Arc::clone(&observed) });
        let moves = membership.spares > 0 || !case.operations.is_empty();
        let moving = CALM_MOVING + Duration::from_millis(membership.rehome_after_ms);
        let patience = if moves { moving } else { CALM };
        let actors_before = ractor::registry::get_all_pids().len();
        let (victims, shards) = (Arc::new(victims), knobs.shards);
        Self { nodes, victims, operators, workload, observed, shards, patience, actors_before }
    }

    async fn live(&self, case: &Case) {
        for node in &self.nodes {
            if node.fate() == Fate::Off {
                self.observed.spare(node.id);
            } else {
                tokio::spawn(Arc::clone(node).run());
            }
        }
        self.workload.start(stream(case.seed, "workload"), Dice::new(case.seed, "askers"));
        let busy = Duration::from_millis(case.busy_ms);
        let faults = play(Arc::clone(&self.victims), case);
        let operations = operate::play(Arc::clone(&self.operators), case);
        // Faults are made to end before, and an operator who is not done asks no more: nothing happens in the calm.
        let _ = tokio::time::timeout(busy, async { tokio::join!(faults, operations, sleep(busy)) }).await;
        self.calm().await;
        let content = self.compare().await;
        self.workload.settle_tails();
        for violation in check(&self.workload.history()) {
            self.observed.violation(violation);
        }
        self.ask(case, &content).await;
        self.stop().await;
    }

    /// Nothing goes wrong any more: within its patience clients finish, replicas are where they should be, and agree.
    async fn calm(&self) {
        self.observed.trace.line("calm");
        self.victims.network.heal_all();
        self.victims.network.set_weather(self.victims.weather);
        for node in &self.nodes {
            node.calm();
            node.pace.slow(1);
        }
        self.workload.finish();
        let calm = Instant::now();
        let mut settled = false;
        loop {
            let waiting = || self.workload.waiting().map(|client| format!("{client} has not ended"));
            let (missing, patience) = match self.missing().or_else(waiting) {
                Some(missing) => (Some(missing), self.patience),
                // Files that somebody began to copy are held for so long.
                None => (self.left_behind(), self.patience + limits::TRANSFER_LEASE),
            };
            let settling = if settled { limits::INGEST_DEADLINE } else { Duration::ZERO };
            match missing {
                None if settled => return,
                None => {
                    // What a client gave up may still be on its way in an ingester.
                    sleep(limits::INGEST_DEADLINE).await;
                    settled = true;
                }
                Some(missing) if Instant::now() >= calm + patience + settling => {
                    self.observed.violation(format_args!("calm: {patience:?} after the last fault {missing}"));
                    return;
                }
                Some(_) => sleep(LOOK).await,
            }
        }
    }

    /// Nodes that belong to the cluster and must be whole in the end.
    fn sound<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.iter().filter(|node| membership::state(cluster, node).is_some() && !node.is_damaged())
    }

    /// What keeps the cluster from being at rest.
    fn missing(&self) -> Option<String> {
        let cluster = membership::latest(&self.nodes);
        for node in self.sound(&cluster) {
            let Some(up) = node.up() else { return Some(format!("node {} is down", node.id)) };
            let (knows, latest) = (up.site.board.cluster().borrow().applied(), cluster.applied());
            if knows != latest {
                return Some(format!("node {} knows the cluster as of {knows} and not of {latest}", node.id));
            }
        }
        let misplaced = membership::misplaced(&cluster, &self.nodes);
        misplaced.or_else(|| (0..self.shards).find_map(|shard| self.apart(&cluster, ShardId(shard))))
    }

    /// Whether the replicas of a shard disagree.
    fn apart(&self, cluster: &Cluster, shard: ShardId) -> Option<String> {
        let mut ends = Vec::new();
        for node in self.sound(cluster).filter(|node| membership::holds(cluster, node, shard)) {
            let standing = node.up()?.site.board.standing(shard)?;
            if standing.leader.is_none() {
                return Some(format!("{shard} has no leader on node {}", node.id));
            }
            let placed = cluster.placement(shard).and_then(|placement| placement.replicas.get(&node.id)).copied();
            if standing.replica != placed {
                let runs = standing.replica;
                return Some(format!("node {} runs replica {runs:?} of {shard}, placed is {placed:?}", node.id));
            }
            ends.push((standing.next_offset, node.id, standing.role == Role::Leader));
        }
        let apart = ends.windows(2).any(|pair| pair[0].0 != pair[1].0);
        apart.then(|| format!("replicas of {shard} end at {ends:?}"))
    }

    /// What a node still has of a shard that is not placed there: a replica that runs, or files.
    fn left_behind(&self) -> Option<String> {
        let cluster = membership::latest(&self.nodes);
        self.sound(&cluster).find_map(|node| {
            let up = node.up()?;
            let strange = (0..self.shards).map(ShardId).find(|shard| {
                let folder = format!("shards/{}/", shard.0);
                let runs = up.site.board.standing(*shard).is_some_and(|standing| standing.replica.is_some());
                !membership::holds(&cluster, node, *shard) && (runs || !node.disk().paths(&folder).is_empty())
            })?;
            Some(format!("node {} has something of {strange}, which is not placed there", node.id))
        })
    }

    /// Reads every replica whole, for the history to be judged by; of each shard the longest is given back.
    async fn compare(&self) -> BTreeMap<ShardId, Vec<Held>> {
        let cluster = membership::latest(&self.nodes);
        let mut content: BTreeMap<ShardId, Vec<Held>> = BTreeMap::new();
        for node in &self.nodes {
            for shard in (0..self.shards).map(ShardId) {
                if membership::holds(&cluster, node, shard)
                    && let Some(records) = self.read(node, shard).await
                    && content.get(&shard).is_none_or(|longest| longest.len() < records.len())
                {
                    content.insert(shard, records);
                }
            }
        }
        content
    }

    /// Asks in LogQL, where nothing went wrong that an answer could only repeat.
    async fn ask(&self, case: &Case, content: &BTreeMap<ShardId, Vec<Held>>) {
        let cluster = membership::latest(&self.nodes);
        let nodes: Vec<Arc<Node>> = self.sound(&cluster).cloned().collect();
        if self.observed.holds() && !nodes.is_empty() && content.len() == self.shards as usize {
            self.workload.ask_at_rest(&nodes, content, &mut Dice::new(case.seed, "asking at rest")).await;
        }
    }

    async fn read(&self, node: &Arc<Node>, shard: ShardId) -> Option<Vec<Held>> {
        let records = self.workload.records(node, shard, "local", 0).await;
        let held = |(offset, id, digest)| Held { offset: Offset(offset), id, digest };
        match records {
            Some((records, _)) => {
                let records: Vec<Held> = records.into_iter().map(held).collect();
                self.workload.history().final_content(node.id, shard, records.clone());
                if node.is_damaged() {
                    self.workload.history().exclude(node.id, shard);
                    return None;
                }
                return Some(records);
            }
            None if node.is_damaged() => self.observed.saw("damaged record refused"),
            // It may have moved meanwhile, to even out what nodes hold.
            None if !membership::holds(&membership::latest(&self.nodes), node, shard) => {}
            None => {
                self.observed.violation(format_args!("read: node {} does not show its {shard} in the calm", node.id));
            }
        }
        None
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
        starts: id <= case.nodes,
    }
}

fn config(case: &Case, id: u64) -> Config {
    let replication = if case.nodes < 3 { 1 } else { 3 };
    let membership = &case.membership;
    let mut text = format!(
        "name = \"simulation\"\nshards = {}\nreplication = {replication}\nrouting = \"hash\"\ncookie = \"simulation\"\n\
         rehome_after = \"{}ms\"\nrebalance = {}\n",
        case.knobs.shards, membership.rehome_after_ms, membership.rebalance
    );
    // A node that joins later knows those that it can ask, and itself.
    let others = (1..=case.nodes).filter(|node| *node != id);
    for node in others.chain([id]) {
        text.push_str(&format!(
            "[[nodes]]\nid = {node}\nname = \"node-{node}\"\npeer = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n",
            4_100 + node,
            3_100 + node
        ));
        if let Some(zone) = node.checked_rem(membership.zones) {
            text.push_str(&format!("zone = \"zone-{zone}\"\n"));
        }
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
