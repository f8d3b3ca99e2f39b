//! How the heads of a node are kept within its memory: which are cut, and how long what is sent to a shard is held back.
//!
//! A head counts as unsealed until it is cut and as sealing until the snapshot that names its segment is durable. Unsealed
//! bytes have a budget, past which the fullest heads are cut; sealing bytes have one, past which no further head is cut for
//! want of memory, since it would only wait. Where all heads together outgrow both, sealing is slower than ingest, and what
//! is sent is held back, the longer the further they do. A leader holds back for the fullest node that holds its shard: one
//! that follows cannot, and would refuse what it leads itself for the sake of what others go on to send it. These are
//! functions of what a node knows of its replicas; they know neither actors nor clocks.

use std::cmp::Reverse;
use std::time::Duration;

use millpond::id::ShardId;
use millpond::limits;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What the heads of a node may take, in raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    unsealed: u64,
    sealing: u64,
}

/// The head of one replica on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The shard.
    pub shard: ShardId,
    /// Whether this node leads it, and so may have it cut.
    pub led: bool,
    /// Raw bytes that no seal has cut yet.
    pub unsealed: u64,
    /// Raw bytes that are cut and in no registered segment.
    pub sealing: u64,
    /// Whether another node that holds the shard asks for heads to be cut.
    pub asked: bool,
}

/// The heads of a node together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Replicas of shards.
    pub replicas: u64,
    /// Raw bytes, unsealed and sealing.
    pub bytes: u64,
    /// Of them those that no seal has cut yet.
    pub unsealed: u64,
    /// How far the fullest other node that holds the shard in question is past its budgets, as [`Budget::excess`] says there.
    pub elsewhere: u64,
}

/// How short of memory a node is, as it tells those that lead what it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// As [`Budget::excess`] says.
    pub excess: u64,
    /// Its unsealed heads are past their budget, and it cannot have those cut that others lead.
    pub asks: bool,
}

/// Whether a shard takes what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Now,
    /// After a while.
    After(Duration),
    /// Not now: nothing of it is kept.
    Refused,
}

impl Budget {
    /// So many unsealed bytes, and so many that are being sealed; of the latter no more than of the former count.
    pub fn new(unsealed: u64, sealing: u64) -> Self {
        Self { unsealed, sealing: sealing.min(unsealed) }
    }

    /// The shards whose heads are to be cut now: the fullest first that this node leads and that are not being sealed, until
    /// the rest is within the budget, those fuller than their part of it that another node asks for, and not more than this
    /// node's part of what may be sealing. What others lead does not use that part up: they would keep this node's heads from
    /// ever being cut.
    pub fn cut(&self, heads: &[Head]) -> Vec<ShardId> {
        let mut unsealed: u64 = heads.iter().map(|head| head.unsealed).sum();
        let mut led: Vec<&Head> = heads.iter().filter(|head| head.led).collect();
        let mut sealing: u64 = led.iter().map(|head| head.sealing).sum();
        let part = part_of(self.sealing, led.len() as u64, heads.len() as u64);
        let full = part_of(self.unsealed, 1, heads.len() as u64);
        led.retain(|head| head.sealing == 0 && head.unsealed > 0);
        led.sort_by_key(|head| Reverse(head.unsealed));
        let due = led.into_iter().filter(|head| {
            let wanted = unsealed > self.unsealed || head.asked && head.unsealed > full;
            let due = wanted && (sealing < part || sealing == 0);
            if due {
                (unsealed, sealing) = (unsealed - head.unsealed, sealing + head.unsealed);
            }
            due
        });
        due.map(|head| head.shard).collect()
    }

    /// What a node whose heads are these tells the others.
    pub fn pressure(&self, heads: Heads) -> Pressure {
        Pressure { excess: self.excess(heads), asks: heads.unsealed > self.unsealed }
    }

    /// How far all heads are past both budgets, as a part of the way to where nothing more fits, in millionths; 0 while
    /// nothing is held back.
    fn excess(&self, heads: Heads) -> u64 {
        let over = heads.bytes.saturating_sub(self.unsealed + self.sealing).min(self.sealing);
        part_of(MILLION, over, self.sealing)
    }

    /// Whether a shard whose head has `own` bytes is refused what it is sent. A shard that holds no more than its part of the
    /// budget is not: what fills the memory may be led by other nodes, and while those go on it would take nothing.
    fn refuses(&self, heads: Heads, own: u64) -> bool {
        heads.bytes > self.unsealed + 2 * self.sealing && own > part_of(self.unsealed, 1, heads.replicas)
    }
}

const MILLION: u64 = 1_000_000;

/// `whole * of / all`, or all of it where there is nothing to divide by.
fn part_of(whole: u64, of: u64, all: u64) -> u64 {
    let part = u128::from(whole) * u128::from(of) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Holds back what is sent to one shard: entries pass one after the other, as far apart as their bytes and the excess of the
/// node's heads ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the next may pass.
    free: Option<Instant>,
}

impl Pace {
    /// Whether an entry of so many bytes passes now; `own` are the bytes of the shard's own head.
    pub fn admit(&mut self, now: Instant, bytes: u64, own: u64, heads: Heads, budget: Budget) -> Admission {
        if budget.refuses(heads, own) {
            return Admission::Refused;
        }
        let excess = budget.excess(heads).max(heads.elsewhere.min(MILLION));
        if excess == 0 {
            self.free = None;
            return Admission::Now;
        }
        let at = self.free.map_or(now, |free| free.max(now));
        let wait = at - now;
        if wait > limits::HELD_BACK_MAX {
            return Admission::Refused;
        }
        // All replicas of the node share what it takes: the shards that others lead are paced there.
        let of_node = u128::from(bytes) * u128::from(heads.replicas.max(1));
        let nanos = of_node * u128::from(excess) * 1_000 / u128::from(limits::HELD_BACK_BYTES_PER_SECOND);
        self.free =
            Some(at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(limits::HELD_BACK_MAX));
        if wait.is_zero() { Admission::Now } else { Admission::After(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BUDGET: Budget = Budget { unsealed: 128 * MIB, sealing: 64 * MIB };

    /// A head in MiB.
    fn head(shard: u32, led: bool, unsealed: u64, sealing: u64) -> Head {
        Head { shard: ShardId(shard), led, unsealed: unsealed * MIB, sealing: sealing * MIB, asked: false }
    }

    fn cut(heads: &[Head]) -> Vec<u32> {
        BUDGET.cut(heads).into_iter().map(|shard| shard.0).collect()
    }

    fn heads(mib: u64) -> Heads {
        Heads { replicas: 4, bytes: mib * MIB, ..Heads::default() }
    }

    #[test]
    fn nothing_is_cut_within_the_budget_whatever_is_being_sealed() {
        assert_eq!(cut(&[]), [0_u32; 0]);
        assert_eq!(cut(&[head(0, true, 64, 0), head(1, true, 64, 0)]), [0_u32; 0]);
        assert_eq!(cut(&[head(0, true, 64, 60), head(1, true, 60, 0), head(2, false, 0, 90)]), [0_u32; 0]);
    }

    #[test]
    fn the_fullest_heads_are_cut_until_the_rest_is_within_the_budget() {
        assert_eq!(cut(&[head(0, true, 20, 0), head(1, true, 70, 0), head(2, true, 40, 0)]), [1]);
        assert_eq!(cut(&[head(0, true, 50, 0), head(1, true, 55, 0), head(2, true, 120, 0)]), [2]);
        let many: Vec<Head> = (0..10).map(|shard| head(shard, true, 15 + u64::from(shard % 2), 0)).collect();
        assert_eq!(cut(&many), [1, 3]);
    }

    #[test]
    fn a_head_that_is_being_sealed_or_that_another_node_leads_is_passed_over() {
        assert_eq!(cut(&[head(0, true, 90, 1), head(1, false, 95, 0), head(2, true, 10, 0)]), [2]);
        assert_eq!(cut(&[head(0, true, 90, 1), head(1, false, 95, 0), head(2, true, 0, 0)]), [0_u32; 0]);
    }

    #[test]
    fn no_more_is_cut_than_may_be_sealing_but_one_head_always() {
        assert_eq!(cut(&[head(0, true, 10, 64), head(1, true, 150, 0)]), [0_u32; 0]);
        assert_eq!(cut(&[head(0, true, 10, 63), head(1, true, 150, 0)]), [1]);
        assert_eq!(cut(&[head(0, true, 200, 0), head(1, true, 199, 0)]), [0]);
        // One of four replicas is led here: a quarter of the budget.
        let quarter = [head(0, true, 1, 0), head(1, false, 60, 90), head(2, false, 60, 90), head(3, false, 60, 0)];
        assert_eq!(cut(&quarter), [0], "what others seal does not keep it from being cut");
        let two = [head(0, true, 100, 0), head(1, true, 90, 32), head(2, false, 0, 0), head(3, false, 0, 0)];
        assert_eq!(cut(&two), [0_u32; 0]);
    }

    #[test]
    fn a_head_fuller_than_its_part_is_cut_for_another_node_that_asks() {
        let asked = |shard, led, unsealed, sealing| Head { asked: true, ..head(shard, led, unsealed, sealing) };
        assert_eq!(
            cut(&[head(0, true, 40, 0), asked(1, true, 35, 0), asked(2, true, 30, 0), head(3, true, 1, 0)]),
            [1]
        );
        assert_eq!(
            cut(&[asked(0, true, 33, 1), asked(1, false, 34, 0), asked(2, true, 32, 0), head(3, true, 9, 0)]),
            [0; 0]
        );
        assert_eq!(
            cut(&[asked(0, true, 34, 0), asked(1, true, 33, 0), head(2, true, 0, 0), head(3, true, 0, 63)]),
            [0]
        );
    }

    #[test]
    fn a_node_asks_for_cuts_past_the_budget_of_what_is_unsealed() {
        let told = |unsealed, bytes| BUDGET.pressure(Heads { unsealed: unsealed * MIB, ..heads(bytes) });
        assert_eq!(told(128, 192), Pressure::default());
        assert_eq!(told(129, 192), Pressure { excess: 0, asks: true });
        assert_eq!(told(1, 224), Pressure { excess: MILLION / 2, asks: false });
    }

    #[test]
    fn nothing_is_held_back_while_the_heads_are_within_both_budgets() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..1_000 {
            assert_eq!(pace.admit(now, 512 << 10, 100 * MIB, heads(192), BUDGET), Admission::Now);
        }
    }

    /// Bytes that one shard takes in ten seconds, pressed as fast as it goes by many who try again each 10 ms.
    fn taken(heads: Heads, own: u64) -> u64 {
        let (mut pace, began, mut taken) = (Pace::default(), Instant::now(), 0);
        for at in 0..1_000 {
            let now = began + Duration::from_millis(10 * at);
            while pace.admit(now, 64 << 10, own, heads, BUDGET) != Admission::Refused {
                taken += 64 << 10;
            }
        }
        taken
    }

    #[test]
    fn a_shard_takes_the_less_the_further_the_heads_are_past_the_budgets() {
        let at_bound = 10 * limits::HELD_BACK_BYTES_PER_SECOND / 4;
        let near = |taken: u64, expected: u64| taken.abs_diff(expected) < expected / 5;
        assert!(near(taken(heads(256), 200 * MIB), at_bound));
        assert!(near(taken(heads(224), 200 * MIB), 2 * at_bound));
        assert!(near(taken(heads(200), 200 * MIB), 8 * at_bound));
    }

    #[test]
    fn a_shard_is_held_back_for_the_fullest_node_that_holds_it() {
        let at_bound = taken(heads(256), 0);
        let with = |mib, elsewhere| taken(Heads { elsewhere, ..heads(mib) }, 200 * MIB);
        assert_eq!(with(10, MILLION), at_bound);
        assert_eq!(with(10, u64::MAX), at_bound, "what another node says is not trusted further");
        assert_eq!((with(224, MILLION), with(256, MILLION / 2)), (at_bound, at_bound));
        assert_eq!(with(10, MILLION / 2), taken(heads(224), 0));
    }

    #[test]
    fn past_the_bound_a_shard_takes_nothing_unless_it_holds_less_than_its_part() {
        let at_bound = taken(heads(256), 0);
        assert_eq!(taken(heads(257), 33 * MIB), 0);
        assert_eq!(taken(heads(257), 32 * MIB), at_bound);
        assert_eq!(taken(heads(9_999), MIB), at_bound);
    }

    #[test]
    fn who_is_held_back_passes_in_turn_and_not_after_long() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let mut last = Duration::ZERO;
        assert_eq!(pace.admit(now, 16 << 10, 0, heads(224), BUDGET), Admission::Now);
        loop {
            match pace.admit(now, 16 << 10, 0, heads(224), BUDGET) {
                Admission::Now => panic!("two at once"),
                Admission::After(wait) => {
                    assert!(wait > last && wait <= limits::HELD_BACK_MAX, "{wait:?} after {last:?}");
                    last = wait;
                }
                Admission::Refused => break,
            }
        }
        assert!(last > limits::HELD_BACK_MAX / 2);
        assert_eq!(pace.admit(now, 16 << 10, 0, heads(192), BUDGET), Admission::Now, "the heads have shrunk");
        assert_eq!(pace.admit(now, 16 << 10, 0, heads(224), BUDGET), Admission::Now, "nobody waits any more");
    }

    #[test]
    fn a_budget_of_nothing_holds_back_and_divides_by_nothing() {
        let budget = Budget::new(0, 64 * MIB);
        let nobody = Heads::default();
        assert_eq!(Pace::default().admit(Instant::now(), 1, 0, nobody, budget), Admission::Now);
        assert_eq!(
            Pace::default().admit(Instant::now(), 1, 1, Heads { replicas: 1, bytes: 1, ..Heads::default() }, budget),
            Admission::Refused
        );
    }
}
