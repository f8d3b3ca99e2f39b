//! Parameters as they come in URLs and forms. What is encoded decodes to the same. What becomes of them a query travels
//! to a shard as it is, and has an answer in JSON where no shard has anything; moments and durations are what they are
//! written as.

use millpond::id::ShardId;
use millpond::protocol::{BodyKind, Encoding as ContentEncoding};
use millpond::query::answer::{Encoding, Took, tail_frame};
use millpond::query::error::QueryError;
use millpond::query::merge::Gather;
use millpond::query::overview::{FieldParameters, VolumeParameters};
use millpond::query::plan::{self, Direction, Query, RangeParameters, ShardRequest, StreamsWant};
use millpond::query::time::{parse_duration, parse_time};
use millpond_actors::listeners::http::params::Params;
use millpond_actors::listeners::http::shards::parse_shard;
use millpond_actors::moment;

use super::pen::Pen;
use super::world::TENANT;
use super::{Note, Outcome, queries};

const NAMES: &[&str] = &[
    "query",
    "query",
    "query",
    "start",
    "end",
    "step",
    "limit",
    "direction",
    "time",
    "since",
    "delay_for",
    "interval",
    "match[]",
    "targetLabels",
    "aggregateBy",
    "line_limit",
    "field_limit",
    "partial",
    "x",
    "",
];
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "100",
    "5000",
    "5001",
    "18446744073709551615",
    "18446744073709551616",
    "1700000000",
    "1700000000.5",
    "1700000060",
    "1700000000000000000",
    "1700000060000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "1e9",
    "1.7e9",
    "1e99",
    "NaN",
    "inf",
    "2023-11-14T22:13:20Z",
    "2023-11-14T22:14:20.123456789+01:00",
    "9999-12-31T23:59:60Z",
    "0000-01-01T00:00:00-23:59",
    "1h",
    "5m",
    "10s",
    "1.5s",
    "1ns",
    "292y",
    "0s",
    "1h30m",
    "-5m",
    "5",
    "0.000000001",
    "forward",
    "BACKWARD",
    "true",
    "false",
    "series",
    "labels",
    "app,level",
    "{}",
    "{app=\"api\"}",
];
const WORDS: &[&[u8]] = &[
    b"&",
    b"=",
    b"%",
    b"%2",
    b"%00",
    b"%ff",
    b"%e2%80%ae",
    b"+",
    b"%2B",
    b";",
    b"#",
    b"query=",
    b"start=",
    b"end=",
    b"step=",
    b"limit=",
    b"1e",
    b"ns",
    b"-",
    b".",
    b"T",
    b"Z",
    b":",
    b"9",
];

pub(super) fn run(pen: &mut Pen, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    match pen.below(8) {
        0 => moments(pen, note),
        1 => headers(pen, note),
        _ => form(pen, corpus, note),
    }
}

fn damaged(pen: &mut Pen, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    if !pen.one_in(4) {
        pen.damage(&mut bytes, WORDS, &[b"2023-11-14T22:13:20.123456789+01:00", b"1h30m5s"]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A moment and a duration, each by both readers.
fn moments(pen: &mut Pen, note: &mut Note) -> Outcome {
    let text = pen.pick(VALUES);
    let text = damaged(pen, text);
    note.input("moment", text.as_bytes());
    let nanoseconds = parse_time("t", &text);
    let shown = |time: i64| moment::parse(&moment::format(time));
    if let Ok(time) = nanoseconds
        && time > i64::MIN + 1_000_000
        && shown(time) != Some(time - time.rem_euclid(1_000_000))
    {
        return Err(format!("{time} is shown as {:?}, which is read as {:?}", moment::format(time), shown(time)));
    }
    let duration = parse_duration("d", &text);
    if duration.as_ref().is_ok_and(|duration| *duration <= 0) {
        return Err(format!("{duration:?} is no duration"));
    }
    let other = moment::parse_duration(&text);
    if other.as_ref().is_ok_and(std::time::Duration::is_zero) {
        return Err("a duration of the command line is zero".to_owned());
    }
    let shard = parse_shard(&text, 16);
    if shard.as_ref().is_ok_and(|ShardId(shard)| *shard >= 16) {
        return Err(format!("{shard:?} is no shard of 16"));
    }
    Ok(nanoseconds.is_ok() || duration.is_ok() || other.is_ok() || moment::parse(&text).is_some() || shard.is_ok())
}

fn headers(pen: &mut Pen, note: &mut Note) -> Outcome {
    let text = pen.pick(&[
        "application/json",
        "application/x-protobuf",
        "application/x-ndjson; charset=utf-8",
        "text/plain",
        "gzip",
        "deflate",
        "zstd",
        "identity",
        " Snappy ",
        "gzip, zstd",
    ]);
    let text = damaged(pen, text);
    note.input("header", text.as_bytes());
    let (push, records) = (BodyKind::of_push(Some(&text)), BodyKind::of_records(Some(&text)));
    let encoding = ContentEncoding::from_header(Some(&text));
    for error in [push.as_ref().err(), records.as_ref().err(), encoding.as_ref().err()].into_iter().flatten() {
        // What was sent is told again, but not all of it.
        if error.to_string().len() > 1_024 {
            return Err(format!("the refusal is as long as the header: {error}"));
        }
    }
    Ok(push.is_ok() || records.is_ok() || encoding.is_ok())
}

fn percent_encoded(pen: &mut Pen, text: &str) -> String {
    let all = pen.one_in(4);
    let plain = |byte: u8| !all && (byte.is_ascii_alphanumeric() || b"-._~{}()[]|,:/".contains(&byte));
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn form(pen: &mut Pen, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    let pairs: Vec<(String, String)> = (0..1 + pen.below(8))
        .map(|_| {
            let name = pen.pick(NAMES);
            let value = match name {
                "query" => queries::text(pen, corpus).1,
                _ if pen.one_in(6) => pen.number().to_string(),
                _ => pen.pick(VALUES).to_owned(),
            };
            (name.to_owned(), value)
        })
        .collect();
    let encoded: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent_encoded(pen, name), percent_encoded(pen, value)))
        .collect();
    let mut text = encoded.join("&");
    if pen.one_in(3) {
        text = damaged(pen, &text);
        note.input("form changed", text.as_bytes());
    } else {
        note.input("form", text.as_bytes());
        let Ok(params) = Params::of_url(Some(&text)) else { return Err("what was encoded is not read".to_owned()) };
        for (name, _) in &pairs {
            let first =
                pairs.iter().find(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| value.as_str());
            if params.get(name) != first {
                return Err(format!("{name:?} is read as {:?}", params.get(name)));
            }
        }
    }
    let Ok(params) = Params::of_url(Some(&text)) else { return Ok(false) };
    let questions = questions(pen, &params);
    let mut taken = false;
    for question in questions.into_iter().flatten() {
        travels(&question)?;
        taken = true;
    }
    // A tail begins with these, and sends frames.
    let tail = plan::parse(params.get("query").unwrap_or_default()).is_ok()
        && params.number("limit").and_then(plan::limit).is_ok();
    let _ = tail_frame(&[], Encoding::Categorized);
    Ok(taken || tail)
}

/// Every question that these parameters can be of, as the listeners put it.
fn questions(pen: &mut Pen, params: &Params) -> Vec<Result<Query, QueryError>> {
    let time = |name: &str, default: i64| params.get(name).map_or(Ok(default), |text| parse_time(name, text));
    let now = 1_700_000_000_000_000_000 + (pen.number() & 0xffff_ffff).cast_signed();
    let query = params.get("query").unwrap_or_default();
    let asked = || {
        let end = time("end", now)?;
        let since = params.get("since").map_or(Ok(3_600_000_000_000), |text| parse_duration("since", text))?;
        let step = params.get("step").map(|text| parse_duration("step", text)).transpose()?;
        Ok::<_, QueryError>((
            time("start", end.saturating_sub(since))?,
            end,
            step,
            params.number("limit")?,
            params.number("line_limit")?,
        ))
    };
    let (start, end, step, limit, line_limit) = match asked() {
        Ok(asked) => asked,
        Err(error) => return vec![Err(error)],
    };
    let direction = if params.flag("partial") == Ok(true) { Direction::Forward } else { Direction::Backward };
    let target = params.get("targetLabels");
    let selectors: Vec<&str> = params.all(&["match[]", "query"]).collect();
    let volume = |ranged, by_labels| {
        Query::volume(query, VolumeParameters { start, end, step, ranged, limit, target, by_labels })
    };
    let fields = |field| Query::detected_fields(query, field, FieldParameters { start, end, line_limit, limit });
    vec![
        Query::range(query, RangeParameters { start, end, step, limit, direction }),
        time("time", now).and_then(|time| Query::instant(query, time)),
        Query::streams(StreamsWant::Series, &selectors, start, end),
        Query::streams(StreamsWant::Values(query.to_owned()), &selectors, start, end),
        Query::stats(query, start, end),
        volume(false, true),
        volume(true, false),
        Query::detected_labels(&selectors, start, end),
        fields(None),
        fields(Some("n".to_owned())),
        Query::patterns(query, start, end, step),
    ]
}

fn travels(query: &Query) -> Result<(), String> {
    let gather = Gather::new(query.clone(), TENANT);
    for request in gather.requests() {
        let read = ShardRequest::decode(&request.encode());
        if read.as_ref() != Ok(&request) {
            return Err(format!("the request {request:?} is read as {read:?}"));
        }
    }
    let Ok(answer) = gather.finish() else { return Ok(()) };
    let json = answer.to_json(Encoding::Folded, Took::default());
    serde_json::from_slice::<serde_json::Value>(&json).map(|_| ()).map_err(|error| format!("no JSON: {error}"))
}
