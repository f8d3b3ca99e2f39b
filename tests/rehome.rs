//! Nodes that go for good, and what they held.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Load, Producers, SOON, World, wait_until};
use millpond_actors::observe;

/// After how long what a node held is moved.
const GRACE: &str = "rehome_after = \"5s\"\n";

/// Small heads, so that segments are there to be copied.
const SMALL_HEADS: &str = "[limits]\nhead_bytes_max = \"16MiB\"\n";

/// Time for the grace period and the copies of all shards, on a busy machine.
const REHOMED_WITHIN: Duration = Duration::from_secs(120);

impl World {
    /// Waits until every shard has so many replicas, all of them on these nodes.
    async fn all_homed(&self, ask: u64, copies: usize, on: &BTreeSet<u64>) {
        wait_until("every shard has its copies on the nodes that live", REHOMED_WITHIN, || async {
            let shards = observe::shards(&self.client, &self.url(ask)).await.map_err(|error| error.to_string())?;
            let homes = |view: &observe::ShardView| view.replicas.iter().map(|replica| replica.node).collect();
            let wrong: Vec<(u32, BTreeSet<u64>)> = shards
                .iter()
                .map(|view| (view.shard, homes(view)))
                .filter(|(_, homes): &(u32, BTreeSet<u64>)| homes.len() != copies || !homes.is_subset(on))
                .collect();
            if shards.is_empty() || !wrong.is_empty() { Err(format!("{wrong:?}")) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_held_that_is_lost_for_good_is_rehomed_under_load() {
    let mut world = World::prepare_with(4, SMALL_HEADS, GRACE);
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::steady());
    producers.all_progress(SOON).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.cluster.node(2).kill().unwrap();
    producers.all_progress(SOON).await;
    world.all_homed(1, 3, &[1, 3, 4].into()).await;
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
