//! From a body as it was sent to the bytes a decoder reads: content encodings, and the snappy block of a Loki push.
//!
//! Every path is bounded before it allocates: the result by `REQUEST_INFLATED_BYTES_MAX`, and beyond a free allowance
//! by `REQUEST_RATIO_MAX` times the bytes sent. It does not know what the bytes mean.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::{BodyKind, ProtocolError};
use crate::limits::{
    REQUEST_INFLATED_BYTES_MAX, REQUEST_RATIO_FREE_BYTES, REQUEST_RATIO_MAX, REQUEST_ZSTD_WINDOW_LOG_MAX,
};

/// What `Content-Encoding` says. Snappy says nothing new: a Loki push in protobuf is a snappy block anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The bytes as they are.
    Identity,
    /// One or more gzip members.
    Gzip,
    /// A raw DEFLATE stream, as Loki takes it, or one in a zlib wrapper, as RFC 9110 says.
    Deflate,
    /// One or more zstd frames.
    Zstd,
}

impl Encoding {
    /// Reads the header; absent means identity. One encoding, not a list.
    pub fn from_header(header: Option<&str>) -> Result<Self, ProtocolError> {
        let name = header.unwrap_or("").trim();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if name.is_empty() || is("identity") || is("snappy") => Ok(Self::Identity),
            () if is("gzip") || is("x-gzip") => Ok(Self::Gzip),
            () if is("deflate") => Ok(Self::Deflate),
            () if is("zstd") => Ok(Self::Zstd),
            () => Err(ProtocolError::UnknownEncoding { name: name.chars().take(64).collect() }),
        }
    }
}

/// Undoes the content encoding and, for protobuf, the snappy block.
pub fn inflate(kind: BodyKind, encoding: Encoding, body: Bytes) -> Result<Bytes, ProtocolError> {
    let body = match encoding {
        Encoding::Identity if body.len() > REQUEST_INFLATED_BYTES_MAX => return Err(too_large(body.len())),
        Encoding::Identity => body,
        Encoding::Gzip => gzip(&body)?,
        Encoding::Deflate => deflate(&body)?,
        Encoding::Zstd => zstd(&body)?,
    };
    match kind {
        BodyKind::LokiProtobuf => snappy(&body),
        BodyKind::LokiJson | BodyKind::Ndjson => Ok(body),
    }
}

/// The most that so many bytes may inflate to.
fn bound(sent: usize) -> usize {
    sent.saturating_mul(REQUEST_RATIO_MAX).clamp(REQUEST_RATIO_FREE_BYTES, REQUEST_INFLATED_BYTES_MAX)
}

fn too_large(bound: usize) -> ProtocolError {
    ProtocolError::TooLarge { what: "bytes after decompression", bound: bound.min(REQUEST_INFLATED_BYTES_MAX) }
}

fn damaged(encoding: &'static str, what: impl ToString) -> ProtocolError {
    ProtocolError::Damaged { encoding, what: what.to_string() }
}

fn gzip(body: &[u8]) -> Result<Bytes, ProtocolError> {
    read_bounded(MultiGzDecoder::new(body), body.len(), "gzip")
}

fn zstd(body: &[u8]) -> Result<Bytes, ProtocolError> {
    let bound = bound(body.len());
    if let Ok(Some(size)) = zstd::zstd_safe::get_frame_content_size(body)
        && size > bound as u64
    {
        return Err(too_large(bound));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|error| damaged("zstd", error))?;
    decoder.window_log_max(REQUEST_ZSTD_WINDOW_LOG_MAX).map_err(|error| damaged("zstd", error))?;
    read_bounded(decoder, body.len(), "zstd")
}

fn read_bounded(reader: impl Read, sent: usize, encoding: &'static str) -> Result<Bytes, ProtocolError> {
    let bound = bound(sent);
    let mut inflated = Vec::with_capacity(bound.min(sent.saturating_mul(4)));
    reader.take(bound as u64 + 1).read_to_end(&mut inflated).map_err(|error| damaged(encoding, error))?;
    if inflated.len() > bound {
        return Err(too_large(bound));
    }
    Ok(inflated.into())
}

/// A zlib header is told from raw DEFLATE by its check bits; read as DEFLATE its first byte would be a stored block
/// with padding that no encoder writes.
fn is_zlib(body: &[u8]) -> bool {
    body.len() >= 2
        && body[0] & 0x0f == 8
        && body[0] >> 4 <= 7
        && (usize::from(body[0]) << 8 | usize::from(body[1])) % 31 == 0
}

fn deflate(body: &[u8]) -> Result<Bytes, ProtocolError> {
    let bound = bound(body.len());
    let mut stream = Decompress::new(is_zlib(body));
    let mut inflated = Vec::with_capacity(bound.min(body.len().saturating_mul(4).max(64)));
    loop {
        let before = (stream.total_in(), stream.total_out());
        let rest = usize::try_from(before.0).ok().and_then(|read| body.get(read..)).unwrap_or_default();
        let status = stream.decompress_vec(rest, &mut inflated, FlushDecompress::None);
        if inflated.len() > bound {
            return Err(too_large(bound));
        }
        match status.map_err(|error| damaged("deflate", error))? {
            Status::StreamEnd if stream.total_in() == body.len() as u64 => return Ok(inflated.into()),
            Status::StreamEnd => return Err(damaged("deflate", "bytes after the end of the stream")),
            Status::Ok | Status::BufError if inflated.len() == inflated.capacity() => {
                inflated.reserve_exact(inflated.len().min(bound + 1 - inflated.len()).max(1));
            }
            Status::Ok | Status::BufError if before == (stream.total_in(), stream.total_out()) => {
                return Err(damaged("deflate", "the stream ends early"));
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

/// The length in the block's header is judged before it is believed.
fn snappy(body: &[u8]) -> Result<Bytes, ProtocolError> {
    if body.is_empty() {
        return Err(damaged("snappy", "the block is empty"));
    }
    let length = snap::raw::decompress_len(body).map_err(|error| damaged("snappy", error))?;
    let bound = bound(body.len());
    if length > bound {
        return Err(too_large(bound));
    }
    let inflated = snap::raw::Decoder::new().decompress_vec(body).map_err(|error| damaged("snappy", error))?;
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    const ENCODINGS: [Encoding; 4] = [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    fn compress(encoding: Encoding, body: &[u8]) -> Bytes {
        match encoding {
            Encoding::Identity => body.to_vec(),
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(body, 1).unwrap(),
        }
        .into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_encoding_is_undone(body in proptest::collection::vec(any::<u8>(), 0..4096)) {
            for encoding in ENCODINGS {
                prop_assert_eq!(&inflate(BodyKind::Ndjson, encoding, compress(encoding, &body)).unwrap()[..], &body[..]);
                let block = snap::raw::Encoder::new().compress_vec(&body).unwrap();
                let sent = compress(encoding, &block);
                prop_assert_eq!(&inflate(BodyKind::LokiProtobuf, encoding, sent).unwrap()[..], &body[..]);
            }
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).unwrap();
            let sent = encoder.finish().unwrap().into();
            prop_assert_eq!(&inflate(BodyKind::Ndjson, Encoding::Deflate, sent).unwrap()[..], &body[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            for encoding in ENCODINGS {
                for kind in [BodyKind::Ndjson, BodyKind::LokiProtobuf] {
                    let _ = inflate(kind, encoding, body.clone().into());
                }
            }
        }

        #[test]
        fn a_body_cut_short_is_refused(body in proptest::collection::vec(any::<u8>(), 1..512), cut in 1_usize..64) {
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                let whole = compress(encoding, &body);
                let kept = whole.len().saturating_sub(cut).max(1);
                prop_assert!(inflate(BodyKind::Ndjson, encoding, whole.slice(..kept)).is_err());
            }
        }
    }

    #[test]
    fn bombs_are_refused_as_too_large() {
        let zeros = vec![0; 8 << 20];
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            let bomb = compress(encoding, &zeros);
            assert!(bomb.len() * REQUEST_RATIO_MAX < zeros.len(), "{encoding:?}");
            let refused = inflate(BodyKind::Ndjson, encoding, bomb).unwrap_err();
            assert!(matches!(refused, ProtocolError::TooLarge { .. }), "{encoding:?}: {refused}");
        }
    }

    #[test]
    fn a_small_body_of_one_repeated_line_is_honest() {
        let lines = vec![b'a'; REQUEST_RATIO_FREE_BYTES];
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            assert!(inflate(BodyKind::Ndjson, encoding, compress(encoding, &lines)).is_ok(), "{encoding:?}");
        }
    }

    #[test]
    fn a_snappy_header_that_promises_too_much_is_refused_before_it_is_believed() {
        let claims_4_gib = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        let refused = inflate(BodyKind::LokiProtobuf, Encoding::Identity, claims_4_gib).unwrap_err();
        assert!(matches!(refused, ProtocolError::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn a_zstd_frame_that_promises_too_much_or_needs_a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![1; 4 << 20]).unwrap();
        let wide = encoder.finish().unwrap();
        assert!(inflate(BodyKind::Ndjson, Encoding::Zstd, wide.into()).is_err());
        let honest = zstd::bulk::compress(&vec![0; 65 << 20], 1).unwrap();
        let refused = inflate(BodyKind::Ndjson, Encoding::Zstd, honest.into()).unwrap_err();
        assert!(matches!(refused, ProtocolError::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn bytes_after_a_deflate_stream_are_refused() {
        let mut body = compress(Encoding::Deflate, b"hello").to_vec();
        body.push(0);
        assert!(inflate(BodyKind::Ndjson, Encoding::Deflate, body.into()).is_err());
    }

    #[test]
    fn headers_name_an_encoding_or_are_refused() {
        assert_eq!(Encoding::from_header(None).unwrap(), Encoding::Identity);
        assert_eq!(Encoding::from_header(Some(" SNAPPY ")).unwrap(), Encoding::Identity);
        assert_eq!(Encoding::from_header(Some("GZip")).unwrap(), Encoding::Gzip);
        assert_eq!(Encoding::from_header(Some("deflate")).unwrap(), Encoding::Deflate);
        assert_eq!(Encoding::from_header(Some("zstd")).unwrap(), Encoding::Zstd);
        for bad in ["br", "gzip, gzip", "compress"] {
            assert!(matches!(Encoding::from_header(Some(bad)), Err(ProtocolError::UnknownEncoding { .. })), "{bad}");
        }
    }
}
