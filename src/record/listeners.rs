//! Counters of client connections, for each listener.

use std::ops::Deref;
use std::sync::Arc;

use crate::codes::coded_enum;
use crate::counter::{Counter, Running};
use crate::snapshot::Address;

/// Counters of all listeners of the process.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Listeners at the start of the process, in the order of the configuration.
    pub(crate) listeners: Vec<(Address, Arc<ListenerCounts>)>,
    /// Number of connections that belong to no listener.
    pub(crate) unknown: Counter,
    /// Limit of open connections without a limit in the configuration.
    pub(crate) default_limit: Option<usize>,
}

/// Counters of one listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounts {
    connections: Running,
    /// Number of connections that were closed before their first request, by [`RefusedConnection`].
    pub(crate) refused: [Counter; RefusedConnection::ALL.len()],
    pub(crate) handshakes: Counter,
    /// Number of TLS handshakes that failed or exceeded their timeout.
    pub(crate) failed_handshakes: Counter,
    /// Number of request headers that were rejected, by [`BadHeader`].
    pub(crate) headers: [Counter; BadHeader::ALL.len()],
    /// Number of request header fields that were not forwarded because of the form of their names.
    pub(crate) dropped_fields: Counter,
}

coded_enum! {
    /// The reason why a connection was closed before its first request. It is the label `reason` of
    /// `corsgate_connections_refused_total`.
    pub(crate) enum RefusedConnection {
        /// The number of open connections was at the hard limit.
        ConnectionLimitHard = "connection_limit_hard",
        /// The listener expects a PROXY header, and the peer is not in `trusted_proxies`.
        Untrusted = "untrusted",
        /// The PROXY header is invalid.
        ProxyHeader = "proxy_header",
        /// The TLS handshake failed.
        Handshake = "handshake",
        /// The PROXY header or the TLS handshake exceeded its timeout.
        Late = "late",
    }
}

coded_enum! {
    /// The reason why a request header was rejected. It is the label `reason` of `corsgate_bad_headers_total`.
    pub(crate) enum BadHeader {
        /// The header was not complete in time: 408.
        Late = "late",
        /// The header exceeds the maximum size: 431, or 414 for the request line.
        TooLarge = "too_large",
        /// The header is not HTTP (400), the method is CONNECT (405), or the version is HTTP/2 (505).
        Malformed = "malformed",
    }
}

/// A guard of an open connection. Dropping it ends the count of the connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<ListenerCounts>);

// === impl Counts, ListenerCounts ===

impl Counts {
    pub(crate) fn new(listeners: impl Iterator<Item = Address>, default_limit: Option<usize>) -> Self {
        let listeners = listeners.map(|address| (address, Arc::default())).collect();
        Counts { listeners, unknown: Counter::default(), default_limit }
    }

    /// Returns the counters of a listener. `listener` is its address at the start of the process.
    pub(crate) fn of(&self, listener: &Address) -> Option<&Arc<ListenerCounts>> {
        self.listeners.iter().find(|(address, _)| address == listener).map(|(_, counts)| counts)
    }
}

impl ListenerCounts {
    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.connections.count()
    }

    /// Returns the number of all connections since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.connections.begun()
    }

    /// Counts a new connection.
    pub(crate) fn accept(self: &Arc<Self>) -> Open {
        self.connections.begin();
        Open(self.clone())
    }

    /// Counts a connection that is closed before its first request.
    pub(crate) fn refuse(&self, refused: RefusedConnection) {
        self.refused[refused.index()].add(1);
    }

    /// Counts a rejected request header.
    pub(crate) fn bad_header(&self, header: BadHeader) {
        self.headers[header.index()].add(1);
    }
}

// === impl Open ===

impl Deref for Open {
    type Target = ListenerCounts;

    fn deref(&self) -> &ListenerCounts {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.end();
    }
}
