//! Conditions on labels, as text and as what text stands for. A label that cannot be read as what it is compared with
//! sets `__error__`, where nothing is said there yet, and lets the record pass. A record without the label does not pass,
//! and one whose label is empty is one without it.

use super::fields::{ERROR, ERROR_DETAILS, Failure, Fields};
use crate::query::ast::{Compare, LabelFilter};
use crate::query::error::QueryError;
use crate::query::ip::IpRange;
use crate::query::pattern::{LabelPattern, refuse_text};
use crate::query::quantity;

/// A condition, ready to run.
pub(super) enum LabelCondition {
    Text { name: String, pattern: LabelPattern },
    Number { name: String, op: Compare, value: f64 },
    Duration { name: String, op: Compare, value: i64 },
    Bytes { name: String, op: Compare, value: u64 },
    Ip { name: String, negative: bool, range: IpRange },
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

impl LabelCondition {
    /// A parse error where an expression or a range of addresses is none.
    pub(super) fn new(filter: &LabelFilter) -> Result<Self, QueryError> {
        let both = |left: &LabelFilter, right: &LabelFilter| {
            Ok::<_, QueryError>((Box::new(Self::new(left)?), Box::new(Self::new(right)?)))
        };
        Ok(match filter {
            LabelFilter::Text(matcher) => {
                Self::Text { name: matcher.name.clone(), pattern: LabelPattern::new(matcher)? }
            }
            LabelFilter::Number { name, op, value } => Self::Number { name: name.clone(), op: *op, value: *value },
            LabelFilter::Duration { name, op, value } => Self::Duration { name: name.clone(), op: *op, value: *value },
            LabelFilter::Bytes { name, op, value } => Self::Bytes { name: name.clone(), op: *op, value: *value },
            LabelFilter::Ip { name, negative, range } => {
                let ip = IpRange::new(range).map_err(|why| refuse_text("ip", range, why))?;
                Self::Ip { name: name.clone(), negative: *negative, range: ip }
            }
            LabelFilter::And(left, right) => both(left, right).map(|(left, right)| Self::And(left, right))?,
            LabelFilter::Or(left, right) => both(left, right).map(|(left, right)| Self::Or(left, right))?,
        })
    }

    /// Whether a record passes.
    pub(super) fn holds(&self, fields: &mut Fields<'_>) -> bool {
        match self {
            Self::Text { name, pattern } => pattern.matches(fields.get(name).unwrap_or("")),
            Self::Number { name, op, value } => compare(fields, name, *op, value, "a number", number),
            Self::Duration { name, op, value } => {
                compare(fields, name, *op, value, "a duration", quantity::nanoseconds)
            }
            Self::Bytes { name, op, value } => compare(fields, name, *op, value, "a number of bytes", quantity::bytes),
            // An address is asked for of records without errors alone.
            Self::Ip { name, negative, range } => {
                fields.error().is_some() || value(fields, name).is_some_and(|text| range.holds(text) != *negative)
            }
            Self::And(left, right) => left.holds(fields) && right.holds(fields),
            Self::Or(left, right) => left.holds(fields) || right.holds(fields),
        }
    }
}

/// The value of a label that is compared as anything but text; what went wrong is text alone.
fn value<'a>(fields: &'a Fields<'_>, name: &str) -> Option<&'a str> {
    fields.get(name).filter(|text| !text.is_empty() && name != ERROR && name != ERROR_DETAILS)
}

fn compare<T: PartialOrd>(
    fields: &mut Fields<'_>,
    name: &str,
    op: Compare,
    with: &T,
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> bool {
    let Some(text) = value(fields, name) else { return false };
    if let Some(found) = read(text) {
        return op.holds(&found, with);
    }
    if fields.error().is_none() {
        fields.fail(Failure::LabelFilter, format!("the value of {name} is not {what}"));
    }
    true
}

/// A number as Go reads it, but for hexadecimal ones.
pub(super) fn number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let signed = text.starts_with(['+', '-']);
    // Out of range, or a sign before what is no number.
    let refused = (number.is_infinite() && digits) || (number.is_nan() && signed);
    (!refused).then_some(number)
}
