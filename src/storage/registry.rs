//! What a node knows of itself: `meta.redb` with its identity.
//!
//! One table. `blobs`, from a name to bytes, holds `identity`, which only the caller reads. Each value is preceded by
//! u64 xxh3-64 of the table's name, the key and the value; little-endian; verified at each read.
//!
//! The file is made under a temporary name and renamed; every commit is durable and repaired quickly. This file does
//! not know what an identity says.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, OpenMode};
use super::snapshot::{SnapshotError, create_file, database_on, failed, refused, verified};

const FILE: &str = "meta.redb";
const FOLDER: &str = "";
const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
const IDENTITY: &str = "identity";

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::lossy::LossyDisk;

    #[test]
    fn an_identity_outlives_a_crash() {
        let disk = LossyDisk::new(1);
        let registry = Registry::open(&disk).unwrap();
        assert_eq!(registry.identity().unwrap(), None);
        registry.set_identity(b"me").unwrap();
        disk.crash();
        drop(registry);
        let registry = Registry::open(&disk).unwrap();
        assert_eq!(registry.identity().unwrap(), Some(Bytes::from_static(b"me")));
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
                for value in 0..6_u8 {
                    if registry.set_identity(&[value]).is_err() {
                        break;
                    }
                    stored = Some(value);
                }
            }
            disk.crash();
            let registry = Registry::open(&disk).unwrap();
            let found = registry.identity().unwrap().map(|identity| identity[0]);
            // A commit that failed may have happened.
            prop_assert!(found >= stored && found <= Some(stored.map_or(0, |value| value + 1)), "{found:?} {stored:?}");
        }
    }
}
