use super::*;
use crate::id::{Index, ReplicaId};
use crate::limits;

fn store(node: u64) -> StoreId {
    StoreId(u128::from(node) * 1000)
}

fn print(hash: u64, nodes: u64) -> Fingerprint {
    let of = |key: &str, hash| BTreeMap::from([(key.to_owned(), hash)]);
    Fingerprint { lasting: of("name", hash), founding: of("nodes", nodes) }
}

fn formation(node: u64, nodes: u64) -> Formation {
    let initial = (1..=nodes).map(NodeId).collect();
    let settings = Settings { node: NodeId(node), initial, fingerprint: print(7, nodes) };
    Formation::new(settings, Identity { store: store(node), node: NodeId(node), belongs: None })
}

fn formed(nodes: u64) -> Formed {
    Formed::of((1..=nodes).map(|node| (NodeId(node), store(node))).collect())
}

fn founded(formed: Formed) -> Belonging {
    Belonging { formed, joined: None }
}

fn member(node: u64) -> Formation {
    let mut member = formation(node, 3);
    member.recorded(founded(formed(3)));
    member
}

/// The roll of a cluster of three after some entry, changed.
fn roll<R>(applied: u64, change: impl FnOnce(&mut BTreeMap<NodeId, Enrolled>) -> R) -> Roll {
    let mut nodes = founded(formed(3)).roll().nodes;
    change(&mut nodes);
    Roll { applied: Index(applied), nodes }
}

fn knowing(node: u64, roll: &Roll) -> Formation {
    let mut member = member(node);
    member.learned(roll.clone());
    member
}

fn hello(formation: &Formation) -> Hello {
    formation.hello(Boot(1))
}

#[test]
fn three_blank_nodes_form_one_cluster_when_all_are_there() {
    let mut nodes: Vec<_> = (1..=3).map(|node| formation(node, 3)).collect();
    let hellos: Vec<_> = nodes.iter().map(hello).collect();
    nodes[0].met(hellos[1].clone()).unwrap();
    assert_eq!(nodes[0].decide(), Decision::Waiting { missing: vec![NodeId(3)], refused: vec![] });
    nodes[0].met(hellos[2].clone()).unwrap();
    nodes[1].met(hellos[0].clone()).unwrap();
    nodes[1].met(hellos[2].clone()).unwrap();
    assert_eq!(nodes[0].decide(), Decision::Form(founded(formed(3))));
    assert_eq!(nodes[1].decide(), Decision::Form(founded(formed(3))));
}

#[test]
fn a_node_that_left_before_the_formation_is_waited_for() {
    let mut one = formation(1, 3);
    one.met(hello(&formation(2, 3))).unwrap();
    one.met(hello(&formation(3, 3))).unwrap();
    one.parted(NodeId(2));
    assert_eq!(one.decide(), Decision::Waiting { missing: vec![NodeId(2)], refused: vec![] });
}

#[test]
fn a_single_node_forms_at_once() {
    assert_eq!(formation(1, 1).decide(), Decision::Form(founded(formed(1))));
}

#[test]
fn a_recorded_formation_is_resumed_without_anybody() {
    assert_eq!(member(1).decide(), Decision::Resume(founded(formed(3))));
}

#[test]
fn a_node_that_missed_the_moment_joins_the_recorded_formation() {
    let mut late = formation(3, 3);
    late.met(hello(&member(1))).unwrap();
    assert_eq!(late.decide(), Decision::Form(founded(formed(3))));
    member(1).judge(&hello(&late)).unwrap();
}

#[test]
fn a_wiped_folder_stays_outside_even_if_it_meets_only_one_of_its_cluster() {
    let mut wiped = formation(3, 3);
    wiped.identity.store = StoreId(5);
    let cluster = formed(3).cluster;
    let refusal = HelloRefusal::WithoutUs { node: NodeId(1), cluster };
    assert_eq!(wiped.met(hello(&member(1))), Err(refusal));
    let outside = Outside { node: NodeId(3), store: StoreId(5), cluster, recorded: Some(store(3)) };
    assert_eq!(wiped.decide(), Decision::Outside(outside));
    let other_store = HelloRefusal::OtherStore { node: NodeId(3), cluster, recorded: store(3), theirs: StoreId(5) };
    assert_eq!(member(1).judge(&hello(&wiped)), Err(other_store));
}

#[test]
fn a_wiped_folder_does_not_vote_beside_other_wiped_ones() {
    let mut wiped = formation(3, 3);
    wiped.identity.store = StoreId(5);
    wiped.met(hello(&formation(2, 3))).unwrap();
    assert!(wiped.met(hello(&member(1))).is_err());
    assert!(matches!(wiped.decide(), Decision::Outside(_)));
}

#[test]
fn a_wiped_folder_is_let_in_as_another_replica_once_its_store_is_on_the_roll() {
    let mut wiped = formation(3, 3);
    wiped.identity.store = StoreId(5);
    let replaced = roll(9, |nodes| {
        nodes.insert(NodeId(3), Enrolled { store: StoreId(5), replica: ReplicaId(70), address: String::new() })
    });
    // One that has not heard of it yet keeps nobody outside.
    assert!(wiped.met(hello(&member(1))).is_err());
    wiped.met(hello(&knowing(2, &replaced))).unwrap();
    let belonging = Belonging { formed: formed(3), joined: Some(replaced.clone()) };
    assert_eq!(wiped.decide(), Decision::Form(belonging.clone()));
    wiped.recorded(belonging.clone());
    assert_eq!(wiped.decide(), Decision::Resume(belonging.clone()));
    let group = belonging.metadata_group();
    assert!(group.voters.is_empty() && group.learners.is_empty(), "it knows no members but what its log says");
    assert_eq!(group.replicas[&NodeId(3)], ReplicaId(70));
    // It shows what it knows, so that also the one that lags talks to it.
    let mut lagging = member(1);
    lagging.met(hello(&wiped)).unwrap();
    assert_eq!(lagging.roll(), Some(&replaced));
    let old_folder = lagging.judge(&hello(&member(3)));
    assert!(matches!(old_folder, Err(HelloRefusal::OtherStore { theirs, .. }) if theirs == store(3)));
}

#[test]
fn a_new_node_joins_once_it_is_on_the_roll_although_its_file_lists_one_more() {
    let mut fourth = formation(4, 4);
    assert!(fourth.met(hello(&member(1))).is_err());
    let outside = Outside { node: NodeId(4), store: store(4), cluster: formed(3).cluster, recorded: None };
    assert_eq!(fourth.decide(), Decision::Outside(outside));
    assert_eq!(member(1).judge(&hello(&fourth)), Err(HelloRefusal::UnknownNode { node: NodeId(4) }));
    let added = roll(9, |nodes| {
        nodes.insert(NodeId(4), Enrolled { store: store(4), replica: ReplicaId(70), address: String::new() })
    });
    knowing(1, &added).judge(&hello(&fourth)).unwrap();
    fourth.met(hello(&knowing(1, &added))).unwrap();
    let Decision::Form(belonging) = fourth.decide() else { panic!("it is on the roll") };
    assert_eq!(belonging.metadata_group().replicas[&NodeId(4)], ReplicaId(70));
    fourth.recorded(belonging);
    // Its own replica begins with entries from before it was added.
    fourth.learned(roll(3, |_| ()));
    assert!(matches!(fourth.decide(), Decision::Resume(_)));
    knowing(1, &added).judge(&hello(&fourth)).unwrap();
}

#[test]
fn a_node_that_is_not_among_the_initial_ones_forms_nothing() {
    let mut fourth = formation(4, 3);
    assert!(matches!(fourth.decide(), Decision::Waiting { .. }));
    for node in 1..=3 {
        let _ = fourth.met(hello(&formation(node, 3)));
    }
    assert_eq!(fourth.decide(), Decision::Waiting { missing: vec![], refused: vec![] });
}

#[test]
fn a_node_that_was_removed_is_refused_and_told_so() {
    let removed = roll(9, |nodes| nodes.remove(&NodeId(3)));
    let mut third = member(3);
    assert_eq!(knowing(1, &removed).judge(&hello(&third)), Err(HelloRefusal::UnknownNode { node: NodeId(3) }));
    third.met(hello(&knowing(1, &removed))).unwrap();
    assert!(matches!(third.decide(), Decision::Refuse(FormError::NotOurFolder { recorded: None, .. })));
}

#[test]
fn a_node_that_was_away_while_all_others_were_replaced_finds_its_cluster() {
    let all_new = roll(90, |nodes| {
        for node in [1, 2] {
            nodes.remove(&NodeId(node));
            nodes.insert(
                NodeId(node + 10),
                Enrolled { store: store(node + 10), replica: ReplicaId(node + 70), address: String::new() },
            );
        }
    });
    let mut eleventh = formation(11, 3);
    eleventh.recorded(Belonging { formed: formed(3), joined: Some(all_new.clone()) });
    let mut third = member(3);
    third.met(hello(&eleventh)).unwrap();
    eleventh.met(hello(&third)).unwrap();
    assert_eq!(third.judge(&hello(&member(1))), Err(HelloRefusal::UnknownNode { node: NodeId(1) }));
    assert!(matches!(third.decide(), Decision::Resume(_)));
}

#[test]
fn a_hello_that_says_too_much_is_refused() {
    let mut swollen = hello(&member(2));
    let nodes = (1..=65)
        .map(|node| (NodeId(node), Enrolled { store: store(node), replica: ReplicaId(node), address: String::new() }));
    swollen.claim.as_mut().unwrap().roll = Roll { applied: Index(9), nodes: nodes.collect() };
    let mut one = member(1);
    assert_eq!(one.met(swollen), Err(HelloRefusal::Excessive { node: NodeId(2) }));
    assert_eq!(one.roll().unwrap().applied, Index(0), "and not believed");
    let mut far = hello(&member(2));
    let nodes = &mut far.claim.as_mut().unwrap().roll.nodes;
    nodes.get_mut(&NodeId(3)).unwrap().address = "a".repeat(limits::ADDRESS_BYTES_MAX + 1);
    assert_eq!(one.met(far), Err(HelloRefusal::Excessive { node: NodeId(2) }));
    let mut wordy = hello(&member(2));
    wordy.fingerprint.lasting.insert("k".repeat(limits::FINGERPRINT_KEY_BYTES_MAX + 1), 1);
    assert_eq!(member(1).judge(&wordy), Err(HelloRefusal::Excessive { node: NodeId(2) }));
}

#[test]
fn a_copied_or_renamed_folder_is_refused() {
    let mut renamed = formation(2, 3);
    renamed.identity = member(1).identity;
    let why = FormError::OtherNode { folder: NodeId(1), configured: NodeId(2) };
    assert_eq!(renamed.decide(), Decision::Refuse(why));
    let mut changed = member(2);
    changed.identity.store = StoreId(5);
    assert!(matches!(changed.decide(), Decision::Refuse(FormError::FolderChanged { .. })));
}

#[test]
fn two_processes_with_one_id_are_refused() {
    let mut one = formation(1, 3);
    let mut twin = hello(&one);
    twin.store = StoreId(5);
    assert_eq!(one.met(twin), Err(HelloRefusal::SameNode { node: NodeId(1) }));
    assert_eq!(one.decide(), Decision::Refuse(FormError::SameNode { node: NodeId(1) }));
}

#[test]
fn blank_nodes_with_other_settings_wait_and_say_which_key_differs() {
    for (theirs, key) in [(print(8, 2), "name"), (print(7, 3), "nodes"), (Fingerprint::default(), "name")] {
        let mut one = formation(1, 2);
        let mut other = hello(&formation(2, 2));
        other.fingerprint = theirs;
        let why = one.met(other).unwrap_err();
        assert_eq!(why, HelloRefusal::Setting { node: NodeId(2), key: key.to_owned() });
        assert!(why.to_string().contains(&format!("`{key}`")), "{why}");
        assert_eq!(one.decide(), Decision::Waiting { missing: vec![], refused: vec![(NodeId(2), why)] });
    }
}

#[test]
fn a_blank_node_with_other_settings_than_its_cluster_exits() {
    let mut one = formation(1, 3);
    one.settings.fingerprint = print(8, 3);
    assert!(one.met(hello(&member(2))).is_err());
    let Decision::Refuse(why) = one.decide() else { panic!("it takes part") };
    let expected = FormError::OtherSettings { peer: NodeId(2), cluster: formed(3).cluster, key: "name".to_owned() };
    assert_eq!(why, expected);
}

#[test]
fn the_list_of_nodes_may_differ_once_the_cluster_is_formed() {
    let mut longer = hello(&member(2));
    longer.fingerprint = print(7, 4);
    member(1).judge(&longer).unwrap();
    longer.fingerprint = print(8, 4);
    let why = HelloRefusal::Setting { node: NodeId(2), key: "name".to_owned() };
    assert_eq!(member(1).judge(&longer), Err(why));
}

#[test]
fn another_cluster_is_refused_on_both_sides() {
    let mut stores = formed(3).stores;
    stores.insert(NodeId(1), StoreId(5));
    let mut stranger = formation(2, 3);
    stranger.recorded(founded(Formed::of(stores)));
    assert!(matches!(member(1).judge(&hello(&stranger)), Err(HelloRefusal::OtherCluster { .. })));
    assert!(matches!(stranger.judge(&hello(&member(1))), Err(HelloRefusal::OtherCluster { .. })));
}

#[test]
fn two_clusters_in_reach_of_a_blank_node_are_refused() {
    let mut stores = formed(3).stores;
    stores.insert(NodeId(1), StoreId(5));
    let mut stranger = formation(2, 3);
    stranger.recorded(founded(Formed::of(stores)));
    let mut blank = formation(3, 3);
    blank.met(hello(&member(1))).unwrap();
    blank.met(hello(&stranger)).unwrap();
    assert!(matches!(blank.decide(), Decision::Refuse(FormError::TwoClusters { .. })));
}

#[test]
fn strangers_and_liars_are_refused() {
    let unknown = hello(&formation(9, 9));
    assert_eq!(member(1).judge(&unknown), Err(HelloRefusal::UnknownNode { node: NodeId(9) }));
    assert!(matches!(formation(1, 3).judge(&unknown), Err(HelloRefusal::UnknownNode { .. })));
    let mut liar = hello(&member(2));
    liar.claim.as_mut().unwrap().formed.cluster = ClusterId(1);
    assert!(matches!(member(1).judge(&liar), Err(HelloRefusal::Inconsistent { .. })));
}

#[test]
fn an_older_life_does_not_replace_a_newer_one() {
    let mut one = formation(1, 2);
    one.met(formation(2, 2).hello(Boot(5))).unwrap();
    let mut older = formation(2, 2);
    older.identity.store = StoreId(5);
    one.met(older.hello(Boot(4))).unwrap();
    assert_eq!(one.decide(), Decision::Form(founded(formed(2))));
}

#[test]
fn five_vote_and_the_others_learn() {
    let group = formed(7).metadata_group();
    assert_eq!(group.voters, (1..=5).map(ReplicaId).collect::<Vec<_>>());
    assert_eq!(group.learners, [ReplicaId(6), ReplicaId(7)]);
    assert_eq!(group.replicas[&NodeId(7)], ReplicaId(7));
}
