//! What a template may say, and the names of all that a query is made of, by which it is counted what was drawn.

use millpond::query::ast::{
    Cardinality, Convert, Expr, FilterOp, Grouping, LabelChoice, LabelFilter, LabelSource, LogExpr, MatchOp, Matching,
    MetricExpr, Needle, RangeExpr, Stage,
};

use super::super::Ask;
use crate::draw::Dice;

/// Pieces of templates, at least one for every function that Loki documents and each word of the language.
const PIECES: &[&str] = &[
    "{{.method}}",
    "{{ .path }}",
    "{{.missing}}",
    "{{.app}}",
    "{{.user | default \"-\"}}",
    "{{ __line__ }}",
    "{{ __line__ | lower }}",
    "{{ __timestamp__ | unixEpoch }}",
    "{{ __timestamp__ }}",
    "{{ __timestamp__ | date \"2006-01-02T15:04:05.00Z-07:00\" }}",
    "{{ date \"Jan _2 06, 03:04 PM Mon\" __timestamp__ }}",
    "{{ duration \"1.5s\" }}",
    "{{ \"2h30m\" | duration_seconds }}",
    "{{ toDate \"2006-01-02\" \"2021-11-02\" | unixEpochMillis }}",
    "{{ toDateInZone \"2006-01-02T15:04:05.999999999Z\" \"UTC\" \"2024-02-29T12:13:14.5Z\" | unixEpochNanos }}",
    "{{ unixEpochMillis __timestamp__ }}",
    "{{ __timestamp__ | unixEpochNanos }}",
    "{{ date \"2006-01-02\" (unixToTime \"1679577215\") }}",
    "{{ unixToTime \"19000\" | unixEpoch }}",
    "{{ alignLeft 5 .method }}|",
    "{{ alignRight 6 .method }}",
    "{{ .path | alignLeft 3 }}",
    "{{ .app | b64enc }}",
    "{{ b64dec \"aGVsbG8\" }}",
    "{{ .method | b64enc | b64dec }}",
    "{{ bytes \"20KB\" }}",
    "{{ \"1.5KiB\" | bytes }}",
    "{{ default \"none\" .missing }}",
    "{{ range $q := fromJson \"[{\\\"a\\\": 1.5}, {\\\"a\\\": \\\"x\\\"}]\" }}<{{ $q.a }}>{{ end }}",
    "{{ (fromJson \"{\\\"foo\\\": 55}\").foo }}",
    "{{ fromJson \"no json\" }}",
    "{{ .method | lower }}",
    "{{ lower \"HELLO\" }}",
    "{{ indent 2 .method }}",
    "{{ nindent 4 .app }}",
    "{{ repeat 2 .app }}",
    "{{ printf \"%s to %s\" .method .path }}",
    "{{ printf \"%-8.3s|\" .path }}",
    "{{ printf \"%6.3f\" 3.14159 }}",
    "{{ printf \"%05d %v\" 42 true }}",
    "{{ .path | replace \"/\" \"_\" | trunc 5 | upper }}",
    "{{ replace \"a\" \"b\" .app }}",
    "{{ .path | substr 1 4 }}",
    "{{ substr 6 11 \"hello world\" }}",
    "{{ substr -1 3 .method }}",
    "{{ .user | title }}",
    "{{ title \"hello big world\" }}",
    "{{ trim \"  x  \" }}",
    "{{ .msg | trim }}",
    "{{ .path | trimAll \"/\" }}",
    "{{ trimAll \"$\" \"$5.00\" }}",
    "{{ .path | trimPrefix \"/api\" }}",
    "{{ trimSuffix \"T\" .method }}",
    "{{ trunc -3 .method }}",
    "{{ .app | trunc 2 }}",
    "{{ .method | upper }}",
    "{{ .path | urlencode }}",
    "{{ urldecode \"a%2Fb+c\" }}",
    "{{ urlencode \"a b&c=1\" | urldecode }}",
    "{{ if contains \"GE\" .method }}get{{ else }}other{{ end }}",
    "{{ if eq .method \"GET\" }}g{{ else if eq .method \"PUT\" }}p{{ end }}",
    "{{ if hasPrefix \"/api\" .path }}api{{ end }}",
    "{{ if hasSuffix \"items\" .path }}items{{ end }}",
    "{{ add 3 2 5 }}",
    "{{ add .status 1 }}",
    "{{ addf 3.5 2 5 }}",
    "{{ ceil 123.001 }}",
    "{{ div 10 4 }}",
    "{{ div .status 100 }}",
    "{{ divf 10 2 4 }}",
    "{{ \"3.5\" | float64 }}",
    "{{ floor 123.9999 }}",
    "{{ \"3\" | int }}",
    "{{ max 1 3 2 }}",
    "{{ maxf 1 2.5 3 }}",
    "{{ min 2 1 3 }}",
    "{{ minf 1.25 2.5 3 }}",
    "{{ mul 5 2 3 }}",
    "{{ mulf 5.5 2 2.5 }}",
    "{{ mod 10 3 }}",
    "{{ mod .status 7 }}",
    "{{ round 123.555555 3 }}",
    "{{ round 123.88571428571 5 .2 }}",
    "{{ sub 5 2 }}",
    "{{ sub .status 100 }}",
    "{{ subf 5.5 2 1.5 }}",
    "{{ .msg | count \"[aeo]\" }}",
    "{{ count \"\\\\w\" .method }}",
    "{{ regexReplaceAll \"(a*)pi\" .app \"${1}b\" }}",
    "{{ regexReplaceAll \"\\\\d+\" .status \"<$0>\" }}",
    "{{ regexReplaceAllLiteral \"(s=)\" __line__ \"$1=\" }}",
    "{{ if and .method .missing }}both{{ else }}not both{{ end }}",
    "{{ if or .missing .method }}any{{ end }}",
    "{{ if not .missing }}without{{ end }}",
    "{{ with .user }}[{{ . }}]{{ else }}nobody{{ end }}",
    "{{ $x := .method }}{{ $x }}",
    "{{ $x := \"a\" }}{{ if .method }}{{ $x = \"b\" }}{{ end }}{{ $x }}",
    "{{- .app -}}",
    " {{/* a comment */}} ",
    "{{ range $i, $e := fromJson \"[1,2]\" }}{{ $i }}={{ $e }} {{ else }}none{{ end }}",
    "{{ len .method }}",
    "{{ index (fromJson \"[4,5]\") 1 }}",
    "{{ print .method 1 2 .path }}",
    "{{ if ne .method \"GET\" }}ne{{ end }}",
    "{{ if lt 1 2 }}lt{{ end }}{{ if le 2 2 }}le{{ end }}",
    "{{ if gt \"b\" \"a\" }}gt{{ end }}{{ if ge 1 2 }}ge{{ end }}",
    "{{ unixToTime \"1679577215000\" | date \"15:04\" }}",
    "{{ `raw` | upper }}",
    "{{ range fromJson \"{\\\"b\\\":2,\\\"a\\\":1}\" }}{{ . }};{{ end }}",
];

/// The functions and words that are counted.
const WORDS: &[&str] = &[
    "__line__",
    "__timestamp__",
    "add",
    "addf",
    "alignLeft",
    "alignRight",
    "and",
    "b64dec",
    "b64enc",
    "bytes",
    "ceil",
    "contains",
    "count",
    "date",
    "default",
    "div",
    "divf",
    "duration",
    "duration_seconds",
    "else",
    "eq",
    "float64",
    "floor",
    "fromJson",
    "ge",
    "gt",
    "hasPrefix",
    "hasSuffix",
    "if",
    "indent",
    "index",
    "int",
    "le",
    "len",
    "lower",
    "lt",
    "max",
    "maxf",
    "min",
    "minf",
    "mod",
    "mul",
    "mulf",
    "ne",
    "nindent",
    "not",
    "or",
    "print",
    "printf",
    "range",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "repeat",
    "replace",
    "round",
    "sub",
    "subf",
    "substr",
    "title",
    "toDate",
    "toDateInZone",
    "trim",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "unixEpoch",
    "unixEpochMillis",
    "unixEpochNanos",
    "unixToTime",
    "upper",
    "urldecode",
    "urlencode",
    "with",
    ".label",
    "$variable",
    "comment",
    "trim marks",
];

/// A template of several pieces.
pub(super) fn template(dice: &mut Dice) -> String {
    let count = dice.between(6, 14);
    let pieces: Vec<&str> = (0..count).map(|_| *dice.pick(PIECES)).collect();
    pieces.join(super::word(dice, &["", " ", ","]))
}

fn template_words(template: &str, into: &mut Vec<String>) {
    let mut rest = template;
    while let Some((_, inside)) = rest.split_once("{{") {
        let (action, after) = inside.split_once("}}").unwrap_or((inside, ""));
        rest = after;
        if action.contains("/*") {
            into.push("template comment".to_owned());
            continue;
        }
        if action.starts_with('-') {
            into.push("template trim marks".to_owned());
        }
        // What stands in quotes is no word of the language.
        let bare: String = action.split(['"', '`']).step_by(2).collect::<Vec<_>>().join(" ");
        for word in bare.split([' ', '(', ')', '|', ',']) {
            if word.starts_with('.') && word.len() > 1 {
                into.push("template .label".to_owned());
            } else if word.starts_with('$') {
                into.push("template $variable".to_owned());
            } else if WORDS.contains(&word) {
                into.push(format!("template {word}"));
            }
        }
    }
}

/// Every construct of the language as far as it is counted.
pub fn constructs() -> Vec<String> {
    let mut all: Vec<String> = WORDS.iter().map(|word| format!("template {word}")).collect();
    let listed = "selector =|selector !=|selector =~|selector !~|filter or|filter ip|json|json fields|logfmt|logfmt fields|\
        logfmt --strict|logfmt --keep-empty|pattern|regexp|unpack|decolorize|line_format|label_format rename|\
        label_format template|drop|drop where|keep|keep where|label ip =|label ip !=|label and|label or|\
        unwrap|unwrap duration|unwrap duration_seconds|unwrap bytes|unwrap filter|range by|range without|offset|offset ahead|\
        rate unwrap|aggregate by|aggregate without|aggregate all|bool|on|ignoring|group_left|group_right|group labels|label_replace|\
        vector|number|forward|backward|instant";
    all.extend(listed.split('|').map(str::to_owned));
    all.extend(FilterOp::ALL.map(|op| format!("filter {}", op.as_str())));
    all.extend(MatchOp::ALL.map(|op| format!("label text {}", op.as_str())));
    for op in millpond::query::ast::Compare::ALL {
        all.extend(["number", "duration", "bytes"].map(|of| format!("label {of} {}", op.as_str())));
    }
    all.extend(millpond::query::ast::RangeOp::ALL.map(|op| op.as_str().to_owned()));
    all.extend(millpond::query::ast::AggregateOp::ALL.map(|op| format!("aggregate {}", op.as_str())));
    all.extend(millpond::query::ast::BinaryOp::ALL.map(|op| format!("operator {}", op.as_str())));
    all.sort();
    all
}

/// The constructs of a query, each as often as it is there.
pub fn used(query: &Expr, ask: Ask) -> Vec<String> {
    let mut found = Vec::new();
    match query {
        Expr::Logs(logs) => {
            of_logs(logs, &mut found);
            let forward = matches!(ask, Ask::Range { forward: true, .. });
            found.push(if forward { "forward" } else { "backward" }.to_owned());
        }
        Expr::Metric(metric) => {
            of_metric(metric, &mut found);
            if matches!(ask, Ask::Instant(_)) {
                found.push("instant".to_owned());
            }
        }
    }
    found
}

fn of_logs(logs: &LogExpr, into: &mut Vec<String>) {
    into.extend(logs.matchers.iter().map(|matcher| format!("selector {}", matcher.op.as_str())));
    for stage in &logs.stages {
        of_stage(stage, into);
    }
}

fn of_stage(stage: &Stage, into: &mut Vec<String>) {
    let mut add = |name: &str| into.push(name.to_owned());
    match stage {
        Stage::Filter(filter) => {
            add(&format!("filter {}", filter.op.as_str()));
            if filter.alternatives.len() > 1 {
                add("filter or");
            }
            if filter.alternatives.iter().any(|needle| matches!(needle, Needle::Ip(_))) {
                add("filter ip");
            }
        }
        Stage::Json(fields) => add(if fields.is_empty() { "json" } else { "json fields" }),
        Stage::Logfmt { strict, keep_empty, fields } => {
            add(if fields.is_empty() { "logfmt" } else { "logfmt fields" });
            if *strict {
                add("logfmt --strict");
            }
            if *keep_empty {
                add("logfmt --keep-empty");
            }
        }
        Stage::Pattern(_) => add("pattern"),
        Stage::Regexp(_) => add("regexp"),
        Stage::Unpack => add("unpack"),
        Stage::Labels(filter) => of_filter(filter, into),
        Stage::LineFormat(template) => {
            add("line_format");
            template_words(template, into);
        }
        Stage::LabelFormat(formats) => {
            for format in formats {
                match &format.source {
                    LabelSource::Rename(_) => into.push("label_format rename".to_owned()),
                    LabelSource::Template(template) => {
                        into.push("label_format template".to_owned());
                        template_words(template, into);
                    }
                }
            }
        }
        Stage::Drop(choices) => {
            choices.iter().for_each(|choice| add(if is_name(choice) { "drop" } else { "drop where" }))
        }
        Stage::Keep(choices) => {
            choices.iter().for_each(|choice| add(if is_name(choice) { "keep" } else { "keep where" }))
        }
        Stage::Decolorize => add("decolorize"),
    }
}

fn is_name(choice: &LabelChoice) -> bool {
    matches!(choice, LabelChoice::Name(_))
}

fn of_filter(filter: &LabelFilter, into: &mut Vec<String>) {
    let name = match filter {
        LabelFilter::Text(matcher) => format!("label text {}", matcher.op.as_str()),
        LabelFilter::Number { op, .. } => format!("label number {}", op.as_str()),
        LabelFilter::Duration { op, .. } => format!("label duration {}", op.as_str()),
        LabelFilter::Bytes { op, .. } => format!("label bytes {}", op.as_str()),
        LabelFilter::Ip { negative, .. } => (if *negative { "label ip !=" } else { "label ip =" }).to_owned(),
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            of_filter(left, into);
            of_filter(right, into);
            (if matches!(filter, LabelFilter::And(..)) { "label and" } else { "label or" }).to_owned()
        }
    };
    into.push(name);
}

fn of_range(range: &RangeExpr, into: &mut Vec<String>) {
    of_logs(&range.logs, into);
    let mut add = |name: &str| into.push(name.to_owned());
    add(range.op.as_str());
    match &range.grouping {
        Some(Grouping::By(_)) => add("range by"),
        Some(Grouping::Without(_)) => add("range without"),
        None => {}
    }
    match range.offset {
        offset if offset > 0 => add("offset"),
        offset if offset < 0 => add("offset ahead"),
        _ => {}
    }
    if let Some(unwrap) = &range.unwrap {
        add(match unwrap.convert {
            Convert::Number => "unwrap",
            Convert::Duration => "unwrap duration",
            Convert::DurationSeconds => "unwrap duration_seconds",
            Convert::Bytes => "unwrap bytes",
        });
        if range.op.is_rate() {
            add("rate unwrap");
        }
        if !unwrap.filters.is_empty() {
            add("unwrap filter");
        }
        unwrap.filters.iter().for_each(|filter| of_filter(filter, into));
    }
}

fn of_metric(metric: &MetricExpr, into: &mut Vec<String>) {
    match metric {
        MetricExpr::Number(_) => into.push("number".to_owned()),
        MetricExpr::Vector(_) => into.push("vector".to_owned()),
        MetricExpr::Range(range) => of_range(range, into),
        MetricExpr::Aggregate { op, grouping, inner, .. } => {
            into.push(format!("aggregate {}", op.as_str()));
            into.push(match grouping {
                Grouping::By(names) if names.is_empty() => "aggregate all".to_owned(),
                Grouping::By(_) => "aggregate by".to_owned(),
                Grouping::Without(_) => "aggregate without".to_owned(),
            });
            of_metric(inner, into);
        }
        MetricExpr::Binary { op, bool_modifier, matching, cardinality, left, right } => {
            into.push(format!("operator {}", op.as_str()));
            if *bool_modifier {
                into.push("bool".to_owned());
            }
            match matching {
                Matching::On(_) => into.push("on".to_owned()),
                Matching::Ignoring(names) if names.is_empty() => {}
                Matching::Ignoring(_) => into.push("ignoring".to_owned()),
            }
            let (name, labels) = match cardinality {
                Cardinality::OneToOne => (None, 0),
                Cardinality::ManyToOne(labels) => (Some("group_left"), labels.len()),
                Cardinality::OneToMany(labels) => (Some("group_right"), labels.len()),
            };
            into.extend(name.map(str::to_owned));
            if labels > 0 {
                into.push("group labels".to_owned());
            }
            of_metric(left, into);
            of_metric(right, into);
        }
        MetricExpr::LabelReplace { inner, .. } => {
            into.push("label_replace".to_owned());
            of_metric(inner, into);
        }
    }
}
