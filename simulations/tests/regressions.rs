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

/// Seed 7: a move was never confirmed although its replica had everything. Who answers a leader is forgotten whenever it
/// checks for its quorum, every tenth tick by default, and every tenth tick the replica told of it: where the two met,
/// nobody ever answered. Now who was heard of at that moment is remembered. Later the same seed found a node that could not
/// take a shard back, as `leased-for-nobody.json`.
#[test]
fn who_answers_is_known_also_in_the_moment_after_a_leader_counted() {
    holds("nobody-active.json");
}

/// Seed 3: two nodes handed the leadership of a shard to each other every second, and its move never ended. One was about to
/// go and let the other lead; the other let it lead again, since the map still said so. Now no replica that is about to
/// go is one that should lead.
#[test]
fn a_leader_that_is_to_go_is_not_asked_to_lead_again() {
    holds("leader-that-goes.json");
}

/// Seed 5: a replica was to come to a node that had just let go of another of the same shard, and could not for two minutes:
/// the old files were leased, by a copy that had arrived long ago. Now only those who go on asking hold the files of a
/// replica that has left.
#[test]
fn a_node_takes_a_shard_again_although_its_old_files_were_copied() {
    holds("leased-for-nobody.json");
}

/// Seed 61: a wiped node whose new folder was accepted stayed empty. The metadata group was led by a node that had joined
/// later, which the configuration of the first did not name, and whose frames it took for strays. Now the roll says where
/// nodes are.
#[test]
fn a_node_that_joins_hears_a_leader_that_its_configuration_does_not_name() {
    holds("leader-not-configured.json");
}

/// Seed 1659: a shard had two copies too many, and one that lived was to go. In the same second another of the three was
/// lost for good, and still counted as heard when the move was confirmed. The two that stayed had no majority of what
/// the group was to become, so its leader rightly rested; a confirmed move is never given up, and there is one at a time, so
/// the lost replica was never seen to. Now a removal that stands still takes the dead replica along, and is not confirmed
/// where those that stay do not answer.
#[test]
fn a_removal_that_another_death_holds_up_takes_the_dead_replica_along() {
    holds("removal-that-stands.json");
}
