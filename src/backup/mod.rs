//! Backups: what of a cluster lies in an object store, in which form, and what follows from that. It does not know object
//! stores, nodes or clocks: it is handed bytes, names and times.
//!
//! Below the prefix that a backup's URL names:
//!
//! ```text
//! segments/<xxh3-128, 32 hexadecimal digits>-<length in bytes>   a sealed segment, byte for byte as a replica has it
//! backups/<id>.json                                              a manifest: a backup exists when its manifest does
//! retired/<id>.json                                              the manifest of a backup that is given up
//! restores/<id>-<cluster, 32 hexadecimal digits>.json            how far a restore into that cluster has come
//! ```
//!
//! A segment is written once under the name that its content gives it, so backups share what they have in common, and
//! a manifest is put last. What removes files and what makes backups may run at once, on several nodes and without a
//! lock, since times are far apart: a backup that takes longer than `BACKUP_RUN_MAX` is given up; it takes a file for
//! present only where the newest manifest of its cluster names it, or where it is younger than `BACKUP_REUSE_AGE`; and a
//! file is removed only when no manifest, live or retired, names it and it is older than `BACKUP_SAFETY`, just as a
//! retired manifest is. [`plan()`] and [`expire()`] hold the two halves of that rule.

mod error;
mod expire;
mod image;
mod manifest;
mod plan;
mod progress;
pub mod replay;
#[cfg(test)]
mod tests;
pub mod wire;

pub use error::BackupError;
pub use expire::{Catalogue, Dated, Expiry, expire};
pub use image::SegmentImage;
pub use manifest::{
    Manifest, RetentionEntry, RuleEntry, SegmentEntry, ShardEntry, backup_id, is_backup_id, manifest_id,
};
pub use plan::{Known, Listed, Step, left, plan};
pub use progress::RestoreProgress;
