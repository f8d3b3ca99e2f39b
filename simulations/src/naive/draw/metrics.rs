//! Metric queries. Those that rank or compare stand over numbers that are exact.

use millpond::query::ast::{
    AggregateOp, BinaryOp, Cardinality, Compare, Convert, Grouping, LabelFilter, MatchOp, Matching, MetricExpr,
    RangeExpr, RangeOp, Stage, Unwrap,
};

use super::data::SECOND;
use super::stages::{self, Kind, filter, matcher};
use crate::draw::Dice;

/// Operations over unwrapped numbers, and those of them that may be grouped.
const UNWRAPPED: [RangeOp; 12] = [
    RangeOp::Rate,
    RangeOp::RateCounter,
    RangeOp::SumOverTime,
    RangeOp::AbsentOverTime,
    RangeOp::AvgOverTime,
    RangeOp::MinOverTime,
    RangeOp::MaxOverTime,
    RangeOp::FirstOverTime,
    RangeOp::LastOverTime,
    RangeOp::StddevOverTime,
    RangeOp::StdvarOverTime,
    RangeOp::QuantileOverTime,
];
const GROUPED: usize = 4;
const COUNTED: [RangeOp; 5] =
    [RangeOp::CountOverTime, RangeOp::Rate, RangeOp::BytesOverTime, RangeOp::BytesRate, RangeOp::AbsentOverTime];

/// The expression, and whether it is for one time alone.
pub(super) fn expr(dice: &mut Dice) -> (MetricExpr, bool) {
    let instant = dice.one_in(3);
    let expr = match dice.below(21) {
        0..=3 => MetricExpr::Range(range(dice)),
        4..=7 => folded(dice),
        8..=10 => return ranked(dice, instant),
        11..=14 => scaled(dice),
        15..=18 => matched(dice),
        19 => replaced(dice),
        _ => constant(dice),
    };
    (expr, instant)
}

/// Sorted, as a parsed query has them.
fn names(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

fn grouping(dice: &mut Dice) -> Grouping {
    match dice.below(6) {
        0 => Grouping::By(Vec::new()),
        1 => Grouping::By(names(&["app"])),
        2 => Grouping::By(names(&["method", "app"])),
        3 => Grouping::By(names(&["status"])),
        4 => Grouping::Without(names(&["msg", "user", "n", "took", "size", "ip", "path", "request_path"])),
        _ => Grouping::Without(names(&["format", "level"])),
    }
}

fn range(dice: &mut Dice) -> RangeExpr {
    let kind = Kind::draw(dice);
    if dice.one_in(3) { counted(dice, kind) } else { unwrapped(dice, kind) }
}

fn timed(dice: &mut Dice, op: RangeOp, logs: millpond::query::ast::LogExpr) -> RangeExpr {
    let window = *dice.pick(&[10, 60, 61, 128, 300, 600]) * SECOND;
    let offset = *dice.pick(&[0, 0, 0, 0, 0, 5, 60, -30]) * SECOND;
    RangeExpr { offset, ..RangeExpr::new(op, logs, window) }
}

fn without_errors(dice: &mut Dice) -> Stage {
    if dice.one_in(5) {
        let name = |name: &str| millpond::query::ast::LabelChoice::Name(name.to_owned());
        return Stage::Drop(vec![name("__error__"), name("__error_details__")]);
    }
    Stage::Labels(LabelFilter::Text(matcher("__error__", MatchOp::Equal, "")))
}

fn counted(dice: &mut Dice, kind: Kind) -> RangeExpr {
    let op = *dice.pick(&COUNTED);
    let mut logs = stages::parsed(dice, kind);
    if dice.one_in(3) {
        logs.stages.retain(|stage| matches!(stage, Stage::Filter(_)));
    }
    if op == RangeOp::AbsentOverTime && dice.one_in(2) {
        logs.matchers = vec![matcher("format", MatchOp::Equal, "none"), matcher("app", MatchOp::Equal, "api")];
    }
    if !dice.one_in(12) {
        logs.stages.push(without_errors(dice));
    }
    timed(dice, op, logs)
}

fn unwrapped(dice: &mut Dice, kind: Kind) -> RangeExpr {
    let at = dice.below(UNWRAPPED.len() as u64) as usize;
    let (label, convert) = *dice.pick(&[
        ("n", Convert::Number),
        ("n", Convert::Number),
        ("status", Convert::Number),
        ("took", Convert::Duration),
        ("took", Convert::DurationSeconds),
        ("size", Convert::Bytes),
    ]);
    let mut logs = stages::parsed(dice, kind);
    // What differs with every line would leave each record a series of its own.
    if dice.one_in(2) {
        let name = |name: &str| millpond::query::ast::LabelChoice::Name(name.to_owned());
        logs.stages.push(Stage::Keep([label, "app", "method"].map(name).to_vec()));
    }
    let mut filters = Vec::new();
    if !dice.one_in(12) {
        filters.push(LabelFilter::Text(matcher("__error__", MatchOp::Equal, "")));
    }
    if dice.one_in(8) {
        filters.push(filter(dice, 1));
    }
    let mut range = timed(dice, UNWRAPPED[at], logs);
    range.unwrap = Some(Unwrap { label: label.to_owned(), convert, filters });
    range.grouping = (at >= GROUPED && dice.one_in(2)).then(|| grouping(dice));
    if UNWRAPPED[at] == RangeOp::QuantileOverTime {
        range.parameter = Some(*dice.pick(&[0.0, 0.25, 0.5, 0.9, 0.99, 1.0]));
    }
    range
}

/// Whether its numbers are the same to the last digit in whatever order they are taken.
fn is_exact(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Number(_) | MetricExpr::Vector(_) => true,
        MetricExpr::Range(range) => matches!(
            range.op,
            RangeOp::CountOverTime
                | RangeOp::BytesOverTime
                | RangeOp::SumOverTime
                | RangeOp::MinOverTime
                | RangeOp::MaxOverTime
                | RangeOp::FirstOverTime
                | RangeOp::LastOverTime
                | RangeOp::AbsentOverTime
        ),
        MetricExpr::Aggregate { op, inner, .. } => {
            !matches!(op, AggregateOp::Avg | AggregateOp::Stddev | AggregateOp::Stdvar) && is_exact(inner)
        }
        MetricExpr::Binary { op, left, right, .. } => {
            !matches!(op, BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Power) && is_exact(left) && is_exact(right)
        }
        MetricExpr::LabelReplace { inner, .. } => is_exact(inner),
    }
}

fn exact_range(dice: &mut Dice) -> MetricExpr {
    loop {
        let range = MetricExpr::Range(range(dice));
        if is_exact(&range) {
            return range;
        }
    }
}

fn aggregate(op: AggregateOp, grouping: Grouping, inner: MetricExpr) -> MetricExpr {
    MetricExpr::Aggregate { op, parameter: None, grouping, inner: Box::new(inner) }
}

fn folded(dice: &mut Dice) -> MetricExpr {
    let op = *dice.pick(&[
        AggregateOp::Sum,
        AggregateOp::Count,
        AggregateOp::Min,
        AggregateOp::Max,
        AggregateOp::Avg,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
    ]);
    let inner = if dice.one_in(6) { folded(dice) } else { MetricExpr::Range(range(dice)) };
    let grouping = grouping(dice);
    aggregate(op, grouping, inner)
}

/// At the top, or below what does not ask which of equal series were chosen.
fn ranked(dice: &mut Dice, instant: bool) -> (MetricExpr, bool) {
    let op = *dice.pick(&[
        AggregateOp::Topk,
        AggregateOp::Bottomk,
        AggregateOp::ApproxTopk,
        AggregateOp::Sort,
        AggregateOp::SortDesc,
    ]);
    let instant = instant || op == AggregateOp::ApproxTopk || dice.one_in(2);
    let inner = exact_range(dice);
    let inner = if dice.one_in(3) { aggregate(AggregateOp::Sum, grouping(dice), inner) } else { inner };
    let parameter = op.takes_parameter().then(|| dice.between(1, 4) as u32);
    let sorts = matches!(op, AggregateOp::Sort | AggregateOp::SortDesc | AggregateOp::ApproxTopk);
    let grouping = if sorts || dice.one_in(2) { Grouping::By(Vec::new()) } else { grouping(dice) };
    let expr = MetricExpr::Aggregate { op, parameter, grouping, inner: Box::new(inner) };
    let above = if dice.one_in(5) { aggregate(AggregateOp::Max, Grouping::By(Vec::new()), expr) } else { expr };
    (above, instant)
}

fn binary(dice: &mut Dice, op: BinaryOp, left: MetricExpr, right: MetricExpr) -> MetricExpr {
    MetricExpr::Binary {
        op,
        bool_modifier: matches!(op, BinaryOp::Compare(_)) && dice.one_in(3),
        matching: Matching::Ignoring(Vec::new()),
        cardinality: Cardinality::OneToOne,
        left: Box::new(left),
        right: Box::new(right),
    }
}

/// An operator between a number and what has series; comparisons only of exact numbers.
fn scaled(dice: &mut Dice) -> MetricExpr {
    let op = *dice.pick(&BinaryOp::ALL[..12]);
    let compares = matches!(op, BinaryOp::Compare(_));
    let inner = if compares || op == BinaryOp::Modulo { exact_range(dice) } else { MetricExpr::Range(range(dice)) };
    let inner = if dice.one_in(3) { aggregate(AggregateOp::Sum, grouping(dice), inner) } else { inner };
    let number = MetricExpr::Number(*dice.pick(&[2.0, 1.0, 3.0, 0.5, -1.0, 10.0, 200.0]));
    let (left, right) = if dice.one_in(3) { (number, inner) } else { (inner, number) };
    binary(dice, op, left, right)
}

/// An operator between two that have series.
fn matched(dice: &mut Dice) -> MetricExpr {
    let sets = [BinaryOp::And, BinaryOp::Or, BinaryOp::Unless];
    let op = if dice.below(5) < 2 { *dice.pick(&sets) } else { *dice.pick(&BinaryOp::ALL[..12]) };
    let exact = matches!(op, BinaryOp::Compare(_) | BinaryOp::Modulo);
    let kind = Kind::draw(dice);
    let side = |dice: &mut Dice, by: &[&str]| {
        let inner = loop {
            let range = if dice.one_in(2) { counted(dice, kind) } else { unwrapped(dice, kind) };
            let range = MetricExpr::Range(RangeExpr { grouping: None, ..range });
            if !exact || is_exact(&range) {
                break range;
            }
        };
        let op = *dice.pick(&[AggregateOp::Sum, AggregateOp::Max, AggregateOp::Count]);
        aggregate(op, Grouping::By(names(by)), inner)
    };
    if dice.one_in(8) {
        let (left, vector) = (side(dice, &[]), MetricExpr::Vector(3.0));
        return binary(dice, op, left, vector);
    }
    let many = !op.is_set() && dice.one_in(2);
    let few: &[&str] = if dice.one_in(2) { &["app"] } else { &["method"] };
    let more: &[&str] = &["app", "method"];
    let rest = if few == ["app"] { "method" } else { "app" };
    // Where more series meet one than may, there is no answer, on both sides.
    let wrong = dice.one_in(10);
    let left_many = dice.one_in(2);
    let (left_by, right_by): (&[&str], &[&str]) = match (many || wrong || op.is_set(), left_many) {
        (false, _) => (few, few),
        (true, true) => (more, few),
        (true, false) => (few, more),
    };
    // A label that the one side alone has, for the other to take over.
    let takes = many && dice.one_in(2);
    let with_format = [few[0], "format"];
    let (left_by, right_by): (&[&str], &[&str]) = match (takes, left_many) {
        (false, _) => (left_by, right_by),
        (true, true) => (left_by, &with_format),
        (true, false) => (&with_format, right_by),
    };
    let (left, right) = (side(dice, left_by), side(dice, right_by));
    let mut expr = binary(dice, op, left, right);
    let MetricExpr::Binary { matching, cardinality, .. } = &mut expr else { return expr };
    *matching = match (many || wrong || op.is_set(), dice.below(2)) {
        _ if takes => Matching::On(names(few)),
        (_, 0) => Matching::On(names(few)),
        (true, _) => Matching::Ignoring(names(&[rest])),
        (false, _) => Matching::Ignoring(names(&["none"])),
    };
    if many {
        let taken = if takes { names(&["format"]) } else { Vec::new() };
        *cardinality = if left_many { Cardinality::ManyToOne(taken) } else { Cardinality::OneToMany(taken) };
    }
    expr
}

fn replaced(dice: &mut Dice) -> MetricExpr {
    let inner = if dice.one_in(2) { MetricExpr::Range(range(dice)) } else { folded(dice) };
    let (to, replacement, from, regex) = *dice.pick(&[
        ("made", "$1", "method", "(.)(.*)"),
        ("made", "${2}-$1", "app", "(a|w)(.+)"),
        ("made", "static", "missing", ""),
        ("made", "$word", "method", "(?P<word>P.*)"),
        ("app", "$1$1", "app", "(.*)"),
        ("none", "", "app", ".*"),
    ]);
    let [to, replacement, from, regex] = [to, replacement, from, regex].map(str::to_owned);
    MetricExpr::LabelReplace { inner: Box::new(inner), to, replacement, from, regex }
}

/// Numbers without any record.
fn constant(dice: &mut Dice) -> MetricExpr {
    let number = |dice: &mut Dice| MetricExpr::Number(*dice.pick(&[1.0, 2.0, -3.0, 0.5]));
    let (left, right) = (number(dice), number(dice));
    match dice.below(4) {
        0 => MetricExpr::Vector(1.5),
        1 => binary(dice, BinaryOp::Or, MetricExpr::Vector(0.0), MetricExpr::Vector(1.0)),
        2 => {
            let op = *dice.pick(&BinaryOp::ALL[..6]);
            MetricExpr::binary(op, left, right)
        }
        // Between two numbers `bool` says nothing new.
        _ => MetricExpr::binary(BinaryOp::Compare(*dice.pick(&Compare::ALL)), left, right),
    }
}
