//! Everything that is seen of a run while it goes on: the trace, what replicas apply and who leads, panics, and how often
//! rare things happened. It listens to the events that the product itself tells through `tracing`. What is told of members
//! and moves is `groups`' to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millpond::id::{NodeId, StoreId};
use millpond::storage::lossy::LossyDisk;
use millpond_actors::env::Frame;
use tracing::field::{Field, Visit};
use tracing::span;
use xxhash_rust::xxh3::xxh3_64;

use crate::copies;
use crate::groups::{Configuration, Groups};
use crate::trace::Trace;

/// Violations told of one run; more say nothing new.
const VIOLATIONS_MAX: usize = 20;
/// Rare things that a sweep must have met, each at least once.
pub const RARE: [&str; 51] = [
    "actor down",
    "actor restarted",
    "answer compared at rest",
    "answer compared under faults",
    "answer cut at its limit",
    "answer partial",
    "answer whole with a node away",
    "append refused or unanswered",
    "cluster formed",
    "crash in recovery",
    "crash while writing",
    "credit stall",
    "damage skipped",
    "damaged record refused",
    "damaged segment read elsewhere",
    "disk full",
    "drained node removed",
    "election",
    "election during recovery",
    "frame repeated",
    "idle node removed",
    "joint change under crash",
    "learner promoted",
    "loss put off",
    "loss skipped",
    "move cancelled",
    "move completed",
    "node joined",
    "node lost for good",
    "node wiped",
    "operation done",
    "operation given up",
    "operation refused",
    "part came again",
    "query out of time",
    "query refused",
    "query unanswered",
    "read refused",
    "rehoming completed",
    "rehoming overlapped another fault",
    "removed node ended itself",
    "segment sealed",
    "snapshot installed",
    "snapshot left aside",
    "store replaced",
    "sync failed",
    "tail closed",
    "tail cut off",
    "tail opened again",
    "tail with stages closed",
    "torn tail cut",
];

#[derive(Default)]
struct State {
    /// Term and payload digest of each committed entry, as first applied by anybody.
    applied: BTreeMap<(String, u64), (u64, u64, String)>,
    leaders: BTreeMap<(String, u64), String>,
    violations: Vec<String>,
    seen: BTreeMap<&'static str, u64>,
    /// Nodes that are recovering.
    recovering: u32,
    /// Panics with these words are part of a fault.
    damage_allowed: bool,
    groups: Groups,
    disks: BTreeMap<u64, LossyDisk>,
    damaged: BTreeSet<u64>,
    /// Nodes that do not form the cluster and have not taken part in it yet.
    spares: BTreeSet<u64>,
}

/// What is seen of one run.
pub struct Observed {
    /// The lines of the run.
    pub trace: Trace,
    state: Mutex<State>,
}

impl Observed {
    /// Nothing yet.
    pub fn new(trace: Trace) -> Self {
        let seen = RARE.iter().map(|rare| (*rare, 0)).collect();
        Self { trace, state: Mutex::new(State { seen, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise was broken.
    pub fn violation(&self, what: impl fmt::Display) {
        self.trace.line(format_args!("VIOLATION {what}"));
        let mut state = self.state();
        if state.violations.len() < VIOLATIONS_MAX {
            state.violations.push(what.to_string());
        }
    }

    /// Whether every promise was kept so far.
    pub fn holds(&self) -> bool {
        self.state().violations.is_empty()
    }

    /// A rare thing happened.
    pub fn saw(&self, rare: &'static str) {
        *self.state().seen.get_mut(rare).expect("every rare thing is listed") += 1;
    }

    /// Nodes whose disks hold turned bits may panic in redb, which trusts its files; the product catches that.
    pub fn allow_damage(&self) {
        self.state().damage_allowed = true;
    }

    /// A node waits outside the cluster: it must take part in nothing until [`Observed::taken_in`].
    pub fn outside(&self, node: NodeId) {
        let now = self.trace.elapsed();
        self.state().groups.outside(node.0, now);
    }

    /// A node that forms no cluster waits outside.
    pub fn spare(&self, node: NodeId) {
        self.outside(node);
        self.state().spares.insert(node.0);
    }

    /// Somebody asks for a node to be taken into the cluster, with the data folder that it has.
    pub fn taken_in(&self, node: NodeId) {
        self.state().groups.taken_in(node.0);
    }

    /// A node starts with this data folder, on this disk.
    pub fn starts(&self, node: NodeId, store: StoreId, disk: LossyDisk) {
        let mut state = self.state();
        state.groups.starts(node.0, store.0);
        state.disks.insert(node.0, disk);
    }

    /// A bit on the disk of a node is turned: what it holds from now on is not judged.
    pub fn damaged(&self, node: NodeId) {
        self.state().damaged.insert(node.0);
    }

    /// The life of a node ends.
    pub fn ended(&self, node: NodeId) {
        if self.state().groups.any_joint() {
            self.trace.line(format_args!("n{node} ends while members change"));
            self.saw("joint change under crash");
        }
    }

    /// Something goes wrong from now on, for so long.
    pub fn fault(&self, lasts: Duration) {
        let now = self.trace.elapsed();
        self.state().groups.fault(now, now + lasts);
    }

    /// A node begins or ends recovering.
    pub fn recovering(&self, begins: bool) {
        let mut state = self.state();
        state.recovering = if begins { state.recovering + 1 } else { state.recovering.saturating_sub(1) };
    }

    /// A frame is sent and arrives so many times.
    pub fn frame(&self, from: NodeId, to: NodeId, frame: &Frame, copies: usize) {
        if copies > 1 {
            self.saw("frame repeated");
        }
        let sum = xxh3_64(&frame.header) ^ xxh3_64(&frame.payload).rotate_left(1);
        let bytes = frame.header.len() + frame.payload.len();
        self.trace.line(format_args!("n{from} > n{to} {bytes} bytes {sum:016x} x{copies}"));
    }

    /// A panic somewhere in the process.
    pub fn panicked(&self, what: &str, place: &str) {
        let on_purpose = what.contains("crashed on purpose");
        let caught = self.state().damage_allowed && place.contains("redb");
        self.trace.line(format_args!("panic: {what}"));
        if !on_purpose && !caught {
            self.violation(format_args!("an actor panicked that nobody crashed: {what} at {place}"));
        }
    }

    /// Violations, and how often each rare thing happened.
    pub fn outcome(&self) -> (Vec<String>, BTreeMap<String, u64>) {
        let state = self.state();
        let seen = state.seen.iter().map(|(rare, times)| ((*rare).to_owned(), *times)).collect();
        (state.violations.clone(), seen)
    }

    fn event(&self, fields: &Fields) {
        match fields.message.as_str() {
            "applied" => self.applied(fields),
            "role changed" => self.role(fields),
            "actor is down" => self.saw("actor down"),
            "actor failed, it is started again" => self.saw("actor restarted"),
            "the cluster is formed" => self.saw("cluster formed"),
            "segment written" => self.saw("segment sealed"),
            "members changed" => self.members(fields),
            "a replica begins" => self.begins(fields),
            "snapshot installed" => self.installed(fields),
            "a replica has left this node" => {
                let (shard, id) = (fields.text("shard").unwrap_or_default(), fields.number("replica").unwrap_or(0));
                let wrong = self.state().groups.left(&shard, id);
                self.judged(wrong);
            }
            "a move began" => self.began(fields),
            "a move ended" => self.move_ended(fields),
            "a move was given up" => self.move_cancelled(fields),
            "a node changed" => self.node_changed(fields),
            "stored records are damaged, other replicas are asked" => self.saw("damaged segment read elsewhere"),
            "a snapshot is damaged and left aside" | "a snapshot of the metadata group is damaged and left aside" => {
                self.saw("snapshot left aside");
            }
            "a part came again" => self.saw("part came again"),
            "bulk waits for credit" => self.saw("credit stall"),
            "the disk is full: what is not vital waits for room" => self.saw("disk full"),
            _ => {}
        }
        self.trace.line(format_args!("{}{}", fields.message, fields.others));
    }

    /// A committed entry is the same wherever and whenever it is applied.
    fn applied(&self, fields: &Fields) {
        let (Some(shard), Some(index)) = (fields.text("shard"), fields.number("index")) else { return };
        let (term, sum) = (fields.number("term").unwrap_or(0), fields.number("sum").unwrap_or(0));
        let node = fields.text("node").unwrap_or_default();
        self.takes_part(fields, &shard);
        let first = {
            let mut state = self.state();
            let entry = state.applied.entry((shard.clone(), index)).or_insert((term, sum, node.clone()));
            entry.clone()
        };
        if (first.0, first.1) != (term, sum) {
            self.violation(format_args!(
                "committed: {shard} index {index} was applied with term {} on node {} and with term {term} and other \
                 content on node {node}",
                first.0, first.2
            ));
        }
    }

    /// A term has one leader.
    fn role(&self, fields: &Fields) {
        if fields.text("role").as_deref() != Some("Leader") {
            return;
        }
        let (Some(shard), Some(term)) = (fields.text("shard"), fields.number("term")) else { return };
        let node = fields.text("node").unwrap_or_default();
        self.takes_part(fields, &shard);
        self.saw("election");
        if self.state().recovering > 0 {
            self.saw("election during recovery");
        }
        let first = self.state().leaders.entry((shard.clone(), term)).or_insert(node.clone()).clone();
        if first != node {
            self.violation(format_args!("leader: {shard} has two leaders in term {term}, nodes {first} and {node}"));
        }
    }
}

/// What is told of groups and moves.
impl Observed {
    fn judged(&self, wrong: Option<String>) {
        if let Some(wrong) = wrong {
            self.violation(wrong);
        }
    }

    /// A node takes part in a group, which one outside must not.
    fn takes_part(&self, fields: &Fields, shard: &str) {
        let Some(node) = fields.number("node") else { return };
        let now = self.trace.elapsed();
        let wrong = self.state().groups.takes_part(node, shard, now);
        self.judged(wrong);
        let is_spare = self.state().spares.contains(&node);
        if is_spare && self.state().groups.joined(node) {
            self.saw("node joined");
        }
    }

    fn members(&self, fields: &Fields) {
        let (Some(shard), Some(index)) = (fields.text("shard"), fields.number("index")) else { return };
        let node = fields.text("node").unwrap_or_default();
        let (wrong, promoted) = self.state().groups.members(&shard, index, fields.configuration(), &node);
        self.judged(wrong);
        if promoted {
            self.saw("learner promoted");
        }
    }

    fn begins(&self, fields: &Fields) {
        let (Some(shard), Some(id)) = (fields.text("shard"), fields.number("replica")) else { return };
        let (Some(node), Some(index)) = (fields.number("node"), fields.number("index")) else { return };
        self.takes_part(fields, &shard);
        let (home, members) = {
            let mut state = self.state();
            let members = state.groups.begins(&shard, index, &fields.configuration(), &node.to_string());
            (state.groups.replica(node, &shard, id), members)
        };
        self.judged(home);
        self.judged(members);
    }

    /// Every file that came with a snapshot is what the snapshot says of it.
    fn installed(&self, fields: &Fields) {
        self.saw("snapshot installed");
        let (Some(shard), Some(node)) = (fields.text("shard"), fields.number("node")) else { return };
        let disk = {
            let state = self.state();
            state.disks.get(&node).filter(|_| !state.damaged.contains(&node)).cloned()
        };
        let wrong = disk.and_then(|disk| copies::unlike_its_snapshot(&disk, &shard));
        self.judged(wrong.map(|why| format!("copy: node {node} installed what it did not check: {why}")));
    }

    fn began(&self, fields: &Fields) {
        let (Some(id), Some(why)) = (fields.number("id"), fields.text("why")) else { return };
        let now = self.trace.elapsed();
        self.state().groups.began(id, &why, now);
    }

    fn move_ended(&self, fields: &Fields) {
        let (Some(id), Some(shard)) = (fields.number("id"), fields.text("shard")) else { return };
        let now = self.trace.elapsed();
        let (rare, wrong) = self.state().groups.ended(id, &shard, now);
        rare.into_iter().for_each(|rare| self.saw(rare));
        self.judged(wrong);
    }

    fn move_cancelled(&self, fields: &Fields) {
        if fields.number("id").is_some_and(|id| self.state().groups.cancelled(id)) {
            self.saw("move cancelled");
        }
    }

    fn node_changed(&self, fields: &Fields) {
        let (Some(node), Some(state)) = (fields.number("node"), fields.text("state")) else { return };
        let rare = self.state().groups.node(node, &state);
        if let Some(rare) = rare {
            self.saw(rare);
        }
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    values: BTreeMap<&'static str, String>,
    others: String,
}

impl Fields {
    fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.values.get(name)?.parse().ok()
    }

    /// The numbers in a field, whatever is around them.
    fn numbers(&self, name: &str) -> BTreeSet<u64> {
        let text = self.values.get(name).map_or("", String::as_str);
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    }

    /// The members of a group.
    fn configuration(&self) -> Configuration {
        Configuration {
            voters: self.numbers("voters"),
            outgoing: self.numbers("outgoing"),
            learners: self.numbers("learners"),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let value = format!("{value:?}");
            let _ = write!(self.others, " {}={value}", field.name());
            self.values.insert(field.name(), value);
        }
    }
}

/// Hands the product's own events over.
pub struct Listener(pub Arc<Observed>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("millpond")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.event(&fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
