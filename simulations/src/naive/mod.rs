//! LogQL over plain records, by the letter of Loki's documentation, as slow and as short as it can be: what the query
//! engine is held against. It shares nothing with the engine but the tree of a query, and does not know how records are
//! stored, in how many shards, or what the engine makes of a query.
//!
//! Where the documentation is silent a comment beginning with "Silent:" says what was taken.

pub mod check;
pub mod draw;
mod engine;
mod evaluate;
mod parsers;
mod pipeline;
mod samples;
mod template;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::BTreeMap;

use millpond::query::ast::{Expr, LogExpr, MatchOp, Matcher};

pub(crate) use engine::row;

use evaluate::Evaluator;
use pipeline::Entry;

/// Labels: name and value. An empty value is an absent label.
pub type Set = BTreeMap<String, String>;

/// What was stored.
#[derive(Clone, Debug)]
pub struct Record {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Shard and offset: which of two records of one time comes first.
    pub place: (u32, u64),
    /// The stream.
    pub labels: Set,
    /// Fields beside the line.
    pub metadata: Vec<(String, String)>,
    /// The line.
    pub line: String,
}

/// When, and how much.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Log queries look at [start, end), metric queries at start, start + step and so on up to the end.
    Range {
        /// The beginning.
        start: i64,
        /// The end.
        end: i64,
        /// Between two points.
        step: i64,
        /// Most records.
        limit: usize,
        /// Whether the oldest come first.
        forward: bool,
    },
    /// At one time.
    Instant(i64),
}

/// A record of an answer: its time, its place, its labels with what was extracted, and its line.
pub type Row = (i64, (u32, u64), Set, String);

/// What a query finds.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Records in their order.
    Rows(Vec<Row>),
    /// Series with the numbers of their points.
    Matrix(BTreeMap<Set, Vec<(u32, f64)>>),
    /// Series at one time; in an order only where the query sorts.
    Vector(Vec<(Set, f64)>),
    /// A number at one time.
    Scalar(f64),
}

/// Why a query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A sample that was counted carries `__error__`.
    Pipeline,
    /// Several series of one side meet one of the other, or results are not told apart.
    Matching,
    /// Records at one time.
    LogsAtInstant,
}

/// Whether a record is of a stream that a query selects.
pub fn is_of(record: &Record, logs: &LogExpr) -> bool {
    let value = |name: &str| record.labels.get(name).map_or("", String::as_str);
    logs.matchers.iter().all(|matcher| fits(matcher, value(&matcher.name)))
}

/// What a log query makes of one record, its labels and its line; `None` where it leaves the record out.
pub fn passed(record: &Record, logs: &LogExpr) -> Option<(Set, String)> {
    Entry::select(record, logs).map(|entry| (entry.labels(), entry.line))
}

/// The answer to a query over all there is.
pub fn answer<'a>(records: impl IntoIterator<Item = &'a Record>, query: &Expr, ask: Ask) -> Result<Answer, Failure> {
    let records = records.into_iter();
    match (query, ask) {
        (Expr::Logs(_), Ask::Instant(_)) => Err(Failure::LogsAtInstant),
        (Expr::Logs(logs), Ask::Range { start, end, limit, forward, .. }) => {
            let mut rows: Vec<Row> = Vec::new();
            for record in records.filter(|record| (start..end).contains(&record.timestamp)) {
                if let Some((labels, line)) = passed(record, logs) {
                    rows.push((record.timestamp, record.place, labels, line));
                }
            }
            rows.sort_by_key(|row| (row.0, row.1));
            if !forward {
                rows.reverse();
            }
            rows.truncate(limit);
            Ok(Answer::Rows(rows))
        }
        (Expr::Metric(expr), Ask::Instant(time)) => {
            Evaluator::new(records.collect()).at(expr, time).map(evaluate::Value::answer)
        }
        (Expr::Metric(expr), Ask::Range { start, end, step, .. }) => {
            let mut evaluator = Evaluator::new(records.collect());
            let mut matrix: BTreeMap<Set, Vec<(u32, f64)>> = BTreeMap::new();
            for (point, time) in (0..).zip((start..=end).step_by(usize::try_from(step).expect("above zero"))) {
                for (labels, value) in evaluator.at(expr, time)?.series() {
                    matrix.entry(labels).or_default().push((point, value));
                }
            }
            Ok(Answer::Matrix(matrix))
        }
    }
}

/// Whether a value fits a matcher; of an absent label it is empty.
fn fits(matcher: &Matcher, value: &str) -> bool {
    // A matcher's expression must match the whole value, and `.` matches no line end.
    let matches = || texts::regex(&format!("^(?:{})$", matcher.value)).is_match(value);
    match matcher.op {
        MatchOp::Equal => value == matcher.value,
        MatchOp::NotEqual => value != matcher.value,
        MatchOp::Matches => matches(),
        MatchOp::NotMatches => !matches(),
    }
}
