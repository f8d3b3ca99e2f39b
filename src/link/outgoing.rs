//! What leaves on a link: two lanes of queues with bounds, cut into frames, each frame paid for with credit. It does
//! not know when a link is up.
//!
//! Credit is counted, not passed: the sender counts the bytes it ever charged, the receiver those it ever took off,
//! and both travel in every header. What is outstanding is the difference, so a lost grant is made good by the next.

use std::collections::VecDeque;

use bytes::Bytes;

use super::envelope::{Kind, Lane, fragments_of};
use super::error::LinkError;
use crate::id::ShardId;
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, LINK_CONTROL_QUEUE_MAX, LINK_LETTERS_MAX, LINK_QUEUE_BYTES_MAX,
};

/// Shard and length before each Raft message of a batch.
pub(super) const RAFT_PREFIX_BYTES: usize = 8;

/// A frame ready to go, but for what only the link knows.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) lane: Lane,
    pub(super) kind: Kind,
    pub(super) code: u8,
    pub(super) call: u64,
    pub(super) message: u64,
    pub(super) fragment: u32,
    pub(super) fragments: u32,
    pub(super) length: u32,
    pub(super) payload: Bytes,
}

/// A request, an answer or a fault.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) kind: Kind,
    pub(super) code: u8,
    pub(super) call: u64,
    pub(super) body: Bytes,
}

/// How far the front of a queue has been sent.
#[derive(Clone, Copy, Debug)]
struct Progress {
    message: u64,
    fragment: u32,
}

/// The sending half of one life of this end.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What each lane may have on its way.
    pub(super) credit_bytes: u64,
    control: VecDeque<(ShardId, Bytes)>,
    control_bytes: usize,
    raft: VecDeque<(ShardId, Bytes)>,
    raft_progress: Option<Progress>,
    letters: VecDeque<Letter>,
    letter_progress: Option<Progress>,
    bulk_bytes: usize,
    letters_next: bool,
    messages: u64,
    /// Bytes charged to each lane, and how many of them the peer has taken off.
    pub(super) sent: [u64; 2],
    acknowledged: [u64; 2],
}

impl Outgoing {
    pub(super) fn new(credit_bytes: usize) -> Self {
        Self { credit_bytes: credit_bytes as u64, ..Self::default() }
    }

    /// Queues a Raft message; `false` if there is no room and it is dropped. One too big for a frame is never control.
    pub(super) fn raft(&mut self, shard: ShardId, message: Bytes, control: bool) -> bool {
        let bytes = RAFT_PREFIX_BYTES + message.len();
        if control && bytes <= FRAME_BYTES_MAX {
            if self.control.len() >= LINK_CONTROL_QUEUE_MAX || self.control_bytes + bytes > LINK_QUEUE_BYTES_MAX {
                return false;
            }
            self.control_bytes += bytes;
            self.control.push_back((shard, message));
            return true;
        }
        if self.bulk_bytes + bytes > LINK_QUEUE_BYTES_MAX {
            return false;
        }
        self.bulk_bytes += bytes;
        self.raft.push_back((shard, message));
        true
    }

    /// Queues a letter; `false` if there is no room. Faults are counted, not weighed: where an answer finds no room its
    /// fault still does.
    pub(super) fn letter(&mut self, letter: Letter) -> bool {
        let bytes = FRAME_OVERHEAD_BYTES + letter.body.len();
        let full = if letter.kind == Kind::Fault {
            self.letters.len() >= LINK_LETTERS_MAX
        } else {
            self.bulk_bytes + bytes > LINK_QUEUE_BYTES_MAX
        };
        if full {
            return false;
        }
        self.bulk_bytes += bytes;
        self.letters.push_back(letter);
        true
    }

    /// Takes back a request of which nothing has left; `false` if it is gone or on its way.
    pub(super) fn take_back(&mut self, call: u64) -> bool {
        let begun = usize::from(self.letter_progress.is_some());
        let mut letters = self.letters.iter().enumerate().skip(begun);
        let Some((at, _)) = letters.find(|(_, letter)| letter.kind == Kind::Request && letter.call == call) else {
            return false;
        };
        let letter = self.letters.remove(at).expect("its position was just found");
        self.bulk_bytes -= FRAME_OVERHEAD_BYTES + letter.body.len();
        true
    }

    /// Whether nothing of a request has left.
    pub(super) fn holds_request(&self, call: u64) -> bool {
        let begun = usize::from(self.letter_progress.is_some());
        self.letters.iter().skip(begun).any(|letter| letter.kind == Kind::Request && letter.call == call)
    }

    /// Empties the queues: how many Raft messages are dropped, and the calls whose request was still whole in there.
    pub(super) fn clear(&mut self) -> (u64, Vec<u64>) {
        let dropped = self.control.len() + self.raft.len();
        let begun = usize::from(self.letter_progress.is_some());
        let requests = self.letters.iter().skip(begun).filter(|letter| letter.kind == Kind::Request);
        let unsent = requests.map(|letter| letter.call).collect();
        self.control.clear();
        self.raft.clear();
        self.letters.clear();
        (self.raft_progress, self.letter_progress) = (None, None);
        (self.control_bytes, self.bulk_bytes) = (0, 0);
        (dropped as u64, unsent)
    }

    /// Takes the peer's count of what it took off each lane.
    pub(super) fn acknowledge(&mut self, received: [u64; 2]) -> Result<(), LinkError> {
        for (&received, &sent) in received.iter().zip(&self.sent) {
            if received > sent {
                return Err(LinkError::Credit { received, sent });
            }
        }
        for (acknowledged, received) in self.acknowledged.iter_mut().zip(received) {
            *acknowledged = (*acknowledged).max(received);
        }
        Ok(())
    }

    /// Nothing sent so far will be acknowledged any more, or need be: the peer or the connection is another.
    pub(super) fn forgive(&mut self) {
        self.acknowledged = self.sent;
    }

    /// Bytes on their way in a lane.
    pub(super) const fn outstanding(&self, lane: Lane) -> u64 {
        self.sent[lane as usize] - self.acknowledged[lane as usize]
    }

    /// Bytes that wait.
    pub(super) const fn queued(&self) -> usize {
        self.control_bytes + self.bulk_bytes
    }

    /// The next frame that has credit, control first. Of bulk the two streams go in turn; one that waits for credit
    /// keeps its turn, so that the small frames of the other cannot starve it.
    pub(super) fn next(&mut self) -> Option<Cut> {
        if let Some(cut) = self.next_control() {
            return Some(cut);
        }
        let letters = !self.letters.is_empty() && (self.letters_next || self.raft.is_empty());
        let cut = if letters { self.next_letter() } else { self.next_raft() };
        if cut.is_some() {
            self.letters_next = !letters;
        }
        cut
    }

    fn pay(&mut self, lane: Lane, payload: usize) -> bool {
        let charge = (payload + FRAME_OVERHEAD_BYTES) as u64;
        if self.outstanding(lane) + charge > self.credit_bytes {
            return false;
        }
        self.sent[lane as usize] += charge;
        true
    }

    fn number(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    fn next_control(&mut self) -> Option<Cut> {
        let (count, bytes) = fitting(&self.control);
        if count == 0 || !self.pay(Lane::Control, bytes) {
            return None;
        }
        self.control_bytes -= bytes;
        let payload = pack(&mut self.control, count, bytes);
        Some(self.whole_batch(Lane::Control, payload))
    }

    fn next_raft(&mut self) -> Option<Cut> {
        let (count, bytes) = fitting(&self.raft);
        if count == 0 && self.raft.is_empty() {
            return None;
        }
        if count == 0 {
            return self.raft_fragment();
        }
        if !self.pay(Lane::Bulk, bytes) {
            return None;
        }
        self.bulk_bytes -= bytes;
        let payload = pack(&mut self.raft, count, bytes);
        Some(self.whole_batch(Lane::Bulk, payload))
    }

    fn whole_batch(&mut self, lane: Lane, payload: Bytes) -> Cut {
        let length = u32::try_from(payload.len()).expect("a batch fits a frame");
        let message = self.number();
        Cut { lane, kind: Kind::Raft, code: 0, call: 0, message, fragment: 0, fragments: 1, length, payload }
    }

    /// A part of a Raft message that is longer than a frame.
    fn raft_fragment(&mut self) -> Option<Cut> {
        let (shard, message) = self.raft.front()?.clone();
        let length = RAFT_PREFIX_BYTES + message.len();
        let fragment = self.raft_progress.map_or(0, |progress| progress.fragment);
        let from = fragment as usize * FRAME_BYTES_MAX;
        let through = (from + FRAME_BYTES_MAX).min(length);
        if !self.pay(Lane::Bulk, through - from) {
            return None;
        }
        let payload = if fragment == 0 {
            let mut bytes = Vec::with_capacity(through);
            prefix(&mut bytes, shard, &message);
            bytes.extend_from_slice(&message[..through - RAFT_PREFIX_BYTES]);
            Bytes::from(bytes)
        } else {
            message.slice(from - RAFT_PREFIX_BYTES..through - RAFT_PREFIX_BYTES)
        };
        let number = self.raft_progress.map_or_else(|| self.number(), |progress| progress.message);
        let fragments = u32::try_from(fragments_of(length)).expect("a message is bounded");
        self.raft_progress = Some(Progress { message: number, fragment: fragment + 1 });
        if fragment + 1 == fragments {
            self.raft_progress = None;
            self.raft.pop_front();
            self.bulk_bytes -= length;
        }
        let length = u32::try_from(length).expect("a message is bounded");
        let (lane, kind) = (Lane::Bulk, Kind::Raft);
        Some(Cut { lane, kind, code: 0, call: 0, message: number, fragment, fragments, length, payload })
    }

    fn next_letter(&mut self) -> Option<Cut> {
        let letter = self.letters.front()?;
        let (kind, code, call, body) = (letter.kind, letter.code, letter.call, letter.body.clone());
        let fragment = self.letter_progress.map_or(0, |progress| progress.fragment);
        let from = fragment as usize * FRAME_BYTES_MAX;
        let through = (from + FRAME_BYTES_MAX).min(body.len());
        if !self.pay(Lane::Bulk, through - from) {
            return None;
        }
        let message = self.letter_progress.map_or_else(|| self.number(), |progress| progress.message);
        let fragments = u32::try_from(fragments_of(body.len())).expect("a message is bounded");
        let length = u32::try_from(body.len()).expect("a message is bounded");
        self.letter_progress = Some(Progress { message, fragment: fragment + 1 });
        if fragment + 1 == fragments {
            self.letter_progress = None;
            self.letters.pop_front();
            self.bulk_bytes -= FRAME_OVERHEAD_BYTES + body.len();
        }
        let payload = if fragments == 1 { body } else { body.slice(from..through) };
        Some(Cut { lane: Lane::Bulk, kind, code, call, message, fragment, fragments, length, payload })
    }
}

/// How many messages from the front fit one frame, and their bytes with prefixes.
fn fitting(queue: &VecDeque<(ShardId, Bytes)>) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for (_, message) in queue {
        let more = RAFT_PREFIX_BYTES + message.len();
        if bytes + more > FRAME_BYTES_MAX {
            break;
        }
        (count, bytes) = (count + 1, bytes + more);
    }
    (count, bytes)
}

fn pack(queue: &mut VecDeque<(ShardId, Bytes)>, count: usize, bytes: usize) -> Bytes {
    let mut payload = Vec::with_capacity(bytes);
    for (shard, message) in queue.drain(..count) {
        prefix(&mut payload, shard, &message);
        payload.extend_from_slice(&message);
    }
    Bytes::from(payload)
}

fn prefix(into: &mut Vec<u8>, shard: ShardId, message: &Bytes) {
    into.extend_from_slice(&shard.0.to_le_bytes());
    into.extend_from_slice(&u32::try_from(message.len()).expect("a message is bounded").to_le_bytes());
}
