//! The top of the tree: a root actor whose end the process can wait for.

use std::sync::Arc;

use ractor::{ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use super::actor::{Actor, ActorError, Shell};
use super::seat::Address;
use crate::tree::{ActorRecord, ActorState};

/// How a root ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop.
    Stopped,
    /// It failed, with this reason.
    Failed(String),
}

/// A running root.
#[derive(Debug)]
pub struct Root {
    cell: ActorCell,
    outcome: oneshot::Receiver<Outcome>,
}

impl Root {
    /// Asks the root to stop; its children are stopped first, the last one started before the others.
    pub fn stop(&self, reason: &str) {
        self.cell.stop(Some(reason.to_owned()));
    }

    /// Ends the root and every actor below it where they stand; nothing is handed over and nobody is asked.
    pub fn kill(&self) {
        self.cell.kill();
    }

    /// Waits until the root has ended.
    pub async fn outcome(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or_else(|_| Outcome::Failed("the watch over the root was lost".to_owned()))
    }
}

/// Starts an actor that has no supervisor and waits until it runs, its children included.
///
/// # Errors
/// Why it did not start.
pub async fn spawn_root<A: Actor>(
    address: &Address<A::Message>,
    actor: A,
    arguments: A::Arguments,
) -> Result<Root, ActorError> {
    let record = Arc::clone(address.record());
    let (end, outcome) = oneshot::channel();
    let watch = Watch { record: Arc::clone(&record) };
    let (watch, _ends) = ractor::Actor::spawn(None, watch, end).await?;
    match Shell::spawn(actor, Arc::clone(address.seat()), arguments, watch.get_cell()).await {
        Ok(cell) => Ok(Root { cell, outcome }),
        Err(error) => {
            watch.stop(None);
            record.failed(&error.to_string(), ActorState::Stopped);
            match error {
                ractor::SpawnErr::StartupFailed(reason) => Err(reason),
                ractor::SpawnErr::ActorAlreadyStarted | ractor::SpawnErr::ActorAlreadyRegistered(_) => {
                    Err(error.into())
                }
            }
        }
    }
}

/// Receives the root's end. It supervises nothing else, sends nothing and is never restarted.
struct Watch {
    record: Arc<ActorRecord>,
}

struct NoMessage;

impl ractor::Message for NoMessage {}

impl ractor::Actor for Watch {
    type Msg = NoMessage;
    type State = Option<oneshot::Sender<Outcome>>;
    type Arguments = oneshot::Sender<Outcome>;

    async fn pre_start(
        &self,
        _: ActorRef<NoMessage>,
        end: oneshot::Sender<Outcome>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(end))
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<NoMessage>,
        event: SupervisionEvent,
        end: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let outcome = match &event {
            SupervisionEvent::ActorFailed(_, error) => Outcome::Failed(error.to_string()),
            SupervisionEvent::ActorTerminated(..) => Outcome::Stopped,
            SupervisionEvent::ActorStarted(_)
            | SupervisionEvent::ProcessGroupChanged(_)
            | SupervisionEvent::PidLifecycleEvent(_) => return Ok(()),
        };
        if let Outcome::Failed(reason) = &outcome {
            self.record.failed(reason, ActorState::Down);
        }
        if let Some(end) = end.take() {
            // Nobody waits any more: the process is ending anyway.
            let _ = end.send(outcome);
        }
        myself.stop(None);
        Ok(())
    }
}
