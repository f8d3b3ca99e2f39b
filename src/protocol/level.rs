//! The level of a record: from a field that names it, else from its line.
//!
//! The line is looked at once, in its first `LEVEL_SCAN_BYTES`, by one automaton over the words and the keys. A key such
//! as `"level":"warn"` or `level=warn` wins over a word; else the first word that stands alone counts. It is a guess that
//! costs little, not a parser: it does not know whether the line is JSON or logfmt.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::limits::LEVEL_SCAN_BYTES;
use crate::record::Text;

/// The name of the metadata field that carries the level.
pub(super) const DETECTED_LEVEL: Text = Text::from_static("detected_level");

/// How bad a record says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
    Fatal,
    Unknown,
}

impl Level {
    /// The value of `detected_level`.
    pub(super) const fn text(self) -> Text {
        Text::from_static(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Fatal => "fatal",
            Self::Unknown => "unknown",
        })
    }

    /// The level that a field's value means, short forms too.
    fn of_value(value: &[u8]) -> Option<Self> {
        Some(match lowercase(value)?.as_slice() {
            b"trace" | b"trc" => Self::Trace,
            b"debug" | b"dbg" | b"dbug" => Self::Debug,
            b"info" | b"inf" | b"information" | b"informational" | b"notice" => Self::Info,
            b"warn" | b"warning" | b"wrn" => Self::Warn,
            b"error" | b"err" | b"eror" => Self::Error,
            b"critical" | b"crit" | b"alert" => Self::Critical,
            b"fatal" | b"emerg" | b"emergency" | b"panic" => Self::Fatal,
            _ => return None,
        })
    }

    /// The level that a word in running text means; short forms mean too much else.
    fn of_word(word: &[u8]) -> Option<Self> {
        Some(match lowercase(word)?.as_slice() {
            b"trace" => Self::Trace,
            b"debug" => Self::Debug,
            b"info" | b"notice" => Self::Info,
            b"warn" | b"warning" => Self::Warn,
            b"error" | b"errors" => Self::Error,
            b"critical" => Self::Critical,
            b"fatal" | b"panic" => Self::Fatal,
            _ => return None,
        })
    }

    /// The numbers of pino and bunyan, JSON loggers that write no words.
    fn of_number(number: &[u8]) -> Option<Self> {
        Some(match number {
            b"10" => Self::Trace,
            b"20" => Self::Debug,
            b"30" => Self::Info,
            b"40" => Self::Warn,
            b"50" => Self::Error,
            b"60" => Self::Fatal,
            _ => return None,
        })
    }
}

/// The word in small letters; `None` where it is longer than every word known here.
fn lowercase(word: &[u8]) -> Option<Word> {
    let mut bytes = [0; Word::MOST];
    bytes.get_mut(..word.len())?.copy_from_slice(word);
    bytes.make_ascii_lowercase();
    Some(Word { bytes, length: word.len() })
}

struct Word {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Word {
    const MOST: usize = 16;

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Whether a label or metadata field of this name carries a level.
fn names_a_level(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [b"level", b"severity", b"severity_text", b"lvl", b"log_level", b"loglevel"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The level that fields beside the line state.
pub(super) fn of_fields<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<Level> {
    fields
        .into_iter()
        .find_map(|(name, value)| if names_a_level(name) { Level::of_value(value.trim_ascii()) } else { None })
}

/// Patterns up to here are keys, the others words.
const KEYS: usize = 9;

#[rustfmt::skip]
const PATTERNS: [&str; KEYS + 24] = [
    "level", "Level", "LEVEL", "severity", "Severity", "SEVERITY", "lvl", "Lvl", "LVL",
    "trace", "Trace", "TRACE", "debug", "Debug", "DEBUG", "info", "Info", "INFO", "notice", "Notice", "NOTICE",
    "warn", "Warn", "WARN", "error", "Error", "ERROR", "critical", "Critical", "CRITICAL",
    "fatal", "Fatal", "FATAL",
];

static AUTOMATON: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .kind(Some(AhoCorasickKind::DFA))
        .build(PATTERNS)
        .expect("a few short patterns fit an automaton")
});

/// The level that a line states or lets guess; `Unknown` where it does neither.
pub(super) fn of_line(line: &[u8]) -> Level {
    let scanned = &line[..line.len().min(LEVEL_SCAN_BYTES)];
    let mut word = None;
    for found in AUTOMATON.find_iter(scanned) {
        if scanned[..found.start()].last().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            continue;
        }
        if found.pattern().as_usize() < KEYS {
            if let Some(level) = value_after(&scanned[found.end()..]) {
                return level;
            }
        } else if word.is_none() {
            word = word_at(scanned, found.start());
        }
    }
    word.unwrap_or(Level::Unknown)
}

/// The word that starts here, if it stands alone.
fn word_at(text: &[u8], start: usize) -> Option<Level> {
    let length = text[start..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let after = text.get(start + length);
    if text[..start].last() == Some(&b'_') || after.is_some_and(|byte| byte.is_ascii_digit() || *byte == b'_') {
        return None;
    }
    Level::of_word(&text[start..start + length])
}

/// The level that is the value of a key which ends here: `":"warn"`, `=warn`, `: 40`.
fn value_after(rest: &[u8]) -> Option<Level> {
    let rest = rest.strip_prefix(b"_text").unwrap_or(rest);
    let rest = rest.strip_prefix(b"\\").unwrap_or(rest);
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest).trim_ascii_start();
    let rest = rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b":"))?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\\").unwrap_or(rest);
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let value = &rest[..length];
    Level::of_value(value).or_else(|| Level::of_number(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_states_its_level() {
        for (line, want) in [
            ("081109 203615 148 INFO dfs.DataNode$PacketResponder: terminating", Level::Info),
            ("[Sun Dec 04 04:47:44 2005] [error] mod_jk child workerEnv in error state 6", Level::Error),
            ("WARNING: 3 errors were ignored", Level::Warn),
            ("{\"msg\":\"an error of old\",\"level\":\"info\"}", Level::Info),
            ("{\"level\":50,\"msg\":\"x\"}", Level::Error),
            ("{\"severity\" : \"CRITICAL\"}", Level::Critical),
            ("{\"log\":\"{\\\"level\\\":\\\"warn\\\"}\"}", Level::Warn),
            ("ts=1 level=warn msg=\"error\"", Level::Warn),
            ("ts=1 lvl=dbug msg=x", Level::Debug),
            ("level=verbose but fatal", Level::Fatal),
            ("thread panicked", Level::Unknown),
            ("information about errors_total and info2", Level::Unknown),
            ("IOError in stderror", Level::Unknown),
            ("", Level::Unknown),
        ] {
            assert_eq!(of_line(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn only_the_first_bytes_of_a_line_are_looked_at() {
        let mut line = vec![b' '; LEVEL_SCAN_BYTES];
        line.extend_from_slice(b"ERROR");
        assert_eq!(of_line(&line), Level::Unknown);
        assert_eq!(of_line(&line[4..]), Level::Unknown);
        assert_eq!(of_line(&line[5..]), Level::Error);
    }

    #[test]
    fn fields_beside_the_line_state_the_level() {
        let fields =
            |pairs: &'static [(&str, &str)]| of_fields(pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        assert_eq!(fields(&[("app", "error"), ("Severity_Text", " WARN ")]), Some(Level::Warn));
        assert_eq!(fields(&[("level", "verbose"), ("lvl", "dbg")]), Some(Level::Debug));
        assert_eq!(fields(&[("levels", "warn")]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..64), key in 0..PATTERNS.len()) {
            let _ = of_line(&line);
            let _ = of_line(&[PATTERNS[key].as_bytes(), &line].concat());
        }
    }
}
