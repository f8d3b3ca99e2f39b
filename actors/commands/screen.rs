//! Where the answer of a search goes: to a terminal, through a pager where it is longer than the terminal is high, or
//! into a pipe.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::Paint;
use super::width::columns;

/// A terminal that does not say how large it is.
const SIZE_UNKNOWN: (usize, usize) = (80, 24);
/// What a shell answers where it cannot run the command, or does not find it.
const NOT_RUN: [i32; 2] = [126, 127];

/// Standard output as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) paint: Paint,
    /// Whether letters outside of ASCII are shown.
    pub(crate) unicode: bool,
    /// Columns and rows of the terminal; `None` for a pipe.
    size: Option<(usize, usize)>,
}

impl Screen {
    /// What standard output is.
    pub(crate) fn stdout() -> Self {
        let size = io::stdout().is_terminal().then(|| {
            let size = rustix::termios::tcgetwinsize(io::stdout());
            let size = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
            if size.0 == 0 || size.1 == 0 { SIZE_UNKNOWN } else { size }
        });
        let mut named = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok());
        let unicode = named.find(|value| !value.is_empty()).is_some_and(|locale| is_utf8(&locale));
        Self { paint: Paint::stdout(), unicode, size }
    }

    /// Columns of the terminal; `None` for a pipe.
    pub(crate) fn width(&self) -> Option<usize> {
        self.size.map(|(width, _)| width)
    }

    /// Rows of the terminal; `None` for a pipe.
    pub(crate) fn height(&self) -> Option<usize> {
        self.size.map(|(_, height)| height)
    }

    /// The columns that a drawing may take: those of the terminal; for a pipe what `COLUMNS` says, or 80.
    pub(crate) fn canvas(&self) -> usize {
        let told = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
        self.width().or_else(told).unwrap_or(SIZE_UNKNOWN.0)
    }

    /// Says that an answer is empty, where a person looks at both standard output and standard error.
    pub(crate) fn say_nothing_found(&self) {
        if self.size.is_some() && io::stderr().is_terminal() {
            eprintln!("nothing found");
        }
    }

    /// Writes an answer; on a terminal that is too low for it through `$PAGER`, where `paged`.
    ///
    /// # Errors
    /// Where writing fails.
    pub(crate) fn show(&self, text: &[u8], paged: bool) -> io::Result<()> {
        if let Some((width, height)) = self.size.filter(|_| paged)
            && rows(text, width) >= height
            && let Some(pager) = pager(std::env::var("PAGER").ok())
            && page(&pager, text)?
        {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text)?;
        out.flush()
    }
}

/// Whether a locale such as `en_GB.UTF-8` says that text is UTF-8.
fn is_utf8(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The command that pages, as `PAGER` names it; none where it is set to nothing or to `cat`.
fn pager(named: Option<String>) -> Option<String> {
    let command = named.unwrap_or_else(|| "less -FRX".to_owned());
    let command = command.trim();
    (!command.is_empty() && command != "cat").then(|| command.to_owned())
}

/// The rows that a text takes on a terminal: long lines are wrapped, escape sequences take no room.
fn rows(text: &[u8], width: usize) -> usize {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| visible(line).div_ceil(width).max(1)).sum()
}

/// The columns that a line takes, its colours left out.
fn visible(line: &str) -> usize {
    let mut plain = String::with_capacity(line.len());
    let mut colour = false;
    for letter in line.chars() {
        match letter {
            '\x1b' => colour = true,
            'm' if colour => colour = false,
            _ if colour => {}
            _ => plain.push(letter),
        }
    }
    columns(&plain)
}

/// Hands a text to a pager and waits until whoever reads it has enough; whether the pager could be run.
fn page(command: &str, text: &[u8]) -> io::Result<bool> {
    // From here on Ctrl-C is for the pager alone, which the terminal tells as well.
    let _held = signal(SignalKind::interrupt())?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        shell.env("LESS", "FRX");
    }
    let Ok(mut pager) = shell.spawn() else { return Ok(false) };
    let mut input = pager.stdin.take().expect("it is piped");
    let written = input.write_all(text);
    drop(input);
    let status = pager.wait()?;
    if status.code().is_some_and(|code| NOT_RUN.contains(&code)) {
        return Ok(false);
    }
    match written {
        // Who closes the pager has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Err(_) | Ok(()) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room_and_long_lines_wrap() {
        assert_eq!(rows(b"\x1b[1;31mabcde\x1b[0m\n", 5), 1);
        assert_eq!(rows(b"abcdef\n\nx", 5), 4);
        assert_eq!(rows("äöüäö\n".as_bytes(), 5), 1);
        assert_eq!(rows("日本語\n".as_bytes(), 5), 2);
    }

    #[test]
    fn the_pager_is_less_unless_another_is_named_or_none() {
        assert_eq!(pager(None).as_deref(), Some("less -FRX"));
        assert_eq!(pager(Some("more".to_owned())).as_deref(), Some("more"));
        assert_eq!(pager(Some(" ".to_owned())), None);
        assert_eq!(pager(Some("cat".to_owned())), None);
    }

    #[test]
    fn the_locale_says_whether_text_is_utf8() {
        assert!(is_utf8("en_GB.UTF-8") && is_utf8("C.utf8"));
        assert!(!is_utf8("C") && !is_utf8("de_DE.ISO-8859-1"));
    }

    #[tokio::test]
    async fn a_pager_that_cannot_be_run_leaves_the_text_to_the_terminal() {
        assert!(!page("/nowhere/pager", b"text\n").unwrap());
        assert!(page("cat > /dev/null", b"text\n").unwrap());
        assert!(page("true", &vec![b'x'; 1 << 20]).unwrap(), "a pager may be closed before the end");
    }
}
