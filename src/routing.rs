//! From a request to parts, and from a stream to its shard.
//!
//! Everything here is a function of the request's key and body alone, so that a retry meets the same shards and the same
//! parts, and a shard can skip a part it knows. Which node holds a shard, and how a part is encoded, is not known here.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::id::{Key, ShardId};
use crate::label::Labels;
use crate::limits::{BATCH_RAW_BYTES_MAX, BATCH_ROWS_MAX, SHARDS_MAX};
use crate::record::{Record, StreamRecords};

/// What a row costs besides its text: timestamp, stream, length.
const ROW_BYTES: usize = 16;
/// What a metadata field or a label costs besides its text.
const FIELD_BYTES: usize = 8;

/// How records find their shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// By tenant and stream: a stream lives in one shard and keeps its order across requests.
    #[default]
    Hash,
    /// A request's parts are dealt around from a shard that its key names.
    RoundRobin,
    /// Each part goes where its key and number point.
    Random,
}

/// The identity of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// What shards remember.
    pub key: Key,
    /// xxh3-64 of the decompressed body: the same key with another body is another request, and refused.
    pub body_hash: u64,
    /// Whether a retry of the same body comes to the same key. If not, a retry stores its records again.
    pub repeatable: bool,
}

/// What a request's key is made of.
#[derive(Clone, Copy, Debug)]
pub struct KeySource<'a> {
    /// Whose request it is.
    pub tenant: &'a str,
    /// The client's own key.
    pub idempotency_key: Option<&'a str>,
    /// The body after decompression.
    pub body: &'a [u8],
    /// `Intake::every_record_timed`.
    pub every_record_timed: bool,
    /// `Intake::time_refusals`.
    pub time_refusals: u64,
    /// Random bits, for a request that cannot be told from another.
    pub draw: u64,
}

impl RequestKey {
    /// The client's key where there is one; else the body's hash, if every record in it carries its time; else the draw.
    ///
    /// Records refused by the clock are part of the key: judged again later, the same body may hold more records, and
    /// their parts must not be taken for the earlier ones.
    pub fn derive(source: &KeySource<'_>) -> Self {
        let body_hash = xxh3_64(source.body);
        let draw = source.draw.to_le_bytes();
        let (kind, bytes) = match source.idempotency_key {
            Some(key) => (b'k', key.as_bytes()),
            None if source.every_record_timed => (b'b', source.body),
            None => (b'd', &draw[..]),
        };
        let mut hash = Xxh3::new();
        hash.update(source.tenant.as_bytes());
        hash.update(&[0xff, kind]);
        hash.update(&source.time_refusals.to_le_bytes());
        hash.update(bytes);
        Self { key: Key(hash.digest128()), body_hash, repeatable: kind != b'd' }
    }
}

/// Some records of a request that go into one sub-batch of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where they go.
    pub shard: ShardId,
    /// Which of the request's parts for that shard this is, from 0 without a gap, in the order they were sent.
    pub part: u32,
    /// The records.
    pub streams: Vec<StreamRecords>,
}

/// The shard of a stream under [`Strategy::Hash`]. A shard takes a contiguous range of hashes, so that it can be split.
///
/// Panics where there is no shard.
pub fn shard_of(tenant: &str, labels: &Labels, shards: u32) -> ShardId {
    assert!((1..=SHARDS_MAX).contains(&shards), "a cluster has between 1 and {SHARDS_MAX} shards");
    place(xxh3_64_with_seed(tenant.as_bytes(), labels.hash()), shards)
}

/// A hash's place among so many equal ranges.
fn place(hash: u64, shards: u32) -> ShardId {
    let at = (u128::from(hash) * u128::from(shards)) >> 64;
    ShardId(u32::try_from(at).expect("less than the number of shards"))
}

/// Splits a request's records into parts of at most `bytes_max` bytes, rows' and labels' overhead counted, and
/// `BATCH_ROWS_MAX` rows; a longer record is a part of its own. Ordered by shard, then part. Records of one stream stay in
/// order. `bytes_max` is at most `BATCH_RAW_BYTES_MAX` and the same on all nodes: a request that is sent again must meet
/// the same parts.
///
/// Panics where there is no shard, or where a record is larger than intake allows.
pub fn split(
    streams: Vec<StreamRecords>,
    tenant: &str,
    key: Key,
    shards: u32,
    strategy: Strategy,
    bytes_max: usize,
) -> Vec<Part> {
    assert!(bytes_max <= BATCH_RAW_BYTES_MAX, "a part is at most a sub-batch");
    assert!((1..=SHARDS_MAX).contains(&shards), "a cluster has between 1 and {SHARDS_MAX} shards");
    match strategy {
        Strategy::Hash => {
            let mut cutters: Vec<Cutter> = (0..shards).map(|_| Cutter::new(bytes_max)).collect();
            for stream in streams {
                let shard = shard_of(tenant, &stream.labels, shards);
                cutters[shard.0 as usize].push(stream);
            }
            let numbered = cutters.into_iter().zip(0..).flat_map(|(cutter, shard)| {
                let parts = cutter.finish().into_iter().zip(0..);
                parts.map(move |(streams, part)| Part { shard: ShardId(shard), part, streams })
            });
            numbered.collect()
        }
        Strategy::RoundRobin | Strategy::Random => {
            let mut cutter = Cutter::new(bytes_max);
            for stream in streams {
                cutter.push(stream);
            }
            deal(cutter.finish(), key, shards, strategy)
        }
    }
}

/// Gives each part a shard that depends on the key and its number alone.
fn deal(parts: Vec<Vec<StreamRecords>>, key: Key, shards: u32, strategy: Strategy) -> Vec<Part> {
    let bytes = key.0.to_le_bytes();
    let start = place(xxh3_64(&bytes), shards).0;
    let mut next = vec![0_u32; shards as usize];
    let mut dealt: Vec<Part> = Vec::with_capacity(parts.len());
    for (streams, number) in parts.into_iter().zip(0_u32..) {
        let shard = match strategy {
            Strategy::Random => place(xxh3_64_with_seed(&bytes, u64::from(number)), shards),
            Strategy::Hash | Strategy::RoundRobin => ShardId((start + number % shards) % shards),
        };
        let part = &mut next[shard.0 as usize];
        dealt.push(Part { shard, part: *part, streams });
        *part += 1;
    }
    dealt.sort_by_key(|part| (part.shard, part.part));
    dealt
}

/// Cuts a sequence of records into parts that are full.
struct Cutter {
    bytes_max: usize,
    full: Vec<Vec<StreamRecords>>,
    open: Vec<StreamRecords>,
    bytes: usize,
    rows: usize,
}

impl Cutter {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, full: Vec::new(), open: Vec::new(), bytes: 0, rows: 0 }
    }

    fn push(&mut self, stream: StreamRecords) {
        let StreamRecords { labels, records } = stream;
        let of_labels = labels.raw_bytes() + FIELD_BYTES * labels.len();
        let mut rest = records.into_iter();
        while let Some(first) = rest.as_slice().first() {
            if !self.fits(of_labels + cost(first)) {
                self.close();
            }
            let least = of_labels + cost(first);
            assert!(least <= BATCH_RAW_BYTES_MAX, "intake bounds a record far below a sub-batch");
            self.bytes += of_labels;
            let mut taken = 0;
            for record in rest.as_slice() {
                let cost = cost(record);
                if !self.fits(cost) {
                    break;
                }
                self.bytes += cost;
                self.rows += 1;
                taken += 1;
            }
            let whole = taken == rest.len();
            let records = if whole { std::mem::take(&mut rest).collect() } else { rest.by_ref().take(taken).collect() };
            self.open.push(StreamRecords { labels: labels.clone(), records });
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.rows == 0 || (self.bytes + bytes <= self.bytes_max && self.rows < BATCH_ROWS_MAX)
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open));
        }
        (self.bytes, self.rows) = (0, 0);
    }

    fn finish(mut self) -> Vec<Vec<StreamRecords>> {
        self.close();
        self.full
    }
}

fn cost(record: &Record) -> usize {
    record.raw_bytes() + ROW_BYTES + FIELD_BYTES * record.metadata.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::Strategy as Generator;

    use super::*;

    const STRATEGIES: [Strategy; 3] = [Strategy::Hash, Strategy::RoundRobin, Strategy::Random];

    fn labels(number: usize) -> Labels {
        Labels::new([("app", number.to_string())])
    }

    /// Streams of records whose timestamps number them through.
    fn streams(lengths: &[Vec<usize>]) -> Vec<StreamRecords> {
        let mut number = 0;
        let mut stream = |at: usize, lengths: &Vec<usize>| {
            let records = lengths.iter().map(|length| {
                number += 1;
                let metadata = vec![("detected_level".into(), "info".into())];
                Record { timestamp: number, line: "x".repeat(*length).into(), metadata }
            });
            StreamRecords { labels: labels(at), records: records.collect() }
        };
        lengths.iter().enumerate().map(|(at, lengths)| stream(at, lengths)).collect()
    }

    fn lengths() -> impl Generator<Value = Vec<Vec<usize>>> {
        let length = prop_oneof![4 => 0_usize..200, 1 => 0_usize..200_000];
        proptest::collection::vec(proptest::collection::vec(length, 0..40), 0..12)
    }

    #[test]
    fn a_record_longer_than_a_part_is_a_part_of_its_own() {
        let parts = split(streams(&[vec![10, 5_000, 10, 10]]), "fake", Key(1), 1, Strategy::Hash, 1_000);
        let lengths = |part: &Part| part.streams.iter().map(|stream| stream.records.len()).sum::<usize>();
        assert_eq!(parts.iter().map(lengths).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(parts.iter().map(|part| part.part).collect::<Vec<_>>(), [0, 1, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_hold_every_record_once_in_order_and_within_bounds(
            lengths in lengths(), key: u128, shards in 1_u32..20, strategy in 0_usize..3,
        ) {
            let sent = streams(&lengths);
            let parts = split(sent.clone(), "fake", Key(key), shards, STRATEGIES[strategy], BATCH_RAW_BYTES_MAX);
            let mut next = vec![0; shards as usize];
            for part in &parts {
                prop_assert_eq!(part.part, next[part.shard.0 as usize], "contiguous from 0");
                next[part.shard.0 as usize] += 1;
                let rows: usize = part.streams.iter().map(|stream| stream.records.len()).sum();
                let records = || part.streams.iter().flat_map(|stream| &stream.records);
                let raw: usize = records().map(Record::raw_bytes).sum();
                prop_assert!((1..=BATCH_ROWS_MAX).contains(&rows) && raw <= BATCH_RAW_BYTES_MAX);
            }
            let mut found: Vec<&Record> = parts.iter().flat_map(|p| &p.streams).flat_map(|s| &s.records).collect();
            found.sort_by_key(|record| record.timestamp);
            let sent_records: Vec<&Record> = sent.iter().flat_map(|stream| &stream.records).collect();
            prop_assert_eq!(found, sent_records);
            for stream in &sent {
                let of_stream = parts.iter().flat_map(|p| p.streams.iter().map(move |s| (p, s)));
                let of_stream: Vec<_> = of_stream.filter(|(_, s)| s.labels == stream.labels).collect();
                for shard in 0..shards {
                    let here = of_stream.iter().filter(|(p, _)| p.shard == ShardId(shard));
                    let times: Vec<i64> = here.flat_map(|(_, s)| s.records.iter().map(|r| r.timestamp)).collect();
                    prop_assert!(times.is_sorted());
                }
                if STRATEGIES[strategy] == Strategy::Hash {
                    let home = shard_of("fake", &stream.labels, shards);
                    prop_assert!(of_stream.iter().all(|(part, _)| part.shard == home));
                }
            }
        }

        #[test]
        fn a_retry_meets_the_same_shards_and_parts(lengths in lengths(), key: u128, strategy in 0_usize..3) {
            let split = || split(streams(&lengths), "fake", Key(key), 16, STRATEGIES[strategy], BATCH_RAW_BYTES_MAX);
            prop_assert_eq!(split(), split());
        }
    }

    #[test]
    fn a_part_has_a_bounded_number_of_rows() {
        let parts =
            split(streams(&[vec![0; BATCH_ROWS_MAX * 2 + 1]]), "fake", Key(1), 1, Strategy::Hash, BATCH_RAW_BYTES_MAX);
        assert!(parts.len() >= 3);
    }

    #[test]
    fn labels_count_towards_the_size_of_a_part() {
        let streams: Vec<StreamRecords> = (0..200)
            .map(|at| StreamRecords {
                labels: Labels::new((0..8).map(|n| (format!("n{n}"), format!("{at}{}", "v".repeat(2_000))))),
                records: vec![Record { timestamp: at, line: "x".into(), metadata: Vec::new() }],
            })
            .collect();
        for part in split(streams, "fake", Key(1), 1, Strategy::Hash, BATCH_RAW_BYTES_MAX) {
            let bytes: usize = part.streams.iter().map(|stream| stream.labels.raw_bytes()).sum();
            assert!(bytes <= BATCH_RAW_BYTES_MAX);
        }
    }

    #[test]
    fn streams_spread_over_the_shards_and_tenants_differ() {
        let mut counts = [0; 16];
        for stream in 0..1_600 {
            counts[shard_of("fake", &labels(stream), 16).0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (60..150).contains(count)), "{counts:?}");
        assert!((0..64).any(|at| shard_of("one", &labels(at), 16) != shard_of("two", &labels(at), 16)));
    }

    #[test]
    fn a_stream_keeps_its_shard_in_every_version() {
        let homes: Vec<u32> = (0..8).map(|at| shard_of("fake", &labels(at), 16).0).collect();
        assert_eq!(homes, [7, 1, 6, 2, 14, 2, 12, 7]);
    }

    #[test]
    fn parts_are_dealt_around() {
        let parts = split(streams(&[vec![100_000; 32]]), "fake", Key(7), 4, Strategy::RoundRobin, BATCH_RAW_BYTES_MAX);
        let mut counts = [0; 4];
        for part in &parts {
            counts[part.shard.0 as usize] += 1;
        }
        assert_eq!(counts, [2, 2, 2, 2]);
    }

    fn source<'a>(body: &'a [u8], idempotency_key: Option<&'a str>) -> KeySource<'a> {
        KeySource { tenant: "fake", idempotency_key, body, every_record_timed: true, time_refusals: 0, draw: 9 }
    }

    #[test]
    fn a_key_is_the_clients_else_the_bodys_else_drawn() {
        let of = |source: KeySource<'_>| RequestKey::derive(&source);
        assert_eq!(of(source(b"x", None)), of(source(b"x", None)));
        assert_ne!(of(source(b"x", None)).key, of(source(b"y", None)).key);
        assert_ne!(of(source(b"x", None)).key, of(KeySource { tenant: "other", ..source(b"x", None) }).key);
        assert_ne!(of(source(b"x", None)).key, of(source(b"x", Some("x"))).key);
        let (first, second) = (of(source(b"x", Some("k"))), of(source(b"y", Some("k"))));
        assert!(first.key == second.key && first.body_hash != second.body_hash);
        let untimed = of(KeySource { every_record_timed: false, ..source(b"x", None) });
        let drawn_again = of(KeySource { every_record_timed: false, draw: 10, ..source(b"x", None) });
        assert!(untimed.key != drawn_again.key && !untimed.repeatable);
        let untimed = of(KeySource { every_record_timed: false, ..source(b"x", Some("k")) });
        assert!(untimed == first && first.repeatable);
    }

    #[test]
    fn a_body_that_the_clock_judges_otherwise_is_another_request() {
        let of = |source: KeySource<'_>| RequestKey::derive(&source);
        assert_ne!(of(source(b"x", None)).key, of(KeySource { time_refusals: 1, ..source(b"x", None) }).key);
    }
}
