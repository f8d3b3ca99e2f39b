//! The words of a replicated log, shared by the room that agrees on it (`consensus`) and the room that keeps it
//! (`storage`), which do not know each other.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::{Index, Offset, ReplicaId, ShardId, Term};
use crate::limits;

const MEMBERS_VERSION: u8 = 1;

/// What an entry's payload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// A command for the group's state; an empty payload is a leader's first, no-op entry.
    Normal = 0,
    /// A change of the group's configuration as older versions of raft made it; never proposed.
    Configuration = 1,
    /// A change of the group's configuration: the encoded [`Members`] that hold from this entry on, or no bytes where
    /// a joint configuration is left.
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

/// Who belongs to a group, as of one of its entries. Empty: nothing is known yet.
///
/// A group that goes from one set of voters to another is joint for a while: both sets must agree to everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Who votes; of a joint group those it goes to.
    pub voters: BTreeSet<ReplicaId>,
    /// The voters a joint group comes from; empty otherwise.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Who only follows.
    pub learners: BTreeSet<ReplicaId>,
    /// Those of `outgoing` that will only follow once it is left.
    pub learners_next: BTreeSet<ReplicaId>,
    /// Whether a leader ends the joint configuration by itself as soon as it is applied.
    pub auto_leave: bool,
}

/// Bytes that are not the members of a group.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes are not the members of a group: {what}")]
pub struct MembersError {
    /// The length of the input.
    pub bytes: usize,
    /// What was found.
    pub what: &'static str,
    /// The decoder's own words, if it had any.
    pub source: Option<rmp_serde::decode::Error>,
}

impl MembersError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}

impl Members {
    /// A group that is not under way to another one.
    pub fn of(voters: impl IntoIterator<Item = ReplicaId>, learners: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self { voters: voters.into_iter().collect(), learners: learners.into_iter().collect(), ..Self::default() }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether two sets of voters must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a replica's vote counts.
    pub fn votes(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether a replica takes part, in whatever way.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.votes(id) || self.learners.contains(&id)
    }

    /// Everybody who takes part.
    pub fn all(&self) -> BTreeSet<ReplicaId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Checks that these can be the members of a group, or nobody.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), &'static str> {
        let staged = |id: &ReplicaId| self.outgoing.contains(id) && !self.voters.contains(id);
        if self.is_empty() {
            Ok(())
        } else if self.voters.is_empty() {
            Err("nobody votes")
        } else if self.all().contains(&ReplicaId(0)) {
            Err("a replica id is zero")
        } else if self.all().len() > limits::MEMBERS_MAX {
            Err("there are too many")
        } else if self.learners.iter().any(|id| self.votes(*id)) {
            Err("a replica votes and learns")
        } else if !self.learners_next.iter().all(staged) {
            Err("a replica is to learn that does not stop voting")
        } else if self.auto_leave && !self.is_joint() {
            Err("there is no joint configuration to leave")
        } else {
            Ok(())
        }
    }

    /// One byte of version, then the MessagePack array of the fields.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![MEMBERS_VERSION];
        rmp_serde::encode::write(&mut bytes, self).expect("writing numbers to memory cannot fail");
        bytes.into()
    }

    /// Reads what [`Members::encode`] wrote.
    ///
    /// # Errors
    /// For any other bytes, and for members that [`Members::check`] refuses.
    pub fn decode(input: &[u8]) -> Result<Self, MembersError> {
        let refuse = |what| MembersError { bytes: input.len(), what, source: None };
        let rest = match input {
            [] => return Err(refuse("there are none")),
            [MEMBERS_VERSION, rest @ ..] if input.len() <= limits::MEMBERS_BYTES_MAX => rest,
            [MEMBERS_VERSION, ..] => return Err(refuse("too many bytes")),
            [..] => return Err(refuse("unknown version")),
        };
        let members: Self = rmp_serde::from_slice(rest)
            .map_err(|source| MembersError { source: Some(source), ..refuse("they cannot be decoded") })?;
        members.check().map_err(refuse)?;
        // One group has one encoding: ids out of order, named twice or followed by something are no such encoding.
        if members.encode() != input { Err(refuse("they are not as they are written")) } else { Ok(members) }
    }
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
        segment_name(self.from, self.to)
    }
}

/// The name of the file of a segment from the first offset to the last.
pub fn segment_name(from: Offset, to: Offset) -> String {
    format!("{:020}-{:020}.blocks", from.0, to.0)
}

/// The first and the last offset of the segment whose file has this name; none where it is no segment's.
pub fn segment_offsets(name: &str) -> Option<(Offset, Offset)> {
    let (from, to) = name.strip_suffix(".blocks")?.split_once('-')?;
    Some((Offset(from.parse().ok()?), Offset(to.parse().ok()?)))
}

/// The state of a shard as of one entry: what replaces the log through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// The shard.
    pub shard: ShardId,
    /// The last entry it contains.
    pub position: Position,
    /// The lowest offset that retention has left: every record below it is gone.
    pub first_offset: Offset,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(range: std::ops::Range<u64>) -> impl Strategy<Value = BTreeSet<ReplicaId>> {
        proptest::collection::btree_set(range.prop_map(ReplicaId), 0..4)
    }

    fn any_members() -> impl Strategy<Value = Members> {
        let numbers = prop_oneof![Just(0..6_u64), Just(1..300), Just(1..u64::MAX)];
        numbers
            .prop_flat_map(|range| {
                (ids(range.clone()), ids(range.clone()), ids(range.clone()), ids(range), any::<bool>())
            })
            .prop_map(|(voters, outgoing, learners, learners_next, auto_leave)| Members {
                voters,
                outgoing,
                learners,
                learners_next,
                auto_leave,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn members_come_back_as_they_were_or_not_at_all(members in any_members()) {
            let decoded = Members::decode(&members.encode());
            match members.check() {
                Ok(()) => prop_assert_eq!(decoded.unwrap(), members),
                Err(why) => prop_assert_eq!(decoded.unwrap_err().what, why),
            }
        }

        #[test]
        fn damaged_members_never_panic_and_are_never_written_otherwise(
            members in any_members(), at: prop::sample::Index, bit in 0..8_u8, cut: bool, more: bool,
        ) {
            let mut bytes = members.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if cut {
                bytes.truncate(at);
            } else if more {
                bytes.push(bit);
            }
            if let Ok(other) = Members::decode(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
        }
    }

    #[test]
    fn as_many_members_as_there_may_be_fit_into_their_bytes() {
        let many = |from: u64| (0..limits::MEMBERS_MAX as u64 / 2).map(move |n| ReplicaId(u64::MAX - from - n));
        let half = limits::MEMBERS_MAX as u64 / 2;
        let members = Members {
            outgoing: many(half).collect(),
            learners_next: many(half).collect(),
            auto_leave: true,
            ..Members::of(many(0), [])
        };
        assert_eq!(Members::decode(&members.encode()).unwrap(), members);
        let more = Members { learners: [ReplicaId(1)].into(), ..members };
        assert_eq!(more.check(), Err("there are too many"));
    }
}
