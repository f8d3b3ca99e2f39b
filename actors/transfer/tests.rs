//! Copies between two nodes in one process, over a network in memory and in paused time.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use millpond::config::Config;
use millpond::entry::{Position, SegmentMeta, ShardSnapshot};
use millpond::id::{Index, NodeId, Offset, ShardId, StoreId, Term};
use millpond::label::Labels;
use millpond::link::Method;
use millpond::record::{Stream, Summary};
use millpond::storage::copy::{self, Arrived};
use millpond::storage::lossy::LossyDisk;
use millpond::storage::segment::{self, Segment, SegmentWriter};
use millpond::storage::snapshot;
use millpond::transfer::wire::{Manifest, ManifestRequest};
use tokio::sync::oneshot;

use super::fetcher::{FetchReply, FetcherMessage, fetcher_seat, fetcher_spec};
use super::*;
use crate::board::Board;
use crate::env::{Env, Frame, Inline, PeerLink};
use crate::folder::{Folder, Folders};
use crate::knobs::Knobs;
use crate::links::{Answer, Inbound, Links, PeerState};
use crate::metrics::{Metrics, Standing};
use crate::node::ROOT;
use crate::production::{MachineClock, MachineEnd, MachineRandom};
use crate::shards::snapshotter_spec;
use crate::site::Site;
use crate::snapshotter::SnapshotterMessage;
use crate::supervision::{ChildSpec, Root, SupervisorActor, spawn_root};
use crate::tree::{Identity, TreeHandle};

pub(crate) const SHARD: ShardId = ShardId(2);
pub(crate) const SOURCE: NodeId = NodeId(1);
pub(crate) const TARGET: NodeId = NodeId(2);

/// Hands frames straight to the other node's links.
#[derive(Debug, Default)]
struct Wire(Mutex<BTreeMap<NodeId, Links>>);

impl PeerLink for Wire {
    fn send(&self, to: NodeId, frame: Frame) {
        let end = self.0.lock().unwrap().get(&to).cloned();
        if let Some(links) = end {
            links.frame(frame);
        }
    }
}

/// Serves copies and nothing else.
#[derive(Default)]
struct Desk(OnceLock<Site>);

impl Inbound for Desk {
    fn raft(&self, _: NodeId, _: Vec<(ShardId, Bytes)>) {}

    fn call(&self, from: NodeId, method: Method, body: Bytes, answer: Answer) {
        let site = self.0.get().unwrap();
        match method {
            Method::Manifest => source::manifest(site, from, body, answer),
            Method::Chunk => source::chunk(site, from, body, answer),
            Method::Append
            | Method::Scan
            | Method::Records
            | Method::Govern
            | Method::Report
            | Method::Plan
            | Method::Transfer
            | Method::Seal
            | Method::Leave => drop(answer),
        }
    }

    fn hello(&self, _: NodeId, _: Bytes) -> Result<(), String> {
        Ok(())
    }

    fn our_hello(&self) -> Bytes {
        Bytes::from_static(b"hello")
    }

    fn news(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }

    fn changed(&self, _: NodeId, _: PeerState) {}

    fn restarted(&self, _: NodeId, _: Boot) {}
}

pub(crate) struct Node {
    pub(crate) site: Site,
    pub(crate) disk: LossyDisk,
    _root: Root,
}

async fn node(node: NodeId, peer: NodeId, wire: &Arc<Wire>, actors: fn(&Site) -> Vec<ChildSpec>) -> Node {
    let identity = Identity { node, name: format!("node-{node}"), boot: Boot(1) };
    let tree = TreeHandle::new(identity, Arc::new(MachineClock), true);
    let (disk, transfers) = (LossyDisk::new(node.0), Transfers::new(Boot(1)));
    let env = Env {
        node,
        boot: Boot(1),
        clock: Arc::new(MachineClock),
        random: Arc::new(MachineRandom),
        disk: transfers.guard(Arc::new(disk.clone())),
        peers: Arc::clone(wire) as Arc<dyn PeerLink>,
        blocking: Arc::new(Inline),
        halt: Arc::new(MachineEnd),
        knobs: Knobs::default(),
    };
    let site = Site {
        build: Arc::default(),
        config: Arc::new(Config::single()),
        store: StoreId(u128::from(node.0)),
        folders: Folders::default(),
        board: Board::new(node, 4, &tree),
        log: tree.seat("log-writer", Some(ROOT)),
        links: Links::new(node, &tree, &[(peer, "nowhere:1".to_owned())], 0),
        metrics: Arc::new(Metrics::new(tree.clone(), Standing::default)),
        env,
        tree,
        transfers,
    };
    wire.0.lock().unwrap().insert(node, site.links.clone());
    let desk = Arc::new(Desk::default());
    assert!(desk.0.set(site.clone()).is_ok());
    let mut specs = site.links.specs(&site.env, &(desk as Arc<dyn Inbound>));
    specs.extend(actors(&site));
    let root = spawn_root(&site.tree.seat(ROOT, None), SupervisorActor, specs).await.unwrap();
    Node { site, disk, _root: root }
}

/// A source and a target that are connected.
async fn pair() -> (Node, Node) {
    let actors = |site: &Site| {
        let folder = Folder::default();
        vec![fetcher_spec(site, SHARD, &folder), snapshotter_spec(site, SHARD, &folder)]
    };
    pair_of(actors).await
}

/// Two nodes that are connected, with these actors on each.
pub(crate) async fn pair_of(actors: fn(&Site) -> Vec<ChildSpec>) -> (Node, Node) {
    let wire = Arc::new(Wire::default());
    let source = node(SOURCE, TARGET, &wire, actors).await;
    let target = node(TARGET, SOURCE, &wire, actors).await;
    for (end, peer) in [(&source, TARGET), (&target, SOURCE)] {
        let mut report = end.site.links.watch(peer).unwrap();
        report.wait_for(|report| report.state == PeerState::Connected).await.unwrap();
    }
    (source, target)
}

/// Writes a snapshot through `index` with segments of so many bytes each.
pub(crate) fn store(disk: &LossyDisk, index: u64, segments: &[usize]) -> Vec<SegmentMeta> {
    store_as(disk, index, segments, 1)
}

/// The same, with records of this digest in each.
pub(crate) fn store_as(disk: &LossyDisk, index: u64, segments: &[usize], digest: u128) -> Vec<SegmentMeta> {
    let seal = |(at, bytes): (u64, &usize)| {
        let mut writer = SegmentWriter::create(disk, SHARD, Offset(at)).unwrap();
        let summary =
            Summary { first_offset: at, last_offset: at, rows: 1, min_timestamp: 0, max_timestamp: 1, raw_bytes: 9 };
        let stream = Stream { tenant: "acme".into(), labels: Labels::new([("app", "a")]) };
        writer.push(&vec![7; *bytes], summary, &[stream]).unwrap();
        writer.finish(digest).unwrap()
    };
    let segments: Vec<SegmentMeta> = (0..).zip(segments).map(seal).collect();
    let snapshot = ShardSnapshot {
        shard: SHARD,
        position: Position { index: Index(index), term: Term(1) },
        first_offset: Offset(0),
        next_offset: Offset(segments.len() as u64),
        time: 1,
        segments: segments.clone(),
        keys: Vec::new(),
        streams: Vec::new(),
    };
    snapshot::write(disk, &snapshot, b"conf").unwrap();
    segments
}

pub(crate) fn whole(disk: &LossyDisk) -> Option<Index> {
    let snapshot = snapshot::latest(disk, SHARD).unwrap().newest?.snapshot;
    for meta in &snapshot.segments {
        Segment::open(disk, SHARD, meta).and_then(|segment| segment.verify()).unwrap();
    }
    Some(snapshot.position.index)
}

fn fetch(node: &Node, at_least: u64, sources: &[NodeId]) -> oneshot::Receiver<Result<Arrived, String>> {
    let (tell, told) = oneshot::channel();
    let reply = FetchReply::new(move |outcome| drop(tell.send(outcome)));
    let message = FetcherMessage::Fetch { at_least: Index(at_least), sources: sources.to_vec(), reply };
    fetcher_seat(&node.site, SHARD).cast(message).unwrap();
    told
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_travels_from_one_node_to_another_at_the_node_s_pace() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[100, 600_000, 8 << 20]);
    let began = Instant::now();
    let transfers = target.site.transfers.clone();
    let writer = tokio::spawn(async move {
        loop {
            transfers.stores();
            tokio::time::sleep(limits::TRANSFER_ALONE_AFTER / 2).await;
        }
    });
    let arrived = fetch(&target, 40, &[TARGET, NodeId(9), SOURCE]).await.unwrap().unwrap();
    writer.abort();
    assert_eq!((arrived.position.index, &arrived.conf[..]), (Index(40), &b"conf"[..]));
    target.disk.crash();
    assert_eq!(whole(&target.disk), Some(Index(40)));
    let bytes = source.disk.used_bytes();
    let least = (bytes - limits::TRANSFER_BURST_BYTES) * 1_000 / limits::TRANSFER_BYTES_PER_SECOND;
    assert!(began.elapsed() >= Duration::from_millis(least), "{bytes} bytes in {:?}", began.elapsed());
    let (fetched, served) = (target.site.metrics.encode().unwrap(), source.site.metrics.encode().unwrap());
    assert!(fetched.contains(&format!("transfer_bytes_total{{direction=\"fetched\"}} {bytes}\n")), "{fetched}");
    assert!(served.contains(&format!("transfer_bytes_total{{direction=\"served\"}} {bytes}\n")), "{served}");
    assert!(fetched.contains("transfers_total{outcome=\"arrived\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_stores_records_holds_the_copy_to_its_pace_and_an_idle_one_does_not() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[8 << 20]);
    let began = Instant::now();
    source.site.transfers.stores();
    fetch(&target, 40, &[SOURCE]).await.unwrap().unwrap();
    let (held, bytes) = (began.elapsed(), source.disk.used_bytes());
    let least = (bytes - limits::TRANSFER_BURST_BYTES) * 1_000 / limits::TRANSFER_BYTES_PER_SECOND;
    assert!(held >= Duration::from_millis(least), "{bytes} bytes in {held:?}");
    tokio::time::sleep(limits::TRANSFER_ALONE_AFTER).await;
    store(&source.disk, 50, &[8 << 20, 8 << 20]);
    let began = Instant::now();
    fetch(&target, 50, &[SOURCE]).await.unwrap().unwrap();
    assert!(began.elapsed() < held, "{:?} where it was {held:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_is_restarted_says_so_and_goes_on_with_what_it_has() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[3 << 20, 3 << 20]);
    target.site.transfers.stores();
    let interrupted = fetch(&target, 40, &[SOURCE]);
    while target.disk.used_bytes() < 4 << 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    target.site.tree.crash("shard-2/fetcher").unwrap();
    assert!(interrupted.await.unwrap().unwrap_err().contains("interrupted"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    fetch(&target, 40, &[SOURCE]).await.unwrap().unwrap();
    assert_eq!(whole(&target.disk), Some(Index(40)));
    let (text, total) = (target.site.metrics.encode().unwrap(), source.disk.used_bytes());
    let fetched =
        text.lines().find_map(|line| line.strip_prefix("millpond_transfer_bytes_total{direction=\"fetched\"} "));
    let again = fetched.unwrap().parse::<u64>().unwrap() - total;
    assert!(again <= 2 * limits::TRANSFER_CHUNK_BYTES as u64, "{again} bytes were copied twice");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_made_says_why() {
    let (source, target) = pair().await;
    let error = fetch(&target, 40, &[TARGET]).await.unwrap().unwrap_err();
    assert!(error.contains("no other node"), "{error}");
    let error = fetch(&target, 40, &[SOURCE]).await.unwrap().unwrap_err();
    assert!(error.contains("node 1 has no snapshot"), "{error}");
    let error = fetch(&target, 40, &[NodeId(9)]).await.unwrap().unwrap_err();
    assert!(error.contains("node 9 is not reachable"), "{error}");
    store(&source.disk, 39, &[10]);
    let error = fetch(&target, 40, &[SOURCE]).await.unwrap().unwrap_err();
    assert!(error.contains("through 39"), "{error}");
    assert_eq!(target.site.transfers.places().available_permits(), limits::TRANSFERS_RUNNING_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_newer_copy_that_is_asked_for_meanwhile_follows() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[3 << 20]);
    target.site.transfers.stores();
    let first = fetch(&target, 40, &[SOURCE]);
    while target.disk.used_bytes() < 1 << 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store(&source.disk, 50, &[3 << 20, 10]);
    let second = fetch(&target, 50, &[SOURCE]);
    assert_eq!(first.await.unwrap().unwrap().position.index, Index(40));
    assert_eq!(second.await.unwrap().unwrap().position.index, Index(50));
    assert_eq!(whole(&target.disk), Some(Index(50)));
}

#[tokio::test(start_paused = true)]
async fn what_is_copied_stays_until_its_lease_ends() {
    let (source, target) = pair().await;
    let old = store(&source.disk, 40, &[1_000, 2_000]);
    let body = ManifestRequest { shard: SHARD, keep: true }.encode();
    let call = target.site.links.call(SOURCE, Method::Manifest, body, Duration::from_secs(1));
    let manifest = Manifest::decode(&call.await.unwrap()).unwrap();
    assert_eq!(manifest.segments, old);
    let new = store(&source.disk, 50, &[]);
    let disk = &*source.site.env.disk;
    let body = ManifestRequest { shard: SHARD, keep: false }.encode();
    let call = target.site.links.call(SOURCE, Method::Manifest, body, Duration::from_secs(1));
    let compared = Manifest::decode(&call.await.unwrap()).unwrap();
    assert_eq!((compared.lease, compared.position.index), (0, Index(50)), "who compares takes nobody's lease");
    let clean = || {
        snapshot::remove_older(disk, SHARD, Index(50)).unwrap();
        segment::remove_unregistered(disk, SHARD, &new).unwrap();
    };
    clean();
    assert!(copy::is_there(disk, SHARD, Index(40), &old).unwrap());
    let held = disk.remove(&snapshot::path(SHARD, Index(40))).unwrap_err();
    assert_eq!(held.kind(), io::ErrorKind::ResourceBusy);
    tokio::time::sleep(limits::TRANSFER_LEASE).await;
    clean();
    assert_eq!(disk.list(&segment::folder(SHARD)).unwrap(), [snapshot::name(Index(50))]);
}

#[tokio::test(start_paused = true)]
async fn what_retention_ends_while_it_is_copied_is_removed_once_its_lease_has_ended() {
    let (source, target) = pair().await;
    let segments = store(&source.disk, 40, &[1_000, 2_000]);
    let body = ManifestRequest { shard: SHARD, keep: true }.encode();
    target.site.links.call(SOURCE, Method::Manifest, body, Duration::from_secs(1)).await.unwrap();
    let snapshotter = source.site.tree.seat::<SnapshotterMessage>("shard-2/snapshotter", Some("shard-2"));
    snapshotter.cast(SnapshotterMessage::Remove { shard: SHARD, first: Offset(1) }).unwrap();
    tokio::time::sleep(limits::TRANSFER_LEASE / 2).await;
    let disk = &*source.site.env.disk;
    assert!(copy::is_there(disk, SHARD, Index(40), &segments).unwrap());
    tokio::time::sleep(limits::TRANSFER_LEASE).await;
    assert!(!copy::is_there(disk, SHARD, Index(40), &segments[..1]).unwrap());
    assert!(copy::is_there(disk, SHARD, Index(40), &segments[1..]).unwrap());
}

#[tokio::test(start_paused = true)]
async fn readers_past_the_bound_are_asked_to_come_again() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[1_000]);
    let reads = source.site.transfers.reads();
    let all = u32::try_from(limits::TRANSFER_READS_MAX).unwrap();
    let taken = reads.acquire_many_owned(all).await.unwrap();
    let waiting = fetch(&target, 40, &[SOURCE]);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    drop(taken);
    assert!(waiting.await.unwrap().is_ok());
}
