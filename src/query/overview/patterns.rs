//! Finds what lines have in common: patterns as the `|>` filter reads them, with a count per step of time.
//!
//! A line is cut into words at blanks, quotes, brackets, `=` `,` `;` `|`, and at a `:` beside one of these. A word with a
//! digit is taken for a variable, so lines that differ in such words alone have one key: counting a line is one look-up,
//! and parts of shards with the same key add up. A variable that had one value in all its lines is shown as that value.
//! Where the patterns become too many, and before they are shown, those are merged that agree in everything but a few
//! plain words (names of users, say), the frequent ones first; the rarest are left out where that is not enough.
//!
//! Every line matches the pattern it is counted for: a variable holds no character at which words are cut, and the text
//! after it begins with one, so its first occurrence is the right one. Levels never share a pattern.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::limits::{PATTERN_LINE_BYTES_MAX, PATTERN_WORDS_MAX, PATTERNS_HELD_MAX, PATTERNS_PER_ANSWER};
use crate::query::ast::Matcher;
use crate::query::plan::Points;

/// What stands for a variable.
const ANY: &str = "<_>";
/// With so many digits a word is a time or an id, whatever value it had so far.
const ID_DIGITS: usize = 8;
/// A variable with a longer value is shown as a variable.
const HELD_BYTES_MAX: usize = 64;
/// Patterns are merged that agree in so many of ten words.
const ALIKE_IN_TEN: usize = 7;
/// A pattern is compared with so many frequent ones before it stands for itself: merging stays quick whatever lines hold.
const COMPARED_MAX: usize = 64;
/// What a pattern takes beside its texts, and one of its samples, generously.
const PATTERN_BYTES: usize = 256;
const SAMPLE_BYTES: usize = 48;

/// Patterns of the records in [start, end).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternsQuery {
    /// Of which streams.
    pub matchers: Vec<Matcher>,
    /// The beginning, included.
    pub start: i64,
    /// The end, not included.
    pub end: i64,
    /// The steps of the samples.
    pub buckets: Points,
}

/// One word of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It is part of what lines have in common.
    Fixed(String),
    /// A variable that had one value so far.
    Held(String),
    /// A variable.
    Any,
}

/// A pattern as one shard found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPattern {
    /// `detected_level` of its records; empty where they have none.
    pub level: String,
    /// What stands before each word, and after the last.
    pub gaps: Vec<String>,
    /// One fewer than gaps.
    pub words: Vec<Word>,
    /// Step and records, ascending.
    pub samples: Vec<(u32, u64)>,
}

/// A pattern as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As the `|>` filter reads it.
    pub text: String,
    /// `detected_level` of its records.
    pub level: String,
    /// Step and records, ascending.
    pub samples: Vec<(u32, u64)>,
}

/// A word of a line: where it stands, and what kind it is.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fixed,
    /// A variable whose value may be shown.
    Short,
    Any,
}

fn cuts(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"=,;|\"'`()[]{}\\".contains(&byte)
}

/// Whether words are cut at a position.
fn is_cut(line: &[u8], at: usize) -> bool {
    let beside = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(|byte| cuts(*byte));
    cuts(line[at]) || (line[at] == b':' && (beside(at.checked_sub(1)) || beside(at.checked_add(1))))
}

fn kind(word: &[u8]) -> Kind {
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    // In a pattern `<name>` means something: such a word cannot stand for itself.
    if digits >= ID_DIGITS || word.contains(&b'<') || word.len() > HELD_BYTES_MAX {
        Kind::Any
    } else if digits > 0 {
        Kind::Short
    } else {
        Kind::Fixed
    }
}

/// Cuts a line into words. What is beyond the bounds is one variable.
fn cut(line: &str, words: &mut Vec<Span>) {
    words.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_cut(bytes, at) {
            at += 1;
            continue;
        }
        let length = (at..bytes.len()).take_while(|at| !is_cut(bytes, *at)).count();
        if words.len() + 1 >= PATTERN_WORDS_MAX || at + length > PATTERN_LINE_BYTES_MAX {
            return words.push(Span { start: at, end: bytes.len(), kind: Kind::Any });
        }
        words.push(Span { start: at, end: at + length, kind: kind(&bytes[at..at + length]) });
        at += length;
    }
}

/// What all lines and parts of one pattern have in common.
fn key<'a>(level: &str, gaps: impl Iterator<Item = &'a str>, mut words: impl Iterator<Item = Option<&'a str>>) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(level.as_bytes());
    // No text holds these bytes, so parts cannot be taken for one another.
    for gap in gaps {
        hasher.update(&[0xff]);
        hasher.update(gap.as_bytes());
        match words.next() {
            Some(Some(word)) => {
                hasher.update(&[0xfe]);
                hasher.update(word.as_bytes());
            }
            Some(None) => hasher.update(&[0xfd]),
            None => {}
        }
    }
    hasher.digest128()
}

#[derive(Clone, Debug)]
struct Cluster {
    level: String,
    gaps: Vec<String>,
    words: Vec<Word>,
    samples: BTreeMap<u32, u64>,
    count: u64,
}

impl Word {
    fn fixed(&self) -> Option<&str> {
        match self {
            Self::Fixed(text) => Some(text),
            Self::Held(_) | Self::Any => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Fixed(text) | Self::Held(text) => text.len() + 32,
            Self::Any => 32,
        }
    }
}

impl Cluster {
    fn key(&self) -> u128 {
        key(&self.level, self.gaps.iter().map(String::as_str), self.words.iter().map(Word::fixed))
    }

    fn bytes(&self) -> usize {
        let gaps: usize = self.gaps.iter().map(|gap| gap.len() + 32).sum();
        PATTERN_BYTES + gaps + self.words.iter().map(Word::bytes).sum::<usize>() + self.samples.len() * SAMPLE_BYTES
    }

    /// Takes another one with the same gaps: words that differ become variables.
    fn merge(&mut self, other: Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            if word != other {
                *word = Word::Any;
            }
        }
        self.count = self.count.saturating_add(other.count);
        for (bucket, count) in other.samples {
            let sum = self.samples.entry(bucket).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Whether lines of both are taken for the same: enough words agree, one of them plain.
    fn is_like(&self, other: &Self) -> bool {
        let both = || self.words.iter().zip(&other.words);
        let shared = both().filter(|(a, b)| a.fixed().is_some() && a.fixed() == b.fixed()).count();
        let agree = both().filter(|(a, b)| a.fixed().is_none() || a.fixed() == b.fixed()).count();
        shared > 0 && agree * 10 >= self.words.len() * ALIKE_IN_TEN
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (at, gap) in self.gaps.iter().enumerate() {
            text.push_str(gap);
            match self.words.get(at) {
                Some(Word::Fixed(word) | Word::Held(word)) => text.push_str(word),
                Some(Word::Any) => text.push_str(ANY),
                None => {}
            }
        }
        text
    }
}

/// Patterns with their counts, of lines and of parts of shards.
#[derive(Debug)]
pub struct Miner {
    buckets: Points,
    clusters: BTreeMap<u128, Cluster>,
    bytes: usize,
    scratch: Vec<Span>,
}

impl Miner {
    /// Nothing found yet.
    pub fn new(buckets: Points) -> Self {
        Self { buckets, clusters: BTreeMap::new(), bytes: 0, scratch: Vec::new() }
    }

    /// The steps of its samples.
    pub fn buckets(&self) -> Points {
        self.buckets
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts one line at a time. An empty line has no pattern.
    pub fn count(&mut self, level: &str, line: &str, time: i64) {
        let mut spans = std::mem::take(&mut self.scratch);
        cut(line, &mut spans);
        if !spans.is_empty() {
            let at = time.saturating_sub(self.buckets.start) / self.buckets.step;
            let bucket = u32::try_from(at).unwrap_or(0).min(self.buckets.count - 1);
            self.count_words(level, line, &spans, bucket);
        }
        self.scratch = spans;
    }

    fn count_words(&mut self, level: &str, line: &str, spans: &[Span], bucket: u32) {
        let ends = std::iter::once(0).chain(spans.iter().map(|span| span.end));
        let starts = spans.iter().map(|span| span.start).chain([line.len()]);
        let gaps = ends.zip(starts).map(|(from, to)| &line[from..to]);
        let word = |span: &Span| (span.kind == Kind::Fixed).then(|| &line[span.start..span.end]);
        let key = key(level, gaps.clone(), spans.iter().map(word));
        if let Some(cluster) = self.clusters.get_mut(&key) {
            for (word, span) in cluster.words.iter_mut().zip(spans) {
                if matches!(word, Word::Held(held) if *held != line[span.start..span.end]) {
                    *word = Word::Any;
                }
            }
            cluster.count += 1;
            if let Some(count) = cluster.samples.get_mut(&bucket) {
                *count += 1;
            } else {
                cluster.samples.insert(bucket, 1);
                self.bytes += SAMPLE_BYTES;
            }
            return;
        }
        let word = |span: &Span| match span.kind {
            Kind::Fixed => Word::Fixed(line[span.start..span.end].to_owned()),
            Kind::Short => Word::Held(line[span.start..span.end].to_owned()),
            Kind::Any => Word::Any,
        };
        self.insert(
            key,
            Cluster {
                level: level.to_owned(),
                gaps: gaps.map(str::to_owned).collect(),
                words: spans.iter().map(word).collect(),
                samples: BTreeMap::from([(bucket, 1)]),
                count: 1,
            },
        );
    }

    /// Adds what a shard found. What is no pattern (its gaps are not one more than its words) is not.
    pub fn absorb(&mut self, found: FoundPattern) {
        let FoundPattern { level, gaps, words, samples } = found;
        if gaps.len() != words.len() + 1 || words.is_empty() {
            return;
        }
        let count = samples.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        let samples = samples.into_iter().filter(|(bucket, _)| *bucket < self.buckets.count).collect();
        let cluster = Cluster { level, gaps, words, samples, count };
        self.insert(cluster.key(), cluster);
    }

    fn insert(&mut self, key: u128, cluster: Cluster) {
        self.bytes += cluster.bytes();
        match self.clusters.get_mut(&key) {
            Some(held) => held.merge(cluster),
            None => drop(self.clusters.insert(key, cluster)),
        }
        if self.clusters.len() > PATTERNS_HELD_MAX {
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        let mut clusters = self.merged();
        clusters.truncate(PATTERNS_HELD_MAX / 2);
        self.bytes = clusters.iter().map(Cluster::bytes).sum();
        self.clusters = clusters.into_iter().map(|cluster| (cluster.key(), cluster)).collect();
    }

    /// Those that are alike as one; the most frequent first, then by their text.
    fn merged(&mut self) -> Vec<Cluster> {
        let mut alike: BTreeMap<(String, Vec<String>), Vec<Cluster>> = BTreeMap::new();
        for cluster in std::mem::take(&mut self.clusters).into_values() {
            alike.entry((cluster.level.clone(), cluster.gaps.clone())).or_default().push(cluster);
        }
        let frequent = |clusters: &mut Vec<Cluster>| {
            clusters.sort_by_cached_key(|cluster| (u64::MAX - cluster.count, cluster.level.clone(), cluster.text()));
        };
        let mut all = Vec::new();
        for mut clusters in alike.into_values() {
            frequent(&mut clusters);
            let mut kept: Vec<Cluster> = Vec::new();
            for cluster in clusters {
                match kept.iter_mut().take(COMPARED_MAX).find(|kept| kept.is_like(&cluster)) {
                    Some(kept) => kept.merge(cluster),
                    None => kept.push(cluster),
                }
            }
            all.extend(kept);
        }
        frequent(&mut all);
        all
    }

    /// What travels.
    pub fn found(mut self) -> Vec<FoundPattern> {
        let found = |cluster: Cluster| {
            let Cluster { level, gaps, words, samples, .. } = cluster;
            FoundPattern { level, gaps, words, samples: samples.into_iter().collect() }
        };
        self.merged().into_iter().map(found).collect()
    }

    /// What is shown: the most frequent ones.
    pub fn patterns(mut self) -> Vec<Pattern> {
        let shown = |cluster: Cluster| Pattern {
            text: cluster.text(),
            level: cluster.level,
            samples: cluster.samples.into_iter().collect(),
        };
        self.merged().into_iter().take(PATTERNS_PER_ANSWER).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: Points = Points { start: 0, step: 10, count: 4 };

    fn mined(lines: &[&str]) -> Miner {
        let mut miner = Miner::new(STEPS);
        lines.iter().for_each(|line| miner.count("info", line, 5));
        miner
    }

    fn texts(miner: Miner) -> Vec<String> {
        miner.patterns().into_iter().map(|pattern| pattern.text).collect()
    }

    /// Whether a pattern matches, by the rule that a variable ends where the text after it first occurs.
    fn matches(pattern: &str, line: &str) -> bool {
        let mut parts = pattern.split(ANY);
        let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
        for part in parts {
            if part.is_empty() {
                return true;
            }
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.is_empty()
    }

    #[test]
    fn absurd_counts_of_another_node_add_up_to_the_largest() {
        let found = FoundPattern {
            level: String::new(),
            gaps: vec![String::new(), String::new()],
            words: vec![Word::Fixed("x".to_owned())],
            samples: vec![(0, u64::MAX), (1, u64::MAX)],
        };
        let mut miner = Miner::new(STEPS);
        miner.absorb(found.clone());
        miner.absorb(found);
        assert_eq!(miner.patterns()[0].samples, [(0, u64::MAX), (1, u64::MAX)]);
    }

    #[test]
    fn the_documented_lines_have_the_documented_pattern() {
        let found = mined(&[
            "ts=2024-03-30T23:03:40 caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=200ms msg=gRPC",
            "ts=2024-03-30T23:03:41 caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=500ms msg=gRPC",
        ]);
        let expected = "ts=<_> caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=<_> msg=gRPC";
        assert_eq!(texts(found), [expected]);
    }

    #[test]
    fn words_that_differ_in_lines_that_agree_become_variables() {
        let found = mined(&["user alice logged in", "user bob logged in", "disk is full", "user carol logged in"]);
        assert_eq!(texts(found), ["user <_> logged in", "disk is full"]);
        let found = mined(&[r#"{"msg": "a", "took": 12}"#, r#"{"msg": "a", "took": 7}"#]);
        assert_eq!(texts(found), [r#"{"msg": "a", "took": <_>}"#]);
    }

    #[test]
    fn levels_are_kept_apart_and_samples_stand_in_their_steps() {
        let mut miner = Miner::new(STEPS);
        for (level, time) in [("info", 0), ("info", 9), ("error", 9), ("info", 35)] {
            miner.count(level, "job done", time);
        }
        let found: Vec<_> = miner.patterns().into_iter().map(|pattern| (pattern.level, pattern.samples)).collect();
        assert_eq!(found, [("info".to_owned(), vec![(0, 2), (3, 1)]), ("error".to_owned(), vec![(0, 1)])]);
    }

    #[test]
    fn what_is_held_is_bounded_and_frequent_patterns_stay() {
        let mut miner = Miner::new(STEPS);
        let word = |mut at: usize| {
            let mut word = String::new();
            while at > 0 {
                word.push(char::from(b'a' + (at % 26) as u8));
                at /= 26;
            }
            word
        };
        for at in 0..PATTERNS_HELD_MAX * 3 {
            miner.count("info", "a frequent line", 1);
            miner.count("info", &word(at + 1), 1);
        }
        assert!(miner.clusters.len() <= PATTERNS_HELD_MAX);
        let found = miner.patterns();
        assert_eq!(
            (found[0].text.as_str(), &found[0].samples),
            ("a frequent line", &vec![(0, PATTERNS_HELD_MAX as u64 * 3)])
        );
        assert_eq!(found.len(), PATTERNS_PER_ANSWER);
    }

    fn line() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "user",
            "alice",
            "bob",
            "id7",
            "12",
            "2024-01-02T03:04:05Z",
            "x:y1",
            ":",
            "a1:",
            "<b>",
            "é",
            "=",
            "\"",
            "{",
            " ",
            "  ",
            ", ",
            ": ",
            "http://h/p?q=1",
            "\\",
            "\n",
        ]);
        prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn every_line_matches_a_pattern_and_every_line_is_counted(lines in prop::collection::vec(line(), 0..20)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let found = mined(&lines).patterns();
            let with_words = lines.iter().filter(|line| (0..line.len()).any(|at| !is_cut(line.as_bytes(), at)));
            let mut counted = 0;
            for line in with_words {
                counted += 1;
                prop_assert!(found.iter().any(|pattern| matches(&pattern.text, line)), "{:?} in {:?}", line, found);
            }
            let sum: u64 = found.iter().flat_map(|pattern| &pattern.samples).map(|(_, count)| count).sum();
            prop_assert_eq!(sum, counted);
        }

        #[test]
        fn parts_of_shards_merge_in_any_order_to_the_same(lines in prop::collection::vec((0..3_usize, line()), 0..20)) {
            let part = |shard| {
                let lines: Vec<&str> = lines.iter().filter(|(at, _)| *at == shard).map(|(_, line)| line.as_str()).collect();
                mined(&lines).found()
            };
            let whole = |order: [usize; 3]| {
                let mut miner = Miner::new(STEPS);
                order.into_iter().flat_map(part).for_each(|pattern| miner.absorb(pattern));
                miner.patterns()
            };
            prop_assert_eq!(whole([0, 1, 2]), whole([2, 0, 1]));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            mined(&[&text]).patterns();
        }
    }
}
