//! Functions from text to text. Places and lengths are counted in characters.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::error::Cause;
use super::functions::Call;
use super::value::{Output, Value};

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Where a character begins; the end of the text where it has fewer.
fn offset(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

/// A number of characters or times; below zero it means nothing.
fn count(call: &Call<'_, '_>, at: usize) -> Result<usize, Cause> {
    usize::try_from(call.int(at)?).map_err(|_| call.refuse(at, "number from zero"))
}

pub(super) fn align_left<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (width, text) = (count(call, 0)?, call.text(1)?);
    let mut out = Output::default();
    out.push(&text[..offset(text, width)])?;
    out.push_times(" ", width.saturating_sub(chars(text)))?;
    Ok(Value::text(out.0))
}

pub(super) fn align_right<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (width, text) = (count(call, 0)?, call.text(1)?);
    let length = chars(text);
    let mut out = Output::default();
    out.push_times(" ", width.saturating_sub(length))?;
    out.push(&text[offset(text, length.saturating_sub(width))..])?;
    Ok(Value::text(out.0))
}

/// So many characters from the start, or below zero from the end.
pub(super) fn trunc<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (count, text) = (call.int(0)?, call.text(1)?);
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let part =
        if count < 0 { &text[offset(text, chars(text).saturating_sub(size))..] } else { &text[..offset(text, size)] };
    Ok(Value::text(part.to_owned()))
}

/// From a character to before another; a start below zero is the start, an end below zero or past the text its end.
pub(super) fn substr<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (start, end, text) = (call.int(0)?, call.int(1)?, call.text(2)?);
    let from = usize::try_from(start).map_or(0, |start| offset(text, start));
    let to = usize::try_from(end).map_or(text.len(), |end| offset(text, end));
    Ok(Value::text(text.get(from..to).unwrap_or_default().to_owned()))
}

pub(super) fn indent<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    indented(call, "")
}

pub(super) fn nindent<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    indented(call, "\n")
}

fn indented<'r>(call: &mut Call<'_, 'r>, before: &str) -> Result<Value<'r>, Cause> {
    let (width, text) = (count(call, 0)?, call.text(1)?);
    let mut out = Output::default();
    out.push(before)?;
    for (at, line) in text.split('\n').enumerate() {
        out.push(if at > 0 { "\n" } else { "" })?;
        out.push_times(" ", width)?;
        out.push(line)?;
    }
    Ok(Value::text(out.0))
}

pub(super) fn repeat<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut out = Output::default();
    let (times, text) = (count(call, 0)?, call.text(1)?);
    out.push_times(text, if text.is_empty() { 0 } else { times })?;
    Ok(Value::text(out.0))
}

pub(super) fn replace<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (old, new, text) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let mut out = Output::default();
    let mut last = 0;
    for (at, old) in text.match_indices(old) {
        out.push(&text[last..at])?;
        out.push(new)?;
        last = at + old.len();
    }
    out.push(&text[last..])?;
    Ok(Value::text(out.0))
}

pub(super) fn trim<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::text(call.text(0)?.trim().to_owned()))
}

/// Without the given characters at both ends.
pub(super) fn trim_all<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (unwanted, text) = (call.text(0)?, call.text(1)?);
    let unwanted: BTreeSet<char> = unwanted.chars().collect();
    Ok(Value::text(text.trim_matches(|c: char| unwanted.contains(&c)).to_owned()))
}

pub(super) fn trim_prefix<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (prefix, text) = (call.text(0)?, call.text(1)?);
    Ok(Value::text(text.strip_prefix(prefix).unwrap_or(text).to_owned()))
}

pub(super) fn trim_suffix<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let (suffix, text) = (call.text(0)?, call.text(1)?);
    Ok(Value::text(text.strip_suffix(suffix).unwrap_or(text).to_owned()))
}

pub(super) fn contains<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(call.text(1)?.contains(call.text(0)?)))
}

pub(super) fn has_prefix<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(call.text(1)?.starts_with(call.text(0)?)))
}

pub(super) fn has_suffix<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    Ok(Value::Bool(call.text(1)?.ends_with(call.text(0)?)))
}

/// Characters whose other case is more than one character stay, as in Go.
fn cased<I: Iterator<Item = char>>(c: char, mut other: I) -> char {
    match (other.next(), other.next()) {
        (Some(other), None) => other,
        _ => c,
    }
}

pub(super) fn lower<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let text = call.text(0)?;
    let ascii = text.is_ascii().then(|| text.to_ascii_lowercase());
    Ok(Value::text(ascii.unwrap_or_else(|| text.chars().map(|c| cased(c, c.to_lowercase())).collect())))
}

pub(super) fn upper<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let text = call.text(0)?;
    let ascii = text.is_ascii().then(|| text.to_ascii_uppercase());
    Ok(Value::text(ascii.unwrap_or_else(|| text.chars().map(|c| cased(c, c.to_uppercase())).collect())))
}

/// The first letter of each word large.
pub(super) fn title<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let mut inside = false;
    let letter = |c: char| {
        let large = if inside { c } else { cased(c, c.to_uppercase()) };
        inside = c.is_alphanumeric() || c == '_' || (!c.is_ascii() && !c.is_whitespace());
        large
    };
    Ok(Value::text(call.text(0)?.chars().map(letter).collect::<String>()))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn b64enc<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let text = call.text(0)?;
    let mut out = String::with_capacity(text.len().div_ceil(3) * 4);
    for three in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let c = BASE64[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at > three.len() { '=' } else { char::from(c) });
        }
    }
    Ok(Value::text(out))
}

/// Bytes that are no UTF-8 are replaced, for a line is text.
pub(super) fn b64dec<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let bytes = decoded(call.text(0)?).ok_or_else(|| call.refuse(0, "base64"))?;
    Ok(Value::text(String::from_utf8_lossy(&bytes).into_owned()))
}

fn base64_digit(byte: u8) -> Option<u32> {
    let (first, value) = match byte {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(byte - first) + value)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for four in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            bits = bits << 6 | four.get(at).map_or(Some(0), |byte| base64_digit(*byte))?;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

pub(super) fn urldecode<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    let text = call.text(0)?.as_bytes();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let byte = match text[at] {
            b'+' => b' ',
            b'%' => {
                let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                    return Err(call.refuse(0, "URL encoding"));
                };
                at += 2;
                (high * 16 + low) as u8
            }
            byte => byte,
        };
        bytes.push(byte);
        at += 1;
    }
    Ok(Value::text(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A text with some of its characters written otherwise.
fn escaped<'r>(call: &Call<'_, 'r>, escape: fn(char) -> Option<Cow<'static, str>>) -> Result<Value<'r>, Cause> {
    let mut text = Output::default();
    call.args[0].write_inner(&mut text)?;
    let mut out = Output::default();
    for c in text.0.chars() {
        match escape(c) {
            Some(escape) => out.push(&escape)?,
            None => out.push(c.encode_utf8(&mut [0; 4]))?,
        }
    }
    Ok(Value::text(out.0))
}

pub(super) fn html<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    escaped(call, |c| match c {
        '\0' => Some("\u{FFFD}".into()),
        '"' => Some("&#34;".into()),
        '\'' => Some("&#39;".into()),
        '&' => Some("&amp;".into()),
        '<' => Some("&lt;".into()),
        '>' => Some("&gt;".into()),
        _ => None,
    })
}

pub(super) fn js<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    escaped(call, |c| match c {
        '\\' => Some("\\\\".into()),
        '\'' => Some("\\'".into()),
        '"' => Some("\\\"".into()),
        '<' | '>' | '&' | '=' => Some(format!("\\u{:04X}", u32::from(c)).into()),
        c if c.is_control() => Some(format!("\\u{:04X}", u32::from(c)).into()),
        _ => None,
    })
}

/// As a query of a URL writes it.
pub(super) fn urlencode<'r>(call: &mut Call<'_, 'r>) -> Result<Value<'r>, Cause> {
    escaped(call, |c| match c {
        ' ' => Some("+".into()),
        '-' | '_' | '.' | '~' => None,
        c if c.is_ascii_alphanumeric() => None,
        c => Some(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()),
    })
}
