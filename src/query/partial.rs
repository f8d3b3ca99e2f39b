//! What one shard found: plain data that travels to the node that merges.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::QueryError;
use super::overview::OverviewFound;
use super::plan::{decode, encode};
use super::range::{Fold, Run};
use crate::id::{NodeId, ShardId};
use crate::label::Labels;
use crate::limits::PARTIAL_BYTES_MAX;

/// Labels between nodes: name and value, sorted by name.
pub type Pairs = Vec<(String, String)>;

/// Labels as they travel.
pub(super) fn pairs(labels: &Labels) -> Pairs {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A record that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// Its stream, as a position in the list beside.
    pub stream: u32,
    /// Its offset.
    pub offset: u64,
    /// Its time in nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its line.
    pub line: String,
    /// Its metadata, in the order it was sent.
    pub metadata: Pairs,
    /// What stages found in it or set, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parsed: Pairs,
}

/// A stream of found records, as the stages of the query left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundStream {
    /// Whose it is.
    pub tenant: String,
    /// Its labels.
    pub labels: Pairs,
}

/// Records with the streams they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecords {
    /// Each once.
    pub streams: Vec<FoundStream>,
    /// In the order that was asked for.
    pub records: Vec<FoundRecord>,
    /// Whether the shard holds no further record that passes, limit aside; where it does, go on after the last one.
    pub complete: bool,
    /// For records by offset: where to go on. Every record before it that passes was found.
    pub next: u64,
}

/// One series of counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountSeries {
    /// What tells it apart.
    pub labels: Pairs,
    /// Point and count, ascending; points without a record are left out, those of empty lines are not.
    pub points: Vec<(u32, u64)>,
}

/// One series of unwrapped numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldSeries {
    /// What tells it apart.
    pub labels: Pairs,
    /// What is kept of the numbers of each run of points, ascending.
    pub folds: Vec<(Run, Fold)>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// Records.
    Records(FoundRecords),
    /// Counts per series, sorted by labels.
    Counts(Vec<CountSeries>),
    /// Folded numbers per series, sorted by labels.
    Folds(Vec<FoldSeries>),
    /// Names or values.
    Texts(BTreeSet<String>),
    /// Label sets.
    Series(BTreeSet<Pairs>),
    /// What there is, rather than the records themselves.
    Overview(OverviewFound),
}

/// What a shard looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Records whose time and stream fitted.
    pub records: u64,
    /// Raw bytes of the blocks they are in.
    pub bytes: u64,
    /// Blocks and batches that were read.
    pub chunks: u64,
    /// Of the records those that were in no segment.
    pub head_records: u64,
    /// Of the raw bytes those that were in no segment.
    pub head_bytes: u64,
    /// Of what was read those batches that were in no segment.
    pub head_chunks: u64,
    /// Blocks whose time and streams fitted, read or not.
    pub blocks_matched: u64,
    /// Batches in no segment whose time and streams fitted, read or not.
    pub batches_matched: u64,
    /// Bytes of the blocks that were read, as they are on the disk.
    pub compressed: u64,
}

impl Seen {
    /// Adds what another shard looked at, as far as numbers go: another node may say anything.
    pub fn add(&mut self, more: &Self) {
        add_up([
            (&mut self.records, more.records),
            (&mut self.bytes, more.bytes),
            (&mut self.chunks, more.chunks),
            (&mut self.head_records, more.head_records),
            (&mut self.head_bytes, more.head_bytes),
            (&mut self.head_chunks, more.head_chunks),
            (&mut self.blocks_matched, more.blocks_matched),
            (&mut self.batches_matched, more.batches_matched),
            (&mut self.compressed, more.compressed),
        ]);
    }
}

/// Adds to each sum what another node said, as far as numbers go.
fn add_up<const N: usize>(sums: [(&mut u64, u64); N]) {
    for (sum, more) in sums {
        *sum = sum.saturating_add(more);
    }
}

/// How many of a kind were considered, and why some of them were not read. Each is counted for one reason at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// All of them.
    pub all: u64,
    /// Those outside of the range of time, or of offsets.
    pub out_of_range: u64,
    /// Those in the range that hold none of the streams.
    pub of_other_streams: u64,
    /// Those whose records a retention rule hides.
    pub hidden: u64,
    /// Those that could only hold records past the limit.
    pub beyond_limit: u64,
}

impl Considered {
    fn add(&mut self, more: &Self) {
        add_up([
            (&mut self.all, more.all),
            (&mut self.out_of_range, more.out_of_range),
            (&mut self.of_other_streams, more.of_other_streams),
            (&mut self.hidden, more.hidden),
            (&mut self.beyond_limit, more.beyond_limit),
        ]);
    }
}

/// What a shard considered. A segment is skipped where all its blocks are: as one that retention hides if any of them is,
/// else as one of other streams if any of them is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighed {
    /// Segments.
    pub segments: Considered,
    /// Their blocks.
    pub blocks: Considered,
    /// Batches in no segment.
    pub batches: Considered,
}

impl Weighed {
    /// Adds what another shard considered.
    pub fn add(&mut self, more: &Self) {
        self.segments.add(&more.segments);
        self.blocks.add(&more.blocks);
        self.batches.add(&more.batches);
    }
}

/// Who made a part and how long it took, in microseconds. A scan, which has no clock, leaves it at nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The node whose replica was read.
    pub node: Option<NodeId>,
    /// Whether it was read as the leader it is.
    pub leads: bool,
    /// From asking for the part to having it, as who asked saw it.
    pub asked: u64,
    /// Until the replica could say what it holds.
    pub view: u64,
    /// Waiting for a worker.
    pub waited: u64,
    /// At work.
    pub scanned: u64,
}

impl Made {
    /// Adds the times of another part.
    pub fn add_times(&mut self, more: &Self) {
        add_up([
            (&mut self.asked, more.asked),
            (&mut self.view, more.view),
            (&mut self.waited, more.waited),
            (&mut self.scanned, more.scanned),
        ]);
    }
}

/// The answer of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Who answers.
    pub shard: ShardId,
    /// The first offset the shard had not given out: every record below was looked at.
    pub end: u64,
    /// What was looked at.
    pub seen: Seen,
    /// What was considered.
    pub weighed: Weighed,
    /// Who looked.
    pub made: Made,
    /// What was found.
    pub found: Found,
}

impl Partial {
    /// Its bytes between nodes; `QueryError::AnswerTooLarge` where they do not fit one message.
    pub fn encode(&self) -> Result<Vec<u8>, QueryError> {
        let bytes = encode(self);
        if bytes.len() > PARTIAL_BYTES_MAX {
            return Err(QueryError::AnswerTooLarge { shard: self.shard, bytes: bytes.len(), max: PARTIAL_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Reads what another node encoded; `QueryError::Codec` where the bytes are no partial answer of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, QueryError> {
        let partial: Self = decode("partial answer", bytes)?;
        if let Found::Records(found) = &partial.found
            && found.records.iter().any(|record| record.stream as usize >= found.streams.len())
        {
            let why = "a record of no stream".to_owned();
            return Err(QueryError::Codec { what: "partial answer".to_owned(), version: bytes.first().copied(), why });
        }
        Ok(partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shards_say_they_looked_at_adds_up_to_a_number() {
        let absurd = Seen { records: u64::MAX, compressed: u64::MAX - 1, ..Seen::default() };
        let mut seen = Seen { bytes: 3, ..absurd };
        seen.add(&Seen { bytes: 4, ..absurd });
        assert_eq!(seen, Seen { records: u64::MAX, compressed: u64::MAX, bytes: 7, ..Seen::default() });
        let blocks = Considered { all: u64::MAX, hidden: 1, ..Considered::default() };
        let mut weighed = Weighed { blocks, ..Weighed::default() };
        weighed.add(&weighed.clone());
        assert_eq!(weighed.blocks, Considered { hidden: 2, ..blocks });
        let mut made = Made { asked: u64::MAX, view: 1, ..Made::default() };
        made.add_times(&made.clone());
        assert_eq!((made.asked, made.view), (u64::MAX, 2));
    }
}
