//! SIGKILL of each node in turn under load, ten times, and of all three at once.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use harness::{Load, Producers, SOON, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_and_one_of_all_three_lose_and_double_nothing() {
    let mut world = World::start(3, "").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    for round in 0..10 {
        let victim = round % 3 + 1;
        world.cluster.node(victim).kill().unwrap();
        producers.all_progress(SOON).await;
        world.start_node(victim).await;
    }
    for id in 1..=3 {
        world.cluster.node(id).kill().unwrap();
    }
    world.start_all().await;
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
