//! Plans that once broke a promise, and the story of each. They must hold for ever.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

/// Plays a plan of `simulations/plans` in a process of its own.
#[track_caller]
fn holds(plan: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans").join(plan);
    let output = Command::new(env!("CARGO_BIN_EXE_millpond-simulations")).arg("replay").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", path.display());
}

/// Seed 7, the first that ever failed: thirty seconds after the last fault a client still waited for its tail to open.
/// The answer of a shard was longer than a frame, its frames overtook each other, and the link threw the message away
/// without a word to whoever waited: the call stood until its deadline, a minute later. A connection that is replaced
/// before its peer is suspected loses frames in the same way. Now both ends count what never came, tell each other with
/// the next heartbeat, and calls under way fail at once, to be made again. The plan is shrunk from seed 53, which finds
/// the same bug planted again: one short cut on a link that stays up.
#[test]
fn a_lost_answer_does_not_hold_up_its_caller_until_the_deadline() {
    holds("lost-answer.json");
}

/// Seed 682: a tail was opened, and its node answered no query for a minute. The history of a tail is read from several
/// shards at once; a part that was cut at its bound is continued before the next is looked at. Meanwhile nobody polled
/// the other readings, and one of them had just been given the only turn on a worker thread, for which the
/// continuation waited. Now each shard is read by a task of its own.
#[test]
fn a_reading_that_nobody_polls_holds_no_turn() {
    holds("starved-turn.json");
}

/// Seed 419: a client waited for its tail to open until the run ended. One request had been lost, and nobody was told:
/// frames that a link had counted as lost came after all, each was taken off the count of all that was ever lost, and
/// the next real loss only made that count what it had been before. Now each interval between heartbeats is judged once.
#[test]
fn frames_that_come_late_do_not_hide_a_loss() {
    holds("late-frame.json");
}
