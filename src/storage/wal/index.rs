//! Where every live entry of every replica lies, in memory. Records change it the same way whether they were just
//! made durable or are read back at start. This file does not know files.

use std::collections::BTreeMap;

use super::format::{Item, Owner};
use crate::entry::{HardState, Position};
use crate::id::{Index, Term};
use crate::storage::error::StorageError;

/// Where one entry's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) generation: u64,
    pub(super) term: Term,
    pub(super) offset: u32,
    /// Of the whole record.
    pub(super) length: u32,
    /// What its checksum continues.
    pub(super) chain: u32,
}

/// The log of one replica.
///
/// Invariants: `entries` hold no index up to `trimmed`; `held` sums their bytes per generation and names no generation
/// with none; `hard_state_in` and `trimmed_in` name the generation of the record that says so, 0 for none.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) hard_state: HardState,
    pub(super) hard_state_in: u64,
    pub(super) trimmed: Position,
    pub(super) trimmed_in: u64,
    pub(super) entries: BTreeMap<u64, Location>,
    pub(super) held: BTreeMap<u64, u64>,
}

impl Log {
    /// The last entry; where there is none, where the log was trimmed.
    pub(super) fn last(&self) -> Index {
        Index(self.entries.last_key_value().map_or(self.trimmed.index.0, |(index, _)| *index))
    }

    fn insert(&mut self, index: Index, location: Location) {
        if index <= self.trimmed.index {
            return;
        }
        *self.held.entry(location.generation).or_default() += u64::from(location.length);
        if let Some(old) = self.entries.insert(index.0, location) {
            release(&mut self.held, &old);
        }
    }

    fn truncate(&mut self, from: Index) {
        for location in self.entries.split_off(&from.0).values() {
            release(&mut self.held, location);
        }
    }

    fn trim(&mut self, through: Position, generation: u64) {
        if through.index >= self.trimmed.index {
            (self.trimmed, self.trimmed_in) = (through, generation);
        }
        let kept = self.entries.split_off(&(self.trimmed.index.0.saturating_add(1)));
        for location in std::mem::replace(&mut self.entries, kept).values() {
            release(&mut self.held, location);
        }
    }

    fn install(&mut self, at: Position, generation: u64) {
        self.entries.clear();
        self.held.clear();
        (self.trimmed, self.trimmed_in) = (at, generation);
    }

    fn set_hard_state(&mut self, hard_state: HardState, generation: u64) {
        (self.hard_state, self.hard_state_in) = (hard_state, generation);
    }

    /// Whether recycling the generation would lose something.
    pub(super) fn needs(&self, generation: u64) -> bool {
        self.hard_state_in == generation || self.trimmed_in == generation || self.held.contains_key(&generation)
    }
}

fn release(held: &mut BTreeMap<u64, u64>, location: &Location) {
    let bytes = held.get_mut(&location.generation).expect("every entry is counted where it lies");
    *bytes -= u64::from(location.length);
    if *bytes == 0 {
        held.remove(&location.generation);
    }
}

/// The logs of all replicas.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    logs: BTreeMap<Owner, Log>,
}

impl LogIndex {
    /// Takes over what a durable record says.
    pub(super) fn apply(&mut self, owner: Owner, item: &Item, location: Location) {
        if matches!(item, Item::Mark { .. }) {
            return;
        }
        let log = self.logs.entry(owner).or_default();
        match item {
            Item::Mark { .. } => {}
            Item::Entry { index, .. } => log.insert(*index, location),
            Item::HardState(state) => log.set_hard_state(*state, location.generation),
            Item::Truncate { from } => log.truncate(*from),
            Item::Trim(through) => log.trim(*through, location.generation),
            Item::Install { at, hard_state } => {
                log.install(*at, location.generation);
                log.set_hard_state(*hard_state, location.generation);
            }
            Item::Forget => {
                self.logs.remove(&owner);
            }
        }
    }

    pub(super) fn get(&self, owner: Owner) -> Option<&Log> {
        self.logs.get(&owner)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Owner, &Log)> {
        self.logs.iter().map(|(owner, log)| (*owner, log))
    }

    pub(super) fn needs(&self, generation: u64) -> bool {
        self.logs.values().any(|log| log.needs(generation))
    }

    /// Bytes of live entries in a generation, per replica that has some.
    pub(super) fn held(&self, generation: u64) -> impl Iterator<Item = (Owner, u64)> {
        self.iter().filter_map(move |(owner, log)| Some((owner, *log.held.get(&generation)?)))
    }

    /// Every log must be contiguous once all of it was read.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        for (owner, log) in &self.logs {
            for (index, expected) in log.entries.keys().zip(log.trimmed.index.0 + 1..) {
                if *index != expected {
                    return Err(StorageError::Hole { shard: owner.0, replica: owner.1, index: Index(expected) });
                }
            }
        }
        Ok(())
    }
}
