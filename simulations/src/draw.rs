//! A case from a seed: knobs, the plan of faults, and what operators do. It does not know what the world makes of them.
//!
//! Every use of randomness has a stream of its own, derived from the seed by name, so that one more draw in one of them
//! moves nothing in the others. A seed gives the same case on every machine for as long as this room stays as it is; a
//! case that must outlive that is kept as a file.

mod damage;
mod faults;
mod knobs;
mod story;

use millpond::storage::lossy::Draws;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::case::Case;

/// The case of a seed, for a cluster of so many nodes.
pub fn draw(seed: u64, nodes: u64) -> Case {
    let mut knobs = knobs::draw(&mut Dice::new(seed, "knobs"));
    knobs.asking = Some(knobs::asking(&mut Dice::new(seed, "asking")));
    let drawn = faults::draw(seed, nodes, &knobs);
    let faults::Drawn { membership, operations, busy_ms, faults } = drawn;
    Case { seed, nodes, membership, knobs, busy_ms, faults, operations, mutant: None }
}

/// The stream of a seed that has this name.
pub fn stream(seed: u64, name: &str) -> Draws {
    Draws::new(xxh3_64_with_seed(name.as_bytes(), seed))
}

/// A stream, and how numbers are drawn from it. Integers alone, so that every machine draws the same.
pub(crate) struct Dice(Draws);

impl Dice {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(stream(seed, name))
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// Two streams that go on from here by themselves.
    pub(crate) fn split(mut self) -> (Self, Self) {
        let mut part = || Self(Draws::new(self.0.draw()));
        (part(), part())
    }

    /// The seed of one more stream.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    /// From `least` to `most`, both possible.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// From `least` to `most`, both possible; each doubling is as likely as the next.
    fn scaled(&mut self, least: u64, most: u64) -> u64 {
        let doublings = (most / least.max(1)).checked_ilog2().unwrap_or(0);
        let from = least.max(1) << self.below(u64::from(doublings) + 1);
        self.between(if from == 1 { least } else { from }, from.saturating_mul(2).min(most))
    }

    /// As `scaled`; but often an end of the range, where bounds are met, or what users run.
    fn edgy(&mut self, least: u64, most: u64, usual: u64) -> u64 {
        match self.below(8) {
            0 => least,
            1 => most,
            2 => usual.clamp(least, most),
            _ => self.scaled(least, most),
        }
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of several, of which there is at least one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).expect("an index of a slice")]
    }

    /// All of several, in any order.
    pub(crate) fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1);
            items.swap(last, usize::try_from(other).expect("an index of a slice"));
        }
        items
    }
}

#[cfg(test)]
mod tests;
