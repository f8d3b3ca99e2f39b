//! What a node answers over HTTP, in the words of the naive evaluator.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Question, What};
use crate::naive::{Answer, Ask, Set};

/// An answer.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whether it says that it misses a shard.
    pub partial: bool,
    /// What it holds.
    pub found: Found,
}

/// What an answer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Records, as they are shown in streams.
    Rows(Vec<Stream>),
    /// Numbers.
    Numbers(Answer),
    /// Names or values of labels.
    Texts(BTreeSet<String>),
    /// Streams.
    Series(BTreeSet<Set>),
}

/// What is shown as one stream, in order: labels with what was extracted, time and line of each record.
pub type Stream = Vec<(Set, i64, String)>;

/// Reads the body of an answer; `None` where it is none to this question.
pub fn heard(question: &Question, body: &[u8]) -> Option<Heard> {
    let whole: Value = serde_json::from_slice(body).ok()?;
    let partial = whole["partial"].as_bool().unwrap_or(false);
    let data = &whole["data"];
    let found = match &question.what {
        What::Names | What::Values(_) => Found::Texts(data.as_array()?.iter().map(text).collect::<Option<_>>()?),
        What::Series(_) => Found::Series(data.as_array()?.iter().map(set).collect::<Option<_>>()?),
        What::Volume(_) => numbers(data, None)?,
        What::Query { drawn, .. } => match data["resultType"].as_str()? {
            "streams" => Found::Rows(data["result"].as_array()?.iter().map(stream).collect::<Option<_>>()?),
            _ => numbers(data, Some(drawn.ask))?,
        },
    };
    Some(Heard { partial, found })
}

fn text(value: &Value) -> Option<String> {
    Some(value.as_str()?.to_owned())
}

fn set(value: &Value) -> Option<Set> {
    value.as_object()?.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn stream(stream: &Value) -> Option<Stream> {
    let of_stream = set(&stream["stream"])?;
    let row = |value: &Value| {
        let mut labels = of_stream.clone();
        for beside in ["structuredMetadata", "parsed"] {
            if let Some(more) = value.get(2).and_then(|value| value.get(beside)) {
                labels.extend(set(more)?);
            }
        }
        labels.retain(|_, value| !value.is_empty());
        Some((labels, value.get(0)?.as_str()?.parse().ok()?, text(value.get(1)?)?))
    };
    stream["values"].as_array()?.iter().map(row).collect()
}

fn numbers(data: &Value, ask: Option<Ask>) -> Option<Found> {
    let result = &data["result"];
    let series = || result.as_array().map(|series| series.iter());
    Some(Found::Numbers(match data["resultType"].as_str()? {
        "scalar" => Answer::Scalar(sample(result)?.1),
        "vector" => {
            let one = |series: &Value| Some((set(&series["metric"])?, sample(&series["value"])?.1));
            Answer::Vector(series()?.map(one).collect::<Option<_>>()?)
        }
        "matrix" => {
            let Some(Ask::Range { start, step, .. }) = ask else { return None };
            let point = |value: &Value| {
                let (seconds, number) = sample(value)?;
                let steps = (seconds * 1e3 - start as f64 / 1e6) / (step as f64 / 1e6);
                Some((steps.round() as u32, number))
            };
            let one = |series: &Value| {
                let points: Option<Vec<(u32, f64)>> = series["values"].as_array()?.iter().map(point).collect();
                Some((set(&series["metric"])?, points?))
            };
            Answer::Matrix(series()?.map(one).collect::<Option<BTreeMap<_, _>>>()?)
        }
        _ => return None,
    }))
}

/// The seconds and the number of a sample.
fn sample(value: &Value) -> Option<(f64, f64)> {
    let number = match value.get(1)?.as_str()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some((value.get(0)?.as_f64()?, number))
}
