//! Matchers and line filters made ready to run. Regular expressions are those of RE2, run in time linear in the text,
//! and are refused when they compile to more than a bound.

use memchr::memmem;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::ast::{FilterOp, LineFilter, MatchOp, Matcher, Needle as Wanted, Stage};
use super::capture::Capture;
use super::error::{ParseCause, QueryError};
use super::ip::IpRange;
use super::lexer::Place;
use super::re2;
use crate::label::Labels;
use crate::limits::{REGEX_BYTES_MAX, REGEX_NEST_MAX};

fn refuse(pattern: &str, why: impl ToString) -> QueryError {
    let cause = ParseCause::Regex { pattern: pattern.to_owned(), why: why.to_string() };
    Place { line: 1, column: 1 }.refuse(cause)
}

/// A text that is not what its filter or stage takes.
pub(super) fn refuse_text(what: &str, text: &str, why: impl ToString) -> QueryError {
    let cause = ParseCause::Text { what: what.to_owned(), text: text.to_owned(), why: why.to_string() };
    Place { line: 1, column: 1 }.refuse(cause)
}

fn hir(pattern: &str, syntax: syntax::Config) -> Result<Hir, QueryError> {
    let rewritten = re2::rewritten(pattern);
    syntax::parse_with(&rewritten, &syntax.nest_limit(REGEX_NEST_MAX)).map_err(|error| {
        // Without the place, which is one in what was rewritten.
        if let regex_syntax::Error::Parse(error) = &error {
            refuse(pattern, error.kind())
        } else if let regex_syntax::Error::Translate(error) = &error {
            refuse(pattern, error.kind())
        } else {
            refuse(pattern, error)
        }
    })
}

fn compile(pattern: &str, hir: &Hir) -> Result<Regex, QueryError> {
    let config = Regex::config()
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .onepass_size_limit(Some(REGEX_BYTES_MAX))
        .hybrid_cache_capacity(REGEX_BYTES_MAX);
    Regex::builder().configure(config).build_from_hir(hir).map_err(|error| refuse(pattern, error))
}

/// A regular expression for lines: it may match anywhere.
pub(super) fn line_regex(pattern: &str) -> Result<Regex, QueryError> {
    compile(pattern, &hir(pattern, syntax::Config::new())?)
}

/// A regular expression for values of labels, as in Prometheus: the whole value must match, and `.` is any character.
pub(super) fn value_regex(pattern: &str) -> Result<Regex, QueryError> {
    let inner = hir(pattern, syntax::Config::new().dot_matches_new_line(true))?;
    compile(pattern, &Hir::concat(vec![Hir::look(Look::Start), inner, Hir::look(Look::End)]))
}

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Regex(Regex),
}

/// One matcher, ready to run.
#[derive(Clone, Debug)]
pub struct LabelPattern {
    name: String,
    value: Value,
    /// Whether a match lets the stream pass.
    positive: bool,
}

impl LabelPattern {
    /// Compiles a matcher; a parse error where its regular expression is refused.
    pub fn new(matcher: &Matcher) -> Result<Self, QueryError> {
        let regex = matches!(matcher.op, MatchOp::Matches | MatchOp::NotMatches);
        let value = if regex { Value::Regex(value_regex(&matcher.value)?) } else { Value::Text(matcher.value.clone()) };
        let positive = matches!(matcher.op, MatchOp::Equal | MatchOp::Matches);
        Ok(Self { name: matcher.name.clone(), value, positive })
    }

    /// Whether a value passes; an absent label has the empty one.
    pub fn matches(&self, value: &str) -> bool {
        let found = match &self.value {
            Value::Text(text) => text == value,
            Value::Regex(regex) => regex.is_match(value),
        };
        found == self.positive
    }
}

/// The matchers of a selector, ready to run.
#[derive(Clone, Debug, Default)]
pub struct StreamPattern(Vec<LabelPattern>);

impl StreamPattern {
    /// Compiles them all.
    pub fn new(matchers: &[Matcher]) -> Result<Self, QueryError> {
        matchers.iter().map(LabelPattern::new).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a stream passes every matcher.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|pattern| pattern.matches(labels.get(&pattern.name).unwrap_or("")))
    }
}

#[derive(Clone, Debug)]
enum Needle {
    Text(Box<memmem::Finder<'static>>),
    Regex(Regex),
    Pattern(Capture),
    Ip(IpRange),
}

impl Needle {
    fn is_in(&self, line: &[u8]) -> bool {
        match self {
            Self::Text(finder) => finder.find(line).is_some(),
            Self::Regex(regex) => regex.is_match(line),
            Self::Pattern(pattern) => pattern.is_match(line),
            Self::Ip(range) => range.is_in_line(line),
        }
    }
}

#[derive(Clone, Debug)]
struct LinePattern {
    needles: Vec<Needle>,
    positive: bool,
}

impl LinePattern {
    fn new(filter: &LineFilter) -> Result<Self, QueryError> {
        let needle = |wanted: &Wanted| match (filter.op, wanted) {
            (FilterOp::Contains | FilterOp::NotContains, Wanted::Text(text)) => {
                Ok(Needle::Text(finder(text.as_bytes())))
            }
            (FilterOp::Matches | FilterOp::NotMatches, Wanted::Text(text)) => {
                // In lines, unlike in labels, `.` is any character, a line break too.
                let hir = hir(text, syntax::Config::new().dot_matches_new_line(true))?;
                // An expression without any operator is a text, and found faster as such.
                if let HirKind::Literal(literal) = hir.kind() {
                    Ok(Needle::Text(finder(&literal.0)))
                } else {
                    compile(text, &hir).map(Needle::Regex)
                }
            }
            (FilterOp::Pattern | FilterOp::NotPattern, Wanted::Text(text)) => {
                Capture::filter(text).map(Needle::Pattern).map_err(|why| refuse_text("pattern", text, why))
            }
            (FilterOp::Contains | FilterOp::NotContains, Wanted::Ip(text)) => {
                IpRange::new(text).map(Needle::Ip).map_err(|why| refuse_text("ip", text, why))
            }
            (FilterOp::Matches | FilterOp::NotMatches | FilterOp::Pattern | FilterOp::NotPattern, Wanted::Ip(text)) => {
                Err(refuse_text("ip", text, "only |= and != search a line for addresses"))
            }
        };
        let needles = filter.alternatives.iter().map(needle).collect::<Result<_, _>>()?;
        Ok(Self { needles, positive: filter.op.is_positive() })
    }

    fn matches(&self, line: &[u8]) -> bool {
        let needles = if mutant!(FirstAlternativeAlone) { &self.needles[..1] } else { &self.needles };
        needles.iter().any(|needle| needle.is_in(line)) == self.positive
    }

    /// A text that every passing line holds; empty where none is known.
    fn required(&self) -> &[u8] {
        match self.needles.as_slice() {
            [Needle::Text(finder)] if self.positive => finder.needle(),
            [Needle::Pattern(pattern)] if self.positive => pattern.literal(),
            _ => &[],
        }
    }
}

fn finder(needle: &[u8]) -> Box<memmem::Finder<'static>> {
    Box::new(memmem::Finder::new(needle).into_owned())
}

/// The line filters of a query, ready to run.
#[derive(Clone, Debug, Default)]
pub struct LineFilters {
    filters: Vec<LinePattern>,
    /// The longest text that every passing line holds: worth a search over many lines at once.
    needle: Option<Box<memmem::Finder<'static>>>,
}

impl LineFilters {
    /// Compiles those among the stages.
    pub fn new(stages: &[Stage]) -> Result<Self, QueryError> {
        let filters =
            stages.iter().filter_map(|stage| if let Stage::Filter(filter) = stage { Some(filter) } else { None });
        let mut filters = filters.map(LinePattern::new).collect::<Result<Vec<_>, _>>()?;
        let best = (0..filters.len()).max_by_key(|at| (filters[*at].required().len(), *at));
        let Some(best) = best.filter(|at| !filters[*at].required().is_empty()) else {
            return Ok(Self { filters, needle: None });
        };
        let needle = finder(filters[best].required());
        if matches!(filters[best].needles.as_slice(), [Needle::Text(_)]) {
            filters.remove(best);
        }
        Ok(Self { filters, needle: Some(needle) })
    }

    /// Whether every line passes.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.needle.is_none()
    }

    /// Whether one line passes.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.needle.as_ref().is_none_or(|needle| needle.find(line).is_some()) && self.rest_matches(line)
    }

    fn rest_matches(&self, line: &[u8]) -> bool {
        self.filters.iter().all(|filter| filter.matches(line))
    }

    /// Keeps of `rows`, ascending, those whose line passes. Line `row` is `text[end(row - 1)..end(row)]`, row 0
    /// begins at 0.
    pub fn retain(&self, text: &[u8], ends: &[u32], rows: &mut Vec<u32>) {
        let line = |row: u32| &text[start(ends, row)..ends[row as usize] as usize];
        if let Some(needle) = &self.needle {
            if rows.len() * 4 < ends.len() {
                rows.retain(|row| needle.find(line(*row)).is_some());
            } else {
                *rows = found(needle, text, ends, rows);
            }
        }
        if !self.filters.is_empty() {
            rows.retain(|row| self.rest_matches(line(*row)));
        }
    }
}

fn start(ends: &[u32], row: u32) -> usize {
    if row == 0 { 0 } else { ends[row as usize - 1] as usize }
}

/// Rows of `rows` that hold the needle, by one search over the whole text. A hit across the end of a line is none, and
/// the rest of that line is too short for another.
fn found(needle: &memmem::Finder<'_>, text: &[u8], ends: &[u32], rows: &[u32]) -> Vec<u32> {
    let mut kept = Vec::new();
    let length = needle.needle().len();
    let (mut from, mut at) = (0, 0);
    while at < rows.len() {
        from = from.max(start(ends, rows[at]));
        let Some(hit) = needle.find(&text[from..]).map(|hit| hit + from) else { break };
        let mut row = rows[at];
        if ends[row as usize] as usize <= hit {
            row = ends.partition_point(|end| *end as usize <= hit) as u32;
            at += rows[at..].partition_point(|wanted| *wanted < row);
        }
        let end = ends[row as usize] as usize;
        if hit + length <= end && rows.get(at) == Some(&row) {
            kept.push(row);
        }
        from = end;
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(op: MatchOp, value: &str) -> LabelPattern {
        LabelPattern::new(&Matcher { name: "a".into(), op, value: value.into() }).unwrap()
    }

    #[test]
    fn label_expressions_are_anchored_and_alternatives_stay_inside() {
        let pattern = matcher(MatchOp::Matches, "foo|bar");
        assert!(pattern.matches("foo") && pattern.matches("bar"));
        assert!(!pattern.matches("foox") && !pattern.matches("xbar"));
        assert!(matcher(MatchOp::NotMatches, "foo.*").matches("bar"));
        assert!(LabelPattern::new(&Matcher { name: "a".into(), op: MatchOp::Matches, value: "a)|(b".into() }).is_err());
    }

    #[test]
    fn an_absent_label_has_the_empty_value() {
        let pattern = |op, value: &str| StreamPattern(vec![matcher(op, value)]);
        let without = Labels::new([("b", "1")]);
        assert!(pattern(MatchOp::NotEqual, "x").matches(&without));
        assert!(pattern(MatchOp::Equal, "").matches(&without));
        assert!(!pattern(MatchOp::Matches, ".+").matches(&without));
    }

    #[test]
    fn an_expression_that_compiles_to_too_much_is_refused() {
        assert!(line_regex(r"(\pL{200}){200}").is_err());
    }

    fn filters(op: FilterOp, alternatives: Vec<Wanted>) -> Result<LineFilters, QueryError> {
        LineFilters::new(&[Stage::Filter(LineFilter { op, alternatives })])
    }

    #[test]
    fn patterns_and_addresses_filter_lines() {
        let (push, get) = ("POST /push 200 from 10.0.0.1", "GET /query 500 from 192.168.4.7:80");
        let pattern = |text: &str| Wanted::Text(text.into());
        let ip = |text: &str| Wanted::Ip(text.into());
        for (op, alternatives, want) in [
            (FilterOp::Pattern, vec![pattern("POST <_> 200 <_>")], [true, false]),
            (FilterOp::NotPattern, vec![pattern("POST <_> 200 <_>")], [false, true]),
            (FilterOp::Pattern, vec![pattern("<_> 404 <_>"), pattern("<_>:80")], [false, true]),
            (FilterOp::NotPattern, vec![pattern("<_> 404 <_>"), pattern("<_>:80")], [true, false]),
            (FilterOp::Pattern, vec![pattern("POST")], [false, false]),
            (FilterOp::Contains, vec![ip("192.168.4.5/16")], [false, true]),
            (FilterOp::NotContains, vec![ip("192.168.4.5/16")], [true, false]),
            (FilterOp::Contains, vec![ip("10.0.0.0-10.0.0.9"), ip("192.168.4.7")], [true, true]),
            (FilterOp::Contains, vec![ip("::1"), pattern("GET")], [false, true]),
        ] {
            let filters = filters(op, alternatives.clone()).unwrap();
            assert_eq!([push, get].map(|line| filters.matches(line.as_bytes())), want, "{op:?} {alternatives:?}");
            let (text, ends) = ([push, get].concat(), [push.len() as u32, (push.len() + get.len()) as u32]);
            let mut rows = vec![0, 1];
            filters.retain(text.as_bytes(), &ends, &mut rows);
            assert_eq!([0, 1].map(|row| rows.contains(&row)), want, "{op:?} {alternatives:?}");
        }
    }

    #[test]
    fn filters_that_are_none_are_refused_with_their_reason() {
        for (op, wanted, want) in [
            (FilterOp::Pattern, Wanted::Text("<name>".into()), "named captures such as <name>"),
            (FilterOp::NotPattern, Wanted::Text("<_><_>".into()), "two captures without a text between them"),
            (FilterOp::Contains, Wanted::Ip("10.0.0".into()), "expected an address"),
            (FilterOp::Matches, Wanted::Ip("10.0.0.0/8".into()), "only |= and !="),
            (FilterOp::Pattern, Wanted::Ip("10.0.0.0/8".into()), "only |= and !="),
            (FilterOp::Matches, Wanted::Text("(a".into()), "unclosed group"),
        ] {
            let error = filters(op, vec![wanted]).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn expressions_are_those_of_re2() {
        assert!(!matcher(MatchOp::Matches, r"\d\w").matches("٣é"));
        assert!(matcher(MatchOp::Matches, r"\d\w").matches("3e"));
        assert!(line_regex(r"\bfoo\B").is_ok_and(|regex| regex.is_match("éfoobar") && !regex.is_match("foo é")));
        let json = filters(FilterOp::Matches, vec![Wanted::Text(r#"{"level":"(warn|error)"#.into())]).unwrap();
        assert!(json.matches(br#"{"level":"error"}"#) && !json.matches(br#"{"level":"info"}"#));
    }

    #[test]
    fn a_dot_in_a_line_filter_is_any_character() {
        let filters = filters(FilterOp::Matches, vec![Wanted::Text("panic.*main".into())]).unwrap();
        assert!(filters.matches(b"panic: x\n at main") && !filters.matches(b"panic: x\n at other"));
        assert!(!line_regex("panic.*main").unwrap().is_match("panic: x\n at main"));
    }

    proptest! {
        #[test]
        fn a_search_over_many_lines_finds_what_each_line_holds(
            lines in prop::collection::vec("[ab]{0,6}", 0..40),
            chosen in prop::collection::vec(any::<bool>(), 40),
            needle in "[ab]{1,3}",
            other in "[ab]{0,2}",
            op in prop::sample::select(vec![FilterOp::NotContains, FilterOp::Contains, FilterOp::Matches]),
        ) {
            let text = |text: &str| Wanted::Text(text.to_owned());
            let filters = [
                Stage::Filter(LineFilter { op: FilterOp::Contains, alternatives: vec![text(&needle)] }),
                Stage::Filter(LineFilter { op, alternatives: vec![text(&other), text("abab")] }),
            ];
            let filters = LineFilters::new(&filters).unwrap();
            let text = lines.concat().into_bytes();
            let ends: Vec<u32> = lines.iter().scan(0, |end, line| { *end += line.len() as u32; Some(*end) }).collect();
            let mut rows: Vec<u32> = (0..lines.len() as u32).filter(|row| chosen[*row as usize]).collect();
            let expected: Vec<u32> = rows.iter().copied().filter(|row| {
                let line = &lines[*row as usize];
                let second = line.contains(&other) || line.contains("abab");
                line.contains(&needle) && second == op.is_positive()
            }).collect();
            for row in &rows {
                prop_assert_eq!(filters.matches(lines[*row as usize].as_bytes()), expected.contains(row));
            }
            filters.retain(&text, &ends, &mut rows);
            prop_assert_eq!(rows, expected);
        }
    }
}
