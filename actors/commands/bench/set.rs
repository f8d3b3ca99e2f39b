//! The set of the query bench: a day of lines of twenty services, made of templates that are cut from the lines of an input.
//!
//! A template is a line of the input with its runs of digits and of hexadecimal digits marked. To make a line, some of the
//! runs are drawn anew and keep their length. How many is chosen so that `zstd -3` makes of the lines, in the order of their
//! times, what it makes of logs in the field: the set is valid only between [`RATIO`]. It does not know who stores or asks.

use std::io::{self, Write};

use anyhow::{Result, bail, ensure};
use millpond_actors::input::{Generator, Line};

/// Raw bytes of the lines, over what `zstd -3` makes of them.
const RATIO: (f64, f64) = (6.5, 7.2);
/// Services, and of them those that have a host more than the others.
const SERVICES: usize = 20;
const HOSTS: (usize, usize) = (11, 12);
/// The time that the set spans, in nanoseconds.
pub(super) const SPAN: i64 = 24 * 3_600_000_000_000;
/// Lines of which the compression is tried before the set is made.
const SAMPLE_LINES: usize = 250_000;
/// Steps to find the share of runs that are drawn anew.
const STEPS: usize = 9;
/// Hexadecimal runs are ids from this length on.
const HEX_LEAST: usize = 8;
/// What draws are compared to.
const WHOLE: u64 = 1 << 16;

/// A line of the input, and the runs in it that may be drawn anew.
struct Template {
    text: String,
    runs: Vec<(usize, usize, bool)>,
    level: String,
    status: Option<u16>,
}

struct Service {
    name: String,
    hosts: usize,
    templates: Vec<Template>,
}

/// One record of the set.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) timestamp: i64,
    /// Index of the service in [`Set::services`].
    pub(super) service: usize,
    pub(super) host: String,
    pub(super) level: String,
    pub(super) status: Option<u16>,
    pub(super) text: String,
}

/// How lines are made; the same seed, input and number of lines give the same lines.
pub(super) struct Set {
    services: Vec<Service>,
    /// Runs that are drawn anew, of [`WHOLE`].
    anew: u64,
    rows: usize,
    start: i64,
}

impl Set {
    /// Cuts templates from the lines and finds how much of them is drawn anew. The rows end at `end`.
    ///
    /// # Errors
    /// Where the lines lack an access log, or no share gives a valid set.
    pub(super) fn new(lines: &[Line], rows: usize, end: i64) -> Result<Self> {
        let services = services(lines)?;
        let mut set = Self { services, anew: 0, rows, start: end - SPAN };
        let (mut low, mut high, mut ratio) = (0, WHOLE, 0.0);
        for _ in 0..STEPS {
            set.anew = u64::midpoint(low, high);
            ratio = set.sample()?;
            if ratio > f64::midpoint(RATIO.0, RATIO.1) { low = set.anew } else { high = set.anew }
        }
        check_ratio(ratio)?;
        Ok(set)
    }

    fn sample(&self) -> Result<f64> {
        let (mut packed, mut raw) = (Packed::new(Count(0))?, 0);
        for row in self.iter().take(SAMPLE_LINES) {
            packed.line(&row.text)?;
            raw += row.text.len() + 1;
        }
        Ok(raw as f64 / packed.finish()?.0 as f64)
    }

    /// How many records it has.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The name of a row's service.
    pub(super) fn service(&self, row: &Row) -> &str {
        &self.services[row.service].name
    }

    /// The records, in the order of their times.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row> {
        let mut draws = Generator::new(11);
        let gap = (SPAN / i64::try_from(self.rows).unwrap_or(i64::MAX)).max(1).cast_unsigned();
        let mut timestamp = self.start;
        (0..self.rows).map(move |_| {
            // The mean of the gaps is the span over the rows, and the last row comes before the end.
            timestamp += (1 + draws.draw() % (2 * gap - 1)).cast_signed();
            timestamp = timestamp.min(self.start + SPAN);
            self.row(&mut draws, timestamp)
        })
    }

    fn row(&self, draws: &mut Generator, timestamp: i64) -> Row {
        let mut below = |bound: usize| (draws.draw() % bound as u64) as usize;
        let service = below(self.services.len());
        let Service { name, hosts, templates } = &self.services[service];
        let host = format!("{name}-{}", below(*hosts));
        let template = &templates[below(templates.len())];
        let mut text = template.text.clone().into_bytes();
        for (from, to, hex) in &template.runs {
            if draws.draw() % WHOLE < self.anew {
                redraw(draws, &mut text[*from..*to], *hex);
            }
        }
        let text = String::from_utf8(text).expect("digits take the place of digits");
        let Template { level, status, .. } = template;
        Row { timestamp, service, host, level: level.clone(), status: *status, text }
    }
}

/// Digits for digits; a run that does not begin with a zero still does not.
fn redraw(draws: &mut Generator, run: &mut [u8], hex: bool) {
    let letters: &[u8] = if hex { b"0123456789abcdef" } else { b"0123456789" };
    let mut bits = 0_u64;
    for (at, byte) in run.iter_mut().enumerate() {
        if at % 8 == 0 {
            bits = draws.draw();
        }
        let from = usize::from(at == 0 && *byte != b'0');
        *byte = letters[from + (bits & 0xff) as usize % (letters.len() - from)];
        bits >>= 8;
    }
}

/// Runs of digits, and runs of hexadecimal digits that are long enough to be ids. `status` is left alone.
fn runs(text: &str, status: Option<u16>) -> Vec<(usize, usize, bool)> {
    let (bytes, status) = (text.as_bytes(), status.map(|status| status.to_string()));
    let mut runs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let word = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if word == 0 {
            at += 1;
            continue;
        }
        let (end, letters) = (at + word, &bytes[at..at + word]);
        let hex = word >= HEX_LEAST
            && letters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && letters.iter().any(u8::is_ascii_digit)
            && !letters.iter().all(u8::is_ascii_digit);
        if hex {
            runs.push((at, end, true));
        } else if status.as_deref().is_none_or(|status| status.as_bytes() != letters) {
            let mut from = at;
            while from < end {
                let digits = bytes[from..end].iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits > 0 {
                    runs.push((from, from + digits, false));
                }
                from += digits.max(1);
            }
        }
        at = end;
    }
    runs
}

/// Holds what `zstd -3` makes of lines to what a set must give.
///
/// # Errors
/// Where it packs them better or worse than logs in the field.
pub(super) fn check_ratio(ratio: f64) -> Result<()> {
    let (least, most) = RATIO;
    ensure!(
        (least..=most).contains(&ratio),
        "not a valid set: zstd -3 gives {ratio:.2}, which must be {least} to {most}"
    );
    Ok(())
}

fn field<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// The status in a line of an access log: the number behind the request.
fn status_in(text: &str) -> Option<u16> {
    let behind = text.split_once("HTTP/1.1\" ")?.1;
    behind.split(' ').next()?.parse().ok()
}

/// A line of an access log as a server writes it in JSON.
fn json(text: &str, status: u16) -> Option<String> {
    let mut quoted = text.split('"');
    let (before, request, numbers) = (quoted.next()?, quoted.next()?, quoted.next()?);
    let (referer, agent) = (quoted.next().unwrap_or("-"), quoted.nth(1).unwrap_or("-"));
    let remote = before.split(' ').next()?;
    let bytes: u64 = numbers.split_whitespace().nth(1)?.parse().unwrap_or(0);
    let line = serde_json::json!({
        "remote_addr": remote, "request": request, "status": status, "body_bytes_sent": bytes,
        "http_referer": referer, "http_user_agent": agent,
    });
    Some(line.to_string())
}

fn services(lines: &[Line]) -> Result<Vec<Service>> {
    let mut services: Vec<Service> = Vec::new();
    let mut add = |name: &str, level: &str, status: Option<u16>, text: String| {
        let at = services.iter().position(|service| service.name == name).unwrap_or_else(|| {
            services.push(Service { name: name.to_owned(), hosts: HOSTS.0, templates: Vec::new() });
            services.len() - 1
        });
        let runs = runs(&text, status);
        services[at].templates.push(Template { text, runs, level: level.to_owned(), status });
    };
    for line in lines {
        let name = field(&line.labels, "service_name").unwrap_or("input");
        let level = field(&line.labels, "level").unwrap_or("info");
        let status =
            field(&line.metadata, "status").map_or_else(|| status_in(&line.text), |status| status.parse().ok());
        if let Some(json) = status.and_then(|status| json(&line.text, status)) {
            add("nginx-json", level, status, json);
        }
        add(name, level, status, line.text.clone());
    }
    if !services.iter().any(|service| service.name == "nginx-json") {
        bail!("the input has no lines of an access log, of which the bench makes JSON lines");
    }
    for at in 0..SERVICES.saturating_sub(services.len()) {
        // The rest take a part of the templates of those there are, so that no two services write the same.
        let (name, from) = (format!("{}-{}", services[at].name, at + 2), &services[at].templates);
        let part = from.iter().skip(at % 2).step_by(2).map(|template| Template {
            text: template.text.clone(),
            runs: template.runs.clone(),
            level: template.level.clone(),
            status: template.status,
        });
        let templates = part.collect();
        services.push(Service { name, hosts: HOSTS.0, templates });
    }
    services.retain(|service| !service.templates.is_empty());
    services.truncate(SERVICES);
    services.iter_mut().skip(8).for_each(|service| service.hosts = HOSTS.1);
    Ok(services)
}

/// Counts bytes.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines, each with its line end, as `zstd -3 -T1` packs them.
pub(super) struct Packed<W: Write> {
    encoder: zstd::stream::Encoder<'static, W>,
}

impl<W: Write> Packed<W> {
    pub(super) fn new(into: W) -> Result<Self> {
        Ok(Self { encoder: zstd::stream::Encoder::new(into, 3)? })
    }

    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        self.encoder.write_all(line.as_bytes())?;
        self.encoder.write_all(b"\n")?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<W> {
        Ok(self.encoder.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_digits_and_ids_are_found_and_the_status_is_left() {
        let text = r#""GET /a1b" 200 17 req-38101a0b deadbeef 2000"#;
        let found: Vec<&str> = runs(text, Some(200)).iter().map(|(from, to, _)| &text[*from..*to]).collect();
        assert_eq!(found, ["1", "17", "38101a0b", "2000"]);
    }

    #[test]
    fn a_set_is_the_same_again_and_keeps_what_is_no_digit() {
        let lines: Vec<Line> = Generator::new(5).lines(4_000);
        let services = services(&lines).unwrap();
        let set = Set { services, anew: WHOLE, rows: 2_000, start: 0 };
        let texts = || set.iter().map(|row| (row.timestamp, row.host, row.text)).collect::<Vec<_>>();
        assert_eq!(texts(), texts());
        assert!(set.iter().is_sorted_by_key(|row| row.timestamp) && set.iter().all(|row| row.timestamp <= SPAN));
        let json = set.iter().find(|row| set.service(row) == "nginx-json").unwrap();
        let object: serde_json::Value = serde_json::from_str(&json.text).unwrap();
        assert!(json.status.is_some() && object["status"].as_u64() == json.status.map(u64::from));
        assert!(set.iter().map(|row| row.host).collect::<std::collections::BTreeSet<_>>().len() > 200);
    }
}
