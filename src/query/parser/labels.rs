//! Conditions on the labels of a record. `and`, a comma or nothing between two of them bind tighter than `or`.

use super::super::ast::{Compare, LabelFilter};
use super::super::error::QueryError;
use super::super::lexer::Token;
use super::Parser;

impl Parser {
    pub(super) fn label_filter(&mut self) -> Result<LabelFilter, QueryError> {
        let mut left = self.all_of()?;
        while self.take_word("or") {
            self.count_node()?;
            left = LabelFilter::Or(Box::new(left), Box::new(self.all_of()?));
        }
        Ok(left)
    }

    fn all_of(&mut self) -> Result<LabelFilter, QueryError> {
        let mut left = self.predicate()?;
        loop {
            let joined = self.take_word("and") || self.take_symbol(",");
            if !joined && !self.is_predicate() {
                return Ok(left);
            }
            self.count_node()?;
            left = LabelFilter::And(Box::new(left), Box::new(self.predicate()?));
        }
    }

    /// Whether another condition follows without a word between: `or` as a label would need one.
    fn is_predicate(&self) -> bool {
        let compares =
            matches!(self.peek_second(), Token::Symbol("=" | "!=" | "=~" | "!~" | "==" | ">" | ">=" | "<" | "<="));
        self.is_symbol("(") || (matches!(self.peek(), Token::Name(_)) && !self.is_word("or") && compares)
    }

    fn predicate(&mut self) -> Result<LabelFilter, QueryError> {
        if self.take_symbol("(") {
            self.open()?;
            let inner = self.label_filter()?;
            self.close()?;
            return Ok(inner);
        }
        let name = self.name("a label name")?;
        let op = match self.peek_symbol() {
            Some("=" | "==") => Compare::Equal,
            Some("!=") => Compare::NotEqual,
            Some(">") => Compare::Greater,
            Some(">=") => Compare::GreaterEqual,
            Some("<") => Compare::Less,
            Some("<=") => Compare::LessEqual,
            Some("=~" | "!~") => return self.matcher(name).map(LabelFilter::Text),
            Some(_) | None => return self.expected("one of = != =~ !~ == > >= < <="),
        };
        let textual = self.is_symbol("=") || self.is_symbol("!=");
        if textual && matches!(self.peek_second(), Token::Text(_)) {
            return self.matcher(name).map(LabelFilter::Text);
        }
        self.skip();
        if textual && self.is_call("ip") {
            self.skip();
            let range = self.string_argument()?;
            return Ok(LabelFilter::Ip { name, negative: op == Compare::NotEqual, range });
        }
        self.quantity(name, op, textual)
    }

    fn quantity(&mut self, name: String, op: Compare, textual: bool) -> Result<LabelFilter, QueryError> {
        if let Some(value) = self.signed_number() {
            return Ok(LabelFilter::Number { name, op, value });
        }
        if let Some(value) = self.signed_duration() {
            return Ok(LabelFilter::Duration { name, op, value });
        }
        if let Token::Bytes(value) = *self.peek() {
            self.skip();
            return Ok(LabelFilter::Bytes { name, op, value });
        }
        let quantities = "a number, a duration such as 5s, or a size such as 20KB";
        if textual { self.expected(&format!("a string, ip(\"..\"), {quantities}")) } else { self.expected(quantities) }
    }
}
