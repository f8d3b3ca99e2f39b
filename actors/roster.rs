//! Which replicas have begun on this node, with which members, and which of them are gone for good: what must outlive
//! the replicas' own files. A replica that began anew on an empty log would have forgotten its votes.
//!
//! Kept in the registry as MessagePack: a map from the group's number to `[replica, members, gone]`, the members as
//! `Members::encode` writes them. It does not know what the cluster asks of the node.

use std::collections::BTreeMap;

use millpond::entry::Members;
use millpond::id::{ReplicaId, ShardId};
use millpond::storage::registry::Registry;
use millpond::storage::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::supervision::ActorError;

/// The latest replica of one group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    replica: ReplicaId,
    members: ByteBuf,
    gone: bool,
}

/// The latest replica of each group on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roster {
    entries: BTreeMap<ShardId, Entry>,
}

/// Whether a replica may run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has begun, with these members; what it remembers is in its files and its log.
    Begun(Members),
    /// It has not: it may begin, on an empty log.
    New,
    /// It, or a later one of its group, is gone: it must never run here again.
    Gone,
}

impl Roster {
    /// Reads it. Blocking.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(registry: &mut Registry) -> Result<Self, ActorError> {
        let Some(stored) = registry.roster()? else { return Ok(Self::default()) };
        Ok(rmp_serde::from_slice(&stored)?)
    }

    /// Writes it, durable when it returns. Blocking.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, registry: &mut Registry) -> Result<(), SnapshotError> {
        registry.set_roster(&rmp_serde::to_vec(self).expect("plain data always encodes"))
    }

    /// How a replica stands. Ids rise, so one that is lower than the latest of its group was here before it, or is heard
    /// of too late.
    ///
    /// # Errors
    /// The members it began with cannot be read.
    pub fn standing(&self, shard: ShardId, replica: ReplicaId) -> Result<Standing, ActorError> {
        let Some(entry) = self.entries.get(&shard).filter(|entry| entry.replica >= replica) else {
            return Ok(Standing::New);
        };
        if entry.gone || entry.replica > replica {
            return Ok(Standing::Gone);
        }
        Ok(Standing::Begun(Members::decode(&entry.members)?))
    }

    /// A replica begins with these members.
    ///
    /// # Panics
    /// If it may not: a programmer error.
    pub fn begin(&mut self, shard: ShardId, replica: ReplicaId, members: &Members) {
        assert!(
            self.entries.get(&shard).is_none_or(|entry| entry.gone && entry.replica < replica),
            "{shard} has a replica here that is not gone"
        );
        let members = ByteBuf::from(members.encode());
        self.entries.insert(shard, Entry { replica, members, gone: false });
    }

    /// A replica is gone for good. Whether that is news.
    pub fn bury(&mut self, shard: ShardId, replica: ReplicaId) -> bool {
        let entry = self.entries.get_mut(&shard).filter(|entry| entry.replica == replica);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.gone, true))
    }

    /// The replicas that have begun and are not gone.
    pub fn living(&self) -> impl Iterator<Item = (ShardId, ReplicaId)> {
        self.entries.iter().filter(|(_, entry)| !entry.gone).map(|(shard, entry)| (*shard, entry.replica))
    }

    /// The replicas that are gone, of groups that have no other here.
    pub fn gone(&self) -> impl Iterator<Item = (ShardId, ReplicaId)> {
        self.entries.iter().filter(|(_, entry)| entry.gone).map(|(shard, entry)| (*shard, entry.replica))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millpond::storage::disk::Disk;
    use millpond::storage::lossy::LossyDisk;

    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_replica_that_is_gone_never_runs_again_nor_does_one_before_it() {
        let mut roster = Roster::default();
        let members = Members::of([ReplicaId(5), ReplicaId(6)], []);
        assert_eq!(roster.standing(SHARD, ReplicaId(5)).unwrap(), Standing::New);
        roster.begin(SHARD, ReplicaId(5), &members);
        assert_eq!(roster.standing(SHARD, ReplicaId(5)).unwrap(), Standing::Begun(members));
        assert!(roster.bury(SHARD, ReplicaId(5)) && !roster.bury(SHARD, ReplicaId(5)));
        roster.begin(SHARD, ReplicaId(9), &Members::default());
        for (replica, standing) in
            [(5, Standing::Gone), (7, Standing::Gone), (9, Standing::Begun(Members::default())), (10, Standing::New)]
        {
            assert_eq!(roster.standing(SHARD, ReplicaId(replica)).unwrap(), standing, "replica {replica}");
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut registry = Registry::open(&(Arc::new(LossyDisk::new(1)) as Arc<dyn Disk>)).unwrap();
        assert_eq!(Roster::read(&mut registry).unwrap(), Roster::default());
        let mut roster = Roster::default();
        roster.begin(SHARD, ReplicaId(5), &Members::of([ReplicaId(5)], [ReplicaId(6)]));
        roster.begin(ShardId(4), ReplicaId(7), &Members::default());
        roster.bury(ShardId(4), ReplicaId(7));
        roster.write(&mut registry).unwrap();
        let read = Roster::read(&mut registry).unwrap();
        assert_eq!(read, roster);
        assert_eq!(read.living().collect::<Vec<_>>(), [(SHARD, ReplicaId(5))]);
        assert_eq!(read.gone().collect::<Vec<_>>(), [(ShardId(4), ReplicaId(7))]);
    }
}
