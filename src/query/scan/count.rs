//! Counts records, or their bytes, in sliding windows per series.

use std::collections::BTreeMap;

use super::Stopped;
use super::sample::{process, read_lines, series_of};
use crate::block::rows::{Rows, Summary};
use crate::label::Labels;
use crate::limits::QUERY_BYTES_MAX;
use crate::query::ast::Grouping;
use crate::query::error::QueryError;
use crate::query::partial::{CountSeries, pairs};
use crate::query::pattern::LineFilters;
use crate::query::pipeline::Pipeline;
use crate::query::plan::{CountQuery, Points};
use crate::query::range::{Run, run};

/// What a series takes beside its labels and counts, generously.
const SERIES_BYTES: usize = 256;

/// The labels of a record as queries see them: its stream's and its metadata. A field with the name of a label goes by
/// `name_extracted`.
pub fn folded<'a>(labels: &'a Labels, metadata: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    let fields = metadata.map(|(name, value)| {
        let name: Box<str> =
            if labels.get(name).is_some() { format!("{name}_extracted").into() } else { Box::from(name) };
        (name, Box::from(value))
    });
    let labels = labels.iter().map(|(name, value)| (Box::from(name), Box::from(value)));
    Labels::new::<Box<str>, Box<str>>(labels.chain(fields))
}

/// Whether a label tells groups apart.
pub(super) fn keeps(grouping: &Grouping, name: &str) -> bool {
    match grouping {
        Grouping::By(names) => names.iter().any(|wanted| wanted == name),
        Grouping::Without(names) => names.iter().all(|unwanted| unwanted != name),
    }
}

/// The labels of a group, of a series in it.
pub fn grouped(grouping: &Grouping, labels: &Labels) -> Labels {
    Labels::new(labels.iter().filter(|(name, _)| keeps(grouping, name)))
}

/// Rows whose stream is shown at their time, which lies after the first of two and not after the second.
pub(super) fn selected(rows: &Rows, shown: &[Option<i64>], (after, through): (i64, i64)) -> Vec<u32> {
    let (streams, timestamps) = (rows.stream_indexes(), rows.timestamps());
    let fits = |row: &u32| {
        let (stream, timestamp) = (streams[*row as usize], timestamps[*row as usize]);
        shown[stream as usize].is_some_and(|from| timestamp >= from) && timestamp > after && timestamp <= through
    };
    let count = u32::try_from(rows.len()).expect("bounded by BLOCK_ROWS_MAX");
    (0..count).filter(fits).collect()
}

/// Counts at points as differences to the point before: a record that is in the windows of many points costs two.
enum Tally {
    /// Point and difference, not sorted.
    Sparse(Vec<(u32, i64)>),
    /// Per point.
    Dense(Vec<i64>),
}

impl Tally {
    /// Adds `amount` at the points from `first` before `past`.
    fn add(&mut self, points: u32, first: u32, past: u32, amount: i64) {
        if let Self::Sparse(differences) = self
            && differences.len() * 2 > points as usize
        {
            let mut dense = vec![0; points as usize];
            differences.iter().for_each(|(point, difference)| dense[*point as usize] += difference);
            *self = Self::Dense(dense);
        }
        match self {
            Self::Sparse(differences) => {
                differences.push((first, amount));
                if past < points {
                    differences.push((past, -amount));
                }
            }
            Self::Dense(dense) => {
                dense[first as usize] += amount;
                if past < points {
                    dense[past as usize] -= amount;
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Sparse(differences) => differences.capacity() * size_of::<(u32, i64)>(),
            Self::Dense(dense) => dense.len() * size_of::<i64>(),
        }
    }

    /// The count at each point.
    fn counts(self, points: u32) -> impl Iterator<Item = u64> {
        let dense = match self {
            Self::Dense(dense) => dense,
            Self::Sparse(differences) => {
                let mut dense = vec![0; points as usize];
                differences.iter().for_each(|(point, difference)| dense[*point as usize] += difference);
                dense
            }
        };
        dense.into_iter().scan(0_i64, |sum, difference| {
            *sum += difference;
            Some(u64::try_from(*sum).expect("what was added comes off once"))
        })
    }
}

/// The counts of one series.
struct Tallied {
    labels: Labels,
    records: Tally,
    /// Bytes of their lines, where these are counted.
    bytes: Option<Tally>,
}

impl Tallied {
    /// Adds a record with a line of so many bytes at the points of a run.
    fn add(&mut self, points: u32, (first, past): Run, bytes: usize) {
        self.records.add(points, first, past, 1);
        if let Some(tally) = &mut self.bytes {
            tally.add(points, first, past, i64::try_from(bytes).expect("a line fits memory"));
        }
    }

    fn held_bytes(&self) -> usize {
        labels_bytes(&self.labels) + self.records.bytes() + self.bytes.as_ref().map_or(0, Tally::bytes)
    }

    /// Point and count, or bytes, where there is a record.
    fn points(self, points: u32) -> Vec<(u32, u64)> {
        let records = (0..points).zip(self.records.counts(points));
        match self.bytes {
            None => records.filter(|(_, count)| *count > 0).collect(),
            Some(bytes) => {
                let both = records.zip(bytes.counts(points));
                both.filter(|((_, count), _)| *count > 0).map(|((point, _), bytes)| (point, bytes)).collect()
            }
        }
    }
}

pub(super) struct Counter {
    pipeline: Pipeline,
    /// Whether lines are needed.
    lines: bool,
    bytes_of_lines: bool,
    window: i64,
    points: Points,
    grouping: Option<Grouping>,
    series: Vec<Tallied>,
    indexes: BTreeMap<Labels, u32>,
}

/// Metadata fields of a row that tell series apart.
type Fields<'a> = Vec<(&'a str, &'a str)>;

impl Counter {
    pub(super) fn new(query: &CountQuery) -> Result<Self, QueryError> {
        Ok(Self {
            pipeline: Pipeline::new(&query.logs.stages)?,
            lines: query.bytes || read_lines(&query.logs.stages),
            bytes_of_lines: query.bytes,
            window: query.window,
            points: query.points,
            grouping: query.grouping.clone(),
            series: Vec::new(),
            indexes: BTreeMap::new(),
        })
    }

    /// Timestamps after the first, through the second.
    fn time(&self) -> (i64, i64) {
        (self.points.start.saturating_sub(self.window), self.points.end())
    }

    pub(super) fn may_hold(&self, chunk: &Summary) -> bool {
        let (after, through) = self.time();
        chunk.max_timestamp > after && chunk.min_timestamp <= through
    }

    /// Whether lines are read, beside those that filters look at.
    pub(super) fn needs_lines(&self) -> bool {
        self.bytes_of_lines || (self.lines && !self.pipeline.is_plain())
    }

    pub(super) fn filters(&self) -> &LineFilters {
        self.pipeline.leading()
    }

    /// Whether metadata is looked at, or can tell series of these streams apart.
    pub(super) fn needs_metadata<'a>(&self, mut streams: impl Iterator<Item = &'a Labels>) -> bool {
        let tells_apart = match &self.grouping {
            None | Some(Grouping::Without(_)) => true,
            Some(Grouping::By(names)) => streams.any(|labels| names.iter().any(|name| labels.get(name).is_none())),
        };
        tells_apart || !self.pipeline.is_plain()
    }

    /// Rows that have fitting time and stream.
    pub(super) fn select(&self, rows: &Rows, shown: &[Option<i64>]) -> Vec<u32> {
        selected(rows, shown, self.time())
    }

    /// Counts those of the rows chosen that pass the stages behind the leading filters.
    pub(super) fn count(
        &mut self,
        rows: &Rows,
        selected: &[u32],
        metadata: bool,
        stopped: Stopped<'_>,
    ) -> Result<(), QueryError> {
        if self.pipeline.is_plain() {
            self.tally(rows, selected, metadata);
        } else {
            self.process(rows, selected, stopped)?;
        }
        let held: usize = self.series.iter().map(Tallied::held_bytes).sum();
        if held > QUERY_BYTES_MAX { Err(QueryError::Memory { max: QUERY_BYTES_MAX }) } else { Ok(()) }
    }

    fn process(&mut self, rows: &Rows, selected: &[u32], stopped: Stopped<'_>) -> Result<(), QueryError> {
        let Self { pipeline, series, indexes, grouping, points, .. } = self;
        let run = |timestamp| run(*points, self.window, timestamp);
        process(pipeline, rows, selected, self.lines, run, stopped, |_, run, processed| {
            let labels = series_of(&processed.fields, grouping.as_ref())?;
            let index = index(series, indexes, labels, self.bytes_of_lines);
            series[index as usize].add(points.count, run, processed.line.len());
            Ok(())
        })
    }

    fn tally(&mut self, rows: &Rows, selected: &[u32], metadata: bool) {
        let mut known: Vec<BTreeMap<Fields<'_>, u32>> = vec![BTreeMap::new(); rows.streams().len()];
        let mut fields: Fields<'_> = Vec::new();
        let mut last: Option<(u32, Fields<'_>, u32)> = None;
        for row in selected {
            let row = *row as usize;
            let stream = rows.stream_indexes()[row];
            fields.clear();
            if metadata {
                fields.extend(rows.metadata(row).filter(|(name, _)| self.tells_apart(name)));
            }
            let same = last.as_ref().filter(|(at, known, _)| *at == stream && *known == fields);
            let index = match same {
                Some((_, _, index)) => *index,
                None => {
                    let known = &mut known[stream as usize];
                    let index = match known.get(fields.as_slice()) {
                        Some(index) => *index,
                        None => {
                            let index = self.index(rows.stream(row), &fields);
                            known.insert(fields.clone(), index);
                            index
                        }
                    };
                    last = Some((stream, fields.clone(), index));
                    index
                }
            };
            let bytes = if self.bytes_of_lines { rows.line(row).len() } else { 0 };
            self.add(index, rows.timestamp(row), bytes);
        }
    }

    fn tells_apart(&self, name: &str) -> bool {
        match &self.grouping {
            None | Some(Grouping::Without(_)) => true,
            Some(Grouping::By(names)) => {
                names.iter().any(|wanted| wanted.strip_suffix("_extracted").unwrap_or(wanted) == name || wanted == name)
            }
        }
    }

    fn index(&mut self, labels: &Labels, fields: &[(&str, &str)]) -> u32 {
        let whole = folded(labels, fields.iter().copied());
        let labels = self.grouping.as_ref().map_or(whole.clone(), |grouping| grouped(grouping, &whole));
        index(&mut self.series, &mut self.indexes, labels, self.bytes_of_lines)
    }

    /// Adds a record to the points whose window it is in: those at its time or later, before its time plus the window.
    fn add(&mut self, index: u32, timestamp: i64, bytes: usize) {
        if let Some(run) = run(self.points, self.window, timestamp) {
            self.series[index as usize].add(self.points.count, run, bytes);
        }
    }

    pub(super) fn finish(self) -> Vec<CountSeries> {
        let count = self.points.count;
        let mut series: BTreeMap<Labels, Vec<(u32, u64)>> = BTreeMap::new();
        for tallied in self.series {
            let labels = tallied.labels.clone();
            let points = tallied.points(count);
            if !points.is_empty() {
                series.insert(labels, points);
            }
        }
        series.into_iter().map(|(labels, points)| CountSeries { labels: pairs(&labels), points }).collect()
    }
}

/// The position of a series, which is made where there is none.
fn index(series: &mut Vec<Tallied>, indexes: &mut BTreeMap<Labels, u32>, labels: Labels, bytes: bool) -> u32 {
    *indexes.entry(labels).or_insert_with_key(|labels| {
        let tally = || Tally::Sparse(Vec::new());
        series.push(Tallied { labels: labels.clone(), records: tally(), bytes: bytes.then(tally) });
        u32::try_from(series.len() - 1).expect("bounded by memory")
    })
}

pub(super) fn labels_bytes(labels: &Labels) -> usize {
    SERIES_BYTES + labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum::<usize>()
}
