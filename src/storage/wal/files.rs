//! The files of the log's folder: segments, spares that wait for their next use, and the reserve for a full disk.
//! This file does not know records.
//!
//! `wal/NNNNNNNN.seg` is a segment or a spare; which one, its header and the log's chain of headers say.
//! `wal/reserve-1` and `wal/reserve-2` are small spares. One is for records that may not fail on a full disk. The other
//! is left to recovery, which always needs a file to carry the tail over into, and frees one by doing so. `wal/new` is
//! a file in the making: every other file has its full size and a durable header.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::WalOptions;
use super::format::{Header, RECORDS_AT};
use crate::limits;
use crate::storage::disk::{Disk, DiskFile, OpenMode, remove_if_there};
use crate::storage::error::{StorageError, io_error};

pub(super) const FOLDER: &str = "wal";
const NEW: &str = "wal/new";
const RESERVES: [&str; 2] = ["wal/reserve-1", "wal/reserve-2"];

/// One file, whatever its use.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) capacity: u64,
    /// It was of the reserve, or is.
    pub(super) reserved: bool,
}

/// The folder's spare files and its reserve.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    next: u64,
    spares: VecDeque<SegmentFile>,
    reserves: Vec<SegmentFile>,
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
        let mut files = Self { disk, options, next, spares: VecDeque::new(), reserves: Vec::new() };
        for name in RESERVES {
            let reserve = files.open_reserve(name)?;
            files.reserves.extend(reserve);
        }
        Ok((files, found))
    }

    /// A part of the reserve as an earlier process left it; one that is not as it should be is removed.
    fn open_reserve(&self, name: &str) -> Result<Option<SegmentFile>, StorageError> {
        let file = match self.disk.open(name, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", name)(error)),
        };
        let capacity = file.len().map_err(io_error("measure", name))?;
        let mut sector = [0; RECORDS_AT as usize];
        let whole = capacity == self.options.reserve_bytes
            && file.read_at(0, &mut sector).is_ok()
            && Header::decode(&sector).is_some();
        if whole {
            return Ok(Some(SegmentFile { name: name.to_owned(), file, capacity, reserved: true }));
        }
        self.disk.remove(name).map_err(io_error("remove", name))?;
        Ok(None)
    }

    /// Capacities of the files that `take` would hand out, in order.
    pub(super) fn capacities(&self) -> impl Iterator<Item = u64> {
        self.spares.iter().map(|spare| spare.capacity)
    }

    /// Nothing of the reserve is in use.
    pub(super) fn reserve_is_whole(&self) -> bool {
        self.reserves.len() == RESERVES.len()
    }

    pub(super) fn take(&mut self) -> Option<SegmentFile> {
        self.spares.pop_front()
    }

    /// Hands out a file that holds so many bytes of records, to recovery: a spare, a new one, or the last of the reserve.
    /// `None`: the disk is full.
    pub(super) fn take_room(&mut self, bytes: u64) -> Result<Option<SegmentFile>, StorageError> {
        if RECORDS_AT + bytes <= self.options.segment_bytes && (!self.spares.is_empty() || self.add_spare()?) {
            return Ok(self.take());
        }
        self.take_reserve(bytes, 0)
    }

    /// Hands out a part of the reserve under a segment's name, durably, if it holds so many bytes of records and so many
    /// parts are left.
    pub(super) fn take_reserve(&mut self, bytes: u64, left: usize) -> Result<Option<SegmentFile>, StorageError> {
        if self.reserves.len() <= left || RECORDS_AT + bytes > self.options.reserve_bytes {
            return Ok(None);
        }
        let Some(mut file) = self.reserves.pop() else { return Ok(None) };
        let reserve = std::mem::replace(&mut file.name, self.next_name());
        self.rename(&reserve, &file.name)?;
        Ok(Some(file))
    }

    /// Makes one more spare. `false`: the disk is full.
    pub(super) fn add_spare(&mut self) -> Result<bool, StorageError> {
        let name = self.next_name();
        let Some(file) = self.create(&name, self.options.segment_bytes)? else { return Ok(false) };
        self.spares.push_back(SegmentFile { name, file, capacity: self.options.segment_bytes, reserved: false });
        Ok(true)
    }

    /// Makes what is missing of the reserve. `false`: the disk is full.
    pub(super) fn restore_reserve(&mut self) -> Result<bool, StorageError> {
        while let Some(name) = self.reserve_name() {
            let capacity = self.options.reserve_bytes;
            let Some(file) = self.create(name, capacity)? else { return Ok(false) };
            self.reserves.push(SegmentFile { name: name.to_owned(), file, capacity, reserved: true });
        }
        Ok(true)
    }

    /// A name of the reserve that no file has.
    fn reserve_name(&self) -> Option<&'static str> {
        RESERVES.into_iter().find(|name| self.reserves.iter().all(|reserve| reserve.name != *name))
    }

    /// Takes back a file that the log needs no more: as a spare, into the reserve, or to remove it.
    pub(super) fn give_back(&mut self, mut file: SegmentFile) -> Result<(), StorageError> {
        if file.capacity == self.options.segment_bytes && self.spares.len() < limits::WAL_SPARE_SEGMENTS_MAX {
            file.reserved = false;
            self.spares.push_back(file);
            return Ok(());
        }
        let reserve = self.reserve_name().filter(|_| file.capacity == self.options.reserve_bytes);
        if let Some(name) = reserve {
            self.rename(&file.name, name)?;
            self.reserves.push(SegmentFile { name: name.to_owned(), reserved: true, ..file });
            return Ok(());
        }
        self.disk.remove(&file.name).map_err(io_error("remove", &file.name))?;
        self.sync_folder()
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
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                remove_if_there(&*self.disk, NEW).map_err(io_error("remove", NEW))?;
                Ok(None)
            }
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
