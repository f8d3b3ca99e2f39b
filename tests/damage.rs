//! Damaged disks: a torn log tail, a broken log, a flipped bit in a segment, a full disk.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::StatusCode;
use millpond_actors::load::{Outcome, StreamBody, encode};
use millpond_actors::observe::Source;

use harness::{SOON, World, files, now, wait_until};

/// Small heads, so that records are sealed within a test.
const SEAL_EARLY: &str = "\n[limits]\nhead_bytes_max = \"1 MiB\"\n";
/// The exit code of a node whose data folder is damaged.
const DAMAGED: i32 = 76;
const LABELS: &str = r#"{service_name="damage"}"#;

fn numbered(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("record {number} {}", now() % 9_973)).collect()
}

/// The end of what was written to the log: the file, and the position after its last byte that is not zero.
fn log_end(data: &Path) -> (PathBuf, u64) {
    let ends = files(&data.join("wal"), ".seg").into_iter().filter_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
        Some((path.metadata().unwrap().modified().unwrap(), path, end))
    });
    let (_, path, end) = ends.max().expect("a log that holds something");
    (path, end)
}

fn flip_bit(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_log_tail_is_cut_and_everything_acknowledged_stays() {
    let mut world = World::start(1, "").await;
    let lines = numbered(500);
    let shards = world.store(1, LABELS, &lines).await;
    world.cluster.node(1).kill().unwrap();
    let (path, end) = log_end(&world.cluster.node(1).data);
    let torn: Vec<u8> = (0..3_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&torn, end).unwrap();
    world.start_all().await;
    assert_eq!(world.shard_lines(1, shards[0], Source::Local).await.unwrap(), lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_damaged_below_what_was_durable_is_refused_by_name() {
    let mut world = World::start(1, "").await;
    for _ in 0..20 {
        world.store(1, LABELS, &numbered(200)).await;
    }
    let node = world.cluster.node(1);
    node.kill().unwrap();
    let (path, end) = log_end(&node.data);
    flip_bit(&path, end / 2);
    node.start().unwrap();
    let status = node.exit(SOON).await.unwrap();
    let log = node.log_tail();
    assert_eq!(status.code(), Some(DAMAGED), "{log}");
    assert!(log.contains(path.file_name().unwrap().to_str().unwrap()), "it names the file: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_segment_is_never_served() {
    let mut world = World::start(3, SEAL_EARLY).await;
    let mut lines = Vec::new();
    let mut shards = Vec::new();
    for _ in 0..40 {
        let some = numbered(2_000);
        shards = world.store(1, LABELS, &some).await;
        lines.extend(some);
    }
    let data = world.cluster.node(2).data.clone();
    wait_until("node 2 has sealed segments", SOON, || async {
        let sealed = files(&data.join("shards"), ".blocks");
        if sealed.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    world.cluster.node(2).kill().unwrap();
    for path in files(&data.join("shards"), ".blocks") {
        let len = path.metadata().unwrap().len();
        flip_bit(&path, len / 2);
    }
    world.start_all().await;
    for source in [Source::Local, Source::Leader] {
        // A local read may be refused as damaged until it is repaired, but what it gives is what was sent.
        match world.shard_lines(2, shards[0], source).await {
            Ok(found) => assert!(found == lines, "{} records of {}", found.len(), lines.len()),
            Err(error) => assert!(source == Source::Local && error.to_string().contains("data_loss"), "{error}"),
        }
    }
    let found = world.query(2, &format!("{LABELS} |= \"record 1999 \"")).await;
    assert_eq!(found.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_with_no_good_copy_left_is_told_with_its_range() {
    let mut world = World::start(1, SEAL_EARLY).await;
    let mut shards = Vec::new();
    for _ in 0..40 {
        shards = world.store(1, LABELS, &numbered(2_000)).await;
    }
    let data = world.cluster.node(1).data.clone();
    wait_until("segments are sealed", SOON, || async {
        let sealed = files(&data.join("shards"), ".blocks");
        if sealed.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    world.cluster.node(1).kill().unwrap();
    for path in files(&data.join("shards"), ".blocks") {
        flip_bit(&path, path.metadata().unwrap().len() / 2);
    }
    world.start_all().await;
    let answer = world.get(1, &format!("/api/v1/shards/{}/records?from=0&limit=5000&source=local", shards[0])).await;
    assert!(!answer.status.is_success(), "{}", answer.text());
    assert!(answer.text().contains("data_loss"), "{}", answer.text());
}

/// A command line prefix that gives a node a small disk of its own, where this machine allows it.
fn small_disk(data: &Path, size: &str) -> Option<Vec<std::ffi::OsString>> {
    fs::create_dir_all(data).unwrap();
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && exec \"$@\"");
    let prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount];
    let tried = Command::new(prefix[0]).args(&prefix[1..]).arg(data).arg("true").stderr(Stdio::null()).status();
    let words = prefix.iter().map(std::ffi::OsString::from).chain([data.into()]).collect();
    tried.is_ok_and(|status| status.success()).then_some(words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_ingest_and_keeps_what_was_acknowledged() {
    let mut world = World::prepare(1, "\n[limits]\nwal_segment_bytes = \"32 MiB\"\ndisk_refuse_percent = 100\n");
    let node = world.cluster.node(1);
    let Some(wrapper) = small_disk(&node.data, "160m") else {
        eprintln!("skipped: no small disk can be made here (unshare and mount are not allowed)");
        return;
    };
    node.wrapper = wrapper;
    world.start_all().await;
    let mut acknowledged = 0;
    let mut shards = Vec::new();
    // Lines that do not compress: each needs its own bytes on the disk.
    let mut source = File::open("/dev/urandom").unwrap();
    let refusal = loop {
        let mut stream = StreamBody::new(LABELS);
        let mut random = vec![0; 256 << 10];
        std::io::Read::read_exact(&mut source, &mut random).unwrap();
        let text: String = random.iter().map(|byte| char::from(b' ' + byte % 94)).collect();
        stream.push(now(), &format!("record {acknowledged} {}", &text[..200 << 10]), []);
        match world.client.push(&world.url(1), encode([&stream])).await {
            Outcome::Stored { shards: touched } => shards = touched,
            other @ (Outcome::Again { .. } | Outcome::Refused { .. }) => break other,
        }
        acknowledged += 1;
        assert!(acknowledged < 2_000, "the disk never became full");
    };
    assert!(matches!(&refusal, Outcome::Again { reason, .. } if reason.starts_with("503")), "{refusal:?}");
    assert!(acknowledged > 0, "something was stored before");
    let raw = world.get(1, "/livez").await;
    assert_eq!(raw.status, StatusCode::OK, "the node lives on");
    let found = world.shard_lines(1, shards[0], Source::Local).await.unwrap();
    let numbers: Vec<u64> = found.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(
        numbers.len() as u64 >= acknowledged && (0..).zip(&numbers).all(|(at, number)| at == *number),
        "{numbers:?}"
    );
    assert!(world.cluster.node(1).ended().unwrap().is_none());
    world.cluster.node(1).terminate(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_costs_no_segment() {
    let mut world = World::start(1, SEAL_EARLY).await;
    for _ in 0..40 {
        world.store(1, LABELS, &numbered(2_000)).await;
    }
    let data = world.cluster.node(1).data.clone();
    wait_until("a snapshot names a segment", SOON, || async {
        let (segments, snapshots) = (files(&data.join("shards"), ".blocks"), files(&data.join("shards"), ".redb"));
        if segments.is_empty() || snapshots.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    world.cluster.node(1).kill().unwrap();
    let segments = files(&data.join("shards"), ".blocks");
    for path in files(&data.join("shards"), ".redb") {
        let len = path.metadata().unwrap().len();
        for at in 0..64 {
            flip_bit(&path, at * len / 64);
        }
    }
    world.cluster.node(1).start().unwrap();
    let log = world.cluster.node(1).log.clone();
    wait_until("the replica says what is wrong", SOON, || async {
        let told = fs::read_to_string(&log).unwrap_or_default();
        if told.contains("snapshot") && told.contains("damaged") { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(files(&data.join("shards"), ".blocks"), segments, "what may be repaired is not cleared away");
}
