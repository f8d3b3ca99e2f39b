//! Metric queries: operators, aggregations, functions, and the range with what it takes from records.

use super::super::ast::{
    AggregateOp, BinaryOp, Cardinality, Grouping, LogExpr, Matching, MetricExpr, RangeExpr, RangeOp, Unwrap,
};
use super::super::error::{ParseCause, QueryError};
use super::super::lexer::{Place, Token};
use super::super::pattern;
use super::{Parser, moved};

/// Records with the number that is taken from each, and the window where it has been read.
struct Ranged {
    logs: LogExpr,
    unwrap: Option<Unwrap>,
    /// Window and offset.
    window: Option<(i64, i64)>,
}

/// What stands between an operator and its right side.
struct Modifiers {
    bool_modifier: bool,
    matching: Matching,
    cardinality: Cardinality,
}

fn binary_of(token: &Token) -> Option<BinaryOp> {
    let as_written = |op: &BinaryOp| match token {
        Token::Symbol(symbol) => op.as_str() == *symbol,
        Token::Name(name) => op.is_set() && op.as_str().eq_ignore_ascii_case(name),
        Token::Text(_)
        | Token::Number(_)
        | Token::Duration(_)
        | Token::Bytes(_)
        | Token::Flag(_)
        | Token::End
        | Token::Wrong(_) => false,
    };
    BinaryOp::ALL.into_iter().find(as_written)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

impl Parser {
    /// A chain of operators that bind at least as tight as `least`.
    pub(super) fn metric(&mut self, least: u8) -> Result<MetricExpr, QueryError> {
        let mut left = self.operand()?;
        while let Some(op) = binary_of(self.peek())
            && op.tightness() >= least
        {
            self.count_node()?;
            let place = self.place();
            self.skip();
            let Modifiers { bool_modifier, matching, cardinality } = self.modifiers(op)?;
            // `^` binds to the right: its right side may hold another one.
            let tightness = op.tightness();
            let right = self.metric(if op == BinaryOp::Power { tightness } else { tightness + 1 })?;
            check_sides(op, bool_modifier, &left, &right, place)?;
            let sides = (Box::new(left), Box::new(right));
            left = MetricExpr::Binary { op, bool_modifier, matching, cardinality, left: sides.0, right: sides.1 };
        }
        Ok(left)
    }

    fn modifiers(&mut self, op: BinaryOp) -> Result<Modifiers, QueryError> {
        let compares = matches!(op, BinaryOp::Compare(_));
        let refuse = |place: Place, word: &str, allowed: &str| {
            let (word, op, allowed) = (word.to_owned(), op.as_str().to_owned(), allowed.to_owned());
            Err(place.refuse(ParseCause::Modifier { word, op, allowed }))
        };
        let place = self.place();
        let bool_modifier = self.take_word("bool");
        if bool_modifier && !compares {
            return refuse(place, "bool", "a comparison such as >");
        }
        let matching = if self.take_word("on") {
            Matching::On(self.label_list(true)?)
        } else if self.take_word("ignoring") {
            Matching::Ignoring(self.label_list(true)?)
        } else {
            let matching = Matching::Ignoring(Vec::new());
            return Ok(Modifiers { bool_modifier, matching, cardinality: Cardinality::OneToOne });
        };
        let place = self.place();
        let (left, right) = (self.take_word("group_left"), self.take_word("group_right"));
        if !left && !right {
            return Ok(Modifiers { bool_modifier, matching, cardinality: Cardinality::OneToOne });
        }
        if op.is_set() {
            return refuse(place, if left { "group_left" } else { "group_right" }, "arithmetic or a comparison");
        }
        let labels = if self.is_symbol("(") { self.label_list(true)? } else { Vec::new() };
        if let Matching::On(on) = &matching
            && let Some(label) = labels.iter().find(|label| on.contains(label))
        {
            let (label, lists) = (label.clone(), "\"on\" and in the list of the group modifier".to_owned());
            return Err(place.refuse(ParseCause::LabelTwice { label, place: lists }));
        }
        let cardinality = if left { Cardinality::ManyToOne(labels) } else { Cardinality::OneToMany(labels) };
        Ok(Modifiers { bool_modifier, matching, cardinality })
    }

    /// Names in parentheses, sorted, each once. A comma may end the list where `trailing` says so.
    fn label_list(&mut self, trailing: bool) -> Result<Vec<String>, QueryError> {
        self.symbol("(")?;
        let mut names = Vec::new();
        while !self.take_symbol(")") {
            if !names.is_empty() && !self.take_symbol(",") {
                return self.expected("\",\" or \")\"");
            }
            if trailing && !names.is_empty() && self.take_symbol(")") {
                break;
            }
            names.push(self.name("a label name")?);
        }
        Ok(sorted(names))
    }

    fn operand(&mut self) -> Result<MetricExpr, QueryError> {
        if let Some(number) = self.signed_number() {
            return Ok(MetricExpr::Number(number));
        }
        if self.take_symbol("(") {
            self.open()?;
            let inner = self.metric(0)?;
            self.close()?;
            return Ok(inner);
        }
        if self.is_symbol("{") {
            return self.expected("a number or a function: records become numbers in one such as count_over_time");
        }
        let Token::Name(name) = self.peek().clone() else {
            return self
                .expected("a stream selector such as {app=\"x\"}, a number, or a function such as count_over_time");
        };
        self.call(&name)
    }

    fn call(&mut self, name: &str) -> Result<MetricExpr, QueryError> {
        let place = self.place();
        if let Some(op) = AggregateOp::ALL.into_iter().find(|op| op.as_str().eq_ignore_ascii_case(name)) {
            self.count_node()?;
            self.skip();
            return self.aggregate(op, place);
        }
        if let Some(op) = RangeOp::ALL.into_iter().find(|op| op.as_str() == name) {
            self.count_node()?;
            self.skip();
            return self.range(op, place).map(MetricExpr::Range);
        }
        if self.is_word("vector") {
            self.skip();
            self.symbol("(")?;
            let Some(number) = self.signed_number() else { return self.expected("a number") };
            self.symbol(")")?;
            return Ok(MetricExpr::Vector(number));
        }
        if self.is_word("label_replace") {
            self.count_node()?;
            self.skip();
            return self.label_replace();
        }
        let ranges = RangeOp::ALL.map(RangeOp::as_str).join(", ");
        let aggregates = AggregateOp::ALL.map(AggregateOp::as_str).join(", ");
        self.expected(&format!("a stream selector, a number, or one of {ranges}, {aggregates}, label_replace, vector"))
    }

    fn aggregate(&mut self, op: AggregateOp, start: Place) -> Result<MetricExpr, QueryError> {
        let before = self.grouping()?;
        self.symbol("(")?;
        self.open()?;
        let parameter = self.number_of_series(op)?;
        let inner = self.series()?;
        self.close()?;
        let grouping = if before.is_some() { before } else { self.grouping()? };
        if grouping.is_some() && !op.takes_grouping() {
            return Err(start.refuse(ParseCause::GroupingUnwanted(op.as_str().to_owned())));
        }
        let grouping = grouping.unwrap_or(Grouping::By(Vec::new()));
        Ok(MetricExpr::Aggregate { op, parameter, grouping, inner: Box::new(inner) })
    }

    /// The number of `topk(5, ..)`.
    fn number_of_series(&mut self, op: AggregateOp) -> Result<Option<u32>, QueryError> {
        let number = match (self.peek(), self.peek_second()) {
            (Token::Number(number), Token::Symbol(",")) => *number,
            _ if op.takes_parameter() => {
                return self.expected(&format!("how many series, as in {}(10, ..)", op.as_str()));
            }
            _ => return Ok(None),
        };
        let place = self.place();
        if !op.takes_parameter() {
            let (op, parameter) = (op.as_str().to_owned(), number.to_string());
            return Err(place.refuse(ParseCause::ParameterUnwanted { op, parameter }));
        }
        let whole = number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number);
        if !whole {
            return Err(place.refuse(ParseCause::ParameterRange(format!("{}({number}, ..)", op.as_str()))));
        }
        self.skip();
        self.skip();
        // Checked above: whole and within the range of the type.
        Ok(Some(number as u32))
    }

    /// Series rather than a number.
    fn series(&mut self) -> Result<MetricExpr, QueryError> {
        let place = self.place();
        let inner = self.metric(0)?;
        if inner.is_scalar() {
            let expected = "series, such as those of count_over_time".to_owned();
            return Err(place.refuse(ParseCause::Expected { expected, found: "a number".to_owned() }));
        }
        Ok(inner)
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        if self.take_word("by") {
            return self.label_list(false).map(Grouping::By).map(Some);
        }
        if self.take_word("without") {
            return self.label_list(false).map(Grouping::Without).map(Some);
        }
        Ok(None)
    }

    fn label_replace(&mut self) -> Result<MetricExpr, QueryError> {
        self.symbol("(")?;
        self.open()?;
        let inner = Box::new(self.series()?);
        let text = |parser: &mut Self| {
            parser.symbol(",")?;
            parser.string()
        };
        let (to, replacement, from) = (text(self)?, text(self)?, text(self)?);
        self.symbol(",")?;
        let place = self.place();
        let regex = self.string()?;
        self.count_regex(place)?;
        pattern::line_regex(&regex).map_err(|error| moved(error, place))?;
        self.close()?;
        Ok(MetricExpr::LabelReplace { inner, to, replacement, from, regex })
    }

    /// What stands in the parentheses of a range aggregation, and the grouping after them.
    fn range(&mut self, op: RangeOp, start: Place) -> Result<RangeExpr, QueryError> {
        self.symbol("(")?;
        self.open()?;
        let parameter = self.quantile(op)?;
        let Ranged { logs, unwrap, window } = self.ranged()?;
        let Some((window, offset)) = window else {
            return self.expected("a stage or a range such as [5m]");
        };
        self.close()?;
        let refuse = |cause: fn(String) -> ParseCause| Err(start.refuse(cause(op.as_str().to_owned())));
        if unwrap.is_some() && !op.takes_numbers() {
            return refuse(ParseCause::UnwrapUnwanted);
        }
        if unwrap.is_none() && !op.takes_records() {
            return refuse(ParseCause::UnwrapMissing);
        }
        let grouping = self.grouping()?;
        if grouping.is_some() && !op.takes_grouping() {
            return refuse(ParseCause::GroupingUnwanted);
        }
        Ok(RangeExpr { op, parameter, logs, unwrap, window, offset, grouping })
    }

    /// The number of `quantile_over_time(0.99, ..)`.
    fn quantile(&mut self, op: RangeOp) -> Result<Option<f64>, QueryError> {
        let wanted = op == RangeOp::QuantileOverTime;
        let Token::Number(number) = *self.peek() else {
            let example = "a quantile, as in quantile_over_time(0.99, ..)";
            return if wanted { self.expected(example) } else { Ok(None) };
        };
        if !wanted {
            let (op, parameter) = (op.as_str().to_owned(), number.to_string());
            return Err(self.place().refuse(ParseCause::ParameterUnwanted { op, parameter }));
        }
        self.skip();
        self.symbol(",")?;
        Ok(Some(number))
    }

    /// `{..} | stages [5m] offset 1h`, or the stages after the range; the whole or what comes before the range in
    /// parentheses.
    fn ranged(&mut self) -> Result<Ranged, QueryError> {
        let mut ranged = if self.take_symbol("(") {
            self.open()?;
            let inner = self.ranged()?;
            self.close()?;
            inner
        } else {
            let mut logs = LogExpr { matchers: self.selector()?, stages: Vec::new() };
            let unwrap = self.pipeline(&mut logs.stages)?;
            Ranged { logs, unwrap, window: None }
        };
        if ranged.window.is_some() || !self.take_symbol("[") {
            return Ok(ranged);
        }
        ranged.window = Some(self.window()?);
        if ranged.logs.stages.is_empty() && ranged.unwrap.is_none() {
            ranged.unwrap = self.pipeline(&mut ranged.logs.stages)?;
        }
        Ok(ranged)
    }

    /// What stands after `[`: the window, and the offset after it.
    fn window(&mut self) -> Result<(i64, i64), QueryError> {
        let Token::Duration(window @ 1..) = *self.peek() else {
            return self.expected("a duration above zero, such as 5m");
        };
        self.skip();
        self.symbol("]")?;
        if !self.take_word("offset") {
            return Ok((window, 0));
        }
        let Some(offset) = self.signed_duration() else { return self.expected("a duration such as 1h") };
        Ok((window, offset))
    }
}

/// Refuses what has no meaning between these sides.
fn check_sides(
    op: BinaryOp,
    bool_modifier: bool,
    left: &MetricExpr,
    right: &MetricExpr,
    place: Place,
) -> Result<(), QueryError> {
    let name = || op.as_str().to_owned();
    for (side, expr) in [("left", left), ("right", right)] {
        if op.is_set() && expr.is_scalar() {
            return Err(place.refuse(ParseCause::LiteralInSet { side: side.to_owned(), op: name() }));
        }
    }
    if bool_modifier && left.is_scalar() && right.is_scalar() {
        let (word, allowed) = ("bool between two numbers".to_owned(), "series on at least one side".to_owned());
        return Err(place.refuse(ParseCause::Modifier { word, op: name(), allowed }));
    }
    Ok(())
}
