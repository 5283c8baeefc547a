//! The places of an endpoint, one for each running request, for `max_connections`.
//!
//! `make loom` checks places and their queue in every order in which requests can run (tests/loom).

use std::sync::Arc;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::queue::NodeQueue;

/// Places of an endpoint.
#[derive(Debug)]
pub(super) struct Places {
    taken: CachePadded<AtomicUsize>,
    limit: usize,
    /// The requests that wait for a place at an endpoint of the upstream.
    queue: Arc<NodeQueue>,
}

// === impl Places ===

impl Places {
    pub(super) fn new(limit: usize, queue: Arc<NodeQueue>) -> Self {
        Places { taken: CachePadded::default(), limit, queue }
    }

    /// Number of taken places.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether no place is free.
    pub(super) fn are_taken(&self) -> bool {
        self.taken() >= self.limit
    }

    /// Takes a place. Returns false if there is none.
    pub(super) fn take(&self) -> bool {
        let one_more = |taken| Some(taken + 1).filter(|taken| *taken <= self.limit);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Frees a place, and wakes a request that waits for one.
    pub(super) fn free(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.queue.on_free();
    }
}
