//! Changes of who belongs to a group, as plain calculation, and how raft-rs is told of them. It does not know logs,
//! leaders or when a change may be made: the replica does.
//!
//! An entry of the kind `JointConfiguration` carries the members that hold from it on, in full. So a replica that
//! knows nobody learns from the first such entry who there is, and nothing that comes from a peer or the disk is parsed
//! as protobuf. One entry has no payload: raft-rs makes it by itself to leave a joint configuration.

use std::collections::BTreeSet;

use raft::eraftpb;

use super::{Change, Refusal};
use crate::entry::{Entry, EntryKind, Members};
use crate::id::{Index, ReplicaId};
use crate::limits;

/// The members after a change that the leader of a group is asked to make. What changes more than one replica is joint:
/// both sets of voters must agree.
pub(super) fn target(members: &Members, leader: ReplicaId, change: Change) -> Result<Members, Refusal> {
    let mut next = members.clone();
    match change {
        Change::AddLearner(id) => {
            if id == ReplicaId(0) || !members.contains(id) && members.all().len() >= limits::MEMBERS_MAX {
                return Err(Refusal::Unfit { id });
            }
            if !members.contains(id) {
                next.learners.insert(id);
            }
        }
        Change::RemoveLearner(id) => {
            if members.votes(id) {
                return Err(Refusal::Unfit { id });
            }
            next.learners.remove(&id);
        }
        Change::Replace { add, remove } => replace(&mut next, leader, add, remove)?,
    }
    if next == *members {
        return Err(Refusal::Nothing);
    }
    if step(members, &next).get_changes().len() > 1 {
        next.outgoing.clone_from(&members.voters);
        next.auto_leave = true;
    }
    Ok(next)
}

fn replace(
    next: &mut Members,
    leader: ReplicaId,
    add: Option<ReplicaId>,
    remove: Option<ReplicaId>,
) -> Result<(), Refusal> {
    if let Some(id) = add.filter(|id| !next.contains(*id) || remove == Some(*id)) {
        return Err(Refusal::Unfit { id });
    }
    if remove == Some(leader) {
        return Err(Refusal::RemovesLeader);
    }
    if let Some(id) = add {
        next.learners.remove(&id);
        next.voters.insert(id);
    }
    if let Some(id) = remove {
        next.learners.remove(&id);
        next.voters.remove(&id);
    }
    if next.voters.is_empty() { Err(Refusal::NoVoters) } else { Ok(()) }
}

/// Whether an entry is one that a leader of this version may have proposed.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(entry: &Entry) -> Result<(), &'static str> {
    match entry.kind {
        EntryKind::Normal => Ok(()),
        EntryKind::Configuration => Err("an entry changes the configuration in a way that is never used"),
        EntryKind::JointConfiguration if entry.payload.is_empty() => Ok(()),
        EntryKind::JointConfiguration => match Members::decode(&entry.payload) {
            Ok(members) if members.is_empty() => Err("an entry leaves the group without members"),
            Ok(_) => Ok(()),
            Err(_) => Err("an entry changes the configuration to what is none"),
        },
    }
}

/// raft-rs's own view of a configuration, made from nothing: it builds up voter by voter, and joins two only when one is
/// complete. Nothing is known of how far anybody is.
pub(super) fn tracker(members: &Members, inflight_max: usize, next: Index) -> raft::ProgressTracker {
    let mut tracker = raft::ProgressTracker::new(inflight_max);
    let first = if members.is_joint() { &members.outgoing } else { &members.voters };
    let voters = first.iter().map(|id| change(eraftpb::ConfChangeTransition::Auto, vec![voter(*id)]));
    let rest: Vec<_> = if members.is_joint() {
        vec![step(&Members::of(first.iter().copied(), []), members)]
    } else {
        let learners = members.learners.iter();
        learners.map(|id| change(eraftpb::ConfChangeTransition::Auto, vec![learner(*id)])).collect()
    };
    for step in voters.chain(rest) {
        let mut changer = raft::Changer::new(&tracker);
        let outcome = match step.enter_joint() {
            Some(auto_leave) => changer.enter_joint(auto_leave, step.get_changes()),
            None => changer.simple(step.get_changes()),
        };
        let (conf, changes) = outcome.expect("members that were checked can be built up");
        tracker.apply_conf(conf, changes, next.0);
    }
    tracker
}

fn single(kind: eraftpb::ConfChangeType, id: ReplicaId) -> eraftpb::ConfChangeSingle {
    let mut single = eraftpb::ConfChangeSingle { node_id: id.0, ..Default::default() };
    single.set_change_type(kind);
    single
}

fn voter(id: ReplicaId) -> eraftpb::ConfChangeSingle {
    single(eraftpb::ConfChangeType::AddNode, id)
}

fn learner(id: ReplicaId) -> eraftpb::ConfChangeSingle {
    single(eraftpb::ConfChangeType::AddLearnerNode, id)
}

fn change(transition: eraftpb::ConfChangeTransition, changes: Vec<eraftpb::ConfChangeSingle>) -> eraftpb::ConfChangeV2 {
    let mut change = eraftpb::ConfChangeV2::default();
    change.set_transition(transition);
    change.set_changes(changes.into());
    change
}

/// The difference of two configurations, as raft-rs wants to be told.
pub(super) fn step(from: &Members, to: &Members) -> eraftpb::ConfChangeV2 {
    let learners: BTreeSet<ReplicaId> = to.learners.union(&to.learners_next).copied().collect();
    let known: BTreeSet<ReplicaId> = from.voters.union(&from.learners).copied().collect();
    let kept: BTreeSet<ReplicaId> = to.voters.union(&learners).copied().collect();
    let add = to.voters.difference(&from.voters).map(|id| voter(*id));
    let learn = learners.difference(&from.learners).map(|id| learner(*id));
    let remove = known.difference(&kept).map(|id| single(eraftpb::ConfChangeType::RemoveNode, *id));
    let transition = match (to.is_joint(), to.auto_leave) {
        (false, _) => eraftpb::ConfChangeTransition::Auto,
        (true, true) => eraftpb::ConfChangeTransition::Implicit,
        (true, false) => eraftpb::ConfChangeTransition::Explicit,
    };
    change(transition, add.chain(learn).chain(remove).collect())
}

pub(super) fn conf_state(members: &Members) -> eraftpb::ConfState {
    let numbers = |ids: &BTreeSet<ReplicaId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let mut state = eraftpb::ConfState::default();
    state.set_voters(numbers(&members.voters));
    state.set_voters_outgoing(numbers(&members.outgoing));
    state.set_learners(numbers(&members.learners));
    state.set_learners_next(numbers(&members.learners_next));
    state.auto_leave = members.auto_leave;
    state
}

pub(super) fn members(state: &eraftpb::ConfState) -> Members {
    let ids = |numbers: &[u64]| numbers.iter().copied().map(ReplicaId).collect();
    Members {
        voters: ids(state.get_voters()),
        outgoing: ids(state.get_voters_outgoing()),
        learners: ids(state.get_learners()),
        learners_next: ids(state.get_learners_next()),
        auto_leave: state.auto_leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn three() -> Members {
        Members::of(ids(&[1, 2, 3]), ids(&[4]))
    }

    fn change(change: Change) -> Result<Members, Refusal> {
        target(&three(), ReplicaId(1), change)
    }

    fn swap(add: Option<u64>, remove: Option<u64>) -> Result<Members, Refusal> {
        change(Change::Replace { add: add.map(ReplicaId), remove: remove.map(ReplicaId) })
    }

    #[test]
    fn one_voter_changes_at_once_and_two_jointly() {
        assert_eq!(swap(Some(4), None), Ok(Members::of(ids(&[1, 2, 3, 4]), [])));
        assert_eq!(swap(None, Some(3)), Ok(Members::of(ids(&[1, 2]), ids(&[4]))));
        let joint = Members { outgoing: ids(&[1, 2, 3]), auto_leave: true, ..Members::of(ids(&[1, 2, 4]), []) };
        assert_eq!(swap(Some(4), Some(3)), Ok(joint));
    }

    #[test]
    fn learners_come_and_go() {
        assert_eq!(change(Change::AddLearner(ReplicaId(5))), Ok(Members::of(ids(&[1, 2, 3]), ids(&[4, 5]))));
        assert_eq!(change(Change::RemoveLearner(ReplicaId(4))), Ok(Members::of(ids(&[1, 2, 3]), [])));
    }

    #[test]
    fn what_is_so_already_is_nothing_to_do() {
        assert_eq!(change(Change::AddLearner(ReplicaId(2))), Err(Refusal::Nothing));
        assert_eq!(change(Change::AddLearner(ReplicaId(4))), Err(Refusal::Nothing));
        assert_eq!(change(Change::RemoveLearner(ReplicaId(9))), Err(Refusal::Nothing));
        assert_eq!(swap(Some(3), Some(9)), Err(Refusal::Nothing));
        assert_eq!(swap(None, None), Err(Refusal::Nothing));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(change(Change::AddLearner(ReplicaId(0))), Err(Refusal::Unfit { id: ReplicaId(0) }));
        assert_eq!(change(Change::RemoveLearner(ReplicaId(2))), Err(Refusal::Unfit { id: ReplicaId(2) }));
        assert_eq!(swap(Some(9), Some(3)), Err(Refusal::Unfit { id: ReplicaId(9) }));
        assert_eq!(swap(Some(4), Some(4)), Err(Refusal::Unfit { id: ReplicaId(4) }));
        assert_eq!(swap(Some(4), Some(1)), Err(Refusal::RemovesLeader));
        let single = Members::of(ids(&[2]), []);
        let last = Change::Replace { add: None, remove: Some(ReplicaId(2)) };
        assert_eq!(target(&single, ReplicaId(1), last), Err(Refusal::NoVoters));
    }

    #[test]
    fn raft_arrives_at_the_members_it_is_told() {
        let joint = Members {
            outgoing: ids(&[1, 2, 3]),
            learners_next: ids(&[3]),
            auto_leave: true,
            ..Members::of(ids(&[1, 4]), ids(&[5]))
        };
        let explicit = Members { auto_leave: false, ..joint.clone() };
        for to in [Members::default(), three(), joint, explicit] {
            let tracker = tracker(&to, 8, Index(1));
            assert_eq!(members(&tracker.conf().to_conf_state()), to);
            assert_eq!(tracker.iter().len(), to.all().len());
        }
    }
}
