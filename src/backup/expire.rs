//! Which backups a schedule gives up, and which files nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Manifest;
use crate::id::ClusterId;
use crate::limits::BACKUP_SAFETY;

/// A retired manifest, and how long ago it was retired.
#[derive(Clone, Debug)]
pub struct Dated {
    /// The manifest.
    pub manifest: Manifest,
    /// Since it was put under `retired/`.
    pub age: Duration,
}

/// Everything below a prefix.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The backups there are, of all clusters.
    pub live: Vec<Manifest>,
    /// Those that were given up.
    pub retired: Vec<Dated>,
    /// The objects of `segments/`, and how long ago each was written.
    pub files: BTreeMap<String, Duration>,
}

/// What is to be removed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Backups that become retired.
    pub retire: Vec<String>,
    /// Objects of `segments/` that go.
    pub files: Vec<String>,
    /// Retired manifests that go, after the files: what they named is not forgotten before it is removed.
    pub forget: Vec<String>,
}

/// What to remove so that the newest `keep` backups of a cluster stay; those of others are left alone. A manifest that
/// cannot be read must not be left out of the catalogue: nothing may be removed while it is unknown what it names.
#[must_use]
pub fn expire(catalogue: &Catalogue, cluster: ClusterId, keep: usize) -> Expiry {
    let mut own: Vec<&str> = catalogue.live.iter().filter(|m| m.cluster() == cluster).map(|m| m.id.as_str()).collect();
    own.sort_unstable();
    let retire = own[..own.len().saturating_sub(keep)].iter().map(|id| (*id).to_owned()).collect();
    let (forgotten, held): (Vec<&Dated>, Vec<&Dated>) =
        catalogue.retired.iter().partition(|dated| dated.age > BACKUP_SAFETY);
    let manifests = catalogue.live.iter().chain(held.iter().map(|dated| &dated.manifest));
    let named: BTreeSet<String> =
        manifests.flat_map(|manifest| manifest.segments().map(|(_, segment)| segment.object())).collect();
    let unneeded = |(name, age): &(&String, &Duration)| **age > BACKUP_SAFETY && !named.contains(*name);
    let files = catalogue.files.iter().filter(unneeded).map(|(name, _)| name.clone()).collect();
    let forget = forgotten.into_iter().map(|dated| dated.manifest.id.clone()).collect();
    Expiry { retire, files, forget }
}
