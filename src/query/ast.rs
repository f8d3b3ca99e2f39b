//! LogQL as data: what the parser makes of a query's text and what travels to the shards.
//!
//! Nothing here is compiled or bound to a time range. `Display` writes LogQL that parses to the same tree.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    /// Records.
    Logs(LogExpr),
    /// Numbers over time.
    Metric(MetricExpr),
}

/// A stream selector and the line filters after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogExpr {
    /// All must hold for a stream.
    pub matchers: Vec<Matcher>,
    /// All must hold for a line, in the order they were written.
    pub filters: Vec<LineFilter>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Matches,
    /// `!~`, anchored at both ends
    NotMatches,
}

/// One condition on a label; an absent label has the empty value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How.
    pub op: MatchOp,
    /// With what.
    pub value: String,
}

/// How a line is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`, anywhere in the line
    Matches,
    /// `!~`, anywhere in the line
    NotMatches,
}

/// One condition on a line: any of the alternatives, or with a negative operator none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFilter {
    /// How.
    pub op: FilterOp,
    /// With what; at least one.
    pub alternatives: Vec<String>,
}

/// What is made of the records in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeOp {
    /// `count_over_time`
    CountOverTime,
    /// `rate`, records per second
    Rate,
    /// `bytes_over_time`
    BytesOverTime,
    /// `bytes_rate`, bytes per second
    BytesRate,
}

/// How series become fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `avg`
    Avg,
}

/// Arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
}

/// Which labels tell the series of an aggregation apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grouping {
    /// These alone; none of them: one series.
    By(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

/// A count over the records of a sliding window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeExpr {
    /// What is counted.
    pub op: RangeOp,
    /// Of which records.
    pub logs: LogExpr,
    /// The window in nanoseconds, above zero. At time t it is (t - window, t].
    pub window: i64,
}

/// Numbers over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetricExpr {
    /// A scalar.
    Number(f64),
    /// `vector(n)`: one series without labels.
    Vector(f64),
    /// A count of records.
    Range(RangeExpr),
    /// Fewer series.
    Aggregate {
        /// How.
        op: AggregateOp,
        /// By which labels.
        grouping: Grouping,
        /// Of what.
        inner: Box<MetricExpr>,
    },
    /// Arithmetic point by point.
    Binary {
        /// How.
        op: BinaryOp,
        /// The left side.
        left: Box<MetricExpr>,
        /// The right side.
        right: Box<MetricExpr>,
    },
}

impl MatchOp {
    /// All.
    pub const ALL: [Self; 4] = [Self::Equal, Self::NotEqual, Self::Matches, Self::NotMatches];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

impl FilterOp {
    /// All.
    pub const ALL: [Self; 4] = [Self::Contains, Self::NotContains, Self::Matches, Self::NotMatches];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Matches => "|~",
            Self::NotMatches => "!~",
        }
    }

    /// Whether a line passes for what it holds rather than for what it lacks.
    pub fn is_positive(self) -> bool {
        matches!(self, Self::Contains | Self::Matches)
    }

    /// Whether the alternatives are regular expressions.
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Matches | Self::NotMatches)
    }
}

impl RangeOp {
    /// All, in the order errors name them.
    pub const ALL: [Self; 4] = [Self::CountOverTime, Self::Rate, Self::BytesOverTime, Self::BytesRate];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CountOverTime => "count_over_time",
            Self::Rate => "rate",
            Self::BytesOverTime => "bytes_over_time",
            Self::BytesRate => "bytes_rate",
        }
    }

    /// Whether line bytes are counted rather than records.
    pub fn counts_bytes(self) -> bool {
        matches!(self, Self::BytesOverTime | Self::BytesRate)
    }

    /// Whether the count is divided by the window's seconds.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Rate | Self::BytesRate)
    }
}

impl AggregateOp {
    /// All, in the order errors name them.
    pub const ALL: [Self; 5] = [Self::Sum, Self::Count, Self::Min, Self::Max, Self::Avg];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
        }
    }
}

impl BinaryOp {
    /// All.
    pub const ALL: [Self; 6] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide, Self::Modulo, Self::Power];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }

    /// The result for two numbers, as IEEE 754 has it.
    pub fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Modulo => left % right,
            Self::Power => left.powf(right),
        }
    }
}

/// A string as LogQL reads it back.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

impl fmt::Display for LogExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, matcher) in self.matchers.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{}{}{}", matcher.name, matcher.op.as_str(), Quoted(&matcher.value))?;
        }
        f.write_str("}")?;
        for filter in &self.filters {
            write!(f, " {} ", filter.op.as_str())?;
            for (at, alternative) in filter.alternatives.iter().enumerate() {
                write!(f, "{}{}", if at > 0 { " or " } else { "" }, Quoted(alternative))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for RangeExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} [{}ns])", self.op.as_str(), self.logs, self.window)
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Vector(number) => write!(f, "vector({number})"),
            Self::Range(range) => range.fmt(f),
            Self::Aggregate { op, grouping, inner } => {
                let (word, names) = match grouping {
                    Grouping::By(names) => ("by", names),
                    Grouping::Without(names) => ("without", names),
                };
                write!(f, "{} {word} ({}) ({inner})", op.as_str(), names.join(", "))
            }
            Self::Binary { op, left, right } => write!(f, "({left}) {} ({right})", op.as_str()),
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logs(logs) => logs.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}
