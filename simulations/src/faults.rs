//! Carries out the faults of a plan, each at its time, and takes back what ends by itself.

use std::sync::Arc;
use std::time::Duration;

use millpond::id::NodeId;
use tokio::time::{Instant, sleep, sleep_until};

use crate::case::{Case, Fault, FileKind};
use crate::membership;
use crate::network::{Network, Weather};
use crate::node::{Ending, Fate, Node};
use crate::observe::Observed;

/// Actors whose panics may end the node: the log's at once, the others' when their budgets are spent.
const VITAL: [&str; 7] = ["log-writer", "node", "links", "shards", "metadata", "ingest", "query"];
/// Between two panics of one actor.
const PANICS_APART: Duration = Duration::from_secs(1);
/// How long a loss waits until it can be borne, and how often it looks.
const LOSS_PATIENCE: Duration = Duration::from_secs(8);
const LOSS_LOOK: Duration = Duration::from_millis(100);

/// What faults are done to.
pub struct Victims {
    /// The nodes, the first of them node 1.
    pub nodes: Vec<Arc<Node>>,
    /// What connects them.
    pub network: Network,
    /// How frames fare without a fault.
    pub weather: Weather,
    /// Where faults are told.
    pub observed: Arc<Observed>,
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Plays the plan to its end.
pub async fn play(victims: Arc<Victims>, case: &Case) {
    let start = Instant::now();
    let end = start + millis(case.busy_ms);
    for timed in &case.faults {
        sleep_until(start + millis(timed.at_ms)).await;
        victims.observed.trace.line(format_args!("fault: {:?}", timed.fault));
        victims.observed.fault(millis(lasts_ms(&timed.fault)));
        victims.strike(timed.fault.clone(), end);
    }
}

/// How long a fault lasts, about; nothing where it is over at once or lasts for ever.
fn lasts_ms(fault: &Fault) -> u64 {
    match fault {
        Fault::Crash { down_ms, .. }
        | Fault::Kill { down_ms, .. }
        | Fault::PowerOffAfter { down_ms, .. }
        | Fault::CrashInRecovery { down_ms, .. }
        | Fault::SyncFails { down_ms, .. } => *down_ms,
        Fault::Cut { for_ms, .. }
        | Fault::Partition { for_ms, .. }
        | Fault::Bridge { for_ms, .. }
        | Fault::Weather { for_ms, .. }
        | Fault::FullDisk { for_ms, .. }
        | Fault::SlowDisk { for_ms, .. } => *for_ms,
        Fault::Panic { times, .. } => 1_000 * u64::from(times.saturating_sub(1)),
        Fault::Lose { .. } | Fault::Wipe { .. } | Fault::FlipBit { .. } | Fault::ClockJump { .. } => 0,
    }
}

impl Victims {
    fn node(&self, id: u64) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id == NodeId(id))
    }

    /// Strikes; what has to wait waits until `end` at most.
    fn strike(self: &Arc<Self>, fault: Fault, end: Instant) {
        match fault {
            Fault::Crash { node, down_ms } => self.on(node, |node| node.end(Ending::PowerLost, millis(down_ms))),
            Fault::Kill { node, down_ms } => self.on(node, |node| node.end(Ending::Killed, millis(down_ms))),
            Fault::PowerOffAfter { node, operations, down_ms } => {
                self.on(node, |node| node.power_off_after(operations, millis(down_ms)));
            }
            Fault::CrashInRecovery { node, down_ms, operations } => {
                self.on(node, |node| node.crash_in_recovery(operations, millis(down_ms)));
            }
            Fault::Lose { node, heedless: true } => self.on(node, |node| node.lose()),
            Fault::Lose { node, heedless: false } => self.once_bearable(node, end, |node| node.lose()),
            Fault::Wipe { node } => self.once_bearable(node, end, |node| node.wipe()),
            Fault::Panic { node, actor, times } => self.panic(node, actor, times),
            Fault::Cut { from, to, for_ms } => self.cut(vec![(NodeId(from), NodeId(to))], for_ms),
            Fault::Partition { side, for_ms } => self.cut(self.across(|node| side.contains(&node)), for_ms),
            Fault::Bridge { node, for_ms } => self.bridge(node, for_ms),
            Fault::Weather { drop, repeat, delay_ms, for_ms } => {
                let delay_us = (self.weather.delay_us.0, self.weather.delay_us.1.max(delay_ms * 1_000));
                let (drop, repeat) = (u64::from(drop), u64::from(repeat));
                self.network.set_weather(Weather { drop, repeat, delay_us, reorders: true });
                let victims = Arc::clone(self);
                later(for_ms, move || victims.network.set_weather(victims.weather));
            }
            Fault::SyncFails { node, operations, down_ms } => {
                self.on(node, |node| node.fail_sync_after(operations, millis(down_ms)));
            }
            Fault::FullDisk { node, for_ms } => {
                self.on(node, |node| {
                    let disk = node.disk();
                    disk.set_capacity(disk.used_bytes());
                    later(for_ms, move || disk.set_capacity(u64::MAX));
                });
            }
            Fault::SlowDisk { node, factor, for_ms } => {
                self.on(node, |node| {
                    let pace = Arc::clone(&node.pace);
                    pace.slow(u64::from(factor));
                    later(for_ms, move || pace.slow(1));
                });
            }
            Fault::FlipBit { node, file, place } => self.flip(node, file, place),
            Fault::ClockJump { node, by_ms } => self.on(node, |node| node.clock.jump(by_ms.saturating_mul(1_000_000))),
        }
    }

    fn on(&self, node: u64, strike: impl FnOnce(&Arc<Node>)) {
        if let Some(node) = self.node(node).filter(|node| node.fate() == Fate::Lives) {
            strike(node);
        }
    }

    /// What takes all that a node holds waits until every group can bear that.
    fn once_bearable(self: &Arc<Self>, node: u64, end: Instant, strike: impl Fn(&Node) + Send + 'static) {
        let Some(node) = self.node(node).map(Arc::clone) else { return };
        let (victims, deadline) = (Arc::clone(self), end.min(Instant::now() + LOSS_PATIENCE));
        tokio::spawn(async move {
            let mut waited = false;
            while Instant::now() < deadline {
                if membership::can_bear(&victims.nodes, &node) {
                    strike(&node);
                    return;
                }
                if !std::mem::replace(&mut waited, true) {
                    victims.observed.saw("loss put off");
                }
                sleep(LOSS_LOOK).await;
            }
            victims.observed.trace.line(format_args!("n{} is not lost: something could be lost with it", node.id));
            victims.observed.saw("loss skipped");
        });
    }

    fn panic(&self, node: u64, actor: String, times: u32) {
        self.on(node, |node| {
            if VITAL.contains(&actor.as_str()) {
                node.expect_end();
            }
            let (node, observed) = (Arc::clone(node), Arc::clone(&self.observed));
            tokio::spawn(async move {
                for _ in 0..times {
                    if let Some(up) = node.up() {
                        let crashed = up.site.tree.crash(&actor);
                        observed.trace.line(format_args!("n{} {actor} told to panic: {}", node.id, crashed.is_ok()));
                    }
                    sleep(PANICS_APART).await;
                }
            });
        });
    }

    fn across(&self, inside: impl Fn(u64) -> bool) -> Vec<(NodeId, NodeId)> {
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| inside(from.0) != inside(to.0)).collect()
    }

    fn bridge(self: &Arc<Self>, node: u64, for_ms: u64) {
        let others: Vec<u64> = self.nodes.iter().map(|node| node.id.0).filter(|id| *id != node).collect();
        let half = &others[..others.len() / 2];
        let across = self.across(|id| half.contains(&id));
        self.cut(across.into_iter().filter(|(from, to)| from.0 != node && to.0 != node).collect(), for_ms);
    }

    fn cut(self: &Arc<Self>, directions: Vec<(NodeId, NodeId)>, for_ms: u64) {
        self.network.cut(&directions);
        let network = self.network.clone();
        later(for_ms, move || network.heal(&directions));
    }

    fn flip(&self, node: u64, file: FileKind, place: u32) {
        self.on(node, |node| {
            if !node.is_damaged() && !membership::can_bear(&self.nodes, node) {
                self.observed.trace.line("no bit is turned: something could be lost with it");
                self.observed.saw("damage skipped");
                return;
            }
            let disk = node.disk();
            let paths = disk.paths(match file {
                FileKind::Segment => ".blocks",
                FileKind::Snapshot => "snapshot-",
            });
            let Some(path) = paths.get(place as usize % paths.len().max(1)) else {
                self.observed.trace.line("no such file to turn a bit of");
                return;
            };
            let length = disk.file_bytes(path).unwrap_or(0);
            let offset = length * u64::from(place % 1_000) / 1_000;
            self.observed.allow_damage();
            node.expect_damage();
            let flipped = disk.flip_bit(path, offset, (place % 8) as u8);
            self.observed.trace.line(format_args!("n{} {path} bit of byte {offset} turned: {flipped}", node.id));
        });
    }
}

fn later(ms: u64, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(millis(ms)).await;
        what();
    });
}
