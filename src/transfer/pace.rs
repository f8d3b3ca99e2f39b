//! What a node copies or reads through in a second: so much at all times, or only while it stores records, so that they
//! never wait for copies. It is told the time and answers how long to wait; it never refuses, so its callers bound how much
//! waits.

use std::time::Duration;

use crate::limits::TRANSFER_ALONE_AFTER;

/// A bucket of bytes that fills at a steady rate. Shared by all copies of a node.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// How far the time of what was let through may lag behind the clock: what a pause saves up.
    burst: Duration,
    /// When everything that was let through is paid for.
    paid: Duration,
    /// Until when records count as being stored, and nothing passes freely; none: it never does.
    held_until: Option<Duration>,
}

impl Pace {
    /// A full bucket.
    ///
    /// # Panics
    /// Where nothing would ever pass.
    #[must_use]
    pub fn new(bytes_per_second: u64, burst_bytes: u64) -> Self {
        assert!(bytes_per_second > 0, "a pace of nothing never ends");
        let mut pace = Self { bytes_per_second, burst: Duration::ZERO, paid: Duration::ZERO, held_until: None };
        pace.burst = pace.cost(burst_bytes);
        pace
    }

    /// One that holds back only while records are stored.
    ///
    /// # Panics
    /// Where nothing would ever pass then.
    #[must_use]
    pub fn beside_records(bytes_per_second: u64, burst_bytes: u64) -> Self {
        Self { held_until: Some(Duration::ZERO), ..Self::new(bytes_per_second, burst_bytes) }
    }

    /// Takes note that a record is stored.
    pub fn stores(&mut self, now: Duration) {
        self.held_until = self.held_until.map(|until| until.max(now + TRANSFER_ALONE_AFTER));
    }

    /// How long to wait before so many bytes may be asked for. The bytes count as asked for then. `now` is the time since
    /// any fixed start; one before an earlier one only makes callers wait.
    pub fn reserve(&mut self, now: Duration, bytes: u64) -> Duration {
        if self.held_until.is_some_and(|until| now >= until) {
            return Duration::ZERO;
        }
        let from = self.paid.max(now.saturating_sub(self.burst));
        self.paid = from + self.cost(bytes);
        from.saturating_sub(now)
    }

    fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_span_of_time_lets_more_through_than_its_share_and_the_burst(
            asks in prop::collection::vec((0..500_u64, 1..200_u64), 1..60),
        ) {
            let mut pace = Pace::new(1_000, 300);
            let mut now = Duration::ZERO;
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            for (pause, bytes) in asks {
                now += Duration::from_millis(pause);
                let at = now + pace.reserve(now, bytes);
                passed.push((at, bytes));
            }
            for (start, (from, _)) in passed.iter().enumerate() {
                for end in start..passed.len() {
                    let span = passed[end].0 - *from;
                    let bytes: u64 = passed[start..end].iter().map(|(_, bytes)| bytes).sum();
                    prop_assert!(u128::from(bytes) <= 300 + span.as_millis() + 1, "{bytes} in {span:?}");
                }
            }
        }
    }

    #[test]
    fn a_steady_copy_is_held_to_the_rate_and_not_below() {
        let mut pace = Pace::new(1_000, 0);
        let mut now = Duration::from_secs(5);
        for _ in 0..100 {
            now += pace.reserve(now, 50);
        }
        assert_eq!(now, Duration::from_secs(5) + Duration::from_millis(99 * 50));
    }

    #[test]
    fn a_copy_is_held_to_the_rate_only_while_records_are_stored() {
        let (mut pace, second) = (Pace::beside_records(1_000, 0), Duration::from_secs(1));
        assert_eq!([pace.reserve(second, 90_000), pace.reserve(second, 90_000)], [Duration::ZERO; 2]);
        pace.stores(second);
        assert_eq!([pace.reserve(second, 500), pace.reserve(second, 500)], [Duration::ZERO, second / 2]);
        let later = second + TRANSFER_ALONE_AFTER;
        assert_eq!([pace.reserve(later, 90_000), pace.reserve(later, 90_000)], [Duration::ZERO; 2]);
    }
}
