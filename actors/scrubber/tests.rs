//! Scrubbers of two nodes in one process, over a network in memory and in paused time.

use std::time::Duration;

use millpond::cluster::{Cluster, Command, Member, cluster_id};
use millpond::id::{ReplicaId, StoreId};
use millpond::placement::plan_initial;
use millpond::storage::disk::OpenMode;
use millpond::storage::segment;
use millpond::storage::snapshot;
use tokio::time::timeout;

use super::*;
use crate::supervision::Restart;
use crate::transfer::fetcher::fetcher_spec;
use crate::transfer::tests::{Node, SHARD, SOURCE, TARGET, pair_of, store, store_as, whole};

/// Takes what a replica would be told.
struct Stand;

impl Actor for Stand {
    type Message = ReplicaMessage;
    type Arguments = Site;
    type State = Site;

    async fn pre_start(&self, _: &Own<ReplicaMessage>, site: Site) -> Result<Site, ActorError> {
        Ok(site)
    }

    async fn handle(
        &self,
        myself: &Own<ReplicaMessage>,
        message: ReplicaMessage,
        _: &mut Site,
    ) -> Result<(), ActorError> {
        if let ReplicaMessage::Repaired(segment) = &message {
            myself.detail("serves", segment.meta().bytes);
        } else if let ReplicaMessage::Seal { .. } = &message {
            myself.detail("serves", "sealed");
        } else if let ReplicaMessage::SnapshotRepaired = &message {
            myself.detail("serves", "from a repaired snapshot");
        }
        Ok(())
    }
}

fn actors(site: &Site) -> Vec<ChildSpec> {
    let (replica, here) = (site.board.replica(SHARD).unwrap(), site.clone());
    let stand = ChildSpec::new(&replica, Restart::ISOLATED, move || (Stand, here.clone()));
    let folder = Folder::default();
    vec![stand, scrubber_spec(site, SHARD, &folder), fetcher_spec(site, SHARD, &folder)]
}

/// Two nodes that both hold every shard, and know it.
async fn pair() -> (Node, Node) {
    let (source, target) = pair_of(actors).await;
    let member =
        |node: NodeId| (node, Member::new(StoreId(u128::from(node.0) + 9), format!("host-{node}:1"), String::new()));
    let members: BTreeMap<NodeId, Member> = [SOURCE, TARGET].map(member).into();
    let cluster = cluster_id(&members.iter().map(|(node, member)| (*node, member.store)).collect());
    let mut state = Cluster::default();
    let form = Command::Form { cluster, members, highest_replica: ReplicaId(2) };
    state.apply(Index(1), &form.encode()).unwrap();
    let map = plan_initial(&[SOURCE, TARGET].into(), 4, 2, &mut state.replica_ids());
    state.apply(Index(2), &Command::PlaceShards { map }.encode()).unwrap();
    assert_eq!(state.homes(SHARD).len(), 2);
    for node in [&source, &target] {
        node.site.board.cluster().send_replace(Arc::new(state.clone()));
    }
    (source, target)
}

fn path_of(meta: &SegmentMeta) -> String {
    format!("{}/{}", segment::folder(SHARD), meta.name())
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.site.metrics.encode().unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("millpond_{name} ")));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Waits in paused time until a metric has a value.
async fn until(node: &Node, name: &str, value: u64) {
    let reached = async {
        while metric(node, name) < value {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(2 * limits::SCRUB_PAUSE, reached).await.unwrap_or_else(|_| panic!("{name} is {}", metric(node, name)));
    assert_eq!(metric(node, name), value, "{name}");
}

fn detail(node: &Node, actor: &str, name: &str) -> Option<String> {
    let mut waiting = node.site.tree.report().actors;
    while let Some(mut report) = waiting.pop() {
        if report.name == actor {
            return report.details.remove(name);
        }
        waiting.append(&mut report.children);
    }
    None
}

const REPAIRED: &str = "repairs_total{outcome=\"repaired\"}";
const FAILED: &str = "repairs_total{outcome=\"failed\"}";

fn cut(node: &Node, path: &str, len: u64) {
    node.disk.open(path, OpenMode::ReadWrite).unwrap().set_len(len).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_round_finds_a_flipped_bit_a_cut_file_and_a_lost_one_and_has_them_replaced() {
    let (source, target) = pair().await;
    let sizes = [70_000, 600_000, 3 << 20, 5_000];
    store(&source.disk, 40, &sizes);
    let own = store(&target.disk, 40, &sizes);
    assert!(target.disk.flip_bit(&path_of(&own[0]), 900, 3));
    cut(&target, &path_of(&own[1]), 40_000);
    target.disk.remove(&path_of(&own[3])).unwrap();
    until(&target, REPAIRED, 3).await;
    assert_eq!(metric(&target, "scrub_damaged_total"), 3);
    target.disk.crash();
    assert_eq!(whole(&target.disk), Some(Index(40)));
    assert!(detail(&target, "shard-2/replica", "serves").is_some());
    assert!(detail(&target, "shard-2/scrubber", "repair").unwrap().contains("is repaired"));
    assert_eq!(target.disk.paths(copy::PART), Vec::<String>::new());
    assert_eq!(metric(&source, "scrub_damaged_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_other_bytes_is_named_by_the_snapshot_and_served() {
    let (source, target) = pair().await;
    let theirs = store(&source.disk, 40, &[1_000, 90_000]);
    let own = store(&target.disk, 40, &[1_000, 80_000]);
    assert!(target.disk.flip_bit(&path_of(&own[1]), 900, 3));
    until(&target, REPAIRED, 1).await;
    target.disk.crash();
    let named = snapshot::latest(&target.disk, SHARD).unwrap().newest.unwrap().snapshot.segments;
    assert_eq!((named[0], named[1]), (own[0], theirs[1]));
    assert_eq!(whole(&target.disk), Some(Index(40)));
    assert_eq!(detail(&target, "shard-2/replica", "serves"), Some(theirs[1].bytes.to_string()));
    assert_eq!(metric(&target, "divergence_total"), 0, "the records are the same");
}

#[tokio::test(start_paused = true)]
async fn what_a_read_finds_is_looked_at_at_once_and_not_again_and_again() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[5_000]);
    let own = store(&target.disk, 40, &[5_000]);
    until(&source, "scrub_bytes_total", metric(&source, "scrub_bytes_total")).await;
    sleep(limits::SCRUB_PAUSE / 2).await;
    assert!(target.disk.flip_bit(&path_of(&own[0]), 900, 3));
    let began = Instant::now();
    let scrubber = scrubber_seat(&target.site, SHARD);
    for _ in 0..100 {
        scrubber.cast(ScrubberMessage::Look(Suspect::Segment(own[0].from))).unwrap();
    }
    until(&target, REPAIRED, 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(metric(&target, "scrub_damaged_total"), 1);
    assert_eq!(whole(&target.disk), Some(Index(40)));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_nobody_has_whole_is_tried_again_until_somebody_does() {
    let (source, target) = pair().await;
    let theirs = store(&source.disk, 40, &[5_000]);
    let own = store(&target.disk, 40, &[5_000]);
    for (node, meta) in [(&source, &theirs[0]), (&target, &own[0])] {
        assert!(node.disk.flip_bit(&path_of(meta), 900, 3));
    }
    until(&target, FAILED, 1).await;
    assert!(detail(&target, "shard-2/scrubber", "repair").unwrap().contains("is not what was announced"));
    assert!(source.disk.flip_bit(&path_of(&theirs[0]), 900, 3));
    until(&target, REPAIRED, 1).await;
    assert_eq!(metric(&target, "scrub_damaged_total"), 1, "it is the same damage");
    assert_eq!(whole(&target.disk), Some(Index(40)));
}

fn spoil_snapshot(node: &Node, index: u64) {
    let file = node.disk.open(&snapshot::path(SHARD, Index(index)), OpenMode::ReadWrite).unwrap();
    file.write_at(0, &[&[0; 8_192]]).unwrap();
    file.sync().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_replaced_by_the_same_one_of_a_peer() {
    let (source, target) = pair().await;
    store(&source.disk, 40, &[1_000, 9_000]);
    let own = store(&target.disk, 40, &[1_000, 8_000]);
    spoil_snapshot(&target, 40);
    until(&target, REPAIRED, 1).await;
    target.disk.crash();
    assert_eq!(whole(&target.disk), Some(Index(40)));
    let named = snapshot::latest(&target.disk, SHARD).unwrap().newest.unwrap().snapshot.segments;
    assert_eq!(named, own, "segments that are here in other bytes stay");
    assert_eq!(detail(&target, "shard-2/replica", "serves"), Some("from a repaired snapshot".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_peers_have_another_snapshot_writes_a_new_one() {
    let (source, target) = pair().await;
    store(&source.disk, 30, &[1_000]);
    store(&target.disk, 40, &[1_000, 8_000]);
    spoil_snapshot(&target, 40);
    target.site.board.seat(SHARD).unwrap().send_modify(|seat| {
        (seat.standing.role, seat.standing.phase) = (Role::Leader, Phase::Serving);
        seat.standing.applied = Index(44);
    });
    until(&target, "repairs_total{outcome=\"renewed\"}", 1).await;
    assert_eq!(detail(&target, "shard-2/replica", "serves"), Some("sealed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_begin_gets_a_newer_snapshot_where_its_own_is_not_to_be_had() {
    let (source, target) = pair().await;
    store(&source.disk, 50, &[1_000, 9_000, 70_000]);
    store(&target.disk, 40, &[1_000, 9_000]);
    spoil_snapshot(&target, 40);
    until(&target, REPAIRED, 1).await;
    target.disk.crash();
    assert_eq!(whole(&target.disk), Some(Index(50)));
    assert_eq!(detail(&target, "shard-2/replica", "serves"), Some("from a repaired snapshot".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn other_records_at_the_same_offsets_are_told_once() {
    let (source, target) = pair().await;
    store_as(&source.disk, 40, &[1_000, 9_000], 7);
    store(&target.disk, 40, &[1_000, 9_000, 500]);
    until(&target, "divergence_total", 2).await;
    sleep(3 * limits::SCRUB_PAUSE).await;
    assert_eq!(metric(&target, "divergence_total"), 2);
    assert!(detail(&target, "shard-2/scrubber", "diverges").unwrap().contains("from node 1"));
    assert_eq!(metric(&target, "scrub_damaged_total"), 0);
}

#[tokio::test(start_paused = true)]
async fn files_are_read_through_at_the_node_s_pace_round_after_round() {
    let (_source, target) = pair().await;
    store(&target.disk, 40, &[9 << 20, 9 << 20, 9 << 20]);
    let bytes = target.disk.used_bytes();
    let began = Instant::now();
    until(&target, "scrub_bytes_total", bytes).await;
    let least = Duration::from_millis((bytes - (2 << 20)) * 1_000 / limits::SCRUB_BYTES_PER_SECOND);
    assert!(began.elapsed() >= least, "{:?} for {bytes} bytes", began.elapsed());
    until(&target, "scrub_bytes_total", 2 * bytes).await;
    assert!(began.elapsed() >= limits::SCRUB_PAUSE);
}
