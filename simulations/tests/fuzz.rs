//! A few inputs of every target, small enough for every run of the tests. How long they take is not looked at here.

use std::collections::BTreeMap;
use std::thread;

use millpond_simulations::fuzz::{Fuzzer, THREAD, Target, Tried};

/// What became of the first inputs of a target, in a thread with the stack of a node's.
fn tried(target: Target, inputs: u64) -> Vec<Tried> {
    let run = move || {
        let mut fuzzer = Fuzzer::new(target, Vec::new());
        let one = |number| {
            let found = |finding| panic!("{} input {number}: {finding:#?}", target.name());
            fuzzer.run(number).unwrap_or_else(found)
        };
        (0..inputs).map(one).collect()
    };
    let fuzzing = thread::Builder::new().name(THREAD.to_owned()).stack_size(8 << 20).spawn(run).expect("a thread");
    fuzzing.join().unwrap_or_else(|said| panic!("{}", said.downcast_ref::<String>().map_or("no words", String::as_str)))
}

/// Runs the first inputs, of which so many in a hundred must be taken, and some of every kind.
fn holds(target: Target, inputs: u64, percent: usize, kinds: usize) {
    let tried = tried(target, inputs);
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &tried {
        *taken.entry(one.kind).or_default() += usize::from(one.taken);
    }
    let total: usize = taken.values().sum();
    assert!(total * 100 >= tried.len() * percent, "only {total} of {} inputs are taken: {taken:?}", tried.len());
    let of_kinds = taken.values().filter(|count| **count > 0).count();
    assert!(of_kinds >= kinds, "inputs of only {of_kinds} kinds are taken: {taken:?}");
}

#[test]
fn texts_print_and_parse_to_the_same_and_errors_point_into_them() {
    holds(Target::Parser, 1_500, 20, 4);
}

#[test]
fn hostile_records_have_one_answer_however_they_are_stored() {
    holds(Target::Evaluator, 300, 30, 6);
}

#[test]
fn bodies_of_pushes_are_stored_as_they_were_or_refused() {
    holds(Target::Push, 1_500, 10, 5);
}

#[test]
fn parameters_become_questions_that_travel_or_are_refused() {
    holds(Target::Params, 400, 20, 4);
}

#[test]
fn what_nodes_send_each_other_is_read_as_it_was_written_or_refused() {
    holds(Target::Frames, 800, 10, 12);
}

#[test]
fn damaged_files_are_refused_or_read_as_they_were_written() {
    holds(Target::Disk, 800, 10, 10);
}

#[test]
fn an_input_is_the_same_in_every_run() {
    for target in Target::ALL {
        assert_eq!(tried(target, 40), tried(target, 40), "{}", target.name());
    }
}
