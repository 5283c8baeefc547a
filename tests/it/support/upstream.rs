//! An HTTP/1.1 origin server on a free port that records requests and answers as the test defines.
//!
//! One thread accepts, and each connection has its own thread. All threads end when the [`Upstream`] is dropped, except
//! inside the handler of the test. A panic in one of them, such as a failed assertion in the handler or a request that
//! is not HTTP/1.1, then fails the test.
//!
//! It runs without TLS ([`Upstream::start`]) or with TLS ([`Upstream::start_tls`]). A failed handshake is counted
//! ([`Upstream::wait_for_failed_handshakes`]) and is not a request.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use crate::support::client::{self, Connection, Fields, fetch};

/// Timeout of [`Upstream::wait_for_hits`].
const HITS_TIMEOUT: Duration = Duration::from_secs(10);

/// The header before an echo. It has no Sec-WebSocket-Accept, which only clients check.
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: key\r\n\r\n";

/// A running origin server.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts a server that records each request and passes it to `answer`.
    pub fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_over(free(), None, answer)
    }

    /// Like [`start`](Self::start), over TLS.
    pub fn start_tls(tls: Arc<ServerConfig>, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_over(free(), Some(tls), answer)
    }

    /// Like [`start`](Self::start), at a given address: for a server that stops and returns.
    pub fn start_at(address: SocketAddr, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_over(address, None, answer)
    }

    fn start_over(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("bind the address");
        let address = listener.local_addr().expect("the address of a bound listener");
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, tls.as_ref(), &shared, &answer)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order of their completion.
    pub fn received(&self) -> Vec<Received> {
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
        self.shared.wait(HITS_TIMEOUT, |state| state.received.len() >= n);
        let hits = self.hits();
        assert!(hits >= n, "{hits} of {n} requests came within {HITS_TIMEOUT:?}");
    }

    /// Waits until at least `n` connections are closed, by the gateway or by the server.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_closed(&self, n: usize) {
        self.shared.wait(HITS_TIMEOUT, |state| state.closed >= n);
        let closed = self.shared.state().closed;
        assert!(closed >= n, "{closed} of {n} connections are closed after {HITS_TIMEOUT:?}");
    }

    /// Waits until at least `n` TLS handshakes have failed.
    ///
    /// # Panics
    ///
    /// After a timeout.
    #[track_caller]
    pub fn wait_for_failed_handshakes(&self, n: usize) {
        self.shared.wait(HITS_TIMEOUT, |state| state.failed_handshakes >= n);
        let failed = self.shared.state().failed_handshakes;
        assert!(failed >= n, "{failed} of {n} handshakes have failed after {HITS_TIMEOUT:?}");
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        self.shared.state().received.clear();
    }
}

/// An address with a port that the system chooses.
fn free() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop();
        // `accept` has no timeout; one more connection ends it.
        drop(TcpStream::connect(self.address));
        let ended = self.acceptor.take().map_or(Ok(()), JoinHandle::join);
        if let Err(panic) = ended
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The request target, undecoded.
    pub target: String,
    /// All fields in the order of arrival, names in their original case.
    pub headers: Fields,
    /// The decoded body.
    pub body: Vec<u8>,
    /// The number of its connection; the first accepted one is 1.
    pub connection: u64,
    /// The SNI of the client.
    pub sni: Option<String>,
    /// The certificate of the client, as DER.
    pub client_certificate: Option<Vec<u8>>,
}

impl Received {
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
pub struct Reply {
    delay: Duration,
    action: Action,
}

enum Action {
    Respond {
        status: u16,
        fields: Fields,
        body: Vec<u8>,
    },
    Write(Vec<u8>),
    /// Writes these bytes, and then echoes.
    Echo(Vec<u8>),
    Close,
    Abort,
}

impl Reply {
    /// A response without fields and body.
    ///
    /// It gets a `Content-Length` if it needs one and no field gives the length. The connection is kept unless either
    /// side sends `Connection: close`.
    pub fn new(status: u16) -> Self {
        Self::at_once(Action::Respond { status, fields: Fields::new(), body: Vec::new() })
    }

    /// Sends these bytes unchanged and closes the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::at_once(Action::Write(bytes.into()))
    }

    /// Sends 101 as a WebSocket server does, and then echoes every byte.
    pub fn echo() -> Self {
        Self::switch(SWITCH)
    }

    /// Sends this 101, and then echoes every byte.
    pub fn switch(response: impl Into<Vec<u8>>) -> Self {
        Self::at_once(Action::Echo(response.into()))
    }

    /// Sends nothing until the upstream is dropped.
    pub fn hang() -> Self {
        Self::reset().after(Duration::MAX)
    }

    /// Closes the connection without a response.
    pub fn reset() -> Self {
        Self::at_once(Action::Close)
    }

    /// Resets the connection without a response, as a process that dies.
    pub fn abort() -> Self {
        Self::at_once(Action::Abort)
    }

    fn at_once(action: Action) -> Self {
        Self { delay: Duration::ZERO, action }
    }

    /// Adds a field to a [new](Self::new) response.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Action::Respond { fields, .. } = &mut self.action else {
            panic!("only a response has fields: {name}");
        };
        fields.push((name.into(), value.into()));
        self
    }

    /// Sets the body of a [new](Self::new) response.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        let Action::Respond { body, .. } = &mut self.action else {
            panic!("only a response has a body");
        };
        *body = bytes.into();
        self
    }

    /// Delays the reaction. If the upstream is dropped during the delay, the connection closes.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The shared state of the threads of one server.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    /// The open connections; a thread removes its own at its end.
    connections: Vec<Weak<TcpStream>>,
    /// The number of ended connections.
    closed: usize,
    failed_handshakes: usize,
    stopping: bool,
}

impl Shared {
    /// The state. A panic cannot leave it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the condition holds, for `timeout` at most.
    fn wait(&self, timeout: Duration, condition: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.state(), timeout, |state| !condition(state));
        drop(waited);
    }

    fn record(&self, request: &Received) {
        self.state().received.push(request.clone());
        self.changed.notify_all();
    }

    fn count_closed(&self) {
        self.state().closed += 1;
        self.changed.notify_all();
    }

    fn count_failed_handshake(&self) {
        self.state().failed_handshakes += 1;
        self.changed.notify_all();
    }

    /// Registers a connection, which [`stop`](Self::stop) will shut down. False if the server has stopped already.
    fn admit(&self, stream: &Arc<TcpStream>) -> bool {
        let mut state = self.state();
        state.connections.push(Arc::downgrade(stream));
        !state.stopping
    }

    /// Ends all waits of the threads: delays, reads and writes.
    fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        for stream in state.connections.iter().filter_map(Weak::upgrade) {
            // An error means that the connection has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
}

/// Accepts connections until the server stops, then joins their threads.
fn accept(
    listener: &TcpListener,
    tls: Option<&Arc<ServerConfig>>,
    shared: &Shared,
    answer: &(impl Fn(&Received) -> Reply + Sync),
) {
    thread::scope(|scope| {
        for (connection, stream) in (1..).zip(listener.incoming()) {
            let stream = Arc::new(stream.expect("accept a connection"));
            // An error means that the connection has ended already.
            let _ = stream.set_nodelay(true);
            if !shared.admit(&stream) {
                break;
            }
            scope.spawn(move || {
                let served = match tls {
                    None => serve(&*stream, &Peer { connection, sni: None, certificate: None }, shared, answer),
                    Some(tls) => serve_tls(&stream, connection, tls, shared, answer),
                };
                if served.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted) {
                    SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).expect("a socket that can be reset");
                }
                drop(stream);
                shared.count_closed();
                match served {
                    Err(error) if error.kind() == ErrorKind::InvalidData => {
                        panic!("not HTTP/1.1: {error}")
                    }
                    // A client may disconnect at any time.
                    Ok(()) | Err(_) => {}
                }
            });
        }
    });
}

/// Makes the handshake, then answers the requests of the connection.
fn serve_tls(
    mut socket: &TcpStream,
    connection: u64,
    tls: &Arc<ServerConfig>,
    shared: &Shared,
    answer: &impl Fn(&Received) -> Reply,
) -> io::Result<()> {
    let mut tls = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        if tls.complete_io(&mut socket).is_err() {
            shared.count_failed_handshake();
            return Ok(());
        }
    }
    let peer = Peer {
        connection,
        sni: tls.server_name().map(str::to_owned),
        certificate: tls.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec()),
    };
    serve(StreamOwned::new(tls, socket), &peer, shared, answer)
}

/// The client of a connection.
struct Peer {
    connection: u64,
    sni: Option<String>,
    certificate: Option<Vec<u8>>,
}

/// Answers the requests of one connection until either side closes it.
fn serve(
    stream: impl Read + Write,
    peer: &Peer,
    shared: &Shared,
    answer: &impl Fn(&Received) -> Reply,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let write = |stream: &mut BufReader<_>, bytes: &[u8]| {
        let stream: &mut _ = stream.get_mut();
        Write::write_all(stream, bytes)?;
        Write::flush(stream)
    };
    while let Some(request) = read_request(&mut stream, peer)? {
        shared.record(&request);
        let reply = answer(&request);
        shared.wait(reply.delay, |state| state.stopping);
        if shared.state().stopping {
            break;
        }
        match reply.action {
            Action::Close => break,
            Action::Abort => return Err(ErrorKind::ConnectionAborted.into()),
            Action::Write(bytes) => {
                write(&mut stream, &bytes)?;
                break;
            }
            Action::Echo(response) => {
                write(&mut stream, &response)?;
                loop {
                    let bytes = stream.fill_buf()?.to_vec();
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    stream.consume(bytes.len());
                    write(&mut stream, &bytes)?;
                }
            }
            Action::Respond { status, fields, body } => {
                let last = says_close(&request.headers) || says_close(&fields);
                write(&mut stream, &response(&request.method, status, fields, &body))?;
                if last {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Reads the next request; `None` if the client closed the connection.
fn read_request(reader: &mut impl BufRead, peer: &Peer) -> io::Result<Option<Received>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let line = client::read_line(reader)?;
    let parts: Vec<&str> = line.split(' ').collect();
    let &[method, target, "HTTP/1.1" | "HTTP/1.0"] = parts.as_slice() else {
        return Err(client::malformed(format!("no request line: {line:?}")));
    };
    let headers = client::read_fields(reader)?;
    let (body, _trailers) = client::read_framed_body(reader, &headers)?.unwrap_or_default();
    Ok(Some(Received {
        method: method.into(),
        target: target.into(),
        headers,
        body,
        connection: peer.connection,
        sni: peer.sni.clone(),
        client_certificate: peer.certificate.clone(),
    }))
}

fn says_close(fields: &[(String, String)]) -> bool {
    client::all(fields, "Connection")
        .iter()
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// A response in wire format, with the length and the body that the method and the status allow.
fn response(method: &str, status: u16, mut fields: Fields, body: &[u8]) -> Vec<u8> {
    // The response to HEAD has the length of the response to GET.
    if client::has_body("GET", status) && !client::is_framed(&fields) {
        fields.push(("Content-Length".into(), body.len().to_string()));
    }
    let body = if client::has_body(method, status) { body } else { b"" };
    client::message(&format!("HTTP/1.1 {status} "), &fields, body)
}

const HOST: (&str, &str) = ("Host", "upstream.test");

#[test]
fn requests_share_a_kept_connection_and_are_recorded() {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.target.as_str()));
    let mut connection = Connection::open(upstream.address()).unwrap();
    let first = connection.request("GET", "/first", &[HOST, ("X-Twice", "1"), ("x-twice", "2")], b"").unwrap();
    let second = connection.request("POST", "/second", &[HOST], b"body").unwrap();
    fetch(upstream.address(), "GET", "/third", &[HOST]);

    assert_eq!((first.status, first.text(), second.text()), (200, "/first", "/second"));
    assert_eq!(first.headers, client::own(&[("Content-Length", "6")]));
    let [first, second, third] = &upstream.received()[..] else { panic!("three requests") };
    assert_eq!(first.all("x-TWICE"), ["1", "2"]);
    assert_eq!(first.headers, client::own(&[HOST, ("X-Twice", "1"), ("x-twice", "2")]));
    assert_eq!((second.method.as_str(), second.header("content-length")), ("POST", Some("4")));
    assert_eq!(second.body, b"body");
    assert_eq!([first, second, third].map(|request| request.connection), [1, 1, 2]);

    upstream.clear();
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn chunked_bodies_are_read_on_both_sides() {
    const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");
    let upstream = Upstream::start(|_| {
        Reply::new(200).header(CHUNKED.0, CHUNKED.1).body("2;ext=1\r\nan\r\n4\r\nswer\r\n0\r\nTrailer: 1\r\n\r\n")
    });
    let mut connection = Connection::open(upstream.address()).unwrap();
    for _ in 0..2 {
        let body = b"3\r\nque\r\n4\r\nstio\r\n1\r\nn\r\n0\r\n\r\n";
        assert_eq!(connection.request("POST", "/", &[HOST, CHUNKED], body).unwrap().text(), "answer");
    }
    assert!(upstream.received().iter().all(|request| request.body == b"question"));
}

#[test]
fn a_response_without_a_body_has_none() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(200).body("of a GET"),
        _ => Reply::new(204),
    });
    let mut connection = Connection::open(upstream.address()).unwrap();
    let head = connection.request("HEAD", "/", &[HOST], b"").unwrap();
    let no_content = connection.request("OPTIONS", "/", &[HOST, ("Connection", "close")], b"").unwrap();
    assert_eq!((head.header("Content-Length"), head.text()), (Some("8"), ""));
    assert_eq!((no_content.status, no_content.headers), (204, Fields::new()));
    assert!(connection.closed());
}

#[test]
fn a_raw_reply_is_sent_unchanged_and_closes_the_connection() {
    let upstream = Upstream::start(|_| {
        Reply::raw(concat!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            "HTTP/1.0 200 OK\r\nVary: A\r\nvary:B \r\n\r\nto the end",
        ))
    });
    let response = fetch(upstream.address(), "GET", "/", &[HOST]);
    assert_eq!((response.all("Vary"), response.text()), (vec!["A", "B"], "to the end"));
}

#[test]
fn a_reset_gives_no_response() {
    let upstream = Upstream::start(|_| Reply::reset());
    let mut connection = Connection::open(upstream.address()).unwrap();
    let error = connection.request("GET", "/", &[HOST], b"").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(connection.closed());
}

#[test]
fn a_drop_closes_hanging_waiting_and_idle_connections() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/hang" => Reply::hang(),
        _ => Reply::new(200).after(Duration::from_secs(3600)),
    });
    let mut idle = Connection::open(upstream.address()).unwrap();
    let mut waiting = ["/hang", "/wait"].map(|target| {
        let mut connection = Connection::open(upstream.address()).unwrap();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: upstream.test\r\n\r\n").as_bytes()).unwrap();
        connection
    });
    upstream.wait_for_hits(2);
    drop(upstream);
    assert!(idle.closed());
    assert!(waiting.iter_mut().all(Connection::closed));
}

#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn a_panic_in_the_handler_fails_the_test() {
    let upstream = Upstream::start(|request| panic!("nobody may ask for {}", request.target));
    let mut connection = Connection::open(upstream.address()).unwrap();
    assert!(connection.request("GET", "/", &[HOST], b"").is_err());
}
