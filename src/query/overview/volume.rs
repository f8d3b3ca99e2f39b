//! Bytes and records per series: of a whole range, or step by step. A shard takes them from the summaries of its blocks
//! where a block lies in one step and one series, and counts the records of the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ITEM_BYTES, Overviewed, labels};
use crate::label::Labels;
use crate::query::ast::Matcher;
use crate::query::evaluate::Series;
use crate::query::partial::{Pairs, pairs};
use crate::query::plan::Points;
use crate::query::scan::is_hidden;

/// What tells series apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeBy {
    /// Nothing: one series, and the streams are named beside.
    Whole,
    /// The values of these labels, of all where none is named; where `required`, streams without one are left out.
    Series {
        /// The labels.
        names: Vec<String>,
        /// Whether all must be there.
        required: bool,
    },
    /// The names of these labels, of all where none is named: a stream counts for each that it has.
    Labels(Vec<String>),
}

impl VolumeBy {
    /// Whether series are names of labels.
    pub(super) fn is_names(&self) -> bool {
        matches!(self, Self::Labels(_))
    }
}

/// Bytes and records in [start, end).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeQuery {
    /// Of which streams.
    pub matchers: Vec<Matcher>,
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// The steps, the first at `start`.
    pub buckets: Points,
    /// What tells series apart.
    pub by: VolumeBy,
}

/// Bytes and records of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Of lines and metadata, as users sent them.
    pub bytes: u64,
    /// Records.
    pub entries: u64,
}

impl Amount {
    fn add(&mut self, more: Self) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.entries = self.entries.saturating_add(more.entries);
    }
}

/// What one shard holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVolume {
    /// The label sets, where they are wanted.
    pub streams: BTreeSet<Pairs>,
    /// Batches and blocks with a wanted record.
    pub chunks: u64,
    /// Per series: step and amount, ascending.
    pub series: Vec<(Pairs, Vec<(u32, Amount)>)>,
}

impl VolumeQuery {
    /// The series a stream counts for; none where it counts for nothing. A name that stands for a series is its own value.
    pub fn series_of(&self, stream: &Labels) -> Vec<Labels> {
        let held = |names: &[String]| -> Vec<(String, String)> {
            let wanted = |name: &str| !is_hidden(name) && (names.is_empty() || names.iter().any(|named| named == name));
            pairs(stream).into_iter().filter(|(name, _)| wanted(name)).collect()
        };
        match &self.by {
            VolumeBy::Whole => vec![Labels::new::<&str, &str>([])],
            VolumeBy::Series { names, required } => {
                let held = held(names);
                if *required && held.len() < names.len() { Vec::new() } else { vec![Labels::new(held)] }
            }
            VolumeBy::Labels(names) => {
                held(names).into_iter().map(|(name, _)| Labels::new([(name.as_str(), name.as_str())])).collect()
            }
        }
    }

    /// The step of a time in the range.
    pub fn bucket(&self, time: i64) -> u32 {
        let at = time.saturating_sub(self.buckets.start) / self.buckets.step;
        u32::try_from(at).unwrap_or(0).min(self.buckets.count - 1)
    }
}

/// Amounts per series and step. It adds up in any order to the same.
#[derive(Debug, Default)]
pub struct Volume {
    streams: BTreeSet<Pairs>,
    chunks: u64,
    series: BTreeMap<Labels, BTreeMap<u32, Amount>>,
    bytes: usize,
}

fn text_bytes<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> usize {
    ITEM_BYTES + texts.map(|(name, value)| name.len() + value.len() + 48).sum::<usize>()
}

impl Volume {
    /// One more batch or block.
    pub fn count_chunk(&mut self) {
        self.chunks += 1;
    }

    /// One more stream; the same again says nothing new.
    pub fn name_stream(&mut self, stream: &Labels) {
        let set = pairs(stream);
        let size = text_bytes(stream.iter());
        if self.streams.insert(set) {
            self.bytes += size;
        }
    }

    /// Adds to a step of a series.
    pub fn add(&mut self, series: &Labels, bucket: u32, amount: Amount) {
        if !self.series.contains_key(series) {
            self.bytes += text_bytes(series.iter());
            self.series.insert(series.clone(), BTreeMap::new());
        }
        let held = self.series.get_mut(series).expect("it was put there");
        if let Some(sum) = held.get_mut(&bucket) {
            return sum.add(amount);
        }
        self.bytes += size_of::<(u32, Amount)>() * 2;
        held.insert(bucket, amount);
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What travels.
    pub fn found(self) -> FoundVolume {
        let series = self.series.into_iter().map(|(labels, points)| (pairs(&labels), points.into_iter().collect()));
        FoundVolume { streams: self.streams, chunks: self.chunks, series: series.collect() }
    }

    pub(super) fn absorb(&mut self, found: FoundVolume) {
        self.chunks = self.chunks.saturating_add(found.chunks);
        found.streams.into_iter().for_each(|stream| self.name_stream(&labels(stream)));
        for (series, points) in found.series {
            let series = labels(series);
            points.into_iter().for_each(|(bucket, amount)| self.add(&series, bucket, amount));
        }
    }

    pub(super) fn stats(&self) -> Overviewed {
        let mut all = Amount::default();
        self.series.values().flat_map(BTreeMap::values).for_each(|amount| all.add(*amount));
        let Amount { bytes, entries } = all;
        Overviewed::Stats { streams: self.streams.len(), chunks: self.chunks, entries, bytes }
    }

    /// Bytes per series, the largest first, then by labels. Where series are `names`, their labels have no value.
    pub(super) fn series(self, limit: usize, names: bool) -> Vec<Series> {
        let mut series: Vec<(u64, Series)> = Vec::with_capacity(self.series.len());
        for (labels, points) in self.series {
            let sum = points.values().fold(0_u64, |sum, amount| sum.saturating_add(amount.bytes));
            let points = points.into_iter().map(|(bucket, amount)| (bucket, amount.bytes as f64)).collect();
            let name = labels.iter().next().filter(|_| names).map(|(name, _)| Labels::naming(name));
            let labels = name.unwrap_or(labels);
            series.push((sum, Series { labels, points }));
        }
        series.sort_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.labels.cmp(&right.labels)));
        series.truncate(limit);
        series.into_iter().map(|(_, series)| series).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(by: VolumeBy) -> VolumeQuery {
        let buckets = Points { start: 100, step: 10, count: 3 };
        VolumeQuery { matchers: Vec::new(), start: 100, end: 125, buckets, by }
    }

    #[test]
    fn a_stream_counts_for_the_series_of_its_labels() {
        let stream = Labels::new([("app", "a"), ("env", "x"), ("team", "t")]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let series = |by| query(by).series_of(&stream);
        let by = |listed: &[&str], required| series(VolumeBy::Series { names: names(listed), required });
        assert_eq!(by(&["app", "env"], true), [Labels::new([("app", "a"), ("env", "x")])]);
        assert_eq!(by(&["app", "none"], false), [Labels::new([("app", "a")])]);
        assert_eq!(by(&["app", "none"], true), []);
        let listed = series(VolumeBy::Labels(names(&["app", "none", "team"])));
        assert_eq!(listed, [Labels::new([("app", "app")]), Labels::new([("team", "team")])]);
        assert_eq!(by(&[], false), std::slice::from_ref(&stream));
        assert_eq!(series(VolumeBy::Labels(Vec::new())).len(), 3);
        let mut volume = Volume::default();
        volume.add(&listed[0], 0, Amount { bytes: 1, entries: 1 });
        assert_eq!(volume.series(1, true)[0].labels.iter().collect::<Vec<_>>(), [("app", "")]);
    }

    #[test]
    fn times_fall_into_their_step_and_the_last_takes_the_end() {
        let query = query(VolumeBy::Whole);
        assert_eq!([100, 109, 110, 124].map(|time| query.bucket(time)), [0, 0, 1, 2]);
    }

    #[test]
    fn absurd_amounts_of_another_node_add_up_to_the_largest() {
        let amount = Amount { bytes: u64::MAX, entries: u64::MAX };
        let series = vec![(vec![("app".to_owned(), "a".to_owned())], vec![(0, amount), (1, amount)])];
        let found = FoundVolume { streams: BTreeSet::new(), chunks: u64::MAX, series };
        let mut all = Volume::default();
        all.absorb(found.clone());
        all.absorb(found);
        let expected = Overviewed::Stats { streams: 0, chunks: u64::MAX, entries: u64::MAX, bytes: u64::MAX };
        assert_eq!(all.stats(), expected);
        assert_eq!(all.series(1, false)[0].points.len(), 2);
    }

    #[test]
    fn parts_add_up_in_any_order() {
        let part = |stream: &str, bucket, bytes| {
            let mut volume = Volume::default();
            volume.count_chunk();
            volume.name_stream(&Labels::new([("app", stream)]));
            volume.add(&Labels::new([("app", stream)]), bucket, Amount { bytes, entries: 1 });
            volume.found()
        };
        let parts = [part("a", 0, 5), part("b", 1, 9), part("a", 0, 7), part("a", 2, 1)];
        let sum = |order: [usize; 4]| {
            let mut all = Volume::default();
            order.into_iter().for_each(|at| all.absorb(parts[at].clone()));
            all
        };
        let (one, other) = (sum([0, 1, 2, 3]), sum([3, 2, 0, 1]));
        assert_eq!(one.stats(), Overviewed::Stats { streams: 2, chunks: 4, entries: 4, bytes: 22 });
        let (one, other) = (one.series(1, false), other.series(1, false));
        assert_eq!(one, other);
        assert_eq!(one[0].points, [(0, 12.0), (2, 1.0)]);
    }
}
