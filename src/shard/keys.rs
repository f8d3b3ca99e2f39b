//! The idempotency keys: which parts of which requests are stored, oldest first.
//!
//! A log of what was stored, in frozen pieces that a snapshot shares, and an index into it. Each part of a request is
//! one entry of its own; the bound counts parts. Stored form, 44 bytes an entry, little-endian, oldest first:
//! `u128 key, u64 body, u32 part, u64 first offset, u64 shard time in milliseconds`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::ShardError;
use crate::id::Key;
use crate::limits::{KEYS_PER_CHUNK, SNAPSHOT_VALUE_BYTES_MAX};

const STORED: usize = 44;

/// A part that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) key: Key,
    pub(super) body: u64,
    pub(super) part: u32,
    pub(super) first: u64,
    pub(super) time: u64,
}

/// High and low half of the key, and the part: 24 bytes where a `u128` would take 32.
type Part = (u64, u64, u32);

fn part_of(key: Key, part: u32) -> Part {
    let bytes = key.0.to_be_bytes();
    let (high, low) = bytes.split_at(8);
    let half = |half: &[u8]| u64::from_be_bytes(half.try_into().expect("eight bytes"));
    (half(high), half(low), part)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    log: Captured,
    /// Per part its sequence number: how many were remembered before it, ever.
    index: BTreeMap<Part, u64>,
    /// The sequence number of the oldest that is remembered.
    oldest: u64,
}

/// The log as of one moment; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Captured {
    /// Each of `KEYS_PER_CHUNK`.
    frozen: VecDeque<Arc<[Remembered]>>,
    open: Vec<Remembered>,
    /// Forgotten entries at the front of the first piece.
    skip: usize,
}

impl Captured {
    fn len(&self) -> usize {
        self.frozen.len() * KEYS_PER_CHUNK + self.open.len() - self.skip
    }

    fn get(&self, at: usize) -> Option<&Remembered> {
        let at = at + self.skip;
        match self.frozen.get(at / KEYS_PER_CHUNK) {
            Some(chunk) => chunk.get(at % KEYS_PER_CHUNK),
            None => self.open.get(at - self.frozen.len() * KEYS_PER_CHUNK),
        }
    }

    fn push(&mut self, remembered: Remembered) {
        self.open.push(remembered);
        if self.open.len() == KEYS_PER_CHUNK {
            self.frozen.push_back(self.open.as_slice().into());
            self.open.clear();
        }
    }

    fn pop(&mut self) -> Option<Remembered> {
        let oldest = *self.get(0)?;
        self.skip += 1;
        if self.frozen.is_empty() && self.skip == self.open.len() {
            self.open.clear();
            self.skip = 0;
        } else if self.skip == KEYS_PER_CHUNK {
            self.frozen.pop_front();
            self.skip = 0;
        }
        Some(oldest)
    }

    /// The stored form, in pieces of at most `SNAPSHOT_VALUE_BYTES_MAX`.
    pub(super) fn encode(&self) -> Vec<Bytes> {
        let per_piece = SNAPSHOT_VALUE_BYTES_MAX / STORED;
        let mut pieces = Vec::with_capacity(self.len().div_ceil(per_piece));
        let mut piece = Vec::new();
        let all = self.frozen.iter().flat_map(|chunk| chunk.iter()).chain(&self.open).skip(self.skip);
        for remembered in all {
            if piece.len() == per_piece * STORED {
                pieces.push(Bytes::from(std::mem::take(&mut piece)));
            }
            piece.extend_from_slice(&remembered.key.0.to_le_bytes());
            piece.extend_from_slice(&remembered.body.to_le_bytes());
            piece.extend_from_slice(&remembered.part.to_le_bytes());
            piece.extend_from_slice(&remembered.first.to_le_bytes());
            piece.extend_from_slice(&remembered.time.to_le_bytes());
        }
        if !piece.is_empty() {
            pieces.push(piece.into());
        }
        pieces
    }
}

impl Keys {
    pub(super) fn decode(pieces: &[Bytes]) -> Result<Self, ShardError> {
        let malformed = ShardError::Snapshot { part: "idempotency keys" };
        let mut keys = Self::default();
        for piece in pieces {
            if piece.len() % STORED != 0 {
                return Err(malformed);
            }
            for stored in piece.chunks_exact(STORED) {
                keys.append(Remembered {
                    key: Key(u128::from_le_bytes(field(stored, 0))),
                    body: u64::from_le_bytes(field(stored, 16)),
                    part: u32::from_le_bytes(field(stored, 24)),
                    first: u64::from_le_bytes(field(stored, 28)),
                    time: u64::from_le_bytes(field(stored, 36)),
                });
            }
        }
        if keys.index.len() == keys.len() { Ok(keys) } else { Err(malformed) }
    }

    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// The body with which a key was used, as far as any of its parts is remembered.
    pub(super) fn body(&self, key: Key) -> Option<u64> {
        let (_, sequence) = self.index.range(part_of(key, 0)..=part_of(key, u32::MAX)).next()?;
        self.at(*sequence).map(|known| known.body)
    }

    pub(super) fn get(&self, key: Key, part: u32) -> Option<&Remembered> {
        self.at(*self.index.get(&part_of(key, part))?)
    }

    fn at(&self, sequence: u64) -> Option<&Remembered> {
        self.log.get(usize::try_from(sequence.checked_sub(self.oldest)?).ok()?)
    }

    /// Adds a part that is not known, and forgets the oldest above the bound.
    pub(super) fn remember(&mut self, remembered: Remembered, bound: usize) {
        self.append(remembered);
        while self.len() > bound {
            self.forget_oldest();
        }
    }

    fn append(&mut self, remembered: Remembered) {
        let sequence = self.oldest + self.log.len() as u64;
        self.index.insert(part_of(remembered.key, remembered.part), sequence);
        self.log.push(remembered);
    }

    /// Forgets what was stored before a moment of shard time.
    pub(super) fn forget_before(&mut self, time: u64) {
        while self.log.get(0).is_some_and(|oldest| oldest.time < time) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.log.pop() {
            self.index.remove(&part_of(oldest.key, oldest.part));
            self.oldest += 1;
        }
    }

    pub(super) fn capture(&self) -> Captured {
        self.log.clone()
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within one entry")
}
