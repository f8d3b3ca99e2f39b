//! `millpond replication`: how many copies each shard has.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::NodesArgs;
use super::admin::{post, told};

/// Keep each shard in 1, 3 or 5 copies from now on
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Example:
  millpond replication 5                         copies are made on nodes that have none, one move after the other
  millpond shard list                            shows how far it is

As many nodes must be active. Exit codes: 0 the cluster has agreed, 1 it has not."#)]
pub(crate) struct Args {
    /// How many copies
    #[arg(value_parser = PossibleValuesParser::new(["1", "3", "5"]))]
    copies: String,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let copies: u32 = args.copies.parse()?;
    post(&args.nodes, "/api/v1/replication", &json!({ "copies": copies })).await?;
    told(args.json, &json!({ "copies": copies }), &format!("each shard shall have {copies} copies"))?;
    Ok(ExitCode::SUCCESS)
}
