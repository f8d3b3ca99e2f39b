//! The text of a template to pieces: text as it stands, and the words between `{{` and `}}`. What the words mean
//! together is the parser's.

use super::error::{Cause, TemplateError};

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text outside of every action, blanks already trimmed as its neighbours ask.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// Blanks: they part the words of a command.
    Blank,
    /// A function or keyword.
    Name(String),
    /// `.name`; after an operand without a blank it is a part of it.
    Field(String),
    /// `$` or `$name`, without the `$`.
    Variable(String),
    /// A string, quotes and escapes resolved.
    Quoted(String),
    /// A whole number, or a character.
    Int(i64),
    /// Another number.
    Float(f64),
    /// `.`
    Dot,
    /// `|`, `(`, `)`, `,`, `=` or `:=`
    Symbol(&'static str),
    /// The end of the template.
    End,
}

impl Token {
    /// As an error names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::Open => "\"{{\"".to_owned(),
            Self::Close => "\"}}\"".to_owned(),
            Self::Blank => "a blank".to_owned(),
            Self::Name(name) => format!("{name:?}"),
            Self::Field(name) => format!("\".{name}\""),
            Self::Variable(name) => format!("\"${name}\""),
            Self::Quoted(_) => "a string".to_owned(),
            Self::Int(number) => format!("number {number}"),
            Self::Float(number) => format!("number {number}"),
            Self::Dot => "\".\"".to_owned(),
            Self::Symbol(symbol) => format!("{symbol:?}"),
            Self::End => "the end of the template".to_owned(),
        }
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    found: Vec<(Token, usize)>,
}

/// All words of a template and where in it each begins, in bytes; the last is `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, TemplateError> {
    let mut lexer = Lexer { text, at: 0, found: Vec::new() };
    let mut trim = false;
    loop {
        let rest = &text[lexer.at..];
        let length = rest.find("{{").unwrap_or(rest.len());
        let opened = length < rest.len();
        let inner = &rest[(length + 2).min(rest.len())..];
        let trims = opened && inner.strip_prefix('-').is_some_and(|inner| inner.starts_with(BLANKS));
        let mut plain = &rest[..length];
        plain = if trim { plain.trim_start_matches(BLANKS) } else { plain };
        plain = if trims { plain.trim_end_matches(BLANKS) } else { plain };
        if !plain.is_empty() {
            lexer.found.push((Token::Text(plain.to_owned()), lexer.at));
        }
        lexer.at += length;
        if !opened {
            lexer.found.push((Token::End, lexer.at));
            return Ok(lexer.found);
        }
        trim = lexer.action(if trims { 3 } else { 2 })?;
    }
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn refuse(&self, cause: Cause) -> TemplateError {
        TemplateError { at: self.at, cause }
    }

    fn push(&mut self, token: Token, length: usize) {
        self.found.push((token, self.at));
        self.at += length;
    }

    /// The end of an action, and whether blanks after it go.
    fn close(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let blanks = rest.len() - rest.trim_start_matches(BLANKS).len();
        if blanks > 0 && rest[blanks..].starts_with("-}}") {
            return Some((blanks + 3, true));
        }
        rest.starts_with("}}").then_some((2, false))
    }

    /// One action or comment from its `{{`, of which `open` bytes are read, and whether blanks after it go.
    fn action(&mut self, open: usize) -> Result<bool, TemplateError> {
        let start = self.at;
        let comment = self.text[start + open..].trim_start_matches(BLANKS);
        if comment.starts_with("/*") && (open == 3 || self.text[start + open..].starts_with("/*")) {
            let length = comment[2..].find("*/").ok_or_else(|| self.refuse(Cause::OpenComment))?;
            self.at = self.text.len() - comment.len() + length + 4;
            let (length, trim) = self.close().ok_or_else(|| self.refuse(Cause::OpenComment))?;
            self.at += length;
            return Ok(trim);
        }
        self.push(Token::Open, open);
        loop {
            if let Some((length, trim)) = self.close() {
                self.push(Token::Close, length);
                return Ok(trim);
            }
            if self.rest().is_empty() {
                return Err(TemplateError { at: start, cause: Cause::OpenAction });
            }
            self.word()?;
        }
    }

    fn word(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let c = rest.chars().next().expect("the caller saw that something is left");
        let name = |from: usize| {
            let length = rest[from..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - from);
            (rest[from..from + length].to_owned(), from + length)
        };
        match c {
            c if BLANKS.contains(&c) => self.push(Token::Blank, rest.len() - rest.trim_start_matches(BLANKS).len()),
            '"' | '`' | '\'' => return self.quoted(c),
            '$' => {
                let (name, length) = name(1);
                self.push(Token::Variable(name), length);
            }
            c if c.is_alphabetic() || c == '_' => {
                let (name, length) = name(0);
                self.push(Token::Name(name), length);
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => match name(1) {
                (name, 1) if name.is_empty() => self.push(Token::Dot, 1),
                (name, length) => self.push(Token::Field(name), length),
            },
            c if c.is_ascii_digit() || matches!(c, '.' | '+' | '-') => return self.number(),
            c => {
                let symbol = ["|", "(", ")", ",", ":=", "="].into_iter().find(|symbol| rest.starts_with(symbol));
                let symbol = symbol.ok_or_else(|| self.refuse(Cause::Character(c)))?;
                self.push(Token::Symbol(symbol), symbol.len());
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut before = ' ';
        let unsigned = rest.trim_start_matches(['+', '-']);
        let hex = unsigned.starts_with("0x") || unsigned.starts_with("0X");
        let end = rest.find(|c: char| {
            let sign = matches!(c, '+' | '-') && (before == ' ' || (!hex && matches!(before, 'e' | 'E')));
            before = c;
            !(sign || c.is_alphanumeric() || matches!(c, '.' | '_'))
        });
        let word = &rest[..end.unwrap_or(rest.len())];
        let token = super::number::literal(word).ok_or_else(|| self.refuse(Cause::Number(word.to_owned())))?;
        self.push(token, word.len());
        Ok(())
    }

    /// A string, a raw string or a character.
    fn quoted(&mut self, quote: char) -> Result<(), TemplateError> {
        let (start, raw) = (self.at, quote == '`');
        let open = TemplateError { at: start, cause: Cause::OpenString };
        let mut bytes = Vec::new();
        let mut rest = self.rest()[1..].chars();
        loop {
            match rest.next() {
                None => return Err(open),
                Some('\n') if !raw => return Err(open),
                Some(c) if c == quote => break,
                Some('\\') if !raw => {
                    escape(&mut rest, &mut bytes).ok_or(TemplateError { at: start, cause: Cause::Escape })?;
                }
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        let length = self.rest().len() - rest.as_str().len();
        let text = String::from_utf8(bytes).map_err(|_| TemplateError { at: start, cause: Cause::Escape })?;
        if quote != '\'' {
            self.push(Token::Quoted(text), length);
            return Ok(());
        }
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => self.push(Token::Int(i64::from(u32::from(c))), length),
            _ => return Err(TemplateError { at: start, cause: Cause::Rune }),
        }
        Ok(())
    }
}

/// What a backslash stands for, as in Go's strings.
fn escape(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let c = rest.next()?;
    let mut digits = |radix: u32, count: usize, first: u32| {
        (0..count).try_fold(first, |code, _| Some(code.checked_mul(radix)? + rest.next()?.to_digit(radix)?))
    };
    match c {
        'a' => bytes.push(7),
        'b' => bytes.push(8),
        'f' => bytes.push(12),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(11),
        '\\' | '"' | '\'' => bytes.push(c as u8),
        'x' => bytes.push(u8::try_from(digits(16, 2, 0)?).ok()?),
        'u' | 'U' => {
            let c = char::from_u32(digits(16, if c == 'u' { 4 } else { 8 }, 0)?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        '0'..='7' => bytes.push(u8::try_from(digits(8, 2, c.to_digit(8)?)?).ok()?),
        _ => return None,
    }
    Some(())
}
