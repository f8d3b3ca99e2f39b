//! What stands on a node at a scrape, read from the board, the links and the disk.

use std::sync::Arc;

use millpond::consensus::Role;
use millpond::limits;
use millpond::storage::disk::Disk;

use crate::board::{Board, Mark, Standing as ShardStanding};
use crate::links::{Links, PeerReport, PeerState};
use crate::metrics::{PeerGauges, ShardGauges, Standing};

/// Reads the standing of a node, each time it is asked.
pub fn survey(board: Board, links: Links, disk: Arc<dyn Disk>) -> impl Fn() -> Standing + Send + Sync + 'static {
    move || Standing {
        shards: board.standings().iter().map(shard).collect(),
        peers: links.peers().iter().map(peer).collect(),
        disk_free_bytes: disk.free_bytes().ok(),
        disk_total_bytes: disk.total_bytes().ok(),
        disk_warning: board.fill().borrow().mark >= Mark::Warning,
        disk_full: board.takes_ingest().is_err(),
        ready: board.ready().is_ok(),
    }
}

fn shard(standing: &ShardStanding) -> ShardGauges {
    let heard = standing.followers.iter().filter(|follower| follower.active && !follower.needs_snapshot).count() as u64;
    let replicas = (standing.role == Role::Leader).then(|| (1 + heard, 1 + standing.followers.len() as u64));
    ShardGauges {
        shard: standing.shard.0.to_string(),
        role: format!("{:?}", standing.role).to_lowercase(),
        term: standing.term.0,
        head_bytes: standing.head_bytes,
        unapplied: standing.committed.0.saturating_sub(standing.applied.0),
        replicas,
    }
}

fn peer(report: &PeerReport) -> PeerGauges {
    PeerGauges {
        peer: report.node.to_string(),
        up: report.state == PeerState::Connected,
        credit_bytes: (limits::LINK_CREDIT_BYTES as u64).saturating_sub(report.credit_outstanding),
        queued_bytes: report.queued_bytes as u64,
        dropped: report.dropped,
    }
}
