//! Snapshots that are copied between nodes: what a source tells of its newest one, and how a copy becomes this node's
//! own. This file does not know where the bytes come from, nor when to copy.
//!
//! A file that is being copied lies in its shard's folder under its final name and `.part`; nothing that starts a replica
//! reads or removes it. [`install`] gives all files their names at once, in this order: segments, folder synced, the
//! snapshot that names them, folder synced. So a crash leaves the old state or the new one:
//!
//! - a snapshot under its name finds every segment it names under its own;
//! - no whole segment that the snapshot here names is replaced by other bytes. Two replicas may encode the same records
//!   into different bytes: where this node's own segment is whole it stays, and the snapshot is written to name it.
//!
//! Segments that the new state does not name are removed once a replica begins with it, older snapshots with the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, DiskFile, OpenMode, is_sync_due, remove_if_there, remove_unless_leased};
use super::repair::COPY;
use super::segment::folder;
use super::snapshot::{self, SnapshotError, failed};
use crate::entry::{Position, SegmentMeta};
use crate::id::{Index, ShardId};

/// What the name of an unfinished copy ends with.
pub const PART: &str = ".part";

const READ_BYTES: usize = 1 << 20;

/// What a source tells of its newest snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The last entry in it.
    pub position: Position,
    /// Length and hash of its file.
    pub file: Measured,
    /// The segments it names, in order of offsets.
    pub segments: Vec<SegmentMeta>,
}

/// A file's length and xxh3-128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Bytes.
    pub bytes: u64,
    /// xxh3-128 of all of them.
    pub hash: u128,
}

/// What a folder holds before something is copied into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Every file with its length, by name.
    pub files: BTreeMap<String, u64>,
    /// The segments that the newest whole snapshot here names.
    pub own: Vec<SegmentMeta>,
}

/// A copy that is complete and has not its names yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The shard.
    pub shard: ShardId,
    /// The last entry in the snapshot.
    pub position: Position,
    /// The segments that the copied snapshot names.
    pub segments: Vec<SegmentMeta>,
    /// Names of the files that lie under `.part`; the others have their names already.
    pub copied: BTreeSet<String>,
    /// Segments of this node that stay in the place of those of the same name.
    pub own: Vec<SegmentMeta>,
}

/// A snapshot that is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The last entry in it.
    pub position: Position,
    /// The configuration of the group as of it, as the snapshot's writer encoded it.
    pub conf: Bytes,
}

/// What came of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installation {
    /// It is durable.
    Done(Arrived),
    /// A file that should be there is not; nothing was changed.
    Lacking(String),
    /// The snapshot is not the one that was announced; nothing was changed.
    Unfit(String),
}

/// The newest whole snapshot of a group; none where it has none. Reads all of it.
pub fn newest(disk: &dyn Disk, shard: ShardId) -> Result<Option<Newest>, SnapshotError> {
    let Some(stored) = snapshot::latest(disk, shard)?.newest else { return Ok(None) };
    let (position, segments) = (stored.snapshot.position, stored.snapshot.segments);
    let file = measure(disk, shard, &snapshot::name(position.index))?;
    Ok(file.map(|file| Newest { position, file, segments }))
}

/// Whether a snapshot and all segments that it names are there.
pub fn is_there(
    disk: &dyn Disk,
    shard: ShardId,
    index: Index,
    segments: &[SegmentMeta],
) -> Result<bool, SnapshotError> {
    let names = names(disk, shard)?;
    Ok(names.contains(&snapshot::name(index)) && segments.iter().all(|meta| names.contains(&meta.name())))
}

/// A piece of a file; none where there is no such file or it ends before.
pub fn read_piece(disk: &dyn Disk, path: &str, offset: u64, len: usize) -> Result<Option<Bytes>, SnapshotError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut piece = vec![0; len];
    match file.read_at(offset, &mut piece) {
        Ok(()) => Ok(Some(piece.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// What a group's folder holds.
pub fn survey(disk: &dyn Disk, shard: ShardId) -> Result<Local, SnapshotError> {
    let folder = folder(shard);
    let mut files = BTreeMap::new();
    for name in names(disk, shard)? {
        let path = format!("{folder}/{name}");
        let file = disk.open(&path, OpenMode::Read).map_err(failed("open", &path))?;
        files.insert(name, file.len().map_err(failed("measure", &path))?);
    }
    let own = snapshot::latest(disk, shard)?.newest.map_or_else(Vec::new, |stored| stored.snapshot.segments);
    Ok(Local { files, own })
}

/// Writes a piece of a copy, which is to have `bytes` in the end, at `offset`, where it ends: what lies behind is cut off,
/// and at 0 it is begun anew, with room for all of it. Not durable before [`measure`], which finds little left to do: what
/// was written is synced piece by piece.
pub fn append(
    disk: &dyn Disk,
    shard: ShardId,
    name: &str,
    bytes: u64,
    offset: u64,
    piece: &[u8],
) -> Result<(), SnapshotError> {
    let folder = folder(shard);
    let path = format!("{folder}/{name}{PART}");
    let file = if offset == 0 {
        disk.make_folder(&folder).map_err(failed("make", &folder))?;
        remove_if_there(disk, &path).map_err(failed("remove", &path))?;
        let file = disk.open(&path, OpenMode::CreateNew).map_err(failed("create", &path))?;
        file.reserve(bytes).map_err(failed("make room for", &path))?;
        file
    } else {
        disk.open(&path, OpenMode::ReadWrite).map_err(failed("open", &path))?
    };
    let len = file.len().map_err(failed("measure", &path))?;
    if len < offset {
        return Err(failed("continue", &path)(io::ErrorKind::UnexpectedEof.into()));
    }
    if len > offset {
        file.set_len(offset).map_err(failed("cut", &path))?;
    }
    file.write_at(offset, &[piece]).map_err(failed("write", &path))?;
    if is_sync_due(offset, piece.len()) {
        sync(disk, &*file, &path)?;
    }
    Ok(())
}

/// Makes a copy durable. One that cannot be is removed: what of it is on the disk nobody knows.
fn sync(disk: &dyn Disk, file: &dyn DiskFile, path: &str) -> Result<(), SnapshotError> {
    if let Err(error) = file.sync() {
        remove_if_there(disk, path).map_err(failed("remove", path))?;
        return Err(failed("sync", path)(error));
    }
    Ok(())
}

/// Reads a whole file, `.part` included in the name of a copy, which is made durable first; none where there is no such
/// file.
pub fn measure(disk: &dyn Disk, shard: ShardId, name: &str) -> Result<Option<Measured>, SnapshotError> {
    let path = format!("{}/{name}", folder(shard));
    let copy = name.ends_with(PART);
    let file = match disk.open(&path, if copy { OpenMode::ReadWrite } else { OpenMode::Read }) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    if copy {
        sync(disk, &*file, &path)?;
    }
    let bytes = file.len().map_err(failed("measure", &path))?;
    let mut hash = Xxh3::new();
    let mut piece = vec![0; READ_BYTES.min(usize::try_from(bytes).unwrap_or(READ_BYTES))];
    let mut at = 0;
    while at < bytes {
        let len = piece.len().min(usize::try_from(bytes - at).unwrap_or(READ_BYTES));
        file.read_at(at, &mut piece[..len]).map_err(failed("read", &path))?;
        hash.update(&piece[..len]);
        at += len as u64;
    }
    Ok(Some(Measured { bytes, hash: hash.digest128() }))
}

/// Puts a complete copy in its place, durable when it is done, and removes what other copies left unfinished. Nothing else
/// may work in the folder meanwhile. Segments that the copy does not name stay: they go when the replica begins with it.
pub fn install(disk: &dyn Disk, incoming: &Incoming) -> Result<Installation, SnapshotError> {
    let (shard, index) = (incoming.shard, incoming.position.index);
    let (folder, snapshot_name) = (folder(shard), snapshot::name(index));
    let lies_at = |name: &str| {
        if incoming.copied.contains(name) { format!("{name}{PART}") } else { name.to_owned() }
    };
    let names = names(disk, shard)?;
    let needed = incoming.segments.iter().map(SegmentMeta::name).chain([snapshot_name.clone()]);
    if let Some(lacking) = needed.map(|name| lies_at(&name)).find(|name| !names.contains(name)) {
        return Ok(Installation::Lacking(lacking));
    }
    let read = snapshot::read_from(disk, format!("{folder}/{}", lies_at(&snapshot_name)), shard, index);
    let mut stored = match read {
        Ok(stored) => stored,
        Err(error @ SnapshotError::Damaged { .. }) => return Ok(Installation::Unfit(error.to_string())),
        Err(error) => return Err(error),
    };
    if stored.snapshot.position != incoming.position || stored.snapshot.segments != incoming.segments {
        let why = format!("the copied snapshot through {index} is another than was announced");
        return Ok(Installation::Unfit(why));
    }
    let give_name = |name: &str| {
        let (from, to) = (format!("{folder}/{name}{PART}"), format!("{folder}/{name}"));
        disk.rename(&from, &to).map_err(failed("rename", &from))
    };
    for name in incoming.copied.iter().filter(|name| **name != snapshot_name) {
        give_name(name)?;
    }
    disk.sync_folder(&folder).map_err(failed("sync", &folder))?;
    if !incoming.own.is_empty() {
        let own: BTreeMap<String, &SegmentMeta> = incoming.own.iter().map(|meta| (meta.name(), meta)).collect();
        for meta in &mut stored.snapshot.segments {
            if let Some(own) = own.get(&meta.name()) {
                *meta = **own;
            }
        }
        snapshot::write(disk, &stored.snapshot, &stored.conf)?;
    } else if incoming.copied.contains(&snapshot_name) {
        give_name(&snapshot_name)?;
        disk.sync_folder(&folder).map_err(failed("sync", &folder))?;
    }
    discard(disk, shard)?;
    Ok(Installation::Done(Arrived { position: incoming.position, conf: stored.conf }))
}

/// Removes everything of a group whose replica is gone. Whether all of it is: what is leased stays until the next time.
pub fn clear(disk: &dyn Disk, shard: ShardId) -> Result<bool, SnapshotError> {
    let (folder, names_before) = (folder(shard), names(disk, shard)?);
    for name in &names_before {
        let path = format!("{folder}/{name}");
        remove_unless_leased(disk, &path).map_err(failed("remove", &path))?;
    }
    if !names_before.is_empty() {
        disk.sync_folder(&folder).map_err(failed("sync", &folder))?;
    }
    Ok(names(disk, shard)?.is_empty())
}

/// Removes what other copies left unfinished. The scrubber's copies of single files are its own to remove.
fn discard(disk: &dyn Disk, shard: ShardId) -> Result<(), SnapshotError> {
    let folder = folder(shard);
    let mends = format!("{COPY}{PART}");
    for name in names(disk, shard)?.iter().filter(|name| name.ends_with(PART) && !name.ends_with(&mends)) {
        let path = format!("{folder}/{name}");
        remove_if_there(disk, &path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

fn names(disk: &dyn Disk, shard: ShardId) -> Result<BTreeSet<String>, SnapshotError> {
    let folder = folder(shard);
    Ok(disk.list(&folder).map_err(failed("list", &folder))?.into_iter().collect())
}

#[cfg(test)]
pub(crate) mod tests;
