//! Load of which every record is known: streams that each live in one shard, writers that keep every shard busy, and a
//! ledger of what was sent, acknowledged and read back.
//!
//! A request holds records of one stream, so it belongs to one shard, which the node names when it answers. Every record
//! ends in ` demo_seq=N`; N leads through the ledger to the line, labels and time it was sent with, so the ledger needs a
//! few bytes per request and one byte per record.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use millpond_actors::input::Line;
use millpond_actors::load::{self, Acknowledged, Client, Pusher, StreamBody};
use millpond_actors::observe::RecordView;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{now, selector};

/// What stands before a record's number at the end of its line.
const TAG: &str = " demo_seq=";
/// Streams that the input's own streams are split into, so that they meet most shards.
const STREAMS: usize = 64;
/// Records that were altered and are shown.
const ALTERED_SHOWN_MAX: usize = 5;
/// Longest line that is sent; its tag must fit below the bound of a line.
const LINE_BYTES_MAX: usize = millpond::limits::LINE_BYTES_MAX - 64;

/// One stream: its labels, the lines it repeats, and the shard it was seen to live in.
#[derive(Debug)]
struct Stream {
    labels: Vec<(String, String)>,
    selector: String,
    lines: Vec<usize>,
    cursor: AtomicUsize,
    shard: u32,
}

/// One request of the ledger: records `base..base + count` of a stream, from its line `cursor` on.
#[derive(Clone, Copy, Debug)]
struct Request {
    base: u64,
    count: u64,
    stream: usize,
    cursor: usize,
    timestamp: i64,
    acknowledged: bool,
}

/// What is known of the requests at one moment.
#[derive(Debug, Default)]
struct Ledger {
    /// By `base`, ascending.
    requests: Vec<Request>,
    next: u64,
    /// Requests without an answer: `base` to shard.
    unanswered: BTreeMap<u64, u32>,
    /// By shard, in order of time.
    acknowledged: BTreeMap<u32, Vec<Acknowledgement>>,
    line_bytes: u64,
    attempts_again: u64,
}

/// One request that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acknowledgement {
    at: Instant,
    /// When the request was to be sent.
    due: Instant,
    /// When the attempt began that was answered.
    attempt_began: Instant,
    attempts: u32,
}

/// Load on a cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lines: Vec<Line>,
    streams: Vec<Stream>,
    ledger: Mutex<Ledger>,
    client: Client,
    nodes: Vec<String>,
    stop: AtomicBool,
    acknowledged_bytes: AtomicU64,
}

/// How the writers press.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    /// Requests at once to every shard.
    pub(crate) writers_per_shard: usize,
    /// Raw bytes of one request.
    pub(crate) request_bytes: usize,
    /// How long a request is tried before the run fails.
    pub(crate) patience: Duration,
    /// Raw bytes of all writers in a second; as many as they can where it is none.
    pub(crate) bytes_per_second: Option<u64>,
}

impl Pressure {
    /// The time between two requests of one of so many writers.
    fn pause(&self, writers: usize) -> Option<Duration> {
        let rate = self.bytes_per_second? as f64 / writers as f64;
        Some(Duration::from_secs_f64(self.request_bytes as f64 / rate))
    }
}

/// Sums of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Records sent at least once.
    pub(crate) sent: u64,
    /// Records of acknowledged requests.
    pub(crate) acknowledged: u64,
    /// Requests.
    pub(crate) requests: u64,
    /// Attempts beyond the first of each request.
    pub(crate) again: u64,
    /// Bytes of lines sent.
    pub(crate) line_bytes: u64,
}

/// What reading back found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Acknowledged records that were found.
    pub(crate) found: u64,
    /// Acknowledged records that were not.
    pub(crate) missing: u64,
    /// Records found more than once, acknowledged or not.
    pub(crate) doubled: u64,
    /// Records that are not what was sent.
    pub(crate) altered: u64,
    /// The first of those, described.
    pub(crate) shown: Vec<String>,
}

impl Traffic {
    /// Splits the lines into streams and learns where each lives by sending one record of it.
    ///
    /// # Errors
    /// Where there is no usable line, or a node does not name the shard of a push.
    pub(crate) async fn learn(lines: Vec<Line>, client: Client, nodes: Vec<String>) -> Result<Self> {
        let lines: Vec<Line> = lines.into_iter().filter(|line| line.text.len() <= LINE_BYTES_MAX).collect();
        ensure!(!lines.is_empty(), "the input has no line that could be sent");
        let mut streams = split(&lines);
        let mut ledger = Ledger::default();
        let mut pusher = Pusher::new(client.clone(), nodes.clone(), 0, Duration::from_secs(30));
        for (at, stream) in streams.iter_mut().enumerate() {
            let request = ledger.begin(stream, at, 1);
            let body = body(&lines, stream, &request);
            let acknowledged = pusher.push(&body).await.context("the first record of a stream")?;
            let [shard] = acknowledged.shards[..] else {
                bail!("a push of one stream answered with shards {:?}, not with one", acknowledged.shards);
            };
            stream.shard = shard;
            ledger.end(request.base, true);
        }
        let shared = Shared {
            lines,
            streams,
            ledger: Mutex::new(ledger),
            client,
            nodes,
            stop: AtomicBool::new(false),
            acknowledged_bytes: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The shards that have streams.
    pub(crate) fn shards(&self) -> BTreeSet<u32> {
        self.shared.streams.iter().map(|stream| stream.shard).collect()
    }

    /// Starts the writers; they run until [`Traffic::stop`].
    pub(crate) fn start(&self, pressure: Pressure) -> JoinSet<Result<()>> {
        self.shared.stop.store(false, Ordering::Relaxed);
        let (mut writers, shards) = (JoinSet::new(), self.shards());
        let (count, began) = (shards.len() * pressure.writers_per_shard, Instant::now());
        let pause = pressure.pause(count);
        let seats = shards.iter().flat_map(|shard| (0..pressure.writers_per_shard).map(|writer| (*shard, writer)));
        for (at, (shard, writer)) in seats.enumerate() {
            let traffic = self.clone();
            // Spread over the pause, so that they do not all send at once.
            let first = began + pause.unwrap_or_default().mul_f64(at as f64 / count as f64);
            writers.spawn(async move { traffic.write(shard, writer, pressure, first, pause).await });
        }
        writers
    }

    /// Lets every writer end after the request it is at.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Stops the writers and waits for them.
    ///
    /// # Errors
    /// Where one of them failed.
    pub(crate) async fn finish(&self, mut writers: JoinSet<Result<()>>) -> Result<()> {
        self.stop();
        while let Some(writer) = writers.join_next().await {
            writer.context("a writer")??;
        }
        Ok(())
    }

    async fn write(
        &self,
        shard: u32,
        writer: usize,
        pressure: Pressure,
        first: Instant,
        pause: Option<Duration>,
    ) -> Result<()> {
        let mut next = first;
        let shared = &self.shared;
        let own: Vec<usize> = (0..shared.streams.len()).filter(|at| shared.streams[*at].shard == shard).collect();
        let at = shard as usize + writer;
        let mut pusher = Pusher::new(shared.client.clone(), shared.nodes.clone(), at, pressure.patience);
        for turn in writer.. {
            if let Some(pause) = pause {
                sleep_until(next).await;
                next += pause;
            } else {
                next = Instant::now();
            }
            if shared.stop.load(Ordering::Relaxed) {
                break;
            }
            let due = pause.map_or(next, |pause| next - pause);
            let stream = own[turn % own.len()];
            let count = self.lines_for(stream, pressure.request_bytes);
            let request = self.ledger().begin(&shared.streams[stream], stream, count);
            let body = body(&shared.lines, &shared.streams[stream], &request);
            let answer = pusher.push(&body).await;
            let mut ledger = self.ledger();
            ledger.end(request.base, answer.is_ok());
            let acknowledged = answer.with_context(|| format!("a request to shard {shard}"))?;
            ledger.attempts_again += u64::from(acknowledged.attempts - 1);
            let Acknowledged { attempts, attempt_began, .. } = acknowledged;
            let of_shard = ledger.acknowledged.entry(shard).or_default();
            of_shard.push(Acknowledgement { at: Instant::now(), due, attempt_began, attempts });
            let bytes: usize = (0..count).map(|row| shared.line(&request, row).text.len()).sum();
            ledger.line_bytes += bytes as u64;
            shared.acknowledged_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lines_for(&self, stream: usize, bytes: usize) -> u64 {
        let stream = &self.shared.streams[stream];
        let mut cursor = stream.cursor.load(Ordering::Relaxed);
        let (mut count, mut sum) = (0, 0);
        while sum < bytes {
            sum += self.shared.lines[stream.lines[cursor % stream.lines.len()]].text.len() + TAG.len() + 8;
            cursor += 1;
            count += 1;
        }
        count
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().expect("no holder of the ledger panics")
    }

    /// Bytes of lines acknowledged so far.
    pub(crate) fn acknowledged_bytes(&self) -> u64 {
        self.shared.acknowledged_bytes.load(Ordering::Relaxed)
    }

    /// The requests to a shard that have no answer at this moment.
    pub(crate) fn unanswered(&self, shard: u32) -> BTreeSet<u64> {
        self.ledger().unanswered.iter().filter(|(_, of)| **of == shard).map(|(base, _)| *base).collect()
    }

    /// The longest time without an acknowledgement on one shard, of the spans that end within `span`.
    pub(crate) fn longest_pause(&self, shard: u32, span: &Range<Instant>) -> Option<Duration> {
        let ledger = self.ledger();
        let times = ledger.acknowledged.get(&shard)?;
        times.windows(2).filter(|pair| span.contains(&pair[1].at)).map(|pair| pair[1].at - pair[0].at).max()
    }

    /// How long the requests took that were acknowledged within `span`, from when they were to be sent; ascending.
    pub(crate) fn latencies(&self, span: &Range<Instant>) -> Vec<Duration> {
        let ledger = self.ledger();
        let within = ledger.acknowledged.values().flatten().filter(|of| span.contains(&of.at));
        let mut latencies: Vec<Duration> = within.map(|of| of.at - of.due).collect();
        latencies.sort_unstable();
        latencies
    }

    /// The most attempts that a request took which was acknowledged within `span`.
    pub(crate) fn most_attempts(&self, span: &Range<Instant>) -> u32 {
        let ledger = self.ledger();
        let within = ledger.acknowledged.values().flatten().filter(|of| span.contains(&of.at));
        within.map(|of| of.attempts).max().unwrap_or(0)
    }

    /// When the first request of a shard was acknowledged of those whose attempt began after `from`.
    pub(crate) fn resumed_at(&self, shard: u32, from: Instant) -> Option<Instant> {
        let ledger = self.ledger();
        let times = ledger.acknowledged.get(&shard)?;
        times.iter().filter(|of| of.attempt_began > from).map(|of| of.at).min()
    }

    /// The sums so far.
    pub(crate) fn totals(&self) -> Totals {
        let ledger = self.ledger();
        let acknowledged = ledger.requests.iter().filter(|request| request.acknowledged).map(|request| request.count);
        Totals {
            sent: ledger.next,
            acknowledged: acknowledged.sum(),
            requests: ledger.requests.len() as u64,
            again: ledger.attempts_again,
            line_bytes: ledger.line_bytes,
        }
    }

    /// Begins to count what is read back.
    pub(crate) fn count(&self) -> Counting {
        let ledger = self.ledger();
        let seen = vec![0; usize::try_from(ledger.next).expect("records fit in memory one byte each")];
        Counting { requests: ledger.requests.clone(), seen, found: Found::default(), shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    fn line(&self, request: &Request, row: u64) -> &Line {
        let stream = &self.streams[request.stream];
        let row = usize::try_from(row).expect("a row of a request");
        &self.lines[stream.lines[(request.cursor + row) % stream.lines.len()]]
    }
}

impl Ledger {
    fn begin(&mut self, stream: &Stream, at: usize, count: u64) -> Request {
        let lines = usize::try_from(count).expect("lines of one request");
        let cursor = stream.cursor.fetch_add(lines, Ordering::Relaxed);
        let request = Request { base: self.next, count, stream: at, cursor, timestamp: now(), acknowledged: false };
        self.next += count;
        self.unanswered.insert(request.base, stream.shard);
        self.requests.push(request);
        request
    }

    fn end(&mut self, base: u64, acknowledged: bool) {
        self.unanswered.remove(&base);
        let at = self.requests.binary_search_by_key(&base, |request| request.base).expect("it was begun");
        self.requests[at].acknowledged = acknowledged;
    }
}

/// The streams of the input, each split so that there are about [`STREAMS`].
fn split(lines: &[Line]) -> Vec<Stream> {
    let mut groups: BTreeMap<Vec<(String, String)>, Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let mut labels = line.labels.clone();
        if groups.len() >= STREAMS && !groups.contains_key(&labels) {
            labels = vec![("service_name".to_owned(), "others".to_owned())];
        }
        groups.entry(labels).or_default().push(at);
    }
    let parts = STREAMS.div_ceil(groups.len());
    let part = |labels: &Vec<(String, String)>, part: usize, lines: &[usize]| {
        let mut labels = labels.clone();
        labels.push(("part".to_owned(), part.to_string()));
        let selector = selector(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Stream { labels, selector, lines: lines.to_vec(), cursor: AtomicUsize::new(0), shard: 0 }
    };
    let of_group = |(labels, lines): (&Vec<(String, String)>, &Vec<usize>)| {
        (0..parts).map(|at| part(labels, at, lines)).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_group).collect()
}

fn body(lines: &[Line], stream: &Stream, request: &Request) -> Bytes {
    let mut encoded = StreamBody::new(stream.selector.as_str());
    let mut text = String::new();
    let count = usize::try_from(request.count).expect("lines of one request");
    for (row, timestamp) in (0..count).zip(request.timestamp..) {
        let line = &lines[stream.lines[(request.cursor + row) % stream.lines.len()]];
        tagged(&mut text, line, request.base + row as u64);
        encoded.push(timestamp, &text, line.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    load::encode([&encoded])
}

fn tagged(into: &mut String, line: &Line, number: u64) {
    into.clear();
    into.push_str(&line.text);
    into.push_str(TAG);
    into.push_str(&number.to_string());
}

/// Counts records as they are read back and compares each with what was sent.
#[derive(Debug)]
pub(crate) struct Counting {
    shared: Arc<Shared>,
    requests: Vec<Request>,
    seen: Vec<u8>,
    found: Found,
}

impl Counting {
    /// One record from a shard.
    pub(crate) fn see(&mut self, shard: u32, record: &RecordView<'_>) {
        let number = record.line.rfind(TAG).and_then(|at| record.line[at + TAG.len()..].parse::<u64>().ok());
        let Some(number) = number.filter(|number| *number < self.seen.len() as u64) else {
            self.alter(format!("shard {shard} offset {}: no record of this run: {}", record.offset, record.line));
            return;
        };
        let at = self.requests.partition_point(|request| request.base <= number) - 1;
        let request = self.requests[at];
        let row = number - request.base;
        let mut expected = String::new();
        let line = self.shared.line(&request, row);
        tagged(&mut expected, line, number);
        let stream = &self.shared.streams[request.stream];
        let labels =
            stream.labels.iter().all(|(name, value)| record.labels.get(name.as_str()).is_some_and(|v| v == value));
        let metadata =
            line.metadata.iter().all(|(name, value)| record.metadata.get(name.as_str()).is_some_and(|v| v == value));
        let timestamp = request.timestamp + i64::try_from(row).expect("a row of a request");
        if *expected != *record.line || !labels || !metadata || timestamp != record.timestamp || stream.shard != shard {
            self.alter(format!("shard {shard} offset {}: {record:?}, sent as {expected}", record.offset));
        }
        let number = usize::try_from(number).expect("below the length of `seen`");
        self.seen[number] = self.seen[number].saturating_add(1);
    }

    fn alter(&mut self, text: String) {
        self.found.altered += 1;
        if self.found.shown.len() < ALTERED_SHOWN_MAX {
            self.found.shown.push(text);
        }
    }

    /// The judgement.
    pub(crate) fn finish(mut self) -> Found {
        for request in &self.requests {
            let from = usize::try_from(request.base).expect("below the length of `seen`");
            let count = usize::try_from(request.count).expect("below the length of `seen`");
            for seen in &self.seen[from..from + count] {
                self.found.doubled += u64::from(*seen > 1);
                if request.acknowledged {
                    self.found.found += u64::from(*seen > 0);
                    self.found.missing += u64::from(*seen == 0);
                }
            }
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use millpond_actors::input::Generator;

    use super::*;

    fn traffic() -> Traffic {
        let lines = Generator::new(1).lines(500);
        let streams = split(&lines);
        let shared = Shared {
            lines,
            streams,
            ledger: Mutex::default(),
            client: Client::new(Duration::from_secs(1)),
            nodes: Vec::new(),
            stop: AtomicBool::new(false),
            acknowledged_bytes: AtomicU64::new(0),
        };
        Traffic { shared: Arc::new(shared) }
    }

    fn see(counting: &mut Counting, request: &Request, row: u64, altered: &str) {
        let shared = Arc::clone(&counting.shared);
        let mut line = String::new();
        tagged(&mut line, shared.line(request, row), request.base + row);
        line.insert_str(0, altered);
        let stream = &shared.streams[request.stream];
        let labels = stream.labels.iter().map(|(n, v)| (Cow::from(n.as_str()), Cow::from(v.as_str()))).collect();
        let timestamp = request.timestamp + i64::try_from(row).unwrap();
        let record = RecordView { offset: 0, timestamp, labels, line: line.into(), metadata: BTreeMap::new() };
        counting.see(0, &record);
    }

    #[test]
    fn what_is_missing_doubled_or_altered_is_counted() {
        let traffic = traffic();
        let (first, second) = {
            let mut ledger = traffic.ledger();
            let first = ledger.begin(&traffic.shared.streams[0], 0, 10);
            let second = ledger.begin(&traffic.shared.streams[5], 5, 10);
            ledger.end(first.base, true);
            ledger.end(second.base, false);
            (first, second)
        };
        let mut counting = traffic.count();
        for row in 0..9 {
            see(&mut counting, &first, row, "");
        }
        see(&mut counting, &first, 4, "");
        see(&mut counting, &second, 3, "");
        see(&mut counting, &second, 4, "altered ");
        let found = counting.finish();
        assert_eq!((found.found, found.missing, found.doubled, found.altered), (9, 1, 1, 1));
        assert!(found.shown[0].contains("altered"));
    }

    #[test]
    fn unanswered_requests_are_known_by_their_shard() {
        let traffic = traffic();
        let request = traffic.ledger().begin(&traffic.shared.streams[0], 0, 3);
        assert_eq!(traffic.unanswered(0), BTreeSet::from([request.base]));
        traffic.ledger().end(request.base, true);
        assert!(traffic.unanswered(0).is_empty());
        assert_eq!(traffic.totals().acknowledged, 3);
    }

    #[test]
    fn pauses_latencies_and_attempts_are_those_of_the_span() {
        let (traffic, began) = (traffic(), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        let acknowledged = [(10, 5, 1), (40, 20, 3), (50, 45, 1), (90, 70, 2)];
        let acknowledged = acknowledged.map(|(ack, due, attempts)| Acknowledgement {
            at: at(ack),
            due: at(due),
            attempt_began: at(ack - 1),
            attempts,
        });
        traffic.ledger().acknowledged.insert(4, acknowledged.to_vec());
        let span = at(45)..at(100);
        assert_eq!(traffic.longest_pause(4, &span), Some(Duration::from_millis(40)));
        assert_eq!(traffic.longest_pause(4, &(at(0)..at(45))), Some(Duration::from_millis(30)));
        assert_eq!(traffic.latencies(&span), [5, 20].map(Duration::from_millis));
        assert_eq!((traffic.most_attempts(&span), traffic.most_attempts(&(at(0)..at(45)))), (2, 3));
        assert_eq!(traffic.resumed_at(4, at(45)), Some(at(50)));
    }

    #[test]
    fn a_pace_is_shared_by_all_writers() {
        let patience = Duration::from_secs(1);
        let paced = Pressure { writers_per_shard: 1, request_bytes: 1_000, patience, bytes_per_second: Some(4_000) };
        assert_eq!(paced.pause(16), Some(Duration::from_secs(4)));
        assert_eq!(Pressure { bytes_per_second: None, ..paced }.pause(16), None);
    }

    #[test]
    fn every_line_of_the_input_is_in_a_stream() {
        let traffic = traffic();
        let lines: BTreeSet<usize> = traffic.shared.streams.iter().flat_map(|stream| stream.lines.clone()).collect();
        assert_eq!(lines.len(), traffic.shared.lines.len());
        assert!(traffic.shared.streams.len() >= STREAMS);
    }
}
