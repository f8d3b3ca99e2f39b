//! Moments as people write and read them: RFC 3339, seconds or nanoseconds since the Unix epoch, and "15m ago".
//!
//! All are UTC. This room asks no clock.

use std::time::Duration;

use millpond::time::parse_rfc3339;

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch from RFC 3339 or a number; a number below 10^12 is seconds, above it nanoseconds.
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return if number.unsigned_abs() < 1_000_000_000_000 { number.checked_mul(SECOND) } else { Some(number) };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let nanoseconds = seconds * 1e9;
        return (nanoseconds.abs() < 9e18).then_some(nanoseconds as i64);
    }
    parse_rfc3339(text)
}

/// `2026-11-21T03:55:00.123Z`, to the millisecond.
pub fn format(nanoseconds: i64) -> String {
    let seconds = nanoseconds.div_euclid(SECOND);
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let millis = nanoseconds.rem_euclid(SECOND) / 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A duration such as `90s`, `15m`, `1h30m`, `7d`, `250ms`.
///
/// # Errors
/// Says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a duration; write for example 90s, 15m, 1h30m or 7d");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().map_err(|_| expected())?;
        let unit_len = rest[digits..].bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let unit = match rest.get(digits..digits + unit_len).ok_or_else(expected)? {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(expected()),
        };
        total = unit.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(expected)?;
        rest = &rest[digits + unit_len..];
    }
    if total.is_zero() { Err(expected()) } else { Ok(total) }
}

/// The date of the Gregorian calendar, by days since 1970-01-01 (Howard Hinnant, low-level date algorithms).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ways_to_write_a_moment_agree() {
        let moment = Some(1_700_000_000 * SECOND);
        for text in
            ["1700000000", "1700000000000000000", "1700000000.0", "2023-11-14T22:13:20Z", "2023-11-15T00:13:20+02:00"]
        {
            assert_eq!(parse(text), moment, "{text}");
        }
        assert_eq!(parse("2024-02-29T12:00:00.000000001Z"), Some(1_709_208_000 * SECOND + 1));
        for text in
            ["", "yesterday", "2023-11-14", "2023-13-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-14T22:13:20+0200"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_add_up_and_nonsense_is_named() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "m", "5y", "-5m", "5µ", "99999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_formatted_moment_parses_back_to_its_millisecond(moment in -60_000_000_000_000_000_i64..9_000_000_000_000_000_000) {
            prop_assert_eq!(parse(&format(moment)), Some(moment.div_euclid(1_000_000) * 1_000_000));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = parse(&text);
            let _ = parse_duration(&text);
        }
    }
}
