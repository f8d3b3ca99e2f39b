//! One member of a group: turns events into calls of raft-rs, and what raft-rs wants into effects.
//!
//! How it drives `RawNode`: after each event every `Ready` is taken at once and closed with `advance_append_async`.
//! Its entries are readable in memory from then on; they count as persisted when `Persisted` says so. A leader's
//! messages go out at once, in parallel with its own write; a follower's answers wait until everything given out
//! before them is durable. A `Ready` that writes nothing passes through the same queue, so order holds.
//!
//! A sole voter wins an election without asking anybody, which raft-rs does at once. So it stands only when its log is
//! durable, and its messages to learners wait until its term is: a crash must not bring a second leader of that term.
//!
//! A commit index alone is never written: it is a hint, and rides along with the next write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use raft::eraftpb;
use raft::{GetEntriesContext, ProgressState, RaftState, RawNode, ReadOnlyOption, StateRole};

use super::guard::Gate;
use super::log::Log;
use super::message::{Message, entry_from_raft};
use super::reads::Reads;
use super::{Committed, ConsensusError, Effect, Event, ReadLoss, Refusal, Role};
use crate::entry::{Entry, EntryKind, HardState, Position, Recovered};
use crate::id::{Boot, Incarnation, Index, ReplicaId, ShardId, Term};
use crate::limits;

/// What may be tuned; the defaults are the limits of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Least ticks without a leader before a replica campaigns; the draw is in `[election_ticks, 2 * election_ticks)`.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Entry bytes in one append.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Payload bytes a leader holds that are not committed.
    pub uncommitted_bytes_max: u64,
    /// Entry bytes in one `Apply`.
    pub apply_bytes_max: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            election_ticks: limits::ELECTION_TICKS,
            heartbeat_ticks: limits::HEARTBEAT_TICKS,
            append_bytes_max: limits::APPEND_BYTES_MAX,
            inflight_appends_max: limits::INFLIGHT_APPENDS_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            apply_bytes_max: limits::APPLY_BYTES_MAX,
        }
    }
}

/// Who a replica is.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Its group.
    pub shard: ShardId,
    /// Itself; among `voters` or `learners`.
    pub id: ReplicaId,
    /// Who votes.
    pub voters: Vec<ReplicaId>,
    /// Who only follows.
    pub learners: Vec<ReplicaId>,
    /// This life of the process.
    pub boot: Boot,
    /// This life of the replica.
    pub incarnation: Incarnation,
    /// From which election timeouts are drawn.
    pub seed: u64,
    /// What may be tuned.
    pub knobs: Knobs,
}

/// How a leader sees another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: ReplicaId,
    /// The last entry it is known to hold durably.
    pub matched: Index,
    /// Whether it was heard of lately.
    pub active: bool,
    /// What the leader does about it.
    pub state: PeerState,
}

/// What a leader does about a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It looks for the last entry that both have.
    Probing,
    /// It sends entries as they come.
    Replicating,
    /// It can do nothing: the entries the follower needs were trimmed.
    NeedsSnapshot,
}

/// A replica at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its group.
    pub shard: ShardId,
    /// Itself.
    pub id: ReplicaId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The last entry that is gone.
    pub trimmed: Index,
    /// The last entry that is not in memory.
    pub evicted: Index,
    /// The last entry that the state machine holds.
    pub applied: Index,
    /// The last entry known to be committed.
    pub committed: Index,
    /// The last entry known to be durable here.
    pub persisted: Index,
    /// The last entry.
    pub last: Index,
    /// Payload bytes of the log in memory.
    pub log_bytes: usize,
    /// Proposals that wait to be committed.
    pub proposals_waiting: usize,
    /// Reads that wait for an index.
    pub reads_waiting: usize,
    /// The other replicas, in order of their ids; empty unless this one leads.
    pub peers: Vec<PeerStatus>,
}

/// Draws election timeouts: splitmix64, whose every output is decided by the seed.
#[derive(Debug)]
struct Draws(u64);

impl Draws {
    /// Replicas that were handed the same seed must not stand for election in step.
    fn new(seed: u64, shard: ShardId, id: ReplicaId) -> Self {
        let mut draws = Self(seed ^ u64::from(shard.0));
        draws.0 = draws.next() ^ id.0;
        draws
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A `Ready` whose writes, or those before it, are not durable yet.
struct Pending {
    number: u64,
    /// Whether a `Persisted` of this number will come.
    writes: bool,
    /// The term that is durable with it.
    term: Term,
    messages: Vec<eraftpb::Message>,
}

struct Proposal {
    term: Term,
    ticket: u64,
}

struct Fetching {
    from: Index,
    context: GetEntriesContext,
    ticks: u32,
}

/// One member of a group. See the head of the room for its promises.
pub struct Replica {
    shard: ShardId,
    voters: Vec<ReplicaId>,
    learners: Vec<ReplicaId>,
    knobs: Knobs,
    raw: RawNode<Log>,
    draws: Draws,
    /// The last draw and the term and role it was made for. raft-rs makes draws of its own, which this one replaces
    /// after every call.
    timeout: (Term, StateRole, usize),
    told: (Role, Term, Option<ReplicaId>),
    pending: VecDeque<Pending>,
    durable_term: Term,
    /// The hard state last written or given out, and the one that waits for the next write.
    written: HardState,
    unwritten: Option<HardState>,
    proposals: BTreeMap<Index, Proposal>,
    reads: Reads,
    fetches: BTreeMap<u64, Fetching>,
    fetches_begun: u64,
    needing_snapshot: BTreeSet<ReplicaId>,
    /// The last entry given out to be applied.
    given: Index,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts a replica from its durable log. `applied` is what its state machine already holds from a snapshot.
    ///
    /// # Errors
    /// `Options` if the members contradict each other, `Recovered` if the log has gaps or is older than `applied`.
    pub fn new(options: ReplicaOptions, recovered: Recovered, applied: Index) -> Result<Self, ConsensusError> {
        let ReplicaOptions { shard, id, voters, learners, boot, incarnation, seed, knobs } = options;
        check_members(shard, id, &voters, &learners)?;
        let (hard_state, written) = check_recovered(shard, &recovered, applied)?;
        let conf = eraftpb::ConfState::from((
            voters.iter().map(|id| id.0).collect::<Vec<_>>(),
            learners.iter().map(|id| id.0).collect::<Vec<_>>(),
        ));
        let log = Log::new(RaftState::new(hard_state, conf), recovered.trimmed, recovered.entries);
        let config = raft_config(id, applied, knobs);
        // The library's own log lines would be a second, unstructured voice; roles and terms are told as effects.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).map_err(|source| ConsensusError::Start { shard, source })?;
        let term = Term(raw.raft.term);
        let mut replica = Self {
            shard,
            voters,
            learners,
            knobs,
            raw,
            draws: Draws::new(seed, shard, id),
            timeout: (term, StateRole::Follower, 0),
            told: (Role::Follower, term, None),
            pending: VecDeque::new(),
            durable_term: term,
            written,
            unwritten: None,
            proposals: BTreeMap::new(),
            reads: Reads::new(id, boot, incarnation),
            fetches: BTreeMap::new(),
            fetches_begun: 0,
            needing_snapshot: BTreeSet::new(),
            given: applied,
        };
        replica.told.0 = replica.role();
        replica.draw_timeout();
        Ok(replica)
    }

    /// Takes one event and appends what must be done about it.
    ///
    /// # Errors
    /// `Foreign` for a message that was refused; the replica is unchanged and goes on. `FetchedOther` if the disk gave
    /// back other entries than were written.
    ///
    /// # Panics
    /// On programmer errors: completions out of order, indexes that were never given out.
    pub fn step(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), ConsensusError> {
        let outcome = self.take(event, effects);
        self.settle(effects);
        outcome
    }

    fn take(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), ConsensusError> {
        match event {
            Event::Tick => self.tick(effects),
            Event::Receive(message) => return self.receive(message),
            Event::Propose { ticket, payload } => self.propose(ticket, payload, effects),
            Event::Persisted { number } => self.persisted_through(number, effects),
            Event::Applied { through } => {
                assert!(
                    through >= self.applied() && through <= self.given,
                    "{}: applied {through} is not in [{}, {}]",
                    self.shard,
                    self.applied(),
                    self.given
                );
                self.raw.advance_apply_to(through.0);
            }
            Event::Read { ticket } => self.read(ticket, effects),
            Event::Transfer { to } => {
                if self.role() == Role::Leader && self.voters.contains(&to) {
                    self.raw.transfer_leader(to.0);
                }
            }
            Event::Campaign => {
                if self.raw.raft.promotable() && self.may_stand() {
                    // raft-rs answers a campaign of its own with an error only for foreign messages.
                    self.raw.campaign().expect("a local message is always taken");
                }
            }
            Event::Trim { through } => self.trim(through, effects),
            Event::Evict { through } => {
                assert!(through <= self.applied(), "{}: {through} is not applied and may not leave memory", self.shard);
                self.raw.mut_store().evict(through);
            }
            Event::Fetched { number, entries } => return self.fetched(number, entries),
            Event::Unreachable { peer } => self.raw.report_unreachable(peer.0),
        }
        Ok(())
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
        if self.may_stand() {
            self.raw.tick();
        }
        for ticket in self.reads.tick() {
            effects.push(Effect::ReadLost { ticket, why: ReadLoss::Late });
        }
        let log = self.raw.mut_store();
        self.fetches.retain(|_, fetching| {
            fetching.ticks += 1;
            let goes_on = fetching.ticks < limits::FETCH_TICKS_MAX;
            if !goes_on {
                log.fetch_ended(fetching.from);
            }
            goes_on
        });
    }

    fn writes_pending(&self) -> bool {
        self.pending.iter().any(|pending| pending.writes)
    }

    /// Whether winning an election on the spot would be sound.
    fn may_stand(&self) -> bool {
        self.voters.len() > 1 || self.role() == Role::Leader || !self.writes_pending()
    }

    fn receive(&mut self, message: Message) -> Result<(), ConsensusError> {
        let foreign = |why| ConsensusError::Foreign { shard: self.shard, from: message.from, kind: message.kind, why };
        let gate = Gate {
            id: self.id(),
            voters: &self.voters,
            learners: &self.learners,
            term: self.term(),
            last_index: self.last_index(),
            leads: self.role() == Role::Leader,
            votes_unasked: self.role() == Role::Candidate && self.writes_pending(),
        };
        gate.check(&message).map_err(foreign)?;
        let error = foreign("raft does not take it");
        self.raw.step(message.into_raft()).map_err(|_| error)
    }

    fn propose(&mut self, ticket: u64, payload: Bytes, effects: &mut Vec<Effect>) {
        let bytes = payload.len();
        let leads = self.role() == Role::Leader && self.raw.raft.lead_transferee.is_none();
        let refusal = if bytes == 0 || bytes > limits::ENTRY_BYTES_MAX {
            Some(Refusal::Size { bytes })
        } else if !leads {
            Some(Refusal::NotLeader { leader: self.other_leader() })
        } else if self.proposals.len() >= limits::PROPOSALS_WAITING_MAX || !self.append(payload) {
            Some(Refusal::Busy)
        } else {
            None
        };
        if let Some(why) = refusal {
            effects.push(Effect::Refused { ticket, why });
            return;
        }
        let proposal = Proposal { term: self.term(), ticket };
        let before = self.proposals.insert(self.last_index(), proposal);
        assert!(before.is_none(), "{}: two proposals at {}", self.shard, self.last_index());
    }

    /// Whether raft-rs took the payload. Stepped by hand, since its own `propose` copies.
    fn append(&mut self, payload: Bytes) -> bool {
        let entry = eraftpb::Entry { data: payload, ..Default::default() };
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.set_entries(vec![entry].into());
        self.raw.step(message).is_ok()
    }

    fn persisted_through(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let expected = self.pending.front().map(|pending| pending.number);
        assert!(expected == Some(number), "{}: persisted {number} where {expected:?} is next", self.shard);
        let mut writes = true;
        // What was given out behind it and writes nothing itself waited only for the order.
        while writes {
            let pending = self.pending.pop_front().expect("the front was looked at");
            self.release(pending, effects);
            writes = self.pending.front().is_some_and(|next| !next.writes);
        }
    }

    fn release(&mut self, pending: Pending, effects: &mut Vec<Effect>) {
        self.durable_term = pending.term;
        send(pending.messages, effects);
        self.raw.on_persist_ready(pending.number);
    }

    fn read(&mut self, ticket: u64, effects: &mut Vec<Effect>) {
        let why = if self.role() != Role::Leader {
            ReadLoss::NotLeader { leader: self.other_leader() }
        } else if self.reads.push(ticket) {
            return;
        } else {
            ReadLoss::Busy
        };
        effects.push(Effect::ReadLost { ticket, why });
    }

    fn trim(&mut self, through: Index, effects: &mut Vec<Effect>) {
        assert!(through <= self.applied(), "{}: {through} is not applied and may not be trimmed", self.shard);
        if through > self.trimmed().index {
            self.raw.mut_store().trim(through);
            effects.push(Effect::Trimmed { position: self.trimmed() });
        }
    }

    fn fetched(&mut self, number: u64, entries: Vec<Entry>) -> Result<(), ConsensusError> {
        let Some(Fetching { from, context, .. }) = self.fetches.remove(&number) else { return Ok(()) };
        let log = self.raw.mut_store();
        log.fetch_ended(from);
        let other = |(at, entry): (usize, &Entry)| {
            let index = Index(from.0 + at as u64);
            let trimmed_since = index < log.trimmed().index;
            (entry.index != index || !trimmed_since && log.term_at(index) != Some(entry.term)).then_some(index)
        };
        if let Some(index) = entries.iter().enumerate().find_map(other) {
            return Err(ConsensusError::FetchedOther { shard: self.shard, index });
        }
        if !entries.is_empty() {
            log.lend(entries);
            self.raw.on_entries_fetched(context);
            self.raw.mut_store().lend(Vec::new());
        }
        Ok(())
    }

    /// Carries everything that raft-rs has ready over into effects.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        loop {
            self.draw_timeout();
            self.tell_role(effects);
            self.begin_reads();
            if !self.raw.has_ready() {
                break;
            }
            self.take_ready(effects);
        }
        self.begin_fetches(effects);
        self.tell_snapshots_needed(effects);
    }

    fn draw_timeout(&mut self) {
        let now = (self.term(), self.raw.raft.state);
        if (self.timeout.0, self.timeout.1) != now || self.timeout.2 == 0 {
            let spread = self.draws.next() % self.knobs.election_ticks as u64;
            self.timeout = (now.0, now.1, self.knobs.election_ticks + spread as usize);
        }
        self.raw.raft.set_randomized_election_timeout(self.timeout.2);
    }

    fn tell_role(&mut self, effects: &mut Vec<Effect>) {
        let now = (self.role(), self.term(), self.leader());
        if now == self.told {
            return;
        }
        let (role, term, leader) = now;
        let lost = self.told.0 == Role::Leader && (role != Role::Leader || term != self.told.1);
        self.told = now;
        effects.push(Effect::Role { role, term, leader });
        if lost {
            for proposal in std::mem::take(&mut self.proposals).into_values() {
                effects.push(Effect::Abandoned { ticket: proposal.ticket });
            }
            for ticket in self.reads.lose() {
                effects.push(Effect::ReadLost { ticket, why: ReadLoss::NotLeader { leader: self.other_leader() } });
            }
            self.needing_snapshot.clear();
        }
    }

    fn begin_reads(&mut self) {
        // raft-rs drops reads before the first commit of a term. Once begun, its heartbeats carry the round until a
        // majority answers or leadership is lost.
        if self.role() == Role::Leader
            && self.raw.raft.commit_to_current_term()
            && let Some(context) = self.reads.begin()
        {
            self.raw.read_index(context.to_vec());
        }
    }

    fn take_ready(&mut self, effects: &mut Vec<Effect>) {
        let mut ready = self.raw.ready();
        assert!(ready.snapshot().is_empty(), "{}: a snapshot reached raft past the guard", self.shard);
        let number = ready.number();
        let entries = ready.take_entries();
        let messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        if mutant!(FollowerAcksEarly) {
            let answers =
                |message: &eraftpb::Message| message.get_msg_type() == eraftpb::MessageType::MsgAppendResponse;
            let (early, rest) = held.into_iter().partition(answers);
            held = rest;
            send(early, effects);
        }
        let committed = ready.take_committed_entries();
        let reads = ready.take_read_states();
        if let Some(hard_state) = ready.hs() {
            self.unwritten = Some(HardState {
                term: Term(hard_state.term),
                vote: replica(hard_state.vote),
                commit: Index(hard_state.commit),
            });
        }
        if self.durable_term == self.term() {
            send(messages, effects);
        } else {
            held.extend(messages);
        }
        let writes = self.write(number, entries, effects);
        self.raw.advance_append_async(ready);
        let pending = Pending { number, writes, term: self.term(), messages: held };
        if writes || !self.pending.is_empty() {
            self.pending.push_back(pending);
        } else {
            self.release(pending, effects);
        }
        self.apply(committed, effects);
        for read in reads {
            for ticket in self.reads.answered(&read.request_ctx) {
                effects.push(Effect::ReadReady { ticket, index: Index(read.index) });
            }
        }
    }

    /// Whether there is something to write.
    fn write(&mut self, number: u64, entries: Vec<eraftpb::Entry>, effects: &mut Vec<Effect>) -> bool {
        let voted = self
            .unwritten
            .is_some_and(|hard_state| (hard_state.term, hard_state.vote) != (self.written.term, self.written.vote));
        if entries.is_empty() && !voted {
            return false;
        }
        let copies: Vec<Entry> = entries.iter().map(entry_from_raft).collect();
        let truncate_from = self.raw.mut_store().append(entries);
        let mut hard_state = self.unwritten.take();
        if let (Some(hard_state), Some(first)) = (&mut hard_state, copies.first()) {
            // A torn write may leave the hard state and not the cut behind it. It must then not call committed what
            // would have been cut.
            hard_state.commit = hard_state.commit.min(Index(first.index.0 - 1));
        }
        self.written = hard_state.unwrap_or(self.written);
        let hard_state = hard_state.filter(|_| !mutant!(HardStateDropped));
        effects.push(Effect::Persist { number, truncate_from, entries: copies, hard_state });
        true
    }

    fn apply(&mut self, committed: Vec<eraftpb::Entry>, effects: &mut Vec<Effect>) {
        let Some(last) = committed.last() else { return };
        self.given = Index(last.index);
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            let (index, term) = (Index(entry.index), Term(entry.term));
            let proposal = self.proposals.remove(&index).filter(|proposal| proposal.term == term);
            let ticket = proposal.map(|proposal| proposal.ticket);
            entries.push(Committed { index, term, kind: EntryKind::Normal, payload: entry.data, ticket });
        }
        effects.push(Effect::Apply { entries });
    }

    fn begin_fetches(&mut self, effects: &mut Vec<Effect>) {
        for ask in self.raw.mut_store().take_fetch_asks() {
            self.fetches_begun += 1;
            let number = self.fetches_begun;
            self.fetches.insert(number, Fetching { from: ask.from, context: ask.context, ticks: 0 });
            effects.push(Effect::Fetch { number, from: ask.from, through: ask.through, bytes_max: ask.bytes_max });
        }
    }

    fn tell_snapshots_needed(&mut self, effects: &mut Vec<Effect>) {
        let trimmed = self.trimmed().index.0;
        let prs = self.raw.raft.prs();
        self.needing_snapshot.retain(|peer| prs.get(peer.0).is_some_and(|progress| progress.matched < trimmed));
        for peer in self.raw.mut_store().take_snapshot_asks() {
            if self.needing_snapshot.insert(ReplicaId(peer)) {
                effects.push(Effect::NeedsSnapshot { peer: ReplicaId(peer) });
            }
        }
    }

    /// Its group.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Itself.
    pub fn id(&self) -> ReplicaId {
        ReplicaId(self.raw.raft.id)
    }

    /// What it is.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower if self.raw.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Who leads, if known.
    pub fn leader(&self) -> Option<ReplicaId> {
        replica(self.raw.raft.leader_id)
    }

    /// Where a request may go that cannot stay here.
    fn other_leader(&self) -> Option<ReplicaId> {
        self.leader().filter(|leader| *leader != self.id())
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// The last entry that the state machine said it holds.
    pub fn applied(&self) -> Index {
        Index(self.raw.raft.raft_log.applied)
    }

    /// The last entry known to be durable here.
    pub fn persisted(&self) -> Index {
        Index(self.raw.raft.raft_log.persisted)
    }

    /// The first entry of the log.
    pub fn first_index(&self) -> Index {
        Index(self.trimmed().index.0 + 1)
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The last entry that is gone.
    pub fn trimmed(&self) -> Position {
        self.raw.store().trimmed()
    }

    /// Index and term of an entry of the log, or of the last that was trimmed.
    pub fn position(&self, index: Index) -> Option<Position> {
        self.raw.store().term_at(index).map(|term| Position { index, term })
    }

    /// The other replicas as a leader sees them, in order of their ids; empty unless this one leads.
    pub fn peers(&self) -> Vec<PeerStatus> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let peer = |(id, progress): (&u64, &raft::Progress)| {
            let id = ReplicaId(*id);
            let state = match progress.state {
                _ if self.needing_snapshot.contains(&id) => PeerState::NeedsSnapshot,
                ProgressState::Replicate => PeerState::Replicating,
                ProgressState::Probe | ProgressState::Snapshot => PeerState::Probing,
            };
            PeerStatus { id, matched: Index(progress.matched), active: progress.recent_active, state }
        };
        let mut peers: Vec<_> = self.raw.raft.prs().iter().map(peer).filter(|peer| peer.id != self.id()).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// Everything at a glance.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            shard: self.shard,
            id: self.id(),
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            trimmed: self.trimmed().index,
            evicted: self.raw.store().evicted(),
            applied: self.applied(),
            committed: self.committed(),
            persisted: self.persisted(),
            last: self.last_index(),
            log_bytes: self.raw.store().bytes(),
            proposals_waiting: self.proposals.len(),
            reads_waiting: self.reads.waiting(),
            peers: self.peers(),
        }
    }
}

fn replica(id: u64) -> Option<ReplicaId> {
    (id != 0).then_some(ReplicaId(id))
}

fn send(messages: Vec<eraftpb::Message>, effects: &mut Vec<Effect>) {
    for message in messages {
        let to = ReplicaId(message.to);
        // Forwarded proposals and reads are never made, since only leaders take them; nor are snapshots.
        let message = Message::from_raft(message).expect("raft sends only the kinds that it is fed");
        effects.push(Effect::Send { to, message });
    }
}

fn raft_config(id: ReplicaId, applied: Index, knobs: Knobs) -> raft::Config {
    raft::Config {
        id: id.0,
        election_tick: knobs.election_ticks,
        heartbeat_tick: knobs.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: knobs.append_bytes_max,
        max_inflight_msgs: knobs.inflight_appends_max,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: knobs.election_ticks,
        max_election_tick: 2 * knobs.election_ticks,
        read_only_option: ReadOnlyOption::Safe,
        // Followers learn of a commit with the next append or heartbeat; an empty append for each would double the
        // messages of a quiet group.
        skip_bcast_commit: true,
        // It merges appends without looking at their size.
        batch_append: false,
        priority: 0,
        max_uncommitted_size: knobs.uncommitted_bytes_max,
        max_committed_size_per_ready: knobs.apply_bytes_max,
    }
}

fn check_members(
    shard: ShardId,
    id: ReplicaId,
    voters: &[ReplicaId],
    learners: &[ReplicaId],
) -> Result<(), ConsensusError> {
    let all: BTreeSet<ReplicaId> = voters.iter().chain(learners).copied().collect();
    let why = if all.contains(&ReplicaId(0)) {
        "a replica id is zero"
    } else if all.len() != voters.len() + learners.len() {
        "a replica is named twice"
    } else if voters.is_empty() {
        "nobody votes"
    } else if !all.contains(&id) {
        "the replica is not one of the members"
    } else {
        return Ok(());
    };
    Err(ConsensusError::Options { shard, why })
}

/// Checks a recovered log. Returns the hard state to start with, and the one that is on the disk.
fn check_recovered(
    shard: ShardId,
    recovered: &Recovered,
    applied: Index,
) -> Result<(eraftpb::HardState, HardState), ConsensusError> {
    let damaged = |index, why| Err(ConsensusError::Recovered { shard, index, why });
    let mut at = recovered.trimmed;
    if (at.index == Index(0)) != (at.term == Term(0)) {
        return damaged(at.index, "the trimmed position has no term");
    }
    for entry in &recovered.entries {
        if entry.index.0.checked_sub(1) != Some(at.index.0) {
            return damaged(entry.index, "entries are missing before it");
        }
        if entry.term < at.term || entry.term == Term(0) {
            return damaged(entry.index, "its term is lower than that of the entry before");
        }
        if entry.kind != EntryKind::Normal {
            return damaged(entry.index, "it changes the configuration, which this version cannot");
        }
        at = Position { index: entry.index, term: entry.term };
    }
    if applied < recovered.trimmed.index || applied > at.index {
        return damaged(applied, "the snapshot's index is not in the log");
    }
    let written = recovered.hard_state;
    let mut hard_state = eraftpb::HardState::default();
    if written.term >= at.term {
        hard_state.term = written.term.0;
        hard_state.vote = written.vote.map_or(0, |vote| vote.0);
    } else {
        // A write that was torn between its entries and its hard state: nothing in that term was answered.
        hard_state.term = at.term.0;
    }
    // The commit index is a hint: it may lag behind the snapshot, or run ahead of a torn tail.
    hard_state.commit = written.commit.0.clamp(applied.0, at.index.0);
    Ok((hard_state, written))
}
