//! Planted bugs, by which the simulation is measured: each breaks one promise in one place, and an oracle must see it.
//!
//! Compiled only with the feature `mutants`, which release builds refuse. A site asks `mutant!(Name)`: with the feature
//! whether that bug is the planted one, without it the constant `false`. The bugs are in our own code around raft-rs,
//! never inside it, and no assertion beside them trips first: what goes wrong must show as a broken promise.
//!
//! The planted bug is a global, the only one. A site may be a pure function deep in the core, and handing a choice of
//! bug down to it would change every signature on the way, also in the product. A process runs one simulation.
//!
//! It does not know what the sites do.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug that may be planted.
///
/// Each says what is broken, which promise that breaks, and what must happen for anybody to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A group commit syncs before it writes instead of after, so the last group is told durable out of the page
    /// cache. An acknowledged record is lost, or a follower falls behind what its leader knows it has and stays there.
    /// Seen when a node loses power; all at once lose the record.
    AckBeforeSync,
    /// The hard state is never written. A node forgets its term and its vote: two leaders of one term. Seen when voters
    /// end, however, all at once or between their vote and the first entry of the new leader.
    HardStateDropped,
    /// A snapshot leaves the idempotency keys out. A retry is stored again, or by some replicas only. Seen when a
    /// request is repeated after a seal that covers it and a restart that begins with its snapshot.
    KeysNotInSnapshot,
    /// A part is known as soon as the first part of its request is. The later parts of a request are acknowledged and
    /// not stored. Seen with any request of more than one part for a shard.
    KeyWithoutPart,
    /// A completion is taken for every write given out so far, also for those that have not begun. A follower answers
    /// for what it does not have, a leader counts itself too early. Seen when a node ends, however, with a second write
    /// waiting behind the first.
    PersistedOutOfOrder,
    /// A replica goes by the highest write that was ever completed under its name. Numbers begin anew with each life,
    /// so in every life of its actor but the first each completion is taken for every write given out so far. Seen as
    /// `PersistedOutOfOrder`, once a replica was restarted inside a process that goes on.
    StaleIncarnation,
    /// Recovery passes truncations over and keeps of two entries at one index the first. A suffix that a new leader
    /// replaced is back: a committed entry changes on one replica. Seen when a leader was cut off with entries of its
    /// own, followed another, and its process restarts before that part of the log is trimmed.
    TruncateIgnored,
    /// At the trim point `Storage::term` answers the term of the last entry. A follower that has exactly what was
    /// trimmed is told that it does not fit, and never catches up. Seen when a follower is away over a seal and then
    /// over a change of leader.
    TermAtTrim,
    /// Recovery carries the tail over into a new segment and syncs neither. A crash before the next group loses records
    /// that were durable. Seen when a node loses power soon after it started, before it wrote anything: storms.
    TailUnsynced,
    /// Recovery takes the segment of the highest file number for the last, whatever its generation, as if files were
    /// never used again. It goes on from stale records, and durable ones that came after are gone. Seen from the third
    /// restart of a node on, or once a segment was recycled.
    GenerationIgnored,
    /// A leader answers reads without asking a majority whether it still leads. A query misses what was acknowledged
    /// before it. Seen when a leader is cut off and asked, or has just been elected and not applied its log.
    ReadWithoutIndex,
    /// A restored shard gives out offsets from the last one of its newest segment on, which is taken. Offsets differ
    /// between replicas and the record at the seam is not found. Seen after a restart that begins with a snapshot.
    OffsetsReused,
    /// A segment gets its name and its place in the manifest before its bytes are synced. Acknowledged records are lost
    /// with the log trimmed behind them. Seen when a node loses power after a seal, at any time.
    SegmentUnsynced,
    /// A seal cuts the whole head where an earlier one is still being written, instead of going on behind it. That
    /// replica holds the records of the earlier seal twice. Seen on a replica that meets two seals in a row: it was away
    /// over both, or seals slowly.
    SealCutElsewhere,
    /// The receiving end counts the bytes that it took off itself, instead of going by the sender's count. Credit of
    /// lost frames, and what an earlier life took off, never comes back: the link stands still. Seen when frames are
    /// lost, or a peer restarts, and a credit's worth of bytes follows.
    CreditNotReturned,
    /// A tail that is woken by records of a new leader goes on at the end of the shard. It has a gap. Seen when
    /// leadership moves while a tail is open and records come.
    TailSkips,
    /// The first entry of a term forgets the idempotency keys. What is sent again to a new leader is stored twice. Seen
    /// when a leader falls with entries unanswered that outlive it.
    KeysForgottenByTerm,
    /// The log is trimmed to a seal when its segment is written, before its snapshot is. A replica is left without
    /// the entries between its last snapshot and its log, and does not start. Seen when a process ends, however, or the
    /// snapshotter panics, between the two.
    TrimBeforeSnapshot,
    /// A data folder counts as a node's own whichever store it is. A wiped node comes back and votes, against what it
    /// promised before: it is not turned away, and an acknowledged record may be lost. Seen when a node is wiped.
    WipedStoreVotes,
    /// Neither a block nor the frames in it are held against their checksums. Damaged bytes are served. Seen when a
    /// bit of a segment turns over in what compresses badly, and the record is read on that node.
    DamageServed,
    /// A follower answers an append when it was given to the log-writer. Its leader counts an entry that is on no disk.
    /// Seen when the follower ends, however, within the time of one group commit.
    FollowerAcksEarly,
    /// An ingester takes an entry that is with a deposed leader for stored. A request is acknowledged and its records
    /// were never committed. Seen when a leader is cut off from the majority with entries on their way to it.
    DeposedLeaderTrusted,
    /// A query goes on without a shard that does not answer, although its caller did not allow that. It misses what was
    /// acknowledged. Seen when a shard has no leader for longer than a query waits.
    MissingShardLeftOut,
    /// A link does not notice that frames were lost. Whoever waits for an answer that will never come waits until the
    /// deadline of the call: queries and tails hang for a minute. Seen when frames are lost on a link that stays up.
    LossUnnoticed,
    /// Where a node comes back with an empty data folder and is taken as it is, the replicas that it had are not given up:
    /// it starts them again under their old ids, without what they had promised. Seen when the store of a wiped node is
    /// replaced.
    ReplicaIdReused,
    /// A file that was copied from another node gets its name whether or not it has the hash that was announced. What was
    /// damaged there, or torn here, is the state of a replica that nothing has happened to. Seen when replicas move while a
    /// segment of their source is damaged, or when a node loses power in the middle of a copy.
    InstalledUnchecked,
    /// A snapshot holds the members of its group as of the snapshot before it. A replica that begins with it goes by
    /// members whose successors are in no log any more. Seen when members changed between two seals, and a replica
    /// starts again, or anew, after the second.
    MembersOfAnotherIndex,
    /// A node lets a replica go as soon as its move is confirmed, before the group has left the joint configuration in which
    /// it still counts. Where more nodes are away meanwhile, the group has no majority of its old voters and stands still.
    /// Seen with every move of a replica whose node lives, by whoever compares the two.
    RemovedWhileJoint,
    /// A label that a parser finds takes the place of a stored one of its name. Seen in any answer whose lines name a label
    /// of their stream.
    ExtractedOverStored,
    /// Of the alternatives of a line filter only the first is looked for. Seen where a line holds another.
    FirstAlternativeAlone,
    /// Counts of one series in two shards do not add up. Seen where a stream, or a sum, has records in both.
    CountsNotAdded,
    /// A window holds the time at which it begins. Seen where a record is exactly as old as the window is long.
    WindowHoldsItsStart,
    /// The labels that `group_left` and `group_right` name are not taken over. Seen where the one side has them.
    GroupLabelsNotTaken,
    /// A scan that has left out a record for the limit reads no further, as if records never came late. Seen where they
    /// did.
    LateRecordsPassedOver,
    /// Of a text that lies across several variables of a line only one part is held against the line. Seen where a line of
    /// a template has that part, and not the others.
    SeamsUnchecked,
    /// What the first branch of an alternation holds is taken for what every match of the whole expression holds. Seen
    /// where a line matches by another branch.
    BranchTakenForAll,
}

use Mutant::*;

/// Every mutant, in the order of [`NAMES`].
const ALL: [Mutant; 36] = [
    AckBeforeSync,
    HardStateDropped,
    KeysNotInSnapshot,
    KeyWithoutPart,
    PersistedOutOfOrder,
    StaleIncarnation,
    TruncateIgnored,
    TermAtTrim,
    TailUnsynced,
    GenerationIgnored,
    ReadWithoutIndex,
    OffsetsReused,
    SegmentUnsynced,
    SealCutElsewhere,
    CreditNotReturned,
    TailSkips,
    KeysForgottenByTerm,
    TrimBeforeSnapshot,
    WipedStoreVotes,
    DamageServed,
    FollowerAcksEarly,
    DeposedLeaderTrusted,
    MissingShardLeftOut,
    LossUnnoticed,
    ReplicaIdReused,
    InstalledUnchecked,
    MembersOfAnotherIndex,
    RemovedWhileJoint,
    ExtractedOverStored,
    FirstAlternativeAlone,
    CountsNotAdded,
    WindowHoldsItsStart,
    GroupLabelsNotTaken,
    LateRecordsPassedOver,
    SeamsUnchecked,
    BranchTakenForAll,
];

/// What the mutants are called outside, in the order in which they are declared.
pub const NAMES: &[&str] = &[
    "ack-before-sync",
    "hard-state-dropped",
    "keys-not-in-snapshot",
    "key-without-part",
    "persisted-out-of-order",
    "stale-incarnation",
    "truncate-ignored",
    "term-at-trim",
    "tail-unsynced",
    "generation-ignored",
    "read-without-index",
    "offsets-reused",
    "segment-unsynced",
    "seal-cut-elsewhere",
    "credit-not-returned",
    "tail-skips",
    "keys-forgotten-by-term",
    "trim-before-snapshot",
    "wiped-store-votes",
    "damage-served",
    "follower-acks-early",
    "deposed-leader-trusted",
    "missing-shard-left-out",
    "loss-unnoticed",
    "replica-id-reused",
    "installed-unchecked",
    "members-of-another-index",
    "removed-while-joint",
    "extracted-over-stored",
    "first-alternative-alone",
    "counts-not-added",
    "window-holds-its-start",
    "group-labels-not-taken",
    "late-records-passed-over",
    "seams-unchecked",
    "branch-taken-for-all",
];

/// Those of [`NAMES`] that are at work where a query is answered: the naive evaluator finds them without a cluster, too.
pub const OF_QUERIES: &[&str] = NAMES.split_at(ExtractedOverStored as usize).1;

/// Those of [`OF_QUERIES`] that show only where many lines of a sealed block are alike, or a filter has branches, which a
/// simulated cluster is not asked for: the naive evaluator alone finds them.
pub const OF_BLOCKS: &[&str] = NAMES.split_at(SeamsUnchecked as usize).1;

/// No mutant has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no mutant {name:?}; there are {}", NAMES.join(", "))]
pub struct UnknownMutant {
    /// The name.
    pub name: String,
}

/// The planted mutant, counted from one; zero where none is.
static PLANTED: AtomicUsize = AtomicUsize::new(0);

fn named(name: &str) -> Result<Mutant, UnknownMutant> {
    let at = NAMES.iter().position(|known| *known == name);
    at.map(|at| ALL[at]).ok_or_else(|| UnknownMutant { name: name.to_owned() })
}

/// Plants the mutant of this name, in place of any other, in the whole process and for the rest of its life.
///
/// # Errors
/// No mutant has the name.
pub fn plant(name: &str) -> Result<(), UnknownMutant> {
    PLANTED.store(named(name)? as usize + 1, Ordering::Relaxed);
    Ok(())
}

/// Whether this mutant is planted.
pub fn is(mutant: Mutant) -> bool {
    PLANTED.load(Ordering::Relaxed) == mutant as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `AckBeforeSync` as `ack-before-sync`.
    fn kebab(name: &str) -> String {
        let mut kebab = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !kebab.is_empty() {
                kebab.push('-');
            }
            kebab.push(letter.to_ascii_lowercase());
        }
        kebab
    }

    #[test]
    fn every_mutant_goes_by_its_own_name() {
        assert_eq!(NAMES.len(), ALL.len());
        for (at, mutant) in ALL.into_iter().enumerate() {
            assert_eq!((mutant as usize, NAMES[at]), (at, kebab(&format!("{mutant:?}")).as_str()));
            assert_eq!(named(NAMES[at]), Ok(mutant));
        }
    }

    #[test]
    fn nothing_is_planted_unless_it_is_known() {
        let error = plant("no-such-bug").unwrap_err();
        assert!(error.to_string().contains("no-such-bug") && error.to_string().contains("tail-skips"), "{error}");
        assert!(ALL.into_iter().all(|mutant| !is(mutant)));
    }
}
