//! Label text as clients write it: `{name="value", other=`value`}`, with the string literals of LogQL, which are Go's.
//!
//! It reads and nothing more: bounds, names and duplicates are judged elsewhere.

use std::borrow::Cow;
use std::fmt;

/// Where label text stops being label text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelTextError {
    /// The byte, counted from 0.
    pub at: usize,
    /// What stands there no longer makes sense because this was expected.
    pub expected: &'static str,
}

impl fmt::Display for LabelTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "labels at column {}: expected {}", self.at + 1, self.expected)
    }
}

impl std::error::Error for LabelTextError {}

/// The pairs in the order they stand. A trailing comma is allowed, as in Loki.
pub fn parse_labels(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>, LabelTextError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut pairs = Vec::with_capacity(8);
    cursor.expect(b'{', "{")?;
    while cursor.peek() != Some(b'}') {
        let name = cursor.name()?;
        cursor.expect(b'=', "=")?;
        let value = cursor.literal()?;
        pairs.push((name, value));
        match cursor.peek() {
            Some(b',') => cursor.at += 1,
            Some(b'}') => {}
            _ => return Err(cursor.error(", or }")),
        }
    }
    cursor.at += 1;
    match cursor.peek() {
        None => Ok(pairs),
        Some(_) => Err(cursor.error("nothing after }")),
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, expected: &'static str) -> LabelTextError {
        LabelTextError { at: self.at, expected }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), LabelTextError> {
        if self.peek() != Some(byte) {
            return Err(self.error(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self) -> Result<&'a str, LabelTextError> {
        self.peek();
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        if length == 0 || rest[0].is_ascii_digit() {
            return Err(self.error("a label name"));
        }
        let name = &self.text[self.at..self.at + length];
        self.at += length;
        Ok(name)
    }

    fn literal(&mut self) -> Result<Cow<'a, str>, LabelTextError> {
        let quote = match self.peek() {
            Some(quote @ (b'"' | b'`')) => quote,
            _ => return Err(self.error("a value in quotes")),
        };
        self.at += 1;
        let rest: &'a str = &self.text[self.at..];
        let end = match quote {
            b'`' => memchr::memchr(b'`', rest.as_bytes()),
            _ => memchr::memchr3(b'"', b'\\', b'\n', rest.as_bytes()),
        };
        let Some(end) = end else {
            self.at = self.text.len();
            return Err(self.error("the closing quote"));
        };
        if rest.as_bytes()[end] == quote {
            self.at += end + 1;
            return Ok(Cow::Borrowed(&rest[..end]));
        }
        let mut value = String::with_capacity(rest.len().min(end + 64));
        value.push_str(&rest[..end]);
        self.at += end;
        self.escaped(&mut value)?;
        Ok(Cow::Owned(value))
    }

    /// The rest of a value in double quotes, from its first escape on, through the closing quote.
    fn escaped(&mut self, value: &mut String) -> Result<(), LabelTextError> {
        loop {
            let rest = &self.text[self.at..];
            let Some(length) = memchr::memchr3(b'"', b'\\', b'\n', rest.as_bytes()) else {
                self.at = self.text.len();
                return Err(self.error("the closing quote"));
            };
            value.push_str(&rest[..length]);
            self.at += length;
            match rest.as_bytes()[length] {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => value.push(self.escape()?),
                _ => return Err(self.error("the closing quote before the end of the line")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, LabelTextError> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let (character, length) = match rest.first() {
            Some(b'a') => ('\x07', 1),
            Some(b'b') => ('\x08', 1),
            Some(b'f') => ('\x0c', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'v') => ('\x0b', 1),
            Some(b'\\') => ('\\', 1),
            Some(b'"') => ('"', 1),
            Some(b'x') => (self.digits(&rest[1..], 2, 16, 0x7f)?, 3),
            Some(b'u') => (self.digits(&rest[1..], 4, 16, 0x10_ffff)?, 5),
            Some(b'U') => (self.digits(&rest[1..], 8, 16, 0x10_ffff)?, 9),
            Some(b'0'..=b'7') => (self.digits(rest, 3, 8, 0x7f)?, 3),
            _ => return Err(self.error("an escape such as \\n or \\u00e9")),
        };
        self.at += 1 + length;
        Ok(character)
    }

    /// A character by its number. Numbers of single bytes above 0x7f would not be UTF-8, so `most` ends there.
    fn digits(&self, digits: &[u8], count: usize, radix: u32, most: u32) -> Result<char, LabelTextError> {
        let error = self.error("an escape that names a character");
        let mut number = 0_u32;
        for digit in digits.get(..count).ok_or(error)? {
            let digit = char::from(*digit).to_digit(radix).ok_or(error)?;
            number = number.checked_mul(radix).and_then(|number| number.checked_add(digit)).ok_or(error)?;
        }
        if number > most {
            return Err(error);
        }
        char::from_u32(number).ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::Labels;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, LabelTextError> {
        Ok(parse_labels(text)?.into_iter().map(|(name, value)| (name.to_string(), value.into_owned())).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn labels_are_read_as_they_are_written(
            pairs in proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "(?s).{1,12}", 0..6),
        ) {
            let labels = Labels::new(pairs);
            let text = labels.to_string();
            let read = parse_labels(&text).unwrap();
            prop_assert_eq!(Labels::new(read), labels);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,64}") {
            let _ = parse_labels(&text);
            let _ = parse_labels(&format!("{{a=\"{text}"));
        }
    }

    #[test]
    fn literals_are_those_of_logql() {
        let read = pairs(r#" { a = "x" , b=`raw \n "q"`, c="t\t\"\\\x41\101\u00e9\U0001F600", } "#).unwrap();
        let want = [("a", "x"), ("b", r#"raw \n "q""#), ("c", "t\t\"\\AA\u{e9}\u{1f600}")];
        assert_eq!(read, want.map(|(name, value)| (name.to_string(), value.to_string())));
        assert_eq!(pairs("{}").unwrap(), []);
    }

    #[test]
    fn an_error_names_its_column() {
        for (text, at) in [
            ("", 0),
            ("a", 0),
            ("{", 1),
            ("{a", 2),
            ("{a=", 3),
            ("{a=x}", 3),
            ("{a=\"x", 5),
            ("{a=\"x\"", 6),
            ("{a=\"x\" b", 7),
            ("{a=\"x\"} y", 8),
            ("{9=\"x\"}", 1),
            ("{a=\"\\q\"}", 4),
            ("{a=\"\\xff\"}", 4),
            ("{a=\"\\ud800\"}", 4),
            ("{a=\"x\ny\"}", 5),
        ] {
            assert_eq!(parse_labels(text).unwrap_err().at, at, "{text:?}");
        }
    }
}
