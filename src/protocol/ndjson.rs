//! The native form: one JSON object a line.
//!
//! ```text
//! {"ts": "2026-11-19T00:00:00.000000001Z", "message": "text", "labels": {"app": "api"}, "trace": "abc", "n": 3}
//! ```
//!
//! - Time: the first of `ts`, `timestamp`, `time`, `_time`, `@timestamp` that stands in the line: RFC 3339, or whole
//!   nanoseconds since the epoch, as a number or a string. Without one, the record gets the time of intake.
//! - Line: the first of `message`, `msg`, `line`, `_msg`. Without one, the whole object is the line, as it was sent, and
//!   its fields are not repeated as metadata.
//! - Labels: the object `labels`; its numbers and booleans become text. `service_name` is taken from them, and from the
//!   fields of the line `service_name`, `service`, `app`, `application` and `app_name` where they name no service.
//! - Every other field is metadata: text as it is, numbers and booleans as text, arrays and objects as JSON. Null is absent.
//!
//! Empty lines are skipped. Lines are judged one by one; whether one bad line spoils the rest is the caller's choice.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::json::{AnyText, within};
use super::judge::{self, Judge, Metadata, SERVICE_LABELS, SERVICE_NAME, Stamp};
use super::{Acceptance, Intake, Place, ProtocolError, Refusal, RefusalReason};
use crate::label::Labels;
use crate::limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::record::{Record, Text};
use crate::time::parse_rfc3339;

pub(super) fn decode(body: &Bytes, acceptance: &Acceptance) -> Result<Intake, ProtocolError> {
    let mut judge = Judge::new(acceptance);
    let mut streams = Streams::default();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    for (number, end) in ends.enumerate() {
        let line = &body[start..end];
        start = end + 1;
        if !line.trim_ascii().is_empty() {
            read_line(&mut judge, &mut streams, &body.slice_ref(line), number + 1)?;
        }
    }
    for (number, stream) in streams.list.into_iter().enumerate() {
        judge.close(number + 1, Ok(stream.labels), stream.records);
    }
    Ok(judge.finish())
}

fn read_line(judge: &mut Judge<'_>, streams: &mut Streams, line: &Bytes, number: usize) -> Result<(), ProtocolError> {
    let at = Place::Line(number);
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let read = Object { line }.deserialize(&mut deserializer).and_then(|read| deserializer.end().map(|()| read));
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            let reason = match std::str::from_utf8(line) {
                Ok(_) => RefusalReason::Malformed,
                Err(_) => RefusalReason::InvalidUtf8,
            };
            // serde counts columns from 1, and says 0 where a line has not begun.
            return judge.unreadable(Refusal { at, column: Some(error.column().max(1)), reason });
        }
    };
    let (message, metadata) = match read.message {
        Some(message) => (Some(message), read.metadata),
        None => (judge::text(line, 0..line.len()).map(trim), Metadata::default()),
    };
    let stream = match streams.find(judge, &read.labels, read.service.as_ref())? {
        Ok(stream) => stream,
        Err(reason) => return judge.unreadable(Refusal { at, column: None, reason }),
    };
    if let Some(record) = judge.record(at, read.stamp.unwrap_or(Stamp::Intake), message, metadata)? {
        streams.list[stream].records.push(record);
    }
    Ok(())
}

/// Without the white space around it, such as the carriage return of a line that Windows wrote.
fn trim(text: Text) -> Text {
    let trimmed = text.as_str().trim_ascii();
    if trimmed.len() == text.len() { text } else { trimmed.into() }
}

/// Of `SERVICE_LABELS`, how many also count as fields. The others, such as `name`, hold too many values to make streams.
const SERVICE_FIELDS: usize = 5;

/// The streams of the body in the order they came up.
#[derive(Default)]
struct Streams {
    list: Vec<Stream>,
    /// By the labels as they were sent, each string ended by 0xff.
    known: BTreeMap<Box<[u8]>, usize>,
    last: Option<(Vec<u8>, usize)>,
}

struct Stream {
    labels: Labels,
    records: Vec<Record>,
}

impl Streams {
    /// The stream of these labels, opened where it is new. Labels are judged once for all lines that send the same.
    fn find(
        &mut self,
        judge: &mut Judge<'_>,
        labels: &[(Text, Text)],
        service: Option<&Text>,
    ) -> Result<Result<usize, RefusalReason>, ProtocolError> {
        let named = labels.iter().any(|(name, _)| SERVICE_LABELS.contains(&name.as_str()));
        let service = service.filter(|_| !named).map(|service| (Text::from_static(SERVICE_NAME), service.clone()));
        let length = labels.iter().chain(&service).map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut sent = Vec::with_capacity(length);
        for text in labels.iter().chain(&service).flat_map(|(name, value)| [name, value]) {
            sent.extend_from_slice(text.as_bytes());
            sent.push(0xff);
        }
        if let Some((_, stream)) = self.last.as_ref().filter(|(last, _)| *last == sent) {
            return Ok(Ok(*stream));
        }
        if let Some(stream) = self.known.get(sent.as_slice()).copied() {
            self.last = Some((sent, stream));
            return Ok(Ok(stream));
        }
        let labels = match judge_labels(labels, service) {
            Ok(labels) => labels,
            Err(reason) => return Ok(Err(reason)),
        };
        judge.stream()?;
        let stream = self.list.len();
        self.list.push(Stream { labels, records: Vec::new() });
        self.known.insert(sent.clone().into(), stream);
        self.last = Some((sent, stream));
        Ok(Ok(stream))
    }
}

/// A line without labels still has its service, known or not; a service from a field does not count as a label.
fn judge_labels(labels: &[(Text, Text)], service: Option<(Text, Text)>) -> Result<Labels, RefusalReason> {
    const UNKNOWN: (&str, &str) = (SERVICE_NAME, "unknown_service");
    let sent: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let added = service.as_ref().map(|(name, value)| (name.as_str(), value.as_str()));
    if sent.iter().all(|(_, value)| value.is_empty()) {
        return judge::labels(&[added.unwrap_or(UNKNOWN)]);
    }
    let labels = judge::labels(&sent)?;
    match added {
        Some((_, value)) => {
            Ok(Labels::new(labels.iter().map(|(n, v)| if n == SERVICE_NAME { (n, value) } else { (n, v) })))
        }
        None => Ok(labels),
    }
}

/// What one line says.
#[derive(Default)]
struct Read {
    stamp: Option<Stamp>,
    message: Option<Text>,
    labels: Vec<(Text, Text)>,
    /// The field that names the service best, if `labels` does not.
    service: Option<Text>,
    metadata: Metadata,
}

/// One line.
struct Object<'a> {
    line: &'a Bytes,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Name<'_> {
    fn text(&self, line: &Bytes) -> Text {
        match &self.0 {
            Cow::Borrowed(name) => within(line, name),
            Cow::Owned(name) => name.as_str().into(),
        }
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Read, A::Error> {
        let mut read = Read::default();
        let mut service_rank = SERVICE_FIELDS;
        let any = AnyText { body: self.line, depth: 1 };
        while let Some(name) = fields.next_key::<Name<'de>>()? {
            match &*name.0 {
                "ts" | "timestamp" | "time" | "_time" | "@timestamp" if read.stamp.is_none() => {
                    read.stamp = fields.next_value_seed(any)?.map(|time| stamp(time.as_str()));
                }
                "message" | "msg" | "line" | "_msg" if read.message.is_none() => {
                    read.message = fields.next_value_seed(any)?;
                }
                "labels" => read.labels = fields.next_value_seed(LabelObject { line: self.line })?,
                other => {
                    let Some(value) = fields.next_value_seed(any)? else { continue };
                    let rank = SERVICE_LABELS.iter().position(|known| *known == other);
                    if let Some(rank) = rank.filter(|rank| *rank < service_rank && names_a_service(&value)) {
                        service_rank = rank;
                        read.service = Some(value.clone());
                    }
                    read.metadata.push(name.text(self.line), value);
                }
            }
        }
        Ok(read)
    }
}

fn names_a_service(value: &Text) -> bool {
    !value.is_empty() && value.len() <= LABEL_VALUE_BYTES_MAX
}

fn stamp(time: &str) -> Stamp {
    let nanos = time.parse().ok().or_else(|| parse_rfc3339(time));
    nanos.map_or(Stamp::Bad(RefusalReason::InvalidTimestamp), Stamp::At)
}

/// The object `labels`.
struct LabelObject<'a> {
    line: &'a Bytes,
}

impl<'de> DeserializeSeed<'de> for LabelObject<'_> {
    type Value = Vec<(Text, Text)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LabelObject<'_> {
    type Value = Vec<(Text, Text)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut labels = Vec::with_capacity(4);
        let any = AnyText { body: self.line, depth: 2 };
        while let Some(name) = fields.next_key::<Name<'de>>()? {
            if let Some(value) = fields.next_value_seed(any)? {
                // One more than the bound is enough to refuse them all.
                if labels.len() <= LABELS_MAX {
                    labels.push((name.text(self.line), value));
                }
            }
        }
        Ok(labels)
    }
}
