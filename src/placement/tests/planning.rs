//! Plans, case by case; what holds for all of them is tested where commands carry them out, with the metadata group.

use super::*;

const GRACE_MS: u64 = 1_000;
const GIB: u64 = 1 << 30;

/// What a plan is made of, and a way to change it.
#[derive(Clone, Debug)]
struct Scene {
    nodes: BTreeMap<NodeId, NodeView>,
    map: ShardMap,
    metadata: Placement,
    lost: BTreeSet<ReplicaId>,
    moves: BTreeMap<ShardId, Move>,
    bytes: BTreeMap<ShardId, u64>,
    given_up: BTreeSet<ReplicaId>,
    copies: usize,
    next: u64,
}

impl Scene {
    /// Shards on the first nodes, the metadata group on as many as it may, and nodes that hold nothing yet.
    fn new(holding: u64, shards: u32, copies: usize, spare: u64) -> Self {
        let map = plan(holding, shards, copies);
        let view =
            NodeView { state: MemberState::Active, gone_ms: None, zone: String::new(), has_room: true, bytes: 0 };
        let voters = (1..=holding + spare).take(limits::METADATA_VOTERS_MAX);
        let replicas = voters.map(|node| (NodeId(node), ReplicaId(9_000 + node))).collect();
        let mut scene = Self {
            nodes: nodes(holding + spare).into_iter().map(|node| (node, view.clone())).collect(),
            bytes: map.shards.iter().map(|placement| (placement.shard, GIB)).collect(),
            map,
            metadata: Placement { shard: ShardId::METADATA, replicas },
            lost: BTreeSet::new(),
            moves: BTreeMap::new(),
            given_up: BTreeSet::new(),
            copies,
            next: 10_000,
        };
        scene.weigh();
        scene
    }

    /// What each node holds.
    fn weigh(&mut self) {
        for (node, view) in &mut self.nodes {
            let held = self.map.shards.iter().filter(|placement| placement.replicas.contains_key(node));
            view.bytes = held.map(|placement| self.bytes[&placement.shard]).sum();
        }
    }

    fn node(&mut self, node: u64) -> &mut NodeView {
        self.nodes.get_mut(&NodeId(node)).unwrap()
    }

    fn replica(&self, shard: u32, node: u64) -> ReplicaId {
        self.map.replica(ShardId(shard), NodeId(node)).unwrap()
    }

    fn wishes(&self) -> Vec<Wish> {
        let shard = |placement: &Placement| {
            let lives = |(node, replica): &(&NodeId, &ReplicaId)| {
                self.nodes.get(node).is_some_and(|view| view.gone_ms.is_none()) && !self.given_up.contains(replica)
            };
            let live: BTreeMap<_, _> = placement.replicas.iter().filter(lives).collect();
            let view = ShardView {
                leader: live.keys().next().map(|node| **node),
                bytes: self.bytes.get(&placement.shard).copied().unwrap_or_default(),
                live: live.into_values().copied().collect(),
                given_up: self.given_up.clone(),
            };
            (placement.shard, view)
        };
        let observed = Observed {
            nodes: self.nodes.clone(),
            map: &self.map,
            metadata: &self.metadata,
            lost: &self.lost,
            moves: &self.moves,
            shards: self.map.shards.iter().chain([&self.metadata]).map(shard).collect(),
        };
        plan_moves(&observed, &Desired::new(self.copies, GRACE_MS, true))
    }

    /// The wishes as shard, where to, where from; without the metadata group.
    fn of_shards(&self) -> Vec<(u32, Option<u64>, Option<u64>)> {
        let wishes = self.wishes().into_iter().filter(|wish| wish.shard != ShardId::METADATA);
        wishes.map(|wish| (wish.shard.0, wish.add.map(|node| node.0), wish.remove.map(|node| node.0))).collect()
    }

    fn carry_out(&mut self, wish: &Wish) {
        let seat = |node: NodeId, replica: u64| Seat { node, replica: ReplicaId(replica) };
        let under_way = Move {
            id: MoveId(self.next),
            shard: wish.shard,
            add: wish.add.map(|node| seat(node, self.next)),
            remove: wish.remove.map(|node| seat(node, 0)),
            why: wish.why,
            confirmed: true,
            also: None,
        };
        self.next += 1;
        if wish.shard == ShardId::METADATA {
            under_way.carry_out(&mut self.metadata.replicas);
        } else {
            under_way.carry_out(&mut self.map.shards[wish.shard.0 as usize].replicas);
        }
        self.weigh();
    }

    /// Plans and carries out until nothing is left; how many moves that took.
    fn settle(&mut self) -> usize {
        let mut moves = 0;
        for _ in 0..500 {
            let wishes = self.wishes();
            if wishes.is_empty() {
                return moves;
            }
            moves += wishes.len();
            wishes.iter().for_each(|wish| self.carry_out(wish));
        }
        panic!("the plan goes on and on: {:?}", self.wishes());
    }

    fn held(&self) -> BTreeMap<NodeId, usize> {
        let held = |node: &NodeId| self.map.shards.iter().filter(|shard| shard.replicas.contains_key(node)).count();
        self.nodes.keys().map(|node| (*node, held(node))).collect()
    }
}

#[test]
fn a_cluster_that_is_well_is_left_alone() {
    assert_eq!(Scene::new(3, 16, 3, 0).wishes().len(), 0);
    assert_eq!(Scene::new(5, 16, 3, 0).wishes().len(), 0);
    assert_eq!(Scene::new(1, 16, 1, 0).wishes().len(), 0);
}

#[test]
fn a_node_that_is_gone_counts_as_dead_after_the_grace_period() {
    let mut scene = Scene::new(3, 1, 3, 1);
    scene.node(2).gone_ms = Some(GRACE_MS - 1);
    assert_eq!(scene.of_shards(), []);
    scene.node(2).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(2))]);
    scene.node(2).gone_ms = None;
    scene.node(2).state = MemberState::Removed;
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(2))]);
    scene.nodes.remove(&NodeId(2));
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(2))]);
}

#[test]
fn a_replica_whose_store_is_lost_may_come_to_the_same_node_again() {
    let mut scene = Scene::new(3, 1, 3, 0);
    scene.lost.insert(scene.replica(0, 3));
    assert_eq!(scene.of_shards(), [(0, Some(3), Some(3))]);
}

#[test]
fn where_a_dead_replica_has_nowhere_to_go_another_is_seen_to() {
    let mut scene = Scene::new(5, 1, 5, 0);
    scene.node(1).gone_ms = Some(GRACE_MS);
    scene.lost.insert(scene.replica(0, 4));
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(4))]);
}

#[test]
fn a_replica_that_was_given_up_goes_elsewhere_at_once() {
    let mut scene = Scene::new(3, 2, 3, 1);
    scene.given_up.insert(scene.replica(1, 2));
    let wish = Wish { shard: ShardId(1), add: Some(NodeId(4)), remove: Some(NodeId(2)), why: MoveReason::GivenUp };
    assert_eq!(scene.wishes(), [wish]);
}

#[test]
fn what_is_dead_goes_before_what_drains_and_that_before_wrong_numbers() {
    let mut scene = Scene::new(3, 1, 3, 3);
    scene.copies = 5;
    assert!(scene.wishes().iter().all(|wish| wish.why == MoveReason::Replication));
    scene.node(2).state = MemberState::Draining;
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(2))]);
    scene.node(3).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(3))]);
}

#[test]
fn without_a_majority_or_a_spare_node_nothing_is_planned() {
    let mut scene = Scene::new(3, 4, 3, 0);
    scene.node(1).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.wishes().len(), 0, "no spare node");
    let mut scene = Scene::new(3, 4, 3, 2);
    for node in [1, 2] {
        scene.node(node).gone_ms = Some(GRACE_MS);
    }
    assert_eq!(scene.of_shards(), [], "no majority");
    let mut scene = Scene::new(3, 4, 3, 1);
    scene.node(1).state = MemberState::Draining;
    scene.node(4).has_room = false;
    assert_eq!(scene.of_shards(), [], "no room");
}

#[test]
fn one_too_many_goes_from_the_fullest_node_but_never_a_live_one_before_one_that_is_not() {
    let mut scene = Scene::new(3, 1, 3, 2);
    scene.copies = 1;
    scene.node(2).bytes = 9 * GIB;
    assert_eq!(scene.of_shards(), [(0, None, Some(2))]);
    scene.node(3).gone_ms = Some(0);
    assert_eq!(scene.of_shards(), [(0, None, Some(3))]);
    scene.node(3).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.of_shards(), [(0, None, Some(3))]);
}

#[test]
fn a_replica_goes_where_zones_are_spread_best_then_where_least_is_held() {
    let mut scene = Scene::new(3, 1, 3, 3);
    for (node, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "c"), (6, "c")] {
        scene.node(node).zone = zone.to_owned();
    }
    scene.node(3).gone_ms = Some(GRACE_MS);
    scene.node(5).bytes = GIB;
    assert_eq!(scene.of_shards(), [(0, Some(6), Some(3))]);
    scene.node(6).bytes = GIB;
    assert_eq!(scene.of_shards(), [(0, Some(5), Some(3))]);
    scene.node(5).has_room = false;
    scene.node(6).state = MemberState::Draining;
    assert_eq!(scene.of_shards(), [(0, Some(4), Some(3))]);
}

#[test]
fn one_node_takes_no_more_than_a_few_replicas_at_a_time() {
    let mut scene = Scene::new(3, 16, 3, 1);
    scene.metadata.replicas.remove(&NodeId(4));
    scene.node(1).gone_ms = Some(GRACE_MS);
    let onto = |scene: &Scene| scene.wishes().iter().filter(|wish| wish.add == Some(NodeId(4))).count();
    assert_eq!(onto(&scene), limits::MOVES_PER_NODE_MAX);
    let seat = |node, replica| Some(Seat { node: NodeId(node), replica: ReplicaId(replica) });
    let shard = ShardId(7);
    let under_way = Move {
        id: MoveId(1),
        shard,
        add: seat(4, 500),
        remove: seat(1, 22),
        why: MoveReason::Rehome,
        confirmed: false,
        also: None,
    };
    scene.moves.insert(shard, under_way);
    assert_eq!(onto(&scene), limits::MOVES_PER_NODE_MAX - 1);
}

#[test]
fn the_metadata_group_votes_on_as_many_nodes_as_can_be_had() {
    let mut scene = Scene::new(3, 1, 3, 1);
    scene.metadata.replicas.remove(&NodeId(4));
    let wish = |add: Option<u64>, remove: Option<u64>, why| Wish {
        shard: ShardId::METADATA,
        add: add.map(NodeId),
        remove: remove.map(NodeId),
        why,
    };
    assert_eq!(scene.wishes(), [wish(Some(4), None, MoveReason::Replication)]);
    scene.carry_out(&wish(Some(4), None, MoveReason::Replication));
    scene.node(1).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.wishes()[0], wish(None, Some(1), MoveReason::Rehome), "three are left");
    scene.carry_out(&wish(None, Some(1), MoveReason::Rehome));
    scene.node(2).gone_ms = Some(GRACE_MS);
    assert_eq!(scene.wishes(), [], "the third may come back");
}

#[test]
fn nothing_is_evened_out_while_something_is_wrong() {
    let mut scene = Scene::new(3, 8, 3, 1);
    assert!(scene.wishes().iter().all(|wish| wish.why == MoveReason::Rebalance) && !scene.wishes().is_empty());
    scene.node(4).has_room = false;
    scene.node(1).state = MemberState::Draining;
    assert_eq!(scene.of_shards(), []);
}

#[test]
fn a_node_that_joins_takes_its_share_of_replicas_and_bytes() {
    let mut scene = Scene::new(4, 16, 3, 1);
    for (shard, bytes) in &mut scene.bytes {
        *bytes = GIB * u64::from(1 + shard.0 % 4);
    }
    scene.weigh();
    let moves = scene.settle();
    assert!(spread(&scene.held()) <= 1, "{:?}", scene.held());
    let held: Vec<u64> = scene.nodes.values().map(|view| view.bytes / GIB).collect();
    assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 6, "of 24 on average: {held:?}");
    assert!(moves <= 16, "{moves} moves for a share of nine");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evening_out_comes_to_rest_with_zones_replicas_and_bytes_spread(
        holding in 3..=8_u64,
        spare in 0..=3_u64,
        shards in 1..=24_u32,
        zones in 1..=4_u64,
        bytes in proptest::collection::vec(0..20_u64, 24),
    ) {
        let mut scene = Scene::new(holding, shards, 3, spare);
        for (node, view) in &mut scene.nodes {
            view.zone = format!("{}", node.0 % zones);
        }
        for (shard, of_shard) in &mut scene.bytes {
            *of_shard = bytes[shard.0 as usize] * GIB;
        }
        scene.weigh();
        scene.settle();
        let in_zone = |placement: &Placement, zone: u64| placement.replicas.keys().filter(|node| node.0 % zones == zone).count();
        for placement in &scene.map.shards {
            prop_assert_eq!(placement.replicas.len(), 3);
            for (node, other) in placement.replicas.keys().flat_map(|node| scene.nodes.keys().map(move |other| (node, other))) {
                let free = !placement.replicas.contains_key(other);
                let (crowd, there) = (in_zone(placement, node.0 % zones), in_zone(placement, other.0 % zones));
                prop_assert!(!free || crowd < there + 2, "{:?} on {} could be on {}", placement, node, other);
            }
        }
        if zones == 1 {
            prop_assert!(spread(&scene.held()) <= 1, "{:?}", scene.held());
        }
    }
}
