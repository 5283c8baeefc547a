//! A generation: one loaded configuration with its running upstreams, TLS settings and metrics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use super::resolver::Resolver;
use super::{Acceptors, LoadError};
use crate::behavior::rate_limit::RateLimit;
use crate::limiter::RateLimiter;
use crate::per_thread::{Local, Shared};
use crate::record::{RouteMetricsTable, RouteSlot};
use crate::snapshot::{End, Limits, Route, Snapshot, UpstreamId};
use crate::source::SourceText;
use crate::upstream::RunningUpstream;

/// One loaded configuration and its running parts. A request uses the generation that was active at its beginning. The
/// generation stays in memory until the response begins.
#[derive(Debug)]
pub struct Generation {
    /// Number of the generation. It is 1 for the first configuration of the process, and each applied reload adds 1.
    pub number: u64,
    /// The compiled configuration.
    pub snapshot: Snapshot,
    /// The text of the configuration.
    pub(crate) written: SourceText,
    upstreams: Vec<Arc<RunningUpstream>>,
    /// DNS names of nodes, without duplicates.
    names: Vec<Arc<str>>,
    acceptors: Acceptors,
    route_metrics: RouteMetricsTable,
    /// Rate limiters by the position of the route. Empty if no route has a limit.
    rate_limiters: Box<[Option<Arc<RateLimiter>>]>,
    /// Parts by the position of the route. A part is empty until the first response of the route.
    parts: Vec<OnceBox<Shared<RouteParts>>>,
    /// Parts of routes with several upstreams, by the positions of the route and of the upstream.
    split_parts: HashMap<(u32, UpstreamId), OnceBox<Shared<RouteParts>>>,
}

/// The parts of a generation that a forwarded request needs after its response has begun. It needs them for the rest of
/// its body, for the log, and for metrics.
#[derive(Debug)]
pub(crate) struct RouteParts {
    /// Number of the generation.
    pub(crate) number: u64,
    pub(crate) slot: Arc<RouteSlot>,
    pub(crate) upstream: Arc<RunningUpstream>,
    pub(crate) limits: Arc<Limits>,
    /// True if the route has several upstreams.
    pub(crate) is_split: bool,
}

impl Generation {
    /// Creates a generation. Upstreams and rate limits continue from `old` with their state, if their configuration has
    /// not changed.
    pub(super) fn new(
        number: u64,
        snapshot: Snapshot,
        written: SourceText,
        old: Option<&Generation>,
    ) -> Result<Self, LoadError> {
        let acceptors = Acceptors::new(snapshot.listeners(), old.map(|old| &old.acceptors));
        let acceptors = acceptors.map_err(LoadError::Listeners)?;
        // An inline upstream may have the same name as another upstream.
        let mut running: HashMap<&str, Vec<&Arc<RunningUpstream>>> = HashMap::new();
        for upstream in old.iter().flat_map(|old| &old.upstreams) {
            running.entry(&*upstream.settings().name).or_default().push(upstream);
        }
        let mut take = |spec: &crate::snapshot::Upstream| {
            let namesakes = running.get_mut(&*spec.name)?;
            let same = namesakes.iter().position(|upstream| upstream.settings() == spec)?;
            Some(namesakes.swap_remove(same).clone())
        };
        let upstreams: Vec<_> = snapshot
            .upstreams()
            .iter()
            .map(|spec| take(spec).unwrap_or_else(|| Arc::new(RunningUpstream::new(spec.clone()))))
            .collect();
        let names: HashSet<&str> = upstreams.iter().flat_map(|upstream| upstream.names()).collect();
        let names = names.into_iter().map(Arc::from).collect();
        let route_metrics = RouteMetricsTable::new(snapshot.routes(), old.map(|old| &old.route_metrics));
        let parts = snapshot.routes().iter().map(|_| OnceBox::new()).collect();
        let rate_limiters = rate_limiters(&snapshot, old.map_or(&[], |old| &old.rate_limiters));
        let splits = (0_u32..).zip(snapshot.routes()).filter(|(_, route)| matches!(route.end, End::Split(_)));
        let split_parts = splits
            .flat_map(|(i, route)| route.end.upstreams().into_iter().map(move |id| ((i, id), OnceBox::new())))
            .collect();
        Ok(Generation {
            number,
            snapshot,
            written,
            upstreams,
            names,
            acceptors,
            route_metrics,
            rate_limiters,
            parts,
            split_parts,
        })
    }

    /// Updates the upstreams to the addresses of their names. Waits for new names, at most for `timeout`. Nodes whose
    /// names have no address by then get it later.
    pub(super) fn resolve_names(&self, resolver: &Resolver, timeout: Duration) {
        let new = resolver.add(&self.names);
        let missing = resolver.wait(&new, timeout);
        if let Some(name) = missing.first() {
            log::warn!("no DNS answer yet, continuing names={} first={name} waited={timeout:?}", missing.len());
        }
        self.apply_names(resolver);
    }

    /// Updates the upstreams to the known addresses of their names.
    pub(super) fn apply_names(&self, resolver: &Resolver) {
        if self.names.is_empty() {
            return;
        }
        let now = Instant::now();
        self.upstreams.iter().for_each(|upstream| upstream.set_addresses(now, |name| resolver.addresses(name)));
    }

    /// Returns the DNS names of nodes, without duplicates.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub(crate) fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// Returns the metrics of the routes.
    pub fn route_metrics(&self) -> &RouteMetricsTable {
        &self.route_metrics
    }

    /// Returns the parts that a request for the route needs after its response has begun. `upstream` is the upstream of
    /// the request. Returns None if the route does not have this upstream.
    pub(crate) fn parts(&self, route: u32, upstream: UpstreamId) -> Option<Local<RouteParts>> {
        let (parts, is_split) = match self.snapshot.route(route).end {
            End::Upstream(_) => (&self.parts[route as usize], false),
            End::Split(_) => (self.split_parts.get(&(route, upstream))?, true),
            End::Answer(_) => return None,
        };
        let parts = parts.get_or_init(|| {
            Box::new(Shared::new(Arc::new(RouteParts {
                number: self.number,
                slot: self.route_metrics.slot(Some(route)).clone(),
                upstream: self.upstream(upstream).clone(),
                limits: self.snapshot.limits().clone(),
                is_split,
            })))
        });
        Some(parts.local())
    }

    /// Returns the rate limiter of a route, with its state.
    pub(crate) fn rate_limiter(&self, route: u32) -> Option<&RateLimiter> {
        self.rate_limiters.get(route as usize)?.as_deref()
    }

    /// Returns the running upstream with this id in the snapshot.
    pub(crate) fn upstream(&self, id: UpstreamId) -> &Arc<RunningUpstream> {
        &self.upstreams[id.0]
    }

    /// Returns all running upstreams, in the order of the snapshot.
    pub(crate) fn upstreams(&self) -> &[Arc<RunningUpstream>] {
        &self.upstreams
    }
}

/// Creates the rate limiters by the position of the route. A limit that continues a limit of `old` keeps its state.
fn rate_limiters(snapshot: &Snapshot, old: &[Option<Arc<RateLimiter>>]) -> Box<[Option<Arc<RateLimiter>>]> {
    let limit = |route: &Route| route.behaviors.as_ref()?.rate_limit.clone();
    if snapshot.routes().iter().all(|route| limit(route).is_none()) {
        return Box::default();
    }
    // Routes that inherit the limit of their service share its limiter. Routes without `name` may have the same name.
    let mut running: HashMap<&str, Vec<&Arc<RateLimiter>>> = HashMap::new();
    let mut known = HashSet::new();
    for limiter in old.iter().flatten().filter(|limiter| known.insert(Arc::as_ptr(limiter))) {
        running.entry(&*limiter.limit().name).or_default().push(limiter);
    }
    let mut new: HashMap<*const RateLimit, Arc<RateLimiter>> = HashMap::new();
    let limiters = snapshot.routes().iter().map(|route| {
        let limit = limit(route)?;
        let limiter = new.entry(Arc::as_ptr(&limit)).or_insert_with(|| {
            let namesakes = running.get_mut(&*limit.name);
            let same = namesakes.and_then(|namesakes| {
                let same = namesakes.iter().position(|old| limit.continues(old.limit()))?;
                Some(namesakes.remove(same).clone())
            });
            same.unwrap_or_else(|| Arc::new(RateLimiter::new(limit.clone())))
        });
        Some(limiter.clone())
    });
    limiters.collect()
}
