//! Decoded records as columns, the same from a batch and from a sealed block. It does not know which it came from.

use std::sync::Arc;

pub use crate::record::{Stream, Summary};

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_128;

use super::BlockError;
use super::text::{Text, mark_pieces};
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
    /// The end of each line, and the lines one after the other.
    pub(super) lines: Option<Arc<(Vec<u32>, String)>>,
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

/// Lines are searched one by one where so many times more are not asked for.
const FEW_ROWS: usize = 4;

/// The lines of a block before they are read: what they hold is found without writing them all out.
#[derive(Debug)]
pub struct Lines(Kept);

#[derive(Debug)]
enum Kept {
    Whole(Arc<(Vec<u32>, String)>),
    Templates(Box<Text>),
}

impl Lines {
    pub(super) fn whole(lines: (Vec<u32>, String)) -> Self {
        Self(Kept::Whole(lines.into()))
    }

    pub(super) fn templates(text: Text) -> Self {
        Self(Kept::Templates(Box::new(text)))
    }

    /// Keeps of `rows`, ascending, those whose line holds a text, or those whose line does not.
    pub fn retain(&self, text: &Finder<'_>, holds: bool, rows: &mut Vec<u32>) {
        if text.needle().is_empty() {
            rows.retain(|_| holds);
            return;
        }
        match &self.0 {
            Kept::Templates(lines) => lines.retain(text, holds, rows),
            Kept::Whole(whole) => {
                let (ends, lines) = &**whole;
                let mut held = vec![false; ends.len()];
                if rows.len() * FEW_ROWS < ends.len() {
                    for row in &*rows {
                        let start = if *row == 0 { 0 } else { ends[*row as usize - 1] };
                        let line = &lines.as_bytes()[start as usize..ends[*row as usize] as usize];
                        held[*row as usize] = text.find(line).is_some();
                    }
                } else {
                    mark_pieces(text, lines.as_bytes(), 0, ends, |row| held[row] = true);
                }
                rows.retain(|row| held[*row as usize] == holds);
            }
        }
    }
}

impl Rows {
    /// Reads the lines of some rows, ascending; those of the others may be empty from then on.
    ///
    /// # Errors
    /// Where what is stored is no text.
    pub fn read_lines(&mut self, lines: &Lines, rows: &[u32]) -> Result<(), BlockError> {
        self.lines = Some(match &lines.0 {
            Kept::Whole(whole) => Arc::clone(whole),
            Kept::Templates(lines) => lines.lines(self.len(), rows.iter().map(|row| *row as usize))?.into(),
        });
        Ok(())
    }

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
        let (ends, text) = &**self.lines.as_ref().expect("lines are in the projection");
        let start = if row == 0 { 0 } else { ends[row - 1] };
        &text[start as usize..ends[row] as usize]
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

    /// Only these rows, in this order.
    pub(crate) fn pick(&self, picked: &[usize]) -> Self {
        let lines = self.lines.as_ref().map(|_| {
            let mut text = String::with_capacity(picked.iter().map(|row| self.line(*row).len()).sum());
            let ends = picked.iter().map(|row| {
                text.push_str(self.line(*row));
                end(text.len())
            });
            Arc::new((ends.collect(), text))
        });
        let metadata = self.metadata.as_ref().map(|all| {
            let mut metadata = Metadata { names: all.names.clone(), ..Metadata::default() };
            for row in picked.iter().filter(|_| !all.ends.is_empty()) {
                let start = if *row == 0 { 0 } else { all.ends[row - 1] };
                let fields = &all.fields[start as usize..all.ends[*row] as usize];
                for ((name, _), (_, value)) in fields.iter().zip(self.metadata(*row)) {
                    metadata.values.push_str(value);
                    metadata.fields.push((*name, end(metadata.values.len())));
                }
                metadata.ends.push(end(metadata.fields.len()));
            }
            metadata
        });
        Self {
            streams: self.streams.clone(),
            stream: picked.iter().map(|row| self.stream[*row]).collect(),
            offset: picked.iter().map(|row| self.offset[*row]).collect(),
            timestamp: picked.iter().map(|row| self.timestamp[*row]).collect(),
            lines,
            metadata,
        }
    }

    /// The wrapping sum over the rows of xxh3-128 of: xxh3-128 of the stream's stored form, u64 offset, i64
    /// timestamp, u32 length and bytes of the line, and of each metadata field u32 length and bytes of name and
    /// value; little-endian. It does not depend on the order of rows.
    ///
    /// # Panics
    /// Where lines or metadata were not in the projection.
    pub fn digest(&self) -> u128 {
        let mut bytes = Vec::new();
        let streams: Vec<u128> = self
            .streams
            .iter()
            .map(|stream| {
                bytes.clear();
                stream.encode_to(&mut bytes);
                xxh3_128(&bytes)
            })
            .collect();
        let mut sum = 0_u128;
        for row in 0..self.len() {
            bytes.clear();
            bytes.extend_from_slice(&streams[self.stream[row] as usize].to_le_bytes());
            bytes.extend_from_slice(&self.offset[row].to_le_bytes());
            bytes.extend_from_slice(&self.timestamp[row].to_le_bytes());
            let fields = self.metadata(row).flat_map(|(name, value)| [name, value]);
            for text in std::iter::once(self.line(row)).chain(fields) {
                bytes.extend_from_slice(&end(text.len()).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            sum = sum.wrapping_add(xxh3_128(&bytes));
        }
        sum
    }
}

fn end(len: usize) -> u32 {
    u32::try_from(len).expect("bounded by BLOCK_INFLATED_BYTES_MAX")
}
