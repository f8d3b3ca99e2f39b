//! What one actor implements, and the shell that runs it on ractor.

use std::sync::Arc;

use ractor::{ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::Children;
use super::seat::{Envelope, Own, Seat};

/// Why an actor ends itself: kept as the reason of its exit.
pub type ActorError = ActorProcessingErr;

/// An actor: it takes its messages one after the other and owns its state alone.
pub trait Actor: Sized + Send + Sync + 'static {
    /// What it can be told.
    type Message: Send + 'static;
    /// What a life starts from.
    type Arguments: Send + 'static;
    /// What a life keeps in memory.
    type State: Send + 'static;

    /// Begins a life. Messages cast to its address meanwhile wait.
    ///
    /// # Errors
    /// Why it cannot start; the supervisor counts it as an exit. A panic counts likewise.
    fn pre_start(
        &self,
        myself: &Own<Self::Message>,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::State, ActorError>> + Send;

    /// Handles one message. It must not wait for another actor.
    ///
    /// # Errors
    /// Why this life ends here; the supervisor counts it as an exit. A panic counts likewise.
    fn handle(
        &self,
        myself: &Own<Self::Message>,
        message: Self::Message,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorError>> + Send;

    /// Ends a life that was asked to stop; not called after a panic or an error. Children are stopped after it.
    ///
    /// # Errors
    /// What went wrong; it is logged as the reason of the exit.
    fn post_stop(
        &self,
        _myself: &Own<Self::Message>,
        _state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorError>> + Send {
        async { Ok(()) }
    }

    /// The children of a supervisor. The shell hands them their events; an actor without children has none.
    fn children<'s>(&self, _state: &'s mut Self::State) -> Option<&'s mut Children> {
        None
    }
}

pub(super) struct Shell<A: Actor> {
    actor: A,
    seat: Arc<Seat<A::Message>>,
}

impl<A: Actor> Shell<A> {
    pub(super) async fn spawn(
        actor: A,
        seat: Arc<Seat<A::Message>>,
        arguments: A::Arguments,
        supervisor: ActorCell,
    ) -> Result<ActorCell, SpawnErr> {
        let shell = Self { actor, seat };
        let (actor, _ends) = ractor::Actor::spawn_linked(None, shell, arguments, supervisor).await?;
        Ok(actor.get_cell())
    }
}

/// Vacates the seat when a life ends, however it ends.
struct Life<M: Send + 'static>(Own<M>);

impl<M: Send + 'static> Drop for Life<M> {
    fn drop(&mut self) {
        self.0.seat().vacate(self.0.incarnation());
    }
}

pub(super) struct ShellState<A: Actor> {
    life: Life<A::Message>,
    state: A::State,
}

impl<A: Actor> ractor::Actor for Shell<A> {
    type Msg = Envelope<A::Message>;
    type State = ShellState<A>;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let life = Life(self.seat.occupy(myself));
        let state = self.actor.pre_start(&life.0, arguments).await?;
        Ok(ShellState { life, state })
    }

    async fn post_start(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        self.seat.record().running(state.life.0.incarnation());
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.life.0.handled();
        match envelope {
            Envelope::Message(message) => self.actor.handle(&state.life.0, message, &mut state.state).await,
            Envelope::Child(notice) => match self.actor.children(&mut state.state) {
                Some(children) => children.on_notice(notice),
                None => Ok(()),
            },
            Envelope::Crash => panic!("crashed on purpose"),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match self.actor.children(&mut state.state) {
            Some(children) => children.on_event(event),
            None => Ok(()),
        }
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        self.actor.post_stop(&state.life.0, &mut state.state).await?;
        if let Some(children) = self.actor.children(&mut state.state) {
            children.stop_all().await;
        }
        Ok(())
    }
}
