//! `logql`: the query engine against an evaluator that is as simple as it can be.

use std::ops::Range;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_simulations::naive::check::{self, Report};
use millpond_simulations::naive::draw;

/// Compare the query engine with a naive evaluator, on drawn records and drawn queries
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations logql --seeds 0..5000          100,000 queries
  millpond-simulations logql --seeds 7 --show 100     everything that differs in one seed

Exit codes: 0 all answers agree, 1 some differ, 2 wrong usage."#)]
pub(crate) struct Args {
    /// Seeds to run, with 20 queries each: `A..B`, B not included, or one number
    #[arg(long, value_name = "A..B", value_parser = super::seeds, default_value = "0..100")]
    seeds: Range<u64>,
    /// Differences to print
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    /// Print how often each construct was drawn
    #[arg(long)]
    count: bool,
    /// Plant each bug of the query engine in turn instead, and find the first seed that notices it (a build with
    /// mutants, which a release build refuses)
    #[arg(long)]
    mutants: bool,
}

/// Each planted bug with the first seed of which an answer differs.
#[cfg(feature = "mutants")]
fn mutants(args: &Args) -> Result<ExitCode> {
    let mut all = true;
    for name in millpond::mutant::OF_QUERIES {
        millpond::mutant::plant(name)?;
        let mut found = None;
        for seed in args.seeds.clone() {
            if let Some(difference) = check::run(seed)?.differences.into_iter().next() {
                found = Some(difference);
                break;
            }
        }
        all &= found.is_some();
        match found {
            Some(difference) => tell!("{name:<28} seed {:>4}  {}\n", difference.seed, difference.query),
            None => tell!("{name:<28} was not found\n"),
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(not(feature = "mutants"))]
fn mutants(_: &Args) -> Result<ExitCode> {
    anyhow::bail!(
        "this build has no mutants: build with `cargo run -p millpond-simulations --features mutants -- logql --mutants`"
    )
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.mutants {
        return mutants(args);
    }
    let bar = super::progress(args.seeds.end - args.seeds.start, "seeds");
    let mut total = Report::default();
    for seed in args.seeds.clone() {
        total += check::run(seed)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.count {
        for construct in draw::constructs() {
            tell!("{:>8}  {construct}\n", total.constructs.get(&construct).copied().unwrap_or(0));
        }
    }
    for difference in total.differences.iter().take(args.show) {
        tell!(
            "seed {}, query {}: {}\n{:?}\n{}\n\n",
            difference.seed,
            difference.number,
            difference.query,
            difference.ask,
            difference.what
        );
    }
    let rarest =
        draw::constructs().into_iter().map(|name| (total.constructs.get(&name).copied().unwrap_or(0), name)).min();
    tell!("queries    {}\n", total.queries);
    tell!("answers    {} hold something, {} are failures on both sides\n", total.found, total.failed);
    if let Some((count, name)) = rarest {
        tell!("rarest     {name}, {count} times\n");
    }
    tell!("differ     {}\n", total.differences.len());
    Ok(if total.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
