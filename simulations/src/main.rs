//! The `millpond-simulations` binary: reads the command line and runs one command.

/// Writes to standard output. Who has closed it, as `head` does, need not be told; the exit code still says what came of it.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

mod children;
mod commands;
mod failure;
mod outcome;
mod trace_file;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{fuzz, logql, meta, mutants, replay, run, shrink, sweep, wal};

/// Seeded simulations of Millpond: whole nodes under faults, each run again by its seed
#[derive(Parser, Debug)]
#[command(name = "millpond-simulations", max_term_width = 120, arg_required_else_help = true)]
#[command(after_help = r#"Start here (after `cargo run --release -p millpond-simulations --`):
  run --seed 7                   one cluster of three nodes through one plan of faults
  sweep --seeds 0..200           many, on all cores
  replay target/simulations/seed-7.json
                                 one that failed, again
  shrink --seed 7                the fewest faults that still fail
  logql --seeds 0..100           whether queries find what they should
  fuzz --target parser --seeds 0..100000
                                 hostile inputs, one target at a time
  meta --seeds 0..20             whether a seed does the same twice

Exit codes of every command: 0 every promise was kept, 1 one was broken or the command failed, 2 wrong usage."#)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Args),
    Sweep(sweep::Args),
    Replay(replay::Args),
    Shrink(shrink::Args),
    Meta(meta::Args),
    Mutants(mutants::Args),
    Wal(wal::Args),
    Logql(logql::Args),
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    // Before anything in the process can draw or read a clock; the seed comes when the command line is read.
    if std::env::args_os().nth(1).is_some_and(|command| command == "run" || command == "replay") {
        millpond_shim::freeze(0);
    }
    let outcome = match CommandLine::parse().command {
        Command::Run(args) => run::run(args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Meta(args) => meta::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Wal(args) => wal::run(&args),
        Command::Logql(args) => logql::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
