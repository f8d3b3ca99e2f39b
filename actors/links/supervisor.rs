//! `links`: supervises one `peer-link-N` for each other node that this one knows, and the transport.
//!
//! Parent: `node`. It follows the state of the metadata group on the board: a node that is new gets its peer-link, one
//! that was removed loses it a moment later, in which the hellos tell it so, and whatever watches [`Links`] hears of both. A
//! restart starts all of them anew, for the peers that there are by then.

use std::sync::Arc;

use millpond::cluster::Cluster;
use millpond::limits;
use tokio::sync::watch;

use super::{Inbound, Links, PeerState};
use crate::env::Env;
use crate::supervision::{Actor, ActorError, ChildSpec, Children, Own};

/// What the supervisor of all links is told.
#[derive(Debug)]
pub enum LinksMessage {
    /// The metadata group applied something: see who the peers are.
    ClusterChanged,
    /// Whoever was removed had time to hear of it.
    Farewell,
}

/// Supervises the links of a node.
#[derive(Debug)]
pub struct LinksActor;

/// What the supervisor of all links starts from.
pub struct LinksArguments {
    /// The links.
    pub links: Links,
    /// Clock and transport, for the peer-links.
    pub env: Env,
    /// What is done with what arrives.
    pub inbound: Arc<dyn Inbound>,
    /// The state of the metadata group, as last applied on this node.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// What carries frames, in the order of its start; nothing where something else does.
    pub transport: Vec<ChildSpec>,
}

/// The state of the supervisor.
pub struct LinksState {
    links: Links,
    env: Env,
    inbound: Arc<dyn Inbound>,
    cluster: watch::Receiver<Arc<Cluster>>,
    myself: Own<LinksMessage>,
    /// Whether a farewell is awaited. Who is new waits with it.
    parting: bool,
    children: Children,
}

impl Actor for LinksActor {
    type Message = LinksMessage;
    type Arguments = LinksArguments;
    type State = LinksState;

    async fn pre_start(&self, myself: &Own<LinksMessage>, arguments: LinksArguments) -> Result<LinksState, ActorError> {
        let LinksArguments { links, env, inbound, cluster, transport } = arguments;
        let (watcher, mut changes, mut heard) = (myself.clone(), cluster.clone(), links.heard());
        let (children, myself) = (Children::new(myself), myself.clone());
        let mut state = LinksState { links, env, inbound, cluster, myself, parting: false, children };
        // A life before this one may have missed that a node was removed.
        state.follow();
        for spec in state.links.specs(&state.env, &state.inbound).into_iter().chain(transport) {
            state.children.start(spec).await?;
        }
        tokio::spawn(async move {
            // Ends with this life of the actor, or with the board.
            loop {
                let changed = tokio::select! {
                    biased;
                    changed = changes.changed() => changed,
                    changed = heard.changed() => changed,
                };
                if changed.is_err() || watcher.cast(LinksMessage::ClusterChanged).is_err() {
                    return;
                }
            }
        });
        Ok(state)
    }

    async fn handle(
        &self,
        _: &Own<LinksMessage>,
        message: LinksMessage,
        state: &mut LinksState,
    ) -> Result<(), ActorError> {
        match message {
            LinksMessage::ClusterChanged if state.parting => {}
            LinksMessage::ClusterChanged if state.links.loses(&state.cluster.borrow()) => {
                state.parting = true;
                drop(state.myself.cast_after(limits::LINK_FAREWELL, LinksMessage::Farewell));
            }
            LinksMessage::ClusterChanged | LinksMessage::Farewell => {
                state.parting = false;
                if state.follow() {
                    for spec in state.links.specs(&state.env, &state.inbound) {
                        state.children.add(spec);
                    }
                }
            }
        }
        Ok(())
    }

    fn children<'s>(&self, state: &'s mut LinksState) -> Option<&'s mut Children> {
        Some(&mut state.children)
    }
}

impl LinksState {
    /// Brings the peers up to date and parts with those that are gone; whether anything changed.
    fn follow(&mut self) -> bool {
        let cluster = Arc::clone(&self.cluster.borrow());
        let change = self.links.follow(&cluster, self.env.clock.now());
        for (node, name) in &change.left {
            tracing::info!(%node, "a node is no peer any more");
            self.children.remove(name, "the node was removed from the cluster");
            // A peer-link that waits for its restart cannot say so itself.
            self.inbound.changed(*node, PeerState::Closed);
        }
        change.any
    }
}
