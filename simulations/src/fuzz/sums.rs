//! Makes checksums right again in bytes that were damaged, so that what is behind them is read. The formats are those
//! that `storage`, `block`, `shard` and `backup` describe; whatever does not look like them is left alone.

use millpond::entry::SegmentMeta;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::pen::Pen;

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(into) = bytes.get_mut(at..at + what.len()) {
        into.copy_from_slice(what);
    }
}

/// A file of the log: its header, and its records as far as they follow on each other.
pub(super) fn log(bytes: &mut [u8]) {
    const RECORDS_AT: usize = 512;
    const RECORD: usize = 48;
    if bytes.len() < RECORDS_AT {
        return;
    }
    let sum = crc32c::crc32c(&bytes[..64]).to_le_bytes();
    put(bytes, 64, &sum);
    let mut chain = crc32c::crc32c_append(crc32c::crc32c(&bytes[24..32]), &bytes[16..24]);
    let mut at = RECORDS_AT;
    while let Some(length) = u32_at(bytes, at + 4) {
        let end = at + RECORD + length;
        // Behind the last record lie zeros, or what an earlier use of the file left.
        if end > bytes.len() || bytes[at + 8..at + 16] != bytes[16..24] {
            return;
        }
        chain = crc32c::crc32c_append(chain, &bytes[at + 4..end]);
        put(bytes, at, &chain.to_le_bytes());
        at = end;
    }
}

const BLOCK_HEAD: usize = 64;
const BLOCK_ENTRY: usize = 16;

/// Where the directory of a block ends.
fn directory_end(bytes: &[u8]) -> Option<usize> {
    let frames = usize::from(u16::from_le_bytes(*bytes.get(6..)?.first_chunk()?));
    Some(BLOCK_HEAD + frames * BLOCK_ENTRY).filter(|end| *end <= bytes.len())
}

/// A block: every frame, then its header.
pub(super) fn block(bytes: &mut [u8]) {
    let Some(end) = directory_end(bytes) else { return };
    let mut data = end;
    for entry in (BLOCK_HEAD..end).step_by(BLOCK_ENTRY) {
        let stored = u32_at(bytes, entry + 4).unwrap_or(0);
        let Some(frame) = bytes.get(data..data.saturating_add(stored)) else { break };
        let sum = crc32c::crc32c(frame).to_le_bytes();
        put(bytes, entry + 12, &sum);
        data += stored;
    }
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..60]), &bytes[BLOCK_HEAD..end]);
    put(bytes, 60, &sum.to_le_bytes());
}

/// Damages what is in one of a block's frames, which is then stored as it is, under right sums.
pub(super) fn rewrite_column(pen: &mut Pen, bytes: &mut Vec<u8>) {
    let Some(end) = directory_end(bytes).filter(|end| *end > BLOCK_HEAD) else { return };
    let frame = pen.below((end - BLOCK_HEAD) / BLOCK_ENTRY);
    let entry = |frame: usize| BLOCK_HEAD + frame * BLOCK_ENTRY;
    let at = end + (0..frame).filter_map(|frame| u32_at(bytes, entry(frame) + 4)).sum::<usize>();
    let (Some(stored), Some(raw)) = (u32_at(bytes, entry(frame) + 4), u32_at(bytes, entry(frame) + 8)) else { return };
    let Some(content) = bytes.get(at..at + stored) else { return };
    let mut content = if bytes[entry(frame) + 1] == 1 {
        zstd::bulk::decompress(content, raw).unwrap_or_default()
    } else {
        content.to_vec()
    };
    pen.damage(&mut content, &[], &[]);
    let len = u32::try_from(content.len()).expect("damage keeps it short").to_le_bytes();
    put(bytes, entry(frame) + 1, &[0]);
    put(bytes, entry(frame) + 4, &len);
    put(bytes, entry(frame) + 8, &len);
    bytes.splice(at..at + stored, content);
    let whole = u32::try_from(bytes.len()).expect("damage keeps it short").to_le_bytes();
    put(bytes, 56, &whole);
    block(bytes);
}

const SEGMENT_HEAD: usize = 16;
const SEGMENT_FOOT: usize = 56;

/// The index of a segment, as its foot says.
fn index(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let foot = bytes.len().checked_sub(SEGMENT_FOOT)?;
    let (at, len) = (u64_at(bytes, foot)?, u64_at(bytes, foot + 8)?);
    Some(at..at.checked_add(len)?).filter(|range| range.start >= SEGMENT_HEAD && range.end <= foot)
}

/// Damages the index of a segment in place.
pub(super) fn damage_index(pen: &mut Pen, bytes: &mut [u8]) {
    let Some(range) = index(bytes).filter(|range| !range.is_empty()) else { return };
    for _ in 0..1 + pen.below(3) {
        let at = range.start + pen.below(range.len());
        let width = (1 << pen.below(4)).min(range.end - at);
        let number = pen.number().to_le_bytes();
        put(bytes, at, &number[..width]);
    }
}

/// A segment and what its manifest says of it.
pub(super) fn segment(bytes: &mut [u8], meta: &mut SegmentMeta) {
    if bytes.len() < SEGMENT_HEAD + SEGMENT_FOOT {
        return;
    }
    let sum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    put(bytes, 12, &sum);
    let foot = bytes.len() - SEGMENT_FOOT;
    if let Some(range) = index(bytes) {
        mend_blocks(bytes, range.clone());
        let mut hash = Xxh3::new();
        for part in [&bytes[..SEGMENT_HEAD], &bytes[range], &bytes[foot..foot + 32]] {
            hash.update(part);
        }
        put(bytes, foot + 32, &hash.digest128().to_le_bytes());
    }
    meta.digest = bytes[foot + 16..foot + 32].first_chunk().map_or(0, |digest| u128::from_le_bytes(*digest));
    (meta.bytes, meta.hash) = (bytes.len() as u64, xxh3_128(bytes));
}

/// The sum of the first block, which is the only one of a small segment.
fn mend_blocks(bytes: &mut [u8], index: std::ops::Range<usize>) {
    let Some(blocks) = streams_end(bytes, index.start).filter(|at| at + 28 <= index.end) else { return };
    let (Some(at), Some(len)) = (u64_at(bytes, blocks + 4), u32_at(bytes, blocks + 12)) else { return };
    if let Some(block) = at.checked_add(len).and_then(|end| bytes.get(at..end)) {
        let sum = xxh3_64(block).to_le_bytes();
        put(bytes, blocks + 16, &sum);
    }
}

/// Where the streams of an index end.
fn streams_end(bytes: &[u8], start: usize) -> Option<usize> {
    let streams = u32_at(bytes, start)?;
    let mut at = start + 4;
    let text = |at: &mut usize| -> Option<()> {
        *at = at.checked_add(4 + u32_at(bytes, *at)?)?;
        Some(())
    };
    for _ in 0..streams {
        text(&mut at)?;
        let labels = u32_at(bytes, at)?;
        at += 4;
        for _ in 0..labels.checked_mul(2)? {
            text(&mut at)?;
        }
    }
    Some(at)
}

/// The payload of a shard's entry.
pub(super) fn command(bytes: &mut [u8]) {
    if bytes.len() >= 16 {
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[16..]);
        put(bytes, 4, &sum.to_le_bytes());
    }
}

/// The first line of a backup's manifest.
pub(super) fn manifest(bytes: &mut Vec<u8>) {
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let body = bytes[line + 1..].strip_suffix(b"\n").unwrap_or(&bytes[line + 1..]);
    let head = format!("{{\"millpond_backup\":1,\"bytes\":{},\"xxh3_128\":\"{:032x}\"}}", body.len(), xxh3_128(body));
    bytes.splice(..line, head.into_bytes());
}
