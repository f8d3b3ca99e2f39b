//! The state of the metadata group: which cluster this is, who belongs to it, and where every shard lives.
//!
//! [`Cluster`] is a replicated state machine: committed commands in, the same state on every node. [`Formation`] decides
//! before there is a group whether this node may take part in one. Neither knows consensus, links or files.
//!
//! A command is MessagePack `[1, command]`, a snapshot is MessagePack `[1, state]`; the leading number is the version of
//! the encoding. Both are checksummed by what carries them.

mod formation;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::{ClusterId, Epoch, Index, NodeId, ReplicaId, StoreId};
use crate::limits;
use crate::placement::{PlacementError, ReplicaIds, ShardMap};

pub use formation::{
    Decision, FormError, Formation, Formed, Hello, HelloRefusal, Identity, MetadataGroup, Settings, cluster_id,
};

const VERSION: u8 = 1;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its data folder.
    pub store: StoreId,
    /// Where its peers reach it.
    pub address: String,
}

/// The replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    applied: Index,
    identity: Option<ClusterId>,
    members: BTreeMap<NodeId, Member>,
    shards: ShardMap,
    replica_ids: ReplicaIds,
}

/// A change of the replicated state, proposed by whoever leads the metadata group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Fixes the cluster, its nodes and their stores; the first command, and the same whoever proposes it.
    Form {
        /// The cluster.
        cluster: ClusterId,
        /// Its first nodes.
        members: BTreeMap<NodeId, Member>,
        /// The highest replica id in use, by the metadata group itself.
        highest_replica: ReplicaId,
    },
    /// Replaces the shard map by its successor.
    PlaceShards {
        /// The map; its epoch is the next one.
        map: ShardMap,
    },
}

/// What became of a command, on every node alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A leader's first entry, or a command that repeats what is: nothing changed.
    Nothing,
    /// The cluster has its identity.
    Formed {
        /// It.
        cluster: ClusterId,
    },
    /// There is another shard map.
    Placed {
        /// Its version.
        epoch: Epoch,
    },
    /// The command does not fit the state, which is as before.
    Refused {
        /// Why.
        why: CommandRefusal,
    },
}

/// Why a command does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The cluster was formed as another one.
    #[error("the cluster is {ours} already and cannot become {theirs}")]
    OtherCluster {
        /// What it is.
        ours: ClusterId,
        /// What was proposed.
        theirs: ClusterId,
    },
    /// The first members are unusable.
    #[error("{members} members, their stores or addresses do not make a cluster")]
    Members {
        /// How many there were.
        members: usize,
    },
    /// Nothing can be placed before the cluster is formed.
    #[error("the cluster is not formed yet")]
    NotFormed,
    /// Somebody else was faster.
    #[error("the shard map of epoch {theirs} does not follow on {ours}")]
    Epoch {
        /// The epoch there is.
        ours: Epoch,
        /// The epoch proposed.
        theirs: Epoch,
    },
    /// The number of shards is fixed by the first map.
    #[error("a map of {theirs} shards cannot replace one of {ours}")]
    ShardCount {
        /// Shards there are.
        ours: usize,
        /// Shards proposed.
        theirs: usize,
    },
    /// The map is unusable in itself.
    #[error("the shard map is not usable")]
    Map(#[from] PlacementError),
    /// A replica lives on a node that is no member.
    #[error("node {node} holds replicas but is no member")]
    NoMember {
        /// The node.
        node: NodeId,
    },
    /// A replica id was given out before.
    #[error("replica {replica} was used before")]
    ReplicaReused {
        /// The replica.
        replica: ReplicaId,
    },
}

/// Why this node cannot follow the metadata group.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A committed command, or a snapshot, of a version that this binary does not know.
    #[error("{what} has version {version}, this binary reads {VERSION}; start a newer one")]
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

impl Command {
    /// Its bytes, for a proposal.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a proposal's bytes.
    ///
    /// # Errors
    /// `Version` or `Undecodable` for bytes that `encode` of this version does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        decode("a command of the metadata group", bytes)
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
        }
    }
}

impl Cluster {
    /// Which cluster this is, once it is formed.
    pub fn identity(&self) -> Option<ClusterId> {
        self.identity
    }

    /// The nodes.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Where every shard lives; of epoch 0 and empty before the first placement.
    pub fn shards(&self) -> &ShardMap {
        &self.shards
    }

    /// From which new replicas take their ids, for the next map that is proposed.
    pub fn replica_ids(&self) -> ReplicaIds {
        self.replica_ids
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
        let outcome = match command {
            None => Ok(Applied::Nothing),
            Some(Command::Form { cluster, members, highest_replica }) => self.form(cluster, members, highest_replica),
            Some(Command::PlaceShards { map }) => self.place(map),
        };
        Ok(outcome.unwrap_or_else(|why| Applied::Refused { why }))
    }

    fn form(
        &mut self,
        cluster: ClusterId,
        members: BTreeMap<NodeId, Member>,
        highest_replica: ReplicaId,
    ) -> Result<Applied, CommandRefusal> {
        if let Some(ours) = self.identity {
            let same = ours == cluster;
            return if same {
                Ok(Applied::Nothing)
            } else {
                Err(CommandRefusal::OtherCluster { ours, theirs: cluster })
            };
        }
        let stores = members.iter().map(|(node, member)| (*node, member.store)).collect();
        let usable = (1..=limits::NODES_MAX).contains(&members.len())
            && !members.contains_key(&NodeId(0))
            && members.values().all(|member| member.address.len() <= limits::ADDRESS_BYTES_MAX)
            && cluster_id(&stores) == cluster;
        if !usable {
            return Err(CommandRefusal::Members { members: members.len() });
        }
        self.identity = Some(cluster);
        self.members = members;
        self.replica_ids = ReplicaIds::after(highest_replica);
        Ok(Applied::Formed { cluster })
    }

    fn place(&mut self, map: ShardMap) -> Result<Applied, CommandRefusal> {
        if self.identity.is_none() {
            return Err(CommandRefusal::NotFormed);
        }
        let (ours, theirs) = (self.shards.epoch, map.epoch);
        if ours.0.checked_add(1) != Some(theirs.0) {
            return Err(CommandRefusal::Epoch { ours, theirs });
        }
        map.check()?;
        let (ours, theirs) = (self.shards.shards.len(), map.shards.len());
        if ours != 0 && ours != theirs {
            return Err(CommandRefusal::ShardCount { ours, theirs });
        }
        for placement in &map.shards {
            for (&node, &replica) in &placement.replicas {
                if !self.members.contains_key(&node) {
                    return Err(CommandRefusal::NoMember { node });
                }
                let kept = self.shards.replica(placement.shard, node) == Some(replica);
                if !kept && replica <= self.replica_ids.highest() {
                    return Err(CommandRefusal::ReplicaReused { replica });
                }
            }
        }
        self.replica_ids = ReplicaIds::after(self.replica_ids.highest().max(map.highest_replica()));
        let epoch = map.epoch;
        self.shards = map;
        Ok(Applied::Placed { epoch })
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
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::placement::plan_initial;

    fn members(count: u64) -> BTreeMap<NodeId, Member> {
        let member =
            |node| (NodeId(node), Member { store: StoreId(100 + u128::from(node)), address: format!("host-{node}:1") });
        (1..=count).map(member).collect()
    }

    fn form(count: u64) -> Command {
        let members = members(count);
        let stores = members.iter().map(|(node, member)| (*node, member.store)).collect();
        Command::Form { cluster: cluster_id(&stores), members, highest_replica: ReplicaId(count) }
    }

    fn apply(cluster: &mut Cluster, command: &Command) -> Applied {
        cluster.apply(Index(cluster.applied().0 + 1), &command.encode()).unwrap()
    }

    fn refused(cluster: &mut Cluster, command: &Command) -> CommandRefusal {
        let before = cluster.clone();
        let Applied::Refused { why } = apply(cluster, command) else { panic!("it was taken") };
        assert_eq!(Cluster { applied: before.applied, ..cluster.clone() }, before, "a refusal changes nothing");
        why
    }

    fn placed() -> Cluster {
        let mut cluster = Cluster::default();
        apply(&mut cluster, &form(3));
        let nodes: BTreeSet<_> = cluster.members().keys().copied().collect();
        let map = plan_initial(&nodes, 4, 3, &mut cluster.replica_ids());
        assert_eq!(apply(&mut cluster, &Command::PlaceShards { map }), Applied::Placed { epoch: Epoch(1) });
        cluster
    }

    #[test]
    fn a_cluster_is_formed_once_and_placed() {
        let cluster = placed();
        assert_eq!(cluster.members().len(), 3);
        assert_eq!(cluster.shards().shards.len(), 4);
        assert_eq!(cluster.replica_ids().highest(), ReplicaId(15), "three of the metadata group, twelve of shards");
        let mut cluster = cluster;
        assert_eq!(apply(&mut cluster, &form(3)), Applied::Nothing);
        assert!(matches!(refused(&mut cluster, &form(2)), CommandRefusal::OtherCluster { .. }));
    }

    #[test]
    fn a_leaders_first_entry_and_a_repeated_entry_change_nothing() {
        let mut cluster = Cluster::default();
        assert_eq!(cluster.apply(Index(1), &[]).unwrap(), Applied::Nothing);
        assert_eq!(cluster.apply(Index(1), &form(3).encode()).unwrap(), Applied::Nothing);
        assert_eq!(cluster.identity(), None);
    }

    #[test]
    fn members_that_do_not_make_the_cluster_are_refused() {
        let mut cluster = Cluster::default();
        let Command::Form { members, highest_replica, .. } = form(3) else { panic!() };
        let other = Command::Form { cluster: ClusterId(1), members, highest_replica };
        assert!(matches!(refused(&mut cluster, &other), CommandRefusal::Members { members: 3 }));
        assert!(matches!(refused(&mut cluster, &form(0)), CommandRefusal::Members { members: 0 }));
    }

    #[test]
    fn maps_that_do_not_follow_are_refused() {
        let mut blank = Cluster::default();
        let good = placed();
        let map = good.shards().clone();
        assert_eq!(refused(&mut blank, &Command::PlaceShards { map }), CommandRefusal::NotFormed);
        let spoiled = |spoil: &dyn Fn(&mut ShardMap)| {
            let mut map = good.shards().clone();
            map.epoch = Epoch(2);
            spoil(&mut map);
            refused(&mut good.clone(), &Command::PlaceShards { map })
        };
        assert!(matches!(spoiled(&|map| map.epoch = Epoch(1)), CommandRefusal::Epoch { .. }));
        assert!(matches!(spoiled(&|map| map.shards.clear()), CommandRefusal::Map(_)));
        assert!(matches!(spoiled(&|map| drop(map.shards.pop())), CommandRefusal::ShardCount { ours: 4, theirs: 3 }));
        let stranger = |map: &mut ShardMap| map.shards[0].replicas.extend([(NodeId(9), ReplicaId(99))]);
        assert_eq!(spoiled(&stranger), CommandRefusal::NoMember { node: NodeId(9) });
        let reused = |map: &mut ShardMap| map.shards[0].replicas.extend([(NodeId(1), ReplicaId(2))]);
        assert_eq!(spoiled(&reused), CommandRefusal::ReplicaReused { replica: ReplicaId(2) });
    }

    #[test]
    fn a_newer_version_is_named() {
        let error = Cluster::default().apply(Index(1), &[0x92, 2, 0xc0]).unwrap_err();
        assert!(matches!(error, ClusterError::Version { version: 2, .. }));
        assert_eq!(error.class(), Class::Fatal);
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        for cluster in [Cluster::default(), placed()] {
            assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn commands_come_back_as_they_were(count in 1..6u64, shards in 1..20u32) {
            let nodes = members(count).into_keys().collect();
            let map = plan_initial(&nodes, shards, 3, &mut ReplicaIds::after(ReplicaId(count)));
            for command in [form(count), Command::PlaceShards { map }] {
                prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), framed: bool) {
            if framed {
                bytes.splice(0..0, [0x92, VERSION]);
            }
            let _ = Command::decode(&bytes);
            let _ = Cluster::decode(&bytes);
        }

        #[test]
        fn damaged_bytes_never_panic(at: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = placed().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(mut cluster) = Cluster::decode(&bytes) {
                let map = ShardMap { epoch: Epoch(2), ..cluster.shards().clone() };
                let index = Index(cluster.applied().0.saturating_add(1));
                let _ = cluster.apply(index, &Command::PlaceShards { map }.encode());
            }
        }
    }
}
