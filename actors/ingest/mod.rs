//! Intake: what a listener hands over, what it hears back, and the gate that admits only what fits into memory.
//!
//! `ingest` supervises the ingesters; a request goes to one of them, in turn. The gate counts the bytes of requests
//! that no majority has yet, since mailboxes have no bound of their own.

pub mod ingester;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use millpond::id::{Key, ShardId};
use millpond::limits;
use millpond::protocol::{BodyKind, Encoding, ProtocolError, Refusals};
use ractor::concurrency::oneshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::board::Board;
use crate::ingest::ingester::IngesterMessage;
use crate::supervision::Address;

/// One request as it was sent.
#[derive(Debug)]
pub struct Submission {
    /// What the body is.
    pub content: Content,
    /// The body, not inflated.
    pub body: Bytes,
    /// Room for the body until its outcome is known.
    pub permit: Permit,
}

/// What a body is.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Records of a client, which are judged.
    Sent {
        /// Who sends.
        tenant: Arc<str>,
        /// Their form.
        kind: BodyKind,
        /// How the body is compressed.
        encoding: Encoding,
        /// The client's own key, if it gave one.
        idempotency_key: Option<String>,
        /// Whether good lines are stored although others are refused.
        partial: bool,
    },
    /// Records of a backup, which were judged when they were stored first: `millpond::backup::replay`.
    Restored {
        /// The request's key.
        key: Key,
    },
}

/// What became of a request.
#[derive(Debug)]
pub struct Landing {
    /// The worst of its parts' outcomes.
    pub verdict: Verdict,
    /// Records that were stored, or were stored before under the same key.
    pub accepted: usize,
    /// Bytes of their lines and of the metadata they were sent with.
    pub raw_bytes: usize,
    /// Lines that were refused, each by itself.
    pub refusals: Refusals,
    /// The shards that it touched, ascending.
    pub shards: Vec<ShardId>,
}

/// The outcome of a request, the worst last.
#[derive(Debug)]
pub enum Verdict {
    /// Everything that was accepted is on the disks of a majority.
    Stored,
    /// The body cannot be read, or nothing in it was valid; nothing was stored.
    Malformed(ProtocolError),
    /// The key was used before with another body; nothing was stored.
    Conflict,
    /// The tenant has too many streams in a shard.
    TooManyStreams,
    /// No quorum, too much in flight or no room on the disk: maybe stored in part, send it again, whole.
    Unavailable(&'static str),
    /// No outcome within the deadline: maybe stored, send it again, whole.
    TimedOut,
}

/// Room for the bytes of one request. Dropping its last clone gives the room back.
#[derive(Clone, Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedSemaphorePermit>);

impl From<OwnedSemaphorePermit> for Permit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(permit))
    }
}

/// Admission, and the way to an ingester. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    ingesters: Arc<[Address<IngesterMessage>]>,
    turn: Arc<AtomicUsize>,
    board: Board,
}

/// Permits are counted in units of this many bytes, since a semaphore counts to 2^29.
const PERMIT_BYTES: usize = 1024;

impl Gate {
    /// A gate for so many bytes in flight and so many ingesters.
    pub fn new(bytes: usize, ingesters: Vec<Address<IngesterMessage>>, board: Board) -> Self {
        assert!(!ingesters.is_empty() && bytes >= limits::REQUEST_INFLATED_BYTES_MAX, "one largest request must fit");
        Self {
            room: Arc::new(Semaphore::new(bytes / PERMIT_BYTES)),
            ingesters: ingesters.into(),
            turn: Arc::new(AtomicUsize::new(0)),
            board,
        }
    }

    /// Where the ingesters are reached, for their supervisor.
    pub fn ingesters(&self) -> &[Address<IngesterMessage>] {
        &self.ingesters
    }

    /// Takes room for a request of so many bytes as sent, or says why there is none.
    pub fn admit(&self, bytes: usize) -> Result<Permit, &'static str> {
        self.board.takes_ingest()?;
        let units = u32::try_from(bytes.div_ceil(PERMIT_BYTES).max(1)).expect("a request is at most 16 MiB");
        let permit = Arc::clone(&self.room).try_acquire_many_owned(units);
        permit.map(Permit::from).map_err(|_| "too many bytes are waiting for a majority; slow down")
    }

    /// Hands a request to an ingester and waits for its outcome.
    pub async fn submit(&self, submission: Submission) -> Landing {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.ingesters.len();
        let (reply, landing) = oneshot();
        let sent = self.ingesters[turn].cast(IngesterMessage::Submit { submission, reply: reply.into() });
        let landing = if sent.is_ok() { landing.await.ok() } else { None };
        landing.unwrap_or_else(|| Landing {
            verdict: Verdict::Unavailable("the ingester was restarted; send the request again, whole"),
            accepted: 0,
            raw_bytes: 0,
            refusals: Refusals::default(),
            shards: Vec::new(),
        })
    }
}
