//! The node's registry, as its actors share it: one at a time works on it, on a worker thread. It does not know what is
//! kept there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millpond::storage::registry::Registry;

/// A handle of the registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedRegistry(Arc<Mutex<Registry>>);

impl SharedRegistry {
    /// Shares what was opened.
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(Mutex::new(registry)))
    }

    /// The registry, alone. Waits for whoever works on it.
    pub fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every change of it is a commit of its own: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
