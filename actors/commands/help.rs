//! Help as wide as the terminal: what is written below the arguments of a command is laid out anew, since `clap` wraps each
//! of its lines by itself.

use std::io;

use clap::Command;

use super::width::columns;

/// Columns where the terminal does not say how many it has, or there is none; and at most.
const WIDTHS: (usize, usize) = (100, 120);
/// Blanks at least between an example and what is said of it.
const GAP: &str = "  ";
/// How much further right the rest of an example stands.
const HANGING: usize = 4;

/// The commands of a command line, with their help laid out for the terminal.
pub(crate) fn laid_out(command: Command) -> Command {
    let told = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    let width = if told == 0 { WIDTHS.0 } else { told.min(WIDTHS.1) };
    lay_out(command, width)
}

fn lay_out(command: Command, width: usize) -> Command {
    let after = command.get_after_help().map(ToString::to_string);
    let command = match after {
        Some(after) => command.after_help(flowing(&after, width)),
        None => command,
    };
    command.term_width(width).mut_subcommands(|below| lay_out(below, width))
}

/// A text whose paragraphs fill the lines. What is indented keeps its lines: an example, and behind two blanks or more
/// what is said of it, which goes below the example where it does not fit behind.
fn flowing(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut paragraph = String::new();
    for line in text.lines() {
        let flows = !line.is_empty() && !line.starts_with(' ');
        if flows && !paragraph.is_empty() {
            paragraph.push(' ');
        }
        if flows {
            paragraph.push_str(line);
        }
        // A line that ends with a colon is a heading.
        if !flows || line.ends_with(':') {
            lines.extend(wrapped(&std::mem::take(&mut paragraph), 0, width));
        }
        if !flows {
            lines.extend(example(line, width));
        }
    }
    lines.extend(wrapped(&paragraph, 0, width));
    lines.join("\n")
}

/// The lines of an example.
fn example(line: &str, width: usize) -> Vec<String> {
    if columns(line) <= width {
        return vec![line.to_owned()];
    }
    let indent = line.len() - line.trim_start().len();
    let (what, said) = line[indent..].split_once(GAP).unwrap_or((&line[indent..], ""));
    let mut lines = vec![format!("{:indent$}{what}", "")];
    lines.extend(wrapped(said.trim(), indent + HANGING, width));
    lines
}

/// A paragraph as lines of at most so many columns; a word that is longer has one of its own.
fn wrapped(text: &str, indent: usize, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| columns(line) + 1 + columns(word) <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(format!("{:indent$}{word}", "")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Examples:
  mill run a                  once
  mill run b

A paragraph that was broken
where it was written.

Exit codes:
  0  done";

    #[test]
    fn paragraphs_fill_the_lines_and_examples_keep_theirs() {
        let expected = "\
Examples:
  mill run a                  once
  mill run b

A paragraph that was broken where it was
written.

Exit codes:
  0  done";
        assert_eq!(flowing(TEXT, 40), expected);
    }

    #[test]
    fn what_is_said_of_an_example_goes_below_it_where_it_does_not_fit() {
        let expected = "\
Examples:
  mill run a
      once
  mill run b

A paragraph that was
broken where it was
written.

Exit codes:
  0  done";
        assert_eq!(flowing(TEXT, 20), expected);
    }

    #[test]
    fn the_help_of_every_command_is_laid_out() {
        let below = Command::new("below").after_help("one\ntwo");
        let mut command = lay_out(Command::new("above").subcommand(below), 30);
        let help = command.find_subcommand_mut("below").unwrap().render_help().to_string();
        assert!(help.ends_with("one two\n"), "{help}");
    }
}
