//! What nodes say to each other when a shard is backed up, byte by byte. Its files travel as those of any snapshot do.
//!
//! One version byte, then one MessagePack value, structures as arrays:
//!
//! ```text
//! seal request    1, [shard u32]
//! seal answer     1, [end u64, manifest binary or nil]
//! look request    2, [shard u32, offset u64]
//! ```
//!
//! The node that is asked must lead the shard. It answers when every record below `end`, and with them all that was
//! acknowledged before it was asked, is in the snapshot of the manifest, which is that of `crate::transfer::wire` with a
//! lease of its files. A shard that has never held a record has none. Refusals are those of `crate::transfer::wire`.
//!
//! A look request takes the place of a seal request where the segment that holds the offset did not read as the manifest
//! names it: the node looks at it, and repairs it where it is damaged. The answer is empty and comes at once. A node of an
//! earlier version refuses it, and finds the damage by itself later.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::BackupError;
use crate::id::{Offset, ShardId};

const VERSION: u8 = 1;
const LOOK_VERSION: u8 = 2;

/// A leader is asked to seal a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRequest {
    /// Which.
    pub shard: ShardId,
}

/// A node is asked to look at a segment of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookRequest {
    /// Whose.
    pub shard: ShardId,
    /// An offset in it.
    pub offset: Offset,
}

/// What a node is asked for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To seal a shard.
    Seal(SealRequest),
    /// To look at a segment.
    Look(LookRequest),
}

/// A shard is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The first offset that was not given out when the leader was asked.
    pub end: Offset,
    /// The encoded manifest of its newest snapshot.
    pub manifest: Option<ByteBuf>,
}

fn encode(version: u8, message: &impl Serialize) -> Bytes {
    let mut bytes = vec![version];
    rmp_serde::encode::write(&mut bytes, message).expect("plain data always encodes into memory");
    bytes.into()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackupError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rmp_serde::from_slice(rest)?),
        found => Err(BackupError::Message { found: found.map(|(found, _)| *found) }),
    }
}

impl SealRequest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(VERSION, self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        decode(bytes)
    }
}

impl LookRequest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(LOOK_VERSION, self)
    }
}

impl Request {
    /// Reads either.
    ///
    /// # Errors
    /// It is neither.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        match bytes.split_first() {
            Some((&LOOK_VERSION, rest)) => Ok(Self::Look(rmp_serde::from_slice(rest)?)),
            Some(_) | None => SealRequest::decode(bytes).map(Self::Seal),
        }
    }
}

impl Sealed {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(VERSION, self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        decode(bytes)
    }
}
