use proptest::prelude::*;

use super::*;
use crate::storage::copy::tests::{seal, write_snapshot};
use crate::storage::lossy::LossyDisk;

const SHARD: ShardId = ShardId(3);
const INDEX: u64 = 40;

fn content(at: u64, flavour: u8) -> Vec<u8> {
    vec![flavour; 1_500 + 10 * usize::from(flavour) + usize::try_from(at).unwrap()]
}

/// A replica with a snapshot that names three segments, whose bytes depend on the flavour.
fn replica(seed: u64, flavour: u8) -> (LossyDisk, Vec<SegmentMeta>) {
    let disk = LossyDisk::new(seed);
    let segments: Vec<SegmentMeta> = (0..3).map(|at| seal(&disk, SHARD, at, &content(at, flavour))).collect();
    write_snapshot(&disk, SHARD, INDEX, &segments);
    (disk, segments)
}

fn path_of(meta: &SegmentMeta) -> String {
    format!("{}/{}", folder(SHARD), meta.name())
}

/// Copies a file of another replica beside the one it shall replace.
fn bring(from: &LossyDisk, to: &LossyDisk, name: &str) -> Result<Measured, SnapshotError> {
    let path = format!("{}/{name}", folder(SHARD));
    let len = usize::try_from(from.file_bytes(&path).unwrap()).unwrap();
    let bytes = copy::read_piece(from, &path, 0, len).unwrap().unwrap();
    let (head, tail) = bytes.split_at(len / 3);
    copy::append(to, SHARD, &copy_name(name), bytes.len() as u64, 0, head)?;
    copy::append(to, SHARD, &copy_name(name), bytes.len() as u64, head.len() as u64, tail)?;
    Ok(copy::measure(from, SHARD, name).unwrap().unwrap())
}

/// What a repair does with one segment, with a peer that has everything.
fn mend(disk: &LossyDisk, peer: &LossyDisk, theirs: &SegmentMeta) -> Result<(), RepairError> {
    match assess(disk, SHARD, (theirs.from, theirs.to))? {
        Assessment::Unnamed => panic!("the snapshot names it"),
        Assessment::Whole(_) => Ok(()),
        Assessment::Other(segment) => name_as_it_is(disk, SHARD, segment.meta()),
        Assessment::Damaged(..) => {
            bring(peer, disk, &theirs.name())?;
            match install_segment(disk, SHARD, theirs)? {
                Mended::Done(segment) => Ok(segment.verify()?),
                Mended::Unfit(why) => panic!("{why}"),
            }
        }
    }
}

/// Whether a file read through in pieces is whole.
fn read_through(disk: &LossyDisk, meta: &SegmentMeta, piece: usize) -> Result<(), Damage> {
    let mut read = read(disk, SHARD, meta).unwrap();
    loop {
        read = match read {
            Read::More(reading) => reading.step(piece).unwrap(),
            Read::Whole => return Ok(()),
            Read::Damaged(damage) => return Err(damage),
        }
    }
}

/// Every segment that the snapshot names, whole, and what is in its block.
fn contents(disk: &LossyDisk) -> Vec<bytes::Bytes> {
    let latest = snapshot::latest(disk, SHARD).unwrap();
    assert!(latest.damaged.is_empty());
    let named = latest.newest.unwrap().snapshot.segments;
    let read = |meta: &SegmentMeta| {
        let segment = Segment::open(disk, SHARD, meta).unwrap();
        segment.verify().unwrap();
        read_through(disk, meta, 700).unwrap();
        segment.read(0).unwrap()
    };
    named.iter().map(read).collect()
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(u64, u8),
    Cut(u64),
    Gone,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<u64>(), 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => any::<u64>().prop_map(Harm::Cut),
        1 => Just(Harm::Gone),
    ]
}

fn inflict(disk: &LossyDisk, path: &str, harm: &Harm) {
    let len = disk.file_bytes(path).unwrap();
    match harm {
        Harm::Flip(at, bit) => assert!(disk.flip_bit(path, at % len, *bit)),
        Harm::Cut(at) => {
            let file = disk.open(path, OpenMode::ReadWrite).unwrap();
            file.set_len(at % len).unwrap();
            file.sync().unwrap();
        }
        Harm::Gone => {
            disk.remove(path).unwrap();
            disk.sync_folder(&folder(SHARD)).unwrap();
        }
    }
}

#[test]
fn what_is_whole_is_left_alone() {
    let (disk, segments) = replica(1, 1);
    let before = disk.operations();
    for meta in &segments {
        assert_eq!(read_through(&disk, meta, 100), Ok(()));
        assert!(matches!(assess(&disk, SHARD, (meta.from, meta.to)).unwrap(), Assessment::Whole(_)));
        name_as_it_is(&disk, SHARD, meta).unwrap();
    }
    assert_eq!(files(&disk, SHARD).unwrap().damaged, None);
    assert!(matches!(assess(&disk, SHARD, (Offset(1), Offset(2))).unwrap(), Assessment::Unnamed));
    assert_eq!(disk.operations(), before);
}

#[test]
fn damage_is_told_with_its_file_and_place() {
    let (disk, segments) = replica(1, 1);
    assert!(disk.flip_bit(&path_of(&segments[1]), 800, 3));
    let damage = read_through(&disk, &segments[1], 100).unwrap_err();
    assert_eq!((damage.file, damage.at), (path_of(&segments[1]), Some(16)), "the block begins behind the head");
}

#[test]
fn a_segment_of_other_bytes_proves_itself_and_only_the_snapshot_is_written() {
    let ((disk, ours), (_, theirs)) = (replica(1, 1), replica(2, 2));
    let other = seal(&disk, SHARD, 1, &content(1, 2));
    assert_eq!(other, theirs[1]);
    let Opened::Readable(segment) = open(&disk, SHARD, &ours[1]).unwrap() else { panic!("it is whole") };
    assert_eq!(segment.meta(), &theirs[1]);
    let Assessment::Other(segment) = assess(&disk, SHARD, (ours[1].from, ours[1].to)).unwrap() else { panic!("other") };
    name_as_it_is(&disk, SHARD, segment.meta()).unwrap();
    disk.crash();
    assert_eq!(contents(&disk), [content(0, 1), content(1, 2), content(2, 1)]);
}

#[test]
fn a_copy_that_is_not_what_is_missing_is_not_installed() {
    let ((disk, ours), (peer, theirs)) = (replica(1, 1), replica(2, 2));
    inflict(&disk, &path_of(&ours[1]), &Harm::Gone);
    let mut strange = theirs[1];
    strange.digest += 1;
    let unnamed = SegmentMeta { to: Offset(18), ..theirs[1] };
    let longer = SegmentMeta { bytes: theirs[1].bytes + 1, ..theirs[1] };
    for meta in [strange, unnamed, longer] {
        bring(&peer, &disk, &theirs[1].name()).unwrap();
        assert!(matches!(install_segment(&disk, SHARD, &meta).unwrap(), Mended::Unfit(_)));
        assert!(matches!(open(&disk, SHARD, &ours[1]).unwrap(), Opened::Lost(lost, _) if lost.is_lost()));
        discard(&disk, SHARD).unwrap();
        assert_eq!(disk.paths(PART), Vec::<String>::new());
    }
    bring(&peer, &disk, &theirs[1].name()).unwrap();
    assert!(disk.flip_bit(&format!("{}{COPY}{PART}", path_of(&ours[1])), 9, 1));
    assert!(matches!(install_segment(&disk, SHARD, &theirs[1]).unwrap(), Mended::Unfit(_)));
    mend(&disk, &peer, &theirs[1]).unwrap();
    assert_eq!(contents(&disk)[1], content(1, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn harm_is_found_by_reading_through_and_told_at_a_start(harm in harm(), piece in 1..3_000_usize) {
        let (disk, segments) = replica(1, 1);
        inflict(&disk, &path_of(&segments[2]), &harm);
        prop_assert!(read_through(&disk, &segments[2], piece).is_err());
        let assessment = assess(&disk, SHARD, (segments[2].from, segments[2].to)).unwrap();
        prop_assert!(matches!(assessment, Assessment::Damaged(meta, _) if meta == segments[2]));
        // What opens gives the right bytes or none.
        if let Opened::Readable(segment) = open(&disk, SHARD, &segments[2]).unwrap() {
            prop_assert!(segment.read(0).map_or(true, |bytes| bytes == content(2, 1)));
        }
    }

    #[test]
    fn a_crash_while_a_segment_is_replaced_loses_nothing_and_is_mended(
        seed in any::<u64>(),
        after in 0_u64..80,
        harm in harm(),
        flavour in 1..3_u8,
        again in 0_u64..40,
    ) {
        let ((disk, ours), (peer, theirs)) = (replica(seed, 1), replica(7, flavour));
        inflict(&disk, &path_of(&ours[1]), &harm);
        for after in [after, again] {
            disk.power_off_after(after);
            let mended = mend(&disk, &peer, &theirs[1]);
            disk.crash();
            let latest = snapshot::latest(&disk, SHARD).unwrap();
            prop_assert!(latest.damaged.is_empty());
            let named = latest.newest.unwrap().snapshot.segments;
            prop_assert!(named[1] == ours[1] || named[1] == theirs[1]);
            let found = assess(&disk, SHARD, (ours[1].from, ours[1].to)).unwrap();
            prop_assert!(mended.is_err() || matches!(found, Assessment::Whole(_)));
            // A replica that starts here reads the records or says that it cannot.
            if let Opened::Readable(segment) = open(&disk, SHARD, &named[1]).unwrap() {
                let good = [content(1, 1), content(1, flavour)];
                prop_assert!(segment.read(0).map_or(true, |bytes| good.contains(&bytes.to_vec())));
            }
        }
        discard(&disk, SHARD).unwrap();
        mend(&disk, &peer, &theirs[1]).unwrap();
        disk.crash();
        prop_assert_eq!(contents(&disk), [content(0, 1), content(1, flavour), content(2, 1)]);
    }

    #[test]
    fn a_crash_while_a_snapshot_is_replaced_leaves_the_damaged_one_or_a_whole_one(
        seed in any::<u64>(),
        after in 0_u64..60,
        flavour in 1..3_u8,
        gone in any::<bool>(),
    ) {
        let ((disk, ours), (peer, theirs)) = (replica(seed, 1), replica(7, flavour));
        if gone {
            inflict(&disk, &path_of(&ours[1]), &Harm::Gone);
        }
        let file = disk.open(&snapshot::path(SHARD, Index(INDEX)), OpenMode::ReadWrite).unwrap();
        file.write_at(0, &[&[0; 8_192]]).unwrap();
        file.sync().unwrap();
        let position = snapshot::read(&peer, SHARD, Index(INDEX)).unwrap().snapshot.position;
        let replace = || -> Result<Mended<()>, RepairError> {
            let fits = bring(&peer, &disk, &snapshot::name(Index(INDEX)))?;
            install_snapshot(&disk, SHARD, position, fits)
        };
        disk.power_off_after(after);
        let done = replace().is_ok();
        disk.crash();
        let damaged = files(&disk, SHARD).unwrap().damaged;
        prop_assert!(damaged.is_none() || !done);
        if damaged.is_some() {
            prop_assert!(matches!(replace().unwrap(), Mended::Done(())));
        }
        prop_assert_eq!(files(&disk, SHARD).unwrap().damaged, None);
        if gone {
            mend(&disk, &peer, &theirs[1]).unwrap();
        }
        let second = if gone { flavour } else { 1 };
        prop_assert_eq!(contents(&disk), [content(0, 1), content(1, second), content(2, 1)]);
    }
}
