//! The container of both encodings: a header, a directory and frames, each with its own checksum, so that a reader
//! inflates only the columns it needs. It does not know what the columns mean.
//!
//! All numbers little-endian. Header, 64 bytes:
//!
//! ```text
//!  0 u32 magic "MPBK"      4 u8  version, 2         5 u8  kind: 0 batch, 1 sealed block
//!  6 u16 frames            8 u32 rows              12 u32 streams
//! 16 u64 lowest offset    24 u64 highest offset (batch: 0 and rows - 1, relative)
//! 32 i64 earliest time    40 i64 latest time       48 u64 raw bytes of lines and metadata
//! 56 u32 length of the whole block                 60 u32 crc32c of bytes 0..60 and the directory
//! ```
//!
//! Directory, 16 bytes a frame, in the order of the frames, which follow it without a gap:
//!
//! ```text
//!  0 u8  column            1 u8  codec: 0 as is, 1 zstd     2 u16 zero
//!  4 u32 stored bytes      8 u32 raw bytes (at most 1 MiB) 12 u32 crc32c of the stored bytes
//! ```
//!
//! A column is the concatenation of its frames, cut at any byte; [`super::column`] describes what is in each.
//!
//! Sealed blocks of version 1 hold their lines as batches do. They are read, and not written any more.

use std::cell::RefCell;

use bytes::Bytes;

use super::BlockError;
use crate::limits::{BATCH_RAW_BYTES_MAX, BLOCK_FRAME_RAW_BYTES_MAX, BLOCK_INFLATED_BYTES_MAX, BLOCK_ROWS_MAX};

const MAGIC: u32 = u32::from_le_bytes(*b"MPBK");
const VERSION: u8 = 2;
/// Without templates.
const VERSION_1: u8 = 1;
/// The kind of a block that is a batch; any other is sealed.
const BATCH: u8 = 0;
const HEAD: usize = 64;
const ENTRY: usize = 16;
/// Where the header's checksum lies.
const SUM: usize = 60;
/// Below this zstd's own header eats what it saves.
const COMPRESS_FROM: usize = 64;
const AS_IS: u8 = 0;
const ZSTD: u8 = 1;

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Column {
    Streams = 1,
    Runs = 2,
    Times = 3,
    Offsets = 4,
    Lengths = 5,
    Names = 6,
    Fields = 7,
    Values = 8,
    Lines = 9,
    Templates = 10,
    Kinds = 11,
    RawLengths = 12,
    Raw = 13,
    Shapes = 14,
    Numbers = 15,
    Words = 16,
    Indexes = 17,
    TextLengths = 18,
    Texts = 19,
}

impl Column {
    const ALL: [Self; 19] = [
        Self::Streams,
        Self::Runs,
        Self::Times,
        Self::Offsets,
        Self::Lengths,
        Self::Names,
        Self::Fields,
        Self::Values,
        Self::Lines,
        Self::Templates,
        Self::Kinds,
        Self::RawLengths,
        Self::Raw,
        Self::Shapes,
        Self::Numbers,
        Self::Words,
        Self::Indexes,
        Self::TextLengths,
        Self::Texts,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Runs => "runs",
            Self::Times => "times",
            Self::Offsets => "offsets",
            Self::Lengths => "lengths",
            Self::Names => "names",
            Self::Fields => "fields",
            Self::Values => "values",
            Self::Lines => "lines",
            Self::Templates => "templates",
            Self::Kinds => "kinds",
            Self::RawLengths => "raw lengths",
            Self::Raw => "raw",
            Self::Shapes => "shapes",
            Self::Numbers => "numbers",
            Self::Words => "words",
            Self::Indexes => "indexes",
            Self::TextLengths => "text lengths",
            Self::Texts => "texts",
        }
    }
}

/// The header's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) rows: u32,
    pub(super) streams: u32,
    pub(super) first_offset: u64,
    pub(super) last_offset: u64,
    pub(super) min_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) raw_bytes: u64,
}

#[derive(Clone, Debug)]
struct Frame {
    column: Column,
    codec: u8,
    at: usize,
    stored: usize,
    raw: usize,
    sum: u32,
}

/// A block whose header and directory are known to be right.
#[derive(Clone, Debug)]
pub(super) struct Container {
    bytes: Bytes,
    version: u8,
    pub(super) head: Head,
    frames: Vec<Frame>,
}

impl Container {
    /// Checks header and directory; looks at no frame.
    pub(super) fn open(bytes: Bytes, kind: u8) -> Result<Self, BlockError> {
        let cut = |need| BlockError::Cut { have: bytes.len(), need };
        let fixed: &[u8; HEAD] = bytes.first_chunk().ok_or(cut(HEAD))?;
        if u32_at(fixed, 0) != MAGIC {
            return Err(BlockError::NotABlock { kind });
        }
        let frames = usize::from(u16::from_le_bytes([fixed[6], fixed[7]]));
        let data = HEAD + frames * ENTRY;
        let directory = bytes.get(HEAD..data).ok_or(cut(data))?;
        if crc32c::crc32c_append(crc32c::crc32c(&fixed[..SUM]), directory) != u32_at(fixed, SUM) {
            return Err(BlockError::Checksum { part: "header" });
        }
        let version = fixed[4];
        if !(VERSION_1..=VERSION).contains(&version) {
            return Err(BlockError::Version { found: version, known: VERSION });
        }
        if fixed[5] != kind {
            return Err(BlockError::NotABlock { kind });
        }
        let len = usize::try_from(u32_at(fixed, 56)).map_err(|_| cut(usize::MAX))?;
        if len > bytes.len() {
            return Err(cut(len));
        }
        let head = Head {
            kind,
            rows: u32_at(fixed, 8),
            streams: u32_at(fixed, 12),
            first_offset: u64_at(fixed, 16),
            last_offset: u64_at(fixed, 24),
            min_timestamp: u64_at(fixed, 32).cast_signed(),
            max_timestamp: u64_at(fixed, 40).cast_signed(),
            raw_bytes: u64_at(fixed, 48),
        };
        let malformed = |part| BlockError::Malformed { part };
        if head.rows == 0 || head.rows as usize > BLOCK_ROWS_MAX || head.streams == 0 || head.streams > head.rows {
            return Err(malformed("rows and streams"));
        }
        if head.first_offset > head.last_offset || head.min_timestamp > head.max_timestamp {
            return Err(malformed("ranges"));
        }
        if len != bytes.len() {
            return Err(malformed("length"));
        }
        // It is only told, but heads and segments add it up.
        if head.raw_bytes > u64::from(head.rows) * BATCH_RAW_BYTES_MAX as u64 {
            return Err(malformed("raw bytes"));
        }
        let frames = read_directory(directory, data, len)?;
        Ok(Self { bytes, version, head, frames })
    }

    /// Whether its lines are held as templates and variables.
    pub(super) fn has_templates(&self) -> bool {
        self.head.kind != BATCH && self.version > VERSION_1
    }

    /// The bytes of a column, inflated; empty where the block has none.
    pub(super) fn column(&self, column: Column) -> Result<Vec<u8>, BlockError> {
        let frames = || self.frames.iter().filter(|frame| frame.column == column);
        let mut out = vec![0; frames().map(|frame| frame.raw).sum()];
        let mut rest = out.as_mut_slice();
        for frame in frames() {
            let stored = &self.bytes[frame.at..frame.at + frame.stored];
            if crc32c::crc32c(stored) != frame.sum && !mutant!(DamageServed) {
                return Err(BlockError::Checksum { part: column.name() });
            }
            let (into, after) = rest.split_at_mut(frame.raw);
            rest = after;
            inflate(frame.codec, stored, into).ok_or(BlockError::Malformed { part: column.name() })?;
        }
        Ok(out)
    }

    /// The block as it was written.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

fn read_directory(directory: &[u8], data: usize, len: usize) -> Result<Vec<Frame>, BlockError> {
    let malformed = BlockError::Malformed { part: "directory" };
    let (mut at, mut inflated) = (data, 0);
    let mut frames = Vec::with_capacity(directory.len() / ENTRY);
    for entry in directory.chunks_exact(ENTRY) {
        let column = Column::ALL.into_iter().find(|column| *column as u8 == entry[0]).ok_or(malformed.clone())?;
        let (stored, raw) = (u32_at(entry, 4) as usize, u32_at(entry, 8) as usize);
        inflated += raw;
        if raw > BLOCK_FRAME_RAW_BYTES_MAX || inflated > BLOCK_INFLATED_BYTES_MAX || stored > len - at {
            return Err(malformed);
        }
        frames.push(Frame { column, codec: entry[1], at, stored, raw, sum: u32_at(entry, 12) });
        at += stored;
    }
    if at == len { Ok(frames) } else { Err(malformed) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

thread_local! {
    /// A zstd context for reading. To make one costs more than to read a short frame, and every batch has short frames;
    /// nothing of one frame is left for the next.
    static INFLATE: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Reads a stored frame into as many bytes as it holds; `None` where it does not hold so many.
fn inflate(codec: u8, stored: &[u8], into: &mut [u8]) -> Option<()> {
    match codec {
        AS_IS if stored.len() == into.len() => into.copy_from_slice(stored),
        ZSTD => INFLATE.with_borrow_mut(|kept| {
            let mut context = match kept.take() {
                Some(context) => context,
                None => zstd::bulk::Decompressor::new().ok()?,
            };
            let read = context.decompress_to_buffer(stored, into).ok()?;
            *kept = Some(context);
            (read == into.len()).then_some(())
        })?,
        _ => return None,
    }
    Some(())
}

/// A zstd context for writing, used again for every block.
pub(super) struct Deflate(zstd::bulk::Compressor<'static>);

impl Deflate {
    /// A context of one compression level.
    pub(super) fn new(level: i32) -> Self {
        Self(zstd::bulk::Compressor::new(level).expect("a zstd context is only memory"))
    }

    /// Writes a block of these columns; empty columns are left out.
    ///
    /// # Panics
    /// Where the columns exceed `BLOCK_INFLATED_BYTES_MAX`, which the caller bounds.
    pub(super) fn block(&mut self, head: &Head, columns: &[(Column, &[u8])]) -> Vec<u8> {
        let inflated: usize = columns.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(inflated <= BLOCK_INFLATED_BYTES_MAX, "a block of {inflated} bytes is beyond its bound");
        let frames: usize = columns.iter().map(|(_, bytes)| bytes.len().div_ceil(BLOCK_FRAME_RAW_BYTES_MAX)).sum();
        let mut out = Vec::with_capacity(HEAD + frames * ENTRY + inflated / 2);
        out.resize(HEAD + frames * ENTRY, 0);
        let pieces = columns
            .iter()
            .flat_map(|(column, bytes)| bytes.chunks(BLOCK_FRAME_RAW_BYTES_MAX).map(move |piece| (*column, piece)));
        for (at, (column, piece)) in pieces.enumerate() {
            let start = out.len();
            let codec = self.append(piece, &mut out);
            let entry = &mut out[HEAD + at * ENTRY..];
            entry[0] = column as u8;
            entry[1] = codec;
            entry[8..12].copy_from_slice(&size(piece.len()));
            let (stored, sum) = (out.len() - start, crc32c::crc32c(&out[start..]));
            let entry = &mut out[HEAD + at * ENTRY..];
            entry[4..8].copy_from_slice(&size(stored));
            entry[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        write_head(head, frames, &mut out);
        out
    }

    fn append(&mut self, piece: &[u8], out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        if piece.len() >= COMPRESS_FROM {
            out.resize(start + zstd::zstd_safe::compress_bound(piece.len()), 0);
            let stored = self.0.compress_to_buffer(piece, &mut out[start..]).expect("the buffer holds the worst case");
            if stored < piece.len() - piece.len() / 16 {
                out.truncate(start + stored);
                return ZSTD;
            }
            out.truncate(start);
        }
        out.extend_from_slice(piece);
        AS_IS
    }
}

fn write_head(head: &Head, frames: usize, out: &mut [u8]) {
    let len = size(out.len());
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4] = VERSION;
    out[5] = head.kind;
    let frames = u16::try_from(frames).expect("64 MiB are far below 65,536 frames");
    out[6..8].copy_from_slice(&frames.to_le_bytes());
    out[8..12].copy_from_slice(&head.rows.to_le_bytes());
    out[12..16].copy_from_slice(&head.streams.to_le_bytes());
    out[16..24].copy_from_slice(&head.first_offset.to_le_bytes());
    out[24..32].copy_from_slice(&head.last_offset.to_le_bytes());
    out[32..40].copy_from_slice(&head.min_timestamp.to_le_bytes());
    out[40..48].copy_from_slice(&head.max_timestamp.to_le_bytes());
    out[48..56].copy_from_slice(&head.raw_bytes.to_le_bytes());
    out[56..60].copy_from_slice(&len);
    let directory = &out[HEAD..HEAD + usize::from(frames) * ENTRY];
    let sum = crc32c::crc32c_append(crc32c::crc32c(&out[..SUM]), directory);
    out[SUM..HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn size(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("bounded by BLOCK_INFLATED_BYTES_MAX").to_le_bytes()
}

/// The block with another content of one column, under right checksums.
#[cfg(test)]
pub(super) fn replace_column(bytes: Bytes, kind: u8, column: usize, content: &[u8]) -> Bytes {
    let block = Container::open(bytes, kind).expect("a good block");
    let columns = Column::ALL.map(|column| block.column(column).expect("a good column"));
    let mut columns: Vec<(Column, &[u8])> = Column::ALL.into_iter().zip(columns.iter().map(Vec::as_slice)).collect();
    columns[column].1 = content;
    Deflate::new(1).block(&block.head, &columns).into()
}

/// How many kinds of columns there are.
#[cfg(test)]
pub(super) const COLUMNS: usize = Column::ALL.len();

/// A sealed block as version 1 wrote it.
#[cfg(test)]
pub(super) fn as_version_1(bytes: Bytes, lines: &[&str]) -> Bytes {
    let block = Container::open(bytes, 1).expect("a good block");
    let mut lengths = Vec::new();
    lines.iter().for_each(|line| super::column::put(&mut lengths, line.len() as u64));
    let mut columns = Column::ALL.map(|column| block.column(column).expect("a good column"));
    columns[Column::Templates as usize - 1..].iter_mut().for_each(Vec::clear);
    columns[Column::Lengths as usize - 1] = lengths;
    columns[Column::Lines as usize - 1] = lines.concat().into_bytes();
    let columns: Vec<(Column, &[u8])> = Column::ALL.into_iter().zip(columns.iter().map(Vec::as_slice)).collect();
    with_head(Deflate::new(1).block(&block.head, &columns).into(), 4, &[VERSION_1])
}

/// The block with other bytes in its header, under a right checksum.
#[cfg(test)]
pub(super) fn with_head(bytes: Bytes, at: usize, head: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at..at + head.len()].copy_from_slice(head);
    let end = HEAD + usize::from(u16::from_le_bytes([bytes[6], bytes[7]])) * ENTRY;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..SUM]), &bytes[HEAD..end]);
    bytes[SUM..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}
