//! Decoded records as columns, the same from a batch and from a sealed block. It does not know which it came from.

use std::sync::Arc;

pub use crate::record::{Stream, Summary};

use crate::label::Labels;

/// Which columns to decode beside streams, offsets and timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// The lines.
    pub lines: bool,
    /// The structured metadata.
    pub metadata: bool,
}

impl Projection {
    /// Every column.
    pub const ALL: Self = Self { lines: true, metadata: true };
}

/// Records as columns. A batch's rows are in the order they were sent, a sealed block's by stream, time and offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub(super) streams: Arc<[Stream]>,
    pub(super) stream: Vec<u32>,
    pub(super) offset: Vec<u64>,
    pub(super) timestamp: Vec<i64>,
    pub(super) lines: Option<(Vec<u32>, String)>,
    pub(super) metadata: Option<Metadata>,
}

/// All fields of all rows; without `ends` no row has a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) names: Vec<Box<str>>,
    /// Per row: the end of its fields in `fields`.
    pub(super) ends: Vec<u32>,
    /// Per field: index of its name, end of its value in `values`.
    pub(super) fields: Vec<(u32, u32)>,
    pub(super) values: String,
}

impl Rows {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.timestamp.len()
    }

    /// Whether there is none; a block never has none.
    pub fn is_empty(&self) -> bool {
        self.timestamp.is_empty()
    }

    /// The distinct streams; [`Rows::stream_indexes`] points into them.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Per row the index of its stream in [`Rows::streams`].
    pub fn stream_indexes(&self) -> &[u32] {
        &self.stream
    }

    /// Per row its offset in the shard.
    pub fn offsets(&self) -> &[u64] {
        &self.offset
    }

    /// Per row its timestamp, in nanoseconds since the Unix epoch.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamp
    }

    /// The labels of a row's stream.
    pub fn stream(&self, row: usize) -> &Labels {
        &self.streams[self.stream[row] as usize].labels
    }

    /// The tenant of a row.
    pub fn tenant(&self, row: usize) -> &str {
        &self.streams[self.stream[row] as usize].tenant
    }

    /// The offset of a row.
    pub fn offset(&self, row: usize) -> u64 {
        self.offset[row]
    }

    /// The timestamp of a row, in nanoseconds since the Unix epoch.
    pub fn timestamp(&self, row: usize) -> i64 {
        self.timestamp[row]
    }

    /// The line of a row.
    ///
    /// # Panics
    /// Where lines were not in the projection.
    pub fn line(&self, row: usize) -> &str {
        let (ends, text) = self.lines.as_ref().expect("lines are in the projection");
        let start = if row == 0 { 0 } else { ends[row - 1] };
        &text[start as usize..ends[row] as usize]
    }

    /// All lines, one after the other without a separator, and per row the end of its line: for searching many at once.
    ///
    /// # Panics
    /// Where lines were not in the projection.
    pub fn text(&self) -> (&str, &[u32]) {
        let (ends, text) = self.lines.as_ref().expect("lines are in the projection");
        (text, ends)
    }

    /// The structured metadata of a row: name and value, in the order they were sent.
    ///
    /// # Panics
    /// Where metadata was not in the projection.
    pub fn metadata(&self, row: usize) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        let metadata = self.metadata.as_ref().expect("metadata is in the projection");
        let end = metadata.ends.get(row).map_or(0, |end| *end as usize);
        let start = if row == 0 { 0 } else { metadata.ends.get(row - 1).map_or(0, |end| *end as usize) };
        (start..end).map(move |at| {
            let (name, end) = metadata.fields[at];
            let start = if at == 0 { 0 } else { metadata.fields[at - 1].1 };
            (&*metadata.names[name as usize], &metadata.values[start as usize..end as usize])
        })
    }
}
