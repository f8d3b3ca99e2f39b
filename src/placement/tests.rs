mod planning;

use proptest::prelude::*;

use super::*;

fn nodes(count: u64) -> BTreeSet<NodeId> {
    (1..=count).map(NodeId).collect()
}

fn plan(count: u64, shards: u32, copies: usize) -> ShardMap {
    plan_initial(&nodes(count), shards, copies, &mut ReplicaIds::after(ReplicaId(0)))
}

fn spread(counts: &BTreeMap<NodeId, usize>) -> usize {
    counts.values().max().unwrap() - counts.values().min().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_and_leaders_are_balanced(count in 1..=12u64, shards in 1..=80u32, copies in 1..=5usize, last in 0..9u64) {
        let mut ids = ReplicaIds::after(ReplicaId(last));
        let map = plan_initial(&nodes(count), shards, copies, &mut ids);
        prop_assert_eq!(map.check(), Ok(()));
        let mut held: BTreeMap<NodeId, usize> = nodes(count).into_iter().map(|node| (node, 0)).collect();
        let mut led = held.clone();
        for placement in &map.shards {
            prop_assert_eq!(placement.replicas.len(), copies.min(count as usize));
            for (node, replica) in &placement.replicas {
                *held.get_mut(node).unwrap() += 1;
                prop_assert!(replica.0 > last);
            }
        }
        for (shard, node) in map.preferred_leaders(&BTreeSet::new()) {
            prop_assert!(map.replica(shard, node).is_some());
            *led.get_mut(&node).unwrap() += 1;
        }
        prop_assert!(spread(&held) <= 1, "{:?}", held);
        prop_assert!(spread(&led) <= 1, "{:?}", led);
        prop_assert_eq!(ids.highest(), map.highest_replica());
        prop_assert_eq!(&map, &plan_initial(&nodes(count), shards, copies, &mut ReplicaIds::after(ReplicaId(last))));
    }

    #[test]
    fn leaders_come_home_a_few_at_a_time(count in 1..=7u64, shards in 1..=40u32, at in 1..=7u64, down in 0..=7u64) {
        let map = plan(count, shards, 3);
        let ready: BTreeSet<_> = nodes(count).into_iter().filter(|node| node.0 != down).collect();
        let mut observed: BTreeMap<_, _> = map
            .shards
            .iter()
            .map(|placement| (placement.shard, *placement.replicas.keys().nth(at as usize % placement.replicas.len()).unwrap()))
            .collect();
        for _ in 0..=shards {
            let moves = plan_leaders(&map, &observed, &ready, &BTreeSet::new());
            prop_assert!(moves.len() <= limits::LEADER_TRANSFERS_MAX);
            for Transfer { shard, from, to } in moves {
                prop_assert_eq!(observed.insert(shard, to), Some(from));
                prop_assert!(ready.contains(&to));
            }
        }
        prop_assert!(plan_leaders(&map, &observed, &ready, &BTreeSet::new()).is_empty());
        for (shard, node) in map.preferred_leaders(&BTreeSet::new()) {
            prop_assert!(observed[&shard] == node || !ready.contains(&node));
        }
    }

    #[test]
    fn nodes_that_drain_are_given_no_leadership_and_give_up_theirs(count in 1..=7u64, shards in 1..=40u32, drained: [bool; 7]) {
        let map = plan(count, shards, 3);
        let draining: BTreeSet<_> = nodes(count).into_iter().filter(|node| drained[node.0 as usize - 1]).collect();
        let mut observed: BTreeMap<_, _> =
            map.shards.iter().map(|placement| (placement.shard, *placement.replicas.keys().next().unwrap())).collect();
        for _ in 0..=shards {
            for Transfer { shard, to, .. } in plan_leaders(&map, &observed, &nodes(count), &draining) {
                prop_assert!(!draining.contains(&to));
                observed.insert(shard, to);
            }
        }
        let preferred = map.preferred_leaders(&draining);
        for placement in &map.shards {
            let able = placement.replicas.keys().any(|node| !draining.contains(node));
            prop_assert_eq!(preferred.contains_key(&placement.shard), able);
            prop_assert!(!able || !draining.contains(&observed[&placement.shard]));
        }
    }
}

#[test]
fn three_nodes_share_sixteen_shards() {
    let map = plan(3, 16, 3);
    let leaders: Vec<u64> = map.preferred_leaders(&BTreeSet::new()).into_values().map(|node| node.0).collect();
    assert_eq!(leaders, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(map.placement(ShardId::METADATA), None);
}

#[test]
fn a_shard_without_an_observed_leader_is_left_alone() {
    assert!(plan_leaders(&plan(3, 16, 3), &BTreeMap::new(), &nodes(3), &BTreeSet::new()).is_empty());
}

#[test]
fn maps_that_cannot_be_are_refused() {
    let good = plan(3, 4, 3);
    let spoiled = |spoil: &dyn Fn(&mut ShardMap)| {
        let mut map = good.clone();
        spoil(&mut map);
        map.check()
    };
    assert_eq!(spoiled(&|map| map.shards.clear()), Err(PlacementError::Shards { shards: 0 }));
    assert_eq!(spoiled(&|map| map.shards.swap(1, 2)), Err(PlacementError::OutOfOrder { shard: ShardId(2) }));
    assert_eq!(spoiled(&|map| map.shards[3].replicas.clear()), Err(PlacementError::Nowhere { shard: ShardId(3) }));
    let twice = |map: &mut ShardMap| map.shards[3].replicas = map.shards[2].replicas.clone();
    assert!(matches!(spoiled(&twice), Err(PlacementError::Id { shard: ShardId(3), .. })));
    assert_eq!(PlacementError::Shards { shards: 0 }.class(), Class::Refuse);
}
