//! Which foreign messages reach raft-rs. It trusts its peers and panics on values that no correct replica sends;
//! here they are refused instead. This file knows what raft-rs 0.7 does with each field, and nothing of bytes.
//!
//! - A term of zero marks a local message and skips every check of terms; answering a vote with it is fatal.
//! - Terms and indexes are added to: near the top of their range they overflow.
//! - A probe at an index beyond the log with term zero *matches*, and then commits beyond the log: fatal.
//! - A heartbeat that commits beyond the last index is fatal.
//! - An append response beyond the leader's log counts entries as replicated that do not exist yet.
//! - A vote before the request for it was sent makes a leader whose log is not persisted: an assertion.
//! - Entries must follow on each other in index and term; configurations are never changed, so no entry does it.

use super::message::{Message, MessageKind};
use crate::entry::EntryKind;
use crate::id::{Index, ReplicaId, Term};
use crate::limits;

/// What the guard must know of the replica.
pub(super) struct Gate<'a> {
    pub(super) id: ReplicaId,
    pub(super) voters: &'a [ReplicaId],
    pub(super) learners: &'a [ReplicaId],
    pub(super) term: Term,
    pub(super) last_index: Index,
    /// Whether it leads in its term. Having restarted in it, it may meet honest answers beyond its log.
    pub(super) leads: bool,
    /// Whether it stands for election and its own vote is not durable yet, so that its requests are still held back.
    pub(super) votes_unasked: bool,
}

impl Gate<'_> {
    /// Says what is wrong with a message.
    pub(super) fn check(&self, message: &Message) -> Result<(), &'static str> {
        if message.to != self.id {
            return Err("it is for another replica");
        }
        let votes = self.voters.contains(&message.from);
        if message.from == self.id || !(votes || self.learners.contains(&message.from)) {
            return Err("the sender is no other member of the group");
        }
        check_numbers(message)?;
        if message.kind != MessageKind::Append && !message.entries.is_empty() {
            return Err("only an append carries entries");
        }
        match message.kind {
            MessageKind::Append if !votes => Err("a learner leads"),
            MessageKind::Append => check_append(message),
            MessageKind::Heartbeat if !votes => Err("a learner leads"),
            MessageKind::Heartbeat if message.term >= self.term && message.commit > self.last_index => {
                Err("a heartbeat commits beyond the log")
            }
            MessageKind::AppendResponse
                if self.leads && message.term == self.term && !message.reject && message.index > self.last_index =>
            {
                Err("an answer accepts what was never sent")
            }
            MessageKind::RequestVoteResponse if message.term == self.term && self.votes_unasked => {
                Err("a vote before it was asked for")
            }
            MessageKind::TimeoutNow | MessageKind::RequestVote | MessageKind::RequestPreVote if !votes => {
                Err("a learner takes part in an election")
            }
            MessageKind::AppendResponse
            | MessageKind::RequestVote
            | MessageKind::RequestVoteResponse
            | MessageKind::Heartbeat
            | MessageKind::HeartbeatResponse
            | MessageKind::TimeoutNow
            | MessageKind::RequestPreVote
            | MessageKind::RequestPreVoteResponse => Ok(()),
        }
    }
}

fn check_numbers(message: &Message) -> Result<(), &'static str> {
    if message.term == Term(0) {
        return Err("its term is zero");
    }
    let terms = [message.term, message.log_term, message.commit_term].map(|term| term.0);
    let indexes = [message.index, message.commit, message.reject_hint].map(|index| index.0);
    if terms.into_iter().chain(indexes).any(|number| number > limits::LOG_NUMBER_MAX) {
        return Err("a term or index is absurd");
    }
    Ok(())
}

fn check_append(message: &Message) -> Result<(), &'static str> {
    if (message.index == Index(0)) != (message.log_term == Term(0)) {
        return Err("index and term of the preceding entry contradict each other");
    }
    let mut at = (message.index, message.log_term);
    for entry in &message.entries {
        if entry.kind != EntryKind::Normal {
            return Err("an entry changes the configuration");
        }
        if entry.index.0 != at.0.0 + 1 || entry.term < at.1 || entry.term == Term(0) {
            return Err("entries do not follow on each other");
        }
        at = (entry.index, entry.term);
    }
    if at.1 > message.term {
        return Err("an entry is of a later term than its leader");
    }
    Ok(())
}
