//! LogQL text to a tree, or to an error that says where and what was expected.
//!
//! What is read: stream selectors, line filters, `count_over_time`, `rate`, `bytes_over_time`, `bytes_rate`, `sum`,
//! `count`, `min`, `max`, `avg` with `by` or `without`, numbers, `vector(n)` and arithmetic. Everything else of LogQL
//! is refused by its name; nothing is skipped. The parser does not know time ranges or limits of answers.

use super::ast::{
    AggregateOp, BinaryOp, Expr, FilterOp, Grouping, LineFilter, LogExpr, MatchOp, Matcher, MetricExpr, Needle,
    RangeExpr, RangeOp, Stage,
};
use super::error::{ParseCause, QueryError};
use super::lexer::{Place, Token, tokens};
use super::pattern;
use crate::limits::{QUERY_DEPTH_MAX, QUERY_REGEXES_MAX, QUERY_TEXT_BYTES_MAX};

/// The range aggregations that are read.
const RANGES: [RangeOp; 4] = [RangeOp::CountOverTime, RangeOp::Rate, RangeOp::BytesOverTime, RangeOp::BytesRate];
/// The vector aggregations that are read.
const AGGREGATES: [AggregateOp; 5] =
    [AggregateOp::Sum, AggregateOp::Count, AggregateOp::Min, AggregateOp::Max, AggregateOp::Avg];

struct Parser {
    tokens: Vec<(Token, Place)>,
    at: usize,
    /// Operators, calls and parentheses opened so far: it bounds the depth of the tree.
    nodes: usize,
    regexes: usize,
}

/// Reads a whole query.
pub fn parse(text: &str) -> Result<Expr, QueryError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr()?;
    parser.end()?;
    Ok(expr)
}

/// Reads a stream selector alone, as `/series` and `/labels` take it; `{}` selects every stream here.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    let mut parser = Parser::new(text)?;
    let matchers = parser.matchers()?;
    parser.end()?;
    Ok(matchers)
}

fn name_of_binary(symbol: &str) -> Option<(BinaryOp, u8)> {
    Some(match symbol {
        "+" => (BinaryOp::Add, 1),
        "-" => (BinaryOp::Subtract, 1),
        "*" => (BinaryOp::Multiply, 2),
        "/" => (BinaryOp::Divide, 2),
        "%" => (BinaryOp::Modulo, 2),
        "^" => (BinaryOp::Power, 3),
        _ => return None,
    })
}

fn is_scalar(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Number(_) => true,
        MetricExpr::Binary { left, right, .. } => is_scalar(left) && is_scalar(right),
        MetricExpr::Vector(_)
        | MetricExpr::Range(_)
        | MetricExpr::Aggregate { .. }
        | MetricExpr::LabelReplace { .. } => false,
    }
}

impl Parser {
    fn new(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_TEXT_BYTES_MAX {
            let cause = ParseCause::TooLong { bytes: text.len(), max: QUERY_TEXT_BYTES_MAX };
            return Err(Place { line: 1, column: 1 }.refuse(cause));
        }
        Ok(Self { tokens: tokens(text)?, at: 0, nodes: 0, regexes: 0 })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> Place {
        self.tokens[self.at].1
    }

    /// The next word; the last one, `End`, is never passed.
    fn take(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn peek_symbol(&self) -> Option<&'static str> {
        if let Token::Symbol(symbol) = self.peek() { Some(symbol) } else { None }
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(here) if *here == symbol);
        if found {
            self.take();
        }
        found
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(here) if here == name);
        if found {
            self.take();
        }
        found
    }

    fn expected<T>(&self, expected: &str) -> Result<T, QueryError> {
        let cause = ParseCause::Expected { expected: expected.to_owned(), found: self.peek().describe() };
        Err(self.place().refuse(cause))
    }

    fn unsupported<T>(&self, what: String) -> Result<T, QueryError> {
        Err(self.place().refuse(ParseCause::Unsupported(what)))
    }

    fn symbol(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { self.expected(&format!("{symbol:?}")) }
    }

    fn count_node(&mut self) -> Result<(), QueryError> {
        self.nodes += 1;
        if self.nodes > QUERY_DEPTH_MAX {
            let what = "operators and parentheses".to_owned();
            return Err(self.place().refuse(ParseCause::TooMany { what, max: QUERY_DEPTH_MAX }));
        }
        Ok(())
    }

    fn no_modifier(&self) -> Result<(), QueryError> {
        let offset = matches!(self.peek(), Token::Name(name) if name == "offset");
        if offset || *self.peek() == Token::Symbol("@") {
            return self.unsupported(format!("modifier {}", self.peek().describe()));
        }
        Ok(())
    }

    fn end(&self) -> Result<(), QueryError> {
        self.no_modifier()?;
        match self.peek() {
            Token::End => Ok(()),
            Token::Symbol(symbol @ ("==" | "!=" | ">" | ">=" | "<" | "<=")) => {
                self.unsupported(format!("comparison {symbol:?} of metrics"))
            }
            Token::Name(name) if matches!(name.as_str(), "and" | "or" | "unless") => {
                self.unsupported(format!("set operator {name:?}"))
            }
            Token::Name(_) | Token::Text(_) | Token::Number(_) | Token::Duration(_) | Token::Symbol(_) => {
                self.expected("an operator or the end of the query")
            }
        }
    }

    fn expr(&mut self) -> Result<Expr, QueryError> {
        // Parentheses around a log query; a metric query finds its own.
        let opened = self.tokens.iter().take_while(|(token, _)| *token == Token::Symbol("(")).count();
        if !matches!(self.tokens[opened].0, Token::Symbol("{")) {
            return Ok(Expr::Metric(self.metric(1)?));
        }
        for _ in 0..opened {
            self.count_node()?;
            self.take();
        }
        let logs = self.logs()?;
        for _ in 0..opened {
            self.symbol(")")?;
        }
        Ok(Expr::Logs(logs))
    }

    /// A chain of operators that bind at least as tight as `least`.
    fn metric(&mut self, least: u8) -> Result<MetricExpr, QueryError> {
        let mut left = self.operand()?;
        while let Token::Symbol(symbol) = self.peek()
            && let Some((op, tightness)) = name_of_binary(symbol)
            && tightness >= least
        {
            self.count_node()?;
            self.take();
            if let Token::Name(name) = self.peek()
                && matches!(name.as_str(), "on" | "ignoring" | "bool" | "group_left" | "group_right")
            {
                return self.unsupported(format!("vector matching with {name:?}"));
            }
            // `^` binds to the right: its right side may hold another one.
            let right = self.metric(if op == BinaryOp::Power { tightness } else { tightness + 1 })?;
            left = MetricExpr::binary(op, left, right);
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<MetricExpr, QueryError> {
        if let Some(number) = self.signed_number() {
            return Ok(MetricExpr::Number(number));
        }
        if self.take_symbol("(") {
            self.count_node()?;
            let inner = self.metric(1)?;
            self.symbol(")")?;
            return Ok(inner);
        }
        let Token::Name(name) = self.peek().clone() else {
            return self
                .expected("a stream selector such as {app=\"x\"}, a number, or a function such as count_over_time");
        };
        self.call(&name)
    }

    fn signed_number(&mut self) -> Option<f64> {
        let sign = match self.peek_symbol() {
            Some("-") => Some(-1.0),
            Some("+") => Some(1.0),
            Some(_) | None => None,
        };
        let at = self.at + usize::from(sign.is_some());
        let Token::Number(number) = self.tokens.get(at)?.0 else { return None };
        self.at = at;
        self.take();
        Some(sign.unwrap_or(1.0) * number)
    }

    fn call(&mut self, name: &str) -> Result<MetricExpr, QueryError> {
        let aggregate = AGGREGATES.into_iter().find(|op| op.as_str() == name);
        let range = RANGES.into_iter().find(|op| op.as_str() == name);
        if aggregate.is_none() && range.is_none() && name != "vector" {
            let ranges = RANGES.map(RangeOp::as_str).join(", ");
            let aggregates = AGGREGATES.map(AggregateOp::as_str).join(", ");
            return self.unsupported(format!("function {name:?} (not one of {ranges}, {aggregates}, vector)"));
        }
        self.count_node()?;
        self.take();
        if let Some(op) = aggregate {
            return self.aggregate(op);
        }
        self.symbol("(")?;
        let found = match range {
            Some(op) => MetricExpr::Range(self.range(op)?),
            None => match self.signed_number() {
                Some(number) => MetricExpr::Vector(number),
                None => return self.expected("a number"),
            },
        };
        self.symbol(")")?;
        if range.is_some()
            && let Token::Name(word) = self.peek()
            && matches!(word.as_str(), "by" | "without")
        {
            return self.unsupported(format!("{word:?} after {name:?} rather than sum, count, min, max or avg"));
        }
        Ok(found)
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<MetricExpr, QueryError> {
        let before = self.grouping()?;
        self.symbol("(")?;
        let place = self.place();
        let inner = self.metric(1)?;
        if is_scalar(&inner) {
            let expected = "series to aggregate, such as count_over_time".to_owned();
            return Err(place.refuse(ParseCause::Expected { expected, found: "a number".to_owned() }));
        }
        self.symbol(")")?;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.grouping()?.unwrap_or(Grouping::By(Vec::new())),
        };
        Ok(MetricExpr::Aggregate { op, parameter: None, grouping, inner: Box::new(inner) })
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        let by = self.take_name("by");
        if !by && !self.take_name("without") {
            return Ok(None);
        }
        self.symbol("(")?;
        let mut names = Vec::new();
        while !self.take_symbol(")") {
            if !names.is_empty() && !self.take_symbol(",") {
                return self.expected("\",\" or \")\"");
            }
            let Token::Name(name) = self.peek().clone() else { return self.expected("a label name") };
            self.take();
            names.push(name);
        }
        names.sort();
        names.dedup();
        Ok(Some(if by { Grouping::By(names) } else { Grouping::Without(names) }))
    }

    /// `{..} |= "x" [5m]`, or the window between selector and filters.
    fn range(&mut self, op: RangeOp) -> Result<RangeExpr, QueryError> {
        let mut logs = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        self.filters(&mut logs.stages)?;
        if !self.take_symbol("[") {
            return self.expected("a line filter or a range such as [5m]");
        }
        let Token::Duration(window) = *self.peek() else { return self.expected("a duration such as 5m") };
        self.take();
        self.symbol("]")?;
        self.filters(&mut logs.stages)?;
        self.no_modifier()?;
        Ok(RangeExpr::new(op, logs, window))
    }

    fn logs(&mut self) -> Result<LogExpr, QueryError> {
        let mut logs = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        self.filters(&mut logs.stages)?;
        if matches!(self.peek(), Token::Symbol("[")) {
            return self.expected("a line filter or the end: a range stands within count_over_time or rate");
        }
        Ok(logs)
    }

    /// A selector that names what it wants: at least one matcher must fail on an absent label.
    fn selector(&mut self) -> Result<Vec<Matcher>, QueryError> {
        let place = self.place();
        let matchers = self.matchers()?;
        for matcher in &matchers {
            if !pattern::LabelPattern::new(matcher)?.matches("") {
                return Ok(matchers);
            }
        }
        Err(place.refuse(ParseCause::EmptySelector))
    }

    fn matchers(&mut self) -> Result<Vec<Matcher>, QueryError> {
        if !self.take_symbol("{") {
            return self.expected("a stream selector such as {app=\"x\"}");
        }
        let mut matchers = Vec::new();
        loop {
            if self.take_symbol("}") {
                return Ok(matchers);
            }
            if !matchers.is_empty() {
                if !self.take_symbol(",") {
                    return self.expected("\",\" or \"}\"");
                }
                if self.take_symbol("}") {
                    return Ok(matchers);
                }
            }
            matchers.push(self.matcher()?);
        }
    }

    fn matcher(&mut self) -> Result<Matcher, QueryError> {
        let Token::Name(name) = self.peek().clone() else { return self.expected("a label name") };
        self.take();
        let symbol = self.peek_symbol();
        let Some(op) = MatchOp::ALL.into_iter().find(|op| symbol == Some(op.as_str())) else {
            return self.expected("one of = != =~ !~");
        };
        self.take();
        let place = self.place();
        let value = self.string()?;
        let matcher = Matcher { name, op, value };
        if matches!(op, MatchOp::Matches | MatchOp::NotMatches) {
            self.count_regex(place)?;
            pattern::LabelPattern::new(&matcher).map_err(|error| moved(error, place))?;
        }
        Ok(matcher)
    }

    fn string(&mut self) -> Result<String, QueryError> {
        let Token::Text(text) = self.peek().clone() else { return self.expected("a string") };
        self.take();
        Ok(text)
    }

    fn count_regex(&mut self, place: Place) -> Result<(), QueryError> {
        self.regexes += 1;
        if self.regexes > QUERY_REGEXES_MAX {
            let what = "regular expressions".to_owned();
            return Err(place.refuse(ParseCause::TooMany { what, max: QUERY_REGEXES_MAX }));
        }
        Ok(())
    }

    fn filters(&mut self, stages: &mut Vec<Stage>) -> Result<(), QueryError> {
        loop {
            let symbol = self.peek_symbol();
            match symbol {
                Some("|>" | "!>") => return self.unsupported("pattern line filter".to_owned()),
                Some("|") => return self.stage(),
                Some(_) | None => {}
            }
            let Some(op) = FilterOp::ALL.into_iter().find(|op| symbol == Some(op.as_str())) else { return Ok(()) };
            self.take();
            let mut alternatives = Vec::new();
            loop {
                if let Token::Name(name) = self.peek() {
                    return self.unsupported(format!("line filter function {name:?}"));
                }
                let place = self.place();
                let alternative = self.string()?;
                if op.is_regex() {
                    self.count_regex(place)?;
                    pattern::line_regex(&alternative).map_err(|error| moved(error, place))?;
                }
                alternatives.push(Needle::Text(alternative));
                if !self.take_name("or") {
                    break;
                }
            }
            stages.push(Stage::Filter(LineFilter { op, alternatives }));
        }
    }

    /// Refuses what stands after a bare `|`, by its name.
    fn stage(&mut self) -> Result<(), QueryError> {
        self.take();
        if let Token::Name(name) = self.peek() {
            return self.unsupported(format!("stage \"| {name}\""));
        }
        self.expected("a line filter (|= != |~ !~)")
    }
}

/// The same error at the place of the string it is about.
fn moved(error: QueryError, place: Place) -> QueryError {
    if let QueryError::Parse { cause, .. } = error { place.refuse(cause) } else { error }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_health_check_is_read() {
        let vector = || Box::new(MetricExpr::Vector(1.0));
        let found = parse("vector(1)+vector(1)").unwrap();
        let Expr::Metric(MetricExpr::Binary { op: BinaryOp::Add, left, right, .. }) = found else { panic!("{found}") };
        assert_eq!((left, right), (vector(), vector()));
    }

    #[test]
    fn selectors_filters_ranges_and_groupings_are_read() {
        for (text, canonical) in [
            ("{app=\"a\",b!~`x.*`,}", "{app=\"a\", b!~\"x.*\"}"),
            (
                "{a=\"b\"} |= \"x\" or `y` != \"z\\n\" # why\n |~ \"e+\"",
                "{a=\"b\"} |= \"x\" or \"y\" != \"z\\n\" |~ \"e+\"",
            ),
            ("rate({a=\"b\"}[5m] |= \"x\")", "rate({a=\"b\"} |= \"x\" [300000000000ns])"),
            (
                "sum(count_over_time({a=\"b\"}[1h30m])) by (d, c)",
                "sum by (c, d) (count_over_time({a=\"b\"} [5400000000000ns]))",
            ),
            ("1 - 2 - 3 * 4 ^ 5 ^ 6", "((1) - (2)) - ((3) * ((4) ^ ((5) ^ (6))))"),
            ("((({a=\"b\"})))", "{a=\"b\"}"),
            ("-1 + +2", "(-1) + (2)"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), canonical);
            assert_eq!(parse(canonical).unwrap(), parse(text).unwrap());
        }
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        assert_eq!(
            refusal("{app \"x\"}"),
            "parse error at line 1, col 6: syntax error: expected one of = != =~ !~, found a string"
        );
        assert_eq!(
            refusal("rate({app=\"x\"}\n |= \"y\")"),
            "parse error at line 2, col 8: syntax error: expected a line filter or a range such as [5m], found \")\""
        );
        assert!(refusal("{a=\"b").contains("line 1, col 4: syntax error: the string"));
        assert!(refusal("sum(1 + 2)").contains("line 1, col 5: syntax error: expected series to aggregate"));
        assert!(refusal("").contains("found end of the query"));
        assert!(refusal("{a=~\"(\"}").starts_with("parse error at line 1, col 5: error parsing regexp \"(\""));
    }

    #[test]
    fn what_this_version_does_not_run_is_refused_by_name() {
        for (text, name) in [
            ("{a=\"b\"} | json", "stage \"| json\" is not supported"),
            ("{a=\"b\"} | label_format x=y", "label_format"),
            ("{a=\"b\"} |> \"<_> x\"", "pattern line filter"),
            ("{a=\"b\"} |= ip(\"10.0.0.0/8\")", "line filter function \"ip\""),
            ("sum_over_time({a=\"b\"} | unwrap x [5m])", "function \"sum_over_time\""),
            ("rate({a=\"b\"} | unwrap x [5m])", "stage \"| unwrap\""),
            ("rate({a=\"b\"}[5m] offset 1h)", "modifier \"offset\""),
            ("topk(5, rate({a=\"b\"}[5m]))", "function \"topk\""),
            ("rate({a=\"b\"}[5m]) > 5", "comparison \">\""),
            ("rate({a=\"b\"}[5m]) and vector(1)", "set operator \"and\""),
            ("vector(1) + on (a) vector(1)", "vector matching with \"on\""),
        ] {
            let text = refusal(text);
            assert!(text.contains(name) && text.contains("is not supported"), "{text}");
        }
    }

    #[test]
    fn a_selector_of_empty_compatible_matchers_is_refused() {
        for text in ["{}", "{a=\"\"}", "{a=~\".*\"}", "{a!=\"x\"}", "rate({a!~\"x\"}[1m])"] {
            assert!(refusal(text).contains("at least one regexp or equality matcher"), "{text}");
        }
        assert!(parse("{a=~\".+\", b=~\".*\"}").is_ok());
        assert!(parse_selector("{}").unwrap().is_empty());
    }

    #[test]
    fn depth_length_and_regexes_are_bounded() {
        assert!(refusal(&"(".repeat(9_000)).contains("too many operators"));
        assert!(refusal(&format!("1{}", "+1".repeat(4_000))).contains("too many operators"));
        assert!(refusal(&format!("{{a=\"{}\"}}", "x".repeat(QUERY_TEXT_BYTES_MAX))).contains("bytes"));
        assert!(refusal(&format!("{{a=\"b\"}}{}", " |~ \"a+\"".repeat(99))).contains("too many regular expressions"));
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-z_][a-z0-9_]{0,5}"
    }

    fn logs() -> impl Strategy<Value = LogExpr> {
        let matcher = (name(), 0_usize..4, "\\PC{0,6}|[\n\t\\x00a\"]{0,4}").prop_map(|(name, op, value)| {
            let op = MatchOp::ALL[op];
            let regex = matches!(op, MatchOp::Matches | MatchOp::NotMatches);
            Matcher { name, op, value: if regex { regex_syntax::escape(&value) } else { value } }
        });
        let filter = (0_usize..4, prop::collection::vec("[a-z. \"\\\\]{0,5}", 1..3)).prop_map(|(op, texts)| {
            let op = FilterOp::ALL[op];
            let escaped = |text: String| if op.is_regex() { regex_syntax::escape(&text) } else { text };
            let alternatives = texts.into_iter().map(|text| Needle::Text(escaped(text))).collect();
            Stage::Filter(LineFilter { op, alternatives })
        });
        (prop::collection::vec(matcher, 0..3), prop::collection::vec(filter, 0..3)).prop_map(
            |(mut matchers, stages)| {
                matchers.push(Matcher { name: "app".into(), op: MatchOp::Equal, value: "x".into() });
                LogExpr { matchers, stages }
            },
        )
    }

    fn metric() -> impl Strategy<Value = MetricExpr> {
        let leaf = prop_oneof![
            (-1e9..1e9_f64).prop_map(MetricExpr::Number),
            any::<i32>().prop_map(|number| MetricExpr::Vector(f64::from(number))),
            (0_usize..4, logs(), 1..i64::MAX)
                .prop_map(|(op, logs, window)| MetricExpr::Range(RangeExpr::new(RANGES[op], logs, window))),
        ];
        leaf.prop_recursive(4, 12, 2, |inner| {
            let names = prop::collection::btree_set(name(), 0..3).prop_map(|names| names.into_iter().collect());
            prop_oneof![
                (0_usize..5, any::<bool>(), names, inner.clone()).prop_map(|(op, by, names, inner)| {
                    let grouping = if by { Grouping::By(names) } else { Grouping::Without(names) };
                    let inner = if is_scalar(&inner) { MetricExpr::Vector(1.0) } else { inner };
                    MetricExpr::Aggregate { op: AGGREGATES[op], parameter: None, grouping, inner: Box::new(inner) }
                }),
                (0_usize..6, inner.clone(), inner).prop_map(|(op, left, right)| MetricExpr::binary(
                    BinaryOp::ALL[op],
                    left,
                    right
                )),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn arbitrary_words_never_panic(
            words in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "(", ")", "[", "]", "a", "=", "=~", "!=", "|=", "|~", "|", "\"x\"", "\"(\"", "5m", "1", "rate",
                "sum", "by", ",", "+", "-", "^", "vector", "offset", "\"", "`", "\\", "or", "1e", "#", "\n",
            ]), 0..24),
        ) {
            let _ = parse(&words.concat());
            let _ = parse(&words.join(" "));
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
    }
}
