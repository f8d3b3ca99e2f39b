//! `millpond labels`: the names of labels, or the values of one.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::list::ListArgs;
use super::search;

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
    /// Of the streams that this selects alone
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let asked: Vec<(&str, &str)> = args.selector.as_deref().map(|selector| ("query", selector)).into_iter().collect();
    let path = match &args.name {
        None => "labels".to_owned(),
        Some(name) => format!("label/{}/values", search::path_part(name)),
    };
    args.list.run(&path, &asked, String::clone).await
}
