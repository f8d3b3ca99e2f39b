//! Records: what users send and find again. This room does not know how records are encoded or where they live.

use std::fmt;

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
