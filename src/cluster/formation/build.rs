//! Which build of Millpond a node runs, as far as other nodes must care: the versions of the protocol and of the disk
//! formats that it understands, and whether two builds can be in one cluster.
//!
//! Nodes are upgraded one at a time, so two builds are in one cluster for a while: what each sends must be understood by
//! the other, and files travel from one to the other as they are. Two builds can be together where there is a version of
//! the protocol, and one of the disk formats, that both understand. It does not know what differs between versions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::id::NodeId;
use crate::limits;

/// The protocol between nodes: hellos, messages of groups, calls. Raised with every change that an older build cannot read.
const PROTOCOL: Versions = Versions { oldest: 1, newest: 1 };
/// Log, segments, snapshots and registry. Raised with every change that an older build cannot read. In version 2 sealed
/// blocks hold templates: a build writes no others, so that none which does not read them can be beside it, although files
/// of version 1 are read.
const DISK: Versions = Versions { oldest: 2, newest: 2 };

/// The versions of one thing that a build understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest; not below the oldest.
    pub newest: u16,
}

impl Versions {
    /// Whether there is a version in both.
    fn meet(self, other: Self) -> bool {
        self.oldest.max(other.oldest) <= self.newest.min(other.newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        if oldest == newest { write!(f, "{newest}") } else { write!(f, "{oldest} to {newest}") }
    }
}

/// What a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its version number, for people.
    pub version: String,
    /// Of the protocol between nodes.
    pub protocol: Versions,
    /// Of what is on disks.
    pub disk: Versions,
}

impl Default for Build {
    /// This build.
    fn default() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL, disk: DISK }
    }
}

impl Build {
    /// Whether a node of this build can be in one cluster with a peer of another.
    ///
    /// # Errors
    /// What they have no version of in common.
    pub fn judge(&self, node: NodeId, peer: &Self) -> Result<(), BuildRefusal> {
        let bounded = peer.version.len() <= limits::BUILD_VERSION_BYTES_MAX;
        let refuse = |what: &'static str, ours: Versions, theirs: Versions| BuildRefusal {
            node,
            what,
            ours: (self.version.clone(), ours),
            theirs: (if bounded { peer.version.clone() } else { "of unknown version".to_owned() }, theirs),
        };
        if !self.protocol.meet(peer.protocol) {
            return Err(refuse("protocol", self.protocol, peer.protocol));
        }
        if !self.disk.meet(peer.disk) {
            return Err(refuse("disk formats", self.disk, peer.disk));
        }
        if bounded { Ok(()) } else { Err(refuse("version number", self.protocol, peer.protocol)) }
    }
}

/// Two builds that cannot be in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node} runs millpond {} with {what} {}, this node runs millpond {} with {what} {}: upgrade through a version \
     that understands both, one node at a time", theirs.0, theirs.1, ours.0, ours.1
)]
pub struct BuildRefusal {
    /// The peer.
    pub node: NodeId,
    /// What there is no common version of.
    pub what: &'static str,
    /// This build and what it understands.
    pub ours: (String, Versions),
    /// The peer's.
    pub theirs: (String, Versions),
}

impl BuildRefusal {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        Class::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(version: &str, protocol: (u16, u16), disk: (u16, u16)) -> Build {
        let of = |(oldest, newest)| Versions { oldest, newest };
        Build { version: version.to_owned(), protocol: of(protocol), disk: of(disk) }
    }

    #[test]
    fn builds_that_share_a_version_of_everything_can_be_together() {
        let (old, next, later) =
            (build("0.1.0", (1, 1), (1, 1)), build("0.2.0", (1, 2), (1, 3)), build("0.3.0", (2, 2), (2, 3)));
        for (one, other, together) in [(&old, &next, true), (&next, &later, true), (&old, &later, false)] {
            assert_eq!(one.judge(NodeId(2), other).is_ok(), together, "{one:?} {other:?}");
            assert_eq!(other.judge(NodeId(1), one).is_ok(), together, "{other:?} {one:?}");
        }
        assert_eq!(Build::default().judge(NodeId(2), &Build::default()), Ok(()));
    }

    #[test]
    fn a_refusal_names_both_builds_and_what_they_understand() {
        let (ours, theirs) = (build("0.1.0", (1, 2), (1, 1)), build("0.9.0", (2, 4), (3, 4)));
        let said = ours.judge(NodeId(7), &theirs).unwrap_err().to_string();
        assert!(said.starts_with("node 7 runs millpond 0.9.0 with disk formats 3 to 4, "), "{said}");
        assert!(said.contains("this node runs millpond 0.1.0 with disk formats 1: "), "{said}");
        let said = build("0.1.0", (1, 1), (1, 1)).judge(NodeId(7), &theirs).unwrap_err().to_string();
        assert!(said.contains("protocol 2 to 4") && said.contains("protocol 1:"), "{said}");
    }

    #[test]
    fn a_version_number_of_any_length_is_not_repeated() {
        let long = build(&"9".repeat(limits::BUILD_VERSION_BYTES_MAX + 1), (1, 1), (1, 1));
        let said = Build::default().judge(NodeId(7), &long).unwrap_err().to_string();
        assert!(said.contains("of unknown version"), "{said}");
    }
}
