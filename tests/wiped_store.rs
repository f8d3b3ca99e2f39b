//! A node that comes back under its old name with an empty data folder.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs;
use std::time::Duration;

use harness::{Load, Producers, SOON, World};

/// The exit code of a node that was refused for its store.
const REFUSED_STORE: i32 = 76;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_does_not_vote_and_says_why() {
    let mut world = World::start(3, "").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    let node = world.cluster.node(3);
    node.kill().unwrap();
    fs::remove_dir_all(&node.data).unwrap();
    node.start().unwrap();
    let status = node.exit(Duration::from_secs(30)).await.unwrap();
    let log = node.log_tail();
    assert_eq!(status.code(), Some(REFUSED_STORE), "{log}");
    assert!(log.contains("store"), "it says that its store is another one: {log}");

    // Had it voted, one of the others alone would make a majority with it.
    world.cluster.node(2).kill().unwrap();
    let before = producers.acknowledged();
    world.cluster.node(3).start().unwrap();
    world.cluster.node(3).exit(Duration::from_secs(30)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = producers.acknowledged();
    // Requests that were on their way to a majority when node 2 died may still have been answered.
    assert!(before.iter().zip(&after).all(|(before, after)| after - before <= 10), "{before:?} {after:?}");
    world.start_node(2).await;
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
