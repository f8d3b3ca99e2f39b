//! Data and queries drawn from a seed: streams of four kinds of lines, and queries that mostly find something in them.
//!
//! Numbers are whole or have few binary digits, so that sums are exact in any order; what compares or ranks series is only
//! drawn over such numbers, since the last digit of others is nobody's promise. Where Loki's documentation leaves open
//! which series a rank prefers, it stands where that does not matter.

pub mod data;
mod metrics;
mod stages;
mod words;

use millpond::query::ast::Expr;

use super::Ask;
use crate::draw::Dice;
use data::{END, SECOND, START};

pub use words::{constructs, used};

/// A query and when it is asked.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// What.
    pub query: Expr,
    /// When.
    pub ask: Ask,
}

/// The next query of a stream of draws.
pub(crate) fn query(dice: &mut Dice) -> Drawn {
    if dice.below(100) < 40 {
        let kind = stages::Kind::draw(dice);
        let query = Expr::Logs(stages::logs(dice, kind));
        return Drawn { query, ask: range(dice) };
    }
    let (expr, instant) = metrics::expr(dice);
    let ask = if instant { Ask::Instant(time(dice)) } else { range(dice) };
    Drawn { query: Expr::Metric(expr), ask }
}

/// A time at which records are; often that of one of them.
fn time(dice: &mut Dice) -> i64 {
    START + (END - START) / 4 + five(dice, (END - START) * 3 / 4)
}

fn five(dice: &mut Dice, length: i64) -> i64 {
    let steps = length / (5 * SECOND);
    dice.below(steps.cast_unsigned() + 1).cast_signed() * 5 * SECOND
}

fn range(dice: &mut Dice) -> Ask {
    let start = START + five(dice, (END - START) / 2);
    let end = start + (END - START) / 4 + five(dice, END - start);
    let step = *dice.pick(&[20, 35, 60, 61, 120]) * SECOND;
    let limit = *dice.pick(&[1, 3, 10, 100, 100]);
    Ask::Range { start, end, step, limit, forward: dice.one_in(2) }
}

/// One of several texts.
fn word<'a>(dice: &mut Dice, from: &[&'a str]) -> &'a str {
    let word: &&str = dice.pick(from);
    word
}
