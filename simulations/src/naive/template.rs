//! Go's `text/template` as `line_format` and `label_format` use it, with the functions that Loki documents.
//!
//! Sources: the page of Loki's template functions, and the packages `text/template`, `fmt`, `time` and `strings`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Set;
use super::texts::{self, regex};

mod dates;

/// What the template makes of a line; `None` where it cannot be carried out.
pub(super) fn render(text: &str, line: &str, timestamp: i64, labels: &Set) -> Option<String> {
    let tokens = tokens(text)?;
    let (nodes, end) = Parser { tokens: &tokens }.nodes()?;
    let mut run = Run { line, timestamp, labels, variables: Vec::new(), written: String::new() };
    end.is_none().then_some(())?;
    run.nodes(&nodes, &Value::Labels)?;
    Some(run.written)
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(i64),
    Json(Json),
    /// What `.` is at first.
    Labels,
}

impl Value {
    fn json(json: &Json) -> Self {
        match json {
            Json::String(text) => Self::Text(text.clone()),
            Json::Bool(bool) => Self::Bool(*bool),
            Json::Number(number) => Self::Float(number.as_f64().unwrap_or(0.0)),
            Json::Null | Json::Array(_) | Json::Object(_) => Self::Json(json.clone()),
        }
    }

    /// As `%v` writes it.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(int) => int.to_string(),
            Self::Float(float) => shortest(*float),
            Self::Bool(bool) => bool.to_string(),
            Self::Time(time) => dates::format("2006-01-02 15:04:05.999999999 -0700 MST", *time),
            Self::Json(Json::Array(items)) => {
                let items: Vec<String> = items.iter().map(|item| Self::json(item).text()).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Json(Json::Object(fields)) => {
                let sorted: BTreeMap<&String, &Json> = fields.iter().collect();
                let fields: Vec<String> =
                    sorted.into_iter().map(|(name, field)| format!("{name}:{}", Self::json(field).text())).collect();
                format!("map[{}]", fields.join(" "))
            }
            Self::Json(_) | Self::Labels => "<no value>".to_owned(),
        }
    }

    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Int(int) => *int != 0,
            Self::Float(float) => *float != 0.0,
            Self::Bool(bool) => *bool,
            Self::Time(_) | Self::Labels => true,
            Self::Json(Json::Array(items)) => !items.is_empty(),
            Self::Json(Json::Object(fields)) => !fields.is_empty(),
            Self::Json(_) => false,
        }
    }

    /// What is no number is zero.
    fn float(&self) -> f64 {
        match self {
            Self::Int(int) => *int as f64,
            Self::Float(float) => *float,
            Self::Bool(bool) => f64::from(u8::from(*bool)),
            Self::Text(text) => texts::number(text).unwrap_or(0.0),
            Self::Time(_) | Self::Json(_) | Self::Labels => 0.0,
        }
    }

    fn int(&self) -> i64 {
        match self {
            Self::Text(text) => text.parse().unwrap_or(0),
            Self::Int(_) | Self::Float(_) | Self::Bool(_) | Self::Time(_) | Self::Json(_) | Self::Labels => {
                self.float() as i64
            }
        }
    }
}

/// `%v` of a float: with an exponent below 1e-4 and from 1e6 on.
fn shortest(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return (if float > 0.0 { "+Inf" } else { "-Inf" }).to_owned();
    }
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').expect("it was asked for");
    let exponent: i32 = exponent.parse().expect("it was written");
    if (-4..6).contains(&exponent) {
        return float.to_string();
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// What stands outside of actions.
    Outside(String),
    Text(String),
    Number(String),
    /// A word, `.a.b`, `$a.b`, or a sign.
    Word(String),
    /// The end of an action.
    End,
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some((outside, action)) = rest.split_once("{{") {
        let (outside, action) = match action.strip_prefix("- ") {
            Some(action) => (outside.trim_end(), action),
            None => (outside, action),
        };
        tokens.push(Token::Outside(outside.to_owned()));
        rest = action;
        if let Some(comment) = action.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1.trim_start_matches(" -").strip_prefix("}}")?;
            continue;
        }
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
            if let Some(after) = rest.strip_prefix("}}") {
                rest = after;
                break;
            }
            if let Some(after) = rest.strip_prefix("-}}") {
                rest = after.trim_start();
                break;
            }
            tokens.push(token(&mut rest)?);
        }
        tokens.push(Token::End);
    }
    tokens.push(Token::Outside(rest.to_owned()));
    Some(tokens)
}

fn token(rest: &mut &str) -> Option<Token> {
    let text = *rest;
    type Make = fn(&str) -> Option<Token>;
    let shapes: [(&str, Make); 4] = [
        ("^`[^`]*`", |raw| Some(Token::Text(raw[1..raw.len() - 1].to_owned()))),
        (r#"^"([^"\\]|\\.)*""#, |quoted| Some(Token::Text(serde_json::from_str(quoted).ok()?))),
        (r"^[-+]?\d[\d.]*", |number| Some(Token::Number(number.to_owned()))),
        (r"^([$]\w*(\.\w+)*|\.(\w+(\.\w+)*)?|\w+|:=|[=|(),])", |word| Some(Token::Word(word.to_owned()))),
    ];
    let found = shapes.iter().find_map(|(shape, make)| Some((regex(shape).find(text)?.end(), make)));
    let (end, make) = found?;
    *rest = &text[end..];
    make(&text[..end])
}

enum Node {
    Text(String),
    Print(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
}

/// Commands, each of which is given what the one before it made, and the variables that the last is put into.
struct Pipe {
    variables: Vec<String>,
    commands: Vec<Vec<Operand>>,
}

enum Operand {
    Value(Value),
    /// The fields of `.`.
    Dot(Vec<String>),
    /// The fields of a variable.
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Pipe, Vec<String>),
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.tokens.first(), Some(Token::Word(next)) if next == word);
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    /// Up to the end of the text, or to an `end` or `else`, which it names.
    fn nodes(&mut self) -> Option<(Vec<Node>, Option<&'static str>)> {
        let mut nodes = Vec::new();
        loop {
            match self.tokens.first() {
                None => return Some((nodes, None)),
                Some(Token::Outside(text)) => {
                    nodes.push(Node::Text(text.clone()));
                    self.next();
                }
                Some(_) if self.word("end") => {
                    self.next();
                    return Some((nodes, Some("end")));
                }
                Some(_) if self.word("else") => return Some((nodes, Some("else"))),
                Some(_) => nodes.push(self.action()?),
            }
        }
    }

    fn action(&mut self) -> Option<Node> {
        type Make = fn(Pipe, Vec<Node>, Vec<Node>) -> Node;
        let kinds: [(&str, Make); 3] = [("if", Node::If), ("with", Node::With), ("range", Node::Range)];
        let Some((_, make)) = kinds.into_iter().find(|(word, _)| self.word(word)) else {
            let pipe = self.pipe()?;
            return matches!(self.next()?, Token::End).then_some(Node::Print(pipe));
        };
        let pipe = self.pipe()?;
        self.next()?;
        let (then, mut end) = self.nodes()?;
        let mut otherwise = Vec::new();
        if end == Some("else") {
            if matches!(self.tokens.first(), Some(Token::End)) {
                self.next();
                (otherwise, end) = self.nodes()?;
            } else {
                // `else if` holds the rest, up to the one `end` of both.
                otherwise.push(self.action()?);
                end = Some("end");
            }
        }
        (end == Some("end")).then(|| make(pipe, then, otherwise))
    }

    fn pipe(&mut self) -> Option<Pipe> {
        let assigns = self
            .tokens
            .iter()
            .take(4)
            .any(|token| *token == Token::Word(":=".into()) || *token == Token::Word("=".into()));
        let mut variables = Vec::new();
        while assigns && !self.word(":=") && !self.word("=") {
            match self.next()? {
                Token::Word(word) if word == "," => {}
                Token::Word(word) => variables.push(word.clone()),
                Token::Outside(_) | Token::Text(_) | Token::Number(_) | Token::End => return None,
            }
        }
        let mut commands = vec![Vec::new()];
        loop {
            match self.tokens.first()? {
                Token::End => break,
                Token::Word(word) if word == ")" => break,
                Token::Word(word) if word == "|" => {
                    commands.push(Vec::new());
                    self.next();
                }
                Token::Outside(_) | Token::Text(_) | Token::Number(_) | Token::Word(_) => {
                    let operand = self.operand()?;
                    commands.last_mut()?.push(operand);
                }
            }
        }
        Some(Pipe { variables, commands })
    }

    fn operand(&mut self) -> Option<Operand> {
        let fields = |word: &str| word.split('.').skip(1).filter(|f| !f.is_empty()).map(str::to_owned).collect();
        Some(match self.next()?.clone() {
            Token::Text(text) => Operand::Value(Value::Text(text)),
            Token::Number(number) => Operand::Value(match number.parse() {
                Ok(int) => Value::Int(int),
                Err(_) => Value::Float(number.parse().ok()?),
            }),
            Token::Word(word) if word == "(" => {
                let pipe = self.pipe()?;
                self.word(")").then_some(())?;
                let after = match self.tokens.first() {
                    Some(Token::Word(word)) if word.starts_with('.') && word.len() > 1 => fields(word),
                    _ => Vec::new(),
                };
                if !after.is_empty() {
                    self.next();
                }
                Operand::Pipe(pipe, after)
            }
            Token::Word(word) if word.starts_with('.') => Operand::Dot(fields(&word)),
            Token::Word(word) if word.starts_with('$') => {
                Operand::Variable(word.split('.').next()?.to_owned(), fields(&word))
            }
            Token::Word(word) if word == "true" || word == "false" => Operand::Value(Value::Bool(word == "true")),
            Token::Word(word) => Operand::Function(word),
            Token::Outside(_) | Token::End => return None,
        })
    }
}

struct Run<'a> {
    line: &'a str,
    timestamp: i64,
    labels: &'a Set,
    variables: Vec<(String, Value)>,
    written: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Option<()> {
        let scope = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.written.push_str(text),
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        self.written.push_str(&value.text());
                    }
                }
                Node::If(pipe, then, otherwise) => {
                    let chosen = if self.pipe(pipe, dot)?.is_true() { then } else { otherwise };
                    self.nodes(chosen, dot)?;
                }
                Node::With(pipe, then, otherwise) => {
                    let value = self.pipe(pipe, dot)?;
                    if value.is_true() { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? }
                }
                Node::Range(pipe, then, otherwise) => self.range(pipe, then, otherwise, dot)?,
            }
        }
        self.variables.truncate(scope);
        Some(())
    }

    fn range(&mut self, pipe: &Pipe, then: &[Node], otherwise: &[Node], dot: &Value) -> Option<()> {
        let items: Vec<(Value, Value)> = match self.commands(&pipe.commands, dot)? {
            Value::Json(Json::Array(items)) => {
                (0..).zip(&items).map(|(at, item)| (Value::Int(at), Value::json(item))).collect()
            }
            Value::Json(Json::Object(fields)) => {
                let sorted: BTreeMap<String, Json> = fields.into_iter().collect();
                sorted.iter().map(|(name, field)| (Value::Text(name.clone()), Value::json(field))).collect()
            }
            Value::Json(_) => Vec::new(),
            Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Time(_) | Value::Labels => {
                return None;
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match pipe.variables.as_slice() {
                [] => {}
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
            }
            self.nodes(then, &item)?;
            self.variables.truncate(scope);
        }
        Some(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Option<Value> {
        let value = self.commands(&pipe.commands, dot)?;
        for name in &pipe.variables {
            match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                Some((_, held)) => *held = value.clone(),
                None => self.variables.push((name.clone(), value.clone())),
            }
        }
        Some(value)
    }

    fn commands(&mut self, commands: &[Vec<Operand>], dot: &Value) -> Option<Value> {
        let mut last = None;
        for command in commands {
            let (first, rest) = command.split_first()?;
            last = Some(match first {
                Operand::Function(name) => {
                    let mut arguments: Vec<Value> =
                        rest.iter().map(|operand| self.operand(operand, dot)).collect::<Option<_>>()?;
                    arguments.extend(last);
                    self.call(name, &arguments)?
                }
                Operand::Value(_) | Operand::Dot(_) | Operand::Variable(..) | Operand::Pipe(..) => {
                    (rest.is_empty() && last.is_none()).then_some(())?;
                    self.operand(first, dot)?
                }
            });
        }
        last
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Option<Value> {
        let (mut value, fields) = match operand {
            Operand::Value(value) => return Some(value.clone()),
            Operand::Function(name) => return self.call(name, &[]),
            Operand::Dot(fields) => (dot.clone(), fields),
            Operand::Variable(name, fields) if name == "$" => (Value::Labels, fields),
            Operand::Variable(name, fields) => {
                (self.variables.iter().rev().find(|(known, _)| known == name)?.1.clone(), fields)
            }
            Operand::Pipe(pipe, fields) => (self.pipe(pipe, dot)?, fields),
        };
        for field in fields {
            value = match value {
                Value::Labels => Value::Text(self.labels.get(field).cloned().unwrap_or_default()),
                Value::Json(Json::Object(fields)) => fields.get(field).map_or(Value::Json(Json::Null), Value::json),
                Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Time(_) | Value::Json(_) => {
                    return None;
                }
            };
        }
        Some(value)
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Value> {
        match (name, arguments) {
            ("__line__", []) => Some(Value::Text(self.line.to_owned())),
            ("__timestamp__", []) => Some(Value::Time(self.timestamp)),
            // Any time will do: a query that prints it has no one answer.
            ("now", []) => Some(Value::Time(self.timestamp)),
            _ => logic(name, arguments)
                .or_else(|| texts_of(name, arguments))
                .or_else(|| mathematics(name, arguments))
                .or_else(|| dates::call(name, arguments)),
        }
    }
}

/// What Go's templates know by themselves.
fn logic(name: &str, arguments: &[Value]) -> Option<Value> {
    let bool = |bool| Some(Value::Bool(bool));
    let order = |a: &Value, b: &Value| match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match (name, arguments) {
        ("and", all) => all.iter().find(|value| !value.is_true()).or(all.last()).cloned(),
        ("or", all) => all.iter().find(|value| value.is_true()).or(all.last()).cloned(),
        ("not", [value]) => bool(!value.is_true()),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let same: Option<Vec<bool>> = others.iter().map(|other| Some(order(first, other)?.is_eq())).collect();
            bool(same?.contains(&true))
        }
        ("ne", [a, b]) => bool(order(a, b)?.is_ne()),
        ("lt", [a, b]) => bool(order(a, b)?.is_lt()),
        ("le", [a, b]) => bool(order(a, b)?.is_le()),
        ("gt", [a, b]) => bool(order(a, b)?.is_gt()),
        ("ge", [a, b]) => bool(order(a, b)?.is_ge()),
        ("len", [Value::Text(text)]) => Some(Value::Int(text.len() as i64)),
        ("len", [Value::Json(Json::Array(items))]) => Some(Value::Int(items.len() as i64)),
        ("index", [Value::Json(json), at]) => match (json, at) {
            (Json::Array(items), Value::Int(at)) => Some(Value::json(items.get(usize::try_from(*at).ok()?)?)),
            (Json::Object(fields), Value::Text(name)) => {
                Some(fields.get(name).map_or(Value::Json(Json::Null), Value::json))
            }
            _ => None,
        },
        ("print", all) => {
            let mut text = String::new();
            for (at, value) in all.iter().enumerate() {
                let words = |value: &Value| !matches!(value, Value::Text(_));
                if at > 0 && words(value) && words(&all[at - 1]) {
                    text.push(' ');
                }
                text.push_str(&value.text());
            }
            Some(Value::Text(text))
        }
        ("printf", [Value::Text(format), rest @ ..]) => Some(Value::Text(printf(format, rest)?)),
        _ => None,
    }
}

fn printf(format: &str, arguments: &[Value]) -> Option<String> {
    let (mut text, mut from, mut arguments) = (String::new(), 0, arguments.iter());
    for found in regex(r"%([-+0]*)(\d*)(?:\.(\d+))?([a-z%])").captures_iter(format) {
        let (whole, part) = (found.get(0)?, |at: usize| found.get(at).map_or("", |part| part.as_str()));
        text.push_str(&format[from..whole.start()]);
        from = whole.end();
        if part(4) == "%" {
            text.push('%');
            continue;
        }
        let (value, precision) = (arguments.next()?, part(3).parse::<usize>().ok());
        let written = match (part(4), value) {
            ("s" | "v", value) => match precision {
                Some(most) => value.text().chars().take(most).collect(),
                None => value.text(),
            },
            ("q", Value::Text(text)) => format!("{text:?}"),
            ("d", Value::Int(int)) => int.to_string(),
            ("f", Value::Float(float)) => format!("{float:.*}", precision.unwrap_or(6)),
            ("t", Value::Bool(bool)) => bool.to_string(),
            _ => return None,
        };
        let (width, missing) = (part(2).parse().unwrap_or(0_usize), written.chars().count());
        let padding = width.saturating_sub(missing);
        text.push_str(&match part(1) {
            "-" => written + &" ".repeat(padding),
            "0" => "0".repeat(padding) + &written,
            _ => " ".repeat(padding) + &written,
        });
    }
    text.push_str(&format[from..]);
    arguments.next().is_none().then_some(text)
}

/// Functions over texts. A count or a place may be written as a number alone; all else is taken as text.
fn texts_of(name: &str, arguments: &[Value]) -> Option<Value> {
    let strings: Vec<String> = arguments.iter().map(Value::text).collect();
    let words: Vec<&str> = strings.iter().map(String::as_str).collect();
    let int = |at: usize| match arguments.get(at) {
        Some(Value::Int(int)) => Some(*int),
        _ => None,
    };
    let size = |at: usize| usize::try_from(int(at)?).ok();
    let letters = |text: &str| text.chars().collect::<Vec<char>>();
    let cut = |text: &str, from: usize, to: usize| letters(text)[from..to].iter().collect::<String>();
    let padded = |text: &str, at: usize| Some(" ".repeat(size(at)?.saturating_sub(letters(text).len())));
    Some(Value::Text(match (name, words.as_slice()) {
        ("alignLeft", [_, text]) => cut(text, 0, letters(text).len().min(size(0)?)) + &padded(text, 0)?,
        ("alignRight", [_, text]) => {
            padded(text, 0)? + &cut(text, letters(text).len().saturating_sub(size(0)?), letters(text).len())
        }
        ("b64enc", [text]) => base64(text.as_bytes()),
        ("b64dec", [text]) => from_base64(text)?,
        ("bytes", [text]) => return Some(Value::Float(texts::bytes(text)? as f64)),
        ("contains", [part, text]) => return Some(Value::Bool(text.contains(part))),
        ("count", [pattern, text]) => return Some(Value::Int(regex(pattern).find_iter(text).count() as i64)),
        ("default", [other, text]) => (if text.is_empty() { other } else { text }).to_string(),
        ("fromJson", [text]) => {
            return Some(serde_json::from_str(text).map_or(Value::Text(String::new()), |json| Value::json(&json)));
        }
        ("hasPrefix", [prefix, text]) => return Some(Value::Bool(text.starts_with(prefix))),
        ("hasSuffix", [suffix, text]) => return Some(Value::Bool(text.ends_with(suffix))),
        ("indent" | "nindent", [_, text]) => {
            let pad = " ".repeat(size(0)?);
            let start = if name == "nindent" { "\n" } else { "" };
            format!("{start}{pad}{}", text.replace('\n', &format!("\n{pad}")))
        }
        ("lower", [text]) => text.to_lowercase(),
        ("regexReplaceAll", [pattern, text, with]) => regex(pattern).replace_all(text, *with).into_owned(),
        ("regexReplaceAllLiteral", [pattern, text, with]) => {
            regex(pattern).replace_all(text, regex::NoExpand(with)).into_owned()
        }
        ("repeat", [_, text]) => text.repeat(size(0)?),
        ("replace", [old, new, text]) => text.replace(old, new),
        ("substr", [_, _, text]) => {
            let (length, start, end) = (letters(text).len(), int(0)?, int(1)?);
            let end = usize::try_from(end).map_or(length, |end| end.min(length));
            cut(text, usize::try_from(start).unwrap_or(0).min(end), end)
        }
        ("title", [text]) => {
            regex(r"\b[a-z]").replace_all(text, |found: &regex::Captures<'_>| found[0].to_uppercase()).into()
        }
        ("trim", [text]) => text.trim().to_owned(),
        ("trimAll", [set, text]) => text.trim_matches(|letter| set.contains(letter)).to_owned(),
        ("trimPrefix", [prefix, text]) => text.strip_prefix(prefix).unwrap_or(text).to_owned(),
        ("trimSuffix", [suffix, text]) => text.strip_suffix(suffix).unwrap_or(text).to_owned(),
        ("trunc", [_, text]) => match (int(0)?, letters(text).len()) {
            (most, length) if most >= 0 => cut(text, 0, length.min(most as usize)),
            (most, length) => cut(text, length.saturating_sub(most.unsigned_abs() as usize), length),
        },
        ("upper", [text]) => text.to_uppercase(),
        ("urlencode", [text]) => text.bytes().map(url).collect(),
        ("urldecode", [text]) => from_url(text)?,
        _ => return None,
    }))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = char::from(BASE64[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= three.len() { letter } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_usize, 0);
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | BASE64.iter().position(|known| *known == letter)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 255) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

fn url(byte: u8) -> String {
    match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

fn from_url(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let code = std::str::from_utf8(after.get(..2)?).ok()?;
                rest = &after[2..];
                u8::from_str_radix(code, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn mathematics(name: &str, arguments: &[Value]) -> Option<Value> {
    let ints = || arguments.iter().map(Value::int);
    let floats = || arguments.iter().map(Value::float);
    let float = |float| Some(Value::Float(float));
    Some(Value::Int(match (name, arguments) {
        ("add", _) => ints().sum(),
        ("mul", _) => ints().product(),
        ("sub", [a, b]) => a.int() - b.int(),
        ("div", [a, b]) => a.int().checked_div(b.int())?,
        ("mod", [a, b]) => a.int().checked_rem(b.int())?,
        ("max", _) => ints().max()?,
        ("min", _) => ints().min()?,
        ("int", [value]) => value.int(),
        ("addf", _) => return float(floats().sum()),
        ("mulf", _) => return float(floats().product()),
        ("subf", _) => return float(floats().reduce(|a, b| a - b)?),
        ("divf", _) => return float(floats().reduce(|a, b| a / b)?),
        ("maxf", _) => return float(floats().reduce(f64::max)?),
        ("minf", _) => return float(floats().reduce(f64::min)?),
        ("ceil", [value]) => return float(value.float().ceil()),
        ("floor", [value]) => return float(value.float().floor()),
        ("float64", [value]) => return float(value.float()),
        ("duration" | "duration_seconds", [value]) => {
            return float(texts::duration(&value.text())? as f64 / 1e9);
        }
        ("round", [value, digits, rest @ ..]) => {
            let (power, on) = (10_f64.powf(digits.float()), rest.first().map_or(0.5, Value::float));
            let digit = value.float() * power;
            return float(if digit.fract() >= on { digit.ceil() } else { digit.floor() } / power);
        }
        _ => return None,
    }))
}
