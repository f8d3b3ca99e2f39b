//! Quantiles of sliding windows: all numbers of a series are ranked once, and a tree of counts says which rank is the
//! n-th in the window.

use std::cmp::Ordering;

use super::{Fold, Folds, Run};

/// Which of a fixed number of ranks are present, as a Fenwick tree: node n counts those of the ranks below n whose
/// number differs from it in its lowest bit alone.
struct Present {
    nodes: Vec<u32>,
}

impl Present {
    fn set(&mut self, rank: usize, present: bool) {
        let mut node = rank + 1;
        while node < self.nodes.len() {
            if present {
                self.nodes[node] += 1
            } else {
                self.nodes[node] -= 1
            }
            node += node & node.wrapping_neg();
        }
    }

    /// The rank that has `before` present ranks below it; more are present than that.
    fn nth(&self, mut before: u32) -> usize {
        let mut below = 0;
        let mut stride = self.nodes.len().next_power_of_two();
        while stride > 0 {
            if let Some(count) = self.nodes.get(below + stride).filter(|count| **count <= before) {
                before -= count;
                below += stride;
            }
            stride /= 2;
        }
        below
    }
}

/// As quantiles order numbers: NaN comes first.
fn order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.total_cmp(&b),
    }
}

/// The quantile `q` at each point that has a number: between the two nearest ranks in proportion. Below 0 it is -Inf,
/// above 1 +Inf.
pub(super) fn quantile(q: f64, folds: Folds, points: u32) -> Vec<(u32, f64)> {
    let mut runs: Vec<Run> = Vec::new();
    let mut values: Vec<f64> = Vec::new();
    for (run, fold) in folds {
        let Fold::Values(held) = fold else { continue };
        runs.resize(runs.len() + held.len(), run);
        values.extend(held);
    }
    let count = u32::try_from(values.len()).expect("bounded by QUERY_NUMBERS_MAX");
    let mut sorted: Vec<u32> = (0..count).collect();
    sorted.sort_unstable_by(|a, b| order(values[*a as usize], values[*b as usize]).then(a.cmp(b)));
    let mut ranks = vec![0; values.len()];
    (0..count).zip(&sorted).for_each(|(rank, at)| ranks[*at as usize] = rank);
    let mut present = Present { nodes: vec![0; values.len() + 1] };
    let (mut entered, mut left) = (0, 0);
    let mut found = Vec::new();
    for point in 0..points {
        while runs.get(entered).is_some_and(|(first, _)| *first <= point) {
            present.set(ranks[entered] as usize, true);
            entered += 1;
        }
        while left < entered && runs[left].1 <= point {
            present.set(ranks[left] as usize, false);
            left += 1;
        }
        let nth = |before: u32| values[sorted[present.nth(before)] as usize];
        if let Some(last) = (entered - left).checked_sub(1) {
            found.push((point, between(q, u32::try_from(last).expect("bounded by QUERY_NUMBERS_MAX"), nth)));
        }
    }
    found
}

/// The quantile of numbers of which `nth` gives the one with so many before it, up to `last`.
fn between(q: f64, last: u32, nth: impl Fn(u32) -> f64) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * f64::from(last);
    let weight = rank - rank.floor();
    let lower = rank.floor() as u32;
    nth(lower) * (1.0 - weight) + nth((lower + 1).min(last)) * weight
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_that_of_the_sorted_window(
            steps in prop::collection::vec((0_u32..3, 0_u32..3, prop::collection::vec(-9..9_i32, 1..4)), 0..20),
            q in -0.1..1.1_f64,
            points in 0_u32..20,
        ) {
            let (mut first, mut past) = (0, 1);
            let mut folds = Folds::new();
            for (begin, end, numbers) in steps {
                first += begin;
                past = (past + end).max(first + 1);
                let numbers = numbers.iter().map(|number| f64::from(*number) / 2.0).collect();
                folds.insert((first, past), Fold::Values(numbers));
            }
            let found = quantile(q, folds.clone(), points);
            let mut expected = Vec::new();
            for point in 0..points {
                let inside = folds.iter().filter(|((first, past), _)| (*first..*past).contains(&point));
                let mut values: Vec<f64> = Vec::new();
                for (_, fold) in inside {
                    let Fold::Values(held) = fold else { unreachable!() };
                    values.extend(held);
                }
                values.sort_by(f64::total_cmp);
                if !values.is_empty() {
                    let last = values.len() as u32 - 1;
                    expected.push((point, between(q, last, |at| values[at as usize])));
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_quantile_lies_between_ranks_and_outside_them_is_infinite() {
        let values = [f64::NAN, 1.0, 2.0, 4.0];
        let of = |q, from: usize| between(q, (values.len() - from) as u32 - 1, |at| values[at as usize + from]);
        assert_eq!((of(0.0, 1), of(0.5, 1), of(0.75, 1), of(1.0, 1)), (1.0, 2.0, 3.0, 4.0));
        assert_eq!((of(-0.1, 1), of(1.1, 1)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(of(0.1, 0).is_nan() && of(f64::NAN, 1).is_nan());
        assert_eq!(order(f64::NAN, f64::NEG_INFINITY), Ordering::Less);
    }
}
