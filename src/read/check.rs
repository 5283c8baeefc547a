//! Checks an HTTP/1 header before Pingora parses it, and finds where its request ends.
//!
//! Pingora answers some invalid headers itself, without calling a hook. Its response has no CORS header fields, and no
//! line in the access log. Pingora repairs other invalid headers. This check finds both kinds:
//!
//! - [`Checked::Refused`]: the gateway can answer the header as a request. Pingora gets a short valid header instead, and
//!   the hooks refuse that request.
//! - [`Checked::Invalid`]: the header is not a request.
//!
//! Pingora still answers a few headers, such as a header with two hosts or with a space in a name. `read::stream`
//! replaces that answer.
//!
//! | header | response |
//! |---|---|
//! | target of more than [`MAX_TARGET`] bytes | 414 |
//! | more than [`MAX_FIELDS`] fields, or [`MAX_HEADER`] bytes | 431 |
//! | space or control character in the target, which Pingora would encode | 400 |
//! | several lengths, a length that is no number, a length with a coding, a coding other than one `chunked`, a coding in HTTP/1.0 | 400 |
//! | chunked body whose first bytes are invalid | 400 |
//! | HTTP/2 or later | 505 |
//! | CONNECT | 405 |
//!
//! Most requests are short, come alone, and have a method without body. Their fields are not read here
//! ([`Checked::Alone`]). If Pingora finds a length or a coding in them, the first hook calls [`body`].

use bytes::BytesMut;
use memchr::{memchr, memchr_iter};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::chunks::Chunks;
use crate::decide::Framing;

/// Longest target that `http::Uri` can hold.
const MAX_TARGET: usize = 65_534;
/// Most fields of Pingora's parser.
const MAX_FIELDS: usize = 256;
/// Largest header of Pingora's parser, in bytes.
const MAX_HEADER: usize = 1_048_575;

/// Longest header with [`Checked::Alone`]. It cannot have more than [`MAX_FIELDS`] fields.
const MAX_ALONE: usize = 3 * MAX_FIELDS;

/// The fields of a refused request that the decision and the access log read.
const KEPT: [&str; 16] = [
    "host",
    "origin",
    "access-control-request-method",
    "access-control-request-headers",
    "access-control-request-private-network",
    "content-type",
    "forwarded",
    "referer",
    "sec-fetch-mode",
    "sec-fetch-site",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];
/// Most fields that a refused request keeps.
const MAX_KEPT: usize = 32;

/// The result of the check of a complete header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// A request for Pingora. The bytes contain only its header. The check did not read the fields.
    Alone,
    /// A request for Pingora. The bytes from `end` on do not belong to it. `chunks` is the state of the check of a
    /// chunked body after `end`.
    Request { end: usize, chunks: Option<Chunks> },
    /// A request that the hooks must refuse because of `framing`. Pingora gets `header` instead.
    Refused { header: BytesMut, framing: Framing },
    /// The header is not a request.
    Invalid(Invalid),
}

/// The reason why a header is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// HTTP/2 or later.
    Version,
    /// CONNECT.
    Connect,
    /// A header that would be refused, but whose method, target or fields are invalid.
    Fields,
}

/// A request line.
enum RequestLine<'a> {
    /// Of HTTP/1, with a target that has no space and no control character.
    Http1 { method: &'a [u8], target: &'a [u8], version: &'a [u8] },
    /// Of HTTP/1, with such a character in the target.
    RawTarget { method: &'a [u8], target: &'a [u8] },
    /// HTTP/2 or later.
    OtherVersion,
    /// Pingora refuses it.
    Malformed,
}

/// The fields of a header, as far as the check needs them.
#[derive(Default)]
struct Fields<'a> {
    /// Length of the header with its empty line.
    end: usize,
    count: usize,
    /// The first Content-Length and Transfer-Encoding.
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    /// One of them is repeated.
    repeated: bool,
}

/// The body that a header announces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    Ambiguous,
}

/// Checks a header that ends in `bytes`.
pub(super) fn check(bytes: &[u8]) -> Checked {
    let line_end = memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = RequestLine::of(&bytes[..line_end]);
    if let RequestLine::Http1 { method: b"GET" | b"HEAD" | b"OPTIONS", .. } = line
        && bytes.len() <= MAX_ALONE
        && is_alone(bytes)
    {
        return Checked::Alone;
    }
    let fields = Fields::of(bytes, line_end + 1);
    let refuse = |method, target, version, framing| {
        let fields = bytes.get(line_end + 1..fields.end).unwrap_or_default();
        match refused_header(method, target, version, fields) {
            Some(header) => Checked::Refused { header, framing },
            None => Checked::Invalid(Invalid::Fields),
        }
    };
    let (method, target, version) = match line {
        RequestLine::Http1 { method, target, version } => (method, target, version),
        RequestLine::RawTarget { method, target } => return refuse(method, target, b"1.1", Framing::RawTarget),
        RequestLine::OtherVersion => return Checked::Invalid(Invalid::Version),
        RequestLine::Malformed => return Checked::Request { end: bytes.len(), chunks: None },
    };
    if method == b"CONNECT" {
        return Checked::Invalid(Invalid::Connect);
    }
    if target.len() > MAX_TARGET {
        return refuse(method, target, version, Framing::TargetTooLong);
    }
    if fields.count > MAX_FIELDS || fields.end > MAX_HEADER {
        return refuse(method, target, version, Framing::TooManyFields);
    }
    let body = &bytes[fields.end..];
    let (length, chunks) = match fields.body(version) {
        Body::Length(length) => (usize::try_from(length).unwrap_or(usize::MAX).min(body.len()), None),
        Body::Ambiguous => return refuse(method, target, version, Framing::Ambiguous),
        Body::Chunked => {
            let mut chunks = Chunks::new();
            match chunks.check(body) {
                Ok(length) => (length, Some(chunks)),
                Err(_) => return refuse(method, target, version, Framing::Ambiguous),
            }
        }
    };
    Checked::Request { end: fields.end + length, chunks }
}

/// The body that a complete header announces.
pub(super) fn body(header: &[u8]) -> Body {
    let line_end = memchr(b'\n', header).unwrap_or(header.len());
    match RequestLine::of(&header[..line_end]) {
        RequestLine::Http1 { version, .. } => Fields::of(header, line_end + 1).body(version),
        _ => Body::Ambiguous,
    }
}

/// Whether the bytes of a complete header have no empty line but the last one.
#[expect(clippy::needless_bitwise_bool, reason = "without a branch for each byte, the loop uses vector instructions")]
fn is_alone(bytes: &[u8]) -> bool {
    let Some(lines) = bytes.strip_suffix(b"\r\n\r\n") else { return false };
    // A line that begins with a tab counts too.
    let next = lines.get(1..).unwrap_or_default();
    !lines.iter().zip(next).fold(false, |found, (byte, next)| found | ((*byte == b'\n') & (*next <= b'\r')))
}

impl<'a> RequestLine<'a> {
    fn of(line: &'a [u8]) -> Self {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(space) = memchr(b' ', line) else { return RequestLine::Malformed };
        let (method, rest) = (&line[..space], &line[space + 1..]);
        let Some((target, [b' ', b'H', b'T', b'T', b'P', b'/', version @ ..])) = rest.split_last_chunk::<9>() else {
            return RequestLine::Malformed;
        };
        match version {
            [b'1', b'.', b'0' | b'1'] => {}
            [b'2'..=b'9', b'.', b'0'..=b'9'] => return RequestLine::OtherVersion,
            _ => return RequestLine::Malformed,
        }
        match is_raw(target) {
            false => RequestLine::Http1 { method, target, version },
            true => RequestLine::RawTarget { method, target },
        }
    }
}

impl<'a> Fields<'a> {
    /// The fields from `start` to the first empty line. Their names and values are not checked: Pingora does that, and
    /// refuses each line that is no field, so that no other line can be a length or a coding.
    fn of(bytes: &'a [u8], start: usize) -> Self {
        let mut fields = Fields { end: bytes.len(), ..Fields::default() };
        let mut begin = start.min(bytes.len());
        let section = &bytes[begin..];
        for end in memchr_iter(b'\n', section).map(|end| start + end) {
            let line = &bytes[begin..end];
            if matches!(line, [] | [b'\r']) {
                fields.end = end + 1;
                break;
            }
            fields.count += 1;
            if let Some(value) = value(line, b"content-length") {
                fields.repeated |= fields.length.replace(value).is_some();
            } else if let Some(value) = value(line, b"transfer-encoding") {
                fields.repeated |= fields.coding.replace(value).is_some();
            }
            begin = end + 1;
        }
        fields
    }

    fn body(&self, version: &[u8]) -> Body {
        match (self.length, self.coding) {
            _ if self.repeated => Body::Ambiguous,
            (None, None) => Body::Length(0),
            (Some(length), None) if length.iter().all(u8::is_ascii_digit) => std::str::from_utf8(length)
                .ok()
                .and_then(|length| length.parse().ok())
                .map_or(Body::Ambiguous, Body::Length),
            // HTTP/1.0 has no codings (RFC 9112 section 6.1).
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && version == b"1.1" => Body::Chunked,
            _ => Body::Ambiguous,
        }
    }
}

/// Whether a target has a space or a control character.
#[expect(clippy::needless_bitwise_bool, reason = "without a branch for each byte, the loop uses vector instructions")]
fn is_raw(target: &[u8]) -> bool {
    target.iter().fold(false, |raw, byte| raw | (*byte <= b' ') | (*byte == 0x7f))
}

/// The value of a line, if its field has this name.
fn value<'a, const N: usize>(line: &'a [u8], name: &[u8; N]) -> Option<&'a [u8]> {
    let is_field = line.get(N) == Some(&b':') && line[..N].eq_ignore_ascii_case(name);
    is_field.then(|| line[N + 1..].trim_ascii())
}

/// A header without body that Pingora accepts, for a request that the hooks refuse. None if the method, the target
/// or the fields are invalid.
fn refused_header(method: &[u8], target: &[u8], version: &[u8], fields: &[u8]) -> Option<BytesMut> {
    /// Characters that Pingora would encode. The same encoding here keeps the access log the same.
    const RAW: &AsciiSet = &CONTROLS.add(b' ');
    http::Method::from_bytes(method).ok()?;
    let mut target = &target[..target.len().min(MAX_TARGET)];
    while let [rest @ .., 0x80..=0xff] = target {
        target = rest;
    }
    if target.is_empty() {
        return None;
    }
    let mut slots = vec![httparse::EMPTY_HEADER; memchr_iter(b'\n', fields).count()];
    let httparse::Status::Complete((_, parsed)) = httparse::parse_headers(fields, &mut slots).ok()? else {
        return None;
    };
    let mut header = BytesMut::from(method);
    header.extend_from_slice(b" ");
    match is_raw(target) {
        false => header.extend_from_slice(target),
        true => percent_encode(target, RAW).for_each(|part| header.extend_from_slice(part.as_bytes())),
    }
    header.extend_from_slice(b" HTTP/");
    header.extend_from_slice(version);
    header.extend_from_slice(b"\r\n");
    let is_kept = |field: &&httparse::Header<'_>| KEPT.iter().any(|name| name.eq_ignore_ascii_case(field.name));
    for field in parsed.iter().filter(is_kept).take(MAX_KEPT) {
        for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
            header.extend_from_slice(part);
        }
    }
    header.extend_from_slice(b"Connection: close\r\n\r\n");
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "Host: a.test\r\nOrigin: https://b.test\r\n";

    /// The framing for which a header is refused, and the header that Pingora gets.
    fn refused(header: &str) -> (Framing, String) {
        match check(header.as_bytes()) {
            Checked::Refused { header, framing } => (framing, String::from_utf8(header.to_vec()).unwrap()),
            other => panic!("{header:?}: {other:?}"),
        }
    }

    #[test]
    fn the_bytes_behind_a_request_are_not_part_of_it() {
        let next = "GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n";
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
            "POST / HTTP/1.1\r\ncontent-LENGTH:\t2 \r\n\r\nab",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED \r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n",
        ] {
            let alone = check(request.as_bytes());
            assert_eq!(
                alone == Checked::Alone,
                request.starts_with("GET") && request.ends_with("\r\n\r\n"),
                "{request:?}"
            );
            let Checked::Request { end, chunks } = check(format!("{request}{next}").as_bytes()) else {
                panic!("{request:?}")
            };
            assert_eq!(end, request.len(), "{request:?}");
            assert!(chunks.is_none_or(|chunks| chunks.is_done()), "{request:?}");
        }
    }

    #[test]
    fn a_body_may_be_incomplete() {
        for (header, body) in [("Content-Length: 10", "ab"), ("Transfer-Encoding: chunked", "5\r\nab")] {
            let bytes = format!("POST / HTTP/1.1\r\n{header}\r\n\r\n{body}");
            let Checked::Request { end, chunks } = check(bytes.as_bytes()) else { panic!("{bytes:?}") };
            assert_eq!((end, chunks.is_some()), (bytes.len(), header.starts_with('T')), "{bytes:?}");
        }
    }

    #[test]
    fn what_pingora_would_answer_or_repair_is_refused_with_the_fields_that_the_decision_reads() {
        let fields = "A: b\r\n".repeat(MAX_FIELDS - 1);
        let long = format!("/{}", "a".repeat(MAX_TARGET));
        for (header, framing) in [
            (format!("GET {long} HTTP/1.1\r\n{HOST}\r\n"), Framing::TargetTooLong),
            (format!("GET /a HTTP/1.1\r\n{fields}{HOST}\r\n"), Framing::TooManyFields),
            (format!("GET /a HTTP/1.1\n{}\n", (fields + HOST).replace('\r', "")), Framing::TooManyFields),
            (format!("GET /a HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "x".repeat(MAX_HEADER)), Framing::TooManyFields),
            (format!("GET /a b HTTP/1.1\r\n{HOST}\r\n"), Framing::RawTarget),
            (format!("GET /a\tb HTTP/1.1\r\n{HOST}\r\n"), Framing::RawTarget),
            (format!("GET /a\0b HTTP/1.0\r\n{HOST}\r\n"), Framing::RawTarget),
            (format!("GET /a\x7f HTTP/1.1\r\n{HOST}\r\n"), Framing::RawTarget),
            (format!("GET /a HTTP/1.1 HTTP/1.1\r\n{HOST}\r\n"), Framing::RawTarget),
        ] {
            let (found, header) = refused(&header);
            assert_eq!(found, framing);
            assert!(header.starts_with("GET /a") && header.ends_with("Connection: close\r\n\r\n"), "{header}");
            assert!(header.contains("\r\nHost: a.test\r\nOrigin: https://b.test\r\n"), "{header}");
            let again = check(header.as_bytes());
            assert!(
                again == Checked::Alone || again == Checked::Request { end: header.len(), chunks: None },
                "{header}"
            );
        }
    }

    #[test]
    fn a_body_whose_end_is_not_clear_is_refused() {
        for fields in [
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length:",
            "Content-Length: 5, 5",
            "Content-Length: 5 5",
            "Content-Length: 99999999999999999999",
            "Content-Length: 5\r\nContent-Length: 5",
            "content-length: 5\r\nX: y\r\ntransfer-encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\r\nmore",
        ] {
            let (framing, header) = refused(&format!("POST / HTTP/1.1\r\n{HOST}{fields}\r\n\r\n"));
            assert_eq!(framing, Framing::Ambiguous, "{fields}");
            assert!(!header.contains("ontent-") && !header.contains("ncoding"), "{header}");
        }
        let (framing, header) = refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(framing, Framing::Ambiguous);
        assert_eq!(header, "POST / HTTP/1.0\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn some_headers_are_no_requests() {
        for (header, why) in [
            ("GET / HTTP/2.0\r\n\r\n", Invalid::Version),
            ("PRI * HTTP/2.0\r\n\r\n", Invalid::Version),
            ("GET / HTTP/3.0\r\n\r\n", Invalid::Version),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", Invalid::Connect),
            ("GET /a b HTTP/1.1\r\nno field\r\n\r\n", Invalid::Fields),
            ("G: /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", Invalid::Fields),
            (" /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", Invalid::Fields),
            ("POST  HTTP/1.1\r\nContent-Length: +5\r\n\r\n", Invalid::Fields),
            ("POST / HTTP/1.1\r\nContent-Length: +5\r\n folded\r\n\r\n", Invalid::Fields),
        ] {
            assert_eq!(check(header.as_bytes()), Checked::Invalid(why), "{header:?}");
        }
    }

    #[test]
    fn a_header_that_was_not_read_can_be_read_later() {
        for (fields, expected) in [
            ("Content-Length: 5\r\n", Body::Length(5)),
            ("Transfer-Encoding: chunked\r\n", Body::Chunked),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Body::Ambiguous),
            ("Content-Length: 5, 5\r\n", Body::Ambiguous),
        ] {
            let header = format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n");
            assert_eq!((check(header.as_bytes()), body(header.as_bytes())), (Checked::Alone, expected), "{fields}");
            let with_body = format!("{header}2\r\nab\r\n0\r\n\r\n");
            assert_ne!(check(with_body.as_bytes()), Checked::Alone, "{fields}");
        }
    }

    /// Pingora answers these, and closes the connection.
    #[test]
    fn the_rest_is_for_pingora() {
        for header in [
            "GET /\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET\r\n\r\n",
            "\x16\x03\x01\r\n\r\n",
            "POST / HTTP/1.1\r\nX A: b\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        ] {
            assert_eq!(check(header.as_bytes()), Checked::Request { end: header.len(), chunks: None }, "{header:?}");
        }
    }
}
