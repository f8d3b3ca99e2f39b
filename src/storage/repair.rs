//! The files of a group that are not what a manifest says: finding them, and putting whole ones in their place. This
//! file does not know where whole ones come from, nor when to look.
//!
//! A segment that is read through goes piece by piece, so that nobody who works in the folder waits for long. What replaces
//! a damaged file is made beside it, under [`copy_name`], by `super::copy::append` and `measure`; installing renames it
//! over the damaged one.
//!
//! Two replicas may encode the same records into different bytes, and a copy of a segment has the same name as the damaged
//! one. So where its bytes are others than those that the newest snapshot here names, the snapshot is written anew, after
//! the file has its name. A crash between the two leaves a snapshot that names other bytes than those that are there. No
//! order avoids that with two files; it is harmless because a segment proves itself: [`open`] and [`assess`] take one
//! whose checksums all hold and whose records have the digest that the snapshot names for what it is, and
//! [`Assessment::Other`] says that only the snapshot has to be written. Nothing is ever taken for whole by its name.

use std::fmt;
use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::copy::{self, Measured, PART};
use super::disk::{Disk, OpenMode, remove_if_there};
use super::segment::{Segment, SegmentError, folder};
use super::snapshot::{self, SnapshotError, failed};
use crate::class::Class;
use crate::entry::{Position, SegmentMeta, ShardSnapshot};
use crate::id::{Index, Offset, ShardId};

pub(super) const COPY: &str = ".mend";

/// Why files could not be looked at or put in their place. Damage is none of these: it is an answer.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A snapshot cannot be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A segment cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl RepairError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Snapshot(error) => error.class(),
            Self::Segment(error) => error.class(),
        }
    }
}

/// A file that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the data folder.
    pub file: String,
    /// The byte from which on it is damaged, as far as that is known.
    pub at: Option<u64>,
    /// What was found.
    pub why: String,
}

impl Damage {
    fn of(shard: ShardId, meta: &SegmentMeta, error: &SegmentError) -> Self {
        let at = match error {
            SegmentError::DamagedBlock { position, .. } => Some(*position),
            SegmentError::Io { .. }
            | SegmentError::Lost { .. }
            | SegmentError::Damaged { .. }
            | SegmentError::Version { .. } => None,
        };
        Self { file: format!("{}/{}", folder(shard), meta.name()), at, why: error.to_string() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// A segment as a replica that starts finds it.
#[derive(Debug)]
pub enum Opened {
    /// It can be read, by the manifest or, where its checksums all hold, by itself.
    Readable(Segment),
    /// It cannot be read; the stand-in, and why.
    Lost(Segment, Damage),
}

/// Opens a segment that a snapshot names, or its stand-in where it is damaged or gone.
pub fn open(disk: &dyn Disk, shard: ShardId, meta: &SegmentMeta) -> Result<Opened, SegmentError> {
    let error = match Segment::open(disk, shard, meta) {
        Ok(segment) => return Ok(Opened::Readable(segment)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error),
    };
    Ok(match proven(disk, shard, meta)? {
        Some(segment) => Opened::Readable(segment),
        None => {
            let damage = Damage::of(shard, meta, &error);
            Opened::Lost(Segment::lost(shard, meta, &damage.why), damage)
        }
    })
}

/// The segment of this name where it proves itself: of the records that `meta` names, in whatever bytes.
fn proven(disk: &dyn Disk, shard: ShardId, meta: &SegmentMeta) -> Result<Option<Segment>, SegmentError> {
    let path = format!("{}/{}", folder(shard), meta.name());
    let io = |action: &'static str| {
        let file = path.clone();
        move |source| SegmentError::Io { action, file, source }
    };
    let bytes = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file.len().map_err(io("measure"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let proof = Segment::open(disk, shard, &SegmentMeta { bytes, ..*meta }).and_then(|mut segment| {
        for block in 0..segment.blocks().len() {
            segment.read(block)?;
        }
        segment.rehash()?;
        Ok(segment)
    });
    match proof {
        Ok(segment) => Ok(segment.spans_its_name().then_some(segment)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A segment that is being read through.
pub struct Reading {
    shard: ShardId,
    segment: Segment,
    hash: Box<Xxh3>,
    at: u64,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("segment", &self.segment.path()).field("at", &self.at).finish()
    }
}

/// What is known of a file so far.
#[derive(Debug)]
pub enum Read {
    /// There is more to read.
    More(Reading),
    /// Every byte is what the manifest says.
    Whole,
    /// It is not.
    Damaged(Damage),
}

/// Opens a segment to read it through.
pub fn read(disk: &dyn Disk, shard: ShardId, meta: &SegmentMeta) -> Result<Read, SegmentError> {
    match Segment::open(disk, shard, meta) {
        Ok(segment) => Ok(Read::More(Reading { shard, segment, hash: Box::default(), at: 0 })),
        Err(error) if error.is_damage() => Ok(Read::Damaged(Damage::of(shard, meta, &error))),
        Err(error) => Err(error),
    }
}

impl Reading {
    /// Bytes of the next piece, of at most `piece`.
    pub fn next(&self, piece: usize) -> usize {
        piece.min(usize::try_from(self.segment.meta().bytes - self.at).unwrap_or(piece))
    }

    /// Reads a piece of at most so many bytes.
    pub fn step(mut self, piece: usize) -> Result<Read, SegmentError> {
        let meta = *self.segment.meta();
        let mut bytes = vec![0; self.next(piece)];
        match self.segment.read_at(self.at, &mut bytes) {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                let at = Some(self.at);
                return Ok(Read::Damaged(Damage { at, ..Damage::of(self.shard, &meta, &error) }));
            }
            Err(error) => return Err(error),
        }
        self.hash.update(&bytes);
        self.at += bytes.len() as u64;
        if self.at < meta.bytes {
            return Ok(Read::More(self));
        }
        if self.hash.digest128() == meta.hash {
            return Ok(Read::Whole);
        }
        match self.segment.verify() {
            // The disk gave other bytes this time.
            Ok(()) => Ok(Read::Whole),
            Err(error) if error.is_damage() => Ok(Read::Damaged(Damage::of(self.shard, &meta, &error))),
            Err(error) => Err(error),
        }
    }
}

/// What is to be done about a segment.
#[derive(Debug)]
pub enum Assessment {
    /// The newest snapshot here does not name it: nothing.
    Unnamed,
    /// It is what the newest snapshot says: nothing.
    Whole(Segment),
    /// It holds the records that the newest snapshot names in other bytes, and is whole: the snapshot is to be written
    /// anew, by [`name_as_it_is`].
    Other(Segment),
    /// It is damaged or gone: a copy is needed.
    Damaged(SegmentMeta, Damage),
}

/// Looks at the segment of these offsets, all of it. It takes as long as reading the file does.
pub fn assess(disk: &dyn Disk, shard: ShardId, offsets: (Offset, Offset)) -> Result<Assessment, RepairError> {
    let Some((_, meta)) = named(disk, shard, offsets)? else { return Ok(Assessment::Unnamed) };
    let error = match Segment::open(disk, shard, &meta).and_then(|segment| segment.verify().map(|()| segment)) {
        Ok(segment) => return Ok(Assessment::Whole(segment)),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error.into()),
    };
    Ok(match proven(disk, shard, &meta)? {
        Some(segment) => Assessment::Other(segment),
        None => Assessment::Damaged(meta, Damage::of(shard, &meta, &error)),
    })
}

/// The newest whole snapshot, and what it says of the segment of these offsets.
fn named(
    disk: &dyn Disk,
    shard: ShardId,
    offsets: (Offset, Offset),
) -> Result<Option<(snapshot::StoredShard, SegmentMeta)>, SnapshotError> {
    let Some(stored) = snapshot::latest(disk, shard)?.newest else { return Ok(None) };
    let meta = stored.snapshot.segments.iter().find(|meta| (meta.from, meta.to) == offsets).copied();
    Ok(meta.map(|meta| (stored, meta)))
}

/// The name under which the copy that shall replace a file is made, without the ending of unfinished ones.
pub fn copy_name(name: &str) -> String {
    format!("{name}{COPY}")
}

/// Removes copies that an earlier life left.
pub fn discard(disk: &dyn Disk, shard: ShardId) -> Result<(), SnapshotError> {
    let (folder, end) = (folder(shard), format!("{COPY}{PART}"));
    for name in disk.list(&folder).map_err(failed("list", &folder))?.iter().filter(|name| name.ends_with(&end)) {
        let path = format!("{folder}/{name}");
        remove_if_there(disk, &path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// What came of putting a copy in its place.
#[derive(Debug)]
pub enum Mended<T> {
    /// It is there, durable.
    Done(T),
    /// It is no copy of what is missing, or nothing misses it any more; it was removed and nothing else changed.
    Unfit(String),
}

/// Puts the copy of a segment, complete and measured as `copy` says, in the place of the damaged one.
pub fn install_segment(disk: &dyn Disk, shard: ShardId, copy: &SegmentMeta) -> Result<Mended<Segment>, RepairError> {
    let name = copy.name();
    let part = format!("{}{PART}", copy_name(&name));
    let unfit = |why: &str| {
        remove_part(disk, shard, &part)?;
        Ok(Mended::Unfit(format!("{name}: {why}")))
    };
    let Some((_, own)) = named(disk, shard, (copy.from, copy.to))? else {
        return unfit("the newest snapshot here does not name it any more");
    };
    if own.digest != copy.digest {
        return unfit("the copy holds other records");
    }
    if copy::measure(disk, shard, &part)? != Some(Measured { bytes: copy.bytes, hash: copy.hash }) {
        return unfit("the copy is not what was announced");
    }
    give_name(disk, shard, &part, &name)?;
    // The rest of what a manifest says follows from the records; what is kept is what this replica said of them.
    let meta = SegmentMeta { bytes: copy.bytes, hash: copy.hash, ..own };
    let segment = Segment::open(disk, shard, &meta)?;
    name_as_it_is(disk, shard, &meta)?;
    Ok(Mended::Done(segment))
}

/// Makes the newest snapshot name a segment as it is, where it does not yet.
pub fn name_as_it_is(disk: &dyn Disk, shard: ShardId, meta: &SegmentMeta) -> Result<(), RepairError> {
    let Some((mut stored, own)) = named(disk, shard, (meta.from, meta.to))? else { return Ok(()) };
    if own != *meta {
        for named in stored.snapshot.segments.iter_mut().filter(|named| named.name() == meta.name()) {
            *named = *meta;
        }
        snapshot::write(disk, &stored.snapshot, &stored.conf)?;
    }
    Ok(())
}

/// What a round of looking goes through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The snapshot that is damaged and newer than every whole one, if there is one.
    pub damaged: Option<(Index, Damage)>,
    /// Bytes of the newest whole snapshot, which was read.
    pub bytes: u64,
    /// The segments that it names, in order of offsets.
    pub segments: Vec<SegmentMeta>,
}

/// Reads the snapshots of a group. The metadata group names no segments.
pub fn files(disk: &dyn Disk, shard: ShardId) -> Result<Files, SnapshotError> {
    let latest = snapshot::latest(disk, shard)?;
    let damaged = latest.damaged.into_iter().next().map(|(index, error)| {
        let file = snapshot::path(shard, index);
        (index, Damage { file, at: None, why: error.to_string() })
    });
    let Some(stored) = latest.newest else { return Ok(Files { damaged, ..Files::default() }) };
    let path = snapshot::path(shard, stored.snapshot.position.index);
    let bytes = disk.open(&path, OpenMode::Read).and_then(|file| file.len()).map_err(failed("measure", &path))?;
    Ok(Files { damaged, bytes, segments: stored.snapshot.segments })
}

/// Puts the copy of a snapshot, complete and measured as `fits` says, in the place of a damaged one of the same position.
/// Segments that are here in other bytes than the copy names stay and are named.
pub fn install_snapshot(
    disk: &dyn Disk,
    shard: ShardId,
    position: Position,
    fits: Measured,
) -> Result<Mended<()>, RepairError> {
    let name = snapshot::name(position.index);
    let part = format!("{}{PART}", copy_name(&name));
    let unfit = |why: String| {
        remove_part(disk, shard, &part)?;
        Ok(Mended::Unfit(why))
    };
    if files(disk, shard)?.damaged.is_none_or(|(damaged, _)| damaged != position.index) {
        return unfit(format!("{name} is not missed any more"));
    }
    if copy::measure(disk, shard, &part)? != Some(fits) {
        return unfit(format!("the copy of {name} is not what was announced"));
    }
    let mut stored = match snapshot::read_from(disk, format!("{}/{part}", folder(shard)), shard, position.index) {
        Ok(stored) => stored,
        Err(error @ SnapshotError::Damaged { .. }) => return unfit(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    if stored.snapshot.position != position {
        return unfit(format!("the copy of {name} is of another term"));
    }
    if own_bytes(disk, &mut stored.snapshot)? {
        snapshot::write(disk, &stored.snapshot, &stored.conf)?;
        remove_part(disk, shard, &part)?;
    } else {
        give_name(disk, shard, &part, &name)?;
    }
    Ok(Mended::Done(()))
}

/// Names segments as they are here. Whether one is here in other bytes.
fn own_bytes(disk: &dyn Disk, snapshot: &mut ShardSnapshot) -> Result<bool, SegmentError> {
    let mut others = false;
    for meta in &mut snapshot.segments {
        if let Opened::Readable(segment) = open(disk, snapshot.shard, meta)? {
            others |= *meta != *segment.meta();
            *meta = *segment.meta();
        }
    }
    Ok(others)
}

fn give_name(disk: &dyn Disk, shard: ShardId, part: &str, name: &str) -> Result<(), SnapshotError> {
    let folder = folder(shard);
    let from = format!("{folder}/{part}");
    disk.rename(&from, &format!("{folder}/{name}")).map_err(failed("rename", &from))?;
    disk.sync_folder(&folder).map_err(failed("sync", &folder))
}

fn remove_part(disk: &dyn Disk, shard: ShardId, part: &str) -> Result<(), SnapshotError> {
    let path = format!("{}/{part}", folder(shard));
    remove_if_there(disk, &path).map_err(failed("remove", &path))
}

#[cfg(test)]
mod tests;
