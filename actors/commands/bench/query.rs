//! Ten queries over a day of logs on one node: each answer is held to a plain count of the same lines, and then timed, warm,
//! over the whole day and over its last quarter of an hour, and cold. Beside them stand plain searches of the same lines, and
//! the figures that the engine is to reach.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args as ClapArgs;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_actors::load::{self, Client, StreamBody};
use millpond_actors::local::{LocalCluster, LocalNode, wait_ready};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::super::{human_bytes, now, selector, url_query};
use super::ingest::{self, Loaded, PUSH_BYTES, Push};
use super::plain::{Counted, PASSWORD, Plain, SUBSTRING, Searched, Searcher, WORD};
use super::set::{self, SPAN, Set};
use super::{Common, READY_WITHIN, Report, Scratch, lines, quantile, quiet, start};

/// Times each query runs warm, after one that is not counted; fewer, but some, where they take long.
const RUNS: usize = 9;
const RUNS_LEAST: usize = 3;
const RUNS_WITHIN: Duration = Duration::from_secs(6);
/// A node ends a query before.
const PATIENCE: Duration = Duration::from_secs(65);
/// Pushes at once.
const WRITERS: usize = 8;
/// Lines of the input of which templates are made.
const TEMPLATES_MAX: usize = 24_000;
/// The short range: a quarter of an hour.
const SHORT: i64 = 15 * MINUTE;
const MINUTE: i64 = 60 * 1_000_000_000;
const LIMIT: usize = 100;
const TOP: usize = 10;
/// What a query may take over the short range, in milliseconds.
const SHORT_AT_MOST: f64 = 10.0;
/// What a query may take cold: so many times what it takes warm, and so many milliseconds.
const COLD_AT_MOST: (f64, f64) = (3.0, 20.0);
/// Processor seconds that a GB of lines may take.
const LOAD_AT_MOST: f64 = 17.0;
/// Memory that the node may take while it is loaded, in bytes.
const MEMORY_AT_MOST: u64 = 400 << 20;
/// Allocated bytes of segments and manifests over what `zstd -3` makes of the lines.
const DISK_AT_MOST: f64 = 0.82;
/// Lines between two looks at the clock.
const LOOK_EVERY: u64 = 1 << 14;

#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Records of the set; 7,000,000 are about a gigabyte
    #[arg(long, default_value_t = 7_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    rows: u64,
    /// Exit with 1 where a figure is more than it may be; a wrong answer always does
    #[arg(long)]
    pub(super) strict: bool,
    /// Give up after so many minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    #[command(flatten)]
    pub(super) common: Common,
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
    /// Milliseconds that it may take over the whole day.
    at_most: f64,
}

/// How long the bench has run, and how long it may.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    until: Instant,
}

impl Clock {
    fn new(minutes: u64) -> Self {
        let began = Instant::now();
        Self { began, until: began + Duration::from_secs(60 * minutes) }
    }

    fn check(self) -> Result<()> {
        ensure!(Instant::now() < self.until, "not done within {:?}", self.until - self.began);
        Ok(())
    }

    /// Says what is done next.
    fn phase(self, what: &str) -> Result<()> {
        eprintln!("{:>6.1} s  {what}", self.began.elapsed().as_secs_f64());
        self.check()
    }
}

pub(super) async fn run(args: &Args) -> Result<Report> {
    let clock = Clock::new(args.minutes);
    let (mut input, what) = lines(&args.common)?;
    input.truncate(TEMPLATES_MAX);
    let scratch = Scratch::make(&args.common)?;
    // The last record is a minute old when the load begins, so that no clock finds it in the future.
    let end = now() - MINUTE;
    clock.phase("finding how much of the lines is drawn anew")?;
    let set = Set::new(&input, usize::try_from(args.rows)?, end)?;
    drop(input);
    let plain = make_plain(&set, end, &scratch.0, clock)?;
    let ratio = plain.bytes as f64 / plain.zstd_bytes as f64;
    set::check_ratio(ratio)?;
    let data = format!("{} records, {} bytes, templates of {what}; zstd -3 gives {ratio:.2}", args.rows, plain.bytes);
    let mut report = Report::new("query, 1 node", data);

    clock.phase("searching the lines plainly")?;
    let searcher = Searcher::find();
    let searches = plain.searches(searcher)?;

    clock.phase("loading")?;
    let client = Client::new(PATIENCE);
    let mut cluster = start(&scratch, 1, 16, &client).await?;
    let before = cluster.cpu()?;
    let loading = ingest::load(&cluster, &client, plain.bytes, pushes(&set), WRITERS);
    let loaded = timeout_at(clock.until, loading).await.context("loading took too long")??;
    clock.phase("waiting until the node rests")?;
    let rested = quiet(&cluster).await?;
    let cpu = cluster.cpu()?.saturating_sub(before);
    report_load(&mut report, &loaded, cpu, rested);
    report
        .figure("most memory of the node, when loaded", peak_mb(&cluster)?, "MB")
        .at_most(MEMORY_AT_MOST as f64 / 1e6);
    let asked = Asked { client: &client, node: &cluster.nodes[0], end, span: SPAN };
    report_storage(&mut report, &asked, &plain).await?;

    let mut warm = Vec::new();
    for (range, span, counted) in [("24h", SPAN, &plain.day), ("15m", SHORT, &plain.short)] {
        for question in questions(&plain, counted, range) {
            clock.phase(&format!("{}, {range}", question.name))?;
            let asked = Asked { client: &client, node: &cluster.nodes[0], end, span };
            warm.push(ask_warm(&mut report, &asked, &question, range, &searches).await);
        }
    }
    report.figure("most memory of the node, when all was asked", peak_mb(&cluster)?, "MB");
    for (question, warm) in questions(&plain, &plain.day, "24h").iter().zip(warm) {
        clock.phase(&format!("{}, cold", question.name))?;
        restart_cold(&mut cluster, &client).await?;
        let asked = Asked { client: &client, node: &cluster.nodes[0], end, span: SPAN };
        ask_cold(&mut report, &asked, question, warm).await;
    }
    drop(cluster);
    report_searches(&mut report, &plain, searcher, &searches);
    clock.phase("done")?;
    Ok(report)
}

/// The most that the node ever held, in megabytes.
fn peak_mb(cluster: &LocalCluster) -> Result<f64> {
    Ok(cluster.nodes[0].resident_bytes()?.1 as f64 / 1e6)
}

/// Writes the set as plain lines and counts in them.
fn make_plain(set: &Set, end: i64, folder: &Path, clock: Clock) -> Result<Plain> {
    clock.phase("writing the lines")?;
    let bar = ProgressBar::new(set.rows() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}").expect("a valid template"));
    let tick = || {
        bar.inc(1);
        if bar.position().is_multiple_of(LOOK_EVERY) { clock.check() } else { Ok(()) }
    };
    let mut plain = Plain::write(set, end - SHORT, folder, tick)?;
    bar.finish_and_clear();
    clock.phase("counting in the lines")?;
    plain.count_lines()?;
    Ok(plain)
}

fn report_load(report: &mut Report, loaded: &Loaded, cpu: Duration, rested: bool) {
    let (gb, took) = (loaded.line_bytes as f64 / 1e9, loaded.took.as_secs_f64());
    report.figure("loaded", gb * 1e3 / took, "MB/s of raw lines");
    let cost = cpu.as_secs_f64() / gb;
    report.figure("processor time of the load, sealing included", cost, "s/GB").at_most(LOAD_AT_MOST);
    report.figure("node at rest when asked (1 is yes)", f64::from(u8::from(rested)), "");
}

/// What the sealed part of the set takes on disk, over what `zstd -3` makes of as large a part of the lines.
async fn report_storage(report: &mut Report, asked: &Asked<'_>, plain: &Plain) -> Result<()> {
    let all = Question {
        name: "all",
        query: r#"sum(count_over_time({service=~".+"}[24h]))"#.to_owned(),
        instant: true,
        expected: Expected::Sum(plain.day.by_service.values().sum()),
        at_most: f64::INFINITY,
    };
    let answer: Value = serde_json::from_slice(&asked.get(&asked.url(&all)).await?)?;
    check(&all.expected, &answer).context("counting all records")?;
    let count = |path| answer.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in an answer"));
    let (heads, records) =
        (count("/data/stats/ingester/totalLinesSent")?, count("/data/stats/summary/totalLinesProcessed")?);
    let sealed = 1.0 - heads / records;
    report.figure("of the records in segments, the rest in heads", sealed * 100.0, "%");
    if sealed <= 0.0 {
        report.note("nothing is sealed of so few records".to_owned());
        return Ok(());
    }
    let mut kinds = BTreeMap::new();
    allocated(&asked.node.data.join("shards"), &mut kinds);
    for (kind, bytes) in &kinds {
        report.figure(&format!("  allocated, {kind}"), *bytes as f64 / 1e6, "MB");
    }
    let (all, zstd) = (kinds.values().sum::<u64>() as f64 / 1e6, plain.zstd_bytes as f64 * sealed / 1e6);
    report.figure_over("segments and manifests, allocated", all, "MB", zstd).at_most(DISK_AT_MOST * zstd);
    report.figure("baseline: zstd -3 of as many of the lines", zstd, "MB");
    Ok(())
}

/// Adds what the files below a folder have allocated, by what their names end with. What is not there takes nothing.
fn allocated(folder: &Path, kinds: &mut BTreeMap<String, u64>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            allocated(&path, kinds);
        } else if let Ok(metadata) = fs::metadata(&path) {
            let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or("other").to_owned();
            *kinds.entry(kind).or_default() += metadata.blocks() * 512;
        }
    }
}

/// The median of a query, if it answers as it must. Where that is more than it may be, says what was read for it.
async fn ask_warm(
    report: &mut Report,
    asked: &Asked<'_>,
    question: &Question,
    range: &str,
    searches: &[Searched],
) -> Option<Duration> {
    let name = format!("{}, {range}", question.name);
    let (median, cpu) = match asked.median(question).await {
        Ok(both) => both,
        Err(error) => {
            report.wrong(format!("{name}: {}: {error:#}", question.query));
            return None;
        }
    };
    let is_day = asked.span == SPAN;
    let figure = report.milliseconds(&name, median).at_most(if is_day { question.at_most } else { SHORT_AT_MOST });
    if let Some(search) = searches.iter().find(|search| is_day && search.name == question.name) {
        figure.over(search.raw.as_secs_f64() * 1e3);
    }
    if figure.misses() {
        match asked.explained(question).await {
            Ok(explained) => {
                let cpu = cpu.as_secs_f64() * 1e3;
                report.note(format!("{name}: {cpu:.0} ms of processor time; {explained}"));
            }
            Err(error) => report.wrong(format!("{name}, explained: {error:#}")),
        }
    }
    Some(median)
}

async fn ask_cold(report: &mut Report, asked: &Asked<'_>, question: &Question, warm: Option<Duration>) {
    let name = format!("{}, 24h, cold", question.name);
    match asked.once(question).await {
        Ok(took) => {
            let figure = report.milliseconds(&name, took);
            if let Some(warm) = warm {
                figure.at_most(COLD_AT_MOST.0 * warm.as_secs_f64() * 1e3 + COLD_AT_MOST.1);
            }
        }
        Err(error) => report.wrong(format!("{name}: {}: {error:#}", question.query)),
    }
}

fn report_searches(report: &mut Report, plain: &Plain, searcher: Searcher, searches: &[Searched]) {
    let (raw, packed) = searcher.names();
    for Searched { name, raw: took, .. } in searches {
        report.milliseconds(&format!("baseline, {name}: {raw}"), *took);
    }
    for Searched { name, unpacked: took, .. } in searches {
        report.milliseconds(&format!("baseline, {name}: {packed}"), *took);
    }
    report.figure("baseline: zstd -3 of all lines", plain.zstd_bytes as f64 / 1e6, "MB");
}

fn questions(plain: &Plain, counted: &Counted, range: &str) -> Vec<Question> {
    let all = r#"{service=~".+"}"#;
    let count = |query: &str| format!("sum(count_over_time({query} [{range}]))");
    let is_day = range == "24h";
    let mut top: Vec<u64> = counted.errors.values().copied().collect();
    top.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    top.truncate(TOP);
    let rows = counted.by_service.values().sum();
    let search = |name, query, count, at_most| {
        let expected = Expected::Records(count);
        Question { name, query, instant: false, expected, at_most }
    };
    let sum = |name, query: &str, count_of, at_most| {
        let expected = Expected::Sum(count_of);
        Question { name, query: count(query), instant: true, expected, at_most }
    };
    let minute = Question {
        name: "minute",
        query: format!("sum by (service)(count_over_time({all}[1m]))"),
        instant: false,
        expected: Expected::Sum(rows),
        at_most: 20.0,
    };
    let hosts = Question {
        name: "hosts",
        query: format!("topk({TOP}, sum by (host)(count_over_time({all} | level=\"error\" [{range}])))"),
        instant: true,
        expected: Expected::Top(top),
        at_most: 20.0,
    };
    let json = r#"{service="nginx-json"} | json j_status="status" | j_status >= 500"#;
    let last = r#"{service="hdfs"} |= `block`"#.to_owned();
    vec![
        search("needle", format!("{all} |= `{}`", plain.needle), u64::from(is_day), 3.0),
        search("absent", format!("{all} |= `{}`", plain.absent), 0, 2.0),
        sum("substring", &format!("{all} |= `{SUBSTRING}`"), counted.substring, 200.0),
        sum("regex", &format!("{all} |~ `{PASSWORD}`"), counted.password, 120.0),
        minute,
        hosts,
        sum("word", &format!("{all} |~ `{WORD}`"), counted.word, 60.0),
        sum("status", &format!("{all} | status >= 500"), counted.failed, 5.0),
        sum("JSON", json, counted.failed_json, 30.0),
        search("last", last, counted.blocks.min(LIMIT as u64), 10.0),
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

/// Whom to ask, and about which time.
struct Asked<'a> {
    client: &'a Client,
    node: &'a LocalNode,
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
            format!("{}/loki/api/v1/query{}", self.node.url, url_query(&[query, ("time", &end)]))
        } else {
            let pairs = [query, ("start", &first), ("end", &last), ("step", "60s"), ("limit", &limit)];
            format!("{}/loki/api/v1/query_range{}", self.node.url, url_query(&pairs))
        }
    }

    async fn get(&self, url: &str) -> Result<Bytes> {
        let answer = self.client.request(Method::GET, url, &[], Bytes::new()).await?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        Ok(answer.body)
    }

    /// Asks once and holds the answer to what is expected.
    async fn once(&self, question: &Question) -> Result<Duration> {
        let url = self.url(question);
        let began = Instant::now();
        let answer = self.get(&url).await?;
        let took = began.elapsed();
        check(&question.expected, &serde_json::from_slice(&answer)?)?;
        Ok(took)
    }

    /// The median time of an answer, and the processor time that one takes the node on average.
    async fn median(&self, question: &Question) -> Result<(Duration, Duration)> {
        self.once(question).await?;
        let (mut times, began, before) = (Vec::new(), Instant::now(), self.node.cpu()?);
        while times.len() < RUNS && (times.len() < RUNS_LEAST || began.elapsed() < RUNS_WITHIN) {
            times.push(self.once(question).await?);
        }
        let cpu = self.node.cpu()?.saturating_sub(before) / u32::try_from(times.len()).expect("a few");
        times.sort_unstable();
        Ok((quantile(&times, 0.5), cpu))
    }

    /// What was read for an answer, and what took its time.
    async fn explained(&self, question: &Question) -> Result<String> {
        let answer: Value = serde_json::from_slice(&self.get(&format!("{}&explain=true", self.url(question))).await?)?;
        explain(&answer).context("an answer without its explanation")
    }
}

/// An explanation in one line. Times of shards are of all of them together, and they run side by side.
fn explain(answer: &Value) -> Option<String> {
    let explain = answer.pointer("/data/explain")?;
    let count = |path: &str| explain.pointer(path).and_then(Value::as_u64);
    let seconds = |value: &Value, name: &str| value.pointer(name).and_then(Value::as_f64);
    let shards = explain.get("shards")?.as_array()?;
    let of_shards = |name: &str| shards.iter().filter_map(|shard| seconds(shard, name)).sum::<f64>() * 1e3;
    Some(format!(
        "read {} of {} blocks and {} of {} batches: {} records, {} raw, {} of blocks; shards together: view {:.0}, \
         wait {:.0}, scan {:.0} ms; gather {:.0}, merge {:.1} ms",
        count("/total/read/blocks")?,
        count("/total/considered/blocks")?,
        count("/total/read/batches")?,
        count("/total/considered/batches")?,
        count("/total/read/records")?,
        human_bytes(count("/total/read/bytes")?),
        human_bytes(count("/total/read/compressedBytes")?),
        of_shards("/time/viewSeconds"),
        of_shards("/time/waitSeconds"),
        of_shards("/time/scanSeconds"),
        seconds(explain, "/time/gatherSeconds")? * 1e3,
        seconds(explain, "/time/mergeSeconds")? * 1e3,
    ))
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
    node.start()?;
    wait_ready(node, client, READY_WITHIN).await?;
    // A file that was just read at the start is in the cache, whatever was dropped before.
    forget(&node.data)
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
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_that_differs_from_plain_counting_is_told() {
        let vector = json!({"data": {"result": [{"metric": {}, "value": [1, "3"]}]}});
        check(&Expected::Sum(3), &vector).unwrap();
        check(&Expected::Top(vec![3]), &vector).unwrap();
        assert!(check(&Expected::Sum(4), &vector).is_err() && check(&Expected::Top(vec![]), &vector).is_err());
        let streams = json!({"data": {"result": [{"stream": {}, "values": [["1", "a"], ["2", "b"]]}]}});
        check(&Expected::Records(2), &streams).unwrap();
        assert!(check(&Expected::Records(1), &streams).is_err());
    }

    #[test]
    fn files_are_told_apart_by_what_their_names_end_with() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("3")).unwrap();
        for (name, bytes) in [("3/1-2.blocks", 5_000), ("3/3-4.blocks", 1), ("3/snapshot-9.redb", 4_097)] {
            fs::write(folder.path().join(name), vec![7; bytes]).unwrap();
        }
        let mut kinds = BTreeMap::new();
        allocated(folder.path(), &mut kinds);
        allocated(&folder.path().join("nowhere"), &mut kinds);
        assert_eq!(kinds.keys().collect::<Vec<_>>(), ["blocks", "redb"]);
        assert!(kinds["blocks"] >= 5_001 && kinds["redb"] >= 4_097);
    }

    #[test]
    fn an_explanation_adds_up_the_shards() {
        let total = json!({
            "read": {"blocks": 3, "batches": 2, "records": 9, "bytes": 2_000_000, "compressedBytes": 1_000},
            "considered": {"segments": 1, "blocks": 4, "batches": 2},
        });
        let time = json!({"gatherSeconds": 0.02, "mergeSeconds": 0.001});
        let shard = json!({"time": {"viewSeconds": 0.001, "waitSeconds": 0.25, "scanSeconds": 0.5}});
        let explained = json!({"total": total, "time": time, "shards": [shard, shard]});
        let text = explain(&json!({"data": {"explain": explained}})).unwrap();
        assert!(
            text.starts_with("read 3 of 4 blocks and 2 of 2 batches: 9 records, 2.00 MB raw, 1.00 kB of blocks; "),
            "{text}"
        );
        assert!(text.ends_with("wait 500, scan 1000 ms; gather 20, merge 1.0 ms"), "{text}");
        assert!(explain(&json!({"data": {}})).is_none());
    }
}
