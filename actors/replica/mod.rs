//! `replica`: the shell of one `consensus::Replica` and of the state it replicates.
//!
//! Parent: `shard-N`, or `metadata`. It receives ticks, messages of its peers, proposals, reads and the outcomes of its
//! own effects; it sends to the log-writer, to the links, to its sealer and snapshotter, and answers who asked. It
//! starts by reading its snapshot, then opens the log, and takes part only when both are here. A restart loses what
//! was not answered yet and nothing else: the next incarnation reads the same snapshot and the same log.

mod carry_out;
mod copying;
mod retaining;
mod sealing;
mod steering;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::consensus::{Effect, Event, Message, PeerStatus};
use millpond::consensus::{Replica as Core, ReplicaOptions, Role, hard_state_behind};
use millpond::entry::{Entry, Members, Position, Recovered};
use millpond::id::{Incarnation, Index, NodeId, ReplicaId, ShardId};
use millpond::limits;
use millpond::query::View;
use millpond::retention::Policy;
use millpond::storage::copy::Arrived;
use millpond::storage::segment::Segment;
use millpond::storage::wal::LogOp;
use ractor::RpcReplyPort;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::append::{AppendOutcome, AppendReply};
use crate::board::{Board, Phase, Standing};
use crate::env::{Env, Lane};
use crate::folder::Folder;
use crate::heads::{Admission, Budget, Heads, Pace};
use crate::links::Links;
use crate::log_writer::LogWriterMessage;
use crate::machine::{Machine, MachineError, Origin, Written};
use crate::metrics::Metrics;
use crate::sealer::SealerMessage;
use crate::shards::Group;
use crate::snapshotter::SnapshotterMessage;
use crate::supervision::{Actor, ActorError, Address, Own};
use crate::transfer::Transfers;
use crate::transfer::fetcher::FetcherMessage;

/// What a replica does.
pub enum ReplicaMessage {
    /// Ticks of the logical clock, `TICKS_AT_ONCE` of them.
    Tick,
    /// The snapshot was read, or there is none.
    Restored(Result<(Box<Machine>, Option<Origin>), String>),
    /// The log was read, and everything an older life wrote is in it.
    Opened {
        /// The life that asked.
        incarnation: Incarnation,
        /// What the log holds.
        recovered: Recovered,
    },
    /// The cluster is another: replicas may have moved.
    ClusterChanged,
    /// An encoded message of a peer replica.
    Receive {
        /// The node that sent it.
        from: NodeId,
        /// It.
        message: Bytes,
    },
    /// A write is durable.
    Persisted {
        /// The life that asked.
        incarnation: Incarnation,
        /// What it called the write.
        number: u64,
    },
    /// Entries that were no longer in memory.
    Fetched {
        /// What the core called the read.
        number: u64,
        /// The entries; empty where the log no longer has them.
        entries: Vec<Entry>,
    },
    /// Propose an encoded command; the answer comes when it is applied here.
    Append {
        /// The command.
        payload: Bytes,
        /// Who asked.
        reply: AppendReply,
    },
    /// The same of one that was held back for a while.
    Held {
        /// The command.
        payload: Bytes,
        /// Who asked.
        reply: AppendReply,
    },
    /// What this shard holds, as of now (linearizable, leader only) or as far as this replica has applied.
    Read {
        /// Whether everything acknowledged before the question must be in the answer.
        linearizable: bool,
        /// Who asked.
        reply: RpcReplyPort<Result<View, ReadRefusal>>,
    },
    /// Seal the head, if this replica leads and there is something to seal.
    Seal {
        /// Whether an absent replica may lose its place in the log, because the log is full.
        let_go: bool,
    },
    /// A worker was started, again or for the first time: give it the oldest seal, if it is at its stage.
    WorkerStarted(Stage),
    /// Try the oldest seal again.
    RetrySeal,
    /// Work for this life panicked on a worker thread; named, for the tree.
    WorkPanicked(&'static str),
    /// The sealer is done with the oldest seal.
    SegmentWritten {
        /// The index of its `Seal` entry.
        through: Index,
        /// What was written, or why not.
        outcome: Result<Written, MachineError>,
    },
    /// The snapshotter is done with the oldest seal.
    SnapshotWritten {
        /// The index the snapshot is of.
        through: Index,
        /// Nothing, or why not.
        outcome: Result<(), MachineError>,
    },
    /// The fetcher has copied a snapshot, or why not.
    Copied(Result<Arrived, String>),
    /// Ask for the copy of a snapshot again, if it is still needed.
    RetryCopy {
        /// Who offered it.
        leader: ReplicaId,
        /// What it must reach.
        position: Position,
    },
    /// Hand leadership to a node.
    Transfer(NodeId),
    /// The scrubber saw the file of a segment whole, or put a whole one in its place.
    Repaired(Arc<Segment>),
    /// The scrubber put a whole snapshot in the place of a damaged one, or a newer one beside it.
    SnapshotRepaired,
}

/// Who acts on a seal next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The sealer writes the segment.
    Segment,
    /// The snapshotter writes the snapshot.
    Snapshot,
}

/// Why a read was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadRefusal {
    /// This replica does not lead; the node that does, if known.
    NotLeader(Option<NodeId>),
    /// It is still reading its snapshot or its log.
    Recovering,
    /// Too many reads wait, or leadership could not be confirmed in time.
    Busy,
    /// The group holds no records.
    NoRecords,
}

/// Runs one replica.
#[derive(Debug)]
pub struct ReplicaActor;

/// What a replica starts with.
pub struct ReplicaArguments {
    /// The group, and this replica. The one that leads first stands for election at once where nobody led yet, so that
    /// leaders are spread from the start.
    pub group: Group,
    /// What the heads of the node may take.
    pub budget: Budget,
    /// The folder of this group.
    pub folder: Folder,
    /// The age at which a head is sealed although small.
    pub head_age_max: Duration,
    /// How long its records are kept.
    pub retention: Arc<Policy>,
    /// Its sealer; the metadata group has none.
    pub sealer: Option<Address<SealerMessage>>,
    /// Its snapshotter.
    pub snapshotter: Address<SnapshotterMessage>,
    /// Its fetcher.
    pub fetcher: Address<FetcherMessage>,
    /// The node's WAL.
    pub log: Address<LogWriterMessage>,
    /// The other nodes.
    pub links: Links,
    /// Where it publishes how it stands.
    pub board: Board,
    /// Clock, randomness, disk, threads.
    pub env: Env,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Copies, which make room for records.
    pub transfers: Transfers,
}

/// The state of a replica.
pub struct ReplicaState {
    myself: Own<ReplicaMessage>,
    arguments: ReplicaArguments,
    /// Where the replicas of the group are, as the cluster says.
    homes: BTreeMap<ReplicaId, NodeId>,
    /// Where others were heard from: a node that was away for long does not know all of them.
    heard: BTreeMap<ReplicaId, NodeId>,
    /// Present when the snapshot was read.
    machine: Option<Box<Machine>>,
    /// What it was read from.
    origin: Option<Origin>,
    /// Present when the log was read.
    core: Option<Core>,
    effects: Vec<Effect>,
    ticks: u64,
    tickets: u64,
    proposals: BTreeMap<u64, (AppendReply, Instant)>,
    reads: BTreeMap<u64, RpcReplyPort<Result<View, ReadRefusal>>>,
    /// Confirmed reads that wait until their index is applied.
    ripening: BTreeMap<Index, Vec<RpcReplyPort<Result<View, ReadRefusal>>>>,
    seals: VecDeque<sealing::Seal>,
    /// A snapshot that is needed, because the leader's log does not reach back far enough.
    copying: Option<copying::Copying>,
    /// A `Seal` of this leader is proposed and not yet applied.
    seal_proposed: Option<u64>,
    /// Bytes of entries given to the log-writer and not known to be durable, by the number of the write.
    unpersisted: BTreeMap<u64, u64>,
    /// Holds back what is sent to this shard while sealing is behind.
    pace: Pace,
    let_go: bool,
}

impl Actor for ReplicaActor {
    type Message = ReplicaMessage;
    type Arguments = ReplicaArguments;
    type State = ReplicaState;

    async fn pre_start(
        &self,
        myself: &Own<ReplicaMessage>,
        arguments: ReplicaArguments,
    ) -> Result<ReplicaState, ActorError> {
        let mut state = ReplicaState {
            myself: myself.clone(),
            arguments,
            homes: BTreeMap::new(),
            heard: BTreeMap::new(),
            machine: None,
            origin: None,
            core: None,
            effects: Vec::new(),
            ticks: 0,
            tickets: 0,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            ripening: BTreeMap::new(),
            seals: VecDeque::new(),
            copying: None,
            seal_proposed: None,
            unpersisted: BTreeMap::new(),
            pace: Pace::default(),
            let_go: false,
        };
        state.look_for_homes();
        state.publish();
        state.restore();
        Ok(state)
    }

    async fn handle(
        &self,
        _: &Own<ReplicaMessage>,
        message: ReplicaMessage,
        state: &mut ReplicaState,
    ) -> Result<(), ActorError> {
        state.receive(message)
    }
}

impl Drop for ReplicaState {
    /// A life that ended, however it ended, leads nothing.
    fn drop(&mut self) {
        let Group { shard, id, .. } = self.arguments.group;
        self.arguments.board.stands(Standing { phase: Phase::Down, replica: Some(id), ..Standing::unknown(shard) });
    }
}

impl ReplicaState {
    fn receive(&mut self, message: ReplicaMessage) -> Result<(), ActorError> {
        match message {
            ReplicaMessage::Tick => self.tick(),
            ReplicaMessage::Restored(outcome) => self.restored(outcome),
            ReplicaMessage::Opened { incarnation, recovered } => self.opened(incarnation, recovered),
            ReplicaMessage::ClusterChanged => {
                self.look_for_homes();
                Ok(())
            }
            ReplicaMessage::Receive { from, message } => self.received(from, &message),
            ReplicaMessage::Persisted { incarnation, number } if incarnation == self.myself.incarnation() => {
                self.persisted(number)
            }
            ReplicaMessage::Persisted { .. } => Ok(()),
            ReplicaMessage::Fetched { number, entries } => self.advance(Event::Fetched { number, entries }),
            ReplicaMessage::Append { payload, reply } => self.append(payload, reply),
            ReplicaMessage::Held { payload, reply } => self.propose(payload, reply),
            ReplicaMessage::Read { linearizable, reply } => self.read(linearizable, reply),
            ReplicaMessage::Seal { let_go } => self.propose_seal(let_go),
            ReplicaMessage::WorkerStarted(stage) => {
                self.worker_started(stage);
                Ok(())
            }
            ReplicaMessage::RetrySeal => {
                self.retry_seal();
                Ok(())
            }
            ReplicaMessage::SegmentWritten { through, outcome } => self.segment_written(through, outcome),
            ReplicaMessage::SnapshotWritten { through, outcome } => self.snapshot_written(through, outcome),
            ReplicaMessage::Copied(outcome) => {
                self.copied(outcome);
                Ok(())
            }
            ReplicaMessage::RetryCopy { leader, position } => {
                self.retry_copy(leader, position);
                Ok(())
            }
            ReplicaMessage::Transfer(node) => self.transfer(node),
            ReplicaMessage::Repaired(segment) => {
                if let Some(machine) = &mut self.machine {
                    machine.replace(segment);
                }
                Ok(())
            }
            ReplicaMessage::SnapshotRepaired => {
                if self.core.is_none() && self.machine.as_ref().is_some_and(|machine| machine.is_from_before_damage()) {
                    self.myself.renew("it begins anew from a snapshot that was repaired");
                }
                Ok(())
            }
            ReplicaMessage::WorkPanicked(what) => Err(format!("{what} panicked on a worker thread").into()),
        }
    }

    /// Reads the snapshot on a worker thread.
    fn restore(&self) {
        let ReplicaArguments { env, group, folder, .. } = &self.arguments;
        let (disk, shard) = (Arc::clone(&env.disk), group.shard);
        folder.run(env, Lane::Files, &self.myself, "reading the snapshot", move || {
            let restored = Machine::restore(&disk, shard).map(|(machine, origin)| (Box::new(machine), origin));
            ReplicaMessage::Restored(restored.map_err(|error| error.to_string()))
        });
    }

    fn restored(&mut self, outcome: Result<(Box<Machine>, Option<Origin>), String>) -> Result<(), ActorError> {
        let (machine, origin) = outcome.map_err(|error| format!("the snapshot cannot be read: {error}"))?;
        if let Machine::Metadata(metadata) = &*machine {
            self.arguments.board.cluster_is(Arc::clone(metadata.cluster()));
        }
        (self.machine, self.origin) = (Some(machine), origin);
        self.open_log()
    }

    fn open_log(&self) -> Result<(), ActorError> {
        let Group { shard, id: replica, .. } = self.arguments.group;
        let (incarnation, reply) = (self.myself.incarnation(), self.myself.clone());
        self.arguments.log.cast(LogWriterMessage::Open { shard, replica, incarnation, reply })?;
        Ok(())
    }

    fn opened(&mut self, incarnation: Incarnation, recovered: Recovered) -> Result<(), ActorError> {
        if incarnation != self.myself.incarnation() {
            return Ok(());
        }
        let machine = self.machine.as_ref().expect("the log is opened after the snapshot was read");
        let behind = self
            .origin
            .as_ref()
            .and_then(|Origin { position, .. }| Some((*position, hard_state_behind(&recovered, *position)?)));
        if let Some((at, hard_state)) = behind {
            // The snapshot was copied: the log goes on behind it. Opened again once it says so.
            return self.persist(0, LogOp::Install { at, hard_state });
        }
        let Group { shard, id, began, .. } = &self.arguments.group;
        let options = ReplicaOptions {
            shard: *shard,
            id: *id,
            members: self.origin.as_ref().map_or_else(|| began.clone(), |origin| origin.members.clone()),
            boot: self.arguments.env.boot,
            incarnation,
            seed: self.arguments.env.random.draw(),
            knobs: self.arguments.env.knobs.consensus,
        };
        let Members { voters, outgoing, learners, .. } = &options.members;
        tracing::debug!(
            node = self.arguments.env.node.0, shard = %shard, replica = id.0, index = machine.applied().0, ?voters,
            ?outgoing, ?learners, "a replica begins"
        );
        match Core::new(options, recovered, machine.applied()) {
            Ok(core) => self.core = Some(core),
            Err(error) if machine.is_from_before_damage() => {
                tracing::error!(shard = %self.arguments.group.shard, %error, "a replica waits for its snapshot to be repaired");
                self.myself.detail("waits", format_args!("for its snapshot to be repaired: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.publish();
        if self.core.as_ref().is_some_and(|core| is_sole_voter(core.members(), core.id())) {
            return self.advance(Event::Campaign);
        }
        Ok(())
    }

    fn look_for_homes(&mut self) {
        let group = &self.arguments.group;
        let homes = self.arguments.board.cluster().borrow().homes(group.shard);
        self.homes = if homes.is_empty() { group.homes.clone() } else { homes };
    }

    /// The node that a replica is on, as far as anybody said.
    fn home(&self, id: ReplicaId) -> Option<NodeId> {
        self.homes.get(&id).or_else(|| self.heard.get(&id)).copied()
    }

    fn received(&mut self, from: NodeId, bytes: &Bytes) -> Result<(), ActorError> {
        let message = Message::decode(bytes);
        if let Ok(Message { from: id, .. }) = &message
            && !self.homes.contains_key(id)
        {
            if self.heard.len() >= limits::MEMBERS_MAX {
                self.heard.pop_first();
            }
            self.heard.insert(*id, from);
        }
        match message {
            // Behind a full disk entries would pile up in memory; raft sends again what is dropped here.
            Ok(message) if message.payload_bytes() > 0 && self.is_behind() => Ok(()),
            Ok(message) => self.advance(Event::Receive(message)),
            Err(error) => {
                tracing::warn!(shard = %self.arguments.group.shard, %error, "a peer's message cannot be read and is dropped");
                Ok(())
            }
        }
    }

    fn persisted(&mut self, number: u64) -> Result<(), ActorError> {
        if self.core.is_none() {
            return self.open_log();
        }
        let restarted = self.myself.incarnation() > Incarnation(1);
        let takes_all =
            if millpond::mutant!(StaleIncarnation) { restarted } else { millpond::mutant!(PersistedOutOfOrder) };
        if takes_all {
            while let Some((number, _)) = self.unpersisted.pop_first() {
                self.advance(Event::Persisted { number })?;
            }
            return Ok(());
        }
        self.unpersisted.remove(&number);
        self.advance(Event::Persisted { number })
    }

    fn tick(&mut self) -> Result<(), ActorError> {
        self.seal_by_age()?;
        self.retain()?;
        if self.arguments.group.leads_first && self.core.as_ref().is_some_and(is_untouched) {
            // The others may not run yet and then do not hear it: asked again with the next tick.
            self.advance(Event::Campaign)?;
        }
        for _ in 0..limits::TICKS_AT_ONCE {
            self.advance(Event::Tick)?;
        }
        // What an entry or an election changes is published at once; the rest, as who answers, may be a second old.
        // Who plans a move waits for how far its replica follows; without one only learners may come or go, which has time.
        self.ticks += 1;
        let moves = self.arguments.board.cluster().borrow().moves().contains_key(&self.arguments.group.shard);
        if moves || self.ticks.is_multiple_of(limits::PUBLISH_TICKS) {
            self.publish();
            return self.steer();
        }
        Ok(())
    }

    /// Proposes an entry, at once or where sealing is behind a little later: one that came back at once would soon be sent
    /// again, and take from sealing what it needs.
    fn append(&mut self, payload: Bytes, reply: AppendReply) -> Result<(), ActorError> {
        let leads = self.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        let Some(machine) = self.machine.as_ref().filter(|_| leads && self.ingests()) else {
            return self.propose(payload, reply);
        };
        let (bytes, own) = (payload.len() as u64, machine.head_bytes());
        let ReplicaArguments { board, budget, .. } = &self.arguments;
        let elsewhere = board.pressure_of(self.homes.values().copied()).excess;
        let heads = Heads { elsewhere, ..board.heads() };
        match self.pace.admit(Instant::now(), bytes, own, heads, *budget) {
            Admission::Now => self.propose(payload, reply),
            Admission::After(wait) => {
                drop(self.myself.cast_after(wait, ReplicaMessage::Held { payload, reply }));
                Ok(())
            }
            Admission::Refused => {
                reply.send(AppendOutcome::Busy);
                Ok(())
            }
        }
    }

    /// Whether what clients send is in this group. That of the metadata is small and must decide what to do about a full disk
    /// and full memory.
    fn ingests(&self) -> bool {
        self.arguments.group.shard != ShardId::METADATA
    }

    fn propose(&mut self, payload: Bytes, reply: AppendReply) -> Result<(), ActorError> {
        let (Some(core), Some(machine)) = (&self.core, &self.machine) else {
            reply.send(AppendOutcome::NotLeader(None));
            return Ok(());
        };
        if core.role() != Role::Leader {
            reply.send(AppendOutcome::NotLeader(self.leader()));
            return Ok(());
        }
        let full = self.ingests() && self.arguments.board.takes_ingest().is_err();
        if full || self.proposals.len() >= limits::PROPOSALS_WAITING_MAX {
            reply.send(AppendOutcome::Busy);
            return Ok(());
        }
        if self.ingests() {
            self.arguments.transfers.stores();
        }
        let payload = machine.stamp(payload, self.now());
        let ticket = self.ticket();
        self.proposals.insert(ticket, (reply, Instant::now()));
        self.advance(Event::Propose { ticket, payload })
    }

    fn read(&mut self, linearizable: bool, reply: RpcReplyPort<Result<View, ReadRefusal>>) -> Result<(), ActorError> {
        let (Some(core), Some(machine)) = (&self.core, &self.machine) else {
            let _ = reply.send(Err(ReadRefusal::Recovering));
            return Ok(());
        };
        if !linearizable {
            let _ = reply.send(machine.view().ok_or(ReadRefusal::NoRecords));
            return Ok(());
        }
        if core.role() != Role::Leader {
            let _ = reply.send(Err(ReadRefusal::NotLeader(self.leader())));
            return Ok(());
        }
        if millpond::mutant!(ReadWithoutIndex) {
            let _ = reply.send(machine.view().ok_or(ReadRefusal::NoRecords));
            return Ok(());
        }
        if self.reads.len() >= limits::READS_WAITING_MAX {
            let _ = reply.send(Err(ReadRefusal::Busy));
            return Ok(());
        }
        let ticket = self.ticket();
        self.reads.insert(ticket, reply);
        self.advance(Event::Read { ticket })
    }

    /// The clock that shard time follows, in nanoseconds since the Unix epoch.
    fn now(&self) -> i64 {
        self.arguments.board.sober(self.arguments.env.clock.now())
    }

    fn is_behind(&self) -> bool {
        self.unpersisted.values().sum::<u64>() > limits::UNCOMMITTED_BYTES_MAX
    }

    /// Hands leadership to a node whose replica follows closely; another could not take it, and writes would wait.
    fn transfer(&mut self, node: NodeId) -> Result<(), ActorError> {
        let Some(core) = &self.core else { return Ok(()) };
        let caught_up = self.caught_up();
        let fit =
            |peer: &&PeerStatus| self.home(peer.id) == Some(node) && !peer.learner && caught_up.contains(&peer.id);
        let to = core.peers().iter().find(fit).map(|peer| peer.id);
        to.map_or(Ok(()), |to| self.advance(Event::Transfer { to }))
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn leader(&self) -> Option<NodeId> {
        self.home(self.core.as_ref()?.leader()?)
    }
}

/// A group in which nobody has led yet.
fn is_untouched(core: &Core) -> bool {
    core.last_index() == Index(0) && core.leader().is_none()
}

/// A replica that needs nobody's vote.
fn is_sole_voter(members: &Members, id: ReplicaId) -> bool {
    !members.is_joint() && members.voters.iter().eq([&id])
}
