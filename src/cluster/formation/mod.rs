//! Whether this node may take part in a metadata group, and in which. It decides from this node's own identity and
//! the hellos of its peers; it does not know how hellos travel or where the identity is kept.
//!
//! - The group forms only when every configured initial node is connected and blank. Each node then writes the same
//!   stores to its own disk, *before* it starts its replica. The cluster's id is a hash of nodes and stores, so all agree.
//! - A node that missed that moment joins the recorded formation, if it is recorded there with the store it has: it is
//!   the folder that was counted in, and it has never voted.
//! - A blank or changed store that meets a formed cluster never votes. Its replicas' votes are gone with the old
//!   folder; voting again could break a promise that was made with them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::{Boot, ClusterId, NodeId, ReplicaId, StoreId};
use crate::limits;

/// A formation as each of its nodes records it.
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

    /// Whether the node took part in it with this data folder.
    fn knows(&self, node: NodeId, store: StoreId) -> bool {
        self.stores.get(&node).is_some_and(|recorded| *recorded == store || mutant!(WipedStoreVotes))
    }

    /// The metadata group of this formation, alike on every node.
    pub fn metadata_group(&self) -> MetadataGroup {
        let replicas: BTreeMap<_, _> = self.stores.keys().copied().zip((1..).map(ReplicaId)).collect();
        let ids: Vec<_> = replicas.values().copied().collect();
        let (voters, learners) = ids.split_at(ids.len().min(limits::METADATA_VOTERS_MAX));
        MetadataGroup { voters: voters.to_vec(), learners: learners.to_vec(), replicas }
    }
}

/// Who is who in the metadata group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataGroup {
    /// The replica of each node.
    pub replicas: BTreeMap<NodeId, ReplicaId>,
    /// Those that vote.
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

/// What this node's disk says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its data folder.
    pub store: StoreId,
    /// The node that the folder belongs to.
    pub node: NodeId,
    /// The formation it took part in; `None`: it is blank.
    pub formed: Option<Formed>,
}

/// What this node's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// The nodes that form the cluster.
    pub initial: BTreeSet<NodeId>,
    /// Of the settings that must be alike everywhere.
    pub fingerprint: u64,
}

/// What nodes tell each other when they connect, and again when their formation changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender.
    pub node: NodeId,
    /// Its data folder.
    pub store: StoreId,
    /// Its life.
    pub boot: Boot,
    /// Of its cluster settings.
    pub fingerprint: u64,
    /// The formation it took part in; `None`: it is blank.
    pub formed: Option<Formed>,
}

/// Why a peer's hello is not accepted: nothing else is exchanged with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloRefusal {
    /// It claims to be this node.
    #[error("a peer says that it is node {node}, as this one is; give each node an id of its own")]
    SameNode {
        /// The id.
        node: NodeId,
    },
    /// Nobody knows it.
    #[error("node {node} is not one of the cluster's nodes")]
    UnknownNode {
        /// The id.
        node: NodeId,
    },
    /// Its cluster settings differ.
    #[error(
        "node {node} has other cluster settings (fingerprint {theirs:016x}, here {ours:016x}); make cluster.toml the same on all nodes"
    )]
    Fingerprint {
        /// The peer.
        node: NodeId,
        /// Of this node.
        ours: u64,
        /// Of the peer.
        theirs: u64,
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
    /// It has not the data folder that its node had.
    #[error("node {node} came with data folder {theirs}, in cluster {cluster} it had {recorded}; it must not vote")]
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
    /// It took part in a formation that this node's folder did not.
    #[error("node {node} is in cluster {cluster}, this node's data folder is not")]
    WithoutUs {
        /// The peer.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// Its formation does not add up.
    #[error("node {node} names cluster {cluster}, whose nodes and stores have another id or leave it out")]
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
            | Self::Fingerprint { .. }
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
    /// A blank node that nobody waits for.
    #[error("node {node} has a blank data folder and is not one of the nodes that form the cluster")]
    NotInitial {
        /// This node.
        node: NodeId,
    },
    /// A formed cluster knows this node with another folder, or not at all.
    #[error(
        "this data folder (store {store}) is not the one that node {node} had in cluster {cluster} ({}); it will not vote. \
         Restore the folder of node {node}, or replace the node",
        recorded.map_or_else(|| "which has no such node".to_owned(), |recorded| format!("store {recorded}"))
    )]
    NotOurFolder {
        /// This node.
        node: NodeId,
        /// Its store.
        store: StoreId,
        /// The cluster it met.
        cluster: ClusterId,
        /// The store that the cluster knows it by.
        recorded: Option<StoreId>,
    },
    /// A formed cluster runs with other settings.
    #[error(
        "node {peer} of cluster {cluster} has other cluster settings (fingerprint {theirs:016x}, here {ours:016x}); make cluster.toml the same on all nodes"
    )]
    OtherSettings {
        /// The peer.
        peer: NodeId,
        /// Its cluster.
        cluster: ClusterId,
        /// Of this node.
        ours: u64,
        /// Of the peer.
        theirs: u64,
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
            | Self::NotInitial { .. }
            | Self::NotOurFolder { .. }
            | Self::OtherSettings { .. }
            | Self::TwoClusters { .. }
            | Self::SameNode { .. } => Class::Fatal,
        }
    }
}

/// What this node should do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wait until these nodes are connected; nothing may be voted on.
    Waiting {
        /// Who is missing.
        missing: Vec<NodeId>,
        /// Who is there but was not accepted, and why.
        refused: Vec<(NodeId, HelloRefusal)>,
    },
    /// Write this formation to the identity, durably; then say [`Formation::recorded`] and start the metadata replica.
    Form(Formed),
    /// Start the metadata replica: this node is in a recorded formation.
    Resume(Formed),
    /// Exit and say why.
    Refuse(FormError),
}

/// The formation as one node sees it.
#[derive(Clone, Debug)]
pub struct Formation {
    settings: Settings,
    identity: Identity,
    /// The last hello of each connected peer, also of those that were refused.
    peers: BTreeMap<NodeId, Hello>,
}

impl Formation {
    /// Begins with what the disk and the configuration say.
    pub fn new(settings: Settings, identity: Identity) -> Self {
        Self { settings, identity, peers: BTreeMap::new() }
    }

    /// What this node says of itself.
    pub fn hello(&self, boot: Boot) -> Hello {
        Hello {
            node: self.settings.node,
            store: self.identity.store,
            boot,
            fingerprint: self.settings.fingerprint,
            formed: self.identity.formed.clone(),
        }
    }

    /// A peer has connected, or changed. Whether it is accepted; either way it counts for [`Formation::decide`]. An older
    /// life of a peer that is connected already is judged and forgotten.
    ///
    /// # Errors
    /// Why nothing else may be exchanged with this peer.
    pub fn met(&mut self, hello: Hello) -> Result<(), HelloRefusal> {
        let verdict = self.judge(&hello);
        let known = self.settings.initial.contains(&hello.node) || hello.node == self.settings.node;
        let newer = self.peers.get(&hello.node).is_none_or(|before| before.boot <= hello.boot);
        if known && newer {
            self.peers.insert(hello.node, hello);
        }
        verdict
    }

    /// A peer's connection is gone.
    pub fn parted(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// The formation that was decided on is durable.
    pub fn recorded(&mut self, formed: Formed) {
        self.identity.formed = Some(formed);
    }

    /// Whether a peer is accepted, on either side of a connection.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, hello: &Hello) -> Result<(), HelloRefusal> {
        let node = hello.node;
        if node == self.settings.node {
            return Err(HelloRefusal::SameNode { node });
        }
        if !self.settings.initial.contains(&node) {
            return Err(HelloRefusal::UnknownNode { node });
        }
        if hello.fingerprint != self.settings.fingerprint {
            let (ours, theirs) = (self.settings.fingerprint, hello.fingerprint);
            return Err(HelloRefusal::Fingerprint { node, ours, theirs });
        }
        if let Some(formed) = &hello.formed {
            let cluster = formed.cluster;
            if cluster_id(&formed.stores) != cluster || !formed.knows(node, hello.store) {
                return Err(HelloRefusal::Inconsistent { node, cluster });
            }
        }
        match (&self.identity.formed, &hello.formed) {
            (None, None) => Ok(()),
            (None, Some(theirs)) if theirs.knows(self.settings.node, self.identity.store) => Ok(()),
            (None, Some(theirs)) => Err(HelloRefusal::WithoutUs { node, cluster: theirs.cluster }),
            (Some(ours), Some(theirs)) if ours.cluster != theirs.cluster => {
                Err(HelloRefusal::OtherCluster { node, ours: ours.cluster, theirs: theirs.cluster })
            }
            (Some(ours), Some(_) | None) => match ours.stores.get(&node) {
                None => Err(HelloRefusal::UnknownNode { node }),
                Some(recorded) if !ours.knows(node, hello.store) => Err(HelloRefusal::OtherStore {
                    node,
                    cluster: ours.cluster,
                    recorded: *recorded,
                    theirs: hello.store,
                }),
                Some(_) => Ok(()),
            },
        }
    }

    /// What to do, given what is known. Asked again after each change until it no longer says to wait.
    pub fn decide(&self) -> Decision {
        match self.check_self().and_then(|()| {
            self.identity
                .formed
                .as_ref()
                .map_or_else(|| self.decide_blank(), |formed| Ok(Decision::Resume(formed.clone())))
        }) {
            Ok(decision) => decision,
            Err(why) => Decision::Refuse(why),
        }
    }

    fn check_self(&self) -> Result<(), FormError> {
        let (node, store) = (self.settings.node, self.identity.store);
        if self.identity.node != node {
            return Err(FormError::OtherNode { folder: self.identity.node, configured: node });
        }
        match &self.identity.formed {
            Some(formed) if !formed.knows(node, store) => {
                Err(FormError::FolderChanged { cluster: formed.cluster, node, store })
            }
            None if !self.settings.initial.contains(&node) => Err(FormError::NotInitial { node }),
            Some(_) | None => Ok(()),
        }
    }

    fn decide_blank(&self) -> Result<Decision, FormError> {
        let (node, store) = (self.settings.node, self.identity.store);
        if self.peers.contains_key(&node) {
            return Err(FormError::SameNode { node });
        }
        if let Some(formed) = self.met_cluster()? {
            return Ok(Decision::Form(formed.clone()));
        }
        let refusal = |hello: &Hello| self.judge(hello).err().map(|why| (hello.node, why));
        let refused: Vec<_> = self.peers.values().filter_map(refusal).collect();
        let others = self.settings.initial.iter().filter(|other| **other != node);
        let missing: Vec<_> = others.copied().filter(|other| !self.peers.contains_key(other)).collect();
        if !refused.is_empty() || !missing.is_empty() {
            return Ok(Decision::Waiting { missing, refused });
        }
        let mut stores: BTreeMap<_, _> = self.peers.values().map(|hello| (hello.node, hello.store)).collect();
        stores.insert(node, store);
        Ok(Decision::Form(Formed::of(stores)))
    }

    /// The formation that this blank node is counted in, if any peer knows one; an error if one knows it otherwise.
    fn met_cluster(&self) -> Result<Option<&Formed>, FormError> {
        let (node, store) = (self.settings.node, self.identity.store);
        let mut met: Option<&Formed> = None;
        for hello in self.peers.values() {
            let Some(formed) = &hello.formed else { continue };
            if !formed.knows(node, store) {
                let recorded = formed.stores.get(&node).copied();
                return Err(FormError::NotOurFolder { node, store, cluster: formed.cluster, recorded });
            }
            if hello.fingerprint != self.settings.fingerprint {
                let (ours, theirs) = (self.settings.fingerprint, hello.fingerprint);
                return Err(FormError::OtherSettings { peer: hello.node, cluster: formed.cluster, ours, theirs });
            }
            if let Some(before) = met.filter(|before| before.cluster != formed.cluster) {
                return Err(FormError::TwoClusters { one: before.cluster, other: formed.cluster });
            }
            if self.judge(hello).is_ok() {
                met = Some(formed);
            }
        }
        Ok(met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(node: u64) -> StoreId {
        StoreId(u128::from(node) * 1000)
    }

    fn formation(node: u64, nodes: u64) -> Formation {
        let settings = Settings { node: NodeId(node), initial: (1..=nodes).map(NodeId).collect(), fingerprint: 7 };
        Formation::new(settings, Identity { store: store(node), node: NodeId(node), formed: None })
    }

    fn formed(nodes: u64) -> Formed {
        Formed::of((1..=nodes).map(|node| (NodeId(node), store(node))).collect())
    }

    fn member(node: u64) -> Formation {
        let mut member = formation(node, 3);
        member.recorded(formed(3));
        member
    }

    fn hello(formation: &Formation) -> Hello {
        formation.hello(Boot(1))
    }

    #[test]
    fn three_blank_nodes_form_one_cluster_when_all_are_there() {
        let mut nodes: Vec<_> = (1..=3).map(|node| formation(node, 3)).collect();
        let hellos: Vec<_> = nodes.iter().map(hello).collect();
        nodes[0].met(hellos[1].clone()).unwrap();
        assert_eq!(nodes[0].decide(), Decision::Waiting { missing: vec![NodeId(3)], refused: vec![] });
        nodes[0].met(hellos[2].clone()).unwrap();
        nodes[1].met(hellos[0].clone()).unwrap();
        nodes[1].met(hellos[2].clone()).unwrap();
        assert_eq!(nodes[0].decide(), Decision::Form(formed(3)));
        assert_eq!(nodes[1].decide(), Decision::Form(formed(3)));
    }

    #[test]
    fn a_node_that_left_before_the_formation_is_waited_for() {
        let mut one = formation(1, 3);
        one.met(hello(&formation(2, 3))).unwrap();
        one.met(hello(&formation(3, 3))).unwrap();
        one.parted(NodeId(2));
        assert_eq!(one.decide(), Decision::Waiting { missing: vec![NodeId(2)], refused: vec![] });
    }

    #[test]
    fn a_single_node_forms_at_once() {
        assert_eq!(formation(1, 1).decide(), Decision::Form(formed(1)));
    }

    #[test]
    fn a_recorded_formation_is_resumed_without_anybody() {
        assert_eq!(member(1).decide(), Decision::Resume(formed(3)));
    }

    #[test]
    fn a_node_that_missed_the_moment_joins_the_recorded_formation() {
        let mut late = formation(3, 3);
        late.met(hello(&member(1))).unwrap();
        assert_eq!(late.decide(), Decision::Form(formed(3)));
        member(1).judge(&hello(&late)).unwrap();
    }

    #[test]
    fn a_wiped_folder_never_votes_even_if_it_meets_only_one_of_its_cluster() {
        let mut wiped = formation(3, 3);
        wiped.identity.store = StoreId(5);
        let refusal = HelloRefusal::WithoutUs { node: NodeId(1), cluster: formed(3).cluster };
        assert_eq!(wiped.met(hello(&member(1))), Err(refusal));
        let Decision::Refuse(why) = wiped.decide() else { panic!("it would vote") };
        let recorded = Some(store(3));
        let expected =
            FormError::NotOurFolder { node: NodeId(3), store: StoreId(5), cluster: formed(3).cluster, recorded };
        assert_eq!(why, expected);
        let text = why.to_string();
        assert!(text.contains("it will not vote") && text.contains("Restore the folder of node 3"), "{text}");
        let other_store = HelloRefusal::OtherStore {
            node: NodeId(3),
            cluster: formed(3).cluster,
            recorded: store(3),
            theirs: StoreId(5),
        };
        assert_eq!(member(1).judge(&hello(&wiped)), Err(other_store));
    }

    #[test]
    fn a_wiped_folder_does_not_vote_beside_other_wiped_ones() {
        let mut wiped = formation(3, 3);
        wiped.identity.store = StoreId(5);
        wiped.met(hello(&formation(2, 3))).unwrap();
        assert!(wiped.met(hello(&member(1))).is_err());
        assert!(matches!(wiped.decide(), Decision::Refuse(FormError::NotOurFolder { .. })));
    }

    #[test]
    fn a_copied_or_renamed_folder_is_refused() {
        let mut renamed = formation(2, 3);
        renamed.identity = member(1).identity;
        let why = FormError::OtherNode { folder: NodeId(1), configured: NodeId(2) };
        assert_eq!(renamed.decide(), Decision::Refuse(why));
        let mut changed = member(2);
        changed.identity.store = StoreId(5);
        assert!(matches!(changed.decide(), Decision::Refuse(FormError::FolderChanged { .. })));
    }

    #[test]
    fn two_processes_with_one_id_are_refused() {
        let mut one = formation(1, 3);
        let mut twin = hello(&one);
        twin.store = StoreId(5);
        assert_eq!(one.met(twin), Err(HelloRefusal::SameNode { node: NodeId(1) }));
        assert_eq!(one.decide(), Decision::Refuse(FormError::SameNode { node: NodeId(1) }));
    }

    #[test]
    fn blank_nodes_with_other_settings_wait_and_say_why() {
        let mut one = formation(1, 2);
        let mut other = hello(&formation(2, 2));
        other.fingerprint = 8;
        let why = one.met(other).unwrap_err();
        assert_eq!(why, HelloRefusal::Fingerprint { node: NodeId(2), ours: 7, theirs: 8 });
        assert_eq!(one.decide(), Decision::Waiting { missing: vec![], refused: vec![(NodeId(2), why)] });
    }

    #[test]
    fn a_blank_node_with_other_settings_than_its_cluster_exits() {
        let mut one = formation(1, 3);
        one.settings.fingerprint = 8;
        assert!(one.met(hello(&member(2))).is_err());
        assert!(matches!(one.decide(), Decision::Refuse(FormError::OtherSettings { .. })));
    }

    #[test]
    fn another_cluster_is_refused_on_both_sides() {
        let mut stores = formed(3).stores;
        stores.insert(NodeId(1), StoreId(5));
        let mut stranger = formation(2, 3);
        stranger.recorded(Formed::of(stores));
        assert!(matches!(member(1).judge(&hello(&stranger)), Err(HelloRefusal::OtherCluster { .. })));
        assert!(matches!(stranger.judge(&hello(&member(1))), Err(HelloRefusal::OtherCluster { .. })));
    }

    #[test]
    fn two_clusters_in_reach_of_a_blank_node_are_refused() {
        let mut stores = formed(3).stores;
        stores.insert(NodeId(1), StoreId(5));
        let mut stranger = formation(2, 3);
        stranger.recorded(Formed::of(stores));
        let mut blank = formation(3, 3);
        blank.met(hello(&member(1))).unwrap();
        blank.met(hello(&stranger)).unwrap();
        assert!(matches!(blank.decide(), Decision::Refuse(FormError::TwoClusters { .. })));
    }

    #[test]
    fn strangers_and_liars_are_refused() {
        let unknown = hello(&formation(9, 9));
        assert_eq!(member(1).judge(&unknown), Err(HelloRefusal::UnknownNode { node: NodeId(9) }));
        let mut liar = hello(&member(2));
        liar.formed.as_mut().unwrap().cluster = ClusterId(1);
        assert!(matches!(member(1).judge(&liar), Err(HelloRefusal::Inconsistent { .. })));
        assert_eq!(formation(9, 3).decide(), Decision::Refuse(FormError::NotInitial { node: NodeId(9) }));
    }

    #[test]
    fn an_older_life_does_not_replace_a_newer_one() {
        let mut one = formation(1, 2);
        one.met(formation(2, 2).hello(Boot(5))).unwrap();
        let mut older = formation(2, 2);
        older.identity.store = StoreId(5);
        one.met(older.hello(Boot(4))).unwrap();
        assert_eq!(one.decide(), Decision::Form(formed(2)));
    }

    #[test]
    fn five_vote_and_the_others_learn() {
        let group = formed(7).metadata_group();
        assert_eq!(group.voters, (1..=5).map(ReplicaId).collect::<Vec<_>>());
        assert_eq!(group.learners, [ReplicaId(6), ReplicaId(7)]);
        assert_eq!(group.replicas[&NodeId(7)], ReplicaId(7));
    }
}
