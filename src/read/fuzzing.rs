//! Checks for fuzz targets, which see only public items. Built with `--cfg fuzzing` only.

use bytes::BytesMut;

use super::check::{Body, Checked, body, check};
use super::chunks::Chunks;
use super::header::{is_complete_header, skip_empty_lines};

/// Checks the result for any bytes as a request header, with a second parser.
///
/// # Panics
///
/// If the header that replaces a refused one is invalid, or if an ambiguous body is accepted.
pub fn header(bytes: &[u8]) {
    let mut received = BytesMut::from(bytes);
    skip_empty_lines(&mut received);
    if !is_complete_header(&received, 0) {
        return;
    }
    let bytes = &received[..];
    let checked = check(bytes);
    if let Checked::Refused { header, .. } = &checked
        && parses_request_line(header)
    {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        assert_eq!(request.parse(header), Ok(httparse::Status::Complete(header.len())), "{header:?}");
    }
    // The second parser, for headers whose lines all end with CR LF, and that Pingora accepts.
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    if request.parse(&bytes[..end]) != Ok(httparse::Status::Complete(end)) {
        return;
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let length = match (&*lengths, &*codings) {
        ([], []) => Some(0),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(length).ok().and_then(|length| length.parse::<u64>().ok())
        }
        _ => None,
    };
    let is_chunked = request.version == Some(1)
        && lengths.is_empty()
        && matches!(&*codings, [coding] if coding.eq_ignore_ascii_case(b"chunked"));
    match checked {
        // The first hook calls `body` if there is a length or a coding.
        Checked::Alone => match body(bytes) {
            Body::Length(found) => assert_eq!(Some(found), length),
            Body::Chunked => assert!(is_chunked),
            Body::Ambiguous => assert!(length.is_none() && !is_chunked),
        },
        Checked::Request { end: found, chunks } => {
            assert!(found >= end && found <= bytes.len(), "{found}");
            assert_eq!(chunks.is_some(), is_chunked);
            if !is_chunked {
                let length = length.expect("the length is unambiguous");
                assert_eq!(found, end.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(bytes.len()));
            }
        }
        Checked::Refused { .. } | Checked::Invalid(_) => {}
    }
}

/// Checks the result for any bytes as a chunked body, cut in two places, and with a slow parser.
///
/// # Panics
///
/// If a cut changes the result, or if the slow parser finds another end.
pub fn chunks(bytes: &[u8]) {
    let whole = {
        let mut chunks = Chunks::new();
        chunks.check(bytes).map(|length| (length, chunks.is_done()))
    };
    for cut in [1, 2, 3, 5, bytes.len() / 2] {
        let (mut chunks, mut length) = (Chunks::new(), 0);
        let pieces = [&bytes[..cut.min(bytes.len())], &bytes[cut.min(bytes.len())..]];
        let result = pieces.iter().try_for_each(|piece| chunks.check(piece).map(|more| length += more));
        assert_eq!(result.map(|()| (length, chunks.is_done())), whole, "cut at {cut}");
    }
    if let Ok((length, true)) = whole {
        assert_eq!(slow_end(bytes), Some(length));
    }
}

/// The end of a valid chunked body, line by line.
fn slow_end(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| -> Option<(&[u8], usize)> {
        let end = bytes[from..].windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[from..from + end], from + end + 2))
    };
    let mut at = 0;
    loop {
        let (size, next) = line(at)?;
        let digits: Vec<u8> = size.iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        (bytes.get(at..at + 2)? == b"\r\n").then_some(())?;
        at += 2;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some(at);
        }
    }
}

/// Whether the second parser, which is Pingora's, accepts the first line. A header with another one gets 400, whatever else
/// it has.
fn parses_request_line(header: &[u8]) -> bool {
    let end = header.windows(2).position(|two| two == b"\r\n").map_or(header.len(), |at| at + 2);
    let mut fields = [httparse::EMPTY_HEADER; 1];
    let line = [&header[..end], b"\r\n"].concat();
    httparse::Request::new(&mut fields).parse(&line).is_ok_and(|status| status.is_complete())
}
