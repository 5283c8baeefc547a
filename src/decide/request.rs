//! The facts of a request that decide what happens to it.

use http::{HeaderMap, Method, Version};

use crate::cors::Scheme;
use crate::tls::Certificate;

/// A request as it came, as far as it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its own method.
    pub method: &'a Method,
    /// The path, without query, byte for byte.
    pub path: &'a [u8],
    /// Bytes of the request target as written.
    pub target_length: usize,
    /// HTTP/1.1 requests must name a host.
    pub version: Version,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: Option<&'a str>,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Whether its length is beyond doubt.
    pub framing: Framing,
    /// What it came on.
    pub connection: ConnectionFacts<'a>,
}

/// What a request came on, as far as it is judged by that.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionFacts<'a> {
    /// None: plain HTTP, or a client that asked for no name.
    pub(crate) asked_for: Option<ServerName<'a>>,
    /// The port on https where requests should have come instead.
    pub(crate) redirect: Option<u16>,
    /// Whether there was room for it.
    pub(crate) capacity: Capacity,
}

/// What the client asked for in its TLS handshake, and was shown.
#[derive(Debug, Clone, Copy)]
pub struct ServerName<'a> {
    /// The name, in lower case.
    pub(crate) name: &'a str,
    /// The certificate that it was shown.
    pub(crate) certificate: &'a Certificate,
}

/// Whether there was room for a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// There was.
    #[default]
    Available,
    /// As many as can be are open.
    ConnectionLimit,
    /// The client has as many open as one can have.
    ClientLimit,
}

/// Whether the length of a request's body is beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// None, one Content-Length, or chunked.
    Clear,
    /// Anything else: what request smuggling is made of (RFC 9112 section 11.2).
    Ambiguous,
}
