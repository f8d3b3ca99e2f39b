//! From a request as it was sent to the parts that shards are asked to store: inflate, decode, judge, split, encode.
//!
//! It runs on a worker thread, holds no state but an encoder's buffers, and is a function of what it is given: a retry
//! gives the same parts. It does not know who leads a shard.

use std::cell::RefCell;

use millpond::block::l0::Encoder;
use millpond::id::ShardId;
use millpond::protocol::{Acceptance, Intake, ProtocolError, Refusals, decode, inflate};
use millpond::routing::{KeySource, RequestKey, Strategy, split};
use millpond::shard::SubBatch;

use crate::ingest::Submission;

/// A request, ready for its shards.
#[derive(Debug)]
pub struct Prepared {
    /// What each shard is asked to store, ordered by shard, then part. Empty where nothing is to be stored.
    pub parts: Vec<(ShardId, SubBatch)>,
    /// Records in the parts.
    pub accepted: usize,
    /// Bytes of their lines and of the metadata they were sent with.
    pub raw_bytes: usize,
    /// Records that were refused. Unless the request may be stored in part, one refusal leaves no parts.
    pub refusals: Refusals,
}

thread_local! {
    /// Keeps its buffers and its zstd context from one request to the next.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// Prepares a request for so many shards. `now` is the node's clock in nanoseconds since the Unix epoch; `draw` makes the
/// key of a request that cannot be told from another.
///
/// # Errors
/// Where the body cannot be read at all.
pub fn prepare(
    submission: Submission,
    now: i64,
    shards: u32,
    strategy: Strategy,
    draw: u64,
) -> Result<Prepared, ProtocolError> {
    let Submission { tenant, kind, encoding, body, idempotency_key, partial, permit } = submission;
    let body = inflate(kind, encoding, body)?;
    let Intake { streams, refusals, accepted, bytes_accepted, every_record_timed, time_refusals } =
        decode(kind, &body, &Acceptance { now, oldest: None })?;
    if !partial && !refusals.is_empty() {
        return Ok(Prepared { parts: Vec::new(), accepted: 0, raw_bytes: 0, refusals });
    }
    let identity = RequestKey::derive(&KeySource {
        tenant: &tenant,
        idempotency_key: idempotency_key.as_deref(),
        body: &body,
        every_record_timed,
        time_refusals,
        draw,
    });
    let parts = split(streams, &tenant, identity.key, shards, strategy).into_iter().map(|part| {
        let batch = ENCODER.with_borrow_mut(|encoder| encoder.encode(&tenant, &part.streams));
        (part.shard, SubBatch { key: identity.key, body: identity.body_hash, part: part.part, batch })
    });
    let parts = parts.collect();
    drop(permit);
    Ok(Prepared { parts, accepted, raw_bytes: bytes_accepted, refusals })
}
