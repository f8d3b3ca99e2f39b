//! What a run of the fuzzer came to, and how that is told.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use millpond_simulations::fuzz::{Target, Tried};

/// Of one kind of inputs.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    inputs: u64,
    taken: u64,
}

/// What was tried.
#[derive(Debug)]
pub(super) struct Report {
    target: Target,
    kinds: BTreeMap<&'static str, Kind>,
    inputs: u64,
    taken: u64,
    bytes: u64,
    slowest: (Duration, u64),
    last: u64,
    pub(super) findings: usize,
    pub(super) cpu: Duration,
    wall: Duration,
    pub(super) peak_bytes: u64,
}

impl Report {
    pub(super) fn new(target: Target) -> Self {
        let (kinds, slowest) = (BTreeMap::new(), (Duration::ZERO, 0));
        let (cpu, wall) = (Duration::ZERO, Duration::ZERO);
        Self { target, kinds, inputs: 0, taken: 0, bytes: 0, slowest, last: 0, findings: 0, cpu, wall, peak_bytes: 0 }
    }

    pub(super) fn add(&mut self, number: u64, tried: &Tried, wall: Duration) {
        let kind = self.kinds.entry(tried.kind).or_default();
        kind.inputs += 1;
        kind.taken += u64::from(tried.taken);
        self.inputs += 1;
        self.taken += u64::from(tried.taken);
        self.bytes += tried.input.len() as u64;
        self.last = number;
        if wall < Duration::from_millis(100) {
            self.slow(number, wall);
        }
    }

    /// An input took so long.
    pub(super) fn slow(&mut self, number: u64, took: Duration) {
        self.slowest = self.slowest.max((took, number));
    }

    pub(super) fn failed(&mut self, number: u64) {
        self.inputs += 1;
        self.last = number;
    }

    pub(super) fn took(&mut self, cpu: Duration, wall: Duration, peak_bytes: u64) {
        (self.cpu, self.wall, self.peak_bytes) = (cpu, wall, peak_bytes);
    }

    /// One line of progress.
    pub(super) fn line(&self) -> String {
        let Self { inputs, taken, findings, last, .. } = self;
        let seconds = self.cpu.as_secs_f64();
        format!(
            "{:<9} {inputs} inputs to {last}, {:.0} a second, {taken} taken ({:.1} %), {findings} findings, \
             {seconds:.0} s of a processor in {:.0} s, {} MiB at most",
            self.target.name(),
            *inputs as f64 / seconds.max(1e-3),
            *taken as f64 * 100.0 / (*inputs).max(1) as f64,
            self.wall.as_secs_f64(),
            self.peak_bytes >> 20,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.line())?;
        for (name, kind) in &self.kinds {
            let percent = kind.taken as f64 * 100.0 / kind.inputs as f64;
            writeln!(f, "  {name:<28} {:>10} inputs, {:>10} taken ({percent:.1} %)", kind.inputs, kind.taken)?;
        }
        let mean = self.bytes / self.inputs.max(1);
        writeln!(f, "  {mean} bytes on average; the slowest, input {}, took {:?}", self.slowest.1, self.slowest.0)
    }
}
