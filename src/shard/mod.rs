//! The replicated state of one shard: what every replica makes of the same entries. Offsets are assigned here, known
//! parts skipped, streams counted, the head kept until its segment is registered, and what retention ended forgotten.
//!
//! Everything is a pure function of the entries: two replicas that applied the same index hold the same state, byte
//! for byte in their snapshots. Time is shard time, which the leader stamps into each entry and which never goes
//! back. It does not know raft, disks or who asked.

mod command;
mod error;
mod head;
mod keys;
mod seal;
mod streams;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::block::l0::L0;
use crate::entry::{Position, ShardSnapshot};
use crate::id::{Index, Key, Offset, ShardId, Term};
use crate::limits;

use keys::{Keys, Remembered};
use streams::Streams;

pub use command::{Command, SubBatch};
pub use error::ShardError;
pub use head::{HeadBatch, HeadView};
pub use seal::{Proof, SealJob, SealedBlock};

/// The bounds of a shard's state. The same on every replica, or they part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Idempotency keys remembered, each part of a request counted; oldest out first.
    pub keys: usize,
    /// How long a key is remembered, in milliseconds of shard time.
    pub key_life: u64,
    /// Active streams of one tenant.
    pub streams_per_tenant: usize,
    /// How long a stream without a record counts as active once its tenant is at its bound, in milliseconds.
    pub stream_life: u64,
}

impl Default for ShardOptions {
    fn default() -> Self {
        let milliseconds = |life: std::time::Duration| u64::try_from(life.as_millis()).expect("hours");
        Self {
            keys: limits::KEYS_PER_SHARD_MAX,
            key_life: milliseconds(limits::KEY_LIFE),
            streams_per_tenant: limits::STREAMS_PER_TENANT_MAX,
            stream_life: milliseconds(limits::STREAM_LIFE),
        }
    }
}

/// What became of one entry.
#[derive(Clone, Debug)]
pub enum Applied {
    /// A batch: one verdict per sub-batch, in their order.
    Batch(Vec<Verdict>),
    /// The head was cut: everything through this entry is to become a segment and a snapshot.
    Seal(Arc<SealJob>),
    /// Records below an offset are gone, or were before.
    Dropped,
    /// An empty entry, a leader's first.
    Nothing,
    /// Bytes that are no command; refused by every replica alike.
    Malformed,
}

/// What became of one sub-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The request's key.
    pub key: Key,
    /// Which part of the request in this shard.
    pub part: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// What can become of a sub-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its records are in the head.
    Stored {
        /// The offset of its first record.
        first: Offset,
        /// How many records it has; their offsets are contiguous.
        rows: u32,
    },
    /// The same part was stored before; nothing was stored again.
    Known {
        /// The offset its first record got then.
        first: Offset,
    },
    /// The key was used with another body.
    Conflict,
    /// The part before it is not known: the whole request must be sent again.
    Gap,
    /// The tenant would have more active streams than allowed; the part was refused whole.
    TooManyStreams,
    /// Its bytes are no batch.
    Malformed,
}

/// The state of one shard on one replica.
#[derive(Clone, Debug)]
pub struct Shard {
    id: ShardId,
    options: ShardOptions,
    applied: Position,
    /// Every record below it is gone.
    first_offset: Offset,
    /// Where the last seal cut: the first offset that is in no segment, nor in one that is being written.
    cut_offset: Offset,
    next_offset: Offset,
    /// Milliseconds since the Unix epoch.
    time: u64,
    keys: Keys,
    streams: Streams,
    head: head::Head,
}

impl Shard {
    /// A shard to which nothing was applied.
    pub fn new(id: ShardId, options: ShardOptions) -> Self {
        Self {
            id,
            options,
            applied: Position::default(),
            first_offset: Offset(0),
            cut_offset: Offset(0),
            next_offset: Offset(0),
            time: 0,
            keys: Keys::default(),
            streams: Streams::default(),
            head: head::Head::default(),
        }
    }

    /// The shard as it was at a snapshot, with an empty head.
    pub fn restore(snapshot: &ShardSnapshot, options: ShardOptions) -> Result<Self, ShardError> {
        Ok(Self {
            id: snapshot.shard,
            options,
            applied: snapshot.position,
            first_offset: snapshot.first_offset,
            cut_offset: snapshot.next_offset,
            next_offset: match snapshot.segments.last() {
                Some(newest) if mutant!(OffsetsReused) => newest.to,
                Some(_) | None => snapshot.next_offset,
            },
            time: snapshot.time,
            keys: Keys::decode(&snapshot.keys)?,
            streams: Streams::decode(&snapshot.streams)?,
            head: head::Head::default(),
        })
    }

    /// Applies the entry. Entries come in order; those that are not commands of the shard may be left out.
    ///
    /// Fails where the entry is not above what was applied; the state is then unchanged.
    pub fn apply(&mut self, index: Index, term: Term, payload: &Bytes) -> Result<Applied, ShardError> {
        if index <= self.applied.index || term < self.applied.term {
            return Err(ShardError::OutOfOrder { shard: self.id, applied: self.applied, index, term });
        }
        if mutant!(KeysForgottenByTerm) && term > self.applied.term {
            self.keys = Keys::default();
        }
        self.applied = Position { index, term };
        if payload.is_empty() {
            return Ok(Applied::Nothing);
        }
        let Ok(command) = Command::decode(payload) else { return Ok(Applied::Malformed) };
        match command {
            Command::Batch { stamp, subs } => {
                self.advance_time(stamp);
                Ok(Applied::Batch(subs.iter().map(|sub| self.apply_sub_batch(index, sub)).collect()))
            }
            Command::Seal { stamp, hold } => {
                self.advance_time(stamp);
                Ok(Applied::Seal(Arc::new(self.cut(hold))))
            }
            Command::Drop { stamp, below } => {
                self.advance_time(stamp);
                self.drop_below(below);
                Ok(Applied::Dropped)
            }
        }
    }

    /// Only what a seal has cut can go, whether its segment is registered here or not yet: the rule is one of offsets
    /// alone, so that replicas that seal at different times agree. What came first stays first.
    fn drop_below(&mut self, below: Offset) {
        if below <= self.cut_offset {
            self.first_offset = self.first_offset.max(below);
        }
    }

    fn advance_time(&mut self, stamp: u64) {
        self.time = self.time.max(stamp);
        self.keys.forget_before(self.time.saturating_sub(self.options.key_life));
    }

    fn apply_sub_batch(&mut self, index: Index, sub: &SubBatch) -> Verdict {
        let outcome = self.judge(index, sub);
        Verdict { key: sub.key, part: sub.part, outcome }
    }

    fn judge(&mut self, index: Index, sub: &SubBatch) -> Outcome {
        if self.keys.body(sub.key).is_some_and(|body| body != sub.body) {
            return Outcome::Conflict;
        }
        let part = if mutant!(KeyWithoutPart) { 0 } else { sub.part };
        if let Some(known) = self.keys.get(sub.key, part) {
            return Outcome::Known { first: Offset(known.first) };
        }
        if sub.part > 0 && self.keys.get(sub.key, sub.part - 1).is_none() {
            return Outcome::Gap;
        }
        let Ok(l0) = L0::open(sub.batch.clone()) else { return Outcome::Malformed };
        if !sub.restored && !self.streams.admit(l0.streams(), self.time, &self.options) {
            return Outcome::TooManyStreams;
        }
        let (first, rows) = (self.next_offset, l0.len());
        self.next_offset = Offset(first.0 + u64::from(rows));
        let remembered = Remembered { key: sub.key, body: sub.body, part: sub.part, first: first.0, time: self.time };
        self.keys.remember(remembered, self.options.keys);
        let known = self.streams.known(l0.streams());
        self.head.push(HeadBatch::new(first, index, self.time, l0.share_streams(known)));
        Outcome::Stored { first, rows }
    }

    fn cut(&mut self, hold: Index) -> SealJob {
        self.cut_offset = self.next_offset;
        SealJob {
            hold,
            shard: self.id,
            position: self.applied,
            first_offset: self.first_offset,
            next_offset: self.next_offset,
            time: self.time,
            keys: self.keys.capture(),
            streams: self.streams.clone(),
            batches: self.head.cut(),
        }
    }

    /// The shard.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The index of the last entry applied.
    pub fn applied(&self) -> Index {
        self.applied.index
    }

    /// The lowest offset that retention has left: every record below it is gone.
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// The offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Shard time, in milliseconds since the Unix epoch.
    pub fn shard_time(&self) -> u64 {
        self.time
    }

    /// Raw bytes of the head, those that are being sealed included.
    pub fn head_bytes(&self) -> u64 {
        self.head.bytes()
    }

    /// Raw bytes of the head that no seal has cut yet.
    pub fn unsealed_bytes(&self) -> u64 {
        self.head.unsealed_bytes()
    }

    /// When the oldest batch that no seal has cut yet was stamped, in milliseconds since the Unix epoch.
    pub fn unsealed_since(&self) -> Option<u64> {
        self.head.unsealed_since()
    }

    /// How long the oldest batch that no seal has cut yet waits, in milliseconds of shard time; 0 without one.
    pub fn head_age(&self) -> u64 {
        self.unsealed_since().map_or(0, |since| self.time.saturating_sub(since))
    }

    /// The idempotency keys remembered, each part counted.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The head as of now; later entries do not change it.
    pub fn view(&self) -> HeadView {
        self.head.view()
    }

    /// The segment through this entry is registered: its batches leave the head.
    pub fn sealed(&mut self, through: Index) {
        self.head.sealed(through);
    }
}

#[cfg(test)]
mod tests;
