//! What a backup uploads, and what it finds in the store already.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Manifest, SegmentEntry};
use crate::entry::SegmentMeta;
use crate::id::{Offset, ShardId};
use crate::limits::BACKUP_REUSE_AGE;

/// An object of `segments/` as the store lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its length.
    pub bytes: u64,
    /// How long ago it was written.
    pub age: Duration,
}

/// What is in the store when a backup begins.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Segments of the newest backup of the same cluster, by shard, offsets and digest of their records.
    records: BTreeMap<(ShardId, u64, u64, u128), SegmentEntry>,
    named: BTreeSet<String>,
    files: BTreeMap<String, Listed>,
}

/// What is to be done about one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its records are in the store, in this object.
    Reuse(SegmentEntry),
    /// It must be uploaded.
    Upload(SegmentEntry),
}

impl Known {
    /// What the newest manifest of the cluster names, and what is listed under `segments/`.
    #[must_use]
    pub fn new(newest: Option<&Manifest>, files: BTreeMap<String, Listed>) -> Self {
        let segments = || newest.into_iter().flat_map(Manifest::segments);
        let key = |shard, segment: &SegmentEntry| (shard, segment.from, segment.to, segment.digest);
        Self {
            records: segments().map(|(shard, segment)| (key(shard, segment), *segment)).collect(),
            named: segments().map(|(_, segment)| segment.object()).collect(),
            files,
        }
    }

    fn has(&self, segment: &SegmentEntry) -> bool {
        let object = segment.object();
        let safe = |file: &&Listed| self.named.contains(&object) || file.age < BACKUP_REUSE_AGE;
        self.files.get(&object).filter(safe).is_some_and(|file| file.bytes == segment.bytes)
    }
}

/// The segments of a snapshot that retention has left, where all below an offset is gone: the files of the others stay only
/// until the next snapshot, and a backup that took them would bring their records back.
#[must_use]
pub fn left(mut segments: Vec<SegmentMeta>, first: Offset) -> Vec<SegmentMeta> {
    segments.retain(|segment| segment.to >= first);
    segments
}

/// What is to be done about each segment of a shard's snapshot, in their order. A new leader may have encoded the same
/// records to other bytes than the one before: what holds the same records is not uploaded again.
#[must_use]
pub fn plan(shard: ShardId, snapshot: &[SegmentMeta], known: &Known) -> Vec<Step> {
    let step = |meta: &SegmentMeta| {
        let own = SegmentEntry::from(meta);
        let earlier = known.records.get(&(shard, own.from, own.to, own.digest)).copied();
        let reused = earlier.into_iter().chain([own]).find(|segment| known.has(segment));
        reused.map_or(Step::Upload(own), Step::Reuse)
    };
    snapshot.iter().map(step).collect()
}
