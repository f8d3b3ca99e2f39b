//! `sweep`: many seeds, each in a process of its own, and what they came to together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::{ControlFlow, Range};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_simulations::case::Case;
use millpond_simulations::draw;

use super::{FolderArgs, NodesArgs};
use crate::children::{ChildrenArgs, Ending, Verdict, processor_time};
use crate::failure;

/// Run many seeds, each in a process of its own, on all cores
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations sweep --seeds 0..2000
  millpond-simulations sweep --seeds 0..500 --nodes 5 --jobs 2
  millpond-simulations replay target/simulations/seed-7.json     a failure, again

Each failed case is left as a plan in a file. The first failures are shown in full at the end, after what all runs
came to: rare things that were seen, and those that never were, which no oracle can have watched.
Exit codes: 0 every promise was kept, 1 one was broken or a process died or hung, 2 wrong usage."#)]
pub(crate) struct Args {
    /// Seeds to run: `A..B`, B not included, or one number
    #[arg(long, value_name = "A..B", value_parser = super::seeds, default_value = "0..100")]
    seeds: Range<u64>,
    #[command(flatten)]
    cluster: NodesArgs,
    #[command(flatten)]
    children: ChildrenArgs,
    #[command(flatten)]
    folder: FolderArgs,
    /// Failures to show in full, those of the lowest seeds
    #[arg(long, value_name = "N", default_value_t = 3)]
    show: usize,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let count = args.seeds.end - args.seeds.start;
    let bar = super::progress(count, "seeds");
    let (began, processor) = (Instant::now(), processor_time()?);
    let (mut tally, mut trouble) = (Tally::default(), None);
    let cases = args.seeds.clone().map(|seed| draw::draw(seed, args.cluster.nodes));
    args.children.each(
        cases,
        |case| args.children.play(&super::run_arguments(case)),
        |case, ending| {
            bar.inc(1);
            let added = ending.and_then(|ending| {
                if ending.verdict() != Verdict::Held {
                    let path = failure::keep(&args.folder.out, "", &case)?;
                    let told = failure::first_violation(&ending);
                    bar.suspend(|| eprintln!("seed {} failed: {told} ({})", case.seed, path.display()));
                }
                tally.add(case, ending);
                bar.set_message(format!("{} failed", tally.failures.len()));
                Ok(())
            });
            trouble = added.err().or_else(|| trouble.take());
            if trouble.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    bar.finish_and_clear();
    trouble.map_or(Ok(()), Err)?;
    let spent = Spent {
        processor: processor_time()?.saturating_sub(processor),
        wall: began.elapsed(),
        jobs: args.children.jobs(),
    };
    tell!("{}", tally.summary(&args.seeds, args.cluster.nodes, &spent));
    for (case, ending) in tally.failures.values().take(args.show) {
        tell!("\n{}", failure::describe(case, ending, &failure::run_again(case)));
    }
    Ok(if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a sweep took.
#[derive(Debug)]
struct Spent {
    processor: Duration,
    wall: Duration,
    jobs: usize,
}

/// What all runs came to.
#[derive(Debug, Default)]
struct Tally {
    held: u64,
    virtual_ms: u64,
    seen: BTreeMap<String, u64>,
    failures: BTreeMap<u64, (Case, Ending)>,
}

impl Tally {
    fn add(&mut self, case: Case, ending: Ending) {
        if let Ending::Played(outcome) = &ending {
            self.virtual_ms += outcome.report.virtual_ms;
            for (name, count) in &outcome.report.seen {
                *self.seen.entry(name.clone()).or_default() += count;
            }
        }
        if ending.verdict() == Verdict::Held {
            self.held += 1;
        } else {
            self.failures.insert(case.seed, (case, ending));
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.failures.values().filter(|(_, ending)| ending.verdict() == verdict).count()
    }

    fn summary(&self, seeds: &Range<u64>, nodes: u64, spent: &Spent) -> String {
        let ran = self.held + self.failures.len() as u64;
        let simulated = self.virtual_ms as f64 / 1e3;
        let processor = spent.processor.as_secs_f64();
        // A sweep of a moment has used no tick of the processor's clock yet.
        let per_second = |amount: f64| amount / processor.max(0.01);
        let mut text = String::new();
        let _ = writeln!(text, "seeds      {ran} of {}..{}, {nodes} nodes", seeds.start, seeds.end);
        let _ = writeln!(
            text,
            "outcome    {} held, {} broke a promise, {} died, {} hung",
            self.held,
            self.count(Verdict::Broken),
            self.count(Verdict::Died),
            self.count(Verdict::Hung)
        );
        let _ = writeln!(text, "simulated  {simulated:.0} s");
        let _ = writeln!(
            text,
            "processor  {processor:.1} s of all processes: {:.1} seeds and {:.0} simulated seconds in each",
            per_second(ran as f64),
            per_second(simulated)
        );
        let _ = writeln!(text, "wall       {:.1} s, {} processes at once", spent.wall.as_secs_f64(), spent.jobs);
        for (name, count) in self.seen.iter().filter(|(_, count)| **count > 0) {
            let _ = writeln!(text, "seen       {count:>10} {name}");
        }
        for (name, _) in self.seen.iter().filter(|(_, count)| **count == 0) {
            let _ = writeln!(text, "never seen            {name}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use millpond_simulations::case::Report;

    use super::*;
    use crate::outcome::Outcome;

    fn played(seed: u64, violations: &[&str], seen: &[(&str, u64)]) -> (Case, Ending) {
        let case = draw::draw(seed, 3);
        let report = Report {
            violations: violations.iter().map(|text| (*text).to_owned()).collect(),
            seen: seen.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            virtual_ms: 30_000,
            ..Report::default()
        };
        let outcome = Outcome { case: case.clone(), report, random_calls: 0, clock_calls: 0 };
        (case, Ending::Played(Box::new(outcome)))
    }

    #[test]
    fn a_summary_counts_runs_by_how_they_ended_and_lists_what_was_never_seen() {
        let mut tally = Tally::default();
        let runs = [
            played(1, &[], &[("elections", 3), ("credit stalls", 0)]),
            played(0, &["a record is gone"], &[("elections", 4)]),
            (draw::draw(2, 3), Ending::Hung { after: 300, errors: String::new() }),
            (draw::draw(3, 3), Ending::Died { status: "signal: 6".to_owned(), errors: String::new() }),
        ];
        runs.into_iter().for_each(|(case, ending)| tally.add(case, ending));
        let spent = Spent { processor: Duration::from_secs(2), wall: Duration::from_secs(1), jobs: 2 };
        let text = tally.summary(&(0..10), 3, &spent);
        assert_eq!(
            text,
            "seeds      4 of 0..10, 3 nodes\n\
             outcome    1 held, 1 broke a promise, 1 died, 1 hung\n\
             simulated  60 s\n\
             processor  2.0 s of all processes: 2.0 seeds and 30 simulated seconds in each\n\
             wall       1.0 s, 2 processes at once\n\
             seen                7 elections\n\
             never seen            credit stalls\n"
        );
        assert_eq!(tally.failures.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
    }
}
