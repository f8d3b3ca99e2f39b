//! `millpond query`: one LogQL query, its answer as lines, as a table, or as the JSON that the node sent.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use hyper::Method;
use millpond_actors::load::Client;
use millpond_actors::moment;
use serde::Deserialize;

use super::{NodesArgs, Paint, moment_argument, now, selector, url_query};

/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);

/// Search with LogQL
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond query '{service_name="checkout"} |= "timeout"'              the newest 100 of the last hour
  millpond query '{service_name=~"api|web"} !~ "GET /health"' --since 15m --limit 1000
  millpond query '{level="error"}' --from 2026-11-21T08:00:00Z --to 2026-11-21T09:00:00Z --direction forward
  millpond query 'sum by (service_name) (count_over_time({level="error"}[1m]))' --step 1m
  millpond query 'sum(rate({service_name="checkout"}[5m]))' --instant
  millpond query '{host="web-1"}' --json | jq .data.result

Lines are printed as time, stream, text; on a terminal in the colour of their level. --raw prints the text alone.

Exit codes: 0 answered, also when nothing was found; 1 failed; 2 wrong usage."#)]
pub(crate) struct Args {
    /// The LogQL query
    query: String,
    /// How far back to look, from --to
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = moment::parse_duration)]
    since: Duration,
    /// Where to begin, instead of --since
    #[arg(long, value_name = "MOMENT", value_parser = moment_argument, conflicts_with = "since")]
    from: Option<i64>,
    /// Where to end; now if not given
    #[arg(long, value_name = "MOMENT", value_parser = moment_argument)]
    to: Option<i64>,
    /// Records at most
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Which records come first
    #[arg(long, value_enum, default_value_t = Direction::Backward)]
    direction: Direction,
    /// Distance of the points of a metric query
    #[arg(long, value_name = "DURATION", value_parser = moment::parse_duration)]
    step: Option<Duration>,
    /// A metric query at one moment, --to
    #[arg(long)]
    instant: bool,
    /// The answer as the node sent it
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The text of the lines alone
    #[arg(long)]
    raw: bool,
    /// Take what answers when a shard is lost
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    nodes: NodesArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Newest first
    Backward,
    /// Oldest first
    Forward,
}

#[derive(Deserialize)]
struct Envelope {
    data: Data,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Streams(Vec<Stream>),
    Matrix(Vec<Series>),
    Vector(Vec<Sample>),
    Scalar((f64, String)),
}

/// The records of one stream, as query answers and tail frames carry them.
#[derive(Debug, Deserialize)]
pub(crate) struct Stream {
    stream: BTreeMap<String, String>,
    values: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Plain(String, String),
    Rich(String, String, serde_json::Value),
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let body = ask(&args).await?;
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&body)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let envelope: Envelope = serde_json::from_slice(&body).context("the node's answer is not what the API promises")?;
    let paint = Paint::stdout();
    match envelope.data {
        Data::Streams(streams) => write_streams(&mut out, paint, &streams, args.direction, args.raw)?,
        Data::Matrix(series) => {
            let rows = series.into_iter().flat_map(|Series { metric, values }| {
                values.into_iter().map(move |(at, value)| row(at, &metric, value))
            });
            write_table(&mut out, paint, rows.collect())?;
        }
        Data::Vector(samples) => {
            let rows = samples.into_iter().map(|Sample { metric, value: (at, value) }| row(at, &metric, value));
            write_table(&mut out, paint, rows.collect())?;
        }
        Data::Scalar((at, value)) => write_table(&mut out, paint, vec![row(at, &BTreeMap::new(), value)])?,
    }
    if envelope.partial {
        eprintln!("partial: a shard did not answer");
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(args: &Args) -> Result<bytes::Bytes> {
    let to = args.to.unwrap_or_else(|| now() + 1);
    let since = i64::try_from(args.since.as_nanos()).unwrap_or(i64::MAX);
    let from = args.from.unwrap_or_else(|| to.saturating_sub(since));
    let (from, to, limit) = (from.to_string(), to.to_string(), args.limit.to_string());
    let direction = if args.direction == Direction::Backward { "backward" } else { "forward" };
    let step = args.step.map(|step| format!("{}ms", step.as_millis()));
    let mut pairs = vec![("query", args.query.as_str()), ("limit", &limit), ("direction", direction)];
    if args.instant {
        pairs.push(("time", &to));
    } else {
        pairs.extend([("start", from.as_str()), ("end", to.as_str())]);
        pairs.extend(step.as_ref().map(|step| ("step", step.as_str())));
    }
    if args.partial {
        pairs.push(("partial", "true"));
    }
    let path = if args.instant { "query" } else { "query_range" };
    let client = Client::new(PATIENCE);
    let mut last = None;
    for node in args.nodes.urls() {
        let url = format!("{node}/loki/api/v1/{path}{}", url_query(&pairs));
        let flags = [("x-loki-response-encoding-flags", "categorize-labels")];
        match client.request(Method::GET, &url, &flags, bytes::Bytes::new()).await {
            Ok(answer) if answer.status.is_success() => return Ok(answer.body),
            Ok(answer) if answer.status.is_client_error() => {
                bail!("{node}: {}: {}", answer.status, answer.text());
            }
            Ok(answer) => last = Some(anyhow::anyhow!("{node}: {}: {}", answer.status, answer.text())),
            Err(error) => last = Some(error.into()),
        }
    }
    Err(last.expect("there is at least one node"))
}

/// Writes the records of several streams in one order of time.
///
/// # Errors
/// Where writing fails.
fn write_streams(
    out: &mut impl Write,
    paint: Paint,
    streams: &[Stream],
    direction: Direction,
    raw: bool,
) -> io::Result<()> {
    let mut records: Vec<(i64, &Stream, &Value)> = Vec::new();
    for stream in streams {
        records.extend(stream.values.iter().map(|value| (value.timestamp(), stream, value)));
    }
    match direction {
        Direction::Forward => records.sort_by_key(|record| record.0),
        Direction::Backward => records.sort_by_key(|record| std::cmp::Reverse(record.0)),
    }
    for (_, stream, value) in records {
        write_record(out, paint, stream, value, raw)?;
    }
    Ok(())
}

fn write_record(out: &mut impl Write, paint: Paint, stream: &Stream, value: &Value, raw: bool) -> io::Result<()> {
    let line = value.line();
    if raw {
        return writeln!(out, "{}", paint.safe(line));
    }
    let level = value.metadata("detected_level").or_else(|| stream.stream.get("detected_level").map(String::as_str));
    let labels = stream.stream.iter().filter(|(name, _)| name.as_str() != "detected_level");
    let labels = selector(labels.map(|(name, value)| (name.as_str(), value.as_str())));
    let time = moment::format(value.timestamp());
    writeln!(out, "{} {} {}", paint.dim(&time), paint.dim(&labels), paint.level(level.unwrap_or(""), line))
}

impl Stream {
    /// Writes its records in the order they came.
    pub(crate) fn write(&self, out: &mut impl Write, paint: Paint, raw: bool) -> io::Result<()> {
        self.values.iter().try_for_each(|value| write_record(out, paint, self, value, raw))
    }
}

impl Value {
    fn timestamp(&self) -> i64 {
        let (Self::Plain(timestamp, _) | Self::Rich(timestamp, _, _)) = self;
        timestamp.parse().unwrap_or(0)
    }

    fn line(&self) -> &str {
        let (Self::Plain(_, line) | Self::Rich(_, line, _)) = self;
        line
    }

    fn metadata(&self, name: &str) -> Option<&str> {
        match self {
            Self::Plain(..) => None,
            Self::Rich(_, _, extra) => extra.get("structuredMetadata")?.get(name)?.as_str(),
        }
    }
}

fn row(seconds: f64, metric: &BTreeMap<String, String>, value: String) -> [String; 3] {
    let labels = selector(metric.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    [moment::format((seconds * 1e3) as i64 * 1_000_000), labels, value]
}

fn write_table(out: &mut impl Write, paint: Paint, mut rows: Vec<[String; 3]>) -> io::Result<()> {
    rows.sort_by(|a, b| (&a[0], &a[1]).cmp(&(&b[0], &b[1])));
    let head = ["time", "series", "value"].map(str::to_owned);
    let width = |at: usize| rows.iter().chain([&head]).map(|row| row[at].chars().count()).max().unwrap_or(0);
    let (time, series, value) = (width(0), width(1), width(2));
    writeln!(out, "{}", paint.bold(&format!("{:time$}  {:series$}  {:>value$}", head[0], head[1], head[2])))?;
    for row in &rows {
        writeln!(out, "{}", paint.safe(&format!("{:time$}  {:series$}  {:>value$}", row[0], row[1], row[2])))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str, direction: Direction) -> String {
        let envelope: Envelope = serde_json::from_str(body).unwrap();
        let Data::Streams(streams) = envelope.data else { panic!("streams") };
        let mut out = Vec::new();
        write_streams(&mut out, Paint::stdout(), &streams, direction, true).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn streams_are_merged_in_the_order_asked_for() {
        let body = r#"{"status":"success","data":{"resultType":"streams","result":[
            {"stream":{"a":"1"},"values":[["3","c"],["1","a",{"structuredMetadata":{"detected_level":"error"}}]]},
            {"stream":{"a":"2"},"values":[["2","b"]]}]}}"#;
        assert_eq!(shown(body, Direction::Forward), "a\nb\nc\n");
        assert_eq!(shown(body, Direction::Backward), "c\nb\na\n");
    }

    #[test]
    fn a_metric_answer_is_a_table() {
        let rows = vec![row(60.0, &BTreeMap::new(), "7".into()), row(0.5, &BTreeMap::new(), "11".into())];
        let mut out = Vec::new();
        write_table(&mut out, Paint::stdout(), rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "1970-01-01T00:00:00.500Z  {}         11");
        assert_eq!(lines[2], "1970-01-01T00:01:00.000Z  {}          7");
    }
}
