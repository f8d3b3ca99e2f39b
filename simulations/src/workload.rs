//! What clients do to the simulated cluster: they write, and write again what was not answered; they read by offset,
//! search, count, ask and follow tails. Everything goes into the history, which is judged when all is over; only what an
//! answer says of a record that was sent, or must say of all, is held against the book at once.

mod asker;
mod book;
mod follower;
pub mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use millpond::id::{Offset, ShardId};
use millpond::storage::lossy::Draws;
use serde_json::{Value, json};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use crate::asking::RANGE;
use crate::case::Knobs;
use crate::client::{call, escape, get};
use crate::draw::Dice;
use crate::ground::EPOCH;
use crate::history::{History, Outcome, Sent};
use crate::naive::Record;
use crate::node::{Fate, Node};
use crate::observe::Observed;
use asker::Asker;
use book::Book;
use follower::{Followed, Follower};
use line::{Fields, Format};

/// Clients that follow tails.
const FOLLOWERS: u32 = 2;
/// Records of one request.
const RECORDS_MAX: u64 = 12;
/// The wait before a request is sent again.
const AGAIN: Duration = Duration::from_millis(200);
/// Times of records are whole milliseconds, so that some are the same.
const MILLISECOND: i64 = 1_000_000;

/// What all clients share.
pub struct Workload {
    nodes: Vec<Arc<Node>>,
    knobs: Knobs,
    observed: Arc<Observed>,
    history: Mutex<History>,
    book: Mutex<Book>,
    /// Tails of some records only.
    followed: Mutex<Vec<Followed>>,
    ids: AtomicU64,
    /// Turned when faults are over: clients finish what they have begun.
    ending: AtomicBool,
    /// Clients that have not ended.
    open: Mutex<BTreeSet<String>>,
}

impl Workload {
    /// A workload on these nodes.
    pub fn new(nodes: Vec<Arc<Node>>, knobs: Knobs, observed: Arc<Observed>) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            knobs,
            observed,
            history: Mutex::default(),
            book: Mutex::default(),
            followed: Mutex::default(),
            ids: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            open: Mutex::default(),
        })
    }

    /// The history, for whoever adds to it or judges it.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, Vec<Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The book of what was sent. It is held for no longer than nothing is waited for.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time, in nanoseconds since the Unix epoch.
    fn now(&self) -> i64 {
        EPOCH + i64::try_from(self.observed.trace.elapsed().as_nanos()).unwrap_or(0)
    }

    /// Starts every client, each with a random stream of its own. Those that ask in LogQL draw from `asking`, so that the
    /// others do the same without them.
    pub(crate) fn start(self: &Arc<Self>, seed: u64, asking: Dice) {
        let mut seeds = Draws::new(seed);
        for client in 0..u64::from(self.knobs.clients) {
            let (workload, draws) = (Arc::clone(self), Draws::new(seeds.draw()));
            self.client(format!("writer {client}"), async move { Writer { workload, draws, client }.run().await });
        }
        let (workload, draws) = (Arc::clone(self), Draws::new(seeds.draw()));
        self.client("reader".to_owned(), async move { Reader { workload, draws }.run().await });
        for follower in 0..FOLLOWERS {
            let (workload, draws) = (Arc::clone(self), Draws::new(seeds.draw()));
            self.client(
                format!("follower {follower}"),
                async move { Follower::new(workload, draws, None).run().await },
            );
        }
        if let Some(knobs) = self.knobs.asking.clone() {
            let (mut sifting, mut dice) = asking.split();
            let (workload, draws) = (Arc::clone(self), Draws::new(sifting.draw()));
            self.client("sifter".to_owned(), async move { Follower::new(workload, draws, Some(sifting)).run().await });
            let workload = Arc::clone(self);
            self.client("asker".to_owned(), async move { Asker::new(workload, knobs).run(&mut dice).await });
        }
    }

    fn client(self: &Arc<Self>, name: String, client: impl Future<Output = ()> + Send + 'static) {
        let workload = Arc::clone(self);
        workload.clients().insert(name.clone());
        tokio::spawn(async move {
            client.await;
            workload.clients().remove(&name);
        });
    }

    fn clients(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults are over: clients end after what they have begun.
    pub fn finish(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// A client that has not ended.
    pub fn waiting(&self) -> Option<String> {
        self.clients().first().cloned()
    }

    /// A node that runs or did, also one that waits outside the cluster.
    fn any_node(&self, draws: &mut Draws) -> Arc<Node> {
        let on = self.nodes_on();
        let at = usize::try_from(draws.below(on.len() as u64)).expect("few nodes");
        Arc::clone(&on[at])
    }

    fn nodes_on(&self) -> Vec<Arc<Node>> {
        self.nodes.iter().filter(|node| node.fate() != Fate::Off).cloned().collect()
    }

    fn pause(&self, draws: &mut Draws) -> Duration {
        Duration::from_millis(draws.below(2 * self.knobs.pause_ms) + 1)
    }

    /// The id and the digest of a line that came back; a line that nobody sent is a broken promise.
    pub fn judge_line(&self, line: &str) -> Option<(u64, u64)> {
        match line::id(line) {
            Some(id) => Some((id, xxh3_64(line.as_bytes()))),
            None => {
                self.observed.violation(format_args!("damage: a line was served that nobody sent: {line:?}"));
                None
            }
        }
    }
}

/// One request as it is sent, each time.
struct Push {
    uri: &'static str,
    kind: &'static str,
    key: Option<String>,
    body: Bytes,
    sent: Vec<Sent>,
}

/// A record as it is sent.
struct Made {
    stream: u64,
    trace: Option<&'static str>,
    record: Record,
}

struct Writer {
    workload: Arc<Workload>,
    draws: Draws,
    client: u64,
}

impl Writer {
    async fn run(mut self) {
        while !self.workload.is_ending() {
            self.push().await;
            sleep(self.workload.pause(&mut self.draws)).await;
        }
        // Writes resume once everything is healed: one more, which must be stored.
        self.push().await;
    }

    /// Sends one request until it is stored, refused, or given up.
    async fn push(&mut self) {
        let push = self.request();
        let workload = Arc::clone(&self.workload);
        let call = workload.history().begin_append(self.client, push.sent.clone());
        let patience = 1 + self.draws.below(20);
        let mut attempts = 0;
        let outcome = loop {
            match self.attempt(&push).await {
                Some(status) if status.is_success() => break Outcome::Stored,
                // Not certainly nothing: a part of the records may have been taken.
                Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => break Outcome::Maybe,
                Some(_) | None => workload.observed.saw("append refused or unanswered"),
            }
            attempts += 1;
            if attempts >= patience && !workload.is_ending() {
                break Outcome::Maybe;
            }
            sleep(AGAIN).await;
        };
        workload.history().end_append(call, outcome);
        if outcome == Outcome::Stored {
            push.sent.iter().for_each(|sent| workload.book().stored(sent.id));
        }
        workload.observed.trace.line(format_args!("client {} {call} {outcome:?}", self.client));
    }

    async fn attempt(&mut self, push: &Push) -> Option<StatusCode> {
        let node = self.workload.any_node(&mut self.draws);
        let mut headers = vec![("content-type", push.kind)];
        if let Some(key) = &push.key {
            headers.push(("idempotency-key", key));
        }
        Some(call(&node, Method::POST, push.uri, &headers, push.body.clone()).await?.status)
    }

    fn request(&mut self) -> Push {
        let count = 1 + self.draws.below(RECORDS_MAX);
        let room = self.workload.knobs.request_bytes / usize::try_from(count).expect("few records");
        let first = self.workload.ids.fetch_add(count, Ordering::Relaxed);
        let now = self.workload.now();
        let made: Vec<Made> = (first..first + count).map(|id| self.make(id, now, room)).collect();
        let streams = u64::from(self.workload.knobs.streams);
        let sent = |made: &Made| Sent {
            id: made.record.place.1,
            digest: xxh3_64(made.record.line.as_bytes()),
            stream: self.client * streams + made.stream,
            shard: None,
        };
        let sent = made.iter().map(sent).collect();
        let key = (self.draws.below(2) == 0).then(|| format!("request-{first}"));
        let (uri, kind, body) = if self.draws.below(2) == 0 {
            ("/loki/api/v1/push", "application/json", loki(&made))
        } else {
            ("/api/v1/records", "application/x-ndjson", ndjson(&made))
        };
        made.into_iter().for_each(|made| self.workload.book().sent(made.record));
        Push { uri, kind, key, body, sent }
    }

    fn make(&mut self, id: u64, now: i64, room: usize) -> Made {
        let words = self.filler(room);
        let time = now - i64::try_from(self.draws.below(4_000_000_000)).unwrap_or(0);
        let stream = self.draws.below(u64::from(self.workload.knobs.streams));
        let fields = Fields::of(id);
        let record = Record {
            timestamp: time - time % MILLISECOND,
            place: (0, id),
            labels: line::labels(self.client, stream),
            metadata: fields.metadata(),
            line: line::write(id, self.client, Format::of(self.client, stream), &words),
        };
        Made { stream, trace: fields.trace, record }
    }

    fn filler(&mut self, room: usize) -> String {
        const WORDS: [&str; 8] =
            ["connect", "timeout", "GET /api/v1/items", "status=200", "user", "retry", "closed", "db"];
        let mut text = String::new();
        while text.len() < room {
            let word = usize::try_from(self.draws.below(16)).expect("small");
            match WORDS.get(word) {
                Some(word) => text.push_str(word),
                None => text.push_str(&self.draws.draw().to_string()),
            }
            text.push(' ');
        }
        text
    }
}

fn loki(made: &[Made]) -> Bytes {
    let mut streams: BTreeMap<u64, (&Record, Vec<Value>)> = BTreeMap::new();
    for Made { stream, trace, record } in made {
        let (time, line) = (record.timestamp.to_string(), &record.line);
        let value = match trace {
            Some(trace) => json!([time, line, { "trace": trace }]),
            None => json!([time, line]),
        };
        streams.entry(*stream).or_insert_with(|| (record, Vec::new())).1.push(value);
    }
    let streams: Vec<Value> =
        streams.values().map(|(record, values)| json!({"stream": record.labels, "values": values})).collect();
    json!({"streams": streams}).to_string().into()
}

fn ndjson(made: &[Made]) -> Bytes {
    let mut body = String::new();
    for Made { trace, record, .. } in made {
        let mut written = json!({"timestamp": record.timestamp, "line": record.line, "labels": record.labels});
        if let Some(trace) = trace {
            written["trace"] = json!(trace);
        }
        body.push_str(&written.to_string());
        body.push('\n');
    }
    body.into()
}

/// Reads by offset, searches and counts.
struct Reader {
    workload: Arc<Workload>,
    draws: Draws,
}

impl Reader {
    async fn run(mut self) {
        while !self.workload.is_ending() {
            match self.draws.below(4) {
                0 => self.read().await,
                1 => self.read_locally().await,
                2 => self.search().await,
                _ => self.count().await,
            }
            sleep(self.workload.pause(&mut self.draws)).await;
        }
    }

    fn shard(&mut self) -> ShardId {
        ShardId(u32::try_from(self.draws.below(u64::from(self.workload.knobs.shards))).expect("few shards"))
    }

    async fn read(&mut self) {
        let (node, shard) = (self.workload.any_node(&mut self.draws), self.shard());
        let call = self.workload.history().begin_read(node.id, shard, Offset(0));
        if let Some((ids, end)) = self.workload.records(&node, shard, "leader", 0).await {
            self.workload.history().end_read(call, ids.iter().map(|(_, id, _)| *id).collect(), Offset(end));
        } else {
            self.workload.observed.saw("read refused");
        }
    }

    async fn read_locally(&mut self) {
        let (node, shard) = (self.workload.any_node(&mut self.draws), self.shard());
        if let Some((ids, _)) = self.workload.records(&node, shard, "local", 0).await {
            let ids = ids.iter().map(|(_, id, _)| *id).collect();
            self.workload.history().local_read(node.id, shard, Offset(0), ids);
        }
    }

    async fn search(&mut self) {
        let sent = self.workload.ids.load(Ordering::Relaxed);
        if sent == 0 {
            return;
        }
        let id = self.draws.below(sent);
        let node = self.workload.any_node(&mut self.draws);
        let query = escape(&format!("{{app=\"sim\"}} {}", line::filter(id)));
        let uri = format!("/loki/api/v1/query_range?query={query}&{}&limit=100", range());
        let call = self.workload.history().begin_search(id);
        let Some(answer) = get(&node, &uri).await.filter(|answer| answer.status.is_success()) else { return };
        if let Some(found) = streams_of(&answer.body) {
            for line in &found {
                self.workload.judge_line(line);
            }
            self.workload.history().end_search(call, found.len() as u64);
        }
    }

    async fn count(&mut self) {
        let client = self.draws.below(u64::from(self.workload.knobs.clients));
        let node = self.workload.any_node(&mut self.draws);
        let query = escape(&format!("sum(count_over_time({{app=\"sim\", client=\"{client}\"}}[2h]))"));
        let uri = format!("/loki/api/v1/query?query={query}&time={}", EPOCH + RANGE);
        let call = self.workload.history().begin_count(client);
        let Some(answer) = get(&node, &uri).await.filter(|answer| answer.status.is_success()) else { return };
        if let Some(count) = number_of(&answer.body) {
            self.workload.history().end_count(call, count);
        }
    }
}

fn range() -> String {
    format!("start={}&end={}", EPOCH - RANGE, EPOCH + RANGE)
}

/// The lines of an answer of streams; nothing where it says that it is partial, or is another kind.
fn streams_of(body: &[u8]) -> Option<Vec<String>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let streams = answer.pointer("/data/result")?.as_array()?;
    let values = streams.iter().filter_map(|stream| stream.get("values")?.as_array()).flatten();
    Some(values.filter_map(|value| Some(value.get(1)?.as_str()?.to_owned())).collect())
}

/// The one number of an answer; an empty vector counts nothing.
fn number_of(body: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    match answer.pointer("/data/result")?.as_array()?.first() {
        None => Some(0),
        Some(sample) => sample.pointer("/value/1")?.as_str()?.parse().ok(),
    }
}

impl Workload {
    /// What a node shows of a shard from an offset on, to its end: offset, id and digest of each record, and the end of
    /// the first page's view. Nothing where a page is refused; a gap is a broken promise.
    pub async fn records(
        &self,
        node: &Node,
        shard: ShardId,
        source: &str,
        from: u64,
    ) -> Option<(Vec<(u64, u64, u64)>, u64)> {
        let (mut records, mut next, mut end) = (Vec::new(), from, None);
        loop {
            let uri = format!("/api/v1/shards/{}/records?from={next}&limit=1000&source={source}", shard.0);
            let answer = get(node, &uri).await.filter(|answer| answer.status.is_success())?;
            let page = self.page(&answer.body, next);
            let end = *end.get_or_insert(answer.end?);
            next += page.len() as u64;
            let ended = page.is_empty() || next >= end;
            records.extend(page);
            if ended {
                records.retain(|(offset, _, _)| *offset < end);
                return Some((records, end));
            }
        }
    }

    fn page(&self, body: &[u8], from: u64) -> Vec<(u64, u64, u64)> {
        let text = String::from_utf8_lossy(body);
        let mut records = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            let (offset, line) = (record["offset"].as_u64().unwrap_or(u64::MAX), record["line"].as_str().unwrap_or(""));
            let expected = from + records.len() as u64;
            if offset != expected {
                self.observed.violation(format_args!("offsets: {offset} came where {expected} was due"));
            }
            if let Some((id, digest)) = self.judge_line(line) {
                records.push((offset, id, digest));
            }
        }
        records
    }
}
