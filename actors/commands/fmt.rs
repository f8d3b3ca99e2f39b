//! `millpond fmt`: LogQL in the one way that Millpond writes it, or where and why it is none. Asks no node.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use millpond::query::parser::format_query;
use serde_json::json;

use super::search::pointed;

/// Format LogQL and check its syntax
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond fmt '{app="web"}|="timeout"|json|took>1500ms'
  millpond fmt < dashboard.logql                 one query, on as many lines as it likes
  millpond fmt --quiet 'rate({app="web"}[5m])' && echo fine
  jq -c .query queries.json | millpond fmt --json   a JSON string a line in, a JSON object a line out

With --json each line out is {"formatted": ".."} or {"error": ".."}. It is LogQL that is checked, not whether there is
data for it.

Exit codes: 0 all are LogQL, 1 one is not: standard error says where, 2 wrong usage."#)]
pub(crate) struct Args {
    /// The queries; standard input if none is given
    #[arg(value_name = "QUERY")]
    queries: Vec<String>,
    /// Read a query as a JSON string from each line of standard input, and write a JSON object for each
    #[arg(long, conflicts_with_all = ["queries", "quiet"])]
    json: bool,
    /// Print nothing, only check
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { mut queries, json, quiet } = args;
    if json {
        return lines();
    }
    if queries.is_empty() {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("standard input")?;
        queries.push(text);
    }
    let mut code = ExitCode::SUCCESS;
    let mut out = io::stdout().lock();
    for query in queries {
        match format_query(&query) {
            Ok(formatted) if !quiet => writeln!(out, "{formatted}")?,
            Ok(_) => {}
            Err(error) => {
                let place = pointed(&error.to_string(), &query).map_or_else(String::new, |place| format!("\n{place}"));
                eprintln!("error: {error}{place}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// A query a line, both ways as JSON, because a query may have lines of its own.
fn lines() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut out = io::stdout().lock();
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line.context("standard input")?;
        let query: String =
            serde_json::from_str(&line).with_context(|| format!("line {}: not a JSON string", number + 1))?;
        let answer = match format_query(&query) {
            Ok(formatted) => json!({ "formatted": formatted }),
            Err(error) => {
                code = ExitCode::FAILURE;
                json!({ "error": error.to_string() })
            }
        };
        writeln!(out, "{answer}")?;
    }
    Ok(code)
}
