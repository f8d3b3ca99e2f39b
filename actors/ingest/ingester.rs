//! `ingester-K`: takes requests in, and brings their records to the leaders of their shards.
//!
//! Parent: `ingest`. It receives submissions from listeners and outcomes of entries; it sends entries to the replica
//! that leads, on this node or across a link. Decoding and encoding run on worker threads; the sub-batches of all
//! requests for one shard share entries. What certainly or possibly failed is sent again, in its old order, to
//! whoever leads by then: apply knows each part by its key, so nothing is stored twice. A restart loses the requests
//! that were not answered; their clients see a closed connection or 503 and send again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::block::l0;
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::shard::command::{Command, SubBatch};
use millpond::shard::{Outcome, Verdict};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::{Landing, Submission, Verdicts};
use crate::append::{AppendOutcome, AppendReply};
use crate::board::{Board, LEADER_POLL};
use crate::env::{Env, Lane};
use crate::links::{Links, Method};
use crate::metrics::Metrics;
use crate::prepare::{self, Prepared};
use crate::replica::ReplicaMessage;
use crate::supervision::{Address, Probe};

/// What an ingester does.
pub enum IngesterMessage {
    /// Take a request in.
    Submit {
        /// The request as it was sent.
        submission: Submission,
        /// The listener that waits.
        reply: RpcReplyPort<Landing>,
    },
    /// A request was decoded, routed and encoded.
    Prepared {
        /// The request.
        request: u64,
        /// Its parts, or why it is refused.
        outcome: Result<Encoded, prepare::PrepareError>,
    },
    /// What became of an entry.
    Landed {
        /// The entry.
        flight: u64,
        /// Its outcome.
        outcome: AppendOutcome,
    },
    /// Look at deadlines, and at lanes that wait for a leader.
    Tick,
    /// Panic on purpose.
    Crash,
}

impl ractor::Message for IngesterMessage {}
