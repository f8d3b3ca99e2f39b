//! Runs simulations over ranges of seeds, and says how to run one again.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millpond_simulations::wal;

/// Seeded simulations of Millpond.
#[derive(Debug, Parser)]
#[command(after_help = "Example: cargo run -p millpond-simulations -- wal --seeds 0..1000")]
struct Arguments {
    #[command(subcommand)]
    simulation: Simulation,
}

#[derive(Debug, Subcommand)]
enum Simulation {
    /// The log of one node on a disk that loses, tears and flips.
    Wal {
        /// Seeds to run: `A..B`, B not included, or one number.
        #[arg(long, value_parser = seeds, default_value = "0..100")]
        seeds: Range<u64>,
        /// Steps per seed.
        #[arg(long, default_value_t = wal::STEPS)]
        steps: u32,
    },
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?} is no seed: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(number(text)?..number(text)?.saturating_add(1)),
    }
}

fn main() -> ExitCode {
    let Arguments { simulation: Simulation::Wal { seeds, steps } } = Arguments::parse();
    let drawn = std::io::stderr().is_terminal();
    let mut total = wal::Summary::default();
    for seed in seeds.clone() {
        match wal::run(seed, steps) {
            Ok(summary) => total += summary,
            Err(error) => {
                eprintln!("seed {seed} failed: {error:#}");
                eprintln!("replay: cargo run -p millpond-simulations -- wal --seeds {seed} --steps {steps}");
                return ExitCode::FAILURE;
            }
        }
        if drawn {
            eprint!("\rseed {seed} of {}..{}", seeds.start, seeds.end);
            let _ = std::io::stderr().flush();
        }
    }
    if drawn {
        eprintln!();
    }
    println!("{} seeds held: {total:?}", seeds.end.saturating_sub(seeds.start));
    ExitCode::SUCCESS
}
