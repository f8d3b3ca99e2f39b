//! How the rest of a node talks to the other nodes: one `peer-link` for each under the supervisor `links`, which follows
//! who belongs to the cluster.
//!
//! [`Links`] is the handle everybody holds; it outlives restarts of a peer-link and of the supervisor. [`Inbound`] is
//! what the rest of the node does with what arrives. What a link promises is said in `millpond::link`; this room adds
//! the mailboxes, the clock and the reply ports. It knows neither what travels nor how.

mod known;
mod peer_link;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond::class::Class;
use millpond::cluster::Cluster;
use millpond::id::{Boot, NodeId, ShardId};
pub use millpond::link::{Counters, Fault, FaultCode, Life, Method};
use millpond::link::{Header, LinkError};
use millpond::placement::MemberState;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub(crate) use known::Known;
use known::{Change, Peer};
pub use peer_link::{PeerLinkActor, PeerLinkArguments, PeerLinkMessage};
pub use supervisor::{LinksActor, LinksArguments, LinksMessage};

use crate::env::{Env, Frame};
use crate::supervision::{Address, ChildSpec};
use crate::tree::TreeHandle;

/// The name of the supervisor in the tree.
pub const SUPERVISOR: &str = "links";

/// What the rest of the node does with what arrives. Nothing here may block or wait.
pub trait Inbound: Send + Sync + 'static {
    /// Raft messages of a peer, each for its group, in the order they were sent.
    fn raft(&self, from: NodeId, batch: Vec<(ShardId, Bytes)>);

    /// A peer calls. Dropping `answer` tells it that nobody answered.
    fn call(&self, from: NodeId, method: Method, body: Bytes, answer: Answer);

    /// Decides whether a peer, by what it says about itself, is one to talk to.
    ///
    /// # Errors
    /// Why not; both ends show it, and the peer is asked again.
    fn hello(&self, from_claimed: NodeId, hello: Bytes) -> Result<(), String>;

    /// What this node says about itself. Asked once a second, and when there is news; a change is told at once.
    fn our_hello(&self) -> Bytes;

    /// Changes whenever this node has something to say about itself that cannot wait for a second.
    fn news(&self) -> watch::Receiver<u64>;

    /// A link stands otherwise than before.
    fn changed(&self, peer: NodeId, state: PeerState);

    /// A peer's process is another than before.
    fn restarted(&self, peer: NodeId, boot: Boot);
}

/// How a link stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// No connection yet, or the hellos are under way.
    Connecting,
    /// Both nodes accepted each other.
    Connected,
    /// Silent for too long.
    Suspected,
    /// One of the two nodes does not accept the other.
    Refused(String),
    /// The link has ended: this node stops, or the other was removed from the cluster.
    Closed,
}

/// What there is to see of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerReport {
    /// Which node.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// How the link stands.
    pub state: PeerState,
    /// Since when, in nanoseconds since the Unix epoch.
    pub since: i64,
    /// What the last attempt to connect ended with; none once one succeeded.
    pub connection: Option<String>,
    /// The life of its process, once heard.
    pub boot: Option<Boot>,
    /// Bulk bytes on their way.
    pub credit_outstanding: u64,
    /// Bytes that wait for credit.
    pub queued_bytes: usize,
    /// Calls that wait for its answer.
    pub calls_waiting: usize,
    /// The last measured round trip of a heartbeat, in microseconds.
    pub round_trip_micros: Option<u64>,
    /// Frames and bytes both ways.
    pub frames: [u64; 2],
    /// Payload bytes both ways.
    pub bytes: [u64; 2],
    /// Raft messages dropped for want of room or of a peer.
    pub dropped: u64,
    /// Frames that were not taken.
    pub rejected: u64,
    /// Bytes lost on the way here.
    pub lost_bytes: u64,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The request never left this node.
    #[error("node {0} is not reachable")]
    Unreachable(NodeId),
    /// Too many requests to that node wait; this one never left.
    #[error("too many requests to node {0} wait")]
    Overloaded(NodeId),
    /// The request is longer than a message may be.
    #[error("the request to node {0} is too long")]
    TooLarge(NodeId),
    /// No answer came in time, or the link broke first: whether it was carried out is not known.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    /// The node answered that it could or would not.
    #[error("node {node} answered with fault {code:?}", code = fault.code)]
    Fault {
        /// Which node.
        node: NodeId,
        /// What it said.
        fault: Fault,
    },
}

impl CallError {
    /// Whether nothing of the request can have been carried out.
    #[must_use]
    pub const fn is_certainly_unsent(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Overloaded(_) | Self::TooLarge(_) => true,
            Self::Timeout(_) => false,
            Self::Fault { fault, .. } => matches!(fault.code, FaultCode::Overloaded | FaultCode::UnknownMethod),
        }
    }

    /// What the caller can do.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Unreachable(_) | Self::Overloaded(_) | Self::Timeout(_) | Self::Fault { .. } => Class::Retry,
            Self::TooLarge(_) => Class::Refuse,
        }
    }
}

/// The answer owed to a peer that called. Dropped, it says that nobody answered.
pub struct Answer {
    to: Address<PeerLinkMessage>,
    life: Life,
    call: u64,
    sent: bool,
}

impl Answer {
    fn new(to: Address<PeerLinkMessage>, life: Life, call: u64) -> Self {
        Self { to, life, call, sent: false }
    }

    /// Answers with a result, or with why there is none.
    pub fn send(mut self, outcome: Result<Bytes, Fault>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<Bytes, Fault>) {
        if !std::mem::replace(&mut self.sent, true) {
            // A link that is down has no call to answer: its caller heard when the link broke.
            let _ = self.to.cast(PeerLinkMessage::Answer { life: self.life, call: self.call, outcome });
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} call {})", self.to.name(), self.call)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.tell(Err(Fault::of(FaultCode::Unanswered)));
    }
}

struct Shared {
    node: NodeId,
    tree: TreeHandle,
    /// What the configuration names; written by nobody.
    configured: BTreeMap<NodeId, String>,
    /// What peers say of further nodes; of a node that joins it may be all that it knows of who leads.
    heard: watch::Sender<BTreeMap<NodeId, String>>,
    /// Written when a node comes or goes; read, and not held, whenever something is sent.
    known: watch::Sender<Known>,
    strays: AtomicU64,
}

/// The other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.shared.known.borrow().peers.keys()).finish()
    }
}

impl Links {
    /// The links of `node`, as long as nothing is known of the cluster: to the peers of its configuration with their
    /// addresses. `now` is when they were made. Nothing runs before [`LinksActor`] does.
    pub fn new(node: NodeId, tree: &TreeHandle, peers: &[(NodeId, String)], now: i64) -> Self {
        assert!(peers.iter().all(|(peer, _)| *peer != node), "a node has no link to itself");
        let configured = peers.iter().cloned().collect();
        let (known, strays) = (watch::Sender::new(Known::default()), AtomicU64::new(0));
        let (tree, heard) = (tree.clone(), watch::Sender::default());
        let links = Self { shared: Arc::new(Shared { node, tree, configured, heard, known, strays }) };
        links.follow(&Cluster::default(), now);
        links
    }

    /// Makes the peers those that the configuration and a state of the cluster name. Those that are gone have left the
    /// tree; whoever supervises their peer-links stops them.
    fn follow(&self, cluster: &Cluster, now: i64) -> Change {
        let Shared { node, tree, configured, heard, known, .. } = &*self.shared;
        let mut named = heard.borrow().clone();
        named.extend(configured.iter().map(|(node, address)| (*node, address.clone())));
        let make = |peer, address| {
            let link = tree.seat(&format!("peer-link-{peer}"), Some(SUPERVISOR));
            Peer::new(peer, address, link, now)
        };
        let mut change = Change::default();
        known.send_if_modified(|known| {
            change = known.follow(*node, &named, cluster, make);
            change.any
        });
        for (_, name) in &change.left {
            tree.forget(name);
        }
        change
    }

    /// The roll of the cluster names these nodes, as peers have shown it. They count as if they were configured, in the place
    /// of those of the roll before.
    pub fn hear_of(&self, nodes: BTreeMap<NodeId, String>) {
        self.shared.heard.send_if_modified(|heard| {
            let news = *heard != nodes;
            *heard = nodes;
            news
        });
    }

    /// Follows what is heard of further nodes.
    pub(crate) fn heard(&self) -> watch::Receiver<BTreeMap<NodeId, String>> {
        self.shared.heard.subscribe()
    }

    /// Whether a state of the cluster makes a peer one no more.
    fn loses(&self, cluster: &Cluster) -> bool {
        let removed = |state| state == MemberState::Removed;
        cluster.members().iter().any(|(node, member)| removed(member.state) && self.knows(*node))
    }

    /// Follows who the peers are.
    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.shared.known.subscribe()
    }

    /// Whether a node is a peer.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.shared.known.borrow().has(node)
    }

    /// The peer-links, children of the supervisor `links`.
    pub fn specs(&self, env: &Env, inbound: &Arc<dyn Inbound>) -> Vec<ChildSpec> {
        let spec = |(&node, peer): (&NodeId, &Peer)| {
            let (env, inbound, report) = (env.clone(), Arc::clone(inbound), peer.report.clone());
            ChildSpec::new(&peer.link, env.knobs.isolated, move || {
                let arguments = PeerLinkArguments {
                    peer: node,
                    env: env.clone(),
                    inbound: Arc::clone(&inbound),
                    report: report.clone(),
                };
                (PeerLinkActor, arguments)
            })
        };
        self.shared.known.borrow().peers.iter().map(spec).collect()
    }

    /// Puts a message into the mailbox of a peer-link; whether there was one to take it.
    fn cast(&self, peer: NodeId, message: PeerLinkMessage) -> bool {
        self.shared.known.borrow().peers.get(&peer).is_some_and(|peer| peer.link.cast(message).is_ok())
    }

    /// Sends a Raft message, soon and together with others. It may be lost in silence, as Raft expects.
    pub fn raft(&self, to: NodeId, shard: ShardId, message: Bytes, control: bool) {
        // A peer-link that restarts loses messages as a network does.
        let _ = self.cast(to, PeerLinkMessage::Raft { shard, message, control });
    }

    /// Asks a peer and waits for its answer, at most for `deadline`.
    ///
    /// # Errors
    /// Unreachable and overloaded at once; a timeout where the outcome is not known.
    pub fn call(
        &self,
        to: NodeId,
        method: Method,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let cast = self.cast(to, PeerLinkMessage::Call { method, body, deadline, reply });
        async move {
            if !cast {
                return Err(CallError::Unreachable(to));
            }
            match tokio::time::timeout(deadline, answer).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Err(CallError::Timeout(to)),
            }
        }
    }

    /// What there is to see of each peer, by node.
    pub fn peers(&self) -> Vec<PeerReport> {
        self.shared.known.borrow().peers.values().map(|peer| peer.report.borrow().clone()).collect()
    }

    /// Follows one peer's report, until it is removed; none for a node that is no peer.
    pub fn watch(&self, peer: NodeId) -> Option<watch::Receiver<PeerReport>> {
        self.shared.known.borrow().peers.get(&peer).map(|peer| peer.report.subscribe())
    }

    /// Frames that could not be given to any peer-link: undecodable, for another node, or from none that is a peer.
    pub fn strays(&self) -> u64 {
        self.shared.strays.load(Ordering::Relaxed)
    }

    /// Takes a frame from the transport.
    pub fn frame(&self, frame: Frame) {
        let taken = Header::decode(&frame.header).and_then(|header| {
            let misaddressed = LinkError::Misaddressed { from: header.from, to: header.to };
            let known = self.shared.known.borrow();
            let peer = known.peers.get(&header.from).filter(|_| header.to == self.shared.node);
            let peer = peer.ok_or(misaddressed)?;
            // A peer-link that restarts loses frames as a network does.
            let _ = peer.link.cast(PeerLinkMessage::Frame { header: Box::new(header), payload: frame.payload });
            Ok(())
        });
        if let Err(error) = taken {
            let strays = self.shared.strays.fetch_add(1, Ordering::Relaxed) + 1;
            if strays.is_power_of_two() {
                tracing::warn!(%error, strays, "frames of other nodes are dropped");
            }
        }
    }

    /// The transport has a fresh connection to a peer.
    pub fn opened(&self, peer: NodeId) {
        if let Some(peer) = self.shared.known.borrow().peers.get(&peer) {
            peer.report.send_modify(|report| report.connection = None);
            // A peer-link that starts greets its peer by itself.
            let _ = peer.link.cast(PeerLinkMessage::Opened);
        }
    }

    /// The transport could not connect to a peer, and why.
    pub fn unconnected(&self, peer: NodeId, why: &str) {
        if let Some(peer) = self.shared.known.borrow().peers.get(&peer) {
            peer.report.send_if_modified(|report| {
                let changed = report.connection.as_deref() != Some(why);
                report.connection = Some(why.to_owned());
                changed
            });
        }
    }
}
