//! The faults that do not heal by themselves, where replicas stay where they are: a node that is lost, one that is wiped,
//! and bits that turn over at rest. Where nodes come and go only the bits are drawn here, and whether a node may be lost
//! is looked at when it is due (`crate::membership`), as is whether a bit may turn.
//!
//! What is promised: an acknowledged record is durable on a majority of its shard's replicas, and survives any minority
//! of disks. So each of these faults may cost a copy, and too many of them the last one. What can destroy the last
//! copy, and is left out:
//!
//! - damage to more than a minority of the replicas of one shard. Which of them hold a record is not known to the plan:
//!   the majority that acknowledged may be just those that are damaged, whatever order the damage comes in and whether
//!   it is repaired in between. With three replicas that leaves one damaged node for each shard. In a cluster of three
//!   nodes that is one node; in one of five, two nodes that share no shard;
//! - damage to more than a minority of the metadata group's voters, for the same reason.
//!
//! A flipped bit counts as much as a lost disk here, since the file it lies in may hold the one other copy. Several
//! flips on one node count once: they never reach another node. A node has one sort of damage: what is lost or wiped
//! has nothing left to flip.
//!
//! Everything else may be combined with it and with itself, on all nodes at once, as it costs only what was never synced:
//! power failures in all variants, failed syncs (the node ends and acknowledged nothing of it), full and slow disks.
//!
//! Where a node is lost or wiped, no fault comes before the cluster has formed: all nodes must meet once for that, and
//! a node that goes earlier keeps the others waiting for ever, as it should.

use std::collections::BTreeSet;

use millpond::id::{NodeId, ReplicaId};
use millpond::limits;
use millpond::placement::{ReplicaIds, ShardMap, plan_initial};

use super::Dice;
use crate::case::{Fault, FileKind, Operation, Planned, Timed};

/// Replicas of a shard, where there are as many nodes.
const COPIES: usize = 3;
/// By then a cluster without faults has formed and placed its shards, whatever the knobs.
pub(super) const FORMED_MS: u64 = 6_000;
/// Flips on one node.
const FLIPS_MAX: u64 = 4;
/// Flips before one move.
const FLIPS_BEFORE_MOVE: u64 = 2;
/// How long before a move they come at most: soon enough that nobody has repaired them.
const BEFORE_MOVE_MS: u64 = 1_000;

/// Where the placer puts the shards of a cluster of nodes 1, 2, 3 and so on.
pub(super) fn placement(nodes: u64, shards: u32) -> ShardMap {
    let nodes: BTreeSet<NodeId> = (1..=nodes).map(NodeId).collect();
    plan_initial(&nodes, shards, COPIES, &mut ReplicaIds::after(ReplicaId(0)))
}

/// Whether no last copy goes when all that these nodes hold is damaged.
pub(super) fn is_bearable(nodes: u64, map: &ShardMap, damaged: &BTreeSet<u64>) -> bool {
    let minority = |of: usize| of.saturating_sub(1) / 2;
    let voters = usize::try_from(nodes).expect("a handful").min(limits::METADATA_VOTERS_MAX);
    let shards = map.shards.iter().all(|placement| {
        let hit = placement.replicas.keys().filter(|node| damaged.contains(&node.0));
        hit.count() <= minority(placement.replicas.len())
    });
    shards && damaged.len() <= minority(voters)
}

/// The damage of a plan, none in most; by node, not by time.
pub(super) fn draw(dice: &mut Dice, nodes: u64, map: &ShardMap, busy_ms: u64) -> Vec<Timed> {
    let wanted = match dice.below(6) {
        0 => 2,
        1 => 1,
        _ => 0,
    };
    let mut damaged = BTreeSet::new();
    let mut faults = Vec::new();
    for node in dice.shuffled((1..=nodes).collect()) {
        let mut with = damaged.clone();
        with.insert(node);
        if damaged.len() < wanted && is_bearable(nodes, map, &with) {
            damaged = with;
            faults.extend(one(dice, node, busy_ms));
        }
    }
    faults
}

/// One sort of damage to a node.
fn one(dice: &mut Dice, node: u64, busy_ms: u64) -> Vec<Timed> {
    let at_ms = dice.between(FORMED_MS, busy_ms - 1);
    match dice.below(4) {
        0 => vec![Timed { at_ms, fault: Fault::Lose { node, heedless: false } }],
        1 => vec![Timed { at_ms, fault: Fault::Wipe { node } }],
        _ => {
            let flips = dice.between(1, FLIPS_MAX);
            (0..flips).flat_map(|_| flip(dice, node, busy_ms)).collect()
        }
    }
}

/// Further bits of segments that turn where some do already, shortly before operators move replicas: what is copied then
/// may be what is damaged, which flips at any time hardly ever meet.
pub(super) fn before_moves(dice: &mut Dice, flips: &[Timed], operations: &[Planned]) -> Vec<Timed> {
    let nodes: BTreeSet<u64> = flips
        .iter()
        .filter_map(|timed| if let Fault::FlipBit { node, .. } = timed.fault { Some(node) } else { None })
        .collect();
    let moves = operations.iter().filter(|planned| matches!(planned.operation, Operation::Move { .. }));
    let mut faults = Vec::new();
    for at_ms in moves.map(|planned| planned.at_ms).filter(|at_ms| *at_ms >= FORMED_MS) {
        for node in &nodes {
            for _ in 0..FLIPS_BEFORE_MOVE {
                let fault = bit(dice, *node, FileKind::Segment);
                faults.push(Timed { at_ms: at_ms - dice.below(BEFORE_MOVE_MS), fault });
            }
        }
    }
    faults
}

/// A bit that turns. A snapshot is read by the next life only, which often comes soon.
fn flip(dice: &mut Dice, node: u64, busy_ms: u64) -> Vec<Timed> {
    let at_ms = dice.between(FORMED_MS, busy_ms - 1);
    let file = *dice.pick(&[FileKind::Segment, FileKind::Segment, FileKind::Snapshot]);
    let flip = Timed { at_ms, fault: bit(dice, node, file) };
    let restart = Timed { at_ms: at_ms + dice.between(1, 1_000), fault: Fault::Kill { node, down_ms: 100 } };
    if file == FileKind::Snapshot && dice.one_in(2) { vec![flip, restart] } else { vec![flip] }
}

/// Any bit of any file of a kind.
fn bit(dice: &mut Dice, node: u64, file: FileKind) -> Fault {
    let place = u32::try_from(dice.below(1_000)).expect("below a thousand");
    Fault::FlipBit { node, file, place }
}
