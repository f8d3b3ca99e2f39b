//! Snapshots, as far as consensus knows them: positions. A leader offers one to a follower that needs what was trimmed;
//! the follower says so to its caller, who fetches it and creates the replica anew.
//!
//! raft-rs never sees an offer on the receiving side: it would empty its log at once, long before the snapshot is here.
//! It sees a message of the same leader and term instead, which does for terms, timeouts and answers what the offer
//! would have done. The answer to an offer of what the follower holds already lets the leader go on with entries.

use bytes::Bytes;
use raft::{ProgressState, SnapshotStatus};

use super::super::changes;
use super::super::message::{Message, MessageKind};
use super::super::{ConsensusError, Effect, Role};
use super::Replica;
use crate::entry::{HardState, Members, Position};
use crate::id::{Index, ReplicaId, Term};
use crate::limits;

impl Replica {
    /// A snapshot is durable: from now on it is the one to offer.
    pub(super) fn snapshot_written(&mut self, through: Index) {
        assert!(through <= self.applied(), "{}: {through} is not applied and in no snapshot", self.shard);
        if through <= self.raw.store().snapshot_position().index {
            return;
        }
        let members = self.members_at(through).expect("it is newer than the last").clone();
        let position = self.position(through).expect("nothing is trimmed before it is in a snapshot");
        self.raw.mut_store().announce(position, changes::conf_state(&members));
        self.configurations = self.configurations.split_off(&through);
        self.configurations.insert(through, members);
    }

    pub(super) fn trim(&mut self, through: Index, effects: &mut Vec<Effect>) {
        let newest = self.raw.store().snapshot_position().index;
        assert!(through <= newest, "{}: {through} is in no snapshot and may not be trimmed", self.shard);
        if through > self.trimmed().index {
            self.raw.mut_store().trim(through);
            effects.push(Effect::Trimmed { position: self.trimmed() });
        }
    }

    /// Takes an offer that passed the guard.
    pub(super) fn receive_offer(&mut self, offer: Message, effects: &mut Vec<Effect>) -> Result<(), ConsensusError> {
        if offer.term < self.term() {
            return Ok(());
        }
        let (from, term, position) = (offer.from, offer.term, Position { index: offer.index, term: offer.log_term });
        let members = Members::decode(&offer.context).expect("the guard has read them");
        let needed = !self.holds(position);
        let heard = Message { log_term: Term(0), index: Index(0), commit: Index(0), context: Bytes::new(), ..offer };
        self.step_raft(if needed {
            Message { kind: MessageKind::Heartbeat, ..heard }
        } else if position.index <= self.committed() {
            // What lies before the commit index is answered with the commit index.
            Message { kind: MessageKind::Append, ..heard }
        } else {
            let Position { index, term: log_term } = position;
            Message { kind: MessageKind::Append, index, log_term, commit: index, ..heard }
        })?;
        let follows = self.term() == term && self.leader() == Some(from);
        if needed && follows && self.offered.replace((from, position)) != Some((from, position)) {
            effects.push(Effect::Offered { from, position, members });
        }
        Ok(())
    }

    /// Whether the log reaches a committed position, so that no snapshot through it is needed.
    fn holds(&self, position: Position) -> bool {
        position.index <= self.committed() || self.raw.raft.raft_log.match_term(position.index.0, position.term.0)
    }

    /// The hard state to persist together with a snapshot that takes the place of everything this replica holds; the
    /// replica is then created anew with the snapshot's members and an empty log, and must not be stepped in between.
    /// Its term and its vote are not forgotten.
    ///
    /// `None` where the replica has come to hold the position by itself: it goes on, and nothing must be replaced, for
    /// it may have answered for entries that the snapshot does not contain.
    pub fn install_hard_state(&self, position: Position) -> Option<HardState> {
        if self.holds(position) {
            return None;
        }
        let term = self.term().max(position.term);
        let vote = super::replica(self.raw.raft.vote).filter(|_| term == self.term());
        Some(HardState { term, vote, commit: position.index })
    }

    /// A peer that was offered a snapshot and knows as much to be committed holds it, however it came by it: it goes on
    /// with entries.
    pub(super) fn heard_commit(&mut self, peer: ReplicaId, commit: Index) {
        let offered = self.raw.raft.prs().get(peer.0).filter(|progress| progress.state == ProgressState::Snapshot);
        if self.role() == Role::Leader && offered.is_some_and(|progress| commit.0 >= progress.pending_snapshot) {
            self.end_offer(peer, SnapshotStatus::Finish);
        }
    }

    fn end_offer(&mut self, peer: ReplicaId, status: SnapshotStatus) {
        self.offers.remove(&peer);
        self.raw.report_snapshot(peer.0, status);
    }

    /// Gives offers up of which nothing was heard for too long. raft-rs makes them again with the next heartbeat.
    pub(super) fn tick_offers(&mut self) {
        let mut waiting = Vec::new();
        if self.role() == Role::Leader {
            let peers = self.raw.raft.prs().iter();
            waiting
                .extend(peers.filter(|(_, peer)| peer.state == ProgressState::Snapshot).map(|(id, _)| ReplicaId(*id)));
        }
        self.offers.retain(|peer, _| waiting.contains(peer));
        for peer in waiting {
            let ticks = self.offers.entry(peer).or_default();
            *ticks += 1;
            if *ticks >= limits::SNAPSHOT_OFFER_TICKS_MAX {
                self.end_offer(peer, SnapshotStatus::Failure);
            }
        }
    }
}
