//! How a shard's leadership is handed to a node, wherever the shard is led: here, or by a call to the node that leads.
//!
//! The body of the call is MessagePack of the shard and the node, the answer MessagePack of the outcome. That leadership
//! was asked for is all it says: the replica hands it over a moment later, or not. It does not know who ought to lead.

use bytes::Bytes;
use millpond::class::Class;
use millpond::consensus::Role;
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::link::{Fault, Method};
use serde::{Deserialize, Serialize};

use crate::board::Standing;
use crate::links::Answer;
use crate::replica::ReplicaMessage;
use crate::site::Site;

/// Why leadership is not handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HandOverError {
    /// Nobody leads, as far as this node knows.
    #[error("{shard} has no leader that this node knows; try again")]
    NoLeader {
        /// The shard.
        shard: ShardId,
    },
    /// The node that was asked does not lead any more.
    #[error("node {node} does not lead {shard} any more; try again")]
    NotLeader {
        /// Who was asked.
        node: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// No voter is there.
    #[error("node {node} holds no replica of {shard} that votes")]
    NotHeld {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// The node is gone, far behind, or says that it must not lead.
    #[error("node {node} cannot lead {shard} now: it is not connected, far behind, about to stop, or its disk is full")]
    Unfit {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// The node that leads did not answer as it should.
    #[error("node {node}, which leads {shard}, was not reached: {why}; try again")]
    Unreached {
        /// Who leads.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// Why not.
        why: String,
    },
}

impl HandOverError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::NoLeader { .. } | Self::NotLeader { .. } | Self::Unfit { .. } | Self::Unreached { .. } => {
                Class::Retry
            }
            Self::NotHeld { .. } => Class::Refuse,
        }
    }
}

/// Asks whoever leads a shard to let a node lead it. Fine where it does.
///
/// # Errors
/// Nobody was asked, and why.
pub async fn hand_over(site: &Site, shard: ShardId, to: NodeId) -> Result<(), HandOverError> {
    let held = site.board.cluster().borrow().placement(shard).is_some_and(|group| group.replicas.contains_key(&to));
    if !held {
        return Err(HandOverError::NotHeld { node: to, shard });
    }
    let leader = site.board.leader(shard).ok_or(HandOverError::NoLeader { shard })?;
    if leader == to {
        return Ok(());
    }
    if leader == site.env.node {
        return hand_over_here(site, shard, to);
    }
    let body = rmp_serde::to_vec(&(shard, to)).expect("two numbers always encode").into();
    let unreached = |why: String| HandOverError::Unreached { node: leader, shard, why };
    let answer = site.links.call(leader, Method::Transfer, body, limits::FORWARD_DEADLINE).await;
    let answer = answer.map_err(|error| unreached(error.to_string()))?;
    rmp_serde::from_slice(&answer).unwrap_or_else(|error| Err(unreached(error.to_string())))
}

/// Takes the question of another node.
pub fn serve(site: &Site, body: &Bytes, answer: Answer) {
    let outcome = match rmp_serde::from_slice(body) {
        Ok((shard, to)) => {
            let outcome = hand_over_here(site, shard, to);
            Ok(rmp_serde::to_vec(&outcome).expect("plain data always encodes").into())
        }
        Err(_) => Err(Fault::application(Bytes::from_static(b"not a shard and a node"))),
    };
    answer.send(outcome);
}

fn hand_over_here(site: &Site, shard: ShardId, to: NodeId) -> Result<(), HandOverError> {
    let node = site.env.node;
    let standing = site.board.standing(shard).ok_or(HandOverError::NotLeader { node, shard })?;
    check(&standing, node, to, site.board.is_peer_fit(to))?;
    let replica = site.board.replica(shard).ok_or(HandOverError::NotLeader { node, shard })?;
    replica.cast(ReplicaMessage::Transfer(to)).map_err(|_| HandOverError::NotLeader { node, shard })
}

/// Whether the replica of this node leads, and may let the other do so.
fn check(standing: &Standing, node: NodeId, to: NodeId, fit: bool) -> Result<(), HandOverError> {
    let shard = standing.shard;
    if standing.role != Role::Leader {
        return Err(HandOverError::NotLeader { node, shard });
    }
    let follower = standing.followers.iter().find(|follower| follower.node == to);
    let follower = follower.ok_or(HandOverError::NotHeld { node: to, shard })?;
    if fit && follower.active && !follower.learner && !follower.needs_snapshot {
        Ok(())
    } else {
        Err(HandOverError::Unfit { node: to, shard })
    }
}

#[cfg(test)]
mod tests {
    use millpond::id::{Index, ReplicaId};

    use super::*;
    use crate::board::Follower;

    const SHARD: ShardId = ShardId(3);
    const HERE: NodeId = NodeId(1);

    fn leader() -> Standing {
        let follower = |node: u64, active, needs_snapshot| Follower {
            replica: ReplicaId(node),
            node: NodeId(node),
            learner: false,
            caught_up: active,
            matched: Index(7),
            active,
            needs_snapshot,
        };
        let learner = Follower { learner: true, ..follower(5, true, false) };
        let followers = vec![follower(2, true, false), follower(3, false, false), follower(4, true, true), learner];
        Standing { role: Role::Leader, followers, ..Standing::unknown(SHARD) }
    }

    #[test]
    fn only_a_follower_that_follows_closely_is_let_lead() {
        let to = |node, fit| check(&leader(), HERE, NodeId(node), fit);
        assert_eq!(to(2, true), Ok(()));
        assert_eq!(to(2, false), Err(HandOverError::Unfit { node: NodeId(2), shard: SHARD }));
        assert_eq!(to(3, true), Err(HandOverError::Unfit { node: NodeId(3), shard: SHARD }));
        assert_eq!(to(4, true), Err(HandOverError::Unfit { node: NodeId(4), shard: SHARD }));
        assert_eq!(to(5, true), Err(HandOverError::Unfit { node: NodeId(5), shard: SHARD }));
        assert_eq!(to(6, true), Err(HandOverError::NotHeld { node: NodeId(6), shard: SHARD }));
    }

    #[test]
    fn who_does_not_lead_hands_nothing_over() {
        let follower = Standing { role: Role::Follower, ..leader() };
        let refused = check(&follower, HERE, NodeId(2), true).unwrap_err();
        assert_eq!((refused.class(), refused.to_string().contains("does not lead")), (Class::Retry, true));
    }
}
