//! A cluster that is upgraded node by node under load, to a build that understands one version more of everything: the
//! two work together, also the way back. A build with nothing in common is kept out, and both are named.
//!
//! The later build is the example `millpond-next`, which `cargo test` builds; by itself, `cargo build -p millpond-actors
//! --example millpond-next` does.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Load, MILLPOND, Producers, SOON, World, wait_until};
use millpond::cluster::Build;
use millpond_actors::listeners::http::ops::StatusReport;

/// How long a request may take while nodes are stopped in an orderly way, one after the other.
const UNNOTICED: Duration = Duration::from_secs(5);

fn next() -> PathBuf {
    let path = Path::new(MILLPOND).with_file_name("examples").join("millpond-next");
    assert!(path.exists(), "build {} first: the example `millpond-next` of millpond-actors", path.display());
    path
}

impl World {
    /// Stops a node as an operator does and starts it with another executable, behind this wrapper.
    async fn exchange(&mut self, id: u64, executable: &Path, wrapper: &[&str]) {
        let node = self.cluster.node(id);
        let status = node.terminate(SOON).await.unwrap();
        assert!(status.success(), "{status}: {}", node.log_tail());
        node.executable = executable.to_owned();
        node.wrapper = wrapper.iter().map(Into::into).collect();
        node.start().unwrap();
    }

    async fn version(&self, id: u64) -> String {
        let body = self.get(id, "/api/v1/status").await.body;
        serde_json::from_slice::<StatusReport>(&body).unwrap().version
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node_and_a_build_with_nothing_in_common_is_kept_out() {
    let (next, now) = (next(), Build::default().version);
    let mut world = World::start(3, "").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;

    // A version is skipped.
    world.exchange(3, &next, &["env", "DROPS_OLD=1"]).await;
    let said = wait_until("both builds are named", SOON, || async {
        let list = world.run(&["node", "list", "--node", &world.url(1)]).await;
        let line = list.lines().find(|line| line.starts_with("node 3: ")).map(str::to_owned);
        line.filter(|line| line.contains("+after-next with protocol 2")).ok_or(list)
    })
    .await;
    println!("{said}");
    assert!(said.contains(&format!("this node runs millpond {now} with protocol 1")), "{said}");
    assert!(!millpond_actors::observe::is_ready(&world.client, &world.url(3)).await);
    world.cluster.node(3).kill().unwrap();
    world.cluster.node(3).executable = MILLPOND.into();
    world.start_node(3).await;
    producers.all_progress(SOON).await;

    // One after the other, and the first one back and forth again.
    let there = [(3, &next), (3, &PathBuf::from(MILLPOND)), (3, &next), (2, &next), (1, &next)];
    for (id, executable) in there {
        producers.worst();
        world.exchange(id, executable, &[]).await;
        world.start_node(id).await;
        producers.all_progress(SOON).await;
        let (version, worst) = (world.version(id).await, producers.worst());
        println!("node {id} runs {version}; the worst request meanwhile: {worst:?}");
        assert_eq!(version.ends_with("+next"), *executable == next, "{version}");
        assert!(worst.took <= UNNOTICED, "{worst:?}");
    }
    // Now the version that was skipped has something in common with the others.
    world.exchange(1, &next, &["env", "DROPS_OLD=1"]).await;
    world.start_node(1).await;
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
