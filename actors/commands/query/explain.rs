//! How an answer came about, as people read it: from the `explain` object of an answer.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Deserialize;

use crate::commands::{Paint, human_bytes};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    query: String,
    requests: Vec<Request>,
    total: Sum,
    shards: Vec<Shard>,
    time: Times,
}

#[derive(Deserialize)]
struct Request {
    want: String,
    of: String,
}

#[derive(Deserialize)]
struct Sum {
    parts: u64,
    considered: Counts,
    skipped: BTreeMap<String, u64>,
    read: Read,
}

#[derive(Deserialize)]
struct Counts {
    segments: u64,
    blocks: u64,
    batches: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    blocks: u64,
    batches: u64,
    records: u64,
    bytes: u64,
    compressed_bytes: u64,
}

#[derive(Deserialize)]
struct Shard {
    shard: String,
    request: usize,
    replicas: Vec<Replica>,
    #[serde(flatten)]
    sum: Sum,
    time: ShardTimes,
}

#[derive(Deserialize)]
struct Replica {
    node: Option<u64>,
    role: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShardTimes {
    asked_seconds: f64,
    view_seconds: f64,
    wait_seconds: f64,
    scan_seconds: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    queue_seconds: f64,
    gather_seconds: f64,
    merge_seconds: f64,
    total_seconds: f64,
}

/// Why something was not read: what the answer calls it, and what it is called here.
const REASONS: [(&str, &str); 4] = [
    ("OutOfRange", "out of the time range"),
    ("OfOtherStreams", "of other streams"),
    ("HiddenByRetention", "hidden by retention"),
    ("BeyondLimit", "beyond the limit"),
];

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// `3 blocks`, `1 block`.
fn counted(count: u64, many: &str) -> String {
    let one = if many == "batches" { "batch" } else { many.strip_suffix('s').unwrap_or(many) };
    format!("{count} {}", if count == 1 { one } else { many })
}

impl Sum {
    /// The lines about what was considered, skipped and read, each behind `indent`.
    fn write(&self, out: &mut impl Write, indent: &str) -> io::Result<()> {
        let Counts { segments, blocks, batches } = self.considered;
        let (segments, blocks) = (counted(segments, "segments"), counted(blocks, "blocks"));
        writeln!(out, "{indent}considered {segments} with {blocks}, {} in the head", counted(batches, "batches"))?;
        for kind in ["segments", "blocks", "batches"] {
            for (key, why) in REASONS {
                if let Some(count) = self.skipped.get(&format!("{kind}{key}")) {
                    writeln!(out, "{indent}  skipped {} {why}", counted(*count, kind))?;
                }
            }
        }
        let Read { blocks, batches, records, bytes, compressed_bytes } = self.read;
        let (blocks, batches) = (counted(blocks, "blocks"), counted(batches, "batches"));
        let (bytes, stored) = (human_bytes(bytes), human_bytes(compressed_bytes));
        writeln!(
            out,
            "{indent}read {blocks} ({stored} on disk) and {batches}: {}, {bytes}",
            counted(records, "records")
        )
    }
}

impl Explained {
    /// Writes it as text; what a part belongs to stands before it, and further left. Shards that hold nothing are
    /// counted.
    ///
    /// # Errors
    /// Where writing fails.
    pub(super) fn write(&self, out: &mut impl Write, paint: Paint) -> io::Result<()> {
        writeln!(out, "{}", paint.bold(&self.query))?;
        let Times { queue_seconds, gather_seconds, merge_seconds, total_seconds } = self.time;
        let [total, queue] = [total_seconds, queue_seconds].map(milliseconds);
        let [gather, merge] = [gather_seconds, merge_seconds].map(milliseconds);
        writeln!(
            out,
            "answered in {total} after {queue} in the queue; {gather} to gather, {merge} to merge the parts"
        )?;
        self.total.write(out, "")?;
        for (number, Request { want, of }) in self.requests.iter().enumerate() {
            let parts = self.shards.iter().filter(|shard| shard.request == number).map(|shard| shard.sum.parts);
            writeln!(out, "{}", paint.bold(&format!("{want} of {of}: {}", counted(parts.sum(), "parts"))))?;
            let (idle, busy): (Vec<&Shard>, Vec<&Shard>) =
                self.shards.iter().filter(|shard| shard.request == number).partition(|shard| shard.is_idle());
            busy.iter().try_for_each(|shard| shard.write(out))?;
            if !idle.is_empty() {
                let slowest = idle.iter().map(|shard| shard.time.asked_seconds).fold(0.0, f64::max);
                let shards = counted(idle.len() as u64, "shards");
                writeln!(out, "  {shards} with nothing stored, answered within {}", milliseconds(slowest))?;
            }
        }
        Ok(())
    }
}

impl Shard {
    fn is_idle(&self) -> bool {
        let Counts { segments, batches, .. } = self.sum.considered;
        segments == 0 && batches == 0
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let replica = |Replica { node, role }: &Replica| match node {
            Some(node) => format!("{role} on node {node}"),
            None => role.clone(),
        };
        let replicas: Vec<String> = self.replicas.iter().map(replica).collect();
        let ShardTimes { asked_seconds, view_seconds, wait_seconds, scan_seconds } = self.time;
        let [asked, view] = [asked_seconds, view_seconds].map(milliseconds);
        let [wait, scan] = [wait_seconds, scan_seconds].map(milliseconds);
        let parts = if self.sum.parts > 1 { format!(", {} parts", self.sum.parts) } else { String::new() };
        writeln!(out, "  {}, {}{parts}", self.shard, replicas.join(", "))?;
        writeln!(out, "    answered in {asked}: view {view}, wait {wait}, scan {scan}")?;
        self.sum.write(out, "    ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shard(shard: &str, segments: u64, skipped: &serde_json::Value) -> serde_json::Value {
        json!({
            "shard": shard, "request": 0, "parts": 1, "replicas": [{ "node": 2, "role": "leader" }],
            "considered": { "segments": segments, "blocks": 9, "batches": 0 },
            "skipped": skipped,
            "read": { "blocks": 1, "batches": 0, "records": 70, "bytes": 2_000_000, "compressedBytes": 1_000 },
            "time": { "askedSeconds": 0.004, "viewSeconds": 0.001, "waitSeconds": 0.0, "scanSeconds": 0.0021 },
        })
    }

    #[test]
    fn an_explanation_says_what_was_skipped_and_why() {
        let skipped = json!({ "blocksOutOfRange": 8, "segmentsOutOfRange": 1 });
        let explained = json!({
            "query": "{a=\"b\"}",
            "requests": [{ "want": "records", "of": "{a=\"b\"}" }],
            "total": {
                "parts": 2, "considered": { "segments": 2, "blocks": 9, "batches": 1 }, "skipped": skipped,
                "read": { "blocks": 1, "batches": 1, "records": 71, "bytes": 10, "compressedBytes": 0 },
            },
            "shards": [shard("shard-3", 2, &skipped), shard("shard-4", 0, &json!({}))],
            "time": { "queueSeconds": 0.0, "gatherSeconds": 0.0001, "mergeSeconds": 0.0002, "totalSeconds": 0.0101 },
        });
        let explained: Explained = serde_json::from_value(explained).unwrap();
        let mut out = Vec::new();
        explained.write(&mut out, Paint::plain()).unwrap();
        let expected = "\
{a=\"b\"}
answered in 10.1 ms after 0.0 ms in the queue; 0.1 ms to gather, 0.2 ms to merge the parts
considered 2 segments with 9 blocks, 1 batch in the head
  skipped 1 segment out of the time range
  skipped 8 blocks out of the time range
read 1 block (0 B on disk) and 1 batch: 71 records, 10 B
records of {a=\"b\"}: 2 parts
  shard-3, leader on node 2
    answered in 4.0 ms: view 1.0 ms, wait 0.0 ms, scan 2.1 ms
    considered 2 segments with 9 blocks, 0 batches in the head
      skipped 1 segment out of the time range
      skipped 8 blocks out of the time range
    read 1 block (1.00 kB on disk) and 0 batches: 70 records, 2.00 MB
  1 shard with nothing stored, answered within 4.0 ms
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
