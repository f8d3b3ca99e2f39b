//! Actors made to panic on purpose: the tree shows it, nothing acknowledged is lost, and other shards go on.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::time::Duration;

use millpond_actors::tree::{ActorReport, ActorState};
use tokio::time::Instant;

use harness::{Load, Producers, SOON, World, wait_until};

/// Crashes that spend any restart budget.
const CRASHES_MAX: usize = 100;
/// The longest that shards other than the crashed one may be without an acknowledgement.
const OTHERS_PAUSE_MAX: Duration = Duration::from_secs(2);

async fn crash(world: &World, id: u64, actor: &str) -> bool {
    world.command(&["crash", actor, "--node", &world.url(id)]).await.status.success()
}

async fn actor(world: &World, id: u64, name: &str) -> ActorReport {
    world.actors(id).await.into_iter().find(|actor| actor.name == name).unwrap_or_else(|| panic!("no actor {name}"))
}

/// The first actor of a kind, those of the metadata group left out.
async fn of_kind(world: &World, id: u64, kind: &str) -> String {
    let actors = world.actors(id).await;
    let actors = actors.into_iter().filter(|actor| actor.kind == kind && !actor.name.starts_with("metadata"));
    let mut names: Vec<String> = actors.map(|actor| actor.name).collect();
    names.sort();
    names.into_iter().next().unwrap_or_else(|| panic!("no actor of kind {kind}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_actor_is_restarted_and_loses_nothing() {
    let world = World::start(3, "fault_injection = true\n").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    for kind in ["replica", "sealer", "ingester", "peer-link"] {
        let name = of_kind(&world, 1, kind).await;
        let before = actor(&world, 1, &name).await.restarts;
        let began = Instant::now();
        let acknowledged = producers.acknowledged();
        assert!(crash(&world, 1, &name).await, "crash {name}");
        wait_until("most producers go on", OTHERS_PAUSE_MAX, || async {
            let now = producers.acknowledged();
            let went_on = now.iter().zip(&acknowledged).filter(|(now, before)| now > before).count();
            if went_on * 2 > now.len() { Ok(()) } else { Err(format!("{went_on} after {:?}", began.elapsed())) }
        })
        .await;
        wait_until("the tree shows the restart", SOON, || async {
            let seen = actor(&world, 1, &name).await;
            let restarted = seen.restarts > before && seen.state == ActorState::Running && seen.last_reason.is_some();
            if restarted { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        producers.all_progress(SOON).await;
    }
    let produced = producers.stop().await;
    world.verify(&produced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_spends_its_budget_is_shown_down_and_others_go_on() {
    let world = World::start(3, "fault_injection = true\n").await;
    let producers = Producers::start(&world.cluster, Load::light());
    producers.all_progress(SOON).await;
    let name = of_kind(&world, 1, "replica").await;
    let shard = name.split('/').next().unwrap().to_owned();
    let of_shard = |actor: &ActorReport| actor.name.split('/').next() == Some(shard.as_str());
    let mut down = false;
    for _ in 0..CRASHES_MAX {
        // Between two lives it takes no message; the next turn finds it again.
        crash(&world, 1, &name).await;
        let actors = world.actors(1).await;
        down = actors.iter().any(|actor| of_shard(actor) && actor.state == ActorState::Down);
        if down {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(down, "{shard} is shown down once its budget is spent");
    producers.all_progress(SOON).await;
    let others = world.actors(1).await;
    let others = others.iter().filter(|actor| actor.kind == "replica" && !of_shard(actor));
    assert!(others.clone().count() > 0 && others.clone().all(|actor| actor.state == ActorState::Running));
    wait_until("it is tried again", Duration::from_secs(90), || async {
        let seen = actor(&world, 1, &name).await;
        if seen.state == ActorState::Running { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let produced = producers.stop().await;
    world.verify(&produced).await;
}
