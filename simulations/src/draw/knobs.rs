//! The knobs of a case. A value is often at an end of its range, often near what users run, and anywhere between.
//!
//! Ranges keep to what `millpond::limits` asserts of the same names: an appended group fits a segment of the WAL twice, a
//! credit holds two frames, a leader's heartbeats come twice within an election. Load is bounded, so that a run stays
//! short: fast clients send little, and large requests are rare.

use millpond::limits;

use super::Dice;
use crate::case::{Asking, Knobs};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Least bytes of a link's credit: the link's own bound for one frame.
const CREDIT_BYTES_MIN: u64 = 2 * (limits::FRAME_BYTES_MAX + limits::FRAME_OVERHEAD_BYTES) as u64;
/// Requests that all clients together send in a second, were they answered at once.
const REQUESTS_PER_SECOND_MAX: u64 = 200;
/// Raw bytes that they send in a second, likewise.
const BYTES_PER_SECOND_MAX: u64 = MIB;

pub(super) fn draw(dice: &mut Dice) -> Knobs {
    let election_ticks = dice.edgy(5, 12, limits::ELECTION_TICKS as u64);
    let wal_segment_bytes = dice.edgy(256 * KIB, 4 * MIB, limits::WAL_SEGMENT_BYTES);
    let load = Load::draw(dice);
    Knobs {
        shards: narrow(dice.between(1, 4)),
        election_ticks: narrow(election_ticks),
        heartbeat_ticks: narrow(dice.edgy(1, (election_ticks - 1) / 2, limits::HEARTBEAT_TICKS as u64)),
        append_bytes_max: dice.edgy(KIB, 512 * KIB, limits::APPEND_BYTES_MAX),
        inflight_appends_max: narrow(dice.edgy(1, 64, limits::INFLIGHT_APPENDS_MAX as u64)),
        apply_bytes_max: dice.edgy(KIB, 2 * MIB, limits::APPLY_BYTES_MAX),
        part_bytes: narrow(dice.edgy(200, 8 * KIB, limits::BATCH_RAW_BYTES_MAX as u64)),
        entry_bytes: narrow(dice.edgy(512, wal_segment_bytes / 2, limits::ENTRY_BYTES_MAX as u64).min(512 * KIB)),
        entries_in_flight: narrow(dice.between(1, 4)),
        group_bytes: narrow(dice.edgy(KIB, wal_segment_bytes / 2 - 1, limits::WAL_GROUP_BYTES_MAX as u64)),
        wal_segment_bytes,
        head_bytes_max: dice.edgy(4 * KIB, MIB, limits::HEAD_BYTES_MAX as u64),
        head_age_ms: dice.edgy(2_000, 60_000, limits::HEAD_AGE_MAX.as_millis() as u64),
        link_credit_bytes: narrow(dice.edgy(CREDIT_BYTES_MIN, MIB, limits::LINK_CREDIT_BYTES as u64)),
        restart_intensity: narrow(dice.between(1, 5)),
        down_ms: dice.edgy(2_000, 15_000, 15_000),
        workers: narrow(dice.between(1, 3)),
        latency_us: range(dice, (50, 2_000), 20_000),
        disk_us: range(dice, (50, 1_000), 10_000),
        skew_ms: if dice.one_in(3) { 0 } else { dice.scaled(1, 5_000) },
        clients: load.clients,
        streams: load.streams,
        request_bytes: load.request_bytes,
        pause_ms: load.pause_ms,
        asking: None,
    }
}

/// How often clients ask in LogQL.
pub(super) fn asking(dice: &mut Dice) -> Asking {
    Asking { pause_ms: dice.edgy(300, 4_000, 1_000), at_rest: narrow(dice.between(10, 14)) }
}

/// What the clients do.
struct Load {
    clients: u32,
    streams: u32,
    request_bytes: usize,
    pause_ms: u64,
}

impl Load {
    fn draw(dice: &mut Dice) -> Self {
        let clients = dice.between(1, 4);
        let request_bytes = if dice.one_in(12) { 64 * KIB } else { dice.edgy(100, 8 * KIB, KIB) };
        let by_count = (clients * 1_000).div_ceil(REQUESTS_PER_SECOND_MAX);
        let by_bytes = (clients * request_bytes * 1_000).div_ceil(BYTES_PER_SECOND_MAX);
        let least = by_count.max(by_bytes).max(5);
        Self {
            clients: narrow(clients),
            streams: narrow(dice.between(1, 4)),
            request_bytes: narrow(request_bytes),
            pause_ms: dice.edgy(least, least.max(200), 50),
        }
    }
}

/// The shortest and the longest time of something: often the same, often far apart.
fn range(dice: &mut Dice, shortest: (u64, u64), longest: u64) -> (u64, u64) {
    let from = dice.scaled(shortest.0, shortest.1);
    (from, dice.edgy(from, longest, from))
}

fn narrow<T: TryFrom<u64, Error: std::fmt::Debug>>(number: u64) -> T {
    T::try_from(number).expect("every range above is narrow enough")
}
