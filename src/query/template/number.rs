//! Numbers as Go reads and writes them, and arithmetic on whatever a template takes for a number.
//!
//! Floating sums, differences, products and quotients are made in decimal, as Loki makes them: 0.1 and 0.2 are 0.3.

use super::error::Cause;
use super::functions::Call;
use super::lexer::Token;
use super::value::Value;

/// A number of a template's text: whole ones are integers, those with a point or an exponent floating.
pub(super) fn literal(word: &str) -> Option<Token> {
    let plain = word.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    if plain.len() - digits.len() > 1 || word.ends_with('_') {
        return None;
    }
    if let Some(found) = integer(&plain, true) {
        return Some(Token::Int(found));
    }
    let known = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    // Whole digits past the range of integers are refused rather than rounded.
    let floating = digits.contains(['.', 'e', 'E']);
    let found = plain.parse::<f64>().ok().filter(|found| known && floating && found.is_finite())?;
    Some(Token::Float(found))
}

/// A whole number: decimal, or after `0x`, `0o`, `0b` in that base; after a mere `0` in base 8 where `octal`.
fn integer(text: &str, octal: bool) -> Option<i64> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(start) if octal && start.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (8, digits)
        }
        Some(_) | None => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let found = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -found } else { found }).ok()
}

/// As `%g` writes it, or with `precision` digits.
pub(super) fn general(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return special(value).to_owned();
    }
    let scientific = match precision {
        None => format!("{value:e}"),
        Some(precision) => format!("{value:.*e}", precision.max(1) - 1),
    };
    let (digits, exponent) = scientific.split_once('e').expect("Rust writes an exponent");
    let exponent: i32 = exponent.parse().expect("Rust writes a decimal exponent");
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    let count = digits.bytes().filter(u8::is_ascii_digit).count() as i32;
    // Six where the shortest digits are asked for: a million is 1e+06.
    let limit = precision.map_or(6, |precision| precision.max(1) as i32);
    if exponent < -4 || exponent >= limit {
        return format!("{digits}{}", exponent_of(exponent));
    }
    let decimals = (count - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

/// As `%e` writes it.
pub(super) fn scientific(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return special(value).to_owned();
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').expect("Rust writes an exponent");
    format!("{digits}{}", exponent_of(exponent.parse().expect("Rust writes a decimal exponent")))
}

/// As `%f` writes it.
pub(super) fn fixed(value: f64, precision: usize) -> String {
    if value.is_finite() { format!("{value:.precision$}") } else { special(value).to_owned() }
}

fn special(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

fn exponent_of(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// What a function that takes any number makes of a value: a text that is no whole number is 0, and so is the rest.
pub(super) fn to_int(value: &Value<'_>) -> i64 {
    match value {
        Value::Int(value) => *value,
        Value::Float(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => {
            let whole = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|byte| byte == b'0'));
            integer(whole.map_or(text.as_ref(), |(whole, _)| whole), false).unwrap_or(0)
        }
        Value::Nil | Value::Time(_) | Value::List(_) | Value::Map(_) | Value::Labels => 0,
    }
}

/// As `to_int`, floating.
pub(super) fn to_float(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Text(text) => text.parse().unwrap_or(0.0),
        Value::Nil | Value::Time(_) | Value::List(_) | Value::Map(_) | Value::Labels => 0.0,
    }
}

fn ints(call: &Call<'_, '_>, mut join: impl FnMut(i64, i64) -> Option<i64>) -> Result<i64, Cause> {
    let mut numbers = call.args.iter().map(to_int);
    let first = numbers.next().unwrap_or(0);
    numbers.try_fold(first, |left, right| join(left, right).ok_or(Cause::DivisionByZero(call.name)))
}

fn floats(call: &Call<'_, '_>, mut join: impl FnMut(f64, f64) -> Option<f64>) -> Result<f64, Cause> {
    let mut numbers = call.args.iter().map(to_float);
    let first = numbers.next().unwrap_or(0.0);
    numbers.try_fold(first, |left, right| join(left, right).ok_or(Cause::DivisionByZero(call.name)))
}

pub(super) fn add<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| Some(left.wrapping_add(right))).map(Value::Int)
}

pub(super) fn sub<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| Some(left.wrapping_sub(right))).map(Value::Int)
}

pub(super) fn mul<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| Some(left.wrapping_mul(right))).map(Value::Int)
}

pub(super) fn div<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| (right != 0).then(|| left.wrapping_div(right))).map(Value::Int)
}

pub(super) fn modulo<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| (right != 0).then(|| left.wrapping_rem(right))).map(Value::Int)
}

pub(super) fn max<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| Some(left.max(right))).map(Value::Int)
}

pub(super) fn min<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    ints(call, |left, right| Some(left.min(right))).map(Value::Int)
}

pub(super) fn maxf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| Some(if left.is_nan() { left } else { left.max(right) })).map(Value::Float)
}

pub(super) fn minf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| Some(if left.is_nan() { left } else { left.min(right) })).map(Value::Float)
}

pub(super) fn addf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| Some(decimal(left, right, Decimal::add).unwrap_or(left + right))).map(Value::Float)
}

pub(super) fn subf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| Some(decimal(left, -right, Decimal::add).unwrap_or(left - right))).map(Value::Float)
}

pub(super) fn mulf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| Some(decimal(left, right, Decimal::mul).unwrap_or(left * right))).map(Value::Float)
}

pub(super) fn divf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    floats(call, |left, right| (right != 0.0).then(|| decimal(left, right, Decimal::div).unwrap_or(left / right)))
        .map(Value::Float)
}

pub(super) fn ceil<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Float(to_float(&call.args[0]).ceil()))
}

pub(super) fn floor<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Float(to_float(&call.args[0]).floor()))
}

pub(super) fn int<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Int(to_int(&call.args[0])))
}

pub(super) fn float64<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Float(to_float(&call.args[0])))
}

/// `round number digits`, and from which remainder on it goes up: `.5` where none is given.
pub(super) fn round<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (number, digits) = (to_float(&call.args[0]), call.int(1)?);
    let from = call.args.get(2).map_or(0.5, to_float);
    let scale = 10_f64.powi(digits.clamp(-400, 400) as i32);
    let scaled = (number * scale).abs();
    let whole = scaled.trunc();
    let up = if scaled - whole >= from { 1.0 } else { 0.0 };
    let rounded = (whole + up) / scale;
    // Past the precision of the number nothing is left to round.
    let found = if rounded.is_finite() { rounded.copysign(number) } else { number };
    Ok(Value::Float(if found == 0.0 { 0.0 } else { found }))
}

/// `coefficient` times ten to the power of `exponent`.
#[derive(Clone, Copy)]
struct Decimal {
    coefficient: i128,
    exponent: i32,
}

/// Two numbers joined in decimal; `None` where that leaves the range of decimals.
fn decimal(left: f64, right: f64, join: fn(Decimal, Decimal) -> Option<Decimal>) -> Option<f64> {
    let joined = join(Decimal::new(left)?, Decimal::new(right)?)?;
    format!("{}e{}", joined.coefficient, joined.exponent).parse().ok()
}

impl Decimal {
    /// The shortest decimal that is this number.
    fn new(value: f64) -> Option<Self> {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e')?;
        let exponent: i32 = exponent.parse().ok()?;
        let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        Some(Self { coefficient: digits.replace('.', "").parse().ok()?, exponent: exponent - decimals as i32 })
    }

    fn at(self, exponent: i32) -> Option<i128> {
        let shift = u32::try_from(self.exponent - exponent).ok()?;
        self.coefficient.checked_mul(10_i128.checked_pow(shift)?)
    }

    fn add(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        Some(Self { coefficient: self.at(exponent)?.checked_add(other.at(exponent)?)?, exponent })
    }

    fn mul(self, other: Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        Some(Self { coefficient, exponent: self.exponent + other.exponent })
    }

    /// To sixteen decimals, halves away from zero.
    fn div(self, other: Self) -> Option<Self> {
        const DECIMALS: i32 = 16;
        let dividend = self.at(other.exponent.checked_sub(DECIMALS)?)?;
        let (quotient, rest) = (dividend / other.coefficient, dividend % other.coefficient);
        let up = rest.unsigned_abs() * 2 >= other.coefficient.unsigned_abs();
        let sign = dividend.signum() * other.coefficient.signum();
        Some(Self { coefficient: quotient + if up { sign } else { 0 }, exponent: -DECIMALS })
    }
}
