//! Whether this node may take part in a metadata group, in which, and with whom it talks. It decides from this node's own
//! identity, the roll of the cluster as far as it is known, and the hellos of its peers; it does not know how hellos
//! travel, where the identity is kept, or how the cluster's state is replicated.
//!
//! - The group forms only when every configured initial node is connected and blank, with the same settings, the list of
//!   nodes among them. Each node then writes the same stores to its own disk, *before* it starts its replica. The cluster's
//!   id is a hash of nodes and stores, so all agree.
//! - A node that missed that moment comes to belong to the recorded formation, if it is recorded there with the store it
//!   has: it is the folder that was counted in, and it has never voted.
//! - A blank or changed store that meets a formed cluster never votes as the replica that its node had: the votes of that
//!   one are gone with the old folder, and voting again could break a promise that was made with them. It stays outside
//!   until the cluster has put this very store on its roll; that gives it a replica of its own.
//! - Once there is a cluster, its roll says who belongs to it, not the files of its nodes. Of all rolls that a node has
//!   seen the latest counts, whoever showed it: it was agreed upon, and a node that was away for long knows an older one.

mod build;
mod error;
mod words;

use std::collections::BTreeMap;

use crate::id::{Boot, ClusterId, NodeId, StoreId};

pub use build::{Build, BuildRefusal, Versions};
pub use error::{FormError, HelloRefusal};
pub use words::{
    Belonging, Claim, Enrolled, Fingerprint, Formed, Hello, Identity, MetadataGroup, Roll, Settings, cluster_id,
};

/// A node before the door of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// This node.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
    /// The cluster it met.
    pub cluster: ClusterId,
    /// The store that the cluster has this node with; `None`: it has no such node.
    pub recorded: Option<StoreId>,
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
    /// Wait until the cluster has this node, with the store it has, on its roll; nothing may be voted on.
    Outside(Outside),
    /// Write this to the identity, durably; then say [`Formation::recorded`] and start the metadata replica.
    Form(Belonging),
    /// Start the metadata replica: this node is on record as one of the cluster.
    Resume(Belonging),
    /// Exit and say why.
    Refuse(FormError),
}

/// The formation as one node sees it.
#[derive(Clone, Debug)]
pub struct Formation {
    settings: Settings,
    identity: Identity,
    /// The latest roll of this node's cluster that it has seen; `None` while it is blank.
    roll: Option<Roll>,
    /// The last hello of each connected peer, also of those that were refused.
    peers: BTreeMap<NodeId, Hello>,
}

impl Formation {
    /// Begins with what the disk and the configuration say.
    pub fn new(settings: Settings, identity: Identity) -> Self {
        let roll = identity.belongs.as_ref().map(Belonging::roll);
        Self { settings, identity, roll, peers: BTreeMap::new() }
    }

    /// What this node says of itself.
    pub fn hello(&self, boot: Boot) -> Hello {
        let claim = self.identity.belongs.as_ref().zip(self.roll.as_ref());
        Hello {
            node: self.settings.node,
            store: self.identity.store,
            boot,
            fingerprint: self.settings.fingerprint.clone(),
            claim: claim.map(|(belongs, roll)| Claim { formed: belongs.formed.clone(), roll: roll.clone() }),
        }
    }

    /// A peer has connected, or changed. Whether it is accepted; either way it counts for [`Formation::decide`]. An older
    /// life of a peer that is connected already is judged and forgotten.
    ///
    /// # Errors
    /// Why nothing else may be exchanged with this peer.
    pub fn met(&mut self, hello: Hello) -> Result<(), HelloRefusal> {
        let verdict = self.judge(&hello);
        let claim = self.sound(&hello).filter(|claim| self.is_ours(claim));
        if let Some(claim) = claim {
            self.learned(claim.roll.clone());
        }
        let known = self.settings.initial.contains(&hello.node)
            || hello.node == self.settings.node
            || self.roll.as_ref().is_some_and(|roll| roll.nodes.contains_key(&hello.node));
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

    /// What was decided on is durable.
    pub fn recorded(&mut self, belonging: Belonging) {
        self.roll = Some(belonging.roll());
        self.identity.belongs = Some(belonging);
        let claims = self.peers.values().filter_map(|hello| self.sound(hello)).filter(|claim| self.is_ours(claim));
        let latest = claims.map(|claim| &claim.roll).max_by_key(|roll| roll.applied).cloned();
        if let Some(roll) = latest {
            self.learned(roll);
        }
    }

    /// This node has applied what the roll says, or a peer of its cluster has. An older one than is known changes nothing.
    pub fn learned(&mut self, roll: Roll) {
        if self.roll.as_ref().is_some_and(|known| known.applied < roll.applied) {
            self.roll = Some(roll);
        }
    }

    /// The cluster that this node belongs to, as it has recorded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.belongs.as_ref().map(|belonging| belonging.formed.cluster)
    }

    /// The latest roll of this node's cluster that it has seen; `None` while it is blank.
    pub fn roll(&self) -> Option<&Roll> {
        self.roll.as_ref()
    }

    /// The cluster that a peer says it belongs to, if that adds up.
    fn sound<'a>(&self, hello: &'a Hello) -> Option<&'a Claim> {
        hello.claim.as_ref().filter(|claim| hello.is_bounded() && claim.adds_up())
    }

    fn is_ours(&self, claim: &Claim) -> bool {
        self.identity.belongs.as_ref().is_some_and(|belongs| belongs.formed.cluster == claim.formed.cluster)
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
        if !hello.is_bounded() {
            return Err(HelloRefusal::Excessive { node });
        }
        let (ours, theirs) = (self.identity.belongs.as_ref(), hello.claim.as_ref());
        let to_form = ours.is_none() && theirs.is_none();
        if to_form && !self.settings.initial.contains(&node) {
            return Err(HelloRefusal::UnknownNode { node });
        }
        if let Some(key) = self.settings.fingerprint.differs(&hello.fingerprint, to_form) {
            return Err(HelloRefusal::Setting { node, key });
        }
        if let Some(claim) = theirs.filter(|claim| !claim.adds_up()) {
            return Err(HelloRefusal::Inconsistent { node, cluster: claim.formed.cluster });
        }
        let (cluster, roll) = match (ours, theirs) {
            (None, None) => return Ok(()),
            (Some(ours), Some(theirs)) if ours.formed.cluster != theirs.formed.cluster => {
                let (ours, theirs) = (ours.formed.cluster, theirs.formed.cluster);
                return Err(HelloRefusal::OtherCluster { node, ours, theirs });
            }
            (Some(ours), theirs) => (ours.formed.cluster, self.latest(theirs)),
            (None, Some(theirs)) => (theirs.formed.cluster, self.latest(Some(theirs))),
        };
        let Some(roll) = roll else { return Err(HelloRefusal::UnknownNode { node }) };
        if ours.is_none() && !roll.knows(self.settings.node, self.identity.store) {
            return Err(HelloRefusal::WithoutUs { node, cluster });
        }
        match roll.nodes.get(&node) {
            None => Err(HelloRefusal::UnknownNode { node }),
            Some(_) if roll.knows(node, hello.store) => Ok(()),
            Some(enrolled) => {
                Err(HelloRefusal::OtherStore { node, cluster, recorded: enrolled.store, theirs: hello.store })
            }
        }
    }

    /// The latest of the rolls of one cluster: this node's own, or that of a claim and of the peers that claim the same.
    fn latest<'a>(&'a self, claim: Option<&'a Claim>) -> Option<&'a Roll> {
        let peers = self
            .peers
            .values()
            .filter_map(|hello| self.sound(hello))
            .filter(|other| claim.is_some_and(|claim| claim.formed.cluster == other.formed.cluster));
        let rolls = peers.chain(claim).map(|claim| &claim.roll);
        rolls.chain(self.roll.as_ref()).max_by_key(|roll| roll.applied)
    }

    /// What to do, given what is known. Asked again after each change until it no longer says to wait; asked later it says
    /// whether this node was removed or its store replaced while it was away.
    pub fn decide(&self) -> Decision {
        let decision = self.check_self().and_then(|()| match &self.identity.belongs {
            Some(belonging) => Ok(Decision::Resume(belonging.clone())),
            None => self.decide_blank(),
        });
        decision.unwrap_or_else(Decision::Refuse)
    }

    fn check_self(&self) -> Result<(), FormError> {
        let (node, store) = (self.settings.node, self.identity.store);
        if self.identity.node != node {
            return Err(FormError::OtherNode { folder: self.identity.node, configured: node });
        }
        let Some(belonging) = &self.identity.belongs else { return Ok(()) };
        let cluster = belonging.formed.cluster;
        if !belonging.roll().knows(node, store) {
            return Err(FormError::FolderChanged { cluster, node, store });
        }
        // What this node learns is never older than the roll on which it came to belong to the cluster.
        match &self.roll {
            Some(roll) if !roll.knows(node, store) => {
                let recorded = roll.nodes.get(&node).map(|enrolled| enrolled.store);
                Err(FormError::NotOurFolder { node, store, cluster, recorded })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn decide_blank(&self) -> Result<Decision, FormError> {
        let (node, store) = (self.settings.node, self.identity.store);
        if self.peers.contains_key(&node) {
            return Err(FormError::SameNode { node });
        }
        if let Some(claim) = self.met_cluster()? {
            return Ok(self.decide_at(claim));
        }
        let refusal = |hello: &Hello| self.judge(hello).err().map(|why| (hello.node, why));
        let refused: Vec<_> = self.peers.values().filter_map(refusal).collect();
        let others = self.settings.initial.iter().filter(|other| **other != node);
        let missing: Vec<_> = others.copied().filter(|other| !self.peers.contains_key(other)).collect();
        // A node that is not one of them forms no cluster; it waits for one to join.
        let forms = self.settings.initial.contains(&node);
        if !refused.is_empty() || !missing.is_empty() || !forms {
            return Ok(Decision::Waiting { missing, refused });
        }
        let mut stores: BTreeMap<_, _> = self.peers.values().map(|hello| (hello.node, hello.store)).collect();
        stores.insert(node, store);
        Ok(Decision::Form(Belonging { formed: Formed::of(stores), joined: None }))
    }

    /// What a blank node does that has met a cluster: it belongs to it, or stays outside.
    fn decide_at(&self, claim: &Claim) -> Decision {
        let (node, store) = (self.settings.node, self.identity.store);
        let (formed, roll) = (claim.formed.clone(), self.latest(Some(claim)).unwrap_or(&claim.roll));
        let enrolled = roll.nodes.get(&node);
        if !roll.knows(node, store) {
            let recorded = enrolled.map(|enrolled| enrolled.store);
            return Decision::Outside(Outside { node, store, cluster: formed.cluster, recorded });
        }
        // Where it has the replica that the formation gave it, it is the node that was counted in.
        let founder = enrolled.map(|enrolled| enrolled.replica) == formed.metadata_group().replicas.get(&node).copied();
        let joined = (!founder).then(|| roll.clone());
        Decision::Form(Belonging { formed, joined })
    }

    /// The cluster that peers of this blank node belong to, if any does.
    fn met_cluster(&self) -> Result<Option<&Claim>, FormError> {
        let mut met: Option<&Claim> = None;
        for (hello, claim) in self.peers.values().filter_map(|hello| Some((hello, self.sound(hello)?))) {
            let cluster = claim.formed.cluster;
            if let Some(key) = self.settings.fingerprint.differs(&hello.fingerprint, false) {
                return Err(FormError::OtherSettings { peer: hello.node, cluster, key });
            }
            if let Some(before) = met.filter(|before| before.formed.cluster != cluster) {
                return Err(FormError::TwoClusters { one: before.formed.cluster, other: cluster });
            }
            met = Some(claim);
        }
        Ok(met)
    }
}

#[cfg(test)]
mod tests;
