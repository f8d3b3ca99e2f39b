//! One simulated node over its lives: it starts the real tree on a seeded disk, clock and network, ends it as a fault
//! says, and starts it again. What a fault means for a disk and for a process is decided here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use millpond::class::Class;
use millpond::cluster::Cluster;
use millpond::config::Config;
use millpond::id::{NodeId, StoreId};
use millpond::storage::lossy::LossyDisk;
use millpond::storage::wal::WalOptions;
use millpond_actors::boot::{BootError, Handles, Running, Store, start};
use millpond_actors::env::{Clock, End, Env, Random};
use millpond_actors::knobs::Knobs;
use millpond_actors::query::QueryGate;
use millpond_actors::site::Site;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::ground::{Pace, SimClock, SimHalt, SimRandom, SimThreads};
use crate::network::Network;
use crate::observe::Observed;

/// A node that could not start for now is started again after this long, and a process that ended itself as well.
const RESTART: Duration = Duration::from_millis(500);
/// A node that is not ready after this long counts as recovering no more.
const RECOVERY: Duration = Duration::from_secs(20);

/// Why a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its process was killed; the machine goes on.
    Killed,
    /// Its machine lost power.
    PowerLost,
    /// It ended itself.
    Halted(End, String),
    /// The root of its tree ended.
    RootEnded(String),
}

/// One life of a node. What belongs to an ended life has no way out any more.
#[derive(Debug)]
pub struct Life {
    /// Whose.
    pub node: NodeId,
    ending: Mutex<Option<Ending>>,
    alive: AtomicBool,
    ended: Notify,
}

impl Life {
    fn new(node: NodeId) -> Self {
        Self { node, ending: Mutex::new(None), alive: AtomicBool::new(true), ended: Notify::new() }
    }

    /// Whether it goes on.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends it; the first reason counts.
    pub fn end(&self, ending: Ending) {
        if self.alive.swap(false, Ordering::Relaxed) {
            *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
            self.ended.notify_waiters();
        }
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let ended = self.ended.notified();
        if self.is_alive() {
            ended.await;
        }
    }

    fn ending(&self) -> Ending {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.clone().expect("a life that ended has its reason")
    }
}

/// A node as long as it runs.
#[derive(Clone)]
pub struct Up {
    /// This life.
    pub life: Arc<Life>,
    /// Its actors' handles.
    pub site: Site,
    /// What its listener would serve.
    pub routes: Router,
    /// The way to its queriers.
    pub queries: QueryGate,
}

/// What a node is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs, or comes back.
    Lives,
    /// It does not come back.
    Lost,
    /// It was not started yet.
    Off,
}

struct State {
    disk: LossyDisk,
    up: Option<Up>,
    fate: Fate,
    /// Its data folder, once it has begun one.
    store: Option<StoreId>,
    /// What its earlier lives knew of the cluster.
    known: Arc<Cluster>,
    /// It is being removed from the cluster: it may end itself for that.
    leaves: bool,
    down: Duration,
    /// Operations after which the next recovery loses power.
    recovery_power: Option<u64>,
    /// A sync was made to fail: the end of the process is expected.
    sync_fails: bool,
    /// Vital actors were made to panic: the end of the process may follow.
    panics: bool,
    /// A bit on its disk was turned: it may not be whole in the end.
    damaged: bool,
}

/// One node, whether it runs or not.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its wall clock.
    pub clock: Arc<SimClock>,
    /// How long its disk takes.
    pub pace: Arc<Pace>,
    /// Its settings.
    pub config: Config,
    knobs: Knobs,
    wal: WalOptions,
    workers: usize,
    random: Arc<SimRandom>,
    network: Network,
    observed: Arc<Observed>,
    state: Mutex<State>,
    /// Whether nothing goes wrong any more.
    calm: watch::Sender<bool>,
}

/// What a node is made of.
pub struct NodeParts {
    /// Its settings.
    pub config: Config,
    /// Its knobs.
    pub knobs: Knobs,
    /// The bounds of its log.
    pub wal: WalOptions,
    /// Workers of its pool.
    pub workers: usize,
    /// Its wall clock.
    pub clock: Arc<SimClock>,
    /// How long its disk takes.
    pub pace: Arc<Pace>,
    /// Its random bits.
    pub random: Arc<SimRandom>,
    /// Its disk.
    pub disk: LossyDisk,
    /// Whether it is started with the run.
    pub starts: bool,
}

impl Node {
    /// A node that does not run yet.
    pub fn new(parts: NodeParts, network: Network, observed: Arc<Observed>) -> Self {
        let NodeParts { config, knobs, wal, workers, clock, pace, random, disk, starts } = parts;
        let state = State {
            disk,
            up: None,
            fate: if starts { Fate::Lives } else { Fate::Off },
            store: None,
            known: Arc::default(),
            leaves: false,
            down: RESTART,
            recovery_power: None,
            sync_fails: false,
            panics: false,
            damaged: false,
        };
        Self {
            id: config.node.id,
            clock,
            pace,
            config,
            knobs,
            wal,
            workers,
            random,
            network,
            observed,
            state: Mutex::new(state),
            calm: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node, where it runs.
    pub fn up(&self) -> Option<Up> {
        self.state().up.clone().filter(|up| up.life.is_alive())
    }

    /// What is meant to become of it.
    pub fn fate(&self) -> Fate {
        self.state().fate
    }

    /// Its data folder; none before it has begun one.
    pub fn store(&self) -> Option<StoreId> {
        self.state().store
    }

    /// The latest that it knew of the cluster, in any of its lives.
    pub fn known(&self) -> Arc<Cluster> {
        let state = self.state();
        let now = state.up.as_ref().map(|up| Arc::clone(&up.site.board.cluster().borrow()));
        now.into_iter().chain([Arc::clone(&state.known)]).max_by_key(|known| known.applied()).expect("one at least")
    }

    /// Switches a spare node on; whether it was off.
    pub fn switch_on(self: &Arc<Self>) -> bool {
        let off = self.fate() == Fate::Off;
        if off {
            self.state().fate = Fate::Lives;
            tokio::spawn(Arc::clone(self).run());
        }
        off
    }

    /// Somebody asks the cluster to remove it: it may end itself.
    pub fn expect_removal(&self) {
        self.state().leaves = true;
    }

    /// Its disk.
    pub fn disk(&self) -> LossyDisk {
        self.state().disk.clone()
    }

    /// Ends its life, to come back after a while.
    pub fn end(&self, ending: Ending, down: Duration) {
        let up = {
            let mut state = self.state();
            state.down = down;
            state.up.clone()
        };
        if let Some(up) = up {
            up.life.end(ending);
        }
    }

    /// The power goes so many disk operations from now.
    pub fn power_off_after(&self, operations: u64, down: Duration) {
        let mut state = self.state();
        state.down = down;
        state.disk.power_off_after(operations);
    }

    /// The next recovery loses power after so many disk operations.
    pub fn crash_in_recovery(&self, operations: u64, down: Duration) {
        self.state().recovery_power = Some(operations);
        self.end(Ending::PowerLost, down);
    }

    /// The first sync after so many disk operations fails.
    pub fn fail_sync_after(&self, operations: u64, down: Duration) {
        let mut state = self.state();
        (state.down, state.sync_fails) = (down, true);
        state.disk.fail_sync_after(operations);
    }

    /// An actor is made to panic whose end may be the node's.
    pub fn expect_end(&self) {
        self.state().panics = true;
    }

    /// A bit on its disk is turned.
    pub fn expect_damage(&self) {
        self.state().damaged = true;
        self.observed.damaged(self.id);
    }

    /// Whether a bit on its disk was turned.
    pub fn is_damaged(&self) -> bool {
        self.state().damaged
    }

    /// The run is over.
    pub fn leave(&self) {
        self.state().fate = Fate::Lost;
        self.end(Ending::Killed, RESTART);
    }

    /// It does not come back.
    pub fn lose(&self) {
        self.state().fate = Fate::Lost;
        self.observed.saw("node lost for good");
        self.end(Ending::PowerLost, RESTART);
    }

    /// It comes back on an empty disk.
    pub fn wipe(&self) {
        let seed = self.random.draw();
        {
            let mut state = self.state();
            state.store = None;
            state.damaged = false;
            state.disk = LossyDisk::new(seed);
        }
        self.observed.saw("node wiped");
        self.observed.outside(self.id);
        self.end(Ending::PowerLost, RESTART);
    }

    /// From now on nothing goes wrong: it comes back at once.
    pub fn calm(&self) {
        self.calm.send_replace(true);
        let mut state = self.state();
        state.recovery_power = None;
        state.disk.heal();
    }

    /// Lives one life after the other, until it is not to come back.
    pub async fn run(self: Arc<Self>) {
        loop {
            if self.fate() == Fate::Lost {
                return;
            }
            match self.start().await {
                Ok((up, mut running)) => {
                    self.observed.trace.line(format_args!("n{} is up", self.id));
                    self.network.attach(&up.life, &up.site.links);
                    self.state().up = Some(up.clone());
                    tokio::select! {
                        biased;
                        () = up.life.ended() => {}
                        outcome = running.outcome() => up.life.end(Ending::RootEnded(format!("{outcome:?}"))),
                    }
                    running.kill();
                    self.ended(&up.life.ending());
                }
                Err(why) => self.not_started(why),
            }
            self.network.detach(self.id);
            let down = self.state().down;
            let mut calm = self.calm.subscribe();
            let calm = async { calm.wait_for(|calm| *calm).await.is_ok() };
            tokio::select! {
                biased;
                _ = calm => sleep(RESTART).await,
                () = sleep(down) => {}
            }
        }
    }

    /// What the end of a life leaves behind, and whether it was to be expected.
    fn ended(&self, ending: &Ending) {
        self.observed.trace.line(format_args!("n{} is down: {ending:?}", self.id));
        self.observed.ended(self.id);
        let known = self.known();
        let mut state = self.state();
        state.known = known;
        state.up = None;
        let sync_failed = std::mem::take(&mut state.sync_fails);
        match ending {
            Ending::Killed => state.disk.kill(),
            Ending::PowerLost => {
                if state.disk.is_powered_off() {
                    self.observed.saw("crash while writing");
                }
                state.disk.crash();
            }
            Ending::Halted(end, why) => {
                state.disk.kill();
                let expected = match end {
                    End::Log => sync_failed || state.panics,
                    End::Supervision => state.panics,
                    End::Store => state.leaves,
                };
                if *end == End::Log && expected && !state.panics {
                    self.observed.saw("sync failed");
                }
                if *end == End::Store && expected {
                    state.fate = Fate::Lost;
                    self.observed.saw("removed node ended itself");
                }
                if !expected {
                    drop(state);
                    self.observed.violation(format_args!("node {} ended itself, {end:?}: {why}", self.id));
                }
            }
            Ending::RootEnded(why) => {
                state.disk.kill();
                // The registry is written by actors, whose supervisors give up where its disk has failed.
                if !state.panics && !sync_failed {
                    drop(state);
                    self.observed.violation(format_args!("the tree of node {} ended: {why}", self.id));
                }
            }
        }
    }

    fn not_started(&self, why: BootError) {
        self.observed.trace.line(format_args!("n{} does not start: {why}", self.id));
        let disk = self.disk();
        if disk.is_powered_off() {
            self.observed.saw("crash in recovery");
            disk.crash();
        } else {
            disk.kill();
            if why.class() != Class::Retry && !std::mem::take(&mut self.state().sync_fails) {
                self.observed.violation(format_args!("node {} does not start: {why}", self.id));
            }
        }
    }

    async fn start(&self) -> Result<(Up, Running), BootError> {
        let disk = self.disk();
        if let Some(operations) = self.state().recovery_power.take() {
            disk.power_off_after(operations);
        }
        let draws = [self.random.draw(), self.random.draw(), self.random.draw()];
        let (shared, now) = (Arc::new(disk.clone()), self.clock.now());
        let store = Store::open(&(shared.clone() as _), self.id, self.wal, now, draws)?;
        self.state().store = Some(store.identity.identity.store);
        self.observed.starts(self.id, store.identity.identity.store, disk.clone());
        if let Some((file, offset)) = &store.report.cut {
            self.observed.saw("torn tail cut");
            self.observed.trace.line(format_args!("n{} cut its log in {file} at {offset}", self.id));
        }
        let boot = store.identity.boot;
        let life = Arc::new(Life::new(self.id));
        let handles = Handles::new(&self.config, boot, Arc::clone(&self.clock) as Arc<dyn Clock>);
        let halt = Arc::new(SimHalt { life: life.clone(), disk: disk.clone(), observed: Arc::clone(&self.observed) });
        let env = Env {
            node: self.id,
            boot,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::clone(&self.random) as Arc<dyn Random>,
            disk: shared,
            peers: self.network.port(&life),
            blocking: Arc::new(SimThreads {
                life: Arc::clone(&life),
                pace: Arc::clone(&self.pace),
                disk,
                workers: self.workers,
                halt: Arc::clone(&halt),
            }),
            halt,
            knobs: self.knobs,
        };
        let running = start(self.config.clone(), env, handles, store, None, None).await;
        let running = running.map_err(|error| BootError::Actors(error.to_string()))?;
        let up = Up {
            life,
            site: running.site().clone(),
            routes: running.routes().clone(),
            queries: running.queries().clone(),
        };
        self.watch_recovery(up.clone());
        Ok((up, running))
    }

    /// Says that a node is recovering until it serves its shards.
    fn watch_recovery(&self, up: Up) {
        let observed = Arc::clone(&self.observed);
        observed.recovering(true);
        tokio::spawn(async move {
            // A node outside is never ready.
            let outside = Instant::now() + RECOVERY;
            while up.life.is_alive() && up.site.board.ready().is_err() && Instant::now() < outside {
                sleep(RESTART / 10).await;
            }
            observed.recovering(false);
        });
    }
}
