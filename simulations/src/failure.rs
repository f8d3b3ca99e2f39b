//! A failure as it is shown: everything that is needed to see it again. It does not know which command found it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use millpond_simulations::case::Case;

use crate::children::Ending;

/// The failure in full.
pub(crate) fn describe(case: &Case, ending: &Ending, again: &str) -> String {
    let mut text = String::new();
    let mutant = case.mutant.as_ref().map_or_else(String::new, |name| format!(", mutant {name}"));
    let _ = writeln!(text, "failed     seed {} with {} nodes{mutant}", case.seed, case.nodes);
    let _ = writeln!(text, "commit     {}", commit());
    let _ = writeln!(text, "knobs      {}", json(&case.knobs));
    let _ = writeln!(text, "busy       {} ms", case.busy_ms);
    for timed in &case.faults {
        let _ = writeln!(text, "fault      at {} ms {}", timed.at_ms, json(&timed.fault));
    }
    match ending {
        Ending::Played(outcome) => {
            let report = &outcome.report;
            for violation in &report.violations {
                let _ = writeln!(text, "violation  {violation}");
            }
            let _ = writeln!(text, "trace      the last {} of {} lines", report.tail.len(), report.lines);
            indent(&mut text, report.tail.iter().map(String::as_str));
            let _ = writeln!(text, "digest     {:016x}", report.digest);
        }
        Ending::Died { status, errors } => {
            let _ = writeln!(text, "violation  the process ended without a report: {status}");
            indent(&mut text, errors.lines());
        }
        Ending::Hung { after, errors } => {
            let _ = writeln!(text, "violation  the process had no report after {after} s and was killed");
            indent(&mut text, errors.lines());
        }
    }
    let _ = writeln!(text, "again      {again}");
    text
}

/// What an ending says first of what is wrong.
pub(crate) fn first_violation(ending: &Ending) -> String {
    match ending {
        Ending::Played(outcome) => outcome.report.violations.first().cloned().unwrap_or_default(),
        Ending::Died { status, .. } => format!("the process ended without a report: {status}"),
        Ending::Hung { after, .. } => format!("the process had no report after {after} s and was killed"),
    }
}

/// The command that runs a seed again.
pub(crate) fn run_again(case: &Case) -> String {
    let mutant = case.mutant.as_ref().map_or_else(String::new, |name| format!(" --mutant {name}"));
    format!("{} run --seed {} --nodes {}{mutant}", cargo_run(), case.seed, case.nodes)
}

/// The command that plays a plan again.
pub(crate) fn replay_again(path: &Path) -> String {
    format!("{} replay {}", cargo_run(), path.display())
}

/// The cargo command for a build like this one.
pub(crate) fn cargo_run() -> String {
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    let features = if cfg!(feature = "mutants") { " --features mutants" } else { "" };
    format!("cargo run{release} -p millpond-simulations{features} --")
}

/// Writes a case where `replay` finds it, and says where that is: named after its seed, and its nodes if not three.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn keep(folder: &Path, prefix: &str, case: &Case) -> Result<PathBuf> {
    let nodes = if case.nodes == 3 { String::new() } else { format!("-nodes-{}", case.nodes) };
    let path = folder.join(format!("{prefix}seed-{}{nodes}.json", case.seed));
    write(&path, case)?;
    Ok(path)
}

/// Writes a case to a file, and makes its folder.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(path: &Path, case: &Case) -> Result<()> {
    let text = serde_json::to_string_pretty(case).expect("a case is plain data") + "\n";
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), fs::create_dir_all).with_context(|| format!("making the folder of {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

fn indent<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

/// The commit this was built from: as the build says, else as the working copy says.
fn commit() -> String {
    if let Some(built) = option_env!("MILLPOND_COMMIT") {
        return built.to_owned();
    }
    let told = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).output();
    let told = told.ok().filter(|told| told.status.success()).and_then(|told| String::from_utf8(told.stdout).ok());
    told.map_or_else(|| "unknown".to_owned(), |told| told.trim().to_owned())
}
