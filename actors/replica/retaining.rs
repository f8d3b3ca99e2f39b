//! How a leader drops what retention ends: now and then it looks which of its registered segments must go, and proposes
//! a command that says below which offset. Every replica hides them when it is applied; the files go when a snapshot
//! no longer names them, which the next seal writes. Where no record comes that would be sealed, one is made for it.
//!
//! A command that is proposed twice changes nothing the second time, so none is remembered.

use millpond::consensus::{Event, Role};
use millpond::limits;

use super::ReplicaState;
use crate::supervision::ActorError;

impl ReplicaState {
    /// Proposes what is due.
    pub(super) fn retain(&mut self) -> Result<(), ActorError> {
        let leads = self.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        let Some(machine) = self.machine.as_ref().filter(|_| leads) else { return Ok(()) };
        if !self.ticks.is_multiple_of(limits::RETENTION_TICKS) {
            return Ok(());
        }
        if let Some(payload) = machine.drop_command(&self.arguments.retention, self.now()) {
            let ticket = self.ticket();
            return self.advance(Event::Propose { ticket, payload });
        }
        if machine.waits_for_a_seal_to_let_go() { self.propose_seal(false) } else { Ok(()) }
    }
}
