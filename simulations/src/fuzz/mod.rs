//! Fuzzing by name and number: input N of a target follows from the target and N alone, so that what one run found is
//! found again by its number, for as long as this room stays as it is. What must outlive that is kept as a test where it
//! was mended.
//!
//! There is no coverage to steer by. Instead most inputs are good ones, drawn with the structure that their reader
//! expects and then damaged in a few places, so that they get past its first check; [`Tried`] says of each whether it was
//! taken. Every target asserts more than that nothing panics: its file says what.
//!
//! This room does not know time: [`Target::time_max`] says how much an input may take, and who runs it looks at the clock.

mod disk;
mod evaluator;
mod frames;
mod params;
mod parser;
mod pen;
mod push;
mod queries;
mod sums;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use crate::draw::stream;
use pen::Pen;

/// Bytes of an input that are shown with a finding.
const SHOWN_BYTES_MAX: usize = 4_096;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// LogQL texts: what parses prints and parses to the same again, errors point into the text.
    Parser,
    /// Queries over hostile records: the answer does not depend on what is sealed, nor on the order of shards.
    Evaluator,
    /// Bodies of pushes, with their encodings: what is accepted keeps the bounds, and is stored and read as it was.
    Push,
    /// Parameters of queries: what is accepted travels to a shard and back to a client.
    Params,
    /// What nodes send each other: what decodes encodes to the same, and nothing of it breaks a link, a scan or a merge.
    Frames,
    /// What lies on a disk: damaged files are refused, and what is read is what was written.
    Disk,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Parser, Self::Evaluator, Self::Push, Self::Params, Self::Frames, Self::Disk];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Evaluator => "evaluator",
            Self::Push => "push",
            Self::Params => "params",
            Self::Frames => "frames",
            Self::Disk => "disk",
        }
    }

    /// The target of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// How much of a processor an input of so many bytes may take, in a build that is optimised.
    pub fn time_max(self, bytes: usize) -> Duration {
        let pages = u32::try_from(bytes.div_ceil(4_096).max(1)).unwrap_or(u32::MAX);
        match self {
            Self::Parser => Duration::from_millis(100) * pages,
            // One form is put to eleven questions, each of which compiles its expressions.
            Self::Params | Self::Push | Self::Frames | Self::Disk => {
                Duration::from_millis(500) + Duration::from_millis(100) * pages
            }
            Self::Evaluator => Duration::from_secs(5),
        }
    }
}

/// What became of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Of which kind it was.
    pub kind: &'static str,
    /// Whether what read it took it.
    pub taken: bool,
    /// Its bytes.
    pub input: Vec<u8>,
}

impl Tried {
    /// What went wrong with an input that nothing was found in so far.
    pub fn finding(self, what: &str) -> Finding {
        Finding { what: format!("{}: {what}", self.kind), input: shown(&self.input), bytes: self.input }
    }
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which promise was broken.
    pub what: String,
    /// The input, as far as it is shown.
    pub input: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What an input is of, and its bytes: noted before it is read, so that a panic can be told with it.
#[derive(Debug, Default)]
struct Note {
    kind: &'static str,
    input: Vec<u8>,
}

impl Note {
    fn input(&mut self, kind: &'static str, input: &[u8]) {
        self.kind = kind;
        self.input.clear();
        self.input.extend_from_slice(input);
    }

    fn tried(self, taken: bool) -> Tried {
        Tried { kind: self.kind, taken, input: self.input }
    }
}

/// What a target came to: taken or not, or the promise that was broken.
type Outcome = Result<bool, String>;

/// A target, with what is made once for many inputs.
#[derive(Debug)]
pub struct Fuzzer {
    target: Target,
    /// Further good inputs.
    corpus: Vec<Vec<u8>>,
    frames: Option<frames::Good>,
    disk: Option<disk::Good>,
    worlds: Option<world::Worlds>,
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of inputs are told with them, not when they happen: some are caught where they are expected.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREAD) {
                SAID.with_borrow_mut(|said| *said = Some(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
}

/// The name of a thread whose panics are findings.
pub const THREAD: &str = "fuzz";

impl Fuzzer {
    /// Of a target; the corpus is further good inputs, on which its inputs depend as well.
    pub fn new(target: Target, corpus: Vec<Vec<u8>>) -> Self {
        hear_panics();
        Self { target, corpus, frames: None, disk: None, worlds: None }
    }

    /// Makes and runs an input, in a thread whose name is [`THREAD`] and whose stack is as large as those of a node.
    ///
    /// # Errors
    /// What went wrong.
    pub fn run(&mut self, number: u64) -> Result<Tried, Finding> {
        let mut note = Note::default();
        let mut pen = Pen::new(stream(number, self.target.name()));
        let ran = catch_unwind(AssertUnwindSafe(|| self.outcome(number, &mut pen, &mut note)));
        let what = match ran {
            Ok(Ok(taken)) => return Ok(note.tried(taken)),
            Ok(Err(what)) => what,
            Err(_) => SAID.take().unwrap_or_else(|| "a panic in another thread".to_owned()),
        };
        // What was made once may be half changed.
        (self.frames, self.disk, self.worlds) = (None, None, None);
        Err(note.tried(false).finding(&what))
    }

    fn outcome(&mut self, number: u64, pen: &mut Pen, note: &mut Note) -> Outcome {
        match self.target {
            Target::Parser => parser::run(pen, &self.corpus, note),
            Target::Evaluator => evaluator::run(number, pen, &mut self.worlds, note),
            Target::Push => push::run(pen, &self.corpus, note),
            Target::Params => params::run(pen, &self.corpus, note),
            Target::Frames => frames::run(pen, self.frames.get_or_insert_with(frames::Good::new), &self.corpus, note),
            Target::Disk => disk::run(pen, self.disk.get_or_insert_with(disk::Good::new), &self.corpus, note),
        }
    }
}

/// Text as it is, other bytes escaped, cut where it is long.
fn shown(input: &[u8]) -> String {
    let part = &input[..input.len().min(SHOWN_BYTES_MAX)];
    let text = match std::str::from_utf8(part) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => text.to_owned(),
        Ok(_) | Err(_) => part.escape_ascii().to_string(),
    };
    if part.len() < input.len() { format!("{text} .. ({} bytes)", input.len()) } else { text }
}
