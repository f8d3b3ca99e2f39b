//! What replicas say to each other, and its bytes. Nothing from the network is parsed as protobuf; this struct
//! carries the fields that are used and no more. It does not know which values are safe: the guard does.
//!
//! One message, all integers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | length H of the header |
//! | H | header: MessagePack array `[kind, to, from, term, log_term, index, commit, commit_term, reject, reject_hint, context, [[term, kind, length] per entry]]` |
//! | rest | the payloads of the entries, one after the other |
//!
//! The indexes of entries are not sent: they follow on `index`. Decoded payloads are slices of the input.

use bytes::Bytes;
use raft::eraftpb;
use serde::{Deserialize, Serialize};

use super::ConsensusError;
use super::changes;
use crate::entry::{Entry, EntryKind};
use crate::id::{Index, ReplicaId, Term};
use crate::limits;

const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 5;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MessageKind {
    /// A leader's entries, or its probe when there are none.
    Append = 1,
    /// The answer to it.
    AppendResponse = 2,
    /// A candidate asks for a vote.
    RequestVote = 3,
    /// The answer to it.
    RequestVoteResponse = 4,
    /// A leader lives; it may carry a read round.
    Heartbeat = 5,
    /// The answer to it.
    HeartbeatResponse = 6,
    /// A leader tells its successor to stand at once.
    TimeoutNow = 7,
    /// Would you vote for me?
    RequestPreVote = 8,
    /// The answer to it.
    RequestPreVoteResponse = 9,
    /// A leader offers the position of a snapshot; the snapshot itself goes other ways.
    Snapshot = 10,
}

impl MessageKind {
    const ALL: [Self; 10] = [
        Self::Append,
        Self::AppendResponse,
        Self::RequestVote,
        Self::RequestVoteResponse,
        Self::Heartbeat,
        Self::HeartbeatResponse,
        Self::TimeoutNow,
        Self::RequestPreVote,
        Self::RequestPreVoteResponse,
        Self::Snapshot,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    fn to_raft(self) -> eraftpb::MessageType {
        match self {
            Self::Append => eraftpb::MessageType::MsgAppend,
            Self::AppendResponse => eraftpb::MessageType::MsgAppendResponse,
            Self::RequestVote => eraftpb::MessageType::MsgRequestVote,
            Self::RequestVoteResponse => eraftpb::MessageType::MsgRequestVoteResponse,
            Self::Heartbeat => eraftpb::MessageType::MsgHeartbeat,
            Self::HeartbeatResponse => eraftpb::MessageType::MsgHeartbeatResponse,
            Self::TimeoutNow => eraftpb::MessageType::MsgTimeoutNow,
            Self::RequestPreVote => eraftpb::MessageType::MsgRequestPreVote,
            Self::RequestPreVoteResponse => eraftpb::MessageType::MsgRequestPreVoteResponse,
            Self::Snapshot => eraftpb::MessageType::MsgSnapshot,
        }
    }

    /// Bytes that its context may have.
    fn context_bytes_max(self) -> usize {
        if self == Self::Snapshot { limits::MEMBERS_BYTES_MAX } else { limits::MESSAGE_CONTEXT_BYTES_MAX }
    }

    /// `None` for what a replica never sends: local messages, forwarded proposals and reads.
    fn from_raft(kind: eraftpb::MessageType) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.to_raft() == kind)
    }
}

/// One message between two replicas of a group. Which fields mean something depends on the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub kind: MessageKind,
    /// For whom.
    pub to: ReplicaId,
    /// By whom.
    pub from: ReplicaId,
    /// The sender's term, or the one it would stand for.
    pub term: Term,
    /// The term of the entry at `index`, or at `reject_hint` in a rejection.
    pub log_term: Term,
    /// The entry before `entries`; the last entry of a candidate; what was matched or rejected; the last entry of a
    /// snapshot.
    pub index: Index,
    /// What the sender knows to be committed, as far as the receiver may use it.
    pub commit: Index,
    /// The term of the entry at `commit`, in votes.
    pub commit_term: Term,
    /// Whether the answer is no.
    pub reject: bool,
    /// Where a rejecting follower's log may agree.
    pub reject_hint: Index,
    /// The name of a read round, the mark of a transfer, or the encoded members as of a snapshot.
    pub context: Bytes,
    /// Entries that follow on `index`.
    pub entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    kind: u8,
    to: ReplicaId,
    from: ReplicaId,
    term: Term,
    log_term: Term,
    index: Index,
    commit: Index,
    commit_term: Term,
    reject: bool,
    reject_hint: Index,
    #[serde(borrow, with = "serde_bytes")]
    context: &'a [u8],
    entries: Vec<(Term, u8, u32)>,
}

impl Message {
    /// Whether it must not wait behind payloads: everything but an append with entries.
    pub fn is_control(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the payloads it carries.
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.payload.len()).sum()
    }

    /// Its bytes, as the head of this file describes them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload_bytes() + 256);
        bytes.push(VERSION);
        bytes.extend_from_slice(&[0; PREFIX_BYTES - 1]);
        rmp_serde::encode::write(&mut bytes, &self.header()).expect("writing to memory cannot fail");
        let length = u32::try_from(bytes.len() - PREFIX_BYTES).expect("a header is far below 4 GiB");
        bytes[1..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.payload);
        }
        bytes
    }

    /// Reads a message. Payloads are slices of `input`, which stays alive as long as they do.
    ///
    /// # Errors
    /// `Undecodable` for bytes that `encode` does not make, or more of them than the limits allow.
    pub fn decode(input: &Bytes) -> Result<Self, ConsensusError> {
        let (header, mut payloads) = unframe(input)?;
        let message = Self::from_header(input.len(), &parse(input.len(), &header)?, &mut payloads)?;
        if !payloads.is_empty() {
            return Err(undecodable(input.len(), "bytes after the last payload"));
        }
        Ok(message)
    }

    fn header(&self) -> Header<'_> {
        let lengths = |entry: &Entry| {
            let length = u32::try_from(entry.payload.len()).expect("an entry is at most ENTRY_BYTES_MAX long");
            (entry.term, entry.kind as u8, length)
        };
        Header {
            kind: self.kind as u8,
            to: self.to,
            from: self.from,
            term: self.term,
            log_term: self.log_term,
            index: self.index,
            commit: self.commit,
            commit_term: self.commit_term,
            reject: self.reject,
            reject_hint: self.reject_hint,
            context: &self.context,
            entries: self.entries.iter().map(lengths).collect(),
        }
    }

    fn from_header(input: usize, header: &Header<'_>, payloads: &mut Bytes) -> Result<Self, ConsensusError> {
        let refuse = |what| Err(undecodable(input, what));
        let Some(kind) = MessageKind::from_code(header.kind) else { return refuse("unknown kind of message") };
        if header.context.len() > kind.context_bytes_max() {
            return refuse("the context is too long");
        }
        if header.entries.len() > limits::APPEND_ENTRIES_MAX {
            return refuse("too many entries");
        }
        let mut entries = Vec::with_capacity(header.entries.len());
        let mut index = header.index.0;
        for (term, kind, length) in &header.entries {
            let Some(next) = index.checked_add(1) else { return refuse("the index overflows") };
            let Some(kind) = entry_kind_from_code(*kind) else { return refuse("unknown kind of entry") };
            let length = *length as usize;
            if length > payloads.len() {
                return refuse("payloads are cut short");
            }
            index = next;
            entries.push(Entry { index: Index(index), term: *term, kind, payload: payloads.split_to(length) });
        }
        Ok(Self {
            kind,
            to: header.to,
            from: header.from,
            term: header.term,
            log_term: header.log_term,
            index: header.index,
            commit: header.commit,
            commit_term: header.commit_term,
            reject: header.reject,
            reject_hint: header.reject_hint,
            context: Bytes::copy_from_slice(header.context),
            entries,
        })
    }

    pub(super) fn into_raft(self) -> eraftpb::Message {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(self.kind.to_raft());
        message.to = self.to.0;
        message.from = self.from.0;
        message.term = self.term.0;
        message.log_term = self.log_term.0;
        message.index = self.index.0;
        message.commit = self.commit.0;
        message.commit_term = self.commit_term.0;
        message.reject = self.reject;
        message.reject_hint = self.reject_hint.0;
        message.context = self.context;
        message.set_entries(self.entries.into_iter().map(entry_to_raft).collect::<Vec<_>>().into());
        message
    }

    pub(super) fn from_raft(mut message: eraftpb::Message) -> Option<Self> {
        if message.get_msg_type() == eraftpb::MessageType::MsgSnapshot {
            let metadata = message.get_snapshot().get_metadata();
            (message.index, message.log_term, message.context) =
                (metadata.index, metadata.term, changes::members(metadata.get_conf_state()).encode());
        }
        let entries = message.take_entries().into_iter().map(|entry| entry_from_raft(&entry)).collect();
        Some(Self {
            kind: MessageKind::from_raft(message.get_msg_type())?,
            to: ReplicaId(message.to),
            from: ReplicaId(message.from),
            term: Term(message.term),
            log_term: Term(message.log_term),
            index: Index(message.index),
            commit: Index(message.commit),
            commit_term: Term(message.commit_term),
            reject: message.reject,
            reject_hint: Index(message.reject_hint),
            context: message.take_context(),
            entries,
        })
    }
}

fn unframe(input: &Bytes) -> Result<(Bytes, Bytes), ConsensusError> {
    if input.len() > limits::MESSAGE_BYTES_MAX {
        return Err(undecodable(input.len(), "too many bytes"));
    }
    let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(undecodable(input.len(), "cut short"));
    };
    let [version, length @ ..] = prefix;
    if *version != VERSION {
        return Err(undecodable(input.len(), "unknown version"));
    }
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len() {
        return Err(undecodable(input.len(), "the header is cut short"));
    }
    Ok((input.slice(PREFIX_BYTES..PREFIX_BYTES + length), input.slice(PREFIX_BYTES + length..)))
}

fn parse(input: usize, header: &[u8]) -> Result<Header<'_>, ConsensusError> {
    rmp_serde::from_slice(header).map_err(|source| ConsensusError::Undecodable {
        bytes: input,
        what: "the header is no header",
        source: Some(source),
    })
}

fn undecodable(bytes: usize, what: &'static str) -> ConsensusError {
    ConsensusError::Undecodable { bytes, what, source: None }
}

fn entry_kind_from_code(code: u8) -> Option<EntryKind> {
    [EntryKind::Normal, EntryKind::Configuration, EntryKind::JointConfiguration]
        .into_iter()
        .find(|kind| *kind as u8 == code)
}

pub(super) fn entry_to_raft(entry: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::Configuration => eraftpb::EntryType::EntryConfChange,
        EntryKind::JointConfiguration => eraftpb::EntryType::EntryConfChangeV2,
    });
    out.index = entry.index.0;
    out.term = entry.term.0;
    out.data = entry.payload;
    out
}

pub(super) fn entry_from_raft(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange => EntryKind::Configuration,
        eraftpb::EntryType::EntryConfChangeV2 => EntryKind::JointConfiguration,
    };
    Entry { index: Index(entry.index), term: Term(entry.term), kind, payload: entry.data.clone() }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Members;

    pub(crate) fn any_message() -> impl Strategy<Value = Message> {
        let numbers = (0..5u64, 0..5u64, small(), small(), small(), small(), small(), small());
        let payload = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| (EntryKind::Normal, bytes)),
            2 => any_members().prop_map(|members| (EntryKind::JointConfiguration, members.encode().to_vec())),
            1 => Just((EntryKind::JointConfiguration, Vec::new())),
        ];
        let entries = proptest::collection::vec((small(), payload), 0..4);
        let context = prop_oneof![
            4 => Just(Vec::new()),
            1 => proptest::collection::vec(any::<u8>(), 0..=limits::MESSAGE_CONTEXT_BYTES_MAX),
            1 => Just(b"CampaignTransfer".to_vec()),
            2 => any_members().prop_map(|members| members.encode().to_vec()),
        ];
        (0..MessageKind::ALL.len(), numbers, any::<bool>(), context, entries).prop_map(
            |(kind, (to, from, term, log_term, index, commit, commit_term, hint), reject, context, entries)| {
                let index = index.min(u64::MAX - 8);
                let entry = |(at, (term, (kind, payload))): (usize, (u64, (EntryKind, Vec<u8>)))| Entry {
                    index: Index(index + 1 + at as u64),
                    term: Term(term),
                    kind,
                    payload: payload.into(),
                };
                Message {
                    kind: MessageKind::ALL[kind],
                    to: ReplicaId(to),
                    from: ReplicaId(from),
                    term: Term(term),
                    log_term: Term(log_term),
                    index: Index(index),
                    commit: Index(commit),
                    commit_term: Term(commit_term),
                    reject,
                    reject_hint: Index(hint),
                    context: context.into(),
                    entries: entries.into_iter().enumerate().map(entry).collect(),
                }
            },
        )
    }

    /// Members of a few replicas, some of which cannot be.
    fn any_members() -> impl Strategy<Value = Members> {
        let ids = || proptest::collection::btree_set((1..5u64).prop_map(ReplicaId), 0..4);
        (ids(), ids(), ids(), any::<bool>(), any::<bool>()).prop_map(
            |(voters, outgoing, learners, joint, auto_leave)| {
                let learners = learners.into_iter().filter(|id| !voters.contains(id) && !outgoing.contains(id));
                let simple = Members::of(voters.clone(), learners);
                if joint { Members { outgoing, auto_leave, ..simple } } else { simple }
            },
        )
    }

    fn small() -> impl Strategy<Value = u64> {
        prop_oneof![20 => 0..8u64, 1 => Just(limits::LOG_NUMBER_MAX), 1 => any::<u64>(), 1 => Just(u64::MAX)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_message_comes_back_as_it_was(message in any_message()) {
            prop_assert_eq!(Message::decode(&message.encode().into()).unwrap(), message);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), framed: bool) {
            if framed && bytes.len() >= PREFIX_BYTES {
                let header = bytes.len() / 2;
                bytes[0] = VERSION;
                bytes[1..PREFIX_BYTES].copy_from_slice(&u32::try_from(header).unwrap().to_le_bytes());
            }
            let bytes = Bytes::from(bytes);
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_damaged_message_never_panics(message in any_message(), at: prop::sample::Index, bit in 0..8u8, cut: bool) {
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if cut {
                bytes.truncate(at);
            }
            let bytes = Bytes::from(bytes);
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn payloads_are_slices_of_the_input() {
        let mut message = empty(MessageKind::Append);
        message.entries = vec![Entry {
            index: Index(1),
            term: Term(1),
            kind: EntryKind::Normal,
            payload: Bytes::from_static(b"payload"),
        }];
        let input = Bytes::from(message.encode());
        let decoded = Message::decode(&input).unwrap();
        assert!(input.as_ptr_range().contains(&decoded.entries[0].payload.as_ptr()));
        assert!(!decoded.is_control());
    }

    #[test]
    fn an_idle_heartbeat_is_small() {
        let bytes = empty(MessageKind::Heartbeat).encode();
        assert!(bytes.len() <= 20, "{} bytes", bytes.len());
    }

    fn empty(kind: MessageKind) -> Message {
        Message {
            kind,
            to: ReplicaId(1),
            from: ReplicaId(2),
            term: Term(1),
            log_term: Term(0),
            index: Index(0),
            commit: Index(0),
            commit_term: Term(0),
            reject: false,
            reject_hint: Index(0),
            context: Bytes::new(),
            entries: Vec::new(),
        }
    }
}
