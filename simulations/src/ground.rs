//! What a simulated node stands on instead of a machine: a clock that is skewed and jumps, random bits from a seed,
//! threads that are virtual time, and an end that ends one life instead of the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond::storage::lossy::{Draws, LossyDisk};
use millpond_actors::env::{Blocking, Clock, End, Halt, Lane, Random};
use tokio::time::{Instant, sleep};

use crate::node::Life;
use crate::observe::Observed;

/// The wall clock of every node reads this when a run begins: 2026-01-01, in nanoseconds since the Unix epoch.
pub const EPOCH: i64 = 1_767_225_600 * 1_000_000_000;

/// The wall clock of one node, over its lives.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// Nanoseconds ahead of the true time.
    ahead: AtomicI64,
}

impl SimClock {
    /// A clock that is `ahead` nanoseconds ahead of the true time.
    pub fn new(start: Instant, ahead: i64) -> Self {
        Self { start, ahead: AtomicI64::new(ahead) }
    }

    /// Moves it.
    pub fn jump(&self, by_ns: i64) {
        self.ahead.fetch_add(by_ns, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> i64 {
        let since = i64::try_from(self.start.elapsed().as_nanos()).unwrap_or(i64::MAX);
        EPOCH + since + self.ahead.load(Ordering::Relaxed)
    }
}

/// Random bits of one node, over its lives.
#[derive(Debug)]
pub struct SimRandom(Mutex<Draws>);

impl SimRandom {
    /// Bits that depend on the seed alone.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Draws::new(seed)))
    }
}

impl Random for SimRandom {
    fn draw(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }
}

/// How long a node's disk and threads take, over its lives.
#[derive(Debug)]
pub struct Pace {
    draws: Mutex<Draws>,
    /// Shortest and longest time of one piece of work, in microseconds.
    work_us: (u64, u64),
    /// How many times as long everything takes.
    factor: AtomicU64,
}

impl Pace {
    /// A pace of its own random stream.
    pub fn new(seed: u64, work_us: (u64, u64)) -> Self {
        Self { draws: Mutex::new(Draws::new(seed)), work_us, factor: AtomicU64::new(1) }
    }

    /// From now on everything takes so many times as long.
    pub fn slow(&self, factor: u64) {
        self.factor.store(factor.max(1), Ordering::Relaxed);
    }

    fn draw(&self) -> Duration {
        let (least, most) = self.work_us;
        let drawn = least + self.draws.lock().unwrap_or_else(PoisonError::into_inner).below(most - least + 1);
        Duration::from_micros(drawn * self.factor.load(Ordering::Relaxed))
    }
}

/// The threads of one life: work waits for its virtual time, then runs at once.
#[derive(Debug)]
pub struct SimThreads {
    /// Whose.
    pub life: Arc<Life>,
    /// How long work takes.
    pub pace: Arc<Pace>,
    /// What it is done on; its power may go in the middle.
    pub disk: LossyDisk,
    /// Pieces of work at once.
    pub workers: usize,
    /// For panics of the log thread.
    pub halt: Arc<SimHalt>,
}

impl Blocking for SimThreads {
    fn run(&self, lane: Lane, work: Box<dyn FnOnce() + Send>) {
        let (life, disk, halt, wait) =
            (Arc::clone(&self.life), self.disk.clone(), Arc::clone(&self.halt), self.pace.draw());
        tokio::spawn(async move {
            sleep(wait).await;
            if !life.is_alive() {
                return;
            }
            let done = catch_unwind(AssertUnwindSafe(work));
            if disk.is_powered_off() {
                life.end(crate::node::Ending::PowerLost);
            } else if done.is_err() && lane == Lane::Log {
                halt.halt(End::Log, "the log thread panicked");
            }
        });
    }

    fn workers(&self) -> usize {
        self.workers
    }
}

/// The end of one life.
pub struct SimHalt {
    /// Whose.
    pub life: Arc<Life>,
    /// What it is done on: without power the end is the machine's.
    pub disk: LossyDisk,
    /// Where it is told.
    pub observed: Arc<Observed>,
}

impl std::fmt::Debug for SimHalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimHalt")
    }
}

impl Halt for SimHalt {
    fn halt(&self, end: End, why: &str) {
        if !self.life.is_alive() {
            return;
        }
        self.observed.trace.line(format_args!("n{} ends itself, {end:?}: {why}", self.life.node));
        let ending = if self.disk.is_powered_off() {
            crate::node::Ending::PowerLost
        } else {
            crate::node::Ending::Halted(end, why.to_owned())
        };
        self.life.end(ending);
    }
}
