//! Counters of client connections, for each listener.

use std::ops::Deref;
use std::sync::Arc;

use crate::codes::coded_enum;
use crate::counter::{Counter, Running};
use crate::snapshot::Address;

/// Counters of all listeners of the process.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Listeners that the process was started with, in the order of the configuration.
    pub(crate) listeners: Vec<(Address, Arc<ListenerCounts>)>,
    /// Connections that belong to no listener.
    pub(crate) unknown: Counter,
    /// Limit of open connections if the configuration has none.
    pub(crate) default_limit: Option<usize>,
}

/// Counters of one listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounts {
    connections: Running,
    /// Connections closed before their first request, by [`RefusedConnection`].
    pub(crate) refused: [Counter; RefusedConnection::ALL.len()],
    pub(crate) handshakes: Counter,
    /// TLS handshakes that failed or exceeded their timeout.
    pub(crate) failed_handshakes: Counter,
    /// Request headers that did not become a request, by [`BadHeader`].
    pub(crate) headers: [Counter; BadHeader::ALL.len()],
    /// Request header fields that were not forwarded because of the form of their names.
    pub(crate) dropped_fields: Counter,
}

coded_enum! {
    /// Why a connection was closed before its first request: the label `reason` of
    /// `corsgate_connections_refused_total`.
    pub(crate) enum RefusedConnection {
        /// More connections were open than the hard limit allows.
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
    /// Why a request header did not become a request: the label `reason` of `corsgate_bad_headers_total`.
    pub(crate) enum BadHeader {
        /// The header was not complete in time: 408.
        Late = "late",
        /// The header exceeds the size that corsgate reads: 431, or 414 in the request line.
        TooLarge = "too_large",
        /// The header is not HTTP (400), the method is CONNECT (405), or the version is HTTP/2 (505).
        Malformed = "malformed",
    }
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<ListenerCounts>);

// === impl Counts, ListenerCounts ===

impl Counts {
    pub(crate) fn new(listeners: impl Iterator<Item = Address>, default_limit: Option<usize>) -> Self {
        let listeners = listeners.map(|address| (address, Arc::default())).collect();
        Counts { listeners, unknown: Counter::default(), default_limit }
    }

    /// Counters of a listener, by the address that it was started with.
    pub(crate) fn of(&self, listener: &Address) -> Option<&Arc<ListenerCounts>> {
        self.listeners.iter().find(|(address, _)| address == listener).map(|(_, counts)| counts)
    }
}

impl ListenerCounts {
    /// Number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.connections.count()
    }

    /// Number of all connections.
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

    /// Counts a request header that did not become a request.
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
