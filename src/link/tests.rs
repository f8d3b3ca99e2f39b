//! Two links over a network that loses, repeats and reorders.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::limits::{FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, LINK_CREDIT_BYTES, LINK_QUEUE_BYTES_MAX};

const STEP: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct Faults {
    lose: u64,
    repeat: u64,
    reorder: u64,
}

const CALM: Faults = Faults { lose: 0, repeat: 0, reorder: 0 };

struct End {
    link: Link,
    events: Vec<State>,
    restarts: usize,
    /// Raft messages that came, by the number they start with, and how often.
    came: BTreeMap<u64, usize>,
    outcomes: BTreeMap<u64, Result<Bytes, CallFailure>>,
    dropped: usize,
}

struct World {
    now: Duration,
    ends: [End; 2],
    wires: [Vec<(Bytes, Bytes)>; 2],
    faults: Faults,
    seed: u64,
    refuse: bool,
}

fn message(number: u64, length: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((8..length.max(8)).map(|at| (at as u64).wrapping_mul(number | 1) as u8));
    Bytes::from(bytes)
}

fn end(index: usize, incarnation: u64) -> End {
    let (node, peer) = (NodeId(index as u64 + 1), NodeId(2 - index as u64));
    let life = Life { boot: Boot(7), incarnation };
    let link = Link::new(node, peer, life, Bytes::from_static(b"hello"), LINK_CREDIT_BYTES);
    End { link, events: vec![], restarts: 0, came: BTreeMap::new(), outcomes: BTreeMap::new(), dropped: 0 }
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let ends = [end(0, 1), end(1, 1)];
        Self { now: Duration::ZERO, ends, wires: [vec![], vec![]], faults, seed: seed | 1, refuse: false }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.draw(100) < percent
    }

    fn step(&mut self, at: usize, event: Event) {
        let mut effects = vec![];
        self.ends[at].link.step(self.now, event, &mut effects);
        // What an effect brings about comes after all effects of the step, as frames leave in the order of their numbers.
        let mut later = vec![];
        for effect in effects {
            match effect {
                Effect::Send { header, payload } => self.wires[1 - at].push((header, payload)),
                Effect::Judge { life, hello } => {
                    assert_eq!(hello, "hello");
                    let verdict = if self.refuse { Err("another cluster".to_owned()) } else { Ok(()) };
                    later.push(Event::Judged { life, verdict });
                }
                Effect::Raft(messages) => {
                    for (_, bytes) in messages {
                        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                        assert_eq!(bytes, message(number, bytes.len()), "a payload was mixed up");
                        *self.ends[at].came.entry(number).or_default() += 1;
                    }
                }
                Effect::Request { life, call, method, body } => {
                    let outcome = match method {
                        Method::Append => Ok(body),
                        Method::Scan
                        | Method::Records
                        | Method::Manifest
                        | Method::Chunk
                        | Method::Govern
                        | Method::Seal
                        | Method::Report
                        | Method::Plan
                        | Method::Transfer
                        | Method::Leave => Err(Fault::application(body)),
                    };
                    later.extend([Event::Answer { life, call, outcome }, Event::Flush]);
                }
                Effect::Answered { call, outcome } => {
                    assert!(self.ends[at].outcomes.insert(call, outcome).is_none(), "a call was answered twice");
                }
                Effect::Changed(state) => self.ends[at].events.push(state),
                Effect::Restarted(_) => self.ends[at].restarts += 1,
                Effect::Dropped { .. } => self.ends[at].dropped += 1,
                Effect::Reconnect | Effect::Rejected(_) => {}
            }
        }
        for event in later {
            self.step(at, event);
        }
        let link = &self.ends[at].link;
        assert!(link.outgoing.outstanding(Lane::Bulk) <= LINK_CREDIT_BYTES as u64);
        assert!(link.outgoing.outstanding(Lane::Control) <= LINK_CREDIT_BYTES as u64);
        assert!(link.queued() <= 2 * LINK_QUEUE_BYTES_MAX);
    }

    /// Carries what is on the wires, and what that brings, as the faults will have it.
    fn carry(&mut self) {
        for _ in 0..10_000 {
            let to = usize::from(!self.wires[1].is_empty() && (self.wires[0].is_empty() || self.chance(50)));
            if self.wires[to].is_empty() {
                return;
            }
            let ahead = self.wires[to].len().min(6) as u64;
            let pick = if self.chance(self.faults.reorder) { self.draw(ahead) as usize } else { 0 };
            let (header, payload) = self.wires[to].remove(pick);
            if self.chance(self.faults.lose) {
                continue;
            }
            if self.chance(self.faults.repeat) {
                self.wires[to].push((header.clone(), payload.clone()));
            }
            assert!(payload.len() <= FRAME_BYTES_MAX);
            let header = Header::decode(&header).unwrap();
            self.step(to, Event::Frame { header, payload });
        }
        panic!("the links never come to rest");
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            for at in 0..2 {
                self.step(at, Event::Tick);
            }
            self.carry();
        }
    }

    fn raft(&mut self, from: usize, number: u64, length: usize, control: bool) {
        self.step(from, Event::Raft { shard: ShardId(3), message: message(number, length), control });
    }

    fn call(&mut self, from: usize, call: u64, method: Method, body: Bytes) {
        let deadline = self.now + Duration::from_secs(2);
        self.step(from, Event::Call { call, method, body, deadline });
        self.step(from, Event::Flush);
    }

    fn connected(&self) -> bool {
        self.ends.iter().all(|end| *end.link.state() == State::Connected)
    }
}

fn connected() -> World {
    let mut world = World::new(1, CALM);
    world.pass(STEP);
    assert!(world.connected());
    world
}

#[test]
fn two_links_greet_each_other_and_batch_what_they_send() {
    let mut world = connected();
    for number in 0..50 {
        world.raft(0, number, 100, true);
    }
    world.step(0, Event::Flush);
    assert_eq!(world.wires[1].len(), 1, "fifty messages share one frame");
    world.carry();
    assert_eq!(world.ends[1].came.len(), 50);
}

#[test]
fn nothing_passes_before_the_hello_is_accepted() {
    let mut world = World::new(1, CALM);
    world.refuse = true;
    world.pass(Duration::from_secs(1));
    let reason = "another cluster".to_owned();
    assert_eq!(*world.ends[0].link.state(), State::Refused { by_us: true, reason });
    world.raft(0, 1, 10, true);
    world.call(0, 1, Method::Append, Bytes::new());
    assert_eq!(world.ends[0].dropped, 1);
    assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Unreachable));
    world.refuse = false;
    world.pass(Duration::from_secs(1));
    assert!(world.connected(), "a refusal is not for ever");
}

#[test]
fn the_refused_end_learns_why() {
    let mut world = World::new(1, CALM);
    world.step(0, Event::Tick);
    world.carry();
    world.refuse = true;
    let life = world.ends[0].link.life;
    world.step(1, Event::Judged { life, verdict: Err("blank store".to_owned()) });
    world.carry();
    let reason = "blank store".to_owned();
    assert_eq!(*world.ends[0].link.state(), State::Refused { by_us: false, reason });
}

#[test]
fn a_silent_peer_is_suspected_and_costs_nothing() {
    let mut world = connected();
    world.faults.lose = 100;
    for number in 0..100 {
        world.raft(0, number, 200_000, false);
    }
    world.call(0, 1, Method::Append, Bytes::from_static(b"x"));
    world.step(0, Event::Flush);
    world.call(0, 2, Method::Append, message(2, 300_000));
    world.pass(LINK_SUSPECT_AFTER + LINK_HEARTBEAT);
    assert_eq!(*world.ends[0].link.state(), State::Suspected);
    assert_eq!(world.ends[0].link.queued(), 0);
    assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Unknown));
    assert_eq!(world.ends[0].outcomes[&2], Err(CallFailure::Unreachable));
    let before = world.ends[0].link.report().counters.bytes_sent;
    world.raft(0, 200, 200_000, false);
    world.pass(Duration::from_secs(10));
    assert!(world.ends[0].link.report().counters.bytes_sent - before < 20_000, "only heartbeats go to a suspect");
    world.faults = CALM;
    world.pass(Duration::from_secs(1));
    assert!(world.connected());
    world.raft(0, 300, 200_000, false);
    world.step(0, Event::Flush);
    world.carry();
    assert_eq!(world.ends[1].came[&300], 1);
}

#[test]
fn a_call_whose_request_or_answer_is_lost_fails_long_before_its_deadline() {
    for lose_answer in [false, true] {
        let mut world = connected();
        world.pass(2 * LINK_HEARTBEAT);
        world.call(0, 1, Method::Append, Bytes::from_static(b"x"));
        if lose_answer {
            let (header, payload) = world.wires[1].pop().unwrap();
            world.step(1, Event::Frame { header: Header::decode(&header).unwrap(), payload });
        }
        world.wires[usize::from(!lose_answer)].clear();
        world.pass(3 * LINK_HEARTBEAT);
        assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Unknown), "answer lost: {lose_answer}");
        assert!(world.connected());
        world.call(0, 2, Method::Append, Bytes::from_static(b"y"));
        world.carry();
        world.pass(3 * LINK_HEARTBEAT);
        assert_eq!(world.ends[0].outcomes[&2], Ok(Bytes::from_static(b"y")), "one loss fails nothing later");
    }
}

#[test]
fn a_call_whose_request_or_answer_is_torn_fails_at_once() {
    for tear_answer in [false, true] {
        let mut world = connected();
        world.call(0, 1, Method::Append, message(1, 600_000));
        if tear_answer {
            for (header, payload) in std::mem::take(&mut world.wires[1]) {
                world.step(1, Event::Frame { header: Header::decode(&header).unwrap(), payload });
            }
        }
        world.wires[usize::from(!tear_answer)].swap(1, 2);
        world.carry();
        assert!(world.ends[0].outcomes[&1].is_err(), "answer torn: {tear_answer}");
    }
}

#[test]
fn frames_that_come_after_all_hide_no_later_loss() {
    let mut world = connected();
    world.pass(2 * LINK_HEARTBEAT);
    for number in 0..5 {
        world.raft(0, number, 100, true);
        world.step(0, Event::Flush);
    }
    let late = std::mem::take(&mut world.wires[1]);
    assert_eq!(late.len(), 5);
    world.pass(3 * LINK_HEARTBEAT);
    world.wires[1] = late;
    world.carry();
    assert_eq!(world.ends[1].came.len(), 5, "what comes late is taken");
    world.call(0, 1, Method::Append, Bytes::from_static(b"x"));
    world.wires[1].clear();
    world.pass(3 * LINK_HEARTBEAT);
    assert_eq!(world.ends[0].outcomes.get(&1), Some(&Err(CallFailure::Unknown)));
}

#[test]
fn frames_that_overtake_each_other_are_not_lost() {
    let mut world = World::new(3, Faults { reorder: 60, ..CALM });
    world.pass(Duration::from_secs(1));
    for call in 0..200 {
        world.call(0, call, Method::Append, message(call, 1_000));
        world.pass(STEP);
    }
    world.pass(Duration::from_secs(1));
    assert!(world.ends[0].outcomes.values().all(Result::is_ok), "{:?}", world.ends[0].outcomes);
    assert_eq!(world.ends[0].outcomes.len(), 200);
}

#[test]
fn bulk_stops_at_its_credit_and_control_passes_it() {
    let mut world = connected();
    for number in 0..40 {
        world.raft(0, number, 100_000, false);
    }
    world.step(0, Event::Flush);
    let bulk: usize = world.wires[1].iter().map(|(_, payload)| payload.len() + FRAME_OVERHEAD_BYTES).sum();
    assert!(bulk <= LINK_CREDIT_BYTES && bulk > LINK_CREDIT_BYTES / 2);
    let before = world.wires[1].len();
    world.raft(0, 1_000, 50, true);
    world.step(0, Event::Flush);
    assert_eq!(world.wires[1].len(), before + 1);
    world.carry();
    assert_eq!(world.ends[1].came.len(), 41);
}

#[test]
fn a_full_queue_drops_what_is_new() {
    let mut world = connected();
    for number in 0..300 {
        world.raft(0, number, 100_000, false);
    }
    assert!(world.ends[0].link.queued() <= LINK_QUEUE_BYTES_MAX);
    assert!(world.ends[0].dropped > 100);
    world.call(0, 1, Method::Append, message(1, 1 << 20));
    assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Overloaded));
    world.carry();
    assert_eq!(world.ends[1].came.len(), 300 - world.ends[0].dropped);
}

#[test]
fn a_call_returns_what_the_peer_answers() {
    let mut world = connected();
    let body = message(5, 3 * FRAME_BYTES_MAX + 17);
    world.call(0, 1, Method::Append, body.clone());
    world.call(0, 2, Method::Records, Bytes::from_static(b"no"));
    world.call(0, 3, Method::Append, message(0, MESSAGE_BYTES_MAX + 1));
    world.carry();
    assert_eq!(world.ends[0].outcomes[&1], Ok(body));
    let fault = Fault::application(Bytes::from_static(b"no"));
    assert_eq!(world.ends[0].outcomes[&2], Err(CallFailure::Fault(fault)));
    assert_eq!(world.ends[0].outcomes[&3], Err(CallFailure::TooLarge));
}

#[test]
fn an_unknown_method_is_answered_with_a_fault() {
    let mut world = connected();
    world.call(0, 1, Method::Append, Bytes::new());
    let (header, payload) = world.wires[1].pop().unwrap();
    let mut header = Header::decode(&header).unwrap();
    header.code = 99;
    world.step(1, Event::Frame { header, payload });
    world.carry();
    let fault = Fault::of(FaultCode::UnknownMethod);
    assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Fault(fault)));
}

#[test]
fn a_restarted_peer_is_a_new_life() {
    let mut world = connected();
    for number in 0..40 {
        world.raft(0, number, 100_000, false);
    }
    world.call(0, 1, Method::Append, Bytes::from_static(b"x"));
    world.wires = [vec![], vec![]];
    world.ends[1] = end(1, 1);
    world.ends[1].link.life.boot = Boot(8);
    world.pass(Duration::from_secs(1));
    assert!(world.connected());
    assert_eq!(world.ends[0].restarts, 1);
    assert_eq!(world.ends[0].outcomes[&1], Err(CallFailure::Unknown));
    assert!(world.ends[1].came.is_empty(), "what was meant for the life before is not delivered");
    world.raft(0, 99, 900_000, false);
    world.raft(1, 98, 900_000, false);
    world.step(0, Event::Flush);
    world.step(1, Event::Flush);
    world.carry();
    assert_eq!((world.ends[1].came[&99], world.ends[0].came[&98]), (1, 1));
}

#[test]
fn a_link_started_anew_in_the_same_process_is_a_new_life_without_a_restart() {
    let mut world = connected();
    world.raft(0, 1, 900_000, false);
    world.step(0, Event::Flush);
    world.carry();
    world.ends[1] = end(1, 2);
    world.pass(Duration::from_secs(1));
    assert!(world.connected());
    assert_eq!(world.ends[0].restarts, 0);
    world.raft(0, 2, 900_000, false);
    world.step(0, Event::Flush);
    world.carry();
    assert_eq!(world.ends[1].came, BTreeMap::from([(2, 1)]));
}

#[test]
fn a_fresh_connection_frees_the_credit_at_once() {
    let mut world = connected();
    for number in 0..40 {
        world.raft(0, number, 100_000, false);
    }
    world.step(0, Event::Flush);
    world.wires = [vec![], vec![]];
    world.step(0, Event::Opened);
    world.step(0, Event::Flush);
    world.carry();
    assert!(world.ends[1].came.len() >= 30);
    assert_eq!(world.ends[0].link.queued(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Raft { from: usize, length: usize, control: bool },
    Call { from: usize, length: usize },
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0usize..2, 8usize..2_000, any::<bool>()).prop_map(|(from, length, control)| Act::Raft {
            from,
            length,
            control
        }),
        (0usize..2, 100_000usize..700_000).prop_map(|(from, length)| Act::Raft { from, length, control: false }),
        (0usize..2, 0usize..600_000).prop_map(|(from, length)| Act::Call { from, length }),
        (1u64..8).prop_map(Act::Pass),
    ]
}

fn play(world: &mut World, acts: &[Act]) -> [BTreeSet<u64>; 2] {
    let mut sent = [BTreeSet::new(), BTreeSet::new()];
    for (number, act) in acts.iter().enumerate() {
        let number = number as u64;
        match *act {
            Act::Raft { from, length, control } => {
                sent[from].insert(number);
                world.raft(from, number, length, control);
            }
            Act::Call { from, length } => world.call(from, number, Method::Append, message(number, length)),
            Act::Pass(steps) => {
                world.step(0, Event::Flush);
                world.step(1, Event::Flush);
                world.pass(STEP * u32::try_from(steps).unwrap());
            }
        }
    }
    sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bad_network_never_doubles_mixes_or_stalls(
        seed: u64, lose in 0u64..60, repeat in 0u64..40, reorder in 0u64..60,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(seed, Faults { lose, repeat, reorder });
        world.pass(Duration::from_secs(1));
        let sent = play(&mut world, &acts);
        world.faults = CALM;
        world.step(0, Event::Flush);
        world.step(1, Event::Flush);
        world.pass(Duration::from_secs(4));
        prop_assert!(world.connected(), "the links did not find each other again");
        for (from, sent) in sent.iter().enumerate() {
            let came = &world.ends[1 - from].came;
            prop_assert!(came.keys().all(|number| sent.contains(number)));
            prop_assert!(came.values().all(|times| *times == 1), "a message came twice");
            prop_assert_eq!(world.ends[from].link.queued(), 0, "something never left");
            prop_assert_eq!(world.ends[from].link.calls.len(), 0, "a call has no outcome");
            prop_assert_eq!(world.ends[from].link.outgoing.outstanding(Lane::Bulk), 0, "credit was not healed");
            for (call, outcome) in &world.ends[from].outcomes {
                if let Ok(body) = outcome {
                    prop_assert_eq!(body, &message(*call, body.len()));
                }
            }
        }
        for from in 0..2 {
            let number = 1_000 + from as u64;
            world.raft(from, number, 3 * FRAME_BYTES_MAX, false);
            world.step(from, Event::Flush);
            world.carry();
            prop_assert_eq!(world.ends[1 - from].came.get(&number), Some(&1), "the link stalls after loss");
        }
    }

    #[test]
    fn a_calm_network_loses_nothing(acts in prop::collection::vec(act(), 1..40)) {
        let mut world = connected();
        let sent = play(&mut world, &acts);
        world.step(0, Event::Flush);
        world.step(1, Event::Flush);
        world.pass(STEP);
        for (from, sent) in sent.iter().enumerate() {
            prop_assert_eq!(&world.ends[1 - from].came.keys().copied().collect::<BTreeSet<_>>(), sent);
            prop_assert!(world.ends[from].outcomes.values().all(Result::is_ok));
        }
    }

    #[test]
    fn any_header_and_payload_is_survived(
        numbers in prop::collection::vec(any::<u64>(), 12), small: bool, kind in 0u8..6, code: u8,
        fragment in 0u32..4, fragments in 0u32..4, payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut world = connected();
        let life = world.ends[0].link.life;
        let number = |at: usize| if small { numbers[at] % 9 } else { numbers[at] };
        let header = Header {
            from: NodeId(1), to: NodeId(2), life: Life { boot: Boot(number(0)), incarnation: number(1) }.max(life),
            heard: world.ends[1].link.life, sequence: number(2),
            lane: Lane::try_from(u8::from(number(3) % 2 == 0)).unwrap(), kind: Kind::try_from(kind).unwrap(), code,
            call: number(4), message: number(5), fragment, fragments, length: payload.len() as u32,
            sent: [number(6), number(7)], received: [number(8), number(9)],
        };
        world.step(1, Event::Frame { header: header.clone(), payload: Bytes::from(payload) });
        world.step(1, Event::Frame { header, payload: Bytes::new() });
        world.step(1, Event::Tick);
    }
}
