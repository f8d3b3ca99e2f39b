//! A history against every rule. What the rules say is at the head of `history.rs`.

use std::collections::BTreeMap;

use millpond::id::{Offset, ShardId};

use super::finding::{Findings, Rule};
use super::line::{After, By, Line};
use super::settle::settle;
use super::{Call, Event, Held, History, Outcome, Question, Request, Selected, Sent, Tail, counts};

pub(super) fn judge(history: &History) -> Vec<String> {
    let mut judge = Judge::new(history);
    judge.check_presence();
    judge.check_order();
    judge.check_reads();
    judge.check_local_reads();
    judge.check_searches();
    judge.check_tails();
    let mut windows = BTreeMap::new();
    for (shard, line) in &judge.lines {
        windows.extend(line.check(&mut judge.findings).map(|of_shard| (*shard, of_shard)));
    }
    counts::check(history, &windows, &judge.places, &mut judge.findings);
    judge.findings.into_sentences()
}

/// Where each id is held; the first place of one that is held twice.
pub(super) type Places = BTreeMap<u64, (ShardId, usize)>;

struct Judge<'a> {
    history: &'a History,
    lines: BTreeMap<ShardId, Line<'a>>,
    places: Places,
    findings: Findings,
}

impl<'a> Judge<'a> {
    fn new(history: &'a History) -> Self {
        let mut findings = Findings::default();
        let lines: BTreeMap<_, _> = settle(history, &mut findings)
            .into_iter()
            .map(|(shard, records)| (shard, Line::new(shard, records)))
            .collect();
        let mut places = Places::new();
        for (shard, line) in &lines {
            for (position, held) in line.records.iter().enumerate() {
                let first = *places.entry(held.id).or_insert((*shard, position));
                if first != (*shard, position) {
                    let (id, (there, offset)) = (held.id, first);
                    findings.add(Rule::Stored, || {
                        format!(
                            "id {id} is held twice, in {there} at offset {offset} and in {shard} at offset {position}"
                        )
                    });
                }
            }
        }
        Self { history, lines, places, findings }
    }

    /// Each record sent against where it is held, and what is held against what was sent.
    fn check_presence(&mut self) {
        for (sent_at, call) in &self.history.appends {
            for record in &call.asked.records {
                self.check_record(*sent_at, call, record);
            }
        }
        for (id, (shard, position)) in &self.places {
            if !self.history.sent.contains(id) {
                let told = || format!("{shard} holds id {id} at offset {position}, which nobody sent");
                self.findings.add(Rule::Stored, told);
            }
        }
    }

    fn check_record(&mut self, sent_at: Event, call: &Call<Request, Outcome>, record: &Sent) {
        let (id, producer) = (record.id, call.asked.producer);
        let Some((shard, position)) = self.places.get(&id).copied() else {
            if let Some(at) = call.stored() {
                self.findings.add(Rule::Stored, || {
                    format!(
                        "id {id} is held nowhere, though the request that producer {producer} sent at {sent_at} was \
                         answered as stored at {at}"
                    )
                });
            }
            return;
        };
        if let Some(at) = call.refused() {
            self.findings.add(Rule::Stored, || {
                format!(
                    "{shard} holds id {id} at offset {position}, though the request that producer {producer} sent at \
                     {sent_at} was refused at {at}"
                )
            });
        }
        if let Some(named) = record.shard.filter(|named| *named != shard) {
            let told = || format!("id {id}, sent at {sent_at} for {named}, is held in {shard} at offset {position}");
            self.findings.add(Rule::Stored, told);
        }
        let line = self.lines.get_mut(&shard).expect("places are of shards that have a line");
        let held = line.records[position].digest;
        if held != record.digest {
            let sent = record.digest;
            self.findings.add(Rule::Stored, || {
                format!(
                    "id {id} at offset {position} of {shard} has bytes of digest {held:#x}, but producer {producer} \
                     sent {sent:#x} at {sent_at}"
                )
            });
        }
        line.came_after(position, sent_at, After::Sent { producer });
        if let Some(at) = call.stored() {
            line.was_there_by(position, at, By::Stored { producer, sent: sent_at });
        }
    }

    /// The order within a request, for each stream and shard.
    fn check_order(&mut self) {
        for (sent_at, call) in &self.history.appends {
            let mut lasts: BTreeMap<(u64, ShardId), (u64, usize)> = BTreeMap::new();
            for record in &call.asked.records {
                let Some((shard, position)) = self.places.get(&record.id).copied() else { continue };
                let last = lasts.insert((record.stream, shard), (record.id, position));
                if let Some((before, behind)) = last.filter(|(_, last)| *last > position) {
                    let (id, stream, producer) = (record.id, record.stream, call.asked.producer);
                    self.findings.add(Rule::Order, || {
                        format!(
                            "producer {producer} sent id {before} before id {id} in stream {stream} of its request of \
                             {sent_at}, but {shard} holds them at offsets {behind} and {position}"
                        )
                    });
                }
            }
        }
    }

    fn check_reads(&mut self) {
        for (began, call) in &self.history.reads {
            let Question { node, shard, from } = call.asked;
            let (Some((returned, view)), Some(line)) = (&call.answer, self.lines.get_mut(&shard)) else { continue };
            let told = format!("the read of {shard} on node {node} from offset {from}, from {began} to {returned},");
            let (held, end) = (line.records.len(), position(view.end));
            if end > held {
                let told = || format!("{told} saw it end at offset {end}, but in the end it ends at offset {held}");
                self.findings.add(Rule::Read, told);
            }
            if !view.ids.is_empty() && position(from).saturating_add(view.ids.len()) > end {
                let shown = view.ids.len();
                let told = || format!("{told} showed {shown} records, which is beyond its own end at offset {end}");
                self.findings.add(Rule::Read, told);
            }
            if let Some(difference) = difference(line.records, from, &view.ids) {
                self.findings.add(Rule::Read, || format!("{told} {difference}"));
            }
            line.came_after(end, *began, After::Unread { node, end });
            if let Some(last) = end.min(held).checked_sub(1) {
                line.was_there_by(last, *returned, By::Read { node, began: *began });
            }
        }
    }

    fn check_local_reads(&mut self) {
        for read in &self.history.local_reads {
            let (Question { node, shard, from }, at) = (read.asked, read.returned);
            let Some(line) = self.lines.get_mut(&shard) else { continue };
            if let Some(difference) = difference(line.records, from, &read.ids) {
                self.findings.add(Rule::Read, || {
                    format!("the local read of {shard} on node {node} from offset {from}, at {at}, {difference}")
                });
            } else if let Some(last) = read.ids.len().checked_sub(1) {
                line.was_there_by(position(from).saturating_add(last), at, By::Local { node });
            }
        }
    }

    fn check_searches(&mut self) {
        let stored = stored(self.history);
        for (began, call) in &self.history.searches {
            let (id, Some((returned, found))) = (call.asked, &call.answer) else { continue };
            if *found > 1 {
                let told = || format!("the search for id {id}, from {began} to {returned}, found it {found} times");
                self.findings.add(Rule::Search, told);
            }
            self.check_found(Rule::Search, id, *found > 0, (*began, *returned), &stored);
        }
        for (began, call) in &self.history.queries {
            let Some((returned, Selected { found, missed })) = &call.answer else { continue };
            for (ids, shown) in [(found, true), (missed, false)] {
                for id in ids {
                    self.check_found(Rule::Query, *id, shown, (*began, *returned), &stored);
                }
            }
        }
    }

    /// One record that a search or a query showed or did not.
    fn check_found(&mut self, rule: Rule, id: u64, found: bool, call: (Event, Event), stored: &BTreeMap<u64, Event>) {
        let (began, returned) = call;
        let told = |what: &str| format!("the {rule} for id {id}, from {began} to {returned}, {what}");
        let Some((shard, position)) = self.places.get(&id) else {
            if found {
                self.findings.add(rule, || told("found it, but no shard holds it in the end"));
            } else if let Some(at) = stored.get(&id).filter(|at| **at < began) {
                self.findings.add(rule, || told(&format!("did not find it, though it was answered as stored at {at}")));
            }
            return;
        };
        let line = self.lines.get_mut(shard).expect("places are of shards that have a line");
        if found {
            line.was_there_by(*position, returned, By::Found { began });
        } else {
            line.came_after(*position, began, After::Unfound);
        }
    }

    fn check_tails(&mut self) {
        for (opened, tail) in &self.history.tails {
            self.check_tail(*opened, tail);
        }
    }

    fn check_tail(&mut self, opened: Event, tail: &Tail) {
        let mut next = tail.start.clone();
        for shown in &tail.shown {
            let (at, shard, offset, id) = (shown.at, shown.shard, shown.offset, shown.id);
            let passed = next.insert(shard, Offset(offset.0.saturating_add(1))).unwrap_or_default();
            let expected = self.next_wanted(tail, shard, passed);
            if offset != expected {
                let how = match offset {
                    _ if offset > expected => "left out",
                    _ if offset < passed => "went back from",
                    _ => "wanted next",
                };
                self.findings.add(Rule::Tail, || {
                    format!(
                        "the tail of {opened} {how} offset {expected} of {shard}: at {at} it showed offset {offset}"
                    )
                });
            }
            let Some(line) = self.lines.get_mut(&shard) else { continue };
            if let Some(difference) = difference(line.records, offset, &[id]) {
                self.findings.add(Rule::Tail, || format!("the tail of {opened}, in {shard} at {at}, {difference}"));
            } else {
                line.was_there_by(position(offset), at, By::Tailed { opened });
            }
        }
        let Some((at, cursors)) = &tail.closed else { return };
        for (shard, cursor) in cursors {
            let reached = next.get(shard).copied().unwrap_or_default();
            if reached != *cursor {
                self.findings.add(Rule::Tail, || {
                    format!(
                        "the tail of {opened} was closed at {at} with offset {cursor} of {shard} next, but it had shown \
                         the shard up to offset {reached}"
                    )
                });
            }
        }
    }

    /// The offset of the next record that a tail is to show, from one on.
    fn next_wanted(&self, tail: &Tail, shard: ShardId, from: Offset) -> Offset {
        let (Some(wanted), Some(line)) = (&tail.wanted, self.lines.get(&shard)) else { return from };
        let held = line.records.iter().skip(position(from));
        let before = held.take_while(|held| !wanted.contains(&held.id)).count() as u64;
        Offset(from.0.saturating_add(before))
    }
}

/// When each record was answered as stored.
fn stored(history: &History) -> BTreeMap<u64, Event> {
    let calls = history.appends.values().filter_map(|call| Some((call, call.stored()?)));
    calls.flat_map(|(call, at)| call.asked.records.iter().map(move |record| (record.id, at))).collect()
}

/// The first of the ids shown from an offset on that the shard does not hold there.
fn difference(records: &[Held], from: Offset, ids: &[u64]) -> Option<String> {
    let from = position(from);
    let held = |at: usize| from.checked_add(at).and_then(|at| records.get(at)).map(|held| held.id);
    let (at, id) = ids.iter().enumerate().find(|(at, id)| held(*at) != Some(**id))?;
    let offset = from.saturating_add(at);
    Some(match held(at) {
        Some(other) => format!("showed id {id} at offset {offset}, where the shard holds id {other}"),
        None => format!("showed id {id} at offset {offset}, where the shard holds nothing in the end"),
    })
}

/// An offset as a place in a list; one past every list where it is too large for that.
fn position(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(usize::MAX)
}
