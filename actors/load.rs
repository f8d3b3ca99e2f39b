//! The sending side of the push API, at speed: one pooled HTTP client, the encoder of push bodies, and the rule of when a
//! request is sent again. The commands, the demo, the benchmarks and the black-box tests all send through it.
//!
//! It knows the public API only. The encoder is written out by hand on purpose: it shares nothing with the decoder that
//! it exercises.
//!
//! A push body is a snappy block of this protobuf:
//!
//! ```text
//! PushRequest { 1 streams*: { 1 labels: string, 2 entries*: {
//!     1 timestamp: { 1 seconds: int64, 2 nanos: int32 }, 2 line: string, 3 metadata*: { 1 name: string, 2 value: string } } } }
//! ```

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

/// The answer header that names the shards a push touched, separated by commas.
pub const SHARDS_HEADER: &str = "x-millpond-shards";
/// Time to reach a node; nodes are near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// First and longest wait before a request is sent again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What can go wrong between this process and a node. Every case means "maybe": the node may have done its work.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The address or a header is not valid.
    #[error("{url}: not a valid request: {source}")]
    Request {
        /// Where it should have gone.
        url: String,
        /// Why not.
        source: hyper::http::Error,
    },
    /// No connection, or it broke before the answer's head.
    #[error("{url}: no answer: {source}")]
    Connection {
        /// Where it went.
        url: String,
        /// Why not.
        source: hyper_util::client::legacy::Error,
    },
    /// The connection broke within the answer.
    #[error("{url}: the answer broke off: {source}")]
    Body {
        /// Where it went.
        url: String,
        /// Why.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("{url}: no answer within {after:?}")]
    Deadline {
        /// Where it went.
        url: String,
        /// How long it waited.
        after: Duration,
    },
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, for people.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// A pool of connections to any number of nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    deadline: Duration,
}

impl Client {
    /// A client that waits at most `deadline` for each whole answer.
    pub fn new(deadline: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { pool: Pool::builder(TokioExecutor::new()).build(connector), deadline }
    }

    /// Sends one request and reads the answer whole.
    ///
    /// # Errors
    /// Where there is no complete answer; a refusal is an answer.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, LoadError> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(body)).map_err(|source| LoadError::Request { url: url.to_owned(), source })?;
        timeout(self.deadline, self.answer(url, request))
            .await
            .unwrap_or_else(|_| Err(LoadError::Deadline { url: url.to_owned(), after: self.deadline }))
    }

    async fn answer(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Answer, LoadError> {
        let answer =
            self.pool.request(request).await.map_err(|source| LoadError::Connection { url: url.to_owned(), source })?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|source| LoadError::Body { url: url.to_owned(), source })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    /// GET.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn get(&self, url: &str) -> Result<Answer, LoadError> {
        self.request(Method::GET, url, &[], Bytes::new()).await
    }

    /// Sends a push body to a node once.
    pub async fn push(&self, node: &str, body: Bytes) -> Outcome {
        let url = format!("{node}/loki/api/v1/push");
        let headers = [(CONTENT_TYPE.as_str(), "application/x-protobuf")];
        Outcome::of(self.request(Method::POST, &url, &headers, body).await)
    }
}

/// What one attempt to store something came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored on a majority.
    Stored {
        /// The shards it touched, as far as the node says.
        shards: Vec<u32>,
    },
    /// Maybe stored: the same request must be sent again, whole.
    Again {
        /// What was in the way.
        reason: String,
        /// How long the node asks to wait.
        after: Option<Duration>,
    },
    /// Refused, or accepted in part; sending it again changes nothing.
    Refused {
        /// The status.
        status: StatusCode,
        /// What the node says.
        text: String,
    },
}

impl Outcome {
    /// Judges an answer, or its absence.
    pub fn of(answer: Result<Answer, LoadError>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(LoadError::Request { url, source }) => {
                return Self::Refused { status: StatusCode::BAD_REQUEST, text: format!("{url}: {source}") };
            }
            Err(error) => return Self::Again { reason: error.to_string(), after: None },
        };
        let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY];
        let maybe = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT, StatusCode::REQUEST_TIMEOUT];
        if answer.status.is_success() {
            let shards = answer.headers.get(SHARDS_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("");
            Self::Stored { shards: shards.split(',').filter_map(|shard| shard.trim().parse().ok()).collect() }
        } else if again.contains(&answer.status) || maybe.contains(&answer.status) {
            let after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let reason = format!("{}: {}", answer.status, answer.text());
            Self::Again { reason, after: after.map(Duration::from_secs) }
        } else {
            Self::Refused { status: answer.status, text: answer.text() }
        }
    }
}

/// Why a push was given up.
#[derive(Debug, Error)]
pub enum PushError {
    /// A node refused it.
    #[error("refused with {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What the node says.
        text: String,
    },
    /// No node confirmed it in time; it may be stored.
    #[error(
        "not confirmed by {} within {:.1} s, it may be stored or not; last: {last}",
        nodes.join(", "), after.as_secs_f64()
    )]
    Unconfirmed {
        /// The nodes that were asked.
        nodes: Vec<String>,
        /// How long it was tried.
        after: Duration,
        /// What the last attempt came to.
        last: String,
    },
}

/// A push that is on a majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The shards it touched, as far as the node says.
    pub shards: Vec<u32>,
    /// How often it was sent.
    pub attempts: u32,
    /// When the attempt began that was answered.
    pub attempt_began: Instant,
}

/// Sends bodies one after the other to one node, and goes on to the next node when that one fails.
#[derive(Clone, Debug)]
pub struct Pusher {
    client: Client,
    nodes: Vec<String>,
    at: usize,
    /// How long one body is tried.
    pub patience: Duration,
}

impl Pusher {
    /// A pusher that begins at node `at` (modulo their number).
    ///
    /// # Panics
    /// Where `nodes` is empty.
    pub fn new(client: Client, nodes: Vec<String>, at: usize, patience: Duration) -> Self {
        assert!(!nodes.is_empty(), "a pusher needs a node");
        Self { client, at: at % nodes.len(), nodes, patience }
    }

    /// Sends the same bytes until a node confirms or refuses them.
    ///
    /// # Errors
    /// Where a node refuses, or patience ends.
    pub async fn push(&mut self, body: &Bytes) -> Result<Acknowledged, PushError> {
        let began = Instant::now();
        let mut attempts = 0;
        let mut backoff = BACKOFF.0;
        loop {
            let attempt_began = Instant::now();
            attempts += 1;
            match self.client.push(&self.nodes[self.at], body.clone()).await {
                Outcome::Stored { shards } => return Ok(Acknowledged { shards, attempts, attempt_began }),
                Outcome::Refused { status, text } => return Err(PushError::Refused { status, text }),
                Outcome::Again { reason, after } => {
                    if began.elapsed() >= self.patience {
                        let nodes = self.nodes.clone();
                        return Err(PushError::Unconfirmed { nodes, after: began.elapsed(), last: reason });
                    }
                    self.at = (self.at + 1) % self.nodes.len();
                    sleep(after.map_or(backoff, |after| after.min(BACKOFF.1))).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }
}

/// One stream's part of a push body, encoded as it grows.
#[derive(Clone, Debug)]
pub struct StreamBody {
    labels: String,
    entries: Vec<u8>,
    scratch: Vec<u8>,
    records: usize,
    line_bytes: usize,
}

impl StreamBody {
    /// A stream without records; `labels` as LogQL writes them: `{a="b"}`.
    pub fn new(labels: impl Into<String>) -> Self {
        Self { labels: labels.into(), entries: Vec::new(), scratch: Vec::new(), records: 0, line_bytes: 0 }
    }

    /// Adds a record.
    pub fn push<'a>(&mut self, timestamp: i64, line: &str, metadata: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.scratch.clear();
        let mut time = Vec::with_capacity(16);
        put_varint(&mut time, 1 << 3);
        put_varint(&mut time, timestamp.div_euclid(1_000_000_000).cast_unsigned());
        put_varint(&mut time, 2 << 3);
        put_varint(&mut time, timestamp.rem_euclid(1_000_000_000).cast_unsigned());
        put_bytes(&mut self.scratch, 1, &time);
        put_bytes(&mut self.scratch, 2, line.as_bytes());
        for (name, value) in metadata {
            let mut pair = Vec::with_capacity(name.len() + value.len() + 8);
            put_bytes(&mut pair, 1, name.as_bytes());
            put_bytes(&mut pair, 2, value.as_bytes());
            put_bytes(&mut self.scratch, 3, &pair);
        }
        put_bytes(&mut self.entries, 2, &self.scratch);
        self.records += 1;
        self.line_bytes += line.len();
    }

    /// How many records it holds.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of the lines alone.
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// Encoded bytes so far, before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.entries.len() + self.labels.len()
    }
}

/// The compressed push body of some streams.
pub fn encode<'a>(streams: impl IntoIterator<Item = &'a StreamBody>) -> Bytes {
    let mut request = Vec::new();
    for stream in streams {
        let mut part = Vec::with_capacity(stream.encoded_bytes() + 16);
        put_bytes(&mut part, 1, stream.labels.as_bytes());
        part.extend_from_slice(&stream.entries);
        put_bytes(&mut request, 1, &part);
    }
    snap::raw::Encoder::new().compress_vec(&request).expect("a body is far below the 4 GiB that snappy takes").into()
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn put_bytes(into: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(into, field << 3 | 2);
    put_varint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Entry {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        line: String,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Pair>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Timestamp {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[test]
    fn a_body_decodes_as_the_published_message() {
        let mut stream = StreamBody::new(r#"{a="b"}"#);
        stream.push(1_700_000_000_000_000_007, "first", []);
        stream.push(-1, &"x".repeat(300), [("trace", "42")]);
        let body = snap::raw::Decoder::new().decompress_vec(&encode([&stream])).unwrap();
        let decoded = PushRequest::decode(&body[..]).unwrap();
        let timestamp = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let entries = vec![
            Entry { timestamp: timestamp(1_700_000_000, 7), line: "first".into(), metadata: vec![] },
            Entry {
                timestamp: timestamp(-1, 999_999_999),
                line: "x".repeat(300),
                metadata: vec![Pair { name: "trace".into(), value: "42".into() }],
            },
        ];
        assert_eq!(decoded.streams, [Stream { labels: r#"{a="b"}"#.into(), entries }]);
        assert_eq!((stream.records(), stream.line_bytes()), (2, 305));
    }

    #[test]
    fn a_success_names_its_shards_and_an_overloaded_node_asks_to_wait() {
        let answer = |status: u16, name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Ok(Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(b"why\n") })
        };
        assert_eq!(Outcome::of(answer(204, SHARDS_HEADER, "3, 7")), Outcome::Stored { shards: vec![3, 7] });
        let Outcome::Again { after, .. } = Outcome::of(answer(503, "retry-after", "2")) else { panic!("retried") };
        assert_eq!(after, Some(Duration::from_secs(2)));
        let refused = Outcome::Refused { status: StatusCode::BAD_REQUEST, text: "why".into() };
        assert_eq!(Outcome::of(answer(400, "retry-after", "2")), refused);
    }
}
