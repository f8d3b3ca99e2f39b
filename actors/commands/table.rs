//! A table of text: a head, aligned columns, one row a line.

use std::io::{self, Write};

use super::width::{columns, filled, filled_before};
use super::{Paint, is_obeyed, shown};

/// What stands between two columns.
const GAP: &str = "  ";

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(String, Side)>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    /// What stands on a line of its own before the row.
    above: Option<String>,
    cells: Vec<String>,
    /// How bad what its last cell says is.
    level: String,
}

/// Text that takes one line and moves no cursor.
fn flat(text: &str) -> String {
    shown(text, is_obeyed)
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(head: impl IntoIterator<Item = (String, Side)>) -> Self {
        Self { head: head.into_iter().map(|(title, side)| (flat(&title), side)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.push_level(cells, "");
    }

    /// Adds a row whose last cell is shown in the colour of a level.
    pub(crate) fn push_level(&mut self, cells: impl IntoIterator<Item = String>, level: &str) {
        self.add(None, cells, level);
    }

    /// Adds a row below a line of its own.
    pub(crate) fn push_below(&mut self, above: &str, cells: impl IntoIterator<Item = String>) {
        self.add(Some(flat(above)), cells, "");
    }

    fn add(&mut self, above: Option<String>, cells: impl IntoIterator<Item = String>, level: &str) {
        let cells: Vec<String> = cells.into_iter().map(|cell| flat(&cell)).collect();
        debug_assert_eq!(cells.len(), self.head.len(), "a cell for each column");
        self.rows.push(Row { above, cells, level: level.to_owned() });
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(at, (title, _)): (usize, &(String, Side))| {
            let cells = self.rows.iter().map(|row| columns(&row.cells[at]));
            cells.chain([columns(title)]).max().unwrap_or(0)
        };
        self.head.iter().enumerate().map(width).collect()
    }

    /// The columns of a screen that its longest row takes.
    pub(crate) fn width(&self) -> usize {
        self.widths().iter().sum::<usize>() + GAP.len() * self.head.len().saturating_sub(1)
    }

    /// Writes it whole, and nothing where it has no rows. A last column on the left is not filled up.
    ///
    /// # Errors
    /// Where writing fails.
    pub(crate) fn write(&self, out: &mut impl Write, paint: Paint) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let widths = self.widths();
        let placed = |at: usize, text: &str| {
            let (side, width, last) = (self.head[at].1, widths[at], at + 1 == widths.len());
            match side {
                Side::Left if last => text.to_owned(),
                Side::Left => filled(text, width),
                Side::Right => filled_before(text, width),
            }
        };
        let head: Vec<String> = self.head.iter().enumerate().map(|(at, (title, _))| placed(at, title)).collect();
        writeln!(out, "{}", paint.bold(&head.join(GAP)))?;
        for Row { above, cells, level } in &self.rows {
            if let Some(above) = above {
                writeln!(out, "{above}")?;
            }
            for (at, cell) in cells.iter().enumerate() {
                let cell = placed(at, cell);
                let cell = if at + 1 == cells.len() { paint.level(level, &cell) } else { cell };
                write!(out, "{}{cell}", if at > 0 { GAP } else { "" })?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_cell_takes_one_line() {
        let mut table =
            Table::new([("time".into(), Side::Left), ("n".into(), Side::Right), ("line".into(), Side::Left)]);
        table.push(["1".into(), "20".into(), "a\nb\x1b[2J".into()]);
        table.push_level(["10:00".into(), "3".into(), "c".into()], "error");
        let mut out = Vec::new();
        table.write(&mut out, Paint::plain()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "time    n  line\n1      20  a\\nb\\u{1b}[2J\n10:00   3  c\n");
        assert_eq!(table.width(), 5 + 2 + 2 + 2 + 13);
    }

    #[test]
    fn wide_letters_do_not_move_the_columns_behind_them() {
        let mut table = Table::new([("name".into(), Side::Left), ("n".into(), Side::Right)]);
        table.push(["日本語".into(), "1".into()]);
        table.push_below("above", ["e\u{301}".into(), "22".into()]);
        let mut out = Vec::new();
        table.write(&mut out, Paint::plain()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name     n\n日本語   1\nabove\ne\u{301}       22\n");
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        let mut out = Vec::new();
        Table::new([("name".into(), Side::Left)]).write(&mut out, Paint::plain()).unwrap();
        assert!(out.is_empty());
    }
}
