//! Sends the same bytes to corsgate, nginx and HAProxy. An attack needs two servers that read different requests from
//! the same bytes.
//!
//! `make test` installs nginx and HAProxy. Without them the test fails.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, free_port};
use crate::support::nginx;
use crate::support::process::Process;
use crate::support::upstream::{Reply, Upstream};

const HOST: &str = "Host: api.test\r\n";
/// A server that has answered and then sends nothing for this time is waiting for the next request.
const QUIET: Duration = Duration::from_millis(250);

/// A server between the test and an upstream of its own.
struct Peer {
    name: &'static str,
    address: SocketAddr,
    upstream: Upstream,
}

/// The requests that the upstream receives from some bytes: method, target and body of each one.
type Forwarded = Vec<(String, String, String)>;

/// The expected result of a row.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// All three forward the same requests.
    Same,
    /// corsgate refuses all requests, and at least one of the other servers does the same.
    Refused,
    /// corsgate refuses bytes that both other servers accept. A line of the chunked coding must end with CRLF (RFC 9112
    /// section 7.1).
    Stricter,
}
use Rule::{Refused, Same, Stricter};

#[test]
fn the_same_bytes_are_the_same_requests_as_for_nginx_and_haproxy() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, gateway) = corsgate();
    let (nginx, _nginx) = nginx(folder.path());
    let (haproxy, _haproxy) = haproxy(folder.path());
    let mut faults = Vec::new();
    for (rule, bytes) in rows() {
        let peers = [&ours, &nginx, &haproxy];
        let outcomes: Vec<(Forwarded, Vec<u16>)> = thread::scope(|scope| {
            peers.map(|peer| scope.spawn(|| peer.forwards(&bytes))).map(|run| run.join().unwrap()).into()
        });
        let [ours, others @ ..] = &outcomes[..] else { unreachable!() };
        let kept = match rule {
            Same => !ours.0.is_empty() && others.iter().all(|other| other.0 == ours.0),
            Refused => ours.0.is_empty() && others.iter().any(|other| other.0.is_empty()),
            Stricter => ours.0.is_empty() && others.iter().all(|other| !other.0.is_empty()),
        };
        // If corsgate refuses the bytes, it must respond with 400 or 505.
        if !kept || (rule != Same && !ours.1.iter().all(|status| [400, 505].contains(status))) {
            let shown = peers.iter().zip(&outcomes).map(|(peer, outcome)| format!("  {}: {outcome:?}\n", peer.name));
            faults.push(format!("{:?}\n{}", &bytes[..bytes.len().min(200)], shown.collect::<String>()));
        }
    }
    assert!(faults.is_empty(), "{}\n{}", faults.join("\n"), gateway.stderr());
}

/// Returns the bytes of one connection for each row. A second request shows where the first request ends.
fn rows() -> Vec<(Rule, String)> {
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{HOST}{lines}\r\n");
    let post = |lines: &str, body: &str| format!("POST /p HTTP/1.1\r\n{HOST}{lines}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let then = |first: String| first + &get("/next", "");
    vec![
        (Same, get("/", "")),
        (Same, then(get("/", ""))),
        (Same, then(post("Content-Length: 2\r\n", "ab"))),
        (Same, then(post("Content-Length: 0\r\n", ""))),
        // Chunks.
        (Same, then(chunked("0\r\n\r\n"))),
        (Same, then(chunked("2\r\nab\r\n0\r\n\r\n"))),
        (Same, then(chunked("2\r\nab\r\n03\r\ncde\r\n000\r\n\r\n"))),
        (Same, then(chunked("A\r\n0123456789\r\n0\r\n\r\n"))),
        (Same, then(chunked("2;name=value\r\nab\r\n0;x\r\n\r\n"))),
        (Same, then(chunked("2\r\nab\r\n0\r\nX-T: y\r\n\r\n"))),
        (Same, then(chunked("2 ;x\r\nab\r\n0\r\n\r\n"))),
        (Refused, chunked("5\r\nhello\r\n\r\nmore\r\n\r\n")),
        (Refused, chunked(&format!("2;\nxx\r\n4c\r\n0\r\n\r\n{}", get("/admin", "Content-Length: 5\r\n\r\n0\r\n")))),
        (Stricter, chunked("2\nab\n0\n\n")),
        (Stricter, chunked("2\r\nab\n0\r\n\r\n")),
        (Refused, chunked("2\r\nabc\r\n0\r\n\r\n")),
        (Refused, chunked("-2\r\nab\r\n0\r\n\r\n")),
        (Refused, chunked("+2\r\nab\r\n0\r\n\r\n")),
        (Refused, chunked("0x2\r\nab\r\n0\r\n\r\n")),
        (Refused, chunked(" 2\r\nab\r\n0\r\n\r\n")),
        (Refused, chunked("zz\r\nab\r\n0\r\n\r\n")),
        (Refused, chunked("ffffffffffffffffff\r\nab")),
        // Lengths and codings.
        (Refused, post("Content-Length: +5\r\n", "hello")),
        (Refused, post("Content-Length: -5\r\n", "hello")),
        (Refused, post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")),
        (Refused, post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        (Refused, post("Content-Length: 5, 5\r\n", "hello")),
        (Refused, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (Refused, post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        (Refused, "POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        // Targets, fields and versions.
        (Refused, get("/a b", "")),
        (Refused, get("/a\tb", "")),
        (Refused, get("/a HTTP/1.1", "")),
        (Refused, get("/a\0b", "")),
        (Refused, get("/", "X-A: b\r\n c\r\n")),
        (Refused, get("/", "X A: b\r\n")),
        (Refused, get("/", "X-A: b\0c\r\n")),
        (Refused, get("/", HOST)),
        (Refused, format!("GET / HTTP/2.0\r\n{HOST}\r\n")),
        (Refused, "GET / HTTP/1.1\r\n\r\n".to_owned()),
    ]
}

impl Peer {
    /// Sends bytes on a new connection. Returns what the upstream receives, and the statuses of the responses.
    fn forwards(&self, bytes: &str) -> (Forwarded, Vec<u16>) {
        self.upstream.clear();
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(QUIET)).unwrap();
        // The server may refuse the first bytes and close the connection before it has received the last bytes.
        let _ = connection.write_all(bytes.as_bytes());
        let (mut responses, mut buffer, begin) = (Vec::new(), [0; 4096], Instant::now());
        while begin.elapsed() < Duration::from_secs(5) {
            match connection.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => responses.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock && responses.is_empty() => {}
                Err(_) => break,
            }
        }
        let responses = String::from_utf8_lossy(&responses).into_owned();
        let statuses = responses.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect();
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        let received = self.upstream.received().into_iter();
        (received.map(|request| (request.method, request.target, text(&request.body))).collect(), statuses)
    }
}

fn upstream() -> Upstream {
    Upstream::start(|_| Reply::new(200).body("ok"))
}

fn corsgate() -> (Peer, Gateway) {
    let upstream = upstream();
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services: [{{ name: a, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    ));
    (Peer { name: "corsgate", address: gateway.address(), upstream }, gateway)
}

fn nginx(folder: &Path) -> (Peer, Process) {
    let (upstream, address) = (upstream(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let server =
        format!("listen {address}; location / {{ proxy_pass http://{}; proxy_http_version 1.1; }}", upstream.address());
    let process = nginx::start(folder, address, &server);
    (Peer { name: "nginx", address, upstream }, process)
}

fn haproxy(folder: &Path) -> (Peer, Process) {
    let (upstream, address) = (upstream(), SocketAddr::from(([127, 0, 0, 1], free_port())));
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
listen edge
  bind {address}
  server node {}
",
        upstream.address()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn_server(&mut command, address);
    (Peer { name: "haproxy", address, upstream }, process)
}
