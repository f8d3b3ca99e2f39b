//! What a copied snapshot left on a disk, held against what it says of its files.
//!
//! It looks at a copy of the disk, so that the run goes on as if nobody had looked.

use millpond::id::ShardId;
use millpond::storage::lossy::LossyDisk;
use millpond::storage::repair::{self, Assessment};
use millpond::storage::segment;

/// What is wrong with the files of a group that its newest snapshot names.
pub fn unlike_its_snapshot(disk: &LossyDisk, shard: &str) -> Option<String> {
    let shard = shard.strip_prefix("shard-").and_then(|number| number.parse().ok()).map_or(ShardId::METADATA, ShardId);
    let disk = disk.copied(&segment::folder(shard));
    let files = match repair::files(&disk, shard) {
        Ok(files) => files,
        Err(error) => return Some(format!("its snapshots cannot be read: {error}")),
    };
    files.segments.iter().find_map(|meta| match repair::assess(&disk, shard, (meta.from, meta.to)) {
        Ok(Assessment::Whole(_)) => None,
        Ok(Assessment::Unnamed | Assessment::Other(_)) => Some(format!("{} is another file", meta.name())),
        Ok(Assessment::Damaged(_, damage)) => Some(format!("{}: {}", damage.file, damage.why)),
        Err(error) => Some(format!("{} cannot be read: {error}", meta.name())),
    })
}
