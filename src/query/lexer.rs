//! The text of a query to words with positions. What the words mean together is the parser's.

use super::ast::{Size, Span};
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
    /// Nanoseconds, as `5m` or `1h30m`; a sign stands before it as a symbol.
    Duration(i64),
    /// Bytes, as `20KB` or `1.5MiB`.
    Bytes(u64),
    /// `--strict` or `--keep-empty`.
    Flag(&'static str),
    /// Punctuation.
    Symbol(&'static str),
    /// The end of the text.
    End,
    /// What is no word. It ends the list, so that the parser refuses it unless it refuses something before it.
    Wrong(ParseCause),
}

impl Token {
    /// As an error message names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("{name:?}"),
            Self::Text(_) => "a string".to_owned(),
            Self::Number(number) => format!("number {number}"),
            Self::Duration(nanoseconds) => format!("duration {}", Span(*nanoseconds)),
            Self::Bytes(bytes) => format!("size {}", Size(*bytes)),
            Self::Flag(text) | Self::Symbol(text) => format!("{text:?}"),
            Self::End => "end of the query".to_owned(),
            Self::Wrong(cause) => cause.to_string(),
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
const SYMBOLS: [&str; 27] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "=", "|", "+", "-",
    "*", "/", "%", "^", "<", ">",
];
const FLAGS: [&str; 2] = ["--strict", "--keep-empty"];
/// Units of bytes that Loki documents for its literals, which do not ignore case.
const SIZES: [(&str, u64); 12] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];
/// Digits of a fraction that a size is computed with.
const FRACTION_DIGITS_MAX: usize = 18;

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
}

/// All words of a text, ended by `End` or by the first that is `Wrong`.
pub(super) fn tokens(text: &str) -> Vec<(Token, Place)> {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 } };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let place = lexer.place;
        let token = lexer.next().unwrap_or_else(Token::Wrong);
        let last = matches!(token, Token::End | Token::Wrong(_));
        found.push((token, place));
        if last {
            return found;
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
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
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => Ok(Token::Name(self.take_while(is_name))),
            c if c.is_ascii_digit() => self.number(),
            '.' if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            c => {
                if let Some(flag) = self.one_of(&FLAGS)
                    && !self.rest[flag.len()..].starts_with(is_name)
                {
                    return Ok(Token::Flag(self.pass(flag)));
                }
                let symbol = self.one_of(&SYMBOLS).ok_or(ParseCause::Character(c))?;
                Ok(Token::Symbol(self.pass(symbol)))
            }
        }
    }

    fn one_of(&self, known: &[&'static str]) -> Option<&'static str> {
        known.iter().find(|word| self.rest.starts_with(**word)).copied()
    }

    fn pass(&mut self, word: &'static str) -> &'static str {
        for _ in word.chars() {
            self.take();
        }
        word
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
        if let Some(digits) = word.strip_prefix("0x") {
            let number = u64::from_str_radix(digits, 16).map_err(|_| ParseCause::Number(word.clone()))?;
            return Ok(Token::Number(number as f64));
        }
        if word.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err(ParseCause::Number(word));
        }
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if let Some((_, scale)) = SIZES.iter().find(|(name, _)| *name == unit) {
            let size = size(&word[..word.len() - unit.len()], *scale);
            return size.map(Token::Bytes).ok_or(ParseCause::Size(word));
        }
        if unit.ends_with('B') {
            return Err(ParseCause::Size(word));
        }
        time::duration(&word).map(Token::Duration).ok_or(ParseCause::Duration(word))
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

/// Whole bytes of a decimal number times its unit; what is below one byte is cut off.
fn size(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let parsed = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).expect("at most FRACTION_DIGITS_MAX"));
    let part = parsed(fraction)? * u128::from(scale) / tenths;
    let bytes = parsed(whole)?.checked_mul(u128::from(scale))?.checked_add(part)?;
    u64::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<Token> {
        tokens(text).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn numbers_durations_and_sizes_are_told_apart() {
        let second = 1_000_000_000;
        for (text, token) in [
            ("5", Token::Number(5.0)),
            ("5.", Token::Number(5.0)),
            (".5e-3", Token::Number(0.0005)),
            ("0x1F", Token::Number(31.0)),
            ("5m", Token::Duration(300 * second)),
            ("1h30m", Token::Duration(5_400 * second)),
            ("0s", Token::Duration(0)),
            ("1.5ms", Token::Duration(1_500_000)),
            ("20B", Token::Bytes(20)),
            ("1.5KiB", Token::Bytes(1_536)),
            ("20.2MB", Token::Bytes(20_200_000)),
            ("18446744073709551615B", Token::Bytes(u64::MAX)),
            ("5e", Token::Wrong(ParseCause::Duration("5e".into()))),
            ("5EB", Token::Wrong(ParseCause::Size("5EB".into()))),
            ("99999PB", Token::Wrong(ParseCause::Size("99999PB".into()))),
            ("1.2.3KB", Token::Wrong(ParseCause::Size("1.2.3KB".into()))),
            ("1e999", Token::Wrong(ParseCause::Number("1e999".into()))),
            ("1.2.3", Token::Wrong(ParseCause::Number("1.2.3".into()))),
            ("0xfffffffffffffffff", Token::Wrong(ParseCause::Number("0xfffffffffffffffff".into()))),
        ] {
            assert_eq!(words(text)[0], token, "{text}");
        }
    }

    #[test]
    fn strings_have_the_escapes_of_go() {
        let text = |text: &str| Token::Text(text.to_owned());
        assert_eq!(words(r#""a\"b\\\n\t\x41é\U0001F600\101""#)[0], text("a\"b\\\n\tA\u{e9}\u{1f600}A"));
        assert_eq!(words("`a\\n\"\nb`")[0], text("a\\n\"\nb"));
        for open in ["\"a", "\"a\nb\"", "`a", "\"a\\"] {
            assert_eq!(words(open), [Token::Wrong(ParseCause::OpenString)], "{open}");
        }
        for wrong in [r#""\w""#, r#""\xZZ""#, r#""\ud800""#, r#""\xff""#, r#""\777""#] {
            assert_eq!(words(wrong), [Token::Wrong(ParseCause::Escape)], "{wrong}");
        }
    }

    #[test]
    fn places_count_lines_and_characters() {
        let place = |line, column| Place { line, column };
        let found: Vec<Place> = tokens("ä\u{301}").into_iter().map(|(_, place)| place).collect();
        assert_eq!(found, [place(1, 1)]);
        let found: Vec<Place> = tokens("`é` a # x\r\n\n  b").into_iter().map(|(_, place)| place).collect();
        assert_eq!(found, [place(1, 1), place(1, 5), place(3, 3), place(3, 4)]);
    }

    proptest! {
        #[test]
        fn any_text_becomes_words_that_end(text in "\\PC{0,60}|[0-9a-zµ.+eBKi-]{0,20}") {
            let found = tokens(&text);
            let ends = |token: &Token| matches!(token, Token::End | Token::Wrong(_));
            prop_assert_eq!(found.iter().filter(|(token, _)| ends(token)).count(), 1);
            prop_assert!(ends(&found[found.len() - 1].0));
        }

        #[test]
        fn durations_and_sizes_read_back_as_they_are_written(nanoseconds in 0..i64::MAX, bytes in any::<u64>(), scale in 0_usize..12) {
            prop_assert_eq!(&words(&Span(nanoseconds).to_string())[0], &Token::Duration(nanoseconds));
            let bytes = bytes % 1_000 * SIZES[scale].1 + u64::from(scale == 3);
            prop_assert_eq!(&words(&Size(bytes).to_string())[0], &Token::Bytes(bytes));
        }
    }
}
