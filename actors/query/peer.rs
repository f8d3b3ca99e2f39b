//! What nodes ask each other about a shard, and the answering side of it.
//!
//! On the wire a request is one version byte, now 1, and MessagePack of `PeerRequest`, structures as arrays; the answer
//! is a partial answer as `millpond::query` encodes it, or a fault whose detail is MessagePack of a `Refusal`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::id::ShardId;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::plan::ShardRequest;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reader::{Reader, Refusal};
use crate::links::{Answer, Fault};

const VERSION: u8 = 1;

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

/// A shard is to be read on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerRequest {
    shard: ShardId,
    source: PeerSource,
    /// How long the caller waits, in milliseconds.
    patience: u64,
    #[serde(with = "serde_bytes")]
    request: Vec<u8>,
}

impl PeerRequest {
    pub(super) fn new(shard: ShardId, source: PeerSource, patience: Duration, request: &ShardRequest) -> Self {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Self { shard, source, patience, request: request.encode() }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, self).expect("plain data into memory");
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        let version = bytes.first().copied();
        let codec = |why: String| QueryError::Codec { what: "read of a shard".to_owned(), version, why };
        if version != Some(VERSION) {
            return Err(codec(format!("this node reads version {VERSION}")));
        }
        rmp_serde::from_slice(&bytes[1..]).map_err(|error| codec(error.to_string()))
    }
}

/// Reads a shard for another node, beside whoever called.
pub(super) fn serve(reader: &Reader, places: Arc<Semaphore>, body: Bytes, answer: Answer) {
    let refuse = |answer: Answer, refusal: &Refusal| answer.send(Err(Fault::application(refusal.encode())));
    let Ok(place) = places.try_acquire_owned() else {
        refuse(answer, &Refusal::NotNow("its node reads for too many others".to_owned()));
        return;
    };
    let reader = reader.clone();
    tokio::spawn(async move {
        match read(&reader, &body).await {
            Ok(bytes) => answer.send(Ok(bytes)),
            Err(refusal) => refuse(answer, &refusal),
        }
        drop(place);
    });
}

async fn read(reader: &Reader, body: &[u8]) -> Result<Bytes, Refusal> {
    let failed = |error| Refusal::Failed { error, end: 0 };
    let asked = PeerRequest::decode(body).map_err(failed)?;
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
            let sent = PeerRequest::new(ShardId(3), source, Duration::from_secs(2), &request);
            let came = PeerRequest::decode(&sent.encode()).unwrap();
            assert_eq!(came, sent);
            assert_eq!(ShardRequest::decode(&came.request).unwrap(), request);
        }
        assert!(PeerRequest::decode(&[2, 0]).unwrap_err().to_string().contains("version"));
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
        }
    }
}
