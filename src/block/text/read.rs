//! Reads lines back from their templates and variables. Whatever the bytes say, it ends with lines or with an error.

use super::super::BlockError;
use super::super::column::{Reader, read_lengths};
use super::super::frame::{Column, Container};
use super::cut::{QUOTED, WORD};
use super::values::{Cursor, Stores, Values};
use crate::limits::{BLOCK_INFLATED_BYTES_MAX, BLOCK_VALUES_MAX, TEMPLATE_VARIABLES_MAX, TEMPLATES_MAX};

/// One template: its constant parts, of which there is one more than there are variables.
#[derive(Debug)]
pub(super) struct Template {
    /// Ranges in the column of templates.
    pub(super) parts: Vec<(u32, u32)>,
    /// How many rows have it.
    pub(super) rows: usize,
    pub(super) values: Vec<Values>,
}

/// The lines of a block, ready to be rebuilt.
#[derive(Debug)]
pub(in super::super) struct Text {
    pub(super) texts: Vec<u8>,
    pub(super) templates: Vec<Template>,
    /// Per row its template, counted from 1, and its position among the rows of it, or among the lines without one.
    pub(super) rows: Vec<(u16, u32)>,
    pub(super) stores: Stores,
    pub(super) raw: Vec<u8>,
    /// The end of each line without a template.
    pub(super) raw_ends: Vec<u32>,
}

fn malformed(part: &'static str) -> BlockError {
    BlockError::Malformed { part }
}

impl Text {
    pub(in super::super) fn open(block: &Container) -> Result<Self, BlockError> {
        let count = block.head.rows as usize;
        let texts = block.column(Column::Templates)?;
        let mut templates = read_templates(&texts).ok_or(malformed("templates"))?;
        let kinds = block.column(Column::Kinds)?;
        let (rows, raw) = read_kinds(&kinds, count, &mut templates).ok_or(malformed("kinds"))?;
        let lengths = block.column(Column::RawLengths)?;
        let raw_ends = read_lengths(&lengths, raw).ok_or(malformed("raw lengths"))?;
        let raw = block.column(Column::Raw)?;
        if raw_ends.last().map_or(0, |end| *end as usize) != raw.len() {
            return Err(malformed("raw"));
        }
        let stores = Stores {
            shapes: block.column(Column::Shapes)?,
            numbers: block.column(Column::Numbers)?,
            words: block.column(Column::Words)?,
            indexes: block.column(Column::Indexes)?,
            lengths: block.column(Column::TextLengths)?,
            texts: block.column(Column::Texts)?,
        };
        read_values(&stores, &mut templates).ok_or(malformed("variables"))?;
        Ok(Self { texts, templates, rows, stores, raw, raw_ends })
    }

    /// The lines of some of the first `count` rows, ascending, one after the other; the end of each line of all of them, where
    /// those not asked for are empty.
    pub(in super::super) fn lines(
        &self,
        count: usize,
        rows: impl Iterator<Item = usize>,
    ) -> Result<(Vec<u32>, String), BlockError> {
        let mut out = Vec::new();
        let mut ends: Vec<u32> = Vec::with_capacity(count);
        for row in rows {
            ends.resize(row, end(out.len())?);
            self.write(row, &mut out);
            ends.push(end(out.len())?);
        }
        ends.resize(count, end(out.len())?);
        let text = String::from_utf8(out).map_err(|_| malformed("lines"))?;
        if ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
            Ok((ends, text))
        } else {
            Err(malformed("lines"))
        }
    }

    /// Appends the line of a row.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) {
        let (template, at) = self.rows[row];
        let at = at as usize;
        let Some(template) = usize::from(template).checked_sub(1) else {
            let from = if at == 0 { 0 } else { self.raw_ends[at - 1] };
            out.extend_from_slice(&self.raw[from as usize..self.raw_ends[at] as usize]);
            return;
        };
        let Template { parts, values, .. } = &self.templates[template];
        let part = |(from, to): (u32, u32)| &self.texts[from as usize..to as usize];
        out.extend_from_slice(part(parts[0]));
        for (value, after) in values.iter().zip(&parts[1..]) {
            value.write(&self.stores, at, out);
            out.extend_from_slice(part(*after));
        }
    }

    /// The bytes of a template, with those that stand for variables.
    pub(super) fn template(&self, template: &Template) -> &[u8] {
        let (from, to) = (template.parts[0].0, template.parts[template.parts.len() - 1].1);
        &self.texts[from as usize..to as usize]
    }
}

/// Where a line ends. What is stored of the lines says little of how long they are, so that is bounded here as well.
fn end(len: usize) -> Result<u32, BlockError> {
    let len = u32::try_from(len).ok().filter(|len| *len as usize <= BLOCK_INFLATED_BYTES_MAX);
    len.ok_or(malformed("lines"))
}

fn read_templates(bytes: &[u8]) -> Option<Vec<Template>> {
    let mut reader = Reader(bytes);
    let mut templates = Vec::new();
    let mut variables = 0;
    while !reader.0.is_empty() {
        let len = usize::try_from(reader.varint()?).ok()?;
        let from = u32::try_from(bytes.len() - reader.0.len()).ok()?;
        let template = reader.take(len)?;
        let mut parts = Vec::new();
        let mut start = from;
        for (at, byte) in (from..).zip(template) {
            if matches!(*byte, WORD | QUOTED) {
                parts.push((start, at));
                start = at + 1;
            }
        }
        variables += parts.len();
        let fits = parts.len() <= TEMPLATE_VARIABLES_MAX && variables <= BLOCK_VALUES_MAX;
        if !fits || templates.len() == TEMPLATES_MAX {
            return None;
        }
        parts.push((start, from + template.len() as u32));
        templates.push(Template { parts, rows: 0, values: Vec::new() });
    }
    Some(templates)
}

/// Per row its template and its position in it; and how many rows have none.
fn read_kinds(kinds: &[u8], count: usize, templates: &mut [Template]) -> Option<(Vec<(u16, u32)>, usize)> {
    let planes = if templates.len() > 255 { 2 } else { 1 };
    if kinds.len() != count * planes {
        return None;
    }
    let mut raw = 0;
    let mut rows = Vec::with_capacity(count);
    for row in 0..count {
        let high = if planes == 2 { u16::from(kinds[count + row]) << 8 } else { 0 };
        let kind = u16::from(kinds[row]) | high;
        let met = match usize::from(kind).checked_sub(1) {
            None => &mut raw,
            Some(template) => &mut templates.get_mut(template)?.rows,
        };
        rows.push((kind, u32::try_from(*met).ok()?));
        *met += 1;
    }
    Some((rows, raw))
}

/// Reads the values of every template's variables. A column of few bytes can stand for many values, and for values of any
/// length in all rows: how many there are, and how long a line is, are bounded before there is one.
fn read_values(stores: &Stores, templates: &mut [Template]) -> Option<()> {
    let mut cursor = Cursor::default();
    let mut values = 0_usize;
    for template in templates {
        let variables = template.parts.len() - 1;
        values += variables * template.rows;
        if values > BLOCK_VALUES_MAX {
            return None;
        }
        template.values = (0..variables).map(|_| cursor.values(stores, template.rows)).collect::<Option<_>>()?;
        let constant: usize = template.parts.iter().map(|(from, to)| (to - from) as usize).sum();
        let longest: usize = template.values.iter().map(Values::longest).sum();
        if constant + longest > BLOCK_INFLATED_BYTES_MAX {
            return None;
        }
    }
    cursor.is_at_end(stores).then_some(())
}
