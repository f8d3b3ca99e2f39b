//! What a node says first on a connection to another, and the one byte it hears back, before ractor_cluster speaks.
//!
//! ```text
//! preamble   "MLPD" (4), version u8 (1), purpose u8 (0 session, 1 knock), from u64, to u64, cluster u64;
//!            integers little-endian, 30 bytes; `cluster` is the XXH3 of the cluster's name
//! verdict    u8: 0 welcome, otherwise why not
//! ```

use millpond::id::NodeId;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 4] = *b"MLPD";
const VERSION: u8 = 1;

/// Bytes of a preamble.
pub(super) const PREAMBLE_BYTES: usize = 30;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To become a session.
    Session,
    /// To ask for one: the other node dials.
    Knock,
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) purpose: Purpose,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) cluster: u64,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Turned {
    /// Not a preamble of this version.
    #[error("it does not speak this version of millpond")]
    Version = 1,
    /// The address belongs to another node.
    #[error("another node answers at this address")]
    WrongNode = 2,
    /// Another cluster.
    #[error("it belongs to a cluster of another name")]
    WrongCluster = 3,
    /// A node that is no peer there, or not yet.
    #[error("it does not know this node")]
    UnknownNode = 4,
    /// A dial from the node that should knock, or the reverse.
    #[error("it expects to be called the other way round")]
    WrongWay = 5,
}

impl Turned {
    /// Reads a verdict; a number this version does not know is a version problem.
    pub(super) const fn of(verdict: u8) -> Option<Self> {
        match verdict {
            0 => None,
            2 => Some(Self::WrongNode),
            3 => Some(Self::WrongCluster),
            4 => Some(Self::UnknownNode),
            5 => Some(Self::WrongWay),
            _ => Some(Self::Version),
        }
    }
}

/// The number that stands for a cluster's name.
pub(super) fn cluster_number(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

impl Preamble {
    pub(super) fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = u8::from(self.purpose == Purpose::Knock);
        bytes[6..14].copy_from_slice(&self.from.0.to_le_bytes());
        bytes[14..22].copy_from_slice(&self.to.0.to_le_bytes());
        bytes[22..].copy_from_slice(&self.cluster.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self, Turned> {
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let purpose = match bytes[5] {
            0 => Purpose::Session,
            1 => Purpose::Knock,
            _ => return Err(Turned::Version),
        };
        if bytes[..4] != MAGIC || bytes[4] != VERSION {
            return Err(Turned::Version);
        }
        Ok(Self { purpose, from: NodeId(number(6)), to: NodeId(number(14)), cluster: number(22) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_preamble_reads_back(from: u64, to: u64, cluster: u64, knock: bool) {
            let purpose = if knock { Purpose::Knock } else { Purpose::Session };
            let preamble = Preamble { purpose, from: NodeId(from), to: NodeId(to), cluster };
            prop_assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::array::uniform30(any::<u8>())) {
            let _ = Preamble::decode(&bytes);
        }
    }

    #[test]
    fn each_verdict_reads_back() {
        for turned in [Turned::Version, Turned::WrongNode, Turned::WrongCluster, Turned::UnknownNode, Turned::WrongWay]
        {
            assert_eq!(Turned::of(turned as u8), Some(turned));
        }
        assert_eq!(Turned::of(0), None);
    }
}
