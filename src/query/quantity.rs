//! Quantities as log lines write them: durations as Go writes them, bytes as people do. What they are compared with is
//! the caller's; durations with days, which only a query may write, are `time`'s.

const SECOND: u64 = 1_000_000_000;
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

/// Without the `b` that may end them.
const SIZES: [(&str, f64); 13] = [
    ("", 1.0),
    ("k", 1e3),
    ("m", 1e6),
    ("g", 1e9),
    ("t", 1e12),
    ("p", 1e15),
    ("e", 1e18),
    ("ki", (1_u64 << 10) as f64),
    ("mi", (1_u64 << 20) as f64),
    ("gi", (1_u64 << 30) as f64),
    ("ti", (1_u64 << 40) as f64),
    ("pi", (1_u64 << 50) as f64),
    ("ei", (1_u64 << 60) as f64),
];

/// `300ms`, `-1.5h`, `2h45m`, `0` in nanoseconds; `None` where the text is no such duration, or too long a one.
pub fn duration(text: &str) -> Option<f64> {
    nanoseconds(text).map(|nanoseconds| nanoseconds as f64)
}

/// As [`duration`], exact.
pub fn nanoseconds(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (part, tail) = term(rest)?;
        total = total.checked_add(part).filter(|total| *total <= 1 << 63)?;
        rest = tail;
    }
    if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() }
}

/// The first number and unit of a text in nanoseconds, and what follows them.
fn term(text: &str) -> Option<(u64, &str)> {
    let end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(end(text));
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(end(after));
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (part, scale) = fraction.bytes().fold((0_u64, 1.0), |(part, scale), byte| {
        // Digits past the range say nothing of a nanosecond.
        let more = part.checked_mul(10).and_then(|part| part.checked_add(u64::from(byte - b'0')));
        more.filter(|more| *more <= 1 << 63).map_or((part, scale), |more| (more, scale * 10.0))
    });
    // In floating point and cut off, as Go does it.
    let part = part as f64 * (*unit as f64 / scale);
    Some((whole.checked_mul(*unit)?.checked_add(part as u64)?, rest))
}

/// `20KB`, `1.5 KiB`, `1,024`, `3k` in bytes: K is 1000, Ki is 1024, in any case and with or without the B. `None`
/// where the text is no such quantity, or too large a one.
pub fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let short = unit.strip_suffix('b').unwrap_or(&unit);
    let (_, size) = SIZES.iter().find(|(name, _)| *name == short)?;
    // A number of digits and a point alone is finite or too large for any quantity.
    let number: f64 = number.replace(',', "").parse().ok()?;
    let found = number * size;
    (found < u64::MAX as f64).then_some(found as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NANO: i64 = SECOND as i64;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("+5s", 5 * NANO),
            ("5.0s", 5 * NANO),
            (".5s", NANO / 2),
            ("1.s", NANO),
            ("5.6s", 5_600_000_000),
            ("100.00100s", 100 * NANO + 1_000_000),
            ("-2s", -2 * NANO),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13_000_000),
            ("0.10ms", 100_000),
            ("24s30ms", 24 * NANO + 30_000_000),
            ("3h30m", 12_600 * NANO),
            ("-2m3.4s", -123_400_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 1_200 * NANO),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.100000000000000000000h", 360 * NANO),
        ] {
            assert_eq!(nanoseconds(text), Some(want), "{text}");
        }
        assert_eq!(duration("1.5h"), Some(5.4e12));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "1w",
            "1y",
            "5m3",
            "5 m",
            " 5m",
            "1e3s",
            "--5m",
            "1.2.3s",
            "9223372036854775808ns",
            "-9223372036854775809ns",
            "3000000h",
            "99999999999999999999ns",
            "5M",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_read_in_every_unit() {
        for (text, want) in [
            ("42", 42),
            ("20B", 20),
            ("42MB", 42_000_000),
            ("42 MB", 42_000_000),
            ("42mb", 42_000_000),
            ("1.5KiB", 1_536),
            ("3k", 3_000),
            ("1G", 1_000_000_000),
            ("1gi", 1 << 30),
            ("5 MiB", 5 << 20),
            ("7kB", 7_000),
            ("1TB", 1_000_000_000_000),
            ("2TiB", 2 << 40),
            ("1PB", 1_000_000_000_000_000),
            ("1PiB", 1 << 50),
            ("1EB", 1_000_000_000_000_000_000),
            ("1EiB", 1 << 60),
            ("1,005.03 MB", 1_005_030_000),
            ("12.5", 12),
            ("1.", 1),
            (".5k", 500),
        ] {
            assert_eq!(bytes(text), Some(want), "{text}");
        }
        for text in ["", "B", "KB", "-1", "1XB", "1.2.3", "1 KB x", "16.5EiB", "99999999999999999999", "1ib", "."] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}", close in "[-+0-9.,hmnuµskKMGTPEiB ]{0,40}") {
            for text in [text, close] {
                let _ = nanoseconds(&text);
                let _ = bytes(&text);
            }
        }

        #[test]
        fn whole_nanoseconds_come_back(count in any::<i64>()) {
            prop_assert_eq!(nanoseconds(&format!("{count}ns")), Some(count));
        }
    }
}
