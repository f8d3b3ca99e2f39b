//! Queries and tails of one node over replicas that hold what a test puts into them, in paused time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use millpond::config::Config;
use millpond::consensus::Role;
use millpond::id::{Boot, Index, Key, NodeId, StoreId, Term};
use millpond::label::Labels;
use millpond::query::View;
use millpond::query::answer::{Encoding, offsets_ndjson};
use millpond::query::ast::Expr;
use millpond::query::merge::{AnswerRecord, records};
use millpond::query::parser;
use millpond::query::partial::Found;
use millpond::query::plan::RangeParameters;
use millpond::record::{Record, StreamRecords};
use millpond::shard::{Command, Shard, ShardOptions, SubBatch};
use millpond::storage::lossy::LossyDisk;

use super::*;
use crate::board::{Board, Phase};
use crate::env::{Env, Inline};
use crate::folder::Folders;
use crate::knobs::Knobs;
use crate::links::Links;
use crate::metrics::{Metrics, Standing as Gauges};
use crate::production::{MachineClock, MachineEnd, MachineRandom, NoPeers};
use crate::replica::{ReadRefusal, ReplicaMessage};
use crate::supervision::{Actor, ActorError, Own, Root, spawn_root};
use crate::transfer::Transfers;
use crate::tree::{Identity, TreeHandle};

const NODE: NodeId = NodeId(1);

type Held = Arc<Mutex<Shard>>;

/// Answers reads from a shard that the test writes to.
struct Stand;

impl Actor for Stand {
    type Message = ReplicaMessage;
    type Arguments = (ShardId, Site, Held);
    type State = (ShardId, Site, Held);

    async fn pre_start(&self, _: &Own<ReplicaMessage>, held: Self::Arguments) -> Result<Self::State, ActorError> {
        Ok(held)
    }

    async fn handle(
        &self,
        _: &Own<ReplicaMessage>,
        message: ReplicaMessage,
        (id, site, held): &mut Self::State,
    ) -> Result<(), ActorError> {
        let ReplicaMessage::Read { linearizable, reply } = message else { return Ok(()) };
        let shard = held.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, end) = (shard.first_offset(), shard.next_offset());
        let view = View { shard: *id, first, end, head: shard.view(), segments: Vec::new() };
        let leads = site.board.leader(*id) == Some(NODE);
        let _ = reply.send(if leads || !linearizable { Ok(view) } else { Err(ReadRefusal::NotLeader(None)) });
        Ok(())
    }
}

struct World {
    gate: QueryGate,
    site: Site,
    shards: Vec<Held>,
    entries: u64,
    _root: Root,
}

impl World {
    async fn start(shards: u32) -> Self {
        let identity = Identity { node: NODE, name: "node-1".to_owned(), boot: Boot(1) };
        let tree = TreeHandle::new(identity, Arc::new(MachineClock), true);
        let env = Env {
            node: NODE,
            boot: Boot(1),
            clock: Arc::new(MachineClock),
            random: Arc::new(MachineRandom),
            disk: Arc::new(LossyDisk::new(1)),
            peers: Arc::new(NoPeers),
            blocking: Arc::new(Inline),
            halt: Arc::new(MachineEnd),
            knobs: Knobs::default(),
        };
        let site = Site {
            build: Arc::default(),
            config: Arc::new(Config::single()),
            store: StoreId(1),
            folders: Folders::default(),
            env,
            board: Board::new(NODE, shards, &tree),
            log: tree.seat("log-writer", Some(crate::node::ROOT)),
            links: Links::new(NODE, &tree, &[], 0),
            metrics: Arc::new(Metrics::new(tree.clone(), Gauges::default)),
            transfers: Transfers::new(Boot(1)),
            tree,
        };
        let gate = QueryGate::new(&site, 2);
        let held: Vec<Held> =
            (0..shards).map(|id| Arc::new(Mutex::new(Shard::new(ShardId(id), ShardOptions::default())))).collect();
        let mut specs = vec![gate.supervisor(&site)];
        for (id, shard) in (0..).map(ShardId).zip(&held) {
            let (address, site, shard) = (site.board.replica(id).unwrap(), site.clone(), shard.clone());
            specs.push(ChildSpec::new(&address, Restart::ISOLATED, move || (Stand, (id, site.clone(), shard.clone()))));
        }
        let root = spawn_root(&site.tree.seat(crate::node::ROOT, None), SupervisorActor, specs).await.unwrap();
        let world = Self { gate, site, shards: held, entries: 0, _root: root };
        (0..shards).for_each(|id| world.lead(id, Some(NODE)));
        world
    }

    fn lead(&self, shard: u32, leader: Option<NodeId>) {
        self.site.board.seat(ShardId(shard)).unwrap().send_modify(|seat| {
            (seat.standing.leader, seat.standing.phase) = (leader, Phase::Serving);
            seat.standing.role = if leader == Some(NODE) { Role::Leader } else { Role::Follower };
        });
    }

    /// Stores lines in a shard, a nanosecond apart from `time` on, and publishes that they are there.
    fn store(&mut self, shard: u32, time: i64, lines: &[&str]) {
        self.entries += 1;
        let record = |(at, line): (i64, &&str)| Record { timestamp: time + at, line: (*line).into(), metadata: vec![] };
        let records = (0..).zip(lines).map(record).collect();
        let stream = StreamRecords { labels: Labels::new([("app", "x")]), records };
        let batch = millpond::block::l0::Encoder::new().encode("fake", &[stream]);
        let sub = SubBatch { key: Key(u128::from(self.entries)), body: 1, part: 0, restored: false, batch };
        let mut held = self.shards[shard as usize].lock().unwrap();
        held.apply(Index(self.entries), Term(1), &Command::encode_batch(&[sub])).unwrap();
        let end = held.next_offset();
        drop(held);
        let seat = self.site.board.seat(ShardId(shard)).unwrap();
        seat.send_modify(|seat| seat.standing.next_offset = end);
    }

    async fn ask(&self, text: &str, partial: bool) -> Result<serde_json::Value, QueryError> {
        let parameters = RangeParameters { start: 0, end: 1_000, limit: Some(5_000), ..RangeParameters::default() };
        let query = Query::range(text, parameters)?;
        let question = Question { query, tenant: "fake".into(), partial, encoding: Encoding::Folded, explain: false };
        Ok(serde_json::from_slice(&self.gate.ask(question).await?).unwrap())
    }

    async fn tail(&self, text: &str) -> Result<Tail, QueryError> {
        let Expr::Logs(logs) = parser::parse(text)? else { panic!("a log query") };
        self.gate.tail(TailQuestion { tenant: "fake".into(), logs, start: 0, limit: 3 }).await
    }
}

/// What a client of the query routes hears: status and body.
async fn heard(gate: &QueryGate, address: &str) -> (u16, String) {
    let routes = TowerToHyperService::new(crate::listeners::http::query::router(gate.clone()));
    let answer = routes.call(hyper::Request::get(address).body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn lines(found: &[AnswerRecord]) -> Vec<&str> {
    found.iter().map(|record| record.line.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_query_merges_what_every_shard_holds() {
    let mut world = World::start(3).await;
    world.store(0, 10, &["a1", "b1"]);
    world.store(2, 5, &["a2"]);
    let answer = world.ask("{app=\"x\"} |= \"a\"", false).await.unwrap();
    let values = &answer["data"]["result"][0]["values"];
    assert_eq!(*values, serde_json::json!([["10", "a1"], ["5", "a2"]]));
    let sum = world.ask("sum(count_over_time({app=\"x\"}[1s]))", false).await.unwrap();
    assert_eq!(sum["data"]["resultType"], "matrix");
    assert_eq!(world.gate.running.available_permits(), limits::QUERIES_RUNNING_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_shard_nobody_leads_fails_the_query_with_its_name_or_is_named_missing() {
    let mut world = World::start(2).await;
    world.store(0, 10, &["here"]);
    world.lead(1, None);
    let began = Instant::now();
    let error = world.ask("{app=\"x\"}", false).await.unwrap_err();
    assert!(matches!(&error, QueryError::Unavailable { shard: ShardId(1), .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2), "a client is told within two seconds");
    let answer = world.ask("{app=\"x\"}", true).await.unwrap();
    assert_eq!(answer["partial"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("shard-1"));
    assert_eq!(answer["data"]["result"][0]["values"][0][1], "here");
}

#[tokio::test(start_paused = true)]
async fn a_query_waits_for_a_new_leader_a_while() {
    let mut world = World::start(1).await;
    world.store(0, 10, &["late"]);
    world.lead(0, None);
    let board = world.site.board.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(900)).await;
        board.seat(ShardId(0)).unwrap().send_modify(|seat| seat.standing.leader = Some(NODE));
    });
    let answer = world.ask("{app=\"x\"}", false).await.unwrap();
    assert_eq!(answer["data"]["result"][0]["values"][0][1], "late");
}

#[tokio::test(start_paused = true)]
async fn queries_past_the_bound_wait_and_past_that_are_refused() {
    let world = World::start(1).await;
    world.lead(0, None);
    let most = limits::QUERIES_RUNNING_MAX + limits::QUERIES_QUEUED_MAX;
    let asked = futures_util::future::join_all((0..=most).map(|_| world.ask("{app=\"x\"}", false))).await;
    let busy = asked.iter().filter(|answer| matches!(answer, Err(QueryError::Busy { .. }))).count();
    assert_eq!(busy, 1);
    assert_eq!(world.gate.running.available_permits(), limits::QUERIES_RUNNING_MAX);
    assert_eq!(world.gate.queued.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_nobody_waits_for_is_forgotten() {
    let world = World::start(1).await;
    world.lead(0, None);
    let left = tokio::time::timeout(Duration::from_millis(100), world.ask("{app=\"x\"}", false)).await;
    assert!(left.is_err());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.gate.running.available_permits(), limits::QUERIES_RUNNING_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_what_is_wrong_as_text_and_one_that_left_is_counted() {
    let world = World::start(1).await;
    let labels = "/loki/api/v1/labels";
    assert_eq!(heard(&world.gate, labels).await, (200, r#"{"data":[],"status":"success"}"#.to_owned()));
    let (status, text) = heard(&world.gate, "/loki/api/v1/query?query=%7B").await;
    assert_eq!(status, 400);
    assert!(text.starts_with("parse error at line 1, col 2: syntax error: expected "), "{text}");
    world.lead(0, None);
    let (status, text) = heard(&world.gate, labels).await;
    assert_eq!((status, text.as_str()), (503, "shard-0 is unavailable: no leader is known\n"));
    assert!(tokio::time::timeout(Duration::from_millis(100), heard(&world.gate, labels)).await.is_err());
    let all = world.gate.running.clone().acquire_many_owned(limits::QUERIES_RUNNING_MAX as u32).await.unwrap();
    assert_eq!(heard(&world.gate, labels).await.0, 504, "no room came free before the deadline");
    let waiting: Vec<_> = (0..limits::QUERIES_QUEUED_MAX).map(|_| Queued::take(&world.gate.queued).unwrap()).collect();
    let (status, text) = heard(&world.gate, labels).await;
    assert_eq!(status, 429);
    assert!(text.starts_with("too many queries: 16 run and 64 wait on this node"), "{text}");
    drop((all, waiting));
    let metrics = world.site.metrics.encode().unwrap();
    for status in ["200", "429", "499", "503", "504"] {
        let counted = |line: &&str| line.contains("kind=\"labels\"") && line.contains(&format!("status=\"{status}\""));
        assert!(metrics.lines().any(|line| counted(&line)), "{status}: {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_querier_answers_503_and_the_next_query_runs() {
    let mut world = World::start(1).await;
    world.store(0, 1, &["x"]);
    world.lead(0, None);
    let crash = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.site.tree.crash("querier-0").unwrap();
    };
    let (asked, ()) = tokio::join!(world.ask("{app=\"x\"}", false), crash);
    assert_eq!(asked.unwrap_err(), QueryError::Cancelled);
    world.lead(0, Some(NODE));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        assert_eq!(world.ask("{app=\"x\"}", false).await.unwrap()["status"], "success");
    }
}

#[tokio::test(start_paused = true)]
async fn records_by_offset_come_from_the_leader_or_from_here() {
    let mut world = World::start(1).await;
    world.store(0, 1, &["a", "b", "c"]);
    let read = |source| world.gate.records(ShardId(0), OffsetQuery { logs: None, from: Some(1), limit: 9 }, source);
    for source in [Source::Leader, Source::Local] {
        let Found::Records(found) = read(source).await.unwrap().found else { panic!("records") };
        assert_eq!((found.next, found.complete), (3, true));
        let found = records(ShardId(0), found);
        assert_eq!(lines(&found), ["b", "c"]);
        assert_eq!(offsets_ndjson(&found).iter().filter(|byte| **byte == b'\n').count(), 2);
    }
    world.lead(0, None);
    assert!(matches!(read(Source::Leader).await, Err(QueryError::Unavailable { .. })));
    assert!(read(Source::Local).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tail_and_a_query_show_what_stages_make_of_each_record() {
    let mut world = World::start(2).await;
    let text = "{app=\"x\"} | json | n > 1 | drop n | label_format name=app";
    world.store(0, 1, &["{\"n\":1}", "{\"n\":2,\"a\":\"first\"}"]);
    let mut tail = world.tail(text).await.unwrap();
    let mut seen = tail.next().await.unwrap();
    world.store(1, 5, &["{\"n\":0}", "{\"n\":3,\"a\":\"second\"}", "no json", "{\"n\":\"x\",\"a\":\"third\"}"]);
    seen.extend(tail.next().await.unwrap());
    let parsed: Vec<&str> = seen.iter().map(|record| record.parsed.last().unwrap().1.as_str()).collect();
    assert_eq!(parsed, ["first", "second", "third"]);
    assert_eq!(seen[2].parsed[0], ("__error__".to_owned(), "LabelFilterErr".to_owned()));
    assert!(seen.iter().all(|record| record.labels == Labels::new([("name", "x")])));
    let answer = world.ask(text, false).await.unwrap();
    let streams = answer["data"]["result"].as_array().unwrap();
    assert_eq!(streams.len(), 3);
    assert_eq!(streams[1]["stream"], serde_json::json!({ "a": "first", "name": "x" }), "{streams:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tail_goes_on_after_what_was_there_and_across_leaders() {
    let mut world = World::start(2).await;
    world.store(0, 10, &["old", "1", "2"]);
    world.store(1, 5, &["skipped"]);
    world.store(1, 20, &["3"]);
    let mut tail = world.tail("{app=\"x\"} != \"skipped\"").await.unwrap();
    let first = tail.next().await.unwrap();
    assert_eq!(lines(&first), ["1", "2", "3"], "the newest three, in order of time");
    world.store(1, 1, &["4", "skipped", "5"]);
    assert_eq!(lines(&tail.next().await.unwrap()), ["4", "5"]);
    world.lead(1, Some(NodeId(2)));
    world.store(1, 1, &["6"]);
    assert_eq!(lines(&tail.next().await.unwrap()), ["6"]);
    world.lead(1, None);
    world.store(1, 1, &["7"]);
    assert_eq!(lines(&tail.next().await.unwrap()), ["7"], "what is applied is committed");
    world.lead(1, Some(NODE));
    world.store(0, 1, &["8"]);
    assert_eq!(lines(&tail.next().await.unwrap()), ["8"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_keep_up_misses_nothing() {
    let mut world = World::start(1).await;
    let mut tail = world.tail("{app=\"x\"}").await.unwrap();
    let sent: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    for line in &sent {
        world.store(0, 1, &[line]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut seen = Vec::new();
    while seen.len() < sent.len() {
        seen.extend(tail.next().await.unwrap().into_iter().map(|record| record.line));
    }
    assert_eq!(seen, sent);
}
