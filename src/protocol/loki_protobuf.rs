//! A Loki push in protobuf, already out of its snappy block.
//!
//! ```text
//! PushRequest   1 streams: Stream*
//! Stream        1 labels: string   2 entries: Entry*   3 hash: uint64, not read
//! Entry         1 timestamp: Timestamp   2 line: string   3 metadata: Pair*   4 parsed: Pair*, not read
//! Timestamp     1 seconds: int64   2 nanos: int32
//! Pair          1 name: string   2 value: string
//! ```
//!
//! As in all of protobuf, a field that is not repeated may come again, and the last one counts; fields with other
//! numbers are skipped.

use std::ops::Range;

use bytes::Bytes;

use super::judge::{self, Judge, Metadata, Stamp};
use super::label_text::parse_labels;
use super::wire::{Fields, bytes, number};
use super::{Acceptance, Intake, Place, ProtocolError, RefusalReason};
use crate::label::Labels;
use crate::limits::REQUEST_RECORDS_MAX;
use crate::record::{Record, Text};
use crate::time::to_nanos;

pub(super) fn decode(body: &Bytes, acceptance: &Acceptance) -> Result<Intake, ProtocolError> {
    let mut judge = Judge::new(acceptance);
    let message = 0..body.len();
    for field in Fields::new(body, message.clone()) {
        if let (1, value) = field? {
            stream(&mut judge, body, bytes(value, &message)?)?;
        }
    }
    Ok(judge.finish())
}

/// The labels may come after the entries, so the message is walked over once before its entries are read.
fn stream(judge: &mut Judge<'_>, body: &Bytes, message: Range<usize>) -> Result<(), ProtocolError> {
    let stream = judge.stream()?;
    let (mut text, mut entries) = (message.start..message.start, 0_usize);
    for field in Fields::new(body, message.clone()) {
        match field? {
            (1, value) => text = bytes(value, &message)?,
            (2, _) => entries += 1,
            _ => {}
        }
    }
    let mut records: Vec<Record> = Vec::with_capacity(entries.min(REQUEST_RECORDS_MAX));
    let mut ordinal = 0;
    for field in Fields::new(body, message.clone()) {
        if let (2, value) = field? {
            ordinal += 1;
            let at = Place::Entry { stream, entry: ordinal };
            records.extend(entry(judge, body, bytes(value, &message)?, at)?);
        }
    }
    judge.close(stream, labels(&body[text]), records);
    Ok(())
}

fn labels(text: &[u8]) -> Result<Labels, (RefusalReason, Option<usize>)> {
    let text = std::str::from_utf8(text).map_err(|_| (RefusalReason::InvalidUtf8, None))?;
    let pairs = parse_labels(text).map_err(|error| (RefusalReason::InvalidLabels, Some(error.at + 1)))?;
    judge::labels(&pairs).map_err(|reason| (reason, None))
}

fn entry(
    judge: &mut Judge<'_>,
    body: &Bytes,
    message: Range<usize>,
    at: Place,
) -> Result<Option<Record>, ProtocolError> {
    let mut stamp = Stamp::Bad(RefusalReason::MissingTimestamp);
    let mut line = Some(Text::default());
    let mut metadata = Metadata::default();
    for field in Fields::new(body, message.clone()) {
        match field? {
            (1, value) => stamp = timestamp(body, bytes(value, &message)?)?,
            (2, value) => line = judge::text(body, bytes(value, &message)?),
            (3, value) => match pair(body, bytes(value, &message)?)? {
                Some((name, value)) => metadata.push(name, value),
                None => metadata.refuse(RefusalReason::InvalidUtf8),
            },
            _ => {}
        }
    }
    judge.record(at, stamp, line, metadata)
}

fn timestamp(body: &[u8], message: Range<usize>) -> Result<Stamp, ProtocolError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::new(body, message.clone()) {
        match field? {
            (1, value) => seconds = number(value, &message)?.cast_signed(),
            (2, value) => nanos = number(value, &message)?.cast_signed(),
            _ => {}
        }
    }
    Ok(to_nanos(seconds, nanos).map_or(Stamp::Bad(RefusalReason::InvalidTimestamp), Stamp::At))
}

fn pair(body: &Bytes, message: Range<usize>) -> Result<Option<(Text, Text)>, ProtocolError> {
    let (mut name, mut text) = (Some(Text::default()), Some(Text::default()));
    for field in Fields::new(body, message.clone()) {
        match field? {
            (1, value) => name = judge::text(body, bytes(value, &message)?),
            (2, value) => text = judge::text(body, bytes(value, &message)?),
            _ => {}
        }
    }
    Ok(name.zip(text))
}
