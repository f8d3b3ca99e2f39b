//! The head: batches that are applied and in no registered segment, as they were encoded.
//!
//! Batches are kept in shared pieces, so that a reader's view is a copy of pointers to pieces. A seal ends a piece:
//! what it cut and what came after never share one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::block::BlockError;
use crate::block::l0::L0;
use crate::block::rows::{Lines, Projection, Rows, Stream, Summary};
use crate::id::{Index, Offset};
use crate::limits::BATCHES_PER_CHUNK;

/// One batch with its place.
#[derive(Clone, Debug)]
pub struct HeadBatch {
    base: Offset,
    index: Index,
    time: u64,
    l0: L0,
}

impl HeadBatch {
    pub(super) fn new(base: Offset, index: Index, time: u64, l0: L0) -> Self {
        Self { base, index, time, l0 }
    }

    /// The offset of its first record.
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The entry it came with.
    pub fn index(&self) -> Index {
        self.index
    }

    /// What it spans.
    pub fn summary(&self) -> Summary {
        self.l0.summary(self.base.0)
    }

    /// Its distinct streams, all of one tenant.
    pub fn streams(&self) -> &[Stream] {
        self.l0.streams()
    }

    /// Its lines, to be searched before they are read.
    pub fn lines(&self) -> Result<Lines, BlockError> {
        self.l0.lines()
    }

    /// Adds their metadata to its records.
    pub fn read_metadata(&self, rows: &mut Rows) -> Result<(), BlockError> {
        self.l0.read_metadata(rows)
    }

    /// Decodes its records, in the order of their offsets.
    pub fn rows(&self, projection: Projection) -> Result<Rows, BlockError> {
        self.l0.rows(self.base.0, projection)
    }
}

pub(super) type Chunk = Arc<Vec<Arc<HeadBatch>>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    chunks: VecDeque<Chunk>,
    /// How many chunks at the end no seal has cut.
    unsealed: usize,
    bytes: u64,
    unsealed_bytes: u64,
}

impl Head {
    pub(super) fn push(&mut self, batch: HeadBatch) {
        let raw = batch.summary().raw_bytes;
        self.bytes += raw;
        self.unsealed_bytes += raw;
        let batch = Arc::new(batch);
        match self.chunks.back_mut() {
            Some(chunk) if self.unsealed > 0 && chunk.len() < BATCHES_PER_CHUNK => Arc::make_mut(chunk).push(batch),
            Some(_) | None => {
                self.chunks.push_back(Arc::new(vec![batch]));
                self.unsealed += 1;
            }
        }
    }

    /// Ends the piece: what was not cut before, in order.
    pub(super) fn cut(&mut self) -> HeadView {
        let from = if mutant!(SealCutElsewhere) { 0 } else { self.chunks.len() - self.unsealed };
        (self.unsealed, self.unsealed_bytes) = (0, 0);
        HeadView { chunks: self.chunks.range(from..).cloned().collect() }
    }

    pub(super) fn sealed(&mut self, through: Index) {
        while self.chunks.len() > self.unsealed && self.chunks[0].last().is_some_and(|last| last.index <= through) {
            let chunk = self.chunks.pop_front().expect("there is one");
            self.bytes -= chunk.iter().map(|batch| batch.summary().raw_bytes).sum::<u64>();
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn unsealed_bytes(&self) -> u64 {
        self.unsealed_bytes
    }

    pub(super) fn unsealed_since(&self) -> Option<u64> {
        self.chunks.get(self.chunks.len() - self.unsealed)?.first().map(|batch| batch.time)
    }

    pub(super) fn view(&self) -> HeadView {
        HeadView { chunks: self.chunks.iter().cloned().collect() }
    }
}

/// The head as it was at one moment; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HeadView {
    chunks: Vec<Chunk>,
}

impl HeadView {
    /// The batches, in the order of their offsets.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<HeadBatch>> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// How many batches there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}
