//! `ingester-K`: takes requests in, and brings their records to the leaders of their shards.
//!
//! Parent: `ingest`. It receives submissions from listeners and outcomes of entries; it sends entries to the replica
//! that leads, on this node or across a link. Decoding and encoding run on worker threads; the sub-batches of all
//! requests for one shard share entries. What certainly or possibly failed is sent again, in its old order, to
//! whoever leads by then: apply knows each part by its key, so nothing is stored twice. A restart loses the requests
//! that were not answered; their clients hear 503 and send again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use millpond::id::{NodeId, Offset, ShardId};
use millpond::limits;
use millpond::protocol::{Acceptance, ProtocolError, Refusals};
use millpond::retention::Policy;
use millpond::shard::{self, Command, Outcome, SubBatch};
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::{Landing, Permit, Submission, Verdict};
use crate::append::{AppendOutcome, AppendReply};
use crate::board::{Board, LEADER_POLL};
use crate::env::{Env, Lane as WorkLane};
use crate::links::{Links, Method};
use crate::metrics::Metrics;
use crate::prepare::{Prepared, prepare};
use crate::replica::ReplicaMessage;
use crate::supervision::{Actor, ActorError, Own};

/// What an ingester does.
pub enum IngesterMessage {
    /// Take a request in.
    Submit {
        /// The request as it was sent.
        submission: Submission,
        /// The listener that waits.
        reply: RpcReplyPort<Landing>,
    },
    /// A request was decoded, routed and encoded.
    Prepared {
        /// The request.
        request: u64,
        /// Its parts, or why it is refused.
        outcome: Result<Prepared, ProtocolError>,
    },
    /// What became of an entry.
    Landed {
        /// The entry.
        flight: u64,
        /// Its outcome.
        outcome: AppendOutcome,
    },
    /// Look at deadlines, and at lanes that wait for a leader.
    Tick,
}

/// Runs one ingester.
#[derive(Debug)]
pub struct Ingester;

/// What an ingester starts with.
pub struct IngesterArguments {
    /// How long records are kept: what is older is refused.
    pub retention: Arc<Policy>,
    /// How streams find their shards.
    pub strategy: millpond::routing::Strategy,
    /// Who leads what.
    pub board: Board,
    /// The other nodes.
    pub links: Links,
    /// Clock, randomness, threads.
    pub env: Env,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The state of an ingester.
pub struct IngesterState {
    myself: Own<IngesterMessage>,
    arguments: IngesterArguments,
    requests: BTreeMap<u64, Request>,
    lanes: BTreeMap<ShardId, Lane>,
    flights: BTreeMap<u64, Flight>,
    /// The last request, flight or place in a lane that was numbered.
    numbered: u64,
    ticking: bool,
}

/// A request whose outcome is open.
struct Request {
    reply: RpcReplyPort<Landing>,
    since: Instant,
    waiting: usize,
    accepted: usize,
    raw_bytes: usize,
    refusals: Refusals,
    shards: BTreeSet<ShardId>,
    failure: Option<Verdict>,
    /// Held until the outcome is known.
    _permit: Permit,
}

/// What waits for one shard, by place in the order it came.
#[derive(Default)]
struct Lane {
    waiting: BTreeMap<u64, (u64, SubBatch)>,
    in_flight: usize,
    /// Set when an entry came back.
    trouble: Option<Trouble>,
}

/// Why the next entry of a lane waits.
#[derive(Clone, Copy)]
struct Trouble {
    /// It waits until then.
    not_before: Instant,
    /// Nothing landed since then.
    since: Instant,
    /// What the last entry that came back ran into.
    hitch: Hitch,
}

/// What an entry ran into that came back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hitch {
    /// Nobody leads, as far as is known, or whoever did was not heard from.
    NoLeader,
    /// The leader has no room for it.
    Busy,
}

impl Hitch {
    /// How long the next entry waits.
    fn wait(self) -> Duration {
        match self {
            Self::NoLeader => LEADER_POLL,
            Self::Busy => limits::BUSY_RETRY,
        }
    }

    /// The same for a client.
    fn why(self) -> &'static str {
        match self {
            Self::NoLeader => "a shard has no leader that a majority follows; send the request again, whole",
            Self::Busy => "the leader of a shard has no room now; slow down, and send the request again, whole",
        }
    }
}

/// An entry whose outcome is open.
struct Flight {
    shard: ShardId,
    to: NodeId,
    carried: Vec<(u64, u64, SubBatch)>,
}

impl Actor for Ingester {
    type Message = IngesterMessage;
    type Arguments = IngesterArguments;
    type State = IngesterState;

    async fn pre_start(
        &self,
        myself: &Own<IngesterMessage>,
        arguments: IngesterArguments,
    ) -> Result<IngesterState, ActorError> {
        let (requests, lanes, flights) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let myself = myself.clone();
        Ok(IngesterState { myself, arguments, requests, lanes, flights, numbered: 0, ticking: false })
    }

    async fn handle(
        &self,
        _: &Own<IngesterMessage>,
        message: IngesterMessage,
        state: &mut IngesterState,
    ) -> Result<(), ActorError> {
        match message {
            IngesterMessage::Submit { submission, reply } => state.submit(submission, reply),
            IngesterMessage::Prepared { request, outcome } => state.prepared(request, outcome),
            IngesterMessage::Landed { flight, outcome } => state.landed(flight, outcome),
            IngesterMessage::Tick => state.tick(),
        }
        Ok(())
    }
}

impl IngesterState {
    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    fn submit(&mut self, submission: Submission, reply: RpcReplyPort<Landing>) {
        let request = self.number();
        let (env, address) = (self.arguments.env.clone(), self.myself.clone());
        let (strategy, shards) = (self.arguments.strategy, self.arguments.board.shards());
        let (now, draw, part_bytes_max) = (env.clock.now(), env.random.draw(), env.knobs.part_bytes_max);
        let acceptance = Acceptance { now, oldest: self.arguments.retention.oldest(now) };
        let permit = submission.permit.clone();
        let open = Request {
            reply,
            since: Instant::now(),
            waiting: 0,
            accepted: 0,
            raw_bytes: 0,
            refusals: Refusals::default(),
            shards: BTreeSet::new(),
            failure: None,
            _permit: permit,
        };
        self.requests.insert(request, open);
        self.keep_ticking();
        let work = move || {
            let outcome = prepare(submission, &acceptance, shards, strategy, part_bytes_max, draw);
            // An ingester that is gone has dropped its clients.
            let _ = address.cast(IngesterMessage::Prepared { request, outcome });
        };
        env.blocking.run(WorkLane::Work, Box::new(work));
    }

    fn prepared(&mut self, request: u64, outcome: Result<Prepared, ProtocolError>) {
        let Some(open) = self.requests.get_mut(&request) else { return };
        let prepared = match outcome {
            Ok(prepared) => prepared,
            Err(error) => {
                open.failure = Some(Verdict::Malformed(error));
                self.answer(request);
                return;
            }
        };
        open.waiting = prepared.parts.len();
        open.accepted = prepared.accepted;
        open.raw_bytes = prepared.raw_bytes;
        open.refusals = prepared.refusals;
        open.shards = prepared.parts.iter().map(|(shard, _)| *shard).collect();
        let shards = open.shards.clone();
        for (shard, part) in prepared.parts {
            let place = self.number();
            self.lanes.entry(shard).or_default().waiting.insert(place, (request, part));
        }
        if shards.is_empty() {
            self.answer(request);
        }
        for shard in shards {
            self.pump(shard);
        }
    }

    /// Sends what waits for a shard while its window is open and it has a leader.
    fn pump(&mut self, shard: ShardId) {
        let knobs = self.arguments.env.knobs;
        loop {
            let Some(lane) = self.lanes.get_mut(&shard) else { return };
            let blocked = lane.trouble.is_some_and(|trouble| Instant::now() < trouble.not_before);
            if lane.waiting.is_empty() || lane.in_flight >= knobs.entries_in_flight_max || blocked {
                return;
            }
            let Some(leader) = self.arguments.board.leader(shard) else {
                lane.hold(Hitch::NoLeader);
                return;
            };
            let carried = lane.take_entry(knobs.entry_bytes_max);
            lane.in_flight += 1;
            let parts: Vec<SubBatch> = carried.iter().map(|(_, _, part)| part.clone()).collect();
            let payload = Command::encode_batch(&parts);
            let flight = self.number();
            self.flights.insert(flight, Flight { shard, to: leader, carried });
            self.send(flight, shard, leader, payload);
        }
    }

    fn send(&self, flight: u64, shard: ShardId, leader: NodeId, payload: Bytes) {
        let address = self.myself.clone();
        if leader == self.arguments.board.node {
            // Dropped unsent, the reply answers for itself.
            let reply = AppendReply::ingester(address, flight);
            if let Some(replica) = self.arguments.board.replica(shard) {
                let _ = replica.cast(ReplicaMessage::Append { payload, reply });
            }
            return;
        }
        let mut body = BytesMut::with_capacity(4 + payload.len());
        body.put_u32_le(shard.0);
        body.put_slice(&payload);
        let call = self.arguments.links.call(leader, Method::Append, body.freeze(), limits::FORWARD_DEADLINE);
        tokio::spawn(async move {
            let outcome = match call.await {
                Ok(answer) => AppendOutcome::decode(&answer),
                Err(error) if error.is_certainly_unsent() => AppendOutcome::NotLeader(None),
                Err(_) => AppendOutcome::Unknown,
            };
            let _ = address.cast(IngesterMessage::Landed { flight, outcome });
        });
    }

    fn landed(&mut self, flight: u64, outcome: AppendOutcome) {
        let Some(Flight { shard, to, carried }) = self.flights.remove(&flight) else { return };
        let lane = self.lanes.get_mut(&shard).expect("a lane outlives its flights");
        lane.in_flight -= 1;
        let verdicts = match outcome {
            AppendOutcome::Applied(verdicts) if verdicts.len() == carried.len() => verdicts,
            AppendOutcome::NotLeader(leader) => {
                self.turned_away(shard, to, leader, carried);
                return;
            }
            AppendOutcome::Applied(_) | AppendOutcome::Governed(_) | AppendOutcome::Unknown => {
                self.put_back(shard, carried, Hitch::NoLeader);
                return;
            }
            AppendOutcome::Busy => {
                self.put_back(shard, carried, Hitch::Busy);
                return;
            }
        };
        lane.trouble = None;
        let mut again = Vec::new();
        for ((place, request, part), verdict) in carried.into_iter().zip(verdicts) {
            match verdict.outcome {
                Outcome::Stored { .. } => self.settle(request, None),
                Outcome::Known { .. } => {
                    self.arguments.metrics.duplicate();
                    tracing::debug!(%shard, "a part came again");
                    self.settle(request, None);
                }
                Outcome::Gap => again.push((place, request, part)),
                Outcome::Conflict => self.settle(request, Some(Verdict::Conflict)),
                Outcome::TooManyStreams => self.settle(request, Some(Verdict::TooManyStreams)),
                Outcome::Malformed => {
                    let why = "an entry was damaged on its way; send the request again, whole";
                    self.settle(request, Some(Verdict::Unavailable(why)));
                }
            }
        }
        if !again.is_empty() {
            self.put_back(shard, again, Hitch::NoLeader);
        }
        self.pump(shard);
    }

    /// The node that was asked does not lead. Where another is known to by now it is asked at once, and where that one does
    /// not lead either a little later.
    fn turned_away(
        &mut self,
        shard: ShardId,
        asked: NodeId,
        leader: Option<NodeId>,
        carried: Vec<(u64, u64, SubBatch)>,
    ) {
        let board = &self.arguments.board;
        if let Some(leader) = leader {
            board.points_to(shard, asked, leader);
        }
        let elsewhere = board.leader(shard).is_some_and(|leader| leader != asked);
        let first = self.lanes.get(&shard).is_some_and(|lane| lane.trouble.is_none());
        self.put_back(shard, carried, Hitch::NoLeader);
        if elsewhere && first {
            self.lanes.entry(shard).or_default().go_on();
            self.pump(shard);
        }
    }

    /// Puts what came back into its old place, to be sent again a little later.
    fn put_back(&mut self, shard: ShardId, carried: Vec<(u64, u64, SubBatch)>, hitch: Hitch) {
        let lane = self.lanes.get_mut(&shard).expect("a lane outlives its flights");
        for (place, request, part) in carried {
            if self.requests.contains_key(&request) {
                lane.waiting.insert(place, (request, part));
            }
        }
        lane.hold(hitch);
    }

    /// One part of a request has its outcome; the request is answered with its last.
    fn settle(&mut self, request: u64, failure: Option<Verdict>) {
        let Some(open) = self.requests.get_mut(&request) else { return };
        open.waiting -= 1;
        open.failure = open.failure.take().or(failure);
        if open.waiting == 0 {
            self.answer(request);
        }
    }

    fn answer(&mut self, request: u64) {
        let Some(open) = self.requests.remove(&request) else { return };
        let landing = Landing {
            verdict: open.failure.unwrap_or(Verdict::Stored),
            accepted: open.accepted,
            raw_bytes: open.raw_bytes,
            refusals: open.refusals,
            shards: open.shards.into_iter().collect(),
        };
        // Who no longer waits has closed the connection.
        let _ = open.reply.send(landing);
    }

    fn keep_ticking(&mut self) {
        if self.ticking {
            return;
        }
        self.ticking = true;
        drop(self.myself.cast_after(LEADER_POLL, IngesterMessage::Tick));
    }

    fn tick(&mut self) {
        self.ticking = false;
        let now = Instant::now();
        let stuck: BTreeMap<ShardId, Hitch> =
            self.lanes.iter().filter_map(|(shard, lane)| Some((*shard, lane.stuck(now)?))).collect();
        let late: Vec<(u64, Verdict)> = self
            .requests
            .iter()
            .filter_map(|(request, open)| {
                let age = now - open.since;
                let hitch = open.shards.iter().find_map(|shard| stuck.get(shard));
                match hitch.filter(|_| age >= limits::UNAVAILABLE_AFTER) {
                    Some(hitch) => Some((*request, Verdict::Unavailable(hitch.why()))),
                    None => (age >= limits::INGEST_DEADLINE).then_some((*request, Verdict::TimedOut)),
                }
            })
            .collect();
        for (request, verdict) in late {
            self.requests.get_mut(&request).expect("listed above").failure = Some(verdict);
            self.answer(request);
            for lane in self.lanes.values_mut() {
                lane.waiting.retain(|_, (of, _)| *of != request);
            }
        }
        self.leave_deposed_leaders();
        for shard in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.pump(shard);
        }
        if !self.requests.is_empty() {
            self.keep_ticking();
        }
    }
}

impl IngesterState {
    /// An entry that is with a node which no longer leads is given to the one that does, without waiting for the first
    /// to answer: it may be dead, and apply knows the parts if it was not.
    fn leave_deposed_leaders(&mut self) {
        let board = &self.arguments.board;
        let left =
            self.flights.iter().filter(|(_, flight)| board.leader(flight.shard).is_some_and(|to| to != flight.to));
        for (flight, outcome) in left.map(|(flight, left)| (*flight, left.outcome())).collect::<Vec<_>>() {
            self.landed(flight, outcome);
        }
    }
}

impl Flight {
    /// What is known of an entry whose leader was deposed.
    fn outcome(&self) -> AppendOutcome {
        if millpond::mutant!(DeposedLeaderTrusted) {
            let known = Outcome::Known { first: Offset(0) };
            let parts = self.carried.iter().map(|(_, _, part)| part);
            let verdict = |part: &SubBatch| shard::Verdict { key: part.key, part: part.part, outcome: known };
            return AppendOutcome::Applied(parts.map(verdict).collect());
        }
        AppendOutcome::Unknown
    }
}

impl Lane {
    /// Waits a little before the next entry, and remembers since when nothing landed.
    fn hold(&mut self, hitch: Hitch) {
        let now = Instant::now();
        let since = self.trouble.map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { not_before: now + hitch.wait(), since, hitch });
    }

    /// Waits no longer; since when nothing landed is still remembered.
    fn go_on(&mut self) {
        self.trouble = self.trouble.map(|trouble| Trouble { not_before: trouble.since, ..trouble });
    }

    /// Why nothing landed for as long as a client is made to wait for a new leader, where that is so.
    fn stuck(&self, now: Instant) -> Option<Hitch> {
        let trouble = self.trouble.filter(|trouble| now - trouble.since >= limits::UNAVAILABLE_AFTER / 2);
        trouble.map(|trouble| trouble.hitch)
    }

    /// The oldest parts that fit into one entry of so many bytes, at least one.
    fn take_entry(&mut self, bytes_max: usize) -> Vec<(u64, u64, SubBatch)> {
        let (mut carried, mut bytes) = (Vec::new(), Command::BATCH_OVERHEAD);
        while let Some(next) = self.waiting.first_entry() {
            let size = next.get().1.batch.len() + Command::SUB_BATCH_OVERHEAD;
            let full = bytes + size > bytes_max || carried.len() == limits::SUB_BATCHES_MAX;
            if full && !carried.is_empty() {
                break;
            }
            bytes += size;
            let (place, (request, part)) = next.remove_entry();
            carried.push((place, request, part));
        }
        carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_goes_on_at_once_where_another_leader_is_known_and_still_counts_from_its_first_trouble() {
        let mut lane = Lane::default();
        lane.go_on();
        assert!(lane.trouble.is_none());
        lane.hold(Hitch::NoLeader);
        let began = Instant::now();
        let waits = |lane: &Lane, now: Instant| lane.trouble.map(|trouble| (trouble.not_before > now, trouble.since));
        assert_eq!(waits(&lane, began), Some((true, began)));
        tokio::time::advance(LEADER_POLL / 2).await;
        lane.go_on();
        assert_eq!(waits(&lane, Instant::now()), Some((false, began)));
        tokio::time::advance(limits::UNAVAILABLE_AFTER).await;
        assert!(lane.stuck(Instant::now()) == Some(Hitch::NoLeader));
        lane.hold(Hitch::NoLeader);
        assert_eq!(waits(&lane, Instant::now()), Some((true, began)));
    }
}
