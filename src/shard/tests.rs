use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::command::{Command, SubBatch};
use super::{Applied, Outcome, SealJob, SealedBlock, Shard, ShardError, ShardOptions};
use crate::block::l0::Encoder;
use crate::block::l1::L1;
use crate::block::rows::Projection;
use crate::entry::SegmentMeta;
use crate::id::{Index, Key, Offset, ShardId, Term};
use crate::label::Labels;
use crate::record::{Record, StreamRecords};

const OPTIONS: ShardOptions = ShardOptions { keys: 6, key_life: 1_000, streams_per_tenant: 3, stream_life: 500 };

fn batch(stream: &str, times: &[i64]) -> Bytes {
    let records = times
        .iter()
        .map(|time| Record {
            timestamp: *time,
            line: format!("line at {time} of {stream}").into(),
            metadata: vec![("trace".into(), format!("{time:x}").as_str().into())],
        })
        .collect();
    Encoder::new().encode("acme", &[StreamRecords { labels: Labels::new([("app", stream)]), records }])
}

fn sub(key: u128, part: u32, batch: Bytes) -> SubBatch {
    SubBatch { key: Key(key), body: 7, part, restored: false, batch }
}

/// A shard that is handed commands one after the other.
struct Driven {
    shard: Shard,
    index: u64,
    now: u64,
}

impl Driven {
    fn new() -> Self {
        Self { shard: Shard::new(ShardId(3), OPTIONS), index: 0, now: 10_000 }
    }

    fn apply(&mut self, payload: Bytes) -> Applied {
        self.index += 1;
        let payload = if payload.is_empty() { payload } else { Command::stamp(payload, self.now) };
        self.shard.apply(Index(self.index), Term(1), &payload).unwrap()
    }

    fn store(&mut self, subs: &[SubBatch]) -> Vec<Outcome> {
        let applied = self.apply(Command::encode_batch(subs));
        let Applied::Batch(verdicts) = applied else { panic!("{applied:?}") };
        verdicts.into_iter().map(|verdict| verdict.outcome).collect()
    }

    fn seal(&mut self) -> Arc<SealJob> {
        let applied = self.apply(Command::encode_seal(Index(0)));
        let Applied::Seal(job) = applied else { panic!("{applied:?}") };
        job
    }
}

fn stored(first: u64, rows: u32) -> Outcome {
    Outcome::Stored { first: Offset(first), rows }
}

fn blocks(job: &SealJob) -> Vec<SealedBlock> {
    let mut blocks = Vec::new();
    let write = |block| {
        blocks.push(block);
        Ok::<(), ShardError>(())
    };
    job.encode(write).unwrap();
    blocks
}

#[test]
fn offsets_are_contiguous_over_batches() {
    let mut driven = Driven::new();
    let outcomes = driven.store(&[sub(1, 0, batch("a", &[5, 6])), sub(2, 0, batch("b", &[1]))]);
    assert_eq!(outcomes, [stored(0, 2), stored(2, 1)]);
    assert_eq!(driven.store(&[sub(3, 0, batch("a", &[2]))]), [stored(3, 1)]);
    assert_eq!(driven.shard.next_offset(), Offset(4));
    let bases: Vec<Offset> = driven.shard.view().iter().map(|batch| batch.base()).collect();
    assert_eq!(bases, [Offset(0), Offset(2), Offset(3)]);
}

#[test]
fn a_known_part_is_skipped_whole_and_says_where_it_is() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[5, 6])), sub(1, 1, batch("a", &[7]))]);
    let again =
        driven.store(&[sub(1, 0, batch("a", &[5, 6])), sub(1, 1, batch("a", &[7])), sub(1, 2, batch("a", &[8]))]);
    assert_eq!(again, [Outcome::Known { first: Offset(0) }, Outcome::Known { first: Offset(2) }, stored(3, 1)]);
}

#[test]
fn a_key_with_another_body_is_a_conflict_in_any_part() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[5]))]);
    for part in [0, 1] {
        let other = SubBatch { body: 8, ..sub(1, part, batch("a", &[6])) };
        assert_eq!(driven.store(&[other]), [Outcome::Conflict]);
    }
}

#[test]
fn a_part_without_the_one_before_is_a_gap() {
    let mut driven = Driven::new();
    assert_eq!(driven.store(&[sub(1, 1, batch("a", &[5]))]), [Outcome::Gap]);
    assert_eq!(driven.shard.next_offset(), Offset(0));
}

#[test]
fn keys_are_forgotten_oldest_first_and_by_shard_time() {
    let mut driven = Driven::new();
    for key in 0..7 {
        driven.store(&[sub(key, 0, batch("a", &[5]))]);
    }
    assert_eq!(driven.shard.keys(), 6);
    assert_eq!(driven.store(&[sub(1, 0, batch("a", &[5]))]), [Outcome::Known { first: Offset(1) }]);
    assert_eq!(driven.store(&[sub(0, 0, batch("a", &[5]))]), [stored(7, 1)]);
    driven.now += 1_001;
    assert_eq!(driven.store(&[sub(0, 0, batch("a", &[5]))]), [stored(8, 1)]);
    assert_eq!(driven.shard.keys(), 1);
}

#[test]
fn batches_of_one_stream_hold_its_labels_once() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[5]))]);
    driven.store(&[sub(2, 0, batch("a", &[5]))]);
    let view = driven.shard.view();
    let names: Vec<*const str> =
        view.iter().map(|batch| batch.streams()[0].labels.get("app").map(std::ptr::from_ref).unwrap()).collect();
    assert!(std::ptr::eq(names[0], names[1]));
}

#[test]
fn a_stamp_never_takes_shard_time_back() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[5]))]);
    driven.now -= 5_000;
    driven.store(&[sub(2, 0, batch("a", &[5]))]);
    assert_eq!(driven.shard.shard_time(), 10_000);
}

#[test]
fn a_tenant_beyond_its_streams_is_refused_whole_until_some_are_idle() {
    let mut driven = Driven::new();
    for (key, stream) in (0..).zip(["a", "b", "c"]) {
        driven.store(&[sub(key, 0, batch(stream, &[5]))]);
    }
    assert_eq!(driven.store(&[sub(9, 0, batch("d", &[5]))]), [Outcome::TooManyStreams]);
    driven.now += 501;
    assert_eq!(driven.store(&[sub(9, 0, batch("d", &[5]))]), [stored(3, 1)]);
}

#[test]
fn a_malformed_entry_is_answered_and_changes_only_the_index() {
    let mut driven = Driven::new();
    assert!(matches!(driven.apply(Bytes::from_static(&[9; 40])), Applied::Malformed));
    assert_eq!(driven.store(&[sub(1, 0, Bytes::from_static(b"no batch"))]), [Outcome::Malformed]);
    assert!(matches!(driven.apply(Bytes::new()), Applied::Nothing));
    assert_eq!((driven.shard.applied(), driven.shard.next_offset(), driven.shard.keys()), (Index(3), Offset(0), 0));
}

#[test]
fn an_entry_that_comes_twice_is_an_error() {
    let mut driven = Driven::new();
    driven.apply(Bytes::new());
    let error = driven.shard.apply(Index(1), Term(1), &Bytes::new()).unwrap_err();
    assert!(matches!(error, ShardError::OutOfOrder { .. }));
}

#[test]
fn a_seal_cuts_at_its_entry_and_a_registered_segment_leaves_the_head() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("b", &[5, 3])), sub(2, 0, batch("a", &[4]))]);
    let before = driven.shard.view();
    let job = driven.seal();
    driven.store(&[sub(3, 0, batch("a", &[1]))]);
    assert_eq!(job.offsets(), Some((Offset(0), Offset(2))));
    assert_eq!((before.len(), driven.shard.view().len()), (2, 3));
    driven.shard.sealed(job.position().index);
    let left: Vec<Offset> = driven.shard.view().iter().map(|batch| batch.base()).collect();
    assert_eq!(left, [Offset(3)]);
    assert_eq!(driven.shard.head_bytes(), driven.shard.unsealed_bytes());
    assert_eq!(driven.shard.unsealed_since(), Some(10_000));

    let blocks = blocks(&job);
    let rows = L1::open(blocks[0].bytes.clone()).unwrap().rows(Projection::ALL).unwrap();
    let order: Vec<(i64, u64)> = (0..3).map(|row| (rows.timestamp(row), rows.offset(row))).collect();
    assert_eq!(order, [(4, 2), (3, 1), (5, 0)]);
}

#[test]
fn restored_streams_are_not_refused_and_do_not_count_as_active() {
    let mut driven = Driven::new();
    for (key, stream) in (0..).zip(["a", "b", "c", "d", "e"]) {
        let restored = SubBatch { restored: true, ..sub(key, 0, batch(stream, &[5])) };
        assert_eq!(driven.store(std::slice::from_ref(&restored)), [stored(u64::try_from(key).unwrap(), 1)]);
        assert_eq!(driven.store(&[restored]), [Outcome::Known { first: Offset(u64::try_from(key).unwrap()) }]);
    }
    for (key, stream) in (10..).zip(["x", "y", "z"]) {
        assert!(matches!(driven.store(&[sub(key, 0, batch(stream, &[5]))])[..], [Outcome::Stored { .. }]));
    }
    assert_eq!(driven.store(&[sub(20, 0, batch("a", &[5]))]), [Outcome::TooManyStreams]);
}

#[test]
fn a_seal_carries_what_logs_hold_for_a_replica_that_is_behind() {
    let payload = Command::stamp(Command::encode_seal(Index(12)), 5);
    assert_eq!(Command::decode(&payload), Ok(Command::Seal { stamp: 5, hold: Index(12) }));
    let mut shard = Shard::new(ShardId(3), OPTIONS);
    let applied = shard.apply(Index(20), Term(1), &payload).unwrap();
    assert!(matches!(applied, Applied::Seal(job) if job.hold() == Index(12)));
}

#[test]
fn a_drop_takes_what_was_cut_and_never_gives_back() {
    let payload = Command::stamp(Command::encode_drop(Offset(12)), 5);
    assert_eq!(Command::decode(&payload), Ok(Command::Drop { stamp: 5, below: Offset(12) }));
    let golden = "b1030000 c5217d27 0500000000000000 0c00000000000000".replace(' ', "");
    assert_eq!(payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), golden);
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[5, 6, 7]))]);
    let drop_below = |driven: &mut Driven, below| {
        assert!(matches!(driven.apply(Command::encode_drop(Offset(below))), Applied::Dropped));
        driven.shard.first_offset()
    };
    assert_eq!(drop_below(&mut driven, 3), Offset(0), "no seal has cut there");
    let first = driven.seal();
    assert_eq!(drop_below(&mut driven, 3), Offset(3), "although its segment is not registered");
    assert_eq!(drop_below(&mut driven, 1), Offset(3));
    driven.store(&[sub(2, 0, batch("a", &[8]))]);
    assert_eq!(drop_below(&mut driven, 4), Offset(3));
    let meta = |from, to| SegmentMeta {
        from: Offset(from),
        to: Offset(to),
        bytes: 9,
        hash: 1,
        digest: 1,
        min_timestamp: 0,
        max_timestamp: 0,
        raw_bytes: 1,
    };
    let segments = vec![meta(0, 2), meta(3, 3)];
    assert_eq!(first.snapshot(segments[..1].to_vec()).segments, segments[..1], "dropped after the cut");
    let snapshot = driven.seal().snapshot(segments.clone());
    assert_eq!((snapshot.first_offset, &snapshot.segments[..]), (Offset(3), &segments[1..]));
    assert_eq!(Shard::restore(&snapshot, OPTIONS).unwrap().first_offset(), Offset(3));
}

#[test]
fn a_seal_without_records_has_no_block_and_still_a_snapshot() {
    let mut driven = Driven::new();
    let job = driven.seal();
    assert_eq!((job.offsets(), blocks(&job).len()), (None, 0));
    assert_eq!(job.snapshot(Vec::new()).position.index, Index(1));
}

#[test]
fn a_restored_shard_knows_keys_and_streams_and_gives_the_next_offset() {
    let mut driven = Driven::new();
    for key in 0..8 {
        driven.store(&[sub(key, 0, batch(["a", "b", "c"][key as usize % 3], &[5]))]);
    }
    let snapshot = driven.seal().snapshot(Vec::new());
    driven.shard = Shard::restore(&snapshot, OPTIONS).unwrap();
    assert_eq!(driven.store(&[sub(7, 0, batch("a", &[5]))]), [Outcome::Known { first: Offset(7) }]);
    assert_eq!(driven.store(&[sub(9, 0, batch("d", &[5]))]), [Outcome::TooManyStreams]);
    assert_eq!(driven.store(&[sub(9, 0, batch("c", &[5]))]), [stored(8, 1)]);
}

#[test]
fn a_head_sealed_in_several_readings_holds_the_same_records_in_the_same_order() {
    let mut driven = Driven::new();
    for key in 0_i64..30 {
        let times = [key * 7 % 11, key, -3];
        driven.store(&[sub(
            key.unsigned_abs().into(),
            0,
            batch(["c", "a", "b"][key.unsigned_abs() as usize % 3], &times),
        )]);
    }
    let job = driven.seal();
    let seal = |set_bytes| {
        let mut records = Vec::new();
        let write = |block: SealedBlock| {
            let rows = L1::open(block.bytes).unwrap().rows(Projection::ALL).unwrap();
            let record =
                |row| (rows.stream(row).clone(), rows.timestamp(row), rows.offset(row), rows.line(row).to_owned());
            records.extend((0..rows.len()).map(record));
            Ok::<(), ShardError>(())
        };
        let proof = job.encode_in_sets(set_bytes, write).unwrap();
        (proof, records)
    };
    let whole = seal(u64::MAX);
    assert!(whole.1.is_sorted());
    for set_bytes in [1, 50, 400] {
        assert_eq!(seal(set_bytes), whole);
    }
}

#[test]
fn a_write_that_fails_ends_the_seal() {
    let mut driven = Driven::new();
    driven.store(&[sub(1, 0, batch("a", &[1]))]);
    let failed = driven.seal().encode(|_| Err(ShardError::Malformed { part: "full disk" }));
    assert_eq!(failed, Err(ShardError::Malformed { part: "full disk" }));
}

fn wide_options() -> ShardOptions {
    ShardOptions { keys: 10_000, key_life: 20, ..ShardOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_command_decodes_to_what_was_encoded(
        subs in prop::collection::vec(
            (any::<u128>(), any::<u64>(), 0..1_u32 << 31, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 1..6,
        ),
        stamp in any::<u64>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let subs: Vec<SubBatch> = subs
            .into_iter()
            .map(|(key, body, part, restored, batch)| {
                SubBatch { key: Key(key), body, part, restored, batch: batch.into() }
            })
            .collect();
        let drops = stamp % 3 == 0;
        let below = Offset(stamp.rotate_left(7));
        let payload = if drops { Command::encode_drop(below) } else { Command::encode_batch(&subs) };
        let payload = Command::stamp(payload, stamp);
        let command = if drops { Command::Drop { stamp, below } } else { Command::Batch { stamp, subs } };
        prop_assert_eq!(Command::decode(&payload).unwrap(), command);
        let mut damaged = payload.to_vec();
        let bit = bit.index(damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let stamp_changed = (8..16).contains(&(bit / 8));
        prop_assert_eq!(Command::decode(&damaged.into()).is_ok(), stamp_changed);
    }

    #[test]
    fn arbitrary_bytes_are_no_command(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(Command::decode(&bytes.into()).is_err());
    }

    /// The same entries give the same state, whether a replica saw them all or was restored on the way.
    #[test]
    fn replicas_that_applied_the_same_hold_the_same(
        steps in prop::collection::vec((0_u128..40, 0_u32..3, 0_usize..4, prop::collection::vec(any::<i64>(), 1..5), 0_u64..6, 0_u8..9), 1..60),
    ) {
        let mut all = Driven { shard: Shard::new(ShardId(3), wide_options()), index: 0, now: 0 };
        let mut restored = Shard::new(ShardId(3), wide_options());
        for (key, part, stream, times, wait, seal) in steps {
            all.now += wait;
            let payload = match seal {
                0 => Command::encode_seal(Index(0)),
                8 => Command::encode_drop(Offset(key.try_into().unwrap())),
                _ => Command::encode_batch(&[sub(key, part, batch(["a", "b", "c", "d"][stream], &times))]),
            };
            let payload = Command::stamp(payload, all.now);
            let other = restored.apply(Index(all.index + 1), Term(1), &payload).unwrap();
            match (all.apply(payload), other) {
                (Applied::Batch(a), Applied::Batch(b)) => prop_assert_eq!(a, b),
                (Applied::Dropped, Applied::Dropped) => {
                    prop_assert_eq!(all.shard.first_offset(), restored.first_offset());
                }
                (Applied::Seal(a), Applied::Seal(b)) => {
                    let snapshot = a.snapshot(Vec::new());
                    prop_assert_eq!(&snapshot, &b.snapshot(Vec::new()));
                    let proof = a.encode(|_| Ok::<(), ShardError>(())).unwrap();
                    prop_assert_eq!(proof.map_or(0, |proof| proof.digest), b.digest().unwrap());
                    restored = Shard::restore(&snapshot, wide_options()).unwrap();
                }
                (a, b) => prop_assert!(false, "{a:?} is not {b:?}"),
            }
        }
        prop_assert_eq!(all.shard.next_offset(), restored.next_offset());
        prop_assert_eq!(all.shard.first_offset(), restored.first_offset());
    }
}
