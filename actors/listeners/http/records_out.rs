//! `GET /api/v1/shards/{id}/records?from=OFFSET&limit=N&source=leader|local`: records of a shard in the order of their
//! offsets, one JSON object a line, or with `Accept: application/json` one object with all of them. Without `from` they
//! begin with the first that is left; an offset that retention has removed is answered with 410.
//!
//! The headers `x-millpond-next-offset` and `x-millpond-end-offset` say where to go on and where the shard ends.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::answer::{offsets_json, offsets_ndjson};
use millpond::query::merge::records as answer_records;
use millpond::query::partial::{Found, Partial};
use millpond::query::plan::OffsetQuery;
use tokio::time::Instant;

use super::intake::Refused;
use super::params::Params;
use super::query::refusal;
use super::shards::parse_shard;
use crate::query::{QueryGate, Source};

/// Records of an answer whose request does not say.
const LIMIT_DEFAULT: u64 = 1_000;

/// Answers with records by offset.
pub(super) async fn records(State(gate): State<QueryGate>, Path(shard): Path<String>, request: Request) -> Response {
    let began = Instant::now();
    let whole = wants_one_object(request.headers());
    let read = async {
        let params = Params::of(request).await?;
        let shards = gate.site().board.shards();
        let shard = parse_shard(&shard, shards).map_err(|why| Refused::new(StatusCode::NOT_FOUND, why))?;
        let (query, source) = plan(&params)?;
        gate.records(shard, query, source).await.map_err(Refused::from)
    };
    let response = match read.await {
        Ok(partial) => answer(partial, whole),
        Err(refused) => refusal(refused),
    };
    gate.site().metrics.queried("records", response.status().as_u16(), began.elapsed());
    response
}

fn wants_one_object(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "application/json")
}

fn plan(params: &Params) -> Result<(OffsetQuery, Source), QueryError> {
    let limit = params.number("limit")?.unwrap_or(LIMIT_DEFAULT);
    let most = limits::RECORDS_BY_OFFSET_MAX;
    if limit == 0 || limit > most as u64 {
        return Err(QueryError::TooManyRecords { limit, max: most });
    }
    let limit = u32::try_from(limit).expect("at most RECORDS_BY_OFFSET_MAX");
    let source = match params.get("source") {
        None | Some("leader") => Source::Leader,
        Some("local") => Source::Local,
        Some(value) => {
            let expected = "leader or local".to_owned();
            return Err(QueryError::Parameter { name: "source".to_owned(), value: value.to_owned(), expected });
        }
    };
    Ok((OffsetQuery { logs: None, from: params.number("from")?, limit }, source))
}

fn answer(partial: Partial, whole: bool) -> Response {
    let Partial { shard, end, found, .. } = partial;
    let Found::Records(found) = found else {
        let why = "the shard answered another kind of request".to_owned();
        return refusal(QueryError::Unavailable { shard, why }.into());
    };
    let next = found.next;
    let records = answer_records(shard, found);
    let (kind, body) = if whole {
        ("application/json", offsets_json(shard, &records, next, end))
    } else {
        ("application/x-ndjson", offsets_ndjson(&records))
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-millpond-next-offset", next.into());
    headers.insert("x-millpond-end-offset", end.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_defaults_and_bounds() {
        let plan = |query: &str| plan(&Params::of_url(Some(query)).unwrap());
        let (query, source) = plan("").unwrap();
        assert_eq!((query.from, query.limit, source), (None, 1_000, Source::Leader));
        let (query, source) = plan("from=7&limit=5000&source=local").unwrap();
        assert_eq!((query.from, query.limit, source), (Some(7), 5_000, Source::Local));
        for wrong in ["limit=0", "limit=99999999", "from=-1", "source=elsewhere"] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}
