//! `GROUP/snapshotter`: writes the snapshot file of a group and registers it.
//!
//! Parent: `shard-N` or `metadata`. It receives one snapshot at a time from its replica and answers when the file is
//! durable under its name; then it removes the segments that retention ended and that the snapshot does not name, later
//! where they are being copied. A restart loses the work at hand, which the replica gives out again when told that a new
//! life of the snapshotter is there; files that were to be removed wait for the next snapshot or the replica's next start.

use std::sync::Arc;

use millpond::entry::{Members, SegmentMeta};
use millpond::id::{Offset, ShardId};
use millpond::limits;
use millpond::storage::segment::{self, SegmentError};
use tokio::task::JoinHandle;

use crate::env::{Env, Lane};
use crate::folder::Folder;
use crate::machine::SealWork;
use crate::replica::{ReplicaMessage, Stage};
use crate::supervision::{Actor, ActorError, Address, Own};

/// What a snapshotter does.
#[derive(Debug)]
pub enum SnapshotterMessage {
    /// Write the snapshot of this seal.
    Write {
        /// What was cut.
        work: Arc<SealWork>,
        /// Every segment of the shard, the one of this seal included; empty for the metadata group.
        manifest: Vec<SegmentMeta>,
        /// The members of the group as of the seal.
        members: Members,
        /// The life of the replica that waits.
        reply: Own<ReplicaMessage>,
    },
    /// Remove the segments below an offset: a durable snapshot says that retention ended them.
    Remove {
        /// The shard.
        shard: ShardId,
        /// The first offset that stays.
        first: Offset,
    },
    /// They were removed, but for so many that are being copied, or why not.
    Removed {
        /// The shard.
        shard: ShardId,
        /// The first offset that stays.
        first: Offset,
        /// Files that are left.
        left: Result<usize, SegmentError>,
    },
    /// Work for this life panicked on a worker thread; named, for the tree.
    WorkPanicked(&'static str),
}

/// Runs one snapshotter.
#[derive(Debug)]
pub struct Snapshotter;

/// What a snapshotter starts with.
#[derive(Debug)]
pub struct SnapshotterArguments {
    /// Its replica.
    pub replica: Address<ReplicaMessage>,
    /// The group's folder.
    pub folder: Folder,
    /// Disk and threads.
    pub env: Env,
}

/// The state of a snapshotter.
#[derive(Debug)]
pub struct SnapshotterState {
    arguments: SnapshotterArguments,
    /// The removal that waits for its next trial.
    retry: Option<(Offset, JoinHandle<()>)>,
}

impl Actor for Snapshotter {
    type Message = SnapshotterMessage;
    type Arguments = SnapshotterArguments;
    type State = SnapshotterState;

    async fn pre_start(
        &self,
        _: &Own<SnapshotterMessage>,
        arguments: SnapshotterArguments,
    ) -> Result<SnapshotterState, ActorError> {
        // A replica that is not there yet gives its work out when it has some.
        let _ = arguments.replica.cast(ReplicaMessage::WorkerStarted(Stage::Snapshot));
        Ok(SnapshotterState { arguments, retry: None })
    }

    async fn handle(
        &self,
        myself: &Own<SnapshotterMessage>,
        message: SnapshotterMessage,
        state: &mut SnapshotterState,
    ) -> Result<(), ActorError> {
        let disk = Arc::clone(&state.arguments.env.disk);
        match message {
            SnapshotterMessage::Write { work, manifest, members, reply } => {
                myself.detail("snapshot through", work.through());
                let myself = myself.clone();
                let write = move || {
                    let through = work.through();
                    let outcome = work.write_snapshot(&disk, manifest, &members);
                    if outcome.is_ok() && work.first_offset() > Offset(0) {
                        let (shard, first) = (work.shard(), work.first_offset());
                        // Where this life has ended, the next snapshot removes it as well.
                        let _ = myself.cast(SnapshotterMessage::Remove { shard, first });
                    }
                    ReplicaMessage::SnapshotWritten { through, outcome }
                };
                state.arguments.folder.run(&state.arguments.env, Lane::Snapshot, &reply, "writing a snapshot", write);
            }
            SnapshotterMessage::Remove { shard, first } => {
                let removed = move || {
                    let left = segment::remove_below(&*disk, shard, first);
                    SnapshotterMessage::Removed { shard, first, left }
                };
                let panicked = SnapshotterMessage::WorkPanicked("removing segments");
                state.arguments.folder.run_for(&state.arguments.env, myself, panicked, removed);
            }
            SnapshotterMessage::Removed { shard, first, left } => state.removed(myself, shard, first, left),
            SnapshotterMessage::WorkPanicked(what) => return Err(format!("{what} panicked on a worker thread").into()),
        }
        Ok(())
    }
}

impl SnapshotterState {
    /// What is being copied, and what the disk refused, is tried again; one trial at a time waits, for the highest offset.
    fn removed(
        &mut self,
        myself: &Own<SnapshotterMessage>,
        shard: ShardId,
        first: Offset,
        left: Result<usize, SegmentError>,
    ) {
        if let Err(error) = &left {
            tracing::warn!(%shard, %error, "segments that retention ended are not removed yet");
        }
        let waiting = self.retry.take_if(|(waiting, _)| *waiting <= first);
        if let Some((_, timer)) = waiting {
            timer.abort();
        }
        if !matches!(left, Ok(0)) && self.retry.is_none() {
            let timer = myself.cast_after(limits::LEASED_RETRY, SnapshotterMessage::Remove { shard, first });
            self.retry = Some((first, timer));
        }
    }
}
