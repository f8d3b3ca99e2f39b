//! Evening out what is well already: by zone, then by replicas, then by bytes.
//!
//! Each move lowers a sum of squares and raises none that comes before it: replicas of one shard in one zone, replicas
//! on one node, bytes on one node. So it comes to an end and never goes back and forth. The price: where nodes hold
//! equally many replicas, bytes are not evened out, which would take an exchange.
//!
//! It does not look for what is wrong; that was put right before it is asked.

use std::cmp::Reverse;

use super::plan::Plan;
use super::{MoveReason, Placement, Wish};
use crate::id::{NodeId, ShardId};

impl Plan<'_> {
    /// Adds moves while there are any that gain enough.
    pub(super) fn rebalance(&mut self) {
        while self.has_slot() {
            let better = self.by_zone().or_else(|| self.by_replicas()).or_else(|| self.by_bytes());
            let Some((shard, from, to)) = better else { return };
            self.take(Wish { shard, add: Some(to), remove: Some(from), why: MoveReason::Rebalance });
        }
    }

    /// Whether a shard may be moved for the sake of balance.
    fn is_movable(&self, placement: &Placement) -> bool {
        !self.is_moving(placement.shard) && self.is_whole(placement)
    }

    /// The shards that a node could pass to another without crowding a zone.
    fn passes(&self, from: NodeId, to: NodeId) -> impl Iterator<Item = &Placement> {
        self.observed.map.shards.iter().filter(move |placement| {
            placement.replicas.contains_key(&from)
                && self.can_take(to, placement, Some(from))
                && self.in_zone_of(to, placement, Some(from)) <= self.in_zone_of(from, placement, Some(from))
                && self.is_movable(placement)
        })
    }

    fn bytes_of(&self, shard: ShardId) -> u64 {
        self.observed.shards.get(&shard).map_or(0, |view| view.bytes)
    }

    fn leads(&self, node: NodeId, shard: ShardId) -> bool {
        self.observed.shards.get(&shard).is_some_and(|view| view.leader == Some(node))
    }

    /// How far two nodes are apart, in bytes, once a shard has gone from the first to the second.
    fn apart_after(&self, from: NodeId, to: NodeId, shard: ShardId) -> u64 {
        let bytes = self.bytes_of(shard);
        let from = self.load[&from].bytes.saturating_sub(bytes);
        from.abs_diff(self.load[&to].bytes.saturating_add(bytes))
    }

    /// A replica in a zone that holds more of its shard than another zone would with it.
    fn by_zone(&self) -> Option<(ShardId, NodeId, NodeId)> {
        self.observed.placements().filter(|placement| self.is_movable(placement)).find_map(|placement| {
            let crowd = |from: NodeId| self.in_zone_of(from, placement, Some(from));
            let worst = |from: &&NodeId| {
                (crowd(**from), self.load[*from].replicas, !self.leads(**from, placement.shard), **from)
            };
            let from = *placement.replicas.keys().max_by_key(worst)?;
            let able = self.observed.nodes.keys().filter(|to| {
                self.can_take(**to, placement, Some(from))
                    && self.in_zone_of(**to, placement, Some(from)) < crowd(from)
                    && self.may_join(**to)
            });
            let best = |to: &&NodeId| {
                let load = self.load[*to];
                (self.in_zone_of(**to, placement, Some(from)), load.replicas, load.bytes, **to)
            };
            able.min_by_key(best).map(|to| (placement.shard, from, *to))
        })
    }

    /// A replica of a node that holds more of them than another would with it.
    fn by_replicas(&self) -> Option<(ShardId, NodeId, NodeId)> {
        let apart = self.desired.replicas_apart.max(2);
        self.pairs(apart).into_iter().find_map(|(from, to)| {
            let better = |placement: &&Placement| {
                let shard = placement.shard;
                (self.apart_after(from, to, shard), self.leads(from, shard), shard)
            };
            self.passes(from, to).min_by_key(better).map(|placement| (placement.shard, from, to))
        })
    }

    /// A replica of a node that holds more bytes than another would with it, and not fewer replicas than the other
    /// would: equally many must stay equally many.
    fn by_bytes(&self) -> Option<(ShardId, NodeId, NodeId)> {
        self.pairs(1).into_iter().find_map(|(from, to)| {
            let apart = self.load[&from].bytes.checked_sub(self.load[&to].bytes)?;
            let enough = |placement: &&Placement| {
                let gain = apart.saturating_sub(self.apart_after(from, to, placement.shard));
                gain > 0 && gain >= self.desired.bytes_apart
            };
            let better = |placement: &&Placement| {
                (self.apart_after(from, to, placement.shard), self.leads(from, placement.shard))
            };
            self.passes(from, to).filter(enough).min_by_key(better).map(|placement| (placement.shard, from, to))
        })
    }

    /// Pairs of nodes of which the first holds at least so many replicas more, the widest apart first.
    fn pairs(&self, apart: usize) -> Vec<(NodeId, NodeId)> {
        let able = self.observed.nodes.keys().filter(|to| self.may_join(**to));
        let mut pairs = Vec::new();
        for to in able {
            let least = self.load[to];
            for (from, most) in &self.load {
                let wider = most.replicas.checked_sub(least.replicas).filter(|wider| *wider >= apart);
                pairs.extend(wider.map(|wider| (Reverse((wider, most.bytes.saturating_sub(least.bytes))), *from, *to)));
            }
        }
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, from, to)| (from, to)).collect()
    }
}
