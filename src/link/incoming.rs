//! What arrives on a link: each frame at most once, fragments put together, credit counted. It does not know what the
//! messages mean.

use bytes::Bytes;

use super::envelope::{Header, Kind, Lane};
use super::error::LinkError;
use crate::id::ShardId;

/// How far a frame may arrive behind a newer one; older ones cannot be told from repeats.
const WINDOW: u64 = 128;

/// A message whose last fragment has not come.
#[derive(Debug)]
struct Partial {
    message: u64,
    next: u32,
    buffer: Vec<u8>,
}

/// The receiving half of one life of the peer.
///
/// Invariant: at most one partial message per stream (Raft, calls), each at most `MESSAGE_BYTES_MAX`, so a peer makes
/// this node hold at most twice that.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The highest sequence seen, and which of the `WINDOW` up to it were.
    highest: u64,
    seen: u128,
    /// Bytes taken off each lane, in the sender's count.
    pub(super) received: [u64; 2],
    /// What the heartbeat before said had been sent by then.
    promised: [u64; 2],
    /// The sequences of that heartbeat, and of the one before it.
    heartbeat: u64,
    judged: u64,
    /// Frames that came: those between the two, and those behind the later one. What comes from before both was judged
    /// lost already; counted here it would hide a later loss.
    came: [u64; 2],
    /// Frames that had not come by the heartbeat after the one that they were sent before.
    pub(super) missed: u64,
    partials: [Option<Partial>; 2],
    /// Bytes that the sender charged and that never came.
    pub(super) lost: u64,
    /// Messages that lost a fragment.
    pub(super) torn: u64,
}

impl Incoming {
    /// Refuses a frame that came before.
    pub(super) fn admit(&mut self, sequence: u64) -> Result<(), LinkError> {
        if self.highest == 0 {
            // What a life sent before it was met is nobody's loss.
            self.heartbeat = sequence.saturating_sub(1);
            self.judged = self.heartbeat;
        }
        self.admit_once(sequence)?;
        if sequence > self.judged {
            self.came[usize::from(sequence > self.heartbeat)] += 1;
        }
        Ok(())
    }

    fn admit_once(&mut self, sequence: u64) -> Result<(), LinkError> {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 };
            self.seen |= 1;
            self.highest = sequence;
            return Ok(());
        }
        let behind = self.highest - sequence;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return Err(LinkError::Repeated { sequence });
        }
        self.seen |= 1 << behind;
        Ok(())
    }

    /// Counts a frame of a lane: what the sender charged up to it has come, or is overtaken.
    pub(super) fn count(&mut self, lane: Lane, sent: [u64; 2]) {
        let lane = lane as usize;
        self.received[lane] = self.received[lane].max(sent[lane]);
    }

    /// Forgives what was lost: all that was sent before the heartbeat before this one has come by now or never will.
    /// Whether frames were lost that were not known to be before.
    pub(super) fn heartbeat(&mut self, sequence: u64, sent: [u64; 2]) -> bool {
        if sequence <= self.heartbeat {
            return false;
        }
        let missed = (self.heartbeat - self.judged).saturating_sub(self.came[0]);
        self.missed += missed;
        let overtaking = self.overtaking(sequence);
        self.came = [self.came[1].saturating_sub(overtaking), overtaking];
        self.judged = self.heartbeat;
        for lane in 0..2 {
            let promised = if mutant!(CreditNotReturned) { 0 } else { self.promised[lane] };
            let lost = promised.saturating_sub(self.received[lane]);
            self.lost += lost;
            self.received[lane] += lost;
        }
        self.heartbeat = sequence;
        self.promised = sent;
        missed > 0
    }

    /// Frames that came though they were sent behind this one.
    fn overtaking(&self, sequence: u64) -> u64 {
        let behind = self.highest.saturating_sub(sequence);
        let newer = if behind < WINDOW { self.seen & ((1 << behind) - 1) } else { self.seen };
        u64::from(newer.count_ones())
    }

    /// Takes one fragment; the message, once it is whole.
    pub(super) fn assemble(&mut self, header: &Header, payload: Bytes) -> Result<Option<Bytes>, LinkError> {
        header.check(payload.len())?;
        if header.fragments == 1 {
            return Ok(Some(payload));
        }
        let stream = usize::from(header.kind != Kind::Raft);
        if header.fragment == 0 {
            let mut buffer = Vec::with_capacity(header.length as usize);
            buffer.extend_from_slice(&payload);
            let replaced = self.partials[stream].replace(Partial { message: header.message, next: 1, buffer });
            self.torn += u64::from(replaced.is_some());
            return Ok(None);
        }
        let torn = LinkError::Torn { message: header.message };
        let Some(mut partial) = self.partials[stream].take_if(|partial| partial.message == header.message) else {
            return Err(torn);
        };
        if partial.next != header.fragment {
            self.torn += 1;
            return Err(torn);
        }
        partial.next += 1;
        partial.buffer.extend_from_slice(&payload);
        if partial.next == header.fragments {
            return Ok(Some(Bytes::from(partial.buffer)));
        }
        self.partials[stream] = Some(partial);
        Ok(None)
    }

    /// Gives up messages that are not whole: the connection they came on is gone.
    pub(super) fn forget_partials(&mut self) {
        for partial in &mut self.partials {
            self.torn += u64::from(partial.take().is_some());
        }
    }
}

/// Cuts a batch of Raft messages without copying them.
pub(super) fn split_batch(batch: &Bytes) -> Result<Vec<(ShardId, Bytes)>, LinkError> {
    let mut messages = Vec::new();
    let mut at = 0;
    while at < batch.len() {
        let broken = LinkError::Batch { at, length: batch.len() };
        let Some((head, rest)) = batch[at..].split_first_chunk::<8>() else {
            return Err(broken);
        };
        let shard = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > rest.len() {
            return Err(broken);
        }
        messages.push((ShardId(shard), batch.slice(at + 8..at + 8 + length)));
        at += 8 + length;
    }
    Ok(messages)
}
