//! A metric expression over the series of its range expressions, point by point.
//!
//! Every point stands for itself: what a series is matched with, or whether it is among the largest, is decided anew
//! at each. Points without a value are left out. This file does not know where series come from.

mod aggregate;
mod matching;
mod replace;

use std::collections::BTreeMap;

use super::ast::{AggregateOp, BinaryOp, MetricExpr};
use super::error::QueryError;
use super::plan::Points;
use crate::label::Labels;

/// A series of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What tells it apart.
    pub labels: Labels,
    /// Point and value, ascending; points without a value are left out.
    pub points: Vec<(u32, f64)>,
}

/// What a metric expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The same number at every point.
    Scalar(f64),
    /// Series with at least a point each, no two of them with the same labels: sorted by labels, or at an instant by
    /// what `sort` says.
    Vector(Vec<Series>),
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// The points.
    pub points: Points,
    /// Whether the one point is asked for as such.
    pub instant: bool,
}

fn no_labels() -> Labels {
    Labels::new::<&str, &str>([])
}

impl When {
    /// The same number at every point.
    pub fn constant(&self, number: f64) -> Series {
        Series { labels: no_labels(), points: (0..self.points.count).map(|point| (point, number)).collect() }
    }

    /// Evaluates an expression; `ranges` are the series of its range expressions from left to right, sorted by labels.
    ///
    /// # Errors
    /// Where series cannot be matched one by one, or would no longer be told apart; `QueryError::Parse` where the
    /// expression of `label_replace` does not compile.
    ///
    /// # Panics
    /// Where `ranges` are fewer than the expression has, or the expression is none that the parser gives.
    pub fn evaluate(
        &self,
        expr: &MetricExpr,
        ranges: &mut impl Iterator<Item = Vec<Series>>,
    ) -> Result<Value, QueryError> {
        match expr {
            MetricExpr::Number(number) => Ok(Value::Scalar(*number)),
            MetricExpr::Vector(number) => Ok(Value::Vector(vec![self.constant(*number)])),
            MetricExpr::Range(_) => Ok(Value::Vector(some(ranges.next().expect("one of each range expression")))),
            MetricExpr::Aggregate { op, parameter, grouping, inner } => {
                let series = vector(self.evaluate(inner, ranges)?);
                Ok(Value::Vector(match op {
                    AggregateOp::Sort | AggregateOp::SortDesc if !self.instant => series,
                    AggregateOp::Sort => aggregate::sorted(series, false),
                    AggregateOp::SortDesc => aggregate::sorted(series, true),
                    AggregateOp::Topk | AggregateOp::ApproxTopk => {
                        aggregate::extreme(parameter.unwrap_or(0), true, grouping, series)
                    }
                    AggregateOp::Bottomk => aggregate::extreme(parameter.unwrap_or(0), false, grouping, series),
                    AggregateOp::Sum
                    | AggregateOp::Count
                    | AggregateOp::Min
                    | AggregateOp::Max
                    | AggregateOp::Avg
                    | AggregateOp::Stddev
                    | AggregateOp::Stdvar => aggregate::aggregated(*op, grouping, series),
                }))
            }
            MetricExpr::Binary { op, bool_modifier, matching, cardinality, left, right } => {
                let (left, right) = (self.evaluate(left, ranges)?, self.evaluate(right, ranges)?);
                let operation = Operation { op: *op, as_bool: *bool_modifier };
                Ok(match (left, right) {
                    (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(operation.scalar(left, right)),
                    (Value::Vector(left), Value::Scalar(right)) => {
                        Value::Vector(map(left, |left| operation.number(left, right)))
                    }
                    (Value::Scalar(left), Value::Vector(right)) => {
                        Value::Vector(map(right, |right| operation.number_of_right(left, right)))
                    }
                    (Value::Vector(left), Value::Vector(right)) if op.is_set() => {
                        Value::Vector(matching::set(*op, matching, left, right))
                    }
                    (Value::Vector(left), Value::Vector(right)) => {
                        Value::Vector(matching::matched(operation, matching, cardinality, left, right)?)
                    }
                })
            }
            MetricExpr::LabelReplace { inner, to, replacement, from, regex } => {
                let replace = replace::Replace::new(to, replacement, from, regex)?;
                let replaced = vector(self.evaluate(inner, ranges)?).into_iter().map(|series| replace.apply(series));
                let labels = |labels: Labels| QueryError::SameLabels { labels: labels.to_string() };
                united(replaced).map(Value::Vector).map_err(labels)
            }
        }
    }
}

fn vector(value: Value) -> Vec<Series> {
    match value {
        Value::Vector(series) => series,
        Value::Scalar(_) => unreachable!("the parser refuses a number where series are needed"),
    }
}

/// Those with a point.
fn some(series: Vec<Series>) -> Vec<Series> {
    series.into_iter().filter(|series| !series.points.is_empty()).collect()
}

/// An operator between numbers.
#[derive(Clone, Copy, Debug)]
struct Operation {
    op: BinaryOp,
    as_bool: bool,
}

impl Operation {
    /// Of two numbers of series: a comparison that does not hold leaves nothing, one that holds the left number.
    fn number(self, left: f64, right: f64) -> Option<f64> {
        Some(match self.op {
            BinaryOp::Add => left + right,
            BinaryOp::Subtract => left - right,
            BinaryOp::Multiply => left * right,
            // As Loki documents it, unlike Prometheus.
            BinaryOp::Divide if right == 0.0 => f64::NAN,
            BinaryOp::Divide => left / right,
            BinaryOp::Modulo => left % right,
            BinaryOp::Power => left.powf(right),
            BinaryOp::Compare(compare) if self.as_bool => f64::from(u8::from(compare.holds(&left, &right))),
            BinaryOp::Compare(compare) => return compare.holds(&left, &right).then_some(left),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => unreachable!("the parser keeps sets to series"),
        })
    }

    /// The same where only the right side is of a series: a comparison that holds leaves the right number.
    fn number_of_right(self, left: f64, right: f64) -> Option<f64> {
        let filters = matches!(self.op, BinaryOp::Compare(_)) && !self.as_bool;
        self.number(left, right).map(|number| if filters { right } else { number })
    }

    /// Of two scalars: a comparison is 0 or 1.
    fn scalar(self, left: f64, right: f64) -> f64 {
        Self { as_bool: true, ..self }.number(left, right).unwrap_or(f64::NAN)
    }
}

fn map(mut series: Vec<Series>, apply: impl Fn(f64) -> Option<f64>) -> Vec<Series> {
    for series in &mut series {
        series.points.retain_mut(|(_, value)| match apply(*value) {
            Some(applied) => {
                *value = applied;
                true
            }
            None => false,
        });
    }
    some(series)
}

/// Series with the same labels as one, sorted by labels.
///
/// # Errors
/// The labels of two that have a value at the same point.
fn united(all: impl Iterator<Item = Series>) -> Result<Vec<Series>, Labels> {
    let mut united: BTreeMap<Labels, Vec<(u32, f64)>> = BTreeMap::new();
    for Series { labels, points } in all {
        united.entry(labels).or_default().extend(points);
    }
    let mut series = Vec::with_capacity(united.len());
    for (labels, mut points) in united {
        points.sort_by_key(|(point, _)| *point);
        if points.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(labels);
        }
        series.push(Series { labels, points });
    }
    Ok(some(series))
}

#[cfg(test)]
mod tests;
