//! The engine held against the naive evaluator: data and queries of a seed, and where the two differ.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use anyhow::{Context as _, Result};
use millpond::query::ast::{AggregateOp, Expr, MetricExpr};
use millpond::query::error::QueryError;

use super::draw::{self, Drawn};
use super::engine::World;
use super::{Answer, Ask, Failure, Record, Set, answer};
use crate::draw::Dice;

/// Queries of one seed, over the same data.
pub const QUERIES: u64 = 20;
/// How far two numbers may be apart, as a part of them and at least: sums in another order differ in the last digits.
const APART: f64 = 1e-9;
const APART_LEAST: f64 = 1e-6;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Queries that were drawn.
    pub queries: u64,
    /// Those with an answer that holds something.
    pub found: u64,
    /// Those that have no answer, on both sides.
    pub failed: u64,
    /// How often each construct was in a query that was compared.
    pub constructs: BTreeMap<String, u64>,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// A query that the engine answers in another way.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The seed.
    pub seed: u64,
    /// Which query of it.
    pub number: u64,
    /// Its text.
    pub query: String,
    /// When it is asked.
    pub ask: Ask,
    /// What differs.
    pub what: String,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.found += other.found;
        self.failed += other.failed;
        other.constructs.into_iter().for_each(|(name, count)| *self.constructs.entry(name).or_default() += count);
        self.differences.extend(other.differences);
    }
}

/// Asks the queries of a seed, and compares.
pub fn run(seed: u64) -> Result<Report> {
    let batches = draw::data::batches(&mut Dice::new(seed, "logql data"));
    let world = World::new(&batches).with_context(|| format!("storing the records of seed {seed}"))?;
    let records: Vec<Record> = batches.into_iter().flat_map(|batch| batch.records).collect();
    let mut dice = Dice::new(seed, "logql queries");
    let mut report = Report::default();
    for number in 0..QUERIES {
        let drawn = draw::query(&mut dice);
        report.queries += 1;
        let found = world.answer(&drawn.query, drawn.ask, number as usize % 3);
        for construct in draw::used(&drawn.query, drawn.ask) {
            *report.constructs.entry(construct).or_default() += 1;
        }
        let expected = answer(&records, &drawn.query, drawn.ask);
        match &expected {
            Ok(expected) if holds_something(expected) => report.found += 1,
            Ok(_) => {}
            Err(_) => report.failed += 1,
        }
        let what = match found {
            Ok(found) => compare(&records, &drawn, expected, found),
            Err(error) => Some(format!("{error:#}")),
        };
        report.differences.extend(what.map(|what| {
            let Drawn { query, ask } = drawn;
            Difference { seed, number, query: query.to_string(), ask, what }
        }));
    }
    Ok(report)
}

fn holds_something(answer: &Answer) -> bool {
    match answer {
        Answer::Rows(rows) => !rows.is_empty(),
        Answer::Matrix(series) => !series.is_empty(),
        Answer::Vector(series) => !series.is_empty(),
        Answer::Scalar(_) => true,
    }
}

fn compare(
    records: &[Record],
    drawn: &Drawn,
    expected: Result<Answer, Failure>,
    found: Result<Answer, QueryError>,
) -> Option<String> {
    let (expected, found) = match (expected, found) {
        (Err(_), Err(refused @ QueryError::Parse { .. })) => return Some(refused.to_string()),
        (Err(_), Err(_)) => return None,
        (Err(expected), Ok(found)) => return Some(format!("it should fail ({expected:?}), and is\n{}", shown(&found))),
        (Ok(expected), Err(found)) => return Some(format!("it should be\n{}\nand fails: {found}", shown(&expected))),
        (Ok(expected), Ok(found)) => (expected, found),
    };
    differs(records, drawn, &expected, &found)
}

/// Where one answer is not the other: numbers may be apart in their last digits, and of equal series any may be chosen.
pub(crate) fn differs<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    drawn: &Drawn,
    expected: &Answer,
    found: &Answer,
) -> Option<String> {
    let same = match (&drawn.query, expected, found) {
        (_, Answer::Rows(expected), Answer::Rows(found)) => expected == found,
        (_, Answer::Scalar(expected), Answer::Scalar(found)) => near(*expected, *found),
        (Expr::Metric(MetricExpr::Aggregate { op, inner, .. }), _, _) if chooses(*op) => {
            chosen_alike(records, inner, drawn.ask, expected, found)
        }
        (
            Expr::Metric(MetricExpr::Aggregate { op: AggregateOp::Sort | AggregateOp::SortDesc, .. }),
            Answer::Vector(in_order),
            Answer::Vector(found_order),
        ) => {
            let values = |series: &[(Set, f64)]| -> Vec<f64> { series.iter().map(|(_, value)| *value).collect() };
            values(in_order) == values(found_order) && alike(&points(expected), &points(found))
        }
        (_, expected, found) => alike(&points(expected), &points(found)),
    };
    (!same).then(|| format!("it should be\n{}\nand is\n{}", shown(expected), shown(found)))
}

fn chooses(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::ApproxTopk)
}

/// Values of metric answers by series and point.
pub(crate) type Points = BTreeMap<(Set, u32), f64>;

pub(crate) fn points(answer: &Answer) -> Points {
    match answer {
        Answer::Rows(_) => Points::new(),
        Answer::Matrix(series) => {
            let all = series.iter().flat_map(|(labels, points)| points.iter().map(move |point| (labels, point)));
            all.map(|(labels, (point, value))| ((labels.clone(), *point), *value)).collect()
        }
        Answer::Vector(series) => series.iter().map(|(labels, value)| ((labels.clone(), 0), *value)).collect(),
        Answer::Scalar(number) => Points::from([((Set::new(), 0), *number)]),
    }
}

/// Whether two numbers are the same but for their last digits.
pub(crate) fn near(left: f64, right: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= (left.abs().max(right.abs()) * APART).max(APART_LEAST)
}

fn alike(expected: &Points, found: &Points) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| expected.0 == found.0 && near(*expected.1, *found.1))
}

/// Of equal series any may be chosen: the same values at each point, and each of a series that has it.
fn chosen_alike<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    inner: &MetricExpr,
    ask: Ask,
    expected: &Answer,
    found: &Answer,
) -> bool {
    let values = |answer: &Answer| {
        let mut values: Vec<(u32, u64)> =
            points(answer).into_iter().map(|((_, point), value)| (point, value.to_bits())).collect();
        values.sort_unstable();
        values
    };
    let Ok(all) = answer(records, &Expr::Metric(inner.clone()), ask) else { return false };
    let all = points(&all);
    values(expected) == values(found) && points(found).iter().all(|(series, value)| all.get(series) == Some(value))
}

fn shown(answer: &Answer) -> String {
    let lines: Vec<String> = match answer {
        Answer::Rows(rows) => rows.iter().map(|row| format!("{row:?}")).collect(),
        Answer::Matrix(series) => series.iter().map(|series| format!("{series:?}")).collect(),
        Answer::Vector(series) => series.iter().map(|series| format!("{series:?}")).collect(),
        Answer::Scalar(number) => vec![number.to_string()],
    };
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}
