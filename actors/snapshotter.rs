//! `GROUP/snapshotter`: writes the snapshot file of a group and registers it.
//!
//! Parent: `shard-N` or `metadata`. It receives one snapshot at a time from its replica and answers when the file is
//! durable under its name. A restart loses the work at hand, which the replica gives out again when told that a new
//! life of the snapshotter is there.

use std::sync::Arc;

use millpond::entry::{Members, SegmentMeta};

use crate::env::Env;
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

impl Actor for Snapshotter {
    type Message = SnapshotterMessage;
    type Arguments = SnapshotterArguments;
    type State = SnapshotterArguments;

    async fn pre_start(
        &self,
        _: &Own<SnapshotterMessage>,
        arguments: SnapshotterArguments,
    ) -> Result<SnapshotterArguments, ActorError> {
        // A replica that is not there yet gives its work out when it has some.
        let _ = arguments.replica.cast(ReplicaMessage::WorkerStarted(Stage::Snapshot));
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: &Own<SnapshotterMessage>,
        message: SnapshotterMessage,
        state: &mut SnapshotterArguments,
    ) -> Result<(), ActorError> {
        let SnapshotterMessage::Write { work, manifest, members, reply } = message;
        myself.detail("snapshot through", work.through());
        let disk = Arc::clone(&state.env.disk);
        state.folder.run(&state.env, &reply, "writing a snapshot", move || {
            let through = work.through();
            let outcome = work.write_snapshot(&disk, manifest, &members);
            ReplicaMessage::SnapshotWritten { through, outcome }
        });
        Ok(())
    }
}
