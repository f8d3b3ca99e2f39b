//! `millpond crash`: makes one actor of a node panic, to see it come back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args as ClapArgs;
use hyper::{Method, StatusCode};
use millpond_actors::load::Client;

use super::{NodesArgs, silence, unanswered};

const PATIENCE: Duration = Duration::from_secs(5);

/// Make one actor panic on purpose
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond crash shard-3/replica
  millpond crash log-writer --node http://127.0.0.1:3102
  millpond tree                                  names the actors, and shows the restart and its reason

The node must have been started with `--fault-injection`.
Exit codes: 0 it was told to panic, 1 it was not."#)]
pub(crate) struct Args {
    /// The actor's name in the tree, such as shard-3/replica
    #[arg(value_name = "ACTOR")]
    actor: String,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    // Another node's actor of the same name is not the one meant, so only the first node is asked.
    let node = args.nodes.urls().into_iter().next().context("no node was named")?;
    let url = format!("{node}/api/v1/tree/{}/crash", path_part(&args.actor));
    let answer = Client::new(PATIENCE).request(Method::POST, &url, &[], Bytes::new()).await;
    let answer = answer.map_err(|error| unanswered(&[silence(&node, &error)]))?;
    if answer.status != StatusCode::ACCEPTED {
        bail!("{}", answer.text());
    }
    if args.json {
        say!("{}", serde_json::json!({ "actor": args.actor, "node": node, "crashed": true }))?;
    } else {
        say!("{}", answer.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A name as one part of a path.
fn path_part(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_the_path() {
        assert_eq!(path_part("shard-3/replica"), "shard-3%2Freplica");
        assert_eq!(path_part("a b?#é"), "a%20b%3F%23%C3%A9");
    }
}
