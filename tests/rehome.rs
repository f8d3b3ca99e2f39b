//! Nodes that go for good, nodes that come, and a node that is emptied: what they held is where it belongs, under load,
//! and nobody who sends notices more than one attempt that failed.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::{Load, Producers, REHOMED_WITHIN, SOON, Watch, World, wait_until};
use millpond_actors::observe;
use tokio::time::Instant;

/// After how long what a node held is moved.
const GRACE: &str = "rehome_after = \"5s\"\n";
/// Heads are sealed while the test runs, so that logs are trimmed and segments must be copied.
const SEAL_EARLY: &str = "[limits]\nhead_age_max = \"2s\"\n";
/// How many replicas, or leaders, one node may have more than another once shares are even.
const SPREAD_MAX: usize = 2;
/// The longest that a request may take, first attempt to acknowledgement, while a node is emptied and leaves.
const UNNOTICED: Duration = Duration::from_secs(5);

/// What the command line must have shown of moves: a name, the command, and what a line of it holds.
const SHOWN: [(&str, &[&str]); 4] = [
    ("the placer's moves in the tree", &["tree", "moves=shard-", "(rehome): "]),
    ("a copy in the tree", &["tree", "copy="]),
    ("the moves of `node list`", &["node list", "move ", "(rehome): "]),
    ("the moves of `status`", &["status", "move ", "(rehome): "]),
];

impl World {
    /// Waits until no node has more replicas or leaders than another, but for a few.
    async fn even(&self, ask: u64, on: &BTreeSet<u64>) {
        wait_until("replicas and leaders are even", REHOMED_WITHIN, || async {
            let shards = observe::shards(&self.client, &self.url(ask)).await.map_err(|error| error.to_string())?;
            let none: BTreeMap<u64, usize> = on.iter().map(|node| (*node, 0)).collect();
            let (mut replicas, mut leaders) = (none.clone(), none);
            for shard in &shards {
                shard.replicas.iter().for_each(|replica| *replicas.entry(replica.node).or_default() += 1);
                *leaders.entry(shard.leader.ok_or_else(|| format!("{} has no leader", shard.shard))?).or_default() += 1;
            }
            let spread = |of: &BTreeMap<u64, usize>| of.values().max().unwrap() - of.values().min().unwrap();
            let seen = format!("replicas {replicas:?}, leaders {leaders:?}");
            let even = !shards.is_empty() && spread(&replicas) <= SPREAD_MAX && spread(&leaders) <= SPREAD_MAX;
            if even && self.members(ask).await?.moves.is_empty() { Ok(()) } else { Err(seen) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_made_up_for_a_new_one_gets_its_share_and_one_is_emptied_and_leaves() {
    let mut world = World::prepare_shards(4, 8, SEAL_EARLY, GRACE);
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::even());
    producers.all_progress(SOON).await;
    let began = Instant::now();

    // For good, under load.
    world.cluster.node(2).kill().unwrap();
    let watch = Watch::start(world.running());
    producers.all_progress(SOON).await;
    world.all_homed(1, 3, &[1, 3, 4].into()).await;
    let shown = watch.stop().await;
    for (what, words) in SHOWN {
        let sample = shown.iter().find(|line| words.iter().all(|word| line.contains(word)));
        println!("{what}: {}", sample.unwrap_or_else(|| panic!("{what} was never shown: {shown:#?}")));
    }
    println!("made up for after {:?}", began.elapsed());
    producers.all_progress(SOON).await;

    // A fifth comes, and the lost one is struck off the roll.
    let fifth = world.newcomer();
    world.cluster.node(fifth).start().unwrap();
    let (to, new) = (world.url(1), world.url(fifth));
    wait_until("the new node answers", SOON, || world.who(fifth)).await;
    println!("{}", world.run(&["node", "add", &new, "--to", &to]).await);
    println!("{}", world.run(&["rebalance", "--node", &to]).await);
    world.even(1, &[1, 3, 4, 5].into()).await;
    println!("even after {:?}", began.elapsed());
    println!("{}", world.run(&["node", "remove", "2", "--node", &to]).await);
    producers.all_progress(SOON).await;

    // The third is emptied and leaves.
    producers.worst();
    println!("{}", world.run(&["node", "drain", "3", "--node", &to]).await);
    println!("{}", world.run(&["node", "remove", "3", "--node", &to]).await);
    producers.all_progress(SOON).await;
    // It hears that it was removed, and ends as a node whose data folder no cluster has.
    let status = world.cluster.node(3).exit(SOON).await.unwrap();
    assert_eq!(status.code(), Some(76), "{}", world.cluster.node(3).log_tail());
    producers.all_progress(SOON).await;
    let worst = producers.worst();
    println!("{:?} after the loss; while the node was emptied and left: {worst:?}", began.elapsed());
    world.all_homed(1, 3, &[1, 4, 5].into()).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
    assert!(worst.attempts <= 2 && worst.took <= UNNOTICED, "{worst:?}");
}
