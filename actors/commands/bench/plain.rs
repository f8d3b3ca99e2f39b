//! The lines of a set as plain files, as they come and packed by `zstd -3`: what is counted in them, which answers are held to,
//! and how long plain searches of them take. It does not know the node, nor its queries.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use regex::bytes::Regex;

use super::quantile;
use super::set::{Packed, Row, Set};

/// What the questions look for in the text of lines.
pub(super) const SUBSTRING: &str = "12.34.5";
pub(super) const PASSWORD: &str = r"(Failed|Accepted) password for .* from 1[0-9]{2}\.[0-9]+\.";
pub(super) const WORD: &str = r"\berror\b";
/// The field of the JSON lines that holds a status of 500 or more, as somebody with `rg` would ask for it.
const JSON_STATUS: &str = r#""status":5[0-9][0-9]"#;
/// Bytes of a file that are searched at once.
const PIECE: usize = 4 << 20;
/// Lines among which one is looked for whose id stands in no other.
const CANDIDATES: u64 = 256;
/// Characters of an id, at least.
const ID_LEAST: usize = 12;
/// Times each plain search of raw lines runs, and of packed ones, which takes longer and varies less.
const RUNS: (usize, usize) = (3, 1);

/// What plain counting finds in the lines of a span.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) by_service: BTreeMap<String, u64>,
    /// Lines of level `error`, by host.
    pub(super) errors: BTreeMap<String, u64>,
    /// Lines with a status of 500 or more.
    pub(super) failed: u64,
    /// Of them those that are JSON.
    pub(super) failed_json: u64,
    /// Lines of `hdfs` with the word `block`.
    pub(super) blocks: u64,
    pub(super) substring: u64,
    pub(super) password: u64,
    pub(super) word: u64,
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

/// A set that was written as plain lines, in the order of their times.
pub(super) struct Plain {
    path: PathBuf,
    packed: PathBuf,
    /// Where the last quarter of an hour begins in the file.
    short_at: u64,
    /// Bytes of the lines, each with its end.
    pub(super) bytes: u64,
    /// What `zstd -3` made of the lines.
    pub(super) zstd_bytes: u64,
    /// An id that stands in one line, before the last quarter of an hour, and one of the same shape that stands in none.
    pub(super) needle: String,
    pub(super) absent: String,
    pub(super) day: Counted,
    pub(super) short: Counted,
}

/// How long a plain search of all lines took.
pub(super) struct Searched {
    /// Which question it stands beside.
    pub(super) name: &'static str,
    pub(super) raw: Duration,
    pub(super) unpacked: Duration,
}

/// What makes the plain searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searcher {
    /// The commands `rg` and `zstd`.
    Commands,
    /// The crates `regex` and `zstd` in this process, on one core.
    Crates,
}

impl Searcher {
    /// The commands where both are there.
    pub(super) fn find() -> Self {
        let runs =
            |name: &str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        if runs("rg") && runs("zstd") { Self::Commands } else { Self::Crates }
    }

    /// What searches the raw lines, and what the packed ones, as a report calls them.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Commands => ("rg -c of the raw lines", "zstd -dc | rg -c"),
            Self::Crates => (
                "regex crate over the raw lines, 1 core (no rg here)",
                "zstd crate into regex crate, 1 core (no rg here)",
            ),
        }
    }
}

impl Plain {
    /// Writes the lines, and counts what is counted by fields. `tick` is called for each row and may end it.
    pub(super) fn write(set: &Set, short_from: i64, folder: &Path, tick: impl Fn() -> Result<()>) -> Result<Self> {
        let (path, packed_path) = (folder.join("raw.log"), folder.join("raw.log.zst"));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut packed = Packed::new(BufWriter::new(File::create(&packed_path)?))?;
        let (mut day, mut short) = (Counted::default(), Counted::default());
        let (mut bytes, mut short_at) = (0, None);
        let mut candidates = Vec::new();
        let every = (set.rows() as u64 / CANDIDATES).max(1);
        for (at, row) in (0_u64..).zip(set.iter()) {
            tick()?;
            let service = set.service(&row);
            day.add(service, &row);
            if row.timestamp > short_from {
                short_at.get_or_insert(bytes);
                short.add(service, &row);
            } else if at % every == 0 {
                candidates.extend(id_of(&row.text).map(str::to_owned));
            }
            file.write_all(row.text.as_bytes())?;
            file.write_all(b"\n")?;
            packed.line(&row.text)?;
            bytes += row.text.len() as u64 + 1;
        }
        file.flush()?;
        packed.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let zstd_bytes = fs::metadata(&packed_path)?.len();
        let needle = only_one(&path, candidates)?;
        let absent = needle.bytes().rev().map(char::from).collect();
        let short_at = short_at.unwrap_or(bytes);
        Ok(Self { path, packed: packed_path, short_at, bytes, zstd_bytes, needle, absent, day, short })
    }

    /// Counts what is counted by the text of lines, and holds the needle to be there once and the absent id not at all.
    pub(super) fn count_lines(&mut self) -> Result<()> {
        let texts = [&self.needle, &self.absent, SUBSTRING].map(|text| Regex::new(&regex::escape(text)));
        let [needle, absent, substring] = texts;
        let all = [needle?, absent?, substring?, Regex::new(PASSWORD)?, ascii(WORD)?];
        let counts = |from: u64| -> Result<[u64; 5]> {
            let mut counts = [0; 5];
            for (count, regex) in counts.iter_mut().zip(&all) {
                *count = search(&mut open(&self.path, from)?, regex)?;
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

    /// The median time of plain searches of all lines, raw ones from the page cache.
    pub(super) fn searches(&self, searcher: Searcher) -> Result<Vec<Searched>> {
        let texts = [("needle", &*self.needle), ("absent", &self.absent), ("substring", SUBSTRING), ("last", "block")];
        let texts = texts.map(|(name, text)| (name, regex::escape(text)));
        let expressions = [("regex", PASSWORD), ("word", WORD), ("JSON", JSON_STATUS)];
        let expressions = expressions.map(|(name, expression)| (name, expression.to_owned()));
        let searched = |(name, expression): (&'static str, String)| {
            let regex = ascii(&expression)?;
            let raw = median(RUNS.0, || match searcher {
                Searcher::Commands => run(Command::new("rg").args(["-c", &expression]).arg(&self.path)),
                Searcher::Crates => search(&mut open(&self.path, 0)?, &regex).map(drop),
            })?;
            let unpacked = median(RUNS.1, || match searcher {
                Searcher::Commands => {
                    let piped = r#"zstd -dc "$1" | rg -c "$2""#;
                    run(Command::new("sh").args(["-c", piped, "sh"]).arg(&self.packed).arg(&expression))
                }
                Searcher::Crates => {
                    let unpacked = zstd::stream::read::Decoder::new(File::open(&self.packed)?)?;
                    search(&mut BufReader::with_capacity(PIECE, unpacked), &regex).map(drop)
                }
            })?;
            Ok(Searched { name, raw, unpacked })
        };
        texts.into_iter().chain(expressions).map(searched).collect()
    }
}

fn median(runs: usize, work: impl Fn() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(quantile(&times, 0.5))
}

/// Runs a search; `rg` ends with 1 where it finds nothing.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        _ => bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// An expression whose classes are ASCII, as those of the queries are.
fn ascii(expression: &str) -> Result<Regex> {
    Ok(Regex::new(&format!("(?-u){expression}"))?)
}

/// The longest word of letters and digits in a line that may be an id.
fn id_of(text: &str) -> Option<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .filter(|word| word.len() >= ID_LEAST && word.bytes().any(|byte| byte.is_ascii_digit()))
        .max_by_key(|word| word.len())
}

/// One of the ids that stands once in a file; of several the one in the middle.
fn only_one(path: &Path, mut candidates: Vec<String>) -> Result<String> {
    // The longest come first, so that none is taken for the beginning of another.
    candidates.sort_by_key(|id| std::cmp::Reverse(id.len()));
    candidates.dedup();
    ensure!(!candidates.is_empty(), "the set has no id to look for");
    let any = Regex::new(&candidates.join("|"))?;
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    pieces(&mut open(path, 0)?, |piece| {
        any.find_iter(piece).for_each(|found| *counts.entry(found.as_bytes().to_vec()).or_default() += 1);
    })?;
    candidates.retain(|id| counts.get(id.as_bytes()) == Some(&1));
    ensure!(!candidates.is_empty(), "no id of the set stands in one line alone");
    Ok(candidates.swap_remove(candidates.len() / 2))
}

fn open(path: &Path, from: u64) -> Result<BufReader<File>> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.seek(SeekFrom::Start(from))?;
    Ok(BufReader::with_capacity(PIECE, file))
}

/// Reads whole lines, some mebibytes at once.
fn pieces(from: &mut impl BufRead, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut piece = Vec::with_capacity(PIECE + 4_096);
    loop {
        piece.clear();
        from.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        from.read_until(b'\n', &mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        take(&piece);
    }
}

/// How many lines match.
fn search(from: &mut impl BufRead, regex: &Regex) -> Result<u64> {
    let mut count = 0;
    pieces(from, |piece| {
        let mut at = 0;
        while let Some(found) = regex.find_at(piece, at) {
            count += 1;
            let Some(end) = memchr::memchr(b'\n', &piece[found.start()..]) else { break };
            at = found.start() + end + 1;
        }
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_once_however_often_they_match() {
        let count = |regex: &str| search(&mut &b"a a\nb\na\n\nxa"[..], &Regex::new(regex).unwrap()).unwrap();
        assert_eq!((count("a"), count("x"), count("nowhere")), (3, 1, 0));
    }

    #[test]
    fn pieces_end_where_lines_do() {
        let line = "y".repeat(1_000);
        let text = format!("{line}\n").repeat(2 * PIECE / 1_001) + "y";
        let (mut lines, mut all) = (0, 0);
        let mut from = BufReader::with_capacity(1 << 16, text.as_bytes());
        pieces(&mut from, |piece| {
            all += piece.len();
            lines += piece.split(|byte| *byte == b'\n').filter(|found| *found == line.as_bytes()).count();
        })
        .unwrap();
        assert_eq!((lines, all), (2 * PIECE / 1_001, text.len()));
    }

    #[test]
    fn an_id_that_stands_once_is_told_from_those_that_stand_twice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "blk_123456789012 x\nblk_123456789012 y\nid 1234567890123\n").unwrap();
        let ids = || ["123456789012", "1234567890123"].map(str::to_owned).to_vec();
        assert_eq!(only_one(file.path(), ids()).unwrap(), "1234567890123");
        assert!(only_one(file.path(), ids()[..1].to_vec()).is_err() && only_one(file.path(), vec![]).is_err());
        assert_eq!(id_of("short 123456789 and blk_9876543210987"), Some("9876543210987"));
        assert_eq!(id_of("no digits: abcdefghijklmnop"), None);
    }
}
