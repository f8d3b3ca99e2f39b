//! What can go wrong on a disk, with the facts an operator needs. This file does not know how a node reacts.

use std::io;

use thiserror::Error;

use crate::class::Class;
use crate::id::{Index, ReplicaId, ShardId};

/// An error of the `storage` room.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The disk refused an operation.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder, relative to the data folder.
        file: String,
        /// The disk's own words.
        source: io::Error,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "{file} is damaged at byte {offset} ({why}), below byte {durable} which was durable: the disk changed what it \
         had confirmed. Nothing was changed. Stop this node, keep its data folder for inspection and give the node an \
         empty one, so that its replicas are copied from their peers; a cluster of one node needs its folder restored \
         from a backup"
    )]
    Damaged {
        /// The file, relative to the data folder.
        file: String,
        /// Where in the file the first bad record or header starts.
        offset: u64,
        /// The file was known durable up to here.
        durable: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// A segment file of the log is gone.
    #[error(
        "the log needs its segment of generation {generation}, which no file in {folder} holds: a file was removed or \
         replaced. Nothing was changed. Put the file back, or give the node an empty data folder so that its replicas \
         are copied from their peers"
    )]
    Missing {
        /// The folder, relative to the data folder.
        folder: &'static str,
        /// The generation that is not there.
        generation: u64,
    },
    /// The log of one replica has a hole that no torn tail explains.
    #[error(
        "the log of {shard}, replica {replica}, holds no entry {index}. Nothing was changed. Give the node an empty data \
         folder so that its replicas are copied from their peers"
    )]
    Hole {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The first index that is not there.
        index: Index,
    },
    /// The disk has no room for more log. What is stored stays; small records of consensus still go on.
    #[error("the disk is full: {bytes} bytes cannot be logged. Free space on the disk of the data folder")]
    Full {
        /// What was asked for.
        bytes: u64,
    },
    /// A record that no segment can hold.
    #[error("a record of {bytes} bytes is above the {bytes_max} that a segment of the log can hold")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most a segment holds.
        bytes_max: u64,
    },
    /// Entries that the log does not hold.
    #[error("the log of {shard}, replica {replica}, does not hold entry {index}")]
    NotHeld {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The first entry asked for that is not there.
        index: Index,
    },
    /// Bounds of the log that contradict each other.
    #[error("the log cannot work with {name} = {value}: {why}")]
    Options {
        /// Which bound.
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// What it must keep.
        why: &'static str,
    },
    /// An earlier write or sync failed, so that nobody knows what the disk holds.
    #[error("an earlier write to the log failed: this process must end and recover from what the disk holds")]
    Poisoned,
}

impl StorageError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Io { .. } | Self::Damaged { .. } | Self::Missing { .. } | Self::Hole { .. } | Self::Poisoned => {
                Class::Fatal
            }
            Self::Full { .. } => Class::Retry,
            Self::TooLarge { .. } | Self::NotHeld { .. } | Self::Options { .. } => Class::Refuse,
        }
    }
}

/// Names the action and the file in an error of the disk.
pub(crate) fn io_error(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io { action, file: file.to_owned(), source }
}
