//! `GET /api/v1/backup`: what this node knows of backups. `POST /api/v1/backup`: make one; 202 with its id as soon as it
//! began, 409 while another is being made here. What comes of it is seen in the report.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use millpond::config::StoreUrl;
use millpond::limits;

use super::json::json;
use crate::backup::report::{BackupBegun, BackupRequest};
use crate::backup::{Backups, BeginRefusal};

/// The routes.
pub fn router(backups: Backups) -> Router {
    Router::new()
        .route("/api/v1/backup", get(report).post(begin))
        .layer(DefaultBodyLimit::max(2 * limits::BACKUP_URL_BYTES_MAX))
        .with_state(backups)
}

async fn report(State(backups): State<Backups>) -> Response {
    json(StatusCode::OK, &backups.report())
}

async fn begin(State(backups): State<Backups>, body: Bytes) -> Response {
    let refused = |status: StatusCode, why: String| (status, format!("{why}\n")).into_response();
    let request: BackupRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, format!("expected {{\"url\": \"...\"}}: {error}")),
    };
    let url = match StoreUrl::try_from(request.url) {
        Ok(url) => url,
        Err(why) => return refused(StatusCode::BAD_REQUEST, why),
    };
    match backups.begin(url).await {
        Ok(id) => json(StatusCode::ACCEPTED, &BackupBegun { id }),
        Err(refusal @ BeginRefusal::Running(_)) => refused(StatusCode::CONFLICT, refusal.to_string()),
        Err(refusal @ (BeginRefusal::NotFormed | BeginRefusal::Restarted)) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string())
        }
    }
}
