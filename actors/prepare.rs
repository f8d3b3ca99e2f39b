//! From a request as it was sent to the parts that shards are asked to store: inflate, decode, judge, split, encode.
//!
//! It runs on a worker thread, holds no state but an encoder's buffers, and is a function of what it is given: a retry
//! gives the same parts. It does not know who leads a shard.

use std::cell::RefCell;

use bytes::Bytes;
use millpond::backup::{BackupError, replay};
use millpond::block::l0::Encoder;
use millpond::id::{Key, ShardId};
use millpond::protocol::{Acceptance, Intake, ProtocolError, Refusals, decode, inflate};
use millpond::record::Record;
use millpond::routing::{KeySource, RequestKey, Strategy, split};
use millpond::shard::SubBatch;
use xxhash_rust::xxh3::xxh3_64;

use crate::ingest::{Content, Submission};

/// A request, ready for its shards.
#[derive(Debug)]
pub struct Prepared {
    /// What each shard is asked to store, ordered by shard, then part. Empty where nothing is to be stored.
    pub parts: Vec<(ShardId, SubBatch)>,
    /// Records in the parts.
    pub accepted: usize,
    /// Bytes of their lines and of the metadata they were sent with.
    pub raw_bytes: usize,
    /// Records that were refused. Unless the request may be stored in part, one refusal leaves no parts.
    pub refusals: Refusals,
}

thread_local! {
    /// Keeps its buffers and its zstd context from one request to the next.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// Prepares a request for so many shards. `acceptance` has the node's clock; `draw` makes the key of a request that cannot be
/// told from another.
///
/// # Errors
/// Where the body cannot be read at all.
pub fn prepare(
    submission: Submission,
    acceptance: &Acceptance,
    shards: u32,
    strategy: Strategy,
    part_bytes_max: usize,
    draw: u64,
) -> Result<Prepared, ProtocolError> {
    let (tenant, kind, encoding, idempotency_key, partial, body) = match submission.content {
        Content::Sent { tenant, kind, encoding, idempotency_key, partial } => {
            (tenant, kind, encoding, idempotency_key, partial, submission.body)
        }
        Content::Restored { key } => return prepare_restored(submission.body, key, shards, strategy, part_bytes_max),
    };
    let body = inflate(kind, encoding, body)?;
    let Intake { streams, refusals, accepted, bytes_accepted, every_record_timed, time_refusals } =
        decode(kind, &body, acceptance)?;
    if !partial && !refusals.is_empty() {
        return Ok(Prepared { parts: Vec::new(), accepted: 0, raw_bytes: 0, refusals });
    }
    let identity = RequestKey::derive(&KeySource {
        tenant: &tenant,
        idempotency_key: idempotency_key.as_deref(),
        body: &body,
        every_record_timed,
        time_refusals,
        draw,
    });
    let parts = split(streams, &tenant, identity.key, shards, strategy, part_bytes_max).into_iter().map(|part| {
        let batch = ENCODER.with_borrow_mut(|encoder| encoder.encode(&tenant, &part.streams));
        (part.shard, SubBatch { key: identity.key, body: identity.body_hash, part: part.part, restored: false, batch })
    });
    Ok(Prepared { parts: parts.collect(), accepted, raw_bytes: bytes_accepted, refusals })
}

/// The same for records of a backup. Their key stands for their content: another version of the encoder gives other
/// bytes, and they are the same records all the same.
fn prepare_restored(
    body: Bytes,
    key: Key,
    shards: u32,
    strategy: Strategy,
    part_bytes_max: usize,
) -> Result<Prepared, ProtocolError> {
    let damaged = |error: BackupError| ProtocolError::Damaged { encoding: "batch", what: error.to_string() };
    let (tenant, streams) = replay::decode(body).map_err(damaged)?;
    let records = || streams.iter().flat_map(|stream| &stream.records);
    let (accepted, raw_bytes) = (records().count(), records().map(Record::raw_bytes).sum());
    let body_hash = xxh3_64(&key.0.to_le_bytes());
    let parts = split(streams, &tenant, key, shards, strategy, part_bytes_max).into_iter().map(|part| {
        let batch = ENCODER.with_borrow_mut(|encoder| encoder.encode(&tenant, &part.streams));
        (part.shard, SubBatch { key, body: body_hash, part: part.part, restored: true, batch })
    });
    Ok(Prepared { parts: parts.collect(), accepted, raw_bytes, refusals: Refusals::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millpond::block::l0::L0;
    use millpond::label::Labels;
    use millpond::limits::{ENTRY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LINE_BYTES_MAX};
    use millpond::protocol::{BodyKind, Encoding};
    use millpond::record::StreamRecords;

    use tokio::sync::Semaphore;

    use super::*;

    const NOW: i64 = 1_795_046_400_000_000_000;

    fn submission(body: String, partial: bool, key: Option<&str>) -> Submission {
        Submission {
            content: Content::Sent {
                tenant: "fake".into(),
                kind: BodyKind::Ndjson,
                encoding: Encoding::Identity,
                idempotency_key: key.map(str::to_owned),
                partial,
            },
            body: body.into(),
            permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap().into(),
        }
    }

    fn prepared(body: &str, partial: bool, key: Option<&str>, draw: u64) -> Prepared {
        prepare(
            submission(body.to_owned(), partial, key),
            &Acceptance { now: NOW, oldest: None },
            4,
            Strategy::Hash,
            millpond::limits::BATCH_RAW_BYTES_MAX,
            draw,
        )
        .unwrap()
    }

    fn lines(count: usize) -> String {
        (0..count).map(|n| format!("{{\"ts\":{n},\"msg\":\"{n}\",\"labels\":{{\"app\":\"{}\"}}}}\n", n % 7)).collect()
    }

    /// Text that no encoder makes smaller.
    fn noise(state: &mut u64, bytes: usize) -> String {
        let mut byte = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + u8::try_from(*state >> 58).expect("six bits"))
        };
        (0..bytes).map(|_| byte()).map(|byte| if byte == '\\' { '-' } else { byte }).collect()
    }

    #[test]
    fn a_retry_gives_the_same_parts() {
        let (first, again) = (prepared(&lines(100), false, None, 1), prepared(&lines(100), false, None, 2));
        assert_eq!((first.accepted, first.parts.len()), (100, 4));
        assert_eq!(first.parts, again.parts);
        let keyed = prepared(&lines(100), false, Some("k"), 1);
        assert_ne!(keyed.parts[0].1.key, first.parts[0].1.key);
        assert_eq!(keyed.parts[0].1.body, first.parts[0].1.body);
    }

    #[test]
    fn lines_without_a_time_are_stored_again_unless_the_client_gave_a_key() {
        let key = |key, draw| prepared("{\"msg\":\"x\"}", false, key, draw).parts[0].1.key;
        assert_ne!(key(None, 1), key(None, 2));
        assert_eq!(key(Some("k"), 1), key(Some("k"), 2));
    }

    #[test]
    fn what_is_restored_keeps_its_time_its_metadata_and_its_order_and_is_judged_by_nobody() {
        let metadata = vec![("detected_level".into(), "none".into()), ("a".into(), String::new().as_str().into())];
        let record = |timestamp| Record { timestamp, line: "".into(), metadata: metadata.clone() };
        let sent: Vec<Record> = [i64::MIN, i64::MAX, 0].map(record).into();
        let streams = [StreamRecords { labels: Labels::new([("app", "x")]), records: sent.clone() }];
        let body = Encoder::new().encode("acme", &streams);
        let restored = |key| {
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap().into();
            let submission = Submission { content: Content::Restored { key: Key(key) }, body: body.clone(), permit };
            let acceptance = Acceptance { now: NOW, oldest: None };
            let bytes = millpond::limits::BATCH_RAW_BYTES_MAX;
            prepare(submission, &acceptance, 4, Strategy::Hash, bytes, key as u64).unwrap()
        };
        let prepared = restored(7);
        assert_eq!((prepared.parts.len(), prepared.accepted), (1, 3));
        let (_, part) = &prepared.parts[0];
        assert!(part.restored && part.key == Key(7));
        let (tenant, streams) = replay::decode(part.batch.clone()).unwrap();
        assert_eq!((&*tenant, &streams[0].records), ("acme", &sent));
        assert_eq!(restored(7).parts, prepared.parts);
        assert_ne!(restored(8).parts[0].1.body, part.body);
    }

    #[test]
    fn one_bad_line_spoils_the_rest_unless_a_part_will_do() {
        let body = format!("{}not json\n", lines(10));
        let whole = prepared(&body, false, None, 1);
        assert_eq!((whole.parts.len(), whole.accepted, whole.refusals.total()), (0, 0, 1));
        let partial = prepared(&body, true, None, 1);
        assert_eq!((partial.parts.len(), partial.accepted, partial.refusals.total()), (4, 10, 1));
    }

    #[test]
    fn a_part_fits_into_an_entry_whatever_it_holds() {
        let mut state = 7;
        let mut body = String::new();
        for n in 0..12 {
            let labels: Vec<String> =
                (0..15).map(|at| format!("\"l{at}\":\"{}\"", noise(&mut state, LABEL_VALUE_BYTES_MAX))).collect();
            let (line, field) = (noise(&mut state, LINE_BYTES_MAX), noise(&mut state, LABEL_VALUE_BYTES_MAX));
            body +=
                &format!("{{\"ts\":{n},\"msg\":\"{line}\",\"f\":\"{field}\",\"labels\":{{{}}}}}\n", labels.join(","));
        }
        for n in 0..40_000 {
            body += &format!("{{\"ts\":{n},\"msg\":\"\",\"{}\":\"\"}}\n", noise(&mut state, 3).to_lowercase());
        }
        let prepared = prepared(&body, true, None, 1);
        assert!(prepared.parts.len() > 12 && prepared.refusals.is_empty(), "{}", prepared.refusals);
        for (_, part) in &prepared.parts {
            let length = part.batch.len();
            assert!(length <= ENTRY_BYTES_MAX, "{length}");
        }
        let rows: u32 = prepared.parts.iter().map(|(_, part)| L0::open(part.batch.clone()).unwrap().len()).sum();
        assert_eq!(rows as usize, prepared.accepted);
    }
}
