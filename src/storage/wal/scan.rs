//! Reads the records of one segment in order, and finds marks behind a place where the order breaks. This file does
//! not know what records mean together.

use std::io;
use std::ops::Range;

use memchr::memmem;

use super::files::SegmentFile;
use super::format::{
    Head, Header, Item, MARK_BYTES, MARK_MAGIC, Owner, Place, RECORD_BYTES, RECORDS_AT, continued, decode,
    decode_lone_mark,
};
use crate::storage::error::{StorageError, io_error};

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A window over a file.
#[derive(Debug)]
struct Window<'a> {
    file: &'a SegmentFile,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `None` past the end of the file.
    fn get(&mut self, offset: u64, length: u64) -> Result<Option<&[u8]>, StorageError> {
        let Some(end) = offset.checked_add(length).filter(|end| *end <= self.file.capacity) else { return Ok(None) };
        if offset < self.at || end > self.at + self.bytes.len() as u64 {
            let until = end.max(offset.saturating_add(WINDOW_BYTES)).min(self.file.capacity);
            self.bytes.resize(usize::try_from(until - offset).expect("a segment fits memory"), 0);
            self.at = offset;
            let read = self.file.file.read_at(offset, &mut self.bytes);
            read.map_err(io_error("read", &self.file.name))?;
        }
        let start = (offset - self.at) as usize;
        Ok(Some(&self.bytes[start..start + length as usize]))
    }
}

/// One record that continued the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) owner: Owner,
    pub(super) item: Item,
    pub(super) offset: u64,
    /// Of the whole record.
    pub(super) length: u32,
    /// What its checksum continued.
    pub(super) chain: u32,
}

/// Walks the chain of one segment.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    window: Window<'a>,
    header: Header,
    at: u64,
    chain: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(file: &'a SegmentFile, header: Header) -> Self {
        Self { window: Window { file, at: 0, bytes: Vec::new() }, header, at: RECORDS_AT, chain: header.chain() }
    }

    /// Where the next record starts, or where the chain ended.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next record; `None` where the chain ends, for whatever reason.
    pub(super) fn next(&mut self) -> Result<Option<Found>, StorageError> {
        match self.read()? {
            #[cfg(feature = "mutants")]
            None if mutant!(GenerationIgnored) => self.read_behind(),
            found => Ok(found),
        }
    }

    /// The first record behind the end, at a mark, of whichever use of the file.
    #[cfg(feature = "mutants")]
    fn read_behind(&mut self) -> Result<Option<Found>, StorageError> {
        let end = self.at;
        let rest = self.window.get(end, self.window.file.capacity - end)?.expect("within the file");
        let marks = memmem::find_iter(rest, MARK_MAGIC).filter_map(|magic| magic.checked_sub(RECORD_BYTES));
        for mark in marks.collect::<Vec<_>>() {
            self.at = end + mark as u64;
            let found = self.read()?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.at = end;
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<Found>, StorageError> {
        let (offset, chain) = (self.at, self.chain);
        let Some(head) = self.head()? else { return Ok(None) };
        if head.generation != self.header.generation && !mutant!(GenerationIgnored) {
            return Ok(None);
        }
        let length = RECORD_BYTES as u64 + u64::from(head.length);
        let Some(record) = self.window.get(offset, length)? else { return Ok(None) };
        let Some((owner, item)) = decode(record, chain) else { return Ok(None) };
        let Ok(length) = u32::try_from(length) else { return Ok(None) };
        (self.at, self.chain) = (offset + u64::from(length), continued(head.checksum));
        Ok(Some(Found { owner, item, offset, length, chain }))
    }

    /// The payload of a record that `next` has just found.
    pub(super) fn payload(&mut self, found: &Found) -> Result<&[u8], StorageError> {
        let record = self.window.get(found.offset, u64::from(found.length))?;
        Ok(&record.expect("it was read whole")[RECORD_BYTES..])
    }

    /// Whether what stands where the chain ended was begun in this use of the file.
    pub(super) fn ends_torn(&mut self) -> Result<bool, StorageError> {
        let generation = self.header.generation;
        Ok(self.head()?.is_some_and(|head| head.generation == generation))
    }

    fn head(&mut self) -> Result<Option<Head>, StorageError> {
        Ok(self.window.get(self.at, RECORD_BYTES as u64)?.and_then(Head::decode))
    }

    /// The highest offset of this file that it says itself was durable, by its header and by the marks behind the end
    /// of the chain.
    pub(super) fn durable_beyond(&mut self) -> Result<u64, StorageError> {
        let mut durable = self.header.durable;
        let mut at = self.at;
        while let Some(stretch) = stretch(at, self.window.file.capacity) {
            let length = stretch.end - stretch.start;
            let bytes = self.window.get(stretch.start, length)?.expect("within the file");
            for magic in memmem::find_iter(bytes, MARK_MAGIC) {
                let Some(start) = magic.checked_sub(RECORD_BYTES) else { continue };
                let place = Place { generation: self.header.generation, offset: at + start as u64 };
                let named = decode_lone_mark(&bytes[start..], self.header.salt, place);
                if let Some(named) = named.filter(|named| named.generation == place.generation) {
                    durable = durable.max(named.offset);
                }
            }
            at = stretch.end - (MARK_BYTES - 1).min(length - 1);
            if stretch.end == self.window.file.capacity {
                break;
            }
        }
        Ok(durable)
    }
}

/// The next bytes to search: a window's worth, overlapping the one before by less than a mark.
fn stretch(at: u64, capacity: u64) -> Option<Range<u64>> {
    let end = at.saturating_add(WINDOW_BYTES).min(capacity);
    (at < end).then_some(at..end)
}

/// Reads one record and checks that it still is what was written.
pub(super) fn read_record(
    file: &SegmentFile,
    offset: u64,
    length: u32,
    chain: u32,
) -> io::Result<Option<(Vec<u8>, Owner, Item)>> {
    let mut record = vec![0; length as usize];
    file.file.read_at(offset, &mut record)?;
    Ok(decode(&record, chain).map(|(owner, item)| (record, owner, item)))
}
