use bytes::Bytes;
use proptest::prelude::*;

use super::l0::{self, L0};
use super::l1::{self, L1};
use super::rows::{Projection, Rows, Stream};
use crate::label::Labels;
use crate::record::{Record, StreamRecords, Text};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z0-9 =]{1,40}",
        "\\PC{0,20}",
        Just("x".repeat(5_000)),
        // Few templates, so that many rows share one.
        "took [0-9]{1,3} at 0[0-9]{2}: \"[a-c/ \0\u{1}]{0,3}\" x[0-9a-f]{1,8}\\.",
        "at [0-9]{18} [a-c]1",
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let time = prop_oneof![Just(7_i64), any::<i64>(), 1_700_000_000_000_000_000..1_700_000_001_000_000_000_i64];
    let metadata = prop::collection::vec(("[a-c]{1,2}", text()), 0..3);
    (time, text(), metadata).prop_map(|(timestamp, line, metadata)| Record {
        timestamp,
        line: line.into(),
        metadata: metadata.into_iter().map(|(name, value)| (Text::from(name), Text::from(value))).collect(),
    })
}

fn streams() -> impl Strategy<Value = Vec<StreamRecords>> {
    let labels = prop::collection::vec(("[a-d]", "[x-z]{0,2}"), 0..3).prop_map(Labels::new);
    let stream = (labels, prop::collection::vec(record(), 0..12))
        .prop_map(|(labels, records)| StreamRecords { labels, records });
    prop::collection::vec(stream, 1..5)
        .prop_filter("a batch holds a record", |streams| streams.iter().any(|stream| !stream.records.is_empty()))
}

type Flat = (String, Labels, u64, Record);

fn flat(streams: &[StreamRecords], base: u64) -> Vec<Flat> {
    let records = streams.iter().flat_map(|s| s.records.iter().map(|record| (s.labels.clone(), record.clone())));
    records.zip(base..).map(|((labels, record), offset)| ("acme".to_owned(), labels, offset, record)).collect()
}

fn read(rows: &Rows) -> Vec<Flat> {
    let record = |row| Record {
        timestamp: rows.timestamp(row),
        line: rows.line(row).into(),
        metadata: rows.metadata(row).map(|(name, value)| (name.into(), value.into())).collect(),
    };
    (0..rows.len())
        .map(|row| (rows.tenant(row).to_owned(), rows.stream(row).clone(), rows.offset(row), record(row)))
        .collect()
}

fn seal(mut records: Vec<Flat>) -> (Vec<Flat>, Bytes) {
    records.sort_by(|a, b| (&a.0, &a.1, a.3.timestamp, a.2).cmp(&(&b.0, &b.1, b.3.timestamp, b.2)));
    let mut encoder = l1::Encoder::new();
    for (tenant, labels, offset, record) in &records {
        let stream = Stream { tenant: tenant.as_str().into(), labels: labels.clone() };
        let metadata = record.metadata.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        encoder.push(&stream, *offset, record.timestamp, record.line.as_bytes(), metadata);
    }
    (records, encoder.finish())
}

fn read_l0(bytes: Bytes) -> Result<Vec<Flat>, super::BlockError> {
    Ok(read(&L0::open(bytes)?.rows(9, Projection::ALL)?))
}

fn read_l1(bytes: Bytes) -> Result<Vec<Flat>, super::BlockError> {
    Ok(read(&L1::open(bytes)?.rows(Projection::ALL)?))
}

fn flipped(bytes: &Bytes, bit: usize) -> Bytes {
    let mut damaged = bytes.to_vec();
    let bit = bit % (damaged.len() * 8);
    damaged[bit / 8] ^= 1 << (bit % 8);
    damaged.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_batch_decodes_to_what_was_sent_in_its_order(streams in streams()) {
        let bytes = l0::Encoder::new().encode("acme", &streams);
        let batch = L0::open(bytes.clone()).unwrap();
        let expected = flat(&streams, 9);
        let summary = batch.summary(9);
        prop_assert_eq!(summary.rows, expected.len() as u64);
        prop_assert_eq!((summary.first_offset, summary.last_offset), (9, 8 + expected.len() as u64));
        prop_assert_eq!(summary.min_timestamp, expected.iter().map(|r| r.3.timestamp).min().unwrap());
        prop_assert_eq!(summary.max_timestamp, expected.iter().map(|r| r.3.timestamp).max().unwrap());
        prop_assert_eq!(read_l0(bytes).unwrap(), expected);
    }

    #[test]
    fn a_sealed_block_decodes_to_its_records_sorted(streams in streams()) {
        let (sorted, bytes) = seal(flat(&streams, 3));
        let block = L1::open(bytes.clone()).unwrap();
        prop_assert_eq!(block.summary().rows, sorted.len() as u64);
        let times = block.rows(Projection::default()).unwrap();
        prop_assert_eq!(times.timestamps(), sorted.iter().map(|r| r.3.timestamp).collect::<Vec<_>>());
        prop_assert_eq!(read_l1(bytes).unwrap(), sorted);
    }

    #[test]
    fn a_flipped_bit_is_never_served(streams in streams(), bits in prop::collection::vec(any::<usize>(), 64)) {
        let batch = l0::Encoder::new().encode("acme", &streams);
        let (_, block) = seal(flat(&streams, 3));
        for bit in bits {
            prop_assert!(read_l0(flipped(&batch, bit)).is_err());
            prop_assert!(read_l1(flipped(&block, bit)).is_err());
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_an_error(streams in streams(), at in any::<prop::sample::Index>()) {
        let batch = l0::Encoder::new().encode("acme", &streams);
        prop_assert!(read_l0(batch.slice(..at.index(batch.len()))).is_err());
        let mut longer = batch.to_vec();
        longer.push(0);
        prop_assert!(read_l0(longer.into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_l0(bytes.clone().into()).is_err());
        prop_assert!(read_l1(bytes.into()).is_err());
    }

    #[test]
    fn columns_that_are_wrong_under_right_checksums_are_an_error_or_rows(
        streams in streams(),
        column in 0_usize..super::frame::COLUMNS,
        content in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60),
        alike in 0_usize..5,
    ) {
        let streams: Vec<StreamRecords> = (0..=alike).flat_map(|_| streams.clone()).collect();
        let (sorted, block) = seal(flat(&streams, 3));
        // No panic is the property: a writer's fault can be any content.
        let block = super::frame::replace_column(block, 1, column, &content);
        let _ = read_l1(block.clone());
        if let Ok(lines) = L1::open(block).and_then(|block| block.lines()) {
            for text in ["", "1", "a1 2", "x=", "\"", "\0"] {
                lines.retain(&memchr::memmem::Finder::new(text), true, &mut (0..sorted.len() as u32).collect());
            }
        }
    }
}

#[test]
fn lines_beyond_one_frame_round_trip() {
    let records = (0..40_u32).map(|at| Record {
        timestamp: i64::from(at),
        line: format!("{at} é").repeat(20_000).into(),
        metadata: Vec::new(),
    });
    let streams = [StreamRecords { labels: Labels::new([("a", "b")]), records: records.collect() }];
    let bytes = l0::Encoder::new().encode("acme", &streams);
    assert_eq!(read_l0(bytes).unwrap(), flat(&streams, 9));
}

fn small_batch() -> Bytes {
    let streams = [StreamRecords {
        labels: Labels::new([("a", "b")]),
        records: vec![Record { timestamp: 1, line: "x".into(), metadata: Vec::new() }],
    }];
    l0::Encoder::new().encode("acme", &streams)
}

#[test]
fn a_newer_version_asks_for_an_upgrade() {
    let error = L0::open(super::frame::with_head(small_batch(), 4, &[3])).unwrap_err();
    assert_eq!(error, super::BlockError::Version { found: 3, known: 2 });
    assert_eq!(error.class(), crate::class::Class::Fatal);
}

#[test]
fn a_block_that_tells_of_more_bytes_than_its_records_can_have_is_refused() {
    let most = crate::limits::BATCH_RAW_BYTES_MAX as u64;
    let told = |raw: u64| L0::open(super::frame::with_head(small_batch(), 48, &raw.to_le_bytes()));
    assert_eq!(told(most).unwrap().summary(0).raw_bytes, most);
    assert_eq!(told(most + 1).unwrap_err(), super::BlockError::Malformed { part: "raw bytes" });
}

#[test]
fn batches_and_blocks_of_version_1_are_read() {
    let old = super::frame::with_head(small_batch(), 4, &[1]);
    assert_eq!(read_l0(old).unwrap(), read_l0(small_batch()).unwrap());
    let records = (0..9).map(|at| Record {
        timestamp: at,
        line: format!("line {at} of 9").into(),
        metadata: vec![("n".into(), at.to_string().into())],
    });
    let streams = [StreamRecords { labels: Labels::new([("a", "b")]), records: records.collect() }];
    let (sorted, block) = seal(flat(&streams, 3));
    let lines: Vec<&str> = sorted.iter().map(|record| record.3.line.as_str()).collect();
    let old = super::frame::as_version_1(block.clone(), &lines);
    assert_ne!(old, block);
    assert_eq!(read_l1(old.clone()).unwrap(), sorted);
    let mut rows: Vec<u32> = (0..9).collect();
    L1::open(old).unwrap().lines().unwrap().retain(&memchr::memmem::Finder::new("line 4"), true, &mut rows);
    assert_eq!(rows, [4]);
}

#[test]
fn columns_that_stand_for_more_than_a_block_may_hold_are_refused() {
    let record = |at| Record { timestamp: at, line: "took 7".into(), metadata: Vec::new() };
    let streams = [StreamRecords { labels: Labels::new([("a", "b")]), records: (0..1_000).map(record).collect() }];
    let (_, block) = seal(flat(&streams, 3));
    // The one variable has the same value in all rows: now it is one of a MiB.
    let mut shapes = vec![0];
    super::column::put(&mut shapes, 1 << 20);
    shapes.resize(shapes.len() + (1 << 20), b'9');
    let error = read_l1(super::frame::replace_column(block, 1, 13, &shapes)).unwrap_err();
    assert_eq!(error, super::BlockError::Malformed { part: "lines" });
}

#[test]
fn a_batch_has_no_lines_of_the_other_kind() {
    let error = L0::open(super::frame::with_head(small_batch(), 5, &[1])).unwrap_err();
    assert_eq!(error, super::BlockError::NotABlock { kind: 0 });
}

proptest! {
    #[test]
    fn a_text_is_found_in_the_lines_that_hold_it_and_in_no_others(
        kinds in prop::collection::vec("[ab1 .\"/é\u{1}]{0,12}", 1..4),
        chosen in prop::collection::vec((0_usize..4, "[0-9]{1,3}", "[ab12]{1,2}"), 1..60),
        wanted in prop_oneof!["[ab1 .\"/]{0,4}", "[0-9]{1,3}[. ]?[0-9]{0,2}", "a?[0-9] [ab0-9]{1,2}"],
    ) {
        let line = |(kind, number, word): &(usize, String, String)| {
            let kind = &kinds[kind % kinds.len()];
            format!("{kind} {number} {word} \"{kind} {number}\" x.{number}.{word}")
        };
        let lines: Vec<String> = chosen.iter().map(line).collect();
        let mut encoder = l1::Encoder::new();
        let stream = Stream { tenant: "t".into(), labels: Labels::new([("a", "b")]) };
        for (offset, line) in (0..).zip(&lines) {
            encoder.push(&stream, offset, 7, line.as_bytes(), std::iter::empty());
        }
        let found = L1::open(encoder.finish()).unwrap().lines().unwrap();
        for holds in [true, false] {
            let mut rows: Vec<u32> = (0..lines.len() as u32).collect();
            let held: Vec<u32> = rows.iter().copied().filter(|row| lines[*row as usize].contains(&wanted) == holds).collect();
            found.retain(&memchr::memmem::Finder::new(&wanted), holds, &mut rows);
            prop_assert_eq!(rows, held, "{:?}", lines);
        }
    }
}
