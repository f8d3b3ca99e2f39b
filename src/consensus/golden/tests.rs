//! Every script, played and compared. `UPDATE_GOLDEN=1` writes what came of it into the files instead; what it wrote
//! must then be read, for it is what the code does and not yet what it should do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::play;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/consensus/golden")
}

#[expect(clippy::disallowed_methods, reason = "the core is told its settings; this is one of the person who tests")]
fn updates() -> bool {
    std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1")
}

fn compare(name: &str) {
    let path = folder().join(name).with_extension("txt");
    let script = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let played = play(&script);
    if updates() {
        std::fs::write(&path, played).unwrap();
    } else {
        assert!(
            played == script,
            "{} says something else (`-` file, `+` now):\n{}",
            path.display(),
            diff(&script, &played)
        );
    }
}

/// Lines that only one of two texts has, with their neighbours; of the second, numbered as in the file.
fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for at in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            common[at][other] = if old[at] == new[other] {
                common[at + 1][other + 1] + 1
            } else {
                common[at + 1][other].max(common[at][other + 1])
            };
        }
    }
    let (mut at, mut other, mut lines) = (0, 0, Vec::new());
    while at < old.len() || other < new.len() {
        if at < old.len() && other < new.len() && old[at] == new[other] {
            lines.push(format!("{:4}   {}", at + 1, old[at]));
            (at, other) = (at + 1, other + 1);
        } else if other == new.len() || at < old.len() && common[at + 1][other] >= common[at][other + 1] {
            lines.push(format!("{:4} - {}", at + 1, old[at]));
            at += 1;
        } else {
            lines.push(format!("     + {}", new[other]));
            other += 1;
        }
    }
    let changed = |line: &String| &line[5..6] != " ";
    let near = |at: usize| lines[at.saturating_sub(3)..(at + 4).min(lines.len())].iter().any(changed);
    (0..lines.len()).filter(|at| near(*at)).map(|at| lines[at].as_str()).collect::<Vec<_>>().join("\n")
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                compare(stringify!($name));
            }
        )*

        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
    };
}

scripts! {
    a_majority_elects_a_leader_that_says_so_to_all
    a_dead_leader_is_replaced_after_a_timeout_and_returns_as_a_follower
    a_node_that_was_away_asks_before_it_stands_and_disturbs_nobody
    a_shorter_log_wins_no_vote
    an_entry_is_committed_once_a_majority_has_it_durable
    a_follower_answers_in_the_order_of_its_writes
    the_suffix_of_a_deposed_leader_is_cut
    a_vote_is_given_once_in_a_term_also_across_a_crash
    leadership_is_handed_over_on_request
    a_read_waits_for_the_first_commit_of_the_term_and_for_a_majority
    a_read_is_lost_with_the_leadership_or_when_its_time_is_over
    a_slow_follower_is_fed_from_the_disk_of_its_leader
    a_follower_behind_the_trim_needs_a_snapshot
    proposals_that_do_not_fit_are_refused
    what_no_honest_replica_sends_is_refused
    an_old_append_that_comes_late_takes_nothing_back
    an_entry_of_an_older_term_is_committed_only_with_one_of_the_leaders_own
    an_entry_that_only_the_others_have_outlives_its_leader
    a_torn_write_leaves_nothing_that_was_answered
    a_torn_write_commits_nothing_that_it_would_have_cut
    a_learner_is_added_and_catches_up
    a_replica_is_replaced_by_a_joint_change
    a_leader_does_not_remove_itself
    one_change_of_members_at_a_time
    a_new_replica_learns_from_the_log_who_there_is
    a_follower_starts_anew_from_a_snapshot
    an_offer_of_which_nothing_is_heard_is_made_again
    a_restart_in_the_middle_of_a_joint_configuration
    a_removed_replica_that_returns_disturbs_nobody
    a_leader_that_inherits_its_removal_resigns
}

#[test]
fn every_script_in_the_folder_is_played() {
    let listed = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let there: BTreeSet<String> = listed
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(there, SCRIPTS.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn what_came_of_a_script_replaces_what_stood_below_and_nothing_else() {
    let script = "# A story.\ngroup 1\n---\nnonsense\nmore of it\n\n# Its end.\nstatus 1\nwire\n---\n";
    let played = "# A story.\ngroup 1\n---\nnothing\n\n# Its end.\nstatus 1\nwire\n---\n\
                  1 is follower in term 0, applied 0, committed 0, persisted 0, last 0\n";
    assert_eq!(play(script), played);
    assert_eq!(play(played), played);
}

#[test]
#[should_panic(expected = "line 4: `propse 1 a`: no command is called `propse`")]
fn a_word_that_is_no_command_is_named_with_its_line() {
    play("group 1\n---\n\npropse 1 a\n---\n");
}

#[test]
fn a_difference_is_shown_with_its_neighbours() {
    let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n";
    let expected = "   2   2\n   3   3\n   4   4\n   5 - 5\n     + five\n   6   6\n   7   7\n   8   8";
    assert_eq!(diff(old, new), expected);
}
