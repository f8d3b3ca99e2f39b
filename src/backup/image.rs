//! A segment in memory, as an object store gave it back: its records, or what is wrong with it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::{BackupError, SegmentEntry};
use crate::block::l1::L1;
use crate::block::rows::{Projection, Rows};
use crate::id::ShardId;
use crate::storage::disk::{Disk, DiskFile, OpenMode};
use crate::storage::segment::Segment;

/// A segment whose length, hash, index and digest of the index are those of its manifest.
#[derive(Debug)]
pub struct SegmentImage {
    name: String,
    digest: u128,
    segment: Segment,
}

impl SegmentImage {
    /// Opens the bytes of an object. Blocks are verified as they are read.
    ///
    /// # Errors
    /// The bytes are not those of the segment.
    pub fn open(shard: ShardId, entry: &SegmentEntry, bytes: Bytes) -> Result<Self, BackupError> {
        let name = format!("segments/{}", entry.object());
        let damaged = |what: String| BackupError::Damaged { name: name.clone(), what };
        if bytes.len() as u64 != entry.bytes {
            return Err(damaged(format!("it has {} bytes, {} were written", bytes.len(), entry.bytes)));
        }
        if xxh3_128(&bytes) != entry.hash {
            return Err(damaged("its hash is not the one in its name".to_owned()));
        }
        let segment = Segment::open(&OneFile(bytes), shard, &entry.meta())
            .map_err(|source| BackupError::Segment { name: name.clone(), source })?;
        Ok(Self { name, digest: entry.digest, segment })
    }

    /// The records of every block, in the order of the file.
    ///
    /// # Errors
    /// A block does not decode, or the records are others than those that were sealed.
    pub fn rows(&self) -> Result<Vec<Rows>, BackupError> {
        let mut rows = Vec::with_capacity(self.segment.blocks().len());
        let mut digest = 0_u128;
        for block in 0..self.segment.blocks().len() {
            let bytes = self.segment.read(block);
            let bytes = bytes.map_err(|source| BackupError::Segment { name: self.name.clone(), source })?;
            let decoded = L1::open(bytes).and_then(|block| block.rows(Projection::ALL));
            let decoded = decoded.map_err(|source| BackupError::Block { name: self.name.clone(), block, source })?;
            digest = digest.wrapping_add(decoded.digest());
            rows.push(decoded);
        }
        if digest == self.digest {
            return Ok(rows);
        }
        let what = "its records are others than those that were sealed".to_owned();
        Err(BackupError::Damaged { name: self.name.clone(), what })
    }
}

/// A disk that holds one file, under whatever name it is asked for, and cannot be written to.
#[derive(Clone, Debug)]
struct OneFile(Bytes);

fn read_only() -> io::Error {
    io::ErrorKind::ReadOnlyFilesystem.into()
}

impl Disk for OneFile {
    fn open(&self, _: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::Read { Ok(Arc::new(self.clone())) } else { Err(read_only()) }
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn make_folder(&self, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

impl DiskFile for OneFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let found = from.and_then(|from| self.0.get(from..from.checked_add(into.len())?));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[&[u8]]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Err(read_only())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Err(read_only())
    }
}
