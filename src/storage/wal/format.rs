//! The bytes of the log. This file does not know files, only their content. All numbers are little-endian.
//!
//! A segment file is one header sector of 512 bytes, then records without gaps:
//!
//! ```text
//! at  size
//!  0   8   "MPONDWAL"
//!  8   4   version, 1
//! 12   4   zero
//! 16   8   generation: unique to one use of one file, rising through the log; 0 in a file that was never used
//! 24   8   salt: drawn for this use of the file
//! 32   8   first: the oldest generation that the log needed when this was written
//! 40   8   previous: the generation that this one follows; 0 where there is none
//! 48   8   previous end: where the records of the previous end. They were durable when this was written
//! 56   8   durable: this file's own records were durable up to here when this was written
//! 64   4   crc32c of bytes 0 to 64
//! ```
//!
//! The header is written within one sector, so that a crash leaves either the old one or the new one; any other is
//! damage. A record:
//!
//! ```text
//!  0   4   checksum: crc32c of all that follows, continued from the checksum of the record before it. The first
//!          continues from the crc32c of salt and generation
//!  4   4   length of the payload
//!  8   8   generation of the segment
//! 16   8   index
//! 24   8   term
//! 32   8   replica
//! 40   4   shard
//! 44   1   kind
//! 45   1   kind of entry, else 0
//! 46   2   zero
//! 48   -   payload
//!
//! kind             index            term                payload
//! 1 mark           durable offset   durable generation  "MPONDMRK", first (8), crc32c (4)
//! 2 entry          its index        its term            as it was proposed
//! 3 hard state     commit           term                vote (8), 0 for none
//! 4 truncate       first removed    0                   -
//! 5 trim           last trimmed     its term            -
//! 6 install        snapshot's last  its term            term (8), vote (8), commit (8)
//! 7 forget         0                0                   -
//! ```
//!
//! Each group that is written at once begins with a mark. It names the position that was durable before the group,
//! and the oldest generation still needed. Its own crc32c covers salt, generation, the mark's offset in the file and
//! the three numbers it names, so that a mark can be found and believed behind a record whose chain is broken.
//!
//! An entry record says that the log holds this entry; it removes nothing. Entries are removed by truncate (from an
//! index on), trim (through an index), install (all) and forget (the whole log of the replica). So an entry can be
//! written again, further on, before the segment that held it is recycled.

use std::ops::Range;

use crc32c::{crc32c, crc32c_append};

use crate::entry::{EntryKind, HardState, Position};
use crate::id::{Index, ReplicaId, ShardId, Term};

/// Where records start: behind the header's sector.
pub(super) const RECORDS_AT: u64 = 512;
/// A record without its payload.
pub(super) const RECORD_BYTES: usize = 48;
/// A mark, whole.
pub(super) const MARK_BYTES: u64 = (RECORD_BYTES + MARK_PAYLOAD_BYTES) as u64;
/// What a mark's payload begins with.
pub(super) const MARK_MAGIC: &[u8; 8] = b"MPONDMRK";

const MARK_PAYLOAD_BYTES: usize = 20;
const HEADER_MAGIC: &[u8; 8] = b"MPONDWAL";
const HEADER_VERSION: u32 = 1;
const HEADER_COVERED: usize = 64;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) generation: u64,
    pub(super) offset: u64,
}

/// The head of a segment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) salt: u64,
    pub(super) first: u64,
    pub(super) previous: Place,
    pub(super) durable: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; RECORDS_AT as usize] {
        let mut sector = [0; RECORDS_AT as usize];
        sector[..8].copy_from_slice(HEADER_MAGIC);
        put(&mut sector, 8..12, &HEADER_VERSION.to_le_bytes());
        put(&mut sector, 16..24, &self.generation.to_le_bytes());
        put(&mut sector, 24..32, &self.salt.to_le_bytes());
        put(&mut sector, 32..40, &self.first.to_le_bytes());
        put(&mut sector, 40..48, &self.previous.generation.to_le_bytes());
        put(&mut sector, 48..56, &self.previous.offset.to_le_bytes());
        put(&mut sector, 56..64, &self.durable.to_le_bytes());
        let checksum = crc32c(&sector[..HEADER_COVERED]);
        put(&mut sector, 64..68, &checksum.to_le_bytes());
        sector
    }

    /// `None` where the bytes are no header.
    pub(super) fn decode(sector: &[u8]) -> Option<Self> {
        let valid = sector.get(..8)? == HEADER_MAGIC
            && u32_at(sector, 8)? == HEADER_VERSION
            && u32_at(sector, 64)? == crc32c(sector.get(..HEADER_COVERED)?);
        valid.then_some(())?;
        Some(Self {
            generation: u64_at(sector, 16)?,
            salt: u64_at(sector, 24)?,
            first: u64_at(sector, 32)?,
            previous: Place { generation: u64_at(sector, 40)?, offset: u64_at(sector, 48)? },
            durable: u64_at(sector, 56)?,
        })
    }

    /// What the checksum of the first record continues from.
    pub(super) fn chain(&self) -> u32 {
        continued(crc32c_append(crc32c(&self.salt.to_le_bytes()), &self.generation.to_le_bytes()))
    }
}

/// What the record behind one with this checksum continues.
pub(super) fn continued(checksum: u32) -> u32 {
    if mutant!(GenerationIgnored) { 0 } else { checksum }
}

/// Whose log a record belongs to.
pub(super) type Owner = (ShardId, ReplicaId);

/// What a record says. The payload of an entry stays outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Mark { durable: Place, first: u64 },
    Entry { index: Index, term: Term, kind: EntryKind },
    HardState(HardState),
    Truncate { from: Index },
    Trim(Position),
    Install { at: Position, hard_state: HardState },
    Forget,
}

impl Item {
    /// Bytes of the payload that are not an entry's.
    pub(super) fn inline_bytes(&self) -> usize {
        match self {
            Self::Mark { .. } => MARK_PAYLOAD_BYTES,
            Self::HardState(_) => 8,
            Self::Install { .. } => 24,
            Self::Entry { .. } | Self::Truncate { .. } | Self::Trim(_) | Self::Forget => 0,
        }
    }

    fn code(&self) -> (u8, u8) {
        match self {
            Self::Mark { .. } => (1, 0),
            Self::Entry { kind, .. } => (2, *kind as u8),
            Self::HardState(_) => (3, 0),
            Self::Truncate { .. } => (4, 0),
            Self::Trim(_) => (5, 0),
            Self::Install { .. } => (6, 0),
            Self::Forget => (7, 0),
        }
    }

    fn numbers(&self) -> (u64, u64) {
        match self {
            Self::Mark { durable, .. } => (durable.offset, durable.generation),
            Self::Entry { index, term, .. } => (index.0, term.0),
            Self::HardState(state) => (state.commit.0, state.term.0),
            Self::Truncate { from } => (from.0, 0),
            Self::Trim(at) | Self::Install { at, .. } => (at.index.0, at.term.0),
            Self::Forget => (0, 0),
        }
    }
}

/// Where a record goes and what it continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) salt: u64,
    pub(super) chain: u32,
}

/// Appends a record's head and its inline payload; an entry's payload is covered by the checksum and written by the
/// caller right behind. Returns what the next record continues: the checksum.
pub(super) fn encode(into: &mut Vec<u8>, slot: Slot, owner: Owner, item: &Item, payload: &[u8]) -> u32 {
    let inline = item.inline_bytes();
    let length = u32::try_from(inline + payload.len()).expect("a record fits a segment, which is below 4 GiB");
    let start = into.len();
    let (index, term) = item.numbers();
    let (kind, entry_kind) = item.code();
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&slot.place.generation.to_le_bytes());
    into.extend_from_slice(&index.to_le_bytes());
    into.extend_from_slice(&term.to_le_bytes());
    into.extend_from_slice(&owner.1.0.to_le_bytes());
    into.extend_from_slice(&owner.0.0.to_le_bytes());
    into.extend_from_slice(&[kind, entry_kind, 0, 0]);
    match item {
        Item::Mark { durable, first } => {
            into.extend_from_slice(MARK_MAGIC);
            into.extend_from_slice(&first.to_le_bytes());
            into.extend_from_slice(&mark_check(slot.salt, slot.place, *durable, *first).to_le_bytes());
        }
        Item::HardState(state) => into.extend_from_slice(&vote_number(state).to_le_bytes()),
        Item::Install { hard_state, .. } => {
            into.extend_from_slice(&hard_state.term.0.to_le_bytes());
            into.extend_from_slice(&vote_number(hard_state).to_le_bytes());
            into.extend_from_slice(&hard_state.commit.0.to_le_bytes());
        }
        Item::Entry { .. } | Item::Truncate { .. } | Item::Trim(_) | Item::Forget => {}
    }
    let checksum = crc32c_append(crc32c_append(slot.chain, &into[start + 4..]), payload);
    put(into, start..start + 4, &checksum.to_le_bytes());
    continued(checksum)
}

/// A record's fixed part before it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) checksum: u32,
    pub(super) length: u32,
    pub(super) generation: u64,
}

impl Head {
    /// `None` where there are too few bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { checksum: u32_at(bytes, 0)?, length: u32_at(bytes, 4)?, generation: u64_at(bytes, 8)? })
    }
}

/// Reads a whole record that continues `chain`; `None` where it does not, or where it is no record.
pub(super) fn decode(record: &[u8], chain: u32) -> Option<(Owner, Item)> {
    let head = Head::decode(record)?;
    let whole =
        record.len() == RECORD_BYTES + head.length as usize && crc32c_append(chain, &record[4..]) == head.checksum;
    whole.then_some(())?;
    let (index, term) = (u64_at(record, 16)?, u64_at(record, 24)?);
    let owner = (ShardId(u32_at(record, 40)?), ReplicaId(u64_at(record, 32)?));
    let payload = &record[RECORD_BYTES..];
    let position = Position { index: Index(index), term: Term(term) };
    let item = match (record[44], record[45]) {
        (1, 0) => Item::Mark { durable: Place { generation: term, offset: index }, first: u64_at(payload, 8)? },
        (2, kind) => Item::Entry { index: Index(index), term: Term(term), kind: entry_kind(kind)? },
        (3, 0) => {
            Item::HardState(HardState { term: Term(term), vote: vote(u64_at(payload, 0)?), commit: Index(index) })
        }
        (4, 0) => Item::Truncate { from: Index(index) },
        (5, 0) => Item::Trim(position),
        (6, 0) => {
            let (term, commit) = (Term(u64_at(payload, 0)?), Index(u64_at(payload, 16)?));
            Item::Install { at: position, hard_state: HardState { term, vote: vote(u64_at(payload, 8)?), commit } }
        }
        (7, 0) => Item::Forget,
        _ => return None,
    };
    let sized = matches!(item, Item::Entry { .. }) || payload.len() == item.inline_bytes();
    sized.then_some((owner, item))
}

/// The durable place that a mark names, believed by its own checksum alone. `record` starts where a mark may start.
pub(super) fn decode_lone_mark(record: &[u8], salt: u64, place: Place) -> Option<Place> {
    let payload = record.get(RECORD_BYTES..RECORD_BYTES + MARK_PAYLOAD_BYTES)?;
    let durable = Place { generation: u64_at(record, 24)?, offset: u64_at(record, 16)? };
    let own = payload.starts_with(MARK_MAGIC)
        && Head::decode(record)?.generation == place.generation
        && u32_at(payload, 16)? == mark_check(salt, place, durable, u64_at(payload, 8)?);
    own.then_some(durable)
}

fn mark_check(salt: u64, place: Place, durable: Place, first: u64) -> u32 {
    [salt, place.generation, place.offset, durable.generation, durable.offset, first]
        .iter()
        .fold(0, |sum, number| crc32c_append(sum, &number.to_le_bytes()))
}

fn entry_kind(code: u8) -> Option<EntryKind> {
    [EntryKind::Normal, EntryKind::Configuration, EntryKind::JointConfiguration]
        .into_iter()
        .find(|kind| *kind as u8 == code)
}

fn vote_number(state: &HardState) -> u64 {
    state.vote.map_or(0, |replica| replica.0)
}

fn vote(number: u64) -> Option<ReplicaId> {
    (number != 0).then_some(ReplicaId(number))
}

fn put(into: &mut [u8], at: Range<usize>, bytes: &[u8]) {
    into[at].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
