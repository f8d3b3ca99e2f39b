//! What a query asks of every shard: the text with its parameters becomes a [`Query`], checked against the bounds of
//! one answer, and a query becomes [`ShardRequest`]s.
//!
//! Times are nanoseconds since the Unix epoch. Log queries see [start, end); the window of a metric query at time t is
//! (t - window, t]. This file does not know which shards there are.
//!
//! On the wire a request and a [`Partial`](super::partial::Partial) are one version byte, now 3, and the value in
//! MessagePack, structures as arrays. What is hidden comes last in a request and is left out where nothing is.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ast::{AggregateOp, Expr, Grouping, LogExpr, Matcher, MetricExpr, RangeExpr, RangeOp, Stage, Unwrap};
use super::error::QueryError;
use super::lexer::Place;
use super::overview::{Overview, OverviewWant};
use super::parser;
use super::pipeline::{Pipeline, Unwrapped};
use super::range::Keep;
use crate::limits::{POINTS_MAX, QUERY_RANGES_MAX, RECORDS_PER_ANSWER};

const VERSION: u8 = 3;
const SECOND: i64 = 1_000_000_000;
/// Points of a range query without a step.
const DEFAULT_POINTS: i64 = 250;

/// Which records come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// The oldest.
    Forward,
    /// The newest.
    #[default]
    Backward,
}

/// Parameters of a range query beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeParameters {
    /// The beginning.
    pub start: i64,
    /// The end.
    pub end: i64,
    /// Time between points; by default a 250th of the range, at least a second.
    pub step: Option<i64>,
    /// Most records of the answer.
    pub limit: Option<u64>,
    /// Which records come first.
    pub direction: Direction,
}

/// Records in [start, end) that pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Which.
    pub logs: LogExpr,
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// Most records of the answer.
    pub limit: u32,
    /// Which come first, and so which are left out past the limit.
    pub direction: Direction,
    /// Only records that come after this timestamp and offset in the direction: how an answer that was cut goes on.
    pub after: Option<(i64, u64)>,
}

/// The points of a metric query: `start`, `start + step` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    /// The first.
    pub start: i64,
    /// Between two, above zero.
    pub step: i64,
    /// How many, above zero.
    pub count: u32,
}

impl Points {
    /// The time of one.
    pub fn at(&self, point: u32) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(i64::from(point)))
    }

    /// The same points, earlier by so much; `None` where one is out of range.
    fn earlier(&self, offset: i64) -> Option<Self> {
        let points = Self { start: self.start.checked_sub(offset)?, ..*self };
        points.are_sound().then_some(points)
    }

    /// Whether there is one, not too many, and none is out of range.
    pub(super) fn are_sound(&self) -> bool {
        let steps = self.step.checked_mul(i64::from(self.count) - 1);
        let known = self.step > 0 && self.count > 0 && self.count as usize <= POINTS_MAX;
        known && steps.is_some_and(|steps| self.start.checked_add(steps).is_some())
    }

    /// The last one's time.
    pub fn end(&self) -> i64 {
        self.at(self.count - 1)
    }
}

/// Numbers over time.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricQuery {
    /// Of what.
    pub expr: MetricExpr,
    /// When.
    pub points: Points,
    /// Whether the one point is asked for as such.
    pub instant: bool,
}

/// Counts of the records in sliding windows, per series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountQuery {
    /// Which records.
    pub logs: LogExpr,
    /// Whether to count bytes of lines rather than records.
    pub bytes: bool,
    /// The window, above zero.
    pub window: i64,
    /// When.
    pub points: Points,
    /// What tells series apart; `None`: every label and metadata field.
    pub grouping: Option<Grouping>,
}

/// Numbers of the records in sliding windows, per series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberQuery {
    /// Which records.
    pub logs: LogExpr,
    /// Which number of each.
    pub unwrap: Unwrap,
    /// What is kept of the numbers.
    pub keep: Keep,
    /// The window, above zero.
    pub window: i64,
    /// When.
    pub points: Points,
    /// What tells series apart; `None`: every label and metadata field.
    pub grouping: Option<Grouping>,
}

/// What is asked of the streams alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamsWant {
    /// The names of labels.
    Names,
    /// The values of one label.
    Values(String),
    /// The label sets.
    Series,
}

/// Streams with records in [start, end), as far as block summaries tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsQuery {
    /// What of them.
    pub want: StreamsWant,
    /// Any of these selectors; none: all streams.
    pub selectors: Vec<Vec<Matcher>>,
    /// The beginning.
    pub start: i64,
    /// The end.
    pub end: i64,
}

impl StreamsQuery {
    /// Each text of `selectors` is a stream selector.
    pub(super) fn new(want: StreamsWant, selectors: &[&str], start: i64, end: i64) -> Result<Self, QueryError> {
        if end < start {
            return Err(parameter("end", end, "a time not before start"));
        }
        let selectors = selectors.iter().map(|text| parser::parse_selector(text)).collect::<Result<_, _>>()?;
        Ok(Self { want, selectors, start, end })
    }
}

/// Records in order of their offsets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OffsetQuery {
    /// Which records; `None`: every one.
    pub logs: Option<LogExpr>,
    /// The first offset to look at; `None`: the first that retention has left.
    pub from: Option<u64>,
    /// Most records to answer with.
    pub limit: u32,
}

/// What is asked of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Want {
    /// Records by time.
    Records(LogQuery),
    /// Counts over time.
    Counts(CountQuery),
    /// Unwrapped numbers over time.
    Numbers(NumberQuery),
    /// Labels and series.
    Streams(StreamsQuery),
    /// Records by offset.
    Offsets(OffsetQuery),
    /// What there is, rather than the records themselves.
    Overview(OverviewWant),
}

/// Records that are not shown, although they are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// Whose; `None`: everyone's.
    pub tenant: Option<String>,
    /// Of which streams.
    pub matchers: Vec<Matcher>,
    /// Those with earlier timestamps.
    pub before: i64,
}

/// A request to one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardRequest {
    /// Whose records; `None`: everyone's, for the operator and for repair.
    pub tenant: Option<String>,
    /// What.
    pub want: Want,
    /// What is not shown, also where it is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<Hidden>,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write(&mut bytes, value).expect("plain data into memory");
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, QueryError> {
    let version = bytes.first().copied();
    let codec = |why: String| QueryError::Codec { what: what.to_owned(), version, why };
    if version != Some(VERSION) {
        return Err(codec(format!("this node reads version {VERSION}")));
    }
    rmp_serde::from_slice(&bytes[1..]).map_err(|error| codec(error.to_string()))
}

impl ShardRequest {
    /// Its bytes between nodes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what another node encoded; `QueryError::Codec` where the bytes are no request of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        let request: Self = decode("request", bytes)?;
        let windows = match &request.want {
            Want::Counts(CountQuery { window, points, .. }) | Want::Numbers(NumberQuery { window, points, .. }) => {
                Some((window, points))
            }
            Want::Records(_) | Want::Streams(_) | Want::Offsets(_) | Want::Overview(_) => None,
        };
        if windows.is_some_and(|(window, points)| *window <= 0 || !points.are_sound()) {
            let why = "window, step and points out of range".to_owned();
            return Err(QueryError::Codec { what: "request".to_owned(), version: Some(VERSION), why });
        }
        if let Want::Overview(want) = &request.want
            && !want.is_sound()
        {
            let why = "steps out of range".to_owned();
            return Err(QueryError::Codec { what: "request".to_owned(), version: Some(VERSION), why });
        }
        Ok(request)
    }
}

/// A query with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Records.
    Logs(LogQuery),
    /// Numbers.
    Metric(MetricQuery),
    /// Labels and series.
    Streams(StreamsQuery),
    /// What there is, rather than the records themselves.
    Overview(Overview),
}

/// The step of a range in nanoseconds that asks for none: a 250th of it, at least a second.
pub(super) fn default_step(range: i64) -> i64 {
    (range / DEFAULT_POINTS / SECOND * SECOND).max(SECOND)
}

fn parameter(name: &str, value: impl ToString, expected: &str) -> QueryError {
    QueryError::Parameter { name: name.to_owned(), value: value.to_string(), expected: expected.to_owned() }
}

/// A limit parameter within the bounds of one answer.
pub fn limit(asked: Option<u64>) -> Result<u32, QueryError> {
    let (default, most) = RECORDS_PER_ANSWER;
    let limit = asked.unwrap_or(default as u64);
    if limit == 0 {
        return Err(parameter("limit", limit, "a number above zero"));
    }
    if limit > most as u64 {
        return Err(QueryError::TooManyRecords { limit, max: most });
    }
    Ok(u32::try_from(limit).expect("at most RECORDS_PER_ANSWER"))
}

/// A query's text to a tree whose stages all compile: what one of them refuses is refused before any shard is asked, at
/// the place of that stage.
pub fn parse(text: &str) -> Result<Expr, QueryError> {
    let (expr, places) = parser::parse_placed(text)?;
    let mut places = places.into_iter();
    match &expr {
        Expr::Logs(logs) => compile(logs, &mut places)?,
        Expr::Metric(metric) => {
            for Leaf { range, .. } in leaves(metric) {
                compile(&range.logs, &mut places)?;
                if let Some(unwrap) = &range.unwrap {
                    let place = places.next().expect("each unwrap has its place");
                    Unwrapped::new(unwrap).map_err(|error| parser::moved(error, place))?;
                }
            }
        }
    }
    Ok(expr)
}

/// Takes the places of these stages from those that are left.
fn compile(logs: &LogExpr, places: &mut impl Iterator<Item = Place>) -> Result<(), QueryError> {
    let places: Vec<Place> = places.take(logs.stages.len()).collect();
    Pipeline::new(&logs.stages).map(|_| ()).map_err(|error| {
        // Where each stage is sound by itself, it is too many of them: the first is where they begin.
        let refused = |stage: &Stage| Pipeline::new(std::slice::from_ref(stage)).is_err();
        let at = logs.stages.iter().position(refused).unwrap_or(0);
        parser::moved(error, places[at])
    })
}

impl Query {
    /// A query over a range: `/query_range`.
    pub fn range(text: &str, parameters: RangeParameters) -> Result<Self, QueryError> {
        let RangeParameters { start, end, step, direction, .. } = parameters;
        if end < start {
            return Err(parameter("end", end, "a time not before start"));
        }
        match parse(text)? {
            Expr::Logs(logs) => {
                let limit = limit(parameters.limit)?;
                Ok(Self::Logs(LogQuery { logs, start, end, limit, direction, after: None }))
            }
            Expr::Metric(expr) => {
                let range = end.checked_sub(start).ok_or(parameter("start", start, "a time nearer to end"))?;
                let step = step.unwrap_or(default_step(range));
                if step <= 0 {
                    return Err(parameter("step", step, "a duration above zero"));
                }
                let count = (range / step).cast_unsigned() + 1;
                if count > POINTS_MAX as u64 {
                    return Err(QueryError::TooManyPoints { points: count, max: POINTS_MAX });
                }
                let points = Points { start, step, count: u32::try_from(count).expect("at most POINTS_MAX") };
                Self::metric(MetricQuery { expr, points, instant: false })
            }
        }
    }

    /// A query at one time: `/query`. Records at one time have no meaning and are refused.
    pub fn instant(text: &str, time: i64) -> Result<Self, QueryError> {
        match parse(text)? {
            Expr::Logs(_) => Err(QueryError::LogsAtInstant),
            Expr::Metric(expr) => {
                let points = Points { start: time, step: SECOND, count: 1 };
                Self::metric(MetricQuery { expr, points, instant: true })
            }
        }
    }

    fn metric(query: MetricQuery) -> Result<Self, QueryError> {
        let ranges = leaves(&query.expr);
        if ranges.len() > QUERY_RANGES_MAX {
            return Err(parameter("query", format!("{} range expressions", ranges.len()), "fewer of them"));
        }
        for Leaf { range, .. } in ranges {
            if query.points.earlier(range.offset).is_none() {
                return Err(parameter("offset", range.offset, "one that keeps all points within the range of times"));
            }
        }
        Ok(Self::Metric(query))
    }

    /// What names, values or series there are; each text of `selectors` is a stream selector.
    pub fn streams(want: StreamsWant, selectors: &[&str], start: i64, end: i64) -> Result<Self, QueryError> {
        Ok(Self::Streams(StreamsQuery::new(want, selectors, start, end)?))
    }

    /// What every shard is asked; its answers go to `Gather::add` with the position in this list. Empty where the
    /// query needs no record, as `vector(1)`.
    pub fn requests(&self, tenant: &str) -> Vec<ShardRequest> {
        let wants = match self {
            Self::Logs(logs) => vec![Want::Records(logs.clone())],
            Self::Metric(metric) => leaves(&metric.expr).iter().map(|leaf| metric.want(leaf)).collect(),
            Self::Streams(streams) => vec![Want::Streams(streams.clone())],
            Self::Overview(overview) => overview.wants(),
        };
        wants
            .into_iter()
            .map(|want| ShardRequest { tenant: Some(tenant.to_owned()), want, hidden: Vec::new() })
            .collect()
    }
}

/// A range expression of a metric query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'a> {
    pub(super) range: &'a RangeExpr,
    /// The aggregation right above it.
    above: Option<(AggregateOp, &'a Grouping)>,
}

/// Whether an aggregation of whole series is the same aggregation of parts of them, each done by a shard.
fn is_done_by_shards(above: AggregateOp, range: RangeOp) -> bool {
    match above {
        AggregateOp::Sum => match range {
            RangeOp::CountOverTime
            | RangeOp::Rate
            | RangeOp::BytesOverTime
            | RangeOp::BytesRate
            | RangeOp::SumOverTime => true,
            RangeOp::RateCounter
            | RangeOp::AvgOverTime
            | RangeOp::MinOverTime
            | RangeOp::MaxOverTime
            | RangeOp::FirstOverTime
            | RangeOp::LastOverTime
            | RangeOp::StddevOverTime
            | RangeOp::StdvarOverTime
            | RangeOp::QuantileOverTime
            | RangeOp::AbsentOverTime => false,
        },
        AggregateOp::Min => range == RangeOp::MinOverTime,
        AggregateOp::Max => range == RangeOp::MaxOverTime,
        AggregateOp::Count
        | AggregateOp::Avg
        | AggregateOp::Stddev
        | AggregateOp::Stdvar
        | AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::ApproxTopk
        | AggregateOp::Sort
        | AggregateOp::SortDesc => false,
    }
}

impl Leaf<'_> {
    /// What tells series apart on the shards. Where the aggregation above can be done by them it is: sums of sums are
    /// sums. The others need whole series, since a stream may live in several shards. An absence has a single series.
    fn grouping(&self) -> Option<Grouping> {
        if self.range.op == RangeOp::AbsentOverTime {
            return Some(Grouping::By(Vec::new()));
        }
        let above = self.above.filter(|(op, _)| is_done_by_shards(*op, self.range.op)).map(|(_, grouping)| grouping);
        self.range.grouping.as_ref().or(above).cloned()
    }
}

/// The range expressions of an expression, from left to right.
pub(super) fn leaves(expr: &MetricExpr) -> Vec<Leaf<'_>> {
    fn walk<'a>(expr: &'a MetricExpr, above: Option<(AggregateOp, &'a Grouping)>, leaves: &mut Vec<Leaf<'a>>) {
        match expr {
            MetricExpr::Number(_) | MetricExpr::Vector(_) => {}
            MetricExpr::Range(range) => leaves.push(Leaf { range, above }),
            MetricExpr::LabelReplace { inner, .. } => walk(inner, None, leaves),
            MetricExpr::Aggregate { op, grouping, inner, .. } => walk(inner, Some((*op, grouping)), leaves),
            MetricExpr::Binary { left, right, .. } => {
                walk(left, None, leaves);
                walk(right, None, leaves);
            }
        }
    }
    let mut found = Vec::new();
    walk(expr, None, &mut found);
    found
}

impl MetricQuery {
    /// The points at which a range expression is looked at: earlier by its offset.
    pub(super) fn points_of(&self, range: &RangeExpr) -> Points {
        self.points.earlier(range.offset).unwrap_or(self.points)
    }

    /// What every shard is asked for a range expression.
    fn want(&self, leaf: &Leaf<'_>) -> Want {
        let range = leaf.range;
        let RangeExpr { op, window, .. } = *range;
        let (logs, points, grouping) = (range.logs.clone(), self.points_of(range), leaf.grouping());
        match (&range.unwrap, Keep::of(op)) {
            (Some(unwrap), Some(keep)) => {
                Want::Numbers(NumberQuery { logs, unwrap: unwrap.clone(), keep, window, points, grouping })
            }
            (Some(_), None) | (None, _) => {
                Want::Counts(CountQuery { logs, bytes: op.counts_bytes(), window, points, grouping })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, parameters: RangeParameters) -> Result<Query, QueryError> {
        Query::range(text, parameters)
    }

    fn points(query: Query) -> Points {
        let Query::Metric(MetricQuery { points, .. }) = query else { panic!("a metric query") };
        points
    }

    #[test]
    fn points_stand_a_step_apart_and_are_bounded() {
        let parameters = RangeParameters { start: 0, end: 3_600 * SECOND, ..RangeParameters::default() };
        let rate = "rate({a=\"b\"}[1m])";
        assert_eq!(points(range(rate, parameters).unwrap()), Points { start: 0, step: 14 * SECOND, count: 258 });
        let minute = RangeParameters { step: Some(60 * SECOND), ..parameters };
        let found = points(range(rate, minute).unwrap());
        assert_eq!((found.count, found.end()), (61, 3_600 * SECOND));
        let fine = RangeParameters { step: Some(SECOND / 10), ..parameters };
        assert!(matches!(range(rate, fine), Err(QueryError::TooManyPoints { points: 36_001, .. })));
        let finest = RangeParameters { end: i64::MAX, step: Some(1), ..parameters };
        assert!(matches!(range(rate, finest), Err(QueryError::TooManyPoints { points, .. }) if points == 1 << 63));
        let wide = RangeParameters { start: i64::MIN, end: i64::MAX, ..parameters };
        assert!(matches!(range(rate, wide), Err(QueryError::Parameter { .. })));
    }

    #[test]
    fn what_a_stage_refuses_is_refused_before_any_shard_is_asked() {
        for (stage, refused) in [
            ("| json x=`a[`", "invalid JSON path \"a[\""),
            ("| pattern `<a><b>`", "invalid pattern \"<a><b>\""),
            ("| x = ip(`10.0`)", "invalid ip \"10.0\""),
            ("|= ip(`10.0`)", "invalid ip \"10.0\""),
            ("| line_format `{{.x`", "invalid template \"{{.x\""),
            ("| label_format y=`{{nothing}}`", "function \"nothing\" not defined"),
        ] {
            let error = range(&format!("{{a=`b`}} {stage}"), RangeParameters::default()).unwrap_err();
            assert!(matches!(error, QueryError::Parse { .. }) && error.to_string().contains(refused), "{error}");
        }
    }

    #[test]
    fn what_is_refused_is_refused_at_its_stage() {
        let sound = "rate({a=`b`} |= `x` | json | unwrap n | n > 1 [1m])";
        for (query, line, column) in [
            ("{a=`b`} | line_format `{{.x`".to_owned(), 1, 11),
            ("{a=`b`} |= `x` | json | drop a\n | line_format `{{.x`".to_owned(), 2, 4),
            ("{a=`b`} |= `x` != ip(`10.0`)".to_owned(), 1, 16),
            (format!("{sound}\n/ rate({{a=`b`}} |= ip(`10.0`) [1m])"), 2, 16),
            (format!("{sound} +\nrate({{a=`b`}} | json | x = ip(`10.0`) | unwrap n [1m])"), 2, 23),
            (format!("{sound} + sum(rate({{a=`b`}} | unwrap n\n| x = ip(`10.0`) [1m]))"), 1, 74),
        ] {
            let error = parse(&query).unwrap_err();
            let QueryError::Parse { line: at, column: found, .. } = error else { panic!("{error}") };
            assert_eq!((at, found), (line, column), "{query}: {error}");
        }
        assert!(parse(sound).is_ok());
    }

    #[test]
    fn limits_and_ranges_are_judged() {
        let logs = |limit, end| range("{a=\"b\"}", RangeParameters { limit, end, ..RangeParameters::default() });
        assert!(matches!(logs(None, 1), Ok(Query::Logs(LogQuery { limit: 100, .. }))));
        assert!(matches!(logs(Some(5_001), 1), Err(QueryError::TooManyRecords { limit: 5_001, .. })));
        assert!(logs(Some(0), 1).is_err() && logs(None, -1).is_err());
        assert_eq!(Query::instant("{a=\"b\"}", 0), Err(QueryError::LogsAtInstant));
        assert!(Query::streams(StreamsWant::Names, &[], 1, 0).is_err());
    }

    #[test]
    fn only_a_sum_right_above_is_done_by_the_shards() {
        let grouping = |text: &str| match Query::instant(text, 0).unwrap().requests("t").remove(0).want {
            Want::Counts(count) => count.grouping,
            Want::Numbers(_) | Want::Records(_) | Want::Streams(_) | Want::Offsets(_) | Want::Overview(_) => {
                panic!("a count")
            }
        };
        let range = "count_over_time({a=\"b\"}[1m])";
        assert_eq!(grouping(&format!("sum by (x) ({range})")), Some(Grouping::By(vec!["x".into()])));
        assert_eq!(grouping(&format!("max(sum without (x) ({range}))")), Some(Grouping::Without(vec!["x".into()])));
        for whole in ["max by (x) (RANGE)", "count(RANGE)", "sum(avg(RANGE))", "sum(RANGE + 1)", "RANGE"] {
            assert_eq!(grouping(&whole.replace("RANGE", range)), None, "{whole}");
        }
        let five = [range; 5].join(" + ");
        assert!(Query::instant(&five, 0).is_err());
    }

    fn wanted(text: &str) -> Want {
        Query::instant(text, 100).unwrap().requests("t").remove(0).want
    }

    #[test]
    fn unwrapped_numbers_are_folded_by_the_shards() {
        let of = |text: &str| match wanted(text) {
            Want::Numbers(NumberQuery { keep, grouping, .. }) => (keep, grouping),
            Want::Counts(_) | Want::Records(_) | Want::Streams(_) | Want::Offsets(_) | Want::Overview(_) => {
                panic!("{text}")
            }
        };
        let by = |names: &[&str]| Some(Grouping::By(names.iter().map(|name| (*name).to_owned()).collect()));
        let numbers = "{a=\"b\"} | unwrap n [1m]";
        for (text, keep, grouping) in [
            ("sum_over_time(NUMBERS)", Keep::Sum, None),
            ("sum by (x) (rate(NUMBERS))", Keep::Sum, by(&["x"])),
            ("sum by (x) (avg_over_time(NUMBERS))", Keep::Sum, None),
            ("max by (x) (max_over_time(NUMBERS))", Keep::Most, by(&["x"])),
            ("min by (x) (max_over_time(NUMBERS))", Keep::Most, None),
            ("max by (x) (max_over_time(NUMBERS) by (x, y))", Keep::Most, by(&["x", "y"])),
            ("quantile_over_time(0.9, NUMBERS) by (y)", Keep::Values, by(&["y"])),
            ("sum by (x) (absent_over_time(NUMBERS))", Keep::Presence, by(&[])),
            ("sum by (x) (rate_counter(NUMBERS))", Keep::Samples, None),
        ] {
            assert_eq!(of(&text.replace("NUMBERS", numbers)), (keep, grouping), "{text}");
        }
    }

    #[test]
    fn an_offset_moves_the_points_that_shards_are_asked_for() {
        let start = |text: &str| match wanted(text) {
            Want::Counts(CountQuery { points, .. }) | Want::Numbers(NumberQuery { points, .. }) => points.start,
            Want::Records(_) | Want::Streams(_) | Want::Offsets(_) | Want::Overview(_) => panic!("{text}"),
        };
        assert_eq!(start("rate({a=\"b\"}[1m] offset 30ns)"), 70);
        assert_eq!(start("rate({a=\"b\"}[1m] offset -30ns)"), 130);
        assert_eq!(start("sum_over_time({a=\"b\"} | unwrap n [1m] offset 1us)"), -900);
        let far = Query::instant("rate({a=\"b\"}[1m] offset -1ns)", i64::MAX);
        assert!(matches!(far, Err(QueryError::Parameter { name, .. }) if name == "offset"));
    }

    #[test]
    fn a_request_with_points_out_of_range_is_refused() {
        let mut request = Query::instant("rate({a=\"b\"}[1m])", 0).unwrap().requests("t").remove(0);
        assert_eq!(ShardRequest::decode(&request.encode()).unwrap(), request);
        for points in [
            Points { start: 0, step: 0, count: 1 },
            Points { start: 0, step: 1, count: 0 },
            Points { start: i64::MAX, step: 1, count: 2 },
            Points { start: 0, step: 1, count: u32::MAX },
        ] {
            let Want::Counts(count) = &mut request.want else { panic!("a count") };
            count.points = points;
            assert!(ShardRequest::decode(&request.encode()).is_err(), "{points:?}");
        }
    }
}
