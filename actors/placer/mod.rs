//! `placer`: on the node that leads the metadata group it places the shards of a new cluster, and plans and tends the
//! moves of replicas; on every node it hands on leadership until each leads its share, and all of it from a node whose
//! disk is full or that is about to stop.
//!
//! Parent: `node`. It receives its own ticks, the reports of other nodes, which it asks for, and questions about the
//! plan; it reads the board; it proposes to the metadata replica of this node and asks replicas of this node to hand
//! leadership over. What it decides is in `placement` and `cluster`. A restart, or another leader, begins with no
//! reports, and counts anew for how long nodes have been gone.

pub mod plan;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond::cluster::{Cluster, Command};
use millpond::consensus::Role;
use millpond::id::{Epoch, NodeId, ShardId};
use millpond::limits;
use millpond::link::Fault;
use millpond::placement::{MemberState, Move, Seat, plan_initial, plan_leaders};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::plan::{Facts, Plan, alive};
use self::report::NodeReport;
use crate::append::AppendReply;
use crate::board::Follower;
use crate::links::{Answer, Method, PeerState};
use crate::node::ROOT;
use crate::replica::ReplicaMessage;
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Own};

/// What the placer is told.
#[derive(Debug)]
pub enum PlacerMessage {
    /// Look at the board.
    Tick,
    /// A node reports.
    Reported(NodeId, NodeReport),
    /// Somebody asks for the plan.
    Asked(PlanReply),
}

/// Ticks of which one alone is acted on while nothing moves.
const TICKS_AT_REST: u32 = (limits::PLACER_TICK.as_millis() / limits::PLACER_TICK_MOVING.as_millis()) as u32;

/// Who asks for the plan. Dropped, it says that there is none.
#[derive(Debug)]
pub enum PlanReply {
    /// A task of this node.
    Here(oneshot::Sender<Plan>),
    /// Another node.
    Peer(Answer),
}

impl PlanReply {
    fn send(self, plan: Option<Plan>) {
        match (self, plan) {
            // A task that gave up does not listen any more.
            (Self::Here(reply), Some(plan)) => drop(reply.send(plan)),
            (Self::Here(_), None) => {}
            (Self::Peer(answer), Some(plan)) => {
                answer.send(Ok(rmp_serde::to_vec(&plan).expect("plain data always encodes").into()));
            }
            (Self::Peer(answer), None) => {
                let why = b"this node does not lead the metadata group";
                answer.send(Err(Fault::application(Bytes::from_static(why))));
            }
        }
    }
}

/// What to say where there is no plan.
pub const NO_PLAN: &str = "the node that leads the metadata group does not say which moves should begin; try again";

/// What is under way and what should begin, as the node knows it that leads the metadata group; `None` where that is not
/// known or does not answer.
pub async fn plan(site: &Site) -> Option<Plan> {
    let leader = site.board.leader(ShardId::METADATA)?;
    if leader == site.env.node {
        let (reply, plan) = oneshot::channel();
        site.tree.seat("placer", Some(ROOT)).cast(PlacerMessage::Asked(PlanReply::Here(reply))).ok()?;
        return plan.await.ok();
    }
    let asked = site.links.call(leader, Method::Plan, Bytes::new(), limits::PLACER_TICK).await;
    rmp_serde::from_slice(&asked.ok()?).ok()
}

/// Places shards, plans moves and spreads leaders.
#[derive(Debug)]
pub struct Placer;

/// The state of a placer.
#[derive(Debug)]
pub struct PlacerState {
    myself: Own<PlacerMessage>,
    site: Site,
    /// What nodes said lately, and when; nothing where this node does not plan.
    reports: BTreeMap<NodeId, (Instant, NodeReport)>,
    /// Since when nodes have been gone.
    gone: BTreeMap<NodeId, Instant>,
    ticks: u32,
}

impl Actor for Placer {
    type Message = PlacerMessage;
    type Arguments = Site;
    type State = PlacerState;

    async fn pre_start(&self, myself: &Own<PlacerMessage>, site: Site) -> Result<PlacerState, ActorError> {
        drop(myself.cast_every(limits::PLACER_TICK_MOVING, || PlacerMessage::Tick));
        Ok(PlacerState { myself: myself.clone(), site, reports: BTreeMap::new(), gone: BTreeMap::new(), ticks: 0 })
    }

    async fn handle(
        &self,
        _: &Own<PlacerMessage>,
        message: PlacerMessage,
        state: &mut PlacerState,
    ) -> Result<(), ActorError> {
        match message {
            PlacerMessage::Tick => state.tick(),
            PlacerMessage::Reported(node, report) => state.reported(node, report),
            PlacerMessage::Asked(reply) => reply.send(state.plan()),
        }
        Ok(())
    }
}

impl PlacerState {
    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let cluster = self.site.board.cluster().borrow().clone();
        if self.ticks.is_multiple_of(TICKS_AT_REST) {
            spread_leaders(&self.site);
        } else if cluster.moves().is_empty() {
            return;
        }
        if !self.plans(&cluster) {
            self.reports.clear();
            self.gone.clear();
            return;
        }
        if cluster.shards().shards.is_empty() {
            if let Some(command) = first_map(&self.site, &cluster) {
                self.propose(&command);
            }
            return;
        }
        self.look(&cluster);
        let rebalance = self.site.config.cluster.rebalance;
        self.propose_all(self.on_facts(&cluster, |facts| [facts.tend(), facts.begin(rebalance)].concat()));
        self.show(&cluster);
        self.ask();
    }

    /// What a report says of a move is acted on at once.
    fn reported(&mut self, node: NodeId, report: NodeReport) {
        let cluster = self.site.board.cluster().borrow().clone();
        if self.plans(&cluster) {
            self.reports.insert(node, (Instant::now(), report));
            self.propose_all(self.on_facts(&cluster, |facts| facts.tend()));
        }
    }

    fn propose_all(&self, commands: Vec<Command>) {
        for command in commands {
            self.propose(&command);
        }
    }

    /// Whether this node leads the metadata group of a cluster that is formed.
    fn plans(&self, cluster: &Cluster) -> bool {
        let metadata = self.site.board.standing(ShardId::METADATA);
        cluster.identity().is_some() && metadata.is_some_and(|standing| standing.role == Role::Leader)
    }

    /// Takes the time of who is not there.
    fn look(&mut self, cluster: &Cluster) {
        let (now, node) = (Instant::now(), self.site.env.node);
        self.reports.insert(node, (now, NodeReport::of(&self.site)));
        self.reports.retain(|_, (heard, _)| now.duration_since(*heard) < limits::NODE_REPORT_LIFE);
        let connected = self.site.links.peers().into_iter().filter(|peer| peer.state == PeerState::Connected);
        let connected = connected.map(|peer| peer.node).chain([node]);
        let here = alive(connected, self.reports.values().map(|(_, report)| report));
        self.gone.retain(|node, _| !here.contains(node) && cluster.members().contains_key(node));
        let present = cluster.members().iter().filter(|(_, member)| member.state != MemberState::Removed);
        for (node, _) in present.filter(|(node, _)| !here.contains(*node)) {
            self.gone.entry(*node).or_insert(now);
        }
    }

    fn on_facts<T>(&self, cluster: &Cluster, say: impl FnOnce(&Facts<'_>) -> T) -> T {
        let now = Instant::now();
        let reports = self.reports.iter().map(|(node, (_, report))| (*node, report)).collect();
        let gone = self.gone.iter().map(|(node, since)| (*node, now.duration_since(*since))).collect();
        let grace = self.site.config.cluster.rehome_after.0;
        say(&Facts { cluster, reports: &reports, gone: &gone, grace })
    }

    /// Asks every node that is connected for its report.
    fn ask(&self) {
        for peer in self.site.links.peers().into_iter().filter(|peer| peer.state == PeerState::Connected) {
            let (node, myself) = (peer.node, self.myself.clone());
            let call = self.site.links.call(node, Method::Report, Bytes::new(), limits::PLACER_TICK);
            tokio::spawn(async move {
                // A node that does not answer is asked again with the next tick.
                if let Some(report) = call.await.ok().and_then(|bytes| NodeReport::decode(&bytes)) {
                    let _ = myself.cast(PlacerMessage::Reported(node, report));
                }
            });
        }
    }

    fn plan(&self) -> Option<Plan> {
        let cluster = self.site.board.cluster().borrow().clone();
        let plans = self.plans(&cluster);
        let epoch = cluster.shards().epoch;
        let plan = |facts: &Facts<'_>| Plan { stages: facts.stages(), wishes: facts.wishes(true), epoch };
        plans.then(|| self.on_facts(&cluster, plan))
    }

    /// Shows the moves under way in the tree.
    fn show(&self, cluster: &Cluster) {
        let stages = self.on_facts(cluster, |facts| facts.stages());
        let nodes = |seats: &mut dyn Iterator<Item = Seat>| {
            let nodes: Vec<String> = seats.map(|seat| seat.node.to_string()).collect();
            if nodes.is_empty() { "none".to_owned() } else { nodes.join(" and ") }
        };
        let words = cluster.moves().values().map(|under_way| {
            let Move { id, shard, add, why, .. } = under_way;
            let stage = stages.get(id).map_or_else(String::new, ToString::to_string);
            let (from, to) = (nodes(&mut under_way.leaving()), nodes(&mut add.iter().copied()));
            format!("{shard} from {from} to {to} ({why}): {stage}")
        });
        let words: Vec<String> = words.collect();
        self.myself.detail("moves", if words.is_empty() { "none".to_owned() } else { words.join("; ") });
    }

    /// Where it is not taken the next tick proposes again: each command is looked at by the state that it meets.
    fn propose(&self, command: &Command) {
        if let Some(replica) = self.site.board.replica(ShardId::METADATA) {
            let (payload, reply) = (command.encode().into(), AppendReply::nobody());
            let _ = replica.cast(ReplicaMessage::Append { payload, reply });
        }
    }
}

/// Where the shards of a new cluster live. The command is refused where there is a map already.
fn first_map(site: &Site, cluster: &Cluster) -> Option<Command> {
    let settings = &site.config.cluster;
    // A node may have joined, or be about to leave, before there was anything to place.
    let active = cluster.members().iter().filter(|(_, member)| member.state == MemberState::Active);
    let nodes: BTreeSet<NodeId> = active.map(|(node, _)| *node).collect();
    if nodes.is_empty() {
        return None;
    }
    let copies = usize::try_from(settings.replication).expect("a handful");
    let mut map = plan_initial(&nodes, settings.shards, copies, &mut cluster.replica_ids());
    map.epoch = Epoch(cluster.shards().epoch.0 + 1);
    Some(Command::PlaceShards { map })
}

/// Each node hands on what it leads beyond its share, and everything while it is not fit to lead.
fn spread_leaders(site: &Site) {
    let node = site.env.node;
    if !site.board.is_fit() {
        leave_leadership(site);
        return;
    }
    let cluster = site.board.cluster().borrow().clone();
    let connected = site.links.peers().into_iter().filter(|peer| peer.state == PeerState::Connected);
    let peers = connected.map(|peer| peer.node).filter(|peer| site.board.is_peer_fit(*peer));
    let alive: BTreeSet<NodeId> = peers.chain([node]).collect();
    let standings = site.board.standings().into_iter();
    let observed = standings.filter_map(|standing| Some((standing.shard, standing.leader?))).collect();
    let transfers = plan_leaders(&cluster.staying(), &observed, &alive, &cluster.draining()).into_iter();
    for transfer in transfers.filter(|transfer| transfer.from == node) {
        if let Some(replica) = site.board.replica(transfer.shard) {
            let _ = replica.cast(ReplicaMessage::Transfer(transfer.to));
        }
    }
}

/// Asks every replica that leads here to let a peer lead that has the log. Whether one still leads.
pub fn leave_leadership(site: &Site) -> bool {
    let standings = site.board.standings().into_iter().chain(site.board.standing(ShardId::METADATA));
    let led = standings.filter(|standing| standing.role == Role::Leader && !standing.followers.is_empty());
    led.fold(false, |_, standing| {
        let able = |follower: &&Follower| {
            follower.active && !follower.learner && !follower.needs_snapshot && site.board.is_peer_fit(follower.node)
        };
        let to = standing.followers.iter().filter(able).max_by_key(|follower| follower.matched);
        if let (Some(to), Some(replica)) = (to, site.board.replica(standing.shard)) {
            let _ = replica.cast(ReplicaMessage::Transfer(to.node));
        }
        true
    })
}
