//! What the nodes of a case live through besides faults: which of them come and go, what operators ask for, and what the
//! cluster does about it by itself.
//!
//! A third of the seeds has a cluster that stays as it is. The others have one or two spare nodes and a few chapters, each
//! of one sort: a node that is lost for good, one that comes back empty, one that is emptied, replicas and leaderships
//! that operators move, another number of copies. When a chapter's fault would take the last copy of something is not
//! known to the plan, since replicas move: it waits, or is left out, when it is due. Only what nothing could wait for is
//! left out here: one copy of each shard where bits turn.

use super::Dice;
use crate::case::{Fault, Knobs, Membership, Operation, Planned, Timed};

/// How long clients write where nodes come and go: a node must be given up, and its replicas copied.
const BUSY_MS: (u64, u64) = (18_000, 36_000);
/// From when on operators ask for anything.
const FROM_MS: u64 = 3_000;
/// What is done so late has no time to show.
const LAST_MS: u64 = 4_000;
/// How long a node may be gone, within what an operator may choose.
const REHOME_AFTER_MS: (u64, u64) = (2_000, 8_000);
const SPARES_MAX: u64 = 2;
const CHAPTERS_MAX: u64 = 3;
/// Replicas, or leaderships, that are moved in one chapter.
const MOVES_MAX: u64 = 5;

/// What a case has of it.
pub(super) struct Story {
    pub(super) membership: Membership,
    pub(super) operations: Vec<Planned>,
    /// Nodes that are lost or wiped.
    pub(super) losses: Vec<Timed>,
    /// How long clients write; `None` where that is drawn as ever.
    pub(super) busy_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chapter {
    Loss,
    Wipe,
    Drain,
    Moves,
    Leaders,
    Copies,
}

/// Each as often as it weighs.
const CHAPTERS: [Chapter; 16] = {
    use Chapter::{Copies, Drain, Leaders, Loss, Moves, Wipe};
    [Loss, Loss, Loss, Loss, Loss, Wipe, Wipe, Wipe, Wipe, Drain, Drain, Drain, Moves, Moves, Leaders, Copies]
};

/// The story of a seed. `flips`: bits turn in this case.
pub(super) fn draw(seed: u64, nodes: u64, knobs: &Knobs, flips: bool) -> Story {
    let dice = Dice::new(seed, "story");
    let mut teller =
        Teller { dice, nodes, spares: 0, knobs, flips, busy_ms: 0, operations: Vec::new(), losses: Vec::new() };
    let rehome_after_ms = teller.dice.between(REHOME_AFTER_MS.0, REHOME_AFTER_MS.1);
    let zones = if teller.dice.one_in(4) { teller.dice.between(2, 3) } else { 0 };
    let rebalance = teller.dice.one_in(2);
    if nodes < 3 || teller.dice.one_in(3) {
        let membership = Membership { spares: 0, rehome_after_ms, rebalance, zones };
        return Story { membership, operations: Vec::new(), losses: Vec::new(), busy_ms: None };
    }
    teller.busy_ms = teller.dice.between(BUSY_MS.0, BUSY_MS.1);
    teller.spares = teller.dice.between(1, SPARES_MAX);
    teller.spares();
    if flips {
        // What is damaged must not travel.
        teller.tell(Chapter::Moves);
    }
    for _ in 0..teller.dice.between(1, CHAPTERS_MAX) {
        let chapter = *teller.dice.pick(&CHAPTERS);
        teller.tell(chapter);
    }
    let Teller { spares, busy_ms, mut operations, losses, .. } = teller;
    operations.retain(|planned| planned.at_ms < busy_ms);
    operations.sort_by_key(|planned| planned.at_ms);
    let membership = Membership { spares, rehome_after_ms, rebalance, zones };
    Story { membership, operations, losses, busy_ms: Some(busy_ms) }
}

struct Teller<'a> {
    dice: Dice,
    nodes: u64,
    spares: u64,
    knobs: &'a Knobs,
    flips: bool,
    busy_ms: u64,
    operations: Vec<Planned>,
    losses: Vec<Timed>,
}

impl Teller<'_> {
    fn at(&mut self) -> u64 {
        self.dice.between(FROM_MS, self.busy_ms - LAST_MS)
    }

    fn ask(&mut self, at_ms: u64, operation: Operation) {
        self.operations.push(Planned { at_ms, operation });
    }

    /// Any node, also a spare one.
    fn node(&mut self) -> u64 {
        self.dice.between(1, self.nodes + self.spares)
    }

    fn shard(&mut self) -> u32 {
        u32::try_from(self.dice.below(u64::from(self.knobs.shards))).expect("a few")
    }

    /// Most spares come early, so that there is somewhere to go; some wait outside first, some come when they are added.
    fn spares(&mut self) {
        for node in self.nodes + 1..=self.nodes + self.spares {
            let at_ms = if self.dice.one_in(4) { self.at() } else { self.dice.between(FROM_MS, 2 * FROM_MS) };
            if self.dice.one_in(2) {
                let started_ms = self.dice.below(at_ms);
                self.ask(started_ms, Operation::Start { node });
            }
            self.ask(at_ms, Operation::Add { node });
        }
    }

    fn tell(&mut self, chapter: Chapter) {
        let (at_ms, node) = (self.at(), self.node());
        match chapter {
            Chapter::Loss => self.losses.push(Timed { at_ms, fault: Fault::Lose { node, heedless: false } }),
            Chapter::Wipe => {
                self.losses.push(Timed { at_ms, fault: Fault::Wipe { node } });
                if !self.dice.one_in(4) {
                    let replaced_ms = at_ms + self.dice.scaled(100, 6_000);
                    self.ask(replaced_ms, Operation::ReplaceStore { node });
                }
            }
            Chapter::Drain => {
                self.ask(at_ms, Operation::Drain { node });
                let later_ms = at_ms + self.dice.scaled(100, 8_000);
                match self.dice.below(4) {
                    0 => self.ask(later_ms, Operation::Undrain { node }),
                    1 => {}
                    _ => self.ask(later_ms, Operation::Remove { node }),
                }
            }
            Chapter::Moves => {
                for _ in 0..self.dice.between(1, MOVES_MAX) {
                    let (at_ms, shard, pick) = (self.at(), self.shard(), self.dice.below(60));
                    self.ask(at_ms, Operation::Move { shard, pick });
                }
            }
            Chapter::Leaders => {
                for _ in 0..self.dice.between(1, MOVES_MAX) {
                    let (at_ms, shard, pick) = (self.at(), self.shard(), self.dice.below(60));
                    self.ask(at_ms, Operation::TransferLeader { shard, pick });
                }
            }
            Chapter::Copies => {
                let least = if self.flips { 3 } else { 1 };
                let copies = *self.dice.pick(&[least, 3, 5]);
                self.ask(at_ms, Operation::SetReplication { copies });
                if self.dice.one_in(2) {
                    let back_ms = at_ms + self.dice.scaled(500, 8_000);
                    self.ask(back_ms, Operation::SetReplication { copies: 3 });
                }
            }
        }
    }
}
