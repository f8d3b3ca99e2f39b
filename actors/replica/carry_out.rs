//! Steps the core of a replica and carries out what it answers. Deciding is the core's; this file only does.

use std::collections::VecDeque;

use bytes::Bytes;
use millpond::class::Class;
use millpond::consensus::{Committed, Effect, Event, PeerState, PeerStatus, ReadLoss, Refusal};
use millpond::entry::EntryKind;
use millpond::id::{Index, Offset, ReplicaId};
use millpond::storage::wal::LogOp;
use xxhash_rust::xxh3::xxh3_64;

use super::{ReadRefusal, ReplicaState};
use crate::append::AppendOutcome;
use crate::board::{Follower, Phase, Standing};
use crate::log_writer::LogWriterMessage;
use crate::machine::Applied;
use crate::supervision::ActorError;

impl ReplicaState {
    /// Steps the core once and carries out its effects. Applying is at once, so its outcome is the next event.
    pub(super) fn advance(&mut self, event: Event) -> Result<(), ActorError> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(core) = &mut self.core else { return Ok(()) };
            assert!(self.effects.is_empty(), "the effects of one step are carried out before the next");
            match core.step(event, &mut self.effects) {
                Err(error) if error.class() != Class::Fatal => {
                    tracing::warn!(shard = %self.arguments.group.shard, %error, "an event was refused");
                }
                outcome => outcome?,
            }
            let effects = std::mem::take(&mut self.effects);
            for effect in effects {
                self.carry_out(effect, &mut events)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect, events: &mut VecDeque<Event>) -> Result<(), ActorError> {
        match effect {
            Effect::Persist { number, truncate_from, entries, hard_state } => {
                self.persist(number, LogOp::Append { truncate_from, entries, hard_state })?;
            }
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Apply { entries } => {
                if let Some(last) = entries.last() {
                    events.push_back(Event::Applied { through: last.index });
                }
                for committed in entries {
                    self.apply(committed)?;
                }
                self.ripe_reads();
                self.publish();
            }
            Effect::Refused { ticket, why } => {
                let outcome = match why {
                    Refusal::NotLeader { .. } => AppendOutcome::NotLeader(self.leader()),
                    Refusal::Busy
                    | Refusal::Size { .. }
                    | Refusal::Nothing
                    | Refusal::NoVoters
                    | Refusal::RemovesLeader
                    | Refusal::Unfit { .. } => AppendOutcome::Busy,
                };
                self.end_proposal(ticket, outcome);
            }
            Effect::Abandoned { ticket } => self.end_proposal(ticket, AppendOutcome::Unknown),
            Effect::ReadReady { ticket, index } => {
                if let Some(reply) = self.reads.remove(&ticket) {
                    self.ripening.entry(index).or_default().push(reply);
                    self.ripe_reads();
                }
            }
            Effect::ReadLost { ticket, why } => {
                if let Some(reply) = self.reads.remove(&ticket) {
                    // Who no longer waits for a read gave up on it.
                    let _ = reply.send(Err(match why {
                        ReadLoss::NotLeader { .. } => ReadRefusal::NotLeader(self.leader()),
                        ReadLoss::Busy | ReadLoss::Late => ReadRefusal::Busy,
                    }));
                }
            }
            Effect::Role { role, term, leader } => {
                let leader = leader.and_then(|leader| self.home(leader));
                tracing::info!(
                    node = self.arguments.env.node.0, shard = %self.arguments.group.shard, role = ?role, term = term.0,
                    leader = leader.map(|node| node.0), "role changed"
                );
                self.publish();
            }
            Effect::Fetch { number, from, through, bytes_max } => {
                let (shard, reply) = (self.arguments.group.shard, self.myself.clone());
                self.arguments.log.cast(LogWriterMessage::Read { shard, from, through, bytes_max, number, reply })?;
            }
            Effect::Trimmed { position: through } => {
                let (shard, replica) = (self.arguments.group.shard, self.arguments.group.id);
                self.arguments.log.cast(LogWriterMessage::Trim { shard, replica, through })?;
            }
            Effect::Members { members, index } => {
                tracing::info!(
                    node = self.arguments.env.node.0, shard = %self.arguments.group.shard, index = index.0,
                    voters = ?members.voters, outgoing = ?members.outgoing, learners = ?members.learners,
                    "members changed"
                );
                self.publish();
            }
            Effect::Offered { from, position, .. } => self.offered(from, position),
        }
        Ok(())
    }

    /// A proposal of this leader is not coming to be, or nobody knows.
    fn end_proposal(&mut self, ticket: u64, outcome: AppendOutcome) {
        self.forget_proposed_seal(ticket);
        if let Some((reply, _)) = self.proposals.remove(&ticket) {
            reply.send(outcome);
        }
    }

    pub(super) fn persist(&mut self, number: u64, op: LogOp) -> Result<(), ActorError> {
        if let LogOp::Append { entries, .. } = &op {
            let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
            self.unpersisted.insert(number, bytes);
        }
        let arguments = &self.arguments;
        arguments.log.cast(LogWriterMessage::Persist {
            shard: arguments.group.shard,
            replica: arguments.group.id,
            incarnation: self.myself.incarnation(),
            number,
            op,
            reply: self.myself.clone(),
        })?;
        Ok(())
    }

    fn send(&self, to: ReplicaId, message: &millpond::consensus::Message) {
        let Some(node) = self.home(to) else { return };
        self.arguments.links.raft(node, self.arguments.group.shard, message.encode().into(), message.is_control());
    }

    fn apply(&mut self, committed: Committed) -> Result<(), ActorError> {
        tracing::trace!(
            node = self.arguments.env.node.0, shard = %self.arguments.group.shard, index = committed.index.0,
            term = committed.term.0, sum = xxh3_64(&committed.payload), "applied"
        );
        let machine = self.machine.as_mut().expect("nothing is committed before the snapshot was read");
        // A change of members means nothing to the state, which passes its index all the same: reads wait for it.
        let payload = match committed.kind {
            EntryKind::Normal => committed.payload,
            EntryKind::Configuration | EntryKind::JointConfiguration => Bytes::new(),
        };
        let applied = machine.apply(committed.index, committed.term, &payload)?;
        let waiting = committed.ticket.and_then(|ticket| self.proposals.remove(&ticket));
        match applied {
            Applied::Verdicts(verdicts) => {
                if let Some((reply, since)) = waiting {
                    self.arguments.metrics.committed(since.elapsed());
                    reply.send(AppendOutcome::Applied(verdicts));
                }
            }
            Applied::Seal(job) => {
                self.seal_proposed = None;
                self.seals.push_back(super::sealing::Seal::new(job));
                self.carry_on_sealing();
            }
            Applied::Cluster { cluster, outcome, seal } => {
                self.arguments.board.cluster_is(cluster);
                if let Some((reply, _)) = waiting {
                    reply.send(AppendOutcome::Governed(outcome.into()));
                }
                // One snapshot at a time: the next is due again with the entry after.
                if let Some(work) = seal.filter(|_| self.seals.is_empty()) {
                    self.seals.push_back(super::sealing::Seal::new(work));
                    self.carry_on_sealing();
                }
            }
            Applied::Nothing => {}
        }
        Ok(())
    }

    /// Answers the reads whose index is applied.
    fn ripe_reads(&mut self) {
        let Some(machine) = &self.machine else { return };
        let later = self.ripening.split_off(&Index(machine.applied().0 + 1));
        for reply in std::mem::replace(&mut self.ripening, later).into_values().flatten() {
            // Who no longer waits for a read gave up on it.
            let _ = reply.send(machine.view().ok_or(ReadRefusal::NoRecords));
        }
    }

    /// Shows on the board how this replica stands.
    pub(super) fn publish(&self) {
        let arguments = &self.arguments;
        let standing = self.standing();
        self.myself.detail("role", format_args!("{:?}", standing.role));
        self.myself.detail("term", standing.term);
        self.myself.detail("applied", standing.applied);
        if standing.first_offset > Offset(0) {
            self.myself.detail("first offset", standing.first_offset);
        }
        if let Some(leader) = standing.leader {
            self.myself.detail("leader", leader);
        }
        arguments.board.stands(standing);
    }

    fn standing(&self) -> Standing {
        let mut standing = Standing::unknown(self.arguments.group.shard);
        standing.replica = Some(self.arguments.group.id);
        standing.phase = Phase::Recovering;
        if let Some(machine) = &self.machine {
            standing.applied = machine.applied();
            standing.sealed = machine.sealed();
            standing.next_offset = machine.next_offset();
            standing.head_bytes = machine.head_bytes();
            standing.unsealed_bytes = machine.unsealed_bytes();
            standing.segments = machine.segments();
            standing.segment_bytes = machine.segment_bytes();
            standing.first_offset = machine.first_offset();
            standing.dropped_segments = machine.dropped().segments;
            standing.dropped_bytes = machine.dropped().bytes;
        }
        let Some(core) = &self.core else { return standing };
        standing.phase = Phase::Serving;
        standing.role = core.role();
        standing.term = core.term();
        standing.leader = self.leader();
        standing.trimmed = core.trimmed().index;
        standing.committed = core.committed();
        standing.persisted = core.persisted();
        standing.appended = core.last_index();
        standing.members = core.members().clone();
        let caught_up = self.caught_up();
        let follower = |peer: PeerStatus| {
            Some(Follower {
                replica: peer.id,
                node: self.home(peer.id)?,
                learner: peer.learner,
                matched: peer.matched,
                active: peer.active,
                needs_snapshot: peer.state == PeerState::NeedsSnapshot,
                caught_up: caught_up.contains(&peer.id),
            })
        };
        standing.followers = core.peers().into_iter().filter_map(follower).collect();
        standing
    }
}
