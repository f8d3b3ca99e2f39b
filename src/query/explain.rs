//! How an answer came about: what each shard considered, why it left some of that out, what it read, which replica
//! answered for it, and how long every stage took. Times are measured by whoever has a clock, and only added up here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::Took;
use super::partial::{Considered, Made, Seen, Weighed};
use super::plan::{Query, ShardRequest, Want};
use crate::id::{NodeId, ShardId};

/// One part of an answer, as the shard that gave it says it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose it is.
    pub shard: ShardId,
    /// Its request, as a position among those of the query.
    pub request: usize,
    /// What was looked at.
    pub seen: Seen,
    /// What was considered.
    pub weighed: Weighed,
    /// Who looked, and how long that took.
    pub made: Made,
}

/// How a whole answer came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    query: String,
    /// What every shard was asked: the kind of request, and which records.
    requests: Vec<(&'static str, String)>,
    parts: Vec<Part>,
}

/// What was considered and read, of any number of parts.
#[derive(Clone, Default)]
struct Sum {
    parts: u64,
    /// Whose replicas were read, and whether as leaders.
    replicas: BTreeSet<(Option<NodeId>, bool)>,
    seen: Seen,
    weighed: Weighed,
    times: Made,
}

impl Sum {
    fn add(&mut self, part: &Part) {
        self.parts += 1;
        self.seen.add(&part.seen);
        self.weighed.add(&part.weighed);
        self.times.add_times(&part.made);
        self.replicas.insert((part.made.node, part.made.leads));
    }

    fn fields(&self) -> Map<String, Value> {
        let Weighed { segments, blocks, batches } = &self.weighed;
        let Seen { records, bytes, chunks, head_chunks, compressed, .. } = self.seen;
        let mut skipped = Map::new();
        for (kind, Considered { out_of_range, of_other_streams, hidden, beyond_limit, .. }) in
            [("segments", segments), ("blocks", blocks), ("batches", batches)]
        {
            for (why, count) in [
                ("OutOfRange", *out_of_range),
                ("OfOtherStreams", *of_other_streams),
                ("HiddenByRetention", *hidden),
                ("BeyondLimit", *beyond_limit),
            ] {
                if count > 0 {
                    skipped.insert(format!("{kind}{why}"), count.into());
                }
            }
        }
        let considered = json!({ "segments": segments.all, "blocks": blocks.all, "batches": batches.all });
        let read = json!({
            "blocks": chunks.saturating_sub(head_chunks),
            "batches": head_chunks,
            "records": records,
            "bytes": bytes,
            "compressedBytes": compressed,
        });
        let fields =
            [("parts", self.parts.into()), ("considered", considered), ("skipped", skipped.into()), ("read", read)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn micros(microseconds: u64) -> Value {
    (microseconds as f64 / 1e6).into()
}

fn seconds(duration: Duration) -> Value {
    duration.as_secs_f64().into()
}

/// What a request wants, and of which records.
fn wanted(request: &ShardRequest) -> (&'static str, String) {
    match &request.want {
        Want::Records(query) => ("records", query.logs.to_string()),
        Want::Counts(query) => (if query.bytes { "bytes" } else { "counts" }, query.logs.to_string()),
        Want::Numbers(query) => ("numbers", query.logs.to_string()),
        Want::Streams(_) => ("streams", String::new()),
        Want::Offsets(query) => ("offsets", query.logs.as_ref().map_or_else(String::new, ToString::to_string)),
        Want::Overview(_) => ("overview", String::new()),
    }
}

impl Explained {
    /// Of the parts of a query's requests.
    pub(super) fn new(query: &Query, requests: &[ShardRequest], parts: Vec<Part>) -> Self {
        let query = match query {
            Query::Logs(query) => query.logs.to_string(),
            Query::Metric(query) => query.expr.to_string(),
            Query::Streams(_) | Query::Overview(_) => String::new(),
        };
        Self { query, requests: requests.iter().map(wanted).collect(), parts }
    }

    /// As the answer shows it. All times are in seconds; those of a shard are of all its parts together.
    pub(super) fn json(&self, took: Took) -> Value {
        let mut total = Sum::default();
        let mut shards: BTreeMap<(usize, ShardId), Sum> = BTreeMap::new();
        for part in &self.parts {
            total.add(part);
            shards.entry((part.request, part.shard)).or_default().add(part);
        }
        let shard = |((request, shard), sum): (&(usize, ShardId), &Sum)| {
            let role = |(node, leads): &(Option<NodeId>, bool)| json!({ "node": node.map(|node| node.0), "role": if *leads { "leader" } else { "replica" } });
            let Made { asked, view, waited, scanned, .. } = sum.times;
            let mut fields = sum.fields();
            fields.insert("shard".to_owned(), shard.to_string().into());
            fields.insert("request".to_owned(), (*request).into());
            fields.insert("replicas".to_owned(), sum.replicas.iter().map(role).collect());
            let time = json!({
                "askedSeconds": micros(asked),
                "viewSeconds": micros(view),
                "waitSeconds": micros(waited),
                "scanSeconds": micros(scanned),
            });
            fields.insert("time".to_owned(), time);
            Value::Object(fields)
        };
        let request = |(want, records): &(&str, String)| json!({ "want": want, "of": records });
        json!({
            "query": self.query,
            "requests": self.requests.iter().map(request).collect::<Value>(),
            "total": total.fields(),
            "shards": shards.iter().map(shard).collect::<Value>(),
            "time": {
                "queueSeconds": seconds(took.queued),
                "gatherSeconds": seconds(took.gathered),
                "mergeSeconds": seconds(took.merged),
                "totalSeconds": seconds(took.ran),
            },
        })
    }
}
