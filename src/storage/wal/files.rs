//! The files of the log's folder: segments, spares that wait for their next use, and the reserve for a full disk.
//! This file does not know records.
//!
//! `wal/NNNNNNNN.seg` is a segment or a spare; which one, its header and the log's chain of headers say. `wal/reserve`
//! is a small spare that is used up only by records that may not fail. `wal/new` is a file in the making: every other
//! file has its full size and a durable header.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::WalOptions;
use super::format::{Header, RECORDS_AT};
use crate::limits;
use crate::storage::disk::{Disk, DiskFile, OpenMode};
use crate::storage::error::{StorageError, io_error};

pub(super) const FOLDER: &str = "wal";
const NEW: &str = "wal/new";
const RESERVE: &str = "wal/reserve";

/// One file, whatever its use.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) capacity: u64,
    /// It was the reserve, or is it.
    pub(super) reserved: bool,
}

/// The folder's spare files and its reserve.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    next: u64,
    spares: VecDeque<SegmentFile>,
    reserve: Option<SegmentFile>,
}

impl Files {
    /// Opens the folder and every segment file in it, with its header.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
    ) -> Result<(Self, Vec<(SegmentFile, Header)>), StorageError> {
        disk.make_folder(FOLDER).map_err(io_error("make", FOLDER))?;
        // What is listed next may be renamings of a killed process that are not durable yet.
        disk.sync_folder(FOLDER).map_err(io_error("sync", FOLDER))?;
        let mut found = Vec::new();
        let mut next = 1;
        for name in disk.list(FOLDER).map_err(io_error("list", FOLDER))? {
            let path = format!("{FOLDER}/{name}");
            if let Some(number) = name.strip_suffix(".seg").and_then(|number| number.parse::<u64>().ok()) {
                next = next.max(number + 1);
                found.push(open_segment(&*disk, path)?);
            } else if path == NEW {
                disk.remove(NEW).map_err(io_error("remove", NEW))?;
            }
        }
        let mut files = Self { disk, options, next, spares: VecDeque::new(), reserve: None };
        files.reserve = files.open_reserve()?;
        Ok((files, found))
    }

    /// The reserve as an earlier process left it; one that is not as it should be is made anew.
    fn open_reserve(&self) -> Result<Option<SegmentFile>, StorageError> {
        let file = match self.disk.open(RESERVE, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", RESERVE)(error)),
        };
        let capacity = file.len().map_err(io_error("measure", RESERVE))?;
        let mut sector = [0; RECORDS_AT as usize];
        let whole = capacity == self.options.reserve_bytes
            && file.read_at(0, &mut sector).is_ok()
            && Header::decode(&sector).is_some();
        if whole {
            return Ok(Some(SegmentFile { name: RESERVE.to_owned(), file, capacity, reserved: true }));
        }
        self.disk.remove(RESERVE).map_err(io_error("remove", RESERVE))?;
        Ok(None)
    }

    /// Capacities of the files that `take` would hand out, in order.
    pub(super) fn capacities(&self) -> impl Iterator<Item = u64> {
        self.spares.iter().map(|spare| spare.capacity)
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.reserve.is_some()
    }

    /// The capacity of the reserve, 0 where it is used up.
    pub(super) fn reserve_capacity(&self) -> u64 {
        self.reserve.as_ref().map_or(0, |reserve| reserve.capacity)
    }

    pub(super) fn take(&mut self) -> Option<SegmentFile> {
        self.spares.pop_front()
    }

    /// Hands out a file that holds so many bytes of records: a spare, a new one, or the reserve. `None`: the disk is full.
    pub(super) fn take_room(&mut self, bytes: u64) -> Result<Option<SegmentFile>, StorageError> {
        let holds = |capacity: u64| RECORDS_AT + bytes <= capacity;
        if holds(self.options.segment_bytes) && (!self.spares.is_empty() || self.add_spare()?) {
            return Ok(self.take());
        }
        if holds(self.reserve_capacity()) { self.take_reserve() } else { Ok(None) }
    }

    /// Hands out the reserve under a segment's name, durably.
    pub(super) fn take_reserve(&mut self) -> Result<Option<SegmentFile>, StorageError> {
        let Some(mut file) = self.reserve.take() else { return Ok(None) };
        file.name = self.next_name();
        self.rename(RESERVE, &file.name)?;
        Ok(Some(file))
    }

    /// Makes one more spare. `false`: the disk is full.
    pub(super) fn add_spare(&mut self) -> Result<bool, StorageError> {
        let name = self.next_name();
        let Some(file) = self.create(&name, self.options.segment_bytes)? else { return Ok(false) };
        self.spares.push_back(SegmentFile { name, file, capacity: self.options.segment_bytes, reserved: false });
        Ok(true)
    }

    /// Makes the reserve if there is none. `false`: the disk is full.
    pub(super) fn restore_reserve(&mut self) -> Result<bool, StorageError> {
        if self.reserve.is_none() {
            let Some(file) = self.create(RESERVE, self.options.reserve_bytes)? else { return Ok(false) };
            let capacity = self.options.reserve_bytes;
            self.reserve = Some(SegmentFile { name: RESERVE.to_owned(), file, capacity, reserved: true });
        }
        Ok(true)
    }

    /// Takes back a file that the log needs no more: as a spare, as the reserve, or to remove it.
    pub(super) fn give_back(&mut self, mut file: SegmentFile) -> Result<(), StorageError> {
        if file.capacity == self.options.segment_bytes && self.spares.len() < limits::WAL_SPARE_SEGMENTS_MAX {
            file.reserved = false;
            self.spares.push_back(file);
        } else if file.capacity == self.options.reserve_bytes && self.reserve.is_none() {
            self.rename(&file.name, RESERVE)?;
            self.reserve = Some(SegmentFile { name: RESERVE.to_owned(), reserved: true, ..file });
        } else {
            self.disk.remove(&file.name).map_err(io_error("remove", &file.name))?;
            self.sync_folder()?;
        }
        Ok(())
    }

    pub(super) fn sync_folder(&self) -> Result<(), StorageError> {
        self.disk.sync_folder(FOLDER).map_err(io_error("sync", FOLDER))
    }

    fn next_name(&mut self) -> String {
        self.next += 1;
        format!("{FOLDER}/{:08}.seg", self.next - 1)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.disk.rename(from, to).map_err(io_error("rename", from))?;
        self.sync_folder()
    }

    /// A file with real blocks and an empty header, durable before it has its name. `None`: the disk is full.
    fn create(&self, name: &str, capacity: u64) -> Result<Option<Arc<dyn DiskFile>>, StorageError> {
        let made = self.disk.open(NEW, OpenMode::CreateNew).and_then(|file| {
            file.allocate(capacity)?;
            file.write_at(0, &[&Header::default().encode()])?;
            file.sync()?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.rename(NEW, name)?;
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => match self.disk.remove(NEW) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", NEW)(error)),
                Ok(()) | Err(_) => Ok(None),
            },
            Err(error) => Err(io_error("make", NEW)(error)),
        }
    }
}

fn open_segment(disk: &dyn Disk, name: String) -> Result<(SegmentFile, Header), StorageError> {
    let file = disk.open(&name, OpenMode::ReadWrite).map_err(io_error("open", &name))?;
    let capacity = file.len().map_err(io_error("measure", &name))?;
    let mut sector = [0; RECORDS_AT as usize];
    if capacity >= RECORDS_AT {
        file.read_at(0, &mut sector).map_err(io_error("read", &name))?;
    }
    match Header::decode(&sector) {
        Some(header) => Ok((SegmentFile { name, file, capacity, reserved: false }, header)),
        None => {
            let why = "its header fits neither its checksum nor this version";
            Err(StorageError::Damaged { file: name, offset: 0, durable: RECORDS_AT, why })
        }
    }
}
