//! One backup, from its begin to its manifest: every shard is sealed by its leader, and what the store lacks of the
//! snapshot's segments is read from the leader's node and written there. Only the node that makes the backup talks to
//! the store.
//!
//! A shard whose leader changes or falls meanwhile is begun anew; what was uploaded of it stays. It does not know who
//! asked for the backup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use millpond::backup::wire::{SealRequest, Sealed};
use millpond::backup::{Known, Manifest, SegmentEntry, ShardEntry, Step, expire, plan};
use millpond::class::Class;
use millpond::entry::Position;
use millpond::id::{ClusterId, NodeId, Offset, ShardId};
use millpond::limits;
use millpond::transfer::wire::{ChunkRequest, File, Manifest as SnapshotManifest, Refusal};
use ractor::concurrency::oneshot;
use tokio::sync::watch;
use tokio::time::sleep;

use super::report::{BackupReport, Counts};
use super::seal;
use super::store::{Store, StoreError};
use crate::env::Lane;
use crate::links::{CallError, FaultCode, Method};
use crate::site::Site;
use crate::transfer::source;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard could not be read.
    #[error("{shard} cannot be backed up: {why}")]
    Shard {
        /// Which.
        shard: ShardId,
        /// What was in the way last.
        why: String,
    },
    /// It took longer than a backup may.
    #[error("the backup took longer than {:?} and was given up", limits::BACKUP_RUN_MAX)]
    TooLong,
    /// The work was interrupted.
    #[error("the backup was interrupted: {0}")]
    Interrupted(String),
}

impl RunError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Shard { .. } | Self::TooLong | Self::Interrupted(_) => Class::Retry,
        }
    }
}

/// What a backup is called and what it is of.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) cluster: ClusterId,
    /// Nanoseconds since the Unix epoch.
    pub(super) began: i64,
}

/// How far a backup is, shard by shard, shown as it goes on.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    shards: Arc<Mutex<BTreeMap<ShardId, Counts>>>,
    report: Arc<watch::Sender<BackupReport>>,
    all: u64,
}

impl Tally {
    pub(super) fn new(report: Arc<watch::Sender<BackupReport>>, shards: u32) -> Self {
        Self { shards: Arc::default(), report, all: u64::from(shards) }
    }

    /// What is done so far.
    pub(super) fn total(&self) -> Counts {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = Counts { shards: self.all, ..Counts::default() };
        for counts in shards.values() {
            total.shards_done += counts.shards_done;
            total.segments += counts.segments;
            total.segments_uploaded += counts.segments_uploaded;
            total.segments_reused += counts.segments_reused;
            total.bytes += counts.bytes;
            total.bytes_uploaded += counts.bytes_uploaded;
            total.bytes_reused += counts.bytes_reused;
        }
        total
    }

    fn change(&self, shard: ShardId, change: impl FnOnce(&mut Counts)) {
        change(self.shards.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_default());
        let total = self.total();
        self.report.send_modify(|report| {
            if let Some(running) = &mut report.running {
                running.counts = total;
            }
        });
    }
}

/// Makes a backup; it exists when this returned.
pub(super) async fn run(site: &Site, store: &Store, order: Order, tally: &Tally) -> Result<Manifest, RunError> {
    let making = async {
        let newest = store.newest(order.cluster).await?;
        let known = Known::new(newest.as_ref(), store.segments(site.env.clock.now()).await?);
        let shards = stream::iter((0..site.board.shards()).map(ShardId));
        let shards = shards.map(|shard| back_up(site, store, shard, &known, tally));
        let shards: Vec<ShardEntry> = shards.buffered(limits::BACKUP_SHARDS_AT_ONCE).try_collect().await?;
        let manifest = Manifest {
            id: order.id,
            cluster: order.cluster.0,
            name: site.config.cluster.name.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: site.env.node.0,
            began: order.began,
            ended: site.env.clock.now(),
            shards,
        };
        store.publish(&manifest).await?;
        Ok(manifest)
    };
    tokio::time::timeout(limits::BACKUP_RUN_MAX, making).await.unwrap_or(Err(RunError::TooLong))
}

/// Gives up what is beyond the newest `keep` backups of a cluster, and removes what nobody needs any more.
pub(super) async fn clear(site: &Site, store: &Store, cluster: ClusterId, keep: u64) -> Result<(), StoreError> {
    let catalogue = store.catalogue(site.env.clock.now()).await?;
    let expiry = expire(&catalogue, cluster, usize::try_from(keep).unwrap_or(usize::MAX));
    for id in &expiry.retire {
        tracing::info!(%id, "a backup is given up");
        store.retire(id).await?;
    }
    for object in &expiry.files {
        store.drop_segment(object).await?;
    }
    for id in &expiry.forget {
        store.forget(id).await?;
    }
    Ok(())
}

/// What ends an attempt at a shard.
enum Hitch {
    /// Another attempt may do better.
    Again(String),
    /// None would.
    End(RunError),
}

impl From<StoreError> for Hitch {
    fn from(error: StoreError) -> Self {
        Self::End(error.into())
    }
}

async fn back_up(
    site: &Site,
    store: &Store,
    shard: ShardId,
    known: &Known,
    tally: &Tally,
) -> Result<ShardEntry, RunError> {
    let mut uploaded = BTreeSet::new();
    let mut why = String::new();
    for _ in 0..limits::BACKUP_SHARD_ATTEMPTS {
        tally.change(shard, |counts| *counts = Counts::default());
        match attempt(site, store, shard, known, tally, &mut uploaded).await {
            Ok(entry) => return Ok(entry),
            Err(Hitch::End(error)) => return Err(error),
            Err(Hitch::Again(reason)) => {
                tracing::info!(%shard, %reason, "a shard's backup begins anew");
                why = reason;
            }
        }
        sleep(limits::BACKUP_SHARD_RETRY).await;
    }
    Err(RunError::Shard { shard, why })
}

async fn attempt(
    site: &Site,
    store: &Store,
    shard: ShardId,
    known: &Known,
    tally: &Tally,
    uploaded: &mut BTreeSet<String>,
) -> Result<ShardEntry, Hitch> {
    let leader = site.board.leader(shard).ok_or_else(|| Hitch::Again("no leader is known".to_owned()))?;
    let source = Source { site, shard, leader };
    let (position, steps) = match source.seal().await? {
        Some(snapshot) => {
            let steps = plan(shard, &snapshot.segments, known);
            (snapshot.position, steps.into_iter().map(|step| (step, snapshot.lease)).collect())
        }
        None => (Position::default(), Vec::new()),
    };
    tally.change(shard, |counts| {
        let entries = || steps.iter().map(|(step, _)| entry_of(step));
        (counts.segments, counts.bytes) = (steps.len() as u64, entries().map(|entry| entry.bytes).sum());
    });
    let mut segments = Vec::with_capacity(steps.len());
    for (step, lease) in &steps {
        let entry = *entry_of(step);
        let fresh = matches!(step, Step::Upload(_));
        if fresh && !uploaded.contains(&entry.object()) {
            source.copy(*lease, entry, store).await?;
            uploaded.insert(entry.object());
        }
        if fresh {
            site.metrics.backed_up("uploaded", entry.bytes);
        } else {
            site.metrics.backed_up("reused", entry.bytes);
        }
        tally.change(shard, |counts| {
            let (segments, bytes) = if fresh {
                (&mut counts.segments_uploaded, &mut counts.bytes_uploaded)
            } else {
                (&mut counts.segments_reused, &mut counts.bytes_reused)
            };
            *segments += 1;
            *bytes += entry.bytes;
        });
        segments.push(entry);
    }
    tally.change(shard, |counts| counts.shards_done = 1);
    Ok(ShardEntry::new(shard, position, segments))
}

fn entry_of(step: &Step) -> &SegmentEntry {
    match step {
        Step::Reuse(entry) | Step::Upload(entry) => entry,
    }
}

/// The node that leads a shard, this one or another.
#[derive(Clone, Copy)]
struct Source<'a> {
    site: &'a Site,
    shard: ShardId,
    leader: NodeId,
}

impl Source<'_> {
    fn is_here(&self) -> bool {
        self.leader == self.site.env.node
    }

    /// Has everything acknowledged so far put into a snapshot, and its files leased; none where there is nothing.
    async fn seal(&self) -> Result<Option<SnapshotManifest>, Hitch> {
        let sealed = if self.is_here() {
            seal::sealed(self.site, self.leader, self.shard).await.map_err(|refusal| Hitch::Again(said(refusal)))?
        } else {
            let body = SealRequest { shard: self.shard }.encode();
            let call = self.site.links.call(self.leader, Method::Seal, body, limits::BACKUP_SEAL_DEADLINE);
            let answer = call.await.map_err(|error| Hitch::Again(words(error)))?;
            Sealed::decode(&answer).map_err(|error| Hitch::Again(error.to_string()))?
        };
        let read = |bytes: &serde_bytes::ByteBuf| SnapshotManifest::decode(bytes);
        let manifest = sealed.manifest.as_ref().map(read).transpose();
        let manifest = manifest.map_err(|error| Hitch::Again(error.to_string()))?;
        match (&manifest, sealed.end) {
            (None, end) if end > Offset(0) => Err(Hitch::Again("its leader named no snapshot".to_owned())),
            _ => Ok(manifest),
        }
    }

    /// Reads a segment from the leader's node into the store.
    async fn copy(&self, lease: u64, entry: SegmentEntry, store: &Store) -> Result<(), Hitch> {
        let mut upload = store.upload(entry).await?;
        let step = limits::TRANSFER_CHUNK_BYTES as u64;
        let offsets = (0..entry.bytes.div_ceil(step)).map(|number| number * step);
        let meta = entry.meta();
        let pieces = offsets.map(|offset| {
            let length = u32::try_from(step.min(entry.bytes - offset)).expect("one frame at most");
            let file = File::Segment { from: meta.from, to: meta.to };
            self.piece(ChunkRequest { shard: self.shard, lease, file, offset, length })
        });
        let mut pieces = stream::iter(pieces).buffered(limits::TRANSFER_CHUNKS_IN_FLIGHT);
        while let Some(piece) = pieces.next().await {
            upload.push(&piece?).await?;
        }
        Ok(upload.finish().await?)
    }

    /// A piece of a file. A node that serves too many others is asked again after a while.
    async fn piece(&self, request: ChunkRequest) -> Result<Bytes, Hitch> {
        let mut why = String::new();
        for _ in 0..limits::TRANSFER_ROUNDS_MAX {
            sleep(self.site.transfers.reserve(u64::from(request.length))).await;
            if self.is_here() {
                return self.piece_here(request).await;
            }
            let call =
                self.site.links.call(self.leader, Method::Chunk, request.encode(), limits::TRANSFER_CHUNK_DEADLINE);
            match call.await {
                Ok(piece) if piece.len() == request.length as usize => return Ok(piece),
                Ok(_) => {
                    return Err(Hitch::Again("a piece of a file has another length than was asked for".to_owned()));
                }
                Err(error) if is_busy(&error) => why = words(error),
                Err(error) => return Err(Hitch::Again(words(error))),
            }
            sleep(limits::TRANSFER_RETRY).await;
        }
        Err(Hitch::Again(why))
    }

    async fn piece_here(&self, request: ChunkRequest) -> Result<Bytes, Hitch> {
        let (reply, piece) = oneshot();
        let (site, node) = (self.site.clone(), self.leader);
        // Who no longer waits has given the backup up.
        let work = move || drop(reply.send(source::piece(&site, node, request)));
        self.site.env.blocking.run(Lane::Files, Box::new(work));
        let piece = piece.await.map_err(|_| Hitch::Again("reading a file panicked".to_owned()))?;
        piece.map_err(|refusal| Hitch::Again(said(refusal)))
    }
}

fn is_busy(error: &CallError) -> bool {
    match error {
        CallError::Overloaded(_) | CallError::Timeout(_) => true,
        CallError::Fault { fault, .. } => fault.code == FaultCode::Overloaded,
        CallError::Unreachable(_) | CallError::TooLarge(_) => false,
    }
}

fn said(refusal: Refusal) -> String {
    match refusal {
        Refusal::NoSnapshot => "its leader has no snapshot".to_owned(),
        Refusal::Gone => "its leader has not the file any more".to_owned(),
        Refusal::Busy => "its leader is busy".to_owned(),
        Refusal::Failed(why) => why,
    }
}

fn words(error: CallError) -> String {
    match error {
        CallError::Fault { node, fault } if fault.code == FaultCode::Application => {
            format!("node {node}: {}", said(Refusal::decode(&fault.detail)))
        }
        CallError::Fault { .. }
        | CallError::Overloaded(_)
        | CallError::Timeout(_)
        | CallError::Unreachable(_)
        | CallError::TooLarge(_) => error.to_string(),
    }
}
