//! Queries: what a listener asks, what it hears back, and the gate that admits only what a node can carry.
//!
//! `query` supervises the queriers; a query goes to one of them, in turn. Reading one shard is `reader`'s, wherever the
//! shard lives; what other nodes ask of this one is answered in `peer`; tails follow shards in `tails`.

mod peer;
mod querier;
mod reader;
mod tails;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::answer::Encoding;
use millpond::query::partial::Partial;
use millpond::query::plan::{OffsetQuery, Query, ShardRequest, Want};
use ractor::concurrency::oneshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

pub use tails::{Tail, TailQuestion};

use crate::links::Answer;
use crate::metrics::Running;
use crate::site::Site;
use crate::supervision::{Address, ChildSpec, Restart, SupervisorActor, SupervisorMessage};
use peer::Peers;
use querier::{Querier, QuerierMessage};
use reader::Reader;
use tails::Places;

/// The name of the supervisor in the tree.
pub const SUPERVISOR: &str = "query";

/// One query with all that its answer depends on.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is asked.
    pub query: Query,
    /// Of whose records.
    pub tenant: Arc<str>,
    /// Whether an answer may miss a shard, and say so.
    pub partial: bool,
    /// How metadata is shown.
    pub encoding: Encoding,
    /// Whether the answer says how it came about.
    pub explain: bool,
}

/// Whose copy of a shard is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The leader's, with everything acknowledged before; another replica's where that is damaged.
    Leader,
    /// That of this node, as far as it has applied.
    Local,
}

/// Admission, and the way to the queriers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryGate {
    reader: Reader,
    queriers: Arc<[Address<QuerierMessage>]>,
    tickets: Arc<AtomicU64>,
    running: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    peers: Peers,
    tails: Places,
}

/// Room for one query that runs. Dropping it gives the room back.
#[derive(Debug)]
struct Permit {
    _room: OwnedSemaphorePermit,
    _counted: Running,
}

impl QueryGate {
    /// A gate whose queriers have their seats in the tree and do not run yet. Scans run on at most `workers` threads.
    pub fn new(site: &Site, workers: usize) -> Self {
        let seat = |number| site.tree.seat(&format!("querier-{number}"), Some(SUPERVISOR));
        Self {
            reader: Reader::new(site.clone(), workers),
            queriers: (0..limits::QUERIERS).map(seat).collect(),
            tickets: Arc::default(),
            running: Arc::new(Semaphore::new(limits::QUERIES_RUNNING_MAX)),
            queued: Arc::default(),
            peers: Peers::default(),
            tails: Places::default(),
        }
    }

    /// The supervisor of the queriers, below the node.
    pub fn supervisor(&self, site: &Site) -> ChildSpec {
        let address = site.tree.seat::<SupervisorMessage>(SUPERVISOR, Some(crate::node::ROOT));
        let gate = self.clone();
        ChildSpec::new(&address, Restart::VITAL, move || {
            let spec = |querier: &Address<QuerierMessage>| {
                let reader = gate.reader.clone();
                ChildSpec::new(querier, reader.site().env.knobs.isolated, move || (Querier, reader.clone()))
            };
            (SupervisorActor, gate.queriers.iter().map(spec).collect())
        })
    }

    /// The node's handles.
    pub fn site(&self) -> &Site {
        self.reader.site()
    }

    /// Asks, and waits for the answer as the client reads it. Dropping the future cancels the query.
    ///
    /// # Errors
    /// Why there is no answer; `QueryError::Busy` at once where too many queries wait.
    pub async fn ask(&self, question: Question) -> Result<Bytes, QueryError> {
        let came = Instant::now();
        let deadline = came + limits::QUERY_DEADLINE;
        let permit = self.admit(deadline).await?;
        let queued = came.elapsed();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let turn = usize::try_from(ticket).unwrap_or(0) % self.queriers.len();
        let (reply, answer) = oneshot();
        let (question, reply) = (Box::new(question), reply.into());
        let ask = QuerierMessage::Ask { ticket, question, deadline, queued, permit, reply };
        self.queriers[turn].cast(ask).map_err(|_| QueryError::Cancelled)?;
        let _leave = Leave { querier: self.queriers[turn].clone(), ticket };
        answer.await.unwrap_or(Err(QueryError::Cancelled))
    }

    /// Reads records of one shard by offset, also those that a retention rule hides: nothing is left out between two of
    /// them. Dropping the future cancels the reading.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn records(&self, shard: ShardId, query: OffsetQuery, source: Source) -> Result<Partial, QueryError> {
        let deadline = Instant::now() + limits::QUERY_DEADLINE;
        let _permit = self.admit(deadline).await?;
        let request = Arc::new(ShardRequest { tenant: None, want: Want::Offsets(query), hidden: Vec::new() });
        let read = async {
            match source {
                Source::Leader => self.reader.read(shard, &request, deadline).await,
                Source::Local => self.reader.read_local(shard, &request).await,
            }
        };
        timeout_at(deadline, read).await.unwrap_or(Err(QueryError::Deadline))
    }

    /// Follows a log query: first what there is since its start, then what is applied from then on.
    ///
    /// # Errors
    /// Why the tail was not opened; `QueryError::TooManyTails` past the tenant's bound.
    pub async fn tail(&self, question: TailQuestion) -> Result<Tail, QueryError> {
        let place = self.tails.take(&question.tenant)?;
        let deadline = Instant::now() + limits::QUERY_DEADLINE;
        let permit = self.admit(deadline).await?;
        let opening = Tail::open(self.reader.clone(), question, place, deadline);
        let tail = timeout_at(deadline, opening).await.unwrap_or(Err(QueryError::Deadline));
        drop(permit);
        tail
    }

    /// Answers another node that reads a shard here.
    pub fn serve_peer(&self, from: NodeId, body: &[u8], answer: Answer) {
        self.peers.serve(&self.reader, from, body, answer);
    }

    /// Stops what another node reads here: its client has left.
    pub fn leave_peer(&self, from: NodeId, body: &[u8], answer: Answer) {
        self.peers.leave(from, body);
        answer.send(Ok(Bytes::new()));
    }

    async fn admit(&self, deadline: Instant) -> Result<Permit, QueryError> {
        let permit = |room| Permit { _room: room, _counted: self.site().metrics.query_runs() };
        if let Ok(room) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit(room));
        }
        let _place = Queued::take(&self.queued)?;
        match timeout_at(deadline, Arc::clone(&self.running).acquire_owned()).await {
            Ok(room) => Ok(permit(room.expect("it is never closed"))),
            Err(_) => Err(QueryError::Deadline),
        }
    }
}

/// A place among the queries that wait.
struct Queued(Arc<AtomicUsize>);

impl Queued {
    fn take(queued: &Arc<AtomicUsize>) -> Result<Self, QueryError> {
        let place = Self(Arc::clone(queued));
        if queued.fetch_add(1, Ordering::Relaxed) < limits::QUERIES_QUEUED_MAX {
            return Ok(place);
        }
        Err(QueryError::Busy { running: limits::QUERIES_RUNNING_MAX, queued: limits::QUERIES_QUEUED_MAX })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells a querier that nobody waits for the answer any more.
struct Leave {
    querier: Address<QuerierMessage>,
    ticket: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        // A querier that was restarted has forgotten the query.
        let _ = self.querier.cast(QuerierMessage::Leave { ticket: self.ticket });
    }
}
