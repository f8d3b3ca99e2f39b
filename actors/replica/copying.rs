//! How a replica that its leader cannot help by entries any more gets a snapshot: the fetcher copies one into the group's
//! folder, and the replica begins a new life from it. Nothing is sealed meanwhile: a segment or a snapshot of the old
//! state must not come to lie over one that was copied.

use millpond::entry::Position;
use millpond::id::{NodeId, ReplicaId};
use millpond::limits;
use millpond::storage::copy::Arrived;

use super::{ReplicaMessage, ReplicaState};
use crate::transfer::fetcher::{FetchReply, FetcherMessage};

/// A snapshot that this replica needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    /// Who offered it.
    leader: ReplicaId,
    /// What it must reach.
    position: Position,
    /// Whether the fetcher was asked.
    begun: bool,
}

impl ReplicaState {
    /// A leader offers a snapshot. One that is offered while another is copied is remembered in case that one fails.
    pub(super) fn offered(&mut self, leader: ReplicaId, position: Position) {
        let begun = self.copying.is_some_and(|copying| copying.begun);
        self.copying = Some(Copying { leader, position, begun });
        self.begin_copy();
    }

    /// Asks for the copy as soon as nobody works in the folder.
    pub(super) fn begin_copy(&mut self) {
        if self.is_sealing() {
            return;
        }
        let Some(copying) = self.copying.as_mut().filter(|copying| !copying.begun) else { return };
        copying.begun = true;
        let Copying { leader, position, .. } = *copying;
        let myself = self.myself.clone();
        // A life that ended is offered a snapshot again.
        let reply = FetchReply::new(move |outcome| drop(myself.cast(ReplicaMessage::Copied(outcome))));
        let ask = FetcherMessage::Fetch { at_least: position.index, sources: self.sources(leader), reply };
        // A fetcher that is not there drops the reply, which says so.
        let _ = self.arguments.fetcher.cast(ask);
    }

    /// The nodes that may have a snapshot, that of the leader first.
    fn sources(&self, leader: ReplicaId) -> Vec<NodeId> {
        let others = self.homes.iter().filter(|(id, _)| **id != leader).map(|(_, node)| *node);
        self.home(leader).into_iter().chain(others).collect()
    }

    /// The fetcher is done.
    pub(super) fn copied(&mut self, outcome: Result<Arrived, String>) {
        let Some(copying) = self.copying.filter(|copying| copying.begun) else { return };
        let needed = |position| self.core.as_ref().is_some_and(|core| core.install_hard_state(position).is_some());
        match outcome {
            Ok(arrived) if needed(arrived.position) => {
                tracing::info!(
                    node = self.arguments.env.node.0, shard = %self.arguments.group.shard,
                    index = arrived.position.index.0, "snapshot installed"
                );
                self.myself.renew("it begins anew from a snapshot that was copied");
                return;
            }
            Ok(_) => {
                // What was offered meanwhile may be needed still.
                self.copying = None;
                self.retry_copy(copying.leader, copying.position);
                if self.copying.is_some() {
                    return;
                }
            }
            Err(why) => {
                let shard = self.arguments.group.shard;
                tracing::debug!(%shard, reason = %why, "the snapshot is asked for again");
                let retry = ReplicaMessage::RetryCopy { leader: copying.leader, position: copying.position };
                drop(self.myself.cast_after(limits::COPY_RETRY, retry));
            }
        }
        self.copying = None;
        self.carry_on_sealing();
    }

    /// Asks once more, if it is still needed; of whoever leads by now.
    pub(super) fn retry_copy(&mut self, leader: ReplicaId, position: Position) {
        let Some(core) = &self.core else { return };
        if self.copying.is_none() && core.install_hard_state(position).is_some() {
            self.offered(core.leader().unwrap_or(leader), position);
        }
    }
}
