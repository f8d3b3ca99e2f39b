//! `GROUP/fetcher`: copies the newest snapshot of a group from another node into the group's folder.
//!
//! Parent: `shard-N` or `metadata`. It is asked for one copy at a time and tells who asked what came of it; it asks other
//! nodes through the links, no faster than the node's pace, and works on files on worker threads. What it decides is
//! `millpond::transfer::Fetch`'s. A restart loses the copy at hand, of which who asked is told; the files that were
//! copied stay, and the next copy goes on with them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use millpond::id::{Index, NodeId, ShardId};
use millpond::limits;
use millpond::storage::copy::{self, Arrived};
use millpond::transfer::wire::{ChunkRequest, Manifest, ManifestRequest, Refusal};
use millpond::transfer::{Effect, Event, Failure, Fetch};
use tokio::sync::OwnedSemaphorePermit;

use crate::folder::Folder;
use crate::links::{CallError, FaultCode, Method};
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Address, ChildSpec, Own};

/// What a fetcher does.
#[derive(Debug)]
pub enum FetcherMessage {
    /// Copy a snapshot. One that is asked for while another copy runs waits for it, unless that is as good; of those that
    /// wait only the latest is kept.
    Fetch {
        /// The snapshot must reach this entry.
        at_least: Index,
        /// The nodes that may have it, in the order in which they are asked.
        sources: Vec<NodeId>,
        /// Who is told the outcome.
        reply: FetchReply,
    },
    /// There is room for one more copy on this node.
    Place(OwnedSemaphorePermit),
    /// Something a copy waits for.
    Told {
        /// Which copy.
        number: u64,
        /// What.
        event: Event,
    },
    /// Work on a file panicked on a worker thread; named, for the tree.
    Panicked(&'static str),
    /// Time has passed for a copy.
    Tick {
        /// Which copy.
        number: u64,
    },
}

/// Who is told what came of a copy. Dropped, it says that nothing did.
pub struct FetchReply(Option<Tell>);

type Tell = Box<dyn FnOnce(Result<Arrived, String>) + Send>;

impl FetchReply {
    /// Calls this with the outcome, once; it must not block.
    pub fn new(tell: impl FnOnce(Result<Arrived, String>) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    fn send(mut self, outcome: Result<Arrived, String>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<Arrived, String>) {
        if let Some(tell) = self.0.take() {
            tell(outcome);
        }
    }
}

impl fmt::Debug for FetchReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FetchReply")
    }
}

impl Drop for FetchReply {
    fn drop(&mut self) {
        self.tell(Err("the copy was interrupted, or another request took its place".to_owned()));
    }
}

/// Runs one fetcher.
#[derive(Debug)]
pub struct Fetcher;

/// What a fetcher starts with.
#[derive(Clone, Debug)]
pub struct FetcherArguments {
    /// The group.
    pub shard: ShardId,
    /// The group's folder: nothing else works in it while names are given.
    pub folder: Folder,
    /// The unfinished files in it, which only fetchers of this group touch; one for all lives.
    pub parts: Folder,
    /// The node's handles.
    pub site: Site,
}

/// The state of a fetcher.
#[derive(Debug)]
pub struct FetcherState {
    myself: Own<FetcherMessage>,
    arguments: FetcherArguments,
    /// Counts the copies of this life.
    number: u64,
    running: Option<Running>,
    waiting: Option<Request>,
}

#[derive(Debug)]
struct Request {
    at_least: Index,
    sources: Vec<NodeId>,
    reply: FetchReply,
}

#[derive(Debug)]
struct Running {
    request: Request,
    fetch: Fetch,
    /// Whether there is room for it; before, it only waits.
    place: Option<OwnedSemaphorePermit>,
}

/// The fetcher of a group, below the supervisor of that group.
pub fn fetcher_spec(site: &Site, shard: ShardId, folder: &Folder) -> ChildSpec {
    let arguments = FetcherArguments { shard, folder: folder.clone(), parts: Folder::default(), site: site.clone() };
    ChildSpec::new(&fetcher_seat(site, shard), site.env.knobs.isolated, move || (Fetcher, arguments.clone()))
}

/// Where the fetcher of a group is reached.
pub fn fetcher_seat(site: &Site, shard: ShardId) -> Address<FetcherMessage> {
    site.tree.seat(&format!("{shard}/fetcher"), Some(&shard.to_string()))
}

impl Actor for Fetcher {
    type Message = FetcherMessage;
    type Arguments = FetcherArguments;
    type State = FetcherState;

    async fn pre_start(
        &self,
        myself: &Own<FetcherMessage>,
        arguments: FetcherArguments,
    ) -> Result<FetcherState, ActorError> {
        Ok(FetcherState { myself: myself.clone(), arguments, number: 0, running: None, waiting: None })
    }

    async fn handle(
        &self,
        _: &Own<FetcherMessage>,
        message: FetcherMessage,
        state: &mut FetcherState,
    ) -> Result<(), ActorError> {
        match message {
            FetcherMessage::Fetch { at_least, sources, reply } => state.request(at_least, sources, reply),
            FetcherMessage::Place(place) => {
                if let Some(running) = &mut state.running {
                    running.place = Some(place);
                    state.tick();
                }
            }
            FetcherMessage::Told { number, event } => {
                if number == state.number {
                    state.advance(event);
                }
            }
            FetcherMessage::Panicked(what) => return Err(format!("{what} panicked").into()),
            FetcherMessage::Tick { number } => {
                if number == state.number {
                    state.tick();
                }
            }
        }
        Ok(())
    }
}

impl FetcherState {
    fn request(&mut self, at_least: Index, mut sources: Vec<NodeId>, reply: FetchReply) {
        sources.retain(|source| *source != self.arguments.site.env.node);
        sources.truncate(limits::TRANSFER_SOURCES_MAX);
        if sources.is_empty() {
            return reply.send(Err("there is no other node to copy from".to_owned()));
        }
        let request = Request { at_least, sources, reply };
        match &mut self.running {
            None => self.start(request),
            Some(running) if running.request.at_least >= at_least => running.request.reply = request.reply,
            Some(_) => self.waiting = Some(request),
        }
    }

    fn start(&mut self, request: Request) {
        self.number += 1;
        let fetch = Fetch::new(self.arguments.shard, request.at_least, request.sources.clone());
        self.running = Some(Running { request, fetch, place: None });
        self.myself.detail("copy", "waits for room");
        let (places, myself) = (self.arguments.site.transfers.places(), self.myself.clone());
        tokio::spawn(async move {
            let place = places.acquire_owned().await.expect("it is never closed");
            // A life that ended gives the room back.
            let _ = myself.cast(FetcherMessage::Place(place));
        });
    }

    fn tick(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.place.is_some()) {
            let tick = FetcherMessage::Tick { number: self.number };
            drop(self.myself.cast_after(limits::TRANSFER_TICK, tick));
            self.advance(Event::Tick);
        }
    }

    fn advance(&mut self, event: Event) {
        let Some(running) = &mut self.running else { return };
        let mut effects = Vec::new();
        running.fetch.step(self.arguments.site.transfers.now(), event, &mut effects);
        let progress = running.fetch.progress();
        if let Some(source) = progress.source {
            let ((files, all), (bytes, total)) = (progress.files, progress.bytes);
            self.myself.detail("copy", format_args!("{files} of {all} files, {bytes} of {total} bytes, node {source}"));
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let (shard, disk) = (self.arguments.shard, Arc::clone(&self.arguments.site.env.disk));
        match effect {
            Effect::Survey { ticket } => {
                self.work(&self.arguments.folder, "looking at what is here", move || {
                    let outcome = copy::survey(&*disk, shard).map_err(|error| error.to_string());
                    Event::Surveyed { ticket, outcome }
                });
            }
            Effect::AskManifest { ticket, source } => self.ask_manifest(ticket, source),
            Effect::AskChunk { ticket, source, request } => self.ask_chunk(ticket, source, request),
            Effect::Append { ticket, name, bytes, offset, piece } => {
                self.arguments.site.metrics.transferred("fetched", piece.len() as u64);
                self.work(&self.arguments.parts, "writing a copy", move || {
                    let outcome = copy::append(&*disk, shard, &name, bytes, offset, &piece);
                    Event::Appended { ticket, outcome: outcome.map_err(|error| error.to_string()) }
                });
            }
            Effect::Measure { ticket, name } => {
                self.work(&self.arguments.parts, "reading a file back", move || {
                    let outcome = copy::measure(&*disk, shard, &name).map_err(|error| error.to_string());
                    Event::Measured { ticket, outcome }
                });
            }
            Effect::Install { ticket, incoming } => {
                self.work(&self.arguments.folder, "installing a snapshot", move || {
                    let outcome = copy::install(&*disk, &incoming).map_err(|error| error.to_string());
                    Event::Installed { ticket, outcome }
                });
            }
            Effect::Arrived(arrived) => self.end(Ok(arrived)),
            Effect::GaveUp { why } => self.end(Err(why)),
        }
    }

    fn work(&self, folder: &Folder, what: &'static str, work: impl FnOnce() -> Event + Send + 'static) {
        let (number, panicked) = (self.number, FetcherMessage::Panicked(what));
        let work = move || FetcherMessage::Told { number, event: work() };
        folder.run_for(&self.arguments.site.env, &self.myself, panicked, work);
    }

    fn ask_manifest(&self, ticket: u64, source: NodeId) {
        let body = ManifestRequest { shard: self.arguments.shard, keep: true }.encode();
        let call = self.arguments.site.links.call(source, Method::Manifest, body, limits::TRANSFER_MANIFEST_DEADLINE);
        let (myself, number) = (self.myself.clone(), self.number);
        tokio::spawn(async move {
            let read = |bytes: Bytes| Manifest::decode(&bytes).map_err(|error| Failure::Lost(error.to_string()));
            let outcome = call.await.map_err(failure).and_then(read);
            // A life that ended needs no answer.
            let _ = myself.cast(FetcherMessage::Told { number, event: Event::Manifest { ticket, outcome } });
        });
    }

    fn ask_chunk(&self, ticket: u64, source: NodeId, request: ChunkRequest) {
        let wait = self.arguments.site.transfers.reserve(u64::from(request.length));
        let (links, myself, number) = (self.arguments.site.links.clone(), self.myself.clone(), self.number);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let call = links.call(source, Method::Chunk, request.encode(), limits::TRANSFER_CHUNK_DEADLINE);
            let outcome = call.await.map_err(failure);
            // A life that ended needs no answer.
            let _ = myself.cast(FetcherMessage::Told { number, event: Event::Chunk { ticket, outcome } });
        });
    }

    fn end(&mut self, outcome: Result<Arrived, String>) {
        let Some(running) = self.running.take() else { return };
        let (shard, metrics) = (self.arguments.shard, &self.arguments.site.metrics);
        match &outcome {
            Ok(arrived) => {
                metrics.transfer_ended("arrived");
                self.myself.detail("copy", format_args!("arrived through {}", arrived.position.index));
                tracing::info!(%shard, index = arrived.position.index.0, "a snapshot was copied");
            }
            Err(why) => {
                metrics.transfer_ended("failed");
                self.myself.detail("copy", format_args!("given up: {why}"));
                tracing::warn!(%shard, reason = %why, "a snapshot was not copied");
            }
        }
        if let Some(waiting) = self.waiting.take() {
            match &outcome {
                Ok(arrived) if arrived.position.index >= waiting.at_least => waiting.reply.send(Ok(arrived.clone())),
                Ok(_) | Err(_) => self.start(waiting),
            }
        }
        running.request.reply.send(outcome);
    }
}

/// What a call that gave nothing says of the node that was asked.
fn failure(error: CallError) -> Failure {
    let why = error.to_string();
    match error {
        CallError::Overloaded(_) | CallError::Timeout(_) => Failure::Busy(why),
        CallError::Unreachable(_) | CallError::TooLarge(_) => Failure::Lost(why),
        CallError::Fault { node, fault } => match fault.code {
            FaultCode::Overloaded => Failure::Busy(why),
            FaultCode::UnknownMethod | FaultCode::Unanswered | FaultCode::TooLarge => Failure::Lost(why),
            FaultCode::Application => match Refusal::decode(&fault.detail) {
                Refusal::Busy => Failure::Busy(format!("node {node} serves too many copies")),
                Refusal::Gone => Failure::Gone(format!("node {node} has not the file any more")),
                Refusal::NoSnapshot => Failure::Lost(format!("node {node} has no snapshot")),
                Refusal::Failed(why) => Failure::Lost(format!("node {node}: {why}")),
            },
        },
    }
}
