//! Lists the labels of streams: names, values, or whole sets.

use std::collections::BTreeSet;

use crate::block::rows::Summary;
use crate::label::Labels;
use crate::limits::QUERY_BYTES_MAX;
use crate::query::error::QueryError;
use crate::query::partial::{Found, Pairs, pairs};
use crate::query::plan::{StreamsQuery, StreamsWant};

pub(super) struct Lister {
    want: StreamsWant,
    time: (i64, i64),
    texts: BTreeSet<String>,
    series: BTreeSet<Pairs>,
    bytes: usize,
}

/// Labels with such names are Millpond's own.
pub(in crate::query) fn is_hidden(name: &str) -> bool {
    name.len() >= 4 && name.starts_with("__") && name.ends_with("__")
}

impl Lister {
    pub(super) fn new(query: &StreamsQuery) -> Self {
        let time = (query.start, query.end);
        Self { want: query.want.clone(), time, texts: BTreeSet::new(), series: BTreeSet::new(), bytes: 0 }
    }

    /// Both ends count: a label that was seen at the end is seen.
    pub(super) fn may_hold(&self, span: &Summary) -> bool {
        span.max_timestamp >= self.time.0 && span.min_timestamp <= self.time.1
    }

    pub(super) fn add(&mut self, labels: &Labels) -> Result<(), QueryError> {
        match &self.want {
            StreamsWant::Names => {
                for (name, _) in labels.iter().filter(|(name, _)| !is_hidden(name)) {
                    if !self.texts.contains(name) {
                        self.bytes += name.len() + 64;
                        self.texts.insert(name.to_owned());
                    }
                }
            }
            StreamsWant::Values(name) => {
                if let Some(value) = labels.get(name).filter(|value| !is_hidden(name) && !self.texts.contains(*value)) {
                    self.bytes += value.len() + 64;
                    self.texts.insert(value.to_owned());
                }
            }
            StreamsWant::Series => {
                let mut set = pairs(labels);
                set.retain(|(name, _)| !is_hidden(name));
                let size: usize = set.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
                if self.series.insert(set) {
                    self.bytes += size;
                }
            }
        }
        if self.bytes > QUERY_BYTES_MAX { Err(QueryError::Memory { max: QUERY_BYTES_MAX }) } else { Ok(()) }
    }

    pub(super) fn finish(self) -> Found {
        if self.want == StreamsWant::Series { Found::Series(self.series) } else { Found::Texts(self.texts) }
    }
}
