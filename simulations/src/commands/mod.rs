//! The commands of the binary, one file each: its arguments, and `run`. What several of them need stands here.

pub(crate) mod fuzz;
pub(crate) mod logql;
pub(crate) mod meta;
pub(crate) mod mutants;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod sweep;
pub(crate) mod wal;

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_simulations::case::Case;

use crate::children::Ending;
use crate::failure;
use crate::outcome;

/// How large the cluster is.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct NodesArgs {
    /// Nodes of the cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: u64,
}

/// Where files are left.
#[derive(Args, Clone, Debug)]
pub(crate) struct FolderArgs {
    /// Where files about failures are left
    #[arg(long, value_name = "FOLDER", default_value = "target/simulations")]
    pub(crate) out: PathBuf,
}

/// How one case is played in this process.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlayArgs {
    /// Write every line of the trace to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print one JSON object: the case, the report, and what went past the world's clocks and streams
    #[arg(long)]
    json: bool,
}

/// Plays a case in this process and says what came of it.
pub(crate) fn play(case: Case, args: &PlayArgs, again: &str) -> Result<ExitCode> {
    if let Some(mutant) = &case.mutant {
        mutants::known(mutant)?;
    }
    let outcome = outcome::play(case, args.trace.as_deref())?;
    let held = outcome.report.violations.is_empty();
    if args.json {
        tell!("{}\n", serde_json::to_string(&outcome).expect("plain data"));
    } else if held {
        let (case, report) = (&outcome.case, &outcome.report);
        let seconds = report.virtual_ms as f64 / 1e3;
        tell!(
            "held       seed {} with {} nodes: {} faults in {seconds:.1} simulated seconds\n",
            case.seed,
            case.nodes,
            case.faults.len()
        );
        tell!("trace      {} lines, digest {:016x}\n", report.lines, report.digest);
        let seen: Vec<String> = report.seen.iter().map(|(name, count)| format!("{name} {count}")).collect();
        tell!("seen       {}\n", seen.join(", "));
        tell!("process    {} draws, {} clock readings\n", outcome.random_calls, outcome.clock_calls);
    } else {
        let case = outcome.case.clone();
        tell!("{}", failure::describe(&case, &Ending::Played(Box::new(outcome)), again));
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads a plan.
pub(crate) fn read_case(path: &Path) -> Result<Case> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a plan", path.display()))
}

/// The arguments with which a child draws a case and plays it.
pub(crate) fn run_arguments(case: &Case) -> Vec<OsString> {
    let mut arguments = vec!["run".to_owned(), "--seed".to_owned(), case.seed.to_string()];
    arguments.extend(["--nodes".to_owned(), case.nodes.to_string()]);
    arguments.extend(case.mutant.iter().flat_map(|name| ["--mutant".to_owned(), name.clone()]));
    arguments.into_iter().map(OsString::from).collect()
}

/// A bar on a terminal; nothing elsewhere.
pub(crate) fn progress(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{elapsed}}, {{eta}} left {{msg}}");
    bar.set_style(ProgressStyle::with_template(&template).expect("a valid template"));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// `A..B`, B not included, or one number.
pub(crate) fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?} is no seed: {error}"));
    let seeds = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    if seeds.is_empty() { Err(format!("{text} has no seeds; write A..B, B not included")) } else { Ok(seeds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_without_its_end_or_one_number() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        assert_eq!(seeds("7"), Ok(7..8));
        assert!(seeds("7..3").is_err() && seeds("7..7").is_err() && seeds("x").is_err() && seeds("1..x").is_err());
    }
}
