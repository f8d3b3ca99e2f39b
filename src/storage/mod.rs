//! Storage: the seam to a disk and what Millpond keeps on it. This room does not know what entries mean, when to
//! seal, or which replica leads.

pub mod copy;
pub mod disk;
pub mod error;
pub mod lossy;
mod redb_backend;
pub mod registry;
pub mod repair;
pub mod segment;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod wal;
