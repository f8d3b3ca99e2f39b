//! What replicas do and hold, in a line each. It does not know scripts.

use std::collections::BTreeSet;

use super::super::*;
use crate::entry::Recovered;
use crate::limits;

/// How names of proposals and reads are found.
pub(super) type Names<'a> = &'a dyn Fn(u64) -> String;

fn payload(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "-".to_owned(),
        Ok(text) if text.len() <= 16 => text.to_owned(),
        Ok(_) | Err(_) => format!("<{} bytes>", bytes.len()),
    }
}

fn ids(ids: &BTreeSet<ReplicaId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// `{voters, from outgoing, then learners_next, learners ..}`, without what is empty.
pub(super) fn members(members: &Members) -> String {
    let Members { voters, outgoing, learners, learners_next, .. } = members;
    let named = |name: &str, set| format!("{name}{}", ids(set));
    let sets = [("", voters), ("from ", outgoing), ("learners ", learners), ("learners then ", learners_next)];
    let shown: Vec<_> = sets.iter().filter(|(_, set)| !set.is_empty()).map(|(name, set)| named(name, set)).collect();
    format!("{{{}}}", if shown.is_empty() { "nobody".to_owned() } else { shown.join(", ") })
}

fn said(kind: EntryKind, bytes: &Bytes) -> String {
    match kind {
        EntryKind::Normal => payload(bytes),
        EntryKind::JointConfiguration if bytes.is_empty() => "{leave}".to_owned(),
        EntryKind::Configuration | EntryKind::JointConfiguration => {
            Members::decode(bytes).map_or_else(|_| payload(bytes), |decoded| members(&decoded))
        }
    }
}

fn entries(entries: &[Entry]) -> String {
    let one = |entry: &Entry| format!("{}@{} {}", entry.index, entry.term, said(entry.kind, &entry.payload));
    entries.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hard_state(state: &HardState) -> String {
    let vote = state.vote.map_or("-".to_owned(), |vote| vote.to_string());
    format!("term {}, vote {vote}, commit {}", state.term, state.commit)
}

pub(super) fn disk(at: ReplicaId, disk: &Recovered) -> String {
    let mut parts = vec![hard_state(&disk.hard_state)];
    if disk.trimmed != Position::default() {
        parts.push(format!("trimmed {}@{}", disk.trimmed.index, disk.trimmed.term));
    }
    parts.extend((!disk.entries.is_empty()).then(|| entries(&disk.entries)));
    format!("{at} holds {}", parts.join("; "))
}

pub(super) const KINDS: [MessageKind; 10] = [
    MessageKind::Append,
    MessageKind::AppendResponse,
    MessageKind::RequestVote,
    MessageKind::RequestVoteResponse,
    MessageKind::Heartbeat,
    MessageKind::HeartbeatResponse,
    MessageKind::TimeoutNow,
    MessageKind::RequestPreVote,
    MessageKind::RequestPreVoteResponse,
    MessageKind::Snapshot,
];

pub(super) fn kind(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Append => "append",
        MessageKind::AppendResponse => "appended",
        MessageKind::RequestVote => "vote?",
        MessageKind::RequestVoteResponse => "vote!",
        MessageKind::Heartbeat => "heartbeat",
        MessageKind::HeartbeatResponse => "heard",
        MessageKind::TimeoutNow => "stand-now",
        MessageKind::RequestPreVote => "pre-vote?",
        MessageKind::RequestPreVoteResponse => "pre-vote!",
        MessageKind::Snapshot => "snapshot",
    }
}

/// The last of the four numbers that name a read round.
fn round(context: &[u8]) -> String {
    match context.len() {
        0 => String::new(),
        limits::MESSAGE_CONTEXT_BYTES_MAX => {
            format!(", round {}", u64::from_le_bytes(context[24..].try_into().unwrap()))
        }
        _ => format!(", {}", String::from_utf8_lossy(context)),
    }
}

pub(super) fn message(message: &Message) -> String {
    let Message { kind: which, from, to, term, log_term, index, commit, commit_term, reject, reject_hint, .. } =
        message;
    let context = if *which == MessageKind::Snapshot { String::new() } else { round(&message.context) };
    let said = match which {
        MessageKind::Append if message.entries.is_empty() => format!(" after {index}@{log_term}; commit {commit}"),
        MessageKind::Append => {
            format!(" after {index}@{log_term}: {}; commit {commit}", entries(&message.entries))
        }
        MessageKind::AppendResponse if *reject => {
            format!(" no to {index}, try {reject_hint}@{log_term}; commit {commit}")
        }
        MessageKind::AppendResponse => format!(" through {index}; commit {commit}"),
        MessageKind::RequestVote | MessageKind::RequestPreVote => {
            format!(" log {index}@{log_term}; commit {commit}@{commit_term}")
        }
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse if *reject => {
            format!(" no; commit {commit}@{commit_term}")
        }
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse => " yes".to_owned(),
        MessageKind::Heartbeat => format!("; commit {commit}"),
        MessageKind::HeartbeatResponse => format!("; commit {commit}"),
        MessageKind::TimeoutNow => String::new(),
        MessageKind::Snapshot => {
            let decoded = Members::decode(&message.context);
            let shown = decoded.map_or_else(|_| payload(&message.context), |decoded| members(&decoded));
            format!(" through {index}@{log_term} {shown}")
        }
    };
    format!("{from}->{to} {} t{term}{said}{context}", kind(*which))
}

fn leader(leader: Option<ReplicaId>) -> String {
    leader.map_or("nobody known does".to_owned(), |leader| format!("{leader} does"))
}

fn persist(truncate_from: Option<Index>, written: &[Entry], state: Option<&HardState>) -> String {
    let mut parts: Vec<String> = state.map(hard_state).into_iter().collect();
    parts.extend(truncate_from.map(|from| format!("cut from {from}")));
    parts.extend((!written.is_empty()).then(|| entries(written)));
    parts.join("; ")
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub(super) fn effect(at: ReplicaId, effect: &Effect, names: Names<'_>) -> String {
    match effect {
        Effect::Persist { truncate_from, entries, hard_state, .. } => {
            format!("{at} persists {}", persist(*truncate_from, entries, hard_state.as_ref()))
        }
        Effect::Send { message: sent, .. } => message(sent),
        Effect::Apply { entries } => {
            let one = |entry: &Committed| {
                let answers = entry.ticket.map_or(String::new(), |ticket| format!(" (answers {})", names(ticket)));
                format!("{}@{} {}{answers}", entry.index, entry.term, said(entry.kind, &entry.payload))
            };
            format!("{at} applies {}", entries.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Effect::Refused { ticket, why } => {
            let why = match why {
                Refusal::NotLeader { leader: known } => format!("it does not lead, {}", leader(*known)),
                Refusal::Busy => "too much waits".to_owned(),
                Refusal::Nothing => "it is so already".to_owned(),
                Refusal::NoVoters => "nobody would vote".to_owned(),
                Refusal::RemovesLeader => "it leads".to_owned(),
                Refusal::Unfit { id } => format!("{id} is not what that needs"),
                Refusal::Size { bytes } => format!("{bytes} bytes"),
            };
            format!("{at} refuses {}: {why}", names(*ticket))
        }
        Effect::Abandoned { ticket } => format!("{at} abandons {}", names(*ticket)),
        Effect::ReadReady { ticket, index } => format!("{at} answers {} at {index}", names(*ticket)),
        Effect::ReadLost { ticket, why } => {
            let why = match why {
                ReadLoss::NotLeader { leader: known } => format!("it does not lead, {}", leader(*known)),
                ReadLoss::Busy => "too many wait".to_owned(),
                ReadLoss::Late => "nobody answered in time".to_owned(),
            };
            format!("{at} loses {}: {why}", names(*ticket))
        }
        Effect::Role { role: now, term, leader: known } => {
            let known = known.filter(|known| *known != at).map_or(String::new(), |known| format!(", led by {known}"));
            format!("{at} is {} in term {term}{known}", role(*now))
        }
        Effect::Fetch { number, from, through, bytes_max } => {
            format!("{at} fetches #{number}: {from} to {through}, at most {bytes_max} bytes")
        }
        Effect::Members { members: now, index } => format!("{at} has the members {} from {index} on", members(now)),
        Effect::Offered { from, position, members: then } => {
            let Position { index, term } = position;
            format!("{at} is offered a snapshot by {from} through {index}@{term} {}", members(then))
        }
        Effect::Trimmed { position } => format!("{at} trims through {}@{}", position.index, position.term),
    }
}

pub(super) fn status(status: &ReplicaStatus) -> String {
    let mut parts = vec![format!("{} is {} in term {}", status.id, role(status.role), status.term)];
    if let Some(leader) = status.leader.filter(|leader| *leader != status.id) {
        parts.push(format!("led by {leader}"));
    }
    for (name, mark) in [("trimmed", status.trimmed), ("evicted", status.evicted)] {
        parts.extend((mark > Index(0)).then(|| format!("{name} {mark}")));
    }
    let marks = [status.applied, status.committed, status.persisted, status.last];
    let names = ["applied", "committed", "persisted", "last"];
    parts.extend(names.iter().zip(marks).map(|(name, mark)| format!("{name} {mark}")));
    for (name, waiting) in [("proposals", status.proposals_waiting), ("reads", status.reads_waiting)] {
        parts.extend((waiting > 0).then(|| format!("{name} waiting {waiting}")));
    }
    for peer in &status.peers {
        let state = match peer.state {
            PeerState::Probing => "probing",
            PeerState::Replicating => "replicating",
            PeerState::NeedsSnapshot => "needs a snapshot",
        };
        let silent = if peer.active { "" } else { ", silent" };
        parts.push(format!("[{} {state}, matched {}{silent}]", peer.id, peer.matched));
    }
    parts.join(", ")
}
