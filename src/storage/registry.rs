//! What a node knows of itself: `meta.redb` with its identity and the replicas it holds.
//!
//! Two tables. `blobs`, from a name to bytes, holds `identity`, which only the caller reads. `groups`, from u32 shard,
//! holds 17 bytes: u64 replica id, u8 1 where a snapshot is registered, u64 its index. Each value is preceded by u64
//! xxh3-64 of the table's name, the key and the value; little-endian; verified at each read.
//!
//! The file is made under a temporary name and renamed; every commit is durable and repaired quickly. This file does
//! not know what an identity says.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, OpenMode};
use super::snapshot::{SnapshotError, create_file, database_on, failed, refused, verified};
use crate::id::{Index, ReplicaId, ShardId};

const FILE: &str = "meta.redb";
const FOLDER: &str = "";
const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
const GROUPS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("groups");
const IDENTITY: &str = "identity";
const GROUP_BYTES: usize = 17;

/// A replica that this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredReplica {
    /// The group: a shard, or the metadata group.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// The index of the snapshot it starts from; `None`: it starts from its log alone.
    pub snapshot: Option<Index>,
}

/// The node's `meta.redb`, open for reading and writing. Calls block.
pub struct Registry {
    database: Database,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens the file, or makes it where there is none.
    pub fn open(disk: &dyn Disk) -> Result<Self, SnapshotError> {
        let file = match disk.open(FILE, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_file(disk, FOLDER, FILE, |database| {
                    let transaction = database.begin_write()?;
                    transaction.open_table(BLOBS)?;
                    transaction.open_table(GROUPS)?;
                    Ok(transaction.commit()?)
                })?;
                disk.open(FILE, OpenMode::ReadWrite).map_err(failed("open", FILE))?
            }
            Err(error) => return Err(failed("open", FILE)(error)),
        };
        // redb would make a blank database of it, and the node would forget who it is.
        if file.is_empty().map_err(failed("measure", FILE))? {
            return Err(damaged("it is empty"));
        }
        // redb trusts its file; a damaged one may break its assertions.
        let database = catch_unwind(AssertUnwindSafe(|| database_on(file, FILE)))
            .unwrap_or_else(|_| Err(damaged("redb cannot read it")))?;
        Ok(Self { database })
    }

    /// The identity as it was stored; `None` on a blank node.
    pub fn identity(&self) -> Result<Option<Bytes>, SnapshotError> {
        let stored = self.read(|database| {
            let table = database.begin_read()?.open_table(BLOBS)?;
            Ok(table.get(IDENTITY)?.map(|stored| stored.value().to_vec()))
        })?;
        stored
            .map(|stored| {
                verified(&stored, |value| sum("blobs", IDENTITY.as_bytes(), value)).ok_or(damaged("identity"))
            })
            .transpose()
    }

    /// Stores the identity, durable when it returns.
    pub fn set_identity(&self, identity: &[u8]) -> Result<(), SnapshotError> {
        let stored = [&sum("blobs", IDENTITY.as_bytes(), identity).to_le_bytes(), identity].concat();
        self.write(|transaction| {
            transaction.open_table(BLOBS)?.insert(IDENTITY, stored.as_slice())?;
            Ok(())
        })
    }

    /// The replicas that the node holds, by shard; the metadata group last.
    pub fn replicas(&self) -> Result<Vec<RegisteredReplica>, SnapshotError> {
        let stored = self.read(|database| {
            let table = database.begin_read()?.open_table(GROUPS)?;
            let mut stored = Vec::new();
            for group in table.iter()? {
                let (shard, value) = group?;
                stored.push((shard.value(), value.value().to_vec()));
            }
            Ok(stored)
        })?;
        stored.into_iter().map(|(shard, stored)| decode(shard, &stored).ok_or(damaged("groups"))).collect()
    }

    /// Registers replicas, each in place of what its group had; all or none, durable when it returns.
    pub fn register(&self, replicas: &[RegisteredReplica]) -> Result<(), SnapshotError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(GROUPS)?;
            for replica in replicas {
                table.insert(replica.shard.0, encode(replica).as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets the replica of a group, durable when it returns; fine where there is none.
    pub fn forget(&self, shard: ShardId) -> Result<(), SnapshotError> {
        self.write(|transaction| {
            transaction.open_table(GROUPS)?.remove(shard.0)?;
            Ok(())
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, SnapshotError> {
        match catch_unwind(AssertUnwindSafe(|| read(&self.database))) {
            Ok(result) => result.map_err(refused("read", FILE)),
            Err(_) => Err(damaged("redb cannot read it")),
        }
    }

    fn write(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), SnapshotError> {
        let commit = || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_quick_repair(true);
            write(&transaction)?;
            Ok(transaction.commit()?)
        };
        commit().map_err(refused("write", FILE))
    }
}

fn damaged(part: &str) -> SnapshotError {
    SnapshotError::Damaged { file: FILE.to_owned(), part: part.to_owned() }
}

fn sum(table: &str, key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for part in [table.as_bytes(), key, value] {
        hash.update(part);
    }
    hash.digest()
}

fn encode(replica: &RegisteredReplica) -> Vec<u8> {
    let mut value = Vec::with_capacity(GROUP_BYTES);
    value.extend_from_slice(&replica.replica.0.to_le_bytes());
    value.push(u8::from(replica.snapshot.is_some()));
    value.extend_from_slice(&replica.snapshot.unwrap_or_default().0.to_le_bytes());
    [sum("groups", &replica.shard.0.to_le_bytes(), &value).to_le_bytes().as_slice(), &value].concat()
}

fn decode(shard: u32, stored: &[u8]) -> Option<RegisteredReplica> {
    let value = verified(stored, |value| sum("groups", &shard.to_le_bytes(), value))?;
    let value: &[u8; GROUP_BYTES] = value.as_ref().try_into().ok()?;
    let (replica, rest) = value.split_first_chunk::<8>()?;
    let (flag, index) = rest.split_first()?;
    let index = Index(u64::from_le_bytes(index.try_into().ok()?));
    Some(RegisteredReplica {
        shard: ShardId(shard),
        replica: ReplicaId(u64::from_le_bytes(*replica)),
        snapshot: (*flag == 1).then_some(index),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::lossy::LossyDisk;

    fn replica(shard: u32, snapshot: Option<u64>) -> RegisteredReplica {
        RegisteredReplica { shard: ShardId(shard), replica: ReplicaId(8), snapshot: snapshot.map(Index) }
    }

    #[test]
    fn identity_and_replicas_outlive_a_crash() {
        let disk = LossyDisk::new(1);
        let registry = Registry::open(&disk).unwrap();
        assert_eq!((registry.identity().unwrap(), registry.replicas().unwrap()), (None, Vec::new()));
        registry.set_identity(b"me").unwrap();
        registry.register(&[replica(u32::MAX, None), replica(1, Some(7)), replica(2, Some(0))]).unwrap();
        registry.forget(ShardId(2)).unwrap();
        disk.crash();
        drop(registry);
        let registry = Registry::open(&disk).unwrap();
        assert_eq!(registry.identity().unwrap(), Some(Bytes::from_static(b"me")));
        assert_eq!(registry.replicas().unwrap(), [replica(1, Some(7)), replica(u32::MAX, None)]);
    }

    #[test]
    fn an_emptied_file_or_one_of_zeros_is_an_error_not_a_blank_node() {
        let disk = LossyDisk::new(2);
        drop(Registry::open(&disk).unwrap());
        let file = disk.open(FILE, OpenMode::ReadWrite).unwrap();
        file.write_at(0, &[&[0; 4096]]).unwrap();
        assert!(Registry::open(&disk).and_then(|registry| registry.identity()).is_err());
        file.set_len(0).unwrap();
        assert!(matches!(Registry::open(&disk), Err(SnapshotError::Damaged { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_stored_is_there_after_any_crash(seed in any::<u64>(), after in 0_u64..80) {
            let disk = LossyDisk::new(seed);
            disk.power_off_after(after);
            let mut stored = None;
            if let Ok(registry) = Registry::open(&disk) {
                for index in 0..6 {
                    if registry.register(&[replica(1, Some(index))]).is_err() {
                        break;
                    }
                    stored = Some(index);
                }
            }
            disk.crash();
            let registry = Registry::open(&disk).unwrap();
            let found = registry.replicas().unwrap().first().and_then(|replica| replica.snapshot).map(|index| index.0);
            // A commit that failed may have happened.
            prop_assert!(found >= stored && found <= Some(stored.map_or(0, |index| index + 1)), "{found:?} {stored:?}");
        }
    }
}
