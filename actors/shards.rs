//! `shards`: supervises one `shard-N` for each replica that the cluster asks of this node.
//!
//! Parent: `node`. It looks at what the cluster asks for whenever that changes: a replica that is new here is put on the
//! roster, durably, before it starts; one that is gone is struck off it, then stopped, and its log and files are removed.
//! It gives every replica its tick, and has the fullest heads sealed when those of the node outgrow their budget. A
//! restart starts its shards anew and goes on clearing; they lose nothing.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use millpond::class::Class;
use millpond::cluster::Cluster;
use millpond::entry::Members;
use millpond::id::{NodeId, ReplicaId, ShardId};
use millpond::limits;
use millpond::storage::copy;

use crate::board::Standing as SeatStanding;
use crate::env::End;
use crate::folder::Folder;
use crate::heads::{Budget, Head};
use crate::log_writer::LogWriterMessage;
use crate::registry::SharedRegistry;
use crate::replica::{ReplicaActor, ReplicaArguments, ReplicaMessage};
use crate::roster::{Roster, Standing};
use crate::scrubber::scrubber_spec;
use crate::sealer::{Sealer, SealerArguments};
use crate::site::Site;
use crate::snapshotter::{Snapshotter, SnapshotterArguments};
use crate::supervision::{Actor, ActorError, ChildSpec, Children, Own, SupervisorActor, SupervisorMessage};
use crate::transfer::fetcher::fetcher_spec;
use tokio::time::Instant;

/// What the supervisor of all shards is told.
#[derive(Debug)]
pub enum ShardsMessage {
    /// The metadata group applied something: see which shards belong here.
    ClusterChanged,
    /// Ticks for every replica.
    Tick,
    /// The roster is durable, or why not, and what to do about it.
    Saved(Result<Roster, (Class, String)>),
    /// Try to write the roster again.
    SaveAgain,
    /// The files of a replica that is gone are removed, or some are still leased; or why they are not.
    Cleared(ShardId, Result<bool, String>),
}

/// Supervises the shards of a node.
#[derive(Debug)]
pub struct Shards;

/// What the supervisor of all shards starts with.
#[derive(Clone, Debug)]
pub struct ShardsArguments {
    /// The node's handles.
    pub site: Site,
    /// Where the roster is kept.
    pub registry: SharedRegistry,
    /// The writing of the roster: one at a time, whichever life of the supervisor wants it.
    pub writing: Folder,
}

/// The state of the supervisor.
#[derive(Debug)]
pub struct ShardsState {
    myself: Own<ShardsMessage>,
    site: Site,
    registry: SharedRegistry,
    writing: Folder,
    children: Children,
    /// As it is on the disk. Nothing is done that is not on it.
    roster: Roster,
    /// A newer one is being written.
    saving: bool,
    seats: BTreeMap<ShardId, Seat>,
    ticks: u64,
}

/// The replica of one group on this node.
#[derive(Debug)]
struct Seat {
    replica: ReplicaId,
    phase: Phase,
    /// Its log was forgotten.
    forgotten: bool,
    /// Its files are not looked at again before.
    not_before: Instant,
}

impl Seat {
    fn new(replica: ReplicaId, phase: Phase) -> Self {
        Self { replica, phase, forgotten: false, not_before: Instant::now() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// It is gone; its actors end.
    Stopping,
    /// Its files are being removed.
    Clearing,
}

/// Messages with ticks between two looks at the heads of the node, and at what is to be cleared.
const LOOK_EVERY_TICKS: u64 = 2;

impl Actor for Shards {
    type Message = ShardsMessage;
    type Arguments = ShardsArguments;
    type State = ShardsState;

    async fn pre_start(
        &self,
        myself: &Own<ShardsMessage>,
        arguments: ShardsArguments,
    ) -> Result<ShardsState, ActorError> {
        let ShardsArguments { site, registry, writing } = arguments;
        let roster = Roster::read(&mut registry.lock())?;
        drop(myself.cast_every(limits::TICK * limits::TICKS_AT_ONCE, || ShardsMessage::Tick));
        let (watcher, mut cluster) = (myself.clone(), site.board.cluster().subscribe());
        tokio::spawn(async move {
            // Ends with this life of the actor, or with the board.
            while watcher.cast(ShardsMessage::ClusterChanged).is_ok() && cluster.changed().await.is_ok() {}
        });
        // What an earlier life did not get to clear.
        let seats = roster.gone().map(|(shard, replica)| (shard, Seat::new(replica, Phase::Stopping))).collect();
        let (children, myself) = (Children::new(myself), myself.clone());
        Ok(ShardsState { myself, site, registry, writing, children, roster, saving: false, seats, ticks: 0 })
    }

    async fn handle(
        &self,
        _: &Own<ShardsMessage>,
        message: ShardsMessage,
        state: &mut ShardsState,
    ) -> Result<(), ActorError> {
        match message {
            ShardsMessage::ClusterChanged => {
                state.tell_replicas();
                state.look()
            }
            ShardsMessage::Tick => state.tick(),
            ShardsMessage::Saved(outcome) => {
                state.saved(outcome);
                state.look()
            }
            ShardsMessage::SaveAgain => {
                state.saving = false;
                state.look()
            }
            ShardsMessage::Cleared(shard, outcome) => {
                state.cleared(shard, outcome);
                state.look()
            }
        }
    }

    fn children<'s>(&self, state: &'s mut ShardsState) -> Option<&'s mut Children> {
        Some(&mut state.children)
    }
}

impl ShardsState {
    /// Replicas learn from the board where their peers are.
    fn tell_replicas(&self) {
        for shard in self.seats.keys().copied().chain([ShardId::METADATA]) {
            if let Some(replica) = self.site.board.replica(shard) {
                // One that starts looks at the board by itself.
                let _ = replica.cast(ReplicaMessage::ClusterChanged);
            }
        }
    }

    /// One step nearer to what the cluster asks for.
    fn look(&mut self) -> Result<(), ActorError> {
        let cluster = self.site.board.cluster().borrow().clone();
        let duties = duties(&cluster, &self.site);
        if !self.saving {
            let next = self.next_roster(&cluster, &duties)?;
            if next != self.roster {
                self.save(next);
            }
        }
        // Looked for only where a replica starts: the cluster changes far more often.
        let preferred = LazyCell::new(|| cluster.shards().preferred_leaders(&cluster.draining()));
        for (shard, replica) in self.roster.living().collect::<Vec<_>>() {
            if self.seats.contains_key(&shard) || duties.get(&shard) != Some(&replica) {
                continue;
            }
            let Standing::Begun(began) = self.roster.standing(shard, replica)? else { continue };
            let leads_first = preferred.get(&shard) == Some(&self.site.env.node) && !began.is_empty();
            let group = Group { shard, id: replica, began, homes: BTreeMap::new(), leads_first };
            self.children.add(shard_spec(&self.site, group));
            self.seats.insert(shard, Seat::new(replica, Phase::Running));
        }
        self.clear()
    }

    /// The roster with what begins and what is gone. A replica is gone once the cluster, having given out its id, asks for
    /// it no more; of one that is heard of too early nothing is known.
    fn next_roster(&self, cluster: &Cluster, duties: &BTreeMap<ShardId, ReplicaId>) -> Result<Roster, ActorError> {
        let mut next = self.roster.clone();
        let highest = cluster.replica_ids().highest();
        for (shard, replica) in self.roster.living() {
            if replica <= highest && duties.get(&shard) != Some(&replica) {
                next.bury(shard, replica);
            }
        }
        for (&shard, &replica) in duties {
            // One that is only now struck off is cleared first.
            let free = self.roster.living().all(|(held, _)| held != shard) && !self.seats.contains_key(&shard);
            if free && next.standing(shard, replica)? == Standing::New {
                // Whoever comes later learns from the log who there is.
                let founders = cluster.founders(shard).filter(|founders| founders.contains(&replica));
                let began =
                    founders.map_or_else(Members::default, |founders| Members::of(founders.iter().copied(), []));
                next.begin(shard, replica, &began);
            }
        }
        Ok(next)
    }

    fn save(&mut self, next: Roster) {
        self.saving = true;
        let registry = self.registry.clone();
        let panicked = ShardsMessage::Saved(Err((Class::Fatal, "writing it panicked".to_owned())));
        // Of a supervisor that is gone nothing is written any more: the next one has read the registry anew.
        self.writing.run_for(&self.site.env, &self.myself, panicked, move || {
            let written = next.write(&mut registry.lock()).map(|()| next);
            ShardsMessage::Saved(written.map_err(|error| (error.class(), error.to_string())))
        });
    }

    /// Nothing is done that is not on the roster, so it may wait until a full disk has room. What is there after any other
    /// failure nobody knows before it is read again.
    fn saved(&mut self, outcome: Result<Roster, (Class, String)>) {
        let next = match outcome {
            Ok(next) => next,
            Err((Class::Fatal | Class::Refuse, error)) => {
                self.site.env.halt.halt(End::Log, &format!("the roster cannot be written: {error}"));
                return;
            }
            Err((Class::Retry, error)) => {
                tracing::warn!(%error, "the roster cannot be written; tried again");
                drop(self.myself.cast_after(limits::ROSTER_RETRY, ShardsMessage::SaveAgain));
                return;
            }
        };
        for (shard, replica) in next.gone() {
            // One that never ran in this life of the supervisor left something behind as well.
            self.seats.entry(shard).or_insert_with(|| Seat::new(replica, Phase::Stopping));
        }
        (self.roster, self.saving) = (next, false);
    }

    /// Stops what is gone, and once it has ended removes what it leaves behind.
    fn clear(&mut self) -> Result<(), ActorError> {
        for (&shard, seat) in &mut self.seats {
            let name = shard.to_string();
            if seat.phase == Phase::Running && self.roster.standing(shard, seat.replica)? == Standing::Gone {
                seat.phase = Phase::Stopping;
                tracing::info!(%shard, replica = seat.replica.0, "a replica has left this node");
                self.children.remove(&name, "its replica has left this node");
            }
            let due = Instant::now() >= seat.not_before;
            if seat.phase == Phase::Stopping && due && self.children.names().all(|child| **child != *name) {
                seat.phase = Phase::Clearing;
                let replica = seat.replica;
                // From now on others say who leads it.
                self.site.board.stands(SeatStanding::unknown(shard));
                self.site.transfers.left(shard);
                if !std::mem::replace(&mut seat.forgotten, true) {
                    // The log-writer is there as long as the node is.
                    let _ = self.site.log.cast(LogWriterMessage::Forget { shard, replica });
                }
                let disk = Arc::clone(&self.site.env.disk);
                let panicked = ShardsMessage::Cleared(shard, Err("removing its files panicked".to_owned()));
                self.site.folders.of(shard).run_for(&self.site.env, &self.myself, panicked, move || {
                    ShardsMessage::Cleared(shard, copy::clear(&*disk, shard).map_err(|error| error.to_string()))
                });
            }
        }
        Ok(())
    }

    /// What cannot be removed, or is still copied by somebody, is tried again later.
    fn cleared(&mut self, shard: ShardId, outcome: Result<bool, String>) {
        let Some(seat) = self.seats.get_mut(&shard).filter(|seat| seat.phase == Phase::Clearing) else { return };
        if outcome == Ok(true) {
            self.seats.remove(&shard);
            return;
        }
        if let Err(error) = outcome {
            tracing::warn!(%shard, %error, "what a replica left behind cannot be removed; tried again");
        }
        (seat.phase, seat.not_before) = (Phase::Stopping, Instant::now() + limits::CLEAR_RETRY);
    }

    fn tick(&mut self) -> Result<(), ActorError> {
        self.ticks += 1;
        let board = &self.site.board;
        for shard in (0..board.shards()).map(ShardId).chain([ShardId::METADATA]) {
            if let Some(replica) = board.replica(shard) {
                // A replica that is not running needs no tick.
                let _ = replica.cast(ReplicaMessage::Tick);
            }
        }
        if self.ticks.is_multiple_of(LOOK_EVERY_TICKS) {
            self.relieve_memory();
            self.clear()?;
        }
        Ok(())
    }

    /// Past the node's budget the fullest heads that this node may seal are sealed.
    fn relieve_memory(&self) {
        let (board, budget) = (&self.site.board, budget(&self.site));
        if !budget.pressure(board.heads()).asks && !board.is_asked() {
            return;
        }
        let cluster = board.cluster().borrow().clone();
        let held = board.standings().into_iter().filter(|standing| standing.replica.is_some());
        let head = |standing: SeatStanding| Head {
            shard: standing.shard,
            led: standing.leader == Some(self.site.env.node),
            unsealed: standing.unsealed_bytes,
            sealing: standing.head_bytes - standing.unsealed_bytes,
            asked: board.pressure_of(cluster.homes(standing.shard).into_values()).asks,
        };
        let heads: Vec<Head> = held.map(head).collect();
        for shard in budget.cut(&heads) {
            if let Some(replica) = board.replica(shard) {
                let _ = replica.cast(ReplicaMessage::Seal { let_go: false });
            }
        }
    }
}

/// What the heads of this node may take.
pub fn budget(site: &Site) -> Budget {
    let limits = &site.config.node.limits;
    Budget::new(limits.head_bytes_max.0, limits.sealing_bytes_max.0)
}

/// The replicas of shards that the cluster asks of this node.
fn duties(cluster: &Cluster, site: &Site) -> BTreeMap<ShardId, ReplicaId> {
    let duties = cluster.holds(site.env.node, site.store).into_iter();
    duties.filter(|(shard, _)| *shard != ShardId::METADATA).map(|(shard, duty)| (shard, duty.replica())).collect()
}

/// `shard-N`: owns a shard on this node. One for one below it, so that a replica falls without its sealer.
fn shard_spec(site: &Site, group: Group) -> ChildSpec {
    let shard = group.shard;
    let address = site.tree.seat::<SupervisorMessage>(&shard.to_string(), Some("shards"));
    let (site, folder) = (site.clone(), site.folders.of(shard));
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let folder = &folder;
        let specs = vec![
            replica_spec(&site, group.clone(), folder),
            sealer_spec(&site, shard, folder),
            snapshotter_spec(&site, shard, folder),
            fetcher_spec(&site, shard, folder),
            scrubber_spec(&site, shard, folder),
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

/// Who is who in a group, as a replica on this node begins.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub shard: ShardId,
    /// The replica on this node.
    pub id: ReplicaId,
    /// The members with which it began; none where it came later and learns them from the log.
    pub began: Members,
    /// Where replicas are, until the cluster says so.
    pub homes: BTreeMap<ReplicaId, NodeId>,
    /// Whether the replica on this node is the one that should lead first.
    pub leads_first: bool,
}

/// The replica of a group, below the supervisor of that group.
pub fn replica_spec(site: &Site, group: Group, folder: &Folder) -> ChildSpec {
    let shard = group.shard;
    let address = site.board.replica(shard).expect("a placed shard has a seat");
    let (site, folder) = (site.clone(), folder.clone());
    ChildSpec::new(&address, site.env.knobs.isolated, move || {
        let parent = shard.to_string();
        let sealer = (shard != ShardId::METADATA).then(|| site.tree.seat(&format!("{shard}/sealer"), Some(&parent)));
        let arguments = ReplicaArguments {
            group: group.clone(),
            budget: budget(&site),
            folder: folder.clone(),
            head_age_max: site.config.node.limits.head_age_max.0,
            retention: Arc::new(site.config.cluster.retention.policy(site.board.shards())),
            sealer,
            snapshotter: site.tree.seat(&format!("{shard}/snapshotter"), Some(&parent)),
            fetcher: site.tree.seat(&format!("{shard}/fetcher"), Some(&parent)),
            log: site.log.clone(),
            links: site.links.clone(),
            board: site.board.clone(),
            env: site.env.clone(),
            metrics: site.metrics.clone(),
            transfers: site.transfers.clone(),
        };
        (ReplicaActor, arguments)
    })
}
