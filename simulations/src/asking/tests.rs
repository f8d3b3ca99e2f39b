//! Answers that are wrong in one way each, and those that only lack what nobody knows to be there.

use serde_json::{Value, json};

use super::*;
use crate::naive::Record;
use crate::workload::line::{self, Fields, Format};

const SECOND: i64 = 1_000_000_000;

/// A record for each second from one on.
fn records(count: u64) -> Vec<Record> {
    let record = |id: u64| Record {
        timestamp: (1 + id as i64) * SECOND,
        place: (0, id),
        labels: line::labels(0, 0),
        metadata: Fields::of(id).metadata(),
        line: line::write(id, 0, Format::Logfmt, "db "),
    };
    (0..count).map(record).collect()
}

fn question(text: &str, ask: Ask, grows: bool) -> Question {
    let query = millpond::query::parser::parse(text).unwrap();
    let what = What::Query { text: text.to_owned(), drawn: Box::new(Drawn { query, ask }), grows };
    Question { what, partial: false, categorized: true }
}

fn all(limit: usize) -> Ask {
    Ask::Range { start: 0, end: 100 * SECOND, step: SECOND, limit, forward: true }
}

/// The body of an answer that shows these records.
fn shows(records: &[&Record]) -> Value {
    let value = |record: &&Record| {
        let beside: serde_json::Map<String, Value> =
            record.metadata.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        json!([record.timestamp.to_string(), record.line, { "structuredMetadata": beside }])
    };
    let values: Vec<Value> = records.iter().map(value).collect();
    let stream = json!({ "stream": records[0].labels, "values": values });
    json!({ "status": "success", "data": { "resultType": "streams", "result": [stream] } })
}

/// What is said of an answer where the last of the records, so many, may be there.
fn said(question: &Question, body: &Value, records: &[Record], open: usize) -> Result<Judged, String> {
    let heard = heard(question, body.to_string().as_bytes()).expect("an answer to the question");
    let certain = records.len() - open;
    let records = records.iter().enumerate().map(|(at, record)| (record, at < certain)).collect();
    let mut judged = judge(question, Ok(&heard), &Known { records, placed: false })?;
    judged.found.sort_unstable();
    Ok(judged)
}

#[test]
fn records_that_were_stored_are_shown_and_others_may_be() {
    let (records, question) = (records(4), question("{app=\"sim\"} |= \"id\"", all(10), true));
    let judged = |shown: &[&Record], open| said(&question, &shows(shown), &records, open);
    let [first, second, third, last] = &records[..] else { panic!("four") };
    let whole = judged(&[first, second, third, last], 0).unwrap();
    assert_eq!((whole.found.len(), whole.missed.len(), whole.whole, whole.cut), (4, 0, true, false));
    let without = judged(&[first, second, third], 1).unwrap();
    assert_eq!((without.found, without.missed, without.whole), (vec![0, 1, 2], vec![3], false));
    assert!(judged(&[first, second, last], 1).unwrap_err().contains("0 times what was stored 1 times"));
    assert!(judged(&[first, second, second, third], 1).unwrap_err().contains("2 times what it should not"));
    assert!(judged(&[second, first, third], 1).unwrap_err().contains("comes before"));
    let strange = Record { line: "id=9 level=info".to_owned(), ..first.clone() };
    assert!(judged(&[first, &strange, second, third], 1).unwrap_err().contains("1 times what it should not"));
}

#[test]
fn a_limit_cuts_off_the_last_and_no_other() {
    let (records, question) = (records(4), question("{app=\"sim\"}", all(2), true));
    let [first, second, third, last] = &records[..] else { panic!("four") };
    let judged = |shown: &[&Record]| said(&question, &shows(shown), &records, 1);
    let cut = judged(&[first, second]).unwrap();
    assert_eq!((cut.found, cut.missed, cut.cut), (vec![0, 1], vec![], true));
    assert!(judged(&[first, third]).unwrap_err().contains("0 times"));
    assert!(judged(&[first]).unwrap_err().contains("0 times"));
    assert!(judged(&[first, second, last]).unwrap_err().contains("more than 2"));
}

#[test]
fn two_records_of_one_time_stand_in_the_order_of_their_places() {
    let mut records = records(2);
    records[1].timestamp = records[0].timestamp;
    let question = question("{app=\"sim\"} | keep app", all(10), true);
    let shown = |order: [usize; 2]| {
        let rows = order.map(|at| json!([records[at].timestamp.to_string(), records[at].line]));
        json!({ "data": { "resultType": "streams", "result": [{ "stream": { "app": "sim" }, "values": rows }] } })
    };
    let judged = |body: Value| {
        let heard = heard(&question, body.to_string().as_bytes()).unwrap();
        let records = records.iter().map(|record| (record, true)).collect();
        judge(&question, Ok(&heard), &Known { records, placed: true })
    };
    assert!(judged(shown([0, 1])).unwrap().whole);
    assert!(judged(shown([1, 0])).unwrap_err().starts_with("it should be"));
}

#[test]
fn a_number_lies_between_what_was_stored_and_what_was_sent() {
    let records = records(4);
    let question = question("sum(count_over_time({app=\"sim\"} | logfmt [9s]))", Ask::Instant(9 * SECOND), true);
    let vector = |number: u64| {
        let sample = json!({ "metric": {}, "value": [9, number.to_string()] });
        json!({ "data": { "resultType": "vector", "result": [sample] } })
    };
    for (number, open, sound) in [(4, 0, true), (3, 0, false), (3, 1, true), (4, 1, true), (2, 1, false), (5, 1, false)]
    {
        let said = said(&question, &vector(number), &records, open);
        assert_eq!(said.is_ok(), sound, "{number} of four, {open} open: {said:?}");
    }
    let nothing = json!({ "data": { "resultType": "vector", "result": [] } });
    assert!(said(&question, &nothing, &records, 3).unwrap_err().contains("at least 1"));
}

#[test]
fn a_partial_answer_is_one_that_was_allowed_and_holds_nothing_too_much() {
    let (records, mut question) = (records(2), question("{app=\"sim\"}", all(10), true));
    let mut body = shows(&[&records[1]]);
    body["partial"] = true.into();
    assert!(said(&question, &body, &records, 0).unwrap_err().contains("nobody allowed"));
    question.partial = true;
    assert_eq!(said(&question, &body, &records, 0).unwrap().found, [1]);
    let mut twice = shows(&[&records[1], &records[1]]);
    twice["partial"] = true.into();
    assert!(said(&question, &twice, &records, 0).is_err());
}

#[test]
fn what_there_is_names_every_stored_stream_and_none_that_nobody_sent() {
    let records = records(1);
    let question = Question { what: What::Values("client".to_owned()), partial: false, categorized: false };
    let judged = |values: Value, open| said(&question, &json!({ "data": values }), &records, open);
    assert!(judged(json!(["0"]), 0).is_ok() && judged(json!([]), 1).is_ok());
    assert!(judged(json!([]), 0).unwrap_err().contains("lacks"));
    assert!(judged(json!(["0", "7"]), 0).unwrap_err().contains("nobody sent"));
}
