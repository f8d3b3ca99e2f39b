//! `millpond shard split-brain-check`: asks every node who leads each group, and compares.
//!
//! A term has one leader, ever: two in one term are a violation whenever each was asked. Different terms or leaders are
//! ordinary while an election is under way, so these are looked at again before they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use millpond::consensus::Role;
use millpond::id::{NodeId, ShardId, Term};
use millpond_actors::board::{Phase, Standing};
use serde::Serialize;
use serde_json::json;

use super::admin::cluster;
use super::{NodesArgs, Paint, ask};

/// Looks before a difference is told, and the time between two of them.
const LOOKS: (usize, Duration) = (3, Duration::from_secs(2));

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// The group, or none where it is about a node.
    shard: Option<String>,
    /// Whether the promise of one leader in a term is broken.
    split: bool,
    /// What was found, in words.
    what: String,
}

pub(crate) async fn run(nodes: &NodesArgs, as_json: bool) -> Result<ExitCode> {
    let (mut findings, mut asked) = look(nodes).await?;
    for _ in 1..LOOKS.0 {
        if findings.is_empty() || findings.iter().any(|finding| finding.split) {
            break;
        }
        tokio::time::sleep(LOOKS.1).await;
        (findings, asked) = look(nodes).await?;
    }
    if as_json {
        say!("{}", json!({ "nodes": asked, "findings": findings }))?;
    } else {
        let paint = Paint::stdout();
        for finding in &findings {
            say!("{}", paint.level(if finding.split { "critical" } else { "warn" }, &finding.what))?;
        }
        if findings.is_empty() {
            say!("{asked} nodes agree on the leader and the term of every group")?;
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks every member once. The findings, and how many nodes answered.
async fn look(nodes: &NodesArgs) -> Result<(Vec<Finding>, usize)> {
    let cluster = cluster(nodes).await?;
    let (mut views, mut findings) = (BTreeMap::new(), Vec::new());
    for member in cluster.nodes.iter().filter(|member| member.state != "removed") {
        let asked = match &member.url {
            Some(url) => ask(&NodesArgs { nodes: vec![url.clone()] }, "/api/v1/replicas").await,
            None => Err(anyhow::anyhow!("node {} does not know where clients reach it", cluster.seen_from)),
        };
        match asked {
            Ok(standings) => drop(views.insert(member.node, standings)),
            Err(error) => {
                let what = format!("node {} was not asked: {error:#}", member.node);
                findings.push(Finding { shard: None, split: false, what });
            }
        }
    }
    findings.extend(compare(&views));
    Ok((findings, views.len()))
}

/// What does not fit in the replicas that nodes show.
fn compare(views: &BTreeMap<NodeId, Vec<Standing>>) -> Vec<Finding> {
    let mut groups: BTreeMap<ShardId, Vec<(NodeId, &Standing)>> = BTreeMap::new();
    for (node, standings) in views {
        for standing in standings.iter().filter(|standing| standing.phase == Phase::Serving) {
            groups.entry(standing.shard).or_default().push((*node, standing));
        }
    }
    groups.into_iter().filter_map(|(shard, replicas)| compare_group(shard, &replicas)).collect()
}

fn compare_group(shard: ShardId, replicas: &[(NodeId, &Standing)]) -> Option<Finding> {
    let mut leaders: BTreeMap<Term, Vec<String>> = BTreeMap::new();
    for (node, standing) in replicas.iter().filter(|(_, standing)| standing.role == Role::Leader) {
        let committed = format!("node {node} (committed {}, last {})", standing.committed, standing.appended);
        leaders.entry(standing.term).or_default().push(committed);
    }
    let finding = |split, what| Some(Finding { shard: Some(shard.to_string()), split, what });
    if let Some((term, nodes)) = leaders.iter().find(|(_, nodes)| nodes.len() > 1) {
        let what = format!("SPLIT BRAIN: {shard} has {} leaders in term {term}: {}", nodes.len(), nodes.join(", "));
        return finding(true, what);
    }
    let terms: BTreeSet<Term> = replicas.iter().map(|(_, standing)| standing.term).collect();
    let followed: BTreeSet<Option<NodeId>> = replicas.iter().map(|(_, standing)| standing.leader).collect();
    if terms.len() <= 1 && followed.len() <= 1 && !followed.contains(&None) {
        return None;
    }
    let said = replicas.iter().map(|(node, standing)| {
        let leader = standing.leader.map_or_else(|| "nobody".to_owned(), |leader| format!("node {leader}"));
        format!("node {node} follows {leader} in term {} (committed {})", standing.term, standing.committed)
    });
    finding(false, format!("{shard}: {}", said.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn standing(role: Role, term: u64, leader: Option<u64>) -> Standing {
        let (term, leader) = (Term(term), leader.map(NodeId));
        Standing { phase: Phase::Serving, role, term, leader, ..Standing::unknown(SHARD) }
    }

    fn findings<const N: usize>(standings: [Standing; N]) -> Vec<Finding> {
        compare(&(1..).map(NodeId).zip(standings.map(|standing| vec![standing])).collect())
    }

    #[test]
    fn one_leader_that_all_follow_is_nothing_to_tell() {
        let follower = standing(Role::Follower, 4, Some(1));
        assert_eq!(findings([standing(Role::Leader, 4, Some(1)), follower.clone(), follower]), []);
    }

    #[test]
    fn two_leaders_in_one_term_are_a_split() {
        let found = findings([standing(Role::Leader, 4, Some(1)), standing(Role::Leader, 4, Some(2))]);
        assert!(found.len() == 1 && found[0].split, "{found:?}");
        assert!(found[0].what.contains("2 leaders in term 4: node 1 (committed 0, last 0), node 2"), "{found:?}");
    }

    #[test]
    fn a_leader_that_was_deposed_and_one_that_nobody_follows_are_told_and_are_no_split() {
        let deposed = findings([standing(Role::Leader, 4, Some(1)), standing(Role::Leader, 5, Some(2))]);
        assert!(deposed.len() == 1 && !deposed[0].split);
        let alone = findings([standing(Role::Leader, 4, Some(1)), standing(Role::Candidate, 4, None)]);
        assert!(alone[0].what.ends_with("node 2 follows nobody in term 4 (committed 0)"), "{alone:?}");
    }

    #[test]
    fn what_a_node_without_a_replica_was_told_does_not_count() {
        let absent = Standing { phase: Phase::Absent, ..standing(Role::Follower, 0, Some(7)) };
        assert_eq!(findings([standing(Role::Leader, 4, Some(1)), absent]), []);
    }
}
