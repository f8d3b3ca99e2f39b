//! `| unwrap`: the number that a range aggregation takes of a record.

use super::fields::{Failure, Fields};
use super::labels::{LabelCondition, number};
use crate::query::ast::{Convert, Unwrap};
use crate::query::error::QueryError;
use crate::query::quantity;

/// An `unwrap`, ready to run.
pub struct Unwrapped {
    label: String,
    convert: Convert,
    filters: Vec<LabelCondition>,
}

impl Unwrapped {
    /// Compiles it.
    ///
    /// # Errors
    /// `QueryError::Parse` where a condition after it is refused.
    pub fn new(unwrap: &Unwrap) -> Result<Self, QueryError> {
        let filters = unwrap.filters.iter().map(LabelCondition::new).collect::<Result<_, _>>()?;
        Ok(Self { label: unwrap.label.clone(), convert: unwrap.convert, filters })
    }

    /// The number of a record, whose label is then removed. One that cannot be read is zero and sets `__error__`. `None`
    /// where the record has no such label or an empty one, or does not pass the conditions that follow.
    pub fn read(&self, fields: &mut Fields<'_>) -> Option<f64> {
        let text = fields.get(&self.label).filter(|text| !text.is_empty())?;
        let (value, what) = match self.convert {
            Convert::Number => (number(text), "a number"),
            Convert::Duration | Convert::DurationSeconds => (quantity::nanoseconds(text).map(seconds), "a duration"),
            Convert::Bytes => (quantity::bytes(text).map(|bytes| bytes as f64), "a number of bytes"),
        };
        if value.is_none() {
            fields.fail(Failure::Sample, format!("the value of {} is not {what}", self.label));
        }
        if !self.filters.iter().all(|filter| filter.holds(fields)) {
            return None;
        }
        fields.remove(&self.label);
        Some(value.unwrap_or(0.0))
    }
}

/// Whole seconds and what is left are added, so that no long duration loses its nanoseconds on the way.
fn seconds(nanoseconds: i64) -> f64 {
    const SECOND: i64 = 1_000_000_000;
    (nanoseconds / SECOND) as f64 + (nanoseconds % SECOND) as f64 / 1e9
}
