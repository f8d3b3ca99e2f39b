//! Opening a log: finds the chain of segments, replays it, cuts the torn tail, and carries what remains of the last
//! segment over into a new one. This file does not know what happens afterwards.
//!
//! An earlier process may have died with its last group in the page cache only, so reading it back proves nothing. What
//! was not known durable is therefore written again, and all of the last segment where that is little, so that restarts
//! do not lengthen the log. The records go into a spare and are synced, then its header makes it the last of the chain.
//! A crash before that leaves the old chain, one after it the new.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::files::{FOLDER, Files, SegmentFile};
use super::format::{Header, Item, Place, RECORDS_AT, Slot, encode};
use super::index::{Location, LogIndex};
use super::scan::{Found, Scanner};
use super::{Pending, RecoveryReport, Segment, Wal, WalOptions, locate, salt};
use crate::id::Index;
use crate::storage::disk::Disk;
use crate::storage::error::{StorageError, io_error};

const BROKEN: &str = "a record does not continue the one before it";

pub(super) fn open(disk: Arc<dyn Disk>, options: WalOptions, seed: u64) -> Result<(Wal, RecoveryReport), StorageError> {
    let (mut files, found) = Files::open(disk, options)?;
    let mut by_generation: BTreeMap<u64, (SegmentFile, Header)> = BTreeMap::new();
    let mut unused = Vec::new();
    for (file, header) in found {
        if header.generation == 0 {
            unused.push(file);
        } else {
            by_generation.insert(header.generation, (file, header));
        }
    }
    let mut replay = Replay::default();
    let mut segments = VecDeque::new();
    let mut newest = by_generation.last_key_value().map(|(generation, _)| *generation);
    if mutant!(GenerationIgnored) {
        newest = by_generation.iter().max_by_key(|(_, (file, _))| &file.name).map(|(generation, _)| *generation);
    }
    if let Some((file, header)) = newest.and_then(|newest| by_generation.remove(&newest)) {
        let tail = Tail::measure(file, header, &mut replay.report)?;
        let (mut chain, doubtful) = chain(&mut by_generation, &tail)?;
        for (file, header, end) in chain.drain(..) {
            replay.whole(&file, header, end)?;
            segments.push_back(Segment { file, header, end, chain: 0 });
        }
        write_header(&tail.file, &tail.header)?;
        unused.extend(by_generation.into_values().map(|(file, _)| file));
        unused.drain(..).try_for_each(|file| files.give_back(file))?;
        unused = doubtful;
        let (old, new) = replay.carry(&mut files, options, tail, seed)?;
        segments.extend(old);
        segments.push_back(new);
    }
    unused.into_iter().try_for_each(|file| files.give_back(file))?;
    let Replay { index, mut report } = replay;
    report.segments = segments.len();
    let ends = index.iter().map(|(owner, log)| (owner, log.last())).collect();
    let (newest, first) = segments.back().map_or((0, 0), |tail| (tail.header.generation, tail.header.first));
    let pending = Pending::default();
    let (first_durable, poisoned) = (first, false);
    let mut wal = Wal { options, seed, files, segments, newest, index, ends, pending, first, first_durable, poisoned };
    wal.prepare()?;
    Ok((wal, report))
}

/// A segment before the last, with where its records end.
type Whole = (SegmentFile, Header, u64);

/// The segments before the last that the log needs, oldest first; and the files that only a mark which is not known
/// durable calls unneeded: they must stay until the new segment says so durably. They may be gone already.
fn chain(
    files: &mut BTreeMap<u64, (SegmentFile, Header)>,
    tail: &Tail,
) -> Result<(Vec<Whole>, Vec<SegmentFile>), StorageError> {
    let (mut chain, mut doubtful) = (Vec::new(), Vec::new());
    let mut previous = tail.header.previous;
    while previous.generation >= tail.first_durable && previous.generation != 0 {
        let generation = previous.generation;
        let needed = generation >= tail.first;
        let end = previous.offset;
        match files.remove(&generation) {
            Some((file, header)) => {
                previous = header.previous;
                if needed { chain.push((file, header, end)) } else { doubtful.push(file) }
            }
            None if needed => return Err(StorageError::Missing { folder: FOLDER, generation }),
            None => break,
        }
    }
    chain.reverse();
    Ok((chain, doubtful))
}

/// The last segment of the chain, once its records were walked.
#[derive(Debug)]
struct Tail {
    file: SegmentFile,
    header: Header,
    /// Where the chain of its records ends.
    end: u64,
    /// Known durable up to here.
    durable: u64,
    /// The oldest generation that the log needs.
    first: u64,
    /// The same, as far as it is known to be said durably.
    first_durable: u64,
}

impl Tail {
    /// Walks the last segment. A break below what was durable is damage, above it a torn tail.
    fn measure(file: SegmentFile, header: Header, report: &mut RecoveryReport) -> Result<Self, StorageError> {
        let mut scanner = Scanner::new(&file, header);
        let (mut durable, mut first, mut first_durable) = (header.durable, header.first, header.first);
        while let Some(found) = scanner.next()? {
            if let Item::Mark { durable: named, first: needed } = found.item {
                // The mark of the group before is durable: this group was begun after it.
                first_durable = first;
                first = first.max(needed);
                if named.generation == header.generation {
                    durable = durable.max(named.offset);
                }
            }
        }
        let end = scanner.at();
        if scanner.ends_torn()? {
            report.cut = Some((file.name.clone(), end));
        }
        durable = durable.max(scanner.durable_beyond()?);
        if end < durable {
            return Err(StorageError::Damaged { file: file.name.clone(), offset: end, durable, why: BROKEN });
        }
        Ok(Self { file, header, end, durable, first, first_durable })
    }
}

/// The state that is built up while records are read.
#[derive(Debug, Default)]
struct Replay {
    index: LogIndex,
    report: RecoveryReport,
}

impl Replay {
    fn apply(&mut self, found: &Found, location: Location) {
        if mutant!(TruncateIgnored) {
            let log = self.index.get(found.owner);
            let held = |index: Index| log.is_some_and(|log| log.entries.contains_key(&index.0));
            let again = matches!(found.item, Item::Entry { index, .. } if held(index));
            if again || matches!(found.item, Item::Truncate { .. }) {
                return;
            }
        }
        if !matches!(found.item, Item::Mark { .. }) {
            self.report.records += 1;
            self.index.apply(found.owner, &found.item, location);
        }
    }

    /// Applies a segment up to `end`, below which all was durable.
    fn whole(&mut self, file: &SegmentFile, header: Header, end: u64) -> Result<(), StorageError> {
        let mut scanner = Scanner::new(file, header);
        while scanner.at() < end {
            let Some(found) = scanner.next()? else { break };
            let place = Place { generation: header.generation, offset: found.offset };
            self.apply(&found, locate(place, u64::from(found.length), found.chain, &found.item));
        }
        if scanner.at() == end {
            return Ok(());
        }
        let (file, offset) = (file.name.clone(), scanner.at());
        Err(StorageError::Damaged { file, offset, durable: end, why: BROKEN })
    }

    /// Applies the last segment and makes the new one that continues it. Returns the old one too, where the new one
    /// does not hold all of it.
    fn carry(
        &mut self,
        files: &mut Files,
        options: WalOptions,
        tail: Tail,
        seed: u64,
    ) -> Result<(Option<Segment>, Segment), StorageError> {
        // What a part of the reserve holds is little too: it must come free for the next restart on a full disk.
        let little = tail.end <= (RECORDS_AT + options.segment_bytes / 4).max(options.reserve_bytes);
        let mut from = if little { RECORDS_AT } else { tail.durable };
        let mut room = files.take_room(tail.end - from)?;
        if room.is_none() {
            from = tail.durable;
            room = files.take_room(tail.end - from)?;
        }
        let file = room.ok_or(StorageError::Full { bytes: tail.end - from })?;
        let replaced = from == RECORDS_AT;
        let generation = tail.header.generation + 1;
        let mut header = Header {
            generation,
            salt: salt(seed, generation),
            first: if replaced && tail.first == tail.header.generation { generation } else { tail.first },
            previous: if replaced { tail.header.previous } else { Place { offset: from, ..place_of(&tail.header) } },
            durable: 0,
        };
        let (records, chain) = self.rewrite(&tail, from, &header)?;
        self.index.check()?;
        header.durable = RECORDS_AT + records.len() as u64;
        self.report.carried_bytes = records.len() as u64;
        publish(&file, &records, &header)?;
        files.sync_folder()?;
        let new = Segment { file, header, end: header.durable, chain };
        if replaced {
            files.give_back(tail.file)?;
            return Ok((None, new));
        }
        Ok((Some(Segment { file: tail.file, header: tail.header, end: from, chain: 0 }), new))
    }

    /// Applies the last segment; its records from `from` on are returned as the bytes of the new one, with the checksum
    /// that the next record continues.
    fn rewrite(&mut self, tail: &Tail, from: u64, new: &Header) -> Result<(Vec<u8>, u32), StorageError> {
        let mut records = Vec::new();
        let mut chain = new.chain();
        let mut scanner = Scanner::new(&tail.file, tail.header);
        while scanner.at() < tail.end {
            let Some(found) = scanner.next()? else { break };
            let mut place = Place { generation: tail.header.generation, offset: found.offset };
            let mut continued = found.chain;
            if found.offset >= from && !matches!(found.item, Item::Mark { .. }) {
                place = Place { generation: new.generation, offset: RECORDS_AT + records.len() as u64 };
                continued = chain;
                let payload = if let Item::Entry { .. } = found.item { scanner.payload(&found)? } else { &[] };
                let slot = Slot { place, salt: new.salt, chain };
                chain = encode(&mut records, slot, found.owner, &found.item, payload);
                records.extend_from_slice(payload);
            }
            self.apply(&found, locate(place, u64::from(found.length), continued, &found.item));
        }
        Ok((records, chain))
    }
}

fn place_of(header: &Header) -> Place {
    Place { generation: header.generation, offset: RECORDS_AT }
}

/// Makes the records durable, then the header that makes them part of the log.
fn publish(file: &SegmentFile, records: &[u8], header: &Header) -> Result<(), StorageError> {
    let name = &file.name;
    file.file.write_at(RECORDS_AT, &[records]).map_err(io_error("write", name))?;
    if mutant!(TailUnsynced) && records.len() as u64 <= file.capacity / 4 {
        let header = Header { durable: RECORDS_AT, ..*header };
        return file.file.write_at(0, &[&header.encode()]).map_err(io_error("write", name));
    }
    file.file.sync().map_err(io_error("sync", name))?;
    write_header(file, header)
}

/// Makes the header durable. Also one that was read: its writer may have been killed before it was.
fn write_header(file: &SegmentFile, header: &Header) -> Result<(), StorageError> {
    let name = &file.name;
    file.file.write_at(0, &[&header.encode()]).map_err(io_error("write", name))?;
    file.file.sync().map_err(io_error("sync", name))
}
