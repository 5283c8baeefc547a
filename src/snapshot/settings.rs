//! Listeners, limits and upstreams, compiled. This is plain data. The running parts are in other modules, and a reload
//! keeps them if their settings here are equal.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::behavior::clients::Clients;
pub(crate) use crate::config::{LogFormat, ProxyProtocol, UnderscoresInHeaders};
use crate::tls::{Authorities, Certificates, Identity};
use crate::tokens::Tokens;

/// The local address of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalAddress<'a> {
    Ip(SocketAddr),
    /// Path of the socket on which it was accepted.
    Unix(&'a Path),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    /// Permissions of the file, if the address is a Unix-domain socket.
    pub(crate) mode: u32,
    /// None: plain HTTP.
    pub(crate) tls: Option<ListenerTls>,
    /// Whether clients without TLS may use HTTP/2.
    pub(crate) http2: bool,
    /// Port of the https URL to which all requests except preflights are redirected.
    pub(crate) redirect: Option<u16>,
    /// Whether every connection must begin with a PROXY header from a trusted proxy.
    pub(crate) proxy_protocol: bool,
    /// Clients that may send requests. None: every client.
    pub(crate) clients: Option<Clients>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerTls {
    pub(crate) certificates: Arc<Certificates>,
    /// The lowest accepted version.
    pub(crate) min_version: TlsVersion,
    /// Whether HTTP/2 is offered.
    pub(crate) http2: bool,
    /// None: clients are not asked for a certificate.
    pub(crate) clients: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Checks of client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    pub(crate) authorities: Authorities,
    /// Whether a client without a certificate is refused.
    pub(crate) required: bool,
}

/// Limits on requests and client connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest request target, in bytes.
    pub(crate) uri: usize,
    /// Largest total size of the request header fields, names and values, in bytes.
    pub(crate) headers: usize,
    /// Largest number of request header fields.
    pub(crate) header_count: usize,
    /// Largest request body, in bytes.
    pub(crate) body: Option<u64>,
    /// Longest idle time of a client connection between two requests.
    pub(crate) keepalive: Duration,
    /// Longest time for the TLS handshake and the first header together, and for each later header from its first byte
    /// on.
    pub(crate) header_timeout: Duration,
    /// Longest pause in a request body. The whole body may take this time plus one second per KiB received.
    pub(crate) body_timeout: Duration,
    /// Longest time in which a client reads nothing of its response.
    pub(crate) send_timeout: Duration,
    /// Largest number of open client connections.
    pub(crate) connections: Option<usize>,
    /// Largest number of open connections per client: an IPv4 address, or an IPv6 /64.
    pub(crate) connections_per_client: Option<usize>,
    /// Largest number of requests on one connection.
    pub(crate) requests_per_connection: Option<u32>,
    /// Longest age of a client connection.
    pub(crate) connection_age: Option<Duration>,
    /// Largest number of concurrent streams on one HTTP/2 connection.
    pub(crate) streams: u32,
    /// Longest time in which an HTTP/2 stream makes no progress.
    pub(crate) stream_idle: Duration,
}

/// Who may use the write API of the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminWrite {
    pub(crate) tokens: Tokens,
    /// Whether a listener that other machines can reach may have the write API.
    pub(crate) allows_remote: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccessLog {
    pub(crate) to: LogTarget,
    pub(crate) format: LogFormat,
    /// Share of the requests that is logged, from 0 to 1. Refused requests and statuses from 500 on are always logged.
    pub(crate) sample: f64,
    /// Whether only refused requests are logged.
    pub(crate) refusals_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTarget {
    Stdout,
    /// A path in the spelling of the configuration, relative to its directory.
    File(Box<str>),
}

/// An upstream, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Name of the upstream. An upstream inside a service or route has the name of that service or route.
    pub(crate) name: Arc<str>,
    /// The nodes. There is at least one, with a weight above 0.
    pub(crate) nodes: Vec<Node>,
    pub(crate) balance: Balance,
    pub(crate) timeouts: Timeouts,
    /// Largest number of retries of a request.
    pub(crate) retries: usize,
    /// Whether HTTP/2 is used to the nodes.
    pub(crate) http2: bool,
    /// None: plain HTTP.
    pub(crate) tls: Option<UpstreamTls>,
    /// None: no active checks.
    pub(crate) health_check: Option<HealthCheck>,
    /// Ejection of nodes after failed requests. None: no ejection.
    pub(crate) ejection: Option<Ejection>,
    /// Time in which a returning node reaches its full share. None: it gets its full share at once.
    pub(crate) slow_start: Option<Duration>,
    /// Version of the PROXY header of connections to the nodes. None: no PROXY header.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Limit of the concurrent requests at each node. None: no limit.
    pub(crate) limit: Option<NodeLimit>,
}

/// Limit of the concurrent requests at each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeLimit {
    /// Largest number of requests at a node.
    pub(crate) max_connections: usize,
    /// Largest number of requests that wait for a node. 0: no request waits.
    pub(crate) queue: usize,
    /// Longest time for which a request waits.
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) address: NodeAddress,
    /// Share of the requests, relative to the other nodes; 0 means none.
    pub(crate) weight: u32,
}

/// The address of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeAddress {
    /// An address that does not change.
    Fixed(Address),
    /// A DNS name, with any number of addresses, which can change.
    Name { host: Box<str>, port: u16 },
}

/// An address at which connections are accepted, here or by a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The path of a Unix-domain socket, absolute. It fits into an address of the system.
    Unix(Arc<str>),
}

impl NodeAddress {
    /// The host without its port, for TLS. None for a Unix-domain socket.
    pub(crate) fn host(&self) -> Option<Cow<'_, str>> {
        match self {
            NodeAddress::Fixed(Address::Ip(address)) => Some(address.ip().to_string().into()),
            NodeAddress::Fixed(Address::Unix(_)) => None,
            NodeAddress::Name { host, .. } => Some(host.strip_suffix('.').unwrap_or(host).into()),
        }
    }

    /// Returns the value of a `Host` field. A Unix-domain socket has no name, so the value is `localhost`, as in nginx.
    pub(crate) fn authority(&self) -> String {
        match self {
            NodeAddress::Fixed(Address::Ip(address)) => address.to_string(),
            NodeAddress::Fixed(Address::Unix(_)) => "localhost".to_owned(),
            NodeAddress::Name { host, port } => format!("{host}:{port}"),
        }
    }
}

impl Address {
    /// The TCP port.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Address::Ip(address) => Some(address.port()),
            Address::Unix(_) => None,
        }
    }

    /// Whether connections to many local addresses are accepted, as on `0.0.0.0`.
    pub(crate) fn is_unspecified(&self) -> bool {
        matches!(self, Address::Ip(address) if address.ip().is_unspecified())
    }

    /// Whether a connection to a local address is accepted here.
    pub(crate) fn serves(&self, local: LocalAddress<'_>) -> bool {
        let (own, local) = match (self, local) {
            (Address::Ip(own), LocalAddress::Ip(local)) => (own, local),
            (Address::Unix(own), LocalAddress::Unix(local)) => return Path::new(&**own) == local,
            _ => return false,
        };
        let here = match own.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => local.ip().to_canonical().is_ipv4(),
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            ip => ip.to_canonical() == local.ip().to_canonical(),
        };
        here && own.port() == local.port()
    }

    /// Whether a process cannot listen on both addresses: they are equal, or one of them stands for all addresses of
    /// the other's family. Whether `[::]` includes IPv4 depends on the system.
    pub(crate) fn overlaps(&self, other: &Address) -> bool {
        let (one, other) = match (self, other) {
            (Address::Ip(one), Address::Ip(other)) => (one, other),
            (one, other) => return one == other,
        };
        let any = one.ip().is_unspecified() || other.ip().is_unspecified();
        one.port() == other.port() && (one.ip() == other.ip() || any && one.is_ipv4() == other.is_ipv4())
    }
}

impl fmt::Display for HashOn {
    /// Writes the address in the form of the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashOn::Header(name) => write!(f, "header:{name}"),
            HashOn::Cookie(name) => write!(f, "cookie:{name}"),
            HashOn::Path => f.write_str("path"),
            HashOn::ClientAddress => f.write_str("client_address"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Method by which a node is chosen for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Balance {
    /// The nodes in turn, by weight.
    RoundRobin,
    /// A random node, by weight.
    Random,
    /// The node with the fewest active requests for its weight.
    LeastConnections,
    /// The same node for the same value while the node is available. If a node is unavailable, only its values move to
    /// other nodes.
    Hash(HashOn),
}

/// The property of a request that is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HashOn {
    Header(HeaderName),
    Cookie(Box<str>),
    /// The path without the query.
    Path,
    ClientAddress,
}

/// Longest times to wait for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Time for a new connection, with its TLS handshake.
    pub(crate) connect: Duration,
    /// Time between two reads.
    pub(crate) read: Duration,
    /// Time between two writes.
    pub(crate) write: Duration,
    /// Time for which an unused connection is kept open.
    pub(crate) idle: Duration,
    /// Time for a whole request with all retries. None: no limit.
    pub(crate) total: Option<Duration>,
    /// Time for which a WebSocket may be idle in both directions.
    pub(crate) websocket: Duration,
}

/// TLS to the nodes of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamTls {
    /// Host name to send and to verify. None: the host of each node. In that case no node is a Unix-domain socket.
    pub(crate) sni: Option<Box<str>>,
    /// Whether certificates are verified.
    pub(crate) verify: bool,
    /// None: the authorities of the system.
    pub(crate) authorities: Option<Authorities>,
    /// The client certificate of corsgate.
    pub(crate) identity: Option<Identity>,
}

/// Active health checks of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    /// None: a check only opens a connection.
    pub(crate) http: Option<HttpCheck>,
    /// Time between two checks.
    pub(crate) interval: Duration,
    /// Longest time for one check.
    pub(crate) timeout: Duration,
    /// Successes in a row after which a node is used again.
    pub(crate) healthy_after: u32,
    /// Failures in a row after which a node is not used.
    pub(crate) unhealthy_after: u32,
}

/// The request of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    /// Path and query.
    pub(crate) path: Box<str>,
    /// The `Host` header. None: the server name of TLS, else the address of the node.
    pub(crate) host: Option<Box<str>>,
    /// First and last status that count as success.
    pub(crate) status: (u16, u16),
}

/// Ejection: a node with several failed requests in a row is not used for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// Number of failed requests in a row that eject a node.
    pub(crate) after: u32,
    /// Time for which the node is not used.
    pub(crate) time: Duration,
}
