//! The plan of faults of a case, sorted by time.
//!
//! Each seed has its own mix: it enables some kinds of fault and weighs them, so that some seeds are all power failures
//! and others all weather. Faults may overlap, also on one node. Those here heal by themselves, mostly within
//! seconds: most of a run has a majority, and not all of it. What lasts is cut to end with the time in which clients
//! write. Those that do not heal are [`damage`]'s, or belong to a [`story`] where nodes come and go.
//!
//! Clocks: a jump is small, so that all jumps of a run together stay within what a node accepts of a client's clock. One
//! node of a run may jump by hours: its peers must not follow it.

use std::collections::BTreeMap;

use millpond::id::NodeId;
use millpond::limits;
use millpond::placement::ShardMap;

use super::{Dice, damage, story};
use crate::case::{Fault, Knobs, Membership, Planned, Timed};

/// Faults that are drawn one by one.
const FAULTS_MAX: u64 = 14;
/// The last of them comes so long before the end, so that it shows.
const LAST_MS: u64 = 500;
/// A jump of a clock; all of a run stay within `limits::TIMESTAMP_AHEAD_MAX`, the skew counted.
const JUMP_MS_MAX: u64 = 40_000;
/// The jump of one clock that the others must not follow.
const FAR_JUMP_MS: (u64, u64) = (3_600_000, 48 * 3_600_000);
/// Times that the power of all nodes goes at once.
const BLACKOUTS_MAX: u64 = 4;
/// How long before it actors may have panicked at most.
const PANIC_BEFORE_MS: u64 = 4_000;
/// How long before it their disks may be slow, so that much is on its way to them.
const SLOW_BEFORE_MS: u64 = 400;
/// Rounds of one storm, and how far apart they lie.
const STORM_ROUNDS_MAX: u64 = 3;
const STORM_REST_MS: (u64, u64) = (500, 4_000);

/// What is drawn one by one, and the nodes that it takes.
const KINDS: [(Kind, u64); 13] = [
    (Kind::Crash, 1),
    (Kind::Kill, 1),
    (Kind::PowerOffAfter, 1),
    (Kind::CrashInRecovery, 1),
    (Kind::Panic, 1),
    (Kind::Cut, 2),
    (Kind::Partition, 2),
    (Kind::Bridge, 3),
    (Kind::Weather, 2),
    (Kind::SyncFails, 1),
    (Kind::FullDisk, 1),
    (Kind::SlowDisk, 1),
    (Kind::ClockJump, 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    Kill,
    PowerOffAfter,
    CrashInRecovery,
    Panic,
    Cut,
    Partition,
    Bridge,
    Weather,
    SyncFails,
    FullDisk,
    SlowDisk,
    ClockJump,
}

/// What a seed draws besides its knobs.
pub(super) struct Drawn {
    pub(super) membership: Membership,
    pub(super) operations: Vec<Planned>,
    /// How long clients write.
    pub(super) busy_ms: u64,
    /// By time.
    pub(super) faults: Vec<Timed>,
}

/// What happens in a seed, by faults and by operators.
pub(super) fn draw(seed: u64, nodes: u64, knobs: &Knobs) -> Drawn {
    let mut dice = Dice::new(seed, "faults");
    let busy_ms = dice.between(8_000, 25_000);
    let map = damage::placement(nodes, knobs.shards);
    let mut damage = damage::draw(&mut Dice::new(seed, "damage"), nodes, &map, busy_ms);
    let flips = damage.iter().any(|timed| matches!(timed.fault, Fault::FlipBit { .. }));
    let story = story::draw(seed, nodes, knobs, flips);
    let busy_ms = story.busy_ms.unwrap_or(busy_ms);
    let told = story.busy_ms.is_some();
    if told {
        damage.retain(|timed| !is_loss(&timed.fault));
        let further = damage::before_moves(&mut Dice::new(seed, "damage that travels"), &damage, &story.operations);
        damage.extend(further);
    }
    let gone = damage.iter().any(|timed| is_loss(&timed.fault));
    let from_ms = if gone { damage::FORMED_MS } else { 0 };
    let mut faults = damage;

    let mut plan =
        Plan { dice, nodes: nodes + story.membership.spares, founders: nodes, map, knobs, far_jumped: false };
    let enabled = plan.mix();
    for _ in 0..plan.dice.below(FAULTS_MAX + 1) {
        let at_ms = plan.dice.between(from_ms, busy_ms - LAST_MS);
        let kind = *plan.dice.pick(&enabled);
        faults.push(Timed { at_ms, fault: plan.one(kind) });
    }
    if plan.dice.one_in(5) {
        faults.extend(plan.storm(from_ms, busy_ms));
    }
    if plan.dice.one_in(2) {
        for _ in 0..plan.dice.between(1, BLACKOUTS_MAX) {
            faults.extend(plan.blackout(from_ms, busy_ms));
        }
    }
    faults.retain_mut(|timed| {
        let left_ms = busy_ms.saturating_sub(timed.at_ms);
        end_within(&mut timed.fault, left_ms);
        left_ms > 0
    });
    faults.extend(story.losses);
    faults.sort_by_key(|timed| timed.at_ms);
    if !told {
        faults = without_the_lost(faults);
    }
    Drawn { membership: story.membership, operations: story.operations, busy_ms, faults }
}

/// Whether a node does not come back from it, or comes back with nothing.
pub(super) fn is_loss(fault: &Fault) -> bool {
    matches!(fault, Fault::Lose { .. } | Fault::Wipe { .. })
}

/// What a plan is drawn with.
struct Plan<'a> {
    dice: Dice,
    /// All of them, spare ones included.
    nodes: u64,
    /// Those that form the cluster.
    founders: u64,
    map: ShardMap,
    knobs: &'a Knobs,
    far_jumped: bool,
}

impl Plan<'_> {
    /// The kinds that this seed enables, each as often as it weighs.
    fn mix(&mut self) -> Vec<Kind> {
        let possible: Vec<Kind> =
            KINDS.iter().filter(|(_, least)| self.nodes >= *least).map(|(kind, _)| *kind).collect();
        let mut enabled = vec![*self.dice.pick(&possible)];
        for kind in possible {
            if self.dice.one_in(2) {
                let weight = 1 << self.dice.below(4);
                enabled.extend(std::iter::repeat_n(kind, weight));
            }
        }
        enabled
    }

    fn one(&mut self, kind: Kind) -> Fault {
        let node = self.node();
        let dice = &mut self.dice;
        match kind {
            Kind::Crash => Fault::Crash { node, down_ms: down_ms(dice) },
            Kind::Kill => Fault::Kill { node, down_ms: down_ms(dice) },
            Kind::PowerOffAfter => {
                Fault::PowerOffAfter { node, operations: dice.scaled(0, 200), down_ms: down_ms(dice) }
            }
            Kind::CrashInRecovery => {
                Fault::CrashInRecovery { node, down_ms: dice.scaled(100, 2_000), operations: dice.scaled(0, 60) }
            }
            Kind::Panic => {
                let actor = self.actor(node);
                let times = if self.dice.one_in(3) { self.dice.between(2, 7) } else { 1 };
                Fault::Panic { node, actor, times: small(times) }
            }
            Kind::Cut => Fault::Cut { from: node, to: self.other(node), for_ms: self.for_ms() },
            Kind::Partition => Fault::Partition { side: self.side(), for_ms: self.for_ms() },
            Kind::Bridge => Fault::Bridge { node, for_ms: self.for_ms() },
            Kind::Weather => {
                let (drop, repeat) = (small(dice.scaled(0, 300)), small(dice.scaled(0, 300)));
                Fault::Weather { drop, repeat, delay_ms: dice.scaled(1, 2_000), for_ms: self.for_ms() }
            }
            Kind::SyncFails => Fault::SyncFails { node, operations: dice.scaled(0, 100), down_ms: down_ms(dice) },
            Kind::FullDisk => Fault::FullDisk { node, for_ms: self.for_ms() },
            Kind::SlowDisk => Fault::SlowDisk { node, factor: small(dice.scaled(2, 100)), for_ms: self.for_ms() },
            Kind::ClockJump => Fault::ClockJump { node, by_ms: self.jump() },
        }
    }

    fn node(&mut self) -> u64 {
        self.dice.between(1, self.nodes)
    }

    fn other(&mut self, node: u64) -> u64 {
        (node + self.dice.below(self.nodes - 1)) % self.nodes + 1
    }

    /// Some nodes, not all.
    fn side(&mut self) -> Vec<u64> {
        let mut side = self.dice.shuffled((1..=self.nodes).collect());
        let count = self.dice.between(1, self.nodes - 1);
        side.truncate(usize::try_from(count).expect("a handful"));
        side.sort_unstable();
        side
    }

    fn for_ms(&mut self) -> u64 {
        self.dice.scaled(200, 6_000)
    }

    fn jump(&mut self) -> i64 {
        if !self.far_jumped && self.dice.one_in(8) {
            self.far_jumped = true;
            return signed(self.dice.scaled(FAR_JUMP_MS.0, FAR_JUMP_MS.1));
        }
        let by_ms = signed(self.dice.scaled(10, JUMP_MS_MAX));
        if self.dice.one_in(2) { -by_ms } else { by_ms }
    }

    /// The name of an actor of a node. Those whose end is the end of the process are rare: kills are that already.
    fn actor(&mut self, node: u64) -> String {
        let dice = &mut self.dice;
        if dice.one_in(20) {
            return (*dice.pick(&["log-writer", "node"])).to_owned();
        }
        // What comes to a spare node is not known here.
        let spare = node > self.founders;
        let placed = self.map.shards.iter().filter(|placement| spare || placement.replicas.contains_key(&NodeId(node)));
        let placed: Vec<String> = placed.map(|placement| placement.shard.to_string()).collect();
        if !placed.is_empty() && dice.one_in(2) {
            let of = ["/replica", "/replica", "/sealer", "/snapshotter", "/fetcher", ""];
            return format!("{}{}", dice.pick(&placed), dice.pick(&of));
        }
        let ingester = dice.below(self.knobs.workers as u64);
        let querier = dice.below(limits::QUERIERS as u64);
        let groups =
            ["shards", "metadata", "metadata/replica", "metadata/snapshotter", "placer", "links", "ingest", "query"];
        let mut names: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        names.extend([format!("ingester-{ingester}"), format!("querier-{querier}")]);
        names.extend((1..=self.nodes).filter(|peer| *peer != node).map(|peer| format!("peer-link-{peer}")));
        dice.pick(&names).clone()
    }

    /// The power of all nodes goes at one moment, often with more on its way to their disks than usual, and often with
    /// replicas that were restarted while their process went on.
    fn blackout(&mut self, from_ms: u64, busy_ms: u64) -> Vec<Timed> {
        let from_ms = from_ms + PANIC_BEFORE_MS;
        if from_ms > busy_ms - LAST_MS {
            return Vec::new();
        }
        let at_ms = self.dice.between(from_ms, busy_ms - LAST_MS);
        let slow = self.dice.one_in(2).then(|| small(self.dice.scaled(2, 50)));
        let panics = self.dice.one_in(2);
        let mut faults = Vec::new();
        for node in 1..=self.nodes {
            if panics {
                let fault = Fault::Panic { node, actor: "shards".to_owned(), times: 1 };
                faults.push(Timed { at_ms: at_ms - self.dice.between(1_500, PANIC_BEFORE_MS), fault });
            }
            if let Some(factor) = slow {
                let fault = Fault::SlowDisk { node, factor, for_ms: 2 * SLOW_BEFORE_MS };
                faults.push(Timed { at_ms: at_ms - SLOW_BEFORE_MS, fault });
            }
            let down_ms = self.dice.scaled(20, 1_000);
            faults.push(Timed { at_ms, fault: Fault::Crash { node, down_ms } });
        }
        faults
    }

    /// Power failures and kills of several nodes at once or within a second, and again before they have recovered.
    fn storm(&mut self, from_ms: u64, busy_ms: u64) -> Vec<Timed> {
        let mut faults = Vec::new();
        let spread_ms = *self.dice.pick(&[1, 1, 1_000]);
        let everybody = self.dice.one_in(2);
        let mut at_ms = self.dice.between(from_ms, busy_ms - 1_000);
        for _ in 0..self.dice.between(1, STORM_ROUNDS_MAX) {
            for node in 1..=self.nodes {
                if everybody || self.dice.one_in(2) {
                    let at_ms = at_ms + self.dice.below(spread_ms);
                    let down_ms = self.dice.scaled(100, 3_000);
                    let operations = self.dice.scaled(0, 20);
                    let fault = match self.dice.below(6) {
                        0 => Fault::Kill { node, down_ms },
                        1 => Fault::PowerOffAfter { node, operations, down_ms },
                        2 => Fault::CrashInRecovery { node, down_ms, operations },
                        _ => Fault::Crash { node, down_ms },
                    };
                    faults.push(Timed { at_ms, fault });
                }
            }
            at_ms += self.dice.between(STORM_REST_MS.0, STORM_REST_MS.1);
        }
        faults
    }
}

/// Cuts what a fault takes to the time that is left. What waits for operations of a disk may still come later.
fn end_within(fault: &mut Fault, left_ms: u64) {
    match fault {
        Fault::Crash { down_ms: takes_ms, .. }
        | Fault::Kill { down_ms: takes_ms, .. }
        | Fault::PowerOffAfter { down_ms: takes_ms, .. }
        | Fault::SyncFails { down_ms: takes_ms, .. }
        | Fault::Cut { for_ms: takes_ms, .. }
        | Fault::Partition { for_ms: takes_ms, .. }
        | Fault::Bridge { for_ms: takes_ms, .. }
        | Fault::Weather { for_ms: takes_ms, .. }
        | Fault::FullDisk { for_ms: takes_ms, .. }
        | Fault::SlowDisk { for_ms: takes_ms, .. } => *takes_ms = left_ms.min(*takes_ms),
        Fault::CrashInRecovery { down_ms, .. } => *down_ms = (left_ms / 2).min(*down_ms),
        Fault::Panic { times, .. } => *times = small((left_ms.div_ceil(1_000)).min(u64::from(*times))),
        Fault::Lose { .. } | Fault::Wipe { .. } | Fault::FlipBit { .. } | Fault::ClockJump { .. } => {}
    }
}

fn down_ms(dice: &mut Dice) -> u64 {
    dice.scaled(100, 6_000)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("at most a thousand")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("at most days")
}

/// Nothing more happens to a node that is lost.
fn without_the_lost(mut faults: Vec<Timed>) -> Vec<Timed> {
    let lost: BTreeMap<u64, u64> = faults
        .iter()
        .filter_map(|timed| if let Fault::Lose { node, .. } = timed.fault { Some((node, timed.at_ms)) } else { None })
        .collect();
    let is_lost = |timed: &Timed| {
        let after = node_of(&timed.fault).and_then(|node| lost.get(&node)).is_some_and(|at| timed.at_ms >= *at);
        after && !matches!(timed.fault, Fault::Lose { .. })
    };
    faults.retain(|timed| !is_lost(timed));
    faults
}

/// The one node that a fault happens to; none where it happens between nodes.
pub(super) fn node_of(fault: &Fault) -> Option<u64> {
    match fault {
        Fault::Crash { node, .. }
        | Fault::Kill { node, .. }
        | Fault::PowerOffAfter { node, .. }
        | Fault::CrashInRecovery { node, .. }
        | Fault::Lose { node, .. }
        | Fault::Wipe { node }
        | Fault::Panic { node, .. }
        | Fault::SyncFails { node, .. }
        | Fault::FullDisk { node, .. }
        | Fault::SlowDisk { node, .. }
        | Fault::FlipBit { node, .. }
        | Fault::ClockJump { node, .. } => Some(*node),
        Fault::Cut { .. } | Fault::Partition { .. } | Fault::Bridge { .. } | Fault::Weather { .. } => None,
    }
}
