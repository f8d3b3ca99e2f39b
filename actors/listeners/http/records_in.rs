//! `POST /api/v1/records`: the native way in, NDJSON. All or nothing, unless `?partial=true` asks for what can be stored.
//!
//! ```text
//! {"accepted": 2, "refused_count": 1, "refused": [{"line": 3, "column": 9, "reason": "malformed", "why": "..."}], "error": "..."}
//! ```
//!
//! 200 where something or everything was stored, else the status that says why not, with `error`.

use axum::http::{StatusCode, request};
use axum::response::Response;
use millpond::protocol::{Place, Refusal};
use serde::Serialize;

use super::intake::{Refused, failure};
use super::json::json;
use crate::ingest::Landing;

/// Whether the request may be stored in part.
pub(super) fn stores_a_part(head: &request::Parts) -> bool {
    head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "partial=true" || pair == "partial"))
}

#[derive(Debug, Default, Serialize)]
struct Report<'a> {
    accepted: usize,
    refused_count: usize,
    refused: Vec<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Line {
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    reason: &'static str,
    why: String,
}

impl From<&Refusal> for Line {
    fn from(refusal: &Refusal) -> Self {
        let line = match refusal.at {
            Place::Line(line) => Some(line),
            Place::Stream(_) | Place::Entry { .. } => None,
        };
        Self { line, column: refusal.column, reason: refusal.reason.metric(), why: refusal.reason.to_string() }
    }
}

/// The answer to an outcome.
pub(super) fn answer(landed: Result<&Landing, &Refused>) -> Response {
    let landing = match landed {
        Ok(landing) => landing,
        Err(refused) => return json(refused.status, &Report { error: Some(&refused.why), ..Report::default() }),
    };
    let (status, error) = match failure(&landing.verdict) {
        Some((status, why)) => (status, Some(why)),
        None if landing.accepted == 0 && !landing.refusals.is_empty() => {
            (StatusCode::BAD_REQUEST, Some("nothing was stored: lines were refused".to_owned()))
        }
        None => (StatusCode::OK, None),
    };
    let report = Report {
        accepted: if error.is_none() { landing.accepted } else { 0 },
        refused_count: landing.refusals.total(),
        refused: landing.refusals.named.iter().map(Line::from).collect(),
        error: error.as_deref(),
    };
    json(status, &report)
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use http_body_util::BodyExt;
    use millpond::protocol::{Acceptance, BodyKind, decode};

    use super::*;
    use crate::ingest::Verdict;

    async fn said(verdict: Verdict, accepted: usize, body: &'static str) -> (u16, serde_json::Value) {
        let intake = decode(BodyKind::Ndjson, &body.into(), &Acceptance { now: 0, oldest: None }).unwrap();
        let landing = Landing { verdict, accepted, raw_bytes: 0, refusals: intake.refusals, shards: Vec::new() };
        let response = answer(Ok(&landing));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn an_answer_names_line_and_column() {
        let (status, report) = said(Verdict::Stored, 0, "{\"msg\":\"x\"}\n{\"msg\":x}").await;
        assert_eq!((status, &report["accepted"], &report["refused_count"]), (400, &0.into(), &1.into()));
        assert_eq!((&report["refused"][0]["line"], &report["refused"][0]["column"]), (&2.into(), &8.into()));
        assert_eq!(report["refused"][0]["reason"], "malformed");
        assert!(report["error"].is_string());
    }

    #[tokio::test]
    async fn what_was_stored_is_counted() {
        let (status, report) = said(Verdict::Stored, 1, "{\"msg\":\"x\"}\nbad").await;
        assert_eq!((status, &report["accepted"], &report["refused_count"]), (200, &1.into(), &1.into()));
        assert_eq!(report.get("error"), None);
        let (status, report) = said(Verdict::TimedOut, 1, "{\"msg\":\"x\"}").await;
        assert_eq!((status, &report["accepted"]), (504, &0.into()));
    }

    #[test]
    fn a_part_is_stored_only_where_the_query_asks_for_it() {
        let asks = |uri: &str| stores_a_part(&Request::builder().uri(uri).body(()).unwrap().into_parts().0);
        assert!(asks("/api/v1/records?x=1&partial=true"));
        assert!(!asks("/api/v1/records?partial=false"));
        assert!(!asks("/api/v1/records"));
    }
}
