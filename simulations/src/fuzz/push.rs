//! Bodies of pushes, with their encodings. What inflates keeps its bound; a body that was encoded here inflates to what
//! it was. What is accepted keeps the bounds of `limits`, is counted right, judged the same again, and is stored as a
//! batch and read from it as it was.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use millpond::backup::replay;
use millpond::block::l0::{Encoder, L0};
use millpond::block::rows::Projection;
use millpond::limits::{
    BATCH_ROWS_MAX, LABELS_MAX, LINE_BYTES_MAX, METADATA_BYTES_MAX, METADATA_FIELDS_MAX, REFUSALS_NAMED_MAX,
    REQUEST_INFLATED_BYTES_MAX, REQUEST_RATIO_FREE_BYTES, REQUEST_RATIO_MAX, TIMESTAMP_AHEAD_MAX,
};
use millpond::protocol::{Acceptance, BodyKind, Encoding, Intake, decode, inflate, parse_labels};

use super::pen::{Pen, varint};
use super::{Note, Outcome};

/// What the clock says.
const NOW: i64 = 1_700_000_000_000_000_000;

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"NaN",
    b"\"streams\":",
    b"\"stream\":",
    b"\"values\":",
    b"\"labels\":",
    b"\"entries\":",
    b"\"ts\":",
    b"\"line\":",
    b"\"msg\":",
    b"\"_time\":",
    b"{a=\"b\"}",
    b"=",
    b"`",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\x0a",
    b"\x12",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80",
    b"\0",
    b"\xef\xbb\xbf",
];

const NAMES: &[&str] = &[
    "app",
    "service_name",
    "level",
    "detected_level",
    "job",
    "a",
    "_x",
    "9a",
    "a-b",
    "caf\u{e9}",
    "",
    "severity",
    "a.b",
    "A",
];
const VALUES: &[&str] = &["web", "", "x y", "a\"b", "\\", "caf\u{e9}", "\u{0}", "ERROR", "\u{2028}", "7"];
const TIMES: &[&str] = &[
    "1700000000000000000",
    "1699999999999999999",
    "1700000600000000000",
    "1700000600000000001",
    "-9223372036854775808",
    "9223372036854775807",
    "9223372036854775808",
    "0",
    "-1",
    "1e18",
    "2023-11-14T22:13:20Z",
    "2023-11-14T22:13:20.123456789123+01:00",
    "2262-04-11T23:47:16.854775807Z",
    "1677-09-21T00:12:43.145224192Z",
    "2023-02-30T00:00:00Z",
    "",
];
const LINES: &[&str] = &[
    "GET / 200",
    "",
    "level=error msg=\"x\"",
    "{\"level\":\"warn\",\"a\":{\"b\":[1,2]}}",
    "[ERROR] no",
    "caf\u{e9} \u{202e}",
    "a\tb\u{0}c",
    "\"quoted\\\"",
    "WARN: x=y severity=fatal",
    "\u{feff}line",
];

/// Text as JSON writes it, or as it might but does not.
fn quoted(pen: &mut Pen, text: &str) -> String {
    if pen.one_in(8) {
        let escapes: String = text.chars().map(|c| format!("\\u{:04x}", (c as u32).min(0xffff))).collect();
        return format!("\"{escapes}\"");
    }
    serde_json::to_string(text).expect("text has a form in JSON")
}

fn line(pen: &mut Pen) -> String {
    let line = pen.pick(LINES).to_owned();
    match pen.below(400) {
        0 => "x".repeat(LINE_BYTES_MAX + pen.below(2)),
        1..=20 => line.repeat(1 + pen.below(100)),
        _ => line,
    }
}

fn pairs(pen: &mut Pen, between: &str) -> String {
    let most = if pen.one_in(60) { METADATA_FIELDS_MAX + 2 } else { 4 };
    let count = pen.below(most);
    let pair = |pen: &mut Pen| {
        let (name, value) = (pen.pick(NAMES), pen.pick(VALUES));
        let name = if between == ":" { quoted(pen, name) } else { name.to_owned() };
        let value = if pen.one_in(10) {
            pen.pick(&["7", "true", "null", "1.5", "[1]", "{}", "1e400"]).to_owned()
        } else {
            quoted(pen, value)
        };
        format!("{name}{between}{value}")
    };
    let pairs: Vec<String> = (0..count).map(|_| pair(pen)).collect();
    pairs.join(",")
}

fn loki_json(pen: &mut Pen) -> Vec<u8> {
    let stream = |pen: &mut Pen| {
        let legacy = pen.one_in(4);
        let value = |pen: &mut Pen| {
            let (time, line) = (pen.pick(TIMES), line(pen));
            let (time, line) = (quoted(pen, time), quoted(pen, &line));
            match (legacy, pen.below(4)) {
                (true, _) => format!("{{\"ts\":{time},\"line\":{line}}}"),
                (false, 0) => format!("[{time},{line},{{{}}}]", pairs(pen, ":")),
                (false, _) => format!("[{time},{line}]"),
            }
        };
        let values: Vec<String> = (0..pen.below(5)).map(|_| value(pen)).collect();
        let values = values.join(",");
        if legacy {
            let labels = format!("{{{}}}", pairs(pen, "="));
            format!("{{\"labels\":{},\"entries\":[{values}]}}", quoted(pen, &labels))
        } else {
            format!("{{\"stream\":{{{}}},\"values\":[{values}]}}", pairs(pen, ":"))
        }
    };
    let streams: Vec<String> = (0..pen.below(4)).map(|_| stream(pen)).collect();
    format!("{{\"streams\":[{}]}}", streams.join(",")).into_bytes()
}

fn ndjson(pen: &mut Pen) -> Vec<u8> {
    let mut body = String::new();
    for _ in 0..pen.below(6) {
        let (name, time) = (pen.pick(&["ts", "timestamp", "time", "_time", "@timestamp", "t"]), pen.pick(TIMES));
        let time = if pen.one_in(3) && !time.is_empty() { time.to_owned() } else { quoted(pen, time) };
        let (of_line, line) = (pen.pick(&["msg", "message", "line", "_msg", "text"]), line(pen));
        let (line, labels, rest) = (quoted(pen, &line), pairs(pen, ":"), pairs(pen, ":"));
        let comma = if rest.is_empty() { "" } else { "," };
        body.push_str(&format!("{{\"{name}\":{time},\"{of_line}\":{line},\"labels\":{{{labels}}}{comma}{rest}}}"));
        body.push_str(pen.pick(&["\n", "\r\n", "\n\n", "\n"]));
    }
    body.into_bytes()
}

/// A field of bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn protobuf(pen: &mut Pen) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..pen.below(4) {
        let labels = format!("{{{}}}", pairs(pen, "="));
        let mut stream = field(1, labels.as_bytes());
        for _ in 0..pen.below(5) {
            let seconds = if pen.one_in(6) { pen.number() } else { 1_700_000_000 };
            let nanos = if pen.one_in(6) { pen.number() } else { pen.below(1_000_000_000) as u64 };
            let stamp = [varint(1 << 3), varint(seconds), varint(2 << 3), varint(nanos)].concat();
            let mut entry = [field(1, &stamp), field(2, line(pen).as_bytes())].concat();
            for _ in 0..pen.below(3) {
                let (name, value) = (pen.pick(NAMES), pen.pick(VALUES));
                entry.extend(field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat()));
            }
            if pen.one_in(10) {
                entry.extend([varint(pen.number()), varint(pen.number())].concat());
            }
            stream.extend(field(2, &entry));
        }
        stream.extend([varint(3 << 3), varint(pen.number())].concat());
        body.extend(field(1, &stream));
    }
    body
}

/// The body with its content encoding; the encoder is one that clients use.
fn encoded(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "memory takes every write";
    match encoding {
        Encoding::Identity => body.to_vec(),
        Encoding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).expect(MEMORY);
            writer.finish().expect(MEMORY)
        }
        Encoding::Deflate => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
            writer.write_all(body).expect(MEMORY);
            writer.finish().expect(MEMORY)
        }
        Encoding::Zstd => zstd::stream::encode_all(body, 1).expect(MEMORY),
    }
}

/// A small body of which much comes, or claims to.
fn bomb(pen: &mut Pen, encoding: Encoding) -> Vec<u8> {
    let inflated = vec![b' '; 1 << (10 + pen.below(14))];
    encoded(encoding, &inflated)
}

pub(super) fn run(pen: &mut Pen, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    if pen.one_in(12) {
        return label_text(pen, note);
    }
    let (kind, name, mut body) = match pen.below(if corpus.is_empty() { 3 } else { 4 }) {
        0 => (BodyKind::LokiJson, "json", loki_json(pen)),
        1 => (BodyKind::Ndjson, "ndjson", ndjson(pen)),
        2 => (BodyKind::LokiProtobuf, "protobuf", protobuf(pen)),
        _ => (BodyKind::LokiJson, "json", corpus[pen.below(corpus.len())].clone()),
    };
    let others: &[&[u8]] =
        &[br#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#, b"\x0a\x09\x0a\x07{a=\"b\"}"];
    if !pen.one_in(4) {
        pen.damage(&mut body, WORDS, others);
    }
    let encoding = match pen.below(8) {
        0 => Encoding::Gzip,
        1 => Encoding::Deflate,
        2 => Encoding::Zstd,
        _ => Encoding::Identity,
    };
    let block = if kind == BodyKind::LokiProtobuf { snap::raw::Encoder::new().compress_vec(&body).ok() } else { None };
    let mut sent = encoded(encoding, block.as_deref().unwrap_or(&body));
    if pen.one_in(200) {
        sent = bomb(pen, encoding);
        note.input("bomb", &sent);
    } else if pen.one_in(6) {
        pen.damage(&mut sent, &[], others);
        note.input("encoding changed", &sent);
    } else {
        note.input(name, &sent);
        let read = inflate(kind, encoding, sent.clone().into());
        // A short body may claim more than it may, as all that is beyond the ratio.
        if read.as_ref().is_ok_and(|read| *read != body)
            || (read.is_err() && body.len() <= REQUEST_RATIO_FREE_BYTES && !body.is_empty())
        {
            return Err(format!("it inflates to {read:?} rather than to {:?}", body.escape_ascii().to_string()));
        }
    }
    let Ok(inflated) = inflate(kind, encoding, sent.clone().into()) else { return Ok(false) };
    let bound = (sent.len() * REQUEST_RATIO_MAX).clamp(REQUEST_RATIO_FREE_BYTES, REQUEST_INFLATED_BYTES_MAX);
    // A block of snappy may lie within another encoding: each has the ratio.
    let bound = if kind == BodyKind::LokiProtobuf {
        bound.saturating_mul(REQUEST_RATIO_MAX).min(REQUEST_INFLATED_BYTES_MAX)
    } else {
        bound
    };
    if inflated.len() > bound {
        return Err(format!("{} bytes inflate to {}, more than {bound}", sent.len(), inflated.len()));
    }
    let acceptance = Acceptance { now: NOW, oldest: if pen.one_in(2) { None } else { Some(NOW - 3_600_000_000_000) } };
    read(kind, &inflated, &acceptance)
}

fn read(kind: BodyKind, body: &Bytes, acceptance: &Acceptance) -> Outcome {
    let Ok(intake) = decode(kind, body, acceptance) else { return Ok(false) };
    if decode(kind, body, acceptance).as_ref() != Ok(&intake) {
        return Err("it is judged otherwise the second time".to_owned());
    }
    counted(&intake)?;
    for stream in &intake.streams {
        // `service_name` may come on top.
        if stream.labels.is_empty() || stream.labels.len() > LABELS_MAX + 1 {
            return Err(format!("a stream has {} labels", stream.labels.len()));
        }
        for record in &stream.records {
            let ahead = i64::try_from(TIMESTAMP_AHEAD_MAX.as_nanos()).expect("minutes");
            if record.timestamp > NOW + ahead || acceptance.oldest.is_some_and(|oldest| record.timestamp < oldest) {
                return Err(format!("a record of {} was accepted at {NOW}", record.timestamp));
            }
            let bytes: usize = record.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
            // `detected_level` may come on top.
            let sound = record.line.len() <= LINE_BYTES_MAX
                && record.metadata.len() <= METADATA_FIELDS_MAX + 1
                && bytes <= METADATA_BYTES_MAX + 64;
            if !sound {
                return Err(format!("a record beyond the bounds was accepted: {record:?}"));
            }
        }
    }
    stored(intake)
}

fn counted(intake: &Intake) -> Result<(), String> {
    let records: usize = intake.streams.iter().map(|stream| stream.records.len()).sum();
    let refusals = &intake.refusals;
    let named = refusals.total().min(REFUSALS_NAMED_MAX);
    if records != intake.accepted
        || refusals.named.len() > REFUSALS_NAMED_MAX
        || (refusals.named.is_empty() && named > 0)
    {
        return Err(format!("{records} records, and it says {intake:?}"));
    }
    let _ = refusals.to_string();
    Ok(())
}

/// Stores what was accepted as a batch and reads it back.
fn stored(intake: Intake) -> Outcome {
    let streams: Vec<_> = intake.streams.into_iter().filter(|stream| !stream.records.is_empty()).collect();
    if !(1..=BATCH_ROWS_MAX).contains(&intake.accepted) {
        return Ok(intake.accepted > 0);
    }
    let bytes = Encoder::new().encode("t", &streams);
    let batch = L0::open(bytes.clone()).map_err(|error| format!("its batch does not open: {error}"))?;
    let rows = batch.rows(0, Projection::ALL).map_err(|error| format!("its batch has no rows: {error}"))?;
    let mut row = 0;
    for stream in &streams {
        for record in &stream.records {
            let metadata = record.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let same = *rows.stream(row) == stream.labels
                && rows.timestamp(row) == record.timestamp
                && rows.line(row) == record.line.as_str()
                && rows.metadata(row).eq(metadata);
            if !same {
                return Err(format!("row {row} of its batch is not {record:?}"));
            }
            row += 1;
        }
    }
    if row != rows.len() {
        return Err(format!("{row} records became {} rows", rows.len()));
    }
    replay::decode(bytes).map_err(|error| format!("a restore does not take its batch: {error}"))?;
    Ok(true)
}

/// Labels as clients write them: what is read is printed and read the same.
fn label_text(pen: &mut Pen, note: &mut Note) -> Outcome {
    let mut text = format!("{{{}}}", pairs(pen, "=")).into_bytes();
    if !pen.one_in(4) {
        pen.damage(&mut text, WORDS, &[b"{a=`b`, c=\"\\x41\\u00e9\\U0001f600\\101\"}"]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    note.input("labels", text.as_bytes());
    let pairs = match parse_labels(&text) {
        Ok(pairs) => pairs,
        Err(error) if error.at <= text.len() && text.is_char_boundary(error.at) => return Ok(false),
        Err(error) => return Err(format!("the error points outside: {error}")),
    };
    let labels = millpond::label::Labels::new(pairs.iter().map(|(name, value)| (*name, value.as_ref())));
    let printed = labels.to_string();
    match parse_labels(&printed) {
        Ok(again)
            if millpond::label::Labels::new(again.iter().map(|(name, value)| (*name, value.as_ref()))) == labels =>
        {
            Ok(true)
        }
        other => Err(format!("they print as {printed:?}, which reads as {other:?}")),
    }
}
