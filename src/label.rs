//! Labels: the sorted name-value pairs that identify a stream.
//!
//! This room does not know where labels come from or which of them a query asks for.

use std::fmt;
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

impl fmt::Display for Labels {
    /// `{name="value", other="value"}`, with `"`, `\` and newlines escaped, as LogQL writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
