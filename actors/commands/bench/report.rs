//! Figures of one bench, with the machine and the data they were measured on, as text and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use serde::Serialize;

/// One bench.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: String,
    machine: String,
    data: String,
    figures: Vec<Figure>,
    /// What is to be said beside the figures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Answers that were not as they must be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<String>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// This figure over its baseline, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// What it may be at most, where it is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
}

impl Figure {
    /// Shows it over a baseline.
    pub(super) fn over(&mut self, baseline: f64) -> &mut Self {
        self.ratio = (baseline > 0.0).then(|| self.value / baseline);
        self
    }

    /// Judges it.
    pub(super) fn at_most(&mut self, most: f64) -> &mut Self {
        self.at_most = Some(most);
        self
    }

    /// Whether it is judged and more than it may be.
    pub(super) fn misses(&self) -> bool {
        self.at_most.is_some_and(|most| self.value > most)
    }
}

impl Report {
    pub(super) fn new(bench: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            bench: bench.into(),
            machine: machine(),
            data: data.into(),
            figures: vec![],
            notes: vec![],
            wrong: vec![],
        }
    }

    pub(super) fn figure(&mut self, name: &str, value: f64, unit: &str) -> &mut Figure {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.figures.push(Figure { name, value, unit, ratio: None, at_most: None });
        self.figures.last_mut().expect("it was added")
    }

    pub(super) fn figure_over(&mut self, name: &str, value: f64, unit: &str, baseline: f64) -> &mut Figure {
        self.figure(name, value, unit).over(baseline)
    }

    pub(super) fn milliseconds(&mut self, name: &str, value: Duration) -> &mut Figure {
        self.figure(name, value.as_secs_f64() * 1e3, "ms")
    }

    /// Says something beside the figures.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Tells of an answer that is not as it must be: the bench failed.
    pub(super) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Whether every answer was as it must be.
    pub(super) fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    /// How many figures are more than they may be.
    pub(super) fn misses(&self) -> usize {
        self.figures.iter().filter(|figure| figure.misses()).count()
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts")
    }

    pub(super) fn text(&self) -> String {
        let Self { bench, machine, data, figures, notes, wrong } = self;
        let mut text = format!("bench    {bench}\nmachine  {machine}\ndata     {data}\n\n");
        let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        for figure in figures {
            let Figure { name, value, unit, ratio, at_most } = figure;
            let ratio = ratio.map_or_else(String::new, |ratio| format!("   {ratio:.2} x baseline"));
            let judged = at_most.map_or_else(String::new, |most| {
                if figure.misses() {
                    format!("   MISS: at most {most:.2}, {:.1} times that", value / most)
                } else {
                    format!("   PASS: at most {most:.2}")
                }
            });
            let _ = writeln!(text, "{name:width$}  {value:>12.2} {unit}{ratio}{judged}");
        }
        let judged = figures.iter().filter(|figure| figure.at_most.is_some()).count();
        if judged > 0 {
            let _ = writeln!(text, "\n{} of {judged} figures as they should be", judged - self.misses());
        }
        for note in notes {
            let _ = writeln!(text, "{note}");
        }
        for what in wrong {
            let _ = writeln!(text, "WRONG: {what}");
        }
        text
    }
}

fn machine() -> String {
    let field = |file: &str, name: &str| -> Option<String> {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };
    format!("{processor}, {cores} cores, {memory}, Linux {}{build}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_with_its_baseline() {
        let mut report = Report::new("wal", "nothing");
        report.figure("baseline", 100.0, "MB/s");
        report.figure_over("wal", 95.0, "MB/s", 100.0);
        assert!(report.text().contains("0.95 x baseline"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["figures"][1]["ratio"], 0.95);
        assert!(json.get("notes").is_none() && !report.text().contains("figures as they should be"));
    }

    #[test]
    fn a_figure_is_judged_only_where_it_has_a_bound() {
        let mut report = Report::new("query", "nothing");
        report.milliseconds("needle", Duration::from_millis(6)).at_most(3.0);
        report.milliseconds("absent", Duration::from_millis(2)).over(4.0).at_most(2.0);
        report.figure("loaded", 9e9, "MB/s");
        let text = report.text();
        assert!(text.contains("6.00 ms   MISS: at most 3.00, 2.0 times that"), "{text}");
        assert!(text.contains("2.00 ms   0.50 x baseline   PASS: at most 2.00"), "{text}");
        assert!(text.contains("1 of 2 figures as they should be"), "{text}");
        assert_eq!((report.misses(), report.is_right()), (1, true));
        report.wrong("needle: 2 records".to_owned());
        assert!(!report.is_right() && report.text().ends_with("WRONG: needle: 2 records\n"));
    }
}
