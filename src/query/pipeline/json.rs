//! `| json`: the scalars of a line's object as labels, or the values that lie at given paths. Numbers stay as they are
//! written, and nothing is copied that needs no unescaping.
//!
//! A line is a JSON object as RFC 8259 has it, from its first byte to its last, or nothing is found in it. Of a key that
//! comes twice in an object the first value stands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memchr2;

use super::fields::{Full, label_name, named, push_label_name};
use super::{Broken, Failure, Found, Parser};
use crate::limits::{FIELD_BYTES_PER_RECORD_MAX, FIELDS_PER_RECORD_MAX, JSON_DEPTH_MAX};
use crate::query::ast::Extraction;
use crate::query::error::QueryError;
use crate::query::pattern::refuse_text;

/// What stands at a place of a document.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Unescaped.
    Text(Cow<'a, str>),
    /// A number, `true` or `false`, as it is written.
    Plain(&'a str),
    Null,
    /// An object or array, as it is written.
    Nested(&'a str),
}

/// Reads a document from its beginning to its end.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Whether strings may hold control characters as they are.
    lenient: bool,
}

type Read<T> = Result<T, Broken>;

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, lenient: false }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn expected<T>(&self, what: &str) -> Read<T> {
        let found = match self.text[self.at..].chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_owned(),
        };
        let details = format!("expected {what}, found {found} at byte {}", self.at);
        Err(Broken { failure: Failure::Json, details })
    }

    /// The next byte that is no white space, without taking it.
    fn peek(&mut self) -> Option<u8> {
        let space = self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += space;
        self.rest().first().copied()
    }

    fn take(&mut self, byte: u8, what: &str) -> Read<()> {
        if self.peek() != Some(byte) {
            return self.expected(what);
        }
        self.at += 1;
        Ok(())
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Read<()> {
        if self.peek().is_some() { self.expected("the end of the line") } else { Ok(()) }
    }

    /// One value of any form.
    pub(super) fn value(&mut self) -> Read<Value<'a>> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{') => {
                let start = self.at;
                self.object(&mut |reader, _| reader.value().map(|_| ()))?;
                Ok(Value::Nested(&self.text[start..self.at]))
            }
            Some(b'[') => {
                let start = self.at;
                self.array(&mut |reader, _| reader.value().map(|_| ()))?;
                Ok(Value::Nested(&self.text[start..self.at]))
            }
            Some(b't') => self.word("true").map(Value::Plain),
            Some(b'f') => self.word("false").map(Value::Plain),
            Some(b'n') => self.word("null").map(|_| Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Plain),
            Some(_) | None => self.expected("a value"),
        }
    }

    /// An object; `each` reads the value of each key.
    pub(super) fn object(&mut self, each: &mut dyn FnMut(&mut Self, Cow<'a, str>) -> Read<()>) -> Read<()> {
        self.take(b'{', "an object")?;
        self.deeper()?;
        if self.peek() == Some(b'}') {
            return self.close();
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.expected("a key");
            }
            let key = self.string()?;
            self.take(b':', "\":\"")?;
            each(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.close(),
                Some(_) | None => return self.expected("\",\" or \"}\""),
            }
        }
    }

    /// An array; `each` reads each item, by its position.
    fn array(&mut self, each: &mut dyn FnMut(&mut Self, usize) -> Read<()>) -> Read<()> {
        self.take(b'[', "an array")?;
        self.deeper()?;
        if self.peek() == Some(b']') {
            return self.close();
        }
        for position in 0.. {
            each(self, position)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                Some(_) | None => return self.expected("\",\" or \"]\""),
            }
        }
        self.close()
    }

    fn deeper(&mut self) -> Read<()> {
        self.depth += 1;
        if self.depth > JSON_DEPTH_MAX {
            let details = format!("more than {JSON_DEPTH_MAX} levels of nesting");
            return Err(Broken { failure: Failure::Json, details });
        }
        Ok(())
    }

    fn close(&mut self) -> Read<()> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Read<&'a str> {
        if !self.rest().starts_with(word.as_bytes()) {
            return self.expected("a value");
        }
        let start = self.at;
        self.at += word.len();
        Ok(&self.text[start..self.at])
    }

    fn number(&mut self) -> Read<&'a str> {
        let start = self.at;
        self.skip(b"-");
        match self.rest().first() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Takes one byte where it is one of these.
    fn skip(&mut self, any: &[u8]) -> bool {
        let found = self.rest().first().is_some_and(|byte| any.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn digits(&mut self) -> Read<()> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { self.expected("a digit") } else { Ok(()) }
    }

    /// A string, whose opening quote is next.
    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let mut unescaped: Option<String> = None;
        loop {
            let Some(run) = memchr2(b'"', b'\\', self.rest()) else {
                self.at = self.text.len();
                return self.expected("a closing quote");
            };
            let piece = &self.text[self.at..self.at + run];
            if let Some(control) = piece.bytes().position(|byte| byte < 0x20 && !self.lenient) {
                self.at += control;
                return self.expected("an escaped control character");
            }
            self.at += run;
            let ends = self.rest()[0] == b'"';
            if ends {
                self.at += 1;
                return Ok(match unescaped {
                    None => Cow::Borrowed(piece),
                    Some(text) => Cow::Owned(text + piece),
                });
            }
            let text = unescaped.get_or_insert_default();
            text.push_str(piece);
            text.push(self.escape()?);
        }
    }

    /// An escape sequence, whose backslash is next. Half of a surrogate pair is U+FFFD.
    fn escape(&mut self) -> Read<char> {
        self.at += 1;
        let character = match self.rest().first() {
            Some(b'u') => return self.unicode(),
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(quoted @ (b'"' | b'\\' | b'/')) => char::from(*quoted),
            Some(_) | None => return self.expected("an escape sequence"),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode(&mut self) -> Read<char> {
        self.at += 1;
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) || !self.rest().starts_with(b"\\u") {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        self.at += 2;
        let second = self.hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            self.at = before;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let pair = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        Ok(char::from_u32(pair).expect("a pair of surrogates is a character"))
    }

    fn hex(&mut self) -> Read<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return self.expected("four hexadecimal digits") };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, digit| code * 16 + char::from(*digit).to_digit(16).expect("just checked")))
    }
}

/// What a quoted text stands for; `None` where it holds an escape that JSON does not know.
pub(super) fn unescaped(quoted: &str) -> Option<Cow<'_, str>> {
    Reader { text: quoted, at: 0, depth: 0, lenient: true }.string().ok()
}

/// A key or a position on the way to a value.
#[derive(Debug, PartialEq)]
enum Part {
    Key(String),
    Position(usize),
}

/// `a.b[0]["c d"]`: the way to a value.
#[derive(Debug, PartialEq)]
struct Path(Vec<Part>);

impl Path {
    fn new(text: &str) -> Result<Self, QueryError> {
        let refuse = |why: &str| refuse_text("JSON path", text, why);
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            if let Some(inner) = rest.strip_prefix('[') {
                let mut reader = Reader::new(inner);
                let value = reader.value().map_err(|error| refuse(&error.details))?;
                let part = match value {
                    Value::Text(key) => Part::Key(key.into_owned()),
                    Value::Plain(number) => Part::Position(number.parse().map_err(|_| refuse("no position"))?),
                    Value::Null | Value::Nested(_) => return Err(refuse("neither a key nor a position in brackets")),
                };
                parts.push(part);
                reader.take(b']', "\"]\"").map_err(|error| refuse(&error.details))?;
                rest = &inner[reader.at..];
            } else {
                let key = if parts.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('.').ok_or_else(|| refuse("no \".\" or \"[\" after a part"))?
                };
                let end = key.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(key.len());
                if end == 0 || key.starts_with(|first: char| first.is_ascii_digit()) {
                    return Err(refuse("no key"));
                }
                parts.push(Part::Key(key[..end].to_owned()));
                rest = &key[end..];
            }
            if parts.len() > JSON_DEPTH_MAX {
                return Err(refuse("too many parts"));
            }
            if rest.is_empty() {
                return Ok(Self(parts));
            }
        }
    }

    /// The value there; `None` where there is none.
    fn find<'a>(parts: &[Part], reader: &mut Reader<'a>) -> Read<Option<Value<'a>>> {
        let Some((part, rest)) = parts.split_first() else { return reader.value().map(Some) };
        let mut found = None;
        let mut met = false;
        let mut visit = |reader: &mut Reader<'a>, here: bool| {
            if here && !met {
                met = true;
                found = Self::find(rest, reader)?;
                Ok(())
            } else {
                reader.value().map(|_| ())
            }
        };
        match (part, reader.peek()) {
            (Part::Key(wanted), Some(b'{')) => reader.object(&mut |reader, key| visit(reader, key == *wanted))?,
            (Part::Position(wanted), Some(b'[')) => reader.array(&mut |reader, at| visit(reader, at == *wanted))?,
            (Part::Key(_) | Part::Position(_), _) => {
                reader.value()?;
            }
        }
        Ok(found)
    }
}

/// `| json`, with or without paths.
pub(super) struct Json(Vec<(String, Path)>);

impl Json {
    /// A parse error where a path is none.
    pub(super) fn new(extractions: &[Extraction]) -> Result<Self, QueryError> {
        let path = |extraction: &Extraction| Ok((extraction.label.clone(), Path::new(&extraction.expression)?));
        extractions.iter().map(path).collect::<Result<_, _>>().map(Self)
    }
}

impl Parser for Json {
    fn parse<'l>(&'l self, line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken> {
        if self.0.is_empty() {
            return flatten(line, found);
        }
        for (label, Path(path)) in &self.0 {
            let mut reader = Reader::new(line);
            if reader.peek() != Some(b'{') {
                return reader.expected("an object");
            }
            let value = Path::find(path, &mut reader)?;
            reader.end()?;
            let value = match value {
                Some(Value::Text(text)) => text,
                Some(Value::Plain(text) | Value::Nested(text)) => Cow::Borrowed(text),
                Some(Value::Null) | None => continue,
            };
            found(Cow::Borrowed(label), value)?;
        }
        Ok(())
    }
}

/// The scalars of an object under way.
#[derive(Default)]
struct Flat<'l> {
    scalars: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    bytes: usize,
    /// The name of the object that is being read; empty at the top.
    prefix: String,
}

/// Hands on the scalars of an object, keys of nested ones joined by `_`. Arrays and `null` are passed over.
fn flatten<'l>(line: &'l str, found: Found<'_, 'l>) -> Result<(), Broken> {
    let mut flat = Flat::default();
    let mut reader = Reader::new(line);
    reader.object(&mut |reader, key| match reader.peek() {
        Some(b'{') => {
            flat.prefix.push_str(&label_name(&key));
            flat.nested(reader)?;
            flat.prefix.clear();
            Ok(())
        }
        Some(_) | None => flat.add(named(key), reader.value()?),
    })?;
    reader.end()?;
    flat.scalars.into_iter().try_for_each(|(name, value)| Ok(found(name, value)?))
}

/// Where the scalars of a line's object stand, by the names that `| json` without paths gives them; those up to where
/// the line is no object any more.
pub(in crate::query) fn paths(line: &str) -> BTreeMap<String, Vec<String>> {
    type Paths = BTreeMap<String, Vec<String>>;
    fn walk(reader: &mut Reader<'_>, path: &mut Vec<String>, paths: &mut Paths) -> Read<()> {
        reader.object(&mut |reader, key| {
            path.push(key.into_owned());
            if reader.peek() == Some(b'{') {
                walk(reader, path, paths)?;
            } else if !matches!(reader.value()?, Value::Null | Value::Nested(_)) {
                paths.entry(label_name(&path.join("_")).into_owned()).or_insert_with(|| path.clone());
            }
            path.pop();
            Ok(())
        })
    }
    let mut paths = Paths::new();
    // A line that breaks off has told what it could.
    let _ = walk(&mut Reader::new(line), &mut Vec::new(), &mut paths);
    paths
}

impl<'l> Flat<'l> {
    fn nested(&mut self, reader: &mut Reader<'l>) -> Read<()> {
        reader.object(&mut |reader, key| {
            let end = self.prefix.len();
            self.prefix.push('_');
            push_label_name(&mut self.prefix, &key);
            match reader.peek() {
                Some(b'{') => self.nested(reader)?,
                Some(_) | None => {
                    let value = reader.value()?;
                    if !matches!(value, Value::Null | Value::Nested(_)) {
                        self.add(Cow::Owned(self.prefix.clone()), value)?;
                    }
                }
            }
            self.prefix.truncate(end);
            Ok(())
        })
    }

    /// A line that holds too much is refused before it takes too much memory.
    fn add(&mut self, name: Cow<'l, str>, value: Value<'l>) -> Read<()> {
        let value = match value {
            Value::Text(text) => text,
            Value::Plain(text) => Cow::Borrowed(text),
            Value::Null | Value::Nested(_) => return Ok(()),
        };
        if name.is_empty() {
            return Ok(());
        }
        self.bytes += name.len() + value.len();
        if self.bytes > FIELD_BYTES_PER_RECORD_MAX {
            return Err(Full::Bytes.into());
        }
        if self.scalars.len() >= FIELDS_PER_RECORD_MAX {
            return Err(Full::Labels.into());
        }
        self.scalars.push((name, value));
        Ok(())
    }
}
