//! Supervision: who starts an actor, who starts it again, and who gives up.
//!
//! The house rules of every actor live here, on top of ractor, which runs the mailboxes and catches the panics:
//! - [`Actor`] is what one actor file implements. A shell around it counts its messages, keeps its record in the tree
//!   and can be told to panic on purpose.
//! - [`Address`] is an actor's stable place: it outlives restarts, and a cast to an empty place returns the message.
//!   [`Own`] is one life of the actor at that place: timers and completions of an earlier life never reach a later one.
//! - [`Children`] restarts one for one, within [`Restart`], a budget that is data and printed by the tree.
//!
//! Why not ractor's own: its default supervisor stops itself when a child exits, mailboxes have no length, and a name
//! in its registry is unique in the process, where a simulation runs several nodes.
//!
//! This room does not know what any actor does.

mod actor;
mod budget;
mod children;
mod root;
mod seat;
#[cfg(test)]
mod tests;

pub use actor::{Actor, ActorError};
pub use budget::{Budget, Decision, GiveUp, Restart};
pub use children::{ChildSpec, Children, SupervisorActor, SupervisorMessage};
pub use root::{Outcome, Root, spawn_root};
pub(crate) use seat::Seat;
pub use seat::{Address, Own, Undelivered};
