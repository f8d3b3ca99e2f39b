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
    are_sealed(&data, shards[0], 1).await;
    world.cluster.node(2).kill().unwrap();
    for path in files(&data.join("shards"), ".blocks") {
        let len = path.metadata().unwrap().len();
        flip_bit(&path, len / 2);
    }
    world.start_all().await;
    let found = world.leader_lines(2, shards[0]).await;
    assert!(found == lines, "{} records of {}", found.len(), lines.len());
    has_every_line_once(&world, 2, shards[0], &lines).await;
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
    are_sealed(&data, shards[0], 1).await;
    world.cluster.node(1).kill().unwrap();
    for path in files(&data.join("shards"), ".blocks") {
        flip_bit(&path, path.metadata().unwrap().len() / 2);
    }
    world.start_all().await;
    let answer = world.get(1, &format!("/api/v1/shards/{}/records?from=0&limit=5000&source=local", shards[0])).await;
    assert!(!answer.status.is_success(), "{}", answer.text());
    assert!(answer.text().contains("data_loss") && answer.text().contains("offsets"), "{}", answer.text());
}

/// Stores so much in one stream that its shard is sealed several times, and waits until a node has so many segments of it.
async fn seal_some(world: &World, node: u64, segments: usize) -> (u32, Vec<String>) {
    let (mut lines, mut shard) = (Vec::new(), 0);
    for round in 0..120 {
        let some: Vec<String> = (0..2_000).map(|at| format!("record {round} {at} {}", now())).collect();
        shard = world.store(1, LABELS, &some).await[0];
        lines.extend(some);
        if round >= 20 && sealed(&world.cluster.nodes[0].data, shard).len() >= segments {
            break;
        }
    }
    let data = world.cluster.nodes.iter().find(|there| there.id == node).unwrap().data.clone();
    are_sealed(&data, shard, segments).await;
    (shard, lines)
}

/// Waits until a node has so many segments of a shard. One counts once a snapshot names it, which is written after it;
/// before, a node that starts makes it anew.
async fn are_sealed(data: &Path, shard: u32, segments: usize) {
    wait_until("segments are sealed and named", SOON, || async {
        let (sealed, named) = (sealed(data, shard), files(&shard_folder(data, shard), ".redb"));
        let newest = |paths: &[PathBuf]| paths.iter().filter_map(|path| path.metadata().ok()?.modified().ok()).max();
        let all_named = newest(&sealed) < newest(&named);
        if sealed.len() >= segments && all_named { Ok(()) } else { Err(format!("{sealed:?} {named:?}")) }
    })
    .await;
}

fn shard_folder(data: &Path, shard: u32) -> PathBuf {
    data.join("shards").join(shard.to_string())
}

fn sealed(data: &Path, shard: u32) -> Vec<PathBuf> {
    files(&shard_folder(data, shard), ".blocks")
}

/// One of the numbers that a node shows; 0 where it shows none of that name.
async fn metric(world: &World, node: u64, name: &str) -> u64 {
    let text = world.get(node, "/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}

const REPAIRED: &str = "millpond_repairs_total{outcome=\"repaired\"}";

async fn repaired(world: &World, node: u64, files: u64) {
    wait_until("the files are repaired", SOON, || async {
        let done = metric(world, node, REPAIRED).await;
        if done >= files { Ok(()) } else { Err(format!("{done} of {files}")) }
    })
    .await;
    assert!(metric(world, node, "millpond_scrub_damaged_total").await >= files);
    let log = fs::read_to_string(&world.cluster.nodes.iter().find(|there| there.id == node).unwrap().log).unwrap();
    for event in ["a file is damaged", "a damaged file was repaired"] {
        assert!(log.contains(event), "no event says that {event}");
    }
}

/// What a node has itself, once it has as much as was sent and gives it without an error. Before, it may have less or refuse
/// what is damaged, but it gives nothing else than what was sent.
async fn has_every_line_once(world: &World, node: u64, shard: u32, lines: &[String]) {
    wait_until("the node gives what was sent", SOON, || async {
        match world.shard_lines(node, shard, Source::Local).await {
            Ok(found) => {
                assert!(lines.starts_with(&found), "{} records of {}", found.len(), lines.len());
                if found.len() == lines.len() { Ok(()) } else { Err(format!("{} of {}", found.len(), lines.len())) }
            }
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_damaged_under_a_running_node_are_repaired_when_they_are_read() {
    let mut world = World::start(3, SEAL_EARLY).await;
    let (shard, lines) = seal_some(&world, 2, 2).await;
    let harmed = sealed(&world.cluster.node(2).data, shard);
    let before: Vec<Vec<u8>> = harmed.iter().map(|path| fs::read(path).unwrap()).collect();
    flip_bit(&harmed[0], harmed[0].metadata().unwrap().len() / 2);
    OpenOptions::new().write(true).open(&harmed[1]).unwrap().set_len(100).unwrap();
    // Whoever asks the shard gets everything meanwhile, whichever replica leads.
    let found = world.leader_lines(1, shard).await;
    assert!(found == lines, "{} records of {}", found.len(), lines.len());
    has_every_line_once(&world, 2, shard, &lines).await;
    repaired(&world, 2, 2).await;
    let after: Vec<Vec<u8>> = harmed.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after, "the files are what they were");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_damaged_under_a_stopped_node_are_repaired_soon_after_its_start() {
    let mut world = World::start(3, SEAL_EARLY).await;
    let (shard, lines) = seal_some(&world, 2, 3).await;
    world.cluster.node(2).kill().unwrap();
    let harmed = sealed(&world.cluster.node(2).data, shard);
    flip_bit(&harmed[0], harmed[0].metadata().unwrap().len() / 2);
    OpenOptions::new().write(true).open(&harmed[1]).unwrap().set_len(4_000).unwrap();
    fs::remove_file(&harmed[2]).unwrap();
    world.start_all().await;
    repaired(&world, 2, 3).await;
    has_every_line_once(&world, 2, shard, &lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_of_a_stopped_node_is_replaced_also_when_the_others_have_gone_on() {
    for goes_on in [false, true] {
        let mut world = World::start(3, SEAL_EARLY).await;
        let (shard, mut lines) = seal_some(&world, 2, 2).await;
        world.cluster.node(2).kill().unwrap();
        for path in files(&shard_folder(&world.cluster.node(2).data, shard), ".redb") {
            let len = path.metadata().unwrap().len();
            (0..64).for_each(|at| flip_bit(&path, at * len / 64));
        }
        if goes_on {
            let more = sealed(&world.cluster.node(1).data, shard).len() + 1;
            lines.extend(seal_some(&world, 1, more).await.1);
        }
        world.start_all().await;
        repaired(&world, 2, 1).await;
        has_every_line_once(&world, 2, shard, &lines).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_segment_with_no_copy_left_fails_the_reads_that_need_it_and_no_others() {
    let mut world = World::start(1, SEAL_EARLY).await;
    let (shard, lines) = seal_some(&world, 1, 2).await;
    world.cluster.node(1).kill().unwrap();
    let first = sealed(&world.cluster.node(1).data, shard).remove(0);
    let name = first.file_name().unwrap().to_str().unwrap().to_owned();
    let (from, to) = name.strip_suffix(".blocks").unwrap().split_once('-').unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    assert_eq!(from, 0);
    fs::remove_file(&first).unwrap();
    world.start_all().await;
    let lost = world.get(1, &format!("/api/v1/shards/{shard}/records?from=0&limit=10")).await;
    assert_eq!(lost.status, StatusCode::INTERNAL_SERVER_ERROR);
    let told = format!("data_loss in shard-{shard}, offsets 0 to {to}, times ");
    assert!(lost.text().contains(&told), "{}", lost.text());
    let rest = world.get(1, &format!("/api/v1/shards/{shard}/records?from={}&limit=10", to + 1)).await;
    assert_eq!(rest.status, StatusCode::OK, "{}", rest.text());
    assert!(rest.text().contains(&lines[usize::try_from(to).unwrap() + 1]), "{}", rest.text());
    world.store(1, LABELS, &["and on it goes".to_owned()]).await;
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
