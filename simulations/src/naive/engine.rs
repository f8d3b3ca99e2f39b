//! The query engine over the same records: shards with heads, sealed segments and records that came late, asked as a
//! node asks them, and what it answers in the words of the naive evaluator.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use millpond::block::l0;
use millpond::id::{Index, Key, ShardId, Term};
use millpond::label::Labels;
use millpond::query::View;
use millpond::query::ast::Expr;
use millpond::query::error::QueryError;
use millpond::query::merge::{AnswerRecord, Gather, Outcome};
use millpond::query::partial::Partial;
use millpond::query::plan::{Direction, Query, RangeParameters, ShardRequest};
use millpond::query::scan::Scan;
use millpond::record::{Record as Stored, StreamRecords};
use millpond::shard::{Applied, Command, SealJob, Shard, ShardError, ShardOptions, SubBatch};
use millpond::storage::lossy::LossyDisk;
use millpond::storage::segment::{Segment, SegmentWriter};

use super::draw::data::Batch;
use super::{Answer, Ask, Record, Row, Set};

const TENANT: &str = "t";

/// Shards as they are when the queries come.
pub(super) struct World(Vec<View>);

impl World {
    pub(super) fn new(batches: &[Batch]) -> Result<Self> {
        let disk = LossyDisk::new(1);
        let mut shards: Vec<u32> = batches.iter().map(|batch| batch.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let view = |shard: u32| view(&disk, ShardId(shard), batches.iter().filter(|batch| batch.shard == shard));
        shards.into_iter().map(view).collect::<Result<_>>().map(Self)
    }

    /// What the engine answers to the query's text. The shards' parts come in the order of `first`, that one first.
    pub(super) fn answer(&self, query: &Expr, ask: Ask, first: usize) -> Result<Result<Answer, QueryError>> {
        let text = query.to_string();
        let parsed = match ask {
            Ask::Range { start, end, step, limit, forward } => {
                let direction = if forward { Direction::Forward } else { Direction::Backward };
                let parameters = RangeParameters { start, end, step: Some(step), limit: Some(limit as u64), direction };
                Query::range(&text, parameters)
            }
            Ask::Instant(time) => Query::instant(&text, time),
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Err(error)),
        };
        let same = match &parsed {
            Query::Logs(logs) => *query == Expr::Logs(logs.logs.clone()),
            Query::Metric(metric) => *query == Expr::Metric(metric.expr.clone()),
            Query::Streams(_) | Query::Overview(_) => false,
        };
        ensure!(same, "the text was read as another query: {parsed:?}");
        Ok(self.gathered(parsed, first).map(answer))
    }

    fn gathered(&self, query: Query, first: usize) -> Result<Outcome, QueryError> {
        let mut gather = Gather::new(query, TENANT);
        for (number, request) in gather.requests().into_iter().enumerate() {
            let views = self.0.iter().cycle().skip(first).take(self.0.len());
            for view in views {
                let mut next = Some(request.clone());
                while let Some(request) = next {
                    next = gather.add(number, scanned(&request, view)?)?;
                }
            }
        }
        Ok(gather.finish()?.outcome)
    }
}

fn scanned(request: &ShardRequest, view: &View) -> Result<Partial, QueryError> {
    let request = ShardRequest::decode(&request.encode())?;
    let mut scan = Scan::new(&request, view)?;
    while scan.step()? {}
    Partial::decode(&scan.finish().encode()?)
}

fn view<'a>(disk: &LossyDisk, id: ShardId, batches: impl Iterator<Item = &'a Batch>) -> Result<View> {
    let mut shard = Shard::new(id, ShardOptions::default());
    let (mut index, mut segments) = (0, Vec::new());
    let mut encoder = l0::Encoder::new();
    for batch in batches {
        index += 1;
        let streams: Vec<StreamRecords> = batch.records.iter().map(stream).collect();
        let batch_bytes = encoder.encode(TENANT, &streams);
        let sub = SubBatch { key: Key(u128::from(index)), body: 0, part: 0, restored: false, batch: batch_bytes };
        shard.apply(Index(index), Term(1), &Command::encode_batch(&[sub])).context("applying a batch")?;
        if batch.seal {
            index += 1;
            let applied = shard.apply(Index(index), Term(1), &Command::encode_seal(Index(0))).context("sealing")?;
            let Applied::Seal(job) = applied else { bail!("a seal was no seal") };
            segments.push(sealed(disk, &job)?);
            shard.sealed(job.position().index);
        }
    }
    let (first, end) = (shard.first_offset(), shard.next_offset());
    Ok(View { shard: id, first, end, head: shard.view(), segments })
}

fn stream(record: &Record) -> StreamRecords {
    let labels = Labels::new(record.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let metadata = record.metadata.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
    StreamRecords {
        labels,
        records: vec![Stored { timestamp: record.timestamp, line: record.line.as_str().into(), metadata }],
    }
}

fn sealed(disk: &LossyDisk, job: &SealJob) -> Result<Arc<Segment>> {
    let (from, _) = job.offsets().context("an empty head was sealed")?;
    let mut writer = SegmentWriter::create(disk, job.shard(), from)?;
    let proof = job.encode(|block| {
        writer.push(&block.bytes, block.summary, &block.streams).expect("the disk is in memory");
        Ok::<_, ShardError>(())
    });
    let meta = writer.finish(proof?.context("an empty head was sealed")?.digest)?;
    Ok(Arc::new(Segment::open(disk, job.shard(), &meta)?))
}

fn set(labels: &Labels) -> Set {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Records(records) => Answer::Rows(records.into_iter().map(row).collect()),
        Outcome::Matrix(_, series) => {
            Answer::Matrix(series.into_iter().map(|series| (set(&series.labels), series.points)).collect())
        }
        Outcome::Vector(_, values) => {
            Answer::Vector(values.iter().map(|(labels, value)| (set(labels), *value)).collect())
        }
        Outcome::Scalar(_, number) => Answer::Scalar(number),
        Outcome::Texts(_) | Outcome::Series(_) | Outcome::Overview(_) => Answer::Matrix(BTreeMap::new()),
    }
}

/// The labels that an answer folds into the stream: metadata beside a label of its name becomes another.
pub(crate) fn row(record: AnswerRecord) -> Row {
    let mut labels = set(&record.labels);
    for (name, value) in record.metadata {
        let name = if record.labels.get(&name).is_some() { format!("{name}_extracted") } else { name };
        labels.insert(name, value);
    }
    labels.extend(record.parsed.into_iter().filter(|(_, value)| !value.is_empty()));
    // What an error is explained with is in nobody's words but the engine's.
    labels.remove("__error_details__");
    (record.timestamp, (record.shard.0, record.offset), labels, record.line)
}
