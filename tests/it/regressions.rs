//! Regressions. Each test describes the defect that it prevents.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, Signal, run};
use crate::support::upstream::{Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

fn gateway(top: &str, nodes: &[&Upstream], of_upstream: &str) -> Gateway {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("{{ address: \"{}\" }}", node.address())).collect();
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
{top}
upstreams: {{ api: {{ nodes: [{}]{of_upstream} }} }}
services: [{{ name: api, upstream: api, cors: {{ allow_origins: https://app.test }} }}]
",
        nodes.join(", ")
    ))
}

/// In an earlier version, a node that did not answer within body_timeout was handled like a client that sends its body
/// too slowly.
#[test]
fn each_attempt_has_its_own_body_timeout() {
    let (hangs, answers) = (Upstream::start(|_| Reply::hang()), Upstream::start(|_| Reply::new(200)));
    let limits = "limits: { body_timeout: 700ms }";
    let gateway = gateway(limits, &[&hangs, &answers], ", timeouts: { read: 1500ms }, ejection: false");
    // In parallel, to save time.
    thread::scope(|scope| {
        for (method, body) in [("GET", &b""[..]), ("GET", b""), ("PUT", b"abc"), ("DELETE", b""), ("PUT", b"abc")] {
            let address = gateway.address();
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                let response = connection.request(method, "/", &[HOST, ORIGIN], body).unwrap();
                assert_eq!(response.status, 200, "{method}");
            });
        }
    });
    assert!(hangs.hits() > 1, "nothing was tried twice, and this shows nothing");
}

/// In an earlier version, the gateway buffered a whole response with a length, including its header.
#[test]
fn the_first_bytes_of_a_slow_response_do_not_wait_for_the_last() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
    let upstream = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab").unwrap();
        gone_on.recv_timeout(Duration::from_secs(10)).expect("the client has seen the beginning");
        stream.write_all(b"cdef").unwrap();
    });
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{address}\" }}] }} }}]
"
    ));
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nab") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", seen.escape_ascii());
        seen.push(byte[0]);
    }
    go_on.send(()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "cdef");
    upstream.join().unwrap();
}

/// Repeated lengths, lengths where none is allowed, unknown codings: clients interpret them differently, and HTTP/2
/// clients close the stream.
#[test]
fn a_response_has_one_content_length_or_is_refused() {
    #[rustfmt::skip]
    let rows: [(&str, u16, Option<&str>, &str); 7] = [
        ("200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",       200, Some("2"), "ab"),
        ("200 OK\r\nContent-Length: 2, 2\r\n\r\nab",                         200, Some("2"), "ab"),
        ("204 No Content\r\nContent-Length: 4\r\n\r\n",                      204, None,      ""),
        ("200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",                  502, Some("37"), "No valid response from the upstream.\n"),
        ("200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nab",                  502, Some("37"), "No valid response from the upstream.\n"),
        ("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 200, None,      "ab"),
        ("304 Not Modified\r\nContent-Length: 7\r\n\r\n",                    304, Some("7"), ""),
    ];
    for (answer, status, length, body) in rows {
        let upstream = Upstream::start(move |_| Reply::raw(format!("HTTP/1.1 {answer}")));
        let gateway = gateway("", &[&upstream], "");
        let response = fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN]);
        assert_eq!(
            (response.status, response.all("Content-Length"), response.text()),
            (status, length.into_iter().collect(), body),
            "{answer}"
        );
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{answer}");
    }
}

/// In an earlier version, a flood of interim responses used a whole core as long as the upstream continued.
#[test]
fn interim_responses_are_limited_and_not_sent_to_http_1_0() {
    let hints = |n: usize| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(n);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let few = Upstream::start(move |_| Reply::raw(hints(3) + answer));
    let gateway_of_few = gateway("", &[&few], "");
    let mut connection = Connection::open(gateway_of_few.address()).unwrap();
    connection.send(b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n").unwrap();
    assert_eq!(connection.read_any("GET").unwrap().status, 200);
    let many = Upstream::start(move |_| Reply::raw(hints(200) + answer));
    let gateway_of_many = gateway("", &[&many], "");
    assert_eq!(fetch(gateway_of_few.address(), "GET", "/", &[HOST]).status, 200);
    assert_eq!(fetch(gateway_of_many.address(), "GET", "/", &[HOST]).status, 502);
    gateway_of_many.wait_for_log("request failed status=502");
    let log = gateway_of_many.stderr();
    assert!(log.contains("the upstream sends more than 32 interim responses"), "{log}");
    assert!(!log.contains("response cut"), "{log}");
}

/// With a length, clients would read the beginning of the next response as a body.
#[test]
fn an_interim_response_has_no_length() {
    let upstream = Upstream::start(|_| {
        Reply::raw(concat!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </b>\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        ))
    });
    let gateway = gateway("", &[&upstream], "");
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    for link in ["</a>", "</b>"] {
        let hints = connection.read_any("GET").unwrap();
        assert_eq!((hints.status, hints.header("Link")), (103, Some(link)));
        assert_eq!((hints.header("Content-Length"), hints.header("Transfer-Encoding")), (None, None));
    }
    assert_eq!(connection.read("GET").unwrap().text(), "ok");
}

/// In an earlier version, the log had only the type of the error, `InternalError`.
#[test]
fn without_file_descriptors_the_log_says_so() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway("", &[&upstream], "");
    let mut connection = Connection::open(gateway.address()).unwrap();
    // Accepted.
    assert_eq!(connection.request("GET", "/a%2fb", &[HOST], b"").unwrap().status, 400);
    // With this limit the process keeps its open descriptors, but cannot open another one.
    let pid = rustix::process::Pid::from_raw(gateway.pid().cast_signed());
    let limit = rustix::process::Rlimit { current: Some(3), maximum: Some(3) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    assert_eq!(connection.request("GET", "/", &[HOST], b"").unwrap().status, 502);
    gateway.wait_for_log("Too many open files");
    assert!(gateway.stderr().contains("LimitNOFILE"), "{}", gateway.stderr());
}

/// Pingora handled a request with only `Upgrade` as an upgrade. A proxy in front did not.
#[test]
fn an_upgrade_without_connection_upgrade_is_ignored() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway("", &[&upstream], "");
    let upgrade = [HOST, ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    assert_eq!(fetch(gateway.address(), "GET", "/", &upgrade).status, 200);
    let received = &upstream.received()[0];
    assert_eq!((received.header("Upgrade"), received.header("Connection")), (None, None));
}

/// `curl --http2` and Java's HttpClient offer h2c with ordinary requests. In an earlier version, each of these requests
/// had its own connection to the upstream, and the timeouts of a WebSocket.
#[test]
fn an_upgrade_to_another_protocol_than_websocket_is_an_ordinary_request() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway("", &[&upstream], "");
    let mut connection = Connection::open(gateway.address()).unwrap();
    for protocol in ["h2c", "TLS/1.0", "websocket, h2c"] {
        let upgrade = [
            HOST,
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", protocol),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ];
        assert_eq!(connection.request("GET", "/", &upgrade, b"").unwrap().status, 200, "{protocol}");
    }
    let received = upstream.received();
    for request in &received {
        for name in ["Upgrade", "Connection", "HTTP2-Settings"] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_eq!(request.connection, received[0].connection, "the connection to the upstream is kept");
    }
}

/// Many upstreams behind nginx trust `X-Real-IP`.
#[test]
fn x_real_ip_is_accepted_from_trusted_proxies_only() {
    for (trusted, real) in [("", None), ("trusted_proxies: [127.0.0.1]", Some("192.0.2.9"))] {
        let upstream = Upstream::start(|_| Reply::new(200));
        let gateway = gateway(trusted, &[&upstream], "");
        let claims = [HOST, ("X-Real-IP", "192.0.2.9"), ("Client-Cert", ":AAAA:")];
        fetch(gateway.address(), "GET", "/", &claims);
        let received = &upstream.received()[0];
        assert_eq!(received.header("X-Real-IP"), real);
        assert_eq!(received.header("Client-Cert").is_some(), real.is_some());
    }
}

/// In an earlier version, the fields of a client were trusted behind a PROXY header without an address, because the
/// peer is the load balancer.
#[test]
fn a_proxy_header_without_an_address_makes_no_peer_trusted() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\", proxy_protocol: true }}]
trusted_proxies: [127.0.0.1]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    ));
    let mut connection = Connection::open(gateway.address()).unwrap();
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n";
    connection.send(format!("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: api.test\r\n{claims}\r\n").as_bytes()).unwrap();
    assert_eq!(connection.read("GET").unwrap().status, 200);
    let received = &upstream.received()[0];
    assert_eq!(received.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!((received.header("X-Forwarded-Proto"), received.header("Forwarded")), (Some("http"), None));
}

/// The connection comes from a trusted balancer, but the PROXY header names a client that is not trusted.
#[test]
fn a_client_that_a_proxy_header_names_is_not_trusted() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\", proxy_protocol: true }}]
trusted_proxies: [127.0.0.1]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    ));
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n{claims}\r\n");
    stream.write_all(format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n{request}").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let received = &upstream.received()[0];
    assert_eq!(received.header("X-Forwarded-For"), Some("192.0.2.7"));
    assert_eq!(received.header("X-Forwarded-Proto"), Some("http"));
}

/// In an earlier version, a load balancer that was missing in trusted_proxies caused an outage without a log line.
#[test]
fn refused_peers_are_logged_at_a_limited_rate() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\", proxy_protocol: true }}]
trusted_proxies: [192.0.2.1]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
        upstream.address()
    ));
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        assert!(connection.closed());
    }
    let line = "the peer is not in trusted_proxies";
    gateway.wait_for_log(line);
    assert!(gateway.stderr().matches(line).count() < 5, "{}", gateway.stderr());
}

/// In an earlier version, the response to a refused upgrade was cut at the deadline of the handshake.
#[test]
fn a_refused_upgrade_has_the_time_of_a_usual_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").unwrap();
        // The pause is longer than `connect` and `read` together.
        thread::sleep(Duration::from_secs(2));
        stream.write_all(b"b").unwrap();
    });
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{address}\" }}], timeouts: {{ connect: 300ms, read: 1200ms }} }} }}]
"
    ));
    let upgrade = [HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let response = Connection::open(gateway.address()).unwrap().request("GET", "/", &upgrade, b"").unwrap();
    assert_eq!((response.status, response.text()), (200, "ab"));
    upstream.join().unwrap();
}

/// In an earlier version, keys that need a restart were compared with the previous file. So a second reload did not
/// warn, but the reload back to the original file did.
#[test]
fn a_reload_warns_about_differences_from_the_start() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let config = |server: &str| {
        format!(
            "
listeners: [{{ address: \"{{listen}}\" }}]
server: {{ {server} }}
services: [{{ name: api, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}]
",
            upstream.address()
        )
    };
    let gateway = Gateway::start(&config("grace_period: 1s"));
    for (n, server, warnings) in [(2, "grace_period: 2s", 1), (3, "grace_period: 2s", 2), (4, "grace_period: 1s", 2)] {
        gateway.reload_with(&config(server));
        gateway.wait_for_log(&format!("reloaded generation={n}\n"));
        assert_eq!(gateway.stderr().matches("change needs a restart key=server").count(), warnings, "{server}");
    }
}

/// In an earlier version, two processes waited for the same sockets, and the second one panicked.
#[test]
fn a_second_successor_is_refused() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let mut first = gateway("", &[&upstream], "");
    let second = first.successor();
    let path = first.config_path();
    let output = run(&["run", "--upgrade", "--config", path.to_str().unwrap()]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("another process already waits at "), "{}", output.stderr);
    first.signal(Signal::Quit);
    second.wait_for_log("serving listeners=");
    assert_eq!(first.exit().code(), Some(0));
    assert_eq!(fetch(second.address(), "GET", "/", &[HOST]).status, 200);
}

/// In an earlier version, requests that were cut at the end of the grace period were not logged.
#[test]
fn the_end_of_the_grace_period_logs_the_cut_requests() {
    let upstream = Upstream::start(|_| Reply::hang());
    let mut gateway = gateway("server: { grace_period: 1s }", &[&upstream], "");
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    upstream.wait_for_hits(1);
    gateway.signal(Signal::Term);
    gateway.wait_for_log("stopped after server.grace_period requests=1");
    assert_eq!(gateway.exit().code(), Some(0));
}
