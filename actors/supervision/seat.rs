//! The place of an actor: where messages for it go, whichever life of it is there.
//!
//! The lock around the occupant is held for one send to an unbounded mailbox, and for writing only when a life begins
//! or ends; it is bookkeeping of the runtime, no state is shared between actors through it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use millpond::id::Incarnation;
use ractor::{ActorCell, ActorRef};
use tokio::task::JoinHandle;

use super::children::Notice;
use crate::tree::{ActorRecord, Counters};

/// What travels through a mailbox: the actor's own messages, and those of the shell around it.
pub(super) enum Envelope<M> {
    /// For the actor.
    Message(M),
    /// For the children it supervises.
    Child(Notice),
    /// Panic, on purpose.
    Crash,
}

impl<M: Send + 'static> ractor::Message for Envelope<M> {}

/// A message that found no actor at its place; the sender has it back.
pub struct Undelivered<M> {
    /// The actor that is not running.
    pub actor: Arc<str>,
    /// The message.
    pub message: M,
}

impl<M> fmt::Debug for Undelivered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered").field("actor", &self.actor).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Undelivered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not running", self.actor)
    }
}

impl<M> std::error::Error for Undelivered<M> {}

/// One life's mailbox.
pub(super) struct Mailbox<M> {
    actor: ActorRef<Envelope<M>>,
    counters: Arc<Counters>,
    incarnation: Incarnation,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), counters: Arc::clone(&self.counters), incarnation: self.incarnation }
    }
}

impl<M: Send + 'static> Mailbox<M> {
    fn send(&self, envelope: Envelope<M>) -> Result<(), Option<Envelope<M>>> {
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        self.actor.send_message(envelope).map_err(|refused| {
            self.counters.sent.fetch_sub(1, Ordering::Relaxed);
            match refused {
                ractor::MessagingErr::SendErr(envelope) => Some(envelope),
                ractor::MessagingErr::ChannelClosed | ractor::MessagingErr::InvalidActorType => None,
            }
        })
    }

    fn cast(&self, actor: &Arc<str>, message: M) -> Result<(), Undelivered<M>> {
        match self.send(Envelope::Message(message)) {
            Ok(()) => Ok(()),
            Err(Some(Envelope::Message(message))) => Err(Undelivered { actor: Arc::clone(actor), message }),
            Err(Some(Envelope::Child(_) | Envelope::Crash) | None) => {
                unreachable!("a local mailbox of the same message type hands back what it refuses")
            }
        }
    }
}

/// The place itself, shared by its addresses and whoever lives there.
pub(crate) struct Seat<M> {
    record: Arc<ActorRecord>,
    occupant: RwLock<Option<Mailbox<M>>>,
}

impl<M: Send + 'static> Seat<M> {
    pub(crate) fn new(record: Arc<ActorRecord>) -> Self {
        Self { record, occupant: RwLock::new(None) }
    }

    pub(super) fn record(&self) -> &Arc<ActorRecord> {
        &self.record
    }

    fn mailbox(&self) -> Option<Mailbox<M>> {
        self.occupant.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Casts the panic; whether anybody was there to receive it.
    fn crash(&self) -> bool {
        self.mailbox().is_some_and(|mailbox| mailbox.send(Envelope::Crash).is_ok())
    }

    pub(super) fn occupy(self: &Arc<Self>, actor: ActorRef<Envelope<M>>) -> Own<M> {
        let (incarnation, counters) = self.record.begin();
        let mailbox = Mailbox { actor, counters, incarnation };
        *self.occupant.write().unwrap_or_else(PoisonError::into_inner) = Some(mailbox.clone());
        Own { seat: Arc::clone(self), mailbox }
    }

    pub(super) fn vacate(&self, incarnation: Incarnation) {
        let mut occupant = self.occupant.write().unwrap_or_else(PoisonError::into_inner);
        if occupant.as_ref().is_some_and(|mailbox| mailbox.incarnation == incarnation) {
            *occupant = None;
        }
        drop(occupant);
        self.record.ended(incarnation);
    }
}

/// Where messages for an actor go. Made before the actor, by [`crate::tree::TreeHandle::seat`]; outlives its restarts.
pub struct Address<M> {
    seat: Arc<Seat<M>>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { seat: Arc::clone(&self.seat) }
    }
}

impl<M: Send + 'static> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.name())
    }
}

impl<M: Send + 'static> Address<M> {
    pub(crate) fn new(seat: Arc<Seat<M>>) -> Self {
        Self { seat }
    }

    /// The place with its type forgotten, and what makes the actor there panic.
    pub(crate) fn erased(&self) -> (Arc<dyn Any + Send + Sync>, impl Fn() -> bool + Send + Sync + 'static) {
        let seat = Arc::clone(&self.seat);
        (Arc::clone(&self.seat) as Arc<dyn Any + Send + Sync>, move || seat.crash())
    }

    pub(super) fn seat(&self) -> &Arc<Seat<M>> {
        &self.seat
    }

    /// The actor's name in the tree.
    pub fn name(&self) -> &Arc<str> {
        self.seat.record.name()
    }

    /// The actor's record in the tree.
    pub fn record(&self) -> &Arc<ActorRecord> {
        &self.seat.record
    }

    /// Puts a message into the actor's mailbox.
    ///
    /// # Errors
    /// The message itself, where no life of the actor is there to take it. A message taken may still be lost: with a
    /// life that ends before it is handled.
    pub fn cast(&self, message: M) -> Result<(), Undelivered<M>> {
        let occupant = self.seat.occupant.read().unwrap_or_else(PoisonError::into_inner);
        match &*occupant {
            Some(mailbox) => mailbox.cast(self.name(), message),
            None => Err(Undelivered { actor: Arc::clone(self.name()), message }),
        }
    }

    /// Messages that wait in the mailbox.
    pub fn depth(&self) -> u64 {
        self.seat.record.depth()
    }
}

/// One life of an actor, as it knows itself. What is sent through it reaches this life or nobody.
pub struct Own<M> {
    seat: Arc<Seat<M>>,
    mailbox: Mailbox<M>,
}

impl<M> Clone for Own<M> {
    fn clone(&self) -> Self {
        Self { seat: Arc::clone(&self.seat), mailbox: self.mailbox.clone() }
    }
}

impl<M: Send + 'static> fmt::Debug for Own<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Own({}, life {})", self.name(), self.incarnation())
    }
}

impl<M: Send + 'static> Own<M> {
    /// The actor's name in the tree.
    pub fn name(&self) -> &Arc<str> {
        self.seat.record.name()
    }

    /// Which life this is; the first is 1.
    pub fn incarnation(&self) -> Incarnation {
        self.mailbox.incarnation
    }

    /// The stable place, for others to keep.
    pub fn address(&self) -> Address<M> {
        Address::new(Arc::clone(&self.seat))
    }

    /// Whether this life is the one at its place; work of an ended life must leave no trace.
    pub fn is_current(&self) -> bool {
        self.seat.mailbox().is_some_and(|mailbox| mailbox.incarnation == self.mailbox.incarnation)
    }

    /// The ractor cell, to link what is not a child by [`super::ChildSpec`].
    pub fn cell(&self) -> ActorCell {
        self.mailbox.actor.get_cell()
    }

    /// Puts a message into the own mailbox.
    ///
    /// # Errors
    /// The message, where this life has ended.
    pub fn cast(&self, message: M) -> Result<(), Undelivered<M>> {
        self.mailbox.cast(self.name(), message)
    }

    /// Casts a message to this life after a while. Aborting the handle takes it back; dropping the handle does not.
    pub fn cast_after(&self, wait: Duration, message: M) -> JoinHandle<()> {
        let own = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // A life that ended needs no timer.
            let _ = own.cast(message);
        })
    }

    /// Casts a message to this life each `period`, first after one; missed ticks are skipped. Ends with this life.
    pub fn cast_every(&self, period: Duration, message: impl Fn() -> M + Send + 'static) -> JoinHandle<()> {
        let own = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                if own.cast(message()).is_err() {
                    return;
                }
            }
        })
    }

    /// Ends this life after the message at hand, in peace: the supervisor counts it as an exit unless it asked for it.
    pub fn stop(&self, reason: &str) {
        self.mailbox.actor.stop(Some(reason.to_owned()));
    }

    /// Ends this life after the message at hand, for the next to begin at once: nothing failed, and no budget is charged.
    pub fn renew(&self, reason: &str) {
        self.seat.record.renew(self.incarnation());
        self.stop(reason);
    }

    /// Shows a fact about the actor in the tree: its role, its term, how far it applied.
    pub fn detail(&self, name: &'static str, value: impl fmt::Display) {
        self.seat.record.detail(name, value);
    }

    pub(super) fn notifier(&self) -> impl Fn(Notice) + Send + Sync + 'static {
        let own = self.clone();
        // Refused only when the supervisor itself has ended, and its children with it.
        move |notice| drop(own.mailbox.send(Envelope::Child(notice)))
    }

    pub(super) fn handled(&self) {
        self.mailbox.counters.handled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn seat(&self) -> &Arc<Seat<M>> {
        &self.seat
    }
}
