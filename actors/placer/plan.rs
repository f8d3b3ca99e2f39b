//! What the node that leads the metadata group makes of the reports of all nodes: which moves go on, which should begin,
//! and how far each is. The decisions are `placement`'s and `cluster`'s; this file brings the facts into their shape.
//!
//! A node counts as gone when it is neither connected nor seen alive by any leader that is: a link that is cut between
//! two nodes alone makes none of them dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond::cluster::{Cluster, Command, Group};
use millpond::id::{NodeId, ShardId};
use millpond::placement::{Desired, MemberState, Move, MoveId, NodeView, Observed, ShardView, Wish, plan_moves};
use serde::{Deserialize, Serialize};

use super::report::{Led, NodeReport};

/// What the planning node has before it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The state of the metadata group.
    pub cluster: &'a Cluster,
    /// What nodes said lately, the planning node among them.
    pub reports: &'a BTreeMap<NodeId, NodeReport>,
    /// For how long nodes have been gone.
    pub gone: &'a BTreeMap<NodeId, Duration>,
    /// After how long what they hold is moved.
    pub grace: Duration,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nobody leads the group, as far as is known.
    WaitsForLeader,
    /// The replica does not follow yet.
    Starting,
    /// It copies a snapshot.
    Copying,
    /// It is sent entries.
    CatchingUp {
        /// What it has.
        matched: u64,
        /// What there is.
        committed: u64,
    },
    /// The members of the group change.
    ChangingMembers,
    /// The cluster is told.
    Ending,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WaitsForLeader => f.write_str("waits for a leader"),
            Self::Starting => f.write_str("starting"),
            Self::Copying => f.write_str("copying a snapshot"),
            Self::CatchingUp { matched, committed } => write!(f, "catching up, entry {matched} of {committed}"),
            Self::ChangingMembers => f.write_str("changing members"),
            Self::Ending => f.write_str("ending"),
        }
    }
}

/// What is under way and what should begin, for whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How far each move is.
    pub stages: BTreeMap<MoveId, Stage>,
    /// The moves that should begin now.
    pub wishes: Vec<Wish>,
}

impl<'a> Facts<'a> {
    /// The commands that carry moves on.
    pub fn tend(&self) -> Vec<Command> {
        let led = self.led();
        let tended = self.cluster.moves().values().filter_map(|under_way| {
            let led = led.get(&under_way.shard)?;
            let (caught_up, shard) = (led.caught_up(), under_way.shard);
            let group = Group { shard, leader: led.leader, members: &led.members, caught_up: &caught_up };
            self.cluster.tend(group, |under_way| self.takes(under_way))
        });
        tended.collect()
    }

    /// The commands that begin moves.
    pub fn begin(&self, rebalance: bool) -> Vec<Command> {
        let expects = self.cluster.shards().epoch;
        let begin = |Wish { shard, add, remove, why }| Command::BeginMove { shard, add, remove, why, expects };
        self.wishes(rebalance).into_iter().map(begin).collect()
    }

    /// The moves that should begin now.
    pub fn wishes(&self, rebalance: bool) -> Vec<Wish> {
        let cluster = self.cluster;
        let observed = Observed {
            nodes: self.nodes(),
            map: cluster.shards(),
            metadata: cluster.metadata(),
            lost: cluster.lost(),
            moves: cluster.moves(),
            shards: self.shards(),
        };
        let copies = usize::try_from(cluster.copies()).expect("a handful");
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        plan_moves(&observed, &Desired::new(copies, grace, rebalance))
    }

    /// How far each move is.
    pub fn stages(&self) -> BTreeMap<MoveId, Stage> {
        let led = self.led();
        let moves = self.cluster.moves().values();
        moves.map(|under_way| (under_way.id, stage(under_way, led.get(&under_way.shard).copied()))).collect()
    }

    /// The latest word on each group; of two that say they lead it, the one that is further.
    fn led(&self) -> BTreeMap<ShardId, &'a Led> {
        let mut known: BTreeMap<ShardId, &'a Led> = BTreeMap::new();
        for led in self.reports.values().flat_map(|report| &report.led) {
            let best = known.entry(led.shard).or_insert(led);
            if led.committed > best.committed {
                *best = led;
            }
        }
        known
    }

    fn nodes(&self) -> BTreeMap<NodeId, NodeView> {
        let view = |(node, member): (&NodeId, &millpond::cluster::Member)| {
            let report = self.reports.get(node);
            let view = NodeView {
                state: member.state,
                gone_ms: self.gone.get(node).map(|gone| u64::try_from(gone.as_millis()).unwrap_or(u64::MAX)),
                zone: member.zone.clone(),
                has_room: report.is_some_and(|report| report.has_room),
                bytes: report.map_or(0, |report| report.bytes),
            };
            (*node, view)
        };
        self.cluster.members().iter().map(view).collect()
    }

    fn shards(&self) -> BTreeMap<ShardId, ShardView> {
        let given_up = |shard: ShardId| {
            let spent = self.reports.values().filter_map(move |report| report.given_up.get(&shard).copied());
            spent.collect::<BTreeSet<_>>()
        };
        let view = |(shard, led): (ShardId, &Led)| {
            let leader = self.cluster.homes(shard).get(&led.leader).copied();
            (shard, ShardView { leader, bytes: led.bytes, live: led.live(), given_up: given_up(shard) })
        };
        self.led().into_iter().map(view).collect()
    }

    /// Whether the node that a replica comes to can still take it.
    fn takes(&self, under_way: &Move) -> bool {
        let Some(seat) = under_way.add else { return true };
        let active = self.cluster.members().get(&seat.node).is_some_and(|member| member.state == MemberState::Active);
        let here = self.gone.get(&seat.node).is_none_or(|gone| *gone < self.grace);
        active && here && !self.cluster.lost().contains(&seat.replica)
    }
}

fn stage(under_way: &Move, led: Option<&Led>) -> Stage {
    let Some(led) = led else { return Stage::WaitsForLeader };
    let come = under_way.add.map(|seat| seat.replica);
    let joins = come.is_some_and(|id| !led.members.votes(id));
    if under_way.confirmed && (joins || led.members.is_joint()) {
        return Stage::ChangingMembers;
    }
    if !joins {
        let goes = under_way.remove.is_some_and(|seat| led.members.votes(seat.replica));
        return if goes { Stage::ChangingMembers } else { Stage::Ending };
    }
    match led.peers.iter().find(|peer| Some(peer.replica) == come) {
        None => Stage::Starting,
        Some(peer) if peer.needs_snapshot => Stage::Copying,
        Some(peer) => Stage::CatchingUp { matched: peer.matched.0, committed: led.committed.0 },
    }
}
