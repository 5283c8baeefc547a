//! What is counted of connections, by listener: those that are open, those that came, and those that never got as far as
//! a request.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::counter::Counter;

/// What was counted of all connections.
#[derive(Debug)]
pub(crate) struct Counts {
    /// By listener, in the order in which they were configured when the process started.
    pub(crate) listeners: Vec<(SocketAddr, Arc<ListenerCounts>)>,
    /// Connections that are on none of them.
    pub(crate) unknown: Counter,
}

/// What was counted of the connections to a listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounts {
    open: AtomicUsize,
    /// Connections that came.
    pub(crate) accepted: Counter,
    /// Those that were closed before their first request, by [`RefusedConnection`].
    pub(crate) refused: [Counter; RefusedConnection::ALL.len()],
    /// TLS handshakes that went well.
    pub(crate) handshakes: Counter,
    /// Those that did not, or not in time.
    pub(crate) failed_handshakes: Counter,
    /// Headers that never became a request, by [`BadHeader`].
    pub(crate) headers: [Counter; BadHeader::ALL.len()],
}

/// Why a connection was closed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// Far more connections were open than the limits allow.
    ConnectionLimitHard,
    /// The peer is not among `trusted_proxies`, and the listener expects a PROXY header.
    Untrusted,
    /// The PROXY header cannot be used.
    ProxyHeader,
    /// The TLS handshake failed.
    Handshake,
    /// The PROXY header or the TLS handshake took too long.
    Late,
}

/// Why a header never became a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It did not end in time: 408.
    Late,
    /// It is larger than any may be: 431.
    TooLarge,
    /// It is no HTTP, or asks for a tunnel: 400 or 405.
    Malformed,
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<ListenerCounts>);

// === impl Counts, ListenerCounts ===

impl Counts {
    /// With nothing counted yet.
    pub(crate) fn new(listeners: impl Iterator<Item = SocketAddr>) -> Self {
        let listeners = listeners.map(|address| (address, Arc::default())).collect();
        Counts { listeners, unknown: Counter::default() }
    }

    /// Those of a listener, by the address that it was started with.
    pub(crate) fn of(&self, listener: SocketAddr) -> Option<&Arc<ListenerCounts>> {
        self.listeners.iter().find(|(address, _)| *address == listener).map(|(_, counts)| counts)
    }
}

impl ListenerCounts {
    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection came.
    pub(crate) fn accept(self: &Arc<Self>) -> Open {
        self.accepted.add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// A connection ends before its first request.
    pub(crate) fn refuse(&self, refused: RefusedConnection) {
        self.refused[refused as usize].add(1);
    }

    /// A header cannot be used.
    pub(crate) fn bad_header(&self, header: BadHeader) {
        self.headers[header as usize].add(1);
    }
}

// === impl RefusedConnection, BadHeader, Open ===

impl RefusedConnection {
    /// All of them, each at the position that it has as a number.
    pub(crate) const ALL: [RefusedConnection; 5] = [
        RefusedConnection::ConnectionLimitHard,
        RefusedConnection::Untrusted,
        RefusedConnection::ProxyHeader,
        RefusedConnection::Handshake,
        RefusedConnection::Late,
    ];

    /// Value of the metric's label `reason`.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            RefusedConnection::ConnectionLimitHard => "connection_limit_hard",
            RefusedConnection::Untrusted => "untrusted",
            RefusedConnection::ProxyHeader => "proxy_header",
            RefusedConnection::Handshake => "handshake",
            RefusedConnection::Late => "late",
        }
    }
}

impl BadHeader {
    /// All of them, each at the position that it has as a number.
    pub(crate) const ALL: [BadHeader; 3] = [BadHeader::Late, BadHeader::TooLarge, BadHeader::Malformed];

    /// In one word, as metrics write it.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            BadHeader::Late => "late",
            BadHeader::TooLarge => "too_large",
            BadHeader::Malformed => "malformed",
        }
    }
}

impl Deref for Open {
    type Target = ListenerCounts;

    fn deref(&self) -> &ListenerCounts {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
