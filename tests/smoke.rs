//! One node and every command a person would try first.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use harness::{MILLPOND, World, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_searched_tailed_and_counted() {
    let world = World::start(1, "").await;
    let url = world.url(1);
    let mut tail = tokio::process::Command::new(MILLPOND)
        .args(["tail", r#"{service_name="app"}"#, "--raw", "--since", "10m", "--node", &url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let file = world.folder.path().join("app.log");
    fs::write(&file, "first line\nsecond error\nthird line\n").unwrap();
    let sent = world.command(&["send", file.to_str().unwrap(), "--label", "env=test", "--node", &url]).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));

    let all = world.query(1, r#"{service_name="app"}"#).await;
    assert_eq!(all, ["first line", "second error", "third line"]);
    assert_eq!(world.query(1, r#"{env="test"} |= "error""#).await, ["second error"]);
    assert_eq!(world.query(1, r#"{service_name="app",env!="test"}"#).await, Vec::<String>::new());

    let mut tailed = BufReader::new(tail.stdout.take().unwrap()).lines();
    for expected in ["first line", "second error", "third line"] {
        let line =
            tokio::time::timeout(Duration::from_secs(30), tailed.next_line()).await.expect("a tailed line").unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }

    let count = world
        .command(&["query", r#"sum(count_over_time({service_name="app"}[1h]))"#, "--instant", "--node", &url])
        .await;
    let table = String::from_utf8(count.stdout).unwrap();
    assert_eq!(table.lines().last().and_then(|row| row.split_whitespace().last()), Some("3"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_series_and_the_answers_for_machines_are_there() {
    let world = World::start(1, "").await;
    world.store(1, r#"{service_name="api",env="a"}"#, &["x".to_owned()]).await;
    world.store(1, r#"{service_name="api",env="b"}"#, &["y".to_owned()]).await;
    let json = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    let labels = world.get(1, "/loki/api/v1/labels").await;
    let names = json(&labels.body)["data"].clone();
    assert!(names.as_array().unwrap().contains(&"env".into()), "{names}");
    let values = world.get(1, "/loki/api/v1/label/env/values").await;
    assert_eq!(json(&values.body)["data"], serde_json::json!(["a", "b"]));
    let series = world.get(1, "/loki/api/v1/series?match%5B%5D=%7Benv%3D%22a%22%7D").await;
    assert_eq!(json(&series.body)["data"].as_array().unwrap().len(), 1);
    for path in ["/ready", "/livez", "/config", "/api/v1/status", "/api/v1/tree", "/api/v1/shards"] {
        let answer = world.get(1, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
    let metrics = world.get(1, "/metrics").await.text();
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE ")), "{metrics}");
    let two = json(&world.get(1, "/loki/api/v1/query?query=vector%281%29%2Bvector%281%29").await.body);
    assert_eq!(two["data"]["result"][0]["value"][1], "2", "{two}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_and_the_status_are_shown() {
    let world = World::start(1, "").await;
    let url = world.url(1);
    let tree = String::from_utf8(world.command(&["tree", "--node", &url]).await.stdout).unwrap();
    for actor in ["node", "log-writer", "shards", "replica", "ingest", "query", "listeners"] {
        assert!(tree.contains(actor), "{actor}:\n{tree}");
    }
    assert!(!tree.contains('\x1b'), "a pipe gets no colours");
    let status = world.command(&["status", "--node", &url]).await;
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert_eq!(world.command(&["crash", "log-writer", "--node", &url]).await.status.code(), Some(1), "off by default");
    assert_eq!(world.command(&["query"]).await.status.code(), Some(2), "wrong usage");
    let broken = world.command(&["query", "{", "--node", &url]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("line 1"), "it says where");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_file_is_sent_as_it_grows_and_after_it_was_rotated() {
    let world = World::start(1, "").await;
    let file = world.folder.path().join("grow.log");
    fs::write(&file, "one\n").unwrap();
    let _send = tokio::process::Command::new(MILLPOND)
        .args(["send", "--follow", file.to_str().unwrap(), "--node", &world.url(1)])
        .kill_on_drop(true)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stored = |expected: &'static [&'static str]| {
        let world = &world;
        wait_until("the lines are stored", Duration::from_secs(30), move || async move {
            let found = world.query(1, r#"{service_name="grow"}"#).await;
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
    };
    stored(&["one"]).await;
    fs::write(&file, "one\ntwo\n").unwrap();
    stored(&["one", "two"]).await;
    fs::rename(&file, world.folder.path().join("grow.log.1")).unwrap();
    fs::write(&file, "three\n").unwrap();
    stored(&["one", "two", "three"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_store_and_find_what_three_of_them_hold() {
    let world = World::start(5, "").await;
    let selector = |id: u64| format!(r#"{{service_name="from-{id}"}}"#);
    let lines: Vec<String> = (0..10).map(|number| format!("record {number}")).collect();
    for id in 1..=5 {
        world.store(id, &selector(id), &lines).await;
    }
    for id in 1..=5 {
        for from in 1..=5 {
            assert_eq!(world.query(id, &selector(from)).await.len(), lines.len(), "node {id}, stored by {from}");
        }
    }
}
