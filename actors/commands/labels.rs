//! `millpond labels`: the names of labels, or the values of one.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use serde::Deserialize;

use super::range::RangeArgs;
use super::screen::Screen;
use super::{NodesArgs, search};

/// List the names of labels, or the values of one
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond labels                                         what labels there are
  millpond labels service_name --since 1d                 which services stored records within a day
  millpond labels level --selector '{service_name="api"}'
  millpond labels --json | jq -r '.data[]'

Of the streams with records in the range, as far as the index of their blocks tells: near the ends of the range a label
may be listed whose records lie just outside.

Exit codes: 0 answered, also when nothing was found; 1 failed; 2 wrong usage. With --fail-empty as grep has them:
0 something was found; 1 nothing was; 2 failed, or wrong usage."#)]
pub(crate) struct Args {
    /// The label whose values are listed
    name: Option<String>,
    #[command(flatten)]
    range: RangeArgs,
    /// Of the streams that this selects alone
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// The answer as the node sent it
    #[arg(long)]
    json: bool,
    /// Do not page
    #[arg(long)]
    no_pager: bool,
    /// Exit with 1 where nothing was found, and with 2 where the request failed, as grep does
    #[arg(long)]
    fail_empty: bool,
    #[command(flatten)]
    nodes: NodesArgs,
}

#[derive(Deserialize)]
struct Envelope {
    data: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    search::code(answered(&args).await, args.fail_empty)
}

async fn answered(args: &Args) -> Result<bool> {
    let (from, to) = args.range.bounds();
    let (from, to) = (from.to_string(), to.to_string());
    let mut pairs = vec![("start", from.as_str()), ("end", to.as_str())];
    pairs.extend(args.selector.as_deref().map(|selector| ("query", selector)));
    let path = match &args.name {
        None => "labels".to_owned(),
        Some(name) => format!("label/{}/values", search::path_part(name)),
    };
    let body = search::ask(&args.nodes, &path, &pairs).await?;
    let Envelope { data } = serde_json::from_slice(&body).context("the node's answer is not what the API promises")?;
    let screen = Screen::stdout();
    let mut text = Vec::new();
    if args.json {
        text.extend_from_slice(&body);
        writeln!(text)?;
    } else {
        data.iter().try_for_each(|found| writeln!(text, "{}", screen.paint.safe(found)))?;
    }
    screen.show(&text, !args.no_pager)?;
    Ok(!data.is_empty())
}
