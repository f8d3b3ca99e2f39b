use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::judge::SERVICE_NAME;
use super::*;
use crate::label::Labels;
use crate::limits::{JSON_DEPTH_MAX, REQUEST_RECORDS_MAX, REQUEST_STREAMS_MAX};
use crate::record::Record;

/// The messages as another implementation of protobuf writes them.
mod push {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stream {
        #[prost(string, tag = "1")]
        pub(super) labels: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
        #[prost(uint64, tag = "3")]
        pub(super) hash: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(message, optional, tag = "1")]
        pub(super) timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        pub(super) line: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<Pair>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pair {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
}

const NOW: i64 = 1_795_046_400_000_000_000;
const ACCEPTANCE: Acceptance = Acceptance { now: NOW, oldest: None };
const KINDS: [BodyKind; 3] = [BodyKind::LokiProtobuf, BodyKind::LokiJson, BodyKind::Ndjson];

fn decode(kind: BodyKind, body: impl Into<Vec<u8>>) -> Result<Intake, ProtocolError> {
    super::decode(kind, &Bytes::from(body.into()), &ACCEPTANCE)
}

/// One entry at the time of intake.
fn entry(line: &str) -> push::Entry {
    push::Entry { timestamp: Some(stamp(NOW)), line: line.to_string(), metadata: Vec::new() }
}

fn stamp(timestamp: i64) -> push::Timestamp {
    let nanos = i32::try_from(timestamp.rem_euclid(1_000_000_000)).unwrap();
    push::Timestamp { seconds: timestamp.div_euclid(1_000_000_000), nanos }
}

fn stream(labels: &str, entries: Vec<push::Entry>) -> push::Stream {
    push::Stream { labels: labels.to_string(), entries, hash: 7 }
}

fn protobuf(streams: Vec<push::Stream>) -> Result<Intake, ProtocolError> {
    decode(BodyKind::LokiProtobuf, push::Request { streams }.encode_to_vec())
}

/// What one entry in a stream of good labels comes to.
fn judge(entry: push::Entry) -> Intake {
    protobuf(vec![stream("{app=\"x\"}", vec![entry])]).unwrap()
}

fn reasons(intake: &Intake) -> Vec<RefusalReason> {
    intake.refusals.counts.keys().copied().collect()
}

fn records(intake: &Intake) -> Vec<&Record> {
    intake.streams.iter().flat_map(|stream| &stream.records).collect()
}

fn field<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.metadata.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value.as_str())
}

type Sent = Vec<(Labels, Vec<(i64, String, Vec<(String, String)>)>)>;

fn push_strategy() -> impl Strategy<Value = Sent> {
    let name = "[a-z_][a-z0-9_]{0,6}";
    let labels = proptest::collection::btree_map(name, "(?s).{1,8}", 1..4).prop_map(Labels::new);
    let metadata = proptest::collection::btree_map(name, "(?s).{0,8}", 0..3).prop_map(|m| m.into_iter().collect());
    let entry = (0..NOW, "(?s).{0,40}", metadata);
    proptest::collection::vec((labels, proptest::collection::vec(entry, 1..6)), 0..5)
}

fn sent_as_protobuf(sent: &Sent) -> Vec<u8> {
    let entry = |(timestamp, line, metadata): &(i64, String, Vec<(String, String)>)| push::Entry {
        timestamp: Some(stamp(*timestamp)),
        line: line.clone(),
        metadata: metadata.iter().map(|(n, v)| push::Pair { name: n.clone(), value: v.clone() }).collect(),
    };
    let streams = sent.iter().map(|(l, entries)| stream(&l.to_string(), entries.iter().map(entry).collect()));
    push::Request { streams: streams.collect() }.encode_to_vec()
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> serde_json::Value {
    serde_json::Value::Object(pairs.map(|(name, value)| (name.to_string(), value.into())).collect())
}

fn sent_as_json(sent: &Sent) -> Vec<u8> {
    let entry = |(timestamp, line, metadata): &(i64, String, Vec<(String, String)>)| {
        let fields = object(metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        serde_json::json!([timestamp.to_string(), line, fields])
    };
    let stream = |(labels, entries): &(Labels, Vec<_>)| {
        let values: Vec<_> = entries.iter().map(entry).collect();
        serde_json::json!({"stream": object(labels.iter()), "values": values})
    };
    serde_json::json!({"streams": sent.iter().map(stream).collect::<Vec<_>>()}).to_string().into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        for kind in KINDS {
            let _ = decode(kind, body.clone());
        }
    }

    #[test]
    fn a_damaged_push_never_panics(sent in push_strategy(), at: prop::sample::Index, byte: u8, json: bool) {
        let (kind, mut body) = if json {
            (BodyKind::LokiJson, sent_as_json(&sent))
        } else {
            (BodyKind::LokiProtobuf, sent_as_protobuf(&sent))
        };
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = decode(kind, body.clone());
        let _ = decode(BodyKind::Ndjson, body);
    }

    #[test]
    fn a_push_says_the_same_in_protobuf_and_in_json(sent in push_strategy()) {
        let intake = decode(BodyKind::LokiProtobuf, sent_as_protobuf(&sent)).unwrap();
        prop_assert_eq!(&decode(BodyKind::LokiJson, sent_as_json(&sent)).unwrap(), &intake);
        prop_assert!(intake.refusals.is_empty() && intake.every_record_timed);
        let want: Vec<_> = sent.iter().flat_map(|(_, entries)| entries).collect();
        let found = records(&intake);
        prop_assert_eq!((found.len(), intake.accepted), (want.len(), want.len()));
        for (record, (timestamp, line, metadata)) in found.into_iter().zip(want) {
            prop_assert_eq!((record.timestamp, record.line.as_str()), (*timestamp, line.as_str()));
            let kept = record.metadata.iter().map(|(n, v)| (n.as_str().to_string(), v.as_str().to_string()));
            prop_assert!(kept.take(metadata.len()).eq(metadata.iter().cloned()));
            prop_assert!(field(record, "detected_level").is_some());
        }
        for stream in &intake.streams {
            prop_assert!(stream.labels.get(SERVICE_NAME).is_some());
        }
    }

    #[test]
    fn a_line_of_ndjson_keeps_its_parts(
        timestamp in 0..NOW, message in "(?s).{0,40}", extra in "(?s).{0,20}", number: i32, app in "[a-z]{1,8}",
    ) {
        let line = serde_json::json!({
            "ts": timestamp, "msg": message, "extra": extra, "number": number, "labels": {"app": app},
        });
        let (intake, number) = (decode(BodyKind::Ndjson, format!("\n{line}\r\n{line}")).unwrap(), number.to_string());
        prop_assert_eq!((intake.accepted, intake.streams.len()), (2, 1));
        prop_assert_eq!(intake.streams[0].labels.get("app"), Some(app.as_str()));
        for record in records(&intake) {
            prop_assert_eq!((record.timestamp, record.line.as_str()), (timestamp, message.as_str()));
            prop_assert_eq!(field(record, "extra"), Some(extra.as_str()));
            prop_assert_eq!(field(record, "number"), Some(number.as_str()));
        }
    }
}

#[test]
fn lines_are_slices_of_the_body() {
    let inside = |kind, body: Vec<u8>| {
        let body = Bytes::from(body);
        let intake = super::decode(kind, &body, &ACCEPTANCE).unwrap();
        let line = records(&intake)[0].line.clone();
        assert_eq!(line.as_str(), "no escapes here");
        assert!(body.as_ptr_range().contains(&line.as_bytes().as_ptr()), "{kind:?}");
    };
    let sent = push::Request { streams: vec![stream("{a=\"b\"}", vec![entry("no escapes here")])] };
    inside(BodyKind::LokiProtobuf, sent.encode_to_vec());
    let json = br#"{"streams":[{"stream":{"a":"b"},"values":[["1","no escapes here"]]}]}"#;
    inside(BodyKind::LokiJson, json.to_vec());
    inside(BodyKind::Ndjson, br#"{"ts":1,"msg":"no escapes here"}"#.to_vec());
}

#[test]
fn each_record_is_judged_by_itself() {
    let mut late = entry("late");
    late.timestamp = Some(stamp(NOW + 601_000_000_000));
    let long = entry(&"x".repeat(LINE_BYTES_MAX + 1));
    let intake = protobuf(vec![stream("{app=\"x\"}", vec![entry("one"), late, long, entry("two")])]).unwrap();
    let lines: Vec<_> = records(&intake).iter().map(|record| record.line.as_str()).collect();
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(intake.bytes_accepted, 6);
    assert_eq!(intake.refusals.total(), 2);
    assert_eq!(intake.refusals.named[0].at, Place::Entry { stream: 1, entry: 2 });
    assert_eq!(reasons(&intake), [RefusalReason::TimestampTooNew, RefusalReason::LineTooLong]);
    assert_ne!(intake.time_refusals, 0);
}

#[test]
fn timestamps_are_bounded_on_both_sides() {
    let mut at = entry("x");
    let mut judge_at = |timestamp, oldest| {
        at.timestamp = Some(stamp(timestamp));
        let body = push::Request { streams: vec![stream("{app=\"x\"}", vec![at.clone()])] }.encode_to_vec();
        let acceptance = Acceptance { now: NOW, oldest };
        reasons(&super::decode(BodyKind::LokiProtobuf, &body.into(), &acceptance).unwrap())
    };
    assert_eq!(judge_at(NOW + 600_000_000_000, None), []);
    assert_eq!(judge_at(NOW + 600_000_000_001, None), [RefusalReason::TimestampTooNew]);
    assert_eq!(judge_at(-5, None), []);
    assert_eq!(judge_at(NOW - 2, Some(NOW - 1)), [RefusalReason::TimestampTooOld]);
    assert_eq!(judge_at(NOW - 1, Some(NOW - 1)), []);
}

#[test]
fn a_timestamp_that_is_none_is_refused() {
    let mut bad = entry("x");
    bad.timestamp = None;
    assert_eq!(reasons(&judge(bad.clone())), [RefusalReason::MissingTimestamp]);
    for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0), (9_223_372_037, 0)] {
        bad.timestamp = Some(push::Timestamp { seconds, nanos });
        assert_eq!(reasons(&judge(bad.clone())), [RefusalReason::InvalidTimestamp], "{seconds} {nanos}");
    }
}

#[test]
fn a_line_over_its_bound_is_refused() {
    assert_eq!(reasons(&judge(entry(&"x".repeat(LINE_BYTES_MAX)))), []);
    assert_eq!(reasons(&judge(entry(&"x".repeat(LINE_BYTES_MAX + 1)))), [RefusalReason::LineTooLong]);
}

#[test]
fn metadata_is_bounded_in_every_direction() {
    let with = |pairs: Vec<(String, String)>| {
        let metadata = pairs.into_iter().map(|(name, value)| push::Pair { name, value }).collect();
        reasons(&judge(push::Entry { metadata, ..entry("x") }))
    };
    let many = |count: usize, bytes: usize| (0..count).map(|n| (format!("n{n}"), "v".repeat(bytes))).collect();
    assert_eq!(with(many(METADATA_FIELDS_MAX, 1)), []);
    assert_eq!(with(many(METADATA_FIELDS_MAX + 1, 1)), [RefusalReason::TooManyFields]);
    assert_eq!(with(many(40, 2_000)), [RefusalReason::MetadataTooLarge]);
    assert_eq!(with(many(1, LABEL_VALUE_BYTES_MAX + 1)), [RefusalReason::ValueTooLong]);
    assert_eq!(with(vec![("n".repeat(LABEL_NAME_BYTES_MAX + 1), String::new())]), [RefusalReason::NameTooLong]);
    assert_eq!(with(vec![(String::new(), "v".to_string())]), [RefusalReason::EmptyName]);
}

#[test]
fn labels_are_bounded_in_every_direction() {
    let of = |labels: &str| {
        let intake =
            protobuf(vec![stream(labels, vec![entry("x"), entry("y")]), stream("{a=\"b\"}", vec![entry("z")])]);
        let intake = intake.unwrap();
        let refused = intake.refusals.total();
        assert_eq!((intake.accepted, refused), if refused == 0 { (3, 0) } else { (1, 2) });
        reasons(&intake)
    };
    let many = |count: usize| format!("{{{}}}", (0..count).map(|n| format!("l{n}=\"v\",")).collect::<String>());
    assert_eq!(of(&many(LABELS_MAX)), []);
    assert_eq!(of(&many(LABELS_MAX + 1)), [RefusalReason::TooManyLabels]);
    assert_eq!(of("{}"), [RefusalReason::MissingLabels]);
    assert_eq!(of("{a=\"\"}"), [RefusalReason::MissingLabels]);
    assert_eq!(of("a=b"), [RefusalReason::InvalidLabels]);
    assert_eq!(of("{a=\"1\",a=\"2\"}"), [RefusalReason::DuplicateLabel]);
    assert_eq!(of(&format!("{{{}=\"v\"}}", "n".repeat(LABEL_NAME_BYTES_MAX + 1))), [RefusalReason::NameTooLong]);
    assert_eq!(of(&format!("{{n=\"{}\"}}", "v".repeat(LABEL_VALUE_BYTES_MAX + 1))), [RefusalReason::ValueTooLong]);
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_stands() {
    let mut body =
        push::Request { streams: vec![stream("{a=\"b\"}", vec![entry("good"), entry("b@d")])] }.encode_to_vec();
    let at = body.iter().position(|byte| *byte == b'@').unwrap();
    body[at] = 0xff;
    let intake = decode(BodyKind::LokiProtobuf, body).unwrap();
    assert_eq!((intake.accepted, reasons(&intake)), (1, vec![RefusalReason::InvalidUtf8]));
    let intake = decode(BodyKind::Ndjson, &b"{\"msg\":\"\xff\"}\n{\"msg\":\"good\"}"[..]).unwrap();
    assert_eq!((intake.accepted, reasons(&intake)), (1, vec![RefusalReason::InvalidUtf8]));
    assert!(decode(BodyKind::LokiJson, &b"{\"streams\":[{\"stream\":{\"a\":\"\xff\"}}]}"[..]).is_err());
}

#[test]
fn a_request_has_a_bounded_number_of_records_and_streams() {
    let empty_entries = |count: usize| {
        let mut body = vec![0x0a];
        prost::encoding::encode_varint(count as u64 * 2, &mut body);
        body.extend([0x12, 0x00].repeat(count));
        decode(BodyKind::LokiProtobuf, body)
    };
    assert_eq!(empty_entries(1_000).unwrap().refusals.total(), 1_000);
    let refused = empty_entries(REQUEST_RECORDS_MAX + 1).unwrap_err();
    assert_eq!(refused.verdict(), Verdict::TooLarge);
    let refused = decode(BodyKind::LokiProtobuf, [0x0a, 0x00].repeat(REQUEST_STREAMS_MAX + 1)).unwrap_err();
    assert_eq!(refused.verdict(), Verdict::TooLarge);
    let streams = format!("{{\"streams\":[{}{{}}]}}", "{},".repeat(REQUEST_STREAMS_MAX));
    assert_eq!(decode(BodyKind::LokiJson, streams).unwrap_err().verdict(), Verdict::TooLarge);
}

#[test]
fn only_the_first_refusals_are_named() {
    let late = push::Entry { timestamp: None, ..entry("x") };
    let intake = protobuf(vec![stream("{a=\"b\"}", vec![late; 50])]).unwrap();
    assert_eq!((intake.refusals.named.len(), intake.refusals.total()), (REFUSALS_NAMED_MAX, 50));
    assert_eq!(intake.refusals.to_string().lines().count(), REFUSALS_NAMED_MAX + 2);
}

#[test]
fn the_same_stream_twice_in_a_row_is_one() {
    let intake = protobuf(vec![
        stream("{a=\"b\", c=\"d\"}", vec![entry("1")]),
        stream("{c=\"d\",a=\"b\"}", vec![entry("2")]),
        stream("{a=\"x\"}", vec![]),
    ]);
    let intake = intake.unwrap();
    assert_eq!(intake.streams.len(), 1);
    assert_eq!(intake.streams[0].records.len(), 2);
}

#[test]
fn a_stream_gets_the_name_of_its_service() {
    let name = |labels: &str| {
        let intake = protobuf(vec![stream(labels, vec![entry("x")])]).unwrap();
        intake.streams[0].labels.get(SERVICE_NAME).unwrap().to_string()
    };
    assert_eq!(name("{job=\"j\", app=\"a\"}"), "a");
    assert_eq!(name("{service_name=\"s\", app=\"a\"}"), "s");
    assert_eq!(name("{service_name=\"\", app=\"a\"}"), "a");
    assert_eq!(name("{x=\"y\"}"), "unknown_service");
}

#[test]
fn a_record_gets_its_level() {
    let level = |labels: &str, metadata: &[(&str, &str)], line: &str| {
        let pair = |(name, value): &(&str, &str)| push::Pair { name: name.to_string(), value: value.to_string() };
        let sent = push::Entry { metadata: metadata.iter().map(pair).collect(), ..entry(line) };
        let intake = protobuf(vec![stream(labels, vec![sent])]).unwrap();
        let record = records(&intake)[0].clone();
        assert_eq!(record.metadata.iter().filter(|(name, _)| name.as_str() == "detected_level").count(), 1);
        field(&record, "detected_level").unwrap().to_string()
    };
    assert_eq!(level("{a=\"b\"}", &[], "an ERROR"), "error");
    assert_eq!(level("{level=\"WARN\"}", &[], "an ERROR"), "warn");
    assert_eq!(level("{level=\"warn\"}", &[("severity", "Debug")], "an ERROR"), "debug");
    assert_eq!(level("{level=\"warn\"}", &[("detected_level", "mine")], "an ERROR"), "mine");
    assert_eq!(level("{a=\"b\"}", &[], "nothing"), "unknown");
}

#[test]
fn malformed_protobuf_is_refused_with_its_place() {
    for body in [
        &[0x0a][..],                                                               // no length
        &[0x0a, 0x05, 0x00],                                                       // longer than the body
        &[0x08, 0x01],                                                             // streams as a number
        &[0x0b],                                                                   // a group
        &[0x00],                                                                   // field 0
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // no such number
        &[0x0a, 0x04, 0x12, 0x02, 0x0a, 0x7f],                                     // deep inside
    ] {
        let refused = decode(BodyKind::LokiProtobuf, body).unwrap_err();
        assert!(matches!(refused, ProtocolError::Protobuf { .. }), "{body:?}: {refused}");
        assert!(push::Request::decode(body).is_err(), "{body:?}");
    }
}

#[test]
fn labels_may_come_after_the_entries() {
    let mut stream = vec![0x12];
    stream.extend(entry("x").encode_length_delimited_to_vec());
    stream.extend(b"\x0a\x07{a=\"b\"}");
    let mut body = vec![0x0a];
    prost::encoding::encode_varint(stream.len() as u64, &mut body);
    body.extend(stream);
    assert_eq!(decode(BodyKind::LokiProtobuf, body).unwrap().accepted, 1);
    let json = br#"{"x":[{}],"streams":[{"values":[["1","x"]],"more":{"a":[1]},"stream":{"a":"b"}}]}"#;
    assert_eq!(decode(BodyKind::LokiJson, &json[..]).unwrap().accepted, 1);
}

#[test]
fn the_legacy_form_of_json_is_read() {
    let json =
        br#"{"streams":[{"labels":"{a=\"b\"}","entries":[{"ts":"2026-11-19T00:00:00.5Z","line":"x"},{"line":"y"}]}]}"#;
    let intake = decode(BodyKind::LokiJson, &json[..]).unwrap();
    assert_eq!(records(&intake)[0].timestamp, NOW + 500_000_000);
    assert_eq!(reasons(&intake), [RefusalReason::MissingTimestamp]);
}

#[test]
fn json_of_another_form_is_refused_and_says_why() {
    let value = |value: &str| format!("{{\"streams\":[{{\"stream\":{{\"a\":\"b\"}},\"values\":[{value}]}}]}}");
    for (body, says) in [
        (value("[1,\"x\"]"), "nanoseconds in a string"),
        (value("[\"1\"]"), "invalid length 1"),
        (value("[]"), "invalid length 0"),
        (value("[\"1\",\"x\",{},{}]"), "invalid length 4"),
        (value("[\"1\",\"x\",{\"a\":1}]"), "a string"),
        (value("[\"1\",2]"), "the line, a string"),
        ("{\"streams\":[{\"stream\":{\"a\":1}}]}".to_string(), "expected"),
        ("{\"streams\":{}}".to_string(), "an array of streams"),
        ("{\"streams\":[]} x".to_string(), "trailing"),
        ("[]".to_string(), "an object with"),
        ("{\"streams\":[".to_string(), "EOF"),
        (String::new(), "EOF"),
    ] {
        let refused = decode(BodyKind::LokiJson, body.clone()).unwrap_err();
        assert_eq!(refused.verdict(), Verdict::Malformed);
        assert!(refused.to_string().contains(says), "{body}: {refused}");
        assert!(refused.to_string().contains("column"), "{body}: {refused}");
    }
    let intake = decode(BodyKind::LokiJson, value("[\"1.5\",\"x\"],[\"-2\",\"y\"]")).unwrap();
    assert_eq!((intake.accepted, reasons(&intake)), (1, vec![RefusalReason::InvalidTimestamp]));
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let push = |depth| decode(BodyKind::LokiJson, format!("{{\"other\":{}}}", nested(depth)));
    assert!(push(JSON_DEPTH_MAX - 1).is_ok());
    for depth in [JSON_DEPTH_MAX, 100, 100_000] {
        assert_eq!(push(depth).unwrap_err().verdict(), Verdict::Malformed);
    }
    let line = |depth| decode(BodyKind::Ndjson, format!("{{\"msg\":\"x\",\"other\":{}}}", nested(depth))).unwrap();
    assert_eq!(field(records(&line(3))[0], "other"), Some("[[[1]]]"));
    assert!(line(JSON_DEPTH_MAX - 1).refusals.is_empty());
    for depth in [JSON_DEPTH_MAX, 100, 100_000] {
        assert_eq!(reasons(&line(depth)), [RefusalReason::Malformed]);
    }
}

#[test]
fn ndjson_names_line_and_column_of_what_it_refuses() {
    let body =
        "{\"msg\":\"good\"}\n\n{\"msg\": bad}\n[]\n{\"msg\":\"x\",\"ts\":\"never\"}\n{\"labels\":{\"a-b\":\"c\"}}";
    let intake = decode(BodyKind::Ndjson, body).unwrap();
    assert_eq!(intake.accepted, 1);
    let named: Vec<_> =
        intake.refusals.named.iter().map(|refusal| (refusal.at, refusal.column, refusal.reason)).collect();
    assert_eq!(
        named,
        [
            (Place::Line(3), Some(9), RefusalReason::Malformed),
            (Place::Line(4), Some(1), RefusalReason::Malformed),
            (Place::Line(5), None, RefusalReason::InvalidTimestamp),
            (Place::Line(6), None, RefusalReason::InvalidLabels),
        ]
    );
    assert!(intake.refusals.to_string().contains("line 3, column 9: "));
}

#[test]
fn ndjson_takes_time_line_labels_and_metadata_from_their_fields() {
    let body = concat!(
        r#"{"@timestamp":"2026-11-19T00:00:00Z","service":"api","level":"warn","_msg":"hi","n":1.5,"b":true,"z":null}"#,
        "\n",
        r#"{"time":"5","message":"yo","labels":{"app":"x","n":3},"nested":{"a":["q\"",{}],"b":{}}}"#,
        "\n",
        r#"{"status":500,"path":"/"}"#,
    );
    let intake = decode(BodyKind::Ndjson, body).unwrap();
    assert_eq!(intake.accepted, 3);
    assert!(!intake.every_record_timed);
    let labels: Vec<_> = intake.streams.iter().map(|stream| stream.labels.to_string()).collect();
    let unknown = "{service_name=\"unknown_service\"}";
    assert_eq!(labels, ["{service_name=\"api\"}", "{app=\"x\", n=\"3\", service_name=\"x\"}", unknown]);
    let records = records(&intake);
    assert_eq!((records[0].timestamp, records[0].line.as_str()), (NOW, "hi"));
    let fields: Vec<_> = records[0].metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let want = [("service", "api"), ("level", "warn"), ("n", "1.5"), ("b", "true"), ("detected_level", "warn")];
    assert_eq!(fields, want);
    assert_eq!((records[1].timestamp, field(records[1], "nested")), (5, Some(r#"{"a":["q\"",{}],"b":{}}"#)));
    assert_eq!((records[2].timestamp, records[2].line.as_str()), (NOW, r#"{"status":500,"path":"/"}"#));
    assert_eq!(records[2].metadata.len(), 1);
}

#[test]
fn ndjson_gathers_lines_of_one_stream() {
    let line = |app: &str, n: usize| format!("{{\"ts\":{n},\"msg\":\"{n}\",\"labels\":{{\"app\":\"{app}\"}}}}\n");
    let body: String = (0..10).map(|n| line(if n % 2 == 0 { "even" } else { "odd" }, n)).collect();
    let intake = decode(BodyKind::Ndjson, body).unwrap();
    let times = |at: usize| intake.streams[at].records.iter().map(|record| record.timestamp).collect::<Vec<_>>();
    assert_eq!((times(0), times(1)), (vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]));
    assert!(intake.every_record_timed);
}

#[test]
fn a_service_that_a_field_names_joins_the_labels() {
    let body = r#"{"msg":"x","app":"second","service":"first","name":"no","labels":{"zone":"a"}}"#;
    let intake = decode(BodyKind::Ndjson, body).unwrap();
    assert_eq!(intake.streams[0].labels.to_string(), "{service_name=\"first\", zone=\"a\"}");
}

#[test]
fn content_types_choose_the_decoder() {
    assert_eq!(BodyKind::of_push(Some("application/json; charset=utf-8")), Ok(BodyKind::LokiJson));
    assert_eq!(BodyKind::of_push(Some("application/x-protobuf")), Ok(BodyKind::LokiProtobuf));
    assert_eq!(BodyKind::of_push(Some("text/whatever")), Ok(BodyKind::LokiProtobuf));
    assert_eq!(BodyKind::of_push(None).unwrap_err().verdict(), Verdict::Malformed);
    assert_eq!(BodyKind::of_push(Some("json")).unwrap_err().verdict(), Verdict::UnsupportedType);
    assert_eq!(BodyKind::of_records(None), Ok(BodyKind::Ndjson));
    assert_eq!(BodyKind::of_records(Some("application/x-ndjson")), Ok(BodyKind::Ndjson));
    assert_eq!(BodyKind::of_records(Some("image/png")).unwrap_err().verdict(), Verdict::UnsupportedType);
}
