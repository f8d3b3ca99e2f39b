//! What a frozen process sees, and what one that is not frozen still sees: each in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::process::Command;

/// The facts that the probe prints, by name.
fn probe(arguments: &[&str]) -> BTreeMap<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond-shim-probe")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let facts = text.lines().map(|line| line.split_once(' ').unwrap());
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn two_frozen_processes_see_the_same() {
    let first = probe(&["frozen", "7"]);
    assert_eq!(first, probe(&["frozen", "7"]));
    assert_eq!(first["effect"], "true");
}

#[test]
fn another_seed_orders_hash_maps_otherwise() {
    let (seven, eight) = (probe(&["frozen", "7"]), probe(&["frozen", "8"]));
    assert_ne!(seven["order"], eight["order"]);
    assert_ne!(seven["elsewhere"], eight["elsewhere"], "the keys of a thread that is started later");
}

#[test]
fn frozen_clocks_move_only_when_they_are_set_and_the_processors_clock_runs_on() {
    let facts = probe(&["frozen", "7"]);
    assert_eq!(facts["elapsed"], "0");
    assert_eq!(facts["wall"], "1767225600000000000");
    assert_eq!(facts["set"], "5 1767225600000000005");
    assert_eq!(facts["processor"], "true");
}

#[test]
fn calls_after_the_freeze_are_counted() {
    let facts = probe(&["frozen", "7"]);
    // Two threads drew keys; `began`, two readings of it and two of the wall clock.
    assert_eq!(facts["calls"], "Calls { random: 2, clock: 5 }");
}

#[test]
fn who_looks_the_function_up_by_name_finds_this_one() {
    assert_eq!(probe(&["frozen", "7"])["named"], "true");
}

#[test]
fn a_process_that_is_not_frozen_sees_the_machine() {
    let facts = probe(&["free"]);
    assert_eq!(facts["effect"], "false");
    assert_eq!(facts["calls"], "Calls { random: 0, clock: 0 }");
    assert_ne!(facts["elapsed"], "0");
    assert!(facts["wall"].parse::<u128>().unwrap() > 1_600_000_000_000_000_000);
    assert_ne!(facts["order"], probe(&["free"])["order"], "64 keys in the same order twice");
}

#[test]
fn nothing_but_the_simulations_links_it() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
    let who_needs = |name: &str| -> Vec<String> {
        let packages = lock.split("[[package]]").filter(|package| package.contains(&format!("\n \"{name}\",")));
        let named = packages.map(|package| package.split('"').nth(1).unwrap().to_owned());
        named.collect()
    };
    assert_eq!(who_needs("millpond-shim"), ["millpond-simulations"]);
    assert!(who_needs("millpond-simulations").is_empty());
    assert!(who_needs("millpond").contains(&"millpond-actors".to_owned()), "the lock file reads otherwise");
}
