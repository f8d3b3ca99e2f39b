//! Range aggregations: what the shards make of the numbers in their records, and what becomes of it at each point.
//!
//! A record at time t is in the windows of a run of points, and later records are in those of later runs. Numbers with
//! one run are kept together in a [`Fold`], so that each number of a shard is kept once, however many windows overlap.
//! Folds of one run merge across shards in any order to the same; at a point all folds whose run holds it are joined.
//! This file does not know where numbers come from.

mod rank;
mod slide;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ast::RangeOp;
use super::exact::{Moments, Sum, least, most};
use super::plan::Points;
use rank::quantile;
use slide::slide;

/// What a sample of a counter takes in memory while a window slides over it, generously.
const STRETCH_BYTES: usize = 256;

/// The points whose windows a time is in: from the first, before the second.
pub type Run = (u32, u32);

/// The run of a time, at points with a window above zero; `None` where it is in no window. The time lies after the
/// first window's beginning and not after the last point.
pub fn run(points: Points, window: i64, timestamp: i64) -> Option<Run> {
    let Points { start, step, count } = points;
    let since = timestamp - start;
    let window = if mutant!(WindowHoldsItsStart) { window + 1 } else { window };
    let first = if since <= 0 { 0 } else { (since - 1) / step + 1 };
    let last = since.saturating_add(window - 1).div_euclid(step).min(i64::from(count) - 1);
    let point = |at: i64| u32::try_from(at).expect("between zero and the number of points");
    (first <= last).then(|| (point(first), point(last + 1)))
}

/// A number of a record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The record's time in nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its shard.
    pub shard: u32,
    /// Its offset there.
    pub offset: u64,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// Its place among all samples of a query.
    fn key(&self) -> (i64, u32, u64) {
        (self.timestamp, self.shard, self.offset)
    }
}

/// What is kept of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// That there is one.
    Presence,
    /// How many there are, and their sum.
    Sum,
    /// What their variance needs.
    Moments,
    /// The smallest.
    Least,
    /// The greatest.
    Most,
    /// The earliest.
    First,
    /// The latest.
    Last,
    /// All of them.
    Values,
    /// All of them, with their times.
    Samples,
}

impl Keep {
    /// What a range aggregation over unwrapped numbers needs; `None` where it takes records alone.
    pub fn of(op: RangeOp) -> Option<Self> {
        Some(match op {
            RangeOp::CountOverTime | RangeOp::BytesOverTime | RangeOp::BytesRate => return None,
            RangeOp::AbsentOverTime => Self::Presence,
            RangeOp::SumOverTime | RangeOp::AvgOverTime | RangeOp::Rate => Self::Sum,
            RangeOp::StddevOverTime | RangeOp::StdvarOverTime => Self::Moments,
            RangeOp::MinOverTime => Self::Least,
            RangeOp::MaxOverTime => Self::Most,
            RangeOp::FirstOverTime => Self::First,
            RangeOp::LastOverTime => Self::Last,
            RangeOp::QuantileOverTime => Self::Values,
            RangeOp::RateCounter => Self::Samples,
        })
    }
}

/// What is kept of some numbers with the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fold {
    /// There is one.
    Presence,
    /// How many there are, and their sum.
    Sum(u64, Sum),
    /// What their variance needs.
    Moments(Moments),
    /// The smallest.
    Least(f64),
    /// The greatest.
    Most(f64),
    /// The earliest.
    First(Sample),
    /// The latest.
    Last(Sample),
    /// All of them, in no order.
    Values(Vec<f64>),
    /// All of them, in no order.
    Samples(Vec<Sample>),
}

impl Fold {
    /// Of one number.
    pub fn new(keep: Keep, sample: Sample) -> Self {
        let value = sample.value;
        match keep {
            Keep::Presence => Self::Presence,
            Keep::Sum => {
                let mut sum = Sum::default();
                sum.add(value);
                Self::Sum(1, sum)
            }
            Keep::Moments => {
                let mut moments = Moments::default();
                moments.add(value);
                Self::Moments(moments)
            }
            Keep::Least => Self::Least(value),
            Keep::Most => Self::Most(value),
            Keep::First => Self::First(sample),
            Keep::Last => Self::Last(sample),
            Keep::Values => Self::Values(vec![value]),
            Keep::Samples => Self::Samples(vec![sample]),
        }
    }

    /// Of which kind it is.
    pub fn keep(&self) -> Keep {
        match self {
            Self::Presence => Keep::Presence,
            Self::Sum(..) => Keep::Sum,
            Self::Moments(_) => Keep::Moments,
            Self::Least(_) => Keep::Least,
            Self::Most(_) => Keep::Most,
            Self::First(_) => Keep::First,
            Self::Last(_) => Keep::Last,
            Self::Values(_) => Keep::Values,
            Self::Samples(_) => Keep::Samples,
        }
    }

    /// Adds one number to those it is of.
    pub fn add(&mut self, sample: Sample) {
        match self {
            Self::Presence => {}
            Self::Sum(count, sum) => {
                *count += 1;
                sum.add(sample.value);
            }
            Self::Moments(moments) => moments.add(sample.value),
            Self::Least(value) => *value = least(*value, sample.value),
            Self::Most(value) => *value = most(*value, sample.value),
            Self::First(held) => *held = earlier(*held, sample),
            Self::Last(held) => *held = later(*held, sample),
            Self::Values(held) => held.push(sample.value),
            Self::Samples(held) => held.push(sample),
        }
    }

    /// Joins another of the same kind; the order does not matter.
    ///
    /// # Panics
    /// Where the other is of another kind.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Presence, Self::Presence) => {}
            (Self::Sum(count, sum), Self::Sum(more, other)) => {
                *count = count.saturating_add(*more);
                sum.merge(other);
            }
            (Self::Moments(moments), Self::Moments(other)) => moments.merge(other),
            (Self::Least(value), Self::Least(other)) => *value = least(*value, *other),
            (Self::Most(value), Self::Most(other)) => *value = most(*value, *other),
            (Self::First(held), Self::First(other)) => *held = earlier(*held, *other),
            (Self::Last(held), Self::Last(other)) => *held = later(*held, *other),
            (Self::Values(held), Self::Values(other)) => held.extend(other),
            (Self::Samples(held), Self::Samples(other)) => held.extend(other),
            (
                Self::Presence
                | Self::Sum(..)
                | Self::Moments(_)
                | Self::Least(_)
                | Self::Most(_)
                | Self::First(_)
                | Self::Last(_)
                | Self::Values(_)
                | Self::Samples(_),
                other,
            ) => unreachable!("one request keeps one kind, not {:?}", other.keep()),
        }
    }

    /// What it takes in memory, its run included.
    pub fn bytes(&self) -> usize {
        // A map's node is at most half empty.
        2 * size_of::<(Run, Self)>()
            + match self {
                Self::Sum(_, sum) => sum.heap_bytes(),
                Self::Moments(moments) => moments.heap_bytes(),
                Self::Values(values) => values.capacity() * size_of::<f64>(),
                Self::Samples(samples) => samples.capacity() * STRETCH_BYTES,
                Self::Presence | Self::Least(_) | Self::Most(_) | Self::First(_) | Self::Last(_) => 0,
            }
    }

    /// Numbers that it keeps one by one.
    pub fn numbers(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Samples(samples) => samples.len(),
            Self::Presence
            | Self::Sum(..)
            | Self::Moments(_)
            | Self::Least(_)
            | Self::Most(_)
            | Self::First(_)
            | Self::Last(_) => 0,
        }
    }
}

fn earlier(a: Sample, b: Sample) -> Sample {
    if b.key() < a.key() { b } else { a }
}

fn later(a: Sample, b: Sample) -> Sample {
    if b.key() > a.key() { b } else { a }
}

/// The folds of one series.
pub type Folds = BTreeMap<Run, Fold>;

/// What a range aggregation is at its points.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Which aggregation.
    pub op: RangeOp,
    /// The quantile, where there is one.
    pub parameter: Option<f64>,
    /// The window in nanoseconds.
    pub window: i64,
    /// The points, moved by the offset.
    pub points: Points,
}

impl Windows {
    fn seconds(&self) -> f64 {
        self.window as f64 / 1e9
    }

    /// The values of a series of counts.
    pub fn counted(&self, counts: Vec<(u32, u64)>) -> Vec<(u32, f64)> {
        let value = |count: u64| if self.op.is_rate() { count as f64 / self.seconds() } else { count as f64 };
        counts.into_iter().map(|(point, count)| (point, value(count))).collect()
    }

    /// One at every point that is not among these.
    pub fn absent(&self, present: impl Iterator<Item = u32>) -> Vec<(u32, f64)> {
        let mut absent = vec![true; self.points.count as usize];
        present.for_each(|point| absent[point as usize] = false);
        (0..self.points.count).zip(absent).filter(|(_, absent)| *absent).map(|(point, _)| (point, 1.0)).collect()
    }

    /// The values of a series of unwrapped numbers, of the kind that the aggregation needs; of presences each is 1.
    pub fn folded(&self, folds: Folds) -> Vec<(u32, f64)> {
        let count = self.points.count;
        match self.op {
            RangeOp::QuantileOverTime => quantile(self.parameter.unwrap_or(f64::NAN), folds, count),
            RangeOp::RateCounter => self.rate_counter(folds),
            RangeOp::CountOverTime
            | RangeOp::Rate
            | RangeOp::BytesOverTime
            | RangeOp::BytesRate
            | RangeOp::SumOverTime
            | RangeOp::AvgOverTime
            | RangeOp::MinOverTime
            | RangeOp::MaxOverTime
            | RangeOp::FirstOverTime
            | RangeOp::LastOverTime
            | RangeOp::StddevOverTime
            | RangeOp::StdvarOverTime
            | RangeOp::AbsentOverTime => {
                let mut values = Vec::new();
                let join = |left: &mut Fold, right: &Fold| left.merge(right);
                slide(folds.into_iter().collect(), count, join, |point, fold| values.push((point, self.value(fold))));
                values
            }
        }
    }

    fn value(&self, fold: &Fold) -> f64 {
        match fold {
            Fold::Presence => 1.0,
            Fold::Sum(count, sum) => match self.op {
                RangeOp::Rate => sum.value() / self.seconds(),
                RangeOp::AvgOverTime => sum.value() / *count as f64,
                RangeOp::CountOverTime
                | RangeOp::RateCounter
                | RangeOp::BytesOverTime
                | RangeOp::BytesRate
                | RangeOp::SumOverTime
                | RangeOp::MinOverTime
                | RangeOp::MaxOverTime
                | RangeOp::FirstOverTime
                | RangeOp::LastOverTime
                | RangeOp::StddevOverTime
                | RangeOp::StdvarOverTime
                | RangeOp::QuantileOverTime
                | RangeOp::AbsentOverTime => sum.value(),
            },
            Fold::Moments(moments) if self.op == RangeOp::StddevOverTime => moments.variance().sqrt(),
            Fold::Moments(moments) => moments.variance(),
            Fold::Least(value) | Fold::Most(value) => *value,
            Fold::First(sample) | Fold::Last(sample) => sample.value,
            Fold::Values(_) | Fold::Samples(_) => unreachable!("all numbers are kept for quantiles and counters"),
        }
    }

    fn rate_counter(&self, folds: Folds) -> Vec<(u32, f64)> {
        let samples = |(run, fold): (Run, Fold)| match fold {
            Fold::Samples(samples) => samples.into_iter().map(|sample| (run, sample)).collect(),
            Fold::Presence
            | Fold::Sum(..)
            | Fold::Moments(_)
            | Fold::Least(_)
            | Fold::Most(_)
            | Fold::First(_)
            | Fold::Last(_)
            | Fold::Values(_) => Vec::new(),
        };
        let mut samples: Vec<(Run, Sample)> = folds.into_iter().flat_map(samples).collect();
        samples.sort_by_key(|(_, sample)| sample.key());
        let stretches = samples.into_iter().map(|(run, sample)| (run, Stretch::new(sample))).collect();
        let mut values = Vec::new();
        slide(stretches, self.points.count, Stretch::go_on, |point, stretch| {
            let at = self.points.at(point);
            values.extend(stretch.rate(at, self.window).map(|rate| (point, rate)));
        });
        values
    }
}

/// A counter from one of its samples to a later one.
#[derive(Clone, Debug)]
struct Stretch {
    first: Sample,
    last: Sample,
    count: u64,
    /// What it had reached each time it began anew.
    lost: Sum,
}

impl Stretch {
    fn new(sample: Sample) -> Self {
        Self { first: sample, last: sample, count: 1, lost: Sum::default() }
    }

    /// Adds the stretch that follows.
    fn go_on(&mut self, next: &Self) {
        if next.first.value < self.last.value {
            self.lost.add(self.last.value);
        }
        self.lost.merge(&next.lost);
        self.count += next.count;
        self.last = next.last;
    }

    /// Increase per second in the window that ends at `at`, as `rate` of Prometheus: extrapolated to the window's
    /// edges where they are no farther away than samples usually are apart, by half that distance otherwise, and never
    /// back to below zero. `None` of samples of a single moment.
    fn rate(&self, at: i64, window: i64) -> Option<f64> {
        let seconds = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1e9;
        let sampled = seconds(self.first.timestamp, self.last.timestamp);
        if sampled == 0.0 {
            return None;
        }
        let mut increase = self.lost.clone();
        increase.add(self.last.value);
        increase.add(-self.first.value);
        let increase = increase.value();
        let apart = sampled / (self.count - 1) as f64;
        let reached = |distance: f64| if distance >= apart * 1.1 { apart / 2.0 } else { distance };
        let mut before = reached(seconds(at.saturating_sub(window), self.first.timestamp));
        if increase > 0.0 && self.first.value >= 0.0 {
            before = before.min(sampled * (self.first.value / increase));
        }
        let after = reached(seconds(self.last.timestamp, at));
        Some(increase * ((sampled + before + after) / sampled / (window as f64 / 1e9)))
    }
}

#[cfg(test)]
mod tests;
