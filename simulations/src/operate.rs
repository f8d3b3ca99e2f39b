//! What operators do: each operation of a plan, asked of one node after the other until it is done, makes no sense, or has
//! taken too long. What the cluster makes of it is judged by what it says of itself in the end, not by the answer: an
//! operator may be refused, and may not hear that he was not.

use std::sync::Arc;
use std::time::Duration;

use millpond::class::Class;
use millpond::cluster::{Cluster, Command};
use millpond::consensus::Role;
use millpond::id::{NodeId, ShardId};
use millpond::placement::{MemberState, MoveReason};
use millpond_actors::govern::{Carried, govern};
use millpond_actors::replica::ReplicaMessage;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::case::{Case, Operation};
use crate::membership::latest;
use crate::node::{Node, Up};
use crate::observe::Observed;

/// For how long an operation is asked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(300);

/// Who operates on what.
pub struct Operators {
    /// The nodes, spare ones last.
    pub nodes: Vec<Arc<Node>>,
    /// Where it is told.
    pub observed: Arc<Observed>,
}

/// What came of one attempt.
enum Attempt {
    Done,
    /// It makes no sense, for this reason.
    Refused(String),
    /// It may be another time.
    Again(String),
}

/// Carries out the operations of a case. Ends with the last of them; whoever drops it leaves them where they are.
pub async fn play(operators: Arc<Operators>, case: &Case) {
    let start = Instant::now();
    let mut under_way = JoinSet::new();
    for planned in case.operations.iter().copied() {
        let operators = Arc::clone(&operators);
        under_way.spawn(async move {
            sleep_until(start + Duration::from_millis(planned.at_ms)).await;
            operators.observed.trace.line(format_args!("operation: {:?}", planned.operation));
            operators.carry_out(planned.operation).await;
        });
    }
    while under_way.join_next().await.is_some() {}
}

impl Operators {
    async fn carry_out(&self, operation: Operation) {
        let deadline = Instant::now() + PATIENCE;
        for turn in 0.. {
            let (rare, told) = match self.attempt(operation, turn).await {
                Attempt::Done => ("operation done", String::new()),
                Attempt::Refused(why) => ("operation refused", why),
                Attempt::Again(_) if Instant::now() < deadline => {
                    sleep(AGAIN).await;
                    continue;
                }
                Attempt::Again(why) => ("operation given up", why),
            };
            self.observed.saw(rare);
            self.observed.trace.line(format_args!("{rare}: {operation:?} {told}"));
            if rare == "operation done" && matches!(operation, Operation::ReplaceStore { .. }) {
                self.observed.saw("store replaced");
            }
            return;
        }
    }

    async fn attempt(&self, operation: Operation, turn: usize) -> Attempt {
        let cluster = latest(&self.nodes);
        let command = match operation {
            Operation::Start { node } => return self.start(node),
            Operation::TransferLeader { shard, pick } => return self.transfer(&cluster, ShardId(shard), pick),
            Operation::Add { node } => self.add(node),
            Operation::ReplaceStore { node } => self.replace(&cluster, node),
            Operation::Remove { node } => self.remove(node),
            Operation::Move { shard, pick } => requested(&cluster, ShardId(shard), pick),
            Operation::Drain { node } => Ok(Command::DrainNode { node: NodeId(node) }),
            Operation::Undrain { node } => Ok(Command::UndrainNode { node: NodeId(node) }),
            Operation::SetReplication { copies } => Ok(Command::SetReplication { copies }),
        };
        match command {
            Ok(command) => self.govern(turn, command).await,
            Err(not) => not,
        }
    }

    fn node(&self, id: u64) -> Result<&Arc<Node>, Attempt> {
        let node = self.nodes.iter().find(|node| node.id == NodeId(id));
        node.ok_or_else(|| Attempt::Refused(format!("there is no node {id}")))
    }

    fn start(&self, node: u64) -> Attempt {
        match self.node(node) {
            Ok(node) if node.switch_on() => Attempt::Done,
            Ok(_) => Attempt::Refused("it is on".to_owned()),
            Err(not) => not,
        }
    }

    fn add(&self, id: u64) -> Result<Command, Attempt> {
        let node = self.node(id)?;
        node.switch_on();
        let store = node.store().ok_or_else(|| Attempt::Again("it has no data folder yet".to_owned()))?;
        let settings = node.config.cluster.node(node.id).expect("a node is in its own cluster file");
        let zone = settings.zone.as_ref().map_or("", |zone| zone.as_str()).to_owned();
        self.observed.taken_in(node.id);
        Ok(Command::AddNode { node: node.id, store, address: settings.peer.as_str().to_owned(), zone })
    }

    /// Only where the data folder is another than the cluster knows: who has not lost anything is not replaced.
    fn replace(&self, cluster: &Cluster, id: u64) -> Result<Command, Attempt> {
        let node = self.node(id)?;
        let store = node.store().ok_or_else(|| Attempt::Again("it has no data folder yet".to_owned()))?;
        let member = cluster.members().get(&node.id);
        if member.is_none_or(|member| member.store == store) {
            return Err(Attempt::Again("its data folder is not another one".to_owned()));
        }
        self.observed.taken_in(node.id);
        Ok(Command::ReplaceStore { node: node.id, store })
    }

    fn remove(&self, id: u64) -> Result<Command, Attempt> {
        let node = self.node(id)?;
        node.expect_removal();
        Ok(Command::RemoveNode { node: node.id })
    }

    /// Asks the node whose turn it is, of those that belong to the cluster.
    async fn govern(&self, turn: usize, command: Command) -> Attempt {
        let ups: Vec<Up> = self.nodes.iter().filter_map(|node| node.up()).filter(belongs).collect();
        if ups.is_empty() {
            return Attempt::Again("no node is up that belongs to the cluster".to_owned());
        }
        let up = &ups[turn % ups.len()];
        let carried = tokio::select! {
            biased;
            () = up.life.ended() => return Attempt::Again("the node died meanwhile".to_owned()),
            carried = govern(&up.site, command) => carried,
        };
        match carried {
            Ok(Carried::Done) => Attempt::Done,
            Ok(Carried::Refused { class: Class::Retry, why }) => Attempt::Again(why),
            Ok(Carried::Refused { why, .. }) => Attempt::Refused(why),
            Err(why) => Attempt::Again(why.to_string()),
        }
    }

    fn transfer(&self, cluster: &Cluster, shard: ShardId, pick: u64) -> Attempt {
        let Some(placement) = cluster.placement(shard) else { return Attempt::Again("it has no place yet".to_owned()) };
        let leads = |up: &Up| up.site.board.standing(shard).is_some_and(|standing| standing.role == Role::Leader);
        let Some(leader) = self.nodes.iter().filter_map(|node| node.up()).find(leads) else {
            return Attempt::Again("nobody leads it".to_owned());
        };
        let others: Vec<NodeId> =
            placement.replicas.keys().copied().filter(|node| *node != leader.site.env.node).collect();
        let Some(to) = counted(&others, pick) else { return Attempt::Refused("it has no other replica".to_owned()) };
        let replica = leader.site.board.replica(shard);
        if replica.is_some_and(|replica| replica.cast(ReplicaMessage::Transfer(to)).is_ok()) {
            Attempt::Done
        } else {
            Attempt::Again("it is not there".to_owned())
        }
    }
}

fn belongs(up: &Up) -> bool {
    up.site.board.cluster().borrow().identity().is_some()
}

/// One of several, counted round.
fn counted(nodes: &[NodeId], pick: u64) -> Option<NodeId> {
    let count = u64::try_from(nodes.len()).expect("a handful");
    let at = usize::try_from(pick.checked_rem(count)?).expect("a handful");
    Some(nodes[at])
}

/// The command that moves one replica of a shard to a node that has none.
fn requested(cluster: &Cluster, shard: ShardId, pick: u64) -> Result<Command, Attempt> {
    let placement = cluster.placement(shard).ok_or_else(|| Attempt::Again("it has no place yet".to_owned()))?;
    let from: Vec<NodeId> = placement.replicas.keys().copied().collect();
    let able = cluster.members().iter().filter(|(_, member)| member.state == MemberState::Active);
    let to: Vec<NodeId> = able.map(|(node, _)| *node).filter(|node| !placement.replicas.contains_key(node)).collect();
    match (counted(&from, pick), counted(&to, pick / 3)) {
        (Some(from), Some(to)) => Ok(Command::BeginMove {
            shard,
            add: Some(to),
            remove: Some(from),
            why: MoveReason::Requested,
            expects: cluster.shards().epoch,
        }),
        (Some(_) | None, Some(_) | None) => Err(Attempt::Again("no node could have it".to_owned())),
    }
}
