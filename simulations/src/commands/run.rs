//! `run`: one seed, in this process.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond_simulations::case::Case;
use millpond_simulations::draw;

use super::{NodesArgs, PlayArgs};
use crate::failure;

/// Run one seed and say whether every promise was kept
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations run --seed 7
  millpond-simulations run --seed 7 --nodes 5 --trace seed-7.trace
  millpond-simulations run --seed 7 --mutant ack-before-sync       a build with mutants, see `mutants --help`

The seed draws the knobs and the plan of faults, and decides everything that happens: the same seed gives the same trace,
byte for byte, on every machine. A failure shows all of that, the last lines of the trace, and this command.
Exit codes: 0 every promise was kept, 1 one was broken, 2 wrong usage."#)]
pub(crate) struct Args {
    /// The seed
    #[arg(long, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    cluster: NodesArgs,
    /// Plant this bug first, to see it found
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    #[command(flatten)]
    play: PlayArgs,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let case = Case { mutant: args.mutant, ..draw::draw(args.seed, args.cluster.nodes) };
    let again = failure::run_again(&case);
    super::play(case, &args.play, &again)
}
