//! `max_connections` of nodes, and the queue of requests that wait for a node.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// Returns a configuration with these nodes. `more` is added to the upstream.
fn config(nodes: &[SocketAddr], more: &str) -> String {
    let nodes: Vec<_> = nodes.iter().map(|at| format!("{{ address: \"{at}\" }}")).collect();
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
access_log: {{ to: access.log }}
debug_header: true
upstreams:
  api:
    nodes: [{}]
{more}
services:
  - {{ name: api, upstream: api, cors: {{ allow_origins: https://app.test, allow_methods: PUT }} }}
",
        nodes.join(", ")
    )
}

const ONE: &str = "    max_connections: 1\n    queue: { length: 10, timeout: 20s }";

/// A node that answers a request only when the test permits it.
struct Gate {
    node: Upstream,
    go: Sender<()>,
    most: Arc<AtomicUsize>,
}

fn gate() -> Gate {
    let (go, gone) = channel();
    let (gone, running, most) = (Mutex::new(gone), AtomicUsize::new(0), Arc::<AtomicUsize>::default());
    let seen = most.clone();
    let node = Upstream::start(move |request| {
        seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if request.target != "/free" {
            gone.lock().unwrap().recv_timeout(PROCESS_TIMEOUT).expect("the test ends the request");
        }
        running.fetch_sub(1, Ordering::SeqCst);
        Reply::new(200).body(request.target.clone())
    });
    Gate { node, go, most }
}

fn waiting(gateway: &Gateway) -> u64 {
    gateway.metric("corsgate_upstream_queue_waiting{upstream=\"api\"}")
}

/// Returns the numbers of requests that left the queue: served, full, timeout, gone.
fn left(gateway: &Gateway) -> [u64; 4] {
    ["served", "full", "timeout", "gone"].map(|result| {
        gateway.metric(&format!("corsgate_upstream_queue_requests_total{{upstream=\"api\",result=\"{result}\"}}"))
    })
}

#[track_caller]
fn wait(what: &str, condition: impl Fn() -> bool) {
    assert!(poll(PROCESS_TIMEOUT, || condition().then_some(())).is_some(), "not in time: {what}");
}

/// Sends a request and does not wait for the response.
fn begin(gateway: &Gateway, target: &str) -> Connection {
    let mut connection = Connection::open(gateway.address()).unwrap();
    let header = format!("GET {target} HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\n\r\n");
    connection.send(header.as_bytes()).unwrap();
    connection
}

/// Sends requests one after the other, so that they wait in this order.
fn begin_waiting(gateway: &Gateway, targets: &[&str]) -> Vec<Connection> {
    let before = waiting(gateway);
    let begin = |(n, target): (u64, &&str)| {
        let connection = begin(gateway, target);
        wait("the request waits", || waiting(gateway) == before + n);
        connection
    };
    (1..).zip(targets).map(begin).collect()
}

fn get(gateway: &Gateway, target: &str) -> Response {
    fetch(gateway.address(), "GET", target, &[HOST, ORIGIN])
}

#[track_caller]
fn assert_full(response: &Response) {
    assert_eq!((response.status, response.text()), (503, "Too many requests at the upstream. Try again later.\n"));
    assert_eq!(response.header("Retry-After"), Some("1"));
    assert_eq!(response.header("X-Corsgate-Reason"), Some("upstream_full"));
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    assert_eq!(response.header("Vary"), Some("Origin"));
}

#[test]
fn waiting_requests_are_served_in_the_order_of_their_arrival() {
    let Gate { node, go, most } = gate();
    let gateway = Gateway::start(&config(&[node.address()], ONE));
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);
    let mut others = begin_waiting(&gateway, &["/1", "/2", "/3", "/4"]);
    let page = fetch(gateway.admin(), "GET", "/", &[("Host", "localhost")]);
    assert!(page.text().contains("4 requests wait for a node of api") && page.text().contains("1 of 1"));
    for (n, connection) in (2..).zip(std::iter::once(&mut first).chain(&mut others)) {
        go.send(()).unwrap();
        let response = connection.read("GET").unwrap();
        assert_eq!((response.status, response.text()), (200, &*format!("/{}", n - 2)));
        if n < 6 {
            node.wait_for_hits(n);
        }
    }
    let targets: Vec<String> = node.received().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4"]);
    assert_eq!((most.load(Ordering::SeqCst), waiting(&gateway), left(&gateway)), (1, 0, [4, 0, 0, 0]));
    assert_eq!(get(&gateway, "/free").status, 200);
}

#[test]
fn without_a_queue_a_request_gets_503_with_cors_headers_and_a_reason() {
    let Gate { node, go, .. } = gate();
    let gateway = Gateway::start(&config(&[node.address()], "    max_connections: 1"));
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);
    assert_full(&get(&gateway, "/1"));
    assert_full(&fetch(gateway.address(), "GET", "/1", &[HOST, ORIGIN, ("Connection", "close")]));
    // A preflight needs no node.
    let method = ("Access-Control-Request-Method", "PUT");
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/1", &[HOST, ORIGIN, method]).status, 200);
    let grpc = fetch(gateway.address(), "POST", "/1", &[HOST, ("Content-Type", "application/grpc")]);
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));

    gateway.wait_for_access_log_line("\"path\":\"/1\"");
    let lines = gateway.access_log();
    let line = lines.iter().find(|line| line.contains("\"status\":503")).unwrap();
    for part in [
        "\"reason\":\"upstream_full\"",
        "\"refused\":true",
        "\"error\":\"UpstreamFull\"",
        "all nodes have `max_connections` requests",
        "\"upstream\":\"api\"",
        "\"node\":null",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    wait("the refusals are counted", || gateway.metrics().contains("code=\"upstream_full\"} 3\n"));
    assert_eq!(left(&gateway), [0, 3, 0, 0]);
    assert!(!gateway.stderr().contains("WARN"), "clients could cause any number of warnings: {}", gateway.stderr());
    go.send(()).unwrap();
    assert_eq!(first.read("GET").unwrap().status, 200);
    wait("the place is free", || get(&gateway, "/free").status == 200);
}

#[test]
fn the_queue_is_bounded_in_number_and_in_time() {
    let Gate { node, go, .. } = gate();
    let queue = "    max_connections: 1\n    queue: { length: 2, timeout: 1s }";
    let gateway = Gateway::start(&config(&[node.address()], queue));
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);
    let start = Instant::now();
    let mut waiting = begin_waiting(&gateway, &["/1", "/2"]);
    assert_full(&get(&gateway, "/3"));
    assert!(start.elapsed() < Duration::from_secs(1), "a full queue refuses at once");
    for connection in &mut waiting {
        assert_full(&connection.read("GET").unwrap());
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    }
    assert_eq!(left(&gateway), [0, 1, 2, 0]);
    go.send(()).unwrap();
    assert_eq!(first.read("GET").unwrap().status, 200);
    gateway.wait_for_access_log_line("no node was free within `queue.timeout`");
    wait("the place is free", || get(&gateway, "/free").status == 200);
}

#[test]
fn the_timeout_of_the_whole_request_includes_the_wait() {
    let Gate { node, go, .. } = gate();
    let more = format!("{ONE}\n    timeouts: {{ total: 700ms }}");
    let gateway = Gateway::start(&config(&[node.address()], &more));
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);
    let start = Instant::now();
    let mut second = begin_waiting(&gateway, &["/1"]);
    assert_eq!(first.read("GET").unwrap().status, 504);
    let second = second[0].read("GET").unwrap();
    // The node becomes free at about the time at which the second request times out, so both statuses are correct.
    assert!(second.status == 503 || second.status == 504, "{second:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    go.send(()).unwrap();
    go.send(()).unwrap();
}

#[test]
fn clients_that_go_away_leave_the_queue() {
    let authority = Authority::new("ca");
    let files = authority.issue(&["api.test"]).files("tls/api");
    let Gate { node, go, .. } = gate();
    let listeners = "listeners: [{ address: \"{listen}\" }, { address: \"{listen2}\", \
                     tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] } }]";
    let text = config(&[node.address()], ONE).replace("listeners: [{ address: \"{listen}\" }]", listeners);
    let gateway = Gateway::start_with_files(&text, &files);
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);

    let mut reset = TcpStream::connect(gateway.address()).unwrap();
    reset.write_all(b"GET /reset HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    wait("the request waits", || waiting(&gateway) == 1);
    let client =
        H2Client::open(gateway.address2(), &TlsClient::new(&authority, "api.test").protocols(&["h2"])).unwrap();
    let stream = client.begin(&H2Request::new("GET", "api.test", "/stream")).unwrap();
    let (upload, body) = client.begin_headers(&H2Request::new("PUT", "api.test", "/upload"), false).unwrap();
    wait("all requests wait", || waiting(&gateway) == 3);
    let mut last = begin_waiting(&gateway, &["/last"]);
    SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    drop((reset, stream, upload, body));
    wait("the requests have left the queue", || waiting(&gateway) == 1);
    assert_eq!(left(&gateway), [0, 0, 0, 3]);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(first.read("GET").unwrap().text(), "/0");
    assert_eq!(last[0].read("GET").unwrap().text(), "/last");
    assert_eq!(node.hits(), 2);
}

#[test]
fn a_websocket_has_its_place_until_it_ends() {
    let node = Upstream::start(|request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        _ => Reply::new(200),
    });
    let gateway = Gateway::start(&config(&[node.address()], ONE));
    let mut socket = Connection::open(gateway.address()).unwrap();
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
    let mut other = begin_waiting(&gateway, &["/"]);
    // The request for a WebSocket waits too.
    let mut second = Connection::open(gateway.address()).unwrap();
    let header = "GET /socket HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    second.send(header.as_bytes()).unwrap();
    wait("both requests wait", || waiting(&gateway) == 2);
    socket.send(b"hello").unwrap();
    assert_eq!(socket.receive(5).unwrap(), b"hello");
    drop(socket);
    assert_eq!(other[0].read("GET").unwrap().status, 200);
    assert_eq!(second.read("GET").unwrap().status, 101);
    second.send(b"again").unwrap();
    assert_eq!(second.receive(5).unwrap(), b"again");
}

#[test]
fn a_full_node_gets_no_request_while_another_has_a_place() {
    let full = gate();
    let free = Upstream::start(|_| Reply::new(200).body("free"));
    for balance in ["round_robin", "random", "least_connections", "hash\n    hash_on: path"] {
        let more = format!("    max_connections: 1\n    balance: {balance}");
        let gateway = Gateway::start(&config(&[full.node.address(), free.address()], &more));
        full.node.clear();
        // Sends requests until the first node has one, which stays there.
        let mut staying = loop {
            let mut connection = begin(&gateway, &format!("/{}", free.hits()));
            let hits = free.hits();
            wait("one of the nodes has the request", || full.node.hits() == 1 || free.hits() > hits);
            if full.node.hits() == 1 {
                break connection;
            }
            connection.read("GET").unwrap();
        };
        for i in 0..10 {
            wait(balance, || get(&gateway, &format!("/{i}")).text() == "free");
        }
        full.go.send(()).unwrap();
        assert_eq!(staying.read("GET").unwrap().status, 200);
        assert_eq!(full.node.hits(), 1, "{balance}");
    }
}

#[test]
fn a_retry_does_not_wait() {
    let Gate { node, go, .. } = gate();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let more = format!("{ONE}\n    ejection: false");
    let gateway = Gateway::start(&config(&[nowhere, node.address()], &more));
    let mut staying = begin(&gateway, "/0");
    node.wait_for_hits(1);
    for _ in 0..3 {
        let response = get(&gateway, "/1");
        assert_eq!(response.status, 502, "the client gets the error of the failed node at once");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"));
    }
    go.send(()).unwrap();
    assert_eq!(staying.read("GET").unwrap().status, 200);
}

#[test]
fn a_reload_keeps_the_requests_that_wait() {
    let Gate { node, go, most } = gate();
    let text = config(&[node.address()], ONE);
    let gateway = Gateway::start(&text);
    let mut first = begin(&gateway, "/0");
    node.wait_for_hits(1);
    let mut waits = begin_waiting(&gateway, &["/1"]);
    // The upstream does not change: new requests wait behind the requests that already wait.
    gateway.reload_with(&format!("{text}# the same\n"));
    gateway.wait_for_log("reloaded generation=2");
    waits.extend(begin_waiting(&gateway, &["/2"]));
    // The upstream changes: the requests that already wait stay in the old queue, and get the node that they wait for.
    let other = Upstream::start(|_| Reply::new(200).body("other"));
    gateway.reload_with(&config(&[other.address()], ONE));
    gateway.wait_for_log("reloaded generation=3");
    assert_eq!(get(&gateway, "/").text(), "other");
    (0..3).for_each(|_| go.send(()).unwrap());
    assert_eq!(first.read("GET").unwrap().text(), "/0");
    assert_eq!(waits[0].read("GET").unwrap().text(), "/1");
    assert_eq!(waits[1].read("GET").unwrap().text(), "/2");
    assert_eq!((most.load(Ordering::SeqCst), node.hits()), (1, 3));
}

#[test]
fn under_load_each_request_is_served_and_no_node_has_more_than_its_limit() {
    let most: [Arc<AtomicUsize>; 2] = Default::default();
    let nodes = most.each_ref().map(|most| {
        let (most, running) = (most.clone(), AtomicUsize::new(0));
        Upstream::start(move |request| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
            running.fetch_sub(1, Ordering::SeqCst);
            Reply::new(200).body(request.body.clone())
        })
    });
    let more = "    max_connections: 3\n    queue: { length: 100, timeout: 30s }";
    let gateway = Gateway::start(&config(&nodes.each_ref().map(Upstream::address), more));
    let statuses = Mutex::new(BTreeMap::<u16, usize>::new());
    thread::scope(|scope| {
        for client in 0..40 {
            let (gateway, statuses) = (&gateway, &statuses);
            scope.spawn(move || {
                let mut connection = Connection::open(gateway.address()).unwrap();
                for i in 0..25 {
                    // Every third request has a body.
                    let body = vec![b'a'; if (client + i) % 3 == 0 { 100_000 } else { 0 }];
                    let method = if body.is_empty() { "GET" } else { "PUT" };
                    let response = connection.request(method, "/", &[HOST], &body).unwrap();
                    assert_eq!(response.text().len(), body.len());
                    *statuses.lock().unwrap().entry(response.status).or_default() += 1;
                }
            });
        }
    });
    assert_eq!(*statuses.lock().unwrap(), BTreeMap::from([(200, 1000)]));
    let most = most.map(|most| most.load(Ordering::SeqCst));
    assert_eq!(most, [3, 3], "all places are used");
    assert_eq!(waiting(&gateway), 0);
    let active = |node: &Upstream| {
        gateway.metric(&format!("corsgate_upstream_node_active{{upstream=\"api\",address=\"{}\"}}", node.address()))
    };
    wait("no place is lost", || nodes.iter().map(active).sum::<u64>() == 0);
}

#[test]
fn with_http_2_the_limit_counts_streams() {
    let node = H2Upstream::start(|request| match request.path.as_str() {
        "/stays" => H2Reply::hang(),
        _ => H2Reply::new(200),
    });
    let more = "    http2: true\n    max_connections: 2";
    let gateway = Gateway::start(&config(&[node.address()], more));
    let _first = begin(&gateway, "/stays");
    node.wait_for_hits(1);
    for _ in 0..3 {
        wait("the other place is free", || get(&gateway, "/").status == 200);
    }
    let before = node.hits();
    let second = || {
        let connection = begin(&gateway, "/stays");
        poll(Duration::from_secs(1), || (node.hits() > before).then_some(())).map(|()| connection)
    };
    let _second = poll(PROCESS_TIMEOUT, second).expect("the other place is free");
    assert_full(&get(&gateway, "/"));
    let connections = node.received().iter().map(|request| request.connection).max();
    assert_eq!(connections, Some(1), "one connection has all streams");
}
