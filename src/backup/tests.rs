use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::replay::{self, Replay};
use super::wire::{LookRequest, Request, SealRequest, Sealed};
use super::*;
use crate::block::l0::Encoder;
use crate::block::l1;
use crate::entry::{Position, SegmentMeta};
use crate::id::{ClusterId, Index, Offset, ShardId, Term};
use crate::label::Labels;
use crate::limits::{BACKUP_REUSE_AGE, BACKUP_RUN_MAX, BACKUP_SAFETY, KEY_LIFE, LINE_BYTES_MAX};
use crate::record::{Record, Stream, StreamRecords};
use crate::storage::disk::{Disk, OpenMode};
use crate::storage::lossy::LossyDisk;
use crate::storage::segment::{SegmentWriter, folder};

const SHARD: ShardId = ShardId(3);
const CLUSTER: ClusterId = ClusterId(77);
const HOUR: Duration = Duration::from_secs(3_600);

fn segment(from: u64, digest: u128, hash: u128) -> SegmentMeta {
    SegmentMeta {
        from: Offset(from),
        to: Offset(from + 9),
        bytes: 100,
        hash,
        digest,
        min_timestamp: -5,
        max_timestamp: i64::MAX,
        raw_bytes: 1_000,
    }
}

fn retention() -> RetentionEntry {
    let rule = RuleEntry { selector: r#"{app="debug"}"#.to_owned(), age: "1d".to_owned(), tenant: None };
    RetentionEntry { age: Some("30d".to_owned()), bytes: None, rules: vec![rule] }
}

fn manifest(id: &str, cluster: ClusterId, segments: &[SegmentMeta]) -> Manifest {
    let position = Position { index: Index(4), term: Term(2) };
    let entries = segments.iter().map(SegmentEntry::from).collect();
    Manifest {
        id: id.to_owned(),
        cluster: cluster.0,
        name: "test \"cluster\"".to_owned(),
        version: "0.1.0".to_owned(),
        node: 2,
        began: 1,
        ended: 2,
        retention: Some(retention()),
        shards: vec![
            ShardEntry::new(ShardId(0), Position::default(), Vec::new()),
            ShardEntry::new(SHARD, position, entries),
        ],
    }
}

#[test]
fn ids_sort_by_time_and_are_told_from_other_names() {
    let first = backup_id("2026-11-21T20:05:09.123Z", 0xffff_ffff);
    assert_eq!(first, "20261121T200509Z-ffffffff");
    assert!(first < backup_id("2026-11-21T20:05:10.000Z", 0));
    assert_eq!(manifest_id(&format!("{first}.json")), Some(first.as_str()));
    for other in ["a", ".json", "a/b.json", "ü.json", "a b.json"] {
        assert_eq!(manifest_id(other), None, "{other}");
    }
}

#[test]
fn a_manifest_of_another_backup_or_out_of_order_is_refused() {
    let good = manifest("a", CLUSTER, &[segment(0, 1, 1), segment(10, 2, 2)]);
    assert_eq!(Manifest::decode("a", &good.encode()).unwrap(), good);
    assert_eq!((good.bytes(), good.records()), (200, 20));
    assert!(Manifest::decode("b", &good.encode()).is_err());
    let overlapping = manifest("a", CLUSTER, &[segment(0, 1, 1), segment(9, 2, 2)]);
    assert!(Manifest::decode("a", &overlapping.encode()).is_err());
    let mut twice = good;
    twice.shards[0].shard = SHARD.0;
    assert!(Manifest::decode("a", &twice.encode()).is_err());
}

#[test]
fn a_manifest_of_a_newer_version_says_so() {
    let text = String::from_utf8(manifest("a", CLUSTER, &[]).encode().to_vec()).unwrap();
    let newer = text.replacen("\"millpond_backup\":2", "\"millpond_backup\":3", 1);
    assert!(matches!(Manifest::decode("a", newer.as_bytes()), Err(BackupError::Version { found: 3, .. })));
}

#[test]
fn a_manifest_of_version_1_says_nothing_of_the_retention() {
    let body = r#"{"id":"a","cluster":"0000000000000000000000000000004d","name":"n","version":"0.1.0","node":2,"began":1,"ended":2,"shards":[]}"#;
    let sum = xxhash_rust::xxh3::xxh3_128(body.as_bytes());
    let head = format!(r#"{{"millpond_backup":1,"bytes":{},"xxh3_128":"{sum:032x}"}}"#, body.len());
    let read = Manifest::decode("a", format!("{head}\n{body}\n").as_bytes()).unwrap();
    assert_eq!((read.retention, read.cluster), (None, CLUSTER.0));
}

#[test]
fn messages_between_nodes_read_back() {
    let request = SealRequest { shard: SHARD };
    assert_eq!(SealRequest::decode(&request.encode()).unwrap(), request);
    for manifest in [None, Some(serde_bytes::ByteBuf::from(vec![1, 2, 3]))] {
        let sealed = Sealed { end: Offset(9), manifest };
        assert_eq!(Sealed::decode(&sealed.encode()).unwrap(), sealed);
    }
    assert_eq!(Request::decode(&request.encode()).unwrap(), Request::Seal(request));
    let look = LookRequest { shard: SHARD, offset: Offset(7) };
    assert_eq!(look.encode(), &b"\x02\x92\x03\x07"[..]);
    assert_eq!(Request::decode(&look.encode()).unwrap(), Request::Look(look));
    assert!(matches!(Request::decode(&[3, 0]), Err(BackupError::Message { found: Some(3) })));
    assert!(matches!(Sealed::decode(&[2, 0]), Err(BackupError::Message { found: Some(2) })));
    assert!(matches!(Sealed::decode(&[]), Err(BackupError::Message { found: None })));
}

#[test]
fn progress_belongs_to_one_restore_and_grows_old() {
    let mut progress = RestoreProgress::new("a", CLUSTER, 5);
    progress.done.insert(3, 17);
    let bytes = progress.encode();
    assert_eq!(RestoreProgress::decode("a", CLUSTER, &bytes).unwrap(), progress);
    assert!(RestoreProgress::decode("b", CLUSTER, &bytes).is_err());
    assert!(RestoreProgress::decode("a", ClusterId(1), &bytes).is_err());
    assert!(progress.is_fresh(6) && !progress.is_fresh(i64::try_from(KEY_LIFE.as_nanos()).unwrap()));
}

#[test]
fn what_retention_has_ended_is_not_backed_up() {
    let segments = vec![segment(0, 1, 1), segment(10, 2, 2), segment(20, 3, 3)];
    assert_eq!(left(segments.clone(), Offset(0)), segments);
    assert_eq!(left(segments.clone(), Offset(10)), segments[1..]);
    assert_eq!(left(segments.clone(), Offset(19)), segments[1..], "one that is needed in part stays whole");
    assert_eq!(left(segments, Offset(30)), []);
}

fn listed(files: &[(&SegmentMeta, Duration)]) -> BTreeMap<String, Listed> {
    let file = |(meta, age): &(&SegmentMeta, Duration)| {
        (SegmentEntry::from(*meta).object(), Listed { bytes: meta.bytes, age: *age })
    };
    files.iter().map(file).collect()
}

#[test]
fn what_the_last_backup_holds_is_not_uploaded_again_not_even_where_a_new_leader_encoded_it_otherwise() {
    let (same, otherwise, new) = (segment(0, 1, 1), segment(10, 2, 2), segment(20, 3, 3));
    let last = manifest("a", CLUSTER, &[same, otherwise]);
    let files = listed(&[(&same, BACKUP_SAFETY * 9), (&otherwise, BACKUP_SAFETY * 9)]);
    let of_new_leader = SegmentMeta { hash: 22, bytes: 101, ..otherwise };
    let steps = plan(SHARD, &[same, of_new_leader, new], &Known::new(Some(&last), files));
    let entry = |meta: &SegmentMeta| SegmentEntry::from(meta);
    assert_eq!(steps, [Step::Reuse(entry(&same)), Step::Reuse(entry(&otherwise)), Step::Upload(entry(&new))]);
}

#[test]
fn a_file_that_is_lost_or_too_old_to_be_relied_on_is_uploaded_again() {
    let (lost, old, young, cut) = (segment(0, 1, 1), segment(10, 2, 2), segment(20, 3, 3), segment(30, 4, 4));
    let last = manifest("a", CLUSTER, &[lost]);
    let mut files = listed(&[(&old, BACKUP_REUSE_AGE), (&young, BACKUP_REUSE_AGE - HOUR), (&cut, HOUR)]);
    files.get_mut(&SegmentEntry::from(&cut).object()).unwrap().bytes -= 1;
    let steps = plan(SHARD, &[lost, old, young, cut], &Known::new(Some(&last), files));
    let kinds: Vec<bool> = steps.iter().map(|step| matches!(step, Step::Upload(_))).collect();
    assert_eq!(kinds, [true, true, false, true]);
}

#[test]
fn a_schedule_leaves_the_backups_of_other_clusters_alone() {
    let other = manifest("0", ClusterId(9), &[segment(0, 1, 1)]);
    let own: Vec<Manifest> = ["a", "b", "c"].iter().map(|id| manifest(id, CLUSTER, &[])).collect();
    let catalogue = Catalogue { live: own.into_iter().chain([other]).collect(), ..Catalogue::default() };
    assert_eq!(expire(&catalogue, CLUSTER, 2), Expiry { retire: vec!["a".to_owned()], ..Expiry::default() });
    assert_eq!(expire(&catalogue, CLUSTER, 3), Expiry::default());
}

/// A store, backups that run in it, and what removes: time passes between any two of their steps.
#[derive(Default)]
struct Store {
    now: Duration,
    files: BTreeMap<String, Duration>,
    live: Vec<Manifest>,
    retired: Vec<(Manifest, Duration)>,
    running: Vec<Run>,
    removals: Vec<Expiry>,
    runs: u64,
}

struct Run {
    began: Duration,
    steps: Vec<Step>,
    at: usize,
}

impl Store {
    fn begin(&mut self, segments: &[SegmentMeta]) {
        let age = |written: &Duration| self.now - *written;
        let files = self.files.iter().map(|(name, written)| (name.clone(), Listed { bytes: 100, age: age(written) }));
        let newest = self.live.iter().max_by_key(|manifest| manifest.id.clone());
        let steps = plan(SHARD, segments, &Known::new(newest, files.collect()));
        self.running.push(Run { began: self.now, steps, at: 0 });
    }

    fn go_on(&mut self, run: usize) {
        let Some(at) = run.checked_rem(self.running.len()) else { return };
        let run = &mut self.running[at];
        if self.now - run.began > BACKUP_RUN_MAX {
            self.running.remove(at);
            return;
        }
        if let Some(step) = run.steps.get(run.at) {
            run.at += 1;
            if let Step::Upload(entry) = step {
                self.files.insert(entry.object(), self.now);
            }
            return;
        }
        let run = self.running.remove(at);
        let entries = run.steps.iter().map(|step| match step {
            Step::Reuse(entry) | Step::Upload(entry) => *entry,
        });
        self.runs += 1;
        let mut whole = manifest(&format!("{:09}", self.runs), CLUSTER, &[]);
        whole.shards = vec![ShardEntry::new(SHARD, Position::default(), entries.collect())];
        self.live.push(whole);
    }

    /// One node reads the catalogue; what it decides is carried out later.
    fn look(&mut self, keep: usize) {
        let dated =
            |(manifest, retired): &(Manifest, Duration)| Dated { manifest: manifest.clone(), age: self.now - *retired };
        let catalogue = Catalogue {
            live: self.live.clone(),
            retired: self.retired.iter().map(dated).collect(),
            files: self.files.iter().map(|(name, written)| (name.clone(), self.now - *written)).collect(),
        };
        self.removals.push(expire(&catalogue, CLUSTER, keep));
    }

    fn remove(&mut self) {
        let Some(expiry) = self.removals.pop() else { return };
        for id in expiry.retire {
            if let Some(at) = self.live.iter().position(|manifest| manifest.id == id) {
                self.retired.push((self.live.remove(at), self.now));
            }
        }
        self.files.retain(|name, _| !expiry.files.contains(name));
        self.retired.retain(|(manifest, _)| !expiry.forget.contains(&manifest.id));
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for manifest in &self.live {
            for (_, segment) in manifest.segments() {
                prop_assert!(self.files.contains_key(&segment.object()), "{} lacks {}", manifest.id, segment.from);
            }
        }
        Ok(())
    }
}

/// Stream, timestamp, line, metadata.
type Row = (u8, i64, String, Vec<(String, String)>);

fn records() -> impl Strategy<Value = Vec<Row>> {
    let field = ("[a-z]{1,6}", "[ -~]{0,12}");
    let line = prop_oneof![8 => ".{0,60}", 1 => Just("x".repeat(LINE_BYTES_MAX))];
    prop::collection::vec((0_u8..6, any::<i64>(), line, prop::collection::vec(field, 0..4)), 1..60)
}

fn stream(number: u8) -> Stream {
    let tenant = if number < 4 { "one" } else { "two" };
    Stream { tenant: tenant.into(), labels: Labels::new([("app", format!("{}", number % 3)), ("ü", "ö".to_owned())]) }
}

/// The object of a segment with these records, in blocks of at most so many rows.
fn sealed(records: &[Row], block_rows: usize) -> (SegmentEntry, Bytes) {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|at| (stream(records[*at].0), records[*at].1, *at));
    let disk = LossyDisk::new(1);
    let mut writer = SegmentWriter::create(&disk, SHARD, Offset(100)).unwrap();
    let mut digest = 0_u128;
    for rows in order.chunks(block_rows) {
        let mut encoder = l1::Encoder::new();
        for at in rows {
            let (of, timestamp, line, metadata) = &records[*at];
            let metadata: Vec<(&[u8], &[u8])> =
                metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            encoder.push(&stream(*of), 100 + *at as u64, *timestamp, line.as_bytes(), metadata.into_iter());
        }
        let block = encoder.finish();
        let opened = l1::L1::open(block.clone()).unwrap();
        digest = digest.wrapping_add(opened.rows(crate::block::rows::Projection::ALL).unwrap().digest());
        writer.push(&block, opened.summary(), opened.streams()).unwrap();
    }
    let meta = writer.finish(digest).unwrap();
    let file = disk.open(&format!("{}/{}", folder(SHARD), meta.name()), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(meta.bytes).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    (SegmentEntry::from(&meta), bytes.into())
}

fn requests(entry: &SegmentEntry, bytes: &Bytes) -> Vec<replay::Request> {
    let rows = SegmentImage::open(SHARD, entry, bytes.clone()).unwrap().rows().unwrap();
    let mut replay = Replay::new("backup", SHARD, entry, rows);
    let mut encoder = Encoder::new();
    let requests: Vec<replay::Request> = std::iter::from_fn(|| replay.next(&mut encoder)).collect();
    assert_eq!(replay.left(), 0);
    requests
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manifest_reads_back_and_a_damaged_one_never_does(
        segments in prop::collection::vec((any::<u128>(), any::<u128>()), 0..8), at: prop::sample::Index, bit in 0..8_u8, cut: bool,
    ) {
        let segments: Vec<SegmentMeta> = (0..).zip(segments).map(|(at, (hash, digest))| segment(at * 10, digest, hash)).collect();
        let manifest = manifest("20261121T200509Z-00000001", CLUSTER, &segments);
        let mut bytes = manifest.encode().to_vec();
        prop_assert_eq!(&Manifest::decode(&manifest.id, &bytes).unwrap(), &manifest);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        // A letter of the head may change its case and still be the same digit.
        if let Ok(read) = Manifest::decode(&manifest.id, &bytes) {
            prop_assert!(!cut);
            prop_assert_eq!(read, manifest);
        }
    }

    #[test]
    fn a_backup_that_exists_never_lacks_a_file_however_runs_and_removals_meet(
        steps in prop::collection::vec((0_u8..7, any::<usize>(), 1_u64..60), 1..300), keep in 1_usize..4,
    ) {
        let mut store = Store::default();
        let mut segments: Vec<SegmentMeta> = Vec::new();
        for (what, which, hours) in steps {
            match what {
                0 => store.begin(&segments),
                1 | 2 => store.go_on(which),
                3 => store.look(keep),
                // What was decided is carried out before time passes: nobody takes a day for it.
                4 => store.now += HOUR * u32::try_from(hours).unwrap(),
                5 => {
                    let from = segments.last().map_or(0, |last| last.to.0 + 1);
                    segments.push(segment(from, u128::from(from), u128::from(from)));
                }
                // A new leader: the same records in other bytes.
                _ => segments.iter_mut().for_each(|meta| meta.hash = (which as u128) << 64 | u128::from(meta.from.0)),
            }
            store.remove();
            store.check()?;
        }
    }

    #[test]
    fn a_replayed_segment_gives_back_every_record_and_each_stream_in_the_order_of_offsets(
        records in records(), block_rows in 1_usize..40,
    ) {
        let (entry, bytes) = sealed(&records, block_rows);
        let requests = requests(&entry, &bytes);
        let keys: BTreeSet<_> = requests.iter().map(|request| request.key).collect();
        prop_assert_eq!(keys.len(), requests.len(), "each has its own key");
        let mut found: BTreeMap<Stream, Vec<Record>> = BTreeMap::new();
        for request in &requests {
            let (tenant, streams) = replay::decode(request.body.clone()).unwrap();
            let count: usize = streams.iter().map(|stream| stream.records.len()).sum();
            prop_assert_eq!(count, request.records);
            for StreamRecords { labels, records } in streams {
                found.entry(Stream { tenant: tenant.clone(), labels }).or_default().extend(records);
            }
        }
        let mut expected: BTreeMap<Stream, Vec<Record>> = BTreeMap::new();
        for (of, timestamp, line, metadata) in &records {
            let metadata = metadata.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
            let record = Record { timestamp: *timestamp, line: line.as_str().into(), metadata };
            expected.entry(stream(*of)).or_default().push(record);
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_requests_of_a_segment_do_not_depend_on_how_it_was_cut_into_blocks(records in records(), rows in 1_usize..40) {
        let ((one, one_bytes), (other, other_bytes)) = (sealed(&records, rows), sealed(&records, 1_000));
        prop_assert_eq!((one.from, one.to, one.digest), (other.from, other.to, other.digest));
        prop_assert_eq!(requests(&one, &one_bytes), requests(&other, &other_bytes));
    }

    #[test]
    fn every_flipped_bit_of_an_object_is_found(records in records(), at: prop::sample::Index, bit in 0..8_u8) {
        let (entry, bytes) = sealed(&records, 20);
        let mut damaged = bytes.to_vec();
        damaged[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(SegmentImage::open(SHARD, &entry, damaged.clone().into()).is_err());
        // Also where somebody made the name anew from the damaged bytes.
        let renamed = SegmentEntry { hash: xxhash_rust::xxh3::xxh3_128(&damaged), ..entry };
        let found = SegmentImage::open(SHARD, &renamed, damaged.into()).and_then(|image| image.rows());
        prop_assert!(found.is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_request(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(replay::decode(bytes.into()).is_err());
    }
}
