//! The `millpond` binary: reads the command line and runs one command.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use commands::{
    backup, bench, completions, config_check, crash, demo, fmt, help, in_words, is_closed_pipe, labels, node, query,
    rebalance, replication, restore, send, series, serve, shard, status, tail, tree,
};

/// A highly available log store: three equal nodes, one binary
#[derive(Parser, Debug)]
#[command(name = "millpond", version, max_term_width = 120, arg_required_else_help = true)]
#[command(after_help = r#"Start here:
  millpond demo                                       three nodes, one killed under load
  millpond serve                                      one node, data in ./millpond-data
  millpond send /var/log/syslog                       store a file
  millpond query '{service_name="syslog"} |= "error"' search it
  millpond tail '{service_name="syslog"}'             follow it

Exit codes of every command: 0 done, 1 failed, 2 wrong usage. `serve` has more, and searches with --fail-empty have those of
grep; see their --help."#)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Send(send::Args),
    Query(query::Args),
    Tail(tail::Args),
    Labels(labels::Args),
    Series(series::Args),
    Fmt(fmt::Args),
    Status(status::Args),
    Tree(tree::Args),
    Node(node::Args),
    Shard(shard::Args),
    Replication(replication::Args),
    Rebalance(rebalance::Args),
    Crash(crash::Args),
    Config(config_check::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let matches = help::laid_out(CommandLine::command()).get_matches();
    let command = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(command));
    // A reader of standard input may block for ever; nothing waits for it.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        // A pipe that was closed, as by `head`, is the wish of who closed it.
        if is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {}", in_words(&error));
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Query(args) => query::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Labels(args) => labels::run(args).await,
        Command::Series(args) => series::run(args).await,
        Command::Fmt(args) => fmt::run(args),
        Command::Status(args) => status::run(args).await,
        Command::Tree(args) => tree::run(args).await,
        Command::Node(args) => node::run(args).await,
        Command::Shard(args) => shard::run(args).await,
        Command::Replication(args) => replication::run(args).await,
        Command::Rebalance(args) => rebalance::run(args).await,
        Command::Crash(args) => crash::run(args).await,
        Command::Config(args) => config_check::run(args),
        Command::Backup(args) => backup::run(args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Completions(args) => completions::run(&args, CommandLine::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
