//! The serving side of copies: another node asks what the newest snapshot of a group here consists of, and then for its
//! files, piece by piece. What travels is described in `millpond::transfer::wire`.
//!
//! It reads on worker threads, for a bounded number of requests at once; the rest hear that this node is overloaded. It
//! does not need the group to run here: files are enough.

use bytes::Bytes;
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::storage::copy;
use millpond::storage::snapshot::SnapshotError;
use millpond::transfer::wire::{ChunkRequest, Manifest, ManifestRequest, Refusal};
use millpond::transfer::{Purpose, TransferError};

use crate::env::Lane;
use crate::links::{Answer, Fault, FaultCode};
use crate::site::Site;

/// How often the newest snapshot is looked for, where a newer one takes its place meanwhile.
const LOOKS_MAX: u32 = 3;

/// Answers with the manifest of the newest snapshot of a group, and keeps its files for the node that asks where it wants
/// them.
pub fn manifest(site: &Site, from: NodeId, body: Bytes, answer: Answer) {
    let here = site.clone();
    run(site, answer, move || read_manifest(&here, from, &body));
}

/// Answers with a piece of a file that the node that asks has a lease of, at the node's pace: whoever asks waits for a
/// handful of pieces at once, so few are held back here.
pub fn chunk(site: &Site, from: NodeId, body: Bytes, answer: Answer) {
    let length = ChunkRequest::decode(&body).ok().flatten().map_or(0, |request| u64::from(request.length));
    let (here, wait) = (site.clone(), site.transfers.reserve_serving(length));
    let serve = move || {
        let site = here.clone();
        run(&site, answer, move || read_chunk(&here, from, &body));
    };
    if wait.is_zero() {
        serve();
    } else {
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            serve();
        });
    }
}

fn run(site: &Site, answer: Answer, work: impl FnOnce() -> Result<Bytes, Refusal> + Send + 'static) {
    let Ok(place) = site.transfers.reads().try_acquire_owned() else {
        answer.send(Err(Fault::of(FaultCode::Overloaded)));
        return;
    };
    let job = move || {
        // Dropped by a panic, the answer says that nobody answered.
        answer.send(work().map_err(|refusal| Fault::application(refusal.encode())));
        drop(place);
    };
    site.env.blocking.run(Lane::Files, Box::new(job));
}

fn read_manifest(site: &Site, from: NodeId, body: &[u8]) -> Result<Bytes, Refusal> {
    let ManifestRequest { shard, keep } = ManifestRequest::decode(body).map_err(unreadable)?;
    let manifest = if keep { newest(site, from, Purpose::Replica, shard)? } else { named(site, shard)? };
    Ok(manifest.encode())
}

/// The manifest of the newest snapshot of a group here, without a lease: its files may go at any time. Blocking.
fn named(site: &Site, shard: ShardId) -> Result<Manifest, Refusal> {
    let newest = copy::newest(&*site.env.disk, shard).map_err(failed)?.ok_or(Refusal::NoSnapshot)?;
    let (bytes, hash) = (newest.file.bytes, newest.file.hash);
    Ok(Manifest { lease: 0, position: newest.position, bytes, hash, segments: newest.segments })
}

/// The manifest of the newest snapshot of a group here, its files leased to a node; blocking.
pub fn newest(site: &Site, from: NodeId, purpose: Purpose, shard: ShardId) -> Result<Manifest, Refusal> {
    let (disk, transfers) = (&*site.env.disk, &site.transfers);
    for _ in 0..LOOKS_MAX {
        let newest = copy::newest(disk, shard).map_err(failed)?.ok_or(Refusal::NoSnapshot)?;
        let (position, segments) = (newest.position, newest.segments);
        if segments.len() > limits::TRANSFER_SEGMENTS_MAX {
            return Err(Refusal::Failed(format!("{} segments are too many to be copied", segments.len())));
        }
        let now = transfers.now();
        let lease = transfers.leases().give(now, from, purpose, shard, position.index, &segments);
        let lease = lease.ok_or(Refusal::Busy)?;
        // What was removed before the lease was given is not missed later.
        if copy::is_there(disk, shard, position.index, &segments).map_err(failed)? {
            tracing::info!(%shard, node = from.0, index = position.index.0, "a snapshot is copied from here");
            return Ok(Manifest { lease, position, bytes: newest.file.bytes, hash: newest.file.hash, segments });
        }
    }
    Err(Refusal::Failed("files of its newest snapshot are missing".to_owned()))
}

fn read_chunk(site: &Site, from: NodeId, body: &[u8]) -> Result<Bytes, Refusal> {
    let too_long = || Refusal::Failed("a piece may not be that long".to_owned());
    let piece = piece(site, from, ChunkRequest::decode(body).map_err(unreadable)?.ok_or_else(too_long)?)?;
    site.metrics.transferred("served", piece.len() as u64);
    Ok(piece)
}

/// A piece of a file that is leased to a node; blocking.
pub fn piece(site: &Site, from: NodeId, request: ChunkRequest) -> Result<Bytes, Refusal> {
    let now = site.transfers.now();
    let path = site.transfers.leases().used(now, from, request.lease, request.shard, request.file);
    let path = path.ok_or(Refusal::Gone)?;
    let piece = copy::read_piece(&*site.env.disk, &path, request.offset, request.length as usize);
    piece.map_err(failed)?.ok_or(Refusal::Gone)
}

fn failed(error: SnapshotError) -> Refusal {
    tracing::warn!(%error, "a snapshot cannot be read for another node");
    Refusal::Failed(error.to_string())
}

fn unreadable(error: TransferError) -> Refusal {
    Refusal::Failed(error.to_string())
}
