//! The transport between nodes in production: ractor_cluster, and what it lacks.
//!
//! ractor_cluster gives sessions over TCP, a handshake with a cookie, and actors that stand for remote ones. It has no
//! redialling, no deadlines, no sign that a peer stopped, and lets two connections of one pair draw lots. So:
//!
//! - `gateway` is the one actor of a node that others can reach. A frame is a cast to the peer's gateway;
//! - `sessions` stands where ractor_cluster's own node server would: it accepts sessions of known peers only, the newest
//!   one of a peer wins, and a session that does not finish its handshake in time is stopped;
//! - `connector` listens and dials. Of two nodes the lower one dials; the higher one knocks, which asks to be dialled
//!   now. Before a connection becomes a session, a preamble says who is there and of which cluster;
//! - a connection is closed when a write makes no progress, or nothing is read, for too long ([`stream`]), when the link
//!   suspects the peer, and when the peer is no longer one.
//!
//! Who the peers are is asked of [`Links`], which follows the cluster. A node that joins is turned away until its peers
//! know it and dials on meanwhile; whoever learns of the other dials or knocks at once.
//!
//! A cast to a remote actor says Ok also when the peer is stopped or gone: nothing here tells a caller that a frame
//! arrived, the link finds out. The cookie keeps clusters apart; it does not keep anybody out.
//!
//! One node per process: ractor's process groups and actor ids are the process's own.

mod connector;
mod gateway;
mod preamble;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use millpond::id::{Boot, NodeId};
use ractor::ActorRef;
use ractor_cluster::{NodeServerMessage, NodeSessionMessage};

use crate::env::{Frame, PeerLink, Random};
use crate::links::{Links, SUPERVISOR};
use crate::supervision::{Address, ChildSpec, Restart};
use crate::tree::TreeHandle;

use connector::{ConnectorActor, ConnectorMessage};
use gateway::{GatewayActor, GatewayMessage};
use sessions::{SessionsActor, SessionsArguments};

/// Why a session ends whose peer is no longer one.
const NO_PEER: &str = "the node there is no peer any more";

/// Where a node is reached and how it speaks to others.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// This node.
    pub node: NodeId,
    /// This life of its process.
    pub boot: Boot,
    /// The cluster's name; nodes of another one are turned away.
    pub cluster: String,
    /// The same on all nodes of the cluster.
    pub cookie: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// For jitter between dials.
    pub random: Arc<dyn Random>,
}

/// A way to a peer's gateway.
#[derive(Clone, Debug)]
struct Route {
    session: ActorRef<NodeSessionMessage>,
    gateway: ActorRef<GatewayMessage>,
}

/// What the three actors share: ways out for frames, and the place of the sessions actor. Written when a connection
/// comes or goes.
struct Shared {
    config: TransportConfig,
    links: Links,
    routes: RwLock<BTreeMap<NodeId, Route>>,
    sessions: RwLock<Option<ActorRef<NodeServerMessage>>>,
    /// Numbers sessions within the process, over restarts of `sessions`: remote actors are told apart by it.
    session_number: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    fn route(&self, peer: NodeId) -> Option<Route> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    fn set_route(&self, peer: NodeId, route: Option<Route>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        match route {
            Some(route) => drop(routes.insert(peer, route)),
            None => drop(routes.remove(&peer)),
        }
    }

    fn sessions(&self) -> Option<ActorRef<NodeServerMessage>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the connections to nodes that are no peers any more.
    fn part_with_strangers(&self) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        for (_, route) in routes.iter().filter(|(node, _)| !self.links.knows(**node)) {
            route.session.stop(Some(NO_PEER.to_owned()));
        }
    }
}

impl PeerLink for Shared {
    fn send(&self, to: NodeId, frame: Frame) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&to) {
            // A session that just ended takes nothing; the frame is lost as on any network.
            let _ = route.gateway.cast(GatewayMessage::Frame(frame));
        }
    }

    fn reconnect(&self, peer: NodeId) {
        if let Some(route) = self.route(peer) {
            route.session.stop(Some("the peer is silent".to_owned()));
        }
    }
}

/// The transport of one node.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    connector: Address<ConnectorMessage>,
    tree: TreeHandle,
}

impl Transport {
    /// The transport that gives what arrives to `links`. Nothing runs before the children of [`Self::specs`] do.
    pub fn new(config: TransportConfig, tree: &TreeHandle, links: &Links) -> Self {
        let shared = Shared {
            config,
            links: links.clone(),
            routes: RwLock::default(),
            sessions: RwLock::default(),
            session_number: AtomicU64::new(1),
        };
        let connector = tree.seat("connector", Some(SUPERVISOR));
        Self { shared: Arc::new(shared), connector, tree: tree.clone() }
    }

    /// The way out for `Env`.
    pub fn peers(&self) -> Arc<dyn PeerLink> {
        Arc::clone(&self.shared) as Arc<dyn PeerLink>
    }

    /// The children of the supervisor `links`, to be started in this order.
    pub fn specs(&self) -> Vec<ChildSpec> {
        let links = self.shared.links.clone();
        let gateway =
            ChildSpec::plain(self.tree.plain("gateway", Some(SUPERVISOR)), Restart::VITAL, move |_, supervisor| {
                GatewayActor::spawn(links.clone(), supervisor)
            });
        let arguments = SessionsArguments { shared: Arc::clone(&self.shared), connector: self.connector.clone() };
        let sessions =
            ChildSpec::plain(self.tree.plain("sessions", Some(SUPERVISOR)), Restart::VITAL, move |_, supervisor| {
                SessionsActor::spawn(arguments.clone(), supervisor)
            });
        let shared = Arc::clone(&self.shared);
        let connector = ChildSpec::new(&self.connector, Restart::VITAL, move || (ConnectorActor, Arc::clone(&shared)));
        vec![gateway, sessions, connector]
    }
}
