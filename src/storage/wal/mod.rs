//! The log of one node: every change of every replica's log and hard state, in one sequence, durable by groups.
//!
//! `format` describes the bytes. The log is a chain of segment files: each header names the one before it and where
//! that one ended. New records go to the last one; when it is full a spare file becomes the next. The oldest is
//! recycled once nothing in it is live, what little is live having been written again further on.
//!
//! Invariants:
//! - One group is written and synced before the next one is begun. So a position that any group names as durable was.
//! - A segment is wholly durable before the header of the next is written. Only the last can have a torn tail.
//! - A segment that a durable mark does not call needed is never read again. Only such a file is reused or removed.
//! - Records change the in-memory index when they are durable, not before, and by the same code as at start.
//! - After a failed write or sync every call is refused: what the disk holds is unknown.
//!
//! It does not know what entries mean, when a shard seals, or who waits for a group.

mod files;
mod format;
mod index;
mod recover;
mod scan;
mod tend;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use self::files::{Files, SegmentFile};
use self::format::{Header, Item, MARK_BYTES, Owner, Place, RECORD_BYTES, RECORDS_AT, Slot, encode};
use self::index::{Location, LogIndex};
use crate::entry::{Entry, HardState, Position, Recovered};
use crate::id::{Index, ReplicaId, ShardId};
use crate::limits;
use crate::storage::disk::Disk;
use crate::storage::error::{StorageError, io_error};

/// Payloads up to this are copied beside their heads: one part of a vectored write costs more than a short copy.
const COPY_BYTES_MAX: usize = 1 << 10;

/// The bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// One segment file, in bytes; below 4 GiB.
    pub segment_bytes: u64,
    /// Segments of the log together, in bytes. Past half of it shards that pin the oldest are reported; past all of it
    /// [`Tended::over`] is set; a quarter more and [`Wal::can_take`] says no.
    pub bytes_max: u64,
    /// The reserve for a full disk: two files of so many bytes each; less than a segment. A restart on a full disk needs
    /// the last group to fit into one.
    pub reserve_bytes: u64,
    /// Live bytes in the oldest segment up to which they are written again; at most a quarter of the reserve.
    pub pin_bytes_max: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            bytes_max: limits::WAL_BYTES_MAX,
            reserve_bytes: limits::WAL_RESERVE_BYTES,
            pin_bytes_max: limits::WAL_PIN_BYTES_MAX,
        }
    }
}

impl WalOptions {
    /// Whether the bounds fit each other.
    ///
    /// # Errors
    /// [`StorageError::Options`] names the one that does not.
    pub fn validate(&self) -> Result<(), StorageError> {
        let least = RECORDS_AT + 8 * MARK_BYTES;
        let checks = [
            (self.segment_bytes <= u64::from(u32::MAX), "segment_bytes", self.segment_bytes, "it must be below 4 GiB"),
            (self.reserve_bytes >= least, "reserve_bytes", self.reserve_bytes, "it must hold a few records"),
            (
                self.reserve_bytes < self.segment_bytes,
                "reserve_bytes",
                self.reserve_bytes,
                "it must be below segment_bytes",
            ),
            (self.bytes_max / 4 >= self.segment_bytes, "bytes_max", self.bytes_max, "it must hold four segments"),
            (
                self.pin_bytes_max <= self.reserve_bytes / 4,
                "pin_bytes_max",
                self.pin_bytes_max,
                "it must fit four times into reserve_bytes",
            ),
        ];
        match checks.into_iter().find(|check| !check.0) {
            Some((_, name, value, why)) => Err(StorageError::Options { name, value, why }),
            None => Ok(()),
        }
    }
}

/// A change of one replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOp {
    /// The suffix from `truncate_from` goes, then the entries come, contiguous; hard state and entries may be absent.
    /// Entries that the log already holds at or above the first of `entries` go in any case.
    Append {
        /// The first index to remove.
        truncate_from: Option<Index>,
        /// What follows.
        entries: Vec<Entry>,
        /// The new hard state.
        hard_state: Option<HardState>,
    },
    /// Entries through this position live in a snapshot.
    Trim {
        /// The last entry to remove.
        through: Position,
    },
    /// A snapshot was installed: the log holds nothing and goes on behind it.
    Install {
        /// What the snapshot covers.
        at: Position,
        /// The hard state from then on.
        hard_state: HardState,
    },
}

/// What one flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes written.
    pub bytes: u64,
    /// Records in them, without marks.
    pub records: u64,
    /// Syncs that made them durable: 1, and one more for each segment begun on the way; 0 where nothing waited.
    pub syncs: u64,
}

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments of the log.
    pub segments: usize,
    /// Records read, without marks.
    pub records: u64,
    /// Bytes of the records that were kept of the last segment and written again, synced.
    pub carried_bytes: u64,
    /// The file and offset where a torn tail was cut; nothing behind it had been acknowledged.
    pub cut: Option<(String, u64)>,
}

/// Room for more log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Anything can be logged.
    Ample,
    /// Only small records of consensus: ingest must be refused and leadership handed over.
    ReserveOnly,
}

/// What housekeeping found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tended {
    /// Shards whose entries keep the oldest segment although the log is past half of its bound, the largest first:
    /// seal and trim them.
    pub pinning: Vec<ShardId>,
    /// The log in bytes, as [`Wal::bytes`].
    pub bytes: u64,
    /// The log is past its bound: absent replicas hold it back no longer.
    pub over: bool,
    /// Segments that became free for their next use.
    pub recycled: usize,
    /// Room for more.
    pub space: Space,
}

/// A segment of the log. `end` and `chain` include what waits for the next flush.
#[derive(Debug)]
struct Segment {
    file: SegmentFile,
    header: Header,
    end: u64,
    chain: u32,
}

impl Segment {
    fn remaining(&self) -> u64 {
        self.file.capacity.saturating_sub(self.end)
    }
}

/// What one segment gets of the next flush.
#[derive(Debug)]
struct Group {
    generation: u64,
    at: u64,
    /// Heads, marks and short payloads.
    scratch: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Scratch(Range<usize>),
    Payload(Bytes),
}

impl Group {
    fn new(generation: u64, at: u64) -> Self {
        Self { generation, at, scratch: Vec::new(), parts: Vec::new() }
    }

    /// What was put into scratch since `from` goes out next.
    fn push_scratch(&mut self, from: usize) {
        let to = self.scratch.len();
        match self.parts.last_mut() {
            Some(Part::Scratch(range)) if range.end == from => range.end = to,
            Some(_) | None => self.parts.push(Part::Scratch(from..to)),
        }
    }

    fn push_payload(&mut self, payload: Bytes) {
        if payload.len() <= COPY_BYTES_MAX {
            let from = self.scratch.len();
            self.scratch.extend_from_slice(&payload);
            self.push_scratch(from);
        } else {
            self.parts.push(Part::Payload(payload));
        }
    }

    fn slices(&self) -> Vec<&[u8]> {
        self.parts.iter().map(|part| self.slice(part)).collect()
    }

    fn slice<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Scratch(range) => &self.scratch[range.clone()],
            Part::Payload(payload) => payload,
        }
    }
}

/// What waits for the next flush.
#[derive(Debug, Default)]
struct Pending {
    groups: Vec<Group>,
    changes: Vec<(Owner, Item, Location)>,
    /// What its marks call the oldest generation needed.
    first: u64,
}

/// The log of one node. One owner; every call may block.
#[derive(Debug)]
pub struct Wal {
    options: WalOptions,
    seed: u64,
    files: Files,
    /// Oldest first; the last one takes new records.
    segments: VecDeque<Segment>,
    newest: u64,
    index: LogIndex,
    /// The last entry of each log, what waits included.
    ends: BTreeMap<Owner, Index>,
    pending: Pending,
    /// The oldest generation that the log needs.
    first: u64,
    /// What a durable mark or header says of it.
    first_durable: u64,
    poisoned: bool,
}

impl Wal {
    /// Opens the log in the folder `wal` of the disk, or makes it. What it then holds is durable, also what an earlier
    /// process wrote and did not sync. `seed` must be drawn anew for each call: it tells this use of a file from an
    /// earlier one that a crash left half written.
    ///
    /// # Errors
    /// [`StorageError::Damaged`], [`StorageError::Missing`], [`StorageError::Hole`] where durable bytes are not there;
    /// [`StorageError::Full`] where there is no room to carry a torn tail over. Nothing is changed then, and opening
    /// can be repeated.
    pub fn open(disk: Arc<dyn Disk>, options: WalOptions, seed: u64) -> Result<(Self, RecoveryReport), StorageError> {
        options.validate()?;
        recover::open(disk, options, seed)
    }

    /// Takes a change into the next group. Payloads are not copied, but for short ones. The segments it will need are
    /// made now, so that `flush` cannot meet a full disk.
    ///
    /// # Errors
    /// [`StorageError::Full`]: nothing was taken; changes of at most `WAL_RESERVE_OP_BYTES_MAX` use the reserve before.
    /// [`StorageError::TooLarge`]: an entry that no segment holds. [`StorageError::Poisoned`], [`StorageError::Io`].
    ///
    /// # Panics
    /// Where entries are not contiguous with the log, or a trim is ahead of it.
    pub fn append(&mut self, shard: ShardId, replica: ReplicaId, op: LogOp) -> Result<(), StorageError> {
        self.alive()?;
        let owner = (shard, replica);
        let end = self.ends.get(&owner).copied().unwrap_or_default();
        let (items, end) = items_of(op, end);
        let bytes: u64 = items.iter().map(|(item, payload)| record_bytes(item, payload)).sum();
        let records = items.into_iter().map(|(item, payload)| (owner, item, payload)).collect();
        self.put(records, bytes <= limits::WAL_RESERVE_OP_BYTES_MAX)?;
        self.ends.insert(owner, end);
        Ok(())
    }

    /// Takes the removal of a whole log into the next group: its replica left this node.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn forget(&mut self, shard: ShardId, replica: ReplicaId) -> Result<(), StorageError> {
        self.alive()?;
        self.put(vec![((shard, replica), Item::Forget, Bytes::new())], true)?;
        self.ends.remove(&(shard, replica));
        Ok(())
    }

    /// Makes everything taken durable: one vectored write and one sync, and one more of each per segment begun.
    ///
    /// # Errors
    /// [`StorageError::Io`]: what the disk holds is unknown, the process must end. [`StorageError::Poisoned`] from
    /// then on.
    pub fn flush(&mut self) -> Result<Flushed, StorageError> {
        self.alive()?;
        if self.pending.groups.is_empty() {
            return Ok(Flushed::default());
        }
        let pending = std::mem::take(&mut self.pending);
        let mut flushed = Flushed { records: pending.changes.len() as u64, ..Flushed::default() };
        for group in &pending.groups {
            let written = self.write(group);
            flushed.bytes += self.poisoning(written)?;
            flushed.syncs += 1;
        }
        for (owner, item, location) in &pending.changes {
            self.index.apply(*owner, item, *location);
        }
        self.first_durable = pending.first;
        Ok(flushed)
    }

    /// What a replica finds of its log when its actor starts; what waits is flushed first. A commit index ahead of the
    /// entries, as a torn group leaves it, is taken back to the last of them.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where an entry is not what was written; as [`Wal::flush`].
    pub fn load(&mut self, shard: ShardId, replica: ReplicaId) -> Result<Recovered, StorageError> {
        self.flush()?;
        let owner = (shard, replica);
        let Some(log) = self.index.get(owner) else { return Ok(Recovered::default()) };
        let mut hard_state = log.hard_state;
        hard_state.commit = hard_state.commit.clamp(log.trimmed.index, log.last());
        let entries = log.entries.iter().map(|(index, location)| self.read_entry(owner, Index(*index), location));
        Ok(Recovered { hard_state, trimmed: log.trimmed, entries: entries.collect::<Result<_, _>>()? })
    }

    /// Durable entries of the shard's newest replica from `from` up to `to`, which is not included: at least one, and
    /// no more once `bytes_max` of payload are reached. Each is verified.
    ///
    /// # Errors
    /// [`StorageError::NotHeld`] where the log does not hold `from`; [`StorageError::Damaged`] where an entry is not
    /// what was written.
    pub fn read(&self, shard: ShardId, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        self.alive()?;
        let newest = self.index.iter().filter(|(owner, _)| owner.0 == shard).last();
        let not_held = |replica| StorageError::NotHeld { shard, replica, index: from };
        let (owner, log) = newest.ok_or_else(|| not_held(ReplicaId(0)))?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, location) in log.entries.range(from.0..to.0.max(from.0)) {
            if bytes >= bytes_max && !entries.is_empty() {
                break;
            }
            let entry = self.read_entry(owner, Index(*index), location)?;
            bytes += entry.payload.len();
            entries.push(entry);
        }
        let held = entries.first().is_some_and(|entry| entry.index == from);
        if held { Ok(entries) } else { Err(not_held(owner.1)) }
    }

    /// Every log that is held durably.
    pub fn shards(&self) -> Vec<(ShardId, ReplicaId)> {
        self.index.iter().map(|(owner, _)| owner).collect()
    }

    /// Segment files of the log, in bytes; spares and the reserve are not counted.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file.capacity).sum()
    }

    /// Room for more log, as of the last [`Wal::tend`].
    pub fn space(&self) -> Space {
        if self.can_take(0) { Space::Ample } else { Space::ReserveOnly }
    }

    /// Whether so many more bytes of entries may be let in: they fit files that exist, an eighth of a segment stays
    /// free, the reserve is whole, and the log is not a quarter past its bound.
    pub fn can_take(&self, bytes: u64) -> bool {
        let room = self.ample_bytes().saturating_sub(self.options.segment_bytes / 8);
        let bound = self.options.bytes_max.saturating_add(self.options.bytes_max / 4);
        self.alive().is_ok()
            && self.files.reserve_is_whole()
            && bytes.saturating_add(MARK_BYTES) <= room
            && self.bytes().saturating_add(bytes) <= bound
    }

    /// Bytes that fit segments which exist, those of the reserve not counted.
    fn ample_bytes(&self) -> u64 {
        let tail = self.segments.back().filter(|tail| !tail.file.reserved).map_or(0, Segment::remaining);
        let spare = |capacity: u64| capacity.saturating_sub(RECORDS_AT + MARK_BYTES);
        tail + self.files.capacities().map(spare).sum::<u64>()
    }

    fn alive(&self) -> Result<(), StorageError> {
        if self.poisoned { Err(StorageError::Poisoned) } else { Ok(()) }
    }

    /// Remembers a failure after which nobody knows what the disk holds.
    fn poisoning<T>(&mut self, outcome: Result<T, StorageError>) -> Result<T, StorageError> {
        self.poisoned |= outcome.is_err();
        outcome
    }

    fn write(&self, group: &Group) -> Result<u64, StorageError> {
        let segment = self.segment(group.generation).expect("a group's segment is the tail or was rolled to for it");
        let slices = group.slices();
        let name = &segment.file.name;
        if mutant!(AckBeforeSync) {
            self.segments.iter().try_for_each(|segment| segment.file.file.sync()).map_err(io_error("sync", name))?;
        }
        segment.file.file.write_at(group.at, &slices).map_err(io_error("write", name))?;
        if !mutant!(AckBeforeSync) {
            segment.file.file.sync().map_err(io_error("sync", name))?;
        }
        Ok(slices.iter().map(|slice| slice.len() as u64).sum())
    }

    fn segment(&self, generation: u64) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&generation, |segment| segment.header.generation).ok()?;
        self.segments.get(at)
    }

    fn read_entry(&self, owner: Owner, index: Index, location: &Location) -> Result<Entry, StorageError> {
        let segment = self.segment(location.generation).expect("a segment with live entries is kept");
        let offset = u64::from(location.offset);
        let read = scan::read_record(&segment.file, offset, location.length, location.chain);
        match read.map_err(io_error("read", &segment.file.name))? {
            Some((record, of, Item::Entry { index: found, term, kind })) if of == owner && found == index => {
                Ok(Entry { index, term, kind, payload: Bytes::from(record).slice(RECORD_BYTES..) })
            }
            Some(_) | None => {
                let (file, durable) = (segment.file.name.clone(), segment.end);
                Err(StorageError::Damaged { file, offset, durable, why: "an entry fits its checksum no more" })
            }
        }
    }

    /// Takes records into the next group, all or none.
    fn put(&mut self, records: Vec<(Owner, Item, Bytes)>, small: bool) -> Result<(), StorageError> {
        let sizes: Vec<u64> = records.iter().map(|(_, item, payload)| record_bytes(item, payload)).collect();
        match self.make_room(&sizes, small) {
            Err(error @ (StorageError::Full { .. } | StorageError::TooLarge { .. })) => return Err(error),
            made => self.poisoning(made)?,
        }
        for ((owner, item, payload), bytes) in records.into_iter().zip(sizes) {
            self.place(owner, item, payload, bytes, small);
        }
        Ok(())
    }

    /// Makes sure that records of these sizes can be placed one after the other.
    fn make_room(&mut self, sizes: &[u64], small: bool) -> Result<(), StorageError> {
        let bytes_max = self.options.segment_bytes - RECORDS_AT - MARK_BYTES;
        if let Some(bytes) = sizes.iter().copied().find(|bytes| *bytes > bytes_max) {
            return Err(StorageError::TooLarge { bytes, bytes_max });
        }
        while !self.fits(sizes, small) {
            if self.files.add_spare()? {
                continue;
            }
            let bytes = sizes.iter().sum::<u64>();
            let reserve = if small { self.files.take_reserve(MARK_BYTES + bytes, 1)? } else { None };
            let Some(file) = reserve else { return Err(StorageError::Full { bytes }) };
            self.roll(file);
        }
        Ok(())
    }

    /// Whether the tail and the spares hold records of these sizes, placed as `place` does.
    fn fits(&self, sizes: &[u64], small: bool) -> bool {
        let mut spares = self.files.capacities();
        let mut remaining = self.open_bytes(small);
        for bytes in sizes {
            while *bytes > remaining {
                let Some(capacity) = spares.next() else { return false };
                remaining = capacity.saturating_sub(RECORDS_AT + MARK_BYTES);
            }
            remaining -= bytes;
        }
        true
    }

    /// What the tail can take of records, a mark before them counted. The reserve takes small ones only.
    fn open_bytes(&self, small: bool) -> u64 {
        let Some(tail) = self.segments.back().filter(|tail| small || !tail.file.reserved) else { return 0 };
        tail.remaining().saturating_sub(if self.group_is_open() { 0 } else { MARK_BYTES })
    }

    fn group_is_open(&self) -> bool {
        !self.pending.groups.is_empty()
    }

    fn place(&mut self, owner: Owner, item: Item, payload: Bytes, bytes: u64, small: bool) {
        while bytes > self.open_bytes(small) {
            let file = self.files.take().expect("room was made");
            self.roll(file);
        }
        if !self.group_is_open() {
            self.open_group();
        }
        self.record(owner, item, payload);
    }

    /// The file becomes the tail; its header and a mark are the first of what it gets of this flush.
    fn roll(&mut self, file: SegmentFile) {
        self.newest += 1;
        let previous = self.end();
        if self.segments.is_empty() {
            self.first = self.newest;
        }
        let header = Header {
            generation: self.newest,
            salt: salt(self.seed, self.newest),
            first: self.first,
            previous,
            durable: RECORDS_AT,
        };
        let mut group = Group::new(self.newest, 0);
        group.scratch.extend_from_slice(&header.encode());
        group.push_scratch(0);
        if !self.group_is_open() {
            self.pending.first = self.first;
        }
        self.pending.groups.push(group);
        self.segments.push_back(Segment { file, header, end: RECORDS_AT, chain: header.chain() });
        self.mark(previous);
    }

    /// Begins what the tail gets of this flush.
    fn open_group(&mut self) {
        let end = self.end();
        self.pending.first = self.first;
        self.pending.groups.push(Group::new(end.generation, end.offset));
        self.mark(end);
    }

    /// Where the log ends, what waits included.
    fn end(&self) -> Place {
        let place = |tail: &Segment| Place { generation: tail.header.generation, offset: tail.end };
        self.segments.back().map_or_else(Place::default, place)
    }

    fn mark(&mut self, durable: Place) {
        let first = self.pending.first;
        self.record((ShardId(0), ReplicaId(0)), Item::Mark { durable, first }, Bytes::new());
    }

    /// Puts one record at the end of the tail, into the group that is open.
    fn record(&mut self, owner: Owner, item: Item, payload: Bytes) {
        let place = self.end();
        let tail = self.segments.back_mut().expect("a group is open");
        let group = self.pending.groups.last_mut().expect("a group is open");
        let chain = tail.chain;
        let length = record_bytes(&item, &payload);
        let from = group.scratch.len();
        let slot = Slot { place, salt: tail.header.salt, chain };
        tail.chain = encode(&mut group.scratch, slot, owner, &item, &payload);
        tail.end += length;
        group.push_scratch(from);
        if !payload.is_empty() {
            group.push_payload(payload);
        }
        if !matches!(item, Item::Mark { .. }) {
            self.pending.changes.push((owner, item, locate(place, length, chain, &item)));
        }
    }
}

fn locate(place: Place, length: u64, chain: u32, item: &Item) -> Location {
    let narrow = |number| u32::try_from(number).expect("a segment is below 4 GiB");
    let term = if let Item::Entry { term, .. } = item { *term } else { Default::default() };
    Location { generation: place.generation, term, offset: narrow(place.offset), length: narrow(length), chain }
}

fn record_bytes(item: &Item, payload: &Bytes) -> u64 {
    (RECORD_BYTES + item.inline_bytes() + payload.len()) as u64
}

/// A number that differs for each use of a file (splitmix64).
fn salt(seed: u64, generation: u64) -> u64 {
    let mut mixed = seed.wrapping_add(generation.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The records of a change, and where the log ends after it. Hard state comes first: entries of a term that the replica
/// does not know yet must not be found alone.
fn items_of(op: LogOp, end: Index) -> (Vec<(Item, Bytes)>, Index) {
    let bare = |item| (item, Bytes::new());
    match op {
        LogOp::Append { truncate_from, entries, hard_state } => {
            let mut items: Vec<_> = hard_state.map(|state| bare(Item::HardState(state))).into_iter().collect();
            let first = entries.first().map(|entry| entry.index);
            let cut = truncate_from.into_iter().chain(first).min().filter(|from| *from <= end);
            items.extend(cut.map(|from| bare(Item::Truncate { from })));
            let mut end = cut.map_or(end, |from| Index(from.0.saturating_sub(1)));
            for Entry { index, term, kind, payload } in entries {
                assert_eq!(index.0, end.0 + 1, "entries are contiguous with the log");
                end = index;
                items.push((Item::Entry { index, term, kind }, payload));
            }
            (items, end)
        }
        LogOp::Trim { through } => {
            assert!(through.index <= end, "only what the log holds is trimmed: {through:?}, the log ends at {end}");
            (vec![bare(Item::Trim(through))], end)
        }
        LogOp::Install { at, hard_state } => (vec![bare(Item::Install { at, hard_state })], at.index),
    }
}
