//! Whether a cluster of local processes is whole: every shard on as many nodes as it should be, all of them alive and up to
//! date, and nothing on its way. The demo and the benchmarks wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use millpond::consensus::Role;
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond_actors::board::{Follower, Standing};
use millpond_actors::listeners::http::nodes::{ClusterReport, MoveReport};
use millpond_actors::load::Client;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

/// What a look at the cluster found.
#[derive(Clone, Debug)]
pub(crate) struct Glance {
    /// The moves under way, as the first node that answers sees them.
    pub(crate) moves: Vec<MoveReport>,
    /// Shards that no living node leads, or that fewer living replicas follow closely than should.
    pub(crate) under_replicated: usize,
    /// Shards that each node leads, as it says itself.
    pub(crate) leads: BTreeMap<NodeId, usize>,
}

/// How a cluster came to be whole again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    /// When the first move was seen.
    pub(crate) began: Instant,
    /// When it was whole and no move was left.
    pub(crate) ended: Instant,
    /// Moves that were seen.
    pub(crate) moves: usize,
}

impl Glance {
    /// Looks at the nodes that live.
    ///
    /// # Errors
    /// Where one of them does not answer as it should.
    pub(crate) async fn take(client: &Client, urls: &[String], shards: u32, copies: usize) -> Result<Self> {
        let (mut standings, mut leads, mut moves) = (Vec::<Standing>::new(), BTreeMap::new(), None);
        for url in urls {
            let of_node: Vec<Standing> = get(client, &format!("{url}/api/v1/replicas")).await?;
            let seen: ClusterReport = get(client, &format!("{url}/api/v1/nodes")).await?;
            let led = |standing: &&Standing| standing.role == Role::Leader && standing.shard != ShardId::METADATA;
            leads.insert(seen.seen_from, of_node.iter().filter(led).count());
            standings.extend(of_node);
            moves.get_or_insert(seen.moves);
        }
        let living: BTreeSet<NodeId> = leads.keys().copied().collect();
        let Some(moves) = moves else { bail!("there is no node to ask") };
        let short = (0..shards).filter(|shard| copies_of(ShardId(*shard), &standings, &living) < copies);
        Ok(Self { moves, under_replicated: short.count(), leads })
    }

    /// Whether nothing is missing and nothing is on its way.
    pub(crate) fn is_whole(&self) -> bool {
        self.moves.is_empty() && self.under_replicated == 0
    }

    /// What is under way, in one line.
    pub(crate) fn words(&self) -> String {
        let shown = self.moves.iter().map(|MoveReport { shard, to, stage, .. }| {
            let to = to.map_or_else(|| "no node".to_owned(), |to: NodeId| format!("node {to}"));
            format!("{shard} to {to}: {stage}")
        });
        let shown: Vec<String> = shown.collect();
        format!("{} shards under-replicated, {} moves: {}", self.under_replicated, shown.len(), shown.join("; "))
    }
}

/// Replicas of a shard on nodes that live, voting and as far as their leader but for what is on its way; of two that say
/// they lead it, the one with the later term.
fn copies_of(shard: ShardId, standings: &[Standing], living: &BTreeSet<NodeId>) -> usize {
    let led = standings.iter().filter(|standing| standing.shard == shard && standing.role == Role::Leader);
    let Some(led) = led.max_by_key(|standing| standing.term) else { return 0 };
    let close = led.committed.0.saturating_sub(limits::CAUGHT_UP_ENTRIES);
    let follows = |follower: &&Follower| {
        !follower.learner && !follower.needs_snapshot && follower.matched.0 >= close && living.contains(&follower.node)
    };
    1 + led.followers.iter().filter(follows).count()
}

/// Waits until moves were seen and none is left, and every shard has its copies; `look` sees each glance. A look that
/// fails is followed by another.
///
/// # Errors
/// Where it takes longer than `patience`, or `look` refuses to wait on.
pub(crate) async fn restored(
    client: &Client,
    urls: &[String],
    shards: u32,
    patience: Duration,
    mut look: impl FnMut(&Glance) -> Result<()>,
) -> Result<Restored> {
    let (started, mut began) = (Instant::now(), None);
    let (mut moves, mut last) = (BTreeSet::new(), "nothing was seen".to_owned());
    while started.elapsed() < patience {
        match Glance::take(client, urls, shards, COPIES).await {
            Ok(glance) => {
                look(&glance)?;
                moves.extend(glance.moves.iter().map(|under_way| under_way.id));
                let now = Instant::now();
                let began = began.or_else(|| (!moves.is_empty()).then_some(now)).inspect(|at| began = Some(*at));
                if let Some(began) = began.filter(|_| glance.is_whole()) {
                    return Ok(Restored { began, ended: now, moves: moves.len() });
                }
                last = glance.words();
            }
            Err(error) => last = format!("{error:#}"),
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("the cluster was not whole again within {patience:?}: {last}")
}

/// Copies of each shard in a cluster of three nodes or more.
const COPIES: usize = 3;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One answer, read as JSON.
///
/// # Errors
/// Where the node does not answer as it should.
pub(crate) async fn get<T: DeserializeOwned>(client: &Client, url: &str) -> Result<T> {
    let answer = client.get(url).await?;
    if !answer.status.is_success() {
        bail!("{url}: {}: {}", answer.status, answer.text());
    }
    Ok(serde_json::from_slice(&answer.body)?)
}

#[cfg(test)]
mod tests {
    use millpond::id::{Index, ReplicaId, Term};

    use super::*;

    /// Led by a node, with followers on nodes from 2 on that vote or learn and have so much of 1,000 entries.
    fn led(term: u64, followers: &[(bool, u64)]) -> Standing {
        let follower = |(node, &(learner, matched)): (u64, &(bool, u64))| Follower {
            replica: ReplicaId(node),
            learner,
            caught_up: false,
            node: NodeId(node),
            matched: Index(matched),
            active: true,
            needs_snapshot: false,
        };
        let followers = (2..).zip(followers).map(follower).collect();
        let (term, committed) = (Term(term), Index(1_000));
        Standing { role: Role::Leader, term, committed, followers, ..Standing::unknown(SHARD) }
    }

    const SHARD: ShardId = ShardId(3);

    fn living(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn only_living_voters_that_follow_closely_count_as_copies() {
        assert_eq!(copies_of(SHARD, &[], &living(&[1, 2, 3])), 0);
        assert_eq!(copies_of(SHARD, &[Standing::unknown(SHARD)], &living(&[1, 2, 3])), 0);
        let both = [led(1, &[(false, 1_000), (false, 900)])];
        assert_eq!([copies_of(SHARD, &both, &living(&[1, 2, 3])), copies_of(SHARD, &both, &living(&[1, 2]))], [3, 2]);
        let lame = [led(1, &[(true, 1_000), (false, 700)])];
        assert_eq!(copies_of(SHARD, &lame, &living(&[1, 2, 3])), 1);
    }

    #[test]
    fn a_leader_of_an_earlier_term_is_not_asked() {
        let of = [led(4, &[(false, 1_000)]), led(3, &[(false, 1_000), (false, 1_000)])];
        assert_eq!(copies_of(SHARD, &of, &living(&[1, 2, 3])), 2);
        let glance = Glance { moves: Vec::new(), under_replicated: 1, leads: BTreeMap::new() };
        assert!(!glance.is_whole() && glance.words().starts_with("1 shards under-replicated"));
    }
}
