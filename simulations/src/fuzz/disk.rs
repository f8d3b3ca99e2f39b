//! What lies on a disk, or in an object store, and is read again. A file is damaged as it lies, or damaged and its
//! checksums made right again, as if a bug had written it: it is refused or read, and read the same twice.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use millpond::backup::{self, RestoreProgress, SegmentEntry, SegmentImage, ShardEntry};
use millpond::block::l0::{Encoder, L0};
use millpond::block::l1::L1;
use millpond::block::rows::{Projection, Rows};
use millpond::config::{ClusterFile, NodeFile};
use millpond::entry::{Entry, EntryKind, HardState, Position, Recovered, SegmentMeta, segment_offsets};
use millpond::id::{ClusterId, Index, Key, Offset, ReplicaId, ShardId, Term};
use millpond::query::View;
use millpond::query::plan::Query;
use millpond::query::scan::Scan;
use millpond::shard::{Applied, Command, Shard, ShardError, ShardOptions, SubBatch};
use millpond::storage::disk::{Disk, OpenMode};
use millpond::storage::lossy::LossyDisk;
use millpond::storage::registry::Registry;
use millpond::storage::segment::{Segment, SegmentWriter};
use millpond::storage::snapshot::{self, StoredMetadata};
use millpond::storage::wal::{LogOp, Wal, WalOptions};
use millpond_actors::metadata::StoredIdentity;
use millpond_actors::roster::Roster;

use super::pen::Pen;
use super::sums;
use super::world::{self, LENGTH, START, TENANT};
use super::{Note, Outcome};

const SHARD: ShardId = ShardId(1);
const CLUSTER: &str = include_str!("../../../cluster-config/three/cluster.toml");
const NODE: &str = include_str!("../../../cluster-config/three/node-1.toml");
const BACKUP: &str = "20231114T221320Z-00000007";
const WAL: WalOptions =
    WalOptions { segment_bytes: 8 << 10, bytes_max: 64 << 10, reserve_bytes: 4 << 10, pin_bytes_max: 1 << 10 };
const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[nodes]]",
    b"[retention]",
    b"[backup]",
    b"[http]",
    b"=",
    b"\"",
    b"'''",
    b"\"\"\"",
    b"\\u0000",
    b"{",
    b"}",
    b"#",
    b"\n",
    b"inf",
    b"nan",
    b"-1",
    b"99999999999999999999",
    b"1979-05-27T07:32:00Z",
    b"true",
    b"age = \"1d\"",
];

/// Files as they were written, by their paths.
type Files = Vec<(String, Vec<u8>)>;

/// Good files of every kind.
#[derive(Debug)]
pub(super) struct Good {
    log: Files,
    batches: Vec<Bytes>,
    blocks: Vec<Bytes>,
    segment: (SegmentMeta, Files),
    snapshot: Files,
    metadata: Files,
    registry: Files,
    manifest: Vec<u8>,
    progress: Vec<u8>,
    keys: Vec<Bytes>,
    streams: Vec<Bytes>,
}

fn files(disk: &LossyDisk) -> Files {
    let read = |path: String| {
        let file = disk.open(&path, OpenMode::Read).expect("it is listed");
        let mut bytes = vec![0; usize::try_from(file.len().expect("in memory")).expect("small")];
        file.read_at(0, &mut bytes).expect("in memory");
        (path, bytes)
    };
    disk.paths("").into_iter().map(read).collect()
}

fn disk_of(files: &Files) -> LossyDisk {
    let disk = LossyDisk::new(1);
    for (path, bytes) in files {
        let file = disk.open(path, OpenMode::CreateNew).expect("each path once");
        file.write_at(0, &[bytes]).expect("in memory");
        file.sync().expect("in memory");
        disk.sync_folder(path.rsplit_once('/').map_or("", |(folder, _)| folder)).expect("in memory");
    }
    disk
}

fn log() -> Files {
    let disk = LossyDisk::new(1);
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), WAL, 7).expect("an empty disk");
    let entry = |index, len| Entry {
        index: Index(index),
        term: Term(2),
        kind: EntryKind::Normal,
        payload: Bytes::from(vec![b'e'; len]),
    };
    let hard_state = |commit| Some(HardState { term: Term(2), vote: Some(ReplicaId(1)), commit: Index(commit) });
    for index in 1..=24 {
        for (shard, replica) in [(1, 1), (2, 5)] {
            let entries = vec![entry(index, 40 * index as usize)];
            let op = LogOp::Append { truncate_from: None, entries, hard_state: hard_state(index - 1) };
            wal.append(ShardId(shard), ReplicaId(replica), op).expect("there is room");
        }
        wal.flush().expect("in memory");
        if index == 16 {
            let through = Position { index: Index(9), term: Term(2) };
            wal.append(SHARD, ReplicaId(1), LogOp::Trim { through }).expect("there is room");
            let at = Position { index: Index(12), term: Term(2) };
            let hard_state = HardState { term: Term(2), vote: None, commit: Index(12) };
            wal.append(ShardId(2), ReplicaId(5), LogOp::Install { at, hard_state }).expect("there is room");
            let op = LogOp::Append {
                truncate_from: None,
                entries: (13..=16).map(|at| entry(at, 9)).collect(),
                hard_state: None,
            };
            wal.append(ShardId(2), ReplicaId(5), op).expect("there is room");
        }
    }
    drop(wal);
    files(&disk)
}

impl Good {
    pub(super) fn new() -> Self {
        let disk = LossyDisk::new(1);
        let mut pen = Pen::new(crate::draw::stream(0, "disk"));
        let (mut shard, mut index) = (Shard::new(SHARD, ShardOptions::default()), 0);
        let (mut encoder, mut batches) = (Encoder::new(), Vec::new());
        for _ in 0..6 {
            index += 1;
            let batch = encoder.encode(TENANT, &world::records(&mut pen));
            let sub = SubBatch { key: Key(u128::from(index)), body: 3, part: 0, restored: false, batch: batch.clone() };
            shard.apply(Index(index), Term(1), &Command::encode_batch(&[sub])).expect("a batch");
            batches.push(batch);
        }
        let Ok(Applied::Seal(job)) = shard.apply(Index(index + 1), Term(1), &Command::encode_seal(Index(0))) else {
            panic!("a seal was no seal")
        };
        let segment = world::sealed(&disk, &job);
        let meta = *segment.meta();
        let blocks = (0..segment.blocks().len()).map(|block| segment.read(block).expect("it is whole")).collect();
        let segment = (meta, files(&disk));
        let state = job.snapshot(vec![meta]);
        let (keys, streams) = (state.keys.clone(), state.streams.clone());
        let of = |fill: &dyn Fn(&LossyDisk)| {
            let disk = LossyDisk::new(1);
            fill(&disk);
            files(&disk)
        };
        let snapshot = of(&|disk| snapshot::write(disk, &state, b"conf").expect("in memory"));
        let position = Position { index: Index(7), term: Term(1) };
        let metadata =
            StoredMetadata { position, conf: Bytes::from_static(b"conf"), state: Bytes::from(vec![7; 70_000]) };
        let metadata = of(&|disk| snapshot::write_metadata(disk, &metadata).expect("in memory"));
        let registry = of(&|disk| {
            let disk: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut registry = Registry::open(&disk).expect("in memory");
            registry.set_identity(b"identity").expect("in memory");
        });
        let progress = RestoreProgress::new(BACKUP, ClusterId(9), START).encode().to_vec();
        Self {
            log: log(),
            batches,
            blocks,
            segment,
            snapshot,
            metadata,
            registry,
            manifest: manifest(meta),
            progress,
            keys,
            streams,
        }
    }
}

fn manifest(meta: SegmentMeta) -> Vec<u8> {
    let shards = vec![
        ShardEntry::new(ShardId(0), Position::default(), Vec::new()),
        ShardEntry::new(SHARD, Position { index: Index(7), term: Term(1) }, vec![SegmentEntry::from(&meta)]),
    ];
    let (name, version) = ("three".to_owned(), "0.1.0".to_owned());
    let manifest = backup::Manifest {
        id: BACKUP.to_owned(),
        cluster: 9,
        name,
        version,
        node: 1,
        began: START,
        ended: START + LENGTH,
        retention: None,
        shards,
    };
    manifest.encode().to_vec()
}

pub(super) fn run(pen: &mut Pen, good: &Good, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    match pen.below(13) {
        0 | 1 => read_log(pen, good, note),
        2 | 3 => batch(pen, good, note),
        4 | 5 => block(pen, good, note),
        6 => segment(pen, good, note),
        7 => database(pen, good, note),
        8 => pieces(pen, good, note),
        9 => command(pen, good, note),
        10 => backed_up(pen, good, note),
        11 => stored(pen, note),
        _ => config(pen, corpus, note),
    }
}

/// Damages one of the files, and answers which.
fn damage_one(pen: &mut Pen, files: &mut Files) -> usize {
    let at = pen.below(files.len());
    let others: Vec<Vec<u8>> = files.iter().map(|(_, bytes)| bytes[..bytes.len().min(4_096)].to_vec()).collect();
    let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
    if pen.one_in(20) {
        files.swap_remove(at);
        return 0;
    }
    damage_file(pen, &mut files[at].1, &others);
    at
}

/// Changes in place mostly: what only moves everything behind it is refused at once.
fn damage_file(pen: &mut Pen, bytes: &mut Vec<u8>, others: &[&[u8]]) {
    if pen.one_in(4) || bytes.is_empty() {
        return pen.damage(bytes, &[], others);
    }
    for _ in 0..1 + pen.below(3) {
        // Heads and directories are short and say most.
        let reach = if pen.one_in(2) { bytes.len().min(600) } else { bytes.len() };
        let at = pen.below(reach);
        let number = pen.number().to_le_bytes();
        let width = (1 << pen.below(4)).min(bytes.len() - at);
        match pen.below(3) {
            0 => bytes[at] ^= 1 << pen.below(8),
            _ => bytes[at..at + width].copy_from_slice(&number[..width]),
        }
    }
}

fn read_log(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let mut files = good.log.clone();
    let at = damage_one(pen, &mut files);
    let kind = if pen.one_in(2) {
        files.iter_mut().for_each(|(_, bytes)| sums::log(bytes));
        "log, right sums"
    } else {
        "log"
    };
    note.input(kind, &files.get(at).map(|(path, bytes)| [path.as_bytes(), b"\n", bytes].concat()).unwrap_or_default());
    let disk = disk_of(&files);
    let open = |disk: &LossyDisk| Wal::open(Arc::new(disk.clone()), WAL, 11).map(|(wal, _)| wal);
    let Ok(mut wal) = open(&disk) else { return Ok(false) };
    let loaded = load(&mut wal);
    let Some(((shard, replica), first)) = loaded.first() else { return Ok(false) };
    let last = first.entries.last().map_or(first.trimmed.index, |entry| entry.index);
    drop(wal);
    disk.kill();
    let mut wal = open(&disk).map_err(|error| format!("what opened once does not again: {error}"))?;
    if load(&mut wal) != loaded {
        return Err("what was loaded once is loaded otherwise again".to_owned());
    }
    // What such a log holds may not go on: then it says so.
    if let Some(next) = last.0.checked_add(1) {
        let entry =
            Entry { index: Index(next), term: Term(u64::MAX >> 2), kind: EntryKind::Normal, payload: Bytes::new() };
        let op = LogOp::Append { truncate_from: None, entries: vec![entry], hard_state: None };
        if wal.append(*shard, *replica, op).is_ok() {
            let _ = wal.flush();
        }
    }
    Ok(true)
}

/// Every replica's log that can be loaded.
fn load(wal: &mut Wal) -> Vec<((ShardId, ReplicaId), Recovered)> {
    let owners = wal.shards().into_iter();
    owners.filter_map(|owner| wal.load(owner.0, owner.1).ok().map(|recovered| (owner, recovered))).collect()
}

/// Reads every row, as whoever answers a query may.
fn touch(rows: &Rows) -> usize {
    (0..rows.len())
        .map(|row| {
            let fields: usize = rows.metadata(row).map(|(name, value)| name.len() + value.len()).sum();
            rows.line(row).len() + rows.stream(row).len() + rows.tenant(row).len() + fields
        })
        .sum::<usize>()
        .wrapping_add(rows.digest() as usize & 1)
}

fn damaged_block(pen: &mut Pen, bytes: &Bytes) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    match pen.below(4) {
        0 => damage_file(pen, &mut damaged, &[]),
        1 => {
            damage_file(pen, &mut damaged, &[]);
            sums::block(&mut damaged);
        }
        _ => sums::rewrite_column(pen, &mut damaged),
    }
    damaged
}

fn batch(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let at = pen.below(good.batches.len());
    let bytes: Bytes = damaged_block(pen, &good.batches[at]).into();
    note.input("batch", &bytes);
    let Ok(batch) = L0::open(bytes.clone()) else { return Ok(false) };
    let _ = (batch.len(), batch.streams().len(), batch.tenant().len(), batch.summary(pen.number() >> 1));
    let rows = batch.rows(0, Projection::ALL).map(|rows| touch(&rows)).is_ok();
    if let Ok((tenant, streams)) = backup::replay::decode(bytes.clone()) {
        let again = Encoder::new().encode(&tenant, &streams);
        let read = backup::replay::decode(again);
        if read.as_ref().ok() != Some(&(tenant, streams)) {
            return Err(format!("its records are written and read as {read:?}"));
        }
    }
    // A peer may have sent it, or a log held it: it is applied, asked and sealed.
    let mut shard = Shard::new(SHARD, ShardOptions::default());
    let sub = |key: u128, batch: Bytes| SubBatch { key: Key(key), body: 0, part: 0, restored: false, batch };
    let subs = [sub(1, good.batches[0].clone()), sub(2, bytes.clone()), sub(3, bytes)];
    shard.apply(Index(1), Term(1), &Command::encode_batch(&subs)).map_err(|error| error.to_string())?;
    asked(&view(&shard, Vec::new()));
    if let Ok(Applied::Seal(job)) = shard.apply(Index(2), Term(1), &Command::encode_seal(Index(0))) {
        let proof = job.encode(|_| Ok::<_, ShardError>(()));
        if proof.is_ok() != rows {
            return Err(format!("its rows are {}read and it is sealed as {proof:?}", if rows { "" } else { "not " }));
        }
    }
    Ok(rows)
}

fn view(shard: &Shard, segments: Vec<Arc<Segment>>) -> View {
    View { shard: SHARD, first: Offset(0), end: shard.next_offset(), head: shard.view(), segments }
}

/// A few questions, whose answers do not matter.
fn asked(view: &View) {
    let range = |text: &str| {
        let parameters =
            millpond::query::plan::RangeParameters { start: i64::MIN, end: i64::MAX, ..Default::default() };
        Query::range(text, parameters)
    };
    let selector = "{app=~\".+\"}";
    let questions = [
        range(selector),
        Query::instant("sum by (app) (count_over_time({app=~\".+\"} | json | logfmt [1h]))", START + LENGTH),
        range("{app=~\".+\"} |= \"1\" |~ \"e.*\\\\d\" != \"x=1\""),
        Query::instant("sum(count_over_time({app=~\".+\"} |= \" a\" [1h]))", START + LENGTH),
        Query::stats(selector, i64::MIN, i64::MAX),
        Query::volume(
            selector,
            millpond::query::overview::VolumeParameters { start: START, end: START + LENGTH, ..Default::default() },
        ),
        Query::patterns(selector, START, START + LENGTH, None),
    ];
    for query in questions.into_iter().flatten() {
        for request in query.requests(TENANT) {
            if let Ok(mut scan) = Scan::new(&request, view) {
                while matches!(scan.step(), Ok(true)) {}
                let _ = scan.finish().encode();
            }
        }
    }
}

fn block(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let at = pen.below(good.blocks.len());
    let bytes: Bytes = damaged_block(pen, &good.blocks[at]).into();
    note.input("block", &bytes);
    let Ok(block) = L1::open(bytes.clone()) else { return Ok(false) };
    let _ = (block.summary(), block.streams().len());
    let read = block.rows(Projection::ALL);
    let _ = block.rows(Projection::default());
    // In a segment it is searched as well.
    let summary = L1::open(good.blocks[at].clone()).map_err(|error| error.to_string())?.summary();
    let disk = LossyDisk::new(1);
    let write = || {
        let mut writer = SegmentWriter::create(&disk, SHARD, Offset(summary.first_offset))?;
        writer.push(&bytes, summary, block.streams())?;
        Segment::open(&disk, SHARD, &writer.finish(0)?)
    };
    let segment = write().map_err(|error| error.to_string())?;
    asked(&view(&Shard::new(SHARD, ShardOptions::default()), vec![Arc::new(segment)]));
    Ok(read.map(|rows| touch(&rows)).is_ok())
}

fn segment(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let (mut meta, mut files) = (good.segment.0, good.segment.1.clone());
    let bytes = &mut files[0].1;
    let index_only = pen.one_in(2);
    if index_only {
        sums::damage_index(pen, bytes);
    } else {
        damage_file(pen, bytes, &[]);
    }
    let mended = index_only || pen.one_in(2);
    if mended {
        sums::segment(bytes, &mut meta);
    }
    note.input(if mended { "segment, right sums" } else { "segment" }, bytes);
    let whole: Bytes = bytes.clone().into();
    let disk = disk_of(&files);
    let opened = Segment::open(&disk, SHARD, &meta);
    if let Ok(segment) = &opened {
        for at in 0..segment.blocks().len() {
            let _ = (segment.range(at), segment.streams_of(at).count());
            if let Ok(Ok(block)) = segment.read(at).map(L1::open) {
                let _ = block.rows(Projection::ALL).map(|rows| touch(&rows));
            }
        }
        let _ = segment.verify();
        let shard = Shard::new(SHARD, ShardOptions::default());
        asked(&view(&shard, vec![Arc::new(segment.clone())]));
    }
    let entry = SegmentEntry::from(&meta);
    if let Ok(image) = SegmentImage::open(SHARD, &entry, whole)
        && let Ok(rows) = image.rows()
    {
        let mut replay = backup::replay::Replay::new(BACKUP, SHARD, &entry, rows);
        let mut encoder = Encoder::new();
        while replay.next(&mut encoder).is_some() {}
    }
    let _ = millpond::storage::repair::open(&disk, SHARD, &meta);
    Ok(opened.is_ok())
}

/// redb files: snapshots of both kinds, and the registry.
fn database(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let kind = pen.below(3);
    let mut files = [&good.snapshot, &good.metadata, &good.registry][kind].clone();
    let at = damage_one(pen, &mut files);
    let name = ["snapshot", "metadata snapshot", "registry"][kind];
    note.input(name, files.get(at).map_or(&[], |(_, bytes)| bytes));
    let disk = disk_of(&files);
    Ok(match kind {
        0 => snapshot::latest(&disk, SHARD).is_ok_and(|latest| latest.newest.is_some()),
        1 => snapshot::latest_metadata(&disk).is_ok_and(|latest| latest.newest.is_some()),
        _ => {
            let disk: Arc<dyn Disk> = Arc::new(disk);
            Registry::open(&disk).is_ok_and(|mut registry| {
                let read = registry.identity().is_ok();
                let _ = (registry.roster(), registry.set_identity(b"another"));
                read
            })
        }
    })
}

/// The pieces of a snapshot that only the shard reads.
fn pieces(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let (mut keys, mut streams) = (good.keys.clone(), good.streams.clone());
    let part = if pen.one_in(2) { &mut keys } else { &mut streams };
    if let Some(first) = part.first_mut() {
        let mut bytes = first.to_vec();
        damage_file(pen, &mut bytes, &[]);
        note.input("pieces", &bytes);
        *first = bytes.into();
    }
    let meta = good.segment.0;
    let snapshot = millpond::entry::ShardSnapshot {
        shard: SHARD,
        position: Position { index: Index(7), term: Term(1) },
        first_offset: Offset(0),
        next_offset: Offset(meta.to.0 + 1),
        time: 0,
        segments: vec![meta],
        keys,
        streams,
    };
    let Ok(mut shard) = Shard::restore(&snapshot, ShardOptions::default()) else { return Ok(false) };
    let sub = SubBatch { key: Key(1), body: 3, part: 0, restored: false, batch: good.batches[0].clone() };
    let stamped = Command::stamp(Command::encode_batch(&[sub]), pen.number());
    shard.apply(Index(8), Term(1), &stamped).map_err(|error| error.to_string())?;
    let Ok(Applied::Seal(job)) = shard.apply(Index(9), Term(1), &Command::encode_seal(Index(0))) else {
        return Err("a seal was no seal".to_owned());
    };
    let again = Shard::restore(&job.snapshot(Vec::new()), ShardOptions::default());
    again.map(|_| true).map_err(|error| format!("what it writes is not read: {error}"))
}

fn command(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let sub = |key| SubBatch { key: Key(key), body: 3, part: 0, restored: false, batch: good.batches[0].clone() };
    let bytes = match pen.below(4) {
        0 => Command::encode_seal(Index(4)),
        1 => Command::encode_drop(Offset(3)),
        _ => Command::encode_batch(&[sub(1), sub(2)]),
    };
    let mut bytes = bytes.to_vec();
    damage_file(pen, &mut bytes, &[]);
    sums::command(&mut bytes);
    note.input("shard command", &bytes);
    let bytes: Bytes = bytes.into();
    let decoded = Command::decode(&bytes);
    let mut shard = Shard::new(SHARD, ShardOptions::default());
    for index in 1..3 {
        let applied = shard.apply(Index(index), Term(1), &bytes).map_err(|error| error.to_string())?;
        if matches!(applied, Applied::Malformed) == decoded.is_ok() {
            return Err(format!("it decodes to {decoded:?} and is applied as {applied:?}"));
        }
    }
    if let Ok(Command::Batch { subs, .. }) = &decoded {
        let again = Command::decode(&Command::encode_batch(subs));
        if !matches!(&again, Ok(Command::Batch { subs: again, .. }) if again == subs) {
            return Err(format!("{subs:?} is written and read as {again:?}"));
        }
    }
    Ok(decoded.is_ok())
}

/// JSON of backups, and names of files.
fn backed_up(pen: &mut Pen, good: &Good, note: &mut Note) -> Outcome {
    let words: &[&[u8]] = &[b"{", b"}", b"[", b"]", b"\"", b"null", b"-1", b"18446744073709551615", b"1e9", b","];
    let manifest = pen.one_in(2);
    let mut bytes = if manifest { good.manifest.clone() } else { good.progress.clone() };
    pen.damage(&mut bytes, words, &[]);
    if manifest {
        sums::manifest(&mut bytes);
        note.input("manifest of a backup", &bytes);
        let Ok(read) = backup::Manifest::decode(BACKUP, &bytes) else { return Ok(false) };
        let _ = (read.cluster(), read.bytes(), read.records(), read.segments().count());
        for (shard, entry) in read.segments() {
            let _ = (shard, entry.object(), segment_offsets(&entry.meta().name()));
        }
        let again = backup::Manifest::decode(BACKUP, &read.encode());
        return if again.as_ref().ok() == Some(&read) {
            Ok(true)
        } else {
            Err(format!("{read:?} is read as {again:?}"))
        };
    }
    note.input("progress of a restore", &bytes);
    let Ok(read) = RestoreProgress::decode(BACKUP, ClusterId(9), &bytes) else { return Ok(false) };
    let _ = read.is_fresh(START);
    let again = RestoreProgress::decode(BACKUP, ClusterId(9), &read.encode());
    if again.as_ref().ok() == Some(&read) { Ok(true) } else { Err(format!("{read:?} is read as {again:?}")) }
}

/// What the registry keeps for the node, as the node reads it.
fn stored(pen: &mut Pen, note: &mut Note) -> Outcome {
    let disk: Arc<dyn Disk> = Arc::new(LossyDisk::new(1));
    let mut registry = Registry::open(&disk).map_err(|error| error.to_string())?;
    let mut roster = Roster::default();
    let members = millpond::entry::Members::of([ReplicaId(4), ReplicaId(5)], [ReplicaId(6)]);
    roster.begin(SHARD, ReplicaId(4), &members);
    roster.write(&mut registry).map_err(|error| error.to_string())?;
    let mut bytes = registry.roster().ok().flatten().ok_or("a roster was written and is not there")?.to_vec();
    damage_file(pen, &mut bytes, &[]);
    note.input("roster", &bytes);
    if bytes.is_empty() {
        return Ok(false);
    }
    registry.set_roster(&bytes).map_err(|error| error.to_string())?;
    registry.set_identity(&bytes).map_err(|error| error.to_string())?;
    let identity = StoredIdentity::read(&mut registry).is_ok();
    let Ok(roster) = Roster::read(&mut registry) else { return Ok(identity) };
    let _ = roster.standing(SHARD, ReplicaId(4));
    Ok(true)
}

fn config(pen: &mut Pen, corpus: &[Vec<u8>], note: &mut Note) -> Outcome {
    let cluster = pen.one_in(2);
    let mut bytes = if cluster { CLUSTER.as_bytes().to_vec() } else { NODE.as_bytes().to_vec() };
    // What stands behind a `#` is an example: now it counts.
    if pen.one_in(2) {
        bytes = String::from_utf8_lossy(&bytes).replace("\n# ", "\n").into_bytes();
    }
    if let Some(other) = (!corpus.is_empty() && pen.one_in(4)).then(|| &corpus[pen.below(corpus.len())]) {
        bytes.clone_from(other);
    }
    if !pen.one_in(8) {
        pen.damage(&mut bytes, TOML, &[NODE.as_bytes(), CLUSTER.as_bytes()]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    note.input(if cluster { "cluster file" } else { "node file" }, text.as_bytes());
    let (cluster, node) = if cluster { (text.as_str(), NODE) } else { (CLUSTER, text.as_str()) };
    let Ok(cluster) = ClusterFile::parse(cluster, "cluster.toml").map_err(|error| error.to_string()) else {
        return Ok(false);
    };
    let Ok(node) = NodeFile::parse(node, "node.toml").map_err(|error| error.to_string()) else { return Ok(false) };
    match node.resolve("node.toml", Some((cluster, "cluster.toml"))) {
        Ok(config) => {
            let _ = (config.to_toml(), config.cluster.fingerprint());
            Ok(true)
        }
        Err(error) => {
            let _ = error.to_string();
            Ok(false)
        }
    }
}
