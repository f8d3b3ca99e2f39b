//! What is written as text: numbers, durations, bytes and addresses, regular expressions and patterns with captures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use regex::Regex;

thread_local! {
    /// What was compiled before: a query asks for the same again with every record.
    static COMPILED: RefCell<BTreeMap<String, Regex>> = const { RefCell::new(BTreeMap::new()) };
}

/// Expressions that are remembered.
const COMPILED_MAX: usize = 500;

/// An expression in RE2's syntax, where Perl classes and word boundaries are ASCII.
pub(super) fn regex(text: &str) -> Regex {
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.entry(text.to_owned()).or_insert_with(|| compile(text)).clone()
    })
}

fn compile(text: &str) -> Regex {
    let mut written = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            written.push(letter);
            continue;
        }
        match letters.next() {
            Some('d') => written.push_str("[0-9]"),
            Some('D') => written.push_str("[^0-9]"),
            Some('w') => written.push_str("[0-9A-Za-z_]"),
            Some('W') => written.push_str("[^0-9A-Za-z_]"),
            Some('s') => written.push_str(r"[\t\n\f\r ]"),
            Some('S') => written.push_str(r"[^\t\n\f\r ]"),
            Some('b') => written.push_str(r"(?-u:\b)"),
            other => written.extend(['\\'].into_iter().chain(other)),
        }
    }
    Regex::new(&written).expect("queries hold sound expressions")
}

/// As `strconv.ParseFloat` reads decimal numbers.
pub(super) fn number(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let spelled = text.to_ascii_lowercase().contains("inf");
    (value.is_finite() || value.is_nan() || spelled).then_some(value)
}

/// Nanoseconds, as `time.ParseDuration` reads them.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum: i128 = 0;
    loop {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let unit = rest[digits..].find(|letter: char| letter.is_ascii_digit() || letter == '.');
        let unit = unit.map_or(&rest[digits..], |length| &rest[digits..digits + length]);
        let nanoseconds: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        sum += format!("0{whole}").parse::<i128>().ok()?.checked_mul(nanoseconds)?;
        let part: f64 = format!("0.{fraction}0").parse().ok()?;
        sum += (part * nanoseconds as f64) as i128;
        rest = &rest[digits + unit.len()..];
        if rest.is_empty() {
            return i64::try_from(sign * sum).ok();
        }
    }
}

/// Bytes as go-humanize reads them: KB is 1,000 and KiB is 1,024, in any case and with a space between or none.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && !".,".contains(letter)).unwrap_or(text.len());
    let value: f64 = text[..end].replace(',', "").parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let (prefix, thousand) = match unit.strip_suffix("ib").or(unit.strip_suffix('i')) {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024_f64),
        _ => (unit.strip_suffix('b').unwrap_or(&unit), 1000.0),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|known| *known == prefix)?;
    let value = value * thousand.powi(i32::try_from(power).expect("one of seven"));
    (value < u64::MAX as f64).then_some(value as u64)
}

/// Whether an address lies in `address`, `first-last` or `network/bits`.
pub(super) fn is_within(range: &str, address: IpAddr) -> bool {
    let parse = |text: &str| text.parse::<IpAddr>().expect("queries hold sound addresses");
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let (value, width) = number(address);
    if let Some((first, last)) = range.split_once('-') {
        let ((first, of), (last, _)) = (number(parse(first)), number(parse(last)));
        return of == width && (first..=last).contains(&value);
    }
    let (base, bits) = range.split_once('/').unwrap_or((range, ""));
    let (base, of) = number(parse(base));
    let bits: u32 = if bits.is_empty() { of } else { bits.parse().expect("a number of bits") };
    let host = of - bits;
    of == width && base.checked_shr(host) == value.checked_shr(host)
}

/// The addresses of a line: runs of letters an address may have that are one as a whole.
pub(super) fn addresses(line: &str) -> Vec<IpAddr> {
    let runs = line.split(|letter: char| !letter.is_ascii_hexdigit() && !".:".contains(letter));
    runs.filter_map(|run| run.trim_end_matches(['.', ':']).parse().ok()).collect()
}

/// A part of a pattern.
enum Part {
    Literal(String),
    /// Its name; `_` has none.
    Capture(Option<String>),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut from = 0;
    for found in regex("<[A-Za-z_][A-Za-z0-9_]*>").find_iter(pattern) {
        if found.start() > from {
            parts.push(Part::Literal(pattern[from..found.start()].to_owned()));
        }
        let name = &pattern[found.start() + 1..found.end() - 1];
        parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
        from = found.end();
    }
    if from < pattern.len() {
        parts.push(Part::Literal(pattern[from..].to_owned()));
    }
    parts
}

/// What a pattern captures, from the beginning of the line on, up to the first capture that is not matched.
pub(super) fn captures(pattern: &str, line: &str) -> Vec<(String, String)> {
    let (mut found, mut rest) = (Vec::new(), line);
    let mut parts = parts(pattern).into_iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Literal(text) => match rest.strip_prefix(text.as_str()) {
                Some(after) => rest = after,
                None => break,
            },
            Part::Capture(name) => {
                let next = match parts.peek() {
                    Some(Part::Literal(next)) => rest.find(next.as_str()),
                    Some(Part::Capture(_)) | None => None,
                };
                // Silent: a capture whose end is missing goes on to the end of the line.
                let (value, after) = rest.split_at(next.unwrap_or(rest.len()));
                found.extend(name.map(|name| (name, value.to_owned())));
                rest = after;
            }
        }
    }
    found
}
