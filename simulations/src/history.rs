//! The history of a run as its clients saw it, and the direct check that the shards could have given it.
//!
//! A workload records each call when it is made and when it is answered. The history numbers these moments itself, so
//! that all calls stand in one global order of events. When all is quiet, what every replica holds is recorded as well.
//! The final content gives each record its position, and with the positions known linearizability needs no search: a
//! point in time must be found for each offset, the points must rise with the offsets, and each call narrows them
//! (`line.rs`). The whole check is O(n log n) in the records sent, held and shown.
//!
//! | rule | what it holds |
//! |---|---|
//! | replicas | The offsets of a replica's content are contiguous from 0. All replicas of a shard hold the same, unless excluded. Each shard that was named or read has at least one replica's content. |
//! | stored | A record of a stored request is held exactly once, of a "maybe" at most once, of a refused request not at all; nothing is held that nobody sent. The bytes are those sent, and the shard is the one the request named. |
//! | order | Records of one request and stream that are in one shard are there in the order of the request. |
//! | linearizable | A request answered "stored" before another was sent is before it in every shard they share, whoever sent them; this also keeps one producer's order. A read holds every record answered before it began, and none sent after it was answered. Reads one after the other never go backwards. What was shown to anybody, also by a search, a local read or a tail, is in every later read. |
//! | read | What a read shows is what the shard holds from there on, within the end that the read itself gives. What a local read of a replica shows is the same, but may be behind. |
//! | search | A search never finds a record twice, nor one that no shard holds, and it finds each record that was answered before it began. Where the shard holds the record, the search narrows its point like a read. |
//! | query | A log query shows no record that no shard holds, and each record that was answered before it began and that it selects, unless its limit left it out. What it shows and what it leaves out narrow their points as a search does. |
//! | count | A count of a producer's records holds all that were answered or shown before it began and none sent after it was answered, and is not below one that was answered before it began. |
//! | tail | A tail shows each shard's offsets contiguously from its start to where it was closed, and at each what the shard holds. Of a tail that shows some records only the same holds for those. |
//!
//! A request may be stored in pieces: each of its records has a point of its own between sending and answer. A "maybe"
//! may take effect at any time after it was sent. The system is not known here, nor are bytes: a record is an id and a
//! digest. There is no clock either.

mod counts;
mod finding;
mod judge;
mod line;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use millpond::id::{NodeId, Offset, ShardId};

/// A moment in the global order of a history, from 1. The event of a call's beginning also stands for the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event(pub u64);

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {}", self.0)
    }
}

/// What a client knows of its request in the end, all attempts taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An attempt was answered 204: all records are stored.
    Stored,
    /// No attempt was, and at least one was answered 503 or 504, or not at all.
    Maybe,
    /// Every attempt was refused: no record is stored.
    Refused,
}

/// A record of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its identity; never sent in another record.
    pub id: u64,
    /// A digest of its bytes.
    pub digest: u64,
    /// Which of the run's streams it belongs to, the same number for the same labels throughout.
    pub stream: u64,
    /// The shard it must be in, where that is known.
    pub shard: Option<ShardId>,
}

/// A record as a replica holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub offset: Offset,
    /// Which.
    pub id: u64,
    /// A digest of its bytes.
    pub digest: u64,
}

/// Everything that the clients of a run did and saw. A call that is never ended counts as unanswered: such an append is
/// a [`Outcome::Maybe`], and of other calls nothing is known.
#[derive(Clone, Debug, Default)]
pub struct History {
    now: Event,
    appends: Calls<Request, Outcome>,
    sent: BTreeSet<u64>,
    reads: Calls<Question, View>,
    searches: Calls<u64, u64>,
    queries: Calls<(), Selected>,
    counts: Calls<u64, u64>,
    local_reads: Vec<LocalRead>,
    tails: BTreeMap<Event, Tail>,
    contents: BTreeMap<ShardId, BTreeMap<NodeId, Vec<Held>>>,
    excluded: BTreeSet<(ShardId, NodeId)>,
}

type Calls<Q, A> = BTreeMap<Event, Call<Q, A>>;

#[derive(Clone, Debug)]
struct Call<Q, A> {
    asked: Q,
    answer: Option<(Event, A)>,
}

#[derive(Clone, Debug)]
struct Request {
    producer: u64,
    records: Vec<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    node: NodeId,
    shard: ShardId,
    from: Offset,
}

#[derive(Clone, Debug)]
struct View {
    ids: Vec<u64>,
    end: Offset,
}

/// Of the records that a query selects: those that it showed, and those that it would have shown, were they there.
#[derive(Clone, Debug)]
struct Selected {
    found: Vec<u64>,
    missed: Vec<u64>,
}

#[derive(Clone, Debug)]
struct LocalRead {
    asked: Question,
    returned: Event,
    ids: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Tail {
    start: BTreeMap<ShardId, Offset>,
    /// The records that it shows, where these are not all.
    wanted: Option<BTreeSet<u64>>,
    shown: Vec<Shown>,
    closed: Option<(Event, BTreeMap<ShardId, Offset>)>,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    at: Event,
    shard: ShardId,
    offset: Offset,
    id: u64,
}

impl Call<Request, Outcome> {
    fn stored(&self) -> Option<Event> {
        self.answer.as_ref().and_then(|(at, outcome)| (*outcome == Outcome::Stored).then_some(*at))
    }

    fn refused(&self) -> Option<Event> {
        self.answer.as_ref().and_then(|(at, outcome)| (*outcome == Outcome::Refused).then_some(*at))
    }
}

impl History {
    /// A producer sends a request for the first time. Records are in the order of the request.
    ///
    /// Panics where an id was sent before, or once a replica's final content is known.
    pub fn begin_append(&mut self, producer: u64, records: Vec<Sent>) -> Event {
        assert!(self.contents.is_empty(), "nothing is sent once the content is called final");
        for record in &records {
            assert!(self.sent.insert(record.id), "id {} was sent before", record.id);
        }
        let at = self.next();
        begin(&mut self.appends, at, Request { producer, records })
    }

    /// The request has been answered, or its client gives up. Attempts in between are not recorded: they repeat the
    /// request under its key.
    ///
    /// Panics where `call` is no open append.
    pub fn end_append(&mut self, call: Event, outcome: Outcome) {
        let at = self.next();
        end(&mut self.appends, call, at, outcome);
    }

    /// A linearizable read of a shard by offset, sent to a node.
    pub fn begin_read(&mut self, node: NodeId, shard: ShardId, from: Offset) -> Event {
        let at = self.next();
        begin(&mut self.reads, at, Question { node, shard, from })
    }

    /// The read shows `ids` from the offset asked for on; `end` is the shard's next offset in the view that was read,
    /// also where fewer records are shown.
    ///
    /// Panics where `call` is no open read.
    pub fn end_read(&mut self, call: Event, ids: Vec<u64>, end: Offset) {
        let at = self.next();
        self::end(&mut self.reads, call, at, View { ids, end });
    }

    /// What a node's own replica showed of a shard from an offset on, at this moment. It may be behind.
    pub fn local_read(&mut self, node: NodeId, shard: ShardId, from: Offset, ids: Vec<u64>) {
        let returned = self.next();
        self.local_reads.push(LocalRead { asked: Question { node, shard, from }, returned, ids });
    }

    /// A query over all shards for one record.
    pub fn begin_search(&mut self, id: u64) -> Event {
        let at = self.next();
        begin(&mut self.searches, at, id)
    }

    /// The search finds the record so many times. A search that fails, or says that its result is partial, is left open.
    ///
    /// Panics where `call` is no open search.
    pub fn end_search(&mut self, call: Event, found: u64) {
        let at = self.next();
        end(&mut self.searches, call, at, found);
    }

    /// A query over all shards for records.
    pub fn begin_query(&mut self) -> Event {
        let at = self.next();
        begin(&mut self.queries, at, ())
    }

    /// The query shows records once each, and leaves others out that it selects. Records that its limit may have cut off
    /// are in neither list. A query that fails, or says that its result is partial, is left open.
    ///
    /// Panics where `call` is no open query.
    pub fn end_query(&mut self, call: Event, found: Vec<u64>, missed: Vec<u64>) {
        let at = self.next();
        end(&mut self.queries, call, at, Selected { found, missed });
    }

    /// A count over all shards of one producer's records.
    pub fn begin_count(&mut self, producer: u64) -> Event {
        let at = self.next();
        begin(&mut self.counts, at, producer)
    }

    /// The count is answered. One that fails, or says that its result is partial, is left open.
    ///
    /// Panics where `call` is no open count.
    pub fn end_count(&mut self, call: Event, count: u64) {
        let at = self.next();
        end(&mut self.counts, call, at, count);
    }

    /// A tail of all records begins, in each shard at the offset given; at 0 where none is.
    pub fn open_tail(&mut self, start: BTreeMap<ShardId, Offset>) -> Event {
        let at = self.next();
        self.tails.insert(at, Tail { start, wanted: None, shown: Vec::new(), closed: None });
        at
    }

    /// The tail shows its next record. Where a tail opens with what was there before in another order, the caller
    /// records that part by offset.
    ///
    /// Panics where `tail` is no open tail.
    pub fn tail_showed(&mut self, tail: Event, shard: ShardId, offset: Offset, id: u64) {
        let at = self.next();
        self.open(tail).shown.push(Shown { at, shard, offset, id });
    }

    /// The tail ends, and claims to have shown everything below these cursors. Of a shard that is left out it claims
    /// nothing, and neither does a tail that is never closed.
    ///
    /// Panics where `tail` is no open tail.
    pub fn close_tail(&mut self, tail: Event, cursors: BTreeMap<ShardId, Offset>) {
        let at = self.next();
        self.open(tail).closed = Some((at, cursors));
    }

    /// The tail was one of these records only, among all that were ever sent.
    ///
    /// Panics where `tail` is no tail.
    pub fn tail_wants(&mut self, tail: Event, wanted: BTreeSet<u64>) {
        let known = self.tails.get_mut(&tail).unwrap_or_else(|| panic!("the call of {tail} is no tail"));
        known.wanted = Some(wanted);
    }

    /// What a replica holds of a shard when all is quiet, in its own order.
    ///
    /// Panics where it is known already.
    pub fn final_content(&mut self, node: NodeId, shard: ShardId, records: Vec<Held>) {
        let earlier = self.contents.entry(shard).or_default().insert(node, records);
        assert!(earlier.is_none(), "the content of {shard} on node {node} is known already");
    }

    /// Leaves a replica's final content out of the check: it was lost for good, or is known to be behind.
    pub fn exclude(&mut self, node: NodeId, shard: ShardId) {
        self.excluded.insert((shard, node));
    }

    fn next(&mut self) -> Event {
        self.now.0 += 1;
        self.now
    }

    fn open(&mut self, tail: Event) -> &mut Tail {
        let open = self.tails.get_mut(&tail).filter(|tail| tail.closed.is_none());
        open.unwrap_or_else(|| panic!("the call of {tail} is no open tail"))
    }
}

fn begin<Q, A>(calls: &mut Calls<Q, A>, at: Event, asked: Q) -> Event {
    calls.insert(at, Call { asked, answer: None });
    at
}

fn end<Q, A>(calls: &mut Calls<Q, A>, call: Event, at: Event, answer: A) {
    let open = calls.get_mut(&call).filter(|call| call.answer.is_none());
    open.unwrap_or_else(|| panic!("the call of {call} is not open")).answer = Some((at, answer));
}

/// Checks a history against every rule. Each violation is a sentence that begins with the name of its rule; of each rule
/// the first few are told, and how many more there are.
pub fn check(history: &History) -> Vec<String> {
    judge::judge(history)
}
