//! What a log must hold, kept the naive way: whole, in memory, one step after the other. It does not know disks.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use millpond::entry::{Entry, HardState, Position, Recovered};
use millpond::id::{Index, ReplicaId, ShardId};
use millpond::storage::wal::LogOp;

/// Whose log.
pub type Owner = (ShardId, ReplicaId);

/// The smallest change that a crash may leave standing alone.
#[derive(Clone)]
pub enum Step {
    /// A new hard state.
    HardState(HardState),
    /// Entries from an index on are gone.
    Truncate(Index),
    /// One more entry.
    Entry(Entry),
    /// Entries through a position are gone.
    Trim(Position),
    /// The log restarts behind a snapshot.
    Install(Position, HardState),
    /// The log is gone.
    Forget,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardState(state) => write!(f, "{state:?}"),
            Self::Truncate(from) => write!(f, "truncate {from}"),
            Self::Entry(entry) => f.write_str(&describe_entry(entry)),
            Self::Trim(through) => write!(f, "trim {through:?}"),
            Self::Install(at, state) => write!(f, "install {at:?} {state:?}"),
            Self::Forget => f.write_str("forget"),
        }
    }
}

/// The logs of all replicas of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    logs: BTreeMap<Owner, Recovered>,
}

impl Model {
    /// Applies one step.
    pub fn step(&mut self, owner: Owner, step: &Step) {
        let log = self.logs.entry(owner).or_default();
        match step {
            Step::HardState(state) => log.hard_state = *state,
            Step::Truncate(from) => log.entries.retain(|entry| entry.index < *from),
            Step::Entry(entry) => log.entries.push(entry.clone()),
            Step::Trim(through) => {
                log.entries.retain(|entry| entry.index > through.index);
                if through.index >= log.trimmed.index {
                    log.trimmed = *through;
                }
            }
            Step::Install(at, state) => {
                log.entries.clear();
                (log.trimmed, log.hard_state) = (*at, *state);
            }
            Step::Forget => drop(self.logs.remove(&owner)),
        }
    }

    /// The log of one replica.
    pub fn log(&self, owner: Owner) -> Recovered {
        self.logs.get(&owner).cloned().unwrap_or_default()
    }

    /// What a restarting replica must be given: as the log, with no commit ahead of it.
    pub fn as_loaded(&self) -> BTreeMap<Owner, Recovered> {
        let mut logs = self.logs.clone();
        for log in logs.values_mut() {
            log.hard_state.commit = log.hard_state.commit.clamp(log.trimmed.index, last(log));
        }
        logs
    }
}

/// The last index of a log.
pub fn last(log: &Recovered) -> Index {
    log.entries.last().map_or(log.trimmed.index, |entry| entry.index)
}

/// The steps of a change of a log that ends at `end`.
pub fn steps(op: &LogOp, end: Index) -> Vec<Step> {
    match op {
        LogOp::Append { truncate_from, entries, hard_state } => {
            let first = entries.first().map(|entry| entry.index);
            let cut = truncate_from.iter().copied().chain(first).min().filter(|from| *from <= end);
            let state = hard_state.map(Step::HardState);
            let entries = entries.iter().cloned().map(Step::Entry);
            state.into_iter().chain(cut.map(Step::Truncate)).chain(entries).collect()
        }
        LogOp::Trim { through } => vec![Step::Trim(*through)],
        LogOp::Install { at, hard_state } => vec![Step::Install(*at, *hard_state)],
    }
}

/// Logs in a line each, for the report of a failure.
pub fn describe(logs: &BTreeMap<Owner, Recovered>) -> String {
    let mut text = String::new();
    for ((shard, replica), log) in logs {
        let entries: Vec<String> = log.entries.iter().map(describe_entry).collect();
        let _ =
            write!(text, "\n{shard}/{replica} {:?} trimmed {:?}: {}", log.hard_state, log.trimmed, entries.join(" "));
    }
    text
}

/// An entry as `index@term:bytes`.
pub fn describe_entry(entry: &Entry) -> String {
    format!("{}@{}:{}", entry.index, entry.term, entry.payload.len())
}
