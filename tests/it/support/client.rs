//! A raw HTTP/1.1 client, over TCP or TLS.
//!
//! It sends exactly the bytes of the test, follows no redirect, adds no field but a missing `Content-Length`, and
//! returns each field of the response as received, with repetitions. A response that is not well-formed HTTP/1.1 is an
//! error.
//!
//! The second half is the wire format, which [upstream](crate::support::upstream) uses too.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::support::tls_client::{TlsClient, TlsStream};

pub use super::fields::{Fields, all, only, own};

/// Timeout of one socket operation.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends one request on a new connection.
///
/// # Panics
///
/// If there is no well-formed response.
#[track_caller]
pub fn fetch(addr: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    fetch_on(Connection::open(addr), addr, method, target, headers)
}

/// Sends one request on a new TLS connection.
///
/// # Panics
///
/// If there is no well-formed response.
#[track_caller]
pub fn fetch_tls(addr: SocketAddr, tls: &TlsClient, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    fetch_on(Connection::open_tls(addr, tls), addr, method, target, headers)
}

#[track_caller]
fn fetch_on(
    connection: io::Result<Connection>,
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Response {
    match connection.and_then(|mut connection| connection.request(method, target, headers, b"")) {
        Ok(response) => response,
        Err(error) => panic!("{method} {target} at {addr}: {error}"),
    }
}

/// A connection to a server, open until it is dropped.
pub struct Connection {
    stream: BufReader<Stream>,
}

/// The transport of a connection.
enum Stream {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Connection {
    /// Connects to `addr`.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(Stream::Plain(stream)) })
    }

    /// Connects to a Unix-domain socket.
    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(Stream::Unix(stream)) })
    }

    /// Connects to `addr` with a TLS handshake.
    pub fn open_tls(addr: SocketAddr, tls: &TlsClient) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(Stream::Tls(Box::new(tls.connect(addr)?))) })
    }

    /// The certificate of the server, as DER.
    ///
    /// # Panics
    ///
    /// If the connection has no TLS.
    pub fn server_certificate(&self) -> &[u8] {
        self.tls().conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate")
    }

    /// The ALPN protocol, if any.
    ///
    /// # Panics
    ///
    /// If the connection has no TLS.
    pub fn protocol(&self) -> Option<&str> {
        self.tls().conn.alpn_protocol().map(|name| std::str::from_utf8(name).expect("a protocol that we offered"))
    }

    fn tls(&self) -> &TlsStream {
        match self.stream.get_ref() {
            Stream::Tls(stream) => stream,
            Stream::Plain(_) | Stream::Unix(_) => panic!("a plain connection"),
        }
    }

    /// Sends one request and reads its response.
    ///
    /// The caller gives all fields, `Host` too. A non-empty body gets a `Content-Length` if no field gives its length.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut fields = own(headers);
        if !body.is_empty() && !is_framed(&fields) {
            fields.push(("Content-Length".into(), body.len().to_string()));
        }
        self.send(&message(&format!("{method} {target} HTTP/1.1"), &fields, body))?;
        self.read(method)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).map_err(name_timeout)
    }

    /// Closes the sending side, so that the server reads the end of the connection.
    ///
    /// # Panics
    ///
    /// If the connection is not TCP, or has TLS.
    pub fn close_sending(&self) -> io::Result<()> {
        let Stream::Plain(stream) = self.stream.get_ref() else { panic!("no plain TCP") };
        stream.shutdown(Shutdown::Write)
    }

    /// Whether a read would not wait: there are bytes, or the server has closed the connection.
    ///
    /// # Panics
    ///
    /// If the connection is not TCP, or has TLS.
    pub fn is_readable(&self) -> bool {
        let Stream::Plain(stream) = self.stream.get_ref() else { panic!("no plain TCP") };
        stream.set_nonblocking(true).expect("a socket");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket");
        !self.stream.buffer().is_empty() || !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Reads the next final response, or 101; skips interim responses.
    ///
    /// The method of the request decides whether the response has a body.
    pub fn read(&mut self, request_method: &str) -> io::Result<Response> {
        loop {
            let response = self.read_any(request_method)?;
            if response.status >= 200 || response.status == 101 {
                return Ok(response);
            }
        }
    }

    /// Reads the next response, final or interim.
    pub fn read_any(&mut self, request_method: &str) -> io::Result<Response> {
        self.read_one(request_method).map_err(name_timeout)
    }

    fn read_one(&mut self, request_method: &str) -> io::Result<Response> {
        let status = parse_status_line(&read_line(&mut self.stream)?)?;
        let headers = read_fields(&mut self.stream)?;
        let (body, trailers) = match has_body(request_method, status) {
            true => self.read_body(&headers)?,
            false => (Vec::new(), Fields::new()),
        };
        Ok(Response { status, headers, body, trailers })
    }

    fn read_body(&mut self, headers: &Fields) -> io::Result<(Vec<u8>, Fields)> {
        if let Some(body) = read_framed_body(&mut self.stream, headers)? {
            return Ok(body);
        }
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body)?;
        Ok((body, Fields::new()))
    }

    /// Reads this many bytes after a 101.
    pub fn receive(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).map_err(name_timeout)?;
        Ok(bytes)
    }

    /// Waits until the server closes the connection. False after the timeout.
    ///
    /// # Panics
    ///
    /// If the server sends bytes instead.
    #[track_caller]
    pub fn closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => {
                assert!(bytes.is_empty(), "bytes after the last response: {:?}", bytes.escape_ascii().to_string());
                true
            }
            // TLS without close_notify is UnexpectedEof.
            Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A response as received.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All fields in the order of arrival, names in their original case.
    pub headers: Fields,
    /// The decoded body.
    pub body: Vec<u8>,
    /// The trailers, in the order of arrival.
    pub trailers: Fields,
}

impl Response {
    /// The value of a field.
    ///
    /// # Panics
    ///
    /// If there are several fields of this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        only(&self.headers, name)
    }

    /// The values of all fields of this name, in the order of arrival.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.headers, name)
    }

    /// The body as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of UTF-8")
    }
}

/// Whether a response with this status to this method may have a body.
pub fn has_body(request_method: &str, status: u16) -> bool {
    request_method != "HEAD" && status >= 200 && status != 204 && status != 304
}

/// Whether the fields give the length of the body.
pub fn is_framed(fields: &[(String, String)]) -> bool {
    ["Content-Length", "Transfer-Encoding"].iter().any(|name| !all(fields, name).is_empty())
}

/// A message in wire format. The body is written unchanged; the caller encodes chunks.
pub fn message(start_line: &str, fields: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{start_line}\r\n").into_bytes();
    for (name, value) in fields {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Reads one line and removes its CRLF.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(malformed(format!("a line without CR: {:?}", line.escape_ascii().to_string()))),
    }
}

/// Reads fields up to the empty line.
pub fn read_fields(reader: &mut impl BufRead) -> io::Result<Fields> {
    let mut fields = Fields::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(fields);
        }
        match line.split_once(':') {
            Some((name, value)) if !name.is_empty() && !name.contains(char::is_whitespace) => {
                fields.push((name.into(), value.trim_matches([' ', '\t']).into()));
            }
            _ => return Err(malformed(format!("no field: {line:?}"))),
        }
    }
}

/// Reads the body and its trailers, if the fields give its length; otherwise `None`.
pub fn read_framed_body(
    reader: &mut impl BufRead,
    fields: &[(String, String)],
) -> io::Result<Option<(Vec<u8>, Fields)>> {
    let lengths = all(fields, "Content-Length");
    let encodings = all(fields, "Transfer-Encoding");
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Ok(None),
        ([length], []) => {
            let length = number(length, 10).ok_or_else(|| malformed(format!("Content-Length: {length}")))?;
            read_exactly(reader, length).map(|body| Some((body, Fields::new())))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => read_chunked(reader).map(Some),
        _ => Err(malformed(format!("Content-Length: {lengths:?} with Transfer-Encoding: {encodings:?}"))),
    }
}

/// Reads chunks up to the last one, and the trailers.
fn read_chunked(reader: &mut impl BufRead) -> io::Result<(Vec<u8>, Fields)> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader)?;
        let size = line.split(';').next().unwrap_or_default().trim_end();
        let size = number(size, 16).ok_or_else(|| malformed(format!("chunk size: {line:?}")))?;
        if size == 0 {
            return Ok((body, read_fields(reader)?));
        }
        body.append(&mut read_exactly(reader, size)?);
        let end = read_line(reader)?;
        if !end.is_empty() {
            return Err(malformed(format!("after a chunk: {end:?}")));
        }
    }
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if reader.take(length).read_to_end(&mut bytes)? as u64 == length {
        Ok(bytes)
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

fn parse_status_line(line: &str) -> io::Result<u16> {
    let mut parts = line.splitn(3, ' ');
    let status = match (parts.next(), parts.next()) {
        (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) if status.len() == 3 => number(status, 10),
        _ => None,
    };
    status.and_then(|status| status.try_into().ok()).ok_or_else(|| malformed(format!("no status line: {line:?}")))
}

/// A number of digits only; the parsers of `std` accept a sign.
fn number(digits: &str, radix: u32) -> Option<u64> {
    let only_digits = digits.chars().all(|digit| digit.is_digit(radix));
    only_digits.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// The error for bytes that are not HTTP/1.1.
pub fn malformed(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Names a timeout; Linux reports it as "resource temporarily unavailable".
fn name_timeout(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, format!("nothing for {TIMEOUT:?}")),
        _ => error,
    }
}
