//! The examples of Loki's documentation.

use millpond::query::ast::Expr;
use millpond::query::parser;

use super::*;

/// The labels and the line that a record with this line is left with; `None` where it is left out.
fn run(line: &str, pipeline: &str) -> Option<(Set, String)> {
    let Expr::Logs(logs) = parser::parse(&format!("{{job=\"varlogs\"}} {pipeline}")).unwrap() else { panic!("logs") };
    let labels = Set::from([("job".to_owned(), "varlogs".to_owned())]);
    let record =
        Record { timestamp: 1_679_577_215_123_456_789, place: (0, 0), labels, metadata: vec![], line: line.to_owned() };
    Entry::select(&record, &logs).map(|entry| (entry.labels(), entry.line))
}

/// The labels beside the stream's, as `name=value`.
fn labels(line: &str, pipeline: &str) -> Vec<String> {
    let (labels, _) = run(line, pipeline).unwrap();
    labels.iter().filter(|(name, _)| *name != "job").map(|(name, value)| format!("{name}={value}")).collect()
}

const DOCUMENT: &str = r#"{"protocol": "HTTP/2.0", "servers": ["129.0.1.1","10.2.1.3"], "request": {"time": "6.032",
    "method": "GET", "headers": {"Accept": "*/*", "User-Agent": "curl/7.68.0"}}, "response": {"status": 401}}"#;
const NGINX: &str = r#"0.191.12.2 - - [10/Jun/2021:09:14:29 +0000] "GET /api/plugins/versioncheck HTTP/1.1" 200 2 "-" "Go-http-client/2.0" "13.76.247.102, 34.120.177.193" "TLSv1.2" "US" """#;

#[test]
fn parsers_find_what_the_documentation_says() {
    let json = [
        "protocol=HTTP/2.0",
        "request_headers_Accept=*/*",
        "request_headers_User_Agent=curl/7.68.0",
        "request_method=GET",
        "request_time=6.032",
        "response_status=401",
    ];
    assert_eq!(labels(DOCUMENT, "| json"), json);
    let fields = r#"| json first_server="servers[0]", ua="request.headers[\"User-Agent\"]", servers"#;
    let servers = r#"servers=["129.0.1.1","10.2.1.3"]"#;
    assert_eq!(labels(DOCUMENT, fields), ["first_server=129.0.1.1", servers, "ua=curl/7.68.0"]);
    assert_eq!(labels(r#"{ "a.b": {"c": "d"}, "e": "f" }"#, "| json"), ["a_b_c=d", "e=f"]);
    let line = r#"at=info method=GET path=/ host=grafana.net fwd="124.133.124.161" service=8ms status=200"#;
    assert_eq!(labels(line, "| logfmt").len(), 7);
    assert_eq!(labels(line, "| logfmt host, fwd_ip=\"fwd\""), ["fwd_ip=124.133.124.161", "host=grafana.net"]);
    for bad in ["=value a=1", "foo=bar=buzz a=1", "fo\"o=bar a=1"] {
        assert_eq!(labels(bad, "| logfmt"), ["a=1"]);
        assert_eq!(labels(bad, "| logfmt --strict"), ["__error__=LogfmtParserErr"]);
    }
    let pattern = r#"| pattern `<ip> - - <_> "<method> <uri> <_>" <status> <size> <_> "<agent>" <_>`"#;
    let found = [
        "agent=Go-http-client/2.0",
        "ip=0.191.12.2",
        "method=GET",
        "size=2",
        "status=200",
        "uri=/api/plugins/versioncheck",
    ];
    assert_eq!(labels(NGINX, pattern), found);
    let regexp = r"| regexp `(?P<method>\w+) (?P<path>[\w|/]+) \((?P<status>\d+?)\) (?P<duration>.*)`";
    let found = ["duration=1.5s", "method=POST", "path=/api/prom/api/v1/query_range", "status=200"];
    assert_eq!(labels("POST /api/prom/api/v1/query_range (200) 1.5s", regexp), found);
    let packed = r#"{"container": "myapp", "pod": "pod-3223f", "_entry": "original log message"}"#;
    assert_eq!(run(packed, "| unpack").unwrap().1, "original log message");
    assert_eq!(labels("INFO GET / loki.net 200", "| json | drop __error__"), [""; 0]);
    assert_eq!(labels("INFO GET / loki.net 200", "| json"), ["__error__=JSONParserErr"]);
}

#[test]
fn labels_are_kept_and_dropped_as_the_documentation_says() {
    let some = r#"{"app": "some-api-service", "level": "info", "method": "GET", "path": "/", "host": "grafana.net"}"#;
    let other = some.replace("some-api-service", "other-service").replace("GET", "POST");
    let drop = "| json | drop level, path, app=~\"some-api.*\"";
    assert_eq!(labels(some, drop), ["host=grafana.net", "method=GET"]);
    assert_eq!(labels(&other, drop), ["app=other-service", "host=grafana.net", "method=POST"]);
    let keep = "| json | keep level, tenant, app=~\"some-api.*\"";
    assert_eq!(run(some, keep).unwrap().0.len(), 2);
    assert_eq!(labels(&other, keep), ["level=info"]);
    let renamed = "| json | label_format verb=method, both=\"{{.app}} {{.level}}\" | keep verb, both";
    assert_eq!(labels(some, renamed), ["both=some-api-service info", "verb=GET"]);
}

#[test]
fn label_filters_read_numbers_durations_bytes_and_addresses() {
    let line = "took=1m30s size=1.5KiB n=4.5 bad=soon addr=192.168.4.2";
    for passes in [
        "took > 1m",
        "took == 90s",
        "size >= 1536B",
        "size < 2KB",
        "n = 4.5",
        "bad > 1s",
        "addr = ip(\"192.168.4.5/16\")",
        "addr != ip(\"192.168.4.3-192.168.4.9\")",
        "n > 5 or took > 1s",
        "missing = \"\"",
    ] {
        assert!(run(line, &format!("| logfmt | {passes}")).is_some(), "{passes}");
    }
    for fails in ["took > 2m", "size != 1536B", "n > 4 and took > 1h", "__error__ > 0", "missing > 1", "bad = \"\""] {
        assert!(run(line, &format!("| logfmt | {fails}")).is_none(), "{fails}");
    }
    assert!(labels(line, "| logfmt | bad > 1s").contains(&"__error__=LabelFilterErr".to_owned()));
    let lines = ["3.180.71.3 - -", "93.180.71.3 - -"];
    let found = lines.map(|line| run(line, "|= ip(\"3.180.71.3\")").is_some());
    assert_eq!(found, [true, false]);
}

#[test]
fn templates_write_what_the_documentation_says() {
    for (template, written) in [
        ("{{ alignLeft 5 \"hello world\"}}", "hello"),
        ("{{ alignLeft 5 \"hi\"}}|", "hi   |"),
        ("{{ alignRight 5 \"hello world\"}}", "world"),
        ("{{ alignRight 5 \"hi\"}}", "   hi"),
        ("{{ default \"-\" \"\" }}{{ default \"-\" \"foo\" }}", "-foo"),
        ("{{ repeat 3 \"hello\" }}", "hellohellohello"),
        ("{{ replace \"hello\" \"world\" \"hello world\" }}", "world world"),
        ("{{ substr 0 5 \"hello world\"}}{{ substr 6 11 \"hello world\"}}", "helloworld"),
        ("{{ title \"hello world\"}}", "Hello World"),
        ("{{ trimAll \"$\" \"$5.00\" }}", "5.00"),
        ("{{ trimPrefix \"-\" \"-hello\" }}{{ trimSuffix \"-\" \"hello-\" }}", "hellohello"),
        ("{{ trunc 5 \"hello world\"}}{{ trunc -5 \"hello world\"}}", "helloworld"),
        ("{{ add 3 2 5 }} {{ addf 3.5 2 5 }} {{ ceil 123.001 }} {{ div 10 2}} {{ divf 10 2 4}}", "10 10.5 124 5 1.25"),
        ("{{ floor 123.9999 }} {{ \"3\" | int }} {{ max 1 2 3 }} {{ maxf 1 2.5 3 }}", "123 3 3 3"),
        ("{{ min 1 2 3 }} {{ minf 1 2.5 3 }} {{ mul 5 2 3}} {{ mulf 5.5 2 2.5 }} {{ mod 10 3}}", "1 1 30 27.5 1"),
        (
            "{{ round 123.555555 3 }} {{ round 123.88571428571 5 .2 }} {{ round 123.88571428571 5 }}",
            "123.556 123.88572 123.88571",
        ),
        ("{{ sub 5 2 }} {{ subf  5.5 2 1.5 }} {{ mulf 1000 1000 }}", "3 2 1e+06"),
        ("{{ count \"a|b\" \"abab\" }}{{ count \"o\" \"foo\" }}", "42"),
        ("{{ if and (contains \"he\" \"hello\") (contains \"llo\" \"hello\") }} yes {{end}}", " yes "),
        (
            "{{ if contains \"x\" \"y\" }} timeout {{else if contains \"he\" \"hello\"}} yes {{else}} no {{end}}",
            " yes ",
        ),
        ("{{ range $q := fromJson \"[{\\\"query\\\": 1}, {\\\"query\\\": 2}]\" }}{{ $q.query }};{{ end }}", "1;2;"),
        ("{{ date \"2006-01-02\" (unixToTime \"1679577215\") }}", "2023-03-23"),
        ("{{ toDateInZone \"2006-01-02\" \"UTC\" \"2021-11-02\" | unixEpoch }}", "1635811200"),
        ("{{ __timestamp__ }}", "2023-03-23 13:13:35.123456789 +0000 UTC"),
        ("{{ __timestamp__ | date \"2006-01-02T15:04:05.00Z-07:00\" }}", "2023-03-23T13:13:35.12Z+00:00"),
        ("{{ b64enc \"hello\" }} {{ b64dec \"aGVsbG8=\" }}", "aGVsbG8= hello"),
        ("{{ urlencode \"a b/c\" }} {{ urldecode \"a+b%2Fc\" }}", "a+b%2Fc a b/c"),
        ("{{ printf \"%-40.4s|\" \"/a/509965767\" }}", "/a/5                                    |"),
        ("{{ nindent 2 \"a\" }}{{ .job }}{{- \" x\" -}} {{ .missing }}", "\n  avarlogs x"),
        ("{{ duration \"1m30s\" }} {{ bytes \"2KB\" }}", "90 2000"),
    ] {
        let pipeline = format!("| line_format `{template}`");
        assert_eq!(run("line", &pipeline).map(|(_, line)| line), Some(written.to_owned()), "{template}");
    }
    let failed = run("line", "| line_format `{{ div 1 0 }}`").unwrap();
    assert_eq!((failed.0["__error__"].as_str(), failed.1.as_str()), ("TemplateFormatErr", "line"));
}
