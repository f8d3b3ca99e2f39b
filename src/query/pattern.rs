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
use crate::block::rows::Lines;
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

/// Bytes from which on a literal of an expression is worth a search of its own.
const LITERAL_LEAST: usize = 3;

#[derive(Clone, Debug)]
enum Needle {
    Text(Box<memmem::Finder<'static>>),
    /// With texts that every match holds.
    Regex(Regex, Vec<Vec<u8>>),
    Pattern(Capture),
    Ip(IpRange),
}

impl Needle {
    fn is_in(&self, line: &[u8]) -> bool {
        match self {
            Self::Text(finder) => finder.find(line).is_some(),
            Self::Regex(regex, _) => regex.is_match(line),
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
                    Ok(Needle::Regex(compile(text, &hir)?, literals(&hir)))
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

    /// Texts that every passing line holds.
    fn required(&self) -> Vec<Vec<u8>> {
        match self.needles.as_slice() {
            [Needle::Pattern(pattern)] if self.positive => vec![pattern.literal().to_vec()],
            [Needle::Regex(_, literals)] if self.positive => literals.clone(),
            _ => Vec::new(),
        }
    }
}

fn finder(needle: &[u8]) -> Box<memmem::Finder<'static>> {
    Box::new(memmem::Finder::new(needle).into_owned())
}

/// A text that lines are searched for, and whether those that hold it pass.
type TextFilter = (Box<memmem::Finder<'static>>, bool);

/// The line filters of a query, ready to run.
#[derive(Clone, Debug, Default)]
pub struct LineFilters {
    /// Filters that look for one text alone: those that most lines may fail first.
    texts: Vec<TextFilter>,
    /// Texts that every line holds which passes the others.
    required: Vec<memmem::Finder<'static>>,
    others: Vec<LinePattern>,
}

impl LineFilters {
    /// Compiles those among the stages.
    pub fn new(stages: &[Stage]) -> Result<Self, QueryError> {
        let filters =
            stages.iter().filter_map(|stage| if let Stage::Filter(filter) = stage { Some(filter) } else { None });
        let mut compiled = Self::default();
        for filter in filters {
            let pattern = LinePattern::new(filter)?;
            if let [Needle::Text(finder)] = pattern.needles.as_slice() {
                if finder.needle().is_empty() && pattern.positive {
                    continue;
                }
                compiled.texts.push((finder.clone(), pattern.positive));
            } else {
                let required = pattern.required().into_iter().filter(|text| !text.is_empty());
                compiled.required.extend(required.map(|text| memmem::Finder::new(&text).into_owned()));
                compiled.others.push(pattern);
            }
        }
        compiled.texts.sort_by_key(|(finder, positive)| (!positive, std::cmp::Reverse(finder.needle().len())));
        Ok(compiled)
    }

    /// Whether every line passes.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.others.is_empty()
    }

    /// Whether one line passes.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.texts.iter().all(|(finder, positive)| finder.find(line).is_some() == *positive) && self.others_match(line)
    }

    /// Whether lines that [`LineFilters::narrow`] leaves have to be looked at themselves.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Whether a line that [`LineFilters::narrow`] left passes.
    pub fn others_match(&self, line: &[u8]) -> bool {
        self.others.iter().all(|filter| filter.matches(line))
    }

    /// Keeps of `rows`, ascending, those whose line may pass; where there are no others, those whose line does.
    pub fn narrow(&self, lines: &Lines, rows: &mut Vec<u32>) {
        let required = self.required.iter().map(|finder| (finder, true));
        let texts = self.texts.iter().map(|(finder, positive)| (&**finder, *positive));
        for (finder, positive) in texts.chain(required) {
            if rows.is_empty() {
                return;
            }
            lines.retain(finder, positive, rows);
        }
    }
}

/// Texts that everything holds which an expression matches: its literals that stand in none of several ways.
fn literals(hir: &Hir) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut run = Vec::new();
    collect(hir, &mut run, &mut found);
    found.push(run);
    found.retain(|literal| literal.len() >= LITERAL_LEAST);
    found
}

/// Adds the literals of an expression that is always matched; `run` is the literal that the text before it ends with.
fn collect(hir: &Hir, run: &mut Vec<u8>, found: &mut Vec<Vec<u8>>) {
    match hir.kind() {
        HirKind::Literal(literal) => run.extend_from_slice(&literal.0),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect(part, run, found)),
        HirKind::Capture(capture) => collect(&capture.sub, run, found),
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Repetition(repeated) => {
            found.push(std::mem::take(run));
            if repeated.min > 0 {
                collect(&repeated.sub, run, found);
                found.push(std::mem::take(run));
            }
        }
        HirKind::Alternation(branches) if mutant!(BranchTakenForAll) => collect(&branches[0], run, found),
        HirKind::Class(_) | HirKind::Alternation(_) => found.push(std::mem::take(run)),
    }
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

    /// Of the rows those whose line passes, searched as a sealed block is.
    fn passing(filters: &LineFilters, lines: &[&str], mut rows: Vec<u32>) -> Vec<u32> {
        let mut encoder = crate::block::l1::Encoder::new();
        let stream = crate::record::Stream { tenant: "t".into(), labels: Labels::new([("a", "b")]) };
        for (offset, line) in (0..).zip(lines) {
            encoder.push(&stream, offset, 0, line.as_bytes(), std::iter::empty());
        }
        if !lines.is_empty() {
            let block = crate::block::l1::L1::open(encoder.finish()).unwrap();
            filters.narrow(&block.lines().unwrap(), &mut rows);
        }
        rows.retain(|row| filters.others_match(lines[*row as usize].as_bytes()));
        rows
    }

    #[test]
    fn what_every_match_of_an_expression_holds_is_known() {
        for (pattern, want) in [
            ("(Failed|Accepted) password for .* from 1[0-9]{2}\\.", vec![" password for ", " from 1"]),
            (r"\berror\b", vec!["error"]),
            ("(?:abc)+def(ghi)?x*yz?", vec!["abc", "def"]),
            ("(?i)error|warn", vec![]),
            ("user=(?P<name>bob)!", vec!["user=bob!"]),
        ] {
            let hir = hir(pattern, syntax::Config::new()).unwrap();
            assert_eq!(
                literals(&hir),
                want.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>(),
                "{pattern}"
            );
        }
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
            let rows = passing(&filters, &[push, get], vec![0, 1]);
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
            let rows: Vec<u32> = (0..lines.len() as u32).filter(|row| chosen[*row as usize]).collect();
            let expected: Vec<u32> = rows.iter().copied().filter(|row| {
                let line = &lines[*row as usize];
                let second = line.contains(&other) || line.contains("abab");
                line.contains(&needle) && second == op.is_positive()
            }).collect();
            for row in &rows {
                prop_assert_eq!(filters.matches(lines[*row as usize].as_bytes()), expected.contains(row));
            }
            prop_assert_eq!(passing(&filters, &lines.iter().map(String::as_str).collect::<Vec<_>>(), rows), expected);
        }
    }
}
