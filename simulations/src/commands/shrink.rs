//! `shrink`: the smallest plan that still fails in the same way.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use indicatif::ProgressBar;
use millpond_simulations::case::Case;
use millpond_simulations::draw;
use millpond_simulations::shrink::{Tries, shrink};
use tempfile::TempDir;

use super::NodesArgs;
use crate::children::{ChildrenArgs, Ending, Verdict};
use crate::failure;

/// Find the fewest faults that still fail, and write them as a plan
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations shrink --seed 7
  millpond-simulations shrink target/simulations/seed-7.json --out simulations/plans/lost-vote.json

Faults are left out by delta debugging, then the time is made shorter and clients fewer. Each attempt is a process.
A smaller plan counts as the same failure if it ends alike: a promise is broken, the process dies, or it hangs.
Exit codes: 0 a plan that fails was written, 1 the case does not fail or an attempt could not be made, 2 wrong usage."#)]
pub(crate) struct Args {
    /// The plan that fails
    #[arg(value_name = "PLAN", required_unless_present = "seed", conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// The seed that fails, instead of a plan
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    cluster: NodesArgs,
    /// The bug that is planted, with --seed
    #[arg(long, value_name = "NAME", requires = "seed")]
    mutant: Option<String>,
    /// Where the shrunk plan is written; target/simulations/shrunk-seed-N.json if not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Runs to make at most
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    #[command(flatten)]
    children: ChildrenArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let case = match (&args.plan, args.seed) {
        (Some(plan), _) => super::read_case(plan)?,
        (None, Some(seed)) => Case { mutant: args.mutant.clone(), ..draw::draw(seed, args.cluster.nodes) },
        (None, None) => unreachable!("clap wants one of the two"),
    };
    let folder = tempfile::tempdir()?;
    let ending = play(args, folder.path(), "first", &case)?;
    let verdict = ending.verdict();
    if verdict == Verdict::Held {
        bail!("nothing to shrink: every promise was kept");
    }
    let faults = case.faults.len();
    eprintln!("seed {} with {faults} faults: {}", case.seed, failure::first_violation(&ending));
    let bar = super::progress(u64::from(args.attempts), "attempts");
    let mut attempts = Attempts { args, folder, verdict, bar: bar.clone(), last: ending, batch: 0 };
    let shrunk = shrink(case, args.attempts, &mut attempts)?;
    bar.finish_and_clear();
    let path = match &args.out {
        Some(path) => {
            failure::write(path, &shrunk.case)?;
            path.clone()
        }
        None => failure::keep(Path::new("target/simulations"), "shrunk-", &shrunk.case)?,
    };
    tell!("{}", failure::describe(&shrunk.case, &attempts.last, &failure::replay_again(&path)));
    let state = if shrunk.least { "no smaller one fails" } else { "attempts were spent, there may be a smaller one" };
    tell!("shrunk     {faults} faults to {} in {} attempts: {state}\n", shrunk.case.faults.len(), shrunk.attempts);
    Ok(ExitCode::SUCCESS)
}

/// Plays a plan in a process.
fn play(args: &Args, folder: &Path, name: &str, case: &Case) -> Result<Ending> {
    let path = folder.join(format!("{name}.json"));
    failure::write(&path, case)?;
    args.children.play(&["replay".into(), path.into()])
}

/// Attempts in processes, several at once.
struct Attempts<'a> {
    args: &'a Args,
    folder: TempDir,
    /// How the case fails.
    verdict: Verdict,
    bar: ProgressBar,
    /// How the smallest case so far ended.
    last: Ending,
    batch: u64,
}

impl Tries for Attempts<'_> {
    type Error = anyhow::Error;

    fn first_failing(&mut self, candidates: &[Case]) -> Result<Option<usize>> {
        self.batch += 1;
        let (mut found, mut trouble): (Option<(usize, Ending)>, _) = (None, None);
        let name = |at: usize| format!("{}-{at}", self.batch);
        self.args.children.each(
            candidates.iter().enumerate(),
            |(at, case)| play(self.args, self.folder.path(), &name(*at), case),
            |(at, case), ending| {
                self.bar.inc(1);
                match ending {
                    Ok(ending) if ending.verdict() == self.verdict => {
                        if found.as_ref().is_none_or(|(first, _)| at < *first) {
                            self.bar.set_message(format!("{} faults", case.faults.len()));
                            found = Some((at, ending));
                        }
                    }
                    Ok(_) => {}
                    Err(error) => trouble = Some(error),
                }
                if found.is_some() || trouble.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        trouble.map_or(Ok(()), Err)?;
        Ok(found.map(|(at, ending)| {
            self.last = ending;
            at
        }))
    }
}
