//! Runs the pipeline of a metric query over records, and folds the numbers that are unwrapped from them per series and
//! run of points.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Stopped;
use super::count::{keeps, labels_bytes, selected};
use crate::block::rows::{Rows, Summary};
use crate::id::ShardId;
use crate::label::Labels;
use crate::limits::{QUERY_BYTES_MAX, QUERY_NUMBERS_MAX};
use crate::query::ast::{Grouping, LabelSource, Stage};
use crate::query::error::QueryError;
use crate::query::partial::{FoldSeries, pairs};
use crate::query::pattern::LineFilters;
use crate::query::pipeline::{Fields, Pipeline, Processed, Record, Unwrapped};
use crate::query::plan::{NumberQuery, Points};
use crate::query::range::{Fold, Folds, Keep, Run, Sample, run};

/// Whether any of the stages looks at the line.
pub(super) fn read_lines(stages: &[Stage]) -> bool {
    stages.iter().any(|stage| match stage {
        Stage::Filter(_)
        | Stage::Json(_)
        | Stage::Logfmt { .. }
        | Stage::Pattern(_)
        | Stage::Regexp(_)
        | Stage::Unpack
        | Stage::LineFormat(_) => true,
        Stage::LabelFormat(formats) => formats.iter().any(|format| matches!(format.source, LabelSource::Template(_))),
        Stage::Labels(_) | Stage::Drop(_) | Stage::Keep(_) | Stage::Decolorize => false,
    })
}

/// Runs a pipeline over rows that passed its leading filters, as far as they are in a window, and hands on those that
/// pass the rest with the run they are in. All metadata is there; without `lines` every line is taken for empty.
pub(super) fn process(
    pipeline: &Pipeline,
    rows: &Rows,
    selected: &[u32],
    lines: bool,
    run: impl Fn(i64) -> Option<Run>,
    stopped: Stopped<'_>,
    mut each: impl FnMut(usize, Run, Processed<'_>) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let mut metadata: Vec<(&str, &str)> = Vec::new();
    for row in selected.iter().map(|row| *row as usize) {
        let Some(run) = run(rows.timestamp(row)) else { continue };
        if stopped() {
            return Err(QueryError::Cancelled);
        }
        metadata.clear();
        metadata.extend(rows.metadata(row));
        let line = if lines { rows.line(row) } else { "" };
        let record = Record { timestamp: rows.timestamp(row), line, labels: rows.stream(row), metadata: &metadata };
        if let Some(processed) = pipeline.run(&record) {
            each(row, run, processed)?;
        }
    }
    Ok(())
}

/// The labels of the series that a record belongs to.
///
/// # Errors
/// `QueryError::Pipeline` where a stage could not do its work.
pub(super) fn series_of(fields: &Fields<'_>, grouping: Option<&Grouping>) -> Result<Labels, QueryError> {
    if let Some(error) = fields.error() {
        return Err(QueryError::Pipeline { error: error.to_owned(), series: fields.folded().to_string() });
    }
    let kept = fields.iter().filter(|(name, ..)| grouping.is_none_or(|grouping| keeps(grouping, name)));
    Ok(Labels::new(kept.map(|(name, value, _)| (name, value))))
}

/// Folds unwrapped numbers.
pub(super) struct Sampler {
    shard: ShardId,
    pipeline: Pipeline,
    unwrapped: Unwrapped,
    lines: bool,
    keep: Keep,
    window: i64,
    points: Points,
    grouping: Option<Grouping>,
    series: BTreeMap<Labels, Folds>,
    bytes: usize,
    numbers: usize,
}

impl Sampler {
    pub(super) fn new(query: &NumberQuery, shard: ShardId) -> Result<Self, QueryError> {
        Ok(Self {
            shard,
            pipeline: Pipeline::new(&query.logs.stages)?,
            unwrapped: Unwrapped::new(&query.unwrap)?,
            lines: read_lines(&query.logs.stages),
            keep: query.keep,
            window: query.window,
            points: query.points,
            grouping: query.grouping.clone(),
            series: BTreeMap::new(),
            bytes: 0,
            numbers: 0,
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

    pub(super) fn needs_lines(&self) -> bool {
        self.lines
    }

    pub(super) fn filters(&self) -> &LineFilters {
        self.pipeline.leading()
    }

    /// Rows that have fitting time and stream.
    pub(super) fn select(&self, rows: &Rows, shown: &[Option<i64>]) -> Vec<u32> {
        selected(rows, shown, self.time())
    }

    /// Folds those of the rows chosen that pass the stages behind the leading filters. All metadata is there.
    pub(super) fn fold(&mut self, rows: &Rows, selected: &[u32], stopped: Stopped<'_>) -> Result<(), QueryError> {
        let Self { pipeline, unwrapped, series, bytes, numbers, .. } = self;
        let run = |timestamp| run(self.points, self.window, timestamp);
        process(pipeline, rows, selected, self.lines, run, stopped, |row, run, Processed { mut fields, .. }| {
            let Some(value) = unwrapped.read(&mut fields) else { return Ok(()) };
            let labels = series_of(&fields, self.grouping.as_ref())?;
            let (timestamp, offset) = (rows.timestamp(row), rows.offset(row));
            let sample = Sample { timestamp, shard: self.shard.0, offset, value };
            let folds = series.entry(labels).or_insert_with_key(|labels| {
                *bytes += labels_bytes(labels);
                Folds::new()
            });
            match folds.entry(run) {
                Entry::Occupied(mut held) => {
                    let (before, counted) = (held.get().bytes(), held.get().numbers());
                    held.get_mut().add(sample);
                    *bytes += held.get().bytes().saturating_sub(before);
                    *numbers += held.get().numbers() - counted;
                }
                Entry::Vacant(place) => {
                    let fold = place.insert(Fold::new(self.keep, sample));
                    *bytes += fold.bytes();
                    *numbers += fold.numbers();
                }
            }
            Ok(())
        })?;
        if self.numbers > QUERY_NUMBERS_MAX {
            return Err(QueryError::TooManyNumbers { max: QUERY_NUMBERS_MAX });
        }
        if self.bytes > QUERY_BYTES_MAX { Err(QueryError::Memory { max: QUERY_BYTES_MAX }) } else { Ok(()) }
    }

    pub(super) fn finish(self) -> Vec<FoldSeries> {
        let series = |(labels, folds): (Labels, Folds)| FoldSeries {
            labels: pairs(&labels),
            folds: folds.into_iter().collect(),
        };
        self.series.into_iter().map(series).collect()
    }
}
