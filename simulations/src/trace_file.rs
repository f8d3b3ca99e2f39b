//! The file a trace is written to, by a world that is handed a writer and keeps it. Whatever fails is remembered until
//! the end, so that a trace that is not whole is never taken for one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context as _, Result};

/// A trace on its way to a file.
#[derive(Clone, Debug)]
pub(crate) struct TraceFile {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl TraceFile {
    /// An empty file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let state = State { file: BufWriter::new(file), failed: None };
        Ok(Self { path: path.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    /// What the world is handed. It never fails for it: what goes wrong is told at the end.
    pub(crate) fn writer(&self) -> TraceWriter {
        TraceWriter(self.clone())
    }

    /// Ends the trace.
    pub(crate) fn finish(self) -> Result<()> {
        let mut state = self.state();
        let failed = state.failed.take().or_else(|| state.file.flush().err());
        failed.map_or(Ok(()), Err).with_context(|| format!("writing {}", self.path.display()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The world's end of a [`TraceFile`].
#[derive(Debug)]
pub(crate) struct TraceWriter(TraceFile);

impl Write for TraceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.failed.is_none() {
            state.failed = state.file.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    /// Left to the end: a trace is read when its run is over.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_whole_once_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let trace = TraceFile::create(&path).unwrap();
        let mut writer = trace.writer();
        writeln!(writer, "one").unwrap();
        writeln!(writer, "two").unwrap();
        trace.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_disk_without_room_is_told_at_the_end() {
        let trace = TraceFile::create(Path::new("/dev/full")).unwrap();
        writeln!(trace.writer(), "one").unwrap();
        let error = format!("{:#}", trace.finish().unwrap_err());
        assert!(error.starts_with("writing /dev/full: "), "{error}");
    }
}
