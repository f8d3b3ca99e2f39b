//! The manifest of a backup: `backups/<id>.json`, two lines of JSON.
//!
//! ```text
//! {"millpond_backup": 2, "bytes": LENGTH, "xxh3_128": "SUM"}      of the second line, its end of line left out
//! {
//!   "id":       the name of the object without its ending: time in UTC, a hyphen, eight hexadecimal digits
//!   "cluster":  32 hexadecimal digits          "name": the cluster's name, for people
//!   "version":  of the millpond that wrote it  "node": the node that did
//!   "began", "ended": nanoseconds since the Unix epoch
//!   "retention": {        how long the cluster kept records, by the file of the node that wrote this
//!     "age", "bytes":     as the cluster file writes them, or null
//!     "rules": [{ "selector", "age", "tenant" (or null) }, ...]
//!   }
//!   "shards": [{
//!     "shard": its number   "index", "term": the last entry in the snapshot
//!     "segments": [{
//!       "from", "to":         offsets of the first and the last record
//!       "bytes", "hash":      of the object; the hash xxh3-128, 32 hexadecimal digits
//!       "digest":             sum of the digests of the records, 32 hexadecimal digits
//!       "earliest", "latest": timestamps in nanoseconds since the Unix epoch
//!       "raw_bytes":          bytes of lines and metadata as users sent them
//!     }, ... in order of offsets]
//!   }, ... by number]
//! }
//! ```
//!
//! Every shard of the cluster is in it, also one without a segment. Version 1 has no retention; it is not written any
//! more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::BackupError;
use crate::entry::{Position, SegmentMeta};
use crate::id::{ClusterId, Index, Offset, ShardId, Term};
use crate::limits::{BACKUP_MANIFEST_BYTES_MAX, SHARDS_MAX};

const VERSION: u64 = 2;
/// Without the retention.
const VERSION_1: u64 = 1;

/// A whole backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name; ids sort by the time at which backups began.
    pub id: String,
    /// The cluster that was backed up.
    #[serde(with = "hex")]
    pub cluster: u128,
    /// That cluster's name.
    pub name: String,
    /// The version of millpond that wrote it.
    pub version: String,
    /// The node that wrote it.
    pub node: u64,
    /// When it began: everything acknowledged before is in it. Nanoseconds since the Unix epoch.
    pub began: i64,
    /// When its last segment was there.
    pub ended: i64,
    /// How long the cluster kept records; `None` where a version wrote it that did not say so.
    #[serde(default)]
    pub retention: Option<RetentionEntry>,
    /// Every shard, by number.
    pub shards: Vec<ShardEntry>,
}

/// How long a cluster keeps records, each value as the cluster file writes it. By default for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionEntry {
    /// Older records go.
    pub age: Option<String>,
    /// The oldest records go past so many sealed bytes.
    pub bytes: Option<String>,
    /// Streams whose records are hidden sooner.
    #[serde(default)]
    pub rules: Vec<RuleEntry>,
}

/// How long the records of some streams are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleEntry {
    /// Which streams, in LogQL.
    pub selector: String,
    /// How old a record may be that is shown.
    pub age: String,
    /// Whose streams; everyone's where it is not said.
    pub tenant: Option<String>,
}

/// One shard of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Which.
    pub shard: u32,
    /// The last entry in its snapshot; zero for a shard that has none.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Its segments, in order of offsets.
    pub segments: Vec<SegmentEntry>,
}

/// One segment of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// The offset of its first record.
    pub from: u64,
    /// The offset of its last record.
    pub to: u64,
    /// Length of the object.
    pub bytes: u64,
    /// xxh3-128 of the object.
    #[serde(with = "hex")]
    pub hash: u128,
    /// Sum of the digests of its records: the same whatever bytes they are encoded to.
    #[serde(with = "hex")]
    pub digest: u128,
    /// The earliest timestamp, in nanoseconds since the Unix epoch.
    pub earliest: i64,
    /// The latest.
    pub latest: i64,
    /// Bytes of lines and metadata.
    pub raw_bytes: u64,
}

impl From<&SegmentMeta> for SegmentEntry {
    fn from(meta: &SegmentMeta) -> Self {
        Self {
            from: meta.from.0,
            to: meta.to.0,
            bytes: meta.bytes,
            hash: meta.hash,
            digest: meta.digest,
            earliest: meta.min_timestamp,
            latest: meta.max_timestamp,
            raw_bytes: meta.raw_bytes,
        }
    }
}

impl SegmentEntry {
    /// The object that holds it, by its name below `segments/`.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{:032x}-{}", self.hash, self.bytes)
    }

    /// As the manifest of a snapshot has it.
    #[must_use]
    pub const fn meta(&self) -> SegmentMeta {
        SegmentMeta {
            from: Offset(self.from),
            to: Offset(self.to),
            bytes: self.bytes,
            hash: self.hash,
            digest: self.digest,
            min_timestamp: self.earliest,
            max_timestamp: self.latest,
            raw_bytes: self.raw_bytes,
        }
    }
}

impl ShardEntry {
    /// A shard as of the last entry of its snapshot.
    #[must_use]
    pub const fn new(shard: ShardId, position: Position, segments: Vec<SegmentEntry>) -> Self {
        let (Index(index), Term(term)) = (position.index, position.term);
        Self { shard: shard.0, index, term, segments }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    millpond_backup: u64,
    bytes: u64,
    #[serde(with = "hex")]
    xxh3_128: u128,
}

impl Manifest {
    /// Its bytes.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = serde_json::to_vec(self).expect("plain data has a form in JSON");
        let head = Head { millpond_backup: VERSION, bytes: body.len() as u64, xxh3_128: xxh3_128(&body) };
        let mut bytes = serde_json::to_vec(&head).expect("plain data has a form in JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        bytes.into()
    }

    /// Reads the manifest that an object holds.
    ///
    /// # Errors
    /// It is damaged, of another version, or no manifest can be like this.
    pub fn decode(id: &str, bytes: &[u8]) -> Result<Self, BackupError> {
        let name = || format!("backups/{id}.json");
        let damaged = |what: &str| BackupError::Damaged { name: name(), what: what.to_owned() };
        if bytes.len() > BACKUP_MANIFEST_BYTES_MAX {
            return Err(damaged("it is longer than a manifest may be"));
        }
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (head, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let head: Head = serde_json::from_slice(head).map_err(|_| damaged("its first line is no head"))?;
        if ![VERSION, VERSION_1].contains(&head.millpond_backup) {
            return Err(BackupError::Version { name: name(), found: head.millpond_backup, known: VERSION });
        }
        let body = body.strip_suffix(b"\n").ok_or_else(|| damaged("it is cut"))?;
        if head.bytes != body.len() as u64 || head.xxh3_128 != xxh3_128(body) {
            return Err(damaged("its checksum does not match"));
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
        manifest.check(id).map_err(damaged)?;
        Ok(manifest)
    }

    fn check(&self, id: &str) -> Result<(), &'static str> {
        let mut before = None;
        for shard in &self.shards {
            if shard.shard >= SHARDS_MAX || before.is_some_and(|before| before >= shard.shard) {
                return Err("its shards are not in order");
            }
            before = Some(shard.shard);
            let apart = shard.segments.windows(2).all(|pair| pair[0].to < pair[1].from);
            if !apart || shard.segments.iter().any(|segment| segment.from > segment.to || segment.bytes == 0) {
                return Err("its segments are not in order");
            }
        }
        if self.id == id && is_backup_id(id) { Ok(()) } else { Err("it is that of another backup") }
    }

    /// The cluster that was backed up.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster)
    }

    /// Every segment, with its shard.
    pub fn segments(&self) -> impl Iterator<Item = (ShardId, &SegmentEntry)> {
        self.shards.iter().flat_map(|shard| shard.segments.iter().map(|segment| (ShardId(shard.shard), segment)))
    }

    /// Bytes of all objects that it names.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments().map(|(_, segment)| segment.bytes).sum()
    }

    /// Records in all segments.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments().map(|(_, segment)| (segment.to - segment.from).saturating_add(1)).sum()
    }
}

/// The id of a backup that begins at a time, in RFC 3339 and UTC; `draw` tells two of the same second apart.
#[must_use]
pub fn backup_id(rfc3339: &str, draw: u32) -> String {
    let digits: String = rfc3339.chars().take(19).filter(|letter| letter.is_ascii_digit() || *letter == 'T').collect();
    format!("{digits}Z-{draw:08x}")
}

/// Whether a text can be the id of a backup.
#[must_use]
pub fn is_backup_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The id of the backup whose manifest has this name below `backups/` or `retired/`; none where it is no manifest's.
#[must_use]
pub fn manifest_id(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|id| is_backup_id(id))
}

/// 128 bits as 32 hexadecimal digits.
pub(super) mod hex {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(in crate::backup) fn serialize<S: Serializer>(number: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:032x}"))
    }

    pub(in crate::backup) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| plain);
        number.ok_or_else(|| D::Error::custom("expected 32 hexadecimal digits"))
    }
}
