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
/// Connections that one node's HTTP listener serves at once.
pub const CONNECTIONS_MAX: usize = 4_096;

// Batches and entries.

/// An encoded entry; a larger request becomes several parts. It bounds head-of-line blocking on a link.
pub const ENTRY_BYTES_MAX: usize = 512 * KIB;
/// Raw line bytes at which one sub-batch is closed; zstd level 1 makes less of them, never much more.
pub const BATCH_RAW_BYTES_MAX: usize = 480 * KIB;
/// Rows of one sub-batch, so that row numbers and scratch space stay small.
pub const BATCH_ROWS_MAX: usize = 32_768;
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
/// Ticks between a leader's heartbeats.
pub const HEARTBEAT_TICKS: usize = 2;
/// Least ticks without a leader before a replica campaigns; the draw is in `[ELECTION_TICKS, 2 * ELECTION_TICKS)`.
pub const ELECTION_TICKS: usize = 6;
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
/// Shards of one cluster.
pub const SHARDS_MAX: u32 = 1_024;
/// Nodes of one cluster.
pub const NODES_MAX: usize = 64;

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
/// First and longest wait between dials.
pub const REDIAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

// Storage.

/// A WAL segment file.
pub const WAL_SEGMENT_BYTES: u64 = 64 * MIB as u64;
/// The WAL of one node; past it an absent replica no longer holds the log back.
pub const WAL_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Preallocated, so that the WAL of Raft itself can go on while a full disk refuses ingest.
pub const WAL_RESERVE_BYTES: u64 = 8 * MIB as u64;
/// Bytes that one group commit writes at most; the rest waits for the next.
pub const WAL_GROUP_BYTES_MAX: usize = 8 * MIB;
/// Head bytes of all shards of a node, raw; past it the fullest is sealed.
pub const HEAD_BYTES_MAX: usize = 128 * MIB;
/// Age, in shard time, at which a head is sealed although small.
pub const HEAD_AGE_MAX: Duration = Duration::from_secs(2 * 3600);
/// Raw bytes of one sealed block.
pub const BLOCK_RAW_BYTES: usize = 4 * MIB;
/// Raw bytes of one frame of a block.
pub const BLOCK_FRAME_RAW_BYTES_MAX: usize = MIB;

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
/// A LogQL query in bytes.
pub const QUERY_TEXT_BYTES_MAX: usize = 16 * KIB;
/// Compiled size of one regular expression.
pub const REGEX_BYTES_MAX: usize = MIB;

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
const _: () = assert!(ENTRY_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(LINK_QUEUE_BYTES_MAX >= MESSAGE_BYTES_MAX);
const _: () = assert!(HEARTBEAT_TICKS * 2 < ELECTION_TICKS);
const _: () = assert!(WAL_BYTES_MAX >= 4 * WAL_SEGMENT_BYTES);
const _: () = assert!(WAL_SEGMENT_BYTES > 2 * WAL_GROUP_BYTES_MAX as u64);
const _: () = assert!(REQUEST_BYTES_MAX <= REQUEST_INFLATED_BYTES_MAX);
