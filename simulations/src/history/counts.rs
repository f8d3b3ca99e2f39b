//! Counts of a producer's records over all shards, against when each record can have come in.

use std::collections::BTreeMap;

use millpond::id::ShardId;

use super::finding::{Findings, Rule};
use super::judge::Places;
use super::line::Window;
use super::{Event, History};

/// When records of one producer can have come in, and when they must have, each in order.
#[derive(Debug, Default)]
struct Presence {
    possible: Vec<Event>,
    certain: Vec<Event>,
}

/// Checks each count against the records, and against the counts before it.
pub(super) fn check(
    history: &History,
    windows: &BTreeMap<ShardId, Vec<Window>>,
    places: &Places,
    findings: &mut Findings,
) {
    let producers = presences(history, windows, places);
    let none = Presence::default();
    for (began, call) in &history.counts {
        let (producer, Some((returned, count))) = (call.asked, &call.answer) else { continue };
        let presence = producers.get(&producer).unwrap_or(&none);
        let least = below(&presence.certain, *began);
        let most = below(&presence.possible, *returned);
        if !(least..=most).contains(count) {
            findings.add(Rule::Count, || {
                format!(
                    "the count of producer {producer}, from {began} to {returned}, was {count}, but at least {least} of \
                     its records were there before it began and at most {most} before it was answered"
                )
            });
        }
    }
    check_rise(history, findings);
}

/// A record has the window that its client knows where its shard gives none: the shard's order contradicts itself, or a
/// stored record is lost. Both are reported elsewhere.
fn presences(history: &History, windows: &BTreeMap<ShardId, Vec<Window>>, places: &Places) -> BTreeMap<u64, Presence> {
    let mut producers: BTreeMap<u64, Presence> = BTreeMap::new();
    for (sent_at, call) in &history.appends {
        let presence = producers.entry(call.asked.producer).or_default();
        for record in &call.asked.records {
            let known = Window { after: *sent_at, by: call.stored() };
            let window = match places.get(&record.id) {
                Some((shard, position)) => windows.get(shard).map_or(known, |of_shard| of_shard[*position]),
                None if known.by.is_some() => known,
                None => continue,
            };
            presence.possible.push(window.after);
            presence.certain.extend(window.by);
        }
    }
    for presence in producers.values_mut() {
        presence.possible.sort_unstable();
        presence.certain.sort_unstable();
    }
    producers
}

/// Shards only grow, so that of two counts one after the other the later is not the smaller.
fn check_rise(history: &History, findings: &mut Findings) {
    let answered = history.counts.values().filter_map(|call| {
        let (at, count) = call.answer.as_ref()?;
        Some((*at, call.asked, *count))
    });
    let mut answered: Vec<(Event, u64, u64)> = answered.collect();
    answered.sort_unstable();
    let mut earlier = answered.into_iter().peekable();
    let mut highest: BTreeMap<u64, (u64, Event)> = BTreeMap::new();
    for (began, call) in &history.counts {
        while let Some((at, producer, count)) = earlier.next_if(|(at, _, _)| at < began) {
            let most = highest.entry(producer).or_insert((count, at));
            *most = (*most).max((count, at));
        }
        let (producer, Some((returned, count))) = (call.asked, &call.answer) else { continue };
        if let Some((most, at)) = highest.get(&producer).filter(|(most, _)| most > count) {
            findings.add(Rule::Count, || {
                format!(
                    "the count of producer {producer}, from {began} to {returned}, was {count}, after one was {most} at \
                     {at}"
                )
            });
        }
    }
}

fn below(sorted: &[Event], event: Event) -> u64 {
    sorted.partition_point(|at| *at < event) as u64
}
