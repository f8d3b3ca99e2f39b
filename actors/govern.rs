//! How a command comes to the metadata group, wherever its leader is, and what became of it.
//!
//! Every node runs a replica of the group and so knows who leads it. A command goes to the replica of this node if that
//! leads, otherwise to the node that does: the body of the call is the encoded command, the answer an encoded
//! `AppendOutcome`. It is proposed again only while it is certain that it is in no log. Commands repeat without harm or
//! are checked against the state, so that a caller who does not know the outcome may look, and ask again. This file does
//! not know what commands mean.

use bytes::Bytes;
use millpond::class::Class;
use millpond::cluster::{Applied, Command};
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::link::{Fault, FaultCode, Method};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::append::{AppendOutcome, AppendReply};
use crate::board::LEADER_POLL;
use crate::links::{Answer, CallError};
use crate::replica::ReplicaMessage;
use crate::site::Site;

/// What a command did. It is committed and applied where the group is led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// The state is as the command asks, by this command or by one before.
    Done,
    /// It does not fit the state, which is as before.
    Refused {
        /// `Retry`: it may fit once something else has happened.
        class: Class,
        /// Why.
        why: String,
    },
}

impl From<Applied> for Carried {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Refused { why } => Self::Refused { class: why.class(), why: why.to_string() },
            Applied::Nothing
            | Applied::Formed { .. }
            | Applied::Placed { .. }
            | Applied::Began { .. }
            | Applied::Ended { .. }
            | Applied::Confirmed { .. }
            | Applied::Widened { .. }
            | Applied::Cancelled { .. }
            | Applied::NodeChanged { .. }
            | Applied::StoreReplaced { .. }
            | Applied::ReplicationSet { .. } => Self::Done,
        }
    }
}

/// Why it is not known what a command did, or why it did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GovernError {
    /// Nothing was proposed: nobody leads.
    #[error("the metadata group has no leader that this node knows; nothing was changed, try again")]
    NoLeader,
    /// Nothing was proposed: the node that leads was not reached.
    #[error("node {node}, which leads the metadata group, was not reached: {why}; nothing was changed, try again")]
    Unreached {
        /// It.
        node: NodeId,
        /// Why not.
        why: CallError,
    },
    /// Nothing was proposed: the leader has too much waiting, or no room on its disk.
    #[error("the leader of the metadata group has too much waiting or a full disk; nothing was changed, try again")]
    Busy,
    /// The command may or may not have been carried out.
    #[error(
        "the command may or may not be carried out: the leader of the metadata group was lost on the way; look, then ask again"
    )]
    Unknown,
    /// The node that leads does not know such a command.
    #[error("node {node}, which leads the metadata group, does not take the command: {why}")]
    NotTaken {
        /// It.
        node: NodeId,
        /// Its words.
        why: String,
    },
}

impl GovernError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::NoLeader | Self::Unreached { .. } | Self::Busy | Self::Unknown => Class::Retry,
            Self::NotTaken { .. } => Class::Refuse,
        }
    }
}

/// Has the metadata group carry out a command, and says what it did. This node may apply it a little later.
///
/// # Errors
/// `Unknown` where it may have been carried out. Otherwise nothing was, within the deadline.
pub async fn govern(site: &Site, command: Command) -> Result<Carried, GovernError> {
    let payload: Bytes = command.encode().into();
    let deadline = Instant::now() + limits::GOVERN_DEADLINE;
    loop {
        let delay = match attempt(site, &payload, deadline).await {
            Attempt::Over(outcome) => return outcome,
            Attempt::Again(delay) => delay,
        };
        if Instant::now() + LEADER_POLL >= deadline {
            return Err(delay);
        }
        sleep(LEADER_POLL).await;
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Over(Result<Carried, GovernError>),
    /// It is in no log, for this reason.
    Again(GovernError),
}

async fn attempt(site: &Site, payload: &Bytes, deadline: Instant) -> Attempt {
    let Some(leader) = site.board.leader(ShardId::METADATA) else { return Attempt::Again(GovernError::NoLeader) };
    if leader == site.env.node {
        return told(propose(site, payload.clone(), deadline).await);
    }
    let patience = deadline.saturating_duration_since(Instant::now());
    match site.links.call(leader, Method::Govern, payload.clone(), patience).await {
        Ok(answer) => told(AppendOutcome::decode(&answer)),
        Err(why) => failed(leader, why),
    }
}

/// Proposes to the replica of this node.
async fn propose(site: &Site, payload: Bytes, deadline: Instant) -> AppendOutcome {
    let (reply, answer) = oneshot::channel();
    let reply = AppendReply::caller(reply);
    if let Some(replica) = site.board.replica(ShardId::METADATA) {
        // Dropped unsent, the reply answers for itself.
        let _ = replica.cast(ReplicaMessage::Append { payload, reply });
    }
    match timeout_at(deadline, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => AppendOutcome::Unknown,
    }
}

fn told(outcome: AppendOutcome) -> Attempt {
    match outcome {
        AppendOutcome::Governed(carried) => Attempt::Over(Ok(carried)),
        AppendOutcome::NotLeader(_) => Attempt::Again(GovernError::NoLeader),
        AppendOutcome::Busy => Attempt::Again(GovernError::Busy),
        AppendOutcome::Unknown | AppendOutcome::Applied(_) => Attempt::Over(Err(GovernError::Unknown)),
    }
}

fn failed(node: NodeId, error: CallError) -> Attempt {
    match error {
        CallError::Fault { fault: Fault { code: FaultCode::Application, detail }, .. } => {
            let why = String::from_utf8_lossy(&detail).into_owned();
            Attempt::Over(Err(GovernError::NotTaken { node, why }))
        }
        CallError::Fault { fault: Fault { code: FaultCode::UnknownMethod, .. }, .. } => {
            let why = "it is of an older version, that takes commands only on the node that leads".to_owned();
            Attempt::Over(Err(GovernError::NotTaken { node, why }))
        }
        error if error.is_certainly_unsent() => Attempt::Again(GovernError::Unreached { node, why: error }),
        CallError::Unreachable(_)
        | CallError::Overloaded(_)
        | CallError::TooLarge(_)
        | CallError::Timeout(_)
        | CallError::Fault { .. } => Attempt::Over(Err(GovernError::Unknown)),
    }
}

/// Takes a command that another node forwards.
pub fn serve(site: &Site, body: Bytes, answer: Answer) {
    // A committed command that cannot be read stops every node: it must not come so far.
    if let Err(error) = Command::decode(&body) {
        answer.send(Err(Fault::application(error.to_string().into())));
        return;
    }
    // Dropped where no replica runs here, the reply says that the outcome is unknown.
    let reply = AppendReply::peer(answer);
    if let Some(replica) = site.board.replica(ShardId::METADATA) {
        let _ = replica.cast(ReplicaMessage::Append { payload: body, reply });
    }
}

#[cfg(test)]
mod tests {
    use millpond::cluster::CommandRefusal;

    use super::*;

    const NODE: NodeId = NodeId(2);

    #[test]
    fn what_a_command_did_travels_between_nodes() {
        let why = CommandRefusal::NoMember { node: NODE };
        for applied in [Applied::Nothing, Applied::ReplicationSet { copies: 3 }, Applied::Refused { why }] {
            let outcome = AppendOutcome::Governed(applied.into());
            assert_eq!(AppendOutcome::decode(&outcome.encode()), outcome);
        }
    }

    #[test]
    fn a_refusal_keeps_its_class_and_its_words() {
        let carried = |why| Carried::from(Applied::Refused { why });
        let never = Carried::Refused { class: Class::Refuse, why: "node 2 is no member of the cluster".to_owned() };
        assert_eq!(carried(CommandRefusal::NoMember { node: NODE }), never);
        assert!(matches!(carried(CommandRefusal::NotFormed), Carried::Refused { class: Class::Retry, .. }));
    }

    #[test]
    fn only_what_is_certainly_in_no_log_is_proposed_again() {
        let fault = |code| CallError::Fault { node: NODE, fault: Fault::of(code) };
        let again = |attempt: &Attempt| matches!(attempt, Attempt::Again(_));
        let unknown = Attempt::Over(Err(GovernError::Unknown));
        assert!(again(&told(AppendOutcome::NotLeader(None))) && again(&told(AppendOutcome::Busy)));
        assert!(again(&failed(NODE, CallError::Unreachable(NODE))));
        assert!(again(&failed(NODE, fault(FaultCode::Overloaded))));
        assert_eq!(told(AppendOutcome::Unknown), unknown);
        assert_eq!(failed(NODE, CallError::Timeout(NODE)), unknown);
        assert_eq!(failed(NODE, fault(FaultCode::Unanswered)), unknown);
    }

    #[test]
    fn a_leader_that_does_not_take_the_command_is_quoted() {
        let fault = Fault::application(Bytes::from_static(b"a command of version 3"));
        let attempt = failed(NODE, CallError::Fault { node: NODE, fault });
        let Attempt::Over(Err(error)) = attempt else { panic!("{attempt:?}") };
        assert_eq!(error.class(), Class::Refuse);
        assert!(error.to_string().ends_with("a command of version 3"), "{error}");
    }
}
