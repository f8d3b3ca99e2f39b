//! `print`, `println` and `printf` as Go's `fmt` writes them. What does not fit its verb is written as an error in the
//! text, as there: `%!d(string=x)`.

use super::error::Cause;
use super::functions::Call;
use super::number;
use super::value::{Output, Value};

/// `print`: a blank between two values where neither is a text.
pub(super) fn print<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut out = Output::default();
    for (at, value) in call.args.iter().enumerate() {
        let texts = |at: usize| matches!(call.args[at], Value::Text(_));
        if at > 0 && !texts(at - 1) && !texts(at) {
            out.push(" ")?;
        }
        value.write_inner(&mut out)?;
    }
    Ok(Value::text(out.0))
}

/// `println`: a blank between all values, and a line break.
pub(super) fn println<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut out = Output::default();
    for (at, value) in call.args.iter().enumerate() {
        out.push(if at > 0 { " " } else { "" })?;
        value.write_inner(&mut out)?;
    }
    out.push("\n")?;
    Ok(Value::text(out.0))
}

/// What stands between the `%` and its verb.
#[derive(Clone, Copy, Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    blank: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'c, 'r> {
    values: &'c [Value<'r>],
    next: usize,
    /// Whether the format chose values by their place: then none of them counts as left over.
    chosen: bool,
    out: Output,
}

/// `printf format values..`
pub(super) fn printf<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut printer = Printer { values: &call.args[1..], next: 0, chosen: false, out: Output::default() };
    let mut rest = call.text(0)?;
    while let Some(start) = rest.find('%') {
        printer.out.push(&rest[..start])?;
        rest = printer.verb(&rest[start + 1..])?;
    }
    printer.out.push(rest)?;
    printer.left_over()?;
    Ok(Value::text(printer.out.0))
}

impl<'c, 'r> Printer<'c, 'r> {
    fn left_over(&mut self) -> Result<(), Cause> {
        let left = self.values.get(self.next..).unwrap_or_default();
        if self.chosen || left.is_empty() {
            return Ok(());
        }
        self.out.push("%!(EXTRA ")?;
        for (at, value) in left.iter().enumerate() {
            self.out.push(if at > 0 { ", " } else { "" })?;
            self.typed(value)?;
        }
        self.out.push(")")
    }

    /// A value with its type, in an error.
    fn typed(&mut self, value: &Value<'_>) -> Result<(), Cause> {
        if *value != Value::Nil {
            self.out.push(value.kind())?;
            self.out.push("=")?;
        }
        value.write_inner(&mut self.out)
    }

    fn take(&mut self) -> Option<&'c Value<'r>> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        Some(value)
    }

    /// `[3]`: the next value is the third. What follows it, and whether there is such a value.
    fn choose<'t>(&mut self, text: &'t str) -> (&'t str, bool) {
        let Some((inner, after)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
            return (text, true);
        };
        self.chosen = true;
        match inner.parse::<usize>().ok().filter(|place| (1..=self.values.len()).contains(place)) {
            Some(place) => self.next = place - 1,
            None => return (after, false),
        }
        (after, true)
    }

    /// A width or precision: digits, or `*` for the next value. `Err`: the value is no such number.
    fn count<'t>(&mut self, text: &'t str) -> (&'t str, Result<Option<i64>, ()>) {
        if let Some(after) = text.strip_prefix('*') {
            let count = match self.take() {
                Some(Value::Int(count)) if count.unsigned_abs() <= 1_000_000 => Ok(Some(*count)),
                Some(_) | None => Err(()),
            };
            return (after, count);
        }
        let length = text.bytes().take_while(u8::is_ascii_digit).count();
        let count = if length == 0 { Ok(None) } else { text[..length].parse().map(Some).map_err(|_| ()) };
        (&text[length..], count)
    }

    /// One verb from behind its `%`, and what follows it.
    fn verb<'t>(&mut self, text: &'t str) -> Result<&'t str, Cause> {
        let mut flags = Flags::default();
        let length = text.find(|c: char| !matches!(c, '-' | '+' | '#' | ' ' | '0')).unwrap_or(text.len());
        for c in text[..length].chars() {
            match c {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.blank = true,
                _ => flags.zero = true,
            }
        }
        let (rest, mut known) = self.choose(&text[length..]);
        let (mut rest, width) = self.count(rest);
        match width {
            Ok(width) => {
                flags.minus |= width.is_some_and(|width| width < 0);
                flags.width = width.map(|width| width.unsigned_abs() as usize);
            }
            Err(()) => self.out.push("%!(BADWIDTH)")?,
        }
        if let Some(after) = rest.strip_prefix('.') {
            let (after, more) = self.choose(after);
            known &= more;
            let (after, precision) = self.count(after);
            match precision {
                Ok(precision) => flags.precision = usize::try_from(precision.unwrap_or(0)).ok(),
                Err(()) => self.out.push("%!(BADPREC)")?,
            }
            rest = after;
        }
        let (rest, more) = self.choose(rest);
        let Some(verb) = rest.chars().next() else {
            self.out.push("%!(NOVERB)")?;
            return Ok(rest);
        };
        let after = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push("%")?;
        } else if !(known && more) {
            self.out.push_display(format_args!("%!{verb}(BADINDEX)"))?;
        } else {
            match self.take() {
                Some(value) => self.value(verb, flags, value)?,
                None => self.out.push_display(format_args!("%!{verb}(MISSING)"))?,
            }
        }
        Ok(after)
    }

    fn value(&mut self, verb: char, flags: Flags, value: &Value<'_>) -> Result<(), Cause> {
        match (value, verb) {
            (_, 'T') => self.pad(value.kind(), flags),
            (Value::Bool(on), 't' | 'v') => self.pad(if *on { "true" } else { "false" }, flags),
            (Value::Int(number), 'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X') => self.int(verb, flags, *number),
            (Value::Int(number), 'c' | 'q' | 'U') => {
                let c = u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                let text = match verb {
                    'c' => c.to_string(),
                    'q' => quoted(&c.to_string(), '\''),
                    _ => format!("U+{number:04X}"),
                };
                self.pad(&text, flags)
            }
            (Value::Float(number), 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F') => self.float(verb, flags, *number),
            (Value::Text(text), 's' | 'v' | 'q' | 'x' | 'X') => self.text(verb, flags, text),
            (Value::Time(_) | Value::List(_) | Value::Map(_) | Value::Labels, 's' | 'v') | (Value::Nil, 'v') => {
                let mut inner = Output::default();
                value.write_inner(&mut inner)?;
                self.pad(&inner.0, flags)
            }
            _ => {
                self.out.push_display(format_args!("%!{verb}("))?;
                self.typed(value)?;
                self.out.push(")")
            }
        }
    }

    fn pad(&mut self, text: &str, flags: Flags) -> Result<(), Cause> {
        let blanks = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        if flags.minus {
            self.out.push(text)?;
            return self.out.push_times(" ", blanks);
        }
        self.out.push_times(if flags.zero { "0" } else { " " }, blanks)?;
        self.out.push(text)
    }

    /// A number: zeros stand between its sign and its digits.
    fn number(&mut self, negative: bool, digits: &str, flags: Flags, zeros: bool) -> Result<(), Cause> {
        let sign = match (negative, flags.plus, flags.blank) {
            (true, _, _) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        };
        if !(zeros && flags.zero && !flags.minus) {
            return self.pad(&format!("{sign}{digits}"), Flags { zero: false, ..flags });
        }
        self.out.push(sign)?;
        self.out.push_times("0", flags.width.unwrap_or(0).saturating_sub(sign.len() + digits.len()))?;
        self.out.push(digits)
    }

    fn int(&mut self, verb: char, flags: Flags, number: i64) -> Result<(), Cause> {
        let size = number.unsigned_abs();
        let (prefix, digits) = match verb {
            'b' => (if flags.sharp { "0b" } else { "" }, format!("{size:b}")),
            'o' => (if flags.sharp { "0" } else { "" }, format!("{size:o}")),
            'O' => ("0o", format!("{size:o}")),
            'x' => (if flags.sharp { "0x" } else { "" }, format!("{size:x}")),
            'X' => (if flags.sharp { "0X" } else { "" }, format!("{size:X}")),
            _ => ("", size.to_string()),
        };
        let digits = if flags.precision == Some(0) && size == 0 { String::new() } else { digits };
        let zeros = flags.precision.unwrap_or(0).saturating_sub(digits.len());
        self.out.reserve(zeros)?;
        let digits = format!("{prefix}{}{digits}", "0".repeat(zeros));
        self.number(number < 0, &digits, flags, flags.precision.is_none())
    }

    fn float(&mut self, verb: char, flags: Flags, number: f64) -> Result<(), Cause> {
        // The longest of all has 1074 decimals.
        let precision = flags.precision.map(|precision| precision.min(1_100));
        let size = number.abs();
        let text = match verb {
            'e' | 'E' => number::scientific(size, precision.unwrap_or(6)),
            'f' | 'F' => number::fixed(size, precision.unwrap_or(6)),
            _ => number::general(size, precision),
        };
        let text = if verb.is_ascii_uppercase() && number.is_finite() { text.to_uppercase() } else { text };
        let flags = Flags { plus: flags.plus && !number.is_nan(), ..flags };
        self.number(
            number.is_sign_negative() && !number.is_nan(),
            text.trim_start_matches('+'),
            flags,
            number.is_finite(),
        )
    }

    fn text(&mut self, verb: char, flags: Flags, text: &str) -> Result<(), Cause> {
        let end =
            flags.precision.and_then(|precision| text.char_indices().nth(precision)).map_or(text.len(), |(at, _)| at);
        let text = &text[..end];
        match verb {
            'q' => self.pad(&quoted(text, '"'), flags),
            'x' | 'X' => {
                let mut hex = Output::default();
                for (at, byte) in text.bytes().enumerate() {
                    hex.push(if at > 0 && flags.blank { " " } else { "" })?;
                    let digits = if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
                    hex.push(&digits)?;
                }
                self.pad(&hex.0, flags)
            }
            _ => self.pad(text, flags),
        }
    }
}

/// As Go writes a text in its own language.
fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c == quote => out.extend(['\\', quote]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
