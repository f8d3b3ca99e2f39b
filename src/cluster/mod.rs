//! The state of the metadata group: which cluster this is, who belongs to it, where every replica lives, and which are
//! on the move.
//!
//! [`Cluster`] is a replicated state machine: committed commands in, the same state on every node. [`Formation`] decides
//! before there is a group whether this node may take part in one, and with whom it talks. Neither knows consensus, links
//! or files.
//!
//! Every node runs a replica of the metadata group. A few vote, and have a placement like that of a shard; the others
//! observe. A replica that begins to vote is the observer of its node, under the id it has; one that ceases to goes on as
//! the observer. A node whose store was lost observes as a new replica, beside the lost one until that is voted out.
//!
//! A command is MessagePack `[2, command]`, a snapshot is MessagePack `[2, state]`; the leading number is the version of
//! the encoding. Both are checksummed by what carries them. Version 1, without moves, was never released and is refused.

mod apply;
mod command;
mod duty;
mod formation;
mod steer;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::{ClusterId, Index, NodeId, ReplicaId, ShardId, StoreId};
use crate::placement::{MemberState, Move, MoveId, Placement, ReplicaIds, ShardMap};

pub use command::{Applied, Command, CommandRefusal};
pub use duty::{Duty, Wanted};
pub use formation::{
    Belonging, Build, BuildRefusal, Claim, Decision, Enrolled, Fingerprint, FormError, Formation, Formed, Hello,
    HelloRefusal, Identity, MetadataGroup, Outside, Roll, Settings, Versions, cluster_id,
};
pub use steer::{Group, Step};

const VERSION: u8 = 3;

/// A node of the cluster, also one that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its data folder.
    pub store: StoreId,
    /// Where its peers reach it.
    pub address: String,
    /// How far it belongs to the cluster.
    pub state: MemberState,
    /// Its zone; nodes without one share the empty zone.
    pub zone: String,
}

impl Member {
    /// A node as it comes to the cluster.
    pub fn new(store: StoreId, address: String, zone: String) -> Self {
        Self { store, address, state: MemberState::Active, zone }
    }
}

/// The replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    applied: Index,
    identity: Option<ClusterId>,
    members: BTreeMap<NodeId, Member>,
    shards: ShardMap,
    replica_ids: ReplicaIds,
    /// The replicas of the first placement: their groups began with them.
    founders: BTreeMap<ShardId, BTreeSet<ReplicaId>>,
    /// Copies of each shard; 0 before the shards are placed.
    copies: u32,
    /// The voters of the metadata group.
    metadata: Placement,
    /// Its other replicas.
    observers: BTreeMap<NodeId, ReplicaId>,
    /// What is under way, at most one for each group.
    moves: BTreeMap<ShardId, Move>,
    highest_move: MoveId,
    /// Replicas that vote or join and whose store is gone.
    lost: BTreeSet<ReplicaId>,
}

/// Why this node cannot follow the metadata group.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A committed command, or a snapshot, of a version that this binary does not know.
    #[error(
        "{what} has version {version}, this binary reads {VERSION}; {}",
        if *version > VERSION { "start a newer one" } else { "it was never released, begin with an empty data folder" }
    )]
    Version {
        /// What was read.
        what: &'static str,
        /// Its version.
        version: u8,
    },
    /// Committed bytes that are no command, or a snapshot that is none.
    #[error("{what} of {bytes} bytes cannot be decoded")]
    Undecodable {
        /// What was read.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The decoder's own words, if it got to the content.
        source: Option<rmp_serde::decode::Error>,
    },
}

impl ClusterError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Version { .. } | Self::Undecodable { .. } => Class::Fatal,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            applied: Index(0),
            identity: None,
            members: BTreeMap::new(),
            shards: ShardMap::default(),
            replica_ids: ReplicaIds::after(ReplicaId(0)),
            founders: BTreeMap::new(),
            copies: 0,
            metadata: Placement { shard: ShardId::METADATA, replicas: BTreeMap::new() },
            observers: BTreeMap::new(),
            moves: BTreeMap::new(),
            highest_move: MoveId(0),
            lost: BTreeSet::new(),
        }
    }
}

impl Cluster {
    /// Which cluster this is, once it is formed.
    pub fn identity(&self) -> Option<ClusterId> {
        self.identity
    }

    /// The nodes, those that were removed among them.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Where every shard lives; of epoch 0 and empty before the first placement. Its epoch rises with every change of where
    /// replicas live, those of the metadata group and those that were lost included.
    pub fn shards(&self) -> &ShardMap {
        &self.shards
    }

    /// How many copies each shard shall have; 0 before the first placement.
    pub fn copies(&self) -> u32 {
        self.copies
    }

    /// Where the voters of the metadata group live; nowhere before the cluster is formed.
    pub fn metadata(&self) -> &Placement {
        &self.metadata
    }

    /// The moves under way.
    pub fn moves(&self) -> &BTreeMap<ShardId, Move> {
        &self.moves
    }

    /// Replicas that vote or join and whose store is gone: none of them may be started again.
    pub fn lost(&self) -> &BTreeSet<ReplicaId> {
        &self.lost
    }

    /// From which the first map takes its replica ids.
    pub fn replica_ids(&self) -> ReplicaIds {
        self.replica_ids
    }

    /// The replicas that the group of a shard began with, whoever belongs to it now. One that came later learns from the
    /// log who its members are.
    pub fn founders(&self, shard: ShardId) -> Option<&BTreeSet<ReplicaId>> {
        self.founders.get(&shard)
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Applies a committed entry. One that was applied before changes nothing.
    ///
    /// # Errors
    /// The payload cannot be read: this node must stop following, the others may be newer.
    pub fn apply(&mut self, index: Index, payload: &[u8]) -> Result<Applied, ClusterError> {
        if index <= self.applied {
            return Ok(Applied::Nothing);
        }
        let command = if payload.is_empty() { None } else { Some(Command::decode(payload)?) };
        self.applied = index;
        let outcome = command.map_or(Ok(Applied::Nothing), |command| self.carry_out(command));
        Ok(outcome.unwrap_or_else(|why| Applied::Refused { why }))
    }

    /// The whole state, for a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Version` or `Undecodable` for bytes that `encode` of this version does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        decode("a snapshot of the metadata group", bytes)
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(&(VERSION, value)).expect("numbers, text and maps can be encoded")
}

fn decode<T: for<'a> Deserialize<'a>>(what: &'static str, bytes: &[u8]) -> Result<T, ClusterError> {
    // `[version, value]`: an array of two, and a small number as a byte of its own.
    match bytes {
        [0x92, VERSION, value @ ..] => rmp_serde::from_slice(value).map_err(|source| ClusterError::Undecodable {
            what,
            bytes: bytes.len(),
            source: Some(source),
        }),
        [0x92, version @ 0..=0x7f, ..] => Err(ClusterError::Version { what, version: *version }),
        [..] => Err(ClusterError::Undecodable { what, bytes: bytes.len(), source: None }),
    }
}

#[cfg(test)]
mod tests;
