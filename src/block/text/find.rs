//! Finds the lines that hold a text, most of them without rebuilding one: what is constant is searched once for all rows of
//! a template, and the values of a variable all at once. It does not know regular expressions.
//!
//! A text that lies across constants and variables is cut into words and the single bytes between them, and so is the
//! template. Where they lie beside each other, a word with both its ends inside the text must be the whole word of the line;
//! the first and the last may be a part of it. What is between two quotes and varies is searched for the text as it is: only
//! a text with a quote can lie across its ends, and then the line is rebuilt.

use memchr::memmem::Finder;

use super::cut::{QUOTED, WORD, is_word};
use super::read::{Template, Text};
use super::values::{Stores, Values, write_number};

/// A word of a text, or a byte between words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Atom<'a> {
    Word(&'a [u8]),
    Gap(u8),
    Variable(usize),
    Quoted(usize),
}

/// How a word of the text lies in a word of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    Start,
    End,
    /// Only the whole of the text lies so.
    Inside,
}

/// A text to look for; it is not empty.
struct Wanted<'a> {
    finder: &'a Finder<'a>,
    atoms: Vec<Atom<'a>>,
}

impl<'a> Wanted<'a> {
    fn new(finder: &'a Finder<'a>) -> Self {
        Self { finder, atoms: atoms(finder.needle()) }
    }

    fn text(&self) -> &'a [u8] {
        self.finder.needle()
    }

    fn fit(&self, at: usize) -> Fit {
        match (at == 0, at + 1 == self.atoms.len()) {
            (true, true) => Fit::Inside,
            (true, false) => Fit::End,
            (false, true) => Fit::Start,
            (false, false) => Fit::Whole,
        }
    }

    fn holds(&self, fit: Fit, value: &[u8], word: &[u8]) -> bool {
        match fit {
            Fit::Whole => value == word,
            Fit::Start => value.starts_with(word),
            Fit::End => value.ends_with(word),
            Fit::Inside => self.finder.find(value).is_some(),
        }
    }
}

/// Words and gaps of a text, or of a template.
fn atoms(text: &[u8]) -> Vec<Atom<'_>> {
    let (mut atoms, mut at, mut variables) = (Vec::new(), 0, 0);
    while at < text.len() {
        let word = text[at..].iter().take_while(|byte| is_word(**byte)).count();
        if word > 0 {
            atoms.push(Atom::Word(&text[at..at + word]));
            at += word;
            continue;
        }
        atoms.push(match text[at] {
            WORD => Atom::Variable(variables),
            QUOTED => Atom::Quoted(variables),
            byte => Atom::Gap(byte),
        });
        variables += usize::from(matches!(text[at], WORD | QUOTED));
        at += 1;
    }
    atoms
}

/// What must hold of a row's variables for the text to lie at one place of its template.
type Conditions<'a> = Vec<(usize, Fit, &'a [u8])>;

/// Which rows of a template hold the text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    All,
    None,
    Some(Vec<bool>),
    /// Only the rebuilt line can tell.
    Unknown,
}

/// Marks the pieces of a text, of which the first begins at `first` and each other where the one before it ends, that hold
/// what is looked for, which is not empty. A hit across the end of a piece is none, and the rest of that piece is too short
/// for another.
pub(in super::super) fn mark_pieces(
    finder: &Finder<'_>,
    text: &[u8],
    first: usize,
    ends: &[u32],
    mut mark: impl FnMut(usize),
) {
    let Some(last) = ends.last() else { return };
    let text = &text[..*last as usize];
    let length = finder.needle().len();
    let (mut from, mut piece) = (first, 0);
    while let Some(hit) = finder.find(&text[from..]).map(|hit| hit + from) {
        piece += ends[piece..].partition_point(|end| *end as usize <= hit);
        let end = ends[piece] as usize;
        if hit + length <= end {
            mark(piece);
        }
        from = end;
    }
}

impl Text {
    /// Keeps of `rows` those whose line holds a text, which is not empty, or those whose line does not.
    pub(in super::super) fn retain(&self, text: &Finder<'_>, holds: bool, rows: &mut Vec<u32>) {
        let wanted = Wanted::new(text);
        // What holds of a template is found out where the first of its rows is asked for; of rows without one it is the first.
        let mut held: Vec<Option<Held>> = vec![None; self.templates.len() + 1];
        let mut line = Vec::new();
        rows.retain(|row| {
            let (template, at) = self.rows[*row as usize];
            let held = held[usize::from(template)].get_or_insert_with(|| match usize::from(template).checked_sub(1) {
                Some(template) => self.held(&self.templates[template], &wanted),
                None => self.raw_held(&wanted),
            });
            let is_held = match held {
                Held::All => true,
                Held::None => false,
                Held::Some(rows) => rows[at as usize],
                Held::Unknown => {
                    line.clear();
                    self.write(*row as usize, &mut line);
                    text.find(&line).is_some()
                }
            };
            is_held == holds
        });
    }

    fn raw_held(&self, wanted: &Wanted<'_>) -> Held {
        let mut rows = vec![false; self.raw_ends.len()];
        mark_pieces(wanted.finder, &self.raw, 0, &self.raw_ends, |row| rows[row] = true);
        Held::Some(rows)
    }

    fn held(&self, template: &Template, wanted: &Wanted<'_>) -> Held {
        let bytes = self.template(template);
        let has_quoted = bytes.contains(&QUOTED);
        // Outside of quotes no line of a template has a byte that stands for a variable.
        if wanted.text().iter().any(|byte| *byte == WORD || *byte == QUOTED) {
            return if has_quoted { Held::Unknown } else { Held::None };
        }
        if wanted.finder.find(bytes).is_some() {
            return Held::All;
        }
        if has_quoted && wanted.text().contains(&b'"') {
            return Held::Unknown;
        }
        let line = atoms(bytes);
        let mut rows = vec![false; template.rows];
        for atom in &line {
            if let Atom::Quoted(variable) = atom {
                template.values[*variable].mark(&self.stores, wanted, Fit::Inside, wanted.text(), &mut rows);
            }
        }
        for start in 0..(line.len() + 1).saturating_sub(wanted.atoms.len()) {
            if let Some(conditions) = conditions(&line[start..], wanted) {
                self.mark(template, wanted, &conditions, &mut rows);
            }
        }
        if rows.contains(&true) { Held::Some(rows) } else { Held::None }
    }

    /// Marks the rows of which all conditions hold; there is at least one.
    fn mark(&self, template: &Template, wanted: &Wanted<'_>, conditions: &Conditions<'_>, rows: &mut [bool]) {
        let Some(((variable, fit, word), rest)) = conditions.split_first() else { return };
        if rest.is_empty() || mutant!(SeamsUnchecked) {
            return template.values[*variable].mark(&self.stores, wanted, *fit, word, rows);
        }
        let mut here = vec![false; rows.len()];
        template.values[*variable].mark(&self.stores, wanted, *fit, word, &mut here);
        let mut value = Vec::new();
        for (at, _) in here.iter().enumerate().filter(|(_, here)| **here) {
            rows[at] |= rest.iter().all(|(variable, fit, word)| {
                value.clear();
                template.values[*variable].write(&self.stores, at, &mut value);
                wanted.holds(*fit, &value, word)
            });
        }
    }
}

/// What must hold for the text to lie at the beginning of these atoms; whole words first, for they leave the fewest rows.
fn conditions<'a>(line: &[Atom<'_>], wanted: &Wanted<'a>) -> Option<Conditions<'a>> {
    let mut conditions = Vec::new();
    for (at, (atom, there)) in wanted.atoms.iter().zip(line).enumerate() {
        match (*atom, *there) {
            (Atom::Gap(byte), Atom::Gap(other)) if byte == other => {}
            (Atom::Word(word), Atom::Word(other)) if wanted.holds(wanted.fit(at), other, word) => {}
            (Atom::Word(word), Atom::Variable(variable)) => conditions.push((variable, wanted.fit(at), word)),
            (Atom::Gap(_) | Atom::Word(_) | Atom::Variable(_) | Atom::Quoted(_), _) => return None,
        }
    }
    conditions.sort_by_key(|(_, fit, _)| *fit != Fit::Whole);
    Some(conditions)
}

impl Values {
    /// Marks the positions whose value holds the word in this way.
    fn mark(&self, stores: &Stores, wanted: &Wanted<'_>, fit: Fit, word: &[u8], rows: &mut [bool]) {
        match self {
            Self::Same(from, to) => {
                if wanted.holds(fit, &stores.shapes[*from..*to], word) {
                    rows.fill(true);
                }
            }
            Self::Numbers(digits, numbers) => mark_numbers(*digits, numbers, wanted, fit, word, rows),
            Self::Words(words, indexes) => {
                let word_of = |(from, to): &(u32, u32)| &stores.words[*from as usize..*to as usize];
                let held: Vec<bool> = words.iter().map(|known| wanted.holds(fit, word_of(known), word)).collect();
                if held.contains(&true) {
                    rows.iter_mut().zip(indexes).for_each(|(row, index)| *row |= held[*index as usize]);
                }
            }
            Self::Texts(first, ends) if fit == Fit::Inside => {
                mark_pieces(wanted.finder, &stores.texts, *first as usize, ends, |row| rows[row] = true);
            }
            Self::Texts(first, ends) => {
                let mut from = *first;
                for (row, end) in rows.iter_mut().zip(ends) {
                    *row |= wanted.holds(fit, &stores.texts[from as usize..*end as usize], word);
                    from = *end;
                }
            }
        }
    }
}

/// The same of numbers with at least so many digits.
fn mark_numbers(digits: usize, numbers: &[u64], wanted: &Wanted<'_>, fit: Fit, word: &[u8], rows: &mut [bool]) {
    let Some(number) = number(word) else { return };
    let written = |number: u64| digits.max(number.checked_ilog10().unwrap_or(0) as usize + 1);
    let longest = numbers.iter().copied().max().map_or(0, written);
    if word.len() > longest {
        return;
    }
    let power = u32::try_from(word.len()).ok().and_then(|len| 10_u64.checked_pow(len));
    match (fit, power) {
        (Fit::Whole, _) => {
            if written(number) == word.len() {
                rows.iter_mut().zip(numbers).for_each(|(row, value)| *row |= *value == number);
            }
        }
        (Fit::End, Some(power)) => {
            for (row, value) in rows.iter_mut().zip(numbers) {
                *row |= *value % power == number && written(*value) >= word.len();
            }
        }
        (Fit::End | Fit::Start | Fit::Inside, _) => {
            let mut text = Vec::new();
            for (row, value) in rows.iter_mut().zip(numbers) {
                text.clear();
                write_number(*value, digits, &mut text);
                *row |= wanted.holds(fit, &text, word);
            }
        }
    }
}

/// A word as a number; `None` where it is none, or more than any that is stored.
fn number(word: &[u8]) -> Option<u64> {
    word.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
