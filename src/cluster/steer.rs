//! How a group gets from the members it has to those that the cluster wants: the next step of the group's leader, and
//! what the cluster is told of it. One change at a time; what was done is seen in the members, so whoever leads next
//! goes on where the last one stopped.
//!
//! The leader of a group may look at an older state of the cluster than there is. So it changes voters only as a move
//! says that is under way and confirmed: a confirmed move is never given up, and the ids in it are never used by
//! another. Acting on a move that has ended since, it may vote in a replica that has gone again; such a voter is known
//! by its id in any state that is not older, and removed. Learners may come and go freely, since nothing is promised by
//! them. Voters are never replaced by some of whom no majority answers.
//!
//! So a confirmed removal stands still where another replica dies first, without which those that stay have no majority. It
//! cannot be given up, since the group may be about to carry it out; it can take the dead one along, since both go
//! for good then, whoever acts on which state in which order. Removed one after the other, the dead one first, they leave
//! a majority that answers each time, if there was one to begin with.
//!
//! It does not know how a change is made, nor how anybody learns what a group looks like.

use std::collections::BTreeSet;

use super::{Cluster, Command};
use crate::entry::Members;
use crate::id::{NodeId, ReplicaId, ShardId};
use crate::placement::{Move, Seat};

/// A group as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Which.
    pub shard: ShardId,
    /// The leader.
    pub leader: ReplicaId,
    /// The members, as far as the leader has applied its log.
    pub members: &'a Members,
    /// Replicas that follow closely.
    pub caught_up: &'a BTreeSet<ReplicaId>,
}

/// What the leader of a group does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the members are as wanted, or something has to happen elsewhere first.
    Rest,
    /// Let a replica follow.
    AddLearner(ReplicaId),
    /// Let a replica that does not vote go.
    RemoveLearner(ReplicaId),
    /// Change the voters.
    Replace {
        /// Who becomes one.
        add: Option<ReplicaId>,
        /// Who goes.
        remove: Option<ReplicaId>,
    },
    /// Let one of these lead: this leader is to go.
    HandOver,
}

impl Group<'_> {
    /// The step that changes voters, once the new ones make a majority that answers.
    fn replace(&self, add: Option<ReplicaId>, remove: Option<ReplicaId>) -> Step {
        let Self { leader, members, .. } = *self;
        let hands_over = remove == Some(leader) && members.voters.len() > 1;
        // The only voter lets the one that joins vote first, and goes once that one leads.
        let remove = remove.filter(|gone| hands_over || *gone != leader);
        if add.or(remove).is_none() || !self.answers_after(add, remove.as_slice()) {
            return Step::Rest;
        }
        if hands_over { Step::HandOver } else { Step::Replace { add, remove } }
    }

    /// Whether a majority of the voters answers once one has come and some have gone.
    fn answers_after(&self, add: Option<ReplicaId>, gone: &[ReplicaId]) -> bool {
        let Self { leader, members, caught_up, .. } = *self;
        let after = members.voters.iter().chain(add.iter().filter(|id| !members.voters.contains(*id)));
        let after = after.filter(|id| !gone.contains(id));
        let answers = after.clone().filter(|id| **id == leader || caught_up.contains(id)).count();
        answers > after.count() / 2
    }
}

impl Cluster {
    /// What the leader of a group does next.
    pub fn next_step(&self, group: Group<'_>) -> Step {
        let Group { shard, members, .. } = group;
        let Some(wanted) = self.wanted(shard) else { return Step::Rest };
        if members.is_joint() {
            return Step::Rest;
        }
        let under_way = self.moves().get(&shard);
        let come = under_way.and_then(|under_way| under_way.add).map(|seat| seat.replica);
        let to_learn = wanted.learners.iter().chain(&come).find(|id| !members.contains(**id));
        if let Some(id) = to_learn {
            return Step::AddLearner(*id);
        }
        let useless = |id: &&ReplicaId| !wanted.learners.contains(*id) && !wanted.voters.contains(*id);
        if let Some(id) = members.learners.iter().find(useless) {
            return Step::RemoveLearner(*id);
        }
        if let Some(id) = members.voters.iter().find(|id| self.has_gone(shard, **id)) {
            return group.replace(None, Some(*id));
        }
        let Some(under_way) = under_way.filter(|under_way| under_way.confirmed) else { return Step::Rest };
        let dead = under_way.also.map(|seat| seat.replica).filter(|id| members.voters.contains(id));
        let first = group.replace(None, dead);
        if first != Step::Rest {
            return first;
        }
        let add = come.filter(|id| !members.voters.contains(id));
        let remove = under_way.remove.map(|seat| seat.replica).filter(|id| members.voters.contains(id));
        group.replace(add, remove)
    }

    /// Whether a replica of a group was given its id and has no place in it any more: it never has one again.
    fn has_gone(&self, shard: ShardId, replica: ReplicaId) -> bool {
        let placed =
            self.placement(shard).is_some_and(|placement| placement.replicas.values().any(|id| *id == replica));
        let joins =
            self.moves().get(&shard).and_then(|under_way| under_way.add).is_some_and(|seat| seat.replica == replica);
        let observes = shard == ShardId::METADATA && self.observers.values().any(|id| *id == replica);
        replica <= self.replica_ids().highest() && !placed && !joins && !observes
    }

    /// What the metadata group should be told about the move of a group, if anything; `takes` says whether the node that
    /// a replica comes to can still take it, `is_dead` whether a replica counts as dead.
    pub fn tend(
        &self,
        group: Group<'_>,
        takes: impl FnOnce(&Move) -> bool,
        is_dead: impl Fn(Seat) -> bool,
    ) -> Option<Command> {
        let under_way = self.moves().get(&group.shard)?;
        let id = under_way.id;
        if self.is_carried_out(group.members, under_way) && under_way.confirmed {
            return Some(Command::EndMove { id });
        }
        let replica = |seat: Option<Seat>| seat.map(|seat| seat.replica);
        let (come, gone) = (replica(under_way.add), replica(under_way.remove));
        let goes_on = group.answers_after(come, gone.as_slice());
        if under_way.confirmed {
            let stands = !goes_on && !group.members.is_joint();
            let dead = if stands { self.dead_weight(group, under_way, is_dead) } else { None };
            return dead.map(|remove| Command::WidenMove { id, remove });
        }
        let follows = under_way.add.is_none_or(|seat| group.caught_up.contains(&seat.replica));
        if follows && goes_on {
            return Some(Command::ConfirmMove { id });
        }
        let in_vain = !takes(under_way) || !goes_on && self.dead_weight(group, under_way, is_dead).is_some();
        in_vain.then_some(Command::CancelMove { id })
    }

    /// The node of a dead replica without which a removal could go on that cannot as it is.
    fn dead_weight(&self, group: Group<'_>, under_way: &Move, is_dead: impl Fn(Seat) -> bool) -> Option<NodeId> {
        let voters = &group.members.voters;
        let gone = under_way.remove.filter(|gone| voters.contains(&gone.replica))?;
        if under_way.add.is_some() || under_way.also.is_some() {
            return None;
        }
        let placed = self.placement(group.shard)?.replicas.iter().map(|(&node, &replica)| Seat { node, replica });
        let mut others = placed.filter(|seat| *seat != gone && voters.contains(&seat.replica));
        let helps = |seat: &Seat| is_dead(*seat) && group.answers_after(None, &[gone.replica, seat.replica]);
        others.find(helps).map(|seat| seat.node)
    }

    /// Whether the members are those that a move is for. Once they are, they stay so until it has ended.
    fn is_carried_out(&self, members: &Members, under_way: &Move) -> bool {
        !members.is_joint()
            && under_way.add.is_none_or(|seat| members.voters.contains(&seat.replica))
            && under_way.leaving().all(|seat| !members.votes(seat.replica))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::tests::{apply, placed_on};
    use crate::id::StoreId;
    use crate::placement::MoveReason;

    const SHARD: ShardId = ShardId(1);

    /// A group that does what its leader is told, at once.
    struct World {
        cluster: Cluster,
        shard: ShardId,
        members: Members,
        leader: ReplicaId,
        /// The target of the move takes it.
        takes: bool,
        /// Replicas whose nodes are gone.
        dead: BTreeSet<ReplicaId>,
    }

    impl World {
        fn new(nodes: u64, copies: usize, shard: ShardId) -> Self {
            let cluster = placed_on(nodes, copies);
            let wanted = cluster.wanted(shard).unwrap();
            let members = Members::of(wanted.voters, wanted.learners);
            let leader = *members.voters.first().unwrap();
            Self { cluster, shard, members, leader, takes: true, dead: BTreeSet::new() }
        }

        fn begin(&mut self, add: Option<u64>, remove: Option<u64>) {
            let expects = self.cluster.shards().epoch;
            let (add, remove) = (add.map(NodeId), remove.map(NodeId));
            let command = Command::BeginMove { shard: self.shard, add, remove, why: MoveReason::Requested, expects };
            let applied = apply(&mut self.cluster, &command);
            assert!(matches!(applied, crate::cluster::Applied::Began { .. }), "{applied:?}");
        }

        /// One step of the leader and one word to the cluster. What was done, in words; none at rest.
        fn go(&mut self) -> Option<String> {
            let cluster = self.cluster.clone();
            let (caught_up, takes) = (self.caught_up(), self.takes);
            let told = cluster.tend(self.group(&caught_up), |_| takes, |seat| self.dead.contains(&seat.replica));
            let step = self.act(&cluster);
            if let Some(command) = &told {
                apply(&mut self.cluster, command);
            }
            (step != Step::Rest || told.is_some()).then(|| format!("{step:?} {told:?}"))
        }

        fn group<'g>(&'g self, caught_up: &'g BTreeSet<ReplicaId>) -> Group<'g> {
            Group { shard: self.shard, leader: self.leader, members: &self.members, caught_up }
        }

        /// The replica of the shard on one of its nodes.
        fn replica(&self, nth: usize) -> (u64, ReplicaId) {
            let placement = self.cluster.placement(self.shard).unwrap();
            let (node, replica) = placement.replicas.iter().nth(nth).unwrap();
            (node.0, *replica)
        }

        fn answers(&self, id: ReplicaId) -> bool {
            !self.dead.contains(&id) && !self.cluster.has_gone(self.shard, id)
        }

        fn has_majority(&self, voters: &BTreeSet<ReplicaId>) -> bool {
            voters.iter().filter(|id| self.answers(**id)).count() > voters.len() / 2
        }

        /// A node goes, unless that would take the majority of its group or of what a widened move leaves of it.
        fn kill(&mut self, id: ReplicaId) {
            self.dead.insert(id);
            let widened = self.cluster.moves().get(&self.shard).is_some_and(|under_way| under_way.also.is_some());
            let after = self.cluster.wanted(self.shard).unwrap().voters;
            if !self.has_majority(&self.members.voters) || widened && !self.has_majority(&after) {
                self.dead.remove(&id);
            }
            if self.leader == id && self.dead.contains(&id) {
                self.leader = *self.members.voters.iter().find(|id| self.answers(**id)).unwrap();
            }
        }

        /// Everybody follows closely, but for those that have gone and, where the target does not take it, learners.
        fn caught_up(&self) -> BTreeSet<ReplicaId> {
            let follows = |id: &ReplicaId| {
                *id != self.leader && self.answers(*id) && (self.takes || !self.members.learners.contains(id))
            };
            self.members.all().into_iter().filter(follows).collect()
        }

        /// One step of a leader that looks at this state.
        fn act(&mut self, state: &Cluster) -> Step {
            let caught_up = self.caught_up();
            let step = state.next_step(self.group(&caught_up));
            match step {
                Step::Rest => {}
                Step::AddLearner(id) => drop(self.members.learners.insert(id)),
                Step::RemoveLearner(id) => {
                    assert!(self.members.learners.remove(&id));
                }
                Step::Replace { add, remove } => {
                    assert_ne!(remove, Some(self.leader), "a leader never removes itself");
                    if let Some(id) = add {
                        assert!(self.members.learners.remove(&id), "only a learner becomes a voter");
                        self.members.voters.insert(id);
                    }
                    if let Some(id) = remove {
                        assert!(self.members.voters.remove(&id));
                    }
                    assert!(self.has_majority(&self.members.voters), "a majority is there");
                }
                Step::HandOver => {
                    let able = self.members.voters.iter().find(|id| caught_up.contains(id));
                    self.leader = able.copied().unwrap_or(self.leader);
                }
            }
            self.members.check().unwrap();
            step
        }

        fn settle(&mut self) -> Vec<String> {
            let mut done = Vec::new();
            while let Some(step) = self.go() {
                done.push(step);
                assert!(done.len() < 30, "it does not come to rest: {done:?}");
            }
            let wanted = self.cluster.wanted(self.shard).unwrap();
            assert_eq!(self.members, Members::of(wanted.voters, wanted.learners), "{done:?}");
            assert!(self.cluster.moves().is_empty(), "{done:?}");
            done
        }
    }

    #[test]
    fn a_replica_is_replaced_by_one_that_followed_first() {
        let mut world = World::new(4, 3, SHARD);
        let holders: Vec<u64> = world.cluster.placement(SHARD).unwrap().replicas.keys().map(|node| node.0).collect();
        let spare = (1..=4).find(|node| !holders.contains(node)).unwrap();
        world.begin(Some(spare), Some(holders[1]));
        let done = world.settle();
        assert_eq!(done.len(), 4, "learner, confirmation, change, end: {done:?}");
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_first() {
        let mut world = World::new(4, 3, SHARD);
        let placement = world.cluster.placement(SHARD).unwrap().replicas.clone();
        let (node, _) = placement.iter().find(|(_, replica)| **replica == world.leader).unwrap();
        world.begin(None, Some(node.0));
        let done = world.settle();
        assert!(done.iter().any(|step| step.starts_with("HandOver")), "{done:?}");
    }

    #[test]
    fn the_only_replica_votes_beside_its_heir_for_a_while() {
        let mut world = World::new(2, 1, SHARD);
        let from = world.cluster.placement(SHARD).unwrap().replicas.keys().next().unwrap().0;
        world.begin(Some(3 - from), Some(from));
        let done = world.settle();
        assert!(done.iter().any(|step| step.starts_with("HandOver")), "{done:?}");
    }

    #[test]
    fn a_move_to_a_node_that_cannot_take_it_is_given_up_and_its_learner_goes() {
        let mut world = World::new(4, 3, SHARD);
        let holders = world.cluster.placement(SHARD).unwrap().replicas.clone();
        let spare = (1..=4).find(|node| !holders.contains_key(&NodeId(*node))).unwrap();
        world.begin(Some(spare), Some(holders.keys().next().unwrap().0));
        world.takes = false;
        let done = world.settle();
        assert!(done.iter().any(|step| step.contains("CancelMove")), "{done:?}");
        assert_eq!(world.cluster.placement(SHARD).unwrap().replicas, holders);
    }

    #[test]
    fn a_removal_that_another_death_holds_up_takes_the_dead_replica_along() {
        for leader in 0..2 {
            let mut world = World::new(3, 3, SHARD);
            let ((goes, _), (_, dead)) = (world.replica(1), world.replica(2));
            world.leader = world.replica(leader).1;
            world.begin(None, Some(goes));
            assert!(world.go().unwrap().contains("ConfirmMove"));
            world.kill(dead);
            let done = world.settle();
            assert!(done[0].starts_with("Rest Some(WidenMove"), "{done:?}");
            assert_eq!(world.members, Members::of([world.replica(0).1], []), "{done:?}");
        }
    }

    #[test]
    fn a_removal_is_not_confirmed_without_a_majority_of_those_that_stay_and_given_up_for_a_dead_one() {
        let mut world = World::new(3, 3, SHARD);
        let ((goes, _), (_, silent)) = (world.replica(1), world.replica(2));
        world.begin(None, Some(goes));
        let caught_up: BTreeSet<ReplicaId> = world.caught_up().into_iter().filter(|id| *id != silent).collect();
        let tend = |dead: bool| world.cluster.tend(world.group(&caught_up), |_| true, |_| dead);
        assert_eq!(tend(false), None, "it may come back");
        assert!(matches!(tend(true), Some(Command::CancelMove { .. })));
    }

    #[test]
    fn a_leader_that_has_not_heard_of_the_dead_replica_does_nothing_that_must_be_undone() {
        let mut world = World::new(3, 3, SHARD);
        let ((goes, _), (_, dead)) = (world.replica(1), world.replica(2));
        world.begin(None, Some(goes));
        world.go();
        let before = world.cluster.clone();
        world.kill(dead);
        assert!(world.go().unwrap().contains("WidenMove"));
        world.dead.clear();
        assert_eq!(world.act(&before), Step::Replace { add: None, remove: Some(world.replica(1).1) });
        world.settle();
        assert_eq!(world.members.voters.len(), 1, "who goes, goes for good");
    }

    #[test]
    fn every_node_that_joins_observes_and_one_whose_store_was_replaced_does_so_anew() {
        let mut world = World::new(3, 3, ShardId::METADATA);
        let join = Command::AddNode {
            node: NodeId(9),
            store: StoreId(900),
            address: "host-9:1".to_owned(),
            zone: String::new(),
        };
        apply(&mut world.cluster, &join);
        world.settle();
        assert_eq!(world.members.learners.len(), 1);
        let before = world.members.learners.clone();
        apply(&mut world.cluster, &Command::ReplaceStore { node: NodeId(9), store: StoreId(901) });
        world.settle();
        assert!(world.members.learners.len() == 1 && world.members.learners != before);
        world.begin(Some(9), None);
        world.settle();
        assert!(world.members.learners.is_empty() && world.members.voters.len() == 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_leaders_do_that_look_at_older_states_the_newest_puts_it_right(
            moves in proptest::collection::vec(
                (1_u64..=5, 1_u64..=5, any::<bool>(), 0_usize..6, any::<prop::sample::Index>(), 0_usize..4),
                1..8,
            ),
        ) {
            let mut world = World::new(5, 3, SHARD);
            let mut states = vec![world.cluster.clone()];
            for (add, remove, takes, steps, older, again) in moves {
                let placement = world.cluster.placement(SHARD).unwrap().replicas.clone();
                let fits = !placement.contains_key(&NodeId(add)) && placement.contains_key(&NodeId(remove));
                if fits && world.cluster.moves().is_empty() {
                    world.begin(Some(add), Some(remove));
                }
                world.takes = takes;
                for _ in 0..steps {
                    world.go();
                    states.push(world.cluster.clone());
                }
                for _ in 0..again {
                    let state = states[older.index(states.len())].clone();
                    world.act(&state);
                }
            }
            world.takes = true;
            world.settle();
        }

        #[test]
        fn removals_end_whoever_dies_meanwhile_and_whatever_state_leaders_look_at(
            copies in prop_oneof![Just(3_usize), Just(5)],
            steps in proptest::collection::vec((0_u8..5, any::<prop::sample::Index>()), 1..40),
        ) {
            let mut world = World::new(5, copies, SHARD);
            let mut states = vec![world.cluster.clone()];
            for (step, pick) in steps {
                let placed = world.cluster.placement(SHARD).unwrap().replicas.len();
                let (node, replica) = world.replica(pick.index(placed));
                match step {
                    0 if placed > 1 && world.cluster.moves().is_empty() => world.begin(None, Some(node)),
                    0 | 1 => drop(world.go()),
                    2 => drop(world.act(&states[pick.index(states.len())].clone())),
                    3 => world.kill(replica),
                    _ => drop(world.dead.remove(&replica)),
                }
                states.push(world.cluster.clone());
            }
            world.settle();
        }
    }
}
