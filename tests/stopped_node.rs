//! A node frozen with SIGSTOP for ten seconds: writes go on, nobody hoards memory for it, and it catches up.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::time::Duration;

use tokio::time::sleep;

use harness::{Load, Producers, SOON, World};

/// How long the node is frozen.
const FROZEN: Duration = Duration::from_secs(10);
/// Memory a process may hold beyond that of the same load with no node frozen.
const GROWTH_MAX: u64 = 64 << 20;

/// Runs the load for as long as the freeze takes; the most memory of any process but the frozen one.
async fn run(freeze: Option<u64>) -> u64 {
    let mut world = World::start(3, "").await;
    let producers = Producers::start(&world.cluster, Load::steady());
    producers.all_progress(SOON).await;
    if let Some(id) = freeze {
        world.cluster.node(id).freeze().unwrap();
        producers.all_progress(SOON).await;
    }
    sleep(FROZEN).await;
    let others = world.cluster.nodes.iter().filter(|node| Some(node.id) != freeze);
    let peak = others.map(|node| node.resident_bytes().unwrap().1).max().unwrap();
    if let Some(id) = freeze {
        world.cluster.node(id).thaw().unwrap();
        producers.all_progress(SOON).await;
    }
    let produced = producers.stop().await;
    if freeze.is_some() {
        world.verify(&produced).await;
    }
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_stops_no_writes_costs_no_memory_and_catches_up() {
    let without = run(None).await;
    let with = run(Some(2)).await;
    let growth = with.saturating_sub(without);
    assert!(growth <= GROWTH_MAX, "{} MiB beyond the {} MiB of the same load", growth >> 20, without >> 20);
}
