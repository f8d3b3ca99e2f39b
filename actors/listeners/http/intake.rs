//! Routes for those who send: what all of them share, from the headers to the ingester and back.
//!
//! A request is admitted by its bytes before they are read, read within its bounds, and handed to an ingester; the answer
//! comes when its outcome is known. What a body means is not known here; what an endpoint makes of headers and outcome
//! is in its own file.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, request};
use axum::response::Response;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use millpond::id::Key;
use millpond::limits;
use millpond::protocol::{BodyKind, Encoding, ProtocolError, Verdict as Judgement};
use tokio::time::timeout;

use super::{push, records_in};
use crate::ingest::{Content, Gate, Landing, Permit, Submission, Verdict};
use crate::load::SHARDS_HEADER;
use crate::metrics::Metrics;

/// Whose records they are, where there is but one tenant.
const SINGLE_TENANT: &str = "fake";
/// Says who sends.
const TENANT_HEADER: &str = "x-scope-orgid";
/// The client's own key.
const KEY_HEADER: &str = "idempotency-key";

/// What these routes need.
#[derive(Clone, Debug)]
pub struct IntakeState {
    /// Admission, and the way to an ingester.
    pub gate: Gate,
    /// The node's numbers.
    pub metrics: Arc<Metrics>,
}

/// The routes.
pub fn router(state: IntakeState) -> Router {
    Router::new()
        .route("/loki/api/v1/push", post(loki))
        .route("/api/prom/push", post(loki))
        .route("/api/v1/records", post(records))
        .route("/api/v1/restore", post(restore))
        .with_state(state)
}

async fn loki(State(state): State<IntakeState>, request: Request) -> Response {
    let landed = state.take_in(request, |head| sent(&head.headers, BodyKind::of_push, true)).await;
    state.answer("loki", landed, push::answer)
}

async fn records(State(state): State<IntakeState>, request: Request) -> Response {
    let content = |head: &request::Parts| sent(&head.headers, BodyKind::of_records, records_in::stores_a_part(head));
    let landed = state.take_in(request, content).await;
    state.answer("ndjson", landed, records_in::answer)
}

/// Records of a backup, as `millpond restore` sends them. They are answered as a push is.
async fn restore(State(state): State<IntakeState>, request: Request) -> Response {
    let landed = state.take_in(request, |head| restored(&head.headers)).await;
    state.answer("restore", landed, push::answer)
}

/// Why a request was refused before an ingester saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status of the answer.
    pub status: StatusCode,
    /// Why, in words.
    pub why: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl ToString) -> Self {
        Self { status, why: why.to_string() }
    }
}

impl From<ProtocolError> for Refused {
    fn from(error: ProtocolError) -> Self {
        Self::new(status_of(&error), error)
    }
}

fn status_of(error: &ProtocolError) -> StatusCode {
    match error.verdict() {
        Judgement::Malformed => StatusCode::BAD_REQUEST,
        Judgement::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Judgement::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
    }
}

impl IntakeState {
    /// Reads a request and waits for its outcome.
    async fn take_in(
        &self,
        request: Request,
        content: impl FnOnce(&request::Parts) -> Result<Content, Refused>,
    ) -> Result<Landing, Refused> {
        let (head, body) = request.into_parts();
        let admitted = content(&head).and_then(|content| Ok((content, self.admit(&body)?)));
        let (content, permit) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                drain(body);
                return Err(refused);
            }
        };
        let body = read(body).await?;
        // A body of unknown length was given room for the largest.
        let permit = self.gate.admit(body.len()).unwrap_or(permit);
        Ok(self.gate.submit(Submission { content, body, permit }).await)
    }

    fn admit(&self, body: &Body) -> Result<Permit, Refused> {
        self.gate.admit(announced(body)?).map_err(|why| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why))
    }

    /// Counts what came of a request, and puts it as its endpoint does.
    fn answer(
        &self,
        protocol: &'static str,
        landed: Result<Landing, Refused>,
        put: impl FnOnce(Result<&Landing, &Refused>) -> Response,
    ) -> Response {
        let mut response = put(landed.as_ref());
        let status = response.status();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, limits::RETRY_AFTER.as_secs().into());
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        let Ok(landing) = landed else {
            self.metrics.ingested(protocol, status.as_u16(), 0, 0);
            return response;
        };
        let stored = if matches!(landing.verdict, Verdict::Stored) { landing.accepted as u64 } else { 0 };
        let bytes = if stored > 0 { landing.raw_bytes as u64 } else { 0 };
        self.metrics.ingested(protocol, status.as_u16(), stored, bytes);
        for (reason, records) in &landing.refusals.counts {
            self.metrics.discarded(reason.metric(), *records as u64);
        }
        if stored > 0 {
            let shards: Vec<String> = landing.shards.iter().map(|shard| shard.0.to_string()).collect();
            let shards = shards.join(",").parse().expect("digits and commas");
            response.headers_mut().insert(SHARDS_HEADER, shards);
        }
        response
    }
}

/// The status that an outcome has on every endpoint; `None` where everything accepted was stored. With it, why.
pub(super) fn failure(verdict: &Verdict) -> Option<(StatusCode, String)> {
    Some(match verdict {
        Verdict::Stored => return None,
        Verdict::Malformed(error) => (status_of(error), error.to_string()),
        Verdict::Conflict => {
            (StatusCode::UNPROCESSABLE_ENTITY, "this idempotency key was used with another body".to_owned())
        }
        Verdict::TooManyStreams => {
            let most = limits::STREAMS_PER_TENANT_MAX;
            (
                StatusCode::BAD_REQUEST,
                format!("the tenant would have more than {most} streams in a shard; use fewer label values"),
            )
        }
        Verdict::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, (*why).to_owned()),
        Verdict::TimedOut => {
            let why = "no outcome in time: the records may be stored or not; send the request again, whole";
            (StatusCode::GATEWAY_TIMEOUT, why.to_owned())
        }
    })
}

/// What the headers say of the body of a client.
fn sent(
    headers: &HeaderMap,
    kind: impl FnOnce(Option<&str>) -> Result<BodyKind, ProtocolError>,
    partial: bool,
) -> Result<Content, Refused> {
    Ok(Content::Sent {
        tenant: tenant(headers)?,
        kind: kind(text(headers, header::CONTENT_TYPE.as_str())?)?,
        encoding: Encoding::from_header(text(headers, header::CONTENT_ENCODING.as_str())?)?,
        idempotency_key: idempotency_key(headers)?,
        partial,
    })
}

/// The same of a body with records of a backup: its key is 32 hexadecimal digits, and it must have one.
fn restored(headers: &HeaderMap) -> Result<Content, Refused> {
    let key = text(headers, KEY_HEADER)?.filter(|key| key.len() == 32);
    let key = key.and_then(|key| u128::from_str_radix(key, 16).ok());
    let why = "a request to restore has an Idempotency-Key of 32 hexadecimal digits";
    let key = key.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, why))?;
    Ok(Content::Restored { key: Key(key) })
}

/// A header that may come once, as text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refused::new(StatusCode::BAD_REQUEST, format!("the header {name} came twice")));
    }
    let bad = |_| Refused::new(StatusCode::BAD_REQUEST, format!("the header {name} is not ASCII text"));
    value.to_str().map(Some).map_err(bad)
}

/// The tenant that a request names, or the one there is without names.
pub(super) fn tenant(headers: &HeaderMap) -> Result<Arc<str>, Refused> {
    let name = text(headers, TENANT_HEADER)?.unwrap_or(SINGLE_TENANT);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!-_.*'()".contains(&byte);
    let fits = (1..=limits::TENANT_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(allowed) && name != "." && name != ".." {
        return Ok(name.into());
    }
    let most = limits::TENANT_BYTES_MAX;
    let why = format!("X-Scope-OrgID names a tenant in 1 to {most} of the characters a-z A-Z 0-9 ! - _ . * ' ( )");
    Err(Refused::new(StatusCode::BAD_REQUEST, why))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    match text(headers, KEY_HEADER)? {
        Some(key) if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX => {
            let most = limits::IDEMPOTENCY_KEY_BYTES_MAX;
            Err(Refused::new(StatusCode::BAD_REQUEST, format!("an Idempotency-Key has 1 to {most} bytes")))
        }
        key => Ok(key.map(str::to_owned)),
    }
}

fn too_large() -> Refused {
    let most = limits::REQUEST_BYTES_MAX;
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request has at most {most} bytes; send several"))
}

/// How many bytes to make room for: what the client announced, else the most it may send.
fn announced(body: &Body) -> Result<usize, Refused> {
    let Some(length) = body.size_hint().exact() else { return Ok(limits::REQUEST_BYTES_MAX) };
    usize::try_from(length).ok().filter(|length| *length <= limits::REQUEST_BYTES_MAX).ok_or_else(too_large)
}

/// Reads a body to its end, within its bounds of bytes and time.
async fn read(mut body: Body) -> Result<Bytes, Refused> {
    let mut bytes = BytesMut::with_capacity(if body.size_hint().exact().is_some() { announced(&body)? } else { 0 });
    let whole = async {
        loop {
            let slow = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the body makes no progress");
            let Some(frame) = timeout(limits::BODY_IDLE_TIMEOUT, body.frame()).await.map_err(slow)? else {
                return Ok(());
            };
            let broken = |error| Refused::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"));
            // Trailers say nothing to us.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if bytes.len() + data.len() > limits::REQUEST_BYTES_MAX {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    };
    let outcome = timeout(limits::BODY_TIMEOUT, whole).await;
    let slow = |_| Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body takes too long"));
    if let Err(refused) = outcome.unwrap_or_else(slow) {
        if refused.status == StatusCode::PAYLOAD_TOO_LARGE {
            drain(body);
        }
        return Err(refused);
    }
    Ok(bytes.freeze())
}

/// Takes the rest of a refused body from the socket, to a bound, while the answer goes out: a client that is still
/// sending when its socket closes never reads why.
fn drain(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(timeout(limits::BODY_DRAIN_TIMEOUT, async move {
        let mut left = limits::BODY_DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let taken = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(taken) else { return };
            left = rest;
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::{StreamExt, stream};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn status(pairs: &[(&'static str, &str)]) -> u16 {
        sent(&headers(pairs), BodyKind::of_push, true).map_or_else(|refused| refused.status.as_u16(), |_| 0)
    }

    #[test]
    fn headers_say_who_sends_what() {
        let pairs = [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("x-scope-orgid", "team-a"),
            ("idempotency-key", "k1"),
        ];
        let want = Content::Sent {
            tenant: "team-a".into(),
            kind: BodyKind::LokiJson,
            encoding: Encoding::Gzip,
            idempotency_key: Some("k1".to_owned()),
            partial: true,
        };
        assert_eq!(sent(&headers(&pairs), BodyKind::of_push, true), Ok(want));
        let bare = Content::Sent {
            tenant: "fake".into(),
            kind: BodyKind::Ndjson,
            encoding: Encoding::Identity,
            idempotency_key: None,
            partial: false,
        };
        assert_eq!(sent(&headers(&[]), BodyKind::of_records, false), Ok(bare));
    }

    #[test]
    fn a_restored_body_needs_the_key_that_its_content_has() {
        let key = format!("{:032x}", 7);
        assert_eq!(restored(&headers(&[("idempotency-key", &key)])), Ok(Content::Restored { key: Key(7) }));
        for bad in ["7", "", &key.replace('7', "x"), &format!("{key}0")] {
            assert_eq!(restored(&headers(&[("idempotency-key", bad)])).unwrap_err().status, 400, "{bad:?}");
        }
        assert_eq!(restored(&headers(&[])).unwrap_err().status, 400);
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let json = ("content-type", "application/json");
        assert_eq!(status(&[json]), 0);
        assert_eq!(status(&[]), 400);
        assert_eq!(status(&[("content-type", "nonsense")]), 415);
        assert_eq!(status(&[json, ("content-encoding", "br")]), 415);
        assert_eq!(status(&[json, json]), 400);
        assert_eq!(status(&[json, ("idempotency-key", "")]), 400);
        assert_eq!(status(&[json, ("idempotency-key", &"k".repeat(limits::IDEMPOTENCY_KEY_BYTES_MAX + 1))]), 400);
        for bad in ["", "a|b", "a/b", "..", ".", "a b", &"t".repeat(limits::TENANT_BYTES_MAX + 1)] {
            assert_eq!(status(&[json, ("x-scope-orgid", bad)]), 400, "{bad:?}");
        }
        assert_eq!(status(&[json, ("x-scope-orgid", &"t".repeat(limits::TENANT_BYTES_MAX))]), 0);
    }

    fn chunks(count: usize) -> Body {
        let chunk = Bytes::from(vec![0; 1 << 20]);
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, Infallible>(chunk.clone()))))
    }

    #[tokio::test]
    async fn a_body_is_bounded_before_and_while_it_is_read() {
        let announces = |length| announced(&Body::from(vec![0; length]));
        assert_eq!(announces(5), Ok(5));
        assert_eq!(announces(limits::REQUEST_BYTES_MAX), Ok(limits::REQUEST_BYTES_MAX));
        assert_eq!(announces(limits::REQUEST_BYTES_MAX + 1).unwrap_err().status, 413);
        assert_eq!(announced(&chunks(1)), Ok(limits::REQUEST_BYTES_MAX));
        assert_eq!(read(Body::from("hello")).await.unwrap(), "hello");
        assert_eq!(read(chunks(16)).await.unwrap().len(), limits::REQUEST_BYTES_MAX);
        assert_eq!(read(chunks(17)).await.unwrap_err().status, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_or_trickles_is_cut_off() {
        let stalls = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"a"))]).chain(stream::pending());
        assert_eq!(read(Body::from_stream(stalls)).await.unwrap_err().status, 408);
        let trickles = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"a")), ()))
        });
        assert_eq!(read(Body::from_stream(trickles)).await.unwrap_err().status, 408);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let broken = stream::iter([Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("gone"))]);
        assert_eq!(read(Body::from_stream(broken)).await.unwrap_err().status, 400);
    }

    #[test]
    fn every_outcome_has_its_status() {
        let status = |verdict| failure(&verdict).map_or(0, |(status, _)| status.as_u16());
        assert_eq!(status(Verdict::Stored), 0);
        assert_eq!(status(Verdict::Malformed(ProtocolError::NoContentType)), 400);
        assert_eq!(status(Verdict::Malformed(ProtocolError::TooLarge { what: "records", bound: 1 })), 413);
        assert_eq!(status(Verdict::TooManyStreams), 400);
        assert_eq!(status(Verdict::Conflict), 422);
        assert_eq!(status(Verdict::Unavailable("why")), 503);
        assert_eq!(status(Verdict::TimedOut), 504);
    }
}
