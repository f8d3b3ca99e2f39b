//! The columns of a block: from rows and back. It does not know in which order rows come, nor how bytes are framed.
//!
//! A varint is LEB128, a signed number is zigzag-coded before. Per column, with the number that its frames have:
//!
//! ```text
//! 1 streams  each stream as crate::record::Stream writes it
//! 2 runs     pairs of varints: index of a stream, rows that follow of it; in the order of the rows
//! 3 times    per row: signed varint, difference to the row before (the first: to 0), wrapping
//! 4 offsets  per row: the same of offsets; sealed blocks only
//! 5 lengths  per row: varint, bytes of the line; batches only
//! 6 names    per distinct metadata name: varint length and bytes
//! 7 fields   per row: varint number of fields, and of each two varints: index of its name, bytes of its value
//! 8 values   the metadata values, one after the other
//! 9 lines    the lines, one after the other; batches only
//! 10 to 19   the lines of a sealed block, as [`super::text`] describes
//! ```
//!
//! Names, fields and values are left out where no row has metadata.

use std::collections::BTreeMap;

use super::BlockError;
use super::frame::{Column, Container, Deflate, Head};
use super::rows::{Lines, Metadata, Projection, Rows};
use super::text::{Text, TextEncoder};
use crate::limits::{BLOCK_ROWS_MAX, METADATA_FIELDS_MAX};
use crate::record::Stream;

/// Columns that are being filled; used again for every block.
#[derive(Default)]
pub(super) struct Columns {
    runs: Vec<u8>,
    times: Vec<u8>,
    offsets: Vec<u8>,
    lengths: Vec<u8>,
    fields: Vec<u8>,
    values: Vec<u8>,
    lines: Vec<u8>,
    /// In a sealed block, instead of lengths and lines.
    text: TextEncoder,
    names: BTreeMap<Box<[u8]>, u64>,
    name_bytes: Vec<u8>,
    run: Option<(u32, u64)>,
    streams_used: u32,
    last: (i64, u64),
    is_sealed: bool,
    span: Option<(i64, i64, u64, u64)>,
    rows: u32,
    raw: u64,
}

impl Columns {
    /// Columns of a sealed block, which hold offsets and templates; or of a batch, whose offsets follow from the first row's.
    pub(super) fn new(is_sealed: bool) -> Self {
        Self { is_sealed, ..Self::default() }
    }

    /// Adds a row of the stream with this index.
    pub(super) fn push<'a>(
        &mut self,
        stream: u32,
        offset: u64,
        timestamp: i64,
        line: &[u8],
        metadata: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        self.run = match self.run {
            Some((current, rows)) if current == stream => Some((current, rows + 1)),
            other => {
                self.end_run(other);
                Some((stream, 1))
            }
        };
        self.streams_used = self.streams_used.max(stream + 1);
        put_signed(&mut self.times, timestamp.wrapping_sub(self.last.0));
        if self.is_sealed {
            put_signed(&mut self.offsets, offset.wrapping_sub(self.last.1).cast_signed());
        }
        self.last = (timestamp, offset);
        self.span = Some(match self.span {
            None => (timestamp, timestamp, offset, offset),
            Some((early, late, low, high)) => {
                (early.min(timestamp), late.max(timestamp), low.min(offset), high.max(offset))
            }
        });
        if self.is_sealed {
            self.text.push(line);
        } else {
            put(&mut self.lengths, line.len() as u64);
            self.lines.extend_from_slice(line);
        }
        self.raw += line.len() as u64;
        put(&mut self.fields, metadata.len() as u64);
        for (name, value) in metadata {
            self.push_field(name, value);
        }
        self.rows += 1;
    }

    fn push_field(&mut self, name: &[u8], value: &[u8]) {
        let id = match self.names.get(name) {
            Some(id) => *id,
            None => {
                let id = self.names.len() as u64;
                self.names.insert(name.into(), id);
                put(&mut self.name_bytes, name.len() as u64);
                self.name_bytes.extend_from_slice(name);
                id
            }
        };
        put(&mut self.fields, id);
        put(&mut self.fields, value.len() as u64);
        self.values.extend_from_slice(value);
        self.raw += (name.len() + value.len()) as u64;
    }

    fn end_run(&mut self, run: Option<(u32, u64)>) {
        if let Some((stream, rows)) = run {
            put(&mut self.runs, u64::from(stream));
            put(&mut self.runs, rows);
        }
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Raw bytes of lines and metadata so far.
    pub(super) fn raw_bytes(&self) -> u64 {
        self.raw
    }

    /// Writes the block and empties the columns.
    ///
    /// # Panics
    /// Where there is no row or more than `BLOCK_ROWS_MAX`, or a stream index without a stream.
    pub(super) fn finish(&mut self, kind: u8, streams: &[Stream], deflate: &mut Deflate) -> Vec<u8> {
        assert!(self.rows as usize <= BLOCK_ROWS_MAX, "a block of {} rows is beyond its bound", self.rows);
        assert!(self.streams_used as usize <= streams.len(), "a row names a stream that the block lacks");
        let (min_timestamp, max_timestamp, first_offset, last_offset) = self.span.expect("a block holds a row");
        let run = self.run.take();
        self.end_run(run);
        let mut stream_bytes = Vec::new();
        for stream in streams {
            stream.encode_to(&mut stream_bytes);
        }
        let head = Head {
            kind,
            rows: self.rows,
            streams: u32::try_from(streams.len()).expect("no more streams than rows"),
            first_offset,
            last_offset,
            min_timestamp,
            max_timestamp,
            raw_bytes: self.raw,
        };
        let mut columns: Vec<(Column, &[u8])> =
            vec![(Column::Streams, &stream_bytes), (Column::Runs, &self.runs), (Column::Times, &self.times)];
        if self.is_sealed {
            columns.push((Column::Offsets, &self.offsets));
        }
        if !self.names.is_empty() {
            columns.push((Column::Names, &self.name_bytes));
            columns.push((Column::Fields, &self.fields));
            columns.push((Column::Values, &self.values));
        }
        if self.is_sealed {
            columns.extend(self.text.write());
        } else {
            columns.extend([(Column::Lengths, self.lengths.as_slice()), (Column::Lines, &self.lines)]);
        }
        let block = deflate.block(&head, &columns);
        self.clear();
        block
    }

    fn clear(&mut self) {
        for column in [
            &mut self.runs,
            &mut self.times,
            &mut self.offsets,
            &mut self.lengths,
            &mut self.fields,
            &mut self.values,
            &mut self.lines,
            &mut self.name_bytes,
        ] {
            column.clear();
        }
        self.text.clear();
        self.names.clear();
        (self.run, self.streams_used, self.last, self.span, self.rows, self.raw) = (None, 0, (0, 0), None, 0, 0);
    }
}

/// The streams of a block.
pub(super) fn streams(block: &Container) -> Result<Vec<Stream>, BlockError> {
    let bytes = block.column(Column::Streams)?;
    let mut rest = bytes.as_slice();
    let malformed = || BlockError::Malformed { part: "streams" };
    let mut streams = Vec::new();
    for _ in 0..block.head.streams {
        streams.push(Stream::decode_from(&mut rest).ok_or_else(malformed)?);
    }
    if rest.is_empty() { Ok(streams) } else { Err(malformed()) }
}

/// Decodes the rows of a block. `base` is the offset of the first row where the block has no offsets of its own.
pub(super) fn rows(
    block: &Container,
    streams: &std::sync::Arc<[Stream]>,
    base: Option<u64>,
    projection: Projection,
) -> Result<Rows, BlockError> {
    let rows = block.head.rows as usize;
    let malformed = |part| BlockError::Malformed { part };
    let runs = block.column(Column::Runs)?;
    let stream = read_runs(&runs, rows, streams.len()).ok_or(malformed("runs"))?;
    let times = block.column(Column::Times)?;
    let timestamp = read_deltas(&times, rows).ok_or(malformed("times"))?;
    let offset = match base {
        Some(base) => (0..rows as u64)
            .map(|row| base.checked_add(row))
            .collect::<Option<Vec<u64>>>()
            .ok_or(malformed("offsets"))?,
        None => {
            let offsets = block.column(Column::Offsets)?;
            let offsets = read_deltas(&offsets, rows).ok_or(malformed("offsets"))?;
            offsets.into_iter().map(i64::cast_unsigned).collect()
        }
    };
    check_span(&block.head, &timestamp, base.is_none().then_some(offset.as_slice()))?;
    let mut decoded = Rows { streams: streams.clone(), stream, offset, timestamp, lines: None, metadata: None };
    if projection.lines {
        let lines = if block.has_templates() { Text::open(block)?.lines(rows, 0..rows)? } else { read_lines(block)? };
        decoded.lines = Some(lines.into());
    }
    if projection.metadata {
        read_metadata(block, &mut decoded)?;
    }
    Ok(decoded)
}

/// Adds the metadata to rows of this block.
pub(super) fn read_metadata(block: &Container, rows: &mut Rows) -> Result<(), BlockError> {
    let malformed = |part| BlockError::Malformed { part };
    let names = block.column(Column::Names)?;
    let fields = block.column(Column::Fields)?;
    let values = block.column(Column::Values)?;
    let values = String::from_utf8(values).map_err(|_| malformed("values"))?;
    let read = if fields.is_empty() && names.is_empty() && values.is_empty() {
        Some(Metadata::default())
    } else {
        read_fields(&names, &fields, values, rows.len())
    };
    rows.metadata = Some(read.ok_or(malformed("fields"))?);
    Ok(())
}

/// The lines of a block, to be searched before they are read.
pub(super) fn lines(block: &Container) -> Result<Lines, BlockError> {
    if block.has_templates() { Ok(Lines::templates(Text::open(block)?)) } else { Ok(Lines::whole(read_lines(block)?)) }
}

/// The lines of a block without templates, one after the other, and the end of each.
fn read_lines(block: &Container) -> Result<(Vec<u32>, String), BlockError> {
    let malformed = |part| BlockError::Malformed { part };
    let lengths = block.column(Column::Lengths)?;
    let text = String::from_utf8(block.column(Column::Lines)?).map_err(|_| malformed("lines"))?;
    let ends = read_ends(&lengths, block.head.rows as usize, &text).ok_or(malformed("lengths"))?;
    Ok((ends, text))
}

/// A header is what readers skip by, so it must not lie about the rows.
fn check_span(head: &Head, timestamps: &[i64], offsets: Option<&[u64]>) -> Result<(), BlockError> {
    let times = timestamps.iter().min().zip(timestamps.iter().max());
    if times != Some((&head.min_timestamp, &head.max_timestamp)) {
        return Err(BlockError::Malformed { part: "times" });
    }
    match offsets {
        Some(offsets)
            if offsets.iter().min().zip(offsets.iter().max()) != Some((&head.first_offset, &head.last_offset)) =>
        {
            Err(BlockError::Malformed { part: "offsets" })
        }
        Some(_) | None => Ok(()),
    }
}

fn read_runs(bytes: &[u8], rows: usize, streams: usize) -> Option<Vec<u32>> {
    let mut reader = Reader(bytes);
    let mut out = Vec::with_capacity(rows);
    while !reader.0.is_empty() {
        let stream = usize::try_from(reader.varint()?).ok().filter(|stream| *stream < streams)?;
        let run = usize::try_from(reader.varint()?).ok().filter(|run| *run > 0 && *run <= rows - out.len())?;
        out.resize(out.len() + run, u32::try_from(stream).ok()?);
    }
    (out.len() == rows).then_some(out)
}

fn read_deltas(bytes: &[u8], rows: usize) -> Option<Vec<i64>> {
    let mut reader = Reader(bytes);
    let mut out = Vec::with_capacity(rows);
    let mut last = 0_i64;
    for _ in 0..rows {
        last = last.wrapping_add(reader.signed()?);
        out.push(last);
    }
    reader.0.is_empty().then_some(out)
}

/// Where each line ends, all of the text being lines.
fn read_ends(bytes: &[u8], rows: usize, text: &str) -> Option<Vec<u32>> {
    let ends = read_lengths(bytes, rows)?;
    let fits = ends.iter().all(|end| text.is_char_boundary(*end as usize));
    (fits && ends.last().map_or(0, |end| *end as usize) == text.len()).then_some(ends)
}

/// Where each of so many texts ends that stand one after the other, from their lengths.
pub(super) fn read_lengths(bytes: &[u8], count: usize) -> Option<Vec<u32>> {
    let mut reader = Reader(bytes);
    let mut end = 0_u32;
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        end = end.checked_add(u32::try_from(reader.varint()?).ok()?)?;
        ends.push(end);
    }
    reader.0.is_empty().then_some(ends)
}

fn read_fields(names: &[u8], fields: &[u8], values: String, rows: usize) -> Option<Metadata> {
    let mut reader = Reader(names);
    let mut out = Metadata { values, ..Metadata::default() };
    while !reader.0.is_empty() {
        let len = usize::try_from(reader.varint()?).ok()?;
        out.names.push(std::str::from_utf8(reader.take(len)?).ok()?.into());
    }
    let mut reader = Reader(fields);
    let mut end = 0_u32;
    out.ends.reserve(rows);
    for _ in 0..rows {
        for _ in 0..reader.varint()? {
            let name = u32::try_from(reader.varint()?).ok().filter(|name| (*name as usize) < out.names.len())?;
            end = end.checked_add(u32::try_from(reader.varint()?).ok()?)?;
            if !out.values.is_char_boundary(end as usize) {
                return None;
            }
            out.fields.push((name, end));
        }
        out.ends.push(u32::try_from(out.fields.len()).ok()?);
    }
    (reader.0.is_empty() && end as usize == out.values.len()).then_some(out)
}

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Option<u64> {
        // Most lengths, runs and differences of sorted times are one byte.
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }
}

const _: () = assert!(METADATA_FIELDS_MAX * BLOCK_ROWS_MAX < u32::MAX as usize);
