//! The files of one shard together, seal after seal, against a model that is one list of what is registered.

use bytes::Bytes;
use proptest::prelude::*;

use super::lossy::LossyDisk;
use super::segment::{Segment, SegmentError, SegmentWriter, remove_unregistered};
use super::snapshot::{self, SnapshotError};
use crate::entry::{Position, SegmentMeta, ShardSnapshot};
use crate::id::{Index, Offset, ShardId, Term};
use crate::record::Summary;

const SHARD: ShardId = ShardId(3);

/// What may happen to the folder, by the numbers that a test draws.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A seal of so many records; the power goes after so many operations of the disk.
    Seal { records: u64, power: u64 },
    /// The process dies, or the machine.
    Stop { machine: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_u64, 1..120_u64).prop_map(|(records, power)| Step::Seal { records, power }),
        1 => any::<bool>().prop_map(|machine| Step::Stop { machine }),
    ]
}

#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// What a seal leads to: everything before, and one segment more.
fn sealed(before: &ShardSnapshot, meta: SegmentMeta) -> ShardSnapshot {
    let mut after = before.clone();
    after.position = Position { index: Index(before.position.index.0 + 1), term: Term(1) };
    after.next_offset = Offset(meta.to.0 + 1);
    after.time += 7;
    after.segments.push(meta);
    after.keys = vec![Bytes::from(after.position.index.0.to_le_bytes().to_vec())];
    after
}

/// A seal as the sealer and the snapshotter carry it out: the segment, the snapshot that names it, then the rest goes.
fn seal(disk: &LossyDisk, before: &ShardSnapshot, records: u64) -> Result<ShardSnapshot, Stopped> {
    let from = before.next_offset;
    let mut writer = SegmentWriter::create(disk, SHARD, from)?;
    for (at, offset) in (from.0..from.0 + records).enumerate().step_by(7) {
        let last = (offset + 6).min(from.0 + records - 1);
        let time = i64::try_from(at).unwrap();
        let summary = Summary {
            first_offset: offset,
            last_offset: last,
            rows: last - offset + 1,
            min_timestamp: time,
            max_timestamp: time,
            raw_bytes: 9,
        };
        writer.push(&offset.to_le_bytes().repeat(40), summary, &[])?;
    }
    let after = sealed(before, writer.finish(u128::from(records))?);
    snapshot::write(disk, &after, b"conf")?;
    snapshot::remove_older(disk, SHARD, after.position.index)?;
    Ok(after)
}

fn restore(disk: &LossyDisk) -> Result<ShardSnapshot, Stopped> {
    let latest = snapshot::latest(disk, SHARD)?;
    assert!(latest.damaged.is_empty(), "{:?}", latest.damaged);
    let snapshot = latest.newest.map_or_else(blank, |stored| stored.snapshot);
    remove_unregistered(disk, SHARD, &snapshot.segments)?;
    for meta in &snapshot.segments {
        Segment::open(disk, SHARD, meta)?.verify()?;
    }
    Ok(snapshot)
}

fn blank() -> ShardSnapshot {
    ShardSnapshot {
        shard: SHARD,
        position: Position::default(),
        first_offset: Offset(0),
        next_offset: Offset(0),
        time: 0,
        segments: Vec::new(),
        keys: Vec::new(),
        streams: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_folder_holds_what_was_registered_or_one_seal_more(seed: u64, steps in prop::collection::vec(step(), 1..12)) {
        let disk = LossyDisk::new(seed);
        let mut registered = blank();
        for step in steps {
            match step {
                Step::Seal { records, power } => {
                    disk.power_off_after(power);
                    if let Ok(after) = seal(&disk, &registered, records) {
                        registered = after;
                        continue;
                    }
                    disk.crash();
                }
                Step::Stop { machine: true } => disk.crash(),
                Step::Stop { machine: false } => disk.kill(),
            }
            let found = restore(&disk).unwrap();
            let more = found.segments.len() - registered.segments.len();
            prop_assert!(more <= 1, "{more} seals that nobody made");
            match found.segments.last().filter(|_| more == 1) {
                Some(last) => prop_assert_eq!(&found, &sealed(&registered, *last)),
                None => prop_assert_eq!(&found, &registered),
            }
            registered = found;
        }
    }
}
