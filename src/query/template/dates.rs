//! Times as Go's layouts write and read them: `2006-01-02T15:04:05.999Z07:00`. There is no database of time zones: a
//! time is in UTC, or at the offset that was read with it.

use std::fmt;

use crate::time::{days_in, days_since_epoch};

const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, and the zone that it is written in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Time {
    /// Seconds since the Unix epoch.
    pub(super) seconds: i64,
    /// Nanoseconds after them, below a second.
    pub(super) nanos: u32,
    /// Seconds east of UTC.
    offset: i64,
    /// `None`: only the offset is known.
    zone: Option<String>,
}

/// A time's parts in its own zone.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    weekday: usize,
    day_of_year: i64,
}

/// What a layout asks for.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Year,
    ShortYear,
    Month,
    ShortMonth,
    /// Digits, and at least two of them where padded. Of days and hours alike.
    MonthNumber(Pad),
    Weekday,
    ShortWeekday,
    Day(Pad),
    DayOfYear(Pad),
    Hour,
    Hour12(Pad),
    Minute(Pad),
    Second(Pad),
    Noon {
        upper: bool,
    },
    Zone,
    Offset {
        /// UTC is `Z`.
        z: bool,
        colons: bool,
        minutes: bool,
        seconds: bool,
    },
    /// A point or comma and digits of a second; `trimmed`: without zeros at the end, and perhaps without any.
    Fraction {
        point: char,
        digits: usize,
        trimmed: bool,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Pad {
    None,
    Zero,
    Blank,
}

/// Longer ones before their own beginnings.
const PARTS: [(&str, Part); 37] = [
    ("January", Part::Month),
    ("Jan", Part::ShortMonth),
    ("Monday", Part::Weekday),
    ("Mon", Part::ShortWeekday),
    ("MST", Part::Zone),
    ("002", Part::DayOfYear(Pad::Zero)),
    ("01", Part::MonthNumber(Pad::Zero)),
    ("02", Part::Day(Pad::Zero)),
    ("03", Part::Hour12(Pad::Zero)),
    ("04", Part::Minute(Pad::Zero)),
    ("05", Part::Second(Pad::Zero)),
    ("06", Part::ShortYear),
    ("15", Part::Hour),
    ("1", Part::MonthNumber(Pad::None)),
    ("2006", Part::Year),
    ("2", Part::Day(Pad::None)),
    ("__2", Part::DayOfYear(Pad::Blank)),
    ("_2", Part::Day(Pad::Blank)),
    ("3", Part::Hour12(Pad::None)),
    ("4", Part::Minute(Pad::None)),
    ("5", Part::Second(Pad::None)),
    ("PM", Part::Noon { upper: true }),
    ("pm", Part::Noon { upper: false }),
    ("-070000", offset(false, false, true, true)),
    ("-07:00:00", offset(false, true, true, true)),
    ("-0700", offset(false, false, true, false)),
    ("-07:00", offset(false, true, true, false)),
    ("-07", offset(false, false, false, false)),
    ("Z070000", offset(true, false, true, true)),
    ("Z07:00:00", offset(true, true, true, true)),
    ("Z0700", offset(true, false, true, false)),
    ("Z07:00", offset(true, true, true, false)),
    ("Z07", offset(true, false, false, false)),
    (".0", fraction('.', false)),
    (",0", fraction(',', false)),
    (".9", fraction('.', true)),
    (",9", fraction(',', true)),
];

const fn offset(z: bool, colons: bool, minutes: bool, seconds: bool) -> Part {
    Part::Offset { z, colons, minutes, seconds }
}

const fn fraction(point: char, trimmed: bool) -> Part {
    Part::Fraction { point, digits: 1, trimmed }
}

/// The part that a layout begins with, and its length there.
fn part_at(layout: &str) -> Option<(Part, usize)> {
    // An underscore before a year is itself.
    let (name, part) = PARTS.iter().find(|(name, _)| layout.starts_with(name) && !layout.starts_with("_2006"))?;
    let after = &layout[name.len()..];
    let short = matches!(part, Part::ShortMonth | Part::ShortWeekday);
    if short && after.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let Part::Fraction { point, trimmed, .. } = *part else { return Some((*part, name.len())) };
    let digits = layout.len() - 1 - layout[1..].trim_start_matches(if trimmed { '9' } else { '0' }).len();
    let ends = !layout[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
    ends.then_some((Part::Fraction { point, digits, trimmed }, 1 + digits))
}

/// A layout's text before its first part, that part, and the layout after it.
fn next_part(layout: &str) -> (&str, Option<Part>, &str) {
    for (at, _) in layout.char_indices() {
        if let Some((part, length)) = part_at(&layout[at..]) {
            return (&layout[..at], Some(part), &layout[at + length..]);
        }
    }
    (layout, None, "")
}

impl Time {
    /// In UTC.
    pub(super) fn utc(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos, offset: 0, zone: Some("UTC".to_owned()) }
    }

    /// Nanoseconds since the Unix epoch, in UTC.
    pub(super) fn from_nanos(nanos: i64) -> Self {
        let second = 1_000_000_000;
        Self::utc(nanos.div_euclid(second), nanos.rem_euclid(second) as u32)
    }

    /// What Go gives where a text is no time: the first second of the year 1.
    pub(super) fn zero() -> Self {
        Self::utc(-62_135_596_800, 0)
    }

    /// A count of so many to a second since the Unix epoch; past the range of integers it wraps, as in Go.
    pub(super) fn count(&self, per_second: u32) -> i64 {
        let fraction = i64::from(self.nanos) / (1_000_000_000 / i64::from(per_second));
        self.seconds.wrapping_mul(i64::from(per_second)).wrapping_add(fraction)
    }

    fn civil(&self) -> Civil {
        let local = self.seconds.saturating_add(self.offset);
        let days = local.div_euclid(DAY);
        // Years begin in March, so that the leap day is the last one.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Civil {
            year,
            month,
            day,
            second_of_day: local.rem_euclid(DAY),
            weekday: (days + 4).rem_euclid(7) as usize,
            day_of_year: days - days_since_epoch(year, 1, 1) + 1,
        }
    }

    /// As a layout says.
    pub(super) fn format(&self, layout: &str) -> String {
        let civil = self.civil();
        let (mut out, mut rest) = (String::with_capacity(layout.len() + 16), layout);
        loop {
            let (before, part, after) = next_part(rest);
            out.push_str(before);
            let Some(part) = part else { return out };
            self.format_part(part, &civil, &mut out);
            rest = after;
        }
    }

    fn format_part(&self, part: Part, civil: &Civil, out: &mut String) {
        let (hour, minute, second) =
            (civil.second_of_day / 3_600, civil.second_of_day / 60 % 60, civil.second_of_day % 60);
        let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
        let month = MONTHS[civil.month as usize - 1];
        let text = match part {
            Part::Year if civil.year < 0 => format!("-{:04}", -civil.year),
            Part::Year => format!("{:04}", civil.year),
            Part::ShortYear => format!("{:02}", civil.year.rem_euclid(100)),
            Part::Month => month.to_owned(),
            Part::ShortMonth => month[..3].to_owned(),
            Part::MonthNumber(pad) => padded(civil.month, pad, 2),
            Part::Weekday => WEEKDAYS[civil.weekday].to_owned(),
            Part::ShortWeekday => WEEKDAYS[civil.weekday][..3].to_owned(),
            Part::Day(pad) => padded(civil.day, pad, 2),
            Part::DayOfYear(pad) => padded(civil.day_of_year, pad, 3),
            Part::Hour => padded(hour, Pad::Zero, 2),
            Part::Hour12(pad) => padded(hour12, pad, 2),
            Part::Minute(pad) => padded(minute, pad, 2),
            Part::Second(pad) => padded(second, pad, 2),
            Part::Noon { upper } => match (hour >= 12, upper) {
                (true, true) => "PM",
                (true, false) => "pm",
                (false, true) => "AM",
                (false, false) => "am",
            }
            .to_owned(),
            Part::Zone => self.zone.clone().unwrap_or_else(|| {
                let whole = self.offset % 3_600 == 0;
                self.format(if whole { "-07" } else { "-0700" })
            }),
            Part::Offset { z: true, .. } if self.offset == 0 => "Z".to_owned(),
            Part::Offset { colons, minutes, seconds, .. } => {
                let (sign, east) = (if self.offset < 0 { '-' } else { '+' }, self.offset.abs());
                let colon = if colons { ":" } else { "" };
                let mut text = format!("{sign}{:02}", east / 3_600);
                if minutes {
                    text += &format!("{colon}{:02}", east / 60 % 60);
                }
                if seconds {
                    text += &format!("{colon}{:02}", east % 60);
                }
                text
            }
            Part::Fraction { point, digits, trimmed } => {
                let all = format!("{:09}", self.nanos);
                let kept = &all[..digits.min(9)];
                let kept = if trimmed { kept.trim_end_matches('0') } else { kept };
                if kept.is_empty() { String::new() } else { format!("{point}{kept}") }
            }
        };
        out.push_str(&text);
    }

    /// Reads a text that a layout describes; where it says no zone, in UTC. `None` where the text does not follow it.
    pub(super) fn parse(layout: &str, text: &str) -> Option<Self> {
        let mut found = Found::default();
        let (mut layout, mut text) = (layout, text);
        loop {
            let (before, part, after) = next_part(layout);
            text = skip(before, text)?;
            let Some(part) = part else { break };
            let fraction_follows = matches!(part_at(after), Some((Part::Fraction { .. }, _)));
            text = found.read(part, fraction_follows, text)?;
            layout = after;
        }
        if text.is_empty() { found.time() } else { None }
    }
}

/// As Go writes a time of itself: `2006-01-02 15:04:05.999999999 -0700 MST`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = if self.zone.is_some() { "MST" } else { "-0700" };
        f.write_str(&self.format(&format!("2006-01-02 15:04:05.999999999 -0700 {zone}")))
    }
}

fn padded(number: i64, pad: Pad, width: usize) -> String {
    match pad {
        Pad::None => number.to_string(),
        Pad::Zero => format!("{number:0width$}"),
        Pad::Blank => format!("{number:width$}"),
    }
}

/// What follows a layout's text in a time's; a blank stands for any number of them.
fn skip<'a>(layout: &str, text: &'a str) -> Option<&'a str> {
    let (mut layout, mut text) = (layout, text);
    while let Some(c) = layout.chars().next() {
        if c == ' ' {
            if !text.is_empty() && !text.starts_with(' ') {
                return None;
            }
            (layout, text) = (layout.trim_start_matches(' '), text.trim_start_matches(' '));
        } else {
            (layout, text) = (&layout[c.len_utf8()..], text.strip_prefix(c)?);
        }
    }
    Some(text)
}

/// The parts of a time that were read.
#[derive(Default)]
struct Found {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: u32,
    /// After noon, where that was said.
    after_noon: Option<bool>,
    offset: Option<i64>,
    zone: Option<String>,
}

/// A number of `least` to `most` digits within bounds, and what follows it.
fn digits(text: &str, least: usize, most: usize, bounds: (i64, i64)) -> Option<(i64, &str)> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let number = text[..length].parse().ok().filter(|number| (bounds.0..=bounds.1).contains(number))?;
    (length >= least).then_some((number, &text[length..]))
}

fn number(text: &str, pad: Pad, width: usize, bounds: (i64, i64)) -> Option<(i64, &str)> {
    match pad {
        Pad::Zero => digits(text, width, width, bounds),
        Pad::None => digits(text, 1, width, bounds),
        Pad::Blank => digits(text.trim_start_matches(' '), 1, width, bounds),
    }
}

/// Which of the names a text begins with, in any case, and what follows it.
fn named<'a>(names: &[&str], length: Option<usize>, text: &'a str) -> Option<(usize, &'a str)> {
    names.iter().enumerate().find_map(|(at, name)| {
        let name = &name[..length.unwrap_or(name.len())];
        let head = text.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name))?;
        Some((at, &text[head.len()..]))
    })
}

impl Found {
    fn read<'a>(&mut self, part: Part, fraction_follows: bool, text: &'a str) -> Option<&'a str> {
        let mut rest = text;
        let mut take = |found: Option<(i64, &'a str)>| {
            let (number, after) = found?;
            rest = after;
            Some(number)
        };
        match part {
            Part::Year => self.year = take(digits(text, 4, 4, (0, 9_999)))?,
            Part::ShortYear => {
                let year = take(digits(text, 2, 2, (0, 99)))?;
                self.year = if year >= 69 { 1_900 + year } else { 2_000 + year };
            }
            Part::MonthNumber(pad) => self.month = Some(take(number(text, pad, 2, (1, 12)))?),
            Part::Day(pad) => self.day = Some(take(number(text, pad, 2, (1, 31)))?),
            Part::DayOfYear(pad) => self.day_of_year = Some(take(number(text, pad, 3, (1, 366)))?),
            Part::Hour => self.hour = take(digits(text, 1, 2, (0, 23)))?,
            Part::Hour12(pad) => self.hour = take(number(text, pad, 2, (0, 12)))?,
            Part::Minute(pad) => self.minute = take(number(text, pad, 2, (0, 59)))?,
            Part::Second(pad) => {
                self.second = take(number(text, pad, 2, (0, 59)))?;
                // A fraction may follow a second even where the layout has none.
                let fraction =
                    rest.strip_prefix(['.', ',']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                return if fraction && !fraction_follows { self.fraction(rest, None) } else { Some(rest) };
            }
            Part::Fraction { digits, trimmed, .. } => return self.fraction(text, (!trimmed).then_some(digits)),
            Part::Month | Part::ShortMonth => {
                let (at, after) = named(&MONTHS, (part == Part::ShortMonth).then_some(3), text)?;
                self.month = Some(at as i64 + 1);
                rest = after;
            }
            Part::Weekday | Part::ShortWeekday => {
                rest = named(&WEEKDAYS, (part == Part::ShortWeekday).then_some(3), text)?.1;
            }
            Part::Noon { upper } => {
                let (at, after) = named(if upper { &["AM", "PM"] } else { &["am", "pm"] }, None, text)?;
                self.after_noon = Some(at == 1);
                rest = after;
            }
            Part::Zone => {
                let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
                let zone = (3..=5).contains(&length).then(|| &text[..length])?;
                self.zone = Some(zone.to_owned());
                rest = &text[length..];
            }
            Part::Offset { z, colons, minutes, seconds } => return self.offset(text, z, colons, minutes, seconds),
        }
        Some(rest)
    }

    /// A point and digits: exactly so many, or as many as there are.
    fn fraction<'a>(&mut self, text: &'a str, exactly: Option<usize>) -> Option<&'a str> {
        let Some(after) = text.strip_prefix(['.', ',']) else { return exactly.is_none().then_some(text) };
        let length = after.bytes().take_while(u8::is_ascii_digit).count();
        let length = exactly.map_or(Some(length), |exactly| (length >= exactly).then_some(exactly))?;
        if length == 0 {
            return Some(text);
        }
        let kept = &after[..length.min(9)];
        self.nanos = format!("{kept:0<9}").parse().ok()?;
        Some(&after[length..])
    }

    fn offset<'a>(&mut self, text: &'a str, z: bool, colons: bool, minutes: bool, seconds: bool) -> Option<&'a str> {
        if z && let Some(after) = text.strip_prefix('Z') {
            (self.offset, self.zone) = (Some(0), Some("UTC".to_owned()));
            return Some(after);
        }
        let sign = if text.starts_with('-') { -1 } else { 1 };
        let (hour, mut rest) = digits(text.strip_prefix(['+', '-'])?, 2, 2, (0, 24))?;
        let mut east = hour * 3_600;
        for (wanted, unit) in [(minutes, 60), (seconds, 1)] {
            if wanted {
                let after = if colons { rest.strip_prefix(':')? } else { rest };
                let (count, after) = digits(after, 2, 2, (0, 59))?;
                east += count * unit;
                rest = after;
            }
        }
        self.offset = Some(sign * east);
        Some(rest)
    }

    fn time(self) -> Option<Time> {
        let hour = match self.after_noon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            Some(_) | None => self.hour,
        };
        let days = match self.day_of_year {
            Some(day) => days_since_epoch(self.year, 1, 1) + day - 1,
            None => {
                let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
                if day > days_in(self.year, month) {
                    return None;
                }
                days_since_epoch(self.year, month, day)
            }
        };
        let offset = self.offset.unwrap_or(0);
        let seconds = days * DAY + hour * 3_600 + self.minute * 60 + self.second - offset;
        // Without an offset a name is taken at its word, and the time as if in UTC.
        let zone = match (self.zone, self.offset) {
            (Some(zone), _) => Some(zone),
            (None, Some(0) | None) => Some("UTC".to_owned()),
            (None, Some(_)) => None,
        };
        Some(Time { seconds, nanos: self.nanos, offset, zone })
    }
}
