//! The values that settings are made of: sizes, times, addresses, names, and how each is read and shown.
//!
//! They do not know which settings there are.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::limits::BACKUP_URL_BYTES_MAX;

/// A count of bytes: a number, or a text such as `"64 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A length of time: a text such as `"30s"`, `"15m"`, `"2h"` or `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis != 0 && millis.is_multiple_of(length) {
                return write!(f, "{}{unit}", millis / length);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// A number and its unit, multiplied out; `None` where the form is wrong or the product too large.
pub(super) fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count of bytes such as 1048576 or \"64 MiB\"")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteSize, E> {
        u64::try_from(value).map(ByteSize).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteSize, E> {
        let units = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        measured(value, &units).map(ByteSize).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ByteSizeVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time such as \"30s\", \"15m\", \"2h\" or \"7d\"")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Span, E> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let millis = measured(value, &units).ok_or_else(|| E::invalid_value(de::Unexpected::Str(value), &self))?;
        Ok(Span(Duration::from_millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(SpanVisitor)
    }
}

/// Where others find a listener: `host:port`, the host a name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort(pub(super) String);

impl HostPort {
    /// The address as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let host_and_port = text.rsplit_once(':').filter(|(host, port)| {
            let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
            let numbered = host.starts_with('[') && text.parse::<SocketAddr>().is_ok();
            !host.is_empty() && (named || numbered) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        match host_and_port {
            Some(_) => Ok(Self(text)),
            None => Err(format!("`{text}` is no address, expected `host:port` such as \"127.0.0.1:3100\"")),
        }
    }
}

/// The name of a cluster, a node or a zone: 1 to 63 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(pub(super) String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if (1..=63).contains(&text.len()) && text.bytes().all(fine) {
            return Ok(Self(text));
        }
        Err(format!("`{}` is no name, expected 1 to 63 letters, digits, `-`, `_` or `.`", text.escape_debug()))
    }
}

/// Where backups are kept: `file:///ABSOLUTE/FOLDER`, or `s3://BUCKET` with or without a prefix behind a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreUrl(String);

/// The two kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorePlace<'a> {
    /// A folder, by its absolute path.
    Folder(&'a str),
    /// A bucket that speaks S3.
    Bucket {
        /// Its name.
        name: &'a str,
        /// What all names in it begin with; empty for nothing.
        prefix: &'a str,
    },
}

impl StoreUrl {
    /// The URL as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it says.
    pub fn place(&self) -> StorePlace<'_> {
        match self.0.strip_prefix("file://") {
            Some(path) => StorePlace::Folder(path),
            None => {
                let rest = self.0.trim_start_matches("s3://");
                let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                StorePlace::Bucket { name, prefix: prefix.trim_matches('/') }
            }
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        let steps_back = |path: &str| path.split('/').any(|part| part == "..");
        let folder = |path: &str| path.starts_with('/') && !path.chars().any(char::is_control) && !steps_back(path);
        let bucket = |rest: &str| {
            let name = rest.split('/').next().unwrap_or_default();
            !name.is_empty() && rest.bytes().all(plain) && !rest.contains("//") && !steps_back(rest)
        };
        let known = text.strip_prefix("file://").is_some_and(folder) || text.strip_prefix("s3://").is_some_and(bucket);
        if known && text.len() <= BACKUP_URL_BYTES_MAX {
            return Ok(Self(text));
        }
        Err(format!("`{}` is no store, expected `file:///FOLDER` or `s3://BUCKET/PREFIX`", text.escape_debug()))
    }
}

macro_rules! written_as_displayed {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}
written_as_displayed!(ByteSize, Span, HostPort, Name, StoreUrl);

/// What nodes of one cluster show each other before they talk. It keeps clusters apart, it is no security.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Cookie(pub(super) String);

impl Cookie {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(hidden)")
    }
}

impl Serialize for Cookie {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("(hidden)")
    }
}
