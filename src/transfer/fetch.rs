//! One copy of one group's newest snapshot: events in, effects out.
//!
//! It looks at what is here, asks a source for its manifest, and goes through the files it names, segments first, the
//! snapshot last. A file that is here is read and compared; one that is not is asked for in pieces, written under a
//! temporary name, made durable, read back and compared. When every file fits, all of them get their names in one step.
//!
//! - What is unfinished goes on where it ends, also after a restart: its hash at the end says whether it was right.
//! - A source that fails, or whose bytes are not what it announced, is followed by the next one, in turn. Another source
//!   has another manifest: what is here is judged by that. Files of the same name and hash are not copied again.
//! - Its own disk failing ends the copy: whoever asked for it tries again or shows it.
//!
//! Invariants: at most one piece of work on the disk at a time; at most `TRANSFER_CHUNKS_IN_FLIGHT` pieces asked for or
//! held in memory; at most `TRANSFER_ROUNDS_MAX` failures of each source between two files that were copied.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::plan::{Here, Need, Part, Place, Plan, Target};
use super::wire::{ChunkRequest, File, Manifest};
use crate::entry::SegmentMeta;
use crate::id::{Index, NodeId, ShardId};
use crate::limits::{
    TRANSFER_CHUNK_BYTES, TRANSFER_CHUNKS_IN_FLIGHT, TRANSFER_RETRY, TRANSFER_ROUNDS_MAX, TRANSFER_SOURCES_MAX,
};
use crate::storage::copy::{Arrived, Incoming, Installation, Local, Measured, PART};

/// What a copy is told. The ticket is that of the effect it answers; one that is not waited for any more is dropped.
#[derive(Debug)]
pub enum Event {
    /// Time has passed, or the copy begins.
    Tick,
    /// A source answered `AskManifest`.
    Manifest {
        /// Of the effect.
        ticket: u64,
        /// The manifest, or why there is none.
        outcome: Result<Manifest, Failure>,
    },
    /// A source answered `AskChunk`.
    Chunk {
        /// Of the effect.
        ticket: u64,
        /// The bytes, or why there are none.
        outcome: Result<Bytes, Failure>,
    },
    /// `Survey` is done.
    Surveyed {
        /// Of the effect.
        ticket: u64,
        /// What is here, or what the disk said.
        outcome: Result<Local, String>,
    },
    /// `Append` is done.
    Appended {
        /// Of the effect.
        ticket: u64,
        /// Nothing, or what the disk said.
        outcome: Result<(), String>,
    },
    /// `Measure` is done.
    Measured {
        /// Of the effect.
        ticket: u64,
        /// The file, none where it is not there, or what the disk said.
        outcome: Result<Option<Measured>, String>,
    },
    /// `Install` is done.
    Installed {
        /// Of the effect.
        ticket: u64,
        /// What came of it, or what the disk said.
        outcome: Result<Installation, String>,
    },
}

/// Why a source gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It did not answer, or has too much to do: ask again in a while.
    Busy(String),
    /// It does not know the lease or the file any more: ask for a new manifest.
    Gone(String),
    /// It cannot be reached, has nothing, or gives what it should not: ask another.
    Lost(String),
}

/// What a copy asks for.
#[derive(Debug)]
pub enum Effect {
    /// Look at the folder with `storage::copy::survey`.
    Survey {
        /// To be named in the answer.
        ticket: u64,
    },
    /// Ask a source for its manifest.
    AskManifest {
        /// To be named in the answer.
        ticket: u64,
        /// Which node.
        source: NodeId,
    },
    /// Ask a source for a piece of a file.
    AskChunk {
        /// To be named in the answer.
        ticket: u64,
        /// Which node.
        source: NodeId,
        /// What.
        request: ChunkRequest,
    },
    /// Write a piece with `storage::copy::append`.
    Append {
        /// To be named in the answer.
        ticket: u64,
        /// The file's final name.
        name: String,
        /// How long the file is to be.
        bytes: u64,
        /// Where.
        offset: u64,
        /// The piece.
        piece: Bytes,
    },
    /// Read a file with `storage::copy::measure`.
    Measure {
        /// To be named in the answer.
        ticket: u64,
        /// Its name, that of a copy with its ending.
        name: String,
    },
    /// Give the files their names with `storage::copy::install`.
    Install {
        /// To be named in the answer.
        ticket: u64,
        /// What is complete.
        incoming: Box<Incoming>,
    },
    /// The copy is in its place; nothing follows.
    Arrived(Arrived),
    /// The copy is given up; what is here stays for the next one. Nothing follows.
    GaveUp {
        /// The last failure, for people to read.
        why: String,
    },
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Who is copied from.
    pub source: Option<NodeId>,
    /// Files that fit, and all of them.
    pub files: (usize, usize),
    /// Bytes that are here, and all of them; those that were here before count as well.
    pub bytes: (u64, u64),
}

/// Work on the disk that is under way.
#[derive(Debug)]
enum Job {
    Survey,
    Append { bytes: u64 },
    Measure { name: String },
    Install,
}

/// A question that a source has not answered.
#[derive(Debug)]
enum Call {
    Manifest,
    Chunk { offset: u64, length: u32 },
}

/// One copy.
#[derive(Debug)]
pub struct Fetch {
    shard: ShardId,
    at_least: Index,
    sources: Vec<NodeId>,
    now: Duration,
    /// Counts the sources that were left.
    turn: usize,
    /// Failures since a file was copied.
    failures: u32,
    /// The source failed when it was asked last, and was given another chance.
    doubted: bool,
    rests_until: Option<Duration>,
    tickets: u64,
    surveyed: bool,
    here: BTreeMap<String, Here>,
    parts: BTreeMap<String, Part>,
    own: BTreeMap<String, SegmentMeta>,
    plan: Option<Plan>,
    job: Option<(u64, Job)>,
    calls: BTreeMap<u64, Call>,
    /// A failure that waits for the work on the disk to end.
    failed: Option<Failure>,
    over: bool,
}

impl Fetch {
    /// A copy of a snapshot that reaches `at_least`, from any of these nodes. It begins with the first tick.
    ///
    /// # Panics
    /// Where there is no source, or more than `TRANSFER_SOURCES_MAX`.
    #[must_use]
    pub fn new(shard: ShardId, at_least: Index, sources: Vec<NodeId>) -> Self {
        assert!((1..=TRANSFER_SOURCES_MAX).contains(&sources.len()), "{} sources", sources.len());
        Self {
            shard,
            at_least,
            sources,
            now: Duration::ZERO,
            turn: 0,
            failures: 0,
            doubted: false,
            rests_until: None,
            tickets: 0,
            surveyed: false,
            here: BTreeMap::new(),
            parts: BTreeMap::new(),
            own: BTreeMap::new(),
            plan: None,
            job: None,
            calls: BTreeMap::new(),
            failed: None,
            over: false,
        }
    }

    /// Takes one event at `now`, the time since any fixed start.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        if self.over {
            return;
        }
        match event {
            Event::Tick => {}
            Event::Manifest { ticket, outcome } => {
                if self.calls.remove(&ticket).is_some() {
                    self.manifest(outcome);
                }
            }
            Event::Chunk { ticket, outcome } => {
                if let Some(Call::Chunk { offset, length }) = self.calls.remove(&ticket) {
                    self.chunk(offset, length, outcome);
                }
            }
            Event::Surveyed { ticket, outcome } => {
                if self.ended(ticket).is_some() {
                    match outcome {
                        Ok(local) => self.surveyed(local),
                        Err(why) => self.give_up(why, effects),
                    }
                }
            }
            Event::Appended { ticket, outcome } => {
                if let Some(Job::Append { bytes }) = self.ended(ticket) {
                    match outcome {
                        Ok(()) => self.appended(bytes),
                        Err(why) => self.give_up(why, effects),
                    }
                }
            }
            Event::Measured { ticket, outcome } => {
                if let Some(Job::Measure { name }) = self.ended(ticket) {
                    match outcome {
                        Ok(found) => self.measured(&name, found),
                        Err(why) => self.give_up(why, effects),
                    }
                }
            }
            Event::Installed { ticket, outcome } => {
                if self.ended(ticket).is_some() {
                    self.installed(outcome, effects);
                }
            }
        }
        self.advance(effects);
        assert!(self.calls.len() <= TRANSFER_CHUNKS_IN_FLIGHT, "pieces are asked for within their bound");
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let Some(plan) = &self.plan else { return Progress::default() };
        let target = plan.target(plan.at);
        let part = target.and_then(|target| self.parts.get(&plan.name(target.file)));
        let begun = part.map_or(0, |part| part.bytes.min(target.map_or(0, |target| target.fits.bytes)));
        Progress {
            source: Some(plan.source),
            files: (plan.at, plan.files()),
            bytes: (plan.bytes.0 + begun, plan.bytes.1),
        }
    }

    /// Whether it has arrived or was given up.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// The work on the disk that this ticket is of.
    fn ended(&mut self, ticket: u64) -> Option<Job> {
        self.job.take_if(|(waited, _)| *waited == ticket).map(|(_, job)| job)
    }

    fn surveyed(&mut self, local: Local) {
        self.surveyed = true;
        self.own = local.own.into_iter().map(|meta| (meta.name(), meta)).collect();
        (self.here, self.parts) = (BTreeMap::new(), BTreeMap::new());
        for (name, bytes) in local.files {
            match name.strip_suffix(PART) {
                Some(name) => drop(self.parts.insert(name.to_owned(), Part { bytes, of: None, hash: None })),
                None => drop(self.here.insert(name, Here { bytes, hash: None })),
            }
        }
    }

    fn manifest(&mut self, outcome: Result<Manifest, Failure>) {
        let source = self.source();
        let manifest = match outcome {
            Ok(manifest) if manifest.position.index >= self.at_least => manifest,
            Ok(manifest) => {
                let (found, wanted) = (manifest.position.index, self.at_least);
                let why = format!("the newest snapshot of node {source} is through {found}, {wanted} is needed");
                return self.fail(Failure::Lost(why));
            }
            Err(failure) => return self.fail(failure),
        };
        self.plan = Some(Plan::new(source, manifest));
    }

    fn chunk(&mut self, offset: u64, length: u32, outcome: Result<Bytes, Failure>) {
        let Some(plan) = &mut self.plan else { return };
        match outcome {
            Ok(piece) if piece.len() == length as usize => {
                self.doubted = false;
                plan.arrived.insert(offset, piece);
            }
            Ok(piece) => {
                let why =
                    format!("node {} answers with {} bytes where {length} were asked for", plan.source, piece.len());
                self.fail(Failure::Lost(why));
            }
            Err(failure) => self.fail(failure),
        }
    }

    fn appended(&mut self, bytes: u64) {
        let Some(plan) = &self.plan else { return };
        let Some(target) = plan.target(plan.at) else { return };
        let part = self.parts.entry(plan.name(target.file));
        let part = part.or_insert(Part { bytes: 0, of: Some(target.fits.hash), hash: None });
        part.bytes += bytes;
    }

    fn measured(&mut self, name: &str, found: Option<Measured>) {
        let Some(name) = name.strip_suffix(PART) else {
            match found {
                Some(found) => {
                    self.here.insert(name.to_owned(), Here { bytes: found.bytes, hash: Some(found.hash) });
                }
                None => drop(self.here.remove(name)),
            }
            return;
        };
        let Some(plan) = &self.plan else { return };
        let Some(target) = plan.target(plan.at) else { return };
        let Some(part) = self.parts.get_mut(name) else { return };
        if found == Some(target.fits) || mutant!(InstalledUnchecked) {
            part.hash = Some(target.fits.hash);
            self.failures = 0;
            return;
        }
        // What an earlier copy left may be of another file; what this one wrote is what the source gave.
        let given = part.of.is_some();
        let why = format!("{name} from node {} has not the length and hash that were announced", plan.source);
        self.parts.remove(name);
        if given && found.is_some() {
            self.fail(Failure::Lost(why));
        }
    }

    fn installed(&mut self, outcome: Result<Installation, String>, effects: &mut Vec<Effect>) {
        match outcome {
            Ok(Installation::Done(arrived)) => {
                self.over = true;
                effects.push(Effect::Arrived(arrived));
            }
            Ok(Installation::Lacking(name)) => {
                self.surveyed = false;
                self.fail(Failure::Gone(format!("{name} went away before it was installed")));
            }
            Ok(Installation::Unfit(why)) => {
                if let Some(plan) = &self.plan {
                    self.parts.remove(&plan.name(File::Snapshot));
                    self.here.remove(&plan.name(File::Snapshot));
                }
                self.fail(Failure::Lost(why));
            }
            Err(why) => self.give_up(why, effects),
        }
    }

    fn give_up(&mut self, why: String, effects: &mut Vec<Effect>) {
        self.over = true;
        effects.push(Effect::GaveUp { why });
    }

    fn source(&self) -> NodeId {
        self.sources[self.turn % self.sources.len()]
    }

    /// Notes a failure and asks no more; it is dealt with when nothing works on the disk.
    fn fail(&mut self, failure: Failure) {
        self.calls.clear();
        self.failed.get_or_insert(failure);
    }

    fn recover(&mut self, failure: Failure, effects: &mut Vec<Effect>) {
        self.failures += 1;
        let sources = u32::try_from(self.sources.len()).expect("bounded by TRANSFER_SOURCES_MAX");
        let again = std::mem::replace(&mut self.doubted, true);
        let (why, rests) = match failure {
            Failure::Busy(why) if !again => {
                if let Some(plan) = &mut self.plan {
                    plan.arrived.clear();
                }
                (why, true)
            }
            Failure::Gone(why) if !again => {
                self.plan = None;
                (why, false)
            }
            Failure::Busy(why) | Failure::Gone(why) | Failure::Lost(why) => {
                self.plan = None;
                self.doubted = false;
                self.turn = self.turn.wrapping_add(1);
                (why, false)
            }
        };
        if self.failures >= TRANSFER_ROUNDS_MAX * sources {
            return self.give_up(why, effects);
        }
        if rests || self.failures.is_multiple_of(sources) {
            self.rests_until = Some(self.now + TRANSFER_RETRY);
        }
    }

    /// Asks for whatever can be done now.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        if self.failed.is_some() && self.job.is_some() {
            return;
        }
        if let Some(failure) = self.failed.take().filter(|_| !self.over) {
            self.recover(failure, effects);
        }
        if self.over || self.rests_until.is_some_and(|until| self.now < until) {
            return;
        }
        self.rests_until = None;
        if !self.surveyed {
            if self.job.is_none() {
                let ticket = self.work(Job::Survey);
                effects.push(Effect::Survey { ticket });
            }
        } else if self.plan.is_none() {
            if self.calls.is_empty() {
                let ticket = self.ticket();
                self.calls.insert(ticket, Call::Manifest);
                effects.push(Effect::AskManifest { ticket, source: self.source() });
            }
        } else {
            self.carry_on(effects);
        }
    }

    fn work(&mut self, job: Job) -> u64 {
        assert!(self.job.is_none(), "one piece of work at a time");
        let ticket = self.ticket();
        self.job = Some((ticket, job));
        ticket
    }

    /// Goes through the files from the one at hand on.
    fn carry_on(&mut self, effects: &mut Vec<Effect>) {
        while let Some(plan) = &mut self.plan {
            let Some(target) = plan.target(plan.at) else {
                if self.job.is_none() {
                    let incoming = Box::new(self.incoming());
                    let ticket = self.work(Job::Install);
                    effects.push(Effect::Install { ticket, incoming });
                }
                return;
            };
            let name = plan.name(target.file);
            match target.need(self.here.get(&name), self.own.get(&name), self.parts.get(&name), &name) {
                Need::Nothing => {
                    plan.at += 1;
                    plan.bytes.0 = plan.bytes.0.saturating_add(target.fits.bytes);
                }
                Need::Measure(name) => {
                    if self.job.is_none() {
                        let ticket = self.work(Job::Measure { name: name.clone() });
                        effects.push(Effect::Measure { ticket, name });
                    }
                    return;
                }
                Need::Copy(from) => {
                    if from == 0 && self.job.is_none() {
                        // What is there is of no use: the first piece begins the file anew.
                        self.parts.remove(&name);
                    }
                    self.copy(&target, name, from, effects);
                    return;
                }
            }
        }
    }

    /// Asks for pieces of a file that is on the disk up to `from`, and has the next one written.
    fn copy(&mut self, target: &Target, name: String, from: u64, effects: &mut Vec<Effect>) {
        let Some(plan) = &mut self.plan else { return };
        if self.calls.is_empty() && plan.arrived.is_empty() && self.job.is_none() {
            plan.asked = from;
        }
        let chunk = TRANSFER_CHUNK_BYTES as u64;
        while self.calls.len() < TRANSFER_CHUNKS_IN_FLIGHT
            && plan.asked < target.fits.bytes
            && plan.asked - from < chunk * TRANSFER_CHUNKS_IN_FLIGHT as u64
        {
            let (offset, lease) = (plan.asked, plan.manifest.lease);
            let length = u32::try_from(chunk.min(target.fits.bytes - offset)).expect("a piece is small");
            plan.asked += u64::from(length);
            self.tickets += 1;
            let (ticket, source) = (self.tickets, plan.source);
            self.calls.insert(ticket, Call::Chunk { offset, length });
            let request = ChunkRequest { shard: self.shard, lease, file: target.file, offset, length };
            effects.push(Effect::AskChunk { ticket, source, request });
        }
        if self.job.is_none()
            && let Some(piece) = plan.arrived.remove(&from)
        {
            let ticket = self.work(Job::Append { bytes: piece.len() as u64 });
            effects.push(Effect::Append { ticket, name, bytes: target.fits.bytes, offset: from, piece });
        }
    }

    /// All files of the manifest, each as it was found to fit.
    fn incoming(&self) -> Incoming {
        let plan = self.plan.as_ref().expect("its caller has one");
        let (mut copied, mut own) = (BTreeSet::new(), Vec::new());
        for target in (0..plan.files()).filter_map(|at| plan.target(at)) {
            let name = plan.name(target.file);
            match target.place(self.here.get(&name), self.own.get(&name)) {
                Some(Place::Named) => {}
                Some(Place::Own(meta)) => own.push(meta),
                None => drop(copied.insert(name)),
            }
        }
        let (position, segments) = (plan.manifest.position, plan.manifest.segments.clone());
        Incoming { shard: self.shard, position, segments, copied, own }
    }
}
