//! Malformed, oversized and slow input, over raw sockets: each gets the status it deserves, and the node goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use millpond_actors::load::{Answer, StreamBody, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use harness::{World, now};

const PUSH: &str = "/loki/api/v1/push";
const RECORDS: &str = "/api/v1/records";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
const NDJSON: &str = "application/x-ndjson";

/// Sends bytes as they are and reads until the node closes; everything it said.
async fn raw(world: &World, bytes: &[u8], within: Duration) -> String {
    let address = world.url(1).replace("http://", "");
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The node may answer and close before it has read everything.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(within, socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "closed within {within:?}; got {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn status_of(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn expect(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn json_push(line: &str, timestamp: i64) -> String {
    serde_json::json!({"streams": [{"stream": {"service_name": "bad"}, "values": [[timestamp.to_string(), line]]}]})
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_bodies_are_400_and_name_nothing_as_stored() {
    let world = World::start(1, "").await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&str, &str, &str, Bytes); 9] = [
        ("json cut off", JSON, "", r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]"#.into()),
        ("json of another shape", JSON, "", r#"{"streams":[{"stream":{"a":"b"},"values":[["1"]]}]}"#.into()),
        ("numeric timestamp", JSON, "", r#"{"streams":[{"stream":{"a":"b"},"values":[[1,"x"]]}]}"#.into()),
        ("nesting bomb", JSON, "", deep.into()),
        ("bad snappy", PROTOBUF, "", Bytes::from_static(&[0xff; 64])),
        ("bad protobuf", PROTOBUF, "", snap::raw::Encoder::new().compress_vec(&[0xff; 64]).unwrap().into()),
        ("bad gzip", JSON, "gzip", "not gzip".into()),
        ("bad deflate", JSON, "deflate", Bytes::from_static(&[0xff; 64])),
        ("bad zstd", JSON, "zstd", "not zstd".into()),
    ];
    for (name, content_type, encoding, body) in cases {
        let mut headers = vec![("content-type", content_type)];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding));
        }
        let answer = world.post_with(1, PUSH, &headers, body).await;
        expect(name, &answer, 400);
        assert!(!answer.text().is_empty(), "{name}: it says what is wrong");
    }
    assert_eq!(world.query(1, r#"{service_name=~".+"}"#).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_big_are_413_as_sent_and_when_inflated() {
    let world = World::start(1, "").await;
    let head = format!("POST {PUSH} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\nconnection: close\r\n");
    let declared =
        raw(&world, format!("{head}content-length: {}\r\n\r\n", 17 << 20).as_bytes(), Duration::from_secs(20)).await;
    assert_eq!(status_of(&declared), 413, "declared: {declared}");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b'x');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let grown = raw(&world, &chunked, Duration::from_secs(20)).await;
    assert_eq!(status_of(&grown), 413, "chunked: {grown}");

    let bomb = gzip(&vec![b' '; 80 << 20]);
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    expect("gzip bomb", &world.post_with(1, PUSH, &headers, bomb).await, 413);
    let bomb = zstd::encode_all(&vec![b' '; 80 << 20][..], 3).unwrap();
    let headers = [("content-type", JSON), ("content-encoding", "zstd")];
    expect("zstd bomb", &world.post_with(1, PUSH, &headers, bomb).await, 413);
    // A snappy block that promises more than is allowed, and holds nothing.
    let promise = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let status = world.post(1, PUSH, PROTOBUF, promise.to_vec()).await.status;
    assert!([StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST].contains(&status), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_good_by_their_head_are_told_so() {
    let world = World::start(1, "").await;
    let body = json_push("x", now());
    expect("unknown path", &world.get(1, "/loki/api/v2/nothing").await, 404);
    expect("wrong method", &world.get(1, PUSH).await, 405);
    let answer = world.post_with(1, PUSH, &[("content-type", JSON), ("content-encoding", "br")], body.clone()).await;
    expect("unknown encoding", &answer, 415);
    expect("wrong content type", &world.post(1, RECORDS, "image/png", "{}").await, 415);
    expect("no content type", &world.post_with(1, PUSH, &[], body).await, 400);
    let within = Duration::from_secs(20);
    let uri = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "x".repeat(40 << 10));
    assert_eq!(status_of(&raw(&world, uri.as_bytes(), within).await), 414);
    let header =
        format!("GET /ready HTTP/1.1\r\nhost: x\r\nx-much: {}\r\nconnection: close\r\n\r\n", "x".repeat(80 << 10));
    assert_eq!(status_of(&raw(&world, header.as_bytes(), within).await), 431);
    assert_eq!(status_of(&raw(&world, b"NONSENSE\r\n\r\n", within).await), 400);
    assert!(world.get(1, "/ready").await.status.is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_and_slow_bodies_are_408_and_closed() {
    let world = World::start(1, "").await;
    let began = Instant::now();
    let body = format!("POST {PUSH} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{{");
    let (headers, body) = tokio::join!(
        raw(&world, b"POST /loki/api/v1/push HTTP/1.1\r\nhost: x\r\n", Duration::from_secs(25)),
        raw(&world, body.as_bytes(), Duration::from_secs(60)),
    );
    assert_eq!(status_of(&headers), 408, "headers: {headers}");
    assert_eq!(status_of(&body), 408, "body: {body}");
    assert!(began.elapsed() < Duration::from_secs(55));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_partly_invalid_stores_the_rest_and_names_it() {
    let world = World::start(1, "").await;
    let mut stream = StreamBody::new(r#"{service_name="partly"}"#);
    stream.push(now(), "good before", []);
    stream.push(now(), &"x".repeat((256 << 10) + 1), []);
    stream.push(now() + 3_600_000_000_000, "an hour ahead", []);
    stream.push(now(), "good after", []);
    let labels: Vec<String> = (0..16).map(|at| format!("l{at}=\"v\"")).collect();
    let mut many = StreamBody::new(format!("{{{}}}", labels.join(",")));
    many.push(now(), "too many labels", []);
    let mut long = StreamBody::new(format!(r#"{{service_name="{}"}}"#, "x".repeat(3_000)));
    long.push(now(), "too long a label", []);
    let answer = world.post(1, PUSH, PROTOBUF, encode([&stream, &many, &long])).await;
    expect("partly invalid", &answer, 400);
    assert_eq!(world.query(1, r#"{service_name="partly"}"#).await, ["good before", "good after"]);
    assert_eq!(world.query(1, r#"{l0="v"}"#).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_batch_is_stored_whole_or_not_at_all_unless_asked() {
    let world = World::start(1, "").await;
    let line =
        |text: &str| format!(r#"{{"timestamp":{},"line":"{text}","labels":{{"service_name":"native"}}}}"#, now());
    let body = format!("{}\n{{\"timestamp\":\n{}\n", line("one"), line("two"));
    let answer = world.post(1, RECORDS, NDJSON, body.clone()).await;
    expect("a bad line", &answer, 400);
    let refused: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(refused["refused"][0]["line"], 2, "{refused}");
    assert!(refused["refused"][0]["column"].is_u64(), "{refused}");
    assert_eq!(world.query(1, r#"{service_name="native"}"#).await, Vec::<String>::new());
    world.post(1, &format!("{RECORDS}?partial=true"), NDJSON, body).await;
    assert_eq!(world.query(1, r#"{service_name="native"}"#).await, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_stored_once_and_refused_with_another_body() {
    let world = World::start(1, "").await;
    let body = |text: &str| {
        format!(r#"{{"timestamp":5,"line":"{text}","labels":{{"service_name":"keyed"}}}}"#)
            .replace('5', &now().to_string())
    };
    let (first, other) = (body("one"), body("two"));
    let headers = [("content-type", NDJSON), ("idempotency-key", "key-1")];
    for _ in 0..3 {
        let answer = world.post_with(1, RECORDS, &headers, first.clone()).await;
        assert!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    }
    expect("another body", &world.post_with(1, RECORDS, &headers, other).await, 422);
    assert_eq!(world.query(1, r#"{service_name="keyed"}"#).await, ["one"]);
    // The same push, whole, is a retry; a line that repeats within one is not.
    let mut stream = StreamBody::new(r#"{service_name="again"}"#);
    stream.push(now(), "repeated", []);
    stream.push(now(), "repeated", []);
    let push = encode([&stream]);
    for _ in 0..3 {
        expect("a retry", &world.post(1, PUSH, PROTOBUF, push.clone()).await, 204);
    }
    assert_eq!(world.query(1, r#"{service_name="again"}"#).await, ["repeated", "repeated"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_cannot_be_answered_are_400_and_say_why() {
    let world = World::start(1, "").await;
    let query = |query: &str, rest: &str| format!("/loki/api/v1/query_range?query={query}{rest}");
    let cases = [
        ("syntax", query("%7Ba%3D", "")),
        ("empty selector", query("%7B%7D", "")),
        ("bad regex", query("%7Ba%3D~%22%28%22%7D", "")),
        ("limit", query("%7Ba%3D%22b%22%7D", "&limit=5001")),
        ("points", query("rate%28%7Ba%3D%22b%22%7D%5B1m%5D%29", "&start=0&end=1000000&step=1s")),
        ("range", query("%7Ba%3D%22b%22%7D", "&start=2000&end=1000")),
        ("a log query at one moment", "/loki/api/v1/query?query=%7Ba%3D%22b%22%7D".to_owned()),
        ("too long", query(&"x".repeat(17 << 10), "")),
    ];
    for (name, path) in cases {
        let answer = world.get(1, &path).await;
        expect(name, &answer, 400);
        assert!(!answer.text().is_empty(), "{name}");
    }
    let answer = world.get(1, &query("%7Ba%3D", "")).await;
    assert!(answer.text().contains("line 1, col "), "{}", answer.text());
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_503_within_two_seconds_and_stores_nothing_twice() {
    let mut world = World::start(3, "").await;
    world.store(1, r#"{service_name="minority"}"#, &["before".to_owned()]).await;
    world.cluster.node(2).kill().unwrap();
    world.cluster.node(3).kill().unwrap();
    // Until the leader has noticed, the outcome is unknown; then it is refused at once.
    let body = json_push("maybe", now());
    harness::wait_until("503 within 2 s", Duration::from_secs(30), || async {
        let began = Instant::now();
        let answer = world.post(1, PUSH, JSON, body.clone()).await;
        let took = began.elapsed();
        let wait = answer.headers.contains_key("retry-after");
        let good = answer.status == StatusCode::SERVICE_UNAVAILABLE && wait && took < Duration::from_secs(2);
        if good { Ok(()) } else { Err(format!("{} after {took:?}, Retry-After: {wait}", answer.status)) }
    })
    .await;
    world.start_all().await;
    let stored = harness::wait_until("the same push is stored", Duration::from_secs(30), || async {
        let answer = world.post(1, PUSH, JSON, body.clone()).await;
        if answer.status == StatusCode::NO_CONTENT { Ok(answer) } else { Err(answer.text()) }
    })
    .await;
    drop(stored);
    assert_eq!(world.query(1, r#"{service_name="bad"}"#).await, ["maybe"]);
    let shards = world.store(1, r#"{service_name="minority"}"#, &["after".to_owned()]).await;
    let lines = world.leader_lines(1, shards[0]).await;
    assert_eq!(lines.iter().filter(|line| *line == "before" || *line == "after").count(), 2);
}
