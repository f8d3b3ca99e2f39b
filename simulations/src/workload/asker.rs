//! Who asks in LogQL: a client while faults run, and whoever looks when all is quiet. What is asked is drawn in `asking`, and
//! judged there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use millpond::id::ShardId;
use tokio::time::{Instant, sleep};

use super::Workload;
use super::book::{Book, Moment};
use crate::asking::{self, Found, Ground, Heard, Judged, Known, Question};
use crate::case::Asking;
use crate::client::{PATIENCE, call};
use crate::draw::Dice;
use crate::ground::EPOCH;
use crate::history::Held;
use crate::naive::Record;
use crate::node::{Fate, Node};

/// Between two attempts at rest, and how many there are for one question.
const AGAIN: Duration = Duration::from_millis(500);
const ATTEMPTS_MAX: usize = 20;

/// Of what is wrong with an answer, so much is told.
const WRONG_CHARS_MAX: usize = 2_000;

/// What became of a question.
enum Outcome {
    Answered(Heard),
    /// It has no answer, for this reason.
    Refused(String),
    /// It may have one another time.
    Failed(&'static str),
}

/// Asks while faults run.
pub(super) struct Asker {
    workload: Arc<Workload>,
    knobs: Asking,
}

impl Asker {
    pub(super) fn new(workload: Arc<Workload>, knobs: Asking) -> Self {
        Self { workload, knobs }
    }

    pub(super) async fn run(self, dice: &mut Dice) {
        while !self.workload.is_ending() {
            self.ask(dice).await;
            sleep(Duration::from_millis(dice.below(2 * self.knobs.pause_ms) + 1)).await;
        }
    }

    async fn ask(&self, dice: &mut Dice) {
        let workload = &self.workload;
        let (now, count) = (workload.now(), workload.book().count());
        let anchor = count.checked_sub(1).map(|last| dice.between(last.saturating_sub(200), last));
        let anchor = anchor.and_then(|id| Some(workload.book().record(id)?.timestamp)).unwrap_or(now);
        let ground = Ground { knobs: &workload.knobs, from: EPOCH, to: now, anchor, placed: false };
        let question = asking::question(dice, ground);
        let node = dice.pick(&workload.nodes_on()).clone();
        workload.observed.trace.line(format_args!("n{} is asked {question}", node.id));
        let (began, asked) = (workload.book().tick(), workload.history().begin_query());
        match ask(&node, &question).await {
            Outcome::Failed(rare) => workload.observed.saw(rare),
            Outcome::Refused(why) => {
                workload.judged(&question, Err(&why), began);
            }
            Outcome::Answered(heard) => {
                let away = |node: &Arc<Node>| node.fate() != Fate::Off && node.up().is_none();
                let rare = if heard.partial { "answer partial" } else { "answer whole with a node away" };
                if heard.partial || workload.nodes.iter().any(away) {
                    workload.observed.saw(rare);
                }
                let judged = workload.judged(&question, Ok(&heard), began);
                if let (Found::Rows(_), false, Some(Judged { found, missed, .. })) =
                    (&heard.found, heard.partial, judged)
                {
                    workload.history().end_query(asked, found, missed);
                }
            }
        }
    }
}

async fn ask(node: &Node, question: &Question) -> Outcome {
    let asked = Instant::now();
    let answer = call(node, Method::GET, &question.uri(EPOCH), question.headers(), Bytes::new()).await;
    match answer {
        None if asked.elapsed() >= PATIENCE => Outcome::Failed("query out of time"),
        None => Outcome::Failed("query unanswered"),
        Some(answer) if answer.status.is_success() => match asking::heard(question, &answer.body) {
            Some(heard) => Outcome::Answered(heard),
            None => Outcome::Refused(format!("no answer can be read: {}", String::from_utf8_lossy(&answer.body))),
        },
        Some(answer) if answer.status == StatusCode::GATEWAY_TIMEOUT => Outcome::Failed("query out of time"),
        Some(answer) if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Failed("query refused")
        }
        Some(answer) => Outcome::Refused(String::from_utf8_lossy(&answer.body).trim_end().to_owned()),
    }
}

/// The records that a question looks at, and which of them were stored before it was asked.
fn known<'a>(book: &'a Book, question: &Question, began: Moment) -> Known<'a> {
    let (from, to) = asking::looks_at(question, EPOCH);
    let records = if from < to { book.between(from, to, began).collect() } else { Vec::new() };
    Known { records, placed: false }
}

impl Workload {
    /// Judges an answer while records are still sent.
    fn judged(&self, question: &Question, heard: Result<&Heard, &str>, began: Moment) -> Option<Judged> {
        let judged = {
            let book = self.book();
            asking::judge(question, heard, &known(&book, question, began))
        };
        self.told(question, judged, "answer compared under faults")
    }

    fn told(&self, question: &Question, judged: Result<Judged, String>, compared: &'static str) -> Option<Judged> {
        match judged {
            Ok(judged) => {
                if judged.whole {
                    self.observed.saw(compared);
                }
                if judged.cut {
                    self.observed.saw("answer cut at its limit");
                }
                Some(judged)
            }
            Err(wrong) => {
                let wrong: String = wrong.chars().take(WRONG_CHARS_MAX).collect();
                self.observed.violation(format_args!("answer: to {question}: {wrong}"));
                None
            }
        }
    }

    /// Asks when all is quiet and every shard was read. Answers must be those of the naive evaluator over what was read.
    pub(crate) async fn ask_at_rest(
        &self,
        nodes: &[Arc<Node>],
        content: &BTreeMap<ShardId, Vec<Held>>,
        dice: &mut Dice,
    ) {
        let Some(asking) = self.knobs.asking.clone() else { return };
        let mut records: Vec<Record> = Vec::new();
        for (shard, held) in content {
            let book = self.book();
            let placed =
                |held: &Held| Some(Record { place: (shard.0, held.offset.0), ..book.record(held.id)?.clone() });
            records.extend(held.iter().filter_map(placed));
        }
        records.sort_by_key(|record| (record.timestamp, record.place));
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        for _ in 0..asking.at_rest {
            let anchor = dice.pick(&records).timestamp;
            let (from, to) = (first.timestamp, last.timestamp);
            let ground = Ground { knobs: &self.knobs, from, to, anchor, placed: true };
            let question = Question { partial: false, ..asking::question(dice, ground) };
            self.ask_one_at_rest(nodes, &records, &question, dice).await;
        }
    }

    async fn ask_one_at_rest(&self, nodes: &[Arc<Node>], records: &[Record], question: &Question, dice: &mut Dice) {
        let (from, to) = asking::looks_at(question, EPOCH);
        let start = records.partition_point(|record| record.timestamp < from);
        let end = records.partition_point(|record| record.timestamp < to).max(start);
        let looked_at = records[start..end].iter().map(|record| (record, true)).collect();
        let known = Known { records: looked_at, placed: true };
        let mut why = "";
        for _ in 0..ATTEMPTS_MAX {
            let node = dice.pick(nodes);
            self.observed.trace.line(format_args!("n{} is asked at rest {question}", node.id));
            let judged = match ask(node, question).await {
                Outcome::Failed(rare) => {
                    why = rare;
                    sleep(AGAIN).await;
                    continue;
                }
                Outcome::Refused(why) => asking::judge(question, Err(&why), &known),
                Outcome::Answered(heard) => asking::judge(question, Ok(&heard), &known),
            };
            self.told(question, judged, "answer compared at rest");
            return;
        }
        self.observed.violation(format_args!("answer: there is none to {question} when all is quiet: {why}"));
    }
}
