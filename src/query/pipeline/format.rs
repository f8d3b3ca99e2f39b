//! Stages that write line and labels anew.

use std::borrow::Cow;

use memchr::{memchr2_iter, memmem};

use super::Processed;
use super::fields::{ERROR, ERROR_DETAILS, Failure, Fields, Origin};
use crate::query::ast::{LabelChoice, LabelFormat, LabelSource};
use crate::query::error::QueryError;
use crate::query::pattern::{LabelPattern, refuse_text};
use crate::query::template::{Context, Template};

fn template(text: &str) -> Result<Template, QueryError> {
    Template::new(text).map_err(|why| refuse_text("template", text, why))
}

/// What a template makes of a record; on an error it says so in the labels.
fn rendered(template: &Template, timestamp: i64, record: &mut Processed<'_>) -> Option<String> {
    let lookup = |name: &str| record.fields.get(name);
    let text = template.render(&Context { line: &record.line, timestamp, lookup: &lookup });
    match text {
        Ok(text) => Some(text),
        Err(why) => {
            record.fields.fail(Failure::Template, why.to_string());
            None
        }
    }
}

/// `| line_format`. A template that fails leaves the line as it is.
pub(super) struct LineWriter(Template);

impl LineWriter {
    /// A parse error where the template is none.
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        template(text).map(Self)
    }

    pub(super) fn regexes(&self) -> usize {
        self.0.regexes()
    }

    pub(super) fn write(&self, timestamp: i64, record: &mut Processed<'_>) {
        if let Some(line) = rendered(&self.0, timestamp, record) {
            record.line = Cow::Owned(line);
        }
    }
}

enum Source {
    /// Another label, which goes. Its origin stays.
    Rename(String),
    Template(Template),
}

/// `| label_format`: from left to right, each assignment sees what those before it made. A template that fails leaves
/// its label as it is.
pub(super) struct LabelWriter(Vec<(String, Source)>);

impl LabelWriter {
    /// A parse error where a template is none.
    pub(super) fn new(formats: &[LabelFormat]) -> Result<Self, QueryError> {
        let writer = |format: &LabelFormat| {
            let source = match &format.source {
                LabelSource::Rename(from) => Source::Rename(from.clone()),
                LabelSource::Template(text) => Source::Template(template(text)?),
            };
            Ok((format.label.clone(), source))
        };
        formats.iter().map(writer).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn regexes(&self) -> usize {
        let regexes = |(_, source): &(String, Source)| match source {
            Source::Rename(_) => 0,
            Source::Template(template) => template.regexes(),
        };
        self.0.iter().map(regexes).sum()
    }

    pub(super) fn write<'a>(&'a self, timestamp: i64, record: &mut Processed<'a>) {
        for (label, source) in &self.0 {
            match source {
                Source::Rename(from) => {
                    if let Some((value, origin)) = record.fields.remove(from) {
                        record.fields.set(label, value, origin);
                    }
                }
                Source::Template(template) => {
                    let Some(value) = rendered(template, timestamp, record) else { continue };
                    match record.fields.room_for(label, &value) {
                        Ok(()) => record.fields.set(label, value, Origin::Parsed),
                        Err(full) => record.fields.fail(Failure::Limit, full.to_string()),
                    }
                }
            }
        }
    }
}

/// `| keep` and `| drop`. What `keep` does not name goes, but for `__error__` and `__error_details__`.
pub(super) struct Keep {
    choices: Vec<(String, Option<LabelPattern>)>,
    chosen_stay: bool,
}

impl Keep {
    /// `| keep` where what is chosen stays, `| drop` where it goes; a parse error where an expression is refused.
    pub(super) fn new(choices: &[LabelChoice], chosen_stay: bool) -> Result<Self, QueryError> {
        let choice = |choice: &LabelChoice| match choice {
            LabelChoice::Name(name) => Ok((name.clone(), None)),
            LabelChoice::Where(matcher) => Ok((matcher.name.clone(), Some(LabelPattern::new(matcher)?))),
        };
        Ok(Self { choices: choices.iter().map(choice).collect::<Result<_, _>>()?, chosen_stay })
    }

    pub(super) fn apply(&self, fields: &mut Fields<'_>) {
        let chosen = |name: &str, value: &str| {
            let fits = |pattern: &Option<LabelPattern>| pattern.as_ref().is_none_or(|pattern| pattern.matches(value));
            self.choices.iter().any(|(chosen, pattern)| chosen == name && fits(pattern))
        };
        fields.retain(|name, value| {
            let stays = self.chosen_stay && (name == ERROR || name == ERROR_DETAILS);
            stays || chosen(name, value) == self.chosen_stay
        });
    }
}

/// `| decolorize`: without ANSI sequences.
pub(super) fn decolorize(line: &mut Cow<'_, str>) {
    if let Some(plain) = decolorized(line) {
        *line = Cow::Owned(plain);
    }
}

const ESCAPE: u8 = 0x1b;
/// U+009B, which stands for `ESC [`, as UTF-8 writes it.
const CONTROL: &[u8] = b"\xc2\x9b";

/// A line without its control sequences as ECMA-48 has them; `None` where it has none.
fn decolorized(line: &str) -> Option<String> {
    if !line.as_bytes().contains(&ESCAPE) && memmem::find(line.as_bytes(), CONTROL).is_none() {
        return None;
    }
    let mut plain = String::with_capacity(line.len());
    let (mut kept, mut at) = (0, 0);
    // Once a string is not ended, none after it is.
    let mut ends = true;
    while at < line.len() {
        match sequence(&line.as_bytes()[at..], &mut ends) {
            Some(length) => {
                plain.push_str(&line[kept..at]);
                at += length;
                kept = at;
            }
            None => at += 1,
        }
    }
    plain.push_str(&line[kept..]);
    Some(plain)
}

/// How long the control sequence is that a text begins with; `None` where it begins with none.
fn sequence(text: &[u8], ends: &mut bool) -> Option<usize> {
    let run = |from: usize, low: u8, high: u8| {
        from + text[from..].iter().take_while(|byte| (low..=high).contains(byte)).count()
    };
    let finish = |at: usize, low: u8| text.get(at).filter(|byte| (low..=0x7e).contains(*byte)).map(|_| at + 1);
    let parameters = match text {
        [ESCAPE, b'[', ..] => 2,
        [0xc2, 0x9b, ..] => CONTROL.len(),
        [ESCAPE, b']' | b'P' | b'X' | b'^' | b'_', rest @ ..] => {
            if !*ends {
                return None;
            }
            let mut stops = memchr2_iter(0x07, ESCAPE, rest).map(|at| (at, &rest[at..]));
            let end = stops.find_map(|(at, stop)| match stop {
                [0x07, ..] => Some(at + 1),
                [_, b'\\', ..] => Some(at + 2),
                _ => None,
            });
            *ends = end.is_some();
            return end.map(|end| end + 2);
        }
        [ESCAPE, ..] => return finish(run(1, 0x20, 0x2f), 0x30),
        _ => return None,
    };
    finish(run(run(parameters, 0x30, 0x3f), 0x20, 0x2f), 0x40)
}
