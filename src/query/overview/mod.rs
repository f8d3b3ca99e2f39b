//! What a client asks before it asks for records: how much there is, of which labels and fields, and in which patterns.
//!
//! The questions travel to the shards as an [`OverviewWant`], what a shard found comes back as an [`OverviewFound`], and
//! [`Overseen`] makes one answer of all parts, in whatever order they come. What Loki's clients expect is its HTTP API
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/>). This room does not know how a shard is read.

pub mod detected;
pub mod patterns;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ast::Expr;
use super::error::QueryError;
use super::evaluate::Series;
use super::merge::Outcome;
use super::parser;
use super::partial::{Found, Pairs};
use super::plan::{self, Points, Query, StreamsQuery, StreamsWant, Want};
use crate::label::Labels;
use crate::limits;
use detected::{FieldSet, FieldsQuery, FoundField};
use patterns::{FoundPattern, Miner, PatternsQuery};
use volume::{FoundVolume, Volume, VolumeBy, VolumeQuery};

/// What a label set or a field takes beside its texts, generously.
const ITEM_BYTES: usize = 128;

/// A question of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Overview {
    /// How many streams, blocks, records and bytes there are.
    Stats(VolumeQuery),
    /// Bytes of each series, the largest first, at most so many.
    Volume(VolumeQuery, u32),
    /// The same over time.
    VolumeRange(VolumeQuery, u32),
    /// Labels and how many values each has.
    Labels(StreamsQuery),
    /// Fields of the newest records.
    Fields(FieldsQuery),
    /// Values of one of them.
    Values(FieldsQuery),
    /// What lines have in common.
    Patterns(PatternsQuery),
}

/// What is asked of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OverviewWant {
    /// Bytes and records.
    Volume(VolumeQuery),
    /// Fields.
    Fields(FieldsQuery),
    /// Patterns.
    Patterns(PatternsQuery),
}

/// What one shard found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverviewFound {
    /// Bytes and records.
    Volume(FoundVolume),
    /// Fields, sorted by label.
    Fields(Vec<FoundField>),
    /// Patterns.
    Patterns(Vec<FoundPattern>),
}

/// A field as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub label: String,
    /// Of what type all its values are.
    pub kind: detected::FieldKind,
    /// Different values that were met.
    pub cardinality: usize,
    /// The parsers that give it; none where it is metadata.
    pub parsers: Vec<&'static str>,
    /// Where it stands in a JSON line; empty where it was not met in one.
    pub path: Vec<String>,
}

/// What is answered, where it is neither records nor numbers of series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overviewed {
    /// Streams, blocks, records, bytes.
    Stats {
        /// Label sets.
        streams: usize,
        /// Batches and blocks.
        chunks: u64,
        /// Records.
        entries: u64,
        /// Bytes of lines and metadata.
        bytes: u64,
    },
    /// Labels and how many values each has, sorted.
    Labels(Vec<(String, usize)>),
    /// Fields sorted by name, and the most there may be.
    Fields(Vec<Field>, u32),
    /// Sorted values, and the most there may be.
    Values(Vec<String>, u32),
    /// Patterns, the most frequent first.
    Patterns(Points, Vec<patterns::Pattern>),
}

/// What an answer about volume is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeParameters<'a> {
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// Between two steps; only over time.
    pub step: Option<i64>,
    /// Whether it is asked for over time.
    pub ranged: bool,
    /// Most series.
    pub limit: Option<u64>,
    /// Names of labels with commas between them; by default those of the selector.
    pub target: Option<&'a str>,
    /// Whether series are names of labels rather than their values.
    pub by_labels: bool,
}

/// What an answer about fields is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldParameters {
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// Most records to look at in each shard.
    pub line_limit: Option<u64>,
    /// Most fields or values.
    pub limit: Option<u64>,
}

impl Query {
    /// How much there is of the streams of a selector: `/index/stats`.
    ///
    /// # Errors
    /// What is wrong with the selector or the times.
    pub fn stats(selector: &str, start: i64, end: i64) -> Result<Self, QueryError> {
        let buckets = steps(start, end, Some(i64::MAX))?;
        let matchers = parser::parse_selector(selector)?;
        Ok(Self::Overview(Overview::Stats(VolumeQuery { matchers, start, end, buckets, by: VolumeBy::Whole })))
    }

    /// Bytes per series: `/index/volume` and `/index/volume_range`.
    ///
    /// # Errors
    /// What is wrong with the selector or a parameter.
    pub fn volume(selector: &str, parameters: VolumeParameters<'_>) -> Result<Self, QueryError> {
        let VolumeParameters { start, end, step, ranged, limit, target, by_labels } = parameters;
        let buckets = steps(start, end, if ranged { step } else { Some(i64::MAX) })?;
        let matchers = parser::parse_selector(selector)?;
        let limit = bounded("limit", limit, limits::VOLUME_SERIES)?;
        let listed = target.map(|names| names.split(',').map(|name| name.trim().to_owned()));
        let listed: Option<Vec<String>> = listed.map(|names| names.filter(|name| !name.is_empty()).collect());
        let required = listed.is_some();
        let mut names: Vec<String> = listed.unwrap_or_else(|| matchers.iter().map(|m| m.name.clone()).collect());
        names.sort();
        names.dedup();
        let by = if by_labels { VolumeBy::Labels(names) } else { VolumeBy::Series { names, required } };
        let query = VolumeQuery { matchers, start, end, buckets, by };
        Ok(Self::Overview(if ranged { Overview::VolumeRange(query, limit) } else { Overview::Volume(query, limit) }))
    }

    /// Labels with the number of their values: `/detected_labels`.
    ///
    /// # Errors
    /// What is wrong with a selector or the times.
    pub fn detected_labels(selectors: &[&str], start: i64, end: i64) -> Result<Self, QueryError> {
        let streams = StreamsQuery::new(StreamsWant::Series, selectors, start, end)?;
        Ok(Self::Overview(Overview::Labels(streams)))
    }

    /// Fields of the newest records, or the values of one: `/detected_fields`, `/detected_field/{name}/values`.
    ///
    /// # Errors
    /// What is wrong with the log query or a parameter.
    pub fn detected_fields(text: &str, field: Option<String>, parameters: FieldParameters) -> Result<Self, QueryError> {
        let FieldParameters { start, end, line_limit, limit } = parameters;
        let Expr::Logs(logs) = plan::parse(text)? else {
            return Err(parameter("query", text, "a log query"));
        };
        if end < start {
            return Err(parameter("end", end, "a time not before start"));
        }
        let line_limit = bounded("line_limit", line_limit, limits::FIELD_LINES)?;
        let limit = bounded("limit", limit, limits::FIELDS_PER_ANSWER)?;
        let query = FieldsQuery { logs, start, end, line_limit, limit, field };
        let values = query.field.is_some();
        Ok(Self::Overview(if values { Overview::Values(query) } else { Overview::Fields(query) }))
    }

    /// What the lines of a selector's streams have in common: `/patterns`.
    ///
    /// # Errors
    /// What is wrong with the selector or a parameter.
    pub fn patterns(selector: &str, start: i64, end: i64, step: Option<i64>) -> Result<Self, QueryError> {
        let matchers = parser::parse_selector(selector)?;
        let step = steps(start, end, step)?.step;
        // Samples stand at multiples of the step, so that those of two ranges fit together.
        let buckets = steps(start.div_euclid(step).saturating_mul(step), end, Some(step))?;
        Ok(Self::Overview(Overview::Patterns(PatternsQuery { matchers, start, end, buckets })))
    }
}

/// A number of a request: its default, or what is asked for up to the most.
fn bounded(name: &str, asked: Option<u64>, (default, most): (usize, usize)) -> Result<u32, QueryError> {
    let number = asked.map_or(Some(default), |asked| usize::try_from(asked).ok());
    let fits = number.filter(|number| (1..=most).contains(number)).and_then(|number| u32::try_from(number).ok());
    fits.ok_or_else(|| parameter(name, asked.unwrap_or_default(), &format!("a number from 1 to {most}")))
}

impl Overview {
    /// What every shard is asked.
    pub(super) fn wants(&self) -> Vec<Want> {
        let want = match self {
            Self::Stats(query) | Self::Volume(query, _) | Self::VolumeRange(query, _) => {
                OverviewWant::Volume(query.clone())
            }
            Self::Labels(query) => return vec![Want::Streams(query.clone())],
            Self::Fields(query) | Self::Values(query) => OverviewWant::Fields(query.clone()),
            Self::Patterns(query) => OverviewWant::Patterns(query.clone()),
        };
        vec![Want::Overview(want)]
    }
}

impl OverviewWant {
    /// Whether times and steps are in range: a request comes from another node.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Volume(query) => query.buckets.are_sound(),
            Self::Fields(_) => true,
            Self::Patterns(query) => query.buckets.are_sound(),
        }
    }
}

#[derive(Debug)]
enum Parts {
    Volume(Volume),
    Labels(BTreeMap<String, BTreeSet<String>>),
    Fields(FieldSet),
    Patterns(Miner),
}

/// The parts of one answer.
#[derive(Debug)]
pub(super) struct Overseen {
    overview: Overview,
    parts: Parts,
    bytes: usize,
}

impl Overseen {
    pub(super) fn new(overview: &Overview) -> Self {
        let parts = match overview {
            Overview::Stats(_) | Overview::Volume(..) | Overview::VolumeRange(..) => Parts::Volume(Volume::default()),
            Overview::Labels(_) => Parts::Labels(BTreeMap::new()),
            Overview::Fields(query) | Overview::Values(query) => Parts::Fields(FieldSet::new(query)),
            Overview::Patterns(query) => Parts::Patterns(Miner::new(query.buckets)),
        };
        Self { overview: overview.clone(), parts, bytes: 0 }
    }

    /// Takes the part of one shard; how many bytes are held now, or `None` where the part is not of this question.
    pub(super) fn add(&mut self, found: Found) -> Option<usize> {
        match (&mut self.parts, found) {
            (Parts::Volume(held), Found::Overview(OverviewFound::Volume(found))) => held.absorb(found),
            (Parts::Fields(held), Found::Overview(OverviewFound::Fields(found))) => held.absorb(found),
            (Parts::Patterns(held), Found::Overview(OverviewFound::Patterns(found))) => {
                found.into_iter().for_each(|pattern| held.absorb(pattern));
            }
            (Parts::Labels(held), Found::Series(found)) => {
                for (name, value) in found.into_iter().flatten() {
                    self.bytes += name.len() + value.len() + ITEM_BYTES;
                    held.entry(name).or_default().insert(value);
                }
            }
            (Parts::Volume(_) | Parts::Labels(_) | Parts::Fields(_) | Parts::Patterns(_), _) => return None,
        }
        Some(match &self.parts {
            Parts::Volume(held) => held.bytes(),
            Parts::Labels(_) => self.bytes,
            Parts::Fields(held) => held.bytes(),
            Parts::Patterns(held) => held.bytes(),
        })
    }

    pub(super) fn finish(self) -> Outcome {
        let overviewed = match (self.parts, self.overview) {
            (Parts::Volume(volume), Overview::Stats(_)) => volume.stats(),
            (Parts::Volume(volume), Overview::VolumeRange(query, limit)) => {
                return Outcome::Matrix(query.buckets, volume.series(limit as usize, query.by.is_names()));
            }
            (Parts::Volume(volume), Overview::Volume(query, limit)) => {
                let value = |Series { labels, points }| (labels, points.iter().map(|(_, value)| value).sum());
                let series = volume.series(limit as usize, query.by.is_names());
                return Outcome::Vector(query.end, series.into_iter().map(value).collect());
            }
            (Parts::Labels(labels), _) => {
                Overviewed::Labels(labels.into_iter().map(|(name, values)| (name, values.len())).collect())
            }
            (Parts::Fields(fields), Overview::Values(query)) => Overviewed::Values(fields.values(), query.limit),
            (Parts::Fields(fields), _) => {
                let limit = fields.limit();
                Overviewed::Fields(fields.fields(), limit)
            }
            (Parts::Patterns(miner), _) => {
                let buckets = miner.buckets();
                Overviewed::Patterns(buckets, miner.patterns())
            }
            (Parts::Volume(_), _) => unreachable!("volume is gathered for questions of volume"),
        };
        Outcome::Overview(overviewed)
    }
}

impl Field {
    fn json(&self) -> Value {
        let parsers = if self.parsers.is_empty() { Value::Null } else { json!(self.parsers) };
        let mut field = json!({
            "label": self.label,
            "type": self.kind.as_str(),
            "cardinality": self.cardinality,
            "parsers": parsers,
        });
        if !self.path.is_empty() {
            field["jsonPath"] = json!(self.path);
        }
        field
    }
}

impl Overviewed {
    /// The body of the answer. Only patterns come in Loki's envelope.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Stats { streams, chunks, entries, bytes } => {
                json!({ "streams": streams, "chunks": chunks, "entries": entries, "bytes": bytes })
            }
            Self::Labels(labels) => {
                let label =
                    |(label, cardinality): &(String, usize)| json!({ "label": label, "cardinality": cardinality });
                json!({ "detectedLabels": labels.iter().map(label).collect::<Value>() })
            }
            Self::Fields(fields, limit) => {
                json!({ "fields": fields.iter().map(Field::json).collect::<Value>(), "limit": limit })
            }
            Self::Values(values, limit) => json!({ "values": values, "limit": limit }),
            Self::Patterns(buckets, patterns) => {
                let samples = |pattern: &patterns::Pattern| {
                    let second = |bucket| buckets.at(bucket).div_euclid(1_000_000_000);
                    pattern.samples.iter().map(|(bucket, count)| json!([second(*bucket), count])).collect::<Value>()
                };
                let shown = |pattern: &patterns::Pattern| {
                    let samples = samples(pattern);
                    json!({ "pattern": pattern.text, "level": pattern.level, "samples": samples })
                };
                json!({ "status": "success", "data": patterns.iter().map(shown).collect::<Value>() })
            }
        }
    }
}

/// Labels of a part as a set.
fn labels(pairs: Pairs) -> Labels {
    Labels::new(pairs)
}

/// Refuses a parameter by its name.
fn parameter(name: &str, value: impl ToString, expected: &str) -> QueryError {
    QueryError::Parameter { name: name.to_owned(), value: value.to_string(), expected: expected.to_owned() }
}

/// Steps from `start` until `end` is passed, at least one.
///
/// # Errors
/// `QueryError::TooManyPoints` past the points of one answer, `QueryError::Parameter` where the times or the step are
/// none.
fn steps(start: i64, end: i64, step: Option<i64>) -> Result<Points, QueryError> {
    let range = end.checked_sub(start).filter(|range| *range >= 0);
    let range = range.ok_or_else(|| parameter("end", end, "a time not before start"))?;
    let step = step.unwrap_or_else(|| plan::default_step(range));
    if step <= 0 {
        return Err(parameter("step", step, "a duration above zero"));
    }
    let count = (range / step + i64::from(range % step != 0)).max(1);
    let max = limits::POINTS_MAX;
    let fits = u32::try_from(count).ok().filter(|count| *count as usize <= max);
    let count = fits.ok_or(QueryError::TooManyPoints { points: count.cast_unsigned(), max })?;
    Ok(Points { start, step, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn volume(parameters: VolumeParameters<'_>) -> Result<VolumeQuery, QueryError> {
        match Query::volume(r#"{app="a", env!="x"}"#, parameters)? {
            Query::Overview(Overview::Volume(query, _) | Overview::VolumeRange(query, _)) => Ok(query),
            Query::Overview(_) | Query::Logs(_) | Query::Metric(_) | Query::Streams(_) => panic!("volume"),
        }
    }

    #[test]
    fn steps_cover_the_range_and_are_bounded() {
        assert_eq!(steps(5, 25, Some(10)).unwrap(), Points { start: 5, step: 10, count: 2 });
        assert_eq!(steps(5, 26, Some(10)).unwrap().count, 3);
        assert_eq!(steps(5, 5, Some(10)).unwrap().count, 1);
        assert_eq!(steps(0, 3_600 * SECOND, None).unwrap().step, 14 * SECOND);
        assert!(matches!(steps(0, 3_600 * SECOND, Some(SECOND / 10)), Err(QueryError::TooManyPoints { .. })));
        for (start, end, step) in [(1, 0, None), (i64::MIN, i64::MAX, None), (0, 1, Some(0)), (0, 1, Some(-1))] {
            assert!(steps(start, end, step).is_err(), "{start} {end} {step:?}");
        }
        assert_eq!(steps(0, i64::MAX, Some(i64::MAX)).unwrap().count, 1);
    }

    #[test]
    fn volume_is_by_the_labels_of_the_selector_unless_others_are_named() {
        let range = VolumeParameters { start: 0, end: 100 * SECOND, ..VolumeParameters::default() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |names, required| VolumeBy::Series { names, required };
        assert_eq!(volume(range).unwrap().by, of(names(&["app", "env"]), false));
        let named = VolumeParameters { target: Some("team, job"), ..range };
        assert_eq!(volume(named).unwrap().by, of(names(&["job", "team"]), true));
        let labels = VolumeParameters { by_labels: true, ..named };
        assert_eq!(volume(labels).unwrap().by, VolumeBy::Labels(names(&["job", "team"])));
        assert_eq!(volume(range).unwrap().buckets.count, 1);
        assert_eq!(volume(VolumeParameters { ranged: true, step: Some(SECOND), ..range }).unwrap().buckets.count, 100);
        assert!(volume(VolumeParameters { limit: Some(5_001), ..range }).is_err());
        assert!(volume(VolumeParameters { limit: Some(0), ..range }).is_err());
    }

    #[test]
    fn samples_of_patterns_stand_at_multiples_of_the_step() {
        let query = Query::patterns(r#"{app="a"}"#, 25 * SECOND, 61 * SECOND, Some(10 * SECOND)).unwrap();
        let Query::Overview(Overview::Patterns(query)) = query else { panic!("patterns") };
        assert_eq!(query.buckets, Points { start: 20 * SECOND, step: 10 * SECOND, count: 5 });
    }

    #[test]
    fn a_request_with_steps_out_of_range_is_refused() {
        use crate::query::plan::ShardRequest;
        let query = Query::stats(r#"{app="a"}"#, 0, 10).unwrap();
        let mut request = query.requests("t").remove(0);
        assert_eq!(ShardRequest::decode(&request.encode()).unwrap(), request);
        let Want::Overview(OverviewWant::Volume(volume)) = &mut request.want else { panic!("volume") };
        volume.buckets.step = 0;
        assert!(ShardRequest::decode(&request.encode()).is_err());
    }
}
