//! `millpond node`: the nodes of a cluster, and how they come and go.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, Subcommand};
use millpond_actors::listeners::http::nodes::{ClusterReport, MemberReport, NodeReport};
use serde_json::json;

use super::admin::{Look, cluster, fitting, member, move_words, post, table, told, wait};
use super::screen::Screen;
use super::{NodesArgs, ask, default_nodes, node_argument};

/// How long a node may take to follow its cluster once it belongs to it.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(120);
/// What a narrow terminal is not shown, the first first.
const SPARED: [&str; 6] = ["ADDRESS", "METADATA", "ZONE", "NAME", "HTTP", "LEADS"];

/// Show the nodes of a cluster, let one join, empty one, remove one
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond node list
  millpond node add http://10.0.0.4:3100 --to http://10.0.0.1:3100
  millpond node drain 2 && millpond node remove 2

A node joins with an empty data folder and a cluster.toml that has the same name, shards, routing and cookie, and lists
the node itself and nodes that it can ask. Exit codes: 0 done, 1 not done."#)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    List(List),
    /// Let a node that runs and belongs to no cluster join one
    Add(Come),
    /// Let a node of the cluster back in that has lost its data folder
    Replace(Come),
    Drain(Drain),
    /// Let a node that was to be emptied hold replicas again
    #[command(after_help = "Example:\n  millpond node undrain 2")]
    Undrain(One),
    /// Let an empty node leave the cluster for good
    #[command(
        after_help = "Example:\n  millpond node drain 2 && millpond node remove 2\n\nThe id of a node that has left is never used again."
    )]
    Remove(One),
}

/// Show every node, what it holds and leads, and the moves under way
#[derive(ClapArgs, Debug)]
#[command(
    visible_alias = "ls",
    after_help = "Example:\n  millpond node list --json | jq '.nodes[] | select(.state == \"draining\")'\n\nA terminal that is too narrow for all columns is shown those that matter most; a pipe and --json have them all."
)]
struct List {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print what the node answers
    #[arg(long)]
    json: bool,
}

#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond node add http://10.0.0.4:3100 --to http://10.0.0.1:3100
  millpond node replace http://10.0.0.2:3100 --to http://10.0.0.1:3100

The new node is asked who it is, then the cluster is told. `add` is for a node id that was never used; `replace` for a
node of the cluster that came back with an empty data folder: what it held before is given up and copied anew."#)]
struct Come {
    /// Address of the new node
    #[arg(value_name = "URL", value_parser = node_argument)]
    node: String,
    /// Address of a node of the cluster; give it several times to go on with the next when one fails. MILLPOND_URL sets
    /// the default
    #[arg(long, value_name = "URL", default_values_t = default_nodes(), value_parser = node_argument)]
    to: Vec<String>,
    /// Do not wait until the node follows the cluster
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Move everything that a node holds to other nodes
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Example:
  millpond node drain 2

It waits until the node is empty. Interrupted, the drain goes on; `millpond node undrain 2` ends it."#)]
struct Drain {
    #[command(flatten)]
    one: One,
    /// Do not wait until the node is empty
    #[arg(long)]
    no_wait: bool,
}

#[derive(ClapArgs, Debug)]
struct One {
    /// The node's number
    #[arg(value_name = "ID")]
    id: u64,
    #[command(flatten)]
    nodes: NodesArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args).await?,
        Command::Add(args) => add(&args).await?,
        Command::Replace(args) => replace(&args).await?,
        Command::Drain(args) => drain(&args).await?,
        Command::Undrain(args) => undrain(&args).await?,
        Command::Remove(args) => remove(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &List) -> Result<()> {
    let cluster = cluster(&args.nodes).await?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&cluster)?)?;
        return Ok(());
    }
    let screen = Screen::stdout();
    for (line, level) in lines(&cluster, screen.width()) {
        let line = level.map_or_else(|| screen.paint.safe(&line), |level| screen.paint.level(level, &line));
        say!("{line}")?;
    }
    Ok(())
}

/// The lines for a screen of so many columns, each with the level whose colour it has.
fn lines(cluster: &ClusterReport, width: Option<usize>) -> Vec<(String, Option<&'static str>)> {
    let head = ["NODE", "NAME", "STATE", "LINK", "ZONE", "SHARDS", "LEADS", "METADATA", "ADDRESS", "HTTP"];
    let row = |member: &MemberReport| {
        let mut shards = member.replicas.to_string();
        if member.joining > 0 {
            shards.push_str(&format!("+{}", member.joining));
        }
        if member.lost > 0 {
            shards.push_str(&format!(" ({} lost)", member.lost));
        }
        vec![
            member.node.to_string(),
            member.name.clone().unwrap_or_default(),
            member.state.clone(),
            member.link.clone(),
            member.zone.clone(),
            shards,
            member.leads.to_string(),
            if member.votes { "votes" } else { "follows" }.to_owned(),
            member.address.clone(),
            member.url.clone().unwrap_or_default(),
        ]
    };
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(cluster.nodes.iter().map(row));
    let level = |member: &MemberReport| match (member.state.as_str(), member.link.as_str()) {
        ("removed", _) => Some("debug"),
        (_, "suspected" | "refused" | "connecting" | "none") => Some("error"),
        ("active", _) => None,
        (_, _) => Some("warn"),
    };
    let levels = [Some("debug")].into_iter().chain(cluster.nodes.iter().map(level));
    let mut lines: Vec<_> = table(&fitting(rows, &SPARED, width)).into_iter().zip(levels).collect();
    for member in &cluster.nodes {
        let reason = member.reason.iter().map(|reason| (format!("node {}: {reason}", member.node), Some("error")));
        lines.extend(reason);
    }
    lines.extend(cluster.moves.iter().map(|under_way| (move_words(under_way), None)));
    lines
}

/// Who a node says that it is.
async fn ask_node(args: &Come) -> Result<NodeReport> {
    let nodes = NodesArgs { nodes: vec![args.node.clone()] };
    ask(&nodes, "/api/v1/node").await.with_context(|| format!("asking {} who it is; does it run?", args.node))
}

async fn add(args: &Come) -> Result<()> {
    let (report, to) = (ask_node(args).await?, NodesArgs { nodes: args.to.clone() });
    let target = cluster(&to).await?;
    check_blank(&report, &target)?;
    ensure!(!report.address.is_empty(), "node {} does not say where its peers reach it", report.node);
    let NodeReport { node, store, address, zone, .. } = &report;
    let body = json!({ "node": node, "store": store, "address": address, "zone": zone });
    post(&to, "/api/v1/nodes", &body).await?;
    come(args, &report, &to, "belongs to the cluster").await
}

async fn replace(args: &Come) -> Result<()> {
    let (report, to) = (ask_node(args).await?, NodesArgs { nodes: args.to.clone() });
    let target = cluster(&to).await?;
    check_blank(&report, &target)?;
    member(&target, report.node.0)?;
    post(&to, &format!("/api/v1/nodes/{}/replace", report.node), &json!({ "store": report.store })).await?;
    come(args, &report, &to, "is back with another data folder").await
}

/// A node comes to one cluster only. One that belongs to this one already was told before.
fn check_blank(report: &NodeReport, target: &ClusterReport) -> Result<()> {
    let node = report.node;
    let Some(theirs) = &target.cluster else { bail!("node {} has not formed a cluster yet", target.seen_from) };
    match &report.cluster {
        Some(ours) if ours != theirs => {
            bail!("node {node} belongs to cluster {ours}, not to {theirs}: start it with an empty data folder")
        }
        Some(_) | None => Ok(()),
    }
}

async fn come(args: &Come, report: &NodeReport, to: &NodesArgs, words: &str) -> Result<()> {
    let node = report.node;
    if !args.no_wait {
        let look = async || Ok(joined(&ask_node(args).await?, &cluster(to).await?));
        let waited = wait(Some(FOLLOWS_WITHIN), look).await;
        waited.with_context(|| format!("node {node} {words}, but does not follow it yet"))?;
    }
    told(
        args.json,
        &json!({ "node": node, "store": report.store, "follows": !args.no_wait }),
        &format!("node {node} {words}"),
    )?;
    Ok(())
}

/// Whether a node follows its cluster, and the cluster is connected with it.
fn joined(node: &NodeReport, cluster: &ClusterReport) -> Look {
    let id = node.node;
    let Ok(member) = member(cluster, id.0) else {
        return Look::Wait(format!("node {} has not heard of node {id} yet", cluster.seen_from));
    };
    if member.store != node.store {
        return Look::Wait(format!("node {} knows node {id} with its old data folder", cluster.seen_from));
    }
    let connected = ["connected", "self"].contains(&member.link.as_str());
    match (&node.waits, connected, &node.state) {
        (Some(waits), ..) if node.cluster.is_none() => Look::Wait(format!("node {id}: {waits}")),
        (_, false, _) => {
            let reason = member.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            Look::Wait(format!("node {} and node {id}: {}{reason}", cluster.seen_from, member.link))
        }
        (_, true, None) => Look::Wait(format!("node {id} reads what the cluster has agreed on so far")),
        (_, true, Some(_)) => Look::Done(format!("node {id} follows")),
    }
}

async fn drain(Drain { one, no_wait }: &Drain) -> Result<()> {
    let id = one.id;
    post(&one.nodes, &format!("/api/v1/nodes/{id}/drain"), &json!({})).await?;
    if *no_wait {
        // The drain is agreed on, whether or not the cluster can be looked at.
        let seen = cluster(&one.nodes).await.ok();
        let why = seen.and_then(|seen| nowhere(&seen, member(&seen, id).ok()?));
        let more = why.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let words = format!("node {id} is being emptied{more}");
        told(one.json, &json!({ "node": id, "draining": true, "waits": why }), &words)?;
        return Ok(());
    }
    let mut most = None;
    let look = async || Ok(drained(&cluster(&one.nodes).await?, id, &mut most));
    let said = wait(None, look).await?;
    told(one.json, &json!({ "node": id, "empty": true }), &said)?;
    Ok(())
}

/// Whether nothing is left on a node; `most` is what it has been seen to hold since it was to be emptied.
fn drained(cluster: &ClusterReport, id: u64, most: &mut Option<usize>) -> Look {
    let member = match member(cluster, id) {
        Ok(member) => member,
        Err(error) => return Look::Failed(error.to_string()),
    };
    if member.state == "active" {
        return match most {
            Some(_) => Look::Failed(format!("node {id} is not being emptied any more: somebody has ended the drain")),
            None => Look::Wait(format!("node {} has not heard of the drain yet", cluster.seen_from)),
        };
    }
    let moves = cluster.moves.iter().filter(|under_way| under_way.from == Some(member.node));
    let moves: Vec<_> = moves.map(|under_way| format!("{} ({})", under_way.shard, under_way.stage)).collect();
    if member.is_empty() && moves.is_empty() {
        return Look::Done(format!("node {id} is empty; `millpond node remove {id}` lets it leave"));
    }
    let left = member.replicas + member.lost + member.joining + usize::from(member.votes);
    let all = *most.insert(left.max(most.unwrap_or(0)));
    let under_way = if moves.is_empty() {
        nowhere(cluster, member).unwrap_or_else(|| "none under way".to_owned())
    } else {
        moves.join(", ")
    };
    Look::Wait(format!("{left} of {all} replicas left on node {id}; {under_way}"))
}

/// Why the replicas of a node cannot go anywhere, where there are too few other nodes for them.
fn nowhere(cluster: &ClusterReport, member: &MemberReport) -> Option<String> {
    let id = member.node;
    let others = cluster.nodes.iter().filter(|other| other.node != id && other.state == "active").count();
    let copies = cluster.copies as usize;
    (member.replicas + member.lost > 0 && others < copies).then(|| {
        format!(
            "its replicas have nowhere to go, as each shard has {copies} copies and {others} other nodes are active: let \
             another join with `millpond node add`, or end the drain with `millpond node undrain {id}`"
        )
    })
}

async fn undrain(args: &One) -> Result<()> {
    post(&args.nodes, &format!("/api/v1/nodes/{}/undrain", args.id), &json!({})).await?;
    told(args.json, &json!({ "node": args.id, "draining": false }), &format!("node {} holds replicas again", args.id))?;
    Ok(())
}

async fn remove(args: &One) -> Result<()> {
    let id = args.id;
    if let Err(error) = post(&args.nodes, &format!("/api/v1/nodes/{id}/remove"), &json!({})).await {
        let hint = cluster(&args.nodes).await.ok().and_then(|cluster| in_the_way(&cluster, id));
        return Err(match hint {
            Some(hint) => anyhow::anyhow!("{error}; {hint}"),
            None => error,
        });
    }
    told(
        args.json,
        &json!({ "node": id, "removed": true }),
        &format!("node {id} has left the cluster; stop its process"),
    )?;
    Ok(())
}

/// What must happen before a node can be removed.
fn in_the_way(cluster: &ClusterReport, id: u64) -> Option<String> {
    let member = member(cluster, id).ok()?;
    let moves: Vec<_> = cluster
        .moves
        .iter()
        .filter(|under_way| [under_way.from, under_way.to].contains(&Some(member.node)))
        .map(|under_way| format!("move {} of {}", under_way.id, under_way.shard))
        .collect();
    let metadata = if member.votes { ", and a vote in the metadata group" } else { "" };
    let held = format!("it holds {} shards{metadata}", member.replicas + member.lost);
    match (member.is_empty(), moves.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("wait for {}", moves.join(", "))),
        (false, _) if member.state == "draining" => Some(format!("{held}: the drain is still under way")),
        (false, _) => Some(format!("{held}: run `millpond node drain {id}` first")),
    }
}

#[cfg(test)]
mod tests {
    use millpond::id::{Boot, NodeId};
    use millpond_actors::listeners::http::nodes::MoveReport;

    use super::*;
    use crate::commands::admin::tests::{a_cluster, a_member};

    fn new_node() -> NodeReport {
        NodeReport {
            node: NodeId(4),
            name: "four".to_owned(),
            version: String::new(),
            store: "0".repeat(32),
            boot: Boot(1),
            address: "127.0.0.1:4104".to_owned(),
            http: "127.0.0.1:3104".to_owned(),
            zone: String::new(),
            cluster: Some("c".to_owned()),
            phase: "member".to_owned(),
            waits: None,
            state: Some("active".to_owned()),
        }
    }

    fn a_move(from: u64) -> MoveReport {
        MoveReport {
            id: 5,
            shard: "shard-3".to_owned(),
            from: Some(NodeId(from)),
            to: Some(NodeId(1)),
            why: "drain".to_owned(),
            stage: "copying a snapshot".to_owned(),
        }
    }

    #[test]
    fn a_node_has_joined_once_it_is_known_connected_and_follows() {
        let waits = |look: Look, word: &str| matches!(&look, Look::Wait(said) if said.contains(word));
        let (node, known) = (new_node(), a_cluster(vec![a_member(4, 0)]));
        assert!(waits(joined(&node, &a_cluster(vec![])), "has not heard of node 4"));
        let blank = NodeReport { cluster: None, waits: Some("waiting for node 1".to_owned()), ..node.clone() };
        assert!(waits(joined(&blank, &known), "waiting for node 1"));
        let apart = MemberReport { link: "refused".to_owned(), reason: Some("why".to_owned()), ..a_member(4, 0) };
        assert!(waits(joined(&node, &a_cluster(vec![apart])), "refused: why"));
        assert!(waits(joined(&NodeReport { state: None, ..node.clone() }, &known), "reads what"));
        let replaced = MemberReport { store: "1".repeat(32), ..a_member(4, 0) };
        assert!(waits(joined(&node, &a_cluster(vec![replaced])), "old data folder"));
        assert_eq!(joined(&node, &known), Look::Done("node 4 follows".to_owned()));
    }

    #[test]
    fn a_node_of_another_cluster_is_not_added() {
        let target = a_cluster(vec![]);
        assert!(check_blank(&new_node(), &target).is_ok());
        assert!(check_blank(&NodeReport { cluster: None, ..new_node() }, &target).is_ok());
        let other = NodeReport { cluster: Some("d".to_owned()), ..new_node() };
        assert!(check_blank(&other, &target).unwrap_err().to_string().contains("empty data folder"));
        assert!(check_blank(&new_node(), &ClusterReport { cluster: None, ..target }).is_err());
    }

    #[test]
    fn a_drain_goes_on_until_nothing_is_left_and_no_move_is_under_way() {
        let mut most = None;
        let heard = drained(&a_cluster(vec![a_member(2, 0)]), 2, &mut most);
        assert!(matches!(&heard, Look::Wait(said) if said.contains("has not heard")), "{heard:?}");
        let draining = |replicas, votes| MemberReport { state: "draining".to_owned(), votes, ..a_member(2, replicas) };
        let others = || [1, 3, 4].map(|id| a_member(id, 3)).to_vec();
        let mut look = |replicas, votes, moves: Vec<MoveReport>| {
            let nodes = [others(), vec![draining(replicas, votes)]].concat();
            drained(&ClusterReport { moves, ..a_cluster(nodes) }, 2, &mut most)
        };
        assert_eq!(look(3, true, vec![]), Look::Wait("4 of 4 replicas left on node 2; none under way".to_owned()));
        let Look::Wait(said) = look(1, false, vec![a_move(2)]) else { panic!("it is not over") };
        assert_eq!(said, "1 of 4 replicas left on node 2; shard-3 (copying a snapshot)");
        assert!(matches!(look(0, false, vec![a_move(2)]), Look::Wait(_)));
        assert!(matches!(look(0, false, vec![a_move(3)]), Look::Done(_)));
        let ended = a_cluster(vec![a_member(2, 1)]);
        assert!(matches!(drained(&ended, 2, &mut most), Look::Failed(said) if said.contains("ended the drain")));
    }

    #[test]
    fn a_drain_that_has_nowhere_to_go_says_what_to_do() {
        let look = |others: &[u64], replicas| {
            let draining = MemberReport { state: "draining".to_owned(), ..a_member(2, replicas) };
            let nodes = others.iter().map(|id| a_member(*id, 3)).chain([draining]).collect();
            let Look::Wait(said) = drained(&a_cluster(nodes), 2, &mut None) else { panic!("it is not over") };
            said
        };
        let said = look(&[1, 3], 3);
        assert!(said.contains("3 copies and 2 other nodes are active") && said.contains("undrain 2"), "{said}");
        assert!(look(&[1, 3, 4], 3).ends_with("none under way"));
    }

    #[test]
    fn what_is_in_the_way_of_a_removal_is_said() {
        let way = |member: MemberReport, moves| in_the_way(&ClusterReport { moves, ..a_cluster(vec![member]) }, 2);
        assert_eq!(way(a_member(2, 3), vec![]).unwrap(), "it holds 3 shards: run `millpond node drain 2` first");
        let draining = MemberReport { state: "draining".to_owned(), votes: true, ..a_member(2, 0) };
        assert!(way(draining, vec![]).unwrap().contains("a vote in the metadata group: the drain"));
        assert_eq!(way(a_member(2, 0), vec![a_move(2)]).unwrap(), "wait for move 5 of shard-3");
        assert_eq!(way(a_member(2, 0), vec![]), None);
    }

    #[test]
    fn the_list_shows_moves_and_why_a_node_is_not_connected() {
        let (link, reason) = ("refused".to_owned(), Some("another store".to_owned()));
        let apart = MemberReport { link, reason, lost: 3, joining: 2, ..a_member(2, 1) };
        let cluster = ClusterReport { moves: vec![a_move(2)], ..a_cluster(vec![a_member(1, 2), apart]) };
        let lines = lines(&cluster, None);
        assert_eq!(lines.len(), 5);
        assert!(lines[0].0.starts_with("NODE") && lines[1].1.is_none() && lines[2].1 == Some("error"));
        assert!(lines[2].0.contains("1+2 (3 lost)"), "{}", lines[2].0);
        assert_eq!(lines[3].0, "node 2: another store");
        assert_eq!(lines[4].0, "move 5 of shard-3 from node 2 to node 1 (drain): copying a snapshot");
    }
}
