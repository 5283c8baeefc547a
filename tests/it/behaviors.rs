//! Tests the behaviors of routes besides CORS, with a real process: paths, `Host`, header edits, clients, fixed
//! responses and redirects. `matrix.rs` tests the same behaviors together with CORS.
//!
//! Each row of a table is one request. In most tables, each row has its own host.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};

use crate::support::certificates::Authority;
use crate::support::client::{Connection, Response, fetch, fetch_tls};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{self, H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::tls_client::TlsClient;
use crate::support::upstream::{Received, Reply, Upstream};

/// Fields that a client sends.
type Sent<'a> = &'a [(&'a str, &'a str)];

const ORIGIN: (&str, &str) = ("Origin", "https://app.test");

/// Starts a gateway with one service for each entry of `keys`. An entry has the keys of a route. The hosts of the
/// services are `h0.test`, `h1.test` and so on. `top` has the top-level keys.
fn gateway<'a>(top: &str, upstream: SocketAddr, keys: impl IntoIterator<Item = &'a str>) -> Gateway {
    Gateway::start(&config(&format!("listeners: [{{ address: \"{{listen}}\" }}]\n{top}"), upstream, keys))
}

fn config<'a>(top: &str, upstream: SocketAddr, keys: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!("{top}\nupstreams: {{ api: {{ nodes: [{{ address: '{upstream}' }}] }} }}\nservices:\n");
    for (i, keys) in keys.into_iter().enumerate() {
        let is_end = ["respond:", "redirect:", "upstream:"].iter().any(|key| keys.contains(key));
        let end = if is_end { "" } else { ", upstream: api" };
        let _ = writeln!(
            text,
            "  - {{ name: s{i}, hosts: [h{i}.test], routes: [{{ name: r, paths: [/*], {keys}{end} }}] }}"
        );
    }
    text
}

fn host(i: usize) -> String {
    format!("h{i}.test")
}

/// Sends a request with a Host. Returns the response, and the request that the upstream received.
#[track_caller]
fn exchange(
    gateway: SocketAddr,
    upstream: &Upstream,
    host: &str,
    (method, target): (&str, &str),
    fields: &[(&str, &str)],
) -> (Response, Option<Received>) {
    upstream.clear();
    let response = fetch(gateway, method, target, &[&[("Host", host)], fields].concat());
    (response, upstream.received().pop())
}

// === the path ===

const STRIP: &str = "strip_prefix: /v1";
const LONG: &str = "path: { strip_prefix: /v1 }";
const ADD: &str = "path: { add_prefix: /api }";
const ALL: &str =
    r"path: { strip_prefix: /v1, replace: { pattern: '^/users/(\d+)$', with: /accounts/$1 }, add_prefix: /api }";
const USERS: &str = r"path: { replace: { pattern: '^/users/(?<id>\d+)$', with: '/accounts/${id}' } }";
const SECRET: &str = "path: { replace: { pattern: secret, with: open } }";
const HOLE: &str = "path: { replace: { pattern: x, with: '' } }";
const SLASHES: &str = "path: { replace: { pattern: '^/go', with: //evil.test } }";
const TWICE: &str = "path: { replace: { pattern: '.*', with: '$0$0$0$0$0$0$0$0$0' } }";

#[test]
fn the_path_changes_on_its_way_to_the_upstream() {
    /// The target that the upstream gets, or the status of the gateway's error.
    type Outcome = Result<&'static str, u16>;
    #[rustfmt::skip]
    let rows: [(&str, &str, Outcome, Option<&str>); 34] = [
        (STRIP,   "/v1/x?y=/v1/x",              Ok("/x?y=/v1/x"),          Some("/v1")),
        (STRIP,   "/v1",                        Ok("/"),                   Some("/v1")),
        (STRIP,   "/v1/",                       Ok("/"),                   Some("/v1")),
        (STRIP,   "/v1?x",                      Ok("/?x"),                 Some("/v1")),
        (STRIP,   "/v1/v1/x",                   Ok("/v1/x"),               Some("/v1")),
        (STRIP,   "/v1x",                       Ok("/v1x"),                None),
        (STRIP,   "/V1/x",                      Ok("/V1/x"),               None),
        (STRIP,   "/%761/x",                    Ok("/%761/x"),             None),
        (STRIP,   "/v1//evil.test/x",           Ok("/evil.test/x"),        Some("/v1")),
        (STRIP,   "/v1////x",                   Ok("/x"),                  Some("/v1")),
        (STRIP,   "http://h10.test/v1/x",       Ok("/x"),                  Some("/v1")),
        (STRIP,   "http://h11.test/v1?x",       Ok("/?x"),                 Some("/v1")),
        (STRIP,   "/v1/%2e%2e/x",               Err(400),                  None),
        (STRIP,   "/v1/..",                     Err(400),                  None),
        (LONG,    "/v1/x%20y",                  Ok("/x%20y"),              Some("/v1")),
        (LONG,    "/other",                     Ok("/other"),              None),
        (ADD,     "/x?y",                       Ok("/api/x?y"),            None),
        (ADD,     "/",                          Ok("/api/"),               None),
        (ADD,     "//x",                        Ok("/api//x"),             None),
        (ALL,     "/v1/users/42?q=/users/7",    Ok("/api/accounts/42?q=/users/7"), Some("/v1")),
        (ALL,     "/v1/users/x",                Ok("/api/users/x"),        Some("/v1")),
        (ALL,     "/users/42",                  Ok("/api/accounts/42"),    None),
        (USERS,   "/users/42?",                 Ok("/accounts/42?"),       None),
        (USERS,   "/users/42/x",                Ok("/users/42/x"),         None),
        (SECRET,  "/secret/secret?secret",      Ok("/open/secret?secret"), None),
        (SECRET,  "/SECRET",                    Ok("/SECRET"),             None),
        (HOLE,    "/.x./secret",                Err(400),                  None),
        (HOLE,    "/a%x2f..%2fb",               Err(400),                  None),
        (HOLE,    "/a%2x5c",                    Ok("/a%25c"),              None),
        (SLASHES, "/go",                        Ok("/evil.test"),          None),
        (SLASHES, "/go/x",                      Ok("/evil.test/x"),        None),
        (TWICE,   "/a",                         Ok("/a/a/a/a/a/a/a/a/a"),  None),
        (TWICE,   "TOO LONG",                   Err(414),                  None),
        (ADD,     "*",                          Ok("*"),                   None),
    ];
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway("", upstream.address(), rows.map(|row| row.0));
    let long = format!("/{}", "a".repeat(8000));
    for (i, (keys, target, outcome, prefix)) in rows.into_iter().enumerate() {
        let (method, target) = match target {
            "*" => ("OPTIONS", target),
            "TOO LONG" => ("GET", long.as_str()),
            target => ("GET", target),
        };
        let (response, received) = exchange(gateway.address(), &upstream, &host(i), (method, target), &[]);
        match outcome {
            Ok(target) => {
                let received = received.unwrap_or_else(|| panic!("{keys} {target}: {}", response.status));
                assert_eq!(received.target, target, "{keys} {target}");
                assert_eq!(received.header("X-Forwarded-Prefix"), prefix, "{keys} {target}");
            }
            Err(status) => {
                assert_eq!((response.status, received.map(|it| it.target)), (status, None), "{keys} {target}");
            }
        }
    }
}

/// The path and the query have bytes that are not ASCII.
#[test]
fn bytes_in_a_path_stay_as_they_are() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let gateway = gateway("", upstream.address(), [ALL]);
    let mut connection = Connection::open(gateway.address()).unwrap();
    connection.send(b"GET /v1/\xc3\xa4?\xc3\xa4 HTTP/1.1\r\nHost: h0.test\r\n\r\n").unwrap();
    assert_eq!(connection.read("GET").unwrap().status, 200);
    assert_eq!(upstream.received()[0].target, "/api/\u{e4}?\u{e4}");
}

#[test]
fn a_retry_changes_the_path_once() {
    let (dead, upstream) = (free_port(), Upstream::start(|_| Reply::new(200)));
    let nodes = format!("[{{ address: '127.0.0.1:{dead}', weight: 1000 }}, {{ address: '{}' }}]", upstream.address());
    let keys = format!("{ALL}, upstream: {{ nodes: {nodes}, retries: 1, ejection: false }}");
    let gateway = gateway("", upstream.address(), [keys.as_str()]);
    for _ in 0..3 {
        let (response, received) = exchange(gateway.address(), &upstream, "h0.test", ("GET", "/v1/users/1"), &[]);
        let received = received.expect("the retry");
        assert_eq!((response.status, received.target.as_str()), (200, "/api/accounts/1"));
        assert_eq!(received.header("X-Forwarded-Prefix"), Some("/v1"));
    }
}

#[test]
fn x_forwarded_prefix_comes_from_trusted_proxies_and_the_gateway_only() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let trusting = gateway("trusted_proxies: [127.0.0.1]", upstream.address(), [STRIP]);
    let other = gateway("", upstream.address(), [STRIP]);
    #[rustfmt::skip]
    let rows: [(&Gateway, &str, Sent<'_>, Option<&str>); 12] = [
        (&trusting, "/v1/x", &[],                                    Some("/v1")),
        (&trusting, "/v1/x", &[("X-Forwarded-Prefix", "/outer")],    Some("/outer/v1")),
        (&trusting, "/v1/x", &[("X-Forwarded-Prefix", "/outer/")],   Some("/outer/v1")),
        (&trusting, "/v1/x", &[("X-Forwarded-Prefix", "/")],         Some("/v1")),
        (&trusting, "/v1/x", &[("X-Forwarded-Prefix", "/a, /b"), ("X-Forwarded-Prefix", "/c")], Some("/a/b/c/v1")),
        (&trusting, "/x",    &[("X-Forwarded-Prefix", "/outer")],    Some("/outer")),
        (&trusting, "/v1/x", &[("X_Forwarded_Prefix", "/outer")],    Some("/v1")),
        (&other,    "/v1/x", &[("X-Forwarded-Prefix", "/forged")],   Some("/v1")),
        (&other,    "/x",    &[("X-Forwarded-Prefix", "/forged")],   None),
        (&other,    "/x",    &[("x_forwarded-prefix", "/forged")],   None),
        (&other,    "/v1/x", &[("Connection", "X-Forwarded-Prefix")], Some("/v1")),
        (&other,    "/v1/x", &[("X-Forwarded-Prefix", "/a"), ("X-Forwarded-Prefix", "/b")], Some("/v1")),
    ];
    for (gateway, target, fields, prefix) in rows {
        let (_, received) = exchange(gateway.address(), &upstream, "h0.test", ("GET", target), fields);
        let received = received.unwrap_or_else(|| panic!("{target} {fields:?} is forwarded"));
        assert_eq!(received.header("X-Forwarded-Prefix"), prefix, "{target} {fields:?}");
        assert!(received.all("X_Forwarded_Prefix").is_empty(), "{target} {fields:?}");
    }
}

#[test]
fn prefixes_are_restored_in_responses() {
    let strip = "path: { strip_prefix: /v1, restore_prefix: true }";
    let both = "path: { strip_prefix: /v1, add_prefix: /api, restore_prefix: true }";
    let edits = "path: { strip_prefix: /v1, restore_prefix: true }, response_headers: { set: { Location: /fixed } }";
    #[rustfmt::skip]
    let rows: [(&str, &str, &str, &str); 16] = [
        (strip, "Location",         "/x?y=/z",                       "/v1/x?y=/z"),
        (strip, "Content-Location", "/x",                            "/v1/x"),
        (strip, "Location",         "http://HOST/x",                 "http://HOST/v1/x"),
        (strip, "Location",         "https://HOST:443/x",            "https://HOST:443/v1/x"),
        (strip, "Location",         "http://HOST:81/x",              "http://HOST:81/x"),
        (strip, "Location",         "http://other.test/x",           "http://other.test/x"),
        (strip, "Location",         "//other.test/x",                "//other.test/x"),
        (strip, "Location",         "http://HOST@other.test/x",      "http://HOST@other.test/x"),
        (strip, "Location",         "http://other.test\\@HOST/x",    "http://other.test\\@HOST/x"),
        (strip, "Location",         "x",                             "x"),
        (strip, "Set-Cookie",       "a=b; Path=/; HttpOnly",         "a=b; Path=/v1; HttpOnly"),
        (strip, "Set-Cookie",       "a=Path=/; Secure",              "a=Path=/; Secure"),
        (both,  "Location",         "/api/x",                        "/v1/x"),
        (both,  "Location",         "/apix",                         "/apix"),
        (both,  "Set-Cookie",       "a=b; path=/api/x",              "a=b; path=/v1/x"),
        (edits, "Location",         "/x",                            "/fixed"),
    ];
    let upstream = Upstream::start(|request| {
        let (name, value) = (request.header("X-Name").unwrap(), request.header("X-Value").unwrap());
        Reply::new(302).header(name, value).header("Set-Cookie", "other=1")
    });
    let gateway = gateway("", upstream.address(), rows.map(|row| row.0));
    for (i, (keys, name, value, restored)) in rows.into_iter().enumerate() {
        let (value, restored) = (value.replace("HOST", &host(i)), restored.replace("HOST", &host(i)));
        let fields = [("X-Name", name), ("X-Value", value.as_str())];
        let (response, _) = exchange(gateway.address(), &upstream, &host(i), ("GET", "/v1/x"), &fields);
        let found: Vec<&str> = response.all(name).into_iter().filter(|value| *value != "other=1").collect();
        assert_eq!(found, [restored.as_str()], "{keys} {value}");
        assert!(response.all("Set-Cookie").contains(&"other=1"), "{keys} {value}: another cookie stays");
    }
}

// === the Host field ===

#[test]
fn upstream_host_is_what_the_node_gets() {
    let http1 = Upstream::start(|_| Reply::new(200));
    let http2 = H2Upstream::start(|_| H2Reply::new(200));
    let node = http1.address().to_string();
    let nodes = format!("nodes: [{{ address: '{}' }}], http2: true", http2.address());
    let over_http2 = |host: &str| format!("upstream_host: {host}, upstream: {{ {nodes} }}");
    let rows = [
        ("upstream_host: pass".to_owned(), None),
        ("upstream_host: node".to_owned(), Some(node)),
        ("upstream_host: app.internal".to_owned(), Some("app.internal".to_owned())),
        ("upstream_host: 'app.internal:8080'".to_owned(), Some("app.internal:8080".to_owned())),
        ("upstream_host: '[2001:db8::1]:8080'".to_owned(), Some("[2001:db8::1]:8080".to_owned())),
        (over_http2("pass"), None),
        (over_http2("node"), Some(http2.address().to_string())),
        (over_http2("app.internal"), Some("app.internal".to_owned())),
    ];
    let gateway = gateway("", http1.address(), rows.iter().map(|row| row.0.as_str()));
    for (i, (keys, expected)) in rows.iter().enumerate() {
        let sent = format!("h{i}.test:8080");
        let expected = expected.clone().unwrap_or_else(|| sent.clone());
        http2.clear();
        let forged = [("X-Forwarded-Host", "evil.test"), ("Forwarded", "host=evil.test")];
        let (response, received) = exchange(gateway.address(), &http1, &sent, ("GET", "/"), &forged);
        assert_eq!(response.status, 200, "{keys}");
        match received {
            Some(received) => {
                assert_eq!(received.all("Host"), [expected.as_str()], "{keys}");
                assert_eq!(received.header("X-Forwarded-Host"), Some(sent.as_str()), "{keys}");
                assert_eq!(received.header("Forwarded"), None, "{keys}");
            }
            None => {
                let received = http2.received().pop().expect("a request over HTTP/2");
                assert_eq!(received.authority.as_deref(), Some(expected.as_str()), "{keys}");
                assert!(received.all("host").is_empty(), "{keys}");
                assert_eq!(received.header("X-Forwarded-Host"), Some(sent.as_str()), "{keys}");
            }
        }
    }
}

// === header edits ===

const VARIABLES: &str = "'{client_ip}|{request_id}|{host}|{route}|{\"a\":{}}'";

#[test]
fn request_headers_are_edited_for_the_upstream() {
    let all = format!("request_headers: {{ set: {{ X-All: {VARIABLES} }} }}");
    let service = "
  - name: both
    hosts: [both.test]
    upstream: api
    request_headers: { remove: [X-Old], set: { X-A: service, X-B: service }, add: { X-C: service } }
    routes: [{ name: r, paths: [/*], request_headers: { remove: [X-C], set: { X-A: route }, add: { X-B: route } } }]
";
    let keys = [
        all.as_str(),
        "request_headers: { remove: [X-Old, Cookie], set: { X-New: fixed }, add: { X-Many: mine } }",
        "request_headers: { remove: [X-Many], add: { X-Many: mine } }",
        "request_headers: { set: { Authorization: Basic c2VjcmV0 } }",
        "request_headers: { remove: [Origin, Access-Control-Request-Method] }, cors: { allow_origins: 'https://app.test' }",
    ];
    let upstream = Upstream::start(|_| Reply::new(200));
    let top = "listeners: [{ address: \"{listen}\" }]\ntrusted_proxies: [127.0.0.1]";
    let gateway = Gateway::start(&(config(top, upstream.address(), keys) + service));
    let id = ("X-Request-Id", "0123456789abcdef0123456789abcdef");
    let all = |client: &str, host: &str| format!("{client}|{}|{host}|s0/r|{{\"a\":{{}}}}", id.1);
    let own = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    #[rustfmt::skip]
    let rows: [(&str, Sent<'_>, &str, Vec<String>); 19] = [
        ("h0.test",      &[id],                                              "X-All",  vec![all("127.0.0.1", "h0.test")]),
        ("H0.TEST:8080", &[id],                                              "X-All",  vec![all("127.0.0.1", "H0.TEST")]),
        ("h0.test",      &[id, ("X-Forwarded-For", "192.0.2.7, 2001:db8::7")], "X-All", vec![all("2001:db8::7", "h0.test")]),
        ("h0.test",      &[id, ("X-Forwarded-Host", "www.test:8443")],       "X-All",  vec![all("127.0.0.1", "www.test")]),
        ("h0.test",      &[id, ("X-Forwarded-Host", "www.test/@evil")],      "X-All",  vec![all("127.0.0.1", "h0.test")]),
        // A client can neither add its own value nor remove the gateway's value.
        ("h0.test",      &[id, ("X-All", "forged"), ("x-all", "forged")],    "X-All",  vec![all("127.0.0.1", "h0.test")]),
        ("h0.test",      &[id, ("Connection", "X-All")],                     "X-All",  vec![all("127.0.0.1", "h0.test")]),
        ("h1.test",      &[("X-Old", "1"), ("x-old", "2")],                  "X-Old",  vec![]),
        ("h1.test",      &[("Cookie", "a=b")],                               "Cookie", vec![]),
        ("h1.test",      &[],                                                "X-New",  own(&["fixed"])),
        ("h1.test",      &[("X-Many", "theirs")],                            "X-Many", own(&["theirs", "mine"])),
        ("h2.test",      &[("X-Many", "theirs"), ("X-Many", "again")],       "X-Many", own(&["mine"])),
        ("h3.test",      &[("Authorization", "Bearer theirs")],              "Authorization", own(&["Basic c2VjcmV0"])),
        ("h4.test",      &[ORIGIN],                                          "Origin", vec![]),
        ("both.test",    &[("X-Old", "1")],                                  "X-Old",  vec![]),
        ("both.test",    &[],                                                "X-A",    own(&["route"])),
        ("both.test",    &[],                                                "X-B",    own(&["service", "route"])),
        ("both.test",    &[("X-C", "theirs")],                               "X-C",    vec![]),
        ("both.test",    &[("X_A", "forged")],                               "X_A",    vec![]),
    ];
    for (host, fields, name, values) in rows {
        let (response, received) = exchange(gateway.address(), &upstream, host, ("GET", "/"), fields);
        let received = received.unwrap_or_else(|| panic!("{host} {fields:?}: {}", response.status));
        assert_eq!(received.all(name), values, "{host} {fields:?} {name}");
        if host == "h4.test" {
            assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1), "CORS reads the client's field");
        }
    }
}

const EDITS: &str = "response_headers: { remove: [Server, X-Secret], set: { X-Set: '{route}' }, add: { X-Add: mine } }";

/// Index of the keys; method, target and fields of the request; status and values of `X-Add` of the response.
type Edited<'a> = (usize, &'a str, &'a str, Sent<'a>, u16, &'a [&'a str]);

/// All responses of the route are edited, from the upstream and from the gateway itself.
#[test]
fn response_headers_are_edited_in_every_response() {
    let dead = format!("{EDITS}, upstream: {{ nodes: [{{ address: '127.0.0.1:{}' }}] }}", free_port());
    let policy = "cors: { allow_origins: 'https://app.test' }";
    let [cors, denied] = [policy, "clients: { deny: 127.0.0.1 }"].map(|key| format!("{EDITS}, {key}"));
    let [respond, redirect] =
        ["respond: { status: 204, headers: { X-Set: theirs, X-Secret: '1' } }", "redirect: { to: /x }"]
            .map(|key| format!("{EDITS}, {key}"));
    let keys = [EDITS, &dead, &cors, &denied, &respond, &redirect];
    let upstream = Upstream::start(|_| {
        let reply = Reply::new(200).header("Server", "x").header("X-Secret", "1").header("x-secret", "2");
        reply.header("X-Set", "theirs").header("X-Add", "theirs").body("body")
    });
    let authority = Authority::new("authority");
    let names: Vec<String> = (0..keys.len()).map(host).collect();
    let certificate = authority.issue(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let top = "
listeners:
  - { address: '{listen}' }
  - { address: '{listen2}', tls: { certificates: [{ cert: edits.crt, key: edits.key }] } }
";
    let gateway = Gateway::start_with_files(&config(top, upstream.address(), keys), &certificate.files("edits"));
    let preflight = [ORIGIN, ("Access-Control-Request-Method", "PUT")];
    #[rustfmt::skip]
    let rows: [Edited<'_>; 9] = [
        (0, "GET",     "/",      &[],          200, &["theirs", "mine"]),
        (0, "HEAD",    "/",      &[],          200, &["theirs", "mine"]),
        (0, "GET",     "/%2e%2e", &[],         400, &[]),
        (1, "GET",     "/",      &[],          502, &["mine"]),
        (2, "OPTIONS", "/",      &preflight,   200, &["mine"]),
        (2, "GET",     "/",      &[ORIGIN],    200, &["theirs", "mine"]),
        (3, "GET",     "/",      &[],          403, &["mine"]),
        (4, "GET",     "/",      &[],          204, &["mine"]),
        (5, "GET",     "/",      &[],          307, &["mine"]),
    ];
    for (i, method, target, fields, status, added) in rows {
        let over_http1 = fetch(gateway.address(), method, target, &[&[("Host", &*host(i))], fields].concat());
        let tls = TlsClient::new(&authority, &host(i));
        let request = fields
            .iter()
            .fold(H2Request::new(method, &host(i), target), |request, (name, value)| request.header(name, value));
        let over_http2 = h2_client::fetch(gateway.address2(), &tls, &request);
        for response in [over_http1, over_http2] {
            let case = format!("{method} {target} {i}: {:?}", response.headers);
            assert_eq!(response.status, status, "{case}");
            // If a path is refused before a route is found, the response has no edits.
            let set = (status != 400).then(|| format!("s{i}/r"));
            assert_eq!(response.header("X-Set"), set.as_deref(), "{case}");
            assert_eq!(response.all("X-Add"), added, "{case}");
            assert_eq!((response.header("X-Secret"), response.header("Server")), (None, None), "{case}");
        }
    }
}

/// `Strict-Transport-Security` is only for https URLs (RFC 6797 section 7.2). The gateway or a trusted proxy may
/// decrypt the connection.
#[test]
fn presets_set_hsts_over_https_only() {
    let presets = "response_headers: { presets: [hsts, nosniff, frame_deny] }";
    let own = "response_headers: { presets: [hsts, frame_deny], set: { Strict-Transport-Security: max-age=0 }, remove: [X-Frame-Options] }";
    let upstream = Upstream::start(|_| {
        Reply::new(200).header("X-Frame-Options", "SAMEORIGIN").header("X-Content-Type-Options", "x")
    });
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["h0.test", "h1.test"]);
    let listeners = "
listeners:
  - { address: '{listen}' }
  - { address: '{listen2}', tls: { certificates: [{ cert: presets.crt, key: presets.key }] } }
";
    let [trusting, other] = ["trusted_proxies: [127.0.0.1]", ""].map(|top| {
        let config = config(&format!("{listeners}\n{top}"), upstream.address(), [presets, own]);
        Gateway::start_with_files(&config, &certificate.files("presets"))
    });
    let year = Some("max-age=31536000");
    let [http, https] = ["http", "https"].map(|scheme| ("X-Forwarded-Proto", scheme));
    #[rustfmt::skip]
    let rows: [(&Gateway, bool, Sent<'_>, Option<&str>); 8] = [
        (&other,    false, &[],      None),
        (&other,    true,  &[],      year),
        (&other,    false, &[https], None),
        (&other,    true,  &[http],  year),
        (&trusting, false, &[],      None),
        (&trusting, false, &[https], year),
        (&trusting, true,  &[http],  None),
        (&trusting, false, &[("X-Forwarded-Proto", "gopher")], None),
    ];
    let request = |gateway: &Gateway, tls: bool, host: &str, fields: &[(&str, &str)]| {
        let fields = [&[("Host", host)], fields].concat();
        match tls {
            false => fetch(gateway.address(), "GET", "/", &fields),
            true => fetch_tls(gateway.address2(), &TlsClient::new(&authority, host), "GET", "/", &fields),
        }
    };
    for (gateway, tls, fields, hsts) in rows {
        let response = request(gateway, tls, "h0.test", fields);
        assert_eq!(response.header("Strict-Transport-Security"), hsts, "TLS {tls}, {fields:?}");
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "TLS {tls}, {fields:?}");
        assert_eq!(response.header("X-Frame-Options"), Some("DENY"), "TLS {tls}, {fields:?}");
    }
    let response = request(&other, true, "h1.test", &[]);
    assert_eq!(response.header("Strict-Transport-Security"), Some("max-age=0"), "`set` comes after `presets`");
    assert_eq!(response.header("X-Frame-Options"), Some("DENY"), "`remove` comes before `presets`");
}

// === clients ===

#[test]
fn clients_are_those_behind_trusted_proxies() {
    let allow =
        "clients: { allow: [192.0.2.0/24, '2001:db8::/32', 127.0.0.1] }, cors: { allow_origins: 'https://app.test' }";
    let deny = "clients: { deny: ['192.0.2.7', '2001:db8::/32'] }";
    let both = "clients: { allow: 192.0.2.0/24, deny: 192.0.2.7 }";
    let upstream = Upstream::start(|_| Reply::new(200));
    let [trusting, other] =
        ["trusted_proxies: [127.0.0.1]", ""].map(|top| gateway(top, upstream.address(), [allow, deny, both]));
    let by = |client: &'static str| ("X-Forwarded-For", client);
    #[rustfmt::skip]
    let rows: [(&Gateway, usize, (&str, &str), u16); 21] = [
        (&trusting, 0, by("192.0.2.7"),                 200),
        (&trusting, 0, by("198.51.100.7"),              403),
        (&trusting, 0, by("198.51.100.7, 192.0.2.7"),   200),
        (&trusting, 0, by("192.0.2.7, 198.51.100.7"),   403),
        (&trusting, 0, by("2001:db8::1"),               200),
        (&trusting, 0, by("[2001:db8::1]:4711"),        200),
        (&trusting, 0, by("2001:db9::1"),               403),
        (&trusting, 0, by("::ffff:192.0.2.7"),          200),
        // The value is not an address, so the client is the proxy itself.
        (&trusting, 0, by("192.0.2.7.evil.test"),       200),
        (&trusting, 1, by("192.0.2.7"),                 403),
        (&trusting, 1, by("192.0.2.8"),                 200),
        (&trusting, 1, by("::ffff:192.0.2.7"),          403),
        (&trusting, 1, by("2001:db8:0::1"),             403),
        (&trusting, 2, by("192.0.2.7"),                 403),
        (&trusting, 2, by("192.0.2.8"),                 200),
        (&trusting, 2, by("198.51.100.7"),              403),
        // The gateway ignores the field of a peer that is not a trusted proxy.
        (&other,    0, by("198.51.100.7"),              200),
        (&other,    1, by("192.0.2.7"),                 200),
        (&other,    2, by("192.0.2.8"),                 403),
        (&other,    2, ("Forwarded", "for=192.0.2.8"),  403),
        (&other,    2, ("X-Real-IP", "192.0.2.8"),      403),
    ];
    for (gateway, i, field, status) in rows {
        let (response, received) = exchange(gateway.address(), &upstream, &host(i), ("GET", "/"), &[field]);
        assert_eq!((response.status, received.is_some()), (status, status == 200), "{i} {field:?}");
        if status == 403 {
            assert_eq!(response.text(), "This client may not send requests here.\n", "{i} {field:?}");
        }
    }
    // A page of a denied client can read the 403.
    let denied = by("198.51.100.7");
    let preflight = [denied, ORIGIN, ("Access-Control-Request-Method", "PUT")];
    let (answer, _) = exchange(trusting.address(), &upstream, "h0.test", ("OPTIONS", "/"), &preflight);
    let (refusal, _) = exchange(trusting.address(), &upstream, "h0.test", ("PUT", "/"), &[denied, ORIGIN]);
    assert_eq!((answer.status, refusal.status), (200, 403));
    for response in [answer, refusal] {
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some(ORIGIN.1));
    }
}

/// Some upstreams merge slashes, and decode characters that need no encoding. So another spelling of a guarded path
/// must not reach the upstream through another route.
#[test]
fn no_other_spelling_of_a_path_leads_around_a_guard() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let node = upstream.address();
    let gateway = Gateway::start(&format!(
        "
listeners: [{{ address: '{{listen}}' }}]
upstreams: {{ api: {{ nodes: [{{ address: '{node}' }}] }}, none: {{ nodes: [{{ address: '127.0.0.1:1' }}] }} }}
services:
  - name: api
    hosts: [guarded.test]
    upstream: api
    cors: {{ allow_origins: https://app.test }}
    routes:
      - {{ paths: [/admin/*], clients: {{ deny: 127.0.0.1 }} }}
      - {{ paths: [/account/*], forward_auth: {{ upstream: none, path: /check }} }}
      - {{ paths: [/login], rate_limit: {{ rate: 1/h }} }}
      - {{ paths: [/*] }}
  - {{ name: open, hosts: [open.test], upstream: api }}
"
    ));
    let get = |host: &str, path: &str| {
        fetch(gateway.address(), "GET", path, &[("Host", host), ("Origin", "https://app.test")])
    };
    let cases = [
        ("/admin/x", 403),
        ("//admin/x", 400),
        ("/%61dmin/x", 400),
        ("/admin//x", 403),
        ("/%2561dmin/x", 200),
        ("/account/x", 503),
        ("//account/x", 400),
        ("/accoun%74/x", 400),
        ("/login", 200),
        ("/login", 429),
        ("/logi%6E", 400),
        ("//login", 400),
        ("//other", 200),
        ("/%6fther//x", 200),
    ];
    for (path, status) in cases {
        let response = get("guarded.test", path);
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("https://app.test"), "{path}");
        assert_eq!(get("open.test", path).status, 200, "{path}");
    }
}

/// The clients of a route replace the clients of its service. The clients of the listener are an additional limit.
#[test]
fn clients_of_a_listener_are_a_limit_for_every_route() {
    let upstream = Upstream::start(|_| Reply::new(200));
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["api.test"]);
    let port = free_port();
    let node = upstream.address();
    let gateway = Gateway::start_with_files(
        &format!(
            "
listeners:
  - {{ address: '{{listen}}' }}
  - {{ address: '{{listen2}}', clients: {{ allow: 10.0.0.0/8 }} }}
  - {{ address: '[::1]:{port}', clients: {{ allow: ['::1', 127.0.0.1] }} }}
  - {{ address: '{{listen3}}', clients: {{ deny: 127.0.0.0/8 }}, tls: {{ certificates: [{{ cert: clients.crt, key: clients.key }}] }} }}
upstreams: {{ api: {{ nodes: [{{ address: '{node}' }}] }} }}
services:
  - name: api
    hosts: [api.test]
    upstream: api
    clients: {{ deny: [127.0.0.1, '::1'] }}
    routes:
      - {{ paths: [/*] }}
      - {{ paths: [/open/*], clients: {{ allow: [127.0.0.0/8, '::/0'] }} }}
      - {{ paths: [/v4/*], clients: {{ allow: 0.0.0.0/0 }} }}
      - {{ paths: [/put/*], methods: [PUT], clients: {{ allow: 127.0.0.1 }} }}
"
        ),
        &certificate.files("clients"),
    );
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    assert!(poll(PROCESS_TIMEOUT, || TcpStream::connect(v6).ok()).is_some(), "nothing listens at {v6}");
    let (open, internal) = (gateway.address(), gateway.address2());
    #[rustfmt::skip]
    let rows = [
        (open,     "api.test",   "/x",      403),
        (open,     "api.test",   "/open/x", 200),
        (open,     "api.test",   "/v4/x",   200),
        (open,     "api.test",   "/put/x",  405),
        (open,     "other.test", "/x",      404),
        (internal, "api.test",   "/open/x", 403),
        // A client that the listener denies cannot find out which routes exist.
        (internal, "api.test",   "/put/x",  403),
        (internal, "other.test", "/x",      403),
        (v6,       "api.test",   "/x",      403),
        (v6,       "api.test",   "/open/x", 200),
        (v6,       "api.test",   "/v4/x",   403),
    ];
    for (address, host, path, status) in rows {
        let response = fetch(address, "GET", path, &[("Host", host), ("X-Forwarded-For", "10.0.0.1")]);
        assert_eq!(response.status, status, "{host}{path} at {address}");
    }
    let client = H2Client::open(gateway.address3(), &TlsClient::new(&authority, "api.test")).unwrap();
    for path in ["/open/x", "/nothing", "/open/y"] {
        let response = client.request(&H2Request::new("GET", "api.test", path)).unwrap();
        assert_eq!(response.status, 403, "{path} over HTTP/2");
    }
}

// === fixed responses and redirects ===

const TEA: &str = "respond: { status: 418, body: \"t\\u00e9a\\n\", headers: { X-Tea: green } }";
const NO_CONTENT: &str = "respond: { status: 204, headers: { X-Tea: none } }";
const NOT_MODIFIED: &str = "respond: { status: 304, headers: { ETag: '\"1\"' } }";
const EMPTY: &str = "respond: {}";
const JSON: &str = "respond: { body: '{}', headers: { content-type: application/json } }";
const WITH_POLICY: &str = "respond: { body: ok }, cors: { allow_origins: 'https://app.test' }";

/// Index of the keys; method and fields of the request; status, body, `Content-Length` and `Content-Type` of the
/// response.
type Answered<'a> = (usize, &'a str, Sent<'a>, u16, &'a str, Option<&'a str>, Option<&'a str>);

#[test]
fn respond_is_the_whole_response() {
    let keys = [TEA, NO_CONTENT, NOT_MODIFIED, EMPTY, JSON, WITH_POLICY];
    let upstream = Upstream::start(|_| panic!("no request is forwarded"));
    let authority = Authority::new("authority");
    let names: Vec<String> = (0..keys.len()).map(host).collect();
    let certificate = authority.issue(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let top = "
listeners:
  - { address: '{listen}' }
  - { address: '{listen2}', tls: { certificates: [{ cert: respond.crt, key: respond.key }] } }
";
    let gateway = Gateway::start_with_files(&config(top, upstream.address(), keys), &certificate.files("respond"));
    let text = Some("text/plain; charset=utf-8");
    let acrm = ("Access-Control-Request-Method", "PUT");
    let last = ("Max-Forwards", "0");
    #[rustfmt::skip]
    let rows: [Answered<'_>; 20] = [
        (0, "GET",     &[],             418, "t\u{e9}a\n", Some("5"), text),
        (0, "HEAD",    &[],             418, "",           Some("5"), text),
        (0, "POST",    &[],             418, "t\u{e9}a\n", Some("5"), text),
        (0, "PURGE",   &[],             418, "t\u{e9}a\n", Some("5"), text),
        // Without a policy, OPTIONS is a normal method, even with the fields of a preflight.
        (0, "OPTIONS", &[],             418, "t\u{e9}a\n", Some("5"), text),
        (0, "OPTIONS", &[ORIGIN, acrm], 418, "t\u{e9}a\n", Some("5"), text),
        (0, "OPTIONS", &[last],         204, "",           None,      None),
        (0, "GET",     &[last],         418, "t\u{e9}a\n", Some("5"), text),
        (1, "GET",     &[],             204, "",           None,      None),
        (1, "HEAD",    &[],             204, "",           None,      None),
        (2, "GET",     &[],             304, "",           None,      None),
        (3, "GET",     &[],             200, "",           Some("0"), None),
        (3, "HEAD",    &[],             200, "",           Some("0"), None),
        (4, "GET",     &[],             200, "{}",         Some("2"), Some("application/json")),
        // The CORS policy answers preflights.
        (5, "OPTIONS", &[ORIGIN, acrm], 200, "",           Some("0"), None),
        (5, "OPTIONS", &[ORIGIN],       200, "",           Some("0"), None),
        (5, "OPTIONS", &[acrm],         200, "ok",         Some("2"), text),
        (5, "GET",     &[ORIGIN],       200, "ok",         Some("2"), text),
        (5, "GET",     &[("Origin", "https://evil.test")], 200, "ok", Some("2"), text),
        (0, "TRACE",   &[],             405, "No route of this path has this method.\n", Some("39"), text),
    ];
    // All requests use one connection, because a response with a wrong length would break the next response.
    let mut http1 = Connection::open(gateway.address()).unwrap();
    for (i, method, fields, status, body, length, content_type) in rows {
        let response = http1.request(method, "/x", &[&[("Host", &*host(i))], fields].concat(), b"").unwrap();
        let request = fields
            .iter()
            .fold(H2Request::new(method, &host(i), "/x"), |request, (name, value)| request.header(name, value));
        let http2 = h2_client::fetch(gateway.address2(), &TlsClient::new(&authority, &host(i)), &request);
        for response in [response, http2] {
            let case = format!("{i} {method} {fields:?}: {:?}", response.headers);
            assert_eq!((response.status, response.text()), (status, body), "{case}");
            assert_eq!(response.header("Content-Length"), length, "{case}");
            assert_eq!(response.header("Content-Type"), content_type, "{case}");
            let is_allowed = i == 5 && fields.contains(&ORIGIN);
            assert_eq!(response.header("Access-Control-Allow-Origin"), is_allowed.then_some(ORIGIN.1), "{case}");
            assert_eq!(response.header("Vary"), (i == 5).then_some("Origin"), "{case}");
        }
    }
}

/// A fixed response is sent before the request body is read. The bytes after the body are the next request. The gateway
/// must never read a part of the body as a request.
#[test]
fn the_body_of_a_request_that_is_answered_is_not_a_request() {
    let upstream = Upstream::start(|_| panic!("no request is forwarded"));
    let gateway = gateway("", upstream.address(), [TEA, "redirect: { to: /x }"]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h1.test\r\n\r\n";
    let chunked = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    for (framing, body) in [
        (format!("Content-Length: {}", smuggled.len()), smuggled),
        ("Transfer-Encoding: chunked".to_owned(), chunked.as_str()),
    ] {
        let mut connection = Connection::open(gateway.address()).unwrap();
        let first = format!("POST / HTTP/1.1\r\nHost: h0.test\r\n{framing}\r\n\r\n{body}");
        let next = "GET /next HTTP/1.1\r\nHost: h0.test\r\n\r\n";
        connection.send(format!("{first}{next}").as_bytes()).unwrap();
        assert_eq!(connection.read("POST").unwrap().status, 418, "{framing}");
        // The gateway may close the connection instead.
        match connection.read("GET") {
            Ok(response) => assert_eq!(response.status, 418, "{framing}"),
            Err(error) => assert!(is_end(&error), "{framing}: {error}"),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind())
}

#[test]
fn a_redirect_leads_where_the_configuration_says() {
    let www = "redirect: { to: 'https://www.example{uri}', status: 308 }";
    let same = "redirect: { to: 'https://{host}{uri}' }";
    let under = "redirect: { to: 'https://{host}.example/under{uri}', status: 301 }";
    let path = "redirect: { to: '/new{uri}', status: 302 }";
    let fixed = "redirect: { to: '/login?from=x#top', status: 303 }";
    #[rustfmt::skip]
    let rows: [(&str, &str, &str, u16, Option<&str>); 26] = [
        (www,   "h0.test",      "/x?y",                  308, Some("https://www.example/x?y")),
        (www,   "h1.test:8080", "/",                     308, Some("https://www.example/")),
        // The text after the host begins with a slash, so no target leads to another host.
        (www,   "h2.test",      "//evil.test/x",         308, Some("https://www.example//evil.test/x")),
        (www,   "h3.test",      "/@evil.test",           308, Some("https://www.example/@evil.test")),
        (www,   "h4.test",      "/.evil.test",           308, Some("https://www.example/.evil.test")),
        (www,   "h5.test",      "/%0d%0aSet-Cookie:a=b", 308, Some("https://www.example/%0d%0aSet-Cookie:a=b")),
        (www,   "h6.test",      "/x?u=https://evil.test", 308, Some("https://www.example/x?u=https://evil.test")),
        (www,   "h7.test",      "http://h7.test/x?y",    308, Some("https://www.example/x?y")),
        (www,   "h8.test",      "http://h8.test",        308, Some("https://www.example/")),
        (www,   "h9.test",      "http://h9.test?y",      308, Some("https://www.example/?y")),
        (www,   "h10.test",     "/x\\@evil.test",        400, None),
        (www,   "h11.test",     "/a/../b",               400, None),
        (same,  "h12.test",     "/x",                    307, Some("https://h12.test/x")),
        (same,  "H13.TEST:8080", "/x",                   307, Some("https://H13.TEST/x")),
        (same,  "h14.test.",    "/x",                    307, Some("https://h14.test./x")),
        (same,  "h15.test/@evil.test", "/x",             400, None),
        (same,  "h16.test@evil.test", "/x",              400, None),
        (same,  "h17.test evil.test", "/x",              400, None),
        (same,  "h18.test:",    "/x",                    307, Some("https://h18.test/x")),
        (under, "h19.test",     "/x",                    301, Some("https://h19.test.example/under/x")),
        (path,  "h20.test",     "/x",                    302, Some("/new/x")),
        (path,  "h21.test",     "//evil.test",           302, Some("/new//evil.test")),
        (path,  "h22.test",     "http://h22.test//evil.test", 302, Some("/new//evil.test")),
        (fixed, "h23.test",     "/x?y",                  303, Some("/login?from=x#top")),
        (www,   "h24.test",     "*",                     308, Some("https://www.example/")),
        (www,   "h25.test",     "/x y",                  400, None),
    ];
    let upstream = Upstream::start(|_| panic!("no request is forwarded"));
    let gateway = gateway("", upstream.address(), rows.map(|row| row.0));
    for (keys, host, target, status, location) in rows {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        // A client cannot choose the host with a forwarding field.
        let fields = [("Host", host), ("X-Forwarded-Host", "evil.test"), ("Forwarded", "host=evil.test")];
        let response = fetch(gateway.address(), method, target, &fields);
        assert_eq!((response.status, response.header("Location")), (status, location), "{keys} {host} {target}");
        if location.is_some() {
            assert_eq!((response.header("Content-Length"), response.text()), (Some("0"), ""), "{keys} {target}");
            assert_eq!(response.header("Set-Cookie"), None, "{keys} {target}");
        }
    }
}

#[test]
fn a_redirect_without_a_host_and_from_a_proxy() {
    let same = "redirect: { to: 'https://{host}{uri}' }";
    let upstream = Upstream::start(|_| panic!("no request is forwarded"));
    let top = "
listeners:
  - { address: '{listen}' }
  - { address: '{listen2}', tls: { certificates: [{ cert: redirect.crt, key: redirect.key }] } }
trusted_proxies: [127.0.0.1]
upstreams: {}
services:
  - { name: same, hosts: [h0.test], SAME }
  - { name: any, routes: [{ paths: [/*], SAME }, { paths: [/path/*], redirect: { to: '/new{uri}' } }] }
";
    let authority = Authority::new("authority");
    let certificate = authority.issue(&["h0.test"]);
    let gateway = Gateway::start_with_files(&top.replace("SAME", same), &certificate.files("redirect"));
    let raw = |request: &str| {
        let mut connection = Connection::open(gateway.address()).unwrap();
        connection.send(request.as_bytes()).unwrap();
        let response = connection.read("GET").unwrap();
        (response.status, response.header("Location").map(str::to_owned))
    };
    let location = |text: &str| Some(text.to_owned());
    // HTTP/1.0 allows a request without a Host field.
    assert_eq!(raw("GET /x HTTP/1.0\r\n\r\n"), (400, None));
    assert_eq!(raw("GET /path/x HTTP/1.0\r\n\r\n"), (307, location("/new/path/x")));
    assert_eq!(raw("GET http://h0.test/x HTTP/1.0\r\n\r\n"), (307, location("https://h0.test/x")));
    // A line break in the target would end the request line. A bare carriage return is refused.
    assert_eq!(raw("GET /x\rSet-Cookie:a=b HTTP/1.1\r\nHost: h0.test\r\n\r\n").0, 400);
    // A trusted proxy can set the host of the client's URL, if its value is a valid host.
    for (forwarded, host) in [
        ("www.test:8443", "www.test"),
        ("www.test, h0.test", "www.test"),
        ("evil.test/@", "h0.test"),
        ("evil.test\\", "h0.test"),
    ] {
        let response = fetch(gateway.address(), "GET", "/x", &[("Host", "h0.test"), ("X-Forwarded-Host", forwarded)]);
        assert_eq!(response.header("Location"), Some(&*format!("https://{host}/x")), "{forwarded}");
    }
    let client = H2Client::open(gateway.address2(), &TlsClient::new(&authority, "h0.test")).unwrap();
    for (path, location) in [("/x?y", "https://h0.test/x?y"), ("//evil.test", "https://h0.test//evil.test")] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let response = client.request(&H2Request::new(method, "h0.test", path)).unwrap();
            assert_eq!((response.status, response.header("Location")), (307, Some(location)), "{method} {path}");
        }
    }
    drop(upstream);
}

/// Preflights are never redirected, because browsers treat a redirect as a network error.
#[test]
fn a_preflight_to_a_redirect_is_answered() {
    let upstream = Upstream::start(|_| panic!("no request is forwarded"));
    let keys = "redirect: { to: 'https://www.example{uri}' }, cors: { allow_origins: 'https://app.test' }";
    let gateway = gateway("", upstream.address(), [keys]);
    let host = ("Host", "h0.test");
    for (origin, allowed) in [("https://app.test", Some("https://app.test")), ("https://evil.test", None)] {
        let preflight = [host, ("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        let answer = fetch(gateway.address(), "OPTIONS", "/x", &preflight);
        assert_eq!((answer.status, answer.header("Location")), (200, None), "{origin}");
        let redirect = fetch(gateway.address(), "PUT", "/x", &[host, ("Origin", origin)]);
        assert_eq!((redirect.status, redirect.header("Location")), (307, Some("https://www.example/x")), "{origin}");
        for response in [answer, redirect] {
            assert_eq!(response.header("Access-Control-Allow-Origin"), allowed, "{origin}");
            assert_eq!(response.header("Vary"), Some("Origin"), "{origin}");
        }
    }
}
