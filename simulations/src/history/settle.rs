//! What a shard holds in the end: the replicas compared with each other, and the one by which all else is judged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use millpond::id::{NodeId, ShardId};

use super::finding::{Findings, Rule};
use super::{Held, History};

/// Compares the replicas of each shard, and gives the content by which everything else is judged: the longest that is
/// contiguous.
pub(super) fn settle<'a>(history: &'a History, findings: &mut Findings) -> BTreeMap<ShardId, &'a [Held]> {
    let mut settled = BTreeMap::new();
    for (shard, replicas) in &history.contents {
        let counted = replicas.iter().filter(|(node, _)| !history.excluded.contains(&(*shard, **node)));
        let counted: Vec<(NodeId, &[Held], bool)> = counted
            .map(|(node, records)| (*node, records.as_slice(), check_contiguous(*node, *shard, records, findings)))
            .collect();
        let Some(best) = counted.iter().max_by_key(|(node, records, whole)| (*whole, records.len(), Reverse(*node)))
        else {
            continue;
        };
        for other in counted.iter().filter(|other| other.0 != best.0) {
            compare(*shard, (best.0, best.1), (other.0, other.1), findings);
        }
        settled.insert(*shard, best.1);
    }
    let sent = history.appends.values().filter(|call| call.refused().is_none());
    let named = sent.flat_map(|call| call.asked.records.iter().filter_map(|record| record.shard));
    let read = history.reads.values().map(|call| call.asked.shard);
    let shown = history.tails.values().flat_map(|tail| tail.shown.iter().map(|shown| shown.shard));
    let local = history.local_reads.iter().map(|read| read.asked.shard);
    let known: BTreeSet<ShardId> = named.chain(read).chain(shown).chain(local).collect();
    for shard in known.iter().filter(|shard| !settled.contains_key(shard)) {
        findings.add(Rule::Replicas, || format!("no replica says what {shard} holds in the end"));
    }
    settled
}

fn check_contiguous(node: NodeId, shard: ShardId, records: &[Held], findings: &mut Findings) -> bool {
    let Some((expected, held)) = (0..).zip(records).find(|(expected, held)| held.offset.0 != *expected) else {
        return true;
    };
    let (offset, id) = (held.offset, held.id);
    findings.add(Rule::Replicas, || {
        format!("node {node} holds id {id} at offset {offset} of {shard}, where offset {expected} comes next")
    });
    false
}

/// Reports the first difference of two replicas, of which the second is not the longer unless it has a gap.
fn compare(shard: ShardId, best: (NodeId, &[Held]), other: (NodeId, &[Held]), findings: &mut Findings) {
    let ((node, records), (other, others)) = (best, other);
    let differ = records.iter().zip(others).find(|(record, other)| record != other);
    if let Some((left, right)) = differ {
        let held = |held: &Held| format!("id {} of digest {:#x} at offset {}", held.id, held.digest, held.offset);
        let (left, right) = (held(left), held(right));
        findings.add(Rule::Replicas, || format!("in {shard} node {node} holds {left}, but node {other} {right}"));
    } else if records.len() != others.len() {
        let (count, others) = (records.len(), others.len());
        findings.add(Rule::Replicas, || {
            format!("of {shard} node {node} holds {count} records, but node {other} holds {others}")
        });
    }
}
