//! Stories of small groups: replicas, a network and disks in one deterministic loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::message::tests::any_message;
use super::*;
use crate::entry::Recovered;
use crate::id::{Boot, Incarnation};
use crate::limits;

const SHARD: ShardId = ShardId(7);

fn id(id: u64) -> ReplicaId {
    ReplicaId(id)
}

fn payload(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// One replica with its disk, and what it told its caller.
struct Seat {
    replica: Option<Replica>,
    disk: Recovered,
    writes: VecDeque<Effect>,
    /// The disk is stuck: writes and fetches wait.
    stuck: bool,
    fetches: VecDeque<Effect>,
    applied: Vec<Committed>,
    notices: Vec<Effect>,
}

impl Seat {
    fn answered(&self, ticket: u64) -> Option<Index> {
        self.applied.iter().find(|entry| entry.ticket == Some(ticket)).map(|entry| entry.index)
    }

    fn write(&mut self) -> Option<u64> {
        let Some(Effect::Persist { number, truncate_from, entries, hard_state }) = self.writes.pop_front() else {
            return None;
        };
        if let Some(hard_state) = hard_state {
            self.disk.hard_state = hard_state;
        }
        if let Some(from) = truncate_from {
            self.disk.entries.retain(|entry| entry.index < from);
        }
        let last = self.disk.entries.last().map_or(self.disk.trimmed.index, |entry| entry.index);
        assert!(entries.first().is_none_or(|first| first.index.0 == last.0 + 1), "a gap on the disk");
        self.disk.entries.extend(entries);
        Some(number)
    }

    fn fetch(&mut self) -> Option<Event> {
        let Some(Effect::Fetch { number, from, through, .. }) = self.fetches.pop_front() else { return None };
        let wanted = |entry: &&Entry| entry.index >= from && entry.index <= through;
        Some(Event::Fetched { number, entries: self.disk.entries.iter().filter(wanted).take(2).cloned().collect() })
    }
}

struct World {
    voters: Vec<ReplicaId>,
    seats: BTreeMap<ReplicaId, Seat>,
    wire: VecDeque<Message>,
    cut: BTreeSet<ReplicaId>,
    trace: Vec<String>,
    seed: u64,
    boots: u64,
}

impl World {
    fn new(size: u64, seed: u64) -> Self {
        let voters: Vec<_> = (1..=size).map(id).collect();
        let mut world = Self {
            voters: voters.clone(),
            seats: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            trace: Vec::new(),
            seed,
            boots: 0,
        };
        for voter in voters {
            world.start(voter, Recovered::default(), Vec::new());
        }
        world
    }

    /// Three replicas of which the first leads and has committed its first entry.
    fn led() -> Self {
        let mut world = Self::new(3, 1);
        world.step(id(1), Event::Campaign);
        world.run();
        assert_eq!(world.replica(1).role(), Role::Leader);
        world
    }

    fn start(&mut self, at: ReplicaId, disk: Recovered, applied: Vec<Committed>) {
        self.boots += 1;
        let options = ReplicaOptions {
            shard: SHARD,
            id: at,
            voters: self.voters.clone(),
            learners: Vec::new(),
            boot: Boot(self.boots),
            incarnation: Incarnation(1),
            seed: self.seed,
            knobs: Knobs { append_bytes_max: 64, ..Knobs::default() },
        };
        let replica = Replica::new(options, disk.clone(), disk.trimmed.index).unwrap();
        let seat = Seat {
            replica: Some(replica),
            disk,
            writes: VecDeque::new(),
            stuck: false,
            fetches: VecDeque::new(),
            applied,
            notices: Vec::new(),
        };
        self.seats.insert(at, seat);
    }

    fn kill(&mut self, at: u64) {
        self.seats.get_mut(&id(at)).unwrap().replica = None;
    }

    /// Starts a killed replica from what reached its disk; its state machine has what was trimmed.
    fn restart(&mut self, at: u64) {
        let seat = self.seats.remove(&id(at)).unwrap();
        let trimmed = seat.disk.trimmed.index;
        let applied = seat.applied.into_iter().filter(|entry| entry.index <= trimmed).collect();
        self.start(id(at), seat.disk, applied);
    }

    fn replica(&self, at: u64) -> &Replica {
        self.seats[&id(at)].replica.as_ref().unwrap()
    }

    fn seat(&mut self, at: u64) -> &mut Seat {
        self.seats.get_mut(&id(at)).unwrap()
    }

    fn step(&mut self, at: ReplicaId, event: Event) {
        let seat = self.seats.get_mut(&at).unwrap();
        let Some(replica) = &mut seat.replica else { return };
        self.trace.push(format!("{at} <- {event:?}"));
        let mut effects = Vec::new();
        replica.step(event, &mut effects).unwrap();
        let mut applied = None;
        for effect in effects {
            self.trace.push(format!("{at} -> {effect:?}"));
            match effect {
                Effect::Persist { .. } => seat.writes.push_back(effect),
                Effect::Fetch { .. } => seat.fetches.push_back(effect),
                Effect::Send { to, ref message } => {
                    assert_eq!(to, message.to);
                    self.wire.push_back(Message::decode(&message.encode().into()).unwrap());
                }
                Effect::Apply { entries } => {
                    let next = seat.applied.len() as u64 + 1;
                    assert_eq!(entries[0].index, Index(next), "{at} applies out of order");
                    applied = entries.last().map(|entry| entry.index);
                    seat.applied.extend(entries);
                }
                Effect::Trimmed { position } => {
                    seat.disk.trimmed = position;
                    seat.disk.entries.retain(|entry| entry.index > position.index);
                }
                Effect::Refused { .. }
                | Effect::Abandoned { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadLost { .. }
                | Effect::Role { .. }
                | Effect::NeedsSnapshot { .. } => seat.notices.push(effect),
            }
        }
        if let Some(through) = applied {
            self.step(at, Event::Applied { through });
        }
        self.check(at);
    }

    /// The watermarks are in order, and nobody applied another entry at the same index.
    fn check(&self, at: ReplicaId) {
        let seat = &self.seats[&at];
        let status = seat.replica.as_ref().unwrap().status();
        let marks = [status.trimmed, status.evicted, status.applied, status.committed, status.last];
        assert!(marks.is_sorted(), "{marks:?}");
        assert!(status.applied <= status.persisted && status.persisted <= status.last);
        for other in self.seats.values() {
            for (one, two) in seat.applied.iter().zip(&other.applied).rev().take(8) {
                assert_eq!((one.term, &one.payload), (two.term, &two.payload), "index {}", one.index);
            }
        }
    }

    fn connected(&self, message: &Message) -> bool {
        !self.cut.contains(&message.from) && !self.cut.contains(&message.to)
    }

    /// Delivers and persists until nothing moves.
    fn run(&mut self) {
        for _ in 0..100_000 {
            if let Some(message) = self.wire.pop_front() {
                if self.connected(&message) {
                    self.step(message.to, Event::Receive(message));
                }
                continue;
            }
            let Some(at) = self.ready_disk() else { return };
            let seat = self.seats.get_mut(&at).unwrap();
            let event = seat.write().map(|number| Event::Persisted { number }).or_else(|| seat.fetch());
            self.step(at, event.unwrap());
        }
        panic!("the group never comes to rest");
    }

    fn ready_disk(&self) -> Option<ReplicaId> {
        let ready =
            |seat: &Seat| !seat.stuck && seat.replica.is_some() && !(seat.writes.is_empty() && seat.fetches.is_empty());
        self.seats.iter().find(|(_, seat)| ready(seat)).map(|(at, _)| *at)
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for at in self.voters.clone() {
                self.step(at, Event::Tick);
            }
            self.run();
        }
    }

    fn propose(&mut self, at: u64, ticket: u64, text: &str) {
        self.step(id(at), Event::Propose { ticket, payload: payload(text) });
    }

    fn leader(&self) -> u64 {
        let leads = |(at, seat): (&ReplicaId, &Seat)| {
            let leads = seat.replica.as_ref().is_some_and(|replica| replica.role() == Role::Leader);
            (leads && !self.cut.contains(at)).then_some(at.0)
        };
        let leaders: Vec<u64> = self.seats.iter().filter_map(leads).collect();
        assert_eq!(leaders.len(), 1, "one leads");
        leaders[0]
    }
}

#[test]
fn three_replicas_elect_one_leader_and_replicate() {
    let mut world = World::new(3, 1);
    world.tick(2 * limits::ELECTION_TICKS);
    let leader = world.leader();
    world.propose(leader, 1, "one");
    world.propose(leader, 2, "two");
    world.run();
    // A leader forgets who answered whenever it checks for its quorum, and hears of them with its next heartbeat.
    world.tick(limits::HEARTBEAT_TICKS + 1);
    for at in 1..=3 {
        let texts: Vec<_> = world.seat(at).applied.iter().map(|entry| entry.payload.clone()).collect();
        assert_eq!(texts, [Bytes::new(), payload("one"), payload("two")]);
    }
    assert_eq!(world.seat(leader).answered(1), Some(Index(2)));
    assert_eq!(world.seat(leader).answered(2), Some(Index(3)));
    let peers = world.replica(leader).peers();
    assert_eq!(peers.iter().map(|peer| peer.matched).collect::<Vec<_>>(), [Index(3), Index(3)]);
    assert!(peers.iter().all(|peer| peer.state == PeerState::Replicating && peer.active));
}

#[test]
fn a_single_replica_commits_by_its_own_write_alone() {
    let mut world = World::new(1, 1);
    world.seat(1).stuck = true;
    world.tick(2 * limits::ELECTION_TICKS);
    world.propose(1, 1, "one");
    world.run();
    assert_eq!(world.replica(1).role(), Role::Leader);
    assert_eq!(world.replica(1).committed(), Index(0));
    world.seat(1).stuck = false;
    world.run();
    assert_eq!(world.seat(1).answered(1), Some(Index(2)));
    world.step(id(1), Event::Read { ticket: 9 });
    assert!(world.seat(1).notices.contains(&Effect::ReadReady { ticket: 9, index: Index(2) }));
}

#[test]
fn a_majority_without_the_leaders_own_disk_commits_but_the_leader_does_not_apply() {
    let mut world = World::led();
    world.seat(1).stuck = true;
    world.propose(1, 1, "one");
    world.run();
    assert_eq!(world.replica(1).committed(), Index(2));
    assert_eq!(world.replica(1).applied(), Index(1));
    world.seat(1).stuck = false;
    world.run();
    assert_eq!(world.seat(1).answered(1), Some(Index(2)));
}

#[test]
fn followers_answer_only_after_their_own_write() {
    let mut world = World::led();
    world.seat(2).stuck = true;
    world.seat(3).stuck = true;
    world.propose(1, 1, "one");
    world.run();
    assert_eq!(world.replica(1).persisted(), Index(2));
    assert_eq!(world.replica(1).committed(), Index(1));
    world.seat(3).stuck = false;
    world.run();
    assert_eq!(world.seat(1).answered(1), Some(Index(2)));
}

#[test]
fn the_others_elect_a_new_leader_when_one_dies() {
    let mut world = World::led();
    world.propose(1, 1, "one");
    world.run();
    world.kill(1);
    world.tick(4 * limits::ELECTION_TICKS);
    let leader = world.leader();
    assert_ne!(leader, 1);
    world.propose(leader, 2, "two");
    world.run();
    assert!(world.seat(leader).answered(2).is_some());
    assert!(world.seat(leader).applied.iter().any(|entry| entry.payload == payload("one")));
    world.restart(1);
    world.tick(limits::ELECTION_TICKS);
    assert_eq!(world.replica(1).role(), Role::Follower);
    assert_eq!(world.seat(1).applied.len(), world.seat(leader).applied.len());
}

#[test]
fn an_old_leader_abandons_what_it_could_not_commit() {
    let mut world = World::led();
    world.cut.insert(id(1));
    world.propose(1, 1, "lost");
    world.run();
    world.tick(4 * limits::ELECTION_TICKS);
    assert_ne!(world.replica(1).role(), Role::Leader);
    assert!(world.seat(1).notices.contains(&Effect::Abandoned { ticket: 1 }));
    let leader = world.leader();
    world.propose(leader, 2, "kept");
    world.run();
    world.cut.clear();
    world.tick(2 * limits::ELECTION_TICKS);
    assert!(world.seats.values().all(|seat| seat.applied.iter().all(|entry| entry.payload != payload("lost"))));
    assert!(world.seat(1).applied.iter().any(|entry| entry.payload == payload("kept") && entry.ticket.is_none()));
}

#[test]
fn a_follower_refuses_proposals_and_names_the_leader() {
    let mut world = World::led();
    world.propose(2, 1, "one");
    world.step(id(2), Event::Read { ticket: 2 });
    let leader = Some(id(1));
    assert!(world.seat(2).notices.contains(&Effect::Refused { ticket: 1, why: Refusal::NotLeader { leader } }));
    assert!(world.seat(2).notices.contains(&Effect::ReadLost { ticket: 2, why: ReadLoss::NotLeader { leader } }));
    assert!(world.wire.is_empty(), "nothing is forwarded");
}

#[test]
fn proposals_beyond_the_bounds_are_refused() {
    let mut world = World::led();
    world.cut.insert(id(1));
    world.step(id(1), Event::Propose { ticket: 0, payload: Bytes::new() });
    let long = Bytes::from(vec![0; limits::ENTRY_BYTES_MAX + 1]);
    world.step(id(1), Event::Propose { ticket: 1, payload: long.clone() });
    let refused = |bytes| Refusal::Size { bytes };
    assert!(world.seat(1).notices.contains(&Effect::Refused { ticket: 0, why: refused(0) }));
    assert!(world.seat(1).notices.contains(&Effect::Refused { ticket: 1, why: refused(long.len()) }));
    let full = Bytes::from(vec![0; limits::ENTRY_BYTES_MAX]);
    let fit = limits::UNCOMMITTED_BYTES_MAX / full.len() as u64;
    for ticket in 2..=fit + 2 {
        world.step(id(1), Event::Propose { ticket, payload: full.clone() });
    }
    let busy: Vec<_> = world.seat(1).notices.iter().filter(|notice| matches!(notice, Effect::Refused { .. })).collect();
    assert_eq!(busy.last(), Some(&&Effect::Refused { ticket: fit + 2, why: Refusal::Busy }));
    assert_eq!(busy.len(), 3);
}

#[test]
fn a_read_waits_for_a_majority() {
    let mut world = World::led();
    world.propose(1, 1, "one");
    world.run();
    world.step(id(1), Event::Read { ticket: 10 });
    world.step(id(1), Event::Read { ticket: 11 });
    let ready = |world: &World| {
        let ready = |notice: &Effect| {
            if let Effect::ReadReady { ticket, index } = notice { Some((*ticket, *index)) } else { None }
        };
        world.seats[&id(1)].notices.iter().filter_map(ready).collect::<Vec<_>>()
    };
    assert!(ready(&world).is_empty(), "nobody has answered yet");
    world.run();
    assert_eq!(ready(&world), [(10, Index(2)), (11, Index(2))]);
}

#[test]
fn a_read_at_a_leader_that_was_replaced_is_lost() {
    let mut world = World::led();
    world.cut.insert(id(1));
    world.step(id(1), Event::Read { ticket: 10 });
    world.tick(4 * limits::ELECTION_TICKS);
    let lost = |notice: &Effect| matches!(notice, Effect::ReadLost { ticket: 10, .. });
    assert_eq!(world.seat(1).notices.iter().filter(|notice| lost(notice)).count(), 1);
    assert!(!world.seat(1).notices.iter().any(|notice| matches!(notice, Effect::ReadReady { .. })));
}

#[test]
fn a_read_survives_lost_messages() {
    let mut world = World::led();
    world.step(id(1), Event::Read { ticket: 10 });
    world.wire.clear();
    world.tick(limits::HEARTBEAT_TICKS);
    assert!(world.seat(1).notices.contains(&Effect::ReadReady { ticket: 10, index: Index(1) }));
}

#[test]
fn a_read_before_the_first_commit_of_a_term_waits_for_it() {
    let mut world = World::new(3, 1);
    for at in [2, 3] {
        world.seat(at).stuck = true;
    }
    world.step(id(1), Event::Campaign);
    world.run();
    for at in [2, 3] {
        let seat = world.seat(at);
        let number = seat.write().unwrap();
        world.step(id(at), Event::Persisted { number });
    }
    world.run();
    assert_eq!(world.replica(1).role(), Role::Leader);
    world.step(id(1), Event::Read { ticket: 10 });
    world.run();
    assert!(!world.seat(1).notices.iter().any(|notice| matches!(notice, Effect::ReadReady { .. })));
    world.seat(2).stuck = false;
    world.run();
    assert!(world.seat(1).notices.contains(&Effect::ReadReady { ticket: 10, index: Index(1) }));
}

#[test]
#[should_panic(expected = "persisted 1000 where")]
fn completions_out_of_order_are_a_programmer_error() {
    let mut world = World::led();
    world.seat(1).stuck = true;
    world.propose(1, 1, "one");
    world.step(id(1), Event::Persisted { number: 1000 });
}

#[test]
fn a_slow_follower_is_fed_from_the_disk() {
    let mut world = World::led();
    world.cut.insert(id(3));
    for ticket in 1..=20 {
        world.propose(1, ticket, &format!("entry {ticket} with some bytes"));
        world.run();
    }
    for at in [1, 2] {
        world.step(id(at), Event::Evict { through: Index(15) });
    }
    assert_eq!(world.replica(1).status().evicted, Index(15));
    world.cut.clear();
    world.tick(3 * limits::HEARTBEAT_TICKS);
    assert!(world.trace.iter().any(|line| line.contains("-> Fetch")));
    assert_eq!(world.seat(3).applied.len(), 21);
    assert_eq!(world.replica(1).trimmed().index, Index(0));
}

#[test]
fn a_fetch_that_is_never_answered_or_fails_is_asked_for_again() {
    let mut world = World::led();
    world.cut.insert(id(3));
    for ticket in 1..=5 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.step(id(1), Event::Evict { through: Index(4) });
    world.cut.clear();
    world.seat(1).stuck = true;
    world.tick(limits::HEARTBEAT_TICKS);
    let Some(Effect::Fetch { number, .. }) = world.seat(1).fetches.pop_front() else { panic!("nothing is fetched") };
    world.tick(4 * limits::HEARTBEAT_TICKS);
    assert!(world.seat(1).fetches.is_empty(), "it is not asked for twice");
    world.step(id(1), Event::Fetched { number, entries: Vec::new() });
    world.tick(limits::HEARTBEAT_TICKS);
    assert!(world.seat(1).fetches.pop_front().is_some(), "a failed fetch is asked for again");
    world.tick(limits::FETCH_TICKS_MAX as usize + 2 * limits::HEARTBEAT_TICKS);
    assert!(!world.seat(1).fetches.is_empty(), "an unanswered fetch is asked for again");
    world.seat(1).stuck = false;
    world.tick(3 * limits::HEARTBEAT_TICKS);
    assert_eq!(world.seat(3).applied.len(), 6);
}

#[test]
fn entries_that_were_not_written_are_not_taken_from_the_disk() {
    let mut world = World::led();
    world.cut.insert(id(3));
    for ticket in 1..=5 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.step(id(1), Event::Evict { through: Index(4) });
    world.cut.clear();
    world.seat(1).stuck = true;
    world.tick(limits::HEARTBEAT_TICKS);
    let Some(Effect::Fetch { number, from, .. }) = world.seat(1).fetches.pop_front() else { panic!("no fetch") };
    let wrong = Entry { index: from, term: Term(99), kind: EntryKind::Normal, payload: payload("entry") };
    let event = Event::Fetched { number, entries: vec![wrong] };
    let error = world.seat(1).replica.as_mut().unwrap().step(event, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ConsensusError::FetchedOther { .. }));
    assert_eq!(error.class(), Class::Fatal);
}

#[test]
fn a_follower_below_the_trimmed_log_needs_a_snapshot() {
    let mut world = World::led();
    world.cut.insert(id(3));
    for ticket in 1..=10 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.step(id(1), Event::Trim { through: Index(8) });
    assert_eq!(world.replica(1).first_index(), Index(9));
    assert_eq!(world.replica(1).position(Index(8)), Some(Position { index: Index(8), term: Term(1) }));
    assert_eq!(world.replica(1).position(Index(7)), None);
    world.cut.clear();
    world.tick(2 * limits::ELECTION_TICKS);
    let told = world.seat(1).notices.iter().filter(|notice| **notice == Effect::NeedsSnapshot { peer: id(3) }).count();
    assert_eq!(told, 1);
    assert_eq!(world.replica(1).peers()[1].state, PeerState::NeedsSnapshot);
    world.propose(1, 99, "goes on");
    world.run();
    assert!(world.seat(1).answered(99).is_some());
}

#[test]
fn a_group_restarts_from_its_disks_and_trimmed_logs() {
    let mut world = World::led();
    for ticket in 1..=6 {
        world.propose(1, ticket, &format!("entry {ticket}"));
    }
    world.run();
    world.tick(limits::HEARTBEAT_TICKS);
    for at in 1..=3 {
        world.step(id(at), Event::Trim { through: Index(at + 2) });
        world.kill(at);
    }
    world.wire.clear();
    for at in 1..=3 {
        world.restart(at);
        assert_eq!(world.replica(at).applied(), Index(at + 2));
    }
    world.tick(4 * limits::ELECTION_TICKS);
    let leader = world.leader();
    world.propose(leader, 77, "after");
    world.run();
    world.tick(limits::HEARTBEAT_TICKS);
    for at in 1..=3 {
        let texts: Vec<_> = world.seat(at).applied.iter().map(|entry| entry.payload.clone()).collect();
        assert_eq!(texts[1..7], (1..=6).map(|n| payload(&format!("entry {n}"))).collect::<Vec<_>>());
        assert_eq!(texts.last(), Some(&payload("after")));
    }
}

#[test]
fn what_a_crash_kept_from_the_disk_is_sent_again() {
    let mut world = World::led();
    world.seat(2).stuck = true;
    for ticket in 1..=3 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.kill(2);
    world.restart(2);
    assert_eq!(world.replica(2).last_index(), Index(1));
    world.tick(2 * limits::HEARTBEAT_TICKS);
    assert_eq!(world.seat(2).applied.len(), 4);
}

#[test]
fn a_torn_write_of_a_new_term_starts_in_that_term_without_a_vote() {
    let entry = |index, term| Entry {
        index: Index(index),
        term: Term(term),
        kind: EntryKind::Normal,
        payload: payload("entry"),
    };
    let disk = Recovered {
        hard_state: HardState { term: Term(1), vote: Some(id(3)), commit: Index(9) },
        trimmed: Position::default(),
        entries: vec![entry(1, 1), entry(2, 4)],
    };
    let mut world = World::new(3, 1);
    world.start(id(2), disk, Vec::new());
    assert_eq!(world.replica(2).term(), Term(4));
    assert_eq!(world.replica(2).committed(), Index(2));
    world.run();
}

#[test]
fn a_log_that_cannot_be_is_refused() {
    let entry =
        |index, term| Entry { index: Index(index), term: Term(term), kind: EntryKind::Normal, payload: payload("e") };
    let start = |trimmed: (u64, u64), entries: Vec<Entry>, applied| {
        let recovered = Recovered {
            hard_state: HardState::default(),
            trimmed: Position { index: Index(trimmed.0), term: Term(trimmed.1) },
            entries,
        };
        Replica::new(options(1), recovered, Index(applied)).map(|_| ()).map_err(|error| error.class())
    };
    assert_eq!(start((4, 2), vec![entry(5, 2), entry(6, 3)], 5), Ok(()));
    assert_eq!(start((4, 2), vec![entry(6, 2)], 4), Err(Class::Fatal));
    assert_eq!(start((4, 2), vec![entry(5, 1)], 4), Err(Class::Fatal));
    assert_eq!(start((4, 2), vec![entry(5, 2)], 3), Err(Class::Fatal));
    assert_eq!(start((4, 2), vec![entry(5, 2)], 6), Err(Class::Fatal));
    assert_eq!(start((4, 0), vec![], 4), Err(Class::Fatal));
    let strangers = ReplicaOptions { id: id(9), ..options(1) };
    assert!(matches!(
        Replica::new(strangers, Recovered::default(), Index(0)),
        Err(ConsensusError::Options { shard: SHARD, .. })
    ));
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut world = World::led();
    world.propose(1, 1, "one");
    world.run();
    world.step(id(1), Event::Transfer { to: id(3) });
    world.propose(1, 2, "in between");
    let leader = None;
    assert!(world.seat(1).notices.contains(&Effect::Refused { ticket: 2, why: Refusal::NotLeader { leader } }));
    world.run();
    assert_eq!(world.leader(), 3);
}

#[test]
fn a_learner_follows_and_never_stands() {
    let mut learner =
        Replica::new(ReplicaOptions { learners: vec![id(4)], id: id(4), ..options(4) }, Recovered::default(), Index(0))
            .unwrap();
    let mut effects = Vec::new();
    assert_eq!(learner.role(), Role::Learner);
    learner.step(Event::Campaign, &mut effects).unwrap();
    for _ in 0..10 * limits::ELECTION_TICKS {
        learner.step(Event::Tick, &mut effects).unwrap();
    }
    assert_eq!(effects, []);
}

#[test]
fn a_sole_voter_speaks_to_learners_only_in_a_durable_term() {
    let options = ReplicaOptions { voters: vec![id(1)], learners: vec![id(2)], ..options(1) };
    let mut replica = Replica::new(options, Recovered::default(), Index(0)).unwrap();
    let mut effects = Vec::new();
    replica.step(Event::Campaign, &mut effects).unwrap();
    assert_eq!(replica.role(), Role::Leader);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })));
    replica.step(Event::Persisted { number: 1 }, &mut effects).unwrap();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Send { .. })));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let story = |seed| {
        let mut world = World::new(3, seed);
        world.tick(3 * limits::ELECTION_TICKS);
        let leader = world.leader();
        world.propose(leader, 1, "one");
        world.kill(leader);
        world.tick(5 * limits::ELECTION_TICKS);
        world.restart(leader);
        world.tick(2 * limits::ELECTION_TICKS);
        world.trace
    };
    assert_eq!(story(5), story(5));
    assert!((0..8).any(|seed| story(seed) != story(5)), "a seed decides something");
}

#[test]
fn three_replicas_with_one_seed_do_not_stand_in_step_for_ever() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        world.tick(4 * limits::ELECTION_TICKS);
        world.leader();
    }
}

fn options(id_: u64) -> ReplicaOptions {
    ReplicaOptions {
        shard: SHARD,
        id: id(id_),
        voters: vec![id(1), id(2), id(3)],
        learners: Vec::new(),
        boot: Boot(1),
        incarnation: Incarnation(1),
        seed: 1,
        knobs: Knobs::default(),
    }
}

#[derive(Clone, Debug)]
enum Poke {
    Foreign(Message),
    Tick,
    Campaign,
    Propose,
    Read,
    Persist,
    Evict,
    Trim,
}

fn any_poke() -> impl Strategy<Value = Poke> {
    prop_oneof![
        12 => any_message().prop_map(Poke::Foreign),
        2 => Just(Poke::Tick),
        1 => Just(Poke::Campaign),
        1 => Just(Poke::Propose),
        1 => Just(Poke::Read),
        4 => Just(Poke::Persist),
        1 => Just(Poke::Evict),
        1 => Just(Poke::Trim),
    ]
}

/// A caller that does what a replica says, while strangers say anything to it.
fn poke(replica: &mut Replica, writes: &mut VecDeque<u64>, poke: Poke) {
    let event = match poke {
        Poke::Foreign(mut message) => {
            message.to = replica.id();
            Event::Receive(message)
        }
        Poke::Tick => Event::Tick,
        Poke::Campaign => Event::Campaign,
        Poke::Propose => Event::Propose { ticket: 1, payload: payload("own") },
        Poke::Read => Event::Read { ticket: 1 },
        Poke::Persist => match writes.pop_front() {
            Some(number) => Event::Persisted { number },
            None => return,
        },
        Poke::Evict => Event::Evict { through: replica.applied() },
        Poke::Trim => Event::Trim { through: replica.applied() },
    };
    let mut effects = Vec::new();
    if let Err(error) = replica.step(event, &mut effects) {
        assert_eq!(error.class(), Class::Refuse, "{error}");
    }
    let mut through = None;
    for effect in effects {
        if let Effect::Persist { number, .. } = effect {
            writes.push_back(number);
        } else if let Effect::Apply { entries } = effect {
            through = entries.last().map(|entry| entry.index);
        }
    }
    if let Some(through) = through {
        replica.step(Event::Applied { through }, &mut Vec::new()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_a_replica_panic(pokes in proptest::collection::vec(any_poke(), 1..120), single: bool) {
        let mut options = options(1);
        if single {
            (options.voters, options.learners) = (vec![id(1)], vec![id(2)]);
        }
        let mut replica = Replica::new(options, Recovered::default(), Index(0)).unwrap();
        let mut writes = VecDeque::new();
        for next in pokes {
            poke(&mut replica, &mut writes, next);
        }
    }

    #[test]
    fn a_group_agrees_whatever_is_lost(
        steps in proptest::collection::vec((0..10u8, 1..4u64), 1..80),
        seed: u64,
    ) {
        let mut world = World::new(3, seed);
        for (ticket, (what, at)) in steps.into_iter().enumerate() {
            match what {
                0..3 => world.tick(3),
                3 => { world.cut.insert(id(at)); }
                4 => world.cut.clear(),
                5 => { world.kill(at); world.restart(at); }
                6 => world.seat(at).stuck ^= true,
                7 => { world.wire.pop_front(); }
                _ => world.propose(at, ticket as u64, &format!("entry {ticket}")),
            }
        }
        world.cut.clear();
        for seat in world.seats.values_mut() {
            seat.stuck = false;
        }
        world.tick(6 * limits::ELECTION_TICKS);
        let leader = world.leader();
        world.propose(leader, u64::MAX, "last");
        world.run();
        world.tick(limits::HEARTBEAT_TICKS);
        let all: BTreeSet<usize> = world.seats.values().map(|seat| seat.applied.len()).collect();
        prop_assert_eq!(all.len(), 1);
        prop_assert!(world.seat(leader).answered(u64::MAX).is_some());
    }
}
