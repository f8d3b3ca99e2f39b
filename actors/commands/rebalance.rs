//! `millpond rebalance`: which replicas should move, and moving them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use millpond::id::NodeId;
use millpond_actors::listeners::http::nodes::WishReport;
use serde_json::json;

use super::admin::{Look, cluster, post, table, told, wait};
use super::{NodesArgs, ask};

/// Even out zones, replicas and bytes between the nodes, and repair what can be repaired
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond rebalance --dry-run                   the moves that should begin now
  millpond rebalance                             begin them, and those that follow, and wait until nothing is left to move

A cluster does this by itself unless `rebalance = false` stands in cluster.toml. Few moves run at once, so that writes do not
wait for copies. Exit codes: 0 nothing is left to move, or the plan was shown; 1 the cluster did not agree."#)]
pub(crate) struct Args {
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    if args.dry_run {
        let wishes: Vec<WishReport> = ask(&args.nodes, "/api/v1/rebalance").await?;
        if args.json {
            say!("{}", serde_json::to_string(&wishes)?)?;
        } else {
            lines(&wishes).iter().try_for_each(|line| say!("{line}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut still = 0;
    let said = wait(None, async || {
        let wishes: Vec<WishReport> = ask(&args.nodes, "/api/v1/rebalance").await?;
        let under_way = cluster(&args.nodes).await?.moves.len();
        // Between two moves the plan may be empty for a moment: what was reported is a moment old.
        still = if wishes.is_empty() && under_way == 0 { still + 1 } else { 0 };
        if still > LOOKS_AT_REST {
            return Ok(Look::Done("nothing is left to move".to_owned()));
        }
        if !wishes.is_empty() {
            post(&args.nodes, "/api/v1/rebalance", &json!({})).await?;
        }
        Ok(Look::Wait(format!("{under_way} moves under way, {} should begin", wishes.len())))
    })
    .await?;
    told(args.json, &json!({ "done": true }), &said)?;
    Ok(ExitCode::SUCCESS)
}

/// Looks that must find nothing to do, half a second apart.
const LOOKS_AT_REST: u32 = 6;

fn lines(wishes: &[WishReport]) -> Vec<String> {
    if wishes.is_empty() {
        return vec!["nothing should move".to_owned()];
    }
    let node = |node: Option<NodeId>| node.map_or_else(|| "-".to_owned(), |node| node.to_string());
    let head = ["SHARD", "FROM", "TO", "WHY"].map(str::to_owned).to_vec();
    let row = |wish: &WishReport| vec![wish.shard.clone(), node(wish.from), node(wish.to), wish.why.clone()];
    table(&[vec![head], wishes.iter().map(row).collect()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_table_and_no_plan_a_sentence() {
        let wish =
            |shard: &str, from, to, why: &str| WishReport { shard: shard.to_owned(), from, to, why: why.to_owned() };
        let wishes = [
            wish("shard-3", Some(NodeId(1)), Some(NodeId(4)), "rebalance"),
            wish("shard-12", None, Some(NodeId(5)), "replication"),
        ];
        assert_eq!(
            lines(&wishes),
            ["SHARD     FROM  TO  WHY", "shard-3   1     4   rebalance", "shard-12  -     5   replication"]
        );
        assert_eq!(lines(&[]), ["nothing should move"]);
    }
}
