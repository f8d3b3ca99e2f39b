//! `querier-K`: scatters a query over the shards, gathers their parts, and answers.
//!
//! Parent: `query`. It receives queries from listeners and parts from its errands, one task for each shard that is
//! being read; it sends nothing but the answer. Where a part was cut, the same shard is asked to go on; where a shard
//! is lost, the query fails with its name, or goes on without it if the caller allowed that. The last step, from parts
//! to the bytes of the answer, runs on a worker thread. A restart loses the queries it had; their clients hear 503.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond::id::ShardId;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::answer::Took;
use millpond::query::merge::Gather;
use millpond::query::partial::Partial;
use millpond::query::plan::ShardRequest;
use ractor::RpcReplyPort;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::reader::{Reader, micros};
use super::{Permit, Question};
use crate::supervision::{Actor, ActorError, Own};

/// What a querier does.
pub(super) enum QuerierMessage {
    /// Answer a query.
    Ask {
        /// A number that no other query of this node has.
        ticket: u64,
        /// The query.
        question: Box<Question>,
        /// When it must be answered.
        deadline: Instant,
        /// How long it waited for its room.
        queued: Duration,
        /// Its room.
        permit: Permit,
        /// The listener that waits.
        reply: RpcReplyPort<Result<Bytes, QueryError>>,
    },
    /// Nobody waits for a query any more.
    Leave {
        /// The query.
        ticket: u64,
    },
    /// An errand came back.
    Found {
        /// For which query.
        ticket: u64,
        /// Its place among the errands of the query.
        errand: u64,
        /// What the shard holds of the answer.
        outcome: Result<Box<Partial>, QueryError>,
    },
    /// A query has reached its deadline.
    Expired {
        /// The query.
        ticket: u64,
    },
}

/// Runs one querier.
#[derive(Debug)]
pub(super) struct Querier;

/// The state of a querier.
pub(super) struct QuerierState {
    myself: Own<QuerierMessage>,
    reader: Reader,
    queries: BTreeMap<u64, Running>,
}

/// A query whose answer is open.
struct Running {
    question: Box<Question>,
    gather: Gather,
    queued: Duration,
    since: Instant,
    gathered: Duration,
    deadline: Instant,
    timer: Task,
    waiting: VecDeque<Errand>,
    errands: BTreeMap<u64, (Errand, Task)>,
    numbered: u64,
    reply: RpcReplyPort<Result<Bytes, QueryError>>,
    permit: Permit,
}

/// One request to one shard.
#[derive(Clone)]
struct Errand {
    shard: ShardId,
    /// The place of the request among those of the query.
    number: usize,
    request: Arc<ShardRequest>,
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for Querier {
    type Message = QuerierMessage;
    type Arguments = Reader;
    type State = QuerierState;

    async fn pre_start(&self, myself: &Own<QuerierMessage>, reader: Reader) -> Result<QuerierState, ActorError> {
        Ok(QuerierState { myself: myself.clone(), reader, queries: BTreeMap::new() })
    }

    async fn handle(
        &self,
        _: &Own<QuerierMessage>,
        message: QuerierMessage,
        state: &mut QuerierState,
    ) -> Result<(), ActorError> {
        match message {
            QuerierMessage::Ask { ticket, question, deadline, queued, permit, reply } => {
                state.ask(ticket, question, deadline, queued, permit, reply);
            }
            QuerierMessage::Leave { ticket } => drop(state.queries.remove(&ticket)),
            QuerierMessage::Found { ticket, errand, outcome } => state.found(ticket, errand, outcome),
            QuerierMessage::Expired { ticket } => state.fail(ticket, QueryError::Deadline),
        }
        Ok(())
    }
}

impl QuerierState {
    fn ask(
        &mut self,
        ticket: u64,
        question: Box<Question>,
        deadline: Instant,
        queued: Duration,
        permit: Permit,
        reply: RpcReplyPort<Result<Bytes, QueryError>>,
    ) {
        let gather = Gather::new(question.query.clone(), &question.tenant);
        let gather = gather.hiding(self.reader.hidden()).explaining(question.explain);
        let requests: Vec<Arc<ShardRequest>> = gather.requests().into_iter().map(Arc::new).collect();
        let mut waiting = VecDeque::new();
        for shard in (0..self.reader.site().board.shards()).map(ShardId) {
            let errand =
                |(number, request): (usize, &Arc<ShardRequest>)| Errand { shard, number, request: request.clone() };
            waiting.extend(requests.iter().enumerate().map(errand));
        }
        let since = Instant::now();
        let expired = self.myself.cast_after(deadline - since, QuerierMessage::Expired { ticket });
        let timer = Task(expired);
        let (errands, gathered, numbered) = (BTreeMap::new(), Duration::ZERO, 0);
        let running = Running {
            question,
            gather,
            queued,
            since,
            gathered,
            deadline,
            timer,
            waiting,
            errands,
            numbered,
            reply,
            permit,
        };
        self.queries.insert(ticket, running);
        self.pump(ticket);
    }

    /// Sends errands while there is room, and answers when the last came back.
    fn pump(&mut self, ticket: u64) {
        let Some(running) = self.queries.get_mut(&ticket) else { return };
        while running.errands.len() < limits::QUERY_FANOUT_MAX
            && let Some(errand) = running.waiting.pop_front()
        {
            running.numbered += 1;
            let (number, deadline) = (running.numbered, running.deadline);
            let (myself, reader, sent) = (self.myself.clone(), self.reader.clone(), errand.clone());
            let task = tokio::spawn(async move {
                let asked = Instant::now();
                let read = reader.read(sent.shard, &sent.request, deadline).await;
                let outcome = read.map(|mut partial| {
                    partial.made.asked = micros(asked.elapsed());
                    Box::new(partial)
                });
                // A querier that ended has dropped its clients.
                let _ = myself.cast(QuerierMessage::Found { ticket, errand: number, outcome });
            });
            running.errands.insert(number, (errand, Task(task)));
        }
        if running.errands.is_empty() {
            self.conclude(ticket);
        }
    }

    fn found(&mut self, ticket: u64, errand: u64, outcome: Result<Box<Partial>, QueryError>) {
        let Some(running) = self.queries.get_mut(&ticket) else { return };
        let Some((Errand { shard, number, .. }, _)) = running.errands.remove(&errand) else { return };
        let may_miss = running.question.partial || millpond::mutant!(MissingShardLeftOut);
        let began = Instant::now();
        let next = outcome.and_then(|partial| running.gather.add(number, *partial));
        running.gathered += began.elapsed();
        match next {
            Ok(None) => {}
            Ok(Some(request)) => running.waiting.push_front(Errand { shard, number, request: Arc::new(request) }),
            Err(error) if may_miss && is_loss(&error) => running.gather.miss(shard, error.to_string()),
            Err(error) => return self.fail(ticket, error),
        }
        self.pump(ticket);
    }

    fn fail(&mut self, ticket: u64, error: QueryError) {
        if let Some(running) = self.queries.remove(&ticket) {
            // Who no longer waits has closed the connection.
            let _ = running.reply.send(Err(error));
        }
    }

    fn conclude(&mut self, ticket: u64) {
        let Some(running) = self.queries.remove(&ticket) else { return };
        let Running { question, gather, queued, since, gathered, reply, timer, permit, .. } = running;
        drop(timer);
        self.reader.work(move || {
            let began = Instant::now();
            let answer = gather.finish();
            let took = Took { queued, ran: since.elapsed(), gathered, merged: began.elapsed() };
            let _ = reply.send(answer.map(|answer| answer.to_json(question.encoding, took).into()));
            drop(permit);
        });
    }
}

/// Whether a shard is missing, rather than the query wrong.
fn is_loss(error: &QueryError) -> bool {
    matches!(
        error,
        QueryError::Unavailable { .. }
            | QueryError::Damaged { .. }
            | QueryError::Storage { .. }
            | QueryError::Codec { .. }
    )
}
