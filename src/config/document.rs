//! The shape of the configuration file. The doc comments are the reference for users.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Cors, Duration, Named, Size, Toggle, Use};
use crate::cors::Settings;
use crate::notation::{List, forms, given};

/// Where the admin listener is when `admin` does not say.
pub(crate) const ADMIN_ADDRESS: &str = "127.0.0.1:9180";
/// How often a failed request is tried again when `retries` does not say.
pub(crate) const RETRIES: usize = 1;
/// What a health check takes for a success when its `status` does not say.
pub(crate) const HEALTHY_STATUS: &str = "200-399";

/// The configuration file of corsgate.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "corsgate configuration", extend("required" = ["listeners", "services"]))]
pub struct Document {
    /// Where clients connect. A change of addresses needs a restart.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) listeners: Option<Vec<Listener>>,
    /// Where operators connect: health, metrics, status. Without it there is no such listener.
    #[serde(deserialize_with = "given")]
    pub(crate) admin: Option<Admin>,
    /// One line for each request. Without it there is none.
    #[serde(deserialize_with = "given")]
    pub(crate) access_log: Option<AccessLog>,
    /// Whether every response says in `X-Corsgate-Reason` what was decided, and in `X-Request-Id` for which request.
    /// For development.
    pub(crate) debug_header: bool,
    /// The process. A change needs a restart.
    pub(crate) server: Server,
    /// What a client may send, how long it may take, how many connections it may have.
    pub(crate) limits: Limits,
    /// Addresses and networks whose word about a client's address, scheme and host is believed. Without it nobody's is.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Networks")]
    pub(crate) trusted_proxies: Option<List>,
    /// Named lists of origins, for `allow_origin_sets` of any policy.
    #[schemars(with = "Named<forms::NamedOrigins>")]
    pub(crate) origin_sets: Named<List>,
    /// Named policies, for `cors: NAME`.
    pub(crate) cors_policies: Named<Settings>,
    /// Named upstreams, for `upstream: NAME`.
    pub(crate) upstreams: Named<Upstream>,
    /// The policy of every service that has none of its own: a policy, the name of one, or `false` for no CORS handling.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) cors: Option<Cors>,
    /// What is served. The host of a request decides first, then its path, then its method.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) services: Option<Vec<Service>>,
}

/// An address where clients connect, and what they speak there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]), transform = no_redirect_over_tls)]
pub(crate) struct Listener {
    /// IP address and port, such as `0.0.0.0:9080`; `[::]:9080` takes IPv4 too.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::SocketAddress")]
    pub(crate) address: Option<String>,
    /// Certificates, versions, HTTP/2, client certificates. Without it the listener speaks plain HTTP.
    #[serde(deserialize_with = "given")]
    pub(crate) tls: Option<ListenerTls>,
    /// `true` or a port: everything but preflights is sent to https, on port 443 or this one. Not beside `tls`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Toggle<forms::Port>", extend("default" = false))]
    pub(crate) redirect_to_https: Option<Toggle<u16>>,
    /// Whether every connection begins with a PROXY header, version 1 or 2, from one of `trusted_proxies`.
    pub(crate) proxy_protocol: bool,
}

/// TLS with clients. A reload renews all of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"], "dependentRequired" = { "client_certificate": ["client_ca"] }))]
pub(crate) struct ListenerTls {
    /// Chosen by server name: exact, then wildcard, else the first.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) certificates: Option<Vec<Certificate>>,
    /// The lowest version that is spoken.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::TlsVersion", extend("default" = "1.2"))]
    pub(crate) min_version: Option<String>,
    /// Whether HTTP/2 is offered.
    pub(crate) http2: bool,
    /// PEM file with the authorities that must have signed the certificates of clients. Without it clients show none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) client_ca: Option<String>,
    /// Whether a client may come without a certificate. Only beside `client_ca`.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = ClientCertificate::Required))]
    pub(crate) client_certificate: Option<ClientCertificate>,
}

/// `client_certificate` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientCertificate {
    /// No handshake without one.
    Required,
    /// Verified when there is one.
    Optional,
}

/// A certificate with its key: paths of PEM files, from the directory of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(crate) struct Certificate {
    /// PEM file with the chain, the certificate of the server itself first.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) cert: Option<String>,
    /// PEM file with the private key that belongs to it.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) key: Option<String>,
}

/// The listener for operators: a status page, `/refusals`, `/routes`, `/config`, `/metrics`, `/livez` and `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// IP address and port. Keep it on loopback unless only your monitoring can reach it. A change needs a restart.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::SocketAddress", extend("default" = ADMIN_ADDRESS))]
    pub(crate) address: Option<String>,
    /// Names by which it may be asked, such as `corsgate.internal`, beside addresses and `localhost`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Hosts")]
    pub(crate) hosts: Option<List>,
}

/// Where a line for each request goes, and which.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// `stdout`, or the path of a file, from the directory of the configuration; SIGHUP opens it anew.
    #[schemars(with = "forms::FilePath")]
    pub(crate) to: String,
    /// What a line looks like.
    pub(crate) format: LogFormat,
    /// Which part of the requests is written, from 0 for none to 1 for all; refused ones and those with a status
    /// from 500 on always are.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) sample: f64,
    /// Whether only requests that the gateway refuses are written.
    pub(crate) refusals_only: bool,
}

/// `format` of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// An object in each line, for programs.
    #[default]
    Json,
    /// One short line, for people.
    Text,
}

/// The process. A change of any of these needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Threads that serve requests; 0 is one per core.
    #[schemars(range(max = 1024))]
    pub(crate) threads: usize,
    /// The longest that SIGTERM waits for running requests.
    pub(crate) grace_period: Duration,
    /// How long SIGTERM goes on accepting after `/readyz` has turned red.
    pub(crate) drain_delay: Duration,
    /// Where SIGQUIT hands the listening sockets to a process started with `--upgrade`; else a private place.
    #[serde(deserialize_with = "given")]
    #[schemars(length(min = 1, max = 107))]
    pub(crate) upgrade_socket: Option<String>,
}

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// The longest request target, at most `512KiB`; beyond it 414.
    #[schemars(with = "forms::PositiveSize")]
    pub(crate) uri: Size,
    /// The most bytes of request header fields, at most `1MiB`; beyond it 431.
    #[schemars(with = "forms::PositiveSize")]
    pub(crate) headers: Size,
    /// The most request header fields; beyond it 431. Pingora takes no more than 256.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) header_count: usize,
    /// The longest request body; beyond it 413. Without it there is no limit.
    #[serde(deserialize_with = "given")]
    pub(crate) body: Option<Size>,
    /// How long an idle client connection stays open.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) keepalive: Duration,
    /// For a TLS handshake with the first header, and for each later header from its first byte on; beyond it 408.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) header_timeout: Duration,
    /// The longest pause in a request body; in all, this and a second more for each KiB that has come. Beyond it 408.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) body_timeout: Duration,
    /// A client that takes nothing of its response for so long is cut off.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) send_timeout: Duration,
    /// Open client connections in all; beyond them 503. Without it there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) connections: Option<usize>,
    /// Open connections of one client, an address or a /64 of IPv6; beyond them 429. Without it there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) connections_per_client: Option<usize>,
    /// Requests on one connection, which is then closed in an orderly way. Without it there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) requests_per_connection: Option<u32>,
    /// Streams of one HTTP/2 connection at a time.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) streams: u32,
    /// How long nothing may move on an HTTP/2 stream.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) stream_idle: Duration,
}

/// The servers behind a service, and how they are used: an entry of `upstreams`, or written in place.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Upstream", extend("required" = ["nodes"]), transform = hash_needs_a_key)]
pub(crate) struct Upstream {
    /// The servers.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) nodes: Option<Vec<Node>>,
    /// How a node is chosen.
    pub(crate) balance: Balance,
    /// What `balance: hash` hashes: `header:NAME`, `cookie:NAME`, `path` or `client_address`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::HashKey")]
    pub(crate) hash_on: Option<String>,
    /// How long to wait.
    pub(crate) timeouts: Timeouts,
    /// How often a failed request is tried again, on another node. Any method when the connect failed, idempotent ones
    /// also when the node broke off or timed out before its response.
    #[serde(deserialize_with = "given")]
    #[schemars(range(max = 10), extend("default" = RETRIES))]
    pub(crate) retries: Option<usize>,
    /// Whether the nodes are spoken to in HTTP/2, as gRPC needs it.
    pub(crate) http2: bool,
    /// TLS to the nodes. Without it they are spoken to in plain HTTP.
    #[serde(deserialize_with = "given")]
    pub(crate) tls: Option<UpstreamTls>,
    /// Active health checks. Without it there are none.
    #[serde(deserialize_with = "given")]
    pub(crate) health_check: Option<HealthCheck>,
    /// After how many failing requests in a row a node is left out, and for how long; `true` for the defaults of its
    /// keys, `false` for never.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = true))]
    pub(crate) ejection: Option<Toggle<Ejection>>,
    /// Over what time a node that comes back gets its share. Without it at once.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) slow_start: Option<Duration>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct Node {
    /// Host and port. A name is resolved in the background, again and again.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::NodeAddress")]
    pub(crate) address: Option<String>,
    /// Its share of the requests; 0 for none.
    #[schemars(range(max = 1000))]
    pub(crate) weight: u32,
}

/// How a node is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
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

/// How long an upstream is waited for. Times without anything happening, but for `connect` and `total`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// For a new connection.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) connect: Duration,
    /// Between two reads of a response.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) read: Duration,
    /// Between two writes of a request.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) write: Duration,
    /// How long an unused connection is kept. Keep it below the upstream's own.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) idle: Duration,
    /// For a whole request, all tries included, WebSockets excepted. Without it there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) total: Option<Duration>,
    /// How long nothing may move on a WebSocket, in either direction.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) websocket: Duration,
}

/// TLS with the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "cert": ["key"], "key": ["cert"] }))]
pub(crate) struct UpstreamTls {
    /// The name to ask for and to verify; else each node's own.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::ServerName")]
    pub(crate) sni: Option<String>,
    /// Whether the certificate is verified. If it is not, whoever sits between can read and change everything.
    pub(crate) verify: bool,
    /// PEM file with the authorities that must have signed it; else those that the system trusts.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) ca: Option<String>,
    /// PEM file with a certificate to show, with `key`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) cert: Option<String>,
    /// PEM file with the private key of `cert`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) key: Option<String>,
}

/// How nodes are asked whether they can serve.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "host": ["path"], "status": ["path"] }))]
pub(crate) struct HealthCheck {
    /// What to GET. Without it a connection is enough.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Target")]
    pub(crate) path: Option<String>,
    /// The Host field; else `tls.sni`, else the address of the node as written.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Authority")]
    pub(crate) host: Option<String>,
    /// Between two checks.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) interval: Duration,
    /// For one check.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) timeout: Duration,
    /// The status of a success, such as `200`, or a range.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Statuses", extend("default" = HEALTHY_STATUS))]
    pub(crate) status: Option<String>,
    /// Successes in a row that bring a node back.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) healthy_after: u32,
    /// Failures in a row that take a node out.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) unhealthy_after: u32,
}

/// When requests that fail take a node out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ejection {
    /// Failures in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) after: u32,
    /// For how long.
    #[serde(rename = "for")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) time: Duration,
}

/// Hosts, and what serves them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]), transform = upstream_here_or_on_every_route)]
pub(crate) struct Service {
    /// A name for logs and metrics, unique in the file.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Name")]
    pub(crate) name: Option<String>,
    /// Hosts such as `api.example` and `*.api.example`. Without it any host.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Hosts")]
    pub(crate) hosts: Option<List>,
    /// The name of an upstream, or one written here. Required unless every route has its own.
    #[serde(deserialize_with = "given")]
    pub(crate) upstream: Option<Use<Upstream>>,
    /// The policy of all its routes that have none of their own: a policy, the name of one, or `false` for no CORS
    /// handling; else the top level's.
    #[serde(deserialize_with = "given")]
    pub(crate) cors: Option<Cors>,
    /// What is done at which path. Without it the service is one route for every path.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) routes: Option<Vec<Route>>,
}

/// Paths and methods, and what is done with their requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["paths"]))]
pub(crate) struct Route {
    /// A name for logs and metrics, unique in its service; else the first path.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Name")]
    pub(crate) name: Option<String>,
    /// Paths such as `/users`, `/users/{id}` (one segment) and `/users/*` (`/users` and all below, never `/usersx`).
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Paths")]
    pub(crate) paths: Option<List>,
    /// Methods, as clients write them. `HEAD` is a method of its own. Without it any.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::RouteMethods")]
    pub(crate) methods: Option<List>,
    /// What is cut off the front of the path before the upstream sees it, at a segment.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Prefix")]
    pub(crate) strip_prefix: Option<String>,
    /// An upstream of its own, by name or written here; else the service's.
    #[serde(deserialize_with = "given")]
    pub(crate) upstream: Option<Use<Upstream>>,
    /// A policy of its own, by name or written here, or `false`. It counts whole: nothing of the service's is merged in.
    #[serde(deserialize_with = "given")]
    pub(crate) cors: Option<Cors>,
}

impl Document {
    /// The policy that a `cors` means; None: none, or none of that name.
    pub(crate) fn settings<'d>(&'d self, cors: &'d Cors) -> Option<&'d Settings> {
        match cors {
            Cors::Off | Cors::On => None,
            Cors::Policy(Use::Inline(settings)) => Some(settings),
            Cors::Policy(Use::Named(name)) => {
                self.cors_policies.0.iter().find(|(known, _)| known == name).map(|(_, settings)| settings)
            }
        }
    }
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

// === rules of the schema that no type says ===

fn no_redirect_over_tls(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "required": ["tls"] }));
    schema.insert("then".into(), json!({ "properties": { "redirect_to_https": { "const": false } } }));
}

/// `balance: hash` and `hash_on` need each other.
fn hash_needs_a_key(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "balance": { "const": "hash" } }, "required": ["balance"] }));
    schema.insert("then".into(), json!({ "required": ["hash_on"] }));
    schema.insert("else".into(), json!({ "properties": { "hash_on": false } }));
}

fn upstream_here_or_on_every_route(schema: &mut Schema) {
    let of_routes = json!({ "items": { "required": ["upstream"] } });
    let every = json!({ "required": ["routes"], "properties": { "routes": of_routes } });
    schema.insert("anyOf".into(), json!([{ "required": ["upstream"] }, every]));
}
