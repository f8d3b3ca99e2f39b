//! Vector aggregations: series become fewer, or come in an order. NaN is the last in every order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Series;
use crate::label::Labels;
use crate::query::ast::{AggregateOp, Grouping};
use crate::query::exact::{Moments, Sum, least, most};
use crate::query::scan::grouped;

fn groups(grouping: &Grouping, series: Vec<Series>) -> BTreeMap<Labels, Vec<Series>> {
    let mut groups: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for series in series {
        groups.entry(grouped(grouping, &series.labels)).or_default().push(series);
    }
    groups
}

/// All values of a group with the member they are of, by points.
fn by_points(members: &[Series]) -> Vec<(u32, usize, f64)> {
    let of = |(member, series): (usize, &Series)| {
        series.points.iter().map(|(point, value)| (*point, member, *value)).collect::<Vec<_>>()
    };
    let mut values: Vec<(u32, usize, f64)> = members.iter().enumerate().flat_map(of).collect();
    values.sort_by_key(|(point, ..)| *point);
    values
}

/// One series for each group.
pub(super) fn aggregated(op: AggregateOp, grouping: &Grouping, series: Vec<Series>) -> Vec<Series> {
    let group = |(labels, members): (Labels, Vec<Series>)| {
        let values = by_points(&members);
        let chunks = values.chunk_by(|a, b| a.0 == b.0);
        let value = |chunk: &[(u32, usize, f64)]| (chunk[0].0, fold(op, chunk.iter().map(|(.., value)| *value)));
        Series { labels, points: chunks.map(value).collect() }
    };
    groups(grouping, series).into_iter().map(group).collect()
}

/// Of at least one value.
fn fold(op: AggregateOp, values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    match op {
        AggregateOp::Count => count,
        AggregateOp::Min => values.fold(f64::NAN, least),
        AggregateOp::Max => values.fold(f64::NAN, most),
        AggregateOp::Sum | AggregateOp::Avg => {
            let mut sum = Sum::default();
            values.for_each(|value| sum.add(value));
            if op == AggregateOp::Avg { sum.value() / count } else { sum.value() }
        }
        AggregateOp::Stddev | AggregateOp::Stdvar => {
            let mut moments = Moments::default();
            values.for_each(|value| moments.add(value));
            if op == AggregateOp::Stddev { moments.variance().sqrt() } else { moments.variance() }
        }
        AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::ApproxTopk
        | AggregateOp::Sort
        | AggregateOp::SortDesc => unreachable!("these leave series as they are"),
    }
}

fn order(descending: bool, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if descending => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
    }
}

/// At each point the `count` largest or smallest values of each group, in their series. Of equal ones the series with
/// the smaller labels stays.
pub(super) fn extreme(count: u32, largest: bool, grouping: &Grouping, series: Vec<Series>) -> Vec<Series> {
    let mut kept = Vec::new();
    for mut members in groups(grouping, series).into_values() {
        members.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut values = by_points(&members);
        members.iter_mut().for_each(|member| member.points.clear());
        for chunk in values.chunk_by_mut(|a, b| a.0 == b.0) {
            chunk.sort_by(|a, b| order(largest, a.2, b.2));
            for (point, member, value) in chunk.iter().take(count as usize) {
                members[*member].points.push((*point, *value));
            }
        }
        kept.extend(super::some(members));
    }
    kept.sort_by(|a, b| a.labels.cmp(&b.labels));
    kept
}

/// Series of one point in the order of their values, and of their labels where those are equal.
pub(super) fn sorted(mut series: Vec<Series>, descending: bool) -> Vec<Series> {
    let value = |series: &Series| series.points.first().map_or(f64::NAN, |(_, value)| *value);
    series.sort_by(|a, b| order(descending, value(a), value(b)).then_with(|| a.labels.cmp(&b.labels)));
    series
}
