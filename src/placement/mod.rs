//! Where replicas live: which nodes hold a copy of each shard, which of them should lead it, and which replica should
//! move where.
//!
//! Pure arithmetic on maps. It does not know how a plan is carried out, nor how a map is agreed upon.

mod moves;
mod plan;
mod rebalance;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::{Epoch, NodeId, ReplicaId, ShardId};
use crate::limits;

pub use moves::{MemberState, Move, MoveId, MoveReason, Seat, Wish};
pub use plan::{Desired, NodeView, Observed, ShardView, plan_moves};

/// The replicas of one shard that vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The shard.
    pub shard: ShardId,
    /// Its replicas by the node that holds them.
    pub replicas: BTreeMap<NodeId, ReplicaId>,
}

/// Where every shard lives. Shards are numbered from 0 without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Its version; 0 is the empty map before the first placement.
    pub epoch: Epoch,
    /// One placement per shard, in order of their ids.
    pub shards: Vec<Placement>,
}

/// What is wrong with a shard map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// There are no shards, or more than `SHARDS_MAX`.
    #[error("{shards} shards are not between 1 and {}", limits::SHARDS_MAX)]
    Shards {
        /// How many there are.
        shards: usize,
    },
    /// Shards are not numbered from 0 in order.
    #[error("{shard} is not where it belongs in the shard map")]
    OutOfOrder {
        /// The shard.
        shard: ShardId,
    },
    /// A shard has no replica.
    #[error("{shard} has no replica")]
    Nowhere {
        /// The shard.
        shard: ShardId,
    },
    /// A node or replica id is zero, or a replica id is used twice.
    #[error("{shard} names replica {replica} on node {node}, which is zero or taken")]
    Id {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
        /// The replica.
        replica: ReplicaId,
    },
}

impl PlacementError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Shards { .. } | Self::OutOfOrder { .. } | Self::Nowhere { .. } | Self::Id { .. } => Class::Refuse,
        }
    }
}

impl ShardMap {
    /// The placement of a shard.
    pub fn placement(&self, shard: ShardId) -> Option<&Placement> {
        self.shards.get(usize::try_from(shard.0).ok()?).filter(|placement| placement.shard == shard)
    }

    /// The replica of a shard on a node.
    pub fn replica(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        self.placement(shard)?.replicas.get(&node).copied()
    }

    /// The node that should lead each shard, so that no node leads two more than another if replicas allow it. Nodes of
    /// `without` are given none; a shard that only they hold has no preferred leader.
    ///
    /// Each shard in turn takes that of its nodes which leads the fewest so far, the lower id first. Then a node that
    /// leads too many passes one on, along a chain of nodes that each pass one on to the next.
    pub fn preferred_leaders(&self, without: &BTreeSet<NodeId>) -> BTreeMap<ShardId, NodeId> {
        let nodes = self.shards.iter().flat_map(|placement| able(placement, without));
        let mut leads: BTreeMap<NodeId, usize> = nodes.map(|node| (*node, 0)).collect();
        let mut preferred = BTreeMap::new();
        for placement in &self.shards {
            if let Some(node) = able(placement, without).min_by_key(|node| leads[node]) {
                *leads.entry(*node).or_default() += 1;
                preferred.insert(placement.shard, *node);
            }
        }
        // Each round makes the counts more even, so there are at most as many as shards.
        for _ in 0..self.shards.len() {
            let uneven = leads.keys().find_map(|from| self.chain(*from, &leads, &preferred));
            let Some(chain) = uneven else { break };
            for Transfer { shard, from, to } in chain {
                preferred.insert(shard, to);
                *leads.entry(from).or_default() -= 1;
                *leads.entry(to).or_default() += 1;
            }
        }
        preferred
    }

    /// The shortest chain that takes a leadership from a node and ends at one that leads at least two fewer.
    fn chain(
        &self,
        from: NodeId,
        leads: &BTreeMap<NodeId, usize>,
        preferred: &BTreeMap<ShardId, NodeId>,
    ) -> Option<Vec<Transfer>> {
        let mut reached: BTreeMap<NodeId, Option<Transfer>> = BTreeMap::from([(from, None)]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if leads[&node] + 2 <= leads[&from] {
                let mut chain: Vec<Transfer> = Vec::new();
                let mut at = node;
                while let Some(step) = reached[&at] {
                    chain.push(step);
                    at = step.from;
                }
                return Some(chain);
            }
            let led = self.shards.iter().filter(|placement| preferred.get(&placement.shard) == Some(&node));
            let passes = led.flat_map(|placement| placement.replicas.keys().map(|to| (placement.shard, *to)));
            for (shard, to) in passes.filter(|(_, to)| leads.contains_key(to)) {
                if let Entry::Vacant(vacant) = reached.entry(to) {
                    vacant.insert(Some(Transfer { shard, from: node, to }));
                    queue.push_back(to);
                }
            }
        }
        None
    }

    /// Checks a map that came from outside this room.
    ///
    /// # Errors
    /// Says what is wrong with it first.
    pub fn check(&self) -> Result<(), PlacementError> {
        let shards = self.shards.len();
        if shards == 0 || shards > limits::SHARDS_MAX as usize {
            return Err(PlacementError::Shards { shards });
        }
        let mut taken = BTreeSet::new();
        for (placement, expected) in self.shards.iter().zip(0..) {
            let shard = placement.shard;
            if shard != ShardId(expected) {
                return Err(PlacementError::OutOfOrder { shard });
            }
            if placement.replicas.is_empty() {
                return Err(PlacementError::Nowhere { shard });
            }
            for (&node, &replica) in &placement.replicas {
                if node == NodeId(0) || replica == ReplicaId(0) || !taken.insert(replica) {
                    return Err(PlacementError::Id { shard, node, replica });
                }
            }
        }
        Ok(())
    }

    /// The highest replica id in the map; zero if there is none.
    pub fn highest_replica(&self) -> ReplicaId {
        let ids = self.shards.iter().flat_map(|placement| placement.replicas.values());
        ids.copied().max().unwrap_or_default()
    }
}

/// The nodes of a shard that may lead it.
fn able<'a>(placement: &'a Placement, without: &'a BTreeSet<NodeId>) -> impl Iterator<Item = &'a NodeId> {
    placement.replicas.keys().filter(|node| !without.contains(node))
}

/// Gives out replica ids, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaIds {
    highest: ReplicaId,
}

impl ReplicaIds {
    /// Continues after the highest id ever given out.
    pub fn after(highest: ReplicaId) -> Self {
        Self { highest }
    }

    /// The highest id given out so far; zero if there is none.
    pub fn highest(&self) -> ReplicaId {
        self.highest
    }

    /// The next id.
    pub fn draw(&mut self) -> ReplicaId {
        self.highest = ReplicaId(self.highest.0.checked_add(1).expect("2^64 replicas are never made"));
        self.highest
    }
}

/// Places the shards of a new cluster: `copies` of each, or one per node where there are fewer nodes, dealt out so that
/// no node holds two more than another. The result has epoch 1.
///
/// # Panics
/// Without nodes, shards or copies, or with more than the limits allow: configuration is checked before.
pub fn plan_initial(nodes: &BTreeSet<NodeId>, shards: u32, copies: usize, ids: &mut ReplicaIds) -> ShardMap {
    assert!(!nodes.is_empty() && nodes.len() <= limits::NODES_MAX && !nodes.contains(&NodeId(0)));
    assert!((1..=limits::SHARDS_MAX).contains(&shards) && copies > 0);
    let mut deal = nodes.iter().copied().cycle();
    let place = |shard| {
        let hand = deal.by_ref().take(copies.min(nodes.len()));
        Placement { shard: ShardId(shard), replicas: hand.map(|node| (node, ids.draw())).collect() }
    };
    ShardMap { epoch: Epoch(1), shards: (0..shards).map(place).collect() }
}

/// A leadership that should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transfer {
    /// The shard.
    pub shard: ShardId,
    /// Who leads it.
    pub from: NodeId,
    /// Who should.
    pub to: NodeId,
}

/// Leaderships to move so that they are spread again; at most `LEADER_TRANSFERS_MAX` of them, the rest comes when these
/// are done. `observed` is who leads now; `ready` are nodes that live and have caught up, only they are given more;
/// `draining` are nodes that give up what they lead and are never given any.
pub fn plan_leaders(
    map: &ShardMap,
    observed: &BTreeMap<ShardId, NodeId>,
    ready: &BTreeSet<NodeId>,
    draining: &BTreeSet<NodeId>,
) -> Vec<Transfer> {
    let transfer = |(shard, to): (ShardId, NodeId)| {
        let from = *observed.get(&shard)?;
        (from != to && ready.contains(&to)).then_some(Transfer { shard, from, to })
    };
    map.preferred_leaders(draining).into_iter().filter_map(transfer).take(limits::LEADER_TRANSFERS_MAX).collect()
}

#[cfg(test)]
mod tests;
