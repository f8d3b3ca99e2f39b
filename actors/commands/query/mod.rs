//! `millpond query`: one LogQL query, its answer as lines, as a table, as a chart, or as the JSON that the node sent.

mod answer;
mod chart;
mod explain;
mod numbers;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use millpond_actors::moment;

use super::range::RangeArgs;
use super::screen::Screen;
use super::table::{Side, Table};
use super::{NodesArgs, search};
pub(crate) use answer::Stream;
use answer::{Data, Envelope, Series};
use chart::Canvas;

/// Search with LogQL
#[derive(ClapArgs, Debug)]
#[command(after_help = r#"Examples:
  millpond query '{service_name="checkout"} |= "timeout"'              the newest 100 of the last hour
  millpond query '{service_name=~"api|web"} !~ "GET /health"' --since 15m --limit 1000
  millpond query '{level="error"}' --from 2026-11-21T08:00:00Z --to 2026-11-21T09:00:00Z --direction forward
  millpond query '{level="error"}' --from 2d --to 1d                   from two days ago to one day ago
  millpond query 'sum by (service_name) (count_over_time({level="error"}[1m]))' --step 1m
  millpond query 'sum(rate({service_name="checkout"}[5m]))' --instant
  millpond query '{host="web-1"}' --json | jq .data.result
  millpond query '{service_name="checkout"} |= "timeout"' --explain    what was read for it, and what was skipped
  millpond query '{job="nightly"} |= "done"' --since 1d --fail-empty --raw || echo 'the nightly job is late'

Records are lines unless --output says otherwise: time, stream, text, on a terminal in the colour of their level. --raw
prints the text alone. Numbers are a table; those over a range are a chart where standard output is a terminal: one
series as a plot, several as a line each with their min, max and last value.

What is longer than the terminal is high goes through $PAGER, `less -FRX` if that is not set; never into a pipe.

Exit codes: 0 answered, also when nothing was found; 1 failed; 2 wrong usage. With --fail-empty as grep has them:
0 something was found; 1 nothing was; 2 failed, or wrong usage."#)]
pub(crate) struct Args {
    /// The LogQL query
    query: String,
    #[command(flatten)]
    range: RangeArgs,
    /// Records at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Which records come first
    #[arg(long, value_enum, default_value_t = Direction::Backward)]
    direction: Direction,
    /// Distance of the points of a metric query
    #[arg(long, value_name = "DURATION", value_parser = moment::parse_duration)]
    step: Option<Duration>,
    /// A metric query at one moment, --to
    #[arg(long)]
    instant: bool,
    /// How to show the answer
    #[arg(long, short, value_enum, conflicts_with_all = ["json", "raw"])]
    output: Option<Output>,
    /// Short for --output json
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// The text of the lines alone
    #[arg(long)]
    raw: bool,
    /// Do not page
    #[arg(long)]
    no_pager: bool,
    /// Exit with 1 where nothing was found, and with 2 where the query failed, as grep does
    #[arg(long)]
    fail_empty: bool,
    /// Say how the answer came about instead of showing it: what was considered, skipped and read, and how long it took
    #[arg(long, conflicts_with_all = ["output", "raw"])]
    explain: bool,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each record or number
    Lines,
    /// The answer as the node sent it
    Json,
    /// Aligned columns
    Table,
    /// Numbers over time, drawn
    Chart,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    search::code(answered(&args).await, args.fail_empty)
}

/// Shows the answer; whether anything was found.
async fn answered(args: &Args) -> Result<bool> {
    let (from, to) = args.range.bounds().unwrap_or_else(|error| error.exit());
    let body = ask(args, from, to).await?;
    let screen = Screen::stdout();
    let envelope: Result<Envelope, _> = serde_json::from_slice(&body);
    let mut text = Vec::new();
    let found;
    if args.json || args.output == Some(Output::Json) {
        text.extend_from_slice(&body);
        writeln!(text)?;
        found = envelope.is_ok_and(|envelope| !envelope.data.is_empty());
    } else {
        let Envelope { data, partial } = envelope.context("the node's answer is not what the API promises")?;
        found = !data.is_empty();
        let seconds = |nanoseconds: i64| nanoseconds as f64 / 1e9;
        if args.explain {
            let explained = answer::explained(&body)?;
            explained.write(&mut text, screen.paint)?;
        } else {
            write(&mut text, args, &screen, (seconds(from), seconds(to)), data)?;
        }
        if partial {
            eprintln!("partial: a shard did not answer");
        }
    }
    if !found && !args.explain {
        screen.say_nothing_found();
    }
    screen.show(&text, !args.no_pager)?;
    Ok(found)
}

async fn ask(args: &Args, from: i64, to: i64) -> Result<bytes::Bytes> {
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
    for (asked, name) in [(args.partial, "partial"), (args.explain, "explain")] {
        if asked {
            pairs.push((name, "true"));
        }
    }
    search::ask(&args.nodes, if args.instant { "query" } else { "query_range" }, &pairs, Some(&args.query)).await
}

fn write(out: &mut Vec<u8>, args: &Args, screen: &Screen, range: (f64, f64), data: Data) -> Result<()> {
    let over_time = matches!(data, Data::Matrix(_));
    let series: Vec<Series> = match data {
        Data::Streams(streams) => return write_records(out, args, screen, &streams),
        Data::Matrix(series) => series,
        Data::Vector(samples) => samples.into_iter().map(Series::from).collect(),
        Data::Scalar(value) => vec![Series { metric: Default::default(), values: vec![value] }],
    };
    let drawn = if over_time && screen.width().is_some() && !args.raw { Output::Chart } else { Output::Table };
    match args.output.unwrap_or(drawn) {
        Output::Chart if !over_time => bail!("a chart is of numbers over a range: leave out --instant"),
        Output::Chart => {
            let (width, Screen { unicode, paint, .. }) = (screen.canvas(), *screen);
            Canvas { width, unicode, paint, range, query: &args.query }.draw(out, &series)?;
        }
        Output::Lines => {
            let names: Vec<String> = series.iter().map(Series::name).collect();
            for (name, (at, value)) in numbers::samples(&series, &names) {
                writeln!(out, "{} {} {value}", screen.paint.dim(&answer::time(*at)), screen.paint.dim(name))?;
            }
        }
        Output::Table | Output::Json => numbers::write(out, &series, screen.width(), screen.paint)?,
    }
    Ok(())
}

fn write_records(out: &mut Vec<u8>, args: &Args, screen: &Screen, streams: &[Stream]) -> Result<()> {
    let records = answer::records(streams, args.direction);
    match args.output.unwrap_or(Output::Lines) {
        Output::Chart => {
            bail!("a chart is of numbers, and this query finds records: count them, as in rate({{..}}[1m])")
        }
        Output::Table => {
            let mut table = Table::new(["time", "stream", "line"].map(|title| (title.to_owned(), Side::Left)));
            for record in records {
                table.push_level([record.time(), record.labels(), record.line().to_owned()], record.level());
            }
            table.write(out, screen.paint)?;
        }
        Output::Lines | Output::Json => {
            for record in records {
                record.write(out, screen.paint, args.raw)?;
            }
        }
    }
    Ok(())
}
