//! How a replica seals: the leader proposes, everybody cuts at the entry that says so, the sealer writes the segment,
//! the snapshotter the snapshot that names it, and only then does the head let go and the log forget. One seal after
//! the other, in the order of the log; a sealer or snapshotter that was restarted is given the oldest again.

use std::sync::Arc;

use millpond::class::Class;
use millpond::consensus::{Event, Role};
use millpond::id::Index;
use millpond::limits;

use super::{ReplicaMessage, ReplicaState, Stage};
use crate::append::AppendReply;
use crate::machine::{MachineError, SealWork, Written};
use crate::sealer::SealerMessage;
use crate::snapshotter::SnapshotterMessage;
use crate::supervision::ActorError;

/// A seal that was applied and is being carried out.
pub(super) struct Seal {
    work: Arc<SealWork>,
    written: Option<Written>,
    /// A worker has it at its present stage; it is not given out twice.
    given: bool,
}

impl Seal {
    pub(super) fn new(work: Arc<SealWork>) -> Self {
        Self { work, written: None, given: false }
    }

    fn stage(&self, is_metadata: bool) -> Stage {
        if self.written.is_some() || is_metadata { Stage::Snapshot } else { Stage::Segment }
    }
}

impl ReplicaState {
    /// Proposes a seal when the head is old, so that no log is kept for ever by a quiet shard.
    pub(super) fn seal_by_age(&mut self) -> Result<(), ActorError> {
        let now = self.now();
        let due = self.machine.as_ref().is_some_and(|machine| machine.is_due(now, self.arguments.head_age_max));
        if due { self.propose_seal(false) } else { Ok(()) }
    }

    /// Seals what is not sealed. What is sealed already leaves the log as soon as no replica needs it there.
    pub(super) fn propose_seal(&mut self, let_go: bool) -> Result<(), ActorError> {
        self.let_go |= let_go;
        let (Some(core), Some(machine)) = (&self.core, &self.machine) else { return Ok(()) };
        if self.seal_proposed.is_some() || !self.seals.is_empty() {
            return Ok(());
        }
        let (leads, sealed, now) = (core.role() == Role::Leader, machine.sealed(), self.now());
        // Who does not answer is not waited for: a snapshot and the files that it lacks bring it back.
        let hold = core.peers().iter().filter(|peer| peer.active).map(|peer| peer.matched).min();
        let hold = hold.unwrap_or(core.applied());
        let payload = if leads { machine.seal_command(hold, now) } else { None };
        if leads || self.let_go {
            self.trim(sealed, hold)?;
        }
        let Some(payload) = payload else { return Ok(()) };
        let ticket = self.ticket();
        self.proposals.insert(ticket, (AppendReply::nobody(), tokio::time::Instant::now()));
        self.seal_proposed = Some(ticket);
        self.advance(Event::Propose { ticket, payload })
    }

    /// A seal that was proposed here is not coming by that proposal; another may be proposed.
    pub(super) fn forget_proposed_seal(&mut self, ticket: u64) {
        if self.seal_proposed == Some(ticket) {
            self.seal_proposed = None;
        }
    }

    /// Gives the oldest seal to whoever must act on it next. A worker that is not there now says when it starts.
    pub(super) fn carry_on_sealing(&mut self) {
        let is_metadata = self.arguments.sealer.is_none();
        let (Some(seal), Some(machine), Some(core)) = (self.seals.front_mut(), &self.machine, &self.core) else {
            return;
        };
        if seal.given || self.copying.is_some() {
            return;
        }
        let (work, reply) = (Arc::clone(&seal.work), self.myself.clone());
        seal.given = match (seal.stage(is_metadata), &self.arguments.sealer) {
            (Stage::Segment, Some(sealer)) => sealer.cast(SealerMessage::Seal { work, reply }).is_ok(),
            (Stage::Segment, None) | (Stage::Snapshot, _) => {
                let manifest = machine.manifest(seal.written.as_ref());
                let other = millpond::mutant!(MembersOfAnotherIndex);
                let as_of = if other { machine.sealed() } else { work.through() };
                let members = core.members_at(as_of).expect("it is not older than the newest snapshot").clone();
                let write = SnapshotterMessage::Write { work, manifest, members, reply };
                self.arguments.snapshotter.cast(write).is_ok()
            }
        };
    }

    /// Whether a worker is at work in the group's folder.
    pub(super) fn is_sealing(&self) -> bool {
        self.seals.front().is_some_and(|seal| seal.given)
    }

    /// A new life of a worker knows nothing of what the one before had.
    pub(super) fn worker_started(&mut self, stage: Stage) {
        let is_metadata = self.arguments.sealer.is_none();
        if let Some(seal) = self.seals.front_mut().filter(|seal| seal.stage(is_metadata) == stage) {
            seal.given = false;
        }
        self.begin_copy();
        self.carry_on_sealing();
    }

    pub(super) fn retry_seal(&mut self) {
        if let Some(seal) = self.seals.front_mut() {
            seal.given = false;
        }
        self.begin_copy();
        self.carry_on_sealing();
    }

    pub(super) fn segment_written(
        &mut self,
        through: Index,
        outcome: Result<Written, MachineError>,
    ) -> Result<(), ActorError> {
        let waits = |seal: &&mut Seal| seal.work.through() == through && seal.written.is_none();
        let Some(seal) = self.seals.front_mut().filter(waits) else { return Ok(()) };
        match outcome {
            Ok(written) => (seal.written, seal.given) = (Some(written), false),
            Err(error) => return self.seal_failed(through, error),
        }
        if millpond::mutant!(TrimBeforeSnapshot) {
            let hold = seal.work.hold();
            self.advance(Event::SnapshotWritten { through })?;
            self.trim(through, hold)?;
        }
        self.begin_copy();
        self.carry_on_sealing();
        Ok(())
    }

    pub(super) fn snapshot_written(
        &mut self,
        through: Index,
        outcome: Result<(), MachineError>,
    ) -> Result<(), ActorError> {
        if self.seals.front().is_none_or(|seal| seal.work.through() != through) {
            return Ok(());
        }
        if let Err(error) = outcome {
            return self.seal_failed(through, error);
        }
        let seal = self.seals.pop_front().expect("looked at above");
        let machine = self.machine.as_mut().expect("a seal was applied");
        let dropped = machine.register(&seal.work, seal.written);
        self.arguments.metrics.dropped(dropped.segments, dropped.bytes);
        self.advance(Event::SnapshotWritten { through })?;
        self.trim(through, seal.work.hold())?;
        self.begin_copy();
        self.carry_on_sealing();
        self.publish();
        Ok(())
    }

    /// What a full disk refuses is tried again; nothing was let go of yet. Anything else ends this life: the next one
    /// builds its head anew from the log.
    fn seal_failed(&self, through: Index, error: MachineError) -> Result<(), ActorError> {
        if error.class() != Class::Retry {
            return Err(format!("sealing through {through} failed: {error}").into());
        }
        tracing::warn!(shard = %self.arguments.group.shard, index = through.0, %error, "sealing is tried again");
        drop(self.myself.cast_after(limits::SEAL_RETRY, ReplicaMessage::RetrySeal));
        Ok(())
    }

    /// Lets memory go of everything that is sealed, and the log of what no replica needs any more.
    fn trim(&mut self, sealed: Index, hold: Index) -> Result<(), ActorError> {
        let through = if std::mem::take(&mut self.let_go) { sealed } else { sealed.min(hold) };
        self.advance(Event::Evict { through: sealed })?;
        let trimmed = self.core.as_ref().map_or(through, |core| core.trimmed().index);
        if through > trimmed { self.advance(Event::Trim { through }) } else { Ok(()) }
    }
}
