//! The labels of one record on its way through a pipeline: its stream's, its metadata, and what stages set. Each name comes
//! once. A label of the stream keeps its name; metadata, and what a parser finds, go by `name_extracted` where it is taken.

use std::borrow::Cow;
use std::fmt;

use crate::label::Labels;
use crate::limits::{ERROR_DETAILS_BYTES_MAX, FIELD_BYTES_PER_RECORD_MAX, FIELDS_PER_RECORD_MAX};

/// The label that says what a stage could not do.
pub const ERROR: &str = "__error__";
/// The label that says why.
pub const ERROR_DETAILS: &str = "__error_details__";

const EXTRACTED: &str = "_extracted";

/// Where a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The record's stream.
    Stream,
    /// The record's metadata.
    Metadata,
    /// A stage.
    Parsed,
}

/// What a stage could not do, as `__error__` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The line is no JSON object.
    Json,
    /// The line is no logfmt, of `logfmt --strict` alone.
    Logfmt,
    /// A label could not be read as a sample.
    Sample,
    /// A label could not be compared.
    LabelFilter,
    /// A template could not be written.
    Template,
    /// More than one record may hold.
    Limit,
}

impl Failure {
    /// The value of `__error__`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSONParserErr",
            Self::Logfmt => "LogfmtParserErr",
            Self::Sample => "SampleExtractionErr",
            Self::LabelFilter => "LabelFilterErr",
            Self::Template => "TemplateFormatErr",
            Self::Limit => "RecordLimitErr",
        }
    }
}

/// A record has as many labels as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Labels,
    Bytes,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Labels => write!(f, "more than {FIELDS_PER_RECORD_MAX} labels of one record"),
            Self::Bytes => write!(f, "more than {FIELD_BYTES_PER_RECORD_MAX} bytes of labels of one record"),
        }
    }
}

#[derive(Clone, Debug)]
struct Field<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    origin: Origin,
}

/// The labels of one record. What stages set may be empty, which is as good as absent to whoever compares it.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// Sorted by name, each once.
    fields: Vec<Field<'a>>,
    labels: &'a Labels,
    metadata: &'a [(&'a str, &'a str)],
    /// Bytes of names and values that stages set.
    parsed_bytes: usize,
    stream_changed: bool,
    /// Names that stages set and that no parsed label has any more.
    spent: Vec<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// The labels of a record as it is stored.
    pub fn new(labels: &'a Labels, metadata: &'a [(&'a str, &'a str)]) -> Self {
        let field =
            |(name, value)| Field { name: Cow::Borrowed(name), value: Cow::Borrowed(value), origin: Origin::Stream };
        let mut fields = Self {
            fields: labels.iter().map(field).collect(),
            labels,
            metadata,
            parsed_bytes: 0,
            stream_changed: false,
            spent: Vec::new(),
        };
        for (name, value) in metadata {
            let name = if labels.get(name).is_some() { extracted(name) } else { Cow::Borrowed(*name) };
            fields.put(Field { name, value: Cow::Borrowed(*value), origin: Origin::Metadata });
        }
        fields
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name))
    }

    /// The value of a label; `None` where there is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|at| &*self.fields[at].value)
    }

    /// Name, value and origin, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str, Origin)> + Clone {
        self.fields.iter().map(|field| (&*field.name, &*field.value, field.origin))
    }

    /// Sets a label, also over one of another origin. No parser sets it after that.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>, origin: Origin) {
        let field = Field { name: name.into(), value: value.into(), origin };
        if origin != Origin::Parsed {
            self.spent.push(field.name.clone());
        }
        self.put(field);
    }

    fn put(&mut self, field: Field<'a>) {
        self.count(&field, true);
        match self.find(&field.name) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.fields[at], field);
                self.count(&old, false);
            }
            Err(at) => self.fields.insert(at, field),
        }
    }

    /// Removes a label; its value and origin where there was one.
    pub fn remove(&mut self, name: &str) -> Option<(Cow<'a, str>, Origin)> {
        let at = self.find(name).ok()?;
        let field = self.fields.remove(at);
        self.count(&field, false);
        if field.origin == Origin::Parsed {
            self.spent.push(field.name);
        }
        Some((field.value, field.origin))
    }

    /// Removes labels that are not to stay.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&str, &str) -> bool) {
        for field in std::mem::take(&mut self.fields) {
            if stays(&field.name, &field.value) {
                self.fields.push(field);
            } else {
                self.count(&field, false);
                if field.origin == Origin::Parsed {
                    self.spent.push(field.name);
                }
            }
        }
    }

    /// Keeps the accounts of a field that comes or goes.
    fn count(&mut self, field: &Field<'_>, comes: bool) {
        let bytes = field.name.len() + field.value.len();
        match field.origin {
            Origin::Stream => self.stream_changed = true,
            Origin::Metadata => {}
            Origin::Parsed if comes => self.parsed_bytes += bytes,
            Origin::Parsed => self.parsed_bytes -= bytes,
        }
    }

    /// Sets what a parser found. A name that a stage has set before is not set again, so that of what is found twice, by
    /// whichever parsers, the first value stands.
    pub(super) fn extract(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Full> {
        let name = if self.is_taken(&name) && !mutant!(ExtractedOverStored) { extracted(&name) } else { name };
        let parsed = self.find(&name).is_ok_and(|at| self.fields[at].origin == Origin::Parsed);
        if parsed || self.spent.contains(&name) {
            return Ok(());
        }
        self.room_for(&name, &value)?;
        self.set(name, value, Origin::Parsed);
        Ok(())
    }

    /// Whether one more label fits.
    pub(super) fn room_for(&self, name: &str, value: &str) -> Result<(), Full> {
        if self.fields.len() >= FIELDS_PER_RECORD_MAX {
            return Err(Full::Labels);
        }
        let bytes = self.parsed_bytes + name.len() + value.len();
        if bytes > FIELD_BYTES_PER_RECORD_MAX { Err(Full::Bytes) } else { Ok(()) }
    }

    /// Whether a name belongs to the record as it is stored, or to what went wrong with it.
    fn is_taken(&self, name: &str) -> bool {
        let in_metadata = |wanted: &str| self.metadata.iter().any(|(name, _)| *name == wanted);
        let moved = |name: &str| self.labels.get(name).is_some() && in_metadata(name);
        self.labels.get(name).is_some()
            || in_metadata(name)
            || name.strip_suffix(EXTRACTED).is_some_and(moved)
            || name == ERROR
            || name == ERROR_DETAILS
    }

    /// Says what a stage could not do. The last one stands.
    pub(super) fn fail(&mut self, failure: Failure, mut details: String) {
        details.truncate(details.floor_char_boundary(ERROR_DETAILS_BYTES_MAX));
        self.set(ERROR, failure.as_str(), Origin::Parsed);
        self.set(ERROR_DETAILS, details, Origin::Parsed);
    }

    /// What went wrong, if something did.
    pub fn error(&self) -> Option<&str> {
        self.get(ERROR).filter(|error| !error.is_empty())
    }

    /// All of them as one set; what is empty is left out.
    pub fn folded(&self) -> Labels {
        Labels::new(self.iter().map(|(name, value, _)| (name, value)))
    }

    /// The stream's labels as stages left them; `None` where they are as they were.
    pub fn stream(&self) -> Option<Labels> {
        self.stream_changed.then(|| Labels::new(self.of(Origin::Stream)))
    }

    /// Those of one origin, sorted by name.
    pub fn of(&self, origin: Origin) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.iter().filter(move |(.., of)| *of == origin).map(|(name, value, _)| (name, value))
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

/// A key as a label's name: `_` for each character but ASCII letters, digits, `_` and `:`, and before a digit that comes
/// first.
pub(super) fn label_name(key: &str) -> Cow<'_, str> {
    if is_name(key) {
        return Cow::Borrowed(key);
    }
    let mut name = String::with_capacity(key.len() + 1);
    if key.starts_with(|first: char| first.is_ascii_digit()) {
        name.push('_');
    }
    push_label_name(&mut name, key);
    Cow::Owned(name)
}

/// As [`label_name`], without a copy of a key that was copied before and is a name.
pub(super) fn named(key: Cow<'_, str>) -> Cow<'_, str> {
    match key {
        Cow::Borrowed(key) => label_name(key),
        Cow::Owned(key) if is_name(&key) => Cow::Owned(key),
        Cow::Owned(key) => Cow::Owned(label_name(&key).into_owned()),
    }
}

fn is_name(key: &str) -> bool {
    key.chars().all(is_plain) && !key.starts_with(|first: char| first.is_ascii_digit())
}

/// Appends what follows in a name, where a digit may come first.
pub(super) fn push_label_name(name: &mut String, key: &str) {
    name.extend(key.chars().map(|character| if is_plain(character) { character } else { '_' }));
}

fn extracted<'a>(name: &str) -> Cow<'a, str> {
    Cow::Owned(format!("{name}{EXTRACTED}"))
}
