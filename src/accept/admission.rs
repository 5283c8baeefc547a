//! Who may come in: how many connections are open, in all and of each client.
//!
//! Counting is all that happens here. Limits come with each question, so that those of the configuration in force
//! count; what is counted already goes on being counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decide::Capacity;

/// Locks are shared by clients: few enough to be small, many enough that threads rarely meet.
const SHARDS: usize = 32;
/// How many connections may come on top of a limit, to be told so. A tenth of the limit is added.
const WAITING_ROOM: usize = 16;

/// The open connections.
#[derive(Debug)]
pub(crate) struct Admission {
    open: AtomicUsize,
    clients: Box<[Mutex<HashMap<Key, usize>>]>,
    hasher: RandomState,
}

/// One connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    admission: Arc<Admission>,
    capacity: Capacity,
    /// None while connections of its client are not counted.
    client: Option<Key>,
}

/// There is not even room to say that there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitReached;

/// A client: an IPv4 address, or a /64 of IPv6, which is what one subscriber has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    V4([u8; 4]),
    V6([u8; 8]),
}

// === impl Admission ===

impl Default for Admission {
    fn default() -> Self {
        let clients = (0..SHARDS).map(|_| Mutex::default()).collect();
        Admission { open: AtomicUsize::new(0), clients, hasher: RandomState::new() }
    }
}

impl Admission {
    /// Counts a connection. `limit` is for all of them.
    pub(crate) fn enter(self: &Arc<Self>, limit: Option<usize>) -> Result<ConnectionPermit, LimitReached> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        // From here on leaving is counted, however it happens.
        let mut entry = ConnectionPermit { admission: self.clone(), capacity: Capacity::Available, client: None };
        if is_over(open, limit)? {
            entry.capacity = Capacity::ConnectionLimit;
        }
        Ok(entry)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, usize>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.clients[hash].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ConnectionPermit ===

impl ConnectionPermit {
    /// Counts the connection as its client's. `limit` is for each client; without one nothing is counted.
    pub(crate) fn identify(&mut self, client: IpAddr, limit: Option<usize>) -> Result<(), LimitReached> {
        let Some(limit) = limit else { return Ok(()) };
        let key = Key::of(client);
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

    /// How the connection is to be treated.
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
            // A client that is gone leaves nothing behind, or addresses would pile up.
            if *count == 0 {
                clients.remove(&key);
            }
        }
    }
}

/// Whether the count, this connection included, is over the limit, but not by so much that nothing can be said.
fn is_over(count: usize, limit: Option<usize>) -> Result<bool, LimitReached> {
    let Some(limit) = limit else { return Ok(false) };
    match count > limit.saturating_add(limit / 10).saturating_add(WAITING_ROOM) {
        true => Err(LimitReached),
        false => Ok(count > limit),
    }
}

impl Key {
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Key::V4(address.octets()),
            IpAddr::V6(address) => {
                let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
                Key::V6(network)
            }
        }
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
        let mut entry = admission.enter(all).ok()?;
        entry.identify(ip(client), each).ok()?;
        Some(entry)
    }

    #[test]
    fn without_limits_there_is_room_and_connections_are_counted() {
        let admission = Arc::new(Admission::default());
        let entries: Vec<_> = (0..100).map(|_| enter(&admission, "192.0.2.1", None, None).unwrap()).collect();
        assert!(entries.iter().all(|entry| entry.capacity() == Capacity::Available));
        assert_eq!(admission.open(), 100);
        drop(entries);
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn what_is_over_the_limit_is_told_so_and_what_is_far_over_is_not() {
        let admission = Arc::new(Admission::default());
        let mut entries: Vec<_> = (0..200).map_while(|_| admission.enter(Some(40)).ok()).collect();
        assert_eq!(entries.len(), 40 + 4 + 16);
        assert!(entries[..40].iter().all(|entry| entry.capacity() == Capacity::Available));
        assert!(entries[40..].iter().all(|entry| entry.capacity() == Capacity::ConnectionLimit));
        assert_eq!(admission.open(), 60, "those who were turned away are not there");
        entries.truncate(39);
        assert_eq!(admission.enter(Some(40)).unwrap().capacity(), Capacity::Available, "there is room again");
    }

    #[test]
    fn each_client_has_a_limit_of_its_own() {
        let admission = Arc::new(Admission::default());
        let capacity = |client| enter(&admission, client, None, Some(2));
        let entries: Vec<_> =
            ["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"].map(|client| capacity(client).unwrap()).into();
        let crowds: Vec<_> = entries.iter().map(ConnectionPermit::capacity).collect();
        assert_eq!(crowds, [Capacity::Available, Capacity::Available, Capacity::ClientLimit, Capacity::Available]);
        drop(entries);
        assert_eq!(capacity("192.0.2.1").unwrap().capacity(), Capacity::Available);
    }

    #[test]
    fn a_client_of_ipv6_is_a_network() {
        let admission = Arc::new(Admission::default());
        let _first = enter(&admission, "2001:db8:0:1::1", None, Some(1)).unwrap();
        let second = enter(&admission, "2001:db8:0:1:ffff::2", None, Some(1)).unwrap();
        let other = enter(&admission, "2001:db8:0:2::1", None, Some(1)).unwrap();
        assert_eq!((second.capacity(), other.capacity()), (Capacity::ClientLimit, Capacity::Available));
    }

    #[test]
    fn the_whole_house_being_full_counts_before_the_client() {
        let admission = Arc::new(Admission::default());
        let _first = enter(&admission, "192.0.2.1", Some(1), Some(1)).unwrap();
        assert_eq!(enter(&admission, "192.0.2.1", Some(1), Some(1)).unwrap().capacity(), Capacity::ConnectionLimit);
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left_or_were_turned_away() {
        let admission = Arc::new(Admission::default());
        let entries: Vec<_> = (0..30).filter_map(|_| enter(&admission, "192.0.2.1", None, Some(1))).collect();
        assert_eq!(entries.len(), 17);
        drop(entries);
        assert!(admission.clients.iter().all(|clients| clients.lock().unwrap().is_empty()));
        assert_eq!(admission.open(), 0);
    }

    /// A limit that a reload takes away or brings must not unbalance the counts.
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
