//! Regular expressions as RE2 reads them, rewritten for a reader whose classes know all of Unicode: `\d`, `\s`, `\w`
//! and `\b` are ASCII, a `{` that counts nothing is itself, `\Q..\E` quotes, and a class holds no other class.
//!
//! What is no expression in either is left for the reader to refuse.

/// The same expression for `regex-syntax`.
pub(super) fn rewritten(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '\\' => escape(rest, false, &mut out),
            '[' => class(rest, &mut out),
            '{' if !counts(rest) => {
                out.push_str("\\{");
                &rest[1..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

/// Whether a text begins with `{2}`, `{2,}` or `{2,3}`.
fn counts(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// Writes what a text begins with, a backslash and what belongs to it, and gives what follows.
fn escape<'a>(text: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = text[1..].chars().next() else {
        out.push('\\');
        return "";
    };
    let rest = &text[1 + c.len_utf8()..];
    let set = match c {
        'd' | 'D' => "0-9",
        's' | 'S' => "\\t\\n\\f\\r\\x20",
        'w' | 'W' => "0-9A-Za-z_",
        'b' | 'B' if !in_class => {
            out.push_str(if c == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
            return rest;
        }
        'Q' if !in_class => {
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            regex_syntax::escape_into(quoted, out);
            return rest;
        }
        c => {
            out.extend(['\\', c]);
            // Of `\x{1F600}` and `\p{Greek}` the braces are a part.
            let length = if matches!(c, 'x' | 'p' | 'P') && rest.starts_with('{') { rest.find('}') } else { None };
            let (braces, rest) = rest.split_at(length.map_or(0, |length| length + 1));
            out.push_str(braces);
            return rest;
        }
    };
    match (in_class, c.is_ascii_uppercase()) {
        (true, false) => out.push_str(set),
        (_, negated) => {
            out.push_str(if negated { "[^" } else { "[" });
            out.push_str(set);
            out.push(']');
        }
    }
    rest
}

/// Writes the class that a text begins with, and gives what follows.
fn class<'a>(text: &'a str, out: &mut String) -> &'a str {
    let mut rest = &text[1..];
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = after;
    }
    while let Some(c) = rest.chars().next() {
        rest = match c {
            ']' => {
                out.push(']');
                return &rest[1..];
            }
            '\\' => escape(rest, true, out),
            '[' => match rest.strip_prefix("[:").and_then(|inner| inner.find(":]")) {
                Some(length) => {
                    out.push_str(&rest[..length + 4]);
                    &rest[length + 4..]
                }
                None => {
                    out.push_str("\\[");
                    &rest[1..]
                }
            },
            '&' | '~' => {
                out.extend(['\\', c]);
                &rest[1..]
            }
            '-' if rest.starts_with("--") => {
                out.push_str("\\-");
                &rest[1..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_automata::meta::Regex;

    use super::*;

    fn is_match(pattern: &str, line: &str) -> bool {
        Regex::new(&rewritten(pattern)).unwrap().is_match(line)
    }

    #[test]
    fn classes_and_word_boundaries_are_ascii() {
        for (pattern, line, want) in [
            (r"^\d$", "7", true),
            (r"^\d$", "٣", false),
            (r"^\D$", "٣", true),
            (r"^\w$", "é", false),
            (r"^\W$", "é", true),
            (r"^\s$", "\u{a0}", false),
            (r"^\s$", "\u{b}", false),
            (r"^\S$", "\u{b}", true),
            (r"^\s\s\s\s\s$", " \t\n\r\u{c}", true),
            (r"^[\d\s]+$", "1 2", true),
            (r"^[^\w]$", "é", true),
            (r"^[\Wa]+$", "éa!", true),
            (r"^[\Wa]+$", "b", false),
            (r"\bfoo\b", "éfooé", true),
            (r"\bfoo\b", "xfoo", false),
            (r"\Bé\B", "é", true),
            (r"(?i)^\w$", "K", true),
        ] {
            assert_eq!(is_match(pattern, line), want, "{pattern} on {line}");
        }
    }

    #[test]
    fn braces_quotes_and_classes_are_those_of_re2() {
        for (pattern, line, want) in [
            (r#"{"level":"error""#, r#"{"level":"error"}"#, true),
            (r"a{2}", "aa", true),
            (r"a{2}", "a{2}", false),
            (r"^a{2,}$", "aaa", true),
            (r"^a{1,2}$", "aaa", false),
            (r"a{,2}", "a{,2}", true),
            (r"a{x}", "a{x}", true),
            (r"a{", "a{", true),
            (r"\x{e9}", "é", true),
            (r"\p{Greek}", "α", true),
            (r"\pL", "é", true),
            (r"\Qa.b{\E.", "a.b{c", true),
            (r"\Qa.b", "axb", false),
            (r"^[[a]$", "[", true),
            (r"^[a&&b]$", "&", true),
            (r"^[a~~b]$", "~", true),
            (r"^[--/]$", ".", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "b", true),
            (r"^[[:alpha:]_]+$", "a_b", true),
            (r"^[{}]$", "{", true),
            (r"^[\]\[]+$", "[]", true),
            (r"é{2}", "éé", true),
        ] {
            assert_eq!(is_match(pattern, line), want, "{pattern} on {line}");
        }
        for pattern in ["(", "[", "[a", "a\\", "*", "{2}", "[z-a]", r"\Z", "(?P<a"] {
            assert!(Regex::new(&rewritten(pattern)).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "\\PC{0,40}",
            close in r"[\\\[\]\{\}()^$|*+?.,:&~0-9dDsSwWbBQExpa-cé-]{0,40}",
        ) {
            for text in [text, close] {
                let _ = rewritten(&text);
            }
        }

        #[test]
        fn expressions_without_any_of_it_stay_as_they_are(text in r"[a-c.*+?()|^$é]{0,20}") {
            prop_assert_eq!(rewritten(&text), text);
        }
    }
}
