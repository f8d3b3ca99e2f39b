//! The lines that clients write: an id, fields that queries read, words, and a checksum of all that, so that no byte can
//! be served that nobody sent. Half of the streams write logfmt, the others JSON.
//!
//! What the fields say depends on the id alone: no random stream moves when a field is added.

use xxhash_rust::xxh3::xxh3_64;

use crate::naive::Set;

/// What `level` may be. As these words stand, intake finds the same level.
pub const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];
/// What `tier`, a label of a client's streams, may be.
pub const TIERS: [&str; 3] = ["web", "worker", "db"];

const STATUSES: [&str; 4] = ["200", "201", "404", "500"];
const TIMES: [&str; 4] = ["125ms", "250ms", "1.5s", "1m"];
const SIZES: [&str; 4] = ["512B", "2KB", "1.5KiB", "20KB"];
/// One of them is no number.
const NUMBERS: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "0.5", "1", "2", "3", "4.25", "12", "x"];

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Logfmt,
    /// One object.
    Json,
}

impl Format {
    /// That of a stream of a client.
    pub fn of(client: u64, stream: u64) -> Self {
        if (client + stream).is_multiple_of(2) { Self::Logfmt } else { Self::Json }
    }

    /// The value of the label `format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        }
    }
}

/// The labels of a stream of a client.
pub fn labels(client: u64, stream: u64) -> Set {
    let tier = TIERS[usize::try_from(client).expect("few clients") % TIERS.len()];
    let labels = [
        ("app", "sim".to_owned()),
        ("client", client.to_string()),
        ("format", Format::of(client, stream).name().to_owned()),
        ("service_name", "sim".to_owned()),
        ("stream", stream.to_string()),
        ("tier", tier.to_owned()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a record says beside its words.
pub struct Fields {
    level: &'static str,
    status: &'static str,
    took: &'static str,
    size: &'static str,
    number: &'static str,
    /// A field beside the line.
    pub trace: Option<&'static str>,
}

impl Fields {
    /// Those of a record.
    pub fn of(id: u64) -> Self {
        let bits = xxh3_64(&id.to_le_bytes());
        let pick = |from: &[&'static str], shift: u32| from[(bits >> shift) as usize % from.len()];
        Self {
            level: pick(&LEVELS, 0),
            status: pick(&STATUSES, 8),
            took: pick(&TIMES, 16),
            size: pick(&SIZES, 24),
            number: pick(&NUMBERS, 32),
            trace: (bits >> 48).is_multiple_of(4).then(|| pick(&["t1", "t2"], 56)),
        }
    }

    /// The fields beside the line as they are stored: what was sent, and what intake adds.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let sent = self.trace.map(|trace| ("trace", trace));
        let stored = sent.into_iter().chain([("detected_level", self.level)]);
        stored.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// The line of a record.
pub fn write(id: u64, client: u64, format: Format, words: &str) -> String {
    let Fields { level, status, took, size, number, .. } = Fields::of(id);
    match format {
        Format::Logfmt => {
            let text = format!(
                "id={id} client={client} level={level} status={status} took={took} size={size} n={number} {words}"
            );
            let sum = xxh3_64(text.as_bytes());
            format!("{text} sum={sum:016x}")
        }
        Format::Json => {
            let text = format!(
                r#"{{"id":{id},"client":{client},"level":"{level}","status":{status},"took":"{took}","size":"{size}","n":"{number}","text":"{words}""#
            );
            let sum = xxh3_64(text.as_bytes());
            format!(r#"{text},"sum":"{sum:016x}"}}"#)
        }
    }
}

/// What only the line of this record holds, in either format, as the line filter that looks for it.
pub fn filter(id: u64) -> String {
    format!("|= \"id={id} \" or \"{{\\\"id\\\":{id},\"")
}

/// The id that a line begins with, whatever follows.
pub fn named(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("id=").or_else(|| line.strip_prefix(r#"{"id":"#))?;
    rest.split([' ', ',']).next()?.parse().ok()
}

/// The id of a line; `None` where it is not, byte for byte, what a client wrote.
pub fn id(line: &str) -> Option<u64> {
    let id = named(line)?;
    let (text, sum) = if line.starts_with('{') {
        let (text, sum) = line.rsplit_once(r#","sum":""#)?;
        (text, sum.strip_suffix("\"}")?)
    } else {
        line.rsplit_once(" sum=")?
    };
    (format!("{:016x}", xxh3_64(text.as_bytes())) == sum).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_id_back_unless_a_byte_was_changed() {
        for (id, format) in [(0, Format::Logfmt), (7, Format::Json), (1_234, Format::Json)] {
            let line = write(id, 3, format, "GET /api timeout 17 ");
            assert_eq!(super::id(&line), Some(id), "{line}");
            for at in 0..line.len() {
                let mut bytes = line.clone().into_bytes();
                bytes[at] ^= 1;
                let other = String::from_utf8(bytes).expect("a bit of a letter is another letter");
                assert_eq!(super::id(&other), None, "{other}");
            }
        }
    }

    #[test]
    fn the_filter_for_a_record_finds_no_other() {
        for (id, format, other) in [(5, Format::Json, 15), (5, Format::Logfmt, 51)] {
            let text = format!("{{app=\"sim\"}} {}", filter(id));
            let Ok(millpond::query::ast::Expr::Logs(logs)) = millpond::query::parser::parse(&text) else {
                panic!("{text} is a log query")
            };
            let found = |id| {
                let (labels, line) = (labels(0, 0), write(id, 0, format, "db "));
                let record = crate::naive::Record { timestamp: 0, place: (0, 0), labels, metadata: Vec::new(), line };
                crate::naive::passed(&record, &logs).is_some()
            };
            assert!(found(id) && !found(other), "{text}");
        }
    }
}
