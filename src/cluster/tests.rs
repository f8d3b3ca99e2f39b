mod membership;
mod world;

use proptest::prelude::*;

use super::*;
use crate::id::Epoch;
use crate::placement::{MoveReason, plan_initial};

fn store(node: u64) -> StoreId {
    StoreId(100 + u128::from(node))
}

fn address(node: u64) -> String {
    format!("host-{node}:1")
}

fn members(count: u64) -> BTreeMap<NodeId, Member> {
    let member = |node| (NodeId(node), Member::new(store(node), address(node), String::new()));
    (1..=count).map(member).collect()
}

fn form(count: u64) -> Command {
    let members = members(count);
    let stores = members.iter().map(|(node, member)| (*node, member.store)).collect();
    Command::Form { cluster: cluster_id(&stores), members, highest_replica: ReplicaId(count) }
}

pub(super) fn apply(cluster: &mut Cluster, command: &Command) -> Applied {
    cluster.apply(Index(cluster.applied().0 + 1), &command.encode()).unwrap()
}

fn refused(cluster: &mut Cluster, command: &Command) -> CommandRefusal {
    let before = cluster.clone();
    let Applied::Refused { why } = apply(cluster, command) else { panic!("it was taken") };
    assert_eq!(Cluster { applied: before.applied, ..cluster.clone() }, before, "a refusal changes nothing");
    why
}

/// A cluster of so many nodes, and four shards in so many copies.
pub(super) fn placed_on(nodes: u64, copies: usize) -> Cluster {
    let mut cluster = Cluster::default();
    apply(&mut cluster, &form(nodes));
    let nodes: BTreeSet<_> = cluster.members().keys().copied().collect();
    let map = plan_initial(&nodes, 4, copies, &mut cluster.replica_ids());
    assert_eq!(apply(&mut cluster, &Command::PlaceShards { map }), Applied::Placed { epoch: Epoch(1) });
    cluster
}

fn placed() -> Cluster {
    placed_on(3, 3)
}

#[test]
fn a_cluster_is_formed_once_and_placed() {
    let cluster = placed();
    assert_eq!(cluster.members().len(), 3);
    assert_eq!(cluster.shards().shards.len(), 4);
    assert_eq!(cluster.replica_ids().highest(), ReplicaId(15), "three of the metadata group, twelve of shards");
    let mut cluster = cluster;
    assert_eq!(apply(&mut cluster, &form(3)), Applied::Nothing);
    assert!(matches!(refused(&mut cluster, &form(2)), CommandRefusal::OtherCluster { .. }));
}

#[test]
fn a_leaders_first_entry_and_a_repeated_entry_change_nothing() {
    let mut cluster = Cluster::default();
    assert_eq!(cluster.apply(Index(1), &[]).unwrap(), Applied::Nothing);
    assert_eq!(cluster.apply(Index(1), &form(3).encode()).unwrap(), Applied::Nothing);
    assert_eq!(cluster.identity(), None);
}

#[test]
fn members_that_do_not_make_the_cluster_are_refused() {
    let mut cluster = Cluster::default();
    let Command::Form { members, highest_replica, .. } = form(3) else { panic!() };
    let other = Command::Form { cluster: ClusterId(1), members, highest_replica };
    assert!(matches!(refused(&mut cluster, &other), CommandRefusal::Members { members: 3 }));
    assert!(matches!(refused(&mut cluster, &form(0)), CommandRefusal::Members { members: 0 }));
}

#[test]
fn first_maps_that_do_not_fit_are_refused() {
    let good = placed().shards().clone();
    let map = good.clone();
    assert_eq!(refused(&mut Cluster::default(), &Command::PlaceShards { map }), CommandRefusal::NotFormed);
    let mut formed = Cluster::default();
    apply(&mut formed, &form(3));
    let spoiled = |spoil: &dyn Fn(&mut ShardMap)| {
        let mut map = good.clone();
        spoil(&mut map);
        refused(&mut formed.clone(), &Command::PlaceShards { map })
    };
    assert!(matches!(spoiled(&|map| map.epoch = Epoch(2)), CommandRefusal::Epoch { .. }));
    assert!(matches!(spoiled(&|map| map.shards.clear()), CommandRefusal::Map(_)));
    let stranger = |map: &mut ShardMap| map.shards[0].replicas.extend([(NodeId(9), ReplicaId(99))]);
    assert_eq!(spoiled(&stranger), CommandRefusal::NoMember { node: NodeId(9) });
    let reused = |map: &mut ShardMap| map.shards[0].replicas.extend([(NodeId(1), ReplicaId(2))]);
    assert_eq!(spoiled(&reused), CommandRefusal::ReplicaReused { replica: ReplicaId(2) });
}

#[test]
fn shards_are_placed_once() {
    let mut cluster = placed();
    let map = ShardMap { epoch: Epoch(2), ..cluster.shards().clone() };
    let why = CommandRefusal::AlreadyPlaced { epoch: Epoch(1) };
    assert_eq!(refused(&mut cluster, &Command::PlaceShards { map }), why);
}

#[test]
fn another_version_is_named() {
    let error = Cluster::default().apply(Index(1), &[0x92, VERSION + 1, 0xc0]).unwrap_err();
    assert!(matches!(error, ClusterError::Version { version: 4, .. }));
    assert!(error.to_string().contains("start a newer one"), "{error}");
    assert_eq!(error.class(), Class::Fatal);
    let error = Cluster::decode(&[0x92, 1, 0xc0]).unwrap_err();
    assert!(error.to_string().contains("never released"), "{error}");
}

#[test]
fn a_snapshot_comes_back_as_it_was() {
    for cluster in [Cluster::default(), placed()] {
        assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_come_back_as_they_were(count in 1..6u64, shards in 1..20u32, number: u64, text in "\\PC{0,20}") {
        let nodes = members(count).into_keys().collect();
        let map = plan_initial(&nodes, shards, 3, &mut ReplicaIds::after(ReplicaId(count)));
        let (node, id, store) = (NodeId(number), MoveId(number), StoreId(u128::from(number) << 64 | 1));
        let begin = |shard, add, remove, why| Command::BeginMove { shard, add, remove, why, expects: Epoch(number) };
        for command in [
            form(count),
            Command::PlaceShards { map },
            begin(ShardId(shards), Some(node), None, MoveReason::Replication),
            begin(ShardId::METADATA, None, Some(node), MoveReason::Drain),
            begin(ShardId(0), Some(node), Some(node), MoveReason::Rehome),
            begin(ShardId(0), Some(node), Some(node), MoveReason::Requested),
            begin(ShardId(0), None, None, MoveReason::GivenUp),
            begin(ShardId(0), None, None, MoveReason::Rebalance),
            Command::EndMove { id },
            Command::CancelMove { id },
            Command::ConfirmMove { id },
            Command::WidenMove { id, remove: node },
            Command::AddNode { node, store, address: text.clone(), zone: text },
            Command::DrainNode { node },
            Command::UndrainNode { node },
            Command::RemoveNode { node },
            Command::ReplaceStore { node, store },
            Command::SetReplication { copies: shards },
        ] {
            prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), framed: bool) {
        if framed {
            bytes.splice(0..0, [0x92, VERSION]);
        }
        let _ = Command::decode(&bytes);
        let _ = Cluster::decode(&bytes);
    }

    #[test]
    fn damaged_bytes_never_panic(at: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = membership::busy().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(mut cluster) = Cluster::decode(&bytes) {
            for command in membership::everything(&cluster) {
                let index = Index(cluster.applied().0.saturating_add(1));
                let _ = cluster.apply(index, &command.encode());
                membership::look_at(&cluster);
            }
        }
    }
}
