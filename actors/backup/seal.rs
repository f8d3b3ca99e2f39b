//! The serving side of a backup: the leader of a shard puts everything that was acknowledged into a snapshot and leases
//! its files to the node that makes the backup. What travels is described in `millpond::backup::wire`.
//!
//! It proves that the replica leads by a linearizable read, has the head sealed until nothing of what that read saw is
//! left in it, and then reads the newest snapshot, of which it leaves out what retention has ended since. Nobody waits for it inside an actor: each request is a task of its
//! own, and their number is bounded.

use std::time::Duration;

use bytes::Bytes;
use millpond::backup::left;
use millpond::backup::wire::{LookRequest, Request, SealRequest, Sealed};
use millpond::id::{NodeId, Offset, ShardId};
use millpond::limits;
use millpond::query::View;
use millpond::transfer::Purpose;
use millpond::transfer::wire::{Manifest, Refusal};
use ractor::concurrency::oneshot;
use serde_bytes::ByteBuf;
use tokio::time::{Instant, timeout};

use crate::env::Lane;
use crate::links::{Answer, Fault, FaultCode};
use crate::replica::{ReadRefusal, ReplicaMessage};
use crate::scrubber::{ScrubberMessage, Suspect, scrubber_seat};
use crate::site::Site;
use crate::transfer::source;

/// How long a replica may take to say what it holds.
const READ_WAIT: Duration = Duration::from_secs(2);

/// Answers when the shard is sealed, with the manifest of the snapshot that says so; at once where a segment is only to be
/// looked at.
pub fn serve(site: &Site, from: NodeId, body: &[u8], answer: Answer) {
    let Ok(place) = site.transfers.seals().try_acquire_owned() else {
        answer.send(Err(Fault::of(FaultCode::Overloaded)));
        return;
    };
    let request = Request::decode(body);
    let site = site.clone();
    tokio::spawn(async move {
        let outcome = match request {
            Ok(Request::Seal(SealRequest { shard })) => sealed(&site, from, shard).await.map(|sealed| sealed.encode()),
            Ok(Request::Look(LookRequest { shard, offset })) => {
                look(&site, shard, offset);
                Ok(Bytes::new())
            }
            Err(error) => Err(Refusal::Failed(error.to_string())),
        };
        answer.send(outcome.map_err(|refusal| Fault::application(refusal.encode())));
        drop(place);
    });
}

/// Has a segment of this node looked at, and repaired where it is damaged.
pub fn look(site: &Site, shard: ShardId, offset: Offset) {
    // A scrubber that does not run now looks at every file soon after it starts.
    let _ = scrubber_seat(site, shard).cast(ScrubberMessage::Look(Suspect::Segment(offset)));
}

/// Seals a shard that this node leads, and leases its newest snapshot to a node.
///
/// # Errors
/// This node does not lead the shard, or cannot seal it now.
pub async fn sealed(site: &Site, from: NodeId, shard: ShardId) -> Result<Sealed, Refusal> {
    let View { first, end, .. } = view(site, shard, true).await?;
    let deadline = Instant::now() + limits::BACKUP_SEAL_WAIT;
    while is_in_head(&view(site, shard, false).await?, end) {
        if Instant::now() >= deadline {
            return Err(Refusal::Busy);
        }
        seal(site, shard).await?;
    }
    if end == Offset(0) {
        return Ok(Sealed { end, manifest: None });
    }
    let (reply, manifest) = oneshot();
    let here = site.clone();
    // Dropped by a panic, the sender says so.
    let work = move || drop(reply.send(source::newest(&here, from, Purpose::Backup, shard)));
    site.env.blocking.run(Lane::Files, Box::new(work));
    let manifest = manifest.await.map_err(|_| Refusal::Failed("reading the newest snapshot panicked".to_owned()))??;
    let manifest = Manifest { segments: left(manifest.segments, first), ..manifest };
    Ok(Sealed { end, manifest: Some(ByteBuf::from(manifest.encode().to_vec())) })
}

fn is_in_head(view: &View, end: Offset) -> bool {
    view.head.iter().any(|batch| batch.base() < end)
}

/// Asks for a seal, and waits a while for what comes of it.
async fn seal(site: &Site, shard: ShardId) -> Result<(), Refusal> {
    let seat = site.board.seat(shard).ok_or_else(|| absent(shard))?;
    let mut watch = seat.subscribe();
    let sealed = watch.borrow_and_update().standing.sealed;
    let replica = site.board.replica(shard).ok_or_else(|| absent(shard))?;
    // Where one is under way already nothing more is proposed, and what is not taken is asked for again.
    replica.cast(ReplicaMessage::Seal { let_go: false }).map_err(|_| absent(shard))?;
    let node = Some(site.env.node);
    let ended = watch.wait_for(|seat| seat.standing.sealed != sealed || seat.standing.leader != node);
    if timeout(limits::BACKUP_SEAL_POLL, ended).await.is_ok_and(|seat| seat.is_ok_and(|s| s.standing.leader != node)) {
        return Err(Refusal::Failed(format!("{shard} is led by another node now")));
    }
    Ok(())
}

async fn view(site: &Site, shard: ShardId, linearizable: bool) -> Result<View, Refusal> {
    let replica = site.board.replica(shard).ok_or_else(|| absent(shard))?;
    let (reply, view) = oneshot();
    let read = ReplicaMessage::Read { linearizable, reply: reply.into() };
    replica.cast(read).map_err(|_| absent(shard))?;
    match timeout(READ_WAIT, view).await {
        Ok(Ok(Ok(view))) => Ok(view),
        Ok(Ok(Err(ReadRefusal::Recovering | ReadRefusal::Busy))) | Err(_) => Err(Refusal::Busy),
        Ok(Ok(Err(ReadRefusal::NotLeader(_)))) => Err(Refusal::Failed(format!("{shard} is led by another node"))),
        Ok(Ok(Err(ReadRefusal::NoRecords))) => Err(Refusal::Failed(format!("{shard} holds no records"))),
        Ok(Err(_)) => Err(absent(shard)),
    }
}

fn absent(shard: ShardId) -> Refusal {
    Refusal::Failed(format!("no replica of {shard} runs here"))
}
