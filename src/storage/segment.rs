//! A sealed segment: a file of immutable blocks and their index, written once. This file does not know what is in a
//! block: the writer is told what each spans, and a reader gets back the bytes that were written or an error.
//!
//! `shards/<shard>/<from>-<to>.blocks`, all numbers little-endian:
//!
//! ```text
//! head    16 bytes: u32 magic "MPSG", u8 version 1, three zero bytes, u32 shard, u32 crc32c of the 12 bytes before
//! blocks  one after the other, without a gap
//! index   u32 streams, and each stream as crate::record::Stream writes it; u32 blocks, and of each:
//!           u64 position in the file   u32 length                    u64 xxh3-64 of its bytes
//!           u64 lowest offset          u64 highest offset            u64 rows
//!           i64 earliest time          i64 latest time               u64 raw bytes
//!           u32 streams, and of each the u32 index of the stream above, ascending
//! foot    56 bytes: u64 position of the index, u64 its length, u128 digest of the records,
//!         u128 xxh3-128 of head, index and the foot up to here, u32 zero, u32 magic "MPSF"
//! ```
//!
//! It is written under a temporary name, synced, renamed and its folder synced: a file of that name is whole. A block
//! is verified at every read, the index when the file is opened, the whole file by [`Segment::verify`]. A segment that
//! cannot be opened has a stand-in, [`Segment::lost`], so that what it held is missed loudly and only where it is asked for.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::disk::{Disk, DiskFile, OpenMode, is_sync_due, remove_if_there, remove_unless_leased};
use crate::class::Class;
use crate::entry::{SegmentMeta, segment_offsets};
use crate::id::{Offset, ShardId};
use crate::limits::{BLOCK_INFLATED_BYTES_MAX, SEGMENT_INDEX_BYTES_MAX};
use crate::record::{Stream, Summary};

const HEAD: usize = 16;
const FOOT: usize = 56;
/// Where the foot's checksum lies.
const SUM: usize = 32;
const MAGIC: &[u8; 4] = b"MPSG";
const MAGIC_END: &[u8; 4] = b"MPSF";
const VERSION: u8 = 1;
const READ_BYTES: usize = 1 << 20;

/// What can go wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk refused an operation.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder, relative to the data folder.
        file: String,
        /// The disk's own words.
        source: io::Error,
    },
    /// One block's bytes are not what was written. Read its offsets from another replica.
    #[error("{file} is damaged in block {block} at byte {position}: {range} must come from another replica")]
    DamagedBlock {
        /// The file, relative to the data folder.
        file: String,
        /// Which block.
        block: usize,
        /// Where it starts in the file.
        position: u64,
        /// What was in it.
        range: LostRange,
    },
    /// The segment could not be opened when its replica started.
    #[error("{file} could not be opened ({why}): {range} must come from another replica")]
    Lost {
        /// The file, relative to the data folder.
        file: String,
        /// What was found.
        why: Arc<str>,
        /// What is in it.
        range: LostRange,
    },
    /// Something else than a block's bytes is not what was written.
    #[error("{file} is damaged: {part}. It must be copied from another replica")]
    Damaged {
        /// The file, relative to the data folder.
        file: String,
        /// What does not fit.
        part: &'static str,
    },
    /// Written by a newer version.
    #[error("{file} has version {found}; this version reads {VERSION}: upgrade this node")]
    Version {
        /// The file, relative to the data folder.
        file: String,
        /// The version found.
        found: u8,
    },
}

impl SegmentError {
    /// Damage is repaired from another replica; what the disk refuses, an operator must see.
    pub fn class(&self) -> Class {
        match self {
            Self::DamagedBlock { .. } | Self::Lost { .. } | Self::Damaged { .. } => Class::Retry,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Class::Retry,
            Self::Io { .. } | Self::Version { .. } => Class::Fatal,
        }
    }

    /// Whether the file is not what a manifest says: changed, cut short or gone. Another replica's copy mends it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::DamagedBlock { .. } | Self::Lost { .. } | Self::Damaged { .. } => true,
            Self::Io { source, .. } => matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof),
            Self::Version { .. } => false,
        }
    }
}

/// What a damaged part of a segment held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRange {
    /// The lowest offset.
    pub first: Offset,
    /// The highest offset.
    pub last: Offset,
    /// The earliest time, in nanoseconds since the Unix epoch.
    pub earliest: i64,
    /// The latest time.
    pub latest: i64,
}

impl LostRange {
    fn of(summary: &Summary) -> Self {
        Self {
            first: Offset(summary.first_offset),
            last: Offset(summary.last_offset),
            earliest: summary.min_timestamp,
            latest: summary.max_timestamp,
        }
    }
}

impl fmt::Display for LostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, earliest, latest } = self;
        write!(f, "offsets {first} to {last}, times {earliest} to {latest}")
    }
}

/// The folder of a shard, relative to the data folder.
pub fn folder(shard: ShardId) -> String {
    if shard == ShardId::METADATA { "metadata".to_owned() } else { format!("shards/{}", shard.0) }
}

fn failed<'a>(action: &'static str, file: &'a str) -> impl FnOnce(io::Error) -> SegmentError + 'a {
    move |source| SegmentError::Io { action, file: file.to_owned(), source }
}

/// What the index says of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// What it spans.
    pub summary: Summary,
    position: u64,
    len: u32,
    sum: u64,
    streams: Box<[u32]>,
}

impl BlockEntry {
    /// Its bytes on the disk.
    pub fn bytes(&self) -> u32 {
        self.len
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub struct SegmentWriter<'a> {
    disk: &'a dyn Disk,
    shard: ShardId,
    temporary: String,
    file: Arc<dyn DiskFile>,
    head: [u8; HEAD],
    position: u64,
    hash: Box<Xxh3Debug>,
    streams: std::collections::BTreeMap<Stream, u32>,
    blocks: Vec<BlockEntry>,
}

/// The running hash of the file; it has no `Debug` of its own.
#[derive(Default)]
struct Xxh3Debug(Xxh3);

impl fmt::Debug for Xxh3Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xxh3")
    }
}

impl<'a> SegmentWriter<'a> {
    /// Starts the segment whose first record has the offset `from`. One that was left unfinished is dropped.
    pub fn create(disk: &'a dyn Disk, shard: ShardId, from: Offset) -> Result<Self, SegmentError> {
        let folder = folder(shard);
        disk.make_folder(&folder).map_err(failed("make", &folder))?;
        let temporary = format!("{folder}/{:020}.blocks.tmp", from.0);
        remove_if_there(disk, &temporary).map_err(failed("remove", &temporary))?;
        let file = disk.open(&temporary, OpenMode::CreateNew).map_err(failed("create", &temporary))?;
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(MAGIC);
        head[4] = VERSION;
        head[8..12].copy_from_slice(&shard.0.to_le_bytes());
        let sum = crc32c::crc32c(&head[..12]);
        head[12..].copy_from_slice(&sum.to_le_bytes());
        let (hash, streams) = (Box::default(), std::collections::BTreeMap::new());
        let mut writer = Self { disk, shard, temporary, file, head, position: 0, hash, streams, blocks: Vec::new() };
        writer.append(&head)?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.file.write_at(self.position, &[bytes]).map_err(failed("write", &self.temporary))?;
        if is_sync_due(self.position, bytes.len()) {
            self.sync()?;
        }
        self.hash.0.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends a block and what it spans.
    ///
    /// # Panics
    /// Where the block is larger than a block may be.
    pub fn push(&mut self, block: &[u8], summary: Summary, streams: &[Stream]) -> Result<(), SegmentError> {
        assert!(block.len() <= BLOCK_INFLATED_BYTES_MAX, "a block of {} bytes", block.len());
        let position = self.position;
        self.append(block)?;
        let mut ids: Vec<u32> = streams
            .iter()
            .map(|stream| match self.streams.get(stream) {
                Some(id) => *id,
                None => {
                    let id = u32::try_from(self.streams.len()).expect("bounded by the shard's streams");
                    self.streams.insert(stream.clone(), id);
                    id
                }
            })
            .collect();
        ids.sort_unstable();
        let len = u32::try_from(block.len()).expect("asserted above");
        self.blocks.push(BlockEntry { summary, position, len, sum: xxh3_64(block), streams: ids.into() });
        Ok(())
    }

    fn sync(&self) -> Result<(), SegmentError> {
        if mutant!(SegmentUnsynced) {
            return Ok(());
        }
        self.file.sync().map_err(failed("sync", &self.temporary))
    }

    /// Writes the index and makes the file durable under its name. `digest` is that of the records in the blocks.
    ///
    /// # Panics
    /// Where no block was pushed.
    pub fn finish(mut self, digest: u128) -> Result<SegmentMeta, SegmentError> {
        let summaries = || self.blocks.iter().map(|block| block.summary);
        let mut meta = SegmentMeta {
            from: Offset(summaries().map(|summary| summary.first_offset).min().expect("a segment holds a block")),
            to: Offset(summaries().map(|summary| summary.last_offset).max().expect("a segment holds a block")),
            bytes: 0,
            hash: 0,
            digest,
            min_timestamp: summaries().map(|summary| summary.min_timestamp).min().expect("a segment holds a block"),
            max_timestamp: summaries().map(|summary| summary.max_timestamp).max().expect("a segment holds a block"),
            raw_bytes: summaries().map(|summary| summary.raw_bytes).sum(),
        };
        let index = encode_index(&self.streams, &self.blocks);
        let mut foot = Vec::with_capacity(FOOT);
        foot.extend_from_slice(&self.position.to_le_bytes());
        foot.extend_from_slice(&(index.len() as u64).to_le_bytes());
        foot.extend_from_slice(&digest.to_le_bytes());
        let sum = index_sum(&self.head, &index, &foot);
        foot.extend_from_slice(&sum.to_le_bytes());
        foot.extend_from_slice(&[0; 4]);
        foot.extend_from_slice(MAGIC_END);
        self.append(&index)?;
        self.append(&foot)?;
        (meta.bytes, meta.hash) = (self.position, self.hash.0.digest128());

        self.sync()?;
        let folder = folder(self.shard);
        let path = format!("{folder}/{}", meta.name());
        self.disk.rename(&self.temporary, &path).map_err(failed("rename", &self.temporary))?;
        self.disk.sync_folder(&folder).map_err(failed("sync", &folder))?;
        Ok(meta)
    }
}

/// Removes what no manifest names: segments whose sealing did not get registered, and unfinished ones. What is leased
/// stays until the next time.
pub fn remove_unregistered(disk: &dyn Disk, shard: ShardId, segments: &[SegmentMeta]) -> Result<(), SegmentError> {
    let folder = folder(shard);
    let known: std::collections::BTreeSet<String> = segments.iter().map(SegmentMeta::name).collect();
    for name in disk.list(&folder).map_err(failed("list", &folder))? {
        let segment = name.ends_with(".blocks") || name.ends_with(".blocks.tmp");
        if segment && !known.contains(&name) {
            let path = format!("{folder}/{name}");
            remove_unless_leased(disk, &path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Removes the segments that end below an offset: retention is through with them, and the newest snapshot does not name
/// them. Answers how many stay because they are leased, until the next time.
pub fn remove_below(disk: &dyn Disk, shard: ShardId, first: Offset) -> Result<usize, SegmentError> {
    let folder = folder(shard);
    let mut leased = 0;
    for name in disk.list(&folder).map_err(failed("list", &folder))? {
        if segment_offsets(&name).is_some_and(|(_, to)| to < first) {
            let path = format!("{folder}/{name}");
            match remove_if_there(disk, &path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => leased += 1,
                outcome => outcome.map_err(failed("remove", &path))?,
            }
        }
    }
    Ok(leased)
}

#[derive(Clone, Debug)]
enum Body {
    Open(Arc<dyn DiskFile>),
    /// Why it could not be opened.
    Lost(Arc<str>),
}

/// A segment that is open for reading, or the stand-in of one. Cheap to clone; of the file it holds only the index.
#[derive(Clone, Debug)]
pub struct Segment {
    path: Arc<str>,
    body: Body,
    meta: SegmentMeta,
    streams: Arc<[Stream]>,
    blocks: Arc<[BlockEntry]>,
}

impl Segment {
    /// Opens the file that a manifest names, and verifies its index.
    pub fn open(disk: &dyn Disk, shard: ShardId, meta: &SegmentMeta) -> Result<Self, SegmentError> {
        let path = format!("{}/{}", folder(shard), meta.name());
        let damaged = |part| SegmentError::Damaged { file: path.clone(), part };
        let file = disk.open(&path, OpenMode::Read).map_err(failed("open", &path))?;
        let len = file.len().map_err(failed("measure", &path))?;
        if len != meta.bytes || len < (HEAD + FOOT) as u64 {
            return Err(damaged("its length is not the manifest's"));
        }
        let (mut head, mut foot) = ([0; HEAD], [0; FOOT]);
        file.read_at(0, &mut head).map_err(failed("read", &path))?;
        file.read_at(len - FOOT as u64, &mut foot).map_err(failed("read", &path))?;
        if &head[..4] != MAGIC || head[12..] != crc32c::crc32c(&head[..12]).to_le_bytes() {
            return Err(damaged("head"));
        }
        if head[4] != VERSION {
            return Err(SegmentError::Version { file: path, found: head[4] });
        }
        let (at, index_len) = (u64::from_le_bytes(field(&foot, 0)), u64::from_le_bytes(field(&foot, 8)));
        let fits = at >= HEAD as u64 && at.checked_add(index_len) == Some(len - FOOT as u64);
        if !fits || index_len > SEGMENT_INDEX_BYTES_MAX as u64 || foot[48..52] != [0; 4] || &foot[52..] != MAGIC_END {
            return Err(damaged("foot"));
        }
        let mut index = vec![0; usize::try_from(index_len).map_err(|_| damaged("foot"))?];
        file.read_at(at, &mut index).map_err(failed("read", &path))?;
        if foot[SUM..SUM + 16] != index_sum(&head, &index, &foot[..SUM]).to_le_bytes() {
            return Err(damaged("index"));
        }
        if head[8..12] != shard.0.to_le_bytes() || foot[16..SUM] != meta.digest.to_le_bytes() {
            return Err(damaged("it is another segment than the manifest's"));
        }
        let (streams, blocks) = decode_index(&index, at).ok_or_else(|| damaged("index"))?;
        let body = Body::Open(file);
        Ok(Self { path: path.into(), body, meta: *meta, streams: streams.into(), blocks: blocks.into() })
    }

    /// Stands for a segment that cannot be opened: one block over all that its manifest says of it, of unknown streams,
    /// every read of which fails.
    pub fn lost(shard: ShardId, meta: &SegmentMeta, why: &str) -> Self {
        let summary = Summary {
            first_offset: meta.from.0,
            last_offset: meta.to.0,
            rows: (meta.to.0 - meta.from.0).saturating_add(1),
            min_timestamp: meta.min_timestamp,
            max_timestamp: meta.max_timestamp,
            raw_bytes: meta.raw_bytes,
        };
        let block = BlockEntry { summary, position: 0, len: 0, sum: 0, streams: [].into() };
        let path = format!("{}/{}", folder(shard), meta.name()).into();
        Self { path, body: Body::Lost(why.into()), meta: *meta, streams: [].into(), blocks: [block].into() }
    }

    /// Whether it only stands for what cannot be opened.
    pub fn is_lost(&self) -> bool {
        matches!(self.body, Body::Lost(_))
    }

    /// What the manifest says of it.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Its file, relative to the data folder.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the index says of its blocks, in the order of the file.
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// The distinct streams of all blocks.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The distinct streams of one block.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn streams_of(&self, block: usize) -> impl ExactSizeIterator<Item = &Stream> {
        self.blocks[block].streams.iter().map(|id| &self.streams[*id as usize])
    }

    /// What a block spans, as is said where it is damaged.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn range(&self, block: usize) -> LostRange {
        LostRange::of(&self.blocks[block].summary)
    }

    /// The bytes of a block as they were pushed, verified.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn read(&self, block: usize) -> Result<Bytes, SegmentError> {
        let entry = &self.blocks[block];
        let (file, position, range) = (self.path.to_string(), entry.position, LostRange::of(&entry.summary));
        let mut bytes = vec![0; entry.len as usize];
        match self.read_at(position, &mut bytes) {
            Ok(()) if xxh3_64(&bytes) == entry.sum || mutant!(DamageServed) => Ok(bytes.into()),
            Err(error) if !error.is_damage() => Err(error),
            Err(error @ SegmentError::Lost { .. }) => Err(error),
            // Cut short, it is damaged as well.
            Ok(()) | Err(_) => Err(SegmentError::DamagedBlock { file, block, position, range }),
        }
    }

    /// Bytes of the file, as they are.
    pub(super) fn read_at(&self, at: u64, into: &mut [u8]) -> Result<(), SegmentError> {
        match &self.body {
            Body::Open(file) => file.read_at(at, into).map_err(failed("read", &self.path)),
            Body::Lost(why) => {
                let range = LostRange::of(&self.blocks[0].summary);
                Err(SegmentError::Lost { file: self.path.to_string(), why: Arc::clone(why), range })
            }
        }
    }

    /// Reads the whole file and compares it with the manifest, for scrubbing and after a copy; names the block where
    /// the damage is in one.
    pub fn verify(&self) -> Result<(), SegmentError> {
        for block in 0..self.blocks.len() {
            self.read(block)?;
        }
        if self.measure()? == self.meta.hash {
            Ok(())
        } else {
            Err(SegmentError::Damaged { file: self.path.to_string(), part: "its hash is not the manifest's" })
        }
    }
}

impl Segment {
    /// Takes the file's length and hash for those of its manifest: for one whose checksums were all seen to hold.
    pub(super) fn rehash(&mut self) -> Result<(), SegmentError> {
        self.meta.hash = self.measure()?;
        Ok(())
    }

    /// Whether its blocks span the offsets that its name says.
    pub(super) fn spans_its_name(&self) -> bool {
        let summaries = || self.blocks.iter().map(|block| &block.summary);
        summaries().map(|summary| summary.first_offset).min() == Some(self.meta.from.0)
            && summaries().map(|summary| summary.last_offset).max() == Some(self.meta.to.0)
    }

    fn measure(&self) -> Result<u128, SegmentError> {
        let mut hash = Xxh3::new();
        let mut piece = vec![0; READ_BYTES];
        let mut at = 0;
        while at < self.meta.bytes {
            let len = piece.len().min(usize::try_from(self.meta.bytes - at).unwrap_or(READ_BYTES));
            self.read_at(at, &mut piece[..len])?;
            hash.update(&piece[..len]);
            at += len as u64;
        }
        Ok(hash.digest128())
    }
}

fn index_sum(head: &[u8], index: &[u8], foot: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    for part in [head, index, foot] {
        hash.update(part);
    }
    hash.digest128()
}

fn encode_index(streams: &std::collections::BTreeMap<Stream, u32>, blocks: &[BlockEntry]) -> Vec<u8> {
    let mut by_id: Vec<(&u32, &Stream)> = streams.iter().map(|(stream, id)| (id, stream)).collect();
    by_id.sort_unstable();
    let mut index = Vec::new();
    index.extend_from_slice(&count(by_id.len()));
    for (_, stream) in by_id {
        stream.encode_to(&mut index);
    }
    index.extend_from_slice(&count(blocks.len()));
    for block in blocks {
        index.extend_from_slice(&block.position.to_le_bytes());
        index.extend_from_slice(&block.len.to_le_bytes());
        index.extend_from_slice(&block.sum.to_le_bytes());
        let summary = &block.summary;
        for number in [summary.first_offset, summary.last_offset, summary.rows] {
            index.extend_from_slice(&number.to_le_bytes());
        }
        index.extend_from_slice(&summary.min_timestamp.to_le_bytes());
        index.extend_from_slice(&summary.max_timestamp.to_le_bytes());
        index.extend_from_slice(&summary.raw_bytes.to_le_bytes());
        index.extend_from_slice(&count(block.streams.len()));
        for id in &block.streams {
            index.extend_from_slice(&id.to_le_bytes());
        }
    }
    assert!(index.len() <= SEGMENT_INDEX_BYTES_MAX, "an index of {} bytes", index.len());
    index
}

/// The streams and blocks of an index that lies at `end`, where the blocks end.
fn decode_index(index: &[u8], end: u64) -> Option<(Vec<Stream>, Vec<BlockEntry>)> {
    let mut rest = index;
    let mut streams = Vec::new();
    for _ in 0..take_u32(&mut rest)? {
        streams.push(Stream::decode_from(&mut rest)?);
    }
    let mut blocks = Vec::new();
    let mut position = HEAD as u64;
    for _ in 0..take_u32(&mut rest)? {
        let at = take_u64(&mut rest)?;
        let len = take_u32(&mut rest)?;
        let sum = take_u64(&mut rest)?;
        let summary = Summary {
            first_offset: take_u64(&mut rest)?,
            last_offset: take_u64(&mut rest)?,
            rows: take_u64(&mut rest)?,
            min_timestamp: take_u64(&mut rest)?.cast_signed(),
            max_timestamp: take_u64(&mut rest)?.cast_signed(),
            raw_bytes: take_u64(&mut rest)?,
        };
        if at != position || len as usize > BLOCK_INFLATED_BYTES_MAX {
            return None;
        }
        position += u64::from(len);
        let mut ids = Vec::new();
        for _ in 0..take_u32(&mut rest)? {
            ids.push(take_u32(&mut rest).filter(|id| (*id as usize) < streams.len())?);
        }
        blocks.push(BlockEntry { summary, position: at, len, sum, streams: ids.into() });
    }
    (rest.is_empty() && position == end).then_some((streams, blocks))
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*head))
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (head, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*head))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the foot")
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("bounded by SEGMENT_INDEX_BYTES_MAX").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::Labels;
    use crate::storage::lossy::LossyDisk;

    const SHARD: ShardId = ShardId(4);

    fn stream(name: &str) -> Stream {
        Stream { tenant: "acme".into(), labels: Labels::new([("app", name)]) }
    }

    fn summary(first: u64, last: u64) -> Summary {
        Summary {
            first_offset: first,
            last_offset: last,
            rows: last - first + 1,
            min_timestamp: -5,
            max_timestamp: i64::try_from(last).unwrap(),
            raw_bytes: 100,
        }
    }

    fn write(disk: &LossyDisk) -> Result<SegmentMeta, SegmentError> {
        let mut writer = SegmentWriter::create(disk, SHARD, Offset(10))?;
        writer.push(b"the first block", summary(10, 14), &[stream("a"), stream("b")])?;
        writer.push(b"and the second", summary(12, 19), &[stream("b"), stream("c")])?;
        writer.finish(77)
    }

    #[test]
    fn a_segment_gives_back_its_blocks_and_what_they_span() {
        let disk = LossyDisk::new(1);
        let meta = write(&disk).unwrap();
        disk.crash();
        assert_eq!((meta.from, meta.to, meta.raw_bytes, meta.digest), (Offset(10), Offset(19), 200, 77));
        let segment = Segment::open(&disk, SHARD, &meta).unwrap();
        assert_eq!(segment.read(0).unwrap(), "the first block");
        assert_eq!(segment.read(1).unwrap(), "and the second");
        assert_eq!(segment.blocks()[1].summary, summary(12, 19));
        assert_eq!(segment.streams_of(1).collect::<Vec<_>>(), [&stream("b"), &stream("c")]);
        segment.verify().unwrap();
    }

    #[test]
    fn every_flipped_bit_is_found_by_a_verification_and_none_is_served() {
        let disk = LossyDisk::new(2);
        let meta = write(&disk).unwrap();
        let path = format!("{}/{}", folder(SHARD), meta.name());
        for offset in 0..meta.bytes {
            let bit = u8::try_from(offset % 8).unwrap();
            assert!(disk.flip_bit(&path, offset, bit));
            let found = Segment::open(&disk, SHARD, &meta).and_then(|segment| segment.verify());
            assert!(found.is_err(), "byte {offset}");
            if (HEAD as u64..HEAD as u64 + 15).contains(&offset) {
                let error = Segment::open(&disk, SHARD, &meta).unwrap().read(0).unwrap_err();
                assert!(matches!(&error, SegmentError::DamagedBlock { block: 0, .. }), "{error}");
                assert_eq!(error.class(), Class::Retry);
            }
            disk.flip_bit(&path, offset, bit);
        }
        Segment::open(&disk, SHARD, &meta).unwrap().verify().unwrap();
    }

    #[test]
    fn a_file_that_is_cut_short_while_it_is_open_gives_no_block_of_what_is_gone() {
        let disk = LossyDisk::new(2);
        let meta = write(&disk).unwrap();
        let segment = Segment::open(&disk, SHARD, &meta).unwrap();
        let file = disk.open(segment.path(), OpenMode::ReadWrite).unwrap();
        file.set_len(HEAD as u64 + 20).unwrap();
        assert_eq!(segment.read(0).unwrap(), "the first block");
        let error = segment.read(1).unwrap_err();
        assert!(matches!(&error, SegmentError::DamagedBlock { block: 1, .. }) && error.is_damage(), "{error}");
        assert!(error.to_string().contains("offsets 12 to 19, times -5 to 19"), "{error}");
        assert!(segment.verify().unwrap_err().is_damage());
    }

    #[test]
    fn the_stand_in_of_a_segment_spans_what_is_lost_and_gives_none_of_it() {
        let disk = LossyDisk::new(2);
        let meta = write(&disk).unwrap();
        let lost = Segment::lost(SHARD, &meta, "gone");
        assert!(lost.is_lost() && !Segment::open(&disk, SHARD, &meta).unwrap().is_lost());
        assert_eq!((lost.meta(), lost.blocks().len()), (&meta, 1));
        assert_eq!(lost.blocks()[0].summary.last_offset, 19);
        let error = lost.read(0).unwrap_err();
        assert!(matches!(&error, SegmentError::Lost { range, .. } if range.first == Offset(10)), "{error}");
        assert!(lost.verify().is_err() && error.is_damage());
    }

    #[test]
    fn what_no_manifest_names_is_removed() {
        let disk = LossyDisk::new(3);
        let meta = write(&disk).unwrap();
        let mut unfinished = SegmentWriter::create(&disk, SHARD, Offset(20)).unwrap();
        unfinished.push(b"x", summary(20, 20), &[]).unwrap();
        drop(unfinished);
        remove_unregistered(&disk, SHARD, &[meta]).unwrap();
        assert_eq!(disk.list(&folder(SHARD)).unwrap(), [meta.name()]);
        remove_unregistered(&disk, SHARD, &[]).unwrap();
        assert!(disk.list(&folder(SHARD)).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_crash_while_writing_leaves_none_or_a_whole_one(seed in any::<u64>(), after in 0_u64..16) {
            let expected = write(&LossyDisk::new(0)).unwrap();
            let disk = LossyDisk::new(seed);
            disk.power_off_after(after);
            let done = write(&disk).is_ok();
            disk.crash();
            let there = disk.list(&folder(SHARD)).unwrap().contains(&expected.name());
            prop_assert!(there || !done);
            if there {
                Segment::open(&disk, SHARD, &expected).unwrap().verify().unwrap();
            }
            prop_assert_eq!(write(&disk).unwrap(), expected);
        }

        #[test]
        fn an_arbitrary_index_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_index(&bytes, 16);
        }
    }
}
