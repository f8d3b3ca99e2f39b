//! Nodes and moves, command by command: what each does to the state, and what it is refused for.

use super::*;
use crate::limits;
use crate::placement::Seat;

const METADATA: ShardId = ShardId::METADATA;

fn begin(cluster: &Cluster, shard: u32, add: Option<u64>, remove: Option<u64>) -> Command {
    Command::BeginMove {
        shard: ShardId(shard),
        add: add.map(NodeId),
        remove: remove.map(NodeId),
        why: MoveReason::Requested,
        expects: cluster.shards().epoch,
    }
}

fn begun(cluster: &mut Cluster, shard: u32, add: Option<u64>, remove: Option<u64>) -> Move {
    let command = begin(cluster, shard, add, remove);
    let Applied::Began { begun } = apply(cluster, &command) else { panic!("it was refused") };
    begun
}

fn ended(cluster: &mut Cluster, id: MoveId) {
    let epoch = Epoch(cluster.shards().epoch.0 + 1);
    let Applied::Ended { epoch: now, .. } = apply(cluster, &Command::EndMove { id }) else { panic!("it was refused") };
    assert_eq!(now, epoch, "the map changed");
}

fn add(node: u64) -> Command {
    Command::AddNode { node: NodeId(node), store: store(node), address: address(node), zone: "b".to_owned() }
}

fn replace(node: u64, store: u128) -> Command {
    Command::ReplaceStore { node: NodeId(node), store: StoreId(store) }
}

/// A cluster in which everything there can be is there.
pub(super) fn busy() -> Cluster {
    let mut cluster = placed_on(6, 3);
    apply(&mut cluster, &add(7));
    apply(&mut cluster, &replace(1, 999));
    apply(&mut cluster, &Command::DrainNode { node: NodeId(2) });
    apply(&mut cluster, &add(8));
    apply(&mut cluster, &Command::RemoveNode { node: NodeId(8) });
    begun(&mut cluster, 0, Some(7), Some(2));
    begun(&mut cluster, u32::MAX, Some(7), Some(1));
    let removal = begun(&mut cluster, 1, None, Some(4));
    apply(&mut cluster, &Command::ConfirmMove { id: removal.id });
    apply(&mut cluster, &Command::WidenMove { id: removal.id, remove: NodeId(5) });
    cluster
}

/// One command of each kind.
pub(super) fn everything(cluster: &Cluster) -> Vec<Command> {
    let node = NodeId(3);
    vec![
        Command::PlaceShards { map: ShardMap { epoch: Epoch(2), ..cluster.shards().clone() } },
        begin(cluster, 0, Some(4), Some(3)),
        begin(cluster, 1, Some(3), Some(4)),
        begin(cluster, u32::MAX, Some(6), None),
        Command::EndMove { id: MoveId(1) },
        Command::CancelMove { id: MoveId(2) },
        Command::ConfirmMove { id: MoveId(3) },
        Command::WidenMove { id: MoveId(3), remove: NodeId(5) },
        add(9),
        replace(3, 555),
        Command::DrainNode { node },
        Command::UndrainNode { node },
        Command::RemoveNode { node },
        Command::SetReplication { copies: 5 },
    ]
}

#[test]
fn a_replica_that_is_about_to_go_is_not_one_that_should_lead_unless_it_is_the_only_one() {
    let mut cluster = placed_on(4, 3);
    let holders: Vec<NodeId> = cluster.placement(ShardId(0)).unwrap().replicas.keys().copied().collect();
    let spare = (1..=4).find(|node| !holders.contains(&NodeId(*node))).unwrap();
    begun(&mut cluster, 0, Some(spare), Some(holders[0].0));
    let staying = cluster.staying();
    let left: Vec<NodeId> = staying.placement(ShardId(0)).unwrap().replicas.keys().copied().collect();
    assert_eq!(left, holders[1..], "it would hand over again at once");
    assert_eq!(staying.shards[1..], cluster.shards().shards[1..]);

    let mut single = placed_on(2, 1);
    let from = single.placement(ShardId(0)).unwrap().replicas.keys().next().unwrap().0;
    begun(&mut single, 0, Some(3 - from), Some(from));
    assert_eq!(single.staying(), *single.shards());
}

/// Asks for everything that is derived from a state.
pub(super) fn look_at(cluster: &Cluster) {
    for (node, member) in cluster.members() {
        let _ = cluster.holds(*node, member.store);
    }
    for shard in [ShardId(0), ShardId(1), METADATA] {
        let _ = (cluster.homes(shard), cluster.wanted(shard));
    }
    let _ = (cluster.roll(), cluster.draining());
}

#[test]
fn a_replica_moves_from_one_node_to_another() {
    let mut cluster = placed_on(4, 3);
    let (epoch, before) = (cluster.shards().epoch, cluster.placement(ShardId(0)).unwrap().clone());
    assert_eq!(before.replicas.keys().map(|node| node.0).collect::<Vec<_>>(), [1, 2, 3]);
    let highest = cluster.replica_ids().highest();
    let under_way = begun(&mut cluster, 0, Some(4), Some(1));
    let (gone, come) = (under_way.remove.unwrap(), under_way.add.unwrap());
    assert_eq!(come, Seat { node: NodeId(4), replica: ReplicaId(highest.0 + 1) });
    assert_eq!((cluster.shards().epoch, cluster.placement(ShardId(0))), (epoch, Some(&before)), "not moved yet");
    assert_eq!(cluster.homes(ShardId(0)).len(), 4, "it is found already");
    assert_eq!(cluster.holds(NodeId(4), store(4))[&ShardId(0)], Duty::Joining(come.replica));
    assert_eq!(cluster.holds(NodeId(1), store(1))[&ShardId(0)], Duty::Leaving(gone.replica));
    let wanted = cluster.wanted(ShardId(0)).unwrap();
    assert!(wanted.voters.contains(&come.replica) && !wanted.voters.contains(&gone.replica));
    ended(&mut cluster, under_way.id);
    assert_eq!(cluster.holds(NodeId(4), store(4))[&ShardId(0)], Duty::Voter(come.replica));
    assert!(!cluster.holds(NodeId(1), store(1)).contains_key(&ShardId(0)));
    assert_eq!(cluster.wanted(ShardId(0)), Some(wanted));
    assert!(
        cluster.founders(ShardId(0)).unwrap().iter().eq(before.replicas.values()),
        "whoever comes late begins with them"
    );
    let no_move = CommandRefusal::NoMove { id: under_way.id };
    assert_eq!(refused(&mut cluster, &Command::EndMove { id: under_way.id }), no_move);
}

#[test]
fn a_cancelled_move_leaves_nothing_but_a_dead_replica_id() {
    let mut cluster = placed_on(4, 3);
    let before = cluster.clone();
    let first = begun(&mut cluster, 0, Some(4), Some(1));
    assert_eq!(apply(&mut cluster, &Command::CancelMove { id: first.id }), Applied::Cancelled { cancelled: first });
    assert_eq!((cluster.shards(), cluster.moves()), (before.shards(), before.moves()));
    let second = begun(&mut cluster, 0, Some(4), Some(1));
    assert!(second.id > first.id && second.add.unwrap().replica > first.add.unwrap().replica);
}

#[test]
fn a_dead_replica_goes_with_a_removal_that_is_confirmed_and_neither_comes_back() {
    let mut cluster = placed_on(4, 3);
    let shard = ShardId(0);
    let Move { id, .. } = begun(&mut cluster, 0, None, Some(2));
    let widen = |node: u64| Command::WidenMove { id, remove: NodeId(node) };
    assert_eq!(refused(&mut cluster, &widen(3)), CommandRefusal::NotWidened { id }, "it can still be given up");
    apply(&mut cluster, &Command::ConfirmMove { id });
    assert_eq!(refused(&mut cluster, &widen(2)), CommandRefusal::NotWidened { id }, "that one goes anyway");
    assert_eq!(refused(&mut cluster, &widen(4)), CommandRefusal::NotHeld { shard, node: NodeId(4) });
    let Applied::Widened { widened } = apply(&mut cluster, &widen(3)) else { panic!("it was refused") };
    let leaving: Vec<NodeId> = widened.leaving().map(|seat| seat.node).collect();
    assert_eq!(leaving, [NodeId(2), NodeId(3)]);
    assert_eq!(apply(&mut cluster, &widen(3)), Applied::Nothing, "said again");
    assert_eq!(refused(&mut cluster, &widen(1)), CommandRefusal::NotWidened { id }, "one is enough");
    assert_eq!(refused(&mut cluster, &Command::CancelMove { id }), CommandRefusal::Confirmed { id });
    let remove = Command::RemoveNode { node: NodeId(3) };
    assert_eq!(refused(&mut cluster, &remove), CommandRefusal::InMove { node: NodeId(3), shard, id });
    for seat in widened.leaving() {
        assert_eq!(cluster.holds(seat.node, store(seat.node.0))[&shard], Duty::Leaving(seat.replica));
    }
    assert_eq!(cluster.staying().placement(shard).unwrap().replicas.len(), 1);
    ended(&mut cluster, id);
    let stays: Vec<NodeId> = cluster.placement(shard).unwrap().replicas.keys().copied().collect();
    assert_eq!(stays, [NodeId(1)]);
    for seat in widened.leaving() {
        assert!(!cluster.holds(seat.node, store(seat.node.0)).contains_key(&shard));
        let again = begun(&mut cluster, 0, Some(seat.node.0), None);
        assert!(again.add.unwrap().replica > seat.replica.max(widened.also.unwrap().replica), "as another replica");
        apply(&mut cluster, &Command::CancelMove { id: again.id });
    }
}

#[test]
fn somebody_stays_whoever_goes_with_a_removal_and_voters_that_go_from_nodes_that_live_observe() {
    let mut cluster = placed_on(5, 3);
    let Move { id, .. } = begun(&mut cluster, u32::MAX, None, Some(1));
    apply(&mut cluster, &Command::ConfirmMove { id });
    apply(&mut cluster, &Command::WidenMove { id, remove: NodeId(2) });
    ended(&mut cluster, id);
    assert_eq!(cluster.metadata().replicas.len(), 3);
    for node in [1, 2] {
        assert_eq!(cluster.holds(NodeId(node), store(node))[&METADATA], Duty::Observer(ReplicaId(node)));
    }
    let Move { id, .. } = begun(&mut cluster, u32::MAX, None, Some(3));
    ended(&mut cluster, id);
    let Move { id, .. } = begun(&mut cluster, u32::MAX, None, Some(4));
    apply(&mut cluster, &Command::ConfirmMove { id });
    let last = Command::WidenMove { id, remove: NodeId(5) };
    assert_eq!(refused(&mut cluster, &last), CommandRefusal::LastReplica { shard: METADATA, node: NodeId(5) });
}

#[test]
fn moves_that_do_not_fit_are_refused() {
    let mut cluster = placed_on(4, 3);
    let shard = ShardId(0);
    let mut why = |shard: u32, add: Option<u64>, remove: Option<u64>| {
        let command = begin(&cluster, shard, add, remove);
        refused(&mut cluster, &command)
    };
    assert_eq!(why(0, None, None), CommandRefusal::EmptyMove { shard });
    assert_eq!(why(9, Some(4), None), CommandRefusal::NoShard { shard: ShardId(9) });
    assert_eq!(why(0, Some(4), Some(4)), CommandRefusal::NotHeld { shard, node: NodeId(4) });
    assert_eq!(why(0, Some(2), Some(1)), CommandRefusal::Held { shard, node: NodeId(2) });
    assert_eq!(why(0, Some(1), Some(1)), CommandRefusal::Held { shard, node: NodeId(1) });
    assert_eq!(why(0, Some(9), Some(1)), CommandRefusal::NoMember { node: NodeId(9) });
    let outdated = begin(&Cluster::default(), 0, Some(4), Some(1));
    let expected = CommandRefusal::Outdated { ours: Epoch(1), expected: Epoch(0) };
    assert_eq!(refused(&mut cluster, &outdated), expected);
    let (node, state) = (NodeId(4), MemberState::Draining);
    apply(&mut cluster, &Command::DrainNode { node });
    let onto_draining = begin(&cluster, 0, Some(4), Some(1));
    assert_eq!(refused(&mut cluster, &onto_draining), CommandRefusal::NotActive { node, state });
    apply(&mut cluster, &Command::UndrainNode { node });
    let under_way = begun(&mut cluster, 0, Some(4), Some(1));
    let second = begin(&cluster, 0, Some(4), Some(2));
    assert_eq!(refused(&mut cluster, &second), CommandRefusal::UnderWay { shard, id: under_way.id });
    let mut formed = Cluster::default();
    apply(&mut formed, &form(3));
    assert_eq!(refused(&mut formed, &begin(&Cluster::default(), 0, Some(1), None)), CommandRefusal::NotPlaced);
}

#[test]
fn the_last_replica_stays_and_there_are_never_more_than_may_be() {
    let mut single = placed_on(3, 1);
    let last = begin(&single, 0, None, Some(1));
    assert_eq!(refused(&mut single, &last), CommandRefusal::LastReplica { shard: ShardId(0), node: NodeId(1) });
    let mut full = placed_on(6, 5);
    let another = begin(&full, 0, Some(6), None);
    assert_eq!(refused(&mut full, &another), CommandRefusal::ReplicasFull { shard: ShardId(0), replicas: 5 });
}

#[test]
fn only_so_many_moves_are_under_way_at_once() {
    let mut cluster = Cluster::default();
    apply(&mut cluster, &form(9));
    let nodes = members(9).into_keys().collect();
    let map = plan_initial(&nodes, 18, 1, &mut cluster.replica_ids());
    apply(&mut cluster, &Command::PlaceShards { map });
    let moves = limits::MOVES_PER_NODE_MAX;
    let (of_one, of_all) = (u32::try_from(moves).unwrap(), u32::try_from(limits::MOVES_MAX).unwrap());
    for shard in 0..of_one {
        begun(&mut cluster, shard, Some(9), None);
    }
    let another = begin(&cluster, of_one, Some(9), None);
    assert_eq!(refused(&mut cluster, &another), CommandRefusal::NodeBusy { node: NodeId(9), moves });
    for shard in of_one..of_all {
        begun(&mut cluster, shard, Some(u64::from(4 + shard % 5)), None);
    }
    let another = begin(&cluster, of_all, Some(7), None);
    assert_eq!(refused(&mut cluster, &another), CommandRefusal::MovesFull { moves: limits::MOVES_MAX });
}

#[test]
fn a_new_node_observes_the_metadata_group_and_may_come_to_vote() {
    let mut cluster = placed();
    let node = NodeId(4);
    let changed = Applied::NodeChanged { node, state: MemberState::Active };
    assert_eq!(apply(&mut cluster, &add(4)), changed);
    assert_eq!(apply(&mut cluster, &add(4)), Applied::Nothing, "said again");
    let duties = cluster.holds(node, store(4));
    let Some(Duty::Observer(observer)) = duties.get(&METADATA).copied() else { panic!("{duties:?}") };
    assert_eq!(duties.len(), 1);
    assert_eq!(cluster.wanted(METADATA).unwrap().learners, BTreeSet::from([observer]));
    assert_eq!(
        cluster.roll().unwrap().nodes[&node],
        Enrolled { store: store(4), replica: observer, address: address(4) }
    );
    let highest = cluster.replica_ids().highest();
    let under_way = begun(&mut cluster, u32::MAX, Some(4), Some(1));
    assert_eq!(under_way.add.unwrap().replica, observer, "it keeps its log and its id");
    assert_eq!(cluster.replica_ids().highest(), highest);
    assert_eq!(cluster.holds(node, store(4))[&METADATA], Duty::Joining(observer));
    let wanted = cluster.wanted(METADATA).unwrap();
    ended(&mut cluster, under_way.id);
    assert_eq!(cluster.holds(node, store(4))[&METADATA], Duty::Voter(observer));
    assert_eq!(cluster.holds(NodeId(1), store(1))[&METADATA], Duty::Observer(ReplicaId(1)), "it goes on following");
    assert_eq!(cluster.wanted(METADATA), Some(wanted));
}

#[test]
fn nodes_that_cannot_be_added_are_refused() {
    let mut cluster = placed();
    assert_eq!(refused(&mut Cluster::default(), &add(4)), CommandRefusal::NotFormed);
    assert_eq!(refused(&mut cluster, &add(0)), CommandRefusal::NodeId { node: NodeId(0) });
    let active = MemberState::Active;
    assert_eq!(refused(&mut cluster, &add(3)), CommandRefusal::NodeUsed { node: NodeId(3), state: active });
    let mut with = |store_of: u64, address: String, zone: String| {
        let add = Command::AddNode { node: NodeId(4), store: store(store_of), address, zone };
        refused(&mut cluster, &add)
    };
    let text = |bytes| "x".repeat(bytes);
    assert_eq!(with(2, address(4), text(0)), CommandRefusal::StoreUsed { store: store(2), node: NodeId(2) });
    assert_eq!(with(4, address(2), text(0)), CommandRefusal::AddressUsed { node: NodeId(2) });
    assert_eq!(with(4, text(0), text(0)), CommandRefusal::Address { bytes: 0 });
    assert_eq!(with(4, text(257), text(0)), CommandRefusal::Address { bytes: 257 });
    assert_eq!(with(4, address(4), text(64)), CommandRefusal::Zone { bytes: 64 });
    for node in 4..=64 {
        assert!(matches!(apply(&mut cluster, &add(node)), Applied::NodeChanged { .. }));
    }
    assert_eq!(refused(&mut cluster, &add(65)), CommandRefusal::NodesFull { nodes: 64, ever: 64 });
}

#[test]
fn a_node_is_drained_and_removed_and_its_id_is_never_given_out_again() {
    let mut cluster = placed_on(4, 1);
    let node = NodeId(4);
    let drain = Command::DrainNode { node };
    apply(&mut cluster, &drain);
    assert_eq!(cluster.draining(), BTreeSet::from([node]));
    assert_eq!(apply(&mut cluster, &drain), Applied::Nothing);
    apply(&mut cluster, &Command::UndrainNode { node });
    assert_eq!(cluster.draining(), BTreeSet::new());
    apply(&mut cluster, &drain);
    let remove = Command::RemoveNode { node };
    let not_empty = CommandRefusal::NotEmpty { node, groups: 2, first: ShardId(3) };
    assert_eq!(refused(&mut cluster, &remove), not_empty);
    let first = begun(&mut cluster, 3, Some(1), Some(4));
    let in_move = CommandRefusal::InMove { node, shard: ShardId(3), id: first.id };
    assert_eq!(refused(&mut cluster, &remove), in_move);
    ended(&mut cluster, first.id);
    let second = begun(&mut cluster, u32::MAX, None, Some(4));
    ended(&mut cluster, second.id);
    let state = MemberState::Removed;
    assert_eq!(apply(&mut cluster, &remove), Applied::NodeChanged { node, state });
    assert_eq!(cluster.holds(node, store(4)), BTreeMap::new());
    assert!(
        !cluster.roll().unwrap().nodes.contains_key(&node) && cluster.wanted(METADATA).unwrap().learners.is_empty()
    );
    assert_eq!(apply(&mut cluster, &remove), Applied::Nothing);
    for command in [drain, Command::UndrainNode { node }, replace(4, 7)] {
        assert_eq!(refused(&mut cluster, &command), CommandRefusal::NotActive { node, state });
    }
    assert_eq!(refused(&mut cluster, &add(4)), CommandRefusal::NodeUsed { node, state });
    let unknown = Command::RemoveNode { node: NodeId(9) };
    assert_eq!(refused(&mut cluster, &unknown), CommandRefusal::NoMember { node: NodeId(9) });
}

#[test]
fn a_node_with_another_store_has_lost_its_replicas_and_may_get_new_ones_of_the_same_shards() {
    let mut cluster = placed();
    let node = NodeId(3);
    let before = cluster.clone();
    let old: BTreeSet<ReplicaId> = cluster.holds(node, store(3)).into_values().map(Duty::replica).collect();
    assert_eq!(old.len(), 5, "four shards and the metadata group");
    assert_eq!(apply(&mut cluster, &replace(3, 777)), Applied::StoreReplaced { node, lost: 5 });
    assert_eq!(cluster.lost(), &old);
    assert!(cluster.shards().epoch > before.shards().epoch, "what was planned before is outdated");
    assert_eq!(apply(&mut cluster, &replace(3, 777)), Applied::Nothing, "said again");
    assert_eq!(cluster.holds(node, store(3)), BTreeMap::new(), "the old folder runs nothing");
    let observer = Duty::Observer(cluster.replica_ids().highest());
    assert_eq!(cluster.holds(node, StoreId(777)), BTreeMap::from([(METADATA, observer)]));
    assert!(cluster.homes(ShardId(0)).values().all(|home| *home != node), "there is nobody to send to");
    for shard in [0, u32::MAX] {
        let under_way = begun(&mut cluster, shard, Some(3), Some(3));
        let (come, gone) = (under_way.add.unwrap(), under_way.remove.unwrap());
        assert!(!old.contains(&come.replica) && old.contains(&gone.replica));
        assert_eq!(cluster.holds(node, StoreId(777))[&ShardId(shard)], Duty::Joining(come.replica));
        ended(&mut cluster, under_way.id);
        assert_eq!(cluster.holds(node, StoreId(777))[&ShardId(shard)], Duty::Voter(come.replica));
        assert!(!cluster.lost().contains(&gone.replica), "it has no seat any more");
    }
    assert_eq!(cluster.wanted(METADATA).unwrap().learners, BTreeSet::new());
    let taken = CommandRefusal::StoreUsed { store: store(2), node: NodeId(2) };
    let stolen = Command::ReplaceStore { node, store: store(2) };
    assert_eq!(refused(&mut cluster, &stolen), taken);
}

#[test]
fn a_store_that_is_lost_while_a_replica_joins_takes_that_replica_with_it() {
    for shard in [0, u32::MAX] {
        let mut cluster = placed_on(3, 3);
        apply(&mut cluster, &add(4));
        let under_way = begun(&mut cluster, shard, Some(4), Some(1));
        let come = under_way.add.unwrap().replica;
        assert_eq!(apply(&mut cluster, &replace(4, 777)), Applied::StoreReplaced { node: NodeId(4), lost: 1 });
        let observer = Duty::Observer(cluster.replica_ids().highest());
        assert_eq!(cluster.holds(NodeId(4), StoreId(777)), BTreeMap::from([(METADATA, observer)]));
        let mut ended_anyway = cluster.clone();
        ended(&mut ended_anyway, under_way.id);
        assert_eq!(ended_anyway.lost(), &BTreeSet::from([come]), "the group had taken it in already");
        assert_eq!(ended_anyway.holds(NodeId(4), StoreId(777)), BTreeMap::from([(METADATA, observer)]));
        apply(&mut cluster, &Command::CancelMove { id: under_way.id });
        assert_eq!(cluster.lost(), &BTreeSet::new());
    }
}

#[test]
fn the_number_of_copies_is_one_three_or_five_and_no_more_than_nodes() {
    let mut cluster = placed();
    assert_eq!(cluster.copies(), 3);
    assert_eq!(apply(&mut cluster, &Command::SetReplication { copies: 1 }), Applied::ReplicationSet { copies: 1 });
    assert_eq!(apply(&mut cluster, &Command::SetReplication { copies: 1 }), Applied::Nothing);
    for copies in [0, 2, 4, 7] {
        assert_eq!(refused(&mut cluster, &Command::SetReplication { copies }), CommandRefusal::Copies { copies });
    }
    let too_few = CommandRefusal::TooFewNodes { copies: 5, nodes: 3 };
    assert_eq!(refused(&mut cluster, &Command::SetReplication { copies: 5 }), too_few);
}

#[test]
fn a_cluster_whose_numbers_are_spent_refuses_what_would_take_another() {
    let mut cluster = placed_on(4, 3);
    cluster.replica_ids = ReplicaIds::after(ReplicaId(u64::MAX));
    let commands = [begin(&cluster, 0, Some(4), Some(1)), add(9), replace(3, 777)];
    for command in commands {
        assert_eq!(refused(&mut cluster, &command), CommandRefusal::NumbersSpent);
    }
}

#[test]
fn everything_there_can_be_comes_back_from_a_snapshot() {
    let cluster = busy();
    assert!(cluster.moves().len() == 3 && cluster.moves().values().any(|under_way| under_way.also.is_some()));
    assert!(!cluster.lost().is_empty() && !cluster.draining().is_empty());
    assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
}
