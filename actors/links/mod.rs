//! How the rest of a node talks to the other nodes: one `peer-link` per configured peer under the supervisor `links`.
//!
//! [`Links`] is the handle everybody holds; it outlives restarts of a peer-link. [`Inbound`] is what the rest of the
//! node does with what arrives. What a link promises is said in `millpond::link`; this room adds the mailboxes, the
//! clock and the reply ports. It knows neither what travels nor how.

mod peer_link;
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
use millpond::id::{Boot, NodeId, ShardId};
pub use millpond::link::{Counters, Fault, FaultCode, Life, Method};
use millpond::link::{Header, LinkError};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

pub use peer_link::{PeerLinkActor, PeerLinkArguments, PeerLinkMessage};

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

    /// What this node says about itself. Asked once a second; a change is told at once.
    fn our_hello(&self) -> Bytes;

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

struct Peer {
    address: Address<PeerLinkMessage>,
    report: watch::Sender<PeerReport>,
}

struct Shared {
    node: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    strays: AtomicU64,
}

/// The other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.shared.peers.keys()).finish()
    }
}

impl Links {
    /// The links of `node` to its configured peers with their addresses; `now` is when they were made. Nothing runs
    /// before the children of [`Self::specs`] do.
    pub fn new(node: NodeId, tree: &TreeHandle, peers: &[(NodeId, String)], now: i64) -> Self {
        let peer = |(peer, address): &(NodeId, String)| {
            assert!(*peer != node, "a node has no link to itself");
            let seat = tree.seat(&format!("peer-link-{peer}"), Some(SUPERVISOR));
            (*peer, Peer { address: seat, report: watch::Sender::new(unheard(*peer, address.clone(), now)) })
        };
        let peers = peers.iter().map(peer).collect();
        Self { shared: Arc::new(Shared { node, peers, strays: AtomicU64::new(0) }) }
    }

    /// The children of the supervisor `links`.
    pub fn specs(&self, env: &Env, inbound: &Arc<dyn Inbound>) -> Vec<ChildSpec> {
        let spec = |(&node, peer): (&NodeId, &Peer)| {
            let (env, inbound, report) = (env.clone(), Arc::clone(inbound), peer.report.clone());
            ChildSpec::new(&peer.address, env.knobs.isolated, move || {
                let arguments = PeerLinkArguments {
                    peer: node,
                    env: env.clone(),
                    inbound: Arc::clone(&inbound),
                    report: report.clone(),
                };
                (PeerLinkActor, arguments)
            })
        };
        self.shared.peers.iter().map(spec).collect()
    }

    /// Sends a Raft message, soon and together with others. It may be lost in silence, as Raft expects.
    pub fn raft(&self, to: NodeId, shard: ShardId, message: Bytes, control: bool) {
        if let Some(peer) = self.shared.peers.get(&to) {
            // A peer-link that restarts loses messages as a network does.
            let _ = peer.address.cast(PeerLinkMessage::Raft { shard, message, control });
        }
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
        let cast = self
            .shared
            .peers
            .get(&to)
            .is_some_and(|peer| peer.address.cast(PeerLinkMessage::Call { method, body, deadline, reply }).is_ok());
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
        self.shared.peers.values().map(|peer| peer.report.borrow().clone()).collect()
    }

    /// Follows one peer's report; none if it is not configured.
    pub fn watch(&self, peer: NodeId) -> Option<watch::Receiver<PeerReport>> {
        self.shared.peers.get(&peer).map(|peer| peer.report.subscribe())
    }

    /// Frames that could not be given to any peer-link: undecodable, for another node, or from none that is configured.
    pub fn strays(&self) -> u64 {
        self.shared.strays.load(Ordering::Relaxed)
    }

    /// Takes a frame from the transport.
    pub fn frame(&self, frame: Frame) {
        let taken = Header::decode(&frame.header).and_then(|header| {
            let misaddressed = LinkError::Misaddressed { from: header.from, to: header.to };
            let peer = self.shared.peers.get(&header.from).filter(|_| header.to == self.shared.node);
            let peer = peer.ok_or(misaddressed)?;
            // A peer-link that restarts loses frames as a network does.
            let _ = peer.address.cast(PeerLinkMessage::Frame { header: Box::new(header), payload: frame.payload });
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
        if let Some(peer) = self.shared.peers.get(&peer) {
            peer.report.send_modify(|report| report.connection = None);
            // A peer-link that starts greets its peer by itself.
            let _ = peer.address.cast(PeerLinkMessage::Opened);
        }
    }

    /// The transport could not connect to a peer, and why.
    pub fn unconnected(&self, peer: NodeId, why: &str) {
        if let Some(peer) = self.shared.peers.get(&peer) {
            peer.report.send_if_modified(|report| {
                let changed = report.connection.as_deref() != Some(why);
                report.connection = Some(why.to_owned());
                changed
            });
        }
    }
}

fn unheard(node: NodeId, address: String, since: i64) -> PeerReport {
    PeerReport {
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
    }
}
