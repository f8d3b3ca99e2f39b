//! Retention by real processes: segments whose time is over disappear on every node, also on one that was away; rules
//! hide records at once; and a disk beyond its mark refuses ingest while everything else goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use harness::{MILLPOND, SOON, World, files, now, wait_until};
use millpond_actors::load::{Outcome, StreamBody, encode};
use millpond_actors::observe::{self, Source};

const SEAL_SOON: &str = "\n[limits]\nhead_age_max = \"1s\"\n";
const OLD: &str = r#"{service_name="old"}"#;
const NEW: &str = r#"{service_name="new"}"#;
const DEBUG: &str = r#"{service_name="debug"}"#;

/// A cluster whose nodes have lines more in their cluster file; nothing runs yet.
fn prepare(nodes: u64, settings: &str, retention: &str) -> World {
    let world = World::prepare(nodes, settings);
    let mut file = OpenOptions::new().append(true).open(world.folder.path().join("cluster.toml")).unwrap();
    write!(file, "\n{retention}").unwrap();
    world
}

fn lines(name: &str) -> Vec<String> {
    (0..500).map(|number| format!("{name} {number}")).collect()
}

/// The segments of a shard on one node.
fn segments(world: &World, id: u64, shard: u32) -> Vec<PathBuf> {
    let node = world.cluster.nodes.iter().find(|node| node.id == id).expect("a node of this cluster");
    files(&node.data.join(format!("shards/{shard}")), ".blocks")
}

async fn no_segment_of(world: &World, id: u64, gone: &[PathBuf], shard: u32) {
    wait_until("the files of old segments disappear", SOON, || async {
        let left: Vec<_> = segments(world, id, shard).into_iter().filter(|file| gone.contains(file)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("node {id}: {left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_segments_disappear_on_every_node_and_are_named_where_they_are_asked_for() {
    let mut world = prepare(3, SEAL_SOON, "[retention]\nage = \"20s\"\n");
    world.start_all().await;
    let shard = world.store(1, OLD, &lines("old")).await[0];
    let mut sealed = Vec::new();
    for id in 1..=3 {
        let found = wait_until("the old records are sealed", SOON, || async {
            let found = segments(&world, id, shard);
            if found.is_empty() { Err(format!("node {id} has none")) } else { Ok(found) }
        });
        sealed.push(found.await);
    }
    world.cluster.node(3).kill().unwrap();
    for id in [1, 2] {
        no_segment_of(&world, id, &sealed[usize::try_from(id).unwrap() - 1], shard).await;
    }
    world.start_node(3).await;
    no_segment_of(&world, 3, &sealed[2], shard).await;

    for id in 1..=3 {
        assert_eq!(world.query(id, OLD).await, Vec::<String>::new(), "node {id}");
        let first = wait_until("the node knows the first offset that is left", SOON, || async {
            let shards: serde_json::Value =
                serde_json::from_slice(&world.get(id, "/api/v1/shards").await.body).unwrap();
            let first = shards[usize::try_from(shard).unwrap()]["first_offset"].as_u64().unwrap();
            if first == 500 { Ok(first) } else { Err(format!("node {id}: {first}")) }
        })
        .await;
        for source in ["leader", "local"] {
            let path = format!("/api/v1/shards/{shard}/records?source={source}");
            let answer = world.get(id, &format!("{path}&from={}", first - 1)).await;
            assert_eq!(answer.status.as_u16(), 410, "{}", answer.text());
            assert!(answer.text().contains("offset 499 of shard-"), "{}", answer.text());
            assert!(answer.text().contains("removed by retention"), "{}", answer.text());
            assert!(world.get(id, &path).await.status.is_success(), "without an offset it begins with what is left");
        }
    }
    let text = world.get(1, "/metrics").await.text();
    let dropped = text.lines().find_map(|line| line.strip_prefix("millpond_retention_dropped_segments_total "));
    assert!(dropped.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{dropped:?}");

    assert_eq!(world.store(2, OLD, &lines("again")).await, [shard]);
    let mut stream = StreamBody::new(NEW);
    stream.push(now() - 60_000_000_000, "too old", []);
    let refused = world.client.push(&world.url(2), encode([&stream])).await;
    assert!(matches!(&refused, Outcome::Refused { .. }), "{refused:?}");
    assert_eq!(world.query(3, OLD).await, lines("again"));
    let mut offsets = Vec::new();
    observe::read_shard(&world.client, &world.url(1), shard, 500, Source::Leader, |record| offsets.push(record.offset))
        .await
        .unwrap();
    assert!(offsets.into_iter().eq(500..1_000), "offsets go on where they were");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_their_bytes_shards_drop_their_oldest_segments() {
    let mut world = prepare(1, SEAL_SOON, "[retention]\nbytes = \"1 MiB\"\n");
    world.start_all().await;
    // 16 shards share the bytes; what does not repeat is not made smaller by a block.
    let noise = |round: u64| -> Vec<String> {
        let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..400).map(|_| (0..8).map(|_| format!("{:016x}", draw())).collect::<String>()).collect()
    };
    let shard = world.store(1, OLD, &noise(1)).await[0];
    wait_until("the oldest segment was dropped", SOON, || async {
        let shards: serde_json::Value = serde_json::from_slice(&world.get(1, "/api/v1/shards").await.body).unwrap();
        let shown = &shards[usize::try_from(shard).unwrap()];
        if shown["dropped_segments"].as_u64().unwrap() > 0 {
            return Ok(());
        }
        world.store(1, OLD, &noise(now().unsigned_abs())).await;
        Err(format!("{shown}"))
    })
    .await;
    wait_until("no more bytes are left than the shard may hold", SOON, || async {
        let left = segments(&world, 1, shard);
        let bytes: u64 = left.iter().map(|file| file.metadata().map_or(0, |file| file.len())).sum();
        if bytes <= 64 << 10 || left.len() == 1 { Ok(()) } else { Err(format!("{bytes} bytes are left")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_hides_records_whose_bytes_are_still_there() {
    let rule = format!("[retention]\nrules = [{{ selector = '{DEBUG}', age = \"2s\" }}]\n");
    let mut world = prepare(1, SEAL_SOON, &rule);
    world.start_all().await;
    world.store(1, NEW, &lines("kept")).await;
    let shard = world.store(1, DEBUG, &lines("hidden")).await[0];
    wait_until("the rule hides what it matches", SOON, || async {
        let found = world.query(1, DEBUG).await;
        if found.is_empty() { Ok(()) } else { Err(format!("{} lines", found.len())) }
    })
    .await;
    assert_eq!(world.query(1, NEW).await, lines("kept"));
    let query = r#"sum(count_over_time({service_name=~"new|debug"}[1h]))"#;
    let output = world.command(&["query", query, "--node", &world.url(1), "--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let counted = answer["data"]["result"][0]["values"].as_array().unwrap().last().unwrap()[1].clone();
    assert_eq!(counted, "500", "{answer}");
    let stored = world.leader_lines(1, shard).await;
    assert_eq!(stored.iter().filter(|line| line.starts_with("hidden")).count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_beyond_its_mark_refuses_ingest_and_says_so() {
    let settings = "\n[limits]\ndisk_warn_percent = 1\ndisk_refuse_percent = 1\ndisk_refuse_free = \"1048576 GiB\"\n";
    let world = World::start(1, settings).await;
    let mut stream = StreamBody::new(NEW);
    stream.push(now(), "no room for this", []);
    let body = encode([&stream]);
    wait_until("ingest is refused", SOON, || async {
        match world.client.push(&world.url(1), body.clone()).await {
            Outcome::Again { reason, .. } if reason.contains("503") && reason.contains("nearly full") => Ok(()),
            other @ (Outcome::Stored { .. } | Outcome::Again { .. } | Outcome::Refused { .. }) => {
                Err(format!("{other:?}"))
            }
        }
    })
    .await;
    let output =
        tokio::process::Command::new(MILLPOND).args(["status", "--node", &world.url(1)]).output().await.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("ingest is refused"), "{shown}");
    let metrics = world.get(1, "/metrics").await.text();
    for line in ["millpond_disk_full 1", "millpond_disk_warning 1"] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing");
    }
    assert!(world.query(1, NEW).await.len() <= 1, "queries are answered");
}
