//! The question "append this entry" and its answer, on one node or between two. It does not know who leads.

use bytes::Bytes;
use millpond::id::NodeId;
use millpond::shard::Verdict;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::govern::Carried;
use crate::ingest::ingester::IngesterMessage;
use crate::links::Answer;
use crate::supervision::Own;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// A majority has it on disk and the leader has applied it: a verdict for each sub-batch.
    Applied(Vec<Verdict>),
    /// The same of a command of the metadata group: what it did.
    Governed(Carried),
    /// It is in no log: this replica does not lead; the node that does, if known.
    NotLeader(Option<NodeId>),
    /// It is in no log: the replica has more waiting than it may.
    Busy,
    /// Leadership changed, or the replica fell: it may or may not be in the log.
    Unknown,
}

impl AppendOutcome {
    /// The bytes that travel to the node that forwarded.
    pub fn encode(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("plain data always encodes").into()
    }

    /// Reads what `encode` wrote; anything else is an unknown outcome.
    pub fn decode(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes).unwrap_or(Self::Unknown)
    }
}

/// Who waits for an entry. Dropped without an answer, also by a panic or in a mailbox that closed, it answers
/// `Unknown`: a waiter always hears.
pub struct AppendReply(Option<Waiter>);

enum Waiter {
    Ingester { myself: Own<IngesterMessage>, flight: u64 },
    Peer(Answer),
    Caller(oneshot::Sender<AppendOutcome>),
}

impl AppendReply {
    /// An ingester of this node, and what it calls the entry.
    pub fn ingester(myself: Own<IngesterMessage>, flight: u64) -> Self {
        Self(Some(Waiter::Ingester { myself, flight }))
    }

    /// A node that forwarded the entry.
    pub fn peer(answer: Answer) -> Self {
        Self(Some(Waiter::Peer(answer)))
    }

    /// A task of this node.
    pub fn caller(reply: oneshot::Sender<AppendOutcome>) -> Self {
        Self(Some(Waiter::Caller(reply)))
    }

    /// Nobody: a proposal of this node's own.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Tells the outcome.
    pub fn send(mut self, outcome: AppendOutcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: AppendOutcome) {
        match self.0.take() {
            Some(Waiter::Ingester { myself, flight }) => {
                // An ingester that is gone has dropped its clients, who will ask again.
                let _ = myself.cast(IngesterMessage::Landed { flight, outcome });
            }
            Some(Waiter::Peer(answer)) => answer.send(Ok(outcome.encode())),
            // A task that gave up does not listen any more.
            Some(Waiter::Caller(reply)) => drop(reply.send(outcome)),
            None => {}
        }
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        self.tell(AppendOutcome::Unknown);
    }
}
