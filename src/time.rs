//! Times as people and programs write them: RFC 3339. It has no clock.

const NANOS: i64 = 1_000_000_000;

/// Reads an RFC 3339 time as nanoseconds since the Unix epoch: `2026-11-19T00:00:00.000000001+01:00`. A space or a small
/// `t` may stand for the `T`; digits past the ninth of a second are cut off; a leap second is the second after it.
/// `None` where it is no such time, or lies outside the years 1677 to 2262.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !shape {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..10])?);
    let (hour, minute, second) = (digits(&bytes[11..13])?, digits(&bytes[14..16])?, digits(&bytes[17..19])?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = fraction(&bytes[19..])?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?;
    to_nanos(seconds, nanos)
}

/// Seconds and nanoseconds as nanoseconds; `None` where they are out of range. Also right where the seconds alone are
/// just below the range and the nanoseconds lift them into it.
pub fn to_nanos(seconds: i64, nanos: i64) -> Option<i64> {
    if !(0..NANOS).contains(&nanos) {
        return None;
    }
    i64::try_from(i128::from(seconds) * i128::from(NANOS) + i128::from(nanos)).ok()
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// The fraction of a second, if one stands here, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    if !matches!(rest.first(), Some(b'.' | b',')) {
        return Some((0, rest));
    }
    let length = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let kept = length.min(9);
    if length == 0 {
        return None;
    }
    let nanos = (kept..9).fold(digits(&rest[1..=kept])?, |nanos, _| nanos * 10);
    Some((nanos, &rest[1 + length..]))
}

/// The zone in seconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hour @ .., b':', m1, m0] if hour.len() == 2 => {
            let (hour, minute) = (digits(hour)?, digits(&[*m1, *m0])?);
            let seconds = hour * 3_600 + minute * 60;
            let sign = if *sign == b'+' { 1 } else { -1 };
            (hour <= 23 && minute <= 59).then_some(sign * seconds)
        }
        _ => None,
    }
}

/// Days of a month from 1 to 12.
pub(crate) fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years start in March, so that the leap day is the last one.
pub(crate) fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("2000-02-29T12:00:00+00:00", 951_825_600 * NANOS),
            ("2026-11-19T00:00:00.037000001Z", 1_795_046_400 * NANOS + 37_000_001),
            ("2026-11-19t01:30:00.5+01:30", 1_795_046_400 * NANOS + NANOS / 2),
            ("2026-11-18 23:00:00,5-01:00", 1_795_046_400 * NANOS + NANOS / 2),
            ("2016-12-31T23:59:60Z", 1_483_228_800 * NANOS),
            ("2262-04-11T23:47:16.854775807Z", i64::MAX),
            ("1677-09-21T00:12:43.145224192Z", i64::MIN),
            ("1970-01-01T00:00:00.1234567899Z", 123_456_789),
        ] {
            assert_eq!(parse_rfc3339(text), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-19",
            "2026-11-19T00:00:00",
            "2026-11-19T00:00:00.Z",
            "2026-13-19T00:00:00Z",
            "2026-00-19T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-19T24:00:00Z",
            "2026-11-19T00:60:00Z",
            "2026-11-19T00:00:61Z",
            "2026-11-19T00:00:00+1:00",
            "2026-11-19T00:00:00+24:00",
            "2026-11-19T00:00:00Zx",
            "+026-11-19T00:00:00Z",
            "2262-04-11T23:47:16.854775808Z",
            "1677-09-21T00:12:43.145224191Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,40}") {
            let _ = parse_rfc3339(&text);
        }

        #[test]
        fn each_day_follows_the_one_before(year in 1_i64..9999, month in 1_i64..=12) {
            let last = days_since_epoch(year, month, days_in(year, month));
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            prop_assert_eq!(days_since_epoch(next_year, next_month, 1), last + 1);
        }
    }
}
