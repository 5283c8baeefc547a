//! A blocking HTTP/2 client, and a raw one that can violate the protocol.
//!
//! [`H2Client`] is the `h2` crate, which follows the protocol: many requests on one connection, bodies, trailers. All
//! connections of the process share one runtime with the [HTTP/2 upstream](crate::support::h2_upstream). [`RawH2`]
//! writes the frames of the test and returns the received ones.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::support::client::{Fields, Response};
use crate::support::tls_client::TlsClient;

/// Timeout of a connection, and of one request with its response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The runtime of all HTTP/2 in the tests.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// A connection, open until it is dropped.
pub struct H2Client {
    sender: SendRequest<Bytes>,
    server_certificate: Option<Vec<u8>>,
    scheme: &'static str,
    /// The result of the connection, after its end.
    ended: watch::Receiver<Option<Result<(), String>>>,
}

/// A request before it is sent.
#[derive(Clone, Debug)]
pub struct H2Request {
    /// `:method`
    pub method: String,
    /// `:authority`
    pub authority: String,
    /// `:path`
    pub path: String,
    /// `:scheme`; None for that of the connection.
    pub scheme: Option<&'static str>,
    /// The other fields.
    pub headers: Fields,
    /// DATA frames; the last one has END_STREAM unless trailers follow. If empty, the header has END_STREAM.
    pub data: Vec<Vec<u8>>,
    /// The trailers.
    pub trailers: Fields,
}

impl H2Request {
    /// A request without a body.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            authority: authority.into(),
            path: path.into(),
            scheme: None,
            headers: Fields::new(),
            data: Vec::new(),
            trailers: Fields::new(),
        }
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a DATA frame, which may be empty. It is split if it exceeds the frame size or the windows.
    pub fn data(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.data.push(bytes.into());
        self
    }

    /// Adds a trailer.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }
}

impl H2Client {
    /// Connects over TLS with ALPN `h2`.
    pub fn open(addr: SocketAddr, tls: &TlsClient) -> io::Result<Self> {
        let tls = tls.clone().protocols(&["h2"]);
        within(async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(tls.config()).connect(tls.name(), stream).await?;
            let session = stream.get_ref().1;
            if session.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server does not agree on h2"));
            }
            let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
            Self::over(stream, "https", certificate).await
        })
    }

    /// Connects without TLS, with prior knowledge.
    pub fn open_plain(addr: SocketAddr) -> io::Result<Self> {
        Self::open_plain_after(addr, b"")
    }

    /// Like [`open_plain`](Self::open_plain), with these bytes in front, such as a PROXY header.
    pub fn open_plain_after(addr: SocketAddr, first: &[u8]) -> io::Result<Self> {
        within(async {
            let mut stream = TcpStream::connect(addr).await?;
            stream.write_all(first).await?;
            Self::over(stream, "http", None).await
        })
    }

    /// Connects to a Unix-domain socket, with prior knowledge.
    pub fn open_unix(path: &Path) -> io::Result<Self> {
        within(async { Self::over(UnixStream::connect(path).await?, "http", None).await })
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        scheme: &'static str,
        server_certificate: Option<Vec<u8>>,
    ) -> io::Result<Self> {
        let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let result = connection.await.map_err(|error| error.to_string());
            // The receiver may be gone.
            let _ = end.send(Some(result));
        });
        Ok(Self { sender, server_certificate, scheme, ended })
    }

    /// The certificate of the server, as DER.
    pub fn server_certificate(&self) -> &[u8] {
        self.server_certificate.as_deref().expect("a connection over TLS")
    }

    /// Sends a request and reads the whole response.
    pub fn request(&self, request: &H2Request) -> io::Result<Response> {
        self.begin(request)?.finish()
    }

    /// Sends a request without waiting for its response.
    pub fn begin(&self, request: &H2Request) -> io::Result<Pending> {
        let (mut pending, mut stream) = self.begin_headers(request, request.data.is_empty())?;
        if request.data.is_empty() {
            return Ok(pending);
        }
        let (data, trailers) = (request.data.clone(), request.trailers.clone());
        // The server may answer before it has read the whole body, so the body is sent in parallel.
        pending.sending = Some(RUNTIME.spawn(async move {
            let last = data.len() - 1;
            for (n, bytes) in data.into_iter().enumerate() {
                send_all(&mut stream, bytes.into(), n == last && trailers.is_empty()).await?;
            }
            match trailers.is_empty() {
                true => Ok(()),
                false => stream.send_trailers(header_map(&trailers)),
            }
        }));
        Ok(pending)
    }

    /// Sends the header of a request. The caller sends the body, or never does.
    pub fn begin_headers(&self, request: &H2Request, end: bool) -> io::Result<(Pending, SendStream<Bytes>)> {
        let uri = http::Uri::builder()
            .scheme(request.scheme.unwrap_or(self.scheme))
            .authority(request.authority.as_str())
            .path_and_query(request.path.as_str())
            .build()
            .map_err(io::Error::other)?;
        let mut head = http::Request::builder().method(request.method.as_str()).uri(uri).body(()).expect("a method");
        *head.headers_mut() = header_map(&request.headers);
        let sender = self.sender.clone();
        let (response, stream) = within(async move {
            sender.ready().await.and_then(|mut sender| sender.send_request(head, end)).map_err(io::Error::other)
        })?;
        Ok((Pending { response, sending: None }, stream))
    }

    /// Waits until the server ends the connection. False after the timeout.
    pub fn closed(&mut self) -> bool {
        RUNTIME.block_on(async { timeout(TIMEOUT, self.ended.wait_for(Option::is_some)).await.is_ok() })
    }
}

/// A request that was sent, before its response is read.
pub struct Pending {
    response: ResponseFuture,
    sending: Option<tokio::task::JoinHandle<Result<(), h2::Error>>>,
}

impl Pending {
    /// Reads the whole response.
    pub fn finish(self) -> io::Result<Response> {
        let (mut response, mut body) = self.head()?;
        within(async {
            response.body = Vec::new();
            while let Some(bytes) = body.data().await {
                let bytes = bytes.map_err(io::Error::other)?;
                body.flow_control().release_capacity(bytes.len()).map_err(io::Error::other)?;
                response.body.extend_from_slice(&bytes);
            }
            let trailers = body.trailers().await.map_err(io::Error::other)?;
            response.trailers = trailers.as_ref().map(fields).unwrap_or_default();
            Ok(response)
        })
    }

    /// Reads the header of the response, but not its body.
    pub fn head(self) -> io::Result<(Response, RecvStream)> {
        within(async {
            let (head, body) = self.response.await.map_err(io::Error::other)?.into_parts();
            let headers = fields(&head.headers);
            let response =
                Response { status: head.status.as_u16(), headers, body: Vec::new(), trailers: Fields::new() };
            // The rest of the request is sent in the background.
            drop(self.sending);
            Ok((response, body))
        })
    }
}

/// Sends one request on a new connection.
///
/// # Panics
///
/// If there is no response.
#[track_caller]
pub fn fetch(addr: SocketAddr, tls: &TlsClient, request: &H2Request) -> Response {
    match H2Client::open(addr, tls).and_then(|client| client.request(request)) {
        Ok(response) => response,
        Err(error) => panic!("{request:?} at {addr}: {error}"),
    }
}

/// The reason of a RST_STREAM or GOAWAY of the server, if the error is one.
pub fn reason(error: &io::Error) -> Option<Reason> {
    error.get_ref()?.downcast_ref::<h2::Error>()?.reason()
}

/// Sends bytes as the windows allow; an empty slice is an empty frame.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    if bytes.is_empty() {
        return stream.send_data(bytes, end);
    }
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        // None: the stream has ended. The reader of the response gets the error.
        let Some(capacity) = poll_fn(|context| stream.poll_capacity(context)).await else { return Ok(()) };
        let part = bytes.split_to(capacity?.min(bytes.len()));
        stream.send_data(part, end && bytes.is_empty())?;
    }
    Ok(())
}

/// Fields in the order of a map; fields of one name stay in order.
pub fn fields(map: &HeaderMap) -> Fields {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Fields as the map of the `http` crate, names in lower case.
pub fn header_map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(name, value): &(String, String)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

/// Runs a future to its end, with the timeout.
fn within<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    RUNTIME.block_on(async {
        timeout(TIMEOUT, future)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, format!("nothing for {TIMEOUT:?}"))))
    })
}

// === raw frames ===

/// The connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that sends the bytes of the test and answers nothing by itself.
pub struct RawH2 {
    stream: Box<dyn Transport>,
    /// The socket below `stream`.
    socket: std::net::TcpStream,
}

trait Transport: Read + Write + Send {}

impl<T: Read + Write + Send> Transport for T {}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Types.
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;

    /// Flags.
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;

    /// A frame to send.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// Its bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a payload that a frame can hold").to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }
}

impl RawH2 {
    /// Connects, and sends the preface and these settings. Acknowledges nothing.
    pub fn open(addr: SocketAddr, tls: &TlsClient, settings: &[(u16, u32)]) -> io::Result<Self> {
        let stream = tls.clone().protocols(&["h2"]).connect(addr)?;
        let socket = stream.sock.try_clone()?;
        Self::begin(Box::new(stream), socket, settings)
    }

    /// Like [`open`](Self::open), without TLS.
    pub fn open_plain(addr: SocketAddr, settings: &[(u16, u32)]) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let socket = stream.try_clone()?;
        Self::begin(Box::new(stream), socket, settings)
    }

    fn begin(stream: Box<dyn Transport>, socket: std::net::TcpStream, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut raw = Self { stream, socket };
        let payload = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        let settings = Frame::new(Frame::SETTINGS, 0, 0, payload.collect::<Vec<_>>());
        raw.send(&[PREFACE, &settings.bytes()].concat())?;
        Ok(raw)
    }

    /// Sets the timeouts for writes and for the next frame.
    pub fn patience(&self, limit: Duration) {
        let socket = &self.socket;
        socket.set_write_timeout(Some(limit)).and_then(|()| socket.set_read_timeout(Some(limit))).expect("a timeout");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads the next frame.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Waits until the server has read all bytes so far, or has ended the connection.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn settle(&mut self) {
        let sent = self.send(&Frame::new(Frame::PING, 0, 0, *b"settled?").bytes());
        let settled = sent.and_then(|()| {
            loop {
                let frame = self.read()?;
                if frame.kind == Frame::PING && frame.flags == Frame::ACK {
                    return Ok(());
                }
            }
        });
        if let Err(error) = settled {
            let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waits, "the server neither reads on nor ends the connection: {error}");
        }
    }

    /// Reads frames up to one of this type, or to the end of the connection.
    pub fn read_until(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }
}

/// Header fields in the simplest form of HPACK: no table, no Huffman.
pub fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |bytes: &str| [hpack_integer(bytes.len(), 7, 0), bytes.as_bytes().to_vec()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A header field that the receiver adds to its dynamic table (RFC 7541 section 6.2.1).
pub fn hpack_indexed(name: &str, value: &str) -> Vec<u8> {
    let mut field = hpack(&[(name, value)]);
    field[0] = 0x40;
    field
}

/// Refers to the newest entry of the dynamic table: the first index after the 61 static ones.
pub const HPACK_LATEST: u8 = 0x80 | 0x3e;

/// An integer with a prefix of this many bits (RFC 7541 section 5.1), and the bits above the prefix.
pub fn hpack_integer(value: usize, prefix: u8, above: u8) -> Vec<u8> {
    let byte = |value: usize| u8::try_from(value).expect("a byte");
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![above | byte(value)];
    }
    let mut bytes = vec![above | byte(most)];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    bytes.push(byte(rest));
    bytes
}

#[test]
fn integers_are_as_in_the_examples_of_rfc_7541() {
    assert_eq!(hpack_integer(10, 5, 0), [10]);
    assert_eq!(hpack_integer(1337, 5, 0), [31, 154, 10]);
    assert_eq!(hpack_integer(42, 8, 0), [42]);
}
