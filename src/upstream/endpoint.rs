//! One address of a node, and what requests do to it. Everything here is atomic: requests take no lock.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::hash;
use crate::counter::Counter;

/// One address of a node. It is the same one for as long as its upstream is configured the same and its name has this
/// address.
#[derive(Debug)]
pub struct Endpoint {
    node: usize,
    address: SocketAddr,
    weight: u32,
    /// What it draws its lots from where a node is chosen by hash: the same in every process.
    pub(super) seed: u64,
    /// Requests under way.
    active: AtomicUsize,
    /// Failures in a row.
    failures: AtomicU32,
    counts: EndpointCounts,
    slot: Slot,
}

/// What was counted of an endpoint since it is one.
#[derive(Debug, Default)]
pub(crate) struct EndpointCounts {
    /// Connections that were made to it for requests.
    pub(crate) connects: Counter,
    /// Connections that could not be made.
    pub(crate) connect_failures: Counter,
    /// Tries that had a connection from an earlier request.
    pub(crate) reuses: Counter,
    /// Tries that ended without the header of a response, though there was a connection.
    pub(crate) no_responses: Counter,
    /// How often it was taken out because requests have failed.
    pub(crate) ejections: Counter,
}

/// A request that is under way at an endpoint. It counts as one until this is dropped.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Endpoint>);

/// What somebody else keeps beside an endpoint or an upstream, and works out once.
#[derive(Default)]
pub(crate) struct Slot(OnceLock<Box<dyn Any + Send + Sync>>);

impl Endpoint {
    pub(super) fn new(node: usize, address: SocketAddr, weight: u32) -> Self {
        let seed = hash::key(address.to_string().as_bytes());
        Endpoint {
            node,
            address,
            weight,
            seed,
            active: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            counts: EndpointCounts::default(),
            slot: Slot::default(),
        }
    }

    /// Position of its node in the configuration of the upstream.
    pub(crate) fn node(&self) -> usize {
        self.node
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The share of its node, at least 1.
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Requests under way.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// What was counted of it.
    pub(crate) fn counts(&self) -> &EndpointCounts {
        &self.counts
    }

    /// For what others work out once for this endpoint.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// A response came.
    pub(super) fn succeeded(&self) {
        // Looking is cheaper than writing, when many threads do it.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed. Returns how many have in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Sets how many failures there have been in a row: `after - 1` is one who may not fail again.
    pub(super) fn set_failures(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
    }
}

impl ActiveRequest {
    pub(super) fn at(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(endpoint.clone())
    }

    /// The endpoint, for longer than the request is under way there.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Deref for ActiveRequest {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    /// What was kept here, made now if nothing was. There is one slot for one type: who asks for another one than was
    /// kept gets None.
    pub(crate) fn get_or_make<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.get_or_init(|| Box::new(make())).downcast_ref()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Slot(kept)" } else { "Slot(empty)" })
    }
}
