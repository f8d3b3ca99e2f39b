//! What a node says of its backups: `GET /api/v1/backup`, and what asks for one.

use millpond::backup::RetentionEntry;
use serde::{Deserialize, Serialize};

/// Asks a node to back the cluster up: the body of `POST /api/v1/backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// Where to: `file:///FOLDER` on the node, or `s3://BUCKET/PREFIX`.
    pub url: String,
}

/// The answer to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupBegun {
    /// The backup that began.
    pub id: String,
}

/// What a node knows of backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The cluster, in hexadecimal; none before it is formed.
    pub cluster: Option<String>,
    /// Where the schedule puts backups; none without one.
    pub schedule: Option<String>,
    /// The one that this node makes.
    pub running: Option<RunReport>,
    /// The last that this node made.
    pub last: Option<EndReport>,
    /// When the newest backup began that this node knows of, in seconds since the Unix epoch.
    pub last_success: Option<i64>,
    /// How long this node's configuration keeps records; a version that does not say so leaves it out.
    #[serde(default)]
    pub retention: Option<RetentionEntry>,
}

/// A backup that is being made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Its id.
    pub id: String,
    /// Where to.
    pub url: String,
    /// What is done and what there is to do.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A backup that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReport {
    /// Its id.
    pub id: String,
    /// Where to.
    pub url: String,
    /// What was done.
    #[serde(flatten)]
    pub counts: Counts,
    /// Why there is no backup.
    pub error: Option<String>,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Shards of the cluster.
    pub shards: u64,
    /// Shards that are done.
    pub shards_done: u64,
    /// Segments found so far.
    pub segments: u64,
    /// Of them those that were uploaded.
    pub segments_uploaded: u64,
    /// Of them those that were in the store already.
    pub segments_reused: u64,
    /// Of them those that did not read at their leader as it names them, and were read from another replica.
    #[serde(default)]
    pub segments_elsewhere: u64,
    /// Bytes of all segments found so far.
    pub bytes: u64,
    /// Bytes that were uploaded.
    pub bytes_uploaded: u64,
    /// Bytes that were in the store already.
    pub bytes_reused: u64,
}
