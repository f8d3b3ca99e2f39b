//! Keeps the first records in an order that pass the stages of a query, out of chunks that come in any order: at most a
//! number of them, at most as many as one message between nodes carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Stopped;
use crate::block::rows::{Rows, Stream, Summary};
use crate::limits::PARTIAL_BYTES;
use crate::query::error::QueryError;
use crate::query::partial::{FoundRecord, FoundRecords, FoundStream, Pairs, pairs};
use crate::query::pattern::LineFilters;
use crate::query::pipeline::{Origin, Pipeline, Processed, Record};

/// What a record takes on the wire beside its texts, generously.
const RECORD_BYTES: usize = 64;
/// What a text takes on the wire beside its bytes.
const TEXT_BYTES: usize = 5;

/// Which records come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Oldest,
    Newest,
    Offset,
}

/// A position in an order: smaller comes first. Offsets make it unique within a shard.
pub(super) type Key = (i64, u64);

impl Order {
    pub(super) fn key(self, timestamp: i64, offset: u64) -> Key {
        match self {
            Self::Oldest => (timestamp, offset),
            // Complement turns both orders around and cannot overflow.
            Self::Newest => (!timestamp, !offset),
            Self::Offset => (0, offset),
        }
    }

    /// The first position that a record of a chunk can have.
    pub(super) fn first(self, chunk: &Summary) -> Key {
        match self {
            Self::Oldest | Self::Offset => self.key(chunk.min_timestamp, chunk.first_offset),
            Self::Newest => self.key(chunk.max_timestamp, chunk.last_offset),
        }
    }
}

/// Which records are wanted beside their streams and lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) order: Order,
    /// Timestamps from the first, before the second; without one, up to the last there is.
    pub(super) time: (i64, Option<i64>),
    pub(super) from: u64,
    pub(super) after: Option<Key>,
    pub(super) limit: usize,
}

struct Kept {
    key: Key,
    offset: u64,
    timestamp: i64,
    stream: u32,
    line: String,
    metadata: Pairs,
    parsed: Pairs,
}

impl Kept {
    fn bytes(&self) -> usize {
        let pairs = self.metadata.iter().chain(&self.parsed);
        RECORD_BYTES + self.line.len() + pairs.map(|(n, v)| n.len() + v.len() + 2 * TEXT_BYTES).sum::<usize>()
    }
}

pub(super) struct Keeper {
    wanted: Wanted,
    pipeline: Arc<Pipeline>,
    /// Sorted by key.
    kept: Vec<Kept>,
    /// Records from here on were left out: none of them is kept.
    bound: Option<Key>,
    streams: Vec<Stream>,
    indexes: BTreeMap<Stream, u32>,
}

impl Keeper {
    pub(super) fn new(wanted: Wanted, pipeline: Pipeline) -> Self {
        let pipeline = Arc::new(pipeline);
        Self { wanted, pipeline, kept: Vec::new(), bound: None, streams: Vec::new(), indexes: BTreeMap::new() }
    }

    pub(super) fn order(&self) -> Order {
        self.wanted.order
    }

    /// Whether no record of a chunk that starts at `first` can be kept.
    pub(super) fn is_beyond(&self, first: Key) -> bool {
        self.bound.is_some_and(|bound| first >= bound || mutant!(LateRecordsPassedOver))
    }

    pub(super) fn may_hold(&self, chunk: &Summary) -> bool {
        let (start, end) = self.wanted.time;
        chunk.max_timestamp >= start
            && end.is_none_or(|end| chunk.min_timestamp < end)
            && chunk.last_offset >= self.wanted.from
    }

    pub(super) fn filters(&self) -> &LineFilters {
        self.pipeline.leading()
    }

    /// Rows that have fitting time, offset and stream, and are not past what was left out.
    pub(super) fn select(&self, rows: &Rows, shown: &[Option<i64>]) -> Vec<u32> {
        let Wanted { order, time: (start, end), from, after, .. } = self.wanted;
        let (streams, timestamps, offsets) = (rows.stream_indexes(), rows.timestamps(), rows.offsets());
        let key = |row: u32| order.key(timestamps[row as usize], offsets[row as usize]);
        let bound = self.bound;
        let fits = |row: &u32| {
            let at = *row as usize;
            shown[streams[at] as usize].is_some_and(|from| timestamps[at] >= from)
                && timestamps[at] >= start
                && end.is_none_or(|end| timestamps[at] < end)
                && offsets[at] >= from
                && after.is_none_or(|after| key(*row) > after)
                && bound.is_none_or(|bound| key(*row) < bound)
        };
        let count = u32::try_from(rows.len()).expect("bounded by BLOCK_ROWS_MAX");
        (0..count).filter(fits).collect()
    }

    /// Brings rows that passed the leading filters into the order wanted. Where there are no other stages, what is past the
    /// limit is left out before anything of it is read.
    pub(super) fn order_rows(&mut self, rows: &Rows, selected: &mut Vec<u32>) {
        let Wanted { order, limit, .. } = self.wanted;
        let key = |row: u32| order.key(rows.timestamps()[row as usize], rows.offsets()[row as usize]);
        selected.sort_unstable_by_key(|row| key(*row));
        if let Some(dropped) = selected.get(limit).filter(|_| self.pipeline.is_plain()) {
            self.leave_out(key(*dropped));
            selected.truncate(limit);
        }
    }

    /// Keeps those of the rows, in the order wanted, that pass the other stages; their lines and metadata are there.
    ///
    /// # Errors
    /// `QueryError::Cancelled` where it was stopped; what was kept is then of no use.
    pub(super) fn keep(&mut self, rows: &Rows, selected: &[u32], stopped: Stopped<'_>) -> Result<(), QueryError> {
        let pipeline = Arc::clone(&self.pipeline);
        let mut indexes: Vec<Option<u32>> = vec![None; rows.streams().len()];
        let (mut bytes, mut count) = (0, 0);
        for row in selected {
            let row = *row as usize;
            let (timestamp, offset) = (rows.timestamp(row), rows.offset(row));
            let key = self.wanted.order.key(timestamp, offset);
            if bytes >= PARTIAL_BYTES || count >= self.wanted.limit {
                self.leave_out(key);
                break;
            }
            let at = rows.stream_indexes()[row] as usize;
            let metadata = rows.metadata(row);
            let kept = if pipeline.is_plain() {
                let stream = *indexes[at].get_or_insert_with(|| self.index(&rows.streams()[at]));
                let (line, metadata) = (rows.line(row).to_owned(), owned(metadata));
                Kept { key, offset, timestamp, stream, line, metadata, parsed: Vec::new() }
            } else {
                if stopped() {
                    return Err(QueryError::Cancelled);
                }
                let metadata: Vec<(&str, &str)> = metadata.collect();
                let record = Record { timestamp, line: rows.line(row), labels: rows.stream(row), metadata: &metadata };
                let Some(Processed { line, fields }) = pipeline.run(&record) else { continue };
                let stream = match fields.stream() {
                    None => *indexes[at].get_or_insert_with(|| self.index(&rows.streams()[at])),
                    Some(labels) => self.index(&Stream { tenant: rows.streams()[at].tenant.clone(), labels }),
                };
                let (metadata, parsed) = (owned(fields.of(Origin::Metadata)), owned(fields.of(Origin::Parsed)));
                Kept { key, offset, timestamp, stream, line: line.into_owned(), metadata, parsed }
            };
            bytes += kept.bytes();
            count += 1;
            self.kept.push(kept);
        }
        self.kept.sort_by_key(|kept| kept.key);
        self.cut();
        Ok(())
    }

    fn index(&mut self, stream: &Stream) -> u32 {
        if let Some(index) = self.indexes.get(stream) {
            return *index;
        }
        let index = u32::try_from(self.streams.len()).expect("streams of one shard");
        self.streams.push(stream.clone());
        self.indexes.insert(stream.clone(), index);
        index
    }

    fn leave_out(&mut self, key: Key) {
        self.bound = Some(self.bound.map_or(key, |bound| bound.min(key)));
    }

    /// Leaves out what is past the limit, past one message, or past what was left out before.
    fn cut(&mut self) {
        let mut bytes = 0;
        let mut sent = vec![false; self.streams.len()];
        let past = self.kept.iter().enumerate().position(|(at, kept)| {
            let past =
                at >= self.wanted.limit || bytes >= PARTIAL_BYTES || self.bound.is_some_and(|bound| kept.key >= bound);
            bytes += kept.bytes();
            if !std::mem::replace(&mut sent[kept.stream as usize], true) {
                bytes += stream_bytes(&self.streams[kept.stream as usize]);
            }
            past
        });
        if let Some(past) = past {
            self.leave_out(self.kept[past].key);
            self.kept.truncate(past);
        }
    }

    /// What was kept. `end` is the first offset the shard had not given out.
    pub(super) fn finish(self, end: u64) -> FoundRecords {
        let next = match self.bound {
            Some((_, offset)) if self.wanted.order == Order::Offset => offset,
            Some(_) | None => end.max(self.wanted.from),
        };
        let mut found = FoundRecords { complete: self.bound.is_none(), next, ..FoundRecords::default() };
        let mut indexes: Vec<Option<u32>> = vec![None; self.streams.len()];
        for kept in self.kept {
            let stream = *indexes[kept.stream as usize].get_or_insert_with(|| {
                let stream = &self.streams[kept.stream as usize];
                found.streams.push(FoundStream { tenant: stream.tenant.to_string(), labels: pairs(&stream.labels) });
                u32::try_from(found.streams.len() - 1).expect("no more streams than records")
            });
            let Kept { offset, timestamp, line, metadata, parsed, .. } = kept;
            found.records.push(FoundRecord { stream, offset, timestamp, line, metadata, parsed });
        }
        found
    }
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Pairs {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn stream_bytes(stream: &Stream) -> usize {
    let labels: usize = stream.labels.iter().map(|(n, v)| n.len() + v.len() + 2 * TEXT_BYTES).sum();
    RECORD_BYTES + stream.tenant.len() + labels
}
