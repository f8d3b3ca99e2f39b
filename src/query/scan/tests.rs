//! A scan of head and segments against a plain walk over the same records.

use proptest::prelude::*;

use super::*;
use crate::block::l0;
use crate::id::{Index, Key as RequestKey, Term};
use crate::label::Labels;
use crate::query::ast::{
    Expr, FilterOp, LabelChoice, LabelFilter, LabelFormat, LabelSource, LineFilter, LogExpr, MatchOp, Matcher,
    MetricExpr, Needle, Stage,
};
use crate::query::merge::{AnswerRecord, Gather, Outcome, records};
use crate::query::overview::{FieldParameters, Overviewed, VolumeParameters};
use crate::query::plan::{Query, RangeParameters, StreamsQuery, StreamsWant};
use crate::record::{Record, StreamRecords};

use crate::shard::{Applied, Command, SealJob, Shard, ShardError, ShardOptions, SubBatch};
use crate::storage::lossy::LossyDisk;
use crate::storage::segment::SegmentWriter;

/// One shard and every record it was given, in the order of their offsets.
#[derive(Debug)]
struct World {
    view: View,
    all: Vec<AnswerRecord>,
}

#[derive(Clone, Debug)]
struct Sent {
    shard: usize,
    stream: usize,
    timestamp: i64,
    line: String,
    level: Option<u8>,
    /// Whether the shard is sealed after this batch.
    seal: bool,
}

fn stream_labels(stream: usize) -> Labels {
    Labels::new([("app", ["a", "b", "ab"][stream % 3]), ("level", ["", "x"][stream / 3 % 2]), ("__own__", "1")])
}

fn fields(sent: &Sent) -> Vec<(String, String)> {
    sent.level.map_or(vec![], |level| vec![("level".to_owned(), format!("l{level}")), ("k".to_owned(), "v".to_owned())])
}

fn apply(shard: &mut Shard, index: &mut u64, payload: bytes::Bytes) -> Applied {
    *index += 1;
    shard.apply(Index(*index), Term(1), &payload).unwrap()
}

fn world(id: u32, batches: &[Vec<Sent>]) -> World {
    world_on(&LossyDisk::new(1), id, batches)
}

fn world_on(disk: &LossyDisk, id: u32, batches: &[Vec<Sent>]) -> World {
    let mut shard = Shard::new(ShardId(id), ShardOptions::default());
    let (mut index, mut all, mut segments) = (0, Vec::new(), Vec::new());
    let mut encoder = l0::Encoder::new();
    for batch in batches.iter().filter(|batch| !batch.is_empty()) {
        // Runs of one stream, as a listener hands them over.
        let mut streams: Vec<StreamRecords> = Vec::new();
        for sent in batch {
            let labels = stream_labels(sent.stream);
            let metadata = fields(sent);
            all.push(AnswerRecord {
                shard: ShardId(id),
                offset: all.len() as u64,
                timestamp: sent.timestamp,
                tenant: "t".into(),
                labels: labels.clone(),
                line: sent.line.clone(),
                metadata: metadata.clone(),
                parsed: Vec::new(),
            });
            let metadata = metadata.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
            let record = Record { timestamp: sent.timestamp, line: sent.line.as_str().into(), metadata };
            streams.push(StreamRecords { labels, records: vec![record] });
        }
        let batch_bytes = encoder.encode("t", &streams);
        let sub =
            SubBatch { key: RequestKey(u128::from(index)), body: 0, part: 0, restored: false, batch: batch_bytes };
        let applied = apply(&mut shard, &mut index, Command::encode_batch(&[sub]));
        assert!(matches!(applied, Applied::Batch(_)));
        if batch.iter().any(|sent| sent.seal) {
            let Applied::Seal(job) = apply(&mut shard, &mut index, Command::encode_seal(Index(0))) else {
                panic!("a seal")
            };
            segments.push(sealed(disk, &job));
            shard.sealed(job.position().index);
        }
    }
    let (first, end) = (shard.first_offset(), shard.next_offset());
    let view = View { shard: ShardId(id), first, end, head: shard.view(), segments };
    World { view, all }
}

fn sealed(disk: &LossyDisk, job: &SealJob) -> Arc<Segment> {
    let (from, _) = job.offsets().unwrap();
    let mut writer = SegmentWriter::create(disk, job.shard(), from).unwrap();
    let proof = job.encode(|block| {
        writer.push(&block.bytes, block.summary, &block.streams).unwrap();
        Ok::<_, ShardError>(())
    });
    let meta = writer.finish(proof.unwrap().unwrap().digest).unwrap();
    Arc::new(Segment::open(disk, job.shard(), &meta).unwrap())
}

fn scanned(request: &ShardRequest, view: &View) -> Partial {
    let request = ShardRequest::decode(&request.encode()).unwrap();
    let mut scan = Scan::new(&request, view).unwrap();
    while scan.step().unwrap() {}
    Partial::decode(&scan.finish().encode().unwrap()).unwrap()
}

fn offsets(query: OffsetQuery) -> ShardRequest {
    ShardRequest { tenant: None, want: Want::Offsets(query), hidden: Vec::new() }
}

fn answered(query: Query, worlds: &[World], order: &[usize]) -> Outcome {
    answered_without(query, worlds, order, Vec::new())
}

fn answered_without(query: Query, worlds: &[World], order: &[usize], hidden: Vec<Hidden>) -> Outcome {
    let mut gather = Gather::new(query, "t").hiding(hidden);
    for (number, request) in gather.requests().into_iter().enumerate() {
        for world in order {
            let mut next = Some(request.clone());
            while let Some(request) = next {
                next = gather.add(number, scanned(&request, &worlds[*world].view)).unwrap();
            }
        }
    }
    gather.finish().unwrap().outcome
}

fn sent(line: &'static str) -> impl Strategy<Value = Sent> {
    (0_usize..2, 0_usize..6, 0_i64..40, line, prop::option::of(0_u8..3), 0_u8..12).prop_map(
        |(shard, stream, timestamp, line, level, seal)| Sent { shard, stream, timestamp, line, level, seal: seal == 0 },
    )
}

fn worlds() -> impl Strategy<Value = Vec<World>> {
    worlds_of("[ab ]{0,6}")
}

/// Two shards with lines as a regular expression draws them.
fn worlds_of(line: &'static str) -> impl Strategy<Value = Vec<World>> {
    prop::collection::vec(prop::collection::vec(sent(line), 1..8), 0..12).prop_map(|batches| {
        let of = |shard: usize| -> Vec<Vec<Sent>> {
            batches.iter().map(|batch| batch.iter().filter(|sent| sent.shard == shard).cloned().collect()).collect()
        };
        (0..2).map(|shard| world(shard as u32, &of(shard))).collect()
    })
}

fn all(worlds: &[World]) -> Vec<AnswerRecord> {
    worlds.iter().flat_map(|world| world.all.clone()).collect()
}

type Rule<T> = (&'static str, fn(&T) -> bool);

const FILTERS: [Rule<str>; 7] = [
    ("", |_| true),
    ("|= `a`", |line| line.contains('a')),
    ("!= `ab`", |line| !line.contains("ab")),
    ("|~ `a+b`", |line| line.contains("ab")),
    ("!~ `^a`", |line| !line.starts_with('a')),
    ("|= `ab` or `ba` != ` `", |line| (line.contains("ab") || line.contains("ba")) && !line.contains(' ')),
    ("|= `aa` |= `b`", |line| line.contains("aa") && line.contains('b')),
];
const SELECTORS: [Rule<Labels>; 4] = [
    ("{app=`a`}", |labels| labels.get("app") == Some("a")),
    ("{app=~`a.*`}", |labels| labels.get("app") != Some("b")),
    ("{app=~`.+`, level=``}", |labels| labels.get("level").is_none()),
    ("{app!=`b`, app=~`.+`}", |labels| labels.get("app") != Some("b")),
];

fn passing(all: &[AnswerRecord], selector: usize, filter: usize) -> Vec<AnswerRecord> {
    let passes = |record: &&AnswerRecord| SELECTORS[selector].1(&record.labels) && FILTERS[filter].1(&record.line);
    all.iter().filter(passes).cloned().collect()
}

fn everything() -> LogExpr {
    match crate::query::parser::parse("{app=~`.+`}").unwrap() {
        Expr::Logs(logs) => logs,
        Expr::Metric(_) => panic!("a log query"),
    }
}

type Stages = fn() -> Vec<Stage>;
type Process = fn(AnswerRecord) -> Option<AnswerRecord>;

/// Stages, and what they make of one record.
const PIPELINES: [(Stages, Process); 6] = [
    (
        || vec![Stage::Regexp("(?P<app>[ab])".to_owned()), equal("app_extracted", "a")],
        |mut record| {
            let first = record.line.chars().find(|letter| *letter != ' ')?;
            record.parsed = vec![("app_extracted".to_owned(), first.to_string())];
            (first == 'a').then(|| moved(record))
        },
    ),
    (|| vec![Stage::Drop(vec![LabelChoice::Name("app".to_owned())])], |record| Some(stripped(record, "app"))),
    (
        || vec![equal("level", "l1")],
        |record| {
            let level = record.metadata.iter().any(|(name, value)| name == "level" && value == "l1");
            (record.labels.get("level").is_none() && level).then(|| moved(record))
        },
    ),
    (
        || vec![Stage::Keep(vec![LabelChoice::Name("k".to_owned())])],
        |mut record| {
            record.labels = Labels::new::<&str, &str>([]);
            record.metadata.retain(|(name, _)| name == "k");
            Some(record)
        },
    ),
    (
        || {
            let source = LabelSource::Rename("app".to_owned());
            vec![Stage::LabelFormat(vec![LabelFormat { label: "name".to_owned(), source }]), Stage::Unpack]
        },
        |record| {
            let name = record.labels.get("app").unwrap_or("").to_owned();
            let mut record = stripped(record, "app");
            let labels = record.labels.iter().chain([("name", name.as_str())]);
            record.labels = Labels::new(labels);
            let rest = record.line.trim_start();
            let spaces = record.line.len() - rest.len();
            let found = rest.chars().next().map_or("the end".to_owned(), |first| format!("{first:?}"));
            let details = format!("expected an object, found {found} at byte {spaces}");
            record.parsed =
                vec![("__error__".to_owned(), "JSONParserErr".to_owned()), ("__error_details__".to_owned(), details)];
            Some(record)
        },
    ),
    (
        || {
            vec![
                Stage::Decolorize,
                Stage::Filter(LineFilter { op: FilterOp::Contains, alternatives: vec![Needle::Text("ab".to_owned())] }),
            ]
        },
        |record| record.line.contains("ab").then(|| moved(record)),
    ),
];

fn equal(name: &str, value: &str) -> Stage {
    Stage::Labels(LabelFilter::Text(Matcher { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned() }))
}

/// Metadata as stages see it: by name, and under another one where its own is taken.
fn moved(mut record: AnswerRecord) -> AnswerRecord {
    for (name, _) in &mut record.metadata {
        if record.labels.get(name).is_some() {
            name.push_str("_extracted");
        }
    }
    record.metadata.sort();
    record
}

/// Without a label.
fn stripped(record: AnswerRecord, unwanted: &str) -> AnswerRecord {
    let mut record = moved(record);
    record.labels = Labels::new(record.labels.iter().filter(|(name, _)| *name != unwanted));
    record
}

/// The window counts of a record set, by a rule that names a record's series.
fn naive(
    records: &[AnswerRecord],
    points: &[i64],
    window: i64,
    bytes: bool,
    name: impl Fn(&AnswerRecord) -> Labels,
) -> Vec<(Labels, Vec<(u32, f64)>)> {
    let mut names: Vec<Labels> = records.iter().map(&name).collect();
    names.sort();
    names.dedup();
    let value = |labels: &Labels, at: i64| -> Option<usize> {
        let inside = records.iter().filter(|r| name(r) == *labels && r.timestamp > at - window && r.timestamp <= at);
        inside.map(|record| if bytes { record.line.len() } else { 1 }).reduce(|sum, more| sum + more)
    };
    let series = |labels: Labels| {
        let points = (0..).zip(points).filter_map(|(point, at)| Some((point, value(&labels, *at)? as f64)));
        let points: Vec<(u32, f64)> = points.collect();
        (labels, points)
    };
    names.into_iter().map(series).filter(|(_, points)| !points.is_empty()).collect()
}

fn matrix(outcome: Outcome) -> Vec<(Labels, Vec<(u32, f64)>)> {
    let Outcome::Matrix(_, series) = outcome else { panic!("a matrix") };
    series.into_iter().map(|series| (series.labels, series.points)).collect()
}

fn whole(record: &AnswerRecord) -> Labels {
    folded(&record.labels, record.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The pairs of a logfmt line.
fn pairs_of(record: &AnswerRecord) -> impl Iterator<Item = (&str, &str)> {
    record.line.split(' ').filter_map(|pair| pair.split_once('='))
}

fn number_of(record: &AnswerRecord) -> Option<f64> {
    pairs_of(record).find(|(name, _)| *name == "n").and_then(|(_, value)| value.parse().ok())
}

/// Its labels with those that a parser finds, but for the number.
fn parsed(record: &AnswerRecord) -> Labels {
    let whole = whole(record);
    Labels::new(whole.iter().chain(pairs_of(record).filter(|(name, _)| *name != "n")))
}

/// What an aggregation makes of the numbers in a window, which come in the order of time, shard and offset.
fn plain_fold(op: &str, window: i64, numbers: &[f64]) -> f64 {
    let (count, sum) = (numbers.len() as f64, numbers.iter().sum::<f64>());
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match op {
        "rate(" => sum / (window as f64 / 1e9),
        "sum_over_time(" => sum,
        "avg_over_time(" => sum / count,
        "min_over_time(" => sorted[0],
        "max_over_time(" | "quantile_over_time(1, " => sorted[sorted.len() - 1],
        "first_over_time(" => numbers[0],
        "last_over_time(" => numbers[numbers.len() - 1],
        "stdvar_over_time(" => numbers.iter().map(|number| (number - sum / count).powi(2)).sum::<f64>() / count,
        _ => panic!("{op}"),
    }
}

/// Those that were not read.
fn skipped(considered: Considered) -> u64 {
    let Considered { out_of_range, of_other_streams, hidden, beyond_limit, .. } = considered;
    out_of_range + of_other_streams + hidden + beyond_limit
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn numbers_are_those_of_a_plain_walk(
        worlds in worlds_of("n=[0-9]{1,2} x=[ab]|n=[0-9]|x=[ab]|n=z x=a"),
        selector in 0..SELECTORS.len(),
        (start, length, step) in (-5_i64..40, 0_i64..40, 1_i64..7),
        (window, offset) in (1_i64..15, -9_i64..9),
        op in prop::sample::select(vec![
            "rate(", "sum_over_time(", "avg_over_time(", "min_over_time(", "max_over_time(", "first_over_time(",
            "last_over_time(", "stdvar_over_time(", "quantile_over_time(1, ",
        ]),
        grouped in any::<bool>(),
    ) {
        let grouped = grouped && !matches!(op, "rate(" | "sum_over_time(");
        let (logs, by) = (SELECTORS[selector].0, if grouped { "by (app, x)" } else { "" });
        let text = format!("{op}{logs} | logfmt | unwrap n | __error__=`` [{window}ns] offset {offset}ns) {by}");
        let parameters = RangeParameters { start, end: start + length, step: Some(step), ..Default::default() };
        let ask = |text: &str, order: &[usize]| answered(Query::range(text, parameters).unwrap(), &worlds, order);
        let found = ask(&text, &[0, 1]);
        prop_assert_eq!(&found, &ask(&text, &[1, 0]));
        let name = |record: &AnswerRecord| {
            let parsed = parsed(record);
            if grouped { Labels::new(["app", "x"].map(|name| (name, parsed.get(name).unwrap_or("").to_owned()))) } else { parsed }
        };
        let mut passing = passing(&all(&worlds), selector, 0);
        passing.sort_by_key(|record| (record.timestamp, record.shard, record.offset));
        let mut names: Vec<Labels> = passing.iter().map(name).collect();
        names.sort();
        names.dedup();
        let mut expected: Vec<(Labels, Vec<(u32, f64)>)> = Vec::new();
        for labels in names {
            let mut points = Vec::new();
            for point in 0..=length / step {
                let at = start + point * step - offset;
                let inside = passing.iter().filter(|record| record.timestamp > at - window && record.timestamp <= at);
                let numbers: Vec<f64> = inside.filter(|record| name(record) == labels).filter_map(number_of).collect();
                if !numbers.is_empty() {
                    points.push((point as u32, plain_fold(op, window, &numbers)));
                }
            }
            if !points.is_empty() {
                expected.push((labels, points));
            }
        }
        let found = matrix(found);
        prop_assert_eq!(found.len(), expected.len());
        for ((labels, points), (expected_labels, expected)) in found.iter().zip(&expected) {
            prop_assert_eq!(labels, expected_labels);
            prop_assert_eq!(points.len(), expected.len());
            for ((point, value), (expected_point, expected)) in points.iter().zip(expected) {
                prop_assert_eq!(point, expected_point);
                prop_assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{value} {expected}");
            }
        }
        let absent = format!("absent_over_time({logs} | logfmt | unwrap n | __error__=`` [{window}ns] offset {offset}ns)");
        let absent: usize = matrix(ask(&absent, &[0, 1])).iter().map(|(_, points)| points.len()).sum();
        let present: std::collections::BTreeSet<u32> =
            expected.iter().flat_map(|(_, points)| points).map(|(point, _)| *point).collect();
        prop_assert_eq!(absent + present.len(), (length / step + 1) as usize);
    }

    #[test]
    fn counts_after_a_parser_are_those_of_a_plain_walk(
        worlds in worlds_of("n=[0-9] x=[ab]|n=[0-9]|x=[ab]"),
        selector in 0..SELECTORS.len(),
        (start, length, step) in (-5_i64..40, 0_i64..40, 1_i64..7),
        window in 1_i64..15,
        bytes in any::<bool>(),
    ) {
        let op = if bytes { "bytes_over_time" } else { "count_over_time" };
        let range = format!("{op}({} | logfmt | x=`a` | drop n [{window}ns])", SELECTORS[selector].0);
        let parameters = RangeParameters { start, end: start + length, step: Some(step), ..Default::default() };
        let ask = |text: &str| matrix(answered(Query::range(text, parameters).unwrap(), &worlds, &[0, 1]));
        let mut passing = passing(&all(&worlds), selector, 0);
        passing.retain(|record| record.line.contains("x=a"));
        let points: Vec<i64> = (0..=length / step).map(|point| start + point * step).collect();
        prop_assert_eq!(ask(&range), naive(&passing, &points, window, bytes, parsed));
        let by = |record: &AnswerRecord| Labels::new([("x", "a"), ("app", record.labels.get("app").unwrap_or(""))]);
        prop_assert_eq!(ask(&format!("sum by (x, app) ({range})")), naive(&passing, &points, window, bytes, by));
    }

    #[test]
    fn records_by_time_are_those_of_a_plain_walk(
        worlds in worlds(),
        selector in 0..SELECTORS.len(),
        filter in 0..FILTERS.len(),
        (start, length) in (0_i64..40, 0_i64..40),
        limit in 1_u64..20,
        forward in any::<bool>(),
        swapped in any::<bool>(),
    ) {
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let end = start + length;
        let parameters = RangeParameters { start, end, limit: Some(limit), direction, step: None };
        let text = format!("{} {}", SELECTORS[selector].0, FILTERS[filter].0);
        let order = if swapped { [1, 0] } else { [0, 1] };
        let outcome = answered(Query::range(&text, parameters).unwrap(), &worlds, &order);
        let mut expected = passing(&all(&worlds), selector, filter);
        expected.retain(|record| record.timestamp >= start && record.timestamp < end);
        expected.sort_by_key(|record| (record.timestamp, record.shard, record.offset));
        if !forward {
            expected.reverse();
        }
        expected.truncate(limit as usize);
        prop_assert_eq!(outcome, Outcome::Records(expected));
    }

    #[test]
    fn records_are_what_the_stages_make_of_them(
        worlds in worlds(),
        stages in 0..PIPELINES.len(),
        (start, length) in (0_i64..40, 0_i64..40),
        limit in 1_u32..20,
        forward in any::<bool>(),
        swapped in any::<bool>(),
    ) {
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let (end, (stages, process)) = (start + length, PIPELINES[stages]);
        let logs = LogExpr { stages: stages(), ..everything() };
        let query = LogQuery { logs, start, end, limit, direction, after: None };
        let order = if swapped { [1, 0] } else { [0, 1] };
        let outcome = answered(Query::Logs(query), &worlds, &order);
        let mut expected: Vec<AnswerRecord> = all(&worlds).into_iter().filter_map(process).collect();
        expected.retain(|record| record.timestamp >= start && record.timestamp < end);
        expected.sort_by_key(|record| (record.timestamp, record.shard, record.offset));
        if !forward {
            expected.reverse();
        }
        expected.truncate(limit as usize);
        prop_assert_eq!(outcome, Outcome::Records(expected));
    }

    #[test]
    fn records_by_offset_pass_the_stages_and_none_is_left_out(
        worlds in worlds(), stages in 0..PIPELINES.len(), limit in 1_u32..9,
    ) {
        let world = &worlds[0];
        let (stages, process) = PIPELINES[stages];
        let logs = LogExpr { stages: stages(), ..everything() };
        let mut query = OffsetQuery { logs: Some(logs), from: Some(0), limit };
        let mut found = Vec::new();
        while query.from < Some(world.view.end.0) {
            let Found::Records(part) = scanned(&offsets(query.clone()), &world.view).found else { panic!("records") };
            prop_assert!(part.records.len() <= limit as usize && Some(part.next) > query.from);
            query.from = Some(part.next);
            found.extend(records(ShardId(0), part));
        }
        let expected: Vec<AnswerRecord> = world.all.iter().cloned().filter_map(process).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_considered_is_read_or_skipped_for_one_reason(
        worlds in worlds(),
        selector in 0..SELECTORS.len(),
        (start, length) in (0_i64..40, 0_i64..40),
        limit in 1_u32..9,
        before in 0_i64..40,
    ) {
        let view = &worlds[0].view;
        let Expr::Logs(logs) = crate::query::parser::parse(SELECTORS[selector].0).unwrap() else { panic!("a log query") };
        let direction = Direction::Backward;
        let want = Want::Records(LogQuery { logs, start, end: start + length, limit, direction, after: None });
        let hidden = Hidden { tenant: None, matchers: everything().matchers, before };
        let request = ShardRequest { tenant: Some("t".into()), want, hidden: vec![hidden] };
        let Partial { weighed: Weighed { segments, blocks, batches }, seen, .. } = scanned(&request, view);
        let of_segments: usize = view.segments.iter().map(|segment| segment.blocks().len()).sum();
        prop_assert_eq!(segments.all, view.segments.len() as u64);
        prop_assert_eq!(blocks.all, of_segments as u64);
        prop_assert_eq!(batches.all, view.head.iter().count() as u64);
        prop_assert_eq!(blocks.all, skipped(blocks) + seen.chunks - seen.head_chunks);
        prop_assert_eq!(batches.all, skipped(batches) + seen.head_chunks);
        let outside = |span: Summary| span.max_timestamp < start || span.min_timestamp >= start + length;
        let spans = view.segments.iter().flat_map(|segment| segment.blocks()).map(|block| block.summary);
        prop_assert_eq!(blocks.out_of_range, spans.filter(|span| outside(*span)).count() as u64);
        prop_assert_eq!(batches.out_of_range, view.head.iter().filter(|batch| outside(batch.summary())).count() as u64);
        prop_assert!(skipped(segments) <= segments.all && segments.beyond_limit == 0);
    }

    #[test]
    fn a_cut_part_goes_on_where_it_ended(worlds in worlds(), limit in 1_u32..6, forward in any::<bool>()) {
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let world = &worlds[0];
        let mut query = LogQuery { logs: everything(), start: 0, end: 100, limit, direction, after: None };
        let mut found = Vec::new();
        loop {
            let want = Want::Records(query.clone());
            let request = ShardRequest { tenant: Some("t".into()), want, hidden: Vec::new() };
            let Found::Records(part) = scanned(&request, &world.view).found else { panic!("records") };
            let complete = part.complete;
            found.extend(records(ShardId(0), part));
            if complete {
                break;
            }
            query.after = found.last().map(|last| (last.timestamp, last.offset));
        }
        let mut expected = world.all.clone();
        expected.sort_by_key(|record| (record.timestamp, record.offset));
        if !forward {
            expected.reverse();
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn records_by_offset_are_contiguous(worlds in worlds(), from in 0_u64..30, limit in 1_u32..9) {
        let world = &worlds[1];
        let mut query = OffsetQuery { logs: None, from: Some(from), limit };
        let mut found = Vec::new();
        while query.from < Some(world.view.end.0) {
            let request = offsets(query.clone());
            let Found::Records(part) = scanned(&request, &world.view).found else { panic!("records") };
            prop_assert!(part.records.len() <= limit as usize);
            query.from = Some(part.next);
            found.extend(records(ShardId(1), part));
        }
        let expected: Vec<AnswerRecord> = world.all.iter().filter(|record| record.offset >= from).cloned().collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_hidden_is_as_if_it_were_not_there(
        worlds in worlds(),
        rules in prop::collection::vec((0..SELECTORS.len(), 0_i64..40, prop::sample::select(vec![None, Some("t"), Some("u")])), 0..4),
        limit in 1_u64..9,
    ) {
        let hidden: Vec<Hidden> = rules
            .iter()
            .map(|(selector, before, tenant)| Hidden {
                tenant: tenant.map(str::to_owned),
                matchers: crate::query::parser::parse_selector(SELECTORS[*selector].0).unwrap(),
                before: *before,
            })
            .collect();
        let shown = |record: &AnswerRecord| {
            let hides = |(selector, before, tenant): &(usize, i64, Option<&str>)| {
                *tenant != Some("u") && record.timestamp < *before && (SELECTORS[*selector].1)(&record.labels)
            };
            !rules.iter().any(hides)
        };
        let mut expected: Vec<AnswerRecord> = all(&worlds).into_iter().filter(shown).collect();
        expected.sort_by_key(|record| (record.timestamp, record.shard, record.offset));
        let ask = |text: &str, parameters| {
            answered_without(Query::range(text, parameters).unwrap(), &worlds, &[0, 1], hidden.clone())
        };
        let parameters = RangeParameters { start: 0, end: 100, limit: Some(limit), direction: Direction::Forward, step: Some(100) };
        let found = ask("{app=~`.+`}", parameters);
        let first: Vec<AnswerRecord> = expected.iter().take(usize::try_from(limit).unwrap()).cloned().collect();
        prop_assert_eq!(found, Outcome::Records(first));
        let counted = matrix(ask("sum(count_over_time({app=~`.+`}[101ns]))", parameters));
        let sum: f64 = counted.iter().flat_map(|(_, points)| points).map(|(_, value)| value).sum();
        let (at_start, at_end) = (expected.iter().filter(|record| record.timestamp == 0).count(), expected.len());
        prop_assert_eq!(sum, (at_start + at_end) as f64);
        for world in &worlds {
            let request = ShardRequest { hidden: hidden.clone(), ..offsets(OffsetQuery { logs: None, from: None, limit: 99 }) };
            let Found::Records(part) = scanned(&request, &world.view).found else { panic!("records") };
            let found = records(world.view.shard, part);
            let kept: Vec<AnswerRecord> = world.all.iter().filter(|record| shown(record)).cloned().collect();
            prop_assert_eq!(found, kept);
        }
    }

    #[test]
    fn what_was_dropped_is_found_by_no_query_and_named_where_its_offset_is_asked_for(
        worlds in worlds(), cut in 0_usize..6, registered in any::<bool>(),
    ) {
        let world = &worlds[0];
        let mut view = world.view.clone();
        let Some(last) = view.segments.get(cut).map(|segment| segment.meta().to.0) else { return Ok(()) };
        view.first = Offset(last + 1);
        if registered {
            view.segments.drain(..=cut);
        }
        let left: Vec<AnswerRecord> = world.all.iter().filter(|record| record.offset > last).cloned().collect();
        let found = |from| {
            let mut scan = Scan::new(&offsets(OffsetQuery { logs: None, from, limit: 99 }), &view)?;
            while scan.step()? {}
            let Found::Records(part) = scan.finish().found else { panic!("records") };
            Ok(records(ShardId(0), part))
        };
        prop_assert_eq!(found(None), Ok(left.clone()));
        prop_assert_eq!(found(Some(last + 1)), Ok(left.clone()));
        let removed = QueryError::Removed { shard: ShardId(0), offset: last, first: last + 1 };
        prop_assert_eq!(found(Some(last)), Err(removed));
        let parameters = RangeParameters { start: 0, end: 100, limit: Some(99), ..Default::default() };
        let request = Query::range("{app=~`.+`}", parameters).unwrap().requests("t").remove(0);
        let Found::Records(part) = scanned(&request, &view).found else { panic!("records") };
        prop_assert_eq!(part.records.len(), left.len());
    }

    #[test]
    fn counts_are_those_of_a_plain_walk(
        worlds in worlds(),
        selector in 0..SELECTORS.len(),
        filter in 0..FILTERS.len(),
        (start, length, step) in (-5_i64..40, 0_i64..40, 1_i64..7),
        window in 1_i64..15,
        bytes in any::<bool>(),
        swapped in any::<bool>(),
    ) {
        let op = if bytes { "bytes_over_time" } else { "count_over_time" };
        let range = format!("{op}({} {} [{window}ns])", SELECTORS[selector].0, FILTERS[filter].0);
        let parameters = RangeParameters { start, end: start + length, step: Some(step), ..Default::default() };
        let order = if swapped { [1, 0] } else { [0, 1] };
        let ask = |text: &str| matrix(answered(Query::range(text, parameters).unwrap(), &worlds, &order));
        let passing = passing(&all(&worlds), selector, filter);
        let points: Vec<i64> = (0..=length / step).map(|point| start + point * step).collect();
        let count = |name: fn(&AnswerRecord) -> Labels| naive(&passing, &points, window, bytes, name);
        prop_assert_eq!(ask(&range), count(whole));
        prop_assert_eq!(ask(&format!("sum({range})")), count(|_| Labels::new::<&str, &str>([])));
        let by_level = |record: &AnswerRecord| {
            let whole = whole(record);
            Labels::new(["level", "level_extracted"].map(|name| (name, whole.get(name).unwrap_or("").to_owned())))
        };
        prop_assert_eq!(ask(&format!("sum by (level, level_extracted) ({range})")), count(by_level));
        let mut most = ask(&format!("max without (k, level, level_extracted) ({range})"));
        let mut sums = ask(&format!("sum without (k, level, level_extracted) ({range})"));
        let mut averages = ask(&format!("avg without (k, level, level_extracted) ({range})"));
        let counts = ask(&format!("count without (k, level, level_extracted) ({range})"));
        let whole_series = count(whole);
        for (labels, points) in &counts {
            let (most, sum, average) = (most.remove(0), sums.remove(0), averages.remove(0));
            prop_assert_eq!((&most.0, &sum.0, &average.0), (labels, labels, labels));
            for (at, (point, number)) in points.iter().enumerate() {
                let of = |(all, _): &&(Labels, Vec<(u32, f64)>)| all.get("app") == labels.get("app");
                let values = whole_series.iter().filter(of).flat_map(|(_, points)| points);
                let values: Vec<f64> = values.filter(|(at, _)| at == point).map(|(_, value)| *value).collect();
                prop_assert_eq!(*number, values.len() as f64);
                prop_assert_eq!(most.1[at].1, values.iter().copied().fold(0.0, f64::max));
                prop_assert_eq!(sum.1[at].1, values.iter().sum::<f64>());
                prop_assert_eq!(average.1[at].1, values.iter().sum::<f64>() / values.len() as f64);
            }
        }
    }

    #[test]
    fn a_tally_is_the_same_whatever_the_parts(worlds in worlds()) {
        let text = "avg by (app) (rate({app=~`.+`}[5ns])) * 2 + sum by (app) (rate({app=~`.+`} |= `a` [5ns]))";
        let query = || Query::range(text, RangeParameters { end: 40, step: Some(3), ..Default::default() }).unwrap();
        prop_assert_eq!(answered(query(), &worlds, &[0, 1]), answered(query(), &worlds, &[1, 0]));
    }

    #[test]
    fn labels_values_and_series_are_listed(worlds in worlds()) {
        let ask = |want, selectors: &[&str]| {
            answered(Query::streams(want, selectors, 0, 40).unwrap(), &worlds, &[0, 1])
        };
        let all = all(&worlds);
        let mut names: Vec<String> =
            all.iter().flat_map(|r| r.labels.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()).collect();
        names.retain(|name| name != "__own__");
        names.sort();
        names.dedup();
        prop_assert_eq!(ask(StreamsWant::Names, &[]), Outcome::Texts(names));
        let mut values: Vec<String> = all.iter().map(|r| r.labels.get("app").unwrap_or("").to_owned()).collect();
        values.retain(|value| value != "b");
        values.sort();
        values.dedup();
        prop_assert_eq!(ask(StreamsWant::Values("app".into()), &["{app!=`b`}"]), Outcome::Texts(values));
        let Outcome::Series(series) = ask(StreamsWant::Series, &["{app=`a`}", "{app=`b`}"]) else { panic!("series") };
        prop_assert!(series.iter().all(|labels| labels.get("app") != Some("ab") && labels.get("__own__").is_none()));
    }

    #[test]
    fn arbitrary_bytes_are_no_request_and_no_partial(mut bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = ShardRequest::decode(&bytes);
        let _ = Partial::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 2;
        }
        let _ = ShardRequest::decode(&bytes);
        let _ = Partial::decode(&bytes);
    }
}

#[test]
fn another_tenant_sees_nothing() {
    let sent = Sent { shard: 0, stream: 0, timestamp: 1, line: "x".into(), level: None, seal: false };
    let world = world(0, &[vec![sent.clone()], vec![Sent { seal: true, ..sent }]]);
    let query = OffsetQuery { logs: None, from: None, limit: 10 };
    let request = |tenant: &str| ShardRequest { tenant: Some(tenant.into()), ..offsets(query.clone()) };
    let found = |tenant| match scanned(&request(tenant), &world.view).found {
        Found::Records(found) => found.records.len(),
        Found::Counts(_) | Found::Folds(_) | Found::Texts(_) | Found::Series(_) | Found::Overview(_) => {
            panic!("records")
        }
    };
    assert_eq!((found("t"), found("other")), (2, 0));
}

#[test]
fn long_lines_end_a_part_before_one_message_is_full() {
    let line = "x".repeat(crate::limits::LINE_BYTES_MAX);
    let sent = |timestamp| Sent { shard: 0, stream: 0, timestamp, line: line.clone(), level: None, seal: false };
    let world = world(0, &(0..40).map(|timestamp| vec![sent(timestamp)]).collect::<Vec<_>>());
    let parameters = RangeParameters { end: 100, limit: Some(30), ..Default::default() };
    let query = Query::range("{app=`a`}", parameters).unwrap();
    let part = scanned(&query.requests("t")[0], &world.view);
    assert!(matches!(part.found, Found::Records(found) if !found.complete && found.records.len() < 20));
    let Outcome::Records(found) = answered(query, &[world], &[0]) else { panic!("records") };
    assert!(found.iter().map(|record| record.timestamp).eq((10..40).rev()));
}

#[test]
fn a_damaged_block_is_never_served() {
    let sent = Sent { shard: 0, stream: 0, timestamp: 1, line: "x".into(), level: None, seal: true };
    let disk = LossyDisk::new(1);
    let World { view, .. } = world_on(&disk, 0, &[vec![sent]]);
    assert!(disk.flip_bit(view.segments[0].path(), 60, 3));
    let mut scan = Scan::new(&offsets(OffsetQuery { logs: None, from: None, limit: 10 }), &view).unwrap();
    let error = scan.step().unwrap_err();
    assert!(
        matches!(&error, QueryError::Damaged { shard: ShardId(0), range: Some(range), .. } if range.last.0 == 0),
        "{error}"
    );
    assert!(error.to_string().contains("data_loss in shard-0, offsets 0 to 0, times 1 to 1"), "{error}");
}

#[test]
fn a_segment_that_cannot_be_opened_fails_what_needs_it_and_nothing_else() {
    let sent = |timestamp, seal| Sent { shard: 0, stream: 0, timestamp, line: "x".into(), level: None, seal };
    let World { mut view, .. } = world(0, &[vec![sent(10, true)], vec![sent(20, false)]]);
    let segment = &view.segments[0];
    view.segments[0] = Arc::new(Segment::lost(ShardId(0), segment.meta(), "gone"));
    let first = |start, end| {
        let parameters = RangeParameters { start, end, ..Default::default() };
        let query = Query::range("{app=`a`}", parameters).unwrap();
        let mut scan = Scan::new(&query.requests("t")[0], &view).unwrap();
        while scan.step()? {}
        Ok(scan.finish().seen.records)
    };
    assert_eq!(first(15, 100), Ok(1));
    let lost = first(5, 100).unwrap_err();
    assert!(matches!(&lost, QueryError::Damaged { range: Some(range), .. } if range.earliest == 10), "{lost}");
    let listed = Want::Streams(StreamsQuery { want: StreamsWant::Series, selectors: Vec::new(), start: 0, end: 100 });
    let mut scan = Scan::new(&ShardRequest { tenant: None, want: listed, hidden: Vec::new() }, &view).unwrap();
    assert!(matches!(scan.step(), Err(QueryError::Damaged { .. })));
}

#[test]
fn a_scan_that_is_stopped_ends_at_the_next_record() {
    let sent =
        |timestamp| Sent { shard: 0, stream: 0, timestamp, line: "n=1".into(), level: None, seal: timestamp == 29 };
    let World { view, .. } = world(0, &[(0..30).map(sent).collect()]);
    let parameters = RangeParameters { end: 100, step: Some(10), ..Default::default() };
    for text in [
        "{app=`a`} | logfmt | n > 0",
        "count_over_time({app=`a`} | logfmt | n > 0 [9ns])",
        "sum_over_time({app=`a`} | logfmt | unwrap n [9ns])",
    ] {
        let query = Query::range(text, parameters).unwrap();
        let mut scan = Scan::new(&query.requests("t")[0], &view).unwrap();
        let asked = std::cell::Cell::new(0);
        let stopped = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        assert_eq!(scan.step_unless(&stopped), Err(QueryError::Cancelled), "{text}");
        assert_eq!(asked.get(), 4, "{text}: three of thirty records were worked on");
    }
}

#[test]
fn a_record_that_its_pipeline_cannot_process_fails_a_metric_query() {
    let sent = Sent { shard: 0, stream: 0, timestamp: 1, line: "n=z".into(), level: None, seal: false };
    let World { view, .. } = world(0, &[vec![sent]]);
    let found = |text: &str| {
        let query = Query::instant(text, 5).unwrap();
        let mut scan = Scan::new(&query.requests("t")[0], &view)?;
        while scan.step()? {}
        Ok(scan.finish().found)
    };
    let error: QueryError = found("sum(sum_over_time({app=`a`} | logfmt | unwrap n [9ns]))").unwrap_err();
    assert!(matches!(&error, QueryError::Pipeline { error, .. } if error == "SampleExtractionErr"), "{error}");
    assert!(error.to_string().starts_with("pipeline error: 'SampleExtractionErr' for series: '{__error__=\"Sample"));
    let error: QueryError = found("count_over_time({app=`a`} | json [9ns])").unwrap_err();
    assert!(matches!(&error, QueryError::Pipeline { error, .. } if error == "JSONParserErr"), "{error}");
    let none = found("sum_over_time({app=`a`} | logfmt | unwrap n | __error__=`` [9ns])");
    assert_eq!(none, Ok(Found::Folds(Vec::new())));
}

#[test]
fn a_query_of_constants_asks_no_shard() {
    let query = Query::instant("vector(1)+vector(1)", 5).unwrap();
    assert!(query.requests("t").is_empty());
    assert!(matches!(query, Query::Metric(ref query) if matches!(query.expr, MetricExpr::Binary { .. })));
    assert_eq!(answered(query, &[], &[]), Outcome::Vector(5, vec![(Labels::new::<&str, &str>([]), 2.0)]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn volume_from_summaries_and_from_rows_is_that_of_a_plain_walk(
        worlds in worlds(),
        selector in 0..SELECTORS.len(),
        (start, length) in (0_i64..40, 1_i64..40),
        step in 1_i64..50,
        swapped in any::<bool>(),
    ) {
        let order = if swapped { [1, 0] } else { [0, 1] };
        let end = start + length;
        let mut expected = all(&worlds);
        expected.retain(|record| {
            record.timestamp >= start && record.timestamp < end && (SELECTORS[selector].1)(&record.labels)
        });
        let bytes = |record: &AnswerRecord| {
            record.line.len() + record.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let stats = answered(Query::stats(SELECTORS[selector].0, start, end).unwrap(), &worlds, &order);
        let Outcome::Overview(Overviewed::Stats { streams, entries, bytes: sum, .. }) = stats else { panic!("stats") };
        prop_assert_eq!(entries, expected.len() as u64);
        prop_assert_eq!(sum, expected.iter().map(bytes).sum::<usize>() as u64);
        let mut labels: Vec<Labels> = expected.iter().map(|record| record.labels.clone()).collect();
        labels.sort();
        labels.dedup();
        // A block that is not read may hold several streams of which not all have a record in the range: it lies within.
        prop_assert_eq!(streams, labels.len());

        let parameters = VolumeParameters { start, end, step: Some(step), ranged: true, target: Some("app"), ..Default::default() };
        let mut found = matrix(answered(Query::volume(SELECTORS[selector].0, parameters).unwrap(), &worlds, &order));
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut sums: std::collections::BTreeMap<Labels, std::collections::BTreeMap<u32, f64>> = Default::default();
        for record in expected.iter().filter(|record| record.labels.get("app").is_some()) {
            let series = Labels::new([("app", record.labels.get("app").unwrap())]);
            let bucket = u32::try_from((record.timestamp - start) / step).unwrap();
            *sums.entry(series).or_default().entry(bucket).or_default() += bytes(record) as f64;
        }
        let sums: Vec<(Labels, Vec<(u32, f64)>)> =
            sums.into_iter().map(|(labels, points)| (labels, points.into_iter().collect())).collect();
        prop_assert_eq!(found, sums);
    }

    #[test]
    fn every_record_is_counted_for_one_pattern_of_its_level(worlds in worlds(), (start, length) in (0_i64..40, 0_i64..40)) {
        let end = start + length;
        let outcome = answered(Query::patterns("{app=~`.+`}", start, end, None).unwrap(), &worlds, &[0, 1]);
        let Outcome::Overview(Overviewed::Patterns(_, patterns)) = outcome else { panic!("patterns") };
        let mut expected: std::collections::BTreeMap<String, u64> = Default::default();
        for record in all(&worlds) {
            let in_range = record.timestamp >= start && record.timestamp < end;
            if in_range && record.labels.get("app").is_some() && !record.line.trim().is_empty() {
                let level = record.metadata.iter().find(|(name, _)| name == "detected_level");
                *expected.entry(level.map(|(_, level)| level.clone()).unwrap_or_default()).or_default() += 1;
            }
        }
        let mut found: std::collections::BTreeMap<String, u64> = Default::default();
        for pattern in patterns {
            *found.entry(pattern.level).or_default() += pattern.samples.iter().map(|(_, count)| count).sum::<u64>();
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn fields_are_those_of_the_newest_records(worlds in worlds(), line_limit in 1_u64..9) {
        let parameters = FieldParameters { start: 0, end: 100, line_limit: Some(line_limit), limit: None };
        let query = Query::detected_fields("{app=~`.+`}", None, parameters).unwrap();
        let Outcome::Overview(Overviewed::Fields(fields, 1_000)) = answered(query, &worlds, &[1, 0]) else { panic!("fields") };
        let mut expected: std::collections::BTreeMap<String, std::collections::BTreeSet<String>> = Default::default();
        for world in &worlds {
            let mut newest: Vec<&AnswerRecord> = world.all.iter().filter(|record| record.labels.get("app").is_some()).collect();
            newest.sort_by_key(|record| std::cmp::Reverse((record.timestamp, record.offset)));
            for record in newest.into_iter().take(usize::try_from(line_limit).unwrap()) {
                for (name, value) in &record.metadata {
                    let collides = record.labels.get(name).is_some();
                    let name = if collides { format!("{name}_extracted") } else { name.clone() };
                    expected.entry(name).or_default().insert(value.clone());
                }
            }
        }
        let found: Vec<(String, usize)> = fields.into_iter().map(|field| (field.label, field.cardinality)).collect();
        let expected: Vec<(String, usize)> = expected.into_iter().map(|(name, values)| (name, values.len())).collect();
        prop_assert_eq!(found, expected);
    }
}
