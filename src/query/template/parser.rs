//! The words of a template to a tree in which every function, variable and regular expression is found already.
//!
//! `define`, `template` and `block` are left out: a template of LogQL is one text, and without them it always ends.

use regex_automata::meta::Regex;

use super::error::{Cause, TemplateError};
use super::functions::{self, Function};
use super::lexer::{self, Token};
use crate::limits::{QUERY_REGEXES_MAX, TEMPLATE_DEPTH_MAX};
use crate::query::error::{ParseCause, QueryError};
use crate::query::pattern;

/// Something that gives a value.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    /// Where it begins, in bytes.
    pub(super) at: usize,
    pub(super) kind: Kind,
    /// Expressions within each other, itself included.
    depth: usize,
}

/// How a regular expression is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegexUse {
    Count,
    Replace,
    /// `$` in the replacement stands for itself.
    ReplaceLiteral,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// `.`
    Dot,
    /// A variable by its place; 0 is `$`.
    Variable(usize),
    Field(Box<Expr>, String),
    /// `__line__`
    Line,
    /// `__timestamp__`
    Timestamp,
    Call(&'static Function, Vec<Expr>),
    /// The first that is false, or the last.
    And(Vec<Expr>),
    /// The first that is true, or the last.
    Or(Vec<Expr>),
    Regex(RegexUse, Box<Regex>, Vec<Expr>),
}

/// One branch of `if` or `with`.
#[derive(Clone, Debug)]
pub(super) struct Arm {
    pub(super) test: Expr,
    pub(super) variable: Option<usize>,
    pub(super) body: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text {
        at: usize,
        text: String,
    },
    Write(Expr),
    /// `$x := ..` or `$x = ..`
    Set(usize, Expr),
    /// `if` or, where it changes the dot, `with`.
    Choose {
        changes_dot: bool,
        arms: Vec<Arm>,
        otherwise: Vec<Node>,
    },
    Range {
        of: Expr,
        key: Option<usize>,
        value: Option<usize>,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// A whole template.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// Variables that are alive at once at most, `$` included.
    pub(super) variables: usize,
    pub(super) regexes: usize,
}

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    End,
    /// `else` and what it goes on with: `}}`, or another test.
    Else {
        again: bool,
    },
    Text,
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    /// Names of the variables that are alive, by their places.
    variables: Vec<String>,
    variables_most: usize,
    regexes: usize,
    depth: usize,
    loops: usize,
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Tree, TemplateError> {
    let tokens = lexer::tokens(text)?;
    let mut parser =
        Parser { tokens, at: 0, variables: vec![String::new()], variables_most: 1, regexes: 0, depth: 0, loops: 0 };
    let (nodes, stop, at) = parser.nodes()?;
    match stop {
        Stop::Text => Ok(Tree { nodes, variables: parser.variables_most, regexes: parser.regexes }),
        Stop::End => Err(unexpected(at, "the end of the template", &Token::Name("end".into()))),
        Stop::Else { .. } => Err(unexpected(at, "the end of the template", &Token::Name("else".into()))),
    }
}

fn unexpected(at: usize, expected: &'static str, found: &Token) -> TemplateError {
    TemplateError { at, cause: Cause::Expected { expected, found: found.describe() } }
}

fn too_deep(depth: usize, at: usize) -> Result<(), TemplateError> {
    let cause = Cause::TooMany { what: "blocks, parentheses or pipes within each other", max: TEMPLATE_DEPTH_MAX };
    if depth < TEMPLATE_DEPTH_MAX { Ok(()) } else { Err(TemplateError { at, cause }) }
}

/// An expression, unless too many are within each other.
fn expr(at: usize, kind: Kind) -> Result<Expr, TemplateError> {
    let depth = match &kind {
        Kind::Field(of, _) => of.depth + 1,
        Kind::Call(_, args) | Kind::And(args) | Kind::Or(args) | Kind::Regex(_, _, args) => {
            args.iter().map(|arg| arg.depth).max().unwrap_or(0) + 1
        }
        Kind::Nil
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Float(_)
        | Kind::Text(_)
        | Kind::Dot
        | Kind::Variable(_)
        | Kind::Line
        | Kind::Timestamp => 1,
    };
    too_deep(depth - 1, at)?;
    Ok(Expr { at, kind, depth })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> (Token, usize) {
        let found = self.tokens[self.at].clone();
        // The end stands behind every other word.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        found
    }

    fn refuse<T>(&self, expected: &'static str) -> Result<T, TemplateError> {
        Err(unexpected(self.place(), expected, self.peek()))
    }

    fn skip_blank(&mut self) {
        while *self.peek() == Token::Blank {
            self.next();
        }
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        self.skip_blank();
        if *self.peek() != Token::Close {
            return self.refuse("\"}}\"");
        }
        self.next();
        Ok(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, TemplateError>) -> Result<T, TemplateError> {
        too_deep(self.depth, self.place())?;
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    /// Nodes up to `end`, `else` or the end of the template, what it was, and where.
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop, usize), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let (token, at) = self.next();
            if let Token::Text(text) = token {
                nodes.push(Node::Text { at, text });
                continue;
            }
            if token == Token::End {
                return Ok((nodes, Stop::Text, at));
            }
            self.skip_blank();
            let word = if let Token::Name(name) = self.peek() { name.clone() } else { String::new() };
            match word.as_str() {
                "end" => {
                    self.next();
                    self.close()?;
                    return Ok((nodes, Stop::End, at));
                }
                "else" => {
                    self.next();
                    self.skip_blank();
                    let again = *self.peek() != Token::Close;
                    if !again {
                        self.next();
                    }
                    return Ok((nodes, Stop::Else { again }, at));
                }
                word => nodes.push(self.action(word, at)?),
            }
        }
    }

    /// What stands between `{{` and `}}`, and the block that it opens.
    fn action(&mut self, word: &str, at: usize) -> Result<Node, TemplateError> {
        match word {
            "if" => self.choose("if"),
            "with" => self.choose("with"),
            "range" => self.range(),
            "break" | "continue" => {
                let word = if word == "break" { "break" } else { "continue" };
                self.next();
                self.close()?;
                if self.loops == 0 {
                    return Err(TemplateError { at, cause: Cause::Loop(word) });
                }
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            "define" => Err(TemplateError { at, cause: Cause::Unsupported("define") }),
            "template" => Err(TemplateError { at, cause: Cause::Unsupported("template") }),
            "block" => Err(TemplateError { at, cause: Cause::Unsupported("block") }),
            _ => {
                let (variable, expr) = self.assignment()?;
                self.close()?;
                Ok(match variable {
                    Some(variable) => Node::Set(variable, expr),
                    None => Node::Write(expr),
                })
            }
        }
    }

    /// `$x :=` makes a variable, `$x =` finds one.
    fn variable(&mut self, name: String, at: usize, declare: bool) -> Result<usize, TemplateError> {
        if declare {
            self.variables.push(name);
            self.variables_most = self.variables_most.max(self.variables.len());
            return Ok(self.variables.len() - 1);
        }
        let found = self.variables.iter().rposition(|known| *known == name);
        found.ok_or(TemplateError { at, cause: Cause::Variable(name) })
    }

    /// The words from here without their blanks, as far as they matter to assignments.
    fn ahead(&self) -> Vec<(&Token, usize)> {
        let words = self.tokens[self.at..].iter().enumerate().filter(|(_, (token, _))| *token != Token::Blank);
        words.take(4).map(|(at, (token, _))| (token, self.at + at)).collect()
    }

    /// A pipeline, and the variable that it is for.
    fn assignment(&mut self) -> Result<(Option<usize>, Expr), TemplateError> {
        let target = match self.ahead().as_slice() {
            [(Token::Variable(name), at), (Token::Symbol(sign @ (":=" | "=")), sign_at), ..] => {
                Some((name.clone(), self.tokens[*at].1, *sign == ":=", *sign_at))
            }
            _ => None,
        };
        let Some((name, at, declare, sign)) = target else { return Ok((None, self.pipeline()?)) };
        self.at = sign + 1;
        let expr = self.pipeline()?;
        Ok((Some(self.variable(name, at, declare)?), expr))
    }

    fn choose(&mut self, word: &'static str) -> Result<Node, TemplateError> {
        self.deeper(|parser| {
            let scope = parser.variables.len();
            let mut arms = Vec::new();
            loop {
                let known = matches!(parser.peek(), Token::Name(name) if name == word);
                if !known {
                    return parser.refuse("\"}}\", or the word of the block again");
                }
                parser.next();
                let (variable, test) = parser.assignment()?;
                parser.close()?;
                let inner = parser.variables.len();
                let (body, stop, at) = parser.nodes()?;
                parser.variables.truncate(inner);
                arms.push(Arm { test, variable, body });
                let otherwise = match stop {
                    Stop::Else { again: true } => continue,
                    Stop::Else { again: false } => parser.last(at)?,
                    Stop::End => Vec::new(),
                    Stop::Text => return Err(unexpected(at, "{{end}}", &Token::End)),
                };
                parser.variables.truncate(scope);
                return Ok(Node::Choose { changes_dot: word == "with", arms, otherwise });
            }
        })
    }

    /// The nodes after `{{else}}` up to `{{end}}`.
    fn last(&mut self, at: usize) -> Result<Vec<Node>, TemplateError> {
        let scope = self.variables.len();
        let (nodes, stop, end) = self.nodes()?;
        self.variables.truncate(scope);
        match stop {
            Stop::End => Ok(nodes),
            Stop::Else { .. } => Err(unexpected(end, "{{end}}", &Token::Name("else".into()))),
            Stop::Text => Err(unexpected(at.max(end), "{{end}}", &Token::End)),
        }
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        self.deeper(|parser| {
            let scope = parser.variables.len();
            parser.next();
            let mut targets = Vec::new();
            let mut declare = false;
            let words = parser.ahead();
            let start = match words.as_slice() {
                [(Token::Variable(value), at), (Token::Symbol(sign @ (":=" | "=")), end), ..] => {
                    targets.push((value.clone(), parser.tokens[*at].1));
                    declare = *sign == ":=";
                    end + 1
                }
                [
                    (Token::Variable(key), at),
                    (Token::Symbol(","), _),
                    (Token::Variable(value), next),
                    (Token::Symbol(sign @ (":=" | "=")), end),
                ] => {
                    targets.push((key.clone(), parser.tokens[*at].1));
                    targets.push((value.clone(), parser.tokens[*next].1));
                    declare = *sign == ":=";
                    end + 1
                }
                _ => parser.at,
            };
            parser.at = start;
            let of = parser.pipeline()?;
            parser.close()?;
            let mut places = Vec::new();
            for (name, at) in targets {
                places.push(parser.variable(name, at, declare)?);
            }
            let value = places.pop();
            parser.loops += 1;
            let inner = parser.variables.len();
            let (body, stop, at) = parser.nodes()?;
            parser.variables.truncate(inner);
            parser.loops -= 1;
            let otherwise = match stop {
                Stop::End => Vec::new(),
                Stop::Else { again: false } => parser.last(at)?,
                Stop::Else { again: true } => return parser.refuse("\"}}\""),
                Stop::Text => return Err(unexpected(at, "{{end}}", &Token::End)),
            };
            parser.variables.truncate(scope);
            Ok(Node::Range { of, key: places.pop(), value, body, otherwise })
        })
    }

    /// Commands with `|` between them: each is the last argument of the next.
    fn pipeline(&mut self) -> Result<Expr, TemplateError> {
        let mut found = self.command(None)?;
        while *self.peek() == Token::Symbol("|") {
            self.next();
            found = self.command(Some(found))?;
        }
        Ok(found)
    }

    /// One command; what was piped into it is its last argument.
    fn command(&mut self, piped: Option<Expr>) -> Result<Expr, TemplateError> {
        self.skip_blank();
        let at = self.place();
        let name = if let Token::Name(name) = self.peek() { Some(name.clone()) } else { None };
        let function = name.filter(|name| !matches!(name.as_str(), "true" | "false" | "nil"));
        let first = match function {
            Some(_) => {
                self.next();
                None
            }
            None => Some(self.operand()?),
        };
        let mut args = Vec::new();
        loop {
            let blank = *self.peek() == Token::Blank;
            self.skip_blank();
            if matches!(self.peek(), Token::Close | Token::Symbol("|" | ")")) {
                break;
            }
            if !blank {
                return self.refuse("a blank, \"|\" or the end of the action");
            }
            args.push(self.operand()?);
        }
        match (function, first) {
            (Some(name), _) => {
                args.extend(piped);
                self.call(&name, at, args)
            }
            (None, Some(first)) if args.is_empty() && piped.is_none() => Ok(first),
            (None, first) => {
                let what = first.map_or("this", |first| first.kind.what());
                Err(TemplateError { at, cause: Cause::NotFunction(what.to_owned()) })
            }
        }
    }

    /// A value and the parts of it that are asked for without a blank.
    fn operand(&mut self) -> Result<Expr, TemplateError> {
        let (token, at) = self.next();
        let kind = match token.clone() {
            Token::Dot => Kind::Dot,
            Token::Field(name) => Kind::Field(Box::new(expr(at, Kind::Dot)?), name),
            Token::Variable(name) => Kind::Variable(self.variable(name, at, false)?),
            Token::Quoted(text) => Kind::Text(text),
            Token::Int(number) => Kind::Int(number),
            Token::Float(number) => Kind::Float(number),
            Token::Name(name) => match name.as_str() {
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "nil" => Kind::Nil,
                name => self.call(name, at, Vec::new())?.kind,
            },
            Token::Symbol("(") => {
                let inner = self.deeper(Self::pipeline)?;
                self.skip_blank();
                if *self.peek() != Token::Symbol(")") {
                    return self.refuse("\")\"");
                }
                self.next();
                inner.kind
            }
            Token::Text(_) | Token::Open | Token::Close | Token::Blank | Token::Symbol(_) | Token::End => {
                return Err(unexpected(at, "a value", &token));
            }
        };
        let mut found = expr(at, kind)?;
        while let Token::Field(name) = self.peek() {
            let name = name.clone();
            let (_, at) = self.next();
            found = expr(at, Kind::Field(Box::new(found), name))?;
        }
        Ok(found)
    }

    fn call(&mut self, name: &str, at: usize, args: Vec<Expr>) -> Result<Expr, TemplateError> {
        let fits = |name: &'static str, least: usize, most: usize, wanted: String| {
            let found = args.len();
            let cause = Cause::Arguments { name, wanted, found };
            if (least..=most).contains(&found) { Ok(()) } else { Err(TemplateError { at, cause }) }
        };
        let kind = match name {
            "__line__" => {
                fits("__line__", 0, 0, "0".into())?;
                Kind::Line
            }
            "__timestamp__" => {
                fits("__timestamp__", 0, 0, "0".into())?;
                Kind::Timestamp
            }
            "and" => {
                fits("and", 1, usize::MAX, "at least 1".into())?;
                Kind::And(args)
            }
            "or" => {
                fits("or", 1, usize::MAX, "at least 1".into())?;
                Kind::Or(args)
            }
            "count" => {
                fits("count", 2, 2, "2".into())?;
                self.regex("count", RegexUse::Count, args)?
            }
            "regexReplaceAll" => {
                fits("regexReplaceAll", 3, 3, "3".into())?;
                self.regex("regexReplaceAll", RegexUse::Replace, args)?
            }
            "regexReplaceAllLiteral" => {
                fits("regexReplaceAllLiteral", 3, 3, "3".into())?;
                self.regex("regexReplaceAllLiteral", RegexUse::ReplaceLiteral, args)?
            }
            "now" => return Err(TemplateError { at, cause: Cause::Unsupported("now") }),
            "call" => return Err(TemplateError { at, cause: Cause::Unsupported("call") }),
            name => {
                let function = functions::named(name);
                let function = function.ok_or_else(|| TemplateError { at, cause: Cause::Function(name.to_owned()) })?;
                fits(function.name, function.least, function.most, function.wanted())?;
                Kind::Call(function, args)
            }
        };
        expr(at, kind)
    }

    /// A function with a regular expression, which the template must hold itself.
    fn regex(&mut self, name: &'static str, usage: RegexUse, mut args: Vec<Expr>) -> Result<Kind, TemplateError> {
        let first = args.remove(0);
        let Kind::Text(text) = first.kind else {
            return Err(TemplateError { at: first.at, cause: Cause::RegexElsewhere(name) });
        };
        self.regexes += 1;
        if self.regexes > QUERY_REGEXES_MAX {
            let cause = Cause::TooMany { what: "regular expressions", max: QUERY_REGEXES_MAX };
            return Err(TemplateError { at: first.at, cause });
        }
        let regex = pattern::line_regex(&text).map_err(|error| {
            let why = if let QueryError::Parse { cause: ParseCause::Regex { why, .. }, .. } = &error {
                why.clone()
            } else {
                error.to_string()
            };
            TemplateError { at: first.at, cause: Cause::Regex(why) }
        })?;
        Ok(Kind::Regex(usage, Box::new(regex), args))
    }
}

impl Kind {
    /// As an error names what is no function.
    fn what(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Dot => "\".\"",
            Self::Variable(_) => "a variable",
            Self::Field(..) => "a label",
            Self::Line | Self::Timestamp | Self::Call(..) | Self::And(_) | Self::Or(_) | Self::Regex(..) => "a value",
        }
    }
}
