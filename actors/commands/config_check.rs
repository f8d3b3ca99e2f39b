//! `millpond config check`: reads settings as `serve` would, and says what a node would run with.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use millpond_actors::settings;

/// Look at settings
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Check(CheckArgs),
}

/// Check a node file and the cluster file it names, and print what the node would run with
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond config check cluster-config/three/node-1.toml
  millpond config check node.toml --json | jq .node.http
  millpond config check                          what runs where nothing is configured

Exit codes: 0 fine, 1 not, with file, line and column."#)]
struct CheckArgs {
    /// A node file; without one the defaults are shown
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Print nothing, only check
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Command::Check(args) = args.command;
    let config = settings::load(args.file.as_deref(), |_| {})?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&config)?)?;
    } else if !args.quiet {
        say!("# settings of the cluster: {:016x}\n{}", config.cluster.fingerprint(), config.to_toml().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
