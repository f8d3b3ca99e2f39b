//! An answer against the records that must be in it and those that may be.

use std::collections::{BTreeMap, BTreeSet};

use millpond::query::ast::{Expr, LogExpr, MetricExpr};

use super::{Found, Heard, Question, RANGE, Stream, What};
use crate::naive::check::{differs, near, points};
use crate::naive::{Answer, Ask, Failure, Record, Set, answer, is_of, passed};

/// What is known of the records when an answer has come.
pub struct Known<'a> {
    /// Records that a question looks at, which may be there, and whether each was stored before it was asked.
    pub records: Vec<(&'a Record, bool)>,
    /// Whether their places are where they are, rather than the order in which they were sent.
    pub placed: bool,
}

/// What a sound answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Records that it shows, by the number of their place.
    pub found: Vec<u64>,
    /// Records that it would show, were they there.
    pub missed: Vec<u64>,
    /// Whether its limit left records out.
    pub cut: bool,
    /// Whether it was compared as a whole.
    pub whole: bool,
}

/// Between which times a question looks at records, the second not included. What is no query is asked of all times.
pub fn looks_at(question: &Question, epoch: i64) -> (i64, i64) {
    match &question.what {
        What::Query { drawn, .. } => match (&drawn.query, drawn.ask) {
            (Expr::Logs(_), Ask::Range { start, end, .. }) => (start, end),
            (Expr::Logs(_), Ask::Instant(time)) => (time, time),
            (Expr::Metric(expr), Ask::Range { start, end, .. }) => reach(expr, start, end),
            (Expr::Metric(expr), Ask::Instant(time)) => reach(expr, time, time),
        },
        What::Names | What::Values(_) | What::Series(_) | What::Volume(_) => (epoch - RANGE, epoch + RANGE),
    }
}

/// The times of all windows that end between two times.
fn reach(expr: &MetricExpr, start: i64, end: i64) -> (i64, i64) {
    match expr {
        MetricExpr::Number(_) | MetricExpr::Vector(_) => (end, start),
        MetricExpr::Range(range) => (start - range.offset - range.window, end - range.offset + 1),
        MetricExpr::Aggregate { inner, .. } | MetricExpr::LabelReplace { inner, .. } => reach(inner, start, end),
        MetricExpr::Binary { left, right, .. } => {
            let (left, right) = (reach(left, start, end), reach(right, start, end));
            (left.0.min(right.0), left.1.max(right.1))
        }
    }
}

/// Judges an answer. `heard` is `Err` where the question was refused as one that has no answer.
///
/// # Errors
/// What is wrong with it.
pub fn judge(question: &Question, heard: Result<&Heard, &str>, known: &Known<'_>) -> Result<Judged, String> {
    if heard.is_ok_and(|heard| heard.partial && !question.partial) {
        return Err("it is partial, which nobody allowed".to_owned());
    }
    match (&question.what, heard) {
        (What::Query { drawn, .. }, Ok(Heard { partial, found: Found::Rows(streams) })) => {
            match (&drawn.query, drawn.ask) {
                (Expr::Logs(logs), Ask::Range { limit, forward, .. }) => {
                    Rows { logs, limit, forward, partial: *partial, known }.judge(streams)
                }
                (Expr::Logs(_) | Expr::Metric(_), _) => Err("records answer a question for numbers".to_owned()),
            }
        }
        (What::Query { .. }, heard) => numbers(question, heard, known),
        (_, Err(why)) => Err(format!("it is refused: {why}")),
        (what, Ok(heard)) => there_is(what, heard, known),
    }
}

/// A record by what is shown of it.
type Shown = (Set, i64, String);

/// A record that a query selects.
struct Selected {
    place: (u32, u64),
    certain: bool,
    shown: Shown,
}

struct Rows<'a> {
    logs: &'a LogExpr,
    limit: usize,
    forward: bool,
    partial: bool,
    known: &'a Known<'a>,
}

impl Rows<'_> {
    fn judge(&self, streams: &[Stream]) -> Result<Judged, String> {
        let count = streams.iter().map(Vec::len).sum::<usize>();
        if count > self.limit {
            return Err(format!("it shows {count} records, more than {}", self.limit));
        }
        for stream in streams {
            let ordered = |pair: &[Shown]| if self.forward { pair[0].1 <= pair[1].1 } else { pair[0].1 >= pair[1].1 };
            if let Some(pair) = stream.windows(2).find(|pair| !ordered(pair)) {
                return Err(format!("{:?} comes before {:?}", pair[0], pair[1]));
            }
        }
        let select = |(record, certain): &(&Record, bool)| {
            let (labels, line) = passed(record, self.logs)?;
            Some(Selected { place: record.place, certain: *certain, shown: (labels, record.timestamp, line) })
        };
        let mut selected: Vec<Selected> = self.known.records.iter().filter_map(select).collect();
        let judged = self.between(&selected, streams, count)?;
        if judged.whole && self.known.placed {
            selected.sort_by_key(|selected| (selected.shown.1, selected.place));
            if !self.forward {
                selected.reverse();
            }
            selected.truncate(self.limit);
            in_place(selected, streams)?;
        }
        Ok(judged)
    }

    /// What is shown against what must be and what may be.
    fn between(&self, selected: &[Selected], streams: &[Stream], count: usize) -> Result<Judged, String> {
        let mut expected: BTreeMap<&Shown, (u64, Vec<u64>)> = BTreeMap::new();
        for Selected { place, certain, shown } in selected {
            let (least, ids) = expected.entry(shown).or_default();
            *least += u64::from(*certain);
            ids.push(place.1);
        }
        let rows: Vec<Shown> = streams.iter().flatten().cloned().map(without_details).map(|(row, _)| row).collect();
        let mut shown: BTreeMap<&Shown, u64> = BTreeMap::new();
        for row in &rows {
            *shown.entry(row).or_default() += 1;
        }
        let may_be = |row: &Shown| expected.get(row).map_or(0, |(_, ids)| ids.len() as u64);
        if let Some((row, times)) = shown.iter().find(|(row, times)| may_be(row) < **times) {
            return Err(format!("it shows {times} times what it should not: {row:?}"));
        }
        let times = || rows.iter().map(|(_, time, _)| *time);
        let last = if self.forward { times().max() } else { times().min() };
        let full = count == self.limit;
        // Of records as old as the last one shown some may be beyond the limit.
        let is_due = |time: i64| match last {
            _ if self.partial => false,
            Some(last) if full && self.forward => time < last,
            Some(last) if full => time > last,
            Some(_) | None => true,
        };
        let mut judged = Judged { whole: !self.partial, ..Judged::default() };
        for (row, (least, ids)) in &expected {
            let (times, due) = (shown.get(row).copied().unwrap_or(0), is_due(row.1));
            if due && times < *least {
                return Err(format!("it shows {times} times what was stored {least} times: {row:?}"));
            }
            judged.whole &= *least == ids.len() as u64;
            judged.cut |= !due && times < *least && !self.partial;
            if times == ids.len() as u64 {
                judged.found.extend(ids);
            } else if times == 0 && due {
                judged.missed.extend(ids);
            }
        }
        Ok(judged)
    }
}

/// Without what an error is explained with, which is in nobody's words but the engine's; and whether there was any.
fn without_details((mut labels, time, line): Shown) -> (Shown, bool) {
    let explained = labels.remove("__error_details__").is_some();
    ((labels, time, line), explained)
}

/// Whether the records of each set of labels are those expected, in their order.
fn in_place(rows: Vec<Selected>, streams: &[Stream]) -> Result<(), String> {
    let mut expected: BTreeMap<Set, Vec<(i64, String)>> = BTreeMap::new();
    for Selected { shown: (labels, time, line), .. } in rows {
        expected.entry(labels).or_default().push((time, line));
    }
    let mut shown: BTreeMap<Set, Vec<(i64, String)>> = BTreeMap::new();
    let mut explained = BTreeSet::new();
    for row in streams.iter().flatten().cloned() {
        let ((labels, time, line), was_explained) = without_details(row);
        if was_explained {
            explained.insert(labels.clone());
        }
        shown.entry(labels).or_default().push((time, line));
    }
    // Errors that are explained in other words are in streams of their own.
    for labels in &explained {
        for rows in [&mut expected, &mut shown] {
            rows.entry(labels.clone()).or_default().sort();
        }
    }
    if expected == shown { Ok(()) } else { Err(format!("it should be\n{expected:?}\nand is\n{shown:?}")) }
}

fn numbers(question: &Question, heard: Result<&Heard, &str>, known: &Known<'_>) -> Result<Judged, String> {
    let What::Query { drawn, grows, .. } = &question.what else { return Err("it is no query".to_owned()) };
    let possible = || known.records.iter().map(|(record, _)| *record);
    let certain = || known.records.iter().filter(|(_, certain)| *certain).map(|(record, _)| *record);
    let same = known.records.iter().all(|(_, certain)| *certain);
    if !same && !grows {
        return Ok(Judged::default());
    }
    let most = answer(possible(), &drawn.query, drawn.ask);
    let least = if same { most.clone() } else { answer(certain(), &drawn.query, drawn.ask) };
    let heard = match (heard, &least, &most) {
        (Err(_), _, Err(_)) => return Ok(Judged { whole: same, ..Judged::default() }),
        (Err(why), _, Ok(_)) => return Err(format!("it is refused: {why}")),
        (Ok(heard), Err(failure), _) if !heard.partial => {
            return Err(format!("it should fail ({failure:?}), and is {:?}", heard.found));
        }
        (Ok(heard), _, _) => heard,
    };
    let Found::Numbers(found) = &heard.found else { return Err(format!("no numbers: {:?}", heard.found)) };
    match (least, most) {
        (Ok(_), Ok(most)) if same && !heard.partial => {
            let wrong = differs(possible(), drawn, &most, found);
            wrong.map_or(Ok(Judged { whole: true, ..Judged::default() }), Err)
        }
        (least, most) if *grows => {
            let nothing = Answer::Vector(Vec::new());
            let least = if heard.partial { nothing } else { least.unwrap_or(nothing) };
            within(&least, most.as_ref(), found)
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Ok(Judged::default()),
    }
}

/// Whether no number is below the least nor above the most.
fn within(least: &Answer, most: Result<&Answer, &Failure>, found: &Answer) -> Result<Judged, String> {
    let number = |value: Option<&f64>| value.copied().unwrap_or(0.0);
    let shown = points(found);
    for (place, least) in &points(least) {
        let found = number(shown.get(place));
        if found < *least && !near(found, *least) {
            return Err(format!("{place:?} is {found}, and at least {least}"));
        }
    }
    // Where a record that may be there spoils the answer, the others bound it in vain.
    let Ok(most) = most else { return Ok(Judged::default()) };
    let most = points(most);
    for (place, found) in &shown {
        let most = number(most.get(place));
        if *found > most && !near(*found, most) {
            return Err(format!("{place:?} is {found}, and at most {most}"));
        }
    }
    Ok(Judged::default())
}

/// What there is, rather than the records themselves.
fn there_is(what: &What, heard: &Heard, known: &Known<'_>) -> Result<Judged, String> {
    let certain = || known.records.iter().filter(|(_, certain)| *certain).map(|(record, _)| *record);
    let possible = || known.records.iter().map(|(record, _)| *record);
    match (what, &heard.found) {
        (What::Names | What::Values(_), Found::Texts(found)) => {
            let texts = |streams: BTreeSet<&Set>| -> BTreeSet<String> {
                let texts = streams.into_iter().flat_map(|labels| match what {
                    What::Values(name) => labels.get(name).into_iter().collect::<Vec<_>>(),
                    What::Names | What::Query { .. } | What::Series(_) | What::Volume(_) => labels.keys().collect(),
                });
                texts.cloned().collect()
            };
            let (least, most) = (streams(certain()), streams(possible()));
            lies_between(&texts(least), found, &texts(most), heard.partial)
        }
        (What::Series(selector), Found::Series(found)) => {
            let logs = self::selector(selector);
            let least = streams(certain().filter(|record| is_of(record, &logs)));
            let most = streams(possible().filter(|record| is_of(record, &logs)));
            lies_between(&least, &found.iter().collect(), &most, heard.partial)
        }
        (What::Volume(selector), Found::Numbers(found)) => {
            let nothing = Answer::Vector(Vec::new());
            let logs = self::selector(selector);
            let least = if heard.partial { nothing } else { volume(certain(), &logs) };
            within(&least, Ok(&volume(possible(), &logs)), found)
        }
        (_, found) => Err(format!("it is of another kind: {found:?}")),
    }
}

fn selector(text: &str) -> LogExpr {
    match millpond::query::parser::parse(text) {
        Ok(Expr::Logs(logs)) => logs,
        Ok(Expr::Metric(_)) | Err(_) => panic!("{text} is a selector"),
    }
}

fn streams<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeSet<&'a Set> {
    records.map(|record| &record.labels).collect()
}

/// Bytes of lines and metadata by client.
fn volume<'a>(records: impl Iterator<Item = &'a Record>, logs: &LogExpr) -> Answer {
    let mut bytes: BTreeMap<Set, f64> = BTreeMap::new();
    for record in records.filter(|record| is_of(record, logs)) {
        let beside: usize = record.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let series = record.labels.iter().filter(|(name, _)| *name == "client");
        let series: Set = series.map(|(name, value)| (name.clone(), value.clone())).collect();
        *bytes.entry(series).or_default() += (record.line.len() + beside) as f64;
    }
    Answer::Vector(bytes.into_iter().collect())
}

fn lies_between<T: Ord + std::fmt::Debug>(
    least: &BTreeSet<T>,
    found: &BTreeSet<T>,
    most: &BTreeSet<T>,
    partial: bool,
) -> Result<Judged, String> {
    if let Some(missing) = least.difference(found).next().filter(|_| !partial) {
        return Err(format!("it lacks {missing:?}"));
    }
    match found.difference(most).next() {
        Some(strange) => Err(format!("it holds {strange:?}, which nobody sent")),
        None => Ok(Judged::default()),
    }
}
