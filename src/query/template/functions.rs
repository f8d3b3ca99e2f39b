//! The functions of templates by their names: those that Loki documents and those of Go's templates. What needs the
//! record, or a part of the template, is the parser's and not here.

use std::borrow::Cow;

use super::dates::Time;
use super::error::Cause;
use super::value::{Output, Value, Work, from_json};
use super::{number, printf, strings};
use crate::query::quantity;

/// One call: what is given to a function, and what it may still do.
pub(super) struct Call<'c, 'r> {
    pub(super) name: &'static str,
    pub(super) args: &'c [Value<'r>],
    pub(super) work: &'c mut Work,
}

impl<'c, 'r> Call<'c, 'r> {
    fn mismatch(&self, at: usize, wanted: &'static str) -> Cause {
        Cause::Type { name: self.name, wanted, found: self.args[at].kind() }
    }

    /// The argument, a text.
    pub(super) fn text(&self, at: usize) -> Result<&'c str, Cause> {
        text(self.name, &self.args[at])
    }

    /// The argument, a whole number.
    pub(super) fn int(&self, at: usize) -> Result<i64, Cause> {
        if let Value::Int(number) = self.args[at] { Ok(number) } else { Err(self.mismatch(at, "int")) }
    }

    fn time(&self, at: usize) -> Result<&'c Time, Cause> {
        let args: &'c [Value<'r>] = self.args;
        if let Value::Time(time) = &args[at] { Ok(time) } else { Err(self.mismatch(at, "time")) }
    }

    /// The argument is none of what the function takes.
    pub(super) fn refuse(&self, at: usize, wanted: &'static str) -> Cause {
        let mut text = Output::default();
        let written = self.args[at].write_inner(&mut text);
        let text = if written.is_ok() { text.0.chars().take(64).collect() } else { String::new() };
        Cause::Value { name: self.name, wanted, text }
    }
}

/// The text that a function is given.
pub(super) fn text<'v>(name: &'static str, value: &'v Value<'_>) -> Result<&'v str, Cause> {
    if let Value::Text(text) = value {
        Ok(text)
    } else {
        Err(Cause::Type { name, wanted: "string", found: value.kind() })
    }
}

/// A function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// How many arguments it takes at least.
    pub(super) least: usize,
    /// And at most.
    pub(super) most: usize,
    pub(super) run: for<'c, 'r> fn(&mut Call<'c, 'r>) -> Result<Value<'r>, Cause>,
}

impl Function {
    /// How many arguments it takes, as errors say it.
    pub(super) fn wanted(&self) -> String {
        match (self.least, self.most) {
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) if least == most => most.to_string(),
            (least, most) => format!("{least} to {most}"),
        }
    }
}

/// The function of a name.
pub(super) fn named(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const ANY: usize = usize::MAX;

macro_rules! functions {
    ($($name:literal $least:literal $most:tt $run:path,)*) => {
        /// All of them.
        pub(super) static FUNCTIONS: &[Function] =
            &[$(Function { name: $name, least: $least, most: $most, run: $run }),*];
    };
}

functions! {
    // Of Go's templates.
    "eq" 2 ANY eq,
    "ne" 2 2 ne,
    "lt" 2 2 lt,
    "le" 2 2 le,
    "gt" 2 2 gt,
    "ge" 2 2 ge,
    "not" 1 1 not,
    "len" 1 1 len,
    "index" 1 ANY index,
    "slice" 1 3 slice,
    "print" 0 ANY printf::print,
    "printf" 1 ANY printf::printf,
    "println" 0 ANY printf::println,
    "html" 1 1 strings::html,
    "js" 1 1 strings::js,
    "urlquery" 1 1 strings::urlencode,
    // Texts.
    "alignLeft" 2 2 strings::align_left,
    "alignRight" 2 2 strings::align_right,
    "b64dec" 1 1 strings::b64dec,
    "b64enc" 1 1 strings::b64enc,
    "bytes" 1 1 bytes,
    "contains" 2 2 strings::contains,
    "default" 1 2 default,
    "fromJson" 1 1 parse_json,
    "hasPrefix" 2 2 strings::has_prefix,
    "hasSuffix" 2 2 strings::has_suffix,
    "indent" 2 2 strings::indent,
    "lower" 1 1 strings::lower,
    "nindent" 2 2 strings::nindent,
    "repeat" 2 2 strings::repeat,
    "replace" 3 3 strings::replace,
    "substr" 3 3 strings::substr,
    "title" 1 1 strings::title,
    "trim" 1 1 strings::trim,
    "trimAll" 2 2 strings::trim_all,
    "trimPrefix" 2 2 strings::trim_prefix,
    "trimSuffix" 2 2 strings::trim_suffix,
    "trunc" 2 2 strings::trunc,
    "upper" 1 1 strings::upper,
    "urldecode" 1 1 strings::urldecode,
    "urlencode" 1 1 strings::urlencode,
    // Numbers.
    "add" 1 ANY number::add,
    "addf" 1 ANY number::addf,
    "ceil" 1 1 number::ceil,
    "div" 2 2 number::div,
    "divf" 1 ANY number::divf,
    "float64" 1 1 number::float64,
    "floor" 1 1 number::floor,
    "int" 1 1 number::int,
    "max" 1 ANY number::max,
    "maxf" 1 ANY number::maxf,
    "min" 1 ANY number::min,
    "minf" 1 ANY number::minf,
    "mod" 2 2 number::modulo,
    "mul" 1 ANY number::mul,
    "mulf" 1 ANY number::mulf,
    "round" 2 3 number::round,
    "sub" 2 2 number::sub,
    "subf" 1 ANY number::subf,
    // Times.
    "date" 2 2 date,
    "duration" 1 1 duration,
    "duration_seconds" 1 1 duration,
    "toDate" 2 2 to_date,
    "toDateInZone" 3 3 to_date_in_zone,
    "unixEpoch" 1 1 unix_epoch,
    "unixEpochMillis" 1 1 unix_epoch_millis,
    "unixEpochNanos" 1 1 unix_epoch_nanos,
    "unixToTime" 1 1 unix_to_time,
}

/// Whether two values are the same; `None`: nothing compares them.
fn same(left: &Value<'_>, right: &Value<'_>) -> Option<bool> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left == right),
        (Value::Int(left), Value::Int(right)) => Some(left == right),
        (Value::Float(left), Value::Float(right)) => Some(left == right),
        (Value::Text(left), Value::Text(right)) => Some(left == right),
        (Value::Time(left), Value::Time(right)) => Some(left == right),
        (Value::Nil, Value::Nil) => Some(true),
        (Value::Nil, _) | (_, Value::Nil) => Some(false),
        _ => None,
    }
}

fn before(left: &Value<'_>, right: &Value<'_>) -> Option<bool> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left < right),
        (Value::Float(left), Value::Float(right)) => Some(left < right),
        (Value::Text(left), Value::Text(right)) => Some(left < right),
        _ => None,
    }
}

fn compared<'r>(
    call: &Call<'_, 'r>,
    compare: fn(&Value<'_>, &Value<'_>) -> Option<bool>,
    at: (usize, usize),
) -> Result<bool, Cause> {
    let (left, right) = (&call.args[at.0], &call.args[at.1]);
    compare(left, right).ok_or(Cause::Incomparable { name: call.name, left: left.kind(), right: right.kind() })
}

/// Whether the first is one of the others.
fn eq<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    for at in 1..call.args.len() {
        if compared(call, same, (0, at))? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ne<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    compared(call, same, (0, 1)).map(|same| Value::Bool(!same))
}

fn lt<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    compared(call, before, (0, 1)).map(Value::Bool)
}

fn le<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(compared(call, before, (0, 1))? || compared(call, same, (0, 1))?))
}

fn gt<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    compared(call, before, (1, 0)).map(Value::Bool)
}

fn ge<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(compared(call, before, (1, 0))? || compared(call, same, (1, 0))?))
}

fn not<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(!call.args[0].is_true()))
}

/// Bytes of a text, parts of a list or object.
fn len<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let length = match &call.args[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Time(_) | Value::Labels => {
            return Err(call.mismatch(0, "string, list or map"));
        }
    };
    Ok(Value::Int(length as i64))
}

/// A place of a list, text or object, and of what stands there in turn.
fn index<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut found = call.args[0].clone();
    for at in 1..call.args.len() {
        let place = |length: usize| {
            let index = call.int(at)?;
            let place = usize::try_from(index).ok().filter(|place| *place < length);
            place.ok_or(Cause::Index { name: call.name, index, length })
        };
        found = match &found {
            Value::List(list) => list[place(list.len())?].clone(),
            Value::Text(text) => Value::Int(i64::from(text.as_bytes()[place(text.len())?])),
            Value::Map(map) => map.get(call.text(at)?).cloned().unwrap_or(Value::Nil),
            Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Time(_) | Value::Labels => {
                return Err(Cause::Type { name: call.name, wanted: "list, string or map", found: found.kind() });
            }
        };
    }
    Ok(found)
}

/// A part of a text or list from one place to before another.
fn slice<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let length = match &call.args[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Time(_)
        | Value::Map(_)
        | Value::Labels => return Err(call.mismatch(0, "string or list")),
    };
    let bound = |at: usize, absent: usize| {
        if at >= call.args.len() {
            return Ok(absent);
        }
        let index = call.int(at)?;
        let place = usize::try_from(index).ok().filter(|place| *place <= length);
        place.ok_or(Cause::Index { name: call.name, index, length })
    };
    let (from, to) = (bound(1, 0)?, bound(2, length)?);
    if from > to {
        return Err(Cause::Index { name: call.name, index: from as i64, length: to });
    }
    if let Value::List(list) = &call.args[0] {
        call.work.spend((to - from).saturating_mul(Work::STEP))?;
        return Ok(Value::List(list[from..to].to_vec().into()));
    }
    // Where a character is cut in two, its halves are replaced.
    Ok(Value::text(String::from_utf8_lossy(&call.text(0)?.as_bytes()[from..to]).into_owned()))
}

/// Another value where the last is empty.
fn default<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let given = call.args.last().filter(|given| call.args.len() > 1 && given.is_true());
    Ok(given.unwrap_or(&call.args[0]).clone())
}

fn parse_json<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let document = call.text(0)?;
    call.work.spend(document.len() * 16)?;
    Ok(from_json(document).unwrap_or(Value::Text(Cow::Borrowed(""))))
}

fn bytes<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let found = quantity::bytes(call.text(0)?).ok_or_else(|| call.refuse(0, "quantity of bytes"))?;
    Ok(Value::Float(found as f64))
}

fn duration<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let found = quantity::nanoseconds(call.text(0)?).ok_or_else(|| call.refuse(0, "duration"))?;
    Ok(Value::Float(found as f64 / 1e9))
}

/// A time as a layout says; a whole number is seconds since the Unix epoch.
fn date<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let layout = call.text(0)?;
    call.work.spend(layout.len() * 64)?;
    let of_seconds;
    let time = if let Value::Int(seconds) = call.args[1] {
        of_seconds = Time::utc(seconds, 0);
        &of_seconds
    } else {
        call.time(1)?
    };
    Ok(Value::text(time.format(layout)))
}

fn read_date<'r>(call: &mut Call<'_, 'r>, text: usize) -> Result<Value<'r>, Cause> {
    let layout = call.text(0)?;
    call.work.spend(layout.len() * 64)?;
    Ok(Value::Time(Time::parse(layout, call.text(text)?).unwrap_or_else(Time::zero)))
}

fn to_date<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    read_date(call, 1)
}

fn to_date_in_zone<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    if !matches!(call.text(1)?, "" | "UTC" | "Local") {
        return Err(call.refuse(1, "time zone that is known here: UTC or Local, which is UTC"));
    }
    read_date(call, 2)
}

fn unix_epoch<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::text(call.time(0)?.seconds.to_string()))
}

fn unix_epoch_millis<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::text(call.time(0)?.count(1_000).to_string()))
}

fn unix_epoch_nanos<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::text(call.time(0)?.count(1_000_000_000).to_string()))
}

/// The number of digits tells days, seconds, milliseconds, microseconds and nanoseconds apart.
fn unix_to_time<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let text = call.text(0)?;
    let number = text.parse::<i64>().ok();
    let time = number.and_then(|number| match text.len() {
        5 => Some(Time::utc(number * 86_400, 0)),
        10 => Some(Time::utc(number, 0)),
        13 => Some(Time::from_nanos(number * 1_000_000)),
        16 => Some(Time::from_nanos(number * 1_000)),
        19 => Some(Time::from_nanos(number)),
        _ => None,
    });
    time.map(Value::Time).ok_or_else(|| call.refuse(0, "time since the Unix epoch of 5, 10, 13, 16 or 19 digits"))
}
