//! Answers as clients read them: Loki's envelope, tail frames, and records by offset. Everything that users sent is
//! escaped as JSON; nothing of it is interpreted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};
use serde_json::{Map, Value, json};

use super::merge::{Answer, AnswerRecord, Outcome};
use crate::id::ShardId;
use crate::label::Labels;

/// How metadata and what stages found are shown: folded into the stream's labels, or beside each line, as a client asks
/// with the header `X-Loki-Response-Encoding-Flags: categorize-labels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Part of the stream's labels.
    #[default]
    Folded,
    /// The third element of each value.
    Categorized,
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    Value::Object(pairs.map(|(name, value)| (name.to_owned(), Value::from(value))).collect())
}

fn labels(labels: &Labels) -> Value {
    object(labels.iter())
}

/// A number as Prometheus writes it.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

/// Seconds, with milliseconds where there are some.
fn seconds(nanoseconds: i64) -> Value {
    let milliseconds = nanoseconds.div_euclid(1_000_000);
    if milliseconds % 1_000 == 0 { Value::from(milliseconds / 1_000) } else { Value::from(milliseconds as f64 / 1e3) }
}

fn sample(time: i64, value: f64) -> Value {
    json!([seconds(time), number(value)])
}

/// Names and values as they are shown.
type Shown = BTreeMap<String, String>;

/// The metadata of a record: a field with the name of one of its stream's labels goes by `name_extracted`. What is empty is
/// left out, as in labels.
fn metadata(record: &AnswerRecord) -> Shown {
    let mut shown = Shown::new();
    for (name, value) in &record.metadata {
        let taken = record.labels.get(name).is_some();
        shown.insert(if taken { format!("{name}_extracted") } else { name.clone() }, value.clone());
    }
    shown.retain(|_, value| !value.is_empty());
    shown
}

fn shown_object(shown: Shown) -> Value {
    Value::Object(shown.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
}

/// The stream that a record is shown in, and the value it is shown as.
fn shown(record: &AnswerRecord, encoding: Encoding) -> (Shown, Value) {
    let time = record.timestamp.to_string();
    let mut stream: Shown = record.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let parsed = record.parsed.iter().cloned();
    match encoding {
        Encoding::Folded => {
            stream.extend(metadata(record));
            stream.extend(parsed);
            (stream, json!([time, record.line]))
        }
        Encoding::Categorized => {
            let mut beside = Map::new();
            if !record.metadata.is_empty() {
                beside.insert("structuredMetadata".to_owned(), shown_object(metadata(record)));
            }
            if !record.parsed.is_empty() {
                beside.insert("parsed".to_owned(), shown_object(parsed.collect()));
            }
            (stream, json!([time, record.line, beside]))
        }
    }
}

fn stream((stream, values): (Shown, Vec<Value>)) -> Value {
    json!({ "stream": shown_object(stream), "values": values })
}

/// Each stream once, sorted by labels.
fn streams(records: &[AnswerRecord], encoding: Encoding) -> Value {
    let mut streams: BTreeMap<Shown, Vec<Value>> = BTreeMap::new();
    for (stream, value) in records.iter().map(|record| shown(record, encoding)) {
        streams.entry(stream).or_default().push(value);
    }
    streams.into_iter().map(stream).collect()
}

/// A stream for each run of its records, so that all records together keep their order.
fn runs(records: &[AnswerRecord], encoding: Encoding) -> Value {
    let mut runs: Vec<(Shown, Vec<Value>)> = Vec::new();
    for (stream, value) in records.iter().map(|record| shown(record, encoding)) {
        match runs.last_mut() {
            Some((last, values)) if *last == stream => values.push(value),
            Some(_) | None => runs.push((stream, vec![value])),
        }
    }
    runs.into_iter().map(stream).collect()
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// Waiting for room.
    pub queued: Duration,
    /// Running.
    pub ran: Duration,
    /// Of that, taking the parts of the shards.
    pub gathered: Duration,
    /// Of that, making one answer of them.
    pub merged: Duration,
}

fn store(matched: u64, read: u64, chunk: &Value) -> Value {
    json!({ "totalChunksRef": matched, "totalChunksDownloaded": read, "chunk": chunk })
}

/// Loki's statistics: what is in no segment counts as its ingesters', what is sealed as its store's.
fn stats(answer: &Answer, returned: usize, took: Took) -> Value {
    let Answer { seen, parts, .. } = answer;
    let time = took.ran.as_secs_f64();
    let per_second = |amount: u64| if time > 0.0 { (amount as f64 / time) as u64 } else { 0 };
    let head = json!({ "headChunkBytes": seen.head_bytes, "headChunkLines": seen.head_records });
    let sealed = json!({
        "compressedBytes": seen.compressed,
        "decompressedBytes": seen.bytes.saturating_sub(seen.head_bytes),
        "decompressedLines": seen.records.saturating_sub(seen.head_records),
    });
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(seen.bytes),
            "linesProcessedPerSecond": per_second(seen.records),
            "totalBytesProcessed": seen.bytes,
            "totalLinesProcessed": seen.records,
            "totalEntriesReturned": returned,
            "execTime": time,
            "queueTime": took.queued.as_secs_f64(),
            "subqueries": parts,
            "splits": 0,
            "shards": parts,
        },
        "querier": {
            "store": store(seen.blocks_matched, seen.chunks.saturating_sub(seen.head_chunks), &sealed),
        },
        "ingester": {
            "totalChunksMatched": seen.batches_matched,
            "totalBatches": seen.head_chunks,
            "totalLinesSent": seen.head_records,
            "store": store(0, 0, &head),
        },
    })
}

impl Answer {
    /// Loki's envelope, or what stands for it where Loki has none.
    pub fn to_json(&self, encoding: Encoding, took: Took) -> Vec<u8> {
        let mut whole = match &self.outcome {
            Outcome::Overview(overviewed) => overviewed.json(),
            Outcome::Records(_)
            | Outcome::Matrix(..)
            | Outcome::Vector(..)
            | Outcome::Scalar(..)
            | Outcome::Texts(_)
            | Outcome::Series(_) => json!({ "status": "success", "data": self.data(encoding, took) }),
        };
        if !self.missing.is_empty() {
            let warnings = self.missing.iter().map(|(shard, why)| format!("partial result: {shard} is missing: {why}"));
            whole["partial"] = true.into();
            whole["warnings"] = warnings.collect();
        }
        serde_json::to_vec(&whole).expect("a JSON value into memory")
    }

    fn data(&self, encoding: Encoding, took: Took) -> Value {
        let (kind, result, returned) = match &self.outcome {
            Outcome::Texts(texts) => return texts.iter().map(String::as_str).collect(),
            Outcome::Series(series) => return series.iter().map(labels).collect(),
            Outcome::Overview(overviewed) => return overviewed.json(),
            Outcome::Records(records) => ("streams", streams(records, encoding), records.len()),
            Outcome::Matrix(points, series) => {
                let values = |points_of: &[(u32, f64)]| {
                    points_of.iter().map(|(point, value)| sample(points.at(*point), *value)).collect::<Value>()
                };
                let result = series
                    .iter()
                    .map(|series| json!({ "metric": labels(&series.labels), "values": values(&series.points) }));
                ("matrix", result.collect(), 0)
            }
            Outcome::Vector(time, values) => {
                let result = values
                    .iter()
                    .map(|(metric, value)| json!({ "metric": labels(metric), "value": sample(*time, *value) }));
                ("vector", result.collect(), 0)
            }
            Outcome::Scalar(time, value) => ("scalar", sample(*time, *value), 0),
        };
        let mut data = json!({ "resultType": kind, "result": result, "stats": stats(self, returned, took) });
        if encoding == Encoding::Categorized && kind == "streams" {
            data["encodingFlags"] = json!(["categorize-labels"]);
        }
        if let Some(explained) = &self.explained {
            data["explain"] = explained.json(took);
        }
        data
    }
}

/// One frame of a tail: the records in their order.
pub fn tail_frame(records: &[AnswerRecord], encoding: Encoding) -> String {
    let mut frame = json!({ "streams": runs(records, encoding), "dropped_entries": [] });
    if encoding == Encoding::Categorized {
        frame["encodingFlags"] = json!(["categorize-labels"]);
    }
    frame.to_string()
}

/// Pairs as a JSON object, in their order.
struct Object<I>(I);

impl<'a, I: Iterator<Item = (&'a str, &'a str)> + Clone> Serialize for Object<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

/// One record by offset, written without a tree of JSON values: whole shards are read this way.
struct ByOffset<'a>(&'a AnswerRecord);

impl Serialize for ByOffset<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let AnswerRecord { offset, timestamp, tenant, labels, line, metadata, .. } = self.0;
        let mut fields = serializer.serialize_struct("record", 6)?;
        fields.serialize_field("offset", offset)?;
        fields.serialize_field("timestamp", timestamp)?;
        fields.serialize_field("tenant", &**tenant)?;
        fields.serialize_field("labels", &Object(labels.iter()))?;
        fields.serialize_field("line", line)?;
        let metadata = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        fields.serialize_field("metadata", &Object(metadata))?;
        fields.end()
    }
}

/// A page of a shard.
#[derive(Serialize)]
struct Page<'a> {
    shard: u32,
    next: u64,
    end: u64,
    records: Vec<ByOffset<'a>>,
}

/// Records by offset as one JSON object a line.
pub fn offsets_ndjson(records: &[AnswerRecord]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, &ByOffset(record)).expect("texts and numbers into memory");
        lines.push(b'\n');
    }
    lines
}

/// Records by offset as one JSON object: `next` is where to go on, `end` the first offset not given out.
pub fn offsets_json(shard: ShardId, records: &[AnswerRecord], next: u64, end: u64) -> Vec<u8> {
    let page = Page { shard: shard.0, next, end, records: records.iter().map(ByOffset).collect() };
    serde_json::to_vec(&page).expect("texts and numbers into memory")
}

#[cfg(test)]
mod tests {
    use super::super::evaluate::Series;
    use super::super::partial::{Pairs, Seen};
    use super::super::plan::Points;
    use super::*;

    fn record(timestamp: i64, line: &str, metadata: &[(&str, &str)]) -> AnswerRecord {
        AnswerRecord {
            shard: ShardId(3),
            offset: 7,
            timestamp,
            tenant: "fake".into(),
            labels: Labels::new([("app", "a\"b")]),
            line: line.to_owned(),
            metadata: pairs(metadata),
            parsed: Vec::new(),
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_stages_found_is_part_of_the_stream_or_shown_beside_the_line() {
        let with = |level: &str| AnswerRecord {
            parsed: pairs(&[("empty", ""), ("level", level)]),
            ..record(1, "x", &[("app", "m"), ("k", "v")])
        };
        let found = answer(Outcome::Records(vec![with("high"), with("low"), with("high")]));
        let json = parsed(&found.to_json(Encoding::Folded, Took::default()));
        let stream = |level| json!({ "app": "a\"b", "app_extracted": "m", "empty": "", "k": "v", "level": level });
        let expected = json!([
            { "stream": stream("high"), "values": [["1", "x"], ["1", "x"]] },
            { "stream": stream("low"), "values": [["1", "x"]] },
        ]);
        assert_eq!(json["data"]["result"], expected);
        let json = parsed(&found.to_json(Encoding::Categorized, Took::default()));
        let beside = json!({
            "structuredMetadata": { "app_extracted": "m", "k": "v" }, "parsed": { "empty": "", "level": "high" }
        });
        assert_eq!(json["data"]["result"][0]["values"][0], json!(["1", "x", beside]));
        assert_eq!(json["data"]["result"].as_array().map(Vec::len), Some(1));
        let frame = parsed(tail_frame(&[with("high"), with("low")], Encoding::Folded).as_bytes());
        assert_eq!(frame["streams"][1]["stream"]["level"], "low");
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn answer(outcome: Outcome) -> Answer {
        let head = Seen { records: 1, bytes: 20, chunks: 1, ..Seen::default() };
        let seen = Seen { head_records: 1, head_bytes: 20, head_chunks: 1, batches_matched: 2, ..head };
        let mut all = Seen { records: 3, bytes: 80, chunks: 1, blocks_matched: 5, compressed: 9, ..Seen::default() };
        all.add(&seen);
        Answer { outcome, seen: all, parts: 2, missing: Vec::new(), explained: None }
    }

    #[test]
    fn streams_carry_metadata_in_their_labels() {
        let found =
            answer(Outcome::Records(vec![record(2, "x\n<b>", &[("app", "m"), ("k", "v")]), record(1, "y", &[])]));
        let json = parsed(&found.to_json(Encoding::Folded, Took::default()));
        assert_eq!(json["status"], "success");
        assert_eq!(json["data"]["resultType"], "streams");
        let expected = json!([
            { "stream": { "app": "a\"b" }, "values": [["1", "y"]] },
            { "stream": { "app": "a\"b", "app_extracted": "m", "k": "v" }, "values": [["2", "x\n<b>"]] },
        ]);
        assert_eq!(json["data"]["result"], expected);
        let stats = &json["data"]["stats"];
        assert_eq!(stats["summary"]["totalLinesProcessed"], 4);
        assert_eq!(stats["querier"]["store"]["totalChunksRef"], 5);
        assert_eq!(stats["querier"]["store"]["chunk"]["decompressedBytes"], 80);
        assert_eq!(stats["ingester"]["totalChunksMatched"], 2);
        assert!(json["data"].get("encodingFlags").is_none() && json.get("partial").is_none());
    }

    #[test]
    fn categorized_streams_carry_metadata_beside_each_line() {
        let found = answer(Outcome::Records(vec![record(2, "x", &[("k", "v")]), record(1, "y", &[])]));
        let json = parsed(&found.to_json(Encoding::Categorized, Took::default()));
        let expected = json!([{ "stream": { "app": "a\"b" }, "values": [
            ["2", "x", { "structuredMetadata": { "k": "v" } }], ["1", "y", {}],
        ] }]);
        assert_eq!(json["data"]["result"], expected);
        assert_eq!(json["data"]["encodingFlags"], json!(["categorize-labels"]));
    }

    #[test]
    fn numbers_are_strings_and_times_are_seconds() {
        let points = Points { start: 1_500_000_000, step: 500_000_000, count: 2 };
        let labels = || Labels::new([("a", "b")]);
        let series = Series { labels: labels(), points: vec![(0, 1.0), (1, 0.1)] };
        let json = parsed(&answer(Outcome::Matrix(points, vec![series])).to_json(Encoding::Folded, Took::default()));
        let expected = json!([{ "metric": { "a": "b" }, "values": [[1.5, "1"], [2, "0.1"]] }]);
        assert_eq!(json["data"]["result"], expected);
        let vector = answer(Outcome::Vector(3_000_000_000, vec![(labels(), f64::INFINITY)]));
        let json = parsed(&vector.to_json(Encoding::Folded, Took::default()));
        assert_eq!(json["data"]["result"], json!([{ "metric": { "a": "b" }, "value": [3, "+Inf"] }]));
        let json = parsed(&answer(Outcome::Scalar(0, 2.0)).to_json(Encoding::Folded, Took::default()));
        assert_eq!(json["data"]["result"], json!([0, "2"]));
    }

    #[test]
    fn a_partial_answer_says_so() {
        let mut found = answer(Outcome::Texts(vec!["app".into()]));
        found.missing.push((ShardId(5), "no leader".into()));
        let json = parsed(&found.to_json(Encoding::Folded, Took::default()));
        assert_eq!(json["data"], json!(["app"]));
        assert_eq!(json["partial"], true);
        assert_eq!(json["warnings"], json!(["partial result: shard-5 is missing: no leader"]));
    }

    #[test]
    fn a_tail_frame_keeps_the_order_of_its_records() {
        let level = |level| [("detected_level", level)];
        let records = [record(1, "a", &level("warn")), record(2, "b", &level("error")), record(3, "c", &level("warn"))];
        let frame = parsed(tail_frame(&records, Encoding::Folded).as_bytes());
        let lines: Vec<&Value> = frame["streams"].as_array().unwrap().iter().map(|run| &run["values"][0][1]).collect();
        assert_eq!(lines, ["a", "b", "c"]);
        let frame = parsed(tail_frame(&records, Encoding::Categorized).as_bytes());
        assert_eq!(frame["streams"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn records_by_offset_are_a_line_each() {
        let lines = offsets_ndjson(&[record(1, "a\nb", &[("k", "v")]), record(2, "c", &[])]);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
        let first = parsed(lines.split(|byte| *byte == b'\n').next().unwrap());
        let expected = json!({ "offset": 7, "timestamp": 1, "tenant": "fake", "labels": { "app": "a\"b" },
            "line": "a\nb", "metadata": { "k": "v" } });
        assert_eq!(first, expected);
        let whole = parsed(&offsets_json(ShardId(3), &[record(1, "a", &[])], 8, 9));
        assert_eq!((&whole["shard"], &whole["next"], &whole["end"]), (&json!(3), &json!(8), &json!(9)));
    }
}
