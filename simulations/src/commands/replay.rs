//! `replay`: one plan from a file, in this process.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::PlayArgs;
use crate::failure;

/// Play a plan from a file and say whether every promise was kept
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations replay target/simulations/seed-7.json
  millpond-simulations replay target/simulations/shrunk-seed-7.json --trace seed-7.trace

A plan is JSON: seed, nodes, knobs and faults. `sweep` leaves one for each seed that failed, `shrink` a smaller one. It may
be edited: a fault left out, moved or added.
Exit codes: 0 every promise was kept, 1 one was broken or the file is no plan, 2 wrong usage."#)]
pub(crate) struct Args {
    /// The plan
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    #[command(flatten)]
    play: PlayArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    super::play(super::read_case(&args.plan)?, &args.play, &failure::replay_again(&args.plan))
}
