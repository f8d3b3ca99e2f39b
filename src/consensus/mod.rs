//! Agreement on one order of entries in a group of replicas: events in, effects out.
//!
//! This is the one place that knows raft-rs. [`Replica::step`] takes one [`Event`] and appends the [`Effect`]s that
//! the caller must carry out, in their order; an effect never steps the replica, its outcome comes back as an event.
//! Time is counted in ticks, election timeouts come from a seed, so the same events give the same effects.
//!
//! What it does not know: how entries reach a disk (`storage` does, it is told [`Effect::Persist`] and answers
//! [`Event::Persisted`]), what a payload means, and which node a replica lives on.
//!
//! Who belongs to a group is decided by its own log: a change ([`Event::Change`]) is an entry like any other and holds
//! once it is committed and given out, on every replica at the same index ([`Effect::Members`]). A replica starts with
//! the members as of its snapshot, finds the later ones in its log, and may start with none: then it follows and learns
//! them. A leader whose log was trimmed offers the position of its snapshot to a follower that needs more
//! ([`Effect::Offered`]); how the snapshot itself gets there is the callers' affair, and a replica is created anew from
//! it. Nothing in here ever reads one.
//!
//! Watermarks, always: `trimmed <= evicted <= applied <= committed <= last`, and `applied <= persisted <= last`.
//! Entries through `trimmed` are gone; those through `evicted` are only on the disk; the rest is in memory.

mod changes;
#[cfg(test)]
mod golden;
mod guard;
mod log;
mod message;
mod reads;
mod replica;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::entry::{Entry, EntryKind, HardState, Members, Position};
use crate::id::{Index, ReplicaId, ShardId, Term};

pub use message::{Message, MessageKind};
pub use replica::{Knobs, PeerState, PeerStatus, Replica, ReplicaOptions, ReplicaStatus, hard_state_behind};

/// What happened, from the caller's side.
#[derive(Clone, Debug)]
pub enum Event {
    /// One tick of the logical clock has passed.
    Tick,
    /// A message of another replica of the group arrived.
    Receive(Message),
    /// Somebody wants a payload in the log. Answered by exactly one of a committed entry that carries the ticket,
    /// [`Effect::Refused`] and [`Effect::Abandoned`].
    Propose {
        /// The caller's name for the proposal, unique among those waiting.
        ticket: u64,
        /// The bytes; at least one, at most `ENTRY_BYTES_MAX`.
        payload: Bytes,
    },
    /// Somebody wants another replica in the group, or one less. Answered by exactly one of a committed entry that
    /// carries the ticket, [`Effect::Refused`] and [`Effect::Abandoned`].
    Change {
        /// The caller's name for the proposal, unique among those waiting.
        ticket: u64,
        /// What shall change.
        change: Change,
    },
    /// The [`Effect::Persist`] of this number is durable. They come back in the order in which they were given out;
    /// another order is a programmer error.
    Persisted {
        /// The effect's number.
        number: u64,
    },
    /// The state machine holds everything through this index.
    Applied {
        /// An index given out by [`Effect::Apply`], not lower than before.
        through: Index,
    },
    /// Somebody wants to read what is acknowledged by now. Answered by exactly one of [`Effect::ReadReady`] and
    /// [`Effect::ReadLost`].
    Read {
        /// The caller's name for the read, unique among those waiting.
        ticket: u64,
    },
    /// Hand leadership to another voter; ignored unless this replica leads, and while a change of members is under way.
    Transfer {
        /// Who shall lead.
        to: ReplicaId,
    },
    /// Stand for election now instead of after a timeout; ignored unless this replica votes.
    Campaign,
    /// A snapshot through this index is durable here, with the members as of it. It is what followers are offered.
    SnapshotWritten {
        /// At most the applied index; an older one than before changes nothing.
        through: Index,
    },
    /// The log may forget everything up to this index.
    Trim {
        /// At most the index of the newest snapshot.
        through: Index,
    },
    /// Entries through this index need not stay in memory, the disk still has them.
    Evict {
        /// At most the applied index.
        through: Index,
    },
    /// The answer to [`Effect::Fetch`].
    Fetched {
        /// The effect's number.
        number: u64,
        /// Entries from its `from` on, contiguous; empty if they could not be read.
        entries: Vec<Entry>,
    },
    /// A message to this peer was certainly lost, or its link is down.
    Unreachable {
        /// The peer.
        peer: ReplicaId,
    },
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write to the log, in this order: hard state, truncation, entries. Then answer [`Event::Persisted`].
    Persist {
        /// Rises by at least one each time.
        number: u64,
        /// Forget every entry from this index on, before the new ones.
        truncate_from: Option<Index>,
        /// Contiguous; may be empty.
        entries: Vec<Entry>,
        /// The hard state, if it changed.
        hard_state: Option<HardState>,
    },
    /// Send a message. It may be lost, repeated or reordered.
    Send {
        /// The replica it is for.
        to: ReplicaId,
        /// The message.
        message: Message,
    },
    /// Apply these entries, which follow on those given before. Then say [`Event::Applied`].
    Apply {
        /// Contiguous, never empty.
        entries: Vec<Committed>,
    },
    /// From this entry on these are the members. It comes before the [`Effect::Apply`] that begins with the entry: a
    /// snapshot as of an earlier one has the members as they were before.
    Members {
        /// Who they are.
        members: Members,
        /// The entry that made them so.
        index: Index,
    },
    /// The leader cannot help this replica by entries any more: fetch a snapshot at least this new, and create the
    /// replica anew from it ([`Replica::install_hard_state`]). Said once for each leader and position; who fails to
    /// fetch tries again by himself. Until then the replica goes on as it is.
    Offered {
        /// Who offers.
        from: ReplicaId,
        /// The last entry that the snapshot contains.
        position: Position,
        /// The members as of it; none where whoever made the snapshot did not know any yet. Then they are in the log.
        members: Members,
    },
    /// The proposal was certainly not appended; it is safe to try elsewhere.
    Refused {
        /// The proposal.
        ticket: u64,
        /// Why.
        why: Refusal,
    },
    /// Leadership was lost before the proposal was known to be committed: it may or may not come to pass.
    Abandoned {
        /// The proposal.
        ticket: u64,
    },
    /// The read may be answered as soon as the state machine has applied this index.
    ReadReady {
        /// The read.
        ticket: u64,
        /// The index to wait for.
        index: Index,
    },
    /// The read cannot be answered here, or not in time.
    ReadLost {
        /// The read.
        ticket: u64,
        /// Why.
        why: ReadLoss,
    },
    /// Role, term or known leader changed.
    Role {
        /// What this replica is now.
        role: Role,
        /// Its term.
        term: Term,
        /// Who leads in that term, if known; this replica itself if it leads.
        leader: Option<ReplicaId>,
    },
    /// Read entries that are only on the disk, for a slow follower. Then say [`Event::Fetched`].
    Fetch {
        /// Names the fetch.
        number: u64,
        /// The first index.
        from: Index,
        /// The last index, included; fewer entries are fine.
        through: Index,
        /// Payload bytes at which to stop; at least one entry.
        bytes_max: u64,
    },
    /// The log was trimmed here: the disk may forget everything through it.
    Trimmed {
        /// The last entry that is gone.
        position: Position,
    },
}

/// A committed entry on its way to the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its position.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// What the payload is for.
    pub kind: EntryKind,
    /// The proposed bytes, or the encoded [`Members`]; empty for a leader's first entry, and where a joint
    /// configuration is left.
    pub payload: Bytes,
    /// The ticket, if it was proposed here, in this term.
    pub ticket: Option<u64>,
}

/// A change of who belongs to a group. Each says what shall be so, and is [`Refusal::Nothing`] where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new replica follows.
    AddLearner(ReplicaId),
    /// A learner becomes a voter, and a replica that is to go is no member any more. With both, the old and the new
    /// voters must agree for a while; the leader ends that by itself.
    Replace {
        /// Who becomes a voter.
        add: Option<ReplicaId>,
        /// Who goes; whether it is a member or not any more.
        remove: Option<ReplicaId>,
    },
    /// A learner goes before it became a voter.
    RemoveLearner(ReplicaId),
}

/// Why a proposal was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This replica does not lead, or is handing leadership over.
    NotLeader {
        /// Who does, if known.
        leader: Option<ReplicaId>,
    },
    /// Too much waits to be committed; for a change of members also: another is under way, or this leader is so new
    /// that it has committed nothing yet.
    Busy,
    /// The change asks for what is so already.
    Nothing,
    /// The change would leave nobody who votes.
    NoVoters,
    /// The change would remove the leader that is asked: hand leadership over first, then ask the next one.
    RemovesLeader,
    /// This replica is not what the change needs: one that becomes a voter must be a member and not go at once, one that
    /// is removed as a learner must not vote, a new one needs an id above zero and a place below `MEMBERS_MAX`.
    Unfit {
        /// The replica.
        id: ReplicaId,
    },
    /// The payload is empty or larger than `ENTRY_BYTES_MAX`.
    Size {
        /// Its bytes.
        bytes: usize,
    },
}

/// Why a read got no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLoss {
    /// This replica does not lead, or no longer.
    NotLeader {
        /// Who does, if known.
        leader: Option<ReplicaId>,
    },
    /// Too many reads wait.
    Busy,
    /// No majority answered within `READ_TICKS_MAX`.
    Late,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It follows and never stands for election: a learner, or no member, be it not yet or not any more.
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether an election would be won.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

/// What can be wrong with what a replica is given. The replica is unchanged by an event that it refuses.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// Bytes from a peer that are no message.
    #[error("a message of {bytes} bytes cannot be decoded: {what}")]
    Undecodable {
        /// The length of the input.
        bytes: usize,
        /// What was found.
        what: &'static str,
        /// The decoder's own words, if it had any.
        source: Option<rmp_serde::decode::Error>,
    },
    /// A message that no honest replica of this group sends to this one.
    #[error("{shard} refuses a {kind:?} from replica {from}: {why}")]
    Foreign {
        /// The group.
        shard: ShardId,
        /// The claimed sender.
        from: ReplicaId,
        /// The message's kind.
        kind: MessageKind,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What was recovered cannot be the log of a replica.
    #[error("the recovered log of {shard} is not usable at index {index}: {why}")]
    Recovered {
        /// The group.
        shard: ShardId,
        /// Where.
        index: Index,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The entries read back for a follower are not those that were written.
    #[error("{shard} read back entries that do not fit its log at index {index}; the log file is damaged")]
    FetchedOther {
        /// The group.
        shard: ShardId,
        /// Where.
        index: Index,
    },
    /// The options contradict each other.
    #[error("the options of {shard} are not usable: {why}")]
    Options {
        /// The group.
        shard: ShardId,
        /// What is wrong with them.
        why: &'static str,
    },
    /// raft-rs would not start.
    #[error("raft did not start for {shard}")]
    Start {
        /// The group.
        shard: ShardId,
        /// Its words.
        source: raft::Error,
    },
}

impl ConsensusError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Undecodable { .. } | Self::Foreign { .. } => Class::Refuse,
            Self::Recovered { .. } | Self::FetchedOther { .. } | Self::Options { .. } | Self::Start { .. } => {
                Class::Fatal
            }
        }
    }
}
