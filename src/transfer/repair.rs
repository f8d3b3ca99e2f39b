//! What a node that misses one file asks of another, and what the two tell of each other's segments. It does not know how
//! the bytes travel, nor who asks.

use super::wire::{ChunkRequest, File, Manifest};
use crate::entry::{Position, SegmentMeta};
use crate::id::{Index, NodeId, Offset, ShardId};
use crate::limits::TRANSFER_CHUNK_BYTES;
use crate::storage::copy::Measured;

/// A file that is damaged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A segment, as the newest snapshot here names it. Another replica may hold its records in other bytes.
    Segment(SegmentMeta),
    /// The snapshot of one position; no other can take its place where the log goes on from it.
    Snapshot(Index),
}

/// What a source has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The same records.
    Segment(SegmentMeta),
    /// The snapshot.
    Snapshot(Position, Measured),
}

impl Offer {
    /// The file as its source names it.
    #[must_use]
    pub const fn file(&self) -> File {
        match self {
            Self::Segment(meta) => File::Segment { from: meta.from, to: meta.to },
            Self::Snapshot(..) => File::Snapshot,
        }
    }

    /// Its name here, once it is in its place.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Segment(meta) => meta.name(),
            Self::Snapshot(position, _) => File::Snapshot.name(position.index),
        }
    }

    /// Its length.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Segment(meta) => meta.bytes,
            Self::Snapshot(_, fits) => fits.bytes,
        }
    }

    /// Every question that its bytes answer, in the order of the file.
    pub fn questions(&self, shard: ShardId, lease: u64) -> impl Iterator<Item = ChunkRequest> + Send + use<> {
        let (file, bytes, chunk) = (self.file(), self.bytes(), TRANSFER_CHUNK_BYTES as u64);
        (0..bytes.div_ceil(chunk)).map(move |at| {
            let offset = at * chunk;
            let length = u32::try_from(chunk.min(bytes - offset)).expect("a piece is small");
            ChunkRequest { shard, lease, file, offset, length }
        })
    }
}

/// What the source of a manifest has of a file.
///
/// # Errors
/// Why it is of no use, for people to read.
pub fn find(source: NodeId, manifest: &Manifest, wanted: &Wanted) -> Result<Offer, String> {
    match wanted {
        Wanted::Segment(own) => {
            let theirs = manifest.segments.iter().find(|meta| (meta.from, meta.to) == (own.from, own.to));
            match theirs {
                Some(theirs) if theirs.digest == own.digest => Ok(Offer::Segment(*theirs)),
                Some(_) => Err(format!("{} of node {source} holds other records", own.name())),
                None => Err(format!("node {source} has no {}", own.name())),
            }
        }
        Wanted::Snapshot(index) if manifest.position.index == *index => {
            Ok(Offer::Snapshot(manifest.position, manifest.file()))
        }
        Wanted::Snapshot(index) => {
            let found = manifest.position.index;
            Err(format!("the newest snapshot of node {source} is through {found}, that through {index} is needed"))
        }
    }
}

/// The segments of the same offsets that hold other records on two replicas: one of the two is wrong about what the
/// group agreed on.
#[must_use]
pub fn diverging(own: &[SegmentMeta], theirs: &[SegmentMeta]) -> Vec<(Offset, Offset)> {
    let mut theirs = theirs.iter().peekable();
    let mut found = Vec::new();
    for own in own {
        while theirs.next_if(|their| (their.from, their.to) < (own.from, own.to)).is_some() {}
        let same = theirs.peek().filter(|their| (their.from, their.to) == (own.from, own.to));
        if same.is_some_and(|their| their.digest != own.digest) {
            found.push((own.from, own.to));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::id::Term;

    const PEER: NodeId = NodeId(2);

    fn meta(from: u64, to: u64, digest: u128) -> SegmentMeta {
        SegmentMeta {
            from: Offset(from),
            to: Offset(to),
            bytes: 7,
            hash: 9,
            digest,
            min_timestamp: 0,
            max_timestamp: 1,
            raw_bytes: 1,
        }
    }

    fn manifest(segments: Vec<SegmentMeta>) -> Manifest {
        Manifest { lease: 1, position: Position { index: Index(40), term: Term(2) }, bytes: 5, hash: 6, segments }
    }

    #[test]
    fn a_source_is_asked_for_the_same_records_in_whatever_bytes() {
        let own = meta(10, 19, 3);
        let theirs = SegmentMeta { bytes: 900, hash: 1, ..own };
        let has = manifest(vec![meta(0, 9, 1), theirs]);
        assert_eq!(find(PEER, &has, &Wanted::Segment(own)), Ok(Offer::Segment(theirs)));
        let other = find(PEER, &has, &Wanted::Segment(meta(10, 19, 4))).unwrap_err();
        assert!(other.contains("other records"), "{other}");
        let none = find(PEER, &has, &Wanted::Segment(meta(10, 18, 3))).unwrap_err();
        assert!(none.contains("has no"), "{none}");
    }

    #[test]
    fn only_the_snapshot_of_the_same_position_will_do() {
        let has = manifest(Vec::new());
        let offer = find(PEER, &has, &Wanted::Snapshot(Index(40))).unwrap();
        assert_eq!(offer, Offer::Snapshot(has.position, Measured { bytes: 5, hash: 6 }));
        assert!(find(PEER, &has, &Wanted::Snapshot(Index(39))).unwrap_err().contains("through 40"));
    }

    proptest! {
        #[test]
        fn the_questions_cover_the_file_once_and_in_order(bytes in 1..3_000_000_u64) {
            let offer = Offer::Segment(SegmentMeta { bytes, ..meta(0, 9, 1) });
            let mut end = 0;
            for question in offer.questions(ShardId(3), 8) {
                prop_assert_eq!(question.offset, end);
                prop_assert_eq!(ChunkRequest::decode(&question.encode()).unwrap(), Some(question));
                end += u64::from(question.length);
            }
            prop_assert_eq!(end, bytes);
        }

        #[test]
        fn every_segment_of_the_same_offsets_and_other_records_is_found(
            own in prop::collection::btree_map(0..30_u64, (0..2_u64, 0..2_u128), 0..20),
            theirs in prop::collection::btree_map(0..30_u64, (0..2_u64, 0..2_u128), 0..20),
        ) {
            let metas = |of: &BTreeMap<u64, (u64, u128)>| -> Vec<SegmentMeta> {
                of.iter().map(|(at, (longer, digest))| meta(at * 10, at * 10 + 5 + longer, *digest)).collect()
            };
            let (own, theirs) = (metas(&own), metas(&theirs));
            let differs = |a: &&SegmentMeta| {
                theirs.iter().any(|b| (a.from, a.to) == (b.from, b.to) && a.digest != b.digest)
            };
            let expected: Vec<_> = own.iter().filter(differs).map(|meta| (meta.from, meta.to)).collect();
            prop_assert_eq!(diverging(&own, &theirs), expected);
        }
    }
}
