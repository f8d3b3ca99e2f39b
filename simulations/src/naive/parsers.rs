//! JSON and logfmt, as far as labels are extracted from them.

/// A JSON value with the text it was read from.
pub(super) struct Json<'a> {
    raw: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Text(String),
    /// A number or a boolean, as it was written.
    Bare,
    Null,
    Array(Vec<Json<'a>>),
    Object(Vec<(String, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// A whole document; `None` where it is none.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let value = value(&mut rest)?;
        rest.trim_start_matches(SPACE).is_empty().then_some(value)
    }

    /// Whether there are properties in it.
    pub(super) fn is_object(&self) -> bool {
        matches!(self.kind, Kind::Object(_))
    }

    /// Every property that is neither null nor an array, nested ones with the names above them and `_` between.
    pub(super) fn properties(&self) -> Vec<(String, String)> {
        let Kind::Object(fields) = &self.kind else { return Vec::new() };
        let mut found = Vec::new();
        for (name, field) in fields {
            match &field.kind {
                Kind::Text(text) => found.push((name.clone(), text.clone())),
                Kind::Bare => found.push((name.clone(), field.raw.to_owned())),
                Kind::Null | Kind::Array(_) => {}
                Kind::Object(_) => {
                    found.extend(field.properties().into_iter().map(|(inner, text)| (format!("{name}_{inner}"), text)));
                }
            }
        }
        found
    }

    /// Its own fields that are texts.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let Kind::Object(fields) = &self.kind else { return Vec::new() };
        let text = |(name, field): &(String, Json<'_>)| match &field.kind {
            Kind::Text(text) => Some((name.clone(), text.clone())),
            Kind::Bare | Kind::Null | Kind::Array(_) | Kind::Object(_) => None,
        };
        fields.iter().filter_map(text).collect()
    }

    /// What lies at `a.b[0]["c d"]`, as a label has it; arrays and objects as JSON.
    pub(super) fn at(&self, path: &str) -> Option<String> {
        let mut here = self;
        for step in steps(path) {
            here = match (&here.kind, step) {
                (Kind::Object(fields), Step::Name(name)) => &fields.iter().find(|field| field.0 == name)?.1,
                (Kind::Array(items), Step::Index(at)) => items.get(at)?,
                _ => return None,
            };
        }
        match &here.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Null => None,
            Kind::Bare | Kind::Array(_) | Kind::Object(_) => Some(here.raw.to_owned()),
        }
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn value<'a>(rest: &mut &'a str) -> Option<Json<'a>> {
    *rest = rest.trim_start_matches(SPACE);
    let from = *rest;
    let kind = match from.chars().next()? {
        '"' => Kind::Text(quoted(rest)?),
        '{' => Kind::Object(list(rest, '}', |rest| {
            *rest = rest.trim_start_matches(SPACE);
            let name = quoted(rest)?;
            *rest = rest.trim_start_matches(SPACE).strip_prefix(':')?;
            Some((name, value(rest)?))
        })?),
        '[' => Kind::Array(list(rest, ']', value)?),
        _ => {
            let end = from.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+-.".contains(letter));
            let word = &from[..end.unwrap_or(from.len())];
            *rest = &from[word.len()..];
            let number = super::texts::regex(r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$");
            match word {
                "null" => Kind::Null,
                "true" | "false" => Kind::Bare,
                word if number.is_match(word) => Kind::Bare,
                _ => return None,
            }
        }
    };
    Some(Json { raw: &from[..from.len() - rest.len()], kind })
}

/// Items with commas between them, up to the closing bracket.
fn list<'a, T>(rest: &mut &'a str, close: char, mut item: impl FnMut(&mut &'a str) -> Option<T>) -> Option<Vec<T>> {
    *rest = rest[1..].trim_start_matches(SPACE);
    let mut items = Vec::new();
    if let Some(after) = rest.strip_prefix(close) {
        *rest = after;
        return Some(items);
    }
    loop {
        items.push(item(rest)?);
        *rest = rest.trim_start_matches(SPACE);
        if let Some(after) = rest.strip_prefix(close) {
            *rest = after;
            return Some(items);
        }
        *rest = rest.strip_prefix(',')?;
    }
}

/// A text in double quotes at the front.
fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = String::new();
    let mut letters = rest.strip_prefix('"')?.chars();
    loop {
        match letters.next()? {
            '"' => {
                *rest = letters.as_str();
                return Some(text);
            }
            '\\' => match letters.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'u' => {
                    let code = letters.as_str().get(..4)?;
                    letters = letters.as_str()[4..].chars();
                    text.push(char::from_u32(u32::from_str_radix(code, 16).ok()?).unwrap_or('\u{fffd}'));
                }
                letter if "\"\\/".contains(letter) => text.push(letter),
                _ => return None,
            },
            letter if letter < ' ' => return None,
            letter => text.push(letter),
        }
    }
}

enum Step {
    Name(String),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let mut after = inside;
            match quoted(&mut after) {
                Some(name) => steps.push(Step::Name(name)),
                None => {
                    let end = inside.find(']').expect("queries hold sound paths");
                    steps.push(Step::Index(inside[..end].parse().expect("an index")));
                    after = &inside[end..];
                }
            }
            rest = after.strip_prefix(']').expect("queries hold sound paths");
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    steps
}

/// The pairs of a line in their order, a key without a value with an empty one, and whether the line was read to its
/// end: strict reading ends at the first pair that is none, otherwise it is skipped.
pub(super) fn logfmt(line: &str, strict: bool) -> (Vec<(String, String)>, bool) {
    let (mut pairs, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        match pair(rest, word) {
            Some((pair, after)) => {
                pairs.push(pair);
                rest = after;
            }
            None if strict => return (pairs, false),
            None => rest = &rest[word..],
        }
        rest = rest.trim_start();
    }
    (pairs, true)
}

/// The pair at the front, and what comes after it. `word` is where the first space is.
fn pair(text: &str, word: usize) -> Option<((String, String), &str)> {
    let (key, value) = text[..word].split_once('=').unwrap_or((&text[..word], ""));
    if key.is_empty() || key.contains('"') {
        return None;
    }
    if value.starts_with('"') {
        let mut after = &text[key.len() + 1..];
        let value = quoted(&mut after)?;
        return (after.is_empty() || after.starts_with(char::is_whitespace))
            .then_some(((key.to_owned(), value), after));
    }
    (!value.contains(['=', '"'])).then(|| ((key.to_owned(), value.to_owned()), &text[word..]))
}
