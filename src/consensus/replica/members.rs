//! Changes of members in one replica: proposed by a leader, applied by everybody in the order of the log.
//!
//! raft-rs would parse what is proposed to it as protobuf. So a change is appended past its `propose`, in the way in
//! which raft-rs appends the entry that leaves a joint configuration, after the same checks and one more: a new leader
//! waits until it has committed something. A configuration holds from the moment its entry is given out to be applied,
//! and a new one waits until the caller has applied the last.

use raft::StateRole;
use raft::eraftpb;

use super::super::changes;
use super::super::{Change, Committed, Effect, Refusal};
use super::Replica;
use crate::entry::Members;
use crate::id::Index;
use crate::limits;

impl Replica {
    pub(super) fn change(&mut self, ticket: u64, change: Change, effects: &mut Vec<Effect>) {
        match self.append_change(change) {
            Ok(()) => self.await_commit(ticket),
            Err(why) => effects.push(Effect::Refused { ticket, why }),
        }
    }

    fn append_change(&mut self, change: Change) -> Result<(), Refusal> {
        if !self.takes_proposals() {
            return Err(Refusal::NotLeader { leader: self.other_leader() });
        }
        let raft = &self.raw.raft;
        let is_settled = raft.commit_to_current_term() && !raft.has_pending_conf() && !self.members.is_joint();
        if !is_settled || self.proposals.len() >= limits::PROPOSALS_WAITING_MAX {
            return Err(Refusal::Busy);
        }
        let target = changes::target(&self.members, self.id(), change)?;
        let mut entry = eraftpb::Entry { data: target.encode(), ..Default::default() };
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        let raft = &mut self.raw.raft;
        if !raft.append_entry(&mut [entry]) {
            return Err(Refusal::Busy);
        }
        raft.pending_conf_index = raft.raft_log.last_index();
        raft.bcast_append();
        Ok(())
    }

    /// The caller has applied so much. Where that ends a joint configuration, raft-rs appends the entry that leaves it,
    /// and does not send it before the next heartbeat.
    pub(super) fn applied_through(&mut self, through: Index) {
        assert!(
            through >= self.applied() && through <= self.given,
            "{}: applied {through} is not in [{}, {}]",
            self.shard,
            self.applied(),
            self.given
        );
        let last = self.last_index();
        self.raw.advance_apply_to(through.0);
        if self.last_index() > last {
            self.raw.raft.bcast_append();
        }
    }

    /// Goes over to the configuration of a committed entry.
    pub(super) fn enter(&mut self, entry: &Committed, effects: &mut Vec<Effect>) {
        if entry.payload.is_empty() {
            // raft-rs refuses to leave where nothing is joint. No leader of this group proposes that.
            let _ = self.raw.apply_conf_change(&eraftpb::ConfChangeV2::default());
        } else {
            let target = Members::decode(&entry.payload).expect("entries are checked before they enter the log");
            self.go_over_to(&target);
        }
        let members = self.raft_members();
        if members == self.members {
            return;
        }
        self.members.clone_from(&members);
        self.configurations.insert(entry.index, members.clone());
        effects.push(Effect::Members { members, index: entry.index });
        if self.raw.raft.state == StateRole::Leader && !self.raw.raft.promotable() {
            self.resign();
        }
    }

    /// One change from the members before, which is all that a leader needs. A replica that did not know those takes
    /// over the new ones as they are.
    fn go_over_to(&mut self, target: &Members) {
        let step = changes::step(&self.members, target);
        let _ = self.raw.apply_conf_change(&step);
        if self.raft_members() != *target {
            let tracker = changes::tracker(target, self.knobs.inflight_appends_max, self.last_index());
            *self.raw.raft.mut_prs() = tracker;
            self.raw.raft.post_conf_change();
        }
    }

    fn raft_members(&self) -> Members {
        changes::members(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// A leader that was removed: not by a change of its own, which it refuses, but by one that it inherited. raft-rs
    /// would go on leading without counting itself, and panic. The most advanced voter is told to stand at once.
    fn resign(&mut self) {
        let matched = |id: &u64| self.raw.raft.prs().get(*id).map(|progress| progress.matched);
        let heir = self.members.voters.iter().map(|id| id.0).max_by_key(matched);
        let raft = &mut self.raw.raft;
        // Everybody who remains hears that the change is committed.
        raft.bcast_append();
        if let Some(heir) = heir {
            raft.send_timeout_now(heir);
        }
        raft.become_follower(raft.term, raft::INVALID_ID);
    }
}
