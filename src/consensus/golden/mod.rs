//! Scripts about small groups, for people to read: commands, and below them what the replicas did. They lie beside this
//! file and show what Raft and this room promise; only tests run them.
//!
//! A script is made of blocks with a blank line between them. Lines that begin with `#` tell the story. The lines above
//! `---` are commands, those below are what came of them:
//!
//! ```text
//! # The leader sends the entry at once, while its own disk still writes.
//! propose 1 a
//! ---
//! 1->2 append t1 after 1@1: 2@1 a; commit 1
//! 1->3 append t1 after 1@1: 2@1 a; commit 1
//! 1 persists 2@1 a
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `group N [learners=L] [seed=S] [KNOB=VALUE]` | starts N voters and L learners that know nothing; opens every script |
//! | `tick R\|all [N]` | N ticks for one replica, or for each in turn; nothing is delivered |
//! | `pass N` | N ticks, everything delivered and persisted after each |
//! | `run` | delivers and persists until nothing moves |
//! | `lead R` | R is elected and everybody hears of it; shows nothing |
//! | `campaign R`, `transfer R TO`, `evict R I` | the events of these names; `I` is included |
//! | `snapshot R I`, `trim R I` | R has a snapshot through I; and lets the log through it go |
//! | `join R` | starts a replica that knows nobody |
//! | `add R ID`, `forget R ID`, `replace R [add=ID] [remove=ID]` | asks R for a learner more or less, or other voters |
//! | `install R`, `report R PEER ok\|failed` | R starts anew from the snapshot it was offered; R hears what PEER did |
//! | `propose R NAME [bytes=N] [times=N]`, `read R NAME [times=N]` | the name is the payload too, unless bytes are given |
//! | `deliver [A->B] [KIND] [first\|last]` | each message in flight now, once, in order; of one link, of one kind |
//! | `drop ..`, `repeat ..` | loses them; sends each a second time, behind all others |
//! | `forge A->B KIND [at=R] [FIELD=VALUE]` | hands a message that nobody sent to B, or to R |
//! | `partition A.. \| B..`, `lose KIND`, `heal` | what is delivered so is lost, until all is healed |
//! | `persist R [all]` | the oldest write of R, or all, becomes durable |
//! | `fetched R [nothing]` | the oldest fetch of R is answered from its disk, or in vain |
//! | `stuck R` | from now on `run` and `pass` leave the disk of R alone |
//! | `crash R`, `restart R` | what was not durable is lost; it starts from its disk |
//! | `tear R N` | R crashes in its oldest write: of hard state, truncation and each entry the first N records stay |
//! | `status [R..]`, `members [R..]`, `disk R`, `wire` | shows watermarks, who belongs, what is durable, what is in flight |
//!
//! `run` and `pass` leave out messages and writes. An entry is written `index@term payload`, `-` for an empty one; one that
//! changes the members as `index@term {voters, from outgoing, learners ..}`.

mod show;
mod stage;
mod tests;

use self::stage::Stage;

const SEPARATOR: &str = "---";
const NOTHING: &str = "nothing";

/// Plays a script and returns it with what came of it below the separators.
///
/// # Panics
/// Where the script is none, by line; and where a replica breaks a promise that holds in every story.
fn play(script: &str) -> String {
    let mut played = Vec::new();
    let mut stage = Stage::default();
    let mut output: Option<Vec<String>> = None;
    let mut below = false;
    for (number, line) in (1..).zip(script.lines()) {
        if below && !line.is_empty() {
            continue;
        }
        below = line == SEPARATOR;
        played.push(line.to_owned());
        if below {
            let lines = output.take().unwrap_or_else(|| panic!("line {number}: no command above"));
            played.extend(if lines.is_empty() { vec![NOTHING.to_owned()] } else { lines });
        } else if !line.is_empty() && !line.starts_with('#') {
            let told = stage.play(line).unwrap_or_else(|why| panic!("line {number}: `{line}`: {why}"));
            output.get_or_insert_default().extend(told);
        }
    }
    assert!(output.is_none(), "the last commands have no `{SEPARATOR}` below them");
    played.join("\n") + "\n"
}
