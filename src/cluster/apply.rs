//! What each command does to the state, or why it does not fit. Everything that can fail is looked at before anything is
//! changed: a command that is refused leaves no trace.

use std::collections::{BTreeMap, BTreeSet};

use super::{Applied, Cluster, Command, CommandRefusal, Formed, Member, cluster_id};
use crate::id::{ClusterId, Epoch, NodeId, ReplicaId, ShardId, StoreId};
use crate::limits;
use crate::placement::{MemberState, Move, MoveId, MoveReason, Placement, ReplicaIds, Seat, ShardMap};

type Outcome = Result<Applied, CommandRefusal>;

/// The number after this one.
fn next(number: u64) -> Result<u64, CommandRefusal> {
    number.checked_add(1).ok_or(CommandRefusal::NumbersSpent)
}

impl Cluster {
    pub(super) fn carry_out(&mut self, command: Command) -> Outcome {
        match command {
            Command::Form { cluster, members, highest_replica } => self.form(cluster, members, highest_replica),
            Command::PlaceShards { map } => self.place(map),
            Command::BeginMove { shard, add, remove, why, expects } => {
                self.begin_move(shard, add, remove, why, expects)
            }
            Command::EndMove { id } => self.end_move(id),
            Command::CancelMove { id } => self.cancel_move(id),
            Command::AddNode { node, store, address, zone } => {
                self.add_node(node, Member { store, address, state: MemberState::Active, zone })
            }
            Command::DrainNode { node } => self.set_state(node, MemberState::Draining),
            Command::UndrainNode { node } => self.set_state(node, MemberState::Active),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::ReplaceStore { node, store } => self.replace_store(node, store),
            Command::SetReplication { copies } => self.set_replication(copies),
            Command::ConfirmMove { id } => self.confirm_move(id),
            Command::WidenMove { id, remove } => self.widen_move(id, remove),
        }
    }

    fn form(&mut self, cluster: ClusterId, members: BTreeMap<NodeId, Member>, highest_replica: ReplicaId) -> Outcome {
        if let Some(ours) = self.identity {
            let same = ours == cluster;
            return if same {
                Ok(Applied::Nothing)
            } else {
                Err(CommandRefusal::OtherCluster { ours, theirs: cluster })
            };
        }
        let stores = members.iter().map(|(node, member)| (*node, member.store)).collect();
        let usable = (1..=limits::NODES_MAX).contains(&members.len())
            && !members.contains_key(&NodeId(0))
            && members.values().all(|member| {
                member.address.len() <= limits::ADDRESS_BYTES_MAX
                    && member.zone.len() <= limits::ZONE_BYTES_MAX
                    && member.state == MemberState::Active
            })
            && cluster_id(&stores) == cluster;
        if !usable {
            return Err(CommandRefusal::Members { members: members.len() });
        }
        let group = Formed { cluster, stores }.metadata_group();
        let in_use = group.replicas.values().copied().max().unwrap_or_default();
        let (voters, observers) = group.replicas.into_iter().partition(|(_, replica)| group.voters.contains(replica));
        self.identity = Some(cluster);
        self.members = members;
        self.metadata = Placement { shard: ShardId::METADATA, replicas: voters };
        self.observers = observers;
        self.replica_ids = ReplicaIds::after(highest_replica.max(in_use));
        Ok(Applied::Formed { cluster })
    }

    fn place(&mut self, map: ShardMap) -> Outcome {
        self.formed()?;
        let (ours, theirs) = (self.shards.epoch, map.epoch);
        if !self.shards.shards.is_empty() {
            return Err(CommandRefusal::AlreadyPlaced { epoch: ours });
        }
        if ours.0.checked_add(1) != Some(theirs.0) {
            return Err(CommandRefusal::Epoch { ours, theirs });
        }
        map.check()?;
        for placement in &map.shards {
            for (&node, &replica) in &placement.replicas {
                self.active(node)?;
                if replica <= self.replica_ids.highest() {
                    return Err(CommandRefusal::ReplicaReused { replica });
                }
            }
            let (shard, replicas) = (placement.shard, placement.replicas.len());
            if replicas > limits::REPLICATION_MAX as usize {
                return Err(CommandRefusal::ReplicasFull { shard, replicas });
            }
        }
        let most = map.shards.iter().map(|placement| placement.replicas.len()).max().unwrap_or_default();
        self.copies = u32::try_from(most).expect("at most as many as were just checked");
        self.replica_ids = ReplicaIds::after(self.replica_ids.highest().max(map.highest_replica()));
        let founders = |placement: &Placement| (placement.shard, placement.replicas.values().copied().collect());
        self.founders = map.shards.iter().map(founders).collect();
        self.shards = map;
        Ok(Applied::Placed { epoch: theirs })
    }

    fn begin_move(
        &mut self,
        shard: ShardId,
        add: Option<NodeId>,
        remove: Option<NodeId>,
        why: MoveReason,
        expects: Epoch,
    ) -> Outcome {
        self.placed()?;
        if expects != self.shards.epoch {
            return Err(CommandRefusal::Outdated { ours: self.shards.epoch, expected: expects });
        }
        let placement = self.placement(shard).ok_or(CommandRefusal::NoShard { shard })?;
        if let Some(before) = self.moves.get(&shard) {
            return Err(CommandRefusal::UnderWay { shard, id: before.id });
        }
        if self.moves.len() >= limits::MOVES_MAX {
            return Err(CommandRefusal::MovesFull { moves: self.moves.len() });
        }
        let gone = remove.map(|node| held(placement, node)).transpose()?;
        match (add, gone) {
            (None, None) => return Err(CommandRefusal::EmptyMove { shard }),
            (None, Some(Seat { node, .. })) if placement.replicas.len() == 1 => {
                return Err(CommandRefusal::LastReplica { shard, node });
            }
            (Some(_), None) if placement.replicas.len() >= replicas_max(shard) => {
                return Err(CommandRefusal::ReplicasFull { shard, replicas: placement.replicas.len() });
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
        if let Some(node) = add {
            self.check_target(placement, node, remove)?;
        }
        let id = MoveId(next(self.highest_move.0)?);
        let come = add.map(|node| self.seat_for(shard, node)).transpose()?;
        let begun = Move { id, shard, add: come, remove: gone, why, confirmed: false, also: None };
        self.replica_ids = ReplicaIds::after(self.replica_ids.highest().max(come.map_or(ReplicaId(0), |s| s.replica)));
        self.highest_move = id;
        self.moves.insert(shard, begun);
        Ok(Applied::Began { begun })
    }

    /// Whether a replica of a shard may come to a node, when that on `remove` goes.
    fn check_target(&self, placement: &Placement, node: NodeId, remove: Option<NodeId>) -> Result<(), CommandRefusal> {
        self.active(node)?;
        if let Some(replica) = placement.replicas.get(&node) {
            // Only where the replica there is lost and goes: a node never holds two of one shard.
            if remove != Some(node) || !self.lost.contains(replica) {
                return Err(CommandRefusal::Held { shard: placement.shard, node });
            }
        }
        let onto = self.moves.values().filter(|under_way| under_way.add.is_some_and(|seat| seat.node == node));
        let moves = onto.count();
        if moves >= limits::MOVES_PER_NODE_MAX {
            return Err(CommandRefusal::NodeBusy { node, moves });
        }
        Ok(())
    }

    /// The replica that is to vote on a node. Of the metadata group every node has one that observes, and that is it.
    fn seat_for(&self, shard: ShardId, node: NodeId) -> Result<Seat, CommandRefusal> {
        let observer = self.observers.get(&node).copied().filter(|_| shard == ShardId::METADATA);
        let replica = match observer {
            Some(replica) => replica,
            None => ReplicaId(next(self.replica_ids.highest().0)?),
        };
        Ok(Seat { node, replica })
    }

    fn end_move(&mut self, id: MoveId) -> Outcome {
        let ended = self.under_way(id)?;
        let epoch = Epoch(next(self.shards.epoch.0)?);
        if ended.shard == ShardId::METADATA {
            (self.metadata, self.observers) = self.metadata_after(&ended);
        } else {
            let placement = self.shards.shards.iter_mut().find(|placement| placement.shard == ended.shard);
            let placement = placement.ok_or(CommandRefusal::NoShard { shard: ended.shard })?;
            ended.carry_out(&mut placement.replicas);
        }
        self.shards.epoch = epoch;
        self.forget(&ended);
        Ok(Applied::Ended { ended, epoch })
    }

    fn confirm_move(&mut self, id: MoveId) -> Outcome {
        let shard = self.under_way(id)?.shard;
        let confirmed = self.moves.get_mut(&shard).ok_or(CommandRefusal::NoMove { id })?;
        if std::mem::replace(&mut confirmed.confirmed, true) {
            return Ok(Applied::Nothing);
        }
        Ok(Applied::Confirmed { confirmed: *confirmed })
    }

    fn widen_move(&mut self, id: MoveId, node: NodeId) -> Outcome {
        let Move { shard, add, remove, also, confirmed, .. } = self.under_way(id)?;
        let placement = self.placement(shard).ok_or(CommandRefusal::NoShard { shard })?;
        let gone = held(placement, node)?;
        if also == Some(gone) {
            return Ok(Applied::Nothing);
        }
        let is_removal = add.is_none() && remove.is_some_and(|seat| seat != gone);
        if !confirmed || !is_removal || also.is_some() {
            return Err(CommandRefusal::NotWidened { id });
        }
        if placement.replicas.len() <= 2 {
            return Err(CommandRefusal::LastReplica { shard, node });
        }
        let widened = self.moves.get_mut(&shard).ok_or(CommandRefusal::NoMove { id })?;
        widened.also = Some(gone);
        Ok(Applied::Widened { widened: *widened })
    }

    fn cancel_move(&mut self, id: MoveId) -> Outcome {
        let cancelled = self.under_way(id)?;
        if cancelled.confirmed {
            return Err(CommandRefusal::Confirmed { id });
        }
        self.forget(&cancelled);
        Ok(Applied::Cancelled { cancelled })
    }

    fn under_way(&self, id: MoveId) -> Result<Move, CommandRefusal> {
        self.moves.values().find(|under_way| under_way.id == id).copied().ok_or(CommandRefusal::NoMove { id })
    }

    /// A move is over, whichever way; of lost replicas only those count that still have a seat.
    fn forget(&mut self, over: &Move) {
        self.moves.remove(&over.shard);
        let seated = self.seated();
        self.lost.retain(|replica| seated.contains(replica));
    }

    /// The replicas that vote in any group or are about to.
    fn seated(&self) -> BTreeSet<ReplicaId> {
        let voters = self.groups().flat_map(|placement| placement.replicas.values().copied());
        let joining = self.moves.values().filter_map(|under_way| under_way.add.map(|seat| seat.replica));
        voters.chain(joining).collect()
    }

    fn add_node(&mut self, node: NodeId, member: Member) -> Outcome {
        self.formed()?;
        if !(1..=u64::from(u32::MAX)).contains(&node.0) {
            return Err(CommandRefusal::NodeId { node });
        }
        if let Some(before) = self.members.get(&node) {
            let state = before.state;
            let same = *before == Member { state, ..member } && state != MemberState::Removed;
            return if same { Ok(Applied::Nothing) } else { Err(CommandRefusal::NodeUsed { node, state }) };
        }
        if !(1..=limits::ADDRESS_BYTES_MAX).contains(&member.address.len()) {
            return Err(CommandRefusal::Address { bytes: member.address.len() });
        }
        if member.zone.len() > limits::ZONE_BYTES_MAX {
            return Err(CommandRefusal::Zone { bytes: member.zone.len() });
        }
        self.check_store(member.store)?;
        let present = self.members.iter().filter(|(_, other)| other.state != MemberState::Removed);
        if let Some((node, _)) = present.clone().find(|(_, other)| other.address == member.address) {
            return Err(CommandRefusal::AddressUsed { node: *node });
        }
        let (nodes, ever) = (present.count(), self.members.len());
        if nodes >= limits::NODES_MAX || ever >= limits::NODES_EVER_MAX {
            return Err(CommandRefusal::NodesFull { nodes, ever });
        }
        let observer = ReplicaId(next(self.replica_ids.highest().0)?);
        self.replica_ids = ReplicaIds::after(observer);
        self.observers.insert(node, observer);
        let state = member.state;
        self.members.insert(node, member);
        Ok(Applied::NodeChanged { node, state })
    }

    /// Between active and draining.
    fn set_state(&mut self, node: NodeId, state: MemberState) -> Outcome {
        let before = self.present(node)?.state;
        if before == state {
            return Ok(Applied::Nothing);
        }
        self.members.entry(node).and_modify(|member| member.state = state);
        Ok(Applied::NodeChanged { node, state })
    }

    fn remove_node(&mut self, node: NodeId) -> Outcome {
        self.formed()?;
        let member = self.members.get(&node).ok_or(CommandRefusal::NoMember { node })?;
        if member.state == MemberState::Removed {
            return Ok(Applied::Nothing);
        }
        if let Some(under_way) = self.moves.values().find(|under_way| under_way.involves(node)) {
            return Err(CommandRefusal::InMove { node, shard: under_way.shard, id: under_way.id });
        }
        let holding =
            self.groups().filter(|placement| placement.replicas.contains_key(&node)).map(|placement| placement.shard);
        let holding: Vec<ShardId> = holding.collect();
        if let Some(&first) = holding.first() {
            return Err(CommandRefusal::NotEmpty { node, groups: holding.len(), first });
        }
        let state = MemberState::Removed;
        self.observers.remove(&node);
        self.members.entry(node).and_modify(|member| member.state = state);
        Ok(Applied::NodeChanged { node, state })
    }

    fn replace_store(&mut self, node: NodeId, store: StoreId) -> Outcome {
        if self.present(node)?.store == store {
            return Ok(Applied::Nothing);
        }
        self.check_store(store)?;
        let voters = self.groups().filter_map(|placement| placement.replicas.get(&node).copied());
        let joining = self.moves.values().filter_map(|under_way| under_way.add).filter(|seat| seat.node == node);
        let gone: BTreeSet<ReplicaId> = voters.chain(joining.map(|seat| seat.replica)).collect();
        let lost = gone.difference(&self.lost).count();
        let observer = ReplicaId(next(self.replica_ids.highest().0)?);
        // Whatever was planned on these replicas is outdated.
        let epoch = if lost > 0 { Epoch(next(self.shards.epoch.0)?) } else { self.shards.epoch };
        self.replica_ids = ReplicaIds::after(observer);
        self.observers.insert(node, observer);
        self.shards.epoch = epoch;
        if !mutant!(ReplicaIdReused) {
            self.lost.extend(gone);
        }
        self.members.entry(node).and_modify(|member| member.store = store);
        Ok(Applied::StoreReplaced { node, lost })
    }

    fn set_replication(&mut self, copies: u32) -> Outcome {
        self.placed()?;
        if !limits::REPLICATION_ALLOWED.contains(&copies) {
            return Err(CommandRefusal::Copies { copies });
        }
        let nodes = self.members.values().filter(|member| member.state == MemberState::Active).count();
        if (copies as usize) > nodes {
            return Err(CommandRefusal::TooFewNodes { copies, nodes });
        }
        if copies == self.copies {
            return Ok(Applied::Nothing);
        }
        self.copies = copies;
        Ok(Applied::ReplicationSet { copies })
    }

    fn formed(&self) -> Result<(), CommandRefusal> {
        self.identity.map(|_| ()).ok_or(CommandRefusal::NotFormed)
    }

    fn placed(&self) -> Result<(), CommandRefusal> {
        self.formed()?;
        if self.shards.shards.is_empty() { Err(CommandRefusal::NotPlaced) } else { Ok(()) }
    }

    /// A member that was not removed.
    fn present(&self, node: NodeId) -> Result<&Member, CommandRefusal> {
        self.formed()?;
        let member = self.members.get(&node).ok_or(CommandRefusal::NoMember { node })?;
        match member.state {
            MemberState::Removed => Err(CommandRefusal::NotActive { node, state: member.state }),
            MemberState::Active | MemberState::Draining => Ok(member),
        }
    }

    /// Whether a node is given replicas.
    fn active(&self, node: NodeId) -> Result<(), CommandRefusal> {
        let state = self.members.get(&node).ok_or(CommandRefusal::NoMember { node })?.state;
        if state == MemberState::Active { Ok(()) } else { Err(CommandRefusal::NotActive { node, state }) }
    }

    /// Whether no other node has, or had, this data folder.
    fn check_store(&self, store: StoreId) -> Result<(), CommandRefusal> {
        match self.members.iter().find(|(_, member)| member.store == store) {
            Some((node, _)) => Err(CommandRefusal::StoreUsed { store, node: *node }),
            None => Ok(()),
        }
    }
}

/// The replica of a shard on a node.
fn held(placement: &Placement, node: NodeId) -> Result<Seat, CommandRefusal> {
    let replica = placement.replicas.get(&node).copied();
    let replica = replica.ok_or(CommandRefusal::NotHeld { shard: placement.shard, node })?;
    Ok(Seat { node, replica })
}

/// How many replicas of a group may vote.
fn replicas_max(shard: ShardId) -> usize {
    if shard == ShardId::METADATA { limits::METADATA_VOTERS_MAX } else { limits::REPLICATION_MAX as usize }
}
