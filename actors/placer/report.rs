//! What a node tells the node that plans moves: its room, what it holds, the replicas it has given up on, and the groups
//! that it leads. MessagePack; asked for by `Method::Report`, with an empty body.
//!
//! It does not know what is made of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond::consensus::Role;
use millpond::entry::Members;
use millpond::id::{Index, NodeId, ReplicaId, ShardId};
use serde::{Deserialize, Serialize};

use crate::board::{Follower, Phase, Standing};
use crate::site::Site;
use crate::tree::ActorState;

/// One node, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Whether its disk has room for more.
    pub has_room: bool,
    /// Bytes of sealed segments.
    pub bytes: u64,
    /// Replicas that have spent the restarts they are allowed.
    pub given_up: BTreeMap<ShardId, ReplicaId>,
    /// The groups that it leads.
    pub led: Vec<Led>,
}

/// One group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// Which.
    pub shard: ShardId,
    /// The leader.
    pub leader: ReplicaId,
    /// Bytes of sealed segments of one replica.
    pub bytes: u64,
    /// The members, as far as the leader has applied its log.
    pub members: Members,
    /// Everything through it is committed.
    pub committed: Index,
    /// The other replicas.
    pub peers: Vec<Peer>,
}

/// One replica, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which.
    pub replica: ReplicaId,
    /// The node that holds it.
    pub node: NodeId,
    /// Whether it has answered lately.
    pub active: bool,
    /// The highest index it is known to have persisted.
    pub matched: Index,
    /// Whether it needs a snapshot.
    pub needs_snapshot: bool,
    /// Whether it is as far as the leader, but for what is on its way.
    pub caught_up: bool,
}

impl NodeReport {
    /// Of this node, now.
    pub fn of(site: &Site) -> Self {
        let standings: Vec<Standing> =
            site.board.standings().into_iter().chain(site.board.standing(ShardId::METADATA)).collect();
        let given_up = |standing: &Standing| {
            let down = site.board.replica(standing.shard)?.record().state() == ActorState::Down;
            Some((standing.shard, standing.replica.filter(|_| down && standing.phase == Phase::Down)?))
        };
        Self {
            has_room: site.board.takes_ingest().is_ok(),
            bytes: standings.iter().map(|standing| standing.segment_bytes).sum(),
            given_up: standings.iter().filter_map(given_up).collect(),
            led: standings.iter().filter_map(Led::of).collect(),
        }
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("plain data always encodes").into()
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes).ok()
    }
}

impl Led {
    /// `None` where the replica here does not lead.
    fn of(standing: &Standing) -> Option<Self> {
        let leader = standing.replica.filter(|_| standing.role == Role::Leader)?;
        let peer = |follower: &Follower| Peer {
            replica: follower.replica,
            node: follower.node,
            active: follower.active,
            matched: follower.matched,
            needs_snapshot: follower.needs_snapshot,
            caught_up: follower.caught_up,
        };
        Some(Self {
            shard: standing.shard,
            leader,
            bytes: standing.segment_bytes,
            members: standing.members.clone(),
            committed: standing.committed,
            peers: standing.followers.iter().map(peer).collect(),
        })
    }

    /// The replicas that take part, the leader among them.
    pub fn live(&self) -> BTreeSet<ReplicaId> {
        let active = self.peers.iter().filter(|peer| peer.active).map(|peer| peer.replica);
        active.chain([self.leader]).collect()
    }

    /// The replicas that are as far as the leader.
    pub fn caught_up(&self) -> BTreeSet<ReplicaId> {
        self.peers.iter().filter(|peer| peer.caught_up).map(|peer| peer.replica).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_nothing_else_is_one() {
        let peer = Peer {
            replica: ReplicaId(7),
            node: NodeId(2),
            active: true,
            matched: Index(40),
            needs_snapshot: false,
            caught_up: true,
        };
        let led = Led {
            shard: ShardId(3),
            leader: ReplicaId(5),
            bytes: 99,
            members: Members::of([ReplicaId(5), ReplicaId(6)], [ReplicaId(7)]),
            committed: Index(41),
            peers: vec![peer, Peer { replica: ReplicaId(6), active: false, caught_up: false, ..peer }],
        };
        let given_up = BTreeMap::from([(ShardId(1), ReplicaId(9))]);
        let report = NodeReport { has_room: true, bytes: 12, given_up, led: vec![led.clone()] };
        assert_eq!(NodeReport::decode(&report.encode()), Some(report));
        assert_eq!((led.live().len(), led.caught_up()), (2, BTreeSet::from([ReplicaId(7)])));
        assert_eq!(NodeReport::decode(b"no"), None);
    }
}
