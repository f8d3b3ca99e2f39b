//! How far a restore has come: `restores/<backup>-<cluster>.json`, one JSON object, put before the first record is stored
//! and again as segments are done.
//!
//! It is what tells a restore that goes on from one into a cluster that others use, and what spares it the segments that
//! are done. What was sent after it was put last is sent again, under the same keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::BackupError;
use super::manifest::hex;
use crate::id::ClusterId;
use crate::limits::KEY_LIFE;

const VERSION: u64 = 1;

/// The progress of one restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreProgress {
    /// The version of this form.
    pub millpond_restore: u64,
    /// The backup.
    pub backup: String,
    /// The cluster that it is restored into.
    #[serde(with = "hex")]
    pub cluster: u128,
    /// When this was put, in nanoseconds since the Unix epoch.
    pub updated: i64,
    /// How many segments of each shard of the backup, in order of offsets, are stored whole.
    pub done: BTreeMap<u32, usize>,
    /// Whether all are.
    pub finished: bool,
}

impl RestoreProgress {
    /// Nothing is stored yet.
    #[must_use]
    pub fn new(backup: &str, cluster: ClusterId, now: i64) -> Self {
        let (backup, done) = (backup.to_owned(), BTreeMap::new());
        Self { millpond_restore: VERSION, backup, cluster: cluster.0, updated: now, done, finished: false }
    }

    /// The name of its object below `restores/`.
    #[must_use]
    pub fn object(backup: &str, cluster: ClusterId) -> String {
        format!("{backup}-{cluster}.json")
    }

    /// Its bytes.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("plain data has a form in JSON").into()
    }

    /// Reads the progress of the restore of a backup into a cluster.
    ///
    /// # Errors
    /// It is no such progress.
    pub fn decode(backup: &str, cluster: ClusterId, bytes: &[u8]) -> Result<Self, BackupError> {
        let name = format!("restores/{}", Self::object(backup, cluster));
        let progress: Self = serde_json::from_slice(bytes)
            .map_err(|error| BackupError::Damaged { name: name.clone(), what: error.to_string() })?;
        if progress.millpond_restore != VERSION {
            return Err(BackupError::Version { name, found: progress.millpond_restore, known: VERSION });
        }
        if progress.backup != backup || progress.cluster != cluster.0 {
            return Err(BackupError::Damaged { name, what: "it is that of another restore".to_owned() });
        }
        Ok(progress)
    }

    /// Whether it can be gone on with: the cluster still knows the keys of what was sent after this was put.
    #[must_use]
    pub fn is_fresh(&self, now: i64) -> bool {
        let life = i64::try_from(KEY_LIFE.as_nanos() / 2).unwrap_or(i64::MAX);
        now.saturating_sub(self.updated) < life
    }
}
