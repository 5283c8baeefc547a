//! Endpoint: one address of a node, with the counters of its requests. All values are atomic, so requests take no lock.
//! Each thread has its own copy of the values that every request writes.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;
use pingora::upstreams::peer::HttpPeer;

use super::places::Places;
use crate::counter::{Counter, Ends};
use crate::hash;
use crate::per_thread::{Local, PerThread, Shared};
use crate::snapshot::Address;

/// One address of a node. It exists until the configuration of its upstream changes, or until the name of the node
/// loses this address.
#[derive(Debug)]
pub struct Endpoint {
    node: usize,
    address: Address,
    weight: u32,
    /// Seed of its scores in rendezvous hashing. It depends only on the address, so it is the same in all replicas.
    pub(super) seed: u64,
    active: Active,
    traffic: PerThread<Traffic>,
    /// Number of consecutive failures.
    failures: AtomicU32,
    counts: EndpointCounts,
    last_error: Mutex<Option<String>>,
    /// Peer that each request clones, made by the first request. A clone changes reference counts, so each thread has
    /// its own peer.
    template: PerThread<OnceLock<HttpPeer>>,
}

/// Counter of the running requests.
#[derive(Debug)]
pub(super) enum Active {
    /// One counter for each thread: [`Traffic::active`].
    PerThread,
    /// One counter for all threads, for `least_connections`. Each request reads it, and a sum over the threads would
    /// cost more.
    Compared(Box<CachePadded<AtomicUsize>>),
    /// Limited places, for `max_connections`.
    Limited(Box<Places>),
}

/// Counters that every request changes.
#[derive(Debug, Default)]
struct Traffic {
    active: Ends,
    /// Connections made for requests.
    connects: Counter,
    /// Attempts on a connection from an earlier request.
    reuses: Counter,
}

/// Counters of an endpoint that only failures change.
#[derive(Debug, Default)]
pub(crate) struct EndpointCounts {
    /// Connections that failed.
    pub(crate) connect_failures: Counter,
    /// Attempts that had a connection but got no response header.
    pub(crate) no_responses: Counter,
    /// Number of ejections.
    pub(crate) ejections: Counter,
}

/// A running request at an endpoint. It counts as running until this value is dropped.
#[derive(Debug)]
pub struct ActiveRequest(Local<Endpoint>);

impl Endpoint {
    pub(super) fn new(node: usize, address: Address, weight: u32, active: Active) -> Self {
        let seed = hash::key(address.to_string().as_bytes());
        Endpoint {
            node,
            address,
            weight,
            seed,
            active,
            traffic: PerThread::default(),
            failures: AtomicU32::new(0),
            counts: EndpointCounts::default(),
            last_error: Mutex::default(),
            template: PerThread::default(),
        }
    }

    /// Position of the node in the configuration of the upstream.
    pub(crate) fn node(&self) -> usize {
        self.node
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Weight of the node, at least 1.
    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    /// Number of running requests.
    pub(crate) fn active(&self) -> usize {
        match &self.active {
            Active::PerThread => Ends::running(|| self.traffic.all().map(|traffic| &traffic.active)),
            Active::Compared(active) => active.load(Ordering::Relaxed),
            Active::Limited(places) => places.taken(),
        }
    }

    /// Whether the endpoint has a limit: `max_connections`.
    pub(super) fn is_limited(&self) -> bool {
        matches!(self.active, Active::Limited(_))
    }

    /// Whether the endpoint has as many requests as `max_connections` allows.
    pub(super) fn is_full(&self) -> bool {
        matches!(&self.active, Active::Limited(places) if places.are_taken())
    }

    /// Counts a connection for a request, new or reused.
    pub(crate) fn connected(&self, reused: bool) {
        let traffic = self.traffic.mine();
        let count = if reused { &traffic.reuses } else { &traffic.connects };
        count.add(1);
    }

    /// Connections made for requests.
    pub(crate) fn connects(&self) -> u64 {
        self.traffic.all().map(|traffic| traffic.connects.get()).sum()
    }

    /// Attempts on a connection from an earlier request.
    pub(crate) fn reuses(&self) -> u64 {
        self.traffic.all().map(|traffic| traffic.reuses.get()).sum()
    }

    pub(crate) fn counts(&self) -> &EndpointCounts {
        &self.counts
    }

    /// Text of the last failed attempt or health check.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the text of the last failure. This takes a lock, so it is called for failures only.
    pub(crate) fn set_last_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns the peer that the requests of this thread clone. The first call makes it.
    pub(super) fn template(&self, make: impl FnOnce() -> HttpPeer) -> &HttpPeer {
        self.template.mine().get_or_init(make)
    }

    /// Resets the consecutive failures.
    pub(super) fn succeeded(&self) {
        // A write would move the cache line between threads for every request; a read does not.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure. Returns the number of consecutive failures.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Sets the number of consecutive failures. With `after - 1`, the next failure ejects.
    pub(super) fn set_failures(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
    }
}

impl ActiveRequest {
    /// Starts a request at the endpoint. None if the endpoint is full.
    pub(super) fn at(endpoint: &Shared<Endpoint>) -> Option<Self> {
        match &endpoint.active {
            Active::PerThread => endpoint.traffic.mine().active.begin(),
            Active::Compared(active) => drop(active.fetch_add(1, Ordering::Relaxed)),
            Active::Limited(places) if places.take() => {}
            Active::Limited(_) => return None,
        }
        Some(ActiveRequest(endpoint.local()))
    }

    /// Returns the endpoint, also for use after the request.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.0.arc()
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
        match &self.active {
            Active::PerThread => self.traffic.mine().active.end(),
            Active::Compared(active) => drop(active.fetch_sub(1, Ordering::Relaxed)),
            Active::Limited(places) => places.free(),
        }
    }
}
