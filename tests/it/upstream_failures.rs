//! Nodes that stop, hang and close connections: the requests that may fail, and the requests that never fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use h2::Reason;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{Frame, H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const UPGRADE: [(&str, &str); 3] = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];

/// A gateway in front of an upstream with these nodes; `more` is added to the upstream.
fn gateway(nodes: &[SocketAddr], more: &str) -> Gateway {
    let nodes: Vec<_> = nodes.iter().map(|at| format!("{{ address: \"{at}\" }}")).collect();
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
upstreams:
  api:
    nodes: [{}]
{more}
services:
  - {{ name: api, upstream: api, cors: {{ allow_origins: https://app.test }} }}
",
        nodes.join(", ")
    ))
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Two nodes: `bad` is the first; the second answers with the body of the request.
fn bad_and_good(bad: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> (Upstream, Upstream) {
    (Upstream::start(bad), Upstream::start(|request| Reply::new(200).body(request.body.clone())))
}

fn send(gateway: &Gateway, method: &str, body: &[u8]) -> Response {
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.request(method, "/", &[HOST, ORIGIN], body).unwrap_or_else(|error| panic!("{method}: {error}"))
}

#[track_caller]
fn assert_readable(response: &Response) {
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{response:?}");
    assert_eq!(response.header("Vary"), Some("Origin"), "{response:?}");
}

// --- retries

#[test]
fn only_idempotent_requests_are_retried_on_another_node() {
    type Bad = fn(&Received) -> Reply;
    let broken: [(&str, Bad, u16); 4] = [
        ("closed", |_| Reply::reset(), 502),
        ("reset", |_| Reply::abort(), 502),
        ("half a header", |_| Reply::raw("HTTP/1.1 200 OK\r\nX-Half: "), 502),
        ("silent", |_| Reply::hang(), 504),
    ];
    for (what, reply, status) in broken {
        let (bad, good) = bad_and_good(reply);
        let nodes = [bad.address(), good.address()];
        let gateway = gateway(&nodes, "    timeouts: { read: 300ms }\n    ejection: false");
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let body: &[u8] = if method == "PUT" { b"body" } else { b"" };
            for _ in 0..2 {
                assert_eq!(send(&gateway, method, body).status, 200, "{what} {method}");
            }
        }
        let before = bad.hits();
        for method in ["POST", "PATCH"] {
            let mut statuses = [send(&gateway, method, b"body"), send(&gateway, method, b"body")].map(|response| {
                assert_readable(&response);
                response.status
            });
            statuses.sort_unstable();
            assert_eq!(statuses, [200, status], "{what} {method}");
        }
        assert_eq!(bad.hits(), before + 2, "{what}: each was sent once");
        assert_eq!(good.received().iter().filter(|request| request.method == "POST").count(), 1, "{what}");
    }
}

#[test]
fn a_response_that_is_not_http_is_not_retried() {
    let (bad, good) = bad_and_good(|_| Reply::raw("220 mail.test ESMTP\r\n\r\n"));
    let gateway = gateway(&[bad.address(), good.address()], "    ejection: { after: 1, for: 1h }");
    let mut statuses = BTreeMap::<u16, usize>::new();
    for _ in 0..10 {
        *statuses.entry(send(&gateway, "GET", b"").status).or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 5), (502, 5)]));
}

#[test]
fn retries_are_limited_and_each_uses_another_node() {
    let nodes: [Upstream; 5] = std::array::from_fn(|_| Upstream::start(|_| Reply::abort()));
    let addresses = nodes.each_ref().map(Upstream::address);
    for (retries, tries) in [(0, 1), (1, 2), (3, 4), (10, 5)] {
        let gateway = gateway(&addresses, &format!("    retries: {retries}\n    ejection: false"));
        let response = send(&gateway, "GET", b"");
        assert_eq!(response.status, 502);
        assert_readable(&response);
        assert_eq!(nodes.iter().map(Upstream::hits).sum::<usize>(), tries);
        assert!(nodes.iter().all(|node| node.hits() <= 1));
        nodes.iter().for_each(Upstream::clear);
    }
}

#[test]
fn a_body_over_the_replay_buffer_is_not_retried() {
    let (bad, good) = bad_and_good(|_| Reply::abort());
    let gateway = gateway(&[bad.address(), good.address()], "    ejection: false");
    let of = |size: usize| {
        let mut statuses = [(); 2].map(|()| send(&gateway, "PUT", &vec![b'a'; size]).status);
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(of(60 << 10), [200, 200]);
    assert_eq!(of(200 << 10), [200, 502]);
}

#[test]
fn no_request_is_retried_after_the_response_header() {
    let (bad, good) = bad_and_good(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"));
    let gateway = gateway(&[bad.address(), good.address()], "    ejection: { after: 1, for: 1h }");
    let broken = (0..4).filter(|_| {
        let mut connection = Connection::open(gateway.address()).unwrap();
        match connection.request("GET", "/", &[HOST], b"") {
            Ok(response) => response.text() != "",
            Err(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
        }
    });
    assert_eq!(broken.count(), 2);
    assert_eq!((bad.hits(), good.hits()), (2, 2));
    assert!(!gateway.stderr().contains("ejected"), "a response has come");
}

/// The interim response of the first node has been sent; the final response comes from the second node.
#[test]
fn a_request_is_retried_after_an_interim_response() {
    let (bad, good) = bad_and_good(|_| Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"));
    let gateway = gateway(&[bad.address(), good.address()], "    ejection: false");
    for _ in 0..2 {
        let response = send(&gateway, "GET", b"");
        assert_eq!(response.status, 200);
        assert_readable(&response);
    }
    assert_eq!((bad.hits(), good.hits()), (1, 2));
}

/// If the node has closed a kept connection, the retry is free, even with `retries: 0` and one node.
#[test]
fn a_closed_keepalive_connection_costs_no_retry() {
    let seen = Mutex::new(HashSet::new());
    let requests = AtomicUsize::new(0);
    let node = Upstream::start(move |request| {
        // The second request of each connection finds a closed connection, but the node itself is up.
        match seen.lock().unwrap().insert(request.connection) {
            true => Reply::new(200).body(requests.fetch_add(1, Ordering::Relaxed).to_string()),
            false => Reply::abort(),
        }
    });
    let gateway = gateway(&[node.address()], "    retries: 0\n    ejection: { after: 1, for: 1h }");
    for i in 0..10 {
        let response = send(&gateway, if i % 2 == 0 { "GET" } else { "PUT" }, b"");
        assert_eq!((response.status, response.text()), (200, i.to_string().as_str()));
    }
    assert!(node.hits() > 10, "no connection was used twice, and this shows nothing");
    assert!(!gateway.stderr().contains("WARN"));
    // A POST is never repeated. A connection is idle only a moment after the response has arrived.
    let lost = (0..100).any(|_| {
        assert_eq!(send(&gateway, "GET", b"").status, 200);
        send(&gateway, "POST", b"body").status == 502
    });
    assert!(lost);
}

/// REFUSED_STREAM of an HTTP/2 node means that the node has not processed the request. Then every method may be
/// retried.
#[test]
fn a_refused_stream_is_retried_for_every_method() {
    let refusing = H2Upstream::start(|_| H2Reply::reset(Reason::REFUSED_STREAM));
    let well = H2Upstream::start(|request| H2Reply::new(200).body(request.body.clone()));
    let nodes = [refusing.address(), well.address()];
    let gateway = gateway(&nodes, "    http2: true\n    ejection: false");
    for _ in 0..4 {
        let response = send(&gateway, "POST", b"body");
        assert_eq!((response.status, response.text()), (200, "body"));
    }
    assert!(refusing.hits() >= 2);
    assert_eq!(well.hits(), 4);
}

/// Without another node, the request is sent to the same node once more (RFC 9113 section 8.7).
#[test]
fn a_request_that_the_only_node_has_not_processed_is_sent_once_more() {
    let requests = AtomicUsize::new(0);
    let node = H2Upstream::start(move |request| match requests.fetch_add(1, Ordering::Relaxed) {
        0 | 2 | 3 => H2Reply::reset(Reason::REFUSED_STREAM),
        _ => H2Reply::new(200).body(request.body.clone()),
    });
    let gateway = gateway(&[node.address()], "    http2: true\n    retries: 0\n    ejection: false");
    let response = send(&gateway, "POST", b"body");
    assert_eq!((response.status, response.text()), (200, "body"));
    assert_eq!(send(&gateway, "POST", b"body").status, 502, "refused twice");
    assert_eq!(node.hits(), 4);
}

/// GOAWAY names the last request of the connection that the node processes.
#[test]
fn a_request_that_goaway_excludes_is_sent_once_more() {
    let node = goaway_then_204(2);
    let gateway = gateway(&[node], "    http2: true\n    retries: 0\n    ejection: false");
    assert_eq!(send(&gateway, "POST", b"body").status, 502, "two connections with GOAWAY");
    assert_eq!(send(&gateway, "POST", b"body").status, 204);
    let node = goaway_then_204(1);
    let gateway = self::gateway(&[node], "    http2: true\n    retries: 0\n    ejection: false");
    assert_eq!(send(&gateway, "POST", b"body").status, 204);
}

/// An HTTP/2 server that answers the first request of its first connections with GOAWAY(NO_ERROR) and last stream 0, and
/// those of later connections with 204.
fn goaway_then_204(connections: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            // Blocks only this connection.
            thread::spawn(move || -> std::io::Result<()> {
                let mut stream = stream?;
                stream.read_exact(&mut [0; 24])?;
                stream.write_all(&Frame::new(Frame::SETTINGS, 0, 0, []).bytes())?;
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head)?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    stream.read_exact(&mut vec![0; length])?;
                    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    match head[3] {
                        Frame::SETTINGS if head[4] & Frame::ACK == 0 => {
                            stream.write_all(&Frame::new(Frame::SETTINGS, Frame::ACK, 0, []).bytes())?;
                        }
                        Frame::HEADERS if i < connections => {
                            // Type GOAWAY: last stream 0, NO_ERROR.
                            stream.write_all(&Frame::new(7, 0, 0, [0; 8]).bytes())?;
                        }
                        Frame::HEADERS => {
                            // `:status: 204` of the static table.
                            let flags = Frame::END_HEADERS | Frame::END_STREAM;
                            stream.write_all(&Frame::new(Frame::HEADERS, flags, id, [0x89]).bytes())?;
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_broken_stream_is_retried_for_idempotent_methods() {
    for (what, reset) in [("reset", true), ("silent", false)] {
        let broken = H2Upstream::start(move |_| match reset {
            true => H2Reply::reset(Reason::INTERNAL_ERROR),
            false => H2Reply::hang(),
        });
        let well = H2Upstream::start(|request| H2Reply::new(200).body(request.body.clone()));
        let nodes = [broken.address(), well.address()];
        let gateway = gateway(&nodes, "    http2: true\n    ejection: false\n    timeouts: { read: 300ms }");
        for _ in 0..4 {
            let response = send(&gateway, "PUT", b"body");
            assert_eq!((response.status, response.text()), (200, "body"), "{what}");
        }
        let mut statuses = [(); 2].map(|()| send(&gateway, "POST", b"body").status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, if reset { 502 } else { 504 }], "{what}");
        assert_eq!(broken.received().iter().filter(|request| request.method == "POST").count(), 1, "{what}");
    }
}

// --- failures of clients

/// A client can stop in the middle of an upload any number of times. The read timeout must not count as a failure of
/// the node.
#[test]
fn a_slow_or_aborted_upload_ejects_no_node() {
    let (one, other) = bad_and_good(|_| Reply::new(200));
    let nodes = [one.address(), other.address()];
    let gateway = gateway(&nodes, "    timeouts: { read: 200ms }\n    ejection: { after: 1, for: 1h }");
    for _ in 0..4 {
        let mut dawdles = Connection::open(gateway.address()).unwrap();
        dawdles
            .send(b"PUT / HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\nContent-Length: 10\r\n\r\nhalf ")
            .unwrap();
        let response = dawdles.read("PUT").unwrap();
        assert_eq!(response.status, 408);
        assert_readable(&response);
        let mut leaves = Connection::open(gateway.address()).unwrap();
        leaves.send(b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\nhalf ").unwrap();
        drop(leaves);
    }
    assert_eq!(send(&gateway, "GET", b"").status, 200);
    assert!(!gateway.stderr().contains("ejected"));
    assert!(!gateway.stderr().contains("no response"), "the client is at fault: {}", gateway.stderr());
}

#[test]
fn a_client_that_disconnects_early_ejects_no_node() {
    let slow = Upstream::start(|request| match request.method.as_str() {
        // This delay is longer than the time for which a request continues without its client.
        "PUT" => Reply::new(200).after(Duration::from_secs(6)),
        _ => Reply::new(200),
    });
    let gateway = gateway(&[slow.address(), slow.address()], "    ejection: { after: 1, for: 1h }");
    for n in 1..=4 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(b"PUT / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
        slow.wait_for_hits(n);
    }
    slow.wait_for_closed(4);
    assert_eq!(send(&gateway, "GET", b"").status, 200);
    assert!(!gateway.stderr().contains("ejected"));
}

// --- timeouts

#[test]
fn a_silent_upstream_gives_504_after_timeouts_total() {
    let silent = [(); 3].map(|()| Upstream::start(|_| Reply::hang()));
    let nodes = silent.each_ref().map(Upstream::address);
    // One attempt whose read timeout is cut; and three attempts, of which the last gets the rest of the time.
    for (timeouts, tries) in [("read: 60s, total: 1s", 1), ("read: 400ms, total: 1s", 3)] {
        let gateway = gateway(&nodes, &format!("    timeouts: {{ {timeouts} }}\n    retries: 9\n    ejection: false"));
        let started = Instant::now();
        let response = send(&gateway, "GET", b"");
        let elapsed = started.elapsed();
        assert_eq!((response.status, response.text()), (504, "The upstream took too long.\n"), "{timeouts}");
        assert_readable(&response);
        assert!((Duration::from_millis(950)..Duration::from_secs(6)).contains(&elapsed), "{timeouts}: {elapsed:?}");
        assert_eq!(silent.iter().map(Upstream::hits).sum::<usize>(), tries, "{timeouts}");
        silent.iter().for_each(Upstream::clear);
    }
}

/// Pingora records an expired write timeout and waits for the response. The time of `read` must not be added.
#[test]
fn a_node_that_reads_nothing_gives_504_after_timeouts_write() {
    for (timeouts, size) in [
        ("write: 1s, read: 60s", 20 << 20),
        // The body fits into the buffers of the sockets, so no write waits.
        ("write: 1s, read: 60s", 1 << 20),
        ("total: 1s", 20 << 20),
    ] {
        // The operating system accepts connections, but nothing reads from them.
        let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gateway =
            gateway(&[node.local_addr().unwrap()], &format!("    timeouts: {{ {timeouts} }}\n    retries: 0"));
        let mut connection = Connection::open(gateway.address()).unwrap();
        let started = Instant::now();
        let head = format!("PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: {size}\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        // The gateway stops reading, and closes the connection at the end.
        let _ = connection.send(&vec![b'a'; size]);
        let response = connection.read("PUT").unwrap();
        let elapsed = started.elapsed();
        assert_eq!(response.status, 504, "{timeouts}, {size} bytes: {}", gateway.stderr());
        assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&elapsed), "{timeouts}: {elapsed:?}");
    }
}

/// The retry gets the rest of timeouts.total, which is less than timeouts.read. Its node must not be ejected for that.
#[test]
fn a_node_that_had_less_than_its_read_timeout_is_not_ejected() {
    // With three nodes, neither of the two that get the request is the last node, which is never ejected.
    let silent = [(); 3].map(|()| Upstream::start(|_| Reply::hang()));
    let gateway = gateway(
        &silent.each_ref().map(Upstream::address),
        "    timeouts: { read: 1500ms, total: 2900ms }\n    retries: 1\n    ejection: { after: 1, for: 1h }",
    );
    assert_eq!(send(&gateway, "GET", b"").status, 504);
    assert_eq!(silent.iter().map(Upstream::hits).sum::<usize>(), 2);
    assert_eq!(gateway.stderr().matches("node ejected").count(), 1);
}

/// The same over HTTP/2, where a watchdog could only reset the stream.
#[test]
fn a_silent_upstream_gives_504_over_http_2() {
    let silent = Upstream::start(|_| Reply::hang());
    let authority = Authority::new("authority");
    let gateway = Gateway::start_with_files(
        &format!(
            "
listeners:
  - address: \"{{listen}}\"
    tls: {{ certificates: [{{ cert: tls/edge.crt, key: tls/edge.key }}] }}
services:
  - name: api
    upstream: {{ nodes: [{{ address: \"{}\" }}], timeouts: {{ total: 500ms }} }}
    cors: {{ allow_origins: https://app.test }}
",
            silent.address()
        ),
        &authority.issue(&["api.test"]).files("tls/edge"),
    );
    let client = H2Client::open(gateway.address(), &TlsClient::new(&authority, "api.test")).unwrap();
    for method in ["GET", "POST"] {
        let request = H2Request::new(method, "api.test", "/").header(ORIGIN.0, ORIGIN.1);
        let request = if method == "POST" { request.data("body") } else { request };
        let response = client.request(&request).unwrap();
        assert_eq!(response.status, 504, "{method}");
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.test"), "{method}");
    }
}

/// The handshake has the usual read timeout, and a node that misses it is ejected.
#[test]
fn a_websocket_handshake_has_the_read_timeout() {
    let (silent, well) = (Upstream::start(|_| Reply::hang()), Upstream::start(|_| Reply::echo()));
    let gateway = gateway(
        &[silent.address(), well.address()],
        "    timeouts: { connect: 300ms, read: 1200ms }\n    ejection: { after: 1, for: 1h }",
    );
    let mut statuses = [(); 4].map(|()| {
        let started = Instant::now();
        let mut socket = Connection::open(gateway.address()).unwrap();
        let status = socket.request("GET", "/", &UPGRADE, b"").unwrap().status;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        status
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [101, 101, 101, 504]);
    gateway.wait_for_log(&format!("node ejected upstream=api address={}", silent.address()));
}

// --- failures under load

/// The behaviour of a node.
mod mode {
    pub const WELL: u8 = 0;
    pub const SILENT: u8 = 1;
    pub const RESETS: u8 = 2;
}

struct Node {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    running: Option<Upstream>,
    /// The requests that earlier upstreams at this address have received.
    before: Vec<Received>,
}

impl Node {
    fn new() -> Self {
        let mut node = Node { address: nowhere(), mode: Arc::default(), running: None, before: Vec::new() };
        node.start();
        node
    }

    fn start(&mut self) {
        let mode = self.mode.clone();
        self.running = Some(Upstream::start_at(self.address, move |request| match mode.load(Ordering::SeqCst) {
            mode::SILENT => Reply::hang(),
            mode::RESETS => Reply::abort(),
            _ => Reply::new(200).body(request.body.clone()),
        }));
    }

    /// Ends the upstream and closes all its connections.
    fn kill(&mut self) {
        let killed = self.running.take().expect("it runs");
        let shared = killed.received();
        drop(killed);
        self.before.extend(shared);
    }

    fn received(&self) -> Vec<Received> {
        let now = self.running.iter().flat_map(Upstream::received);
        self.before.iter().cloned().chain(now).collect()
    }

    fn hits(&self) -> usize {
        self.running.as_ref().map_or(0, Upstream::hits)
    }
}

/// A request of the run with another status than 200.
#[derive(Debug)]
struct Lost {
    method: &'static str,
    id: String,
    status: u16,
    sent: Instant,
}

/// Shared by the threads that send requests during the run.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
    posts: AtomicUsize,
    lost: Mutex<Vec<Lost>>,
}

impl Load {
    /// Sends GET and POST alternately on a kept connection, which is opened again after `Connection: close`.
    fn send(&self, gateway: SocketAddr, thread: usize) {
        let mut connection = Connection::open(gateway).unwrap();
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let method = if n % 2 == 0 { "GET" } else { "POST" };
            let (id, sent) = (format!("{thread}-{n}"), Instant::now());
            let body = if method == "POST" { id.as_bytes() } else { b"" };
            let response = connection.request(method, "/", &[HOST, ORIGIN, ("X-Request-Id", &id)], body);
            let response = response.unwrap_or_else(|error| panic!("{method} {id} has no answer: {error}"));
            // Every response has CORS headers.
            assert_readable(&response);
            if response.status == 200 {
                assert_eq!(response.body, body, "{method} {id} got the answer of another one");
            } else {
                self.lost.lock().unwrap().push(Lost { method, id, status: response.status, sent });
            }
            self.posts.fetch_add(usize::from(method == "POST"), Ordering::Relaxed);
            self.answered.fetch_add(1, Ordering::Relaxed);
            if response.header("Connection") == Some("close") {
                connection = Connection::open(gateway).unwrap();
            }
        }
    }

    /// Waits until this number of further requests was answered.
    #[track_caller]
    fn go_on_for(&self, requests: usize) {
        let (start, deadline) = (self.answered.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(60));
        while self.answered.load(Ordering::Relaxed) < start + requests {
            assert!(Instant::now() < deadline, "the load has come to a halt");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn take_lost(&self) -> Vec<Lost> {
        std::mem::take(&mut self.lost.lock().unwrap())
    }
}

const THREADS: usize = 6;
const EJECT_AFTER: usize = 3;

/// Three nodes under load. One after the other dies, hangs, and resets its connections.
///
/// A GET never fails. A POST fails only if it was sent to the failing node. A node that refuses connections gets none.
/// A node that dies has at most one per thread. A node that hangs or resets gets three in a row before it is ejected,
/// the requests under way at that moment, and one more for each return. A request that was sent to a node is sent to no
/// other node.
#[test]
fn only_requests_at_the_failing_node_fail() {
    let mut nodes = [Node::new(), Node::new(), Node::new()];
    let gateway = gateway(
        &nodes.each_ref().map(|node| node.address),
        &format!("    timeouts: {{ connect: 5s, read: 1s }}\n    ejection: {{ after: {EJECT_AFTER}, for: 1s }}"),
    );
    let load = Load::default();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (load, address) = (&load, gateway.address());
            scope.spawn(move || load.send(address, thread));
        }
        // Ends the load even if the run fails.
        let _end = StopOnDrop(&load.stop);
        load.go_on_for(200);
        assert!(load.take_lost().is_empty(), "all is well at first");

        dies(&mut nodes[0], &gateway, &load);
        all_are_used_again(&nodes, &gateway, &load);
        stops_answering(&nodes[1], mode::SILENT, 504, &gateway, &load);
        all_are_used_again(&nodes, &gateway, &load);
        stops_answering(&nodes[2], mode::RESETS, 502, &gateway, &load);
        all_are_used_again(&nodes, &gateway, &load);
    });
    assert!(load.take_lost().is_empty());

    // No POST was sent twice.
    let mut given = HashMap::<String, usize>::new();
    for request in nodes.iter().flat_map(Node::received).filter(|request| request.method == "POST") {
        *given.entry(request.header("X-Request-Id").expect("an id").to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = given.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(given.len() > 500, "{} of {} POSTs", given.len(), load.posts.load(Ordering::Relaxed));
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The node is killed and connections are refused; later it starts again.
fn dies(node: &mut Node, gateway: &Gateway, load: &Load) {
    node.kill();
    let dead = Instant::now();
    gateway.wait_for_log(&format!("node ejected upstream=api address={}", node.address));
    load.go_on_for(500);
    let lost = load.take_lost();
    assert!(lost.iter().all(|lost| lost.method == "POST" && lost.status == 502), "{lost:?}");
    assert!(lost.iter().all(|lost| lost.sent <= dead), "refused, and lost all the same: {lost:?}");
    assert!(lost.len() <= THREADS, "{lost:?}");
    node.start();
}

/// The node reads requests and does not answer them; later it does again.
fn stops_answering(node: &Node, how: u8, status: u16, gateway: &Gateway, load: &Load) {
    let [ejected, returned] =
        ["node ejected", "node readmitted"].map(|what| format!("{what} upstream=api address={}", node.address));
    let count = |line: &str| gateway.stderr().matches(line).count();
    let before = (count(&ejected), count(&returned));
    node.mode.store(how, Ordering::SeqCst);
    gateway.wait_for_log_count(&ejected, before.0 + 1);
    load.go_on_for(500);
    // At least one return, which ends in another ejection.
    gateway.wait_for_log_count(&ejected, before.0 + 2);
    load.go_on_for(100);
    node.mode.store(mode::WELL, Ordering::SeqCst);
    gateway.wait_for_log_count(&returned, count(&ejected) - before.0 + before.1);
    load.go_on_for(100);

    let lost = load.take_lost();
    assert!(lost.iter().all(|lost| lost.method == "POST" && lost.status == status), "{lost:?}");
    let given: HashSet<String> =
        node.received().iter().filter_map(|request| request.header("X-Request-Id").map(str::to_owned)).collect();
    assert!(lost.iter().all(|lost| given.contains(&lost.id)), "not given to the node, and lost all the same: {lost:?}");
    // At each return all threads may send a request to the node before the first one is known to have failed.
    let returns = count(&returned) - before.1;
    let most = EJECT_AFTER + THREADS + returns * THREADS;
    assert!(lost.len() <= most, "{} lost, {returns} returns: {lost:?}", lost.len());
}

/// Waits until every node gets requests again.
fn all_are_used_again(nodes: &[Node], gateway: &Gateway, load: &Load) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let before: Vec<usize> = nodes.iter().map(Node::hits).collect();
    while !nodes.iter().zip(&before).all(|(node, before)| node.hits() > before + 50) {
        assert!(Instant::now() < deadline, "{}", gateway.stderr());
        thread::sleep(Duration::from_millis(10));
    }
    let lost = load.take_lost();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_single_node_gets_no_retry() {
    let node = Upstream::start(|_| Reply::abort());
    let gateway = gateway(&[node.address()], "    retries: 5");
    assert_eq!(fetch(gateway.address(), "GET", "/", &[HOST]).status, 502);
    assert_eq!(node.hits(), 1);
}
