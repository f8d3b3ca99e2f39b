//! What is tuned inside a node and no operator is asked about. The defaults are the limits of the same names; nothing
//! may depend on one value of them, which the simulation holds by drawing others.

use millpond::{consensus, limits};

use crate::supervision::Restart;

/// The knobs of one node; all nodes of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Those of every replica.
    pub consensus: consensus::Knobs,
    /// Raw bytes of one part of a request; a longer record is a part of its own.
    pub part_bytes_max: usize,
    /// Bytes of sub-batches that an ingester puts into one entry; a larger part travels alone.
    pub entry_bytes_max: usize,
    /// Entries that an ingester keeps unanswered per shard.
    pub entries_in_flight_max: usize,
    /// Bytes of one group commit.
    pub group_bytes_max: usize,
    /// Bulk bytes outstanding on one link.
    pub link_credit_bytes: usize,
    /// The budget of actors whose loss must not disturb their siblings.
    pub isolated: Restart,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            consensus: consensus::Knobs::default(),
            part_bytes_max: limits::BATCH_RAW_BYTES_MAX,
            entry_bytes_max: limits::ENTRY_BYTES_MAX,
            entries_in_flight_max: limits::ENTRIES_IN_FLIGHT_PER_SHARD_MAX,
            group_bytes_max: limits::WAL_GROUP_BYTES_MAX,
            link_credit_bytes: limits::LINK_CREDIT_BYTES,
            isolated: Restart::ISOLATED,
        }
    }
}
