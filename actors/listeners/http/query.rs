//! Loki's query routes: `query_range`, `query`, `labels`, `label/{name}/values`, `series`, as GET and as a form; and the
//! routes of tails, of records by offset and of overviews, which have files of their own.
//!
//! Parameters become a question, its answer a body; an error becomes a status and one line of text. What a query means
//! is not known here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::answer::Encoding;
use millpond::query::plan::{Direction, Query, RangeParameters, StreamsWant};
use millpond::query::time::{parse_duration, parse_time};
use tokio::time::Instant;

use super::intake::{Refused, tenant};
use super::params::Params;
use super::{overview, records_out, tail};
use crate::query::{QueryGate, Question};

/// Says how metadata is to be shown.
const FLAGS_HEADER: &str = "x-loki-response-encoding-flags";
const CATEGORIZE: &str = "categorize-labels";
/// Kinds of queries, as they are counted.
const RANGE: &str = "range";
const INSTANT: &str = "instant";
/// How far back a query looks that does not say.
pub(super) const RANGE_DEFAULT: Duration = Duration::from_secs(3_600);
/// How far back labels are looked for where the request does not say.
pub(super) const LABELS_RANGE_DEFAULT: Duration = Duration::from_secs(6 * 3_600);

/// The routes.
pub fn router(gate: QueryGate) -> Router {
    Router::new()
        .route("/loki/api/v1/query_range", get(query_range).post(query_range))
        .route("/loki/api/v1/query", get(query).post(query))
        .route("/loki/api/v1/labels", get(labels).post(labels))
        .route("/loki/api/v1/label", get(labels).post(labels))
        .route("/loki/api/v1/label/{name}/values", get(values).post(values))
        .route("/loki/api/v1/series", get(series).post(series))
        .route("/loki/api/v1/tail", get(tail::tail))
        .route("/api/v1/shards/{shard}/records", get(records_out::records))
        .merge(overview::router())
        .with_state(gate)
}

/// A refusal as it is answered: its reason as text.
pub(super) fn refusal(refused: Refused) -> Response {
    let status = refused.status;
    let mut response = Response::new(Body::from(refused.why + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(header::RETRY_AFTER, limits::RETRY_AFTER.as_secs().into());
    }
    response
}

impl From<QueryError> for Refused {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Parse { .. }
            | QueryError::Parameter { .. }
            | QueryError::LogsAtInstant
            | QueryError::TooManyPoints { .. }
            | QueryError::TooManyRecords { .. }
            | QueryError::TooManySeries { .. }
            | QueryError::TooManyNumbers { .. }
            | QueryError::Pipeline { .. }
            | QueryError::ManyToMany { .. }
            | QueryError::ManyToOne
            | QueryError::GroupingNotUnique
            | QueryError::SameLabels { .. }
            | QueryError::Memory { .. }
            | QueryError::AnswerTooLarge { .. } => StatusCode::BAD_REQUEST,
            QueryError::Removed { .. } => StatusCode::GONE,
            QueryError::TooManyTails { .. } | QueryError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            QueryError::Damaged { .. } | QueryError::Storage { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            QueryError::Codec { .. } | QueryError::Unavailable { .. } | QueryError::Cancelled => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            QueryError::Deadline => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, error)
    }
}

/// What a request says besides its parameters.
pub(super) struct Asked {
    tenant: Arc<str>,
    encoding: Encoding,
    pub(super) params: Params,
    now: i64,
}

impl Asked {
    async fn of(gate: &QueryGate, request: Request) -> Result<Self, Refused> {
        let tenant = tenant(request.headers())?;
        let encoding = encoding(request.headers());
        let params = Params::of(request).await?;
        Ok(Self { tenant, encoding, params, now: gate.site().env.clock.now() })
    }

    /// Start and end: by default the time before now, `since` instead of a start.
    pub(super) fn range(&self, default: Duration) -> Result<(i64, i64), QueryError> {
        let end = time(&self.params, "end", self.now)?;
        let default = i64::try_from(default.as_nanos()).unwrap_or(i64::MAX);
        let since = self.params.get("since").map_or(Ok(default), |text| parse_duration("since", text))?;
        Ok((time(&self.params, "start", end.saturating_sub(since))?, end))
    }
}

fn time(params: &Params, name: &str, default: i64) -> Result<i64, QueryError> {
    params.get(name).map_or(Ok(default), |text| parse_time(name, text))
}

/// How a client wants to see metadata.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let flags = headers.get_all(FLAGS_HEADER).iter().filter_map(|value| value.to_str().ok());
    let categorize = flags.flat_map(|flags| flags.split(',')).any(|flag| flag.trim() == CATEGORIZE);
    if categorize { Encoding::Categorized } else { Encoding::Folded }
}

/// The query of a request; an empty one is refused as such.
pub(super) fn text(params: &Params) -> &str {
    params.get("query").unwrap_or("")
}

/// The direction of a request: backward by default.
fn direction(params: &Params) -> Result<Direction, QueryError> {
    match params.get("direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Ok(Direction::Backward),
        Some("forward") => Ok(Direction::Forward),
        Some(value) => Err(QueryError::Parameter {
            name: "direction".to_owned(),
            value: value.to_owned(),
            expected: "forward or backward".to_owned(),
        }),
    }
}

async fn query_range(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, RANGE, request, |asked| {
        let (start, end) = asked.range(RANGE_DEFAULT)?;
        if let Some(value) = asked.params.get("interval") {
            let expected = "no interval: every record is answered up to the limit".to_owned();
            return Err(QueryError::Parameter { name: "interval".to_owned(), value: value.to_owned(), expected });
        }
        let step = asked.params.get("step").map(|text| parse_duration("step", text)).transpose()?;
        let (limit, direction) = (asked.params.number("limit")?, direction(&asked.params)?);
        Query::range(text(&asked.params), RangeParameters { start, end, step, limit, direction })
    })
    .await
}

async fn query(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, INSTANT, request, |asked| {
        Query::instant(text(&asked.params), time(&asked.params, "time", asked.now)?)
    })
    .await
}

async fn labels(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "labels", request, |asked| streams(asked, StreamsWant::Names, &["query"])).await
}

async fn values(State(gate): State<QueryGate>, Path(name): Path<String>, request: Request) -> Response {
    answer(&gate, "values", request, |asked| streams(asked, StreamsWant::Values(name), &["query"])).await
}

async fn series(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "series", request, |asked| streams(asked, StreamsWant::Series, &["match[]", "match"])).await
}

fn streams(asked: &Asked, want: StreamsWant, selectors: &[&str]) -> Result<Query, QueryError> {
    let (start, end) = asked.range(LABELS_RANGE_DEFAULT)?;
    Query::streams(want, &self::selectors(&asked.params, selectors), start, end)
}

/// The selectors of a request; none where one of them is `{}`, which clients send before anything is chosen: it selects
/// every stream.
pub(super) fn selectors<'a>(params: &'a Params, names: &[&str]) -> Vec<&'a str> {
    let selects_all = |text: &str| text.chars().filter(|c| !c.is_whitespace()).eq("{}".chars());
    if params.all(names).any(selects_all) { Vec::new() } else { params.all(names).collect() }
}

/// Counts a request that nobody waits for any more, as Nginx and Loki name it.
struct Leaving<'a> {
    gate: &'a QueryGate,
    kind: &'static str,
    began: Instant,
    status: u16,
}

const CLIENT_LEFT: u16 = 499;

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.gate.site().metrics.queried(self.kind, self.status, self.began.elapsed());
    }
}

/// Asks what `plan` makes of a request, and counts what came of it.
pub(super) async fn answer(
    gate: &QueryGate,
    kind: &'static str,
    request: Request,
    plan: impl FnOnce(&Asked) -> Result<Query, QueryError>,
) -> Response {
    let mut leaving = Leaving { gate, kind, began: Instant::now(), status: CLIENT_LEFT };
    let asked = async {
        let asked = Asked::of(gate, request).await?;
        let query = plan(&asked)?;
        let partial = asked.params.flag("partial")?;
        // The other answers have no place for it.
        let explain = matches!(kind, RANGE | INSTANT) && asked.params.flag("explain")?;
        let question = Question { query, tenant: asked.tenant, partial, encoding: asked.encoding, explain };
        gate.ask(question).await.map_err(Refused::from)
    };
    let response = match asked.await {
        Ok(body) => {
            let mut response = Response::new(Body::from(body));
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(refused) => refusal(refused),
    };
    leaving.status = response.status().as_u16();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_selector_selects_every_stream() {
        let chosen = |text: &str| {
            let params = Params::of_url(Some(text)).unwrap();
            selectors(&params, &["match[]"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(chosen("match[]=%7Ba%3D%22b%22%7D"), [r#"{a="b"}"#]);
        assert_eq!(chosen("match[]=%7Ba%3D%22b%22%7D&match[]=%7B+%7D"), Vec::<String>::new());
    }

    #[test]
    fn a_loss_may_be_asked_again_and_a_mistake_may_not() {
        let shard = millpond::id::ShardId(1);
        let unavailable = QueryError::Unavailable { shard, why: "no leader is known".into() };
        let response = refusal(unavailable.into());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        let busy = refusal(QueryError::Busy { running: 1, queued: 1 }.into());
        assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refusal(QueryError::Deadline.into()).status(), StatusCode::GATEWAY_TIMEOUT);
        let storage = QueryError::Storage { shard, what: "unreadable".into() };
        assert_eq!(refusal(storage.into()).status(), StatusCode::INTERNAL_SERVER_ERROR);
        let response = refusal(QueryError::LogsAtInstant.into());
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
