//! What can be wrong with what another node says about a copy.

use thiserror::Error;

use super::wire::VERSION;
use crate::class::Class;

/// An error of the `transfer` room.
#[derive(Debug, Error)]
pub enum TransferError {
    /// A node of another version.
    #[error("a message about a copy has version {found:?}, this node speaks {VERSION}: run one version on all nodes")]
    Version {
        /// The version in the message; none where it is empty.
        found: Option<u8>,
    },
    /// Not MessagePack, or not these fields.
    #[error("a message about a copy does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A manifest that no snapshot can have.
    #[error("a manifest contradicts itself: {0}")]
    Manifest(&'static str),
}

impl TransferError {
    /// Another source may do better.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Version { .. } | Self::Decode(_) | Self::Manifest(_) => Class::Refuse,
        }
    }
}
