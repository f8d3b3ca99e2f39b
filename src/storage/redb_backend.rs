//! Where redb keeps its bytes: on a [`DiskFile`], so that a simulated disk carries it too, or on one that is never
//! changed. This file does not know what is in the databases.
//!
//! redb writes to a file when it opens it, also without a transaction. [`Overlay`] keeps such writes in memory: an
//! immutable file stays byte for byte what its manifest says, and one that was copied while open still opens.
//!
//! redb calls a backend through a shared reference and expects it to change: the overlay holds a lock for that.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard};

use redb::StorageBackend;

use super::disk::DiskFile;

#[expect(clippy::disallowed_types, reason = "redb writes through a shared reference, from the thread that reads")]
type Lock<T> = std::sync::Mutex<T>;

/// redb on a file.
#[derive(Debug)]
pub(super) struct DiskBackend(pub(super) Arc<dyn DiskFile>);

impl StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, &[data])
    }
}

const PAGE: u64 = 4_096;

/// redb on a file that is only read: what it writes stays in memory and is gone when it is closed.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn DiskFile>,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// Bytes of the file that were never cut off by `set_len`.
    below: u64,
    /// Changed pages, by page number.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Takes the file as it is.
    pub(super) fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, state: Lock::new(State { len, below: len, pages: BTreeMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The file's bytes; zeros above what it has.
    fn read_below(&self, state: &State, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(state.below.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (from_file, zeros) = out.split_at_mut(there);
        zeros.fill(0);
        if there == 0 { Ok(()) } else { self.file.read_at(offset, from_file) }
    }
}

/// The parts of `offset..offset + len` by page: page number, range within the page, range within the whole.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE).expect("below a page");
        let size = (usize::try_from(PAGE).expect("small") - within).min(len - done);
        let part = (at / PAGE, within..within + size, done..done + size);
        done += size;
        (size > 0).then_some(part)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(&state, offset, out)?;
        for (page, within, whole) in pages(offset, out.len()) {
            if let Some(changed) = state.pages.get(&page) {
                out[whole].copy_from_slice(&changed[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len < state.len {
            state.below = state.below.min(len);
            state.pages.split_off(&len.div_ceil(PAGE));
            let cut = usize::try_from(len % PAGE).expect("below a page");
            if let Some(last) = state.pages.get_mut(&(len / PAGE)) {
                last[cut..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > state.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, whole) in pages(offset, data.len()) {
            let mut bytes = match state.pages.remove(&page) {
                Some(bytes) => bytes,
                None => {
                    let mut bytes = vec![0; usize::try_from(PAGE).expect("small")].into_boxed_slice();
                    self.read_below(&state, page * PAGE, &mut bytes)?;
                    bytes
                }
            };
            bytes[within].copy_from_slice(&data[whole]);
            state.pages.insert(page, bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::disk::{Disk, OpenMode};
    use crate::storage::lossy::LossyDisk;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..20_000, prop::collection::vec(any::<u8>(), 1..9_000)).prop_map(|(at, data)| Step::Write(at, data)),
            (0_u64..20_000).prop_map(Step::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_overlay_reads_as_if_the_file_were_written_and_leaves_it(steps in prop::collection::vec(step(), 0..12)) {
            let disk = LossyDisk::new(1);
            let original: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0] | 1).collect();
            disk.open("f", OpenMode::CreateNew).unwrap().write_at(0, &[&original]).unwrap();
            let file = disk.open("f", OpenMode::Read).unwrap();
            let overlay = Overlay::new(file.clone()).unwrap();
            let mut model = original.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let at = usize::try_from(at).unwrap();
                        let fits = at + data.len() <= model.len();
                        prop_assert_eq!(overlay.write(at as u64, &data).is_ok(), fits);
                        if fits {
                            model[at..at + data.len()].copy_from_slice(&data);
                        }
                    }
                    Step::Length(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                let mut read = vec![9; model.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            let mut now = vec![0; original.len()];
            file.read_at(0, &mut now).unwrap();
            prop_assert!(now == original);
        }
    }
}
