//! The binary from end to end: runs that hold, one that must fail, and what is found about it.
//!
//! What must fail is a plan that loses two of three nodes: nothing can be promised then, and a simulation that sees
//! nothing wrong with it is blind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use millpond_simulations::case::{Case, Fault, Knobs, Membership, Timed};
use millpond_simulations::draw;

fn simulations(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-simulations")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32) -> String {
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}\n{errors}");
    said
}

/// A plan that loses most nodes, among faults that do not matter.
fn doomed() -> Case {
    let mut case = draw::draw(1, 3);
    let faults = [
        (6_500, Fault::ClockJump { node: 3, by_ms: 5 }),
        (7_000, Fault::Lose { node: 1, heedless: true }),
        (7_500, Fault::SlowDisk { node: 3, factor: 2, for_ms: 200 }),
        (8_000, Fault::Lose { node: 2, heedless: true }),
    ];
    case.faults = faults.into_iter().map(|(at_ms, fault)| Timed { at_ms, fault }).collect();
    case.busy_ms = 9_000;
    case.operations.clear();
    case.membership = Membership::default();
    // Little load, so that it is soon over.
    case.knobs = Knobs { shards: 1, clients: 1, streams: 1, request_bytes: 100, pause_ms: 200, ..case.knobs };
    case
}

fn write(folder: &Path, case: &Case) -> PathBuf {
    let path = folder.join("plan.json");
    fs::write(&path, serde_json::to_string(case).unwrap()).unwrap();
    path
}

#[test]
fn a_sweep_of_a_few_seeds_holds_and_says_what_it_saw() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let said = expect(&simulations(&["sweep", "--seeds", "0..2", "--jobs", "2", "--out", out]), 0);
    assert!(
        said.starts_with("seeds      2 of 0..2, 3 nodes\noutcome    2 held, 0 broke a promise, 0 died, 0 hung\n"),
        "{said}"
    );
    assert!(said.contains("\nseen       ") && said.contains("\nprocessor  "), "{said}");
    assert!(folder.path().read_dir().unwrap().next().is_none(), "a plan was left though none failed");
}

#[test]
fn a_seed_does_the_same_in_two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let said = expect(&simulations(&["meta", "--seeds", "8", "--out", folder.path().to_str().unwrap()]), 0);
    assert!(said.starts_with("1 seeds did the same twice, 0 did not"), "{said}");
    assert!(folder.path().read_dir().unwrap().next().is_none(), "traces that are alike are removed");
}

#[test]
fn a_process_that_hangs_is_killed_and_one_that_dies_is_told_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    // Nobody reads from the pipe that the trace goes to, so the child waits for ever before it begins.
    let made = Command::new("mkfifo").arg(folder.path().join("seed-8-nodes-3-first.trace")).status().unwrap();
    assert!(made.success());
    let said = expect(&simulations(&["meta", "--seeds", "8", "--out", out, "--patience", "1"]), 1);
    assert!(said.contains("violation  the process had no report after 1 s and was killed\n"), "{said}");

    fs::create_dir(folder.path().join("seed-0-nodes-3-second.trace")).unwrap();
    let said = expect(&simulations(&["meta", "--seeds", "0", "--out", out]), 1);
    assert!(said.contains("violation  the process ended without a report: exit status: 1\n"), "{said}");
    assert!(said.contains("seed-0-nodes-3-second.trace: Is a directory"), "{said}");
}

#[test]
fn a_run_is_told_in_words_and_in_json_and_both_are_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let said = expect(&simulations(&["run", "--seed", "8", "--trace", trace.to_str().unwrap()]), 0);
    let json = expect(&simulations(&["run", "--seed", "8", "--json"]), 0);
    let outcome: serde_json::Value = serde_json::from_str(&json).unwrap();
    let digest = outcome["report"]["digest"].as_u64().unwrap();
    assert!(said.starts_with("held       seed 8 with 3 nodes: "), "{said}");
    assert!(said.contains(&format!("digest {digest:016x}\n")), "{said}\n{json}");
    assert_eq!(serde_json::from_value::<Case>(outcome["case"].clone()).unwrap(), draw::draw(8, 3));
    let lines = fs::read_to_string(trace).unwrap().lines().count() as u64;
    assert_eq!(outcome["report"]["lines"].as_u64(), Some(lines));
}

#[test]
fn a_failure_shows_everything_that_is_needed_to_see_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let plan = write(folder.path(), &doomed());
    let said = expect(&simulations(&["replay", plan.to_str().unwrap()]), 1);
    for part in [
        "failed     seed 1 with 3 nodes\n",
        "\ncommit     ",
        "\nknobs      {\"shards\":",
        "\nviolation  ",
        "\ntrace      the last ",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert!(said.contains("\nfault      at 7000 ms {\"lose\":{\"node\":1,\"heedless\":true}}\n"), "{said}");
    assert!(said.ends_with(&format!("replay {}\n", plan.display())), "{said}");
}

#[test]
fn of_a_plan_that_fails_the_faults_that_matter_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, out) = (write(folder.path(), &doomed()), folder.path().join("shrunk/plan.json"));
    let arguments = ["shrink", plan.to_str().unwrap(), "--out", out.to_str().unwrap(), "--attempts", "30"];
    let said = expect(&simulations(&arguments), 0);
    let shrunk: Case = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let lost: Vec<&Fault> = shrunk.faults.iter().map(|timed| &timed.fault).collect();
    assert_eq!(lost, [&Fault::Lose { node: 1, heedless: true }, &Fault::Lose { node: 2, heedless: true }], "{said}");
    assert!(said.contains("4 faults to 2 in "), "{said}");
    expect(&simulations(&["replay", out.to_str().unwrap()]), 1);
}

#[test]
fn a_plan_that_holds_is_not_shrunk() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = doomed();
    case.faults.clear();
    let plan = write(folder.path(), &case);
    let output = simulations(&["shrink", plan.to_str().unwrap()]);
    expect(&output, 1);
    assert!(text(&output.stderr).contains("nothing to shrink"));
}

#[test]
fn what_is_no_plan_and_what_is_no_command_line_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    fs::write(&path, "{\"seed\":1}").unwrap();
    let output = simulations(&["replay", path.to_str().unwrap()]);
    expect(&output, 1);
    assert!(text(&output.stderr).contains("plan.json is not a plan: missing field"), "{output:?}");
    for wrong in [&["run"][..], &["sweep", "--seeds", "9..3"], &["shrink"], &["run", "--seed", "1", "--nodes", "0"]] {
        expect(&simulations(wrong), 2);
    }
}

#[cfg(not(feature = "mutants"))]
#[test]
fn a_build_without_mutants_plants_none() {
    for arguments in [&["mutants"][..], &["run", "--seed", "1", "--mutant", "any"]] {
        let output = simulations(arguments);
        expect(&output, 1);
        assert!(text(&output.stderr).contains("--features mutants"), "{output:?}");
    }
}
