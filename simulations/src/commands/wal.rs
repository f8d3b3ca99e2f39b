//! `wal`: the log of one node against a model of it.

use std::ops::Range;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use millpond_simulations::wal;

/// Run the log of one node on a disk that loses, tears and flips
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond-simulations wal --seeds 0..1000
  millpond-simulations wal --seeds 7 --steps 3000

Exit codes: 0 the log kept what was flushed, 1 it did not, 2 wrong usage."#)]
pub(crate) struct Args {
    /// Seeds to run: `A..B`, B not included, or one number
    #[arg(long, value_name = "A..B", value_parser = super::seeds, default_value = "0..100")]
    seeds: Range<u64>,
    /// Steps per seed
    #[arg(long, default_value_t = wal::STEPS)]
    steps: u32,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let count = args.seeds.end - args.seeds.start;
    let bar = super::progress(count, "seeds");
    let mut total = wal::Summary::default();
    for seed in args.seeds.clone() {
        let again = format!("{} wal --seeds {seed} --steps {}", crate::failure::cargo_run(), args.steps);
        total += wal::run(seed, args.steps).with_context(|| format!("seed {seed} failed ({again})"))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    tell!("{count} seeds held: {total:?}\n");
    Ok(ExitCode::SUCCESS)
}
