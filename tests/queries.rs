//! Queries as their clients meet them: a client that leaves, shards without a leader, many clients beside ingest, and
//! the commands that search.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod harness;

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use millpond::limits;
use millpond_actors::load::{Answer, Client, Pusher, StreamBody, encode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use harness::{Load, Producers, SOON, World, now, wait_until};

/// How often a client leaves.
const TIMES: usize = 20;
/// Longer than any query may take.
const PATIENCE: Duration = Duration::from_secs(70);
/// Expensive for each record, so that a few megabytes are much work.
const SLOW: &str = r#"sum(count_over_time({app="bulk"} | logfmt | line_format "{{ regexReplaceAll \"([a-z]+)=([0-9]+)\" .msg \"${2}-${1}\" | upper }}" |~ "NOTHING[0-9]+$" [2h]))"#;

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |out, byte| format!("{out}%{byte:02x}"))
}

/// The path of a query over the last hour.
fn range(query: &str) -> String {
    let now = now();
    let start = now - 3_600_000_000_000;
    format!("/loki/api/v1/query_range?query={}&start={start}&end={}&step=10m", escaped(query), now + 1)
}

impl World {
    /// Stores about so many megabytes of logfmt in many streams.
    async fn store_bulk(&self, megabytes: usize) {
        let mut pusher = Pusher::new(self.client.clone(), self.running(), 0, SOON);
        let words: String = (0..100).map(|at| format!("key={at} ")).collect();
        for part in 0..megabytes {
            let mut stream = StreamBody::new(format!(r#"{{app="bulk",part="{part}"}}"#));
            for number in 0..1_000 {
                stream.push(now(), &format!("seq={number} msg=\"{words}\""), []);
            }
            pusher.push(&encode([&stream])).await.unwrap();
        }
    }

    /// The queries of clients and the scans that run on a node.
    async fn running_on(&self, id: u64) -> (u64, u64) {
        let metrics = self.get(id, "/metrics").await.text();
        let gauge = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).parse().unwrap()
        };
        (gauge("millpond_queries_running"), gauge("millpond_scans_running"))
    }

    /// How long after a moment each node was first seen with nothing running; they are asked without a pause, so what is
    /// measured is more than what it took by one question at most.
    async fn quiet_since(&self, moment: Instant) -> [Duration; 3] {
        let quiet = async |id| {
            while self.running_on(id).await != (0, 0) {}
            moment.elapsed()
        };
        let all = async { <[Duration; 3]>::from(tokio::join!(quiet(1), quiet(2), quiet(3))) };
        timeout(SOON, all).await.expect("nothing runs any more")
    }

    async fn running_anywhere(&self) -> Vec<(u64, u64)> {
        let mut running = Vec::new();
        for id in 1..=3 {
            running.push(self.running_on(id).await);
        }
        running
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_over_heads_ends_on_all_nodes_when_its_client_leaves() {
    let world = World::start(3, "").await;
    world.led_shards().await;
    world.store_bulk(24).await;
    clients_leave(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_over_segments_ends_on_all_nodes_when_its_client_leaves() {
    let world = World::start(3, "\n[limits]\nhead_age_max = \"1s\"\n").await;
    world.led_shards().await;
    world.store_bulk(24).await;
    wait_until("everything is sealed", SOON, || async {
        let path = format!("{}&limit=1&explain=true", range(r#"{app="bulk"}"#));
        let answer: serde_json::Value = serde_json::from_slice(&world.get(1, &path).await.body).unwrap();
        let considered = &answer["data"]["explain"]["total"]["considered"];
        let sealed = considered["batches"] == 0 && considered["blocks"].as_u64().is_some_and(|blocks| blocks > 0);
        if sealed { Ok(()) } else { Err(considered.to_string()) }
    })
    .await;
    clients_leave(&world).await;
}

/// Measures how long after its client has left a query runs, again and again.
async fn clients_leave(world: &World) {
    let client = Client::new(PATIENCE);
    let began = Instant::now();
    let whole = client.get(&format!("{}{}", world.url(1), range(SLOW))).await.unwrap();
    let took = began.elapsed();
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.text());

    let address = world.url(1).replace("http://", "");
    let request = format!("GET {} HTTP/1.1\r\nhost: {address}\r\n\r\n", range(SLOW));
    let (mut here, mut anywhere) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        wait_until("the query runs, on other nodes as well", SOON, || async {
            let running = world.running_anywhere().await;
            let scanning = running.iter().filter(|(_, scans)| *scans > 0).count();
            if running[0].0 == 1 && scanning == 3 { Ok(()) } else { Err(format!("{running:?}")) }
        })
        .await;
        let left = Instant::now();
        drop(socket);
        let quiet = world.quiet_since(left).await;
        here.push(quiet[0]);
        anywhere.extend(quiet.into_iter().max());
    }
    let metrics = world.get(1, "/metrics").await.text();
    let counted = |line: &&str| line.contains("kind=\"range\"") && line.ends_with(&format!(" {TIMES}"));
    let left = metrics.lines().filter(|line| line.contains("status=\"499\"")).any(|line| counted(&line));
    assert!(left, "they were cancelled, not answered: {metrics}");
    let [here, anywhere] = [here, anywhere].map(|mut times| {
        times.sort_unstable();
        times
    });
    let median = anywhere[TIMES / 2];
    println!(
        "the whole query took {took:?}; after its client had left, nothing of it ran on the node asked after {:?}, on any \
         node after {median:?} (medians of {TIMES}), the last after {:?}",
        here[TIMES / 2],
        anywhere[TIMES - 1]
    );
    // Measured at rest it is a few tens of milliseconds; a machine that does other things as well is let have its time.
    assert!(median < Duration::from_secs(1).min(took / 2), "{anywhere:?} of {took:?}");
}

/// The shard that an error names.
fn named_shard(answer: &Answer) -> Option<u32> {
    let text = answer.text();
    let (_, rest) = text.split_once("shard-")?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_over_shards_without_a_leader_fails_soon_and_names_one() {
    let mut world = World::start(3, "").await;
    world.store(3, r#"{app="x"}"#, &["here".to_owned()]).await;
    for id in [1, 2] {
        world.cluster.node(id).kill().unwrap();
    }
    let client = Client::new(PATIENCE);
    for query in [r#"{app="x"}"#, r#"sum(rate({app="x"}[5m]))"#] {
        let began = Instant::now();
        let answer = client.get(&format!("{}{}", world.url(3), range(query))).await.unwrap();
        let took = began.elapsed();
        println!("{took:?}: {}", answer.text());
        assert!(matches!(answer.status.as_u16(), 503 | 504), "{}: {}", answer.status, answer.text());
        assert!(named_shard(&answer).is_some_and(|shard| shard < limits::SHARDS), "{}", answer.text());
        assert!(took < Duration::from_secs(10), "within its deadline of {:?}: {took:?}", limits::QUERY_DEADLINE);
    }
    let path = format!("{}&partial=true", range(r#"{app="x"}"#));
    let partial = client.get(&format!("{}{path}", world.url(3))).await.unwrap();
    let partial: serde_json::Value = serde_json::from_slice(&partial.body).unwrap();
    assert_eq!(partial["partial"], true);
    assert_eq!(partial["warnings"].as_array().unwrap().len(), limits::SHARDS as usize, "{partial}");
}

/// Asks again and again until it is stopped; how many answers there were, or the first that was not one.
async fn ask_on(client: Client, nodes: Vec<String>, at: usize, stop: Arc<AtomicBool>) -> Result<u64, String> {
    let queries = [
        r#"{service_name="producer"}"#.to_owned(),
        format!(r#"{{service_name="producer",producer="{}"}} |= "seq=""#, at % 16),
        r#"sum by (producer) (count_over_time({service_name="producer"} | logfmt [1m]))"#.to_owned(),
        r#"quantile_over_time(0.9, {service_name="producer"} | logfmt | unwrap seq [5m]) by (producer)"#.to_owned(),
        r#"topk(3, sum by (producer) (rate({service_name="producer"} |~ "seq=[0-9]+1 " [5m])))"#.to_owned(),
    ];
    let mut answers = 0;
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // All clients ask the same node at a time.
        let node = &nodes[round % nodes.len()];
        let query = &queries[(at + round) % queries.len()];
        let url = format!("{node}{}", range(query));
        let answer = client.get(&url).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("{query}: {}: {}", answer.status, answer.text()));
        }
        answers += 1;
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_beside_ingest_are_all_answered_and_no_node_passes_its_memory() {
    const CLIENTS: usize = 64;
    let world = World::start(3, "").await;
    world.led_shards().await;
    let producers = Producers::start(&world.cluster, Load::even());
    producers.all_progress(SOON).await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = Client::new(PATIENCE);
    let nodes = world.cluster.urls();
    let ask = |at| tokio::spawn(ask_on(client.clone(), nodes.clone(), at, Arc::clone(&stop)));
    let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
    sleep(Duration::from_secs(15)).await;
    producers.all_progress(SOON).await;
    stop.store(true, Ordering::SeqCst);
    let mut answers = Vec::new();
    for client in clients {
        answers.push(client.await.unwrap().unwrap_or_else(|error| panic!("{error}")));
    }
    let held: Vec<u64> = world.cluster.nodes.iter().map(|node| node.resident_bytes().unwrap().1).collect();
    let produced = producers.stop().await;
    println!("{} answers to {CLIENTS} clients; the most memory of each node: {held:?}", answers.iter().sum::<u64>());
    assert!(answers.iter().all(|count| *count > 0), "every client was answered: {answers:?}");
    assert!(held.iter().all(|held| *held < limits::MEMORY_BYTES), "{held:?}");
    world.verify(&produced).await;
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A node with four records, in two streams of two levels.
async fn with_records() -> World {
    let world = World::start(1, "").await;
    for (level, lines) in [("error", &["one", "two"]), ("info", &["three", "four"])] {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        world.store(1, &format!(r#"{{service_name="x",level="{level}"}}"#), &lines).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_shown_as_lines_as_a_table_as_a_chart_or_as_it_came() {
    let world = with_records().await;
    let url = world.url(1);
    let query = async |arguments: &[&str]| {
        let node = ["query", "--node", url.as_str()];
        text(&world.command(&node.iter().chain(arguments).copied().collect::<Vec<_>>()).await)
    };
    let records = r#"{service_name="x"}"#;
    let table = query(&[records, "--output", "table", "--from", "15m", "--to", "now"]).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["time", "stream", "line"]);
    let newest: Vec<&[&str]> = rows[1..3].iter().map(|row| &row[1..]).collect();
    assert_eq!(
        newest,
        [[r#"{level="info",service_name="x"}"#, "four"], [r#"{level="info",service_name="x"}"#, "three"]],
        "{table}"
    );
    assert_eq!(query(&[records, "--raw"]).await, "four\nthree\ntwo\none\n");
    for json in [&["--json"][..], &["--output", "json"]] {
        let answer = query(&[&[records][..], json].concat()).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer).unwrap()["status"], "success");
    }
    let numbers = r#"sum by (level) (count_over_time({service_name="x"}[1h]))"#;
    let table = query(&[numbers, "--step", "30m"]).await;
    let head =
        |table: &str| -> Vec<String> { table.lines().next().unwrap().split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        head(&table),
        ["time", "series", "value"],
        "a pipe gets a table, with a row for each series of one point"
    );
    assert!(table.lines().last().unwrap().ends_with(" 2"), "{table}");
    // What was stored now is in the windows of several points that look ahead.
    let ahead = r#"sum by (level) (count_over_time({service_name="x"}[1h] offset -1h))"#;
    let table = query(&[ahead, "--step", "15m"]).await;
    assert_eq!(head(&table), ["time", r#"{level="error"}"#, r#"{level="info"}"#], "and a column for each of several");
    assert!(table.lines().last().unwrap().ends_with(" 2"), "{table}");
    let lines = query(&[numbers, "--step", "30m", "--output", "lines"]).await;
    assert!(lines.lines().last().unwrap().ends_with(r#"{level="info"} 2"#), "{lines}");
    let chart = query(&[numbers, "--step", "5m", "--output", "chart"]).await;
    assert!(chart.lines().nth(1).unwrap().starts_with(r#"{level="error"}"#), "{chart}");
    assert!(chart.lines().all(|line| line.chars().count() <= 80) && !chart.contains('\x1b'), "{chart}");
    let sum = r#"sum(count_over_time({service_name="x"}[1h] offset -1h))"#;
    let one = query(&[sum, "--output", "chart"]).await;
    assert!(one.starts_with(&format!("{sum}\n")) && one.contains("max 4  last 4 at "), "{one}");
    for wrong in [&[records, "--output", "chart"][..], &[numbers, "--instant", "--output", "chart"]] {
        let arguments = [&["query", "--node", url.as_str()][..], wrong].concat();
        assert!(world.run_in_vain(&arguments).await.contains("a chart is of numbers"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_finds_nothing_fails_where_it_is_asked_to() {
    let world = with_records().await;
    let url = world.url(1);
    let code = async |arguments: &[&str]| {
        let output = world.command(&[arguments, &["--node", url.as_str()]].concat()).await;
        output.status.code().unwrap()
    };
    let (found, nothing, wrong) = (r#"{service_name="x"}"#, r#"{service_name="y"}"#, "{");
    assert_eq!(code(&["query", nothing]).await, 0);
    assert_eq!(code(&["query", wrong]).await, 1);
    for asked in [&["query"][..], &["query", "--json"], &["series"]] {
        let with = |text: &'static str| [asked, &[text, "--fail-empty"]].concat();
        assert_eq!(code(&with(found)).await, 0, "{asked:?}");
        assert_eq!(code(&with(nothing)).await, 1, "{asked:?}");
        assert_eq!(code(&with(wrong)).await, 2, "{asked:?}");
    }
    assert_eq!(code(&["labels", "nothing", "--fail-empty"]).await, 1);
    assert_eq!(code(&["labels", "service_name", "--fail-empty"]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_series_are_listed() {
    let world = with_records().await;
    let url = world.url(1);
    let listed = async |arguments: &[&str]| world.run(&[arguments, &["--node", url.as_str()]].concat()).await;
    let names = listed(&["labels"]).await;
    assert!(names.lines().any(|name| name == "service_name") && names.lines().any(|name| name == "level"), "{names}");
    assert_eq!(listed(&["labels", "level"]).await, "error\ninfo\n");
    assert_eq!(listed(&["labels", "level", "--selector", r#"{level=~"e.*"}"#]).await, "error\n");
    assert_eq!(listed(&["labels", "level", "--from", "2d", "--to", "1d"]).await, "");
    assert_eq!(listed(&["labels", "a/b"]).await, "");
    let both = listed(&["series", "{}"]).await;
    assert_eq!(both.lines().count(), 2, "{both}");
    assert_eq!(listed(&["series", r#"{level="error"}"#, r#"{level="none"}"#]).await.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&listed(&["series", "{}", "--json"]).await).unwrap();
    assert_eq!(json["data"][0]["service_name"], "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_names_the_replicas_and_what_they_read() {
    let world = World::start(3, "").await;
    world.led_shards().await;
    let stored = world.store(1, r#"{app="x"}"#, &["here".to_owned()]).await;
    let query = r#"{app="x"} |= "here""#;
    let answer = world.get(2, &format!("{}&explain=true", range(query))).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let explain = &answer["data"]["explain"];
    assert_eq!(explain["total"]["read"]["records"], 1, "{explain}");
    let shards = explain["shards"].as_array().unwrap();
    assert_eq!(shards.len(), limits::SHARDS as usize);
    let leaders = world.led_shards().await;
    for (shard, view) in shards.iter().zip(&leaders) {
        assert_eq!(shard["shard"], format!("shard-{}", view.shard));
        assert_eq!(shard["replicas"][0]["role"], "leader", "{shard}");
        assert_eq!(shard["read"]["batches"], u64::from(stored.contains(&view.shard)), "{shard}");
        assert!(shard["time"]["askedSeconds"].as_f64().unwrap() > 0.0, "{shard}");
    }
    let told = world.run(&["query", query, "--explain", "--node", &world.url(2)]).await;
    assert!(told.starts_with(&format!("{query}\nanswered in ")), "{told}");
    assert!(told.contains(&format!("  shard-{}, leader on node ", stored[0])), "{told}");
    assert!(told.contains("15 shards with nothing stored"), "{told}");
    let plain = world.get(2, &range(query)).await.text();
    assert!(!plain.contains("explain"), "only where it is asked for: {plain}");
}
