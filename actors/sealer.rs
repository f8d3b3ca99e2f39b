//! `shard-N/sealer`: turns the records of one seal into a sealed segment on disk.
//!
//! Parent: `shard-N`. It receives one seal at a time from its replica and answers with the segment; encoding, the proof
//! and the writing run on a worker thread. A restart loses the work at hand, which the replica gives out again when
//! told that a new life of the sealer is there.

use std::sync::Arc;

use millpond::id::ShardId;

use crate::env::{Env, Lane};
use crate::folder::Folder;
use crate::machine::SealWork;
use crate::metrics::Metrics;
use crate::replica::{ReplicaMessage, Stage};
use crate::supervision::{Actor, ActorError, Address, Own};

/// What a sealer does.
#[derive(Debug)]
pub enum SealerMessage {
    /// Write the segment of this seal.
    Seal {
        /// What was cut.
        work: Arc<SealWork>,
        /// The life of the replica that waits.
        reply: Own<ReplicaMessage>,
    },
}

/// Runs one sealer.
#[derive(Debug)]
pub struct Sealer;

/// What a sealer starts with.
#[derive(Debug)]
pub struct SealerArguments {
    /// The shard.
    pub shard: ShardId,
    /// Its replica.
    pub replica: Address<ReplicaMessage>,
    /// The shard's folder.
    pub folder: Folder,
    /// Disk and threads.
    pub env: Env,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Actor for Sealer {
    type Message = SealerMessage;
    type Arguments = SealerArguments;
    type State = SealerArguments;

    async fn pre_start(
        &self,
        _: &Own<SealerMessage>,
        arguments: SealerArguments,
    ) -> Result<SealerArguments, ActorError> {
        // A replica that is not there yet gives its work out when it has some.
        let _ = arguments.replica.cast(ReplicaMessage::WorkerStarted(Stage::Segment));
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: &Own<SealerMessage>,
        message: SealerMessage,
        state: &mut SealerArguments,
    ) -> Result<(), ActorError> {
        let SealerMessage::Seal { work, reply } = message;
        myself.detail("sealing through", work.through());
        let (disk, metrics) = (Arc::clone(&state.env.disk), Arc::clone(&state.metrics));
        let shard = state.shard;
        state.folder.run(&state.env, Lane::Seal, &reply, "sealing", move || {
            let started = tokio::time::Instant::now();
            let through = work.through();
            let outcome = work.write_segment(&disk);
            if let Ok(written) = &outcome {
                metrics.sealed(written.raw_bytes(), started.elapsed());
                tracing::info!(%shard, index = through.0, bytes = written.bytes(), "segment written");
            }
            ReplicaMessage::SegmentWritten { through, outcome }
        });
        Ok(())
    }
}
