//! The active streams of a shard, so that a tenant cannot make more than its bound.
//!
//! Stored form, an entry after the other in the order of tenant and labels: u64 shard time in milliseconds when a
//! record last came, then the stream as `crate::record::Stream` writes it; little-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{ShardError, ShardOptions};
use crate::block::rows::Stream;
use crate::label::Labels;
use crate::limits::{SNAPSHOT_VALUE_BYTES_MAX, TENANTS_PER_SHARD_MAX};

#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    tenants: BTreeMap<Arc<str>, BTreeMap<Labels, u64>>,
}

impl Streams {
    /// Notes that records of these streams of one tenant came; `false` where that would exceed a bound, and nothing
    /// is noted. Only at the bound are streams forgotten that had no record for `stream_life`.
    pub(super) fn admit(&mut self, streams: &[Stream], time: u64, options: &ShardOptions) -> bool {
        let Some(tenant) = streams.first().map(|stream| &stream.tenant) else { return true };
        if !self.tenants.contains_key(tenant) && self.tenants.len() >= TENANTS_PER_SHARD_MAX {
            self.tenants.retain(|_, known| {
                forget_idle(known, time, options);
                !known.is_empty()
            });
            if self.tenants.len() >= TENANTS_PER_SHARD_MAX {
                return false;
            }
        }
        let mut none = BTreeMap::new();
        let known = self.tenants.get_mut(tenant).unwrap_or(&mut none);
        let fits = |known: &BTreeMap<Labels, u64>| {
            let new = streams.iter().filter(|stream| !known.contains_key(&stream.labels)).count();
            known.len() + new <= options.streams_per_tenant
        };
        if !fits(known) {
            forget_idle(known, time, options);
            if !fits(known) {
                return false;
            }
        }
        let known = self.tenants.entry(tenant.clone()).or_default();
        for stream in streams {
            match known.get_mut(&stream.labels) {
                Some(seen) => *seen = time,
                None => {
                    known.insert(stream.labels.clone(), time);
                }
            }
        }
        true
    }

    /// The same streams, as the table holds them: a head of many batches then holds each label once.
    pub(super) fn known(&self, streams: &[Stream]) -> Vec<Stream> {
        let known = |stream: &Stream| {
            let (tenant, of_tenant) = self.tenants.get_key_value(&stream.tenant)?;
            let (labels, _) = of_tenant.get_key_value(&stream.labels)?;
            Some(Stream { tenant: tenant.clone(), labels: labels.clone() })
        };
        streams.iter().map(|stream| known(stream).unwrap_or_else(|| stream.clone())).collect()
    }

    pub(super) fn encode(&self) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let (mut piece, mut entry) = (Vec::new(), Vec::new());
        for (tenant, known) in &self.tenants {
            for (labels, seen) in known {
                entry.clear();
                entry.extend_from_slice(&seen.to_le_bytes());
                Stream { tenant: tenant.clone(), labels: labels.clone() }.encode_to(&mut entry);
                if !piece.is_empty() && piece.len() + entry.len() > SNAPSHOT_VALUE_BYTES_MAX {
                    pieces.push(Bytes::from(std::mem::take(&mut piece)));
                }
                piece.extend_from_slice(&entry);
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.into());
        }
        pieces
    }

    pub(super) fn decode(pieces: &[Bytes]) -> Result<Self, ShardError> {
        let malformed = || ShardError::Snapshot { part: "streams" };
        let mut streams = Self::default();
        for piece in pieces {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                let (seen, after) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
                rest = after;
                let stream = Stream::decode_from(&mut rest).ok_or_else(malformed)?;
                let known = streams.tenants.entry(stream.tenant).or_default();
                known.insert(stream.labels, u64::from_le_bytes(*seen));
            }
        }
        Ok(streams)
    }
}

fn forget_idle(known: &mut BTreeMap<Labels, u64>, time: u64, options: &ShardOptions) {
    known.retain(|_, seen| *seen >= time.saturating_sub(options.stream_life));
}
