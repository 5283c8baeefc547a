//! Looks up the DNS names of nodes. Each name is looked up once for all its nodes, and never on the thread of a request
//! or a reload.
//!
//! Lookups use the resolver of the system (`getaddrinfo`), because operators expect its answers: `/etc/hosts`, search
//! domains, `nsswitch.conf`, and changes of `resolv.conf` without a restart. It blocks, so lookups run on separate
//! threads, at most [`MAX_LOOKUPS`] at a time. A name has at most one running lookup, so an older answer cannot replace
//! a newer one. A name without a new answer keeps the addresses of its last answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use crate::logging::quoted;

/// Maximum number of simultaneous lookups, for all names.
const MAX_LOOKUPS: usize = 16;

/// The names that are looked up, and their last answers. It exists longer than a configuration.
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<Lookup>,
    state: Mutex<State>,
    /// Wakes the threads that are in [`Resolver::wait`].
    answered: Condvar,
    /// Notifies that the addresses of a name have changed.
    changed: Notify,
}

/// Looks up the addresses of a name. The ports of the result are not used.
pub(super) type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Name>,
    /// Names that wait for a lookup thread.
    queue: VecDeque<Arc<str>>,
    threads: usize,
}

#[derive(Default)]
struct Name {
    /// Addresses of the last successful lookup. None before the first one. Never empty.
    addresses: Option<Arc<[SocketAddr]>>,
    /// Error of the last lookup.
    error: Option<String>,
    /// True after the first lookup, successful or not.
    answered: bool,
    /// True if the name waits for a thread or is looked up.
    pending: bool,
}

// === impl Resolver ===

impl Resolver {
    /// Creates a resolver that uses the resolver of the system.
    pub(super) fn system() -> Self {
        Self::new(look_up)
    }

    pub(super) fn new(lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        let (state, answered, changed) = (Mutex::default(), Condvar::new(), Notify::new());
        Resolver(Arc::new(Shared { lookup: Box::new(lookup), state, answered, changed }))
    }

    /// Starts lookups of the names that are not known yet, and returns these names. Their lookups start before repeated
    /// lookups.
    pub(super) fn add(&self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let mut state = self.0.lock();
        let new: Vec<_> = names.iter().filter(|name| !state.names.contains_key(*name)).cloned().collect();
        for name in new.iter().rev() {
            state.names.insert(name.clone(), Name { pending: true, ..Name::default() });
            state.queue.push_front(name.clone());
        }
        self.0.start_threads(state);
        new
    }

    /// Starts new lookups of these names, except names with a running lookup.
    pub(super) fn refresh(&self, names: &[Arc<str>]) {
        let mut state = self.0.lock();
        for name in names {
            let entry = state.names.entry(name.clone()).or_default();
            if !std::mem::replace(&mut entry.pending, true) {
                state.queue.push_back(name.clone());
            }
        }
        self.0.start_threads(state);
    }

    /// Waits until the first lookup of each name has ended. Returns the names whose lookup is still running after
    /// `timeout`.
    pub(super) fn wait(&self, names: &[Arc<str>], timeout: Duration) -> Vec<Arc<str>> {
        let is_answered = |state: &State, name: &Arc<str>| state.names.get(name).is_none_or(|name| name.answered);
        let mut first = 0;
        let waiting = |state: &mut State| {
            while names.get(first).is_some_and(|name| is_answered(state, name)) {
                first += 1;
            }
            first < names.len()
        };
        let waited = self.0.answered.wait_timeout_while(self.0.lock(), timeout, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|name| !is_answered(&state, name)).cloned().collect()
    }

    /// Returns the addresses of the last successful lookup. Their port is not set.
    pub(super) fn addresses(&self, name: &str) -> Option<Arc<[SocketAddr]>> {
        self.0.lock().names.get(name)?.addresses.clone()
    }

    /// Removes all names that are not in `names`.
    pub(super) fn keep_only(&self, names: &[Arc<str>]) {
        let names: HashSet<&Arc<str>> = names.iter().collect();
        self.0.lock().names.retain(|name, entry| entry.pending || names.contains(name));
    }

    /// Waits until no lookup is running.
    #[cfg(test)]
    pub(super) fn wait_until_idle(&self) {
        let busy = |state: &mut State| state.names.values().any(|name| name.pending);
        let waited = self.0.answered.wait_timeout_while(self.0.lock(), Duration::from_secs(20), busy).unwrap();
        assert!(!waited.1.timed_out());
    }

    /// Waits until the addresses of a name have changed.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

// === impl Shared ===

impl Shared {
    /// Starts one lookup thread for each queued name, at most [`MAX_LOOKUPS`] in total. A thread ends when the queue is
    /// empty.
    fn start_threads(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        for _ in 0..state.queue.len().min(MAX_LOOKUPS - state.threads) {
            let shared = self.clone();
            match thread::Builder::new().name("dns".to_owned()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                // The running threads process the queue.
                Err(_) if state.threads > 0 => return,
                Err(error) => {
                    let queue = std::mem::take(&mut state.queue);
                    drop(state);
                    let error = format!("no thread for the lookup: {error}");
                    return queue.into_iter().for_each(|name| self.finish(&name, Err(io::Error::other(error.clone()))));
                }
            }
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some(name) = state.queue.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            self.finish(&name, (self.lookup)(&name));
        }
    }

    /// Records the end of a lookup. The log has one line for each change, not for each lookup.
    fn finish(&self, name: &str, result: io::Result<Vec<SocketAddr>>) {
        let result = result.and_then(|mut addresses| {
            addresses.iter_mut().for_each(|address| address.set_port(0));
            // Resolvers rotate their answers, so only a different set of addresses is a change.
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
        });
        let mut state = self.lock();
        let Some(entry) = state.names.get_mut(name) else { return };
        (entry.pending, entry.answered) = (false, true);
        let failed_before = entry.error.take();
        let (mut changed, mut error) = (false, None);
        match result {
            Ok(addresses) => {
                changed = entry.addresses.as_deref() != Some(&addresses);
                if changed {
                    entry.addresses = Some(addresses.into());
                }
            }
            Err(failed) => {
                error = Some(failed.to_string());
                entry.error.clone_from(&error);
            }
        }
        drop(state);
        self.answered.notify_all();
        if changed {
            self.changed.notify_one();
        }
        match error {
            None if failed_before.is_some() => log::info!("name lookup works again name={name}"),
            Some(error) if failed_before.as_ref() != Some(&error) => {
                log::warn!("name lookup failed name={name} error={}", quoted(error));
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === the resolver of the system ===

/// Returns the addresses to which this host has a route. On a host without IPv6, a node with an IPv6 address would
/// always fail. If no address has a route, it returns all of them. The error of the connection then tells the reason.
fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let all: Vec<SocketAddr> = (name, 0).to_socket_addrs()?.collect();
    let with_route: Vec<SocketAddr> = all.iter().copied().filter(|address| has_route(*address)).collect();
    Ok(if with_route.is_empty() { all } else { with_route })
}

/// Returns false only if the system reports that there is no route. It sends no packet: connecting a UDP socket only
/// searches a route.
fn has_route(mut address: SocketAddr) -> bool {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Some systems cannot connect to port 0.
    address.set_port(9);
    let connected = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.connect(address));
    !connected.is_err_and(|error| {
        use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, Unsupported};
        // EAFNOSUPPORT means that the system has no IPv6.
        matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable | Unsupported)
            || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 0))
    }

    fn known(resolver: &Resolver, name: &str) -> Vec<SocketAddr> {
        resolver.addresses(name).map(|addresses| addresses.to_vec()).unwrap_or_default()
    }

    #[test]
    fn lookups_are_shared_and_at_most_16_at_a_time() {
        let (running, most, all) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (most_in_lookup, all_in_lookup) = (most.clone(), all.clone());
        let resolver = Resolver::new(move |_| {
            most_in_lookup.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            all_in_lookup.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(vec![address(1)])
        });
        let many: Vec<Arc<str>> = (0..100).map(|i| format!("n{i}.test").into()).collect();
        assert_eq!(resolver.add(&many).len(), 100);
        assert!(resolver.add(&many).is_empty(), "the second time no name is new");
        assert!(resolver.wait(&many, PATIENCE).is_empty());
        assert_eq!(all.load(Ordering::SeqCst), 100);
        assert!((2..=16).contains(&most.load(Ordering::SeqCst)), "{most:?} at a time");
    }

    #[test]
    fn a_name_keeps_its_addresses_while_lookups_fail() {
        let (answers, next) = mpsc::channel::<io::Result<Vec<SocketAddr>>>();
        let next = Mutex::new(next);
        let resolver = Resolver::new(move |_| next.lock().unwrap().recv().unwrap());
        let api = names(&["api.test"]);
        resolver.add(&api);
        answers.send(Ok(vec![address(2), address(1), address(2)])).unwrap();
        assert!(resolver.wait(&api, PATIENCE).is_empty());
        assert_eq!(known(&resolver, "api.test"), [address(1), address(2)], "sorted, each once");
        for failure in [Err(io::Error::other("no such host")), Ok(vec![])] {
            resolver.refresh(&api);
            answers.send(failure).unwrap();
            resolver.wait_until_idle();
            assert_eq!(known(&resolver, "api.test"), [address(1), address(2)]);
        }
        resolver.refresh(&api);
        answers.send(Ok(vec![address(3)])).unwrap();
        resolver.wait_until_idle();
        assert_eq!(known(&resolver, "api.test"), [address(3)]);
        resolver.keep_only(&[]);
        assert_eq!(known(&resolver, "api.test"), [], "a name that no configuration has");
    }

    /// With two lookups at a time, a slow answer could replace a later answer.
    #[test]
    fn a_name_has_one_lookup_at_a_time() {
        let (started, starts) = mpsc::channel();
        let (answer, answers) = mpsc::channel::<u8>();
        let answers = Mutex::new(answers);
        let resolver = Resolver::new(move |_| {
            started.send(()).unwrap();
            Ok(vec![address(answers.lock().unwrap().recv().unwrap())])
        });
        let api = names(&["api.test"]);
        resolver.add(&api);
        starts.recv_timeout(PATIENCE).unwrap();
        for _ in 0..10 {
            resolver.refresh(&api);
        }
        answer.send(1).unwrap();
        resolver.wait_until_idle();
        assert_eq!(known(&resolver, "api.test"), [address(1)]);
        assert!(starts.try_recv().is_err(), "no second lookup began");
    }

    #[test]
    fn a_new_name_does_not_wait_behind_names_that_are_looked_up_again() {
        let (asked, order) = mpsc::channel::<String>();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let resolver = Resolver::new(move |name| {
            asked.send(name.to_owned()).unwrap();
            gate.lock().unwrap().recv().unwrap();
            Ok(vec![address(1)])
        });
        let old: Vec<Arc<str>> = (0..100).map(|i| format!("n{i}.test").into()).collect();
        resolver.refresh(&old);
        (0..MAX_LOOKUPS).for_each(|_| drop(order.recv_timeout(PATIENCE).unwrap()));
        resolver.add(&names(&["new.test"]));
        go.send(()).unwrap();
        assert_eq!(order.recv_timeout(PATIENCE).unwrap(), "new.test");
        (0..100).for_each(|_| go.send(()).unwrap());
        resolver.wait_until_idle();
    }

    #[test]
    fn a_wait_for_a_resolver_that_does_not_answer_ends() {
        let (go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let resolver = Resolver::new(move |name| {
            if name == "slow.test" {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(vec![address(1)])
        });
        let both = names(&["slow.test", "fast.test"]);
        resolver.add(&both);
        assert!(resolver.wait(&both[1..], PATIENCE).is_empty());
        assert_eq!(resolver.wait(&both, Duration::from_millis(10)), both[..1]);
        drop(go);
        assert!(resolver.wait(&both, PATIENCE).is_empty());
    }

    #[test]
    fn localhost_is_found_and_has_a_route() {
        let found = look_up("localhost").unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(has_route(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert!(look_up("nowhere.invalid").is_err());
    }
}
