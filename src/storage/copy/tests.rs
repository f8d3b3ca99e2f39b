use proptest::prelude::*;

use super::*;
use crate::entry::ShardSnapshot;
use crate::id::{Offset, Term};
use crate::label::Labels;
use crate::record::{Stream, Summary};
use crate::storage::lossy::LossyDisk;
use crate::storage::segment::{Segment, SegmentWriter, remove_unregistered};

const SHARD: ShardId = ShardId(3);

/// Seals ten records from offset `at * 10` on. Their digest is the same whatever the bytes.
pub(crate) fn seal(disk: &LossyDisk, shard: ShardId, at: u64, bytes: &[u8]) -> SegmentMeta {
    let mut writer = SegmentWriter::create(disk, shard, Offset(at * 10)).unwrap();
    let summary = Summary {
        first_offset: at * 10,
        last_offset: at * 10 + 9,
        rows: 10,
        min_timestamp: 0,
        max_timestamp: 1,
        raw_bytes: 100,
    };
    let stream = Stream { tenant: "acme".into(), labels: Labels::new([("app", "a")]) };
    writer.push(bytes, summary, &[stream]).unwrap();
    writer.finish(u128::from(at) + 1).unwrap()
}

/// Writes a snapshot through `index` that names these segments.
pub(crate) fn write_snapshot(disk: &LossyDisk, shard: ShardId, index: u64, segments: &[SegmentMeta]) {
    let snapshot = ShardSnapshot {
        shard,
        position: Position { index: Index(index), term: Term(2) },
        first_offset: Offset(0),
        next_offset: Offset(segments.len() as u64 * 10),
        time: 9,
        segments: segments.to_vec(),
        keys: vec![Bytes::from(vec![5; 3_000])],
        streams: Vec::new(),
    };
    snapshot::write(disk, &snapshot, b"conf").unwrap();
}

/// A disk with a snapshot through `index` that names so many segments, whose bytes depend on the flavour.
fn state(seed: u64, index: u64, segments: u64, flavour: u8) -> LossyDisk {
    let disk = LossyDisk::new(seed);
    let bytes = vec![flavour; 2_000 + usize::from(flavour)];
    let segments: Vec<SegmentMeta> = (0..segments).map(|at| seal(&disk, SHARD, at, &bytes)).collect();
    write_snapshot(&disk, SHARD, index, &segments);
    disk
}

fn bytes_of(disk: &LossyDisk, name: &str) -> Bytes {
    let path = format!("{}/{name}", folder(SHARD));
    let len = usize::try_from(disk.file_bytes(&path).unwrap()).unwrap();
    read_piece(disk, &path, 0, len).unwrap().unwrap()
}

/// Copies what the source tells of into files that are not finished, those that are `here` left out.
fn copy(
    from: &LossyDisk,
    to: &LossyDisk,
    here: &[SegmentMeta],
    own: &[SegmentMeta],
) -> Result<Incoming, SnapshotError> {
    let newest = newest(from, SHARD).unwrap().unwrap();
    let there = |meta: &&SegmentMeta| !here.iter().chain(own).any(|here| here.name() == meta.name());
    let segments = newest.segments.iter().filter(there).map(SegmentMeta::name);
    let copied: BTreeSet<String> = segments.chain([snapshot::name(newest.position.index)]).collect();
    for name in &copied {
        let bytes = bytes_of(from, name);
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        append(to, SHARD, name, bytes.len() as u64, 0, head)?;
        append(to, SHARD, name, bytes.len() as u64, head.len() as u64, tail)?;
        let measured = measure(to, SHARD, &format!("{name}{PART}"))?;
        assert_eq!(measured, measure(from, SHARD, name).unwrap());
    }
    let (position, segments) = (newest.position, newest.segments);
    Ok(Incoming { shard: SHARD, position, segments, copied, own: own.to_vec() })
}

/// The newest snapshot, whole, with every segment that it names.
fn readable(disk: &LossyDisk) -> Option<Index> {
    let latest = snapshot::latest(disk, SHARD).unwrap();
    assert!(latest.damaged.is_empty(), "{:?}", latest.damaged);
    let snapshot = latest.newest?.snapshot;
    for meta in &snapshot.segments {
        Segment::open(disk, SHARD, meta).and_then(|segment| segment.verify()).unwrap();
    }
    Some(snapshot.position.index)
}

#[test]
fn a_copy_is_byte_for_byte_what_the_source_has() {
    let (source, target) = (state(1, 40, 3, 1), LossyDisk::new(2));
    assert_eq!(newest(&target, SHARD).unwrap(), None);
    let incoming = copy(&source, &target, &[], &[]).unwrap();
    assert_eq!(readable(&target), None, "nothing has its name yet");
    let arrived = Arrived { position: incoming.position, conf: Bytes::from_static(b"conf") };
    assert_eq!(install(&target, &incoming).unwrap(), Installation::Done(arrived));
    target.crash();
    assert_eq!(readable(&target), Some(Index(40)));
    for name in &incoming.copied {
        assert_eq!(bytes_of(&target, name), bytes_of(&source, name));
    }
    assert_eq!(survey(&target, SHARD).unwrap().own, incoming.segments);
}

#[test]
fn a_copy_that_lacks_a_file_or_holds_another_snapshot_changes_nothing() {
    let (source, target) = (state(1, 40, 3, 1), state(2, 30, 2, 1));
    let incoming = copy(&source, &target, &[], &[]).unwrap();
    let before = survey(&target, SHARD).unwrap();
    let mut more = incoming.clone();
    more.segments.push(SegmentMeta { from: Offset(30), to: Offset(39), ..more.segments[0] });
    assert!(matches!(install(&target, &more).unwrap(), Installation::Lacking(_)));
    let mut fewer = incoming.clone();
    fewer.segments.pop();
    assert!(matches!(install(&target, &fewer).unwrap(), Installation::Unfit(_)));
    let mut newer = incoming.clone();
    newer.position.term = Term(3);
    assert!(matches!(install(&target, &newer).unwrap(), Installation::Unfit(_)));
    let part = format!("{}{PART}", snapshot::path(SHARD, Index(40)));
    target.flip_bit(&part, 0, 1);
    assert!(matches!(install(&target, &incoming).unwrap(), Installation::Unfit(_)));
    assert_eq!(survey(&target, SHARD).unwrap(), before);
    target.remove(&part).unwrap();
    assert!(matches!(install(&target, &incoming).unwrap(), Installation::Lacking(_)));
}

#[test]
fn an_own_segment_of_other_bytes_stays_and_is_named() {
    let (source, target) = (state(1, 40, 3, 1), state(2, 30, 2, 7));
    let own = survey(&target, SHARD).unwrap().own;
    let incoming = copy(&source, &target, &[], &own).unwrap();
    assert_eq!(incoming.copied.len(), 2);
    assert!(matches!(install(&target, &incoming).unwrap(), Installation::Done(_)));
    assert_eq!(readable(&target), Some(Index(40)));
    let now = survey(&target, SHARD).unwrap().own;
    assert_eq!(now, [own[0], own[1], incoming.segments[2]]);
    let stored = snapshot::read(&target, SHARD, Index(40)).unwrap();
    assert_eq!((stored.snapshot.keys.len(), stored.conf), (1, Bytes::from_static(b"conf")));
}

/// What a replica does that begins with the copied state and then writes a snapshot.
fn clean(disk: &dyn Disk, segments: &[SegmentMeta]) -> Result<(), Box<dyn std::error::Error>> {
    snapshot::remove_older(disk, SHARD, Index(40))?;
    Ok(remove_unregistered(disk, SHARD, segments)?)
}

#[test]
fn what_a_copy_made_useless_goes_and_the_new_state_stays() {
    let (source, target) = (state(1, 40, 3, 1), state(2, 30, 2, 1));
    let stray = seal(&target, SHARD, 8, b"stray");
    let here = newest(&source, SHARD).unwrap().unwrap().segments[..2].to_vec();
    let incoming = copy(&source, &target, &here, &[]).unwrap();
    append(&target, SHARD, "left", 6, 0, b"over").unwrap();
    assert!(matches!(install(&target, &incoming).unwrap(), Installation::Done(_)));
    let files = survey(&target, SHARD).unwrap().files;
    assert!(files.contains_key(&stray.name()) && !files.contains_key("left.part"), "{files:?}");
    clean(&target, &incoming.segments).unwrap();
    let named = incoming.segments.iter().map(SegmentMeta::name).chain([snapshot::name(Index(40))]);
    assert_eq!(survey(&target, SHARD).unwrap().files.into_keys().collect::<BTreeSet<_>>(), named.collect());
    assert_eq!(readable(&target), Some(Index(40)));
}

#[test]
fn a_piece_is_written_where_it_belongs_or_not_at_all() {
    let disk = LossyDisk::new(1);
    append(&disk, SHARD, "f", 6, 0, b"abcdef").unwrap();
    append(&disk, SHARD, "f", 6, 3, b"xy").unwrap();
    assert_eq!(bytes_of(&disk, "f.part"), "abcxy");
    assert!(append(&disk, SHARD, "f", 6, 6, b"z").is_err());
    assert!(append(&disk, SHARD, "g", 6, 1, b"z").is_err());
    append(&disk, SHARD, "f", 6, 0, b"new").unwrap();
    assert_eq!(bytes_of(&disk, "f.part"), "new");
    let path = format!("{}/f.part", folder(SHARD));
    assert_eq!(read_piece(&disk, &path, 2, 2).unwrap(), None);
    assert_eq!(read_piece(&disk, "nowhere", 0, 1).unwrap(), None);
    append(&disk, SHARD, "f.mend", 15, 0, b"of the scrubber").unwrap();
    discard(&disk, SHARD).unwrap();
    assert_eq!(measure(&disk, SHARD, "f.part").unwrap(), None);
    assert!(measure(&disk, SHARD, "f.mend.part").unwrap().is_some());
}

#[test]
fn a_copy_that_cannot_be_synced_is_forgotten() {
    let disk = LossyDisk::new(1);
    append(&disk, SHARD, "f", 6, 0, b"abcdef").unwrap();
    disk.fail_sync_after(0);
    assert!(measure(&disk, SHARD, "f.part").is_err());
    assert_eq!(measure(&disk, SHARD, "f.part").unwrap(), None);
}

#[test]
fn a_source_knows_whether_its_files_are_still_there() {
    let disk = state(1, 40, 3, 1);
    let newest = newest(&disk, SHARD).unwrap().unwrap();
    assert!(is_there(&disk, SHARD, Index(40), &newest.segments).unwrap());
    assert!(!is_there(&disk, SHARD, Index(41), &newest.segments).unwrap());
    disk.remove(&format!("{}/{}", folder(SHARD), newest.segments[1].name())).unwrap();
    assert!(!is_there(&disk, SHARD, Index(40), &newest.segments).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_crash_at_any_point_leaves_the_old_state_or_the_new_one(
        seed in any::<u64>(),
        after in 0_u64..32,
        old in 0..3_u64,
        flavour in 1..3_u8,
    ) {
        let source = state(1, 40, 3, 1);
        let target = state(seed, 30, old, flavour);
        let mine = survey(&target, SHARD).unwrap().own;
        let (here, own) = if flavour == 1 { (mine, Vec::new()) } else { (Vec::new(), mine) };
        target.power_off_after(after);
        let installed = copy(&source, &target, &here, &own).and_then(|incoming| install(&target, &incoming));
        target.crash();
        let found = readable(&target);
        match installed {
            Ok(Installation::Done(_)) => prop_assert_eq!(found, Some(Index(40))),
            Ok(Installation::Lacking(_) | Installation::Unfit(_)) => prop_assert!(false, "nothing was amiss"),
            Err(_) => prop_assert!(matches!(found, Some(Index(30 | 40)))),
        }
        // What the crash left is no obstacle to the next attempt.
        let incoming = copy(&source, &target, &here, &own).unwrap();
        prop_assert!(matches!(install(&target, &incoming).unwrap(), Installation::Done(_)));
        let named = snapshot::read(&target, SHARD, Index(40)).unwrap().snapshot.segments;
        target.power_off_after(after % 8);
        let _ = clean(&target, &named);
        target.crash();
        prop_assert_eq!(readable(&target), Some(Index(40)));
    }
}
