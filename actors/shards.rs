//! `shards`: supervises one `shard-N` for each shard that the shard map places on this node.
//!
//! Parent: `node`. It starts shards when the map names them, gives every replica its tick, and has the fullest head
//! sealed when the heads of the node outgrow their budget. A restart starts its shards anew; they lose nothing.

use std::collections::BTreeMap;

use millpond::cluster::Cluster;
use millpond::id::{NodeId, ReplicaId, ShardId};
use millpond::limits;

use crate::folder::Folder;
use crate::replica::{ReplicaActor, ReplicaArguments, ReplicaMessage};
use crate::sealer::{Sealer, SealerArguments};
use crate::site::Site;
use crate::snapshotter::{Snapshotter, SnapshotterArguments};
use crate::supervision::{Actor, ActorError, ChildSpec, Children, Own, SupervisorActor, SupervisorMessage};

/// What the supervisor of all shards is told.
#[derive(Debug)]
pub enum ShardsMessage {
    /// The metadata group applied something: see which shards belong here.
    ClusterChanged,
    /// Ticks for every replica.
    Tick,
}

/// Supervises the shards of a node.
#[derive(Debug)]
pub struct Shards;

/// The state of the supervisor.
#[derive(Debug)]
pub struct ShardsState {
    site: Site,
    children: Children,
    ticks: u64,
}

/// Messages with ticks between two looks at the heads of the node.
const HEADS_EVERY_TICKS: u64 = 2;

impl Actor for Shards {
    type Message = ShardsMessage;
    type Arguments = Site;
    type State = ShardsState;

    async fn pre_start(&self, myself: &Own<ShardsMessage>, site: Site) -> Result<ShardsState, ActorError> {
        drop(myself.cast_every(limits::TICK * limits::TICKS_AT_ONCE, || ShardsMessage::Tick));
        let (watcher, mut cluster) = (myself.clone(), site.board.cluster().subscribe());
        tokio::spawn(async move {
            // Ends with this life of the actor, or with the board.
            while watcher.cast(ShardsMessage::ClusterChanged).is_ok() && cluster.changed().await.is_ok() {}
        });
        Ok(ShardsState { site, children: Children::new(myself), ticks: 0 })
    }

    async fn handle(
        &self,
        _: &Own<ShardsMessage>,
        message: ShardsMessage,
        state: &mut ShardsState,
    ) -> Result<(), ActorError> {
        match message {
            ShardsMessage::ClusterChanged => state.place(),
            ShardsMessage::Tick => state.tick(),
        }
        Ok(())
    }

    fn children<'s>(&self, state: &'s mut ShardsState) -> Option<&'s mut Children> {
        Some(&mut state.children)
    }
}

impl ShardsState {
    fn place(&mut self) {
        let cluster = self.site.board.cluster().borrow().clone();
        let preferred = cluster.shards().preferred_leaders(&cluster.draining());
        for (shard, peers) in placed_on(&cluster, self.site.env.node) {
            let leads_first = preferred.get(&shard) == Some(&self.site.env.node);
            let (voters, learners) = (peers.keys().copied().collect(), Vec::new());
            self.children.add(shard_spec(&self.site, Group { shard, peers, voters, learners, leads_first }));
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let board = &self.site.board;
        for shard in (0..board.shards()).map(ShardId).chain([ShardId::METADATA]) {
            if let Some(replica) = board.replica(shard) {
                // A replica that is not running needs no tick.
                let _ = replica.cast(ReplicaMessage::Tick);
            }
        }
        if self.ticks.is_multiple_of(HEADS_EVERY_TICKS) {
            self.relieve_memory();
        }
    }

    /// Past the node's budget the fullest head that this node may seal is sealed.
    fn relieve_memory(&self) {
        let standings = self.site.board.standings();
        let total: u64 = standings.iter().map(|standing| standing.head_bytes).sum();
        if total <= self.site.config.node.limits.head_bytes_max.0 {
            return;
        }
        let led = standings.iter().filter(|standing| standing.leader == Some(self.site.env.node));
        if let Some(fullest) = led.max_by_key(|standing| standing.unsealed_bytes)
            && let Some(replica) = self.site.board.replica(fullest.shard)
        {
            let _ = replica.cast(ReplicaMessage::Seal { let_go: false });
        }
    }
}

/// The shards with a replica on a node, and where the replicas of each are.
fn placed_on(cluster: &Cluster, node: NodeId) -> Vec<(ShardId, BTreeMap<ReplicaId, NodeId>)> {
    let placed = cluster.shards().shards.iter().filter(|placement| placement.replicas.contains_key(&node));
    placed
        .map(|placement| (placement.shard, placement.replicas.iter().map(|(node, id)| (*id, *node)).collect()))
        .collect()
}

/// `shard-N`: owns a shard on this node. One for one below it, so that a replica falls without its sealer.
fn shard_spec(site: &Site, group: Group) -> ChildSpec {
    let shard = group.shard;
    let address = site.tree.seat::<SupervisorMessage>(&shard.to_string(), Some("shards"));
    let (site, folder) = (site.clone(), Folder::default());
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let folder = &folder;
        let specs = vec![
            replica_spec(&site, group.clone(), folder),
            sealer_spec(&site, shard, folder),
            snapshotter_spec(&site, shard, folder),
        ];
        (SupervisorActor, specs)
    })
}

fn sealer_spec(site: &Site, shard: ShardId, folder: &Folder) -> ChildSpec {
    let address = site.tree.seat(&format!("{shard}/sealer"), Some(&shard.to_string()));
    let (site, folder) = (site.clone(), folder.clone());
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let replica = site.board.replica(shard).expect("a placed shard has a seat");
        (
            Sealer,
            SealerArguments {
                shard,
                replica,
                folder: folder.clone(),
                env: site.env.clone(),
                metrics: site.metrics.clone(),
            },
        )
    })
}

/// The snapshotter of a group, below the supervisor of that group.
pub fn snapshotter_spec(site: &Site, shard: ShardId, folder: &Folder) -> ChildSpec {
    let address = site.tree.seat(&format!("{shard}/snapshotter"), Some(&shard.to_string()));
    let (site, folder) = (site.clone(), folder.clone());
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let replica = site.board.replica(shard).expect("a placed shard has a seat");
        (Snapshotter, SnapshotterArguments { replica, folder: folder.clone(), env: site.env.clone() })
    })
}

/// Who is who in a group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub shard: ShardId,
    /// All replicas, and where they are.
    pub peers: BTreeMap<ReplicaId, NodeId>,
    /// Those that vote.
    pub voters: Vec<ReplicaId>,
    /// Those that only follow.
    pub learners: Vec<ReplicaId>,
    /// Whether the replica on this node is the one that should lead first.
    pub leads_first: bool,
}

/// The replica of a group, below the supervisor of that group.
pub fn replica_spec(site: &Site, group: Group, folder: &Folder) -> ChildSpec {
    let shard = group.shard;
    let address = site.board.replica(shard).expect("a placed shard has a seat");
    let (site, folder) = (site.clone(), folder.clone());
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let node = site.env.node;
        let placed = group.peers.iter().find(|(_, at)| **at == node);
        let id = *placed.expect("a replica is started where it is placed").0;
        let parent = shard.to_string();
        let sealer = (shard != ShardId::METADATA).then(|| site.tree.seat(&format!("{shard}/sealer"), Some(&parent)));
        let arguments = ReplicaArguments {
            shard,
            id,
            peers: group.peers.clone(),
            voters: group.voters.clone(),
            learners: group.learners.clone(),
            leads_first: group.leads_first,
            head_bytes_max: site.config.node.limits.head_bytes_max.0,
            folder: folder.clone(),
            head_age_max: site.config.node.limits.head_age_max.0,
            sealer,
            snapshotter: site.tree.seat(&format!("{shard}/snapshotter"), Some(&parent)),
            log: site.log.clone(),
            links: site.links.clone(),
            board: site.board.clone(),
            env: site.env.clone(),
            metrics: site.metrics.clone(),
        };
        (ReplicaActor, arguments)
    })
}
