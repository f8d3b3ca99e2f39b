//! The words of the metadata group: what may be proposed, what became of it, and why it was refused. What they do to the
//! state is in `apply`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterError, Member, decode, encode};
use crate::class::Class;
use crate::id::{ClusterId, Epoch, NodeId, ReplicaId, ShardId, StoreId};
use crate::limits;
use crate::placement::{MemberState, Move, MoveId, MoveReason, PlacementError, ShardMap};

/// A change of the replicated state. New ones are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Fixes the cluster, its nodes and their stores; the first command, and the same whoever proposes it.
    Form {
        /// The cluster.
        cluster: ClusterId,
        /// Its first nodes.
        members: BTreeMap<NodeId, Member>,
        /// The highest replica id in use, by the metadata group itself.
        highest_replica: ReplicaId,
    },
    /// Says where the shards of a new cluster live, once; after that replicas move.
    PlaceShards {
        /// The map; its epoch is the next one.
        map: ShardMap,
    },
    /// Begins a move. The replica that joins gets its id here.
    BeginMove {
        /// The shard, or the metadata group.
        shard: ShardId,
        /// Where a replica comes.
        add: Option<NodeId>,
        /// Where one goes; the same node as `add` where its store was lost.
        remove: Option<NodeId>,
        /// What for.
        why: MoveReason,
        /// The epoch of the shard map that the move was planned on.
        expects: Epoch,
    },
    /// The group has the members that the move was for: its placement is now the new one.
    EndMove {
        /// The move.
        id: MoveId,
    },
    /// The move is given up, and with it the replica that was to join; nothing else has changed. Only before it is
    /// confirmed.
    CancelMove {
        /// The move.
        id: MoveId,
    },
    /// A new node belongs to the cluster.
    AddNode {
        /// Its id, never used before.
        node: NodeId,
        /// Its data folder.
        store: StoreId,
        /// Where its peers reach it.
        address: String,
        /// Its zone; empty: none.
        zone: String,
    },
    /// A node is to be emptied.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// A node that was to be emptied is not.
    UndrainNode {
        /// The node.
        node: NodeId,
    },
    /// A node without replicas leaves for ever.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// A node has come back with another data folder: what it held is lost.
    ReplaceStore {
        /// The node.
        node: NodeId,
        /// Its data folder from now on.
        store: StoreId,
    },
    /// How many copies each shard has from now on.
    SetReplication {
        /// 1, 3 or 5.
        copies: u32,
    },
    /// The replica that joins has caught up: from now on its group may change its members, and the move ends.
    ConfirmMove {
        /// The move.
        id: MoveId,
    },
    /// A confirmed removal cannot go on without a dead replica, which therefore goes as well.
    WidenMove {
        /// The move.
        id: MoveId,
        /// Where the dead replica is.
        remove: NodeId,
    },
}

impl Command {
    /// Its bytes, for a proposal.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a proposal's bytes.
    ///
    /// # Errors
    /// `Version` or `Undecodable` for bytes that `encode` of this version does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        decode("a command of the metadata group", bytes)
    }
}

/// What became of a command, on every node alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A leader's first entry, or a command that repeats what is: nothing changed.
    Nothing,
    /// The cluster has its identity.
    Formed {
        /// It.
        cluster: ClusterId,
    },
    /// The shards have their places.
    Placed {
        /// The version of the shard map.
        epoch: Epoch,
    },
    /// A move is under way.
    Began {
        /// It, with the replica that joins.
        begun: Move,
    },
    /// A move has ended.
    Ended {
        /// It.
        ended: Move,
        /// The version of the shard map.
        epoch: Epoch,
    },
    /// The members of a group may change as a move says.
    Confirmed {
        /// It.
        confirmed: Move,
    },
    /// Another replica goes with a move.
    Widened {
        /// The move as it is now.
        widened: Move,
    },
    /// A move was given up.
    Cancelled {
        /// It.
        cancelled: Move,
    },
    /// A node is new, or belongs to the cluster in another way than before.
    NodeChanged {
        /// The node.
        node: NodeId,
        /// How.
        state: MemberState,
    },
    /// A node has another store.
    StoreReplaced {
        /// The node.
        node: NodeId,
        /// How many voting or joining replicas were lost with the old one.
        lost: usize,
    },
    /// Shards have another number of copies from now on.
    ReplicationSet {
        /// How many.
        copies: u32,
    },
    /// The command does not fit the state, which is as before.
    Refused {
        /// Why.
        why: CommandRefusal,
    },
}

/// Why a command does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The cluster was formed as another one.
    #[error("the cluster is {ours} already and cannot become {theirs}")]
    OtherCluster {
        /// What it is.
        ours: ClusterId,
        /// What was proposed.
        theirs: ClusterId,
    },
    /// The first members are unusable.
    #[error("{members} members, their stores or addresses do not make a cluster")]
    Members {
        /// How many there were.
        members: usize,
    },
    /// Nothing else can be done before the cluster is formed.
    #[error("the cluster is not formed yet")]
    NotFormed,
    /// Nothing can be moved before the shards are placed.
    #[error("the shards are not placed yet")]
    NotPlaced,
    /// The shards were placed before; from then on replicas move.
    #[error("the shards are placed already, the map has epoch {epoch}")]
    AlreadyPlaced {
        /// The epoch there is.
        epoch: Epoch,
    },
    /// The first map has not the epoch that comes next.
    #[error("the shard map of epoch {theirs} does not follow on {ours}")]
    Epoch {
        /// The epoch there is.
        ours: Epoch,
        /// The epoch proposed.
        theirs: Epoch,
    },
    /// The map is unusable in itself.
    #[error("the shard map is not usable")]
    Map(#[from] PlacementError),
    /// The node is unknown.
    #[error("node {node} is no member of the cluster")]
    NoMember {
        /// The node.
        node: NodeId,
    },
    /// A replica id was given out before.
    #[error("replica {replica} was used before")]
    ReplicaReused {
        /// The replica.
        replica: ReplicaId,
    },
    /// The move was planned on a map that is no longer the one.
    #[error("the move was planned on the shard map of epoch {expected}, it is {ours} by now")]
    Outdated {
        /// The epoch there is.
        ours: Epoch,
        /// The epoch it was planned on.
        expected: Epoch,
    },
    /// There is no such shard.
    #[error("there is no {shard}")]
    NoShard {
        /// The shard.
        shard: ShardId,
    },
    /// A move of nothing.
    #[error("the move of {shard} neither adds nor removes a replica")]
    EmptyMove {
        /// The shard.
        shard: ShardId,
    },
    /// One move of a shard at a time.
    #[error("move {id} of {shard} is under way")]
    UnderWay {
        /// The shard.
        shard: ShardId,
        /// Its move.
        id: MoveId,
    },
    /// The cluster has as many moves under way as it may.
    #[error("{moves} moves are under way, no more may be")]
    MovesFull {
        /// How many there are.
        moves: usize,
    },
    /// The node has as many replicas on their way to it as it may.
    #[error("{moves} moves onto node {node} are under way, no more may be")]
    NodeBusy {
        /// The node.
        node: NodeId,
        /// How many there are.
        moves: usize,
    },
    /// Nothing can go from where nothing is.
    #[error("node {node} holds no replica of {shard}")]
    NotHeld {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// A node holds at most one replica of a shard.
    #[error("node {node} holds a replica of {shard} already")]
    Held {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// The node is given nothing.
    #[error("node {node} is {state}")]
    NotActive {
        /// The node.
        node: NodeId,
        /// How it belongs to the cluster.
        state: MemberState,
    },
    /// The last replica cannot go.
    #[error("the replica on node {node} is the last of {shard}")]
    LastReplica {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// The shard has as many replicas as it may.
    #[error("{shard} has {replicas} replicas, it may not have more")]
    ReplicasFull {
        /// The shard.
        shard: ShardId,
        /// How many there are.
        replicas: usize,
    },
    /// No such move is under way.
    #[error("there is no move {id} under way")]
    NoMove {
        /// The move.
        id: MoveId,
    },
    /// The members of the group may have changed already.
    #[error("move {id} is confirmed and cannot be given up any more")]
    Confirmed {
        /// The move.
        id: MoveId,
    },
    /// The move is not one that another replica may go with.
    #[error("no other replica can go with move {id}: it is not confirmed, or adds one, or takes another along already")]
    NotWidened {
        /// The move.
        id: MoveId,
    },
    /// The id is no node's.
    #[error("{node} is no id for a node, it must be from 1 to {}", u32::MAX)]
    NodeId {
        /// The id.
        node: NodeId,
    },
    /// The id is, or was, another node's.
    #[error("node {node} is known already ({state}); give the new node an id that was never used")]
    NodeUsed {
        /// The node.
        node: NodeId,
        /// How it belongs to the cluster.
        state: MemberState,
    },
    /// The data folder is, or was, another node's.
    #[error("data folder {store} is that of node {node}")]
    StoreUsed {
        /// The folder.
        store: StoreId,
        /// Whose it is.
        node: NodeId,
    },
    /// The address cannot be used.
    #[error("an address of {bytes} bytes is not from 1 to {}", limits::ADDRESS_BYTES_MAX)]
    Address {
        /// Its length.
        bytes: usize,
    },
    /// The address is another node's.
    #[error("node {node} has that address already")]
    AddressUsed {
        /// Whose it is.
        node: NodeId,
    },
    /// The zone cannot be used.
    #[error("a zone of {bytes} bytes has more than {}", limits::ZONE_BYTES_MAX)]
    Zone {
        /// Its length.
        bytes: usize,
    },
    /// The cluster has as many nodes as it may, or has had.
    #[error(
        "the cluster has {nodes} nodes and has had {ever}, it may have {} and {}",
        limits::NODES_MAX,
        limits::NODES_EVER_MAX
    )]
    NodesFull {
        /// How many there are.
        nodes: usize,
        /// How many there were, these included.
        ever: usize,
    },
    /// The node is not empty.
    #[error("node {node} holds replicas of {groups} groups, {first} among them")]
    NotEmpty {
        /// The node.
        node: NodeId,
        /// Of how many groups.
        groups: usize,
        /// One of them.
        first: ShardId,
    },
    /// The node takes part in a move.
    #[error("node {node} takes part in move {id} of {shard}")]
    InMove {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// Its move.
        id: MoveId,
    },
    /// Shards are not kept in that many copies.
    #[error("shards are kept in 1, 3 or 5 copies, not in {copies}")]
    Copies {
        /// What was asked for.
        copies: u32,
    },
    /// There are not enough nodes.
    #[error("{copies} copies need as many nodes, {nodes} are active")]
    TooFewNodes {
        /// What was asked for.
        copies: u32,
        /// How many there are.
        nodes: usize,
    },
    /// An id or the epoch would wrap around.
    #[error("no number is left for a replica, a move or the shard map")]
    NumbersSpent,
}

impl CommandRefusal {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            // It may fit once something else has happened.
            Self::NotFormed
            | Self::NotPlaced
            | Self::Epoch { .. }
            | Self::Outdated { .. }
            | Self::UnderWay { .. }
            | Self::MovesFull { .. }
            | Self::NodeBusy { .. }
            | Self::NotEmpty { .. }
            | Self::InMove { .. } => Class::Retry,
            Self::OtherCluster { .. }
            | Self::Members { .. }
            | Self::AlreadyPlaced { .. }
            | Self::Map(_)
            | Self::NoMember { .. }
            | Self::ReplicaReused { .. }
            | Self::NoShard { .. }
            | Self::EmptyMove { .. }
            | Self::NotHeld { .. }
            | Self::Held { .. }
            | Self::NotActive { .. }
            | Self::LastReplica { .. }
            | Self::ReplicasFull { .. }
            | Self::NoMove { .. }
            | Self::Confirmed { .. }
            | Self::NotWidened { .. }
            | Self::NodeId { .. }
            | Self::NodeUsed { .. }
            | Self::StoreUsed { .. }
            | Self::Address { .. }
            | Self::AddressUsed { .. }
            | Self::Zone { .. }
            | Self::NodesFull { .. }
            | Self::Copies { .. }
            | Self::TooFewNodes { .. }
            | Self::NumbersSpent => Class::Refuse,
        }
    }
}
