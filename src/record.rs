//! Records: what users send and find again. This room does not know how records are encoded or where they live.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::label::Labels;

/// UTF-8 text that shares the buffer it was decoded from.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Takes the bytes as text; `None` where they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).ok()?;
        Some(Self(bytes))
    }

    /// Text that lives as long as the program; costs nothing to clone.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// A part of a buffer as text, without a copy and without a second look at its bytes.
    ///
    /// Panics where `part` does not lie in `buffer`.
    pub fn within(buffer: &Bytes, part: &str) -> Self {
        Self(buffer.slice_ref(part.as_bytes()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }

    /// Its bytes, without looking at them again.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// One log line with its time and structured metadata. Its labels are its stream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The line as it was sent.
    pub line: Text,
    /// Fields beside the line, in the order they were sent.
    pub metadata: Vec<(Text, Text)>,
}

impl Record {
    /// Bytes of the line and of the metadata's names and values.
    pub fn raw_bytes(&self) -> usize {
        self.line.len() + self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// The records of one stream within one request, in the order they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecords {
    /// The stream.
    pub labels: Labels,
    /// Its records.
    pub records: Vec<Record>,
}

/// A stream of one tenant. Ordered by tenant, then labels: the order of sealed blocks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What identifies it within the tenant.
    pub labels: Labels,
}

impl Stream {
    /// Appends its stored form, the same wherever streams are kept: tenant, u32 number of labels, then name and value
    /// of each; every text is a u32 length and its bytes; little-endian.
    pub fn encode_to(&self, into: &mut Vec<u8>) {
        put_text(into, &self.tenant);
        into.extend_from_slice(&count(self.labels.len()));
        for (name, value) in self.labels.iter() {
            put_text(into, name);
            put_text(into, value);
        }
    }

    /// Takes one from the front of `bytes`; `None` where none is, or where its labels are not as [`Labels::new`]
    /// would have made them.
    pub fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let tenant = Arc::from(take_text(bytes)?);
        let labels = usize::try_from(take_u32(bytes)?).ok()?;
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for _ in 0..labels {
            let (name, value) = (take_text(bytes)?, take_text(bytes)?);
            if value.is_empty() || pairs.last().is_some_and(|last| last.0 >= name) {
                return None;
            }
            pairs.push((name, value));
        }
        Some(Self { tenant, labels: Labels::new(pairs) })
    }
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("labels and their texts are far below 4 GiB").to_le_bytes()
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(&count(text.len()));
    into.extend_from_slice(text.as_bytes());
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*head))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_u32(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// What a run of records spans: known without reading them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The lowest offset among them.
    pub first_offset: u64,
    /// The highest offset among them; they need not hold all between.
    pub last_offset: u64,
    /// How many they are.
    pub rows: u64,
    /// The earliest timestamp, in nanoseconds since the Unix epoch.
    pub min_timestamp: i64,
    /// The latest.
    pub max_timestamp: i64,
    /// Bytes of their lines and metadata, as users sent them.
    pub raw_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shares_the_buffer_it_lies_in() {
        let buffer = Bytes::from(b"one two".to_vec());
        let text = std::str::from_utf8(&buffer[4..]).unwrap();
        let shared = Text::within(&buffer, text);
        assert_eq!(shared.as_str(), "two");
        assert_eq!(shared.as_bytes().as_ptr(), buffer[4..].as_ptr());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_no_text() {
        assert_eq!(Text::from_utf8(Bytes::from_static(b"\xff")), None);
        assert_eq!(Text::from_utf8(Bytes::from_static(b"ok")), Some(Text::from_static("ok")));
    }

    #[test]
    fn raw_bytes_count_line_and_metadata() {
        let record = Record { timestamp: 0, line: "four".into(), metadata: vec![("ab".into(), "c".into())] };
        assert_eq!(record.raw_bytes(), 7);
    }
}
