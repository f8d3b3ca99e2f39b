//! The values of one variable of one template: how they are stored, and read one by one. It does not know of lines.
//!
//! In the column of shapes, per variable, a byte and what follows it:
//!
//! ```text
//! 0 same    varint length and bytes of the one value
//! 1 number  varint digits (0: none begins with a zero; else all have so many), varint least value, u8 bytes of a number:
//!           the column of numbers holds what is above the least, the low byte of each, then the next byte of each, and so on
//! 2 steps   the same, where numbers holds the difference to the value before (to the least, for the first), zigzag-coded
//! 3 words   varint number of distinct values, u8 bytes of an index: the column of words holds varint length and bytes of
//!           each, that of indexes the index of each value, in the same planes of bytes
//! 4 text    the column of text lengths holds the varint length of each value, texts the values one after the other
//! ```
//!
//! Numbers have at most 18 digits, and at most 65,536 values are distinct words.

use std::collections::BTreeMap;

use super::super::column::{Reader, put, unzigzag, zigzag};

const SAME: u8 = 0;
const NUMBER: u8 = 1;
const STEPS: u8 = 2;
const WORDS: u8 = 3;
const TEXT: u8 = 4;
/// Digits of a number; 10^18 fits a signed number.
const DIGITS_MAX: usize = 18;
/// Digits of any number of 64 bits, which damaged values may be.
const NUMBER_BYTES_MAX: usize = 20;
/// Distinct values that are looked up by an index.
const WORDS_MAX: usize = 1 << 16;
/// Values come as steps where the mean step is so many times smaller than their range.
const STEPS_FROM: u64 = 16;

/// The columns that values are written to and read from.
#[derive(Debug, Default)]
pub(super) struct Stores {
    pub(super) shapes: Vec<u8>,
    pub(super) numbers: Vec<u8>,
    pub(super) words: Vec<u8>,
    pub(super) indexes: Vec<u8>,
    pub(super) lengths: Vec<u8>,
    pub(super) texts: Vec<u8>,
}

impl Stores {
    pub(super) fn all(&self) -> [&Vec<u8>; 6] {
        [&self.shapes, &self.numbers, &self.words, &self.indexes, &self.lengths, &self.texts]
    }

    pub(super) fn clear(&mut self) {
        let Self { shapes, numbers, words, indexes, lengths, texts } = self;
        [shapes, numbers, words, indexes, lengths, texts].into_iter().for_each(Vec::clear);
    }

    /// Writes the values of one variable, of which there is at least one.
    pub(super) fn put(&mut self, values: &[&[u8]]) {
        let first = values[0];
        if values.iter().all(|value| *value == first) {
            self.shapes.push(SAME);
            put_bytes(&mut self.shapes, first);
        } else if let Some((digits, numbers)) = numbers(values) {
            self.put_numbers(digits, &numbers);
        } else if let Some((words, indexes)) = words(values) {
            self.put_words(&words, &indexes);
        } else {
            self.shapes.push(TEXT);
            for value in values {
                put(&mut self.lengths, value.len() as u64);
                self.texts.extend_from_slice(value);
            }
        }
    }

    fn put_numbers(&mut self, digits: usize, numbers: &[u64]) {
        let (least, most) = numbers.iter().fold((u64::MAX, 0), |(least, most), v| (least.min(*v), most.max(*v)));
        let steps: Vec<u64> =
            numbers.iter().scan(least, |before, v| Some(step(std::mem::replace(before, *v), *v))).collect();
        let sum: u128 = steps.iter().map(|step| u128::from(step >> 1)).sum();
        let mean = sum / steps.len() as u128;
        let (range, widest) = (most - least, steps.iter().copied().max().unwrap_or(0));
        let in_steps = width(widest) < width(range) || mean < u128::from(range / STEPS_FROM);
        let bytes = width(if in_steps { widest } else { range });
        self.shapes.push(if in_steps { STEPS } else { NUMBER });
        put(&mut self.shapes, digits as u64);
        put(&mut self.shapes, least);
        self.shapes.push(bytes);
        if in_steps {
            planes(&mut self.numbers, bytes, &steps, 0);
        } else {
            planes(&mut self.numbers, bytes, numbers, least);
        }
    }

    fn put_words(&mut self, words: &[&[u8]], indexes: &[u64]) {
        let bytes = width(words.len() as u64 - 1);
        self.shapes.push(WORDS);
        put(&mut self.shapes, words.len() as u64);
        self.shapes.push(bytes);
        words.iter().for_each(|word| put_bytes(&mut self.words, word));
        planes(&mut self.indexes, bytes, indexes, 0);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The signed difference of two numbers below 2^63, zigzag.
fn step(from: u64, to: u64) -> u64 {
    zigzag(to.wrapping_sub(from).cast_signed())
}

fn unstep(from: u64, step: u64) -> u64 {
    from.wrapping_add(unzigzag(step).cast_unsigned())
}

/// Bytes that a number takes.
fn width(value: u64) -> u8 {
    (8 - value.leading_zeros() as u8 / 8).max(1)
}

fn planes(out: &mut Vec<u8>, bytes: u8, values: &[u64], least: u64) {
    for plane in 0..bytes {
        out.extend(values.iter().map(|value| ((value - least) >> (8 * plane)).to_le_bytes()[0]));
    }
}

/// The values as numbers, where they can be written back from them.
fn numbers(values: &[&[u8]]) -> Option<(usize, Vec<u64>)> {
    let len = values[0].len();
    let alike = values.iter().all(|value| value.len() == len);
    let mut padded = false;
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        if value.is_empty() || value.len() > DIGITS_MAX {
            return None;
        }
        padded |= value[0] == b'0' && value.len() > 1;
        let mut number = 0;
        for byte in *value {
            number = number * 10 + u64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        out.push(number);
    }
    (alike || !padded).then_some((if padded { len } else { 0 }, out))
}

/// The distinct values in the order in which they come first, and the index of each value, where that is worth it.
fn words<'a>(values: &[&'a [u8]]) -> Option<(Vec<&'a [u8]>, Vec<u64>)> {
    let most = (values.len() / 4 + 1).min(WORDS_MAX);
    let mut known: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut words = Vec::new();
    let mut indexes = Vec::with_capacity(values.len());
    for value in values {
        let index = *known.entry(value).or_insert_with(|| {
            words.push(*value);
            words.len() as u64 - 1
        });
        if words.len() > most {
            return None;
        }
        indexes.push(index);
    }
    Some((words, indexes))
}

/// The values of one variable, ready to be read by their position.
#[derive(Debug)]
pub(super) enum Values {
    /// A range of the shapes.
    Same(usize, usize),
    /// Digits that every number has, or 0, and the numbers.
    Numbers(usize, Vec<u64>),
    /// Ranges in the words, and the index of each value among them.
    Words(Vec<(u32, u32)>, Vec<u32>),
    /// Where the first value begins, and the end of each in the texts.
    Texts(u32, Vec<u32>),
}

/// How far the stores are read.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    shapes: usize,
    numbers: usize,
    words: usize,
    indexes: usize,
    lengths: usize,
    texts: usize,
}

impl Cursor {
    /// The next variable's `count` values; `None` where the stores do not hold them.
    pub(super) fn values(&mut self, stores: &Stores, count: usize) -> Option<Values> {
        let mut shapes = Reader(stores.shapes.get(self.shapes..)?);
        let kind = shapes.byte()?;
        let values = match kind {
            SAME => {
                let len = usize::try_from(shapes.varint()?).ok()?;
                let from = stores.shapes.len() - shapes.0.len();
                shapes.take(len)?;
                Values::Same(from, from + len)
            }
            NUMBER | STEPS => {
                let digits = usize::try_from(shapes.varint()?).ok().filter(|digits| *digits <= DIGITS_MAX)?;
                let (least, bytes) = (shapes.varint()?, shapes.byte()?);
                let mut numbers = read_planes(&stores.numbers, &mut self.numbers, bytes, count)?;
                if kind == NUMBER {
                    numbers.iter_mut().for_each(|value| *value = value.wrapping_add(least));
                } else {
                    let mut before = least;
                    for value in &mut numbers {
                        before = unstep(before, *value);
                        *value = before;
                    }
                }
                Values::Numbers(digits, numbers)
            }
            WORDS => {
                let (distinct, bytes) = (usize::try_from(shapes.varint()?).ok()?, shapes.byte()?);
                let words = self.words(stores, distinct.min(WORDS_MAX + 1))?;
                let indexes = read_planes(&stores.indexes, &mut self.indexes, bytes, count)?;
                let known = |index: u64| u32::try_from(index).ok().filter(|index| (*index as usize) < words.len());
                let indexes = indexes.into_iter().map(known).collect::<Option<_>>()?;
                Values::Words(words, indexes)
            }
            TEXT => self.texts(stores, count)?,
            _ => return None,
        };
        self.shapes = stores.shapes.len() - shapes.0.len();
        Some(values)
    }

    fn words(&mut self, stores: &Stores, distinct: usize) -> Option<Vec<(u32, u32)>> {
        let mut reader = Reader(stores.words.get(self.words..)?);
        let mut words = Vec::new();
        for _ in 0..distinct {
            let len = usize::try_from(reader.varint()?).ok()?;
            let from = stores.words.len() - reader.0.len();
            reader.take(len)?;
            words.push((u32::try_from(from).ok()?, u32::try_from(from + len).ok()?));
        }
        self.words = stores.words.len() - reader.0.len();
        Some(words)
    }

    fn texts(&mut self, stores: &Stores, count: usize) -> Option<Values> {
        let mut lengths = Reader(stores.lengths.get(self.lengths..)?);
        let first = self.texts;
        let mut ends = Vec::with_capacity(count);
        for _ in 0..count {
            self.texts = self.texts.checked_add(usize::try_from(lengths.varint()?).ok()?)?;
            ends.push(u32::try_from(self.texts).ok()?);
        }
        self.lengths = stores.lengths.len() - lengths.0.len();
        (self.texts <= stores.texts.len()).then_some(Values::Texts(u32::try_from(first).ok()?, ends))
    }

    /// Whether the stores hold nothing else.
    pub(super) fn is_at_end(&self, stores: &Stores) -> bool {
        let read = [self.shapes, self.numbers, self.words, self.indexes, self.lengths, self.texts];
        let Stores { shapes, numbers, words, indexes, lengths, texts } = stores;
        read == [shapes, numbers, words, indexes, lengths, texts].map(Vec::len)
    }
}

fn read_planes(from: &[u8], at: &mut usize, bytes: u8, count: usize) -> Option<Vec<u64>> {
    let bytes = usize::from(bytes);
    if !(1..=8).contains(&bytes) {
        return None;
    }
    let end = at.checked_add(bytes.checked_mul(count)?)?;
    let planes = from.get(*at..end)?;
    *at = end;
    let mut out = vec![0_u64; count];
    for (number, plane) in planes.chunks_exact(count.max(1)).enumerate() {
        for (value, byte) in out.iter_mut().zip(plane) {
            *value |= u64::from(*byte) << (8 * number);
        }
    }
    Some(out)
}

impl Values {
    /// Bytes of the longest value, or more.
    pub(super) fn longest(&self) -> usize {
        match self {
            Self::Same(from, to) => to - from,
            Self::Numbers(..) => NUMBER_BYTES_MAX,
            Self::Words(words, _) => words.iter().map(|(from, to)| (to - from) as usize).max().unwrap_or(0),
            Self::Texts(first, ends) => {
                let starts = std::iter::once(first).chain(ends);
                ends.iter().zip(starts).map(|(end, start)| (end - start) as usize).max().unwrap_or(0)
            }
        }
    }

    /// Appends the value at a position.
    pub(super) fn write(&self, stores: &Stores, at: usize, out: &mut Vec<u8>) {
        match self {
            Self::Same(from, to) => out.extend_from_slice(&stores.shapes[*from..*to]),
            Self::Numbers(digits, numbers) => write_number(numbers[at], *digits, out),
            Self::Words(words, indexes) => {
                let (from, to) = words[indexes[at] as usize];
                out.extend_from_slice(&stores.words[from as usize..to as usize]);
            }
            Self::Texts(first, ends) => {
                let from = if at == 0 { *first } else { ends[at - 1] };
                out.extend_from_slice(&stores.texts[from as usize..ends[at] as usize]);
            }
        }
    }
}

/// Appends a number with at least so many digits.
pub(super) fn write_number(mut number: u64, digits: usize, out: &mut Vec<u8>) {
    let mut buffer = [b'0'; NUMBER_BYTES_MAX];
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[at.min(buffer.len() - digits)..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(columns: &[Vec<String>]) -> (Vec<u8>, Vec<Vec<String>>) {
        let mut stores = Stores::default();
        let mut kinds = Vec::new();
        for column in columns {
            kinds.push(stores.shapes.len());
            stores.put(&column.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
        let kinds = kinds.into_iter().map(|at| stores.shapes[at]).collect();
        let mut cursor = Cursor::default();
        let read = columns.iter().map(|column| {
            let values = cursor.values(&stores, column.len()).unwrap();
            let text = |at| {
                let mut out = Vec::new();
                values.write(&stores, at, &mut out);
                String::from_utf8(out).unwrap()
            };
            (0..column.len()).map(text).collect()
        });
        let read = read.collect();
        assert!(cursor.is_at_end(&stores));
        (kinds, read)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn values_are_stored_by_what_they_look_like_and_come_back() {
        let columns = [
            (SAME, texts(&["a1", "a1"])),
            (NUMBER, texts(&["0", "17", "999999999999999999"])),
            (NUMBER, texts(&["007", "118", "000"])),
            (STEPS, (0..100).map(|at| (5_000_000 + at * 3).to_string()).collect()),
            (WORDS, texts(&["a", "b", "a", "b", "a", "b", "a", "a"])),
            (TEXT, texts(&["07", "8", "9"])),
            (TEXT, texts(&["x1", "", "é3"])),
            (TEXT, texts(&["1234567890123456789", "1"])),
        ];
        let (kinds, read) = back(&columns.iter().map(|(_, column)| column.clone()).collect::<Vec<_>>());
        assert_eq!(kinds, columns.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
        assert_eq!(read, columns.map(|(_, column)| column));
    }

    #[test]
    fn the_largest_numbers_in_the_wildest_order_come_back() {
        let column: Vec<String> = (0..300_u64).map(|at| (at % 2 * 999_999_999_999_999_998 + 1).to_string()).collect();
        let (kinds, read) = back(std::slice::from_ref(&column));
        assert_eq!((kinds, read), (vec![NUMBER], vec![column]));
    }

    proptest! {
        #[test]
        fn any_values_come_back(columns in prop::collection::vec(
            prop_oneof![
                prop::collection::vec("[0-9]{1,20}", 1..40),
                prop::collection::vec("[0-9]{3}", 1..40),
                prop::collection::vec("[ab]{1,2}", 1..40),
                prop::collection::vec(any::<String>(), 1..40),
            ], 0..6)) {
            let (_, read) = back(&columns);
            prop_assert_eq!(read, columns);
        }

        #[test]
        fn arbitrary_stores_never_panic(bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 6), count in 0_usize..20) {
            let [shapes, numbers, words, indexes, lengths, texts] = <[Vec<u8>; 6]>::try_from(bytes).unwrap();
            let stores = Stores { shapes, numbers, words, indexes, lengths, texts };
            let mut cursor = Cursor::default();
            while let Some(values) = cursor.values(&stores, count) {
                (0..count).for_each(|at| values.write(&stores, at, &mut Vec::new()));
            }
        }
    }
}
