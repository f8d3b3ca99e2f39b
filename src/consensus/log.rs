//! The log as raft-rs reads it: entries in memory above `evicted`, terms of all entries above `trimmed` as runs.
//! Older entries are asked for and answered later; only appends to followers may wait so. It does not know how
//! entries get to a disk or back.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, StorageError};

use super::message::entry_to_raft;
use crate::entry::{Entry, Position};
use crate::id::{Index, Term};
use crate::limits;

/// What an entry costs besides its payload, as raft-rs counts the bytes of a message.
const ENTRY_OVERHEAD_BYTES: u64 = 24;

/// A run of entries of one term; it ends where the next begins.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    term: u64,
}

/// A wish of raft-rs for entries that are only on the disk.
pub(super) struct FetchAsk {
    pub(super) from: Index,
    pub(super) through: Index,
    pub(super) bytes_max: u64,
    pub(super) context: GetEntriesContext,
}

/// What raft-rs asked for while it could only read. Drained after each step.
#[derive(Default)]
struct Asks {
    fetches: Vec<FetchAsk>,
    /// First indexes of fetches that are under way.
    under_way: BTreeSet<u64>,
}

pub(super) struct Log {
    state: RaftState,
    trimmed: Position,
    /// What followers are offered that need more than is left: at least `trimmed`. No entry, no snapshot.
    snapshot: (Position, eraftpb::ConfState),
    /// At least `trimmed.index`.
    evicted: u64,
    /// The first run starts at `trimmed.index`; never empty.
    runs: VecDeque<Run>,
    /// Contiguous from `evicted + 1`.
    entries: VecDeque<eraftpb::Entry>,
    bytes: usize,
    /// Entries read back, only while raft-rs is told of them.
    fetched: Vec<eraftpb::Entry>,
    asks: RefCell<Asks>,
}

impl Log {
    /// `entries` follow on `trimmed`; the caller has checked it.
    pub(super) fn new(state: RaftState, trimmed: Position, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            state,
            trimmed,
            snapshot: Default::default(),
            evicted: trimmed.index.0,
            runs: VecDeque::from([Run { first: trimmed.index.0, term: trimmed.term.0 }]),
            entries: VecDeque::new(),
            bytes: 0,
            fetched: Vec::new(),
            asks: RefCell::default(),
        };
        log.append(entries.into_iter().map(entry_to_raft).collect());
        log
    }

    pub(super) fn trimmed(&self) -> Position {
        self.trimmed
    }

    pub(super) fn evicted(&self) -> Index {
        Index(self.evicted)
    }

    /// Payload bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn last(&self) -> u64 {
        self.evicted + self.entries.len() as u64
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index < self.trimmed.index || index.0 > self.last() {
            return None;
        }
        let run = self.runs.partition_point(|run| run.first <= index.0) - 1;
        Some(Term(self.runs[run].term))
    }

    /// Appends, after cutting what the entries replace. Says where it cut.
    pub(super) fn append(&mut self, entries: Vec<eraftpb::Entry>) -> Option<Index> {
        let first = entries.first()?.index;
        assert!(first > self.evicted && first <= self.last() + 1, "entries at {first} leave a gap or replace applied");
        let cut = first <= self.last();
        while self.last() >= first {
            let gone = self.entries.pop_back().expect("entries above evicted are in memory");
            self.bytes -= gone.data.len();
        }
        while self.runs.back().is_some_and(|run| run.first >= first) {
            self.runs.pop_back();
        }
        for entry in entries {
            if self.runs.back().is_none_or(|run| run.term != entry.term) {
                self.runs.push_back(Run { first: entry.index, term: entry.term });
            }
            self.bytes += entry.data.len();
            self.entries.push_back(entry);
        }
        cut.then_some(Index(first))
    }

    pub(super) fn evict(&mut self, through: Index) {
        while self.evicted < through.0 {
            let gone = self.entries.pop_front().expect("what is applied is in the log");
            self.bytes -= gone.data.len();
            self.evicted += 1;
        }
    }

    pub(super) fn trim(&mut self, through: Index) {
        let term = self.term_at(through).expect("what is applied is in the log");
        self.evict(through);
        while self.runs.get(1).is_some_and(|run| run.first <= through.0) {
            self.runs.pop_front();
        }
        self.runs[0].first = through.0;
        self.trimmed = Position { index: through, term };
    }

    /// A snapshot is durable: position and configuration of the newest one.
    pub(super) fn announce(&mut self, position: Position, conf: eraftpb::ConfState) {
        self.snapshot = (position, conf);
    }

    pub(super) fn snapshot_position(&self) -> Position {
        self.snapshot.0
    }

    pub(super) fn take_fetch_asks(&mut self) -> Vec<FetchAsk> {
        std::mem::take(&mut self.asks.get_mut().fetches)
    }

    /// The fetch from this index is over, or given up.
    pub(super) fn fetch_ended(&mut self, from: Index) {
        self.asks.get_mut().under_way.remove(&from.0);
    }

    /// Lends entries that were read back, until the next call.
    pub(super) fn lend(&mut self, entries: Vec<Entry>) {
        self.fetched = entries.into_iter().map(entry_to_raft).collect();
    }

    /// The part of `fetched` from `low` on, if it is there.
    fn lent(&self, low: u64) -> Option<&[eraftpb::Entry]> {
        let first = self.fetched.first()?.index;
        let skip = usize::try_from(low.checked_sub(first)?).ok()?;
        self.fetched.get(skip..).filter(|rest| !rest.is_empty())
    }

    fn ask(&self, low: u64, high: u64, bytes_max: u64, context: GetEntriesContext) {
        let mut asks = self.asks.borrow_mut();
        if asks.under_way.len() < limits::FETCHES_WAITING_MAX && asks.under_way.insert(low) {
            let through = Index(self.evicted.min(high - 1));
            asks.fetches.push(FetchAsk { from: Index(low), through, bytes_max, context });
        }
    }
}

/// As many entries as fit, at least one.
fn limited<'a>(
    entries: impl Iterator<Item = &'a eraftpb::Entry>,
    bytes_max: u64,
    count_max: usize,
) -> Vec<eraftpb::Entry> {
    let mut bytes = 0u64;
    entries
        .take(count_max)
        .enumerate()
        .take_while(|(at, entry)| {
            bytes = bytes.saturating_add(entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES);
            *at == 0 || bytes <= bytes_max
        })
        .map(|(_, entry)| entry.clone())
        .collect()
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        assert!(low <= high && high <= self.last() + 1, "raft reads [{low}, {high}) of a log through {}", self.last());
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        // raft-rs adds what it has not handed over yet, at most one entry, to what an append reads here.
        let count_max = if context.can_async() { limits::APPEND_ENTRIES_MAX - 1 } else { usize::MAX };
        if low <= self.trimmed.index.0 {
            return Err(StorageError::Compacted.into());
        }
        if low > self.evicted {
            let range = (low - self.evicted - 1) as usize..(high - self.evicted - 1) as usize;
            return Ok(limited(self.entries.range(range), bytes_max, count_max));
        }
        if let Some(lent) = self.lent(low) {
            let wanted = lent.iter().take_while(|entry| entry.index < high);
            return Ok(limited(wanted, bytes_max, count_max));
        }
        assert!(context.can_async(), "raft reads {low}, which is applied, and cannot wait");
        self.ask(low, high, bytes_max, context);
        Err(StorageError::LogTemporarilyUnavailable.into())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(Index(index)) {
            Some(_) if mutant!(TermAtTrim) && index == self.trimmed.index.0 && index > 0 => {
                Ok(self.runs.back().expect("there is a run").term)
            }
            Some(term) => Ok(term.0),
            None if index < self.trimmed.index.0 => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.trimmed.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The offer of the newest snapshot, which holds nothing but its position and its members.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        let (position, conf) = &self.snapshot;
        if position.index == Index(0) {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = eraftpb::Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = position.index.0;
        metadata.term = position.term.0;
        metadata.set_conf_state(conf.clone());
        Ok(snapshot)
    }
}
