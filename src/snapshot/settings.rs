//! What runs, as configured: listeners, limits and upstreams. Plain data; what is running for it lives elsewhere, and
//! survives a reload while this is equal.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

pub(crate) use crate::config::LogFormat;
use crate::tls::{Authorities, Certificates, Identity};

/// One place where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where.
    pub(crate) address: SocketAddr,
    /// None: plain HTTP.
    pub(crate) tls: Option<ListenerTls>,
    /// The port to which everything but preflights is sent, on https.
    pub(crate) redirect: Option<u16>,
    /// Whether every connection begins with a PROXY header, which only trusted proxies can send.
    pub(crate) proxy_protocol: bool,
}

impl Listener {
    /// Whether connections to a local address are its own. One on an unspecified address has many of them.
    pub(crate) fn serves(&self, local: SocketAddr) -> bool {
        let here = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => local.ip().to_canonical().is_ipv4(),
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            ip => ip.to_canonical() == local.ip().to_canonical(),
        };
        here && self.address.port() == local.port()
    }
}

/// How a listener ends TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerTls {
    /// What it shows.
    pub(crate) certificates: Arc<Certificates>,
    /// The oldest version that it speaks.
    pub(crate) min_version: TlsVersion,
    /// Whether it offers HTTP/2.
    pub(crate) http2: bool,
    /// Whose certificates clients may show; None: they are not asked.
    pub(crate) clients: Option<ClientCertificates>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    /// Who must have signed it.
    pub(crate) authorities: Authorities,
    /// Whether a client may come without one.
    pub(crate) required: bool,
}

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of the request target.
    pub(crate) uri: usize,
    /// Bytes of all header fields, names and values.
    pub(crate) headers: usize,
    /// Header fields.
    pub(crate) header_count: usize,
    /// Bytes of a request body.
    pub(crate) body: Option<u64>,
    /// How long an idle client connection stays open.
    pub(crate) keepalive: Duration,
    /// For a handshake with the first header, and for each later header from its first byte on.
    pub(crate) header_timeout: Duration,
    /// The longest pause in a request body; and in all this, and a second more for each KiB that has come.
    pub(crate) body_timeout: Duration,
    /// How long a client may take nothing of its response.
    pub(crate) send_timeout: Duration,
    /// Open connections in all.
    pub(crate) connections: Option<usize>,
    /// Open connections of one client: an address, or a /64 of IPv6.
    pub(crate) connections_per_client: Option<usize>,
    /// Requests on one connection.
    pub(crate) requests_per_connection: Option<u32>,
    /// Streams of one HTTP/2 connection at a time.
    pub(crate) streams: u32,
    /// How long nothing may move on an HTTP/2 stream.
    pub(crate) stream_idle: Duration,
}

/// One line for each request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccessLog {
    /// Where they go.
    pub(crate) to: LogTarget,
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// The part of the requests that is written, 0 to 1. Refused ones and those with a status from 500 on always are.
    pub(crate) sample: f64,
    /// Whether only refused ones are written.
    pub(crate) refusals_only: bool,
}

/// Where the lines of an access log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// To the standard output of the process.
    Stdout,
    /// To the end of a file: a path as written, from the folder of the configuration.
    File(Box<str>),
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name; for one that is written inline, the name of its service or route.
    pub(crate) name: Arc<str>,
    /// At least one, and one with a weight.
    pub(crate) nodes: Vec<Node>,
    /// How one is chosen.
    pub(crate) balance: Balance,
    /// How long to wait for what.
    pub(crate) timeouts: Timeouts,
    /// How often a failed request is tried again, on another node.
    pub(crate) retries: usize,
    /// Whether it is spoken to in HTTP/2.
    pub(crate) http2: bool,
    /// None: plain HTTP.
    pub(crate) tls: Option<UpstreamTls>,
    /// Active checks.
    pub(crate) health_check: Option<HealthCheck>,
    /// What failing requests do to a node; None: nothing.
    pub(crate) ejection: Option<Ejection>,
    /// Over what time a node that comes back gets its share.
    pub(crate) slow_start: Option<Duration>,
}

/// A node of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// A name or an IP address, IPv6 without brackets.
    pub(crate) host: Box<str>,
    /// Its port.
    pub(crate) port: u16,
    /// Its share; 0 = none.
    pub(crate) weight: u32,
}

/// How a node is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The one with the fewest requests under way, for its weight.
    LeastConnections,
    /// Always the same one for the same value, as long as it is there; the others keep theirs when it is not.
    Hash(HashOn),
}

/// What a node is chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HashOn {
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Box<str>),
    /// The path, without the query.
    Path,
    /// The address of the client.
    ClientAddress,
}

/// How long to wait for an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For a new connection, its TLS handshake included.
    pub(crate) connect: Duration,
    /// Between two reads.
    pub(crate) read: Duration,
    /// Between two writes.
    pub(crate) write: Duration,
    /// How long an unused connection is kept.
    pub(crate) idle: Duration,
    /// For a whole request, all tries included.
    pub(crate) total: Option<Duration>,
    /// How long nothing may move on a WebSocket.
    pub(crate) websocket: Duration,
}

/// How an upstream is spoken to in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamTls {
    /// The name to ask for and to verify; None: each node's own.
    pub(crate) sni: Option<Box<str>>,
    /// Whether the certificate is verified.
    pub(crate) verify: bool,
    /// Who must have signed it; None: someone that the system trusts.
    pub(crate) authorities: Option<Authorities>,
    /// What we show.
    pub(crate) identity: Option<Identity>,
}

/// How a node is asked whether it can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    /// What to GET, and how; None: a connection is enough.
    pub(crate) http: Option<HttpCheck>,
    /// Between two checks.
    pub(crate) interval: Duration,
    /// For one check.
    pub(crate) timeout: Duration,
    /// Successes in a row that bring a node back.
    pub(crate) healthy_after: u32,
    /// Failures in a row that take it out.
    pub(crate) unhealthy_after: u32,
}

/// The request of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    /// Path and query.
    pub(crate) path: Box<str>,
    /// The Host field; None: the name that TLS asks for, else the node as written.
    pub(crate) host: Option<Box<str>>,
    /// First and last status that is a success.
    pub(crate) status: (u16, u16),
}

/// When requests that fail take a node out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// Failures in a row.
    pub(crate) after: u32,
    /// For how long.
    pub(crate) time: Duration,
}
