//! The payload of a shard's entry, as it travels, is logged and is applied. It does not know what a shard makes of it.
//!
//! All numbers little-endian. Header, 16 bytes:
//!
//! ```text
//!  0 u8  magic and version, 0xB1       1 u8  kind: 1 batch, 2 seal, 3 drop       2 u16 zero
//!  4 u32 crc32c of bytes 0..4 and 16..: everything but the stamp
//!  8 u64 stamp: shard time in milliseconds since the Unix epoch; 0 until the leader stamps it
//! ```
//!
//! A batch goes on with a u32 number of sub-batches, and of each:
//!
//! ```text
//!  0 u128 key   16 u64 hash of the request's body   24 u32 part   28 u32 length   32 the batch (block kind 0)
//! ```
//!
//! The highest bit of the part is set where the records come from a backup.
//!
//! A seal goes on with a u32 version of the sealed encoding, 1, and a u64 hold. It cuts at its own index.
//!
//! A drop goes on with a u64 offset: what is below it is gone.
//!
//! An empty payload is a leader's first entry and no command.

use bytes::Bytes;

use super::ShardError;
use crate::id::{Index, Key, Offset};
use crate::limits::SUB_BATCHES_MAX;

const MAGIC: u8 = 0xB1;
const BATCH: u8 = 1;
const SEAL: u8 = 2;
const DROP: u8 = 3;
const HEAD: usize = 16;
const SUB: usize = 32;
const ENCODING: u32 = 1;
const RESTORED: u32 = 1 << 31;

/// One part of one request, for one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubBatch {
    /// The request's idempotency key.
    pub key: Key,
    /// A hash of the request's body: the same key with another one is a conflict.
    pub body: u64,
    /// Which part of the request's share of this shard, from 0.
    pub part: u32,
    /// Whether the records come from a backup: all their streams were active once, though maybe not at the same time,
    /// and none counts as active for it.
    pub restored: bool,
    /// The encoded batch.
    pub batch: Bytes,
}

/// What an entry asks of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Store these records.
    Batch {
        /// Shard time, in milliseconds since the Unix epoch.
        stamp: u64,
        /// The parts, in order.
        subs: Vec<SubBatch>,
    },
    /// Cut the head at this entry.
    Seal {
        /// Shard time, in milliseconds since the Unix epoch.
        stamp: u64,
        /// The last entry that every replica had when the leader proposed: logs keep what comes after it, for the
        /// replica that is behind.
        hold: Index,
    },
    /// Forget every record below an offset where a seal cut: the retention is over for all of them.
    Drop {
        /// Shard time, in milliseconds since the Unix epoch.
        stamp: u64,
        /// The first offset that stays.
        below: Offset,
    },
}

impl Command {
    /// Bytes that a sub-batch adds to a payload beside those of its batch.
    pub const SUB_BATCH_OVERHEAD: usize = SUB;
    /// Bytes of a batch payload without sub-batches.
    pub const BATCH_OVERHEAD: usize = HEAD + 4;

    /// The payload of a batch, not yet stamped.
    ///
    /// # Panics
    /// Where there is no sub-batch or more than `SUB_BATCHES_MAX`.
    pub fn encode_batch(subs: &[SubBatch]) -> Bytes {
        assert!((1..=SUB_BATCHES_MAX).contains(&subs.len()), "an entry of {} sub-batches", subs.len());
        let len: usize = subs.iter().map(|sub| SUB + sub.batch.len()).sum();
        let mut out = begin(BATCH, 4 + len);
        out.extend_from_slice(&size(subs.len()));
        for sub in subs {
            out.extend_from_slice(&sub.key.0.to_le_bytes());
            out.extend_from_slice(&sub.body.to_le_bytes());
            let restored = if sub.restored { RESTORED } else { 0 };
            out.extend_from_slice(&(sub.part | restored).to_le_bytes());
            out.extend_from_slice(&size(sub.batch.len()));
            out.extend_from_slice(&sub.batch);
        }
        finish(out)
    }

    /// The payload of a seal, not yet stamped.
    pub fn encode_seal(hold: Index) -> Bytes {
        let mut out = begin(SEAL, 12);
        out.extend_from_slice(&ENCODING.to_le_bytes());
        out.extend_from_slice(&hold.0.to_le_bytes());
        finish(out)
    }

    /// The payload of a drop, not yet stamped.
    pub fn encode_drop(below: Offset) -> Bytes {
        let mut out = begin(DROP, 8);
        out.extend_from_slice(&below.0.to_le_bytes());
        finish(out)
    }

    /// The payload with the leader's shard time, in milliseconds; in place where nobody else holds the bytes.
    ///
    /// # Panics
    /// Where it is shorter than a header: the caller decoded or encoded it before.
    pub fn stamp(payload: Bytes, milliseconds: u64) -> Bytes {
        let mut bytes: Vec<u8> = payload.into();
        bytes[8..HEAD].copy_from_slice(&milliseconds.to_le_bytes());
        bytes.into()
    }

    /// Reads a payload; the batches share its bytes. Their own content is not looked at.
    pub fn decode(payload: &Bytes) -> Result<Self, ShardError> {
        let malformed = |part| ShardError::Malformed { part };
        let head: &[u8; HEAD] = payload.first_chunk().ok_or(malformed("header"))?;
        if head[0] != MAGIC {
            return Err(malformed("version"));
        }
        if u32::from_le_bytes(field(head, 4)) != checksum(payload) {
            return Err(malformed("checksum"));
        }
        let stamp = u64::from_le_bytes(field(head, 8));
        match (head[1], &head[2..4]) {
            (BATCH, [0, 0]) => Ok(Self::Batch { stamp, subs: decode_subs(payload).ok_or(malformed("sub-batches"))? }),
            (SEAL, [0, 0]) if payload.len() == HEAD + 12 && payload[HEAD..HEAD + 4] == ENCODING.to_le_bytes() => {
                Ok(Self::Seal { stamp, hold: Index(u64::from_le_bytes(field(payload, HEAD + 4))) })
            }
            (DROP, [0, 0]) if payload.len() == HEAD + 8 => {
                Ok(Self::Drop { stamp, below: Offset(u64::from_le_bytes(field(payload, HEAD))) })
            }
            _ => Err(malformed("kind")),
        }
    }
}

fn begin(kind: u8, body: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body);
    out.extend_from_slice(&[MAGIC, kind, 0, 0]);
    out.resize(HEAD, 0);
    out
}

fn finish(mut out: Vec<u8>) -> Bytes {
    let sum = checksum(&out);
    out[4..8].copy_from_slice(&sum.to_le_bytes());
    out.into()
}

fn checksum(payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&payload[..4]), &payload[HEAD..])
}

fn decode_subs(payload: &Bytes) -> Option<Vec<SubBatch>> {
    let count = u32::from_le_bytes(*payload.get(HEAD..)?.first_chunk()?) as usize;
    if !(1..=SUB_BATCHES_MAX).contains(&count) {
        return None;
    }
    let mut subs = Vec::with_capacity(count);
    let mut at = HEAD + 4;
    for _ in 0..count {
        let head: &[u8; SUB] = payload.get(at..)?.first_chunk()?;
        let start = at + SUB;
        let end = start.checked_add(u32::from_le_bytes(field(head, 28)) as usize)?;
        if end > payload.len() {
            return None;
        }
        let part = u32::from_le_bytes(field(head, 24));
        subs.push(SubBatch {
            key: Key(u128::from_le_bytes(field(head, 0))),
            body: u64::from_le_bytes(field(head, 16)),
            part: part & !RESTORED,
            restored: part & RESTORED != 0,
            batch: payload.slice(start..end),
        });
        at = end;
    }
    (at == payload.len()).then_some(subs)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("within the fixed part")
}

fn size(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("an entry is far below 4 GiB").to_le_bytes()
}
