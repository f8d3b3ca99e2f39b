//! LogQL text to a tree, or to an error that says where and what was expected.
//!
//! The whole language is read: `logs` has selectors and stages, `labels` their conditions, `metric` everything above a
//! range. What an expression cannot mean is refused here, so that a tree is sound wherever it travels. The parser does
//! not know time ranges, limits of answers, or what the engine runs.
//!
//! Keywords and vector aggregations are read in any case, range aggregations and conversions as they are written in
//! Loki's reference, as the published grammar `@grafana/lezer-logql` has it. A word means a keyword only where one may
//! stand, so that any label can be named; right after `|` the name of a stage wins, and `| (json="x")` is the label.

mod labels;
mod logs;
mod metric;
#[cfg(test)]
mod tests;

use super::ast::{Expr, Matcher};
use super::error::{ParseCause, QueryError};
use super::lexer::{Place, Token, tokens};
use super::pattern;
use crate::limits::{QUERY_DEPTH_MAX, QUERY_REGEXES_MAX, QUERY_TEXT_BYTES_MAX};

const SELECTOR: &str = "a stream selector such as {app=\"x\"}";

struct Parser {
    tokens: Vec<(Token, Place)>,
    at: usize,
    /// Operators and calls so far: they bound the depth of the tree.
    nodes: usize,
    /// Parentheses that are open: with the nodes they bound the depth of the parser itself.
    open: usize,
    regexes: usize,
    /// Where each stage and each `unwrap` stands, in the order of the text.
    stages: Vec<Place>,
}

/// Reads a whole query.
pub fn parse(text: &str) -> Result<Expr, QueryError> {
    Ok(parse_placed(text)?.0)
}

/// The same, and where each stage and each `unwrap` of all its selectors stands, in the order of the text.
pub(super) fn parse_placed(text: &str) -> Result<(Expr, Vec<Place>), QueryError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr()?;
    let expected = match &expr {
        Expr::Logs(_) => "a stage or the end of the query",
        Expr::Metric(_) => "an operator or the end of the query",
    };
    parser.end(expected)?;
    Ok((expr, parser.stages))
}

/// Reads a stream selector alone, as `/series` and `/labels` take it; `{}` selects every stream here.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    let mut parser = Parser::new(text)?;
    let matchers = parser.matchers()?;
    parser.end("the end of the selector")?;
    Ok(matchers)
}

/// The query in the one way that every query with the same meaning is written, without its comments.
pub fn format_query(text: &str) -> Result<String, QueryError> {
    Ok(parse(text)?.to_string())
}

impl Parser {
    fn new(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_TEXT_BYTES_MAX {
            let cause = ParseCause::TooLong { bytes: text.len(), max: QUERY_TEXT_BYTES_MAX };
            return Err(Place { line: 1, column: 1 }.refuse(cause));
        }
        Ok(Self { tokens: tokens(text), at: 0, nodes: 0, open: 0, regexes: 0, stages: Vec::new() })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    /// The word after the next one.
    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn place(&self) -> Place {
        self.tokens[self.at].1
    }

    /// Passes the next word; the last one is never passed.
    fn skip(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn peek_symbol(&self) -> Option<&'static str> {
        if let Token::Symbol(symbol) = self.peek() { Some(symbol) } else { None }
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        self.peek_symbol() == Some(symbol)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.skip();
        }
        found
    }

    /// A keyword, in any case.
    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(here) if here.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.skip();
        }
        found
    }

    /// The error that something else should stand here; what is no word at all is refused as such.
    fn expected<T>(&self, expected: &str) -> Result<T, QueryError> {
        if let Token::Wrong(cause) = self.peek() {
            return Err(self.place().refuse(cause.clone()));
        }
        let cause = ParseCause::Expected { expected: expected.to_owned(), found: self.peek().describe() };
        Err(self.place().refuse(cause))
    }

    fn symbol(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { self.expected(&format!("{symbol:?}")) }
    }

    fn end(&self, expected: &str) -> Result<(), QueryError> {
        if *self.peek() == Token::End { Ok(()) } else { self.expected(expected) }
    }

    fn name(&mut self, what: &str) -> Result<String, QueryError> {
        let Token::Name(name) = self.peek().clone() else { return self.expected(what) };
        self.skip();
        Ok(name)
    }

    fn string(&mut self) -> Result<String, QueryError> {
        let Token::Text(text) = self.peek().clone() else { return self.expected("a string") };
        self.skip();
        Ok(text)
    }

    /// `("..")`, as `ip` takes it.
    fn string_argument(&mut self) -> Result<String, QueryError> {
        self.symbol("(")?;
        let text = self.string()?;
        self.symbol(")")?;
        Ok(text)
    }

    /// A number with or without a sign; nothing is passed where none stands.
    fn signed_number(&mut self) -> Option<f64> {
        let (number, passed) = match (self.peek_symbol(), self.peek(), self.peek_second()) {
            (_, Token::Number(number), _) => (*number, 1),
            (Some("-"), _, Token::Number(number)) => (-number, 2),
            (Some("+"), _, Token::Number(number)) => (*number, 2),
            (_, _, _) => return None,
        };
        self.at += passed;
        Some(number)
    }

    /// A duration in nanoseconds with or without a minus; nothing is passed where none stands.
    fn signed_duration(&mut self) -> Option<i64> {
        let (duration, passed) = match (self.peek_symbol(), self.peek(), self.peek_second()) {
            (_, Token::Duration(duration), _) => (*duration, 1),
            (Some("-"), _, Token::Duration(duration)) => (-duration, 2),
            (_, _, _) => return None,
        };
        self.at += passed;
        Some(duration)
    }

    /// At least one of what `item` reads, with commas between them.
    fn listed<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, QueryError>) -> Result<Vec<T>, QueryError> {
        let mut items = vec![item(self)?];
        while self.take_symbol(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn count_node(&mut self) -> Result<(), QueryError> {
        self.nodes += 1;
        self.bounded(self.nodes, "operators and calls")
    }

    /// Opens a parenthesis that has been passed; `close` ends it.
    fn open(&mut self) -> Result<(), QueryError> {
        self.open += 1;
        self.bounded(self.open, "parentheses within each other")
    }

    fn close(&mut self) -> Result<(), QueryError> {
        self.symbol(")")?;
        self.open -= 1;
        Ok(())
    }

    fn bounded(&self, found: usize, what: &str) -> Result<(), QueryError> {
        if found <= QUERY_DEPTH_MAX {
            return Ok(());
        }
        Err(self.place().refuse(ParseCause::TooMany { what: what.to_owned(), max: QUERY_DEPTH_MAX }))
    }

    fn count_regex(&mut self, place: Place) -> Result<(), QueryError> {
        self.regexes += 1;
        if self.regexes > QUERY_REGEXES_MAX {
            let what = "regular expressions".to_owned();
            return Err(place.refuse(ParseCause::TooMany { what, max: QUERY_REGEXES_MAX }));
        }
        Ok(())
    }

    /// A regular expression for lines; one that must name a capture where `captures` says so.
    fn regex(&mut self, captures: bool) -> Result<String, QueryError> {
        let place = self.place();
        let text = self.string()?;
        self.count_regex(place)?;
        let regex = pattern::line_regex(&text).map_err(|error| moved(error, place))?;
        if captures && regex.group_info().all_names().all(|(_, _, name)| name.is_none()) {
            return Err(place.refuse(ParseCause::NoCapture));
        }
        Ok(text)
    }

    fn expr(&mut self) -> Result<Expr, QueryError> {
        // Parentheses around a log query; a metric query finds its own.
        let opened = self.tokens.iter().take_while(|(token, _)| *token == Token::Symbol("(")).count();
        if !matches!(self.tokens[opened].0, Token::Symbol("{")) {
            return Ok(Expr::Metric(self.metric(0)?));
        }
        for _ in 0..opened {
            self.skip();
            self.open()?;
        }
        let logs = self.logs()?;
        for _ in 0..opened {
            self.close()?;
        }
        Ok(Expr::Logs(logs))
    }
}

/// The same error at the place of what it is about.
pub(super) fn moved(error: QueryError, place: Place) -> QueryError {
    if let QueryError::Parse { cause, .. } = error { place.refuse(cause) } else { error }
}
