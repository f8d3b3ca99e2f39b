//! The folder of a group on this node: who works in it, one at a time.
//!
//! Made once for a group, so that it outlives restarts: work of an ended life and of the next one do not meet. Work that waits
//! for its turn takes no thread: a pool whose threads all wait for one folder would do nothing for the others. It does not
//! know what the work is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use millpond::id::ShardId;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::env::{Env, Lane, on_panic};
use crate::replica::ReplicaMessage;
use crate::supervision::Own;

/// The folder of one group. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Folder(Arc<tokio::sync::Mutex<()>>);

/// The folders of a node's groups. Lives as long as the node, so that work of an ended life of a supervisor and work of
/// the next one do not meet either. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Folders(Arc<Mutex<BTreeMap<ShardId, Folder>>>);

impl Folders {
    /// That of a group.
    pub fn of(&self, shard: ShardId) -> Folder {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_default().clone()
    }
}

impl Folder {
    /// Runs `work` on a thread of a pool and sends what it returns to the life of the replica that waits for it, as
    /// [`Self::run_for`] does. A panic of the work ends the replica, which would wait for ever.
    pub fn run(
        &self,
        env: &Env,
        lane: Lane,
        waiting: &Own<ReplicaMessage>,
        what: &'static str,
        work: impl FnOnce() -> ReplicaMessage + Send + 'static,
    ) {
        self.tell(env, lane, waiting, ReplicaMessage::WorkPanicked(what), work);
    }

    /// Runs `work` on a worker thread and sends what it returns to the life that waits for it, or `panicked`. Work for a
    /// life that has ended is not begun, and its outcome goes nowhere: the next life reads the folder anew and gives
    /// out what is still to do.
    pub fn run_for<M: Send + 'static>(
        &self,
        env: &Env,
        waiting: &Own<M>,
        panicked: M,
        work: impl FnOnce() -> M + Send + 'static,
    ) {
        self.tell(env, Lane::Files, waiting, panicked, work);
    }

    fn tell<M: Send + 'static>(
        &self,
        env: &Env,
        lane: Lane,
        waiting: &Own<M>,
        panicked: M,
        work: impl FnOnce() -> M + Send + 'static,
    ) {
        let waiting = waiting.clone();
        self.alone(env, lane, move || {
            let _guard = on_panic({
                let waiting = waiting.clone();
                move || drop(waiting.cast(panicked))
            });
            if waiting.is_current() {
                let _ = waiting.cast(work());
            }
        });
    }

    /// Runs `work` on a worker thread and gives back what it returns; none where it panicked, or where the life that it
    /// is for has ended before.
    pub async fn turn<M: Send + 'static, T: Send + 'static>(
        &self,
        env: &Env,
        waiting: &Own<M>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let waiting = waiting.clone();
        let (done, outcome) = oneshot::channel();
        self.alone(env, Lane::Files, move || {
            if waiting.is_current() {
                // Who does not wait any more needs no outcome.
                let _ = done.send(work());
            }
        });
        outcome.await.ok()
    }

    /// Hands work to a pool when it is the folder's next, in the order in which it came.
    fn alone(&self, env: &Env, lane: Lane, work: impl FnOnce() + Send + 'static) {
        let folder = Arc::clone(&self.0);
        let run = move |env: &Env, alone: OwnedMutexGuard<()>| {
            let job = move || {
                work();
                drop(alone);
            };
            env.blocking.run(lane, Box::new(job));
        };
        match Arc::clone(&folder).try_lock_owned() {
            Ok(alone) => run(env, alone),
            Err(_) => {
                let env = env.clone();
                tokio::spawn(async move { run(&env, folder.lock_owned().await) });
            }
        }
    }
}
