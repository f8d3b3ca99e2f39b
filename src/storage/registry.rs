//! What a node knows of itself: `meta.redb` with its identity, and the roster of the replicas that have begun on it.
//!
//! One table. `blobs`, from a name to bytes, holds `identity` and `roster`, which only the caller reads; both are empty
//! on a blank node. Each value is preceded by u64 xxh3-64 of the table's name, the key and the value; little-endian;
//! verified at each read. The keys are there from the first commit on: redb does not find a key that was damaged, and a
//! node that took that for "none yet" would forget who it is, or which replicas it had, and vote twice.
//!
//! The file is made under a temporary name and renamed; every commit is durable and repaired quickly. redb keeps two
//! commits and a bit says which is the last one; a value is committed twice, so that both say the same. This file
//! does not know what the values say.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{Disk, DiskFile, OpenMode};
use super::snapshot::{SnapshotError, create_file, database_on, failed, refused, verified};

const FILE: &str = "meta.redb";
const FOLDER: &str = "";
const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
const IDENTITY: &str = "identity";
const ROSTER: &str = "roster";

/// Commits of one value: redb keeps two.
const COMMITS: usize = 2;

/// The node's `meta.redb`, open for reading and writing. Calls block.
pub struct Registry {
    disk: Arc<dyn Disk>,
    /// `None` while it is opened again.
    database: Option<Database>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        close(&mut self.database);
    }
}

/// redb tidies up when it is closed, and breaks its assertions on a damaged file. What was read stays true.
fn close(database: &mut Option<Database>) {
    let database = database.take();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens the file, or makes it where there is none.
    pub fn open(disk: &Arc<dyn Disk>) -> Result<Self, SnapshotError> {
        let file = match disk.open(FILE, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_file(&**disk, FOLDER, FILE, |database| {
                    let transaction = database.begin_write()?;
                    for key in [IDENTITY, ROSTER] {
                        transaction.open_table(BLOBS)?.insert(key, stored(key, &[]).as_slice())?;
                    }
                    Ok(transaction.commit()?)
                })?;
                disk.open(FILE, OpenMode::ReadWrite).map_err(failed("open", FILE))?
            }
            Err(error) => return Err(failed("open", FILE)(error)),
        };
        let database = Some(database_of(file)?);
        Ok(Self { disk: Arc::clone(disk), database })
    }

    /// The identity as it was stored; `None` on a blank node.
    pub fn identity(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        self.value(IDENTITY)
    }

    /// Stores the identity, durable when it returns.
    pub fn set_identity(&mut self, identity: &[u8]) -> Result<(), SnapshotError> {
        self.set(IDENTITY, identity)
    }

    /// The roster as it was stored; `None` where no replica has begun.
    pub fn roster(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        self.value(ROSTER)
    }

    /// Stores the roster, durable when it returns.
    pub fn set_roster(&mut self, roster: &[u8]) -> Result<(), SnapshotError> {
        self.set(ROSTER, roster)
    }

    fn value(&mut self, key: &'static str) -> Result<Option<Bytes>, SnapshotError> {
        let stored = self.on("read", |database| {
            let table = database.begin_read()?.open_table(BLOBS)?;
            Ok(table.get(key)?.map(|stored| stored.value().to_vec()))
        })?;
        let value = stored.and_then(|stored| verified(&stored, |value| sum(key, value))).ok_or(damaged(key))?;
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    fn set(&mut self, key: &'static str, value: &[u8]) -> Result<(), SnapshotError> {
        assert!(!value.is_empty(), "an empty value is none");
        for _ in 0..COMMITS {
            self.on("write", |database| {
                let mut transaction = database.begin_write()?;
                transaction.set_quick_repair(true);
                transaction.open_table(BLOBS)?.insert(key, stored(key, value).as_slice())?;
                Ok(transaction.commit()?)
            })?;
        }
        Ok(())
    }

    /// Works on the database. redb does nothing any more once the disk refused it something, be it only for want of room:
    /// then it is opened again.
    fn on<T>(
        &mut self,
        what: &'static str,
        act: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, SnapshotError> {
        let held = &mut self.database;
        for last in [false, true] {
            if held.is_none() {
                *held = Some(database_of(self.disk.open(FILE, OpenMode::ReadWrite).map_err(failed("open", FILE))?)?);
            }
            let database = held.as_ref().expect("it was just looked at");
            match catch_unwind(AssertUnwindSafe(|| act(database))) {
                Ok(Err(redb::Error::PreviousIo)) if !last => close(held),
                Ok(result) => return result.map_err(refused(what, FILE)),
                Err(_) => return Err(damaged("redb cannot read it")),
            }
        }
        unreachable!("the second round returns")
    }
}

/// Opens the database in a file that is there. redb would make a blank one of an empty file, and the node would forget who
/// it is.
fn database_of(file: Arc<dyn DiskFile>) -> Result<Database, SnapshotError> {
    if file.is_empty().map_err(failed("measure", FILE))? {
        return Err(damaged("it is empty"));
    }
    // redb trusts its file; a damaged one may break its assertions.
    catch_unwind(AssertUnwindSafe(|| database_on(file, FILE))).unwrap_or_else(|_| Err(damaged("redb cannot read it")))
}

fn damaged(part: &str) -> SnapshotError {
    SnapshotError::Damaged { file: FILE.to_owned(), part: part.to_owned() }
}

/// The bytes under which a value is kept.
fn stored(key: &str, value: &[u8]) -> Vec<u8> {
    [&sum(key, value).to_le_bytes(), value].concat()
}

fn sum(key: &str, value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for part in [b"blobs", key.as_bytes(), value] {
        hash.update(part);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::lossy::LossyDisk;

    fn open(disk: &LossyDisk) -> Result<Registry, SnapshotError> {
        Registry::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>))
    }

    #[test]
    fn an_identity_outlives_a_crash() {
        let disk = LossyDisk::new(1);
        let mut registry = open(&disk).unwrap();
        assert_eq!(registry.identity().unwrap(), None);
        registry.set_identity(b"me").unwrap();
        disk.crash();
        drop(registry);
        let mut registry = open(&disk).unwrap();
        assert_eq!(registry.identity().unwrap(), Some(Bytes::from_static(b"me")));
    }

    #[test]
    fn what_a_full_disk_refused_is_stored_once_there_is_room() {
        let disk = LossyDisk::new(9);
        let mut registry = open(&disk).unwrap();
        registry.set_identity(b"me").unwrap();
        disk.set_capacity(0);
        let large = vec![7; 1 << 20];
        let refused = registry.set_roster(&large).unwrap_err();
        assert_eq!(refused.class(), crate::class::Class::Retry, "{refused}");
        disk.set_capacity(u64::MAX);
        registry.set_roster(&large).unwrap();
        assert_eq!(registry.roster().unwrap().as_deref(), Some(&large[..]));
        assert_eq!(registry.identity().unwrap().as_deref(), Some(&b"me"[..]));
    }

    #[test]
    fn an_emptied_file_or_one_of_zeros_is_an_error_not_a_blank_node() {
        let disk = LossyDisk::new(2);
        drop(open(&disk).unwrap());
        let file = disk.open(FILE, OpenMode::ReadWrite).unwrap();
        file.write_at(0, &[&[0; 4096]]).unwrap();
        assert!(open(&disk).and_then(|mut registry| registry.identity()).is_err());
        file.set_len(0).unwrap();
        assert!(matches!(open(&disk), Err(SnapshotError::Damaged { .. })));
    }

    /// More than redb needs for one identity; what asks for more is damage.
    const FILE_BYTES_MAX: u64 = 8 << 20;

    /// The file of a node that knows who it is: closed, or left as a killed process leaves it.
    fn written(closed: bool) -> Vec<u8> {
        let disk = LossyDisk::new(3);
        let mut registry = open(&disk).unwrap();
        registry.set_roster(b"ours").unwrap();
        registry.set_identity(b"me").unwrap();
        if !closed {
            disk.kill();
        }
        drop(registry);
        let file = disk.open(FILE, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> [Result<Option<Bytes>, SnapshotError>; 2] {
        let disk = LossyDisk::new(4);
        disk.set_capacity(FILE_BYTES_MAX);
        disk.open(FILE, OpenMode::CreateNew).unwrap().write_at(0, &[bytes]).unwrap();
        match open(&disk) {
            Ok(mut registry) => [registry.identity(), registry.roster()],
            Err(_) => [Err(damaged("all of it")), Err(damaged("all of it"))],
        }
    }

    /// Turns a bit over, reads, and turns it back. Whether the damage was reported.
    fn flipped(bytes: &mut [u8], offset: usize, bit: u8) -> bool {
        bytes[offset] ^= 1 << bit;
        let read = read(bytes);
        bytes[offset] ^= 1 << bit;
        let reported = read.iter().any(Result::is_err);
        for (found, written) in read.into_iter().zip([&b"me"[..], b"ours"]) {
            if let Ok(found) = found {
                assert_eq!(found.as_deref(), Some(written), "bit {bit} of byte {offset}");
            }
        }
        reported
    }

    /// Where the file says which commit is the last one, and where it names the table and the keys.
    fn telling(bytes: &[u8]) -> impl Iterator<Item = usize> {
        let names = [&b"blobs"[..], IDENTITY.as_bytes(), ROSTER.as_bytes()];
        let named = move |at: usize| {
            names.into_iter().find(|name| bytes[at..].starts_with(name)).map(|name| at..at + name.len())
        };
        (0..16).chain((0..bytes.len()).filter_map(named).flatten())
    }

    #[test]
    fn no_bit_that_tells_where_the_identity_is_makes_it_a_blank_node() {
        for closed in [true, false] {
            let mut bytes = written(closed);
            let telling: Vec<usize> = telling(&bytes).collect();
            let bits: Vec<(usize, u8)> = telling.iter().flat_map(|at| (0..8).map(|bit| (*at, bit))).collect();
            let reported = bits.iter().filter(|(at, bit)| flipped(&mut bytes, *at, *bit)).count();
            assert!(reported > 50, "closed {closed}: only {reported} of {} bits matter", bits.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn no_flipped_bit_makes_it_a_blank_node(closed: bool, at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = written(closed);
            // Pages that were never written hold nothing to lose.
            let used: Vec<usize> = (0..bytes.len()).filter(|offset| bytes[*offset] != 0).collect();
            flipped(&mut bytes, used[at.index(used.len())], bit);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_stored_is_there_after_any_crash(seed in any::<u64>(), after in 0_u64..80) {
            let disk = LossyDisk::new(seed);
            disk.power_off_after(after);
            let mut stored = None;
            if let Ok(mut registry) = open(&disk) {
                for value in 0..6_u8 {
                    if registry.set_identity(&[value]).is_err() {
                        break;
                    }
                    stored = Some(value);
                }
            }
            disk.crash();
            let mut registry = open(&disk).unwrap();
            let found = registry.identity().unwrap().map(|identity| identity[0]);
            // A commit that failed may have happened.
            prop_assert!(found >= stored && found <= Some(stored.map_or(0, |value| value + 1)), "{found:?} {stored:?}");
        }
    }
}
