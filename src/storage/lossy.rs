//! A disk in memory that forgets and tears what was not synced, by a seed. Simulations and tests run on it; nothing
//! else does. It does not know what is kept on it.
//!
//! Per file it holds the content that is durable and the writes since; per folder the names that are durable and the
//! changes since. A crash decides about each write by itself: it is lost, kept, cut short at a sector, or torn, each
//! of its sectors of 512 bytes kept or lost by itself. Each change of a name is lost or kept by itself. So the disk is
//! as free as the contract of [`super::disk`] allows, and more than any real one dares.
//!
//! The one lock in this crate is here: a `Disk` is shared, and its calls change it.

#![expect(
    clippy::disallowed_types,
    reason = "a disk is shared by all who hold its files; the lock stands for the device"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile, OpenMode};

const SECTOR_BYTES: usize = 512;

/// Random bits that depend on a seed alone (splitmix64).
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// Starts over from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

/// A change of a file's content that no sync has made durable.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// What a crash leaves of it.
    fn survive(&self, content: &mut Vec<u8>, draws: &mut Draws) {
        let Self::Write { offset, bytes } = self else {
            if draws.below(2) == 0 {
                self.apply(content);
            }
            return;
        };
        let fate = draws.below(4);
        let kept = draws.below(bytes.len() as u64 / SECTOR_BYTES as u64 + 1);
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len());
            let sector = (at / SECTOR_BYTES) as u64;
            let keep = match fate {
                0 => false,
                1 => true,
                2 => sector < kept,
                _ => draws.below(2) == 0,
            };
            if keep {
                Self::Write { offset: offset + at, bytes: bytes[at..end].to_vec() }.apply(content);
            }
            at = end;
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create { path: String, id: u64 },
    Remove { path: String, id: u64 },
    Rename { from: String, to: String, id: u64 },
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create { path, id } => drop(names.insert(path.clone(), *id)),
            Self::Remove { path, id } => {
                if names.get(path) == Some(id) {
                    names.remove(path);
                }
            }
            Self::Rename { from, to, id } => {
                if names.get(from) == Some(id) {
                    names.remove(from);
                }
                names.insert(to.clone(), *id);
            }
        }
    }

    fn folder(&self) -> &str {
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => folder_of(path),
            Self::Rename { to, .. } => folder_of(to),
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Debug)]
struct State {
    draws: Draws,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    namings: Vec<Naming>,
    contents: BTreeMap<u64, Content>,
    next_id: u64,
    /// Counts crashes: files opened before one are dead.
    life: u64,
    capacity: u64,
    operations: u64,
    power_off_at: Option<u64>,
    sync_fails_at: Option<u64>,
}

impl State {
    /// Counts an operation that changes the disk; all fail once the power is off.
    fn operate(&mut self) -> io::Result<()> {
        self.powered()?;
        self.operations += 1;
        self.powered()
    }

    fn powered(&self) -> io::Result<()> {
        match self.power_off_at {
            Some(at) if self.operations >= at => Err(io::Error::other("the power is off")),
            Some(_) | None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.contents.get(id)).map(|content| content.current.len() as u64).sum()
    }

    fn id(&self, path: &str) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, id: u64, change: Change) -> io::Result<()> {
        let used = self.used();
        let capacity = self.capacity;
        let content = self.contents.get_mut(&id).expect("an open file's content is kept");
        let length = match &change {
            Change::Write { offset, bytes } => (offset + bytes.len()).max(content.current.len()),
            Change::Length(length) => *length,
        };
        let grown = length.saturating_sub(content.current.len()) as u64;
        if grown > 0 && used + grown > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change.apply(&mut content.current);
        content.changes.push(change);
        Ok(())
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.namings.push(naming);
    }
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct LossyDisk {
    state: Arc<Mutex<State>>,
}

impl LossyDisk {
    /// An empty disk without bound. The same seed and the same calls give the same losses.
    pub fn new(seed: u64) -> Self {
        let state = State {
            draws: Draws::new(seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            namings: Vec::new(),
            contents: BTreeMap::new(),
            next_id: 1,
            life: 0,
            capacity: u64::MAX,
            operations: 0,
            power_off_at: None,
            sync_fails_at: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The machine stops and starts: what was not synced meets its fate, open files are dead, faults are gone.
    pub fn crash(&self) {
        let mut state = self.state();
        let State { draws, contents, namings, durable_names, .. } = &mut *state;
        for content in contents.values_mut() {
            for change in content.changes.drain(..) {
                change.survive(&mut content.durable, draws);
            }
            content.current.clone_from(&content.durable);
        }
        for naming in namings.drain(..) {
            if draws.below(2) == 0 {
                naming.apply(durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let State { contents, names, .. } = &mut *state;
        contents.retain(|id, _| names.values().any(|named| named == id));
        state.life += 1;
        state.power_off_at = None;
        state.sync_fails_at = None;
    }

    /// The process dies and the machine does not: nothing is lost yet, and open files are dead.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.power_off_at = None;
        state.sync_fails_at = None;
    }

    /// After so many more operations that change the disk, each one fails, until [`LossyDisk::crash`].
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.state();
        state.power_off_at = Some(state.operations + operations + 1);
    }

    /// Whether the power went where it was told to, and no crash has followed yet.
    pub fn is_powered_off(&self) -> bool {
        self.state().powered().is_err()
    }

    /// No fault waits any more, and there is room without bound. What is lost stays lost.
    pub fn heal(&self) {
        let mut state = self.state();
        if state.powered().is_ok() {
            state.power_off_at = None;
        }
        state.sync_fails_at = None;
        state.capacity = u64::MAX;
    }

    /// Paths of all files whose names hold `part`, sorted.
    pub fn paths(&self, part: &str) -> Vec<String> {
        self.state().names.keys().filter(|path| path.contains(part)).cloned().collect()
    }

    /// The files below a folder as they read now, on a disk of their own that nothing goes wrong with.
    #[must_use]
    pub fn copied(&self, folder: &str) -> Self {
        let (copy, state) = (Self::new(0), self.state());
        let below = |path: &&String| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        for path in state.names.keys().filter(below) {
            let current = state.contents[&state.names[path]].current.clone();
            let mut state = copy.state();
            let id = state.next_id;
            state.next_id += 1;
            state.names.insert(path.clone(), id);
            state.contents.insert(id, Content { durable: current.clone(), current, changes: Vec::new() });
        }
        copy
    }

    /// The first sync after so many more operations that change the disk fails. What it should have made durable meets
    /// its fate at once, while reading still shows it, and no later sync tries again.
    pub fn fail_sync_after(&self, operations: u64) {
        let mut state = self.state();
        state.sync_fails_at = Some(state.operations + operations);
    }

    /// Bytes that all files together may have; more meets a full disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes that all files have together.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Bytes of one file; `None` where there is none.
    pub fn file_bytes(&self, path: &str) -> Option<u64> {
        let state = self.state();
        let content = state.contents.get(&state.id(path).ok()?)?;
        Some(content.current.len() as u64)
    }

    /// Operations so far that changed the disk.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Turns one bit of a file over, durably. `false` where there is no such byte.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Ok(id) = state.id(path) else { return false };
        let content = state.contents.get_mut(&id).expect("a named file has content");
        let Ok(at) = usize::try_from(offset) else { return false };
        let mask = 1 << (bit % 8);
        let mut flipped = false;
        for bytes in [&mut content.durable, &mut content.current] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
                flipped = true;
            }
        }
        flipped
    }
}

impl Disk for LossyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let id = match mode {
            OpenMode::Read | OpenMode::ReadWrite => {
                state.powered()?;
                state.id(path)?
            }
            OpenMode::CreateNew => {
                state.operate()?;
                if state.names.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let id = state.next_id;
                state.next_id += 1;
                state.contents.insert(id, Content::default());
                state.name(Naming::Create { path: path.to_owned(), id });
                id
            }
        };
        let (life, writable) = (state.life, mode != OpenMode::Read);
        Ok(Arc::new(LossyFile { state: Arc::clone(&self.state), id, life, writable }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        let within = |path: &String| Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        Ok(state.names.keys().filter_map(within).filter(|name| !name.contains('/')).collect())
    }

    fn make_folder(&self, _: &str) -> io::Result<()> {
        self.state().powered()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let id = state.id(path)?;
        state.name(Naming::Remove { path: path.to_owned(), id });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let id = state.id(from)?;
        state.name(Naming::Rename { from: from.to_owned(), to: to.to_owned(), id });
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let State { namings, durable_names, .. } = &mut *state;
        namings.retain(|naming| {
            let synced = naming.folder() == folder;
            if synced {
                naming.apply(durable_names);
            }
            !synced
        });
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.powered()?;
        Ok(state.capacity.saturating_sub(state.used()))
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.powered()?;
        Ok(state.capacity)
    }
}

#[derive(Debug)]
struct LossyFile {
    state: Arc<Mutex<State>>,
    id: u64,
    life: u64,
    writable: bool,
}

impl LossyFile {
    /// The disk, unless this file was opened in an earlier life of it.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.life == self.life { Ok(state) } else { Err(io::Error::other("opened before a crash")) }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.state()?;
        state.operate()?;
        state.change(self.id, change)
    }
}

impl DiskFile for LossyFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        state.powered()?;
        Ok(state.contents.get(&self.id).map_or(0, |content| content.current.len() as u64))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        state.powered()?;
        let current = state.contents.get(&self.id).map_or(&[][..], |content| &content.current);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = current.get(start..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(Change::Write { offset, bytes: parts.concat() })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.operate()?;
        let fails = state.sync_fails_at.is_some_and(|at| state.operations > at);
        if fails {
            state.sync_fails_at = None;
        }
        let State { contents, draws, .. } = &mut *state;
        let Some(Content { durable, changes, .. }) = contents.get_mut(&self.id) else { return Ok(()) };
        for change in changes.drain(..) {
            if fails { change.survive(durable, draws) } else { change.apply(durable) }
        }
        if fails { Err(io::Error::other("the sync failed")) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let longer = usize::try_from(len.max(self.len()?)).map_err(io::Error::other)?;
        self.change(Change::Length(longer))
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(content: &[u8]) -> (LossyDisk, Arc<dyn DiskFile>) {
        let disk = LossyDisk::new(3);
        let file = disk.open("a/b", OpenMode::CreateNew).unwrap();
        file.write_at(0, &[content]).unwrap();
        (disk, file)
    }

    fn read(disk: &LossyDisk) -> Vec<u8> {
        let file = disk.open("a/b", OpenMode::Read).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut content).unwrap();
        content
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        let (disk, file) = disk_with(&[7; 5_000]);
        file.sync().unwrap();
        disk.sync_folder("a").unwrap();
        for _ in 0..10 {
            disk.crash();
            assert_eq!(read(&disk), [7; 5_000]);
        }
        assert!(file.len().is_err(), "a file opened before a crash is dead");
    }

    #[test]
    fn an_unsynced_write_is_lost_kept_cut_and_torn_by_sectors() {
        let mut fates = std::collections::BTreeSet::new();
        for seed in 0..600 {
            let disk = LossyDisk::new(seed);
            let file = disk.open("a/b", OpenMode::CreateNew).unwrap();
            file.allocate(2_048).unwrap();
            file.sync().unwrap();
            disk.sync_folder("a").unwrap();
            file.write_at(0, &[&[1; 2_048]]).unwrap();
            disk.crash();
            let content = read(&disk);
            let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
            assert!(content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            fates.insert(sectors);
        }
        assert_eq!(fates.len(), 16, "every combination of sectors");
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost() {
        let lost = (0..50).filter(|seed| {
            let disk = LossyDisk::new(*seed);
            disk.open("a/b", OpenMode::CreateNew).unwrap();
            disk.crash();
            disk.list("a").unwrap().is_empty()
        });
        assert!((5..45).contains(&lost.count()));
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next() {
        let gone = (0..50).filter(|seed| {
            let disk = LossyDisk::new(*seed);
            let file = disk.open("a/b", OpenMode::CreateNew).unwrap();
            disk.sync_folder("a").unwrap();
            file.write_at(0, &[&[1; 100]]).unwrap();
            disk.fail_sync_after(0);
            file.sync().unwrap_err();
            file.sync().unwrap();
            assert_eq!(read(&disk), [1; 100], "reading shows what is not durable");
            disk.crash();
            read(&disk).is_empty()
        });
        assert!((5..45).contains(&gone.count()));
    }

    #[test]
    fn the_power_and_the_room_run_out_where_they_were_told_to() {
        let (disk, file) = disk_with(&[1; 100]);
        disk.set_capacity(150);
        assert_eq!((disk.free_bytes().unwrap(), disk.total_bytes().unwrap()), (50, 150));
        assert_eq!(file.allocate(151).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(100, &[&[2; 50]]).unwrap();
        disk.power_off_after(1);
        file.write_at(0, &[&[3; 10]]).unwrap();
        assert!(file.write_at(0, &[&[4; 10]]).is_err() && disk.list("a").is_err() && disk.is_powered_off());
        disk.heal();
        assert!(disk.is_powered_off(), "only a crash turns it on again");
        disk.crash();
        assert!(disk.list("a").is_ok());
    }
}
