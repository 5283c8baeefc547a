//! The configuration file: its shape ([`Document`]), how text becomes one, and where in the text a key stands.
//!
//! Two parsers read the text. serde_yaml makes the [`Document`]; a good file meets no other. Only when there is
//! something to say does [`Source`] read the text a second time with a parser that keeps positions.
//!
//! Every problem is reported at once: a value that cannot be read is noted and taken out, and reading goes on
//! without it, until what is left can be read.

mod problems;
mod source;
mod units;

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IntoDeserializer, MapAccess, Visitor};

pub use self::source::{Place, Source};
pub use self::units::{Duration, Size};

use crate::cors::Settings;
use crate::list::{List, given};
use crate::problem::Problems;

/// The whole file, as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// Where clients connect.
    #[serde(deserialize_with = "given")]
    pub listeners: Option<Vec<Listener>>,
    /// Where operators connect: health, metrics, status; absent = nowhere.
    #[serde(deserialize_with = "given")]
    pub admin: Option<Admin>,
    /// One line for each request; absent = none.
    #[serde(deserialize_with = "given")]
    pub access_log: Option<AccessLog>,
    /// Whether responses say in `X-Corsgate-Reason` what was decided, for development; default false.
    pub debug_header: bool,
    /// The process. A change needs a restart.
    pub server: Server,
    /// What a client may do.
    pub limits: Limits,
    /// Addresses and networks whose word about a client's address, scheme and host is believed; default: none.
    #[serde(deserialize_with = "given")]
    pub trusted_proxies: Option<List>,
    /// Named lists of origins, usable in any policy.
    pub origin_sets: Named<List>,
    /// Named policies, usable by name.
    pub cors_policies: Named<Settings>,
    /// Named upstreams, usable by name.
    pub upstreams: Named<Upstream>,
    /// The policy of every service that has none of its own; default: no CORS handling.
    #[serde(deserialize_with = "given")]
    pub cors: Option<Cors>,
    /// What is served.
    #[serde(deserialize_with = "given")]
    pub services: Option<Vec<Service>>,
}

/// One entry of `listeners`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// IP address and port, such as `0.0.0.0:9080` or `[::]:9080`.
    #[serde(deserialize_with = "given")]
    pub address: Option<String>,
    /// Certificates; absent = plain HTTP.
    #[serde(deserialize_with = "given")]
    pub tls: Option<ListenerTls>,
    /// `true` or a port: everything but preflights is sent to https, on port 443 or this one. Default: false.
    #[serde(deserialize_with = "given")]
    pub redirect_to_https: Option<Toggle<u16>>,
    /// Every connection begins with a PROXY header, version 1 or 2, from one of `trusted_proxies`. Default: false.
    pub proxy_protocol: bool,
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// Chosen by server name: exact, then wildcard, else the first.
    #[serde(deserialize_with = "given")]
    pub certificates: Option<Vec<Certificate>>,
    /// `"1.2"` (default) or `"1.3"`.
    #[serde(deserialize_with = "given")]
    pub min_version: Option<String>,
    /// Whether HTTP/2 is offered; default true.
    pub http2: bool,
    /// PEM file with the authorities that must have signed the certificates of clients; absent: clients show none.
    #[serde(deserialize_with = "given")]
    pub client_ca: Option<String>,
    /// Whether a client may come without a certificate; default `required`. Only beside `client_ca`.
    #[serde(deserialize_with = "given")]
    pub client_certificate: Option<ClientCertificate>,
}

/// `client_certificate` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// No handshake without one.
    Required,
    /// Verified when there is one.
    Optional,
}

/// One entry of `certificates`: paths relative to the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// PEM file with the chain.
    #[serde(deserialize_with = "given")]
    pub cert: Option<String>,
    /// PEM file with the private key.
    #[serde(deserialize_with = "given")]
    pub key: Option<String>,
}

/// `admin`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// IP address and port; default `127.0.0.1:9180`. A change needs a restart.
    #[serde(deserialize_with = "given")]
    pub address: Option<String>,
    /// Names by which it may be asked, such as `corsgate.internal`; default: only addresses and `localhost`.
    #[serde(deserialize_with = "given")]
    pub hosts: Option<List>,
}

/// `access_log`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// `stdout`, or the path of a file, which SIGHUP opens anew; default `stdout`.
    pub to: String,
    /// `json` (default), an object in each line, or `text`, for people.
    pub format: LogFormat,
    /// Which part of the requests is written, from 0 to 1; refused ones always are. Default 1.
    pub sample: f64,
    /// Only requests that the gateway refuses; default false.
    pub refusals_only: bool,
}

/// `format` of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// An object in each line, for programs.
    #[default]
    Json,
    /// One short line, for people.
    Text,
}

/// `server`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Threads that serve requests; 0 (default) = one per core.
    pub threads: usize,
    /// The longest that SIGTERM waits for running requests; default 10s.
    pub grace_period: Duration,
    /// How long SIGTERM goes on accepting after `/readyz` has turned red; default 0s.
    pub drain_delay: Duration,
    /// Where SIGQUIT hands the listening sockets to a process started with `--upgrade`; default: a private place.
    #[serde(deserialize_with = "given")]
    pub upgrade_socket: Option<String>,
}

/// `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest request target; beyond it 414. Default 8KiB.
    pub uri: Size,
    /// The most bytes of request header fields; beyond it 431. Default 64KiB.
    pub headers: Size,
    /// The most request header fields; beyond it 431. Default 100; Pingora takes no more than 256.
    pub header_count: usize,
    /// The longest request body; beyond it 413. Default: no limit.
    #[serde(deserialize_with = "given")]
    pub body: Option<Size>,
    /// How long an idle client connection stays open; default 60s.
    pub keepalive: Duration,
    /// For a TLS handshake with the first header, and for each later header from its first byte on; beyond it 408.
    /// Default 10s.
    pub header_timeout: Duration,
    /// The longest pause in a request body; in all, this and a second more for each KiB that has come. Beyond it 408.
    /// Default 30s.
    pub body_timeout: Duration,
    /// A client that takes nothing of its response for so long is cut off; default 60s.
    pub send_timeout: Duration,
    /// Open client connections in all; beyond them 503. Default: no limit.
    #[serde(deserialize_with = "given")]
    pub connections: Option<usize>,
    /// Open connections of one client, an address or a /64 of IPv6; beyond them 429. Default: no limit.
    #[serde(deserialize_with = "given")]
    pub connections_per_client: Option<usize>,
    /// Requests on one connection, which is then closed in an orderly way; default: no limit.
    #[serde(deserialize_with = "given")]
    pub requests_per_connection: Option<u32>,
    /// Streams of one HTTP/2 connection at a time; default 100.
    pub streams: u32,
    /// How long nothing may move on an HTTP/2 stream; default 5m.
    pub stream_idle: Duration,
}

/// One entry of `upstreams`, or an upstream written inline.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// The servers.
    #[serde(deserialize_with = "given")]
    pub nodes: Option<Vec<Node>>,
    /// How a node is chosen; default `round_robin`.
    pub balance: Balance,
    /// What `balance: hash` hashes: `header:NAME`, `cookie:NAME`, `path` or `client_address`.
    #[serde(deserialize_with = "given")]
    pub hash_on: Option<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often a failed request is tried again, on another node; 0 to 10, default 1. Any method when the connect
    /// failed, idempotent ones also when the node broke off or timed out before its response.
    #[serde(deserialize_with = "given")]
    pub retries: Option<usize>,
    /// HTTP/2 to the nodes, as gRPC needs it; default false.
    pub http2: bool,
    /// TLS to the nodes; absent = plain HTTP.
    #[serde(deserialize_with = "given")]
    pub tls: Option<UpstreamTls>,
    /// Active health checks; absent = none.
    #[serde(deserialize_with = "given")]
    pub health_check: Option<HealthCheck>,
    /// After how many failing requests in a row a node is left out, and for how long; `false`: never.
    #[serde(deserialize_with = "given")]
    pub ejection: Option<Toggle<Ejection>>,
    /// Over what time a node that comes back gets its share; absent = at once.
    #[serde(deserialize_with = "given")]
    pub slow_start: Option<Duration>,
}

/// One entry of `nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Host and port. A name is resolved in the background, again and again.
    #[serde(deserialize_with = "given")]
    pub address: Option<String>,
    /// Its share of the requests, 0 to 1000, default 1; 0 = none.
    pub weight: u32,
}

/// How a node is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// By a property of the request.
    Hash,
}

/// `timeouts` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a new connection; default 2s.
    pub connect: Duration,
    /// Between two reads of a response; default 60s.
    pub read: Duration,
    /// Between two writes of a request; default 60s.
    pub write: Duration,
    /// How long an unused connection is kept; default 50s. Keep it below the upstream's own.
    pub idle: Duration,
    /// For a whole request, all tries included; default: no limit. WebSockets are excepted.
    #[serde(deserialize_with = "given")]
    pub total: Option<Duration>,
    /// How long nothing may move on a WebSocket, in either direction; default 1h.
    pub websocket: Duration,
}

/// `tls` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The name to ask for and to verify; default: each node's own.
    #[serde(deserialize_with = "given")]
    pub sni: Option<String>,
    /// Whether the certificate is verified; default true.
    pub verify: bool,
    /// PEM file with the authorities that must have signed it; default: those that the system trusts.
    #[serde(deserialize_with = "given")]
    pub ca: Option<String>,
    /// PEM file with a certificate to show, with `key`.
    #[serde(deserialize_with = "given")]
    pub cert: Option<String>,
    /// PEM file with its private key.
    #[serde(deserialize_with = "given")]
    pub key: Option<String>,
}

/// `health_check` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// What to GET; absent: a connection is enough.
    #[serde(deserialize_with = "given")]
    pub path: Option<String>,
    /// The Host field; default: `tls.sni`, else the address of the node as written.
    #[serde(deserialize_with = "given")]
    pub host: Option<String>,
    /// Between two checks; default 5s.
    pub interval: Duration,
    /// For one check; default 2s.
    pub timeout: Duration,
    /// The status of a success, such as `200`, or a range; default `200-399`.
    #[serde(deserialize_with = "given")]
    pub status: Option<String>,
    /// Successes in a row that bring a node back; default 2.
    pub healthy_after: u32,
    /// Failures in a row that take a node out; default 3.
    pub unhealthy_after: u32,
}

/// `ejection` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row; default 5.
    pub after: u32,
    /// For how long; default 10s.
    #[serde(rename = "for")]
    pub time: Duration,
}

/// One entry of `services`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// A name for logs and metrics, unique in the file.
    #[serde(deserialize_with = "given")]
    pub name: Option<String>,
    /// Hosts such as `api.example` and `*.example`; absent = any host.
    #[serde(deserialize_with = "given")]
    pub hosts: Option<List>,
    /// The name of an upstream, or one written here.
    #[serde(deserialize_with = "given")]
    pub upstream: Option<Use<Upstream>>,
    /// The policy of all its routes that have none of their own.
    #[serde(deserialize_with = "given")]
    pub cors: Option<Cors>,
    /// Absent = one route for every path.
    #[serde(deserialize_with = "given")]
    pub routes: Option<Vec<Route>>,
}

/// One entry of `routes`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// A name for logs and metrics, unique in its service.
    #[serde(deserialize_with = "given")]
    pub name: Option<String>,
    /// Paths such as `/users`, `/users/{id}` and `/users/*`.
    #[serde(deserialize_with = "given")]
    pub paths: Option<List>,
    /// Methods; absent = any.
    #[serde(deserialize_with = "given")]
    pub methods: Option<List>,
    /// What is cut off the front of the path before the upstream sees it.
    #[serde(deserialize_with = "given")]
    pub strip_prefix: Option<String>,
    /// An upstream of its own instead of the service's.
    #[serde(deserialize_with = "given")]
    pub upstream: Option<Use<Upstream>>,
    /// A policy of its own; it counts whole, nothing of the service's is merged in.
    #[serde(deserialize_with = "given")]
    pub cors: Option<Cors>,
}

/// `cors`: a policy, the name of one, or `false`.
#[derive(Debug, Clone, PartialEq)]
pub enum Cors {
    /// `false`: no CORS handling at all.
    Off,
    /// `true`, which means nothing; refused with its place.
    On,
    /// A policy.
    Policy(Use<Settings>),
}

/// Something by its name, or written in place.
#[derive(Debug, Clone, PartialEq)]
pub enum Use<T> {
    /// The name.
    Named(String),
    /// The thing.
    Inline(Box<T>),
}

/// `false`, `true`, or how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toggle<T> {
    /// `false`
    Off,
    /// `true`: as it is by default.
    On,
    /// As written.
    With(T),
}

/// A mapping of names, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T>(pub Vec<(String, T)>);

impl Document {
    /// Reads a text. What cannot be read is among the problems, and left out of the document; None when too little is
    /// left to look for more.
    pub fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        let text = without_mark(text);
        // JSON is YAML, but its own parser is many times as fast; programs write large files, and they write JSON.
        // What that parser does not take is judged as any YAML is.
        if text.trim_start().starts_with('{')
            && let Ok(document) = serde_json::from_str(text)
        {
            return Some(document);
        }
        // An empty file, or one of comments only, is an empty document: what is missing is said later.
        if nests_too_deep(text) {
            problems::note_depth(problems);
            return None;
        }
        match serde_yaml::from_str::<Option<Document>>(text) {
            Ok(document) => Some(document.unwrap_or_default()),
            Err(error) => {
                let document = problems::recover(text, problems);
                // What was refused must not pass because nobody can say why: a key behind an alias stands twice, say.
                if problems.is_empty() {
                    problems::note_unexplained(&error, problems);
                }
                document
            }
        }
    }
}

/// The YAML parser takes time by the square of the open brackets, before it refuses what nests deeper than 128.
/// Brackets in strings are counted too, and no string has so many that nothing closes.
fn nests_too_deep(text: &str) -> bool {
    let mut depth = 0usize;
    text.bytes().any(|b| {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > 1000
    })
}

/// Editors on Windows put a byte order mark in front, which the YAML parser takes for a document of its own.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

// === defaults ===

impl Default for AccessLog {
    fn default() -> Self {
        AccessLog { to: "stdout".into(), format: LogFormat::default(), sample: 1.0, refusals_only: false }
    }
}

impl Default for Server {
    fn default() -> Self {
        Server {
            threads: 0,
            grace_period: Duration::from_secs(10),
            drain_delay: Duration::from_secs(0),
            upgrade_socket: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            uri: Size::from_kib(8),
            headers: Size::from_kib(64),
            header_count: 100,
            body: None,
            keepalive: Duration::from_secs(60),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(60),
            connections: None,
            connections_per_client: None,
            requests_per_connection: None,
            streams: 100,
            stream_idle: Duration::from_secs(300),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(2),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            idle: Duration::from_secs(50),
            total: None,
            websocket: Duration::from_secs(3600),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Node { address: None, weight: 1 }
    }
}

impl Default for ListenerTls {
    fn default() -> Self {
        ListenerTls { certificates: None, min_version: None, http2: true, client_ca: None, client_certificate: None }
    }
}

impl Default for UpstreamTls {
    fn default() -> Self {
        UpstreamTls { sni: None, verify: true, ca: None, cert: None, key: None }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            path: None,
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            status: None,
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Ejection { after: 5, time: Duration::from_secs(10) }
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

// === reading what serde cannot derive ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Use<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UseVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for UseVisitor<T> {
            type Value = Use<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or the thing itself")
            }
            fn visit_str<E>(self, name: &str) -> Result<Use<T>, E> {
                Ok(Use::Named(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Use<T>, A::Error> {
                let inline = T::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Use::Inline(Box::new(inline)))
            }
        }
        deserializer.deserialize_any(UseVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Cors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CorsVisitor;
        impl<'de> Visitor<'de> for CorsVisitor {
            type Value = Cors;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy, the name of one, or `false`")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Cors, E> {
                Ok(if on { Cors::On } else { Cors::Off })
            }
            fn visit_str<E>(self, name: &str) -> Result<Cors, E> {
                Ok(Cors::Policy(Use::Named(name.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cors, A::Error> {
                Use::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Cors::Policy)
            }
        }
        deserializer.deserialize_any(CorsVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToggleVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ToggleVisitor<T> {
            type Value = Toggle<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, or what it should be")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(if on { Toggle::On } else { Toggle::Off })
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Toggle<T>, E> {
                T::deserialize(number.into_deserializer()).map(Toggle::With)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Toggle::With)
            }
        }
        deserializer.deserialize_any(ToggleVisitor(PhantomData))
    }
}
