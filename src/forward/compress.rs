//! Encodes response bodies, with the encoding that [`crate::behavior::compression`] chose.
//!
//! The module uses the compression libraries that Pingora links. It does not use the compression module of Pingora,
//! which ignores weights in `Accept-Encoding`, holds back the pieces of a slow response, sends the rest of a body
//! without encoding after an error, and does not write the end of a Brotli stream.
//!
//! The levels are chosen for encoding while the client waits: they encode 100 to 400 MB of text per second. Higher
//! levels take more time and make the result only a little smaller (`docs/performance.md` has the measurements).

use std::io::Write;
use std::mem;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::{Compress, Compression as GzipLevel, FlushCompress, Status};
use http::response::Parts;
use http::{HeaderValue, header};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use crate::behavior::compression::{Compression, Encoding, Prepared};
use crate::cors::vary_on_accept_encoding;

/// The encoder of one response body.
///
/// It takes memory until the body has ended: 0.4 MiB for gzip, 0.8 MiB for Zstandard, 2 MiB for Brotli. Encoded bytes
/// are passed on at once.
pub(super) struct BodyEncoder {
    codec: Codec,
    /// The end of the encoded body, which is sent in place of trailers.
    rest: Option<Bytes>,
}

enum Codec {
    Gzip(Compress),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Encoder<'static>),
    /// The end of the body is written.
    Ended,
}

const GZIP_LEVEL: u32 = 5;
const GZIP_WINDOW_BITS: u8 = 15;
const BROTLI_QUALITY: u32 = 4;
/// A window of 256 KiB. The usual window of 4 MiB makes the result of 1 MiB smaller by 2 %, and takes more memory.
const BROTLI_WINDOW_BITS: u32 = 18;
/// Size of the buffer of the Brotli library, in bytes. The library copies its content to the result.
const BROTLI_BUFFER: usize = 4096;
const ZSTD_LEVEL: i32 = 3;
/// Smaller tables and a smaller window than the level has by default. They take less than half the memory and are as
/// fast, but the result is 3 % larger.
const ZSTD_PARAMETERS: [CParameter; 3] = [CParameter::WindowLog(18), CParameter::HashLog(15), CParameter::ChainLog(15)];
/// Minimum space for encoded bytes that a codec gets at once.
const SPACE: usize = 1024;

// === impl BodyEncoder ===

impl BodyEncoder {
    /// Prepares the header of an upstream's response for compression. Returns None if the body is not encoded.
    pub(super) fn prepare(
        compression: &Compression,
        request: &RequestHeader,
        response: &mut Parts,
    ) -> Result<Option<Box<Self>>> {
        let Prepared { varies, body } = compression.prepare(request, response);
        if varies {
            vary_on_accept_encoding(&mut response.headers);
        }
        let Some(encoding) = body else { return Ok(None) };
        // The length of the encoded body is not known. For HTTP/2, Pingora removes `Transfer-Encoding`.
        response.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        BodyEncoder::new(encoding).map(|encoder| Some(Box::new(encoder)))
    }

    fn new(encoding: Encoding) -> Result<Self> {
        let codec = match encoding {
            Encoding::Gzip => Codec::Gzip(Compress::new_gzip(GzipLevel::new(GZIP_LEVEL), GZIP_WINDOW_BITS)),
            Encoding::Br => Codec::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            ))),
            Encoding::Zstd => Codec::Zstd(zstd_encoder().or_else(|_| fail("no Zstandard encoder"))?),
        };
        Ok(BodyEncoder { codec, rest: None })
    }

    /// Encodes a piece of the body. The client can decode the whole piece at once, so a slow response arrives piece by
    /// piece.
    ///
    /// # Errors
    /// After an error, the response must be cut. Otherwise the client would take an incomplete body for the whole body.
    pub(super) fn encode(&mut self, piece: &mut Option<Bytes>, end: bool) -> Result<()> {
        let input = piece.take().unwrap_or_default();
        if input.is_empty() && !end {
            return Ok(());
        }
        let encoded = self.codec.encode(&input, end)?;
        *piece = Some(encoded.into());
        Ok(())
    }

    /// Ends the encoded body if the upstream ends its body with trailers. The trailers cannot follow, because Pingora
    /// sends either the end of the body or the trailers.
    pub(super) fn end_before_trailers(&mut self) -> Result<()> {
        let mut rest = None;
        self.encode(&mut rest, true)?;
        self.rest = rest;
        Ok(())
    }

    /// Returns the end of the encoded body, which is sent in place of the trailers.
    pub(super) fn instead_of_trailers(&mut self) -> Option<Bytes> {
        self.rest.take()
    }
}

fn zstd_encoder() -> std::io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(ZSTD_LEVEL)?;
    ZSTD_PARAMETERS.into_iter().try_for_each(|parameter| encoder.set_parameter(parameter))?;
    Ok(encoder)
}

fn fail<T>(why: &'static str) -> Result<T> {
    Error::e_explain(ErrorType::InternalError, why)
}

// === impl Codec ===

impl Codec {
    /// Encodes the input. Then flushes the stream, or ends it if `end` is true.
    fn encode(&mut self, input: &[u8], end: bool) -> Result<Vec<u8>> {
        let space = input.len() / 3 + SPACE;
        match self {
            Codec::Gzip(gzip) => {
                let mut out = Vec::with_capacity(space);
                encode_gzip(gzip, input, &mut out, end)?;
                self.free_after(end);
                Ok(out)
            }
            Codec::Zstd(zstd) => {
                let mut out = Vec::with_capacity(space);
                encode_zstd(zstd, input, &mut out, end).or_else(|_| fail("Zstandard cannot encode the body"))?;
                self.free_after(end);
                Ok(out)
            }
            Codec::Brotli(brotli) => {
                brotli.get_mut().reserve(space);
                let flush = |brotli: &mut CompressorWriter<_>| if end { Ok(()) } else { brotli.flush() };
                if brotli.write_all(input).and_then(|()| flush(brotli)).is_err() {
                    return fail("Brotli cannot encode the body");
                }
                let out = mem::take(brotli.get_mut());
                match end {
                    false => Ok(out),
                    true => self.end_brotli(out),
                }
            }
            Codec::Ended => fail("the body goes on after its end"),
        }
    }

    fn free_after(&mut self, end: bool) {
        if end {
            *self = Codec::Ended;
        }
    }

    fn end_brotli(&mut self, mut out: Vec<u8>) -> Result<Vec<u8>> {
        let Codec::Brotli(brotli) = mem::replace(self, Codec::Ended) else { return Ok(out) };
        // `into_inner` ends the stream, which writes at least one byte, and does not report an error.
        let last = brotli.into_inner();
        if last.is_empty() {
            return fail("Brotli cannot end the body");
        }
        out.extend_from_slice(&last);
        Ok(out)
    }
}

fn encode_gzip(gzip: &mut Compress, input: &[u8], out: &mut Vec<u8>, end: bool) -> Result<()> {
    let flush = if end { FlushCompress::Finish } else { FlushCompress::Sync };
    let before = gzip.total_in();
    loop {
        let used = usize::try_from(gzip.total_in() - before).unwrap_or(input.len());
        let status = gzip.compress_vec(&input[used..], out, flush);
        // If all input is used and there is space left, the codec holds nothing back.
        let done = match status {
            Ok(Status::StreamEnd) => true,
            Ok(_) => !end && gzip.total_in() - before == input.len() as u64 && out.len() < out.capacity(),
            Err(_) => return fail("gzip cannot encode the body"),
        };
        if done {
            return Ok(());
        }
        out.reserve(SPACE.max(out.len() / 2));
    }
}

fn encode_zstd(zstd: &mut Encoder<'_>, input: &[u8], out: &mut Vec<u8>, end: bool) -> std::io::Result<()> {
    let mut input = InBuffer::around(input);
    loop {
        let start = out.len();
        let mut space = OutBuffer::around_pos(out, start);
        if input.pos() < input.src.len() {
            zstd.run(&mut input, &mut space)?;
        }
        if input.pos() == input.src.len() {
            let left = match end {
                true => zstd.finish(&mut space, true)?,
                false => zstd.flush(&mut space)?,
            };
            if left == 0 {
                return Ok(());
            }
        }
        out.reserve(SPACE.max(out.len() / 2));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip];

    /// Returns the part of the body that a client can decode from these bytes, and whether it is the whole body.
    fn decoded(encoding: Encoding, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut reader: Box<dyn Read + '_> = match encoding {
            Encoding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Encoding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Encoding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let (mut body, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return (body, true),
                Ok(read) => body.extend_from_slice(&buffer[..read]),
                Err(_) => return (body, false),
            }
        }
    }

    fn encode(encoder: &mut BodyEncoder, piece: &[u8], end: bool) -> Vec<u8> {
        let mut piece = Some(Bytes::copy_from_slice(piece));
        encoder.encode(&mut piece, end).unwrap();
        piece.unwrap_or_default().into()
    }

    /// Returns bodies to encode: empty, short, long text, and random bytes that no codec can shrink.
    fn bodies() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = (0..200_000).map(|_| random.u8(..)).collect();
        let text: String = (0..40_000).map(|i| format!("{{\"id\":{i},\"name\":\"user {}\"}},", i % 97)).collect();
        vec![Vec::new(), b"x".to_vec(), b"hello, hello, hello".to_vec(), text.into_bytes(), noise]
    }

    #[test]
    fn a_body_is_decoded_as_it_was_whatever_its_pieces_are() {
        for encoding in ALL {
            for body in bodies() {
                for size in [1_000, 16_384, 65_536, 4_000_000] {
                    let mut encoder = BodyEncoder::new(encoding).unwrap();
                    let mut encoded = Vec::new();
                    for piece in body.chunks(size) {
                        encoded.extend(encode(&mut encoder, piece, false));
                    }
                    encoded.extend(encode(&mut encoder, b"", true));
                    assert!(decoded(encoding, &encoded) == (body.clone(), true), "{encoding:?} {} {size}", body.len());
                    assert!(encoded.len() <= body.len() + body.len() / 100 + 500, "{encoding:?} {}", encoded.len());
                }
                // Here the only piece also ends the body.
                let encoded = encode(&mut BodyEncoder::new(encoding).unwrap(), &body, true);
                assert!(decoded(encoding, &encoded) == (body.clone(), true), "{encoding:?} {}", body.len());
            }
        }
    }

    #[test]
    fn each_piece_can_be_decoded_at_once_and_a_cut_body_is_not_whole() {
        for encoding in ALL {
            let mut encoder = BodyEncoder::new(encoding).unwrap();
            let (mut encoded, mut sent) = (Vec::new(), Vec::new());
            for i in 0..50 {
                let piece = format!("event {i} of a slow response\n");
                sent.extend_from_slice(piece.as_bytes());
                encoded.extend(encode(&mut encoder, piece.as_bytes(), false));
                assert_eq!(decoded(encoding, &encoded), (sent.clone(), false), "{encoding:?} {i}");
            }
            assert_eq!(encode(&mut encoder, b"", false), b"", "{encoding:?}: an empty piece");
            encoded.extend(encode(&mut encoder, b"", true));
            assert_eq!(decoded(encoding, &encoded), (sent, true), "{encoding:?}");
        }
    }

    #[test]
    fn the_end_before_trailers_is_sent_in_their_place() {
        for encoding in ALL {
            let mut encoder = BodyEncoder::new(encoding).unwrap();
            let mut encoded = encode(&mut encoder, b"body", false);
            encoder.end_before_trailers().unwrap();
            encoded.extend(encoder.instead_of_trailers().unwrap());
            assert_eq!(decoded(encoding, &encoded), (b"body".to_vec(), true), "{encoding:?}");
            assert_eq!(encoder.instead_of_trailers(), None);
        }
    }

    #[test]
    fn nothing_is_encoded_after_the_end() {
        for encoding in ALL {
            let mut encoder = BodyEncoder::new(encoding).unwrap();
            encode(&mut encoder, b"body", true);
            assert!(encoder.encode(&mut Some(Bytes::from_static(b"more")), false).is_err(), "{encoding:?}");
            assert!(encoder.encode(&mut None, true).is_err(), "{encoding:?}");
        }
    }
}
