//! Replicas that come to a node while others fail: a copy outlives its source, a replica that a node has given up is made
//! elsewhere, and the number of copies changes on a running cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Load, Producers, SOON, Watch, World, wait_until};
use millpond::id::ShardId;
use millpond_actors::board::Standing;
use millpond_actors::tree::ActorState;
use tokio::time::{Instant, sleep};

/// Heads are sealed while the test runs, so that what comes must copy segments.
const SEAL_EARLY: &str = "fault_injection = true\n[limits]\nhead_age_max = \"2s\"\n";
/// Bytes of the segments of one shard at which a copy takes long enough to be interrupted.
const WORTH_A_COPY: u64 = 20 << 20;
/// Time to store as much, on a busy machine.
const FILLED_WITHIN: Duration = Duration::from_secs(180);
/// Crashes that spend any restart budget.
const CRASHES_MAX: usize = 100;

/// A copy at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copying {
    bytes: u64,
    total: u64,
    source: u64,
}

/// Reads `1 of 3 files, 262144 of 9000000 bytes, node 2`.
fn copying(detail: &str) -> Option<Copying> {
    let (_, rest) = detail.split_once(" files, ")?;
    let (bytes, rest) = rest.split_once(" of ")?;
    let (total, source) = rest.split_once(" bytes, node ")?;
    Some(Copying { bytes: bytes.parse().ok()?, total: total.parse().ok()?, source: source.parse().ok()? })
}

impl World {
    /// What a node shows of the copy of a shard.
    async fn copy_detail(&self, id: u64, shard: u32) -> String {
        let name = format!("{}/fetcher", ShardId(shard));
        let fetcher = self.actors(id).await.into_iter().find(|actor| actor.name == name);
        fetcher.and_then(|fetcher| fetcher.details.get("copy").cloned()).unwrap_or_default()
    }

    /// Asks for a move of a shard to the one node that does not have it, and waits until its copy is half way.
    async fn half_way(&self, shard: u32) -> (u64, Copying) {
        let view = self.led_shards().await.into_iter().find(|view| view.shard == shard).unwrap();
        let homes: BTreeSet<u64> = view.replicas.iter().map(|replica| replica.node).collect();
        let to = (1..=4).find(|node| !homes.contains(node)).unwrap();
        // Not the leader: it is the first that is asked for a copy.
        let from = *homes.iter().find(|node| Some(**node) != view.leader).unwrap();
        let (number, from, to_word) = (shard.to_string(), from.to_string(), to.to_string());
        let node = self.running().remove(0);
        let words: [&str; 10] =
            ["shard", "move", &number, "--from", &from, "--to", &to_word, "--no-wait", "--node", &node];
        self.run(&words).await;
        let deadline = Instant::now() + SOON;
        loop {
            let detail = self.copy_detail(to, shard).await;
            if let Some(copying) = copying(&detail).filter(|copying| copying.bytes > 0) {
                assert!(copying.bytes < copying.total, "the copy is seen under way: {copying:?}");
                return (to, copying);
            }
            assert!(Instant::now() < deadline && !detail.contains("arrived"), "shard {shard} on node {to}: {detail}");
        }
    }

    /// Waits until a copy goes on, or has arrived, from a node other than this one; what was seen of it.
    async fn goes_on(&self, to: u64, shard: u32, without: u64) -> Vec<Copying> {
        let (mut seen, deadline) = (Vec::new(), Instant::now() + SOON);
        loop {
            let detail = self.copy_detail(to, shard).await;
            if let Some(copying) = copying(&detail).filter(|copying| Some(copying) != seen.last()) {
                seen.push(copying);
            }
            if detail.starts_with("arrived") && seen.iter().any(|copying| copying.source != without) {
                return seen;
            }
            assert!(Instant::now() < deadline, "shard {shard} on node {to}: {detail}; seen: {seen:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a shard's replica on a node votes.
    async fn at_home(&self, ask: u64, shard: u32, on: u64) {
        wait_until("the replica is at home", SOON, || async {
            let views = millpond_actors::observe::shards(&self.client, &self.url(ask)).await;
            let views = views.map_err(|error| error.to_string())?;
            let view = views.into_iter().find(|view| view.shard == shard).ok_or("no such shard")?;
            let moves = self.members(ask).await?.moves;
            let there = view.replicas.iter().any(|replica| replica.node == on);
            if there && moves.is_empty() { Ok(()) } else { Err(format!("{view:?} {moves:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_source_is_killed_or_frozen_goes_on_from_another_node() {
    let mut world = World::prepare_shards(4, 2, SEAL_EARLY, "rebalance = false\n");
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::bulk());
    let world_ref = &world;
    wait_until("both shards are worth a copy", FILLED_WITHIN, || async move {
        let mut sealed = [0_u64; 2];
        for node in 1..=4 {
            let body = world_ref.get(node, "/api/v1/replicas").await.body;
            let standings: Vec<Standing> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            for standing in standings.iter().filter(|standing| standing.shard.0 < 2 && standing.trimmed.0 > 0) {
                let most = &mut sealed[standing.shard.0 as usize];
                *most = standing.segment_bytes.max(*most);
            }
        }
        if sealed.iter().all(|bytes| *bytes >= WORTH_A_COPY) { Ok(()) } else { Err(format!("{sealed:?}")) }
    })
    .await;
    let produced = producers.stop().await;

    let (to, copying) = world.half_way(0).await;
    world.cluster.node(copying.source).kill().unwrap();
    println!("node {} was killed at {copying:?}", copying.source);
    let seen = world.goes_on(to, 0, copying.source).await;
    let other = seen.iter().find(|later| later.source != copying.source).unwrap();
    println!("it went on: {other:?}");
    assert!(other.bytes >= copying.bytes, "what was copied is not copied again: {copying:?}, then {other:?}");
    world.at_home(to, 0, to).await;
    world.start_node(copying.source).await;

    let (to, copying) = world.half_way(1).await;
    world.cluster.node(copying.source).freeze().unwrap();
    println!("node {} was frozen at {copying:?}", copying.source);
    let seen = world.goes_on(to, 1, copying.source).await;
    println!("it went on: {:?}", seen.iter().find(|later| later.source != copying.source).unwrap());
    world.at_home(to, 1, to).await;
    world.cluster.node(copying.source).thaw().unwrap();
    world.all_homed(to, 3, &(1..=4).collect()).await;
    world.verify(&produced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_up_replica_is_made_elsewhere_and_copies_come_and_go_as_asked() {
    let mut world = World::prepare_shards(5, 8, SEAL_EARLY, "");
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::even());
    producers.all_progress(SOON).await;
    let (node, all) = (world.url(1), (1..=5).collect());

    // A node gives up on one replica.
    let shards = world.led_shards().await;
    let held = |view: &&millpond_actors::observe::ShardView| view.replicas.iter().any(|replica| replica.node == 2);
    let shard = shards.iter().find(held).unwrap().shard;
    let (replica, owner) = (format!("{}/replica", ShardId(shard)), ShardId(shard).to_string());
    let watch = Watch::start(vec![node.clone()]);
    let mut down = false;
    for _ in 0..CRASHES_MAX {
        // Between two lives it takes no message; the next turn finds it again.
        world.command(&["crash", &replica, "--node", &world.url(2)]).await;
        let actors = world.actors(2).await;
        let of_shard = |name: &str| name.split('/').next() == Some(owner.as_str());
        down = actors.iter().any(|actor| of_shard(&actor.name) && actor.state == ActorState::Down);
        if down {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(down, "{replica} is shown down once its budget is spent");
    wait_until("the replica is made elsewhere", SOON, || async {
        let view = world.led_shards().await.into_iter().find(|view| view.shard == shard).ok_or("no such shard")?;
        let homes: BTreeSet<u64> = view.replicas.iter().map(|replica| replica.node).collect();
        let moves = world.members(1).await?.moves;
        let moved = homes.len() == 3 && !homes.contains(&2) && moves.is_empty();
        if moved { Ok(()) } else { Err(format!("on {homes:?}, moves {moves:?}")) }
    })
    .await;
    let shown = watch.stop().await;
    let line = shown.iter().find(|line| line.contains("(given-up)"));
    println!("{}", line.unwrap_or_else(|| panic!("the move says what it is for: {shown:#?}")));
    producers.all_progress(SOON).await;

    for copies in [1, 3, 5] {
        let began = Instant::now();
        println!("{}", world.run(&["replication", &copies.to_string(), "--node", &node]).await);
        world.all_homed(1, copies, &all).await;
        println!("{copies} copies after {:?}", began.elapsed());
        producers.all_progress(SOON).await;
    }
    assert_eq!(world.command(&["replication", "4", "--node", &node]).await.status.code(), Some(2));
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
