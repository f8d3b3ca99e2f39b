//! LogQL as data: what the parser makes of a query's text and what travels to the shards.
//!
//! Nothing here is compiled or bound to a time range. `Display` writes LogQL that parses to the same tree. Source: the
//! LogQL pages of Loki's documentation (<https://grafana.com/docs/loki/latest/query/>).

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

/// A stream selector and the pipeline after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogExpr {
    /// All must hold for a stream.
    pub matchers: Vec<Matcher>,
    /// What a line goes through, in the order it was written.
    pub stages: Vec<Stage>,
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

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// Lines that do not pass are left out.
    Filter(LineFilter),
    /// `| json`: every scalar of the line's object as a label, or only these.
    Json(Vec<Extraction>),
    /// `| logfmt`: every pair of the line as a label, or only these.
    Logfmt {
        /// `--strict`: a line that is no logfmt is an error.
        strict: bool,
        /// `--keep-empty`: keys without a value become empty labels.
        keep_empty: bool,
        /// Which; none: all.
        fields: Vec<Extraction>,
    },
    /// `| pattern "<ip> - <user>"`: captures as labels.
    Pattern(String),
    /// `| regexp "(?P<name>..)"`: named captures as labels.
    Regexp(String),
    /// `| unpack`: a line that `pack` made.
    Unpack,
    /// Records whose labels do not pass are left out.
    Labels(LabelFilter),
    /// `| line_format`: a template writes the line anew.
    LineFormat(String),
    /// `| label_format`: labels are renamed or written by templates.
    LabelFormat(Vec<LabelFormat>),
    /// `| drop`: without these labels.
    Drop(Vec<LabelChoice>),
    /// `| keep`: without all other labels.
    Keep(Vec<LabelChoice>),
    /// `| decolorize`: without ANSI sequences.
    Decolorize,
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
    /// `|>`, a pattern such as `<_> level=<_>`
    Pattern,
    /// `!>`
    NotPattern,
}

/// One condition on a line: any of the alternatives, or with a negative operator none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFilter {
    /// How.
    pub op: FilterOp,
    /// With what; at least one.
    pub alternatives: Vec<Needle>,
}

/// What a line is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Needle {
    /// A text, an expression or a pattern.
    Text(String),
    /// `ip("..")`: an address in this range or network; with `|=` and `!=` alone.
    Ip(String),
}

/// `label="expression"` of `json` and `logfmt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extraction {
    /// The label to set.
    pub label: String,
    /// The path of a JSON value (`a.b[0]["c d"]`), the key of a logfmt pair.
    pub expression: String,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// `==`, and `=` in label filters
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
}

/// A condition on the labels of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LabelFilter {
    /// As text.
    Text(Matcher),
    /// As a number.
    Number {
        /// The label.
        name: String,
        /// How.
        op: Compare,
        /// With what.
        value: f64,
    },
    /// As a duration such as `1.5s`.
    Duration {
        /// The label.
        name: String,
        /// How.
        op: Compare,
        /// With what, in nanoseconds.
        value: i64,
    },
    /// As bytes such as `20KB`.
    Bytes {
        /// The label.
        name: String,
        /// How.
        op: Compare,
        /// With how many.
        value: u64,
    },
    /// As an address: `name = ip("10.0.0.0/8")`.
    Ip {
        /// The label.
        name: String,
        /// Whether the address is to be outside: `!=`.
        negative: bool,
        /// The address, range or network.
        range: String,
    },
    /// Both hold: `and`, `,` or nothing between them.
    And(Box<Self>, Box<Self>),
    /// At least one holds.
    Or(Box<Self>, Box<Self>),
}

/// One assignment of `label_format`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFormat {
    /// The label to set.
    pub label: String,
    /// From what.
    pub source: LabelSource,
}

/// Where `label_format` takes a value from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelSource {
    /// Another label, which goes: `dst=src`.
    Rename(String),
    /// A template: `dst="{{.src}}"`.
    Template(String),
}

/// A label of `drop` and `keep`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelChoice {
    /// By its name.
    Name(String),
    /// Only where its value fits: `level="debug"`.
    Where(Matcher),
}

/// The number of each record that a range aggregation takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unwrap {
    /// The label with the number.
    pub label: String,
    /// How it is read.
    pub convert: Convert,
    /// What must hold after it was read, such as `__error__=""`, in the order it was written.
    pub filters: Vec<LabelFilter>,
}

/// How an unwrapped label becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Convert {
    /// A number.
    Number,
    /// `duration(label)`: seconds.
    Duration,
    /// `duration_seconds(label)`: the same.
    DurationSeconds,
    /// `bytes(label)`: bytes.
    Bytes,
}

/// What is made of the records in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeOp {
    /// `count_over_time`
    CountOverTime,
    /// `rate`: records per second, or the sum of unwrapped numbers per second
    Rate,
    /// `rate_counter`: as `rate` of Prometheus, of a counter that may begin anew
    RateCounter,
    /// `bytes_over_time`
    BytesOverTime,
    /// `bytes_rate`, bytes per second
    BytesRate,
    /// `sum_over_time`
    SumOverTime,
    /// `avg_over_time`
    AvgOverTime,
    /// `min_over_time`
    MinOverTime,
    /// `max_over_time`
    MaxOverTime,
    /// `first_over_time`
    FirstOverTime,
    /// `last_over_time`
    LastOverTime,
    /// `stddev_over_time`
    StddevOverTime,
    /// `stdvar_over_time`
    StdvarOverTime,
    /// `quantile_over_time`
    QuantileOverTime,
    /// `absent_over_time`
    AbsentOverTime,
}

/// How series become fewer, or come in an order.
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
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `approx_topk`, which is exact here
    ApproxTopk,
    /// `sort`
    Sort,
    /// `sort_desc`
    SortDesc,
}

/// What two sides become.
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
    /// A comparison: it lets points through, or with `bool` gives 0 and 1.
    Compare(Compare),
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

/// Which labels tell the series of an aggregation apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grouping {
    /// These alone; none of them: one series.
    By(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

/// Which labels the two sides of an operator must share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matching {
    /// `on`: these.
    On(Vec<String>),
    /// `ignoring`: all but these. None of them where nothing is written.
    Ignoring(Vec<String>),
}

/// How many series of one side may meet one of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cardinality {
    /// One.
    OneToOne,
    /// `group_left`: many of the left side, which take these labels from the right.
    ManyToOne(Vec<String>),
    /// `group_right`: many of the right side, which take these labels from the left.
    OneToMany(Vec<String>),
}

/// A number for each series of records in a sliding window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeExpr {
    /// What it is.
    pub op: RangeOp,
    /// The quantile, of `quantile_over_time` alone.
    pub parameter: Option<f64>,
    /// Of which records.
    pub logs: LogExpr,
    /// Of which number of them; `None`: of the records themselves.
    pub unwrap: Option<Unwrap>,
    /// The window in nanoseconds, above zero. At time t it is (t - offset - window, t - offset].
    pub window: i64,
    /// How far the window lies back, in nanoseconds; below zero: ahead.
    pub offset: i64,
    /// What tells series apart; `None`: every label.
    pub grouping: Option<Grouping>,
}

/// Numbers over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetricExpr {
    /// A scalar.
    Number(f64),
    /// `vector(n)`: one series without labels.
    Vector(f64),
    /// Records in a window.
    Range(RangeExpr),
    /// Fewer series, or in an order.
    Aggregate {
        /// How.
        op: AggregateOp,
        /// How many, of `topk`, `bottomk` and `approx_topk` alone.
        parameter: Option<u32>,
        /// By which labels; one group where nothing is written.
        grouping: Grouping,
        /// Of what.
        inner: Box<MetricExpr>,
    },
    /// Arithmetic, comparison and sets, point by point.
    Binary {
        /// How.
        op: BinaryOp,
        /// Of comparisons: 0 and 1 rather than a filter.
        bool_modifier: bool,
        /// Which series of the sides meet.
        matching: Matching,
        /// How many of them.
        cardinality: Cardinality,
        /// The left side.
        left: Box<MetricExpr>,
        /// The right side.
        right: Box<MetricExpr>,
    },
    /// `label_replace(inner, "to", "replacement", "from", "regex")`
    LabelReplace {
        /// Of what.
        inner: Box<MetricExpr>,
        /// The label to set.
        to: String,
        /// Its value, with `$1` for captures.
        replacement: String,
        /// The label to read.
        from: String,
        /// What must match its whole value.
        regex: String,
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
    pub const ALL: [Self; 6] =
        [Self::Contains, Self::NotContains, Self::Matches, Self::NotMatches, Self::Pattern, Self::NotPattern];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Matches => "|~",
            Self::NotMatches => "!~",
            Self::Pattern => "|>",
            Self::NotPattern => "!>",
        }
    }

    /// Whether a line passes for what it holds rather than for what it lacks.
    pub fn is_positive(self) -> bool {
        matches!(self, Self::Contains | Self::Matches | Self::Pattern)
    }

    /// Whether the alternatives are regular expressions.
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Matches | Self::NotMatches)
    }
}

impl Compare {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Equal, Self::NotEqual, Self::Greater, Self::GreaterEqual, Self::Less, Self::LessEqual];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
        }
    }

    /// Whether it holds; of NaN nothing holds but `!=`.
    pub fn holds<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
        }
    }
}

impl RangeOp {
    /// All, in the order errors name them.
    pub const ALL: [Self; 15] = [
        Self::CountOverTime,
        Self::Rate,
        Self::RateCounter,
        Self::BytesOverTime,
        Self::BytesRate,
        Self::SumOverTime,
        Self::AvgOverTime,
        Self::MinOverTime,
        Self::MaxOverTime,
        Self::FirstOverTime,
        Self::LastOverTime,
        Self::StddevOverTime,
        Self::StdvarOverTime,
        Self::QuantileOverTime,
        Self::AbsentOverTime,
    ];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CountOverTime => "count_over_time",
            Self::Rate => "rate",
            Self::RateCounter => "rate_counter",
            Self::BytesOverTime => "bytes_over_time",
            Self::BytesRate => "bytes_rate",
            Self::SumOverTime => "sum_over_time",
            Self::AvgOverTime => "avg_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::FirstOverTime => "first_over_time",
            Self::LastOverTime => "last_over_time",
            Self::StddevOverTime => "stddev_over_time",
            Self::StdvarOverTime => "stdvar_over_time",
            Self::QuantileOverTime => "quantile_over_time",
            Self::AbsentOverTime => "absent_over_time",
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
    pub const ALL: [Self; 12] = [
        Self::Sum,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Avg,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::ApproxTopk,
        Self::Sort,
        Self::SortDesc,
    ];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::ApproxTopk => "approx_topk",
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
        }
    }

    /// Whether it takes a number of series.
    pub fn takes_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::ApproxTopk)
    }
}

impl BinaryOp {
    /// All.
    pub const ALL: [Self; 15] = [
        Self::Add,
        Self::Subtract,
        Self::Multiply,
        Self::Divide,
        Self::Modulo,
        Self::Power,
        Self::Compare(Compare::Equal),
        Self::Compare(Compare::NotEqual),
        Self::Compare(Compare::Greater),
        Self::Compare(Compare::GreaterEqual),
        Self::Compare(Compare::Less),
        Self::Compare(Compare::LessEqual),
        Self::And,
        Self::Or,
        Self::Unless,
    ];

    /// As LogQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
            Self::Compare(compare) => compare.as_str(),
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// How tight it binds: `or`, `and` and `unless`, comparisons, sums, products, powers.
    pub fn tightness(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Compare(_) => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo => 5,
            Self::Power => 6,
        }
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl MetricExpr {
    /// Both sides joined without any word after the operator.
    pub fn binary(op: BinaryOp, left: Self, right: Self) -> Self {
        Self::Binary {
            op,
            bool_modifier: false,
            matching: Matching::Ignoring(Vec::new()),
            cardinality: Cardinality::OneToOne,
            left: Box::new(left),
            right: Box::new(right),
        }
    }
}

impl RangeExpr {
    /// Of the records themselves, without a word after the range.
    pub fn new(op: RangeOp, logs: LogExpr, window: i64) -> Self {
        Self { op, parameter: None, logs, unwrap: None, window, offset: 0, grouping: None }
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

/// Things with commas between them.
struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.op.as_str(), Quoted(&self.value))
    }
}

impl fmt::Display for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Ip(range) => write!(f, "ip({})", Quoted(range)),
        }
    }
}

impl fmt::Display for LineFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.as_str())?;
        for (at, alternative) in self.alternatives.iter().enumerate() {
            write!(f, "{}{alternative}", if at > 0 { " or " } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Extraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.label, Quoted(&self.expression))
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => matcher.fmt(f),
            Self::Number { name, op, value } => write!(f, "{name} {} {value}", op.as_str()),
            Self::Duration { name, op, value } => write!(f, "{name} {} {value}ns", op.as_str()),
            Self::Bytes { name, op, value } => write!(f, "{name} {} {value}B", op.as_str()),
            Self::Ip { name, negative, range } => {
                write!(f, "{name} {} ip({})", if *negative { "!=" } else { "=" }, Quoted(range))
            }
            Self::And(left, right) => write!(f, "({left} and {right})"),
            Self::Or(left, right) => write!(f, "({left} or {right})"),
        }
    }
}

impl fmt::Display for LabelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            LabelSource::Rename(from) => write!(f, "{}={from}", self.label),
            LabelSource::Template(template) => write!(f, "{}={}", self.label, Quoted(template)),
        }
    }
}

impl fmt::Display for LabelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Where(matcher) => matcher.fmt(f),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = |empty: bool| if empty { "" } else { " " };
        match self {
            Self::Filter(filter) => filter.fmt(f),
            Self::Json(fields) => write!(f, "| json{}{}", space(fields.is_empty()), Listed(fields)),
            Self::Logfmt { strict, keep_empty, fields } => {
                let strict = if *strict { " --strict" } else { "" };
                let keep = if *keep_empty { " --keep-empty" } else { "" };
                write!(f, "| logfmt{strict}{keep}{}{}", space(fields.is_empty()), Listed(fields))
            }
            Self::Pattern(pattern) => write!(f, "| pattern {}", Quoted(pattern)),
            Self::Regexp(regex) => write!(f, "| regexp {}", Quoted(regex)),
            Self::Unpack => f.write_str("| unpack"),
            Self::Labels(filter) => write!(f, "| {filter}"),
            Self::LineFormat(template) => write!(f, "| line_format {}", Quoted(template)),
            Self::LabelFormat(formats) => write!(f, "| label_format {}", Listed(formats)),
            Self::Drop(choices) => write!(f, "| drop {}", Listed(choices)),
            Self::Keep(choices) => write!(f, "| keep {}", Listed(choices)),
            Self::Decolorize => f.write_str("| decolorize"),
        }
    }
}

impl fmt::Display for LogExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", Listed(&self.matchers))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl fmt::Display for Unwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match self.convert {
            Convert::Number => write!(f, "| unwrap {label}")?,
            Convert::Duration => write!(f, "| unwrap duration({label})")?,
            Convert::DurationSeconds => write!(f, "| unwrap duration_seconds({label})")?,
            Convert::Bytes => write!(f, "| unwrap bytes({label})")?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(names) => write!(f, "by ({})", Listed(names)),
            Self::Without(names) => write!(f, "without ({})", Listed(names)),
        }
    }
}

impl fmt::Display for RangeExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op.as_str())?;
        if let Some(parameter) = self.parameter {
            write!(f, "{parameter}, ")?;
        }
        self.logs.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, " [{}ns]", self.window)?;
        if self.offset != 0 {
            write!(f, " offset {}ns", self.offset)?;
        }
        f.write_str(")")?;
        self.grouping.as_ref().map_or(Ok(()), |grouping| write!(f, " {grouping}"))
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(names) => write!(f, " on ({})", Listed(names)),
            Self::Ignoring(names) if names.is_empty() => Ok(()),
            Self::Ignoring(names) => write!(f, " ignoring ({})", Listed(names)),
        }
    }
}

impl fmt::Display for Cardinality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneToOne => Ok(()),
            Self::ManyToOne(names) => write!(f, " group_left ({})", Listed(names)),
            Self::OneToMany(names) => write!(f, " group_right ({})", Listed(names)),
        }
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Vector(number) => write!(f, "vector({number})"),
            Self::Range(range) => range.fmt(f),
            Self::Aggregate { op, parameter, grouping, inner } => {
                write!(f, "{}", op.as_str())?;
                if *grouping != Grouping::By(Vec::new()) {
                    write!(f, " {grouping} ")?;
                }
                match parameter {
                    Some(parameter) => write!(f, "({parameter}, {inner})"),
                    None => write!(f, "({inner})"),
                }
            }
            Self::Binary { op, bool_modifier, matching, cardinality, left, right } => {
                let bool_modifier = if *bool_modifier { " bool" } else { "" };
                write!(f, "({left}) {}{bool_modifier}{matching}{cardinality} ({right})", op.as_str())
            }
            Self::LabelReplace { inner, to, replacement, from, regex } => {
                let texts = [to, replacement, from, regex].map(|text| Quoted(text));
                write!(f, "label_replace({inner}, {}, {}, {}, {})", texts[0], texts[1], texts[2], texts[3])
            }
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
