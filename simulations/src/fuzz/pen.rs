//! Draws, and damage: what is done to good bytes to make them hostile. It does not know what the bytes mean.

use millpond::storage::lossy::Draws;

/// The longest input that damage makes of a shorter one.
pub(super) const INPUT_BYTES_MAX: usize = 64 << 10;
/// Damages to one input, at most.
const DAMAGES_MAX: u64 = 6;

/// A stream of draws.
#[derive(Clone, Debug)]
pub(super) struct Pen(Draws);

impl Pen {
    pub(super) fn new(draws: Draws) -> Self {
        Self(draws)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).expect("below a number of that type")
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.0.below(times) == 0
    }

    /// One of several, of which there is at least one.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Small numbers mostly, and those at which something ends.
    pub(super) fn number(&mut self) -> u64 {
        let power = 1_u64 << self.0.below(64);
        match self.0.below(6) {
            0 => self.0.below(4),
            1 => self.0.below(300),
            2 => power,
            3 => power - 1,
            4 => u64::MAX - self.0.below(3),
            _ => self.0.draw() & (power | (power - 1)),
        }
    }

    /// The same with a sign.
    pub(super) fn signed(&mut self) -> i64 {
        let number = self.number();
        match self.0.below(4) {
            0 => (number & (u64::MAX >> 1)).cast_signed().wrapping_neg(),
            1 => i64::MIN.wrapping_add((number & 3).cast_signed()),
            2 => i64::MAX - (number & 3).cast_signed(),
            _ => number.cast_signed(),
        }
    }

    /// Damages bytes in a few places, with words that mean something to their reader and parts of other good inputs.
    pub(super) fn damage(&mut self, bytes: &mut Vec<u8>, words: &[&[u8]], others: &[&[u8]]) {
        let times = if self.one_in(4) { 1 + self.0.below(DAMAGES_MAX) } else { 1 };
        for _ in 0..times {
            match self.0.below(10) {
                0 => self.flip(bytes),
                1 => self.set_byte(bytes),
                2 => self.set_number(bytes),
                3 => self.remove(bytes),
                4 => self.repeat(bytes),
                5 => self.cut(bytes),
                6 | 7 if !words.is_empty() => self.insert_word(bytes, words),
                8 if !others.is_empty() => self.splice(bytes, others),
                9 => self.exchange(bytes),
                _ => self.insert_noise(bytes),
            }
        }
        bytes.truncate(2 * INPUT_BYTES_MAX);
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            bytes[self.below(bytes.len())] ^= 1 << self.0.below(8);
        }
    }

    fn set_byte(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let byte = self.number().to_le_bytes()[0];
            bytes[self.below(bytes.len())] = byte;
        }
    }

    /// A number of one to eight bytes, the lowest or the highest first, or as a varint.
    fn set_number(&mut self, bytes: &mut Vec<u8>) {
        let number = self.number();
        let width = 1 << self.0.below(4);
        let encoded = match self.0.below(3) {
            0 => number.to_le_bytes()[..width].to_vec(),
            1 => number.to_be_bytes()[8 - width..].to_vec(),
            _ => varint(number),
        };
        let at = self.below(bytes.len() + 1);
        let end = (at + encoded.len()).min(bytes.len());
        bytes.splice(at..end, encoded);
    }

    /// A range of at most so many bytes.
    fn range(&mut self, len: usize, most: usize) -> std::ops::Range<usize> {
        let at = self.below(len + 1);
        let most = if self.one_in(4) { most } else { most.min(16) };
        at..at + self.below((len - at).min(most) + 1)
    }

    fn remove(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes.len(), bytes.len());
        bytes.drain(range);
    }

    /// Twice mostly, and now and then a thousand times.
    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes.len(), 256);
        let piece = bytes[range.clone()].to_vec();
        let times = if self.one_in(6) { 1 + self.below(1_024) } else { 1 + self.below(3) };
        let room = INPUT_BYTES_MAX.saturating_sub(bytes.len()) / piece.len().max(1);
        bytes.splice(range.end..range.end, piece.repeat(times.min(room)));
    }

    fn cut(&mut self, bytes: &mut Vec<u8>) {
        bytes.truncate(self.below(bytes.len() + 1));
    }

    /// Once, many times, or twice around something: what opens and closes nests.
    fn insert_word(&mut self, bytes: &mut Vec<u8>, words: &[&[u8]]) {
        let word = self.pick(words);
        let times = if self.one_in(12) { 1 + self.below(400) } else { 1 };
        let range = if self.one_in(3) { self.range(bytes.len(), 8) } else { self.range(bytes.len(), 0) };
        bytes.splice(range, word.repeat(times));
        if times > 1 && self.one_in(2) {
            let close = self.pick(words).repeat(times);
            let at = self.below(bytes.len() + 1);
            bytes.splice(at..at, close);
        }
    }

    fn splice(&mut self, bytes: &mut Vec<u8>, others: &[&[u8]]) {
        let other = self.pick(others);
        let piece = self.range(other.len(), other.len().min(2_048));
        let range = self.range(bytes.len(), 64);
        bytes.splice(range, other[piece].iter().copied());
    }

    fn exchange(&mut self, bytes: &mut Vec<u8>) {
        let first = self.range(bytes.len(), 32);
        let piece: Vec<u8> = bytes.drain(first).collect();
        let at = self.below(bytes.len() + 1);
        bytes.splice(at..at, piece);
    }

    fn insert_noise(&mut self, bytes: &mut Vec<u8>) {
        let len = 1 + self.below(8);
        let noise: Vec<u8> = (0..len).map(|_| self.draw().to_le_bytes()[0]).collect();
        let at = self.below(bytes.len() + 1);
        bytes.splice(at..at, noise);
    }
}

/// As protobuf writes numbers.
pub(super) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}
