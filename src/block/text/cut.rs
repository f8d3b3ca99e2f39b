//! Cuts a line into what is constant and what varies. It does not know what other lines look like.
//!
//! A *word* is a longest run of letters and digits; bytes from 0x80 on count as letters. A word that holds a digit is a
//! variable. So is what stands between two double quotes where it holds a blank or a slash: a path, an agent, a message. In
//! a template a variable is one byte, [`WORD`] or [`QUOTED`].

use crate::limits::TEMPLATE_VARIABLES_MAX;

/// Stands for a word with a digit.
pub(super) const WORD: u8 = 0;
/// Stands for what is between two double quotes.
pub(super) const QUOTED: u8 = 1;

/// Where a variable stands in its line, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// How many variables a template has.
pub(super) fn variables(template: &[u8]) -> usize {
    template.iter().filter(|byte| matches!(**byte, WORD | QUOTED)).count()
}

/// Whether a byte is part of a word.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn word_end(line: &[u8], from: usize) -> (usize, bool) {
    let mut digit = false;
    let mut at = from;
    while at < line.len() && is_word(line[at]) {
        digit |= line[at].is_ascii_digit();
        at += 1;
    }
    (at, digit)
}

/// Where the quotes end that open at `from`, and whether what is between them varies.
fn quoted_end(line: &[u8], from: usize) -> Option<(usize, bool)> {
    let mut varies = false;
    let mut at = from + 1;
    loop {
        match line.get(at)? {
            b'"' => return Some((at, varies)),
            b'\\' => at += 2,
            byte => {
                varies |= matches!(byte, b' ' | b'/');
                at += 1;
            }
        }
    }
}

/// Writes the template of a line to `template` and its variables to `spans`, after what is there. `false` where the line
/// cannot be one of a template; what was written is then to be dropped.
pub(super) fn cut(line: &[u8], template: &mut Vec<u8>, spans: &mut Vec<Span>) -> bool {
    let span = |from: usize, to: usize| Span { from: from as u32, to: to as u32 };
    let before = spans.len();
    let mut at = 0;
    while at < line.len() {
        let byte = line[at];
        if is_word(byte) {
            let (end, varies) = word_end(line, at);
            if varies {
                template.push(WORD);
                spans.push(span(at, end));
            } else {
                template.extend_from_slice(&line[at..end]);
            }
            at = end;
        } else if byte == WORD || byte == QUOTED {
            return false;
        } else {
            template.push(byte);
            at += 1;
            if byte == b'"'
                && let Some((end, true)) = quoted_end(line, at - 1)
            {
                template.extend_from_slice(&[QUOTED, b'"']);
                spans.push(span(at, end));
                at = end + 1;
            }
        }
    }
    spans.len() - before <= TEMPLATE_VARIABLES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(line: &str) -> (String, Vec<&str>) {
        let (mut template, mut spans) = (Vec::new(), Vec::new());
        assert!(cut(line.as_bytes(), &mut template, &mut spans), "{line}");
        let text = String::from_utf8(template).unwrap().replace('\0', "#").replace('\u{1}', "@");
        (text, spans.iter().map(|span| &line[span.from as usize..span.to as usize]).collect())
    }

    #[test]
    fn words_with_digits_and_quoted_texts_vary() {
        for (line, text, variables) in [
            ("", "", vec![]),
            ("took 17ms, rc=0x1f", "took #, rc=#", vec!["17ms", "0x1f"]),
            ("10.0.0.1 - \"GET /a?b=1\" 200", "#.#.#.# - \"@\" #", vec!["10", "0", "0", "1", "GET /a?b=1", "200"]),
            (r#"{"n":1,"a":"b","c":"d e"}"#, r##"{"n":#,"a":"b","c":"@"}"##, vec!["1", "d e"]),
            (r#"say "one \" two" now"#, r#"say "@" now"#, vec![r#"one \" two"#]),
            ("an open \"quote / 1", "an open \"quote / #", vec!["1"]),
            ("café 4é", "café #", vec!["4é"]),
        ] {
            assert_eq!(template(line), (text.to_owned(), variables), "{line}");
        }
    }

    #[test]
    fn a_line_with_the_bytes_that_stand_for_variables_has_no_template() {
        assert!(!cut(b"a\0b", &mut Vec::new(), &mut Vec::new()));
        assert!(!cut(b"a\x01b", &mut Vec::new(), &mut Vec::new()));
    }
}
