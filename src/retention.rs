//! What retention asks for: where the beginning of a shard is to be dropped, how old a record may be that comes in, and
//! from when on the records of a stream are shown.
//!
//! It decides, as a pure function of what it is told; a shard's log makes a decision that of every replica. It does not
//! know what time it is, who leads, or how files are removed.

use std::time::Duration;

use crate::entry::SegmentMeta;
use crate::id::Offset;
use crate::query::ast::Matcher;
use crate::query::plan::Hidden;

/// How long records are kept. By default for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// A segment whose newest record is older goes.
    pub age: Option<Duration>,
    /// Past so many bytes of segments of one shard the oldest go; one copy counts.
    pub shard_bytes: Option<u64>,
    /// Streams whose records are shown for a shorter time.
    pub rules: Vec<Rule>,
}

/// How long the records of some streams are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whose; `None`: everyone's.
    pub tenant: Option<String>,
    /// Which streams.
    pub matchers: Vec<Matcher>,
    /// How old a record may be that is shown.
    pub age: Duration,
}

impl Policy {
    /// Whether segments are ever dropped.
    pub fn drops(&self) -> bool {
        self.age.is_some() || self.shard_bytes.is_some()
    }

    /// The first offset that stays, where something is to go: the oldest segments that are too old, and as many more as
    /// exceed the bytes of a shard, but for the newest. Whole segments only; one that must stay keeps all after it, whatever
    /// their age.
    /// `segments` are those that are left, in the order of their offsets; `time` is shard time in milliseconds since the
    /// Unix epoch.
    pub fn first_to_stay<'s>(
        &self,
        segments: impl Iterator<Item = &'s SegmentMeta> + Clone,
        time: u64,
    ) -> Option<Offset> {
        let shard_time = i64::try_from(u128::from(time) * 1_000_000).unwrap_or(i64::MAX);
        let oldest = self.oldest(shard_time);
        let held: u64 = segments.clone().map(|segment| segment.bytes).sum();
        let newest = segments.clone().last().map(|segment| segment.to);
        let mut excess = self.shard_bytes.map_or(0, |most| held.saturating_sub(most));
        let mut first = None;
        for segment in segments {
            let old = oldest.is_some_and(|oldest| segment.max_timestamp < oldest);
            if !old && (excess == 0 || Some(segment.to) == newest) {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            first = Some(Offset(segment.to.0 + 1));
        }
        first
    }

    /// The oldest timestamp that is kept at a time, both in nanoseconds since the Unix epoch; `None` where none is too
    /// old.
    pub fn oldest(&self, now: i64) -> Option<i64> {
        self.age.map(|age| before(now, age))
    }

    /// What is not shown at a time, in nanoseconds since the Unix epoch.
    pub fn hidden(&self, now: i64) -> Vec<Hidden> {
        let hidden = |Rule { tenant, matchers, age }: &Rule| Hidden {
            tenant: tenant.clone(),
            matchers: matchers.clone(),
            before: before(now, *age),
        };
        self.rules.iter().map(hidden).collect()
    }
}

fn before(now: i64, age: Duration) -> i64 {
    now.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn segment(at: u64, newest: i64, bytes: u64) -> SegmentMeta {
        SegmentMeta {
            from: Offset(at * 10),
            to: Offset(at * 10 + 9),
            bytes,
            hash: 0,
            digest: 0,
            min_timestamp: i64::MIN,
            max_timestamp: newest,
            raw_bytes: 0,
        }
    }

    fn policy(age: Option<u64>, shard_bytes: Option<u64>) -> Policy {
        Policy { age: age.map(Duration::from_secs), shard_bytes, rules: Vec::new() }
    }

    #[test]
    fn the_oldest_go_by_age_or_by_bytes_and_one_that_stays_keeps_those_behind_it() {
        let segments =
            [segment(0, 10 * SECOND, 5), segment(1, 30 * SECOND, 5), segment(2, 20 * SECOND, 5), segment(3, 90, 5)];
        let first = |policy: Policy, time| policy.first_to_stay(segments.iter(), time).map(|first| first.0);
        assert_eq!(first(policy(Some(20), None), 30_000), None, "exactly as old as may be");
        assert_eq!(first(policy(Some(20), None), 30_001), Some(10));
        assert_eq!(first(policy(Some(20), None), 50_001), Some(40));
        assert_eq!(first(policy(None, Some(20)), u64::MAX), None);
        assert_eq!(first(policy(None, Some(19)), 0), Some(10));
        assert_eq!(first(policy(None, Some(9)), 0), Some(30));
        assert_eq!(first(policy(None, Some(0)), 0), Some(30), "what came last is never too much");
        assert_eq!(first(policy(Some(20), Some(14)), 30_001), Some(20), "what went by age counts for the bytes");
        assert_eq!(first(Policy::default(), u64::MAX), None);
    }

    #[test]
    fn a_rule_hides_what_is_older_than_it_says() {
        let rule = Rule { tenant: None, matchers: Vec::new(), age: Duration::from_secs(5) };
        let policy = Policy { rules: vec![rule], ..policy(Some(60), None) };
        assert_eq!(policy.hidden(7 * SECOND)[0].before, 2 * SECOND);
        assert_eq!(policy.oldest(7 * SECOND), Some(-53 * SECOND));
        assert_eq!(policy.hidden(i64::MIN)[0].before, i64::MIN);
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_too_old_or_too_much_and_what_stays_is_neither(
            held in prop::collection::vec((0_i64..40, 0_u64..9), 0..12),
            age in prop::option::of(0_u64..40), most in prop::option::of(0_u64..50), now in 0_u64..60,
        ) {
            let segments: Vec<SegmentMeta> =
                (0..).zip(&held).map(|(at, (newest, bytes))| segment(at, newest * SECOND, *bytes)).collect();
            let policy = policy(age, most);
            let first = policy.first_to_stay(segments.iter(), now * 1_000).unwrap_or(Offset(0));
            let (gone, left): (Vec<_>, Vec<_>) = segments.iter().partition(|segment| segment.to < first);
            let oldest = policy.oldest(i64::try_from(now).unwrap() * SECOND).unwrap_or(i64::MIN);
            let bytes = |segments: &[&SegmentMeta]| segments.iter().map(|segment| segment.bytes).sum::<u64>();
            let most = most.unwrap_or(u64::MAX);
            prop_assert!(bytes(&left) <= most || left.len() == 1);
            prop_assert!(left.first().is_none_or(|segment| segment.max_timestamp >= oldest));
            if let Some(last) = gone.last() {
                prop_assert!(last.max_timestamp < oldest || bytes(&left) + last.bytes > most);
            }
            let again = policy.first_to_stay(left.into_iter(), now * 1_000);
            prop_assert_eq!(again, None, "a decision is made once");
        }
    }
}
