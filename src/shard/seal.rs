//! Sealing: what a cut head becomes. A job holds all it needs, immutable, and runs anywhere as one blocking piece of
//! work: sort the records, encode blocks, and prove them by decoding against the applied records before anyone may
//! trim the log. It does not know files: blocks go to the caller one by one.
//!
//! Batches are inflated whole, at most `SEAL_RAW_BYTES_MAX` of their records at a time; a larger head is read several times.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::keys::Captured;
use super::streams::Streams;
use super::{HeadView, ShardError};
use crate::block::l1::{Encoder, L1};
use crate::block::rows::{Projection, Rows, Stream, Summary};
use crate::entry::{Position, SegmentMeta, ShardSnapshot};
use crate::id::{Index, Offset, ShardId};
use crate::limits::SEAL_RAW_BYTES_MAX;

/// A head that was cut, and the state as of the cut.
#[derive(Clone, Debug)]
pub struct SealJob {
    pub(super) hold: Index,
    pub(super) shard: ShardId,
    pub(super) position: Position,
    pub(super) first_offset: Offset,
    pub(super) next_offset: Offset,
    pub(super) time: u64,
    pub(super) keys: Captured,
    pub(super) streams: Streams,
    pub(super) batches: HeadView,
}

/// One block of the segment.
#[derive(Clone, Debug)]
pub struct SealedBlock {
    /// The block as [`L1`] opens it.
    pub bytes: Bytes,
    /// What it spans.
    pub summary: Summary,
    /// Its distinct streams, sorted.
    pub streams: Vec<Stream>,
}

/// That the blocks hold what was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Sum of the digests of the records: the same on every replica.
    pub digest: u128,
    /// What all blocks span together.
    pub summary: Summary,
}

/// Where a record waits: batch, row, and its time to sort by.
#[derive(Clone, Copy)]
struct Place {
    timestamp: i64,
    batch: u32,
    row: u32,
}

impl SealJob {
    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The last entry that the job covers: its own.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The lowest offset that retention had left as of the cut.
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// The last entry that every replica had when the seal was proposed.
    pub fn hold(&self) -> Index {
        self.hold
    }

    /// The offsets it covers, first and last; `None` where no record came since the last cut: no segment is written.
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        let last = Offset(self.next_offset.0.checked_sub(1)?);
        Some((self.batches.iter().next()?.base(), last))
    }

    /// The batches it covers.
    pub fn batches(&self) -> &HeadView {
        &self.batches
    }

    /// The state as of the cut, with the manifest that the caller keeps: all earlier segments and this one's. Those that
    /// retention had ended as of the cut are left out.
    pub fn snapshot(&self, mut segments: Vec<SegmentMeta>) -> ShardSnapshot {
        segments.retain(|segment| segment.to >= self.first_offset);
        ShardSnapshot {
            shard: self.shard,
            position: self.position,
            first_offset: self.first_offset,
            next_offset: self.next_offset,
            time: self.time,
            segments,
            keys: if mutant!(KeysNotInSnapshot) { Vec::new() } else { self.keys.encode() },
            streams: self.streams.encode(),
        }
    }

    /// Encodes the records into sealed blocks, hands each to `write`, and proves them. Blocking. Until it returned
    /// `Ok` nothing that was written may be registered. `None` where there is no record.
    pub fn encode<E: From<ShardError>>(
        &self,
        write: impl FnMut(SealedBlock) -> Result<(), E>,
    ) -> Result<Option<Proof>, E> {
        self.encode_in_sets(SEAL_RAW_BYTES_MAX as u64, write)
    }

    pub(super) fn encode_in_sets<E: From<ShardError>>(
        &self,
        set_bytes: u64,
        mut write: impl FnMut(SealedBlock) -> Result<(), E>,
    ) -> Result<Option<Proof>, E> {
        let batches: Vec<_> = self.batches.iter().collect();
        if batches.is_empty() {
            return Ok(None);
        }
        let mut sorted = self.sort()?;
        let mut applied = Digest::default();
        let mut sealed = Digest::default();
        let mut encoder = Encoder::new();
        let mut summary: Option<Summary> = None;
        for set in sorted.sets(set_bytes) {
            let kept = self.inflate(&mut sorted, &set, (set.start == 0).then_some(&mut applied))?;
            let mut stream = sorted.stream_at(set.start);
            for at in set.clone() {
                if at == sorted.ends[stream] {
                    stream = sorted.stream_at(at);
                }
                let place = sorted.places[at];
                let (rows, row) = (&kept[place.batch as usize], place.row as usize);
                let metadata = MetadataBytes(rows.metadata(row));
                let stream = &sorted.streams[stream];
                encoder.push(stream, rows.offset(row), place.timestamp, rows.line(row).as_bytes(), metadata);
                if encoder.is_full() || at + 1 == set.end {
                    let block = self.prove(encoder.finish(), &mut sealed)?;
                    summary = Some(summary.map_or(block.summary, |all| join(all, block.summary)));
                    write(block)?;
                }
            }
        }
        let summary = summary.expect("a batch holds a record");
        if applied != sealed || Some((Offset(summary.first_offset), Offset(summary.last_offset))) != self.offsets() {
            return Err(E::from(ShardError::Unproven {
                shard: self.shard,
                rows: applied.rows,
                expected: applied.sum,
                found_rows: sealed.rows,
                found: sealed.sum,
            }));
        }
        Ok(Some(Proof { digest: sealed.sum, summary }))
    }

    /// The digest of the records as they were applied, which [`SealJob::encode`] proves its blocks against.
    pub fn digest(&self) -> Result<u128, ShardError> {
        let mut applied = Digest::default();
        for batch in self.batches.iter() {
            applied.add(&batch.rows(Projection::ALL).map_err(|source| self.damaged(batch.base(), source))?);
        }
        Ok(applied.sum)
    }

    fn damaged(&self, offset: Offset, source: crate::block::BlockError) -> ShardError {
        ShardError::Damaged { shard: self.shard, offset, source }
    }

    fn sort(&self) -> Result<Sorted, ShardError> {
        let mut ranks: BTreeMap<&Stream, usize> = BTreeMap::new();
        for batch in self.batches.iter() {
            ranks.extend(batch.streams().iter().map(|stream| (stream, 0)));
        }
        for (rank, (_, slot)) in ranks.iter_mut().enumerate() {
            *slot = rank;
        }
        let mut by_stream: Vec<Vec<Place>> = vec![Vec::new(); ranks.len()];
        let mut costs = Vec::new();
        let mut starts = Vec::new();
        let mut total = 0;
        for (number, batch) in self.batches.iter().enumerate() {
            let rows = batch.rows(Projection::default()).map_err(|source| self.damaged(batch.base(), source))?;
            let local: Vec<usize> = rows.streams().iter().map(|stream| ranks[stream]).collect();
            let number = u32::try_from(number).expect("a head's batches are counted in 32 bits");
            for (row, stream) in (0_u32..).zip(rows.stream_indexes()) {
                let place = Place { timestamp: rows.timestamp(row as usize), batch: number, row };
                by_stream[local[*stream as usize]].push(place);
            }
            costs.push(batch.summary().raw_bytes / rows.len() as u64);
            starts.push(total);
            total += rows.len();
        }
        let mut places = Vec::with_capacity(total);
        let mut ends = Vec::with_capacity(by_stream.len());
        for mut stream in by_stream {
            // Stable: of equal times the lower offset stays first, and rows in order cost one pass.
            stream.sort_by_key(|place| place.timestamp);
            places.append(&mut stream);
            ends.push(places.len());
        }
        let mut ranked = vec![0; total];
        for (at, place) in places.iter().enumerate() {
            ranked[starts[place.batch as usize] + place.row as usize] = at;
        }
        let streams = ranks.into_keys().cloned().collect();
        Ok(Sorted { streams, places, ends, ranked, starts, costs })
    }

    /// Inflates the batches and keeps the rows whose place is in the set, in the places' own numbering after.
    fn inflate(
        &self,
        sorted: &mut Sorted,
        set: &std::ops::Range<usize>,
        mut applied: Option<&mut Digest>,
    ) -> Result<Vec<Rows>, ShardError> {
        let mut kept = Vec::with_capacity(sorted.starts.len());
        for (batch, start) in self.batches.iter().zip(&sorted.starts) {
            let rows = batch.rows(Projection::ALL).map_err(|source| self.damaged(batch.base(), source))?;
            if let Some(applied) = &mut applied {
                applied.add(&rows);
            }
            let ranked = &sorted.ranked[*start..*start + rows.len()];
            if ranked.iter().all(|at| set.contains(at)) {
                kept.push(rows);
                continue;
            }
            let mut picked = Vec::new();
            for (row, at) in ranked.iter().enumerate().filter(|(_, at)| set.contains(at)) {
                sorted.places[*at].row = u32::try_from(picked.len()).expect("no more rows than the batch has");
                picked.push(row);
            }
            kept.push(rows.pick(&picked));
        }
        Ok(kept)
    }

    fn prove(&self, bytes: Bytes, sealed: &mut Digest) -> Result<SealedBlock, ShardError> {
        let unreadable = |source| ShardError::Unreadable { shard: self.shard, source };
        let block = L1::open(bytes.clone()).map_err(unreadable)?;
        sealed.add(&block.rows(Projection::ALL).map_err(unreadable)?);
        Ok(SealedBlock { bytes, summary: block.summary(), streams: block.streams().to_vec() })
    }
}

/// The order of the segment.
struct Sorted {
    streams: Vec<Stream>,
    places: Vec<Place>,
    /// Per stream the end of its places.
    ends: Vec<usize>,
    /// Per row, batch after batch, its place.
    ranked: Vec<usize>,
    /// Per batch the start of its rows in `ranked`.
    starts: Vec<usize>,
    /// Per batch the raw bytes of an average row.
    costs: Vec<u64>,
}

impl Sorted {
    fn stream_at(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end <= at)
    }

    /// Places that are inflated together, of about this many raw bytes.
    fn sets(&self, set_bytes: u64) -> Vec<std::ops::Range<usize>> {
        let mut sets = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, place) in self.places.iter().enumerate() {
            bytes += self.costs[place.batch as usize];
            if bytes >= set_bytes {
                sets.push(start..at + 1);
                (start, bytes) = (at + 1, 0);
            }
        }
        if start < self.places.len() {
            sets.push(start..self.places.len());
        }
        sets
    }
}

/// Independent of the order of records: a sum, so that a record that comes twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    sum: u128,
    rows: u64,
}

impl Digest {
    fn add(&mut self, rows: &Rows) {
        self.sum = self.sum.wrapping_add(rows.digest());
        self.rows += rows.len() as u64;
    }
}

fn join(a: Summary, b: Summary) -> Summary {
    Summary {
        first_offset: a.first_offset.min(b.first_offset),
        last_offset: a.last_offset.max(b.last_offset),
        rows: a.rows + b.rows,
        min_timestamp: a.min_timestamp.min(b.min_timestamp),
        max_timestamp: a.max_timestamp.max(b.max_timestamp),
        raw_bytes: a.raw_bytes + b.raw_bytes,
    }
}

struct MetadataBytes<I>(I);

impl<'a, I: Iterator<Item = (&'a str, &'a str)>> Iterator for MetadataBytes<I> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'a, I: ExactSizeIterator<Item = (&'a str, &'a str)>> ExactSizeIterator for MetadataBytes<I> {}
