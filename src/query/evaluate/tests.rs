//! Tables of what expressions give, mostly the examples of the documentation of Loki and Prometheus.

use super::*;
use crate::query::ast::Expr;
use crate::query::parser;

/// Labels as `a=1,b=2`, values by point; NaN stands for a point without a value.
type Given = (&'static str, &'static [f64]);

const NONE: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn series((labels, values): &Given) -> Series {
    let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
    let points = (0..).zip(values.iter().copied()).filter(|(_, value)| !value.is_nan());
    Series { labels: Labels::new(labels), points: points.collect() }
}

fn evaluated(text: &str, instant: bool, ranges: &[&[Given]]) -> Result<Value, QueryError> {
    let count = ranges.iter().flat_map(|range| range.iter()).map(|(_, values)| values.len()).max().unwrap_or(1);
    let points = Points { start: 0, step: 1, count: count as u32 };
    // `X` and `Y` are range expressions.
    let text = text.replace('X', "count_over_time({x=\"x\"}[1s])").replace('Y', "count_over_time({y=\"y\"}[1s])");
    let Expr::Metric(expr) = parser::parse(&text).unwrap() else { panic!("{text} is a metric") };
    let mut ranges = ranges.iter().map(|range| range.iter().map(series).collect::<Vec<_>>());
    When { points, instant }.evaluate(&expr, &mut ranges)
}

#[track_caller]
fn gives(text: &str, ranges: &[&[Given]], expected: &[Given]) {
    let mut expected: Vec<Series> = expected.iter().map(series).collect();
    expected.sort_by(|a, b| a.labels.cmp(&b.labels));
    assert_eq!(evaluated(text, false, ranges), Ok(Value::Vector(expected)), "{text}");
}

#[track_caller]
fn refuses(text: &str, ranges: &[&[Given]]) -> String {
    evaluated(text, false, ranges).expect_err(text).to_string()
}

fn scalar(text: &str) -> f64 {
    let Ok(Value::Scalar(value)) = evaluated(text, true, &[]) else { panic!("{text} is a scalar") };
    value
}

const ERRORS: &[Given] = &[
    ("method=get,code=404", &[30.0]),
    ("method=get,code=500", &[24.0]),
    ("method=post,code=404", &[21.0]),
    ("method=post,code=500", &[6.0]),
    ("method=put,code=501", &[3.0]),
];
const REQUESTS: &[Given] = &[("method=del", &[34.0]), ("method=get", &[600.0]), ("method=post", &[120.0])];

#[test]
fn numbers_are_computed_as_written() {
    for (text, expected) in [
        ("1 + 1", 2.0),
        ("1 + 2 / 4", 1.5),
        ("2 * 3 % 4", 2.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-7 % 3", -1.0),
        ("1 >= 1", 1.0),
        ("1 == 2", 0.0),
        ("3 != 2", 1.0),
    ] {
        assert_eq!(scalar(text), expected, "{text}");
    }
    assert!(scalar("1 / 0").is_nan() && scalar("0 / 0").is_nan() && scalar("1 % 0").is_nan());
}

#[test]
fn a_number_is_applied_to_every_point() {
    let given: &[Given] = &[("a=1", &[1.0, NONE, 3.0]), ("a=2", &[4.0, 5.0, 6.0])];
    gives("X * 2", &[given], &[("a=1", &[2.0, NONE, 6.0]), ("a=2", &[8.0, 10.0, 12.0])]);
    gives("12 / X", &[given], &[("a=1", &[12.0, NONE, 4.0]), ("a=2", &[3.0, 2.4, 2.0])]);
    gives("vector(1) + vector(1)", &[], &[("", &[2.0])]);
    gives("X - X", &[given, given], &[("a=1", &[0.0, NONE, 0.0]), ("a=2", &[0.0, 0.0, 0.0])]);
}

#[test]
fn a_comparison_filters_and_with_bool_is_zero_or_one() {
    let given: &[Given] = &[("a=1", &[1.0, NONE, 3.0]), ("a=2", &[4.0, 5.0, 6.0])];
    gives("X > 3", &[given], &[("a=2", &[4.0, 5.0, 6.0])]);
    gives("X >= 3", &[given], &[("a=1", &[NONE, NONE, 3.0]), ("a=2", &[4.0, 5.0, 6.0])]);
    gives("4 < X", &[given], &[("a=2", &[NONE, 5.0, 6.0])]);
    gives("X > bool 3", &[given], &[("a=1", &[0.0, NONE, 0.0]), ("a=2", &[1.0, 1.0, 1.0])]);
    gives("3 == bool X", &[given], &[("a=1", &[0.0, NONE, 1.0]), ("a=2", &[0.0, 0.0, 0.0])]);
    let other: &[Given] = &[("a=1", &[0.0, 9.0, 9.0]), ("a=3", &[0.0, 0.0, 0.0])];
    gives("X > Y", &[given, other], &[("a=1", &[1.0])]);
    gives("X > bool Y", &[given, other], &[("a=1", &[1.0, NONE, 0.0])]);
}

#[test]
fn vectors_meet_by_their_labels() {
    gives("X / Y", &[ERRORS, REQUESTS], &[]);
    let of_500: &[Given] = &[ERRORS[1], ERRORS[3]];
    gives("X / ignoring(code) Y", &[of_500, REQUESTS], &[("method=get", &[0.04]), ("method=post", &[0.05])]);
    gives("X / on(method) Y", &[of_500, REQUESTS], &[("method=get", &[0.04]), ("method=post", &[0.05])]);
    let shares: &[Given] = &[
        ("method=get,code=404", &[0.05]),
        ("method=get,code=500", &[0.04]),
        ("method=post,code=404", &[0.175]),
        ("method=post,code=500", &[0.05]),
    ];
    gives("X / ignoring(code) group_left Y", &[ERRORS, REQUESTS], shares);
    let reverse: &[Given] = &[
        ("method=get,code=404", &[20.0]),
        ("method=get,code=500", &[25.0]),
        ("method=post,code=404", &[120.0 / 21.0]),
        ("method=post,code=500", &[20.0]),
    ];
    gives("X / on(method) group_right Y", &[REQUESTS, ERRORS], reverse);
    gives("X / on() Y", &[&[("a=1", &[3.0])], &[("", &[4.0])]], &[("", &[0.75])]);
}

#[test]
fn group_left_and_group_right_take_labels_from_the_one_side() {
    let costs: &[Given] = &[("user=bar,org=big", &[70.0]), ("user=foo,org=little", &[10.0])];
    let events: &[Given] =
        &[("user=bar,namespace=dev", &[1.0]), ("user=foo,namespace=dev", &[1.0]), ("user=foo,namespace=prod", &[5.0])];
    let expected: &[Given] = &[
        ("user=bar,namespace=dev,org=big", &[70.0]),
        ("user=foo,namespace=dev,org=little", &[10.0]),
        ("user=foo,namespace=prod,org=little", &[50.0]),
    ];
    gives("X * on(user) group_left(org) Y", &[events, costs], expected);
    gives("X * on(user) group_right(org) Y", &[costs, events], expected);
    // The one side changes over time, and what it does not have goes.
    let one: &[Given] = &[("a=1,o=x", &[1.0, NONE]), ("a=1", &[NONE, 2.0])];
    let many: &[Given] = &[("a=1,b=1,o=old", &[1.0, 1.0])];
    let expected: &[Given] = &[("a=1,b=1", &[NONE, 2.0]), ("a=1,b=1,o=x", &[1.0])];
    gives("X * on(a) group_left(o) Y", &[many, one], expected);
    // A comparison keeps the number of the left side, whichever side is many.
    gives("X < on(a) group_right Y", &[&[("a=1", &[1.0])], &[("a=1,b=1", &[2.0])]], &[("a=1,b=1", &[1.0])]);
}

#[test]
fn what_does_not_meet_one_to_one_is_refused() {
    let refused = refuses("X / on(method) group_left Y", &[REQUESTS, ERRORS]);
    assert_eq!(
        refused,
        "found duplicate series for the match group {method=\"get\"} on the right hand-side of the operation: \
         [{code=\"500\", method=\"get\"}, {code=\"404\", method=\"get\"}];many-to-many matching not allowed: matching \
         labels must be unique on one side"
    );
    assert!(refuses("X / on(method) group_right Y", &[ERRORS, REQUESTS]).contains("on the left hand-side"));
    let refused = refuses("X / ignoring(code) Y", &[ERRORS, REQUESTS]);
    assert_eq!(refused, "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)");
    let many: &[Given] = &[("a=1,b=1", &[1.0]), ("a=1,b=2", &[1.0])];
    let refused = refuses("X * on(a) group_left(b) Y", &[many, &[("a=1,b=3", &[1.0])]]);
    assert_eq!(refused, "multiple matches for labels: grouping labels must ensure unique matches");
    // At different points they do not meet.
    let many: &[Given] = &[("a=1,b=1", &[1.0, NONE]), ("a=1,b=2", &[NONE, 2.0])];
    gives("X * on(a) Y", &[many, &[("a=1", &[3.0, 4.0])]], &[("a=1", &[3.0, 8.0])]);
}

#[test]
fn sets_are_made_point_by_point() {
    let left: &[Given] = &[("a=1", &[1.0, 1.0, NONE]), ("a=2", &[2.0, 2.0, 2.0])];
    let right: &[Given] = &[("a=1", &[5.0, NONE, 5.0]), ("a=3", &[6.0, 6.0, 6.0])];
    gives("X and Y", &[left, right], &[("a=1", &[1.0])]);
    gives("X unless Y", &[left, right], &[("a=1", &[NONE, 1.0]), ("a=2", &[2.0, 2.0, 2.0])]);
    let union: &[Given] = &[("a=1", &[1.0, 1.0, 5.0]), ("a=2", &[2.0, 2.0, 2.0]), ("a=3", &[6.0, 6.0, 6.0])];
    gives("X or Y", &[left, right], union);
    gives("X and on() Y", &[left, &[("b=1", &[NONE, 0.0, NONE])]], &[("a=1", &[NONE, 1.0]), ("a=2", &[NONE, 2.0])]);
    let ignoring: &[Given] = &[("a=1,b=2", &[0.0])];
    gives("X unless ignoring(b) Y", &[&[("a=1,b=1", &[1.0]), ("a=2,b=1", &[2.0])], ignoring], &[("a=2,b=1", &[2.0])]);
    gives("sum(X) or vector(0)", &[&[("a=1", &[NONE, 3.0])]], &[("", &[0.0, 3.0])]);
    gives("X or on(z) Y", &[&[], right], right);
}

#[test]
fn aggregations_make_one_series_of_each_group() {
    let given: &[Given] = &[("app=a,pod=1", &[2.0, 1.0]), ("app=a,pod=2", &[4.0, NONE]), ("app=b,pod=3", &[INF, NONE])];
    for (op, a, b) in [
        ("sum", [6.0, 1.0], INF),
        ("avg", [3.0, 1.0], INF),
        ("min", [2.0, 1.0], INF),
        ("max", [4.0, 1.0], INF),
        ("count", [2.0, 1.0], 1.0),
    ] {
        let expected = [("app=a", a.to_vec()), ("app=b", vec![b])].map(|(labels, values)| Series {
            labels: Labels::new(labels.split_once('=')),
            points: (0..).zip(values).collect(),
        });
        for grouping in ["by (app)", "without (pod)"] {
            let found = evaluated(&format!("{op} {grouping} (X)"), false, &[given]);
            assert_eq!(found, Ok(Value::Vector(expected.to_vec())), "{op} {grouping}");
        }
    }
    gives("sum(X)", &[&given[..2]], &[("", &[6.0, 1.0])]);
    gives("sum by (nothing) (X)", &[&given[..2]], &[("", &[6.0, 1.0])]);
    gives("stddev(X)", &[&given[..2]], &[("", &[1.0, 0.0])]);
    gives("stdvar by () (X)", &[&given[..2]], &[("", &[1.0, 0.0])]);
    gives("max without () (X)", &[&given[..2]], &given[..2]);
    gives("sum(X)", &[&[]], &[]);
}

#[test]
fn the_largest_and_smallest_are_found_at_each_point() {
    let given: &[Given] =
        &[("a=1,g=x", &[1.0, 9.0]), ("a=2,g=x", &[2.0, 2.0]), ("a=3,g=y", &[3.0, NONE]), ("a=4,g=y", &[3.0, 1.0])];
    let expected: &[Given] =
        &[("a=1,g=x", &[NONE, 9.0]), ("a=2,g=x", &[NONE, 2.0]), ("a=3,g=y", &[3.0]), ("a=4,g=y", &[3.0])];
    gives("topk(2, X)", &[given], expected);
    gives("approx_topk(2, X)", &[given], expected);
    gives("bottomk(1, X)", &[given], &[("a=1,g=x", &[1.0]), ("a=4,g=y", &[NONE, 1.0])]);
    gives(
        "topk by (g) (1, X)",
        &[given],
        &[("a=1,g=x", &[NONE, 9.0]), ("a=2,g=x", &[2.0]), ("a=3,g=y", &[3.0]), ("a=4,g=y", &[NONE, 1.0])],
    );
    gives("topk(9, X)", &[given], given);
}

#[test]
fn nan_is_the_last_in_every_order() {
    // 1 / 0 is NaN.
    let given: &[Given] = &[("a=1", &[0.0]), ("a=2", &[1.0]), ("a=3", &[2.0])];
    gives("topk(2, 1 / X)", &[given], &[("a=2", &[1.0]), ("a=3", &[0.5])]);
    gives("bottomk(2, 1 / X)", &[given], &[("a=2", &[1.0]), ("a=3", &[0.5])]);
    gives("min(1 / X)", &[given], &[("", &[0.5])]);
    gives("max(1 / X)", &[given], &[("", &[1.0])]);
    gives("count(1 / X)", &[given], &[("", &[3.0])]);
    gives("1 / X > 0", &[given], &[("a=2", &[1.0]), ("a=3", &[0.5])]);
    let Ok(Value::Vector(found)) = evaluated("sum(1 / X)", false, &[given]) else { panic!("a vector") };
    assert!(found[0].points[0].1.is_nan());
    for sort in ["sort", "sort_desc"] {
        let Ok(Value::Vector(found)) = evaluated(&format!("{sort}(1 / X)"), true, &[given]) else { panic!("a vector") };
        assert_eq!(found[2].labels, series(&given[0]).labels, "{sort}");
    }
}

#[test]
fn values_are_sorted_at_an_instant_alone() {
    let given: &[Given] = &[("a=1", &[2.0]), ("a=2", &[3.0]), ("a=3", &[1.0]), ("a=4", &[2.0])];
    let order = |text: &str, instant| match evaluated(text, instant, &[given]) {
        Ok(Value::Vector(series)) => series.iter().map(|series| series.labels.get("a").unwrap().to_owned()).collect(),
        Ok(Value::Scalar(_)) | Err(_) => String::new(),
    };
    assert_eq!(order("sort(X)", true), "3142");
    assert_eq!(order("sort_desc(X)", true), "2143");
    assert_eq!(order("sort_desc(X) * 2", true), "2143");
    assert_eq!(order("sort(X)", false), "1234");
}

#[test]
fn a_label_is_replaced_where_the_expression_matches() {
    let given: &[Given] = &[("job=api,service=a:c", &[1.0]), ("job=api,service=none", &[2.0])];
    let expected: &[Given] = &[("job=api,service=a:c,foo=a", &[1.0]), ("job=api,service=none", &[2.0])];
    gives("label_replace(X, \"foo\", \"$1\", \"service\", \"(.*):.*\")", &[given], expected);
    let refused = refuses("label_replace(X, \"service\", \"\", \"job\", \".*\")", &[given]);
    assert_eq!(refused, "vector cannot contain metrics with the same labelset: {job=\"api\"}");
    // At different points they become one series.
    let apart: &[Given] = &[("a=1", &[1.0, NONE]), ("a=2", &[NONE, 2.0])];
    gives("label_replace(X, \"a\", \"\", \"a\", \".*\")", &[apart], &[("", &[1.0, 2.0])]);
}
