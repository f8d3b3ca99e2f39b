//! Templates against what Loki's and Go's documentation say of them.

use proptest::prelude::*;

use super::{Cause, Context, Template, TemplateError};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_DEPTH_MAX};

const LABELS: [(&str, &str); 16] = [
    ("a", "1"),
    ("cluster", "eu-cluster"),
    ("createDate", "2021-11-02"),
    ("duration", "3000"),
    ("empty", ""),
    ("err", "got ErrTimeout"),
    ("foo", "1h30m"),
    ("from", "1679577215"),
    ("ip", "  1.1.1.1 "),
    ("number", "3.5"),
    ("path", "/api/v1 x/"),
    ("queries", r#"[{"query": "a", "n": 1}, {"query": "b"}]"#),
    ("remote_addr", "129.168.1.1"),
    ("request_method", "GET"),
    ("size", "1.5KiB"),
    ("status", "200"),
];

fn rendered(template: &str) -> Result<String, TemplateError> {
    let lookup = |name: &str| LABELS.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
    let context = Context { line: "The LINE", timestamp: 1_700_000_000_123_456_789, lookup: &lookup };
    Template::new(template)?.render(&context)
}

#[track_caller]
fn agree(table: &[(&str, &str)]) {
    for (template, want) in table {
        assert_eq!(rendered(template).as_deref(), Ok(*want), "{template}");
    }
}

#[track_caller]
fn refused(table: &[(&str, &str)]) {
    for (template, want) in table {
        let error = rendered(template).unwrap_err().to_string();
        assert!(error.contains(want), "{template}: {error}");
    }
}

#[test]
fn labels_line_and_timestamp_are_written() {
    agree(&[
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("{{.status}} {{ .request_method }}", "200 GET"),
        ("{{ .absent }}|{{ .empty }}", "|"),
        ("{{ $.status }}", "200"),
        ("{{ __line__ }}", "The LINE"),
        ("{{ __line__ | lower }}", "the line"),
        ("{{ __timestamp__ }}", "2023-11-14 22:13:20.123456789 +0000 UTC"),
        ("{{ __timestamp__ | date \"2006-01-02T15:04:05.00Z-07:00\" }}", "2023-11-14T22:13:20.12Z+00:00"),
        ("{{ __timestamp__ | unixEpoch }}", "1700000000"),
        ("{{ .path | replace \" \" \"_\" | trunc 5 | upper }}", "/API/"),
        ("{{.ip | trim}} {{.status}} {{div .duration 1000}}", "1.1.1.1 200 3"),
        ("{{true}} {{false}} {{1}} {{-2.50}} {{'a'}} {{\"q\\n\\u00e9\"}} {{`r\\n`}}", "true false 1 -2.5 97 q\né r\\n"),
    ]);
}

#[test]
fn blanks_and_comments_go_where_they_are_told_to() {
    agree(&[
        ("a {{- 1 -}} b", "a1b"),
        ("a \n\t{{- \"x\" }} b", "ax b"),
        ("a{{/* a comment }} */}}b", "ab"),
        ("a {{- /* a comment */ -}} b", "ab"),
        ("{{\n1\n}}", "1"),
        ("{{-1}}", "-1"),
        ("{{ \"}}\" }}", "}}"),
    ]);
}

#[test]
fn blocks_choose_and_repeat() {
    agree(&[
        ("{{ if and (contains \"he\" \"hello\") (contains \"llo\" \"hello\") }} yes {{end}}", " yes "),
        ("{{ if or (contains \"he\" \"hello\") (contains \"x\" \"hello\") }} yes {{end}}", " yes "),
        (
            "{{ if contains \"ErrTimeout\" .err }} timeout {{else if contains \"he\" .err}} yes {{else}} no {{end}}",
            " timeout ",
        ),
        ("{{ if contains \"x\" .err }} timeout {{else if contains \"he\" \"hello\"}} yes {{else}} no {{end}}", " yes "),
        ("{{ if contains \"x\" .err }} timeout {{else if contains \"x\" \"hello\"}} yes {{else}} no {{end}}", " no "),
        ("{{ if .absent }}a{{else}}b{{end}}{{ if .status }}c{{end}}", "bc"),
        ("{{ range $q := fromJson .queries }} {{ $q.query }} {{ end }}", " a  b "),
        ("{{ range $i, $q := fromJson .queries }}{{$i}}={{.query}};{{ end }}", "0=a;1=b;"),
        ("{{ range $k, $v := fromJson \"{\\\"b\\\": 2, \\\"a\\\": [1]}\" }}{{$k}}={{$v}};{{ end }}", "a=[1];b=2;"),
        ("{{ range fromJson \"[]\" }}x{{else}}none{{end}}", "none"),
        ("{{ range 3 }}{{.}}{{end}}", "012"),
        ("{{ range $i := 9 }}{{if eq $i 1}}{{continue}}{{end}}{{if eq $i 4}}{{break}}{{end}}{{$i}}{{end}}", "023"),
        ("{{ with .status }}<{{.}} {{$.a}}>{{end}}{{with .empty}}x{{else}}-{{end}}", "<200 1>-"),
        ("{{ with $x := .a }}{{$x}}{{.}}{{end}}", "11"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{end}}{{ $x }}", "2"),
        ("{{ (fromJson \"{\\\"a\\\": {\\\"b\\\": true}}\").a.b }}", "true"),
        ("{{ and 1 0 (div 1 0) }}{{ or 0 2 (div 1 0) }}{{ not 0 }}", "02true"),
    ]);
}

#[test]
fn the_documented_text_functions_give_what_is_documented() {
    agree(&[
        ("{{ alignLeft 5 \"hello world\"}}", "hello"),
        ("{{ alignLeft 5 \"hi\"}}|", "hi   |"),
        ("{{ alignRight 5 \"hello world\"}}", "world"),
        ("{{ alignRight 5 \"hi\"}}", "   hi"),
        ("{{ .status | b64enc }} {{ \"a\" | b64enc }} {{ b64enc \"ab\" }}", "MjAw YQ== YWI="),
        ("{{ b64dec \"MjAw\" }} {{ b64dec \"YQ\" }} {{ b64dec \"YQ==\" }}", "200 a a"),
        ("{{ .size | bytes }} {{ bytes \"5 MiB\" }}", "1536 5.24288e+06"),
        ("{{ default \"-\" \"\" }} {{ default \"-\" \"foo\" }}", "- foo"),
        ("{{.http_request_headers_x_forwarded_for | default \"-\"}}", "-"),
        ("{{fromJson \"{\\\"foo\\\": 55}\"}}", "map[foo:55]"),
        ("{{fromJson \"[1, \\\"a\\\", null, true]\"}}|{{fromJson \"{\"}}", "[1 a <nil> true]|"),
        ("{{ .request_method | lower }} {{ lower  \"HELLO\"}} {{ upper \"hello\" }}", "get hello HELLO"),
        ("{{ lower \"É\" }} {{ upper \"éß\" }}", "é Éß"),
        ("{{ indent 4 \"a\\nb\" }}", "    a\n    b"),
        ("{{ nindent 2 \"a\\nb\" }}", "\n  a\n  b"),
        ("{{ repeat 3 \"hello\" }}", "hellohellohello"),
        ("{{ .cluster | replace \"-cluster\" \"\" }}", "eu"),
        ("{{ replace \"hello\" \"world\" \"hello world\" }}", "world world"),
        ("{{ replace \"\" \"-\" \"ab\" }}", "-a-b-"),
        ("{{ .path | substr 2 5 }}", "pi/"),
        ("{{ substr 0 5 \"hello world\"}} {{ substr 6 11 \"hello world\"}}", "hello world"),
        ("{{ substr -1 2 \"hello\"}} {{ substr 3 -1 \"hello\"}} {{ substr 3 99 \"hello\"}}", "he lo lo"),
        ("{{ substr 3 2 \"hello\"}}|{{ substr 1 2 \"é→x\"}}", "|→"),
        ("{{.request_method | title}} {{ title \"hello world\"}}", "GET Hello World"),
        ("{{ .ip | trim }}|{{ trim \"   hello    \" }}|", "1.1.1.1|hello|"),
        ("{{ .path | trimAll \"/\" }} {{ trimAll \"$\" \"$5.00\" }}", "api/v1 x 5.00"),
        ("{{ .path | trimPrefix \"/\" }} {{ trimPrefix \"-\" \"-hello\" }}", "api/v1 x/ hello"),
        ("{{ .path | trimSuffix \"/\" }} {{ trimSuffix \"-\" \"hello-\" }}", "/api/v1 x hello"),
        ("{{ .path | trunc 2 }} {{ trunc 5 \"hello world\"}} {{ trunc -5 \"hello world\"}}", "/a hello world"),
        ("{{ .path | urlencode }} {{ urlencode \"a&é\" }}", "%2Fapi%2Fv1+x%2F a%26%C3%A9"),
        ("{{ urldecode \"%2Fapi%2Fv1+x%2F\" }}", "/api/v1 x/"),
    ]);
}

#[test]
fn the_documented_conditions_hold() {
    agree(&[
        ("{{ if contains \"ErrTimeout\" .err }} timeout {{end}}", " timeout "),
        ("{{ if eq \"ErrTimeout\" .err }} timeout {{end}}{{ if eq \"hello\" \"hello\" }} yes {{end}}", " yes "),
        (
            "{{ hasPrefix \"he\" \"hello\" }} {{ hasSuffix \"lo\" \"hello\" }} {{ hasSuffix .err \"Timeout\" }}",
            "true true false",
        ),
        (
            "{{ eq 1 2 1 }} {{ ne 1 2 }} {{ lt 1 2 }} {{ le 2 2 }} {{ gt \"b\" \"a\" }} {{ ge 1.5 2.0 }}",
            "true true true true true false",
        ),
        ("{{ len \"é\" }} {{ len (fromJson .queries) }} {{ index (fromJson .queries) 0 \"query\" }}", "2 2 a"),
        ("{{ slice \"hello\" 1 3 }} {{ slice (fromJson \"[1,2,3]\") 1 }}", "el [2 3]"),
    ]);
}

#[test]
fn the_documented_numbers_come_out() {
    agree(&[
        ("{{ add 3 2 5 }}", "10"),
        ("{{ addf 3.5 2 5 }}", "10.5"),
        ("{{ addf 0.1 0.2 }}", "0.3"),
        ("{{ ceil 123.001 }}", "124"),
        ("{{ div 10 2}}", "5"),
        ("{{ divf 10 2 4}}", "1.25"),
        ("{{ divf 1 3}}", "0.3333333333333333"),
        ("{{ \"3.5\" | float64 }}", "3.5"),
        ("{{ floor 123.9999 }}", "123"),
        ("{{ \"3\" | int }}", "3"),
        ("{{ max 1 2 3 }} {{ maxf 1 2.5 3 }} {{ min 1 2 3 }} {{ minf 1 2.5 3 }}", "3 3 1 1"),
        ("{{ mul 5 2 3}} {{ mulf 5.5 2 2.5 }} {{ mod 10 3}}", "30 27.5 1"),
        ("{{ round 123.555555 3 }}", "123.556"),
        ("{{ round 123.88571428571 5 .2 }} {{ round 123.88571428571 5 }}", "123.88572 123.88571"),
        ("{{ round -1.5 0 }} {{ round -1.2 0 }} {{ round 1 500 }}", "-2 -1 1"),
        ("{{ sub 5 2 }} {{ subf  5.5 2 1.5 }}", "3 2"),
        ("{{ add .status .absent true 1.9 \"x\" \"2.0\" \"0x10\" \"-010\" }}", "210"),
        (
            "{{ mulf 1000 1000 }} {{ mulf 1000 999.999 }} {{ divf 1 100000 }} {{ add 9223372036854775807 1 }}",
            "1e+06 999999 1e-05 -9223372036854775808",
        ),
        ("{{ 0x1F }} {{ 0b11 }} {{ 1_000 }} {{ 010 }} {{ 1e3 }} {{ .5 }} {{ +3 }}", "31 3 1000 8 1000 0.5 3"),
    ]);
}

#[test]
fn the_documented_expressions_count_and_replace() {
    agree(&[
        ("{{ count \"a|b\" \"abab\" }} {{ count \"o\" \"foo\" }}", "4 2"),
        ("{{ __line__ | count \"[A-Z]\"}}", "5"),
        ("{{ regexReplaceAll \"(a*)bc\" \"aabc bc x\" \"${1}a\" }}", "aaa a x"),
        ("{{ regexReplaceAll \"(?P<n>a)(b)?\" \"ab a\" \"<$n|$2|$$|$x|$|${1\" }}", "<a|b|$||$|${1 <a||$||$|${1"),
        ("{{ regexReplaceAll \"a\" \"banana\" \"$0x\" }}", "bnn"),
        ("{{ regexReplaceAllLiteral \"(ts=)\" \"ts=1\" \"timestamp=$1\" }}", "timestamp=$11"),
    ]);
}

#[test]
fn the_documented_times_are_written_and_read() {
    agree(&[
        ("{{ date \"2006-01-02\" (unixToTime .from) }}", "2023-03-23"),
        ("{{ .foo | duration }} {{ duration_seconds .foo }}", "5400 5400"),
        ("{{ toDate \"2006-01-02\" \"2021-11-02\" }}", "2021-11-02 00:00:00 +0000 UTC"),
        ("{{ toDateInZone \"2006-01-02\" \"UTC\" \"2021-11-02\" }}", "2021-11-02 00:00:00 +0000 UTC"),
        (
            "{{ \"2021-11-02T10:20:30.5Z\" | toDateInZone \"2006-01-02T15:04:05.999Z\" \"UTC\" | unixEpochMillis }}",
            "1635848430500",
        ),
        ("{{unixEpoch (toDate \"2006-01-02\" .createDate)}}", "1635811200"),
        ("{{ unixEpochMillis __timestamp__ }} {{ unixEpochNanos __timestamp__ }}", "1700000000123 1700000000123456789"),
        ("{{ unixToTime \"19675\" | unixEpoch }}", "1699920000"),
        ("{{ unixToTime \"1700000000123\" }}", "2023-11-14 22:13:20.123 +0000 UTC"),
        ("{{ unixToTime \"1700000000123456\" | unixEpochNanos }}", "1700000000123456000"),
        ("{{ unixToTime \"1700000000123456789\" | unixEpochNanos }}", "1700000000123456789"),
        ("{{ toDate \"2006-01-02\" \"yesterday\" }}", "0001-01-01 00:00:00 +0000 UTC"),
        ("{{ date \"2006\" 0 }}", "1970"),
    ]);
}

#[test]
fn layouts_are_those_of_go() {
    for (layout, want) in [
        ("Mon Jan _2 15:04:05 2006", "Sat Feb  4 21:00:57 2012"),
        ("Mon Jan _2 15:04:05 MST 2006", "Sat Feb  4 21:00:57 UTC 2012"),
        ("02 Jan 06 15:04 -0700", "04 Feb 12 21:00 +0000"),
        ("Monday, 02-Jan-06 15:04:05 MST", "Saturday, 04-Feb-12 21:00:57 UTC"),
        ("2006-01-02T15:04:05Z07:00", "2012-02-04T21:00:57Z"),
        ("2006-01-02T15:04:05.999999999Z07:00", "2012-02-04T21:00:57.0123456Z"),
        ("3:04PM", "9:00PM"),
        ("Jan _2 15:04:05.000", "Feb  4 21:00:57.012"),
        ("Jan _2 15:04:05,000000", "Feb  4 21:00:57,012345"),
        ("January 2 (002, __2) 1/2/06 3pm 4m5s", "February 4 (035,  35) 2/4/12 9pm 0m57s"),
        ("Janet Month _2006 .1 .99x .999", "Janet Month _2012 .2 .01x .012"),
        ("-07 Z0700 -070000 -07:00:00 Z07", "+00 Z +000000 +00:00:00 Z"),
    ] {
        let template = format!("{{{{ unixToTime \"1328389257012345600\" | date {layout:?} }}}}");
        assert_eq!(rendered(&template).as_deref(), Ok(want), "{layout}");
    }
    for (layout, text, want) in [
        ("2006-01-02T15:04:05Z07:00", "2012-02-04T21:00:57+01:00", "2012-02-04 21:00:57 +0100 +0100"),
        ("2006-01-02T15:04:05Z07:00", "2012-02-04T21:00:57.25Z", "2012-02-04 21:00:57.25 +0000 UTC"),
        ("Mon Jan _2 15:04:05 2006", "Sat Feb  4 21:00:57 2012", "2012-02-04 21:00:57 +0000 UTC"),
        ("Monday, 02-Jan-06 15:04:05 MST", "saturday, 04-feb-69 21:00:57 CET", "1969-02-04 21:00:57 +0000 CET"),
        ("02/Jan/2006:15:04:05 -0700", "17/May/2015:08:05:32 -0230", "2015-05-17 08:05:32 -0230 -0230"),
        ("3:04PM", "12:30AM", "0000-01-01 00:30:00 +0000 UTC"),
        ("2006 002", "2024 366", "2024-12-31 00:00:00 +0000 UTC"),
        ("15:04:05.000 2006", "01:02:03.004 2000", "2000-01-01 01:02:03.004 +0000 UTC"),
        ("2006-01-02", "2023-02-29", "0001-01-01 00:00:00 +0000 UTC"),
        ("2006-01-02", "2023-02-28x", "0001-01-01 00:00:00 +0000 UTC"),
        ("15:04", "24:00", "0001-01-01 00:00:00 +0000 UTC"),
        ("05.000", "01.02", "0001-01-01 00:00:00 +0000 UTC"),
    ] {
        let template = format!("{{{{ toDate {layout:?} {text:?} }}}}");
        assert_eq!(rendered(&template).as_deref(), Ok(want), "{layout} {text}");
    }
}

#[test]
fn printf_is_that_of_go() {
    agree(&[
        (r#"{{ printf "The IP address was %s" .remote_addr }}"#, "The IP address was 129.168.1.1"),
        (
            r#"{{ printf "%-10.10s" "/a/509965767/alternative"}}|{{printf "%-5.5s" .request_method}}|"#,
            "/a/5099657|GET  |",
        ),
        (r#""|" {{printf "%15.15s" .remote_addr}} "|""#, r#""|"     129.168.1.1 "|""#),
        (r#"{{ printf "%d %5d|%-5d|%05d|%+d" 42 42 42 -42 42 }}"#, "42    42|42   |-0042|+42"),
        (r#"{{ printf "%x|%X|%o|%b|%#x|%c|%q|%U" 255 255 8 5 255 97 97 97 }}"#, "ff|FF|10|101|0xff|a|'a'|U+0061"),
        (
            r#"{{ printf "%f %.2f %8.3f|%-8.1f|%08.3f" 1.5 1.005 3.1416 2.5 -3.14159 }}"#,
            "1.500000 1.00    3.142|2.5     |-003.142",
        ),
        (
            r#"{{ printf "%e|%.3g|%g|%v|%G" 1234.5678 1234.5678 1e-7 1e21 1e-7 }}"#,
            "1.234568e+03|1.23e+03|1e-07|1e+21|1E-07",
        ),
        (
            r#"{{ printf "%t %v %s %q %x %.2s %%" true nil "a" "a\n\"" "hi" "éèê" }}"#,
            r#"true <nil> a "a\n\"" 6869 éè %"#,
        ),
        (r#"{{ printf "%d %s %z" "a" 5 1 }}"#, "%!d(string=a) %!s(int=5) %!z(int=1)"),
        (r#"{{ printf "%d %d" 1 }}{{ printf "x" 1 "a" }}"#, "1 %!d(MISSING)x%!(EXTRA int=1, string=a)"),
        (r#"{{ printf "%" }}{{ printf "%*d" "a" 1 }}"#, "%!(NOVERB)%!(BADWIDTH)1"),
        (r#"{{ printf "%[2]d %[1]d %[2]*[1]d|%[9]d" 1 6 }}"#, "6 1      1|%!d(BADINDEX)"),
        (r#"{{ printf "%v %s" (fromJson "[1]") __timestamp__ }}"#, "[1] 2023-11-14 22:13:20.123456789 +0000 UTC"),
        (r#"{{ printf "%.5000f" 0.5 | len }} {{ printf "%T" 1.5 }}"#, "1102 float64"),
        (r#"{{ print 1 2 "a" "b" 3 true }}{{ println "a" 1 }}"#, "1 2ab3 truea 1\n"),
    ]);
}

#[test]
fn texts_are_escaped_as_go_escapes_them() {
    agree(&[
        (r#"{{ html "<a href='x'>&" }}"#, "&lt;a href=&#39;x&#39;&gt;&amp;"),
        (r#"{{ js "it's <b>\n" }}"#, r"it\'s \u003Cb\u003E\u000A"),
        (r#"{{ urlquery "a b" }}"#, "a+b"),
    ]);
}

#[test]
fn templates_that_are_none_are_refused_with_their_place() {
    refused(&[
        ("{{ .a", "at byte 0 of the template: the action that starts here is not closed by }}"),
        ("x{{/* a", "comment"),
        (r#"{{ "a }}"#, "at byte 3 of the template: the string that starts here is not closed"),
        (r#"{{ "\q" }}"#, "unknown escape"),
        ("{{ 'ab' }}", "one character"),
        ("{{ 12abc }}", "\"12abc\" is not a number"),
        ("{{ 99999999999999999999 }}", "is not a number"),
        ("{{ ? }}", "unexpected character '?'"),
        ("{{ nothing .a }}", "function \"nothing\" not defined"),
        ("{{ $x }}", "undefined variable \"$x\""),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "undefined variable \"$x\""),
        ("{{ }}", "expected a value, found \"}}\""),
        ("{{ .a | }}", "expected a value, found \"}}\""),
        ("{{ .a .b }}", "takes no arguments"),
        ("{{ .a | .b }}", "takes no arguments"),
        ("{{ lower }}", "lower takes 1 arguments, not 0"),
        ("{{ lower .a .b }}", "lower takes 1 arguments, not 2"),
        ("{{ round 1 }}", "round takes 2 to 3 arguments, not 1"),
        ("{{ eq 1 }}", "eq takes at least 2 arguments, not 1"),
        (r#"{{ contains("a" "b") }}"#, "expected a blank"),
        ("{{ (lower .a }}", "expected \")\", found \"}}\""),
        ("{{ if .a }}x", "expected {{end}}, found the end of the template"),
        ("{{ end }}", "found \"end\""),
        ("{{ else }}", "found \"else\""),
        ("{{ if .a }}{{ else }}{{ else }}{{ end }}", "found \"else\""),
        ("{{ range 1 }}{{ else if }}{{ end }}", "expected \"}}\""),
        ("{{ break }}", "break outside of a range"),
        (r#"{{ define "x" }}{{ end }}"#, "define is not supported"),
        (r#"{{ template "x" }}"#, "template is not supported"),
        ("{{ now }}", "now is not supported"),
        ("{{ count .a .b }}", "the regular expression of count must be a string in the template"),
        (r#"{{ "(" | count "(" }}"#, "error parsing regexp"),
    ]);
}

#[test]
fn values_that_mean_nothing_to_a_function_are_refused() {
    refused(&[
        ("{{ div 1 0 }}", "at byte 3 of the template: div: division by zero"),
        ("{{ mod 1 .empty }}", "mod: division by zero"),
        ("{{ divf 1 0 }}", "divf: division by zero"),
        ("{{ lower 1 }}", "lower: expected string, found int"),
        (r#"{{ trunc "1" .a }}"#, "trunc: expected int, found string"),
        (r#"{{ repeat -1 "a" }}"#, "repeat: \"-1\" is no number from zero"),
        ("{{ .a.b }}", "there is no \"b\" in string"),
        (r#"{{ eq 1 "1" }}"#, "eq: incompatible types for comparison: int and string"),
        ("{{ lt true false }}", "incompatible types"),
        (r#"{{ index (fromJson "[1]") 1 }}"#, "index: 1 is out of range, there are 1"),
        (r#"{{ slice "abc" 2 1 }}"#, "out of range"),
        ("{{ len 1 }}", "len: expected string, list or map, found int"),
        ("{{ range .a }}{{ end }}", "range: expected list, map or int, found string"),
        (r#"{{ duration "1d" }}"#, "duration: \"1d\" is no duration"),
        (r#"{{ bytes "x" }}"#, "bytes: \"x\" is no quantity of bytes"),
        (r#"{{ b64dec "a" }}"#, "b64dec: \"a\" is no base64"),
        (r#"{{ urldecode "%zz" }}"#, "urldecode: \"%zz\" is no URL encoding"),
        (r#"{{ unixToTime "12" }}"#, "unixToTime: \"12\" is no time"),
        (r#"{{ toDateInZone "2006" "Europe/Berlin" "2020" }}"#, "UTC or Local"),
        (r#"{{ date "2006" .a }}"#, "date: expected time, found string"),
        ("{{ . }}", "writing all labels at once is not supported"),
    ]);
}

#[test]
fn output_and_work_are_bounded() {
    let long = Cause::TooLong { max: TEMPLATE_BYTES_MAX };
    for template in [
        r#"{{ repeat 262145 "a" }}"#,
        r#"{{ repeat 9223372036854775807 "ab" }}"#,
        r#"{{ $a := repeat 200000 "a" }}{{ $a }}{{ $a }}"#,
        r#"{{ $a := repeat 200000 "a" }}{{ replace "a" $a $a }}"#,
        r#"{{ indent 9223372036854775807 "a" }}"#,
        r#"{{ alignLeft 1000000000 "a" }}"#,
        r#"{{ alignRight 1000000000 "a" }}"#,
        r#"{{ printf "%1000000d" 1 }}"#,
        r#"{{ printf "%.999999999d" 1 }}"#,
        "{{ range 100000 }}abcdefghij{{ end }}",
        r#"{{ regexReplaceAll "" (repeat 1000 "a") (repeat 1000 "a") }}"#,
        r#"{{ html (repeat 100000 "<") }}"#,
    ] {
        assert_eq!(rendered(template).unwrap_err().cause, long, "{template}");
    }
    for template in [
        "{{ range 9223372036854775807 }}{{ end }}",
        "{{ range 1000000 }}{{ range 1000000 }}{{ end }}{{ end }}",
        r#"{{ $a := repeat 262144 "a" }}{{ range 1000 }}{{ $b := lower $a }}{{ end }}"#,
        r#"{{ $a := repeat 262144 "a" }}{{ range 1000 }}{{ $b := count "x" $a }}{{ end }}"#,
    ] {
        assert_eq!(rendered(template).unwrap_err().cause, Cause::TooMuchWork, "{template}");
    }
}

#[test]
fn what_is_within_each_other_is_bounded() {
    for (open, close) in [("{{ if true }}", "{{ end }}"), ("{{ range 1 }}", "{{ end }}")] {
        let nested = |depth: usize| format!("{}x{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(rendered(&nested(TEMPLATE_DEPTH_MAX)).as_deref(), Ok("x"));
        assert!(matches!(rendered(&nested(TEMPLATE_DEPTH_MAX + 1)).unwrap_err().cause, Cause::TooMany { .. }));
    }
    for deep in [
        format!("{{{{ {}1{} }}}}", "(".repeat(4_000), ")".repeat(4_000)),
        format!("{{{{ 1 {} }}}}", "| print ".repeat(2_000)),
        format!("{{{{ .a{} }}}}", ".a".repeat(8_000)),
        "{{ if 1 }}".repeat(1_600),
        format!("{}{}", "{{ if 0 }}", "{{ else if 0 }}".repeat(1_000)),
    ] {
        assert!(rendered(&deep).is_err());
    }
    let counts = "{{ count \"a\" .a }}".repeat(17);
    assert!(matches!(rendered(&counts).unwrap_err().cause, Cause::TooMany { .. }));
    assert_eq!(Template::new("{{ count \"a\" .a }}{{ regexReplaceAll \"b\" .a .a }}").unwrap().regexes(), 2);
}

const WORDS: [&str; 10] = [
    "{{ if .a }}",
    "{{ else }}",
    "{{ end }}",
    "{{ range fromJson .queries }}",
    "{{ . }}",
    "{{ with .a -}}",
    "{{ break }}",
    "{{ $x := .a }}",
    "{{ $x }}",
    "x",
];

const ARGUMENTS: [&str; 20] = [
    ".a",
    ".queries",
    ".absent",
    "``",
    "`é→%2F`",
    "-1",
    "0",
    "2",
    "1.5",
    "true",
    "nil",
    "1e300",
    "9223372036854775807",
    "-9223372036854775808",
    "__timestamp__",
    "(fromJson .queries)",
    ".",
    "(unixToTime `9999999999`)",
    "`2006-01-02T15:04:05.000Z07:00 MST Jan Monday __2 PM`",
    "`%5.3d %-8q %+x %[1]v %*f`",
];

/// Texts close to templates, so that most get past the parser.
fn close_to_a_template() -> impl Strategy<Value = String> {
    let names: Vec<_> = super::functions::FUNCTIONS.iter().map(|function| function.name).collect();
    let value = prop_oneof![
        2 => prop::sample::select(ARGUMENTS.to_vec()).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => (-3_i64..9).prop_map(|number| number.to_string()),
        1 => prop::num::f64::NORMAL.prop_map(|number| format!("{number:?}")),
        1 => "[-%a-zA-Z0-9.:é+ /|$*\\[\\]{}#]{0,12}".prop_map(|text| format!("`{text}`")),
    ];
    let call = (prop::sample::select(names), prop::collection::vec(value, 0..4));
    let piece = prop_oneof![
        6 => call.prop_map(|(name, args)| format!("{{{{ {name} {} }}}}", args.join(" "))),
        2 => prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned),
        1 => "[{}().|$a\"`'0-9 -]{0,8}",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,60}", close in close_to_a_template()) {
        for template in [text, close] {
            if let Ok(text) = rendered(&template) {
                prop_assert!(text.len() <= TEMPLATE_BYTES_MAX);
            }
        }
    }

    #[test]
    fn every_function_bears_every_argument(
        function in 0..super::functions::FUNCTIONS.len(),
        args in prop::collection::vec(prop::sample::select(ARGUMENTS.to_vec()), 3),
    ) {
        let function = &super::functions::FUNCTIONS[function];
        for count in function.least..=function.most.min(3) {
            let template = format!("{{{{ {} {} }}}}", function.name, args[..count].join(" "));
            prop_assert!(Template::new(&template).is_ok(), "{}", template);
            let _ = rendered(&template);
        }
    }

    #[test]
    fn base64_and_url_encoding_come_back(text in "[^`]{0,40}") {
        for (there, back) in [("b64enc", "b64dec"), ("urlencode", "urldecode")] {
            let template = format!("{{{{ `{text}` | {there} | {back} }}}}");
            prop_assert_eq!(rendered(&template), Ok(text.clone()));
        }
    }

    #[test]
    fn times_come_back(nanos in 1_000_000_000_000_000_000_i64..) {
        let layout = "\"2006-01-02T15:04:05.999999999Z07:00\"";
        let time = format!("toDate {layout} (date {layout} (unixToTime \"{nanos}\"))");
        prop_assert_eq!(rendered(&format!("{{{{ {time} | unixEpochNanos }}}}")), Ok(nanos.to_string()));
    }
}
