//! The numbers of a metric query as a table: one row a time and a column for each series where they are few, else one row
//! for each number, and on a screen that is too narrow for that a line for each time with its numbers below it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::answer::{Series, time};
use crate::commands::Paint;
use crate::commands::table::{Side, Table};

/// More series than these have no columns of their own.
const COLUMNS_MAX: usize = 8;
/// What stands where a series has no number.
const NOTHING: &str = "-";

/// Writes the numbers for a screen of so many columns, where there is one.
///
/// # Errors
/// Where writing fails.
pub(super) fn write(out: &mut impl Write, series: &[Series], width: Option<usize>, paint: Paint) -> io::Result<()> {
    let names: Vec<String> = series.iter().map(Series::name).collect();
    let fits = |table: &Table| width.is_none_or(|width| table.width() <= width);
    if (1..=COLUMNS_MAX).contains(&series.len()) && series.iter().any(|series| series.values.len() > 1) {
        let table = wide(series, &names);
        if fits(&table) {
            return table.write(out, paint);
        }
    }
    let table = long(series, &names);
    if fits(&table) { table.write(out, paint) } else { stacked(out, &samples(series, &names), paint) }
}

fn stacked(out: &mut impl Write, samples: &[(&str, &(f64, String))], paint: Paint) -> io::Result<()> {
    let width = samples.iter().map(|(_, (_, value))| value.len()).max().unwrap_or(0);
    for of_one_time in samples.chunk_by(|(_, one), (_, other)| key(one.0) == key(other.0)) {
        for (number, (name, (seconds, value))) in of_one_time.iter().enumerate() {
            if number == 0 {
                writeln!(out, "{}", paint.dim(&time(*seconds)))?;
            }
            writeln!(out, "  {value:>width$}  {}", paint.safe(name))?;
        }
    }
    Ok(())
}

/// A time in milliseconds: a number of seconds has no order of its own.
fn key(seconds: f64) -> i64 {
    (seconds * 1e3) as i64
}

fn wide(series: &[Series], names: &[String]) -> Table {
    let mut rows: BTreeMap<i64, Vec<Option<&str>>> = BTreeMap::new();
    for (at, series) in series.iter().enumerate() {
        for (seconds, value) in &series.values {
            rows.entry(key(*seconds)).or_insert_with(|| vec![None; names.len()])[at] = Some(value);
        }
    }
    let columns = names.iter().map(|name| (name.clone(), Side::Right));
    let mut table = Table::new([("time".to_owned(), Side::Left)].into_iter().chain(columns));
    for (milliseconds, values) in rows {
        let cells = values.into_iter().map(|value| value.unwrap_or(NOTHING).to_owned());
        table.push([time(milliseconds as f64 / 1e3)].into_iter().chain(cells));
    }
    table
}

fn long(series: &[Series], names: &[String]) -> Table {
    let mut table = Table::new([
        ("time".to_owned(), Side::Left),
        ("series".to_owned(), Side::Left),
        ("value".to_owned(), Side::Right),
    ]);
    for (name, (seconds, value)) in samples(series, names) {
        table.push([time(*seconds), name.to_owned(), value.clone()]);
    }
    table
}

/// Each number with the name of its series, in the order of time, and at one time in that of the series.
pub(super) fn samples<'a>(series: &'a [Series], names: &'a [String]) -> Vec<(&'a str, &'a (f64, String))> {
    let of = |(series, name): (&'a Series, &'a String)| series.values.iter().map(move |point| (name.as_str(), point));
    let mut samples: Vec<_> = series.iter().zip(names).flat_map(of).collect();
    samples.sort_by_key(|(_, (seconds, _))| key(*seconds));
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, values: &[(f64, &str)]) -> Series {
        let metric = BTreeMap::from([("a".to_owned(), name.to_owned())]);
        Series { metric, values: values.iter().map(|(at, value)| (*at, (*value).to_owned())).collect() }
    }

    fn shown(series: &[Series], width: Option<usize>) -> Vec<String> {
        let mut out = Vec::new();
        write(&mut out, series, width, Paint::plain()).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn few_series_have_a_column_each() {
        let found = [series("x", &[(0.0, "1"), (60.0, "22")]), series("y", &[(60.0, "3")])];
        let expected = [
            "time                      {a=\"x\"}  {a=\"y\"}",
            "1970-01-01T00:00:00.000Z        1        -",
            "1970-01-01T00:01:00.000Z       22        3",
        ];
        assert_eq!(shown(&found, None), expected);
        assert_eq!(shown(&found, Some(42)), expected);
        assert_eq!(shown(&found, Some(41))[0], "time                      series   value", "too narrow for columns");
    }

    #[test]
    fn many_series_and_single_numbers_have_a_row_for_each_number() {
        let found = [series("x", &[(60.0, "7")]), series("y", &[(0.5, "11")])];
        let expected = [
            "time                      series   value",
            "1970-01-01T00:00:00.500Z  {a=\"y\"}     11",
            "1970-01-01T00:01:00.000Z  {a=\"x\"}      7",
        ];
        assert_eq!(shown(&found, None), expected);
        let many: Vec<Series> = (0..9).map(|at| series(&at.to_string(), &[(0.0, "1"), (1.0, "2")])).collect();
        assert_eq!(shown(&many, None).len(), 19);
    }

    #[test]
    fn a_narrow_screen_has_the_numbers_of_a_time_below_it() {
        let found = [series("x", &[(0.0, "1"), (60.0, "22")]), series("y", &[(60.0, "3")])];
        let expected = [
            "1970-01-01T00:00:00.000Z",
            "   1  {a=\"x\"}",
            "1970-01-01T00:01:00.000Z",
            "  22  {a=\"x\"}",
            "   3  {a=\"y\"}",
        ];
        assert_eq!(shown(&found, Some(39)), expected);
        assert!(shown(&[], Some(39)).is_empty() && shown(&[], None).is_empty());
    }
}
