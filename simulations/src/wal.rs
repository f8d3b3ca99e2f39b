//! The log of one node against its model, on a disk that loses, cuts short, tears and flips.
//!
//! The oracle: whatever happens, an opened log holds exactly what was flushed, followed by some prefix of what was
//! appended since, and nothing else. What it showed once after opening, it shows after every later crash. A flipped bit
//! is refused with the name of its file, unless it lies in the last group, which is then cut as a torn one, or where
//! nothing is live.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use millpond::class::Class;
use millpond::entry::{Entry, EntryKind, HardState, Position, Recovered};
use millpond::id::{Index, ReplicaId, ShardId, Term};
use millpond::storage::disk::Disk;
use millpond::storage::error::StorageError;
use millpond::storage::lossy::{Draws, LossyDisk};
use millpond::storage::wal::{LogOp, Wal, WalOptions};

use crate::model::{Model, Owner, Step, describe, last, steps};

/// Steps of one seed.
pub const STEPS: u32 = 300;
/// Openings of one recovery that may fail before one is left alone.
const OPENINGS_FAULTY_MAX: u64 = 4;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Groups flushed.
    pub flushes: u64,
    /// Crashes and kills.
    pub crashes: u64,
    /// Crashes while the log was opened.
    pub crashes_in_recovery: u64,
    /// Torn tails cut.
    pub cuts: u64,
    /// Failed syncs.
    pub syncs_failed: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Flipped bits refused.
    pub refused: u64,
    /// Changes refused because the disk was full.
    pub full: u64,
    /// Segments recycled.
    pub recycled: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.flushes += other.flushes;
        self.crashes += other.crashes;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.cuts += other.cuts;
        self.syncs_failed += other.syncs_failed;
        self.flips += other.flips;
        self.refused += other.refused;
        self.full += other.full;
        self.recycled += other.recycled;
    }
}

/// Runs one seed.
///
/// # Errors
/// What the log did that it must not, and at which step.
pub fn run(seed: u64, steps: u32) -> Result<Summary> {
    let mut world = World::new(seed)?;
    for at in 0..steps {
        world.step().with_context(|| format!("step {at}"))?;
    }
    world.crash(false).context("at the end")?;
    Ok(world.summary)
}

/// A state, and what was appended on top of it.
#[derive(Debug, Default)]
struct Story {
    base: Model,
    steps: Vec<(Owner, Step)>,
}

impl Story {
    /// The longest prefix of the steps that leads to what was found.
    fn matching(&self, found: &BTreeMap<Owner, Recovered>) -> Option<Model> {
        let mut model = self.base.clone();
        let mut matching = (model.as_loaded() == *found).then(|| model.clone());
        for (owner, step) in &self.steps {
            model.step(*owner, step);
            if model.as_loaded() == *found {
                matching = Some(model.clone());
            }
        }
        matching
    }

    fn told(&self) -> Model {
        let mut model = self.base.clone();
        self.steps.iter().for_each(|(owner, step)| model.step(*owner, step));
        model
    }
}

struct World {
    draws: Draws,
    disk: LossyDisk,
    options: WalOptions,
    wal: Option<Wal>,
    /// What is durable, and what was appended since.
    story: Story,
    /// What was durable before the last flush, and that flush: a damaged last group may be cut.
    last_group: Story,
    term: u64,
    summary: Summary,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let mut draws = Draws::new(seed);
        let segment_bytes = 8192 << draws.below(3);
        let reserve_bytes = 4096;
        let options = WalOptions {
            segment_bytes,
            bytes_max: segment_bytes * (4 + draws.below(8)),
            reserve_bytes,
            pin_bytes_max: draws.below(reserve_bytes / 4),
        };
        let disk = LossyDisk::new(draws.draw());
        let mut world = Self {
            draws,
            disk,
            options,
            wal: None,
            story: Story::default(),
            last_group: Story::default(),
            term: 1,
            summary: Summary::default(),
        };
        world.open()?;
        Ok(world)
    }

    fn step(&mut self) -> Result<()> {
        match self.draws.below(100) {
            0..60 => self.change(),
            60..78 => self.flush(),
            78..86 => self.tend(),
            86..89 => self.check_reads(),
            89..92 => self.crash(true),
            92..94 => {
                let after = self.draws.below(12);
                self.disk.power_off_after(after);
                Ok(())
            }
            94 => {
                let after = self.draws.below(12);
                self.disk.fail_sync_after(after);
                Ok(())
            }
            95 => {
                let more = self.draws.below(4 * self.options.segment_bytes);
                self.disk.set_capacity(self.disk.used_bytes() + more);
                Ok(())
            }
            96 => {
                self.disk.set_capacity(u64::MAX);
                Ok(())
            }
            _ => self.flip(),
        }
    }

    fn wal(&mut self) -> &mut Wal {
        self.wal.as_mut().expect("open between steps")
    }

    fn change(&mut self) -> Result<()> {
        let owner = (ShardId(self.draws.below(4) as u32), ReplicaId(1 + self.draws.below(2)));
        let log = self.story.told().log(owner);
        if self.draws.below(40) == 0 {
            return match self.wal().forget(owner.0, owner.1) {
                Ok(()) => {
                    self.story.steps.push((owner, Step::Forget));
                    Ok(())
                }
                Err(error) => self.failed(error),
            };
        }
        let op = self.op(&log);
        match self.wal().append(owner.0, owner.1, op.clone()) {
            Ok(()) => {
                self.story.steps.extend(steps(&op, last(&log)).into_iter().map(|step| (owner, step)));
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    fn op(&mut self, log: &Recovered) -> LogOp {
        let end = last(log);
        match self.draws.below(12) {
            0 | 1 if !log.entries.is_empty() => {
                let entry = &log.entries[self.draws.below(log.entries.len() as u64) as usize];
                LogOp::Trim { through: Position { index: entry.index, term: entry.term } }
            }
            2 if self.draws.below(4) == 0 => {
                let at = Position { index: Index(end.0 + self.draws.below(20)), term: Term(self.term) };
                let commit = at.index;
                LogOp::Install { at, hard_state: HardState { term: Term(self.term), vote: None, commit } }
            }
            _ => self.append(log),
        }
    }

    fn append(&mut self, log: &Recovered) -> LogOp {
        let (trimmed, mut end) = (log.trimmed.index.0, last(log).0);
        let mut truncate_from = None;
        if end > trimmed && self.draws.below(4) == 0 {
            self.term += 1;
            let from = trimmed + 1 + self.draws.below(end - trimmed);
            end = from - 1;
            truncate_from = (self.draws.below(2) == 0).then_some(Index(from));
        }
        let count = self.draws.below(5).max(u64::from(truncate_from.is_none() && end != last(log).0));
        let entries: Vec<Entry> = (end + 1..=end + count).map(|index| self.entry(Index(index))).collect();
        let vote = Some(ReplicaId(self.draws.below(3))).filter(|replica| replica.0 != 0);
        // Not ahead of the entries before: a commit that loading takes back would hide which hard state was found.
        let commit = Index(trimmed + self.draws.below(end - trimmed + 1));
        let state = HardState { term: Term(self.term), vote, commit };
        LogOp::Append { truncate_from, entries, hard_state: (self.draws.below(2) == 0).then_some(state) }
    }

    fn entry(&mut self, index: Index) -> Entry {
        let size = if self.draws.below(8) == 0 { self.draws.below(2500) } else { self.draws.below(200) };
        let fill = self.draws.draw().to_le_bytes();
        let payload: Bytes = (0..size as usize).map(|at| fill[at % 8]).collect();
        Entry { index, term: Term(self.term), kind: EntryKind::Normal, payload }
    }

    fn flush(&mut self) -> Result<()> {
        match self.wal().flush() {
            Ok(flushed) => {
                if flushed.syncs > 0 {
                    self.flushed();
                }
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    fn flushed(&mut self) {
        self.summary.flushes += 1;
        let base = self.story.told();
        self.last_group = std::mem::replace(&mut self.story, Story { base, steps: Vec::new() });
    }

    fn tend(&mut self) -> Result<()> {
        match self.wal().tend() {
            Ok(tended) => {
                self.summary.recycled += tended.recycled as u64;
                if self.story.steps.is_empty() {
                    return Ok(());
                }
                self.flushed();
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    /// A call failed: with reason, and for ever if it is fatal.
    fn failed(&mut self, error: StorageError) -> Result<()> {
        if let StorageError::Full { .. } = error {
            self.summary.full += 1;
            return Ok(());
        }
        ensure!(matches!(error, StorageError::Io { .. }), "unexpected: {error}");
        let again = self.wal().flush();
        ensure!(matches!(again, Err(StorageError::Poisoned)), "after {error} a flush gave {again:?}");
        self.summary.syncs_failed += 1;
        self.crash(true)
    }

    fn check_reads(&mut self) -> Result<()> {
        let durable = self.story.base.clone();
        for (owner, log) in durable.as_loaded() {
            let newer = durable.as_loaded().keys().any(|other| other.0 == owner.0 && other.1 > owner.1);
            let (Some(first), false) = (log.entries.first(), newer) else { continue };
            let read = match self.wal().read(owner.0, first.index, Index(last(&log).0 + 1), usize::MAX) {
                Ok(read) => read,
                Err(StorageError::Io { .. }) => return self.crash(true),
                Err(error) => bail!("reading {owner:?}: {error}"),
            };
            ensure!(read == log.entries, "{owner:?} does not read what was flushed");
        }
        Ok(())
    }

    /// The process or the machine stops; the log is opened again.
    fn crash(&mut self, faulty: bool) -> Result<()> {
        self.summary.crashes += 1;
        self.stop();
        let mut left = if faulty { self.draws.below(OPENINGS_FAULTY_MAX) } else { 0 };
        while left > 0 {
            left -= 1;
            let after = self.draws.below(20);
            self.disk.power_off_after(after);
            let opened = Wal::open(self.shared(), self.options, self.draws.draw());
            match opened {
                Ok((wal, _)) => self.wal = Some(wal),
                Err(StorageError::Io { .. }) => self.summary.crashes_in_recovery += 1,
                Err(StorageError::Full { .. }) => self.disk.set_capacity(u64::MAX),
                Err(error) => bail!("opening after a crash: {error}"),
            }
            self.stop();
        }
        self.open()
    }

    fn stop(&mut self) {
        self.wal = None;
        if self.draws.below(4) == 0 { self.disk.kill() } else { self.disk.crash() }
    }

    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// Opens the log and judges what it holds.
    fn open(&mut self) -> Result<()> {
        let found = match self.try_open() {
            Err(StorageError::Full { .. }) => {
                self.disk.set_capacity(u64::MAX);
                self.try_open()?
            }
            opened => opened?,
        };
        let matching = self.story.matching(&found);
        let Some(base) = matching else {
            let (base, steps) = (describe(&self.story.base.as_loaded()), &self.story.steps);
            bail!(
                "opened with {}
which was never written; flushed were {base}
then came {steps:?}",
                describe(&found)
            )
        };
        self.story = Story { base, steps: Vec::new() };
        self.last_group = Story { base: self.story.base.clone(), steps: Vec::new() };
        Ok(())
    }

    fn try_open(&mut self) -> Result<BTreeMap<Owner, Recovered>, StorageError> {
        let (mut wal, report) = Wal::open(self.shared(), self.options, self.draws.draw())?;
        self.summary.cuts += u64::from(report.cut.is_some());
        let owners = wal.shards();
        let found = owners.into_iter().map(|owner| Ok((owner, wal.load(owner.0, owner.1)?))).collect();
        self.wal = Some(wal);
        found
    }

    /// A bit of some segment turns over while the process is down.
    fn flip(&mut self) -> Result<()> {
        match self.wal().flush() {
            Ok(flushed) if flushed.syncs > 0 => self.flushed(),
            Ok(_) => {}
            Err(_) => return self.crash(true),
        }
        self.wal = None;
        self.disk.kill();
        let names: Vec<String> = self.disk.list("wal")?.into_iter().filter(|name| name.ends_with(".seg")).collect();
        let path = format!("wal/{}", names[self.draws.below(names.len() as u64) as usize]);
        let (offset, bit) = (self.draws.below(self.options.segment_bytes), self.draws.below(8) as u8);
        if !self.disk.flip_bit(&path, offset, bit) {
            return self.open();
        }
        self.summary.flips += 1;
        match self.try_open() {
            Ok(found) => {
                let Some(base) = self.last_group.matching(&found) else {
                    let (base, steps) = (describe(&self.last_group.base.as_loaded()), &self.last_group.steps);
                    let found = describe(&found);
                    bail!("the flip at {offset} of {path} went unnoticed: {found}\nwas {base}\nthen came {steps:?}")
                };
                self.story = Story { base, steps: Vec::new() };
                self.last_group = Story { base: self.story.base.clone(), steps: Vec::new() };
                Ok(())
            }
            Err(StorageError::Full { .. }) => {
                self.disk.set_capacity(u64::MAX);
                self.mend(&path, offset, bit)
            }
            Err(error) => {
                let named =
                    matches!(&error, StorageError::Damaged { file, offset: at, .. } if *file == path && *at <= offset);
                let missing = matches!(error, StorageError::Missing { .. });
                ensure!((named || missing) && error.class() == Class::Fatal, "{path} was flipped at {offset}: {error}");
                self.summary.refused += 1;
                self.mend(&path, offset, bit)
            }
        }
    }

    /// The bit turns back; all must be there.
    fn mend(&mut self, path: &str, offset: u64, bit: u8) -> Result<()> {
        self.disk.kill();
        self.disk.flip_bit(path, offset, bit);
        self.open().context("after the bit was turned back")
    }
}
