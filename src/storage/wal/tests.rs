//! Tests of the log, one sentence each. Random histories with crashes run in the simulations.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::format::{Header, Item, Place, RECORDS_AT, Slot, decode, decode_lone_mark, encode};
use super::{LogOp, Space, Wal, WalOptions};
use crate::class::Class;
use crate::entry::{Entry, EntryKind, HardState, Position, Recovered};
use crate::id::{Index, ReplicaId, ShardId, Term};
use crate::storage::disk::{Disk, OpenMode};
use crate::storage::error::StorageError;
use crate::storage::lossy::LossyDisk;

const SHARD: ShardId = ShardId(1);
const REPLICA: ReplicaId = ReplicaId(7);
const OPTIONS: WalOptions =
    WalOptions { segment_bytes: 16 << 10, bytes_max: 128 << 10, reserve_bytes: 4 << 10, pin_bytes_max: 512 };

fn open(disk: &LossyDisk, seed: u64) -> Wal {
    Wal::open(Arc::new(disk.clone()), OPTIONS, seed).unwrap().0
}

fn refused(disk: &LossyDisk) -> StorageError {
    Wal::open(Arc::new(disk.clone()), OPTIONS, 99).map(|_| ()).unwrap_err()
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let payload = Bytes::from(vec![(index + term) as u8; bytes]);
    Entry { index: Index(index), term: Term(term), kind: EntryKind::Normal, payload }
}

fn append(wal: &mut Wal, entries: &[Entry]) -> Result<(), StorageError> {
    let op = LogOp::Append { truncate_from: None, entries: entries.to_vec(), hard_state: None };
    wal.append(SHARD, REPLICA, op)
}

fn trim(wal: &mut Wal, index: u64, term: u64) {
    let through = Position { index: Index(index), term: Term(term) };
    wal.append(SHARD, REPLICA, LogOp::Trim { through }).unwrap();
}

fn load(wal: &mut Wal) -> Recovered {
    wal.load(SHARD, REPLICA).unwrap()
}

/// One segment with three groups of one entry each; the first starts at `RECORDS_AT`.
fn three_groups(disk: &LossyDisk) -> Vec<Entry> {
    let mut wal = open(disk, 1);
    let entries: Vec<Entry> = (1..=3).map(|index| entry(index, 1, 1_500)).collect();
    for entry in &entries {
        append(&mut wal, std::slice::from_ref(entry)).unwrap();
        wal.flush().unwrap();
    }
    entries
}

#[test]
fn what_was_flushed_is_found_and_what_was_not_is_not() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    let state = HardState { term: Term(2), vote: Some(REPLICA), commit: Index(1) };
    let entries = vec![entry(1, 1, 0), entry(2, 2, 5_000)];
    let op = LogOp::Append { truncate_from: None, entries: entries.clone(), hard_state: Some(state) };
    wal.append(SHARD, REPLICA, op).unwrap();
    let flushed = wal.flush().unwrap();
    assert_eq!((flushed.records, flushed.syncs), (3, 1));
    append(&mut wal, &[entry(3, 2, 10)]).unwrap();
    disk.crash();
    let expected = Recovered { hard_state: state, trimmed: Position::default(), entries };
    assert_eq!(load(&mut open(&disk, 2)), expected);
}

#[test]
fn one_group_serves_all_shards_with_one_sync() {
    let mut wal = open(&LossyDisk::new(1), 1);
    for shard in 0..20 {
        let op = LogOp::Append { truncate_from: None, entries: vec![entry(1, 1, 100)], hard_state: None };
        wal.append(ShardId(shard), REPLICA, op).unwrap();
    }
    let flushed = wal.flush().unwrap();
    assert_eq!((flushed.records, flushed.syncs), (20, 1));
    assert_eq!(wal.flush().unwrap().syncs, 0);
    assert_eq!(wal.shards().len(), 20);
}

#[test]
fn an_entry_truncated_and_rewritten_is_found_as_rewritten() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    append(&mut wal, &[entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10)]).unwrap();
    wal.flush().unwrap();
    append(&mut wal, &[entry(2, 2, 20)]).unwrap();
    wal.flush().unwrap();
    assert_eq!(load(&mut wal).entries, [entry(1, 1, 10), entry(2, 2, 20)]);
    let op = LogOp::Append { truncate_from: Some(Index(2)), entries: Vec::new(), hard_state: None };
    wal.append(SHARD, REPLICA, op).unwrap();
    wal.flush().unwrap();
    disk.crash();
    assert_eq!(load(&mut open(&disk, 2)).entries, [entry(1, 1, 10)]);
}

#[test]
fn a_log_restarts_behind_an_installed_snapshot_and_a_forgotten_one_is_gone() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    append(&mut wal, &[entry(1, 1, 10), entry(2, 1, 10)]).unwrap();
    let at = Position { index: Index(90), term: Term(4) };
    let hard_state = HardState { term: Term(5), vote: None, commit: Index(90) };
    wal.append(SHARD, REPLICA, LogOp::Install { at, hard_state }).unwrap();
    append(&mut wal, &[entry(91, 5, 10)]).unwrap();
    wal.flush().unwrap();
    disk.crash();
    let mut wal = open(&disk, 2);
    assert_eq!(load(&mut wal), Recovered { hard_state, trimmed: at, entries: vec![entry(91, 5, 10)] });
    wal.forget(SHARD, REPLICA).unwrap();
    wal.flush().unwrap();
    disk.crash();
    assert!(open(&disk, 3).shards().is_empty());
}

#[test]
fn a_commit_ahead_of_what_a_torn_group_left_is_taken_back() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    let hard_state = Some(HardState { term: Term(1), vote: None, commit: Index(9) });
    let op = LogOp::Append { truncate_from: None, entries: vec![entry(1, 1, 10)], hard_state };
    wal.append(SHARD, REPLICA, op).unwrap();
    assert_eq!(load(&mut wal).hard_state.commit, Index(1));
}

#[test]
fn entries_are_read_from_where_a_follower_is_and_not_before_the_trim() {
    let mut wal = open(&LossyDisk::new(1), 1);
    let entries: Vec<Entry> = (1..=10).map(|index| entry(index, 1, 100)).collect();
    append(&mut wal, &entries).unwrap();
    trim(&mut wal, 3, 1);
    wal.flush().unwrap();
    assert_eq!(wal.read(SHARD, Index(4), Index(7), 10_000).unwrap(), entries[3..6]);
    assert_eq!(wal.read(SHARD, Index(4), Index(11), 150).unwrap(), entries[3..5]);
    assert_eq!(wal.read(SHARD, Index(4), Index(11), 0).unwrap(), entries[3..4]);
    for from in [3, 11] {
        let error = wal.read(SHARD, Index(from), Index(20), 100).unwrap_err();
        assert!(matches!(error, StorageError::NotHeld { index, .. } if index == Index(from)), "{error}");
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let disk = LossyDisk::new(1);
    let entries = three_groups(&disk);
    let last = RECORDS_AT + 2 * (68 + 48 + 1_500);
    assert!(disk.flip_bit("wal/00000001.seg", last + 200, 3));
    disk.crash();
    let (mut wal, report) = Wal::open(Arc::new(disk.clone()), OPTIONS, 2).unwrap();
    assert_eq!(report.cut, Some(("wal/00000001.seg".to_owned(), last + 68)));
    assert_eq!(load(&mut wal).entries, entries[..2]);
    append(&mut wal, &[entry(3, 2, 700)]).unwrap();
    wal.flush().unwrap();
    disk.crash();
    assert_eq!(load(&mut open(&disk, 3)).entries[2], entry(3, 2, 700));
}

#[test]
fn a_flipped_bit_below_what_was_durable_is_refused_by_file_and_offset() {
    let disk = LossyDisk::new(1);
    three_groups(&disk);
    disk.crash();
    let records = [RECORDS_AT, RECORDS_AT + 68, RECORDS_AT + 68 + 1_548, RECORDS_AT + 2 * 68 + 1_548];
    let durable_then = RECORDS_AT + 2 * (68 + 1_548);
    for (at, record) in records.into_iter().enumerate() {
        let end = records.get(at + 1).copied().unwrap_or(durable_then);
        for flipped in (record..end).step_by(13) {
            disk.flip_bit("wal/00000001.seg", flipped, 6);
            let error = refused(&disk);
            assert_eq!(error.class(), Class::Fatal);
            assert!(
                matches!(&error, StorageError::Damaged { file, offset, durable, .. }
                    if file == "wal/00000001.seg" && *offset == record && *durable == durable_then),
                "{flipped}: {error}"
            );
            disk.flip_bit("wal/00000001.seg", flipped, 6);
        }
    }
    assert_eq!(load(&mut open(&disk, 2)).entries.len(), 3);
}

#[test]
fn damage_in_a_header_and_a_missing_segment_are_refused() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    for index in 1..=30 {
        append(&mut wal, &[entry(index, 1, 1_500)]).unwrap();
        wal.flush().unwrap();
    }
    drop(wal);
    disk.flip_bit("wal/00000002.seg", 20, 0);
    let error = refused(&disk);
    assert!(matches!(&error, StorageError::Damaged { file, offset: 0, .. } if file == "wal/00000002.seg"), "{error}");
    disk.flip_bit("wal/00000002.seg", 20, 0);
    disk.remove("wal/00000002.seg").unwrap();
    let error = refused(&disk);
    assert!(matches!(error, StorageError::Missing { generation: 2, .. }), "{error}");
}

#[test]
fn an_entry_damaged_while_the_process_runs_is_never_returned() {
    let disk = LossyDisk::new(1);
    three_groups(&disk);
    let mut wal = open(&disk, 2);
    let names = disk.list("wal").unwrap();
    let live = names.iter().find(|name| {
        let file = disk.open(&format!("wal/{name}"), OpenMode::Read).unwrap();
        let mut sector = [0; RECORDS_AT as usize];
        file.read_at(0, &mut sector).unwrap();
        Header::decode(&sector).unwrap().generation == 2
    });
    disk.flip_bit(&format!("wal/{}", live.unwrap()), RECORDS_AT + 100, 1);
    let error = wal.load(SHARD, REPLICA).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { offset: RECORDS_AT, .. }), "{error}");
}

#[test]
fn stale_records_of_an_earlier_use_of_a_file_are_not_taken() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    for index in 1..=60 {
        append(&mut wal, &[entry(index, 1, 1_500)]).unwrap();
        wal.flush().unwrap();
        trim(&mut wal, index, 1);
        wal.tend().unwrap();
    }
    append(&mut wal, &[entry(61, 1, 1_500)]).unwrap();
    wal.flush().unwrap();
    disk.crash();
    let mut wal = open(&disk, 2);
    assert_eq!(load(&mut wal).entries, [entry(61, 1, 1_500)]);
}

#[test]
fn trimming_recycles_segments_and_bounds_the_files() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    let quiet = (ShardId(2), REPLICA);
    let op = LogOp::Append { truncate_from: None, entries: vec![entry(1, 1, 50)], hard_state: None };
    wal.append(quiet.0, quiet.1, op).unwrap();
    let mut written = 0;
    let mut recycled = 0;
    for index in 1..=400 {
        append(&mut wal, &[entry(index, 1, 1_000)]).unwrap();
        if index > 10 {
            trim(&mut wal, index - 10, 1);
        }
        written += wal.flush().unwrap().bytes;
        let tended = wal.tend().unwrap();
        recycled += tended.recycled;
        assert!(!tended.over && tended.pinning.is_empty() && tended.space == Space::Ample, "{tended:?}");
        assert!(disk.list("wal").unwrap().len() <= 8, "{:?}", disk.list("wal"));
    }
    assert!(recycled > 20 && written < 400 * 1_250, "{recycled} {written}");
    disk.crash();
    let mut wal = open(&disk, 2);
    assert_eq!(wal.load(quiet.0, quiet.1).unwrap().entries, [entry(1, 1, 50)]);
    assert_eq!(load(&mut wal).entries.len(), 10);
}

#[test]
fn a_shard_that_pins_the_log_is_named() {
    let mut wal = open(&LossyDisk::new(1), 1);
    let mut last = None;
    for index in 1..=100 {
        append(&mut wal, &[entry(index, 1, 1_500)]).unwrap();
        wal.flush().unwrap();
        last = Some(wal.tend().unwrap());
    }
    let tended = last.unwrap();
    assert!(tended.over && tended.pinning == [SHARD] && tended.bytes == wal.bytes(), "{tended:?}");
    trim(&mut wal, 100, 1);
    for _ in 0..2 {
        wal.tend().unwrap();
    }
    let tended = wal.tend().unwrap();
    assert!(!tended.over && tended.pinning.is_empty(), "{tended:?}");
}

#[test]
fn restarts_do_not_lengthen_the_log() {
    let disk = LossyDisk::new(1);
    let entries = three_groups(&disk);
    for seed in 2..40 {
        disk.kill();
        let mut wal = open(&disk, seed);
        assert_eq!(load(&mut wal).entries, entries);
        assert!(disk.list("wal").unwrap().len() <= 6, "{:?}", disk.list("wal"));
    }
}

#[test]
fn a_failed_sync_poisons_the_log() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    append(&mut wal, &[entry(1, 1, 10)]).unwrap();
    disk.fail_sync_after(0);
    let error = wal.flush().unwrap_err();
    assert!(matches!(error, StorageError::Io { action: "sync", .. }) && error.class() == Class::Fatal, "{error}");
    assert!(matches!(wal.flush(), Err(StorageError::Poisoned)));
    assert!(matches!(append(&mut wal, &[entry(2, 1, 10)]), Err(StorageError::Poisoned)));
    assert!(matches!(wal.tend(), Err(StorageError::Poisoned)));
    assert!(matches!(wal.load(SHARD, REPLICA), Err(StorageError::Poisoned)));
    assert!(!wal.can_take(0));
}

#[test]
fn a_full_disk_refuses_ingest_first_and_lets_votes_go_on() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    disk.set_capacity(disk.used_bytes());
    let mut index = 0;
    while wal.can_take(0) {
        index += 1;
        append(&mut wal, &[entry(index, 1, 1_000)]).unwrap();
        wal.flush().unwrap();
        wal.tend().unwrap();
    }
    assert!(index > 5 && wal.space() == Space::ReserveOnly);
    let error = append(&mut wal, &[entry(index + 1, 1, 5_000)]).unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }) && error.class() == Class::Retry, "{error}");
    for term in 2..20 {
        let hard_state = Some(HardState { term: Term(term), vote: None, commit: Index(0) });
        let op = LogOp::Append { truncate_from: None, entries: vec![entry(index + 1, term, 0)], hard_state };
        wal.append(SHARD, REPLICA, op).unwrap();
        wal.flush().unwrap();
        assert_eq!(wal.tend().unwrap().space, Space::ReserveOnly);
        index += 1;
    }
    for seed in 2..6 {
        disk.crash();
        open(&disk, seed);
    }
    disk.crash();
    let mut wal = open(&disk, 9);
    let recovered = load(&mut wal);
    assert_eq!((recovered.hard_state.term, recovered.entries.len() as u64), (Term(19), index));
    disk.set_capacity(u64::MAX);
    assert_eq!(wal.tend().unwrap().space, Space::Ample);
    append(&mut wal, &[entry(index + 1, 20, 5_000)]).unwrap();
    wal.flush().unwrap();
}

#[test]
fn space_comes_back_when_a_full_log_is_trimmed() {
    let disk = LossyDisk::new(1);
    let mut wal = open(&disk, 1);
    disk.set_capacity(disk.used_bytes() + 2 * OPTIONS.segment_bytes);
    let mut index = 0;
    while append(&mut wal, &[entry(index + 1, 1, 5_000)]).is_ok() {
        index += 1;
        wal.flush().unwrap();
        wal.tend().unwrap();
    }
    assert_eq!(wal.space(), Space::ReserveOnly);
    trim(&mut wal, index, 1);
    wal.tend().unwrap();
    assert_eq!(wal.tend().unwrap().space, Space::Ample);
    append(&mut wal, &[entry(index + 1, 1, 5_000)]).unwrap();
}

/// Fills the disk with entries, then votes on in the reserve for so many terms.
fn filled(disk: &LossyDisk, options: WalOptions, terms: u64) -> (Wal, u64) {
    let mut wal = Wal::open(Arc::new(disk.clone()), options, 1).unwrap().0;
    disk.set_capacity(disk.used_bytes());
    let mut index = 0;
    while wal.can_take(0) {
        index += 1;
        append(&mut wal, &[entry(index, 1, 1_000)]).unwrap();
        wal.flush().unwrap();
    }
    while append(&mut wal, &[entry(index + 1, 1, 5_000)]).is_ok() {
        index += 1;
        wal.flush().unwrap();
    }
    for term in 2..2 + terms {
        let hard_state = Some(HardState { term: Term(term), vote: None, commit: Index(0) });
        let op = LogOp::Append { truncate_from: None, entries: vec![], hard_state };
        if wal.append(SHARD, REPLICA, op).is_err() {
            break;
        }
        wal.flush().unwrap();
    }
    (wal, index)
}

#[test]
fn a_log_whose_reserve_is_full_starts_again_and_again_on_a_full_disk() {
    let wide = WalOptions { reserve_bytes: OPTIONS.segment_bytes - 512, ..OPTIONS };
    for options in [OPTIONS, wide] {
        let disk = LossyDisk::new(1);
        let (wal, index) = filled(&disk, options, u64::MAX - 2);
        drop(wal);
        for seed in 2..9 {
            disk.crash();
            let mut wal = Wal::open(Arc::new(disk.clone()), options, seed).unwrap().0;
            assert_eq!(load(&mut wal).entries.len() as u64, index);
        }
    }
}

#[test]
fn a_trim_gives_a_full_disk_its_reserve_back() {
    let disk = LossyDisk::new(1);
    let (mut wal, index) = filled(&disk, OPTIONS, 10);
    assert_eq!(wal.tend().unwrap().space, Space::ReserveOnly);
    let at = Position { index: Index(index), term: Term(1) };
    let hard_state = HardState { term: Term(1), vote: None, commit: at.index };
    wal.append(SHARD, REPLICA, LogOp::Install { at, hard_state }).unwrap();
    let mut spaces = Vec::new();
    for _ in 0..4 {
        spaces.push(wal.tend().unwrap().space);
    }
    assert_eq!(spaces.last(), Some(&Space::Ample), "{spaces:?}");
}

#[test]
fn an_entry_larger_than_a_segment_is_refused_and_nothing_is_taken() {
    let mut wal = open(&LossyDisk::new(1), 1);
    let error = append(&mut wal, &[entry(1, 1, 10), entry(2, 1, 16 << 10)]).unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { .. }) && error.class() == Class::Refuse, "{error}");
    append(&mut wal, &[entry(1, 1, 10)]).unwrap();
    assert_eq!(load(&mut wal).entries.len(), 1);
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    WalOptions::default().validate().unwrap();
    let wrong = [
        WalOptions { segment_bytes: 1 << 33, bytes_max: 1 << 40, ..OPTIONS },
        WalOptions { reserve_bytes: 100, ..OPTIONS },
        WalOptions { reserve_bytes: OPTIONS.segment_bytes, ..OPTIONS },
        WalOptions { bytes_max: 3 * OPTIONS.segment_bytes, ..OPTIONS },
        WalOptions { pin_bytes_max: 2 << 10, ..OPTIONS },
    ];
    for options in wrong {
        let error = Wal::open(Arc::new(LossyDisk::new(1)), options, 1).map(|_| ()).unwrap_err();
        assert!(matches!(error, StorageError::Options { .. }), "{error}");
    }
}

fn items() -> impl Strategy<Value = Item> {
    let state = (any::<u64>(), 0..3_u64, any::<u64>()).prop_map(|(term, vote, commit)| HardState {
        term: Term(term),
        vote: Some(ReplicaId(vote)).filter(|replica| replica.0 != 0),
        commit: Index(commit),
    });
    let position =
        || (any::<u64>(), any::<u64>()).prop_map(|(index, term)| Position { index: Index(index), term: Term(term) });
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(generation, offset, first)| Item::Mark { durable: Place { generation, offset }, first }),
        (any::<u64>(), any::<u64>()).prop_map(|(index, term)| Item::Entry {
            index: Index(index),
            term: Term(term),
            kind: EntryKind::JointConfiguration
        }),
        state.clone().prop_map(Item::HardState),
        any::<u64>().prop_map(|from| Item::Truncate { from: Index(from) }),
        position().prop_map(Item::Trim),
        (position(), state).prop_map(|(at, hard_state)| Item::Install { at, hard_state }),
        Just(Item::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_record_is_read_as_it_was_written_and_in_its_place_only(
        item in items(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        (shard, replica, chain, salt) in any::<(u32, u64, u32, u64)>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let payload = if matches!(item, Item::Entry { .. }) { &payload[..] } else { &[] };
        let place = Place { generation: 3, offset: 700 };
        let owner = (ShardId(shard), ReplicaId(replica));
        let mut record = Vec::new();
        encode(&mut record, Slot { place, salt, chain }, owner, &item, payload);
        record.extend_from_slice(payload);
        prop_assert_eq!(decode(&record, chain), Some((owner, item)));
        prop_assert_eq!(decode(&record, chain ^ 1), None);
        if let Item::Mark { durable, .. } = item {
            prop_assert_eq!(decode_lone_mark(&record, salt, place), Some(durable));
            prop_assert_eq!(decode_lone_mark(&record, salt ^ 1, place), None);
        }
        let bit = flip.index(record.len() * 8);
        record[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode(&record, chain), None);
    }

    #[test]
    fn arbitrary_bytes_are_no_record_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), chain: u32) {
        let _ = decode(&bytes, chain);
        let _ = decode_lone_mark(&bytes, 1, Place::default());
        let _ = Header::decode(&bytes);
    }

    #[test]
    fn a_header_is_read_as_it_was_written(numbers in any::<[u64; 6]>()) {
        let [generation, salt, first, previous, offset, durable] = numbers;
        let header = Header { generation, salt, first, previous: Place { generation: previous, offset }, durable };
        prop_assert_eq!(Header::decode(&header.encode()), Some(header));
    }

    #[test]
    fn a_folder_of_arbitrary_bytes_is_refused_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let disk = LossyDisk::new(1);
        three_groups(&disk);
        let file = disk.open("wal/00000001.seg", OpenMode::ReadWrite).unwrap();
        file.write_at(RECORDS_AT + 100, &[&bytes]).unwrap();
        drop(Wal::open(Arc::new(disk.clone()), OPTIONS, 2));
        file.write_at(0, &[&bytes]).unwrap();
        drop(Wal::open(Arc::new(disk), OPTIONS, 3));
    }
}
