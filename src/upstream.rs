//! Upstreams while they run: the addresses behind their names, how those are, and which of them a request goes to.
//!
//! What is configured stands in [`crate::snapshot::Upstream`]; this is the part that changes without a reload, and that
//! survives one when the configuration of the upstream is the same. There are two sides:
//!
//! - Requests [`pick`](RunningUpstream::pick) an [`Endpoint`] from a [`Pool`](pool::Pool) that was laid out before, and count
//!   on the endpoint what comes of it. They take no lock and allocate nothing.
//! - Everything that changes who may be picked goes through one mutex: looked up names, checks, failures in a row, time
//!   that passes. Each of these lays out a new pool, if there is a difference.
//!
//! An endpoint is available when checks have nothing against it (healthy) and its requests have not just failed
//! several times in a row (ejected). Ejection never leaves nobody: it does not take the last one out, and when all that
//! are healthy are ejected, they are used all the same. What checks say is always believed.
//!
//! No clock is read here, no name is looked up, and nothing is logged: callers do that.

mod endpoint;
mod hash;
pub(crate) mod peer;
mod pool;
mod state;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use arc_swap::ArcSwap;

pub(crate) use self::endpoint::{ActiveRequest, Endpoint, Slot};
pub use self::hash::key;
use self::pool::Pool;
use self::state::State;
pub(crate) use self::state::{Change, RAMP_STEPS};
use crate::counter::Counter;
use crate::snapshot;

/// A running upstream.
#[derive(Debug)]
pub struct RunningUpstream {
    settings: snapshot::Upstream,
    /// Unlike any other's in this process.
    id: u64,
    /// Those that may be picked.
    pool: ArcSwap<Pool>,
    /// All that are known.
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Counts picks.
    turn: AtomicUsize,
    /// What makes `random` another row of numbers in each process.
    salt: u64,
    /// What is known of each endpoint. Picks never take this lock.
    known: Mutex<Vec<EndpointEntry>>,
    /// Whether [`Self::tick`] has something to do.
    waiting: AtomicBool,
    counts: UpstreamCounts,
    slot: Slot,
}

/// What was counted of an upstream since it runs.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCounts {
    /// Tries on another node, after one had failed.
    pub(crate) retries: Counter,
    /// Tries on the same node, after a connection from an earlier request had ended.
    pub(crate) reconnects: Counter,
}

#[derive(Debug)]
struct EndpointEntry {
    endpoint: Arc<Endpoint>,
    state: State,
}

/// Why there is nobody to pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// No name has an address.
    Unresolved,
    /// Checks fail everywhere.
    AllUnhealthy,
    /// Everybody was tried.
    Exhausted,
}

/// How an endpoint is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointStatus {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Whether checks have nothing against it; true without checks.
    pub(crate) healthy: bool,
    /// Whether it is out for a while because requests have failed.
    pub(crate) ejected: bool,
    /// Requests under way.
    pub(crate) active: usize,
    /// Tries that have failed: without a connection, or without a response.
    pub(crate) failures: u64,
}

impl RunningUpstream {
    /// Starts with the nodes that are written as addresses. Those that are names need a [`Self::refresh`].
    pub fn new(spec: snapshot::Upstream) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let addresses = spec.nodes.iter().enumerate().filter(|(_, node)| node.weight > 0);
        let addresses = addresses.filter_map(|(i, node)| {
            let ip = node.host.parse::<IpAddr>().ok()?;
            Some(EndpointEntry::new(i, SocketAddr::new(ip, node.port), node.weight))
        });
        let known: Vec<EndpointEntry> = addresses.collect();
        let upstream = RunningUpstream {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            pool: ArcSwap::default(),
            endpoints: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            salt: RandomState::new().hash_one(()),
            known: Mutex::default(),
            waiting: AtomicBool::new(false),
            counts: UpstreamCounts::default(),
            slot: Slot::default(),
            settings: spec,
        };
        *upstream.lock() = known;
        upstream.lay_out(&upstream.lock(), None);
        upstream
    }

    /// As configured.
    pub(crate) fn settings(&self) -> &snapshot::Upstream {
        &self.settings
    }

    /// A number that no other running upstream of the process has or had, not even one of the same name.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What was counted of it.
    pub(crate) fn counts(&self) -> &UpstreamCounts {
        &self.counts
    }

    /// For what others work out once for this upstream.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    // --- requests

    /// The endpoint for a request, by the configured balance, other than those that were `tried` for it. `key` is what
    /// the request is hashed by; one without goes by schedule.
    pub fn pick(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Result<ActiveRequest, PickError> {
        let pool = self.pool.load();
        // A second try takes no turn: of two nodes, of which the first is dead, it would be the dead one's again.
        let turn = match tried {
            [] => self.turn.fetch_add(1, Ordering::Relaxed),
            _ => self.turn.load(Ordering::Relaxed),
        };
        match pool.choose(&self.settings.balance, key, turn, self.salt, tried) {
            Some(endpoint) => Ok(ActiveRequest::at(endpoint)),
            None if !pool.is_empty() => Err(PickError::Exhausted),
            None if self.endpoints.load().is_empty() => Err(PickError::Unresolved),
            None => Err(PickError::AllUnhealthy),
        }
    }

    /// A request has got a response.
    pub fn succeeded(&self, endpoint: &Endpoint) {
        endpoint.succeeded();
    }

    /// A request has failed at the endpoint, before there was a response. Tells when that takes it out.
    pub(crate) fn failed(&self, endpoint: &Arc<Endpoint>, now: Instant) -> Option<Change> {
        let failures = endpoint.failed();
        let ejection = self.settings.ejection.as_ref().filter(|ejection| failures >= ejection.after)?;
        let mut known = self.lock();
        let others = known.iter().filter(|known| known.state.is_available() && !Arc::ptr_eq(&known.endpoint, endpoint));
        if others.count() == 0 {
            return None;
        }
        let found = known.iter_mut().find(|known| Arc::ptr_eq(&known.endpoint, endpoint))?;
        if !found.state.is_available() {
            return None;
        }
        found.state.eject(now + ejection.time);
        endpoint.counts().ejections.add(1);
        self.lay_out(&known, Some(now));
        Some(Change::Ejected)
    }

    // --- what happens beside requests

    /// All endpoints that are known, available or not.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// How the endpoints are, in the order of the configuration.
    pub(crate) fn statuses(&self) -> Vec<EndpointStatus> {
        let condition = |EndpointEntry { endpoint, state }: &EndpointEntry| EndpointStatus {
            address: endpoint.address(),
            healthy: state.is_healthy(),
            ejected: state.is_ejected(),
            active: endpoint.active(),
            failures: endpoint.counts().connect_failures.get() + endpoint.counts().no_responses.get(),
        };
        self.lock().iter().map(condition).collect()
    }

    /// A check of the endpoint has come to its end. Tells when that takes it out or brings it back.
    pub(crate) fn checked(&self, endpoint: &Arc<Endpoint>, passed: bool, now: Instant) -> Option<Change> {
        let check = self.settings.health_check.as_ref()?;
        let mut known = self.lock();
        let found = known.iter_mut().find(|known| Arc::ptr_eq(&known.endpoint, endpoint))?;
        let change = found.state.checked(passed, check, now)?;
        if change == Change::Up {
            found.endpoint.set_failures(0);
        }
        self.lay_out(&known, Some(now));
        Some(change)
    }

    /// Lets time pass: ends ejections, and lets the shares of those that are back grow. To be called often, for it sets
    /// how exact such times are; it costs nothing while nobody waits. Tells who has returned.
    pub(crate) fn tick(&self, now: Instant) -> Vec<Arc<Endpoint>> {
        if !self.waiting.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut known = self.lock();
        let mut returned = Vec::new();
        for EndpointEntry { endpoint, state } in known.iter_mut() {
            if state.tick(now, self.settings.slow_start) == Some(Change::Returned) {
                // Who has returned may not fail again before it has succeeded once.
                endpoint.set_failures(self.settings.ejection.as_ref().map_or(0, |ejection| ejection.after - 1));
                returned.push(endpoint.clone());
            }
        }
        self.lay_out(&known, Some(now));
        returned
    }

    /// Whether some node is a name, and must be looked up again from time to time.
    pub(crate) fn has_names(&self) -> bool {
        self.settings.nodes.iter().any(|node| node.host.parse::<IpAddr>().is_err())
    }

    /// Looks all names up. A name that cannot be looked up keeps the addresses that it had: a broken resolver must not
    /// take down what works. Addresses that stay keep all that is known of them. Returns the names that have failed.
    pub(crate) fn refresh(
        &self,
        now: Instant,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    ) -> Vec<(String, io::Error)> {
        // Looking up takes its time, and is not done under the lock.
        let names = self.settings.nodes.iter().enumerate();
        let names = names.filter(|(_, node)| node.weight > 0 && node.host.parse::<IpAddr>().is_err());
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for (i, node) in names {
            match lookup(&node.host, node.port) {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(mut addresses) => {
                    // Resolvers rotate their answers; only a different set of addresses is a change.
                    addresses.sort_unstable();
                    addresses.dedup();
                    found.push((i, addresses));
                }
                Err(error) => failed.push((node.host.to_string(), error)),
            }
        }
        let mut known = self.lock();
        for (i, addresses) in found {
            let (mut of_node, others): (Vec<_>, Vec<_>) = known.drain(..).partition(|known| known.endpoint.node() == i);
            *known = others;
            for address in addresses {
                let same = of_node.iter().position(|known| known.endpoint.address() == address);
                known.push(match same {
                    Some(same) => of_node.swap_remove(same),
                    None => EndpointEntry::new(i, address, self.settings.nodes[i].weight),
                });
            }
        }
        known.sort_by_key(|known| (known.endpoint.node(), known.endpoint.address()));
        self.lay_out(&known, Some(now));
        failed
    }

    // --- in common

    fn lock(&self) -> MutexGuard<'_, Vec<EndpointEntry>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Publishes what follows from what is known. Without a time every share is whole.
    fn lay_out(&self, known: &[EndpointEntry], now: Option<Instant>) {
        let available = known.iter().any(|known| known.state.is_available());
        let usable = |known: &&EndpointEntry| match available {
            true => known.state.is_available(),
            false => known.state.is_healthy(),
        };
        let ramp =
            |known: &EndpointEntry| now.map_or(RAMP_STEPS, |now| known.state.ramp(now, self.settings.slow_start));
        let weighted = |known: &EndpointEntry| (known.endpoint.clone(), known.endpoint.weight() * ramp(known));
        if let Some(pool) = self.pool.load().replaced_by(known.iter().filter(usable).map(weighted)) {
            self.pool.store(Arc::new(pool));
        }
        let same = |(known, endpoint): (&EndpointEntry, &Arc<Endpoint>)| Arc::ptr_eq(&known.endpoint, endpoint);
        let endpoints = self.endpoints.load();
        if known.len() != endpoints.len() || !known.iter().zip(endpoints.iter()).all(same) {
            self.endpoints.store(Arc::new(known.iter().map(|known| known.endpoint.clone()).collect()));
        }
        self.waiting.store(known.iter().any(|known| known.state.waits()), Ordering::Relaxed);
    }
}

impl EndpointEntry {
    fn new(node: usize, address: SocketAddr, weight: u32) -> Self {
        EndpointEntry { endpoint: Arc::new(Endpoint::new(node, address, weight)), state: State::NEW }
    }
}

/// Looks a name up with the system's resolver. Blocks.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::snapshot::{Balance, Ejection, HashOn, HealthCheck, Node, Timeouts};

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(nodes: &[(&str, u32)]) -> snapshot::Upstream {
        let nodes = nodes.iter().map(|(host, weight)| Node { host: (*host).into(), port: 80, weight: *weight });
        snapshot::Upstream {
            name: "test".into(),
            nodes: nodes.collect(),
            balance: Balance::RoundRobin,
            timeouts: Timeouts {
                connect: SECOND,
                read: SECOND,
                write: SECOND,
                idle: SECOND,
                total: None,
                websocket: SECOND,
            },
            retries: 1,
            http2: false,
            tls: None,
            health_check: Some(HealthCheck {
                http: None,
                interval: SECOND,
                timeout: SECOND,
                healthy_after: 1,
                unhealthy_after: 1,
            }),
            ejection: Some(Ejection { after: 3, time: 10 * SECOND }),
            slow_start: None,
        }
    }

    fn upstream(nodes: &[(&str, u32)]) -> RunningUpstream {
        RunningUpstream::new(spec(nodes))
    }

    fn three() -> RunningUpstream {
        upstream(&[("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)])
    }

    /// The last digits of the addresses that are picked.
    fn picks(upstream: &RunningUpstream, n: usize) -> String {
        let last = |picked: ActiveRequest| picked.address().ip().to_string().chars().last().unwrap();
        (0..n).map_while(|_| upstream.pick(None, &[]).ok()).map(last).collect()
    }

    /// Those that are picked, each once.
    fn available(upstream: &RunningUpstream) -> String {
        let mut picked: Vec<char> = picks(upstream, 60).chars().collect();
        picked.sort_unstable();
        picked.dedup();
        picked.into_iter().collect()
    }

    /// The endpoint whose address ends in the digit.
    fn the(upstream: &RunningUpstream, digit: u8) -> Arc<Endpoint> {
        let ends = |endpoint: &&Arc<Endpoint>| endpoint.address().ip().to_string().ends_with(char::from(b'0' + digit));
        upstream.endpoints().iter().find(ends).expect("an endpoint of this address").clone()
    }

    fn fail(upstream: &RunningUpstream, digit: u8, times: u32, now: Instant) -> Vec<Option<Change>> {
        (0..times).map(|_| upstream.failed(&the(upstream, digit), now)).collect()
    }

    fn tick(upstream: &RunningUpstream, now: Instant) -> usize {
        upstream.tick(now).len()
    }

    #[test]
    fn a_retry_goes_to_another_address_while_there_is_one() {
        let upstream = upstream(&[("10.0.0.1", 100), ("10.0.0.2", 1), ("10.0.0.3", 0)]);
        let first = upstream.pick(None, &[]).unwrap().endpoint().clone();
        let second = upstream.pick(None, std::slice::from_ref(&first)).unwrap().endpoint().clone();
        assert_ne!(first.address(), second.address());
        assert_eq!(
            upstream.pick(None, &[first, second]).unwrap_err(),
            PickError::Exhausted,
            "one without a weight is nobody"
        );
    }

    #[test]
    fn a_retry_takes_no_turn() {
        let upstream = upstream(&[("10.0.0.1", 1), ("10.0.0.2", 1)]);
        let dead = the(&upstream, 1);
        let first_tries: Vec<bool> = (0..20)
            .map(|_| {
                let is_dead = Arc::ptr_eq(upstream.pick(None, &[]).unwrap().endpoint(), &dead);
                if is_dead {
                    upstream.pick(None, std::slice::from_ref(&dead)).unwrap();
                }
                is_dead
            })
            .collect();
        assert_eq!(first_tries.iter().filter(|is_dead| **is_dead).count(), 10, "and not each time");
    }

    #[test]
    fn requests_under_way_are_counted() {
        let upstream = upstream(&[("10.0.0.1", 1)]);
        let requests = [(); 3].map(|()| upstream.pick(None, &[]).unwrap());
        assert_eq!(upstream.statuses()[0].active, 3);
        drop(requests);
        assert_eq!(upstream.statuses()[0].active, 0);
    }

    #[test]
    fn names_are_looked_up_and_keep_what_they_had() {
        let upstream = upstream(&[("10.0.0.1", 1), ("api.internal", 1)]);
        let now = Instant::now();
        assert!(upstream.has_names());
        assert_eq!(picks(&upstream, 2), "11");

        let lookup = |answers: &HashMap<&str, Vec<&str>>, host: &str| match answers.get(host) {
            Some(found) => Ok(found.iter().map(|address| address.parse().unwrap()).collect()),
            None => Err(io::Error::other("no such host")),
        };
        let mut answers = HashMap::from([("api.internal", vec!["10.0.0.8:80", "10.0.0.9:80"])]);
        assert!(upstream.refresh(now, |host, _| lookup(&answers, host)).is_empty());
        assert_eq!(available(&upstream), "189");

        let before = upstream.pool.load_full();
        answers.insert("api.internal", vec!["10.0.0.9:80", "10.0.0.8:80"]);
        upstream.refresh(now, |host, _| lookup(&answers, host));
        assert!(Arc::ptr_eq(&before, &upstream.pool.load_full()), "another order is no change");

        answers.clear();
        assert_eq!(upstream.refresh(now, |host, _| lookup(&answers, host))[0].0, "api.internal");
        assert_eq!(available(&upstream), "189", "the last known ones stay");
    }

    #[test]
    fn an_address_keeps_its_state_when_its_name_is_looked_up_again() {
        let upstream = upstream(&[("api.internal", 1)]);
        let now = Instant::now();
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::Unresolved);
        let answer = |addresses: &[&str]| {
            let found: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            upstream.refresh(now, |_, _| Ok(found.clone()));
        };
        answer(&["10.0.0.1:80", "10.0.0.2:80"]);
        let (one, two) = (the(&upstream, 1), the(&upstream, 2));
        let under_way = upstream.pick(None, std::slice::from_ref(&two)).unwrap();
        upstream.checked(&two, false, now);
        assert_eq!(available(&upstream), "1");

        answer(&["10.0.0.3:80", "10.0.0.2:80", "10.0.0.1:80"]);
        assert!(Arc::ptr_eq(&one, &the(&upstream, 1)) && Arc::ptr_eq(&two, &the(&upstream, 2)));
        assert_eq!(available(&upstream), "13", "2 is still down, and 3 is new");
        assert_eq!(upstream.statuses().iter().map(|one| one.active).collect::<Vec<_>>(), [1, 0, 0]);

        answer(&["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(available(&upstream), "3");
        assert_eq!(upstream.failed(&one, now), None, "who is gone can fail as it likes");
        assert_eq!(upstream.checked(&one, false, now), None);
        drop(under_way);
        answer(&["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(!Arc::ptr_eq(&one, &the(&upstream, 1)), "who comes back is somebody new");
    }

    #[test]
    fn checks_take_out_and_bring_back_even_the_last() {
        let (upstream, now) = (three(), Instant::now());
        for digit in [1, 2, 3] {
            assert_eq!(upstream.checked(&the(&upstream, digit), false, now), Some(Change::Down));
        }
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::AllUnhealthy);
        assert_eq!(upstream.checked(&the(&upstream, 2), true, now), Some(Change::Up));
        assert_eq!(available(&upstream), "2");
        let healthy: Vec<bool> = upstream.statuses().iter().map(|condition| condition.healthy).collect();
        assert_eq!(healthy, [false, true, false]);
    }

    #[test]
    fn failures_in_a_row_eject_for_a_while() {
        let (upstream, start) = (three(), Instant::now());
        assert_eq!(fail(&upstream, 1, 2, start), [None, None]);
        upstream.succeeded(&the(&upstream, 1));
        assert_eq!(fail(&upstream, 1, 2, start), [None, None], "a success begins a new row");
        assert_eq!(available(&upstream), "123");
        assert_eq!(fail(&upstream, 1, 1, start), [Some(Change::Ejected)]);
        assert_eq!(available(&upstream), "23");
        assert_eq!(fail(&upstream, 1, 5, start + SECOND), [None; 5], "requests that were still there");

        assert_eq!(tick(&upstream, start + Duration::from_millis(9999)), 0);
        assert_eq!(available(&upstream), "23");
        assert_eq!(tick(&upstream, start + 10 * SECOND), 1);
        assert_eq!(available(&upstream), "123");
    }

    #[test]
    fn who_returns_may_not_fail_before_it_has_succeeded() {
        let (upstream, start) = (three(), Instant::now());
        fail(&upstream, 1, 3, start);
        tick(&upstream, start + 10 * SECOND);
        assert_eq!(fail(&upstream, 1, 1, start + 11 * SECOND), [Some(Change::Ejected)]);
        assert_eq!(tick(&upstream, start + 20 * SECOND), 0, "the time runs anew");
        assert_eq!(tick(&upstream, start + 21 * SECOND), 1);
        upstream.succeeded(&the(&upstream, 1));
        assert_eq!(fail(&upstream, 1, 3, start + 22 * SECOND), [None, None, Some(Change::Ejected)]);
    }

    #[test]
    fn ejection_never_takes_the_last_one() {
        let (upstream, start) = (three(), Instant::now());
        assert_eq!(fail(&upstream, 1, 3, start)[2], Some(Change::Ejected));
        assert_eq!(fail(&upstream, 2, 3, start)[2], Some(Change::Ejected));
        assert_eq!(fail(&upstream, 3, 30, start), [None; 30]);
        assert_eq!(available(&upstream), "3");
        // It is out at its next failure, once somebody else is back.
        assert_eq!(tick(&upstream, start + 10 * SECOND), 2);
        assert_eq!(fail(&upstream, 3, 1, start + 10 * SECOND), [Some(Change::Ejected)]);
        assert_eq!(available(&upstream), "12");
    }

    #[test]
    fn whoever_is_only_ejected_is_better_than_nobody() {
        let (upstream, now) = (three(), Instant::now());
        fail(&upstream, 1, 3, now);
        upstream.checked(&the(&upstream, 2), false, now);
        upstream.checked(&the(&upstream, 3), false, now);
        assert_eq!(available(&upstream), "1", "the only one that checks have nothing against");
        upstream.checked(&the(&upstream, 1), false, now);
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::AllUnhealthy);
        upstream.checked(&the(&upstream, 3), true, now);
        assert_eq!(available(&upstream), "3");
    }

    #[test]
    fn without_ejection_nobody_is_ejected() {
        let upstream =
            RunningUpstream::new(snapshot::Upstream { ejection: None, ..spec(&[("10.0.0.1", 1), ("10.0.0.2", 1)]) });
        assert_eq!(fail(&upstream, 1, 1000, Instant::now()), [None; 1000]);
        assert_eq!(available(&upstream), "12");
    }

    /// Percent of the picks that go to the first of two.
    fn ramp(upstream: &RunningUpstream) -> usize {
        picks(upstream, 1100).matches('1').count() * 100 / 1100
    }

    #[test]
    fn who_is_back_gets_its_share_slowly() {
        let slow = |nodes| RunningUpstream::new(snapshot::Upstream { slow_start: Some(10 * SECOND), ..spec(nodes) });
        let upstream = slow(&[("10.0.0.1", 5), ("10.0.0.2", 5)]);
        let start = Instant::now();
        assert_eq!(ramp(&upstream), 50, "not at the start");
        upstream.checked(&the(&upstream, 1), false, start);
        upstream.checked(&the(&upstream, 1), true, start);
        let later = |seconds: u32| {
            upstream.tick(start + seconds * SECOND);
            ramp(&upstream)
        };
        assert_eq!([0, 1, 4, 8, 9, 100].map(later), [9, 16, 33, 47, 50, 50]);
        assert!(!upstream.waiting.load(Ordering::Relaxed), "and then nobody looks any more");

        // The same after an ejection.
        fail(&upstream, 1, 3, start + 100 * SECOND);
        assert_eq!([109, 110, 119].map(later), [0, 9, 50]);
    }

    #[test]
    fn a_hash_without_a_key_goes_by_turns() {
        let balance = Balance::Hash(HashOn::ClientAddress);
        let upstream =
            RunningUpstream::new(snapshot::Upstream { balance, ..spec(&[("10.0.0.1", 1), ("10.0.0.2", 1)]) });
        assert_eq!(picks(&upstream, 6), "121212");
        let of = |tenant: &str| upstream.pick(Some(key(tenant.as_bytes())), &[]).unwrap().address();
        assert!((0..100).all(|_| of("a") == of("a")));
        assert!((0..100).any(|i| of(&i.to_string()) != of("a")));
    }

    #[test]
    fn many_threads_pick_while_the_pool_changes() {
        let upstream = three();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let picked = upstream.pick(None, &[]).expect("there is always somebody");
                        upstream.succeeded(&picked);
                    }
                });
            }
            for i in 0..200 {
                let one = the(&upstream, 1 + u8::try_from(i % 3).unwrap());
                upstream.checked(&one, false, start);
                upstream.checked(&one, true, start);
            }
        });
        assert!(upstream.statuses().iter().all(|condition| condition.active == 0 && condition.healthy));
    }
}
