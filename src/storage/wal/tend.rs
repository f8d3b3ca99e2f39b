//! Housekeeping between groups: recycling the oldest segments, and having files ready. Everything it writes rides on
//! the next group, unless space is short. This file does not know who seals a shard that pins a segment.
//!
//! A segment goes through three groups: what is live in it is written again in the first; the second's mark no longer
//! calls it needed; when that one is durable the file is free.

use bytes::Bytes;

use super::format::{Item, Owner};
use super::{Space, Tended, Wal};
use crate::id::{Index, ShardId};
use crate::storage::error::StorageError;

/// Groups that one segment needs to become free.
const GROUPS_TO_RECYCLE: usize = 3;

impl Wal {
    /// Recycles what no replica needs, makes spare files and the reserve ready, and reports what keeps the log long.
    /// What waits is flushed first.
    ///
    /// # Errors
    /// [`StorageError::Io`] and [`StorageError::Damaged`]: the process must end. A full disk is no error here, it shows
    /// as [`Tended::space`].
    pub fn tend(&mut self) -> Result<Tended, StorageError> {
        self.flush()?;
        let tended = self.tend_flushed();
        self.poisoning(tended)
    }

    fn tend_flushed(&mut self) -> Result<Tended, StorageError> {
        let mut recycled = 0;
        for _ in 0..GROUPS_TO_RECYCLE {
            recycled += self.release()?;
            self.leave_reserve();
            self.advance();
            self.carry_forward()?;
            self.prepare()?;
            let unfinished = self.group_is_open() || self.first != self.first_durable;
            if !unfinished || (self.bytes() <= self.options.bytes_max && self.space() == Space::Ample) {
                break;
            }
            if !self.group_is_open() {
                if self.open_bytes(true) > 0 {
                    self.open_group();
                } else if let Some(file) = self.files.take() {
                    self.roll(file);
                }
            }
            self.flush()?;
        }
        let (bytes, pinning) = (self.bytes(), self.pinning());
        Ok(Tended { pinning, bytes, over: bytes > self.options.bytes_max, recycled, space: self.space() })
    }

    /// Frees the segments that a durable mark no longer calls needed.
    fn release(&mut self) -> Result<usize, StorageError> {
        let mut recycled = 0;
        while self.segments.front().is_some_and(|oldest| oldest.header.generation < self.first_durable) {
            let oldest = self.segments.pop_front().expect("just seen");
            self.files.give_back(oldest.file)?;
            recycled += 1;
        }
        Ok(recycled)
    }

    /// Goes on in a spare where the tail is a part of the reserve, which is to be whole again.
    fn leave_reserve(&mut self) {
        let reserved = self.segments.back().is_some_and(|tail| tail.file.reserved);
        if reserved && let Some(file) = self.files.take() {
            self.roll(file);
        }
    }

    /// Takes the oldest generation needed past those with nothing live.
    fn advance(&mut self) {
        let tail = self.end().generation;
        let needed = |generation: &u64| *generation == tail || self.index.needs(*generation);
        let mut generations = self.segments.iter().map(|segment| segment.header.generation);
        if let Some(first) = generations.find(|generation| *generation >= self.first && needed(generation)) {
            self.first = first;
        }
    }

    /// Writes what little is live in the oldest segment again, into the next group.
    fn carry_forward(&mut self) -> Result<(), StorageError> {
        let (first, tail) = (self.first, self.end().generation);
        let live: u64 = self.index.held(first).map(|(_, bytes)| bytes).sum();
        if self.group_is_open() || first == tail || live > self.options.pin_bytes_max {
            return Ok(());
        }
        let mut carried: Vec<(Owner, Item, Bytes)> = Vec::new();
        for (owner, log) in self.index.iter().filter(|(_, log)| log.needs(first)) {
            if log.hard_state_in == first {
                carried.push((owner, Item::HardState(log.hard_state), Bytes::new()));
            }
            if log.trimmed_in == first {
                carried.push((owner, Item::Trim(log.trimmed), Bytes::new()));
            }
            for (index, location) in log.entries.iter().filter(|(_, location)| location.generation == first) {
                let entry = self.read_entry(owner, Index(*index), location)?;
                let item = Item::Entry { index: entry.index, term: entry.term, kind: entry.kind };
                carried.push((owner, item, entry.payload));
            }
        }
        match self.put(carried, true) {
            // The segment stays until there is room.
            Err(StorageError::Full { .. }) => Ok(()),
            placed => placed,
        }
    }

    /// Has the reserve whole, then half a segment of room ahead, where the disk allows.
    pub(super) fn prepare(&mut self) -> Result<(), StorageError> {
        if self.files.restore_reserve()? && self.ample_bytes() < self.options.segment_bytes / 2 {
            self.files.add_spare()?;
        }
        Ok(())
    }

    /// The shards whose entries are in the way of recycling the oldest segment, the largest first, as many as it takes.
    fn pinning(&self) -> Vec<ShardId> {
        if self.bytes() <= self.options.bytes_max / 2 || self.first == self.end().generation {
            return Vec::new();
        }
        let mut holders: Vec<(u64, ShardId)> =
            self.index.held(self.first).map(|(owner, bytes)| (bytes, owner.0)).collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        let mut live: u64 = holders.iter().map(|(bytes, _)| bytes).sum();
        let mut pinning = Vec::new();
        for (bytes, shard) in holders {
            if live <= self.options.pin_bytes_max {
                break;
            }
            live -= bytes;
            pinning.push(shard);
        }
        pinning
    }
}
