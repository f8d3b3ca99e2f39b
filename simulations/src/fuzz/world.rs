//! Records as hostile as intake lets them be, in shards of heads and sealed segments. The same records are stored twice:
//! sealed here and there, and sealed nowhere.

use std::sync::Arc;

use millpond::block::l0;
use millpond::id::{Index, Key, ShardId, Term};
use millpond::label::Labels;
use millpond::limits::LINE_BYTES_MAX;
use millpond::query::View;
use millpond::record::{Record, StreamRecords};
use millpond::shard::{Applied, Command, SealJob, Shard, ShardError, ShardOptions, SubBatch};
use millpond::storage::lossy::LossyDisk;
use millpond::storage::segment::{Segment, SegmentWriter};

use super::pen::Pen;
use crate::draw::{Dice, stream};
use crate::naive::draw::data;

/// Inputs that ask the same records.
pub(super) const INPUTS_PER_WORLD: u64 = 32;
pub(super) const TENANT: &str = "t";
pub(super) const SECOND: i64 = 1_000_000_000;
/// When most records are from.
pub(super) const START: i64 = 1_700_000_000 * SECOND;
/// How long they go on, mostly.
pub(super) const LENGTH: i64 = 600 * SECOND;

const NUMBERS: &[&str] = &[
    "1",
    "2",
    "3",
    "0.5",
    "-2",
    "1e2",
    "0",
    "-0",
    "1e308",
    "-1e308",
    "1e309",
    "1e-320",
    "NaN",
    "Inf",
    "-Inf",
    "0x10",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "1_000",
    "1.",
    "",
    "\u{663}",
];
const SPANS: &[&str] = &[
    "250ms",
    "1.5s",
    "2s",
    "1h2m3s",
    "1m0.5s",
    "292y",
    "300y",
    "9223372036854775807ns",
    "-1s",
    "1h1h",
    "1",
    "soon",
    "",
    "1\u{b5}s",
];
const SIZES: &[&str] =
    &["512B", "20KB", "1.5KiB", "2 MiB", "700", "1kb", "16EiB", "18446744073709551616B", "-1B", "1.5", "big", "1e3KB"];
const ADDRESSES: &[&str] =
    &["10.0.0.1", "10.0.7.255", "192.168.4.7", "2001:db8::5", "::1", "256.1.1.1", "::ffff:10.0.0.1", "10.0.0.1:80"];
const WORDS: &[&str] = &[
    "GET",
    "POST",
    "alice",
    "caf\u{e9}",
    "",
    "a b",
    "\"",
    "\\",
    "=",
    "{{.x}}",
    "\u{202e}x",
    "\u{0}",
    "\u{10ffff}",
    "e",
    "\u{1b}[31mred\u{1b}[0m",
    "error: no route to 10.1.2.3",
];

/// Both ways in which the records are stored.
pub(super) struct World {
    /// Heads and segments.
    pub(super) sealed: Vec<View>,
    /// Heads alone.
    pub(super) open: Vec<View>,
}

/// The world that was asked last.
pub(super) struct Worlds {
    number: u64,
    world: World,
}

impl std::fmt::Debug for Worlds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worlds").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The world of an input, which is made for the first that asks it.
pub(super) fn of(worlds: &mut Option<Worlds>, input: u64) -> &World {
    let number = input / INPUTS_PER_WORLD;
    if worlds.as_ref().is_none_or(|worlds| worlds.number != number) {
        *worlds = Some(Worlds { number, world: World::new(&mut Pen::new(stream(number, "world"))) });
    }
    &worlds.as_ref().expect("made above").world
}

struct Batch {
    shard: u32,
    seal: bool,
    streams: Vec<StreamRecords>,
}

impl World {
    pub(super) fn new(pen: &mut Pen) -> Self {
        let batches = batches(pen);
        let disk = LossyDisk::new(1);
        let views = |seals: bool| {
            let view =
                |shard: u32| view(&disk, ShardId(shard), batches.iter().filter(|batch| batch.shard == shard), seals);
            (0..3).map(view).collect()
        };
        Self { sealed: views(true), open: views(false) }
    }
}

/// The records that the naive evaluator is asked for, some of them damaged.
fn usual(pen: &mut Pen) -> Vec<Batch> {
    let mut batches = Vec::new();
    for drawn in data::batches(&mut Dice::new(pen.draw(), "fuzz")) {
        let stored = |record: &crate::naive::Record| {
            let labels = Labels::new(record.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let metadata = record.metadata.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
            let line = if pen.one_in(8) { damaged(pen, &record.line) } else { record.line.clone() };
            let record =
                Record { timestamp: record.timestamp, line: line.as_str().into(), metadata: metadata.collect() };
            StreamRecords { labels, records: vec![record] }
        };
        let streams = drawn.records.iter().map(stored).collect();
        batches.push(Batch { shard: drawn.shard, seal: drawn.seal, streams });
    }
    batches
}

fn batches(pen: &mut Pen) -> Vec<Batch> {
    if pen.one_in(3) {
        return usual(pen);
    }
    let count = 4 + pen.below(20);
    // A line of the greatest length is dear: few worlds have one.
    let mut long = pen.one_in(12);
    (0..count)
        .map(|at| {
            let records = 1 + pen.below(6);
            let streams = (0..records).map(|_| record(pen, at as i64 * LENGTH / count as i64, &mut long)).collect();
            Batch { shard: u32::try_from(pen.below(3)).expect("below three"), seal: pen.one_in(3), streams }
        })
        .collect()
}

/// A few records of any time.
pub(super) fn records(pen: &mut Pen) -> Vec<StreamRecords> {
    (0..8).map(|at| record(pen, at * LENGTH / 8, &mut false)).collect()
}

fn record(pen: &mut Pen, due: i64, long: &mut bool) -> StreamRecords {
    let jitter = (pen.below(61) as i64 - 30) * SECOND;
    let timestamp = match pen.below(60) {
        0 => pen.signed(),
        1 => START,
        2 | 3 => START + due + pen.below(3) as i64,
        _ => START + due + jitter,
    };
    let format = pen.pick(&["json", "logfmt", "plain", "packed", "odd"]);
    let mut labels = vec![("app", pen.pick(&["api", "web", "caf\u{e9}"])), ("format", format)];
    if pen.one_in(2) {
        labels.push(("level", pen.pick(&["info", "error", "\"\\\n", "\u{0}"])));
    }
    let mut metadata = Vec::new();
    let fields = if pen.one_in(3) { pen.below(4) } else { 0 };
    for _ in 0..fields {
        let name = pen.pick(&[
            "trace",
            "app",
            "n",
            "took",
            "__error__",
            "__error_details__",
            "\u{e9}",
            "a b",
            "level",
            "trace",
        ]);
        let value = pen.pick(&["t1", "t2", "7", "x", "\"", "\u{0}", "5s"]);
        metadata.push((name.into(), value.into()));
    }
    let mut line = line(pen, format);
    if *long && pen.one_in(8) {
        *long = false;
        line = line.repeat(LINE_BYTES_MAX / line.len().max(1));
        line.push_str(&"x".repeat(LINE_BYTES_MAX - line.len()));
    }
    let record = Record { timestamp, line: line.as_str().into(), metadata };
    StreamRecords { labels: Labels::new(labels), records: vec![record] }
}

fn line(pen: &mut Pen, format: &str) -> String {
    let line = match format {
        "json" => json(pen),
        "logfmt" => logfmt(pen),
        "plain" => plain(pen),
        "packed" => {
            let entry = logfmt(pen).replace('\\', "\\\\").replace('"', "\\\"");
            format!(r#"{{"pod":"p","app":"packed","_entry":"{entry}"}}"#)
        }
        _ => odd(pen),
    };
    if pen.one_in(5) { damaged(pen, &line) } else { line }
}

fn damaged(pen: &mut Pen, line: &str) -> String {
    let mut bytes = line.as_bytes().to_vec();
    let words: &[&[u8]] = &[b"{", b"}", b"[", b"]", b"\"", b"\\u", b"\\ud800", b"=", b":", b",", b"null", b"\\"];
    pen.damage(&mut bytes, words, &[b"{\"a\":1}", b"a=\"b\" c"]);
    bytes.truncate(LINE_BYTES_MAX / 3);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json(pen: &mut Pen) -> String {
    let number = pen.pick(NUMBERS);
    let number =
        if number.parse::<f64>().is_err() || pen.one_in(2) { format!("\"{number}\"") } else { number.to_owned() };
    format!(
        r#"{{"method":"{}","status":{},"took":"{}","size":"{}","n":{number},"ip":"{}","request":{{"path":"/a","head.er":{{"a-b":"deep"}}}},"tags":["a",{{"k":"v"}},3],"user":"{}","app":"line"}}"#,
        pen.pick(&WORDS[..3]),
        pen.pick(&["200", "404", "null", "true", "[]", "1e999", "-0.0"]),
        pen.pick(SPANS),
        pen.pick(SIZES),
        pen.pick(ADDRESSES),
        pen.pick(&WORDS[..4]),
    )
}

fn logfmt(pen: &mut Pen) -> String {
    let size = pen.pick(SIZES);
    format!(
        "method={} status={} took={} size=\"{size}\" n={} ip={} user=\"{}\" level=warn {}",
        pen.pick(&WORDS[..2]),
        pen.pick(&["200", "404", "500", ""]),
        pen.pick(SPANS),
        pen.pick(NUMBERS),
        pen.pick(ADDRESSES),
        pen.pick(WORDS),
        pen.pick(&[
            "",
            "=nokey",
            "foo=bar=buzz",
            "fo\"o=bar",
            "flag",
            "empty= flag",
            "method=twice",
            "q=\"a \\\"b\\\"\\n\"",
            "q=\"open"
        ]),
    )
}

fn plain(pen: &mut Pen) -> String {
    format!(
        "{} - {} \"{} /path HTTP/1.1\" {} {} n={} {}",
        pen.pick(ADDRESSES),
        pen.pick(WORDS),
        pen.pick(WORDS),
        pen.pick(&["200", "404"]),
        pen.pick(SPANS),
        pen.pick(NUMBERS),
        pen.pick(WORDS),
    )
}

/// What no program would log.
fn odd(pen: &mut Pen) -> String {
    let most = if pen.one_in(6) { 4_000 } else { 60 };
    let times = 1 + pen.below(most);
    match pen.below(9) {
        0 => format!("{}1{}", "[".repeat(times), "]".repeat(times)),
        1 => format!("{}1{}", r#"{"a":"#.repeat(times), "}".repeat(times)),
        2 => format!("{{{}\"z\":1}}", (0..times).map(|at| format!("\"k{at}\":{at},")).collect::<String>()),
        3 => (0..times).map(|at| format!("k{at}={at} ")).collect(),
        4 => pen.pick(WORDS).repeat(times),
        5 => "\\".repeat(times),
        6 => String::new(),
        7 => (0..times.min(300)).map(|_| char::from_u32(pen.number() as u32).unwrap_or('\u{fffd}')).collect(),
        _ => format!("n={}{}", "9".repeat(times), pen.pick(&["", ".5", "e9", "ms", "KB"])),
    }
}

fn view<'a>(disk: &LossyDisk, id: ShardId, batches: impl Iterator<Item = &'a Batch>, seals: bool) -> View {
    let mut shard = Shard::new(id, ShardOptions::default());
    let (mut index, mut segments) = (0, Vec::new());
    let mut encoder = l0::Encoder::new();
    for batch in batches {
        index += 1;
        let bytes = encoder.encode(TENANT, &batch.streams);
        let sub = SubBatch { key: Key(u128::from(index)), body: 0, part: 0, restored: false, batch: bytes };
        let applied = shard.apply(Index(index), Term(1), &Command::encode_batch(&[sub]));
        assert!(matches!(applied, Ok(Applied::Batch(_))), "a batch was not applied: {applied:?}");
        if seals && batch.seal {
            index += 1;
            let Ok(Applied::Seal(job)) = shard.apply(Index(index), Term(1), &Command::encode_seal(Index(0))) else {
                panic!("a seal was no seal")
            };
            segments.push(Arc::new(sealed(disk, &job)));
            shard.sealed(job.position().index);
        }
    }
    View { shard: id, first: shard.first_offset(), end: shard.next_offset(), head: shard.view(), segments }
}

/// The segment of a seal of some records.
pub(super) fn sealed(disk: &LossyDisk, job: &SealJob) -> Segment {
    let (from, _) = job.offsets().expect("the head holds a batch");
    let mut writer = SegmentWriter::create(disk, job.shard(), from).expect("the disk is in memory");
    let proof = job.encode(|block| {
        writer.push(&block.bytes, block.summary, &block.streams).expect("the disk is in memory");
        Ok::<_, ShardError>(())
    });
    let digest = proof.expect("the batches are whole").expect("the head holds a batch").digest;
    let meta = writer.finish(digest).expect("the disk is in memory");
    Segment::open(disk, job.shard(), &meta).expect("it was written just now")
}
