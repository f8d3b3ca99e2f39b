//! What one run of the world depends on, as data: seed, size, knobs, faults, and what operators do. A failing case can be
//! written to a file, shrunk and replayed. It does not know how a fault or an operation is carried out.
//!
//! Times are virtual milliseconds since the start of the run.

use serde::{Deserialize, Serialize};

/// One run of the world. The same case gives the same trace, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What every random stream is derived from.
    pub seed: u64,
    /// How many nodes form the cluster, with one replica of each shard on three of them.
    pub nodes: u64,
    /// Which nodes may come later, and what the cluster does by itself.
    #[serde(default)]
    pub membership: Membership,
    /// What is tuned inside the nodes.
    pub knobs: Knobs,
    /// How long clients write and faults happen; then everything is healed.
    pub busy_ms: u64,
    /// The faults, by time.
    pub faults: Vec<Timed>,
    /// What operators ask for, by time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Planned>,
    /// A bug to plant, by name; only a build with mutants knows any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
}

/// Which nodes may come later, and what the cluster does by itself about nodes that come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Nodes beside those that form the cluster, numbered after them. They are off until an operation starts them.
    pub spares: u64,
    /// How long a node may be gone before its replicas are given to others.
    pub rehome_after_ms: u64,
    /// Whether the cluster evens out what nodes hold.
    pub rebalance: bool,
    /// Zones that the nodes are dealt out to in turn; none has one where this is zero.
    pub zones: u64,
}

/// Nobody comes, and nobody is given up within a run.
impl Default for Membership {
    fn default() -> Self {
        Self { spares: 0, rehome_after_ms: 300_000, rebalance: false, zones: 0 }
    }
}

/// An operation and when somebody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// When.
    pub at_ms: u64,
    /// What.
    pub operation: Operation,
}

/// What an operator may ask for. Each is asked for again, of one node after the other, until it is done, makes no sense,
/// or too much time has passed. Nodes are numbered from one, shards from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Operation {
    /// A spare node is switched on. It waits outside until it is added.
    Start {
        /// Which node.
        node: u64,
    },
    /// A spare node becomes one of the cluster, and is switched on if it is off.
    Add {
        /// Which node.
        node: u64,
    },
    /// A node is to be emptied.
    Drain {
        /// Which node.
        node: u64,
    },
    /// A node that was to be emptied is not.
    Undrain {
        /// Which node.
        node: u64,
    },
    /// An empty node leaves for ever.
    Remove {
        /// Which node.
        node: u64,
    },
    /// A node that came back on an empty disk is taken as it is.
    ReplaceStore {
        /// Which node.
        node: u64,
    },
    /// Shards get another number of copies.
    SetReplication {
        /// 1, 3 or 5.
        copies: u32,
    },
    /// A replica moves to a node that has none of its shard.
    Move {
        /// Which shard.
        shard: u32,
        /// From which of its nodes, and to which of the others, each counted round.
        pick: u64,
    },
    /// The leader of a shard hands over.
    TransferLeader {
        /// Which shard.
        shard: u32,
        /// To which of its nodes, counted round.
        pick: u64,
    },
}

/// A fault and when it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// When.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
}

/// What may go wrong. Nodes are numbered from one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The machine of a node loses power and comes back: what was not synced is lost, kept, cut or torn.
    Crash {
        /// Which node.
        node: u64,
        /// How long it is away.
        down_ms: u64,
    },
    /// The process of a node dies and comes back: nothing written is lost.
    Kill {
        /// Which node.
        node: u64,
        /// How long it is away.
        down_ms: u64,
    },
    /// The power of a node goes in the middle of its next disk operations: a write, a sync, a renaming.
    PowerOffAfter {
        /// Which node.
        node: u64,
        /// So many operations later.
        operations: u64,
        /// How long it is away.
        down_ms: u64,
    },
    /// A node is away and its power goes again while it recovers, so many disk operations after it came back.
    CrashInRecovery {
        /// Which node.
        node: u64,
        /// How long it is away, each time.
        down_ms: u64,
        /// Operations of the recovery that still succeed.
        operations: u64,
    },
    /// A node is gone for good. It waits until every shard can bear that, and is left out where none can soon.
    Lose {
        /// Which node.
        node: u64,
        /// It waits for nothing, though the last copy may go with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        heedless: bool,
    },
    /// A node comes back on an empty disk under its old name, as soon as every shard can bear that. It must stay outside
    /// and not vote, until somebody says that it is the node from now on.
    Wipe {
        /// Which node.
        node: u64,
    },
    /// An actor panics.
    Panic {
        /// On which node.
        node: u64,
        /// Its name in the tree, as in `shard-0/replica`.
        actor: String,
        /// How often, one second apart: more than the restart budget takes its replica down.
        times: u32,
    },
    /// No frame passes in one direction.
    Cut {
        /// The sender.
        from: u64,
        /// The receiver.
        to: u64,
        /// How long.
        for_ms: u64,
    },
    /// No frame passes between these nodes and the others, in either direction.
    Partition {
        /// One side.
        side: Vec<u64>,
        /// How long.
        for_ms: u64,
    },
    /// The two sides hear each other only through one node, which hears both.
    Bridge {
        /// The node between.
        node: u64,
        /// How long.
        for_ms: u64,
    },
    /// Frames are dropped, repeated and delayed more often than by the knobs.
    Weather {
        /// Of a thousand frames so many are dropped.
        drop: u32,
        /// Of a thousand frames so many come twice.
        repeat: u32,
        /// The longest delay.
        delay_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// The next sync of a node's disk after so many disk operations fails.
    SyncFails {
        /// Which node.
        node: u64,
        /// So many operations later.
        operations: u64,
        /// How long the node is away after it.
        down_ms: u64,
    },
    /// The disk of a node has no room for anything new.
    FullDisk {
        /// Which node.
        node: u64,
        /// How long.
        for_ms: u64,
    },
    /// Every operation of a node's disk takes so many times as long.
    SlowDisk {
        /// Which node.
        node: u64,
        /// How many times.
        factor: u32,
        /// How long.
        for_ms: u64,
    },
    /// A bit of a file turns over at rest.
    FlipBit {
        /// Which node.
        node: u64,
        /// Which kind of file.
        file: FileKind,
        /// Where, in thousandths of the file; and which file of its kind.
        place: u32,
    },
    /// The wall clock of a node jumps.
    ClockJump {
        /// Which node.
        node: u64,
        /// By so many milliseconds; negative is backwards.
        by_ms: i64,
    },
}

/// A kind of file on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A sealed segment.
    Segment,
    /// A snapshot of a shard or of the metadata group.
    Snapshot,
}

/// What is tuned inside the nodes, drawn per seed. Each has a default in `millpond::limits` and nothing may depend on
/// that one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knobs {
    /// Shards of the cluster.
    pub shards: u32,
    /// Least ticks without a leader before a replica campaigns.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Entry bytes in one append.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Entry bytes in one `Apply`.
    pub apply_bytes_max: u64,
    /// Raw bytes of one part of a request.
    pub part_bytes: usize,
    /// Bytes of sub-batches that an ingester puts into one entry.
    pub entry_bytes: usize,
    /// Entries that an ingester keeps unanswered per shard.
    pub entries_in_flight: usize,
    /// Bytes of one group commit.
    pub group_bytes: usize,
    /// A WAL segment file, in bytes.
    pub wal_segment_bytes: u64,
    /// Raw bytes of a node's heads past which the fullest is sealed.
    pub head_bytes_max: u64,
    /// Age at which a head is sealed although small, in milliseconds.
    pub head_age_ms: u64,
    /// Bulk bytes outstanding on one link.
    pub link_credit_bytes: usize,
    /// Restarts of an actor within a minute before it is shown `down`.
    pub restart_intensity: u32,
    /// How long it then stays down, in milliseconds.
    pub down_ms: u64,
    /// Ingesters of each node.
    pub workers: usize,
    /// Shortest and longest time a frame travels, in microseconds.
    pub latency_us: (u64, u64),
    /// Shortest and longest time a group commit takes, in microseconds.
    pub disk_us: (u64, u64),
    /// How far the wall clocks of nodes lie apart at most, in milliseconds.
    pub skew_ms: u64,
    /// Clients that write at once.
    pub clients: u32,
    /// Streams that each client writes to.
    pub streams: u32,
    /// Raw bytes of one request, about.
    pub request_bytes: usize,
    /// Milliseconds that a client rests between two requests, about.
    pub pause_ms: u64,
    /// What is asked in LogQL; nothing where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asking: Option<Asking>,
}

/// What clients ask in LogQL, beside their searches and counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    /// Milliseconds that a client rests between two questions, about.
    pub pause_ms: u64,
    /// Questions that are asked when all is quiet.
    pub at_rest: u32,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Promises that were broken, each in a sentence; none is what we want.
    pub violations: Vec<String>,
    /// The digest of the whole trace.
    pub digest: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// The last lines of the trace, oldest first; at most [`TAIL_LINES`].
    pub tail: Vec<String>,
    /// How often each rare thing happened.
    pub seen: std::collections::BTreeMap<String, u64>,
    /// Virtual milliseconds that the run took.
    pub virtual_ms: u64,
}

/// Lines of the trace that a failure shows.
pub const TAIL_LINES: usize = 200;
