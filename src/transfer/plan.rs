//! A manifest that is being carried out, and what is to be done about each file it names. It does not know who does it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::wire::{File, Manifest};
use crate::entry::SegmentMeta;
use crate::id::NodeId;
use crate::storage::copy::{Measured, PART};

/// A file under its final name. The hash is that which was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub(super) bytes: u64,
    pub(super) hash: Option<u128>,
}

/// A file under its temporary name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) bytes: u64,
    /// The hash of the file whose pieces it was made of; none where an earlier copy left it.
    pub(super) of: Option<u128>,
    /// The hash that was read when it was complete.
    pub(super) hash: Option<u128>,
}

/// A file that a manifest names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) fits: Measured,
    /// The sum of its records' digests; the snapshot has none.
    pub(super) digest: Option<u128>,
}

/// What is to be done about a file.
#[derive(Debug)]
pub(super) enum Need {
    Nothing,
    Measure(String),
    Copy(u64),
}

/// A manifest that is being carried out.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) source: NodeId,
    pub(super) manifest: Manifest,
    /// The file that is being looked at; those before it fit.
    pub(super) at: usize,
    /// Bytes of those before it, and of all.
    pub(super) bytes: (u64, u64),
    /// How far the file at hand was asked for.
    pub(super) asked: u64,
    /// Pieces of it that came and are not on the disk, by offset.
    pub(super) arrived: BTreeMap<u64, Bytes>,
}

/// How a file that has its name already fits.
#[derive(Debug)]
pub(super) enum Place {
    /// It is the file that the manifest names.
    Named,
    /// It holds the same records in other bytes, and is whole.
    Own(SegmentMeta),
}

impl Target {
    /// Whether a file that has its name already fits, and how.
    pub(super) fn place(&self, here: Option<&Here>, own: Option<&SegmentMeta>) -> Option<Place> {
        let here = here?;
        let found = Measured { bytes: here.bytes, hash: here.hash? };
        if found == self.fits {
            return Some(Place::Named);
        }
        let own = own.filter(|own| self.digest == Some(own.digest));
        own.filter(|own| found == Measured { bytes: own.bytes, hash: own.hash }).map(|own| Place::Own(*own))
    }

    /// What is to be done before the file of this name fits.
    pub(super) fn need(&self, here: Option<&Here>, own: Option<&SegmentMeta>, part: Option<&Part>, name: &str) -> Need {
        if self.place(here, own).is_some() {
            return Need::Nothing;
        }
        let same_records = own.filter(|own| self.digest == Some(own.digest));
        let length_fits =
            |here: &Here| here.bytes == self.fits.bytes || same_records.is_some_and(|own| own.bytes == here.bytes);
        if here.is_some_and(|here| here.hash.is_none() && length_fits(here)) {
            return Need::Measure(name.to_owned());
        }
        let usable = part.filter(|part| {
            part.bytes <= self.fits.bytes
                && part.of.is_none_or(|of| of == self.fits.hash)
                && part.hash.is_none_or(|hash| hash == self.fits.hash)
        });
        match usable {
            None => Need::Copy(0),
            Some(part) if part.hash == Some(self.fits.hash) => Need::Nothing,
            Some(part) if part.bytes == self.fits.bytes => Need::Measure(format!("{name}{PART}")),
            Some(part) => Need::Copy(part.bytes),
        }
    }
}

impl Plan {
    pub(super) fn new(source: NodeId, manifest: Manifest) -> Self {
        let bytes = manifest.segments.iter().map(|meta| meta.bytes).fold(manifest.bytes, u64::saturating_add);
        Self { source, manifest, at: 0, bytes: (0, bytes), asked: 0, arrived: BTreeMap::new() }
    }

    pub(super) fn files(&self) -> usize {
        self.manifest.segments.len() + 1
    }

    /// A file by its place: the segments, then the snapshot.
    pub(super) fn target(&self, at: usize) -> Option<Target> {
        if at == self.manifest.segments.len() {
            return Some(Target { file: File::Snapshot, fits: self.manifest.file(), digest: None });
        }
        let meta = self.manifest.segments.get(at)?;
        let fits = Measured { bytes: meta.bytes, hash: meta.hash };
        Some(Target { file: File::Segment { from: meta.from, to: meta.to }, fits, digest: Some(meta.digest) })
    }

    pub(super) fn name(&self, file: File) -> String {
        file.name(self.manifest.position.index)
    }
}
