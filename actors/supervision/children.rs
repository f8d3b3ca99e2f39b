//! The children of a supervisor, restarted one for one.
//!
//! A supervisor keeps a [`Children`] in its state; the shell hands it the events. The first start of a child may be
//! awaited, since a supervisor that starts has nothing else to do; every later start runs beside the supervisor and
//! reports back, so that a child slow to start holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use millpond::id::Incarnation;
use ractor::{ActorCell, SpawnErr, SupervisionEvent};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::actor::{Actor, ActorError, Shell};
use super::budget::{Budget, Decision, GiveUp, Restart};
use super::seat::{Address, Own};
use crate::tree::{ActorRecord, ActorState};

/// How long a supervisor that stops waits for each of its children.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Ends kept for starts that are not known yet; a supervisor has few children that start at once.
const EARLY_ENDS_MAX: usize = 64;

type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// How a child is started, each time.
pub struct ChildSpec {
    record: Arc<ActorRecord>,
    restart: Restart,
    start: Arc<dyn Fn(ActorCell) -> Starting + Send + Sync>,
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("name", self.record.name()).field("restart", &self.restart).finish()
    }
}

impl ChildSpec {
    /// A child at `address`; `make` gives each life its actor and what it starts from.
    pub fn new<A: Actor>(
        address: &Address<A::Message>,
        restart: Restart,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let seat = Arc::clone(address.seat());
        let start = move |supervisor: ActorCell| -> Starting {
            let (actor, arguments) = make();
            Box::pin(Shell::spawn(actor, Arc::clone(&seat), arguments, supervisor))
        };
        Self { record: Arc::clone(address.record()), restart, start: Arc::new(start) }
    }

    /// A child that is a plain ractor actor, such as one that must be remotable. `start` spawns it linked to the
    /// supervisor it is given. The tree shows its state and restarts; its messages are not counted.
    pub fn plain<F>(
        record: Arc<ActorRecord>,
        restart: Restart,
        start: impl Fn(Incarnation, ActorCell) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
    {
        let seat = Arc::clone(&record);
        let start = move |supervisor: ActorCell| -> Starting {
            let (incarnation, _) = seat.begin();
            let starting = start(incarnation, supervisor);
            let seat = Arc::clone(&seat);
            Box::pin(async move {
                let cell = starting.await?;
                seat.running(incarnation);
                Ok(cell)
            })
        };
        Self { record, restart, start: Arc::new(start) }
    }
}

/// What became of a start that ran beside the supervisor.
pub(super) struct Notice {
    child: Arc<str>,
    attempt: u64,
    outcome: Result<ActorCell, SpawnErr>,
}

enum Phase {
    Starting(JoinHandle<()>),
    Running(ActorCell),
    /// Asked to stop; then forgotten, or replaced.
    Leaving(ActorCell, Option<ChildSpec>),
}

struct Child {
    spec: ChildSpec,
    budget: Budget,
    order: u64,
    attempt: u64,
    phase: Phase,
}

/// The children of one supervisor, each started again by its own budget; no child's exit touches another.
pub struct Children {
    supervisor: ActorCell,
    notify: Arc<dyn Fn(Notice) + Send + Sync>,
    children: BTreeMap<Arc<str>, Child>,
    attempts: u64,
    /// Ends that came before the notice of their start, oldest first.
    early_ends: VecDeque<(ActorCell, String)>,
}

impl fmt::Debug for Children {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children.keys()).finish()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.children.values() {
            if let Phase::Starting(start) = &child.phase {
                start.abort();
            }
        }
    }
}

impl Children {
    /// No children yet.
    pub fn new<M: Send + 'static>(myself: &Own<M>) -> Self {
        Self {
            supervisor: myself.cell(),
            notify: Arc::new(myself.notifier()),
            children: BTreeMap::new(),
            attempts: 0,
            early_ends: VecDeque::new(),
        }
    }

    /// Starts a child and waits until it runs; for a supervisor's own start.
    ///
    /// # Errors
    /// Why it did not start. It is then no child.
    pub async fn start(&mut self, spec: ChildSpec) -> Result<(), ActorError> {
        assert!(!self.children.contains_key(spec.record.name()), "{} is a child already", spec.record.name());
        spec.record.supervised(spec.restart);
        let name = Arc::clone(spec.record.name());
        match (spec.start)(self.supervisor.clone()).await {
            Ok(cell) => {
                self.insert(spec, Phase::Running(cell));
                Ok(())
            }
            Err(refused) => {
                let reason = start_reason(&refused);
                spec.record.failed(&reason, ActorState::Stopped);
                Err(format!("{name} did not start: {reason}").into())
            }
        }
    }

    /// Starts a child beside the supervisor. A start that fails is an exit within its budget. A child of that name
    /// that was removed and has not ended yet is waited for; one that runs is left as it is.
    pub fn add(&mut self, spec: ChildSpec) {
        if let Some(child) = self.children.get_mut(spec.record.name()) {
            match &mut child.phase {
                Phase::Leaving(_, next) => *next = Some(spec),
                Phase::Starting(_) | Phase::Running(_) => {}
            }
            return;
        }
        spec.record.supervised(spec.restart);
        let start = self.begin(&spec, Duration::ZERO);
        self.insert(spec, Phase::Starting(start));
    }

    /// Stops a child and forgets it once it has ended. Whether there was one.
    pub fn remove(&mut self, name: &str, reason: &str) -> bool {
        let Some(child) = self.children.get_mut(name) else { return false };
        match &mut child.phase {
            Phase::Starting(start) => {
                start.abort();
                child.spec.record.failed(reason, ActorState::Stopped);
                self.children.remove(name);
            }
            Phase::Running(cell) => {
                cell.stop(Some(reason.to_owned()));
                child.phase = Phase::Leaving(cell.clone(), None);
            }
            Phase::Leaving(_, next) => *next = None,
        }
        true
    }

    /// The names of the children, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.children.keys()
    }

    /// Stops the children, the one started last first, and waits for each a few seconds at most; what remains is
    /// killed with the supervisor.
    pub async fn stop_all(&mut self) {
        let mut children: Vec<Child> = std::mem::take(&mut self.children).into_values().collect();
        children.sort_by_key(|child| std::cmp::Reverse(child.order));
        for child in children {
            match child.phase {
                Phase::Starting(start) => start.abort(),
                Phase::Running(cell) | Phase::Leaving(cell, _) => {
                    let stopped = cell.stop_and_wait(Some("the supervisor stops".to_owned()), Some(STOP_WAIT)).await;
                    if let Err(error) = stopped {
                        tracing::warn!(actor = %child.spec.record.name(), %error, "did not stop in time");
                    }
                }
            }
        }
    }

    fn insert(&mut self, spec: ChildSpec, phase: Phase) {
        let budget = Budget::new(spec.restart);
        let name = Arc::clone(spec.record.name());
        let child = Child { spec, budget, order: self.attempts, attempt: self.attempts, phase };
        self.attempts += 1;
        self.children.insert(name, child);
    }

    /// The start runs in a task of its own, which the notice's attempt number tells from an earlier one.
    fn begin(&mut self, spec: &ChildSpec, wait: Duration) -> JoinHandle<()> {
        let (start, child) = (Arc::clone(&spec.start), Arc::clone(spec.record.name()));
        let (supervisor, notify, attempt) = (self.supervisor.clone(), Arc::clone(&self.notify), self.attempts);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let outcome = start(supervisor).await;
            notify(Notice { child, attempt, outcome });
        })
    }

    pub(super) fn on_notice(&mut self, notice: Notice) -> Result<(), ActorError> {
        let awaited = self.children.get_mut(&notice.child).filter(|child| child.attempt == notice.attempt);
        let Some(child) = awaited.filter(|child| matches!(child.phase, Phase::Starting(_))) else {
            // The child was removed while it started: this life belongs to nobody.
            if let Ok(cell) = notice.outcome {
                cell.stop(Some("no longer wanted".to_owned()));
            }
            return Ok(());
        };
        match notice.outcome {
            Ok(cell) => {
                child.phase = Phase::Running(cell.clone());
                match self.early_ends.iter().position(|(ended, _)| *ended == cell) {
                    Some(at) => {
                        let reason = self.early_ends.remove(at).map(|(_, reason)| reason);
                        self.exited(&notice.child, reason.unwrap_or_default())
                    }
                    None => Ok(()),
                }
            }
            Err(refused) => self.exited(&notice.child, start_reason(&refused)),
        }
    }

    pub(super) fn on_event(&mut self, event: SupervisionEvent) -> Result<(), ActorError> {
        let (cell, reason) = match &event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, reason.clone().unwrap_or_else(|| "stopped by itself".to_owned()))
            }
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => return Ok(()),
        };
        let ended = self.children.iter().find(|(_, child)| match &child.phase {
            Phase::Running(running) | Phase::Leaving(running, _) => running == cell,
            Phase::Starting(_) => false,
        });
        let Some((name, child)) = ended.map(|(name, child)| (Arc::clone(name), child)) else {
            if self.early_ends.len() == EARLY_ENDS_MAX {
                self.early_ends.pop_front();
            }
            self.early_ends.push_back((cell.clone(), reason));
            return Ok(());
        };
        if matches!(child.phase, Phase::Leaving(..)) {
            self.left(&name, &reason);
            return Ok(());
        }
        self.exited(&name, reason)
    }

    fn left(&mut self, name: &Arc<str>, reason: &str) {
        let Some(child) = self.children.remove(name) else { return };
        child.spec.record.failed(reason, ActorState::Stopped);
        match child.phase {
            Phase::Leaving(_, Some(next)) => self.add(next),
            Phase::Leaving(_, None) | Phase::Starting(_) | Phase::Running(_) => {}
        }
    }

    fn exited(&mut self, name: &Arc<str>, reason: String) -> Result<(), ActorError> {
        let Some(mut child) = self.children.remove(name) else { return Ok(()) };
        let record = Arc::clone(&child.spec.record);
        let decision = if record.is_renewed() {
            Decision::RestartAfter(Duration::ZERO)
        } else {
            child.budget.on_exit(Instant::now())
        };
        let wait = match decision {
            Decision::RestartAfter(Duration::ZERO) => {
                tracing::info!(actor = %name, %reason, "a new life begins");
                record.failed(&reason, ActorState::BackingOff);
                Duration::ZERO
            }
            Decision::RestartAfter(wait) => {
                tracing::warn!(actor = %name, error = %reason, wait = ?wait, "actor failed, it is started again");
                record.failed(&reason, ActorState::BackingOff);
                wait
            }
            Decision::GiveUp => {
                record.failed(&reason, ActorState::Down);
                match child.spec.restart.after_budget {
                    GiveUp::StopParent => {
                        tracing::error!(actor = %name, error = %reason, "actor failed for good, its parent stops");
                        return Err(format!("{name} failed for good: {reason}").into());
                    }
                    GiveUp::DownThenRetry(wait) => {
                        tracing::error!(actor = %name, error = %reason, wait = ?wait, "actor is down");
                        wait
                    }
                }
            }
        };
        child.attempt = self.attempts;
        child.phase = Phase::Starting(self.begin(&child.spec, wait));
        self.attempts += 1;
        self.children.insert(Arc::clone(name), child);
        Ok(())
    }
}

fn start_reason(refused: &SpawnErr) -> String {
    match refused {
        SpawnErr::StartupFailed(reason) => reason.to_string(),
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => refused.to_string(),
    }
}

/// What a plain supervisor can be told.
pub enum SupervisorMessage {
    /// Start a child; see [`Children::add`].
    Add(ChildSpec),
    /// Stop a child and forget it; see [`Children::remove`].
    Remove {
        /// Its name in the tree.
        name: Arc<str>,
        /// Why, for the tree and the log.
        reason: String,
    },
}

/// A supervisor with no work of its own.
#[derive(Debug)]
pub struct SupervisorActor;

impl Actor for SupervisorActor {
    type Message = SupervisorMessage;
    type Arguments = Vec<ChildSpec>;
    type State = Children;

    async fn pre_start(&self, myself: &Own<SupervisorMessage>, specs: Vec<ChildSpec>) -> Result<Children, ActorError> {
        let mut children = Children::new(myself);
        for spec in specs {
            children.start(spec).await?;
        }
        Ok(children)
    }

    async fn handle(
        &self,
        _: &Own<SupervisorMessage>,
        message: SupervisorMessage,
        children: &mut Children,
    ) -> Result<(), ActorError> {
        match message {
            SupervisorMessage::Add(spec) => children.add(spec),
            SupervisorMessage::Remove { name, reason } => drop(children.remove(&name, &reason)),
        }
        Ok(())
    }

    fn children<'s>(&self, state: &'s mut Children) -> Option<&'s mut Children> {
        Some(state)
    }
}
