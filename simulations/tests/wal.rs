//! A few seeds of the log's simulation, small enough for every run of the tests.

use millpond_simulations::wal;

#[test]
fn the_log_keeps_what_was_flushed_through_crashes_and_flips() {
    let mut total = wal::Summary::default();
    for seed in 0..50 {
        total += wal::run(seed, wal::STEPS).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
    let seen = [total.crashes, total.crashes_in_recovery, total.cuts, total.syncs_failed, total.refused, total.full];
    assert!(seen.iter().all(|count| *count > 0) && total.recycled > 0, "the faults did not all happen: {total:?}");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    assert_eq!(wal::run(7, wal::STEPS).unwrap(), wal::run(7, wal::STEPS).unwrap());
}
