//! What nodes say to each other when a snapshot is copied, byte by byte.
//!
//! Every message but a piece is one version byte, now 1, and one MessagePack value: structures as arrays, `hash` and
//! `digest` as 16 bytes of binary, the highest first.
//!
//! ```text
//! manifest request   [shard u32, keep bool]
//! manifest answer    [lease u64, [index u64, term u64], bytes u64, hash, segments]: bytes and hash of the snapshot file
//!                    segments: an array of [from, to, bytes, hash, digest, earliest, latest, raw bytes]
//! chunk request      [shard u32, lease u64, file, offset u64, length u32]
//!                    file: the string "Snapshot", or {"Segment": [from, to]}
//! chunk answer       the bytes of the file, nothing before or behind them
//! refusal            the detail of an application fault: "NoSnapshot", "Gone", "Busy", or {"Failed": text}
//! ```

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::TransferError;
use crate::entry::{Position, SegmentMeta, segment_name};
use crate::id::{Index, Offset, ShardId};
use crate::limits::{FAULT_BYTES_MAX, TRANSFER_CHUNK_BYTES, TRANSFER_SEGMENTS_MAX};
use crate::storage::copy::Measured;
use crate::storage::snapshot;

/// The version of these messages.
pub const VERSION: u8 = 1;

/// A source is asked for its newest snapshot of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRequest {
    /// The group.
    pub shard: ShardId,
    /// Whether the files are kept for the node that asks, which will copy some of them; otherwise it only compares.
    pub keep: bool,
}

/// What a source says of its newest snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Under which the source keeps the files until it was not used for `TRANSFER_LEASE`; 0 where it keeps none.
    pub lease: u64,
    /// The last entry in the snapshot.
    pub position: Position,
    /// Length of the snapshot's own file.
    pub bytes: u64,
    /// xxh3-128 of the snapshot's own file.
    pub hash: u128,
    /// Every segment that it names, in order of offsets.
    pub segments: Vec<SegmentMeta>,
}

/// One of the files of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum File {
    /// The snapshot's own.
    Snapshot,
    /// That of a segment.
    Segment {
        /// The offset of its first record.
        from: Offset,
        /// The offset of its last record.
        to: Offset,
    },
}

impl File {
    /// Its name in the folder of its group, where the snapshot is through `index`.
    #[must_use]
    pub fn name(self, index: Index) -> String {
        match self {
            Self::Snapshot => snapshot::name(index),
            Self::Segment { from, to } => segment_name(from, to),
        }
    }
}

/// A source is asked for a piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The group.
    pub shard: ShardId,
    /// The lease of the manifest that names the file.
    pub lease: u64,
    /// Which file.
    pub file: File,
    /// Where the piece begins.
    pub offset: u64,
    /// Its length; at most `TRANSFER_CHUNK_BYTES`, and not past the end of the file.
    pub length: u32,
}

/// Why a source gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It has no whole snapshot of the group.
    NoSnapshot,
    /// It does not know the lease, or does not have the file any more: a new manifest is needed.
    Gone,
    /// It keeps files for too many others.
    Busy,
    /// Anything else, for people to read.
    Failed(String),
}

fn encode(message: &impl Serialize) -> Bytes {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write(&mut bytes, message).expect("plain data always encodes into memory");
    bytes.into()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TransferError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rmp_serde::from_slice(rest)?),
        found => Err(TransferError::Version { found: found.map(|(found, _)| *found) }),
    }
}

impl ManifestRequest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransferError> {
        decode(bytes)
    }
}

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or no snapshot can be like this.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransferError> {
        let manifest: Self = decode(bytes)?;
        let wrong = |why| Err(TransferError::Manifest(why));
        if manifest.segments.len() > TRANSFER_SEGMENTS_MAX {
            return wrong("it names too many segments");
        }
        if manifest.bytes == 0 || manifest.segments.iter().any(|meta| meta.bytes == 0) {
            return wrong("it names an empty file");
        }
        let apart = manifest.segments.windows(2).all(|pair| pair[0].to < pair[1].from);
        if !apart || manifest.segments.iter().any(|meta| meta.from > meta.to) {
            return wrong("its segments are not in order");
        }
        Ok(manifest)
    }

    /// What the snapshot's own file must be.
    #[must_use]
    pub const fn file(&self) -> Measured {
        Measured { bytes: self.bytes, hash: self.hash }
    }
}

impl ChunkRequest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Reads it; `None` where it asks for more than a piece may be.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, TransferError> {
        let request: Self = decode(bytes)?;
        Ok(Some(request).filter(|request| request.length as usize <= TRANSFER_CHUNK_BYTES))
    }
}

impl Refusal {
    /// Its bytes, no more than a fault may carry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Failed(why) if why.len() > FAULT_BYTES_MAX / 2 => {
                encode(&Self::Failed(why.chars().take(FAULT_BYTES_MAX / 8).collect()))
            }
            Self::NoSnapshot | Self::Gone | Self::Busy | Self::Failed(_) => encode(self),
        }
    }

    /// Reads what another node encoded; what cannot be read is a failure.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        decode(bytes).unwrap_or_else(|error| Self::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Term;

    fn manifest() -> impl Strategy<Value = Manifest> {
        let lengths = prop::collection::vec((1..1_000_u64, any::<[u64; 4]>(), any::<u128>()), 0..20);
        (any::<[u64; 3]>(), 1..u64::MAX, any::<u128>(), lengths).prop_map(
            |([lease, index, term], bytes, hash, lengths)| {
                let mut from = 0;
                let meta = |(length, n, hash): (u64, [u64; 4], u128)| {
                    let meta = SegmentMeta {
                        from: Offset(from),
                        to: Offset(from + length - 1),
                        bytes: n[0].max(1),
                        hash,
                        digest: !hash,
                        min_timestamp: n[1].cast_signed(),
                        max_timestamp: n[2].cast_signed(),
                        raw_bytes: n[3],
                    };
                    from += length;
                    meta
                };
                let segments = lengths.into_iter().map(meta).collect();
                Manifest { lease, position: Position { index: Index(index), term: Term(term) }, bytes, hash, segments }
            },
        )
    }

    fn file() -> impl Strategy<Value = File> {
        let segment = any::<[u64; 2]>().prop_map(|[from, to]| File::Segment { from: Offset(from), to: Offset(to) });
        prop_oneof![Just(File::Snapshot), segment]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_manifest_reads_back(manifest in manifest()) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn a_request_reads_back(shard: u32, keep: bool, lease: u64, file in file(), offset: u64,
                                length in 0..=TRANSFER_CHUNK_BYTES as u32) {
            let request = ChunkRequest { shard: ShardId(shard), lease, file, offset, length };
            prop_assert_eq!(ChunkRequest::decode(&request.encode()).unwrap(), Some(request));
            let request = ManifestRequest { shard: ShardId(shard), keep };
            prop_assert_eq!(ManifestRequest::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn a_refusal_reads_back_or_is_cut_to_what_a_fault_carries(why in "[a-zü]{0,3000}", times in 1..20_usize) {
            for refusal in [Refusal::NoSnapshot, Refusal::Gone, Refusal::Busy, Refusal::Failed(why.clone())] {
                prop_assert_eq!(Refusal::decode(&refusal.encode()), refusal);
            }
            let long = Refusal::Failed(why.repeat(times)).encode();
            prop_assert!(long.len() <= FAULT_BYTES_MAX);
            let Refusal::Failed(read) = Refusal::decode(&long) else { panic!("a failure") };
            prop_assert!(why.repeat(times).starts_with(&read));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version: bool) {
            let bytes = if version { [&[VERSION], bytes.as_slice()].concat() } else { bytes };
            let _ = (ManifestRequest::decode(&bytes), Manifest::decode(&bytes), ChunkRequest::decode(&bytes));
            let _ = Refusal::decode(&bytes);
        }

        #[test]
        fn a_cut_or_flipped_manifest_never_panics(manifest in manifest(), at: usize, flip in 1_u8.., cut: bool) {
            let mut bytes = manifest.encode().to_vec();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            let _ = Manifest::decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_are_those_that_are_described() {
        let request = ChunkRequest { shard: ShardId(3), lease: 9, file: File::Snapshot, offset: 4, length: 5 };
        assert_eq!(request.encode(), &b"\x01\x95\x03\x09\xa8Snapshot\x04\x05"[..]);
        let segment = File::Segment { from: Offset(1), to: Offset(2) };
        let request = ChunkRequest { file: segment, ..request };
        assert_eq!(request.encode(), &b"\x01\x95\x03\x09\x81\xa7Segment\x92\x01\x02\x04\x05"[..]);
        let position = Position { index: Index(7), term: Term(1) };
        let manifest = Manifest { lease: 2, position, bytes: 6, hash: 5, segments: Vec::new() };
        let hash = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(manifest.encode(), [&b"\x01\x95\x02\x92\x07\x01\x06\xc4\x10"[..], &hash, b"\x90"].concat());
    }

    #[test]
    fn another_version_a_piece_too_long_and_a_manifest_in_disorder_are_refused() {
        let error = ManifestRequest::decode(&[2, 0]).unwrap_err();
        assert!(matches!(error, TransferError::Version { found: Some(2) }), "{error}");
        let length = u32::try_from(TRANSFER_CHUNK_BYTES).unwrap() + 1;
        let request = ChunkRequest { shard: ShardId(3), lease: 9, file: File::Snapshot, offset: 4, length };
        assert_eq!(ChunkRequest::decode(&request.encode()).unwrap(), None);
        let meta = |from: u64, to: u64, bytes: u64| SegmentMeta {
            from: Offset(from),
            to: Offset(to),
            bytes,
            hash: 1,
            digest: 1,
            min_timestamp: 0,
            max_timestamp: 0,
            raw_bytes: 0,
        };
        let disorders = [vec![meta(0, 5, 1), meta(5, 6, 1)], vec![meta(3, 2, 1)], vec![meta(0, 1, 0)]];
        for segments in disorders {
            let manifest = Manifest { lease: 1, position: Position::default(), bytes: 1, hash: 1, segments };
            assert!(matches!(Manifest::decode(&manifest.encode()), Err(TransferError::Manifest(_))));
        }
    }

    #[test]
    fn the_largest_manifest_fits_a_message() {
        let meta = |at: u64| SegmentMeta {
            from: Offset(u64::MAX - 1_000_000 + at),
            to: Offset(u64::MAX - 1_000_000 + at),
            bytes: u64::MAX,
            hash: u128::MAX,
            digest: u128::MAX,
            min_timestamp: i64::MIN,
            max_timestamp: i64::MIN,
            raw_bytes: u64::MAX,
        };
        let segments = (0..TRANSFER_SEGMENTS_MAX as u64).map(meta).collect();
        let manifest = Manifest { lease: u64::MAX, position: Position::default(), bytes: 1, hash: 1, segments };
        let bytes = manifest.encode();
        assert!(bytes.len() < crate::limits::MESSAGE_BYTES_MAX, "{}", bytes.len());
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }
}
