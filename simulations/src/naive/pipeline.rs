//! One record on its way through the stages of a query.

use millpond::query::ast::{
    Compare, Convert, Extraction, FilterOp, LabelChoice, LabelFilter, LabelFormat, LabelSource, LineFilter, LogExpr,
    Needle, Stage, Unwrap,
};

use super::parsers::{Json, logfmt};
use super::texts::{addresses, bytes, captures, duration, is_within, number, regex};
use super::{Record, Set, fits, is_of, template};

const ERROR: &str = "__error__";

/// A record and what the stages made of it.
pub(super) struct Entry<'a> {
    record: &'a Record,
    /// The line as it is now.
    pub(super) line: String,
    /// Labels of the stream and of the record: an extracted label of such a name becomes another.
    stored: Set,
    /// All labels as they are now; empty ones too.
    labels: Set,
    /// Names that were extracted or written.
    written: Vec<String>,
}

impl<'a> Entry<'a> {
    /// The record as the pipeline leaves it; `None` where it is not of the streams or is filtered out.
    pub(super) fn select(record: &'a Record, logs: &LogExpr) -> Option<Self> {
        if !is_of(record, logs) {
            return None;
        }
        let mut labels = record.labels.clone();
        for (name, value) in &record.metadata {
            let taken = record.labels.contains_key(name);
            labels.insert(if taken { format!("{name}_extracted") } else { name.clone() }, value.clone());
        }
        let line = record.line.clone();
        let mut entry = Self { record, line, stored: labels.clone(), labels, written: Vec::new() };
        logs.stages.iter().all(|stage| entry.pass(stage)).then_some(entry)
    }

    /// Its labels without the empty ones.
    pub(super) fn labels(&self) -> Set {
        self.labels.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Whether something went wrong and was not dropped.
    pub(super) fn has_error(&self) -> bool {
        self.get(ERROR).is_some()
    }

    /// Silent: an empty label is an absent one, as in Prometheus.
    fn get(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// Silent: of several errors the last one stands.
    fn fail(&mut self, error: &str) {
        self.labels.insert(ERROR.to_owned(), error.to_owned());
    }

    fn write(&mut self, name: &str, value: String) {
        self.written.push(name.to_owned());
        self.labels.insert(name.to_owned(), value);
    }

    /// A label that a parser found: the first of a name stands, and none takes the place of one that was stored.
    fn extract(&mut self, name: &str, value: String) {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || "_:".contains(letter) { letter } else { '_' };
        let mut name: String = name.chars().map(plain).collect();
        if name.starts_with(|letter: char| letter.is_ascii_digit()) {
            name.insert(0, '_');
        }
        if self.stored.contains_key(&name) {
            name.push_str("_extracted");
        }
        if !name.is_empty() && !self.written.contains(&name) {
            self.write(&name, value);
        }
    }

    fn pass(&mut self, stage: &Stage) -> bool {
        match stage {
            Stage::Filter(filter) => return passes(filter, &self.line),
            Stage::Labels(filter) => return self.passes(filter),
            Stage::Json(fields) => self.json(fields),
            Stage::Logfmt { strict, keep_empty, fields } => self.logfmt(*strict, *keep_empty, fields),
            Stage::Pattern(pattern) => {
                captures(pattern, &self.line.clone()).into_iter().for_each(|(name, value)| self.extract(&name, value));
            }
            Stage::Regexp(expression) => self.regexp(expression),
            Stage::Unpack => self.unpack(),
            Stage::LineFormat(text) => match self.render(text) {
                Some(line) => self.line = line,
                None => self.fail("TemplateFormatErr"),
            },
            Stage::LabelFormat(formats) => formats.iter().for_each(|format| self.format(format)),
            Stage::Drop(choices) => self.labels.retain(|name, value| !choices.iter().any(|c| chosen(c, name, value))),
            Stage::Keep(choices) => self.labels.retain(|name, value| {
                [ERROR, "__error_details__"].contains(&name.as_str()) || choices.iter().any(|c| chosen(c, name, value))
            }),
            Stage::Decolorize => self.line = regex("\x1b\\[[0-9;]*[A-Za-z]").replace_all(&self.line, "").into_owned(),
        }
        true
    }

    fn json(&mut self, fields: &[Extraction]) {
        let line = self.line.clone();
        match Json::parse(&line).filter(Json::is_object) {
            None => self.fail("JSONParserErr"),
            Some(json) if fields.is_empty() => {
                json.properties().into_iter().for_each(|(name, value)| self.extract(&name, value));
            }
            Some(json) => {
                for Extraction { label, expression } in fields {
                    if let Some(value) = json.at(expression) {
                        self.extract(label, value);
                    }
                }
            }
        }
    }

    fn logfmt(&mut self, strict: bool, keep_empty: bool, fields: &[Extraction]) {
        let (pairs, whole) = logfmt(&self.line, strict);
        for (key, value) in pairs {
            if fields.is_empty() && (keep_empty || !value.is_empty()) {
                self.extract(&key, value.clone());
            }
            for field in fields.iter().filter(|field| field.expression == key) {
                self.extract(&field.label, value.clone());
            }
        }
        if !whole {
            self.fail("LogfmtParserErr");
        }
    }

    fn regexp(&mut self, expression: &str) {
        let expression = regex(expression);
        let line = self.line.clone();
        let Some(found) = expression.captures(&line) else { return };
        for name in expression.capture_names().flatten() {
            if let Some(value) = found.name(name) {
                self.extract(name, value.as_str().to_owned());
            }
        }
    }

    fn unpack(&mut self) {
        let line = self.line.clone();
        let Some(json) = Json::parse(&line).filter(Json::is_object) else { return self.fail("JSONParserErr") };
        let texts = json.texts();
        // Silent: a line without an entry was not packed, and keeps what it says to itself.
        if texts.iter().all(|(name, _)| name != "_entry") {
            return;
        }
        for (name, value) in texts {
            if name == "_entry" {
                self.line = value;
            } else {
                self.extract(&name, value);
            }
        }
    }

    fn render(&self, text: &str) -> Option<String> {
        template::render(text, &self.line, self.record.timestamp, &self.labels)
    }

    fn format(&mut self, format: &LabelFormat) {
        match &format.source {
            LabelSource::Rename(from) => {
                if let Some(value) = self.labels.remove(from) {
                    self.write(&format.label, value);
                }
            }
            LabelSource::Template(text) => match self.render(text) {
                Some(value) => self.write(&format.label, value),
                None => self.fail("TemplateFormatErr"),
            },
        }
    }

    /// A value that cannot be converted lets the record pass, with an error.
    fn compare<T: PartialOrd>(&mut self, name: &str, op: Compare, value: T, read: impl Fn(&str) -> Option<T>) -> bool {
        // `__error__` is only compared as a text.
        let Some(text) = self.get(name).filter(|_| name != ERROR) else { return false };
        match read(text) {
            Some(found) => holds(op, found.partial_cmp(&value)),
            None => {
                // Silent: what a filter cannot read says less than what went wrong before it.
                if !self.has_error() {
                    self.fail("LabelFilterErr");
                }
                true
            }
        }
    }

    pub(super) fn passes(&mut self, filter: &LabelFilter) -> bool {
        match filter {
            LabelFilter::Text(matcher) => fits(matcher, self.text(&matcher.name)),
            LabelFilter::Number { name, op, value } => self.compare(name, *op, *value, number),
            LabelFilter::Duration { name, op, value } => self.compare(name, *op, *value, duration),
            LabelFilter::Bytes { name, op, value } => self.compare(name, *op, *value, bytes),
            LabelFilter::Ip { name, negative, range } => {
                // Silent: an address may stand anywhere in the value, and an absent label passes neither way.
                self.has_error()
                    || self.get(name).is_some_and(|text| {
                        addresses(text).into_iter().any(|address| is_within(range, address)) != *negative
                    })
            }
            LabelFilter::And(left, right) => self.passes(left) && self.passes(right),
            LabelFilter::Or(left, right) => self.passes(left) || self.passes(right),
        }
    }

    /// The number of the record, whose label goes; `None` where it has none, or a filter leaves it out. Silent: the filters
    /// after it still see the label.
    pub(super) fn unwrap(&mut self, unwrap: &Unwrap) -> Option<f64> {
        let text = self.get(&unwrap.label)?.to_owned();
        let value = match unwrap.convert {
            Convert::Number => number(&text),
            Convert::Duration | Convert::DurationSeconds => duration(&text).map(|ns| ns as f64 / 1e9),
            Convert::Bytes => bytes(&text).map(|bytes| bytes as f64),
        };
        if value.is_none() {
            self.fail("SampleExtractionErr");
        }
        let passes = unwrap.filters.iter().all(|filter| self.passes(filter));
        self.labels.remove(&unwrap.label);
        passes.then_some(value.unwrap_or(0.0))
    }
}

fn chosen(choice: &LabelChoice, name: &str, value: &str) -> bool {
    match choice {
        LabelChoice::Name(chosen) => chosen == name,
        LabelChoice::Where(matcher) => matcher.name == name && fits(matcher, value),
    }
}

/// Whether a comparison holds; of numbers that are none only `!=` does.
pub(super) fn holds(op: Compare, order: Option<std::cmp::Ordering>) -> bool {
    match op {
        Compare::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Compare::NotEqual => order.is_none_or(std::cmp::Ordering::is_ne),
        Compare::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Compare::GreaterEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        Compare::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Compare::LessEqual => order.is_some_and(std::cmp::Ordering::is_le),
    }
}

fn passes(filter: &LineFilter, line: &str) -> bool {
    let found = filter.alternatives.iter().any(|needle| match (needle, filter.op) {
        (Needle::Ip(range), _) => addresses(line).into_iter().any(|address| is_within(range, address)),
        (Needle::Text(text), FilterOp::Contains | FilterOp::NotContains) => line.contains(text.as_str()),
        // In a line `.` is any character.
        (Needle::Text(text), FilterOp::Matches | FilterOp::NotMatches) => regex(&format!("(?s){text}")).is_match(line),
        // Silent: `<_>` stands for at least one character, and what is no `<_>` at an end stands there.
        (Needle::Text(text), FilterOp::Pattern | FilterOp::NotPattern) => {
            let literals: Vec<String> = text.split("<_>").map(::regex::escape).collect();
            regex(&format!("(?s)^{}$", literals.join(".+"))).is_match(line)
        }
    });
    match filter.op {
        FilterOp::Contains | FilterOp::Matches | FilterOp::Pattern => found,
        FilterOp::NotContains | FilterOp::NotMatches | FilterOp::NotPattern => !found,
    }
}
