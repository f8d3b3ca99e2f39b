//! What nodes ask each other about a shard, and the answering side of it.
//!
//! On the wire a request is one version byte, now 2, and MessagePack of `PeerRequest`, structures as arrays; the answer
//! is a partial answer as `millpond::query` encodes it, or a fault whose detail is MessagePack of a `Refusal`. Who does not
//! wait any more says so with the same version byte and MessagePack of the request's `Ticket`; the answer is empty.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millpond::id::{Boot, NodeId, ShardId};
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::plan::ShardRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::reader::{Reader, Refusal};
use crate::links::{Answer, Fault, Links, Method};

const VERSION: u8 = 2;
/// How long the news that nobody waits is worth carrying.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// Which state of the shard is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PeerSource {
    /// Everything acknowledged before; the node must lead. Where `past` is given, it waits a while until the shard ends
    /// past that offset.
    Leader {
        /// The offset.
        past: Option<u64>,
    },
    /// What the node has applied, once that is everything before an offset.
    Applied {
        /// The offset.
        at_least: u64,
    },
}

/// Tells one request of a node from all its others: the life of its process, and a number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Ticket {
    /// The life.
    pub(super) boot: Boot,
    /// The number.
    pub(super) number: u64,
}

/// A shard is to be read on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerRequest {
    ticket: Ticket,
    shard: ShardId,
    source: PeerSource,
    /// How long the caller waits, in milliseconds.
    patience: u64,
    #[serde(with = "serde_bytes")]
    request: Vec<u8>,
}

fn encoded(value: &impl Serialize) -> Bytes {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write(&mut bytes, value).expect("plain data into memory");
    bytes.into()
}

fn decoded<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, QueryError> {
    let version = bytes.first().copied();
    let codec = |why: String| QueryError::Codec { what: what.to_owned(), version, why };
    if version != Some(VERSION) {
        return Err(codec(format!("this node reads version {VERSION}")));
    }
    rmp_serde::from_slice(&bytes[1..]).map_err(|error| codec(error.to_string()))
}

impl PeerRequest {
    pub(super) fn new(
        ticket: Ticket,
        shard: ShardId,
        source: PeerSource,
        patience: Duration,
        request: &ShardRequest,
    ) -> Self {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Self { ticket, shard, source, patience, request: request.encode() }
    }

    pub(super) fn encode(&self) -> Bytes {
        encoded(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        decoded("read of a shard", bytes)
    }
}

/// Tells the node that reads for us that nobody waits for it, unless its answer came first.
pub(super) struct Leaving<'a> {
    links: &'a Links,
    node: NodeId,
    ticket: Option<Ticket>,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(links: &'a Links, node: NodeId, ticket: Ticket) -> Self {
        Self { links, node, ticket: Some(ticket) }
    }

    /// The node has ended the read by itself.
    pub(super) fn ended(mut self) {
        self.ticket = None;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // The call is on its way; where it is lost the node stops at the end of our patience.
            drop(self.links.call(self.node, Method::Leave, encoded(&ticket), LEAVE_PATIENCE));
        }
    }
}

/// How each read is told that nobody waits for it any more.
type Reads = BTreeMap<(NodeId, Ticket), oneshot::Sender<()>>;

/// The reads that run here for other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    places: Arc<Semaphore>,
    reads: Arc<Mutex<Reads>>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(limits::PEER_SCANS_MAX)), reads: Arc::default() }
    }
}

impl Peers {
    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a shard for another node, beside whoever called.
    pub(super) fn serve(&self, reader: &Reader, from: NodeId, body: &[u8], answer: Answer) {
        let refuse = |answer: Answer, refusal: &Refusal| answer.send(Err(Fault::application(refusal.encode())));
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            refuse(answer, &Refusal::NotNow("its node reads for too many others".to_owned()));
            return;
        };
        let asked = match PeerRequest::decode(body) {
            Ok(asked) => asked,
            Err(error) => return refuse(answer, &failed(error)),
        };
        let read = (from, asked.ticket);
        let (leave, left) = oneshot::channel();
        self.reads().insert(read, leave);
        let (peers, reader) = (self.clone(), reader.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                outcome = self::read(&reader, &asked) => Some(outcome),
                _ = left => None,
            };
            peers.reads().remove(&read);
            match outcome {
                Some(Ok(bytes)) => answer.send(Ok(bytes)),
                Some(Err(refusal)) => refuse(answer, &refusal),
                // Nobody waits for an answer.
                None => drop(answer),
            }
            drop(place);
        });
    }

    /// Stops a read that another node does not wait for any more, if it still runs.
    pub(super) fn leave(&self, from: NodeId, body: &[u8]) {
        if let Ok(ticket) = decoded::<Ticket>("leave", body) {
            drop(self.reads().remove(&(from, ticket)));
        }
    }
}

fn failed(error: QueryError) -> Refusal {
    Refusal::Failed { error, end: 0 }
}

async fn read(reader: &Reader, asked: &PeerRequest) -> Result<Bytes, Refusal> {
    let request = Arc::new(ShardRequest::decode(&asked.request).map_err(failed)?);
    let patience = Duration::from_millis(asked.patience).min(limits::QUERY_DEADLINE);
    let reading = async {
        match asked.source {
            PeerSource::Leader { past } => reader.read_as_leader(asked.shard, &request, past).await,
            PeerSource::Applied { at_least } => reader.read_applied(asked.shard, &request, at_least).await,
        }
    };
    let partial = timeout(patience, reading).await.unwrap_or(Err(failed(QueryError::Deadline)))?;
    partial.encode().map(Bytes::from).map_err(failed)
}

#[cfg(test)]
mod tests {
    use millpond::query::plan::{OffsetQuery, Want};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let want = Want::Offsets(OffsetQuery { logs: None, from: Some(7), limit: 3 });
        let request = ShardRequest { tenant: None, want, hidden: Vec::new() };
        for source in [PeerSource::Leader { past: Some(9) }, PeerSource::Applied { at_least: 4 }] {
            let ticket = Ticket { boot: Boot(7), number: 1 };
            let sent = PeerRequest::new(ticket, ShardId(3), source, Duration::from_secs(2), &request);
            let came = PeerRequest::decode(&sent.encode()).unwrap();
            assert_eq!(came, sent);
            assert_eq!(ShardRequest::decode(&came.request).unwrap(), request);
        }
        assert!(PeerRequest::decode(&[1, 0]).unwrap_err().to_string().contains("version"));
    }

    #[test]
    fn a_refusal_keeps_its_error() {
        let error = QueryError::Damaged { shard: ShardId(1), range: None, what: "block 3".to_owned() };
        let refusal = Refusal::Failed { error, end: 12 };
        assert_eq!(Refusal::decode(&refusal.encode()), refusal);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = PeerRequest::decode(&bytes);
            let _ = Refusal::decode(&bytes);
            let _ = decoded::<Ticket>("leave", &bytes);
        }
    }
}
