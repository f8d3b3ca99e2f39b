//! What happened in a run, line by line: the same case gives the same lines, byte for byte. Of all lines it keeps a
//! digest, of the last ones their text. Nothing in a line may come from the machine: no actor id, no address, no time
//! but the virtual one.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::case::TAIL_LINES;

/// The lines of one run.
pub struct Trace {
    start: Instant,
    lines: Mutex<Lines>,
}

struct Lines {
    digest: Xxh3,
    count: u64,
    tail: VecDeque<String>,
    out: Option<Box<dyn Write + Send>>,
}

/// What is left of a trace at the end.
pub struct Ended {
    /// The digest of all lines.
    pub digest: u64,
    /// How many there were.
    pub count: u64,
    /// The last ones.
    pub tail: Vec<String>,
}

impl Trace {
    /// A trace that begins now, and writes its lines to `out` as well.
    pub fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        let lines = Lines { digest: Xxh3::new(), count: 0, tail: VecDeque::new(), out };
        Self { start: Instant::now(), lines: Mutex::new(lines) }
    }

    /// Virtual time since the start of the run.
    pub fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }

    /// One more line.
    pub fn line(&self, what: impl std::fmt::Display) {
        let at = self.elapsed();
        let line = format!("{:>3}.{:06} {what}", at.as_secs(), at.subsec_micros());
        let mut lines = self.lines();
        lines.digest.update(line.as_bytes());
        lines.digest.update(b"\n");
        lines.count += 1;
        if let Some(out) = &mut lines.out {
            // A trace that cannot be written is missed by whoever compares it.
            let _ = writeln!(out, "{line}");
        }
        if lines.tail.len() == TAIL_LINES {
            lines.tail.pop_front();
        }
        lines.tail.push_back(line);
    }

    /// The end of the run.
    pub fn end(&self) -> Ended {
        let mut lines = self.lines();
        if let Some(out) = &mut lines.out {
            let _ = out.flush();
        }
        Ended { digest: lines.digest.digest(), count: lines.count, tail: lines.tail.iter().cloned().collect() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
