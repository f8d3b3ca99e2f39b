//! The reading side of the native API: which shards there are, who leads them, and their records by offset. The demo, the
//! benchmarks and the black-box tests judge a cluster by it.
//!
//! It does not know what the records should be.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use thiserror::Error;

use crate::load::{Client, LoadError};

/// Records that one page asks for. A node reads whole blocks for a page, so that many small pages cost it dearly.
pub const PAGE_RECORDS: u64 = 20_000;

/// What can go wrong when a cluster is looked at.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// No answer.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An answer that is not a success.
    #[error("{url}: {status}: {text}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the node says.
        text: String,
    },
    /// An answer that is not what the API promises.
    #[error("{url}: not the answer expected: {source}")]
    Decode {
        /// What was asked.
        url: String,
        /// Why not.
        source: serde_json::Error,
    },
}

/// One replica as a node sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct ReplicaView {
    /// The node it lives on.
    pub node: u64,
    /// `leader`, `follower`, `learner`, `down`.
    #[serde(default)]
    pub role: String,
}

/// One shard as a node sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct ShardView {
    /// Its number.
    pub shard: u32,
    /// Where it lives.
    #[serde(default)]
    pub replicas: Vec<ReplicaView>,
    /// The node that leads it, if one does.
    pub leader: Option<u64>,
    /// That node's address.
    #[serde(default)]
    pub leader_url: Option<String>,
    /// The offset that the next record gets, on the node asked.
    #[serde(default)]
    pub next_offset: u64,
}

/// One record as it is read back; it borrows from its page.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RecordView<'a> {
    /// Its position in the shard.
    pub offset: u64,
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The labels of its stream.
    #[serde(borrow)]
    pub labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The line.
    #[serde(borrow)]
    pub line: Cow<'a, str>,
    /// Fields beside the line.
    #[serde(borrow, default)]
    pub metadata: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// Whose copy is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The leader's, wherever it is.
    Leader,
    /// That of the node asked.
    Local,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Local => "local",
        }
    }
}

async fn get(client: &Client, url: &str) -> Result<Bytes, ObserveError> {
    let answer = client.get(url).await?;
    if !answer.status.is_success() {
        return Err(ObserveError::Status { url: url.to_owned(), status: answer.status, text: answer.text() });
    }
    Ok(answer.body)
}

/// The shards, sorted by number, as `node` sees them.
///
/// # Errors
/// Where the node does not answer as it should.
pub async fn shards(client: &Client, node: &str) -> Result<Vec<ShardView>, ObserveError> {
    let url = format!("{node}/api/v1/shards");
    let body = get(client, &url).await?;
    let mut shards: Vec<ShardView> =
        serde_json::from_slice(&body).map_err(|source| ObserveError::Decode { url, source })?;
    shards.sort_by_key(|shard| shard.shard);
    Ok(shards)
}

/// Whether the node serves its shards.
pub async fn is_ready(client: &Client, node: &str) -> bool {
    client.get(&format!("{node}/ready")).await.is_ok_and(|answer| answer.status.is_success())
}

/// Reads every record of a shard from `from` on, page by page and in order of offset, and hands each to `see`. Returns the
/// offset after the last.
///
/// # Errors
/// Where the node does not answer as it should.
pub async fn read_shard(
    client: &Client,
    node: &str,
    shard: u32,
    from: u64,
    source: Source,
    mut see: impl FnMut(RecordView<'_>),
) -> Result<u64, ObserveError> {
    let mut next = from;
    loop {
        let source = source.as_str();
        let url = format!("{node}/api/v1/shards/{shard}/records?from={next}&limit={PAGE_RECORDS}&source={source}");
        let page = get(client, &url).await?;
        let began = next;
        for line in page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: RecordView<'_> =
                serde_json::from_slice(line).map_err(|source| ObserveError::Decode { url: url.clone(), source })?;
            next = next.max(record.offset + 1);
            see(record);
        }
        if next == began {
            return Ok(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_and_without_escapes() {
        let text = r#"{"offset":4,"timestamp":7,"labels":{"a":"b"},"line":"say \"x\"","metadata":{"n":"1"}}"#;
        let record: RecordView<'_> = serde_json::from_str(text).unwrap();
        assert_eq!((record.offset, record.timestamp, &*record.line), (4, 7, r#"say "x""#));
        assert_eq!(record.labels.get("a").map(|value| &**value), Some("b"));
        assert_eq!(record.metadata.get("n").map(|value| &**value), Some("1"));
    }

    #[test]
    fn a_shard_without_a_leader_is_shown_so() {
        let view: ShardView = serde_json::from_str(r#"{"shard":3,"leader":null}"#).unwrap();
        assert_eq!((view.shard, view.leader, view.next_offset), (3, None, 0));
    }
}
