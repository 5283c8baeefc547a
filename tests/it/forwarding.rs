//! What reaches the upstream of a request, and the client of a response: all that was meant for the other side, nothing
//! that was meant for the gateway, and what the gateway says about the client itself.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Response, fetch};
use crate::gateway::{Gateway, free_port};
use crate::upstream::{Received, Reply, Upstream};

const HOST: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

/// A gateway with one service, of whose configuration these are the lines.
fn gateway(service: &str) -> Gateway {
    Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
limits: {{ keepalive: 1s }}
services:
  - name: api
{service}
"
    ))
}

/// One in front of one upstream, with a policy.
fn in_front_of(upstream: &Upstream) -> Gateway {
    gateway(&format!(
        "
    upstream: {{ nodes: [{{ address: \"{}\" }}] }}
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT] }}
    routes:
      - {{ name: v1, paths: [/v1/*], strip_prefix: /v1 }}
      - {{ name: rest, paths: [/*] }}
",
        upstream.address()
    ))
}

/// What the upstream gets of a GET with these fields.
#[track_caller]
fn received(fields: &[(&str, &str)]) -> Received {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    let fields: Vec<_> = [HOST].into_iter().chain(fields.iter().copied()).collect();
    assert_eq!(fetch(gateway.address(), "GET", "/", &fields).status, 200);
    upstream.received().pop().expect("a request")
}

/// What the client gets of this response of the upstream.
fn returned(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Response {
    let upstream = Upstream::start(move |_| reply());
    let gateway = in_front_of(&upstream);
    fetch(gateway.address(), "GET", "/", &[HOST, ORIGIN])
}

// --- paths

// --- request headers

#[test]
fn a_request_has_one_id_its_own_if_that_is_usable() {
    let is_ours = |id: Option<&str>| id.is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    for kept in ["abc-1", "a.b:c_d", &"a".repeat(128)] {
        assert_eq!(received(&[("X-Request-Id", kept)]).header("X-Request-Id"), Some(kept));
    }
    for replaced in ["", "a b", "a\"b", "é", &"a".repeat(129)] {
        assert!(is_ours(received(&[("X-Request-Id", replaced)]).header("X-Request-Id")), "{replaced:?}");
    }
    assert!(is_ours(received(&[("X-Request-Id", "abc"), ("x-request-id", "def")]).header("X-Request-Id")));

    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = in_front_of(&upstream);
    fetch(gateway.address(), "GET", "/", &[HOST]);
    fetch(gateway.address(), "GET", "/", &[HOST]);
    let [first, second] = &upstream.received()[..] else { panic!("two requests") };
    assert!(is_ours(first.header("X-Request-Id")) && is_ours(second.header("X-Request-Id")));
    assert_ne!(first.header("X-Request-Id"), second.header("X-Request-Id"));
}

// --- responses

// --- bodies

/// A body whose every part tells where it belongs.
fn large() -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(1 << 20).collect()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    // A size that divides nothing evenly.
    body.chunks(5003).map(chunk).chain([b"0\r\n\r\n".to_vec()]).collect::<Vec<_>>().concat()
}

// --- connections

/// The statuses of 20 requests to two nodes, one of which nothing listens at.
fn statuses_with_a_dead_node(retries: &str) -> BTreeMap<u16, usize> {
    let upstream = Upstream::start(|request| Reply::new(200).body(request.body.clone()));
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let gateway = gateway(&format!(
        "    upstream: {{ nodes: [{{ address: \"{dead}\" }}, {{ address: \"{}\" }}]{retries} }}",
        upstream.address()
    ));
    let mut statuses = BTreeMap::new();
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.address()).unwrap();
        let response = connection.request("POST", "/", &[HOST], b"body").unwrap();
        assert!(response.status != 200 || response.text() == "body");
        *statuses.entry(response.status).or_default() += 1;
    }
    statuses
}
