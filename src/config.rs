//! What an operator may choose: settings of the cluster, the same on every node and fingerprinted, apart from those
//! of one node.
//!
//! Raw and resolved are different types: [`ClusterFile`] and [`NodeFile`] are what a TOML file says, with everything
//! optional; [`Config`] is what a node runs with, every default filled in and every rule checked. A command line
//! changes the raw form before it is resolved.
//!
//! This room reads no file and opens no socket: it is handed texts, and the names of the files they came from.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use crate::class::Class;
use crate::id::NodeId;
use crate::limits;

/// Why settings are refused. Every variant says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no TOML, names an unknown key, or a value has the wrong form.
    #[error("{file}:{line}:{column}: {message}\n  {line} | {excerpt}")]
    Text {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What was found and what was expected.
        message: String,
        /// The line itself.
        excerpt: String,
    },
    /// A number outside its bounds.
    #[error("{file}: `{key}` is {value}, it must be from {least} to {most}")]
    Bounds {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The least value allowed.
        least: u64,
        /// The greatest value allowed.
        most: u64,
    },
    /// Two nodes share what must be unique.
    #[error("{file}: two nodes have the same {what} `{value}`, each needs its own")]
    NodeTwice {
        /// The file.
        file: String,
        /// What is shared: id, name, peer or http.
        what: &'static str,
        /// The shared value.
        value: String,
    },
    /// The node is no member of its cluster.
    #[error("{file}: node {id} is not among the cluster's nodes ({known}): correct `id` or add it to the cluster file")]
    UnknownNode {
        /// The file.
        file: String,
        /// The id asked for.
        id: NodeId,
        /// The ids there are.
        known: String,
    },
    /// The node file does not say which node it is.
    #[error("{file}: `id` is missing: it says which of the cluster's nodes this is ({known})")]
    IdMissing {
        /// The file.
        file: String,
        /// The ids there are.
        known: String,
    },
    /// The address to bind cannot be taken from the cluster's, which is a name.
    #[error("{file}: the cluster knows this node as `{address}`, a name: set `{key}` to the address to bind")]
    BindMissing {
        /// The file.
        file: String,
        /// The key to set.
        key: &'static str,
        /// What the cluster file says.
        address: String,
    },
    /// A listener would be open to the network.
    #[error(
        "{file}: `{key}` is {address}, which others can reach, and there is neither TLS nor authentication: bind \
         127.0.0.1, or, if the network is trusted, set `insecure = true` or start with `--insecure`"
    )]
    NotLoopback {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl ConfigError {
    /// Wrong settings stay wrong until somebody changes them.
    pub fn class(&self) -> Class {
        Class::Refuse
    }
}

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
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
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
pub struct HostPort(String);

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

/// The name of a cluster or a node: 1 to 63 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

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

macro_rules! written_as_displayed {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}
written_as_displayed!(ByteSize, Span, HostPort, Name);

/// What nodes of one cluster show each other before they talk. It keeps clusters apart, it is no security.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Cookie(String);

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

/// How a stream finds its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// By the hash of the stream's labels: a stream stays in one shard and in order.
    #[default]
    Hash,
    /// The batches of a request in turn: even load, no order within a stream.
    RoundRobin,
    /// Drawn from key and body: even load without a shared counter, no order within a stream.
    Random,
}

impl Routing {
    fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
        }
    }
}

/// How log lines of the node itself look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A cluster file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    name: Name,
    shards: Option<u32>,
    replication: Option<u32>,
    routing: Option<Routing>,
    cookie: Option<Cookie>,
    nodes: Vec<Member>,
}

/// A node of the cluster, as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number, from 1; never given to another node.
    pub id: NodeId,
    /// Its name, for people.
    pub name: Name,
    /// Where other nodes reach it.
    pub peer: HostPort,
    /// Where clients reach it.
    pub http: HostPort,
}

/// A node file as it is written. A command line overrides its fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// The cluster file, relative to the node file. Without one the node is a cluster of its own.
    pub cluster: Option<String>,
    /// Which of the cluster's nodes this is.
    pub id: Option<NodeId>,
    /// The data folder, relative to the working directory.
    pub data: Option<String>,
    /// The address that the HTTP listener binds.
    pub http: Option<SocketAddr>,
    /// The address that the listener for other nodes binds.
    pub peer: Option<SocketAddr>,
    /// Memory that the node may plan with.
    pub memory_bytes: Option<ByteSize>,
    /// Allows listeners that others can reach although there is no TLS.
    pub insecure: Option<bool>,
    /// Allows actors to be made to panic on purpose.
    pub fault_injection: Option<bool>,
    /// How the node's own log lines look.
    pub log_format: Option<LogFormat>,
    /// Bounds that an operator may want to move.
    #[serde(default)]
    pub limits: LimitsFile,
}

/// The `[limits]` table as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// See [`Limits::wal_segment_bytes`].
    pub wal_segment_bytes: Option<ByteSize>,
    /// See [`Limits::wal_bytes_max`].
    pub wal_bytes_max: Option<ByteSize>,
    /// See [`Limits::head_bytes_max`].
    pub head_bytes_max: Option<ByteSize>,
    /// See [`Limits::head_age_max`].
    pub head_age_max: Option<Span>,
    /// See [`Limits::connections_max`].
    pub connections_max: Option<u64>,
    /// See [`Limits::queries_running_max`].
    pub queries_running_max: Option<u64>,
}

/// What every node of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub name: Name,
    /// How many shards it was created with.
    pub shards: u32,
    /// Replicas of each shard.
    pub replication: u32,
    /// How a stream finds its shard.
    pub routing: Routing,
    /// What keeps clusters apart.
    pub cookie: Cookie,
    /// Its first nodes, by id.
    pub nodes: Vec<Member>,
}

/// What one node decides for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeSettings {
    /// Which of the cluster's nodes this is.
    pub id: NodeId,
    /// Its name, for people.
    pub name: Name,
    /// The data folder, relative to the working directory.
    pub data: String,
    /// The address that the HTTP listener binds.
    pub http: SocketAddr,
    /// The address that the listener for other nodes binds; none where there are no others.
    pub peer: Option<SocketAddr>,
    /// Memory that the node may plan with.
    pub memory_bytes: ByteSize,
    /// Whether listeners may be open to others without TLS.
    pub insecure: bool,
    /// Whether actors may be made to panic on purpose.
    pub fault_injection: bool,
    /// How the node's own log lines look.
    pub log_format: LogFormat,
    /// Bounds that an operator may want to move.
    pub limits: Limits,
}

/// Bounds that an operator may want to move; the others are constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// A WAL segment file.
    pub wal_segment_bytes: ByteSize,
    /// The WAL of the node; past it an absent replica no longer holds the log back.
    pub wal_bytes_max: ByteSize,
    /// Head bytes of all shards of the node, raw; past it the fullest is sealed.
    pub head_bytes_max: ByteSize,
    /// Age, in shard time, at which a head is sealed although small.
    pub head_age_max: Span,
    /// Connections that the HTTP listener serves at once.
    pub connections_max: u64,
    /// Queries that run at once; others wait.
    pub queries_running_max: u64,
}

/// Everything a node runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The same on all nodes.
    pub cluster: ClusterSettings,
    /// This node's own.
    pub node: NodeSettings,
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str, file: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..at).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let excerpt = text.lines().nth(line - 1).unwrap_or("").to_owned();
        ConfigError::Text { file: file.to_owned(), line, column, message: error.message().to_owned(), excerpt }
    })
}

fn within(file: &str, key: &'static str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Bounds { file: file.to_owned(), key, value, least, most })
}

impl ClusterFile {
    /// Reads a cluster file's text. `file` is its name, for errors.
    ///
    /// # Errors
    /// The line that is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        parse(text, file)
    }

    fn resolve(self, file: &str) -> Result<ClusterSettings, ConfigError> {
        let mut nodes = self.nodes;
        let count = within(file, "nodes", nodes.len() as u64, 1, limits::NODES_MAX as u64)?;
        nodes.sort_by_key(|member| member.id);
        for member in &nodes {
            within(file, "nodes.id", member.id.0, 1, u64::from(u32::MAX))?;
        }
        unique(file, "id", nodes.iter().map(|member| member.id.to_string()))?;
        unique(file, "name", nodes.iter().map(|member| member.name.to_string()))?;
        let addresses = nodes.iter().flat_map(|member| [member.peer.to_string(), member.http.to_string()]);
        unique(file, "address", addresses)?;
        let shards = self.shards.unwrap_or(limits::SHARDS);
        within(file, "shards", shards.into(), 1, limits::SHARDS_MAX.into())?;
        let replication = self.replication.unwrap_or(if count < 3 { 1 } else { 3 });
        within(file, "replication", replication.into(), 1, count.min(limits::REPLICATION_MAX.into()))?;
        Ok(ClusterSettings {
            name: self.name,
            shards,
            replication,
            routing: self.routing.unwrap_or_default(),
            cookie: self.cookie.unwrap_or_else(|| Cookie("millpond".to_owned())),
            nodes,
        })
    }
}

fn unique(file: &str, what: &'static str, values: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value.clone()) {
            return Err(ConfigError::NodeTwice { file: file.to_owned(), what, value });
        }
    }
    Ok(())
}

impl ClusterSettings {
    /// A hash of everything the nodes must agree on, the same on every machine and in every version: nodes with
    /// different fingerprints do not talk. xxh3-64 of one line per setting, `key=value`, values escaped, nodes by id.
    pub fn fingerprint(&self) -> u64 {
        let mut lines = format!(
            "millpond-cluster 1\nname={}\nshards={}\nreplication={}\nrouting={}\ncookie={}\n",
            self.name,
            self.shards,
            self.replication,
            self.routing.name(),
            self.cookie.0.escape_default()
        );
        for Member { id, name, peer, http } in &self.nodes {
            lines.push_str(&format!("node={id} {name} {peer} {http}\n"));
        }
        xxh3_64(lines.as_bytes())
    }

    /// One of the nodes.
    pub fn node(&self, id: NodeId) -> Option<&Member> {
        self.nodes.iter().find(|member| member.id == id)
    }

    fn ids(&self) -> String {
        self.nodes.iter().map(|member| member.id.to_string()).collect::<Vec<_>>().join(", ")
    }

    fn single() -> Self {
        let local = |port: u16| HostPort(format!("127.0.0.1:{port}"));
        Self {
            name: Name("single".to_owned()),
            shards: limits::SHARDS,
            replication: 1,
            routing: Routing::Hash,
            cookie: Cookie("millpond".to_owned()),
            nodes: vec![Member {
                id: NodeId(1),
                name: Name("node-1".to_owned()),
                peer: local(4_100),
                http: local(limits::HTTP_PORT),
            }],
        }
    }
}

impl NodeFile {
    /// Reads a node file's text. `file` is its name, for errors.
    ///
    /// # Errors
    /// The line that is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        parse(text, file)
    }

    /// Fills in the defaults and checks the rules. `cluster` is the cluster file and its name, where the node file
    /// names one; `file` is the node file's name, for errors.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn resolve(self, file: &str, cluster: Option<(ClusterFile, &str)>) -> Result<Config, ConfigError> {
        let cluster = match cluster {
            Some((cluster, cluster_file)) => cluster.resolve(cluster_file)?,
            None => ClusterSettings::single(),
        };
        let id = match (self.id, cluster.nodes.as_slice()) {
            (Some(id), _) => id,
            (None, [only]) => only.id,
            (None, _) => return Err(ConfigError::IdMissing { file: file.to_owned(), known: cluster.ids() }),
        };
        let Some(member) = cluster.node(id) else {
            return Err(ConfigError::UnknownNode { file: file.to_owned(), id, known: cluster.ids() });
        };
        let insecure = self.insecure.unwrap_or(false);
        let http = bind(file, "http", self.http, &member.http, insecure)?;
        let peer = match cluster.nodes.len() {
            1 => None,
            _ => Some(bind(file, "peer", self.peer, &member.peer, insecure)?),
        };
        let memory_bytes = self.memory_bytes.unwrap_or(ByteSize(limits::MEMORY_BYTES));
        within(file, "memory_bytes", memory_bytes.0, limits::MEMORY_BYTES_MIN, u64::MAX)?;
        let node = NodeSettings {
            id,
            name: member.name.clone(),
            data: self.data.unwrap_or_else(|| "millpond-data".to_owned()),
            http,
            peer,
            memory_bytes,
            insecure,
            fault_injection: self.fault_injection.unwrap_or(false),
            log_format: self.log_format.unwrap_or_default(),
            limits: self.limits.resolve(file)?,
        };
        Ok(Config { cluster, node })
    }
}

fn bind(
    file: &str,
    key: &'static str,
    chosen: Option<SocketAddr>,
    known: &HostPort,
    insecure: bool,
) -> Result<SocketAddr, ConfigError> {
    let missing = || ConfigError::BindMissing { file: file.to_owned(), key, address: known.to_string() };
    let address = chosen.or_else(|| known.0.parse().ok()).ok_or_else(missing)?;
    if !address.ip().is_loopback() && !insecure {
        return Err(ConfigError::NotLoopback { file: file.to_owned(), key, address });
    }
    Ok(address)
}

impl LimitsFile {
    fn resolve(self, file: &str) -> Result<Limits, ConfigError> {
        let segment = self.wal_segment_bytes.map_or(limits::WAL_SEGMENT_BYTES, |size| size.0);
        let (least, most) = (2 * limits::WAL_GROUP_BYTES_MAX as u64 + (1 << 20), 256 << 20);
        within(file, "limits.wal_segment_bytes", segment, least, most)?;
        let wal = self.wal_bytes_max.map_or(limits::WAL_BYTES_MAX.max(4 * segment), |size| size.0);
        within(file, "limits.wal_bytes_max", wal, 4 * segment, u64::MAX)?;
        let head = self.head_bytes_max.map_or(limits::HEAD_BYTES_MAX as u64, |size| size.0);
        within(file, "limits.head_bytes_max", head, limits::BLOCK_FRAME_RAW_BYTES_MAX as u64, u64::MAX)?;
        let age = self.head_age_max.map_or(limits::HEAD_AGE_MAX, |span| span.0);
        within(file, "limits.head_age_max (ms)", millis(age), 1_000, millis(limits::KEY_LIFE))?;
        let connections = self.connections_max.unwrap_or(limits::CONNECTIONS_MAX as u64);
        let queries = self.queries_running_max.unwrap_or(limits::QUERIES_RUNNING_MAX as u64);
        Ok(Limits {
            wal_segment_bytes: ByteSize(segment),
            wal_bytes_max: ByteSize(wal),
            head_bytes_max: ByteSize(head),
            head_age_max: Span(age),
            connections_max: within(file, "limits.connections_max", connections, 1, 1 << 20)?,
            queries_running_max: within(file, "limits.queries_running_max", queries, 1, 1 << 10)?,
        })
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl Config {
    /// One node, 127.0.0.1:3100, `millpond-data`: what runs where nothing is configured.
    ///
    /// # Panics
    /// Never: the defaults keep the rules, which a test holds.
    pub fn single() -> Self {
        NodeFile::default().resolve("defaults", None).expect("the defaults keep the rules")
    }

    /// Everything the node runs with, as TOML. The cookie is hidden.
    ///
    /// # Panics
    /// Never: every setting has a form in TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every setting has a form in TOML")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: &str = r#"
name = "three"
nodes = [
    { id = 1, name = "node-1", peer = "127.0.0.1:4101", http = "127.0.0.1:3101" },
    { id = 2, name = "node-2", peer = "127.0.0.1:4102", http = "127.0.0.1:3102" },
    { id = 3, name = "node-3", peer = "127.0.0.1:4103", http = "127.0.0.1:3103" },
]
"#;

    fn resolve(node: &str, cluster: &str) -> Result<Config, ConfigError> {
        let cluster = ClusterFile::parse(cluster, "cluster.toml")?;
        NodeFile::parse(node, "node.toml")?.resolve("node.toml", Some((cluster, "cluster.toml")))
    }

    fn refused(node: &str, cluster: &str) -> String {
        resolve(node, cluster).unwrap_err().to_string()
    }

    #[test]
    fn nothing_configured_is_one_node_on_loopback() {
        let config = Config::single();
        assert_eq!(config.node.http, SocketAddr::from(([127, 0, 0, 1], 3100)));
        assert_eq!(config.node.peer, None);
        assert_eq!(config.node.data, "millpond-data");
        assert_eq!((config.cluster.shards, config.cluster.replication), (16, 1));
        assert!(!config.node.fault_injection && !config.node.insecure);
    }

    #[test]
    fn a_node_takes_its_addresses_from_the_cluster() {
        let config = resolve("id = 2\n[limits]\nwal_bytes_max = \"2 GiB\"\nhead_age_max = \"15m\"", CLUSTER).unwrap();
        assert_eq!(config.node.name.as_str(), "node-2");
        assert_eq!(config.node.peer, Some(SocketAddr::from(([127, 0, 0, 1], 4102))));
        assert_eq!(config.cluster.replication, 3);
        assert_eq!(config.node.limits.wal_bytes_max, ByteSize(2 << 30));
        assert_eq!(config.node.limits.head_age_max, Span(Duration::from_secs(900)));
    }

    #[test]
    fn the_fingerprint_is_the_same_everywhere_and_tells_every_cluster_setting_apart() {
        let of = |node: &str, cluster: &str| resolve(node, cluster).unwrap().cluster.fingerprint();
        let first = of("id = 1", CLUSTER);
        assert_eq!(first, 17_189_551_810_410_730_790, "a change of this value keeps old and new nodes apart");
        assert_eq!(first, of("id = 3\ndata = \"elsewhere\"", CLUSTER), "a node's own settings do not count");
        for (from, to) in [
            ("\"three\"", "\"other\""),
            ("name = \"three\"", "name = \"three\"\nshards = 8"),
            ("name = \"three\"", "name = \"three\"\nreplication = 1"),
            ("name = \"three\"", "name = \"three\"\nrouting = \"random\""),
            ("name = \"three\"", "name = \"three\"\ncookie = \"another\""),
            ("4103", "4104"),
            ("3103", "3104"),
            ("node-3", "node-c"),
        ] {
            assert_ne!(first, of("id = 1", &CLUSTER.replace(from, to)), "{from} -> {to}");
        }
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        assert_eq!(
            refused("id = 1\nfault_injektion = true", CLUSTER).lines().next().unwrap().split(", expected").next(),
            Some("node.toml:2:1: unknown field `fault_injektion`")
        );
        assert!(refused("id = 1\nmemory_bytes = \"lots\"", CLUSTER).starts_with("node.toml:2:16: invalid value"));
        assert!(refused("id = 1", &CLUSTER.replace("127.0.0.1:4102", "nowhere")).starts_with("cluster.toml:5:"));
        assert!(refused("id = [", CLUSTER).starts_with("node.toml:1:"));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (node, from, to, expected) in [
            ("id = 9", "", "", "node 9 is not among the cluster's nodes (1, 2, 3)"),
            ("", "", "", "`id` is missing"),
            ("id = 1", "id = 2", "id = 1", "the same id `1`"),
            ("id = 1", "node-2", "node-1", "the same name `node-1`"),
            ("id = 1", "3102", "3101", "the same address `127.0.0.1:3101`"),
            ("id = 1", "id = 1", "id = 0", "`nodes.id` is 0"),
            (
                "id = 1",
                "name = \"three\"",
                "name = \"three\"\nreplication = 4",
                "`replication` is 4, it must be from 1 to 3",
            ),
            ("id = 1", "name = \"three\"", "name = \"three\"\nshards = 0", "`shards` is 0"),
            ("id = 1", "127.0.0.1:4101", "alpha.example:4101", "set `peer` to the address to bind"),
            ("id = 1\n[limits]\nwal_bytes_max = \"1 MiB\"", "", "", "`limits.wal_bytes_max` is 1048576"),
        ] {
            let cluster = if from.is_empty() { CLUSTER.to_owned() } else { CLUSTER.replacen(from, to, 1) };
            let message = refused(node, &cluster);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_address_that_others_can_reach_needs_a_word_of_consent() {
        let open = "id = 1\nhttp = \"0.0.0.0:3100\"\n";
        let message = refused(open, CLUSTER);
        assert!(message.contains("0.0.0.0:3100") && message.contains("--insecure"), "{message}");
        assert!(resolve(&format!("{open}insecure = true"), CLUSTER).is_ok());
    }

    #[test]
    fn the_settings_shown_hide_the_cookie() {
        let cluster = CLUSTER.replace("name = \"three\"", "name = \"three\"\ncookie = \"s3cret\"");
        let config = resolve("id = 1", &cluster).unwrap();
        let shown = config.to_toml();
        assert!(shown.contains("cookie = \"(hidden)\"") && !shown.contains("s3cret"), "{shown}");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(shown.contains("head_bytes_max = \"128 MiB\""), "{shown}");
    }

    #[test]
    fn sizes_and_times_are_read_with_their_unit() {
        let units = [("", 1), ("KiB", 1 << 10)];
        assert_eq!(measured("12", &units), Some(12));
        assert_eq!(measured(" 2 kib ", &units), Some(2048));
        for wrong in ["", "KiB", "-1", "1.5 KiB", "1 MiB", "99999999999999999999", "18446744073709551615 KiB"] {
            assert_eq!(measured(wrong, &units), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_text_is_read_or_refused_and_never_panics(text in "\\PC{0,200}|[a-z_]{1,12} = [\"0-9a-zA-Z.: \\[\\]\n]{0,40}") {
            let _ = NodeFile::parse(&text, "node.toml").map(|node| node.resolve("node.toml", None));
            let _ = ClusterFile::parse(&text, "cluster.toml").map(|cluster| cluster.resolve("cluster.toml"));
        }

        #[test]
        fn a_size_is_read_back_as_it_is_shown(bytes in 0_u64..=u64::from(u32::MAX) * 1024) {
            let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
            prop_assert_eq!(measured(&ByteSize(bytes).to_string(), &units), Some(bytes));
        }
    }
}
