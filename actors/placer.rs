//! `placer`: on the node that leads the metadata group it places the shards of a new cluster; on every node it hands on
//! leadership until each leads its share, and all of it from a node whose disk is full or that is about to stop.
//!
//! Parent: `node`. It receives its own ticks and reads the board; it proposes to the metadata replica of this node and
//! asks replicas of this node to hand leadership over. What it decides is in `placement`; it holds no state that a
//! restart could lose.

use std::collections::BTreeSet;

use millpond::cluster::Command;
use millpond::consensus::Role;
use millpond::id::{Epoch, NodeId, ShardId};
use millpond::limits;
use millpond::placement::{plan_initial, plan_leaders};

use crate::append::AppendReply;
use crate::board::Follower;
use crate::links::PeerState;
use crate::replica::ReplicaMessage;
use crate::site::Site;
use crate::supervision::{Actor, ActorError, Own};

/// What the placer is told.
#[derive(Debug)]
pub enum PlacerMessage {
    /// Look at the board.
    Tick,
}

/// Places shards and spreads leaders.
#[derive(Debug)]
pub struct Placer;

impl Actor for Placer {
    type Message = PlacerMessage;
    type Arguments = Site;
    type State = Site;

    async fn pre_start(&self, myself: &Own<PlacerMessage>, site: Site) -> Result<Site, ActorError> {
        drop(myself.cast_every(limits::PLACER_TICK, || PlacerMessage::Tick));
        Ok(site)
    }

    async fn handle(&self, _: &Own<PlacerMessage>, message: PlacerMessage, site: &mut Site) -> Result<(), ActorError> {
        match message {
            PlacerMessage::Tick => {
                place(site);
                spread_leaders(site);
            }
        }
        Ok(())
    }
}

/// Proposes where the shards live, once: the command is refused where there is a map already.
fn place(site: &Site) {
    let cluster = site.board.cluster().borrow().clone();
    let metadata = site.board.standing(ShardId::METADATA);
    let leads = metadata.is_some_and(|standing| standing.role == Role::Leader);
    if !leads || cluster.identity().is_none() || !cluster.shards().shards.is_empty() {
        return;
    }
    let settings = &site.config.cluster;
    let nodes: BTreeSet<NodeId> = settings.nodes.iter().map(|member| member.id).collect();
    let copies = usize::try_from(settings.replication).expect("a handful");
    let mut map = plan_initial(&nodes, settings.shards, copies, &mut cluster.replica_ids());
    map.epoch = Epoch(cluster.shards().epoch.0 + 1);
    let payload = Command::PlaceShards { map }.encode().into();
    if let Some(replica) = site.board.replica(ShardId::METADATA) {
        // Where it is not taken the next tick proposes again.
        let _ = replica.cast(ReplicaMessage::Append { payload, reply: AppendReply::nobody() });
    }
}

/// Each node hands on what it leads beyond its share, and everything while it is not fit to lead.
fn spread_leaders(site: &Site) {
    let node = site.env.node;
    if !site.board.is_fit() {
        leave_leadership(site);
        return;
    }
    let cluster = site.board.cluster().borrow().clone();
    let connected = site.links.peers().into_iter().filter(|peer| peer.state == PeerState::Connected);
    let peers = connected.map(|peer| peer.node).filter(|peer| site.board.is_peer_fit(*peer));
    let alive: BTreeSet<NodeId> = peers.chain([node]).collect();
    let standings = site.board.standings().into_iter();
    let observed = standings.filter_map(|standing| Some((standing.shard, standing.leader?))).collect();
    let transfers = plan_leaders(cluster.shards(), &observed, &alive, &cluster.draining()).into_iter();
    for transfer in transfers.filter(|transfer| transfer.from == node) {
        if let Some(replica) = site.board.replica(transfer.shard) {
            let _ = replica.cast(ReplicaMessage::Transfer(transfer.to));
        }
    }
}

/// Asks every replica that leads here to let a peer lead that has the log. Whether one still leads.
pub fn leave_leadership(site: &Site) -> bool {
    let standings = site.board.standings().into_iter().chain(site.board.standing(ShardId::METADATA));
    let led = standings.filter(|standing| standing.role == Role::Leader && !standing.followers.is_empty());
    led.fold(false, |_, standing| {
        let able =
            |follower: &&Follower| follower.active && !follower.needs_snapshot && site.board.is_peer_fit(follower.node);
        let to = standing.followers.iter().filter(able).max_by_key(|follower| follower.matched);
        if let (Some(to), Some(replica)) = (to, site.board.replica(standing.shard)) {
            let _ = replica.cast(ReplicaMessage::Transfer(to.node));
        }
        true
    })
}
