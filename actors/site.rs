//! What the actors of one node share: handles only, cheap to clone, made once in `node`.

use std::sync::Arc;

use millpond::cluster::Build;
use millpond::config::Config;
use millpond::id::StoreId;

use crate::board::Board;
use crate::env::Env;
use crate::folder::Folders;
use crate::links::Links;
use crate::log_writer::LogWriterMessage;
use crate::metrics::Metrics;
use crate::supervision::Address;
use crate::transfer::Transfers;
use crate::tree::TreeHandle;

/// The handles that actors are made with.
#[derive(Clone, Debug)]
pub struct Site {
    /// What the operator chose.
    pub config: Arc<Config>,
    /// What the node runs.
    pub build: Arc<Build>,
    /// This node's data folder.
    pub store: StoreId,
    /// The folders of the groups that this node has replicas of.
    pub folders: Folders,
    /// Clock, randomness, disk, peers, threads.
    pub env: Env,
    /// Where actors are seen.
    pub tree: TreeHandle,
    /// Where replicas publish how they stand.
    pub board: Board,
    /// The node's WAL.
    pub log: Address<LogWriterMessage>,
    /// The other nodes.
    pub links: Links,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What copies of snapshots share, to this node and from it.
    pub transfers: Transfers,
}
