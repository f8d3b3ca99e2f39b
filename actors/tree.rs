//! The tree of actors of one node, as operators see it: who runs, since when, what was started again and why.
//!
//! A registry of records, written by the shell around each actor (`supervision`) and read by whoever answers an
//! operator. Locks here guard bookkeeping only: they are taken when a life begins or ends, when a detail changes and
//! when the tree is drawn, never to hand a message over, and no actor decides by what it reads here.

mod draw;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millpond::id::{Boot, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

pub use draw::draw;

use crate::env::Clock;
use crate::moment;
use crate::supervision::{Address, Restart, Seat};

/// Names offered when an unknown actor is asked for.
const NEAR_NAMES_MAX: usize = 5;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done where a guard is held, so a panic elsewhere does not spoil what it guards.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorState {
    /// A life has begun and does not take messages yet.
    Starting,
    /// It takes messages.
    Running,
    /// It failed and waits for its restart.
    BackingOff,
    /// Its restart budget is spent; it is tried again later, or its parent stops.
    Down,
    /// It is not running, and nobody means it to.
    Stopped,
}

impl fmt::Display for ActorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing-off",
            Self::Down => "down",
            Self::Stopped => "stopped",
        })
    }
}

/// Messages of one life.
#[derive(Debug, Default)]
pub struct Counters {
    /// Put into the mailbox.
    pub(crate) sent: AtomicU64,
    /// Taken out of it.
    pub(crate) handled: AtomicU64,
}

impl Counters {
    fn depth(&self) -> u64 {
        // Read in this order, a message that passes meanwhile makes the depth too high by one, never negative.
        let handled = self.handled.load(Ordering::Relaxed);
        self.sent.load(Ordering::Relaxed).saturating_sub(handled)
    }
}

type CrashSwitch = Box<dyn Fn() -> bool + Send + Sync>;

/// What the tree keeps of one actor, across its lives.
pub struct ActorRecord {
    name: Arc<str>,
    parent: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
    life: Mutex<Life>,
}

struct Life {
    state: ActorState,
    since: i64,
    incarnation: Incarnation,
    last_exit: Option<(String, i64)>,
    restart: Option<Restart>,
    counters: Arc<Counters>,
    handled_before: u64,
    details: BTreeMap<&'static str, String>,
    /// The life that ends for the next to begin.
    renewed: Option<Incarnation>,
}

impl fmt::Debug for ActorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRecord({})", self.name)
    }
}

impl ActorRecord {
    fn new(name: Arc<str>, parent: Option<Arc<str>>, clock: Arc<dyn Clock>) -> Self {
        let life = Life {
            state: ActorState::Stopped,
            since: clock.now(),
            incarnation: Incarnation(0),
            last_exit: None,
            restart: None,
            counters: Arc::default(),
            handled_before: 0,
            details: BTreeMap::new(),
            renewed: None,
        };
        Self { name, parent, clock, life: Mutex::new(life) }
    }

    /// The actor's name, unique in its node: `log-writer`, `shard-3/replica`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is doing.
    pub fn state(&self) -> ActorState {
        held(&self.life).state
    }

    /// Messages it has handled, over all its lives.
    pub fn handled(&self) -> u64 {
        let life = held(&self.life);
        life.handled_before + life.counters.handled.load(Ordering::Relaxed)
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u64 {
        held(&self.life).incarnation.0.saturating_sub(1)
    }

    /// Messages that wait for it.
    pub fn depth(&self) -> u64 {
        held(&self.life).counters.depth()
    }

    /// Shows a fact about the actor, until its life ends.
    pub fn detail(&self, name: &'static str, value: impl fmt::Display) {
        let value = value.to_string();
        held(&self.life).details.insert(name, value);
    }

    pub(crate) fn supervised(&self, restart: Restart) {
        held(&self.life).restart = Some(restart);
    }

    pub(crate) fn begin(&self) -> (Incarnation, Arc<Counters>) {
        let now = self.clock.now();
        let mut life = held(&self.life);
        life.incarnation.0 += 1;
        life.handled_before += life.counters.handled.load(Ordering::Relaxed);
        life.counters = Arc::default();
        life.details.clear();
        life.enter(ActorState::Starting, now);
        (life.incarnation, Arc::clone(&life.counters))
    }

    pub(crate) fn renew(&self, incarnation: Incarnation) {
        held(&self.life).renewed = Some(incarnation);
    }

    /// Whether the latest life ended, or is about to, for the next to begin.
    pub(crate) fn is_renewed(&self) -> bool {
        let life = held(&self.life);
        life.renewed == Some(life.incarnation)
    }

    pub(crate) fn running(&self, incarnation: Incarnation) {
        let now = self.clock.now();
        let mut life = held(&self.life);
        if life.incarnation == incarnation {
            life.enter(ActorState::Running, now);
        }
    }

    /// The end of a life as seen from inside; what the supervisor makes of it stands, whichever comes first.
    pub(crate) fn ended(&self, incarnation: Incarnation) {
        let now = self.clock.now();
        let mut life = held(&self.life);
        if life.incarnation == incarnation && matches!(life.state, ActorState::Starting | ActorState::Running) {
            life.enter(ActorState::Stopped, now);
        }
    }

    /// The end of a life as its supervisor sees it.
    pub(crate) fn failed(&self, reason: &str, state: ActorState) {
        let now = self.clock.now();
        let mut life = held(&self.life);
        life.last_exit = Some((reason.to_owned(), now));
        life.enter(state, now);
    }

    fn report(&self, now: i64) -> ActorReport {
        let life = held(&self.life);
        ActorReport {
            name: self.name.to_string(),
            kind: kind(&self.name).to_owned(),
            parent: self.parent.as_deref().map(str::to_owned),
            state: life.state,
            since: moment::format(life.since),
            seconds: seconds_between(life.since, now),
            restarts: life.incarnation.0.saturating_sub(1),
            last_reason: life.last_exit.as_ref().map(|(reason, _)| reason.clone()),
            last_exit: life.last_exit.as_ref().map(|(_, at)| moment::format(*at)),
            mailbox: if life.state == ActorState::Stopped { 0 } else { life.counters.depth() },
            handled: life.handled_before + life.counters.handled.load(Ordering::Relaxed),
            restart: life.restart.map(|restart| restart.to_string()),
            details: life.details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            children: Vec::new(),
        }
    }
}

impl Life {
    fn enter(&mut self, state: ActorState, now: i64) {
        self.state = state;
        self.since = now;
    }
}

/// What an actor is, from its name: the last part, without its number.
fn kind(name: &str) -> &str {
    let leaf = name.rsplit('/').next().unwrap_or(name);
    leaf.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-')
}

/// The node a tree belongs to.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// This life of its process.
    pub boot: Boot,
}

/// The registry of a node's actors. Cheap to clone; every clone is the same tree.
#[derive(Clone)]
pub struct TreeHandle(Arc<Tree>);

struct Tree {
    identity: Identity,
    clock: Arc<dyn Clock>,
    crash_allowed: bool,
    started: i64,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    by_name: BTreeMap<Arc<str>, Place>,
    registered: u64,
}

struct Place {
    record: Arc<ActorRecord>,
    seat: Option<Arc<dyn Any + Send + Sync>>,
    crash: Option<CrashSwitch>,
    order: u64,
}

impl fmt::Debug for TreeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHandle(node {})", self.0.identity.node)
    }
}

/// Why an actor was not made to panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrashRefused {
    /// The node was started without fault injection.
    #[error("fault injection is off: start the node with `--fault-injection` or set `fault_injection = true`")]
    NotAllowed,
    /// No actor of that name.
    #[error("no actor is called `{name}`{}", near_names(near))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// It is there and takes no message.
    #[error("{name} is {state}, only a running actor can be made to panic")]
    NotRunning {
        /// The actor.
        name: String,
        /// What it is doing.
        state: ActorState,
    },
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

impl TreeHandle {
    /// An empty tree. `crash_allowed` is whether actors may be made to panic on purpose.
    pub fn new(identity: Identity, clock: Arc<dyn Clock>, crash_allowed: bool) -> Self {
        let started = clock.now();
        Self(Arc::new(Tree { identity, clock, crash_allowed, started, places: Mutex::default() }))
    }

    /// The place of an actor, made when first asked for: later calls with the same name give the same place, so that
    /// a supervisor that starts again finds its children's. Names are unique in the node, `parent` names the
    /// supervisor and is `None` for the root.
    ///
    /// # Panics
    /// If the place exists for another type of message.
    pub fn seat<M: Send + 'static>(&self, name: &str, parent: Option<&str>) -> Address<M> {
        let mut places = held(&self.0.places);
        if let Some(place) = places.by_name.get(name) {
            let seat = place.seat.clone().and_then(|seat| seat.downcast().ok());
            return Address::new(seat.unwrap_or_else(|| panic!("{name} has another type of message")));
        }
        let record = Arc::new(self.record(name, parent));
        let address = Address::new(Arc::new(Seat::<M>::new(Arc::clone(&record))));
        let (seat, crash) = address.erased();
        places.insert(record, Some(seat), Some(Box::new(crash)));
        address
    }

    /// The record of an actor that has no [`Address`]: a plain ractor actor.
    pub fn plain(&self, name: &str, parent: Option<&str>) -> Arc<ActorRecord> {
        let mut places = held(&self.0.places);
        if let Some(place) = places.by_name.get(name) {
            return Arc::clone(&place.record);
        }
        let record = Arc::new(self.record(name, parent));
        places.insert(Arc::clone(&record), None, None);
        record
    }

    fn record(&self, name: &str, parent: Option<&str>) -> ActorRecord {
        ActorRecord::new(name.into(), parent.map(Into::into), Arc::clone(&self.0.clock))
    }

    /// Forgets an actor and everything below it, once it has ended for good.
    pub fn forget(&self, name: &str) {
        let mut places = held(&self.0.places);
        let mut gone = vec![Arc::<str>::from(name)];
        while let Some(name) = gone.pop() {
            places.by_name.remove(&name);
            let below = places.by_name.values().filter(|place| place.record.parent.as_ref() == Some(&name));
            gone.extend(below.map(|place| Arc::clone(&place.record.name)));
        }
    }

    /// Makes one actor panic on purpose.
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn crash(&self, name: &str) -> Result<(), CrashRefused> {
        if !self.0.crash_allowed {
            return Err(CrashRefused::NotAllowed);
        }
        let places = held(&self.0.places);
        let Some(place) = places.by_name.get(name) else {
            let near = near(name, places.by_name.keys().map(|name| &**name));
            return Err(CrashRefused::Unknown { name: name.to_owned(), near });
        };
        if place.crash.as_ref().is_some_and(|crash| crash()) {
            tracing::warn!(actor = name, "told to panic on purpose");
            return Ok(());
        }
        Err(CrashRefused::NotRunning { name: name.to_owned(), state: place.record.state() })
    }

    /// The node this is the tree of.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The records, in the order in which they were registered.
    pub fn records(&self) -> Vec<Arc<ActorRecord>> {
        let places = held(&self.0.places);
        let mut ordered: Vec<&Place> = places.by_name.values().collect();
        ordered.sort_by_key(|place| place.order);
        ordered.into_iter().map(|place| Arc::clone(&place.record)).collect()
    }

    /// The tree as it is now.
    pub fn report(&self) -> TreeReport {
        let now = self.0.clock.now();
        let mut below: BTreeMap<Option<String>, Vec<ActorReport>> = BTreeMap::new();
        for record in self.records() {
            let report = record.report(now);
            below.entry(report.parent.clone()).or_default().push(report);
        }
        let mut actors = below.remove(&None).unwrap_or_default();
        actors.iter_mut().for_each(|actor| adopt(actor, &mut below));
        // A record whose parent is not registered is shown at the top rather than hidden, once it has lived.
        actors.extend(below.into_values().flatten().filter(|actor| actor.restart.is_some()));
        TreeReport {
            node: self.0.identity.node,
            name: self.0.identity.name.clone(),
            boot: self.0.identity.boot,
            started: moment::format(self.0.started),
            seconds: seconds_between(self.0.started, now),
            actors,
        }
    }
}

impl Places {
    fn insert(
        &mut self,
        record: Arc<ActorRecord>,
        seat: Option<Arc<dyn Any + Send + Sync>>,
        crash: Option<CrashSwitch>,
    ) {
        let name = Arc::clone(&record.name);
        self.by_name.insert(name, Place { record, seat, crash, order: self.registered });
        self.registered += 1;
    }
}

fn adopt(actor: &mut ActorReport, below: &mut BTreeMap<Option<String>, Vec<ActorReport>>) {
    actor.children = below.remove(&Some(actor.name.clone())).unwrap_or_default();
    actor.children.iter_mut().for_each(|child| adopt(child, below));
}

/// The names nearest to one that was mistyped: those that contain it, else those that share its longest beginning.
fn near<'n>(name: &str, names: impl Iterator<Item = &'n str> + Clone) -> Vec<String> {
    let common = |other: &str| other.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let mut found: Vec<&str> = names.clone().filter(|other| !name.is_empty() && other.contains(name)).collect();
    if found.is_empty() {
        let longest = names.clone().map(common).max().unwrap_or(0);
        found = names.filter(|other| longest > 1 && common(other) == longest).collect();
    }
    found.into_iter().take(NEAR_NAMES_MAX).map(str::to_owned).collect()
}

/// A node's tree, as `GET /api/v1/tree` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeReport {
    /// The node's number.
    pub node: NodeId,
    /// The node's name.
    pub name: String,
    /// The life of its process.
    pub boot: Boot,
    /// When the process started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub seconds: f64,
    /// The roots, their children nested.
    pub actors: Vec<ActorReport>,
}

/// One actor of a [`TreeReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActorReport {
    /// Unique in the node.
    pub name: String,
    /// What it is: its name's last part without a number.
    pub kind: String,
    /// Its supervisor; none for the root.
    pub parent: Option<String>,
    /// What it is doing.
    pub state: ActorState,
    /// Since when, RFC 3339.
    pub since: String,
    /// Since how many seconds.
    pub seconds: f64,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it ended last.
    pub last_reason: Option<String>,
    /// When it ended last, RFC 3339.
    pub last_exit: Option<String>,
    /// Messages that wait.
    pub mailbox: u64,
    /// Messages handled, over all lives.
    pub handled: u64,
    /// Its restart budget, in words.
    pub restart: Option<String>,
    /// Facts it shows: role, term, leader, applied.
    pub details: BTreeMap<String, String>,
    /// Those it supervises.
    pub children: Vec<ActorReport>,
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people, a nanosecond more or less does not matter")]
fn seconds_between(from: i64, to: i64) -> f64 {
    (to.saturating_sub(from).max(0) / 1_000_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Still(i64);

    impl Clock for Still {
        fn now(&self) -> i64 {
            self.0
        }
    }

    fn tree(crash_allowed: bool) -> TreeHandle {
        let identity = Identity { node: NodeId(1), name: "node-1".to_owned(), boot: Boot(7) };
        TreeHandle::new(identity, Arc::new(Still(1_700_000_000_123_456_789)), crash_allowed)
    }

    #[test]
    fn children_are_nested_in_the_order_of_registration() {
        let tree = tree(false);
        let _: Address<()> = tree.seat("node", None);
        let _: Address<()> = tree.seat("shards", Some("node"));
        for shard in [10, 2] {
            let _: Address<()> = tree.seat(&format!("shard-{shard}"), Some("shards"));
        }
        tree.plain("gateway", Some("node"));
        let report = tree.report();
        assert_eq!(report.actors.len(), 1);
        let names: Vec<&str> = report.actors[0].children[0].children.iter().map(|actor| actor.name.as_str()).collect();
        assert_eq!(names, ["shard-10", "shard-2"]);
        assert_eq!(report.actors[0].children[0].children[0].kind, "shard");
        let back: TreeReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(back, report);
    }

    #[test]
    fn a_place_asked_for_again_is_the_same() {
        let tree = tree(false);
        let first: Address<u8> = tree.seat("ingest", None);
        let again: Address<u8> = tree.seat("ingest", None);
        assert!(Arc::ptr_eq(first.record(), again.record()));
    }

    #[test]
    fn forgetting_takes_everything_below_along() {
        let tree = tree(false);
        let _: Address<()> = tree.seat("shards", None);
        let _: Address<()> = tree.seat("shard-1", Some("shards"));
        let _: Address<()> = tree.seat("shard-1/replica", Some("shard-1"));
        tree.forget("shard-1");
        let names: Vec<String> = tree.records().iter().map(|record| record.name().to_string()).collect();
        assert_eq!(names, ["shards"]);
    }

    #[test]
    fn a_crash_is_refused_where_it_is_not_allowed_unknown_or_not_running() {
        assert_eq!(tree(false).crash("node"), Err(CrashRefused::NotAllowed));
        let tree = tree(true);
        let _: Address<()> = tree.seat("shard-1/replica", None);
        let _: Address<()> = tree.seat("shard-2/replica", None);
        let unknown = tree.crash("shard-1/replca").unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "no actor is called `shard-1/replca`; did you mean shard-1/replica?",
            "the longest common beginning wins"
        );
        assert!(matches!(tree.crash("replica"), Err(CrashRefused::Unknown { near, .. }) if near.len() == 2));
        assert!(matches!(tree.crash("shard-1/replica"), Err(CrashRefused::NotRunning { .. })));
    }
}
