//! `log-writer`: owns the node's one WAL and commits for all shards in groups.
//!
//! Parent: `node`. It receives `Persist` from replicas, writes everything that is waiting in one vectored write and one
//! sync on the log thread, and tells each replica what is durable. `Open` is a barrier: it answers with what the log
//! holds after everything before it, and from then on completions of older incarnations of that replica are dropped.
//! A restart loses nothing that was answered, but the WAL may hold what nobody was told of; therefore its panic, like
//! a failed write or sync, ends the process, and recovery decides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millpond::entry::{Entry, Position, Recovered};
use millpond::id::{Incarnation, Index, ReplicaId, ShardId};
use millpond::limits;
use millpond::storage::error::StorageError;
use millpond::storage::wal::{LogOp, Space, Wal};
use tokio::time::Instant;

use crate::board::{Board, Room};
use crate::env::{End, Env, Lane};
use crate::metrics::Metrics;
use crate::replica::ReplicaMessage;
use crate::supervision::{Actor, ActorError, Own};

/// What a record of the WAL takes beside its payload, about.
const RECORD_BYTES: usize = 64;

/// What the log-writer does.
pub enum LogWriterMessage {
    /// Make this durable, then tell the replica `Persisted { number }`.
    Persist {
        /// The group.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The life of the replica that asks.
        incarnation: Incarnation,
        /// What it calls this write.
        number: u64,
        /// What to write.
        op: LogOp,
        /// Whom to tell.
        reply: Own<ReplicaMessage>,
    },
    /// A replica's actor starts: answer with what the log holds, and drop what its older lives still wait for.
    Open {
        /// The group.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// Its new life.
        incarnation: Incarnation,
        /// Whom to tell.
        reply: Own<ReplicaMessage>,
    },
    /// Entries through this position live in a registered snapshot; the log may forget them.
    Trim {
        /// The group.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The last entry to forget.
        through: Position,
    },
    /// A replica is gone for good: forget its log. None of its lives runs any more.
    Forget {
        /// The group.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Read entries that are no longer in memory, for a slow follower.
    Read {
        /// The group.
        shard: ShardId,
        /// First index wanted.
        from: Index,
        /// Last index wanted.
        through: Index,
        /// Payload bytes at which to stop.
        bytes_max: u64,
        /// What the replica calls this read.
        number: u64,
        /// Whom to tell.
        reply: Own<ReplicaMessage>,
    },
    /// The log thread is back with the WAL.
    Committed(Box<Committed>),
    /// Try again what the full disk had no room for.
    Retry,
}

/// What the log thread brings back.
pub struct Committed {
    wal: Wal,
    outcome: Result<Group, StorageError>,
    took: std::time::Duration,
}

/// What one group commit did.
#[derive(Default)]
struct Group {
    bytes: u64,
    tellings: Vec<(Own<ReplicaMessage>, ShardId, Incarnation, Telling)>,
    /// What the full disk had no room for, and what comes after it in the same logs.
    deferred: Vec<LogWriterMessage>,
    pinning: Vec<ShardId>,
    wal_bytes: u64,
    over: bool,
    room: Option<Room>,
}

enum Telling {
    Persisted(u64),
    Opened(Recovered),
    Fetched(u64, Vec<Entry>),
}

/// Runs the node's WAL.
#[derive(Debug)]
pub struct LogWriter;

/// What a log-writer starts with.
pub struct LogWriterArguments {
    /// The WAL, recovered and synced.
    pub wal: Wal,
    /// Threads and the end of the process.
    pub env: Env,
    /// Where room on the disk is published.
    pub board: Board,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The state of a log-writer.
pub struct LogWriterState {
    /// `None` while the log thread has it.
    wal: Option<Wal>,
    waiting: VecDeque<LogWriterMessage>,
    /// What the full disk had no room for; tried again while consensus goes on.
    deferred: VecDeque<LogWriterMessage>,
    /// A `Retry` is under way.
    retry_is_set: bool,
    /// Tend the WAL although nothing is to be written: the disk was full, and may have room again.
    looks_for_room: bool,
    newest: BTreeMap<ShardId, Incarnation>,
    env: Env,
    board: Board,
    metrics: Arc<Metrics>,
}

impl Actor for LogWriter {
    type Message = LogWriterMessage;
    type Arguments = LogWriterArguments;
    type State = LogWriterState;

    async fn pre_start(
        &self,
        _: &Own<LogWriterMessage>,
        arguments: LogWriterArguments,
    ) -> Result<LogWriterState, ActorError> {
        let LogWriterArguments { wal, env, board, metrics } = arguments;
        let (waiting, deferred, newest) = (VecDeque::new(), VecDeque::new(), BTreeMap::new());
        let (retry_is_set, looks_for_room) = (false, false);
        let wal = Some(wal);
        Ok(LogWriterState { wal, waiting, deferred, retry_is_set, looks_for_room, newest, env, board, metrics })
    }

    async fn handle(
        &self,
        myself: &Own<LogWriterMessage>,
        message: LogWriterMessage,
        state: &mut LogWriterState,
    ) -> Result<(), ActorError> {
        state.advance(myself, message);
        Ok(())
    }
}

impl LogWriterState {
    fn advance(&mut self, myself: &Own<LogWriterMessage>, message: LogWriterMessage) {
        match message {
            LogWriterMessage::Committed(committed) => self.committed(myself, *committed),
            LogWriterMessage::Retry => {
                self.looks_for_room = true;
                self.retry_is_set = false;
                self.deferred.append(&mut self.waiting);
                self.waiting = std::mem::take(&mut self.deferred);
            }
            LogWriterMessage::Open { shard, incarnation, .. } => {
                self.newest.insert(shard, incarnation);
                self.waiting.push_back(message);
            }
            LogWriterMessage::Persist { .. }
            | LogWriterMessage::Trim { .. }
            | LogWriterMessage::Forget { .. }
            | LogWriterMessage::Read { .. } => self.waiting.push_back(message),
        }
        if self.waiting.is_empty() && !self.looks_for_room {
            return;
        }
        let Some(mut wal) = self.wal.take() else { return };
        self.looks_for_room = false;
        let group = self.take_group();
        let myself = myself.clone();
        let work = move || {
            let started = Instant::now();
            let outcome = commit(&mut wal, group);
            let committed = Committed { wal, outcome, took: started.elapsed() };
            // The mailbox is closed only when the process ends, and then nobody waits for the answer.
            let _ = myself.cast(LogWriterMessage::Committed(Box::new(committed)));
        };
        self.env.blocking.run(Lane::Log, Box::new(work));
    }

    /// What goes into the next group: in order, up to the group's bytes, at least one.
    fn take_group(&mut self) -> Vec<LogWriterMessage> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(message) = self.waiting.pop_front() {
            let size = weight(&message);
            if !group.is_empty() && bytes + size > self.env.knobs.group_bytes_max {
                self.waiting.push_front(message);
                break;
            }
            bytes += size;
            if self.is_stale(&message) {
                continue;
            }
            if shard_of(&message).is_some_and(|shard| self.deferred.iter().any(|held| shard_of(held) == Some(shard))) {
                self.deferred.push_back(message);
                continue;
            }
            group.push(message);
        }
        group
    }

    /// A write that an older life of a replica asked for: its newer life has read the log without it.
    fn is_stale(&self, message: &LogWriterMessage) -> bool {
        match message {
            LogWriterMessage::Persist { shard, incarnation, .. } => {
                self.newest.get(shard).is_none_or(|newest| incarnation < newest)
            }
            LogWriterMessage::Open { shard, incarnation, .. } => {
                self.newest.get(shard).is_some_and(|newest| incarnation < newest)
            }
            LogWriterMessage::Trim { .. }
            | LogWriterMessage::Forget { .. }
            | LogWriterMessage::Read { .. }
            | LogWriterMessage::Committed(_)
            | LogWriterMessage::Retry => false,
        }
    }

    fn committed(&mut self, myself: &Own<LogWriterMessage>, committed: Committed) {
        let group = match committed.outcome {
            Ok(group) => group,
            Err(error) => {
                self.env.halt.halt(End::Log, &format!("the log cannot be written: {error}"));
                return;
            }
        };
        self.wal = Some(committed.wal);
        self.metrics.wal_committed(group.bytes, committed.took, group.wal_bytes);
        for (replica, shard, incarnation, telling) in group.tellings {
            if self.newest.get(&shard).is_some_and(|newest| incarnation < *newest) {
                continue;
            }
            let message = match telling {
                Telling::Persisted(number) => ReplicaMessage::Persisted { incarnation, number },
                Telling::Opened(recovered) => ReplicaMessage::Opened { incarnation, recovered },
                Telling::Fetched(number, entries) => ReplicaMessage::Fetched { number, entries },
            };
            // A replica that is gone is started again and opens the log anew.
            let _ = replica.cast(message);
        }
        if !group.deferred.is_empty() {
            tracing::warn!(entries = group.deferred.len(), "the disk is full: what is not vital waits for room");
            self.deferred.extend(group.deferred);
        }
        let full = group.room == Some(Room::ReserveOnly) || !self.deferred.is_empty();
        if full && !std::mem::replace(&mut self.retry_is_set, true) {
            drop(myself.cast_after(limits::DISK_FULL_RETRY, LogWriterMessage::Retry));
        }
        for shard in group.pinning {
            if let Some(replica) = self.board.replica(shard) {
                let _ = replica.cast(ReplicaMessage::Seal { let_go: group.over });
            }
        }
        if let Some(room) = group.room {
            self.board.room().send_if_modified(|current| std::mem::replace(current, room) != room);
        }
    }
}

fn shard_of(message: &LogWriterMessage) -> Option<ShardId> {
    match message {
        LogWriterMessage::Persist { shard, .. }
        | LogWriterMessage::Open { shard, .. }
        | LogWriterMessage::Forget { shard, .. }
        | LogWriterMessage::Trim { shard, .. } => Some(*shard),
        LogWriterMessage::Read { .. } | LogWriterMessage::Committed(_) | LogWriterMessage::Retry => None,
    }
}

/// Bytes that a message adds to a group, about.
fn weight(message: &LogWriterMessage) -> usize {
    let LogWriterMessage::Persist { op: LogOp::Append { entries, .. }, .. } = message else { return RECORD_BYTES };
    entries.iter().map(|entry| entry.payload.len() + RECORD_BYTES).sum::<usize>() + RECORD_BYTES
}

/// Carries out one group on the log thread.
fn commit(wal: &mut Wal, messages: Vec<LogWriterMessage>) -> Result<Group, StorageError> {
    let mut group = Group::default();
    let mut persisted = Vec::new();
    for message in messages {
        if shard_of(&message).is_some_and(|shard| group.deferred.iter().any(|held| shard_of(held) == Some(shard))) {
            group.deferred.push(message);
            continue;
        }
        match message {
            LogWriterMessage::Persist { shard, replica, incarnation, number, op, reply } => {
                match wal.append(shard, replica, op.clone()) {
                    Err(StorageError::Full { .. }) => {
                        let again = LogWriterMessage::Persist { shard, replica, incarnation, number, op, reply };
                        group.deferred.push(again);
                    }
                    outcome => {
                        outcome?;
                        persisted.push((reply, shard, incarnation, Telling::Persisted(number)));
                    }
                }
            }
            LogWriterMessage::Trim { shard, replica, through } => {
                match wal.append(shard, replica, LogOp::Trim { through }) {
                    Err(StorageError::Full { .. }) => {
                        group.deferred.push(LogWriterMessage::Trim { shard, replica, through });
                    }
                    outcome => outcome?,
                }
            }
            LogWriterMessage::Forget { shard, replica } => match wal.forget(shard, replica) {
                Err(StorageError::Full { .. }) => group.deferred.push(LogWriterMessage::Forget { shard, replica }),
                outcome => outcome?,
            },
            LogWriterMessage::Open { shard, replica, incarnation, reply } => {
                group.bytes += wal.flush()?.bytes;
                group.tellings.append(&mut persisted);
                group.tellings.push((reply, shard, incarnation, Telling::Opened(wal.load(shard, replica)?)));
            }
            LogWriterMessage::Read { shard, from, through, bytes_max, number, reply } => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                // A log that no longer holds them answers with none: the follower then needs a snapshot.
                let entries = match wal.read(shard, from, Index(through.0 + 1), bytes_max) {
                    Err(StorageError::NotHeld { .. }) => Vec::new(),
                    outcome => outcome?,
                };
                group.tellings.push((reply, shard, Incarnation(u64::MAX), Telling::Fetched(number, entries)));
            }
            LogWriterMessage::Committed(_) | LogWriterMessage::Retry => unreachable!("handled before grouping"),
        }
    }
    group.bytes += wal.flush()?.bytes;
    group.tellings.append(&mut persisted);
    let tended = wal.tend()?;
    group.pinning = tended.pinning;
    group.over = tended.over;
    group.wal_bytes = wal.bytes();
    group.room = Some(match wal.space() {
        Space::Ample => Room::Ample,
        Space::ReserveOnly => Room::ReserveOnly,
    });
    Ok(group)
}
