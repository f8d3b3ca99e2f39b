//! Series as a chart of letters: one series as a plot with axes, several as a line each, with what was least, most and
//! last; long names have a line of their own, since the end of a name is what tells series apart. Where several points share a column of a line, the greatest is shown; what is not a number leaves a gap.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::answer::{Series, time};
use crate::commands::table::{Side, Table};
use crate::commands::{Paint, selector};

/// Rows of the plot of one series.
const PLOT_ROWS: usize = 10;
/// A plot is at least so wide, whatever the terminal says.
const COLUMNS_MIN: usize = 10;
/// A line that is shorter has its name above it.
const LINE_MIN: usize = 20;
/// The dots of a braille letter, by column and by row from above.
const DOTS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const BARS_ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// What is drawn on.
#[derive(Clone, Copy)]
pub(super) struct Canvas<'a> {
    pub(super) width: usize,
    pub(super) unicode: bool,
    pub(super) paint: Paint,
    /// The range asked for, in seconds since the Unix epoch.
    pub(super) range: (f64, f64),
    /// The query, the title of a series without labels.
    pub(super) query: &'a str,
}

/// Finite points of a series.
type Curve = Vec<(f64, f64)>;

fn curve(series: &Series) -> Curve {
    let number =
        |(at, value): &(f64, String)| Some((*at, value.parse::<f64>().ok().filter(|value| value.is_finite())?));
    series.values.iter().filter_map(number).collect()
}

/// Least and greatest value; `None` where there is no number.
fn extremes(curve: &[(f64, f64)]) -> Option<(f64, f64)> {
    let values = curve.iter().map(|(_, value)| *value);
    Some((values.clone().min_by(f64::total_cmp)?, values.max_by(f64::total_cmp)?))
}

/// A number in a few letters: `12.5k`, `0.031`.
fn short(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        _ if size >= 1e15 || (size > 0.0 && size < 1e-3) => return format!("{value:.2e}"),
        _ if size >= 1e12 => (value / 1e12, "T"),
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let whole = scaled.abs();
    let decimals = if whole >= 100.0 {
        1
    } else if whole >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{scaled:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// The distance of the points of a query, as far as a curve tells: the smallest there is between two.
fn step(curve: &[(f64, f64)]) -> Option<f64> {
    let gaps = curve.windows(2).map(|pair| pair[1].0 - pair[0].0);
    gaps.filter(|gap| *gap > 0.0).min_by(f64::total_cmp)
}

impl Canvas<'_> {
    /// Writes the chart of all series.
    ///
    /// # Errors
    /// Where writing fails.
    pub(super) fn draw(&self, out: &mut impl Write, series: &[Series]) -> io::Result<()> {
        match series {
            [] => Ok(()),
            [one] => self.plot(out, one),
            several => self.lines(out, several),
        }
    }

    /// Where a time stands among so many columns.
    fn column(&self, at: f64, columns: usize) -> usize {
        let (start, end) = self.range;
        let part = if end > start { ((at - start) / (end - start)).clamp(0.0, 1.0) } else { 0.0 };
        (part * (columns - 1) as f64).round() as usize
    }

    fn plot(&self, out: &mut impl Write, series: &Series) -> io::Result<()> {
        let curve = curve(series);
        let title = if series.metric.is_empty() { self.query.to_owned() } else { series.name() };
        title.lines().try_for_each(|line| writeln!(out, "{}", self.paint.bold(line)))?;
        let Some((least, most)) = extremes(&curve) else { return writeln!(out, "no numbers to draw") };
        // A scale that begins at zero shows how large numbers are; far from it, it would hide how they change.
        let low = if least >= 0.0 && (least <= most / 2.0 || least == most) { 0.0 } else { least };
        let high = if most > low { most } else { low + 1.0 };
        let labels: Vec<String> = (0..PLOT_ROWS)
            .map(|row| {
                let value = || short(high - (high - low) * row as f64 / (PLOT_ROWS - 1) as f64);
                if row % 3 == 0 { value() } else { String::new() }
            })
            .collect();
        let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let columns = self.width.saturating_sub(margin + 2).max(COLUMNS_MIN);
        let rows = if self.unicode {
            self.braille(&curve, (low, high), columns)
        } else {
            self.stars(&curve, (low, high), columns)
        };
        let (tick, bar, corner, line) = if self.unicode { ('┤', '│', '└', "─") } else { ('+', '|', '+', "-") };
        for (label, row) in labels.iter().zip(rows) {
            let edge = if label.is_empty() { bar } else { tick };
            writeln!(
                out,
                "{label:>margin$} {}{}",
                self.paint.dim(&edge.to_string()),
                self.paint.accent(row.trim_end())
            )?;
        }
        writeln!(out, "{:margin$} {}", "", self.paint.dim(&format!("{corner}{}", line.repeat(columns))))?;
        let (start, end) = self.ends();
        let between = columns.saturating_sub(start.len() + end.len()).max(1);
        writeln!(out, "{:margin$}  {}", "", self.paint.dim(&format!("{start}{:between$}{end}", "")))?;
        let at = series.values.last().map_or(0.0, |(at, _)| *at);
        let ends = format!("min {}  max {}", short(least), short(most));
        let last = format!("last {} at {}", last(series), time(at));
        let gap = if ends.len() + 2 + last.len() <= self.width { "  " } else { "\n" };
        writeln!(out, "{ends}{gap}{last}")
    }

    /// The ends of the range, without the day where it lies within one.
    fn ends(&self) -> (String, String) {
        let (start, end) = (time(self.range.0), time(self.range.1));
        let from = if start.get(..10) == end.get(..10) { 11 } else { 5 };
        let cut = |text: &str| text.get(from..19).unwrap_or(text).replace('T', " ");
        (cut(&start), format!("{} UTC", cut(&end)))
    }

    /// Where a curve passes in a grid: by column the lowest and the highest row it touches, rows from below. Points further
    /// apart than a step are not joined.
    fn traced(
        &self,
        curve: &[(f64, f64)],
        (low, high): (f64, f64),
        columns: usize,
        rows: usize,
    ) -> Vec<Option<(usize, usize)>> {
        let mut touched: Vec<Option<(usize, usize)>> = vec![None; columns];
        let row = |value: f64| ((value - low) / (high - low) * (rows - 1) as f64).round().max(0.0) as usize;
        let mut touch = |column: usize, from: usize, to: usize| {
            let held: &mut Option<(usize, usize)> = &mut touched[column];
            let (least, most) = held.unwrap_or((from.min(to), from.max(to)));
            *held = Some((least.min(from).min(to), most.max(from).max(to)));
        };
        let joined = step(curve).map_or(0.0, |step| step * 1.5);
        let mut before: Option<(f64, f64)> = None;
        for &(at, value) in curve {
            let column = self.column(at, columns);
            match before.filter(|(earlier, _)| at - earlier <= joined) {
                None => touch(column, row(value), row(value)),
                Some((earlier, old)) => {
                    let first = self.column(earlier, columns);
                    let mut last = row(old);
                    for between in first..=column {
                        let part =
                            if column > first { (between - first) as f64 / (column - first) as f64 } else { 1.0 };
                        let here = row(old + (value - old) * part);
                        touch(between, last, here);
                        last = here;
                    }
                }
            }
            before = Some((at, value));
        }
        touched
    }

    fn braille(&self, curve: &[(f64, f64)], scale: (f64, f64), columns: usize) -> Vec<String> {
        let mut cells = vec![vec![0_u32; columns]; PLOT_ROWS];
        let height = PLOT_ROWS * 4;
        for (column, touched) in self.traced(curve, scale, columns * 2, height).into_iter().enumerate() {
            for row in touched.map_or(0..0, |(least, most)| least..most + 1) {
                let above = height - 1 - row;
                cells[above / 4][column / 2] |= DOTS[column % 2][above % 4];
            }
        }
        let letter = |dots: &u32| char::from_u32(0x2800 + dots).filter(|_| *dots > 0).unwrap_or(' ');
        cells.iter().map(|row| row.iter().map(letter).collect()).collect()
    }

    fn stars(&self, curve: &[(f64, f64)], scale: (f64, f64), columns: usize) -> Vec<String> {
        let touched = self.traced(curve, scale, columns, PLOT_ROWS);
        let row = |row: usize| {
            let star =
                |touched: &Option<(usize, usize)>| touched.is_some_and(|(least, most)| (least..=most).contains(&row));
            touched.iter().map(|touched| if star(touched) { '*' } else { ' ' }).collect()
        };
        (0..PLOT_ROWS).rev().map(row).collect()
    }

    fn lines(&self, out: &mut impl Write, series: &[Series]) -> io::Result<()> {
        let shared = shared(series);
        if !shared.is_empty() {
            let labels = selector(shared.iter().map(|(name, value)| (*name, *value)));
            writeln!(out, "{}", self.paint.dim(&format!("all of {labels}")))?;
        }
        let curves: Vec<Curve> = series.iter().map(curve).collect();
        let (start, end) = self.range;
        let step = curves.iter().filter_map(|curve| step(curve)).min_by(f64::total_cmp);
        let points = step.map_or(usize::MAX, |step| ((end - start) / step) as usize + 1);
        let own = |series: &Series| {
            let own = series.metric.iter().filter(|(name, _)| !shared.contains_key(name.as_str()));
            selector(own.map(|(name, value)| (name.as_str(), value.as_str())))
        };
        let names: Vec<String> = series.iter().map(own).collect();
        let stats: Vec<[String; 3]> = series.iter().zip(&curves).map(|(series, curve)| stats(series, curve)).collect();
        let empty = vec![String::new(); series.len()];
        let beside = laid_out(&names, &empty, "", &stats, true).width() + LINE_MIN <= self.width;
        let around = laid_out(&names, &empty, "", &stats, beside).width();
        let columns = self.width.saturating_sub(around).max(COLUMNS_MIN).min(points);
        let lines: Vec<String> = curves.iter().map(|curve| self.line(curve, columns)).collect();
        let (from, to) = self.ends();
        let between = columns.saturating_sub(from.len() + to.len());
        let title = if between > 0 { format!("{from}{:between$}{to}", "") } else { String::new() };
        laid_out(&names, &lines, &title, &stats, beside).write(out, self.paint)?;
        writeln!(out, "{}", self.paint.dim("each line spans its own min to its max"))
    }

    fn line(&self, curve: &[(f64, f64)], columns: usize) -> String {
        let Some((least, most)) = extremes(curve) else { return " ".repeat(columns) };
        let mut tops: Vec<Option<f64>> = vec![None; columns];
        for (at, value) in curve {
            let top = &mut tops[self.column(*at, columns)];
            *top = Some(top.map_or(*value, |held| held.max(*value)));
        }
        let bars = if self.unicode { BARS } else { BARS_ASCII };
        let bar = |value: f64| {
            // What never changes is drawn in the middle, but for nothing at all.
            let steady = if most == 0.0 { 0.0 } else { 0.5 };
            let part = if most > least { (value - least) / (most - least) } else { steady };
            bars[((part * 8.0) as usize).min(7)]
        };
        tops.into_iter().map(|top| top.map_or(' ', bar)).collect()
    }
}

/// Least, greatest and last value of a series.
fn stats(series: &Series, curve: &[(f64, f64)]) -> [String; 3] {
    let ends = extremes(curve);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    [number(ends.map(|ends| ends.0)), number(ends.map(|ends| ends.1)), last(series)]
}

fn last(series: &Series) -> String {
    let Some((_, value)) = series.values.last() else { return "-".to_owned() };
    value.parse().ok().filter(|value: &f64| value.is_finite()).map_or_else(|| value.clone(), short)
}

/// Lines with their names, beside or above them, and their numbers.
fn laid_out(names: &[String], lines: &[String], title: &str, stats: &[[String; 3]], beside: bool) -> Table {
    let numbers = ["min", "max", "last"].map(|name| (name.to_owned(), Side::Right));
    let line = [(title.to_owned(), Side::Left)];
    let name = beside.then(|| ("series".to_owned(), Side::Left));
    let mut table = Table::new(name.into_iter().chain(line).chain(numbers));
    for ((name, line), stats) in names.iter().zip(lines).zip(stats) {
        let cells = [line.clone()].into_iter().chain(stats.clone());
        if beside {
            table.push([name.clone()].into_iter().chain(cells));
        } else {
            table.push_below(name, cells);
        }
    }
    table
}

/// The labels that all series have with the same value.
fn shared(series: &[Series]) -> BTreeMap<&str, &str> {
    let Some((first, rest)) = series.split_first() else { return BTreeMap::new() };
    let in_all = |(name, value): &(&String, &String)| rest.iter().all(|other| other.metric.get(*name) == Some(*value));
    first.metric.iter().filter(in_all).map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], values: &[(f64, &str)]) -> Series {
        let metric = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Series { metric, values: values.iter().map(|(at, value)| (*at, (*value).to_owned())).collect() }
    }

    fn drawn(width: usize, unicode: bool, range: (f64, f64), series: &[Series]) -> Vec<String> {
        let mut out = Vec::new();
        Canvas { width, unicode, paint: Paint::plain(), range, query: "rate(x)" }.draw(&mut out, series).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_series_is_a_plot_with_axes() {
        let rising: Vec<(f64, String)> = (0..10).map(|at| (f64::from(at), at.to_string())).collect();
        let rising = Series { metric: BTreeMap::new(), values: rising };
        let plot = drawn(13, false, (0.0, 9.0), std::slice::from_ref(&rising));
        let expected = [
            "rate(x)",
            "9 +         *",
            "  |        **",
            "  |       **",
            "6 +      **",
            "  |     **",
            "  |    **",
            "3 +   **",
            "  |  **",
            "  | **",
            "0 +**",
            "  +----------",
            "   00:00:00 00:00:09 UTC",
            "min 0  max 9",
            "last 9 at 1970-01-01T00:00:09.000Z",
        ];
        assert_eq!(plot, expected);
        let plot = drawn(13, true, (0.0, 9.0), &[rising]);
        assert!(plot[1].starts_with("9 ┤") && plot[10].starts_with("0 ┤⣰"), "{plot:#?}");
        assert!(plot.iter().all(|line| line.chars().count() <= 50));
    }

    #[test]
    fn what_is_no_number_and_what_is_missing_leaves_a_gap() {
        let values = [(0.0, "5"), (1.0, "5"), (2.0, "NaN"), (3.0, "+Inf"), (8.0, "5"), (9.0, "5")];
        let plot = drawn(13, false, (0.0, 9.0), &[series(&[], &values)]);
        assert_eq!(plot[1], "   5 +**      **");
        let plot = drawn(13, false, (0.0, 9.0), &[series(&[], &[(0.0, "NaN")])]);
        assert_eq!(plot, ["rate(x)", "no numbers to draw"]);
    }

    #[test]
    fn several_series_are_a_line_each() {
        let one = series(&[("app", "x"), ("level", "error")], &[(0.0, "0"), (1.0, "7"), (3.0, "14")]);
        let two = series(&[("app", "x"), ("level", "info")], &[(1.0, "20000"), (2.0, "NaN")]);
        let expected = [
            "all of {app=\"x\"}",
            "series                 min  max  last",
            "{level=\"error\"}  _= #    0   14    14",
            "{level=\"info\"}    =    20k  20k   NaN",
            "each line spans its own min to its max",
        ];
        let [one, two] = [one, two];
        assert_eq!(drawn(60, false, (0.0, 3.0), &[one, two]), expected);
    }

    #[test]
    fn a_narrow_terminal_has_names_above_their_lines_and_nothing_is_cut() {
        let one = series(&[("app", "a"), ("path", "/cart")], &[(0.0, "0"), (3.0, "14")]);
        let two = series(&[("app", "日本"), ("path", "/cart/add")], &[(1.0, "0"), (2.0, "0")]);
        let expected = [
            "      min  max  last",
            "{app=\"a\",path=\"/cart\"}",
            "_  #    0   14    14",
            "{app=\"日本\",path=\"/cart/add\"}",
            " __     0    0     0",
            "each line spans its own min to its max",
        ];
        assert_eq!(drawn(24, false, (0.0, 3.0), &[one, two]), expected);
    }

    #[test]
    fn a_spike_is_never_averaged_away() {
        let values: Vec<(f64, String)> =
            (0..1_000).map(|at| (f64::from(at), u8::from(at == 500).to_string())).collect();
        let spiky = || Series { metric: BTreeMap::new(), values: values.clone() };
        let lines = drawn(60, true, (0.0, 999.0), &[spiky(), spiky()]);
        assert_eq!(lines[1].matches('█').count(), 1, "{lines:#?}");
        assert!(lines[1].chars().count() <= 60, "{lines:#?}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (12.345, "12.35"),
            (1_234.5, "1234.5"),
            (123_456.0, "123.5k"),
            (-2.5e9, "-2.5G"),
            (0.031, "0.031"),
            (0.000_1, "1.00e-4"),
            (3e15, "3.00e15"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
