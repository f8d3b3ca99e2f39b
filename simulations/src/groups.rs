//! Who belongs to each group, and what moves: what replicas and nodes tell of it, held against itself. Members are
//! agreed upon like everything in a log, so that all replicas have the same at the same index; a replica id belongs to
//! one data folder for ever; a move ends only once its group has left every joint configuration, and no replica leaves
//! its node while it votes; a node outside the cluster runs nothing.
//!
//! It is handed what was told, in the order in which it happened, and answers with what is wrong. It does not know who
//! tells, nor what time it is beyond what it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The members of a group, as a replica tells of them: ids of replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes.
    pub voters: BTreeSet<u64>,
    /// The voters that a joint group comes from.
    pub outgoing: BTreeSet<u64>,
    /// Who only follows.
    pub learners: BTreeSet<u64>,
}

/// What a move is for, as it is told.
fn is_rehoming(why: &str) -> bool {
    why == "rehome" || why == "given-up"
}

#[derive(Debug)]
struct Move {
    began: Duration,
    rehomes: bool,
    over: bool,
}

/// All groups of a run.
#[derive(Debug, Default)]
pub struct Groups {
    /// By group, and by the entry that made them so.
    configurations: BTreeMap<String, BTreeMap<u64, Configuration>>,
    /// The data folder of each replica that ever started, by group and id.
    homes: BTreeMap<(String, u64), u128>,
    /// The data folder of each node now.
    stores: BTreeMap<u64, u128>,
    /// Nodes outside the cluster, and since when.
    outside: BTreeMap<u64, Duration>,
    moves: BTreeMap<u64, Move>,
    /// From when to when something else went wrong.
    faults: Vec<(Duration, Duration)>,
    draining: BTreeSet<u64>,
    known: BTreeSet<(u64, &'static str)>,
}

impl Groups {
    /// A node starts with this data folder.
    pub fn starts(&mut self, node: u64, store: u128) {
        self.stores.insert(node, store);
    }

    /// A node does not belong to the cluster from now on, until somebody asks for it.
    pub fn outside(&mut self, node: u64, now: Duration) {
        self.outside.insert(node, now);
    }

    /// Somebody asks for a node.
    pub fn taken_in(&mut self, node: u64) {
        self.outside.remove(&node);
    }

    /// What is wrong where a node takes part in a group. A life that ends does no more in the moment in which it ends.
    pub fn takes_part(&self, node: u64, shard: &str, now: Duration) -> Option<String> {
        let outside = self.outside.get(&node).is_some_and(|since| *since < now);
        outside
            .then(|| format!("outside: node {node} takes part in {shard}, though it was never taken into the cluster"))
    }

    /// A replica starts on a node. What is wrong with that.
    pub fn replica(&mut self, node: u64, shard: &str, id: u64) -> Option<String> {
        let store = *self.stores.get(&node)?;
        let first = *self.homes.entry((shard.to_owned(), id)).or_insert(store);
        let other = first != store;
        other.then(|| format!("identity: replica {id} of {shard} was started in two data folders, now on node {node}"))
    }

    /// The members of a group as of an entry, as one replica tells of them; what is wrong with them, and whether they
    /// made a learner a voter, for the first time that anybody tells.
    pub fn members(&mut self, shard: &str, index: u64, members: Configuration, node: &str) -> (Option<String>, bool) {
        let group = self.configurations.entry(shard.to_owned()).or_default();
        if let Some(known) = group.get(&index) {
            let other = *known != members;
            let wrong = || {
                format!("members: as of entry {index} of {shard} there are {known:?}, and on node {node} {members:?}")
            };
            return (other.then(wrong), false);
        }
        let before = group.range(..index).next_back().map(|(_, before)| before);
        let promoted = before.is_some_and(|before| before.learners.intersection(&members.voters).next().is_some());
        group.insert(index, members);
        (None, promoted)
    }

    /// The members of a group that a replica begins with, as of an index: some entry before made them so, or the group
    /// began with them. One that learns them from the log begins with none.
    pub fn begins(&mut self, shard: &str, index: u64, members: &Configuration, node: &str) -> Option<String> {
        if *members == Configuration::default() {
            return None;
        }
        if index == 0 {
            return self.members(shard, 0, members.clone(), node).0;
        }
        let group = self.configurations.get(shard)?;
        let (at, known) = group.range(..=index).next_back()?;
        (known != members).then(|| {
            format!(
                "members: a replica of {shard} on node {node} begins at {index} with {members:?}, but entry {at} made \
                 them {known:?}"
            )
        })
    }

    /// Whether a group goes from one set of voters to another, as far as anybody has told.
    fn is_joint(&self, shard: &str) -> bool {
        let last = self.configurations.get(shard).and_then(|group| group.last_key_value());
        last.is_some_and(|(_, members)| !members.outgoing.is_empty())
    }

    /// A replica has left its node for good. What is wrong with that.
    pub fn left(&self, shard: &str, id: u64) -> Option<String> {
        let (at, last) = self.configurations.get(shard)?.last_key_value()?;
        let votes = last.voters.contains(&id) || last.outgoing.contains(&id);
        votes.then(|| format!("placement: replica {id} of {shard} left its node, but votes as of entry {at}: {last:?}"))
    }

    /// Whether any group does.
    pub fn any_joint(&self) -> bool {
        self.configurations.keys().any(|shard| self.is_joint(shard))
    }

    /// Something goes wrong for so long.
    pub fn fault(&mut self, from: Duration, until: Duration) {
        self.faults.push((from, until));
    }

    /// A move began.
    pub fn began(&mut self, id: u64, why: &str, now: Duration) {
        self.moves.entry(id).or_insert(Move { began: now, rehomes: is_rehoming(why), over: false });
    }

    /// A move ended: what rare things that is, and what is wrong with it. Of all that tell of it the first counts.
    pub fn ended(&mut self, id: u64, shard: &str, now: Duration) -> (Vec<&'static str>, Option<String>) {
        let joint = self.is_joint(shard);
        let Some(over) = self.moves.get_mut(&id).filter(|under_way| !under_way.over) else { return (Vec::new(), None) };
        over.over = true;
        let mut rare = vec!["move completed"];
        if over.rehomes {
            rare.push("rehoming completed");
            if self.faults.iter().any(|(from, until)| *from <= now && *until >= over.began) {
                rare.push("rehoming overlapped another fault");
            }
        }
        let wrong = joint.then(|| format!("placement: move {id} of {shard} ended before its group was out of joint"));
        (rare, wrong)
    }

    /// A move was given up; whether that is news.
    pub fn cancelled(&mut self, id: u64) -> bool {
        let news = self.moves.get_mut(&id).filter(|under_way| !under_way.over);
        news.map(|under_way| under_way.over = true).is_some()
    }

    /// A node belongs to the cluster in another way: what rare thing that is, the first time that anybody tells.
    pub fn node(&mut self, node: u64, state: &str) -> Option<&'static str> {
        match state {
            "draining" => {
                self.draining.insert(node);
                None
            }
            "removed" => {
                let rare = if self.draining.contains(&node) { "drained node removed" } else { "idle node removed" };
                self.known.insert((node, "removed")).then_some(rare)
            }
            _ => {
                self.draining.remove(&node);
                None
            }
        }
    }

    /// A node takes part in its first group; whether that is news.
    pub fn joined(&mut self, node: u64) -> bool {
        self.known.insert((node, "joined"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Configuration {
        let set = |ids: &[u64]| ids.iter().copied().collect();
        Configuration { voters: set(voters), outgoing: set(outgoing), learners: set(learners) }
    }

    #[test]
    fn members_must_be_the_same_at_the_same_entry_and_where_a_replica_begins() {
        let mut groups = Groups::default();
        let learner = configuration(&[1, 2, 3], &[], &[4]);
        assert_eq!(groups.members("shard-0", 7, learner.clone(), "1"), (None, false));
        assert_eq!(groups.members("shard-0", 7, learner.clone(), "2"), (None, false));
        let joint = configuration(&[1, 2, 4], &[1, 2, 3], &[]);
        assert_eq!(groups.members("shard-0", 9, joint.clone(), "1"), (None, true));
        assert!(groups.members("shard-0", 9, learner.clone(), "3").0.unwrap().starts_with("members: "));
        assert_eq!(groups.begins("shard-0", 8, &learner, "4"), None);
        assert_eq!(groups.begins("shard-0", 6, &joint, "4"), None, "nothing is known of that");
        assert_eq!(groups.begins("shard-0", 8, &Configuration::default(), "4"), None, "it learns them");
        assert_eq!(groups.begins("shard-0", 0, &configuration(&[1, 2, 3], &[], &[]), "1"), None);
        assert!(groups.begins("shard-0", 0, &joint, "2").is_some(), "not what the group began with");
        assert!(groups.begins("shard-0", 8, &joint, "4").unwrap().contains("entry 7"));
        assert!(groups.any_joint());
    }

    #[test]
    fn a_move_counts_once_and_must_not_end_in_a_joint_group() {
        let mut groups = Groups::default();
        let second = Duration::from_secs;
        groups.fault(second(1), second(2));
        groups.began(1, "rehome", second(3));
        groups.began(1, "rehome", second(4));
        assert_eq!(groups.ended(1, "shard-0", second(5)), (vec!["move completed", "rehoming completed"], None));
        assert_eq!(groups.ended(1, "shard-0", second(5)), (Vec::new(), None));
        groups.began(2, "given-up", second(6));
        groups.fault(second(7), second(9));
        groups.members("shard-0", 9, configuration(&[1, 2, 4], &[1, 2, 3], &[]), "1");
        let (rare, wrong) = groups.ended(2, "shard-0", second(8));
        assert_eq!(rare, ["move completed", "rehoming completed", "rehoming overlapped another fault"]);
        assert!(wrong.unwrap().starts_with("placement: "));
        groups.began(3, "drain", second(9));
        assert!(groups.cancelled(3) && !groups.cancelled(3) && !groups.cancelled(4));
    }

    #[test]
    fn a_replica_that_votes_in_whatever_way_must_not_leave() {
        let mut groups = Groups::default();
        groups.members("shard-0", 9, configuration(&[1, 2, 4], &[1, 2, 3], &[5]), "1");
        assert!(groups.left("shard-0", 3).is_some() && groups.left("shard-0", 4).is_some());
        assert_eq!((groups.left("shard-0", 5), groups.left("shard-0", 6)), (None, None));
        groups.members("shard-0", 10, configuration(&[1, 2, 4], &[], &[]), "1");
        assert_eq!(groups.left("shard-0", 3), None);
    }

    #[test]
    fn a_replica_id_belongs_to_one_data_folder() {
        let mut groups = Groups::default();
        groups.starts(1, 100);
        groups.starts(2, 200);
        assert_eq!(groups.replica(1, "shard-0", 5), None);
        assert_eq!(groups.replica(1, "shard-0", 5), None);
        assert_eq!(groups.replica(2, "shard-1", 5), None, "ids are of one group");
        assert!(groups.replica(2, "shard-0", 5).unwrap().starts_with("identity: "));
        groups.starts(1, 101);
        assert!(groups.replica(1, "shard-0", 5).is_some(), "the same node with another folder");
    }

    #[test]
    fn a_node_outside_takes_part_in_nothing() {
        let mut groups = Groups::default();
        let (then, now) = (Duration::from_secs(1), Duration::from_secs(2));
        groups.outside(4, then);
        assert!(groups.takes_part(4, "metadata", now).is_some() && groups.takes_part(3, "metadata", now).is_none());
        assert!(groups.takes_part(4, "metadata", then).is_none(), "its last life was ending");
        groups.taken_in(4);
        assert!(groups.takes_part(4, "metadata", now).is_none());
        assert_eq!((groups.joined(4), groups.joined(4)), (true, false));
        assert_eq!((groups.node(4, "draining"), groups.node(4, "removed")), (None, Some("drained node removed")));
        assert_eq!(groups.node(4, "removed"), None);
    }
}
