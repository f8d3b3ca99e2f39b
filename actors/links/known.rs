//! Which other nodes there are: those that the configuration or the roll names and those that belong to the cluster, less
//! those that were removed from it.
//!
//! A node that was removed is never a peer again, since its id is not given out twice. A replica of the metadata group
//! that starts anew publishes what its snapshot held, so the state may go back for a while: what is known here does not.
//! It does not know who follows the cluster, nor what runs for a peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond::cluster::Cluster;
use millpond::id::{Index, NodeId};
use millpond::limits::NODES_MAX;
use millpond::placement::MemberState;
use tokio::sync::watch;

use super::{PeerLinkMessage, PeerReport, PeerState};
use crate::supervision::Address;

/// One other node.
pub(super) struct Peer {
    /// Where its peer-link is reached.
    pub(super) link: Address<PeerLinkMessage>,
    /// Where that shows how it stands.
    pub(super) report: watch::Sender<PeerReport>,
}

impl Peer {
    /// A peer that was not heard yet.
    pub(super) fn new(node: NodeId, address: String, link: Address<PeerLinkMessage>, since: i64) -> Self {
        let report = PeerReport {
            node,
            address,
            state: PeerState::Connecting,
            since,
            connection: None,
            boot: None,
            credit_outstanding: 0,
            queued_bytes: 0,
            calls_waiting: 0,
            round_trip_micros: None,
            frames: [0; 2],
            bytes: [0; 2],
            dropped: 0,
            rejected: 0,
            lost_bytes: 0,
        };
        Self { link, report: watch::Sender::new(report) }
    }
}

/// The other nodes, as far as the metadata group's log was applied.
#[derive(Default)]
pub(crate) struct Known {
    applied: Index,
    pub(super) peers: BTreeMap<NodeId, Peer>,
}

/// What a newer state of the cluster changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Whether any peer is new, gone, or has another address.
    pub(super) any: bool,
    /// The peers that are gone, and the names of their peer-links.
    pub(super) left: Vec<(NodeId, Arc<str>)>,
}

impl Known {
    /// Whether a node is a peer.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.peers.contains_key(&node)
    }

    /// Where each peer is dialled, `host:port`.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.peers.iter().map(|(node, peer)| (*node, peer.report.borrow().address.clone())).collect()
    }

    /// Makes the peers of `node` those that a state of the cluster and the configuration name; a state older than the
    /// one before changes nothing. `make` gives a new peer of that address its place.
    pub(super) fn follow(
        &mut self,
        node: NodeId,
        configured: &BTreeMap<NodeId, String>,
        cluster: &Cluster,
        make: impl Fn(NodeId, String) -> Peer,
    ) -> Change {
        let mut change = Change::default();
        if cluster.applied() < self.applied {
            return change;
        }
        self.applied = cluster.applied();
        let wanted = wanted(node, configured, cluster);
        self.peers.retain(|node, peer| {
            let stays = wanted.contains_key(node);
            if !stays {
                change.left.push((*node, Arc::clone(peer.link.name())));
            }
            stays
        });
        change.any = !change.left.is_empty();
        for (node, address) in wanted {
            match self.peers.get(&node) {
                Some(peer) => {
                    change.any |= peer.report.send_if_modified(|report| {
                        let moved = report.address != address;
                        report.address = address;
                        moved
                    });
                }
                None => {
                    self.peers.insert(node, make(node, address));
                    change.any = true;
                }
            }
        }
        change
    }
}

/// The peers of `node` and where they are. What the cluster says of a node counts more than the configuration, also
/// where there are more than a cluster may have.
fn wanted(node: NodeId, configured: &BTreeMap<NodeId, String>, cluster: &Cluster) -> BTreeMap<NodeId, String> {
    let members = cluster.members();
    let belongs = |state| match state {
        MemberState::Active | MemberState::Draining => true,
        MemberState::Removed => false,
    };
    let present = members.iter().filter(|(other, member)| **other != node && belongs(member.state));
    let mut peers: BTreeMap<_, _> = present.map(|(other, member)| (*other, member.address.clone())).collect();
    let others = configured.iter().filter(|(other, _)| **other != node && !members.contains_key(other));
    let room = (NODES_MAX - 1).saturating_sub(peers.len());
    peers.extend(others.take(room).map(|(other, address)| (*other, address.clone())));
    peers
}

#[cfg(test)]
mod tests {
    use millpond::cluster::Command;
    use millpond::id::StoreId;

    use super::*;
    use crate::links::Links;
    use crate::links::tests::{Nothing, admit, agree, formed};
    use crate::tree::{Identity, TreeHandle};

    fn links(peers: &[u64]) -> Links {
        let identity = Identity { node: NodeId(1), name: "one".to_owned(), boot: millpond::id::Boot(1) };
        let tree = TreeHandle::new(identity, Arc::new(Nothing), false);
        let peers: Vec<_> = peers.iter().map(|node| (NodeId(*node), format!("configured:{node}"))).collect();
        Links::new(NodeId(1), &tree, &peers, 0)
    }

    fn addresses(links: &Links) -> Vec<String> {
        links.peers().into_iter().map(|peer| format!("{} at {}", peer.node, peer.address)).collect()
    }

    #[test]
    fn peers_are_the_configured_and_the_members_without_the_removed_and_the_node_itself() {
        let links = links(&[2, 3]);
        assert_eq!(addresses(&links), ["2 at configured:2", "3 at configured:3"], "before there is a cluster");
        let board = watch::Sender::new(Arc::new(formed(NodeId(1))));
        for node in [3, 4] {
            agree(&board, &admit(NodeId(node), &format!("member:{node}")));
        }
        agree(&board, &Command::DrainNode { node: NodeId(4) });
        assert!(links.follow(&board.borrow(), 0).any);
        assert_eq!(addresses(&links), ["2 at configured:2", "3 at member:3", "4 at member:4"]);
        assert!(!links.follow(&board.borrow(), 0).any, "nothing is new");
        for node in [3, 4] {
            agree(&board, &Command::RemoveNode { node: NodeId(node) });
        }
        let left = links.follow(&board.borrow(), 0).left;
        assert_eq!(left, [(NodeId(3), "peer-link-3".into()), (NodeId(4), "peer-link-4".into())]);
        assert_eq!(addresses(&links), ["2 at configured:2"]);
    }

    #[test]
    fn a_node_that_joins_talks_to_those_on_the_roll_though_nobody_configured_them() {
        let links = links(&[2]);
        let mut heard = links.heard();
        links.hear_of([(2, "roll:2"), (4, "roll:4"), (1, "roll:1")].map(|(n, at)| (NodeId(n), at.to_owned())).into());
        assert!(heard.has_changed().unwrap() && links.follow(&Cluster::default(), 0).any);
        assert_eq!(addresses(&links), ["2 at configured:2", "4 at roll:4"]);
        heard.mark_unchanged();
        links.hear_of([(2, "roll:2"), (4, "roll:4"), (1, "roll:1")].map(|(n, at)| (NodeId(n), at.to_owned())).into());
        assert!(!heard.has_changed().unwrap(), "nothing is new");
        let board = watch::Sender::new(Arc::new(formed(NodeId(1))));
        agree(&board, &admit(NodeId(4), "member:4"));
        agree(&board, &Command::RemoveNode { node: NodeId(4) });
        links.follow(&board.borrow(), 0);
        assert_eq!(addresses(&links), ["2 at configured:2"], "the cluster knows better");
    }

    #[test]
    fn a_state_that_went_back_brings_nobody_back_and_loses_nobody() {
        let links = links(&[2]);
        let board = watch::Sender::new(Arc::new(formed(NodeId(1))));
        let old = Arc::clone(&board.borrow());
        agree(&board, &admit(NodeId(2), "member:2"));
        agree(&board, &admit(NodeId(3), "member:3"));
        agree(&board, &Command::RemoveNode { node: NodeId(2) });
        links.follow(&board.borrow(), 0);
        assert_eq!(addresses(&links), ["3 at member:3"]);
        for old in [&*old, &Cluster::default()] {
            assert!(!links.follow(old, 0).any);
        }
        assert_eq!(addresses(&links), ["3 at member:3"]);
    }

    #[test]
    fn there_are_never_more_peers_than_a_cluster_may_have_and_members_come_first() {
        let configured: Vec<u64> = (2..=NODES_MAX as u64).collect();
        let links = links(&configured);
        assert_eq!(links.peers().len(), NODES_MAX - 1);
        let board = watch::Sender::new(Arc::new(formed(NodeId(1))));
        let node = NodeId(1_000);
        agree(&board, &Command::AddNode { node, store: StoreId(9), address: "late".to_owned(), zone: String::new() });
        links.follow(&board.borrow(), 0);
        assert_eq!(links.peers().len(), NODES_MAX - 1);
        assert!(links.watch(node).is_some(), "a member has its place");
    }
}
