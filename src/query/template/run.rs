//! A template's tree over one record, to text. It ends: loops go over values that are there, and work is bounded.

use std::borrow::Cow;

use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

use super::Context;
use super::dates::Time;
use super::error::{Cause, TemplateError};
use super::functions::{Call, text as text_of};
use super::parser::{Arm, Expr, Kind, Node, RegexUse, Tree};
use super::value::{Output, Value, Work};

/// Whether a loop goes on.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'r, 'a> {
    context: &'r Context<'a>,
    variables: Vec<Value<'r>>,
    dot: Value<'r>,
    out: Output,
    work: Work,
}

/// What a template makes of a record.
pub(super) fn render<'r>(tree: &'r Tree, context: &'r Context<'_>) -> Result<String, TemplateError> {
    let mut variables = vec![Value::Nil; tree.variables];
    variables[0] = Value::Labels;
    let mut run = Run { context, variables, dot: Value::Labels, out: Output::default(), work: Work::new() };
    run.nodes(&tree.nodes)?;
    Ok(run.out.0)
}

impl<'r, 'a: 'r> Run<'r, 'a> {
    fn nodes(&mut self, nodes: &'r [Node]) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = self.node(node)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'r Node) -> Result<Flow, TemplateError> {
        match node {
            Node::Text { at, text } => {
                let pushed = self.work.spend(text.len() + Work::STEP).and_then(|()| self.out.push(text));
                pushed.map_err(|cause| TemplateError { at: *at, cause })?;
            }
            Node::Write(expr) => {
                let value = self.value(expr)?;
                value.write(&mut self.out).map_err(|cause| TemplateError { at: expr.at, cause })?;
            }
            Node::Set(variable, expr) => self.variables[*variable] = self.value(expr)?,
            Node::Choose { changes_dot, arms, otherwise } => return self.choose(*changes_dot, arms, otherwise),
            Node::Range { of, key, value, body, otherwise } => return self.range(of, (*key, *value), body, otherwise),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn choose(&mut self, changes_dot: bool, arms: &'r [Arm], otherwise: &'r [Node]) -> Result<Flow, TemplateError> {
        for arm in arms {
            let value = self.value(&arm.test)?;
            let holds = value.is_true();
            if let Some(variable) = arm.variable {
                self.variables[variable] = value.clone();
            }
            if holds && changes_dot {
                let outer = std::mem::replace(&mut self.dot, value);
                let flow = self.nodes(&arm.body);
                self.dot = outer;
                return flow;
            }
            if holds {
                return self.nodes(&arm.body);
            }
        }
        self.nodes(otherwise)
    }

    fn range(
        &mut self,
        of: &'r Expr,
        variables: (Option<usize>, Option<usize>),
        body: &'r [Node],
        otherwise: &'r [Node],
    ) -> Result<Flow, TemplateError> {
        let over = self.value(of)?;
        let count = match &over {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::Int(count) => usize::try_from(*count).unwrap_or(0),
            Value::Nil => 0,
            Value::Bool(_) | Value::Float(_) | Value::Text(_) | Value::Time(_) | Value::Labels => {
                let cause = Cause::Type { name: "range", wanted: "list, map or int", found: over.kind() };
                return Err(TemplateError { at: of.at, cause });
            }
        };
        if count == 0 {
            return self.nodes(otherwise);
        }
        let outer = self.dot.clone();
        let mut entries = if let Value::Map(map) = &over { Some(map.iter()) } else { None };
        for at in 0..count {
            let index = Value::Int(at as i64);
            let (key, value) = match (&over, &mut entries) {
                (Value::List(list), _) => (index, list[at].clone()),
                (_, Some(entries)) => {
                    let (key, value) = entries.next().expect("a map has as many entries as it says");
                    (Value::text(key.clone()), value.clone())
                }
                (_, None) => (index.clone(), index),
            };
            let spent = self.work.spend(Work::STEP + key.size() + value.size());
            spent.map_err(|cause| TemplateError { at: of.at, cause })?;
            for (variable, value) in [(variables.0, &key), (variables.1, &value)] {
                if let Some(variable) = variable {
                    self.variables[variable] = value.clone();
                }
            }
            self.dot = value;
            if self.nodes(body)? == Flow::Break {
                break;
            }
        }
        self.dot = outer;
        Ok(Flow::On)
    }

    /// The value of an expression; what it cost is paid.
    fn value(&mut self, expr: &'r Expr) -> Result<Value<'r>, TemplateError> {
        let refused = |cause| TemplateError { at: expr.at, cause };
        let value = match &expr.kind {
            Kind::Nil => Value::Nil,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::Int(*number),
            Kind::Float(number) => Value::Float(*number),
            Kind::Text(text) => Value::text(text.as_str()),
            Kind::Dot => self.dot.clone(),
            Kind::Variable(variable) => self.variables[*variable].clone(),
            Kind::Line => Value::text(self.context.line),
            Kind::Timestamp => Value::Time(Time::from_nanos(self.context.timestamp)),
            Kind::Field(of, name) => {
                let of = self.value(of)?;
                self.field(&of, name).map_err(refused)?
            }
            Kind::And(parts) => return self.first_where(parts, false),
            Kind::Or(parts) => return self.first_where(parts, true),
            Kind::Call(function, args) => {
                let args = self.values(args)?;
                let mut call = Call { name: function.name, args: &args, work: &mut self.work };
                (function.run)(&mut call).map_err(refused)?
            }
            Kind::Regex(usage, regex, args) => {
                let args = self.values(args)?;
                self.regex(*usage, regex, &args).map_err(refused)?
            }
        };
        let fits = Output::default().reserve(value.size()).and_then(|()| self.work.spend(Work::STEP + value.size()));
        fits.map_err(refused)?;
        Ok(value)
    }

    fn values(&mut self, exprs: &'r [Expr]) -> Result<Vec<Value<'r>>, TemplateError> {
        exprs.iter().map(|expr| self.value(expr)).collect()
    }

    /// The first value that counts as `wanted`, or the last.
    fn first_where(&mut self, parts: &'r [Expr], wanted: bool) -> Result<Value<'r>, TemplateError> {
        let mut found = Value::Nil;
        for part in parts {
            found = self.value(part)?;
            if found.is_true() == wanted {
                break;
            }
        }
        Ok(found)
    }

    /// A label, empty where the record does not have it, or a part of a JSON object.
    fn field(&self, of: &Value<'r>, name: &'r str) -> Result<Value<'r>, Cause> {
        match of {
            Value::Labels => Ok(Value::text((self.context.lookup)(name).unwrap_or(""))),
            Value::Map(map) => Ok(map.get(name).cloned().unwrap_or(Value::Nil)),
            Value::Nil
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Time(_)
            | Value::List(_) => Err(Cause::Field { name: name.to_owned(), found: of.kind() }),
        }
    }

    fn regex(&mut self, usage: RegexUse, regex: &Regex, args: &[Value<'r>]) -> Result<Value<'r>, Cause> {
        let name = match usage {
            RegexUse::Count => "count",
            RegexUse::Replace => "regexReplaceAll",
            RegexUse::ReplaceLiteral => "regexReplaceAllLiteral",
        };
        let text = text_of(name, &args[0])?;
        let with = args.get(1).map_or(Ok(""), |with| text_of(name, with))?;
        // A search goes over a text more than once where its end has to be found.
        self.work.spend(text.len() * 4)?;
        match usage {
            RegexUse::Count => Ok(Value::Int(regex.find_iter(text).count() as i64)),
            RegexUse::Replace => replaced(regex, text, |captures, out| expand(with, regex, captures, text, out)),
            RegexUse::ReplaceLiteral => replaced(regex, text, |_, out| out.push(with)),
        }
    }
}

fn replaced<'r>(
    regex: &Regex,
    text: &str,
    mut with: impl FnMut(&Captures, &mut Output) -> Result<(), Cause>,
) -> Result<Value<'r>, Cause> {
    let mut out = Output::default();
    let mut last = 0;
    for captures in regex.captures_iter(text) {
        let found = captures.get_match().expect("captures are of a match");
        out.push(&text[last..found.start()])?;
        with(&captures, &mut out)?;
        last = found.end();
    }
    out.push(&text[last..])?;
    Ok(Value::Text(Cow::Owned(out.0)))
}

/// A replacement with its captures: `$1`, `${1}`, `$name`, `${name}`, and `$$` for a dollar. A name is as long as it
/// can be; one that the expression does not have is empty.
fn expand(with: &str, regex: &Regex, captures: &Captures, text: &str, out: &mut Output) -> Result<(), Cause> {
    let mut rest = with;
    while let Some(start) = rest.find('$') {
        out.push(&rest[..start])?;
        let after = &rest[start + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push("$")?;
            rest = after;
            continue;
        }
        let (inner, braced) = after.strip_prefix('{').map_or((after, false), |inner| (inner, true));
        let length = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, behind) = inner.split_at(length);
        let behind = if braced { behind.strip_prefix('}') } else { Some(behind) };
        let Some(behind) = behind.filter(|_| !name.is_empty()) else {
            out.push("$")?;
            rest = after;
            continue;
        };
        let group = match name.parse::<usize>() {
            Ok(group) => Some(group),
            Err(_) => regex.group_info().to_index(regex_automata::PatternID::ZERO, name),
        };
        out.push(group.and_then(|group| captures.get_group(group)).map_or("", |span| &text[span.range()]))?;
        rest = behind;
    }
    out.push(rest)
}
