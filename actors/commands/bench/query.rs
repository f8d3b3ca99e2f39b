//! Ten queries over a day of logs on one node: each is checked against a plain count of the same lines, and then timed, warm,
//! over the whole day and over its last quarter of an hour, and cold. Beside them stand plain searches of the same lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use hyper::Method;
use millpond_actors::load::{self, Client, StreamBody};
use millpond_actors::local::{LocalCluster, disk_bytes, wait_ready};
use regex::bytes::Regex;
use serde_json::Value;
use tokio::time::Instant;

use super::super::{now, selector, url_query};
use super::ingest::{self, PUSH_BYTES, Push};
use super::set::{Packed, Row, SPAN, Set};
use super::{Common, READY_WITHIN, Report, Scratch, lines, quantile, quiet, start};

/// Times each query runs warm, after one that is not counted.
const RUNS: usize = 7;
/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);
/// Lines of the input of which templates are made.
const TEMPLATES_MAX: usize = 24_000;
/// The short range: a quarter of an hour.
const SHORT: i64 = 15 * 60 * 1_000_000_000;
const MINUTE: i64 = 60 * 1_000_000_000;
const LIMIT: usize = 100;
const TOP: usize = 10;
const SUBSTRING: &str = "12.34.5";
const PASSWORD: &str = r"(Failed|Accepted) password for .* from 1[0-9]{2}\.[0-9]+\.";
const WORD: &str = r"\berror\b";
/// Bytes of the raw file that are searched at once.
const PIECE: usize = 8 << 20;

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Records of the set; 7,000,000 are about a gigabyte
    #[arg(long, default_value_t = 7_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    rows: u64,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What plain counting finds in the lines of a span.
#[derive(Clone, Debug, Default)]
struct Counted {
    by_service: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    failed: u64,
    failed_json: u64,
    blocks: u64,
    substring: u64,
    password: u64,
    word: u64,
}

impl Counted {
    fn add(&mut self, service: &str, row: &Row) {
        let failed = row.status.is_some_and(|status| status >= 500);
        *self.by_service.entry(service.to_owned()).or_default() += 1;
        if row.level == "error" {
            *self.errors.entry(row.host.clone()).or_default() += 1;
        }
        self.failed += u64::from(failed);
        self.failed_json += u64::from(failed && service == "nginx-json");
        self.blocks += u64::from(service == "hdfs" && row.text.contains("block"));
    }
}

/// What an answer must hold.
#[derive(Clone, Debug)]
enum Expected {
    Records(u64),
    /// The sum of all its numbers.
    Sum(u64),
    /// The numbers of the first hosts, largest first.
    Top(Vec<u64>),
}

struct Question {
    name: &'static str,
    query: String,
    /// Whether it is asked at one moment, over the span before it.
    instant: bool,
    expected: Expected,
}

/// A set that was written as plain lines, in the order of its times.
struct Plain {
    path: PathBuf,
    /// Where the last quarter of an hour begins, and whether that is asked for.
    short_at: u64,
    bytes: u64,
    zstd_bytes: u64,
    needle: String,
    absent: String,
    day: Counted,
    short: Counted,
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let (mut input, what) = lines(&args.common)?;
    input.truncate(TEMPLATES_MAX);
    // The last record is a minute old when the load begins, so that no clock finds it in the future.
    let end = now() - MINUTE;
    let set = Set::new(&input, usize::try_from(args.rows)?, end)?;
    let scratch = Scratch::make(&args.common)?;
    let mut plain = Plain::write(&set, end, scratch.0.join("raw.log"))?;
    plain.count_lines()?;
    let ratio = plain.bytes as f64 / plain.zstd_bytes as f64;
    let data = format!("{} records, {} bytes, templates of {what}; zstd -3 gives {ratio:.2}", args.rows, plain.bytes);
    let mut report = Report::new("query, 1 node", data);

    let client = Client::new(PATIENCE);
    let mut cluster = start(&scratch, 1, 16, &client).await?;
    let cpu = cluster.cpu()?;
    let loaded = ingest::load(&cluster, &client, plain.bytes, pushes(&set), 8).await?;
    let rested = quiet(&cluster).await?;
    let (gb, cpu) = (loaded.line_bytes as f64 / 1e9, cluster.cpu()?.saturating_sub(cpu));
    report.figure("loaded", loaded.line_bytes as f64 / 1e6 / loaded.took.as_secs_f64(), "MB/s of raw lines");
    report.figure("processor time of the load, sealing included", cpu.as_secs_f64() / gb, "s/GB");
    report.figure("nodes at rest when asked (1 is yes)", f64::from(u8::from(rested)), "");
    let sealed = disk_bytes(&cluster.nodes[0].data.join("shards"));
    report.figure_over("segments and manifests on disk", sealed as f64 / 1e6, "MB", plain.zstd_bytes as f64 / 1e6);
    report.figure("baseline: zstd -3 of the lines", plain.zstd_bytes as f64 / 1e6, "MB");

    for (name, span, counted) in [("24h", SPAN, &plain.day), ("15m", SHORT, &plain.short)] {
        for question in questions(&plain, counted, name) {
            let asked = Asked { client: &client, node: &cluster.nodes[0].url, end, span };
            let median = asked.median(&question).await.with_context(|| question.query.clone())?;
            report.milliseconds(&format!("{}, {name}", question.name), median);
        }
    }
    let peak = cluster.nodes[0].resident_bytes()?.1;
    report.figure("most memory of the node", peak as f64 / 1e6, "MB");
    for question in questions(&plain, &plain.day, "24h") {
        restart_cold(&mut cluster, &client).await?;
        let asked = Asked { client: &client, node: &cluster.nodes[0].url, end, span: SPAN };
        let took = asked.once(&question).await.with_context(|| question.query.clone())?;
        report.milliseconds(&format!("{}, 24h, cold", question.name), took);
    }
    drop(cluster);
    plain.baselines(&mut report)?;
    Ok(report)
}

fn questions(plain: &Plain, counted: &Counted, range: &str) -> Vec<Question> {
    let all = r#"{service=~".+"}"#;
    let count = |query: &str| format!("sum(count_over_time({query} [{range}]))");
    let question = |name, query, instant, expected| Question { name, query, instant, expected };
    let is_day = range == "24h";
    let mut top: Vec<u64> = counted.errors.values().copied().collect();
    top.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    top.truncate(TOP);
    let rows = counted.by_service.values().sum();
    let regex = |regex: &str| count(&format!("{all} |~ `{regex}`"));
    let json = r#"{service="nginx-json"} | json j_status="status" | j_status >= 500"#;
    vec![
        question("needle", format!("{all} |= `{}`", plain.needle), false, Expected::Records(u64::from(is_day))),
        question("absent", format!("{all} |= `{}`", plain.absent), false, Expected::Records(0)),
        question("substring", count(&format!("{all} |= `{SUBSTRING}`")), true, Expected::Sum(counted.substring)),
        question("regex", regex(PASSWORD), true, Expected::Sum(counted.password)),
        question("minute", format!("sum by (service)(count_over_time({all}[1m]))"), false, Expected::Sum(rows)),
        question(
            "hosts",
            format!("topk({TOP}, sum by (host)(count_over_time({all} | level=\"error\" [{range}])))"),
            true,
            Expected::Top(top),
        ),
        question("word", regex(WORD), true, Expected::Sum(counted.word)),
        question("status", count(&format!("{all} | status >= 500")), true, Expected::Sum(counted.failed)),
        question("JSON", count(json), true, Expected::Sum(counted.failed_json)),
        question(
            "last",
            r#"{service="hdfs"} |= `block`"#.to_owned(),
            false,
            Expected::Records(counted.blocks.min(LIMIT as u64)),
        ),
    ]
}

/// The set as pushes of about a mebibyte of lines.
fn pushes(set: &Set) -> impl Iterator<Item = Push> {
    let mut rows = set.iter().peekable();
    std::iter::from_fn(move || {
        rows.peek()?;
        let mut streams: BTreeMap<String, StreamBody> = BTreeMap::new();
        let mut line_bytes = 0;
        while line_bytes < PUSH_BYTES {
            let Some(row) = rows.next() else { break };
            let labels = selector([("service", set.service(&row)), ("host", row.host.as_str())]);
            let stream = streams.entry(labels).or_insert_with_key(|labels| StreamBody::new(labels.as_str()));
            let status = row.status.map(|status| status.to_string());
            let level = std::iter::once(("level", row.level.as_str()));
            let metadata = level.chain(status.as_deref().map(|status| ("status", status)));
            stream.push(row.timestamp, &row.text, metadata);
            line_bytes += row.text.len();
        }
        Some(Push { body: load::encode(streams.values()), line_bytes })
    })
}

impl Plain {
    /// Writes the lines, and counts what is counted by fields.
    fn write(set: &Set, end: i64, path: PathBuf) -> Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut packed = Packed::new()?;
        let (mut day, mut short) = (Counted::default(), Counted::default());
        let (mut bytes, mut short_at, mut longest) = (0, None, String::new());
        for row in set.iter() {
            let service = set.service(&row);
            day.add(service, &row);
            if row.timestamp > end - SHORT {
                short_at.get_or_insert(bytes);
                short.add(service, &row);
            } else if let Some(id) = id_of(&row.text).filter(|id| id.len() > longest.len()) {
                id.clone_into(&mut longest);
            }
            writeln!(file, "{}", row.text)?;
            packed.line(&row.text)?;
            bytes += row.text.len() as u64 + 1;
        }
        file.flush()?;
        ensure!(longest.len() > 1, "the set has no id to look for");
        let absent = longest.bytes().rev().map(char::from).collect();
        let short_at = short_at.unwrap_or(bytes);
        Ok(Self { path, short_at, bytes, zstd_bytes: packed.bytes()?, needle: longest, absent, day, short })
    }

    /// Counts what is counted by the text of lines, and holds the needle to be there once, and the absent id not at all.
    fn count_lines(&mut self) -> Result<()> {
        let counts = |from: u64| -> Result<[u64; 5]> {
            let texts = [&self.needle, &self.absent, SUBSTRING].map(|text| Regex::new(&regex::escape(text)));
            let [needle, absent, substring] = texts;
            let all = [needle?, absent?, substring?, Regex::new(PASSWORD)?, Regex::new(&format!("(?-u){WORD}"))?];
            let mut counts = [0; 5];
            for (count, regex) in counts.iter_mut().zip(&all) {
                *count = search(&self.path, from, regex)?;
            }
            Ok(counts)
        };
        let [needle, absent, substring, password, word] = counts(0)?;
        ensure!(needle == 1 && absent == 0, "{} is there {needle} times, {} {absent}", self.needle, self.absent);
        (self.day.substring, self.day.password, self.day.word) = (substring, password, word);
        let [_, _, substring, password, word] = counts(self.short_at)?;
        (self.short.substring, self.short.password, self.short.word) = (substring, password, word);
        Ok(())
    }

    /// Plain searches of the same lines, from the page cache.
    fn baselines(&self, report: &mut Report) -> Result<()> {
        let word = format!("(?-u){WORD}");
        let texts = [("needle", regex::escape(&self.needle)), ("substring", regex::escape(SUBSTRING))];
        let expressions = [("regex", PASSWORD.to_owned()), ("word", word)];
        for (name, expression) in texts.into_iter().chain(expressions) {
            let regex = Regex::new(&expression)?;
            let began = std::time::Instant::now();
            search(&self.path, 0, &regex)?;
            report.milliseconds(&format!("baseline: plain search of the raw lines, one core, {name}"), began.elapsed());
            if let Some(took) = ripgrep(&self.path, &expression)? {
                report.milliseconds(&format!("baseline: rg of the raw lines, {name}"), took);
            }
        }
        Ok(())
    }
}

/// A word of letters and digits that looks like an id: the longest with digits.
fn id_of(text: &str) -> Option<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .filter(|word| word.len() >= 12 && word.bytes().any(|byte| byte.is_ascii_digit()))
        .max_by_key(|word| word.len())
}

/// How many lines of a file match, from a position on.
fn search(path: &Path, from: u64, regex: &Regex) -> Result<u64> {
    let mut file = BufReader::with_capacity(PIECE, File::open(path)?);
    file.seek(SeekFrom::Start(from))?;
    let (mut piece, mut count) = (Vec::new(), 0);
    loop {
        piece.clear();
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        file.read_until(b'\n', &mut piece)?;
        if piece.is_empty() {
            return Ok(count);
        }
        let mut at = 0;
        while let Some(found) = regex.find_at(&piece, at) {
            count += 1;
            let Some(end) = memchr::memchr(b'\n', &piece[found.start()..]) else { break };
            at = found.start() + end + 1;
        }
    }
}

/// The time of `rg -c`, where there is one.
fn ripgrep(path: &Path, expression: &str) -> Result<Option<Duration>> {
    let run = || std::process::Command::new("rg").arg("-c").arg(expression).arg(path).output();
    let (Ok(_), began) = (run(), std::time::Instant::now()) else { return Ok(None) };
    run().context("running rg")?;
    Ok(Some(began.elapsed()))
}

/// Whom to ask, and about which time.
struct Asked<'a> {
    client: &'a Client,
    node: &'a str,
    end: i64,
    span: i64,
}

impl Asked<'_> {
    fn url(&self, question: &Question) -> String {
        let (end, limit) = (self.end.to_string(), LIMIT.to_string());
        // Points stand at the end of whole minutes that together are the span.
        let is_metric = matches!(question.expected, Expected::Sum(_) | Expected::Top(_));
        let first = self.end - self.span + if is_metric { MINUTE } else { 1 };
        let last = if is_metric { self.end } else { self.end + 1 };
        let (first, last) = (first.to_string(), last.to_string());
        let query = ("query", question.query.as_str());
        if question.instant {
            format!("{}/loki/api/v1/query{}", self.node, url_query(&[query, ("time", &end)]))
        } else {
            let pairs = [query, ("start", &first), ("end", &last), ("step", "60s"), ("limit", &limit)];
            format!("{}/loki/api/v1/query_range{}", self.node, url_query(&pairs))
        }
    }

    /// Asks once and holds the answer to what is expected.
    async fn once(&self, question: &Question) -> Result<Duration> {
        let url = self.url(question);
        let began = Instant::now();
        let answer = self.client.request(Method::GET, &url, &[], bytes::Bytes::new()).await?;
        let took = began.elapsed();
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        check(&question.expected, &serde_json::from_slice(&answer.body)?)?;
        Ok(took)
    }

    async fn median(&self, question: &Question) -> Result<Duration> {
        let mut times = Vec::new();
        for _ in 0..=RUNS {
            times.push(self.once(question).await?);
        }
        times.remove(0);
        times.sort_unstable();
        Ok(quantile(&times, 0.5))
    }
}

/// Holds an answer to what plain counting found.
fn check(expected: &Expected, answer: &Value) -> Result<()> {
    let result = answer.pointer("/data/result").and_then(Value::as_array).context("an answer without a result")?;
    let number = |point: &Value| point.get(1).and_then(Value::as_str).and_then(|number| number.parse::<f64>().ok());
    let values = |series: &Value| {
        let points = series.get("values").and_then(Value::as_array).cloned();
        points.unwrap_or_else(|| series.get("value").cloned().into_iter().collect())
    };
    match expected {
        Expected::Records(count) => {
            let found: usize = result.iter().map(|stream| values(stream).len()).sum();
            ensure!(found as u64 == *count, "{found} records, and plain counting finds {count}");
        }
        Expected::Sum(count) => {
            let found: f64 = result.iter().flat_map(values).filter_map(|point| number(&point)).sum();
            ensure!(found == *count as f64, "the numbers add up to {found}, and plain counting finds {count}");
        }
        Expected::Top(counts) => {
            let mut found: Vec<f64> = result.iter().flat_map(values).filter_map(|point| number(&point)).collect();
            found.sort_unstable_by(|left, right| right.total_cmp(left));
            let counts: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
            ensure!(found == counts, "{found:?}, and plain counting finds {counts:?}");
        }
    }
    Ok(())
}

/// Starts the node anew, with nothing of its data in the page cache.
async fn restart_cold(cluster: &mut LocalCluster, client: &Client) -> Result<()> {
    let node = &mut cluster.nodes[0];
    node.terminate(READY_WITHIN).await?;
    forget(&node.data)?;
    node.start()?;
    Ok(wait_ready(node, client, READY_WITHIN).await?)
}

fn forget(folder: &Path) -> Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = File::open(&path)?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_differs_from_plain_counting_is_told() {
        let vector = serde_json::json!({"data": {"result": [{"metric": {}, "value": [1, "3"]}]}});
        check(&Expected::Sum(3), &vector).unwrap();
        check(&Expected::Top(vec![3]), &vector).unwrap();
        assert!(check(&Expected::Sum(4), &vector).is_err() && check(&Expected::Top(vec![]), &vector).is_err());
        let streams = serde_json::json!({"data": {"result": [{"stream": {}, "values": [["1", "a"], ["2", "b"]]}]}});
        check(&Expected::Records(2), &streams).unwrap();
        assert!(check(&Expected::Records(1), &streams).is_err());
    }

    #[test]
    fn lines_are_counted_once_however_often_they_match() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a a\nb\na\n\nxa").unwrap();
        assert_eq!(search(file.path(), 0, &Regex::new("a").unwrap()).unwrap(), 3);
        assert_eq!(search(file.path(), 4, &Regex::new("a").unwrap()).unwrap(), 2);
        assert_eq!(search(file.path(), 0, &Regex::new("nowhere").unwrap()).unwrap(), 0);
    }
}
