//! The machine's own clock, randomness, threads and end, for `Env` in production.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use millpond::id::NodeId;
use tokio::sync::Semaphore;

use crate::env::{Blocking, Clock, End, Frame, Halt, Lane, PeerLink, Random};

/// The wall clock of the machine.
#[derive(Debug)]
pub struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// Random bits from the seeds that the standard library draws for its hash tables. They name things and spread
/// timers; nothing secret is made of them.
#[derive(Debug)]
pub struct MachineRandom;

impl Random for MachineRandom {
    fn draw(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// One log thread, and tokio's blocking threads for the rest, of each pool at most so many at once.
#[derive(Debug)]
pub struct MachineThreads {
    log: Mutex<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    count: usize,
    pools: Pools,
    runtime: tokio::runtime::Handle,
}

/// Places of the pools. One that has much to do takes no place of another; the machine's cores they share.
#[derive(Debug)]
struct Pools {
    work: Arc<Semaphore>,
    seal: Arc<Semaphore>,
    snapshot: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

impl MachineThreads {
    /// Starts the log thread; each pool has as many places as the machine has cores.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (log, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _guard = LogThread;
            jobs.iter().for_each(|job| job());
        })?;
        let count = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = || Arc::new(Semaphore::new(count));
        let pools = Pools { work: pool(), seal: pool(), snapshot: pool(), files: pool() };
        Ok(Self { log: Mutex::new(log), count, pools, runtime: tokio::runtime::Handle::current() })
    }

    fn run_in(&self, pool: &Arc<Semaphore>, work: Box<dyn FnOnce() + Send>) {
        let pool = Arc::clone(pool);
        self.runtime.spawn(async move {
            let place = pool.acquire_owned().await.expect("it is never closed");
            let done = tokio::task::spawn_blocking(move || {
                work();
                drop(place);
            });
            if let Err(error) = done.await {
                tracing::error!(%error, "work on a worker thread panicked; who waits for it hears nothing");
            }
        });
    }
}

/// Ends the process when the log thread panics: the WAL it held is gone, and what it wrote last is unknown.
struct LogThread;

impl Drop for LogThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            MachineEnd
                .halt(End::Log, "the log thread panicked; start the node again, recovery decides what is durable");
        }
    }
}

impl Blocking for MachineThreads {
    fn workers(&self) -> usize {
        self.count
    }

    fn run(&self, lane: Lane, work: Box<dyn FnOnce() + Send>) {
        match lane {
            Lane::Log => {
                let log = self.log.lock().expect("sending does not panic");
                // The channel closes only when the log thread has panicked, and that ends the process.
                let _ = log.send(work);
            }
            Lane::Work => self.run_in(&self.pools.work, work),
            Lane::Seal => self.run_in(&self.pools.seal, work),
            Lane::Snapshot => self.run_in(&self.pools.snapshot, work),
            Lane::Files => self.run_in(&self.pools.files, work),
        }
    }
}

/// The peers of a node that has none.
#[derive(Debug)]
pub struct NoPeers;

impl PeerLink for NoPeers {
    fn send(&self, _: NodeId, _: Frame) {}
}

/// Ends the process.
#[derive(Debug)]
pub struct MachineEnd;

impl Halt for MachineEnd {
    fn halt(&self, end: End, why: &str) {
        tracing::error!(code = end as u8, error = why, "the node ends itself");
        eprintln!("millpond: {why}");
        std::process::exit(i32::from(end as u8));
    }
}
