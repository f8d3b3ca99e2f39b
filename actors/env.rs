//! The one way out of an actor: clock, randomness, disk, peers and threads, handed down at start with the knobs.
//!
//! Production fills it with the machine's own; the simulation with seeded ones. An actor that needs time to pass uses
//! `tokio::time`, which the simulation pauses.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use millpond::id::{Boot, NodeId};
use millpond::storage::disk::Disk;

use crate::knobs::Knobs;

/// Wall-clock time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Nanoseconds since the Unix epoch. It may jump, also backwards.
    fn now(&self) -> i64;
}

/// Random bits for ids, jitter and election draws.
pub trait Random: Send + Sync + fmt::Debug {
    /// The next 64 bits.
    fn draw(&self) -> u64;
}

/// Where blocking work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The node's one log thread: writes and syncs of the WAL, in the order they were handed over.
    Log,
    /// A pool for what a client waits for: decoding, encoding, scanning.
    Work,
    /// A pool for heads that become segments. It takes long, and memory waits for it.
    Seal,
    /// A pool for snapshots, after which a head lets go of what was sealed: never behind the next heads.
    Snapshot,
    /// A pool for all other work on the files of groups: restoring, copying, reading through, removing.
    Files,
}

/// Runs work that blocks, off the asynchronous threads. The work sends its own result, as a message.
pub trait Blocking: Send + Sync + fmt::Debug {
    /// Hands the work over and returns at once.
    fn run(&self, lane: Lane, work: Box<dyn FnOnce() + Send>);
    /// How much work of a pool runs at once, at least one.
    fn workers(&self) -> usize;
}

/// The transport below the links: at most once, may drop, repeat and reorder, never blocks.
pub trait PeerLink: Send + Sync + fmt::Debug {
    /// Sends one frame of at most `FRAME_BYTES_MAX` payload bytes to a peer's gateway.
    fn send(&self, to: NodeId, frame: Frame);
    /// Nothing was heard from a peer for too long: drops its connection, so that a fresh one is made. A transport
    /// without connections has nothing to drop.
    fn reconnect(&self, _peer: NodeId) {}
}

/// What travels between gateways: a small header and a payload that is moved, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The encoded `millpond::link` envelope.
    pub header: Bytes,
    /// The payload; may be empty.
    pub payload: Bytes,
}

/// The end of the process, for what no restart can mend.
pub trait Halt: Send + Sync + fmt::Debug {
    /// Ends the node at once, so that nothing later can be acknowledged on what is not durable.
    fn halt(&self, end: End, why: &str);
}

/// Why a node ends itself; the exit codes of `millpond serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The supervision tree spent its restart budget (70, as in sysexits' EX_SOFTWARE).
    Supervision = 70,
    /// A write or sync of the WAL failed; what is on disk is unknown until it is read again (74, EX_IOERR).
    Log = 74,
    /// The data folder is damaged or is not the one that the cluster knows (76, EX_PROTOCOL).
    Store = 76,
}

/// Calls `then` when it is dropped by a panic: work on a worker thread has no supervisor, and who waits for it would
/// hear nothing.
pub fn on_panic(then: impl FnOnce()) -> impl Drop {
    struct OnPanic<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for OnPanic<F> {
        fn drop(&mut self) {
            if std::thread::panicking()
                && let Some(then) = self.0.take()
            {
                then();
            }
        }
    }
    OnPanic(Some(then))
}

/// Everything an actor may reach outside the actor system. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// This node.
    pub node: NodeId,
    /// This life of the process.
    pub boot: Boot,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub random: Arc<dyn Random>,
    /// The data folder.
    pub disk: Arc<dyn Disk>,
    /// The other nodes.
    pub peers: Arc<dyn PeerLink>,
    /// Threads that may block.
    pub blocking: Arc<dyn Blocking>,
    /// The end of the process.
    pub halt: Arc<dyn Halt>,
    /// What is tuned.
    pub knobs: Knobs,
}

/// Runs work at once, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Inline;

#[cfg(test)]
impl Blocking for Inline {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, _: Lane, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}
