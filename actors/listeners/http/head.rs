//! What every request's head must keep to, whichever route it is for.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use millpond::limits;

/// Refuses an address or headers that are too long; what is far too long hyper refuses before, with 431.
pub async fn check(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > limits::URI_BYTES_MAX {
        let most = limits::URI_BYTES_MAX;
        return (StatusCode::URI_TOO_LONG, format!("the address has {length} bytes, {most} are allowed\n"))
            .into_response();
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > limits::HEADER_BYTES_MAX {
        let most = limits::HEADER_BYTES_MAX;
        let why = format!("the headers have {headers} bytes, {most} are allowed\n");
        return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why).into_response();
    }
    next.run(request).await
}
