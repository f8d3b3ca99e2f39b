//! Folds against a plain walk over the same numbers.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

fn fold_all(keep: Keep, points: Points, window: i64, samples: &[Sample]) -> Folds {
    let mut folds = Folds::new();
    for sample in samples {
        let Some(run) = run(points, window, sample.timestamp) else { continue };
        folds.entry(run).and_modify(|fold| fold.add(*sample)).or_insert_with(|| Fold::new(keep, *sample));
    }
    folds
}

/// What a window of samples is, in the order of their keys.
fn plain(op: RangeOp, q: f64, window: i64, at: i64, samples: &[Sample]) -> Option<f64> {
    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    let (count, sum) = (values.len() as f64, values.iter().sum::<f64>());
    let variance = values.iter().map(|value| (value - sum / count).powi(2)).sum::<f64>() / count;
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (values.first()?, values.last()?);
    Some(match op {
        RangeOp::CountOverTime | RangeOp::BytesOverTime | RangeOp::BytesRate => return None,
        RangeOp::AbsentOverTime => 1.0,
        RangeOp::Rate => sum / (window as f64 / 1e9),
        RangeOp::SumOverTime => sum,
        RangeOp::AvgOverTime => sum / count,
        RangeOp::MinOverTime => sorted[0],
        RangeOp::MaxOverTime => sorted[sorted.len() - 1],
        RangeOp::FirstOverTime => *first,
        RangeOp::LastOverTime => *last,
        RangeOp::StddevOverTime => variance.sqrt(),
        RangeOp::StdvarOverTime => variance,
        RangeOp::QuantileOverTime => {
            let rank = q * (count - 1.0);
            let at = |rank: f64| sorted[rank as usize];
            at(rank.floor()) + (at(rank.ceil()) - at(rank.floor())) * rank.fract()
        }
        RangeOp::RateCounter => {
            let mut stretches = samples.iter().map(|sample| Stretch::new(*sample));
            let mut whole = stretches.next()?;
            stretches.for_each(|next| whole.go_on(&next));
            whole.rate(at, window)?
        }
    })
}

fn close(found: &[(u32, f64)], expected: &[(u32, f64)]) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0);
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && near(a.1, b.1))
}

fn sample() -> impl Strategy<Value = (i64, u32, f64)> {
    (-20..60_i64, 0_u32..3, -40..40_i32).prop_map(|(at, shard, value)| (at, shard, f64::from(value) / 8.0))
}

proptest! {
    #[test]
    fn a_run_is_the_points_whose_window_holds_a_time(
        (start, step, count) in (-50..50_i64, 1..9_i64, 1_u32..12),
        window in 1..40_i64,
        after in 1..200_i64,
    ) {
        let points = Points { start, step, count };
        let timestamp = start - window + after;
        if timestamp > points.end() {
            return Ok(());
        }
        let holds = |point: &u32| timestamp > points.at(*point) - window && timestamp <= points.at(*point);
        let expected: Vec<u32> = (0..count).filter(holds).collect();
        let found: Vec<u32> = run(points, window, timestamp).map_or(vec![], |(first, past)| (first..past).collect());
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn folds_are_the_same_in_whatever_order_and_split_and_those_of_a_plain_walk(
        numbers in prop::collection::vec(sample(), 0..40),
        order in Just((0..40_usize).collect::<Vec<_>>()).prop_shuffle(),
        parts in prop::collection::vec(0_usize..4, 40),
        part_order in Just((0..4_usize).collect::<Vec<_>>()).prop_shuffle(),
        op in prop::sample::select(RangeOp::ALL.to_vec()),
        q in 0.0..1.0_f64,
        (step, count, window) in (1..9_i64, 1_u32..12, 1..40_i64),
    ) {
        let Some(keep) = Keep::of(op) else { return Ok(()) };
        let points = Points { start: 0, step, count };
        let inside = |(at, ..): &&(i64, u32, f64)| *at > -window && *at <= points.end();
        let samples: Vec<Sample> = numbers
            .iter()
            .filter(inside)
            .zip(0..)
            .map(|(&(timestamp, shard, value), offset)| Sample { timestamp, shard, offset, value })
            .collect();
        let windows = Windows { op, parameter: Some(q), window, points };
        let whole = windows.folded(fold_all(keep, points, window, &samples));
        let shuffled: Vec<Sample> = order.iter().filter_map(|at| samples.get(*at)).copied().collect();
        let mut merged = Folds::new();
        for part in part_order {
            let own: Vec<Sample> =
                shuffled.iter().zip(&parts).filter(|(_, of)| **of == part).map(|(sample, _)| *sample).collect();
            for (run, fold) in fold_all(keep, points, window, &own) {
                merged.entry(run).and_modify(|held| held.merge(&fold)).or_insert(fold);
            }
        }
        prop_assert_eq!(windows.folded(merged), whole.clone());
        let mut sorted = samples;
        sorted.sort_by_key(Sample::key);
        let mut expected = Vec::new();
        for point in 0..count {
            let at = points.at(point);
            let inside = sorted.iter().filter(|sample| sample.timestamp > at - window && sample.timestamp <= at);
            let inside: Vec<Sample> = inside.copied().collect();
            expected.extend(plain(op, q, window, at, &inside).map(|value| (point, value)));
        }
        prop_assert!(close(&whole, &expected), "{whole:?} {expected:?}");
    }
}

fn at_one_point(op: RangeOp, parameter: Option<f64>, numbers: &[(i64, f64)]) -> Option<f64> {
    let points = Points { start: 60 * SECOND, step: SECOND, count: 1 };
    let samples: Vec<Sample> = numbers
        .iter()
        .zip(0..)
        .map(|((second, value), offset)| Sample { timestamp: second * SECOND, shard: 0, offset, value: *value })
        .collect();
    let folds = fold_all(Keep::of(op).unwrap(), points, 60 * SECOND, &samples);
    Windows { op, parameter, window: 60 * SECOND, points }.folded(folds).first().map(|(_, value)| *value)
}

#[test]
fn each_aggregation_is_what_its_name_says() {
    let numbers = [(10, 2.0), (20, 4.0), (30, 4.0), (35, 4.0), (40, 5.0), (45, 5.0), (50, 7.0), (55, 9.0)];
    for (op, parameter, expected) in [
        (RangeOp::SumOverTime, None, 40.0),
        (RangeOp::AvgOverTime, None, 5.0),
        (RangeOp::MinOverTime, None, 2.0),
        (RangeOp::MaxOverTime, None, 9.0),
        (RangeOp::FirstOverTime, None, 2.0),
        (RangeOp::LastOverTime, None, 9.0),
        (RangeOp::StddevOverTime, None, 2.0),
        (RangeOp::StdvarOverTime, None, 4.0),
        (RangeOp::QuantileOverTime, Some(0.5), 4.5),
        (RangeOp::QuantileOverTime, Some(1.0), 9.0),
        (RangeOp::QuantileOverTime, Some(2.0), f64::INFINITY),
        (RangeOp::Rate, None, 40.0 / 60.0),
        (RangeOp::AbsentOverTime, None, 1.0),
    ] {
        assert_eq!(at_one_point(op, parameter, &numbers), Some(expected), "{op:?}");
        assert_eq!(at_one_point(op, parameter, &[]), None, "{op:?}");
    }
}

#[test]
fn what_is_no_finite_number_is_kept_as_such() {
    let nan = [(10, f64::NAN), (20, 1.0)];
    assert_eq!(at_one_point(RangeOp::MinOverTime, None, &nan), Some(1.0));
    assert_eq!(at_one_point(RangeOp::MaxOverTime, None, &nan), Some(1.0));
    assert!(at_one_point(RangeOp::SumOverTime, None, &nan).unwrap().is_nan());
    assert!(at_one_point(RangeOp::StddevOverTime, None, &nan).unwrap().is_nan());
    assert!(at_one_point(RangeOp::MaxOverTime, None, &nan[..1]).unwrap().is_nan());
    let infinite = [(10, f64::INFINITY), (20, 1.0)];
    assert_eq!(at_one_point(RangeOp::AvgOverTime, None, &infinite), Some(f64::INFINITY));
}

#[test]
fn a_counter_begins_anew_and_is_extrapolated_to_the_edges_of_its_window() {
    let rate = |numbers: &[(i64, f64)]| at_one_point(RangeOp::RateCounter, None, numbers);
    // Every ten seconds, up to ten seconds before both edges.
    assert_eq!(rate(&[(10, 10.0), (20, 20.0), (30, 30.0), (40, 40.0), (50, 50.0)]), Some(1.0));
    // It falls to 5 after 30: the increase is 10 + 10 + 5 + 10 + 10.
    let found = rate(&[(10, 10.0), (20, 20.0), (30, 30.0), (40, 5.0), (50, 15.0), (60, 25.0)]).unwrap();
    assert!((found - 45.0 * (50.0 + 10.0) / 50.0 / 60.0).abs() < 1e-12, "{found}");
    // The edges are farther away than samples are apart: half that distance is added on each side.
    assert_eq!(rate(&[(28, 100.0), (32, 104.0)]), Some(8.0 / 60.0));
    // A counter that began at zero was not below it earlier.
    assert_eq!(rate(&[(28, 0.0), (32, 4.0)]), Some(6.0 / 60.0));
    assert_eq!(rate(&[(28, 1.0)]), None);
    assert_eq!(rate(&[(28, 1.0), (28, 7.0)]), None);
}

#[test]
fn counts_become_rates_and_absence_is_the_rest_of_the_points() {
    let points = Points { start: 0, step: SECOND, count: 4 };
    let windows = |op| Windows { op, parameter: None, window: 5 * SECOND, points };
    assert_eq!(windows(RangeOp::CountOverTime).counted(vec![(0, 10), (2, 5)]), [(0, 10.0), (2, 5.0)]);
    assert_eq!(windows(RangeOp::Rate).counted(vec![(0, 10)]), [(0, 2.0)]);
    assert_eq!(windows(RangeOp::BytesRate).counted(vec![(0, 10)]), [(0, 2.0)]);
    assert_eq!(windows(RangeOp::AbsentOverTime).absent([1, 3].into_iter()), [(0, 1.0), (2, 1.0)]);
    assert!(windows(RangeOp::AbsentOverTime).absent(0..4).is_empty());
}
