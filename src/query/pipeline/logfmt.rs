//! `| logfmt`: `key=value` and `key="quoted value"`, with white space between them, as labels.
//!
//! A key without `=` has the empty value. A value that is not quoted holds no `=` and no `"`; a quoted one knows the
//! escapes of JSON. What is not of this form is passed over up to the next white space, or with `--strict` ends the parsing.

use std::borrow::Cow;

use memchr::memchr2;

use super::fields::label_name;
use super::json::unescaped;
use super::{Broken, Failure, Found, Parser};
use crate::query::ast::Extraction;

/// `| logfmt`, with or without names of keys.
pub(super) struct Logfmt {
    strict: bool,
    keep_empty: bool,
    /// Label and key; none: all keys.
    keys: Vec<(String, String)>,
}

impl Logfmt {
    pub(super) fn new(strict: bool, keep_empty: bool, fields: &[Extraction]) -> Self {
        let keys = fields.iter().map(|field| (field.label.clone(), field.expression.clone())).collect();
        Self { strict, keep_empty, keys }
    }
}

impl Parser for Logfmt {
    fn parse<'l>(&'l self, line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken> {
        let mut scanner = Scanner { line, at: 0 };
        while let Some(pair) = scanner.next() {
            let (key, value) = match pair {
                Ok(pair) => pair,
                Err(broken) if self.strict => return Err(broken),
                Err(_) => continue,
            };
            if self.keys.is_empty() {
                if self.keep_empty || !value.is_empty() {
                    found(label_name(key), value)?;
                }
                continue;
            }
            for (label, _) in self.keys.iter().filter(|(_, wanted)| wanted == key) {
                found(Cow::Borrowed(label), value.clone())?;
            }
        }
        Ok(())
    }
}

struct Scanner<'l> {
    line: &'l str,
    at: usize,
}

impl<'l> Scanner<'l> {
    /// Bytes from here on up to the first that is one of these, or white space.
    fn until(&self, ends: &[u8]) -> usize {
        let rest = &self.line.as_bytes()[self.at..];
        rest.iter().position(|byte| *byte <= b' ' || ends.contains(byte)).unwrap_or(rest.len())
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn broken<T>(&self, what: &str) -> Result<T, Broken> {
        Err(Broken { failure: Failure::Logfmt, details: format!("{what} at byte {}", self.at) })
    }

    fn unexpected<T>(&self) -> Result<T, Broken> {
        let found = self.line[self.at..].chars().next();
        self.broken(&found.map_or("an unexpected end".to_owned(), |found| format!("unexpected {found:?}")))
    }

    /// The next pair; `None` at the end. What is no pair was passed over.
    fn next(&mut self) -> Option<Result<(&'l str, Cow<'l, str>), Broken>> {
        let rest = &self.line.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| *byte > b' ')?;
        let start = self.at;
        let pair = self.pair();
        if pair.is_err() {
            self.at = start;
            self.at += self.until(&[]);
        }
        Some(pair)
    }

    fn pair(&mut self) -> Result<(&'l str, Cow<'l, str>), Broken> {
        let start = self.at;
        self.at += self.until(b"=\"");
        let key = &self.line[start..self.at];
        match self.peek() {
            Some(b'"') => return self.unexpected(),
            Some(b'=') if key.is_empty() => return self.unexpected(),
            Some(b'=') => self.at += 1,
            Some(_) | None => return Ok((key, Cow::Borrowed(""))),
        }
        let value = if self.peek() == Some(b'"') { self.quoted()? } else { self.plain() };
        if self.peek().is_some_and(|next| next > b' ') { self.unexpected() } else { Ok((key, value)) }
    }

    fn plain(&mut self) -> Cow<'l, str> {
        let start = self.at;
        self.at += self.until(b"=\"");
        Cow::Borrowed(&self.line[start..self.at])
    }

    fn quoted(&mut self) -> Result<Cow<'l, str>, Broken> {
        let rest = &self.line[self.at..];
        let Some(end) = closing_quote(rest) else { return self.broken("a quote that is never closed") };
        let Some(value) = unescaped(&rest[..=end]) else { return self.broken("a quoted value with an unknown escape") };
        self.at += end + 1;
        Ok(value)
    }
}

/// Where the quote closes that a text begins with.
fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.as_bytes().get(at..)?)?;
        if text.as_bytes()[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}
