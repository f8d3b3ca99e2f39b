//! Loki's HTTP API, request by request: fixed records are pushed to a real node, and every file below `tests/golden/loki`
//! is a request with the answer it must get, as GET and as a form.
//!
//! A file is the path, its parameters as `name = value`, headers as `header name: value`; an empty line; status and
//! content type; the body, JSON indented. Times that pass while a query runs are written as 0, the version as `VERSION`.
//! With `GOLDEN=write` the answers are written anew: read the difference before you commit it.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hyper::{Method, StatusCode};
use millpond_actors::load::Answer;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error as SocketError;

use harness::World;

const FORM: &str = "application/x-www-form-urlencoded";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// A request as a file has it.
struct Asked {
    path: String,
    parameters: String,
    headers: Vec<(String, String)>,
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02x}").expect("into memory");
        out
    })
}

impl Asked {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let path = lines.next().expect("a path").to_owned();
        let (mut parameters, mut headers) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(header) = line.strip_prefix("header ") {
                let (name, value) = header.split_once(": ").expect("name and value");
                headers.push((name.to_owned(), value.to_owned()));
            } else {
                let (name, value) = line.split_once(" = ").unwrap_or((line.trim_end_matches(" ="), ""));
                parameters.push(format!("{}={}", encoded(name), encoded(value)));
            }
        }
        Self { path, parameters: parameters.join("&"), headers }
    }

    async fn ask(&self, world: &World, method: Method) -> Answer {
        let mut headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut url = format!("{}{}", world.url(1), self.path);
        let mut body = String::new();
        if method == Method::POST {
            headers.push(("content-type", FORM));
            body.clone_from(&self.parameters);
        } else {
            url = format!("{url}?{}", self.parameters);
        }
        world.client.request(method, &url, &headers, body.into()).await.unwrap()
    }
}

/// Writes 0 where a time passed, wherever in the answer.
fn calm(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match name.as_str() {
                    "execTime" | "queueTime" | "bytesProcessedPerSecond" | "linesProcessedPerSecond" => {
                        *value = json!(0)
                    }
                    "version" => *value = json!("VERSION"),
                    name if name.ends_with("Seconds") => *value = json!(0),
                    _ => calm(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(calm),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// JSON with an object's fields on lines of their own, and what holds no object on one line.
fn written(value: &Value, indent: usize, out: &mut String) {
    let flat = |value: &Value| !matches!(value, Value::Object(fields) if !fields.is_empty());
    let pad = "  ".repeat(indent + 1);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push_str("{\n");
            for (at, (name, value)) in fields.iter().enumerate() {
                write!(out, "{pad}{}: ", json!(name)).expect("into memory");
                written(value, indent + 1, out);
                out.push_str(if at + 1 < fields.len() { ",\n" } else { "\n" });
            }
            write!(out, "{}}}", "  ".repeat(indent)).expect("into memory");
        }
        Value::Array(values) if !values.iter().all(|value| flat(value) && !value.is_array()) => {
            out.push_str("[\n");
            for (at, value) in values.iter().enumerate() {
                out.push_str(&pad);
                written(value, indent + 1, out);
                out.push_str(if at + 1 < values.len() { ",\n" } else { "\n" });
            }
            write!(out, "{}]", "  ".repeat(indent)).expect("into memory");
        }
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write!(out, "{value}").expect("into memory");
        }
    }
}

fn shown(answer: &Answer) -> String {
    let kind = answer.headers.get("content-type").map_or("none", |value| value.to_str().unwrap());
    let mut text = format!("{} {kind}\n", answer.status.as_u16());
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut body) if kind.starts_with("application/json") => {
            calm(&mut body);
            written(&body, 0, &mut text);
            text.push('\n');
        }
        Ok(_) | Err(_) => text.push_str(&String::from_utf8_lossy(&answer.body)),
    }
    text
}

async fn with_records() -> World {
    let world = World::start(1, "").await;
    let records = fs::read(golden().join("records.json")).unwrap();
    let pushed = world.post(1, "/loki/api/v1/push", "application/json", records).await;
    assert_eq!(pushed.status, StatusCode::NO_CONTENT, "{}", pushed.text());
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_gets_its_golden_answer_as_get_and_as_a_form() {
    let world = with_records().await;
    let write = std::env::var("GOLDEN").is_ok_and(|value| value == "write");
    let mut files: Vec<PathBuf> =
        fs::read_dir(golden().join("loki")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 40, "the golden files are there: {}", files.len());
    let mut wrong = String::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let (request, expected) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let asked = Asked::read(request);
        let got = shown(&asked.ask(&world, Method::GET).await);
        if write {
            fs::write(&file, format!("{request}\n\n{got}")).unwrap();
        } else if got != expected {
            writeln!(wrong, "== {name}\nexpected {expected}\ngot {got}").unwrap();
        }
        if !asked.path.ends_with("/buildinfo") {
            let form = shown(&asked.ask(&world, Method::POST).await);
            assert_eq!(form, got, "{name}: a form is answered as GET is");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_another_type_and_another_method_are_refused() {
    let world = World::start(1, "").await;
    let query = "/loki/api/v1/query";
    let body = r#"{"query":"vector(1)"}"#;
    assert_eq!(world.post(1, query, "application/json", body).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let url = format!("{}{query}?query=vector(1)", world.url(1));
    let answer = world.client.request(Method::DELETE, &url, &[], "".into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tail_too_many_is_429_until_another_is_closed() {
    let world = World::start(1, "").await;
    let url = format!("{}/loki/api/v1/tail?query=%7Bapp%3D%22x%22%7D", world.url(1).replace("http", "ws"));
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(connect_async(url.as_str()).await.unwrap().0);
    }
    let Err(SocketError::Http(refused)) = connect_async(url.as_str()).await else { panic!("one too many") };
    assert_eq!(refused.status().as_u16(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let text = String::from_utf8_lossy(refused.body().as_deref().unwrap_or_default()).into_owned();
    assert!(text.starts_with("too many tails are open"), "{text}");
    open.pop().unwrap().close(None).await.unwrap();
    harness::wait_until("a closed tail makes room", harness::SOON, || async {
        connect_async(url.as_str()).await.map_err(|error| error.to_string())
    })
    .await;
}
