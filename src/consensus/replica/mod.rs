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
//! A commit index alone is written only where members changed: it is a hint, and rides along with the next write.

mod members;
mod offers;
mod start;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, RawNode, StateRole};

use self::start::{Draws, check_recovered, raft_config};
use super::changes;
use super::guard::Gate;
use super::log::Log;
use super::message::{Message, MessageKind, entry_from_raft};
use super::reads::Reads;
use super::{Committed, ConsensusError, Effect, Event, ReadLoss, Refusal, Role};
use crate::entry::{Entry, EntryKind, HardState, Members, Position, Recovered};
use crate::id::{Index, ReplicaId, ShardId, Term};
use crate::limits;

pub use self::start::{Knobs, ReplicaOptions, hard_state_behind};
pub use self::status::{PeerState, PeerStatus, ReplicaStatus};

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
    /// As of the last entry given out.
    members: Members,
    /// The members from each of these entries on; the first is that of the newest snapshot.
    configurations: BTreeMap<Index, Members>,
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
    /// Who had been heard of when this leader last checked for its quorum, in this term: raft-rs then begins to count anew.
    heard: (Term, BTreeSet<ReplicaId>),
    /// Ticks since a snapshot was offered to these peers.
    offers: BTreeMap<ReplicaId, u32>,
    /// The offer that the caller was told of last.
    offered: Option<(ReplicaId, Position)>,
    /// The last entry given out to be applied.
    given: Index,
    /// Its leader's word to stand at once, which raft-rs does not hear while a change of members waits to be applied.
    summons: Option<Message>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts a replica from its durable log. `applied` is what its state machine already holds from a snapshot, the
    /// same that the members in the options are of.
    ///
    /// # Errors
    /// `Options` if the members contradict each other, `Recovered` if the log has gaps or is older than `applied`.
    pub fn new(options: ReplicaOptions, recovered: Recovered, applied: Index) -> Result<Self, ConsensusError> {
        let ReplicaOptions { shard, id, members, boot, incarnation, seed, knobs } = options;
        members.check().map_err(|why| ConsensusError::Options { shard, why })?;
        let (hard_state, written) = check_recovered(shard, &recovered, applied)?;
        let conf = changes::conf_state(&members);
        let mut log = Log::new(RaftState::new(hard_state, conf.clone()), recovered.trimmed, recovered.entries);
        let term = log.term_at(applied).expect("the recovered log was checked");
        log.announce(Position { index: applied, term }, conf);
        let config = raft_config(id, applied, knobs);
        // The library's own log lines would be a second, unstructured voice; roles and terms are told as effects.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).map_err(|source| ConsensusError::Start { shard, source })?;
        let term = Term(raw.raft.term);
        let mut replica = Self {
            shard,
            configurations: BTreeMap::from([(applied, members.clone())]),
            members,
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
            heard: (term, BTreeSet::new()),
            offers: BTreeMap::new(),
            offered: None,
            given: applied,
            summons: None,
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
            Event::Receive(message) => return self.receive(message, effects),
            Event::Propose { ticket, payload } => self.propose(ticket, payload, effects),
            Event::Change { ticket, change } => self.change(ticket, change, effects),
            Event::Persisted { number } => self.persisted_through(number, effects),
            Event::Applied { through } => {
                self.applied_through(through);
                return self.follow_summons();
            }
            Event::Read { ticket } => self.read(ticket, effects),
            Event::Transfer { to } => {
                if self.role() == Role::Leader && self.members.voters.contains(&to) && !self.is_changing() {
                    self.raw.transfer_leader(to.0);
                }
            }
            Event::Campaign => {
                if self.raw.raft.promotable() && self.may_stand() {
                    // raft-rs answers a campaign of its own with an error only for foreign messages.
                    self.raw.campaign().expect("a local message is always taken");
                }
            }
            Event::SnapshotWritten { through } => self.snapshot_written(through),
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
            self.note_who_was_heard();
            self.raw.tick();
        }
        self.tick_offers();
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

    /// Whether it would win an election on the spot, its own vote being enough, while its log is not durable.
    fn wins_too_early(&self) -> bool {
        let Members { voters, outgoing, .. } = &self.members;
        let alone = self.raw.raft.promotable() && voters.iter().chain(outgoing).all(|voter| *voter == self.id());
        alone && self.writes_pending()
    }

    fn may_stand(&self) -> bool {
        self.role() == Role::Leader || !self.wins_too_early()
    }

    fn receive(&mut self, message: Message, effects: &mut Vec<Effect>) -> Result<(), ConsensusError> {
        let gate = Gate {
            id: self.id(),
            term: self.term(),
            leader: self.leader(),
            last_index: self.last_index(),
            leads: self.role() == Role::Leader,
            wins_too_early: self.wins_too_early(),
            votes_unasked: self.role() == Role::Candidate && self.writes_pending(),
        };
        let (shard, from, kind) = (self.shard, message.from, message.kind);
        gate.check(&message).map_err(|why| ConsensusError::Foreign { shard, from, kind, why })?;
        match kind {
            MessageKind::Snapshot => return self.receive_offer(message, effects),
            MessageKind::TimeoutNow => return self.summoned(message),
            MessageKind::HeartbeatResponse => self.heard_commit(from, message.commit),
            MessageKind::Append
            | MessageKind::AppendResponse
            | MessageKind::RequestVote
            | MessageKind::RequestVoteResponse
            | MessageKind::Heartbeat
            | MessageKind::RequestPreVote
            | MessageKind::RequestPreVoteResponse => {}
        }
        self.step_raft(message)
    }

    /// Stands for election at once, as its leader asks. Where a change of members waits to be applied raft-rs does not,
    /// and the group, which takes nothing meanwhile, would wait until the leader gives up: it stands when it can.
    fn summoned(&mut self, message: Message) -> Result<(), ConsensusError> {
        let summons = message.clone();
        self.step_raft(message)?;
        self.summons = (self.role() == Role::Follower && self.given > self.applied()).then_some(summons);
        Ok(())
    }

    /// More is applied: what its leader asked for may be heard now, if that one still leads.
    fn follow_summons(&mut self) -> Result<(), ConsensusError> {
        let Some(message) = self.summons.take() else { return Ok(()) };
        if message.term != self.term() || self.leader() != Some(message.from) || self.wins_too_early() {
            return Ok(());
        }
        self.summoned(message)
    }

    fn step_raft(&mut self, message: Message) -> Result<(), ConsensusError> {
        let (shard, from, kind) = (self.shard, message.from, message.kind);
        match self.raw.step(message.into_raft()) {
            // An answer of a replica that is no member: late, of one that was removed.
            Ok(()) | Err(raft::Error::StepPeerNotFound) => Ok(()),
            Err(_) => Err(ConsensusError::Foreign { shard, from, kind, why: "raft does not take it" }),
        }
    }

    /// Whether a change of members is under way. The leader that applies one may add an entry of its own, which ends it:
    /// then whoever was told to stand just before would lose, its log being behind.
    fn is_changing(&self) -> bool {
        self.raw.raft.has_pending_conf() || !self.members.outgoing.is_empty()
    }

    /// Whether it leads and means to go on with it.
    fn takes_proposals(&self) -> bool {
        self.role() == Role::Leader && self.raw.raft.lead_transferee.is_none()
    }

    fn propose(&mut self, ticket: u64, payload: Bytes, effects: &mut Vec<Effect>) {
        let bytes = payload.len();
        let refusal = if bytes == 0 || bytes > limits::ENTRY_BYTES_MAX {
            Some(Refusal::Size { bytes })
        } else if !self.takes_proposals() {
            Some(Refusal::NotLeader { leader: self.other_leader() })
        } else if self.proposals.len() >= limits::PROPOSALS_WAITING_MAX || !self.append(payload) {
            Some(Refusal::Busy)
        } else {
            None
        };
        match refusal {
            None => self.await_commit(ticket),
            Some(why) => effects.push(Effect::Refused { ticket, why }),
        }
    }

    /// The last entry is the one that carries this ticket.
    fn await_commit(&mut self, ticket: u64) {
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
        let changes = committed.iter().any(|entry| entry.get_entry_type() == eraftpb::EntryType::EntryConfChangeV2);
        let writes = self.write(number, entries, changes, effects);
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

    /// Whether there is something to write. `changes` says whether a change of members is given out: the replica that it
    /// removes may be destroyed once everybody knows that it is committed, and whoever starts again must know it then.
    fn write(&mut self, number: u64, entries: Vec<eraftpb::Entry>, changes: bool, effects: &mut Vec<Effect>) -> bool {
        if changes && self.unwritten.is_none() {
            let HardState { term, vote, .. } = self.written;
            self.unwritten = Some(HardState { term, vote, commit: self.committed() });
        }
        let voted = self
            .unwritten
            .is_some_and(|hard_state| (hard_state.term, hard_state.vote) != (self.written.term, self.written.vote));
        if entries.is_empty() && !voted && !changes {
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

    /// Gives entries out. One that changes the members begins an `Apply` of its own, so that whoever makes a snapshot
    /// knows the members as of any entry.
    fn apply(&mut self, committed: Vec<eraftpb::Entry>, effects: &mut Vec<Effect>) {
        let Some(last) = committed.last() else { return };
        self.given = Index(last.index);
        let mut entries = Vec::with_capacity(committed.len());
        for entry in &committed {
            let Entry { index, term, kind, payload } = entry_from_raft(entry);
            let proposal = self.proposals.remove(&index).filter(|proposal| proposal.term == term);
            let committed = Committed { index, term, kind, payload, ticket: proposal.map(|proposal| proposal.ticket) };
            if kind == EntryKind::JointConfiguration {
                if !entries.is_empty() {
                    effects.push(Effect::Apply { entries: std::mem::take(&mut entries) });
                }
                self.enter(&committed, effects);
            }
            entries.push(committed);
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
}

fn replica(id: u64) -> Option<ReplicaId> {
    (id != 0).then_some(ReplicaId(id))
}

fn send(messages: Vec<eraftpb::Message>, effects: &mut Vec<Effect>) {
    for message in messages {
        let to = ReplicaId(message.to);
        // Forwarded proposals and reads are never made, since only leaders take them.
        let message = Message::from_raft(message).expect("raft sends only the kinds that it is fed");
        effects.push(Effect::Send { to, message });
    }
}
