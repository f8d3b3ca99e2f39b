//! What a replica is made of: its options, what it finds on the disk, and raft-rs's own settings. It does not know
//! what happens afterwards.

use raft::ReadOnlyOption;
use raft::eraftpb;

use super::super::ConsensusError;
use super::super::changes;
use crate::entry::{EntryKind, HardState, Members, Position, Recovered};
use crate::id::{Boot, Incarnation, Index, ReplicaId, ShardId, Term};
use crate::limits;

/// What may be tuned; the defaults are the limits of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Least ticks without a leader before a replica campaigns; the draw is in `[election_ticks, 2 * election_ticks)`.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Entry bytes in one append.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Payload bytes a leader holds that are not committed.
    pub uncommitted_bytes_max: u64,
    /// Entry bytes in one `Apply`.
    pub apply_bytes_max: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            election_ticks: limits::ELECTION_TICKS,
            heartbeat_ticks: limits::HEARTBEAT_TICKS,
            append_bytes_max: limits::APPEND_BYTES_MAX,
            inflight_appends_max: limits::INFLIGHT_APPENDS_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            apply_bytes_max: limits::APPLY_BYTES_MAX,
        }
    }
}

/// Who a replica is.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Its group.
    pub shard: ShardId,
    /// Itself.
    pub id: ReplicaId,
    /// The members as of the snapshot that its state machine starts from, not the latest: later changes are in the
    /// log and come up again. Without a snapshot those that the group began with; empty for a replica that came later.
    /// Such a one follows whoever leads, and knows who there is from the first change on.
    pub members: Members,
    /// This life of the process.
    pub boot: Boot,
    /// This life of the replica.
    pub incarnation: Incarnation,
    /// From which election timeouts are drawn.
    pub seed: u64,
    /// What may be tuned.
    pub knobs: Knobs,
}

/// Draws election timeouts: splitmix64, whose every output is decided by the seed.
#[derive(Debug)]
pub(super) struct Draws(u64);

impl Draws {
    /// Replicas that were handed the same seed must not stand for election in step.
    pub(super) fn new(seed: u64, shard: ShardId, id: ReplicaId) -> Self {
        let mut draws = Self(seed ^ u64::from(shard.0));
        draws.0 = draws.next() ^ id.0;
        draws
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub(super) fn raft_config(id: ReplicaId, applied: Index, knobs: Knobs) -> raft::Config {
    raft::Config {
        id: id.0,
        election_tick: knobs.election_ticks,
        heartbeat_tick: knobs.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: knobs.append_bytes_max,
        max_inflight_msgs: knobs.inflight_appends_max,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: knobs.election_ticks,
        max_election_tick: 2 * knobs.election_ticks,
        read_only_option: ReadOnlyOption::Safe,
        // Followers learn of a commit with the next append or heartbeat; an empty append for each would double the
        // messages of a quiet group.
        skip_bcast_commit: true,
        // It merges appends without looking at their size.
        batch_append: false,
        priority: 0,
        max_uncommitted_size: knobs.uncommitted_bytes_max,
        max_committed_size_per_ready: knobs.apply_bytes_max,
    }
}

/// Checks a recovered log. Returns the hard state to start with, and the one that is on the disk.
pub(super) fn check_recovered(
    shard: ShardId,
    recovered: &Recovered,
    applied: Index,
) -> Result<(eraftpb::HardState, HardState), ConsensusError> {
    let damaged = |index, why| Err(ConsensusError::Recovered { shard, index, why });
    let mut at = recovered.trimmed;
    if (at.index == Index(0)) != (at.term == Term(0)) {
        return damaged(at.index, "the trimmed position has no term");
    }
    for entry in &recovered.entries {
        if entry.index.0.checked_sub(1) != Some(at.index.0) {
            return damaged(entry.index, "entries are missing before it");
        }
        if entry.term < at.term || entry.term == Term(0) {
            return damaged(entry.index, "its term is lower than that of the entry before");
        }
        if let Err(why) = changes::check(entry) {
            return damaged(entry.index, why);
        }
        at = Position { index: entry.index, term: entry.term };
    }
    if applied < recovered.trimmed.index || applied > at.index {
        return damaged(applied, "the snapshot's index is not in the log");
    }
    let written = recovered.hard_state;
    let mut hard_state = eraftpb::HardState::default();
    if written.term >= at.term {
        hard_state.term = written.term.0;
        hard_state.vote = written.vote.map_or(0, |vote| vote.0);
    } else {
        // A write that was torn between its entries and its hard state: nothing in that term was answered.
        hard_state.term = at.term.0;
    }
    // The commit index is a hint: it may lag behind the snapshot, or run ahead of a torn tail.
    let hint = written.commit.max(settled_change(recovered));
    hard_state.commit = hint.0.clamp(applied.0, at.index.0);
    Ok((hard_state, written))
}

/// The hard state with which a log goes on behind a snapshot that is newer than all it holds: a snapshot that was copied
/// from another replica. `None` where the log reaches it, or was trimmed beyond it: nothing must be replaced.
pub fn hard_state_behind(recovered: &Recovered, snapshot: Position) -> Option<HardState> {
    let Recovered { hard_state, trimmed, entries } = recovered;
    let reached = entries.iter().any(|entry| entry.index == snapshot.index && entry.term == snapshot.term);
    if reached || snapshot.index <= trimmed.index {
        return None;
    }
    let term = hard_state.term.max(snapshot.term);
    let vote = hard_state.vote.filter(|_| term == hard_state.term);
    Some(HardState { term, vote, commit: snapshot.index })
}

/// The last change of members that is committed for certain. A leader makes a change only after it applied the one
/// before, so of two in any log the first is committed, whatever the hint says. To stand for election by members older
/// than these could bring two leaders of one term: the voters of two changes in a row share one, those further apart may
/// not.
fn settled_change(recovered: &Recovered) -> Index {
    let changes = recovered.entries.iter().rev().filter(|entry| entry.kind == EntryKind::JointConfiguration);
    changes.map(|entry| entry.index).nth(1).unwrap_or_default()
}
