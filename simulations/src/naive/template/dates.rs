//! Times as Go writes and reads them, in UTC: a layout is the time 2006-01-02 15:04:05 as it is to look.

use super::Value;
use crate::naive::texts::regex;

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
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The pieces that a layout is made of.
const PIECES: &str = r"2006|06|January|Jan|01|Monday|Mon|02|_2|15|03|04|05|PM|Z07:00|-07:00|-0700|MST|[.]0+|[.]9+";

/// Year, month and day of a day counted from 1970.
fn date(day: i64) -> (i64, i64, i64) {
    let (mut year, mut left) = (1970, day);
    loop {
        let length = if leaps(year) { 366 } else { 365 };
        match left {
            left_now if left_now < 0 => {
                year -= 1;
                left += if leaps(year) { 366 } else { 365 };
            }
            left_now if left_now >= length => {
                year += 1;
                left -= length;
            }
            _ => break,
        }
    }
    let mut month = 1;
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

fn leaps(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(leaps(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|year| 365 + i64::from(leaps(year))).sum();
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}

/// A time in nanoseconds as the layout has it.
pub(super) fn format(layout: &str, time: i64) -> String {
    let (seconds, nanoseconds) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let ((year, month, of_month), weekday) = (date(day), DAYS[day.rem_euclid(7) as usize]);
    let (hour, name) = (second / 3600, MONTHS[month as usize - 1]);
    let piece = |found: &regex::Captures<'_>| match &found[0] {
        "2006" => format!("{year:04}"),
        "06" => format!("{:02}", year % 100),
        "January" => name.to_owned(),
        "Jan" => name[..3].to_owned(),
        "01" => format!("{month:02}"),
        "Monday" => weekday.to_owned(),
        "Mon" => weekday[..3].to_owned(),
        "02" => format!("{of_month:02}"),
        "_2" => format!("{of_month:2}"),
        "15" => format!("{hour:02}"),
        "03" => format!("{:02}", (hour + 11) % 12 + 1),
        "04" => format!("{:02}", second / 60 % 60),
        "05" => format!("{:02}", second % 60),
        "PM" => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
        "Z07:00" => "Z".to_owned(),
        "-07:00" => "+00:00".to_owned(),
        "-0700" => "+0000".to_owned(),
        "MST" => "UTC".to_owned(),
        fraction => {
            let digits = format!(".{nanoseconds:09}")[..fraction.len()].to_owned();
            let short = digits.trim_end_matches('0').trim_end_matches('.').to_owned();
            if fraction.starts_with(".9") { short } else { digits }
        }
    };
    regex(PIECES).replace_all(layout, piece).into_owned()
}

/// Reads a time that is written as the layout says; a fraction may follow the seconds in any case.
fn parse(layout: &str, text: &str) -> Option<i64> {
    let (mut rest, mut from) = (text, 0);
    let [mut year, mut month, mut day, mut hour, mut minute, mut second, mut fraction] = [1970, 1, 1, 0, 0, 0, 0];
    let number = |rest: &mut &str, digits: usize| {
        let value: i64 = rest.get(..digits)?.parse().ok()?;
        *rest = &rest[digits..];
        Some(value)
    };
    for piece in regex(PIECES).find_iter(layout) {
        rest = rest.strip_prefix(&layout[from..piece.start()])?;
        from = piece.end();
        match piece.as_str() {
            "2006" => year = number(&mut rest, 4)?,
            "01" => month = number(&mut rest, 2)?,
            "02" => day = number(&mut rest, 2)?,
            "15" => hour = number(&mut rest, 2)?,
            "04" => minute = number(&mut rest, 2)?,
            "05" => second = number(&mut rest, 2)?,
            "Z07:00" => rest = rest.strip_prefix('Z')?,
            piece if piece.starts_with('.') => {}
            _ => return None,
        }
        let digits = regex(r"^[.]\d+").find(rest).map_or("", |found| found.as_str());
        if piece.as_str() == "05" && !digits.is_empty() {
            fraction = format!("{:0<9}", &digits[1..]).get(..9)?.parse().ok()?;
            rest = &rest[digits.len()..];
        }
    }
    rest = rest.strip_prefix(&layout[from..])?;
    let sound = (1..=12).contains(&month) && day >= 1 && day <= days_of(year, month) && hour < 24 && minute < 60;
    let seconds = day_of(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    (sound && second < 60 && rest.is_empty()).then_some(seconds * 1_000_000_000 + fraction)
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Option<Value> {
    Some(match (name, arguments) {
        ("date", [Value::Text(layout), Value::Time(time)]) => Value::Text(format(layout, *time)),
        ("toDate", [Value::Text(layout), Value::Text(text)]) => Value::Time(parse(layout, text)?),
        ("toDateInZone", [Value::Text(layout), Value::Text(zone), Value::Text(text)]) if zone == "UTC" => {
            Value::Time(parse(layout, text)?)
        }
        ("unixEpoch", [Value::Time(time)]) => Value::Text(time.div_euclid(1_000_000_000).to_string()),
        ("unixEpochMillis", [Value::Time(time)]) => Value::Text(time.div_euclid(1_000_000).to_string()),
        ("unixEpochNanos", [Value::Time(time)]) => Value::Text(time.to_string()),
        ("unixToTime", [Value::Text(epoch)]) => {
            // Days, seconds, milliseconds, microseconds or nanoseconds, by the number of digits.
            let unit = match epoch.len() {
                5 => DAY * 1_000_000_000,
                10 => 1_000_000_000,
                13 => 1_000_000,
                16 => 1_000,
                19 => 1,
                _ => return None,
            };
            Value::Time(epoch.parse::<i64>().ok()? * unit)
        }
        _ => return None,
    })
}
