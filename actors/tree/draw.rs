//! Draws a node's tree for a terminal: box lines, aligned columns, a colour per state.

use std::fmt::Write as _;

use super::{ActorReport, ActorState, TreeReport};

const HEADS: [&str; 6] = ["ACTOR", "STATE", "FOR", "RESTARTS", "MAILBOX", "HANDLED"];
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

struct Row<'r> {
    cells: [String; 6],
    notes: String,
    actor: &'r ActorReport,
    lines: usize,
}

/// The tree as text, one actor a line, each line cut at `width` columns; escape sequences only with `colour`.
pub fn draw(report: &TreeReport, colour: bool, width: usize) -> String {
    let mut rows = Vec::new();
    for actor in &report.actors {
        collect(actor, "", "", &mut rows);
    }
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let (bold, dim, plain) = if colour { (BOLD, DIM, PLAIN) } else { ("", "", "") };
    let mut out = String::new();
    let title = format!(
        "{} · node {} · boot {} · up {}",
        printable(&report.name),
        report.node,
        report.boot,
        span(report.seconds)
    );
    line(&mut out, &[(bold, &title)], plain, width);
    let head = aligned(&HEADS.map(str::to_owned), &widths);
    line(&mut out, &[(dim, &format!("{}  NOTES", head.concat()))], plain, width);
    for row in &rows {
        let cells = aligned(&row.cells, &widths);
        let (lines, name) = split_at_char(&cells[0], row.lines);
        let notes = format!("  {}", row.notes);
        let state = if colour { paint(row.actor.state) } else { "" };
        let late = if colour && row.actor.restarts > 0 { "\x1b[33m" } else { "" };
        let parts: [(&str, &str); 8] = [
            (dim, lines),
            ("", name),
            (state, &cells[1]),
            ("", &cells[2]),
            (late, &cells[3]),
            ("", &cells[4]),
            ("", &cells[5]),
            (dim, notes.trim_end()),
        ];
        line(&mut out, &parts, plain, width);
    }
    out
}

/// Writes parts of a line, as far as they fit.
fn line(out: &mut String, parts: &[(&str, &str)], plain: &str, width: usize) {
    let mut text = String::new();
    let mut left = width;
    for (paint, part) in parts {
        let part = cut(part, left);
        left -= part.chars().count();
        if part.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = if paint.is_empty() { write!(text, "{part}") } else { write!(text, "{paint}{part}{plain}") };
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

fn paint(state: ActorState) -> &'static str {
    match state {
        ActorState::Running => "\x1b[32m",
        ActorState::Starting => "\x1b[36m",
        ActorState::BackingOff => "\x1b[33m",
        ActorState::Down => "\x1b[1;31m",
        ActorState::Stopped => "\x1b[2m",
    }
}

fn collect<'r>(actor: &'r ActorReport, first: &str, rest: &str, rows: &mut Vec<Row<'r>>) {
    let leaf = actor.name.rsplit('/').next().unwrap_or(&actor.name);
    rows.push(Row {
        cells: [
            format!("{first}{}", printable(leaf)),
            actor.state.to_string(),
            span(actor.seconds),
            actor.restarts.to_string(),
            actor.mailbox.to_string(),
            actor.handled.to_string(),
        ],
        notes: notes(actor),
        actor,
        lines: first.chars().count(),
    });
    for (at, child) in actor.children.iter().enumerate() {
        let (branch, below) = if at + 1 == actor.children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        collect(child, &format!("{rest}{branch}"), &format!("{rest}{below}"), rows);
    }
}

fn notes(actor: &ActorReport) -> String {
    let mut notes: Vec<String> =
        actor.details.iter().map(|(name, value)| printable(&format!("{name}={value}"))).collect();
    if let Some(reason) = &actor.last_reason {
        notes.push(format!("last: {}", printable(reason)));
    }
    if let Some(restart) = &actor.restart {
        notes.push(format!("[{restart}]"));
    }
    notes.join(" ")
}

/// Names on the left, numbers on the right of their column, two spaces between.
fn aligned(cells: &[String; 6], widths: &[usize; 6]) -> [String; 6] {
    std::array::from_fn(|at| {
        let (cell, width) = (&cells[at], widths[at]);
        match at {
            0 => format!("{cell:<width$}"),
            1 => format!("  {cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        }
    })
}

fn split_at_char(text: &str, chars: usize) -> (&str, &str) {
    let at = text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    text.split_at(at)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// A panic's text is whatever the panic said: no control character of it reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A length of time in its two largest units.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a saturating cast of a length of time")]
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millpond::id::{Boot, NodeId};

    use super::*;

    fn actor(name: &str, state: ActorState, children: Vec<ActorReport>) -> ActorReport {
        ActorReport {
            name: name.to_owned(),
            kind: String::new(),
            parent: None,
            state,
            since: String::new(),
            seconds: 75.0,
            restarts: 0,
            last_reason: None,
            last_exit: None,
            mailbox: 0,
            handled: 12_345,
            restart: None,
            details: BTreeMap::new(),
            children,
        }
    }

    fn report() -> TreeReport {
        let mut replica = actor("shard-0/replica", ActorState::BackingOff, vec![]);
        replica.restarts = 2;
        replica.last_reason = Some("boom\n\x1b[2J".to_owned());
        replica.details.insert("role".to_owned(), "leader".to_owned());
        let shard = actor("shard-0", ActorState::Running, vec![replica]);
        let shards = actor("shards", ActorState::Running, vec![shard]);
        let listeners = actor("listeners", ActorState::Down, vec![]);
        TreeReport {
            node: NodeId(1),
            name: "node-1".to_owned(),
            boot: Boot(3),
            started: String::new(),
            seconds: 7_260.0,
            actors: vec![actor("node", ActorState::Running, vec![shards, listeners])],
        }
    }

    #[test]
    fn the_tree_is_drawn_with_lines_and_columns() {
        let expected = "\
node-1 · node 1 · boot 3 · up 2h01m
ACTOR             STATE          FOR  RESTARTS  MAILBOX  HANDLED  NOTES
node              running      1m15s         0        0    12345
├─ shards         running      1m15s         0        0    12345
│  └─ shard-0     running      1m15s         0        0    12345
│     └─ replica  backing-off  1m15s         2        0    12345  role=leader last: boom  [2J
└─ listeners      down         1m15s         0        0    12345
";
        assert_eq!(draw(&report(), false, 200), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_notes_and_no_line_is_longer() {
        for width in [80, 40, 20, 1, 0] {
            let drawn = draw(&report(), false, width);
            assert!(drawn.lines().all(|line| line.chars().count() <= width), "{drawn}");
            assert!(drawn.contains('…') || width == 0, "{drawn}");
        }
    }

    #[test]
    fn only_colours_are_escape_sequences() {
        assert!(!draw(&report(), false, 200).contains('\x1b'));
        let coloured = draw(&report(), true, 200);
        assert!(coloured.contains("\x1b[33mbacking-off") || coloured.contains("\x1b[33m  backing-off"), "{coloured}");
        assert!(!coloured.contains("\x1b[2J"));
    }
}
