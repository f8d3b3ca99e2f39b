//! From the records of a backed up segment to requests that store them again, and back on the node that takes them in.
//!
//! The body of a request is one batch, block kind 0: records of one tenant, the records of a stream in the order of
//! their offsets. Each request has a key of its own that follows from the backup, the segment and its number in it, so
//! that a restore which begins again sends the same records under the same keys. Nobody judges them: what was valid
//! when it was stored is stored again as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{BackupError, SegmentEntry};
use crate::block::l0::{Encoder, L0};
use crate::block::rows::{Projection, Rows};
use crate::id::{Key, ShardId};
use crate::label::Labels;
use crate::limits::{BATCH_RAW_BYTES_MAX, BATCH_ROWS_MAX, RESTORE_REQUEST_RAW_BYTES};
use crate::record::{Record, StreamRecords, Text};

/// What a row costs besides its text, and a field or label besides its: more than any room counts for them.
const OVERHEAD_BYTES: usize = 16;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Under which it is stored, once however often it is sent.
    pub key: Key,
    /// The encoded batch.
    pub body: Bytes,
    /// Records in it.
    pub records: usize,
}

/// The requests that store one segment again, in the order in which they must be stored.
#[derive(Debug)]
pub struct Replay {
    rows: Vec<Rows>,
    /// Block and row of each record, in the order of offsets.
    order: Vec<(u32, u32)>,
    at: usize,
    number: u64,
    /// What every key begins with.
    seed: Vec<u8>,
}

impl Replay {
    /// Of the rows of a whole segment.
    #[must_use]
    pub fn new(backup: &str, shard: ShardId, entry: &SegmentEntry, rows: Vec<Rows>) -> Self {
        let number = |number: usize| u32::try_from(number).expect("bounded by the size of a segment and a block");
        let mut order: Vec<(u32, u32)> = (0..rows.len())
            .flat_map(|block| (0..rows[block].len()).map(move |row| (number(block), number(row))))
            .collect();
        order.sort_unstable_by_key(|(block, row)| rows[*block as usize].offset(*row as usize));
        let mut seed = b"millpond restore ".to_vec();
        seed.extend_from_slice(backup.as_bytes());
        seed.push(0);
        seed.extend_from_slice(&shard.0.to_le_bytes());
        for number in [entry.from, entry.to] {
            seed.extend_from_slice(&number.to_le_bytes());
        }
        seed.extend_from_slice(&entry.digest.to_le_bytes());
        Self { rows, order, at: 0, number: 0, seed }
    }

    /// Records that no request has taken yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.order.len() - self.at
    }

    /// The next request; none where all records were taken.
    pub fn next(&mut self, encoder: &mut Encoder) -> Option<Request> {
        let place = |at: usize| {
            let (block, row) = self.order[at];
            (&self.rows[block as usize], row as usize)
        };
        let (first, row) = self.order.get(self.at).map(|_| place(self.at))?;
        let tenant: Arc<str> = first.tenant(row).into();
        let mut streams: Vec<StreamRecords> = Vec::new();
        let mut known: BTreeMap<Labels, usize> = BTreeMap::new();
        let (mut bytes, mut records) = (0, 0);
        while self.at + records < self.order.len() && records < BATCH_ROWS_MAX && bytes < RESTORE_REQUEST_RAW_BYTES {
            let (rows, row) = place(self.at + records);
            if rows.tenant(row) != &*tenant {
                break;
            }
            let labels = rows.stream(row);
            let of_stream = *known.entry(labels.clone()).or_insert_with(|| {
                bytes += labels.raw_bytes();
                streams.push(StreamRecords { labels: labels.clone(), records: Vec::new() });
                streams.len() - 1
            });
            let record = record_of(rows, row);
            bytes += record.raw_bytes() + OVERHEAD_BYTES;
            records += 1;
            streams[of_stream].records.push(record);
        }
        let mut hash = Xxh3::new();
        hash.update(&self.seed);
        hash.update(&self.number.to_le_bytes());
        self.at += records;
        self.number += 1;
        Some(Request { key: Key(hash.digest128()), body: encoder.encode(&tenant, &streams), records })
    }
}

fn record_of(rows: &Rows, row: usize) -> Record {
    let metadata = rows.metadata(row).map(|(name, value)| (Text::from(name), Text::from(value)));
    Record { timestamp: rows.timestamp(row), line: rows.line(row).into(), metadata: metadata.collect() }
}

/// The tenant and the records of a request's body, in their order.
///
/// # Errors
/// It is no batch, or a record is larger than any that can have been stored.
pub fn decode(body: Bytes) -> Result<(Arc<str>, Vec<StreamRecords>), BackupError> {
    let batch = L0::open(body).map_err(|_| BackupError::Request("it is not a whole batch"))?;
    let rows = batch.rows(0, Projection::ALL).map_err(|_| BackupError::Request("its batch is damaged"))?;
    let mut streams: Vec<StreamRecords> = Vec::new();
    let mut last = None;
    for (row, stream) in rows.stream_indexes().iter().enumerate() {
        let (record, labels) = (record_of(&rows, row), rows.stream(row));
        let fields = 1 + record.metadata.len() + labels.len();
        if record.raw_bytes() + labels.raw_bytes() + fields * OVERHEAD_BYTES > BATCH_RAW_BYTES_MAX {
            return Err(BackupError::Request("a record is larger than a record may be"));
        }
        if last != Some(stream) {
            streams.push(StreamRecords { labels: labels.clone(), records: Vec::new() });
        }
        last = Some(stream);
        streams.last_mut().expect("one was pushed for the first row").records.push(record);
    }
    Ok((batch.tenant().into(), streams))
}
