//! The shape of the configuration file. The doc comments here and in `src/cors/settings.rs` are the reference for
//! users: `docs/reference.md` and the JSON schema are made from them.
//!
//! The `Default` implementations have the defaults. The reference adds them to each key, so the comments do not repeat
//! them.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Cors, Expectation};
use crate::behavior::answer::{RedirectSettings, RespondSettings};
use crate::behavior::clients::ClientSettings;
use crate::behavior::compression::CompressionSettings;
use crate::behavior::forward_auth::ForwardAuthSettings;
use crate::behavior::headers::{RequestHeaderSettings, ResponseHeaderSettings};
use crate::behavior::rate_limit::RateLimitSettings;
use crate::behavior::rewrite::PathSettings;
use crate::behavior::split::SplitSettings;
use crate::cors::Settings;
use crate::notation::{Duration, List, Named, OffOr, Size, Toggle, Use, forms, given};

/// Default of `admin.address`.
pub(crate) const ADMIN_ADDRESS: &str = "127.0.0.1:9180";
/// Default of `retries`.
pub(crate) const RETRIES: usize = 1;
/// Default of `health_check.status`.
pub(crate) const HEALTHY_STATUS: &str = "200-399";

/// The configuration file of corsgate.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "corsgate configuration", extend("anyOf" = [{ "required": ["listeners", "services"] }, { "required": ["source"] }]))]
pub struct Document {
    /// Where the rest of the configuration is, if it is not in this file. A change needs a restart.
    #[serde(deserialize_with = "given")]
    pub(crate) source: Option<RemoteSource>,
    /// Addresses on which clients connect. A changed address needs a restart; all other settings of a listener are
    /// reloaded.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) listeners: Option<Vec<Listener>>,
    /// The admin listener, for operators: health, metrics and status. Without this key there is no admin listener.
    #[serde(deserialize_with = "given")]
    pub(crate) admin: Option<Admin>,
    /// The access log: one line per request. Without this key there is no access log.
    #[serde(deserialize_with = "given")]
    pub(crate) access_log: Option<AccessLog>,
    /// Replaces `${NAME}` in values by the environment variable. `$${` stands for `${`. Keys, and texts in a block (`|`
    /// or `>`), are not changed. Without this key `${` is text.
    pub(crate) environment: bool,
    /// Adds `X-Corsgate-Reason` (the code of the decision) and `X-Request-Id` to every response. For development.
    pub(crate) debug_header: bool,
    /// Threads, graceful shutdown and upgrade of the process. A change needs a restart.
    pub(crate) server: Server,
    /// Limits on requests and client connections: sizes, timeouts and numbers.
    pub(crate) limits: Limits,
    /// IP addresses and networks of proxies in front of corsgate, and `unix` for the peers of Unix-domain sockets. From
    /// these peers `X-Forwarded-*` and `Forwarded` are trusted: the client's address, and scheme, host and port of its
    /// URL. Without this key no peer is trusted.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::TrustedPeers")]
    pub(crate) trusted_proxies: Option<List>,
    /// Request header fields with an underscore in their name. Many services cannot tell `X_Id` from `X-Id`.
    pub(crate) underscores_in_headers: UnderscoresInHeaders,
    /// Named lists of origins. A policy uses them with `allow_origin_sets`.
    #[schemars(with = "Named<forms::NamedOrigins>")]
    pub(crate) origin_sets: Named<List>,
    /// Named policies. A service or route uses one with `cors: NAME`.
    pub(crate) cors_policies: Named<Settings>,
    /// Named upstreams. A service or route uses one with `upstream: NAME`.
    pub(crate) upstreams: Named<Upstream>,
    /// The policy of every service that has no `cors` of its own: a policy, the name of one, or `false` for no CORS
    /// handling.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) cors: Option<Cors>,
    /// The services. A request is routed by its host, then by its path, then by its method.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) services: Option<Vec<Service>>,
    /// Requests of pages, with the results that this configuration must give. They are checked at start, at each reload
    /// and by `corsgate check`; if one fails, the configuration is refused.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) expect: Option<Vec<Expectation>>,
    /// Files with further expectations, each with a list under `expect:`. Paths are relative to the directory of this
    /// file.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePaths")]
    pub(crate) expect_files: Option<List>,
}

impl Document {
    /// Whether the document has expectations, or names files with expectations.
    pub(crate) fn has_expectations(&self) -> bool {
        self.expect.is_some() || self.expect_files.is_some()
    }
}

/// Where the rest of the configuration is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["etcd"]))]
pub(crate) struct RemoteSource {
    /// An etcd cluster, version 3.4 or later. The keys are `PREFIX/services/NAME`, `PREFIX/upstreams/NAME`,
    /// `PREFIX/cors_policies/NAME`, `PREFIX/origin_sets/NAME` and `PREFIX/settings`. Their values are YAML or JSON.
    #[serde(deserialize_with = "given")]
    pub(crate) etcd: Option<EtcdSettings>,
}

/// An etcd cluster with the services, upstreams, policies and origin sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoints"], "dependentRequired" = { "user": ["password_file"], "password_file": ["user"] }))]
pub(crate) struct EtcdSettings {
    /// Members of the cluster: `HOST:PORT`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Endpoints")]
    pub(crate) endpoints: Option<List>,
    /// What all keys begin with.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = "/corsgate"))]
    pub(crate) prefix: Option<String>,
    /// The program whose keys these are. The keys of `apisix` are only read; the prefix of APISIX is `/apisix`.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = "corsgate"))]
    pub(crate) format: Option<EtcdFormat>,
    /// TLS to the members. An empty mapping uses the root certificates of this machine. Without this key the connections
    /// are plain.
    #[serde(deserialize_with = "given")]
    pub(crate) tls: Option<EtcdTls>,
    /// User of etcd. Needs `password_file`.
    #[serde(deserialize_with = "given")]
    pub(crate) user: Option<String>,
    /// File with the password of the user. White space at its end is not part of the password.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) password_file: Option<String>,
    /// File that keeps the last accepted state, for a start without etcd. Without this key it is in `$STATE_DIRECTORY`, or
    /// there is none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) cache: Option<String>,
}

/// Whose keys are in etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EtcdFormat {
    #[default]
    Corsgate,
    Apisix,
}

/// TLS to etcd. Paths are relative to the directory of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "certificate": ["key"], "key": ["certificate"] }))]
pub(crate) struct EtcdTls {
    /// PEM file with the certificate authorities of the members. Without this key the root certificates of this machine
    /// are used.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) ca: Option<String>,
    /// PEM file with the client certificate.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) certificate: Option<String>,
    /// PEM file with the private key of the client certificate.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) key: Option<String>,
}

/// `underscores_in_headers`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnderscoresInHeaders {
    /// The upstream does not receive such a field. A metric counts them.
    #[default]
    Drop,
    /// The upstream receives it, unless it looks like a field that only a trusted proxy may send, such as
    /// `X_Forwarded_For`.
    Keep,
}

/// An address on which clients connect, and the protocol that is spoken there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]), transform = keys_without_tls)]
pub(crate) struct Listener {
    /// IP address and port, such as `0.0.0.0:9080`, or `unix:` with the path of a Unix-domain socket, relative to the
    /// directory of this file. `[::]:9080` accepts IPv4 connections too.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::ListenAddress")]
    pub(crate) address: Option<String>,
    /// Permissions of the Unix-domain socket, in octal. A change needs a restart.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FileMode", extend("default" = "0660"))]
    pub(crate) mode: Option<String>,
    /// TLS with clients: certificates, versions, HTTP/2 and client certificates. Without this key the listener speaks
    /// plain HTTP.
    #[serde(deserialize_with = "given")]
    pub(crate) tls: Option<ListenerTls>,
    /// Accepts HTTP/2 without TLS (h2c) from clients that begin with it, such as gRPC clients; HTTP/1 is accepted as
    /// well. Cannot be combined with `tls`, which has its own `http2`.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) http2: Option<bool>,
    /// Redirects every request to https, except preflights and `/.well-known/acme-challenge/`. `true` redirects to port
    /// 443; a number is another port.
    /// Cannot be combined with `tls`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Toggle<forms::Port>", extend("default" = false))]
    pub(crate) redirect_to_https: Option<Toggle<u16>>,
    /// If `true`, every connection must begin with a PROXY header, version 1 or 2, and must come from one of
    /// `trusted_proxies`.
    pub(crate) proxy_protocol: bool,
    /// Clients that may send requests on this listener. A route can only refuse further clients.
    #[serde(deserialize_with = "given")]
    pub(crate) clients: Option<ClientSettings>,
}

/// TLS with clients. All keys are reloaded, and so are the files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"], "dependentRequired" = { "client_certificate": ["client_ca"] }))]
pub(crate) struct ListenerTls {
    /// Certificates with their keys. The client's server name (SNI) selects one: an exact name, then a wildcard, else
    /// the first of the list.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) certificates: Option<Vec<Certificate>>,
    /// The lowest TLS version that is accepted.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::TlsVersion", extend("default" = "1.2"))]
    pub(crate) min_version: Option<String>,
    /// Offers HTTP/2 to clients (ALPN).
    pub(crate) http2: bool,
    /// PEM file with the certificate authorities for client certificates. Without this key clients are not asked for a
    /// certificate.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) client_ca: Option<String>,
    /// Whether clients must present a certificate. Needs `client_ca`.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = ClientCertificate::Required))]
    pub(crate) client_certificate: Option<ClientCertificate>,
}

/// `client_certificate` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientCertificate {
    /// Without a valid certificate the handshake fails.
    Required,
    /// A client may present no certificate. A certificate that it presents is verified.
    Optional,
}

/// A certificate and its private key, both as PEM files. Paths are relative to the directory of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(crate) struct Certificate {
    /// PEM file with the certificate chain, the server's own certificate first.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) cert: Option<String>,
    /// PEM file with the private key of the certificate.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) key: Option<String>,
}

/// The listener for operators: a status page, `/refusals`, `/routes`, `/config`, `/metrics`, `/livez`, `/readyz`,
/// `/observe`, the pages `/ui/`, and the write API `/api/v1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "dangerously_allow_remote_write": ["write"] }))]
pub(crate) struct Admin {
    /// IP address and port. Use a loopback address unless only your monitoring can reach the port. A change needs a
    /// restart.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::SocketAddress", extend("default" = ADMIN_ADDRESS))]
    pub(crate) address: Option<String>,
    /// Host names that requests to this listener may use, such as `corsgate.internal`. IP addresses and `localhost` are
    /// always accepted.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Hosts")]
    pub(crate) hosts: Option<List>,
    /// File with the hashes of the tokens that may use the write API, one line for each token: `corsgate token` makes
    /// them. Without this key there is no write API. Needs an `address` on loopback.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) write: Option<String>,
    /// Allows `write` on an `address` that other machines can reach. Tokens and changes then cross the network without
    /// encryption. Needs `write`.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) dangerously_allow_remote_write: Option<bool>,
}

/// The access log: one line per request.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// `stdout`, or the path of a file, relative to the directory of the configuration file. SIGHUP reopens the file.
    #[schemars(with = "forms::FilePath")]
    pub(crate) to: String,
    /// The form of a line.
    pub(crate) format: LogFormat,
    /// The part of the requests that is logged, from 0 (none) to 1 (all). Refused requests, those that a `report_only`
    /// policy would refuse, and requests with a status of 500 or more are always logged.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) sample: f64,
    /// Logs only the requests that the gateway refuses, and those that a `report_only` policy would refuse.
    pub(crate) refusals_only: bool,
}

/// `format` of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// One JSON object per line, for programs.
    #[default]
    Json,
    /// One short line of text, for people.
    Text,
}

/// Threads, graceful shutdown and upgrade of the process. A change of any of these keys needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Number of threads that serve requests. 0 means one per core.
    #[schemars(range(max = 1024))]
    pub(crate) threads: usize,
    /// After SIGTERM: the longest time to wait for requests in progress.
    pub(crate) grace_period: Duration,
    /// After SIGTERM: the time in which connections are still accepted, while `/readyz` already fails.
    pub(crate) drain_delay: Duration,
    /// Unix socket through which SIGQUIT hands the listening sockets to a process started with `--upgrade`. Without
    /// this key it is in `$RUNTIME_DIRECTORY`, or in a private directory.
    #[serde(deserialize_with = "given")]
    #[schemars(length(min = 1, max = 107))]
    pub(crate) upgrade_socket: Option<String>,
}

/// Limits on requests and client connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Longest request target in bytes, at most `63KiB`. A longer one gets 414.
    #[schemars(with = "forms::PositiveSize")]
    pub(crate) uri: Size,
    /// Largest total size of the request header fields, at most `1MiB`. More gets 431.
    #[schemars(with = "forms::PositiveSize")]
    pub(crate) headers: Size,
    /// Largest number of request header fields. More gets 431. The maximum of 256 is Pingora's.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) header_count: usize,
    /// Largest request body. A larger one gets 413. Without this key there is no limit.
    #[serde(deserialize_with = "given")]
    pub(crate) body: Option<Size>,
    /// Longest idle time of a client connection between two requests. After that it is closed.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) keepalive: Duration,
    /// Time for the TLS handshake and the first request header together, and for each later header from its first byte
    /// on. A slower client gets 408.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) header_timeout: Duration,
    /// Longest pause in a request body. The whole body may take this time plus one second for each KiB received. A
    /// slower client gets 408.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) body_timeout: Duration,
    /// Longest time in which a client reads nothing of its response. After that the connection is closed.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) send_timeout: Duration,
    /// Largest number of open client connections. Above it a request gets 503 and its connection is closed. Without
    /// this key the limit is one connection for each MiB of memory, of the control group or of the machine.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) connections: Option<usize>,
    /// Largest number of open connections per client; a client is an IPv4 address or an IPv6 /64. Above it a request
    /// gets 429 and its connection is closed. Without this key there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) connections_per_client: Option<usize>,
    /// Largest number of requests on one connection. After the last one the connection is closed gracefully. Without
    /// this key there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub(crate) requests_per_connection: Option<u32>,
    /// Longest age of a client connection, less a random part of up to a tenth. An older connection is closed
    /// gracefully: HTTP/1 with `Connection: close` in its next response, HTTP/2 with GOAWAY. Running requests and
    /// WebSockets go on. Without this key there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) connection_age: Option<Duration>,
    /// Largest number of concurrent streams on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) streams: u32,
    /// Longest time in which an HTTP/2 stream makes no progress. After that it is reset.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) stream_idle: Duration,
}

/// The servers behind a service, and how corsgate uses them: an entry of `upstreams`, or written inside a service or
/// route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(
    title = "Upstream",
    extend("required" = ["nodes"], "dependentRequired" = { "queue": ["max_connections"] }),
    transform = hash_needs_a_key
)]
pub(crate) struct Upstream {
    /// The servers. At least one needs a weight above 0.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) nodes: Option<Vec<Node>>,
    /// Method by which a node is chosen for a request.
    pub(crate) balance: Balance,
    /// The key of `balance: hash`: `header:NAME`, `cookie:NAME`, `path` (without the query) or `client_address`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::HashKey")]
    pub(crate) hash_on: Option<String>,
    /// Longest times to wait for a node.
    pub(crate) timeouts: Timeouts,
    /// Largest number of retries of a failed request, each on another node. Any method is retried if the connection
    /// failed; idempotent methods also if the connection broke or timed out before the response.
    #[serde(deserialize_with = "given")]
    #[schemars(range(max = 10), extend("default" = RETRIES))]
    pub(crate) retries: Option<usize>,
    /// Uses HTTP/2 to the nodes. gRPC requires it.
    pub(crate) http2: bool,
    /// TLS to the nodes. Without this key the connections are plain HTTP.
    #[serde(deserialize_with = "given")]
    pub(crate) tls: Option<UpstreamTls>,
    /// Active health checks of the nodes. Without this key there are none.
    #[serde(deserialize_with = "given")]
    pub(crate) health_check: Option<HealthCheck>,
    /// Passive health checks: a node is not used for some time after a number of failed requests in a row. `true` uses
    /// the defaults of the keys, `false` switches ejection off.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = true))]
    pub(crate) ejection: Option<Toggle<Ejection>>,
    /// Time in which a returning node reaches its full share of the requests. Without this key it gets its full share
    /// at once.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) slow_start: Option<Duration>,
    /// Begins each connection to a node with a PROXY header of this version, which has the client's address. Then a
    /// connection is kept for the requests of one client connection. Without this key connections have no such header.
    #[serde(deserialize_with = "given")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Largest number of concurrent requests at each address of a node; a WebSocket counts until it ends. A node with
    /// this number gets no request. If no node is left, the request waits in the `queue`, or gets 503. Without this key
    /// there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_connections: Option<usize>,
    /// Queue for requests while all nodes have `max_connections` requests. Without this key no request waits. Needs
    /// `max_connections`.
    #[serde(deserialize_with = "given")]
    pub(crate) queue: Option<Queue>,
}

/// Version of the PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Requests that wait for a node, in the order of their arrival.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Queue {
    /// Largest number of waiting requests. A further one gets 503.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) length: usize,
    /// Longest time for which a request waits. After that it gets 503.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) timeout: Duration,
}

/// A server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(crate) struct Node {
    /// Host and port, or `unix:` with the path of a Unix-domain socket, relative to the directory of this file. A host
    /// name is resolved at start, when a reload adds it, and every 5 s, never during a request.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::NodeAddress")]
    pub(crate) address: Option<String>,
    /// Share of the requests, relative to the other nodes. 0 means none.
    #[schemars(range(max = 1000))]
    pub(crate) weight: u32,
}

/// Method by which a node is chosen for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The node with the fewest active requests for its weight.
    LeastConnections,
    /// The same node for the same value of `hash_on`.
    Hash,
}

/// Longest times to wait for a node. `connect` and `total` limit a whole step; the other keys limit the time without
/// progress.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// Longest time to open a connection, with its TLS handshake.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) connect: Duration,
    /// Longest time between two reads of a response.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) read: Duration,
    /// Longest time between two writes of a request.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) write: Duration,
    /// Time for which an unused connection is kept open. Choose a shorter time than the upstream's own keepalive
    /// timeout.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) idle: Duration,
    /// Longest time for a whole request, with all retries. For a WebSocket, the longest time until the response begins.
    /// Without this key there is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) total: Option<Duration>,
    /// Longest idle time of a WebSocket in both directions.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) websocket: Duration,
}

/// TLS to the nodes of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "cert": ["key"], "key": ["cert"] }))]
pub(crate) struct UpstreamTls {
    /// Host name to send as server name (SNI) and to verify. Without this key it is the host of each node's address.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::ServerName")]
    pub(crate) sni: Option<String>,
    /// Verifies the certificates of the nodes. With `false`, an attacker between corsgate and a node can read and
    /// change all data.
    pub(crate) verify: bool,
    /// PEM file with the certificate authorities for the nodes. Without this key the root certificates of the machine
    /// are used, or those of SSL_CERT_FILE and SSL_CERT_DIR.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) ca: Option<String>,
    /// PEM file with the client certificate of corsgate. Needs `key`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) cert: Option<String>,
    /// PEM file with the private key of `cert`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FilePath")]
    pub(crate) key: Option<String>,
}

/// Active health checks: corsgate sends requests to every node to find out whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("dependentRequired" = { "host": ["path"], "status": ["path"] }))]
pub(crate) struct HealthCheck {
    /// Path of the GET request that checks a node. Without this key a check only opens a connection.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Target")]
    pub(crate) path: Option<String>,
    /// `Host` header of the check. Without this key it is `tls.sni`, else the address of the node. Needs `path`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Authority")]
    pub(crate) host: Option<String>,
    /// Time between two checks of a node.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) interval: Duration,
    /// Longest time for one check.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) timeout: Duration,
    /// Statuses that count as success: one such as `200`, or a range. Needs `path`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Statuses", extend("default" = HEALTHY_STATUS))]
    pub(crate) status: Option<String>,
    /// Successes in a row after which a node is used again.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) healthy_after: u32,
    /// Failures in a row after which a node is not used.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) unhealthy_after: u32,
}

/// Passive health checks: a node with several failed requests in a row is not used for some time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ejection {
    /// Failed requests in a row after which the node is not used.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) after: u32,
    /// Time for which the node is not used.
    #[serde(rename = "for")]
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) time: Duration,
}

/// A set of hosts with an upstream, a policy and routes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]), transform = end_here_or_on_every_route)]
pub(crate) struct Service {
    /// Name in logs and metrics, unique in the file.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Name")]
    pub(crate) name: Option<String>,
    /// Hosts such as `api.example` and `*.api.example`. Without this key the service takes every host that no other
    /// service has.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Hosts")]
    pub(crate) hosts: Option<List>,
    /// The name of an upstream, or an upstream. Required unless every route has its own, or ends with `split`, `respond`
    /// or `redirect`.
    #[serde(deserialize_with = "given")]
    pub(crate) upstream: Option<Use<Upstream>>,
    /// Several upstreams that share the requests, instead of one upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) split: Option<SplitSettings>,
    /// A fixed response of the gateway, instead of an upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) respond: Option<RespondSettings>,
    /// A redirect, instead of an upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) redirect: Option<RedirectSettings>,
    /// The policy of the routes that have no `cors` of their own: a policy, the name of one, or `false` for no CORS
    /// handling. Without this key the `cors` of the top level applies.
    #[serde(deserialize_with = "given")]
    pub(crate) cors: Option<Cors>,
    /// Clients that may send requests. Without this key all clients may.
    #[serde(deserialize_with = "given")]
    pub(crate) clients: Option<ClientSettings>,
    /// Limit of accepted requests, for all routes without their own `rate_limit` together. Without this key there is no
    /// limit.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) rate_limit: Option<OffOr<RateLimitSettings>>,
    /// Authentication by a service. corsgate asks the service about each request before it forwards the request.
    /// `false` for none. Without this key there is none.
    #[serde(deserialize_with = "given")]
    pub(crate) forward_auth: Option<OffOr<ForwardAuthSettings<Use<Upstream>>>>,
    /// Changes of the path for the upstream. Without this key it does not change.
    #[serde(deserialize_with = "given")]
    pub(crate) path: Option<PathSettings>,
    /// `Host` of the request that the upstream gets: `pass` for the client's, `node` for the address of the node, or a
    /// host name. `X-Forwarded-Host` has the client's. Without this key it is the client's.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::UpstreamHost", extend("default" = "pass"))]
    pub(crate) upstream_host: Option<String>,
    /// Edits of the request header for the upstream. Those of a route come after them.
    #[serde(deserialize_with = "given")]
    pub(crate) request_headers: Option<RequestHeaderSettings>,
    /// Edits of each response header of its routes, also of the gateway's own replies. Those of a route come after them.
    #[serde(deserialize_with = "given")]
    pub(crate) response_headers: Option<ResponseHeaderSettings>,
    /// Compression of the responses of the upstream, for clients that accept it. `true` uses the defaults of the keys.
    /// Without this key nothing is compressed.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = false))]
    pub(crate) compression: Option<Toggle<CompressionSettings>>,
    /// Routes of the service. Without this key the service has one route for every path.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub(crate) routes: Option<Vec<Route>>,
}

/// Paths and methods with their own settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["paths"]))]
pub(crate) struct Route {
    /// Name in logs and metrics, unique in the service. Without this key it is the first path.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Name")]
    pub(crate) name: Option<String>,
    /// Paths such as `/users`, `/users/{id}` (one segment) and `/users/*` (`/users` and everything below it, never
    /// `/usersx`).
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Paths")]
    pub(crate) paths: Option<List>,
    /// Methods, in upper case. `GET` includes `HEAD`, unless another route of the path lists it. Without this key the route
    /// takes every method that no other route of the path lists, except `TRACE`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::RouteMethods")]
    pub(crate) methods: Option<List>,
    /// Whether a route that lists `GET` also takes `HEAD`. `false` is for an upstream that answers `HEAD` wrongly, or does
    /// all the work of a `GET` for it.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("default" = true))]
    pub(crate) get_implies_head: Option<bool>,
    /// Short form of `path.strip_prefix`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Prefix")]
    pub(crate) strip_prefix: Option<String>,
    /// The name of an upstream, or an upstream. Without this key the upstream of the service is used.
    #[serde(deserialize_with = "given")]
    pub(crate) upstream: Option<Use<Upstream>>,
    /// Several upstreams that share the requests, instead of one upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) split: Option<SplitSettings>,
    /// A fixed response of the gateway, instead of an upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) respond: Option<RespondSettings>,
    /// A redirect, instead of an upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) redirect: Option<RedirectSettings>,
    /// The policy of this route: a policy, the name of one, or `false` for no CORS handling. It replaces the policy of
    /// the service as a whole; policies are never merged.
    #[serde(deserialize_with = "given")]
    pub(crate) cors: Option<Cors>,
    /// Clients that may send requests. Without this key the `clients` of the service apply.
    #[serde(deserialize_with = "given")]
    pub(crate) clients: Option<ClientSettings>,
    /// Limit of accepted requests, or `false` for no limit. Without this key the route shares the limit of the service.
    #[serde(deserialize_with = "given")]
    pub(crate) rate_limit: Option<OffOr<RateLimitSettings>>,
    /// Authentication by a service. corsgate asks the service about each request before it forwards the request.
    /// `false` for none. Without this key that of the service applies.
    #[serde(deserialize_with = "given")]
    pub(crate) forward_auth: Option<OffOr<ForwardAuthSettings<Use<Upstream>>>>,
    /// Changes of the path for the upstream. Without this key that of the service applies.
    #[serde(deserialize_with = "given")]
    pub(crate) path: Option<PathSettings>,
    /// `Host` of the request that the upstream gets: `pass` for the client's, `node` for the address of the node, or a
    /// host name. `X-Forwarded-Host` has the client's. Without this key the key of the service applies.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::UpstreamHost")]
    pub(crate) upstream_host: Option<String>,
    /// Edits of the request header for the upstream. They come after those of the service.
    #[serde(deserialize_with = "given")]
    pub(crate) request_headers: Option<RequestHeaderSettings>,
    /// Edits of each response header of the route, also of the gateway's own replies. They come after those of the
    /// service.
    #[serde(deserialize_with = "given")]
    pub(crate) response_headers: Option<ResponseHeaderSettings>,
    /// Compression of the responses of the upstream, for clients that accept it. `true` uses the defaults of the keys,
    /// `false` compresses nothing. Without this key that of the service applies.
    #[serde(deserialize_with = "given")]
    pub(crate) compression: Option<Toggle<CompressionSettings>>,
}

/// The keys of behaviors, which a service and a route have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct BehaviorKeys<'d> {
    pub(crate) clients: Option<&'d ClientSettings>,
    pub(crate) rate_limit: Option<&'d OffOr<RateLimitSettings>>,
    pub(crate) forward_auth: Option<&'d OffOr<ForwardAuthSettings<Use<Upstream>>>>,
    /// The short form of `path.strip_prefix`, which only a route has.
    pub(crate) strip_prefix: Option<&'d str>,
    pub(crate) path: Option<&'d PathSettings>,
    pub(crate) upstream_host: Option<&'d str>,
    pub(crate) request_headers: Option<&'d RequestHeaderSettings>,
    pub(crate) response_headers: Option<&'d ResponseHeaderSettings>,
    pub(crate) compression: Option<&'d Toggle<CompressionSettings>>,
}

/// The keys for the destination of requests. A service or a route has one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct EndKeys<'d> {
    pub(crate) upstream: Option<&'d Use<Upstream>>,
    pub(crate) split: Option<&'d SplitSettings>,
    pub(crate) respond: Option<&'d RespondSettings>,
    pub(crate) redirect: Option<&'d RedirectSettings>,
}

macro_rules! common_keys {
    ($owner:ident, |$this:ident| $strip_prefix:expr) => {
        impl $owner {
            pub(crate) fn behaviors(&self) -> BehaviorKeys<'_> {
                let $this = self;
                BehaviorKeys {
                    clients: self.clients.as_ref(),
                    rate_limit: self.rate_limit.as_ref(),
                    forward_auth: self.forward_auth.as_ref(),
                    strip_prefix: $strip_prefix,
                    path: self.path.as_ref(),
                    upstream_host: self.upstream_host.as_deref(),
                    request_headers: self.request_headers.as_ref(),
                    response_headers: self.response_headers.as_ref(),
                    compression: self.compression.as_ref(),
                }
            }

            pub(crate) fn ends(&self) -> EndKeys<'_> {
                EndKeys {
                    upstream: self.upstream.as_ref(),
                    split: self.split.as_ref(),
                    respond: self.respond.as_ref(),
                    redirect: self.redirect.as_ref(),
                }
            }
        }
    };
}

common_keys!(Service, |_service| None);
common_keys!(Route, |route| route.strip_prefix.as_deref());

impl Document {
    /// Returns the policy of the value of a `cors` key. None for `true`, `false` and unknown names.
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
            connection_age: None,
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

impl Default for Queue {
    fn default() -> Self {
        Queue { length: 100, timeout: Duration::from_secs(1) }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Ejection { after: 5, time: Duration::from_secs(10) }
    }
}

// === rules of the schema that no type says ===

fn keys_without_tls(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "required": ["tls"] }));
    let then = json!({ "properties": { "redirect_to_https": { "const": false }, "http2": false } });
    schema.insert("then".into(), then);
}

/// `balance: hash` needs `hash_on`, and `hash_on` needs `balance: hash`.
fn hash_needs_a_key(schema: &mut Schema) {
    schema.insert("if".into(), json!({ "properties": { "balance": { "const": "hash" } }, "required": ["balance"] }));
    schema.insert("then".into(), json!({ "required": ["hash_on"] }));
    schema.insert("else".into(), json!({ "properties": { "hash_on": false } }));
}

/// A service ends with an upstream or an answer, or each of its routes does.
fn end_here_or_on_every_route(schema: &mut Schema) {
    let ends = ["upstream", "split", "respond", "redirect"].map(|end| json!({ "required": [end] }));
    let of_routes = json!({ "items": { "anyOf": ends } });
    let every = json!({ "required": ["routes"], "properties": { "routes": of_routes } });
    schema.insert("anyOf".into(), ends.iter().cloned().chain([every]).collect());
}
