//! Every bound of Millpond, with its reason. A queue, map, retry or loop without a name here does not exist.
//!
//! Constant assertions relate the bounds to each other, so that changing one cannot break another in silence.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// What clients may send.

/// A request body as it was sent; 413 above. Clients batch to 1-5 MiB.
pub const REQUEST_BYTES_MAX: usize = 16 * MIB;
/// A request body after decompression; 413 above, decided before the excess is allocated.
pub const REQUEST_INFLATED_BYTES_MAX: usize = 64 * MIB;
/// How far a body may inflate; more is a bomb. Small bodies are exempt up to `REQUEST_RATIO_FREE_BYTES`.
pub const REQUEST_RATIO_MAX: usize = 100;
/// Inflated bytes below which the ratio is not judged: a body of one repeated line is honest.
pub const REQUEST_RATIO_FREE_BYTES: usize = MIB;
/// One log line.
pub const LINE_BYTES_MAX: usize = 256 * KIB;
/// Labels of one stream, those added at intake not counted.
pub const LABELS_MAX: usize = 15;
/// A label's or metadata field's name.
pub const LABEL_NAME_BYTES_MAX: usize = KIB;
/// A label's or metadata field's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 2 * KIB;
/// Structured metadata fields of one record.
pub const METADATA_FIELDS_MAX: usize = 128;
/// Names and values of one record's metadata together, so that a record always fits a sub-batch.
pub const METADATA_BYTES_MAX: usize = 64 * KIB;
/// Records of one request, refused ones too; 413 above. A record of no bytes costs two on the wire and a hundred here.
pub const REQUEST_RECORDS_MAX: usize = MIB;
/// Streams of one request; 413 above. Labels cost far more in memory than on the wire.
pub const REQUEST_STREAMS_MAX: usize = 32 * KIB;
/// Metadata fields of all records of one request; 413 above, for the same reason.
pub const REQUEST_FIELDS_MAX: usize = 2 * MIB;
/// A zstd body's window, as a power of two: 8 MiB, which every level but the ultra ones stays within.
pub const REQUEST_ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// First bytes of a line in which a level is looked for.
pub const LEVEL_SCAN_BYTES: usize = 512;
/// Nesting of a JSON body.
pub const JSON_DEPTH_MAX: usize = 32;
/// A tenant's name in bytes.
pub const TENANT_BYTES_MAX: usize = 64;
/// Streams one tenant may have in one shard.
pub const STREAMS_PER_TENANT_MAX: usize = 5_000;
/// How far a record's timestamp may lie ahead of the node's clock.
pub const TIMESTAMP_AHEAD_MAX: Duration = Duration::from_secs(600);
/// An `Idempotency-Key` header.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Bad lines that one answer names; the rest are counted.
pub const REFUSALS_NAMED_MAX: usize = 10;
/// A request's header section.
pub const HEADER_BYTES_MAX: usize = 64 * KIB;
/// A request's URI.
pub const URI_BYTES_MAX: usize = 32 * KIB;
/// Time for a client to finish its headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a body must make progress.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a whole body; a client slower than that keeps room from others.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Of a body that is refused unread, what is still taken from the socket, so that the client gets to read the answer.
pub const BODY_DRAIN_BYTES_MAX: usize = 64 * MIB;
/// How long that is done.
pub const BODY_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client is asked to wait, in `Retry-After`, before it sends a refused request again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Connections that one node's HTTP listener serves at once.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a listener that stops waits for the requests at hand.
pub const CLOSE_WAIT: Duration = Duration::from_secs(4);
/// The wait after a connection could not be accepted.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);

// Batches and entries.

/// An encoded entry; a larger request becomes several parts. It bounds head-of-line blocking on a link.
pub const ENTRY_BYTES_MAX: usize = 512 * KIB;
/// Raw line bytes at which one sub-batch is closed; zstd level 1 makes less of them, never much more.
pub const BATCH_RAW_BYTES_MAX: usize = 480 * KIB;
/// Rows of one sub-batch, so that row numbers and scratch space stay small.
pub const BATCH_ROWS_MAX: usize = 32_768;
/// Time in which a node that was forwarded an entry answers; the entry is sent again after, which dedupes.
pub const FORWARD_DEADLINE: Duration = Duration::from_secs(3);
/// How far a leader's clock may take shard time past the median of the connected nodes' clocks.
pub const SHARD_TIME_AHEAD_MAX: Duration = Duration::from_secs(60);
/// Idempotency keys a shard remembers, oldest out first.
pub const KEYS_PER_SHARD_MAX: usize = MIB;
/// How long a key is remembered, in shard time.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Time in which a request must reach its outcome; 504 after.
pub const INGEST_DEADLINE: Duration = Duration::from_secs(10);
/// Entries an ingester keeps unanswered per shard; more wait and are coalesced.
pub const ENTRIES_IN_FLIGHT_PER_SHARD_MAX: usize = 4;
/// How long a minority may leave a request without an answer before it is refused with 503.
pub const UNAVAILABLE_AFTER: Duration = Duration::from_millis(1_900);

// Consensus.

/// One tick of every replica's logical clock.
pub const TICK: Duration = Duration::from_millis(100);
/// Ticks that a replica is given with one message: half the messages of an idle node, at a coarser grain.
pub const TICKS_AT_ONCE: u32 = 2;
/// Messages with ticks between two publications of how a quiet replica stands.
pub const PUBLISH_TICKS: u64 = 5;
/// Ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 4;
/// Least ticks without a leader before a replica campaigns; the draw is in `[ELECTION_TICKS, 2 * ELECTION_TICKS)`.
pub const ELECTION_TICKS: usize = 9;
/// Bytes a leader holds that are not committed; proposals above are refused.
pub const UNCOMMITTED_BYTES_MAX: u64 = 16 * MIB as u64;
/// Appends in flight to one follower.
pub const INFLIGHT_APPENDS_MAX: usize = 64;
/// Entry bytes in one append.
pub const APPEND_BYTES_MAX: u64 = 512 * KIB as u64;
/// Linearizable reads waiting in one replica.
pub const READS_WAITING_MAX: usize = 1_024;
/// Proposals waiting in one replica.
pub const PROPOSALS_WAITING_MAX: usize = 1_024;
/// Entries in one append, so that many tiny ones cannot swell when they are decoded.
pub const APPEND_ENTRIES_MAX: usize = 4_096;
/// Entry bytes handed over in one `Apply`, so that a long tail arrives in pieces.
pub const APPLY_BYTES_MAX: u64 = 2 * MIB as u64;
/// Ticks after which a read that no majority answered is lost; the reader is told within `UNAVAILABLE_AFTER`.
pub const READ_TICKS_MAX: u32 = 18;
/// Fetches of old entries under way in one replica; a follower that waits for more is served by a later heartbeat.
pub const FETCHES_WAITING_MAX: usize = 16;
/// Ticks after which a fetch that was never answered may be asked for again.
pub const FETCH_TICKS_MAX: u32 = 50;
/// The context of a message: the name of a read round, or the mark of a leadership transfer.
pub const MESSAGE_CONTEXT_BYTES_MAX: usize = 32;
/// Ticks after which a snapshot that was offered to a follower, and of which nothing was heard, is offered again.
pub const SNAPSHOT_OFFER_TICKS_MAX: u32 = 100;
/// Wait before a roster that the disk refused is written again.
pub const ROSTER_RETRY: Duration = Duration::from_secs(2);
/// Wait before the files of a replica that has left, which could not be removed, are tried again.
pub const CLEAR_RETRY: Duration = Duration::from_secs(2);
/// Wait before a snapshot that could not be copied is asked for again.
pub const COPY_RETRY: Duration = Duration::from_secs(2);
/// Entries by which a learner may be behind its leader and count as caught up: what is on its way under full load.
pub const CAUGHT_UP_ENTRIES: u64 = 256;
/// Replicas that take part in one group, in whatever way, while it changes.
pub const MEMBERS_MAX: usize = 128;
/// The encoded members of one group.
pub const MEMBERS_BYTES_MAX: usize = 4 * KIB;
/// The highest term and index taken from a peer: no honest group gets there, and what is added to it never overflows.
pub const LOG_NUMBER_MAX: u64 = 1 << 62;
/// Voters of the metadata group; the other nodes learn.
pub const METADATA_VOTERS_MAX: usize = 5;
/// Leaderships moved at once to spread them again, so that a restart is not followed by a storm.
pub const LEADER_TRANSFERS_MAX: usize = 4;
/// A node's address as it is configured.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// How long a node that stops waits for others to lead what it led, and between two looks.
pub const HAND_OVER_WAIT: Duration = Duration::from_millis(1_500);
/// The wait between two looks at what is still led.
pub const HAND_OVER_POLL: Duration = Duration::from_millis(100);
/// Shards of one cluster.
pub const SHARDS_MAX: u32 = 1_024;
/// Shards of a cluster that does not say how many.
pub const SHARDS: u32 = 16;
/// Replicas of one shard: more than five outlive no likelier failure and each costs a write.
pub const REPLICATION_MAX: u32 = 5;
/// Replicas that a shard may have: with an even number more must live, and no more may fail.
pub const REPLICATION_ALLOWED: [u32; 3] = [1, 3, REPLICATION_MAX];
/// Nodes of one cluster.
pub const NODES_MAX: usize = 64;

/// Entries of the metadata group between two of its snapshots.
pub const METADATA_ENTRIES_PER_SNAPSHOT: u64 = 256;
/// Entries before a snapshot that the metadata group's log keeps for a node that is behind.
pub const METADATA_ENTRIES_KEPT: u64 = 1_024;
/// Node ids that a cluster ever gave out: those of removed nodes are remembered, so that none is used twice.
pub const NODES_EVER_MAX: usize = 1_024;
/// A node's zone.
pub const ZONE_BYTES_MAX: usize = 63;
/// Moves under way in the cluster: enough to keep the disks of a few nodes busy, few enough to end soon.
pub const MOVES_MAX: usize = 16;
/// Moves under way onto one node: while some copy, others agree on members, which takes as long as a small copy. More
/// would share its disk and end no sooner.
pub const MOVES_PER_NODE_MAX: usize = TRANSFERS_RUNNING_MAX;
/// How many replicas more than another a node holds before one is moved: with one less it would be moved back.
pub const REBALANCE_REPLICAS_APART: usize = 2;
/// By how many bytes a move must bring two nodes closer to each other; below that the copy costs more than it helps.
pub const REBALANCE_BYTES_APART: u64 = 1024 * MIB as u64;
/// How long a node may be gone before its replicas are given to others; a reboot takes less.
pub const REHOME_AFTER: Duration = Duration::from_secs(300);
/// Least time of that, above what an election and a redial take, and the most.
pub const REHOME_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30 * 24 * 3600));
/// Settings of which nodes compare hashes.
pub const FINGERPRINT_KEYS_MAX: usize = 32;
/// The name of such a setting.
pub const FINGERPRINT_KEY_BYTES_MAX: usize = 32;
/// The version number of a build that a peer says it runs.
pub const BUILD_VERSION_BYTES_MAX: usize = 64;

// Between nodes.

/// One frame between nodes.
pub const FRAME_BYTES_MAX: usize = 256 * KIB;
/// One message between nodes before it is cut into frames.
pub const MESSAGE_BYTES_MAX: usize = 8 * MIB;
/// Bulk bytes outstanding on one link.
pub const LINK_CREDIT_BYTES: usize = MIB;
/// Bulk bytes queued for one peer; more are dropped, which consensus repairs.
pub const LINK_QUEUE_BYTES_MAX: usize = 16 * MIB;
/// Control messages queued for one peer; more are dropped.
pub const LINK_CONTROL_QUEUE_MAX: usize = 4_096;
/// Time between heartbeats of a link.
pub const LINK_HEARTBEAT: Duration = Duration::from_millis(250);
/// Silence after which a peer is suspected.
pub const LINK_SUSPECT_AFTER: Duration = Duration::from_millis(1_500);
/// Calls to one peer that wait for an answer.
pub const CALLS_WAITING_MAX: usize = 1_024;
/// What a frame is charged besides its payload, so that empty ones are not free; a header is smaller.
pub const FRAME_OVERHEAD_BYTES: usize = 256;
/// The detail of a fault that answers a call; a longer one travels without it.
pub const FAULT_BYTES_MAX: usize = 16 * KIB;
/// Requests, answers and faults queued for one peer, at which faults are dropped and their callers time out.
pub const LINK_LETTERS_MAX: usize = 4_096;
/// A node's hello.
pub const HELLO_BYTES_MAX: usize = 32 * KIB;
/// Why a hello was refused, as told to the peer.
pub const REFUSAL_BYTES_MAX: usize = 512;
/// Heartbeats between hellos of a link that is up; a change is told at once.
pub const HELLO_EVERY: u32 = 8;
/// How long news that a node tells at once wait for more of them: leaders change in groups.
pub const LINK_NEWS_LINGER: Duration = Duration::from_millis(5);
/// How long a node that was removed from the cluster stays a peer: it is told so by hellos, of which one comes each second.
pub const LINK_FAREWELL: Duration = Duration::from_secs(3);
/// Least time between two flushes of a link, so that a burst of small messages shares frames.
pub const LINK_LINGER: Duration = Duration::from_millis(1);
/// Time for a dial to connect and be let in, and again to finish the handshake.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(1);
/// Time in which a write to a peer must make progress.
pub const PEER_WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// Silence after which a connection between nodes is closed; suspicion closes it sooner where the peer was heard before.
pub const PEER_READ_DEADLINE: Duration = Duration::from_secs(3);
/// Connections of one peer that have not finished the handshake.
pub const HANDSHAKES_PER_PEER_MAX: usize = 4;
/// Connections of peers that have not yet said who they are.
pub const PEER_ARRIVALS_MAX: usize = 64;
/// Time between two proposals of the first entry of a cluster.
pub const FORMATION_TICK: Duration = Duration::from_millis(250);
/// Time in which a command must come to the leader of the metadata group and be applied there: a few elections.
pub const GOVERN_DEADLINE: Duration = Duration::from_secs(10);
/// How often a move that an operator asks for is begun, where the map that it was planned on is outdated.
pub const MOVE_ATTEMPTS: u32 = 3;
/// Time in which a node hears of a newer map that the metadata group has: a few heartbeats of that group.
pub const MAP_HEARD_WITHIN: Duration = Duration::from_millis(500);
/// Time between two looks of the placer at where leaders and replicas are: a move takes a handful of them.
pub const PLACER_TICK: Duration = Duration::from_secs(1);
/// The same while replicas move, of which several looks are waited for one after the other.
pub const PLACER_TICK_MOVING: Duration = Duration::from_millis(250);
/// For how long what a node reported of itself is planned by.
pub const NODE_REPORT_LIFE: Duration = Duration::from_millis(3_500);
/// First and longest wait between dials.
pub const REDIAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

// Storage.

/// A WAL segment file.
pub const WAL_SEGMENT_BYTES: u64 = 64 * MIB as u64;
/// The WAL of one node; past it an absent replica no longer holds the log back.
pub const WAL_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Preallocated, so that the WAL of Raft itself can go on while a full disk refuses ingest. It holds a largest group: a node
/// that restarts on a full disk carries its last one over into it.
pub const WAL_RESERVE_BYTES: u64 = 10 * MIB as u64;
/// The wait before what a full disk had no room for is tried again.
pub const DISK_FULL_RETRY: Duration = Duration::from_millis(500);
/// Bytes that one group commit writes at most; the rest waits for the next.
pub const WAL_GROUP_BYTES_MAX: usize = 8 * MIB;
/// Live bytes in the oldest WAL segment up to which they are written again further on, so that it can be recycled; a
/// sixty-fourth of a segment keeps write amplification below 1.02. Shards that hold more are sealed instead.
pub const WAL_PIN_BYTES_MAX: u64 = MIB as u64;
/// A change of one replica's log that may use the reserve: votes, empty entries, trims, configuration.
pub const WAL_RESERVE_OP_BYTES_MAX: u64 = 4 * KIB as u64;
/// Segment files kept for their next use; writing over old blocks spares the file system its own journal.
pub const WAL_SPARE_SEGMENTS_MAX: usize = 2;
/// Head bytes of all shards of a node, raw; past it the fullest is sealed.
pub const HEAD_BYTES_MAX: usize = 128 * MIB;
/// Raw bytes of heads that are cut and not yet in registered segments, of one node: several heads for each thread that seals,
/// and half of what waits to be cut. At it no further head is cut for want of memory; where all heads outgrow
/// `HEAD_BYTES_MAX` and this, what clients send is held back, and refused once they do by as much again.
pub const SEALING_BYTES_MAX: usize = 64 * MIB;
/// Encoded bytes that a node takes in a second, all its replicas together, where the next would be refused for want of memory,
/// and the more the further it is from there: any machine seals as much.
pub const HELD_BACK_BYTES_PER_SECOND: u64 = 4 * MIB as u64;
/// How long an entry is held back; one that would have to wait for longer is refused, and sent again.
pub const HELD_BACK_MAX: Duration = Duration::from_secs(1);
/// The wait before an entry that a leader had no room for is sent again.
pub const BUSY_RETRY: Duration = Duration::from_millis(200);
/// The wait before a seal that a full disk refused is tried again.
pub const SEAL_RETRY: Duration = Duration::from_secs(5);
/// Age, in shard time, at which a head is sealed although small.
pub const HEAD_AGE_MAX: Duration = Duration::from_secs(2 * 3600);
/// Raw bytes of one sealed block.
pub const BLOCK_RAW_BYTES: usize = 4 * MIB;
/// Raw bytes of one frame of a block.
pub const BLOCK_FRAME_RAW_BYTES_MAX: usize = MIB;
/// Rows of one block, so that lines of no bytes do not make it endless.
pub const BLOCK_ROWS_MAX: usize = 131_072;
/// Lines of a block that share a template are stored by it from this many on.
pub const TEMPLATE_ROWS_LEAST: u32 = 4;
/// Templates of one block: no more have rows enough. Their numbers fit two bytes.
pub const TEMPLATES_MAX: usize = BLOCK_ROWS_MAX / TEMPLATE_ROWS_LEAST as usize;
/// Variables of one template.
pub const TEMPLATE_VARIABLES_MAX: usize = 255;
/// Variables of all rows of one block: each takes at least a byte of its line, and all but the last row keep within
/// `BLOCK_RAW_BYTES`.
pub const BLOCK_VALUES_MAX: usize = BLOCK_RAW_BYTES + TEMPLATE_VARIABLES_MAX;
/// All columns of one block, inflated: lines and metadata of the last record may exceed `BLOCK_RAW_BYTES`, and times,
/// lengths and streams come on top.
pub const BLOCK_INFLATED_BYTES_MAX: usize = 64 * MIB;
/// Raw bytes that a sealer holds inflated at once; a larger head is read several times.
pub const SEAL_RAW_BYTES_MAX: usize = 64 * MIB;
/// Idempotency keys in one frozen piece of their log: what a snapshot shares instead of copying.
pub const KEYS_PER_CHUNK: usize = 4_096;
/// Batches in one piece of a head: what a reader shares instead of copying.
pub const BATCHES_PER_CHUNK: usize = 256;
/// Sub-batches of one entry: one per request that an ingester coalesced.
pub const SUB_BATCHES_MAX: usize = 1_024;
/// How long, in shard time, a stream without a record counts as active once its tenant is at its bound.
pub const STREAM_LIFE: Duration = Duration::from_secs(2 * 3600);
/// Tenants with active streams in one shard.
pub const TENANTS_PER_SHARD_MAX: usize = 1_024;
/// One value of a snapshot file: redb rounds values up to powers of two.
pub const SNAPSHOT_VALUE_BYTES_MAX: usize = 60 * KIB;
/// The index of one segment.
pub const SEGMENT_INDEX_BYTES_MAX: usize = 256 * MIB;
/// What redb may keep of one open file in memory.
pub const REDB_CACHE_BYTES: usize = MIB;

// A node.

/// The port of the HTTP listener where nothing is configured; the one that Loki's clients know.
pub const HTTP_PORT: u16 = 3_100;
/// Memory a node plans with where nothing is configured.
pub const MEMORY_BYTES: u64 = 512 * MIB as u64;
/// Least memory a node can plan with: a request, its inflated form and the queues of one peer.
pub const MEMORY_BYTES_MIN: u64 = 128 * MIB as u64;
/// Memory for bytes in flight before a majority has them, as a part of the whole.
pub const MEMORY_IN_FLIGHT_PART: u64 = 4;

// Retention and room on the disk.

/// The least and the longest time that records can be kept for.
pub const RETENTION_AGE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(36_500 * 24 * 3600));
/// The least number of sealed bytes that a cluster can be told to keep.
pub const RETENTION_BYTES_MIN: u64 = MIB as u64;
/// Rules of the retention: each is matched against every stream that a query meets.
pub const RETENTION_RULES_MAX: usize = 64;
/// Messages with ticks between two looks of a leader at what its shard may drop.
pub const RETENTION_TICKS: u64 = 5;
/// The wait before a file is removed again that a copy held when retention was through with it.
pub const LEASED_RETRY: Duration = Duration::from_secs(30);
/// Used part of the disk, in percent, at which a node warns, and at which it refuses ingest: a few minutes of sealing,
/// snapshots and the log's own growth still fit.
pub const DISK_PERCENT: (u64, u64) = (85, 95);
/// Free bytes above which it does neither, whatever the percent: a log of the usual size fits several times.
pub const DISK_FREE: (u64, u64) = (32 << 30, 4 << 30);
/// Time between two looks at how full the disk is.
pub const DISK_LOOK: Duration = Duration::from_secs(1);

// Queries.

/// Queries that run on one node.
pub const QUERIES_RUNNING_MAX: usize = 16;
/// Queries that wait on one node; 503 above.
pub const QUERIES_QUEUED_MAX: usize = 64;
/// Time for one query.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(60);
/// Memory of one query.
pub const QUERY_BYTES_MAX: usize = 64 * MIB;
/// Series of one answer.
pub const SERIES_MAX: usize = 500;
/// Points of one series.
pub const POINTS_MAX: usize = 11_000;
/// Records of one answer: by default, and at most.
pub const RECORDS_PER_ANSWER: (usize, usize) = (100, 5_000);
/// Tails of one tenant on one node.
pub const TAILS_PER_TENANT_MAX: usize = 10;
/// Tails of all tenants on one node.
pub const TAILS_MAX: usize = 32;
/// Records of one frame of a tail.
pub const TAIL_RECORDS_PER_FRAME: u32 = 500;
/// Frames of one tail that wait for its reader; after that its shards wait.
pub const TAIL_FRAMES_WAITING_MAX: usize = 4;
/// How long a tail waits for something new before it looks who leads.
pub const TAIL_WAIT: Duration = Duration::from_secs(10);
/// Before a tail asks again for a shard that nobody could read.
pub const TAIL_RETRY: Duration = Duration::from_millis(250);
/// How long a tail's reader may take for one frame; then it is cut off.
pub const TAIL_SLOW_AFTER: Duration = Duration::from_secs(10);
/// Between two pings of a tail, so that a reader that is gone is noticed.
pub const TAIL_PING: Duration = Duration::from_secs(15);
/// Queriers of one node.
pub const QUERIERS: usize = 2;
/// Shards that one query reads at once: it bounds the parts in memory.
pub const QUERY_FANOUT_MAX: usize = 8;
/// Blocks that a scan reads before it lets others on its worker thread.
pub const SCAN_STEPS_PER_TURN: usize = 4;
/// Shards that a node reads at once for other nodes; more are asked to come again.
pub const PEER_SCANS_MAX: usize = 1_024;
/// The body of a query that is sent as a form.
pub const FORM_BYTES_MAX: usize = 64 * KIB;
/// The body of a request that changes the cluster: a handful of names and numbers.
pub const ADMIN_BODY_BYTES_MAX: usize = 4 * KIB;
/// A LogQL query in bytes.
pub const QUERY_TEXT_BYTES_MAX: usize = 16 * KIB;
/// Operators, calls and parentheses of one query; it bounds the depth of its tree.
pub const QUERY_DEPTH_MAX: usize = 128;
/// Regular expressions of one query, each of which may compile to `REGEX_BYTES_MAX`.
pub const QUERY_REGEXES_MAX: usize = 16;
/// Unwrapped numbers that one query keeps one by one, for quantiles and counters: at 32 bytes each, ranks included, they
/// fit `QUERY_BYTES_MAX`.
pub const QUERY_NUMBERS_MAX: usize = 2 * MIB;
/// Range expressions of one query, each of which scans every shard.
pub const QUERY_RANGES_MAX: usize = 4;
/// Records by offset of one answer; `PARTIAL_BYTES` ends it earlier where they are long.
pub const RECORDS_BY_OFFSET_MAX: usize = 32_768;
/// Labels of one record within a query, those of its stream and its metadata included; stages find no more.
pub const FIELDS_PER_RECORD_MAX: usize = 1_024;
/// Names and values of the labels that the stages of a query give one record.
pub const FIELD_BYTES_PER_RECORD_MAX: usize = MIB;
/// What a stage of a query says of what it could not do; the rest is cut off.
pub const ERROR_DETAILS_BYTES_MAX: usize = KIB;
/// What a template writes for one record, and each text on its way there: at most a line.
pub const TEMPLATE_BYTES_MAX: usize = LINE_BYTES_MAX;
/// Bytes that a template may go over for one record, some for each step without text. Measured: 2 to 20 ms.
pub const TEMPLATE_WORK_MAX: usize = 8 * MIB;
/// Blocks, parentheses and pipes of a template within each other; it bounds the stack.
pub const TEMPLATE_DEPTH_MAX: usize = 32;
/// Compiled size of one regular expression.
pub const REGEX_BYTES_MAX: usize = MIB;
/// Nesting of one regular expression.
pub const REGEX_NEST_MAX: u32 = 64;
/// What one shard's part of a log answer holds before it is cut and continued: it travels as one message.
pub const PARTIAL_BYTES: usize = 4 * MIB;
/// An encoded part of an answer; above, the query is refused.
pub const PARTIAL_BYTES_MAX: usize = 7 * MIB;
/// Series of an answer about volume: default and most. They are sums, cheaper than those of `SERIES_MAX`.
pub const VOLUME_SERIES: (usize, usize) = (100, 5_000);
/// Records that a shard looks at for fields: default and most.
pub const FIELD_LINES: (usize, usize) = (100, 5_000);
/// Fields, or values of one, of an answer: default and most.
pub const FIELDS_PER_ANSWER: (usize, usize) = (1_000, 5_000);
/// Fields that are held while they are looked for.
pub const FIELDS_HELD_MAX: usize = 5_000;
/// Different values that are counted, of all fields together; their hashes travel as one message.
pub const FIELD_VALUES_HELD_MAX: usize = 262_144;
/// Patterns that are held while lines are counted; past them those that are alike are merged and the rarest left out.
pub const PATTERNS_HELD_MAX: usize = 1_024;
/// Patterns of an answer: more than a person looks at.
pub const PATTERNS_PER_ANSWER: usize = 300;
/// Words of a pattern; the rest of a line is one variable.
pub const PATTERN_WORDS_MAX: usize = 256;
/// The part of a line that is cut into words; the rest is one variable.
pub const PATTERN_LINE_BYTES_MAX: usize = 2 * KIB;

// Copies of snapshots between nodes.

/// One piece of a file that is copied: one frame, so that appends go between any two of them.
pub const TRANSFER_CHUNK_BYTES: usize = FRAME_BYTES_MAX;
/// Bytes of a segment, or of the copy of a file, that are written before they are made durable: a sync of more would hold
/// up those of the WAL.
pub const FILE_SYNC_BYTES: u64 = MIB as u64;
/// Pieces of one copy that were asked for and are not on the disk yet.
pub const TRANSFER_CHUNKS_IN_FLIGHT: usize = 2;
/// What one node copies from others in a second, all shards together, and again what it serves, while it stores records:
/// a fifth of a gigabit link. While it stores none nothing waits for a copy, and there is no such bound.
pub const TRANSFER_BYTES_PER_SECOND: u64 = 24 * MIB as u64;
/// How long after its last record a node counts as storing none.
pub const TRANSFER_ALONE_AFTER: Duration = Duration::from_secs(1);
/// What may be copied at once after a pause, above that.
pub const TRANSFER_BURST_BYTES: u64 = MIB as u64;
/// Shards that one node copies at once; the others wait.
pub const TRANSFERS_RUNNING_MAX: usize = 4;
/// Requests of copying nodes that one node reads its disk for at once; more are asked to come again, which costs them
/// `TRANSFER_RETRY`: room for all that four nodes ask for at once.
pub const TRANSFER_READS_MAX: usize = 4 * TRANSFERS_RUNNING_MAX * TRANSFER_CHUNKS_IN_FLIGHT;
/// How long after its last use a lease holds the files of a snapshot.
pub const TRANSFER_LEASE: Duration = Duration::from_secs(120);
/// The same where the replica has left the node, which can hold another of the shard only when the files are gone. A copy
/// that goes on asks for a piece more often.
pub const TRANSFER_LEASE_LEFT: Duration = Duration::from_secs(20);
/// Leases of one node; a node that copies has one for each shard.
pub const TRANSFER_LEASES_MAX: usize = 64;
/// Segments of a snapshot that can be copied: its manifest is one message.
pub const TRANSFER_SEGMENTS_MAX: usize = 65_536;
/// Nodes that one copy may be made from.
pub const TRANSFER_SOURCES_MAX: usize = 8;
/// Time for a source to answer with a piece of a file.
pub const TRANSFER_CHUNK_DEADLINE: Duration = Duration::from_secs(12);
/// Time for a source to read and hash its newest snapshot.
pub const TRANSFER_MANIFEST_DEADLINE: Duration = Duration::from_secs(60);
/// The wait after every source failed once, and before a busy one is asked again.
pub const TRANSFER_RETRY: Duration = Duration::from_secs(1);
/// How often each source may fail before a file is copied; then the copy is given up, and what it has stays on the disk.
pub const TRANSFER_ROUNDS_MAX: u32 = 5;
/// Time between two looks of a copy that waits.
pub const TRANSFER_TICK: Duration = Duration::from_millis(250);

// Reading files through, to find damage before a reader does.

/// What one node reads through in a second, all shards together: little beside what a disk gives to those who wait for it.
pub const SCRUB_BYTES_PER_SECOND: u64 = 16 * MIB as u64;
/// One piece of a file that is read through: it bounds how long a folder is taken.
pub const SCRUB_PIECE_BYTES: usize = MIB;
/// The wait before the first round of a replica's life: a node that starts has more urgent things to read.
pub const SCRUB_FIRST_AFTER: Duration = Duration::from_secs(3);
/// The pause between two rounds of a replica.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(600);
/// The wait before a repair that failed is tried again.
pub const REPAIR_RETRY: Duration = Duration::from_secs(15);
/// Least time between two looks at a file that reads find damaged.
pub const SUSPECT_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Files of one shard that wait to be looked at; a round finds what was left out.
pub const SUSPECTS_MAX: usize = 1_024;

// Backups.

/// Time between two looks of the schedule of backups.
pub const BACKUP_TICK: Duration = Duration::from_secs(2);
/// Time from one scheduled backup to the next where nothing is configured.
pub const BACKUP_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Least and most time between two scheduled backups.
pub const BACKUP_EVERY_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30 * 86_400));
/// Least and most backups that a schedule keeps.
pub const BACKUP_KEEP_BOUNDS: (u64, u64) = (1, 10_000);
/// Backups that a schedule keeps where nothing is configured: a week of one every six hours.
pub const BACKUP_KEEP: u64 = 28;
/// The wait after a scheduled backup failed.
pub const BACKUP_RETRY: Duration = Duration::from_secs(60);
/// The URL of a store.
pub const BACKUP_URL_BYTES_MAX: usize = 4 * KIB;
/// How often a request to a bucket is tried again.
pub const BACKUP_STORE_RETRIES: usize = 8;
/// How long that is done.
pub const BACKUP_STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Shards that one backup reads at once: each is a file under way, and a piece of it in memory.
pub const BACKUP_SHARDS_AT_ONCE: usize = 2;
/// A piece of a file that is uploaded; object stores take no less than 5 MiB.
pub const BACKUP_PART_BYTES: usize = 8 * MIB;
/// Pieces of one file that are on their way to the store.
pub const BACKUP_PARTS_IN_FLIGHT: usize = 2;
/// How long a leader may take to seal a shard and write its snapshot before it asks to be asked again.
pub const BACKUP_SEAL_WAIT: Duration = Duration::from_secs(45);
/// Time between two proposals of a seal that a backup waits for.
pub const BACKUP_SEAL_POLL: Duration = Duration::from_millis(500);
/// Seals for backups that one node waits for at once; more are asked to come again.
pub const BACKUP_SEALS_MAX: usize = 16;
/// Time for a leader to answer that a shard is sealed.
pub const BACKUP_SEAL_DEADLINE: Duration = Duration::from_secs(120);
/// How often a shard of a backup is begun anew, where its leader changed or did not answer.
pub const BACKUP_SHARD_ATTEMPTS: u32 = 30;
/// The wait before that.
pub const BACKUP_SHARD_RETRY: Duration = Duration::from_secs(1);
/// How often it is begun anew because of a segment that is not whole and has no other copy: a node that was restarted
/// meanwhile has forgotten what it leased.
pub const BACKUP_UNFIT_ATTEMPTS: u32 = 3;
/// A backup that takes longer is given up; what it uploaded is found by the next.
pub const BACKUP_RUN_MAX: Duration = Duration::from_secs(3 * 86_400);
/// Age up to which a file that no manifest names is taken for present.
pub const BACKUP_REUSE_AGE: Duration = Duration::from_secs(3 * 86_400);
/// Least age at which a file that no manifest names is removed, and a retired manifest with it.
pub const BACKUP_SAFETY: Duration = Duration::from_secs(7 * 86_400);
/// A manifest in bytes: a million segments.
pub const BACKUP_MANIFEST_BYTES_MAX: usize = 256 * MIB;
/// Raw bytes at which a request of a restore is closed.
pub const RESTORE_REQUEST_RAW_BYTES: usize = 2 * MIB;
/// Shards of a backup that a restore reads at once: a segment of each is in memory, inflated.
pub const RESTORE_SHARDS_AT_ONCE: usize = 4;
/// Time between two notes of how far a restore has come.
pub const RESTORE_NOTE_EVERY: Duration = Duration::from_secs(2);

const _: () = assert!(BACKUP_REUSE_AGE.as_secs() + BACKUP_RUN_MAX.as_secs() < BACKUP_SAFETY.as_secs());
const _: () =
    assert!(BACKUP_SEAL_WAIT.as_secs() + TRANSFER_MANIFEST_DEADLINE.as_secs() < BACKUP_SEAL_DEADLINE.as_secs());
const _: () = assert!(BACKUP_PART_BYTES >= 5 * MIB && BACKUP_KEEP >= BACKUP_KEEP_BOUNDS.0);
const _: () = assert!(RESTORE_REQUEST_RAW_BYTES + BATCH_RAW_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(BATCH_RAW_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(LINE_BYTES_MAX < BATCH_RAW_BYTES_MAX);
const _: () = assert!(
    LINE_BYTES_MAX
        + METADATA_BYTES_MAX
        + (LABELS_MAX + 1) * (LABEL_NAME_BYTES_MAX + LABEL_VALUE_BYTES_MAX + 2)
        + 4 * KIB
        < BATCH_RAW_BYTES_MAX
);
const _: () =
    assert!(REQUEST_ZSTD_WINDOW_LOG_MAX < 32 && 1 << REQUEST_ZSTD_WINDOW_LOG_MAX <= REQUEST_INFLATED_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= LINK_CREDIT_BYTES);
const _: () = assert!(2 * (FRAME_BYTES_MAX + FRAME_OVERHEAD_BYTES) <= LINK_CREDIT_BYTES);
const _: () = assert!(HELLO_BYTES_MAX + REFUSAL_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(LINK_HEARTBEAT.as_millis() * 4 <= LINK_SUSPECT_AFTER.as_millis());
const _: () = assert!(LINK_QUEUE_BYTES_MAX > MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES);
const _: () = assert!(ENTRY_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(LINK_QUEUE_BYTES_MAX >= MESSAGE_BYTES_MAX);
const _: () = assert!(
    PARTIAL_BYTES
        + LINE_BYTES_MAX
        + METADATA_BYTES_MAX
        + (LABELS_MAX + 1) * 4 * KIB
        + FIELD_BYTES_PER_RECORD_MAX
        + FIELDS_PER_RECORD_MAX * 32
        < PARTIAL_BYTES_MAX
);
const _: () = assert!(LABELS_MAX + METADATA_FIELDS_MAX < FIELDS_PER_RECORD_MAX);
const _: () = assert!(QUERY_FANOUT_MAX * PARTIAL_BYTES_MAX <= QUERY_BYTES_MAX);
const _: () = assert!(QUERY_NUMBERS_MAX * 32 <= QUERY_BYTES_MAX);
const _: () = assert!(FIELD_VALUES_HELD_MAX * 9 + FIELDS_HELD_MAX * 256 < PARTIAL_BYTES_MAX);
const _: () = assert!(FIELDS_PER_ANSWER.1 <= FIELDS_HELD_MAX && PATTERNS_PER_ANSWER <= PATTERNS_HELD_MAX / 2);
const _: () = assert!(QUERY_TEXT_BYTES_MAX < FORM_BYTES_MAX);
const _: () = assert!(PARTIAL_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(HEARTBEAT_TICKS * 2 < ELECTION_TICKS);
const _: () = assert!(SNAPSHOT_OFFER_TICKS_MAX as usize > 2 * ELECTION_TICKS);
const _: () = assert!(MEMBERS_MAX >= 2 * NODES_MAX);
const _: () = assert!(MEMBERS_BYTES_MAX >= 16 + 2 * MEMBERS_MAX * 9);
const _: () = assert!(UNCOMMITTED_BYTES_MAX >= APPEND_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX as usize + APPEND_ENTRIES_MAX * 32 < MESSAGE_BYTES_MAX);
const _: () = assert!(READ_TICKS_MAX as u128 * TICK.as_millis() <= UNAVAILABLE_AFTER.as_millis());
const _: () = assert!(MOVES_PER_NODE_MAX <= MOVES_MAX && NODES_MAX <= NODES_EVER_MAX);
const _: () = assert!(PLACER_TICK.as_millis().is_multiple_of(PLACER_TICK_MOVING.as_millis()));
const _: () = assert!(REBALANCE_REPLICAS_APART >= 2);
const _: () = assert!(METADATA_VOTERS_MAX >= 3 && METADATA_VOTERS_MAX <= NODES_MAX);
const _: () = assert!(
    NODES_MAX * (96 + ADDRESS_BYTES_MAX)
        + FINGERPRINT_KEYS_MAX * (FINGERPRINT_KEY_BYTES_MAX + 16)
        + 2 * BUILD_VERSION_BYTES_MAX
        < HELLO_BYTES_MAX
);
const _: () = assert!(GOVERN_DEADLINE.as_millis() > 4 * ELECTION_TICKS as u128 * TICK.as_millis());
const _: () = assert!(REHOME_AFTER_BOUNDS.0.as_millis() > LINK_SUSPECT_AFTER.as_millis());
const _: () = assert!(WAL_BYTES_MAX >= 4 * WAL_SEGMENT_BYTES);
const _: () = assert!(WAL_SEGMENT_BYTES > 2 * WAL_GROUP_BYTES_MAX as u64);
const _: () = assert!(BATCH_ROWS_MAX <= BLOCK_ROWS_MAX);
const _: () = assert!(TEMPLATES_MAX < u16::MAX as usize);
const _: () = assert!(SEAL_RAW_BYTES_MAX >= 4 * BLOCK_RAW_BYTES);
const _: () = assert!(SEALING_BYTES_MAX <= HEAD_BYTES_MAX);
const _: () = assert!(HELD_BACK_MAX.as_millis() * 2 < FORWARD_DEADLINE.as_millis());
const _: () = assert!(HELD_BACK_MAX.as_millis() + BUSY_RETRY.as_millis() < UNAVAILABLE_AFTER.as_millis());
const _: () = assert!(BLOCK_INFLATED_BYTES_MAX >= 4 * BLOCK_RAW_BYTES + BLOCK_ROWS_MAX * 40);
const _: () = assert!(WAL_RESERVE_BYTES >= 2 * WAL_PIN_BYTES_MAX);
const _: () = assert!(WAL_RESERVE_BYTES > WAL_GROUP_BYTES_MAX as u64 + MIB as u64);
const _: () = assert!(WAL_RESERVE_OP_BYTES_MAX < ENTRY_BYTES_MAX as u64);
const _: () = assert!(REQUEST_BYTES_MAX <= REQUEST_INFLATED_BYTES_MAX);
const _: () =
    assert!(MEMORY_BYTES_MIN >= (REQUEST_BYTES_MAX + REQUEST_INFLATED_BYTES_MAX + LINK_QUEUE_BYTES_MAX) as u64);
const _: () = assert!(DISK_PERCENT.0 <= DISK_PERCENT.1 && DISK_PERCENT.1 <= 100);
const _: () = assert!(LEASED_RETRY.as_millis() < TRANSFER_LEASE.as_millis());
const _: () = assert!(TRANSFER_LEASE_LEFT.as_millis() < TRANSFER_LEASE.as_millis());
const _: () = assert!(TRANSFER_LEASE_LEFT.as_millis() > TRANSFER_CHUNK_DEADLINE.as_millis());
const _: () = assert!(MEMORY_BYTES >= MEMORY_BYTES_MIN && SHARDS <= SHARDS_MAX);
const _: () = assert!(TRANSFER_CHUNK_BYTES <= FRAME_BYTES_MAX);
const _: () = assert!(FILE_SYNC_BYTES.is_multiple_of(TRANSFER_CHUNK_BYTES as u64));
const _: () = assert!(TRANSFER_CHUNKS_IN_FLIGHT * (TRANSFER_CHUNK_BYTES + FRAME_OVERHEAD_BYTES) < LINK_CREDIT_BYTES);
const _: () = assert!(
    TRANSFERS_RUNNING_MAX * TRANSFER_CHUNKS_IN_FLIGHT * (TRANSFER_CHUNK_BYTES + FRAME_OVERHEAD_BYTES)
        <= LINK_QUEUE_BYTES_MAX / 4
);
const _: () = assert!(
    (NODES_MAX * TRANSFERS_RUNNING_MAX * TRANSFER_CHUNKS_IN_FLIGHT * TRANSFER_CHUNK_BYTES) as u64
        <= TRANSFER_BYTES_PER_SECOND * TRANSFER_CHUNK_DEADLINE.as_secs() / 2
);
const _: () = assert!(TRANSFER_SEGMENTS_MAX * 100 < MESSAGE_BYTES_MAX);
const _: () = assert!(TRANSFER_LEASE.as_millis() > TRANSFER_MANIFEST_DEADLINE.as_millis());
const _: () = assert!(TRANSFER_SOURCES_MAX >= REPLICATION_MAX as usize);
