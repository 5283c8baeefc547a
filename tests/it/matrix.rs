//! Tests CORS with each behavior and with each pair of behaviors. The CORS fields of a response must be the same as
//! without behaviors.
//!
//! [`behaviors`] returns the table. Each row is one behavior, with its keys in the configuration, its fields in a
//! request, and the stage at which it ends a request. The test creates a host for each row and for each pair of rows.
//! It sends preflights and actual requests to each host: from an allowed origin, from a refused origin, and without an
//! Origin. The upstream answers, answers with wrong CORS fields, answers with an error, closes the connection, is dead,
//! or is too slow. The test repeats this with the policies of [`POLICIES`].
//!
//! `Access-Control-*` and `Timing-Allow-Origin` must be equal. `Vary` may have additional names from the rows. The
//! expected fields come from a host without behaviors. The fields of this host must be the same as the fields of the
//! CORS engine alone. The same requests also run through [`Exchange`], which `explain` uses for its simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use corsgate::decide::{ConnectionFacts, Framing, Request};
use corsgate::domain::{OwnOrigin, Scheme};
use corsgate::explain::{Exchange, Head};
use corsgate::snapshot::{CompileEnv, Loaded, Snapshot, load};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

use crate::support::certificates::{Authority, Files};
use crate::support::client::{Connection, Fields, Response, all, fetch};
use crate::support::gateway::{Gateway, free_port};
use crate::support::h2_client::{H2Client, H2Request};
use crate::support::h2_upstream::{H2Reply, H2Upstream};
use crate::support::process::{PROCESS_TIMEOUT, poll};
use crate::support::tls_client::TlsClient;
use crate::support::unix_relay::UnixRelay;
use crate::support::upstream::{Received, Reply, Upstream};

// === the table ===

/// Returns all behaviors. `{prefix}` stands for the first two segments of a route's path.
fn behaviors() -> Vec<Behavior> {
    use Place::*;
    use Trait::*;
    let row = Behavior::new;
    let deny = "clients: { allow: 192.0.2.250 }";
    let trusted = "trusted_proxies: [127.0.0.1, unix]";
    let limits = "limits: { uri: 300B, header_count: 20, body: 1KiB }";
    let tls = "tls: { certificates: [{ cert: matrix.crt, key: matrix.key }] }";
    vec![
        // Behaviors of a route and its service.
        row("allowed clients").key(Route, "clients: { allow: [127.0.0.0/8, 192.0.2.0/24], deny: 192.0.2.250 }").with(NotSimulated),
        row("denied clients").key(Route, deny).ends(Stage::Clients, 403).with(NotSimulated),
        row("denied clients of a service").key(Service, deny).ends(Stage::Clients, 403).with(NotSimulated),
        row("strip_prefix").key(Route, "strip_prefix: '{prefix}'"),
        row("path").key(Route, "path: { strip_prefix: '{prefix}', replace: { pattern: x, with: y }, add_prefix: /v1, restore_prefix: true }"),
        row("path of a service").key(Service, "path: { add_prefix: /service, restore_prefix: true }"),
        row("ambiguous path").key(Route, "path: { replace: { pattern: '[^/]+$', with: '..' } }").ends(Stage::Rewrite, 400),
        row("upstream_host").key(Route, "upstream_host: app.internal"),
        row("upstream_host of the node").key(Route, "upstream_host: node"),
        row("request_headers").key(Route, "request_headers: { remove: [Origin, Access-Control-Request-Method], set: { X-Client: '{client_ip}' }, add: { X-Host: '{host}' } }"),
        row("request_headers of a service").key(Service, "request_headers: { set: { Origin: 'https://forged.example' } }"),
        row("response_headers").key(Route, "response_headers: { remove: [Server, Location], set: { X-Route: '{route}' }, add: { Link: </a>, X-Id: '{request_id}' } }").shows("x-route"),
        row("presets of a service").key(Service, "response_headers: { presets: [hsts, nosniff, frame_deny] }"),
        row("respond").key(Route, "respond: { status: 418, body: tea, headers: { X-Tea: green } }").ends(Stage::End, 418).with(InsteadOfUpstream),
        row("redirect").key(Route, "redirect: { to: 'https://www.example{uri}' }").ends(Stage::End, 307).with(InsteadOfUpstream),
        row("methods").key(Route, "methods: [GET, POST, OPTIONS]"),
        row("another method").key(Route, "methods: [PUT]").ends(Stage::Method, 405),
        row("compression")
            .key(Route, "compression: { min_size: 1B }")
            .field("Accept-Encoding", "gzip")
            .vary("accept-encoding")
            .shows("content-encoding"),
        row("rate limit").key(Route, "rate_limit: { rate: 1000/s }").shows("ratelimit"),
        row("rate limit of a service").key(Service, "rate_limit: { rate: 1000/s, key: route }").shows("ratelimit"),
        row("exhausted rate limit")
            .key(Route, "rate_limit: { rate: 1/h, key: route }")
            .ends(Stage::RateLimit, 429)
            .with(NotSimulated),
        row("forward_auth").key(Route, "forward_auth: { upstream: auth, path: /allowed }"),
        row("refused by forward_auth")
            .key(Route, "forward_auth: { upstream: auth, path: /denied }")
            .ends(Stage::Auth, 401)
            .with(NotSimulated),
        row("forward_auth without a service")
            .key(Service, "forward_auth: { upstream: dead, path: /allowed }")
            .ends(Stage::Auth, 503)
            .with(NotSimulated),
        row("split").key(Route, "split: { sticky: path, upstreams: shares }").with(Split),
        // Behaviors of an upstream. `nodes: unix` stands for a node with a Unix-domain socket.
        row("retries").key(Node, "retries: 3"),
        row("hash").key(Node, "balance: hash").key(Node, "hash_on: client_address"),
        row("slow start").key(Node, "slow_start: 30s"),
        row("health check").key(Node, "health_check: { interval: 1h }"),
        row("ejection").key(Node, "ejection: { after: 1, for: 1ms }"),
        row("total timeout").key(Node, "timeouts: { total: 10m }"),
        row("HTTP/2 upstream").key(Node, "http2: true"),
        row("queue").key(Node, "max_connections: 1000").key(Node, "queue: { length: 10 }"),
        row("full upstream").key(Node, "max_connections: 1").ends(Stage::Full, 503).with(NotSimulated),
        row("PROXY header to the nodes").key(Node, "proxy_protocol: v1"),
        row("Unix-domain upstream").key(Node, "nodes: unix"),
        row("TLS upstream").key(Node, "tls: { sni: matrix.test, ca: matrix.ca }"),
        // Behaviors of a listener.
        row("denied clients of a listener").key(Listener, deny).ends(Stage::ListenerClients, 403).with(NotSimulated),
        row("redirect_to_https").key(Listener, "redirect_to_https: 8443").ends(Stage::Https, 308).with(NotSimulated),
        row("TLS").key(Listener, tls).with(Https),
        row("HTTP/2").key(Listener, tls).with(Https).with(Http2),
        row("HTTP/2 without TLS").key(Listener, "http2: true").with(Http2),
        row("Unix-domain listener")
            .key(Listener, "address: unix")
            .key(Top, trusted)
            .field("X-Forwarded-For", "192.0.2.8"),
        row("PROXY header").key(Listener, "proxy_protocol: true").key(Top, trusted).with(Proxied),
        // Behaviors of the whole process.
        row("debug header").key(Top, "debug_header: true").shows("x-corsgate-reason"),
        row("access log").key(Top, "access_log: { to: access.log, format: text }"),
        row("trusted proxies").key(Top, trusted).field("X-Forwarded-For", "192.0.2.7").field("X-Forwarded-Host", "other.test"),
        row("long target").key(Top, limits).with(LongTarget).ends(Stage::LongTarget, 414),
        row("large header").key(Top, limits).with(ManyFields).ends(Stage::LargeHeader, 431),
        row("large body").key(Top, limits).with(Body).ends(Stage::LargeBody, 413),
        row("connection age").key(Top, "limits: { connection_age: 100ms }"),
        row("connections of a client").key(Top, "limits: { connections_per_client: 1 }").with(Occupied).ends(Stage::Connections, 429).with(NotSimulated),
    ]
}

/// Pairs that `check` refuses, each with the reason.
const EXCLUSIVE: [(&str, &str, &str); 15] = [
    ("allowed clients", "denied clients", "a route has one list of clients"),
    ("strip_prefix", "path", "a route has one key for the prefix"),
    ("path", "ambiguous path", "a path has one replacement"),
    ("upstream_host", "upstream_host of the node", "a request has one Host"),
    ("respond", "redirect", "a route has one end"),
    ("respond", "split", "a route has one end"),
    ("redirect", "split", "a route has one end"),
    ("rate limit", "exhausted rate limit", "a route has one limit"),
    ("forward_auth", "refused by forward_auth", "a route asks one service"),
    ("queue", "full upstream", "an upstream has one limit"),
    ("methods", "another method", "a route has one list of methods"),
    ("redirect_to_https", "TLS", "a listener with TLS has nothing to redirect"),
    ("redirect_to_https", "HTTP/2", "a listener with TLS has nothing to redirect"),
    ("TLS", "HTTP/2 without TLS", "TLS negotiates HTTP/2"),
    ("HTTP/2", "HTTP/2 without TLS", "TLS negotiates HTTP/2"),
];

/// Pairs in which the second row has no effect.
const REPLACED: [(&str, &str); 5] = [
    // The key of the route replaces the key of the service.
    ("allowed clients", "denied clients of a service"),
    ("forward_auth", "forward_auth without a service"),
    ("refused by forward_auth", "forward_auth without a service"),
    // Connections of trusted proxies are not counted, because they carry requests of many clients.
    ("trusted proxies", "connections of a client"),
    // Clients of a Unix-domain socket are not counted, because they have no addresses.
    ("Unix-domain listener", "connections of a client"),
];

/// Names and keys of the policies.
const POLICIES: [(&str, &str); 5] = [
    (
        "exact",
        "{ allow_origins: 'https://app.example', allow_headers: [X-Id], max_age: 600, timing_allow_origins: 'https://app.example' }",
    ),
    ("any", "{ allow_origins: '*' }"),
    (
        "credentials",
        "{ allow_origins: 'https://*.example', allow_credentials: true, allow_headers: [X-Id], allow_methods: [GET], expose_headers: [X-Total, Retry-After] }",
    ),
    (
        "replace",
        "{ allow_origins: 'https://app.example', upstream_headers: replace, preflight: { status: 204, refused_status: 403 } }",
    ),
    ("reject", "{ allow_origins: 'https://app.example', disallowed_origins: reject }"),
];

/// A row of the table.
#[derive(Clone)]
struct Behavior {
    /// The position of the row in the table.
    index: usize,
    name: &'static str,
    keys: Vec<(Place, &'static str)>,
    /// The stage at which the behavior ends a request, and the status of the response. None if the request goes on.
    ends: Option<(Stage, u16)>,
    /// A name that the behavior adds to `Vary` in responses from the upstream.
    vary: Option<&'static str>,
    /// A field that the behavior adds to a 200 from the upstream.
    shows: Option<&'static str>,
    fields: Vec<(&'static str, &'static str)>,
    traits: Vec<Trait>,
}

/// A special property of a behavior.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trait {
    /// The request has a target of 400 bytes.
    LongTarget,
    /// The request has 30 fields.
    ManyFields,
    /// The request has a body, unless its method is OPTIONS.
    Body,
    /// The client uses TLS.
    Https,
    Http2,
    /// The client's connection begins with a PROXY header.
    Proxied,
    /// The client already has an open connection.
    Occupied,
    /// The route has the behavior instead of an upstream, and its service has the upstream.
    InsteadOfUpstream,
    /// The route has two upstreams.
    Split,
    /// The behavior depends on state, on the client's address or on the listener. `Exchange` has none of them here.
    NotSimulated,
}

/// The part of the configuration to which a key belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Top,
    Listener,
    Service,
    Route,
    /// The upstream.
    Node,
}

/// A stage at which a request can end before it reaches the upstream. The stages are in the order of the variants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connections,
    LongTarget,
    LargeHeader,
    LargeBody,
    ListenerClients,
    Method,
    Clients,
    Https,
    Rewrite,
    RateLimit,
    Auth,
    End,
    Full,
}

impl Behavior {
    fn new(name: &'static str) -> Self {
        Behavior {
            index: 0,
            name,
            keys: Vec::new(),
            ends: None,
            vary: None,
            shows: None,
            fields: Vec::new(),
            traits: Vec::new(),
        }
    }

    /// Adds a key. `text` has the key and its value.
    fn key(mut self, place: Place, text: &'static str) -> Self {
        self.keys.push((place, text));
        self
    }

    fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    fn ends(self, stage: Stage, status: u16) -> Self {
        Behavior { ends: Some((stage, status)), ..self }
    }

    fn vary(self, name: &'static str) -> Self {
        Behavior { vary: Some(name), ..self }
    }

    fn shows(self, field: &'static str) -> Self {
        Behavior { shows: Some(field), ..self }
    }

    fn with(mut self, special: Trait) -> Self {
        self.traits.push(special);
        self
    }

    fn has(&self, place: Place) -> bool {
        self.keys.iter().any(|(other, _)| *other == place)
    }
}

// === pairs ===

/// No row, one row or two rows.
#[derive(Clone)]
struct Pair(Vec<Behavior>);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => f.write_str("no behavior"),
            rows => f.write_str(&rows.iter().map(|row| row.name).collect::<Vec<_>>().join(" + ")),
        }
    }
}

impl Pair {
    /// Returns all policies. For two rows, it returns only two policies, to save time. Each row is still tested with
    /// each policy, alone and in pairs.
    fn policies(&self) -> Vec<&'static str> {
        let all = POLICIES.map(|(name, _)| name);
        match self.0.len() {
            0 | 1 => all.to_vec(),
            _ => [0, 2].map(|more| all[(self.turn() + more) % all.len()]).to_vec(),
        }
    }

    /// Returns the policy and the upstream of each route of a host.
    fn routes(&self) -> Vec<(&'static str, &'static str)> {
        let segments = if self.reaches_upstream() { &SEGMENTS[..] } else { &SEGMENTS[..1] };
        let of_policy = |policy| segments.iter().map(move |segment| (policy, *segment));
        self.policies().into_iter().flat_map(of_policy).collect()
    }

    fn turn(&self) -> usize {
        self.0.iter().map(|row| row.index).sum()
    }

    fn is_exclusive(&self) -> bool {
        let has = |name| self.0.iter().any(|row| row.name == name);
        EXCLUSIVE.iter().any(|(one, other, _)| has(*one) && has(*other))
    }

    /// Returns the rows with keys at one of these places.
    fn at(&self, places: &[Place]) -> Pair {
        Pair(self.0.iter().filter(|row| places.iter().any(|place| row.has(*place))).cloned().collect())
    }

    fn is(&self, special: Trait) -> bool {
        self.0.iter().any(|row| row.traits.contains(&special))
    }

    /// Returns the keys of a place, one key per line. If both rows have the same key, the values are merged, unless
    /// they contradict each other.
    fn lines(&self, place: Place, prefix: &str) -> Vec<String> {
        let mut keys: Vec<(Value, Value)> = Vec::new();
        for (_, text) in self.0.iter().flat_map(|row| &row.keys).filter(|(other, _)| *other == place) {
            let parsed: Mapping =
                serde_yaml::from_str(&text.replace("{prefix}", prefix)).expect("a key with its value");
            for (key, value) in parsed {
                match keys.iter_mut().find(|(known, _)| *known == key).map(|(_, known)| known) {
                    Some(known) if merged(known, &value).is_some() => {
                        *known = merged(known, &value).expect("just seen");
                    }
                    _ => keys.push((key, value)),
                }
            }
        }
        let json = |value: &Value| serde_json::to_string(value).expect("YAML without tags");
        keys.iter().map(|(key, value)| format!("{}: {}", json(key), json(value))).collect()
    }
}

/// Merges two values. Returns None if the values contradict each other.
fn merged(one: &Value, other: &Value) -> Option<Value> {
    match (one, other) {
        (Value::Mapping(one), Value::Mapping(other)) => {
            let mut all = one.clone();
            for (key, value) in other {
                let value = match all.get(key) {
                    Some(known) => merged(known, value)?,
                    None => value.clone(),
                };
                all.insert(key.clone(), value);
            }
            Some(Value::Mapping(all))
        }
        _ => (one == other).then(|| one.clone()),
    }
}

/// Returns the pair without rows, each single row, and each pair of rows.
fn pairs() -> Vec<Pair> {
    let mut rows = behaviors();
    rows.iter_mut().enumerate().for_each(|(index, row)| row.index = index);
    let mut pairs = vec![Pair(Vec::new())];
    for (i, row) in rows.iter().enumerate() {
        pairs.push(Pair(vec![row.clone()]));
        pairs.extend(rows[i + 1..].iter().map(|other| Pair(vec![row.clone(), other.clone()])));
    }
    pairs
}

// === requests and expected responses ===

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Preflight,
    Actual,
    /// OPTIONS without an Origin. This is not a preflight.
    Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Page {
    Allowed,
    Refused,
    /// The request has no Origin.
    None,
}

/// The behavior of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Answers,
    AnswersWrongCors,
    AnswersAnError,
    ClosesTheConnection,
    IsDead,
    IsSlow,
}

/// The source of a response. If source, policy, shape and page are the same, the CORS fields are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// The answer to a preflight.
    Preflight,
    /// A response of the gateway itself, such as an error.
    Gateway,
    Upstream(Node),
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    policy: &'static str,
    shape: Shape,
    page: Page,
    node: Node,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { policy, shape, page, node } = self;
        write!(f, "policy {policy}, {shape:?} from {page:?}, upstream {node:?}")
    }
}

/// Returns all requests with these policies. Requests to a slow upstream take time, so each pair gets only some of the
/// requests to failing upstreams. `turn` selects these requests.
fn questions(policies: &[&'static str], reaches_upstream: bool, turn: usize) -> Vec<Asked> {
    let mut all = Vec::new();
    for (i, policy) in policies.iter().enumerate() {
        let ask = |shape, page, node| Asked { policy, shape, page, node };
        let pages = [Page::Allowed, Page::Refused, Page::None];
        all.push(ask(Shape::Preflight, Page::Allowed, Node::Answers));
        all.push(ask(Shape::Preflight, Page::Refused, Node::Answers));
        all.push(ask(Shape::Options, Page::None, Node::Answers));
        all.extend(pages.map(|page| ask(Shape::Actual, page, Node::Answers)));
        if reaches_upstream {
            all.extend(pages.map(|page| ask(Shape::Actual, page, Node::AnswersWrongCors)));
            let page = pages[(turn + i) % pages.len()];
            let failures = [Node::AnswersAnError, Node::IsDead, Node::ClosesTheConnection];
            all.extend(failures.map(|node| ask(Shape::Actual, page, node)));
            if turn % policies.len() == i {
                all.push(ask(Shape::Actual, page, Node::IsSlow));
            }
        }
    }
    all
}

impl Pair {
    /// Returns the source and the status of the response. The status is None if the upstream fails, because several
    /// statuses are possible.
    fn expected(&self, asked: Asked) -> (Source, Option<u16>) {
        // Only some stages come before the answer to a preflight. A preflight has no body, so it cannot be too large.
        let stops_preflights = |stage| stage <= Stage::LargeHeader || stage == Stage::Method;
        let applies = |stage| stage != Stage::LargeBody || asked.shape == Shape::Actual;
        let ends = || self.ends().filter(|(stage, _)| applies(*stage));
        let first = ends().min();
        let status = |(_, status): (Stage, u16)| (Source::Gateway, Some(status));
        if asked.shape == Shape::Preflight {
            return match ends().any(|(stage, _)| stops_preflights(stage)) {
                true => status(first.expect("one that stops preflights")),
                false => {
                    let refused = asked.policy == "replace";
                    let code = match asked.page {
                        Page::Refused if refused => 403,
                        _ if refused => 204,
                        _ => 200,
                    };
                    (Source::Preflight, Some(code))
                }
            };
        }
        if let Some((stage, _)) = first.filter(|(stage, _)| *stage <= Stage::Method)
            // The clients of a listener are checked after the policy, unless no route has the method.
            && (stage != Stage::ListenerClients || ends().any(|(stage, _)| stage == Stage::Method))
        {
            return status(first.expect("just seen"));
        }
        if asked.policy == "reject" && asked.page == Page::Refused {
            return (Source::Gateway, Some(403));
        }
        match (first, asked.node) {
            (Some(first), _) => status(first),
            (None, Node::Answers | Node::AnswersWrongCors) => (Source::Upstream(asked.node), Some(200)),
            (None, Node::AnswersAnError) => (Source::Upstream(asked.node), Some(500)),
            (None, Node::ClosesTheConnection | Node::IsDead | Node::IsSlow) => (Source::Gateway, None),
        }
    }

    fn ends(&self) -> impl Iterator<Item = (Stage, u16)> {
        let has = |name| self.0.iter().any(|row| row.name == name);
        let counts = move |row: &&Behavior| !REPLACED.iter().any(|(by, name)| row.name == *name && has(*by));
        let is_rewritten = !self.is(Trait::InsteadOfUpstream);
        let ends = self.0.iter().filter(counts).filter_map(|row| row.ends);
        // The path is rewritten only if the request goes to an upstream.
        ends.filter(move |(stage, _)| *stage != Stage::Rewrite || is_rewritten)
    }

    fn reaches_upstream(&self) -> bool {
        self.ends().next().is_none()
    }
}

impl Asked {
    fn segment(self) -> &'static str {
        match self.node {
            Node::Answers | Node::AnswersWrongCors | Node::AnswersAnError | Node::ClosesTheConnection => "live",
            Node::IsDead => "dead",
            Node::IsSlow => "slow",
        }
    }

    /// Returns the method, the target and the fields, without Host.
    fn request(self, pair: &Pair) -> (&'static str, String, Fields) {
        let method = match self.shape {
            Shape::Preflight | Shape::Options => "OPTIONS",
            Shape::Actual if pair.is(Trait::Body) => "POST",
            Shape::Actual => "GET",
        };
        let mut target = format!("/{}/{}/x", self.policy, self.segment());
        if pair.is(Trait::LongTarget) {
            let _ = write!(target, "?{}", "a".repeat(400));
        }
        let mut fields: Vec<(&str, String)> = vec![("X-Answer", format!("{:?}", self.node))];
        match self.page {
            Page::Allowed => fields.push(("Origin", "https://app.example".into())),
            Page::Refused => fields.push(("Origin", "https://evil.test".into())),
            Page::None => {}
        }
        if self.shape == Shape::Preflight {
            fields.push(("Access-Control-Request-Method", "GET".into()));
            fields.push(("Access-Control-Request-Headers", "x-id".into()));
        }
        for row in &pair.0 {
            fields.extend(row.fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        }
        if pair.is(Trait::ManyFields) {
            fields.extend((0..30).map(|_| ("X-Many", "1".to_owned())));
        }
        if self.has_body(pair) {
            fields.push(("Content-Length", BODY.to_string()));
        }
        (method, target, fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn has_body(self, pair: &Pair) -> bool {
        pair.is(Trait::Body) && self.shape == Shape::Actual
    }
}

/// Length of a large body.
const BODY: usize = 2000;

/// Returns the status and the fields that the upstream sends. None if the upstream sends nothing.
fn answer(request: &[(String, String)]) -> Option<(u16, Fields)> {
    let own = |fields: &[(&str, &str)]| fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let plain = [
        ("Server", "upstream"),
        ("Location", "/v1/x"),
        ("Set-Cookie", "a=b; Path=/v1"),
        ("Content-Type", "text/plain"),
    ];
    Some(match all(request, "X-Answer")[..] {
        ["AnswersWrongCors"] => {
            let wrong = [
                ("Access-Control-Allow-Origin", "*"),
                ("Access-Control-Allow-Origin", "https://evil.test"),
                ("Access-Control-Allow-Credentials", "true"),
                ("Access-Control-Allow-Methods", "PUT"),
                ("Access-Control-Expose-Headers", "X-Upstream"),
                ("Access-Control-Expose-Headers", "X-Other"),
                ("Access-Control-Unknown", "1"),
                ("Timing-Allow-Origin", "*"),
                ("Vary", "Cookie, origin"),
                ("Vary", "Accept"),
            ];
            (200, own(&[&plain[..], &wrong[..]].concat()))
        }
        ["AnswersAnError"] => (500, own(&plain)),
        ["ClosesTheConnection"] => return None,
        ["NeverEnds"] => (200, own(&[("Content-Length", "10")])),
        _ => (200, own(&plain)),
    })
}

// === the CORS fields of a response ===

/// The fields that the test compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct CorsFields {
    /// `Access-Control-*` and `Timing-Allow-Origin`, in the order of their names.
    fields: Vec<(String, String)>,
    /// The names in `Vary`, sorted. Duplicates are kept.
    vary: Vec<String>,
}

impl CorsFields {
    fn of(fields: impl Iterator<Item = (String, String)>) -> Self {
        let mut found = CorsFields::default();
        for (name, value) in fields {
            let name = name.to_ascii_lowercase();
            if name == "vary" {
                found.vary.extend(value.split(',').map(|name| name.trim().to_ascii_lowercase()));
            } else if name.starts_with("access-control-") || name == "timing-allow-origin" {
                found.fields.push((name, value));
            }
        }
        found.fields.sort();
        found.vary.sort();
        found
    }

    fn of_map(headers: &HeaderMap) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self::of(headers.iter().map(|(name, value)| (name.to_string(), text(value))))
    }

    /// Returns the first difference as text. `Vary` may also have the names of `more`.
    fn difference(&self, expected: &Self, more: &[&str]) -> Option<String> {
        let names: BTreeSet<&str> = self.fields.iter().chain(&expected.fields).map(|(name, _)| name.as_str()).collect();
        for name in names {
            let (found, expected) = (all(&self.fields, name), all(&expected.fields, name));
            if found != expected {
                return Some(format!("{name} is {found:?} and not {expected:?}"));
            }
        }
        let vary: Vec<&String> =
            self.vary.iter().filter(|name| !more.contains(&name.as_str()) || expected.vary.contains(name)).collect();
        let mut unique = self.vary.clone();
        unique.dedup();
        let is_same = vary == expected.vary.iter().collect::<Vec<_>>() && unique.len() == self.vary.len();
        (!is_same).then(|| format!("vary is {:?} and not {:?}", self.vary, expected.vary))
    }
}

// === the configuration ===

/// The upstreams. Nothing listens at `dead`, and `silent` never answers.
struct Upstreams {
    /// Servers for HTTP/1 and HTTP/2, without and with TLS. Each server also exists behind a relay that reads a PROXY
    /// header.
    servers: Vec<Server>,
    dead: SocketAddr,
    silent: SocketAddr,
    /// The folder for the Unix-domain sockets of upstreams and listeners.
    folder: TempDir,
    _http1: [Upstream; 2],
    _http2: [H2Upstream; 2],
}

struct Server {
    /// Whether an upstream of this server needs the keys `http2`, `tls` and `proxy_protocol`.
    needs: [bool; 3],
    address: SocketAddr,
    /// A Unix-domain socket that forwards to the server.
    socket: UnixRelay,
}

impl Upstreams {
    fn start(authority: &Authority) -> Self {
        let certificate = authority.issue(&["matrix.test"]);
        let http1 = |request: &Received| match answer(&request.headers) {
            _ if request.target == "/denied" => {
                let wrong = Reply::new(401).header("Access-Control-Allow-Origin", "https://evil.test");
                wrong.header("Timing-Allow-Origin", "*").body("denied")
            }
            None => Reply::reset(),
            Some((status, fields)) => {
                fields.iter().fold(Reply::new(status).body("body"), |reply, (name, value)| reply.header(name, value))
            }
        };
        let http2 = |fields: &[(String, String)]| match answer(fields) {
            None => H2Reply::reset(h2::Reason::INTERNAL_ERROR),
            // The client does not read this response.
            Some((status, _)) if all(fields, "X-Answer") == ["NeverEnds"] => H2Reply::new(status).endless(),
            Some((status, fields)) => {
                fields.iter().fold(H2Reply::new(status).body("body"), |reply, (name, value)| reply.header(name, value))
            }
        };
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind an address");
        let address = silent.local_addr().expect("a bound address");
        thread::spawn(move || {
            let mut open = Vec::new();
            open.extend(silent.incoming());
        });
        let folder = TempDir::with_prefix("corsgate-matrix-").expect("make a directory");
        let plain1 = Upstream::start(move |request| http1(request));
        let plain2 = H2Upstream::start(move |request| http2(&request.headers));
        let tls1 = Upstream::start_tls(certificate.server(None, &[]), move |request| http1(request));
        let tls2 = H2Upstream::start_tls(certificate.server(None, &["h2"]), move |request| http2(&request.headers));
        let all = [
            ([false, false], plain1.address()),
            ([true, false], plain2.address()),
            ([false, true], tls1.address()),
            ([true, true], tls2.address()),
        ];
        let server = |([http2, tls], proxied, address): ([bool; 2], bool, SocketAddr)| {
            let address = if proxied { relay(Address::Tcp(address), Header::Removed) } else { address };
            let socket = UnixRelay::start(folder.path().join(address.port().to_string()), address);
            Server { needs: [http2, tls, proxied], address, socket }
        };
        let servers = all.map(|(keys, address)| [false, true].map(|proxied| server((keys, proxied, address))));
        Upstreams {
            servers: servers.into_iter().flatten().collect(),
            dead: free_address(),
            silent: address,
            _http1: [plain1, tls1],
            _http2: [plain2, tls2],
            folder,
        }
    }

    /// Returns the upstream of a route as YAML, with these keys.
    fn written(&self, segment: &str, keys: &[String]) -> String {
        let has = |key: &str| keys.iter().any(|line| line.starts_with(&format!("\"{key}\"")));
        let needs = ["http2", "tls", "proxy_protocol"].map(has);
        let server = self.servers.iter().find(|server| server.needs == needs).expect("a server for all keys");
        let address = match (segment, has("nodes")) {
            ("dead", false) => self.dead.to_string(),
            ("dead", true) => format!("unix:{}", self.folder.path().join("none").display()),
            ("slow", _) => self.silent.to_string(),
            (_, false) => server.address.to_string(),
            (_, true) => format!("unix:{}", server.socket.path().display()),
        };
        let is_slow = segment == "slow";
        let is_replaced = |line: &str| line.starts_with("\"nodes\"") || (is_slow && line.starts_with("\"timeouts\""));
        let mut all = vec![format!("nodes: [{{ address: '{address}' }}]")];
        if is_slow {
            all.push("timeouts: { connect: 50ms, read: 50ms }".to_owned());
        }
        all.extend(keys.iter().filter(|line| !is_replaced(line)).cloned());
        format!("{{ {} }}", all.join(", "))
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The address of a listener or of a relay's target.
#[derive(Clone)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One configuration for all pairs with the same top-level keys.
struct Group {
    pairs: Vec<Pair>,
    /// The rows with keys of a listener, and the address of that listener.
    listeners: Vec<(Pair, Address)>,
    /// The rows with keys of a service, a route or an upstream. There is one host for each entry.
    hosts: Vec<Pair>,
}

const SERVICE: [Place; 3] = [Place::Service, Place::Route, Place::Node];

fn listener_of(pair: &Pair) -> Pair {
    pair.at(&[Place::Listener])
}

impl Group {
    fn all(upstreams: &Upstreams) -> Vec<Group> {
        let mut groups: BTreeMap<String, Vec<Pair>> = BTreeMap::new();
        for pair in pairs().into_iter().filter(|pair| !pair.is_exclusive()) {
            groups.entry(pair.lines(Place::Top, "").join("\n")).or_default().push(pair);
        }
        groups.into_values().map(|pairs| Group::new(pairs, upstreams)).collect()
    }

    fn new(pairs: Vec<Pair>, upstreams: &Upstreams) -> Group {
        let mut group = Group { pairs: Vec::new(), listeners: Vec::new(), hosts: Vec::new() };
        for pair in &pairs {
            let (listener, host) = (listener_of(pair), pair.at(&SERVICE));
            if !group.listeners.iter().any(|(known, _)| known.to_string() == listener.to_string()) {
                let is_unix = listener.lines(Place::Listener, "").iter().any(|line| line.contains("\"unix\""));
                let address = match is_unix {
                    true => Address::Unix(upstreams.folder.path().join(format!("listener-{}", free_port()))),
                    false => Address::Tcp(free_address()),
                };
                group.listeners.push((listener, address));
            }
            if !group.hosts.iter().any(|known| known.to_string() == host.to_string()) {
                group.hosts.push(host);
            }
        }
        Group { pairs, ..group }
    }

    fn host(&self, pair: &Pair) -> String {
        let name = pair.at(&SERVICE).to_string();
        let index = self.hosts.iter().position(|known| known.to_string() == name).expect("a host for each pair");
        format!("host-{index}.test")
    }

    /// Returns the index of the listener.
    fn listener(&self, pair: &Pair) -> usize {
        let name = listener_of(pair).to_string();
        self.listeners.iter().position(|(known, _)| known.to_string() == name).expect("a listener for each pair")
    }

    /// Returns the configuration. The tested requests do not use the listener at `{listen}`.
    fn text(&self, upstreams: &Upstreams) -> String {
        let top = self.pairs[0].at(&[Place::Top]);
        let mut text = top.lines(Place::Top, "").join("\n");
        text += "\nserver: { threads: 2 }\nlisteners:\n  - { address: '{listen}' }\n";
        for (rows, address) in &self.listeners {
            let address = match address {
                Address::Tcp(address) => format!("address: '{address}'"),
                Address::Unix(path) => format!("address: 'unix:{}'", path.display()),
            };
            let keys = rows.lines(Place::Listener, "").into_iter().filter(|line| !line.starts_with("\"address\""));
            let keys = [address].into_iter().chain(keys);
            let _ = writeln!(text, "  - {{ {} }}", keys.collect::<Vec<_>>().join(", "));
        }
        text += "cors_policies:\n";
        for (name, policy) in POLICIES {
            let _ = writeln!(text, "  {name}: {policy}");
        }
        text += "upstreams:\n";
        for segment in SEGMENTS {
            let _ = writeln!(text, "  {segment}: {}", upstreams.written(segment, &[]));
        }
        let _ = writeln!(text, "  auth: {}", upstreams.written("live", &[]));
        for (index, rows) in self.hosts.iter().enumerate().filter(|(_, rows)| rows.is(Trait::Split)) {
            let keys = rows.lines(Place::Node, "");
            for (policy, segment) in rows.routes() {
                for name in share_names(index, policy, segment) {
                    let _ = writeln!(text, "  {name}: {}", upstreams.written(segment, &keys));
                }
            }
        }
        text += "services:\n";
        for (index, rows) in self.hosts.iter().enumerate() {
            text += &service(index, rows, upstreams);
        }
        text
    }
}

const SEGMENTS: [&str; 3] = ["live", "dead", "slow"];

/// Returns the names of the two upstreams of a split.
fn share_names(index: usize, policy: &str, segment: &str) -> [String; 2] {
    ["one", "other"].map(|share| format!("{share}-{index}-{policy}-{segment}"))
}

fn service(index: usize, rows: &Pair, upstreams: &Upstreams) -> String {
    let mut text = format!("  - name: s{index}\n    hosts: [host-{index}.test]\n");
    for line in rows.lines(Place::Service, "") {
        let _ = writeln!(text, "    {line}");
    }
    let keys = rows.lines(Place::Node, "");
    let upstream = |segment: &str| match keys.is_empty() {
        true => segment.to_owned(),
        false => upstreams.written(segment, &keys),
    };
    let replaced = rows.is(Trait::InsteadOfUpstream);
    if replaced {
        let _ = writeln!(text, "    upstream: {}", upstream("live"));
    }
    text += "    routes:\n";
    for (policy, segment) in rows.routes() {
        let prefix = format!("/{policy}/{segment}");
        let _ = writeln!(text, "      - paths: ['{prefix}/*']\n        cors: {policy}");
        if !replaced && !rows.is(Trait::Split) {
            let _ = writeln!(text, "        upstream: {}", upstream(segment));
        }
        for line in rows.lines(Place::Route, &prefix) {
            let shares = share_names(index, policy, segment).map(|name| format!("{{ upstream: {name} }}")).join(", ");
            let _ = writeln!(text, "        {}", line.replace("\"shares\"", &format!("[{shares}]")));
        }
    }
    text
}

// === the test ===

/// The CORS fields without behaviors, by policy, shape, page and source.
type Baseline = BTreeMap<(&'static str, Shape, Page, Source), CorsFields>;

#[test]
fn cors_is_the_same_with_each_two_behaviors() {
    let authority = Authority::new("authority");
    let files = files(&authority);
    let upstreams = Upstreams::start(&authority);
    let tls = TlsClient::new(&authority, "matrix.test").without_sni().certified_for("matrix.test");
    // The first group has no top-level keys. It has the pair without rows, which is the baseline, and most of the other
    // pairs.
    let groups: Vec<Group> = Group::all(&upstreams);
    let failures = Failures::default();
    let began = Instant::now();
    let first = Running::start(&groups[0], &upstreams, &files, &tls);
    let baseline = first.baseline(&failures);
    let (next, asked) = (AtomicUsize::new(1), AtomicUsize::new(0));
    let check = |running: &Running<'_>| {
        asked.fetch_add(running.check(&baseline, &failures), Ordering::Relaxed);
    };
    thread::scope(|scope| {
        scope.spawn(|| check(&first));
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(&Running::start(group, &upstreams, &files, &tls));
                }
            });
        }
    });
    let asked = asked.into_inner();
    failures.assert_none();
    // Guards against pairs that are skipped by mistake.
    let pairs: usize = groups.iter().map(|group| group.pairs.len()).sum();
    let rows = behaviors().len();
    assert_eq!(pairs, 1 + rows + rows * (rows - 1) / 2 - EXCLUSIVE.len());
    assert!(asked > pairs * 12, "{asked} requests for {pairs} pairs");
    println!("{asked} requests for {pairs} pairs of {rows} behaviors in {:?}", began.elapsed());
}

/// Checks that each pair of [`EXCLUSIVE`] is refused. The other test shows that all other pairs are accepted, because
/// it runs processes with them.
#[test]
fn exclusive_behaviors_are_refused() {
    let authority = Authority::new("authority");
    let files = files(&authority);
    let upstreams = Upstreams::start(&authority);
    let rows = behaviors();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "two rows of one name");
    let find = |name| rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}")).clone();
    for (one, other, why) in EXCLUSIVE {
        let pair = Pair(vec![find(one), find(other)]);
        let text = Group::new(vec![pair], &upstreams).text(&upstreams).replace("{listen}", "127.0.0.1:9080");
        let Loaded { snapshot, problems } = loaded(&text, &files);
        assert!(snapshot.is_none(), "{one} + {other} can be combined, although {why}\n{problems}");
    }
}

/// Returns the files that the configurations name.
fn files(authority: &Authority) -> Files {
    let mut files = authority.issue(&["matrix.test"]).files("matrix");
    files.push(("matrix.ca".into(), authority.pem()));
    files
}

fn loaded(text: &str, files: &Files) -> Loaded {
    let read = |path: &str| {
        let found = files.iter().find(|(name, _)| name == path);
        found.map(|(_, content)| content.clone().into_bytes()).ok_or_else(|| "no such file".to_owned())
    };
    // A time at which the certificates are valid.
    load(text, CompileEnv { file: &read, now: 1_800_000_000, ..CompileEnv::NONE })
}

#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl Failures {
    fn add(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn assert_none(&self) {
        let failures = self.0.lock().unwrap();
        // Shows one failure for each pair.
        let pair = |failure: &str| failure.split(':').next().unwrap_or_default().to_owned();
        let first: BTreeMap<String, &String> = failures.iter().rev().map(|failure| (pair(failure), failure)).collect();
        let shown: Vec<&str> = first.values().take(60).map(|failure| failure.as_str()).collect();
        assert!(failures.is_empty(), "{} failures of {} pairs\n{}", failures.len(), first.len(), shown.join("\n"));
    }
}

/// A process with the configuration of a group, and the same configuration as a snapshot.
struct Running<'a> {
    group: &'a Group,
    /// The process runs until this value is dropped.
    _gateway: Gateway,
    snapshot: Snapshot,
    tls: &'a TlsClient,
    /// The addresses to which clients connect, one for each listener of the group.
    entrances: Vec<SocketAddr>,
    /// Open connections. They keep clients at the limit of connections, and upstreams at the limit of requests.
    _open: Vec<Connection>,
}

impl<'a> Running<'a> {
    fn start(group: &'a Group, upstreams: &Upstreams, files: &Files, tls: &'a TlsClient) -> Self {
        let text = group.text(upstreams);
        let gateway = Gateway::start_with_files(&text, files);
        let Loaded { snapshot, problems } = loaded(&gateway.filled_in(&text), files);
        let snapshot = snapshot.unwrap_or_else(|| panic!("{problems}"));
        let top = group.pairs[0].at(&[Place::Top]);
        let entrance = |(rows, address): &(Pair, Address)| {
            let accepts = || match address {
                Address::Tcp(address) => TcpStream::connect(address).is_ok(),
                Address::Unix(path) => UnixStream::connect(path).is_ok(),
            };
            assert!(poll(PROCESS_TIMEOUT, || accepts().then_some(())).is_some(), "no listener for {rows}");
            match address {
                address if rows.is(Trait::Proxied) => relay(address.clone(), Header::Added),
                Address::Tcp(address) => *address,
                Address::Unix(_) => relay(address.clone(), Header::Absent),
            }
        };
        let entrances: Vec<SocketAddr> = group.listeners.iter().map(entrance).collect();
        // Opens one connection for each client address: one direct connection, and one with a PROXY header.
        let proxied = group.listeners.iter().position(|(rows, _)| rows.0.len() == 1 && rows.is(Trait::Proxied));
        let clients = [gateway.address()].into_iter().chain(proxied.map(|index| entrances[index]));
        let occupied = clients.filter(|_| top.is(Trait::Occupied)).map(|address| {
            let connection = poll(PROCESS_TIMEOUT, || {
                let mut connection = Connection::open(address).ok()?;
                let response = connection.request("GET", "/", &[("Host", "unknown.test")], b"").ok()?;
                (response.status == 404).then_some(connection)
            });
            connection.expect("a connection within the limit")
        });
        // Sends one request that uses up each rate limit, and one request that fills each upstream.
        let routes = |stage| {
            let ends_there =
                move |(_, rows): &(usize, &Pair)| rows.ends().min().is_some_and(|(first, _)| first == stage);
            let hosts = group.hosts.iter().enumerate().filter(ends_there);
            let hosts = hosts.filter(|_| !top.is(Trait::Occupied));
            hosts.flat_map(|(index, rows)| {
                rows.policies().into_iter().map(move |policy| (format!("host-{index}.test"), policy))
            })
        };
        for (host, policy) in routes(Stage::RateLimit) {
            let response = fetch(gateway.address(), "GET", &format!("/{policy}/live/x"), &[("Host", &host)]);
            assert_ne!(response.status, 429, "the first request of {host}");
        }
        let full = routes(Stage::Full).map(|(host, policy)| {
            let mut connection = Connection::open(gateway.address()).expect("a connection");
            let request = format!("GET /{policy}/live/x HTTP/1.1\r\nHost: {host}\r\nX-Answer: NeverEnds\r\n\r\n");
            connection.send(request.as_bytes()).expect("a request");
            let begins = connection.receive(12).expect("a response");
            assert_eq!(begins.escape_ascii().to_string(), "HTTP/1.1 200", "{host}");
            connection
        });
        let open = occupied.chain(full).collect();
        Running { group, _gateway: gateway, snapshot, tls, entrances, _open: open }
    }

    /// Returns the CORS fields without behaviors. Checks that the engine alone gives the same fields.
    fn baseline(&self, failures: &Failures) -> Baseline {
        let none = Pair(Vec::new());
        let mut baseline = Baseline::new();
        let mut client = Client::new(self, &none);
        let turns = (0..15).flat_map(|turn| questions(&none.policies(), true, turn)).collect::<BTreeSet<_>>();
        // Requests that get the gateway's own error, with the fields of a preflight or of OPTIONS. Their method is
        // TRACE.
        let bad_path = POLICIES.iter().flat_map(|(policy, _)| {
            let shapes =
                [(Shape::Preflight, Page::Allowed), (Shape::Preflight, Page::Refused), (Shape::Options, Page::None)];
            shapes.map(|(shape, page)| (Asked { policy, shape, page, node: Node::Answers }, true))
        });
        for (asked, bad_path) in turns.into_iter().map(|asked| (asked, false)).chain(bad_path) {
            let (source, status) = match bad_path {
                true => (Source::Gateway, Some(405)),
                false => none.expected(asked),
            };
            let (method, target, fields) = asked.request(&none);
            let (method, fields) = match bad_path {
                // No route has the method TRACE, so the response is 405 with the policy of the path.
                true => ("TRACE", fields),
                false => (method, fields),
            };
            let response =
                client.request(method, &target, &fields, b"").unwrap_or_else(|error| panic!("{asked}: {error}"));
            if status.is_some_and(|status| status != response.status) {
                failures.add(format!("no behavior, {asked}: status {} and not {status:?}", response.status));
            }
            let found = CorsFields::of(response.headers.into_iter());
            let mut head = HeaderMap::new();
            if let Source::Upstream(_) = source {
                for (name, value) in answer(&fields).expect("an answer").1 {
                    head.append(
                        HeaderName::from_bytes(name.as_bytes()).unwrap(),
                        HeaderValue::from_str(&value).unwrap(),
                    );
                }
            }
            let of_engine = self.with_request(method, &target, &fields, &none, |snapshot, request| {
                snapshot.decide(request).edits.apply(&mut head);
                CorsFields::of_map(&head)
            });
            if let Some(difference) = found.difference(&of_engine, &[]) {
                failures.add(format!("no behavior, {asked}, against the engine: {difference}"));
            }
            let key = (asked.policy, asked.shape, asked.page, source);
            if let Some(known) = baseline.insert(key, found.clone())
                && known != found
            {
                failures.add(format!("no behavior, {asked}: {found:?} and {known:?} for the same source"));
            }
        }
        baseline
    }
}

impl Running<'_> {
    /// Compares all pairs with the baseline. Returns the number of requests.
    fn check(&self, baseline: &Baseline, failures: &Failures) -> usize {
        const THREADS: usize = 8;
        let (next, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some(pair) = self.group.pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut client = Client::new(self, pair);
                        for question in questions(&pair.policies(), pair.reaches_upstream(), pair.turn()) {
                            asked.fetch_add(1, Ordering::Relaxed);
                            if let Err(failure) = self.check_one(&mut client, pair, question, baseline) {
                                failures.add(format!("{pair}: {question}: {failure}"));
                            }
                        }
                    }
                });
            }
        });
        asked.into_inner()
    }

    fn check_one(&self, client: &mut Client<'_>, pair: &Pair, asked: Asked, baseline: &Baseline) -> Result<(), String> {
        let (source, status) = pair.expected(asked);
        let (method, target, fields) = asked.request(pair);
        let body = if asked.has_body(pair) { &[b'b'; BODY][..] } else { b"" };
        let response = client.request(method, &target, &fields, body).map_err(|error| error.to_string())?;
        match status {
            Some(status) if status != response.status => {
                return Err(format!("status {} and not {status}", response.status));
            }
            None if ![502, 503, 504].contains(&response.status) => return Err(format!("status {}", response.status)),
            _ => {}
        }
        let expected = &baseline[&(asked.policy, asked.shape, asked.page, source)];
        let more: Vec<&str> = pair.0.iter().filter_map(|row| row.vary).collect();
        let works = matches!(source, Source::Upstream(Node::Answers | Node::AnswersWrongCors));
        for name in pair.0.iter().filter(|_| works).filter_map(|row| row.shows) {
            if response.all(name).is_empty() {
                return Err(format!("no {name}, so a behavior has no effect"));
            }
        }
        let found = CorsFields::of(response.headers.into_iter());
        if let Some(name) = more.iter().find(|name| works && !found.vary.iter().any(|known| known == **name)) {
            return Err(format!("vary has no {name}"));
        }
        if let Some(difference) = found.difference(expected, &more) {
            return Err(difference);
        }
        // Failures of an upstream are not simulated.
        if let Some(status) = status.filter(|_| !pair.is(Trait::NotSimulated)) {
            let simulated = self.simulated(method, &target, &fields, pair);
            if simulated.status.as_u16() != status {
                return Err(format!("the simulation has status {} and not {status}", simulated.status));
            }
            if let Some(difference) = CorsFields::of_map(&simulated.headers).difference(expected, &more) {
                return Err(format!("in the simulation, {difference}"));
            }
        }
        Ok(())
    }

    /// Returns the response that `explain` would simulate.
    fn simulated(&self, method: &str, target: &str, fields: &Fields, pair: &Pair) -> Head {
        self.with_request(method, target, fields, pair, |snapshot, request| {
            let upstream = || {
                let (status, fields) = answer(fields).expect("an upstream that answers");
                let mut head = Head::new(StatusCode::from_u16(status).expect("a status"));
                for (name, value) in fields {
                    head.append(&name, HeaderValue::from_str(&value).expect("a value"));
                }
                head
            };
            Exchange::of(snapshot, request, target, upstream).response
        })
    }

    fn with_request<T>(
        &self,
        method: &str,
        target: &str,
        fields: &Fields,
        pair: &Pair,
        then: impl FnOnce(&Snapshot, &Request<'_>) -> T,
    ) -> T {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let host = self.group.host(pair);
        let host_field = [("Host".to_owned(), host.clone())];
        let headers: HeaderMap = (host_field.iter().chain(fields))
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        let scheme = if pair.is(Trait::Https) { Scheme::Https } else { Scheme::Http };
        let request = Request {
            method: &method,
            path: target.split('?').next().unwrap_or_default().as_bytes(),
            target_length: target.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(scheme, &host),
            authority: Some(&host),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        then(&self.snapshot, &request)
    }
}

/// A client of one host. The rows of the host decide the protocol.
struct Client<'a> {
    address: SocketAddr,
    host: String,
    tls: Option<&'a TlsClient>,
    http2: bool,
    /// Whether each request gets a new connection.
    single: bool,
    open: Option<Open>,
}

enum Open {
    Http1(Connection),
    Http2(H2Client),
}

impl<'a> Client<'a> {
    fn new(running: &Running<'a>, pair: &Pair) -> Self {
        Client {
            address: running.entrances[running.group.listener(pair)],
            host: running.group.host(pair),
            tls: pair.is(Trait::Https).then_some(running.tls),
            http2: pair.is(Trait::Http2),
            single: pair.is(Trait::Occupied),
            open: None,
        }
    }

    fn request(&mut self, method: &str, target: &str, fields: &Fields, body: &[u8]) -> io::Result<Response> {
        if let Some(open) = self.open.take() {
            match self.request_on(open, method, target, fields, body) {
                Err(error) if error.kind() != io::ErrorKind::TimedOut => {}
                result => return result,
            }
        }
        // The gateway may have closed the connection since the last response.
        let open = self.connect()?;
        self.request_on(open, method, target, fields, body)
    }

    fn connect(&self) -> io::Result<Open> {
        Ok(match (self.tls, self.http2) {
            (Some(tls), true) => Open::Http2(H2Client::open(self.address, tls)?),
            (None, true) => Open::Http2(H2Client::open_plain(self.address)?),
            (Some(tls), false) => Open::Http1(Connection::open_tls(self.address, tls)?),
            (None, false) => Open::Http1(Connection::open(self.address)?),
        })
    }

    fn request_on(
        &mut self,
        mut open: Open,
        method: &str,
        target: &str,
        fields: &Fields,
        body: &[u8],
    ) -> io::Result<Response> {
        let response = match &mut open {
            Open::Http1(connection) => {
                let fields: Vec<(&str, &str)> = [("Host", self.host.as_str())]
                    .into_iter()
                    .chain(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())))
                    .collect();
                connection.request(method, target, &fields, body)?
            }
            Open::Http2(client) => {
                let mut request = H2Request::new(method, &self.host, target);
                request.headers.clone_from(fields);
                if !body.is_empty() {
                    request = request.data(body);
                }
                client.request(&request)?
            }
        };
        if !self.single && !response.all("Connection").contains(&"close") {
            self.open = Some(open);
        }
        Ok(response)
    }
}

/// The way in which a relay handles the PROXY header of a connection.
#[derive(Clone, Copy)]
enum Header {
    Added,
    Removed,
    Absent,
}

/// Starts a relay to `target`, and returns the address of the relay.
fn relay(target: Address, header: Header) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind an address");
    let address = listener.local_addr().expect("a bound address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = client.set_nodelay(true);
            match &target {
                Address::Tcp(target) => {
                    let Ok(server) = TcpStream::connect(target) else { continue };
                    let _ = server.set_nodelay(true);
                    let copy = server.try_clone().expect("a socket");
                    pass_on(client, (server, copy), header, |server| drop(server.shutdown(Shutdown::Both)));
                }
                Address::Unix(target) => {
                    let Ok(server) = UnixStream::connect(target) else { continue };
                    let copy = server.try_clone().expect("a socket");
                    pass_on(client, (server, copy), header, |server| drop(server.shutdown(Shutdown::Both)));
                }
            }
        }
    });
    address
}

/// Copies the bytes in both directions, with one thread for each direction. Either side may be closed already.
fn pass_on<S: Read + Write + Send + 'static>(
    mut client: TcpStream,
    (mut to_server, mut from_server): (S, S),
    header: Header,
    end: fn(&S),
) {
    let mut from_client = client.try_clone().expect("a socket");
    thread::spawn(move || {
        match header {
            Header::Absent => {}
            Header::Added => drop(to_server.write_all(b"PROXY TCP4 192.0.2.9 127.0.0.1 4711 80\r\n")),
            Header::Removed => {
                let mut byte = [0];
                while byte != *b"\n" && from_client.read(&mut byte).is_ok_and(|length| length > 0) {}
            }
        }
        let _ = io::copy(&mut from_client, &mut to_server);
        end(&to_server);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
}
