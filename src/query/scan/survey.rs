//! Measures what records take, and mines their patterns: what is asked about records without any of them being wanted.

use super::Stopped;
use crate::block::rows::{Rows, Stream, Summary};
use crate::label::Labels;
use crate::limits::QUERY_BYTES_MAX;
use crate::query::error::QueryError;
use crate::query::overview::OverviewFound;
use crate::query::overview::patterns::{Miner, PatternsQuery};
use crate::query::overview::volume::{Amount, Volume, VolumeBy, VolumeQuery};

/// The metadata field with the level of a record.
const LEVEL: &str = "detected_level";

pub(super) enum Surveyor {
    Measure(VolumeQuery, Volume),
    Mine(PatternsQuery, Box<Miner>),
}

impl Surveyor {
    pub(super) fn measure(query: &VolumeQuery) -> Self {
        Self::Measure(query.clone(), Volume::default())
    }

    pub(super) fn mine(query: &PatternsQuery) -> Self {
        Self::Mine(query.clone(), Box::new(Miner::new(query.buckets)))
    }

    /// Timestamps from the first, before the second.
    fn time(&self) -> (i64, i64) {
        match self {
            Self::Measure(VolumeQuery { start, end, .. }, _) | Self::Mine(PatternsQuery { start, end, .. }, _) => {
                (*start, *end)
            }
        }
    }

    pub(super) fn may_hold(&self, span: &Summary) -> bool {
        let (start, end) = self.time();
        span.max_timestamp >= start && span.min_timestamp < end
    }

    /// Takes a chunk without reading it, where its summary says all that is asked: every record is wanted, and all count
    /// for the same. `shown` is from when on each of its streams is shown. Whether it was taken.
    pub(super) fn take_unread<'a>(
        &mut self,
        span: &Summary,
        streams: impl Iterator<Item = (&'a Stream, Option<i64>)>,
    ) -> bool {
        let (start, end) = self.time();
        let Self::Measure(query, volume) = self else { return false };
        let inside = span.min_timestamp >= start && span.max_timestamp < end;
        if !inside || query.bucket(span.min_timestamp) != query.bucket(span.max_timestamp) {
            return false;
        }
        let mut held: Vec<&Labels> = Vec::new();
        let mut same: Option<Vec<Labels>> = None;
        for (stream, shown) in streams {
            let series = query.series_of(&stream.labels);
            let whole = shown.is_some_and(|from| span.min_timestamp >= from);
            if !whole || same.get_or_insert_with(|| series.clone()) != &series {
                return false;
            }
            held.push(&stream.labels);
        }
        let Some(series) = same else { return false };
        let amount = Amount { bytes: span.raw_bytes, entries: span.rows };
        series.iter().for_each(|series| volume.add(series, query.bucket(span.min_timestamp), amount));
        if !series.is_empty() {
            volume.count_chunk();
        }
        if query.by == VolumeBy::Whole {
            held.into_iter().for_each(|stream| volume.name_stream(stream));
        }
        true
    }

    /// Takes the rows that fit; answers how many they were. All columns are there.
    pub(super) fn read(&mut self, rows: &Rows, shown: &[Option<i64>], stopped: Stopped<'_>) -> Result<u64, QueryError> {
        let (start, end) = self.time();
        let streams = rows.stream_indexes();
        let fits = |row: &usize| {
            let time = rows.timestamp(*row);
            shown[streams[*row] as usize].is_some_and(|from| time >= from) && time >= start && time < end
        };
        let fitting = (0..rows.len()).filter(fits);
        let (seen, held) = match self {
            Self::Measure(query, volume) => (measured(query, volume, rows, fitting), volume.bytes()),
            Self::Mine(_, miner) => (mined(miner, rows, fitting, stopped)?, miner.bytes()),
        };
        if held > QUERY_BYTES_MAX { Err(QueryError::Memory { max: QUERY_BYTES_MAX }) } else { Ok(seen) }
    }

    pub(super) fn finish(self) -> OverviewFound {
        match self {
            Self::Measure(_, volume) => OverviewFound::Volume(volume.found()),
            Self::Mine(_, miner) => OverviewFound::Patterns(miner.found()),
        }
    }
}

fn measured(query: &VolumeQuery, volume: &mut Volume, rows: &Rows, fitting: impl Iterator<Item = usize>) -> u64 {
    let series: Vec<Vec<Labels>> = rows.streams().iter().map(|stream| query.series_of(&stream.labels)).collect();
    let mut met = vec![false; series.len()];
    let mut seen = 0;
    for row in fitting {
        let stream = rows.stream_indexes()[row] as usize;
        let metadata: usize = rows.metadata(row).map(|(name, value)| name.len() + value.len()).sum();
        let amount = Amount { bytes: (rows.line(row).len() + metadata) as u64, entries: 1 };
        let bucket = query.bucket(rows.timestamp(row));
        series[stream].iter().for_each(|series| volume.add(series, bucket, amount));
        met[stream] = true;
        seen += 1;
    }
    let counted = |stream: usize| met[stream] && !series[stream].is_empty();
    if (0..met.len()).any(counted) {
        volume.count_chunk();
    }
    if query.by == VolumeBy::Whole {
        let streams = rows.streams().iter().zip(&met).filter(|(_, met)| **met);
        streams.for_each(|(stream, _)| volume.name_stream(&stream.labels));
    }
    seen
}

fn mined(
    miner: &mut Miner,
    rows: &Rows,
    fitting: impl Iterator<Item = usize>,
    stopped: Stopped<'_>,
) -> Result<u64, QueryError> {
    let mut seen = 0;
    for row in fitting {
        if stopped() {
            return Err(QueryError::Cancelled);
        }
        let level = rows.metadata(row).find(|(name, _)| *name == LEVEL).map_or("", |(_, level)| level);
        miner.count(level, rows.line(row), rows.timestamp(row));
        seen += 1;
    }
    Ok(seen)
}
