//! LogQL as data: what the parser makes of a query's text and what travels to the shards.
//!
//! Nothing here is compiled or bound to a time range. `Display` writes LogQL that parses to the same tree, wherever a
//! text can say it: a `!=` or `!~` line filter cannot stand right behind a name of `drop` or `keep`. Source: the LogQL
//! pages of Loki's documentation (<https://grafana.com/docs/loki/latest/query/>).

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

    /// Whether it may be made of records, without `unwrap`.
    pub fn takes_records(self) -> bool {
        matches!(self, Self::CountOverTime | Self::Rate | Self::BytesOverTime | Self::BytesRate | Self::AbsentOverTime)
    }

    /// Whether it may be made of unwrapped numbers.
    pub fn takes_numbers(self) -> bool {
        !matches!(self, Self::CountOverTime | Self::BytesOverTime | Self::BytesRate)
    }

    /// Whether `by` and `without` may follow.
    pub fn takes_grouping(self) -> bool {
        self.takes_numbers()
            && !matches!(self, Self::SumOverTime | Self::AbsentOverTime | Self::Rate | Self::RateCounter)
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

    /// Whether `by` and `without` may stand with it: an order has no groups, and Loki documents none for `approx_topk`.
    pub fn takes_grouping(self) -> bool {
        !matches!(self, Self::ApproxTopk | Self::Sort | Self::SortDesc)
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

    /// Its sides with the parentheses that keep them what they are: powers bind to the right, all else to the left.
    fn enclosed<'a>(
        self,
        left: &'a MetricExpr,
        right: &'a MetricExpr,
    ) -> (Enclosed<'a, MetricExpr>, Enclosed<'a, MetricExpr>) {
        let tightness = |side: &MetricExpr| match side {
            MetricExpr::Binary { op, .. } => op.tightness(),
            MetricExpr::Number(_)
            | MetricExpr::Vector(_)
            | MetricExpr::Range(_)
            | MetricExpr::Aggregate { .. }
            | MetricExpr::LabelReplace { .. } => u8::MAX,
        };
        let to_the_right = self == Self::Power;
        let looser = |side: &MetricExpr, same: bool| {
            tightness(side) < self.tightness() || (same && tightness(side) == self.tightness())
        };
        (Enclosed(looser(left, to_the_right), left), Enclosed(looser(right, !to_the_right), right))
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl MetricExpr {
    /// Whether it is one number at each time, without labels and without a series.
    pub fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Binary { left, right, .. } => left.is_scalar() && right.is_scalar(),
            Self::Vector(_) | Self::Range(_) | Self::Aggregate { .. } | Self::LabelReplace { .. } => false,
        }
    }

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

/// A number as LogQL reads it back.
struct Real(f64);

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0 == 0.0 || (1e-6..1e21).contains(&self.0.abs());
        if plain { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

/// Nanoseconds as LogQL reads them back: `1h30m`.
pub(super) struct Span(pub(super) i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 7] = [
            ("d", 86_400_000_000_000),
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// Bytes as LogQL reads them back, in the largest unit that leaves no fraction: `20KB`.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 6] = [
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("KB", 1_000),
        ];
        let unit = UNITS.into_iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (name, unit) = unit.unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
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
        f.write_str(&self.label)?;
        if self.label == self.expression { Ok(()) } else { write!(f, "={}", Quoted(&self.expression)) }
    }
}

/// Words that begin a stage where they stand right behind `|`.
pub(super) const STAGES: [&str; 11] = [
    "json",
    "logfmt",
    "pattern",
    "regexp",
    "unpack",
    "line_format",
    "label_format",
    "drop",
    "keep",
    "decolorize",
    "unwrap",
];

impl LabelFilter {
    /// The label that is written first, unless a parenthesis is.
    fn first_name(&self) -> Option<&str> {
        match self {
            Self::Text(Matcher { name, .. })
            | Self::Number { name, .. }
            | Self::Duration { name, .. }
            | Self::Bytes { name, .. }
            | Self::Ip { name, .. } => Some(name),
            Self::And(left, _) => {
                if matches!(**left, Self::Or(..)) {
                    None
                } else {
                    left.first_name()
                }
            }
            Self::Or(left, _) => left.first_name(),
        }
    }
}

/// A label filter behind `|`, where a label may not look like a stage.
struct Piped<'a>(&'a LabelFilter);

impl fmt::Display for Piped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = |name: &str| STAGES.iter().any(|stage| stage.eq_ignore_ascii_case(name));
        if self.0.first_name().is_some_and(stage) { write!(f, "| ({})", self.0) } else { write!(f, "| {}", self.0) }
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => matcher.fmt(f),
            Self::Number { name, op, value } => write!(f, "{name} {} {}", op.as_str(), Real(*value)),
            Self::Duration { name, op, value } => write!(f, "{name} {} {}", op.as_str(), Span(*value)),
            Self::Bytes { name, op, value } => write!(f, "{name} {} {}", op.as_str(), Size(*value)),
            Self::Ip { name, negative, range } => {
                write!(f, "{name} {} ip({})", if *negative { "!=" } else { "=" }, Quoted(range))
            }
            Self::And(left, right) => {
                let enclosed = (matches!(**left, Self::Or(..)), matches!(**right, Self::Or(..) | Self::And(..)));
                write!(f, "{} and {}", Enclosed(enclosed.0, left), Enclosed(enclosed.1, right))
            }
            Self::Or(left, right) => write!(f, "{left} or {}", Enclosed(matches!(**right, Self::Or(..)), right)),
        }
    }
}

/// With parentheses where they are needed.
struct Enclosed<'a, T>(bool, &'a T);

impl<T: fmt::Display> fmt::Display for Enclosed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 { write!(f, "({})", self.1) } else { self.1.fmt(f) }
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
            Self::Labels(filter) => Piped(filter).fmt(f),
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
        self.filters.iter().try_for_each(|filter| write!(f, " {}", Piped(filter)))
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
            write!(f, "{}, ", Real(parameter))?;
        }
        self.logs.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, " [{}]", Span(self.window))?;
        if self.offset != 0 {
            write!(f, " offset {}", Span(self.offset))?;
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
            Self::Number(number) => Real(*number).fmt(f),
            Self::Vector(number) => write!(f, "vector({})", Real(*number)),
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
                let (left, right) = op.enclosed(left, right);
                // What many sides may be follows a list of labels, also an empty one.
                let bare = *matching == Matching::Ignoring(Vec::new()) && *cardinality != Cardinality::OneToOne;
                let ignoring = if bare { " ignoring ()" } else { "" };
                write!(f, "{left} {}{bool_modifier}{ignoring}{matching}{cardinality} {right}", op.as_str())
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
