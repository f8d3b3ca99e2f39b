//! A cluster to which everything happens that may: nodes go, come back, are wiped, join, drain and leave, shards grow, and
//! moves begin, end and are given up in any order. After each step what must always hold is looked at; in the end
//! nothing more happens, and the plan must come to rest.

use proptest::sample::Index as Pick;

use super::*;
use crate::limits;
use crate::placement::{Desired, NodeView, Observed, ShardView, Wish, plan_moves};

const GRACE_MS: u64 = 3_000;
const STEP_MS: u64 = 1_000;
const SHARD_BYTES: u64 = 1 << 30;
const BYTES_MAX: u64 = 1 << 40;
/// Rounds in which the plan must come to rest: each ends every move that was begun, and there are at most so many seats.
const ROUNDS_MAX: usize = 200;

#[derive(Clone, Debug)]
enum Step {
    Kill(Pick),
    Revive(Pick),
    Wipe(Pick),
    GiveUp(Pick),
    Join(u8),
    Drain(Pick),
    Undrain(Pick),
    Remove(Pick),
    Grow(Pick),
    Fill(Pick),
    Replication(u32),
    Request(Pick, Pick, Pick),
    Plan,
    End(Pick),
    Cancel(Pick),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<Pick>;
    prop_oneof![
        2 => pick().prop_map(Step::Kill),
        2 => pick().prop_map(Step::Revive),
        1 => pick().prop_map(Step::Wipe),
        1 => pick().prop_map(Step::GiveUp),
        2 => (0..3_u8).prop_map(Step::Join),
        1 => pick().prop_map(Step::Drain),
        1 => pick().prop_map(Step::Undrain),
        1 => pick().prop_map(Step::Remove),
        1 => pick().prop_map(Step::Grow),
        1 => pick().prop_map(Step::Fill),
        1 => prop_oneof![Just(1), Just(3), Just(5)].prop_map(Step::Replication),
        1 => (pick(), pick(), pick()).prop_map(|(shard, add, remove)| Step::Request(shard, add, remove)),
        8 => Just(Step::Plan),
        8 => pick().prop_map(Step::End),
        1 => pick().prop_map(Step::Cancel),
    ]
}

struct World {
    cluster: Cluster,
    zones: bool,
    now: u64,
    /// Since when each node that is gone is.
    gone: BTreeMap<NodeId, u64>,
    full: BTreeSet<NodeId>,
    bytes: BTreeMap<ShardId, u64>,
    given_up: BTreeSet<ReplicaId>,
    /// Every replica that ever was.
    used: BTreeSet<ReplicaId>,
    next_node: u64,
    next_store: u128,
}

impl World {
    fn new(nodes: u64, shards: u32, copies: usize, zones: bool) -> Self {
        let possible = |few: &usize| *few <= copies && *few as u64 <= nodes;
        let copies = [5, 3, 1].into_iter().find(possible).unwrap();
        let mut cluster = Cluster::default();
        let Command::Form { cluster: id, mut members, highest_replica } = form(nodes) else { panic!() };
        for (node, member) in &mut members {
            member.zone = zone(zones, node.0);
        }
        apply(&mut cluster, &Command::Form { cluster: id, members, highest_replica });
        let all = cluster.members().keys().copied().collect();
        let map = plan_initial(&all, shards, copies, &mut cluster.replica_ids());
        apply(&mut cluster, &Command::PlaceShards { map });
        let bytes = (0..shards).map(|shard| (ShardId(shard), SHARD_BYTES)).collect();
        let used = (1..=cluster.replica_ids().highest().0).map(ReplicaId).collect();
        let (gone, full, given_up) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { cluster, zones, now: 0, gone, full, bytes, given_up, used, next_node: nodes, next_store: 10_000 }
    }

    fn groups(&self) -> Vec<Placement> {
        self.cluster.shards().shards.iter().chain([self.cluster.metadata()]).cloned().collect()
    }

    fn live(&self, shard: ShardId) -> BTreeSet<ReplicaId> {
        let homes = self.cluster.homes(shard).into_iter();
        let live = homes.filter(|(replica, node)| !self.gone.contains_key(node) && !self.given_up.contains(replica));
        live.map(|(replica, _)| replica).collect()
    }

    fn has_majority(&self, placement: &Placement) -> bool {
        let live = self.live(placement.shard);
        placement.replicas.values().filter(|replica| live.contains(replica)).count() * 2 > placement.replicas.len()
    }

    /// Whether all groups can go on, now and once their moves have ended.
    fn is_bearable(&self) -> bool {
        self.groups().iter().all(|placement| {
            let after = self.cluster.moves().get(&placement.shard).map(|under_way| under_way.outcome(placement));
            self.has_majority(placement) && after.is_none_or(|after| self.has_majority(&after))
        })
    }

    fn observed(&self) -> Observed<'_> {
        let held = |node: &NodeId| {
            let shards = self.cluster.shards().shards.iter();
            let held = shards.filter(|placement| placement.replicas.contains_key(node));
            held.map(|placement| self.bytes[&placement.shard]).sum()
        };
        let view = |(node, member): (&NodeId, &Member)| {
            let view = NodeView {
                state: member.state,
                gone_ms: self.gone.get(node).map(|since| self.now - since),
                zone: member.zone.clone(),
                has_room: !self.full.contains(node),
                bytes: held(node),
            };
            (*node, view)
        };
        let shard = |placement: Placement| {
            let shard = placement.shard;
            let live = self.live(shard);
            let leader = placement.replicas.iter().find(|(_, replica)| live.contains(replica)).map(|(node, _)| *node);
            let bytes = self.bytes.get(&shard).copied().unwrap_or_default();
            (shard, ShardView { leader, bytes, live, given_up: self.given_up.clone() })
        };
        Observed {
            nodes: self.cluster.members().iter().map(view).collect(),
            map: self.cluster.shards(),
            metadata: self.cluster.metadata(),
            lost: self.cluster.lost(),
            moves: self.cluster.moves(),
            shards: self.groups().into_iter().map(shard).collect(),
        }
    }

    fn desired(&self) -> Desired {
        Desired::new(self.cluster.copies() as usize, GRACE_MS, true)
    }

    fn plan(&self) -> Vec<Wish> {
        let wishes = plan_moves(&self.observed(), &self.desired());
        assert_eq!(wishes, plan_moves(&self.observed(), &self.desired()), "the same for the same facts");
        wishes
    }

    /// Whether this node may be given a replica, in the words of the rule.
    fn may_take(&self, node: NodeId, placement: &Placement, remove: Option<NodeId>) -> bool {
        let active = self.cluster.members().get(&node).is_some_and(|member| member.state == MemberState::Active);
        let room = !self.full.contains(&node) || placement.shard == ShardId::METADATA;
        let held = placement.replicas.get(&node);
        let free = held.is_none_or(|held| remove == Some(node) && self.cluster.lost().contains(held));
        active && room && free && !self.gone.contains_key(&node)
    }

    fn is_dead(&self, node: NodeId, replica: ReplicaId) -> bool {
        self.gone.get(&node).is_some_and(|since| self.now - since >= GRACE_MS)
            || self.given_up.contains(&replica)
            || self.cluster.lost().contains(&replica)
    }

    /// Begins what is wished; each wish must be one that may be.
    fn begin(&mut self, wish: Wish) {
        let Wish { shard, add, remove, why } = wish;
        let placement = self.cluster.placement(shard).unwrap().clone();
        assert!(self.has_majority(&placement), "{wish:?} could not be committed");
        assert!(add.is_none_or(|node| self.may_take(node, &placement, remove)), "{wish:?} is no node for it");
        let draining = |node: NodeId| self.cluster.draining().contains(&node);
        let replica = remove.map(|node| (node, placement.replicas[&node]));
        let others_dead = || placement.replicas.iter().any(|(node, replica)| self.is_dead(*node, *replica));
        let right = match why {
            MoveReason::Rehome | MoveReason::GivenUp => replica.is_some_and(|(node, id)| self.is_dead(node, id)),
            MoveReason::Drain => remove.is_some_and(draining),
            MoveReason::Replication => replica.is_none_or(|(node, id)| self.is_dead(node, id) || !others_dead()),
            MoveReason::Rebalance => !others_dead(),
            MoveReason::Requested => false,
        };
        assert!(right, "{wish:?} has no reason");
        let expects = self.cluster.shards().epoch;
        let observers = self.cluster.observers.clone();
        let outcome = apply(&mut self.cluster, &Command::BeginMove { shard, add, remove, why, expects });
        let Applied::Began { begun } = outcome else { panic!("{wish:?}: {outcome:?}") };
        if let Some(come) = begun.add {
            let promoted = shard == ShardId::METADATA && observers.get(&come.node) == Some(&come.replica);
            assert!(promoted || self.used.insert(come.replica), "replica {} was used before", come.replica);
        }
        assert!(self.has_majority(&begun.outcome(&placement)), "{wish:?} leaves no majority");
    }

    /// Ends a move as the group would: only where old and new voters can agree on it and the new one has caught up.
    fn end(&mut self, under_way: Move) -> bool {
        let placement = self.cluster.placement(under_way.shard).unwrap().clone();
        let live = self.live(under_way.shard);
        let able = under_way.add.is_none_or(|seat| live.contains(&seat.replica))
            && self.has_majority(&placement)
            && self.has_majority(&under_way.outcome(&placement));
        if able {
            let outcome = apply(&mut self.cluster, &Command::EndMove { id: under_way.id });
            assert!(matches!(outcome, Applied::Ended { .. }), "{outcome:?}");
        }
        able
    }

    /// Something that happens to the cluster, unless it could not bear it.
    fn trouble(&mut self, change: impl FnOnce(&mut Self)) {
        let before = (self.cluster.clone(), self.gone.clone(), self.given_up.clone(), self.used.clone());
        change(self);
        if !self.is_bearable() {
            (self.cluster, self.gone, self.given_up, self.used) = before;
        }
    }

    fn nth_node(&self, pick: &Pick) -> NodeId {
        let nodes: Vec<NodeId> = self.cluster.members().keys().copied().collect();
        nodes[pick.index(nodes.len())]
    }

    fn nth_move(&self, pick: &Pick) -> Option<Move> {
        let moves: Vec<Move> = self.cluster.moves().values().copied().collect();
        (!moves.is_empty()).then(|| moves[pick.index(moves.len())])
    }

    /// A command that may be refused.
    fn order(&mut self, command: &Command) {
        let before = self.cluster.clone();
        if let Applied::Refused { .. } = apply(&mut self.cluster, command) {
            assert_eq!(
                Cluster { applied: before.applied, ..self.cluster.clone() },
                before,
                "a refusal changes nothing"
            );
        }
        let new = self.used.last().map_or(1, |last| last.0 + 1)..=self.cluster.replica_ids().highest().0;
        self.used.extend(new.map(ReplicaId));
    }

    fn take(&mut self, step: Step) {
        self.now += STEP_MS;
        match step {
            Step::Kill(pick) => {
                let node = self.nth_node(&pick);
                self.trouble(|world| {
                    world.gone.entry(node).or_insert(world.now);
                });
            }
            Step::Revive(pick) => {
                self.gone.remove(&self.nth_node(&pick));
            }
            Step::Wipe(pick) => {
                let (node, store) = (self.nth_node(&pick), StoreId(self.next_store));
                self.next_store += 1;
                self.trouble(|world| world.order(&Command::ReplaceStore { node, store }));
            }
            Step::GiveUp(pick) => {
                let placement = self.groups().swap_remove(pick.index(self.groups().len() - 1));
                let replica = *placement.replicas.values().nth(pick.index(placement.replicas.len())).unwrap();
                self.trouble(|world| {
                    world.given_up.insert(replica);
                });
            }
            Step::Join(in_zone) => {
                self.next_node += 1;
                let (node, store) = (NodeId(self.next_node), StoreId(self.next_store));
                self.next_store += 1;
                let (address, zone) = (address(node.0), zone(self.zones, in_zone.into()));
                self.order(&Command::AddNode { node, store, address, zone });
            }
            Step::Drain(pick) => self.order(&Command::DrainNode { node: self.nth_node(&pick) }),
            Step::Undrain(pick) => self.order(&Command::UndrainNode { node: self.nth_node(&pick) }),
            Step::Remove(pick) => self.order(&Command::RemoveNode { node: self.nth_node(&pick) }),
            Step::Grow(pick) => {
                let shard = ShardId(u32::try_from(pick.index(self.bytes.len())).unwrap());
                self.bytes.entry(shard).and_modify(|bytes| *bytes = (*bytes * 3).min(BYTES_MAX));
            }
            Step::Fill(pick) => {
                let node = self.nth_node(&pick);
                if !self.full.remove(&node) {
                    self.full.insert(node);
                }
            }
            Step::Replication(copies) => self.order(&Command::SetReplication { copies }),
            Step::Request(shard, add, remove) => {
                let shard = self.groups()[shard.index(self.groups().len())].shard;
                let (add, remove) = (Some(self.nth_node(&add)), Some(self.nth_node(&remove)));
                let (why, expects) = (MoveReason::Requested, self.cluster.shards().epoch);
                self.trouble(|world| world.order(&Command::BeginMove { shard, add, remove, why, expects }));
            }
            Step::Plan => {
                for wish in self.plan() {
                    self.begin(wish);
                }
            }
            Step::End(pick) => {
                if let Some(under_way) = self.nth_move(&pick) {
                    self.end(under_way);
                }
            }
            Step::Cancel(pick) => {
                if let Some(under_way) = self.nth_move(&pick) {
                    self.order(&Command::CancelMove { id: under_way.id });
                }
            }
        }
        self.look();
    }

    /// What always holds.
    fn look(&self) {
        let cluster = &self.cluster;
        assert!(self.is_bearable(), "a group lost its majority");
        assert!(cluster.moves().len() <= limits::MOVES_MAX);
        assert_eq!(cluster.shards().check(), Ok(()));
        for placement in self.groups() {
            let shard = placement.shard;
            let members = cluster.members().iter();
            let duties =
                members.filter_map(|(node, member)| Some((*node, *cluster.holds(*node, member.store).get(&shard)?)));
            let runs: BTreeMap<_, _> = duties.map(|(node, duty)| (duty.replica(), node)).collect();
            let homes = cluster.homes(shard);
            assert_eq!(runs, homes, "everybody runs what others send to, and nothing else");
            let wanted = cluster.wanted(shard).unwrap();
            assert!(wanted.voters.is_disjoint(&wanted.learners) && !wanted.voters.is_empty());
        }
        let roll = cluster.roll().unwrap();
        let present = cluster.members().values().filter(|member| member.state != MemberState::Removed);
        assert_eq!(roll.nodes.len(), present.count(), "everybody has a replica of the metadata group");
    }

    /// Nothing more happens, but what is planned is done.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.now += GRACE_MS;
            let under_way: Vec<Move> = self.cluster.moves().values().copied().collect();
            for under_way in &under_way {
                if !self.end(*under_way) {
                    self.order(&Command::CancelMove { id: under_way.id });
                }
                self.look();
            }
            let wishes = self.plan();
            if under_way.is_empty() && wishes.is_empty() {
                self.at_rest();
                return;
            }
            for wish in wishes {
                self.begin(wish);
            }
        }
        panic!("the plan goes on and on: {:?}", self.plan());
    }

    /// What holds when there is nothing left to plan.
    fn at_rest(&self) {
        let mut well = true;
        for placement in self.groups() {
            let nodes = || self.cluster.members().keys();
            let spare = |remove| nodes().any(|node| self.may_take(*node, &placement, remove));
            for (node, replica) in &placement.replicas {
                let bad = self.is_dead(*node, *replica) || self.cluster.draining().contains(node);
                assert!(!bad || !spare(Some(*node)), "{} could leave node {node}", placement.shard);
                well &= !bad;
            }
            let copies = self.cluster.copies() as usize;
            if placement.shard != ShardId::METADATA {
                assert!(placement.replicas.len() >= copies || !spare(None), "{} could have more", placement.shard);
                assert!(placement.replicas.len() <= copies, "{} has too many", placement.shard);
                well &= placement.replicas.len() == copies;
            }
            well &= !spare(None) || placement.shard != ShardId::METADATA || placement.replicas.len() >= 5;
        }
        if well && !self.zones {
            let able = self.cluster.members().iter().filter(|(node, member)| {
                member.state == MemberState::Active && !self.gone.contains_key(node) && !self.full.contains(node)
            });
            let held = |node: &NodeId| {
                self.cluster.shards().shards.iter().filter(|placement| placement.replicas.contains_key(node)).count()
            };
            let held: Vec<usize> = able.map(|(node, _)| held(node)).collect();
            let apart = held.iter().max().unwrap_or(&0) - held.iter().min().unwrap_or(&0);
            assert!(apart < limits::REBALANCE_REPLICAS_APART, "{held:?}");
        }
    }
}

fn zone(zones: bool, node: u64) -> String {
    if zones { format!("zone-{}", node % 3) } else { String::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_majorities_live_no_replica_returns_and_the_plan_comes_to_rest(
        nodes in 1..=7_u64,
        shards in 1..=8_u32,
        copies in prop_oneof![Just(1_usize), Just(3), Just(5)],
        zones: bool,
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(nodes, shards, copies, zones);
        world.look();
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}

#[test]
fn a_fifth_node_takes_its_share_and_a_drained_one_keeps_nothing() {
    let mut world = World::new(4, 16, 3, false);
    world.settle();
    world.take(Step::Join(0));
    world.settle();
    let held = |world: &World, node: u64| {
        world.cluster.shards().shards.iter().filter(|placement| placement.replicas.contains_key(&NodeId(node))).count()
    };
    let shares: Vec<usize> = (1..=5).map(|node| held(&world, node)).collect();
    assert!(shares.iter().all(|share| (9..=10).contains(share)), "{shares:?}");
    let node = NodeId(2);
    world.order(&Command::DrainNode { node });
    world.settle();
    assert_eq!(held(&world, 2), 0);
    assert!(matches!(apply(&mut world.cluster, &Command::RemoveNode { node }), Applied::NodeChanged { .. }));
    assert_eq!(world.cluster.metadata().replicas.len(), 4);
}

#[test]
fn a_lost_node_is_replaced_only_after_the_grace_period() {
    let mut world = World::new(4, 8, 3, false);
    world.settle();
    world.gone.insert(NodeId(1), world.now);
    assert!(world.plan().is_empty());
    world.now += GRACE_MS;
    let wishes = world.plan();
    assert!(!wishes.is_empty() && wishes.iter().all(|wish| wish.why == MoveReason::Rehome), "{wishes:?}");
    world.settle();
    let holds = |placement: &Placement| placement.replicas.contains_key(&NodeId(1));
    assert!(!world.groups().iter().any(holds), "also the metadata group gives it up, since three others vote");
}

#[test]
fn where_there_is_no_spare_node_a_dead_replica_stays_where_it_is() {
    let mut world = World::new(3, 8, 3, false);
    world.gone.insert(NodeId(1), 0);
    world.now = 10 * GRACE_MS;
    assert!(world.plan().is_empty());
    world.gone.clear();
    // Wiped, the same node is the spare one.
    world.order(&Command::ReplaceStore { node: NodeId(1), store: StoreId(77) });
    let wishes = world.plan();
    assert!(wishes.iter().any(|wish| wish.add == Some(NodeId(1)) && wish.remove == Some(NodeId(1))), "{wishes:?}");
    world.settle();
    assert!(world.cluster.lost().is_empty() && world.cluster.metadata().replicas.len() == 3);
}
