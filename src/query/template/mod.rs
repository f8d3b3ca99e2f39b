//! Templates of `line_format` and `label_format`: the language of Go's `text/template` over the labels of one record,
//! with the functions that Loki documents (<https://grafana.com/docs/loki/latest/query/template_functions/>).
//!
//! A template is text that a query holds; text of a record is only ever data to it. It has no clock and no time zones,
//! writes at most `TEMPLATE_BYTES_MAX` bytes, and ends after at most `TEMPLATE_WORK_MAX` of work.

mod dates;
mod error;
mod functions;
mod lexer;
mod number;
mod parser;
mod printf;
mod run;
mod strings;
#[cfg(test)]
mod tests;
mod value;

pub use error::{Cause, TemplateError};

/// The record that a template writes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The line, for `__line__`.
    pub line: &'a str,
    /// Nanoseconds since the Unix epoch, for `__timestamp__`.
    pub timestamp: i64,
    /// The value of a label, for `.label`; one that the record does not have is empty.
    pub lookup: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A template, ready to run.
#[derive(Clone, Debug)]
pub struct Template(parser::Tree);

impl Template {
    /// Reads a template; an error where it is none, or holds more than it may.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        parser::parse(text).map(Self)
    }

    /// Regular expressions that it holds compiled.
    pub fn regexes(&self) -> usize {
        self.0.regexes
    }

    /// What it makes of a record; an error where a function refuses what it is given, or a bound is passed.
    pub fn render(&self, context: &Context<'_>) -> Result<String, TemplateError> {
        run::render(&self.0, context)
    }
}
