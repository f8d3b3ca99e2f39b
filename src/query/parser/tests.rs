//! The parser: expressions that are read and refused, and trees that are written and read back. `PROPTEST_CASES` makes
//! each property run for as long as one likes.

use proptest::prelude::*;

use super::super::ast::*;
use super::*;

fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// What stands behind the place of a refusal.
fn cause(text: &str) -> String {
    let refusal = refusal(text);
    refusal.split_once(": ").expect("a place stands first").1.to_owned()
}

fn stages(text: &str) -> Vec<Stage> {
    let Expr::Logs(logs) = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) else {
        panic!("a log query: {text}")
    };
    logs.stages
}

fn metric_of(text: &str) -> MetricExpr {
    let Expr::Metric(metric) = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) else {
        panic!("a metric query: {text}")
    };
    metric
}

#[test]
fn a_health_check_is_read() {
    let vector = || Box::new(MetricExpr::Vector(1.0));
    let MetricExpr::Binary { op: BinaryOp::Add, left, right, .. } = metric_of("vector(1)+vector(1)") else {
        panic!("a sum")
    };
    assert_eq!((left, right), (vector(), vector()));
}

#[test]
fn every_construct_has_one_way_to_be_written() {
    for (text, canonical) in [
        ("{foo=   \"bar\"}", "{foo=\"bar\"}"),
        ("{app=\"a\",b!~`x.*`,}", "{app=\"a\", b!~\"x.*\"}"),
        ("((({a=\"b\"})))", "{a=\"b\"}"),
        (
            "{a=\"b\"} |= \"x\" or `y` != \"z\\n\" # why\n |~ \"e+\"",
            "{a=\"b\"} |= \"x\" or \"y\" != \"z\\n\" |~ \"e+\"",
        ),
        ("{a=`b`}|>`<_> x`!>`y`", "{a=\"b\"} |> \"<_> x\" !> \"y\""),
        ("{a=`b`}!=ip(`10.0.0.0/8`)or`x`or ip(\"::1\")", "{a=\"b\"} != ip(\"10.0.0.0/8\") or \"x\" or ip(\"::1\")"),
        ("{a=`b`}|JSON|Json x, y=`z[0].a`", "{a=\"b\"} | json | json x, y=\"z[0].a\""),
        (
            "{a=`b`} | logfmt --keep-empty --strict x,y=\"z\" | logfmt",
            "{a=\"b\"} | logfmt --strict --keep-empty x, y=\"z\" | logfmt",
        ),
        (
            "{a=`b`} | pattern `<x> -` | regexp `(?P<y>.)` | unpack | decolorize",
            "{a=\"b\"} | pattern \"<x> -\" | regexp \"(?P<y>.)\" | unpack | decolorize",
        ),
        (
            "{a=`b`}|line_format`{{.x}}`|label_format x=y,z=`{{.x}}`",
            "{a=\"b\"} | line_format \"{{.x}}\" | label_format x=y, z=\"{{.x}}\"",
        ),
        ("{a=`b`}|drop x,y=~`z`,__error__|keep x,y!=`z`", "{a=\"b\"} | drop x, y=~\"z\", __error__ | keep x, y!=\"z\""),
        ("rate({a=\"b\"}[5m] |= \"x\")", "rate({a=\"b\"} |= \"x\" [5m])"),
        ("rate(({a=\"b\"} |= \"x\")[90s] offset -5m)", "rate({a=\"b\"} |= \"x\" [1m30s] offset -5m)"),
        ("sum(count_over_time({a=\"b\"}[1h30m])) by (d, c, d)", "sum by (c, d) (count_over_time({a=\"b\"} [1h30m]))"),
        (
            "quantile_over_time(.99,{a=`b`}[1w]|json|unwrap duration(x)|__error__=``)without(y)",
            "quantile_over_time(0.99, {a=\"b\"} | json | unwrap duration(x) | __error__=\"\" [7d]) without (y)",
        ),
        ("TopK(5,rate({a=`b`}[1s]))", "topk(5, rate({a=\"b\"} [1s]))"),
        ("sort_desc(vector(1))", "sort_desc(vector(1))"),
        ("1 - 2 - 3 * 4 ^ 5 ^ 6", "1 - 2 - 3 * 4 ^ 5 ^ 6"),
        ("1 - (2 - 3) * (4 ^ 5) ^ 6", "1 - (2 - 3) * (4 ^ 5) ^ 6"),
        ("-1 + +2 - .5e3 * 0x10", "-1 + 2 - 500 * 16"),
        (
            "vector(1) > bool on (b, a,) group_left vector(2) or vector(3) unless ignoring () vector(4)",
            "vector(1) > bool on (a, b) group_left () vector(2) or vector(3) unless vector(4)",
        ),
        ("vector(1) * ignoring () group_right (c) vector(2)", "vector(1) * ignoring () group_right (c) vector(2)"),
        (
            "label_replace(vector(1),`to`,`$1`,`from`,`(.*):.*`)",
            "label_replace(vector(1), \"to\", \"$1\", \"from\", \"(.*):.*\")",
        ),
    ] {
        assert_eq!(format_query(text).unwrap_or_else(|error| panic!("{text}: {error}")), canonical);
        assert_eq!(parse(canonical).unwrap(), parse(text).unwrap());
    }
}

#[test]
fn label_filters_bind_as_documented() {
    let filter = |text: &str| match &stages(&format!("{{a=`b`}} | {text}"))[..] {
        [Stage::Labels(filter)] => filter.clone(),
        stages => panic!("{text}: {stages:?}"),
    };
    let documented = filter("duration >= 20ms or (size == 20KB and method!~\"2..\")");
    for same in [
        "duration >= 20ms or size == 20KB and method!~\"2..\"",
        "duration >= 20ms or size == 20KB , method!~\"2..\"",
        "duration >= 20ms or size == 20KB  method!~\"2..\"",
        "(duration >= 20ms) OR ((size = 20kB) And (method !~ `2..`))",
    ] {
        assert_eq!(filter(same), documented, "{same}");
    }
    assert_eq!(documented.to_string(), "duration >= 20ms or size == 20KB and method!~\"2..\"");
    for text in [
        "(a > 1 or b < -2.5) and c != 3",
        "a = \"x\" and (b = \"y\" and c = \"z\")",
        "(json = \"x\" or b <= 0s)",
        "a = ip(\"10.0.0.0/8\") or a != ip(\"::1-::8\")",
        "a == -1m30s or b == 1536B or b >= 0B or c > 1e300",
    ] {
        let found = filter(text);
        let written = Stage::Labels(found.clone()).to_string();
        assert_eq!(stages(&format!("{{a=`b`}} {written}")), [Stage::Labels(found)], "{written}");
    }
}

#[test]
fn any_label_can_be_named() {
    for name in STAGES.into_iter().chain(["on", "by", "and", "or", "offset", "sum", "rate", "vector", "ip", "a:b", ":"])
    {
        for template in [
            "{NAME=\"x\"}",
            "{a=\"b\"} | (NAME=\"x\" or NAME > 5) and NAME != 6",
            "{a=\"b\"} | json NAME, b=\"c\" | label_format NAME=NAME | drop NAME | keep NAME=\"x\"",
            "sum by (NAME) (sum_over_time({a=\"b\"} | unwrap NAME [5m]))",
            "vector(1) * on (b, NAME) group_left (c) max_over_time({a=\"b\"} | unwrap bytes(NAME) [5m]) by (NAME)",
        ] {
            let text = template.replace("NAME", name);
            let read = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parse(&read.to_string()).unwrap(), read, "{text}");
        }
    }
}

#[test]
fn an_error_says_where_and_what_was_expected() {
    for (text, expected) in [
        ("{app \"x\"}", "1, col 6: syntax error: expected one of = != =~ !~, found a string"),
        (
            "rate({app=\"x\"}\n |= \"y\")",
            "2, col 8: syntax error: expected a stage or a range such as [5m], found \")\"",
        ),
        ("{a=\"b", "1, col 4: syntax error: the string that starts here is not closed"),
        ("{a=\"b\"} |= 'x'", "1, col 12: syntax error: unexpected character '\\''"),
        ("{a \"b\"} |= 'x'", "1, col 4: syntax error: expected one of = != =~ !~, found a string"),
        ("sum(1 + 2)", "1, col 5: syntax error: expected series, such as those of count_over_time, found a number"),
        (
            "",
            "1, col 1: syntax error: expected a stream selector such as {app=\"x\"}, a number, or a function such as count_over_time, found end of the query",
        ),
        ("{a=~\"(\"}", "1, col 5: error parsing regexp \"(\""),
        ("{a=\"b\"}\n| json\n# a comment\n| regexp \"x\"", "4, col 10: at least one named capture"),
        ("{a=\"b\"} | unwrap", "1, col 17: syntax error: expected the name of a label, or duration(..)"),
        ("{a=\"b\"} | unwrap x", "1, col 9: unwrap stands only within a range aggregation such as sum_over_time"),
        (
            "{a=\"b\"} |",
            "1, col 10: syntax error: expected a label filter or one of json, logfmt, pattern, regexp, unpack, line_format, label_format, drop, keep, decolorize, unwrap, found end of the query",
        ),
        ("{a=\"b\"}[5m]", "1, col 8: syntax error: expected a stage or the end: a range stands within count_over_time"),
        ("{a=\"b\"} + 1", "1, col 9: syntax error: expected a stage or the end of the query, found \"+\""),
        ("1 + {a=\"b\"}", "1, col 5: syntax error: expected a number or a function: records become numbers"),
        (
            "rate({a=\"b\"}[0s])",
            "1, col 14: syntax error: expected a duration above zero, such as 5m, found duration 0s",
        ),
        ("rate({a=\"b\"}[5])", "1, col 14: syntax error: expected a duration above zero, such as 5m, found number 5"),
        (
            "foo({a=\"b\"}[5m])",
            "1, col 1: syntax error: expected a stream selector, a number, or one of count_over_time, rate,",
        ),
        (
            "{a=\"b\"} | x == \"y\"",
            "1, col 16: syntax error: expected a number, a duration such as 5s, or a size such as 20KB, found a string",
        ),
        (
            "rate({a=\"b\"}[5m]) offset 5m",
            "1, col 19: syntax error: expected an operator or the end of the query, found \"offset\"",
        ),
    ] {
        let found = refusal(text);
        assert!(found.starts_with(&format!("parse error at line {expected}")), "{text}\n  {found}\n  {expected}");
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    for (text, expected) in [
        ("count_over_time({a=`b`} | unwrap x [5m])", "invalid aggregation count_over_time with unwrap"),
        ("bytes_rate({a=`b`} | unwrap x [5m])", "invalid aggregation bytes_rate with unwrap"),
        ("sum_over_time({a=`b`} [5m])", "invalid aggregation sum_over_time without unwrap"),
        ("rate_counter({a=`b`} [5m])", "invalid aggregation rate_counter without unwrap"),
        ("rate({a=`b`} [5m]) by (x)", "grouping not allowed for rate aggregation"),
        ("sum_over_time({a=`b`} | unwrap x [5m]) without (y)", "grouping not allowed for sum_over_time aggregation"),
        ("absent_over_time({a=`b`} [5m]) by (y)", "grouping not allowed for absent_over_time aggregation"),
        ("sort(vector(1)) by (x)", "grouping not allowed for sort aggregation"),
        ("approx_topk by (x) (5, vector(1))", "grouping not allowed for approx_topk aggregation"),
        ("quantile_over_time({a=`b`} | unwrap x [5m])", "expected a quantile, as in quantile_over_time(0.99, ..)"),
        ("rate(5, {a=`b`} [5m])", "parameter 5 not supported for operation rate"),
        ("sum(5, vector(1))", "parameter 5 not supported for operation sum"),
        ("topk(vector(1))", "expected how many series, as in topk(10, ..)"),
        ("topk(0, vector(1))", "invalid parameter topk(0, ..)"),
        ("topk(1.5, vector(1))", "invalid parameter topk(1.5, ..)"),
        ("topk(4294967296, vector(1))", "invalid parameter topk(4294967296, ..)"),
        ("1 and vector(1)", "unexpected literal for left leg of logical/set binary operation (and)"),
        ("vector(1) unless (1 + 2)", "unexpected literal for right leg of logical/set binary operation (unless)"),
        ("vector(1) + bool vector(1)", "bool is not allowed with \"+\": it takes a comparison such as >"),
        ("1 > bool 2", "bool between two numbers is not allowed with \">\": it takes series on at least one side"),
        ("vector(1) and on (a) group_left vector(1)", "group_left is not allowed with \"and\""),
        ("vector(1) + on (a) group_right (b, a) vector(1)", "label \"a\" stands twice in \"on\""),
        ("{a=`b`} | label_format x=y, x=`z`", "label \"x\" stands twice in label_format"),
        ("{a=`b`} | label_format __error__=y", "__error__ cannot be formatted"),
        ("{a=`b`} | label_format y=__error__", "__error__ cannot be formatted"),
        ("{a=`b`} |~ ip(`::1`)", "expected a string"),
        ("{a=`b`} | a =~ ip(`::1`)", "expected a string"),
        ("{a=`b`} | a > ip(`::1`)", "expected a number"),
        ("label_replace(1, `a`, `b`, `c`, `d`)", "expected series"),
        ("label_replace(vector(1), `a`, `b`, `c`, `(`)", "error parsing regexp"),
        ("sum_over_time({a=`b`} | unwrap x | json [5m])", "nothing else may follow unwrap"),
        ("rate({a=`b`} | json [5m] | logfmt)", "expected \")\""),
        ("sum by (a,) (vector(1))", "expected a label name"),
        ("-vector(1)", "expected a stream selector"),
        ("sum by (a) (vector(1)) by (b)", "expected an operator or the end"),
    ] {
        let found = cause(text);
        assert!(found.contains(expected), "{text}\n  {found}");
    }
}

#[test]
fn a_selector_of_empty_compatible_matchers_is_refused() {
    for text in ["{}", "{a=\"\"}", "{a=~\".*\"}", "{a!=\"x\"}", "rate({a!~\"x\"}[1m])"] {
        assert!(refusal(text).contains("at least one regexp or equality matcher"), "{text}");
    }
    assert!(parse("{a=~\".+\", b=~\".*\"}").is_ok());
    assert!(parse_selector("{}").unwrap().is_empty());
    assert!(parse_selector("{a=\"b\"} | json").is_err());
}

#[test]
fn depth_length_and_regexes_are_bounded() {
    assert!(refusal(&"(".repeat(9_000)).contains("too many parentheses"));
    assert!(refusal(&format!("{}{{", "(".repeat(9_000))).contains("too many parentheses"));
    assert!(refusal(&format!("{{a=`b`}} | {}", "(".repeat(9_000))).contains("too many parentheses"));
    assert!(refusal(&"sum(".repeat(4_000)).contains("too many operators"));
    assert!(refusal(&format!("rate({}", "(".repeat(4_000))).contains("too many parentheses"));
    assert!(refusal(&format!("1{}", "+1".repeat(4_000))).contains("too many operators"));
    assert!(refusal(&format!("1{}", "^1".repeat(4_000))).contains("too many operators"));
    assert!(refusal(&format!("{{a=`b`}} | a=1 {}", "or a=1 ".repeat(999))).contains("too many operators"));
    assert!(refusal(&format!("{{a=\"{}\"}}", "x".repeat(QUERY_TEXT_BYTES_MAX))).contains("bytes"));
    assert!(refusal(&format!("{{a=\"b\"}}{}", " |~ \"a+\"".repeat(99))).contains("too many regular expressions"));
    assert!(refusal(&format!("{{a=\"b\"}}{}", " | a=~\"a+\"".repeat(99))).contains("too many regular expressions"));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z_:][a-zA-Z0-9_:]{0,5}",
        1 => prop::sample::select(STAGES.to_vec()).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["by", "and", "OR", "unless", "on", "offset", "sum", "rate", "ip", "bytes"])
            .prop_map(str::to_owned),
    ]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(name(), 0..3).prop_map(|names| names.into_iter().collect())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,6}|[\n\t\\x00a\"`\\\\]{0,4}"
}

fn matcher() -> impl Strategy<Value = Matcher> {
    (name(), prop::sample::select(MatchOp::ALL.to_vec()), text()).prop_map(|(name, op, value)| {
        let regex = matches!(op, MatchOp::Matches | MatchOp::NotMatches);
        Matcher { name, op, value: if regex { regex_syntax::escape(&value) } else { value } }
    })
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e9..1e9_f64,
        any::<i32>().prop_map(f64::from),
        (0_i32..600).prop_map(|power| 10_f64.powi(power - 300))
    ]
}

fn label_filter() -> impl Strategy<Value = LabelFilter> {
    let op = || prop::sample::select(Compare::ALL.to_vec());
    let leaf = prop_oneof![
        matcher().prop_map(LabelFilter::Text),
        (name(), op(), number()).prop_map(|(name, op, value)| LabelFilter::Number { name, op, value }),
        (name(), op(), -i64::MAX..=i64::MAX).prop_map(|(name, op, value)| LabelFilter::Duration { name, op, value }),
        (name(), op(), any::<u64>()).prop_map(|(name, op, value)| LabelFilter::Bytes { name, op, value }),
        (name(), any::<bool>(), text()).prop_map(|(name, negative, range)| LabelFilter::Ip { name, negative, range }),
    ];
    leaf.prop_recursive(3, 6, 2, |inner| {
        (any::<bool>(), inner.clone(), inner).prop_map(|(and, left, right)| {
            let (left, right) = (Box::new(left), Box::new(right));
            if and { LabelFilter::And(left, right) } else { LabelFilter::Or(left, right) }
        })
    })
}

fn line_filter() -> impl Strategy<Value = LineFilter> {
    let needles = prop::collection::vec((any::<bool>(), text()), 1..3);
    (prop::sample::select(FilterOp::ALL.to_vec()), needles).prop_map(|(op, needles)| {
        let needle = |(ip, text): (bool, String)| match op {
            FilterOp::Contains | FilterOp::NotContains if ip => Needle::Ip(text),
            FilterOp::Matches | FilterOp::NotMatches => Needle::Text(regex_syntax::escape(&text)),
            FilterOp::Contains | FilterOp::NotContains | FilterOp::Pattern | FilterOp::NotPattern => Needle::Text(text),
        };
        LineFilter { op, alternatives: needles.into_iter().map(needle).collect() }
    })
}

fn extractions() -> impl Strategy<Value = Vec<Extraction>> {
    let one = (name(), prop::option::of(text())).prop_map(|(label, expression)| {
        let expression = expression.unwrap_or_else(|| label.clone());
        Extraction { label, expression }
    });
    prop::collection::vec(one, 0..3)
}

fn label_formats() -> impl Strategy<Value = Vec<LabelFormat>> {
    let source = prop_oneof![name().prop_map(LabelSource::Rename), text().prop_map(LabelSource::Template)];
    prop::collection::btree_map(name(), source, 1..3)
        .prop_map(|formats| formats.into_iter().map(|(label, source)| LabelFormat { label, source }).collect())
}

fn stage() -> impl Strategy<Value = Stage> {
    let choices = || {
        let one = prop_oneof![name().prop_map(LabelChoice::Name), matcher().prop_map(LabelChoice::Where)];
        prop::collection::vec(one, 1..3)
    };
    prop_oneof![
        line_filter().prop_map(Stage::Filter),
        extractions().prop_map(Stage::Json),
        (any::<bool>(), any::<bool>(), extractions()).prop_map(|(strict, keep_empty, fields)| Stage::Logfmt {
            strict,
            keep_empty,
            fields
        }),
        text().prop_map(Stage::Pattern),
        Just(Stage::Regexp("(?P<x>a+)".to_owned())),
        Just(Stage::Unpack),
        label_filter().prop_map(Stage::Labels),
        text().prop_map(Stage::LineFormat),
        label_formats().prop_map(Stage::LabelFormat),
        choices().prop_map(Stage::Drop),
        choices().prop_map(Stage::Keep),
        Just(Stage::Decolorize),
    ]
}

fn logs() -> impl Strategy<Value = LogExpr> {
    (prop::collection::vec(matcher(), 0..3), prop::collection::vec(stage(), 0..3)).prop_map(|(mut matchers, stages)| {
        matchers.push(Matcher { name: "app".into(), op: MatchOp::Equal, value: "x".into() });
        LogExpr { matchers, stages: written(stages) }
    })
}

/// Without what no text can say: right behind a name of `drop` and `keep`, `!=` and `!~` compare that label.
fn written(stages: Vec<Stage>) -> Vec<Stage> {
    let mut kept: Vec<Stage> = Vec::new();
    for stage in stages {
        let name = matches!(kept.last(), Some(Stage::Drop(list) | Stage::Keep(list)) if matches!(list.last(), Some(LabelChoice::Name(_))));
        let negative = |filter: &LineFilter| matches!(filter.op, FilterOp::NotContains | FilterOp::NotMatches);
        if !(name && matches!(&stage, Stage::Filter(filter) if negative(filter))) {
            kept.push(stage);
        }
    }
    kept
}

fn grouping() -> impl Strategy<Value = Grouping> {
    (any::<bool>(), names()).prop_map(|(by, names)| if by { Grouping::By(names) } else { Grouping::Without(names) })
}

fn range() -> impl Strategy<Value = RangeExpr> {
    let convert = [Convert::Number, Convert::Duration, Convert::DurationSeconds, Convert::Bytes];
    let unwrap = (name(), prop::sample::select(convert.to_vec()), prop::collection::vec(label_filter(), 0..2))
        .prop_map(|(label, convert, filters)| Unwrap { label, convert, filters });
    let op = prop::sample::select(RangeOp::ALL.to_vec());
    let window = (1..=i64::MAX, prop_oneof![Just(0), -i64::MAX..=i64::MAX]);
    (op, 0.0..2.0_f64, logs(), any::<bool>(), unwrap, window, prop::option::of(grouping())).prop_map(
        |(op, quantile, logs, unwrapped, unwrap, (window, offset), grouping)| {
            let unwrapped = op.takes_numbers() && (unwrapped || !op.takes_records());
            RangeExpr {
                op,
                parameter: (op == RangeOp::QuantileOverTime).then_some(quantile),
                logs,
                unwrap: unwrapped.then_some(unwrap),
                window,
                offset,
                grouping: grouping.filter(|_| op.takes_grouping()),
            }
        },
    )
}

fn series(expr: MetricExpr) -> MetricExpr {
    if expr.is_scalar() { MetricExpr::Vector(1.0) } else { expr }
}

fn modifiers() -> impl Strategy<Value = Modifiers> {
    let matching = prop_oneof![
        Just(Matching::Ignoring(Vec::new())),
        names().prop_map(Matching::On),
        names().prop_map(Matching::Ignoring)
    ];
    (any::<bool>(), matching, 0..3, names()).prop_map(|(bool_modifier, matching, side, mut labels)| {
        if let Matching::On(on) = &matching {
            labels.retain(|label| !on.contains(label));
        }
        let cardinality = match side {
            0 => Cardinality::OneToOne,
            1 => Cardinality::ManyToOne(labels),
            _ => Cardinality::OneToMany(labels),
        };
        (bool_modifier, matching, cardinality)
    })
}

type Modifiers = (bool, Matching, Cardinality);

fn binary() -> impl Fn((BinaryOp, Modifiers, MetricExpr, MetricExpr)) -> MetricExpr {
    |(op, (bool_modifier, matching, cardinality), left, right)| {
        let (left, right) = if op.is_set() { (series(left), series(right)) } else { (left, right) };
        let scalars = left.is_scalar() && right.is_scalar();
        MetricExpr::Binary {
            op,
            bool_modifier: bool_modifier && matches!(op, BinaryOp::Compare(_)) && !scalars,
            matching,
            cardinality: if op.is_set() { Cardinality::OneToOne } else { cardinality },
            left: Box::new(left),
            right: Box::new(right),
        }
    }
}

fn metric() -> impl Strategy<Value = MetricExpr> {
    let leaf = prop_oneof![
        number().prop_map(MetricExpr::Number),
        number().prop_map(MetricExpr::Vector),
        range().prop_map(MetricExpr::Range),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        let aggregate = (prop::sample::select(AggregateOp::ALL.to_vec()), 1..=u32::MAX, grouping(), inner.clone());
        let texts = (text(), text(), text(), text());
        prop_oneof![
            aggregate.prop_map(|(op, parameter, grouping, inner)| MetricExpr::Aggregate {
                op,
                parameter: op.takes_parameter().then_some(parameter),
                grouping: if op.takes_grouping() { grouping } else { Grouping::By(Vec::new()) },
                inner: Box::new(series(inner)),
            }),
            (prop::sample::select(BinaryOp::ALL.to_vec()), modifiers(), inner.clone(), inner.clone())
                .prop_map(binary()),
            (texts, inner).prop_map(|((to, replacement, from, regex), inner)| MetricExpr::LabelReplace {
                inner: Box::new(series(inner)),
                to,
                replacement,
                from,
                regex: regex_syntax::escape(&regex),
            }),
        ]
    })
}

/// Words that stand in queries, and some that do not.
const WORDS: [&str; 76] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "a",
    "x",
    "=",
    "==",
    "=~",
    "!=",
    "!~",
    "!>",
    "|=",
    "|~",
    "|>",
    "|",
    ">",
    "<=",
    "\"x\"",
    "`y`",
    "\"(\"",
    "\"(?P<n>.)\"",
    "5m",
    "1.5h",
    "20KB",
    "1",
    "-2",
    "0.5",
    "0x1f",
    "rate",
    "sum_over_time",
    "quantile_over_time",
    "sum",
    "topk",
    "sort",
    "by",
    "without",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "and",
    "or",
    "unless",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "vector",
    "label_replace",
    "offset",
    "json",
    "logfmt",
    "--strict",
    "pattern",
    "regexp",
    "unpack",
    "line_format",
    "label_format",
    "drop",
    "keep",
    "decolorize",
    "unwrap",
    "duration",
    "ip",
    "{a=`b`}",
    "\"",
    "\\",
    "1e",
    "#",
];

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn arbitrary_words_never_panic_and_what_is_read_reads_back(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..24),
    ) {
        for text in [words.concat(), words.join(" "), format!("{{a=`b`}} {}", words.join(" "))] {
            if let Ok(read) = parse(&text) {
                prop_assert_eq!(parse(&read.to_string()), Ok(read), "{}", text);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same(logs in logs(), metric in metric()) {
        for expr in [Expr::Logs(logs.clone()), Expr::Metric(metric.clone())] {
            let text = expr.to_string();
            match parse(&text) {
                Ok(back) => prop_assert_eq!(back, expr, "{}", text),
                Err(QueryError::Parse { cause: ParseCause::TooMany { .. }, .. }) => {}
                Err(error) => prop_assert!(false, "{}: {}", text, error),
            }
        }
    }

    #[test]
    fn a_query_without_one_of_its_words_never_panics(expr in metric(), at in any::<prop::sample::Index>()) {
        let text = expr.to_string();
        let words: Vec<&str> = text.split_inclusive(|c: char| !c.is_alphanumeric()).collect();
        let gone = at.index(words.len());
        let mut left = words.clone();
        left.remove(gone);
        if let Ok(read) = parse(&left.concat()) {
            prop_assert_eq!(parse(&read.to_string()), Ok(read), "{}", text);
        }
    }
}
