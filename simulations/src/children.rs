//! Runs of this binary in processes of their own, one for each case, several at once.
//!
//! A child is bounded in wall time and in what is kept of what it prints. Its case, its arguments and what its ending
//! means are the command's.

use std::ffi::OsString;
use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::outcome::Outcome;

/// Of what a child prints as errors, the end that is kept.
const ERRORS_BYTES_MAX: usize = 16 << 10;
/// A run takes seconds of wall time, in a debug build on a busy machine perhaps a minute.
const PATIENCE_SECONDS: u64 = 300;
/// Clock ticks per second in /proc, which Linux fixes at a hundred.
const CLOCK_TICKS: u64 = 100;

/// How children are run.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChildrenArgs {
    /// Processes at once; as many as there are cores if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Seconds of wall time after which a process hangs: it is killed, and its case has failed
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE_SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
}

impl ChildrenArgs {
    /// Processes at once.
    pub(crate) fn jobs(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or_else(cores, usize::from)
    }

    /// Plays a case in a process of its own; `arguments` are those of `run` or `replay`.
    ///
    /// # Errors
    /// The process cannot be started or waited for.
    pub(crate) fn play(&self, arguments: &[OsString]) -> Result<Ending> {
        let binary = std::env::current_exe().context("finding this binary")?;
        let mut command = Command::new(binary);
        command.args(arguments).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting a process")?;
        let (mut stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is no report, which is judged below.
            let _ = stdout.read_to_end(&mut text);
            let _ = said.send(text);
        });
        let errors = thread::spawn(move || end_of(stderr));
        let said = heard.recv_timeout(Duration::from_secs(self.patience)).ok();
        if said.is_none() {
            child.kill().context("killing a process that hangs")?;
        }
        let status = child.wait().context("waiting for a process")?;
        let errors = errors.join().unwrap_or_default();
        let Some(said) = said else { return Ok(Ending::Hung { after: self.patience, errors }) };
        let last = said.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        match serde_json::from_slice(last) {
            Ok(outcome) if matches!(status.code(), Some(0 | 1)) => Ok(Ending::Played(Box::new(outcome))),
            Ok(_) | Err(_) => Ok(Ending::Died { status: status.to_string(), errors }),
        }
    }

    /// Does the work for each item, so many at once, and hands over each result as it comes. Items are taken in their
    /// order; once `done` breaks, none is taken any more, and those at hand are still handed over. So all items before
    /// one that was handed over are too.
    pub(crate) fn each<T: Send, R: Send>(
        &self,
        items: impl Iterator<Item = T> + Send,
        work: impl Fn(&T) -> R + Sync,
        mut done: impl FnMut(T, R) -> ControlFlow<()>,
    ) {
        let (items, stopped) = (Mutex::new(items.fuse()), AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let take = || items.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
        let worker = |send: mpsc::Sender<(T, R)>| {
            while !stopped.load(Ordering::SeqCst)
                && let Some(item) = take()
            {
                let result = work(&item);
                if send.send((item, result)).is_err() {
                    break;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs() {
                let (send, worker) = (send.clone(), &worker);
                scope.spawn(move || worker(send));
            }
            drop(send);
            for (item, result) in receive {
                if done(item, result).is_break() {
                    stopped.store(true, Ordering::SeqCst);
                }
            }
        });
    }
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// It played its case and said what came of it.
    Played(Box<Outcome>),
    /// It ended without saying so.
    Died {
        /// How.
        status: String,
        /// The end of what it printed as errors.
        errors: String,
    },
    /// It did not end in time.
    Hung {
        /// The time it had, in seconds.
        after: u64,
        /// The end of what it printed as errors.
        errors: String,
    },
}

/// What an ending means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every promise was kept.
    Held,
    /// One was broken.
    Broken,
    /// There is no report, as the process died.
    Died,
    /// There is no report, as the process hung.
    Hung,
}

impl Ending {
    /// What it means.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Played(outcome) if outcome.report.violations.is_empty() => Verdict::Held,
            Self::Played(_) => Verdict::Broken,
            Self::Died { .. } => Verdict::Died,
            Self::Hung { .. } => Verdict::Hung,
        }
    }
}

/// Processor time of all children that were waited for.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn processor_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    // The command's name stands in brackets and may hold anything; the fields begin after the last one.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(13) + ticks(14)) * 1_000 / CLOCK_TICKS))
}

/// The end of what comes, read to its end so that nobody who writes it ever waits.
fn end_of(mut from: impl Read) -> String {
    let (mut kept, mut part) = (Vec::new(), vec![0; ERRORS_BYTES_MAX]);
    while let Ok(read @ 1..) = from.read(&mut part) {
        kept.extend_from_slice(&part[..read]);
        kept.drain(..kept.len().saturating_sub(ERRORS_BYTES_MAX));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(jobs: u16) -> ChildrenArgs {
        ChildrenArgs { jobs: Some(jobs), patience: 1 }
    }

    #[test]
    fn each_item_is_worked_on_once() {
        let mut done = Vec::new();
        children(4).each(
            0..100_u64,
            |item| item * item,
            |item, result| {
                done.push((item, result));
                ControlFlow::Continue(())
            },
        );
        done.sort_unstable();
        assert_eq!(done, (0..100).map(|item| (item, item * item)).collect::<Vec<_>>());
    }

    #[test]
    fn all_items_before_the_one_that_stopped_it_are_handed_over() {
        let mut done = Vec::new();
        children(4).each(
            0..u64::MAX,
            |item| *item,
            |item, _| {
                done.push(item);
                if item == 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        done.sort_unstable();
        assert!(done.len() > 50 && done.iter().copied().eq(0..done.len() as u64), "{done:?}");
    }

    #[test]
    fn of_a_long_text_the_end_is_kept() {
        let text: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        let kept = end_of(text.as_bytes());
        assert!(kept.len() == ERRORS_BYTES_MAX && kept.ends_with("9998\n9999\n"));
        assert_eq!(end_of(&b""[..]), "");
    }
}
