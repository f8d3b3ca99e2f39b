//! Loki's routes that tell what there is: `index/stats`, `index/volume`, `index/volume_range`, `detected_labels`,
//! `detected_fields`, `detected_field/{name}/values`, `patterns`; and what a client asks about the node itself:
//! `format_query`, `drilldown-limits`.
//!
//! As the query routes, they take GET and a form, and know nothing of what is asked.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use millpond::limits;
use millpond::protocol::SERVICE_LABELS;
use millpond::query::QueryError;
use millpond::query::overview::{FieldParameters, VolumeParameters};
use millpond::query::parser;
use millpond::query::plan::Query;
use millpond::query::time::parse_duration;
use serde_json::{Value, json};

use super::intake::Refused;
use super::json::json as answer_json;
use super::params::Params;
use super::query::{Asked, LABELS_RANGE_DEFAULT, RANGE_DEFAULT, answer, refusal, selectors, text};
use crate::query::QueryGate;

/// The routes.
pub(super) fn router() -> Router<QueryGate> {
    Router::new()
        .route("/loki/api/v1/index/stats", get(stats).post(stats))
        .route("/loki/api/v1/index/volume", get(volume).post(volume))
        .route("/loki/api/v1/index/volume_range", get(volume_range).post(volume_range))
        .route("/loki/api/v1/detected_labels", get(labels).post(labels))
        .route("/loki/api/v1/detected_fields", get(fields).post(fields))
        .route("/loki/api/v1/detected_field/{name}/values", get(values).post(values))
        .route("/loki/api/v1/patterns", get(patterns).post(patterns))
        .route("/loki/api/v1/format_query", get(format_query).post(format_query))
        .route("/loki/api/v1/drilldown-limits", get(drilldown_limits).post(drilldown_limits))
}

async fn stats(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "stats", request, |asked| {
        let (start, end) = asked.range(RANGE_DEFAULT)?;
        Query::stats(text(&asked.params), start, end)
    })
    .await
}

async fn volume(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "volume", request, |asked| volume_of(asked, false)).await
}

async fn volume_range(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "volume_range", request, |asked| volume_of(asked, true)).await
}

fn volume_of(asked: &Asked, ranged: bool) -> Result<Query, QueryError> {
    let (start, end) = asked.range(RANGE_DEFAULT)?;
    let params = &asked.params;
    let by_labels = match params.get("aggregateBy") {
        None | Some("series") => false,
        Some("labels") => true,
        Some(value) => {
            let expected = "series or labels".to_owned();
            return Err(QueryError::Parameter { name: "aggregateBy".to_owned(), value: value.to_owned(), expected });
        }
    };
    let (limit, target) = (params.number("limit")?, params.get("targetLabels"));
    let parameters = VolumeParameters { start, end, step: step(params)?, ranged, limit, target, by_labels };
    Query::volume(text(params), parameters)
}

fn step(params: &Params) -> Result<Option<i64>, QueryError> {
    params.get("step").map(|text| parse_duration("step", text)).transpose()
}

async fn labels(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "detected_labels", request, |asked| {
        let (start, end) = asked.range(LABELS_RANGE_DEFAULT)?;
        Query::detected_labels(&selectors(&asked.params, &["query"]), start, end)
    })
    .await
}

async fn fields(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "detected_fields", request, |asked| fields_of(asked, None)).await
}

async fn values(State(gate): State<QueryGate>, Path(name): Path<String>, request: Request) -> Response {
    answer(&gate, "detected_values", request, |asked| fields_of(asked, Some(name))).await
}

fn fields_of(asked: &Asked, field: Option<String>) -> Result<Query, QueryError> {
    let (start, end) = asked.range(RANGE_DEFAULT)?;
    let limit =
        asked.params.number("limit")?.map_or_else(|| asked.params.number("field_limit"), |limit| Ok(Some(limit)))?;
    let parameters = FieldParameters { start, end, line_limit: asked.params.number("line_limit")?, limit };
    Query::detected_fields(text(&asked.params), field, parameters)
}

async fn patterns(State(gate): State<QueryGate>, request: Request) -> Response {
    answer(&gate, "patterns", request, |asked| {
        let (start, end) = asked.range(RANGE_DEFAULT)?;
        Query::patterns(text(&asked.params), start, end, step(&asked.params)?)
    })
    .await
}

async fn format_query(request: Request) -> Response {
    let formatted = async {
        let params = Params::of(request).await?;
        Ok::<_, Refused>(parser::parse(text(&params))?.to_string())
    };
    match formatted.await {
        Ok(formatted) => answer_json(StatusCode::OK, &json!({ "status": "success", "data": formatted })),
        Err(refused) => refusal(refused),
    }
}

/// A duration as Loki's clients read it.
fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// What Grafana's Logs Drilldown wants to know of the node before it shows anything; bounds that Millpond does not have
/// are `0s`, as Loki writes that there is none.
async fn drilldown_limits(State(gate): State<QueryGate>) -> Response {
    let site = gate.site();
    let retention = site.config.cluster.retention.policy(site.board.shards());
    let limits: Value = json!({
        "discover_log_levels": true,
        "discover_service_name": SERVICE_LABELS,
        "log_level_fields": ["level", "severity", "lvl"],
        "max_entries_limit_per_query": limits::RECORDS_PER_ANSWER.1,
        "max_line_size_truncate": false,
        "max_query_bytes_read": "0B",
        "max_query_length": "0s",
        "max_query_lookback": "0s",
        "max_query_range": "0s",
        "max_query_series": limits::SERIES_MAX,
        "metric_aggregation_enabled": false,
        "pattern_persistence_enabled": true,
        "query_timeout": duration(limits::QUERY_DEADLINE),
        "retention_period": duration(retention.age.unwrap_or_default()),
        "volume_enabled": true,
        "volume_max_series": limits::VOLUME_SERIES.1,
    });
    let body = json!({ "limits": limits, "pattern_ingester_enabled": true, "version": site.build.version });
    answer_json(StatusCode::OK, &body)
}
