//! `peer-link-N`: runs one end of the link to node N.
//!
//! Parent: `links`. It receives what this node sends to N, frames of N from the transport, and its own ticks; it sends
//! frames through `env.peers`, hands what arrives to `Inbound` and answers callers. A restart, like its end when N leaves
//! the cluster, loses what was queued and fails the calls that waited; to the peer it is a new life of the link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::id::{NodeId, ShardId};
use millpond::limits::{FRAME_BYTES_MAX, LINK_HEARTBEAT, LINK_LINGER, LINK_NEWS_LINGER};
use millpond::link::{CallFailure, Effect, Event, Fault, Header, Life, Link, Method, State};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{Answer, CallError, Inbound, PeerReport, PeerState};
use crate::env::{Env, Frame};
use crate::supervision::{Actor, ActorError, Own};

/// Ticks between two looks at what this node says about itself.
const HELLO_TICKS: u64 = 4;

/// What a peer-link does.
pub enum PeerLinkMessage {
    /// Time has passed.
    Tick,
    /// Send what is queued.
    Flush,
    /// The transport has a fresh connection.
    Opened,
    /// This node has something to say about itself.
    News,
    /// Say it.
    Tell,
    /// A frame came.
    Frame {
        /// Its header.
        header: Box<Header>,
        /// Its payload.
        payload: Bytes,
    },
    /// Send a Raft message.
    Raft {
        /// Its group.
        shard: ShardId,
        /// Its bytes.
        message: Bytes,
        /// Whether it travels ahead of bulk.
        control: bool,
    },
    /// Call the peer.
    Call {
        /// What is asked.
        method: Method,
        /// With what.
        body: Bytes,
        /// How long the caller waits.
        deadline: Duration,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Bytes, CallError>>,
    },
    /// The outcome of a call that the peer made.
    Answer {
        /// The peer's life when it called.
        life: Life,
        /// Its number.
        call: u64,
        /// The outcome.
        outcome: Result<Bytes, Fault>,
    },
    /// What the node thinks of the peer's hello.
    Judged {
        /// The life that was judged.
        life: Life,
        /// Accepted, or why not.
        verdict: Result<(), String>,
    },
}

/// Runs one end of a link.
#[derive(Debug)]
pub struct PeerLinkActor;

/// What a peer-link starts from.
pub struct PeerLinkArguments {
    /// The node at the other end.
    pub peer: NodeId,
    /// Clock and transport.
    pub env: Env,
    /// What is done with what arrives.
    pub inbound: Arc<dyn Inbound>,
    /// Where it shows how it stands.
    pub report: watch::Sender<PeerReport>,
}

/// Whether a flush is under way to the own mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    None,
    /// Behind what waits in the mailbox.
    Queued,
    /// After the linger.
    Later,
}

/// One life of a peer-link.
pub struct PeerLinkState {
    arguments: PeerLinkArguments,
    link: Link,
    effects: Vec<Effect>,
    /// Whether something waited for credit after the last step.
    starved: bool,
    started: Instant,
    flush: Flush,
    flushed: Instant,
    /// Whether news will be told in a moment.
    telling: bool,
    ticks: u64,
    calls: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>,
}

impl Actor for PeerLinkActor {
    type Message = PeerLinkMessage;
    type Arguments = PeerLinkArguments;
    type State = PeerLinkState;

    async fn pre_start(
        &self,
        myself: &Own<PeerLinkMessage>,
        arguments: PeerLinkArguments,
    ) -> Result<PeerLinkState, ActorError> {
        let life = Life { boot: arguments.env.boot, incarnation: myself.incarnation().0 };
        let credit = arguments.env.knobs.link_credit_bytes;
        let link = Link::new(arguments.env.node, arguments.peer, life, arguments.inbound.our_hello(), credit);
        let now = Instant::now();
        let mut state = PeerLinkState {
            arguments,
            link,
            effects: Vec::new(),
            starved: false,
            started: now,
            flush: Flush::None,
            flushed: now,
            telling: false,
            ticks: 0,
            calls: 0,
            waiting: BTreeMap::new(),
        };
        state.advance(myself, Event::Opened);
        state.show(None);
        myself.cast_every(LINK_HEARTBEAT, || PeerLinkMessage::Tick);
        let (watcher, mut news) = (myself.clone(), state.arguments.inbound.news());
        tokio::spawn(async move {
            // Ends with this life of the actor, or with the node.
            while news.changed().await.is_ok() && watcher.cast(PeerLinkMessage::News).is_ok() {}
        });
        Ok(state)
    }

    async fn handle(
        &self,
        myself: &Own<PeerLinkMessage>,
        message: PeerLinkMessage,
        state: &mut PeerLinkState,
    ) -> Result<(), ActorError> {
        match message {
            PeerLinkMessage::Tick => state.tick(myself),
            PeerLinkMessage::Flush => {
                state.flush = Flush::None;
                state.flushed = Instant::now();
                state.advance(myself, Event::Flush);
            }
            PeerLinkMessage::Opened => {
                state.advance(myself, Event::Hello(state.arguments.inbound.our_hello()));
                state.advance(myself, Event::Opened);
            }
            PeerLinkMessage::News => {
                if !std::mem::replace(&mut state.telling, true) {
                    drop(myself.cast_after(LINK_NEWS_LINGER, PeerLinkMessage::Tell));
                }
            }
            PeerLinkMessage::Tell => {
                state.telling = false;
                state.advance(myself, Event::Hello(state.arguments.inbound.our_hello()));
            }
            PeerLinkMessage::Frame { header, payload } => {
                state.advance(myself, Event::Frame { header: *header, payload });
            }
            PeerLinkMessage::Raft { shard, message, control } => {
                state.advance(myself, Event::Raft { shard, message, control });
                state.schedule_flush(myself);
            }
            PeerLinkMessage::Call { method, body, deadline, reply } => {
                state.calls += 1;
                state.waiting.insert(state.calls, reply);
                let (call, deadline) = (state.calls, state.started.elapsed() + deadline);
                state.advance(myself, Event::Call { call, method, body, deadline });
                state.schedule_flush(myself);
            }
            PeerLinkMessage::Answer { life, call, outcome } => {
                state.advance(myself, Event::Answer { life, call, outcome });
                state.schedule_flush(myself);
            }
            PeerLinkMessage::Judged { life, verdict } => state.advance(myself, Event::Judged { life, verdict }),
        }
        Ok(())
    }

    async fn post_stop(&self, _: &Own<PeerLinkMessage>, state: &mut PeerLinkState) -> Result<(), ActorError> {
        state.show(Some(PeerState::Closed));
        state.arguments.inbound.changed(state.arguments.peer, PeerState::Closed);
        Ok(())
    }
}

impl PeerLinkState {
    fn tick(&mut self, myself: &Own<PeerLinkMessage>) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(HELLO_TICKS) {
            self.advance(myself, Event::Hello(self.arguments.inbound.our_hello()));
        }
        self.advance(myself, Event::Tick);
        self.show(None);
    }

    /// Steps the link once and carries out what it asks.
    fn advance(&mut self, myself: &Own<PeerLinkMessage>, event: Event) {
        assert!(self.effects.is_empty(), "effects are carried out before the next step");
        let mut effects = std::mem::take(&mut self.effects);
        self.link.step(self.started.elapsed(), event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(myself, effect);
        }
        self.effects = effects;
        let starved = self.link.is_starved();
        if starved && !self.starved {
            tracing::debug!(peer = %self.arguments.peer, queued = self.link.queued(), "bulk waits for credit");
        }
        self.starved = starved;
    }

    fn carry_out(&mut self, myself: &Own<PeerLinkMessage>, effect: Effect) {
        let PeerLinkArguments { peer, env, inbound, .. } = &self.arguments;
        let peer = *peer;
        match effect {
            Effect::Send { header, payload } => env.peers.send(peer, Frame { header, payload }),
            Effect::Judge { life, hello } => {
                let verdict = inbound.hello(peer, hello);
                // Refused only when this life ends, and the verdict with it.
                let _ = myself.cast(PeerLinkMessage::Judged { life, verdict });
            }
            Effect::Raft(batch) => inbound.raft(peer, batch),
            Effect::Request { life, call, method, body } => {
                inbound.call(peer, method, body, Answer::new(myself.address(), life, call));
            }
            Effect::Answered { call, outcome } => {
                if let Some(reply) = self.waiting.remove(&call) {
                    // A caller that gave up does not listen any more.
                    let _ = reply.send(outcome.map_err(|failure| call_error(peer, failure)));
                }
            }
            Effect::Changed(state) => {
                let state = peer_state(state);
                tracing::info!(%peer, ?state, "link changed");
                myself.detail("link", format_args!("{state:?}"));
                inbound.changed(peer, state.clone());
                self.show(Some(state));
            }
            Effect::Restarted(boot) => {
                tracing::info!(%peer, %boot, "peer restarted");
                inbound.restarted(peer, boot);
            }
            Effect::Reconnect => env.peers.reconnect(peer),
            Effect::Dropped { shard } => tracing::debug!(%peer, %shard, "raft message dropped"),
            Effect::Rejected(error) => tracing::debug!(%peer, %error, "frame dropped"),
        }
    }

    /// At the end of a burst of messages, and never sooner than the linger after the last flush, unless a frame is full.
    fn schedule_flush(&mut self, myself: &Own<PeerLinkMessage>) {
        let queued = self.link.queued();
        if queued == 0 || self.flush == Flush::Queued || *self.link.state() != State::Connected {
            return;
        }
        let rested = self.flushed.elapsed();
        if rested >= LINK_LINGER || (queued >= FRAME_BYTES_MAX && !self.link.is_starved()) {
            self.flush = Flush::Queued;
            // Refused only when this life ends, and its queue with it.
            let _ = myself.cast(PeerLinkMessage::Flush);
        } else if self.flush == Flush::None {
            self.flush = Flush::Later;
            drop(myself.cast_after(LINK_LINGER - rested, PeerLinkMessage::Flush));
        }
    }

    fn show(&self, state: Option<PeerState>) {
        let report = self.link.report();
        let now = self.arguments.env.clock.now();
        self.arguments.report.send_modify(|shown| {
            let state = state.unwrap_or_else(|| peer_state(report.state));
            if shown.state != state {
                (shown.state, shown.since) = (state, now);
            }
            shown.boot = report.life.map(|life| life.boot);
            shown.credit_outstanding = report.outstanding;
            shown.queued_bytes = report.queued;
            shown.calls_waiting = report.calls;
            shown.round_trip_micros = report.round_trip.and_then(|trip| u64::try_from(trip.as_micros()).ok());
            shown.frames = [report.counters.frames_sent, report.counters.frames_received];
            shown.bytes = [report.counters.bytes_sent, report.counters.bytes_received];
            shown.dropped = report.counters.dropped;
            shown.rejected = report.counters.rejected;
            shown.lost_bytes = report.counters.lost_bytes;
        });
    }
}

fn peer_state(state: State) -> PeerState {
    match state {
        State::Connecting => PeerState::Connecting,
        State::Connected => PeerState::Connected,
        State::Suspected => PeerState::Suspected,
        State::Refused { by_us: true, reason } => PeerState::Refused(reason),
        State::Refused { by_us: false, reason } => PeerState::Refused(format!("it refuses this node: {reason}")),
    }
}

fn call_error(node: NodeId, failure: CallFailure) -> CallError {
    match failure {
        CallFailure::Unreachable => CallError::Unreachable(node),
        CallFailure::Unknown => CallError::Timeout(node),
        CallFailure::Overloaded => CallError::Overloaded(node),
        CallFailure::TooLarge => CallError::TooLarge(node),
        CallFailure::Fault(fault) => CallError::Fault { node, fault },
    }
}
