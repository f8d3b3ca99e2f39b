//! A few hundred queries against the naive evaluator, small enough for every run of the tests.

use millpond_simulations::naive::check::{self, Report};

#[test]
fn the_engine_answers_as_the_naive_evaluator() {
    let mut total = Report::default();
    for seed in 0..15 {
        total += check::run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
    let shown: Vec<String> = total.differences.iter().take(3).map(|one| format!("{one:#?}")).collect();
    assert!(shown.is_empty(), "{} of {}: {}", total.differences.len(), total.queries, shown.join("\n"));
    assert!(total.found * 2 > total.queries, "too few answers hold anything: {total:?}");
}

#[test]
fn a_seed_asks_the_same_again() {
    assert_eq!(check::run(7).unwrap().constructs, check::run(7).unwrap().constructs);
}
