//! Snapshot files: the state of one group as of one entry, in a redb file that is written once.
//!
//! `shards/<shard>/snapshot-<index>.redb`, and `metadata/snapshot-<index>.redb` for the metadata group. One table,
//! `values`, from u64 (section << 32 | number) to bytes: u64 xxh3-64, then the value. The checksum covers u32 shard,
//! u64 index, u64 key and the value, so that a value found in another place is as bad as a changed one. It is
//! verified at each read, for redb's reads verify nothing. All numbers little-endian. Sections:
//!
//! ```text
//! 0 head      number 0: u8 version 2, u32 shard, u64 index, u64 term, u64 next offset, u64 shard time, then the
//!             number of values of sections 1 to 5, u32 each, then u64 first offset
//! 1 conf      the group's configuration as the caller encoded it, in pieces
//! 2 segments  80 bytes a segment: u64 from, u64 to, u64 length, u128 hash, u128 digest, i64 earliest, i64 latest
//!             time, u64 raw bytes
//! 3 keys      the idempotency keys, as the shard encoded them
//! 4 streams   the active streams, as the shard encoded them
//! 5 state     the metadata group's state, in pieces
//! ```
//!
//! Version 1 has no first offset: nothing was dropped then, and it is read as 0. It is not written any more.
//!
//! A file is made under a temporary name, synced, renamed, and its folder synced: one that has its name is whole. It
//! is read through an overlay, so that opening never changes it. This file does not know what keys, streams, conf and
//! state mean.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, DiskFile, OpenMode, remove_if_there, remove_unless_leased};
use super::redb_backend::{DiskBackend, Overlay};
use super::segment::folder;
use crate::class::Class;
use crate::entry::{Position, SegmentMeta, ShardSnapshot};
use crate::id::{Index, Offset, ShardId, Term};
use crate::limits::{REDB_CACHE_BYTES, SNAPSHOT_VALUE_BYTES_MAX};

const VALUES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("values");
const VERSION: u8 = 2;
/// Without the first offset, which comes last.
const VERSION_1: u8 = 1;
const HEAD_BYTES_1: usize = 57;
const HEAD_BYTES: usize = HEAD_BYTES_1 + 8;
const SEGMENT_BYTES: usize = 80;
const SUM_BYTES: usize = 8;

/// What can go wrong with a redb file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
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
    /// redb refused an operation while writing. The outcome of a commit is then unknown.
    #[error("cannot {action} {file}: {source}")]
    Redb {
        /// What was tried.
        action: &'static str,
        /// On which file, relative to the data folder.
        file: String,
        /// redb's own words.
        source: Box<redb::Error>,
    },
    /// The file is not what was written.
    #[error("{file} is damaged: {part}. It must be copied from another replica")]
    Damaged {
        /// The file, relative to the data folder.
        file: String,
        /// What does not fit.
        part: String,
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

impl SnapshotError {
    /// Damage is repaired from another replica; what the disk refuses, an operator must see.
    pub fn class(&self) -> Class {
        match self {
            Self::Damaged { .. } => Class::Retry,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Class::Retry,
            Self::Redb { source, .. } if is_full(source) => Class::Retry,
            Self::Io { .. } | Self::Redb { .. } | Self::Version { .. } => Class::Fatal,
        }
    }
}

/// redb passes the disk's own error on when there is no room.
fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull)
}

/// A shard's snapshot with the group's configuration as of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredShard {
    /// The shard's state.
    pub snapshot: ShardSnapshot,
    /// The configuration as the caller encoded it.
    pub conf: Bytes,
}

/// The metadata group's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMetadata {
    /// The last entry it contains.
    pub position: Position,
    /// The configuration as the caller encoded it.
    pub conf: Bytes,
    /// The state as the caller encoded it.
    pub state: Bytes,
}

/// What is found of a group's snapshots.
#[derive(Debug)]
pub struct Latest<T> {
    /// The newest that is whole.
    pub newest: Option<T>,
    /// Newer ones that are not. Where the log is trimmed to one of these, `newest` is too old to start from.
    pub damaged: Vec<(Index, SnapshotError)>,
}

/// Writes a shard's snapshot, durable when it returns. One of the same index is replaced.
pub fn write(disk: &dyn Disk, snapshot: &ShardSnapshot, conf: &[u8]) -> Result<(), SnapshotError> {
    let image = Image {
        shard: snapshot.shard,
        position: snapshot.position,
        first_offset: snapshot.first_offset,
        next_offset: snapshot.next_offset,
        time: snapshot.time,
        sections: [
            pieces(conf),
            encode_segments(&snapshot.segments),
            snapshot.keys.clone(),
            snapshot.streams.clone(),
            Vec::new(),
        ],
    };
    image.write(disk)
}

/// Writes a snapshot of the metadata group, durable when it returns. One of the same index is replaced.
pub fn write_metadata(disk: &dyn Disk, snapshot: &StoredMetadata) -> Result<(), SnapshotError> {
    let image = Image {
        shard: ShardId::METADATA,
        position: snapshot.position,
        first_offset: Offset(0),
        next_offset: Offset(0),
        time: 0,
        sections: [pieces(&snapshot.conf), Vec::new(), Vec::new(), Vec::new(), pieces(&snapshot.state)],
    };
    image.write(disk)
}

/// Reads a shard's snapshot and verifies all of it.
pub fn read(disk: &dyn Disk, shard: ShardId, index: Index) -> Result<StoredShard, SnapshotError> {
    read_from(disk, path(shard, index), shard, index)
}

/// Reads the snapshot that lies in a file of another name, as the one of this shard and index.
pub(super) fn read_from(
    disk: &dyn Disk,
    path: String,
    shard: ShardId,
    index: Index,
) -> Result<StoredShard, SnapshotError> {
    let image = Image::read(disk, path.clone(), shard, index)?;
    let [conf, segments, keys, streams, _] = image.sections;
    let segments =
        decode_segments(&segments).ok_or_else(|| SnapshotError::Damaged { file: path, part: "segments".to_owned() })?;
    let snapshot = ShardSnapshot {
        shard,
        position: image.position,
        first_offset: image.first_offset,
        next_offset: image.next_offset,
        time: image.time,
        segments,
        keys,
        streams,
    };
    Ok(StoredShard { snapshot, conf: conf.concat().into() })
}

/// Reads a snapshot of the metadata group and verifies all of it.
pub fn read_metadata(disk: &dyn Disk, index: Index) -> Result<StoredMetadata, SnapshotError> {
    let image = Image::read(disk, path(ShardId::METADATA, index), ShardId::METADATA, index)?;
    let [conf, _, _, _, state] = image.sections;
    Ok(StoredMetadata { position: image.position, conf: conf.concat().into(), state: state.concat().into() })
}

/// The newest whole snapshot of a shard.
pub fn latest(disk: &dyn Disk, shard: ShardId) -> Result<Latest<StoredShard>, SnapshotError> {
    find_latest(disk, shard, |index| read(disk, shard, index))
}

/// The newest whole snapshot of the metadata group.
pub fn latest_metadata(disk: &dyn Disk) -> Result<Latest<StoredMetadata>, SnapshotError> {
    find_latest(disk, ShardId::METADATA, |index| read_metadata(disk, index))
}

/// Removes a group's snapshots below the one that is registered, and unfinished ones. What is leased stays until the
/// next time.
pub fn remove_older(disk: &dyn Disk, shard: ShardId, registered: Index) -> Result<(), SnapshotError> {
    let folder = folder(shard);
    for name in disk.list(&folder).map_err(failed("list", &folder))? {
        let unfinished = name.starts_with("snapshot-") && name.ends_with(".redb.tmp");
        if unfinished || index_of(&name).is_some_and(|index| index < registered) {
            let path = format!("{folder}/{name}");
            remove_unless_leased(disk, &path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// A snapshot's file, relative to the data folder.
pub fn path(shard: ShardId, index: Index) -> String {
    format!("{}/{}", folder(shard), name(index))
}

/// A snapshot's file, relative to the folder of its group.
pub fn name(index: Index) -> String {
    format!("snapshot-{:020}.redb", index.0)
}

fn index_of(name: &str) -> Option<Index> {
    name.strip_prefix("snapshot-")?.strip_suffix(".redb")?.parse().ok().map(Index)
}

fn find_latest<T>(
    disk: &dyn Disk,
    shard: ShardId,
    read: impl Fn(Index) -> Result<T, SnapshotError>,
) -> Result<Latest<T>, SnapshotError> {
    let folder = folder(shard);
    let names = disk.list(&folder).map_err(failed("list", &folder))?;
    let mut indexes: Vec<Index> = names.iter().filter_map(|name| index_of(name)).collect();
    indexes.sort_unstable();
    let mut damaged = Vec::new();
    for index in indexes.into_iter().rev() {
        match read(index) {
            Ok(snapshot) => return Ok(Latest { newest: Some(snapshot), damaged }),
            Err(error @ SnapshotError::Damaged { .. }) => damaged.push((index, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(Latest { newest: None, damaged })
}

/// A snapshot as its file holds it: sections 1 to 5.
struct Image {
    shard: ShardId,
    position: Position,
    first_offset: Offset,
    next_offset: Offset,
    time: u64,
    sections: [Vec<Bytes>; 5],
}

impl Image {
    fn write(&self, disk: &dyn Disk) -> Result<(), SnapshotError> {
        let folder = folder(self.shard);
        disk.make_folder(&folder).map_err(failed("make", &folder))?;
        create_file(disk, &folder, &path(self.shard, self.position.index), |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(VALUES)?;
                let mut put = |key: u64, value: &[u8]| -> Result<(), redb::Error> {
                    let sum = self.sum(key, value);
                    table.insert(key, [&sum.to_le_bytes(), value].concat().as_slice())?;
                    Ok(())
                };
                put(0, &self.head())?;
                for (section, values) in (1_u64..).zip(&self.sections) {
                    for (number, value) in (0_u64..).zip(values) {
                        put(section << 32 | number, value)?;
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.push(VERSION);
        head.extend_from_slice(&self.shard.0.to_le_bytes());
        for number in [self.position.index.0, self.position.term.0, self.next_offset.0, self.time] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        for section in &self.sections {
            let values = u32::try_from(section.len()).expect("a snapshot of 60 KiB values is far below 2^32 of them");
            head.extend_from_slice(&values.to_le_bytes());
        }
        head.extend_from_slice(&self.first_offset.0.to_le_bytes());
        head
    }

    fn sum(&self, key: u64, value: &[u8]) -> u64 {
        value_sum(self.shard, self.position.index, key, value)
    }

    fn read(disk: &dyn Disk, path: String, shard: ShardId, index: Index) -> Result<Self, SnapshotError> {
        let file = disk.open(&path, OpenMode::Read).map_err(failed("open", &path))?;
        let overlay = Overlay::new(file).map_err(failed("open", &path))?;
        // redb trusts its file; a damaged one may break its assertions as well as its results.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let database = redb::Builder::new().set_cache_size(REDB_CACHE_BYTES).create_with_backend(overlay)?;
            Self::read_values(&database, shard, index)
        }));
        let damaged = |part: String| SnapshotError::Damaged { file: path.clone(), part };
        match read {
            Ok(Ok(Ok(image))) => Ok(image),
            Ok(Ok(Err(Fault::Version(found)))) => Err(SnapshotError::Version { file: path, found }),
            Ok(Ok(Err(Fault::Value(key)))) => {
                Err(damaged(format!("value {} of section {}", key & 0xffff_ffff, key >> 32)))
            }
            Ok(Err(error)) => Err(damaged(error.to_string())),
            Err(_) => Err(damaged("redb cannot read it".to_owned())),
        }
    }

    fn read_values(database: &Database, shard: ShardId, index: Index) -> Result<Result<Self, Fault>, redb::Error> {
        let table = database.begin_read()?.open_table(VALUES)?;
        let value = |key: u64| -> Result<Result<Bytes, Fault>, redb::Error> {
            let stored = table.get(key)?;
            let stored = stored.as_ref().map_or(&[][..], |stored| stored.value());
            Ok(verified(stored, |value| value_sum(shard, index, key, value)).ok_or(Fault::Value(key)))
        };
        let head = match value(0)? {
            Ok(head) => head,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some((mut image, counts)) = Self::from_head(&head) else {
            let found = head.first().copied().unwrap_or_default();
            let known = [VERSION_1, VERSION].contains(&found);
            return Ok(Err(if known { Fault::Value(0) } else { Fault::Version(found) }));
        };
        if (image.shard, image.position.index) != (shard, index) {
            return Ok(Err(Fault::Value(0)));
        }
        for ((section, values), count) in (1_u64..).zip(&mut image.sections).zip(counts) {
            for number in 0..u64::from(count) {
                match value(section << 32 | number)? {
                    Ok(value) => values.push(value),
                    Err(fault) => return Ok(Err(fault)),
                }
            }
        }
        Ok(Ok(image))
    }

    fn from_head(head: &[u8]) -> Option<(Self, [u32; 5])> {
        let first_offset = match (head.first(), head.len()) {
            (Some(&VERSION), HEAD_BYTES) => Offset(u64::from_le_bytes(field(head, HEAD_BYTES_1))),
            (Some(&VERSION_1), HEAD_BYTES_1) => Offset(0),
            _ => return None,
        };
        let number = |at: usize| u64::from_le_bytes(field(head, 5 + at * 8));
        let counts = std::array::from_fn(|section| u32::from_le_bytes(field(head, 37 + section * 4)));
        let image = Self {
            shard: ShardId(u32::from_le_bytes(field(head, 1))),
            position: Position { index: Index(number(0)), term: Term(number(1)) },
            first_offset,
            next_offset: Offset(number(2)),
            time: number(3),
            sections: std::array::from_fn(|_| Vec::new()),
        };
        Some((image, counts))
    }
}

enum Fault {
    Value(u64),
    Version(u8),
}

/// Makes a redb file: filled under a temporary name, synced, renamed, its folder synced.
pub(super) fn create_file(
    disk: &dyn Disk,
    folder: &str,
    path: &str,
    fill: impl FnOnce(&Database) -> Result<(), redb::Error>,
) -> Result<(), SnapshotError> {
    let temporary = format!("{path}.tmp");
    remove_if_there(disk, &temporary).map_err(failed("remove", &temporary))?;
    let file = disk.open(&temporary, OpenMode::CreateNew).map_err(failed("create", &temporary))?;
    let database = database_on(file.clone(), &temporary)?;
    fill(&database).map_err(refused("write", &temporary))?;
    drop(database);
    file.sync().map_err(failed("sync", &temporary))?;
    disk.rename(&temporary, path).map_err(failed("rename", &temporary))?;
    disk.sync_folder(folder).map_err(failed("sync", folder))
}

/// Opens a file for redb to read and write, or makes a database of an empty one.
pub(super) fn database_on(file: Arc<dyn DiskFile>, path: &str) -> Result<Database, SnapshotError> {
    redb::Builder::new()
        .set_cache_size(REDB_CACHE_BYTES)
        .create_with_backend(DiskBackend(file))
        .map_err(|error| refused("open", path)(error.into()))
}

/// The value behind its checksum, where that is right.
pub(super) fn verified(stored: &[u8], sum: impl FnOnce(&[u8]) -> u64) -> Option<Bytes> {
    let (found, value) = stored.split_first_chunk::<SUM_BYTES>()?;
    (sum(value).to_le_bytes() == *found).then(|| Bytes::copy_from_slice(value))
}

fn value_sum(shard: ShardId, index: Index, key: u64, value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&shard.0.to_le_bytes());
    hash.update(&index.0.to_le_bytes());
    hash.update(&key.to_le_bytes());
    hash.update(value);
    hash.digest()
}

pub(super) fn failed<'a>(action: &'static str, file: &'a str) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io { action, file: file.to_owned(), source }
}

pub(super) fn refused<'a>(action: &'static str, file: &'a str) -> impl FnOnce(redb::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Redb { action, file: file.to_owned(), source: Box::new(source) }
}

fn pieces(bytes: &[u8]) -> Vec<Bytes> {
    bytes.chunks(SNAPSHOT_VALUE_BYTES_MAX).map(Bytes::copy_from_slice).collect()
}

fn encode_segments(segments: &[SegmentMeta]) -> Vec<Bytes> {
    let encode = |piece: &[SegmentMeta]| {
        let mut out = Vec::with_capacity(piece.len() * SEGMENT_BYTES);
        for meta in piece {
            for number in [meta.from.0, meta.to.0, meta.bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&meta.hash.to_le_bytes());
            out.extend_from_slice(&meta.digest.to_le_bytes());
            out.extend_from_slice(&meta.min_timestamp.to_le_bytes());
            out.extend_from_slice(&meta.max_timestamp.to_le_bytes());
            out.extend_from_slice(&meta.raw_bytes.to_le_bytes());
        }
        out.into()
    };
    segments.chunks(SNAPSHOT_VALUE_BYTES_MAX / SEGMENT_BYTES).map(encode).collect()
}

fn decode_segments(pieces: &[Bytes]) -> Option<Vec<SegmentMeta>> {
    let mut segments = Vec::new();
    for piece in pieces {
        let stored = piece.chunks_exact(SEGMENT_BYTES);
        if !stored.remainder().is_empty() {
            return None;
        }
        segments.extend(stored.map(|stored| SegmentMeta {
            from: Offset(u64::from_le_bytes(field(stored, 0))),
            to: Offset(u64::from_le_bytes(field(stored, 8))),
            bytes: u64::from_le_bytes(field(stored, 16)),
            hash: u128::from_le_bytes(field(stored, 24)),
            digest: u128::from_le_bytes(field(stored, 40)),
            min_timestamp: i64::from_le_bytes(field(stored, 56)),
            max_timestamp: i64::from_le_bytes(field(stored, 64)),
            raw_bytes: u64::from_le_bytes(field(stored, 72)),
        }));
    }
    Some(segments)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the fixed part")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use redb::ReadableTable;

    use super::*;
    use crate::storage::lossy::LossyDisk;

    const SHARD: ShardId = ShardId(2);

    fn snapshot(index: u64, pieces: usize) -> ShardSnapshot {
        let meta = |at: u64| SegmentMeta {
            from: Offset(at * 10),
            to: Offset(at * 10 + 9),
            bytes: 5,
            hash: u128::MAX - u128::from(at),
            digest: 3,
            min_timestamp: -1,
            max_timestamp: 1,
            raw_bytes: at,
        };
        ShardSnapshot {
            shard: SHARD,
            position: Position { index: Index(index), term: Term(3) },
            first_offset: Offset(0),
            next_offset: Offset(8_000),
            time: 99,
            segments: (0..800).map(meta).collect(),
            keys: vec![Bytes::from(vec![7; SNAPSHOT_VALUE_BYTES_MAX]); pieces],
            streams: vec![Bytes::from_static(b"streams")],
        }
    }

    fn bytes_of(disk: &LossyDisk, path: &str) -> Vec<u8> {
        let file = disk.open(path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written_and_reading_leaves_its_bytes() {
        let disk = LossyDisk::new(1);
        let written = snapshot(5, 3);
        write(&disk, &written, b"conf").unwrap();
        disk.crash();
        let before = bytes_of(&disk, &path(SHARD, Index(5)));
        let found = latest(&disk, SHARD).unwrap();
        assert!(found.damaged.is_empty());
        assert_eq!(found.newest, Some(StoredShard { snapshot: written, conf: Bytes::from_static(b"conf") }));
        assert_eq!(bytes_of(&disk, &path(SHARD, Index(5))), before);
    }

    /// The values of a file, by section and number, checksums left off.
    fn values(disk: &LossyDisk, path: &str) -> BTreeMap<(u64, u64), Vec<u8>> {
        let overlay = Overlay::new(disk.open(path, OpenMode::Read).unwrap()).unwrap();
        let database = redb::Builder::new().create_with_backend(overlay).unwrap();
        let table = database.begin_read().unwrap().open_table(VALUES).unwrap();
        let value = |(key, value): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>)| {
            ((key.value() >> 32, key.value() & 0xffff_ffff), value.value()[SUM_BYTES..].to_vec())
        };
        table.iter().unwrap().map(|entry| value(entry.unwrap())).collect()
    }

    #[test]
    fn the_values_of_a_snapshot_are_those_that_the_head_of_this_file_describes() {
        let disk = LossyDisk::new(1);
        let mut written = snapshot(5, 1);
        written.segments.truncate(2);
        written.segments.remove(0);
        written.first_offset = Offset(10);
        write(&disk, &written, b"conf").unwrap();
        let values = values(&disk, &path(SHARD, Index(5)));
        let hex = |key| values[&key].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let head = "02 02000000 0500000000000000 0300000000000000 401f000000000000 6300000000000000 \
                    01000000 01000000 01000000 01000000 00000000 0a00000000000000";
        assert_eq!(hex((0, 0)), head.replace(' ', ""));
        assert_eq!(values[&(1, 0)], b"conf");
        let segment = "0a00000000000000 1300000000000000 0500000000000000 feffffffffffffffffffffffffffffff \
                       03000000000000000000000000000000 ffffffffffffffff 0100000000000000 0100000000000000";
        assert_eq!(hex((2, 0)), segment.replace(' ', ""));
        assert_eq!((values[&(3, 0)].len(), &values[&(4, 0)][..]), (SNAPSHOT_VALUE_BYTES_MAX, &b"streams"[..]));
        assert_eq!(values.len(), 5);
    }

    #[test]
    fn a_snapshot_of_version_1_is_read_as_one_from_which_nothing_was_dropped() {
        let disk = LossyDisk::new(1);
        let (index, written) = (Index(5), snapshot(5, 0));
        write(&disk, &written, b"conf").unwrap();
        let path = path(SHARD, index);
        let database = database_on(disk.open(&path, OpenMode::ReadWrite).unwrap(), &path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(VALUES).unwrap();
        let mut head = table.get(0).unwrap().unwrap().value()[SUM_BYTES..].to_vec();
        head[0] = VERSION_1;
        head.truncate(HEAD_BYTES_1);
        let sum = value_sum(SHARD, index, 0, &head).to_le_bytes();
        table.insert(0, [&sum[..], &head].concat().as_slice()).unwrap();
        drop(table);
        transaction.commit().unwrap();
        drop(database);
        assert_eq!(read(&disk, SHARD, index).unwrap().snapshot, written);
    }

    #[test]
    fn a_metadata_snapshot_round_trips_with_a_state_of_several_pieces() {
        let disk = LossyDisk::new(2);
        assert_eq!(latest_metadata(&disk).unwrap().newest, None);
        let written = StoredMetadata {
            position: Position { index: Index(9), term: Term(1) },
            conf: Bytes::new(),
            state: (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect::<Vec<u8>>().into(),
        };
        write_metadata(&disk, &written).unwrap();
        assert_eq!(latest_metadata(&disk).unwrap().newest, Some(written));
    }

    #[test]
    fn the_newest_whole_one_is_found_and_the_damaged_one_named() {
        let disk = LossyDisk::new(3);
        for index in [4, 12, 30] {
            write(&disk, &snapshot(index, 0), b"").unwrap();
        }
        let file = disk.open(&path(SHARD, Index(30)), OpenMode::ReadWrite).unwrap();
        file.write_at(0, &[&[0; 8192]]).unwrap();
        let found = latest(&disk, SHARD).unwrap();
        assert_eq!(found.newest.unwrap().snapshot.position.index, Index(12));
        assert_eq!(found.damaged[0].0, Index(30));
        remove_older(&disk, SHARD, Index(12)).unwrap();
        assert!(matches!(read(&disk, SHARD, Index(4)), Err(SnapshotError::Io { .. })));
        read(&disk, SHARD, Index(12)).unwrap();
    }

    #[test]
    fn a_file_under_another_index_is_damage() {
        let disk = LossyDisk::new(4);
        write(&disk, &snapshot(4, 0), b"").unwrap();
        disk.rename(&path(SHARD, Index(4)), &path(SHARD, Index(5))).unwrap();
        assert!(matches!(read(&disk, SHARD, Index(5)), Err(SnapshotError::Damaged { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_crash_while_writing_leaves_none_or_a_whole_one(seed in any::<u64>(), after in 0_u64..60) {
            let disk = LossyDisk::new(seed);
            write(&disk, &snapshot(1, 0), b"old").unwrap();
            disk.power_off_after(after);
            let done = write(&disk, &snapshot(2, 1), b"new").is_ok();
            disk.crash();
            let found = latest(&disk, SHARD).unwrap();
            prop_assert!(found.damaged.is_empty());
            let index = found.newest.unwrap().snapshot.position.index;
            prop_assert!(index == Index(2) || !done && index == Index(1));
            write(&disk, &snapshot(2, 1), b"new").unwrap();
        }

        #[test]
        fn a_flipped_bit_is_found_or_harmless(seed in any::<u64>(), flips in prop::collection::vec(any::<u64>(), 8)) {
            let disk = LossyDisk::new(seed);
            let written = StoredShard { snapshot: snapshot(6, 2), conf: Bytes::from_static(b"conf") };
            write(&disk, &written.snapshot, &written.conf).unwrap();
            let path = path(SHARD, Index(6));
            let len = bytes_of(&disk, &path).len() as u64;
            for flip in flips {
                let (offset, bit) = ((flip >> 3) % len.min(300_000), u8::try_from(flip % 8).unwrap());
                disk.flip_bit(&path, offset, bit);
                if let Ok(read) = read(&disk, SHARD, Index(6)) {
                    prop_assert!(read == written);
                }
                disk.flip_bit(&path, offset, bit);
            }
        }
    }
}
