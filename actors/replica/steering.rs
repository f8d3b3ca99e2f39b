//! How a leader brings the members of its group to what the cluster wants, one step at a time. What the next step is,
//! `cluster` says; whether it was taken is seen in the members. Nothing is remembered: a leader that falls leaves the
//! rest to the next one.

use std::collections::BTreeSet;

use millpond::cluster::{Group, Step};
use millpond::consensus::{Change, Event, PeerState, PeerStatus, Role};
use millpond::id::{Index, ReplicaId, ShardId};
use millpond::limits;

use super::ReplicaState;
use crate::supervision::ActorError;

impl ReplicaState {
    /// Takes the next step, if this replica leads and there is one to take.
    pub(super) fn steer(&mut self) -> Result<(), ActorError> {
        let Some(core) = self.core.as_ref().filter(|core| core.role() == Role::Leader) else { return Ok(()) };
        let cluster = self.arguments.board.cluster().borrow().clone();
        let (leader, caught_up) = (core.id(), self.caught_up());
        let group = Group { shard: self.arguments.group.shard, leader, members: core.members(), caught_up: &caught_up };
        let change = match cluster.next_step(group) {
            Step::Rest => return Ok(()),
            Step::HandOver => return self.hand_over(&caught_up),
            Step::AddLearner(id) => Change::AddLearner(id),
            Step::RemoveLearner(id) => Change::RemoveLearner(id),
            Step::Replace { add, remove } => Change::Replace { add, remove },
        };
        let ticket = self.ticket();
        tracing::debug!(shard = %self.arguments.group.shard, ?change, "a change of members is proposed");
        self.advance(Event::Change { ticket, change })
    }

    /// The replicas that follow this leader closely. One that has all there is may still be probed: raft-rs goes over to
    /// replicating with the next entry, which in a quiet group does not come.
    pub(super) fn caught_up(&self) -> BTreeSet<ReplicaId> {
        let Some(core) = &self.core else { return BTreeSet::new() };
        let close = Index(core.committed().0.saturating_sub(limits::CAUGHT_UP_ENTRIES));
        let follows = |peer: &PeerStatus| match peer.state {
            PeerState::Replicating => peer.active && peer.matched >= close,
            PeerState::Probing => peer.active && peer.matched >= core.committed(),
            PeerState::NeedsSnapshot => false,
        };
        core.peers().iter().filter(|peer| follows(peer)).map(|peer| peer.id).collect()
    }

    /// Lets another voter lead, of those that follow closely the one that is furthest.
    fn hand_over(&mut self, caught_up: &BTreeSet<ReplicaId>) -> Result<(), ActorError> {
        let Some(core) = &self.core else { return Ok(()) };
        let able = |peer: &&PeerStatus| {
            // The metadata group decides also where disks are full.
            let metadata = self.arguments.group.shard == ShardId::METADATA;
            let fit = metadata || self.home(peer.id).is_some_and(|node| self.arguments.board.is_peer_fit(node));
            caught_up.contains(&peer.id) && !peer.learner && fit
        };
        let peers = core.peers();
        let Some(to) = peers.iter().filter(able).max_by_key(|peer| peer.matched).map(|peer| peer.id) else {
            return Ok(());
        };
        self.advance(Event::Transfer { to })
    }
}
