//! Which foreign messages reach raft-rs. It trusts its peers and panics on values that no correct replica sends;
//! here they are refused instead. This file knows what raft-rs 0.7 does with each field, and nothing of bytes.
//!
//! - A term of zero marks a local message and skips every check of terms; answering a vote with it is fatal.
//! - Terms and indexes are added to: near the top of their range they overflow.
//! - A probe at an index beyond the log with term zero *matches*, and then commits beyond the log: fatal.
//! - A heartbeat that commits beyond the last index is fatal.
//! - An append response beyond the leader's log counts entries as replicated that do not exist yet.
//! - A vote before the request for it was sent makes a leader whose log is not persisted: an assertion. So does being
//!   told to stand at once where the own vote is enough.
//! - Entries must follow on each other in index and term. One that changes the members must say to what.
//! - Replica zero is raft-rs's word for nobody: a vote for it is none, and could be given again.
//! - A snapshot that is offered has a position that its leader can have, and says who the members are.
//!
//! Who the sender is says little, and is not asked. A replica knows the members as of what it has applied; if it is new
//! or behind it hears from leaders and candidates that it does not know, and the group may need its answers to get on.
//! None of that can break what a group promises: an answer counts only with a leader or candidate whose own members
//! include who gives it, the voters of two changes in a row share one, and a log is followed or refused for what it is.
//! Answers of those who are no members raft-rs drops by itself, before it looks at their terms.
//!
//! A replica that was removed and does not know it can only make noise, and does not: before it stands it asks for
//! pre-votes, which whoever hears of a leader ignores, without taking a term over. Only where nobody leads may it be
//! elected, by a majority of the voters it knows and with a log not behind theirs; then it finds its own removal in the
//! log and resigns.
//!
//! One thing is certain of a sender: a term has one leader. Once it is known, nobody else speaks as one in that term.

use super::changes;
use super::message::{Message, MessageKind};
use crate::entry::Members;
use crate::id::{Index, ReplicaId, Term};
use crate::limits;

/// What the guard must know of the replica.
pub(super) struct Gate {
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    /// Who leads in its term, if it knows; itself if it does.
    pub(super) leader: Option<ReplicaId>,
    pub(super) last_index: Index,
    /// Whether it leads in its term. Having restarted in it, it may meet honest answers beyond its log.
    pub(super) leads: bool,
    /// Whether it would win an election on the spot while its log is not durable.
    pub(super) wins_too_early: bool,
    /// Whether it stands for election and its own vote is not durable yet, so that its requests are still held back.
    pub(super) votes_unasked: bool,
}

impl Gate {
    /// Says what is wrong with a message.
    pub(super) fn check(&self, message: &Message) -> Result<(), &'static str> {
        if message.to != self.id {
            return Err("it is for another replica");
        }
        if message.from == self.id || message.from == ReplicaId(0) {
            return Err("the sender is no other replica");
        }
        check_numbers(message)?;
        if message.kind != MessageKind::Append && !message.entries.is_empty() {
            return Err("only an append carries entries");
        }
        match message.kind {
            MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot | MessageKind::TimeoutNow
                if message.term == self.term && self.leader.is_some_and(|leader| leader != message.from) =>
            {
                Err("another leads in this term")
            }
            MessageKind::Append => check_append(message),
            MessageKind::Snapshot => check_offer(message),
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
            MessageKind::TimeoutNow if self.wins_too_early => Err("the log is not durable yet"),
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
        changes::check(entry)?;
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

fn check_offer(message: &Message) -> Result<(), &'static str> {
    if message.index == Index(0) || message.log_term == Term(0) {
        return Err("an offer of nothing");
    }
    if message.log_term > message.term {
        return Err("an offer is of a later term than its leader");
    }
    // Nobody is an answer: a replica that came with the first entry has snapshots from before it learned who there is.
    Members::decode(&message.context).map(drop).map_err(|_| "an offer does not say who the members are")
}
