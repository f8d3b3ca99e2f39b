//! `gateway`: the one actor of a node that other nodes can reach.
//!
//! Parent: `links`. It receives frames of all peers and hands each to its peer-link; it sends nothing. A restart loses
//! the frames in its mailbox; peers find the new one through the process group.
//!
//! On the wire a frame is a cast with the header as its metadata and the payload as its argument, both moved.

use bytes::Bytes;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use crate::env::Frame;
use crate::links::Links;

/// The process group of all gateways.
pub(super) const GROUP: &str = "millpond-gateways";

/// What a gateway is sent.
#[derive(Debug)]
pub(super) enum GatewayMessage {
    /// A frame.
    Frame(Frame),
    /// Something no node of this version sends.
    Unknown,
}

impl ractor::Message for GatewayMessage {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        match self {
            Self::Frame(Frame { header, payload }) => Ok(SerializedMessage::Cast {
                variant: String::new(),
                args: payload.into(),
                metadata: Some(header.into()),
            }),
            Self::Unknown => Err(BoxedDowncastErr),
        }
    }

    /// Never fails: ractor drops what does not deserialize without a trace.
    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        Ok(match message {
            SerializedMessage::Cast { args, metadata: Some(header), .. } => {
                Self::Frame(Frame { header: Bytes::from(header), payload: Bytes::from(args) })
            }
            SerializedMessage::Cast { metadata: None, .. }
            | SerializedMessage::Call { .. }
            | SerializedMessage::CallReply(..) => Self::Unknown,
        })
    }
}

pub(super) struct GatewayActor;

impl GatewayActor {
    pub(super) async fn spawn(links: Links, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let (gateway, _ends) = Actor::spawn_linked(None, Self, links, supervisor).await?;
        Ok(gateway.get_cell())
    }
}

impl Actor for GatewayActor {
    type Msg = GatewayMessage;
    type Arguments = Links;
    type State = Links;

    async fn pre_start(&self, myself: ActorRef<GatewayMessage>, links: Links) -> Result<Links, ActorProcessingErr> {
        ractor::pg::join(GROUP.to_owned(), vec![myself.get_cell()]);
        Ok(links)
    }

    async fn handle(
        &self,
        _: ActorRef<GatewayMessage>,
        message: GatewayMessage,
        links: &mut Links,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            GatewayMessage::Frame(frame) => links.frame(frame),
            // An empty header is counted and named like any other that does not decode.
            GatewayMessage::Unknown => links.frame(Frame { header: Bytes::new(), payload: Bytes::new() }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ractor::Message;

    use super::*;

    #[test]
    fn a_frame_is_moved_not_copied() {
        let payload = Bytes::from(vec![7u8; 100_000]);
        let at = payload.as_ptr();
        let frame = Frame { header: Bytes::from_static(b"header"), payload };
        let message = GatewayMessage::Frame(frame).serialize().unwrap();
        let GatewayMessage::Frame(back) = GatewayMessage::deserialize(message).unwrap() else {
            panic!("a frame came back as something else");
        };
        assert_eq!((back.payload.as_ptr(), back.payload.len()), (at, 100_000));
        assert_eq!(back.header, "header");
    }

    #[test]
    fn what_is_no_frame_is_not_lost_in_silence() {
        let message = SerializedMessage::Cast { variant: String::new(), args: vec![], metadata: None };
        assert!(matches!(GatewayMessage::deserialize(message), Ok(GatewayMessage::Unknown)));
    }
}
