//! Formats a line of the access log. The result depends only on the record and the time.
//!
//! Clients control most of a line. For any input, the result is one line of at most [`LONGEST`] bytes. `json` is valid
//! JSON. `text` has no characters that a terminal interprets. Each field has a maximum size after escaping. A longer
//! value is cut and ends with `…`.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use crate::cors::ReportOnly;
use crate::record::RequestRecord;
use crate::snapshot::{Address, LogFormat};

/// Maximum size of a line in bytes. It is `PIPE_BUF` of Linux: a write of this size to a pipe is atomic, so two
/// processes that write to the same pipe cannot mix their lines.
pub(crate) const LONGEST: usize = 4096;

/// Maximum sizes of the fields in bytes, after escaping. Their sum, with the keys and the other fields, is below
/// [`LONGEST`].
mod max {
    pub(super) const METHOD: usize = 32;
    pub(super) const HOST: usize = 300;
    pub(super) const PATH: usize = 1024;
    pub(super) const ORIGIN: usize = 320;
    pub(super) const USER_AGENT: usize = 256;
    pub(super) const NAME: usize = 256;
    pub(super) const NODE: usize = 128;
    pub(super) const ERROR: usize = 64;
    pub(super) const ERROR_DETAIL: usize = 320;
    pub(super) const ID: usize = 128;
}

/// The end of a value that was cut. All other characters of a line are ASCII.
const CUT: &str = "…";

/// RFC 3339 in UTC with milliseconds, as in the log.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// The way to escape characters that would end a JSON string or a line, or that a terminal would interpret.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// JSON escapes. Invalid UTF-8 becomes U+FFFD.
    Json,
    /// `\x1b` for each byte. Spaces are escaped too, because they separate the fields.
    Text,
}

/// Appends the line of a request. `millis` is the time of the request's end, in milliseconds since the Unix epoch.
pub(crate) fn append(format: LogFormat, record: &RequestRecord<'_>, millis: u64, out: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(record, millis, out),
        LogFormat::Text => text(record, millis, out),
    }
}

// === JSON ===

/// Appends a line in JSON. Every line has all fields, in this order.
fn json(record: &RequestRecord<'_>, millis: u64, out: &mut Vec<u8>) {
    let asked = record.request;
    let header = |name| asked.map(|asked| values(asked.headers, name));
    out.extend_from_slice(b"{\"time\":\"");
    time(millis, out);
    out.push(b'"');
    let mut object = Object(out);
    object.quoted("client", |out| ip(record.client, out));
    object.plain("scheme", Some(record.scheme.as_str()));
    object.string("method", asked.map(|asked| asked.method.as_str().as_bytes()), max::METHOD);
    object.string("host", asked.map(|asked| asked.authority).filter(|host| !host.is_empty()), max::HOST);
    match asked.and_then(|asked| asked.forwarded) {
        // A host that the parser accepts needs no escaping.
        Some(own) => {
            object.quoted("forwarded_host", |out| show_within(out, format_args!("{}", own.authority()), max::HOST));
        }
        None => object.literal("forwarded_host", "null"),
    }
    object.string("path", asked.map(|asked| asked.path), max::PATH);
    object.plain("protocol", asked.map(|asked| protocol(asked.version)));
    object.number("status", record.status.map(|status| status.as_u16().into()));
    object.number("bytes", Some(record.body_bytes as u64));
    object.millis("duration_ms", Some(record.duration));
    object.string("route", record.route.map(str::as_bytes), max::NAME);
    object.plain("cors", Some(record.kind.code()));
    object.strings("origin", header(header::ORIGIN), max::ORIGIN);
    object.plain("reason", Some(record.outcome.code()));
    object.literal("refused", if record.refused { "true" } else { "false" });
    match record.report_only {
        Some(report) => object.quoted("report_only", |out| reported(report, out)),
        None => object.literal("report_only", "null"),
    }
    object.string("error", record.failure.map(str::as_bytes), max::ERROR);
    object.string("error_detail", record.failure_detail.map(str::as_bytes), max::ERROR_DETAIL);
    let upstream = record.upstream;
    object.string("upstream", upstream.map(|upstream| upstream.name.as_bytes()), max::NAME);
    match upstream.and_then(|upstream| upstream.address) {
        Some(Address::Ip(node)) => object.quoted("node", |out| address(*node, out)),
        Some(Address::Unix(path)) => object.quoted("node", |out| {
            out.extend_from_slice(b"unix:");
            escape(out, path.as_bytes(), max::NODE, Style::Json);
        }),
        None => object.literal("node", "null"),
    }
    object.millis("upstream_ms", upstream.and_then(|upstream| upstream.duration));
    object.number("tries", upstream.map(|upstream| upstream.attempts as u64));
    object.strings("user_agent", header(header::USER_AGENT), max::USER_AGENT);
    object.quoted("request_id", |out| show_within(out, format_args!("{}", record.id), max::ID));
    object.number("generation", Some(record.generation));
    out.extend_from_slice(b"}\n");
}

/// Appends members to a JSON object that already has its first member.
struct Object<'b>(&'b mut Vec<u8>);

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// Appends `true`, `false`, `null` or digits.
    fn literal(&mut self, key: &str, literal: &str) {
        self.key(key);
        self.0.extend_from_slice(literal.as_bytes());
    }

    fn number(&mut self, key: &str, number: Option<u64>) {
        match number {
            Some(number) => self.literal(key, itoa::Buffer::new().format(number)),
            None => self.literal(key, "null"),
        }
    }

    /// Appends a number of milliseconds with three decimal places.
    fn millis(&mut self, key: &str, duration: Option<Duration>) {
        let Some(duration) = duration else { return self.literal(key, "null") };
        self.key(key);
        millis_of(duration, self.0);
    }

    /// Appends a text that needs no escaping.
    fn plain(&mut self, key: &str, text: Option<&str>) {
        match text {
            Some(text) => self.quoted(key, |out| out.extend_from_slice(text.as_bytes())),
            None => self.literal(key, "null"),
        }
    }

    fn string(&mut self, key: &str, text: Option<&[u8]>, most: usize) {
        self.strings(key, text.map(std::iter::once), most);
    }

    /// Appends several values, joined as in Fetch's "get" for header lists. Without a value it appends `null`.
    fn strings<'a>(&mut self, key: &str, texts: Option<impl Iterator<Item = &'a [u8]>>, most: usize) {
        let mut texts = texts.into_iter().flatten();
        match texts.next() {
            Some(first) => self.quoted(key, |out| join(out, first, texts, most, Style::Json)),
            None => self.literal(key, "null"),
        }
    }

    fn quoted(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.0.push(b'"');
        write(self.0);
        self.0.push(b'"');
    }
}

// === text ===

/// Appends a line in text. The fields of fixed width come first, so they form columns.
fn text(record: &RequestRecord<'_>, millis: u64, out: &mut Vec<u8>) {
    let asked = record.request;
    let style = Style::Text;
    time(millis, out);
    show(out, format_args!(" {:<15} ", record.client));
    padded(out, 7, |out| {
        escape(out, asked.map_or(b"-", |asked| asked.method.as_str().as_bytes()), max::METHOD, style);
    });
    match record.status {
        Some(status) => show(out, format_args!(" {}", status.as_u16())),
        None => out.extend_from_slice(b"   -"),
    }
    let micros = record.duration.as_micros();
    show(out, format_args!(" {:>6}.{}ms {:<20} ", micros / 1000, micros % 1000 / 100, record.outcome.code()));
    let (host, path) = asked.map_or((&b"-"[..], &b""[..]), |asked| (asked.authority, asked.path));
    escape(out, host, max::HOST, style);
    escape(out, path, max::PATH, style);
    out.push(b' ');
    escape(out, record.route.map_or(b"-", str::as_bytes), max::NAME, style);
    out.push(b' ');
    show_within(out, format_args!("{}", record.id), max::ID);
    let mut origins = asked.into_iter().flat_map(|asked| values(asked.headers, header::ORIGIN));
    if let Some(first) = origins.next() {
        out.extend_from_slice(b" origin=");
        join(out, first, origins, max::ORIGIN, style);
    }
    if let Some(report) = record.report_only {
        out.extend_from_slice(b" report_only=");
        reported(report, out);
    }
    if let Some(failure) = record.failure {
        out.extend_from_slice(b" error=");
        escape(out, failure.as_bytes(), max::ERROR, style);
    }
    out.push(b'\n');
}

/// Appends the text that `write` makes, padded with spaces to `width`.
fn padded(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    write(out);
    while out.len() < begin + width {
        out.push(b' ');
    }
}

// === both ===

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}

/// Appends a value such as `would_refuse:origin_not_allowed`.
fn reported(ReportOnly { change, reason }: ReportOnly, out: &mut Vec<u8>) {
    out.extend_from_slice(change.code().as_bytes());
    out.push(b':');
    out.extend_from_slice(reason.code().as_bytes());
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn time(millis: u64, out: &mut Vec<u8>) {
    let time = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    // Printing fails only for years above 9999. A vector accepts all bytes.
    let _ = TIME.print_timestamp(&time.unwrap_or(Timestamp::UNIX_EPOCH), out);
}

/// Appends an address. `Display` of an address is slower: it would take a third of the time of the whole line.
fn ip(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(ip) = ip else { return show(out, format_args!("{ip}")) };
    for (i, octet) in ip.octets().into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

fn address(address: SocketAddr, out: &mut Vec<u8>) {
    if address.is_ipv6() {
        return show(out, format_args!("{address}"));
    }
    ip(address.ip(), out);
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
}

fn millis_of(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    out.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
    let rest = micros % 1000;
    let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// Adapts a vector to `write!`.
struct Out<'b>(&'b mut Vec<u8>);

impl fmt::Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn show(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // A vector accepts all bytes, so this cannot fail.
    let _ = Out(out).write_fmt(text);
}

/// Appends at most `most` bytes. `text` must be ASCII that needs no escaping.
fn show_within(out: &mut Vec<u8>, text: fmt::Arguments<'_>, most: usize) {
    let begin = out.len();
    show(out, text);
    if out.len() - begin > most {
        out.truncate(begin + most);
        out.extend_from_slice(CUT.as_bytes());
    }
}

/// Appends texts, separated by ", ". The maximum of `most` bytes is for all texts together.
fn join<'a>(out: &mut Vec<u8>, first: &[u8], more: impl Iterator<Item = &'a [u8]>, most: usize, style: Style) {
    let begin = out.len();
    let mut ended = escape(out, first, most, style);
    for text in more {
        for text in [&b", "[..], text] {
            let Whole::Yes = ended else { return };
            ended = escape(out, text, most.saturating_sub(out.len() - begin), style);
        }
    }
}

/// Whether a text was written completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    Cut,
}

/// Appends an escaped text of at most `most` bytes. If the text was cut, [`CUT`] follows.
fn escape(out: &mut Vec<u8>, text: &[u8], most: usize, style: Style) -> Whole {
    let end = out.len() + most;
    let mut rest = text;
    while let Some(&first) = rest.first() {
        let plain = plain(rest, style);
        let room = end - out.len();
        if plain > room {
            out.extend_from_slice(&rest[..room]);
            out.extend_from_slice(CUT.as_bytes());
            return Whole::Cut;
        }
        if plain > 0 {
            out.extend_from_slice(&rest[..plain]);
            rest = &rest[plain..];
            continue;
        }
        let mut unit = Unit::default();
        let taken = match style {
            Style::Text => {
                unit.push(format_args!("\\x{first:02x}"));
                1
            }
            Style::Json => json_unit(rest, first, &mut unit),
        };
        if unit.length > room {
            out.extend_from_slice(CUT.as_bytes());
            return Whole::Cut;
        }
        out.extend_from_slice(&unit.bytes[..unit.length]);
        rest = &rest[taken..];
    }
    Whole::Yes
}

/// Escapes the first character of `rest` into `unit`. Returns the number of bytes of this character in `rest`.
fn json_unit(rest: &[u8], first: u8, unit: &mut Unit) -> usize {
    match first {
        b'"' | b'\\' => {
            unit.push(format_args!("\\{}", char::from(first)));
            1
        }
        0..0x80 => {
            unit.push(format_args!("\\u{first:04x}"));
            1
        }
        // A character has at most four bytes.
        _ => match rest[..rest.len().min(4)].utf8_chunks().next() {
            Some(chunk) => match chunk.valid().chars().next() {
                Some(c) => {
                    for half in c.encode_utf16(&mut [0; 2]) {
                        unit.push(format_args!("\\u{half:04x}"));
                    }
                    c.len_utf8()
                }
                None => {
                    unit.push(format_args!("\\ufffd"));
                    chunk.invalid().len()
                }
            },
            None => rest.len(),
        },
    }
}

/// Returns the number of leading bytes that need no escaping. Most texts need no escaping, and a check of eight bytes
/// at a time is faster.
fn plain(text: &[u8], style: Style) -> usize {
    let all = |bytes: &[u8]| bytes.iter().fold(true, |all, b| all & is_plain(*b, style));
    let eights = text.chunks_exact(8).take_while(|eight| all(eight)).count() * 8;
    let rest = text.get(eights..).unwrap_or_default();
    eights + rest.iter().take_while(|b| is_plain(**b, style)).count()
}

/// Returns true for printable ASCII without a special meaning in the style. All other characters are escaped. A list of
/// the characters that control a terminal, change the writing direction or have no width would never be complete.
fn is_plain(byte: u8, style: Style) -> bool {
    match style {
        Style::Json => matches!(byte, 0x20..=0x7e if byte != b'"' && byte != b'\\'),
        Style::Text => matches!(byte, 0x21..=0x7e if byte != b'\\'),
    }
}

/// One escaped character, which is written completely or not at all. The longest is a UTF-16 surrogate pair in JSON.
#[derive(Default)]
struct Unit {
    bytes: [u8; 12],
    length: usize,
}

impl Unit {
    fn push(&mut self, text: fmt::Arguments<'_>) {
        // The longest escape fits, so this cannot fail.
        let _ = self.write_fmt(text);
    }
}

impl fmt::Write for Unit {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use http::{Method, StatusCode};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::cors::Reason;
    use crate::decide::{RequestKind, RequestOutcome};
    use crate::domain::Scheme;
    use crate::record::request_id::RequestId;
    use crate::record::{MethodClass, RequestLine, UpstreamAttempt};
    use crate::snapshot::{CompileEnv, Snapshot, load};

    const CONFIG: &str = "{ listeners: [{ address: '127.0.0.1:1' }], services: [{ name: api, upstream: \
                          { nodes: [{ address: '127.0.0.1:2' }] } }] }";

    static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| load(CONFIG, CompileEnv::NONE).snapshot.unwrap());

    /// The values that a client controls.
    #[derive(Debug, Clone, Default)]
    struct Sent {
        host: Vec<u8>,
        path: Vec<u8>,
        origins: Vec<Vec<u8>>,
        user_agent: Vec<u8>,
    }

    fn line_of(format: LogFormat, sent: &Sent) -> Vec<u8> {
        let mut headers = HeaderMap::new();
        let field = |bytes: &[u8]| HeaderValue::from_bytes(bytes).ok();
        for origin in &sent.origins {
            headers.extend(field(origin).map(|value| (header::ORIGIN, value)));
        }
        headers.extend(field(&sent.user_agent).map(|value| (header::USER_AGENT, value)));
        let id = RequestId::Own(*b"0123456789abcdef", 1);
        let node = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 2)));
        let record = RequestRecord {
            generation: 1,
            route: Some(&SNAPSHOT.route(0).name),
            kind: RequestKind::Actual,
            outcome: RequestOutcome::Cors(Reason::OriginNotAllowed),
            refused: true,
            report_only: None,
            client: IpAddr::from([203, 0, 113, 7]),
            scheme: Scheme::Https,
            method: MethodClass::Get,
            request: Some(RequestLine {
                method: &Method::GET,
                authority: &sent.host,
                forwarded: None,
                path: &sent.path,
                version: Version::HTTP_2,
                headers: &headers,
            }),
            status: Some(StatusCode::OK),
            body_bytes: 17,
            duration: Duration::from_micros(12_034),
            upstream: Some(UpstreamAttempt {
                name: "api",
                address: Some(&node),
                duration: Some(Duration::from_micros(999)),
                attempts: 1,
            }),
            failure: None,
            failure_detail: None,
            id: &id,
        };
        let mut out = Vec::new();
        append(format, &record, 1_795_489_253_007, &mut out);
        out
    }

    fn ordinary() -> Sent {
        Sent {
            host: b"api.test:8443".to_vec(),
            path: b"/v1/json".to_vec(),
            origins: vec![b"https://evil.test".to_vec()],
            user_agent: b"curl/8.5.0".to_vec(),
        }
    }

    #[test]
    fn a_line_of_json() {
        let expected = concat!(
            r#"{"time":"2026-11-24T03:00:53.007Z","client":"203.0.113.7","scheme":"https","method":"GET","#,
            r#""host":"api.test:8443","forwarded_host":null,"path":"/v1/json","protocol":"HTTP/2","status":200,"bytes":17,"#,
            r#""duration_ms":12.034,"route":"api","cors":"actual","origin":"https://evil.test","#,
            r#""reason":"origin_not_allowed","refused":true,"report_only":null,"error":null,"error_detail":null,"upstream":"api","node":"127.0.0.1:2","#,
            r#""upstream_ms":0.999,"tries":1,"user_agent":"curl/8.5.0","#,
            r#""request_id":"0123456789abcdef0000000000000001","generation":1}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line_of(LogFormat::Json, &ordinary())).unwrap(), expected);
    }

    #[test]
    fn a_line_of_text() {
        let expected = "2026-11-24T03:00:53.007Z 203.0.113.7     GET     200     12.0ms origin_not_allowed   \
                        api.test:8443/v1/json api 0123456789abcdef0000000000000001 origin=https://evil.test\n";
        assert_eq!(String::from_utf8(line_of(LogFormat::Text, &ordinary())).unwrap(), expected);
    }

    #[test]
    fn special_characters_are_escaped() {
        let rows: [(&[u8], &str, &str); 10] = [
            (b"https://a.test", r"https://a.test", r"https://a.test"),
            (br#"","refused":false,"x":""#, r#"\",\"refused\":false,\"x\":\""#, r#"","refused":false,"x":""#),
            (b"a\r\nb\0", r"a\u000d\u000ab\u0000", r"a\x0d\x0ab\x00"),
            (b"\x1b[2J\x7f", r"\u001b[2J\u007f", r"\x1b[2J\x7f"),
            (b"a b\\x20", r"a b\\x20", r"a\x20b\x5cx20"),
            ("é\u{9b}31m".as_bytes(), r"\u00e9\u009b31m", r"\xc3\xa9\xc2\x9b31m"),
            ("\u{202e}\u{200b}\u{2028}".as_bytes(), r"\u202e\u200b\u2028", r"\xe2\x80\xae\xe2\x80\x8b\xe2\x80\xa8"),
            ("😀".as_bytes(), r"\ud83d\ude00", r"\xf0\x9f\x98\x80"),
            (b"\xff\xc3(", r"\ufffd\ufffd(", r"\xff\xc3("),
            (b"\xf0\x9f\x98", r"\ufffd", r"\xf0\x9f\x98"),
        ];
        for (sent, json, text) in rows {
            for (style, expected) in [(Style::Json, json), (Style::Text, text)] {
                let mut out = Vec::new();
                assert_eq!(escape(&mut out, sent, 100, style), Whole::Yes);
                assert_eq!(String::from_utf8(out).unwrap(), expected, "{style:?} of {}", sent.escape_ascii());
            }
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        for (sent, most, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcdef…"),
            ("abcdé", 10, "abcd\\u00e9"),
            ("abcdé", 9, "abcd…"),
            ("ab😀", 13, "ab…"),
            ("ab😀", 14, "ab\\ud83d\\ude00"),
            ("a", 0, "…"),
            ("", 0, ""),
        ] {
            let mut out = Vec::new();
            escape(&mut out, sent.as_bytes(), most, Style::Json);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{sent} in {most}");
        }
        let mut out = Vec::new();
        join(&mut out, b"abc", [&b"def"[..], b"ghi"].into_iter(), 7, Style::Json);
        assert_eq!(out, "abc, de…".as_bytes());
    }

    #[test]
    fn addresses_are_formatted_as_by_display() {
        for text in ["0.0.0.0:0", "10.0.255.5:8000", "203.0.113.7:65535", "[::1]:80", "[2001:db8::7]:443"] {
            let parsed: SocketAddr = text.parse().unwrap();
            let (mut whole, mut alone) = (Vec::new(), Vec::new());
            address(parsed, &mut whole);
            ip(parsed.ip(), &mut alone);
            assert_eq!(String::from_utf8(whole).unwrap(), text);
            assert_eq!(String::from_utf8(alone).unwrap(), parsed.ip().to_string());
        }
    }

    #[test]
    fn plain_bytes_are_counted_at_any_length() {
        for n in 0..40 {
            let text = [&vec![b'a'; n][..], b"\"bcdefghijkl"].concat();
            assert_eq!(plain(&text, Style::Json), n);
            assert_eq!(plain(&text[..n], Style::Json), n);
        }
    }

    fn anything(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..longest),
            vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'\n'), Just(0x1b), Just(0x9b), Just(b'a')], 0..longest),
            any::<String>().prop_map(String::into_bytes),
        ]
    }

    /// Returns random values of a header field. They have no control characters.
    fn field(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        anything(longest).prop_map(|mut bytes| {
            bytes.retain(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_input_gives_one_line_of_bounded_length(
            host in anything(600), path in anything(3000), origins in vec(field(400), 0..4), user_agent in field(600),
        ) {
            let sent = Sent { host, path, origins, user_agent };
            let line = line_of(LogFormat::Json, &sent);
            prop_assert!(line.len() <= LONGEST, "{} bytes", line.len());
            prop_assert_eq!(line.iter().position(|b| *b == b'\n'), Some(line.len() - 1));
            let value: Value = serde_json::from_slice(&line).expect("JSON");
            prop_assert_eq!(value.as_object().unwrap().len(), 26);
            prop_assert_eq!(&value["refused"], true);
            // The written path must be a prefix of the sent path.
            let path = String::from_utf8_lossy(&sent.path).into_owned();
            let written = value["path"].as_str().unwrap();
            let kept = written.strip_suffix('…').filter(|kept| kept.len() < path.len()).unwrap_or(written);
            prop_assert!(path.starts_with(kept), "{written:?} of {path:?}");

            let line = line_of(LogFormat::Text, &sent);
            prop_assert!(line.len() <= LONGEST, "{} bytes", line.len());
            let (end, inside) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            let inside = std::str::from_utf8(inside).unwrap().replace(CUT, "");
            prop_assert!(inside.bytes().all(|b| (0x20..0x7f).contains(&b)), "{inside}");
            let origins = headers_kept(&sent.origins);
            prop_assert_eq!(inside.matches(" origin=").count(), usize::from(origins > 0), "{}", inside);
        }
    }

    fn headers_kept(values: &[Vec<u8>]) -> usize {
        values.iter().filter(|value| HeaderValue::from_bytes(value).is_ok()).count()
    }

    #[test]
    fn the_longest_line_is_within_the_limit() {
        let worst = |b: u8| vec![b; 9000];
        for b in [0x1f, 0xff, b'"', b'a'] {
            let sent = Sent { host: worst(b), path: worst(b), origins: vec![worst(0xff); 3], user_agent: worst(0xff) };
            for format in [LogFormat::Json, LogFormat::Text] {
                let line = line_of(format, &sent);
                // In this test, the names of route and upstream, error, method and id are short, and there is no
                // report. The sum adds their maximum sizes.
                let reported = "\"would_refuse:header_list_too_long\"".len();
                let others = 2 * max::NAME + max::ERROR + max::ERROR_DETAIL + max::METHOD + max::ID + reported + 60;
                assert!(line.len() + others <= LONGEST, "{} bytes", line.len());
            }
        }
    }
}
