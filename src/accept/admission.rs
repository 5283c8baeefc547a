//! Connection limits: counts open connections, in all and for each client. It does no I/O and closes nothing.
//!
//! The limits are arguments of each call, so a reload changes them for new connections and keeps the counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decide::Capacity;
use crate::domain::ClientKey;

/// The counts of clients are spread over this many locks, so that threads rarely wait for each other.
const SHARDS: usize = 32;
/// Connections over a limit that are accepted for one request, which gets 429 or 503. A tenth of the limit is added.
/// Beyond that a connection is closed: even a refusal costs memory and a TLS handshake.
const OVER_LIMIT_SLACK: usize = 16;

/// The open connections.
#[derive(Debug)]
pub(crate) struct Admission {
    open: AtomicUsize,
    clients: Box<[Mutex<HashMap<ClientKey, usize>>]>,
    hasher: RandomState,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    admission: Arc<Admission>,
    capacity: Capacity,
    /// None if the connections of the client are not counted.
    client: Option<ClientKey>,
}

/// So far over a limit that the connection is closed without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitReached;

// === impl Admission ===

impl Default for Admission {
    fn default() -> Self {
        let clients = (0..SHARDS).map(|_| Mutex::default()).collect();
        Admission { open: AtomicUsize::new(0), clients, hasher: RandomState::new() }
    }
}

impl Admission {
    /// Counts a connection. `limit` is `limits.connections`, or the default.
    pub(crate) fn enter(self: &Arc<Self>, limit: Option<usize>) -> Result<ConnectionPermit, LimitReached> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        // Made before the check, because its drop takes back the count of a refused connection too.
        let mut permit = ConnectionPermit { admission: self.clone(), capacity: Capacity::Available, client: None };
        if is_over(open, limit)? {
            permit.capacity = Capacity::ConnectionLimit;
        }
        Ok(permit)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn shard(&self, key: ClientKey) -> MutexGuard<'_, HashMap<ClientKey, usize>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.clients[hash].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ConnectionPermit ===

impl ConnectionPermit {
    /// Counts the connection for its client. `limit` is `limits.connections_per_client`; without it nothing is counted.
    pub(crate) fn count_client(&mut self, client: IpAddr, limit: Option<usize>) -> Result<(), LimitReached> {
        let Some(limit) = limit else { return Ok(()) };
        let key = ClientKey::of(client);
        let count = {
            let mut clients = self.admission.shard(key);
            let count = clients.entry(key).or_default();
            *count += 1;
            *count
        };
        self.client = Some(key);
        if is_over(count, Some(limit))? && self.capacity == Capacity::Available {
            self.capacity = Capacity::ClientLimit;
        }
        Ok(())
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.client else { return };
        let mut clients = self.admission.shard(key);
        if let Some(count) = clients.get_mut(&key) {
            *count -= 1;
            // Otherwise the map would grow with each new address.
            if *count == 0 {
                clients.remove(&key);
            }
        }
    }
}

/// Whether the count, which includes this connection, is over the limit. An error if it is over the slack too.
fn is_over(count: usize, limit: Option<usize>) -> Result<bool, LimitReached> {
    let Some(limit) = limit else { return Ok(false) };
    match count > limit.saturating_add(limit / 10).saturating_add(OVER_LIMIT_SLACK) {
        true => Err(LimitReached),
        false => Ok(count > limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn enter(
        admission: &Arc<Admission>,
        client: &str,
        all: Option<usize>,
        each: Option<usize>,
    ) -> Option<ConnectionPermit> {
        let mut permit = admission.enter(all).ok()?;
        permit.count_client(ip(client), each).ok()?;
        Some(permit)
    }

    #[test]
    fn without_limits_connections_are_counted_and_none_is_refused() {
        let admission = Arc::new(Admission::default());
        let permits: Vec<_> = (0..100).map(|_| enter(&admission, "192.0.2.1", None, None).unwrap()).collect();
        assert!(permits.iter().all(|permit| permit.capacity() == Capacity::Available));
        assert_eq!(admission.open(), 100);
        drop(permits);
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn connections_over_the_limit_are_accepted_up_to_the_slack() {
        let admission = Arc::new(Admission::default());
        let mut permits: Vec<_> = (0..200).map_while(|_| admission.enter(Some(40)).ok()).collect();
        assert_eq!(permits.len(), 40 + 4 + 16);
        assert!(permits[..40].iter().all(|permit| permit.capacity() == Capacity::Available));
        assert!(permits[40..].iter().all(|permit| permit.capacity() == Capacity::ConnectionLimit));
        assert_eq!(admission.open(), 60, "refused connections are not counted");
        permits.truncate(39);
        assert_eq!(
            admission.enter(Some(40)).unwrap().capacity(),
            Capacity::Available,
            "a closed connection is not counted any more"
        );
    }

    #[test]
    fn each_client_has_its_own_count() {
        let admission = Arc::new(Admission::default());
        let capacity = |client| enter(&admission, client, None, Some(2));
        let permits: Vec<_> =
            ["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"].map(|client| capacity(client).unwrap()).into();
        let capacities: Vec<_> = permits.iter().map(ConnectionPermit::capacity).collect();
        assert_eq!(capacities, [Capacity::Available, Capacity::Available, Capacity::ClientLimit, Capacity::Available]);
        drop(permits);
        assert_eq!(capacity("192.0.2.1").unwrap().capacity(), Capacity::Available);
    }

    #[test]
    fn an_ipv6_client_is_a_64_network() {
        let admission = Arc::new(Admission::default());
        let _first = enter(&admission, "2001:db8:0:1::1", None, Some(1)).unwrap();
        let second = enter(&admission, "2001:db8:0:1:ffff::2", None, Some(1)).unwrap();
        let other = enter(&admission, "2001:db8:0:2::1", None, Some(1)).unwrap();
        assert_eq!((second.capacity(), other.capacity()), (Capacity::ClientLimit, Capacity::Available));
    }

    #[test]
    fn the_limit_of_all_connections_comes_before_the_limit_of_the_client() {
        let admission = Arc::new(Admission::default());
        let _first = enter(&admission, "192.0.2.1", Some(1), Some(1)).unwrap();
        assert_eq!(enter(&admission, "192.0.2.1", Some(1), Some(1)).unwrap().capacity(), Capacity::ConnectionLimit);
    }

    #[test]
    fn closed_and_refused_connections_leave_no_counts() {
        let admission = Arc::new(Admission::default());
        let permits: Vec<_> = (0..30).filter_map(|_| enter(&admission, "192.0.2.1", None, Some(1))).collect();
        assert_eq!(permits.len(), 17);
        drop(permits);
        assert!(admission.clients.iter().all(|clients| clients.lock().unwrap().is_empty()));
        assert_eq!(admission.open(), 0);
    }

    /// A reload may add or remove a limit. A permit gives back exactly the counts that it took.
    #[test]
    fn limits_may_change_between_connections() {
        let admission = Arc::new(Admission::default());
        let uncounted = enter(&admission, "192.0.2.1", None, None).unwrap();
        let counted = enter(&admission, "192.0.2.1", None, Some(1)).unwrap();
        assert_eq!(counted.capacity(), Capacity::Available);
        drop(uncounted);
        assert_eq!(enter(&admission, "192.0.2.1", None, Some(1)).unwrap().capacity(), Capacity::ClientLimit);
    }
}
