//! The `[retention]` table of a cluster file: how long records are kept, and for which streams they are shown for a
//! shorter time.
//!
//! Nodes need not agree on it at every moment: what is dropped is decided by the leader of each shard by its own file, and
//! every replica follows; what a query hides and what intake refuses is decided by the node that is asked. So it can be
//! changed one node after the other.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{ByteSize, ConfigError, Span, millis, within};
use crate::limits;
use crate::query::ast::Matcher;
use crate::query::parser::parse_selector;
use crate::query::pattern::StreamPattern;
use crate::retention::{Policy, Rule};

/// The `[retention]` table as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionFile {
    age: Option<Span>,
    bytes: Option<ByteSize>,
    #[serde(default)]
    rules: Vec<RetentionRule>,
}

/// How long records are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetentionSettings {
    /// A sealed segment is dropped once its newest record is older; intake refuses records that are older. `None`: never.
    pub age: Option<Span>,
    /// Sealed bytes of all shards together, one copy of each counted, so that a cluster with three copies holds three
    /// times as much. Each shard may hold an even share; past it its oldest segments are dropped, all but the newest. `None`: any
    /// number.
    pub bytes: Option<ByteSize>,
    /// Streams whose records are shown for a shorter time. Where several match, the shortest counts.
    pub rules: Vec<RetentionRule>,
}

/// How long the records of some streams are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Which streams, as in LogQL.
    pub selector: Selector,
    /// How old a record may be that queries and tails show.
    pub age: Span,
    /// Whose streams; by default everyone's.
    pub tenant: Option<String>,
}

/// A stream selector with at least one matcher, such as `{app="debug"}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Selector {
    text: String,
    matchers: Vec<Matcher>,
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let matchers = parse_selector(&text).map_err(|error| format!("`{text}`: {error}"))?;
        StreamPattern::new(&matchers).map_err(|error| format!("`{text}`: {error}"))?;
        if matchers.is_empty() {
            return Err(format!("`{text}` selects every stream: set `age` of the retention instead"));
        }
        Ok(Self { text, matchers })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl RetentionFile {
    pub(super) fn resolve(self, file: &str) -> Result<RetentionSettings, ConfigError> {
        let Self { age, bytes, rules } = self;
        let (least, most) = limits::RETENTION_AGE_BOUNDS;
        for (key, age) in age
            .iter()
            .map(|age| ("retention.age (ms)", age))
            .chain(rules.iter().map(|rule| ("retention.rules.age (ms)", &rule.age)))
        {
            within(file, key, millis(age.0), millis(least), millis(most))?;
        }
        if let Some(bytes) = bytes {
            within(file, "retention.bytes", bytes.0, limits::RETENTION_BYTES_MIN, u64::MAX)?;
        }
        within(file, "retention.rules", rules.len() as u64, 0, limits::RETENTION_RULES_MAX as u64)?;
        Ok(RetentionSettings { age, bytes, rules })
    }
}

impl RetentionSettings {
    /// What it asks of a cluster of so many shards.
    pub fn policy(&self, shards: u32) -> Policy {
        let rule = |RetentionRule { selector, age, tenant }: &RetentionRule| Rule {
            tenant: tenant.clone(),
            matchers: selector.matchers.clone(),
            age: age.0,
        };
        Policy {
            age: self.age.map(|age| age.0),
            shard_bytes: self.bytes.map(|bytes| bytes.0 / u64::from(shards.max(1))),
            rules: self.rules.iter().map(rule).collect(),
        }
    }
}

/// One line a setting, the same in every version: what nodes compare hashes of.
impl fmt::Display for RetentionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(age) = self.age {
            writeln!(f, "age {age}")?;
        }
        if let Some(bytes) = self.bytes {
            writeln!(f, "bytes {bytes}")?;
        }
        for RetentionRule { selector, age, tenant } in &self.rules {
            writeln!(f, "rule {} {age} {}", selector.text, tenant.as_deref().unwrap_or(""))?;
        }
        Ok(())
    }
}
