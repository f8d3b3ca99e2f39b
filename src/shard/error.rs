//! What can go wrong with a shard's state.

use crate::block::BlockError;
use crate::class::Class;
use crate::entry::Position;
use crate::id::{Index, Offset, ShardId, Term};

/// Why a shard could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// An entry's payload is no command.
    #[error("entry is no command of a shard: {part}")]
    Malformed {
        /// What does not fit.
        part: &'static str,
    },
    /// An entry came twice or below what was applied.
    #[error("{shard}: entry {index} of term {term} after entry {} of term {}", applied.index, applied.term)]
    OutOfOrder {
        /// The shard.
        shard: ShardId,
        /// What was applied last.
        applied: Position,
        /// The entry's index.
        index: Index,
        /// The entry's term.
        term: Term,
    },
    /// A snapshot's pieces do not decode, although their checksums are right.
    #[error("snapshot is malformed: {part}")]
    Snapshot {
        /// What does not fit.
        part: &'static str,
    },
    /// A batch of the head does not decode.
    #[error("{shard}: batch at offset {offset} is damaged: {source}")]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The offset of the batch's first record.
        offset: Offset,
        /// What is wrong with it.
        source: BlockError,
    },
    /// A block that was just encoded does not decode.
    #[error("{shard}: a sealed block does not decode: {source}")]
    Unreadable {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        source: BlockError,
    },
    /// Sealed blocks decode to other records than were applied. The log must not be trimmed.
    #[error(
        "{shard}: sealed blocks hold {found_rows} records of digest {found:032x}, applied were {rows} of {expected:032x}"
    )]
    Unproven {
        /// The shard.
        shard: ShardId,
        /// Records applied.
        rows: u64,
        /// Their digest.
        expected: u128,
        /// Records decoded.
        found_rows: u64,
        /// Their digest.
        found: u128,
    },
}

impl ShardError {
    /// Foreign bytes are refused; a state that contradicts itself stops the shard.
    pub fn class(&self) -> Class {
        match self {
            Self::Malformed { .. } => Class::Refuse,
            Self::Damaged { source, .. } => source.class(),
            Self::OutOfOrder { .. } | Self::Snapshot { .. } | Self::Unreadable { .. } | Self::Unproven { .. } => {
                Class::Fatal
            }
        }
    }
}
