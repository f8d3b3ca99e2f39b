//! The identifiers of Millpond as newtypes, so that one cannot stand for another.
//!
//! This room imports nothing and knows nothing of what the numbers identify.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// A node of the cluster, as its configuration numbers it; never zero.
    NodeId(u64)
}
number! {
    /// A replica of one group. Given out once and never again, also not for the same node; never zero.
    ReplicaId(u64)
}
number! {
    /// A Raft term.
    Term(u64)
}
number! {
    /// A position in a group's log; the first entry has index 1.
    Index(u64)
}
number! {
    /// The position of a record in its shard; contiguous from 0 and immutable.
    Offset(u64)
}
number! {
    /// The version of the shard map.
    Epoch(u64)
}
number! {
    /// One life of a replica's actor on one node; larger is newer. Completions of an older one are dropped.
    Incarnation(u64)
}
number! {
    /// One life of a node's process; larger is newer.
    Boot(u64)
}

/// A group of replicas: a shard of records, or the metadata group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The metadata group: members, shard map, tenants, epochs. It holds no records.
    pub const METADATA: Self = Self(u32::MAX);
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::METADATA { f.write_str("metadata") } else { write!(f, "shard-{}", self.0) }
    }
}

macro_rules! wide {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

wide! {
    /// One data folder, drawn when it is first used. A wiped folder has another.
    StoreId
}
wide! {
    /// One cluster, fixed by the first entry of its metadata group.
    ClusterId
}
wide! {
    /// An idempotency key after hashing: tenant and the client's key, or the hash of the decompressed body.
    Key
}
