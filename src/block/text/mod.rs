//! Lines as templates and variables: what most lines have in common is written once, and each variable of each template is
//! a column of its own. It does not know streams, times or metadata, nor in which order lines come.
//!
//! Columns of a block, with the number that their frames have:
//!
//! ```text
//! 10 templates     per template: varint length, and bytes, where byte 0 stands for a word and byte 1 for a quoted text
//! 11 kinds         per row: the number of its template, counted from 1, or 0 where it has none: the low byte of all rows,
//!                  and where there are more than 255 templates the high byte of all rows
//! 12 raw lengths   per line without a template: varint, its bytes
//! 13 raw           these lines, one after the other
//! 14 shapes  15 numbers  16 words  17 indexes  18 text lengths  19 texts
//!                  per template, in their order, and per variable of it, in the order of their places, the values of all
//!                  rows of the template, as [`values`] describes
//! ```
//!
//! A line has a template where at least [`TEMPLATE_ROWS_LEAST`] lines of the block have the same, and where that has no more
//! than `TEMPLATE_VARIABLES_MAX` variables. What varies in a line says [`cut`].

pub(super) mod cut;
mod find;
mod read;
mod values;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::column::put;
use super::frame::Column;
use crate::limits::TEMPLATE_ROWS_LEAST;
use cut::Span;
use values::Stores;

pub(super) use find::mark_pieces;
pub(super) use read::Text;

/// A template that some line has.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Its bytes in the buffer of templates.
    from: usize,
    to: usize,
    rows: u32,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Where the line ends in the buffer of lines.
    end: usize,
    /// Which of the templates seen, if any.
    template: Option<u32>,
    /// Where its variables begin in the buffer of spans.
    spans: usize,
}

/// Lines that are being collected; its buffers are used again for every block.
#[derive(Debug, Default)]
pub(super) struct TextEncoder {
    lines: Vec<u8>,
    rows: Vec<Row>,
    spans: Vec<Span>,
    templates: Vec<u8>,
    seen: Vec<Seen>,
    /// By the hash of a template's bytes.
    known: BTreeMap<u64, u32>,
    written: Written,
}

/// The columns of a block.
#[derive(Debug, Default)]
struct Written {
    templates: Vec<u8>,
    kinds: Vec<u8>,
    raw: Vec<u8>,
    raw_lengths: Vec<u8>,
    stores: Stores,
}

impl TextEncoder {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &[u8]) {
        let (spans, from) = (self.spans.len(), self.templates.len());
        self.lines.extend_from_slice(line);
        let template = if cut::cut(line, &mut self.templates, &mut self.spans) { self.template(from) } else { None };
        if template.is_none() {
            self.spans.truncate(spans);
            self.templates.truncate(from);
        }
        self.rows.push(Row { end: self.lines.len(), template, spans });
    }

    /// The number of the template whose bytes stand at the end of the buffer, which keeps them where it is new.
    fn template(&mut self, from: usize) -> Option<u32> {
        let hash = xxh3_64(&self.templates[from..]);
        if let Some(known) = self.known.get(&hash) {
            let seen = &mut self.seen[*known as usize];
            let same = self.templates[seen.from..seen.to] == self.templates[from..];
            seen.rows += u32::from(same);
            self.templates.truncate(from);
            return same.then_some(*known);
        }
        let number = u32::try_from(self.seen.len()).expect("no more templates than rows");
        self.known.insert(hash, number);
        self.seen.push(Seen { from, to: self.templates.len(), rows: 1 });
        Some(number)
    }

    /// Writes the columns of the lines.
    pub(super) fn write(&mut self) -> Vec<(Column, &[u8])> {
        let numbers = self.choose();
        let count = numbers.iter().flatten().count();
        let mut of: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut kinds = Vec::with_capacity(self.rows.len());
        let mut start = 0;
        for (at, row) in self.rows.iter().enumerate() {
            let number = row.template.and_then(|template| numbers[template as usize]);
            match number {
                Some(number) => of[number].push(at),
                None => {
                    put(&mut self.written.raw_lengths, (row.end - start) as u64);
                    self.written.raw.extend_from_slice(&self.lines[start..row.end]);
                }
            }
            kinds.push(number.map_or(0, |number| number + 1));
            start = row.end;
        }
        for plane in 0..if count > 255 { 2 } else { 1 } {
            self.written.kinds.extend(kinds.iter().map(|kind| (kind >> (8 * plane)).to_le_bytes()[0]));
        }
        for (seen, number) in self.seen.iter().zip(&numbers) {
            if let Some(number) = number {
                self.written.put_template(&self.templates[seen.from..seen.to]);
                let rows = &of[*number];
                let variables = cut::variables(&self.templates[seen.from..seen.to]);
                for variable in 0..variables {
                    let value = |row: &usize| {
                        let start = if *row == 0 { 0 } else { self.rows[row - 1].end };
                        let span = self.spans[self.rows[*row].spans + variable];
                        &self.lines[start + span.from as usize..start + span.to as usize]
                    };
                    self.written.stores.put(&rows.iter().map(value).collect::<Vec<_>>());
                }
            }
        }
        self.written.columns()
    }

    /// Per template seen its number in the block, where enough lines have it.
    fn choose(&self) -> Vec<Option<usize>> {
        let mut next = 0;
        let number = |seen: &Seen| {
            (seen.rows >= TEMPLATE_ROWS_LEAST).then(|| {
                next += 1;
                next - 1
            })
        };
        self.seen.iter().map(number).collect()
    }

    /// Forgets the lines.
    pub(super) fn clear(&mut self) {
        let Self { lines, rows, spans, templates, seen, known, written } = self;
        lines.clear();
        rows.clear();
        spans.clear();
        templates.clear();
        seen.clear();
        known.clear();
        written.clear();
    }
}

impl Written {
    fn put_template(&mut self, template: &[u8]) {
        put(&mut self.templates, template.len() as u64);
        self.templates.extend_from_slice(template);
    }

    fn columns(&self) -> Vec<(Column, &[u8])> {
        let [shapes, numbers, words, indexes, lengths, texts] = self.stores.all().map(Vec::as_slice);
        vec![
            (Column::Templates, &self.templates),
            (Column::Kinds, &self.kinds),
            (Column::RawLengths, &self.raw_lengths),
            (Column::Raw, &self.raw),
            (Column::Shapes, shapes),
            (Column::Numbers, numbers),
            (Column::Words, words),
            (Column::Indexes, indexes),
            (Column::TextLengths, lengths),
            (Column::Texts, texts),
        ]
    }

    fn clear(&mut self) {
        let Self { templates, kinds, raw, raw_lengths, stores } = self;
        [templates, kinds, raw, raw_lengths].into_iter().for_each(Vec::clear);
        stores.clear();
    }
}
