//! A Loki push in JSON, read as a stream: no tree of values is built, and a line without escapes stays where it is.
//!
//! ```text
//! {"streams": [{"stream": {"name": "value", ..}, "values": [["<ns>", "line"], ["<ns>", "line", {"name": "value"}], ..]}]}
//! {"streams": [{"labels": "{name=\"value\"}", "entries": [{"ts": "<RFC 3339>", "line": "line"}, ..]}]}
//! ```
//!
//! The second form is that of the legacy path. Fields with other names are skipped. Nanoseconds are a string: as a number
//! they lose digits in half the languages that would write them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::json::{Skip, TextIn};
use super::judge::{self, Judge, Metadata, Stamp};
use super::label_text::parse_labels;
use super::{Acceptance, Intake, Place, ProtocolError, RefusalReason};
use crate::label::Labels;
use crate::record::{Record, Text};
use crate::time::parse_rfc3339;

pub(super) fn decode(body: &Bytes, acceptance: &Acceptance) -> Result<Intake, ProtocolError> {
    let mut reading = Reading { judge: Judge::new(acceptance), body, stopped: None };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Push(&mut reading).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (reading.stopped, read) {
        (Some(stopped), _) => Err(stopped),
        (None, Err(error)) => Err(ProtocolError::Json { what: error.to_string() }),
        (None, Ok(())) => Ok(reading.judge.finish()),
    }
}

struct Reading<'a> {
    judge: Judge<'a>,
    body: &'a Bytes,
    /// Why reading stopped, where that was not the JSON's fault.
    stopped: Option<ProtocolError>,
}

impl Reading<'_> {
    /// Carries an error past serde, which only knows its own.
    fn stop<T, E: Error>(&mut self, result: Result<T, ProtocolError>) -> Result<T, E> {
        result.map_err(|error| {
            let message = E::custom(&error);
            self.stopped = Some(error);
            message
        })
    }

    fn text(&self, expected: &'static str) -> TextIn<'_> {
        TextIn { body: self.body, expected }
    }
}

/// Defines a seed that deserializes as what its visitor visits.
macro_rules! seed {
    ($name:ident, $value:ty, $method:ident) => {
        impl<'de> DeserializeSeed<'de> for $name<'_, '_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.$method(self)
            }
        }
    };
}

/// The whole body.
struct Push<'r, 'a>(&'r mut Reading<'a>);

seed!(Push, (), deserialize_map);

impl<'de> Visitor<'de> for Push<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"streams\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<Name<'_>>()? {
            match &*name.0 {
                "streams" => fields.next_value_seed(Streams(self.0))?,
                _ => fields.next_value_seed(Skip { depth: 1 })?,
            }
        }
        Ok(())
    }
}

/// The name of a field.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Streams<'r, 'a>(&'r mut Reading<'a>);

seed!(Streams, (), deserialize_seq);

impl<'de> Visitor<'de> for Streams<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of streams")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut streams: A) -> Result<(), A::Error> {
        while streams.next_element_seed(Stream(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct Stream<'r, 'a>(&'r mut Reading<'a>);

seed!(Stream, (), deserialize_map);

impl<'de> Visitor<'de> for Stream<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream: an object with \"stream\" and \"values\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let reading = self.0;
        let numbered = reading.judge.stream();
        let stream = reading.stop(numbered)?;
        let mut labels = Err((RefusalReason::MissingLabels, None));
        let mut records = Records { stream, read: 0, accepted: Vec::new() };
        while let Some(name) = fields.next_key::<Name<'_>>()? {
            match &*name.0 {
                "stream" => labels = fields.next_value::<Pairs<'_>>()?.labels(),
                "labels" => labels = labels_of_text(&fields.next_value::<Name<'_>>()?.0),
                "values" => fields.next_value_seed(List { reading, records: &mut records, tuples: true })?,
                "entries" => fields.next_value_seed(List { reading, records: &mut records, tuples: false })?,
                _ => fields.next_value_seed(Skip { depth: 3 })?,
            }
        }
        reading.judge.close(stream, labels, records.accepted);
        Ok(())
    }
}

fn labels_of_text(text: &str) -> Result<Labels, (RefusalReason, Option<usize>)> {
    let pairs = parse_labels(text).map_err(|error| (RefusalReason::InvalidLabels, Some(error.at + 1)))?;
    judge::labels(&pairs).map_err(|reason| (reason, None))
}

/// An object of strings, in the order they stand.
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Pairs<'_> {
    fn labels(&self) -> Result<Labels, (RefusalReason, Option<usize>)> {
        judge::labels(&self.0).map_err(|reason| (reason, None))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = fields.next_entry::<Name<'de>, Name<'de>>()? {
                    pairs.push((name.0, value.0));
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

/// The records of one stream so far.
struct Records {
    stream: usize,
    read: usize,
    accepted: Vec<Record>,
}

/// `values` or `entries`.
struct List<'r, 'a, 's> {
    reading: &'r mut Reading<'a>,
    records: &'s mut Records,
    tuples: bool,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { reading, records, tuples } = self;
        loop {
            let found = if tuples {
                entries.next_element_seed(Tuple(&mut *reading))?
            } else {
                entries.next_element_seed(Entry(&mut *reading))?
            };
            let Some((stamp, line, metadata)) = found else { return Ok(()) };
            records.read += 1;
            let at = Place::Entry { stream: records.stream, entry: records.read };
            let judged = reading.judge.record(at, stamp, Some(line), metadata);
            records.accepted.extend(reading.stop(judged)?);
        }
    }
}

type Found = (Stamp, Text, Metadata);

/// `["<ns>", "line"]`, with an object of metadata as a third item.
struct Tuple<'r, 'a>(&'r mut Reading<'a>);

seed!(Tuple, Found, deserialize_seq);

impl<'de> Visitor<'de> for Tuple<'_, '_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: [\"<nanoseconds>\", \"line\"] or [\"<nanoseconds>\", \"line\", {metadata}]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        let nanos = items.next_element_seed(Nanos)?.ok_or_else(|| Error::invalid_length(0, &self))?;
        let line = items.next_element_seed(self.0.text("the line, a string"))?;
        let line = line.ok_or_else(|| Error::invalid_length(1, &self))?;
        let metadata = items.next_element_seed(Fields(self.0.body))?.unwrap_or_default();
        if items.next_element_seed(Skip { depth: 6 })?.is_some() {
            return Err(Error::invalid_length(4, &self));
        }
        Ok((nanos, line, metadata))
    }
}

/// Whole nanoseconds in a string.
struct Nanos;

impl<'de> DeserializeSeed<'de> for Nanos {
    type Value = Stamp;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Stamp, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Nanos {
    type Value = Stamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the timestamp, nanoseconds in a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Stamp, E> {
        Ok(text.parse().map_or(Stamp::Bad(RefusalReason::InvalidTimestamp), Stamp::At))
    }
}

/// An object of metadata.
struct Fields<'a>(&'a Bytes);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Metadata;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Metadata, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::default();
        let text = TextIn { body: self.0, expected: "a string" };
        while let Some(name) = fields.next_key_seed(text)? {
            metadata.push(name, fields.next_value_seed(text)?);
        }
        Ok(metadata)
    }
}

/// `{"ts": "<RFC 3339>", "line": "line"}`.
struct Entry<'r, 'a>(&'r mut Reading<'a>);

seed!(Entry, Found, deserialize_map);

impl<'de> Visitor<'de> for Entry<'_, '_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: {\"ts\": \"<RFC 3339>\", \"line\": \"line\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Found, A::Error> {
        let mut stamp = Stamp::Bad(RefusalReason::MissingTimestamp);
        let mut line = Text::default();
        let mut metadata = Metadata::default();
        while let Some(name) = fields.next_key::<Name<'_>>()? {
            match &*name.0 {
                "ts" | "timestamp" => {
                    let time = parse_rfc3339(&fields.next_value::<Name<'_>>()?.0);
                    stamp = time.map_or(Stamp::Bad(RefusalReason::InvalidTimestamp), Stamp::At);
                }
                "line" => line = fields.next_value_seed(self.0.text("the line, a string"))?,
                "structuredMetadata" => metadata = fields.next_value_seed(Fields(self.0.body))?,
                _ => fields.next_value_seed(Skip { depth: 5 })?,
            }
        }
        Ok((stamp, line, metadata))
    }
}
