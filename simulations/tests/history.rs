//! The direct check of histories against a general one that searches: Wing and Gong's algorithm, from `todc-utils`.
//!
//! Small histories of one shard come from a model whose clients take turns at random, and are then spoilt at random:
//! positions swapped, records dropped, reads made stale, calls moved in time. Both checks must come to the same verdict.
//!
//! For the general check each record is an operation of its own, since a request may be stored in pieces, and comes
//! behind the record before it in its request. A "maybe" that is held in the end has an answer after everything else; one
//! that is not held never happened. What a local read or a tail showed may be old, so its call begins before everything.
//! The content is a last read. Bytes, several shards and replicas that differ have no place in this model.

use std::collections::{BTreeMap, VecDeque};

use millpond::id::{NodeId, Offset, ShardId};
use millpond::storage::lossy::Draws;
use millpond_simulations::history::{Event, Held, History, Outcome, Sent, check};
use todc_utils::{Action, Specification, WGLChecker};

const SHARD: ShardId = ShardId(0);
const NODES: [NodeId; 2] = [NodeId(1), NodeId(2)];
const PROCESSES: u64 = 3;
const OPERATIONS_MIN: u64 = 2;
const OPERATIONS_MAX: u64 = 6;
/// An id names its producer, for the count.
const IDS_PER_PRODUCER: u64 = 100;
/// No record has this id.
const UNSENT: u64 = 999;
const CASES: u64 = 30_000;

/// A call with its answer.
#[derive(Clone, Debug)]
enum Operation {
    Append { ids: Vec<u64>, outcome: Outcome },
    Read { from: usize, ids: Vec<u64>, end: usize },
    Local { from: usize, ids: Vec<u64> },
    Shown { offset: usize, id: u64 },
    Search { id: u64, found: u64 },
    Count { producer: u64, count: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

/// Calls by number, their beginnings and ends in order, and what the shard holds in the end.
#[derive(Clone, Debug, Default)]
struct Small {
    operations: Vec<Operation>,
    edges: Vec<(usize, Edge)>,
    content: Vec<u64>,
}

/// A call of a process that has begun.
#[derive(Debug)]
struct Flight {
    operation: usize,
    /// The records that an append has yet to store.
    left: VecDeque<u64>,
    /// Whether a call of another kind has yet to look.
    blind: bool,
}

/// Clients of a shard that behaves.
struct Model<'a> {
    draws: &'a mut Draws,
    counts: bool,
    small: Small,
    sent: u64,
    flights: [Option<Flight>; PROCESSES as usize],
    /// Records of appends that were given up.
    late: VecDeque<u64>,
}

impl Small {
    /// What the model of a seed gives.
    fn draw(draws: &mut Draws, counts: bool) -> Self {
        let mut model = Model {
            draws,
            counts,
            small: Self::default(),
            sent: 0,
            flights: [None, None, None],
            late: VecDeque::new(),
        };
        let operations = OPERATIONS_MIN + model.draws.below(OPERATIONS_MAX - OPERATIONS_MIN + 1);
        while (model.small.operations.len() as u64) < operations || model.flights.iter().any(Option::is_some) {
            model.turn(operations as usize);
        }
        model.small
    }

    /// Spoils one thing. What comes out may be linearizable all the same.
    fn spoil(&mut self, draws: &mut Draws) {
        match draws.below(7) {
            0 => self.spoil_content(draws),
            1 => self.exchange(draws),
            2..=3 => self.move_edge(draws),
            4..=5 => {
                let at = pick(draws, self.operations.len());
                self.operations[at].spoil(draws, &self.content);
            }
            _ => {
                if let Some(last) = self.edges.iter().rposition(|(_, edge)| *edge == Edge::End) {
                    self.edges.remove(last);
                }
            }
        }
    }

    fn spoil_content(&mut self, draws: &mut Draws) {
        let length = self.content.len();
        let (one, other) = (pick(draws, length), pick(draws, length));
        match draws.below(4) {
            _ if length == 0 => self.content.push(UNSENT),
            0 => self.content.swap(one, other),
            1 => drop(self.content.remove(one)),
            2 => self.content.insert(one, self.content[other]),
            _ => self.content.insert(one, UNSENT),
        }
    }

    /// Two records change places, and every answer agrees.
    fn exchange(&mut self, draws: &mut Draws) {
        let length = self.content.len();
        if length < 2 {
            return;
        }
        let at = pick(draws, length - 1);
        let (one, other) = (self.content[at], self.content[at + 1]);
        let swap = |id: &mut u64| {
            *id = if *id == one {
                other
            } else if *id == other {
                one
            } else {
                *id
            }
        };
        self.content.iter_mut().for_each(swap);
        for operation in &mut self.operations {
            match operation {
                Operation::Read { ids, .. } | Operation::Local { ids, .. } => ids.iter_mut().for_each(swap),
                Operation::Shown { id, .. } | Operation::Search { id, .. } => swap(id),
                Operation::Append { .. } | Operation::Count { .. } => {}
            }
        }
    }

    /// A beginning or an end moves past its neighbours, but never an end before its beginning.
    fn move_edge(&mut self, draws: &mut Draws) {
        let mut at = pick(draws, self.edges.len());
        for _ in 0..=draws.below(4) {
            if at + 1 < self.edges.len() && self.edges[at].0 != self.edges[at + 1].0 {
                self.edges.swap(at, at + 1);
                at += 1;
            }
        }
    }
}

impl Operation {
    fn spoil(&mut self, draws: &mut Draws, content: &[u64]) {
        match self {
            Self::Append { outcome, .. } => {
                *outcome = [Outcome::Stored, Outcome::Maybe, Outcome::Refused][pick(draws, 3)];
            }
            Self::Read { from, ids, end } => match draws.below(4) {
                0 => *end = pick(draws, content.len() + 2),
                1 => {
                    *end = pick(draws, content.len() + 1);
                    *ids = content.get(*from..*end).unwrap_or_default().to_vec();
                }
                2 => *from = pick(draws, content.len() + 1),
                _ => spoil_ids(draws, ids),
            },
            Self::Local { from, ids } => match draws.below(3) {
                0 => *from = pick(draws, content.len() + 1),
                1 => *ids = content.get(*from..).unwrap_or_default().to_vec(),
                _ => spoil_ids(draws, ids),
            },
            Self::Shown { offset, .. } => *offset = pick(draws, content.len() + 1),
            Self::Search { found, .. } => *found = draws.below(3),
            Self::Count { count, .. } => *count = draws.below(4),
        }
    }
}

fn spoil_ids(draws: &mut Draws, ids: &mut Vec<u64>) {
    let (one, other) = (pick(draws, ids.len()), pick(draws, ids.len()));
    match draws.below(3) {
        _ if ids.is_empty() => ids.push(UNSENT),
        0 => ids.swap(one, other),
        1 => drop(ids.remove(one)),
        _ => ids[one] = UNSENT,
    }
}

fn pick(draws: &mut Draws, length: usize) -> usize {
    draws.below(length as u64) as usize
}

impl Model<'_> {
    /// One process does one thing.
    fn turn(&mut self, operations: usize) {
        if self.draws.below(3) == 0
            && let Some(id) = self.late.pop_front()
            && self.draws.below(2) == 0
        {
            self.small.content.push(id);
        }
        let process = pick(self.draws, self.flights.len());
        match self.flights[process].take() {
            None if self.small.operations.len() < operations => self.begin(process),
            None => {}
            Some(flight) => self.flights[process] = self.go_on(flight),
        }
    }

    fn begin(&mut self, process: usize) {
        let number = self.small.operations.len();
        let length = self.small.content.len();
        let mut flight = Flight { operation: number, left: VecDeque::new(), blind: true };
        let operation = match self.draws.below(if self.counts { 13 } else { 11 }) {
            0..=4 => {
                let ids: Vec<u64> = (0..=self.draws.below(2)).map(|_| self.next_id(process)).collect();
                let refused = self.draws.below(8) == 0;
                flight.left.extend(ids.iter().filter(|_| !refused));
                flight.blind = false;
                Operation::Append { ids, outcome: if refused { Outcome::Refused } else { Outcome::Stored } }
            }
            5..=7 => Operation::Read { from: 0, ids: Vec::new(), end: 0 },
            8 => {
                let from = pick(self.draws, length + 1);
                let shown = pick(self.draws, length - from + 1);
                let ids = self.small.content[from..from + shown].to_vec();
                return self.show(Operation::Local { from, ids });
            }
            9 if length > 0 => {
                let offset = pick(self.draws, length);
                return self.show(Operation::Shown { offset, id: self.small.content[offset] });
            }
            9..=10 => Operation::Search { id: self.any_id(), found: 0 },
            _ => Operation::Count { producer: self.draws.below(PROCESSES), count: 0 },
        };
        self.small.operations.push(operation);
        self.small.edges.push((number, Edge::Begin));
        self.flights[process] = Some(flight);
    }

    fn next_id(&mut self, process: usize) -> u64 {
        self.sent += 1;
        process as u64 * IDS_PER_PRODUCER + self.sent
    }

    /// An id that was sent, if any was.
    fn any_id(&mut self) -> u64 {
        let appended = self.small.operations.iter().filter_map(|operation| match operation {
            Operation::Append { ids, .. } => Some(ids),
            Operation::Read { .. }
            | Operation::Local { .. }
            | Operation::Shown { .. }
            | Operation::Search { .. }
            | Operation::Count { .. } => None,
        });
        let ids: Vec<u64> = appended.flatten().copied().collect();
        ids.get(pick(self.draws, ids.len())).copied().unwrap_or_default()
    }

    fn show(&mut self, operation: Operation) {
        self.small.edges.push((self.small.operations.len(), Edge::End));
        self.small.operations.push(operation);
    }

    /// Stores a record, looks, answers, or gives up.
    fn go_on(&mut self, mut flight: Flight) -> Option<Flight> {
        let ended = (flight.operation, Edge::End);
        if self.draws.below(6) == 0 {
            self.late.append(&mut flight.left);
            if let Operation::Append { outcome, .. } = &mut self.small.operations[flight.operation]
                && *outcome == Outcome::Stored
            {
                *outcome = Outcome::Maybe;
                self.small.edges.extend((self.draws.below(2) == 0).then_some(ended));
            }
            return None;
        }
        if let Some(id) = flight.left.pop_front() {
            self.small.content.push(id);
            return Some(flight);
        }
        if flight.blind {
            flight.blind = false;
            self.look(flight.operation);
            return Some(flight);
        }
        self.small.edges.push(ended);
        None
    }

    fn look(&mut self, number: usize) {
        let content = &self.small.content;
        match &mut self.small.operations[number] {
            Operation::Read { from, ids, end } => {
                *end = content.len();
                *from = pick(self.draws, 2).min(*end);
                *ids = content[*from..].to_vec();
                ids.truncate(ids.len() - pick(self.draws, 2).min(ids.len()));
            }
            Operation::Search { id, found } => *found = u64::from(content.contains(id)),
            Operation::Count { producer, count } => *count = produced(content, *producer),
            Operation::Append { .. } | Operation::Local { .. } | Operation::Shown { .. } => {}
        }
    }
}

fn produced(content: &[u64], producer: u64) -> u64 {
    content.iter().filter(|id| *id / IDS_PER_PRODUCER == producer).count() as u64
}

/// The verdict of the direct check.
fn direct(small: &Small) -> Vec<String> {
    let mut history = History::default();
    let mut calls: BTreeMap<usize, Event> = BTreeMap::new();
    let at = |offset: &usize| Offset(*offset as u64);
    for (number, edge) in &small.edges {
        match (&small.operations[*number], edge) {
            (Operation::Append { ids, .. }, Edge::Begin) => {
                let records = ids.iter().map(|id| Sent { id: *id, digest: 0, stream: 1, shard: Some(SHARD) });
                let producer = ids[0] / IDS_PER_PRODUCER;
                calls.insert(*number, history.begin_append(producer, records.collect()));
            }
            (Operation::Append { outcome, .. }, Edge::End) => history.end_append(calls[number], *outcome),
            (Operation::Read { from, .. }, Edge::Begin) => {
                calls.insert(*number, history.begin_read(NODES[0], SHARD, at(from)));
            }
            (Operation::Read { ids, end, .. }, Edge::End) => history.end_read(calls[number], ids.clone(), at(end)),
            (Operation::Search { id, .. }, Edge::Begin) => {
                calls.insert(*number, history.begin_search(*id));
            }
            (Operation::Search { found, .. }, Edge::End) => history.end_search(calls[number], *found),
            (Operation::Count { producer, .. }, Edge::Begin) => {
                calls.insert(*number, history.begin_count(*producer));
            }
            (Operation::Count { count, .. }, Edge::End) => history.end_count(calls[number], *count),
            (Operation::Local { from, ids }, _) => history.local_read(NODES[1], SHARD, at(from), ids.clone()),
            (Operation::Shown { offset, id }, _) => {
                let tail = history.open_tail(BTreeMap::from([(SHARD, at(offset))]));
                history.tail_showed(tail, SHARD, at(offset), *id);
            }
        }
    }
    let held = (0..).zip(&small.content).map(|(offset, id)| Held { offset: Offset(offset), id: *id, digest: 0 });
    let held: Vec<Held> = held.collect();
    for node in NODES {
        history.final_content(node, SHARD, held.clone());
    }
    check(&history)
}

/// One shard, as the general check sees it.
struct Shard;

#[derive(Clone, Debug)]
enum Step {
    Append { id: u64, behind: Option<u64> },
    Read { from: usize, ids: Vec<u64>, end: usize },
    Shown { from: usize, ids: Vec<u64> },
    Search { id: u64, found: u64 },
    Count { producer: u64, count: u64 },
}

impl Specification for Shard {
    type State = Vec<u64>;
    type Operation = Step;

    fn init() -> Vec<u64> {
        Vec::new()
    }

    fn apply(step: &Step, state: &Vec<u64>) -> (bool, Vec<u64>) {
        let shows = |from: usize, ids: &[u64]| ids.is_empty() || state.get(from..from + ids.len()) == Some(ids);
        let valid = match step {
            Step::Append { id, behind } if behind.is_none_or(|behind| state.contains(&behind)) => {
                return (true, state.iter().chain([id]).copied().collect());
            }
            Step::Append { .. } => false,
            Step::Read { from, ids, end } => state.len() == *end && shows(*from, ids),
            Step::Shown { from, ids } => shows(*from, ids),
            Step::Search { id, found } => state.iter().filter(|held| *held == id).count() as u64 == *found,
            Step::Count { producer, count } => produced(state, *producer) == *count,
        };
        (valid, state.clone())
    }
}

/// What an answer says of the moment of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    /// Between call and answer.
    Call,
    /// At any time before.
    Before,
    /// At any time since the call.
    Since,
}

/// The steps of an operation. Nothing is known of one that has no answer, but for an append.
fn steps(operation: &Operation, ended: bool, content: &[u64]) -> (Vec<Step>, Span) {
    match operation {
        Operation::Append { ids, outcome } => {
            let stored = ended && *outcome == Outcome::Stored;
            let refused = ended && *outcome == Outcome::Refused;
            let mut behind = None;
            let known = ids.iter().filter(|id| !refused && (stored || content.contains(id)));
            let steps = known.map(|id| Step::Append { id: *id, behind: behind.replace(*id) });
            (steps.collect(), if stored { Span::Call } else { Span::Since })
        }
        Operation::Read { .. }
        | Operation::Local { .. }
        | Operation::Shown { .. }
        | Operation::Search { .. }
        | Operation::Count { .. }
            if !ended =>
        {
            (Vec::new(), Span::Call)
        }
        Operation::Read { from, ids, end } => {
            (vec![Step::Read { from: *from, ids: ids.clone(), end: *end }], Span::Call)
        }
        Operation::Local { from, ids } => (vec![Step::Shown { from: *from, ids: ids.clone() }], Span::Before),
        Operation::Shown { offset, id } => (vec![Step::Shown { from: *offset, ids: vec![*id] }], Span::Before),
        Operation::Search { id, found } => (vec![Step::Search { id: *id, found: *found }], Span::Call),
        Operation::Count { producer, count } => (vec![Step::Count { producer: *producer, count: *count }], Span::Call),
    }
}

/// The verdict of the general check. Each step is a process of its own.
fn general(small: &Small) -> bool {
    let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut processes = 0..;
    for (number, operation) in small.operations.iter().enumerate() {
        let begun = small.edges.iter().position(|edge| *edge == (number, Edge::Begin));
        let ended = small.edges.iter().position(|edge| *edge == (number, Edge::End));
        let (steps, span) = steps(operation, ended.is_some(), &small.content);
        for (step, process) in steps.into_iter().zip(&mut processes) {
            let (call, response) = ((process, Action::Call(step.clone())), (process, Action::Response(step)));
            match (span, begun, ended) {
                (Span::Before, _, Some(ended)) => {
                    before.push(call);
                    during.push((ended, response));
                }
                (Span::Call, Some(begun), Some(ended)) => during.extend([(begun, call), (ended, response)]),
                (Span::Since, Some(begun), _) => {
                    during.push((begun, call));
                    after.push(response);
                }
                (Span::Before | Span::Call | Span::Since, _, _) => panic!("{operation:?} has steps and no place"),
            }
        }
    }
    during.sort_by_key(|(at, _)| *at);
    let content = Step::Read { from: 0, ids: small.content.clone(), end: small.content.len() };
    let process = processes.next().expect("there are numbers enough");
    let last = [(process, Action::Call(content.clone())), (process, Action::Response(content))];
    let actions = before.into_iter().chain(during.into_iter().map(|(_, action)| action)).chain(after).chain(last);
    WGLChecker::<Shard>::is_linearizable(todc_utils::History::from_actions(actions.collect()))
}

#[test]
fn what_the_model_gives_is_linearizable_to_both() {
    for seed in 0..CASES {
        let small = Small::draw(&mut Draws::new(seed), true);
        assert_eq!(direct(&small), Vec::<String>::new(), "seed {seed}: {small:#?}");
        assert!(general(&small), "seed {seed}: {small:#?}");
    }
}

#[test]
fn both_checks_agree_on_histories_that_are_spoilt() {
    let (mut sound, mut broken) = (0, BTreeMap::new());
    for seed in 0..CASES {
        let mut draws = Draws::new(seed);
        let mut small = Small::draw(&mut draws, false);
        for _ in 0..=draws.below(2) {
            small.spoil(&mut draws);
        }
        let violations = direct(&small);
        assert_eq!(violations.is_empty(), general(&small), "seed {seed}: {violations:#?} {small:#?}");
        match violations.as_slice() {
            [] => sound += 1,
            // A history that breaks several rules says little about each of them.
            [violation] => *broken.entry(violation.split(':').next().map(str::to_owned)).or_insert(0) += 1,
            [_, _, ..] => {}
        }
    }
    assert!(sound > CASES / 10, "{sound} of {CASES} were linearizable");
    let rules = ["stored", "order", "linearizable", "read", "search", "tail"];
    for rule in rules {
        let alone = broken.get(&Some(rule.to_owned())).copied().unwrap_or_default();
        assert!(alone > CASES / 1000, "{alone} of {CASES} broke the rule {rule} alone");
    }
}

/// A count is not one point in time, since shards answer at different ones: the direct check may pass what the general
/// one refuses, but not the other way round.
#[test]
fn the_direct_check_of_counts_raises_no_false_alarm() {
    let (mut broken, mut passed) = (0, 0);
    for seed in 0..CASES {
        let mut draws = Draws::new(seed);
        let mut small = Small::draw(&mut draws, true);
        small.spoil(&mut draws);
        let violations = direct(&small);
        let sound = general(&small);
        assert!(violations.is_empty() || !sound, "seed {seed}: {violations:#?} {small:#?}");
        broken += u64::from(violations.iter().any(|violation| violation.starts_with("count:")));
        passed += u64::from(violations.is_empty() && !sound);
    }
    assert!(broken > CASES / 200 && passed < broken, "{broken} were refused for a count, {passed} passed");
}
