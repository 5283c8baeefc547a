//! An HTTP/2 origin server that records requests and answers as the test defines.
//!
//! Without TLS it expects prior knowledge ([`H2Upstream::start`]); with TLS it accepts the ALPN protocol `h2` only
//! ([`H2Upstream::start_tls`]). A panic in the handler of the test fails the test when the server is dropped.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Authority;
use crate::support::client::{self, Fields};
use crate::support::h2_client::{
    Frame, H2Client, H2Request, HPACK_LATEST, RUNTIME, RawH2, fields, header_map, hpack, hpack_indexed, reason,
    send_all,
};
use crate::support::tls_client::TlsClient;

/// Timeout of [`H2Upstream::wait_for_hits`].
const HITS_TIMEOUT: Duration = Duration::from_secs(10);

/// A running origin server.
pub struct H2Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct H2Received {
    /// `:method`
    pub method: String,
    /// `:scheme`
    pub scheme: Option<String>,
    /// `:authority`
    pub authority: Option<String>,
    /// `:path`
    pub path: String,
    /// The other fields; fields of one name in the order of arrival.
    pub headers: Fields,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Fields,
    /// The number of its connection; the first accepted one is 1.
    pub connection: u64,
    /// The SNI of the client.
    pub sni: Option<String>,
    /// The certificate of the client, as DER.
    pub client_certificate: Option<Vec<u8>>,
}

impl H2Received {
    /// The value of a field.
    ///
    /// # Panics
    ///
    /// If there are several fields of this name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        client::only(&self.headers, name)
    }

    /// The values of all fields of this name, in the order of arrival.
    pub fn all(&self, name: &str) -> Vec<&str> {
        client::all(&self.headers, name)
    }
}

/// The reaction of the server to a request.
pub struct H2Reply {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    delay: Duration,
    reset: Option<Reason>,
    endless: bool,
}

impl H2Reply {
    /// A response without fields and body: its header has END_STREAM.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Fields::new(),
            body: Vec::new(),
            trailers: Fields::new(),
            delay: Duration::ZERO,
            reset: None,
            endless: false,
        }
    }

    /// Resets the stream without a response.
    pub fn reset(reason: Reason) -> Self {
        Self { reset: Some(reason), ..Self::new(200) }
    }

    /// Sends nothing until the server is dropped.
    pub fn hang() -> Self {
        Self::new(200).after(Duration::from_secs(3600))
    }

    /// Sends the header, and no body until the server is dropped.
    pub fn endless(self) -> Self {
        Self { endless: true, ..self }
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// Adds a trailer.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// Delays the reaction.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Answer = dyn Fn(&H2Received) -> H2Reply + Send + Sync;

impl H2Upstream {
    /// Starts a server without TLS that records each request and passes it to `answer`.
    pub fn start(answer: impl Fn(&H2Received) -> H2Reply + Send + Sync + 'static) -> Self {
        Self::start_over(None, Bodies::Read, Arc::new(answer))
    }

    /// Like [`start`](Self::start), over TLS.
    pub fn start_tls(tls: Arc<ServerConfig>, answer: impl Fn(&H2Received) -> H2Reply + Send + Sync + 'static) -> Self {
        Self::start_over(Some(tls.into()), Bodies::Read, Arc::new(answer))
    }

    /// Like [`start`](Self::start), but it answers without reading the body, and ends the stream with
    /// RST_STREAM(NO_ERROR) then, as nginx does.
    pub fn start_early(answer: impl Fn(&H2Received) -> H2Reply + Send + Sync + 'static) -> Self {
        Self::start_over(None, Bodies::Unread, Arc::new(answer))
    }

    fn start_over(tls: Option<TlsAcceptor>, bodies: Bodies, answer: Arc<Answer>) -> Self {
        let listener = RUNTIME.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind a free port");
        let address = listener.local_addr().expect("the address of a bound listener");
        let shared = Arc::new(Shared { bodies, ..Shared::default() });
        let acceptor = RUNTIME.spawn(accept(listener, tls, shared.clone(), answer)).abort_handle();
        Self { address, shared, acceptor }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order of their completion.
    pub fn received(&self) -> Vec<H2Received> {
        self.shared.state().received.clone()
    }

    /// The number of requests so far.
    pub fn hits(&self) -> usize {
        self.shared.state().received.len()
    }

    /// Waits until it has received at least `n` requests.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_hits(&self, n: usize) {
        let come = |state: &mut State| state.received.len() < n;
        drop(self.shared.changed.wait_timeout_while(self.shared.state(), HITS_TIMEOUT, come));
        let hits = self.hits();
        assert!(hits >= n, "{hits} of {n} requests came within {HITS_TIMEOUT:?}");
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        self.shared.state().received.clear();
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        // The acceptor owns its connections and their streams.
        self.acceptor.abort();
        let panic = self.shared.state().panic.take();
        if let Some(panic) = panic
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Bodies {
    #[default]
    Read,
    Unread,
}

/// The shared state of the tasks of one server.
#[derive(Default)]
struct Shared {
    bodies: Bodies,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    received: Vec<H2Received>,
    /// The first panic of the test's handler.
    panic: Option<Box<dyn Any + Send>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client of a connection.
#[derive(Clone, Default)]
struct Peer {
    connection: u64,
    sni: Option<String>,
    certificate: Option<Vec<u8>>,
}

/// Accepts connections until it is aborted together with them.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>, answer: Arc<Answer>) {
    let mut connections = JoinSet::new();
    for connection in 1.. {
        let (stream, _) = listener.accept().await.expect("accept a connection");
        let (tls, shared, answer) = (tls.clone(), shared.clone(), answer.clone());
        connections.spawn(async move {
            // A client may disconnect at any time, and a failed handshake is not an error of the server.
            let _ = open(stream, connection, tls, &shared, &answer).await;
        });
    }
}

async fn open(
    stream: TcpStream,
    connection: u64,
    tls: Option<TlsAcceptor>,
    shared: &Arc<Shared>,
    answer: &Arc<Answer>,
) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return serve(stream, Peer { connection, ..Peer::default() }, shared, answer).await;
    };
    let Ok(stream) = tls.accept(stream).await else { return Ok(()) };
    let session = stream.get_ref().1;
    let peer = Peer {
        connection,
        sni: session.server_name().map(str::to_owned),
        certificate: session.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec()),
    };
    serve(stream, peer, shared, answer).await
}

/// Answers the requests of one connection concurrently.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    shared: &Arc<Shared>,
    answer: &Arc<Answer>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut streams = JoinSet::new();
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let (peer, shared, answer) = (peer.clone(), shared.clone(), answer.clone());
        streams.spawn(async move {
            // The client may reset a stream at any time.
            let _ = serve_stream(request, respond, peer, &shared, &*answer).await;
        });
    }
    Ok(())
}

async fn serve_stream(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: Peer,
    shared: &Shared,
    answer: &Answer,
) -> Result<(), h2::Error> {
    let received = read_request(request, peer, shared.bodies).await?;
    {
        shared.state().received.push(received.clone());
        shared.changed.notify_all();
    }
    let reply = match catch_unwind(AssertUnwindSafe(|| answer(&received))) {
        Ok(reply) => reply,
        Err(panic) => {
            shared.state().panic.get_or_insert(panic);
            H2Reply::reset(Reason::INTERNAL_ERROR)
        }
    };
    tokio::time::sleep(reply.delay).await;
    if let Some(reason) = reply.reset {
        respond.send_reset(reason);
        return Ok(());
    }
    let mut head = http::Response::builder().status(reply.status).body(()).expect("a status");
    *head.headers_mut() = header_map(&reply.fields);
    let bare = reply.body.is_empty() && reply.trailers.is_empty() && !reply.endless;
    let mut stream = respond.send_response(head, bare)?;
    if !reply.body.is_empty() {
        send_all(&mut stream, reply.body.into(), reply.trailers.is_empty()).await?;
    }
    if reply.endless {
        std::future::pending::<()>().await;
    }
    match reply.trailers.is_empty() {
        true => Ok(()),
        false => stream.send_trailers(header_map(&reply.trailers)),
    }
}

async fn read_request(request: http::Request<RecvStream>, peer: Peer, bodies: Bodies) -> Result<H2Received, h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    let mut trailers = None;
    if bodies == Bodies::Read {
        while let Some(bytes) = stream.data().await {
            let bytes = bytes?;
            stream.flow_control().release_capacity(bytes.len())?;
            body.extend_from_slice(&bytes);
        }
        trailers = stream.trailers().await?;
    }
    Ok(H2Received {
        method: head.method.to_string(),
        scheme: head.uri.scheme().map(ToString::to_string),
        authority: head.uri.authority().map(ToString::to_string),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: fields(&head.headers),
        body,
        trailers: trailers.as_ref().map(fields).unwrap_or_default(),
        connection: peer.connection,
        sni: peer.sni,
        client_certificate: peer.certificate,
    })
}

#[test]
fn requests_are_recorded_and_answered_whole() {
    let large = vec![b'a'; 300 << 10];
    let upstream = H2Upstream::start({
        let large = large.clone();
        move |request| match request.path.as_str() {
            "/bare" => H2Reply::new(204),
            "/trailers" => H2Reply::new(200).header("X-Twice", "1").header("x-twice", "2").trailer("x-end", "1"),
            _ => H2Reply::new(200).body(large.clone()).trailer("x-end", "2"),
        }
    });
    let client = H2Client::open_plain(upstream.address()).unwrap();
    let request = |path| H2Request::new("POST", "upstream.test", path).header("cookie", "a=1").header("cookie", "b=2");
    let bare = client.request(&request("/bare")).unwrap();
    let trailers = client.request(&request("/trailers").data("one").data("").data("two").trailer("x-t", "3")).unwrap();
    let all = client.request(&request("/all").data(large.clone())).unwrap();
    assert_eq!((bare.status, bare.body, bare.trailers), (204, vec![], vec![]));
    assert_eq!((trailers.all("x-twice"), trailers.text()), (vec!["1", "2"], ""));
    assert_eq!(trailers.trailers, client::own(&[("x-end", "1")]));
    assert!(all.body == large && all.trailers == client::own(&[("x-end", "2")]));

    let [bare, trailers, all] = &upstream.received()[..] else { panic!("three requests") };
    assert_eq!((bare.scheme.as_deref(), bare.authority.as_deref()), (Some("http"), Some("upstream.test")));
    assert_eq!((bare.all("cookie"), bare.body.len(), bare.trailers.len()), (vec!["a=1", "b=2"], 0, 0));
    assert_eq!((&trailers.body[..], &trailers.trailers[..]), (&b"onetwo"[..], &client::own(&[("x-t", "3")])[..]));
    assert!(all.body == large);
    assert_eq!([bare, trailers, all].map(|request| request.connection), [1, 1, 1]);
    upstream.clear();
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn tls_shows_sni_alpn_and_certificates_to_both_sides() {
    let authority = Authority::new("authority");
    let (server, own) = (authority.issue(&["upstream.test"]), authority.issue(&["client.test"]));
    let upstream =
        H2Upstream::start_tls(server.server(Some(&authority), &["h2"]), |_| H2Reply::reset(Reason::REFUSED_STREAM));
    let stranger = TlsClient::new(&authority, "upstream.test");
    let request = H2Request::new("GET", "upstream.test", "/");
    assert!(H2Client::open(upstream.address(), &stranger).and_then(|client| client.request(&request)).is_err());
    let client = H2Client::open(upstream.address(), &stranger.certificate(&own)).unwrap();
    assert_eq!(client.server_certificate(), server.der);
    let error = client.request(&request).unwrap_err();
    assert_eq!(reason(&error), Some(Reason::REFUSED_STREAM), "{error}");
    let received = upstream.received().pop().unwrap();
    assert_eq!((received.sni.as_deref(), received.client_certificate), (Some("upstream.test"), Some(own.der)));
}

#[test]
#[should_panic(expected = "nobody may ask for /")]
fn a_panic_in_the_handler_fails_the_test() {
    let upstream = H2Upstream::start(|request| panic!("nobody may ask for {}", request.path));
    let client = H2Client::open_plain(upstream.address()).unwrap();
    assert!(client.request(&H2Request::new("GET", "upstream.test", "/")).is_err());
}

#[test]
fn a_drop_ends_hanging_streams() {
    let upstream = H2Upstream::start(|_| H2Reply::hang());
    let mut client = H2Client::open_plain(upstream.address()).unwrap();
    let pending = client.begin(&H2Request::new("GET", "upstream.test", "/")).unwrap();
    upstream.wait_for_hits(1);
    drop(upstream);
    assert!(pending.finish().is_err());
    assert!(client.closed());
}

#[test]
fn raw_frames_arrive_unchanged() {
    let authority = Authority::new("authority");
    let server = authority.issue(&["upstream.test"]).server(None, &["h2"]);
    let upstream = H2Upstream::start_tls(server, |_| H2Reply::new(200));
    let mut raw = RawH2::open(upstream.address(), &TlsClient::new(&authority, "upstream.test"), &[(4, 100)]).unwrap();
    let head = [(":method", "GET"), (":scheme", "https"), (":authority", "upstream.test"), (":path", "/raw")];
    let block = [hpack(&head), hpack_indexed("x-again", "1"), vec![HPACK_LATEST; 2]].concat();
    let frame = Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, 1, block);
    raw.send(&frame.bytes()).unwrap();
    assert_eq!(raw.read().unwrap().kind, Frame::SETTINGS);
    assert_eq!(raw.read_until(Frame::HEADERS).unwrap().stream, 1);
    let received = &upstream.received()[0];
    assert_eq!((received.path.as_str(), received.all("x-again")), ("/raw", vec!["1", "1", "1"]));
}
