//! `| regexp`: the named captures of the first match in a line as labels. A line without a match gives none, and neither
//! does a capture that took no part in the match.

use std::borrow::Cow;

use regex_automata::PatternID;
use regex_automata::meta::Regex;

use super::{Broken, Found, Parser};
use crate::label::is_label_name;
use crate::query::error::{ParseCause, QueryError};
use crate::query::lexer::Place;
use crate::query::pattern::{line_regex, refuse_text};

pub(super) struct Regexp {
    regex: Regex,
    /// Group and name.
    names: Vec<(usize, String)>,
}

impl Regexp {
    /// A parse error where the expression is none, or no capture in it has a name.
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let regex = line_regex(text)?;
        let groups = regex.group_info().pattern_names(PatternID::ZERO).enumerate();
        let names: Vec<(usize, String)> = groups.filter_map(|(group, name)| Some((group, name?.to_owned()))).collect();
        if names.is_empty() {
            return Err(Place { line: 1, column: 1 }.refuse(ParseCause::NoCapture));
        }
        if let Some((_, name)) = names.iter().find(|(_, name)| !is_label_name(name)) {
            return Err(refuse_text("regexp", text, format_args!("no label has the name {name:?}")));
        }
        Ok(Self { regex, names })
    }
}

impl Parser for Regexp {
    fn parse<'l>(&'l self, line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken> {
        let mut captures = self.regex.create_captures();
        self.regex.captures(line, &mut captures);
        if !captures.is_match() {
            return Ok(());
        }
        for (group, name) in &self.names {
            if let Some(span) = captures.get_group(*group) {
                found(Cow::Borrowed(name), Cow::Borrowed(&line[span.range()]))?;
            }
        }
        Ok(())
    }
}
