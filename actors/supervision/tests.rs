use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond::id::{Boot, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::*;
use crate::env::Clock;
use crate::tree::{ActorState, Identity, TreeHandle};

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> i64 {
        0
    }
}

fn tree() -> TreeHandle {
    let identity = Identity { node: NodeId(1), name: "node-1".to_owned(), boot: Boot(1) };
    TreeHandle::new(identity, Arc::new(Still), true)
}

enum WorkerMessage {
    Panic,
    Fail,
    Tick,
    Ask(oneshot::Sender<u64>),
}

/// Tells each life's number, and panics or fails when told to.
struct Worker {
    lives: mpsc::UnboundedSender<(u64, Instant)>,
    /// Starts that are refused, counted down.
    refused: Arc<AtomicU64>,
    tick: Option<Duration>,
}

impl Actor for Worker {
    type Message = WorkerMessage;
    type Arguments = ();
    type State = u64;

    async fn pre_start(&self, myself: &Own<WorkerMessage>, (): ()) -> Result<u64, ActorError> {
        if self.refused.load(Ordering::Relaxed) > 0 {
            self.refused.fetch_sub(1, Ordering::Relaxed);
            return Err("not yet".into());
        }
        if let Some(period) = self.tick {
            myself.cast_every(period, || WorkerMessage::Tick);
        }
        self.lives.send((myself.incarnation().0, Instant::now())).unwrap();
        Ok(0)
    }

    async fn handle(&self, _: &Own<WorkerMessage>, message: WorkerMessage, ticks: &mut u64) -> Result<(), ActorError> {
        match message {
            WorkerMessage::Panic => panic!("boom"),
            WorkerMessage::Fail => return Err("gave up".into()),
            WorkerMessage::Tick => *ticks += 1,
            WorkerMessage::Ask(reply) => reply.send(*ticks).unwrap(),
        }
        Ok(())
    }
}

struct World {
    tree: TreeHandle,
    first: Address<WorkerMessage>,
    second: Address<WorkerMessage>,
    lives: mpsc::UnboundedReceiver<(u64, Instant)>,
    other_lives: mpsc::UnboundedReceiver<(u64, Instant)>,
    refused: Arc<AtomicU64>,
    node: Address<SupervisorMessage>,
    root: Root,
}

const BUDGET: Restart = Restart {
    intensity: 2,
    period: Duration::from_secs(10),
    backoff: (Duration::from_millis(100), Duration::from_secs(1)),
    after_budget: GiveUp::DownThenRetry(Duration::from_secs(60)),
};

async fn world(restart: Restart, tick: Option<Duration>) -> World {
    let tree = tree();
    let node = tree.seat("node", None);
    let (first, second) = (tree.seat("first", Some("node")), tree.seat("second", Some("node")));
    let refused = Arc::new(AtomicU64::new(0));
    let mut specs = Vec::new();
    let mut watched = Vec::new();
    for address in [&first, &second] {
        let (lives, seen) = mpsc::unbounded_channel();
        let refused = Arc::clone(&refused);
        specs.push(ChildSpec::new(address, restart, move || {
            (Worker { lives: lives.clone(), refused: Arc::clone(&refused), tick }, ())
        }));
        watched.push(seen);
    }
    let root = spawn_root(&node, SupervisorActor, specs).await.unwrap();
    let (other_lives, lives) = (watched.pop().unwrap(), watched.pop().unwrap());
    let mut world = World { tree, first, second, lives, other_lives, refused, node, root };
    assert_eq!(world.lives.recv().await.unwrap().0, 1);
    assert_eq!(world.other_lives.recv().await.unwrap().0, 1);
    world
}

async fn ask(address: &Address<WorkerMessage>) -> u64 {
    let (reply, answer) = oneshot::channel();
    address.cast(WorkerMessage::Ask(reply)).unwrap();
    answer.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_child_that_panics_twice_is_started_again_with_backoff_and_its_sibling_never_notices() {
    let mut world = world(BUDGET, None).await;
    let mut before = Instant::now();
    for (life, wait) in [(2, 100), (3, 200)] {
        world.first.cast(WorkerMessage::Panic).unwrap();
        let (began, at) = world.lives.recv().await.unwrap();
        assert_eq!(began, life);
        assert_eq!((at - before).as_millis(), wait);
        ask(&world.first).await;
        before = Instant::now();
    }
    assert_eq!(world.first.record().restarts(), 2);
    assert_eq!(world.first.record().state(), ActorState::Running);
    let report = world.tree.report();
    let first = &report.actors[0].children[0];
    assert_eq!(first.last_reason.as_deref(), Some("boom"));
    assert_eq!(first.handled, 4, "over all lives");
    assert_eq!(world.second.record().restarts(), 0);
    ask(&world.second).await;
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_shows_the_child_down_and_it_is_tried_again() {
    let mut world = world(BUDGET, None).await;
    for _ in 0..2 {
        world.first.cast(WorkerMessage::Fail).unwrap();
        world.lives.recv().await.unwrap();
        ask(&world.first).await;
    }
    let spent = Instant::now();
    world.first.cast(WorkerMessage::Fail).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.first.record().state(), ActorState::Down);
    let refused = world.first.cast(WorkerMessage::Fail).unwrap_err();
    assert_eq!(refused.to_string(), "first is not running");
    ask(&world.second).await;

    world.refused.store(1, Ordering::Relaxed);
    let (life, at) = world.lives.recv().await.unwrap();
    assert_eq!(life, 5, "the fourth was refused at its start");
    assert_eq!((at - spent).as_millis(), 60_100, "a fresh budget, since the period is over");
    ask(&world.first).await;
    assert_eq!(world.first.record().state(), ActorState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_of_a_vital_child_ends_its_supervisor_with_the_reason() {
    let mut world = world(Restart { intensity: 1, ..Restart::VITAL }, None).await;
    world.first.cast(WorkerMessage::Panic).unwrap();
    world.lives.recv().await.unwrap();
    ask(&world.first).await;
    world.first.cast(WorkerMessage::Panic).unwrap();
    assert_eq!(world.root.outcome().await, Outcome::Failed("first failed for good: boom".to_owned()));
    while world.second.record().state() != ActorState::Stopped {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.first.record().state(), ActorState::Down);
    assert_eq!(world.node.record().state(), ActorState::Down);
}

#[tokio::test(start_paused = true)]
async fn an_idle_actor_is_made_to_panic_on_purpose_and_comes_back() {
    let mut world = world(BUDGET, None).await;
    world.tree.crash("first").unwrap();
    assert_eq!(world.lives.recv().await.unwrap().0, 2);
    ask(&world.first).await;
    let report = world.tree.report();
    assert_eq!(report.actors[0].children[0].last_reason.as_deref(), Some("crashed on purpose"));
}

#[tokio::test(start_paused = true)]
async fn a_timer_ends_with_the_life_that_set_it() {
    let mut world = world(BUDGET, Some(Duration::from_secs(1))).await;
    world.first.cast(WorkerMessage::Panic).unwrap();
    world.lives.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(ask(&world.first).await, 5, "the timer of the first life must not tick in the second");
}

#[tokio::test(start_paused = true)]
async fn the_mailbox_is_counted() {
    let world = world(BUDGET, None).await;
    for _ in 0..3 {
        world.second.cast(WorkerMessage::Tick).unwrap();
    }
    assert_eq!(world.second.depth(), 3, "nobody ran in between on this one thread");
    assert_eq!(ask(&world.second).await, 3);
    assert_eq!(world.second.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_is_removed_and_added_again_after_it_has_ended() {
    let mut world = world(BUDGET, None).await;
    let (lives, mut seen) = mpsc::unbounded_channel();
    let refused = Arc::clone(&world.refused);
    let again = ChildSpec::new(&world.first, BUDGET, move || {
        (Worker { lives: lives.clone(), refused: Arc::clone(&refused), tick: None }, ())
    });
    world.node.cast(SupervisorMessage::Remove { name: "first".into(), reason: "moved away".to_owned() }).unwrap();
    world.node.cast(SupervisorMessage::Add(again)).unwrap();
    assert_eq!(seen.recv().await.unwrap().0, 2);
    assert!(world.lives.recv().await.is_none(), "the old way of starting it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_root_stops_its_children_first() {
    let mut world = world(BUDGET, None).await;
    world.root.stop("the test is over");
    assert_eq!(world.root.outcome().await, Outcome::Stopped);
    for address in [&world.first, &world.second] {
        assert_eq!(address.record().state(), ActorState::Stopped);
        assert!(address.cast(WorkerMessage::Tick).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_start_keeps_the_root_from_starting() {
    let tree = tree();
    let node = tree.seat("node", None);
    let child = tree.seat("child", Some("node"));
    let (lives, _seen) = mpsc::unbounded_channel();
    let spec = ChildSpec::new(&child, BUDGET, move || {
        (Worker { lives: lives.clone(), refused: Arc::new(AtomicU64::new(1)), tick: None }, ())
    });
    let refused = spawn_root(&node, SupervisorActor, vec![spec]).await.unwrap_err();
    assert_eq!(refused.to_string(), "child did not start: not yet");
}
