//! `limits.connection_age`: connections end gracefully at this age, and running requests and WebSockets are not cut.

use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::client::Connection;
use crate::support::gateway::Gateway;
use crate::support::h2_client::{Frame, H2Client, H2Request, RawH2, hpack};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const UPGRADE: [(&str, &str); 4] =
    [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")];
/// The age in the configuration.
const AGE: Duration = Duration::from_secs(2);

fn config(listener: &str, upstream: SocketAddr) -> String {
    format!(
        "
listeners: [{{ address: \"{{listen}}\"{listener} }}]
limits: {{ connection_age: 2s, keepalive: 60s }}
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{upstream}\" }}] }} }}]
"
    )
}

/// Starts an upstream that answers `/slow` only after the test permits it, and echoes the data of `/socket`.
fn upstream() -> (Upstream, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let upstream = Upstream::start(move |request| match request.target.as_str() {
        "/socket" => Reply::echo(),
        "/slow" => {
            // An error means that the test has ended.
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(15));
            Reply::new(200).body("slow")
        }
        _ => Reply::new(200),
    });
    (upstream, release)
}

fn start() -> (Upstream, mpsc::Sender<()>, Gateway) {
    let (upstream, release) = upstream();
    let gateway = Gateway::start(&config("", upstream.address()));
    (upstream, release, gateway)
}

fn start_http_2() -> (Upstream, mpsc::Sender<()>, Gateway, TlsClient) {
    let ((upstream, release), authority) = (upstream(), Authority::new("authority"));
    let files = authority.issue(&["api.test"]).files("tls/api");
    let tls = ", tls: { certificates: [{ cert: tls/api.crt, key: tls/api.key }] }";
    let gateway = Gateway::start_with_files(&config(tls, upstream.address()), &files);
    (upstream, release, gateway, TlsClient::new(&authority, "api.test"))
}

#[track_caller]
fn connection_of(connection: &mut Connection) -> String {
    let response = connection.request("GET", "/", &[HOST], b"").unwrap();
    assert_eq!(response.status, 200);
    response.header("Connection").unwrap().to_owned()
}

#[test]
fn an_old_connection_is_closed_after_its_next_response() {
    let (_upstream, _release, gateway) = start();
    let mut old = Connection::open(gateway.address()).unwrap();
    assert_eq!(connection_of(&mut old), "keep-alive");
    thread::sleep(AGE);
    // A client may send a request exactly at the age, so an idle connection is not closed.
    assert!(!old.is_readable());
    assert_eq!(connection_of(&mut old), "close");
    assert!(old.closed());
    assert_eq!(connection_of(&mut Connection::open(gateway.address()).unwrap()), "keep-alive");
}

#[test]
fn pipelined_requests_behind_the_age_get_one_response() {
    let (upstream, _release, gateway) = start();
    let mut old = Connection::open(gateway.address()).unwrap();
    assert_eq!(connection_of(&mut old), "keep-alive");
    thread::sleep(AGE);
    let request = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";
    old.send(&[&request[..], request].concat()).unwrap();
    assert_eq!(old.read("GET").unwrap().header("Connection"), Some("close"));
    assert!(old.closed());
    assert_eq!(upstream.hits(), 2);
}

#[test]
fn a_running_request_is_not_cut() {
    let (upstream, release, gateway) = start();
    let mut old = Connection::open(gateway.address()).unwrap();
    old.send(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    upstream.wait_for_hits(1);
    thread::sleep(AGE);
    release.send(()).unwrap();
    assert_eq!(old.read("GET").unwrap().text(), "slow");
    assert_eq!(connection_of(&mut old), "close");
    assert!(old.closed());
}

#[test]
fn a_websocket_is_not_cut() {
    let (_upstream, _release, gateway) = start();
    let upgraded = |mut connection: Connection| {
        assert_eq!(connection.request("GET", "/socket", &UPGRADE, b"").unwrap().status, 101);
        connection
    };
    let mut kept = Connection::open(gateway.address()).unwrap();
    assert_eq!(connection_of(&mut kept), "keep-alive");
    let early = upgraded(Connection::open(gateway.address()).unwrap());
    thread::sleep(AGE);
    // The last request of a connection may be an upgrade.
    for mut socket in [early, upgraded(kept)] {
        socket.send(b"still there").unwrap();
        assert_eq!(socket.receive(11).unwrap(), b"still there");
        thread::sleep(AGE / 4);
        socket.send(b"and later").unwrap();
        assert_eq!(socket.receive(9).unwrap(), b"and later");
    }
}

#[test]
fn an_old_http_2_connection_gets_goaway_and_finishes_its_streams() {
    let (upstream, release, gateway, tls) = start_http_2();
    let [mut idle, mut busy] = [(); 2].map(|()| H2Client::open(gateway.address(), &tls).unwrap());
    let get = |path| H2Request::new("GET", "api.test", path);
    assert_eq!(idle.request(&get("/")).unwrap().status, 200);
    let slow = busy.begin(&get("/slow")).unwrap();
    upstream.wait_for_hits(2);
    assert!(idle.closed(), "the client closes the connection after GOAWAY");
    let refused = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        busy.request(&get("/")).is_err()
    });
    assert!(refused, "no GOAWAY");
    release.send(()).unwrap();
    assert_eq!(slow.finish().unwrap().text(), "slow");
    assert!(busy.closed());
}

/// A client that has not read the GOAWAY yet may still open streams.
#[test]
fn a_stream_that_crosses_the_goaway_is_served() {
    let (_upstream, _release, gateway, tls) = start_http_2();
    let mut raw = RawH2::open(gateway.address(), &tls, &[]).unwrap();
    let head = hpack(&[(":method", "GET"), (":scheme", "https"), (":authority", "api.test"), (":path", "/")]);
    let request = |id| Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, id, head.clone()).bytes();
    raw.send(&request(1)).unwrap();
    assert_eq!(raw.read_until(Frame::HEADERS).unwrap().stream, 1);
    let first = raw.read_until(Frame::GOAWAY).unwrap().payload;
    assert_eq!(first, [&0x7fff_ffff_u32.to_be_bytes()[..], &[0; 4]].concat(), "all streams, NO_ERROR");
    raw.send(&request(3)).unwrap();
    let ping = raw.read_until(Frame::PING).unwrap();
    assert_eq!(raw.read_until(Frame::HEADERS).unwrap().stream, 3);
    raw.send(&Frame::new(Frame::PING, Frame::ACK, 0, ping.payload).bytes()).unwrap();
    let last = raw.read_until(Frame::GOAWAY).unwrap().payload;
    assert_eq!(last, [&3_u32.to_be_bytes()[..], &[0; 4]].concat());
    // The connection ends, at the latest after the time in which a client can close it.
    assert!(raw.read_until(Frame::DATA).is_err());
}
