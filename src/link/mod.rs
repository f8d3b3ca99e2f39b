//! One end of the link between two nodes: events in, effects out.
//!
//! A link makes of a transport that may drop, repeat and reorder frames, and that never says when it fails, what the
//! rest of the node needs: Raft messages at most once, calls with an outcome, and an honest word on whether the peer is
//! there. It keeps these rules:
//!
//! - nothing but heartbeats moves before both ends accepted the other's hello, nor while the peer is suspected;
//! - each lane has at most its credit on its way, so a peer that stops makes nobody grow;
//! - every queue is bounded; what finds no room is dropped and counted (Raft sends it again) or fails (calls);
//! - an end that starts anew, with its process or alone, is a new life: nothing of an earlier one is taken.
//!
//! Lost frames take their credit with them. A heartbeat says what was sent; what had been sent by the heartbeat before
//! and did not come by then is forgiven, both ends learn of it, and calls under way fail with an unknown outcome.
//!
//! The room does not know what a hello says, what a message means, how a frame travels, nor what time it is: the caller
//! tells it with every event.

mod envelope;
mod error;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

pub use envelope::{Fault, FaultCode, Header, Heartbeat, Kind, Lane, Life, Method, VERSION};
pub use error::LinkError;
use incoming::{Incoming, split_batch};
use outgoing::{Cut, Letter, Outgoing, RAFT_PREFIX_BYTES};

use crate::id::{Boot, NodeId, ShardId};
use crate::limits::{
    CALLS_WAITING_MAX, FAULT_BYTES_MAX, FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, HELLO_EVERY, LINK_HEARTBEAT,
    LINK_SUSPECT_AFTER, MESSAGE_BYTES_MAX, REFUSAL_BYTES_MAX,
};

/// What a link is told.
#[derive(Debug)]
pub enum Event {
    /// Time has passed; at least every `LINK_HEARTBEAT`.
    Tick,
    /// The transport has a fresh connection; what was on its way on an older one is lost.
    Opened,
    /// What this node says about itself from now on.
    Hello(Bytes),
    /// The answer to `Effect::Judge`.
    Judged {
        /// The life that was judged.
        life: Life,
        /// Accepted, or why not.
        verdict: Result<(), String>,
    },
    /// A frame came.
    Frame {
        /// Its header.
        header: Header,
        /// Its payload.
        payload: Bytes,
    },
    /// A Raft message is to be sent. It waits for `Flush`.
    Raft {
        /// Its group.
        shard: ShardId,
        /// Its bytes.
        message: Bytes,
        /// Whether it travels ahead of bulk.
        control: bool,
    },
    /// A call is to be made. It waits for `Flush`.
    Call {
        /// A number not used before by this node's process.
        call: u64,
        /// What is asked.
        method: Method,
        /// With what.
        body: Bytes,
        /// When the caller gives up, on the link's clock.
        deadline: Duration,
    },
    /// The outcome of a call that `Effect::Request` brought. It waits for `Flush`.
    Answer {
        /// The life of the peer that called.
        life: Life,
        /// Its number.
        call: u64,
        /// What came of it.
        outcome: Result<Bytes, Fault>,
    },
    /// Send what is queued and has credit.
    Flush,
}

/// What a link asks for.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame.
    Send {
        /// Its encoded header.
        header: Bytes,
        /// Its payload.
        payload: Bytes,
    },
    /// Decide on the peer's hello and come back with `Event::Judged`.
    Judge {
        /// The life it belongs to.
        life: Life,
        /// What the peer says about itself.
        hello: Bytes,
    },
    /// Raft messages came.
    Raft(Vec<(ShardId, Bytes)>),
    /// The peer calls; come back with `Event::Answer`.
    Request {
        /// The peer's life.
        life: Life,
        /// Its number for the call.
        call: u64,
        /// What it asks.
        method: Method,
        /// With what.
        body: Bytes,
    },
    /// A call of this node has its outcome.
    Answered {
        /// Its number.
        call: u64,
        /// What came of it.
        outcome: Result<Bytes, CallFailure>,
    },
    /// The link's state is another.
    Changed(State),
    /// The peer's process is another than before.
    Restarted(Boot),
    /// Nothing was heard for too long: drop the connection, so that a fresh one can be made.
    Reconnect,
    /// A Raft message was dropped for want of room or of a peer.
    Dropped {
        /// Its group.
        shard: ShardId,
    },
    /// A frame was not taken.
    Rejected(LinkError),
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The request never left this node.
    Unreachable,
    /// The request left; whether it was carried out is not known.
    Unknown,
    /// Too many calls wait, or the queue is full; the request never left.
    Overloaded,
    /// The body is longer than `MESSAGE_BYTES_MAX`.
    TooLarge,
    /// The peer answered with a fault.
    Fault(Fault),
}

/// How a link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was heard yet, or the hellos are under way.
    Connecting,
    /// Both ends accepted each other.
    Connected,
    /// Silent for longer than `LINK_SUSPECT_AFTER`.
    Suspected,
    /// One end did not accept the other's hello.
    Refused {
        /// Whether it was this end that refused.
        by_us: bool,
        /// Why.
        reason: String,
    },
}

/// What a link counts, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub frames_sent: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Frames taken.
    pub frames_received: u64,
    /// Payload bytes taken.
    pub bytes_received: u64,
    /// Frames not taken: damaged, repeated, of an earlier life, unwelcome.
    pub rejected: u64,
    /// Raft messages and faults dropped before they left.
    pub dropped: u64,
    /// Bytes the peer sent that never came.
    pub lost_bytes: u64,
    /// Messages that lost a fragment.
    pub torn: u64,
}

/// What there is to see of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it stands.
    pub state: State,
    /// The peer's life, once heard.
    pub life: Option<Life>,
    /// Bulk bytes sent and not yet taken off by the peer; at most `LINK_CREDIT_BYTES`.
    pub outstanding: u64,
    /// Bytes that wait for credit or for a flush.
    pub queued: usize,
    /// Calls of this node that wait for an answer.
    pub calls: usize,
    /// The last measured time of a heartbeat there and back.
    pub round_trip: Option<Duration>,
    /// What was counted.
    pub counters: Counters,
}

/// What this end thinks of the peer's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Pending,
    Accepted,
    Refused(String),
}

/// All that is known of one life of the peer.
#[derive(Debug)]
struct Peer {
    life: Life,
    hello: Option<Bytes>,
    verdict: Verdict,
    /// What the peer thinks of our hello.
    welcome: Verdict,
    incoming: Incoming,
    /// Its calls that this node has not answered.
    serving: BTreeSet<u64>,
    /// The `at` of its last heartbeat and when it came.
    echo: Option<(u64, Duration)>,
    /// Frames of this end that it says never came.
    missed: u64,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    node: NodeId,
    peer_node: NodeId,
    life: Life,
    hello: Bytes,
    now: Duration,
    heard: Duration,
    heartbeat: Duration,
    heartbeats: u32,
    sequence: u64,
    state: State,
    peer: Option<Peer>,
    outgoing: Outgoing,
    /// The last flush left something for want of credit.
    starved: bool,
    /// What the last header said this end had received.
    told: [u64; 2],
    /// Calls that wait, with their deadlines.
    calls: BTreeMap<u64, Duration>,
    round_trip: Option<Duration>,
    counters: Counters,
    lost_before: (u64, u64),
}

impl Link {
    /// A link of `node` to `peer` in this `life`, at rest; `hello` is what the node says about itself. Each lane may have
    /// `credit_bytes` on its way: `LINK_CREDIT_BYTES`, and the same on both ends.
    #[must_use]
    pub fn new(node: NodeId, peer: NodeId, life: Life, hello: Bytes, credit_bytes: usize) -> Self {
        assert!(credit_bytes >= 2 * (FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES), "half of the credit holds a frame");
        assert!(node != peer, "a node has no link to itself");
        assert!(life.boot != Boot(0), "zero stands for a life not heard of");
        Self {
            node,
            peer_node: peer,
            life,
            hello,
            now: Duration::ZERO,
            heard: Duration::ZERO,
            heartbeat: Duration::ZERO,
            heartbeats: 0,
            sequence: 0,
            state: State::Connecting,
            peer: None,
            outgoing: Outgoing::new(credit_bytes),
            starved: false,
            told: [0; 2],
            calls: BTreeMap::new(),
            round_trip: None,
            counters: Counters::default(),
            lost_before: (0, 0),
        }
    }

    /// Takes one event at `now`, the time since any fixed start; a `now` before an earlier one counts as that.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        match event {
            Event::Tick => self.tick(effects),
            Event::Opened => {
                self.outgoing.forgive();
                if let Some(peer) = &mut self.peer {
                    peer.incoming.forget_partials();
                }
                self.send_heartbeat(effects);
            }
            Event::Hello(hello) if hello == self.hello => {}
            Event::Hello(hello) => {
                self.hello = hello;
                self.heartbeats = 0;
                self.send_heartbeat(effects);
            }
            Event::Judged { life, verdict } => self.judged(life, verdict, effects),
            Event::Frame { header, payload } => {
                if let Err(error) = self.frame(header, payload, effects) {
                    self.counters.rejected += 1;
                    effects.push(Effect::Rejected(error));
                }
            }
            Event::Raft { shard, message, control } => {
                let fits = message.len() + RAFT_PREFIX_BYTES <= MESSAGE_BYTES_MAX;
                if !(fits && self.state == State::Connected && self.outgoing.raft(shard, message, control)) {
                    self.counters.dropped += 1;
                    effects.push(Effect::Dropped { shard });
                }
            }
            Event::Call { call, method, body, deadline } => self.call(call, method, body, deadline, effects),
            Event::Answer { life, call, outcome } => self.answer(life, call, outcome),
            Event::Flush => self.pump(effects),
        }
        assert!(self.calls.len() <= CALLS_WAITING_MAX, "calls are refused above their bound");
    }

    /// How it stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Bytes that wait for credit or for a flush.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.outgoing.queued()
    }

    /// Whether the last flush left something for want of credit; it leaves by itself once credit comes.
    #[must_use]
    pub const fn is_starved(&self) -> bool {
        self.starved
    }

    /// What there is to see.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut counters = self.counters;
        let of_life = self.peer.as_ref().map_or((0, 0), |peer| (peer.incoming.lost, peer.incoming.torn));
        counters.lost_bytes = self.lost_before.0.saturating_add(of_life.0);
        counters.torn = self.lost_before.1 + of_life.1;
        Report {
            state: self.state.clone(),
            life: self.peer.as_ref().map(|peer| peer.life),
            outstanding: self.outgoing.outstanding(Lane::Bulk),
            queued: self.outgoing.queued(),
            calls: self.calls.len(),
            round_trip: self.round_trip,
            counters,
        }
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
        let silent = self.peer.is_some() && self.now.saturating_sub(self.heard) > LINK_SUSPECT_AFTER;
        if silent && self.state != State::Suspected {
            self.change(State::Suspected, effects);
            effects.push(Effect::Reconnect);
        }
        let now = self.now;
        let expired: Vec<u64> = self.calls.iter().filter(|(_, at)| **at <= now).map(|(call, _)| *call).collect();
        for call in expired {
            let unsent = self.outgoing.take_back(call);
            let failure = if unsent { CallFailure::Unreachable } else { CallFailure::Unknown };
            self.answered(call, Err(failure), effects);
        }
        if self.now >= self.heartbeat {
            self.send_heartbeat(effects);
        }
    }

    fn frame(&mut self, header: Header, payload: Bytes, effects: &mut Vec<Effect>) -> Result<(), LinkError> {
        if header.from != self.peer_node || header.to != self.node {
            return Err(LinkError::Misaddressed { from: header.from, to: header.to });
        }
        header.check(payload.len())?;
        self.meet(header.life, effects)?;
        let Some(peer) = &mut self.peer else { return Err(LinkError::Stale { life: header.life }) };
        peer.incoming.admit(header.sequence)?;
        let mut sent = header.sent;
        if mutant!(CreditNotReturned) && header.kind != Kind::Heartbeat && header.kind != Kind::Grant {
            let taken = (payload.len() + FRAME_OVERHEAD_BYTES) as u64;
            sent = peer.incoming.received.map(|received| received + taken);
        }
        peer.incoming.count(header.lane, sent);
        self.heard = self.now;
        self.counters.frames_received += 1;
        self.counters.bytes_received += payload.len() as u64;
        if header.heard == self.life {
            self.outgoing.acknowledge(header.received)?;
        } else if header.kind != Kind::Heartbeat {
            return Err(LinkError::Stale { life: header.heard });
        }
        match header.kind {
            Kind::Heartbeat => self.take_heartbeat(&header, &payload, effects)?,
            Kind::Grant => {}
            Kind::Raft | Kind::Request | Kind::Answer | Kind::Fault => self.take_message(&header, payload, effects)?,
        }
        self.settle(effects);
        if self.starved || header.kind == Kind::Request {
            self.pump(effects);
        }
        self.grant(effects);
        Ok(())
    }

    /// Makes sure that `life` is the peer's current one.
    fn meet(&mut self, life: Life, effects: &mut Vec<Effect>) -> Result<(), LinkError> {
        let known = self.peer.as_ref().map(|peer| peer.life);
        if known == Some(life) {
            return Ok(());
        }
        if life.boot == Boot(0) || known.is_some_and(|known| known > life) {
            return Err(LinkError::Stale { life });
        }
        if let Some(peer) = self.peer.take() {
            self.lost_before.0 = self.lost_before.0.saturating_add(peer.incoming.lost);
            self.lost_before.1 += peer.incoming.torn;
        }
        self.peer = Some(Peer {
            life,
            hello: None,
            verdict: Verdict::Pending,
            welcome: Verdict::Pending,
            incoming: Incoming::default(),
            serving: BTreeSet::new(),
            echo: None,
            missed: 0,
        });
        self.outgoing.forgive();
        self.told = [0; 2];
        self.heard = self.now;
        self.change(State::Connecting, effects);
        if known.is_some_and(|known| known.boot != life.boot) {
            effects.push(Effect::Restarted(life.boot));
        }
        self.send_heartbeat(effects);
        Ok(())
    }

    fn take_heartbeat(&mut self, header: &Header, payload: &Bytes, effects: &mut Vec<Effect>) -> Result<(), LinkError> {
        let heartbeat = Heartbeat::decode(payload)?;
        let now = self.now;
        let ours = header.heard == self.life;
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let mut lost = peer.incoming.heartbeat(header.sequence, header.sent);
        peer.echo = Some((heartbeat.at, now));
        if ours {
            lost |= heartbeat.missed > peer.missed;
            peer.missed = peer.missed.max(heartbeat.missed);
            peer.welcome = match (heartbeat.accepted, heartbeat.refusal.is_empty()) {
                (true, _) => Verdict::Accepted,
                (false, true) => Verdict::Pending,
                (false, false) => Verdict::Refused(heartbeat.refusal),
            };
            let there_and_back = micros(now).checked_sub(heartbeat.echo.saturating_add(heartbeat.held));
            if let (true, Some(elapsed)) = (heartbeat.echo != 0, there_and_back) {
                self.round_trip = Some(Duration::from_micros(elapsed));
            }
        }
        if let Some(hello) = heartbeat.hello.map(|hello| Bytes::from(hello.into_vec()))
            && (peer.verdict != Verdict::Accepted || peer.hello.as_ref() != Some(&hello))
        {
            peer.hello = Some(hello.clone());
            effects.push(Effect::Judge { life: peer.life, hello });
        }
        if lost && !mutant!(LossUnnoticed) {
            self.fail_calls_under_way(effects);
        }
        Ok(())
    }

    /// Frames were lost, of requests or of answers: whoever waits is told now, not at the deadline.
    fn fail_calls_under_way(&mut self, effects: &mut Vec<Effect>) {
        let (waiting, under_way) =
            std::mem::take(&mut self.calls).into_iter().partition(|(call, _)| self.outgoing.holds_request(*call));
        self.calls = waiting;
        for (call, _) in BTreeMap::<u64, Duration>::from_iter(under_way) {
            effects.push(Effect::Answered { call, outcome: Err(CallFailure::Unknown) });
        }
    }

    fn take_message(&mut self, header: &Header, payload: Bytes, effects: &mut Vec<Effect>) -> Result<(), LinkError> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        if peer.verdict != Verdict::Accepted {
            return Err(LinkError::Unwelcome);
        }
        let body = match peer.incoming.assemble(header, payload) {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(()),
            Err(error) => {
                if !mutant!(LossUnnoticed) {
                    self.tear(header, effects);
                }
                return Err(error);
            }
        };
        match header.kind {
            Kind::Raft => effects.push(Effect::Raft(split_batch(&body)?)),
            Kind::Request => {
                if !peer.serving.contains(&header.call) {
                    self.serve(header, body, effects);
                }
            }
            Kind::Answer => self.answered(header.call, Ok(body), effects),
            Kind::Fault => {
                let code = FaultCode::try_from(header.code)?;
                self.answered(header.call, Err(CallFailure::Fault(Fault { code, detail: body })), effects);
            }
            Kind::Heartbeat | Kind::Grant => unreachable!("neither is a message"),
        }
        Ok(())
    }

    /// A message that can never be whole: whoever waits for its outcome is told.
    fn tear(&mut self, header: &Header, effects: &mut Vec<Effect>) {
        match header.kind {
            // A link that is down has failed the peer's calls already, and nothing that is queued leaves it.
            Kind::Request if self.state == State::Connected => {
                self.queue_fault(header.call, Fault::of(FaultCode::Unanswered));
                self.pump(effects);
            }
            Kind::Answer | Kind::Fault => self.answered(header.call, Err(CallFailure::Unknown), effects),
            Kind::Request | Kind::Raft | Kind::Heartbeat | Kind::Grant => {}
        }
    }

    fn serve(&mut self, header: &Header, body: Bytes, effects: &mut Vec<Effect>) {
        let Some(peer) = &mut self.peer else { return };
        let (life, call) = (peer.life, header.call);
        let code = match Method::try_from(header.code) {
            Ok(method) if peer.serving.len() < CALLS_WAITING_MAX => {
                peer.serving.insert(call);
                effects.push(Effect::Request { life, call, method, body });
                return;
            }
            Ok(_) => FaultCode::Overloaded,
            Err(_) => FaultCode::UnknownMethod,
        };
        self.queue_fault(call, Fault::of(code));
    }

    fn answer(&mut self, life: Life, call: u64, outcome: Result<Bytes, Fault>) {
        let known = self.peer.as_mut().is_some_and(|peer| peer.life == life && peer.serving.remove(&call));
        if !known || self.state != State::Connected {
            return;
        }
        let outcome = match outcome {
            Ok(body) if body.len() > MESSAGE_BYTES_MAX => Err(Fault::of(FaultCode::TooLarge)),
            Err(fault) if fault.detail.len() > FAULT_BYTES_MAX => Err(Fault::of(fault.code)),
            Ok(_) | Err(_) => outcome,
        };
        match outcome {
            Ok(body) => {
                if !self.outgoing.letter(Letter { kind: Kind::Answer, code: 0, call, body }) {
                    self.queue_fault(call, Fault::of(FaultCode::Unanswered));
                }
            }
            Err(fault) => self.queue_fault(call, fault),
        }
    }

    fn queue_fault(&mut self, call: u64, fault: Fault) {
        let letter = Letter { kind: Kind::Fault, code: fault.code.into(), call, body: fault.detail };
        if !self.outgoing.letter(letter) {
            self.counters.dropped += 1;
        }
    }

    fn call(&mut self, call: u64, method: Method, body: Bytes, deadline: Duration, effects: &mut Vec<Effect>) {
        let failure = if self.state != State::Connected {
            Some(CallFailure::Unreachable)
        } else if body.len() > MESSAGE_BYTES_MAX {
            Some(CallFailure::TooLarge)
        } else if self.calls.len() >= CALLS_WAITING_MAX
            || !self.outgoing.letter(Letter { kind: Kind::Request, code: method.into(), call, body })
        {
            Some(CallFailure::Overloaded)
        } else {
            None
        };
        if let Some(failure) = failure {
            effects.push(Effect::Answered { call, outcome: Err(failure) });
            return;
        }
        let before = self.calls.insert(call, deadline);
        assert!(before.is_none(), "a call's number is its own");
    }

    fn answered(&mut self, call: u64, outcome: Result<Bytes, CallFailure>, effects: &mut Vec<Effect>) {
        if self.calls.remove(&call).is_some() {
            effects.push(Effect::Answered { call, outcome });
        }
    }

    fn judged(&mut self, life: Life, verdict: Result<(), String>, effects: &mut Vec<Effect>) {
        let Some(peer) = &mut self.peer else { return };
        if peer.life != life {
            return;
        }
        let before = std::mem::replace(
            &mut peer.verdict,
            match verdict {
                Ok(()) => Verdict::Accepted,
                Err(reason) => Verdict::Refused(shortened(reason)),
            },
        );
        let changed = peer.verdict != before;
        if self.state != State::Suspected {
            self.settle(effects);
        }
        if changed {
            self.send_heartbeat(effects);
        }
    }

    /// Brings the state in line with what is known.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Some(peer) = &self.peer else { return };
        let refused = |by_us, reason: &String| State::Refused { by_us, reason: reason.clone() };
        let state = match (&peer.verdict, &peer.welcome) {
            (Verdict::Refused(reason), _) => refused(true, reason),
            (_, Verdict::Refused(reason)) => refused(false, reason),
            (Verdict::Accepted, Verdict::Accepted) => State::Connected,
            (Verdict::Pending | Verdict::Accepted, Verdict::Pending | Verdict::Accepted) => State::Connecting,
        };
        self.change(state, effects);
    }

    fn change(&mut self, state: State, effects: &mut Vec<Effect>) {
        if self.state == state {
            return;
        }
        if self.state == State::Connected {
            self.fail_everything(effects);
        }
        self.state = state.clone();
        effects.push(Effect::Changed(state));
    }

    /// Nothing queued will leave, and no call of this node will be answered.
    fn fail_everything(&mut self, effects: &mut Vec<Effect>) {
        let (dropped, unsent) = self.outgoing.clear();
        self.counters.dropped += dropped;
        for (call, _) in std::mem::take(&mut self.calls) {
            let failure = if unsent.contains(&call) { CallFailure::Unreachable } else { CallFailure::Unknown };
            effects.push(Effect::Answered { call, outcome: Err(failure) });
        }
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        if self.state != State::Connected {
            return;
        }
        while let Some(cut) = self.outgoing.next() {
            self.send(cut, effects);
        }
        self.starved = self.outgoing.queued() > 0;
    }

    /// Grants credit that no other frame has carried back yet, once it is worth a frame.
    fn grant(&mut self, effects: &mut Vec<Effect>) {
        let Some(peer) = &self.peer else { return };
        let received = peer.incoming.received;
        let owed = (0..2).map(|lane| received[lane] - self.told[lane]).max().unwrap_or(0);
        if owed >= self.outgoing.credit_bytes / 2 {
            self.send(bare(Kind::Grant, Bytes::new()), effects);
        }
    }

    fn send_heartbeat(&mut self, effects: &mut Vec<Effect>) {
        let told_lately = self.state == State::Connected && !self.heartbeats.is_multiple_of(HELLO_EVERY);
        let (verdict, echo) = self.peer.as_ref().map_or((None, None), |peer| (Some(&peer.verdict), peer.echo));
        let heartbeat = Heartbeat {
            at: micros(self.now).max(1),
            echo: echo.map_or(0, |(at, _)| at),
            held: echo.map_or(0, |(_, came)| micros(self.now.saturating_sub(came))),
            missed: self.peer.as_ref().map_or(0, |peer| peer.incoming.missed),
            accepted: verdict == Some(&Verdict::Accepted),
            refusal: if let Some(Verdict::Refused(reason)) = verdict { reason.clone() } else { String::new() },
            hello: (!told_lately).then(|| serde_bytes::ByteBuf::from(self.hello.to_vec())),
        };
        self.heartbeats = self.heartbeats.wrapping_add(1);
        self.heartbeat =
            (self.heartbeat + LINK_HEARTBEAT).clamp(self.now + LINK_HEARTBEAT / 2, self.now + LINK_HEARTBEAT);
        self.send(bare(Kind::Heartbeat, heartbeat.encode()), effects);
    }

    fn send(&mut self, cut: Cut, effects: &mut Vec<Effect>) {
        self.sequence += 1;
        self.told = self.peer.as_ref().map_or([0; 2], |peer| peer.incoming.received);
        let header = Header {
            from: self.node,
            to: self.peer_node,
            life: self.life,
            heard: self.peer.as_ref().map_or(Life::default(), |peer| peer.life),
            sequence: self.sequence,
            lane: cut.lane,
            kind: cut.kind,
            code: cut.code,
            call: cut.call,
            message: cut.message,
            fragment: cut.fragment,
            fragments: cut.fragments,
            length: cut.length,
            sent: self.outgoing.sent,
            received: self.told,
        };
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += cut.payload.len() as u64;
        effects.push(Effect::Send { header: header.encode(), payload: cut.payload });
    }
}

/// A frame that takes no credit.
fn bare(kind: Kind, payload: Bytes) -> Cut {
    let length = u32::try_from(payload.len()).expect("a heartbeat is small");
    Cut { lane: Lane::Control, kind, code: 0, call: 0, message: 0, fragment: 0, fragments: 1, length, payload }
}

/// At most `REFUSAL_BYTES_MAX` of a reason, and never none: an empty one would read as no refusal.
fn shortened(mut reason: String) -> String {
    if reason.is_empty() {
        return "no reason given".to_owned();
    }
    let whole = (0..=reason.len().min(REFUSAL_BYTES_MAX)).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(whole.unwrap_or(0));
    reason
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
