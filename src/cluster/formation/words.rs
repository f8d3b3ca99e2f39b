//! What nodes know and say of themselves when they form a cluster, join one or meet: plain data and how to compare it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{Boot, ClusterId, Index, NodeId, ReplicaId, StoreId};
use crate::limits;

/// A formation as each of its nodes records it, and every node that joined later. It never changes: its hash is the
/// cluster's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formed {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its initial nodes and the data folders they had.
    pub stores: BTreeMap<NodeId, StoreId>,
}

impl Formed {
    /// The formation of these stores.
    pub fn of(stores: BTreeMap<NodeId, StoreId>) -> Self {
        Self { cluster: cluster_id(&stores), stores }
    }

    /// The metadata group of this formation, alike on every node.
    pub fn metadata_group(&self) -> MetadataGroup {
        let replicas: BTreeMap<_, _> = self.stores.keys().copied().zip((1..).map(ReplicaId)).collect();
        let ids: Vec<_> = replicas.values().copied().collect();
        let (voters, learners) = ids.split_at(ids.len().min(limits::METADATA_VOTERS_MAX));
        MetadataGroup { voters: voters.to_vec(), learners: learners.to_vec(), replicas }
    }

    /// Who belongs to the cluster before its group has said anything.
    fn roll(&self) -> Roll {
        let replicas = self.metadata_group().replicas;
        let stores = self.stores.iter().zip(replicas.values());
        let nodes = stores.map(|((node, store), replica)| {
            (*node, Enrolled { store: *store, replica: *replica, address: String::new() })
        });
        Roll { applied: Index(0), nodes: nodes.collect() }
    }
}

/// Who is who in the metadata group, as a replica of it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataGroup {
    /// The replica of each node.
    pub replicas: BTreeMap<NodeId, ReplicaId>,
    /// Those that vote; none where this node joined: its log will tell.
    pub voters: Vec<ReplicaId>,
    /// Those that only follow.
    pub learners: Vec<ReplicaId>,
}

/// The id of the cluster that these stores form: XXH3-128 over node and store, little-endian, in order of the nodes.
pub fn cluster_id(stores: &BTreeMap<NodeId, StoreId>) -> ClusterId {
    let mut bytes = Vec::with_capacity(stores.len() * 24);
    for (node, store) in stores {
        bytes.extend_from_slice(&node.0.to_le_bytes());
        bytes.extend_from_slice(&store.0.to_le_bytes());
    }
    ClusterId(xxhash_rust::xxh3::xxh3_128(&bytes))
}

/// A node on the roll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its data folder.
    pub store: StoreId,
    /// The replica of the metadata group that it runs.
    pub replica: ReplicaId,
    /// Where its peers reach it, for a node that was not told by its configuration; empty on the roll of the formation.
    pub address: String,
}

/// Who belongs to the cluster as of one entry of the metadata group. Of two rolls the one of the later entry is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The entry; 0: nothing was applied, these are the nodes that formed the cluster.
    pub applied: Index,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, Enrolled>,
}

impl Roll {
    /// Whether the node belongs to the cluster with this data folder.
    pub fn knows(&self, node: NodeId, store: StoreId) -> bool {
        self.nodes.get(&node).is_some_and(|enrolled| enrolled.store == store || mutant!(WipedStoreVotes))
    }
}

/// How a node belongs to its cluster, as it records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    /// The formation.
    pub formed: Formed,
    /// The roll on which the node found itself; `None`: it is as it was in the formation.
    pub joined: Option<Roll>,
}

impl Belonging {
    /// Who belongs to the cluster as far as the node knew when it came to belong to it.
    pub fn roll(&self) -> Roll {
        self.joined.clone().unwrap_or_else(|| self.formed.roll())
    }

    /// The metadata group with which the node's replica begins.
    pub fn metadata_group(&self) -> MetadataGroup {
        let Some(roll) = &self.joined else { return self.formed.metadata_group() };
        let replicas = roll.nodes.iter().map(|(node, enrolled)| (*node, enrolled.replica)).collect();
        MetadataGroup { replicas, voters: Vec::new(), learners: Vec::new() }
    }
}

/// What this node's disk says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its data folder.
    pub store: StoreId,
    /// The node that the folder belongs to.
    pub node: NodeId,
    /// The cluster it belongs to; `None`: it is blank.
    pub belongs: Option<Belonging>,
}

/// Hashes of the settings that nodes must have alike, by key, so that one that differs can be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Settings that always count.
    pub lasting: BTreeMap<String, u64>,
    /// Settings that count among nodes that are to form a cluster: which nodes, how many copies. Once it is formed the
    /// cluster's own state says so, and files may differ: that of a node that joins lists one more.
    pub founding: BTreeMap<String, u64>,
}

impl Fingerprint {
    /// The first key whose setting is not alike; `founding`: whether those of a formation count.
    pub fn differs(&self, other: &Self, founding: bool) -> Option<String> {
        let differs = |ours: &BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>| {
            let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            keys.into_iter().find(|key| ours.get(*key) != theirs.get(*key)).cloned()
        };
        let formation = || if founding { differs(&self.founding, &other.founding) } else { None };
        differs(&self.lasting, &other.lasting).or_else(formation)
    }

    fn is_bounded(&self) -> bool {
        let keys = || self.lasting.keys().chain(self.founding.keys());
        keys().count() <= limits::FINGERPRINT_KEYS_MAX
            && keys().all(|key| key.len() <= limits::FINGERPRINT_KEY_BYTES_MAX)
    }
}

/// What this node's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// The nodes that form the cluster, or those of it that this node joins; this one may be among them.
    pub initial: BTreeSet<NodeId>,
    /// Of the settings that must be alike everywhere.
    pub fingerprint: Fingerprint,
}

/// The cluster that a node says it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its formation.
    pub formed: Formed,
    /// The latest roll that the node knows.
    pub roll: Roll,
}

impl Claim {
    /// Whether the cluster's id is that of its formation.
    pub(super) fn adds_up(&self) -> bool {
        cluster_id(&self.formed.stores) == self.formed.cluster
    }
}

/// What nodes tell each other when they connect, and again when something of it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender.
    pub node: NodeId,
    /// Its data folder.
    pub store: StoreId,
    /// Its life.
    pub boot: Boot,
    /// Of its cluster settings.
    pub fingerprint: Fingerprint,
    /// The cluster it belongs to; `None`: it is blank.
    pub claim: Option<Claim>,
}

impl Hello {
    /// Whether it says no more than a node can have to say.
    pub(super) fn is_bounded(&self) -> bool {
        let few = |claim: &Claim| {
            claim.formed.stores.len() <= limits::NODES_MAX
                && claim.roll.nodes.len() <= limits::NODES_MAX
                && claim.roll.nodes.values().all(|node| node.address.len() <= limits::ADDRESS_BYTES_MAX)
        };
        self.fingerprint.is_bounded() && self.claim.as_ref().is_none_or(few)
    }
}
