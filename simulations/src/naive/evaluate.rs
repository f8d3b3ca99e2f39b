//! Numbers at one time: aggregation over series, and operators between them.

use std::collections::BTreeMap;

use millpond::query::ast::{AggregateOp, BinaryOp, Cardinality, Grouping, Matching, MetricExpr, RangeExpr};

use super::pipeline::holds;
use super::samples::{Sample, grouped, ranged, samples};
use super::{Answer, Failure, Record, Set, texts};

/// What an expression is at one time.
pub(super) enum Value {
    Scalar(f64),
    /// Series, in the order of a sort above all others.
    Vector(Vec<(Set, f64)>),
}

impl Value {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Scalar(number) => Answer::Scalar(number),
            Self::Vector(series) => Answer::Vector(series),
        }
    }

    /// Over a range a number is a series without labels.
    pub(super) fn series(self) -> Vec<(Set, f64)> {
        match self {
            Self::Scalar(number) => vec![(Set::new(), number)],
            Self::Vector(series) => series,
        }
    }
}

pub(super) struct Evaluator<'a> {
    records: Vec<&'a Record>,
    /// What each range expression was found to select, by where it is: the same at every time.
    selected: BTreeMap<*const RangeExpr, Vec<Sample>>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(records: Vec<&'a Record>) -> Self {
        Self { records, selected: BTreeMap::new() }
    }

    pub(super) fn at(&mut self, expr: &MetricExpr, time: i64) -> Result<Value, Failure> {
        Ok(match expr {
            MetricExpr::Number(number) => Value::Scalar(*number),
            MetricExpr::Vector(number) => Value::Vector(vec![(Set::new(), *number)]),
            MetricExpr::Range(range) => {
                let samples = self.selected.entry(range).or_insert_with(|| samples(&self.records, range));
                Value::Vector(ranged(range, samples, time)?)
            }
            MetricExpr::Aggregate { op, parameter, grouping, inner } => {
                Value::Vector(aggregate(*op, *parameter, grouping, self.at(inner, time)?.series()))
            }
            MetricExpr::Binary { op, bool_modifier, matching, cardinality, left, right } => {
                let operator = Operator { op: *op, gives_bool: *bool_modifier, matching, cardinality };
                match (self.at(left, time)?, self.at(right, time)?) {
                    (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(operator.number(left, right)),
                    (Value::Vector(left), Value::Scalar(right)) => {
                        let value = |(labels, left)| Some((labels, operator.passed(left, left, right)?));
                        Value::Vector(left.into_iter().filter_map(value).collect())
                    }
                    (Value::Scalar(left), Value::Vector(right)) => {
                        let value = |(labels, right)| Some((labels, operator.passed(right, left, right)?));
                        Value::Vector(right.into_iter().filter_map(value).collect())
                    }
                    (Value::Vector(left), Value::Vector(right)) => Value::Vector(operator.vectors(left, right)?),
                }
            }
            MetricExpr::LabelReplace { inner, to, replacement, from, regex } => {
                let expression = texts::regex(&format!("^(?:{regex})$"));
                let mut series = self.at(inner, time)?.series();
                for (labels, _) in &mut series {
                    let value = labels.get(from).cloned().unwrap_or_default();
                    if let Some(captures) = expression.captures(&value) {
                        let mut text = String::new();
                        captures.expand(replacement, &mut text);
                        labels.insert(to.clone(), text);
                        labels.retain(|_, value| !value.is_empty());
                    }
                }
                Value::Vector(told_apart(series)?)
            }
        })
    }
}

/// The series, where no two of them have the same labels.
fn told_apart(series: Vec<(Set, f64)>) -> Result<Vec<(Set, f64)>, Failure> {
    let names: std::collections::BTreeSet<&Set> = series.iter().map(|(labels, _)| labels).collect();
    if names.len() == series.len() { Ok(series) } else { Err(Failure::Matching) }
}

fn aggregate(op: AggregateOp, parameter: Option<u32>, grouping: &Grouping, series: Vec<(Set, f64)>) -> Vec<(Set, f64)> {
    let mut groups: BTreeMap<Set, Vec<(Set, f64)>> = BTreeMap::new();
    for (labels, value) in series {
        groups.entry(grouped(grouping, &labels)).or_default().push((labels, value));
    }
    let sorted = |mut group: Vec<(Set, f64)>, descending: bool| {
        group.sort_by(|a, b| if descending { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
        group.truncate(parameter.map_or(usize::MAX, |most| most as usize));
        group
    };
    let one = |(labels, group): (Set, Vec<(Set, f64)>)| {
        let values = || group.iter().map(|(_, value)| *value);
        let (count, sum): (f64, f64) = (group.len() as f64, values().sum());
        let variance = || values().map(|value| (value - sum / count).powi(2)).sum::<f64>() / count;
        let value = match op {
            AggregateOp::Sum => sum,
            AggregateOp::Count => count,
            AggregateOp::Min => values().fold(f64::NAN, f64::min),
            AggregateOp::Max => values().fold(f64::NAN, f64::max),
            AggregateOp::Avg => sum / count,
            AggregateOp::Stddev => variance().sqrt(),
            AggregateOp::Stdvar => variance(),
            AggregateOp::Topk | AggregateOp::ApproxTopk | AggregateOp::SortDesc => return sorted(group, true),
            AggregateOp::Bottomk | AggregateOp::Sort => return sorted(group, false),
        };
        vec![(labels, value)]
    };
    groups.into_iter().flat_map(one).collect()
}

struct Operator<'a> {
    op: BinaryOp,
    gives_bool: bool,
    matching: &'a Matching,
    cardinality: &'a Cardinality,
}

impl Operator<'_> {
    /// The result for two numbers: of a comparison 0 or 1.
    fn number(&self, left: f64, right: f64) -> f64 {
        match self.op {
            BinaryOp::Add => left + right,
            BinaryOp::Subtract => left - right,
            BinaryOp::Multiply => left * right,
            // "Dividing by zero (which produces `NaN`)", also of what is not zero.
            BinaryOp::Divide if right == 0.0 => f64::NAN,
            BinaryOp::Divide => left / right,
            BinaryOp::Modulo => left % right,
            BinaryOp::Power => left.powf(right),
            BinaryOp::Compare(compare) => f64::from(u8::from(holds(compare, left.partial_cmp(&right)))),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => f64::NAN,
        }
    }

    /// The same for a sample: a comparison without `bool` lets `kept` through, or nothing.
    fn passed(&self, kept: f64, left: f64, right: f64) -> Option<f64> {
        let value = self.number(left, right);
        let filters = matches!(self.op, BinaryOp::Compare(_)) && !self.gives_bool;
        if filters { (value == 1.0).then_some(kept) } else { Some(value) }
    }

    /// The labels by which two series meet.
    fn key(&self, labels: &Set) -> Set {
        match self.matching {
            Matching::On(names) => grouped(&Grouping::By(names.clone()), labels),
            Matching::Ignoring(names) => grouped(&Grouping::Without(names.clone()), labels),
        }
    }

    fn vectors(&self, left: Vec<(Set, f64)>, right: Vec<(Set, f64)>) -> Result<Vec<(Set, f64)>, Failure> {
        let meets = |series: &[(Set, f64)], labels: &Set| series.iter().any(|(o, _)| self.key(o) == self.key(labels));
        match self.op {
            BinaryOp::And => Ok(left.into_iter().filter(|(labels, _)| meets(&right, labels)).collect()),
            BinaryOp::Unless => Ok(left.into_iter().filter(|(labels, _)| !meets(&right, labels)).collect()),
            BinaryOp::Or => {
                let more: Vec<_> = right.into_iter().filter(|(labels, _)| !meets(&left, labels)).collect();
                Ok(left.into_iter().chain(more).collect())
            }
            BinaryOp::Add
            | BinaryOp::Subtract
            | BinaryOp::Multiply
            | BinaryOp::Divide
            | BinaryOp::Modulo
            | BinaryOp::Power
            | BinaryOp::Compare(_) => match self.cardinality {
                Cardinality::OneToOne => self.joined(&left, &right, None, |value, other| (value, other)),
                Cardinality::ManyToOne(taken) => self.joined(&left, &right, Some(taken), |value, other| (value, other)),
                Cardinality::OneToMany(taken) => self.joined(&right, &left, Some(taken), |value, other| (other, value)),
            },
        }
    }

    /// Each of `many` with the one it meets; `taken` are the labels it takes over from that, `None` where it must be alone
    /// itself and keeps no label but those by which they met.
    fn joined(
        &self,
        many: &[(Set, f64)],
        one: &[(Set, f64)],
        taken: Option<&Vec<String>>,
        sides: impl Fn(f64, f64) -> (f64, f64),
    ) -> Result<Vec<(Set, f64)>, Failure> {
        let keys: std::collections::BTreeSet<Set> = one.iter().map(|(labels, _)| self.key(labels)).collect();
        if keys.len() < one.len() {
            return Err(Failure::Matching);
        }
        let mut found = Vec::new();
        for (labels, value) in many {
            let Some((met, other)) = one.iter().find(|(other, _)| self.key(other) == self.key(labels)) else {
                continue;
            };
            let (left, right) = sides(*value, *other);
            let Some(value) = self.passed(left, left, right) else { continue };
            let mut result = if taken.is_some() { labels.clone() } else { self.key(labels) };
            for name in taken.into_iter().flatten() {
                match met.get(name) {
                    Some(value) => result.insert(name.clone(), value.clone()),
                    None => result.remove(name),
                };
            }
            found.push((result, value));
        }
        told_apart(found)
    }
}
