//! What the cluster says of itself, as of its latest agreement that any node knows, and what follows for the world: which
//! nodes belong to it, which may be lost now, and what is not where it should be. It looks only; it changes nothing.
//!
//! Losing a node is bearable while each group keeps a majority of its replicas, counted before and after the move that is
//! under way: what a minority of disks takes with it, the others have. Replicas that move may be counted twice then, which
//! only makes it wait longer. What is damaged counts as lost for the rest of the run, though it may be repaired: the
//! plan does not know which record lies where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millpond::cluster::Cluster;
use millpond::id::{NodeId, ReplicaId, ShardId};
use millpond::placement::{MemberState, Placement};

use crate::node::{Fate, Node};

/// The latest state of the metadata group that any node has ever applied, in this life or an earlier one. What a node has
/// acted on is in it.
pub fn latest(nodes: &[Arc<Node>]) -> Arc<Cluster> {
    let known = nodes.iter().map(|node| node.known());
    known.max_by_key(|cluster| cluster.applied()).unwrap_or_default()
}

/// How a node belongs to the cluster, with the disk that it has now; `None` where it does not.
pub fn state(cluster: &Cluster, node: &Node) -> Option<MemberState> {
    let member = cluster.members().get(&node.id)?;
    let belongs = node.store() == Some(member.store) && node.fate() == Fate::Lives;
    belongs.then_some(member.state).filter(|state| *state != MemberState::Removed)
}

/// Whether a node of the cluster may lose all that it holds, so that no last copy and no majority goes.
pub fn can_bear(nodes: &[Arc<Node>], lost: &Node) -> bool {
    let cluster = latest(nodes);
    if cluster.shards().shards.is_empty() || state(&cluster, lost).is_none() {
        return false;
    }
    let bad: BTreeSet<NodeId> = nodes
        .iter()
        .filter(|node| node.id == lost.id || node.is_damaged() || state(&cluster, node).is_none())
        .map(|node| node.id)
        .collect();
    groups(&cluster).all(|placement| {
        let after = cluster.moves().get(&placement.shard).map(|under_way| under_way.outcome(placement));
        [Some(placement.clone()), after].iter().flatten().all(|placement| {
            let replicas = &placement.replicas;
            let hit = replicas.iter().filter(|(node, id)| bad.contains(node) || cluster.lost().contains(id)).count();
            hit <= replicas.len().saturating_sub(1) / 2
        })
    })
}

fn groups(cluster: &Cluster) -> impl Iterator<Item = &Placement> {
    cluster.shards().shards.iter().chain(cluster.placement(ShardId::METADATA))
}

/// Whether a node runs a replica of a shard that the cluster has placed there.
pub fn holds(cluster: &Cluster, node: &Node, shard: ShardId) -> bool {
    let placed = cluster.placement(shard).and_then(|placement| placement.replicas.get(&node.id));
    state(cluster, node).is_some() && placed.is_some_and(|replica| !cluster.lost().contains(replica))
}

/// What is not where it should be, once nothing goes wrong any more: a move under way, a replica on a node that is gone or
/// drains although another could have it, too few copies or too many. `None` where all is well.
pub fn misplaced(cluster: &Cluster, nodes: &[Arc<Node>]) -> Option<String> {
    if cluster.shards().shards.is_empty() {
        return Some("the shards have no places".to_owned());
    }
    if let Some(under_way) = cluster.moves().values().next() {
        let (id, shard, why) = (under_way.id, under_way.shard, under_way.why);
        return Some(format!("move {id} of {shard}, {why}, is under way"));
    }
    let states: BTreeMap<NodeId, MemberState> =
        nodes.iter().filter_map(|node| Some((node.id, state(cluster, node)?))).collect();
    let whole = |id: &NodeId| nodes.iter().any(|node| node.id == *id && !node.is_damaged());
    groups(cluster).find_map(|placement| {
        let lives = |(node, replica): &(&NodeId, &ReplicaId)| {
            states.get(*node) == Some(&MemberState::Active) && !cluster.lost().contains(*replica)
        };
        let lacking = placement.replicas.iter().find(|seat| !lives(seat)).map(|(node, _)| *node);
        let could = states.iter().find(|(node, state)| {
            let has = placement.replicas.get(*node).is_some_and(|replica| !cluster.lost().contains(replica));
            **state == MemberState::Active && whole(node) && !has
        });
        let (shard, copies) = (placement.shard, placement.replicas.len());
        if let (Some(bad), Some((good, _))) = (lacking, could) {
            return Some(format!("{shard} has a replica on node {bad}, which could be on node {good}"));
        }
        // How many voters the metadata group has is the placer's choice.
        let wanted = cluster.copies() as usize;
        if shard == ShardId::METADATA || copies == wanted || copies < wanted && could.is_none() {
            return None;
        }
        // A copy too many is kept where one of the others is not there.
        (copies < wanted || lacking.is_none()).then(|| format!("{shard} has {copies} copies instead of {wanted}"))
    })
}
