//! What an operator may choose: settings of the cluster, the same on every node and fingerprinted, apart from those
//! of one node.
//!
//! Raw and resolved are different types: [`ClusterFile`] and [`NodeFile`] are what a TOML file says, with everything
//! optional; [`Config`] is what a node runs with, every default filled in and every rule checked. A command line
//! changes the raw form before it is resolved.
//!
//! This room reads no file and opens no socket: it is handed texts, and the names of the files they came from.

mod retention;
mod values;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::class::Class;
use crate::id::NodeId;
use crate::limits;

pub use retention::{RetentionFile, RetentionRule, RetentionSettings, Selector};
pub use values::{ByteSize, Cookie, HostPort, Name, Span, StorePlace, StoreUrl};

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
    /// Shards cannot have that many copies.
    #[error("{file}: `replication` is {value}, it must be 1, 3 or 5 and no more than there are nodes ({nodes})")]
    Replication {
        /// The file.
        file: String,
        /// What it says.
        value: u32,
        /// How many nodes there are.
        nodes: u64,
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
    rehome_after: Option<Span>,
    rebalance: Option<bool>,
    #[serde(default)]
    retention: RetentionFile,
    nodes: Vec<Member>,
    backup: Option<BackupFile>,
}

/// The `[backup]` table as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupFile {
    url: StoreUrl,
    every: Option<Span>,
    keep: Option<u64>,
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
    /// What it may lose power or network together with: copies of a shard are spread over zones.
    pub zone: Option<Name>,
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
    /// See [`Limits::sealing_bytes_max`].
    pub sealing_bytes_max: Option<ByteSize>,
    /// See [`Limits::head_age_max`].
    pub head_age_max: Option<Span>,
    /// See [`Limits::connections_max`].
    pub connections_max: Option<u64>,
    /// See [`Limits::queries_running_max`].
    pub queries_running_max: Option<u64>,
    /// See [`Limits::disk_warn_percent`].
    pub disk_warn_percent: Option<u64>,
    /// See [`Limits::disk_refuse_percent`].
    pub disk_refuse_percent: Option<u64>,
    /// See [`Limits::disk_warn_free`].
    pub disk_warn_free: Option<ByteSize>,
    /// See [`Limits::disk_refuse_free`].
    pub disk_refuse_free: Option<ByteSize>,
}

/// What every node of a cluster must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub name: Name,
    /// How many shards it was created with.
    pub shards: u32,
    /// Replicas of each shard when it is created; from then on the cluster itself knows.
    pub replication: u32,
    /// How a stream finds its shard.
    pub routing: Routing,
    /// What keeps clusters apart.
    pub cookie: Cookie,
    /// How long a node may be gone before its replicas are given to others.
    pub rehome_after: Span,
    /// Whether replicas are moved to even out what nodes hold.
    pub rebalance: bool,
    /// How long records are kept.
    pub retention: RetentionSettings,
    /// Its first nodes, by id; on a node that joins later, itself and nodes that it can ask.
    pub nodes: Vec<Member>,
    /// When it is backed up, and where to; none: only when somebody asks for it.
    pub backup: Option<BackupSettings>,
}

/// When a cluster is backed up. The node that leads the metadata group goes by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupSettings {
    /// Where to.
    pub url: StoreUrl,
    /// Time from the begin of one backup to that of the next.
    pub every: Span,
    /// How many backups of this cluster are kept.
    pub keep: u64,
}

/// A cluster setting as nodes compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPrint {
    /// The key in the cluster file.
    pub key: &'static str,
    /// xxh3-64 of the key and what it says.
    pub hash: u64,
    /// Whether it counts for as long as the cluster lives, or only until it is formed.
    pub lasting: bool,
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
    /// Bytes of those that are cut and being sealed, raw, of which as many as `head_bytes_max` count; past both together the
    /// node holds back what clients send.
    pub sealing_bytes_max: ByteSize,
    /// Age, in shard time, at which a head is sealed although small.
    pub head_age_max: Span,
    /// Connections that the HTTP listener serves at once.
    pub connections_max: u64,
    /// Queries that run at once; others wait.
    pub queries_running_max: u64,
    /// Used part of the disk, in percent, at which the node warns; 100: it does not.
    pub disk_warn_percent: u64,
    /// Used part of the disk, in percent, at which the node refuses ingest; 100: only once nothing more can be logged.
    pub disk_refuse_percent: u64,
    /// While more than this is free the node does not warn, whatever the percent: few percent of a large disk are much.
    pub disk_warn_free: ByteSize,
    /// While more than this is free the node takes ingest, whatever the percent.
    pub disk_refuse_free: ByteSize,
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
        if !limits::REPLICATION_ALLOWED.contains(&replication) || u64::from(replication) > count {
            return Err(ConfigError::Replication { file: file.to_owned(), value: replication, nodes: count });
        }
        let rehome_after = self.rehome_after.map_or(limits::REHOME_AFTER, |span| span.0);
        let (least, most) = limits::REHOME_AFTER_BOUNDS;
        within(file, "rehome_after (ms)", millis(rehome_after), millis(least), millis(most))?;
        Ok(ClusterSettings {
            name: self.name,
            shards,
            replication,
            routing: self.routing.unwrap_or_default(),
            cookie: self.cookie.unwrap_or_else(|| Cookie("millpond".to_owned())),
            rehome_after: Span(rehome_after),
            rebalance: self.rebalance.unwrap_or(true),
            retention: self.retention.resolve(file)?,
            nodes,
            backup: self.backup.map(|backup| backup.resolve(file)).transpose()?,
        })
    }
}

impl BackupFile {
    fn resolve(self, file: &str) -> Result<BackupSettings, ConfigError> {
        let every = self.every.map_or(limits::BACKUP_EVERY, |span| span.0);
        let (least, most) = limits::BACKUP_EVERY_BOUNDS;
        within(file, "backup.every (ms)", millis(every), millis(least), millis(most))?;
        let (least, most) = limits::BACKUP_KEEP_BOUNDS;
        let keep = within(file, "backup.keep", self.keep.unwrap_or(limits::BACKUP_KEEP), least, most)?;
        Ok(BackupSettings { url: self.url, every: Span(every), keep })
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
    /// A hash of each setting, the same on every machine and in every version: xxh3-64 of `key=value`, the cookie
    /// escaped, the nodes by id. Nodes with different hashes do not talk.
    ///
    /// What says how a cluster begins, and what only the node that leads it goes by, counts until it is formed. From then
    /// on its own state holds the nodes and the number of copies; and the rest can be changed one node after the other.
    pub fn key_prints(&self) -> Vec<KeyPrint> {
        let print = |key: &'static str, lasting: bool, value: &dyn fmt::Display| KeyPrint {
            key,
            hash: xxh3_64(format!("{key}={value}").as_bytes()),
            lasting,
        };
        let mut nodes = String::new();
        for Member { id, name, peer, http, zone } in &self.nodes {
            let zone = zone.as_ref().map_or("", Name::as_str);
            nodes.push_str(&format!("{id} {name} {peer} {http} {zone}\n"));
        }
        let backup = self.backup.as_ref().map_or_else(String::new, |backup| {
            let BackupSettings { url, every, keep } = backup;
            format!("{url} {every} {keep}")
        });
        vec![
            print("name", true, &self.name),
            print("shards", true, &self.shards),
            print("routing", true, &self.routing.name()),
            print("cookie", true, &self.cookie.0.escape_default()),
            print("replication", false, &self.replication),
            print("rehome_after", false, &self.rehome_after),
            print("rebalance", false, &self.rebalance),
            print("retention", false, &self.retention),
            print("nodes", false, &nodes),
            print("backup", false, &backup),
        ]
    }

    /// One hash of all settings, for people: xxh3-64 of one line per setting, `key=hash`.
    pub fn fingerprint(&self) -> u64 {
        let lines = self.key_prints().into_iter().map(|KeyPrint { key, hash, .. }| format!("{key}={hash:016x}\n"));
        xxh3_64(lines.collect::<String>().as_bytes())
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
            rehome_after: Span(limits::REHOME_AFTER),
            rebalance: true,
            retention: RetentionSettings::default(),
            nodes: vec![Member {
                id: NodeId(1),
                name: Name("node-1".to_owned()),
                peer: local(4_100),
                http: local(limits::HTTP_PORT),
                zone: None,
            }],
            backup: None,
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
        let sealing = self.sealing_bytes_max.map_or(limits::SEALING_BYTES_MAX as u64, |size| size.0);
        within(file, "limits.sealing_bytes_max", sealing, limits::BLOCK_FRAME_RAW_BYTES_MAX as u64, u64::MAX)?;
        let age = self.head_age_max.map_or(limits::HEAD_AGE_MAX, |span| span.0);
        within(file, "limits.head_age_max (ms)", millis(age), 1_000, millis(limits::KEY_LIFE))?;
        let connections = self.connections_max.unwrap_or(limits::CONNECTIONS_MAX as u64);
        let queries = self.queries_running_max.unwrap_or(limits::QUERIES_RUNNING_MAX as u64);
        let (warn, refuse) = limits::DISK_PERCENT;
        let refuse = within(file, "limits.disk_refuse_percent", self.disk_refuse_percent.unwrap_or(refuse), 1, 100)?;
        let warn = self.disk_warn_percent.unwrap_or(warn.min(refuse));
        Ok(Limits {
            wal_segment_bytes: ByteSize(segment),
            wal_bytes_max: ByteSize(wal),
            head_bytes_max: ByteSize(head),
            sealing_bytes_max: ByteSize(sealing),
            head_age_max: Span(age),
            connections_max: within(file, "limits.connections_max", connections, 1, 1 << 20)?,
            queries_running_max: within(file, "limits.queries_running_max", queries, 1, 1 << 10)?,
            disk_warn_percent: within(file, "limits.disk_warn_percent", warn, 1, refuse)?,
            disk_refuse_percent: refuse,
            disk_warn_free: self.disk_warn_free.unwrap_or(ByteSize(limits::DISK_FREE.0)),
            disk_refuse_free: self.disk_refuse_free.unwrap_or(ByteSize(limits::DISK_FREE.1)),
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
mod tests;
