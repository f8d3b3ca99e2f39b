//! The range of time that a search looks at: `--since`, `--from` and `--to`.

use std::time::Duration;

use clap::Args;
use clap::error::ErrorKind;
use millpond_actors::moment;

use super::now;

/// From when to when.
#[derive(Args, Clone, Debug)]
pub(crate) struct RangeArgs {
    /// How far back to look, from --to: 90s, 15m, 1h30m, 2d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = moment::parse_duration)]
    since: Duration,
    /// Where to begin, instead of --since: RFC 3339, seconds or nanoseconds since 1970, now, or 15m for so long ago
    #[arg(long, value_name = "MOMENT", value_parser = moment_argument, conflicts_with = "since")]
    from: Option<i64>,
    /// Where to end; now if not given
    #[arg(long, value_name = "MOMENT", value_parser = moment_argument)]
    to: Option<i64>,
}

impl RangeArgs {
    /// Beginning and end in nanoseconds since the Unix epoch. Ends are not included, so that of now is one past it.
    ///
    /// # Errors
    /// It ends before it begins.
    pub(crate) fn bounds(&self) -> Result<(i64, i64), clap::Error> {
        let to = self.to.unwrap_or_else(|| now() + 1);
        let since = i64::try_from(self.since.as_nanos()).unwrap_or(i64::MAX);
        let from = self.from.unwrap_or_else(|| to.saturating_sub(since));
        if from <= to {
            return Ok((from, to));
        }
        let (from, to) = (moment::format(from), moment::format(to));
        let what = format!("the range ends at {to}, before it begins at {from}\n");
        Err(clap::Error::raw(ErrorKind::ValueValidation, what))
    }
}

/// A moment given on the command line.
fn moment_argument(text: &str) -> Result<i64, String> {
    moment_at(text, now()).ok_or_else(|| {
        format!(
            "`{text}` is not a moment; write RFC 3339 such as 2026-11-21T08:00:00Z, seconds or nanoseconds since 1970, \
             now, or 15m for fifteen minutes ago"
        )
    })
}

fn moment_at(text: &str, now: i64) -> Option<i64> {
    let ago = |text| Some(now.saturating_sub(i64::try_from(moment::parse_duration(text).ok()?.as_nanos()).ok()?));
    match text.strip_prefix("now") {
        Some("") => Some(now),
        Some(rest) => ago(rest.strip_prefix('-')?),
        None => moment::parse(text).or_else(|| ago(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_a_number_now_or_so_long_ago() {
        let now = 1_700_000_000_000_000_000;
        let second = 1_000_000_000;
        for (text, expected) in [
            ("now", Some(now)),
            ("15m", Some(now - 900 * second)),
            ("2d", Some(now - 172_800 * second)),
            ("now-1h30m", Some(now - 5_400 * second)),
            ("2023-11-14T22:13:20Z", Some(now)),
            ("1700000000", Some(now)),
            ("nowhere", None),
            ("now-", None),
            ("now+1h", None),
            ("-15m", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment_at(text, now), expected, "{text}");
        }
        assert!(moment_argument("soon").unwrap_err().contains("`soon` is not a moment"));
    }

    #[test]
    fn a_range_ends_where_it_is_told_and_begins_since() {
        let range = |from, to| RangeArgs { since: Duration::from_secs(60), from, to };
        assert_eq!(range(None, Some(100_000_000_000)).bounds().unwrap(), (40_000_000_000, 100_000_000_000));
        assert_eq!(range(Some(7), Some(9)).bounds().unwrap(), (7, 9));
        assert!(range(Some(9), Some(7)).bounds().unwrap_err().to_string().contains("before it begins"));
        let (from, to) = range(None, None).bounds().unwrap();
        assert_eq!(to - from, 60_000_000_000);
    }
}
