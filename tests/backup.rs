//! Backups of a cluster under load, to a folder and to an S3 server, and their way back into clusters of other sizes.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use hyper_util::rt::TokioIo;
use millpond_actors::load::{Outcome, StreamBody, encode};
use millpond_actors::observe::{self, Source};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use harness::{Load, MILLPOND, Producers, SOON, World, files, wait_until};

/// Longest line that is taken in.
const LINE_BYTES: usize = 256 << 10;
const BUCKET: &str = "mill-pond";

/// Runs one command of the binary with variables of the environment.
async fn millpond(arguments: &[&str], variables: &[(String, String)]) -> (Output, String) {
    let mut command = tokio::process::Command::new(MILLPOND);
    command.args(arguments).envs(variables.iter().cloned());
    let output = command.output().await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// The same, of a command that must succeed; what it printed.
async fn done(arguments: &[&str], variables: &[(String, String)]) -> String {
    let (output, text) = millpond(arguments, variables).await;
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

async fn failed(arguments: &[&str], variables: &[(String, String)]) -> String {
    let (output, text) = millpond(arguments, variables).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    text
}

/// A record as it was stored: time, labels, metadata, line.
type Whole = (i64, BTreeMap<String, String>, BTreeMap<String, String>, String);

/// The records of one service, in the order of their offsets.
async fn records_of(world: &World, service: &str) -> Vec<Whole> {
    let mut found = Vec::new();
    let url = world.running().remove(0);
    for shard in world.led_shards().await {
        let see = |record: observe::RecordView<'_>| {
            if record.labels.get("service_name").is_some_and(|name| name == service) {
                let owned = |pairs: &BTreeMap<_, _>| {
                    let pair = |(name, value): (&std::borrow::Cow<'_, str>, &std::borrow::Cow<'_, str>)| {
                        (name.to_string(), value.to_string())
                    };
                    pairs.iter().map(pair).collect()
                };
                found.push((
                    record.timestamp,
                    owned(&record.labels),
                    owned(&record.metadata),
                    record.line.into_owned(),
                ));
            }
        };
        observe::read_shard(&world.client, &url, shard.shard, 0, Source::Leader, see).await.unwrap();
    }
    found
}

/// Stores what intake would judge otherwise a second time: old, out of order, at its limits, with odd metadata.
async fn store_odd_records(world: &World) {
    let mut stream = StreamBody::new(r#"{service_name="odd",quote="a\"b\\c"}"#);
    for (timestamp, line) in
        [(5, "five"), (-3, "before the epoch"), (3, ""), (3, ""), (1_700_000_000_000_000_000, "ERROR no")]
    {
        stream.push(timestamp, line, [("trace_id", "42"), ("näme", "wört\n")]);
    }
    stream.push(7, &"ü".repeat(LINE_BYTES / 2), []);
    let outcome = world.client.push(&world.url(1), encode([&stream])).await;
    assert!(matches!(outcome, Outcome::Stored { .. }), "{outcome:?}");
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// What was uploaded and what was there already, from the last line of `backup run`: numbers of segments.
fn uploaded_and_reused(text: &str) -> (u64, u64) {
    let number = |after: &str| {
        let rest = text.split(after).nth(1).unwrap_or_else(|| panic!("{text}"));
        rest.split(',').next().unwrap().trim().parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    (number("; uploaded "), number("; there already "))
}

fn one(folder: &Path, end: &str) -> PathBuf {
    let found = files(folder, end);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_whole_incremental_and_restored_once_into_one_node_with_other_shards() {
    let world = World::start(3, "").await;
    let kept = tempfile::tempdir().unwrap();
    let url = format!("file://{}", kept.path().join("a store").display());
    let node = world.url(2);
    store_odd_records(&world).await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    let first = done(&["backup", "run", &url, "--node", &node], &[]).await;
    assert!(uploaded_and_reused(&first).0 > 0, "{first}");
    producers.all_progress(SOON).await;
    let acknowledged = producers.acknowledged();
    let second = done(&["backup", "run", &url, "--node", &node], &[]).await;
    let (uploaded, reused) = uploaded_and_reused(&second);
    assert!(uploaded > 0 && reused == uploaded_and_reused(&first).0, "{first}{second}");
    producers.all_progress(SOON).await;
    let produced = producers.stop().await;
    let third = done(&["backup", "run", &url, "--node", &world.url(1)], &[]).await;
    assert_eq!(uploaded_and_reused(&third).1, uploaded + reused, "{third}");
    let idle = done(&["backup", "run", &url, "--node", &node], &[]).await;
    assert_eq!(uploaded_and_reused(&idle).0, 0, "nothing was stored since: {idle}");

    let listed = done(&["backup", "list", &url, "--json"], &[]).await;
    let ids: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 4, "{listed}");
    for id in &ids {
        assert!(done(&["backup", "verify", &url, "--backup", id], &[]).await.contains("is whole"));
    }
    let status = done(&["status", "--node", &node], &[]).await;
    assert!(status.contains("backup") && status.contains("newest of"), "{status}");

    let mut target = World::prepare_single(5);
    target.start_all().await;
    let to = target.url(1);
    let restore = ["restore", "--from", &url, "--backup", &ids[1], "--to", &to];
    done(&restore, &[]).await;
    target.verify(&produced.by_then(acknowledged.clone())).await;
    let odd = records_of(&world, "odd").await;
    assert!(odd.len() == 6 && odd.iter().any(|(timestamp, ..)| *timestamp == -3));
    assert_eq!(records_of(&target, "odd").await, odd);
    assert!(done(&restore, &[]).await.contains("nothing to do"));

    // As if it had been killed before it noted anything: everything is sent again.
    let noted = one(&kept.path().join("a store/restores"), ".json");
    let mut progress: serde_json::Value = serde_json::from_slice(&fs::read(&noted).unwrap()).unwrap();
    (progress["done"], progress["finished"]) = (serde_json::json!({}), serde_json::json!(false));
    fs::write(&noted, progress.to_string()).unwrap();
    assert!(done(&restore, &[]).await.contains("goes on"));
    target.verify(&produced.by_then(acknowledged)).await;
    assert_eq!(records_of(&target, "odd").await, odd);
    let other = failed(&["restore", "--from", &url, "--backup", &ids[0], "--to", &to], &[]).await;
    assert!(other.contains("holds records already"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_and_a_missing_file_of_a_backup_are_named_and_not_restored() {
    let mut world = World::prepare_single(2);
    world.start_all().await;
    let kept = tempfile::tempdir().unwrap();
    let url = format!("file://{}", kept.path().display());
    let node = world.url(1);
    let nowhere = kept.path().join("nowhere");
    for command in [&["backup", "list"][..], &["backup", "verify"], &["restore", "--to", &node, "--from"]] {
        let none = failed(&[command, &[&format!("{url}/nowhere")]].concat(), &[]).await;
        assert!(none.contains("there is no such folder") && !nowhere.exists(), "{command:?}: {none}");
    }
    assert!(failed(&["backup", "verify", &url], &[]).await.contains("there is no backup"));
    assert!(done(&["backup", "list", &url], &[]).await.contains("there is no backup"));
    let lines: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    world.store(1, r#"{service_name="one"}"#, &lines).await;
    done(&["backup", "run", &url, "--node", &node], &[]).await;
    let segment = one(&kept.path().join("segments"), "");
    let whole = fs::read(&segment).unwrap();

    let mut target = World::prepare_single(3);
    target.start_all().await;
    let to = target.url(1);
    flip_a_bit(&segment);
    let damaged = failed(&["backup", "verify", &url], &[]).await;
    assert!(damaged.contains("offsets 0 to 499") && damaged.contains("1 of 1 segments"), "{damaged}");
    assert!(failed(&["restore", "--from", &url, "--to", &to], &[]).await.contains("is damaged"));
    fs::remove_file(&segment).unwrap();
    let missing = failed(&["backup", "verify", &url], &[]).await;
    assert!(missing.contains("has no segments/"), "{missing}");
    fs::write(&segment, &whole).unwrap();
    assert!(done(&["backup", "verify", &url], &[]).await.contains("500 records"));
    done(&["restore", "--from", &url, "--to", &to], &[]).await;
    assert_eq!(records_of(&target, "one").await, records_of(&world, "one").await);

    fs::remove_file(&segment).unwrap();
    let again = done(&["backup", "run", &url, "--node", &node], &[]).await;
    assert_eq!(uploaded_and_reused(&again), (1, 0), "what is lost is uploaded again: {again}");
    let manifest = files(&kept.path().join("backups"), ".json").remove(0);
    flip_a_bit(&manifest);
    assert!(failed(&["backup", "list", &url], &[]).await.contains("is damaged"));
}

/// Adds lines to the cluster file, before the nodes start.
fn with_lines(world: &World, lines: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(world.folder.path().join("cluster.toml")).unwrap();
    write!(file, "\n{lines}").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_into_a_cluster_that_keeps_records_otherwise_says_so_and_what_to_set() {
    let mut world = World::prepare_single(2);
    with_lines(&world, "[retention]\nrules = [{ selector = '{service_name=\"secret\"}', age = \"1s\" }]\n");
    world.start_all().await;
    world.store(1, r#"{service_name="secret"}"#, &["hidden soon".to_owned()]).await;
    let kept = tempfile::tempdir().unwrap();
    let url = format!("file://{}", kept.path().display());
    done(&["backup", "run", &url, "--node", &world.url(1)], &[]).await;

    let mut target = World::prepare_single(3);
    target.start_all().await;
    let to = target.url(1);
    let refused = failed(&["restore", "--from", &url, "--to", &to], &[]).await;
    assert!(refused.contains(r#"there: {service_name="secret"} shown for 1s"#), "{refused}");
    assert!(refused.contains("here:  kept for ever"), "{refused}");
    assert!(records_of(&target, "secret").await.is_empty(), "nothing was stored");

    let (_, to_set) = refused.split_once("\n\n").unwrap();
    target.cluster.node(1).kill().unwrap();
    with_lines(&target, to_set);
    target.start_all().await;
    done(&["restore", "--from", &url, "--to", &to], &[]).await;
    assert_eq!(records_of(&target, "secret").await, records_of(&world, "secret").await);
    wait_until("the record is hidden here as well", SOON, || async {
        let shown = target.query(1, r#"{service_name="secret"}"#).await;
        if shown.is_empty() { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;

    let mut other = World::prepare_single(1);
    other.start_all().await;
    done(&["restore", "--from", &url, "--to", &other.url(1), "--other-retention"], &[]).await;
    assert_eq!(other.query(1, r#"{service_name="secret"}"#).await, ["hidden soon"]);
}

/// The file of the only segment of a shard on a node, once the node has it.
async fn only_segment(world: &World, id: u64, shard: u32) -> PathBuf {
    let node = world.cluster.nodes.iter().find(|node| node.id == id).unwrap();
    let folder = node.data.join("shards").join(shard.to_string());
    wait_until("the node has the segment", SOON, || async {
        let found = files(&folder, ".blocks");
        if let [only] = found.as_slice() { Ok(only.clone()) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Waits until a node has read its files of a shard through: what is damaged later it finds only when it is read.
async fn scrubbed(world: &World, id: u64, shard: u32) {
    let name = format!("shard-{shard}/scrubber");
    wait_until("the first round of the scrubber is over", SOON, || async {
        let actors = world.actors(id).await;
        let round =
            actors.iter().find(|actor| actor.name == name).and_then(|actor| actor.details.get("round").cloned());
        if round.as_ref().is_some_and(|round| round.starts_with("read through")) {
            Ok(())
        } else {
            Err(format!("{round:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_damaged_at_its_leader_is_read_from_another_replica_and_repaired() {
    let world = World::start(3, "").await;
    let kept = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("file://{}", kept.path().join(name).display());
    let mut shards = BTreeMap::new();
    for number in 0.. {
        let lines: Vec<String> = (0..200).map(|at| format!("line {number} {at}")).collect();
        shards.insert(world.store(1, &format!(r#"{{service_name="s{number}"}}"#), &lines).await[0], number);
        if shards.len() == 2 {
            break;
        }
    }
    done(&["backup", "run", &url("before"), "--node", &world.url(1)], &[]).await;
    let leaders = world.led_shards().await;
    let leader_of = |shard: u32| leaders.iter().find(|view| view.shard == shard).unwrap().leader.unwrap();
    let mut harmed = Vec::new();
    for (at, shard) in shards.keys().copied().enumerate() {
        let leader = leader_of(shard);
        for id in 1..=3 {
            only_segment(&world, id, shard).await;
        }
        let file = only_segment(&world, leader, shard).await;
        scrubbed(&world, leader, shard).await;
        let whole = fs::read(&file).unwrap();
        if at == 0 {
            flip_a_bit(&file);
        } else {
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100).unwrap();
        }
        // One is read by the node that leads, the other by one that does not.
        let asked = if at == 0 { leader } else { leader % 3 + 1 };
        let name = format!("after {at}");
        let made = done(&["backup", "run", &url(&name), "--node", &world.url(asked)], &[]).await;
        assert!(made.contains("; 1 of them from other replicas"), "{made}");
        assert!(done(&["backup", "verify", &url(&name)], &[]).await.contains("is whole"));
        harmed.push((file, whole));
    }
    for (file, whole) in harmed {
        wait_until("the segment is repaired at its leader", SOON, || async {
            if fs::read(&file).unwrap() == whole { Ok(()) } else { Err(file.display().to_string()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_without_another_replica_fails_the_backup_by_name() {
    let mut world = World::prepare_single(1);
    world.start_all().await;
    let kept = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("file://{}", kept.path().join(name).display());
    world.store(1, r#"{service_name="one"}"#, &["a".to_owned(), "b".to_owned()]).await;
    let node = world.url(1);
    done(&["backup", "run", &url("before"), "--node", &node], &[]).await;
    scrubbed(&world, 1, 0).await;
    flip_a_bit(&only_segment(&world, 1, 0).await);
    let said = failed(&["backup", "run", &url("after"), "--node", &node], &[]).await;
    assert!(said.contains("shard-0 cannot be backed up: offsets 0 to 1 on node 1"), "{said}");
    assert!(said.contains("no other node holds a copy"), "{said}");
}

/// Serves S3 from a folder, as long as the test runs; the variables that name it.
async fn s3_server(folder: &Path) -> Vec<(String, String)> {
    fs::create_dir(folder.join(BUCKET)).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    service.set_auth(SimpleAuth::from_single("a-key", "a-secret"));
    let service = service.build();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(connection);
        }
    });
    let variables = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "a-key"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Lines that no encoder makes much smaller.
fn noise(lines: usize, bytes: usize) -> Vec<String> {
    let mut state = 7_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + u8::try_from(state >> 58).unwrap())
    };
    (0..lines).map(|_| (0..bytes).map(|_| letter()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_takes_a_backup_in_parts_and_gives_it_back_to_three_nodes() {
    let kept = tempfile::tempdir().unwrap();
    let variables = s3_server(kept.path()).await;
    let mut world = World::prepare(3, "");
    // Only the node that makes the backup has the credentials.
    let environment = variables.iter().map(|(name, value)| format!("{name}={value}").into());
    world.cluster.node(1).wrapper = std::iter::once("env".into()).chain(environment).collect();
    world.start_all().await;
    let url = format!("s3://{BUCKET}/some/prefix");
    let node = world.url(1);
    // Together more than one part of an upload.
    for lines in noise(72, 200 << 10).chunks(24) {
        world.store(1, r#"{service_name="noise"}"#, lines).await;
    }
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    let acknowledged = producers.acknowledged();
    done(&["backup", "run", &url, "--node", &node], &[]).await;
    let produced = producers.stop().await;
    let again = done(&["backup", "run", &url, "--node", &node], &[]).await;
    assert!(uploaded_and_reused(&again).1 > 0, "{again}");
    let listed = done(&["backup", "list", &url], &variables).await;
    assert!(listed.starts_with("BACKUP") && listed.lines().count() == 3, "{listed}");
    let first = listed.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert!(done(&["backup", "verify", &url, "--backup", first], &variables).await.contains("is whole"));

    let target = World::start(3, "").await;
    done(&["restore", "--from", &url, "--backup", first, "--to", &target.url(3)], &variables).await;
    target.verify(&produced.by_then(acknowledged)).await;
    assert_eq!(records_of(&target, "noise").await, records_of(&world, "noise").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_makes_backups_keeps_the_newest_and_goes_on_with_the_next_leader() {
    let kept = tempfile::tempdir().unwrap();
    let mut world = World::prepare(3, "");
    let mut cluster = fs::OpenOptions::new().append(true).open(world.folder.path().join("cluster.toml")).unwrap();
    writeln!(cluster, "\n[backup]\nurl = \"file://{}\"\nevery = \"2s\"\nkeep = 2", kept.path().display()).unwrap();
    drop(cluster);
    world.start_all().await;
    world.store(1, r#"{service_name="one"}"#, &["kept".to_owned()]).await;
    let retired = |least: usize| {
        let folder = kept.path().to_owned();
        wait_until("old backups are given up", SOON, move || {
            let (live, retired) = (files(&folder.join("backups"), ".json"), files(&folder.join("retired"), ".json"));
            let seen = format!("{} live, {} retired", live.len(), retired.len());
            async move { if retired.len() >= least && live.len() <= 3 { Ok(()) } else { Err(seen) } }
        })
    };
    retired(1).await;
    let mut leader = None;
    for id in 1..=3 {
        let metrics = world.get(id, "/metrics").await.text();
        let line = metrics.lines().find(|line| line.starts_with("millpond_backup_last_success_seconds")).unwrap();
        if !line.ends_with(" 0") {
            assert_eq!(leader.replace(id), None, "one node makes the backups");
        }
    }
    let leader = leader.expect("a node says when the last backup began");
    let status = done(&["status", "--node", &world.url(leader)], &[]).await;
    assert!(status.contains("scheduled to file://"), "{status}");
    world.cluster.node(leader).kill().unwrap();
    // One of them may be the work of the node that was killed.
    retired(files(&kept.path().join("retired"), ".json").len() + 2).await;
    let url = format!("file://{}", kept.path().display());
    assert!(done(&["backup", "verify", &url], &[]).await.contains("is whole: 1 segments, 1 records"));
}
