//! From bytes that clients send to records: `inflate` undoes encodings, `decode` reads a body, each record judged by
//! itself against the bounds of `limits`.
//!
//! A body that cannot be read is a [`ProtocolError`]; a record in it that breaks a bound is a [`Refusal`], and the rest
//! of the body stands. This room does not know where records go, nor what an answer looks like on the wire.

mod inflate;
mod json;
mod judge;
mod label_text;
mod level;
mod loki_json;
mod loki_protobuf;
mod ndjson;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

pub use self::inflate::{Encoding, inflate};
pub use self::judge::SERVICE_LABELS;
pub use self::label_text::{LabelTextError, parse_labels};
use crate::class::Class;
use crate::limits::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LINE_BYTES_MAX, METADATA_BYTES_MAX, METADATA_FIELDS_MAX,
    REFUSALS_NAMED_MAX, TIMESTAMP_AHEAD_MAX,
};
use crate::record::StreamRecords;

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A Loki `PushRequest`, a snappy block of protobuf.
    LokiProtobuf,
    /// A Loki push in JSON.
    LokiJson,
    /// One JSON object a line, the native form.
    Ndjson,
}

impl BodyKind {
    /// What a Loki push holds, by its `Content-Type`: JSON, or protobuf for every other type that parses.
    pub fn of_push(content_type: Option<&str>) -> Result<Self, ProtocolError> {
        let media = media_type(content_type)?;
        if media.eq_ignore_ascii_case("application/json") { Ok(Self::LokiJson) } else { Ok(Self::LokiProtobuf) }
    }

    /// What the native endpoint was sent: NDJSON under one of its names, or no type at all.
    pub fn of_records(content_type: Option<&str>) -> Result<Self, ProtocolError> {
        const NAMES: [&str; 8] = [
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
            "application/x-jsonlines",
            "application/json",
            "application/octet-stream",
            "application/x-www-form-urlencoded", // what curl --data-binary says of any body
            "text/plain",
        ];
        if content_type.is_none() {
            return Ok(Self::Ndjson);
        }
        let media = media_type(content_type)?;
        if NAMES.iter().any(|name| media.eq_ignore_ascii_case(name)) {
            return Ok(Self::Ndjson);
        }
        Err(ProtocolError::UnknownContentType { name: media.chars().take(64).collect() })
    }
}

/// The media type without its parameters.
fn media_type(content_type: Option<&str>) -> Result<&str, ProtocolError> {
    let whole = content_type.ok_or(ProtocolError::NoContentType)?;
    let media = whole.split(';').next().unwrap_or_default().trim();
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if media.split_once('/').is_some_and(|(class, name)| token(class) && token(name)) {
        return Ok(media);
    }
    Err(ProtocolError::UnknownContentType { name: whole.chars().take(64).collect() })
}

/// Against what timestamps are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The node's clock, in nanoseconds since the Unix epoch; also the time of a record that came without one.
    pub now: i64,
    /// The oldest timestamp that retention leaves; `None` where nothing expires.
    pub oldest: Option<i64>,
}

/// What a body came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// The accepted records, by stream, in the order they were sent.
    pub streams: Vec<StreamRecords>,
    /// The others.
    pub refusals: Refusals,
    /// How many records were accepted.
    pub accepted: usize,
    /// Bytes of their lines and of the metadata they were sent with.
    pub bytes_accepted: usize,
    /// Whether every accepted record was sent with its timestamp; only then may a body's hash stand for a retry.
    pub every_record_timed: bool,
    /// Which records were refused for their timestamps, folded to a number; 0 for none. The clock decides these, so a
    /// retry may be judged otherwise, and then it is another request.
    pub time_refusals: u64,
}

/// The refused records of one body: counted by reason, the first few named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The first `REFUSALS_NAMED_MAX`.
    pub named: Vec<Refusal>,
    /// Records refused, by reason.
    pub counts: BTreeMap<RefusalReason, usize>,
}

impl Refusals {
    /// All refused records.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, refusal: Refusal, records: usize) {
        *self.counts.entry(refusal.reason).or_default() += records;
        if self.named.len() < REFUSALS_NAMED_MAX {
            self.named.push(refusal);
        }
    }
}

impl fmt::Display for Refusals {
    /// A line for each one named, and one for those that are not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} records refused:", self.total())?;
        for refusal in &self.named {
            writeln!(f, "{refusal}")?;
        }
        if self.named.len() >= REFUSALS_NAMED_MAX {
            writeln!(f, "only the first {REFUSALS_NAMED_MAX} are named")?;
        }
        Ok(())
    }
}

/// Where in a body something was refused. Everything counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A whole stream of a push.
    Stream(usize),
    /// One entry of a stream of a push.
    Entry {
        /// The stream.
        stream: usize,
        /// The entry in it.
        entry: usize,
    },
    /// A line of NDJSON.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => write!(f, "stream {stream}"),
            Self::Entry { stream, entry } => write!(f, "stream {stream}, entry {entry}"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// One record, or one stream of records, that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it was.
    pub at: Place,
    /// The byte of the line, or of the stream's label text, counted from 1, where that is known.
    pub column: Option<usize>,
    /// What it broke.
    pub reason: RefusalReason,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "{}, column {column}: {}", self.at, self.reason),
            None => write!(f, "{}: {}", self.at, self.reason),
        }
    }
}

/// What a refused record broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// A line of NDJSON that is no JSON object, or nests too deep.
    Malformed,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// No timestamp where the protocol demands one.
    MissingTimestamp,
    /// A timestamp that is no time, or lies outside the years 1677 to 2262.
    InvalidTimestamp,
    /// A timestamp too far ahead of the node's clock.
    TimestampTooNew,
    /// A timestamp older than the retention.
    TimestampTooOld,
    /// A line over its bound.
    LineTooLong,
    /// A stream without labels.
    MissingLabels,
    /// Labels that do not parse, or a name that no label may have.
    InvalidLabels,
    /// A label name that comes twice.
    DuplicateLabel,
    /// More labels than a stream may have.
    TooManyLabels,
    /// A label's or metadata field's name over its bound.
    NameTooLong,
    /// A label's or metadata field's value over its bound.
    ValueTooLong,
    /// A metadata field without a name.
    EmptyName,
    /// More metadata fields than a record may have.
    TooManyFields,
    /// More bytes of metadata than a record may have.
    MetadataTooLarge,
}

impl RefusalReason {
    /// Its value of the label `reason` in metrics.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MissingTimestamp => "missing_timestamp",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TimestampTooNew => "timestamp_too_new",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::LineTooLong => "line_too_long",
            Self::MissingLabels => "missing_labels",
            Self::InvalidLabels => "invalid_labels",
            Self::DuplicateLabel => "duplicate_label",
            Self::TooManyLabels => "too_many_labels",
            Self::NameTooLong => "label_name_too_long",
            Self::ValueTooLong => "label_value_too_long",
            Self::EmptyName => "empty_field_name",
            Self::TooManyFields => "too_many_fields",
            Self::MetadataTooLarge => "metadata_too_large",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("no JSON object that can be read"),
            Self::InvalidUtf8 => f.write_str("not UTF-8"),
            Self::MissingTimestamp => f.write_str("no timestamp"),
            Self::InvalidTimestamp => f.write_str("the timestamp is neither RFC 3339 nor whole nanoseconds in range"),
            Self::TimestampTooNew => {
                write!(f, "the timestamp is more than {} s ahead of this node's clock", TIMESTAMP_AHEAD_MAX.as_secs())
            }
            Self::TimestampTooOld => f.write_str("the timestamp is older than the retention"),
            Self::LineTooLong => write!(f, "the line has more than {LINE_BYTES_MAX} bytes"),
            Self::MissingLabels => f.write_str("a stream needs at least one label"),
            Self::InvalidLabels => f.write_str("labels are written {name=\"value\"}, names [a-zA-Z_][a-zA-Z0-9_]*"),
            Self::DuplicateLabel => f.write_str("a label name comes twice"),
            Self::TooManyLabels => write!(f, "a stream has more than {LABELS_MAX} labels"),
            Self::NameTooLong => write!(f, "a name has more than {LABEL_NAME_BYTES_MAX} bytes"),
            Self::ValueTooLong => write!(f, "a value has more than {LABEL_VALUE_BYTES_MAX} bytes"),
            Self::EmptyName => f.write_str("a metadata field has no name"),
            Self::TooManyFields => write!(f, "a record has more than {METADATA_FIELDS_MAX} metadata fields"),
            Self::MetadataTooLarge => write!(f, "a record has more than {METADATA_BYTES_MAX} bytes of metadata"),
        }
    }
}

/// Why a whole body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The encoding's own bytes are damaged.
    #[error("the body is not valid {encoding}: {what}")]
    Damaged {
        /// Which encoding.
        encoding: &'static str,
        /// What its decoder said.
        what: String,
    },
    /// The protobuf message is malformed.
    #[error("malformed protobuf at byte {at}: {what}")]
    Protobuf {
        /// The byte of the decompressed body, from 0.
        at: usize,
        /// What was wrong.
        what: &'static str,
    },
    /// The JSON text is malformed or not of the form that a push has.
    #[error("malformed JSON: {what}")]
    Json {
        /// What was wrong, with line and column.
        what: String,
    },
    /// The body breaks a bound on its size.
    #[error("the request is too large: more than {bound} {what}")]
    TooLarge {
        /// What there was too much of.
        what: &'static str,
        /// The bound.
        bound: usize,
    },
    /// No `Content-Type` where one is needed.
    #[error("a push needs a Content-Type: application/json or application/x-protobuf")]
    NoContentType,
    /// A `Content-Type` that the endpoint does not take.
    #[error("Content-Type {name:?} is not taken here")]
    UnknownContentType {
        /// As it was sent, at most 64 characters.
        name: String,
    },
    /// A `Content-Encoding` that nobody here undoes.
    #[error("Content-Encoding {name:?} is not one of gzip, deflate, zstd, snappy")]
    UnknownEncoding {
        /// As it was sent, at most 64 characters.
        name: String,
    },
}

/// How an answer should put a [`ProtocolError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 400.
    Malformed,
    /// 413.
    TooLarge,
    /// 415.
    UnsupportedType,
}

impl ProtocolError {
    /// How an answer should put it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Damaged { .. } | Self::Protobuf { .. } | Self::Json { .. } | Self::NoContentType => {
                Verdict::Malformed
            }
            Self::TooLarge { .. } => Verdict::TooLarge,
            Self::UnknownContentType { .. } | Self::UnknownEncoding { .. } => Verdict::UnsupportedType,
        }
    }

    /// What its caller can do: nothing but send something else.
    pub fn class(&self) -> Class {
        Class::Refuse
    }
}

/// Reads a body that [`inflate`] returned. Lines are slices of it where they need no unescaping.
pub fn decode(kind: BodyKind, body: &Bytes, acceptance: &Acceptance) -> Result<Intake, ProtocolError> {
    match kind {
        BodyKind::LokiProtobuf => loki_protobuf::decode(body, acceptance),
        BodyKind::LokiJson => loki_json::decode(body, acceptance),
        BodyKind::Ndjson => ndjson::decode(body, acceptance),
    }
}

#[cfg(test)]
mod tests;
