//! What can be wrong with a frame. None of it is fatal: the frame is dropped and counted.

use thiserror::Error;

use super::envelope::{Life, VERSION};
use crate::class::Class;
use crate::id::NodeId;

/// Why a frame was not taken.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No header at all.
    #[error("a frame came without a header")]
    Empty,
    /// A node that speaks another envelope.
    #[error("a frame came with envelope version {found}, this node speaks {}: run one version on all nodes", VERSION)]
    Version {
        /// The version in the frame.
        found: u8,
    },
    /// Not MessagePack, or not these fields.
    #[error("a frame does not decode: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A number without a meaning here.
    #[error("{found} names no {of}")]
    Code {
        /// The enumeration.
        of: &'static str,
        /// The number.
        found: u8,
    },
    /// A frame for another node, or from one this link does not serve.
    #[error("a frame from node {from} is for node {to}")]
    Misaddressed {
        /// Its sender.
        from: NodeId,
        /// Its addressee.
        to: NodeId,
    },
    /// A frame of a life that has ended, the sender's or ours.
    #[error("a frame belongs to an earlier life of a link ({life:?})")]
    Stale {
        /// The life it belongs to.
        life: Life,
    },
    /// A frame that came before, or too late to tell.
    #[error("frame {sequence} came twice or too late")]
    Repeated {
        /// Its number.
        sequence: u64,
    },
    /// Fragment numbers that contradict each other, the payload or the bounds.
    #[error("fragment {fragment} of {fragments} with {payload} bytes does not fit a message of {length} bytes")]
    Fragment {
        /// Its number.
        fragment: u32,
        /// How many the header claims.
        fragments: u32,
        /// Bytes of the message as the header claims.
        length: u32,
        /// Bytes of the payload.
        payload: usize,
    },
    /// A fragment whose predecessor did not come.
    #[error("message {message} lost a fragment and is discarded")]
    Torn {
        /// Its number.
        message: u64,
    },
    /// A batch of Raft messages that ends inside one.
    #[error("a batch of raft messages breaks off at byte {at} of {length}")]
    Batch {
        /// Where the last whole message ends.
        at: usize,
        /// Bytes of the batch.
        length: usize,
    },
    /// A heartbeat with more to say than it may.
    #[error("a heartbeat carries a hello of {hello} and a refusal of {refusal} bytes")]
    Heartbeat {
        /// Bytes of the hello.
        hello: usize,
        /// Bytes of the refusal.
        refusal: usize,
    },
    /// Credit for more than was ever sent.
    #[error("a peer acknowledges {received} bytes where {sent} were sent")]
    Credit {
        /// What it claims to have received.
        received: u64,
        /// What was sent.
        sent: u64,
    },
    /// Something other than a heartbeat from a peer whose hello was not accepted.
    #[error("a frame came before the hello was accepted")]
    Unwelcome,
}

impl LinkError {
    /// A frame that is not taken is sent again by whoever needs it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Empty
            | Self::Decode(_)
            | Self::Code { .. }
            | Self::Misaddressed { .. }
            | Self::Fragment { .. }
            | Self::Batch { .. }
            | Self::Heartbeat { .. }
            | Self::Credit { .. }
            | Self::Version { .. } => Class::Refuse,
            Self::Stale { .. } | Self::Repeated { .. } | Self::Torn { .. } | Self::Unwelcome => Class::Retry,
        }
    }
}
