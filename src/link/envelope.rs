//! The header of a frame between nodes and the payload of a heartbeat, byte by byte. This file does not know what a
//! link does with them.
//!
//! ```text
//! header      version u8 (1), then one MessagePack array (rmp-serde, structs as arrays):
//!             from, to, life [boot, incarnation], heard [boot, incarnation], sequence, lane, kind, code, call,
//!             message, fragment, fragments, length, sent [control, bulk], received [control, bulk]
//! heartbeat   payload of a frame of kind 0, one MessagePack array:
//!             at, echo, held, missed, accepted, refusal (string), hello (binary or nil)
//! raft        payload of kind 2, repeated to its end: shard u32, length u32 (little-endian), message
//! request     payload of kind 3: the body; `code` is the method, `call` the caller's number
//! answer      payload of kind 4: the body; `call` is the number of the request
//! fault       payload of kind 5: detail; `code` says which fault, `call` is the number of the request
//! grant       kind 1 has no payload: its header carries the credit
//! ```
//!
//! A message longer than `FRAME_BYTES_MAX` travels as several frames with the same `message` number; every fragment
//! but the last is exactly `FRAME_BYTES_MAX` long.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::LinkError;
use crate::id::{Boot, NodeId};
use crate::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, MESSAGE_BYTES_MAX, REFUSAL_BYTES_MAX};

/// The version of the envelope this node speaks.
pub const VERSION: u8 = 1;

/// One life of one end of a link: the process's boot, and how often the link was started within it. Larger is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// The life of the node's process; never zero.
    pub boot: Boot,
    /// Which start of the link within that process this is.
    pub incarnation: u64,
}

macro_rules! wire {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "u8", try_from = "u8")]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code),+
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> u8 {
                value as u8
            }
        }

        impl TryFrom<u8> for $name {
            type Error = LinkError;

            fn try_from(found: u8) -> Result<Self, LinkError> {
                match found {
                    $($code => Ok(Self::$variant),)+
                    _ => Err(LinkError::Code { of: stringify!($name), found }),
                }
            }
        }
    };
}

wire! {
    /// What travels ahead of what.
    Lane {
        /// Small and urgent: heartbeats, votes, acknowledgements.
        Control = 0,
        /// Everything with weight; waits for credit.
        Bulk = 1,
    }
}

wire! {
    /// What a frame's payload is.
    Kind {
        /// Liveness, credit, and now and then the hello.
        Heartbeat = 0,
        /// Credit alone.
        Grant = 1,
        /// Messages of Raft groups.
        Raft = 2,
        /// A call.
        Request = 3,
        /// What a call returned.
        Answer = 4,
        /// Why a call returned nothing.
        Fault = 5,
    }
}

wire! {
    /// What one node may ask of another. A number not listed here is answered with `FaultCode::UnknownMethod`.
    Method {
        /// Append an encoded batch to a shard whose leader is there.
        Append = 1,
        /// Run a part of a query there.
        Scan = 2,
        /// Read records by offset there.
        Records = 3,
        /// Say what the newest snapshot of a group there consists of, and keep its files a while.
        Manifest = 4,
        /// Read a piece of one of those files.
        Chunk = 5,
        /// Carry out a command of the metadata group, whose leader is there.
        Govern = 6,
        /// Say how the node there stands, and the groups that it leads.
        Report = 7,
        /// Say which moves are under way and should begin, where the metadata group is led.
        Plan = 8,
        /// Let another node lead a shard that is led there.
        Transfer = 9,
        /// Seal a shard whose leader is there, for a backup, and do as for `Manifest`.
        Seal = 10,
        /// Stop a part of a query there: nobody waits for it any more.
        Leave = 11,
    }
}

wire! {
    /// Why a call was answered without a result. Numbers below 128 belong to the link.
    FaultCode {
        /// The node does not know the method: it is of another version.
        UnknownMethod = 1,
        /// The node serves too many calls already; this one was not begun.
        Overloaded = 2,
        /// Whoever was to answer went away without doing so, or the answer found no room in the queue.
        Unanswered = 3,
        /// The answer is longer than a message may be.
        TooLarge = 4,
        /// The method itself refused; the detail is its own.
        Application = 128,
    }
}

/// A call that was answered without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub code: FaultCode,
    /// What the method says about it; empty for the link's own codes.
    pub detail: Bytes,
}

impl Fault {
    /// A fault of the link itself.
    #[must_use]
    pub const fn of(code: FaultCode) -> Self {
        Self { code, detail: Bytes::new() }
    }

    /// A method's own refusal with its encoded reason.
    #[must_use]
    pub const fn application(detail: Bytes) -> Self {
        Self { code: FaultCode::Application, detail }
    }
}

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Who sent it.
    pub from: NodeId,
    /// Whom it is for; another node that receives it drops it.
    pub to: NodeId,
    /// The sender's life.
    pub life: Life,
    /// The receiver's life as the sender knows it; zero before the sender heard anything.
    pub heard: Life,
    /// Counts the sender's frames within its life, from 1.
    pub sequence: u64,
    /// The lane whose credit it takes.
    pub lane: Lane,
    /// What the payload is.
    pub kind: Kind,
    /// Method or fault.
    pub code: u8,
    /// Number of the call, unique within the life of the node that called.
    pub call: u64,
    /// Number of the message within the sender's life.
    pub message: u64,
    /// Which fragment of the message this is.
    pub fragment: u32,
    /// How many there are.
    pub fragments: u32,
    /// Bytes of the whole message.
    pub length: u32,
    /// Bytes the sender has charged to each lane in its life, this frame included.
    pub sent: [u64; 2],
    /// Bytes of the receiver's current life that the sender has taken off each lane.
    pub received: [u64; 2],
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(VERSION);
        rmp_serde::encode::write(&mut bytes, self).expect("numbers always encode into memory");
        Bytes::from(bytes)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Empty, of another version, or not a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        let (&version, rest) = bytes.split_first().ok_or(LinkError::Empty)?;
        if version != VERSION {
            return Err(LinkError::Version { found: version });
        }
        Ok(rmp_serde::from_slice(rest)?)
    }

    /// Whether its fragment numbers and the payload agree with each other and with the bounds.
    pub(super) fn check(&self, payload: usize) -> Result<(), LinkError> {
        let length = self.length as usize;
        let (fragment, fragments) = (self.fragment as usize, self.fragments as usize);
        let expected = fragments_of(length);
        let start = fragment.saturating_mul(FRAME_BYTES_MAX);
        let sound = length <= MESSAGE_BYTES_MAX
            && fragments == expected
            && fragment < fragments
            && payload == length.saturating_sub(start).min(FRAME_BYTES_MAX);
        if sound {
            Ok(())
        } else {
            Err(LinkError::Fragment {
                fragment: self.fragment,
                fragments: self.fragments,
                length: self.length,
                payload,
            })
        }
    }
}

/// How many frames a message of `length` bytes takes; an empty message takes one.
pub(super) const fn fragments_of(length: usize) -> usize {
    if length == 0 { 1 } else { length.div_ceil(FRAME_BYTES_MAX) }
}

/// The payload of a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's own time in microseconds; only the sender reads it again.
    pub at: u64,
    /// The receiver's `at` that the sender heard last; zero for none.
    pub echo: u64,
    /// Microseconds between hearing that and sending this.
    pub held: u64,
    /// Frames of the receiver's current life that never came.
    pub missed: u64,
    /// Whether the sender accepted the receiver's hello of its current life.
    pub accepted: bool,
    /// Why it did not, or empty.
    pub refusal: String,
    /// What the sender says about itself, as the caller encoded it; it does not come with every heartbeat.
    pub hello: Option<serde_bytes::ByteBuf>,
}

impl Heartbeat {
    /// Its bytes.
    ///
    /// # Panics
    /// When the hello is longer than `HELLO_BYTES_MAX` or the refusal longer than `REFUSAL_BYTES_MAX`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        assert!(self.hello.as_ref().is_none_or(|hello| hello.len() <= HELLO_BYTES_MAX), "a hello is small");
        assert!(self.refusal.len() <= REFUSAL_BYTES_MAX, "a refusal is one sentence");
        Bytes::from(rmp_serde::to_vec(self).expect("numbers and bytes always encode into memory"))
    }

    /// Reads a heartbeat.
    ///
    /// # Errors
    /// Not a heartbeat, or one with a hello or refusal beyond its bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        let heartbeat: Self = rmp_serde::from_slice(bytes)?;
        let hello = heartbeat.hello.as_ref().map_or(0, |hello| hello.len());
        if hello > HELLO_BYTES_MAX || heartbeat.refusal.len() > REFUSAL_BYTES_MAX {
            return Err(LinkError::Heartbeat { hello, refusal: heartbeat.refusal.len() });
        }
        Ok(heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let numbers = prop::array::uniform12(any::<u64>());
        (numbers, any::<[u32; 3]>(), any::<u8>(), 0u8..2, 0u8..6).prop_map(|(n, f, code, lane, kind)| Header {
            from: NodeId(n[0]),
            to: NodeId(n[1]),
            life: Life { boot: Boot(n[2]), incarnation: n[3] },
            heard: Life { boot: Boot(n[4]), incarnation: n[5] },
            sequence: n[6],
            lane: Lane::try_from(lane).unwrap(),
            kind: Kind::try_from(kind).unwrap(),
            code,
            call: n[7],
            message: n[8],
            fragment: f[0],
            fragments: f[1],
            length: f[2],
            sent: [n[9], n[10]],
            received: [n[11], n[0]],
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_header_reads_back(header in header()) {
            prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }

        #[test]
        fn a_heartbeat_reads_back(at: u64, echo: u64, accepted: bool, refusal in "[a-z ]{0,200}",
                                  hello in prop::option::of(prop::collection::vec(any::<u8>(), 0..500))) {
            let hello = hello.map(serde_bytes::ByteBuf::from);
            let heartbeat = Heartbeat { at, echo, held: 3, missed: at ^ echo, accepted, refusal, hello };
            prop_assert_eq!(Heartbeat::decode(&heartbeat.encode()).unwrap(), heartbeat);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
            let bytes = if version { [&[VERSION], bytes.as_slice()].concat() } else { bytes };
            if let Ok(header) = Header::decode(&bytes) {
                let _ = header.check(bytes.len());
            }
            let _ = Heartbeat::decode(&bytes);
        }

        #[test]
        fn a_cut_or_flipped_header_never_panics(header in header(), at: usize, flip in 1u8.., cut: bool) {
            let mut bytes = header.encode().to_vec();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            if let Ok(header) = Header::decode(&bytes) {
                let _ = header.check(0);
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        assert!(matches!(Header::decode(&[9, 1, 2]), Err(LinkError::Version { found: 9 })));
    }
}
