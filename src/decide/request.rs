//! The parts of a request and of its connection that [`Snapshot::decide`](crate::snapshot::Snapshot::decide) reads.

use http::{HeaderMap, Method, Version};

use crate::behavior::clients::{ClientAddress, Clients};
use crate::domain::OwnOrigin;
use crate::tls::Certificate;

/// A request as received.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method of the request itself, which for a preflight is OPTIONS.
    pub method: &'a Method,
    /// The path without query, as received: not decoded and not normalized.
    pub path: &'a [u8],
    /// Length of the request target in bytes.
    pub target_length: usize,
    /// HTTP version. From HTTP/1.1 on, a request must have a host.
    pub version: Version,
    /// Scheme, host and port of the URL as the client used it. A trusted proxy's forwarding fields can set them.
    pub own_origin: OwnOrigin<'a>,
    /// Host and port as received, which select the route; None if the request has neither Host nor `:authority`.
    pub authority: Option<&'a str>,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Whether the ends of the target and of the body are unambiguous.
    pub framing: Framing,
    /// The client's connection.
    pub connection: ConnectionFacts<'a>,
}

/// The client's connection. The default is plain HTTP without redirect, within the connection limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionFacts<'a> {
    /// The server name of the TLS handshake. None for plain HTTP, and for a handshake without server name.
    pub(crate) server_name: Option<ServerName<'a>>,
    /// The https port to which the listener redirects plain HTTP.
    pub(crate) redirect: Option<u16>,
    pub(crate) capacity: Capacity,
    /// The clients that may send requests on the listener. None: every client.
    pub(crate) clients: Option<&'a Clients>,
    pub(crate) client: ClientAddress,
}

/// Server name (SNI) of a TLS handshake, and the certificate that was presented for it.
#[derive(Debug, Clone, Copy)]
pub struct ServerName<'a> {
    /// The server name in lower case.
    pub(crate) name: &'a str,
    pub(crate) certificate: &'a Certificate,
}

/// Whether a connection is within the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// Within the limits.
    #[default]
    Available,
    /// Over `limits.connections`: the connection gets one request, which is refused with 503.
    ConnectionLimit,
    /// Over `limits.connections_per_client`: the connection gets one request, which is refused with 429.
    ClientLimit,
}

/// Whether all servers read the same request from the received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, one Content-Length, or `Transfer-Encoding: chunked`.
    Clear,
    /// Several lengths, or another coding: servers can disagree about the end of the body, which makes request smuggling
    /// possible (RFC 9112 section 11.2).
    Ambiguous,
    /// The target has a space or a control character (RFC 9112 section 3.2).
    RawTarget,
    /// The target is longer than the parser allows. The request has only its first bytes.
    TargetTooLong,
    /// The header is larger than the parser allows. The request has only some of its fields.
    TooManyFields,
}
