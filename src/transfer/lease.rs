//! What a source keeps for those who copy from it: the files of a snapshot, while they are asked for. It does not know
//! who removes files, nor why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::wire::File;
use crate::entry::{SegmentMeta, segment_offsets};
use crate::id::{Index, NodeId, Offset, ShardId};
use crate::limits::{TRANSFER_LEASE, TRANSFER_LEASE_LEFT, TRANSFER_LEASES_MAX};
use crate::storage::segment::folder;
use crate::storage::snapshot;

/// What a copy is made for. A node may copy the same shard for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A replica of the node that copies.
    Replica,
    /// A backup that the node makes.
    Backup,
}

#[derive(Clone, Debug)]
struct Lease {
    holder: NodeId,
    purpose: Purpose,
    shard: ShardId,
    index: Index,
    segments: BTreeSet<(Offset, Offset)>,
    until: Duration,
}

/// The leases of one node, in memory: a node that restarts has given none.
///
/// Invariant: at most `TRANSFER_LEASES_MAX`, and at most one for each holder, purpose and shard.
#[derive(Clone, Debug)]
pub struct Leases {
    leases: BTreeMap<u64, Lease>,
    given: u64,
}

impl Leases {
    /// None yet. Numbers begin above `first`: where each life of a node begins above all numbers of the one before, a
    /// lease of an ended life is not taken for another.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { leases: BTreeMap::new(), given: first }
    }

    /// Gives a node a lease of a snapshot and the segments that it names, in the place of the one it had for the shard
    /// and purpose; none where too many are given. `now` is the time since any fixed start.
    pub fn give(
        &mut self,
        now: Duration,
        holder: NodeId,
        purpose: Purpose,
        shard: ShardId,
        index: Index,
        segments: &[SegmentMeta],
    ) -> Option<u64> {
        let replaced = |lease: &Lease| (lease.holder, lease.purpose, lease.shard) == (holder, purpose, shard);
        self.leases.retain(|_, lease| lease.until > now && !replaced(lease));
        if self.leases.len() >= TRANSFER_LEASES_MAX {
            return None;
        }
        self.given = self.given.wrapping_add(1);
        let segments = segments.iter().map(|meta| (meta.from, meta.to)).collect();
        self.leases.insert(self.given, Lease { holder, purpose, shard, index, segments, until: now + TRANSFER_LEASE });
        Some(self.given)
    }

    /// The path of a leased file; the lease lives on from here. None where it is not this node's lease of that file.
    pub fn used(&mut self, now: Duration, holder: NodeId, number: u64, shard: ShardId, file: File) -> Option<String> {
        let lease = self.leases.get_mut(&number)?;
        if lease.until <= now || (lease.holder, lease.shard) != (holder, shard) {
            return None;
        }
        let leased = match file {
            File::Snapshot => true,
            File::Segment { from, to } => lease.segments.contains(&(from, to)),
        };
        lease.until = now + TRANSFER_LEASE;
        leased.then(|| format!("{}/{}", folder(shard), file.name(lease.index)))
    }

    /// The replica of a shard has left the node: what was leased of it is held for those alone who go on asking.
    pub fn left(&mut self, now: Duration, shard: ShardId) {
        let idle = TRANSFER_LEASE - TRANSFER_LEASE_LEFT;
        self.leases.retain(|_, lease| lease.shard != shard || lease.until > now + idle);
    }

    /// Whether a file, by its path in the data folder, must stay.
    #[must_use]
    pub fn hold(&self, now: Duration, path: &str) -> bool {
        let Some((within, name)) = path.rsplit_once('/') else { return false };
        let mut living = self.leases.values().filter(|lease| lease.until > now && folder(lease.shard) == within);
        let segment = segment_offsets(name);
        living.any(|lease| {
            segment.is_some_and(|segment| lease.segments.contains(&segment)) || snapshot::name(lease.index) == name
        })
    }

    /// How many live.
    #[must_use]
    pub fn living(&self, now: Duration) -> usize {
        self.leases.values().filter(|lease| lease.until > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(4);
    const NODE: NodeId = NodeId(2);

    fn meta(from: u64, to: u64) -> SegmentMeta {
        SegmentMeta {
            from: Offset(from),
            to: Offset(to),
            bytes: 1,
            hash: 1,
            digest: 1,
            min_timestamp: 0,
            max_timestamp: 0,
            raw_bytes: 0,
        }
    }

    fn path_of(meta: &SegmentMeta) -> String {
        format!("{}/{}", folder(SHARD), meta.name())
    }

    #[test]
    fn a_lease_holds_its_files_and_no_others_until_it_was_not_used_for_long() {
        let mut leases = Leases::new(7);
        let (one, other) = (meta(0, 9), meta(10, 19));
        let mut now = Duration::from_secs(3);
        let lease = leases.give(now, NODE, Purpose::Replica, SHARD, Index(5), &[one]).unwrap();
        let file = File::Segment { from: one.from, to: one.to };
        for _ in 0..5 {
            now += TRANSFER_LEASE / 2;
            assert_eq!(leases.used(now, NODE, lease, SHARD, file), Some(path_of(&one)));
        }
        assert!(leases.hold(now, &path_of(&one)) && leases.hold(now, &snapshot::path(SHARD, Index(5))));
        assert!(!leases.hold(now, &path_of(&other)) && !leases.hold(now, &snapshot::path(SHARD, Index(4))));
        let elsewhere = [snapshot::path(ShardId(5), Index(5)), one.name(), format!("{}.tmp", path_of(&one))];
        assert!(elsewhere.iter().all(|path| !leases.hold(now, path)));
        now += TRANSFER_LEASE;
        assert!(!leases.hold(now, &path_of(&one)));
        assert_eq!(leases.used(now, NODE, lease, SHARD, file), None, "it ended");
    }

    #[test]
    fn a_lease_serves_its_holder_its_shard_and_its_files_alone() {
        let mut leases = Leases::new(0);
        let now = Duration::ZERO;
        let lease = leases.give(now, NODE, Purpose::Replica, SHARD, Index(5), &[meta(0, 9)]).unwrap();
        let path = snapshot::path(SHARD, Index(5));
        assert_eq!(leases.used(now, NODE, lease, SHARD, File::Snapshot), Some(path));
        assert_eq!(leases.used(now, NodeId(3), lease, SHARD, File::Snapshot), None);
        assert_eq!(leases.used(now, NODE, lease, ShardId(5), File::Snapshot), None);
        assert_eq!(leases.used(now, NODE, lease + 1, SHARD, File::Snapshot), None);
        let unnamed = File::Segment { from: Offset(0), to: Offset(8) };
        assert_eq!(leases.used(now, NODE, lease, SHARD, unnamed), None);
    }

    #[test]
    fn a_new_lease_of_a_node_replaces_the_old_one_and_their_number_is_bounded() {
        let mut leases = Leases::new(0);
        let now = Duration::ZERO;
        let first = leases.give(now, NODE, Purpose::Replica, SHARD, Index(5), &[]).unwrap();
        let second = leases.give(now, NODE, Purpose::Replica, SHARD, Index(6), &[]).unwrap();
        assert!(first != second && leases.living(now) == 1);
        assert!(!leases.hold(now, &snapshot::path(SHARD, Index(5))));
        let backup = leases.give(now, NODE, Purpose::Backup, SHARD, Index(7), &[]).unwrap();
        let path = snapshot::path(SHARD, Index(6));
        assert_eq!(leases.used(now, NODE, second, SHARD, File::Snapshot), Some(path), "a backup takes nothing away");
        assert!(leases.used(now, NODE, backup, SHARD, File::Snapshot).is_some());
        for shard in 0..TRANSFER_LEASES_MAX as u32 - 2 {
            leases.give(now, NodeId(9), Purpose::Replica, ShardId(shard), Index(1), &[]).unwrap();
        }
        assert_eq!(leases.give(now, NodeId(10), Purpose::Replica, SHARD, Index(1), &[]), None);
        assert!(
            leases.give(now + TRANSFER_LEASE, NodeId(10), Purpose::Replica, SHARD, Index(1), &[]).is_some(),
            "the old ones ended"
        );
        assert_eq!(leases.living(now + TRANSFER_LEASE), 1);
    }

    #[test]
    fn of_a_replica_that_has_left_only_those_who_go_on_asking_keep_their_lease() {
        let mut leases = Leases::new(0);
        let start = Duration::from_secs(1);
        let idle = leases.give(start, NODE, Purpose::Replica, SHARD, Index(5), &[]).unwrap();
        let asks = leases.give(start, NodeId(3), Purpose::Replica, SHARD, Index(5), &[]).unwrap();
        leases.give(start, NODE, Purpose::Replica, ShardId(9), Index(1), &[]).unwrap();
        leases.left(start, SHARD);
        assert_eq!(leases.living(start), 3, "it may only have begun");
        let now = start + TRANSFER_LEASE_LEFT;
        leases.used(now, NodeId(3), asks, SHARD, File::Snapshot).unwrap();
        leases.left(now, SHARD);
        assert_eq!(leases.used(now, NODE, idle, SHARD, File::Snapshot), None);
        assert!(leases.used(now, NodeId(3), asks, SHARD, File::Snapshot).is_some());
        assert!(leases.hold(now, &snapshot::path(ShardId(9), Index(1))), "another shard's");
    }

    #[test]
    fn a_name_of_a_segment_is_that_of_its_manifest() {
        let meta = meta(12, 345);
        assert_eq!(File::Segment { from: meta.from, to: meta.to }.name(Index(1)), meta.name());
        assert_eq!(segment_offsets(&meta.name()), Some((meta.from, meta.to)));
    }
}
