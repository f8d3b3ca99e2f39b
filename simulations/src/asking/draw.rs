//! Questions drawn over the lines that the workload writes. Most of them find something; numbers have few binary digits,
//! so that their sums are exact, and only counts are ranked and compared.

use millpond::query::parser;

use super::{Question, What};
use crate::case::Knobs;
use crate::draw::Dice;
use crate::naive::Ask;
use crate::naive::draw::Drawn;
use crate::workload::line::{LEVELS, TIERS};

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// What a drawer knows of the records that are there.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Clients and streams.
    pub knobs: &'a Knobs,
    /// The first time that a record may have.
    pub from: i64,
    /// The last.
    pub to: i64,
    /// The time of one of them.
    pub anchor: i64,
    /// Whether it is known where each record is: which of two of one time comes first.
    pub placed: bool,
}

/// A question.
pub(crate) fn question(dice: &mut Dice, ground: Ground<'_>) -> Question {
    let mut drawer = Drawer { dice, ground, grows: true };
    let what = match drawer.dice.below(20) {
        0 => What::Names,
        1 => What::Values((*drawer.dice.pick(&["client", "format", "tier", "missing"])).to_owned()),
        2 => What::Series(drawer.selector()),
        3 => What::Volume(drawer.selector()),
        4..=9 => drawer.logs_query(),
        _ => drawer.metric_query(),
    };
    let (partial, categorized) = (dice.one_in(4), dice.one_in(2));
    Question { what, partial, categorized }
}

/// The text of a log query for a tail. What it shows of a record begins with the record's line.
pub(crate) fn tail(dice: &mut Dice, ground: Ground<'_>) -> String {
    let mut drawer = Drawer { dice, ground, grows: true };
    let text = loop {
        let text = drawer.logs();
        if !text.contains("line_format") {
            break text;
        }
    };
    if dice.one_in(3) { text + " | line_format \"{{ __line__ }} {{.level}}\"" } else { text }
}

struct Drawer<'a> {
    dice: &'a mut Dice,
    ground: Ground<'a>,
    /// Whether no record more could make any number of the answer smaller.
    grows: bool,
}

impl Drawer<'_> {
    fn word(&mut self, from: &[&str]) -> String {
        let word: &&str = self.dice.pick(from);
        (*word).to_owned()
    }

    fn level(&mut self) -> &'static str {
        let level: &&'static str = self.dice.pick(&LEVELS);
        level
    }

    fn logs_query(&mut self) -> What {
        let text = self.logs();
        let (start, end) = self.times();
        let limit = *self.dice.pick(&[1, 10, 100, 100, 1_000, 5_000]);
        let forward = self.dice.one_in(2);
        self.query(&text, Ask::Range { start, end, step: SECOND, limit, forward })
    }

    fn metric_query(&mut self) -> What {
        let (text, instant) = self.metric();
        let ask = if instant || self.dice.one_in(3) {
            Ask::Instant(self.time())
        } else {
            let (start, end) = self.times();
            let step = *self.dice.pick(&[1, 2, 3, 7]) * SECOND;
            Ask::Range { start, end, step: step.max((end - start) / 10), limit: 1, forward: true }
        };
        self.query(&text, ask)
    }

    fn query(&self, text: &str, ask: Ask) -> What {
        let query = parser::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        What::Query { text: text.to_owned(), drawn: Box::new(Drawn { query, ask }), grows: self.grows }
    }

    /// A range that mostly holds records; a record's own time is often one of its ends.
    fn times(&mut self) -> (i64, i64) {
        let Ground { from, to, anchor, .. } = self.ground;
        let length = *self.dice.pick(&[1, 1, 2, 3, 3, 5, 8, 60]) * SECOND;
        match self.dice.below(4) {
            0 => (anchor, anchor + length),
            1 => (anchor - length, anchor),
            _ => {
                let end = from + self.milliseconds(to - from + SECOND);
                (end - length, end)
            }
        }
    }

    /// A time at which there mostly are records; often the time of one of them is exactly as old as a window is long.
    fn time(&mut self) -> i64 {
        let Ground { from, to, anchor, .. } = self.ground;
        match self.dice.below(3) {
            0 => anchor + *self.dice.pick(&[0, 1, 2, 5]) * SECOND,
            _ => from + self.milliseconds(to - from + SECOND),
        }
    }

    fn milliseconds(&mut self, below: i64) -> i64 {
        let bound = u64::try_from(below / MILLISECOND).unwrap_or(0) + 1;
        i64::try_from(self.dice.below(bound)).expect("times are small") * MILLISECOND
    }

    fn selector(&mut self) -> String {
        let mut matchers = vec!["app=\"sim\"".to_owned()];
        let client = self.dice.below(u64::from(self.ground.knobs.clients));
        let stream = self.dice.below(u64::from(self.ground.knobs.streams));
        match self.dice.below(9) {
            0 => matchers.push(format!("client=\"{client}\"")),
            1 => matchers.push(format!("client!=\"{client}\"")),
            2 => matchers.push(format!("stream=~\"{stream}|9\"")),
            3 => matchers.push(format!("tier=\"{}\"", self.dice.pick(&TIERS))),
            4 => matchers.push("tier!~\"w.b|none\"".to_owned()),
            5 => matchers.push("env=\"\"".to_owned()),
            _ => {}
        }
        match self.dice.below(6) {
            0 => matchers.push("format=\"json\"".to_owned()),
            1 => matchers.push("format=~\"log.+\"".to_owned()),
            _ => {}
        }
        format!("{{{}}}", matchers.join(", "))
    }

    fn line_filter(&mut self) -> String {
        let level = self.level();
        match self.dice.below(9) {
            0 => format!("|= \"level={level}\" or \"level\\\":\\\"{level}\""),
            1 => format!("|~ `level\\W+{level}`"),
            2 => format!("!= \"{level}\""),
            3 => "!~ `timeout|re+try`".to_owned(),
            4 => format!("|> \"<_>{level}<_>took<_>\""),
            5 => "!> \"<_>404<_>\"".to_owned(),
            6 => self.word(&["|= \"GET\"", "|= \"db\" or \"connect\"", "|= \"nobody wrote this\""]),
            _ => "|~ `\\bn\\W+[0-4]\\b`".to_owned(),
        }
    }

    fn line_filters(&mut self) -> String {
        let count = *self.dice.pick(&[0, 0, 1, 1, 2]);
        (0..count).map(|_| format!(" {}", self.line_filter())).collect()
    }

    /// The parsers for the lines that a selector finds; mostly both, since one says nothing of the other's lines.
    fn parser(&mut self, selector: &str) -> String {
        let (json, logfmt) = (selector.contains("format=\"json\""), selector.contains("log.+"));
        let json_parser = self.word(&["| json", "| json", "| json level, status, took=\"took\", n=\"n\", size"]);
        let logfmt_parser = self.word(&["| logfmt", "| logfmt", "| logfmt level, code=\"status\", took, n, size"]);
        match self.dice.below(8) {
            _ if json => json_parser,
            _ if logfmt && self.dice.one_in(4) => {
                "| pattern \"id=<id> <_> level=<level> status=<status> <_>\"".to_owned()
            }
            _ if logfmt => logfmt_parser,
            0 => "| regexp `level\\W+(?P<level>\\w+).+status\\W+(?P<status>\\d+)`".to_owned(),
            1 => json_parser,
            2 => logfmt_parser,
            _ => "| json | drop __error__, __error_details__ | logfmt".to_owned(),
        }
    }

    fn label_filter(&mut self) -> String {
        let level = self.level();
        match self.dice.below(9) {
            0 => format!("| level=\"{level}\""),
            1 => format!("| level!~\"{level}|x\""),
            2 => "| status >= 400".to_owned(),
            3 => "| took > 200ms and status != 404".to_owned(),
            4 => "| size < 2KB or n = 3".to_owned(),
            5 => "| n > 2".to_owned(),
            6 => format!("| detected_level=\"{level}\""),
            7 => "| trace=~\"t.\"".to_owned(),
            _ => "| client_extracted!=\"0\"".to_owned(),
        }
    }

    fn logs(&mut self) -> String {
        let selector = self.selector();
        let mut text = selector.clone() + &self.line_filters();
        if self.dice.one_in(4) {
            return text;
        }
        text.push(' ');
        text.push_str(&self.parser(&selector));
        for _ in 0..self.dice.below(3) {
            text.push(' ');
            let stage = match self.dice.below(7) {
                0 => self.word(&[
                    "| line_format \"{{.id}} {{.level}} {{.took}}\"",
                    "| line_format `{{ __line__ | upper }}`",
                ]),
                1 => self.word(&["| label_format code=status", "| label_format both=\"{{.tier}}-{{.level}}\""]),
                2 => "| drop sum, took, level=\"info\"".to_owned(),
                3 => "| keep id, level, n, tier".to_owned(),
                _ => self.label_filter(),
            };
            text.push_str(&stage);
        }
        text
    }

    /// A pipeline whose records have no error, but for some.
    fn without_errors(&mut self) -> &'static str {
        if self.dice.one_in(16) { "" } else { " | __error__=\"\"" }
    }

    /// A pipeline whose records are in few series.
    fn few(&mut self) -> String {
        let selector = self.selector();
        let mut text = selector.clone() + &self.line_filters();
        if !self.dice.one_in(3) {
            let parser = self.parser(&selector);
            text.push_str(&format!(" {parser}"));
            if self.dice.one_in(2) {
                text.push_str(&format!(" {}", self.label_filter()));
            }
            text.push_str(self.without_errors());
            let keep = self.word(&["level, client, tier", "status, format", "level, tier, app"]);
            text.push_str(&format!(" | keep {keep}"));
        }
        text
    }

    fn window(&mut self) -> String {
        let window = self.word(&["1s", "2s", "5s", "10s"]);
        let offset = self.word(&["", "", "", "", " offset 1s", " offset -2s"]);
        format!("[{window}]{offset}")
    }

    fn counted(&mut self) -> String {
        let op = self.word(&["count_over_time", "count_over_time", "rate", "bytes_over_time", "bytes_rate"]);
        let (logs, window) = (self.few(), self.window());
        format!("{op}({logs} {window})")
    }

    fn counts(&mut self) -> String {
        let op = self.word(&["count_over_time", "bytes_over_time"]);
        let (logs, window) = (self.few(), self.window());
        format!("{op}({logs} {window})")
    }

    fn unwrapped(&mut self) -> String {
        let mut ops = vec!["sum_over_time", "max_over_time", "avg_over_time", "min_over_time", "stddev_over_time"];
        ops.push("quantile_over_time");
        if self.ground.placed {
            ops.extend(["first_over_time", "last_over_time", "rate_counter"]);
        }
        let op = self.word(&ops);
        self.grows &= ["sum_over_time", "max_over_time"].contains(&op.as_str());
        let share = if op == "quantile_over_time" { "0.75, " } else { "" };
        let selector = self.selector();
        let (parser, window) = (self.parser(&selector), self.window());
        let unwrap = self.word(&["n", "duration(took)", "bytes(size)", "status"]);
        let label = unwrap.trim_end_matches(')').rsplit('(').next().unwrap_or_default().to_owned();
        let keep = format!("| keep {label}, level, tier");
        let grouped = !["sum_over_time", "rate_counter"].contains(&op.as_str()) && self.dice.one_in(2);
        let by = if grouped { self.word(&[" by (level)", " without (level, tier)"]) } else { String::new() };
        let errors = self.without_errors();
        format!("{op}({share}{selector} {parser} {keep} | unwrap {unwrap}{errors} {window}){by}")
    }

    fn by(&mut self) -> String {
        self.word(&["", " by (level)", " by (client, tier)", " by (format)", " without (client, level)"])
    }

    /// A metric query, and whether it is for one time alone.
    fn metric(&mut self) -> (String, bool) {
        let text = match self.dice.below(16) {
            0..=2 => self.counted(),
            3..=5 => {
                let (op, by, inner) = (self.word(&["sum", "sum", "max", "count"]), self.by(), self.counted());
                format!("{op}{by} ({inner})")
            }
            6..=8 => self.unwrapped(),
            9 => {
                let (op, by, inner) = (self.word(&["sum", "max"]), self.by(), self.unwrapped());
                format!("{op}{by} ({inner})")
            }
            10 => {
                let (by, inner) = (self.by(), self.counts());
                format!("sum{by} ({inner}) > 2")
            }
            shape => {
                self.grows = false;
                return self.other(shape);
            }
        };
        (text, false)
    }

    /// What may become smaller by a record more.
    fn other(&mut self, shape: u64) -> (String, bool) {
        let text = match shape {
            11 => {
                let (op, by, inner) = (self.word(&["avg", "min", "stddev"]), self.by(), self.counted());
                format!("{op}{by} ({inner})")
            }
            12 => {
                let op = self.word(&["topk(2, ", "bottomk(1, ", "sort(", "sort_desc("]);
                let (by, inner) = (self.by(), self.counts());
                return (format!("{op}sum{by} ({inner}))"), op.starts_with("sort"));
            }
            13 => {
                let (op, left, right) =
                    (self.word(&["/", "-", ">", "and", "or", "unless"]), self.counts(), self.counts());
                format!("sum by (client) ({left}) {op} on (client) sum by (client) ({right})")
            }
            14 => {
                let (left, right) = (self.counted(), self.counts());
                format!(
                    "sum by (client, level) ({left}) * on (client) group_left (tier) max by (client, tier) ({right})"
                )
            }
            _ => {
                let logs = self.few();
                let window = self.window();
                if self.dice.one_in(2) {
                    format!("absent_over_time({logs} {window})")
                } else {
                    format!("label_replace(rate({logs} {window}), \"place\", \"$1-x\", \"tier\", \"(.).*\")")
                }
            }
        };
        (text, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_one_that_the_parser_reads() {
        let knobs = crate::draw::draw(1, 3).knobs;
        for seed in 0..60 {
            let ground = Ground { knobs: &knobs, from: 0, to: 9 * SECOND, anchor: SECOND, placed: seed % 2 == 0 };
            let mut dice = Dice::new(seed, "questions");
            for _ in 0..10 {
                let _ = question(&mut dice, ground);
                assert!(parser::parse(&tail(&mut dice, ground)).is_ok());
            }
        }
    }
}
