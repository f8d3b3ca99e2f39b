//! What can be wrong with what lies in an object store, or with a request to restore it.

use thiserror::Error;

use crate::block::BlockError;
use crate::class::Class;
use crate::storage::segment::SegmentError;

/// An error of the `backup` room.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The object is not what was written.
    #[error("{name} is damaged: {what}")]
    Damaged {
        /// The object's name below the prefix.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// Written by a newer version.
    #[error("{name} has version {found}; this version reads {known}: use a newer millpond")]
    Version {
        /// The object's name below the prefix.
        name: String,
        /// The version found.
        found: u64,
        /// The version that can be read.
        known: u64,
    },
    /// A segment does not open, or one of its blocks is not what was written.
    #[error("{name}: {source}")]
    Segment {
        /// The object's name below the prefix.
        name: String,
        /// What is wrong.
        source: SegmentError,
    },
    /// A block does not decode.
    #[error("{name} is damaged in block {block}: {source}")]
    Block {
        /// The object's name below the prefix.
        name: String,
        /// Which block, from 0.
        block: usize,
        /// What is wrong.
        source: BlockError,
    },
    /// The body of a request to restore is not one.
    #[error("not a request to restore: {0}")]
    Request(&'static str),
    /// A message between nodes about a backup does not decode.
    #[error("a message about a backup does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A node of another version.
    #[error("a message about a backup has version {found:?}: run one version on all nodes")]
    Message {
        /// The version in the message; none where it is empty.
        found: Option<u8>,
    },
}

impl BackupError {
    /// What was stored wrong stays wrong.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Damaged { .. }
            | Self::Version { .. }
            | Self::Segment { .. }
            | Self::Block { .. }
            | Self::Request(_)
            | Self::Decode(_)
            | Self::Message { .. } => Class::Refuse,
        }
    }
}
