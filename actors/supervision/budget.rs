//! The restart budget: when a child is started again, how long after, and when its supervisor gives up.
//!
//! It knows neither actors nor clocks: it is told when a child exited.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// What happens when a budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The supervisor fails with the child's reason, and its own supervisor decides.
    StopParent,
    /// The child is shown `down` and tried again after this long. Its siblings go on.
    DownThenRetry(Duration),
}

/// How often and how fast a child may be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Restarts allowed within `period`.
    pub intensity: u32,
    /// The sliding window in which exits are counted.
    pub period: Duration,
    /// The wait before the first restart within a period, doubled for each further one up to the second value.
    pub backoff: (Duration, Duration),
    /// What follows when `intensity` is spent.
    pub after_budget: GiveUp,
}

impl Restart {
    /// A part of the node that the others need: restarted a few times, then the node stops loudly.
    pub const VITAL: Self = Self {
        intensity: 5,
        period: Duration::from_secs(60),
        backoff: (Duration::from_millis(50), Duration::from_secs(2)),
        after_budget: GiveUp::StopParent,
    };
    /// A part whose loss must not disturb its siblings: restarted, then shown down and tried again each minute.
    pub const ISOLATED: Self = Self {
        intensity: 5,
        period: Duration::from_secs(60),
        backoff: (Duration::from_millis(50), Duration::from_secs(2)),
        after_budget: GiveUp::DownThenRetry(Duration::from_secs(60)),
    };
    /// A part that cannot come back within this process: its first exit stops the parent.
    pub const NEVER: Self = Self {
        intensity: 0,
        period: Duration::from_secs(60),
        backoff: (Duration::ZERO, Duration::ZERO),
        after_budget: GiveUp::StopParent,
    };
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.intensity == 0 {
            f.write_str("never restarted")?;
        } else {
            let (first, longest) = self.backoff;
            write!(f, "{} in {:?}, after {first:?} to {longest:?}", self.intensity, self.period)?;
        }
        match self.after_budget {
            GiveUp::StopParent => f.write_str(", then the parent stops"),
            GiveUp::DownThenRetry(after) => write!(f, ", then down, again after {after:?}"),
        }
    }
}

/// What to do about one exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the child again after this wait.
    RestartAfter(Duration),
    /// The budget is spent: follow [`Restart::after_budget`].
    GiveUp,
}

/// The exits of one child within its period. Never longer than the intensity plus one.
#[derive(Debug)]
pub struct Budget {
    restart: Restart,
    exits: VecDeque<Instant>,
}

impl Budget {
    /// A budget of which nothing is spent.
    pub fn new(restart: Restart) -> Self {
        Self { restart, exits: VecDeque::new() }
    }

    /// Counts an exit and decides.
    pub fn on_exit(&mut self, now: Instant) -> Decision {
        while self.exits.front().is_some_and(|exit| now.duration_since(*exit) >= self.restart.period) {
            self.exits.pop_front();
        }
        if self.exits.len() >= self.restart.intensity as usize {
            return Decision::GiveUp;
        }
        let (first, longest) = self.restart.backoff;
        let doublings = u32::try_from(self.exits.len()).unwrap_or(u32::MAX).min(31);
        self.exits.push_back(now);
        Decision::RestartAfter(first.saturating_mul(1 << doublings).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART: Restart = Restart {
        intensity: 3,
        period: Duration::from_secs(10),
        backoff: (Duration::from_millis(100), Duration::from_millis(250)),
        after_budget: GiveUp::StopParent,
    };

    #[test]
    fn the_wait_doubles_up_to_its_longest_and_then_the_budget_is_spent() {
        let mut budget = Budget::new(RESTART);
        let now = Instant::now();
        for wait in [100, 200, 250] {
            assert_eq!(budget.on_exit(now), Decision::RestartAfter(Duration::from_millis(wait)));
        }
        assert_eq!(budget.on_exit(now), Decision::GiveUp);
    }

    #[test]
    fn an_exit_older_than_the_period_is_forgotten() {
        let mut budget = Budget::new(RESTART);
        let start = Instant::now();
        for second in [0, 4, 8] {
            budget.on_exit(start + Duration::from_secs(second));
        }
        assert_eq!(budget.on_exit(start + Duration::from_secs(9)), Decision::GiveUp);
        assert_eq!(
            budget.on_exit(start + Duration::from_secs(10)),
            Decision::RestartAfter(Duration::from_millis(250)),
            "the first exit left the window, two are still in it"
        );
    }

    #[test]
    fn no_intensity_means_no_restart() {
        assert_eq!(Budget::new(Restart::NEVER).on_exit(Instant::now()), Decision::GiveUp);
    }

    #[test]
    fn a_budget_reads_as_a_sentence() {
        assert_eq!(Restart::ISOLATED.to_string(), "5 in 60s, after 50ms to 2s, then down, again after 60s");
        assert_eq!(Restart::NEVER.to_string(), "never restarted, then the parent stops");
    }
}
