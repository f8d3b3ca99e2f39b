//! How a replica stands, for those who look at it. Nothing here changes anything.

use raft::{ProgressState, StateRole};

use super::super::Role;
use super::{Replica, replica};
use crate::entry::{Members, Position};
use crate::id::{Index, ReplicaId, ShardId, Term};

/// How a leader sees another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: ReplicaId,
    /// Whether it only follows.
    pub learner: bool,
    /// The last entry it is known to hold durably.
    pub matched: Index,
    /// The entry it is sent next; a leader in step with it has sent those before.
    pub next: Index,
    /// Whether it was heard of within the last one or two election timeouts.
    pub active: bool,
    /// What the leader does about it.
    pub state: PeerState,
}

/// What a leader does about a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It looks for the last entry that both have.
    Probing,
    /// It sends entries as they come.
    Replicating,
    /// It has offered a snapshot, since the entries the follower needs were trimmed, and waits.
    NeedsSnapshot,
}

/// A replica at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its group.
    pub shard: ShardId,
    /// Itself.
    pub id: ReplicaId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The last entry that is gone.
    pub trimmed: Index,
    /// The last entry that is not in memory.
    pub evicted: Index,
    /// The last entry that the state machine holds.
    pub applied: Index,
    /// The last entry known to be committed.
    pub committed: Index,
    /// The last entry known to be durable here.
    pub persisted: Index,
    /// The last entry.
    pub last: Index,
    /// Payload bytes of the log in memory.
    pub log_bytes: usize,
    /// Proposals that wait to be committed.
    pub proposals_waiting: usize,
    /// Reads that wait for an index.
    pub reads_waiting: usize,
    /// The members, as far as entries were given out to be applied.
    pub members: Members,
    /// The other replicas, in order of their ids; empty unless this one leads.
    pub peers: Vec<PeerStatus>,
}

impl Replica {
    /// Its group.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Itself.
    pub fn id(&self) -> ReplicaId {
        ReplicaId(self.raw.raft.id)
    }

    /// What it is.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower if self.raw.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Who leads, if known.
    pub fn leader(&self) -> Option<ReplicaId> {
        replica(self.raw.raft.leader_id)
    }

    /// Where a request may go that cannot stay here.
    pub(super) fn other_leader(&self) -> Option<ReplicaId> {
        self.leader().filter(|leader| *leader != self.id())
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// The last entry that the state machine said it holds.
    pub fn applied(&self) -> Index {
        Index(self.raw.raft.raft_log.applied)
    }

    /// The last entry known to be durable here.
    pub fn persisted(&self) -> Index {
        Index(self.raw.raft.raft_log.persisted)
    }

    /// The first entry of the log.
    pub fn first_index(&self) -> Index {
        Index(self.trimmed().index.0 + 1)
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The last entry that is gone.
    pub fn trimmed(&self) -> Position {
        self.raw.store().trimmed()
    }

    /// Index and term of an entry of the log, or of the last that was trimmed.
    pub fn position(&self, index: Index) -> Option<Position> {
        self.raw.store().term_at(index).map(|term| Position { index, term })
    }

    /// The members, as far as entries were given out to be applied.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The members as of an entry that was given out, not older than the newest snapshot: what a snapshot as of it must
    /// name. `None` for an older one.
    pub fn members_at(&self, index: Index) -> Option<&Members> {
        self.configurations.range(..=index).next_back().map(|(_, members)| members)
    }

    /// The other replicas as a leader sees them, in order of their ids; empty unless this one leads.
    pub fn peers(&self) -> Vec<PeerStatus> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let peer = |(id, progress): (&u64, &raft::Progress)| {
            let id = ReplicaId(*id);
            let state = match progress.state {
                ProgressState::Replicate => PeerState::Replicating,
                ProgressState::Probe => PeerState::Probing,
                ProgressState::Snapshot => PeerState::NeedsSnapshot,
            };
            PeerStatus {
                id,
                learner: self.members.learners.contains(&id),
                matched: Index(progress.matched),
                next: Index(progress.next_idx),
                active: progress.recent_active || self.heard.0 == self.term() && self.heard.1.contains(&id),
                state,
            }
        };
        let mut peers: Vec<_> = self.raw.raft.prs().iter().map(peer).filter(|peer| peer.id != self.id()).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// Before a tick in which a leader checks for its quorum: from then on raft-rs knows of nobody that he was heard of.
    /// Whoever looks once in such a period, as callers do that count the same ticks, would never see anybody.
    pub(super) fn note_who_was_heard(&mut self) {
        let raft = &self.raw.raft;
        if raft.state == StateRole::Leader && raft.election_elapsed + 1 >= raft.election_timeout() {
            let heard = raft.prs().iter().filter(|(_, progress)| progress.recent_active);
            self.heard = (self.term(), heard.map(|(id, _)| ReplicaId(*id)).collect());
        }
    }

    /// Everything at a glance.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            shard: self.shard,
            id: self.id(),
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            trimmed: self.trimmed().index,
            evicted: self.raw.store().evicted(),
            applied: self.applied(),
            committed: self.committed(),
            persisted: self.persisted(),
            last: self.last_index(),
            log_bytes: self.raw.store().bytes(),
            proposals_waiting: self.proposals.len(),
            reads_waiting: self.reads.waiting(),
            members: self.members.clone(),
            peers: self.peers(),
        }
    }
}
