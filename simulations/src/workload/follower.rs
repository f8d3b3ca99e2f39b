//! Clients that follow tails, one after the other: of all records, or of those that a drawn query leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millpond::id::{Offset, ShardId};
use millpond::query::ast::{Expr, LogExpr};
use millpond::query::merge::AnswerRecord;
use millpond::query::parser;
use millpond::storage::lossy::Draws;
use millpond_actors::query::TailQuestion;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Workload, line};
use crate::asking::{self, Ground, RANGE};
use crate::draw::Dice;
use crate::ground::EPOCH;
use crate::history::Event;
use crate::naive::{Row, passed, row};
use crate::node::Node;

/// Records of the history that a tail may open with.
const TAIL_LIMIT: u32 = 5_000;

/// A tail of some records only.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    call: Event,
    logs: LogExpr,
}

/// Follows tails.
pub(super) struct Follower {
    workload: Arc<Workload>,
    draws: Draws,
    /// What queries are drawn from; all records are followed where there is nothing.
    sifting: Option<Dice>,
    /// Whether the last tail ended before its client was done with it.
    was_cut: bool,
}

impl Follower {
    pub(super) fn new(workload: Arc<Workload>, draws: Draws, sifting: Option<Dice>) -> Self {
        Self { workload, draws, sifting, was_cut: false }
    }

    pub(super) async fn run(mut self) {
        while !self.workload.is_ending() {
            self.follow().await;
            sleep(self.workload.pause(&mut self.draws)).await;
        }
    }

    fn logs(&mut self) -> LogExpr {
        let text = match &mut self.sifting {
            Some(dice) => {
                let now = self.workload.now();
                let ground = Ground { knobs: &self.workload.knobs, from: EPOCH, to: now, anchor: now, placed: false };
                asking::tail(dice, ground)
            }
            None => "{app=\"sim\"}".to_owned(),
        };
        match parser::parse(&text) {
            Ok(Expr::Logs(logs)) => logs,
            Ok(Expr::Metric(_)) | Err(_) => panic!("{text} is a log query"),
        }
    }

    async fn follow(&mut self) {
        let node = self.workload.any_node(&mut self.draws);
        let Some(up) = node.up() else { return };
        let logs = self.logs();
        let question =
            TailQuestion { tenant: "fake".into(), logs: logs.clone(), start: EPOCH - RANGE, limit: TAIL_LIMIT };
        let open_for = Duration::from_millis(500 + self.draws.below(15_000));
        let deadline = Instant::now() + open_for;
        let was_cut = std::mem::replace(&mut self.was_cut, false);
        let following = async {
            self.say(&node, "opens a tail");
            let Ok(mut tail) = up.queries.tail(question).await else { return };
            self.say(&node, "follows a tail");
            let Ok(Ok(first)) = timeout_at(deadline, tail.next()).await else { return };
            if first.len() >= TAIL_LIMIT as usize {
                return;
            }
            if was_cut {
                self.workload.observed.saw("tail opened again");
            }
            let call = self.workload.history().open_tail(BTreeMap::new());
            let followed = Followed { call, logs };
            if self.sifting.is_some() {
                self.workload.followed().push(followed.clone());
            }
            let mut cursors = BTreeMap::new();
            self.show(&followed, first, &mut cursors, true);
            let whole = loop {
                match timeout_at(deadline, tail.next()).await {
                    Ok(Ok(frame)) => self.show(&followed, frame, &mut cursors, false),
                    Ok(Err(_)) => break false,
                    Err(_) => break true,
                }
                if self.workload.is_ending() {
                    break true;
                }
            };
            self.workload.history().close_tail(call, cursors);
            let rare = match (whole, self.sifting.is_some()) {
                (false, _) => "tail cut off",
                (true, true) => "tail with stages closed",
                (true, false) => "tail closed",
            };
            self.workload.observed.saw(rare);
        };
        self.was_cut = tokio::select! {
            biased;
            () = up.life.ended() => {
                self.workload.observed.saw("tail cut off");
                true
            }
            () = following => false,
        };
        self.say(&node, "leaves the tail");
    }

    fn say(&self, node: &Node, what: &str) {
        self.workload.observed.trace.line(format_args!("n{} a client {what}", node.id));
    }

    fn show(
        &self,
        followed: &Followed,
        mut frame: Vec<AnswerRecord>,
        cursors: &mut BTreeMap<ShardId, Offset>,
        history: bool,
    ) {
        if history {
            frame.sort_by_key(|record| (record.shard, record.offset));
        }
        for record in frame {
            let (shard, offset) = (record.shard, record.offset);
            let id = match &self.sifting {
                Some(_) => self.workload.judge_shown(&followed.logs, record),
                None => self.workload.judge_line(&record.line).map(|(id, _)| id),
            };
            if let Some(id) = id {
                self.workload.history().tail_showed(followed.call, shard, Offset(offset), id);
                cursors.insert(shard, Offset(offset + 1));
            }
        }
    }
}

impl Workload {
    /// The id of a record that a tail with stages shows, where it is as they leave it.
    fn judge_shown(&self, logs: &LogExpr, shown: AnswerRecord) -> Option<u64> {
        let (time, _, labels, line): Row = row(shown);
        let id = line::named(&line);
        let sent = id.and_then(|id| {
            let book = self.book();
            let record = book.record(id)?;
            Some((record.timestamp, passed(record, logs)))
        });
        if sent == Some((time, Some((labels.clone(), line.clone())))) {
            return id;
        }
        self.observed.violation(format_args!(
            "tail: a tail of {} showed {labels:?} {line:?} at {time}, of which the record sent says {sent:?}",
            Expr::Logs(logs.clone())
        ));
        None
    }

    /// Tells the history which records each tail with stages had to show.
    pub fn settle_tails(&self) {
        let (book, followed) = (self.book(), self.followed());
        for Followed { call, logs } in followed.iter() {
            let wanted = book.records().filter(|record| passed(record, logs).is_some());
            self.history().tail_wants(*call, wanted.map(|record| record.place.1).collect());
        }
    }
}
