//! HTTP/2 upstreams that respond before they have read the request body, with HTTP/1 clients.
//!
//! Such an upstream ends the stream with RST_STREAM(NO_ERROR) after a complete response (RFC 9113 section 8.1).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use crate::support::client::Connection;
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::nginx;

const HOST: (&str, &str) = ("Host", "api.test");

fn gateway(node: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
access_log: {{ to: access.log }}
services:
  - {{ name: api, upstream: {{ nodes: [{{ address: \"{node}\" }}], http2: true }} }}
"
    ))
}

/// The timing decides whether the body arrives before or after the response, so the test sends many requests.
#[test]
fn a_client_that_keeps_its_connection_loses_no_request() {
    const REQUESTS: usize = 500;
    let upstream = H2Upstream::start_early(|_| H2Reply::new(401).header("content-length", "2").body("no"));
    let gateway = gateway(upstream.address());
    let mut connection = Connection::open(gateway.address()).unwrap();
    let mut reused = 0;
    for i in 0..REQUESTS {
        let response = connection
            .request("POST", "/", &[HOST], b"abc")
            .unwrap_or_else(|error| panic!("request {i}, {reused} on kept connections: {error}"));
        assert_eq!((response.status, response.text()), (401, "no"));
        match response.header("Connection") {
            Some("close") => connection = Connection::open(gateway.address()).unwrap(),
            other => {
                assert_eq!(other, Some("keep-alive"));
                reused += 1;
            }
        }
    }
    assert!(reused > 0, "no connection was kept");
    gateway.wait_for_access_log(REQUESTS);
}

/// The gateway reads and discards the rest of the body. Otherwise a reset of the connection could arrive before the
/// client has read the response.
#[test]
fn a_client_can_send_the_rest_of_its_body_after_an_early_response() {
    let upstream = H2Upstream::start_early(|_| H2Reply::new(413).header("content-length", "5").body("large"));
    let gateway = gateway(upstream.address());
    let part = vec![b'a'; 512 << 10];
    for i in 0..10 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n", 4 * part.len());
        connection.send(head.as_bytes()).unwrap();
        connection.send(&part).unwrap();
        let response = connection.read("POST").unwrap();
        assert_eq!((response.status, response.text()), (413, "large"));
        assert_eq!(response.header("Connection"), Some("close"));
        for _ in 0..3 {
            connection.send(&part).unwrap_or_else(|error| panic!("request {i}: {error}"));
        }
        assert!(connection.closed());
    }
    gateway.wait_for_access_log(10);
}

/// `make test` installs nginx and Node.js.
#[test]
fn node_loses_no_request_to_nginx() {
    let port = free_port();
    let nginx_address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let gateway = gateway(nginx_address);
    // It responds with 401 without reading the body.
    let server = format!("listen {nginx_address} http2; keepalive_requests 100000; location / {{ return 401 no; }}");
    let _nginx = nginx::start(gateway.dir(), nginx_address, &server);
    fs::write(gateway.dir().join("post.js"), POST_JS).unwrap();
    let output = Command::new("node")
        .arg(gateway.dir().join("post.js"))
        .args([gateway.address().port().to_string(), "10000".to_owned()])
        .output()
        .expect("start node; `make test` installs it");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.trim(), r#"{"401 no":10000}"#, "{}", String::from_utf8_lossy(&output.stderr));
    gateway.wait_for_access_log(10_000);
}

/// Sends POST requests one after the other, and prints the number of requests for each result.
const POST_JS: &str = r#"
const http = require("http");
const [port, count] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const results = {};
function post() {
  return new Promise((resolve) => {
    const done = (result) => { results[result] = (results[result] || 0) + 1; resolve(); };
    const request = http.request({ port, host: "127.0.0.1", method: "POST", agent, headers: { "Content-Length": 3 } });
    request.on("response", (response) => {
      let text = "";
      response.on("data", (data) => { text += data; });
      response.on("error", (error) => done(error.code));
      response.on("end", () => done(`${response.statusCode} ${text}`));
    });
    request.on("error", (error) => done(error.code));
    request.end("abc");
  });
}
(async () => {
  for (let i = 0; i < count; i++) await post();
  console.log(JSON.stringify(results));
  process.exit();
})();
"#;
