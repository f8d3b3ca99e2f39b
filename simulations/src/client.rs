//! One request to one simulated node, through the routes that its HTTP listener would serve. What becomes of it when the
//! node dies is what becomes of a connection.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::node::Node;

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// An answer: its status, the shard's end where it says one, and its body.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `x-millpond-end-offset`.
    pub end: Option<u64>,
    /// The whole body.
    pub body: Bytes,
}

/// Sends a request; nothing comes back where the node is down, dies meanwhile or takes too long.
pub async fn call(node: &Node, method: Method, uri: &str, headers: &[(&str, &str)], body: Bytes) -> Option<Answer> {
    let up = node.up()?;
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body)).expect("the workload makes well-formed requests");
    let answer = async {
        let response = up.routes.clone().oneshot(request).await.expect("a router answers");
        let status = response.status();
        let end = response.headers().get("x-millpond-end-offset");
        let end = end.and_then(|end| end.to_str().ok()).and_then(|end| end.parse().ok());
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some(Answer { status, end, body })
    };
    tokio::select! {
        biased;
        () = up.life.ended() => None,
        answer = timeout(PATIENCE, answer) => answer.ok().flatten(),
    }
}

/// The same without a body.
pub async fn get(node: &Node, uri: &str) -> Option<Answer> {
    call(node, Method::GET, uri, &[], Bytes::new()).await
}

/// A query parameter's value as it stands in a URI.
pub fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
