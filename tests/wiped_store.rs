//! Nodes that come with another data folder than the cluster knows, or from elsewhere: none of them votes or is served,
//! each says why and what to do, and one that lost its folder comes back whole.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Load, Producers, SOON, World, wait_until};
use hyper::StatusCode;
use millpond::id::ReplicaId;
use millpond_actors::board::Standing;
use tokio::time::{Instant, sleep};

/// The exit code of a node whose data folder is not the one that the cluster knows.
const OTHER_FOLDER: i32 = 76;
/// Heads are sealed while the test runs, so that what comes back must copy segments.
const SEAL_EARLY: &str = "[limits]\nhead_age_max = \"2s\"\n";

impl World {
    /// Waits until a node says that it waits for something, in such words.
    async fn waits(&self, id: u64, phase: &str, words: &[&str]) {
        wait_until("the node says what it waits for", SOON, || async {
            let who = self.who(id).await?;
            let why = who.waits.clone().unwrap_or_default();
            let said = who.phase == phase && words.iter().all(|word| why.contains(word));
            if said { Ok(()) } else { Err(format!("{who:?}")) }
        })
        .await;
    }

    /// The replicas that a node runs.
    async fn replica_ids(&self, id: u64) -> BTreeSet<ReplicaId> {
        let standings: Vec<Standing> = serde_json::from_slice(&self.get(id, "/api/v1/replicas").await.body).unwrap();
        standings.into_iter().filter_map(|standing| standing.replica).collect()
    }

    /// The file of a node's configuration with some of its words changed.
    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has {from}: {text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Gives a node a cluster file of its own, which it may change.
    fn split_off(&self, id: u64) -> String {
        let (own, folder) = (format!("cluster-{id}.toml"), self.folder.path());
        fs::copy(folder.join("cluster.toml"), folder.join(&own)).unwrap();
        self.change(&format!("node-{id}.toml"), "\"cluster.toml\"", &format!("{own:?}"));
        own
    }
}

fn aside(data: &Path) -> PathBuf {
    data.with_extension("old")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_does_not_vote_says_why_and_comes_back_whole_when_it_is_replaced() {
    let mut world = World::prepare_shards(3, 8, SEAL_EARLY, "");
    world.start_all().await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    let (to, wiped) = (world.url(1), world.url(3));
    let before = world.replica_ids(3).await;
    let node = world.cluster.node(3);
    node.kill().unwrap();
    fs::rename(&node.data, aside(&node.data)).unwrap();
    node.start().unwrap();
    let command = format!("millpond node replace {wiped} --to ");
    wait_until("the wiped node answers", SOON, || world.who(3)).await;
    world.waits(3, "outside", &["store", &command]).await;
    let ready = world.get(3, "/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.text());
    assert!(world.cluster.node(3).log_tail().contains(&command), "its log says what to do");

    // Had it voted, one of the others alone would make a majority with it.
    world.cluster.node(2).kill().unwrap();
    let acknowledged = producers.acknowledged();
    sleep(Duration::from_secs(3)).await;
    let after = producers.acknowledged();
    // Requests that were on their way to a majority when node 2 died may still have been answered.
    assert!(acknowledged.iter().zip(&after).all(|(before, after)| after - before <= 10), "{acknowledged:?} {after:?}");
    world.start_node(2).await;
    producers.all_progress(SOON).await;

    println!("{}", world.run(&["node", "replace", &wiped, "--to", &to]).await);
    world.all_homed(1, 3, &[1, 2, 3].into()).await;
    world.start_node(3).await;
    let now = world.replica_ids(3).await;
    assert!(before.is_disjoint(&now), "a replica id is never used twice: {before:?} {now:?}");
    producers.all_progress(SOON).await;

    // The old folder turns up again.
    let node = world.cluster.node(3);
    let (data, old) = (node.data.clone(), aside(&node.data));
    node.kill().unwrap();
    fs::rename(&data, data.with_extension("new")).unwrap();
    fs::rename(&old, &data).unwrap();
    node.start().unwrap();
    let status = node.exit(SOON).await.unwrap();
    assert_eq!(status.code(), Some(OTHER_FOLDER), "{}", node.log_tail());
    assert!(node.log_tail().contains("it was replaced by store"), "{}", node.log_tail());
    fs::remove_dir_all(&data).unwrap();
    fs::rename(data.with_extension("new"), &data).unwrap();
    world.start_node(3).await;
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_a_node_and_a_node_with_other_settings_are_kept_out_by_name() {
    let mut world = World::start(3, "").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;

    // Another machine that was given the id of node 3, while node 3 lives.
    let twin = world.newcomer();
    let (own, config) = (format!("cluster-{twin}.toml"), format!("node-{twin}.toml"));
    let text = fs::read_to_string(world.folder.path().join(&own)).unwrap();
    let blocks: Vec<&str> = text.split("\n[[nodes]]\n").filter(|block| !block.starts_with("id = 3\n")).collect();
    fs::write(world.folder.path().join(&own), blocks.join("\n[[nodes]]\n")).unwrap();
    world.change(&own, &format!("id = {twin}\nname = \"node-{twin}\""), "id = 3\nname = \"node-3\"");
    world.change(&config, &format!("\nid = {twin}\n"), "\nid = 3\n");
    world.cluster.node(twin).start().unwrap();
    wait_until("the twin answers", SOON, || world.who(twin)).await;
    let refused = world.run_in_vain(&["node", "add", &world.url(twin), "--to", &world.url(1)]).await;
    println!("{refused}");
    assert!(refused.contains("node 3"), "{refused}");
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let real = world.member(1, 3).await.unwrap();
        assert_eq!(real.link, "connected", "the twin costs node 3 its links: {real:?}");
        sleep(Duration::from_millis(50)).await;
    }
    producers.all_progress(SOON).await;
    let who = world.who(twin).await.unwrap();
    assert!(who.cluster.is_none() && who.waits.is_some(), "{who:?}");
    world.cluster.node(twin).kill().unwrap();

    // A member that comes back with another setting.
    let own = world.split_off(3);
    let settings = [
        ("shards", "shards = 16\n", "shards = 8\n"),
        ("routing", "shards = 16\n", "shards = 16\nrouting = \"random\"\n"),
        ("cookie", "cookie = \"millpond-local\"\n", "cookie = \"another\"\n"),
        ("name", "name = \"local\"\n", "name = \"remote\"\n"),
    ];
    for (key, ours, theirs) in settings {
        world.cluster.node(3).kill().unwrap();
        world.change(&own, ours, theirs);
        world.cluster.node(3).start().unwrap();
        wait_until("the cluster says which key differs", SOON, || async {
            let list = world.run(&["node", "list", "--node", &world.url(1)]).await;
            let said = list.lines().find(|line| line.starts_with("node 3: ") && line.contains(key));
            said.map(|line| println!("{key}: {line}")).ok_or(list)
        })
        .await;
        producers.all_progress(SOON).await;
        world.change(&own, theirs, ours);
    }
    world.cluster.node(3).kill().unwrap();
    world.start_node(3).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_with_both_identities() {
    let mut world = World::start(3, "").await;
    let other = world.newcomer();
    let (path, url) = (world.folder.path().join(format!("cluster-{other}.toml")), world.url(other));
    let joining = fs::read_to_string(&path).unwrap();
    let mut blocks = joining.split("\n[[nodes]]\n");
    let alone = [blocks.next().unwrap(), blocks.last().unwrap()].join("\n[[nodes]]\n");
    fs::write(&path, alone.replace("replication = 3", "replication = 1")).unwrap();
    world.start_node(other).await;
    world.cluster.node(other).kill().unwrap();
    fs::write(&path, joining).unwrap();
    world.cluster.node(other).start().unwrap();
    wait_until("the other cluster's node answers", SOON, || world.who(other)).await;
    let (ours, theirs) =
        (world.who(1).await.unwrap().cluster.unwrap(), world.who(other).await.unwrap().cluster.unwrap());
    let refused = world.run_in_vain(&["node", "add", &url, "--to", &world.url(1)]).await;
    assert!(refused.contains(&ours) && refused.contains(&theirs), "{refused}");
    let known: Vec<u64> = world.members(1).await.unwrap().nodes.iter().map(|member| member.node.0).collect();
    assert_eq!(known, [1, 2, 3]);

    // With an empty folder it is welcome.
    let node = world.cluster.node(other);
    node.kill().unwrap();
    fs::remove_dir_all(&node.data).unwrap();
    node.start().unwrap();
    wait_until("it waits to be let in", SOON, || async {
        let who = world.who(other).await?;
        if who.cluster.is_none() && who.waits.is_some() { Ok(()) } else { Err(format!("{who:?}")) }
    })
    .await;
    world.waits(other, "forming", &[&format!("millpond node add {url} --to ")]).await;
    println!("{}", world.run(&["node", "add", &url, "--to", &world.url(1)]).await);
    world.start_node(other).await;
}
