//! Reads one shard, wherever it lives: through its leader, so that everything acknowledged before is seen, and where
//! the leader's copy is damaged through another replica that has at least as much.
//!
//! Scans run on worker threads, a few blocks a turn, so that they leave room for whoever stores records. A future of
//! this file that is dropped stops its scan at the next block, or within one at the next record that stages work on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond::id::{NodeId, ShardId};
use millpond::limits;
use millpond::query::partial::{Made, Partial};
use millpond::query::plan::{Hidden, ShardRequest};
use millpond::query::scan::Scan;
use millpond::query::{QueryError, View};
use millpond::retention::Policy;
use ractor::concurrency::oneshot;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::peer::{Leaving, PeerRequest, PeerSource, Ticket};
use crate::board::{LEADER_POLL, Phase};
use crate::env::Lane;
use crate::links::{CallError, FaultCode, Method};
use crate::metrics::Running;
use crate::replica::{ReadRefusal, ReplicaMessage};
use crate::scrubber::{ScrubberMessage, Suspect, scrubber_seat};
use crate::site::Site;

/// How long a replica may take to say what it holds; an election takes longer and is waited for by asking again.
const READ_PATIENCE: Duration = Duration::from_millis(950);

/// Reads shards. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    site: Site,
    retention: Arc<Policy>,
    /// Turns of scans on worker threads.
    turns: Arc<Semaphore>,
    /// Requests to other nodes so far.
    calls: Arc<AtomicU64>,
}

/// A duration as parts carry it.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Why one attempt gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// Another attempt may succeed: what is missing.
    NotNow(String),
    /// The scan failed. The shard ended at `end` in the view that was scanned.
    Failed {
        /// Why.
        error: QueryError,
        /// The first offset not given out.
        end: u64,
    },
}

impl Refusal {
    fn of(refusal: ReadRefusal) -> Self {
        let why = match refusal {
            ReadRefusal::NotLeader(_) => "its leader changed",
            ReadRefusal::Recovering => "its replica is starting",
            ReadRefusal::Busy => "its leader could not confirm that it leads",
            ReadRefusal::NoRecords => "it holds no records",
        };
        Self::NotNow(why.to_owned())
    }
}

/// Stops a scan when nobody waits for it any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// A reader that has at most so many turns on worker threads at once.
    pub(super) fn new(site: Site, workers: usize) -> Self {
        let retention = Arc::new(site.config.cluster.retention.policy(site.board.shards()));
        Self { site, retention, turns: Arc::new(Semaphore::new(workers)), calls: Arc::default() }
    }

    /// What the retention hides now, by the clock of this node as far as the others agree with it. Shard time would not
    /// do: it stands still where nothing is stored, and differs from shard to shard within one answer.
    pub(super) fn hidden(&self) -> Vec<Hidden> {
        self.retention.hidden(self.site.board.sober(self.site.env.clock.now()))
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Reads a shard as of now. It follows leadership, and gives up where nobody leads for `UNAVAILABLE_AFTER`.
    pub(super) async fn read(
        &self,
        shard: ShardId,
        request: &Arc<ShardRequest>,
        deadline: Instant,
    ) -> Result<Partial, QueryError> {
        self.read_past(shard, request, None, deadline).await
    }

    /// The same, once the shard ends past an offset, or after a while.
    pub(super) async fn read_past(
        &self,
        shard: ShardId,
        request: &Arc<ShardRequest>,
        past: Option<u64>,
        deadline: Instant,
    ) -> Result<Partial, QueryError> {
        let mut trouble: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let leader = self.site.board.leader(shard);
            let refusal = match leader {
                None => Refusal::NotNow("no leader is known".to_owned()),
                Some(leader) => match self.attempt(shard, leader, request, past, deadline).await {
                    Ok(partial) => return Ok(partial),
                    Err(refusal) => refusal,
                },
            };
            match (refusal, leader) {
                (Refusal::Failed { error: error @ QueryError::Damaged { .. }, end }, Some(leader)) => {
                    return self.read_elsewhere(shard, leader, request, end, deadline, error).await;
                }
                (Refusal::Failed { error, .. }, _) => return Err(error),
                (Refusal::NotNow(why), _) => {
                    let long_work = began.elapsed() > limits::UNAVAILABLE_AFTER;
                    let since = if long_work { Instant::now() } else { trouble.unwrap_or(began) };
                    trouble = Some(since);
                    if since.elapsed() >= limits::UNAVAILABLE_AFTER {
                        return Err(QueryError::Unavailable { shard, why });
                    }
                    sleep(LEADER_POLL).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        shard: ShardId,
        leader: NodeId,
        request: &Arc<ShardRequest>,
        past: Option<u64>,
        deadline: Instant,
    ) -> Result<Partial, Refusal> {
        if leader == self.site.env.node {
            return self.read_as_leader(shard, request, past).await;
        }
        let source = PeerSource::Leader { past };
        tokio::select! {
            answer = self.call(shard, leader, request, source, deadline) => answer,
            () = self.deposed(shard, leader) => Err(Refusal::NotNow("its leader changed".to_owned())),
        }
    }

    /// Ends when a node is no longer known to lead a shard.
    async fn deposed(&self, shard: ShardId, leader: NodeId) {
        let Some(seat) = self.site.board.seat(shard) else { return };
        let moved = |standing: &crate::board::Standing| standing.leader.is_some_and(|now| now != leader);
        // The board outlives everybody who watches it.
        let _ = seat.subscribe().wait_for(|seat| moved(&seat.standing)).await;
    }

    /// Reads the replica of this node as the leader it is thought to be.
    pub(super) async fn read_as_leader(
        &self,
        shard: ShardId,
        request: &Arc<ShardRequest>,
        past: Option<u64>,
    ) -> Result<Partial, Refusal> {
        if let Some(past) = past {
            self.wait_past(shard, past).await;
        }
        let (view, made) = self.view(shard, true).await?;
        self.scan(view, made, request).await
    }

    /// Waits until the replica of this node has applied past an offset, does not lead, or a while is over.
    async fn wait_past(&self, shard: ShardId, past: u64) {
        let Some(seat) = self.site.board.seat(shard) else { return };
        let mut seat = seat.subscribe();
        let node = self.site.env.node;
        let ready = seat.wait_for(|seat| seat.standing.next_offset.0 > past || seat.standing.leader != Some(node));
        // Nothing new is an answer too: who asked asks again.
        let _ = timeout(limits::TAIL_WAIT, ready).await;
    }

    /// Reads the replica of this node as far as it has applied; where it leads, with everything acknowledged before: a
    /// leader that has just started has not applied yet what its log holds.
    pub(super) async fn read_local(&self, shard: ShardId, request: &Arc<ShardRequest>) -> Result<Partial, QueryError> {
        if self.site.board.leader(shard) == Some(self.site.env.node)
            && let Ok((view, made)) = self.view(shard, true).await
        {
            return self.scan(view, made, request).await.map_err(|refusal| refusal.error(shard));
        }
        self.read_here(shard, request).await
    }

    /// Reads the replica of this node as far as it has applied.
    pub(super) async fn read_here(&self, shard: ShardId, request: &Arc<ShardRequest>) -> Result<Partial, QueryError> {
        self.read_applied(shard, request, 0).await.map_err(|refusal| refusal.error(shard))
    }

    /// Reads the replica of this node once it has applied everything before an offset.
    pub(super) async fn read_applied(
        &self,
        shard: ShardId,
        request: &Arc<ShardRequest>,
        at_least: u64,
    ) -> Result<Partial, Refusal> {
        let began = Instant::now();
        loop {
            let (view, mut made) = self.view(shard, false).await?;
            if view.end.0 >= at_least {
                made.view = micros(began.elapsed());
                return self.scan(view, made, request).await;
            }
            if began.elapsed() >= limits::UNAVAILABLE_AFTER {
                return Err(Refusal::NotNow("its replica is behind".to_owned()));
            }
            sleep(LEADER_POLL).await;
        }
    }

    async fn view(&self, shard: ShardId, linearizable: bool) -> Result<(View, Made), Refusal> {
        let began = Instant::now();
        let not_now = |why: &str| Refusal::NotNow(why.to_owned());
        let replica = self.site.board.replica(shard).ok_or_else(|| not_now("there is no such shard"))?;
        let (reply, view) = oneshot();
        let read = ReplicaMessage::Read { linearizable, reply: reply.into() };
        replica.cast(read).map_err(|_| not_now("no replica of it runs on the node asked"))?;
        match timeout(READ_PATIENCE, view).await {
            Ok(Ok(view)) => {
                let view = view.map_err(Refusal::of)?;
                let (node, view_took) = (Some(self.site.env.node), micros(began.elapsed()));
                Ok((view, Made { node, leads: linearizable, view: view_took, ..Made::default() }))
            }
            Ok(Err(_)) => Err(not_now("its replica was restarted")),
            Err(_) => Err(not_now("its leader could not confirm in time that it leads")),
        }
    }

    async fn scan(&self, view: View, mut made: Made, request: &Arc<ShardRequest>) -> Result<Partial, Refusal> {
        let (shard, end) = (view.shard, view.end.0);
        let stop = Stop(Arc::default());
        let running = Arc::new(self.site.metrics.scan_runs());
        let failed = |error| {
            self.suspect(shard, &error);
            Refusal::Failed { error, end }
        };
        let request = Arc::clone(request);
        let begin = move || Scan::new(&request, &view);
        let mut scan = self.turn(shard, &running, &mut made, begin).await.map_err(failed)?;
        loop {
            let stop = Arc::clone(&stop.0);
            let turn = move || {
                let stopped = || stop.load(Ordering::Relaxed);
                let mut more = true;
                for _ in 0..limits::SCAN_STEPS_PER_TURN {
                    if !more || stopped() {
                        break;
                    }
                    more = scan.step_unless(&stopped)?;
                }
                Ok((scan, more))
            };
            let (scanned, more) = self.turn(shard, &running, &mut made, turn).await.map_err(failed)?;
            scan = scanned;
            if !more {
                let partial = self.turn(shard, &running, &mut made, move || Ok(scan.finish())).await;
                return partial.map(|partial| Partial { made, ..partial }).map_err(failed);
            }
        }
    }

    /// Has a file looked at, and repaired, that was found damaged by reading it here.
    fn suspect(&self, shard: ShardId, error: &QueryError) {
        if let QueryError::Damaged { range: Some(range), .. } = error {
            // A scrubber that does not run now looks at every file soon after it starts.
            let _ = scrubber_seat(&self.site, shard).cast(ScrubberMessage::Look(Suspect::Segment(range.first)));
        }
    }

    /// One turn of work of a scan on a worker thread; its time is added to those of the part. The scan counts as running
    /// until the turn is over, also where nobody waits for it.
    async fn turn<T: Send + 'static>(
        &self,
        shard: ShardId,
        running: &Arc<Running>,
        made: &mut Made,
        work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let asked = Instant::now();
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("it is never closed");
        let (done, outcome) = oneshot();
        let running = Arc::clone(running);
        let work = move || {
            let began = Instant::now();
            let outcome = work();
            // Who does not wait any more needs no outcome.
            let _ = done.send((outcome, began - asked, began.elapsed()));
            drop((turn, running));
        };
        self.site.env.blocking.run(Lane::Work, Box::new(work));
        let panicked = || QueryError::Storage { shard, what: "the scan panicked; the log says where".to_owned() };
        let (outcome, waited, worked) = outcome.await.map_err(|_| panicked())?;
        made.waited += micros(waited);
        made.scanned += micros(worked);
        outcome
    }

    /// Runs work on a worker thread that answers for itself.
    pub(super) fn work(&self, work: impl FnOnce() + Send + 'static) {
        self.site.env.blocking.run(Lane::Work, Box::new(work));
    }

    /// Tries every other replica once, for the leader's copy is damaged.
    async fn read_elsewhere(
        &self,
        shard: ShardId,
        damaged_on: NodeId,
        request: &Arc<ShardRequest>,
        at_least: u64,
        deadline: Instant,
        damage: QueryError,
    ) -> Result<Partial, QueryError> {
        tracing::error!(%shard, node = damaged_on.0, error = %damage, "stored records are damaged, other replicas are asked");
        let cluster = self.site.board.cluster().borrow().clone();
        let nodes = cluster.shards().placement(shard).map(|placement| placement.replicas.keys().copied());
        let mut unreached = None;
        for node in nodes.into_iter().flatten().filter(|node| *node != damaged_on) {
            let outcome = if node == self.site.env.node {
                self.read_applied(shard, request, at_least).await
            } else {
                self.call(shard, node, request, PeerSource::Applied { at_least }, deadline).await
            };
            match outcome {
                Ok(partial) => return Ok(partial),
                Err(Refusal::Failed { error: QueryError::Damaged { .. }, .. }) => {}
                Err(Refusal::Failed { error, .. }) => return Err(error),
                Err(Refusal::NotNow(why)) => unreached = Some(format!("{damage}; node {node} may have a copy: {why}")),
            }
        }
        Err(unreached.map_or(damage, |why| QueryError::Unavailable { shard, why }))
    }

    async fn call(
        &self,
        shard: ShardId,
        node: NodeId,
        request: &ShardRequest,
        source: PeerSource,
        deadline: Instant,
    ) -> Result<Partial, Refusal> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let ticket = Ticket { boot: self.site.env.boot, number: self.calls.fetch_add(1, Ordering::Relaxed) };
        let body = PeerRequest::new(ticket, shard, source, patience, request).encode();
        let leaving = Leaving::new(&self.site.links, node, ticket);
        let answer = self.site.links.call(node, Method::Scan, body, patience).await;
        if !matches!(answer, Err(CallError::Timeout(_))) {
            leaving.ended();
        }
        let failed = |error| Refusal::Failed { error, end: 0 };
        match answer {
            Ok(bytes) => Partial::decode(&bytes).map_err(failed),
            Err(CallError::Fault { fault, .. }) if fault.code == FaultCode::Application => {
                Err(Refusal::decode(&fault.detail))
            }
            Err(error) => Err(Refusal::NotNow(error.to_string())),
        }
    }

    /// Whether the replica of this node follows its group: what it applies is what the group applies.
    pub(super) fn follows(&self, shard: ShardId) -> bool {
        let standing = self.site.board.standing(shard);
        standing.is_some_and(|standing| standing.phase == Phase::Serving && standing.leader.is_some())
    }
}

impl Refusal {
    fn error(self, shard: ShardId) -> QueryError {
        match self {
            Self::Failed { error, .. } => error,
            Self::NotNow(why) => QueryError::Unavailable { shard, why },
        }
    }

    pub(super) fn encode(&self) -> bytes::Bytes {
        rmp_serde::to_vec(self).expect("plain data always encodes").into()
    }

    /// Reads what another node encoded; anything else is one that may be asked again.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        rmp_serde::from_slice(bytes)
            .unwrap_or_else(|_| Self::NotNow("its node answered what this one cannot read".into()))
    }
}
