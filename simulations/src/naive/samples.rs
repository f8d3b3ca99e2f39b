//! A window's samples and what a range aggregation makes of them.

use std::collections::BTreeMap;

use millpond::query::ast::{Grouping, MatchOp, RangeExpr, RangeOp};

use super::pipeline::Entry;
use super::{Failure, Record, Set};

/// One record as a range aggregation takes it.
pub(super) struct Sample {
    timestamp: i64,
    place: (u32, u64),
    series: Set,
    /// The unwrapped number, or one.
    value: f64,
    bytes: f64,
    failed: bool,
}

/// Every record that passes, in the order of time.
pub(super) fn samples(records: &[&Record], range: &RangeExpr) -> Vec<Sample> {
    let sample = |record: &Record| {
        let mut entry = Entry::select(record, &range.logs)?;
        let value = match &range.unwrap {
            Some(unwrap) => entry.unwrap(unwrap)?,
            None => 1.0,
        };
        let series = range.grouping.as_ref().map_or_else(|| entry.labels(), |by| grouped(by, &entry.labels()));
        let (timestamp, place, bytes) = (record.timestamp, record.place, entry.line.len() as f64);
        Some(Sample { timestamp, place, series, value, bytes, failed: entry.has_error() })
    };
    let mut samples: Vec<Sample> = records.iter().copied().filter_map(sample).collect();
    samples.sort_by_key(|sample| (sample.timestamp, sample.place));
    samples
}

/// The labels that tell a group apart.
pub(super) fn grouped(grouping: &Grouping, labels: &Set) -> Set {
    let mut labels = labels.clone();
    match grouping {
        Grouping::By(names) => labels.retain(|name, _| names.contains(name)),
        Grouping::Without(names) => labels.retain(|name, _| !names.contains(name)),
    }
    labels
}

/// The series at one time.
pub(super) fn ranged(range: &RangeExpr, samples: &[Sample], time: i64) -> Result<Vec<(Set, f64)>, Failure> {
    let end = time - range.offset;
    let window = (end - range.window, end);
    let mut series: BTreeMap<Set, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.timestamp > window.0 && sample.timestamp <= window.1) {
        if sample.failed {
            return Err(Failure::Pipeline);
        }
        series.entry(sample.series.clone()).or_default().push(sample);
    }
    if range.op == RangeOp::AbsentOverTime {
        return Ok(if series.is_empty() { vec![(absent(range), 1.0)] } else { Vec::new() });
    }
    let value = |(labels, inside): (Set, Vec<&Sample>)| Some((labels, value(range, &inside, window)?));
    Ok(series.into_iter().filter_map(value).collect())
}

/// What the selector says of every stream it would have found, as in Prometheus: a name that comes once, with `=`.
fn absent(range: &RangeExpr) -> Set {
    let matchers = &range.logs.matchers;
    let once = matchers.iter().filter(|one| matchers.iter().filter(|other| other.name == one.name).count() == 1);
    let equal = once.filter(|matcher| matcher.op == MatchOp::Equal && !matcher.value.is_empty());
    equal.map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect()
}

/// The number of a series with at least one sample in the window.
fn value(range: &RangeExpr, inside: &[&Sample], window: (i64, i64)) -> Option<f64> {
    let seconds = range.window as f64 / 1e9;
    let values: Vec<f64> = inside.iter().map(|sample| sample.value).collect();
    let (count, sum): (f64, f64) = (values.len() as f64, values.iter().sum());
    let bytes: f64 = inside.iter().map(|sample| sample.bytes).sum();
    let variance = || {
        let mean = sum / count;
        values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
    };
    Some(match range.op {
        RangeOp::CountOverTime => count,
        // Of the records themselves each counts one.
        RangeOp::Rate => sum / seconds,
        RangeOp::RateCounter => return counter(inside, window).map(|increase| increase / seconds),
        RangeOp::BytesOverTime => bytes,
        RangeOp::BytesRate => bytes / seconds,
        RangeOp::SumOverTime => sum,
        RangeOp::AvgOverTime => sum / count,
        RangeOp::MinOverTime => values.iter().copied().fold(f64::NAN, f64::min),
        RangeOp::MaxOverTime => values.iter().copied().fold(f64::NAN, f64::max),
        RangeOp::FirstOverTime => values[0],
        RangeOp::LastOverTime => values[values.len() - 1],
        RangeOp::StddevOverTime => variance().sqrt(),
        RangeOp::StdvarOverTime => variance(),
        RangeOp::QuantileOverTime => quantile(range.parameter.expect("a quantile has one"), &values),
        RangeOp::AbsentOverTime => return None,
    })
}

/// Between the two nearest ranks, in proportion.
fn quantile(share: f64, values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if !(0.0..=1.0).contains(&share) {
        return if share < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let rank = share * (sorted.len() - 1) as f64;
    let (below, weight) = (rank.floor() as usize, rank - rank.floor());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] * (1.0 - weight) + sorted[above] * weight
}

/// The increase of a counter over the window, as `rate` of Prometheus has it: what lies between the samples is carried on
/// to the ends of the window, by half a distance between two of them where an end is further away than a sample would
/// be, and never below zero. A counter that falls has begun anew. One sample has no increase.
fn counter(inside: &[&Sample], (start, end): (i64, i64)) -> Option<f64> {
    let (first, last) = (inside.first()?, inside.last()?);
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e9;
    let sampled = seconds(first.timestamp, last.timestamp);
    if sampled == 0.0 {
        return None;
    }
    let steps = inside.windows(2).map(|pair| (pair[0].value, pair[1].value));
    let increase: f64 = steps.map(|(old, new)| if new < old { new } else { new - old }).sum();
    let between = sampled / (inside.len() - 1) as f64;
    let carried = |distance: f64| if distance >= between * 1.1 { between / 2.0 } else { distance };
    let mut before = carried(seconds(start, first.timestamp));
    if increase > 0.0 && first.value >= 0.0 {
        before = before.min(sampled * (first.value / increase));
    }
    Some(increase * (sampled + before + carried(seconds(last.timestamp, end))) / sampled)
}
