//! The seam to a disk. Production is a folder of files; the simulation and the tests use a disk that forgets and
//! tears what was not synced.
//!
//! Contract, which every implementation keeps and `storage` relies on:
//! - paths are relative to the data folder, of ASCII letters, digits, `-`, `.` and `/`;
//! - `write_at` may be lost, kept or torn in any part until `sync` of that file returned `Ok`;
//! - a file's creation, removal and renaming may be lost until `sync_folder` of its folder returned `Ok`;
//! - a file that somebody copies may be leased: `remove` of it fails with `ResourceBusy` and changes nothing;
//! - after `sync` failed the file's unsynced content is unknown for ever: the caller must not try again;
//! - all calls block; they are made from log-writer and worker threads only.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::limits::FILE_SYNC_BYTES;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; writing fails.
    Read,
    /// It must exist.
    ReadWrite,
    /// It must not exist.
    CreateNew,
}

/// A folder on a disk.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens or creates a file.
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a folder, sorted; empty where the folder does not exist.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes a folder and those above it; fine if it exists. Durable when it returns.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// Removes a file; `NotFound` where there is none, `ResourceBusy` where it is leased.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Renames a file over another.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, removals and renamings in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Those and what is written already, by whomever.
    fn total_bytes(&self) -> io::Result<u64>;
}

/// Whether a long file that is written from its beginning on is made durable after `len` bytes at `offset`: so often that
/// no sync has much to do.
pub(super) fn is_sync_due(offset: u64, len: usize) -> bool {
    offset / FILE_SYNC_BYTES < (offset + len as u64) / FILE_SYNC_BYTES
}

/// Removes a file unless it is gone already.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes a file unless it is gone already or leased.
pub(super) fn remove_unless_leased(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match remove_if_there(disk, path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        outcome => outcome,
    }
}

/// An open file. Dropping it closes it.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `into` from `offset`; `UnexpectedEof` where the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes the parts one after the other from `offset`.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Makes everything written durable, and the length (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Extends the file to `len` with real blocks, so that writing below `len` cannot meet a full disk.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Sets blocks aside up to `len`, where the file system can, and leaves the length as it is. The journal of ext4 waits
    /// for the data of blocks that a file was given since its last commit, and every sync of another file with it: not for
    /// these.
    fn reserve(&self, len: u64) -> io::Result<()>;
}
