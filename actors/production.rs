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

/// One log thread, and tokio's blocking threads for the rest, at most so many at once.
#[derive(Debug)]
pub struct MachineThreads {
    log: Mutex<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    count: usize,
    workers: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
}

impl MachineThreads {
    /// Starts the log thread; the pool has as many workers as the machine has cores.
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
        let workers = Arc::new(Semaphore::new(count));
        Ok(Self { log: Mutex::new(log), count, workers, runtime: tokio::runtime::Handle::current() })
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
            Lane::Work => {
                let workers = Arc::clone(&self.workers);
                self.runtime.spawn(async move {
                    let worker = workers.acquire_owned().await.expect("it is never closed");
                    let done = tokio::task::spawn_blocking(move || {
                        work();
                        drop(worker);
                    });
                    if let Err(error) = done.await {
                        tracing::error!(%error, "work on a worker thread panicked; who waits for it hears nothing");
                    }
                });
            }
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
