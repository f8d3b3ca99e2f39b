//! `POST /loki/api/v1/push`: what a Loki client hears. 204 where everything was stored; else plain text, and 400 where
//! some records were refused and the others stored: a client does not send those again.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::intake::{Refused, failure};
use crate::ingest::Landing;

/// The answer to an outcome.
pub(super) fn answer(landed: Result<&Landing, &Refused>) -> Response {
    let landing = match landed {
        Ok(landing) => landing,
        Err(refused) => return text(refused.status, &refused.why),
    };
    match failure(&landing.verdict) {
        Some((status, why)) if landing.refusals.is_empty() => text(status, &why),
        Some((status, why)) => text(status, &format!("{why}\n{}", landing.refusals)),
        None if landing.refusals.is_empty() => StatusCode::NO_CONTENT.into_response(),
        None => text(StatusCode::BAD_REQUEST, &format!("{} records stored, {}", landing.accepted, landing.refusals)),
    }
}

fn text(status: StatusCode, why: &str) -> Response {
    let body = Body::from(format!("{}\n", why.trim_end()));
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
        .into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use millpond::protocol::{Acceptance, BodyKind, decode};

    use super::*;
    use crate::ingest::Verdict;

    fn landing(verdict: Verdict, body: &'static str) -> Landing {
        let intake = decode(BodyKind::Ndjson, &body.into(), &Acceptance { now: 0, oldest: None }).unwrap();
        let (accepted, refusals) = (intake.accepted, intake.refusals);
        Landing { verdict, accepted, raw_bytes: 0, refusals, shards: Vec::new() }
    }

    async fn said(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_push_is_answered_as_loki_does() {
        let stored = answer(Ok(&landing(Verdict::Stored, "{\"msg\":\"x\"}")));
        assert_eq!(said(stored).await, (204, String::new()));
        let (status, text) = said(answer(Ok(&landing(Verdict::Stored, "{\"msg\":\"x\"}\nbad")))).await;
        assert_eq!(status, 400);
        assert!(text.starts_with("1 records stored, 1 records refused:\nline 2, column 1: "), "{text}");
        let (status, text) = said(answer(Ok(&landing(Verdict::TimedOut, "bad")))).await;
        assert_eq!(status, 504);
        assert!(text.contains("send the request again") && text.contains("line 1"), "{text}");
        let refused = Refused { status: StatusCode::PAYLOAD_TOO_LARGE, why: "too much".to_owned() };
        assert_eq!(said(answer(Err(&refused))).await, (413, "too much\n".to_owned()));
    }
}
