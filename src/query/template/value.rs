//! What a template works with: values, whether they count as true, how they are written, and how much work and text
//! there may be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use super::dates::Time;
use super::error::Cause;
use super::number;
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_WORK_MAX};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// `nil`, JSON's `null`, and what a JSON object does not have.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Time(Time),
    List(Rc<Vec<Value<'a>>>),
    Map(Rc<BTreeMap<String, Value<'a>>>),
    /// All labels of the record: `.` where nothing has changed it.
    Labels,
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// The type, as errors name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Labels => "the labels",
        }
    }

    /// Whether `if` takes it: neither zero nor empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Time(_) | Self::Labels => true,
        }
    }

    /// Writes it as `{{ }}` does.
    pub(super) fn write(&self, out: &mut Output) -> Result<(), Cause> {
        match self {
            Self::Nil => out.push("<no value>"),
            Self::Labels => Err(Cause::Unsupported("writing all labels at once")),
            Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Time(_)
            | Self::List(_)
            | Self::Map(_) => self.write_inner(out),
        }
    }

    /// As `%v` of Go's `fmt` writes it.
    pub(super) fn write_inner(&self, out: &mut Output) -> Result<(), Cause> {
        match self {
            Self::Nil => out.push("<nil>"),
            Self::Bool(value) => out.push(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push(&value.to_string()),
            Self::Float(value) => out.push(&number::general(*value, None)),
            Self::Text(text) => out.push(text),
            Self::Time(time) => out.push(&time.to_string()),
            Self::List(list) => {
                out.push("[")?;
                for (at, value) in list.iter().enumerate() {
                    out.push(if at > 0 { " " } else { "" })?;
                    value.write_inner(out)?;
                }
                out.push("]")
            }
            Self::Map(map) => {
                out.push("map[")?;
                for (at, (key, value)) in map.iter().enumerate() {
                    out.push(if at > 0 { " " } else { "" })?;
                    out.push(key)?;
                    out.push(":")?;
                    value.write_inner(out)?;
                }
                out.push("]")
            }
            Self::Labels => self.write(out),
        }
    }

    /// Bytes that a function may go over when it is given this.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Time(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Labels => 0,
        }
    }
}

/// A JSON document; its depth is bounded by the reader. Numbers are floating, as in Go.
pub(super) fn from_json<'a>(text: &str) -> Option<Value<'a>> {
    fn value<'a>(json: serde_json::Value) -> Value<'a> {
        match json {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => number.as_f64().map_or(Value::Nil, Value::Float),
            serde_json::Value::String(text) => Value::text(text),
            serde_json::Value::Array(list) => Value::List(Rc::new(list.into_iter().map(value).collect())),
            serde_json::Value::Object(map) => {
                Value::Map(Rc::new(map.into_iter().map(|(key, inner)| (key, value(inner))).collect()))
            }
        }
    }
    serde_json::from_str(text).ok().map(value)
}

/// Text that may not grow past `TEMPLATE_BYTES_MAX`.
#[derive(Debug, Default)]
pub(super) struct Output(pub(super) String);

impl Output {
    pub(super) fn push(&mut self, text: &str) -> Result<(), Cause> {
        self.reserve(text.len())?;
        self.0.push_str(text);
        Ok(())
    }

    pub(super) fn push_times(&mut self, text: &str, times: usize) -> Result<(), Cause> {
        self.reserve(text.len().saturating_mul(times))?;
        (0..times).for_each(|_| self.0.push_str(text));
        Ok(())
    }

    pub(super) fn push_display(&mut self, value: impl std::fmt::Display) -> Result<(), Cause> {
        write!(self.0, "{value}").expect("a string takes what is written");
        self.reserve(0)
    }

    /// Whether so many bytes more are allowed.
    pub(super) fn reserve(&self, more: usize) -> Result<(), Cause> {
        let fits = self.0.len().saturating_add(more) <= TEMPLATE_BYTES_MAX;
        if fits { Ok(()) } else { Err(Cause::TooLong { max: TEMPLATE_BYTES_MAX }) }
    }
}

/// What one rendering may still do: about one unit for each byte that is gone over.
#[derive(Debug)]
pub(super) struct Work(usize);

impl Work {
    /// A step without any text.
    pub(super) const STEP: usize = 64;

    pub(super) fn new() -> Self {
        Self(TEMPLATE_WORK_MAX)
    }

    pub(super) fn spend(&mut self, units: usize) -> Result<(), Cause> {
        self.0 = self.0.checked_sub(units).ok_or(Cause::TooMuchWork)?;
        Ok(())
    }
}
