//! `sessions`: stands where ractor_cluster's node server would, for sessions of known peers.
//!
//! Parent: `links`. It receives connections from the connector, word of the sessions' handshakes from the sessions, and
//! the gateways' comings and goings from the process group; it publishes the way to each peer's gateway and tells the
//! connector when it is lost. A restart ends all sessions, which are dialled again.
//!
//! A session's peer is named three times: by the preamble, by the name in the handshake, and by each frame's header.
//! The first two must agree here; the link holds the third against itself.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use millpond::id::{Boot, NodeId};
use millpond::limits::{DIAL_DEADLINE, FRAME_BYTES_MAX, HANDSHAKES_PER_PEER_MAX};
use prost::Message;
use ractor::pg::GroupChangeMessage;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use ractor_cluster::node::{NodeConnectionMode, SessionCheckReply};
use ractor_cluster::{ClusterBidiStream, NetworkStream, NodeServerMessage, NodeSession, NodeSessionMessage};

use super::connector::ConnectorMessage;
use super::gateway::GROUP;
use super::{NO_PEER, Route, Shared};
use crate::supervision::Address;

/// The envelope of ractor_cluster around a frame's header and payload.
const ENVELOPE_BYTES_MAX: u64 = 4 << 10;

/// ractor_cluster's name of a node, which it does not export: it is handed over as bytes.
#[derive(Clone, PartialEq, Message)]
struct NodeName {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    flags: Option<NodeFlags>,
    #[prost(string, tag = "3")]
    connection_string: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeFlags {
    #[prost(uint32, tag = "1")]
    version: u32,
}

fn session_name(node: NodeId, boot: Boot) -> String {
    format!("millpond-{node}-{boot}")
}

/// The node and boot in a session's name.
fn parse_name(name: &str) -> Option<(NodeId, Boot)> {
    let (node, boot) = name.strip_prefix("millpond-")?.split_once('-')?;
    Some((NodeId(node.parse().ok()?), Boot(boot.parse().ok()?)))
}

fn own_name<M: Message + Default>(node: NodeId, boot: Boot) -> M {
    let name = session_name(node, boot);
    let message = NodeName { connection_string: name.clone(), name, flags: Some(NodeFlags { version: 1 }) };
    M::decode(message.encode_to_vec().as_slice()).expect("the fields are those of ractor_cluster's own message")
}

/// What `sessions` starts from.
#[derive(Clone)]
pub(super) struct SessionsArguments {
    pub(super) shared: Arc<Shared>,
    pub(super) connector: Address<ConnectorMessage>,
}

pub(super) struct SessionsActor;

struct Session {
    actor: ActorRef<NodeSessionMessage>,
    /// What tells its remote actors from those of other sessions.
    number: u64,
    /// Whom the preamble named.
    peer: NodeId,
    boot: Option<Boot>,
    authenticated: bool,
    ready: bool,
}

pub(super) struct SessionsState {
    arguments: SessionsArguments,
    sessions: BTreeMap<ActorId, Session>,
}

impl SessionsActor {
    pub(super) async fn spawn(arguments: SessionsArguments, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let (sessions, _ends) = Actor::spawn_linked(None, Self, arguments, supervisor).await?;
        Ok(sessions.get_cell())
    }
}

impl Actor for SessionsActor {
    type Msg = NodeServerMessage;
    type Arguments = SessionsArguments;
    type State = SessionsState;

    async fn pre_start(
        &self,
        myself: ActorRef<NodeServerMessage>,
        arguments: SessionsArguments,
    ) -> Result<SessionsState, ActorProcessingErr> {
        ractor::pg::monitor(GROUP.to_owned(), myself.get_cell());
        // A life before this one took its sessions with it.
        arguments.shared.routes.write().unwrap_or_else(PoisonError::into_inner).clear();
        for peer in arguments.shared.links.known().borrow().addresses().into_keys() {
            let _ = arguments.connector.cast(ConnectorMessage::Down(peer));
        }
        *arguments.shared.sessions.write().unwrap_or_else(PoisonError::into_inner) = Some(myself);
        Ok(SessionsState { arguments, sessions: BTreeMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<NodeServerMessage>,
        message: NodeServerMessage,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeServerMessage::ConnectionOpenedExternal { stream, is_server } => {
                state.open(&myself, stream, is_server).await;
            }
            NodeServerMessage::UpdateSession { actor_id, name } => state.named(actor_id, &name.name),
            NodeServerMessage::CheckSession { peer_name, reply } => {
                let verdict = if state.is_welcome(&peer_name.name) {
                    SessionCheckReply::ThisConnectionContinues
                } else {
                    SessionCheckReply::OtherConnectionContinues
                };
                // A session that ended meanwhile does not listen.
                let _ = reply.send(verdict);
            }
            NodeServerMessage::ConnectionAuthenticated(session) => state.authenticated(session),
            NodeServerMessage::ConnectionReady(session) => state.ready(session),
            // Peers are never learnt from each other.
            NodeServerMessage::GetSessions(reply) => drop(reply.send(Default::default())),
            NodeServerMessage::ConnectionOpened { .. }
            | NodeServerMessage::SubscribeToEvents { .. }
            | NodeServerMessage::UnsubscribeToEvents(_)
            | NodeServerMessage::PortChanged { .. } => {
                tracing::warn!("the session server was sent what it does not do")
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<NodeServerMessage>,
        event: SupervisionEvent,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(session, error) => state.ended(session.get_id(), &error.to_string()),
            SupervisionEvent::ActorTerminated(session, _, reason) => {
                state.ended(session.get_id(), reason.as_deref().unwrap_or("closed"));
            }
            SupervisionEvent::ProcessGroupChanged(GroupChangeMessage::Join(_, _, gateways)) => {
                state.gateways_came(&gateways);
            }
            SupervisionEvent::ProcessGroupChanged(GroupChangeMessage::Leave(..))
            | SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::PidLifecycleEvent(_) => {}
        }
        Ok(())
    }
}

impl SessionsState {
    async fn open(
        &mut self,
        myself: &ActorRef<NodeServerMessage>,
        stream: Box<dyn ClusterBidiStream>,
        is_server: bool,
    ) {
        let label = stream.peer_label();
        let Some(peer) = label.as_deref().and_then(|label| label.parse().ok()).map(NodeId) else { return };
        if !self.arguments.shared.links.knows(peer) {
            // It was let in, or dialled, a moment before it ceased to be a peer.
            return;
        }
        let handshakes = self.sessions.values().filter(|session| session.peer == peer && !session.ready).count();
        if handshakes >= HANDSHAKES_PER_PEER_MAX {
            tracing::warn!(%peer, handshakes, "a connection is dropped: too many have not finished their handshake");
            return;
        }
        let config = &self.arguments.shared.config;
        let number = self.arguments.shared.session_number.fetch_add(1, Ordering::Relaxed);
        let name = own_name(config.node, config.boot);
        let cookie = config.cookie.clone();
        let session = NodeSession::new(number, is_server, cookie, myself.clone(), name, NodeConnectionMode::Isolated)
            .with_max_inbound_frame_size(FRAME_BYTES_MAX as u64 + ENVELOPE_BYTES_MAX);
        let (reader, writer) = stream.split();
        let stream = NetworkStream::External { peer_label: label, local_label: None, reader, writer };
        match Actor::spawn_linked(None, session, stream, myself.get_cell()).await {
            Ok((actor, _ends)) => {
                stop_unless_ready(actor.clone(), DIAL_DEADLINE);
                let session = Session { actor, number, peer, boot: None, authenticated: false, ready: false };
                self.sessions.insert(session.actor.get_id(), session);
            }
            Err(error) => tracing::warn!(%peer, %error, "a session did not start"),
        }
    }

    /// The handshake named a peer: it must be the one the preamble named.
    fn named(&mut self, id: ActorId, name: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match parse_name(name) {
            Some((node, boot)) if node == session.peer => session.boot = Some(boot),
            Some(_) | None => {
                let why = format!("the node there calls itself {name:?}");
                self.arguments.shared.links.unconnected(session.peer, &why);
                session.actor.stop(Some(why));
            }
        }
    }

    /// Whether a node of that name may connect: a peer, and not an earlier life of one that is connected.
    fn is_welcome(&self, name: &str) -> bool {
        let Some((node, boot)) = parse_name(name) else { return false };
        let newer = self.sessions.values().any(|session| {
            session.authenticated && session.peer == node && session.boot.is_some_and(|connected| connected > boot)
        });
        self.arguments.shared.links.knows(node) && !newer
    }

    /// The newest session of a peer wins: the one before is broken, or the peer would not have made another.
    fn authenticated(&mut self, id: ActorId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.authenticated = true;
        let peer = session.peer;
        for (other, session) in &self.sessions {
            if *other != id && session.authenticated && session.peer == peer {
                session.actor.stop(Some("a newer session took its place".to_owned()));
            }
        }
    }

    fn ready(&mut self, id: ActorId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.ready = true;
        let number = session.number;
        let members = ractor::pg::get_members(&GROUP.to_owned());
        let gateways: Vec<_> = members.into_iter().filter(|cell| is_of(cell, number)).collect();
        self.gateways_came(&gateways);
    }

    /// Remote gateways appeared: each becomes the way to its peer, if its session is ready.
    fn gateways_came(&mut self, gateways: &[ActorCell]) {
        for gateway in gateways {
            let session = self.sessions.values().find(|session| session.ready && is_of(gateway, session.number));
            let Some(session) = session else { continue };
            let route = Route { session: session.actor.clone(), gateway: gateway.clone().into() };
            let shared = &self.arguments.shared;
            shared.set_route(session.peer, Some(route));
            if !shared.links.knows(session.peer) {
                // Asked after the route is there: who is removed later is parted with by the connector, which sees it.
                session.actor.stop(Some(NO_PEER.to_owned()));
                continue;
            }
            tracing::info!(peer = %session.peer, session = session.number, "connected");
            shared.links.opened(session.peer);
            // The connector, if it is not there, asks for the routes when it starts.
            let _ = self.arguments.connector.cast(ConnectorMessage::Up(session.peer));
        }
    }

    fn ended(&mut self, id: ActorId, reason: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let SessionsArguments { shared, connector } = &self.arguments;
        tracing::info!(peer = %session.peer, session = session.number, reason, "session ended");
        if !session.ready {
            let hint = "the connection closed during the handshake: is the cookie the same on both nodes?";
            shared.links.unconnected(session.peer, hint);
        }
        let routed = shared.route(session.peer);
        if routed.as_ref().is_some_and(|route| route.session.get_id() == id) {
            shared.set_route(session.peer, None);
        } else if routed.is_some() {
            // Another session has its place already.
            return;
        }
        // The connector, if it is not there, asks for the routes when it starts.
        let _ = connector.cast(ConnectorMessage::Down(session.peer));
    }
}

/// Whether a gateway is reached through the session of that number.
fn is_of(gateway: &ActorCell, number: u64) -> bool {
    matches!(gateway.get_id(), ActorId::Remote { node_id, .. } if node_id == number)
}

/// Ends a session that has not exchanged its state with the peer in time.
fn stop_unless_ready(session: ActorRef<NodeSessionMessage>, within: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(within).await;
        let ready = ractor::call_t!(session, NodeSessionMessage::GetReadyState, 1_000);
        if !matches!(ready, Ok(true)) {
            session.stop(Some("the handshake took too long".to_owned()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_name_reads_back() {
        assert_eq!(parse_name(&session_name(NodeId(3), Boot(77))), Some((NodeId(3), Boot(77))));
        for strange in ["", "millpond-", "millpond-1", "millpond-x-1", "millpond-1-", "other-1-2"] {
            assert_eq!(parse_name(strange), None, "{strange}");
        }
    }
}
