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
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// This figure over its baseline, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Report {
    pub(super) fn new(bench: impl Into<String>, data: impl Into<String>) -> Self {
        Self { bench: bench.into(), machine: machine(), data: data.into(), figures: Vec::new() }
    }

    pub(super) fn figure(&mut self, name: &str, value: f64, unit: &str) {
        self.figures.push(Figure { name: name.to_owned(), value, unit: unit.to_owned(), ratio: None });
    }

    pub(super) fn figure_over(&mut self, name: &str, value: f64, unit: &str, baseline: f64) {
        let ratio = (baseline > 0.0).then(|| value / baseline);
        self.figures.push(Figure { name: name.to_owned(), value, unit: unit.to_owned(), ratio });
    }

    pub(super) fn milliseconds(&mut self, name: &str, value: Duration) {
        self.figure(name, value.as_secs_f64() * 1e3, "ms");
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts")
    }

    pub(super) fn text(&self) -> String {
        let Self { bench, machine, data, figures } = self;
        let mut text = format!("bench    {bench}\nmachine  {machine}\ndata     {data}\n\n");
        let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        for Figure { name, value, unit, ratio } in figures {
            let ratio = ratio.map_or_else(String::new, |ratio| format!("   {ratio:.2} x baseline"));
            let _ = writeln!(text, "{name:width$}  {value:>12.2} {unit}{ratio}");
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
    }
}
