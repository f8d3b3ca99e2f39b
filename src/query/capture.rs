//! Pattern expressions such as `<ip> - <_> "<method> <_>"`: names and `<_>` stand for text, all else for itself.
//!
//! As a parser (`| pattern`) an expression is anchored at the start of the line, each capture ends where the next
//! literal first occurs, and a literal that does not occur gives its capture the rest of the line and ends the parsing.
//! As a filter (`|>`, `!>`) it is anchored at both ends, and each `<_>` stands for at least one character.

use memchr::memmem::Finder;

/// Why a text is no pattern expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The parser would extract nothing.
    #[error("at least one named capture, such as <name>, is required")]
    NoName,
    /// A filter extracts nothing.
    #[error("named captures such as <{0}> are not allowed in a filter; write <_>")]
    Name(String),
    /// Nothing tells where the first capture ends.
    #[error("two captures without a text between them")]
    Adjacent,
    /// One name for two captures.
    #[error("the capture <{0}> occurs more than once")]
    Twice(String),
}

#[derive(Clone, Debug)]
enum Part {
    /// `None`: `<_>`.
    Capture(Option<String>),
    Literal(Box<Finder<'static>>),
}

/// A pattern expression, ready to run in time linear in the line for each of its literals.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Literals and captures take turns.
    parts: Vec<Part>,
}

impl Capture {
    /// An expression that extracts: with a named capture, every name once.
    pub fn parser(text: &str) -> Result<Self, CaptureError> {
        let parts = parts(text)?;
        let mut names: Vec<&str> = parts.iter().filter_map(name).collect();
        if names.is_empty() {
            return Err(CaptureError::NoName);
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(CaptureError::Twice(pair[0].to_owned())),
            None => Ok(Self { parts }),
        }
    }

    /// An expression that only passes lines: without any named capture. The empty one passes empty lines.
    pub fn filter(text: &str) -> Result<Self, CaptureError> {
        let parts = parts(text)?;
        match parts.iter().find_map(name) {
            Some(name) => Err(CaptureError::Name(name.to_owned())),
            None => Ok(Self { parts }),
        }
    }

    /// The names and what they stand for in a line, in their order, as far as the line follows the expression.
    pub fn captures<'a>(&self, line: &'a str) -> impl Iterator<Item = (&str, &'a str)> {
        let mut parts = self.parts.iter().peekable();
        let mut rest = Some(line);
        if let Some(Part::Literal(literal)) = parts.peek() {
            rest = split(literal, line).filter(|(before, _)| before.is_empty()).map(|(_, after)| after);
            parts.next();
        }
        std::iter::from_fn(move || {
            loop {
                let Some(Part::Capture(name)) = parts.next() else { return None };
                let from = rest?;
                let found = match parts.next() {
                    Some(Part::Literal(literal)) => split(literal, from),
                    Some(Part::Capture(_)) | None => None,
                };
                let value = found.map_or(from, |(before, _)| before);
                rest = found.map(|(_, after)| after);
                if let Some(name) = name {
                    return Some((name.as_str(), value));
                }
            }
        })
    }

    /// The longest text that every line which follows the expression holds; empty where there is none.
    pub fn literal(&self) -> &[u8] {
        let literals = self.parts.iter().map(|part| match part {
            Part::Literal(literal) => literal.needle(),
            Part::Capture(_) => &[],
        });
        literals.max_by_key(|literal| literal.len()).unwrap_or_default()
    }

    /// Whether a whole line follows the expression.
    pub fn is_match(&self, line: impl AsRef<[u8]>) -> bool {
        let mut rest = line.as_ref();
        // What the capture before the next literal must have at least.
        let mut gap = 0;
        for (at, part) in self.parts.iter().enumerate() {
            let Part::Literal(literal) = part else {
                gap = 1;
                continue;
            };
            let needle = literal.needle();
            let last = at + 1 == self.parts.len();
            let start = if at == 0 {
                rest.starts_with(needle).then_some(0)
            } else if last {
                rest.ends_with(needle).then(|| rest.len() - needle.len())
            } else {
                rest.get(1..).and_then(|rest| literal.find(rest)).map(|start| start + 1)
            };
            let Some(start) = start.filter(|start| *start >= gap) else { return false };
            rest = &rest[start + needle.len()..];
            gap = 0;
        }
        if gap == 0 { rest.is_empty() } else { !rest.is_empty() }
    }
}

fn name(part: &Part) -> Option<&str> {
    match part {
        Part::Capture(name) => name.as_deref(),
        Part::Literal(_) => None,
    }
}

/// What stands before the first occurrence of a literal, and what after it.
fn split<'a>(literal: &Finder<'_>, text: &'a str) -> Option<(&'a str, &'a str)> {
    let start = literal.find(text.as_bytes())?;
    Some((&text[..start], &text[start + literal.needle().len()..]))
}

fn parts(text: &str) -> Result<Vec<Part>, CaptureError> {
    let literal = |text: &str| Part::Literal(Box::new(Finder::new(text).into_owned()));
    let mut parts = Vec::new();
    let (mut literal_from, mut at) = (0, 0);
    while let Some(open) = text[at..].find('<').map(|open| at + open) {
        let Some(length) = name_length(&text[open + 1..]) else {
            at = open + 1;
            continue;
        };
        if literal_from < open {
            parts.push(literal(&text[literal_from..open]));
        } else if !parts.is_empty() {
            return Err(CaptureError::Adjacent);
        }
        let name = &text[open + 1..=open + length];
        parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
        at = open + length + 2;
        literal_from = at;
    }
    if literal_from < text.len() {
        parts.push(literal(&text[literal_from..]));
    }
    Ok(parts)
}

/// The length of the name that a text begins with, where a `>` follows it.
fn name_length(text: &str) -> Option<usize> {
    let length = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let known = text[length..].starts_with('>') && !text.starts_with(|c: char| c.is_ascii_digit());
    (known && length > 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn captured<'a>(expression: &str, line: &'a str) -> Vec<(String, &'a str)> {
        let capture = Capture::parser(expression).unwrap();
        capture.captures(line).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn the_documented_lines_are_taken_apart() {
        let line = "0.191.12.2 - - [10/Jun/2021:09:14:29 +0000] \"GET /api/plugins/versioncheck HTTP/1.1\" 200 2 \"-\" \
                    \"Go-http-client/2.0\" \"13.76.247.102, 34.120.177.193\" \"TLSv1.2\" \"US\" \"\"";
        let expression = "<ip> - - <_> \"<method> <uri> <_>\" <status> <size> <_> \"<agent>\" <_>";
        let want = [
            ("ip", "0.191.12.2"),
            ("method", "GET"),
            ("uri", "/api/plugins/versioncheck"),
            ("status", "200"),
            ("size", "2"),
            ("agent", "Go-http-client/2.0"),
        ];
        assert_eq!(captured(expression, line), want.map(|(name, value)| (name.to_owned(), value)));
        let line = "level=debug ts=2021-06-10T09:24:13.472094048Z caller=logging.go:66 traceID=0568b66ad2d9294c \
                    msg=\"POST /loki/api/v1/push (204) 16.652862ms\"";
        let want = [("method", "POST"), ("path", "/loki/api/v1/push"), ("status", "204"), ("latency", "16.652862ms\"")];
        let found = captured("<_> msg=\"<method> <path> (<status>) <latency>", line);
        assert_eq!(found, want.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn parsing_goes_as_far_as_the_line_follows() {
        for (expression, line, want) in [
            ("<a> <b>", "1 2 3", "a=1 b=2 3"),
            ("x<a>", "x1", "a=1"),
            ("x<a>", "yx1", ""),
            ("<_>x<a>", "yx1", "a=1"),
            ("<a>,<b>;<c>", "1,2", "a=1 b=2"),
            ("<a>,<b>;<c>", "1", "a=1"),
            ("<a>,<_>;<c>", "1,2", "a=1"),
            ("<a>;", "1", "a=1"),
            ("<a>;", "1;2", "a=1"),
            ("<<from>> -> <<to>>", "<a@b> -> <c@d>", "from=a@b to=c@d"),
            ("<1a><b>", "<1a>z", "b=z"),
            ("<a b><c>", "<a b>z", "c=z"),
            ("<a>é<b>", "1é2", "a=1 b=2"),
            ("<a>", "", "a="),
            ("\"<a>\"", "\"\"", "a="),
        ] {
            let found: Vec<_> =
                captured(expression, line).iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(found.join(" "), want, "{expression} on {line}");
        }
    }

    #[test]
    fn expressions_that_say_too_little_are_refused() {
        for (expression, want) in [
            ("", CaptureError::NoName),
            ("text", CaptureError::NoName),
            ("<_> <_>", CaptureError::NoName),
            ("<a><b>", CaptureError::Adjacent),
            ("<a><_>", CaptureError::Adjacent),
            ("<a> <b> <a>", CaptureError::Twice("a".into())),
        ] {
            assert_eq!(Capture::parser(expression).unwrap_err(), want, "{expression}");
        }
        assert_eq!(Capture::filter("<_> <a>").unwrap_err(), CaptureError::Name("a".into()));
        assert_eq!(Capture::filter("<_><_>").unwrap_err(), CaptureError::Adjacent);
    }

    #[test]
    fn a_filter_is_held_to_the_whole_line() {
        let push = "ts=2024-04-05T08:40:13.585911094Z caller=http.go:194 level=debug traceID=23e54a271db607cc \
                    orgID=3648 msg=\"POST /push.v1.PusherService/Push (200) 12.684035ms\"";
        for (expression, line, want) in [
            ("<_> caller=http.go:194 level=debug <_> msg=\"POST /push.v1.PusherService/Push <_>", push, true),
            ("caller=http.go:194 <_>", push, false),
            ("<_> level=info <_>", push, false),
            ("", "", true),
            ("", "a", false),
            ("<_>", "", false),
            ("<_>", "a", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "ba", false),
            ("a<_>", "a", false),
            ("a<_>", "ab", true),
            ("<_>b", "b", false),
            ("<_>b", "abb", true),
            ("<_>b", "aba", false),
            ("a<_>a", "aa", false),
            ("a<_>a", "aba", true),
            ("<_>,<_>", ",,", false),
            ("<_>,<_>", ",,,", true),
            ("<_>ab<_>ab", "xabab", false),
            ("<_>ab<_>ab", "xababab", true),
            ("<_>ab<_>ab", "xabcab", true),
            ("aa<_>aa", "aaa", false),
        ] {
            let filter = Capture::filter(expression).unwrap();
            assert_eq!(filter.is_match(line), want, "{expression} on {line}");
            let literal = std::str::from_utf8(filter.literal()).unwrap();
            assert!(expression.contains(literal) && (!want || line.contains(literal)), "{literal} of {expression}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}", close in "[<>a_ 1é]{0,40}", line in "[<>a_ 1é]{0,60}") {
            for text in [text, close] {
                if let Ok(capture) = Capture::parser(&text) {
                    capture.captures(&line).count();
                }
                if let Ok(capture) = Capture::filter(&text) {
                    capture.is_match(&line);
                }
            }
        }

        #[test]
        fn a_filter_passes_what_the_same_regular_expression_passes(
            literals in prop::collection::vec("[ab]{1,2}", 0..4),
            open in any::<bool>(),
            closed in any::<bool>(),
            line in "[ab]{0,8}",
        ) {
            let all = |hole: &str| {
                let first = if open { hole } else { "" };
                let last = if closed && !literals.is_empty() { hole } else { "" };
                format!("{first}{}{last}", literals.join(hole))
            };
            let regex = regex_automata::meta::Regex::new(&["^", &all(".+"), "$"].concat()).unwrap();
            prop_assert_eq!(Capture::filter(&all("<_>")).unwrap().is_match(&line), regex.is_match(&line));
        }

        #[test]
        fn fields_between_blanks_come_back(fields in prop::collection::vec("[a-z0-9<>]{0,6}", 1..6)) {
            let names: Vec<_> = (0..fields.len()).map(|at| format!("f{at}")).collect();
            let expression = names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ");
            let line = fields.join(" ");
            let want: Vec<_> = names.into_iter().zip(fields.iter().map(String::as_str)).collect();
            prop_assert_eq!(captured(&expression, &line), want);
        }
    }
}
