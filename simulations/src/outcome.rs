//! What came of playing a case: what a child prints with `--json` and its parent reads, and the playing itself.

use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use millpond_simulations::case::{Case, Report};
use millpond_simulations::world;
use serde::{Deserialize, Serialize};

use crate::trace_file::TraceFile;

/// Stack of the thread that the world runs on: a debug build nests deeply.
const STACK_BYTES: usize = 64 << 20;

/// A case and its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What was played.
    pub(crate) case: Case,
    /// What came of it.
    pub(crate) report: Report,
    /// Draws from the process instead of a stream of the world.
    pub(crate) random_calls: u64,
    /// Readings of the process's clocks instead of the world's.
    pub(crate) clock_calls: u64,
}

/// Plays a case in this process, which was frozen and has played none. The trace goes to a file if one is named.
///
/// # Errors
/// The shim does not take effect, or the trace cannot be written. A world that panics is a violation, not an error.
pub(crate) fn play(case: Case, trace: Option<&Path>) -> Result<Outcome> {
    ensure!(millpond_shim::takes_effect(), "clocks and randomness of this process are not the shim's");
    let trace = trace.map(TraceFile::create).transpose()?;
    millpond_shim::freeze(case.seed);
    // A thread of its own draws the keys of its hash maps from the seed, and has room.
    let (playing, writer) = (case.clone(), trace.as_ref().map(TraceFile::writer));
    let world = thread::Builder::new().name("world".to_owned()).stack_size(STACK_BYTES);
    let played = world.spawn(move || world::run(&playing, writer.map(|writer| Box::new(writer) as _)));
    let report = played.context("starting the world's thread")?.join().unwrap_or_else(|panic| {
        let violations = vec![format!("the world itself panicked: {}", world::words_of(&*panic))];
        Report { violations, ..Report::default() }
    });
    let calls = millpond_shim::calls();
    trace.map_or(Ok(()), TraceFile::finish)?;
    Ok(Outcome { case, report, random_calls: calls.random, clock_calls: calls.clock })
}
