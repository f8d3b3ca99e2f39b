//! Times and durations as clients write them. The caller says what time it is.

use super::error::QueryError;
use crate::time::parse_rfc3339;

const SECOND: i64 = 1_000_000_000;
/// Longest first where one unit begins another.
const UNITS: [(&str, i64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
    ("w", 7 * 86_400 * SECOND),
    ("y", 365 * 86_400 * SECOND),
];

/// A decimal number times `unit`, exact where it has no fraction below a nanosecond.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(15)];
    let part = if fraction.is_empty() {
        0
    } else {
        let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        i64::try_from(fraction.parse::<i128>().ok()?.checked_mul(i128::from(unit))? / scale).ok()?
    };
    whole.checked_mul(unit)?.checked_add(part)
}

/// Nanoseconds of `5m`, `1h30m`, `1234ms`, `1.5s`; `None` where the text is no duration.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *nanoseconds)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// A duration parameter: as `duration`, or seconds as a decimal number; above zero.
pub fn parse_duration(name: &str, text: &str) -> Result<i64, QueryError> {
    let found = duration(text).or_else(|| scaled(text, SECOND)).filter(|nanoseconds| *nanoseconds > 0);
    found.ok_or_else(|| QueryError::Parameter {
        name: name.to_owned(),
        value: text.to_owned(),
        expected: "a duration above zero: 1234ms, 5m, or seconds as a decimal number".to_owned(),
    })
}

/// A time parameter to nanoseconds since the Unix epoch: an integer of more than 10 digits is nanoseconds, other
/// numbers are seconds, and RFC 3339 stands for itself.
pub fn parse_time(name: &str, text: &str) -> Result<i64, QueryError> {
    let number = || {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let found = if digits.len() > 10 && !digits.contains('.') {
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
        } else {
            scaled(digits, SECOND)
        };
        found.map(|nanoseconds| sign * nanoseconds)
    };
    let exponent = || {
        let seconds: f64 = text.parse().ok()?;
        let nanoseconds = seconds * SECOND as f64;
        let known = text.contains(['e', 'E']) && nanoseconds.abs() < 9.2e18;
        known.then_some(nanoseconds as i64)
    };
    number().or_else(exponent).or_else(|| parse_rfc3339(text)).ok_or_else(|| QueryError::Parameter {
        name: name.to_owned(),
        value: text.to_owned(),
        expected: "nanoseconds, seconds as a decimal number, or RFC 3339".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_every_unit_are_read() {
        assert_eq!(duration("1234ms"), Some(1_234_000_000));
        assert_eq!(duration("1h30m"), Some(5_400 * SECOND));
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("2d"), Some(172_800 * SECOND));
        for wrong in ["", "5", "m", "5x", "5m3", "..s", "99999999999y", "-5m"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_duration("step", "0.5").unwrap(), SECOND / 2);
        assert!(parse_duration("step", "0").is_err());
    }

    #[test]
    fn times_are_read_in_all_three_notations() {
        let ns = 1_700_000_000_123_456_789;
        assert_eq!(parse_time("start", "1700000000123456789").unwrap(), ns);
        assert_eq!(parse_time("start", "1700000000.123456789").unwrap(), ns);
        assert_eq!(parse_time("start", "1700000000").unwrap(), 1_700_000_000 * SECOND);
        assert_eq!(parse_time("start", "2023-11-14T22:13:20.123456789Z").unwrap(), ns);
        assert_eq!(parse_time("start", "2023-11-14T23:13:20.123456789+01:00").unwrap(), ns);
        assert_eq!(parse_time("start", "1.7e9").unwrap(), 1_700_000_000 * SECOND);
        assert_eq!(parse_time("start", "1970-01-01T00:00:00Z").unwrap(), 0);
        assert_eq!(parse_time("start", "-1").unwrap(), -SECOND);
        for wrong in ["", "now", "2023-13-01T00:00:00Z", "2023-02-29T00:00:00Z", "2023-11-14T22:13:20", "NaN", "1e99"] {
            assert!(parse_time("start", wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            let _ = parse_time("t", &text);
            let _ = parse_duration("t", &text);
        }

        #[test]
        fn arbitrary_numbers_and_dates_never_panic(text in "[0-9TZ:.+e-]{0,40}") {
            let _ = parse_time("t", &text);
            let _ = parse_duration("t", &text);
        }
    }
}
