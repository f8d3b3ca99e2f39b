//! `millpond shard`: where the replicas of each shard are and who leads it, and moving either.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use millpond::id::{NodeId, ShardId};
use millpond_actors::board::Standing;
use millpond_actors::listeners::http::nodes::ClusterReport;
use millpond_actors::observe::ShardView;
use serde_json::json;
use tokio::time::Instant;

use super::admin::{Look, cluster, post, table, told, wait};
use super::screen::Screen;
use super::split_brain;
use super::{NodesArgs, ask};

/// How long a leader may take to hand over.
const LEADS_WITHIN: Duration = Duration::from_secs(10);
/// How long the node that is asked may take to hear of what was agreed on.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Show where shards live and who leads them, and move replicas and leaders
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond shard list
  millpond shard move 3 --from 1 --to 4
  millpond shard transfer-leader 3 --to 2
  millpond shard split-brain-check

A shard is named by its number; `metadata` is the group that knows the nodes. Exit codes: 0 done, 1 not done."#)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the nodes of every shard, its leader and its move
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  millpond shard list --json | jq '.[] | select(.leader == null)'"
    )]
    List(List),
    Move(Move),
    TransferLeader(TransferLeader),
    /// Ask every node who leads each shard, and compare
    #[command(
        after_help = "Example:\n  millpond shard split-brain-check --node http://10.0.0.1:3100\n\nIt fails where two nodes lead a shard in one term, where nodes do not agree for longer than an election takes, and\nwhere a node does not answer."
    )]
    SplitBrainCheck(List),
}

#[derive(ClapArgs, Debug)]
struct List {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Move a replica from one node to another
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Example:
  millpond shard move 3 --from 1 --to 4

It waits until the replica on the new node votes and the old one is gone. Interrupted, the move goes on."#)]
struct Move {
    /// The shard's number, or `metadata`
    #[arg(value_name = "SHARD", value_parser = shard_argument)]
    shard: ShardId,
    /// The node whose replica goes
    #[arg(long, value_name = "ID")]
    from: u64,
    /// The node where one comes
    #[arg(long, value_name = "ID")]
    to: u64,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Do not wait until it is over
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Let another replica of a shard lead it
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Example:
  millpond shard transfer-leader 3 --to 2

Leaders are evened out again later: to keep a node from leading, drain it."#)]
struct TransferLeader {
    /// The shard's number, or `metadata`
    #[arg(value_name = "SHARD", value_parser = shard_argument)]
    shard: ShardId,
    /// The node that is to lead
    #[arg(long, value_name = "ID")]
    to: u64,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `3`, `shard-3` or `metadata`.
fn shard_argument(text: &str) -> Result<ShardId, String> {
    if text == ShardId::METADATA.to_string() {
        return Ok(ShardId::METADATA);
    }
    let number = text.strip_prefix("shard-").unwrap_or(text).parse().ok().filter(|number| *number < u32::MAX);
    number.map(ShardId).ok_or_else(|| format!("`{text}` is no shard; write its number, or `metadata`"))
}

/// A shard as a part of a path.
fn path(shard: ShardId) -> String {
    if shard == ShardId::METADATA { shard.to_string() } else { shard.0.to_string() }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args).await,
        Command::Move(args) => begin_move(&args).await,
        Command::TransferLeader(args) => transfer_leader(&args).await,
        Command::SplitBrainCheck(List { nodes, json }) => split_brain::run(&nodes, json).await,
    }
}

async fn list(args: &List) -> Result<ExitCode> {
    if args.json {
        let shards: serde_json::Value = ask(&args.nodes, "/api/v1/shards").await?;
        say!("{}", serde_json::to_string_pretty(&shards)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut shards: Vec<ShardView> = ask(&args.nodes, "/api/v1/shards").await?;
    shards.sort_by_key(|shard| shard.shard);
    let cluster = cluster(&args.nodes).await?;
    let screen = Screen::stdout();
    let mut text = Vec::new();
    for (line, level) in lines(&shards, &cluster) {
        let line = level.map_or_else(|| screen.paint.safe(&line), |level| screen.paint.level(level, &line));
        writeln!(text, "{line}")?;
    }
    screen.show(&text, true)?;
    Ok(ExitCode::SUCCESS)
}

/// The lines, each with the level whose colour it has.
fn lines(shards: &[ShardView], cluster: &ClusterReport) -> Vec<(String, Option<&'static str>)> {
    let mut rows = vec![["SHARD", "LEADER", "NODES", "MOVE"].map(str::to_owned).to_vec()];
    let mut levels = vec![Some("debug")];
    for shard in shards {
        let nodes: Vec<String> = shard.replicas.iter().map(|replica| replica.node.to_string()).collect();
        let moves = cluster.moves.iter().filter(|under_way| under_way.shard == ShardId(shard.shard).to_string());
        let place = |node: Option<NodeId>| node.map_or_else(|| "-".to_owned(), |node| node.to_string());
        let moves = moves.map(|it| format!("{} to {} ({}): {}", place(it.from), place(it.to), it.why, it.stage));
        rows.push(vec![
            shard.shard.to_string(),
            shard.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            nodes.join(" "),
            moves.collect::<Vec<_>>().join(", "),
        ]);
        let few = shard.replicas.len() < cluster.copies as usize;
        levels.push(if shard.leader.is_none() {
            Some("error")
        } else if few {
            Some("warn")
        } else {
            None
        });
    }
    table(&rows).into_iter().zip(levels).collect()
}

async fn begin_move(args: &Move) -> Result<ExitCode> {
    let &Move { shard, from, to, .. } = args;
    post(&args.nodes, &format!("/api/v1/shards/{}/move", path(shard)), &json!({ "from": from, "to": to })).await?;
    let value = json!({ "shard": shard.to_string(), "from": from, "to": to, "over": !args.no_wait });
    if args.no_wait {
        told(args.json, &value, &format!("the move of {shard} from node {from} to node {to} is under way"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut seen, began) = (false, Instant::now());
    let look = async || {
        let cluster = cluster(&args.nodes).await?;
        let holds = holds(&args.nodes, &cluster, shard, NodeId(to)).await?;
        let under_way = cluster.moves.iter().find(|under_way| under_way.shard == shard.to_string());
        seen |= under_way.is_some();
        Ok(match under_way {
            Some(under_way) => Look::Wait(format!("move {}: {}", under_way.id, under_way.stage)),
            None if holds => Look::Done(format!("{shard} has moved from node {from} to node {to}")),
            None if seen || began.elapsed() > HEARD_WITHIN => Look::Failed(format!("the move of {shard} was given up")),
            None => Look::Wait(format!("node {} has not heard of the move yet", cluster.seen_from)),
        })
    };
    let said = wait(None, look).await?;
    told(args.json, &value, &said)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a node has a replica of a group that votes, or is about to.
async fn holds(nodes: &NodesArgs, cluster: &ClusterReport, shard: ShardId, node: NodeId) -> Result<bool> {
    if shard == ShardId::METADATA {
        return Ok(cluster.nodes.iter().any(|member| member.node == node && member.votes));
    }
    let shards: Vec<ShardView> = ask(nodes, "/api/v1/shards").await?;
    let of = shards.iter().filter(|view| view.shard == shard.0).flat_map(|view| &view.replicas);
    Ok(of.into_iter().any(|replica| replica.node == node.0))
}

async fn transfer_leader(args: &TransferLeader) -> Result<ExitCode> {
    let &TransferLeader { shard, to, .. } = args;
    post(&args.nodes, &format!("/api/v1/shards/{}/transfer-leader", path(shard)), &json!({ "to": to })).await?;
    let look = async || {
        let standings: Vec<Standing> = ask(&args.nodes, "/api/v1/replicas").await?;
        let leader = standings.iter().find(|standing| standing.shard == shard).and_then(|standing| standing.leader);
        Ok(match leader {
            Some(leader) if leader.0 == to => Look::Done(format!("node {to} leads {shard}")),
            Some(leader) => Look::Wait(format!("node {leader} leads {shard}")),
            None => Look::Wait(format!("nobody leads {shard}")),
        })
    };
    let said = wait(Some(LEADS_WITHIN), look).await?;
    told(args.json, &json!({ "shard": shard.to_string(), "leader": to }), &said)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use millpond_actors::listeners::http::nodes::MoveReport;
    use millpond_actors::observe::ReplicaView;

    use super::*;
    use crate::commands::admin::tests::{a_cluster, a_member};

    #[test]
    fn a_shard_is_read_by_number_or_by_name() {
        assert_eq!(shard_argument("3"), Ok(ShardId(3)));
        assert_eq!(shard_argument("shard-3"), Ok(ShardId(3)));
        assert_eq!(shard_argument("metadata").map(path), Ok("metadata".to_owned()));
        assert_eq!(path(ShardId(3)), "3");
        assert!(shard_argument("4294967295").is_err() && shard_argument("first").is_err());
    }

    #[test]
    fn a_shard_without_a_leader_or_with_too_few_copies_stands_out() {
        let view = |shard, leader, nodes: &[u64]| ShardView {
            shard,
            replicas: nodes.iter().map(|node| ReplicaView { node: *node, role: String::new() }).collect(),
            leader,
            leader_url: None,
            next_offset: 0,
        };
        let moves = vec![MoveReport {
            id: 1,
            shard: "shard-1".to_owned(),
            from: None,
            to: Some(NodeId(3)),
            why: "replication".to_owned(),
            stage: "caught up".to_owned(),
        }];
        let cluster = ClusterReport { moves, ..a_cluster(vec![a_member(1, 3)]) };
        let shards = [view(0, Some(1), &[1, 2, 3]), view(1, Some(2), &[1, 2]), view(2, None, &[1, 2, 3])];
        let lines = lines(&shards, &cluster);
        let levels: Vec<_> = lines.iter().map(|(_, level)| *level).collect();
        assert_eq!(levels, [Some("debug"), None, Some("warn"), Some("error")]);
        assert_eq!(lines[2].0, "1      2       1 2    - to 3 (replication): caught up");
    }
}
