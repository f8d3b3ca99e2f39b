//! The text of a query to words with positions. What the words mean together is the parser's.

use super::error::{ParseCause, QueryError};
use super::time;

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or keyword.
    Name(String),
    /// A string, quotes and escapes resolved.
    Text(String),
    /// A finite number.
    Number(f64),
    /// Nanoseconds above zero, as `5m` or `1h30m`.
    Duration(i64),
    /// Punctuation.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

impl Token {
    /// As an error message names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("{name:?}"),
            Self::Text(_) => "a string".to_owned(),
            Self::Number(number) => format!("number {number}"),
            Self::Duration(_) => "a duration".to_owned(),
            Self::Symbol(symbol) => format!("{symbol:?}"),
            Self::End => "end of the query".to_owned(),
        }
    }
}

/// A place in the text, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// The error that this is refused for `cause`.
    pub(super) fn refuse(self, cause: ParseCause) -> QueryError {
        QueryError::Parse { line: self.line, column: self.column, cause }
    }
}

/// Longer ones before their own beginnings.
const SYMBOLS: [&str; 30] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "=", "|", "+", "-",
    "*", "/", "%", "^", "<", ">", "@", "!", ".",
];

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
}

/// All words of a text, ended by `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Place)>, QueryError> {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 } };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let place = lexer.place;
        let token = lexer.next().map_err(|cause| place.refuse(cause))?;
        let end = token == Token::End;
        found.push((token, place));
        if end {
            return Ok(found);
        }
    }
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, mut more: impl FnMut(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.rest.chars().next()
            && more(c)
        {
            taken.push(c);
            self.take();
        }
        taken
    }

    /// Blanks, and comments from `#` to the end of the line.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn next(&mut self) -> Result<Token, ParseCause> {
        let Some(c) = self.rest.chars().next() else { return Ok(Token::End) };
        match c {
            '"' => self.quoted(),
            '`' => self.raw(),
            c if c.is_ascii_alphabetic() || c == '_' => {
                Ok(Token::Name(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')))
            }
            c if c.is_ascii_digit() => self.number(),
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            c => {
                let symbol = SYMBOLS.iter().find(|symbol| self.rest.starts_with(**symbol));
                let symbol = symbol.ok_or(ParseCause::Character(c))?;
                for _ in symbol.chars() {
                    self.take();
                }
                Ok(Token::Symbol(symbol))
            }
        }
    }

    fn number(&mut self) -> Result<Token, ParseCause> {
        let mut before = ' ';
        let mut mantissa = true;
        let word = self.take_while(|c| {
            let sign = (c == '+' || c == '-') && mantissa && matches!(before, 'e' | 'E');
            mantissa &= c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E');
            before = c;
            sign || c.is_alphanumeric() || c == '.'
        });
        if let Ok(number) = word.parse::<f64>() {
            return if number.is_finite() { Ok(Token::Number(number)) } else { Err(ParseCause::Number(word)) };
        }
        if word.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err(ParseCause::Number(word));
        }
        match time::duration(&word) {
            Some(nanoseconds) if nanoseconds > 0 => Ok(Token::Duration(nanoseconds)),
            _ => Err(ParseCause::Duration(word)),
        }
    }

    fn raw(&mut self) -> Result<Token, ParseCause> {
        self.take();
        let text = self.take_while(|c| c != '`');
        self.take().ok_or(ParseCause::OpenString)?;
        Ok(Token::Text(text))
    }

    fn quoted(&mut self) -> Result<Token, ParseCause> {
        self.take();
        let mut bytes = Vec::new();
        loop {
            match self.take().ok_or(ParseCause::OpenString)? {
                '"' => break,
                '\n' => return Err(ParseCause::OpenString),
                '\\' => self.escape(&mut bytes)?,
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // Lines and labels are UTF-8, so a string that is not could match nothing.
        String::from_utf8(bytes).map(Token::Text).map_err(|_| ParseCause::Escape)
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), ParseCause> {
        let c = self.take().ok_or(ParseCause::OpenString)?;
        match c {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' | '\'' => bytes.push(c as u8),
            'x' => bytes.push(u8::try_from(self.digits(16, 2)?).map_err(|_| ParseCause::Escape)?),
            'u' | 'U' => {
                let code = self.digits(16, if c == 'u' { 4 } else { 8 })?;
                let c = char::from_u32(code).ok_or(ParseCause::Escape)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => {
                let high = c.to_digit(8).expect("matched an octal digit");
                let code = high * 64 + self.digits(8, 2)?;
                bytes.push(u8::try_from(code).map_err(|_| ParseCause::Escape)?);
            }
            _ => return Err(ParseCause::Escape),
        }
        Ok(())
    }

    fn digits(&mut self, radix: u32, count: usize) -> Result<u32, ParseCause> {
        let mut code = 0_u32;
        for _ in 0..count {
            let digit = self.take().and_then(|c| c.to_digit(radix)).ok_or(ParseCause::Escape)?;
            code = code.checked_mul(radix).and_then(|code| code.checked_add(digit)).ok_or(ParseCause::Escape)?;
        }
        Ok(code)
    }
}
