//! `GET /loki/api/v1/tail`: a log query over a WebSocket, one JSON frame for each piece of it. A reader that takes too
//! long for a frame is cut off; nothing is left out of what it was sent.

use std::time::Duration;

use axum::RequestExt as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use millpond::limits;
use millpond::query::QueryError;
use millpond::query::answer::{Encoding, tail_frame};
use millpond::query::ast::Expr;
use millpond::query::plan;
use millpond::query::time::parse_time;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::intake::{Refused, tenant};
use super::params::Params;
use super::query::{encoding, refusal, text};
use crate::query::{QueryGate, Tail, TailQuestion};

/// How far back a tail begins that does not say.
const START_DEFAULT: Duration = Duration::from_secs(3_600);
/// The most that Loki lets a client ask a tail to lag behind; Millpond has no need to lag at all.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Opens a tail.
pub(super) async fn tail(State(gate): State<QueryGate>, request: Request) -> Response {
    match open(&gate, request).await {
        Ok(response) => response,
        Err(refused) => refusal(refused),
    }
}

async fn open(gate: &QueryGate, mut request: Request) -> Result<Response, Refused> {
    let question = question(gate, &request)?;
    let encoding = encoding(request.headers());
    let upgrade = request.extract_parts::<WebSocketUpgrade>().await;
    let upgrade = upgrade.map_err(|error| Refused::new(error.status(), format!("a tail is a WebSocket: {error}")))?;
    let tail = gate.tail(question).await?;
    let gate = gate.clone();
    Ok(upgrade.on_upgrade(async move |socket| {
        let metrics = &gate.site().metrics;
        metrics.tail_opened();
        follow(socket, tail, encoding).await;
        metrics.tail_closed();
    }))
}

fn question(gate: &QueryGate, request: &Request) -> Result<TailQuestion, Refused> {
    let params = Params::of_url(request.uri().query())?;
    let Expr::Logs(logs) = plan::parse(text(&params))? else {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "a tail follows a log query, not a metric query"));
    };
    let now = gate.site().env.clock.now();
    let back = i64::try_from(START_DEFAULT.as_nanos()).unwrap_or(i64::MAX);
    let start = params.get("start").map_or(Ok(now.saturating_sub(back)), |start| parse_time("start", start))?;
    let limit = plan::limit(params.number("limit")?)?;
    if let Some(delay) = params.number("delay_for")?
        && delay > DELAY_MAX.as_secs()
    {
        let expected = format!("at most {} seconds", DELAY_MAX.as_secs());
        let error = QueryError::Parameter { name: "delay_for".to_owned(), value: delay.to_string(), expected };
        return Err(error.into());
    }
    Ok(TailQuestion { tenant: tenant(request.headers())?, logs, start, limit })
}

/// Sends frames until one side ends it.
async fn follow(mut socket: WebSocket, mut tail: Tail, encoding: Encoding) {
    let mut pings = interval_at(Instant::now() + limits::TAIL_PING, limits::TAIL_PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            came = socket.recv() => match came {
                // What a reader says does not matter, only that it is there.
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
            records = tail.next() => match records {
                Ok(records) => Message::Text(tail_frame(&records, encoding).into()),
                Err(error) => return close(socket, close_code::ERROR, &error.to_string()).await,
            },
        };
        match timeout(limits::TAIL_SLOW_AFTER, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return close(socket, close_code::POLICY, "the reader was too slow").await,
        }
    }
}

/// A close frame holds 123 bytes of reason.
const REASON_BYTES_MAX: usize = 123;

async fn close(mut socket: WebSocket, code: u16, why: &str) {
    let mut end = why.len().min(REASON_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame { code, reason: why[..end].into() };
    // Best effort: who is too slow for a frame may be too slow for this one.
    let _ = timeout(Duration::from_secs(1), socket.send(Message::Close(Some(frame)))).await;
}
