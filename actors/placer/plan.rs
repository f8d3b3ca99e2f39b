//! What the node that leads the metadata group makes of the reports of all nodes: which moves go on, which should begin,
//! and how far each is. The decisions are `placement`'s and `cluster`'s; this file brings the facts into their shape.
//!
//! A node counts as gone when it is neither connected nor seen alive by any leader that is: a link that is cut between
//! two nodes alone makes none of them dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond::cluster::{Cluster, Command, Group};
use millpond::id::{Epoch, NodeId, ShardId};
use millpond::placement::{Desired, MemberState, Move, MoveId, NodeView, Observed, Seat, ShardView, Wish, plan_moves};
use serde::{Deserialize, Serialize};

use super::report::{Led, NodeReport};

/// What the planning node has before it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The state of the metadata group.
    pub cluster: &'a Cluster,
    /// What nodes said lately, the planning node among them.
    pub reports: &'a BTreeMap<NodeId, &'a NodeReport>,
    /// For how long nodes have been gone.
    pub gone: &'a BTreeMap<NodeId, Duration>,
    /// After how long what they hold is moved.
    pub grace: Duration,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nobody leads the group, as far as is known.
    WaitsForLeader,
    /// The replica does not follow yet.
    Starting,
    /// It copies a snapshot.
    Copying,
    /// It is sent entries.
    CatchingUp {
        /// What it has.
        matched: u64,
        /// What there is.
        committed: u64,
    },
    /// The members of the group change.
    ChangingMembers,
    /// The cluster is told.
    Ending,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WaitsForLeader => f.write_str("waits for a leader"),
            Self::Starting => f.write_str("starting"),
            Self::Copying => f.write_str("copying a snapshot"),
            Self::CatchingUp { matched, committed } => write!(f, "catching up, entry {matched} of {committed}"),
            Self::ChangingMembers => f.write_str("changing members"),
            Self::Ending => f.write_str("ending"),
        }
    }
}

/// What is under way and what should begin, for whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How far each move is.
    pub stages: BTreeMap<MoveId, Stage>,
    /// The moves that should begin now.
    pub wishes: Vec<Wish>,
    /// The epoch of the shard map that they are planned on.
    pub epoch: Epoch,
}

/// The nodes that somebody hears: those that are connected, and those of replicas that a leader hears.
pub fn alive<'r>(
    connected: impl IntoIterator<Item = NodeId>,
    reports: impl IntoIterator<Item = &'r NodeReport>,
) -> BTreeSet<NodeId> {
    let led = reports.into_iter().flat_map(|report| &report.led);
    let heard = led.flat_map(|led| led.peers.iter().filter(|peer| peer.active).map(|peer| peer.node));
    heard.chain(connected).collect()
}

impl<'a> Facts<'a> {
    /// The commands that carry moves on.
    pub fn tend(&self) -> Vec<Command> {
        let led = self.led();
        let tended = self.cluster.moves().values().filter_map(|under_way| {
            let led = led.get(&under_way.shard)?;
            let (caught_up, shard) = (led.caught_up(), under_way.shard);
            let group = Group { shard, leader: led.leader, members: &led.members, caught_up: &caught_up };
            self.cluster.tend(group, |under_way| self.takes(under_way), |seat| self.is_dead(shard, seat))
        });
        tended.collect()
    }

    /// The commands that begin moves.
    pub fn begin(&self, rebalance: bool) -> Vec<Command> {
        let expects = self.cluster.shards().epoch;
        let begin = |Wish { shard, add, remove, why }| Command::BeginMove { shard, add, remove, why, expects };
        self.wishes(rebalance).into_iter().map(begin).collect()
    }

    /// The moves that should begin now.
    pub fn wishes(&self, rebalance: bool) -> Vec<Wish> {
        let cluster = self.cluster;
        let observed = Observed {
            nodes: self.nodes(),
            map: cluster.shards(),
            metadata: cluster.metadata(),
            lost: cluster.lost(),
            moves: cluster.moves(),
            shards: self.shards(),
        };
        let copies = usize::try_from(cluster.copies()).expect("a handful");
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        plan_moves(&observed, &Desired::new(copies, grace, rebalance))
    }

    /// How far each move is.
    pub fn stages(&self) -> BTreeMap<MoveId, Stage> {
        let led = self.led();
        let moves = self.cluster.moves().values();
        moves.map(|under_way| (under_way.id, stage(under_way, led.get(&under_way.shard).copied()))).collect()
    }

    /// The latest word on each group; of two that say they lead it, the one that is further.
    fn led(&self) -> BTreeMap<ShardId, &'a Led> {
        let mut known: BTreeMap<ShardId, &'a Led> = BTreeMap::new();
        for led in self.reports.values().flat_map(|report| &report.led) {
            let best = known.entry(led.shard).or_insert(led);
            if led.committed > best.committed {
                *best = led;
            }
        }
        known
    }

    fn nodes(&self) -> BTreeMap<NodeId, NodeView> {
        let view = |(node, member): (&NodeId, &millpond::cluster::Member)| {
            let report = self.reports.get(node);
            let view = NodeView {
                state: member.state,
                gone_ms: self.gone.get(node).map(|gone| u64::try_from(gone.as_millis()).unwrap_or(u64::MAX)),
                zone: member.zone.clone(),
                has_room: report.is_some_and(|report| report.has_room),
                bytes: report.map_or(0, |report| report.bytes),
            };
            (*node, view)
        };
        self.cluster.members().iter().map(view).collect()
    }

    fn shards(&self) -> BTreeMap<ShardId, ShardView> {
        let given_up = |shard: ShardId| {
            let spent = self.reports.values().filter_map(move |report| report.given_up.get(&shard).copied());
            spent.collect::<BTreeSet<_>>()
        };
        let view = |(shard, led): (ShardId, &Led)| {
            let leader = self.cluster.homes(shard).get(&led.leader).copied();
            (shard, ShardView { leader, bytes: led.bytes, live: led.live(), given_up: given_up(shard) })
        };
        self.led().into_iter().map(view).collect()
    }

    /// Whether a replica counts as dead: its node is gone for the grace period, or has spent the restarts that it allows it, or
    /// its store is lost.
    fn is_dead(&self, shard: ShardId, Seat { node, replica }: Seat) -> bool {
        let report = self.reports.get(&node);
        self.gone.get(&node).is_some_and(|gone| *gone >= self.grace)
            || report.is_some_and(|report| report.given_up.get(&shard) == Some(&replica))
            || self.cluster.lost().contains(&replica)
    }

    /// Whether the node that a replica comes to can still take it.
    fn takes(&self, under_way: &Move) -> bool {
        let Some(seat) = under_way.add else { return true };
        let active = self.cluster.members().get(&seat.node).is_some_and(|member| member.state == MemberState::Active);
        let report = self.reports.get(&seat.node);
        let full = under_way.shard != ShardId::METADATA && report.is_some_and(|report| !report.has_room);
        active && !full && !self.is_dead(under_way.shard, seat)
    }
}

fn stage(under_way: &Move, led: Option<&Led>) -> Stage {
    let Some(led) = led else { return Stage::WaitsForLeader };
    let come = under_way.add.map(|seat| seat.replica);
    let joins = come.is_some_and(|id| !led.members.votes(id));
    if under_way.confirmed && (joins || led.members.is_joint()) {
        return Stage::ChangingMembers;
    }
    if !joins {
        let goes = under_way.leaving().any(|seat| led.members.votes(seat.replica));
        return if goes { Stage::ChangingMembers } else { Stage::Ending };
    }
    match led.peers.iter().find(|peer| Some(peer.replica) == come) {
        None => Stage::Starting,
        Some(peer) if peer.needs_snapshot => Stage::Copying,
        Some(peer) => Stage::CatchingUp { matched: peer.matched.0, committed: led.committed.0 },
    }
}

#[cfg(test)]
mod tests {
    use millpond::cluster::{Applied, Member, cluster_id};
    use millpond::entry::Members;
    use millpond::id::{Index, ReplicaId, StoreId};
    use millpond::placement::{MoveReason, plan_initial};

    use super::super::report::Peer;
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn apply(cluster: &mut Cluster, command: &Command) {
        let applied = cluster.apply(Index(cluster.applied().0 + 1), &command.encode()).unwrap();
        assert!(!matches!(applied, Applied::Refused { .. }), "{applied:?}");
    }

    /// Four nodes; two shards on three of them each.
    fn cluster() -> Cluster {
        let stores: BTreeMap<NodeId, StoreId> = (1..=4).map(|n| (NodeId(n), StoreId(u128::from(n)))).collect();
        let member =
            |(node, store): (&NodeId, &StoreId)| (*node, Member::new(*store, format!("node-{node}:1"), String::new()));
        let members = stores.iter().map(member).collect();
        let mut cluster = Cluster::default();
        let form = Command::Form { cluster: cluster_id(&stores), members, highest_replica: ReplicaId(4) };
        apply(&mut cluster, &form);
        let map = plan_initial(&stores.keys().copied().collect(), 2, 3, &mut cluster.replica_ids());
        apply(&mut cluster, &Command::PlaceShards { map });
        cluster
    }

    /// The group of a shard as the first of its replicas sees it, all of them in step.
    fn led(cluster: &Cluster, shard: ShardId) -> Led {
        let homes = cluster.homes(shard);
        let leader = *cluster.placement(shard).unwrap().replicas.values().next().unwrap();
        let peer = |(replica, node): (&ReplicaId, &NodeId)| Peer {
            replica: *replica,
            node: *node,
            active: true,
            matched: Index(9),
            needs_snapshot: false,
            caught_up: true,
        };
        Led {
            shard,
            leader,
            bytes: 10,
            members: Members::of(cluster.placement(shard).unwrap().replicas.values().copied(), []),
            committed: Index(9),
            peers: homes.iter().filter(|(replica, _)| **replica != leader).map(peer).collect(),
        }
    }

    /// What every node says, the first of each group leading it.
    fn reports(cluster: &Cluster) -> BTreeMap<NodeId, NodeReport> {
        let mut reports: BTreeMap<NodeId, NodeReport> =
            (1..=4).map(|n| (NodeId(n), NodeReport { has_room: true, ..NodeReport::default() })).collect();
        for shard in [ShardId(0), ShardId(1), ShardId::METADATA] {
            let led = led(cluster, shard);
            reports.get_mut(&cluster.homes(shard)[&led.leader]).unwrap().led.push(led);
        }
        reports
    }

    fn seen(reports: &BTreeMap<NodeId, NodeReport>) -> BTreeMap<NodeId, &NodeReport> {
        reports.iter().map(|(node, report)| (*node, report)).collect()
    }

    #[test]
    fn a_node_is_alive_that_one_leader_hears_though_nobody_else_does() {
        let cluster = cluster();
        let reports = reports(&cluster);
        let held: BTreeSet<NodeId> = cluster.homes(ShardId(0)).into_values().collect();
        assert!(held.is_subset(&alive([NodeId(1)], reports.values())));
        let mut deaf = reports;
        let silent = *held.last().unwrap();
        for peer in deaf.values_mut().flat_map(|report| &mut report.led).flat_map(|led| &mut led.peers) {
            peer.active &= peer.node != silent;
        }
        assert!(!alive([NodeId(1)], deaf.values()).contains(&silent));
    }

    #[test]
    fn what_a_node_held_is_moved_once_it_is_gone_for_the_grace_period() {
        let cluster = cluster();
        let reports = reports(&cluster);
        let lost = *cluster.placement(ShardId(0)).unwrap().replicas.keys().last().unwrap();
        for (gone, moves) in [(Duration::from_secs(4), false), (GRACE, true)] {
            let gone = BTreeMap::from([(lost, gone)]);
            let facts = Facts { cluster: &cluster, reports: &seen(&reports), gone: &gone, grace: GRACE };
            let begun = facts.begin(false);
            assert_eq!(!begun.is_empty(), moves, "{begun:?}");
            let from =
                |command: &Command| matches!(command, Command::BeginMove { remove, .. } if *remove == Some(lost));
            assert!(begun.iter().all(from), "{begun:?}");
        }
        let silent = BTreeMap::new();
        let gone = BTreeMap::from([(lost, GRACE)]);
        let facts = Facts { cluster: &cluster, reports: &silent, gone: &gone, grace: GRACE };
        assert!(facts.begin(false).is_empty(), "of groups of which nothing is known nothing is moved");
    }

    #[test]
    fn a_move_is_followed_from_its_beginning_to_its_end_and_of_two_leaders_the_one_further_on_counts() {
        let mut cluster = cluster();
        let shard = ShardId(0);
        let homes: BTreeSet<NodeId> = cluster.homes(shard).into_values().collect();
        let (to, from) = ((1..=4).map(NodeId).find(|node| !homes.contains(node)), homes.last().copied());
        let (expects, why) = (cluster.shards().epoch, MoveReason::Requested);
        let before = led(&cluster, shard);
        apply(&mut cluster, &Command::BeginMove { shard, add: to, remove: from, why, expects });
        let id = cluster.moves()[&shard].id;
        let come = cluster.moves()[&shard].add.unwrap().replica;
        let say = |cluster: &Cluster, reports: &BTreeMap<NodeId, NodeReport>| {
            let gone = BTreeMap::new();
            let facts = Facts { cluster, reports: &seen(reports), gone: &gone, grace: GRACE };
            (facts.stages()[&id].clone(), facts.tend())
        };
        let report = |led: Led| NodeReport { has_room: true, led: vec![led], ..NodeReport::default() };
        let mut reports = BTreeMap::new();
        assert_eq!(say(&cluster, &reports), (Stage::WaitsForLeader, vec![]));
        reports.insert(NodeId(1), report(before.clone()));
        assert_eq!(say(&cluster, &reports), (Stage::Starting, vec![]));

        let mut follows = led(&cluster, shard);
        follows.members.learners.insert(come);
        let copies = |peer: &mut Peer| (peer.caught_up, peer.needs_snapshot) = (false, true);
        follows.peers.iter_mut().filter(|peer| peer.replica == come).for_each(copies);
        follows.committed = Index(10);
        reports.insert(NodeId(2), report(follows.clone()));
        assert_eq!(say(&cluster, &reports), (Stage::Copying, vec![]));
        let caught_up = |peer: &mut Peer| (peer.caught_up, peer.needs_snapshot) = (true, false);
        follows.peers.iter_mut().filter(|peer| peer.replica == come).for_each(caught_up);
        reports.insert(NodeId(2), report(follows.clone()));
        let (stage, told) = say(&cluster, &reports);
        assert_eq!((stage, told), (Stage::CatchingUp { matched: 9, committed: 10 }, vec![Command::ConfirmMove { id }]));

        apply(&mut cluster, &Command::ConfirmMove { id });
        assert_eq!(say(&cluster, &reports), (Stage::ChangingMembers, vec![]));
        let gone = cluster.moves()[&shard].remove.unwrap().replica;
        follows.members.learners.remove(&come);
        follows.members.voters.remove(&gone);
        follows.members.voters.insert(come);
        reports.insert(NodeId(2), report(follows));
        assert_eq!(say(&cluster, &reports), (Stage::Ending, vec![Command::EndMove { id }]));
    }

    #[test]
    fn a_removal_takes_along_who_has_died_since_once_that_one_is_gone_for_the_grace_period() {
        let mut cluster = cluster();
        let shard = ShardId(0);
        let seats: Vec<(NodeId, ReplicaId)> =
            cluster.placement(shard).unwrap().replicas.iter().map(|(node, replica)| (*node, *replica)).collect();
        let [_, (living, _), (dies, dead)] = seats[..] else { panic!("{seats:?}") };
        let (expects, why) = (cluster.shards().epoch, MoveReason::Replication);
        apply(&mut cluster, &Command::BeginMove { shard, add: None, remove: Some(living), why, expects });
        let id = cluster.moves()[&shard].id;
        let mut led = led(&cluster, shard);
        let say = |cluster: &Cluster, led: &Led, gone: Duration| {
            let report = NodeReport { has_room: true, led: vec![led.clone()], ..NodeReport::default() };
            let (reports, gone) = (BTreeMap::from([(NodeId(1), &report)]), BTreeMap::from([(dies, gone)]));
            let facts = Facts { cluster, reports: &reports, gone: &gone, grace: GRACE };
            (facts.stages()[&id].clone(), facts.tend())
        };
        let soon = Duration::from_secs(4);
        assert_eq!(say(&cluster, &led, soon).1, [Command::ConfirmMove { id }], "it answered a moment ago");
        for peer in led.peers.iter_mut().filter(|peer| peer.replica == dead) {
            (peer.active, peer.caught_up) = (false, false);
        }
        assert_eq!(say(&cluster, &led, soon).1, vec![], "those that stay have no majority");
        assert_eq!(say(&cluster, &led, GRACE).1, [Command::CancelMove { id }], "another had better go");

        apply(&mut cluster, &Command::ConfirmMove { id });
        assert_eq!(say(&cluster, &led, soon), (Stage::ChangingMembers, vec![]), "it may come back");
        assert_eq!(say(&cluster, &led, GRACE).1, [Command::WidenMove { id, remove: dies }]);
        apply(&mut cluster, &Command::WidenMove { id, remove: dies });
        led.members.voters.remove(&dead);
        assert_eq!(say(&cluster, &led, GRACE), (Stage::ChangingMembers, vec![]), "one of the two has gone");
        led.members.voters.retain(|id| *id == led.leader);
        assert_eq!(say(&cluster, &led, GRACE), (Stage::Ending, vec![Command::EndMove { id }]));
    }
}
