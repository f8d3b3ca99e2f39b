use std::collections::{BTreeMap, BTreeSet};

use super::damage::{FORMED_MS, is_bearable, placement};
use super::faults::{is_loss, node_of};
use super::*;
use crate::case::{Fault, Operation, Planned, Timed};

const SEEDS: u64 = 2_000;

fn cases() -> impl Iterator<Item = Case> {
    [3, 5].into_iter().flat_map(|nodes| (0..SEEDS).map(move |seed| draw(seed, nodes)))
}

/// Cases in which no node comes, and replicas stay where they are.
fn quiet() -> impl Iterator<Item = Case> {
    cases().filter(|case| case.membership.spares == 0)
}

/// The name of the kind of a fault or an operation, as it is written in a plan.
fn kind(of: &impl serde::Serialize) -> String {
    let written = serde_json::to_value(of).unwrap();
    written.as_object().unwrap().keys().next().unwrap().clone()
}

#[test]
fn the_same_seed_draws_the_same_case() {
    for (seed, nodes) in [(0, 3), (1, 3), (77, 5), (u64::MAX, 3)] {
        assert_eq!(draw(seed, nodes), draw(seed, nodes));
    }
    assert_ne!(draw(1, 3).knobs, draw(2, 3).knobs);
    assert_ne!(stream(1, "network").draw(), stream(1, "workload").draw());
}

#[test]
fn a_case_survives_being_written_and_read() {
    for case in cases().step_by(37) {
        let text = serde_json::to_string_pretty(&case).unwrap();
        assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
    }
}

#[test]
fn every_kind_of_fault_occurs_often_and_most_plans_are_of_a_few_kinds() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let (mut none, mut damaged) = (0, 0);
    for case in cases() {
        let kinds: BTreeSet<String> = case.faults.iter().map(|timed| kind(&timed.fault)).collect();
        none += u64::from(kinds.is_empty());
        damaged += u64::from(case.faults.iter().any(|timed| is_loss(&timed.fault)));
        assert!(case.faults.len() < 150, "seed {}: {} faults", case.seed, case.faults.len());
        kinds.into_iter().for_each(|kind| *seen.entry(kind).or_default() += 1);
    }
    assert_eq!(seen.len(), 16, "{seen:?}");
    assert!(seen.values().all(|plans| (100..2 * SEEDS).contains(plans)), "{seen:?}");
    assert!(none > 20 && damaged < 2 * SEEDS * 2 / 3, "{none} without faults, {damaged} with a node lost or wiped");
}

#[test]
fn a_plan_is_sorted_and_names_what_exists() {
    for case in cases() {
        let Case { seed, ref faults, ref operations, .. } = case;
        let nodes = case.nodes + case.membership.spares;
        assert!(operations.is_sorted_by_key(|planned| planned.at_ms), "seed {seed}");
        assert!(faults.is_sorted_by_key(|timed| timed.at_ms), "seed {seed}");
        for Timed { at_ms, fault } in faults {
            assert!(*at_ms < case.busy_ms, "seed {seed}: {fault:?} at {at_ms}");
            assert!(node_of(fault).is_none_or(|node| (1..=nodes).contains(&node)), "seed {seed}: {fault:?}");
            if let Fault::Cut { from, to, .. } = fault {
                assert!(from != to && *from <= nodes && *to <= nodes && *to > 0, "seed {seed}: {fault:?}");
            } else if let Fault::Partition { side, .. } = fault {
                assert!(!side.is_empty() && side.len() < nodes as usize, "seed {seed}: {fault:?}");
            } else if let Fault::Panic { node, actor, .. } = fault {
                assert!(!actor.ends_with(&format!("peer-link-{node}")), "seed {seed}: {fault:?}");
            }
        }
    }
}

#[test]
fn what_lasts_ends_with_the_time_in_which_clients_write() {
    for case in cases() {
        for Timed { at_ms, fault } in &case.faults {
            let written = serde_json::to_value(fault).unwrap();
            let fields = written.as_object().unwrap().values().next().unwrap();
            let lasts = ["down_ms", "for_ms"].iter().find_map(|name| fields[*name].as_u64()).unwrap_or(0);
            let panics = fields["times"].as_u64().map_or(0, |times| (times - 1) * 1_000);
            assert!(at_ms + lasts + panics <= case.busy_ms, "seed {}: {fault:?} at {at_ms}", case.seed);
        }
    }
}

#[test]
fn damage_never_reaches_the_last_copy() {
    let mut pairs = 0;
    for case in quiet() {
        let map = placement(case.nodes, case.knobs.shards);
        let of = |wanted: &dyn Fn(&Fault) -> bool| -> BTreeSet<u64> {
            case.faults.iter().filter(|timed| wanted(&timed.fault)).filter_map(|timed| node_of(&timed.fault)).collect()
        };
        let gone = of(&is_loss);
        let flipped = of(&|fault| matches!(fault, Fault::FlipBit { .. }));
        let damaged: BTreeSet<u64> = gone.union(&flipped).copied().collect();
        assert!(is_bearable(case.nodes, &map, &damaged), "seed {}: {damaged:?}", case.seed);
        assert!(gone.is_disjoint(&flipped), "seed {}: {damaged:?}", case.seed);
        assert!(case.nodes > 3 || damaged.len() <= 1, "seed {}: {damaged:?}", case.seed);
        pairs += u64::from(damaged.len() == 2);
    }
    assert!(pairs > 10, "two nodes without a common shard were damaged in {pairs} plans");
}

#[test]
fn in_most_seeds_nodes_come_and_go_in_every_way_that_operators_have() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let (mut told, mut losses) = (0, 0);
    for case in cases().filter(|case| case.membership.spares > 0) {
        let (seed, all) = (case.seed, case.nodes + case.membership.spares);
        told += 1;
        losses += case.faults.iter().filter(|timed| is_loss(&timed.fault)).count();
        let added = |node| case.operations.iter().any(|planned| planned.operation == Operation::Add { node });
        assert!((case.nodes + 1..=all).all(added), "seed {seed}: a spare node is never asked for");
        for Planned { at_ms, operation } in &case.operations {
            assert!(*at_ms < case.busy_ms, "seed {seed}: {operation:?} at {at_ms}");
            *seen.entry(kind(operation)).or_default() += 1;
        }
        let flips = case.faults.iter().any(|timed| matches!(timed.fault, Fault::FlipBit { .. }));
        let single = |planned: &Planned| planned.operation == Operation::SetReplication { copies: 1 };
        assert!(!(flips && case.operations.iter().any(single)), "seed {seed}: the damaged copy may be the only one");
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert!(seen.values().all(|times| *times > 100), "{seen:?}");
    assert!(told > SEEDS && losses > 1_000, "{told} seeds with {losses} losses");
    assert!(quiet().all(|case| case.operations.is_empty()));
}

#[test]
fn two_nodes_may_be_damaged_where_they_share_no_shard() {
    // One shard lies on nodes 1, 2 and 3 of five; two lie on these and on 4, 5 and 1.
    let bearable = |shards, damaged: &[u64]| is_bearable(5, &placement(5, shards), &damaged.iter().copied().collect());
    assert!(bearable(1, &[1, 4]) && bearable(1, &[4, 5]) && bearable(2, &[2, 5]));
    assert!(!bearable(1, &[1, 2]) && !bearable(2, &[4, 5]));
    assert!(!bearable(1, &[3, 4, 5]), "most voters of the metadata group");
    assert!(!is_bearable(1, &placement(1, 1), &BTreeSet::from([1])), "the only copy");
}

#[test]
fn nothing_happens_before_the_cluster_has_formed_where_a_node_goes_nor_to_a_node_that_is_lost() {
    let mut seen = 0;
    for case in quiet().filter(|case| case.faults.iter().any(|timed| is_loss(&timed.fault))) {
        seen += 1;
        assert!(case.faults.iter().all(|timed| timed.at_ms >= FORMED_MS), "seed {}", case.seed);
        let lost = case.faults.iter().find_map(|timed| {
            if let Fault::Lose { node, .. } = timed.fault { Some((node, timed.at_ms)) } else { None }
        });
        let Some((lost, at)) = lost else { continue };
        let later = case.faults.iter().filter(|timed| timed.at_ms > at).filter_map(|timed| node_of(&timed.fault));
        assert!(later.into_iter().all(|node| node != lost), "seed {}", case.seed);
    }
    assert!(seen > 100);
}

#[test]
fn one_clock_at_most_jumps_far_and_all_others_stay_within_what_a_node_accepts() {
    let accepted = i64::try_from(millpond::limits::TIMESTAMP_AHEAD_MAX.as_millis()).unwrap();
    let mut far_seen = 0;
    for case in cases() {
        let jumps = case
            .faults
            .iter()
            .filter_map(|timed| if let Fault::ClockJump { by_ms, .. } = timed.fault { Some(by_ms) } else { None });
        let (far, near): (Vec<i64>, Vec<i64>) = jumps.partition(|by_ms| *by_ms >= 3_600_000);
        assert!(far.len() <= 1, "seed {}", case.seed);
        far_seen += far.len();
        let sum: i64 = near.iter().map(|by_ms| by_ms.abs()).sum();
        assert!(sum + i64::try_from(case.knobs.skew_ms).unwrap() < accepted, "seed {}: {near:?}", case.seed);
    }
    assert!(far_seen > 20);
}

#[test]
fn knobs_keep_to_what_the_limits_assert_and_reach_both_ends() {
    let (mut least, mut most) = ((u64::MAX, usize::MAX, u64::MAX), (0, 0, 0));
    for Case { seed, knobs, .. } in cases() {
        assert!(knobs.heartbeat_ticks > 0 && knobs.heartbeat_ticks * 2 < knobs.election_ticks, "seed {seed}");
        assert!(2 * knobs.group_bytes as u64 <= knobs.wal_segment_bytes, "seed {seed}");
        assert!(2 * knobs.entry_bytes as u64 <= knobs.wal_segment_bytes, "seed {seed}");
        assert!(knobs.link_credit_bytes >= 2 * (256 * 1024 + 256), "seed {seed}");
        assert!(knobs.latency_us.0 <= knobs.latency_us.1 && knobs.disk_us.0 <= knobs.disk_us.1, "seed {seed}");
        assert!((1..=4).contains(&knobs.shards) && (1..=4).contains(&knobs.clients), "seed {seed}");
        let rate = u64::from(knobs.clients) * knobs.request_bytes as u64 * 1_000 / knobs.pause_ms;
        assert!(rate <= 1 << 20, "seed {seed}: {rate} bytes a second");
        let these = (knobs.append_bytes_max, knobs.inflight_appends_max, knobs.head_bytes_max);
        least = (least.0.min(these.0), least.1.min(these.1), least.2.min(these.2));
        most = (most.0.max(these.0), most.1.max(these.1), most.2.max(these.2));
    }
    assert_eq!(least, (1 << 10, 1, 4 << 10));
    assert_eq!(most, (512 << 10, 64, 1 << 20));
}

#[test]
fn most_of_a_run_has_a_majority_and_not_all_of_it() {
    let (mut lacking, mut total) = (0, 0);
    for case in cases().filter(|case| case.nodes == 3) {
        let lost = |at: u64| {
            let down = |timed: &&Timed| {
                let (Fault::Crash { down_ms, .. } | Fault::Kill { down_ms, .. }) = timed.fault else { return false };
                (timed.at_ms..timed.at_ms + down_ms).contains(&at)
            };
            let down: BTreeSet<u64> =
                case.faults.iter().filter(down).filter_map(|timed| node_of(&timed.fault)).collect();
            down.len() > 1
        };
        lacking += (0..case.busy_ms).step_by(250).filter(|at| lost(*at)).count();
        total += (0..case.busy_ms).step_by(250).count();
    }
    assert!(lacking * 100 > total && lacking * 5 < total, "{lacking} of {total} moments without a majority");
}

#[test]
fn dice_reach_both_ends_of_a_range_and_never_leave_it() {
    let mut dice = Dice::new(3, "test");
    for (least, most) in [(0, 0), (0, 1), (1, 1), (0, 60), (200, 700), (5, 12), (7, 8)] {
        let drawn: BTreeSet<u64> = (0..50_000).map(|_| dice.scaled(least, most)).collect();
        assert_eq!((drawn.first(), drawn.last()), (Some(&least), Some(&most)), "from {least} to {most}");
    }
    assert_eq!(dice.shuffled(vec![1, 2, 3]).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
}
