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
use serde::de::{Deserializer, MapAccess, Visitor};

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
    /// Where operators connect: health, later metrics and status.
    #[serde(deserialize_with = "given")]
    pub admin: Option<Admin>,
    /// The process. A change needs a restart.
    pub server: Server,
    /// What a client may send.
    pub limits: Limits,
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
}

/// `tls` of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// Chosen by server name, the first is the default.
    #[serde(deserialize_with = "given")]
    pub certificates: Option<Vec<Certificate>>,
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
    /// IP address and port; default `127.0.0.1:9180`.
    #[serde(deserialize_with = "given")]
    pub address: Option<String>,
}

/// `server`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Threads that serve requests; 0 (default) = one per core.
    pub threads: usize,
    /// The longest that SIGTERM waits for running requests; default 10s.
    pub grace_period: Duration,
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
    /// What `balance: hash` hashes.
    #[serde(deserialize_with = "given")]
    pub hash_on: Option<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often a failed connect is tried again, on the next node; 0 to 10, default 1.
    #[serde(deserialize_with = "given")]
    pub retries: Option<usize>,
    /// TLS to the nodes; absent = plain HTTP.
    #[serde(deserialize_with = "given")]
    pub tls: Option<UpstreamTls>,
    /// Active health checks; absent = none.
    #[serde(deserialize_with = "given")]
    pub health_check: Option<HealthCheck>,
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
}

/// `tls` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The name to ask for and to verify.
    #[serde(deserialize_with = "given")]
    pub sni: Option<String>,
    /// Whether the certificate is verified; default true.
    pub verify: bool,
}

/// `health_check` of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// What to GET.
    #[serde(deserialize_with = "given")]
    pub path: Option<String>,
    /// How often.
    #[serde(deserialize_with = "given")]
    pub interval: Option<Duration>,
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

impl Default for Server {
    fn default() -> Self {
        Server { threads: 0, grace_period: Duration::from_secs(10) }
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
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Node { address: None, weight: 1 }
    }
}

impl Default for UpstreamTls {
    fn default() -> Self {
        UpstreamTls { sni: None, verify: true }
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
