//! Moves: one replica that comes, one that goes, or one in place of another. A wish is what the plan asks for; a move is
//! what the cluster has agreed on and is under way. How one is carried out is not known here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Placement;
use crate::id::{NodeId, ReplicaId, ShardId};

/// A move. Given out once and never again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MoveId(pub u64);

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A replica and the node that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
}

/// How far a node belongs to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberState {
    /// It holds replicas and is given more.
    Active,
    /// It is to be emptied: it is given nothing, and what it holds moves away.
    Draining,
    /// It was removed. Its id is not given out again.
    Removed,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Removed => "removed",
        })
    }
}

/// What a move is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MoveReason {
    /// The replica's node, or the store it was on, is gone.
    Rehome,
    /// The replica's node is to be emptied.
    Drain,
    /// Nodes hold unequal shares, or zones do.
    Rebalance,
    /// An operator asked for it.
    Requested,
    /// The shard has too few copies or too many.
    Replication,
    /// The replica's node has spent the restarts it allows one replica.
    GivenUp,
}

impl fmt::Display for MoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rehome => "rehome",
            Self::Drain => "drain",
            Self::Rebalance => "rebalance",
            Self::Requested => "requested",
            Self::Replication => "replication",
            Self::GivenUp => "given-up",
        })
    }
}

/// A move under way. The placement of its shard stays as it was until the move has ended: a replica that joins is only
/// named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which it is.
    pub id: MoveId,
    /// The shard.
    pub shard: ShardId,
    /// The replica that joins; `None` where one goes without another.
    pub add: Option<Seat>,
    /// The replica that goes; `None` where one comes beside the others.
    pub remove: Option<Seat>,
    /// What for.
    pub why: MoveReason,
    /// Whether the members of the group may change: the replica that joins has caught up. Until then the move can be
    /// given up.
    pub confirmed: bool,
    /// A dead replica that goes as well: a group that stays could not let the other go without leaving its majority behind.
    /// Only of a confirmed move that adds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Seat>,
}

impl Move {
    /// The replicas that go.
    pub fn leaving(&self) -> impl Iterator<Item = Seat> {
        self.remove.into_iter().chain(self.also)
    }

    /// Where the replicas are once it has ended.
    pub fn carry_out(&self, replicas: &mut BTreeMap<NodeId, ReplicaId>) {
        // First those that go: one may be on the node that the other comes to.
        for gone in self.leaving() {
            replicas.remove(&gone.node);
        }
        if let Some(come) = self.add {
            replicas.insert(come.node, come.replica);
        }
    }

    /// Whether a replica comes to this node or goes from it.
    pub fn involves(&self, node: NodeId) -> bool {
        self.add.into_iter().chain(self.leaving()).any(|seat| seat.node == node)
    }

    /// The placement of its shard once it has ended.
    pub fn outcome(&self, placement: &Placement) -> Placement {
        let mut after = placement.clone();
        self.carry_out(&mut after.replicas);
        after
    }
}

/// A move that should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wish {
    /// The shard.
    pub shard: ShardId,
    /// Where a replica should come.
    pub add: Option<NodeId>,
    /// Where one should go; the same node as `add` where its store was lost.
    pub remove: Option<NodeId>,
    /// What for.
    pub why: MoveReason,
}
