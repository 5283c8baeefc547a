//! What is counted of connections, by listener: those that are open, those that came, and those that never got as far as
//! a request.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::unserved::Unserved;
use crate::telemetry::Counter;

/// What was counted of all connections.
#[derive(Debug)]
pub struct Counts {
    /// By listener, in the order in which they were configured when the process started.
    pub listeners: Vec<(SocketAddr, Arc<ListenerCounts>)>,
    /// Connections that are on none of them.
    pub unknown: Counter,
}

/// What was counted of the connections to a listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    open: AtomicUsize,
    /// Connections that came.
    pub accepted: Counter,
    /// Those that were closed before their first request, by [`Self::REFUSALS`].
    pub refused: [Counter; Self::REFUSALS.len()],
    /// TLS handshakes that went well.
    pub handshakes: Counter,
    /// Those that did not, or not in time.
    pub failed_handshakes: Counter,
    /// Headers that never became a request, by [`BadHeader`].
    pub headers: [Counter; BadHeader::ALL.len()],
}

/// Why a header never became a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// It did not end in time: 408.
    Late,
    /// It is larger than any may be: 431.
    TooLarge,
    /// It is no HTTP, or asks for a tunnel: 400 or 405.
    Malformed,
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<ListenerCounts>);

// === impl Counts, ListenerCounts ===

impl Counts {
    /// With nothing counted yet.
    pub(super) fn new(listeners: impl Iterator<Item = SocketAddr>) -> Self {
        let listeners = listeners.map(|address| (address, Arc::default())).collect();
        Counts { listeners, unknown: Counter::default() }
    }

    /// Those of a listener, by the address that it was started with.
    pub(super) fn of(&self, listener: SocketAddr) -> Option<&Arc<ListenerCounts>> {
        self.listeners.iter().find(|(address, _)| *address == listener).map(|(_, counts)| counts)
    }
}

impl ListenerCounts {
    /// Why connections are closed before their first request, in one word each.
    pub const REFUSALS: [&'static str; 5] = Unserved::CODES;

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection came.
    pub(super) fn accept(self: &Arc<Self>) -> Open {
        self.accepted.add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// A connection ends before its first request.
    pub(super) fn refuse(&self, unserved: &Unserved) {
        let count = unserved.position().and_then(|position| self.refused.get(position));
        count.iter().for_each(|count| count.add(1));
    }

    /// A header cannot be used.
    pub(super) fn bad_header(&self, header: BadHeader) {
        self.headers[header as usize].add(1);
    }
}

// === impl BadHeader, Open ===

impl BadHeader {
    /// All of them, each at the position that it has as a number.
    pub const ALL: [BadHeader; 3] = [BadHeader::Late, BadHeader::TooLarge, BadHeader::Malformed];

    /// In one word, as metrics write it.
    pub const fn code(self) -> &'static str {
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
