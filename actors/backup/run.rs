//! One backup, from its begin to its manifest: every shard is sealed by its leader, and what the store lacks of the
//! snapshot's segments is read from the leader's node and written there. Only the node that makes the backup talks to
//! the store.
//!
//! A segment that does not read at the leader's node as its snapshot names it is read from another replica, and the leader's
//! node is told to look at it.
//!
//! A shard whose leader changes or falls meanwhile is begun anew; what was uploaded of it stays. It does not know who
//! asked for the backup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use millpond::backup::wire::{LookRequest, SealRequest, Sealed};
use millpond::backup::{Known, Manifest, SegmentEntry, ShardEntry, Step, expire, plan};
use millpond::class::Class;
use millpond::entry::Position;
use millpond::id::{ClusterId, NodeId, Offset, ShardId};
use millpond::limits;
use millpond::transfer::Purpose;
use millpond::transfer::repair::{Offer, Wanted, find};
use millpond::transfer::wire::{ChunkRequest, Manifest as SnapshotManifest, ManifestRequest, Refusal};
use ractor::concurrency::oneshot;
use tokio::sync::watch;
use tokio::time::sleep;

use super::report::{BackupReport, Counts};
use super::store::{Store, StoreError};
use super::{kept, seal};
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
            total.segments_elsewhere += counts.segments_elsewhere;
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
            retention: Some(kept(&site.config.cluster.retention)),
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
    /// A node does not have a file as its manifest names it.
    Unfit(String),
    /// None would.
    End(RunError),
}

impl Hitch {
    /// Of a question that is not about a file.
    fn again(self) -> Self {
        match self {
            Self::Unfit(why) => Self::Again(why),
            Self::Again(_) | Self::End(_) => self,
        }
    }
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
    let mut uploaded = BTreeMap::new();
    let (mut why, mut unfit) = (String::new(), 0);
    for _ in 0..limits::BACKUP_SHARD_ATTEMPTS {
        tally.change(shard, |counts| *counts = Counts::default());
        match attempt(site, store, shard, known, tally, &mut uploaded).await {
            Ok(entry) => return Ok(entry),
            Err(Hitch::End(error)) => return Err(error),
            Err(Hitch::Again(reason)) => why = reason,
            Err(Hitch::Unfit(reason)) => {
                (why, unfit) = (reason, unfit + 1);
                if unfit == limits::BACKUP_UNFIT_ATTEMPTS {
                    break;
                }
            }
        }
        tracing::info!(%shard, reason = %why, "a shard's backup begins anew");
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
    uploaded: &mut BTreeMap<String, Copied>,
) -> Result<ShardEntry, Hitch> {
    let leader = site.board.leader(shard).ok_or_else(|| Hitch::Again("no leader is known".to_owned()))?;
    let source = Source { site, shard, node: leader };
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
        let (entry, fresh, elsewhere) = match step {
            Step::Reuse(entry) => (*entry, false, false),
            Step::Upload(entry) => {
                let object = entry.object();
                let copied = match uploaded.get(&object) {
                    Some(copied) => *copied,
                    None => source.copy(*lease, *entry, store).await?,
                };
                uploaded.insert(object, copied);
                (copied.entry, true, copied.elsewhere)
            }
        };
        site.metrics.backed_up(if fresh { "uploaded" } else { "reused" }, entry.bytes);
        tally.change(shard, |counts| {
            counts.segments_elsewhere += u64::from(elsewhere);
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

/// A segment that the store has.
#[derive(Clone, Copy)]
struct Copied {
    entry: SegmentEntry,
    /// Whether it was read from another replica than the leader's.
    elsewhere: bool,
}

/// A node that holds a shard, this one or another; first of all the one that leads it.
#[derive(Clone, Copy)]
struct Source<'a> {
    site: &'a Site,
    shard: ShardId,
    node: NodeId,
}

impl Source<'_> {
    fn is_here(&self) -> bool {
        self.node == self.site.env.node
    }

    /// Has everything acknowledged so far put into a snapshot, and its files leased; none where there is nothing.
    async fn seal(&self) -> Result<Option<SnapshotManifest>, Hitch> {
        let sealed = if self.is_here() {
            seal::sealed(self.site, self.node, self.shard).await.map_err(|refusal| hitch(refusal).again())?
        } else {
            let body = SealRequest { shard: self.shard }.encode();
            let call = self.site.links.call(self.node, Method::Seal, body, limits::BACKUP_SEAL_DEADLINE);
            let answer = call.await.map_err(|error| failed(error).again())?;
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

    /// Reads a segment into the store, from the leader's node, or where that has it not as it names it from another's.
    async fn copy(&self, lease: u64, entry: SegmentEntry, store: &Store) -> Result<Copied, Hitch> {
        let why = match self.read(lease, entry, store).await {
            Ok(()) => return Ok(Copied { entry, elsewhere: false }),
            Err(Hitch::Unfit(why)) => why,
            Err(hitch) => return Err(hitch),
        };
        let (shard, node, from, to) = (self.shard, self.node, entry.from, entry.to);
        tracing::warn!(%shard, node = node.0, from, to, reason = %why, "a segment is not whole, other replicas are asked");
        self.report(Offset(from)).await;
        let homes: BTreeSet<NodeId> = self.site.board.cluster().borrow().homes(shard).into_values().collect();
        let others: Vec<NodeId> = homes.into_iter().filter(|home| *home != node).collect();
        let mut whys = vec![format!("offsets {from} to {to} on node {node}: {why}")];
        for node in &others {
            match (Self { node: *node, ..*self }).read_same(entry, store).await {
                Ok(entry) => {
                    tracing::info!(%shard, node = node.0, from, to, "a segment was read from another replica");
                    return Ok(Copied { entry, elsewhere: true });
                }
                Err(Hitch::Again(why) | Hitch::Unfit(why)) => whys.push(format!("node {node}: {why}")),
                Err(Hitch::End(error)) => return Err(Hitch::End(error)),
            }
        }
        if others.is_empty() {
            return Err(Hitch::Unfit(format!("{}; no other node holds a copy", whys.join("; "))));
        }
        Err(Hitch::Again(whys.join("; ")))
    }

    /// Has this node look at a segment of its own.
    async fn report(&self, offset: Offset) {
        if self.is_here() {
            return seal::look(self.site, self.shard, offset);
        }
        let body = LookRequest { shard: self.shard, offset }.encode();
        let call = self.site.links.call(self.node, Method::Seal, body, limits::TRANSFER_MANIFEST_DEADLINE);
        // A node that is not reached, or does not know the request, finds it by itself.
        drop(call.await);
    }

    /// Reads the records of a segment of the leader's from this node, in whatever bytes it has them; the segment that was
    /// read.
    async fn read_same(&self, entry: SegmentEntry, store: &Store) -> Result<SegmentEntry, Hitch> {
        let manifest = if self.is_here() {
            let (reply, manifest) = oneshot();
            let (site, node, shard) = (self.site.clone(), self.node, self.shard);
            // Dropped by a panic, the sender says so.
            let work = move || drop(reply.send(source::newest(&site, node, Purpose::Backup, shard)));
            self.site.env.blocking.run(Lane::Files, Box::new(work));
            let manifest = manifest.await.map_err(|_| Hitch::Again("reading a snapshot panicked".to_owned()))?;
            manifest.map_err(hitch)?
        } else {
            let body = ManifestRequest { shard: self.shard, keep: true }.encode();
            let call = self.site.links.call(self.node, Method::Manifest, body, limits::TRANSFER_MANIFEST_DEADLINE);
            let answer = call.await.map_err(failed)?;
            SnapshotManifest::decode(&answer).map_err(|error| Hitch::Again(error.to_string()))?
        };
        let Offer::Segment(theirs) =
            find(self.node, &manifest, &Wanted::Segment(entry.meta())).map_err(Hitch::Unfit)?
        else {
            return Err(Hitch::Unfit("it has no such segment".to_owned()));
        };
        let entry = SegmentEntry::from(&theirs);
        self.read(manifest.lease, entry, store).await?;
        Ok(entry)
    }

    /// Reads a segment from this node into the store.
    async fn read(&self, lease: u64, entry: SegmentEntry, store: &Store) -> Result<(), Hitch> {
        let mut upload = store.upload(entry).await?;
        let questions = Offer::Segment(entry.meta()).questions(self.shard, lease);
        let mut pieces =
            stream::iter(questions.map(|question| self.piece(question))).buffered(limits::TRANSFER_CHUNKS_IN_FLIGHT);
        while let Some(piece) = pieces.next().await {
            upload.push(&piece?).await?;
        }
        match upload.finish().await {
            Err(StoreError::Altered { .. }) => {
                Err(Hitch::Unfit("its bytes have another hash than it names".to_owned()))
            }
            finished => Ok(finished?),
        }
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
                self.site.links.call(self.node, Method::Chunk, request.encode(), limits::TRANSFER_CHUNK_DEADLINE);
            match call.await {
                Ok(piece) if piece.len() == request.length as usize => return Ok(piece),
                Ok(_) => {
                    return Err(Hitch::Again("a piece of a file has another length than was asked for".to_owned()));
                }
                Err(error) if is_busy(&error) => why = error.to_string(),
                Err(error) => return Err(failed(error)),
            }
            sleep(limits::TRANSFER_RETRY).await;
        }
        Err(Hitch::Again(why))
    }

    async fn piece_here(&self, request: ChunkRequest) -> Result<Bytes, Hitch> {
        let (reply, piece) = oneshot();
        let (site, node) = (self.site.clone(), self.node);
        // Who no longer waits has given the backup up.
        let work = move || drop(reply.send(source::piece(&site, node, request)));
        self.site.env.blocking.run(Lane::Files, Box::new(work));
        let piece = piece.await.map_err(|_| Hitch::Again("reading a file panicked".to_owned()))?;
        piece.map_err(hitch)
    }
}

fn is_busy(error: &CallError) -> bool {
    match error {
        CallError::Overloaded(_) | CallError::Timeout(_) => true,
        CallError::Fault { fault, .. } => fault.code == FaultCode::Overloaded,
        CallError::Unreachable(_) | CallError::TooLarge(_) => false,
    }
}

fn hitch(refusal: Refusal) -> Hitch {
    match refusal {
        Refusal::NoSnapshot => Hitch::Again("the node asked has no snapshot".to_owned()),
        Refusal::Gone => Hitch::Unfit("the node asked has not the whole file any more".to_owned()),
        Refusal::Busy => Hitch::Again("the node asked is busy".to_owned()),
        Refusal::Failed(why) => Hitch::Unfit(why),
    }
}

fn failed(error: CallError) -> Hitch {
    match error {
        CallError::Fault { fault, .. } if fault.code == FaultCode::Application => hitch(Refusal::decode(&fault.detail)),
        CallError::Fault { .. }
        | CallError::Overloaded(_)
        | CallError::Timeout(_)
        | CallError::Unreachable(_)
        | CallError::TooLarge(_) => Hitch::Again(error.to_string()),
    }
}
