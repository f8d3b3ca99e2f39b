//! LogQL asked of the cluster, and the judgement of what it answers, by the naive evaluator over the records that clients
//! sent.
//!
//! While faults run nobody knows all records that are there: those that were answered as stored before the question must be
//! in an answer, those that were sent before it came may be. An answer lies between what the evaluator makes of the ones and
//! of the others, as far as more records never make it smaller; where the two are the same records it is compared whole.
//! An answer that says it is partial must only not hold too much.
//!
//! It does not know who asks, nor which shard holds what.

mod draw;
mod heard;
mod judge;
#[cfg(test)]
mod tests;

use crate::client::escape;
use crate::naive::Ask;
use crate::naive::draw::Drawn;

pub use draw::Ground;
pub(crate) use draw::{question, tail};
pub use heard::{Found, Heard, Stream, heard};
pub use judge::{Judged, Known, judge, looks_at};

/// Everything that was ever sent lies between these, around a time, in nanoseconds.
pub const RANGE: i64 = 3_600 * 1_000_000_000;

/// A question and how it is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub what: What,
    /// Whether the answer may miss a shard.
    pub partial: bool,
    /// Whether what is no label of a stream is to stand beside the line.
    pub categorized: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum What {
    /// A query in LogQL.
    Query {
        /// As it is sent.
        text: String,
        /// What it is, and when.
        drawn: Box<Drawn>,
        /// Whether no record more could make any number of the answer smaller.
        grows: bool,
    },
    /// The names of labels.
    Names,
    /// The values of a label.
    Values(String),
    /// The streams that a selector finds.
    Series(String),
    /// The bytes of each client's streams, of those that a selector finds.
    Volume(String),
}

impl Question {
    /// The path and the parameters. What is no query is asked of all times around `epoch`.
    pub fn uri(&self, epoch: i64) -> String {
        let range = format!("start={}&end={}", epoch - RANGE, epoch + RANGE);
        let mut uri = match &self.what {
            What::Query { text, drawn, .. } => match drawn.ask {
                Ask::Range { start, end, step, limit, forward } => {
                    let direction = if forward { "forward" } else { "backward" };
                    let step = format!("{}ms", step / 1_000_000);
                    let text = escape(text);
                    format!(
                        "/loki/api/v1/query_range?query={text}&start={start}&end={end}&step={step}&limit={limit}\
                         &direction={direction}"
                    )
                }
                Ask::Instant(time) => format!("/loki/api/v1/query?query={}&time={time}", escape(text)),
            },
            What::Names => format!("/loki/api/v1/labels?{range}"),
            What::Values(name) => format!("/loki/api/v1/label/{name}/values?{range}"),
            What::Series(selector) => format!("/loki/api/v1/series?match[]={}&{range}", escape(selector)),
            What::Volume(selector) => {
                format!("/loki/api/v1/index/volume?query={}&targetLabels=client&{range}", escape(selector))
            }
        };
        if self.partial {
            uri.push_str("&partial=true");
        }
        uri
    }

    /// The headers of the request.
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        const CATEGORIZE: &[(&str, &str)] = &[("x-loki-response-encoding-flags", "categorize-labels")];
        if self.categorized { CATEGORIZE } else { &[] }
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Query { text, drawn, .. } => write!(f, "{text} ({:?})", drawn.ask),
            other @ (What::Names | What::Values(_) | What::Series(_) | What::Volume(_)) => write!(f, "{other:?}"),
        }
    }
}
