//! Copies between disks in memory, against sources that fail, lie, restart and move on.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::wire::{ChunkRequest, Manifest};
use super::*;
use crate::entry::{Position, SegmentMeta};
use crate::id::{Index, NodeId, ShardId};
use crate::limits::{TRANSFER_CHUNK_BYTES, TRANSFER_CHUNKS_IN_FLIGHT, TRANSFER_ROUNDS_MAX, TRANSFER_TICK};
use crate::storage::copy::tests::{seal, write_snapshot};
use crate::storage::copy::{self, PART};
use crate::storage::disk::Disk;
use crate::storage::lossy::{Draws, LossyDisk};
use crate::storage::segment::{Segment, folder};
use crate::storage::snapshot;

const SHARD: ShardId = ShardId(2);
const NODE: NodeId = NodeId(9);
const WANTED: Index = Index(40);

/// Bytes of a segment, from a part of a piece to several pieces; they depend on the flavour.
fn segment_bytes(at: u64, flavour: u64) -> Vec<u8> {
    let mut draws = Draws::new(at << 8 | flavour);
    let words = TRANSFER_CHUNK_BYTES / 8 * (at as usize % 3) + draws.below(9_000) as usize + 1;
    (0..words).flat_map(|_| draws.draw().to_le_bytes()).collect()
}

fn write_state(disk: &LossyDisk, index: u64, segments: u64, flavour: u64) {
    let sealed = |at| seal(disk, SHARD, at, &segment_bytes(at, flavour));
    let segments: Vec<SegmentMeta> = (0..segments).map(sealed).collect();
    write_snapshot(disk, SHARD, index, &segments);
}

fn state(seed: u64, index: u64, segments: u64, flavour: u64) -> LossyDisk {
    let disk = LossyDisk::new(seed);
    if index > 0 {
        write_state(&disk, index, segments, flavour);
    }
    disk
}

/// The newest snapshot of a disk, with the digests of its segments, every byte of which is right.
fn whole(disk: &LossyDisk) -> Option<(Index, Vec<u128>)> {
    let latest = snapshot::latest(disk, SHARD).unwrap();
    assert!(latest.damaged.is_empty(), "{:?}", latest.damaged);
    let snapshot = latest.newest?.snapshot;
    for meta in &snapshot.segments {
        Segment::open(disk, SHARD, meta).and_then(|segment| segment.verify()).unwrap();
    }
    Some((snapshot.position.index, snapshot.segments.iter().map(|meta| meta.digest).collect()))
}

/// A node that others copy from.
struct Source {
    disk: LossyDisk,
    leases: Leases,
    /// Of a hundred pieces so many have a byte that is wrong.
    lies: u64,
}

impl Source {
    fn new(disk: LossyDisk) -> Self {
        Self { disk, leases: Leases::new(0), lies: 0 }
    }

    fn manifest(&mut self, now: Duration) -> Result<Manifest, Failure> {
        let Some(newest) = copy::newest(&self.disk, SHARD).unwrap() else {
            return Err(Failure::Lost("nothing here".to_owned()));
        };
        let lease =
            self.leases.give(now, NODE, Purpose::Replica, SHARD, newest.position.index, &newest.segments).unwrap();
        let (bytes, hash) = (newest.file.bytes, newest.file.hash);
        Ok(Manifest { lease, position: newest.position, bytes, hash, segments: newest.segments })
    }

    fn chunk(&mut self, now: Duration, request: &ChunkRequest, draws: &mut Draws) -> Result<Bytes, Failure> {
        let gone = || Failure::Gone("no such lease or file".to_owned());
        let path = self.leases.used(now, NODE, request.lease, SHARD, request.file).ok_or_else(gone)?;
        let read = copy::read_piece(&self.disk, &path, request.offset, request.length as usize).unwrap();
        let mut piece = read.ok_or_else(gone)?.to_vec();
        if draws.below(100) < self.lies {
            let at = draws.below(piece.len() as u64) as usize;
            piece[at] ^= 1 << draws.below(8);
        }
        Ok(piece.into())
    }
}

/// One node that copies, its sources, and what is on its way.
struct World {
    now: Duration,
    draws: Draws,
    /// Of a hundred calls so many fail.
    losses: u64,
    disk: LossyDisk,
    sources: Vec<Source>,
    fetch: Fetch,
    pending: Vec<Effect>,
    outcome: Option<Result<Position, String>>,
    chunks: u64,
    copied: u64,
}

impl World {
    fn new(seed: u64, disk: LossyDisk, sources: Vec<Source>) -> Self {
        let fetch = Self::fetch(&sources);
        let draws = Draws::new(seed);
        let (now, losses, pending, outcome) = (Duration::from_secs(1), 0, Vec::new(), None);
        Self { now, draws, losses, disk, sources, fetch, pending, outcome, chunks: 0, copied: 0 }
    }

    fn fetch(sources: &[Source]) -> Fetch {
        Fetch::new(SHARD, WANTED, (0..sources.len() as u64).map(NodeId).collect())
    }

    /// The process dies, with or without the machine, and a new copy begins.
    fn restart(&mut self) {
        if self.draws.below(2) == 0 {
            self.disk.crash()
        } else {
            self.disk.kill()
        }
        self.fetch = Self::fetch(&self.sources);
        self.pending.clear();
    }

    fn event(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.fetch.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Arrived(arrived) => self.outcome = Some(Ok(arrived.position)),
                Effect::GaveUp { why } => self.outcome = Some(Err(why)),
                Effect::Survey { .. }
                | Effect::AskManifest { .. }
                | Effect::AskChunk { .. }
                | Effect::Append { .. }
                | Effect::Measure { .. }
                | Effect::Install { .. } => self.pending.push(effect),
            }
        }
        let work = |effect: &&Effect| !matches!(effect, Effect::AskManifest { .. } | Effect::AskChunk { .. });
        assert!(self.pending.iter().filter(work).count() <= 1, "{:?}", self.pending);
        let progress = self.fetch.progress();
        assert!(progress.bytes.0 <= progress.bytes.1 && progress.files.0 <= progress.files.1, "{progress:?}");
    }

    /// Carries out any of what is on its way, or lets time pass.
    fn step(&mut self) {
        if self.pending.is_empty() {
            self.now += TRANSFER_TICK;
            return self.event(Event::Tick);
        }
        let at = self.draws.below(self.pending.len() as u64) as usize;
        let effect = self.pending.swap_remove(at);
        let lost = self.draws.below(100) < self.losses;
        let failure = match self.draws.below(3) {
            0 => Failure::Busy("busy".to_owned()),
            1 => Failure::Gone("gone".to_owned()),
            _ => Failure::Lost("lost".to_owned()),
        };
        let event = match effect {
            Effect::AskManifest { ticket, source } => {
                let outcome = self.sources[source.0 as usize].manifest(self.now);
                Event::Manifest { ticket, outcome: if lost { Err(failure) } else { outcome } }
            }
            Effect::AskChunk { ticket, source, request } => {
                self.chunks += 1;
                assert!(request.length as usize <= TRANSFER_CHUNK_BYTES && request.length > 0);
                let outcome = self.sources[source.0 as usize].chunk(self.now, &request, &mut self.draws);
                Event::Chunk { ticket, outcome: if lost { Err(failure) } else { outcome } }
            }
            Effect::Survey { ticket } => {
                Event::Surveyed { ticket, outcome: copy::survey(&self.disk, SHARD).map_err(|error| error.to_string()) }
            }
            Effect::Append { ticket, name, bytes, offset, piece } => {
                let path = format!("{}/{name}{PART}", folder(SHARD));
                assert!(offset == 0 || self.disk.file_bytes(&path) == Some(offset), "a hole or an overlap in {name}");
                self.copied += piece.len() as u64;
                let outcome = copy::append(&self.disk, SHARD, &name, bytes, offset, &piece);
                Event::Appended { ticket, outcome: outcome.map_err(|error| error.to_string()) }
            }
            Effect::Measure { ticket, name } => {
                let outcome = copy::measure(&self.disk, SHARD, &name).map_err(|error| error.to_string());
                Event::Measured { ticket, outcome }
            }
            Effect::Install { ticket, incoming } => {
                let outcome = copy::install(&self.disk, &incoming).map_err(|error| error.to_string());
                Event::Installed { ticket, outcome }
            }
            Effect::Arrived(_) | Effect::GaveUp { .. } => unreachable!("taken when they came"),
        };
        self.event(event);
    }

    fn run(&mut self) -> Result<Position, String> {
        for _ in 0..20_000 {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.step();
        }
        panic!("a copy neither arrives nor is given up: {:?}", self.fetch);
    }
}

fn bytes_of(disk: &LossyDisk, part: &str) -> u64 {
    disk.paths(part).iter().filter_map(|path| disk.file_bytes(path)).sum()
}

#[test]
fn a_copy_into_an_empty_folder_is_what_the_source_has_and_each_byte_travels_once() {
    let source = state(1, 45, 5, 0);
    let total = bytes_of(&source, "/");
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    assert_eq!(world.run().unwrap().index, Index(45));
    world.disk.crash();
    assert_eq!(whole(&world.disk), whole(&source));
    assert_eq!(world.copied, total);
    assert!(world.fetch.is_over());
}

#[test]
fn only_what_is_lacking_is_copied() {
    let source = state(1, 45, 5, 0);
    let target = state(2, 30, 3, 0);
    let total = bytes_of(&source, "/") - bytes_of(&target, ".blocks");
    let mut world = World::new(1, target, vec![Source::new(source)]);
    world.run().unwrap();
    assert_eq!(world.copied, total);
    assert!(whole(&world.disk).is_some());
}

#[test]
fn own_segments_of_other_bytes_stay_and_are_not_copied() {
    let source = state(1, 45, 5, 0);
    let target = state(2, 30, 3, 1);
    let own = copy::survey(&target, SHARD).unwrap().own;
    let mut world = World::new(1, target, vec![Source::new(source)]);
    world.run().unwrap();
    assert_eq!(copy::survey(&world.disk, SHARD).unwrap().own[..3], own);
    assert_eq!(whole(&world.disk).unwrap().1, [1, 2, 3, 4, 5]);
}

#[test]
fn a_damaged_own_segment_is_copied_anew() {
    let target = state(2, 30, 3, 0);
    let damaged = copy::survey(&target, SHARD).unwrap().own[1];
    assert!(target.flip_bit(&format!("{}/{}", folder(SHARD), damaged.name()), 400, 3));
    let mut world = World::new(1, target, vec![Source::new(state(1, 45, 5, 0))]);
    world.run().unwrap();
    assert!(whole(&world.disk).is_some());
}

#[test]
fn an_older_snapshot_and_a_node_without_one_are_passed_over() {
    let sources =
        vec![Source::new(state(1, 39, 5, 0)), Source::new(LossyDisk::new(3)), Source::new(state(4, 41, 5, 0))];
    let mut world = World::new(1, LossyDisk::new(2), sources);
    assert_eq!(world.run().unwrap().index, Index(41));
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(state(1, 39, 5, 0))]);
    let why = world.run().unwrap_err();
    assert!(why.contains("is through 39, 40 is needed"), "{why}");
}

#[test]
fn wrong_bytes_are_never_installed_and_another_source_makes_them_good() {
    let liar = || Source { lies: 100, ..Source::new(state(1, 45, 5, 0)) };
    let mut world = World::new(1, state(2, 30, 2, 0), vec![liar()]);
    let why = world.run().unwrap_err();
    assert!(why.contains("has not the length and hash"), "{why}");
    assert_eq!(whole(&world.disk).unwrap().0, Index(30));
    assert!(world.chunks <= u64::from(TRANSFER_ROUNDS_MAX) * 6, "{} pieces", world.chunks);
    let mut world = World::new(1, LossyDisk::new(2), vec![liar(), Source::new(state(1, 45, 5, 0))]);
    world.run().unwrap();
    assert!(whole(&world.disk).is_some());
}

#[test]
fn every_piece_with_a_wrong_byte_is_found_before_the_copy_is_installed() {
    let source = state(1, 45, 4, 0);
    let mut honest = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    honest.run().unwrap();
    for wrong in 0..honest.chunks {
        let mut world = World::new(wrong, LossyDisk::new(2), vec![Source::new(source.clone())]);
        let mut lied = false;
        while world.outcome.is_none() {
            world.sources[0].lies = if world.chunks == wrong && !lied { 100 } else { 0 };
            let before = world.chunks;
            world.step();
            lied |= before == wrong && world.chunks > before;
        }
        assert!(lied && matches!(world.outcome, Some(Ok(_))));
        assert!(world.copied > honest.copied, "piece {wrong} was copied again");
        assert_eq!(whole(&world.disk), whole(&source));
    }
}

#[test]
fn what_an_earlier_copy_left_is_continued_and_what_it_spoilt_is_begun_anew() {
    let source = state(1, 45, 5, 0);
    let total = bytes_of(&source, "/");
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    while world.copied < total / 2 {
        world.step();
    }
    let before = world.copied;
    world.disk.kill();
    world.fetch = World::fetch(&world.sources);
    world.pending.clear();
    world.run().unwrap();
    assert_eq!(world.copied, total, "{before} bytes were there");
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    let first = copy::newest(&source, SHARD).unwrap().unwrap().segments[0];
    copy::append(&world.disk, SHARD, &first.name(), 5_000, 0, &[0; 5_000]).unwrap();
    world.run().unwrap();
    assert_eq!(whole(&world.disk), whole(&source));
    assert_eq!(world.copied, total + first.bytes.saturating_sub(5_000));
}

#[test]
fn a_copy_goes_on_with_the_leased_snapshot_while_its_source_moves_on() {
    let source = state(1, 45, 5, 0);
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    while world.copied == 0 {
        world.step();
    }
    write_state(&source, 50, 6, 0);
    assert_eq!(world.run().unwrap().index, Index(45));
    assert!(whole(&world.disk).is_some());
}

#[test]
fn a_source_that_forgot_its_leases_is_asked_for_a_new_manifest() {
    let source = state(1, 45, 5, 0);
    let mut world = World::new(1, LossyDisk::new(2), vec![Source::new(source.clone())]);
    while world.copied < 300_000 {
        world.step();
    }
    write_state(&source, 50, 6, 0);
    source.remove(&snapshot::path(SHARD, Index(45))).unwrap();
    world.sources[0].leases = Leases::new(100);
    assert_eq!(world.run().unwrap().index, Index(50));
    assert_eq!(whole(&world.disk), whole(&source));
}

#[test]
fn a_full_disk_ends_a_copy_and_leaves_what_was_there() {
    let target = state(2, 30, 2, 0);
    let mut world = World::new(1, target.clone(), vec![Source::new(state(1, 45, 5, 0))]);
    target.set_capacity(target.used_bytes() + 100_000);
    let why = world.run().unwrap_err();
    assert!(why.contains("cannot write"), "{why}");
    assert_eq!(whole(&target).unwrap().0, Index(30));
    target.heal();
    World::new(1, target.clone(), vec![Source::new(state(1, 45, 5, 0))]).run().unwrap();
    assert!(target.paths(PART).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn whatever_fails_a_copy_is_whole_or_the_old_state_is(
        seed in any::<u64>(),
        old in 0..4_u64,
        flavours in prop::collection::vec(0..2_u64, 1..4),
        losses in 0..25_u64,
        lies in prop::collection::vec(0..20_u64, 3),
        restarts in 0..4_u32,
    ) {
        let old_index = if old == 0 { 0 } else { 30 };
        let target = state(seed, old_index, old, 0);
        let before = whole(&target);
        let source = |(at, flavour): (usize, &u64)| Source {
            lies: lies[at],
            ..Source::new(state(seed ^ at as u64, 40 + at as u64, 4, *flavour))
        };
        let sources: Vec<Source> = flavours.iter().enumerate().map(source).collect();
        let mut world = World::new(seed, target, sources);
        world.losses = losses;
        let mut restarts = restarts;
        let outcome = loop {
            if let Some(outcome) = world.outcome.take() {
                break outcome;
            }
            world.step();
            let calls = world.pending.iter().filter(|effect| matches!(effect, Effect::AskChunk { .. })).count();
            prop_assert!(calls <= 2 * TRANSFER_CHUNKS_IN_FLIGHT * TRANSFER_ROUNDS_MAX as usize * world.sources.len());
            if restarts > 0 && world.draws.below(12) == 0 {
                restarts -= 1;
                world.restart();
                let found = whole(&world.disk);
                prop_assert!(found == before || found.is_some_and(|(index, _)| index >= WANTED));
            }
        };
        world.disk.crash();
        let after = whole(&world.disk);
        match outcome {
            Ok(position) => {
                prop_assert_eq!(after, Some((position.index, vec![1, 2, 3, 4])));
            }
            Err(why) => prop_assert!(losses > 0 || lies.iter().any(|lies| *lies > 0), "{}", why),
        }
        // With sources that do not fail, what is left is no obstacle.
        world.losses = 0;
        world.sources.iter_mut().for_each(|source| source.lies = 0);
        world.fetch = World::fetch(&world.sources);
        world.pending.clear();
        prop_assert!(world.run().is_ok());
        prop_assert_eq!(whole(&world.disk).unwrap().1, vec![1, 2, 3, 4]);
    }
}
