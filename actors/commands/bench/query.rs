//! Queries over loaded data on one node: warm median of each, through the API.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use hyper::Method;
use millpond_actors::input::Line;
use millpond_actors::load::Client;
use tokio::time::Instant;

use super::super::{bytes_argument, now, url_query};
use super::{Common, Report, Scratch, ingest, lines, quantile, quiet, start};

/// Times each query runs; the first, which may be cold, is not counted.
const RUNS: usize = 6;
/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Bytes of lines to load
    #[arg(long, default_value = "256MB", value_parser = bytes_argument)]
    bytes: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let (lines, what) = lines(&args.common)?;
    let pushes = ingest::prepare(&lines, args.bytes);
    let scratch = Scratch::make(&args.common)?;
    let client = Client::new(PATIENCE);
    let from = now();
    let cluster = start(&scratch, 1, 16, &client).await?;
    let loaded = ingest::load(&cluster, &client, &pushes, 8).await?;
    quiet(&cluster).await?;
    let mut report = Report::new("query, 1 node", format!("{what}, repeated to {} bytes", loaded.line_bytes));
    report.figure("loaded", loaded.line_bytes as f64 / 1e6 / loaded.took.as_secs_f64(), "MB/s");
    // Pushes were stamped when they were prepared, shortly before.
    let (from, to) = (from - 3_600_000_000_000, now() + 1_000_000_000);
    for (name, query) in questions(&lines) {
        let (median, bytes) =
            ask(&client, &cluster.nodes[0].url, &query, from, to).await.with_context(|| query.clone())?;
        report.milliseconds(&format!("{name} ({bytes} bytes of answer)"), median);
    }
    Ok(report)
}

/// Questions that any input answers: its own words and labels are asked for.
fn questions(lines: &[Line]) -> Vec<(&'static str, String)> {
    let middle = &lines[lines.len() / 2];
    let service =
        middle.labels.iter().find(|(name, _)| name == "service_name").map_or("none", |(_, value)| value.as_str());
    let words = || middle.text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let needle = words()
        .filter(|word| word.bytes().any(|byte| byte.is_ascii_digit()))
        .max_by_key(|word| word.len())
        .unwrap_or("1");
    let word = words()
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()))
        .max_by_key(|word| word.len())
        .unwrap_or("e");
    let all = r#"{service_name=~".+"}"#;
    vec![
        ("needle", format!("{all} |= `{needle}`")),
        ("last 100 of a service with a word", format!("{{service_name=`{service}`}} |= `{word}`")),
        ("absent word", format!("{all} |= `qzxjkvwy`")),
        ("substring count", format!("sum(count_over_time({all} |= `{word}` [1h]))")),
        ("regex count", format!("sum(count_over_time({all} |~ `{}[a-z]* .*[0-9]{{3}}` [1h]))", &word[..1])),
        ("per minute by service", format!("sum by (service_name) (count_over_time({all}[1m]))")),
    ]
}

async fn ask(client: &Client, node: &str, query: &str, from: i64, to: i64) -> Result<(Duration, usize)> {
    let (from, to) = (from.to_string(), to.to_string());
    let pairs = [("query", query), ("start", &from), ("end", &to), ("limit", "100"), ("step", "60s")];
    let url = format!("{node}/loki/api/v1/query_range{}", url_query(&pairs));
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let began = Instant::now();
        let answer = client.request(Method::GET, &url, &[], bytes::Bytes::new()).await?;
        times.push(began.elapsed());
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        bytes = answer.body.len();
    }
    times.remove(0);
    times.sort_unstable();
    Ok((quantile(&times, 0.5), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_asked_in_words_of_the_input() {
        let labels = vec![("service_name".to_owned(), "api".to_owned())];
        let line = Line { labels, text: "user 4711 connected".into(), ..Line::default() };
        let asked: Vec<String> = questions(&[line]).into_iter().map(|(_, query)| query).collect();
        assert_eq!(asked[0], r#"{service_name=~".+"} |= `4711`"#);
        assert_eq!(asked[1], "{service_name=`api`} |= `connected`");
    }
}
