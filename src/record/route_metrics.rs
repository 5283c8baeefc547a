//! Metrics of requests, for each route.
//!
//! The first request of a route allocates the metrics of the route. A request finds them by the position of the route,
//! so counting neither waits nor allocates memory. A busy route has a block of counters for each thread, and readers
//! add them up. The metrics belong to the name of the route, so a reload that keeps the name keeps the counters. They
//! are freed after the end of the last generation that has the route, and of its last request.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use http::{Method, StatusCode};
use once_cell::race::OnceBox;

use super::RequestRecord;
use crate::codes::coded_enum;
use crate::cors::{Reason, ReportOnly, ReportedChange};
use crate::counter::{Counter, Distribution, Histogram};
use crate::decide::{RefusalCode, RequestKind, RequestOutcome};
use crate::per_thread::PerThread;
use crate::snapshot::Route;

/// Name for requests without a route.
const UNROUTED: &str = "-/-";

/// Metrics of all routes of one configuration generation.
#[derive(Debug)]
pub struct RouteMetricsTable {
    /// One slot for each route, in the order of the snapshot. Routes with the same name share one slot.
    routes: Vec<Arc<RouteSlot>>,
    /// Slot for requests that were refused before a route was chosen.
    unrouted: Arc<RouteSlot>,
}

/// Name and metrics of one route. A request keeps this part of the configuration until its end.
#[derive(Debug)]
pub struct RouteSlot {
    name: Box<str>,
    /// Empty until the first request of the route.
    metrics: OnceBox<RouteMetrics>,
}

/// Metrics of one route, counted separately by each thread.
#[derive(Debug, Default)]
pub struct RouteMetrics(PerThread<RouteCounters>);

/// The counters of one thread for a route.
#[derive(Debug, Default)]
struct RouteCounters {
    /// Number of requests, by [`MethodClass`] and [`StatusClass`].
    requests: [[Counter; StatusClass::ALL.len()]; MethodClass::ALL.len()],
    /// Number of CORS decisions, by [`RequestKind`] and [`Reason`].
    decisions: [[Counter; Reason::ALL.len()]; RequestKind::ALL.len()],
    /// Number of requests that were refused for other reasons than CORS, by [`RefusalCode`].
    refusals: [Counter; RefusalCode::ALL.len()],
    /// Changes by the report-only policy. They are allocated at the first change.
    reports: OnceBox<ReportCounters>,
    /// Time from the request header to the end of the response. WebSockets are not included, because they stay open for
    /// an unlimited time.
    duration: Histogram,
    /// Time from the first attempt to the response header.
    upstream_duration: Histogram,
    /// Number of bytes of response bodies that were sent to clients.
    body_bytes: Counter,
}

/// Number of requests that a report-only policy would refuse or allow, by [`ReportedChange`] and [`Reason`].
#[derive(Debug, Default)]
struct ReportCounters([[Counter; Reason::ALL.len()]; ReportedChange::ALL.len()]);

coded_enum! {
    /// Class of a method. It is the label `method` of `corsgate_requests_total`. Clients can send any number of
    /// different methods, so all uncommon methods share one class.
    pub enum MethodClass {
        /// The method GET.
        Get = "GET",
        /// The method HEAD.
        Head = "HEAD",
        /// The method POST.
        Post = "POST",
        /// The method PUT.
        Put = "PUT",
        /// The method PATCH.
        Patch = "PATCH",
        /// The method DELETE.
        Delete = "DELETE",
        /// The method OPTIONS.
        Options = "OPTIONS",
        /// Any other method.
        Other = "other",
    }
}

coded_enum! {
    /// Class of a status. It is the label `status` of `corsgate_requests_total`.
    pub(crate) enum StatusClass {
        /// A status from 100 to 199. The only such final response is 101, which starts a WebSocket.
        Informational = "1xx",
        /// A status from 200 to 299.
        Success = "2xx",
        /// A status from 300 to 399.
        Redirection = "3xx",
        /// A status from 400 to 499.
        ClientError = "4xx",
        /// A status from 500 to 599.
        ServerError = "5xx",
        /// A status of the upstream outside 100 to 599.
        Unknown = "other",
        /// No response was sent to the client.
        None = "none",
    }
}

// === impl RouteMetricsTable ===

impl RouteMetricsTable {
    /// Creates the metrics for `routes`. The counters of `before`, the previous generation, continue.
    pub(crate) fn new(routes: &[Route], before: Option<&RouteMetricsTable>) -> Self {
        let mut by_name: HashMap<&str, Arc<RouteSlot>> = HashMap::with_capacity(routes.len());
        let slots = before.iter().flat_map(|before| before.routes.iter().chain([&before.unrouted]));
        by_name.extend(slots.map(|slot| (&*slot.name, slot.clone())));
        let mut slot = |name| by_name.entry(name).or_insert_with(|| RouteSlot::new(name)).clone();
        RouteMetricsTable { unrouted: slot(UNROUTED), routes: routes.iter().map(|route| slot(&*route.name)).collect() }
    }

    /// Returns the name and metrics of the route at this position. With None, returns those of requests without a
    /// route.
    pub fn slot(&self, route: Option<u32>) -> &Arc<RouteSlot> {
        route.and_then(|route| self.routes.get(route as usize)).unwrap_or(&self.unrouted)
    }

    /// Returns the metrics of the route at this position. Returns None before its first request.
    pub(crate) fn of(&self, route: usize) -> Option<&RouteMetrics> {
        self.routes.get(route)?.metrics.get()
    }

    /// Returns service, route and metrics of each name that had a request.
    pub fn all(&self) -> Vec<(&str, &str, &RouteMetrics)> {
        let mut seen = HashSet::new();
        let counted = std::iter::once(&self.unrouted).chain(&self.routes).filter_map(|slot| {
            let metrics = slot.metrics.get().filter(|_| seen.insert(Arc::as_ptr(slot)))?;
            let (service, route) = labels(&slot.name);
            Some((service, route, metrics))
        });
        counted.collect()
    }
}

/// Splits the name of a route into service and route. The name of a service contains no `/`. The only route of a
/// service without `routes` has the name of the service, as in the access log, in `explain` and on the status page.
fn labels(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((name, name))
}

// === impl RouteSlot, RouteMetrics, RouteCounters ===

impl RouteSlot {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(RouteSlot { name: name.into(), metrics: OnceBox::new() })
    }

    /// Returns the name of the route.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn count(&self, record: &RequestRecord<'_>) {
        self.metrics.get_or_init(Box::default).0.mine().count(record);
    }
}

impl RouteMetrics {
    /// Returns the number of all requests.
    pub(crate) fn total(&self) -> u64 {
        StatusClass::ALL.into_iter().map(|status| self.with(status)).sum()
    }

    /// Returns the number of requests with this class of status.
    pub(crate) fn with(&self, status: StatusClass) -> u64 {
        MethodClass::ALL.into_iter().map(|method| self.requests(method, status)).sum()
    }

    /// Returns the number of requests with these classes.
    pub(crate) fn requests(&self, method: MethodClass, status: StatusClass) -> u64 {
        self.sum(|counters| &counters.requests[method.index()][status.index()])
    }

    /// Returns the number of CORS decisions with this kind and reason.
    pub(crate) fn decisions(&self, kind: RequestKind, reason: Reason) -> u64 {
        self.sum(|counters| &counters.decisions[kind.index()][reason.index()])
    }

    /// Returns the number of requests that were refused for this reason. The reason is not CORS.
    pub(crate) fn refusals(&self, code: RefusalCode) -> u64 {
        self.sum(|counters| &counters.refusals[code.index()])
    }

    /// Returns the number of requests with this change and this reason.
    pub(crate) fn reports(&self, change: ReportedChange, reason: Reason) -> u64 {
        let reports = self.0.all().filter_map(|counters| counters.reports.get());
        reports.map(|reports| reports.0[change.index()][reason.index()].get()).sum()
    }

    /// Returns the number of requests with this change.
    pub(crate) fn reported(&self, change: ReportedChange) -> u64 {
        Reason::ALL.into_iter().map(|reason| self.reports(change, reason)).sum()
    }

    /// Returns the time from the request header to the end of the response, without WebSockets.
    pub fn duration(&self) -> Distribution {
        Histogram::read_all(|| self.0.all().map(|counters| &counters.duration))
    }

    /// Returns the time from the first attempt to the response header.
    pub(crate) fn upstream_duration(&self) -> Distribution {
        Histogram::read_all(|| self.0.all().map(|counters| &counters.upstream_duration))
    }

    /// Returns the number of bytes of response bodies that were sent to clients.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.sum(|counters| &counters.body_bytes)
    }

    fn sum(&self, counter: impl Fn(&RouteCounters) -> &Counter) -> u64 {
        self.0.all().map(|counters| counter(counters).get()).sum()
    }
}

impl RouteCounters {
    fn count(&self, record: &RequestRecord<'_>) {
        self.requests[record.method.index()][StatusClass::of(record.status).index()].add(1);
        match record.outcome {
            RequestOutcome::Cors(reason) => self.decisions[record.kind.index()][reason.index()].add(1),
            RequestOutcome::Refused(code) => self.refusals[code.index()].add(1),
        }
        if let Some(ReportOnly { change, reason }) = record.report_only {
            self.reports.get_or_init(Box::default).0[change.index()][reason.index()].add(1);
        }
        if record.status != Some(StatusCode::SWITCHING_PROTOCOLS) {
            self.duration.observe(record.duration);
        }
        if let Some(duration) = record.upstream.and_then(|upstream| upstream.duration) {
            self.upstream_duration.observe(duration);
        }
        self.body_bytes.add(record.body_bytes as u64);
    }
}

// === impl MethodClass, StatusClass ===

impl MethodClass {
    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => MethodClass::Get,
            Method::HEAD => MethodClass::Head,
            Method::POST => MethodClass::Post,
            Method::PUT => MethodClass::Put,
            Method::PATCH => MethodClass::Patch,
            Method::DELETE => MethodClass::Delete,
            Method::OPTIONS => MethodClass::Options,
            _ => MethodClass::Other,
        }
    }
}

impl StatusClass {
    /// Returns the class of a status. None means that no response was sent.
    pub(crate) fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16()) {
            Some(100..=199) => StatusClass::Informational,
            Some(200..=299) => StatusClass::Success,
            Some(300..=399) => StatusClass::Redirection,
            Some(400..=499) => StatusClass::ClientError,
            Some(500..=599) => StatusClass::ServerError,
            Some(_) => StatusClass::Unknown,
            None => StatusClass::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::request_id::RequestId;
    use crate::snapshot::{CompileEnv, Loaded, Snapshot, load};

    /// Returns a snapshot of one service with these routes.
    fn snapshot(routes: &[&str]) -> Snapshot {
        let routes: String = routes.iter().map(|name| format!("{{ name: {name}, paths: [/{name}] }}, ")).collect();
        let text = format!(
            "
listeners: [{{ address: '127.0.0.1:9080' }}]
services: [{{ name: api, upstream: {{ nodes: [{{ address: '127.0.0.1:8000' }}] }}, routes: [{routes}] }}]
"
        );
        let Loaded { snapshot, problems } = load(&text, CompileEnv::NONE);
        snapshot.unwrap_or_else(|| panic!("{problems}"))
    }

    fn send(route_metrics: &RouteMetricsTable, route: usize) {
        route_metrics.routes[route].metrics.get_or_init(Box::default).0.mine().body_bytes.add(1);
    }

    fn sent(route_metrics: &RouteMetricsTable) -> Vec<(String, u64)> {
        let all = route_metrics.all();
        all.iter().map(|(_, route, metrics)| ((*route).to_owned(), metrics.body_bytes())).collect()
    }

    #[test]
    fn counters_follow_the_name_of_the_route() {
        let (old, new) = (snapshot(&["a", "b", "c"]), snapshot(&["new", "c", "a"]));
        let before = RouteMetricsTable::new(old.routes(), None);
        (0..3).for_each(|route| send(&before, route));
        let after = RouteMetricsTable::new(new.routes(), Some(&before));
        assert_eq!(sent(&after), [("c".into(), 1), ("a".into(), 1)]);
        // A request that began before the reload may end after it, and it may be the first request of its route.
        let last = snapshot(&["new", "a"]);
        let latest = RouteMetricsTable::new(last.routes(), Some(&after));
        send(&before, 0);
        send(&after, 0);
        assert_eq!(sent(&latest), [("new".into(), 1), ("a".into(), 2)]);
    }

    #[test]
    fn metrics_of_removed_routes_are_freed() {
        let mut route_metrics = RouteMetricsTable::new(snapshot(&["r0"]).routes(), None);
        for n in 1..100 {
            send(&route_metrics, 0);
            let gone = Arc::downgrade(&route_metrics.routes[0]);
            let next = snapshot(&[&format!("r{n}")]);
            route_metrics = RouteMetricsTable::new(next.routes(), Some(&route_metrics));
            assert!(gone.upgrade().is_none());
        }
    }

    /// Compares the sum with the numbers that each thread has counted.
    #[test]
    fn the_counts_of_all_threads_are_summed() {
        const EACH: usize = 3000;
        let route_metrics = RouteMetricsTable::new(snapshot(&["a"]).routes(), None);
        let slot = route_metrics.slot(Some(0)).clone();
        let count = |thread: usize, n: usize| {
            let (method, status) = (MethodClass::ALL[n % 8], [200, 304, 404, 502][n % 4]);
            let id = RequestId::Own([b'0'; 16], n as u64);
            let record = RequestRecord {
                generation: 1,
                route: None,
                kind: RequestKind::Actual,
                outcome: RequestOutcome::Cors(Reason::ALL[thread]),
                refused: false,
                report_only: None,
                client: std::net::IpAddr::from([127, 0, 0, 1]),
                scheme: crate::domain::Scheme::Http,
                method,
                request: None,
                status: Some(StatusCode::from_u16(status).unwrap()),
                body_bytes: n,
                duration: Duration::from_millis(n as u64 % 300),
                upstream: None,
                failure: None,
                failure_detail: None,
                id: &id,
            };
            slot.count(&record);
        };
        std::thread::scope(|scope| {
            for thread in 0..5 {
                let count = &count;
                scope.spawn(move || (0..EACH).for_each(|n| count(thread, n)));
            }
        });
        let [(_, _, metrics)] = route_metrics.all()[..] else { panic!("one route had requests") };
        assert!(metrics.0.all().count() > 1, "the threads have counters of their own");
        let all = 5 * EACH as u64;
        assert_eq!((metrics.total(), metrics.with(StatusClass::ServerError)), (all, all / 4));
        assert_eq!(metrics.requests(MethodClass::Get, StatusClass::Success), all / 8);
        assert!((0..5).all(|thread| metrics.decisions(RequestKind::Actual, Reason::ALL[thread]) == all / 5));
        assert_eq!(metrics.body_bytes(), 5 * (0..EACH as u64).sum::<u64>());
        let twin = Histogram::default();
        (0..5).for_each(|_| (0..EACH as u64).for_each(|n| twin.observe(Duration::from_millis(n % 300))));
        assert_eq!(metrics.duration(), Histogram::read_all(|| std::iter::once(&twin)));
    }
}
