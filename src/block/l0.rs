//! The batch: records of one tenant in the order they were sent, as they travel, are logged and wait in the head.
//! Kind 0 of the container in `frame.rs`, with the columns of `column.rs`. Its offsets are relative: the shard
//! gives its first record an offset when it is applied. It does not know shard, entry or key.

use std::sync::Arc;

use bytes::Bytes;

use super::BlockError;
use super::column::{self, Columns};
use super::frame::{Container, Deflate};
use super::rows::{Lines, Projection, Rows, Stream, Summary};
use crate::limits::BATCH_ROWS_MAX;
use crate::record::StreamRecords;

const KIND: u8 = 0;
/// Levels above cost more than the log gains; those below 1 lose a fifth and more of the size.
const LEVEL: i32 = 1;

/// Encodes batches; keeps its buffers and its zstd context between them.
pub struct Encoder {
    columns: Columns,
    deflate: Deflate,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder.
    pub fn new() -> Self {
        Self { columns: Columns::new(false), deflate: Deflate::new(LEVEL) }
    }

    /// Encodes the records in their order. The same records give the same bytes.
    ///
    /// # Panics
    /// Where there is no record, or more than `BATCH_ROWS_MAX`.
    pub fn encode(&mut self, tenant: &str, streams: &[StreamRecords]) -> Bytes {
        let rows: usize = streams.iter().map(|stream| stream.records.len()).sum();
        assert!((1..=BATCH_ROWS_MAX).contains(&rows), "a batch of {rows} rows");
        let tenant: Arc<str> = tenant.into();
        let mut distinct: Vec<Stream> = Vec::with_capacity(streams.len());
        let mut offset = 0;
        let mut seen = std::collections::BTreeMap::new();
        for stream in streams.iter().filter(|stream| !stream.records.is_empty()) {
            let index = *seen.entry(&stream.labels).or_insert_with(|| {
                distinct.push(Stream { tenant: tenant.clone(), labels: stream.labels.clone() });
                u32::try_from(distinct.len() - 1).expect("no more streams than rows")
            });
            for record in &stream.records {
                let metadata = record.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
                self.columns.push(index, offset, record.timestamp, record.line.as_bytes(), metadata);
                offset += 1;
            }
        }
        self.columns.finish(KIND, &distinct, &mut self.deflate).into()
    }
}

/// A batch whose header, directory and streams are known to be right; cheap to clone.
#[derive(Clone, Debug)]
pub struct L0 {
    block: Container,
    streams: Arc<[Stream]>,
}

impl L0 {
    /// Checks header, directory and streams; inflates nothing else.
    pub fn open(bytes: Bytes) -> Result<Self, BlockError> {
        let block = Container::open(bytes, KIND)?;
        let head = &block.head;
        if head.rows as usize > BATCH_ROWS_MAX || head.first_offset != 0 || head.last_offset != u64::from(head.rows) - 1
        {
            return Err(BlockError::Malformed { part: "rows" });
        }
        let streams = column::streams(&block)?;
        if streams.iter().any(|stream| stream.tenant != streams[0].tenant) {
            return Err(BlockError::Malformed { part: "tenant" });
        }
        Ok(Self { block, streams: streams.into() })
    }

    /// How many records it holds.
    pub fn len(&self) -> u32 {
        self.block.head.rows
    }

    /// Whether it holds none; it never does.
    pub fn is_empty(&self) -> bool {
        self.block.head.rows == 0
    }

    /// What it spans once its first record has the offset `base`.
    pub fn summary(&self, base: u64) -> Summary {
        let head = &self.block.head;
        Summary {
            first_offset: base,
            last_offset: base.saturating_add(head.last_offset),
            rows: u64::from(head.rows),
            min_timestamp: head.min_timestamp,
            max_timestamp: head.max_timestamp,
            raw_bytes: head.raw_bytes,
        }
    }

    /// Its distinct streams, all of one tenant.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The same batch with streams that compare equal to its own: labels that are known elsewhere are then held once.
    ///
    /// # Panics
    /// Where a stream is not equal to the batch's own.
    pub fn share_streams(mut self, same: Vec<Stream>) -> Self {
        assert!(*self.streams == same, "a batch keeps its streams");
        self.streams = same.into();
        self
    }

    /// The tenant of all its records.
    pub fn tenant(&self) -> &str {
        &self.streams[0].tenant
    }

    /// The batch as it was encoded.
    pub fn bytes(&self) -> &Bytes {
        self.block.bytes()
    }

    /// Its lines, to be searched before they are read.
    pub fn lines(&self) -> Result<Lines, BlockError> {
        column::lines(&self.block)
    }

    /// Adds their metadata to rows of this batch.
    pub fn read_metadata(&self, rows: &mut Rows) -> Result<(), BlockError> {
        column::read_metadata(&self.block, rows)
    }

    /// Decodes its records, in the order they were sent; verifies the checksum of everything it reads.
    pub fn rows(&self, base: u64, projection: Projection) -> Result<Rows, BlockError> {
        column::rows(&self.block, &self.streams, Some(base), projection)
    }
}
