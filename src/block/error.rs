//! What can be wrong with a block. A block that does not decode is damaged: another replica has a good one.

use crate::class::Class;

/// Why bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes end before the block does.
    #[error("block is cut: {have} bytes of {need}")]
    Cut {
        /// Bytes there are.
        have: usize,
        /// Bytes the block needs.
        need: usize,
    },
    /// Something else than a block, or a block of another kind.
    #[error("not a block of kind {kind}")]
    NotABlock {
        /// The kind that was expected: 0 batch, 1 sealed block.
        kind: u8,
    },
    /// Written by a newer version.
    #[error("block version {found} is not known; this version reads {known}: upgrade this node")]
    Version {
        /// The version found.
        found: u8,
        /// The version that can be read.
        known: u8,
    },
    /// Bytes changed since they were written.
    #[error("block checksum does not match in {part}")]
    Checksum {
        /// The header, or the column.
        part: &'static str,
    },
    /// The checksum is right and the content is not: it was written so.
    #[error("block content is malformed: {part}")]
    Malformed {
        /// What does not fit.
        part: &'static str,
    },
}

impl BlockError {
    /// Another replica may answer; only a newer version asks for an operator.
    pub fn class(&self) -> Class {
        match self {
            Self::Version { .. } => Class::Fatal,
            Self::Cut { .. } | Self::NotABlock { .. } | Self::Checksum { .. } | Self::Malformed { .. } => Class::Retry,
        }
    }
}
