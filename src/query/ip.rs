//! `ip("..")`: an address, a network or a range of addresses, and whether a text holds one of its addresses.
//!
//! A line has no grammar, so an address in it is a longest run of the characters that addresses of the family are made
//! of, without the dots and colons of the text around it. IPv4 and IPv6 addresses never meet each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// No such address, network or range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// Neither an address nor two of them with a `-` between, nor an address and a length of its prefix.
    #[error("expected an address, a range such as 10.0.0.1-10.0.0.9 or a network such as 10.0.0.0/8")]
    Form,
    /// The prefix is longer than the address.
    #[error("the length of the prefix is above {0}")]
    Prefix(u8),
    /// The ends of a range are of different families, or the wrong way round.
    #[error("the first address of the range must be at most the last, and of the same family")]
    Order,
}

/// The addresses of one family from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpRange {
    /// Of IPv4.
    V4(Ipv4Addr, Ipv4Addr),
    /// Of IPv6.
    V6(Ipv6Addr, Ipv6Addr),
}

impl IpRange {
    /// Reads `192.0.2.0`, `192.168.0.1-192.189.10.12`, `2001:db8::/32`; bits of a network below its prefix say nothing.
    pub fn new(text: &str) -> Result<Self, IpError> {
        if let Some((address, length)) = text.split_once('/') {
            return network(address.parse().map_err(|_| IpError::Form)?, length);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| IpError::Form);
        match (address(first)?, address(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => Ok(Self::V4(first, last)),
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => Ok(Self::V6(first, last)),
            _ => Err(IpError::Order),
        }
    }

    /// Whether the value of a label holds one of the addresses; a port or a zone may stand beside it.
    pub fn holds(&self, value: &str) -> bool {
        self.is_in_line(value.as_bytes())
    }

    /// Whether a line holds one of the addresses.
    pub fn is_in_line(&self, line: &[u8]) -> bool {
        match self {
            Self::V4(first, last) => runs(line, is_v4).any(|run| {
                let run = run.trim_matches('.');
                run.len() >= "0.0.0.0".len()
                    && run.parse().is_ok_and(|found: Ipv4Addr| *first <= found && found <= *last)
            }),
            Self::V6(first, last) => runs(line, is_v6).any(|run| {
                run.matches(':').count() >= 2
                    && lone(run).parse().is_ok_and(|found: Ipv6Addr| *first <= found && found <= *last)
            }),
        }
    }
}

fn network(address: IpAddr, length: &str) -> Result<IpRange, IpError> {
    let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length: u32 = if plain { length.parse().map_err(|_| IpError::Form)? } else { return Err(IpError::Form) };
    match address {
        IpAddr::V4(address) if length <= 32 => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Ok(IpRange::V4((address.to_bits() & !host).into(), (address.to_bits() | host).into()))
        }
        IpAddr::V6(address) if length <= 128 => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Ok(IpRange::V6((address.to_bits() & !host).into(), (address.to_bits() | host).into()))
        }
        IpAddr::V4(_) => Err(IpError::Prefix(32)),
        IpAddr::V6(_) => Err(IpError::Prefix(128)),
    }
}

fn is_v4(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.'
}

fn is_v6(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b':' || byte == b'.'
}

/// The longest runs of bytes that `wanted` takes, all of them ASCII.
fn runs(line: &[u8], wanted: fn(u8) -> bool) -> impl Iterator<Item = &str> {
    let runs = line.split(move |byte| !wanted(*byte)).filter(|run| !run.is_empty());
    runs.map(|run| std::str::from_utf8(run).expect("only ASCII bytes are wanted"))
}

/// Without the dots around an address, and without a colon that is not half of a `::`.
fn lone(run: &str) -> &str {
    let run = run.trim_matches('.');
    let run = if run.starts_with("::") { run } else { run.strip_prefix(':').unwrap_or(run) };
    if run.ends_with("::") { run } else { run.strip_suffix(':').unwrap_or(run) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> IpRange {
        IpRange::new(text).unwrap()
    }

    #[test]
    fn the_documented_lines_are_told_apart() {
        let lines = [
            "3.180.71.3 - - [17/May/2015:08:05:32 +0000] \"GET /downloads/product_1 HTTP/1.1\" 304 0 \"-\"",
            "80.91.33.133 - - [17/May/2015:08:05:14 +0000] \"GET /downloads/product_1 HTTP/1.1\" 304 0 \"-\"",
            "46.4.66.76 - - [17/May/2015:08:05:45 +0000] \"GET /downloads/product_1 HTTP/1.1\" 404 318 \"-\"",
            "93.180.71.3 - - [17/May/2015:08:05:26 +0000] \"GET /downloads/product_1 HTTP/1.1\" 404 324 \"-\"",
        ];
        for (text, want) in [
            ("3.180.71.3", [true, false, false, false]),
            ("93.180.71.3", [false, false, false, true]),
            ("3.180.71.3-80.91.33.133", [true, true, true, false]),
            ("0.0.0.0/0", [true; 4]),
            ("46.0.0.0/8", [false, false, true, false]),
            ("::/0", [false; 4]),
        ] {
            assert_eq!(lines.map(|line| range(text).is_in_line(line.as_bytes())), want, "{text}");
        }
    }

    #[test]
    fn every_documented_form_is_read() {
        for (text, inside, outside) in [
            ("192.0.2.0", vec!["192.0.2.0"], vec!["192.0.2.1", "192.0.2", "", "x"]),
            ("::1", vec!["::1", "0:0:0:0:0:0:0:1", "[::1]:80"], vec!["::2", "127.0.0.1"]),
            ("192.168.0.1-192.189.10.12", vec!["192.168.0.1", "192.189.10.12", "192.170.0.0"], vec!["192.189.10.13"]),
            ("2001:db8::1-2001:db8::8", vec!["2001:db8::1", "2001:DB8::8"], vec!["2001:db8::9", "2001:db8::"]),
            ("192.51.100.0/24", vec!["192.51.100.255", "192.51.100.0:443"], vec!["192.51.101.0"]),
            ("2001:db8::/32", vec!["2001:db8:ffff::1"], vec!["2001:db9::"]),
            ("192.168.4.5/16", vec!["192.168.0.0", "192.168.255.255"], vec!["192.169.0.0"]),
            ("10.0.0.1/32", vec!["10.0.0.1"], vec!["10.0.0.0", "10.0.0.2"]),
        ] {
            for value in inside {
                assert!(range(text).holds(value), "{value} in {text}");
            }
            for value in outside {
                assert!(!range(text).holds(value), "{value} in {text}");
            }
        }
    }

    #[test]
    fn the_text_around_an_address_does_not_hide_it() {
        for line in [
            "peer=10.1.2.3:80 ok",
            "from 10.1.2.3.",
            "\u{1b}[32m10.1.2.3\u{1b}[0m",
            "é10.1.2.3é",
            "(10.1.2.3)",
            "9 10.1.2.3",
        ] {
            assert!(range("10.0.0.0/8").is_in_line(line.as_bytes()), "{line}");
        }
        for line in ["addr:fe80::1", "fe80::1%eth0", "[fe80::1]:443", "peer fe80::1: gone", "at fe80::1.", "fe80::"] {
            assert!(range("fe80::/10").is_in_line(line.as_bytes()), "{line}");
        }
        for line in ["10.1.2.3.4", "10.1.2", "10.1.2.256", "110.1.2.3", "10.1.2.03", "10..1.2.3", "2026-11-21T10:11:12"]
        {
            assert!(!range("10.0.0.0/8").is_in_line(line.as_bytes()), "{line}");
        }
        assert!(!range("::/0").is_in_line(b"at 12:34:56 it said a:b:c"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (text, want) in [
            ("", IpError::Form),
            ("x", IpError::Form),
            ("10.0.0", IpError::Form),
            ("10.0.0.1-", IpError::Form),
            ("10.0.0.0/", IpError::Form),
            ("10.0.0.0/+8", IpError::Form),
            ("10.0.0.0/08", IpError::Form),
            ("10.0.0.0/33", IpError::Prefix(32)),
            ("::/129", IpError::Prefix(128)),
            ("10.0.0.9-10.0.0.1", IpError::Order),
            ("10.0.0.1-::1", IpError::Order),
        ] {
            assert_eq!(IpRange::new(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "\\PC{0,40}",
            close in "[0-9a-f:./-]{0,40}",
            line in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            for text in [text, close] {
                if let Ok(range) = IpRange::new(&text) {
                    range.is_in_line(&line);
                }
                range("0.0.0.0/0").holds(&text);
                range("::/0").holds(&text);
            }
        }

        #[test]
        fn an_address_is_found_wherever_it_stands(bits in any::<u32>(), wide in any::<u128>(), length in 0_u32..=32) {
            let (narrow, wide) = (Ipv4Addr::from(bits), Ipv6Addr::from(wide));
            let line = format!("GET {narrow} [{wide}]:80");
            let other = Ipv4Addr::from(bits ^ 1);
            let long = length * 4;
            for (text, want) in [
                (format!("{narrow}/{length}"), true),
                (format!("{wide}/{long}"), true),
                (format!("{other}/32"), false),
            ] {
                prop_assert_eq!(range(&text).is_in_line(line.as_bytes()), want, "{}", text);
            }
        }
    }
}
