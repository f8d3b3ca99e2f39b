//! A small group in one deterministic loop: replicas, the wires between them, their disks, and what they told their
//! callers. Tests and scripts play their stories on it. It does not know what a story is about; what must hold in
//! every story it checks after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::*;
use crate::entry::Recovered;
use crate::id::{Boot, Incarnation};

pub(super) const SHARD: ShardId = ShardId(7);

pub(super) fn id(id: u64) -> ReplicaId {
    ReplicaId(id)
}

pub(super) fn payload(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// One replica with its disk, and what it told its caller.
pub(super) struct Seat {
    pub(super) replica: Option<Replica>,
    pub(super) disk: Recovered,
    pub(super) writes: VecDeque<Effect>,
    /// The disk is stuck: writes and fetches wait.
    pub(super) stuck: bool,
    /// The state machine is busy: what is given out is not applied yet.
    pub(super) busy: bool,
    pub(super) fetches: VecDeque<Effect>,
    /// The newest snapshot: the last entry in it and the members as of it.
    pub(super) kept: (Index, Members),
    /// The snapshot it was offered last.
    pub(super) offered: Option<(ReplicaId, Position, Members)>,
    pub(super) applied: Vec<Committed>,
    pub(super) notices: Vec<Effect>,
}

impl Seat {
    pub(super) fn answered(&self, ticket: u64) -> Option<Index> {
        self.applied.iter().find(|entry| entry.ticket == Some(ticket)).map(|entry| entry.index)
    }

    /// Makes the oldest write durable.
    pub(super) fn write(&mut self) -> Option<Event> {
        self.write_part(usize::MAX)
    }

    /// Makes so many records of the oldest write durable: its hard state, its truncation, its entries one by one.
    fn write_part(&mut self, records: usize) -> Option<Event> {
        let Some(Effect::Persist { number, truncate_from, entries, hard_state }) = self.writes.pop_front() else {
            return None;
        };
        let before = [hard_state.is_some(), truncate_from.is_some()].into_iter().filter(|record| *record).count();
        if let Some(hard_state) = hard_state.filter(|_| records > 0) {
            self.disk.hard_state = hard_state;
        }
        if let Some(from) = truncate_from.filter(|_| records >= before) {
            self.disk.entries.retain(|entry| entry.index < from);
        }
        let entries: Vec<Entry> = entries.into_iter().take(records.saturating_sub(before)).collect();
        let last = self.disk.entries.last().map_or(self.disk.trimmed.index, |entry| entry.index);
        assert!(entries.first().is_none_or(|first| first.index.0 == last.0 + 1), "a gap on the disk");
        self.disk.entries.extend(entries);
        Some(Event::Persisted { number })
    }

    /// Reads what the oldest fetch asks for, two entries at most.
    pub(super) fn fetch(&mut self) -> Option<Event> {
        let Some(Effect::Fetch { number, from, through, .. }) = self.fetches.pop_front() else { return None };
        let wanted = |entry: &&Entry| entry.index >= from && entry.index <= through;
        Some(Event::Fetched { number, entries: self.disk.entries.iter().filter(wanted).take(2).cloned().collect() })
    }
}

pub(super) struct World {
    pub(super) seats: BTreeMap<ReplicaId, Seat>,
    pub(super) wire: VecDeque<Message>,
    /// Links on which every message is lost, by sender and receiver.
    pub(super) cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Kinds of messages that are lost on every link.
    pub(super) lost: BTreeSet<MessageKind>,
    /// Every effect, in order.
    pub(super) trace: Vec<(ReplicaId, Effect)>,
    knobs: Knobs,
    seed: u64,
    boots: u64,
    leaders: BTreeMap<Term, ReplicaId>,
    /// Every entry that anybody applied; the one at each index is the same for all, for ever.
    history: BTreeMap<Index, Committed>,
    /// The members from each of these entries on, as whoever came there first said.
    pub(super) configurations: BTreeMap<Index, Members>,
}

impl World {
    pub(super) fn new(size: u64, seed: u64) -> Self {
        Self::tuned(size, 0, seed, Knobs { append_bytes_max: 64, ..Knobs::default() })
    }

    /// So many voters, then so many learners.
    pub(super) fn tuned(voters: u64, learners: u64, seed: u64, knobs: Knobs) -> Self {
        let mut world = Self {
            seats: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            lost: BTreeSet::new(),
            trace: Vec::new(),
            knobs,
            seed,
            boots: 0,
            leaders: BTreeMap::new(),
            history: BTreeMap::new(),
            configurations: BTreeMap::new(),
        };
        let members = Members::of((1..=voters).map(id), (voters + 1..=voters + learners).map(id));
        for member in members.all() {
            world.start(member, Recovered::default(), (Index(0), members.clone()), Vec::new());
        }
        world.configurations.insert(Index(0), members);
        world
    }

    /// Every replica there is or was.
    pub(super) fn everybody(&self) -> Vec<ReplicaId> {
        self.seats.keys().copied().collect()
    }

    /// A new replica, which knows nobody.
    pub(super) fn join(&mut self, at: u64) {
        assert!(!self.seats.contains_key(&id(at)), "a replica id is never used twice");
        self.start(id(at), Recovered::default(), (Index(0), Members::default()), Vec::new());
    }

    /// Three replicas of which the first leads and has committed its first entry.
    pub(super) fn led() -> Self {
        let mut world = Self::new(3, 1);
        world.step(id(1), Event::Campaign);
        world.run();
        assert_eq!(world.replica(1).role(), Role::Leader);
        world
    }

    pub(super) fn start(&mut self, at: ReplicaId, disk: Recovered, kept: (Index, Members), applied: Vec<Committed>) {
        self.boots += 1;
        let options = ReplicaOptions {
            shard: SHARD,
            id: at,
            members: kept.1.clone(),
            boot: Boot(self.boots),
            incarnation: Incarnation(1),
            seed: self.seed,
            knobs: self.knobs,
        };
        let replica = Replica::new(options, disk.clone(), kept.0).unwrap();
        let seat = Seat {
            replica: Some(replica),
            disk,
            writes: VecDeque::new(),
            stuck: false,
            busy: false,
            fetches: VecDeque::new(),
            kept,
            offered: None,
            applied,
            notices: Vec::new(),
        };
        self.seats.insert(at, seat);
    }

    pub(super) fn kill(&mut self, at: u64) {
        self.seat(at).replica = None;
    }

    /// Kills a replica while its oldest write is under way, so many records of which stay.
    pub(super) fn tear(&mut self, at: u64, records: usize) {
        let seat = self.seat(at);
        seat.write_part(records).expect("a write is under way");
        seat.replica = None;
    }

    /// Starts a killed replica from what reached its disk; its state machine has what is in its snapshot.
    pub(super) fn restart(&mut self, at: u64) {
        let seat = self.seats.remove(&id(at)).unwrap();
        let applied = seat.applied.into_iter().filter(|entry| entry.index <= seat.kept.0).collect();
        self.start(id(at), seat.disk, seat.kept, applied);
    }

    /// A snapshot through an entry, durable at once.
    pub(super) fn snapshot(&mut self, at: u64, through: Index) {
        let members = self.replica(at).members_at(through).cloned();
        if let Some(members) = members.filter(|_| through >= self.seats[&id(at)].kept.0) {
            self.seat(at).kept = (through, members);
        }
        self.step(id(at), Event::SnapshotWritten { through });
    }

    /// A snapshot through an entry, and the log through it goes.
    pub(super) fn trim(&mut self, at: u64, through: Index) {
        self.snapshot(at, through);
        self.step(id(at), Event::Trim { through });
    }

    /// Puts the snapshot that a replica was offered in the place of all it has, if it still needs it, and starts it
    /// anew. Whether it was offered one.
    pub(super) fn install(&mut self, at: u64) -> bool {
        let Some((_, position, members)) = self.seat(at).offered.take() else { return false };
        let hard_state = self.replica(at).install_hard_state(position);
        if let Some(hard_state) = hard_state {
            let disk = Recovered { hard_state, trimmed: position, entries: Vec::new() };
            let applied = self.history.range(..=position.index).map(|(_, entry)| entry.clone()).collect();
            self.start(id(at), disk, (position.index, members), applied);
        }
        true
    }

    pub(super) fn replica(&self, at: u64) -> &Replica {
        self.seats[&id(at)].replica.as_ref().unwrap()
    }

    pub(super) fn seat(&mut self, at: u64) -> &mut Seat {
        self.seats.get_mut(&id(at)).unwrap()
    }

    pub(super) fn step(&mut self, at: ReplicaId, event: Event) {
        self.try_step(at, event).unwrap();
    }

    /// Gives an event to a replica, if it lives, and carries out the effects, but for writes and fetches, which wait.
    pub(super) fn try_step(&mut self, at: ReplicaId, event: Event) -> Result<(), ConsensusError> {
        let Some(seat) = self.seats.get_mut(&at) else { return Ok(()) };
        let Some(replica) = &mut seat.replica else { return Ok(()) };
        let mut effects = Vec::new();
        let outcome = replica.step(event, &mut effects);
        let (mut applied, mut fresh, busy) = (None, Vec::new(), seat.busy);
        for effect in effects {
            self.trace.push((at, effect.clone()));
            match effect {
                Effect::Persist { ref entries, hard_state, .. } => {
                    if let (Some(hard_state), Some(first)) = (hard_state, entries.first()) {
                        assert!(hard_state.commit < first.index, "{at} calls committed what is not yet written");
                    }
                    seat.writes.push_back(effect);
                }
                Effect::Fetch { .. } => seat.fetches.push_back(effect),
                Effect::Send { to, ref message } => {
                    assert_eq!(to, message.to);
                    self.wire.push_back(Message::decode(&message.encode().into()).unwrap());
                }
                Effect::Apply { entries } => {
                    let next = seat.applied.len() as u64 + 1;
                    assert_eq!(entries[0].index, Index(next), "{at} applies out of order");
                    applied = entries.last().map(|entry| entry.index);
                    for entry in &entries {
                        let bare = Committed { ticket: None, ..entry.clone() };
                        let first = self.history.entry(entry.index).or_insert_with(|| {
                            fresh.push((entry.index, entry.term));
                            bare.clone()
                        });
                        assert_eq!(*first, bare, "{at} applies another entry than others before it");
                    }
                    seat.applied.extend(entries);
                }
                Effect::Members { members, index } => {
                    let next = seat.applied.len() as u64 + 1;
                    assert_eq!(index, Index(next), "{at} does not say who the members are before the entry");
                    let first = self.configurations.entry(index).or_insert_with(|| members.clone());
                    assert_eq!(*first, members, "{at} goes over to other members at {index}");
                }
                Effect::Offered { from, position, members } => seat.offered = Some((from, position, members)),
                Effect::Trimmed { position } => {
                    seat.disk.trimmed = position;
                    seat.disk.entries.retain(|entry| entry.index > position.index);
                }
                Effect::Refused { .. }
                | Effect::Abandoned { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadLost { .. }
                | Effect::Role { .. } => seat.notices.push(effect),
            }
        }
        for (index, term) in fresh {
            assert!(self.is_durable(index, term), "{at} applies {index}, which no quorum has");
        }
        if let Some(through) = applied.filter(|_| !busy) {
            self.step(at, Event::Applied { through });
        }
        self.check(at);
        outcome
    }

    /// Whether a quorum has an entry on its disks. A leader commits by the members of what it has applied, which may be
    /// those of one change before the last that precedes the entry.
    fn is_durable(&self, index: Index, term: Term) -> bool {
        let has = |voter: &&ReplicaId| {
            self.seats.get(voter).is_some_and(|seat| {
                let holds = |entry: &Entry| (entry.index, entry.term) == (index, term);
                seat.disk.trimmed.index >= index || seat.disk.entries.iter().any(holds)
            })
        };
        let majority =
            |voters: &BTreeSet<ReplicaId>| voters.is_empty() || voters.iter().filter(has).count() > voters.len() / 2;
        let mut before = self.configurations.range(..index).rev().take(2).map(|(_, members)| members);
        before.any(|members| majority(&members.voters) && majority(&members.outgoing))
    }

    /// The watermarks are in order, a term has one leader, and everybody has the members of what he was given to apply.
    fn check(&mut self, at: ReplicaId) {
        let seat = &self.seats[&at];
        let status = seat.replica.as_ref().unwrap().status();
        let marks = [status.trimmed, status.evicted, status.applied, status.committed, status.last];
        assert!(marks.is_sorted(), "{marks:?}");
        assert!(status.applied <= status.persisted && status.persisted <= status.last);
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(at);
            assert_eq!(leader, at, "two lead in term {}", status.term);
        }
        let given = seat.applied.last().map_or(status.applied, |entry| entry.index);
        let known = self.configurations.range(..=given).next_back().map(|(_, members)| members);
        let newcomer = seat.kept.1.is_empty() && status.members.is_empty();
        assert!(newcomer || known == Some(&status.members), "{at} has the members {:?}", status.members);
    }

    pub(super) fn connected(&self, message: &Message) -> bool {
        !self.cut.contains(&(message.from, message.to)) && !self.lost.contains(&message.kind)
    }

    /// Cuts every link between two sides.
    pub(super) fn part(&mut self, one: &[ReplicaId], other: &[ReplicaId]) {
        for (from, to) in one.iter().flat_map(|from| other.iter().map(move |to| (*from, *to))) {
            self.cut.extend([(from, to), (to, from)]);
        }
    }

    pub(super) fn isolate(&mut self, at: u64) {
        let others: Vec<_> = self.everybody().into_iter().filter(|other| *other != id(at)).collect();
        self.part(&[id(at)], &others);
    }

    fn is_isolated(&self, at: ReplicaId) -> bool {
        self.everybody().into_iter().all(|other| other == at || self.cut.contains(&(at, other)))
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.lost.clear();
    }

    /// Delivers and persists until nothing moves.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            if let Some(message) = self.wire.pop_front() {
                if self.connected(&message) {
                    self.step(message.to, Event::Receive(message));
                }
                continue;
            }
            let Some(at) = self.ready_disk() else { return };
            let seat = self.seats.get_mut(&at).unwrap();
            let event = seat.write().or_else(|| seat.fetch()).unwrap();
            self.step(at, event);
        }
        panic!("the group never comes to rest");
    }

    fn ready_disk(&self) -> Option<ReplicaId> {
        let ready =
            |seat: &Seat| !seat.stuck && seat.replica.is_some() && !(seat.writes.is_empty() && seat.fetches.is_empty());
        self.seats.iter().find(|(_, seat)| ready(seat)).map(|(at, _)| *at)
    }

    /// Lets ticks pass everywhere; the group comes to rest after each.
    pub(super) fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for at in self.everybody() {
                self.step(at, Event::Tick);
            }
            self.run();
        }
    }

    pub(super) fn change(&mut self, at: u64, ticket: u64, change: Change) {
        self.step(id(at), Event::Change { ticket, change });
    }

    pub(super) fn propose(&mut self, at: u64, ticket: u64, text: &str) {
        self.step(id(at), Event::Propose { ticket, payload: payload(text) });
    }

    /// Who leads among those who can be reached.
    pub(super) fn leader(&self) -> u64 {
        let leads = |(at, seat): (&ReplicaId, &Seat)| {
            let leads = seat.replica.as_ref().is_some_and(|replica| replica.role() == Role::Leader);
            (leads && !self.is_isolated(*at)).then_some(at.0)
        };
        let leaders: Vec<u64> = self.seats.iter().filter_map(leads).collect();
        assert_eq!(leaders.len(), 1, "one leads");
        leaders[0]
    }
}
