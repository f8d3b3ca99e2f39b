//! `connector`: listens for the other nodes and dials them.
//!
//! Parent: `links`. It receives word from `sessions` when a peer is up or down, the outcomes of its own dials, and word
//! when the peers are others than before; it sends connections to `sessions`. Of two nodes the lower dials and the
//! higher knocks, each as long as they are not connected, with backoff; a knock makes the lower dial at once, and so
//! does a peer that is new. A restart closes the listening socket for a moment and begins with the peers of then.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use millpond::id::NodeId;
use millpond::limits::{ACCEPT_RETRY, DIAL_DEADLINE, PEER_ARRIVALS_MAX, REDIAL_BACKOFF};
use ractor_cluster::NodeServerMessage;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Shared;
use super::preamble::{PREAMBLE_BYTES, Preamble, Purpose, Turned, cluster_number};
use super::stream::PeerStream;
use crate::supervision::{Actor, ActorError, Own};

/// What a connector is told.
#[derive(Debug)]
pub(super) enum ConnectorMessage {
    /// A peer's gateway can be reached.
    Up(NodeId),
    /// It cannot any more.
    Down(NodeId),
    /// A peer asks to be dialled.
    Knocked(NodeId),
    /// The wait before the next attempt is over.
    Again(NodeId),
    /// A dial or a knock is done.
    Tried(NodeId, Result<(), DialError>),
    /// The peers are others than before, or elsewhere.
    PeersChanged,
}

/// Why a peer was not reached.
#[derive(Debug, Error)]
pub(super) enum DialError {
    /// The network said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither connected nor answered in time.
    #[error("no answer within {DIAL_DEADLINE:?}")]
    Deadline,
    /// The node there would not have it.
    #[error("turned away: {0}")]
    Turned(Box<str>),
}

/// Listens and dials.
#[derive(Debug)]
pub(super) struct ConnectorActor;

#[derive(Default)]
struct Peer {
    address: String,
    connected: bool,
    trying: bool,
    attempts: u32,
    again: Option<JoinHandle<()>>,
}

/// One life of a connector.
pub(super) struct ConnectorState {
    shared: Arc<Shared>,
    peers: BTreeMap<NodeId, Peer>,
    listening: JoinHandle<()>,
    following: JoinHandle<()>,
}

impl Drop for ConnectorState {
    fn drop(&mut self) {
        self.listening.abort();
        self.following.abort();
    }
}

impl Actor for ConnectorActor {
    type Message = ConnectorMessage;
    type Arguments = Arc<Shared>;
    type State = ConnectorState;

    async fn pre_start(
        &self,
        myself: &Own<ConnectorMessage>,
        shared: Arc<Shared>,
    ) -> Result<ConnectorState, ActorError> {
        let listen_at = shared.config.listen;
        let listener = TcpListener::bind(listen_at)
            .await
            .map_err(|error| format!("cannot listen for peers at {listen_at}: {error}"))?;
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared), myself.clone()));
        let (mut known, follower) = (shared.links.known(), myself.clone());
        let following = tokio::spawn(async move {
            while known.changed().await.is_ok() && follower.cast(ConnectorMessage::PeersChanged).is_ok() {}
        });
        let mut state = ConnectorState { shared, peers: BTreeMap::new(), listening, following };
        state.follow(myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: &Own<ConnectorMessage>,
        message: ConnectorMessage,
        state: &mut ConnectorState,
    ) -> Result<(), ActorError> {
        match message {
            ConnectorMessage::Up(node) => state.up(node),
            ConnectorMessage::Down(node) => state.down(myself, node),
            ConnectorMessage::Knocked(node) | ConnectorMessage::Again(node) => state.attempt(myself, node),
            ConnectorMessage::Tried(node, outcome) => state.tried(myself, node, outcome),
            ConnectorMessage::PeersChanged => state.follow(myself),
        }
        Ok(())
    }
}

impl ConnectorState {
    /// Parts with nodes that are no peers any more, and tries at once those that are new or have another address.
    fn follow(&mut self, myself: &Own<ConnectorMessage>) {
        self.shared.part_with_strangers();
        let addresses = self.shared.links.known().borrow().addresses();
        self.peers.retain(|node, _| addresses.contains_key(node));
        for (node, address) in addresses {
            let connected = self.shared.route(node).is_some();
            let peer = self.peers.entry(node).or_insert_with(|| Peer { connected, ..Peer::default() });
            if peer.address != address {
                (peer.address, peer.attempts) = (address, 0);
                self.attempt(myself, node);
            }
        }
    }

    fn up(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        (peer.connected, peer.attempts) = (true, 0);
        if let Some(again) = peer.again.take() {
            again.abort();
        }
    }

    fn down(&mut self, myself: &Own<ConnectorMessage>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = false;
        self.try_later(myself, node, None);
    }

    fn attempt(&mut self, myself: &Own<ConnectorMessage>, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.connected || peer.trying {
            return;
        }
        if let Some(again) = peer.again.take() {
            again.abort();
        }
        peer.trying = true;
        let (shared, address, myself) = (Arc::clone(&self.shared), peer.address.clone(), myself.clone());
        tokio::spawn(async move {
            let dialling = dial(&shared, node, &address);
            let outcome = tokio::time::timeout(DIAL_DEADLINE, dialling).await.unwrap_or(Err(DialError::Deadline));
            // A connector that ended has no use for it.
            let _ = myself.cast(ConnectorMessage::Tried(node, outcome));
        });
    }

    fn tried(&mut self, myself: &Own<ConnectorMessage>, node: NodeId, outcome: Result<(), DialError>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.trying = false;
        if peer.connected {
            return;
        }
        match outcome {
            // The handshake, or the peer's dial, has its time now.
            Ok(()) => self.try_later(myself, node, Some(2 * DIAL_DEADLINE)),
            Err(error) => {
                let why = format!("{}: {error}", peer.address);
                tracing::debug!(%node, error = %why, "peer not reached");
                self.shared.links.unconnected(node, &why);
                self.try_later(myself, node, None);
            }
        }
    }

    /// Plans the next attempt: after `wait`, or after a backoff that doubles, with jitter of a half.
    fn try_later(&mut self, myself: &Own<ConnectorMessage>, node: NodeId, wait: Option<Duration>) {
        let random = &self.shared.config.random;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let wait = wait.unwrap_or_else(|| {
            let (first, longest) = REDIAL_BACKOFF;
            let full = first.saturating_mul(1 << peer.attempts.min(16)).min(longest);
            peer.attempts += 1;
            let jitter = u32::try_from(random.draw() % 512).expect("below 512");
            full / 2 + full / 1_024 * jitter
        });
        if let Some(before) = peer.again.replace(myself.cast_after(wait, ConnectorMessage::Again(node))) {
            before.abort();
        }
    }
}

/// Connects to a peer and says who is there; as the lower node it hands the connection to `sessions`.
async fn dial(shared: &Shared, peer: NodeId, address: &str) -> Result<(), DialError> {
    let config = &shared.config;
    let purpose = if config.node < peer { Purpose::Session } else { Purpose::Knock };
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let cluster = cluster_number(&config.cluster);
    stream.write_all(&Preamble { purpose, from: config.node, to: peer, cluster }.encode()).await?;
    if let Some(turned) = Turned::of(stream.read_u8().await?) {
        return Err(DialError::Turned(turned.to_string().into()));
    }
    if purpose == Purpose::Session {
        hand_over(shared, stream, peer, false);
    }
    Ok(())
}

fn hand_over(shared: &Shared, stream: TcpStream, peer: NodeId, is_server: bool) {
    if let Some(sessions) = shared.sessions() {
        let stream = PeerStream::new(stream, peer);
        // While `sessions` restarts the connection is dropped, and dialled again.
        let _ = sessions.cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server });
    }
}

/// Takes connections, a bounded number at a time until they have said who they are.
async fn listen(listener: TcpListener, shared: Arc<Shared>, connector: Own<ConnectorMessage>) {
    let arrivals = Arc::new(Semaphore::new(PEER_ARRIVALS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&arrivals).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a peer's connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (shared, connector) = (Arc::clone(&shared), connector.clone());
        tokio::spawn(async move {
            let welcoming = welcome(stream, &shared, &connector);
            match tokio::time::timeout(DIAL_DEADLINE, welcoming).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not welcomed"),
                Err(_) => tracing::debug!("a connection did not say who it is in time"),
            }
            drop(permit);
        });
    }
}

/// Hears who is there and lets it in, or says why not.
async fn welcome(mut stream: TcpStream, shared: &Shared, connector: &Own<ConnectorMessage>) -> Result<(), DialError> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let preamble = match Preamble::decode(&bytes).and_then(|preamble| judge(shared, preamble)) {
        Ok(preamble) => preamble,
        Err(turned) => {
            stream.write_u8(turned as u8).await?;
            tracing::warn!(reason = %turned, "a node was turned away");
            return Ok(());
        }
    };
    stream.write_u8(0).await?;
    match preamble.purpose {
        Purpose::Session => hand_over(shared, stream, preamble.from, true),
        // A connector that ended dials when it starts again.
        Purpose::Knock => drop(connector.cast(ConnectorMessage::Knocked(preamble.from))),
    }
    Ok(())
}

fn judge(shared: &Shared, preamble: Preamble) -> Result<Preamble, Turned> {
    let config = &shared.config;
    let lower = preamble.from < config.node;
    if preamble.cluster != cluster_number(&config.cluster) {
        Err(Turned::WrongCluster)
    } else if preamble.to != config.node {
        Err(Turned::WrongNode)
    } else if !shared.links.knows(preamble.from) {
        Err(Turned::UnknownNode)
    } else if lower != (preamble.purpose == Purpose::Session) {
        Err(Turned::WrongWay)
    } else {
        Ok(preamble)
    }
}
