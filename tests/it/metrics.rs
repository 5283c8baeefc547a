//! `/metrics`: each request changes its own series only, client input creates no series, reloads neither lose nor leak
//! series, and the documentation, dashboards and alerts name existing metrics.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use corsgate::admin::metrics::{FAMILIES, MetricKind};
use promql_parser::label::METRIC_NAME;
use promql_parser::parser::{Expr, LabelModifier, VectorSelector};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{self, H2Client, H2Request};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

const API: (&str, &str) = ("Host", "api.test");
const ORIGIN: (&str, &str) = ("Origin", "https://app.test");
const EVIL: (&str, &str) = ("Origin", "https://evil.test");

/// A gateway with all kinds of routes, and its upstreams.
struct Scene {
    gateway: Gateway,
    good: Upstream,
    /// Closes the connection in the middle of a response.
    sick: Upstream,
    /// An address without a listener.
    dead: SocketAddr,
    tls: TlsClient,
}

impl Scene {
    fn start() -> Self {
        let (good, sick) = (Upstream::start(answer), Upstream::start(|_| Reply::reset()));
        let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let authority = Authority::new("authority");
        let config = format!(
            "
listeners:
  - address: \"{{listen}}\"
  - address: \"{{listen2}}\"
    tls: {{ certificates: [{{ cert: tls/edge.crt, key: tls/edge.key }}] }}
admin: {{ address: \"{{admin}}\" }}
server: {{ threads: 1 }}
limits: {{ connections: 1000 }}
upstreams:
  good: {{ nodes: [{{ address: \"{good}\" }}] }}
  dead: {{ nodes: [{{ address: \"{dead}\" }}] }}
  pair: {{ nodes: [{{ address: \"{dead}\" }}, {{ address: \"{good}\" }}], ejection: false, max_connections: 9 }}
  sick: {{ nodes: [{{ address: \"{sick}\" }}, {{ address: \"{good}\" }}], ejection: {{ after: 1, for: 5m }} }}
services:
  - name: api
    hosts: api.test
    upstream: good
    cors: {{ allow_origins: https://app.test, allow_methods: [GET, PUT], allow_headers: [X-One] }}
    routes:
      - {{ name: all, paths: [/*] }}
      - {{ name: reads, paths: [/reads], methods: [GET] }}
      - {{ paths: ['/users/{{id}}/say\"hi\"'] }}
      - {{ name: raw, paths: [/raw], cors: false }}
      - {{ name: strict, paths: [/strict], cors: {{ allow_origins: https://app.test, disallowed_origins: reject }} }}
      - {{ name: tried, paths: [/tried], cors: {{ allow_origins: https://app.test, report_only: {{ allow_origins: https://new.test }} }} }}
      - {{ name: dead, paths: [/dead], upstream: dead }}
      - {{ name: pair, paths: [/pair], upstream: pair }}
      - {{ name: sick, paths: [/sick], upstream: sick }}
      - {{ name: shared, paths: [/shared], split: {{ upstreams: [{{ upstream: good }}] }} }}
  - {{ name: whole, hosts: whole.test, upstream: good, cors: {{ allow_origins: \"*\" }} }}
",
            good = good.address(),
            sick = sick.address(),
        );
        let gateway = Gateway::start_with_files(&config, &authority.issue(&["api.test"]).files("tls/edge"));
        // `start` has connected to each listener once, without a TLS handshake.
        eventually("it is quiet", || {
            let now = counts(&gateway);
            let failed = now.get(&format!("connections_refused_total {} handshake", gateway.address2()));
            failed == Some(&1) && open(&gateway) == 0
        });
        Self { gateway, good, sick, dead, tls: TlsClient::new(&authority, "api.test") }
    }

    fn fetch(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        fetch(self.gateway.address(), method, target, fields).status
    }

    /// The expected changes: one series per line, with ` = ` and the amount if it is not 1. `~forwarded ROUTE` and
    /// `~answered ROUTE` stand for the common series of a forwarded and of a locally answered request.
    fn expected(&self, lines: &str) -> BTreeMap<String, i64> {
        let mut expected = BTreeMap::new();
        for line in lines.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(route) = line.strip_prefix("~forwarded ") {
                let common = format!(
                    "~answered {route}; upstream_response_seconds_count {route}
                     response_body_bytes_total {route} = 5; upstream_connects_total good {{G}}"
                );
                expected.extend(self.expected(&common));
            } else if let Some(route) = line.strip_prefix("~answered ") {
                let common = format!("request_duration_seconds_count {route}; connections_total {{L}}");
                expected.extend(self.expected(&common));
            } else {
                let (series, by) = line.split_once(" = ").unwrap_or((line, "1"));
                expected.insert(self.fill_in(series), by.parse().unwrap());
            }
        }
        expected
    }

    fn fill_in(&self, series: &str) -> String {
        let addresses = [
            ("{L}", self.gateway.address()),
            ("{T}", self.gateway.address2()),
            ("{G}", self.good.address()),
            ("{S}", self.sick.address()),
            ("{D}", self.dead),
        ];
        addresses.iter().fold(series.to_owned(), |series, (name, address)| series.replace(name, &address.to_string()))
    }
}

fn answer(request: &Received) -> Reply {
    match request.target.as_str() {
        "/hang" => Reply::hang(),
        "/socket" => Reply::echo(),
        "/kept" => Reply::new(200),
        "/missing" => Reply::new(404).header("Connection", "close"),
        "/odd" => Reply::new(799).header("Connection", "close"),
        _ => Reply::new(200).header("Connection", "close").body("hello"),
    }
}

// --- the series of a request

#[test]
fn a_request_changes_only_its_own_series() {
    type Act = fn(&Scene);
    let rows: &[(&str, Act, &str)] = &[
        (
            "a page",
            |scene| assert_eq!(scene.fetch("GET", "/", &[API, ORIGIN]), 200),
            "requests_total api all GET 2xx; cors_decisions_total api all actual allowed_exact; ~forwarded api all",
        ),
        (
            "a page that the report-only policy would refuse",
            |scene| assert_eq!(scene.fetch("GET", "/tried", &[API, ORIGIN]), 200),
            "requests_total api tried GET 2xx; cors_decisions_total api tried actual allowed_exact
             report_only_total api tried would_refuse origin_not_allowed; ~forwarded api tried",
        ),
        (
            "another page, which may not read it",
            |scene| assert_eq!(scene.fetch("GET", "/", &[API, EVIL]), 200),
            "requests_total api all GET 2xx; cors_decisions_total api all actual origin_not_allowed; ~forwarded api all",
        ),
        (
            "no page",
            |scene| assert_eq!(scene.fetch("POST", "/users/7/say\"hi\"", &[API]), 200),
            "requests_total api /users/{id}/say\"hi\" POST 2xx
             cors_decisions_total api /users/{id}/say\"hi\" actual no_origin; ~forwarded api /users/{id}/say\"hi\"",
        ),
        (
            "a method that nobody knows",
            |scene| assert_eq!(scene.fetch("BREW", "/raw", &[API, ORIGIN]), 200),
            "requests_total api raw other 2xx; cors_decisions_total api raw actual no_policy; ~forwarded api raw",
        ),
        (
            "a service without routes",
            |scene| assert_eq!(scene.fetch("PATCH", "/any", &[("Host", "whole.test"), EVIL]), 200),
            "requests_total whole whole PATCH 2xx; cors_decisions_total whole whole actual allowed_any; ~forwarded whole whole",
        ),
        (
            "an error of the upstream's",
            |scene| assert_eq!(scene.fetch("PUT", "/missing", &[API]), 404),
            "requests_total api all PUT 4xx; cors_decisions_total api all actual no_origin
             request_duration_seconds_count api all; upstream_response_seconds_count api all
             connections_total {L}; upstream_connects_total good {G}",
        ),
        (
            "a status that there is not",
            |scene| assert_eq!(scene.fetch("GET", "/odd", &[API]), 799),
            "requests_total api all GET other; cors_decisions_total api all actual no_origin
             request_duration_seconds_count api all; upstream_response_seconds_count api all
             connections_total {L}; upstream_connects_total good {G}",
        ),
        (
            "a preflight",
            |scene| {
                let asks = [API, ORIGIN, ("Access-Control-Request-Method", "PUT")];
                assert_eq!(scene.fetch("OPTIONS", "/", &asks), 200);
            },
            "requests_total api all OPTIONS 2xx; cors_decisions_total api all preflight allowed_exact; ~answered api all",
        ),
        (
            "a preflight of another page",
            |scene| {
                scene.fetch("OPTIONS", "/", &[API, EVIL, ("Access-Control-Request-Method", "PUT")]);
            },
            "requests_total api all OPTIONS 2xx; cors_decisions_total api all preflight origin_not_allowed
             ~answered api all",
        ),
        (
            "a preflight for another method",
            |scene| {
                scene.fetch("OPTIONS", "/", &[API, ORIGIN, ("Access-Control-Request-Method", "DELETE")]);
            },
            "requests_total api all OPTIONS 2xx; cors_decisions_total api all preflight method_not_allowed
             ~answered api all",
        ),
        (
            "a preflight for another header",
            |scene| {
                let asks = [
                    API,
                    ORIGIN,
                    ("Access-Control-Request-Method", "PUT"),
                    ("Access-Control-Request-Headers", "x-two"),
                ];
                scene.fetch("OPTIONS", "/", &asks);
            },
            "requests_total api all OPTIONS 2xx; cors_decisions_total api all preflight header_not_allowed
             ~answered api all",
        ),
        (
            "a page that is rejected",
            |scene| assert_eq!(scene.fetch("HEAD", "/strict", &[API, EVIL]), 403),
            "requests_total api strict HEAD 4xx; cors_decisions_total api strict actual origin_not_allowed
             ~answered api strict",
        ),
        (
            "an unknown host",
            |scene| assert_eq!(scene.fetch("GET", "/", &[("Host", "unknown.test")]), 404),
            "requests_total - - GET 4xx; refused_requests_total - - unknown_host; response_body_bytes_total - - = 26
             ~answered - -",
        ),
        (
            "a method without a route",
            |scene| assert_eq!(scene.fetch("DELETE", "/reads", &[API]), 405),
            "requests_total - - DELETE 4xx; refused_requests_total - - no_route_for_method
             response_body_bytes_total - - = 39; ~answered - -",
        ),
        (
            "a path that servers disagree about",
            |scene| assert_eq!(scene.fetch("HEAD", "/a/%2e%2e/b", &[API]), 400),
            "requests_total - - HEAD 4xx; refused_requests_total - - ambiguous_path; ~answered - -",
        ),
        (
            "a target of a route that is too long",
            |scene| assert_eq!(scene.fetch("HEAD", &format!("/raw?{}", "x".repeat(9000)), &[API]), 414),
            "requests_total api raw HEAD 4xx; refused_requests_total api raw uri_too_long; ~answered api raw",
        ),
        (
            "a node that is not there",
            |scene| assert_eq!(scene.fetch("GET", "/dead", &[API]), 502),
            "requests_total api dead GET 5xx; cors_decisions_total api dead actual no_origin
             response_body_bytes_total api dead = 37; upstream_connect_failures_total dead {D}; ~answered api dead",
        ),
        (
            "a node that is not there, and another one",
            |scene| assert_eq!(scene.fetch("POST", "/pair", &[API]), 200),
            "requests_total api pair POST 2xx; cors_decisions_total api pair actual no_origin
             request_duration_seconds_count api pair; upstream_response_seconds_count api pair
             response_body_bytes_total api pair = 5; connections_total {L}
             upstream_connect_failures_total pair {D}; upstream_retries_total pair another_node
             upstream_connects_total pair {G}",
        ),
        (
            "a node that breaks off, and another one",
            |scene| assert_eq!(scene.fetch("GET", "/sick", &[API]), 200),
            "requests_total api sick GET 2xx; cors_decisions_total api sick actual no_origin
             request_duration_seconds_count api sick; upstream_response_seconds_count api sick
             response_body_bytes_total api sick = 5; connections_total {L}
             upstream_connects_total sick {S}; upstream_no_responses_total sick {S}
             upstream_ejections_total sick {S}; upstream_retries_total sick another_node
             upstream_connects_total sick {G}",
        ),
        (
            "a route with several upstreams",
            |scene| assert_eq!(scene.fetch("GET", "/shared", &[API]), 200),
            "requests_total api shared GET 2xx; cors_decisions_total api shared actual no_origin
             split_responses_total good 2xx; ~forwarded api shared",
        ),
        (
            "two requests on one connection, and one to the node",
            |scene| {
                let ended = || counts(&scene.gateway).get("requests_total api all GET 2xx").copied();
                let (before, mut connection) = (ended(), Connection::open(scene.gateway.address()).unwrap());
                assert_eq!(connection.request("GET", "/kept", &[API], b"").unwrap().status, 200);
                eventually("the connection is given back", || ended() > before);
                assert_eq!(connection.request("GET", "/", &[API], b"").unwrap().status, 200);
            },
            "requests_total api all GET 2xx = 2; cors_decisions_total api all actual no_origin = 2
             request_duration_seconds_count api all = 2; upstream_response_seconds_count api all = 2
             response_body_bytes_total api all = 5; connections_total {L}
             upstream_connects_total good {G}; upstream_reuses_total good {G}",
        ),
        (
            "a WebSocket",
            |scene| {
                let mut socket = Connection::open(scene.gateway.address()).unwrap();
                let upgrade = [API, ORIGIN, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
                assert_eq!(socket.request("GET", "/socket", &upgrade, b"").unwrap().status, 101);
                socket.send(b"echo").unwrap();
                assert_eq!(socket.receive(4).unwrap(), b"echo");
            },
            "requests_total api all GET 1xx; cors_decisions_total api all actual allowed_exact
             upstream_response_seconds_count api all; response_body_bytes_total api all = 4
             connections_total {L}; upstream_connects_total good {G}",
        ),
        (
            "a client that goes away",
            |scene| {
                let (hits, mut client) = (scene.good.hits(), Connection::open(scene.gateway.address()).unwrap());
                client.send(b"GET /hang HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
                scene.good.wait_for_hits(hits + 1);
            },
            "requests_total api all GET none; cors_decisions_total api all actual no_origin
             request_duration_seconds_count api all; connections_total {L}; upstream_connects_total good {G}",
        ),
        (
            "HTTP/2",
            |scene| {
                let get = H2Request::new("GET", "api.test", "/").header("origin", "https://app.test");
                assert_eq!(h2_client::fetch(scene.gateway.address2(), &scene.tls, &get).status, 200);
            },
            "requests_total api all GET 2xx; cors_decisions_total api all actual allowed_exact
             request_duration_seconds_count api all; upstream_response_seconds_count api all
             response_body_bytes_total api all = 5; connections_total {T}; tls_handshakes_total {T} ok
             upstream_connects_total good {G}",
        ),
        (
            "a client of HTTP/2 that goes away",
            |scene| {
                let client = H2Client::open(scene.gateway.address2(), &scene.tls).unwrap();
                let hits = scene.good.hits();
                let pending = client.begin(&H2Request::new("GET", "api.test", "/hang")).unwrap();
                scene.good.wait_for_hits(hits + 1);
                drop((pending, client));
            },
            "requests_total api all GET none; cors_decisions_total api all actual no_origin
             request_duration_seconds_count api all; connections_total {T}; tls_handshakes_total {T} ok
             upstream_connects_total good {G}",
        ),
        (
            "no TLS where there should be",
            |scene| {
                let mut connection = Connection::open(scene.gateway.address2()).unwrap();
                connection.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            },
            "connections_total {T}; tls_handshakes_total {T} failed; connections_refused_total {T} handshake",
        ),
        (
            "no HTTP",
            |scene| {
                let mut connection = Connection::open(scene.gateway.address()).unwrap();
                connection.send(b"EHLO evil.test\r\n\r\n").unwrap();
                assert_eq!(connection.read("GET").unwrap().status, 400);
            },
            "connections_total {L}; bad_headers_total {L} malformed",
        ),
        (
            "a tunnel",
            |scene| assert_eq!(scene.fetch("CONNECT", "evil.test:443", &[("Host", "evil.test:443")]), 405),
            "connections_total {L}; bad_headers_total {L} malformed",
        ),
        (
            "a connection without a request",
            |scene| drop(Connection::open(scene.gateway.address()).unwrap()),
            "connections_total {L}",
        ),
    ];
    let scene = Scene::start();
    let mut before = counts(&scene.gateway);
    for (what, act, expected) in rows {
        act(&scene);
        let expected = scene.expected(expected);
        let deadline = Instant::now() + Duration::from_secs(10);
        // A late change of a series would disturb the next row.
        before = loop {
            let after = counts(&scene.gateway);
            let moved = deltas(&before, &after);
            if moved == expected {
                break after;
            }
            assert!(Instant::now() < deadline, "{what}:\n{}", difference(&expected, &moved));
            thread::sleep(Duration::from_millis(5));
        };
    }
    eventually("nothing is under way", || open(&scene.gateway) == 0);
    let page = page(&scene.gateway);
    assert_valid(&page);
    let gauge = |series: &str| page.iter().find(|sample| sample.key() == series).map(|sample| sample.value);
    assert_eq!(gauge("requests_in_flight"), Some(0.0));
    assert_eq!(gauge("connections_limit"), Some(1000.0));
    assert_eq!(gauge(&format!("upstream_node_ejected sick {}", scene.sick.address())), Some(1.0));
    assert_eq!(gauge(&format!("upstream_node_healthy good {}", scene.good.address())), Some(1.0));
    let ends = gauge(&format!("certificate_expiry_timestamp_seconds {} api.test", scene.gateway.address2()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(ends.is_some_and(|ends| ends > now), "{ends:?}");
    assert!(
        gauge("config_last_reload_success_timestamp_seconds").is_some_and(|read| read <= now && now - read < 600.0)
    );
    let hash = page.iter().find(|sample| sample.family == "corsgate_config_info").unwrap().labels[0].1.clone();
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert!(page.iter().any(|sample| sample.key() == format!("build_info {}", env!("CARGO_PKG_VERSION"))));
    // Every kind of series has changed.
    let seen: HashSet<&str> = page.iter().map(|sample| sample.family.as_str()).collect();
    // tests/it/etcd.rs has those of etcd.
    let known = FAMILIES
        .iter()
        .map(|family| family.name)
        .filter(|name| !name.starts_with("etcd_") && !name.starts_with("corsgate_etcd_"));
    let unseen: Vec<_> = known.filter(|name| !seen.contains(name)).collect();
    assert_eq!(unseen, [""; 0]);
}

fn deltas(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |counts: &BTreeMap<String, i64>, series: &String| counts.get(series).copied().unwrap_or(0);
    let moved = all.into_iter().map(|series| (series.clone(), of(after, series) - of(before, series)));
    moved.filter(|(_, by)| *by != 0).collect()
}

fn difference(expected: &BTreeMap<String, i64>, moved: &BTreeMap<String, i64>) -> String {
    let mut text = String::new();
    for (series, by) in expected.iter().filter(|pair| moved.get(pair.0) != Some(pair.1)) {
        writeln!(text, "expected: {series} = {by}").unwrap();
    }
    for (series, by) in moved.iter().filter(|pair| expected.get(pair.0) != Some(pair.1)) {
        writeln!(text, "got: {series} = {by}").unwrap();
    }
    text
}

/// Each duration is in the correct histogram.
#[test]
fn the_time_of_the_upstream_is_measured_apart() {
    let slow = Duration::from_millis(120);
    let upstream = Upstream::start(move |_| Reply::new(200).after(slow));
    let gateway = Gateway::start(&small(upstream.address(), &["a"]));
    let fields = [API, ORIGIN, ("Access-Control-Request-Method", "GET")];
    assert_eq!(fetch(gateway.address(), "OPTIONS", "/a", &fields).status, 200);
    assert_eq!(fetch(gateway.address(), "GET", "/a", &[API]).status, 200);
    eventually("both are counted", || counts(&gateway).get("request_duration_seconds_count api a") == Some(&2));
    let page = page(&gateway);
    let value = |series: &str| page.iter().find(|sample| sample.key() == series).map(|sample| sample.value);
    let bucket = |of: &str, le: &str| value(&format!("{of}_bucket api a {le}"));
    assert_eq!(bucket("request_duration_seconds", "0.1"), Some(1.0), "the preflight");
    assert_eq!(bucket("upstream_response_seconds", "0.1"), Some(0.0));
    for of in ["request_duration_seconds", "upstream_response_seconds"] {
        let sum = value(&format!("{of}_sum api a")).unwrap();
        assert!((slow.as_secs_f64()..5.0).contains(&sum), "{of}: {sum}");
        assert_eq!(bucket(of, "60"), value(&format!("{of}_count api a")));
    }
}

/// An incomplete header, and an oversized one.
#[test]
fn late_and_oversized_headers_are_counted() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let limits = "limits: { header_timeout: 1s, headers: 2KiB, uri: 1KiB }\n";
    let gateway = Gateway::start(&format!("{limits}{}", small(upstream.address(), &["a"])));
    for (status, reason, bytes) in [
        (408, "late", "GET / HTTP/1.1\r\nX:".to_owned()),
        (431, "too_large", format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000))),
    ] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(bytes.as_bytes()).unwrap();
        assert_eq!(connection.read("GET").unwrap().status, status);
        let series = format!("bad_headers_total {} {reason}", gateway.address());
        eventually(&series, || counts(&gateway).get(&series) == Some(&1));
    }
}

// --- bounds against clients

#[test]
fn client_input_creates_no_series() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&small(upstream.address(), &["a"]));
    let send = |n: usize| {
        let evil = format!("evil{n}.test");
        let path = format!("/evil/{n}?evil={n}\"");
        let method = format!("EVIL{n}");
        let origin = format!("https://{evil}");
        for (host, path, method) in [
            (&*evil, "/a", "GET"),
            ("api.test", &path, "GET"),
            ("api.test", "/a", &method),
            ("api.test", "/a", "OPTIONS"),
            ("evil evil", "/a", "GET"),
            (&*evil, &path, &method),
        ] {
            let fields = [
                ("Host", host),
                ("Origin", &*origin),
                ("Access-Control-Request-Method", method),
                ("Access-Control-Request-Headers", &*evil),
                ("X-Request-Id", &*evil),
            ];
            fetch(gateway.address(), method, path, &fields);
        }
    };
    let series = || page(&gateway).iter().map(Sample::key).collect::<BTreeSet<_>>();
    let sent = |n: usize| {
        send(n);
        let all = || {
            let ours = |name: &str| name.starts_with("requests_total") || name.starts_with("bad_headers_total");
            counts(&gateway).iter().filter(|(name, _)| ours(name)).map(|(_, count)| count).sum::<i64>()
        };
        eventually("all are counted", || all() == 6 * (i64::try_from(n).unwrap() + 1));
    };
    sent(0);
    let first = series();
    (1..40).for_each(sent);
    assert_eq!(series(), first);
    assert!(!first.iter().any(|name| name.to_lowercase().contains("evil")), "{first:?}");
}

/// Labels have exactly the names of the configuration.
#[test]
fn routes_of_one_service_and_name_share_a_series() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
upstreams: {{ good: {{ nodes: [{{ address: \"{}\" }}] }} }}
services:
  - {{ name: a, hosts: a.test, upstream: good, routes: [{{ name: x, paths: [/*] }}] }}
  - {{ name: b, hosts: b.test, upstream: good, routes: [{{ name: x, paths: [/*] }}] }}
  - name: c
    hosts: c.test
    upstream: good
    routes: [{{ paths: [/x], methods: [GET] }}, {{ paths: [/x], methods: [PUT] }}]
  - {{ name: '-', hosts: d.test, upstream: good, routes: [{{ name: '-', paths: [/*] }}] }}
  - {{ name: good, hosts: e.test, upstream: {{ nodes: [{{ address: \"{}\" }}] }} }}
",
        upstream.address(),
        upstream.address()
    ));
    let get = |method, host| fetch(gateway.address(), method, "/x", &[("Host", host)]).status;
    for (method, host) in [
        ("GET", "a.test"),
        ("GET", "b.test"),
        ("GET", "b.test"),
        ("GET", "c.test"),
        ("PUT", "c.test"),
        ("GET", "d.test"),
        ("GET", "nowhere.test"),
        ("GET", "e.test"),
    ] {
        assert_eq!(get(method, host), if host == "nowhere.test" { 404 } else { 200 });
    }
    let expected = [("- -", 2), ("a x", 1), ("b x", 2), ("c /x", 2), ("good good", 1)];
    let durations = || {
        let counts = counts(&gateway).into_iter();
        let ours =
            counts.filter_map(|(name, n)| Some((name.strip_prefix("request_duration_seconds_count ")?.to_owned(), n)));
        ours.collect::<Vec<_>>()
    };
    eventually("all are counted", || {
        durations().iter().map(|(name, n)| (name.as_str(), *n)).eq(expected.iter().copied())
    });
    // An inline upstream with the name of another one and the same node shares its series.
    assert_valid(&page(&gateway));
}

// --- reloads

#[test]
fn a_reload_keeps_the_series_of_its_routes_and_drops_others() {
    let upstream = Upstream::start(answer);
    let gateway = Gateway::start(&small(upstream.address(), &["stays", "goes"]));
    let get = |path: &str| assert_eq!(fetch(gateway.address(), "GET", path, &[API, ORIGIN]).status, 200);
    let requests = |route: &str| counts(&gateway).get(&format!("requests_total api {route} GET 2xx")).copied();
    ["/stays", "/goes", "/stays"].into_iter().for_each(get);
    eventually("they are counted", || requests("stays") == Some(2) && requests("goes") == Some(1));
    // A running request is counted for the route of its own configuration.
    let mut begun = Connection::open(gateway.address()).unwrap();
    let socket = [API, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(begun.request("GET", "/socket", &socket, b"").unwrap().status, 101);
    gateway.reload_with(&small(upstream.address(), &["new", "stays"]));
    gateway.wait_for_log("reloaded generation=2");
    assert_eq!((requests("stays"), requests("goes")), (Some(2), None));
    drop(begun);
    eventually("it is counted", || counts(&gateway).get("requests_total api socket GET 1xx") == Some(&1));
    ["/stays", "/new"].into_iter().for_each(get);
    eventually("they are counted", || requests("stays") == Some(3) && requests("new") == Some(1));
    assert_eq!(requests("goes"), None);
    let now = counts(&gateway);
    assert_eq!(now.get("config_reloads_total applied"), Some(&1));
    assert_eq!(
        now.get(&format!("upstream_connects_total good {}", upstream.address())),
        Some(&6),
        "it is the same one"
    );
}

#[test]
fn a_hundred_reloads_with_other_routes_leak_no_series() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = Gateway::start(&small(upstream.address(), &["r0"]));
    let mut sizes = BTreeSet::new();
    for n in 0..100 {
        assert_eq!(fetch(gateway.address(), "GET", &format!("/r{n}"), &[API]).status, 200);
        let series = format!("requests_total api r{n} GET 2xx");
        eventually(&series, || counts(&gateway).contains_key(&series));
        sizes.insert(page(&gateway).len());
        gateway.reload_with(&small(upstream.address(), &[&format!("r{}", n + 1)]));
        gateway.wait_for_log(&format!("reloaded generation={}\n", n + 2));
    }
    // The series for new and reused connections appear and disappear. A route has more than 40 series.
    assert!(sizes.last().unwrap() - sizes.first().unwrap() < 5, "{sizes:?}");
}

/// A service with these routes, and a service for WebSockets.
fn small(upstream: SocketAddr, routes: &[&str]) -> String {
    let routes: String = routes.iter().map(|name| format!("      - {{ name: {name}, paths: [/{name}] }}\n")).collect();
    format!(
        "
listeners: [{{ address: \"{{listen}}\" }}]
admin: {{ address: \"{{admin}}\" }}
server: {{ threads: 1 }}
upstreams: {{ good: {{ nodes: [{{ address: \"{upstream}\" }}] }} }}
services:
  - name: api
    hosts: api.test
    upstream: good
    cors: {{ allow_origins: https://app.test }}
    routes:
      - {{ name: socket, paths: [/socket] }}
{routes}"
    )
}

// --- documentation, dashboard and alerts

/// The table in docs/operation.md, row by row.
#[test]
fn the_manual_has_a_row_for_each_metric() {
    let manual = fs::read_to_string(root().join("docs/operation.md")).unwrap();
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `corsgate_")?.split_once("` |"));
    let rows: Vec<(String, String)> = rows
        .map(|(name, rest)| {
            let labels: Vec<&str> = rest.split('|').next().unwrap().split('`').skip(1).step_by(2).collect();
            (format!("corsgate_{name}"), labels.join(" "))
        })
        .collect();
    let families: Vec<_> = FAMILIES.iter().map(|family| (family.name.to_owned(), family.labels.join(" "))).collect();
    assert_eq!(rows, families);
    assert!(PROCESS.iter().all(|name| manual.contains(&format!("`{name}`"))));
}

#[test]
fn every_documented_metric_exists() {
    let known = known();
    let mut mentioned = 0;
    let folders = ["docs", "conf", "conf/grafana", "conf/prometheus", "conf/kubernetes", "."];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    for file in files.map(|file| file.unwrap().path()).filter(|file| file.is_file()) {
        let Some("md" | "json" | "yaml") = file.extension().and_then(|extension| extension.to_str()) else { continue };
        let text = fs::read_to_string(&file).unwrap();
        for (start, _) in text.match_indices("corsgate_") {
            // The match must not be in the middle of another name, such as the name of a test.
            if text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let name: String = text[start..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            mentioned += 1;
            assert!(known.contains_key(&name), "{}: there is no {name}", file.display());
        }
    }
    assert!(mentioned > 60, "only {mentioned} were found");
}

#[test]
fn dashboard_and_alerts_query_existing_series() {
    let known = known();
    let mut seen = BTreeSet::new();
    let mut queries = dashboard_queries(&root().join("conf/grafana/corsgate.json"));
    assert!(queries.len() > 20, "only {} were found", queries.len());
    let alerts: serde_yaml::Value =
        serde_yaml::from_str(&fs::read_to_string(root().join("conf/prometheus/alerts.yaml")).unwrap()).unwrap();
    let rules: Vec<&serde_yaml::Value> = alerts["groups"]
        .as_sequence()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_sequence().unwrap())
        .collect();
    assert!(rules.len() >= 8, "only {} were found", rules.len());
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        for key in ["summary", "description", "action"] {
            let text = rule["annotations"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
            assert!(text.len() > 10, "{name} {key}: {text}");
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        queries.push(rule["expr"].as_str().expect("a query").to_owned());
    }
    for query in &queries {
        let plain = query
            .replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$service", "api")
            .replace("$route", "all")
            .replace("$job", "job")
            .replace("$instance", "instance");
        assert!(!plain.contains('$'), "a variable that the dashboard has not: {query}");
        let parsed = promql_parser::parser::parse(&plain).unwrap_or_else(|error| panic!("{query}: {error}"));
        seen.extend(check(&parsed, &known, query).0);
    }
    assert!(seen.len() > 20, "{seen:?}");
}

/// The queries of all panels and variables.
fn dashboard_queries(file: &Path) -> Vec<String> {
    fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                if let Some(serde_json::Value::String(query)) = object.get("expr") {
                    queries.push(query.clone());
                }
                if let Some(serde_json::Value::String(query)) = object.get("definition") {
                    // label_values(QUERY, LABEL) of a variable means `group by (LABEL) (QUERY)`.
                    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                    let (query, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values");
                    queries.push(format!("group by ({label}) ({query})"));
                }
                object.values().for_each(|value| collect(value, queries));
            }
            serde_json::Value::Array(array) => array.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let dashboard = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    queries
}

/// The names of the metrics in a query, and the labels of its result.
fn check(expr: &Expr, known: &Known, query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = (BTreeSet::new(), BTreeSet::new());
    let merge = |found: &mut (BTreeSet<String>, BTreeSet<String>), more: (BTreeSet<String>, BTreeSet<String>)| {
        found.0.extend(more.0);
        found.1.extend(more.1);
    };
    let selector = |selector: &VectorSelector| {
        let name = selector.name.clone().unwrap_or_else(|| panic!("a selector without a name: {query}"));
        let labels = known.get(&name).unwrap_or_else(|| panic!("there is no {name}: {query}"));
        for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
            assert!(labels.contains(&matcher.name), "{name} has no label {}: {query}", matcher.name);
        }
        (BTreeSet::from([name]), labels.clone())
    };
    let exist = |modifier: &LabelModifier, labels: &BTreeSet<String>| {
        for label in &modifier.labels().labels {
            assert!(labels.contains(label), "nothing here has a label {label}: {query}");
        }
    };
    match expr {
        Expr::VectorSelector(vector) => merge(&mut found, selector(vector)),
        Expr::MatrixSelector(matrix) => merge(&mut found, selector(&matrix.vs)),
        Expr::Aggregate(aggregate) => {
            merge(&mut found, check(&aggregate.expr, known, query));
            let Some(modifier) = &aggregate.modifier else {
                found.1.clear();
                return found;
            };
            exist(modifier, &found.1);
            let named = |label: &String| modifier.labels().labels.contains(label);
            match modifier {
                LabelModifier::Include(_) => found.1.retain(named),
                LabelModifier::Exclude(_) => found.1.retain(|label| !named(label)),
            }
        }
        Expr::Binary(binary) => {
            let (left, right) = (check(&binary.lhs, known, query), check(&binary.rhs, known, query));
            if let Some(matching) = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
                exist(matching, &left.1);
                exist(matching, &right.1);
            }
            merge(&mut found, left);
            merge(&mut found, right);
        }
        Expr::Call(call) => {
            for argument in &call.args.args {
                merge(&mut found, check(argument, known, query));
            }
            if call.func.name == "histogram_quantile" {
                assert!(found.1.remove("le"), "no buckets: {query}");
            }
        }
        Expr::Paren(paren) => merge(&mut found, check(&paren.expr, known, query)),
        Expr::Unary(unary) => merge(&mut found, check(&unary.expr, known, query)),
        Expr::Subquery(subquery) => merge(&mut found, check(&subquery.expr, known, query)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::Extension(_) => panic!("no PromQL: {query}"),
    }
    found
}

/// The names of all series with their labels, including the labels that Prometheus adds.
type Known = BTreeMap<String, BTreeSet<String>>;

fn known() -> Known {
    let labels = |own: &[&str]| own.iter().chain(&["job", "instance"]).map(|label| (*label).to_owned()).collect();
    let mut known = Known::new();
    for family in FAMILIES {
        known.insert(family.name.to_owned(), labels(family.labels));
        if family.kind == MetricKind::Histogram {
            for suffix in ["sum", "count"] {
                known.insert(format!("{}_{suffix}", family.name), labels(family.labels));
            }
            known.insert(format!("{}_bucket", family.name), labels(&[family.labels, &["le"]].concat()));
        }
    }
    for name in PROCESS {
        known.insert(name.to_owned(), labels(&[]));
    }
    // Metrics of Prometheus itself.
    known.insert("up".to_owned(), labels(&[]));
    known
}

const PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

// --- the parser of /metrics

/// One line.
#[derive(Debug, Clone)]
struct Sample {
    /// The name of its metric.
    family: String,
    kind: String,
    /// The name of the series, with the suffix of a histogram if it has one.
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    /// The name without the prefix `corsgate_`, and the values of the labels.
    fn key(&self) -> String {
        let name = self.name.strip_prefix("corsgate_").unwrap_or(&self.name);
        self.labels.iter().fold(name.to_owned(), |key, (_, value)| key + " " + value)
    }
}

/// All current samples.
fn page(gateway: &Gateway) -> Vec<Sample> {
    let response = fetch(gateway.admin(), "GET", "/metrics", &[("Host", "127.0.0.1")]);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(response.text())
}

/// The values that only grow: counters, and the counts of histograms.
fn counts(gateway: &Gateway) -> BTreeMap<String, i64> {
    let growing = |sample: &Sample| {
        let is_count = sample.kind == "histogram" && sample.name.ends_with("_count");
        sample.name.starts_with("corsgate_") && (sample.kind == "counter" || is_count)
    };
    #[expect(clippy::cast_possible_truncation, reason = "they count what a test did")]
    let pair = |sample: &Sample| (sample.key(), sample.value as i64);
    page(gateway).iter().filter(|sample| growing(sample)).map(pair).collect()
}

fn open(gateway: &Gateway) -> usize {
    page(gateway).iter().filter(|sample| sample.family == "corsgate_connections_open" && sample.value > 0.0).count()
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Parses the text format (version 0.0.4) strictly: for each metric one HELP, one TYPE, and its samples.
fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "it does not end with a line");
    let (mut samples, mut families) = (Vec::new(), HashSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (family, help) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("no HELP: {line}"));
        assert!(help.len() > 10, "{line}");
        assert!(families.insert(family.to_owned()), "{family} comes twice");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} "))).expect("a TYPE");
        assert!(lines.peek().is_some_and(|next| next.starts_with(family)), "{family} has no samples");
        while let Some(line) = lines.next_if(|next| !next.starts_with('#')) {
            let mut sample = parse_sample(line);
            (sample.family, sample.kind) = (family.to_owned(), kind.to_owned());
            let suffix = sample.name.strip_prefix(family).unwrap_or_else(|| panic!("not of {family}: {line}"));
            let suffixes = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            samples.push(sample);
        }
    }
    samples
}

/// `name{label="value",…} number`
fn parse_sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).expect("a name");
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("no end: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().map(|(_, c)| c) {
                        Some('n') => '\n',
                        Some(c @ ('"' | '\\')) => c,
                        other => panic!("\\{other:?}: {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
            match rest.as_bytes()[0] {
                b',' => rest = &rest[1..],
                b'}' => break rest = &rest[1..],
                _ => panic!("neither `,` nor `}}`: {line}"),
            }
        }
    }
    let value =
        rest.strip_prefix(' ').and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"));
    Sample { family: String::new(), kind: String::new(), name: name.to_owned(), labels, value }
}

/// The checks of `promtool check metrics`, and the sums of histograms.
fn assert_valid(samples: &[Sample]) {
    let mut seen = HashSet::new();
    for sample in samples {
        let Sample { family, kind, labels, value, .. } = sample;
        assert!(seen.insert((&sample.name, labels)), "twice: {}", sample.key());
        assert!(family.starts_with("corsgate_") || PROCESS.contains(&family.as_str()), "{family}");
        assert!(family.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{family}");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        for word in [
            "gauge",
            "counter",
            "histogram",
            "_ms",
            "_milliseconds",
            "_minutes",
            "_kilobytes",
            "_percent",
            "_count",
            "_sum",
            "_bucket",
        ] {
            assert!(!family.contains(word), "{family} says {word}");
        }
        let is_of_time = family.contains("duration") || family.contains("timestamp") || kind == "histogram";
        assert!(!is_of_time || family.ends_with("_seconds"), "{family} has no unit");
        assert!(value.is_finite() && *value >= 0.0, "{sample:?}");
        if let Some(known) = FAMILIES.iter().find(|known| known.name == *family) {
            let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "le").collect();
            assert_eq!(names, known.labels, "{family}");
            assert_eq!(*kind, format!("{:?}", known.kind).to_lowercase(), "{family}");
        } else {
            assert!(labels.is_empty(), "{sample:?}");
        }
        assert_eq!(sample.name.ends_with("_bucket"), labels.iter().any(|(name, _)| name == "le"), "{sample:?}");
    }
    // The buckets of a series are consecutive, followed by its sum and count.
    let mut histograms = samples.iter().filter(|sample| sample.kind == "histogram").peekable();
    while histograms.peek().is_some() {
        let (mut bound, mut count) = (f64::NEG_INFINITY, 0.0);
        let mut of = None;
        while let Some(bucket) = histograms.next_if(|sample| sample.name.ends_with("_bucket")) {
            let (le, own) = bucket.labels.split_last().unwrap();
            let le: f64 = le.1.parse().unwrap();
            assert!(le > bound && bucket.value >= count, "{bucket:?}");
            assert_eq!(*of.get_or_insert(own), own);
            (bound, count) = (le, bucket.value);
        }
        assert!(bound.is_infinite(), "{of:?} has no last bucket");
        let (sum, total) = (histograms.next().unwrap(), histograms.next().unwrap());
        assert!(sum.name.ends_with("_sum") && total.name.ends_with("_count"), "{sum:?} {total:?}");
        assert_eq!((Some(&*sum.labels), Some(&*total.labels)), (of, of));
        assert!((total.value - count).abs() < 0.5, "{total:?}");
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
