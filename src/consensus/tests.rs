//! Stories of small groups that are told shorter in code than in a script, and properties of all of them.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::message::tests::any_message;
use super::world::{SHARD, Seat, World, id, payload};
use super::*;
use crate::entry::Recovered;
use crate::id::{Boot, Incarnation};
use crate::limits;

#[test]
fn three_replicas_elect_one_leader_and_replicate() {
    let mut world = World::new(3, 1);
    world.tick(2 * limits::ELECTION_TICKS);
    let leader = world.leader();
    world.propose(leader, 1, "one");
    world.propose(leader, 2, "two");
    world.run();
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
fn who_answers_is_active_at_every_tick_and_who_does_not_is_active_no_more() {
    let mut world = World::led();
    world.tick(2 * limits::ELECTION_TICKS);
    let active = |world: &World| world.replica(1).peers().iter().filter(|peer| peer.active).count();
    for _ in 0..3 * limits::ELECTION_TICKS {
        world.tick(1);
        assert_eq!(active(&world), 2);
    }
    world.isolate(3);
    world.tick(2 * limits::ELECTION_TICKS);
    for _ in 0..2 * limits::ELECTION_TICKS {
        world.tick(1);
        assert_eq!(active(&world), 1);
    }
}

#[test]
fn a_learner_that_took_the_snapshot_of_all_there_is_counts_as_one_that_has_it() {
    let mut world = World::led();
    world.propose(1, 1, "a");
    world.run();
    world.join(4);
    world.change(1, 2, Change::AddLearner(id(4)));
    // Nothing reaches it before the log is trimmed to its end.
    world.isolate(4);
    world.tick(limits::HEARTBEAT_TICKS);
    let last = world.replica(1).last_index();
    world.trim(1, last);
    world.heal();
    world.tick(2 * limits::HEARTBEAT_TICKS);
    assert!(world.install(4));
    world.tick(2 * limits::HEARTBEAT_TICKS);
    let peer = world.replica(1).peers().into_iter().find(|peer| peer.id == id(4)).unwrap();
    assert_eq!((peer.state, peer.matched, peer.active), (PeerState::Replicating, last, true));
}

/// Everybody who is left starts again, with what was durable.
fn restart_all(world: &mut World) {
    for at in world.everybody() {
        world.kill(at.0);
        world.restart(at.0);
    }
    world.tick(4 * limits::ELECTION_TICKS);
}

#[test]
fn a_group_of_one_that_has_moved_needs_no_more_of_the_replica_that_it_left() {
    let mut world = World::new(1, 1);
    world.step(id(1), Event::Campaign);
    world.run();
    world.join(2);
    world.change(1, 1, Change::AddLearner(id(2)));
    world.tick(limits::HEARTBEAT_TICKS);
    world.change(1, 2, Change::Replace { add: Some(id(2)), remove: None });
    world.tick(limits::HEARTBEAT_TICKS);
    world.step(id(1), Event::Transfer { to: id(2) });
    world.tick(limits::HEARTBEAT_TICKS);
    world.change(2, 3, Change::Replace { add: None, remove: Some(id(1)) });
    world.tick(limits::HEARTBEAT_TICKS);
    assert_eq!(*world.replica(2).members(), Members::of([id(2)], []));
    world.seats.remove(&id(1));
    restart_all(&mut world);
    assert_eq!(world.replica(2).role(), Role::Leader);
}

#[test]
fn a_replica_that_is_told_to_lead_while_it_applies_a_change_of_members_does_so_afterwards() {
    let mut world = World::led();
    world.seat(2).busy = true;
    world.join(4);
    world.change(1, 1, Change::AddLearner(id(4)));
    world.run();
    world.step(id(1), Event::Transfer { to: id(2) });
    world.run();
    assert_eq!(world.leader(), 1, "the change is not applied at 2");
    let through = world.seat(2).applied.last().unwrap().index;
    world.seat(2).busy = false;
    world.step(id(2), Event::Applied { through });
    world.run();
    assert_eq!(world.leader(), 2, "without a tick");
}

#[test]
fn a_leader_hands_nothing_over_while_a_change_of_members_is_under_way() {
    let mut world = World::led();
    world.join(4);
    world.change(1, 1, Change::AddLearner(id(4)));
    world.tick(limits::HEARTBEAT_TICKS);
    world.step(id(1), Event::Change { ticket: 2, change: Change::Replace { add: Some(id(4)), remove: Some(id(3)) } });
    world.step(id(1), Event::Transfer { to: id(2) });
    world.run();
    assert_eq!((world.leader(), world.replica(1).term()), (1, Term(1)));
    assert_eq!(*world.replica(1).members(), Members::of([id(1), id(2), id(4)], []));
    world.step(id(1), Event::Transfer { to: id(2) });
    world.run();
    assert_eq!((world.leader(), world.replica(2).term()), (2, Term(2)));
}

#[test]
fn a_majority_that_starts_again_needs_no_replica_that_was_replaced() {
    let mut world = World::led();
    world.join(4);
    world.change(1, 1, Change::AddLearner(id(4)));
    world.tick(limits::HEARTBEAT_TICKS);
    world.change(1, 2, Change::Replace { add: Some(id(4)), remove: Some(id(3)) });
    world.tick(2 * limits::HEARTBEAT_TICKS);
    for at in [1, 2, 4] {
        assert_eq!(*world.replica(at).members(), Members::of([id(1), id(2), id(4)], []), "{at}");
    }
    world.seats.remove(&id(3));
    world.isolate(1);
    restart_all(&mut world);
    assert!([2, 4].contains(&world.leader()));
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
fn more_proposals_than_may_wait_are_refused() {
    let mut world = World::led();
    world.isolate(1);
    let full = limits::PROPOSALS_WAITING_MAX as u64;
    for ticket in 0..=full {
        world.propose(1, ticket, "x");
    }
    let refused: Vec<_> =
        world.seat(1).notices.iter().filter(|notice| matches!(notice, Effect::Refused { .. })).collect();
    assert_eq!(refused, [&Effect::Refused { ticket: full, why: Refusal::Busy }]);
    world.heal();
    world.run();
    assert_eq!(world.seat(1).applied.len() as u64, full + 1);
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
#[should_panic(expected = "persisted 1000 where")]
fn completions_out_of_order_are_a_programmer_error() {
    let mut world = World::led();
    world.seat(1).stuck = true;
    world.propose(1, 1, "one");
    world.step(id(1), Event::Persisted { number: 1000 });
}

#[test]
fn a_fetch_that_is_never_answered_or_fails_is_asked_for_again() {
    let mut world = World::led();
    world.isolate(3);
    for ticket in 1..=5 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.step(id(1), Event::Evict { through: Index(4) });
    world.heal();
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
    world.isolate(3);
    for ticket in 1..=5 {
        world.propose(1, ticket, "entry");
        world.run();
    }
    world.step(id(1), Event::Evict { through: Index(4) });
    world.heal();
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
fn a_group_restarts_from_its_disks_and_trimmed_logs() {
    let mut world = World::led();
    for ticket in 1..=6 {
        world.propose(1, ticket, &format!("entry {ticket}"));
    }
    world.run();
    world.tick(limits::HEARTBEAT_TICKS);
    for at in 1..=3 {
        let through = Index(at + 2);
        world.trim(at, through);
        assert_eq!(world.replica(at).first_index(), Index(at + 3));
        assert_eq!(world.replica(at).position(through), Some(Position { index: through, term: Term(1) }));
        assert_eq!(world.replica(at).position(Index(at + 1)), None);
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
    let kept = (Index(0), Members::of([1, 2, 3].map(id), []));
    world.start(id(2), disk, kept, Vec::new());
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
    let twice = ReplicaOptions { members: Members::of([1, 2].map(id), [id(2)]), ..options(1) };
    assert!(matches!(
        Replica::new(twice, Recovered::default(), Index(0)),
        Err(ConsensusError::Options { shard: SHARD, .. })
    ));
}

#[test]
fn who_does_not_vote_never_stands() {
    for members in [Members::of([1, 2, 3].map(id), [id(4)]), Members::of([1, 2, 3].map(id), []), Members::default()] {
        let options = ReplicaOptions { members, ..options(4) };
        let mut learner = Replica::new(options, Recovered::default(), Index(0)).unwrap();
        let mut effects = Vec::new();
        assert_eq!(learner.role(), Role::Learner);
        learner.step(Event::Campaign, &mut effects).unwrap();
        for _ in 0..10 * limits::ELECTION_TICKS {
            learner.step(Event::Tick, &mut effects).unwrap();
        }
        assert_eq!(effects, []);
    }
}

#[test]
fn a_leader_sees_which_of_its_peers_only_learns_and_how_far_it_is() {
    let mut world = World::led();
    world.join(4);
    world.change(1, 7, Change::AddLearner(id(4)));
    world.run();
    assert_eq!(world.seat(1).answered(7), Some(Index(2)));
    let members = Members::of([1, 2, 3].map(id), [id(4)]);
    assert_eq!(world.replica(1).members(), &members);
    assert_eq!(world.replica(1).members_at(Index(1)), Some(&Members::of([1, 2, 3].map(id), [])));
    assert_eq!(world.replica(1).members_at(Index(2)), Some(&members));
    let peers = world.replica(1).peers();
    assert_eq!(
        peers.iter().map(|peer| (peer.id.0, peer.learner)).collect::<Vec<_>>(),
        [(2, false), (3, false), (4, true)]
    );
    assert!(peers.iter().all(|peer| (peer.matched, peer.next) == (Index(2), Index(3))));
}

#[test]
fn a_change_is_given_up_with_the_leadership() {
    let mut world = World::led();
    world.isolate(1);
    world.change(1, 7, Change::AddLearner(id(4)));
    world.tick(3 * limits::ELECTION_TICKS);
    assert!(world.seat(1).notices.contains(&Effect::Abandoned { ticket: 7 }));
    world.heal();
    world.tick(3 * limits::ELECTION_TICKS);
    assert_eq!(world.replica(1).members(), &Members::of([1, 2, 3].map(id), []));
}

#[test]
fn a_snapshot_is_not_installed_over_what_was_received_since() {
    let mut world = World::led();
    world.isolate(3);
    world.propose(1, 1, "one");
    world.propose(1, 2, "two");
    world.run();
    world.trim(1, Index(2));
    world.heal();
    world.tick(2 * limits::HEARTBEAT_TICKS);
    let position = Position { index: Index(2), term: Term(1) };
    let before = HardState { term: Term(1), vote: Some(id(1)), commit: Index(2) };
    assert_eq!(world.replica(3).install_hard_state(position), Some(before));
    let later = Position { index: Index(9), term: Term(4) };
    let after = HardState { term: Term(4), vote: None, commit: Index(9) };
    assert_eq!(world.replica(3).install_hard_state(later), Some(after));
    // Another leader still has all of the log.
    world.isolate(1);
    world.tick(4 * limits::ELECTION_TICKS);
    assert_eq!(world.replica(3).committed(), Index(4));
    assert_eq!(world.replica(3).install_hard_state(position), None);
}

#[test]
fn a_sole_voter_speaks_to_learners_only_in_a_durable_term() {
    let options = ReplicaOptions { members: Members::of([id(1)], [id(2)]), ..options(1) };
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
        members: Members::of([1, 2, 3].map(id), []),
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
    Change(Change),
    Persist,
    Evict,
    Trim,
}

fn any_change() -> impl Strategy<Value = Change> {
    let someone = || (0..6_u64).prop_map(ReplicaId);
    let maybe = || proptest::option::of(someone());
    prop_oneof![
        2 => someone().prop_map(Change::AddLearner),
        3 => (maybe(), maybe()).prop_map(|(add, remove)| Change::Replace { add, remove }),
        1 => someone().prop_map(Change::RemoveLearner),
    ]
}

fn any_poke() -> impl Strategy<Value = Poke> {
    prop_oneof![
        12 => any_message().prop_map(Poke::Foreign),
        2 => Just(Poke::Tick),
        1 => Just(Poke::Campaign),
        1 => Just(Poke::Propose),
        1 => Just(Poke::Read),
        1 => any_change().prop_map(Poke::Change),
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
        Poke::Change(change) => Event::Change { ticket: 2, change },
        Poke::Persist => match writes.pop_front() {
            Some(number) => Event::Persisted { number },
            None => return,
        },
        Poke::Evict => Event::Evict { through: replica.applied() },
        Poke::Trim => {
            replica.step(Event::SnapshotWritten { through: replica.applied() }, &mut Vec::new()).unwrap();
            Event::Trim { through: replica.applied() }
        }
    };
    let mut events = vec![event];
    while let Some(event) = events.pop() {
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
        events.extend(through.map(|through| Event::Applied { through }));
    }
}

/// One of the things that may happen to a group of up to seven replicas.
fn unrest(world: &mut World, ticket: u64, (what, one, other, records): (u8, u64, u64, usize)) {
    let leads = |seat: &Seat| seat.replica.as_ref().is_some_and(|replica| replica.role() == Role::Leader);
    let leader = world.seats.iter().find(|(_, seat)| leads(seat)).map(|(at, _)| at.0);
    let at = world.everybody()[one as usize % world.seats.len()].0;
    match what {
        0..5 => world.tick(3),
        5 => world.isolate(at),
        6 => world.heal(),
        7 => {
            world.kill(at);
            world.restart(at);
        }
        8 => world.seat(at).stuck ^= true,
        9 => drop(world.wire.pop_front()),
        10 if !world.seat(at).writes.is_empty() => {
            world.tear(at, records);
            world.restart(at);
        }
        11 | 12 => {
            let through = Index(world.replica(at).applied().0.saturating_sub(records as u64));
            let kept = world.seats[&id(at)].kept.0;
            world.trim(at, through.max(kept));
        }
        13 => {
            world.install(at);
        }
        14 if !world.seats.contains_key(&id(one)) => world.join(one),
        15 | 16 => world.change(leader.unwrap_or(at), ticket, Change::AddLearner(id(one))),
        17..20 => {
            let maybe = |number: u64| (number > 0).then_some(id(number));
            let learners = world.replica(leader.unwrap_or(at)).members().learners.clone();
            let learner = learners.into_iter().nth(records);
            let change = Change::Replace { add: learner.or(maybe(one)), remove: maybe(other) };
            world.change(leader.unwrap_or(at), ticket, change);
        }
        20 => world.change(leader.unwrap_or(at), ticket, Change::RemoveLearner(id(one))),
        _ => world.propose(leader.unwrap_or(at), ticket, &format!("entry {ticket}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_a_replica_panic(pokes in proptest::collection::vec(any_poke(), 1..120), single: bool) {
        let mut options = options(1);
        if single {
            options.members = Members::of([id(1)], [id(2)]);
        }
        let mut replica = Replica::new(options, Recovered::default(), Index(0)).unwrap();
        let mut writes = VecDeque::new();
        for next in pokes {
            poke(&mut replica, &mut writes, next);
        }
    }

    #[test]
    fn a_group_agrees_whatever_is_lost(
        steps in proptest::collection::vec((0..12u8, 1..4u64, 0..4_usize), 1..80),
        seed: u64,
    ) {
        let mut world = World::new(3, seed);
        for (ticket, (what, at, records)) in steps.into_iter().enumerate() {
            match what {
                0..3 => world.tick(3),
                3 => { world.isolate(at); }
                4 => world.heal(),
                5 => { world.kill(at); world.restart(at); }
                6 => world.seat(at).stuck ^= true,
                7 => { world.wire.pop_front(); }
                8..10 if !world.seat(at).writes.is_empty() => { world.tear(at, records); world.restart(at); }
                _ => world.propose(at, ticket as u64, &format!("entry {ticket}")),
            }
        }
        world.heal();
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_agrees_whatever_changes_and_whatever_is_lost(
        steps in proptest::collection::vec((0..24_u8, 1..8_u64, 0..8_u64, 0..4_usize), 1..160),
        seed: u64,
    ) {
        let mut world = World::new(3, seed);
        world.tick(2 * limits::ELECTION_TICKS);
        world.join(4);
        for (ticket, (what, one, other, records)) in steps.into_iter().enumerate() {
            unrest(&mut world, ticket as u64, (what, one, other, records));
        }
        world.heal();
        for late in (1..8).filter(|at| !world.seats.contains_key(&id(*at))).collect::<Vec<_>>() {
            world.join(late);
        }
        for seat in world.seats.values_mut() {
            seat.stuck = false;
        }
        for _ in 0..12 {
            world.tick(2 * limits::ELECTION_TICKS);
            for at in world.everybody() {
                world.install(at.0);
            }
        }
        let leader = world.leader();
        world.propose(leader, u64::MAX, "last");
        world.run();
        world.tick(limits::HEARTBEAT_TICKS);
        prop_assert!(world.seat(leader).answered(u64::MAX).is_some());
        let members = world.replica(leader).members().clone();
        prop_assert!(!members.is_joint());
        prop_assert_eq!(Some(&members), world.configurations.values().next_back());
        let applied: BTreeSet<usize> = members.all().iter().map(|at| world.seats[at].applied.len()).collect();
        prop_assert_eq!(applied.len(), 1);
    }
}
