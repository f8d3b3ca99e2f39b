//! Linearizable reads: tickets wait for a round, a round asks a majority whether this replica still leads.
//! One round is under way at a time and serves every ticket that came before it. It does not know raft-rs.

use crate::id::{Boot, Incarnation, ReplicaId};
use crate::limits;

/// Names a round uniquely among all rounds of all lives of all replicas of a group.
pub(super) type Context = [u8; limits::MESSAGE_CONTEXT_BYTES_MAX];

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    ticks: u32,
}

#[derive(Debug)]
pub(super) struct Reads {
    life: (ReplicaId, Boot, Incarnation),
    rounds: u64,
    /// Tickets of the round under way.
    asked: Vec<Waiting>,
    under_way: bool,
    /// Tickets that wait for the next round.
    fresh: Vec<Waiting>,
}

impl Reads {
    pub(super) fn new(replica: ReplicaId, boot: Boot, incarnation: Incarnation) -> Self {
        Self { life: (replica, boot, incarnation), rounds: 0, asked: Vec::new(), under_way: false, fresh: Vec::new() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.asked.len() + self.fresh.len()
    }

    /// Whether the ticket was taken.
    #[must_use]
    pub(super) fn push(&mut self, ticket: u64) -> bool {
        let room = self.waiting() < limits::READS_WAITING_MAX;
        if room {
            self.fresh.push(Waiting { ticket, ticks: 0 });
        }
        room
    }

    /// Begins a round, if somebody waits for one and none is under way.
    pub(super) fn begin(&mut self) -> Option<Context> {
        if self.under_way || self.fresh.is_empty() {
            return None;
        }
        self.under_way = true;
        self.asked = std::mem::take(&mut self.fresh);
        self.rounds += 1;
        Some(self.context())
    }

    fn context(&self) -> Context {
        let (replica, boot, incarnation) = self.life;
        let mut context = Context::default();
        for (part, number) in context.chunks_exact_mut(8).zip([replica.0, boot.0, incarnation.0, self.rounds]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        context
    }

    /// The tickets of the round, if it is the one under way.
    pub(super) fn answered(&mut self, context: &[u8]) -> Vec<u64> {
        if !self.under_way || context != self.context() {
            return Vec::new();
        }
        self.under_way = false;
        self.asked.drain(..).map(|waiting| waiting.ticket).collect()
    }

    /// Lets a tick pass and returns the tickets that have waited too long. Their round stays under way.
    pub(super) fn tick(&mut self) -> Vec<u64> {
        let mut late = Vec::new();
        for waiting in self.asked.iter_mut().chain(&mut self.fresh) {
            waiting.ticks += 1;
            if waiting.ticks >= limits::READ_TICKS_MAX {
                late.push(waiting.ticket);
            }
        }
        self.asked.retain(|waiting| waiting.ticks < limits::READ_TICKS_MAX);
        self.fresh.retain(|waiting| waiting.ticks < limits::READ_TICKS_MAX);
        late
    }

    /// Ends everything: leadership was lost, and with it the round.
    pub(super) fn lose(&mut self) -> Vec<u64> {
        self.under_way = false;
        self.asked.drain(..).chain(self.fresh.drain(..)).map(|waiting| waiting.ticket).collect()
    }
}
