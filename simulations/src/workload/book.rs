//! Every record that clients sent, and when each was known to be stored: what the naive evaluator goes by. It does not
//! know which shard took a record.

use std::collections::BTreeSet;

use crate::naive::Record;

/// A moment: how many things the book had been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// All records of a run, by id. A record's place is shard zero and its id, until somebody reads where it is.
#[derive(Debug, Default)]
pub(super) struct Book {
    now: Moment,
    records: Vec<(Record, Option<Moment>)>,
    by_time: BTreeSet<(i64, u64)>,
}

impl Book {
    /// A record is sent. Ids come in their order, from zero on.
    pub(super) fn sent(&mut self, record: Record) {
        let id = record.place.1;
        assert_eq!(id, self.records.len() as u64, "ids come in their order");
        self.by_time.insert((record.timestamp, id));
        self.records.push((record, None));
    }

    /// A record was answered as stored.
    pub(super) fn stored(&mut self, id: u64) {
        let now = self.tick();
        if let Some((_, stored)) = usize::try_from(id).ok().and_then(|at| self.records.get_mut(at)) {
            *stored = Some(now);
        }
    }

    /// A moment after all that the book was told.
    pub(super) fn tick(&mut self) -> Moment {
        self.now.0 += 1;
        self.now
    }

    /// A record.
    pub(super) fn record(&self, id: u64) -> Option<&Record> {
        usize::try_from(id).ok().and_then(|at| self.records.get(at)).map(|(record, _)| record)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// All, by id.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|(record, _)| record)
    }

    /// The records with times in [from, to), by time, and of each whether it was stored before a moment.
    pub(super) fn between(&self, from: i64, to: i64, before: Moment) -> impl Iterator<Item = (&Record, bool)> {
        self.by_time.range((from, 0)..(to, 0)).map(move |(_, id)| {
            let (record, stored) = &self.records[usize::try_from(*id).expect("an index")];
            (record, stored.is_some_and(|at| at < before))
        })
    }
}
