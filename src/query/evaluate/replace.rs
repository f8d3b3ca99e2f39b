//! `label_replace`: a label is written from what an expression captures of another.

use regex_automata::meta::Regex;

use super::Series;
use crate::label::Labels;
use crate::query::error::QueryError;
use crate::query::pattern::value_regex;

/// A part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A capture; `None`: of a group that the expression does not have.
    Group(Option<usize>),
}

/// What `label_replace` does to one series.
pub(super) struct Replace<'a> {
    to: &'a str,
    from: &'a str,
    regex: Regex,
    parts: Vec<Part>,
}

/// `$name`, `${name}`, `$1` and `${1}` are captures, `$$` is a dollar sign, and so is a `$` that begins nothing. Without
/// braces a name is as long as it can be: `$1x` is the group named `1x`.
fn parts(replacement: &str, group: impl Fn(&str) -> Option<usize>) -> Vec<Part> {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after_name) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or(("", after)),
            None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
        };
        if name.is_empty() || !name.chars().all(is_word) {
            text.push('$');
            rest = after;
            continue;
        }
        parts.push(Part::Text(std::mem::take(&mut text)));
        parts.push(Part::Group(group(name)));
        rest = after_name;
    }
    text.push_str(rest);
    parts.push(Part::Text(text));
    parts
}

impl<'a> Replace<'a> {
    /// A parse error where the expression does not compile.
    pub(super) fn new(to: &'a str, replacement: &str, from: &'a str, regex: &str) -> Result<Self, QueryError> {
        let regex = value_regex(regex)?;
        let group = |name: &str| {
            let number = name.parse().ok().filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()));
            number.or_else(|| regex.group_info().to_index(regex_automata::PatternID::ZERO, name))
        };
        let parts = parts(replacement, group);
        Ok(Self { to, from, regex, parts })
    }

    /// The series with its label written, or as it was where the expression does not match. An empty value removes the
    /// label.
    pub(super) fn apply(&self, series: Series) -> Series {
        let value = series.labels.get(self.from).unwrap_or("");
        let mut captures = self.regex.create_captures();
        self.regex.captures(value, &mut captures);
        if !captures.is_match() {
            return series;
        }
        let part = |part: &'_ Part| match part {
            Part::Text(text) => text.clone(),
            Part::Group(group) => {
                let span = group.and_then(|group| captures.get_group(group));
                span.map_or(String::new(), |span| value[span.start..span.end].to_owned())
            }
        };
        let written: String = self.parts.iter().map(part).collect();
        let pairs = series.labels.iter().chain([(self.to, written.as_str())]);
        Series { labels: Labels::new(pairs), points: series.points.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(value: &str, replacement: &str, regex: &str) -> Option<String> {
        let replace = Replace::new("to", replacement, "from", regex).unwrap();
        let series = Series { labels: Labels::new([("from", value), ("to", "old")]), points: Vec::new() };
        replace.apply(series).labels.get("to").map(str::to_owned)
    }

    #[test]
    fn captures_are_written_as_go_expands_them() {
        for (value, replacement, regex, expected) in [
            ("a:c", "$1", "(.*):.*", Some("a")),
            ("a:c", "$name", "(?P<name>.*):(?P<version>.*)", Some("a")),
            ("a:c", "${2}-$1.$$", "(.*):(.*)", Some("c-a.$")),
            ("a:c", "$1x", "(.*):(.*)", None),
            ("a:c", "$9$ ${ ${} $-", "(.*):(.*)", Some("$ ${ ${} $-")),
            ("a:c", "", ".*", None),
            ("a:c", "new", "a", Some("old")),
            ("", "none", "", Some("none")),
            ("a\nb", "$1", "(.*)", Some("a\nb")),
            ("caf\u{e9}", "$1", "caf(.)", Some("\u{e9}")),
        ] {
            assert_eq!(replaced(value, replacement, regex).as_deref(), expected, "{value} {replacement} {regex}");
        }
        assert!(Replace::new("to", "", "from", "(").is_err());
    }
}
