//! What a record goes through after its stream was selected: line filters, parsers that find labels in the line,
//! conditions on labels, and stages that write line and labels anew.
//!
//! A record is never lost to an error: what a stage cannot do is said in the labels `__error__` and
//! `__error_details__`, and the record goes on. This room does not know where records are stored, nor who asks.

mod fields;
mod format;
mod json;
mod labels;
mod logfmt;
mod regexp;
#[cfg(test)]
mod tests;
mod unpack;
mod unwrap;

use std::borrow::Cow;

pub use fields::{ERROR, ERROR_DETAILS, Failure, Fields, Origin};
pub(super) use json::paths as json_paths;
pub use unwrap::Unwrapped;

use super::ast::Stage;
use super::capture::Capture;
use super::error::{ParseCause, QueryError};
use super::lexer::Place;
use super::pattern::{LineFilters, refuse_text};
use crate::label::Labels;
use crate::limits::QUERY_REGEXES_MAX;
use fields::Full;
use format::{Keep, LabelWriter, LineWriter};
use json::Json;
use labels::LabelCondition;
use logfmt::Logfmt;
use regexp::Regexp;

/// A record as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its line.
    pub line: &'a str,
    /// Its stream's labels.
    pub labels: &'a Labels,
    /// Its metadata, in the order it was sent.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// A record as a pipeline leaves it.
#[derive(Clone, Debug)]
pub struct Processed<'a> {
    /// The line.
    pub line: Cow<'a, str>,
    /// Labels, metadata, and what was found in the line.
    pub fields: Fields<'a>,
}

/// Takes what a parser finds, name and value.
type Found<'f, 'l> = &'f mut dyn FnMut(Cow<'l, str>, Cow<'l, str>) -> Result<(), Full>;

/// Why a parser stopped within a line.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    failure: Failure,
    details: String,
}

/// Finds labels in a line.
trait Parser {
    /// Hands on what the line holds, in its order; an error where the line is not what the parser reads, or holds too much.
    fn parse<'l>(&'l self, line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken>;
}

impl From<Full> for Broken {
    fn from(full: Full) -> Self {
        Self { failure: Failure::Limit, details: full.to_string() }
    }
}

impl<'a> Processed<'a> {
    /// The record before any stage.
    pub fn new(record: &Record<'a>) -> Self {
        Self { line: Cow::Borrowed(record.line), fields: Fields::new(record.labels, record.metadata) }
    }

    fn parse(&mut self, parser: &'a impl Parser) {
        let Self { line, fields } = self;
        let parsed = match line {
            Cow::Borrowed(line) => parser.parse(line, &mut |name, value| fields.extract(name, value)),
            // What was written by a stage may be replaced by another, so nothing is borrowed from it.
            Cow::Owned(line) => parser
                .parse(line, &mut |name, value| fields.extract(name.into_owned().into(), value.into_owned().into())),
        };
        if let Err(Broken { failure, details }) = parsed {
            fields.fail(failure, details);
        }
    }
}

/// A stage, ready to run.
enum Step {
    Filter(LineFilters),
    Json(Json),
    Logfmt(Logfmt),
    Pattern(CaptureParser),
    Regexp(Regexp),
    Unpack,
    Labels(LabelCondition),
    LineFormat(LineWriter),
    LabelFormat(LabelWriter),
    Keep(Keep),
    Decolorize,
}

/// `| pattern`: what lies between its literals.
struct CaptureParser(Capture);

impl Parser for CaptureParser {
    fn parse<'l>(&'l self, line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken> {
        for (name, value) in self.0.captures(line) {
            found(Cow::Borrowed(name), Cow::Borrowed(value))?;
        }
        Ok(())
    }
}

/// The stages of a query, ready to run.
pub struct Pipeline {
    leading: LineFilters,
    steps: Vec<Step>,
}

impl Pipeline {
    /// Compiles the stages.
    ///
    /// # Errors
    /// `QueryError::Parse` where an expression, pattern or template is refused, or there are too many of them.
    pub fn new(stages: &[Stage]) -> Result<Self, QueryError> {
        // Filters up to the first stage that may write the line see it as it is stored, so they can come first.
        let written = stages.iter().position(writes_line).unwrap_or(stages.len());
        let is_filter = |stage: &&Stage| matches!(stage, Stage::Filter(_));
        let (before, after) = stages.split_at(written);
        let leading: Vec<Stage> = before.iter().filter(is_filter).cloned().collect();
        let rest = before.iter().filter(|stage| !is_filter(stage)).chain(after);
        let steps: Vec<Step> = rest.map(Step::new).collect::<Result<_, _>>()?;
        if steps.iter().map(Step::regexes_of_templates).sum::<usize>() > QUERY_REGEXES_MAX {
            let cause =
                ParseCause::TooMany { what: "regular expressions in templates".to_owned(), max: QUERY_REGEXES_MAX };
            return Err(Place { line: 1, column: 1 }.refuse(cause));
        }
        Ok(Self { leading: LineFilters::new(&leading)?, steps })
    }

    /// The conditions on the line as it is stored. [`Pipeline::run`] takes them for granted.
    pub fn leading(&self) -> &LineFilters {
        &self.leading
    }

    /// Whether there is nothing else.
    pub fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// What becomes of a record whose line passes [`Pipeline::leading`]; `None` where a stage leaves it out.
    pub fn run<'a>(&'a self, record: &Record<'a>) -> Option<Processed<'a>> {
        let mut processed = Processed::new(record);
        self.steps.iter().all(|step| step.run(record.timestamp, &mut processed)).then_some(processed)
    }
}

/// Whether the stages after this one may see another line.
fn writes_line(stage: &Stage) -> bool {
    match stage {
        Stage::LineFormat(_) | Stage::Decolorize | Stage::Unpack => true,
        Stage::Filter(_)
        | Stage::Json(_)
        | Stage::Logfmt { .. }
        | Stage::Pattern(_)
        | Stage::Regexp(_)
        | Stage::Labels(_)
        | Stage::LabelFormat(_)
        | Stage::Drop(_)
        | Stage::Keep(_) => false,
    }
}

impl Step {
    fn new(stage: &Stage) -> Result<Self, QueryError> {
        Ok(match stage {
            Stage::Filter(_) => Self::Filter(LineFilters::new(std::slice::from_ref(stage))?),
            Stage::Json(extractions) => Self::Json(Json::new(extractions)?),
            Stage::Logfmt { strict, keep_empty, fields } => Self::Logfmt(Logfmt::new(*strict, *keep_empty, fields)),
            Stage::Pattern(text) => {
                Self::Pattern(CaptureParser(Capture::parser(text).map_err(|why| refuse_text("pattern", text, why))?))
            }
            Stage::Regexp(text) => Self::Regexp(Regexp::new(text)?),
            Stage::Unpack => Self::Unpack,
            Stage::Labels(filter) => Self::Labels(LabelCondition::new(filter)?),
            Stage::LineFormat(template) => Self::LineFormat(LineWriter::new(template)?),
            Stage::LabelFormat(formats) => Self::LabelFormat(LabelWriter::new(formats)?),
            Stage::Drop(choices) => Self::Keep(Keep::new(choices, false)?),
            Stage::Keep(choices) => Self::Keep(Keep::new(choices, true)?),
            Stage::Decolorize => Self::Decolorize,
        })
    }

    fn regexes_of_templates(&self) -> usize {
        match self {
            Self::LineFormat(writer) => writer.regexes(),
            Self::LabelFormat(writer) => writer.regexes(),
            Self::Filter(_)
            | Self::Json(_)
            | Self::Logfmt(_)
            | Self::Pattern(_)
            | Self::Regexp(_)
            | Self::Unpack
            | Self::Labels(_)
            | Self::Keep(_)
            | Self::Decolorize => 0,
        }
    }

    /// Whether the record goes on.
    fn run<'a>(&'a self, timestamp: i64, record: &mut Processed<'a>) -> bool {
        match self {
            Self::Filter(filters) => return filters.matches(record.line.as_bytes()),
            Self::Labels(condition) => return condition.holds(&mut record.fields),
            Self::Json(parser) => record.parse(parser),
            Self::Logfmt(parser) => record.parse(parser),
            Self::Pattern(parser) => record.parse(parser),
            Self::Regexp(parser) => record.parse(parser),
            Self::Unpack => unpack::unpack(record),
            Self::LineFormat(writer) => writer.write(timestamp, record),
            Self::LabelFormat(writer) => writer.write(timestamp, record),
            Self::Keep(keep) => keep.apply(&mut record.fields),
            Self::Decolorize => format::decolorize(&mut record.line),
        }
        true
    }
}
