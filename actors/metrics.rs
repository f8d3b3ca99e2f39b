//! The node's numbers, in the text format of Prometheus.
//!
//! Counters and histograms are written by the actors as things happen; what only stands somewhere (mailboxes, roles,
//! links, the disk) is read when somebody scrapes. Every name begins with `millpond_`.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::tree::{ActorState, TreeHandle};

type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Timed = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A shard as this node sees it, read at a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardGauges {
    /// The shard: `0`, or `metadata`.
    pub shard: String,
    /// `leader`, `follower`, `learner`, `candidate`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// Raw bytes that are in no sealed segment yet.
    pub head_bytes: u64,
    /// Entries committed and not applied yet.
    pub unapplied: u64,
    /// Replicas that its leader, if it is here, hears from, itself included; and how many there should be.
    pub replicas: Option<(u64, u64)>,
}

/// A link to another node, read at a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGauges {
    /// The node's number.
    pub peer: String,
    /// Whether it is connected and not suspected.
    pub up: bool,
    /// Bulk bytes that may still be sent.
    pub credit_bytes: u64,
    /// Bulk bytes that wait.
    pub queued_bytes: u64,
    /// Messages dropped since the node started.
    pub dropped: u64,
}

/// What stands somewhere and is read at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The shards with a replica here.
    pub shards: Vec<ShardGauges>,
    /// The other nodes.
    pub peers: Vec<PeerGauges>,
    /// Bytes that can still be written; `None` where it is unknown.
    pub disk_free_bytes: Option<u64>,
    /// Those and what is written already; `None` where it is unknown.
    pub disk_total_bytes: Option<u64>,
    /// Whether the disk is filled beyond the mark at which an operator should act.
    pub disk_warning: bool,
    /// Whether ingest is refused because the disk is full, or nearly.
    pub disk_full: bool,
    /// Whether the node serves its shards.
    pub ready: bool,
}

/// Reads what stands somewhere, at a scrape.
pub trait Survey: Send + Sync + 'static {
    /// The standing of this moment. It must not block.
    fn survey(&self) -> Standing;
}

impl<F: Fn() -> Standing + Send + Sync + 'static> Survey for F {
    fn survey(&self) -> Standing {
        self()
    }
}

/// The node's numbers. Shared by all actors of the node.
pub struct Metrics {
    registry: Registry,
    ingest_requests: Counters<2>,
    ingest_bytes: Counters<1>,
    ingest_records: Counters<1>,
    discarded: Counters<1>,
    duplicates: Counter,
    wal_fsync: Histogram,
    wal_group_bytes: Histogram,
    wal_bytes: Gauge,
    commit: Histogram,
    sealed_bytes: Counter,
    seal: Histogram,
    dropped_segments: Counter,
    dropped_bytes: Counter,
    query: Timed,
    queries: Counters<2>,
    queries_running: Gauge,
    scans_running: Gauge,
    tails: Gauge,
    transfer_bytes: Counters<1>,
    transfers: Counters<1>,
    scrub_bytes: Counter,
    scrub_damaged: Counter,
    repairs: Counters<1>,
    divergence: Counter,
    backup_bytes: Counters<1>,
    backups: Counters<1>,
    backup_last_success: Gauge,
    insecure: Gauge,
}

/// Counts in a gauge what runs.
#[derive(Debug)]
pub struct Running(Gauge);

impl Running {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// From a tenth of a millisecond to 13 s: what a disk, a majority or a query takes.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

/// From 1 KiB to 16 MiB: what one group commit writes.
fn group_sizes() -> Histogram {
    Histogram::new(exponential_buckets(1_024.0, 2.0, 15))
}

impl Metrics {
    /// Numbers that start at zero. Actors are read from `tree`, the rest of what stands from `survey`.
    pub fn new(tree: TreeHandle, survey: impl Survey) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("millpond"),
            ingest_requests: Family::default(),
            ingest_bytes: Family::default(),
            ingest_records: Family::default(),
            discarded: Family::default(),
            duplicates: Counter::default(),
            wal_fsync: durations(),
            wal_group_bytes: group_sizes(),
            wal_bytes: Gauge::default(),
            commit: durations(),
            sealed_bytes: Counter::default(),
            seal: durations(),
            dropped_segments: Counter::default(),
            dropped_bytes: Counter::default(),
            query: Family::new_with_constructor(durations),
            queries: Family::default(),
            queries_running: Gauge::default(),
            scans_running: Gauge::default(),
            tails: Gauge::default(),
            transfer_bytes: Family::default(),
            transfers: Family::default(),
            scrub_bytes: Counter::default(),
            scrub_damaged: Counter::default(),
            repairs: Family::default(),
            divergence: Counter::default(),
            backup_bytes: Family::default(),
            backups: Family::default(),
            backup_last_success: Gauge::default(),
            insecure: Gauge::default(),
        };
        metrics.register();
        metrics.registry.register_collector(Box::new(Actors(tree)));
        metrics.registry.register_collector(Box::new(Standings(Box::new(survey))));
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "ingest_requests",
            "Requests to store records, by protocol and status",
            self.ingest_requests.clone(),
        );
        registry.register(
            "ingest_bytes",
            "Raw line bytes of records acknowledged, by protocol",
            self.ingest_bytes.clone(),
        );
        registry.register("ingest_records", "Records acknowledged, by protocol", self.ingest_records.clone());
        registry.register("discarded_records", "Records refused, by reason", self.discarded.clone());
        registry.register(
            "duplicate_parts",
            "Parts of repeated requests that were stored already",
            self.duplicates.clone(),
        );
        registry.register("wal_fsync_seconds", "Time of one write and fdatasync of the WAL", self.wal_fsync.clone());
        registry.register("wal_group_bytes", "Bytes of one group commit", self.wal_group_bytes.clone());
        registry.register("wal_bytes", "Bytes of the WAL's segments", self.wal_bytes.clone());
        registry.register(
            "commit_seconds",
            "Time from a proposal to its application on the leader",
            self.commit.clone(),
        );
        registry.register("sealed_bytes", "Raw line bytes sealed into segments", self.sealed_bytes.clone());
        registry.register("seal_seconds", "Time of one sealing", self.seal.clone());
        registry.register(
            "retention_dropped_segments",
            "Segments that retention removed",
            self.dropped_segments.clone(),
        );
        registry.register("retention_dropped_bytes", "Bytes of their files", self.dropped_bytes.clone());
        registry.register("query_seconds", "Time of one query, by kind", self.query.clone());
        registry.register("queries", "Queries answered, by kind and status", self.queries.clone());
        registry.register("queries_running", "Queries that run, of clients of this node", self.queries_running.clone());
        registry.register(
            "scans_running",
            "Scans of shards that run here, of any node's queries",
            self.scans_running.clone(),
        );
        registry.register("tails", "Tails that are open", self.tails.clone());
        registry.register(
            "transfer_bytes",
            "Bytes of snapshots and segments copied, by direction",
            self.transfer_bytes.clone(),
        );
        registry.register("transfers", "Copies of snapshots that ended, by outcome", self.transfers.clone());
        registry.register("scrub_bytes", "Bytes of files read through to find damage", self.scrub_bytes.clone());
        registry.register("scrub_damaged", "Files found damaged or missing", self.scrub_damaged.clone());
        registry.register("repairs", "Repairs of files that ended, by outcome", self.repairs.clone());
        registry.register(
            "divergence",
            "Segments of the same offsets that hold other records on another replica",
            self.divergence.clone(),
        );
        registry.register(
            "backup_bytes",
            "Bytes of segments in backups that this node made, uploaded or reused",
            self.backup_bytes.clone(),
        );
        registry.register("backups", "Backups that this node made, by outcome", self.backups.clone());
        registry.register(
            "backup_last_success_seconds",
            "When the newest backup began that this node knows of, since the Unix epoch; 0 for none",
            self.backup_last_success.clone(),
        );
        registry.register("insecure", "1 where a listener is open to others without TLS", self.insecure.clone());
    }

    /// A request to store records was answered.
    pub fn ingested(&self, protocol: &'static str, status: u16, records: u64, raw_bytes: u64) {
        let protocol = ("protocol", protocol.to_owned());
        self.ingest_requests.get_or_create(&[protocol.clone(), ("status", status.to_string())]).inc();
        if records > 0 {
            self.ingest_records.get_or_create(std::array::from_ref(&protocol)).inc_by(records);
            self.ingest_bytes.get_or_create(&[protocol]).inc_by(raw_bytes);
        }
    }

    /// Records were refused.
    pub fn discarded(&self, reason: &'static str, records: u64) {
        self.discarded.get_or_create(&[("reason", reason.to_owned())]).inc_by(records);
    }

    /// A part came again and was skipped.
    pub fn duplicate(&self) {
        self.duplicates.inc();
    }

    /// One group is durable.
    #[expect(clippy::cast_precision_loss, reason = "the sizes of histograms need no last digit")]
    pub fn wal_committed(&self, group_bytes: u64, took: Duration, wal_bytes: u64) {
        self.wal_fsync.observe(took.as_secs_f64());
        self.wal_group_bytes.observe(group_bytes as f64);
        self.wal_bytes.set(i64::try_from(wal_bytes).unwrap_or(i64::MAX));
    }

    /// An entry proposed here was committed by a majority and applied.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// A segment was sealed.
    pub fn sealed(&self, raw_bytes: u64, took: Duration) {
        self.sealed_bytes.inc_by(raw_bytes);
        self.seal.observe(took.as_secs_f64());
    }

    /// Retention removed segments of so many bytes.
    pub fn dropped(&self, segments: u64, bytes: u64) {
        self.dropped_segments.inc_by(segments);
        self.dropped_bytes.inc_by(bytes);
    }

    /// A query was answered.
    pub fn queried(&self, kind: &'static str, status: u16, took: Duration) {
        let kind = ("kind", kind.to_owned());
        self.query.get_or_create(std::array::from_ref(&kind)).observe(took.as_secs_f64());
        self.queries.get_or_create(&[kind, ("status", status.to_string())]).inc();
    }

    /// A query runs as long as what this gives is held.
    pub fn query_runs(&self) -> Running {
        Running::new(&self.queries_running)
    }

    /// A scan runs as long as what this gives is held.
    pub fn scan_runs(&self) -> Running {
        Running::new(&self.scans_running)
    }

    /// A tail was opened.
    pub fn tail_opened(&self) {
        self.tails.inc();
    }

    /// A tail was closed.
    pub fn tail_closed(&self) {
        self.tails.dec();
    }

    /// A piece of a snapshot or segment was `fetched` from another node, or `served` to one.
    pub fn transferred(&self, direction: &'static str, bytes: u64) {
        self.transfer_bytes.get_or_create(&[("direction", direction.to_owned())]).inc_by(bytes);
    }

    /// A copy of a snapshot `arrived`, or `failed`.
    pub fn transfer_ended(&self, outcome: &'static str) {
        self.transfers.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// A file was read through, or a part of it.
    pub fn scrubbed(&self, bytes: u64) {
        self.scrub_bytes.inc_by(bytes);
    }

    /// A file was found damaged.
    pub fn damaged(&self) {
        self.scrub_damaged.inc();
    }

    /// A damaged file was `repaired`, or its repair `failed`.
    pub fn repair_ended(&self, outcome: &'static str) {
        self.repairs.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// Another replica holds other records at the same offsets.
    pub fn diverged(&self) {
        self.divergence.inc();
    }

    /// A segment of a backup was `uploaded`, or `reused`.
    pub fn backed_up(&self, how: &'static str, bytes: u64) {
        self.backup_bytes.get_or_create(&[("how", how.to_owned())]).inc_by(bytes);
    }

    /// A backup that began at a time is `done`, or it `failed`. In seconds since the Unix epoch.
    pub fn backup_ended(&self, outcome: &'static str, began: Option<i64>) {
        self.backups.get_or_create(&[("outcome", outcome.to_owned())]).inc();
        if let Some(began) = began {
            self.backup_last_success.set(began);
        }
    }

    /// A backup was found that began at a time, in seconds since the Unix epoch.
    pub fn backup_found(&self, began: i64) {
        self.backup_last_success.set(began);
    }

    /// A listener is open to others without TLS.
    pub fn insecure(&self) {
        self.insecure.set(1);
    }

    /// Everything, as text.
    ///
    /// # Errors
    /// Where a metric has no form as text, which would be a mistake of this room.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

type Sample<const N: usize> = (Labels<N>, u64);

/// One metric with all its samples, read at a scrape.
fn write<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    samples: impl IntoIterator<Item = Sample<N>>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        let sample = metric.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(value).encode(sample)?,
            MetricType::Gauge | MetricType::Histogram | MetricType::Info | MetricType::Unknown => {
                ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(sample)?;
            }
        }
    }
    Ok(())
}

/// One gauge without labels, read at a scrape.
fn write_one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)
}

#[derive(Debug)]
struct Actors(TreeHandle);

impl Collector for Actors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let records = self.0.records();
        let each = |value: fn(&crate::tree::ActorRecord) -> u64| {
            records.iter().map(move |record| ([("actor", record.name().to_string())], value(record)))
        };
        let gauge = MetricType::Gauge;
        write(
            &mut encoder,
            ("actor_mailbox", "Messages that wait for an actor", gauge),
            each(|record| record.depth()),
        )?;
        let running = each(|record| u64::from(record.state() == ActorState::Running));
        write(&mut encoder, ("actor_running", "1 where an actor takes messages", gauge), running)?;
        let counter = MetricType::Counter;
        write(
            &mut encoder,
            ("actor_restarts", "How often an actor was started again", counter),
            each(|r| r.restarts()),
        )?;
        write(&mut encoder, ("actor_messages", "Messages that an actor handled", counter), each(|r| r.handled()))
    }
}

struct Standings(Box<dyn Survey>);

impl fmt::Debug for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standings")
    }
}

impl Collector for Standings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Standing { shards, peers, disk_free_bytes, disk_total_bytes, disk_warning, disk_full, ready } =
            self.0.survey();
        let (to, gauge, counter) = (&mut encoder, MetricType::Gauge, MetricType::Counter);
        let of = |shard: &ShardGauges| ("shard", shard.shard.clone());
        let roles = shards.iter().map(|shard| ([of(shard), ("role", shard.role.clone())], 1));
        write(to, ("shard_role", "The role of this node's replica of a shard", gauge), roles)?;
        write(to, ("shard_term", "The term of a shard", gauge), shards.iter().map(|s| ([of(s)], s.term)))?;
        write(
            to,
            ("head_bytes", "Raw bytes in no sealed segment yet", gauge),
            shards.iter().map(|s| ([of(s)], s.head_bytes)),
        )?;
        let unapplied = shards.iter().map(|shard| ([of(shard)], shard.unapplied));
        write(to, ("shard_unapplied_entries", "Entries committed and not applied yet", gauge), unapplied)?;
        let under = shards.iter().filter(|shard| shard.replicas.is_some_and(|(heard, wanted)| heard < wanted)).count();
        write_one(to, "under_replicated_shards", "Shards led here that miss a replica", under as u64)?;
        let of = |peer: &PeerGauges| [("peer", peer.peer.clone())];
        write(
            to,
            ("link_up", "1 where a peer is connected and not suspected", gauge),
            peers.iter().map(|p| (of(p), p.up.into())),
        )?;
        let credits = peers.iter().map(|peer| (of(peer), peer.credit_bytes));
        write(to, ("link_credit_bytes", "Bulk bytes that may still be sent to a peer", gauge), credits)?;
        let queued = peers.iter().map(|peer| (of(peer), peer.queued_bytes));
        write(to, ("link_queued_bytes", "Bulk bytes that wait for a peer", gauge), queued)?;
        write(
            to,
            ("link_dropped_messages", "Messages to a peer dropped", counter),
            peers.iter().map(|p| (of(p), p.dropped)),
        )?;
        if let Some(free) = disk_free_bytes {
            write_one(to, "disk_free_bytes", "Bytes that can still be written", free)?;
        }
        if let Some(total) = disk_total_bytes {
            write_one(to, "disk_total_bytes", "Bytes of the disk, used and free", total)?;
        }
        write_one(to, "disk_warning", "1 where the disk is filled beyond its warning mark", disk_warning.into())?;
        write_one(to, "disk_full", "1 where ingest is refused for a full disk", disk_full.into())?;
        write_one(to, "ready", "1 where the node serves its shards", ready.into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use millpond::id::{Boot, NodeId};

    use super::*;
    use crate::env::Clock;
    use crate::supervision::Address;
    use crate::tree::Identity;

    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> i64 {
            0
        }
    }

    pub(crate) fn tree(crash_allowed: bool) -> TreeHandle {
        let identity = Identity { node: NodeId(1), name: "node-1".to_owned(), boot: Boot(1) };
        TreeHandle::new(identity, Arc::new(Still), crash_allowed)
    }

    fn standing() -> Standing {
        let shard = ShardGauges {
            shard: "3".to_owned(),
            role: "leader".to_owned(),
            term: 7,
            head_bytes: 1_000,
            unapplied: 0,
            replicas: Some((2, 3)),
        };
        let peer = PeerGauges { peer: "2".to_owned(), up: false, credit_bytes: 1, queued_bytes: 2, dropped: 3 };
        Standing {
            shards: vec![shard],
            peers: vec![peer],
            disk_free_bytes: Some(5),
            disk_total_bytes: Some(40),
            disk_warning: true,
            disk_full: false,
            ready: true,
        }
    }

    #[test]
    fn everything_is_shown_as_text() {
        let tree = tree(false);
        let _: Address<()> = tree.seat("ingest", None);
        let metrics = Metrics::new(tree, standing);
        metrics.ingested("loki", 204, 10, 1_000);
        metrics.ingested("loki", 400, 0, 0);
        metrics.discarded("line_too_long", 2);
        metrics.duplicate();
        metrics.wal_committed(4_096, Duration::from_millis(2), 64 << 20);
        metrics.committed(Duration::from_millis(5));
        metrics.sealed(1 << 20, Duration::from_millis(8));
        metrics.dropped(2, 9_000);
        metrics.queried("range", 200, Duration::from_millis(3));
        metrics.transferred("fetched", 7);
        metrics.transfer_ended("arrived");
        let text = metrics.encode().unwrap();
        for line in [
            "millpond_ingest_requests_total{protocol=\"loki\",status=\"204\"} 1",
            "millpond_ingest_requests_total{protocol=\"loki\",status=\"400\"} 1",
            "millpond_ingest_records_total{protocol=\"loki\"} 10",
            "millpond_ingest_bytes_total{protocol=\"loki\"} 1000",
            "millpond_discarded_records_total{reason=\"line_too_long\"} 2",
            "millpond_duplicate_parts_total 1",
            "millpond_wal_fsync_seconds_count 1",
            "millpond_wal_bytes 67108864",
            "millpond_commit_seconds_count 1",
            "millpond_sealed_bytes_total 1048576",
            "millpond_retention_dropped_segments_total 2",
            "millpond_retention_dropped_bytes_total 9000",
            "millpond_queries_total{kind=\"range\",status=\"200\"} 1",
            "millpond_transfer_bytes_total{direction=\"fetched\"} 7",
            "millpond_transfers_total{outcome=\"arrived\"} 1",
            "millpond_actor_mailbox{actor=\"ingest\"} 0",
            "millpond_actor_restarts_total{actor=\"ingest\"} 0",
            "millpond_shard_role{shard=\"3\",role=\"leader\"} 1",
            "millpond_under_replicated_shards 1",
            "millpond_link_up{peer=\"2\"} 0",
            "millpond_disk_free_bytes 5",
            "millpond_disk_total_bytes 40",
            "millpond_disk_warning 1",
            "millpond_disk_full 0",
            "millpond_ready 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
