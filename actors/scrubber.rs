//! `GROUP/scrubber`: reads the files of a replica through, has damaged ones replaced by whole copies of other replicas, and
//! compares what the replicas hold.
//!
//! Parent: `shard-N`. A round looks whether every segment opens, reads each through at the pace that all scrubbers of
//! the node share, and compares the digests of segments with those that the other replicas name. What a round or a read
//! finds damaged is repaired at once, one file after the other: the copy is made beside the damaged file, at the pace of
//! copies, and put in its place by `millpond::storage::repair`; the replica, if it runs, then serves from it. It needs
//! no replica that runs, neither here nor there: files are enough.
//!
//! All work on files goes through the group's folder in short pieces. A restart loses the round and the repairs at hand;
//! the next round finds again what is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use millpond::consensus::Role;
use millpond::entry::SegmentMeta;
use millpond::id::{Index, NodeId, Offset, ShardId};
use millpond::limits;
use millpond::storage::copy;
use millpond::storage::disk::Disk;
use millpond::storage::repair::{self, Assessment, Damage, Files, Mended, Read, RepairError};
use millpond::storage::segment::Segment;
use millpond::transfer::repair::{Offer, Wanted, diverging, find};
use millpond::transfer::wire::{Manifest, ManifestRequest};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::board::{Phase, Standing};
use crate::folder::Folder;
use crate::links::Method;
use crate::replica::ReplicaMessage;
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Address, ChildSpec, Own};
use crate::transfer::fetcher::{FetchReply, FetcherMessage, fetcher_seat};

/// A file that may be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspect {
    /// The newest snapshot.
    Snapshot,
    /// The segment that holds a record.
    Segment(Offset),
}

/// What a scrubber does.
#[derive(Debug)]
pub enum ScrubberMessage {
    /// Begin a round.
    Round,
    /// A round has ended: bytes read, or why it did not get through.
    RoundEnded(Result<u64, String>),
    /// Look at a file, and repair it where it is damaged.
    Look(Suspect),
    /// A file is damaged; its repair begins.
    Damaged(Damage),
    /// A look at a file has ended.
    Looked(Suspect, Result<Finding, String>),
    /// Another replica names other records at the same offsets.
    Diverges(NodeId, (Offset, Offset)),
}

/// What a look at a file came to.
#[derive(Debug)]
pub enum Finding {
    /// There is nothing to repair.
    Fine,
    /// The segment is whole; what serves from an earlier file of it shall serve from this one.
    Whole(Segment),
    /// It was repaired: the file, and the segment where it is one.
    Repaired(String, Option<Segment>),
    /// It cannot be copied, and the replica that leads here was asked to write a newer one instead.
    Renewed,
}

/// Runs one scrubber.
#[derive(Debug)]
pub struct Scrubber;

/// What a scrubber starts with.
#[derive(Clone, Debug)]
pub struct ScrubberArguments {
    /// The group.
    pub shard: ShardId,
    /// The group's folder.
    pub folder: Folder,
    /// The node's handles.
    pub site: Site,
}

/// The state of a scrubber.
#[derive(Debug)]
pub struct ScrubberState {
    worker: Worker,
    round: Option<Task>,
    look: Option<Task>,
    waiting: BTreeSet<Suspect>,
    /// When files were looked at that reads may still find damaged.
    looked: BTreeMap<Suspect, Instant>,
    /// Files found damaged and not repaired yet.
    damaged: BTreeSet<String>,
    /// Found since this life began.
    diverging: BTreeSet<(NodeId, Offset)>,
}

/// Work beside the actor, which ends with its life.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The scrubber of a group, below the supervisor of that group.
pub fn scrubber_spec(site: &Site, shard: ShardId, folder: &Folder) -> ChildSpec {
    let arguments = ScrubberArguments { shard, folder: folder.clone(), site: site.clone() };
    ChildSpec::new(&scrubber_seat(site, shard), site.env.knobs.isolated, move || (Scrubber, arguments.clone()))
}

/// Where the scrubber of a group is reached.
pub fn scrubber_seat(site: &Site, shard: ShardId) -> Address<ScrubberMessage> {
    site.tree.seat(&format!("{shard}/scrubber"), Some(&shard.to_string()))
}

impl Actor for Scrubber {
    type Message = ScrubberMessage;
    type Arguments = ScrubberArguments;
    type State = ScrubberState;

    async fn pre_start(
        &self,
        myself: &Own<ScrubberMessage>,
        arguments: ScrubberArguments,
    ) -> Result<ScrubberState, ActorError> {
        drop(myself.cast_after(limits::SCRUB_FIRST_AFTER, ScrubberMessage::Round));
        Ok(ScrubberState {
            worker: Worker { myself: myself.clone(), arguments },
            round: None,
            look: None,
            waiting: BTreeSet::new(),
            looked: BTreeMap::new(),
            damaged: BTreeSet::new(),
            diverging: BTreeSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: &Own<ScrubberMessage>,
        message: ScrubberMessage,
        state: &mut ScrubberState,
    ) -> Result<(), ActorError> {
        match message {
            ScrubberMessage::Round => {
                let (worker, clear) = (state.worker.clone(), state.look.is_none());
                state.round = Some(Task(tokio::spawn(async move {
                    let outcome = worker.round(clear).await;
                    // A life that ended has no round.
                    let _ = worker.myself.cast(ScrubberMessage::RoundEnded(outcome));
                })));
            }
            ScrubberMessage::RoundEnded(outcome) => {
                match outcome {
                    Ok(bytes) => myself.detail("round", format_args!("read through {bytes} bytes")),
                    Err(why) => {
                        myself.detail("round", format_args!("did not get through: {why}"));
                        tracing::warn!(shard = %state.shard(), reason = %why, "the files were not all looked at");
                    }
                }
                drop(myself.cast_after(limits::SCRUB_PAUSE, ScrubberMessage::Round));
            }
            ScrubberMessage::Look(suspect) => state.suspect(suspect),
            ScrubberMessage::Damaged(damage) => state.damaged(damage),
            ScrubberMessage::Looked(suspect, outcome) => state.looked(suspect, outcome),
            ScrubberMessage::Diverges(node, offsets) => state.diverges(node, offsets),
        }
        Ok(())
    }
}

impl ScrubberState {
    fn shard(&self) -> ShardId {
        self.worker.arguments.shard
    }

    fn suspect(&mut self, suspect: Suspect) {
        self.looked.retain(|_, at| at.elapsed() < limits::SUSPECT_AGAIN_AFTER);
        if self.looked.contains_key(&suspect) || self.waiting.len() >= limits::SUSPECTS_MAX {
            return;
        }
        self.waiting.insert(suspect);
        self.carry_on();
    }

    /// Looks at the next file that waits, one after the other.
    fn carry_on(&mut self) {
        if self.look.is_some() {
            return;
        }
        let Some(suspect) = self.waiting.pop_first() else { return };
        let worker = self.worker.clone();
        self.look = Some(Task(tokio::spawn(async move {
            let outcome = worker.look(suspect).await;
            // A life that ended has nothing to go on with.
            let _ = worker.myself.cast(ScrubberMessage::Looked(suspect, outcome));
        })));
    }

    fn damaged(&mut self, damage: Damage) {
        let (shard, Damage { file, at, why }) = (self.shard(), damage);
        self.worker.myself.detail("repair", format_args!("{file} is damaged"));
        // One that cannot be repaired now is looked at again and again.
        if self.damaged.len() < limits::SUSPECTS_MAX && !self.damaged.contains(&file) {
            self.worker.arguments.site.metrics.damaged();
            tracing::warn!(%shard, file = %file, offset = at, error = %why, "a file is damaged");
            self.damaged.insert(file);
        }
    }

    fn looked(&mut self, suspect: Suspect, outcome: Result<Finding, String>) {
        self.look = None;
        if self.looked.len() < limits::SUSPECTS_MAX {
            self.looked.insert(suspect, Instant::now());
        }
        let (shard, metrics) = (self.shard(), &self.worker.arguments.site.metrics);
        match outcome {
            Ok(Finding::Fine) => {}
            Ok(Finding::Whole(segment)) => self.worker.serve_from(segment),
            Ok(Finding::Renewed) => {
                metrics.repair_ended("renewed");
                tracing::info!(%shard, "a newer snapshot is asked for in the place of a damaged one");
                drop(self.worker.myself.cast_after(limits::REPAIR_RETRY, ScrubberMessage::Look(suspect)));
            }
            Ok(Finding::Repaired(file, segment)) => {
                metrics.repair_ended("repaired");
                self.worker.myself.detail("repair", format_args!("{file} is repaired"));
                tracing::info!(%shard, file = %file, "a damaged file was repaired");
                self.damaged.remove(&file);
                match segment {
                    Some(segment) => self.worker.serve_from(segment),
                    None => self.worker.tell(ReplicaMessage::SnapshotRepaired),
                }
            }
            Err(why) => {
                metrics.repair_ended("failed");
                self.worker.myself.detail("repair", format_args!("failed: {why}"));
                tracing::error!(%shard, reason = %why, "a damaged file is not repaired yet");
                drop(self.worker.myself.cast_after(limits::REPAIR_RETRY, ScrubberMessage::Look(suspect)));
            }
        }
        self.carry_on();
    }

    fn diverges(&mut self, node: NodeId, (from, to): (Offset, Offset)) {
        if self.diverging.insert((node, from)) {
            let worker = &self.worker;
            worker.arguments.site.metrics.diverged();
            worker.myself.detail("diverges", format_args!("offsets {from} to {to} from node {node}"));
            let shard = worker.arguments.shard;
            tracing::error!(%shard, node = node.0, from = from.0, to = to.0, "replicas hold different records");
        }
    }
}

/// What works on files and asks other nodes, for one life of the actor.
#[derive(Clone, Debug)]
struct Worker {
    myself: Own<ScrubberMessage>,
    arguments: ScrubberArguments,
}

impl Worker {
    /// Runs work in the group's folder, apart from everybody else's.
    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk, ShardId) -> Result<T, RepairError> + Send + 'static,
    ) -> Result<T, String> {
        let ScrubberArguments { shard, folder, site } = &self.arguments;
        let (disk, shard) = (Arc::clone(&site.env.disk), *shard);
        let outcome = folder.turn(&site.env, &self.myself, move || work(&*disk, shard)).await;
        outcome.ok_or_else(|| "work on a file panicked".to_owned())?.map_err(|error| error.to_string())
    }

    /// Has a file looked at that was found damaged.
    fn found(&self, suspect: Suspect) {
        // A life that ended is followed by one that finds it again.
        let _ = self.myself.cast(ScrubberMessage::Look(suspect));
    }

    /// Looks at every file once; the bytes that were read. Where nothing is being repaired, unfinished copies are cleared
    /// away first.
    async fn round(&self, clear: bool) -> Result<u64, String> {
        let look = move |disk: &dyn Disk, shard: ShardId| {
            if clear {
                repair::discard(disk, shard)?;
            }
            Ok(repair::files(disk, shard)?)
        };
        let files = self.turn(look).await?;
        let metrics = &self.arguments.site.metrics;
        metrics.scrubbed(files.bytes);
        if files.damaged.is_some() {
            self.found(Suspect::Snapshot);
        }
        // What does not even open is what its replica misses most.
        for meta in files.segments.iter().copied() {
            if let Read::Damaged(_) = self.turn(move |disk, shard| Ok(repair::read(disk, shard, &meta)?)).await? {
                self.found(Suspect::Segment(meta.from));
            }
        }
        let (mut bytes, mut failed) = (files.bytes, None);
        for meta in files.segments.iter().copied() {
            self.myself.detail("round", format_args!("reads {}", meta.name()));
            match self.read_through(meta).await {
                Ok(read) => bytes += read,
                Err(why) => drop(failed.get_or_insert(why)),
            }
        }
        self.compare(&files).await;
        failed.map_or(Ok(bytes), Err)
    }

    async fn read_through(&self, meta: SegmentMeta) -> Result<u64, String> {
        let transfers = &self.arguments.site.transfers;
        let mut read = self.turn(move |disk, shard| Ok(repair::read(disk, shard, &meta)?)).await?;
        let mut bytes = 0;
        loop {
            let reading = match read {
                Read::More(reading) => reading,
                Read::Whole => return Ok(bytes),
                Read::Damaged(_) => {
                    self.found(Suspect::Segment(meta.from));
                    return Ok(bytes);
                }
            };
            let piece = reading.next(limits::SCRUB_PIECE_BYTES) as u64;
            sleep(transfers.reserve_scrub(piece)).await;
            self.arguments.site.metrics.scrubbed(piece);
            bytes += piece;
            read = self.turn(move |_, _| Ok(reading.step(limits::SCRUB_PIECE_BYTES)?)).await?;
        }
    }

    /// Compares what is here with what the other replicas name. One that does not answer is asked in the next round.
    async fn compare(&self, files: &Files) {
        for node in self.sources() {
            if let Ok(manifest) = self.manifest(node, false).await {
                for offsets in diverging(&files.segments, &manifest.segments) {
                    // A life that ended is followed by one that finds it again.
                    let _ = self.myself.cast(ScrubberMessage::Diverges(node, offsets));
                }
            }
        }
    }

    /// The other nodes that hold the group.
    fn sources(&self) -> Vec<NodeId> {
        let ScrubberArguments { shard, site, .. } = &self.arguments;
        let homes: BTreeSet<NodeId> = site.board.cluster().borrow().homes(*shard).into_values().collect();
        homes.into_iter().filter(|node| *node != site.env.node).take(limits::TRANSFER_SOURCES_MAX).collect()
    }

    async fn manifest(&self, node: NodeId, keep: bool) -> Result<Manifest, String> {
        let body = ManifestRequest { shard: self.arguments.shard, keep }.encode();
        let links = &self.arguments.site.links;
        let answer = links.call(node, Method::Manifest, body, limits::TRANSFER_MANIFEST_DEADLINE).await;
        let bytes: Bytes = answer.map_err(|error| error.to_string())?;
        Manifest::decode(&bytes).map_err(|error| format!("node {node}: {error}"))
    }

    async fn look(&self, suspect: Suspect) -> Result<Finding, String> {
        match suspect {
            Suspect::Snapshot => self.look_at_snapshot().await,
            Suspect::Segment(offset) => self.look_at_segment(offset).await,
        }
    }

    fn damaged(&self, damage: &Damage) {
        // A life that ended is followed by one that finds it again.
        let _ = self.myself.cast(ScrubberMessage::Damaged(damage.clone()));
    }

    async fn look_at_segment(&self, offset: Offset) -> Result<Finding, String> {
        let assess = move |disk: &dyn Disk, shard: ShardId| {
            let named = repair::files(disk, shard)?.segments;
            let holds = named.iter().find(|meta| meta.from <= offset && offset <= meta.to);
            holds.map_or(Ok(Assessment::Unnamed), |meta| repair::assess(disk, shard, (meta.from, meta.to)))
        };
        match self.turn(assess).await? {
            Assessment::Unnamed => Ok(Finding::Fine),
            Assessment::Whole(segment) => Ok(Finding::Whole(segment)),
            Assessment::Other(segment) => {
                let meta = *segment.meta();
                self.turn(move |disk, shard| repair::name_as_it_is(disk, shard, &meta)).await?;
                Ok(Finding::Repaired(segment.path().to_owned(), Some(segment)))
            }
            Assessment::Damaged(meta, damage) => {
                self.damaged(&damage);
                let segment = self.copy(Wanted::Segment(meta)).await?;
                Ok(Finding::Repaired(damage.file, segment))
            }
        }
    }

    async fn look_at_snapshot(&self) -> Result<Finding, String> {
        let files = self.turn(|disk, shard| Ok(repair::files(disk, shard)?)).await?;
        let Some((index, damage)) = files.damaged else { return Ok(Finding::Fine) };
        self.damaged(&damage);
        match self.copy(Wanted::Snapshot(index)).await {
            Ok(_) => Ok(Finding::Repaired(damage.file, None)),
            Err(_) if self.renew(index) => Ok(Finding::Renewed),
            Err(_) if self.is_stuck() => {
                self.copy_newer(index).await?;
                Ok(Finding::Repaired(damage.file, None))
            }
            Err(why) => Err(why),
        }
    }

    /// Whether the replica here cannot begin; one that follows writes its own snapshot soon.
    fn is_stuck(&self) -> bool {
        let ScrubberArguments { shard, site, .. } = &self.arguments;
        site.board.standing(*shard).is_some_and(|standing| standing.phase != Phase::Serving)
    }

    /// Has a newer snapshot copied, with its segments, from which the replica begins anew.
    async fn copy_newer(&self, damaged: Index) -> Result<(), String> {
        let ScrubberArguments { shard, site, .. } = &self.arguments;
        let (tell, told) = oneshot::channel();
        let reply = FetchReply::new(move |outcome| drop(tell.send(outcome)));
        let ask = FetcherMessage::Fetch { at_least: damaged, sources: self.sources(), reply };
        // A fetcher that is not there drops the reply, which says so.
        let _ = fetcher_seat(site, *shard).cast(ask);
        told.await.map_err(|_| "the copy was interrupted".to_owned())?.map(|_| ())
    }

    /// Where the replica of a shard leads here, has a newer snapshot written by all replicas.
    fn renew(&self, damaged: Index) -> bool {
        let ScrubberArguments { shard, site, .. } = &self.arguments;
        let leads = |standing: Standing| standing.role == Role::Leader && standing.applied >= damaged;
        let leads = *shard != ShardId::METADATA && site.board.standing(*shard).is_some_and(leads);
        let replica = site.board.replica(*shard).filter(|_| leads);
        replica.is_some_and(|replica| replica.cast(ReplicaMessage::Seal { let_go: false }).is_ok())
    }

    /// Copies a whole file from whoever has it and puts it in its place.
    async fn copy(&self, wanted: Wanted) -> Result<Option<Segment>, String> {
        let mut failed = "there is no other node to copy from".to_owned();
        for round in 0..limits::TRANSFER_ROUNDS_MAX {
            if round > 0 {
                sleep(limits::TRANSFER_RETRY).await;
            }
            for node in self.sources() {
                match self.copy_from(node, &wanted).await {
                    Ok(segment) => return Ok(segment),
                    Err(why) => failed = why,
                }
            }
        }
        Err(failed)
    }

    async fn copy_from(&self, node: NodeId, wanted: &Wanted) -> Result<Option<Segment>, String> {
        let site = &self.arguments.site;
        let manifest = self.manifest(node, true).await?;
        let offer = find(node, &manifest, wanted)?;
        let _place = site.transfers.places().acquire_owned().await.expect("it is never closed");
        let name = repair::copy_name(&offer.name());
        for question in offer.questions(self.arguments.shard, manifest.lease) {
            sleep(site.transfers.reserve(u64::from(question.length))).await;
            let call = site.links.call(node, Method::Chunk, question.encode(), limits::TRANSFER_CHUNK_DEADLINE);
            let piece = call.await.map_err(|error| error.to_string())?;
            if piece.len() != question.length as usize {
                return Err(format!("node {node} answers with {} bytes of {}", piece.len(), question.length));
            }
            site.metrics.transferred("fetched", piece.len() as u64);
            let (name, bytes, offset) = (name.clone(), offer.bytes(), question.offset);
            self.turn(move |disk, shard| Ok(copy::append(disk, shard, &name, bytes, offset, &piece)?)).await?;
        }
        let mended = match offer {
            Offer::Segment(meta) => {
                let install = move |disk: &dyn Disk, shard: ShardId| repair::install_segment(disk, shard, &meta);
                match self.turn(install).await? {
                    Mended::Done(segment) => Mended::Done(Some(segment)),
                    Mended::Unfit(why) => Mended::Unfit(why),
                }
            }
            Offer::Snapshot(position, fits) => {
                let install =
                    move |disk: &dyn Disk, shard: ShardId| repair::install_snapshot(disk, shard, position, fits);
                match self.turn(install).await? {
                    Mended::Done(()) => Mended::Done(None),
                    Mended::Unfit(why) => Mended::Unfit(why),
                }
            }
        };
        match mended {
            Mended::Done(segment) => Ok(segment),
            Mended::Unfit(why) => Err(format!("from node {node}: {why}")),
        }
    }

    /// Has the replica of this node read from this file from now on.
    fn serve_from(&self, segment: Segment) {
        self.tell(ReplicaMessage::Repaired(Arc::new(segment)));
    }

    fn tell(&self, message: ReplicaMessage) {
        let ScrubberArguments { shard, site, .. } = &self.arguments;
        if let Some(replica) = site.board.replica(*shard) {
            // One that is not running reads the files when it starts.
            let _ = replica.cast(message);
        }
    }
}

#[cfg(test)]
mod tests;
