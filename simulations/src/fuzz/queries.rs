//! Texts of queries: drawn over the records of [`super::world`], as the naive evaluator is asked or with stages that no
//! evaluator could follow, taken from the expressions that the parser is compared with, and damaged by words and by
//! characters.

use super::Note;
use super::pen::{INPUT_BYTES_MAX, Pen};
use crate::draw::Dice;
use crate::naive::draw;

/// What the parser is compared with the published grammar by, one a line.
const EXPRESSIONS: &str = include_str!("../../../tests/clients/logql/expressions.txt");

const MATCHERS: &[&str] = &[
    "app=\"api\"",
    "app=`web`",
    "app=~\"a.*|web\"",
    "app=~\".+\"",
    "app!=\"\"",
    "app!~`ap.`",
    "format=~\"json|logfmt\"",
    "format!=\"odd\"",
    "format=\"odd\"",
    "level=~\"(?i)ERR.*\"",
    "level=\"\"",
    "service_name=~\".*\"",
    "missing!=\"x\"",
    "app=~\"\\\\w{1,3}\"",
    "app=\"caf\u{e9}\"",
    "app=\"a\\u00e9\\n\\x41\\101\"",
];

const STAGES: &[&str] = &[
    "|= \"e\"",
    "|= `GET` or `level` or \"caf\u{e9}\"",
    "!= \"error\" or `timeout`",
    "|~ `(?i)time.*\\d+`",
    "|~ \"\\\\d{3}|[^a-z]+$\" or `x`",
    "!~ `^\\{`",
    "!~ \"a*?(b|c)+\"",
    "|> \"<_>status=<_>\"",
    "|> `<_> - <_> \"<_>\" <_>` or `<_>ms<_>`",
    "!> \"<_>error<_>\"",
    "|= ip(\"10.0.0.0/8\")",
    "!= ip(\"192.168.4.1-192.168.4.20\") or ip(\"::1\")",
    "|= ip(\"2001:db8::/32\") or `x`",
    "| json",
    "| json method, code=\"status\", path=\"request.path\"",
    "| json deep=\"request[\\\"head.er\\\"].a-b\", first=\"tags[0]\", k=\"tags[1].k\"",
    "| json x=\"a[18446744073709551615]\"",
    "| logfmt",
    "| logfmt --strict",
    "| logfmt --keep-empty",
    "| logfmt --strict --keep-empty took, n=\"status\"",
    "| pattern `<ip> - <user> \"<method> <path> <_>\" <status> <_>`",
    "| pattern \"<_>n=<n> <rest>\"",
    "| regexp \"(?P<word>\\\\w+)\\\\s+(?P<n>-?\\\\d+)\"",
    "| regexp `(?P<x>.*)(?P<app>e*)`",
    "| unpack",
    "| decolorize",
    "| n > 1",
    "| n >= 0.5 and status < 500",
    "| status == 200 or n != -2",
    "| took > 1s",
    "| took <= 1h30m2s, size > 1KB",
    "| size >= 1.5MiB or size < 512B",
    "| (n > 1 or (took > 1s and level=\"error\")) and app=~\".+\"",
    "| ip = ip(\"10.0.0.0/16\")",
    "| ip != ip(\"::1\") or user=~`a.*`",
    "| level=\"error\" | status!=\"\"",
    "| __error__=\"\"",
    "| __error__!=\"JSONParserErr\"",
    "| __error__=~\".*Err\" | __error_details__!=\"\"",
    "| app_extracted=~\".*\"",
    "| n > 1e308 or n < -1e308",
    "| n == NaN",
    "| line_format \"{{.method}} {{.path}}\"",
    "| line_format `{{ range $i, $e := fromJson __line__ }}{{ $i }}={{ $e }},{{ end }}`",
    "| line_format `{{ if eq .level \"error\" }}E{{ else if gt (int .n) 2 }}N{{ else }}{{ __line__ | trunc 8 }}{{ end }}`",
    "| line_format `{{ with .user }}{{ . | upper | repeat 3 }}{{ else }}-{{ end }}`",
    "| line_format `{{ repeat 1000 __line__ | repeat 1000 }}`",
    "| line_format `{{ printf \"%5.2f|%-10s|%q|%x|%v|%08d|%t\" .n .user .msg .path .status 7 true }}`",
    "| line_format `{{ printf \"%*d %[3]v %[9]v %999999999d\" 5 6 7 }}`",
    "| line_format `{{ __line__ | regexReplaceAll \"(e)(.)\" \"${2}$1\" | replace \"a\" \"bb\" | substr -1 20 }}`",
    "| line_format `{{ substr 3 1 __line__ }}{{ substr -9 -1 __line__ }}{{ trunc -4 __line__ }}`",
    "| line_format `{{ div 7 (sub 2 2) }}`",
    "| line_format `{{ mod 7 0 }}{{ add 9223372036854775807 1 }}{{ mul 9223372036854775807 2 }}`",
    "| line_format `{{ addf 1e308 1e308 }}{{ divf 1 0 }}{{ round 1.55555 99 }}{{ floor .n }}{{ ceil \"x\" }}`",
    "| line_format `{{ float64 .n | int }}{{ int \"1e30\" }}{{ max 1 2 3 }}{{ minf 1.5 .n }}`",
    "| line_format `{{ date \"2006-01-02T15:04:05.000Z07:00\" __timestamp__ }}{{ now | unixEpoch }}`",
    "| line_format `{{ toDateInZone \"2006-01-02\" \"Europe/London\" \"2023-03-26\" | unixEpochNanos }}`",
    "| line_format `{{ unixToTime .n }}{{ unixToTime \"99999999999999999999\" }}{{ __timestamp__ | unixEpochMillis }}`",
    "| line_format `{{ duration .took }}{{ duration_seconds \"1h\" }}{{ bytes .size }}`",
    "| line_format `{{ b64enc __line__ | b64dec }}{{ urlencode .path | urldecode }}{{ sha256sum \"x\" }}`",
    "| line_format `{{ count \"e\" __line__ }}{{ hasPrefix \"{\" __line__ }}{{ contains \"a\" __line__ }}`",
    "| line_format `{{ indent 4 __line__ }}{{ nindent 9999 \"x\" }}{{ alignLeft 20 .user }}{{ alignRight 5 .path }}`",
    "| line_format `{{ default \"none\" .missing | title | trimSuffix \"e\" | trimAll \"no\" }}`",
    "| line_format `{{ index (fromJson __line__) \"request\" \"path\" }}{{ (fromJson __line__).tags }}`",
    "| line_format `{{ define \"T\" }}{{ template \"T\" . }}{{ end }}{{ template \"T\" . }}`",
    "| line_format `{{ $x := 1 }}{{ range fromJson \"[1,2,3]\" }}{{ $x = add $x . }}{{ break }}{{ end }}{{ $x }}`",
    "| line_format `{{- /* note */ -}} {{ \"a\\\"b\" | quote }} {{ 'x' }} {{ 0x1F }} {{ 1_000 }} {{ nil }}`",
    "| line_format `{{ not (and .level (or .user .missing)) }}{{ len __line__ }}{{ slice __line__ 1 3 }}`",
    "| label_format app2=app, n2=`{{ .n }}{{ .app }}`",
    "| label_format app=level, level=app",
    "| label_format __error__=\"x\"",
    "| label_format x=\"{{ __line__ }}\" | line_format \"{{ .x }}{{ .x }}\"",
    "| drop level, __error__, user=\"\"",
    "| drop app=~\"a.*\", n!=\"1\"",
    "| keep app, level, n=~\".+\"",
    "| keep missing",
    "| unwrap n",
    "| unwrap duration(took)",
    "| unwrap duration_seconds(took) | __error__=\"\"",
    "| unwrap bytes(size) | __error__=\"\"",
    "| unwrap status",
    "# a note\n",
    "|= \"\"",
    "|~ `` or ``",
    "| pattern `<_>`",
    "| a:b=\"x\"",
    "| json | logfmt | unpack | json",
    "| trace=`t1` or trace=`t2`",
    "| detected_level!=\"x\"",
    "| regexp `(?P<a>(?P<b>(a|b|ab)*)*)c`",
    "|~ `(a{1,50}){1,50}`",
];

const RANGES: &[&str] = &[
    "rate",
    "rate_counter",
    "count_over_time",
    "bytes_over_time",
    "bytes_rate",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "first_over_time",
    "last_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "absent_over_time",
];

const AGGREGATES: &[&str] =
    &["sum", "avg", "min", "max", "count", "stddev", "stdvar", "topk", "bottomk", "approx_topk", "sort", "sort_desc"];

const GROUPINGS: &[&str] = &[
    "",
    "by (app)",
    "by (app, level)",
    "by ()",
    "without (level)",
    "without ()",
    "by (format)",
    "by (missing, user)",
    "by (app,)",
];

const OPERATORS: &[&str] = &[
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "==",
    "!=",
    ">",
    ">=",
    "<",
    "<=",
    "> bool",
    "== bool",
    "and",
    "or",
    "unless",
    "and on (app)",
    "or ignoring (level)",
    "+ on (app)",
    "/ ignoring (level) group_left",
    "* on (app) group_right (level)",
    "- on () group_left (format)",
    "UNLESS on ()",
    "> bool on (app)",
    "%",
    "^ -1 ^",
    "and bool",
];

const WINDOWS: &[&str] = &[
    "1m",
    "5m",
    "1h",
    "10s",
    "1ns",
    "1h30m",
    "1.5m",
    "292y",
    "300y",
    "0s",
    "7d",
    "1w2d3h4m5s6ms7us8ns",
    "5",
    "1us",
    "1\u{b5}s",
    "9223372036854775807ns",
    "00001m",
    "1e3s",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "0.5",
    "-1",
    "1e3",
    "1e308",
    "1e-320",
    "0x1F",
    "+3",
    "100",
    "4294967295",
    "4294967296",
    "1.5",
    ".5",
    "5.",
    "1e999",
    "-0",
    "9007199254740993",
    "00",
];

/// What damage inserts: keywords, operators, quotes, escapes, units.
const WORDS: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "|",
    "|=",
    "|~",
    "!=",
    "!~",
    "|>",
    "!>",
    "=",
    "==",
    "=~",
    ">=",
    "<=",
    ">",
    "<",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    ",",
    "\"",
    "`",
    "'",
    "\\",
    "\\u",
    "\\x",
    "\\777",
    "#",
    "\n",
    "\r",
    "\t",
    " ",
    "\u{a0}",
    "\u{0}",
    "\u{feff}",
    "\u{10ffff}",
    "\u{e9}",
    "and ",
    "or ",
    "unless ",
    "by ",
    "without ",
    "on ",
    "ignoring ",
    "group_left ",
    "group_right ",
    "bool ",
    "offset ",
    "unwrap ",
    "json ",
    "logfmt ",
    "pattern ",
    "regexp ",
    "unpack ",
    "decolorize ",
    "line_format ",
    "label_format ",
    "drop ",
    "keep ",
    "ip(",
    "duration(",
    "bytes(",
    "vector(",
    "label_replace(",
    "rate(",
    "sum(",
    "topk(",
    "count_over_time(",
    "--strict ",
    "--keep-empty ",
    "5m",
    "1KB",
    "1.5MiB",
    "0x",
    "1e",
    "NaN",
    "Inf",
    "{{",
    "}}",
    "{{.",
    "__error__",
    "__line__",
    "<_>",
    "<a>",
    "(?P<a>",
    "(?i)",
    "$",
    "((((",
    "-(",
];

fn join(pen: &mut Pen, from: &[&str], least: usize, most: usize, between: &str) -> String {
    let count = least + pen.below(most - least + 1);
    let picked: Vec<&str> = (0..count).map(|_| pen.pick(from)).collect();
    picked.join(between)
}

fn logs(pen: &mut Pen) -> String {
    let matchers = if pen.one_in(3) { join(pen, MATCHERS, 1, 3, ", ") } else { "app=~\".+\"".to_owned() };
    let most = if pen.one_in(5) { 9 } else { 4 };
    let stages = join(pen, STAGES, 0, most, " ");
    format!("{{{matchers}}} {stages}")
}

fn range(pen: &mut Pen) -> String {
    let op = pen.pick(RANGES);
    let logs = logs(pen);
    // Most of them need a number of each record.
    let unwrap = match op {
        "count_over_time" | "bytes_over_time" | "bytes_rate" => "",
        "rate" | "absent_over_time" if pen.one_in(2) => "",
        _ if pen.one_in(20) => "",
        _ => pen.pick(&["| unwrap n", "| unwrap n | __error__=``", "| unwrap duration(took)", "| unwrap bytes(size)"]),
    };
    let window = if pen.one_in(3) { pen.pick(WINDOWS) } else { pen.pick(&WINDOWS[..4]) };
    let offset =
        if pen.one_in(8) { format!(" offset {}{}", pen.pick(&["", "-"]), pen.pick(WINDOWS)) } else { String::new() };
    let quantile = if op == "quantile_over_time" { format!("{}, ", pen.pick(NUMBERS)) } else { String::new() };
    let grouping = if pen.one_in(5) { pen.pick(GROUPINGS) } else { "" };
    format!("{op}({quantile}{logs}{unwrap} [{window}]{offset}) {grouping}")
}

fn metric(pen: &mut Pen, depth: usize) -> String {
    match pen.below(if depth == 0 { 4 } else { 10 }) {
        0..=3 => range(pen),
        4..=6 => {
            let op = pen.pick(AGGREGATES);
            let (grouping, inner) = (pen.pick(GROUPINGS), metric(pen, depth - 1));
            let number = if op.contains("topk") || op == "bottomk" { "2, " } else { "" };
            if op.starts_with("sort") { format!("{op}({inner})") } else { format!("{op} {grouping} ({number}{inner})") }
        }
        7 => {
            let (left, op) = (metric(pen, depth - 1), pen.pick(OPERATORS));
            let right = if pen.one_in(3) { pen.pick(NUMBERS).to_owned() } else { metric(pen, depth - 1) };
            format!("({left}) {op} {right}")
        }
        8 => {
            let inner = metric(pen, depth - 1);
            let (to, with, from) =
                (pen.pick(&["x", "app", "__name__"]), pen.pick(&["$1", "${a}-$0", "", "$9"]), "level");
            let regex = pen.pick(&["(.*)", "(?P<a>e).*", "", "x{1000}"]);
            format!("label_replace({inner}, \"{to}\", \"{with}\", \"{from}\", \"{regex}\")")
        }
        _ => format!("vector({})", pen.pick(NUMBERS)),
    }
}

/// A query that is mostly one.
pub(super) fn drawn(pen: &mut Pen) -> String {
    match pen.below(3) {
        0 => draw::query(&mut Dice::new(pen.draw(), "fuzz")).query.to_string(),
        1 => logs(pen),
        _ => metric(pen, 3),
    }
}

fn expression(pen: &mut Pen) -> String {
    let lines: Vec<&str> = EXPRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    pen.pick(&lines).replace('\u{2424}', "\n")
}

fn base(pen: &mut Pen, corpus: &[Vec<u8>]) -> String {
    match pen.below(if corpus.is_empty() { 4 } else { 6 }) {
        0..=2 => drawn(pen),
        3 => expression(pen),
        _ => String::from_utf8_lossy(&corpus[pen.below(corpus.len())]).into_owned(),
    }
}

/// Damages a text in units that the lexer sees.
fn damage_words(pen: &mut Pen, text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':');
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let end = if rest.starts_with(word) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first };
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    for _ in 0..1 + pen.below(3) {
        let at = pen.below(parts.len() + 1);
        let other = pen.below(parts.len().max(1));
        match pen.below(6) {
            0 => parts.insert(at, pen.pick(WORDS)),
            1 if at < parts.len() => drop(parts.remove(at)),
            2 if at < parts.len() => parts[at] = pen.pick(WORDS),
            3 if at < parts.len() => parts.swap(at, other),
            4 if at < parts.len() => {
                let number = pen.one_in(2);
                parts[at] = if number { pen.pick(NUMBERS) } else { pen.pick(WINDOWS) };
            }
            _ if other < parts.len() => {
                let count = (1 + pen.below(6)).min(parts.len() - other);
                let times = if pen.one_in(10) { pen.below(200) } else { 1 };
                let piece = parts[other..other + count].repeat(times.min(INPUT_BYTES_MAX / 16));
                parts.splice(at..at, piece);
            }
            _ => {}
        }
    }
    let mut damaged = parts.concat();
    let mut end = damaged.len().min(INPUT_BYTES_MAX);
    while !damaged.is_char_boundary(end) {
        end -= 1;
    }
    damaged.truncate(end);
    damaged
}

fn damage_bytes(pen: &mut Pen, text: &str, other: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let words: Vec<&[u8]> = WORDS.iter().map(|word| word.as_bytes()).collect();
    pen.damage(&mut bytes, &words, &[other.as_bytes()]);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What opens, so many times, and what closes it.
fn nested(pen: &mut Pen) -> String {
    let most = if pen.one_in(4) { 3_000 } else { 140 };
    let times = 1 + pen.below(most);
    let (open, middle, close) = match pen.below(9) {
        0 => ("(", "vector(1)", ")"),
        1 => ("sum(", "rate({app=\"api\"}[1m])", ")"),
        2 => ("(", "{app=\"api\"}", ")"),
        3 => ("1 ^ ", "1", ""),
        4 => ("(1 - ", "1", ")"),
        5 => ("{app=\"api\"} | (", "n > 1", ")"),
        6 => ("n > 1 and (", "n > 1", ") or n < 2"),
        7 => ("{app=\"api\"} |~ \"", "(a", ")\""),
        _ => ("{app=\"api\"} | line_format `{{", "if .x", "}}{{end}}`"),
    };
    let head = if open.starts_with("n >") { "{app=\"api\"} | " } else { "" };
    let mut close = close.repeat(times);
    if pen.one_in(5) {
        close.truncate(pen.below(close.len() + 1));
    }
    let mut text = format!("{head}{}{middle}{close}", open.repeat(times));
    text.truncate(INPUT_BYTES_MAX);
    text
}

/// A text as a client might send it, and how it was made.
pub(super) fn text(pen: &mut Pen, corpus: &[Vec<u8>]) -> (&'static str, String) {
    let base = base(pen, corpus);
    match pen.below(10) {
        0 | 1 => ("drawn", base),
        2..=5 => ("words changed", damage_words(pen, &base)),
        6..=8 => {
            let other = drawn(pen);
            ("bytes changed", damage_bytes(pen, &base, &other))
        }
        _ => ("nested", nested(pen)),
    }
}

/// The same, noted as the input.
pub(super) fn noted(pen: &mut Pen, note: &mut Note, corpus: &[Vec<u8>]) -> String {
    let (kind, text) = text(pen, corpus);
    note.input(kind, text.as_bytes());
    text
}
