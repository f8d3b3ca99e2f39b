//! What the shards found becomes one answer, in whatever order it arrives.
//!
//! Records of all shards have one order: time, shard, offset. Counts of all shards add up per series before anything
//! else is computed, so sums, averages and extremes are those of whole series. This file does not know how requests
//! travel; where a shard's part was cut, [`Gather::add`] says how to go on.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::{AggregateOp, BinaryOp, Grouping, MetricExpr, RangeExpr};
use super::error::QueryError;
use super::partial::{CountSeries, Found, FoundRecords, Pairs, Partial, Seen};
use super::plan::{Direction, Hidden, LogQuery, MetricQuery, Points, Query, ShardRequest, Want};
use super::scan::grouped;
use crate::id::ShardId;
use crate::label::Labels;
use crate::limits::{QUERY_BYTES_MAX, SERIES_MAX};

const NOT_READ: &str = "the parser refuses what is not evaluated";

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

/// A series of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What tells it apart.
    pub labels: Labels,
    /// Point and value, ascending; points without a value are left out.
    pub points: Vec<(u32, f64)>,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Records, in the direction asked for.
    Records(Vec<AnswerRecord>),
    /// Series over a range, sorted by labels.
    Matrix(Points, Vec<Series>),
    /// Values at one time, sorted by labels.
    Vector(i64, Vec<(Labels, f64)>),
    /// One number at one time.
    Scalar(i64, f64),
    /// Names or values of labels, sorted.
    Texts(Vec<String>),
    /// Label sets, sorted.
    Series(Vec<Labels>),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was found.
    pub outcome: Outcome,
    /// What was looked at.
    pub seen: Seen,
    /// Shards that did not answer, with the reason; only where the caller allowed it.
    pub missing: Vec<(ShardId, String)>,
}

type Counts = BTreeMap<Labels, Vec<(u32, u64)>>;

#[derive(Debug)]
enum State {
    Records(Vec<AnswerRecord>),
    /// Per request.
    Counts(Vec<Counts>),
    Texts(BTreeSet<String>),
    Series(BTreeSet<Labels>),
}

/// Gathers the parts of one answer.
#[derive(Debug)]
pub struct Gather {
    query: Query,
    tenant: String,
    hidden: Vec<Hidden>,
    state: State,
    seen: Seen,
    missing: Vec<(ShardId, String)>,
    bytes: usize,
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
            Query::Metric(_) => State::Counts(vec![Counts::new(); query.requests(tenant).len()]),
            Query::Streams(streams) if streams.want == super::plan::StreamsWant::Series => {
                State::Series(BTreeSet::new())
            }
            Query::Streams(_) => State::Texts(BTreeSet::new()),
        };
        let (tenant, hidden) = (tenant.to_owned(), Vec::new());
        Self { query, tenant, hidden, state, seen: Seen::default(), missing: Vec::new(), bytes: 0 }
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
    /// `QueryError::Memory` past the bound of one query; `QueryError::Codec` where the part is not of this request.
    pub fn add(&mut self, request: usize, partial: Partial) -> Result<Option<ShardRequest>, QueryError> {
        let Partial { shard, seen, found, .. } = partial;
        self.seen.records += seen.records;
        self.seen.bytes += seen.bytes;
        self.seen.chunks += seen.chunks;
        let mut next = None;
        match (&mut self.state, found) {
            (State::Records(held), Found::Records(found)) => {
                let Query::Logs(query) = &self.query else { unreachable!("records are gathered for log queries") };
                let after = add_records(held, shard, found, query)?;
                self.bytes = held.iter().map(record_bytes).sum();
                next = after.map(|after| LogQuery { after: Some(after), ..query.clone() });
            }
            (State::Counts(counts), Found::Counts(found)) => {
                let held = counts.get_mut(request).ok_or_else(|| mismatch("a request that was not made"))?;
                self.bytes += found.iter().map(|series| series.points.len() * 16 + ITEM_BYTES).sum::<usize>();
                found.into_iter().for_each(|series| add_counts(held, series));
            }
            (State::Texts(held), Found::Texts(found)) => {
                self.bytes += found.iter().map(|text| text.len() + ITEM_BYTES).sum::<usize>();
                held.extend(found);
            }
            (State::Series(held), Found::Series(found)) => {
                self.bytes += found.iter().map(|set| pairs_bytes(set) + ITEM_BYTES).sum::<usize>();
                held.extend(found.into_iter().map(labels));
            }
            (State::Records(_) | State::Counts(_) | State::Texts(_) | State::Series(_), _) => {
                return Err(mismatch("another kind of request"));
            }
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
    /// `QueryError::TooManySeries` past the bound of one answer.
    pub fn finish(self) -> Result<Answer, QueryError> {
        let outcome = match (self.state, &self.query) {
            (State::Records(records), _) => Outcome::Records(records),
            (State::Counts(counts), Query::Metric(query)) => metric(query, counts)?,
            (State::Counts(_), Query::Logs(_) | Query::Streams(_)) => {
                unreachable!("counts are gathered for metric queries")
            }
            (State::Texts(texts), _) => Outcome::Texts(texts.into_iter().collect()),
            (State::Series(series), _) => Outcome::Series(series.into_iter().collect()),
        };
        let mut missing = self.missing;
        missing.sort();
        Ok(Answer { outcome, seen: self.seen, missing })
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

enum Value {
    Scalar(f64),
    Vector(Vec<Series>),
}

fn metric(query: &MetricQuery, counts: Vec<Counts>) -> Result<Outcome, QueryError> {
    let points = query.points;
    let all = |value: f64| (0..points.count).map(|point| (point, value)).collect();
    let value = evaluate(&query.expr, points, &mut counts.into_iter());
    let series = match value {
        Value::Scalar(value) if query.instant => return Ok(Outcome::Scalar(points.start, value)),
        Value::Scalar(value) => {
            vec![Series { labels: Labels::new::<&str, &str>([]), points: all(value) }]
        }
        Value::Vector(series) => series,
    };
    let mut series: Vec<Series> = series.into_iter().filter(|series| !series.points.is_empty()).collect();
    if series.len() > SERIES_MAX {
        return Err(QueryError::TooManySeries { max: SERIES_MAX });
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    if !query.instant {
        return Ok(Outcome::Matrix(points, series));
    }
    let values = series.into_iter().map(|series| (series.labels, series.points[0].1)).collect();
    Ok(Outcome::Vector(points.start, values))
}

/// The counts come in the order in which `MetricQuery::counts` met their expressions.
fn evaluate(expr: &MetricExpr, points: Points, counts: &mut impl Iterator<Item = Counts>) -> Value {
    match expr {
        MetricExpr::Number(number) => Value::Scalar(*number),
        MetricExpr::Vector(number) => {
            let points = (0..points.count).map(|point| (point, *number)).collect();
            Value::Vector(vec![Series { labels: Labels::new::<&str, &str>([]), points }])
        }
        MetricExpr::Range(range) => Value::Vector(ranged(range, counts.next().expect("one of each range expression"))),
        MetricExpr::LabelReplace { .. } => unreachable!("{NOT_READ}"),
        MetricExpr::Aggregate { op, grouping, inner, .. } => match evaluate(inner, points, counts) {
            Value::Scalar(_) => unreachable!("the parser refuses to aggregate a number"),
            Value::Vector(series) => Value::Vector(aggregate(*op, grouping, points, series)),
        },
        MetricExpr::Binary { op, left, right, .. } => {
            let op = *op;
            let (left, right) = (evaluate(left, points, counts), evaluate(right, points, counts));
            match (left, right) {
                (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(apply(op, left, right)),
                (Value::Vector(left), Value::Scalar(right)) => Value::Vector(map(left, |left| apply(op, left, right))),
                (Value::Scalar(left), Value::Vector(right)) => {
                    Value::Vector(map(right, |right| apply(op, left, right)))
                }
                (Value::Vector(left), Value::Vector(right)) => {
                    Value::Vector(matched(left, right, |left, right| apply(op, left, right)))
                }
            }
        }
    }
}

/// The result for two numbers, as IEEE 754 has it.
fn apply(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Subtract => left - right,
        BinaryOp::Multiply => left * right,
        BinaryOp::Divide => left / right,
        BinaryOp::Modulo => left % right,
        BinaryOp::Power => left.powf(right),
        BinaryOp::Compare(_) | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => unreachable!("{NOT_READ}"),
    }
}

fn ranged(range: &RangeExpr, counts: Counts) -> Vec<Series> {
    let seconds = range.window as f64 / 1e9;
    let value = |count: u64| if range.op.is_rate() { count as f64 / seconds } else { count as f64 };
    let series = |(labels, points): (Labels, Vec<(u32, u64)>)| Series {
        labels,
        points: points.into_iter().map(|(point, count)| (point, value(count))).collect(),
    };
    counts.into_iter().map(series).collect()
}

fn map(mut series: Vec<Series>, apply: impl Fn(f64) -> f64) -> Vec<Series> {
    series.iter_mut().flat_map(|series| &mut series.points).for_each(|(_, value)| *value = apply(*value));
    series
}

/// Series of both sides with the same labels, at the points that both have.
fn matched(left: Vec<Series>, right: Vec<Series>, apply: impl Fn(f64, f64) -> f64) -> Vec<Series> {
    let right: BTreeMap<Labels, BTreeMap<u32, f64>> =
        right.into_iter().map(|series| (series.labels, series.points.into_iter().collect())).collect();
    let both = |series: Series| {
        let other = right.get(&series.labels)?;
        let points = series.points.into_iter();
        let points = points.filter_map(|(point, left)| Some((point, apply(left, *other.get(&point)?)))).collect();
        Some(Series { labels: series.labels, points })
    };
    left.into_iter().filter_map(both).collect()
}

#[derive(Clone, Copy)]
struct Fold {
    sum: f64,
    count: u32,
    min: f64,
    max: f64,
}

impl Fold {
    const EMPTY: Self = Self { sum: 0.0, count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn value(self, op: AggregateOp) -> f64 {
        match op {
            AggregateOp::Sum => self.sum,
            AggregateOp::Count => f64::from(self.count),
            AggregateOp::Min => self.min,
            AggregateOp::Max => self.max,
            AggregateOp::Avg => self.sum / f64::from(self.count),
            AggregateOp::Stddev
            | AggregateOp::Stdvar
            | AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::ApproxTopk
            | AggregateOp::Sort
            | AggregateOp::SortDesc => unreachable!("{NOT_READ}"),
        }
    }
}

fn aggregate(op: AggregateOp, grouping: &Grouping, points: Points, series: Vec<Series>) -> Vec<Series> {
    let mut groups: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for series in series {
        groups.entry(grouped(grouping, &series.labels)).or_default().push(series);
    }
    let group = |(labels, members): (Labels, Vec<Series>)| {
        let mut folds = vec![Fold::EMPTY; points.count as usize];
        members.iter().flat_map(|member| &member.points).for_each(|(point, value)| folds[*point as usize].add(*value));
        let values = (0..points.count).zip(folds).filter(|(_, fold)| fold.count > 0);
        Series { labels, points: values.map(|(point, fold)| (point, fold.value(op))).collect() }
    };
    groups.into_iter().map(group).collect()
}
