//! `millpond series`: the label sets of the streams that a selector matches.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::list::ListArgs;
use super::selector;

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
    list: ListArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let asked: Vec<(&str, &str)> = args.selectors.iter().map(|selector| ("match[]", selector.as_str())).collect();
    let line = |stream: &BTreeMap<String, String>| selector(stream.iter().map(|(name, value)| (&**name, &**value)));
    args.list.run("series", &asked, line).await
}
