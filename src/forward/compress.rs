//! Encodes response bodies, with the encoding that [`crate::behavior::compression`] chose.
//!
//! The libraries are those that Pingora links. Its own compression module is not used: it ignores weights in
//! `Accept-Encoding`, holds back the pieces of a slow response, sends the rest of a body without encoding after an error,
//! and does not write the end of a Brotli stream.
//!
//! The levels are for encoding while the client waits: they encode 100 to 400 MB of text per second, and higher levels
//! save little for their time (`docs/performance.md` has the measurements).

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
/// It takes memory until the body has ended: 0.4 MiB for gzip, 0.8 MiB for Zstandard, 2 MiB for Brotli. What it has
/// encoded is passed on at once.
pub(super) struct BodyEncoder {
    codec: Codec,
    /// The end of the body, until it is sent in place of trailers.
    rest: Option<Bytes>,
}

enum Codec {
    Gzip(Compress),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Encoder<'static>),
    /// The end is written.
    Ended,
}

const GZIP_LEVEL: u32 = 5;
const GZIP_WINDOW_BITS: u8 = 15;
const BROTLI_QUALITY: u32 = 4;
/// 256 KiB. 4 MiB, the usual window, makes the result of 1 MiB smaller by 2 % and takes more memory.
const BROTLI_WINDOW_BITS: u32 = 18;
/// Bytes for which the Brotli library has a buffer of its own, before they are copied to the result.
const BROTLI_BUFFER: usize = 4096;
const ZSTD_LEVEL: i32 = 3;
/// Smaller tables and a smaller window than those of the level: less than half the memory, as fast, and a result that is
/// 3 % larger.
const ZSTD_PARAMETERS: [CParameter; 3] = [CParameter::WindowLog(18), CParameter::HashLog(15), CParameter::ChainLog(15)];
/// The least space for encoded bytes that a codec gets at once.
const SPACE: usize = 1024;

// === impl BodyEncoder ===

impl BodyEncoder {
    /// Prepares the header of an upstream's response for compression. None: its body stays as it is.
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
        // The length is not known. Pingora removes the field for HTTP/2.
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

    /// Encodes a piece of the body. The client can decode all of it at once, so a slow response arrives piece by piece.
    ///
    /// # Errors
    /// The response must be cut. The client would take what it has for the whole body.
    pub(super) fn encode(&mut self, piece: &mut Option<Bytes>, end: bool) -> Result<()> {
        let input = piece.take().unwrap_or_default();
        if input.is_empty() && !end {
            return Ok(());
        }
        let encoded = self.codec.encode(&input, end)?;
        *piece = Some(encoded.into());
        Ok(())
    }

    /// The upstream ends the body with trailers. No trailers can follow the end of the encoded body: Pingora sends
    /// either of them.
    pub(super) fn end_before_trailers(&mut self) -> Result<()> {
        let mut rest = None;
        self.encode(&mut rest, true)?;
        self.rest = rest;
        Ok(())
    }

    /// What is sent in place of the trailers.
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
    /// Encodes the input and flushes, or ends the stream.
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
        // It ends the stream, which takes at least one byte, and reports no error.
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
        // All input is used, and there was space left: nothing is held back.
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

    /// Reads what a client can decode of these bytes, and whether that is the whole body.
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

    /// Text, numbers, and bytes that no codec can shrink.
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
                // The last piece ends the body.
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
