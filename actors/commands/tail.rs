//! `millpond tail`: records as they are acknowledged, over the node's WebSocket.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use futures_util::StreamExt as _;
use millpond_actors::moment;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::query::Stream;
use super::search::refused;
use super::{NodesArgs, Paint, now, unanswered, url_query};

/// Follow records that match a LogQL selector
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond tail '{service_name="checkout"}'
  millpond tail '{level="error"} |= "timeout"' --since 10m      begin ten minutes ago
  millpond tail '{host="web-1"}' --json | jq .                   one JSON frame a line

Exit codes: 0 ended with Ctrl-C; 1 the node ended it, or could not be reached; 2 wrong usage."#)]
pub(crate) struct Args {
    /// The LogQL selector, with line filters
    query: String,
    /// Begin this long ago
    #[arg(long, value_name = "DURATION", value_parser = moment::parse_duration)]
    since: Option<Duration>,
    /// Frames as the node sends them
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The text of the lines alone
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    nodes: NodesArgs,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    streams: Vec<Stream>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let since = args.since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    let start = now().saturating_sub(since).to_string();
    let query = url_query(&[("query", &args.query), ("start", &start)]);
    let (mut socket, mut silent) = (None, Vec::new());
    for node in args.nodes.urls() {
        let url = format!("{}/loki/api/v1/tail{query}", node.replacen("http", "ws", 1));
        match connect_async(url.as_str()).await {
            Ok((connected, _)) => {
                socket = Some(connected);
                break;
            }
            Err(SocketError::Http(answer)) => {
                let text = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let said = refused(&node, answer.status(), text.trim(), Some(&args.query));
                if answer.status().is_client_error() {
                    bail!("{said}");
                }
                silent.push(said);
            }
            Err(SocketError::Io(error)) => silent.push(format!("{node}: {error}")),
            Err(error) => silent.push(format!("{node}: no answer in HTTP: {error}")),
        }
    }
    let Some(mut socket) = socket else { return Err(unanswered(&silent)) };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let paint = Paint::stdout();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        };
        match message {
            Some(Ok(Message::Text(text))) => show(&text, &args, paint)?,
            Some(Ok(Message::Close(Some(close)))) => bail!("the node ended the tail: {} {}", close.code, close.reason),
            Some(Ok(Message::Close(None))) | None => bail!("the node ended the tail"),
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(error).context("the tail broke off"),
        }
    }
}

fn show(text: &str, args: &Args, paint: Paint) -> Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", text.trim())?;
    } else {
        let frame: Frame = serde_json::from_str(text).context("a frame is not what the API promises")?;
        frame.streams.iter().try_for_each(|stream| stream.write(&mut out, paint, args.raw))?;
    }
    out.flush()?;
    Ok(())
}
