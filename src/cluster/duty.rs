//! What the state asks of each node and of each group: which replicas a node must run, where the replicas of a group
//! are, and who shall be its members. Derived, never stored.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cluster, Enrolled, Roll};
use crate::id::{NodeId, ReplicaId, ShardId, StoreId};
use crate::placement::{MemberState, Move, Placement, Seat, ShardMap};

/// What a node must do for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Run a replica that votes.
    Voter(ReplicaId),
    /// Run a replica that is to vote; it begins with an empty log, unless it observed before.
    Joining(ReplicaId),
    /// Run a replica until its move has ended, then stop it and forget it.
    Leaving(ReplicaId),
    /// Run a replica of the metadata group that never votes.
    Observer(ReplicaId),
}

impl Duty {
    /// The replica.
    pub fn replica(self) -> ReplicaId {
        match self {
            Self::Voter(replica) | Self::Joining(replica) | Self::Leaving(replica) | Self::Observer(replica) => replica,
        }
    }
}

/// Who the members of a group shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those that vote.
    pub voters: BTreeSet<ReplicaId>,
    /// Those that only follow, for good.
    pub learners: BTreeSet<ReplicaId>,
}

impl Cluster {
    /// Where the voters of a group live: of a shard, or of the metadata group.
    pub fn placement(&self, shard: ShardId) -> Option<&Placement> {
        if shard == ShardId::METADATA {
            return Some(&self.metadata).filter(|group| !group.replicas.is_empty());
        }
        self.shards.placement(shard)
    }

    /// Where the shards live without the replicas that are about to go, for leaders to be chosen by: one that goes would
    /// only hand over again. The only replica of a shard leads it until it has gone.
    pub fn staying(&self) -> ShardMap {
        let mut map = self.shards.clone();
        for placement in map.shards.iter_mut().filter(|placement| placement.replicas.len() > 1) {
            let leaving: Vec<Seat> = self.moves.get(&placement.shard).into_iter().flat_map(Move::leaving).collect();
            placement.replicas.retain(|_, replica| leaving.iter().all(|seat| seat.replica != *replica));
        }
        map
    }

    /// Where the voters of every group live, the metadata group last; of that nobody before the cluster is formed.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Placement> {
        self.shards.shards.iter().chain([&self.metadata])
    }

    /// What a node with this data folder must run, by group; nothing with a folder that is not its own, whose replicas
    /// are lost.
    pub fn holds(&self, node: NodeId, store: StoreId) -> BTreeMap<ShardId, Duty> {
        let known = self.members.get(&node);
        if known.is_none_or(|member| member.store != store || member.state == MemberState::Removed) {
            return BTreeMap::new();
        }
        let lives = |replica: &ReplicaId| !self.lost.contains(replica);
        let mut duties = BTreeMap::new();
        duties.extend(self.observers.get(&node).map(|replica| (ShardId::METADATA, Duty::Observer(*replica))));
        for placement in self.groups() {
            let shard = placement.shard;
            if let Some(replica) = placement.replicas.get(&node).copied().filter(lives) {
                let under_way = self.moves.get(&shard);
                let leaves = under_way.into_iter().flat_map(Move::leaving).any(|seat| seat.replica == replica);
                if mutant!(RemovedWhileJoint) && leaves && under_way.is_some_and(|under_way| under_way.confirmed) {
                    continue;
                }
                duties.insert(shard, if leaves { Duty::Leaving(replica) } else { Duty::Voter(replica) });
            }
        }
        for under_way in self.moves.values() {
            let come = under_way.add.filter(|seat| seat.node == node && lives(&seat.replica));
            duties.extend(come.map(|seat| (under_way.shard, Duty::Joining(seat.replica))));
        }
        duties
    }

    /// Where the replicas of a group are, those that join and those that only follow among them. Lost ones are left out:
    /// there is nobody to send to.
    pub fn homes(&self, shard: ShardId) -> BTreeMap<ReplicaId, NodeId> {
        let voters = self.placement(shard).into_iter().flat_map(|placement| &placement.replicas);
        let observers = self.observers.iter().filter(|_| shard == ShardId::METADATA);
        let mut homes: BTreeMap<_, _> = voters.chain(observers).map(|(node, replica)| (*replica, *node)).collect();
        homes.extend(self.moves.get(&shard).and_then(|under_way| under_way.add).map(|seat| (seat.replica, seat.node)));
        homes.retain(|replica, _| !self.lost.contains(replica));
        homes
    }

    /// Who the members of a group shall be once its move has ended; as they are placed where none is under way. `None` for
    /// a group that there is not.
    pub fn wanted(&self, shard: ShardId) -> Option<Wanted> {
        let placement = self.placement(shard)?;
        let (after, learners) = match self.moves.get(&shard) {
            Some(under_way) if shard == ShardId::METADATA => self.metadata_after(under_way),
            Some(under_way) => (under_way.outcome(placement), BTreeMap::new()),
            None if shard == ShardId::METADATA => (self.metadata.clone(), self.observers.clone()),
            None => (placement.clone(), BTreeMap::new()),
        };
        Some(Wanted { voters: after.replicas.into_values().collect(), learners: learners.into_values().collect() })
    }

    /// The voters and the observers of the metadata group once a move of it has ended. One that goes from a node that
    /// stays goes on as an observer: every node follows the group.
    pub(super) fn metadata_after(&self, under_way: &Move) -> (Placement, BTreeMap<NodeId, ReplicaId>) {
        let mut observers = self.observers.clone();
        if let Some(come) = under_way.add {
            observers.retain(|_, replica| *replica != come.replica);
        }
        for gone in under_way.leaving().filter(|gone| !self.lost.contains(&gone.replica)) {
            observers.entry(gone.node).or_insert(gone.replica);
        }
        (under_way.outcome(&self.metadata), observers)
    }

    /// The nodes that are to be emptied.
    pub fn draining(&self) -> BTreeSet<NodeId> {
        let draining = self.members.iter().filter(|(_, member)| member.state == MemberState::Draining);
        draining.map(|(node, _)| *node).collect()
    }

    /// Who belongs to the cluster, for peers to be judged by; `None` before it is formed.
    pub fn roll(&self) -> Option<Roll> {
        self.identity?;
        let present = self.members.iter().filter(|(_, member)| member.state != MemberState::Removed);
        let enrolled = present.filter_map(|(node, member)| {
            // Where a voter was lost with its store, the node observes as another replica.
            let replica = self.observers.get(node).or_else(|| self.metadata.replicas.get(node))?;
            Some((*node, Enrolled { store: member.store, replica: *replica, address: member.address.clone() }))
        });
        Some(Roll { applied: self.applied, nodes: enrolled.collect() })
    }
}
