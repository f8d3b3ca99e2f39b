//! Runs a request over one shard as it was at one moment: the head and the sealed segments, in steps of one batch or
//! block, so that the caller can stop between two steps.
//!
//! What time range, tenant, selector and retention rule out is never read; of the rest only the columns that the request needs.
//! Records by time are visited in the order asked for, and the scan ends once no later block can hold a record that
//! belongs into the answer. This file does not know what time it is, nor who else scans.

mod count;
mod keep;
mod list;
mod sample;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use count::{folded, grouped};
pub(super) use list::is_hidden;

use super::error::QueryError;
use super::overview::detected::{FieldSet, FieldsQuery, FoundField, Parsers};
use super::overview::{OverviewFound, OverviewWant};
use super::partial::{Considered, Found, Made, Partial, Seen, Weighed};
use super::pattern::{LineFilters, StreamPattern};
use super::pipeline::Pipeline;
use super::plan::{Direction, Hidden, LogQuery, OffsetQuery, ShardRequest, Want};
use crate::block::BlockError;
use crate::block::l1::L1;
use crate::block::rows::{Lines, Projection, Rows, Stream, Summary};
use crate::id::{Offset, ShardId};
use crate::label::Labels;
use crate::shard::{HeadBatch, HeadView};
use crate::storage::segment::{LostRange, Segment, SegmentError};
use count::Counter;
use keep::{Keeper, Key, Order, Wanted};
use list::Lister;
use sample::Sampler;
use survey::Surveyor;

/// A shard as it was at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The shard.
    pub shard: ShardId,
    /// The first offset that retention has left: what lies below is not looked at.
    pub first: Offset,
    /// The first offset that was not given out.
    pub end: Offset,
    /// What is applied and in no segment of this view.
    pub head: HeadView,
    /// The segments, in the order of their offsets.
    pub segments: Vec<Arc<Segment>>,
}

enum Source {
    Head(Arc<HeadBatch>),
    Sealed(Arc<Segment>, usize),
}

/// A batch or a block that may hold what is asked for.
struct Chunk {
    span: Summary,
    /// Where its first record can stand in the order asked for.
    first: Key,
    source: Source,
}

enum Work {
    Keep(Keeper),
    Count(Counter),
    Fold(Sampler),
    List(Lister),
    Survey(Surveyor),
    /// Records whose fields are looked for.
    Sample(Keeper, FieldSet),
}

/// One request on its way through one shard.
pub struct Scan {
    shard: ShardId,
    end: Offset,
    tenant: Option<String>,
    /// A stream is wanted if any of these matches; none: every stream.
    selectors: Vec<StreamPattern>,
    hidden: Vec<HiddenPattern>,
    work: Work,
    chunks: VecDeque<Chunk>,
    seen: Seen,
    weighed: Weighed,
}

/// Why a batch or a block is not read; the later, the nearer it came to being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Skip {
    Range,
    Streams,
    Hidden,
}

impl Considered {
    fn count(&mut self, skip: Option<Skip>) {
        self.all += 1;
        match skip {
            None => {}
            Some(Skip::Range) => self.out_of_range += 1,
            Some(Skip::Streams) => self.of_other_streams += 1,
            Some(Skip::Hidden) => self.hidden += 1,
        }
    }
}

/// What is not shown, ready to be compared.
struct HiddenPattern {
    tenant: Option<String>,
    streams: StreamPattern,
    before: i64,
}

impl HiddenPattern {
    fn new(hidden: &Hidden) -> Result<Self, QueryError> {
        let Hidden { tenant, matchers, before } = hidden;
        Ok(Self { tenant: tenant.clone(), streams: StreamPattern::new(matchers)?, before: *before })
    }

    fn matches(&self, stream: &Stream) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| *tenant == *stream.tenant) && self.streams.matches(&stream.labels)
    }
}

/// Which streams are wanted, and from when on.
struct Wants<'a> {
    tenant: Option<&'a str>,
    selectors: &'a [StreamPattern],
    hidden: &'a [HiddenPattern],
}

impl Wants<'_> {
    /// The first timestamp of the stream that is shown; `None` where the stream is not wanted.
    fn shown_from(&self, stream: &Stream) -> Option<i64> {
        let wanted = self.tenant.is_none_or(|tenant| *tenant == *stream.tenant)
            && (self.selectors.is_empty() || self.selectors.iter().any(|selector| selector.matches(&stream.labels)));
        let hiding = || self.hidden.iter().filter(|hidden| hidden.matches(stream)).map(|hidden| hidden.before);
        wanted.then(|| hiding().max().unwrap_or(i64::MIN))
    }

    /// Whether records of the stream that lie within a span may be shown.
    fn holds(&self, stream: &Stream, span: &Summary) -> bool {
        self.shown_from(stream).is_some_and(|from| span.max_timestamp >= from)
    }
}

/// Whether nobody waits for the answer any more. It is asked before each record that stages work on: one step may have
/// many of them, and work long on each.
pub type Stopped<'a> = &'a dyn Fn() -> bool;

impl Work {
    /// Takes what it wants of a chunk, and answers how many records had fitting time and stream. `shown` says of each
    /// stream from when on it is shown; `None`: it is not.
    fn read(
        &mut self,
        chunk: &Opened,
        shard: ShardId,
        shown: &[Option<i64>],
        stopped: Stopped<'_>,
    ) -> Result<u64, QueryError> {
        match self {
            Self::List(_) => Ok(0),
            Self::Count(counter) => {
                let wanted = chunk.streams().iter().zip(shown).filter(|(_, shown)| shown.is_some());
                let metadata = counter.needs_metadata(wanted.map(|(stream, _)| &stream.labels));
                let mut rows = chunk.rows(shard, Projection { lines: false, metadata })?;
                let mut selected = counter.select(&rows, shown);
                let seen = selected.len() as u64;
                chunk.filter(shard, counter.filters(), counter.needs_lines(), &mut rows, &mut selected)?;
                counter.count(&rows, &selected, metadata, stopped)?;
                Ok(seen)
            }
            Self::Fold(sampler) => {
                let mut rows = chunk.rows(shard, Projection { lines: false, metadata: true })?;
                let mut selected = sampler.select(&rows, shown);
                let seen = selected.len() as u64;
                chunk.filter(shard, sampler.filters(), sampler.needs_lines(), &mut rows, &mut selected)?;
                sampler.fold(&rows, &selected, stopped)?;
                Ok(seen)
            }
            Self::Survey(surveyor) => surveyor.read(&chunk.rows(shard, Projection::ALL)?, shown, stopped),
            Self::Keep(keeper) | Self::Sample(keeper, _) => {
                let mut rows = chunk.rows(shard, Projection::default())?;
                let mut selected = keeper.select(&rows, shown);
                let seen = selected.len() as u64;
                let lines = chunk.filter(shard, keeper.filters(), false, &mut rows, &mut selected)?;
                keeper.order_rows(&rows, &mut selected);
                if !selected.is_empty() {
                    chunk.read_whole(shard, lines, &mut rows, &selected)?;
                    keeper.keep(&rows, &selected, stopped)?;
                }
                Ok(seen)
            }
        }
    }

    fn may_hold(&self, span: &Summary) -> bool {
        match self {
            Self::Keep(keeper) | Self::Sample(keeper, _) => keeper.may_hold(span),
            Self::Count(counter) => counter.may_hold(span),
            Self::Fold(sampler) => sampler.may_hold(span),
            Self::List(lister) => lister.may_hold(span),
            Self::Survey(surveyor) => surveyor.may_hold(span),
        }
    }

    fn first(&self, span: &Summary) -> Key {
        match self {
            Self::Keep(keeper) | Self::Sample(keeper, _) => keeper.order().first(span),
            Self::Count(_) | Self::Fold(_) | Self::List(_) | Self::Survey(_) => Order::Offset.first(span),
        }
    }
}

fn keep_records(query: &LogQuery) -> Result<Keeper, QueryError> {
    let order = match query.direction {
        Direction::Forward => Order::Oldest,
        Direction::Backward => Order::Newest,
    };
    let wanted = Wanted {
        order,
        time: (query.start, Some(query.end)),
        from: 0,
        after: query.after.map(|(timestamp, offset)| order.key(timestamp, offset)),
        limit: query.limit as usize,
    };
    Ok(Keeper::new(wanted, Pipeline::new(&query.logs.stages)?))
}

fn keep_offsets(query: &OffsetQuery) -> Result<Keeper, QueryError> {
    let wanted = Wanted {
        order: Order::Offset,
        time: (i64::MIN, None),
        from: query.from.unwrap_or(0),
        after: None,
        limit: query.limit as usize,
    };
    Ok(Keeper::new(wanted, Pipeline::new(query.logs.as_ref().map_or(&[], |logs| &logs.stages))?))
}

/// What is done for an overview, and for which streams.
fn survey(want: &OverviewWant) -> Result<(Work, Vec<StreamPattern>), QueryError> {
    let (work, matchers) = match want {
        OverviewWant::Volume(query) => (Work::Survey(Surveyor::measure(query)), &query.matchers),
        OverviewWant::Patterns(query) => (Work::Survey(Surveyor::mine(query)), &query.matchers),
        OverviewWant::Fields(query) => {
            let FieldsQuery { logs, start, end, line_limit: limit, .. } = query;
            let (logs, direction) = (logs.clone(), Direction::Backward);
            let newest = LogQuery { logs, start: *start, end: *end, limit: *limit, direction, after: None };
            (Work::Sample(keep_records(&newest)?, FieldSet::new(query)), &query.logs.matchers)
        }
    };
    Ok((work, vec![StreamPattern::new(matchers)?]))
}

/// The fields of the records that were kept. Where a part was cut, those before are sample enough.
fn looked(keeper: Keeper, mut fields: FieldSet) -> Vec<FoundField> {
    let (found, parsers) = (keeper.finish(0), Parsers::new());
    let streams: Vec<Labels> = found.streams.into_iter().map(|stream| Labels::new(stream.labels)).collect();
    for record in &found.records {
        let metadata: Vec<_> = record.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.read(&parsers, &streams[record.stream as usize], &metadata, &record.line);
    }
    fields.found()
}

impl Scan {
    /// Finds what is to be read; reads nothing yet.
    ///
    /// # Errors
    /// `QueryError::Parse` where a matcher or filter does not compile; `QueryError::Removed` where records are asked for
    /// from an offset on that retention has removed.
    pub fn new(request: &ShardRequest, view: &View) -> Result<Self, QueryError> {
        if let Want::Offsets(OffsetQuery { from: Some(offset), .. }) = request.want
            && offset < view.first.0
        {
            return Err(QueryError::Removed { shard: view.shard, offset, first: view.first.0 });
        }
        let one = |logs: &super::ast::LogExpr| Ok(vec![StreamPattern::new(&logs.matchers)?]);
        let (work, selectors) = match &request.want {
            Want::Records(query) => (Work::Keep(keep_records(query)?), one(&query.logs)?),
            Want::Counts(query) => (Work::Count(Counter::new(query)?), one(&query.logs)?),
            Want::Numbers(query) => (Work::Fold(Sampler::new(query, view.shard)?), one(&query.logs)?),
            Want::Offsets(query) => (Work::Keep(keep_offsets(query)?), query.logs.as_ref().map_or(Ok(vec![]), one)?),
            Want::Overview(want) => survey(want)?,
            Want::Streams(query) => {
                let selectors = query.selectors.iter().map(|matchers| StreamPattern::new(matchers));
                (Work::List(Lister::new(query)), selectors.collect::<Result<_, _>>()?)
            }
        };
        let (tenant, chunks) = (request.tenant.clone(), VecDeque::new());
        let (shard, end) = (view.shard, view.end);
        let hidden = request.hidden.iter().map(HiddenPattern::new).collect::<Result<_, _>>()?;
        let weighed = Weighed::default();
        let mut scan = Self { shard, end, tenant, selectors, hidden, work, chunks, seen: Seen::default(), weighed };
        scan.find_chunks(view);
        Ok(scan)
    }

    fn find_chunks(&mut self, view: &View) {
        let mut chunks: Vec<Chunk> = Vec::new();
        for segment in view.segments.iter().filter(|segment| segment.meta().to >= view.first) {
            let mut nearest = Some(Skip::Range);
            for at in 0..segment.blocks().len() {
                let source = Source::Sealed(segment.clone(), at);
                let skip = self.skip(&source);
                self.weighed.blocks.count(skip);
                nearest = nearest.zip(skip).map(|(nearest, skip)| nearest.max(skip));
                if skip.is_none() {
                    self.seen.blocks_matched += 1;
                    chunks.push(self.chunk(source));
                }
            }
            self.weighed.segments.count(nearest);
        }
        // A batch leaves the head only after its segment came into the view.
        let unsealed = view.segments.last().map_or(0, |last| last.meta().to.0 + 1).max(view.first.0);
        for batch in view.head.iter().filter(|batch| batch.base().0 >= unsealed) {
            let source = Source::Head(batch.clone());
            let skip = self.skip(&source);
            self.weighed.batches.count(skip);
            if skip.is_none() {
                self.seen.batches_matched += 1;
                chunks.push(self.chunk(source));
            }
        }
        chunks.sort_by_key(|chunk| chunk.first);
        self.chunks = chunks.into();
    }

    fn chunk(&self, source: Source) -> Chunk {
        let span = source.span();
        Chunk { first: self.work.first(&span), span, source }
    }

    /// Why a batch or a block need not be read; `None` where it must. Which streams a lost one holds is lost as well.
    fn skip(&self, source: &Source) -> Option<Skip> {
        let span = source.span();
        if !self.work.may_hold(&span) {
            return Some(Skip::Range);
        }
        if source.is_lost() {
            return None;
        }
        let mut skip = Skip::Streams;
        for from in source.streams().filter_map(|stream| self.wants().shown_from(stream)) {
            if span.max_timestamp >= from {
                return None;
            }
            skip = Skip::Hidden;
        }
        Some(skip)
    }

    fn wants(&self) -> Wants<'_> {
        Wants { tenant: self.tenant.as_deref(), selectors: &self.selectors, hidden: &self.hidden }
    }

    /// Reads one batch or block; whether there is more to do.
    ///
    /// # Errors
    /// `QueryError::Damaged` where stored bytes are not what was written, `QueryError::Storage` where they could not
    /// be read, `QueryError::Memory` past the bound of one query. The scan is then of no further use.
    pub fn step(&mut self) -> Result<bool, QueryError> {
        self.step_unless(&|| false)
    }

    /// The same, unless it is stopped on its way.
    ///
    /// # Errors
    /// As [`Scan::step`]; `QueryError::Cancelled` where it was stopped.
    pub fn step_unless(&mut self, stopped: Stopped<'_>) -> Result<bool, QueryError> {
        let Some(chunk) = self.chunks.pop_front() else { return Ok(false) };
        if let Work::List(lister) = &mut self.work {
            if chunk.source.is_lost() {
                // Which streams it holds is lost as well.
                chunk.source.open(self.shard)?;
            }
            let wants = Wants { tenant: self.tenant.as_deref(), selectors: &self.selectors, hidden: &self.hidden };
            for stream in chunk.source.streams().filter(|stream| wants.holds(stream, &chunk.span)) {
                lister.add(&stream.labels)?;
            }
            return Ok(!self.chunks.is_empty());
        }
        if let Work::Survey(surveyor) = &mut self.work
            && !chunk.source.is_lost()
        {
            let wants = Wants { tenant: self.tenant.as_deref(), selectors: &self.selectors, hidden: &self.hidden };
            let streams = chunk.source.streams().map(|stream| (stream, wants.shown_from(stream)));
            if surveyor.take_unread(&chunk.span, streams) {
                return Ok(!self.chunks.is_empty());
            }
        }
        if let Work::Keep(keeper) | Work::Sample(keeper, _) = &self.work
            && keeper.is_beyond(chunk.first)
        {
            // Chunks come in order, so none of the rest can hold a record that is kept.
            for beyond in std::iter::once(chunk).chain(self.chunks.drain(..)) {
                match beyond.source {
                    Source::Head(_) => self.weighed.batches.beyond_limit += 1,
                    Source::Sealed(..) => self.weighed.blocks.beyond_limit += 1,
                }
            }
            return Ok(false);
        }
        let opened = chunk.source.open(self.shard)?;
        let shown: Vec<Option<i64>> = opened.streams().iter().map(|stream| self.wants().shown_from(stream)).collect();
        let records = self.work.read(&opened, self.shard, &shown, stopped)?;
        self.saw(&chunk, records);
        Ok(!self.chunks.is_empty())
    }

    fn saw(&mut self, chunk: &Chunk, records: u64) {
        let bytes = chunk.span.raw_bytes;
        let chunks = match &chunk.source {
            Source::Head(_) => Seen { head_records: records, head_bytes: bytes, head_chunks: 1, ..Seen::default() },
            Source::Sealed(segment, block) => {
                Seen { compressed: u64::from(segment.blocks()[*block].bytes()), ..Seen::default() }
            }
        };
        self.seen.add(&Seen { records, bytes, chunks: 1, ..chunks });
    }

    /// What was found by the steps so far; whole once [`Scan::step`] answered `false`.
    pub fn finish(self) -> Partial {
        let found = match self.work {
            Work::Keep(keeper) => Found::Records(keeper.finish(self.end.0)),
            Work::Count(counter) => Found::Counts(counter.finish()),
            Work::Fold(sampler) => Found::Folds(sampler.finish()),
            Work::List(lister) => lister.finish(),
            Work::Survey(surveyor) => Found::Overview(surveyor.finish()),
            Work::Sample(keeper, fields) => Found::Overview(OverviewFound::Fields(looked(keeper, fields))),
        };
        let Self { shard, seen, weighed, .. } = self;
        Partial { shard, end: self.end.0, seen, weighed, made: Made::default(), found }
    }
}

impl Source {
    fn span(&self) -> Summary {
        match self {
            Self::Head(batch) => batch.summary(),
            Self::Sealed(segment, block) => segment.blocks()[*block].summary,
        }
    }

    fn is_lost(&self) -> bool {
        match self {
            Self::Head(_) => false,
            Self::Sealed(segment, _) => segment.is_lost(),
        }
    }

    /// Its streams, without reading it.
    fn streams(&self) -> Box<dyn Iterator<Item = &Stream> + '_> {
        match self {
            Self::Head(batch) => Box::new(batch.streams().iter()),
            Self::Sealed(segment, block) => Box::new(segment.streams_of(*block)),
        }
    }

    fn open(&self, shard: ShardId) -> Result<Opened, QueryError> {
        match self {
            Self::Head(batch) => Ok(Opened::Head(batch.clone())),
            Self::Sealed(segment, block) => {
                let bytes = segment.read(*block).map_err(|error| unreadable(shard, &error))?;
                let place = format!("{} block {block}", segment.path());
                let range = segment.range(*block);
                let block = L1::open(bytes).map_err(|error| damaged(shard, Some(range), &place, &error))?;
                Ok(Opened::Sealed(block, range, place))
            }
        }
    }
}

/// A chunk that is being read, and where it is kept.
enum Opened {
    Head(Arc<HeadBatch>),
    Sealed(L1, LostRange, String),
}

impl Opened {
    /// Its streams, in the order in which its rows name them.
    fn streams(&self) -> &[Stream] {
        match self {
            Self::Head(batch) => batch.streams(),
            Self::Sealed(block, ..) => block.streams(),
        }
    }

    fn rows(&self, shard: ShardId, projection: Projection) -> Result<Rows, QueryError> {
        match self {
            Self::Head(batch) => batch.rows(projection),
            Self::Sealed(block, ..) => block.rows(projection),
        }
        .map_err(|error| self.unreadable(shard, &error))
    }

    fn lines(&self, shard: ShardId) -> Result<Lines, QueryError> {
        match self {
            Self::Head(batch) => batch.lines(),
            Self::Sealed(block, ..) => block.lines(),
        }
        .map_err(|error| self.unreadable(shard, &error))
    }

    /// Keeps of the rows, ascending, those whose line passes, and reads the lines of these where they are needed. The lines
    /// of the chunk, where they were looked at.
    fn filter(
        &self,
        shard: ShardId,
        filters: &LineFilters,
        needs_lines: bool,
        rows: &mut Rows,
        selected: &mut Vec<u32>,
    ) -> Result<Option<Lines>, QueryError> {
        if selected.is_empty() || (filters.is_empty() && !needs_lines) {
            return Ok(None);
        }
        let lines = self.lines(shard)?;
        filters.narrow(&lines, selected);
        if needs_lines || filters.has_others() {
            rows.read_lines(&lines, selected).map_err(|error| self.unreadable(shard, &error))?;
            selected.retain(|row| filters.others_match(rows.line(*row as usize).as_bytes()));
        }
        Ok(Some(lines))
    }

    /// Reads the metadata, and the lines of some rows.
    fn read_whole(
        &self,
        shard: ShardId,
        lines: Option<Lines>,
        rows: &mut Rows,
        selected: &[u32],
    ) -> Result<(), QueryError> {
        let lines = lines.map_or_else(|| self.lines(shard), Ok)?;
        let mut ascending = selected.to_vec();
        ascending.sort_unstable();
        let read = match self {
            Self::Head(batch) => batch.read_metadata(rows),
            Self::Sealed(block, ..) => block.read_metadata(rows),
        };
        read.and_then(|()| rows.read_lines(&lines, &ascending)).map_err(|error| self.unreadable(shard, &error))
    }

    fn unreadable(&self, shard: ShardId, error: &BlockError) -> QueryError {
        match self {
            Self::Head(batch) => {
                let place = format!("the batch of entry {} at offset {}", batch.index(), batch.base());
                damaged(shard, None, &place, error)
            }
            Self::Sealed(_, range, place) => damaged(shard, Some(*range), place, error),
        }
    }
}

fn damaged(shard: ShardId, range: Option<LostRange>, place: &str, error: &BlockError) -> QueryError {
    QueryError::Damaged { shard, range, what: format!("{place}: {error}") }
}

fn unreadable(shard: ShardId, error: &SegmentError) -> QueryError {
    let what = error.to_string();
    match error {
        SegmentError::DamagedBlock { range, .. } | SegmentError::Lost { range, .. } => {
            QueryError::Damaged { shard, range: Some(*range), what }
        }
        SegmentError::Damaged { .. } => QueryError::Damaged { shard, range: None, what },
        SegmentError::Io { .. } | SegmentError::Version { .. } => QueryError::Storage { shard, what },
    }
}
