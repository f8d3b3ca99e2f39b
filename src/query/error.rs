//! What can go wrong with a query, from its first character to its answer.
//!
//! The errors travel between nodes, so they are plain data; a node never sees another's types behind them.

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::ShardId;
use crate::storage::segment::LostRange;

/// What the parser refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ParseCause {
    /// Something else should stand here.
    #[error("syntax error: expected {expected}, found {found}")]
    Expected {
        /// What would have been understood.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A character that starts nothing.
    #[error("syntax error: unexpected character {0:?}")]
    Character(char),
    /// A string without its closing quote.
    #[error("syntax error: the string that starts here is not closed")]
    OpenString,
    /// A backslash sequence that LogQL does not know.
    #[error(
        "syntax error: unknown escape in a string; \\n \\r \\t \\\\ \\\" \\' \\xHH \\uHHHH \\UHHHHHHHH \\NNN are known"
    )]
    Escape,
    /// A number that is none, or not finite.
    #[error("syntax error: {0:?} is not a number")]
    Number(String),
    /// A duration that is none, or too long.
    #[error("syntax error: {0:?} is not a duration such as 5m or 1h30m")]
    Duration(String),
    /// A number of bytes that is none, or too large.
    #[error("syntax error: {0:?} is not a number of bytes such as 20KB or 1.5MiB")]
    Size(String),
    /// `unwrap` where no number is made of records.
    #[error("unwrap stands only within a range aggregation such as sum_over_time")]
    UnwrapOutside,
    /// A range aggregation of numbers without `unwrap`.
    #[error("invalid aggregation {0} without unwrap")]
    UnwrapMissing(String),
    /// A range aggregation of records with `unwrap`.
    #[error("invalid aggregation {0} with unwrap")]
    UnwrapUnwanted(String),
    /// An aggregation that knows no `by` and `without`.
    #[error("grouping not allowed for {0} aggregation")]
    GroupingUnwanted(String),
    /// A number before the series that the aggregation does not take.
    #[error("parameter {parameter} not supported for operation {op}")]
    ParameterUnwanted {
        /// The aggregation.
        op: String,
        /// The number.
        parameter: String,
    },
    /// A number of series that is not a whole number above zero.
    #[error("invalid parameter {0}: a whole number above zero is expected")]
    ParameterRange(String),
    /// A number beside an operator that works on sets of series.
    #[error("unexpected literal for {side} leg of logical/set binary operation ({op})")]
    LiteralInSet {
        /// Left or right.
        side: String,
        /// The operator.
        op: String,
    },
    /// A word after an operator that has no meaning there.
    #[error("{word} is not allowed with {op:?}: it takes {allowed}")]
    Modifier {
        /// The word.
        word: String,
        /// The operator.
        op: String,
        /// Where the word may stand.
        allowed: String,
    },
    /// A label that two lists of one operator, or two assignments of one stage, name.
    #[error("label {label:?} stands twice in {place}: one of them would be lost")]
    LabelTwice {
        /// The label.
        label: String,
        /// Where.
        place: String,
    },
    /// A label that queries cannot write.
    #[error("{0} cannot be formatted")]
    ReservedLabel(String),
    /// A regular expression that extracts nothing.
    #[error("at least one named capture must be supplied, such as (?P<name>..)")]
    NoCapture,
    /// A selector that would match streams without any of its labels.
    #[error(
        "queries require at least one regexp or equality matcher that does not have an empty-compatible value. \
         For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will"
    )]
    EmptySelector,
    /// A regular expression that does not compile, or compiles to too much.
    #[error("error parsing regexp {pattern:?}: {why}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What the compiler said.
        why: String,
    },
    /// A text within a query that is not of the form that its stage reads.
    #[error("invalid {what} {text:?}: {why}")]
    Text {
        /// What it should be.
        what: String,
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// More of something than a query may hold.
    #[error("too many {what}: at most {max} in one query")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// The bound.
        max: usize,
    },
    /// The whole text is too long.
    #[error("the query has {bytes} bytes, at most {max} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// A side of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// What stands before it.
    Left,
    /// What stands after it.
    Right,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum QueryError {
    /// The text is not LogQL that this version runs.
    #[error("parse error at line {line}, col {column}: {cause}")]
    Parse {
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
        /// What is wrong there.
        cause: ParseCause,
    },
    /// A parameter beside the query.
    #[error("invalid {name}: {value:?}; expected {expected}")]
    Parameter {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// What would have been understood.
        expected: String,
    },
    /// A log query where only a metric query has a meaning.
    #[error("log queries are not supported as an instant query type, please change your query to a range query type")]
    LogsAtInstant,
    /// Start and step ask for too many points.
    #[error(
        "exceeded maximum resolution of {max} points per time series: {points} asked for. \
         Try increasing the value of the step parameter"
    )]
    TooManyPoints {
        /// Points asked for.
        points: u64,
        /// The bound.
        max: usize,
    },
    /// The limit is above what one answer may hold.
    #[error("max entries limit per query exceeded, limit > max_entries_limit ({limit} > {max})")]
    TooManyRecords {
        /// The limit asked for.
        limit: u64,
        /// The bound.
        max: usize,
    },
    /// More series than one answer may hold.
    #[error(
        "maximum number of series ({max}) reached for a single query; consider reducing query cardinality by adding \
         more specific stream selectors, reducing the time range, or aggregating results with functions like sum"
    )]
    TooManySeries {
        /// The bound.
        max: usize,
    },
    /// A metric query meets a record that its pipeline could not process.
    #[error(
        "pipeline error: '{error}' for series: '{series}'.\n\
         Use a label filter to leave such records out, such as | __error__!=\"{error}\", or | __error__=\"\" for all \
         errors; it stands after the stage that fails, also after unwrap"
    )]
    Pipeline {
        /// The value of `__error__`.
        error: String,
        /// All labels of the record.
        series: String,
    },
    /// An operator meets several series where one may be.
    #[error(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
         [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
    )]
    ManyToMany {
        /// The labels that all of them share.
        group: String,
        /// Where they are.
        side: Side,
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// Several series of the left side meet one of the right, and no `group_left` allows it.
    #[error("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")]
    ManyToOne,
    /// Series that `group_left` or `group_right` joins would have the same labels.
    #[error("multiple matches for labels: grouping labels must ensure unique matches")]
    GroupingNotUnique,
    /// Two series would have the same labels.
    #[error("vector cannot contain metrics with the same labelset: {labels}")]
    SameLabels {
        /// Their labels.
        labels: String,
    },
    /// More unwrapped numbers than a query may keep one by one.
    #[error(
        "the query keeps more than {max} unwrapped numbers, as quantile_over_time and rate_counter do; narrow its time \
         range, selector or window"
    )]
    TooManyNumbers {
        /// The bound.
        max: usize,
    },
    /// The query would hold more memory than one query may.
    #[error("the query needs more than {max} bytes of memory; narrow its time range, selector or limit")]
    Memory {
        /// The bound.
        max: usize,
    },
    /// The part of the answer from one shard does not fit one message between nodes.
    #[error("the answer of {shard} has {bytes} bytes, at most {max}; use a larger step or fewer series")]
    AnswerTooLarge {
        /// The shard.
        shard: ShardId,
        /// Its encoded size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Stored records failed their checksum; another replica may have them whole.
    #[error("data_loss in {shard}{}: {what}", range.map_or_else(String::new, |range| format!(", {range}")))]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// What cannot be read; none where nothing says so.
        range: Option<LostRange>,
        /// File and position, as storage said.
        what: String,
    },
    /// Records are asked for by an offset below which retention has removed all.
    #[error("offset {offset} of {shard} was removed by retention; the first that is left is {first}")]
    Removed {
        /// The shard.
        shard: ShardId,
        /// The offset asked for.
        offset: u64,
        /// The first offset that is left.
        first: u64,
    },
    /// Stored records could not be read.
    #[error("{shard} could not be read: {what}")]
    Storage {
        /// The shard.
        shard: ShardId,
        /// What storage said.
        what: String,
    },
    /// Bytes from another node that are no request or partial answer of this version.
    #[error("a node sent a {what} that this version cannot read (version byte {version:?}): {why}")]
    Codec {
        /// Request or partial.
        what: String,
        /// Its first byte.
        version: Option<u8>,
        /// What the decoder said.
        why: String,
    },
    /// A shard did not answer.
    #[error("{shard} is unavailable: {why}")]
    Unavailable {
        /// The shard.
        shard: ShardId,
        /// What was tried.
        why: String,
    },
    /// The node runs and queues as many queries as it may.
    #[error("too many queries: {running} run and {queued} wait on this node; send the query again later")]
    Busy {
        /// Queries that run.
        running: usize,
        /// Queries that wait.
        queued: usize,
    },
    /// The tenant has as many tails as it may.
    #[error("too many tails are open: at most {max} of one tenant")]
    TooManyTails {
        /// The bound.
        max: usize,
    },
    /// The query ran out of time.
    #[error("the query did not finish within its deadline; narrow its time range or selector")]
    Deadline,
    /// What ran the query has ended before it.
    #[error("the query was cut off by a restart of what ran it; send it again")]
    Cancelled,
}

impl QueryError {
    /// What the caller can do.
    pub fn class(&self) -> Class {
        match self {
            Self::Parse { .. }
            | Self::Parameter { .. }
            | Self::LogsAtInstant
            | Self::TooManyPoints { .. }
            | Self::TooManyRecords { .. }
            | Self::TooManySeries { .. }
            | Self::Pipeline { .. }
            | Self::ManyToMany { .. }
            | Self::ManyToOne
            | Self::GroupingNotUnique
            | Self::SameLabels { .. }
            | Self::TooManyNumbers { .. }
            | Self::Memory { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Removed { .. } => Class::Refuse,
            Self::Storage { .. }
            | Self::Unavailable { .. }
            | Self::Busy { .. }
            | Self::TooManyTails { .. }
            | Self::Deadline
            | Self::Cancelled
            | Self::Codec { .. } => Class::Retry,
            Self::Damaged { .. } => Class::Fatal,
        }
    }
}
