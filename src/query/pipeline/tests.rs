//! What the stages make of records, by the examples of the documentation and by arbitrary lines.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::limits::{
    ERROR_DETAILS_BYTES_MAX, FIELD_BYTES_PER_RECORD_MAX, FIELDS_PER_RECORD_MAX, JSON_DEPTH_MAX, LINE_BYTES_MAX,
    QUERY_REGEXES_MAX,
};
use crate::query::ast::{
    Compare, Convert, Extraction, FilterOp, LabelChoice, LabelFilter, LabelFormat, LabelSource, LineFilter, MatchOp,
    Matcher, Needle, Unwrap,
};

/// What a record became: its line, and name and value of what is in its fields, marked where it is no stream's label.
type Seen = (String, Vec<(String, String)>);

fn stream() -> Labels {
    Labels::new([("app", "web"), ("level", "low")])
}

fn marked(fields: &Fields<'_>) -> Vec<(String, String)> {
    let name = |name: &str, origin| match origin {
        Origin::Stream => format!("{name} of the stream"),
        Origin::Metadata => format!("{name} of the metadata"),
        Origin::Parsed => name.to_owned(),
    };
    fields.iter().map(|(field, value, origin)| (name(field, origin), value.to_owned())).collect()
}

fn through(stages: &[Stage], labels: &Labels, metadata: &[(&str, &str)], line: &str) -> Option<Seen> {
    let pipeline = Pipeline::new(stages).unwrap();
    if !pipeline.leading().matches(line.as_bytes()) {
        return None;
    }
    let processed = pipeline.run(&Record { timestamp: 7, line, labels, metadata })?;
    Some((processed.line.to_string(), marked(&processed.fields)))
}

fn none() -> Labels {
    Labels::new::<&str, &str>([])
}

/// What stages set, of a record without labels that passes them.
fn found(stages: &[Stage], line: &str) -> Vec<(String, String)> {
    through(stages, &none(), &[], line).expect("the record passes").1
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn json() -> Stage {
    Stage::Json(Vec::new())
}

fn extractions(wanted: &[(&str, &str)]) -> Vec<Extraction> {
    let extraction = |(label, expression): &(&str, &str)| Extraction {
        label: (*label).to_owned(),
        expression: (*expression).to_owned(),
    };
    wanted.iter().map(extraction).collect()
}

fn logfmt(strict: bool, keep_empty: bool, fields: &[(&str, &str)]) -> Stage {
    Stage::Logfmt { strict, keep_empty, fields: extractions(fields) }
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher { name: name.to_owned(), op, value: value.to_owned() }
}

fn text(name: &str, op: MatchOp, value: &str) -> LabelFilter {
    LabelFilter::Text(matcher(name, op, value))
}

fn above(name: &str, value: f64) -> LabelFilter {
    LabelFilter::Number { name: name.to_owned(), op: Compare::Greater, value }
}

fn contains(text: &str) -> Stage {
    Stage::Filter(LineFilter { op: FilterOp::Contains, alternatives: vec![Needle::Text(text.to_owned())] })
}

fn error_of(found: &[(String, String)]) -> Option<&str> {
    found.iter().find(|(name, _)| name == ERROR).map(|(_, value)| value.as_str())
}

const DOCUMENT: &str = r#"{
    "protocol": "HTTP/2.0",
    "servers": ["129.0.1.1","10.2.1.3"],
    "request": {
        "time": "6.032",
        "method": "GET",
        "host": "foo.grafana.net",
        "size": "55",
        "headers": {"Accept": "*/*", "User-Agent": "curl/7.68.0"}
    },
    "response": {"status": 401, "size": "228", "latency_seconds": "6.031"}
}"#;

#[test]
fn json_makes_a_label_of_each_scalar_and_passes_over_arrays() {
    let expected = [
        ("protocol", "HTTP/2.0"),
        ("request_headers_Accept", "*/*"),
        ("request_headers_User_Agent", "curl/7.68.0"),
        ("request_host", "foo.grafana.net"),
        ("request_method", "GET"),
        ("request_size", "55"),
        ("request_time", "6.032"),
        ("response_latency_seconds", "6.031"),
        ("response_size", "228"),
        ("response_status", "401"),
    ];
    assert_eq!(found(&[json()], DOCUMENT), pairs(&expected));
    let sanitised =
        r#"{"a.b": {"c": "d"}, "1x": {"2y": 1.50, "é": -0e+1}, "Уфа": true, "x:y": 0, "no": null, "": 3, "e": ""}"#;
    let expected = [("_1x_2y", "1.50"), ("_1x__", "-0e+1"), ("___", "true"), ("a_b_c", "d"), ("e", ""), ("x:y", "0")];
    assert_eq!(found(&[json()], sanitised), pairs(&expected));
    assert_eq!(found(&[json()], r#" {"a": "\u00e9\ud83d\ude00\ud800\n\/"} "#), pairs(&[("a", "é😀\u{fffd}\n/")]));
}

#[test]
fn json_finds_what_lies_at_paths() {
    let wanted = [
        ("first_server", "servers[0]"),
        ("ua", r#"request.headers["User-Agent"]"#),
        ("server_list", "servers"),
        ("headers", r#"["request"].headers"#),
        ("status", "response.status"),
        ("absent", "response.status.code"),
        ("beyond", "servers[2]"),
    ];
    let expected = [
        ("first_server", "129.0.1.1"),
        ("headers", r#"{"Accept": "*/*", "User-Agent": "curl/7.68.0"}"#),
        ("server_list", r#"["129.0.1.1","10.2.1.3"]"#),
        ("status", "401"),
        ("ua", "curl/7.68.0"),
    ];
    assert_eq!(found(&[Stage::Json(extractions(&wanted))], DOCUMENT), pairs(&expected));
    let nested = Stage::Json(extractions(&[("a", "x[1][0].b"), ("c", "x[0]"), ("d", "[0]")]));
    assert_eq!(found(&[nested], r#"{"x": [null, [{"b": false}]]}"#), pairs(&[("a", "false")]));
    for path in
        ["", ".a", "a.", "a[", "a[0", "a[x]", "a[-1]", "a[1.5]", "a[[0]]", "a b", "1a", "a]", "a..b", "é", "a[null]"]
    {
        assert!(Pipeline::new(&[Stage::Json(extractions(&[("a", path)]))]).is_err(), "{path}");
    }
}

#[test]
fn a_line_that_is_not_json_as_a_whole_gives_no_label_and_an_error() {
    for line in
        ["INFO GET /", "", "[1]", "3", r#"{"a":1} x"#, r#"{"a":1"#, r#"{"a":1,}"#, "{\"a\":\"\t\"}", r#"{"a":01}"#]
    {
        let found = found(&[json()], line);
        assert_eq!(error_of(&found), Some("JSONParserErr"), "{line}");
        assert_eq!(found.len(), 2, "{line}: {found:?}");
    }
    let broken = found(&[json()], r#"{"a":x}"#);
    assert_eq!(broken[1].1, r#"expected a value, found 'x' at byte 5"#);
    let paths = Stage::Json(extractions(&[("a", "a")]));
    for line in [r#"{"a":1"#, r#"{"a":1} x"#, "[1]", "3"] {
        assert_eq!(error_of(&found(std::slice::from_ref(&paths), line)), Some("JSONParserErr"), "{line}");
    }
}

#[test]
fn what_a_line_holds_is_bounded_and_the_error_names_the_bound() {
    let labels = none();
    let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    assert_eq!(error_of(&found(&[json()], &deep(JSON_DEPTH_MAX))), None);
    let found_in = found(&[json()], &deep(JSON_DEPTH_MAX + 1));
    assert_eq!(found_in[1].1, format!("more than {JSON_DEPTH_MAX} levels of nesting"));
    let wide = |keys: usize, separator: &str, pair: fn(usize) -> String| {
        (0..keys).map(pair).collect::<Vec<_>>().join(separator)
    };
    let object = |keys| format!("{{{}}}", wide(keys, ",", |key| format!("\"k{key}\":1")));
    assert_eq!(found(&[json()], &object(FIELDS_PER_RECORD_MAX)).len(), FIELDS_PER_RECORD_MAX);
    let many = found(&[json()], &object(FIELDS_PER_RECORD_MAX + 1));
    assert_eq!(error_of(&many), Some("RecordLimitErr"));
    assert!(many[1].1.contains(&FIELDS_PER_RECORD_MAX.to_string()), "{many:?}");
    let many = found(&[logfmt(false, false, &[])], &wide(FIELDS_PER_RECORD_MAX + 1, " ", |key| format!("k{key}=1")));
    assert_eq!((error_of(&many), many.len()), (Some("RecordLimitErr"), FIELDS_PER_RECORD_MAX + 2));
    let mut fields = Fields::new(&labels, &[]);
    fields.fail(Failure::Template, "é".repeat(ERROR_DETAILS_BYTES_MAX));
    assert_eq!(fields.get(ERROR_DETAILS).map(str::len), Some(ERROR_DETAILS_BYTES_MAX));
    let long = "a".repeat(100_000);
    let nested = format!(r#"{{"{long}":{{{}}}}}"#, wide(20, ",", |key| format!("\"k{key}\":1")));
    let many = found(&[json()], &nested);
    assert_eq!(error_of(&many), Some("RecordLimitErr"));
    assert!(many[1].1.contains(&FIELD_BYTES_PER_RECORD_MAX.to_string()), "{}", many[1].1);
}

#[test]
fn logfmt_makes_a_label_of_each_pair() {
    let line = r#"at=info method=GET path=/ host=grafana.net fwd="124.133.124.161" service=8ms status=200"#;
    let expected = [
        ("at", "info"),
        ("fwd", "124.133.124.161"),
        ("host", "grafana.net"),
        ("method", "GET"),
        ("path", "/"),
        ("service", "8ms"),
        ("status", "200"),
    ];
    assert_eq!(found(&[logfmt(false, false, &[])], line), pairs(&expected));
    let wanted = [("host", "host"), ("fwd_ip", "fwd")];
    assert_eq!(
        found(&[logfmt(false, false, &wanted)], line),
        pairs(&[("fwd_ip", "124.133.124.161"), ("host", "grafana.net")])
    );
    let quoted = r#"a="x y" b.c="\"q\"\n\u00e9" 1d="" e"#;
    assert_eq!(found(&[logfmt(false, false, &[])], quoted), pairs(&[("a", "x y"), ("b_c", "\"q\"\né")]));
    assert_eq!(
        found(&[logfmt(false, true, &[])], quoted),
        pairs(&[("_1d", ""), ("a", "x y"), ("b_c", "\"q\"\né"), ("e", "")])
    );
    assert_eq!(found(&[logfmt(false, false, &[("e", "e")])], quoted), pairs(&[("e", "")]));
}

#[test]
fn logfmt_passes_over_what_is_no_pair_and_ends_there_when_it_is_strict() {
    let broken = ["=value", "foo=bar=buzz", "fo\"o=bar", "foo=b\"ar", "foo=\"bar\"x", r#"foo="\q""#];
    for pair in broken {
        let line = format!("a=1 {pair} b=2");
        assert_eq!(found(&[logfmt(false, false, &[])], &line), pairs(&[("a", "1"), ("b", "2")]), "{line}");
        let strict = found(&[logfmt(true, false, &[])], &line);
        assert_eq!(error_of(&strict), Some("LogfmtParserErr"), "{line}");
        assert_eq!(strict.last(), Some(&("a".to_owned(), "1".to_owned())), "{line}");
    }
    let open = found(&[logfmt(false, false, &[])], "a=1 b=\"never closed c=3");
    assert_eq!(open, pairs(&[("a", "1"), ("c", "3")]));
    let strict = found(&[logfmt(true, false, &[])], "a=b=c");
    assert_eq!(strict[1].1, "unexpected '=' at byte 3");
}

#[test]
fn pattern_and_regexp_make_labels_of_their_captures() {
    let line = "0.191.12.2 - - [10/Jun/2021:09:14:29 +0000] \"GET /api/plugins/versioncheck HTTP/1.1\" 200 2 \"-\" \
        \"Go-http-client/2.0\" \"13.76.247.102, 34.120.177.193\" \"TLSv1.2\" \"US\" \"\"";
    let pattern = Stage::Pattern("<ip> - - <_> \"<method> <uri> <_>\" <status> <size> <_> \"<agent>\" <_>".to_owned());
    let expected = [
        ("agent", "Go-http-client/2.0"),
        ("ip", "0.191.12.2"),
        ("method", "GET"),
        ("size", "2"),
        ("status", "200"),
        ("uri", "/api/plugins/versioncheck"),
    ];
    assert_eq!(found(&[pattern], line), pairs(&expected));
    let regexp = Stage::Regexp(r"(?P<method>\w+) (?P<path>[\w|/]+) \((?P<status>\d+?)\) (?P<duration>.*)".to_owned());
    let line = "POST /api/prom/api/v1/query_range (200) 1.5s";
    let expected =
        [("duration", "1.5s"), ("method", "POST"), ("path", "/api/prom/api/v1/query_range"), ("status", "200")];
    assert_eq!(found(std::slice::from_ref(&regexp), line), pairs(&expected));
    assert_eq!(found(&[regexp], "nothing of it"), pairs(&[]));
    let optional = Stage::Regexp("(?P<a>x)|(?P<b>y)".to_owned());
    assert_eq!(found(&[optional], "y"), pairs(&[("b", "y")]));
    for refused in ["no capture", "(unnamed)", "(?P<a.b>x)", "(", "(?P<a>x)(?P<a>y)"] {
        assert!(Pipeline::new(&[Stage::Regexp(refused.to_owned())]).is_err(), "{refused}");
    }
    let refused = Pipeline::new(&[Stage::Pattern("<a><b>".to_owned())]).err().unwrap().to_string();
    assert!(refused.contains(r#"invalid pattern "<a><b>""#), "{refused}");
}

#[test]
fn unpack_takes_the_line_and_the_labels_out_of_the_line() {
    let line =
        r#"{"container": "myapp", "app": "other", "pod": "pod-3223f", "n": 3, "_entry": "original \"log\" message"}"#;
    let (entry, labels) = through(&[Stage::Unpack], &stream(), &[], line).unwrap();
    assert_eq!(entry, "original \"log\" message");
    let expected = [
        ("app of the stream", "web"),
        ("app_extracted", "other"),
        ("container", "myapp"),
        ("level of the stream", "low"),
        ("pod", "pod-3223f"),
    ];
    assert_eq!(labels, pairs(&expected));
    let plain = r#"{"container": "myapp"}"#;
    assert_eq!(through(&[Stage::Unpack], &none(), &[], plain), Some((plain.to_owned(), pairs(&[]))));
    assert_eq!(error_of(&found(&[Stage::Unpack], "x")), Some("JSONParserErr"));
    let twice = r#"{"a": "1", "_entry": "{\"b\": \"2\", \"_entry\": \"{\\\"c\\\": 3}\"}"}"#;
    let (line, labels) = through(&[Stage::Unpack, Stage::Unpack, json()], &none(), &[], twice).unwrap();
    assert_eq!((line.as_str(), labels), (r#"{"c": 3}"#, pairs(&[("a", "1"), ("b", "2"), ("c", "3")])));
}

#[test]
fn a_name_that_the_record_has_stays_its_own() {
    let metadata = [("trace", "t"), ("level", "debug")];
    let line = r#"{"app": "a", "trace": "x", "level": "high", "new": 1, "__error__": "e"}"#;
    let expected = [
        ("__error___extracted", "e"),
        ("app of the stream", "web"),
        ("app_extracted", "a"),
        ("level of the stream", "low"),
        ("level_extracted", "high"),
        ("new", "1"),
        ("trace of the metadata", "t"),
        ("trace_extracted", "x"),
    ];
    assert_eq!(through(&[json()], &stream(), &metadata, line).unwrap().1, pairs(&expected));
    let expected = [
        ("app of the stream", "web"),
        ("level of the stream", "low"),
        ("level_extracted of the metadata", "debug"),
        ("trace of the metadata", "t"),
    ];
    let dropped = Stage::Drop(vec![LabelChoice::Name("none".to_owned())]);
    assert_eq!(through(&[dropped], &stream(), &metadata, line).unwrap().1, pairs(&expected));
    let drop = Stage::Drop(vec![LabelChoice::Name("app".to_owned())]);
    let dropped = through(&[drop, json()], &stream(), &[], r#"{"app": "a"}"#).unwrap().1;
    assert_eq!(dropped, pairs(&[("app_extracted", "a"), ("level of the stream", "low")]));
}

#[test]
fn of_a_name_found_twice_the_first_value_stands() {
    assert_eq!(found(&[json()], r#"{"a": 1, "a": 2, "b": {"c": 3}, "b_c": 4}"#), pairs(&[("a", "1"), ("b_c", "3")]));
    assert_eq!(found(&[Stage::Json(extractions(&[("x", "a")]))], r#"{"a": 1, "a": 2}"#), pairs(&[("x", "1")]));
    assert_eq!(found(&[logfmt(false, false, &[])], "a=1 a=2"), pairs(&[("a", "1")]));
    let regexp = Stage::Regexp("(?P<a>.)(?P<b>.)".to_owned());
    assert_eq!(found(&[logfmt(false, false, &[]), regexp], "a=1"), pairs(&[("a", "1"), ("b", "=")]));
    let drop = Stage::Drop(vec![LabelChoice::Name("a".to_owned())]);
    assert_eq!(found(&[json(), drop, json()], r#"{"a": 1, "b": 2}"#), pairs(&[("b", "2")]));
    let rename =
        |label: &str, from: &str| LabelFormat { label: label.to_owned(), source: LabelSource::Rename(from.to_owned()) };
    let renamed = Stage::LabelFormat(vec![rename("a", "app"), rename("c", "b")]);
    let found = through(&[json(), renamed, json()], &stream(), &[], r#"{"a": 1, "b": 2, "c": 3}"#).unwrap().1;
    assert_eq!(found, pairs(&[("a of the stream", "web"), ("c", "2"), ("level of the stream", "low")]));
}

#[test]
fn labels_are_compared_as_what_they_are_compared_with() {
    let line = r#"{"n": "1e3", "d": "1.5s", "b": "20 KB", "ip": "10.1.2.3", "word": "abc", "empty": ""}"#;
    let passes = |filter: LabelFilter| {
        let seen = through(&[json(), Stage::Labels(filter)], &stream(), &[], line);
        assert!(seen.as_ref().is_none_or(|(_, found)| error_of(found).is_none()), "{seen:?}");
        seen.is_some()
    };
    for (op, expected) in Compare::ALL.into_iter().zip([true, false, false, true, false, true]) {
        let name = |name: &str| name.to_owned();
        assert_eq!(passes(LabelFilter::Number { name: name("n"), op, value: 1000.0 }), expected);
        assert_eq!(passes(LabelFilter::Duration { name: name("d"), op, value: 1_500_000_000 }), expected);
        assert_eq!(passes(LabelFilter::Bytes { name: name("b"), op, value: 20_000 }), expected);
    }
    let ip = |negative| LabelFilter::Ip { name: "ip".to_owned(), negative, range: "10.0.0.0/8".to_owned() };
    assert!(passes(ip(false)) && !passes(ip(true)));
    assert!(passes(text("word", MatchOp::Equal, "abc")) && !passes(text("word", MatchOp::Matches, "ab")));
    assert!(passes(text("absent", MatchOp::Equal, "")) && passes(text("app", MatchOp::NotMatches, "wet")));
    assert!(!passes(above("absent", 0.0)), "a number that is absent is none");
    let absent = LabelFilter::Ip { name: "absent".to_owned(), negative: true, range: "::1".to_owned() };
    assert!(!passes(absent), "an address that is absent is none");
    let both = |left, right| LabelFilter::And(Box::new(left), Box::new(right));
    let either = |left, right| LabelFilter::Or(Box::new(left), Box::new(right));
    let (yes, no) = (|| above("n", 0.0), || above("n", 1e9));
    assert!(passes(both(yes(), yes())) && !passes(both(yes(), no())) && !passes(both(no(), yes())));
    assert!(passes(either(yes(), no())) && passes(either(no(), yes())) && !passes(either(no(), no())));
    let bad = LabelFilter::Ip { name: "ip".to_owned(), negative: false, range: "10.0".to_owned() };
    assert!(Pipeline::new(&[Stage::Labels(bad)]).is_err());
}

#[test]
fn a_label_that_cannot_be_read_is_an_error_and_the_record_stays() {
    let filter = |filter| [json(), Stage::Labels(filter)];
    let line = r#"{"word": "abc", "empty": ""}"#;
    assert_eq!(error_of(&found(&filter(above("word", 0.0)), line)), Some("LabelFilterErr"));
    let passes = |stages: &[Stage], line| through(stages, &stream(), &[], line).is_some();
    assert!(!passes(&filter(above("empty", 0.0)), line), "an empty label is an absent one");
    let broken = through(&filter(above("app", 0.0)), &stream(), &[], "x").unwrap().1;
    assert_eq!(error_of(&broken), Some("JSONParserErr"), "what went wrong first is kept");
    assert!(!passes(&filter(above("absent", 0.0)), "x"), "an absent label is absent whatever went wrong");
    assert!(!passes(&filter(above(ERROR, 0.0)), "x"), "an error is no number");
    let ip = || LabelFilter::Ip { name: "absent".to_owned(), negative: false, range: "::1".to_owned() };
    assert!(passes(&filter(ip()), "x") && !passes(&filter(ip()), "{}"), "an address lets errors pass");
    assert!(passes(&filter(text(ERROR, MatchOp::Equal, "JSONParserErr")), "x"));
    assert!(!passes(&filter(text(ERROR, MatchOp::Equal, "")), "x"));
    assert!(passes(&filter(text(ERROR, MatchOp::Equal, "")), "{}"));
}

#[test]
fn numbers_are_read_as_go_reads_them() {
    for (text, number) in [("1", 1.0), ("-1.5e3", -1500.0), (".5", 0.5), ("5.", 5.0), ("+inf", f64::INFINITY)] {
        assert_eq!(labels::number(text), Some(number), "{text}");
    }
    assert!(labels::number("NaN").is_some_and(f64::is_nan));
    for text in ["", " 1", "1 ", "1e999", "-nan", "1_000", "1,5", "abc", "--1"] {
        assert_eq!(labels::number(text), None, "{text}");
    }
}

#[test]
fn drop_and_keep_choose_by_name_and_by_value() {
    let line = r#"{"level": "info", "method": "GET", "path": "/", "app": "some-api-service"}"#;
    let name = |name: &str| LabelChoice::Name(name.to_owned());
    let with = |name: &str, op, value: &str| LabelChoice::Where(matcher(name, op, value));
    let choices =
        || vec![name("level"), with("method", MatchOp::Equal, "GET"), with("app", MatchOp::Matches, "other.*")];
    let drop = [json(), Stage::Drop(choices())];
    assert_eq!(found(&drop, line), pairs(&[("app", "some-api-service"), ("path", "/")]));
    let keep = [json(), Stage::Keep(choices())];
    assert_eq!(found(&keep, line), pairs(&[("level", "info"), ("method", "GET")]));
    let kept = through(&keep, &stream(), &[("k", "v")], "x").unwrap().1;
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [ERROR, ERROR_DETAILS, "level of the stream"]);
    let without_error = [json(), Stage::Drop(vec![name(ERROR), name(ERROR_DETAILS)])];
    assert_eq!(through(&without_error, &none(), &[], "INFO GET /"), Some(("INFO GET /".to_owned(), pairs(&[]))));
}

#[test]
fn a_renamed_label_keeps_its_origin_and_an_absent_one_renames_nothing() {
    let rename =
        |label: &str, from: &str| LabelFormat { label: label.to_owned(), source: LabelSource::Rename(from.to_owned()) };
    let stages = [Stage::LabelFormat(vec![rename("service", "app"), rename("trace", "k"), rename("level", "absent")])];
    let labels = stream();
    let renamed = through(&stages, &labels, &[("k", "v")], "x").unwrap().1;
    let expected = [("level of the stream", "low"), ("service of the stream", "web"), ("trace of the metadata", "v")];
    assert_eq!(renamed, pairs(&expected));
    let pipeline = Pipeline::new(&stages).unwrap();
    let record = Record { timestamp: 0, line: "x", labels: &labels, metadata: &[] };
    let changed = pipeline.run(&record).unwrap().fields.stream();
    assert_eq!(changed, Some(Labels::new([("level", "low"), ("service", "web")])));
    let parsed = Pipeline::new(&[json()]).unwrap();
    assert_eq!(parsed.run(&record).unwrap().fields.stream(), None);
}

#[test]
fn templates_write_line_and_labels_and_an_error_leaves_them_as_they_are() {
    let line_format = |text: &str| Stage::LineFormat(text.to_owned());
    let write = |label: &str, text: &str| LabelFormat {
        label: label.to_owned(),
        source: LabelSource::Template(text.to_owned()),
    };
    let line = r#"{"status": 200, "app": "x"}"#;
    let stages =
        [json(), line_format("{{.app}} {{.app_extracted}} {{.status}}{{.absent}} {{__line__}}"), contains("web x 200")];
    let (written, labels) = through(&stages, &stream(), &[], line).unwrap();
    assert_eq!(written, format!("web x 200 {line}"));
    assert_eq!(labels.len(), 4);
    let formats =
        vec![write("app", "{{.app}}!"), write("level", "{{.app}}"), write("new", "{{__timestamp__ | unixEpochNanos}}")];
    let (kept, labels) = through(&[Stage::LabelFormat(formats)], &stream(), &[], line).unwrap();
    assert_eq!((kept.as_str(), labels), (line, pairs(&[("app", "web!"), ("level", "web!"), ("new", "7")])));
    let broken = "{{div 1 0}}";
    let stages = [line_format(broken), Stage::LabelFormat(vec![write("app", broken), write("level", "new")])];
    let (kept, labels) = through(&stages, &stream(), &[], line).unwrap();
    assert_eq!((kept.as_str(), error_of(&labels)), (line, Some("TemplateFormatErr")));
    assert_eq!(labels[2..], pairs(&[("app of the stream", "web"), ("level", "new")]));
    assert!(Pipeline::new(&[line_format("{{.x")]).is_err());
    let regex = r#"{{regexReplaceAll "a" .x "b"}}"#;
    let many = vec![line_format(regex); QUERY_REGEXES_MAX + 1];
    assert!(Pipeline::new(&many[1..]).is_ok() && Pipeline::new(&many).is_err());
}

#[test]
fn what_templates_write_into_labels_is_bounded() {
    let long = "x".repeat(LINE_BYTES_MAX);
    let write = |label: usize| LabelFormat {
        label: format!("l{label}"),
        source: LabelSource::Template("{{__line__}}".to_owned()),
    };
    let found = found(&[Stage::LabelFormat((0..5).map(write).collect())], &long);
    assert_eq!(error_of(&found), Some("RecordLimitErr"));
    assert_eq!(found.iter().filter(|(_, value)| *value == long).count(), 3);
}

#[test]
fn decolorize_takes_control_sequences_out_of_the_line() {
    let lines = [
        ("[2022-11-04 22:17:57.811] \x1b[0;32mhttp\x1b[0m: GET", "[2022-11-04 22:17:57.811] http: GET"),
        ("\x1b[38;5;196mred\x1b[K\x1b(B é", "red é"),
        ("\u{9b}1mbold\u{9b}m", "bold"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \x1bPq\x1b[\x1b\\.", "link ."),
        ("\x1b]never ended \x1b[1mx", "\x1b]never ended x"),
        ("\x1b[1\u{e9} \x1b", "\x1b[1\u{e9} \x1b"),
        ("plain", "plain"),
    ];
    for (line, expected) in lines {
        assert_eq!(through(&[Stage::Decolorize], &none(), &[], line).unwrap().0, expected, "{line:?}");
    }
}

#[test]
fn filters_before_the_line_can_change_run_first_and_the_others_in_their_place() {
    let stages = |stages: &[Stage]| Pipeline::new(stages).unwrap();
    let early = stages(&[contains("a"), json(), contains("b")]);
    assert!(early.leading().matches(b"ab") && !early.leading().matches(b"a") && !early.is_plain());
    assert!(stages(&[contains("a")]).is_plain());
    let unpacked = [Stage::Unpack, contains("original")];
    assert!(stages(&unpacked).leading().is_empty());
    assert!(through(&unpacked, &none(), &[], r#"{"_entry": "original"}"#).is_some());
    assert!(through(&unpacked, &none(), &[], r#"{"_entry": "x", "y": "original"}"#).is_none());
}

fn unwrapped(unwrap: &Unwrap, line: &str) -> Option<(f64, Vec<(String, String)>)> {
    let (pipeline, labels) = (Pipeline::new(&[json()]).unwrap(), none());
    let mut processed = pipeline.run(&Record { timestamp: 0, line, labels: &labels, metadata: &[] }).unwrap();
    let value = Unwrapped::new(unwrap).unwrap().read(&mut processed.fields)?;
    Some((value, marked(&processed.fields)))
}

#[test]
fn unwrap_reads_a_number_and_takes_its_label_away() {
    let unwrap = |convert| Unwrap { label: "x".to_owned(), convert, filters: Vec::new() };
    let read = |convert, value: &str| {
        let (number, rest) = unwrapped(&unwrap(convert), &format!(r#"{{"x": "{value}", "y": 1}}"#)).unwrap();
        assert_eq!(rest.last(), Some(&("y".to_owned(), "1".to_owned())));
        error_of(&rest).is_none().then_some(number)
    };
    assert_eq!(read(Convert::Number, "1.5"), Some(1.5));
    assert_eq!(read(Convert::Duration, "1m0.5s"), Some(60.5));
    assert_eq!(read(Convert::DurationSeconds, "-5ms"), Some(-0.005));
    assert_eq!(read(Convert::Bytes, "5 MiB"), Some(5.0 * 1024.0 * 1024.0));
    for convert in [Convert::Number, Convert::Duration, Convert::Bytes] {
        assert_eq!(read(convert, "abc"), None);
        assert_eq!(unwrapped(&unwrap(convert), "{}"), None);
        assert_eq!(unwrapped(&unwrap(convert), r#"{"x": ""}"#), None);
    }
    let bad = unwrapped(&unwrap(Convert::Number), r#"{"x": "abc"}"#).unwrap();
    assert_eq!((bad.0, error_of(&bad.1)), (0.0, Some("SampleExtractionErr")));
    let filtered =
        Unwrap { filters: vec![text(ERROR, MatchOp::Equal, ""), above("x", 2.0)], ..unwrap(Convert::Number) };
    assert_eq!(unwrapped(&filtered, r#"{"x": "abc"}"#), None);
    assert_eq!(unwrapped(&filtered, r#"{"x": 2}"#), None);
    assert_eq!(unwrapped(&filtered, r#"{"x": 3}"#), Some((3.0, pairs(&[]))));
}

fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,6}|[\"\\\\\n\t/é😀]{0,4}".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c.1é]{0,3}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    });
    prop::collection::btree_map("[a-c.1é\"]{0,3}", value, 0..5).prop_map(|map| map.into_iter().collect())
}

/// What a walk over a tree of values finds, in the order of keys.
fn walked(value: &Value, name: &str, found: &mut Vec<(String, String)>) {
    let sanitised =
        |key: &str| -> String { key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect() };
    for (key, value) in value.as_object().unwrap() {
        let first = if key.starts_with('1') { "_" } else { "" };
        let name =
            if name.is_empty() { format!("{first}{}", sanitised(key)) } else { format!("{name}_{}", sanitised(key)) };
        let text = match value {
            Value::Object(_) if name.is_empty() => continue,
            Value::Object(_) => {
                walked(value, &name, found);
                continue;
            }
            Value::Array(_) | Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
        };
        if !name.is_empty() && found.iter().all(|(known, _)| *known != name) {
            found.push((name, text));
        }
    }
}

proptest! {
    #[test]
    fn json_finds_what_a_walk_over_the_document_finds(document in document(), pretty in any::<bool>()) {
        let mut document = document;
        // A nested object without a name of its own is named differently by a walk that knows no more than names.
        document.as_object_mut().unwrap().remove("");
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let mut expected = Vec::new();
        walked(&document, "", &mut expected);
        expected.sort();
        prop_assert_eq!(found(&[json()], &text.unwrap()), expected);
    }

    #[test]
    fn what_is_json_is_agreed_with_another_parser(line in "[{}\\[\\]:,\"\\\\0-2.eE+\\-truefalsn ab]{0,12}|\\{\"a\":[ -~]{0,8}\\}") {
        let found = found(&[json()], &line);
        let theirs = serde_json::from_str::<Value>(&line);
        // It refuses numbers that no double holds.
        prop_assume!(!theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range")));
        prop_assert_eq!(error_of(&found).is_none(), theirs.is_ok_and(|value| value.is_object()), "{}", line);
    }

    #[test]
    fn a_path_finds_what_lies_at_its_end(document in document(), turns in prop::collection::vec(0_usize..4, 1..5)) {
        let (mut expression, mut value) = (String::new(), &document);
        for turn in turns {
            let (part, next) = match value {
                Value::Object(fields) if !fields.is_empty() => {
                    let (key, next) = fields.iter().nth(turn % fields.len()).unwrap();
                    (format!("[{}]", Value::from(key.as_str())), next)
                }
                Value::Array(items) if !items.is_empty() => {
                    (format!("[{}]", turn % items.len()), &items[turn % items.len()])
                }
                Value::Object(_) => ("[\"absent\"]".to_owned(), &Value::Null),
                Value::Array(_) => (format!("[{turn}]"), &Value::Null),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => break,
            };
            expression.push_str(&part);
            value = next;
        }
        let expected = match value {
            Value::Null => pairs(&[]),
            Value::String(text) => pairs(&[("x", text)]),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => pairs(&[("x", &value.to_string())]),
        };
        let stage = Stage::Json(extractions(&[("x", &expression)]));
        prop_assert_eq!(found(&[stage], &document.to_string()), expected);
    }

    #[test]
    fn logfmt_reads_back_what_was_written(written in prop::collection::btree_map("[a-z]{1,4}", "\\PC{1,6}|[\"\\\\\n =é]{1,4}", 0..5)) {
        let pairs: Vec<String> = written.iter().map(|(key, value)| format!("{key}={}", Value::from(value.as_str()))).collect();
        let expected: Vec<(String, String)> = written.into_iter().collect();
        prop_assert_eq!(found(&[logfmt(true, false, &[])], &pairs.join(" ")), expected);
    }

    #[test]
    fn no_line_stops_the_stages(line in "\\PC*|[{}\"=\\\\a\u{1b}\u{9b}\\[\\];m0 \u{7}é]{0,24}", expression in "\\PC{0,8}|[a.\\[\\]\"0]{0,8}") {
        let path = Pipeline::new(&[Stage::Json(extractions(&[("x", &expression)]))]);
        let stages = [
            json(),
            logfmt(false, true, &[]),
            logfmt(true, false, &[("a", "a")]),
            Stage::Pattern("<a>=<b> <_>".to_owned()),
            Stage::Regexp("(?P<c>=.*)".to_owned()),
            Stage::Decolorize,
            Stage::Unpack,
        ];
        let labels = stream();
        let record = Record { timestamp: 0, line: &line, labels: &labels, metadata: &[("k", "v")] };
        prop_assert!(Pipeline::new(&stages).unwrap().run(&record).is_some());
        if let Ok(path) = path {
            prop_assert!(path.run(&record).is_some());
        }
    }

    #[test]
    fn a_line_is_decolorized_once_for_all(line in "[\u{1b}\u{9b}\\[\\]();0-9mKé \u{7}\\\\x]{0,24}") {
        let once = through(&[Stage::Decolorize], &none(), &[], &line).unwrap().0;
        prop_assert!(once.len() <= line.len());
        if !line.contains(['\u{1b}', '\u{9b}']) {
            prop_assert_eq!(once, line);
        }
    }
}
