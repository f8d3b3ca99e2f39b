//! The points in time at which the records of one shard can have come in.
//!
//! Each offset has one point, and points rise with offsets, since the order of the content is the order of events.
//! Whatever a call saw is a bound of such a point: what a read did not hold came in after the read began, and what it
//! held was there before the read returned. Points exist exactly if no offset has a lower bound at or above the upper
//! bound of the same or of a later offset: then each point can lie just above the highest lower bound up to its offset.

use millpond::id::{NodeId, ShardId};

use super::finding::{Findings, Rule};
use super::{Event, Held};

/// Why a record came in only after an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// It was sent then.
    Sent { producer: u64 },
    /// A read that began then did not hold it: its view ended at this offset.
    Unread { node: NodeId, end: usize },
    /// A search for it that began then did not find it.
    Unfound,
}

/// Why a record was there by an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// Its request was answered "stored".
    Stored { producer: u64, sent: Event },
    /// A read returned whose view ended behind it.
    Read { node: NodeId, began: Event },
    /// A search for it found it.
    Found { began: Event },
    /// A replica showed it.
    Local { node: NodeId },
    /// A tail showed it.
    Tailed { opened: Event },
}

/// Between which events a record came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) after: Event,
    pub(super) by: Option<Event>,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Line<'a> {
    shard: ShardId,
    pub(super) records: &'a [Held],
    after: Vec<Option<(Event, After)>>,
    by: Vec<Option<(Event, By)>>,
}

impl<'a> Line<'a> {
    pub(super) fn new(shard: ShardId, records: &'a [Held]) -> Self {
        Self { shard, records, after: vec![None; records.len()], by: vec![None; records.len()] }
    }

    /// The record at `position` came in after `event`; nothing is said where there is none.
    pub(super) fn came_after(&mut self, position: usize, event: Event, why: After) {
        if let Some(bound) = self.after.get_mut(position)
            && bound.is_none_or(|(highest, _)| highest < event)
        {
            *bound = Some((event, why));
        }
    }

    /// The record at `position` was there by `event`; nothing is said where there is none.
    pub(super) fn was_there_by(&mut self, position: usize, event: Event, why: By) {
        if let Some(bound) = self.by.get_mut(position)
            && bound.is_none_or(|(lowest, _)| lowest > event)
        {
            *bound = Some((event, why));
        }
    }

    /// Reports each lower bound that contradicts an upper one, with the first that it contradicts. Without any, gives
    /// the window of each record.
    pub(super) fn check(&self, findings: &mut Findings) -> Option<Vec<Window>> {
        let mut windows = Vec::with_capacity(self.records.len());
        let mut highest: Option<(usize, Event, After)> = None;
        let (mut told, mut sound) = (false, true);
        for (position, (after, by)) in self.after.iter().zip(&self.by).enumerate() {
            if let Some((event, why)) = *after
                && highest.is_none_or(|(_, highest, _)| highest < event)
            {
                (highest, told) = (Some((position, event, why)), false);
            }
            windows.push(Window { after: highest.map_or(Event::default(), |(_, event, _)| event), by: None });
            let (Some(lower), Some((event, why))) = (highest, *by) else { continue };
            if lower.1 >= event && !told {
                (told, sound) = (true, false);
                findings.add(Rule::Linearizable, || self.contradiction(lower, (position, event, why)));
            }
        }
        let mut lowest: Option<Event> = None;
        for (window, by) in windows.iter_mut().zip(&self.by).rev() {
            lowest = lowest.into_iter().chain(by.map(|(event, _)| event)).min();
            window.by = lowest;
        }
        sound.then_some(windows)
    }

    fn contradiction(&self, lower: (usize, Event, After), upper: (usize, Event, By)) -> String {
        let (at, after, why_after) = lower;
        let (behind, by, why_by) = upper;
        let late = match why_after {
            After::Sent { producer } => format!("producer {producer} sent it only then"),
            After::Unread { node, end } => format!("a read of node {node} that began then saw it end at offset {end}"),
            After::Unfound => "a search that began then did not find it".to_owned(),
        };
        let early = match why_by {
            By::Stored { producer, sent } => format!("the request that producer {producer} sent at {sent} was stored"),
            By::Read { node, began } => format!("a read of node {node} that began at {began} held it"),
            By::Found { began } => format!("a search that began at {began} found it"),
            By::Local { node } => format!("node {node} showed it from its own replica"),
            By::Tailed { opened } => format!("the tail of {opened} showed it"),
        };
        let (shard, id) = (self.shard, self.records[at].id);
        let there = match at == behind {
            true => "it was there".to_owned(),
            false => format!("id {} at offset {behind}, behind it, was there", self.records[behind].id),
        };
        format!("in {shard} id {id} at offset {at} came in after {after} ({late}), but {there} by {by} ({early})")
    }
}
