//! Operators between two vectors: which series of both sides meet, and what becomes of their labels.
//!
//! Series meet where they share the labels that `on` names, or all that `ignoring` does not name. One of them must then
//! be alone on its side at a point; set operators have no such rule.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Series, some, united};
use crate::label::Labels;
use crate::query::ast::{BinaryOp, Cardinality, Grouping, Matching};
use crate::query::error::{QueryError, Side};
use crate::query::scan::grouped;

/// The series of both sides that meet.
#[derive(Default)]
struct Group {
    left: Vec<Series>,
    right: Vec<Series>,
}

fn groups(matching: &Matching, left: Vec<Series>, right: Vec<Series>) -> BTreeMap<Labels, Group> {
    let grouping = match matching {
        Matching::On(names) => Grouping::By(names.clone()),
        Matching::Ignoring(names) => Grouping::Without(names.clone()),
    };
    let mut groups: BTreeMap<Labels, Group> = BTreeMap::new();
    for series in left {
        groups.entry(grouped(&grouping, &series.labels)).or_default().left.push(series);
    }
    for series in right {
        groups.entry(grouped(&grouping, &series.labels)).or_default().right.push(series);
    }
    groups
}

/// `and`, `or`, `unless`.
pub(super) fn set(op: BinaryOp, matching: &Matching, left: Vec<Series>, right: Vec<Series>) -> Vec<Series> {
    let points = |series: &[Series]| -> BTreeSet<u32> {
        series.iter().flat_map(|series| &series.points).map(|(point, _)| *point).collect()
    };
    let kept = |mut series: Vec<Series>, keeps: &dyn Fn(&u32) -> bool| {
        series.iter_mut().for_each(|series| series.points.retain(|(point, _)| keeps(point)));
        series
    };
    let group = |Group { left, right }: Group| match op {
        BinaryOp::And => {
            let others = points(&right);
            kept(left, &|point| others.contains(point))
        }
        BinaryOp::Unless => {
            let others = points(&right);
            kept(left, &|point| !others.contains(point))
        }
        BinaryOp::Or => {
            let others = points(&left);
            [left, kept(right, &|point| !others.contains(point))].concat()
        }
        BinaryOp::Add
        | BinaryOp::Subtract
        | BinaryOp::Multiply
        | BinaryOp::Divide
        | BinaryOp::Modulo
        | BinaryOp::Power
        | BinaryOp::Compare(_) => unreachable!("these are no sets"),
    };
    let series = groups(matching, left, right).into_values().flat_map(group);
    united(series).expect("series with the same labels are in one group, and there never at one point")
}

/// The side whose series are alone, by points.
struct Alone<'a> {
    series: &'a [Series],
    /// Point, index of the series, value.
    values: Vec<(u32, usize, f64)>,
}

impl<'a> Alone<'a> {
    fn new(series: &'a [Series], side: Side, group: &Labels) -> Result<Self, QueryError> {
        let mut values: Vec<(u32, usize, f64)> = Vec::new();
        for (index, series) in series.iter().enumerate() {
            values.extend(series.points.iter().map(|(point, value)| (*point, index, *value)));
        }
        values.sort_by_key(|(point, ..)| *point);
        if let Some(pair) = values.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(QueryError::ManyToMany {
                group: group.to_string(),
                side,
                first: series[pair[1].1].labels.to_string(),
                second: series[pair[0].1].labels.to_string(),
            });
        }
        Ok(Self { series, values })
    }

    fn at(&self, point: u32) -> Option<(&'a Series, usize, f64)> {
        let at = self.values.binary_search_by_key(&point, |(point, ..)| *point).ok()?;
        let (_, index, value) = self.values[at];
        Some((&self.series[index], index, value))
    }
}

/// Arithmetic and comparisons.
pub(super) fn matched(
    operation: Operation,
    matching: &Matching,
    cardinality: &Cardinality,
    left: Vec<Series>,
    right: Vec<Series>,
) -> Result<Vec<Series>, QueryError> {
    let mut found = Vec::new();
    for (labels, Group { left, right }) in groups(matching, left, right) {
        match cardinality {
            Cardinality::OneToOne => found.extend(one_to_one(operation, labels, &left, &right)?),
            Cardinality::ManyToOne(included) => {
                let alone = Alone::new(&right, Side::Right, &labels)?;
                let apply = |many, one| operation.number(many, one);
                found.extend(left.iter().flat_map(|many| many_to_one(many, &alone, included, apply)));
            }
            Cardinality::OneToMany(included) => {
                let alone = Alone::new(&left, Side::Left, &labels)?;
                let apply = |many, one| operation.number(one, many);
                found.extend(right.iter().flat_map(|many| many_to_one(many, &alone, included, apply)));
            }
        }
    }
    united(found.into_iter()).map_err(|_| QueryError::GroupingNotUnique)
}

fn one_to_one(
    operation: Operation,
    labels: Labels,
    left: &[Series],
    right: &[Series],
) -> Result<Option<Series>, QueryError> {
    let alone = Alone::new(right, Side::Right, &labels)?;
    let mut points: Vec<(u32, f64)> = Vec::new();
    for (point, number) in left.iter().flat_map(|series| &series.points) {
        let Some((_, _, other)) = alone.at(*point) else { continue };
        points.extend(operation.number(*number, other).map(|result| (*point, result)));
    }
    points.sort_by_key(|(point, _)| *point);
    if points.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(QueryError::ManyToOne);
    }
    Ok(some(vec![Series { labels, points }]).pop())
}

/// What becomes of one series of the side with many: a series for each that it meets over time.
fn many_to_one(
    many: &Series,
    alone: &Alone<'_>,
    included: &[String],
    apply: impl Fn(f64, f64) -> Option<f64>,
) -> Vec<Series> {
    let mut found: BTreeMap<usize, Series> = BTreeMap::new();
    let included = if mutant!(GroupLabelsNotTaken) { &[] } else { included };
    for (point, number) in &many.points {
        let Some((one, index, other)) = alone.at(*point) else { continue };
        let Some(result) = apply(*number, other) else { continue };
        let series = || Series { labels: with(&many.labels, included, &one.labels), points: Vec::new() };
        found.entry(index).or_insert_with(series).points.push((*point, result));
    }
    found.into_values().collect()
}

/// The labels of one series, with some of another's; those that the other does not have go.
fn with(labels: &Labels, included: &[String], from: &Labels) -> Labels {
    let own = labels.iter();
    let other = included.iter().map(|name| (name.as_str(), from.get(name).unwrap_or("")));
    Labels::new(own.chain(other))
}
