//! The words of a replicated log, shared by the room that agrees on it (`consensus`) and the room that keeps it
//! (`storage`), which do not know each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Index, Offset, ReplicaId, ShardId, Term};

/// What an entry's payload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// A command for the group's state; an empty payload is a leader's first, no-op entry.
    Normal = 0,
    /// A change of the group's configuration, version 1.
    Configuration = 1,
    /// A change of the group's configuration, version 2 (joint consensus).
    JointConfiguration = 2,
}

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub index: Index,
    /// The term in which a leader proposed it.
    pub term: Term,
    /// What the payload is for.
    pub kind: EntryKind,
    /// The bytes that were proposed; a batch is encoded once and stays as it is.
    pub payload: Bytes,
}

/// What a replica must not forget besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// The replica it voted for in that term.
    pub vote: Option<ReplicaId>,
    /// The highest index it knows to be committed; a hint, it may lag.
    pub commit: Index,
}

/// The last entry that a log no longer holds: everything through it lives in a snapshot. Zero: nothing was trimmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// What a replica finds of its log when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The hard state last persisted.
    pub hard_state: HardState,
    /// Where the log was trimmed.
    pub trimmed: Position,
    /// Every entry after `trimmed`, contiguous, in order.
    pub entries: Vec<Entry>,
}

/// What a manifest says of one sealed segment: enough to find it, to know it for whole and to skip it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// The offset of its first record.
    pub from: Offset,
    /// The offset of its last record; it holds all between.
    pub to: Offset,
    /// Length of its file.
    pub bytes: u64,
    /// xxh3-128 of its file.
    pub hash: u128,
    /// Sum of the digests of the records it decodes to: the same on every replica, whatever the bytes.
    pub digest: u128,
    /// The earliest timestamp, in nanoseconds since the Unix epoch.
    pub min_timestamp: i64,
    /// The latest.
    pub max_timestamp: i64,
    /// Bytes of lines and metadata, as users sent them.
    pub raw_bytes: u64,
}

impl SegmentMeta {
    /// Its file's name within the folder of its shard.
    pub fn name(&self) -> String {
        format!("{:020}-{:020}.blocks", self.from.0, self.to.0)
    }
}

/// The state of a shard as of one entry: what replaces the log through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: ShardId,
    /// The last entry it contains.
    pub position: Position,
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// Shard time, in milliseconds since the Unix epoch.
    pub time: u64,
    /// Every sealed segment, in order of offsets.
    pub segments: Vec<SegmentMeta>,
    /// The idempotency keys, oldest first, in pieces that only the shard reads.
    pub keys: Vec<Bytes>,
    /// The active streams, in pieces that only the shard reads.
    pub streams: Vec<Bytes>,
}
