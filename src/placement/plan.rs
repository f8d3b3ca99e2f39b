//! Which moves should begin: what is observed and what is desired in, wishes out. The same wishes for the same facts on
//! every node, so that whoever leads next goes on where another left off.
//!
//! One concern per shard and step, the first that applies:
//!
//! 1. a replica is dead: its store is lost, its node was removed or has been gone for the grace period, or has spent the
//!    restarts that it allows the replica;
//! 2. a replica is on a node that drains;
//! 3. there are too few copies or too many;
//! 4. the nodes hold unequal shares; only while no shard has any of the concerns above (see `rebalance`).
//!
//! A shard without a live majority of its voters is left alone: no change of its members could be committed. So is one
//! that has a move under way. Where no node can take a replica nothing is planned for it: it stays down. A shard is never
//! left with fewer copies than desired in order to get rid of a dead one: the dead one may come back.
//!
//! It does not know how anything is observed, nor how a move is carried out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{MemberState, Move, MoveReason, Placement, Seat, ShardMap, Wish};
use crate::id::{NodeId, ReplicaId, ShardId};
use crate::limits;

/// A node as it is seen by the node that plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// How far it belongs to the cluster.
    pub state: MemberState,
    /// For how many milliseconds it has not been heard; `None`: it lives.
    pub gone_ms: Option<u64>,
    /// Its zone; nodes without one share the empty zone.
    pub zone: String,
    /// Whether its disk has room for more.
    pub has_room: bool,
    /// Bytes it holds.
    pub bytes: u64,
}

/// A group as it is seen by the node that plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardView {
    /// The node that leads it.
    pub leader: Option<NodeId>,
    /// Bytes of one of its replicas.
    pub bytes: u64,
    /// The replicas that take part in it.
    pub live: BTreeSet<ReplicaId>,
    /// The replicas whose nodes have spent the restarts they allow them.
    pub given_up: BTreeSet<ReplicaId>,
}

/// What is.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The nodes. A node that holds replicas and is not among them counts as removed.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Where the shards live.
    pub map: &'a ShardMap,
    /// Where the voters of the metadata group live.
    pub metadata: &'a Placement,
    /// Replicas whose store is gone.
    pub lost: &'a BTreeSet<ReplicaId>,
    /// Moves under way.
    pub moves: &'a BTreeMap<ShardId, Move>,
    /// The groups. One that is not among them has no live majority.
    pub shards: BTreeMap<ShardId, ShardView>,
}

/// What should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Copies of each shard.
    pub copies: usize,
    /// For how long a node may be gone before its replicas count as dead, in milliseconds.
    pub grace_ms: u64,
    /// Whether shares are evened out.
    pub rebalance: bool,
    /// How many replicas more than another a node must hold before one moves; at least 2, below that it would move back.
    pub replicas_apart: usize,
    /// By how many bytes a move must bring two nodes closer to each other.
    pub bytes_apart: u64,
}

impl Desired {
    /// The copies and the grace period of a cluster, with the thresholds that fit everybody.
    pub fn new(copies: usize, grace_ms: u64, rebalance: bool) -> Self {
        Self {
            copies,
            grace_ms,
            rebalance,
            replicas_apart: limits::REBALANCE_REPLICAS_APART,
            bytes_apart: limits::REBALANCE_BYTES_APART,
        }
    }
}

/// The moves that should begin now: at most one for each shard, and together with those under way no more than
/// `MOVES_MAX` in the cluster and `MOVES_PER_NODE_MAX` onto one node. Empty once nothing can be done any more.
pub fn plan_moves(observed: &Observed<'_>, desired: &Desired) -> Vec<Wish> {
    let mut plan = Plan::new(observed, desired);
    let mut needs: Vec<(Need, &Placement)> = Vec::new();
    for placement in observed.placements().filter(|placement| !observed.moves.contains_key(&placement.shard)) {
        needs.extend(plan.needs(placement).into_iter().map(|need| (need, placement)));
    }
    // Among equals the shard that can bear the least goes first, and before all the group that agrees on the moves.
    needs.sort_by_key(|(need, placement)| {
        (need.rank(), plan.spare_voters(placement), placement.shard != ShardId::METADATA, placement.shard)
    });
    for (need, placement) in &needs {
        if let Some(wish) = plan.answer(*need, placement) {
            plan.take(wish);
        }
    }
    let repairs = observed.moves.values().any(|under_way| under_way.why.is_repair());
    if desired.rebalance && needs.is_empty() && !repairs {
        plan.rebalance();
    }
    plan.wishes
}

impl MoveReason {
    /// Whether the move puts something right that is wrong, rather than better what is well.
    fn is_repair(self) -> bool {
        match self {
            Self::Rehome | Self::Drain | Self::Replication | Self::GivenUp => true,
            Self::Rebalance | Self::Requested => false,
        }
    }
}

impl<'a> Observed<'a> {
    /// All groups, the metadata group last.
    pub(super) fn placements(&self) -> impl Iterator<Item = &'a Placement> + use<'a> {
        self.map.shards.iter().chain([self.metadata])
    }
}

/// What is wrong with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Dead { node: NodeId, why: MoveReason },
    Draining { node: NodeId },
    TooFew,
    TooMany,
}

impl Need {
    /// Which concern it is; the lower goes first.
    fn rank(self) -> u8 {
        match self {
            Self::Dead { .. } => 1,
            Self::Draining { .. } => 2,
            Self::TooFew | Self::TooMany => 3,
        }
    }
}

/// What a node holds once everything is done that is under way and wished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Replicas of shards; that of the metadata group is small and does not count.
    pub(super) replicas: usize,
    pub(super) bytes: u64,
    /// Replicas on their way to it.
    pub(super) joining: usize,
}

/// A plan in the making.
pub(super) struct Plan<'a> {
    pub(super) observed: &'a Observed<'a>,
    pub(super) desired: &'a Desired,
    pub(super) load: BTreeMap<NodeId, Load>,
    pub(super) wishes: Vec<Wish>,
}

impl<'a> Plan<'a> {
    fn new(observed: &'a Observed<'a>, desired: &'a Desired) -> Self {
        let node = |(node, view): (&NodeId, &NodeView)| (*node, Load { bytes: view.bytes, ..Load::default() });
        let mut plan = Self { observed, desired, load: observed.nodes.iter().map(node).collect(), wishes: Vec::new() };
        for placement in &observed.map.shards {
            for node in placement.replicas.keys() {
                plan.load.entry(*node).or_default().replicas += 1;
            }
        }
        for Move { shard, add, remove, also, .. } in observed.moves.values() {
            let node = |seat: &Option<Seat>| seat.map(|seat| seat.node);
            plan.shift(*shard, node(add), node(remove));
            plan.shift(*shard, None, node(also));
        }
        plan
    }

    /// Counts a move as done.
    fn shift(&mut self, shard: ShardId, add: Option<NodeId>, remove: Option<NodeId>) {
        let (replicas, bytes) = match self.observed.shards.get(&shard) {
            _ if shard == ShardId::METADATA => (0, 0),
            None => (1, 0),
            Some(view) => (1, view.bytes),
        };
        if let Some(node) = remove {
            let load = self.load.entry(node).or_default();
            load.replicas = load.replicas.saturating_sub(replicas);
            load.bytes = load.bytes.saturating_sub(bytes);
        }
        if let Some(node) = add {
            let load = self.load.entry(node).or_default();
            load.replicas += replicas;
            load.bytes = load.bytes.saturating_add(bytes);
            load.joining += 1;
        }
    }

    pub(super) fn take(&mut self, wish: Wish) {
        self.shift(wish.shard, wish.add, wish.remove);
        self.wishes.push(wish);
    }

    /// Whether another move may begin.
    pub(super) fn has_slot(&self) -> bool {
        self.observed.moves.len() + self.wishes.len() < limits::MOVES_MAX
    }

    /// Whether the shard has a move, under way or wished.
    pub(super) fn is_moving(&self, shard: ShardId) -> bool {
        self.observed.moves.contains_key(&shard) || self.wishes.iter().any(|wish| wish.shard == shard)
    }

    /// What is wrong with a shard: of the first concern that applies all that there is, so that another dead replica can be
    /// seen to where one cannot.
    fn needs(&self, placement: &Placement) -> Vec<Need> {
        let dead = |(node, replica): (&NodeId, &ReplicaId)| {
            let why = self.death(placement.shard, *node, *replica)?;
            Some(Need::Dead { node: *node, why })
        };
        let dead: Vec<Need> = placement.replicas.iter().filter_map(dead).collect();
        if !dead.is_empty() {
            return dead;
        }
        let drains =
            |node: &&NodeId| self.observed.nodes.get(*node).is_some_and(|view| view.state == MemberState::Draining);
        let draining = placement.replicas.keys().find(drains).map(|node| Need::Draining { node: *node });
        let wrong_number = match placement.replicas.len().cmp(&self.copies(placement.shard)) {
            Ordering::Less => Some(Need::TooFew),
            Ordering::Equal => None,
            Ordering::Greater => Some(Need::TooMany),
        };
        draining.or(wrong_number).into_iter().collect()
    }

    /// Why a replica counts as dead; `None` where it does not.
    fn death(&self, shard: ShardId, node: NodeId, replica: ReplicaId) -> Option<MoveReason> {
        let gone = self.observed.nodes.get(&node).is_none_or(|view| {
            view.state == MemberState::Removed || view.gone_ms.is_some_and(|gone| gone >= self.desired.grace_ms)
        });
        if gone || self.observed.lost.contains(&replica) {
            return Some(MoveReason::Rehome);
        }
        let given_up = self.observed.shards.get(&shard).is_some_and(|view| view.given_up.contains(&replica));
        given_up.then_some(MoveReason::GivenUp)
    }

    /// How many copies a group should have.
    ///
    /// The metadata group votes on as many nodes as can be had, up to its bound. Nodes that are gone do not take it below
    /// three: they may come back.
    fn copies(&self, shard: ShardId) -> usize {
        if shard != ShardId::METADATA {
            return self.desired.copies;
        }
        let active = self.observed.nodes.values().filter(|view| view.state == MemberState::Active);
        let usable = active.clone().filter(|view| view.gone_ms.is_none_or(|gone| gone < self.desired.grace_ms));
        let voters = self.observed.metadata.replicas.len();
        usable.count().min(limits::METADATA_VOTERS_MAX).max(active.count().min(voters).min(3))
    }

    fn is_live(&self, shard: ShardId, replica: ReplicaId) -> bool {
        let view = self.observed.shards.get(&shard);
        view.is_some_and(|view| view.live.contains(&replica)) && !self.observed.lost.contains(&replica)
    }

    /// How many voters more than a majority live; `None` without a majority.
    pub(super) fn spare_voters(&self, placement: &Placement) -> Option<usize> {
        let live = placement.replicas.values().filter(|replica| self.is_live(placement.shard, **replica)).count();
        live.checked_sub(placement.replicas.len() / 2 + 1)
    }

    /// Whether every replica of a shard lives.
    pub(super) fn is_whole(&self, placement: &Placement) -> bool {
        placement.replicas.values().all(|replica| self.is_live(placement.shard, *replica))
    }

    /// The move that does something about a need, if there may be one now.
    fn answer(&self, need: Need, placement: &Placement) -> Option<Wish> {
        let majority = self.spare_voters(placement).is_some();
        if !majority || !self.has_slot() || self.is_moving(placement.shard) {
            return None;
        }
        let surplus = placement.replicas.len() > self.copies(placement.shard);
        let (remove, why) = match need {
            Need::Dead { node, why } => (Some(node), why),
            Need::Draining { node } => (Some(node), MoveReason::Drain),
            Need::TooFew => (None, MoveReason::Replication),
            Need::TooMany => (Some(self.superfluous(placement)?), MoveReason::Replication),
        };
        // A node that cannot be emptied yet keeps its vote in the metadata group unless another takes it: one less could make
        // the next loss the last.
        let holds = |node: NodeId| self.load.get(&node).is_some_and(|load| load.replicas > 0);
        let votes_on = placement.shard == ShardId::METADATA && why == MoveReason::Drain && remove.is_some_and(holds);
        let add = if surplus && !votes_on { None } else { Some(self.target(placement, remove)?) };
        let wish = Wish { shard: placement.shard, add, remove, why };
        self.keeps_majority(placement, &wish).then_some(wish)
    }

    /// Whether a majority lives once the move has ended.
    fn keeps_majority(&self, placement: &Placement, wish: &Wish) -> bool {
        let stays = placement.replicas.iter().filter(|(node, _)| Some(**node) != wish.remove);
        let live = stays.clone().filter(|(_, replica)| self.is_live(placement.shard, **replica)).count();
        let come = usize::from(wish.add.is_some());
        (live + come) * 2 > stays.count() + come
    }

    /// The replica that is not needed: never a live one while another is there, then one of the zone that has the most,
    /// then that of the fullest node; the leader last.
    fn superfluous(&self, placement: &Placement) -> Option<NodeId> {
        let leader = self.observed.shards.get(&placement.shard).and_then(|view| view.leader);
        let by = |(node, replica): &(&NodeId, &ReplicaId)| {
            let load = self.load.get(*node).copied().unwrap_or_default();
            (
                !self.is_live(placement.shard, **replica),
                self.in_zone_of(**node, placement, None),
                load.bytes,
                load.replicas,
                leader != Some(**node),
                **node,
            )
        };
        placement.replicas.iter().max_by_key(by).map(|(node, _)| *node)
    }

    /// How many replicas the zone of a node holds of a shard, without the one that leaves.
    pub(super) fn in_zone_of(&self, node: NodeId, placement: &Placement, leaving: Option<NodeId>) -> usize {
        let zone = |node: &NodeId| self.observed.nodes.get(node).map(|view| view.zone.as_str());
        let stays = placement.replicas.keys().filter(|other| Some(**other) != leaving);
        stays.filter(|other| zone(other).is_some() && zone(other) == zone(&node)).count()
    }

    /// Whether a node can take a replica of a shard when another has left.
    pub(super) fn can_take(&self, node: NodeId, placement: &Placement, leaving: Option<NodeId>) -> bool {
        // The metadata group is small: what it needs is in the reserve of every disk.
        let small = placement.shard == ShardId::METADATA;
        let fit = self.observed.nodes.get(&node).is_some_and(|view| {
            view.state == MemberState::Active && view.gone_ms.is_none() && (view.has_room || small)
        });
        // A replica whose store was lost leaves room for another on the same node.
        let free = placement
            .replicas
            .get(&node)
            .is_none_or(|replica| leaving == Some(node) && self.observed.lost.contains(replica));
        fit && free
    }

    /// Whether another replica may be on its way to a node.
    pub(super) fn may_join(&self, node: NodeId) -> bool {
        self.load.get(&node).is_some_and(|load| load.joining < limits::MOVES_PER_NODE_MAX)
    }

    /// The node that a replica should come to when another has left: where zones are spread best, there the one that
    /// holds the fewest replicas, then the fewest bytes. Where all of these are busy the shard waits for them.
    fn target(&self, placement: &Placement, leaving: Option<NodeId>) -> Option<NodeId> {
        let able = self.observed.nodes.keys().filter(|node| self.can_take(**node, placement, leaving));
        let crowd = |node: &NodeId| self.in_zone_of(*node, placement, leaving);
        let least = able.clone().map(crowd).min()?;
        let free = able.filter(|node| crowd(node) == least && self.may_join(**node));
        free.min_by_key(|node| (self.load[node].replicas, self.load[node].bytes, **node)).copied()
    }
}
