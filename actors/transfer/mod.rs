//! Copies of snapshots between nodes: what a node shares among all that it makes and serves.
//!
//! `fetcher` makes a copy for one group; `source` serves those that other nodes make from here. [`Transfers`] lives as long
//! as the node: the leases of what others copy, how much is read for them at once, how many copies run, how many bytes
//! are copied and served in a second beside the records that the node stores, and how many scrubbers may read through. Its
//! locks are held for a look at a few numbers, and for the removal of a file, so that one cannot be leased and removed at
//! the same time.

pub mod fetcher;
pub mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millpond::id::{Boot, ShardId};
use millpond::limits;
use millpond::storage::disk::{Disk, DiskFile, OpenMode};
use millpond::transfer::{Leases, Pace};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What the copies of one node share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transfers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    leases: Mutex<Leases>,
    pace: Mutex<Pace>,
    serving: Mutex<Pace>,
    scrubbing: Mutex<Pace>,
    reads: Arc<Semaphore>,
    places: Arc<Semaphore>,
    seals: Arc<Semaphore>,
}

impl Transfers {
    /// Those of a life of a node, in which nothing is leased yet.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        let pace = Pace::beside_records(limits::TRANSFER_BYTES_PER_SECOND, limits::TRANSFER_BURST_BYTES);
        let scrubbing = Pace::new(limits::SCRUB_BYTES_PER_SECOND, limits::SCRUB_PIECE_BYTES as u64);
        let shared = Shared {
            began: Instant::now(),
            leases: Mutex::new(Leases::new(boot.0)),
            pace: Mutex::new(pace),
            serving: Mutex::new(pace),
            scrubbing: Mutex::new(scrubbing),
            reads: Arc::new(Semaphore::new(limits::TRANSFER_READS_MAX)),
            places: Arc::new(Semaphore::new(limits::TRANSFERS_RUNNING_MAX)),
            seals: Arc::new(Semaphore::new(limits::BACKUP_SEALS_MAX)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same disk, on which a leased file cannot be removed.
    #[must_use]
    pub fn guard(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(LeasedDisk { disk, transfers: self.clone() })
    }

    /// The replica of a shard has left this node: its files go as soon as nobody goes on copying them.
    pub fn left(&self, shard: ShardId) {
        let now = self.now();
        self.leases().left(now, shard);
    }

    /// Time on the clock of leases and pace.
    fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that this node stores a record.
    pub fn stores(&self) {
        let now = self.now();
        for pace in [&self.shared.pace, &self.shared.serving] {
            lock(pace).stores(now);
        }
    }

    /// How long to wait before a piece of so many bytes is asked for.
    pub(crate) fn reserve(&self, bytes: u64) -> Duration {
        lock(&self.shared.pace).reserve(self.now(), bytes)
    }

    /// How long to wait before a piece of so many bytes is read for another node.
    fn reserve_serving(&self, bytes: u64) -> Duration {
        lock(&self.shared.serving).reserve(self.now(), bytes)
    }

    /// How long to wait before so many bytes of a file are read through.
    pub(crate) fn reserve_scrub(&self, bytes: u64) -> Duration {
        lock(&self.shared.scrubbing).reserve(self.now(), bytes)
    }

    /// Room to read for other nodes.
    fn reads(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.reads)
    }

    /// Room for seals that backups of other nodes wait for.
    pub(crate) fn seals(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.seals)
    }

    /// Room for copies that run.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.places)
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk that keeps what is leased.
#[derive(Debug)]
struct LeasedDisk {
    disk: Arc<dyn Disk>,
    transfers: Transfers,
}

impl Disk for LeasedDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, mode)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.make_folder(folder)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let now = self.transfers.now();
        let leases = self.transfers.leases();
        if leases.hold(now, path) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let removed = self.disk.remove(path);
        drop(leases);
        removed
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.disk.total_bytes()
    }
}
