//! Tails: a log query that goes on. First what there is since its start, then every record that passes, as it is applied.
//!
//! A tail is a cursor for each shard: the next offset to look at. Offsets are given once, and what one replica has
//! applied every other applies as well, so nothing is left out or comes twice, whoever leads. A shard with a replica on
//! this node is followed there; another one on its leader, which answers when it has something new. A reader that
//! does not keep up holds the cursors where they are: what waits for it waits on the disks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use millpond::id::ShardId;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::ast::LogExpr;
use millpond::query::merge::{AnswerRecord, Gather, Outcome, records};
use millpond::query::partial::{Found, FoundRecords, Partial};
use millpond::query::plan::{Direction, LogQuery, OffsetQuery, Query, ShardRequest, Want};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::reader::Reader;

/// A tail to be opened.
#[derive(Clone, Debug)]
pub struct TailQuestion {
    /// Whose records.
    pub tenant: Arc<str>,
    /// Which records.
    pub logs: LogExpr,
    /// From when on, in nanoseconds since the Unix epoch.
    pub start: i64,
    /// Most records of what was there before; the newest.
    pub limit: u32,
}

/// The open tails of each tenant. The lock is held for counting only.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<Arc<str>, usize>>>);

/// One open tail.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    tenant: Arc<str>,
}

impl Places {
    /// A place for one more tail of a tenant.
    pub(super) fn take(&self, tenant: &Arc<str>) -> Result<Place, QueryError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let max = limits::TAILS_PER_TENANT_MAX;
        if open.values().sum::<usize>() >= limits::TAILS_MAX || open.get(tenant).is_some_and(|count| *count >= max) {
            return Err(QueryError::TooManyTails { max });
        }
        *open.entry(tenant.clone()).or_default() += 1;
        Ok(Place { places: self.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

/// An open tail. Dropping it ends it.
#[derive(Debug)]
pub struct Tail {
    history: Vec<AnswerRecord>,
    frames: mpsc::Receiver<Result<Vec<AnswerRecord>, QueryError>>,
    _followers: JoinSet<()>,
    _place: Place,
}

impl Tail {
    pub(super) async fn open(
        reader: Reader,
        question: TailQuestion,
        place: Place,
        deadline: Instant,
    ) -> Result<Self, QueryError> {
        let (history, cursors) = history(&reader, &question, deadline).await?;
        let (send, frames) = mpsc::channel(limits::TAIL_FRAMES_WAITING_MAX);
        let mut followers = JoinSet::new();
        for (shard, cursor) in cursors {
            let follower = Follower {
                reader: reader.clone(),
                shard,
                tenant: question.tenant.to_string(),
                logs: question.logs.clone(),
                cursor,
            };
            followers.spawn(follower.run(send.clone()));
        }
        Ok(Self { history, frames, _followers: followers, _place: place })
    }

    /// The next records, at least one, in the order of each shard's offsets; what was there before comes first, in the
    /// order of time.
    ///
    /// # Errors
    /// Why the tail cannot go on.
    pub async fn next(&mut self) -> Result<Vec<AnswerRecord>, QueryError> {
        if !self.history.is_empty() {
            return Ok(std::mem::take(&mut self.history));
        }
        // Followers end only with an error, or with the node.
        self.frames.recv().await.unwrap_or(Err(QueryError::Cancelled))
    }
}

/// What there is since the start, and where each shard ended when it was read.
async fn history(
    reader: &Reader,
    question: &TailQuestion,
    deadline: Instant,
) -> Result<(Vec<AnswerRecord>, BTreeMap<ShardId, u64>), QueryError> {
    let TailQuestion { tenant, logs, start, limit } = question;
    let query = LogQuery {
        logs: logs.clone(),
        start: *start,
        end: i64::MAX,
        limit: *limit,
        direction: Direction::Backward,
        after: None,
    };
    let mut gather = Gather::new(Query::Logs(query), tenant).hiding(reader.hidden());
    let request = Arc::new(gather.requests().remove(0));
    let mut cursors = BTreeMap::new();
    let mut shards = (0..reader.site().board.shards()).map(ShardId);
    let mut parts = JoinSet::new();
    // Each shard is read by a task of its own: a reading that nobody polls, while a part is continued below, could have
    // been given the turn that the others wait for.
    let read_next = |parts: &mut JoinSet<_>, shard: Option<ShardId>| {
        let Some(shard) = shard else { return };
        let (reader, request) = (reader.clone(), Arc::clone(&request));
        parts.spawn(async move { (shard, reader.read(shard, &request, deadline).await) });
    };
    for _ in 0..limits::QUERY_FANOUT_MAX {
        read_next(&mut parts, shards.next());
    }
    while let Some(part) = parts.join_next().await {
        let (shard, part) = part.map_err(|_| QueryError::Cancelled)?;
        let part = part?;
        read_next(&mut parts, shards.next());
        cursors.insert(shard, part.end);
        let mut next = gather.add(0, part)?;
        while let Some(request) = next {
            next = gather.add(0, reader.read(shard, &Arc::new(request), deadline).await?)?;
        }
    }
    let Outcome::Records(mut records) = gather.finish()?.outcome else { return Err(QueryError::Cancelled) };
    // A part that was continued may have met records past the cursor: they come again, by offset.
    records.retain(|record| record.offset < cursors[&record.shard]);
    records.reverse();
    Ok((records, cursors))
}

/// Follows one shard.
struct Follower {
    reader: Reader,
    shard: ShardId,
    tenant: String,
    logs: LogExpr,
    cursor: u64,
}

impl Follower {
    async fn run(mut self, frames: mpsc::Sender<Result<Vec<AnswerRecord>, QueryError>>) {
        loop {
            let frame = match self.read().await {
                Ok(records) if records.is_empty() => continue,
                Ok(records) => Ok(records),
                // Leadership moves, nodes come back: the cursor stays where it is.
                Err(QueryError::Unavailable { .. } | QueryError::Deadline | QueryError::Storage { .. }) => {
                    sleep(limits::TAIL_RETRY).await;
                    continue;
                }
                Err(error) => Err(error),
            };
            let ends = frame.is_err();
            if frames.send(frame).await.is_err() || ends {
                return;
            }
        }
    }

    /// Waits for something new and reads it; nothing after a while.
    async fn read(&mut self) -> Result<Vec<AnswerRecord>, QueryError> {
        let limit = limits::TAIL_RECORDS_PER_FRAME;
        let want = Want::Offsets(OffsetQuery { logs: Some(self.logs.clone()), from: Some(self.cursor), limit });
        let (tenant, hidden) = (Some(self.tenant.clone()), self.reader.hidden());
        let request = Arc::new(ShardRequest { tenant, want, hidden });
        let deadline = Instant::now() + limits::QUERY_DEADLINE;
        let partial = if self.reader.follows(self.shard) {
            let led_by = self.reader.site().board.leader(self.shard);
            if !self.applied_more().await {
                return Ok(Vec::new());
            }
            let standing = self.reader.site().board.standing(self.shard);
            if let Some(standing) = standing.filter(|now| millpond::mutant!(TailSkips) && now.leader != led_by) {
                self.cursor = standing.next_offset.0;
                return Ok(Vec::new());
            }
            match self.reader.read_here(self.shard, &request).await {
                // A damaged copy here says nothing about the others.
                Err(QueryError::Damaged { .. }) => self.reader.read(self.shard, &request, deadline).await?,
                read => read?,
            }
        } else {
            self.reader.read_past(self.shard, &request, Some(self.cursor), deadline).await?
        };
        let found = found(partial)?;
        self.cursor = self.cursor.max(found.next);
        Ok(records(self.shard, found))
    }

    /// Waits until the replica of this node has applied past the cursor; not longer than a while.
    async fn applied_more(&self) -> bool {
        let Some(seat) = self.reader.site().board.seat(self.shard) else { return false };
        let mut seat = seat.subscribe();
        let more = seat.wait_for(|seat| seat.standing.next_offset.0 > self.cursor);
        timeout(limits::TAIL_WAIT, more).await.is_ok_and(|seen| seen.is_ok())
    }
}

fn found(partial: Partial) -> Result<FoundRecords, QueryError> {
    match partial.found {
        Found::Records(found) => Ok(found),
        Found::Counts(_) | Found::Folds(_) | Found::Texts(_) | Found::Series(_) | Found::Overview(_) => {
            let why = "it answers another kind of request".to_owned();
            Err(QueryError::Codec { what: "partial answer".to_owned(), version: None, why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_so_many_tails_and_a_closed_one_makes_room() {
        let (places, tenant) = (Places::default(), Arc::from("acme"));
        let mut open: Vec<Place> = (0..limits::TAILS_PER_TENANT_MAX).map(|_| places.take(&tenant).unwrap()).collect();
        assert!(matches!(places.take(&tenant), Err(QueryError::TooManyTails { .. })));
        assert!(places.take(&Arc::from("other")).is_ok());
        open.pop();
        assert!(places.take(&tenant).is_ok());
        drop(open);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
