//! Selectors and pipelines.

use millpond::query::ast::{
    Compare, Extraction, FilterOp, LabelChoice, LabelFilter, LabelFormat, LabelSource, LineFilter, LogExpr, MatchOp,
    Matcher, Needle, Stage,
};

use super::words;
use crate::draw::Dice;

const SECOND: i64 = 1_000_000_000;

/// Labels, and texts that they are held against.
const TEXTS: [(&str, &[&str]); 6] = [
    ("method", &["GET", "P.*", "GET|POST", "PUT"]),
    ("status", &["200", "4..", r"\d+", "500"]),
    ("level", &["info", "err.*|info", "", ".*"]),
    ("app", &["api", "w.+", "(?i)API"]),
    ("msg", &["all good", r".*\d+.*", "caf..*"]),
    ("__error__", &["", "", "JSONParserErr", ".+Err"]),
];

/// Which lines a query is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Logfmt,
    Plain,
    Packed,
}

impl Kind {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        *dice.pick(&[Self::Json, Self::Json, Self::Logfmt, Self::Logfmt, Self::Plain, Self::Packed])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Plain => "plain",
            Self::Packed => "packed",
        }
    }
}

pub(super) fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher { name: name.to_owned(), op, value: value.to_owned() }
}

/// A whole log query; what its pipeline leaves unread may be filtered and formatted.
pub(super) fn logs(dice: &mut Dice, kind: Kind) -> LogExpr {
    let mut stages = before(dice);
    if !dice.one_in(5) {
        stages.extend(parser(dice, kind));
    }
    for _ in 0..dice.below(4) {
        stages.push(after(dice, kind));
    }
    LogExpr { matchers: selector(dice, kind), stages: told_apart(stages) }
}

/// Without line filters that would be read as the condition on the last label of a `drop` or `keep` before them.
fn told_apart(mut stages: Vec<Stage>) -> Vec<Stage> {
    let mut open = false;
    stages.retain(|stage| {
        let negative = matches!(stage, Stage::Filter(filter) if [FilterOp::NotContains, FilterOp::NotMatches].contains(&filter.op));
        let stays = !(open && negative);
        if stays {
            open = matches!(stage, Stage::Drop(choices) | Stage::Keep(choices) if matches!(choices.last(), Some(LabelChoice::Name(_))));
        }
        stays
    });
    stages
}

/// A log query whose records carry labels of lines and, but for some, no error: what metrics are made of.
pub(super) fn parsed(dice: &mut Dice, kind: Kind) -> LogExpr {
    let mut stages = before(dice);
    stages.extend(parser(dice, kind));
    if dice.one_in(3) {
        stages.push(Stage::Labels(filter(dice, 1)));
    }
    if dice.one_in(6) {
        stages.push(after(dice, kind));
    }
    LogExpr { matchers: selector(dice, kind), stages: told_apart(stages) }
}

fn selector(dice: &mut Dice, kind: Kind) -> Vec<Matcher> {
    let name = kind.name();
    let mut matchers = vec![match dice.below(6) {
        0 => matcher("format", MatchOp::Matches, &format!("{}.*", &name[..2])),
        1 => matcher("format", MatchOp::Matches, &format!("{name}|none")),
        _ => matcher("format", MatchOp::Equal, name),
    }];
    match dice.below(10) {
        0 => matchers.push(matcher("app", MatchOp::NotEqual, "web")),
        1 => matchers.push(matcher("app", MatchOp::NotMatches, "w.b")),
        2 => matchers.push(matcher("level", MatchOp::NotEqual, "")),
        3 => matchers.push(matcher("level", MatchOp::NotMatches, r"\d+|err\w+")),
        4 => matchers.push(matcher("level", MatchOp::Equal, "")),
        5 => return vec![matcher("format", MatchOp::Matches, ".+")],
        _ => {}
    }
    matchers
}

fn before(dice: &mut Dice) -> Vec<Stage> {
    let count = *dice.pick(&[0, 0, 0, 1, 1, 2]);
    (0..count).map(|_| Stage::Filter(line_filter(dice))).collect()
}

fn line_filter(dice: &mut Dice) -> LineFilter {
    let op = *dice.pick(&FilterOp::ALL);
    let positive = matches!(op, FilterOp::Contains | FilterOp::Matches | FilterOp::Pattern);
    let texts: &[&str] = match op {
        FilterOp::Contains => &[
            "GET",
            "1",
            "method",
            "ms",
            "10.0",
            "e",
            "200 took=250ms size=512",
            "n=1 ip=19",
            "0.7",
            "v2/users/7",
            "\"",
            " n=1",
        ],
        FilterOp::NotContains => {
            &["PUT", "404", "twice", "this is", "nowhere", "n=12 ip=10", "1.2.3", "2,\"took\":\"50"]
        }
        FilterOp::Matches => &[
            r"\d+ms",
            "(?i)get|post",
            r"\bn\b",
            r"status.*200",
            "time.*second",
            r"open at \d+ \d",
            r"a\sb|7",
            "[0-9]s",
            r"users/\d+",
            "(GET|POST) /api/v2",
            r"took=(500|125)ms|\b700\b",
            r"from (10)+\.1",
        ],
        FilterOp::NotMatches => &[r"\w+ is open", "P[UO]T", "(?i)TIMEOUT", r"\d \d$", r"a\sb"],
        FilterOp::Pattern => &["<_>GET<_>", "<_>method<_>200<_>", "<_>m<_>s<_>", "<_> n=<_> <_>"],
        FilterOp::NotPattern => &["<_>PUT<_>404<_>", "<_>nowhere<_>", "<_>twice<_>cat<_>"],
    };
    if matches!(op, FilterOp::Contains | FilterOp::NotContains) && dice.one_in(3) {
        let ranges: &[&str] = if positive {
            &["10.0.0.0/8", "192.168.4.0-192.168.4.255", "::/0", "0.0.0.0/0"]
        } else {
            &["10.0.0.1", "192.168.4.5/16", "2001:db8::1-2001:db8::8"]
        };
        return LineFilter { op, alternatives: vec![Needle::Ip((*dice.pick(ranges)).to_owned())] };
    }
    let count = if dice.one_in(4) { 2 } else { 1 };
    LineFilter { op, alternatives: (0..count).map(|_| Needle::Text((*dice.pick(texts)).to_owned())).collect() }
}

fn extraction(label: &str, expression: &str) -> Extraction {
    Extraction { label: label.to_owned(), expression: expression.to_owned() }
}

fn fields(dice: &mut Dice, from: &[(&str, &str)]) -> Vec<Extraction> {
    let mut all: Vec<&(&str, &str)> = from.iter().collect();
    all = dice.shuffled(all);
    let count = dice.between(1, 4) as usize;
    all.into_iter().take(count).map(|(label, expression)| extraction(label, expression)).collect()
}

/// The parsers for a kind of lines; now and then those for another.
fn parser(dice: &mut Dice, kind: Kind) -> Vec<Stage> {
    let kind = if dice.one_in(12) { Kind::draw(dice) } else { kind };
    let expressions = [
        ("path", "request.path"),
        ("id", r#"request["id"]"#),
        ("deep", r#"request["head.er"]["a-b"]"#),
        ("first", "tags[0]"),
        ("k", "tags[1].k"),
        ("tags", "tags"),
        ("inner", "tags[1]"),
        ("n", "n"),
        ("took", "took"),
        ("status", "status"),
        ("missing", "not.there"),
        ("level", "method"),
        ("ok", "ok"),
    ];
    let keys = [
        ("n", "n"),
        ("took", "took"),
        ("method", "method"),
        ("verb", "method"),
        ("size", "size"),
        ("level", "status"),
        ("flag", "flag"),
        ("missing", "missing"),
        ("text", "msg"),
    ];
    match kind {
        Kind::Json if dice.one_in(4) => vec![Stage::Json(fields(dice, &expressions))],
        Kind::Json => vec![Stage::Json(Vec::new())],
        Kind::Logfmt => {
            let fields = if dice.one_in(4) { fields(dice, &keys) } else { Vec::new() };
            vec![Stage::Logfmt { strict: dice.one_in(4), keep_empty: dice.one_in(4), fields }]
        }
        Kind::Plain => vec![match dice.below(8) {
            0 => Stage::Pattern("<ip> - <user> \"<method> <path> <_>\" <status> <took> n=<n> <msg>".to_owned()),
            1 => Stage::Pattern("<ip> - <_> \"<method> <path> HTTP".to_owned()),
            2 => Stage::Pattern("<_> n=<n> <_>".to_owned()),
            3 => Stage::Pattern("10.0.0.1 - <level> <rest>".to_owned()),
            4 => Stage::Regexp(r#""(?P<method>\w+) (?P<path>\S+)"#.to_owned()),
            5 => Stage::Regexp(r"(?P<took>\d[\w.]*s) n=(?P<n>\S+)".to_owned()),
            6 => Stage::Regexp(r"^(?P<ip>[\d.:a-f]+) - (?P<level>\w+)?".to_owned()),
            _ => Stage::Regexp(r"(?P<method>GET|PUT)|(?P<status>\b\d{3}\b)".to_owned()),
        }],
        Kind::Packed if dice.one_in(3) => vec![Stage::Unpack],
        Kind::Packed => vec![Stage::Unpack, Stage::Logfmt { strict: false, keep_empty: false, fields: Vec::new() }],
    }
}

/// A stage that may stand anywhere.
fn after(dice: &mut Dice, kind: Kind) -> Stage {
    match dice.below(19) {
        0..=4 => Stage::Labels(filter(dice, 2)),
        5..=7 => Stage::LineFormat(words::template(dice)),
        8..=11 => Stage::LabelFormat(formats(dice)),
        12 => Stage::Drop(choices(dice)),
        13 | 14 => Stage::Keep(choices(dice)),
        15 => Stage::Decolorize,
        16 => Stage::Filter(line_filter(dice)),
        _ => parser(dice, kind).swap_remove(0),
    }
}

fn formats(dice: &mut Dice) -> Vec<LabelFormat> {
    let format = |label: &str, source| LabelFormat { label: label.to_owned(), source };
    let rename = |from: &str| LabelSource::Rename(from.to_owned());
    match dice.below(6) {
        0 => vec![format("verb", rename("method"))],
        1 => vec![format("service", rename("app")), format("shape", rename("format"))],
        2 => vec![format("level", rename("status"))],
        3 => vec![format("made", LabelSource::Template(words::template(dice))), format("code", rename("status"))],
        4 => vec![format("app", LabelSource::Template("{{.app}}-{{.method}}".to_owned()))],
        _ => vec![format("made", LabelSource::Template(words::template(dice)))],
    }
}

fn choices(dice: &mut Dice) -> Vec<LabelChoice> {
    let name = |name: &str| LabelChoice::Name(name.to_owned());
    let mut choices = Vec::new();
    let names = ["method", "app", "format", "n", "took", "__error__", "msg", "trace", "status", "level"];
    for chosen in dice.shuffled(names.to_vec()).into_iter().take(dice.between(1, 3) as usize) {
        choices.push(match (chosen, dice.below(3)) {
            ("method", _) => LabelChoice::Where(matcher("method", *dice.pick(&MatchOp::ALL), "GET")),
            ("level", 0) => LabelChoice::Where(matcher("level", MatchOp::Matches, "info|warn")),
            ("status", 0) => LabelChoice::Where(matcher("status", MatchOp::NotEqual, "200")),
            _ => name(chosen),
        });
    }
    if choices.contains(&name("__error__")) {
        choices.push(name("__error_details__"));
    }
    choices
}

/// A condition on labels; at most so deep.
pub(super) fn filter(dice: &mut Dice, depth: u32) -> LabelFilter {
    if depth > 0 && dice.one_in(3) {
        let (left, right) = (Box::new(filter(dice, depth - 1)), Box::new(filter(dice, depth - 1)));
        return if dice.one_in(2) { LabelFilter::And(left, right) } else { LabelFilter::Or(left, right) };
    }
    let op = *dice.pick(&Compare::ALL);
    match dice.below(10) {
        0..=2 => {
            let op = *dice.pick(&MatchOp::ALL);
            let (name, values) = *dice.pick(&TEXTS);
            LabelFilter::Text(matcher(name, op, super::word(dice, values)))
        }
        3 | 4 => {
            let name = (*dice.pick(&["n", "n", "n", "status", "method"])).to_owned();
            LabelFilter::Number { name, op, value: *dice.pick(&[0.0, 2.0, 3.0, 4.25, 200.0, -2.0]) }
        }
        5 | 6 => {
            let value = *dice.pick(&[SECOND * 3 / 2, SECOND, 60 * SECOND, 250_000_000]);
            LabelFilter::Duration { name: "took".to_owned(), op, value }
        }
        7 | 8 => {
            LabelFilter::Bytes { name: "size".to_owned(), op, value: *dice.pick(&[512, 20_000, 1_536, 700, 2_000_000]) }
        }
        _ => {
            let range =
                (*dice.pick(&["10.0.0.0/8", "10.0.0.1", "192.168.4.1-192.168.4.9", "2001:db8::/32"])).to_owned();
            LabelFilter::Ip { name: "ip".to_owned(), negative: dice.one_in(2), range }
        }
    }
}
