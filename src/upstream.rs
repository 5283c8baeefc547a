//! Running upstreams: the addresses of their nodes, the state of each address, and load balancing.
//!
//! [`crate::snapshot::Upstream`] is the configuration. A running upstream is the part that changes without a reload. It
//! survives a reload that does not change the configuration of the upstream. It has two sides:
//!
//! - Requests [`pick`](RunningUpstream::pick) an [`Endpoint`] from a prepared [`Pool`](balance::Pool), and count results
//!   on the endpoint. They take no lock and allocate nothing.
//! - Changes of the pool take one mutex: DNS results, health checks, consecutive failures, and the end of ejections and
//!   slow starts. Each change publishes a new pool, if it differs.
//!
//! An endpoint is available if it is healthy (health checks pass) and not ejected (its requests have not failed several
//! times in a row). Ejection never makes an upstream unavailable: it does not take out the last available endpoint, and
//! if all healthy endpoints are ejected, they are used anyway. An unhealthy endpoint is never used.
//!
//! This module reads no clock, looks up no names and logs nothing. Its callers do that.

mod endpoint;
pub(crate) mod failure;
pub(crate) mod peer;
pub(crate) mod proxy_protocol;
mod balance;
mod places;
mod queue;
mod state;

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use http::StatusCode;

use self::balance::Pool;
use self::endpoint::Active;
pub(crate) use self::endpoint::{ActiveRequest, Endpoint};
use self::peer::SharedTls;
use self::places::Places;
use self::proxy_protocol::SentProxyHeader;
pub(crate) use self::queue::{NodeQueue, Wait};
use self::state::State;
pub(crate) use self::state::{Change, RAMP_STEPS};
use crate::counter::Counter;
pub use crate::hash::key;
use crate::per_thread::{self, PerThread};
use crate::snapshot;
use crate::snapshot::{Address, Balance, NodeAddress};
use crate::tls::Authorities;

/// A running upstream: its endpoints, their state, and its counters.
#[derive(Debug)]
pub struct RunningUpstream {
    settings: snapshot::Upstream,
    /// See [`Self::connection_group`].
    connection_group: u64,
    /// Endpoints that requests can pick.
    pool: ArcSwap<Pool>,
    /// All endpoints, available or not.
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Position in the schedule: the number of picks. Each thread has its own position, so the picks of each thread
    /// follow the weights. For each thread, the number of picks of a node differs from its share by at most its weight.
    turn: PerThread<AtomicUsize>,
    /// Random in each process, so that replicas with `random` do not pick the same nodes.
    salt: u64,
    /// State of each endpoint. Requests do not take this lock, except to eject.
    entries: Mutex<Vec<EndpointEntry>>,
    /// True while an ejection or a slow start is running, so that [`Self::tick`] has work.
    has_timers: AtomicBool,
    counts: UpstreamCounts,
    /// Number of responses to requests of a split, by the first digit of the status. Index 0 counts requests without a
    /// response. Empty without a split.
    split_responses: PerThread<[Counter; 6]>,
    /// The waiting requests. None without `max_connections`.
    queue: Option<Arc<NodeQueue>>,
    /// Certificates and keys in Pingora's types. They are converted once for each thread, because each request changes
    /// their reference counts.
    shared_tls: PerThread<OnceLock<SharedTls>>,
}

/// Counters of an upstream.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCounts {
    /// Attempts on another node after a failed attempt.
    pub(crate) retries: Counter,
    /// Attempts on the same node after a kept connection was closed.
    pub(crate) reconnects: Counter,
}

#[derive(Debug)]
struct EndpointEntry {
    endpoint: Arc<Endpoint>,
    state: State,
}

/// Reason why no endpoint can be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// No address is known.
    Unresolved,
    /// All endpoints are unhealthy.
    AllUnhealthy,
    /// The request has tried all available endpoints, or the others are full.
    Exhausted,
    /// All available endpoints have `max_connections` requests, or other requests wait already.
    Full,
}

/// State of an endpoint, for the status page and metrics.
#[derive(Debug)]
pub(crate) struct EndpointStatus {
    pub(crate) address: Address,
    /// False if health checks have taken the endpoint out. True without health checks.
    pub(crate) healthy: bool,
    /// True while the endpoint is ejected because its requests failed.
    pub(crate) ejected: bool,
    /// Number of running requests.
    pub(crate) active: usize,
    /// Limit of running requests: `max_connections`.
    pub(crate) limit: Option<usize>,
    /// Attempts without a connection or without a response.
    pub(crate) failures: u64,
    /// Text of the last failed attempt or health check.
    pub(crate) last_error: Option<String>,
}

impl RunningUpstream {
    /// Creates a running upstream with the nodes whose addresses do not change. [`Self::set_addresses`] adds the nodes
    /// that are DNS names.
    pub fn new(spec: snapshot::Upstream) -> Self {
        let queue = spec.limit.as_ref().map(|limit| Arc::new(NodeQueue::new(limit.queue)));
        let addresses = spec.nodes.iter().enumerate().filter(|(_, node)| node.weight > 0);
        let addresses = addresses.filter_map(|(i, node)| match &node.address {
            NodeAddress::Fixed(address) => Some(EndpointEntry::new(&spec, queue.as_ref(), i, address.clone())),
            NodeAddress::Name { .. } => None,
        });
        let entries: Vec<EndpointEntry> = addresses.collect();
        let upstream = RunningUpstream {
            connection_group: connection_group(&spec),
            pool: ArcSwap::default(),
            endpoints: ArcSwap::default(),
            turn: PerThread::default(),
            salt: RandomState::new().hash_one(()),
            entries: Mutex::default(),
            has_timers: AtomicBool::new(false),
            counts: UpstreamCounts::default(),
            split_responses: PerThread::default(),
            queue,
            shared_tls: PerThread::default(),
            settings: spec,
        };
        *upstream.lock() = entries;
        upstream.publish_pool(&upstream.lock(), None);
        upstream
    }

    pub(crate) fn settings(&self) -> &snapshot::Upstream {
        &self.settings
    }

    /// Returns the group of the upstream. Upstreams of one group share kept connections to the same address. They have
    /// the same connection settings, and can have different names.
    pub(crate) fn connection_group(&self) -> u64 {
        self.connection_group
    }

    /// Returns the group of connections that begin with this header.
    pub(crate) fn group_of(&self, header: &SentProxyHeader) -> u64 {
        hash_secretly((self.connection_group, header))
    }

    pub(crate) fn counts(&self) -> &UpstreamCounts {
        &self.counts
    }

    /// Counts the end of a request of a split, with the status of its response. None: it had no response.
    pub(crate) fn count_split_response(&self, status: Option<StatusCode>) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let counts = self.split_responses.mine();
        counts.get(class).unwrap_or(&counts[0]).add(1);
    }

    /// Returns the numbers of ended requests of a split: without a response, then 1xx to 5xx.
    pub(crate) fn split_responses(&self) -> [u64; 6] {
        std::array::from_fn(|class| self.split_responses.all().map(|counts| counts[class].get()).sum())
    }

    /// Returns the queue. None without `max_connections`.
    pub(crate) fn queue(&self) -> Option<&NodeQueue> {
        self.queue.as_deref()
    }

    // --- for requests

    /// Picks an endpoint for a request by the configured `balance`, except those that the request has `tried`. `key` is
    /// the hash key of the request; without a key, `hash` works as round robin.
    pub fn pick(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Result<ActiveRequest, PickError> {
        // A retry does not wait in the queue.
        let waits = tried.is_empty() && self.queue.as_ref().is_some_and(|queue| !queue.is_empty());
        if waits { Err(PickError::Full) } else { self.pick_now(key, tried) }
    }

    /// Waits for an endpoint that is not full.
    pub(crate) fn wait(&self, key: Option<u64>) -> Wait<'_> {
        Wait::new(self, key)
    }

    /// Picks an endpoint as [`pick`](Self::pick) does, also if other requests wait.
    fn pick_now(&self, key: Option<u64>, tried: &[Arc<Endpoint>]) -> Result<ActiveRequest, PickError> {
        let pool = self.pool.load();
        // Only first attempts advance the schedule. If a retry advanced it too, and one of two nodes is dead, every
        // first attempt would go to the dead node.
        let turns = self.turn.get(|index| AtomicUsize::new(self.first_turn(index)));
        let turn = match tried {
            [] => turns.fetch_add(1, Ordering::Relaxed),
            _ => turns.load(Ordering::Relaxed),
        };
        while let Some(endpoint) = pool.choose(&self.settings.balance, key, turn, self.salt, tried) {
            // Another request may have taken the last place.
            if let Some(request) = ActiveRequest::at(endpoint) {
                return Ok(request);
            }
        }
        Err(match tried {
            [] if !pool.is_empty() => PickError::Full,
            _ if !pool.is_empty() => PickError::Exhausted,
            _ if self.endpoints.load().is_empty() => PickError::Unresolved,
            _ => PickError::AllUnhealthy,
        })
    }

    /// Records that a request at the endpoint got a response.
    pub fn succeeded(&self, endpoint: &Endpoint) {
        endpoint.succeeded();
    }

    /// Records that a request at the endpoint failed before its response. Returns [`Change::Ejected`] if this ejects
    /// the endpoint.
    pub(crate) fn failed(&self, endpoint: &Arc<Endpoint>, now: Instant) -> Option<Change> {
        let failures = endpoint.failed();
        let ejection = self.settings.ejection.as_ref().filter(|ejection| failures >= ejection.after)?;
        let mut entries = self.lock();
        let others =
            entries.iter().filter(|entry| entry.state.is_available() && !Arc::ptr_eq(&entry.endpoint, endpoint));
        if others.count() == 0 {
            return None;
        }
        let found = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.endpoint, endpoint))?;
        if !found.state.is_available() {
            return None;
        }
        found.state.eject(now + ejection.time);
        endpoint.counts().ejections.add(1);
        self.publish_pool(&entries, Some(now));
        Some(Change::Ejected)
    }

    /// Returns the position at which a thread starts. The threads start at distant positions, so that they do not pick
    /// the same nodes at the same time. The thread that creates the positions continues at the shared position.
    fn first_turn(&self, index: usize) -> usize {
        /// Fraction of the golden ratio: multiples of it are far from each other in every schedule.
        const DISTANCE: usize = 0x9E37_79B9;
        let shared = self.turn.shared().load(Ordering::Relaxed);
        let distance = index.wrapping_sub(per_thread::index());
        shared.wrapping_add(distance.wrapping_mul(DISTANCE))
    }

    // --- for background services

    /// All endpoints, available or not.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// State of all endpoints, in the order of the configuration.
    pub(crate) fn statuses(&self) -> Vec<EndpointStatus> {
        let status = |EndpointEntry { endpoint, state }: &EndpointEntry| EndpointStatus {
            address: endpoint.address().clone(),
            healthy: state.is_healthy(),
            ejected: state.is_ejected(),
            active: endpoint.active(),
            limit: self.settings.limit.as_ref().map(|limit| limit.max_connections),
            failures: endpoint.counts().connect_failures.get() + endpoint.counts().no_responses.get(),
            last_error: endpoint.last_error(),
        };
        self.lock().iter().map(status).collect()
    }

    /// Records the result of a health check. Returns the change, if the endpoint became healthy or unhealthy.
    pub(crate) fn checked(&self, endpoint: &Arc<Endpoint>, passed: bool, now: Instant) -> Option<Change> {
        let check = self.settings.health_check.as_ref()?;
        let mut entries = self.lock();
        let found = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.endpoint, endpoint))?;
        let change = found.state.checked(passed, check, now)?;
        if change == Change::Healthy {
            found.endpoint.set_failures(0);
        }
        self.publish_pool(&entries, Some(now));
        Some(change)
    }

    /// Ends ejections, and increases the weight of endpoints in slow start. The precision of these times is the
    /// interval between two calls. A call without running timers costs one atomic read. Returns the readmitted
    /// endpoints.
    pub(crate) fn tick(&self, now: Instant) -> Vec<Arc<Endpoint>> {
        if !self.has_timers.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut entries = self.lock();
        let mut readmitted = Vec::new();
        for EndpointEntry { endpoint, state } in entries.iter_mut() {
            if state.tick(now, self.settings.slow_start) == Some(Change::Readmitted) {
                // The first failure after an ejection ejects again.
                endpoint.set_failures(self.settings.ejection.as_ref().map_or(0, |ejection| ejection.after - 1));
                readmitted.push(endpoint.clone());
            }
        }
        self.publish_pool(&entries, Some(now));
        readmitted
    }

    /// Returns the hosts of the nodes that are DNS names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.named_nodes().map(|(_, host, _)| host)
    }

    /// Sets the addresses of the nodes that are DNS names. If `addresses` returns None for a name, its addresses stay,
    /// so that a broken resolver does not remove working nodes. An address that stays keeps its state and counters. The
    /// ports of the addresses are not used.
    pub(crate) fn set_addresses(&self, now: Instant, addresses: impl Fn(&str) -> Option<Arc<[SocketAddr]>>) {
        let found: Vec<_> =
            self.named_nodes().filter_map(|(i, host, port)| Some((i, port, addresses(host)?))).collect();
        if found.is_empty() {
            return;
        }
        let mut entries = self.lock();
        for (i, port, addresses) in found {
            let (mut of_node, others): (Vec<_>, Vec<_>) =
                entries.drain(..).partition(|entry| entry.endpoint.node() == i);
            *entries = others;
            for address in addresses.iter() {
                let address = Address::Ip(SocketAddr::new(address.ip(), port));
                let same = of_node.iter().position(|entry| *entry.endpoint.address() == address);
                entries.push(match same {
                    Some(same) => of_node.swap_remove(same),
                    None => EndpointEntry::new(&self.settings, self.queue.as_ref(), i, address),
                });
            }
        }
        let place = |entry: &EndpointEntry| (entry.endpoint.node(), entry.endpoint.address().clone());
        entries.sort_by_cached_key(place);
        self.publish_pool(&entries, Some(now));
    }

    /// Returns position, host and port of the nodes that are DNS names.
    fn named_nodes(&self) -> impl Iterator<Item = (usize, &str, u16)> {
        let nodes = self.settings.nodes.iter().enumerate().filter(|(_, node)| node.weight > 0);
        nodes.filter_map(|(i, node)| match &node.address {
            NodeAddress::Name { host, port } => Some((i, &**host, *port)),
            NodeAddress::Fixed(_) => None,
        })
    }

    // --- shared

    fn lock(&self) -> MutexGuard<'_, Vec<EndpointEntry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Publishes the pool and the list of endpoints, if they have changed. Without `now`, slow start is not applied.
    fn publish_pool(&self, entries: &[EndpointEntry], now: Option<Instant>) {
        let available = entries.iter().any(|entry| entry.state.is_available());
        let usable = |entry: &&EndpointEntry| match available {
            true => entry.state.is_available(),
            false => entry.state.is_healthy(),
        };
        let ramp =
            |entry: &EndpointEntry| now.map_or(RAMP_STEPS, |now| entry.state.ramp(now, self.settings.slow_start));
        let weighted = |entry: &EndpointEntry| (entry.endpoint.clone(), entry.endpoint.weight() * ramp(entry));
        if let Some(pool) = self.pool.load().replaced_by(entries.iter().filter(usable).map(weighted)) {
            self.pool.store(Arc::new(pool));
        }
        let same = |(entry, endpoint): (&EndpointEntry, &Arc<Endpoint>)| Arc::ptr_eq(&entry.endpoint, endpoint);
        let endpoints = self.endpoints.load();
        if entries.len() != endpoints.len() || !entries.iter().zip(endpoints.iter()).all(same) {
            self.endpoints.store(Arc::new(entries.iter().map(|entry| entry.endpoint.clone()).collect()));
        }
        self.has_timers.store(entries.iter().any(|entry| entry.state.has_timer()), Ordering::Relaxed);
        // There may be more places now, or no node at all.
        if let Some(queue) = &self.queue {
            queue.on_free();
        }
    }
}

impl EndpointEntry {
    /// `node` is the position in the configuration.
    fn new(spec: &snapshot::Upstream, queue: Option<&Arc<NodeQueue>>, node: usize, address: Address) -> Self {
        let active = match (&spec.limit, queue) {
            (Some(limit), Some(queue)) => Active::Limited(Box::new(Places::new(limit.max_connections, queue.clone()))),
            _ if spec.balance == Balance::LeastConnections => Active::Compared(Box::default()),
            _ => Active::PerThread,
        };
        let endpoint = Endpoint::new(node, address, spec.nodes[node].weight, active);
        EndpointEntry { endpoint: Arc::new(endpoint), state: State::NEW }
    }
}

/// Hash of all settings of a connection: protocol, TLS, server name, certificates. The name of the upstream is not
/// included. Otherwise each reload that renames upstreams would leave connections that no request can use.
fn connection_group(spec: &snapshot::Upstream) -> u64 {
    let snapshot::Upstream { http2, tls, proxy_protocol, .. } = spec;
    let tls = tls.as_ref().map(|tls| {
        let snapshot::UpstreamTls { sni, verify, authorities, identity } = tls;
        let authorities = authorities.as_ref().map(Authorities::certificates);
        let identity = identity.as_ref().map(|identity| (&identity.chain, identity.key.secret_der()));
        (sni, verify, authorities, identity)
    });
    hash_secretly((http2, tls, proxy_protocol))
}

/// Returns a hash that is random in each process, so that an attacker cannot choose a certificate or a client that
/// collides with another one.
fn hash_secretly(value: impl Hash) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::{Ejection, HashOn, HealthCheck, Node, NodeLimit, Timeouts};

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(nodes: &[(&str, u32)]) -> snapshot::Upstream {
        let address = |host: &str| match host.parse() {
            Ok(ip) => NodeAddress::Fixed(Address::Ip(SocketAddr::new(ip, 80))),
            Err(_) => NodeAddress::Name { host: host.into(), port: 80 },
        };
        let nodes = nodes.iter().map(|(host, weight)| Node { address: address(host), weight: *weight });
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
            proxy_protocol: None,
            limit: None,
        }
    }

    fn upstream(nodes: &[(&str, u32)]) -> RunningUpstream {
        RunningUpstream::new(spec(nodes))
    }

    /// Nodes with `max_connections`, and a queue of this length.
    pub(super) fn limited(nodes: &[&str], max_connections: usize, queue: usize) -> RunningUpstream {
        let nodes: Vec<_> = nodes.iter().map(|node| (*node, 1)).collect();
        let limit = Some(NodeLimit { max_connections, queue, timeout: SECOND });
        RunningUpstream::new(snapshot::Upstream { limit, ..spec(&nodes) })
    }

    fn three() -> RunningUpstream {
        upstream(&[("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)])
    }

    /// Last digit of the IP address.
    fn last_digit(endpoint: &Endpoint) -> char {
        let Address::Ip(address) = endpoint.address() else { panic!("{endpoint:?} has no IP address") };
        address.ip().to_string().chars().last().unwrap()
    }

    /// Last digits of the picked addresses.
    fn picks(upstream: &RunningUpstream, n: usize) -> String {
        let last = |picked: ActiveRequest| last_digit(&picked);
        (0..n).map_while(|_| upstream.pick(None, &[]).ok()).map(last).collect()
    }

    /// Last digits of the picked addresses, each once.
    fn available(upstream: &RunningUpstream) -> String {
        let mut picked: Vec<char> = picks(upstream, 60).chars().collect();
        picked.sort_unstable();
        picked.dedup();
        picked.into_iter().collect()
    }

    /// The endpoint whose address ends with the digit.
    fn the(upstream: &RunningUpstream, digit: u8) -> Arc<Endpoint> {
        let ends = |endpoint: &&Arc<Endpoint>| last_digit(endpoint) == char::from(b'0' + digit);
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
            "an endpoint with weight 0 is never picked"
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
        assert_eq!(first_tries.iter().filter(|is_dead| **is_dead).count(), 10, "not every time");
    }

    #[test]
    fn upstreams_share_connections_only_with_the_same_settings_of_connections() {
        fn tls(verify: bool, sni: Option<&str>) -> snapshot::UpstreamTls {
            snapshot::UpstreamTls { sni: sni.map(Into::into), verify, authorities: None, identity: None }
        }
        let group = |change: fn(&mut snapshot::Upstream)| {
            let mut spec = spec(&[("10.0.0.1", 1)]);
            change(&mut spec);
            RunningUpstream::new(spec).connection_group()
        };
        let plain = group(|_| {});
        assert_eq!(group(|spec| (spec.name, spec.retries) = ("other".into(), 7)), plain);
        let different = [
            plain,
            group(|spec| spec.http2 = true),
            group(|spec| spec.tls = Some(tls(true, None))),
            group(|spec| spec.tls = Some(tls(false, None))),
            group(|spec| spec.tls = Some(tls(true, Some("a.test")))),
        ];
        for (i, one) in different.iter().enumerate() {
            assert!(!different[..i].contains(one), "{i}");
        }
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
    fn a_full_endpoint_is_skipped_by_each_kind_of_balancing() {
        let hash = Balance::Hash(HashOn::ClientAddress);
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConnections, hash] {
            for many in [3, 100] {
                let nodes: Vec<String> = (0..many).map(|n| format!("10.0.0.{n}")).collect();
                let nodes: Vec<_> = nodes.iter().map(|node| (&**node, 1)).collect();
                let limit = Some(NodeLimit { max_connections: 2, queue: 0, timeout: SECOND });
                let upstream =
                    RunningUpstream::new(snapshot::Upstream { limit, balance: balance.clone(), ..spec(&nodes) });
                let requests: Vec<_> = (0..2 * many).map(|i| upstream.pick(Some(i), &[])).collect();
                assert!(requests.iter().all(Result::is_ok), "{balance:?} finds each free place");
                assert!(upstream.statuses().iter().all(|status| status.active == 2));
                assert_eq!(upstream.pick(Some(1), &[]).unwrap_err(), PickError::Full);
                let tried = [the(&upstream, 1)];
                assert_eq!(upstream.pick(Some(1), &tried).unwrap_err(), PickError::Exhausted, "a retry does not wait");
                drop(requests);
                assert!(upstream.pick(Some(1), &tried).is_ok());
            }
        }
    }

    fn addresses(addresses: &[&str]) -> Arc<[SocketAddr]> {
        addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn names_get_addresses_and_keep_what_they_had() {
        let upstream = upstream(&[("10.0.0.1", 1), ("api.internal", 1), ("unused.internal", 0)]);
        let now = Instant::now();
        assert_eq!(upstream.names().collect::<Vec<_>>(), ["api.internal"]);
        assert_eq!(picks(&upstream, 2), "11");

        let answer = |found: &[&str]| {
            let found = addresses(found);
            upstream.set_addresses(now, |host| (host == "api.internal").then(|| found.clone()));
        };
        answer(&["10.0.0.8", "10.0.0.9"]);
        assert_eq!(available(&upstream), "189");
        assert!(upstream.endpoints().iter().all(|e| e.address().to_string().ends_with(":80")), "the port of the node");

        let before = upstream.pool.load_full();
        answer(&["10.0.0.9", "10.0.0.8"]);
        assert!(Arc::ptr_eq(&before, &upstream.pool.load_full()), "another order is no change");

        upstream.set_addresses(now, |_| None);
        assert_eq!(available(&upstream), "189", "the last known addresses stay");
    }

    #[test]
    fn an_address_keeps_its_state_when_its_name_is_looked_up_again() {
        let upstream = upstream(&[("api.internal", 1)]);
        let now = Instant::now();
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::Unresolved);
        let answer = |found: &[&str]| upstream.set_addresses(now, |_| Some(addresses(found)));
        answer(&["10.0.0.1", "10.0.0.2"]);
        let (one, two) = (the(&upstream, 1), the(&upstream, 2));
        let under_way = upstream.pick(None, std::slice::from_ref(&two)).unwrap();
        upstream.checked(&two, false, now);
        assert_eq!(available(&upstream), "1");

        answer(&["10.0.0.3", "10.0.0.2", "10.0.0.1"]);
        assert!(Arc::ptr_eq(&one, &the(&upstream, 1)) && Arc::ptr_eq(&two, &the(&upstream, 2)));
        assert_eq!(available(&upstream), "13", "2 is still down, and 3 is new");
        assert_eq!(upstream.statuses().iter().map(|one| one.active).collect::<Vec<_>>(), [1, 0, 0]);

        answer(&["10.0.0.2", "10.0.0.3"]);
        assert_eq!(available(&upstream), "3");
        assert_eq!(upstream.failed(&one, now), None, "an endpoint that is gone has no state");
        assert_eq!(upstream.checked(&one, false, now), None);
        drop(under_way);
        answer(&["10.0.0.1", "10.0.0.2"]);
        assert!(!Arc::ptr_eq(&one, &the(&upstream, 1)), "an address that comes back is a new endpoint");
    }

    #[test]
    fn checks_take_out_even_the_last_endpoint_and_bring_it_back() {
        let (upstream, now) = (three(), Instant::now());
        for digit in [1, 2, 3] {
            assert_eq!(upstream.checked(&the(&upstream, digit), false, now), Some(Change::Unhealthy));
        }
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::AllUnhealthy);
        assert_eq!(upstream.checked(&the(&upstream, 2), true, now), Some(Change::Healthy));
        assert_eq!(available(&upstream), "2");
        let healthy: Vec<bool> = upstream.statuses().iter().map(|status| status.healthy).collect();
        assert_eq!(healthy, [false, true, false]);
    }

    #[test]
    fn failures_in_a_row_eject_for_a_while() {
        let (upstream, start) = (three(), Instant::now());
        assert_eq!(fail(&upstream, 1, 2, start), [None, None]);
        upstream.succeeded(&the(&upstream, 1));
        assert_eq!(fail(&upstream, 1, 2, start), [None, None], "a success resets the count");
        assert_eq!(available(&upstream), "123");
        assert_eq!(fail(&upstream, 1, 1, start), [Some(Change::Ejected)]);
        assert_eq!(available(&upstream), "23");
        assert_eq!(fail(&upstream, 1, 5, start + SECOND), [None; 5], "requests that were still running");

        assert_eq!(tick(&upstream, start + Duration::from_millis(9999)), 0);
        assert_eq!(available(&upstream), "23");
        assert_eq!(tick(&upstream, start + 10 * SECOND), 1);
        assert_eq!(available(&upstream), "123");
    }

    #[test]
    fn the_first_failure_after_an_ejection_ejects_again() {
        let (upstream, start) = (three(), Instant::now());
        fail(&upstream, 1, 3, start);
        tick(&upstream, start + 10 * SECOND);
        assert_eq!(fail(&upstream, 1, 1, start + 11 * SECOND), [Some(Change::Ejected)]);
        assert_eq!(tick(&upstream, start + 20 * SECOND), 0, "the time starts again");
        assert_eq!(tick(&upstream, start + 21 * SECOND), 1);
        upstream.succeeded(&the(&upstream, 1));
        assert_eq!(fail(&upstream, 1, 3, start + 22 * SECOND), [None, None, Some(Change::Ejected)]);
    }

    #[test]
    fn ejection_never_takes_out_the_last_endpoint() {
        let (upstream, start) = (three(), Instant::now());
        assert_eq!(fail(&upstream, 1, 3, start)[2], Some(Change::Ejected));
        assert_eq!(fail(&upstream, 2, 3, start)[2], Some(Change::Ejected));
        assert_eq!(fail(&upstream, 3, 30, start), [None; 30]);
        assert_eq!(available(&upstream), "3");
        // Its next failure ejects it, once another endpoint is available.
        assert_eq!(tick(&upstream, start + 10 * SECOND), 2);
        assert_eq!(fail(&upstream, 3, 1, start + 10 * SECOND), [Some(Change::Ejected)]);
        assert_eq!(available(&upstream), "12");
    }

    #[test]
    fn ejected_endpoints_are_used_if_no_other_is_healthy() {
        let (upstream, now) = (three(), Instant::now());
        fail(&upstream, 1, 3, now);
        upstream.checked(&the(&upstream, 2), false, now);
        upstream.checked(&the(&upstream, 3), false, now);
        assert_eq!(available(&upstream), "1", "the only healthy endpoint");
        upstream.checked(&the(&upstream, 1), false, now);
        assert_eq!(upstream.pick(None, &[]).unwrap_err(), PickError::AllUnhealthy);
        upstream.checked(&the(&upstream, 3), true, now);
        assert_eq!(available(&upstream), "3");
    }

    #[test]
    fn without_ejection_no_endpoint_is_ejected() {
        let upstream =
            RunningUpstream::new(snapshot::Upstream { ejection: None, ..spec(&[("10.0.0.1", 1), ("10.0.0.2", 1)]) });
        assert_eq!(fail(&upstream, 1, 1000, Instant::now()), [None; 1000]);
        assert_eq!(available(&upstream), "12");
    }

    /// Percentage of picks of the first of two endpoints.
    fn ramp(upstream: &RunningUpstream) -> usize {
        picks(upstream, 1100).matches('1').count() * 100 / 1100
    }

    #[test]
    fn slow_start_increases_the_share_in_steps() {
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
        assert!(!upstream.has_timers.load(Ordering::Relaxed), "no timer is running");

        // The same after an ejection.
        fail(&upstream, 1, 3, start + 100 * SECOND);
        assert_eq!([109, 110, 119].map(later), [0, 9, 50]);
    }

    #[test]
    fn a_hash_without_a_key_is_round_robin() {
        let balance = Balance::Hash(HashOn::ClientAddress);
        let upstream =
            RunningUpstream::new(snapshot::Upstream { balance, ..spec(&[("10.0.0.1", 1), ("10.0.0.2", 1)]) });
        assert_eq!(picks(&upstream, 6), "121212");
        let of = |tenant: &str| upstream.pick(Some(key(tenant.as_bytes())), &[]).unwrap().address().clone();
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
                        let picked = upstream.pick(None, &[]).expect("an endpoint is available");
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
        assert!(upstream.statuses().iter().all(|status| status.active == 0 && status.healthy));
    }

    /// Each thread has a turn of its own, and starts at another place of the schedule.
    #[test]
    fn picks_of_many_threads_follow_the_weights() {
        const EACH: u32 = 5003;
        for weights in [&[1, 1][..], &[1, 1, 1], &[5, 1, 1], &[1, 100], &[3, 5, 9, 11, 13]] {
            let nodes: Vec<String> = (1..=weights.len()).map(|n| format!("10.0.0.{n}")).collect();
            let nodes: Vec<_> = nodes.iter().map(String::as_str).zip(weights.iter().copied()).collect();
            let upstream = upstream(&nodes);
            let threads = u32::try_from(per_thread::threads()).unwrap() - 1;
            let counts: Vec<Vec<u32>> = std::thread::scope(|scope| {
                let pick = |_| {
                    scope.spawn(|| {
                        (0..EACH).fold(vec![0; weights.len()], |mut counts: Vec<u32>, _| {
                            counts[upstream.pick(None, &[]).unwrap().node()] += 1;
                            counts
                        })
                    })
                };
                let threads: Vec<_> = (0..threads).map(pick).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let sum = f64::from(weights.iter().sum::<u32>());
            for (node, weight) in weights.iter().enumerate() {
                let picked: u32 = counts.iter().map(|counts| counts[node]).sum();
                let share = f64::from(EACH * threads) * f64::from(*weight) / sum;
                // One more for the turn that they shared at first.
                let bound = f64::from(*weight) * f64::from(threads + 1);
                assert!((f64::from(picked) - share).abs() <= bound, "{weights:?}: {picked} instead of {share}");
            }
            assert!(upstream.turn.all().count() > 1, "the threads have turns of their own");
            let starts: std::collections::HashSet<usize> =
                (0..4).map(|index| upstream.first_turn(index) % 64).collect();
            assert_eq!(starts.len(), 4);
            assert_eq!(upstream.statuses().iter().map(|status| status.active).sum::<usize>(), 0);
        }
    }
}
