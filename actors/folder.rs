//! The folder of a group on this node: who works in it, one at a time.
//!
//! Made once for a group, so that it outlives restarts: work of an ended life and of the next one do not meet. It does
//! not know what the work is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use millpond::id::ShardId;

use tokio::sync::oneshot;

use crate::env::{Env, Lane, on_panic};
use crate::replica::ReplicaMessage;
use crate::supervision::Own;

/// The folder of one group. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Folder(Arc<Mutex<()>>);

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
    /// Runs `work` on a worker thread and sends what it returns to the life of the replica that waits for it, as
    /// [`Self::run_for`] does. A panic of the work ends the replica, which would wait for ever.
    pub fn run(
        &self,
        env: &Env,
        waiting: &Own<ReplicaMessage>,
        what: &'static str,
        work: impl FnOnce() -> ReplicaMessage + Send + 'static,
    ) {
        self.run_for(env, waiting, ReplicaMessage::WorkPanicked(what), work);
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
        let (folder, waiting) = (Arc::clone(&self.0), waiting.clone());
        let job = move || {
            let _guard = on_panic({
                let waiting = waiting.clone();
                move || drop(waiting.cast(panicked))
            });
            let _alone = folder.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_current() {
                let _ = waiting.cast(work());
            }
        };
        env.blocking.run(Lane::Work, Box::new(job));
    }

    /// Runs `work` on a worker thread and gives back what it returns; none where it panicked, or where the life that it
    /// is for has ended before.
    pub async fn turn<M: Send + 'static, T: Send + 'static>(
        &self,
        env: &Env,
        waiting: &Own<M>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (folder, waiting) = (Arc::clone(&self.0), waiting.clone());
        let (done, outcome) = oneshot::channel();
        let job = move || {
            let _alone = folder.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_current() {
                // Who does not wait any more needs no outcome.
                let _ = done.send(work());
            }
        };
        env.blocking.run(Lane::Work, Box::new(job));
        outcome.await.ok()
    }
}
