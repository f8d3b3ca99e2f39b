//! What nodes say to each other when a shard is backed up, byte by byte. Its files travel as those of any snapshot do.
//!
//! One version byte, now 1, then one MessagePack value, structures as arrays:
//!
//! ```text
//! seal request    [shard u32]
//! seal answer     [end u64, manifest binary or nil]
//! ```
//!
//! The node that is asked must lead the shard. It answers when every record below `end`, and with them all that was
//! acknowledged before it was asked, is in the snapshot of the manifest, which is that of `crate::transfer::wire` with a
//! lease of its files. A shard that has never held a record has none. Refusals are those of `crate::transfer::wire`.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::BackupError;
use crate::id::{Offset, ShardId};

const VERSION: u8 = 1;

/// A leader is asked to seal a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRequest {
    /// Which.
    pub shard: ShardId,
}

/// A shard is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The first offset that was not given out when the leader was asked.
    pub end: Offset,
    /// The encoded manifest of its newest snapshot.
    pub manifest: Option<ByteBuf>,
}

fn encode(message: &impl Serialize) -> Bytes {
    let mut bytes = vec![VERSION];
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
        encode(self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        decode(bytes)
    }
}

impl Sealed {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        decode(bytes)
    }
}
