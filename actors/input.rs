//! Where the lines come from that the commands send: files (plain, `.gz`, `.zst`), NDJSON, and a seeded generator.
//!
//! It does not know where the lines go.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::moment;

/// The longest line that is read; a longer one is cut there, and a node would refuse it.
pub const LINE_BYTES_MAX: usize = millpond::limits::LINE_BYTES_MAX;

/// One line to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Labels the line itself brings.
    pub labels: Vec<(String, String)>,
    /// Nanoseconds since the Unix epoch, where the line brings it.
    pub timestamp: Option<i64>,
    /// The text.
    pub text: String,
    /// Fields beside the text.
    pub metadata: Vec<(String, String)>,
}

/// How the bytes of an input are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// NDJSON where the first byte is `{`, else plain.
    #[default]
    Auto,
    /// Every line is a record.
    Plain,
    /// Every line is a JSON object.
    Ndjson,
}

/// Opens a file and inflates it by its extension, `.gz` or `.zst`.
///
/// # Errors
/// Where it cannot be opened.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let file = File::open(path)?;
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        Some("zst") => Box::new(BufReader::new(zstd::stream::read::Decoder::new(file)?)),
        _ => Box::new(BufReader::with_capacity(1 << 16, file)),
    })
}

/// Reads lines in one format, decided at the first of them.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    format: Format,
    buffer: Vec<u8>,
    consumed: u64,
}

impl<R: BufRead> Reader<R> {
    /// A reader at the start of an input.
    pub fn new(from: R, format: Format) -> Self {
        Self { from, format, buffer: Vec::new(), consumed: 0 }
    }

    /// Bytes read so far.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next line that is not empty; `None` at the end of what there is now. An unfinished last line is kept until the
    /// rest of it arrives, or until [`Reader::rest`] takes it.
    ///
    /// # Errors
    /// Where reading fails.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.buffer.len()).max(1);
            let read = (&mut self.from).take(room as u64).read_until(b'\n', &mut self.buffer)?;
            self.consumed += read as u64;
            if self.buffer.last() != Some(&b'\n') && self.buffer.len() <= LINE_BYTES_MAX {
                if read == 0 {
                    return Ok(None);
                }
                continue;
            }
            if let Some(line) = self.rest() {
                return Ok(Some(line));
            }
        }
    }

    /// What stands in the buffer as a line, also without a line end.
    pub fn rest(&mut self) -> Option<Line> {
        let text = String::from_utf8_lossy(&self.buffer);
        let text = text.trim_end_matches(['\n', '\r']);
        let line = (!text.is_empty()).then(|| {
            if self.format == Format::Auto {
                self.format = if text.starts_with('{') { Format::Ndjson } else { Format::Plain };
            }
            let object = (self.format == Format::Ndjson).then(|| parse_object(text)).flatten();
            object.unwrap_or_else(|| Line { text: text.to_owned(), ..Line::default() })
        });
        self.buffer.clear();
        line
    }
}

/// Reads every line of a file, at most `bytes_max` bytes of text.
///
/// # Errors
/// Where reading fails.
pub fn read_all(path: &Path, bytes_max: usize) -> io::Result<Vec<Line>> {
    let mut reader = Reader::new(open(path)?, Format::Auto);
    let mut lines = Vec::new();
    let mut bytes = 0;
    while let Some(line) = reader.next_line()? {
        bytes += line.text.len();
        lines.push(line);
        if bytes >= bytes_max {
            return Ok(lines);
        }
    }
    lines.extend(reader.rest());
    Ok(lines)
}

/// One NDJSON object as a line: `ts`, `timestamp` or `time`; `line`, `message`, `msg` or `log`; `labels`; `service`,
/// `service_name`, `host` and `level` as labels; what else is scalar as metadata. An object without text is its own text.
fn parse_object(text: &str) -> Option<Line> {
    let object: Map<String, Value> = serde_json::from_str(text).ok()?;
    let mut line = Line::default();
    let mut has_text = false;
    for (name, value) in object {
        match (name.as_str(), value) {
            ("ts" | "timestamp" | "time", value) => line.timestamp = timestamp_of(&value).or(line.timestamp),
            ("line" | "message" | "msg" | "log", Value::String(message)) => {
                line.text = message;
                has_text = true;
            }
            ("labels", Value::Object(labels)) => {
                line.labels.extend(labels.into_iter().filter_map(|(name, value)| Some((name, scalar(&value)?))));
            }
            ("service" | "service_name", Value::String(service)) => line.labels.push(("service_name".into(), service)),
            ("host" | "level", Value::String(value)) => line.labels.push((name, value)),
            (_, value) => line.metadata.extend(scalar(&value).map(|value| (name, value))),
        }
    }
    if !has_text {
        text.clone_into(&mut line.text);
        line.metadata.clear();
    }
    line.text = line.text.replace('\n', "\\n");
    Some(line)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn timestamp_of(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => moment::parse(text),
        Value::Number(number) => moment::parse(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Lines as services write them, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Generator {
    state: u64,
}

impl Generator {
    /// A generator; every seed has its own lines.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `count` lines.
    pub fn lines(&mut self, count: usize) -> Vec<Line> {
        (0..count).map(|_| self.line()).collect()
    }

    /// The next draw (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn line(&mut self) -> Line {
        let host = self.below(4);
        let (service, level, text) = match self.below(8) {
            0 => ("gateway", "info", self.access()),
            1 => ("checkout", "info", self.order()),
            2 => ("checkout", "error", self.failed_payment()),
            3 => ("database", "warn", self.slow_query()),
            4 => ("auth", "info", self.login()),
            5 => ("queue", "debug", self.consumed()),
            6 => ("storage", "info", self.block_received()),
            _ => ("scheduler", "info", self.scheduled()),
        };
        let labels =
            [("service_name", service.to_owned()), ("host", format!("{service}-{host}")), ("level", level.into())];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Line { labels, timestamp: None, text, metadata: Vec::new() }
    }

    fn access(&mut self) -> String {
        let address = self.draw().to_le_bytes();
        let path = ["/", "/cart", "/api/v2/items", "/static/app.js", "/search?q=lamp"][self.below(5) as usize];
        let status = [200, 200, 200, 200, 304, 404, 500][self.below(7) as usize];
        let (bytes, ms) = (self.below(90_000), self.below(900));
        let [a, b, c, d, ..] = address;
        format!(
            "{a}.{b}.{c}.{d} - - \"GET {path} HTTP/1.1\" {status} {bytes} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" {ms}ms"
        )
    }

    fn order(&mut self) -> String {
        let (trace, order, cents) = (self.draw(), self.below(1 << 32), self.below(50_000));
        let items = 1 + self.below(9);
        format!(
            r#"{{"msg":"order placed","trace_id":"{trace:016x}","order":{order},"items":{items},"cents":{cents},"currency":"EUR"}}"#
        )
    }

    fn failed_payment(&mut self) -> String {
        let (trace, attempt, ms) = (self.draw(), 1 + self.below(5), self.below(30_000));
        format!(
            "payment provider answered 502 after {ms} ms, attempt {attempt} of 5, trace_id={trace:016x} caller=payments/client.go:118"
        )
    }

    fn slow_query(&mut self) -> String {
        let (ms, rows, id) = (200 + self.below(9_000), self.below(100_000), self.below(1 << 24));
        format!(
            "duration: {ms}.{:03} ms  statement: SELECT * FROM orders WHERE customer_id = {id} ORDER BY created_at DESC; rows={rows}",
            self.below(1000)
        )
    }

    fn login(&mut self) -> String {
        let (user, port, session) = (self.below(20_000), 1024 + self.below(60_000), self.draw());
        format!(
            "Accepted publickey for user{user} from 10.{}.{}.{} port {port} ssh2: session {session:016x}",
            self.below(256),
            self.below(256),
            self.below(256)
        )
    }

    fn consumed(&mut self) -> String {
        let (partition, offset, lag) = (self.below(64), self.below(1 << 40), self.below(5_000));
        format!(
            "consumer group=billing topic=orders partition={partition} offset={offset} lag={lag} batch={}",
            self.below(512)
        )
    }

    fn block_received(&mut self) -> String {
        let (block, bytes) = (self.draw() >> 1, self.below(67_108_864));
        format!(
            "Received block blk_{block} of size {bytes} from /10.250.{}.{}:50010 mirrored to 2 replicas",
            self.below(256),
            self.below(256)
        )
    }

    fn scheduled(&mut self) -> String {
        let (job, ms) = (self.below(4_000), self.below(60_000));
        format!(
            "job nightly-report-{job} finished state=SUCCEEDED took={ms}ms worker=worker-{} next=+86400s",
            self.below(32)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        let mut reader = Reader::new(text.as_bytes(), Format::Auto);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line);
        }
        lines.extend(reader.rest());
        lines
    }

    #[test]
    fn an_object_becomes_labels_time_text_and_metadata() {
        let got = lines(concat!(
            r#"{"ts":"1970-01-01T00:00:01.5Z","service":"api","host":"a","message":"hi","status":200}"#,
            "\n"
        ));
        let labels = vec![("host".into(), "a".into()), ("service_name".into(), "api".into())];
        let metadata = vec![("status".into(), "200".into())];
        assert_eq!(got, [Line { labels, timestamp: Some(1_500_000_000), text: "hi".into(), metadata }]);
    }

    #[test]
    fn plain_lines_stay_as_they_are_and_the_last_needs_no_end() {
        let texts: Vec<String> = lines("one\r\n\ntwo {\nthree").into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["one", "two {", "three"]);
    }

    #[test]
    fn an_object_without_text_is_its_own_text() {
        let got = lines(r#"{"a":1}"#);
        assert_eq!(got, [Line { text: r#"{"a":1}"#.into(), ..Line::default() }]);
    }

    #[test]
    fn compressed_files_read_as_the_plain_ones() {
        let folder = tempfile::tempdir().unwrap();
        let text = "first\nsecond\n";
        let (zst, gz) = (folder.path().join("a.zst"), folder.path().join("a.gz"));
        std::fs::write(&zst, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        for path in [zst, gz] {
            assert_eq!(read_all(&path, usize::MAX).unwrap(), lines(text));
        }
    }

    #[test]
    fn a_seed_gives_the_same_lines_again() {
        assert_eq!(Generator::new(7).lines(100), Generator::new(7).lines(100));
        assert_ne!(Generator::new(7).lines(100), Generator::new(8).lines(100));
    }
}
