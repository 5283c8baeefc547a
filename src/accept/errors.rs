//! Connections that are closed before their first request: why, and their log lines.
//!
//! Clients can cause any number of these errors, so there is at most one line in 10 s for each kind, with the number of
//! suppressed lines. There must be a line: a load balancer that is missing from `trusted_proxies` is an outage.

use std::fmt;
use std::time::Instant;

use super::proxy_protocol;
use crate::logging::{LogThrottle, quoted};
use crate::record::listeners::RefusedConnection;

/// Why a connection is closed before its first request.
pub(super) enum AcceptError {
    /// The connection belongs to no listener of the process.
    Unknown,
    /// Too many open connections, even for a response with 429 or 503.
    ConnectionLimitHard,
    /// The listener expects a PROXY header, and the peer is not in `trusted_proxies`.
    Untrusted,
    /// The PROXY header is missing or malformed.
    ProxyHeader(proxy_protocol::Fault),
    /// The TLS handshake failed.
    Handshake(Box<pingora::Error>),
    /// The PROXY header or the TLS handshake took longer than `limits.header_timeout`.
    Late,
}

/// Logs errors, at most one line in 10 s for each kind.
#[derive(Debug, Default)]
pub(super) struct AcceptErrorLog([LogThrottle; KINDS]);

/// Kinds of errors that are logged as warnings.
const KINDS: usize = 4;

impl AcceptError {
    /// The reason that metrics count. None for a connection without a listener.
    pub(crate) fn refused_connection(&self) -> Option<RefusedConnection> {
        match self {
            AcceptError::Unknown => None,
            AcceptError::ConnectionLimitHard => Some(RefusedConnection::ConnectionLimitHard),
            AcceptError::Untrusted => Some(RefusedConnection::Untrusted),
            AcceptError::ProxyHeader(_) => Some(RefusedConnection::ProxyHeader),
            AcceptError::Handshake(_) => Some(RefusedConnection::Handshake),
            AcceptError::Late => Some(RefusedConnection::Late),
        }
    }

    /// Kind with its own throttle. None for errors that are logged at debug level only.
    fn kind(&self) -> Option<usize> {
        match self {
            AcceptError::Unknown | AcceptError::Late => None,
            AcceptError::ConnectionLimitHard => Some(0),
            AcceptError::Untrusted => Some(1),
            AcceptError::ProxyHeader(_) => Some(2),
            AcceptError::Handshake(_) => Some(3),
        }
    }
}

impl AcceptErrorLog {
    /// Logs an error: as a warning if its kind has had no line for 10 s, otherwise at debug level.
    pub(crate) fn log(&self, peer: impl fmt::Display, error: &AcceptError, now: Instant) {
        let due = error.kind().and_then(|kind| {
            self.0[kind].count(1);
            self.0[kind].due(now)
        });
        let reason = quoted(error);
        match due {
            None => log::debug!("connection closed before a request peer={peer} reason={reason}"),
            Some(1) => log::warn!("connection closed before a request peer={peer} reason={reason}"),
            Some(errors) => {
                let suppressed = errors - 1;
                log::warn!("connection closed before a request peer={peer} reason={reason} suppressed={suppressed}");
            }
        }
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::Unknown => write!(f, "not on a configured listener"),
            AcceptError::ConnectionLimitHard => write!(f, "more connections are open than the hard limit allows"),
            AcceptError::Untrusted => {
                write!(f, "the listener expects a PROXY header, and the peer is not in trusted_proxies")
            }
            AcceptError::ProxyHeader(fault) => write!(f, "{fault}"),
            AcceptError::Handshake(error) => write!(f, "{error}"),
            AcceptError::Late => write!(f, "PROXY header or TLS handshake timed out"),
        }
    }
}
