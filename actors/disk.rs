//! The data folder on the machine's own file system.
//!
//! It is locked for one process: two would tear each other's log. Paths are relative and of the few characters that
//! `millpond::storage::disk` allows, so that nothing from outside can name a file elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond::class::Class;
use millpond::storage::disk::{Disk, DiskFile, OpenMode};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use thiserror::Error;

const LOCK: &str = "lock";
/// Parts of one call: the kernel's own bound.
const PARTS_MAX: usize = 1_024;
/// Zeros written at once where the file system cannot allocate.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("the data folder {folder} is in use by process {holder}: stop it, or give this node a folder of its own")]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// It cannot be made or opened.
    #[error("cannot use the data folder {folder}: {source}")]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
}

impl FolderError {
    /// An operator must act.
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}

/// A data folder, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct FolderDisk {
    root: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: File,
}

impl FolderDisk {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`FolderError::InUse`] where another process has it; [`FolderError::Unusable`] otherwise.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { folder: root.to_owned(), source };
        fs::create_dir_all(root).map_err(unusable)?;
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        let mut lock = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(FolderError::InUse { folder: root.to_owned(), holder });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(unusable)?;
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder's path; the empty one is the data folder itself.
    fn folder(&self, folder: &str) -> io::Result<PathBuf> {
        if folder.is_empty() { Ok(self.root.clone()) } else { self.path(folder) }
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        let named = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        };
        if path.split('/').all(named) {
            return Ok(self.root.join(path));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no path of a data folder")))
    }
}

fn sync_folder_at(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Disk for FolderDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => drop(options.write(true)),
            OpenMode::CreateNew => drop(options.write(true).create_new(true)),
        }
        Ok(Arc::new(FolderFile { file: options.open(self.path(path)?)? }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.folder(folder)?) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let mut path = self.folder(folder)?;
        fs::create_dir_all(&path)?;
        while path != self.root && path.pop() {
            sync_folder_at(&path)?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        sync_folder_at(&self.folder(folder)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.root)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.root)?;
        // As `df` does: what only the system's administrator could write does not count.
        let blocks = system.f_blocks.saturating_sub(system.f_bfree).saturating_add(system.f_bavail);
        Ok(blocks.saturating_mul(system.f_frsize))
    }
}

#[derive(Debug)]
struct FolderFile {
    file: File,
}

impl FolderFile {
    /// Writes all slices, in as few calls as the kernel allows.
    fn write_slices(&self, mut offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !slices.is_empty() {
            let some = &slices[..slices.len().min(PARTS_MAX)];
            match rustix::io::pwritev(&self.file, some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl DiskFile for FolderFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        self.write_slices(offset, &mut slices)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut at = self.len()?;
        while at < len {
            let zeros = &ZEROS[..usize::try_from(len - at).unwrap_or(ZEROS.len()).min(ZEROS.len())];
            self.file.write_all_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millpond::entry::{Entry, EntryKind, HardState};
    use millpond::id::{Index, ReplicaId, ShardId, Term};
    use millpond::storage::wal::{LogOp, Space, Wal, WalOptions};

    use super::*;

    #[test]
    fn room_that_is_set_aside_has_blocks_and_no_length() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let file = disk.open("file", OpenMode::CreateNew).unwrap();
        file.reserve(1 << 20).unwrap();
        file.write_at(0, &[b"abc"]).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(folder.path().join("file")).unwrap());
        assert!(file.len().unwrap() == 3 && blocks * 512 >= 1 << 20, "{blocks} blocks of 512 bytes");
    }

    #[test]
    fn a_second_process_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let error = FolderDisk::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(disk);
        FolderDisk::open(folder.path()).unwrap();
    }

    #[test]
    fn a_path_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        for path in ["../x", "/etc/passwd", "wal/../../x", "", "a//b", ".hidden", "sp ace"] {
            let error = disk.open(path, OpenMode::CreateNew).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn many_parts_are_written_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        disk.make_folder("a/b").unwrap();
        let file = disk.open("a/b/c", OpenMode::CreateNew).unwrap();
        let bytes: Vec<[u8; 3]> = (0..3_000_u32).map(|at| [at as u8, (at >> 8) as u8, 0xff]).collect();
        let mut parts: Vec<&[u8]> = bytes.iter().map(|part| &part[..]).collect();
        parts.insert(5, &[]);
        file.write_at(7, &parts).unwrap();
        file.sync().unwrap();
        let mut read = vec![0; 9_000];
        file.read_at(7, &mut read).unwrap();
        assert_eq!(read, bytes.concat());
        assert_eq!(file.read_at(8, &mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        disk.rename("a/b/c", "a/b/d").unwrap();
        disk.sync_folder("a/b").unwrap();
        assert_eq!(disk.list("a/b").unwrap(), ["d"]);
        assert!(disk.list("none").unwrap().is_empty() && disk.free_bytes().unwrap() > 0);
        assert!(disk.total_bytes().unwrap() > disk.free_bytes().unwrap());
        disk.remove("a/b/d").unwrap();
        assert_eq!(disk.remove("a/b/d").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_log_in_a_folder_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            WalOptions { segment_bytes: 1 << 20, bytes_max: 8 << 20, reserve_bytes: 64 << 10, pin_bytes_max: 4 << 10 };
        let (shard, replica) = (ShardId(3), ReplicaId(1));
        let open = |seed| {
            let disk = FolderDisk::open(folder.path()).unwrap();
            Wal::open(Arc::new(disk), options, seed).unwrap().0
        };
        let mut wal = open(1);
        let entry = |index| Entry {
            index: Index(index),
            term: Term(1),
            kind: EntryKind::Normal,
            payload: Bytes::from(vec![index as u8; 10_000]),
        };
        let hard_state = HardState { term: Term(1), vote: Some(replica), commit: Index(150) };
        let entries: Vec<Entry> = (1..=200).map(entry).collect();
        for group in entries.chunks(10) {
            let op = LogOp::Append { truncate_from: None, entries: group.to_vec(), hard_state: Some(hard_state) };
            wal.append(shard, replica, op).unwrap();
            assert!(wal.flush().unwrap().bytes < 10 * 10_500);
            assert_eq!(wal.tend().unwrap().space, Space::Ample);
        }
        drop(wal);
        let recovered = open(2).load(shard, replica).unwrap();
        assert_eq!(recovered.entries, entries);
        assert_eq!(recovered.hard_state.commit, Index(150));
    }
}
