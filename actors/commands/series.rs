//! `millpond series`: the label sets of the streams that a selector matches.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use serde::Deserialize;

use super::range::RangeArgs;
use super::screen::Screen;
use super::{NodesArgs, search, selector};

/// List the streams that match a selector
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond series '{service_name="api"}'                  the streams of a service
  millpond series '{level="error"}' '{level="warn"}'      those of either
  millpond series '{}' --since 15m                        every stream
  millpond series '{host=~"web-.*"}' --json | jq -r '.data[].host'

A line is the labels of one stream, written as a selector of it. Of the streams with records in the range, as far as the
index of their blocks tells.

Exit codes: 0 answered, also when nothing was found; 1 failed; 2 wrong usage. With --fail-empty as grep has them:
0 something was found; 1 nothing was; 2 failed, or wrong usage."#)]
pub(crate) struct Args {
    /// Stream selectors: a stream is listed that any of them matches
    #[arg(value_name = "SELECTOR", required = true)]
    selectors: Vec<String>,
    #[command(flatten)]
    range: RangeArgs,
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
    data: Vec<BTreeMap<String, String>>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    search::code(answered(&args).await, args.fail_empty)
}

async fn answered(args: &Args) -> Result<bool> {
    let (from, to) = args.range.bounds();
    let (from, to) = (from.to_string(), to.to_string());
    let mut pairs = vec![("start", from.as_str()), ("end", to.as_str())];
    pairs.extend(args.selectors.iter().map(|selector| ("match[]", selector.as_str())));
    let body = search::ask(&args.nodes, "series", &pairs).await?;
    let Envelope { data } = serde_json::from_slice(&body).context("the node's answer is not what the API promises")?;
    let screen = Screen::stdout();
    let mut text = Vec::new();
    if args.json {
        text.extend_from_slice(&body);
        writeln!(text)?;
    } else {
        for stream in &data {
            let labels = selector(stream.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            writeln!(text, "{}", screen.paint.safe(&labels))?;
        }
    }
    screen.show(&text, !args.no_pager)?;
    Ok(!data.is_empty())
}
