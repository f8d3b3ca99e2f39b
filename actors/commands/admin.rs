//! What the commands that change a cluster share: a request to any of several nodes, a look at the cluster, waiting for
//! what follows, and tables.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::listeners::http::nodes::{ClusterReport, MemberReport, MoveReport};
use millpond_actors::load::Client;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::width::{columns, filled};
use super::{NodesArgs, ask, silence};

/// How long a change may take to be agreed on; a node gives up sooner and says so.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what follows.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Sends a change to the nodes in turn until one answers. A change may be sent twice: it repeats without harm or is
/// refused.
pub(crate) async fn post(nodes: &NodesArgs, path: &str, body: &Value) -> Result<()> {
    let client = Client::new(PATIENCE);
    let mut silent = Vec::new();
    for node in nodes.urls() {
        let url = format!("{node}{path}");
        let headers = [("content-type", "application/json")];
        match client.request(Method::POST, &url, &headers, body.to_string().into()).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => bail!("{}", answer.text()),
            Err(error) => silent.push(silence(&node, &error)),
        }
    }
    bail!("no node answered, it may have been carried out all the same: {}", silent.join("; "))
}

/// The cluster, as the first of the nodes that answers sees it.
pub(crate) async fn cluster(nodes: &NodesArgs) -> Result<ClusterReport> {
    ask(nodes, "/api/v1/nodes").await
}

/// A node of the cluster.
pub(crate) fn member(cluster: &ClusterReport, node: u64) -> Result<&MemberReport> {
    let found = cluster.nodes.iter().find(|member| member.node.0 == node);
    found.ok_or_else(|| anyhow!("node {node} is no member of the cluster, as node {} sees it", cluster.seen_from))
}

/// A move under way and how far it is, in one line.
pub(crate) fn move_words(MoveReport { id, shard, from, to, why, stage }: &MoveReport) -> String {
    let place = |what: &str, node: &Option<_>| node.map_or(String::new(), |node| format!(" {what} node {node}"));
    format!("move {id} of {shard}{}{} ({why}): {stage}", place("from", from), place("to", to))
}

/// What a look at the cluster came to, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was to be.
    Done(String),
    /// Not yet.
    Wait(String),
    /// It will not be.
    Failed(String),
}

/// Looks again and again until it is done, or for at most `patience`; a terminal shows how far it is. A look that fails
/// is followed by another: nodes restart.
pub(crate) async fn wait(patience: Option<Duration>, mut look: impl AsyncFnMut() -> Result<Look>) -> Result<String> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a valid template"));
    let began = Instant::now();
    loop {
        let said = match look().await {
            Ok(Look::Done(said)) => {
                bar.finish_and_clear();
                return Ok(said);
            }
            Ok(Look::Failed(said)) => {
                bar.finish_and_clear();
                bail!("{said}");
            }
            Ok(Look::Wait(said)) => said,
            Err(error) => format!("{error:#}"),
        };
        if let Some(patience) = patience.filter(|patience| began.elapsed() >= *patience) {
            bar.finish_and_clear();
            bail!("not within {} s: {said}", patience.as_secs());
        }
        bar.set_message(said);
        bar.tick();
        sleep(LOOK_EVERY).await;
    }
}

/// Rows below each other, each column as wide as its longest cell; the last one as it is.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let many = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell)).max();
    let widths: Vec<usize> = (0..many).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| filled(cell, *width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Rows without the columns that a screen has no room for, those of `spared` first, in their order. The first row names
/// the columns.
pub(crate) fn fitting(mut rows: Vec<Vec<String>>, spared: &[&str], width: Option<usize>) -> Vec<Vec<String>> {
    let Some(width) = width else { return rows };
    for name in spared {
        if table(&rows).iter().all(|line| columns(line) <= width) {
            break;
        }
        let place = rows.first().and_then(|head| head.iter().position(|title| title == name));
        if let Some(place) = place {
            rows.iter_mut().for_each(|row| drop(row.remove(place)));
        }
    }
    rows
}

/// One object on standard output, or words.
pub(crate) fn told(json: bool, value: &Value, words: &str) -> Result<()> {
    if json {
        say!("{value}")?;
    } else {
        say!("{words}")?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use millpond::id::NodeId;

    use super::*;

    /// An active node that is connected and holds as many shards.
    pub(crate) fn a_member(node: u64, replicas: usize) -> MemberReport {
        MemberReport {
            node: NodeId(node),
            name: None,
            state: "active".to_owned(),
            zone: String::new(),
            address: format!("127.0.0.1:41{node:02}"),
            url: Some(format!("http://127.0.0.1:31{node:02}")),
            store: "0".repeat(32),
            replicas,
            lost: 0,
            joining: 0,
            leads: 0,
            votes: false,
            link: "connected".to_owned(),
            reason: None,
        }
    }

    /// A cluster of these nodes.
    pub(crate) fn a_cluster(nodes: Vec<MemberReport>) -> ClusterReport {
        let (cluster, moves) = (Some("c".to_owned()), Vec::new());
        ClusterReport { seen_from: NodeId(1), cluster, epoch: 1, copies: 3, nodes, moves }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = table(&[row(["NODE", "STATE", "WHY"]), row(["12345", "up", ""]), row(["é", "down", "it is"])]);
        assert_eq!(lines, ["NODE   STATE  WHY", "12345  up", "é      down   it is"]);
    }

    #[test]
    fn a_narrow_screen_has_the_columns_that_matter() {
        let rows =
            || ["ID NAME LONG", "1 日本 xxxxxxxx"].map(|row| row.split(' ').map(str::to_owned).collect()).to_vec();
        let shown = |width| table(&fitting(rows(), &["LONG", "NAME"], width));
        assert_eq!(shown(None), ["ID  NAME  LONG", "1   日本  xxxxxxxx"]);
        assert_eq!(shown(Some(18)), shown(None));
        assert_eq!(shown(Some(17)), ["ID  NAME", "1   日本"]);
        assert_eq!(shown(Some(3)), ["ID", "1"]);
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        let cluster = a_cluster(vec![a_member(2, 1)]);
        assert_eq!(member(&cluster, 2).unwrap().replicas, 1);
        assert!(member(&cluster, 7).unwrap_err().to_string().starts_with("node 7 is no member"));
    }
}
