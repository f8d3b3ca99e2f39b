//! Why a peer is not talked to, and why this node must not take part.

use crate::class::Class;
use crate::id::{ClusterId, NodeId, StoreId};

/// Why a peer's hello is not accepted: nothing else is exchanged with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefusal {
    /// It claims to be this node.
    #[error("a peer says that it is node {node}, as this one is; give each node an id of its own")]
    SameNode {
        /// The id.
        node: NodeId,
    },
    /// Nobody knows it, or not any more.
    #[error("node {node} is not one of the cluster's nodes")]
    UnknownNode {
        /// The id.
        node: NodeId,
    },
    /// It says more than a node can have to say.
    #[error("node {node} names more nodes or settings than a cluster can have")]
    Excessive {
        /// The peer.
        node: NodeId,
    },
    /// Its cluster settings differ.
    #[error("node {node} has another `{key}` in its cluster settings; make cluster.toml the same on all nodes")]
    Setting {
        /// The peer.
        node: NodeId,
        /// The first key that differs.
        key: String,
    },
    /// It belongs to another cluster.
    #[error("node {node} belongs to cluster {theirs}, this node to {ours}")]
    OtherCluster {
        /// The peer.
        node: NodeId,
        /// This node's cluster.
        ours: ClusterId,
        /// The peer's.
        theirs: ClusterId,
    },
    /// It has not the data folder that its node has.
    #[error("node {node} came with data folder {theirs}, in cluster {cluster} it has {recorded}; it must not vote")]
    OtherStore {
        /// The peer.
        node: NodeId,
        /// The cluster.
        cluster: ClusterId,
        /// The folder on record.
        recorded: StoreId,
        /// The folder it has.
        theirs: StoreId,
    },
    /// It belongs to a cluster that this node's folder does not belong to.
    #[error("node {node} is in cluster {cluster}, this node's data folder is not")]
    WithoutUs {
        /// The peer.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// Its formation does not add up.
    #[error("node {node} names cluster {cluster}, whose nodes and stores have another id")]
    Inconsistent {
        /// The peer.
        node: NodeId,
        /// The cluster it names.
        cluster: ClusterId,
    },
}

impl HelloRefusal {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::SameNode { .. }
            | Self::UnknownNode { .. }
            | Self::Excessive { .. }
            | Self::Setting { .. }
            | Self::OtherCluster { .. }
            | Self::OtherStore { .. }
            | Self::WithoutUs { .. }
            | Self::Inconsistent { .. } => Class::Refuse,
        }
    }
}

/// Why this node must not take part: its process says so and exits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The folder belongs to another node.
    #[error(
        "this data folder belongs to node {folder}, the configuration says node {configured}; start it as node {folder}, or give node {configured} its own folder"
    )]
    OtherNode {
        /// Whose the folder is.
        folder: NodeId,
        /// What is configured.
        configured: NodeId,
    },
    /// The folder's own record contradicts itself.
    #[error(
        "this data folder says it is in cluster {cluster}, but not as node {node} with store {store}; restore the folder of node {node}, or replace the node"
    )]
    FolderChanged {
        /// The cluster.
        cluster: ClusterId,
        /// This node.
        node: NodeId,
        /// Its store.
        store: StoreId,
    },
    /// The cluster had this node with this folder, and has it with another one by now, or not at all.
    #[error(
        "this data folder (store {store}) is no longer the one that node {node} has in cluster {cluster}: {}",
        recorded.map_or_else(
            || "the node was removed for good. Begin with an empty folder and another node id to come back".to_owned(),
            |recorded| format!("it was replaced by store {recorded}. Start node {node} with that one")
        )
    )]
    NotOurFolder {
        /// This node.
        node: NodeId,
        /// Its store.
        store: StoreId,
        /// The cluster.
        cluster: ClusterId,
        /// The store that the cluster knows it by.
        recorded: Option<StoreId>,
    },
    /// A formed cluster runs with other settings.
    #[error(
        "node {peer} of cluster {cluster} has another `{key}` in its cluster settings; make cluster.toml the same on all nodes"
    )]
    OtherSettings {
        /// The peer.
        peer: NodeId,
        /// Its cluster.
        cluster: ClusterId,
        /// The first key that differs.
        key: String,
    },
    /// Two formed clusters are in reach of a blank node.
    #[error("peers belong to different clusters, {one} and {other}; this node cannot tell which is right")]
    TwoClusters {
        /// One of them.
        one: ClusterId,
        /// The other.
        other: ClusterId,
    },
    /// Another process has this node's id.
    #[error("another process says that it is node {node}; give each node an id of its own")]
    SameNode {
        /// The id.
        node: NodeId,
    },
}

impl FormError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::OtherNode { .. }
            | Self::FolderChanged { .. }
            | Self::NotOurFolder { .. }
            | Self::OtherSettings { .. }
            | Self::TwoClusters { .. }
            | Self::SameNode { .. } => Class::Fatal,
        }
    }
}
