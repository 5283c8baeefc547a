//! Reads the header of an HTTP/1 request up to its end, and enforces its timeouts and its size.
//!
//! HTTP/1 headers have these limits. They do not depend on a host, which is unknown before the header is complete.
//!
//! | state of the connection | limit | response |
//! |---|---|---|
//! | waiting for the first request, reading its header | `header_timeout` after the accept | 408; none without a byte |
//! | waiting for a later request | `keepalive` | none |
//! | reading a later header | `header_timeout` after its first byte | 408 |
//! | reading any header | `uri` + `headers` + [`HEADER_MARGIN`] bytes | 431; 414 in the request line |
//!
//! An HTTP/1 header is collected here and given to Pingora when it is complete. So an idle connection needs little more
//! memory than its socket, and a header that arrives byte by byte is not parsed at each byte.
//!
//! 408, 414 and 431 of an incomplete header have no CORS header fields, because no host, and therefore no policy, is
//! known. [`super::check`] checks a complete header.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora::time::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;

use super::ClientStream;
use super::check::Invalid;
use super::closing::Signal;
use super::watchdog;
use crate::snapshot::Limits;

/// A header that exceeds its limits by at most this number of bytes becomes a request. So its 414 or 431 has CORS header
/// fields.
const HEADER_MARGIN: usize = 32 * 1024;

/// Bytes of the first read of a header.
const HEADER_READ: usize = 4096;

/// Limits of a header, from the snapshot that was live when the connection was accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderLimits {
    pub(super) keepalive: Duration,
    header_timeout: Duration,
    /// Most bytes of an incomplete header.
    pub(super) bytes: usize,
}

/// Why no header was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The client closed the connection, or the process shuts down.
    Closed,
    /// No byte of the first request arrived in time.
    NoRequest,
    /// The header was not complete in time.
    Timeout,
    /// The header is larger than [`HeaderLimits::bytes`].
    TooLarge,
    /// The same, and no line has ended yet.
    TargetTooLong,
    /// The header is not a request.
    Invalid(Invalid),
}

impl From<Invalid> for HeaderError {
    fn from(invalid: Invalid) -> Self {
        HeaderError::Invalid(invalid)
    }
}

impl HeaderLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        HeaderLimits {
            keepalive: limits.keepalive,
            header_timeout: limits.header_timeout,
            bytes: limits.uri.saturating_add(limits.headers).saturating_add(HEADER_MARGIN),
        }
    }
}

/// Waits for the next request and reads its header. The result may also have the beginning of the body.
/// `first_deadline` is None for later requests.
pub(super) async fn read_header(
    limits: &HeaderLimits,
    stream: &mut ClientStream,
    first_deadline: Option<Instant>,
    closing: &mut Signal,
) -> Result<BytesMut, HeaderError> {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    watchdog::clear();
    // Later requests use the deadline of the watchdog, which resets one timer instead of making one per request.
    let first_bytes = async {
        match first_deadline {
            Some(deadline) => timeout(left(deadline), read_available(stream)).await.map_err(|_| HeaderError::NoRequest),
            None => {
                watchdog::set_deadline(Some(Instant::now() + limits.keepalive));
                let bytes = read_available(stream).await;
                watchdog::clear();
                Ok(bytes)
            }
        }
    };
    let bytes = tokio::select! {
        biased;
        bytes = first_bytes => bytes?,
        () = poll_fn(|cx| closing.poll(cx)) => return Err(HeaderError::Closed),
    };
    let mut bytes = match bytes {
        Ok(bytes) if !bytes.is_empty() => bytes,
        _ => return Err(HeaderError::Closed),
    };
    let mut skipped = skip_empty_lines(&mut bytes);
    if is_complete_header(&bytes, 0) {
        return Ok(bytes);
    }
    bytes.reserve(HEADER_READ);
    let rest = async {
        loop {
            let seen = bytes.len();
            if seen + skipped > limits.bytes {
                let in_target = !bytes.contains(&b'\n') && skipped <= limits.bytes;
                return Err(if in_target { HeaderError::TargetTooLong } else { HeaderError::TooLarge });
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Err(HeaderError::Closed),
                Ok(_) => {}
            }
            skipped += skip_empty_lines(&mut bytes);
            if is_complete_header(&bytes, seen.min(bytes.len())) {
                return Ok(());
            }
        }
    };
    match timeout(first_deadline.map_or(limits.header_timeout, left), rest).await {
        Ok(rest) => rest.map(|()| bytes),
        Err(_) => Err(HeaderError::Timeout),
    }
}

/// Reads up to [`HEADER_READ`] bytes as soon as there are any; empty at the end of the connection. Allocates only then,
/// so a waiting connection has no buffer.
pub(super) async fn read_available(stream: &mut ClientStream) -> io::Result<BytesMut> {
    poll_fn(|cx| poll_available(stream, cx)).await
}

pub(super) fn poll_available(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<BytesMut>> {
    let mut space = [const { MaybeUninit::uninit() }; HEADER_READ];
    let mut buf = ReadBuf::uninit(&mut space);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(BytesMut::from(buf.filled())))
}

/// Drops the empty lines in front of a request line, which a server should ignore (RFC 9112 section 2.2). Returns the
/// number of dropped bytes. They are dropped as they arrive, so that none is searched twice.
pub(super) fn skip_empty_lines(bytes: &mut BytesMut) -> usize {
    let mut skipped = 0;
    loop {
        match &bytes[skipped..] {
            [b'\n', ..] => skipped += 1,
            [b'\r', b'\n', ..] => skipped += 2,
            _ => break,
        }
    }
    bytes.advance(skipped);
    skipped
}

/// Whether a header ends in `bytes`: an empty line behind at least one other. Its first `seen` bytes have no such end.
pub(super) fn is_complete_header(bytes: &[u8], seen: usize) -> bool {
    // Most headers come alone and at once.
    if bytes.len() > 4 && bytes.ends_with(b"\r\n\r\n") {
        return true;
    }
    // Servers may take a line feed alone for the end of a line (RFC 9112 section 2.2), and Pingora does.
    let mut rest = &bytes[seen.saturating_sub(2)..];
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[end + 1..];
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a header in pieces, as `read_header` does. Returns the end at which it was complete.
    fn complete_at(bytes: &[u8], piece: usize) -> Option<usize> {
        let (mut buffer, mut fed) = (BytesMut::new(), 0);
        while fed < bytes.len() {
            let seen = buffer.len();
            let next = bytes.len().min(fed + piece);
            buffer.extend_from_slice(&bytes[fed..next]);
            fed = next;
            skip_empty_lines(&mut buffer);
            if is_complete_header(&buffer, seen.min(buffer.len())) {
                return Some(fed);
            }
        }
        None
    }

    #[test]
    fn a_header_ends_with_an_empty_line_however_it_is_cut() {
        for (header, end) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 18),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", 27),
            (b"GET / HTTP/1.1\nHost: a\n\n", 24),
            (b"GET / HTTP/1.1\nHost: a\r\n\n", 25),
            (b"GET / HTTP/1.1\nHost: a\n\r\nbody", 25),
            (b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n", 23),
            (b"\xff\0\n\n", 4),
        ] {
            assert_eq!(complete_at(header, 1), Some(end), "{}", header.escape_ascii());
            for piece in 2..=header.len() {
                let complete = complete_at(header, piece).unwrap();
                assert!(complete >= end && complete < end + piece, "{} by {piece}", header.escape_ascii());
            }
        }
        for part in [&b""[..], b"\r\n", b"\n\n\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"G\r\r\n\r"] {
            for piece in 1..=part.len() {
                assert_eq!(complete_at(part, piece), None, "{} by {piece}", part.escape_ascii());
            }
        }
    }

    #[test]
    fn empty_lines_in_front_of_a_request_are_dropped_as_they_arrive() {
        let mut buffer = BytesMut::new();
        for _ in 0..1000 {
            buffer.extend_from_slice(b"\n");
            assert_eq!((skip_empty_lines(&mut buffer), buffer.len()), (1, 0));
        }
        buffer.extend_from_slice(b"\r");
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (0, &b"\r"[..]), "may become an empty line");
        buffer.extend_from_slice(b"\nGET");
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (2, &b"GET"[..]));
        // A carriage return alone is no empty line: the parser refuses it.
        let mut buffer = BytesMut::from(&b"\rGET"[..]);
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (0, &b"\rGET"[..]));
    }
}
