//! Judges each record and each stream by itself, and gathers those that pass: the one place where the bounds on what
//! clients send are held. Also adds what every record gets at intake: the label `service_name` and the metadata field
//! `detected_level`.
//!
//! It does not know the form a body had; decoders hand it what they found.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Acceptance, Intake, Place, ProtocolError, Refusal, RefusalReason, level};
use crate::label::{Labels, is_label_name};
use crate::limits::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LINE_BYTES_MAX, METADATA_BYTES_MAX, METADATA_FIELDS_MAX,
    REQUEST_FIELDS_MAX, REQUEST_RECORDS_MAX, REQUEST_STREAMS_MAX, TIMESTAMP_AHEAD_MAX,
};
use crate::record::{Record, StreamRecords, Text};

/// The label that names a record's service.
pub(super) const SERVICE_NAME: &str = "service_name";

/// The labels from which `service_name` is taken, best first.
pub const SERVICE_LABELS: [&str; 12] = [
    SERVICE_NAME,
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "component",
    "workload",
    "job",
];

const UNKNOWN_SERVICE: &str = "unknown_service";

/// The time that came with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Nanoseconds since the Unix epoch.
    At(i64),
    /// None came, and the protocol allows that: the record gets the time of intake.
    Intake,
    /// What came breaks this.
    Bad(RefusalReason),
}

/// The metadata of one record while it is read. A field too many is counted, not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    fields: Vec<(Text, Text)>,
    bytes: usize,
    broken: Option<RefusalReason>,
}

impl Metadata {
    /// Adds a field, or notes which bound it breaks.
    pub(super) fn push(&mut self, name: Text, value: Text) {
        self.bytes += name.len() + value.len();
        let broken = if name.is_empty() {
            Some(RefusalReason::EmptyName)
        } else if name.len() > LABEL_NAME_BYTES_MAX {
            Some(RefusalReason::NameTooLong)
        } else if value.len() > LABEL_VALUE_BYTES_MAX {
            Some(RefusalReason::ValueTooLong)
        } else if self.fields.len() >= METADATA_FIELDS_MAX {
            Some(RefusalReason::TooManyFields)
        } else if self.bytes > METADATA_BYTES_MAX {
            Some(RefusalReason::MetadataTooLarge)
        } else {
            None
        };
        match broken {
            Some(reason) => self.refuse(reason),
            None => self.fields.push((name, value)),
        }
    }

    /// Notes that a field cannot stand. The first reason counts.
    pub(super) fn refuse(&mut self, reason: RefusalReason) {
        self.broken.get_or_insert(reason);
    }
}

/// Gathers the accepted records of one body.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    acceptance: &'a Acceptance,
    newest: i64,
    records: usize,
    fields: usize,
    streams: usize,
    intake: Intake,
}

impl<'a> Judge<'a> {
    pub(super) fn new(acceptance: &'a Acceptance) -> Self {
        let ahead = i64::try_from(TIMESTAMP_AHEAD_MAX.as_nanos()).unwrap_or(i64::MAX);
        Self {
            acceptance,
            newest: acceptance.now.saturating_add(ahead),
            records: 0,
            fields: 0,
            streams: 0,
            intake: Intake { every_record_timed: true, ..Intake::default() },
        }
    }

    /// The number of the next stream, from 1.
    ///
    /// # Errors
    /// `TooLarge` past `REQUEST_STREAMS_MAX`.
    pub(super) fn stream(&mut self) -> Result<usize, ProtocolError> {
        self.streams += 1;
        if self.streams > REQUEST_STREAMS_MAX {
            return Err(ProtocolError::TooLarge { what: "streams", bound: REQUEST_STREAMS_MAX });
        }
        Ok(self.streams)
    }

    /// Judges one record by itself; `None` where it is refused.
    ///
    /// # Errors
    /// `TooLarge` past `REQUEST_RECORDS_MAX` and `REQUEST_FIELDS_MAX`.
    pub(super) fn record(
        &mut self,
        at: Place,
        stamp: Stamp,
        line: Option<Text>,
        metadata: Metadata,
    ) -> Result<Option<Record>, ProtocolError> {
        self.count(metadata.fields.len())?;
        let judged = self.judge_time(stamp).and_then(|timestamp| {
            let line = line.ok_or(RefusalReason::InvalidUtf8)?;
            if line.len() > LINE_BYTES_MAX {
                return Err(RefusalReason::LineTooLong);
            }
            match metadata.broken {
                Some(reason) => Err(reason),
                None => Ok(Record { timestamp, line, metadata: metadata.fields }),
            }
        });
        match judged {
            Ok(record) => {
                self.intake.every_record_timed &= stamp != Stamp::Intake;
                Ok(Some(record))
            }
            Err(reason) => {
                self.refuse(Refusal { at, column: None, reason }, 1);
                Ok(None)
            }
        }
    }

    /// Counts a record that was refused before it could be judged.
    pub(super) fn unreadable(&mut self, refusal: Refusal) -> Result<(), ProtocolError> {
        self.count(0)?;
        self.refuse(refusal, 1);
        Ok(())
    }

    fn count(&mut self, fields: usize) -> Result<(), ProtocolError> {
        self.records += 1;
        self.fields += fields;
        if self.records > REQUEST_RECORDS_MAX {
            return Err(ProtocolError::TooLarge { what: "records", bound: REQUEST_RECORDS_MAX });
        }
        if self.fields > REQUEST_FIELDS_MAX {
            return Err(ProtocolError::TooLarge { what: "metadata fields", bound: REQUEST_FIELDS_MAX });
        }
        Ok(())
    }

    fn judge_time(&mut self, stamp: Stamp) -> Result<i64, RefusalReason> {
        let timestamp = match stamp {
            Stamp::At(timestamp) => timestamp,
            Stamp::Intake => return Ok(self.acceptance.now),
            Stamp::Bad(reason) => return Err(reason),
        };
        let reason = if timestamp > self.newest {
            RefusalReason::TimestampTooNew
        } else if self.acceptance.oldest.is_some_and(|oldest| timestamp < oldest) {
            RefusalReason::TimestampTooOld
        } else {
            return Ok(timestamp);
        };
        let ordinal = (self.records as u64).to_le_bytes();
        self.intake.time_refusals = xxh3_64_with_seed(&ordinal, self.intake.time_refusals).max(1);
        Err(reason)
    }

    /// Takes records that were judged into their stream, or refuses all of them with it. A stream that says the same
    /// labels as the one before it continues that one.
    pub(super) fn close(
        &mut self,
        stream: usize,
        labels: Result<Labels, (RefusalReason, Option<usize>)>,
        mut records: Vec<Record>,
    ) {
        if records.is_empty() {
            return;
        }
        let labels = match labels {
            Ok(labels) => labels,
            Err((reason, column)) => {
                return self.refuse(Refusal { at: Place::Stream(stream), column, reason }, records.len());
            }
        };
        self.intake.accepted += records.len();
        let stated = level::of_fields(labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        for record in &mut records {
            self.intake.bytes_accepted += record.raw_bytes();
            add_level(record, stated);
        }
        match self.intake.streams.last_mut() {
            Some(last) if last.labels == labels => last.records.append(&mut records),
            _ => self.intake.streams.push(StreamRecords { labels, records }),
        }
    }

    fn refuse(&mut self, refusal: Refusal, records: usize) {
        self.intake.refusals.add(refusal, records);
    }

    pub(super) fn finish(self) -> Intake {
        self.intake
    }
}

/// Adds `detected_level`, unless the client did.
fn add_level(record: &mut Record, of_stream: Option<level::Level>) {
    if record.metadata.iter().any(|(name, _)| *name == level::DETECTED_LEVEL) {
        return;
    }
    let fields = record.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let found = level::of_fields(fields).or(of_stream).unwrap_or_else(|| level::of_line(record.line.as_bytes()));
    record.metadata.reserve_exact(1);
    record.metadata.push((level::DETECTED_LEVEL, found.text()));
}

/// Judges the labels that came with a stream and adds `service_name`.
pub(super) fn labels<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Result<Labels, RefusalReason> {
    let present =
        || pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).filter(|pair| !pair.1.is_empty());
    let count = present().count();
    if count == 0 {
        return Err(RefusalReason::MissingLabels);
    }
    if count > LABELS_MAX {
        return Err(RefusalReason::TooManyLabels);
    }
    for (at, (name, value)) in present().enumerate() {
        if name.len() > LABEL_NAME_BYTES_MAX {
            return Err(RefusalReason::NameTooLong);
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            return Err(RefusalReason::ValueTooLong);
        }
        if !is_label_name(name) {
            return Err(RefusalReason::InvalidLabels);
        }
        if present().take(at).any(|(earlier, _)| earlier == name) {
            return Err(RefusalReason::DuplicateLabel);
        }
    }
    let service = SERVICE_LABELS.iter().find_map(|known| present().find(|(name, _)| name == known));
    let added = match service {
        Some((SERVICE_NAME, _)) => None,
        Some((_, service)) => Some((SERVICE_NAME, service)),
        None => Some((SERVICE_NAME, UNKNOWN_SERVICE)),
    };
    Ok(Labels::new(present().chain(added)))
}

/// Bytes of a body as text; `None` where they are not UTF-8.
pub(super) fn text(body: &Bytes, range: std::ops::Range<usize>) -> Option<Text> {
    Text::from_utf8(body.slice(range))
}
