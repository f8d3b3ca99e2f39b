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

/// The records of one stream within one request, in the order they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecords {
    /// The stream.
    pub labels: Labels,
    /// Its records.
    pub records: Vec<Record>,
}
