//! Queries over hostile records. A query is asked of the records as they lie in heads and segments, and of the same
//! records in heads alone with the shards in the other order: the answer, or the kind of failure, is the same. Answers
//! can be put to JSON, and requests and parts read as they were encoded.

use std::mem::discriminant;

use millpond::query::View;
use millpond::query::answer::{Encoding, Took};
use millpond::query::error::QueryError;
use millpond::query::merge::{Answer, Gather};
use millpond::query::overview::{FieldParameters, VolumeParameters};
use millpond::query::partial::Partial;
use millpond::query::plan::{Direction, Query, RangeParameters, ShardRequest, StreamsWant};
use millpond::query::scan::Scan;

use super::pen::Pen;
use super::world::{self, LENGTH, SECOND, START, TENANT, Worlds};
use super::{Note, Outcome, queries};

pub(super) fn run(number: u64, pen: &mut Pen, worlds: &mut Option<Worlds>, note: &mut Note) -> Outcome {
    note.input("the records", &[]);
    let world = world::of(worlds, number);
    let text = if pen.one_in(2) { queries::drawn(pen) } else { queries::noted(pen, note, &[]) };
    let (kind, stored_alike, query) = question(pen, &text);
    note.input(kind, text.as_bytes());
    let Ok(query) = query else { return Ok(false) };
    note.input(kind, format!("{text}\n{query:?}").as_bytes());
    let forward: Vec<&View> = world.sealed.iter().collect();
    let other = if stored_alike { &world.open } else { &world.sealed };
    let backward: Vec<&View> = other.iter().rev().collect();
    let first = gathered(&query, &forward)?;
    let second = gathered(&query, &backward)?;
    match (first, second) {
        (Ok(first), Ok(second)) => {
            // Numbers that are none are not equal to themselves.
            if first.outcome != second.outcome && format!("{:?}", first.outcome) != format!("{:?}", second.outcome) {
                return Err(format!("two orders, two answers:\n{:#?}\n{:#?}", first.outcome, second.outcome));
            }
            for encoding in [Encoding::Folded, Encoding::Categorized] {
                let json = first.to_json(encoding, Took::default());
                serde_json::from_slice::<serde_json::Value>(&json).map_err(|error| format!("no JSON: {error}"))?;
            }
            Ok(true)
        }
        (Err(first), Err(second)) if discriminant(&first) == discriminant(&second) => Ok(true),
        // What a part takes depends on how its records lie.
        (Err(error), _) | (_, Err(error)) if is_of_memory(&error) => Ok(true),
        (first, second) => Err(format!("two orders, two outcomes:\n{first:#?}\n{second:#?}")),
    }
}

fn is_of_memory(error: &QueryError) -> bool {
    matches!(error, QueryError::Memory { .. } | QueryError::TooManyNumbers { .. } | QueryError::AnswerTooLarge { .. })
}

fn time(pen: &mut Pen) -> i64 {
    match pen.below(12) {
        0 => pen.signed(),
        1 => 0,
        _ => START + (pen.below(150) as i64 - 15) * LENGTH / 120,
    }
}

/// The kind of a question, whether its answer leaves open how records are stored, and the question.
fn question(pen: &mut Pen, text: &str) -> (&'static str, bool, Result<Query, QueryError>) {
    let (start, end) = (time(pen), time(pen));
    let (start, end) = if pen.one_in(30) { (start, end) } else { (start.min(end), start.max(end)) };
    let kind = pen.below(20);
    let step = match pen.below(8) {
        0 => None,
        1 => Some(pen.signed()),
        _ => Some((1 + pen.below(120)) as i64 * SECOND),
    };
    let limit = if pen.one_in(10) { Some(pen.number()) } else { Some(1 + pen.below(100) as u64) };
    let selector = text.split_once('}').map_or(text, |(selector, _)| selector.rsplit('{').next().unwrap_or(""));
    let selector = format!("{{{selector}}}");
    match kind {
        0..=8 => {
            let direction = if pen.one_in(2) { Direction::Forward } else { Direction::Backward };
            ("range", true, Query::range(text, RangeParameters { start, end, step, limit, direction }))
        }
        9..=13 => ("instant", true, Query::instant(text, start)),
        14 => {
            let want = match pen.below(3) {
                0 => StreamsWant::Names,
                1 => StreamsWant::Values("app".to_owned()),
                _ => StreamsWant::Series,
            };
            // Blocks answer as wholes.
            ("streams", false, Query::streams(want, &[&selector], start, end))
        }
        15 => ("stats", false, Query::stats(&selector, start, end)),
        16 => {
            let ranged = pen.one_in(2);
            let target = if pen.one_in(2) { Some("app, level") } else { None };
            let by_labels = pen.one_in(2);
            let parameters = VolumeParameters { start, end, step, ranged, limit, target, by_labels };
            ("volume", false, Query::volume(&selector, parameters))
        }
        17 => ("labels", false, Query::detected_labels(&[&selector], start, end)),
        18 => {
            let field = if pen.one_in(2) { Some("n".to_owned()) } else { None };
            let parameters = FieldParameters { start, end, line_limit: limit, limit: None };
            ("fields", false, Query::detected_fields(text, field, parameters))
        }
        _ => ("patterns", false, Query::patterns(&selector, start, end, step)),
    }
}

fn gathered(query: &Query, views: &[&View]) -> Result<Result<Answer, QueryError>, String> {
    let mut gather = Gather::new(query.clone(), TENANT);
    for (number, request) in gather.requests().into_iter().enumerate() {
        for view in views {
            let mut next = Some(request.clone());
            while let Some(request) = next {
                next = match scanned(&request, view)?.and_then(|partial| gather.add(number, partial)) {
                    Ok(next) => next,
                    Err(error) => return Ok(Err(error)),
                };
            }
        }
    }
    Ok(gather.finish())
}

/// One shard's part, by way of the bytes that nodes exchange.
fn scanned(request: &ShardRequest, view: &View) -> Result<Result<Partial, QueryError>, String> {
    let read = ShardRequest::decode(&request.encode());
    if read.as_ref() != Ok(request) {
        return Err(format!("a request is read otherwise than it was encoded: {request:?} and {read:?}"));
    }
    let partial = match scan(request, view) {
        Ok(partial) => partial,
        Err(error) => return Ok(Err(error)),
    };
    let bytes = match partial.encode() {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(error)),
    };
    match Partial::decode(&bytes) {
        Ok(read) if read == partial || format!("{read:?}") == format!("{partial:?}") => Ok(Ok(read)),
        other => Err(format!("a part is read otherwise than it was encoded: {partial:?} and {other:?}")),
    }
}

fn scan(request: &ShardRequest, view: &View) -> Result<Partial, QueryError> {
    let mut scan = Scan::new(request, view)?;
    while scan.step()? {}
    Ok(scan.finish())
}
