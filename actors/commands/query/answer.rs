//! The answer of a node to a query, read from its JSON, and its records as lines.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Context as _, Result};
use millpond_actors::moment;
use serde::Deserialize;

use super::Direction;
use super::explain::Explained;
use crate::commands::{Paint, selector};

#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) data: Data,
    #[serde(default)]
    pub(super) partial: bool,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
pub(super) enum Data {
    Streams(Vec<Stream>),
    Matrix(Vec<Series>),
    Vector(Vec<Sample>),
    Scalar((f64, String)),
}

impl Data {
    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Streams(streams) => streams.is_empty(),
            Self::Matrix(series) => series.is_empty(),
            Self::Vector(samples) => samples.is_empty(),
            Self::Scalar(_) => false,
        }
    }
}

/// How an answer came about, as the node says.
///
/// # Errors
/// Where the answer does not say it: a node of an earlier version does not know the question.
pub(super) fn explained(body: &[u8]) -> Result<Explained> {
    #[derive(Deserialize)]
    struct Envelope {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        explain: Option<Explained>,
    }
    let envelope: Envelope = serde_json::from_slice(body).context("the node's answer is not what the API promises")?;
    envelope.data.explain.context("the node does not explain its answers")
}

/// The records of one stream, as query answers and tail frames carry them.
#[derive(Debug, Deserialize)]
pub(crate) struct Stream {
    stream: BTreeMap<String, String>,
    values: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Plain(String, String),
    Rich(String, String, serde_json::Value),
}

/// A number at a time, in seconds since the Unix epoch.
pub(super) type Point = (f64, String);

/// Numbers over time.
#[derive(Debug, Deserialize)]
pub(super) struct Series {
    pub(super) metric: BTreeMap<String, String>,
    pub(super) values: Vec<Point>,
}

#[derive(Deserialize)]
pub(super) struct Sample {
    metric: BTreeMap<String, String>,
    value: Point,
}

impl Series {
    /// What it is called.
    pub(super) fn name(&self) -> String {
        selector(self.metric.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

impl From<Sample> for Series {
    fn from(Sample { metric, value }: Sample) -> Self {
        Self { metric, values: vec![value] }
    }
}

/// A time as tables show it.
pub(super) fn time(seconds: f64) -> String {
    moment::format((seconds * 1e3) as i64 * 1_000_000)
}

/// A record of an answer.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    stream: &'a Stream,
    value: &'a Value,
}

/// The records of several streams in one order of time.
pub(super) fn records(streams: &[Stream], direction: Direction) -> Vec<Record<'_>> {
    let mut records: Vec<Record<'_>> =
        streams.iter().flat_map(|stream| stream.values.iter().map(move |value| Record { stream, value })).collect();
    match direction {
        Direction::Forward => records.sort_by_key(|record| record.value.timestamp()),
        Direction::Backward => records.sort_by_key(|record| std::cmp::Reverse(record.value.timestamp())),
    }
    records
}

impl Record<'_> {
    /// When.
    pub(super) fn time(&self) -> String {
        moment::format(self.value.timestamp())
    }

    /// The labels of its stream; the level is shown by colour.
    pub(super) fn labels(&self) -> String {
        let labels = self.stream.stream.iter().filter(|(name, _)| name.as_str() != "detected_level");
        selector(labels.map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// How bad it is.
    pub(super) fn level(&self) -> &str {
        let of_stream = || self.stream.stream.get("detected_level").map(String::as_str);
        self.value.metadata("detected_level").or_else(of_stream).unwrap_or("")
    }

    /// What it says.
    pub(super) fn line(&self) -> &str {
        self.value.line()
    }

    /// Writes it as one line, `raw` without time and labels.
    pub(super) fn write(&self, out: &mut impl Write, paint: Paint, raw: bool) -> io::Result<()> {
        let line = self.line();
        if raw {
            return writeln!(out, "{}", paint.safe(line));
        }
        let line = paint.level(self.level(), line);
        writeln!(out, "{} {} {line}", paint.dim(&self.time()), paint.dim(&self.labels()))
    }
}

impl Stream {
    /// Writes its records in the order they came.
    pub(crate) fn write(&self, out: &mut impl Write, paint: Paint, raw: bool) -> io::Result<()> {
        self.values.iter().try_for_each(|value| Record { stream: self, value }.write(out, paint, raw))
    }
}

impl Value {
    fn timestamp(&self) -> i64 {
        let (Self::Plain(timestamp, _) | Self::Rich(timestamp, _, _)) = self;
        timestamp.parse().unwrap_or(0)
    }

    fn line(&self) -> &str {
        let (Self::Plain(_, line) | Self::Rich(_, line, _)) = self;
        line
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        match self {
            Self::Plain(..) => None,
            Self::Rich(_, _, extra) => extra.get("structuredMetadata")?.get(name)?.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str, direction: Direction) -> String {
        let envelope: Envelope = serde_json::from_str(body).unwrap();
        let Data::Streams(streams) = envelope.data else { panic!("streams") };
        let mut out = Vec::new();
        for record in records(&streams, direction) {
            record.write(&mut out, Paint::plain(), true).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn streams_are_merged_in_the_order_asked_for() {
        let body = r#"{"status":"success","data":{"resultType":"streams","result":[
            {"stream":{"a":"1"},"values":[["3","c"],["1","a",{"structuredMetadata":{"detected_level":"error"}}]]},
            {"stream":{"a":"2"},"values":[["2","b"]]}]}}"#;
        assert_eq!(shown(body, Direction::Forward), "a\nb\nc\n");
        assert_eq!(shown(body, Direction::Backward), "c\nb\na\n");
    }
}
