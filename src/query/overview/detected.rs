//! Fields of records, found by looking: metadata, what `| json` finds in a line, or where the line is no JSON what
//! `| logfmt` finds. Of each field the type that fits all its values, how many different ones there are, and how a query gets at it.
//!
//! Values are counted as hashes, so that parts of shards add up without carrying the texts; the texts themselves are
//! kept where one field's values are asked for. A field with the name of a label goes by `name_extracted`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Field;
use crate::label::Labels;
use crate::limits::{FIELD_VALUES_HELD_MAX, FIELDS_HELD_MAX};
use crate::query::ast::{LogExpr, Stage};
use crate::query::pipeline::{ERROR, ERROR_DETAILS, Origin, Pipeline, Record, json_paths};
use crate::query::time::duration;

/// Fields of the newest records in [start, end).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldsQuery {
    /// Which records.
    pub logs: LogExpr,
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// Most records to look at in each shard.
    pub line_limit: u32,
    /// Most fields, or values, of the answer.
    pub limit: u32,
    /// The field whose values are asked for; `None`: all fields, without values.
    pub field: Option<String>,
}

/// The type that fits all values of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldKind {
    /// `12`
    Int,
    /// `1.5`
    Float,
    /// `true`
    Boolean,
    /// `1m30s`
    Duration,
    /// `20KB`
    Bytes,
    /// Anything else.
    String,
}

/// A field as one shard found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundField {
    /// Its name.
    pub label: String,
    /// The type of its values.
    pub kind: FieldKind,
    /// Whether it was met in JSON lines.
    pub json: bool,
    /// Whether it was met in logfmt lines.
    pub logfmt: bool,
    /// Where it stands in JSON lines.
    pub path: Vec<String>,
    /// xxh3 of each value.
    pub hashes: BTreeSet<u64>,
    /// The values, where they are asked for.
    pub values: BTreeSet<String>,
}

/// Units of bytes, as they are written after a number, in lower case.
const BYTE_UNITS: [&str; 16] =
    ["b", "kb", "mb", "gb", "tb", "pb", "eb", "kib", "mib", "gib", "tib", "pib", "eib", "k", "ki", "mi"];

impl FieldKind {
    /// As Loki's clients know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }

    /// The narrowest type of one value.
    pub fn of(value: &str) -> Self {
        let number = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<f64>().is_ok();
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = value[digits.len()..].to_ascii_lowercase();
        if value.parse::<i64>().is_ok() {
            Self::Int
        } else if number(value) {
            Self::Float
        } else if value == "true" || value == "false" {
            Self::Boolean
        } else if duration(value.strip_prefix('-').unwrap_or(value)).is_some() {
            Self::Duration
        } else if number(digits.trim_end()) && BYTE_UNITS.contains(&unit.as_str()) {
            Self::Bytes
        } else {
            Self::String
        }
    }

    /// The narrowest type of values of both.
    fn or(self, other: Self) -> Self {
        let number = |kind| matches!(kind, Self::Int | Self::Float);
        if self == other {
            self
        } else if number(self) && number(other) {
            Self::Float
        } else {
            Self::String
        }
    }
}

/// Where a value was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Metadata,
    Json,
    Logfmt,
}

/// The stages that look into lines.
pub struct Parsers {
    json: Pipeline,
    logfmt: Pipeline,
}

impl Parsers {
    /// Ready to run.
    pub fn new() -> Self {
        let one = |stage: Stage| Pipeline::new(&[stage]).expect("there is nothing in it to refuse");
        let logfmt = Stage::Logfmt { strict: false, keep_empty: false, fields: Vec::new() };
        Self { json: one(Stage::Json(Vec::new())), logfmt: one(logfmt) }
    }
}

impl Default for Parsers {
    fn default() -> Self {
        Self::new()
    }
}

/// Fields, of records and of parts of shards.
#[derive(Debug)]
pub struct FieldSet {
    limit: u32,
    field: Option<String>,
    fields: BTreeMap<String, FoundField>,
    hashes: usize,
    bytes: usize,
}

impl FieldSet {
    /// Nothing found yet.
    pub fn new(query: &FieldsQuery) -> Self {
        let (limit, field) = (query.limit, query.field.clone());
        Self { limit, field, fields: BTreeMap::new(), hashes: 0, bytes: 0 }
    }

    /// The most fields, or values, that are answered.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes + self.hashes * 32
    }

    /// Looks at one record.
    pub fn read(&mut self, parsers: &Parsers, stream: &Labels, metadata: &[(&str, &str)], line: &str) {
        let record = Record { timestamp: 0, line, labels: stream, metadata };
        let json = line.trim_start().starts_with('{').then(|| parsers.json.run(&record)).flatten();
        let json = json.filter(|processed| processed.fields.error().is_none());
        let source = if json.is_some() { Source::Json } else { Source::Logfmt };
        let Some(processed) = json.or_else(|| parsers.logfmt.run(&record)) else { return };
        for (name, value) in processed.fields.of(Origin::Metadata) {
            self.meet(name, value, line, Source::Metadata);
        }
        let found = processed.fields.of(Origin::Parsed).filter(|(name, _)| ![ERROR, ERROR_DETAILS].contains(name));
        for (name, value) in found {
            self.meet(name, value, line, source);
        }
    }

    fn meet(&mut self, label: &str, value: &str, line: &str, source: Source) {
        if self.field.as_ref().is_some_and(|field| *field != label) || value.is_empty() {
            return;
        }
        let (json, logfmt) = (source == Source::Json, source == Source::Logfmt);
        let is_placed = self.fields.get(label).is_some_and(|field| !field.path.is_empty());
        let path = if json && !is_placed { path_of(label, line) } else { Vec::new() };
        let (label, kind) = (label.to_owned(), FieldKind::of(value));
        let hashes = BTreeSet::from([xxh3_64(value.as_bytes())]);
        let values = if self.field.is_some() { BTreeSet::from([value.to_owned()]) } else { BTreeSet::new() };
        self.take(FoundField { label, kind, json, logfmt, path, hashes, values });
    }

    fn take(&mut self, found: FoundField) {
        let texts =
            |field: &FoundField| field.label.len() + field.path.iter().map(|part| part.len() + 24).sum::<usize>();
        if !self.fields.contains_key(&found.label) {
            if self.fields.len() < FIELDS_HELD_MAX {
                self.bytes += texts(&found) + 256 + found.values.iter().map(|value| value.len() + 64).sum::<usize>();
                self.hashes += found.hashes.len();
                self.fields.insert(found.label.clone(), found);
            }
            return;
        }
        let held = self.fields.get_mut(&found.label).expect("it is there");
        held.kind = held.kind.or(found.kind);
        held.json |= found.json;
        held.logfmt |= found.logfmt;
        // Several paths may have one name: the first of them in order, whichever record came first.
        if held.path.is_empty() || (!found.path.is_empty() && found.path < held.path) {
            held.path = found.path;
        }
        for hash in found.hashes {
            if self.hashes < FIELD_VALUES_HELD_MAX && held.hashes.insert(hash) {
                self.hashes += 1;
            }
        }
        for value in found.values {
            let size = value.len() + 64;
            if held.values.len() < FIELD_VALUES_HELD_MAX && held.values.insert(value) {
                self.bytes += size;
            }
        }
    }

    pub(super) fn absorb(&mut self, found: Vec<FoundField>) {
        found.into_iter().for_each(|field| self.take(field));
    }

    /// What travels.
    pub fn found(self) -> Vec<FoundField> {
        self.fields.into_values().collect()
    }

    pub(super) fn fields(self) -> Vec<Field> {
        let shown = |found: FoundField| {
            let parsers = [("json", found.json), ("logfmt", found.logfmt)];
            let parsers = parsers.into_iter().filter(|(_, met)| *met).map(|(name, _)| name).collect();
            let FoundField { label, kind, path, hashes, .. } = found;
            Field { label, kind, cardinality: hashes.len(), parsers, path }
        };
        self.fields.into_values().take(self.limit as usize).map(shown).collect()
    }

    pub(super) fn values(self) -> Vec<String> {
        self.fields.into_values().flat_map(|field| field.values).take(self.limit as usize).collect()
    }
}

/// Where the value of a label stands in the JSON of a line.
fn path_of(label: &str, line: &str) -> Vec<String> {
    let mut paths = json_paths(line);
    let name = label.strip_suffix("_extracted").filter(|_| !paths.contains_key(label)).unwrap_or(label);
    paths.remove(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(field: Option<&str>) -> FieldsQuery {
        let field = field.map(str::to_owned);
        FieldsQuery { logs: LogExpr::default(), start: 0, end: 1, line_limit: 100, limit: 1_000, field }
    }

    fn looked(field: Option<&str>, lines: &[&str]) -> FieldSet {
        let mut set = FieldSet::new(&query(field));
        let stream = Labels::new([("app", "a")]);
        let metadata = [("detected_level", "info")];
        lines.iter().for_each(|line| set.read(&Parsers::new(), &stream, &metadata, line));
        set
    }

    fn shown(set: FieldSet) -> Vec<String> {
        let show = |field: Field| {
            let (kind, count) = (field.kind.as_str(), field.cardinality);
            format!("{} {kind} {count} {} {}", field.label, field.parsers.join("+"), field.path.join("/"))
        };
        set.fields().into_iter().map(show).collect()
    }

    #[test]
    fn values_have_the_narrowest_type_that_fits() {
        let kinds: [(&str, FieldKind); 12] = [
            ("12", FieldKind::Int),
            ("-3", FieldKind::Int),
            ("1.5", FieldKind::Float),
            ("1e3", FieldKind::Float),
            ("true", FieldKind::Boolean),
            ("1m30s", FieldKind::Duration),
            ("-250ms", FieldKind::Duration),
            ("20KB", FieldKind::Bytes),
            ("1.5 GiB", FieldKind::Bytes),
            ("inf", FieldKind::String),
            ("10.0.0.1", FieldKind::String),
            ("KB", FieldKind::String),
        ];
        for (value, kind) in kinds {
            assert_eq!(FieldKind::of(value), kind, "{value}");
        }
        assert_eq!(FieldKind::Int.or(FieldKind::Float), FieldKind::Float);
        assert_eq!(FieldKind::Int.or(FieldKind::Boolean), FieldKind::String);
    }

    #[test]
    fn fields_of_json_and_logfmt_lines_and_metadata_are_found() {
        let json = looked(
            None,
            &[r#"{"status": 200, "app": "b", "req": {"user-id": "u1"}, "list": [1]}"#, r#"{"status": 404}"#],
        );
        let expected = [
            "app_extracted string 1 json app",
            "detected_level string 1  ",
            "req_user_id string 1 json req/user-id",
            "status int 2 json status",
        ];
        assert_eq!(shown(json), expected);
        let pairs = looked(None, &[r#"took=5ms msg="a \"b\" c" ok=true bare x="#, "plain text", r#"took=1s {"a":1}"#]);
        let expected =
            ["detected_level string 1  ", "msg string 1 logfmt ", "ok boolean 1 logfmt ", "took duration 2 logfmt "];
        assert_eq!(shown(pairs), expected);
    }

    #[test]
    fn values_of_one_field_are_listed_sorted() {
        let set = looked(Some("user"), &["user=b x=1", "user=a x=2", "user=b", r#"{"user":"c"}"#]);
        assert_eq!(set.values(), ["a", "b", "c"]);
    }

    #[test]
    fn parts_add_up_in_any_order() {
        let parts = [
            looked(None, &["a=1 b=x"]).found(),
            looked(None, &["a=2.5"]).found(),
            looked(None, &[r#"{"a":1,"c":{"d":2}}"#, r#"{"c_d":2}"#]).found(),
            looked(None, &[r#"{"c_d":2}"#, r#"{"c":{"d":2}}"#]).found(),
        ];
        let sum = |order: [usize; 4]| {
            let mut set = FieldSet::new(&query(None));
            order.into_iter().for_each(|at| set.absorb(parts[at].clone()));
            shown(set)
        };
        let first = sum([0, 1, 2, 3]);
        assert_eq!((first[0].as_str(), first[2].as_str()), ("a float 2 json+logfmt a", "c_d int 1 json c/d"));
        assert_eq!(first, sum([3, 2, 1, 0]));
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in "\\PC{0,80}") {
            looked(None, &[&line]).fields();
        }

        #[test]
        fn arbitrary_pairs_never_panic(line in "[a\"\\\\= {}:1,é]{0,40}") {
            looked(Some("a"), &[&line]).values();
        }
    }
}
