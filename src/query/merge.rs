//! What the shards found becomes one answer, in whatever order it arrives.
//!
//! Records of all shards have one order: time, shard, offset. Counts and numbers of all shards merge per series before
//! anything else is computed, so sums, averages and extremes are those of whole series. This file does not know how
//! requests travel; where a shard's part was cut, [`Gather::add`] says how to go on.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::{MatchOp, RangeExpr, RangeOp};
use super::error::QueryError;
use super::evaluate::{Series, Value, When};
use super::explain::{Explained, Part};
use super::overview::{Overseen, Overviewed};
use super::partial::{CountSeries, FoldSeries, Found, FoundRecords, Pairs, Partial, Seen};
use super::plan::{Direction, Hidden, LogQuery, MetricQuery, NumberQuery, Points, Query, ShardRequest, Want, leaves};
use super::range::{Folds, Keep, Windows};
use crate::id::ShardId;
use crate::label::Labels;
use crate::limits::{QUERY_BYTES_MAX, QUERY_NUMBERS_MAX, SERIES_MAX};

/// What a record or series takes in memory beside its texts, generously.
const ITEM_BYTES: usize = 128;

/// A record of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRecord {
    /// Where it lives.
    pub shard: ShardId,
    /// Its offset there.
    pub offset: u64,
    /// Its time in nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Whose it is.
    pub tenant: std::sync::Arc<str>,
    /// Its stream's labels, as the stages of the query left them.
    pub labels: Labels,
    /// Its line.
    pub line: String,
    /// Its metadata, in the order it was sent.
    pub metadata: Pairs,
    /// What stages found in it or set, sorted by name.
    pub parsed: Pairs,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Records, in the direction asked for.
    Records(Vec<AnswerRecord>),
    /// Series over a range, sorted by labels.
    Matrix(Points, Vec<Series>),
    /// Values at one time, sorted by labels or as `sort` says.
    Vector(i64, Vec<(Labels, f64)>),
    /// One number at one time.
    Scalar(i64, f64),
    /// Names or values of labels, sorted.
    Texts(Vec<String>),
    /// Label sets, sorted.
    Series(Vec<Labels>),
    /// What there is, rather than the records themselves.
    Overview(Overviewed),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was found.
    pub outcome: Outcome,
    /// What was looked at.
    pub seen: Seen,
    /// How many parts of shards it is made of.
    pub parts: u64,
    /// Shards that did not answer, with the reason; only where the caller allowed it.
    pub missing: Vec<(ShardId, String)>,
    /// How it came about; only where that was asked for.
    pub explained: Option<Explained>,
}

type Counts = BTreeMap<Labels, Vec<(u32, u64)>>;

/// What the shards found for one range expression.
#[derive(Debug)]
enum Ranged {
    Counts(Counts),
    /// Of this kind.
    Folds(Keep, BTreeMap<Labels, Folds>),
}

#[derive(Debug)]
enum State {
    Records(Vec<AnswerRecord>),
    /// Per request.
    Ranges(Vec<Ranged>),
    Texts(BTreeSet<String>),
    Series(BTreeSet<Labels>),
    Overview(Overseen),
}

/// Gathers the parts of one answer.
#[derive(Debug)]
pub struct Gather {
    query: Query,
    tenant: String,
    hidden: Vec<Hidden>,
    state: State,
    seen: Seen,
    parts: u64,
    missing: Vec<(ShardId, String)>,
    explained: Option<Vec<Part>>,
    bytes: usize,
    /// Unwrapped numbers that are kept one by one.
    numbers: usize,
}

fn labels(pairs: Pairs) -> Labels {
    Labels::new(pairs)
}

fn pairs_bytes(pairs: &Pairs) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
}

/// The records of one shard's part, as the answer has them.
pub fn records(shard: ShardId, found: FoundRecords) -> Vec<AnswerRecord> {
    let streams: Vec<(std::sync::Arc<str>, Labels)> =
        found.streams.into_iter().map(|stream| (stream.tenant.into(), labels(stream.labels))).collect();
    let answer = |record: super::partial::FoundRecord| {
        let (tenant, labels) = streams[record.stream as usize].clone();
        let super::partial::FoundRecord { offset, timestamp, line, metadata, parsed, .. } = record;
        AnswerRecord { shard, offset, timestamp, tenant, labels, line, metadata, parsed }
    };
    found.records.into_iter().map(answer).collect()
}

fn key(direction: Direction, record: &AnswerRecord) -> (i64, u32, u64) {
    let AnswerRecord { timestamp, shard: ShardId(shard), offset, .. } = record;
    match direction {
        Direction::Forward => (*timestamp, *shard, *offset),
        Direction::Backward => (!timestamp, !shard, !offset),
    }
}

impl Gather {
    /// Nothing gathered yet.
    pub fn new(query: Query, tenant: &str) -> Self {
        let state = match &query {
            Query::Logs(_) => State::Records(Vec::new()),
            Query::Metric(_) => State::Ranges(query.requests(tenant).iter().map(Ranged::new).collect()),
            Query::Streams(streams) if streams.want == super::plan::StreamsWant::Series => {
                State::Series(BTreeSet::new())
            }
            Query::Streams(_) => State::Texts(BTreeSet::new()),
            Query::Overview(overview) => State::Overview(Overseen::new(overview)),
        };
        let (tenant, hidden) = (tenant.to_owned(), Vec::new());
        let (seen, missing) = (Seen::default(), Vec::new());
        Self { query, tenant, hidden, state, seen, parts: 0, missing, explained: None, bytes: 0, numbers: 0 }
    }

    /// The same, and the answer says how it came about, where `explain`.
    #[must_use]
    pub fn explaining(self, explain: bool) -> Self {
        Self { explained: explain.then(Vec::new), ..self }
    }

    /// The same, without what is hidden. It is decided once for an answer, so that each part of it has the same bound.
    #[must_use]
    pub fn hiding(self, hidden: Vec<Hidden>) -> Self {
        Self { hidden, ..self }
    }

    /// What to ask of every shard.
    pub fn requests(&self) -> Vec<ShardRequest> {
        let hidden = |request| ShardRequest { hidden: self.hidden.clone(), ..request };
        self.query.requests(&self.tenant).into_iter().map(hidden).collect()
    }

    /// Takes one shard's part of the request at this position of [`Gather::requests`]. Where the part was cut and the
    /// rest may belong into the answer, this is what to ask the same shard next.
    ///
    /// # Errors
    /// `QueryError::Memory` and `QueryError::TooManyNumbers` past the bounds of one query; `QueryError::Codec` where the
    /// part is not of this request.
    pub fn add(&mut self, request: usize, partial: Partial) -> Result<Option<ShardRequest>, QueryError> {
        let Partial { shard, seen, weighed, made, found, .. } = partial;
        self.seen.add(&seen);
        if let Some(parts) = &mut self.explained {
            parts.push(Part { shard, request, seen, weighed, made });
        }
        self.parts += 1;
        let mut next = None;
        match (&mut self.state, found) {
            (State::Records(held), Found::Records(found)) => {
                let Query::Logs(query) = &self.query else { unreachable!("records are gathered for log queries") };
                let after = add_records(held, shard, found, query)?;
                self.bytes = held.iter().map(record_bytes).sum();
                next = after.map(|after| LogQuery { after: Some(after), ..query.clone() });
            }
            (State::Ranges(ranges), found @ (Found::Counts(_) | Found::Folds(_))) => {
                let Query::Metric(query) = &self.query else { unreachable!("ranges are gathered for metric queries") };
                let held = ranges.get_mut(request).ok_or_else(|| mismatch("a request that was not made"))?;
                let (bytes, numbers) = held.add(found, query.points.count)?;
                self.bytes += bytes;
                self.numbers += numbers;
            }
            (State::Texts(held), Found::Texts(found)) => {
                self.bytes += found.iter().map(|text| text.len() + ITEM_BYTES).sum::<usize>();
                held.extend(found);
            }
            (State::Series(held), Found::Series(found)) => {
                self.bytes += found.iter().map(|set| pairs_bytes(set) + ITEM_BYTES).sum::<usize>();
                held.extend(found.into_iter().map(labels));
            }
            (State::Overview(held), found) => {
                self.bytes = held.add(found).ok_or_else(|| mismatch("another kind of request"))?;
            }
            (State::Records(_) | State::Ranges(_) | State::Texts(_) | State::Series(_), _) => {
                return Err(mismatch("another kind of request"));
            }
        }
        if self.numbers > QUERY_NUMBERS_MAX {
            return Err(QueryError::TooManyNumbers { max: QUERY_NUMBERS_MAX });
        }
        if self.bytes > QUERY_BYTES_MAX {
            return Err(QueryError::Memory { max: QUERY_BYTES_MAX });
        }
        Ok(next.map(|query| ShardRequest {
            tenant: Some(self.tenant.clone()),
            want: Want::Records(query),
            hidden: self.hidden.clone(),
        }))
    }

    /// Goes on without a shard: the caller allowed a partial answer.
    pub fn miss(&mut self, shard: ShardId, why: String) {
        self.missing.push((shard, why));
    }

    /// The answer of what was gathered.
    ///
    /// # Errors
    /// `QueryError::TooManySeries` past the bound of one answer, `QueryError::Memory` past that of one query; where an
    /// operator cannot match series.
    pub fn finish(mut self) -> Result<Answer, QueryError> {
        let parts = self.explained.take();
        let explained = parts.map(|parts| Explained::new(&self.query, &self.requests(), parts));
        let outcome = match (self.state, &self.query) {
            (State::Records(records), _) => Outcome::Records(records),
            (State::Ranges(ranges), Query::Metric(query)) => metric(query, ranges)?,
            (State::Ranges(_), Query::Logs(_) | Query::Streams(_) | Query::Overview(_)) => {
                unreachable!("ranges are gathered for metric queries")
            }
            (State::Texts(texts), _) => Outcome::Texts(texts.into_iter().collect()),
            (State::Series(series), _) => Outcome::Series(series.into_iter().collect()),
            (State::Overview(overseen), _) => overseen.finish(),
        };
        let mut missing = self.missing;
        missing.sort();
        Ok(Answer { outcome, seen: self.seen, parts: self.parts, missing, explained })
    }
}

fn mismatch(why: &str) -> QueryError {
    QueryError::Codec { what: "partial answer".to_owned(), version: None, why: format!("it answers {why}") }
}

fn record_bytes(record: &AnswerRecord) -> usize {
    record.line.len() + pairs_bytes(&record.metadata) + pairs_bytes(&record.parsed) + ITEM_BYTES
}

/// Adds a shard's records; answers where to go on if more of them may belong.
fn add_records(
    held: &mut Vec<AnswerRecord>,
    shard: ShardId,
    found: FoundRecords,
    query: &LogQuery,
) -> Result<Option<(i64, u64)>, QueryError> {
    let complete = found.complete;
    let found = records(shard, found);
    let last = found.last().map(|last| (key(query.direction, last), (last.timestamp, last.offset)));
    held.extend(found);
    held.sort_by_key(|record| key(query.direction, record));
    held.truncate(query.limit as usize);
    if complete {
        return Ok(None);
    }
    let (last, after) = last.ok_or_else(|| mismatch("with a part that was cut before its first record"))?;
    let full = held.len() == query.limit as usize;
    let beyond = held.last().is_none_or(|end| last >= key(query.direction, end));
    Ok((!full || !beyond).then_some(after))
}

fn add_counts(held: &mut Counts, series: CountSeries) {
    let sum = held.entry(labels(series.labels)).or_default();
    if sum.is_empty() {
        *sum = series.points;
        return;
    }
    let (old, new) = (std::mem::take(sum), series.points);
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let next = match (old.peek(), new.peek()) {
            (Some((left, _)), Some((right, _))) if left == right => {
                let more = new.next().map_or(0, |(_, count)| count);
                let more = if mutant!(CountsNotAdded) { 0 } else { more };
                old.next().map(|(point, count)| (point, count.saturating_add(more)))
            }
            (Some((left, _)), Some((right, _))) if right < left => new.next(),
            (Some(_), _) => old.next(),
            (None, _) => new.next(),
        };
        match next {
            Some(point) => sum.push(point),
            None => return,
        }
    }
}

impl Ranged {
    fn new(request: &ShardRequest) -> Self {
        match &request.want {
            Want::Numbers(NumberQuery { keep, .. }) => Self::Folds(*keep, BTreeMap::new()),
            Want::Counts(_) | Want::Records(_) | Want::Streams(_) | Want::Offsets(_) | Want::Overview(_) => {
                Self::Counts(Counts::new())
            }
        }
    }

    /// Adds what a shard found; answers what it takes in memory, and how many of its numbers are kept one by one.
    fn add(&mut self, found: Found, points: u32) -> Result<(usize, usize), QueryError> {
        match (self, found) {
            (Self::Counts(held), Found::Counts(found)) => {
                let bytes = found.iter().map(|series| series.points.len() * 16 + ITEM_BYTES).sum();
                if found.iter().flat_map(|series| &series.points).any(|(point, _)| *point >= points) {
                    return Err(mismatch("points that were not asked for"));
                }
                found.into_iter().for_each(|series| add_counts(held, series));
                Ok((bytes, 0))
            }
            (Self::Folds(keep, held), Found::Folds(found)) => {
                let folds = found.iter().flat_map(|series| &series.folds);
                if folds.clone().any(|((first, past), fold)| first >= past || *past > points || fold.keep() != *keep) {
                    return Err(mismatch("points or an aggregation that were not asked for"));
                }
                let folds = folds.map(|(_, fold)| fold);
                let bytes = folds.clone().map(|fold| fold.bytes()).sum::<usize>() + found.len() * ITEM_BYTES;
                let numbers = folds.map(|fold| fold.numbers()).sum();
                found.into_iter().for_each(|series| add_folds(held, series));
                Ok((bytes, numbers))
            }
            (Self::Counts(_) | Self::Folds(..), _) => Err(mismatch("another kind of request")),
        }
    }

    /// The series of the range expression; `left` are the bytes that they may take.
    fn series(self, range: &RangeExpr, points: Points, left: &mut usize) -> Result<Vec<Series>, QueryError> {
        let windows = Windows { op: range.op, parameter: range.parameter, window: range.window, points };
        if range.op == RangeOp::AbsentOverTime {
            let present: BTreeSet<u32> = match self {
                Self::Counts(counts) => counts.into_values().flatten().map(|(point, _)| point).collect(),
                Self::Folds(_, folds) => {
                    let values = folds.into_values().flat_map(|folds| windows.folded(folds));
                    values.map(|(point, _)| point).collect()
                }
            };
            return Ok(vec![Series { labels: equal_labels(range), points: windows.absent(present.into_iter()) }]);
        }
        let series: Box<dyn Iterator<Item = Series>> = match self {
            Self::Counts(counts) => {
                Box::new(counts.into_iter().map(|(labels, counts)| Series { labels, points: windows.counted(counts) }))
            }
            Self::Folds(_, folds) => {
                Box::new(folds.into_iter().map(|(labels, folds)| Series { labels, points: windows.folded(folds) }))
            }
        };
        let mut all = Vec::new();
        for series in series {
            let bytes = series.points.capacity() * size_of::<(u32, f64)>() + ITEM_BYTES;
            *left = left.checked_sub(bytes).ok_or(QueryError::Memory { max: QUERY_BYTES_MAX })?;
            all.push(series);
        }
        Ok(all)
    }
}

fn add_folds(held: &mut BTreeMap<Labels, Folds>, series: FoldSeries) {
    let held = held.entry(labels(series.labels)).or_default();
    for (run, fold) in series.folds {
        match held.get_mut(&run) {
            Some(known) => known.merge(&fold),
            None => drop(held.insert(run, fold)),
        }
    }
}

/// The labels of what is absent: those whose one matcher says what they are.
fn equal_labels(range: &RangeExpr) -> Labels {
    let matchers = &range.logs.matchers;
    let alone = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    let equal = matchers.iter().filter(|matcher| matcher.op == MatchOp::Equal && alone(&matcher.name));
    Labels::new(equal.map(|matcher| (matcher.name.as_str(), matcher.value.as_str())))
}

fn metric(query: &MetricQuery, ranges: Vec<Ranged>) -> Result<Outcome, QueryError> {
    let MetricQuery { points, instant, .. } = *query;
    let when = When { points, instant };
    let mut left = QUERY_BYTES_MAX;
    let series = leaves(&query.expr).into_iter().zip(ranges);
    let series = series.map(|(leaf, ranged)| ranged.series(leaf.range, query.points_of(leaf.range), &mut left));
    let series = series.collect::<Result<Vec<_>, _>>()?;
    let series = match when.evaluate(&query.expr, &mut series.into_iter())? {
        Value::Scalar(value) if instant => return Ok(Outcome::Scalar(points.start, value)),
        Value::Scalar(value) => vec![when.constant(value)],
        Value::Vector(series) => series,
    };
    if series.len() > SERIES_MAX {
        return Err(QueryError::TooManySeries { max: SERIES_MAX });
    }
    if !instant {
        return Ok(Outcome::Matrix(points, series));
    }
    let values = series.into_iter().map(|series| (series.labels, series.points[0].1)).collect();
    Ok(Outcome::Vector(points.start, values))
}

#[cfg(test)]
mod tests {
    use super::super::ast::Unwrap;
    use super::super::partial::{Made, Weighed};
    use super::super::range::{Fold, Sample};
    use super::*;
    use crate::query::ast::{Convert, LogExpr, Matcher, MetricExpr};

    fn gather(op: RangeOp) -> Gather {
        let unwrap = Unwrap { label: "n".into(), convert: Convert::Number, filters: Vec::new() };
        let range = RangeExpr { unwrap: Some(unwrap), ..RangeExpr::new(op, LogExpr::default(), 10) };
        let points = Points { start: 0, step: 1, count: 4 };
        let query = MetricQuery { expr: MetricExpr::Range(range), points, instant: false };
        Gather::new(Query::Metric(query), "t")
    }

    fn part(shard: u32, found: Found) -> Partial {
        Partial {
            shard: ShardId(shard),
            end: 0,
            seen: Seen::default(),
            weighed: Weighed::default(),
            made: Made::default(),
            found,
        }
    }

    fn folds(folds: Vec<((u32, u32), Fold)>) -> Found {
        Found::Folds(vec![FoldSeries { labels: vec![("a".into(), "b".into())], folds }])
    }

    #[test]
    fn numbers_that_are_kept_one_by_one_are_bounded() {
        let mut quantile = gather(RangeOp::QuantileOverTime);
        let half = || folds(vec![((0, 1), Fold::Values(vec![0.0; QUERY_NUMBERS_MAX / 2 + 1]))]);
        assert!(quantile.add(0, part(0, half())).is_ok());
        let refused = quantile.add(0, part(1, half())).unwrap_err();
        assert_eq!(refused, QueryError::TooManyNumbers { max: QUERY_NUMBERS_MAX });
        assert!(refused.to_string().contains(&QUERY_NUMBERS_MAX.to_string()), "{refused}");
        let sample = Sample { timestamp: 0, shard: 0, offset: 0, value: 0.0 };
        let samples = folds(vec![((0, 1), Fold::Samples(vec![sample; 300_000]))]);
        let refused = gather(RangeOp::RateCounter).add(0, part(0, samples)).unwrap_err();
        assert_eq!(refused, QueryError::Memory { max: QUERY_BYTES_MAX });
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_refused() {
        for found in [
            Found::Counts(Vec::new()),
            folds(vec![((0, 1), Fold::Presence)]),
            folds(vec![((0, 5), Fold::Least(1.0))]),
            folds(vec![((2, 2), Fold::Least(1.0))]),
        ] {
            let refused = gather(RangeOp::MinOverTime).add(0, part(0, found));
            assert!(matches!(refused, Err(QueryError::Codec { .. })), "{refused:?}");
        }
        assert!(gather(RangeOp::MinOverTime).add(1, part(0, folds(Vec::new()))).is_err());
    }

    #[test]
    fn what_is_absent_has_the_labels_that_one_matcher_fixes() {
        let matcher = |name: &str, op, value: &str| Matcher { name: name.into(), op, value: value.into() };
        let mut range = RangeExpr::new(RangeOp::AbsentOverTime, LogExpr::default(), 10);
        range.logs.matchers = vec![
            matcher("job", MatchOp::Equal, "x"),
            matcher("instance", MatchOp::Matches, ".*"),
            matcher("twice", MatchOp::Equal, "1"),
            matcher("twice", MatchOp::NotEqual, "2"),
        ];
        assert_eq!(equal_labels(&range), Labels::new([("job", "x")]));
    }
}
