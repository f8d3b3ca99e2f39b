//! Labels: the sorted name-value pairs that identify a stream.
//!
//! This room does not know where labels come from or which of them a query asks for.

use std::fmt::{self, Write};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The labels of one stream, sorted by name, each name once. Cheap to clone; compared by content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Sorts the pairs; of a name that comes twice the last value stands. Pairs with an empty value are left out, as
    /// in Prometheus: an empty label is an absent one.
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> = pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unique: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match unique.last_mut() {
                Some(last) if last.0 == pair.0 => *last = pair,
                _ => unique.push(pair),
            }
        }
        unique.retain(|pair| !pair.1.is_empty());
        Self(unique.into())
    }

    /// A name with the empty value, which no stream has: it stands for all that have the label.
    pub fn naming(name: &str) -> Self {
        Self([(Box::from(name), Box::from(""))].into())
    }

    /// The value of a label; `None` where there is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|pair| (*pair.0).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// The pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    pub fn raw_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// A hash that is the same on every node and in every version: xxh3-64 of the pairs, each byte string ended by
    /// 0xff, which UTF-8 never holds.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.0.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
        for (name, value) in self.iter() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0xff);
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0xff);
        }
        xxh3_64(&bytes)
    }
}

/// Whether a label may have this name: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|first| !first.is_ascii_digit())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

impl fmt::Display for Labels {
    /// `{name="value", other="value"}`, with `"`, `\`, tabs and line ends escaped, as LogQL writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}=\"")?;
            for character in value.chars() {
                match character {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_str("\"")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_each_name_comes_once() {
        let labels = Labels::new([("b", "1"), ("a", "2"), ("b", "3"), ("empty", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("empty"), None);
        assert_eq!(labels.raw_bytes(), 4);
    }

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(Labels::new([("a", "1")]).hash(), xxh3_64(b"a\xff1\xff"));
        assert_ne!(Labels::new([("a", "1b")]).hash(), Labels::new([("a1", "b")]).hash());
    }

    #[test]
    fn labels_are_written_as_logql_reads_them() {
        let labels = Labels::new([("a", "say \"x\"\n\\"), ("b", "caf\u{e9}")]);
        assert_eq!(labels.to_string(), "{a=\"say \\\"x\\\"\\n\\\\\", b=\"caf\u{e9}\"}");
    }

    #[test]
    fn a_label_name_is_an_identifier() {
        assert!(is_label_name("_a9"));
        for bad in ["", "9a", "a-b", "a.b", "\u{e9}"] {
            assert!(!is_label_name(bad), "{bad}");
        }
    }
}
