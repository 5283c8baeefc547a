//! What requests are counted in: plain numbers, a set of them for each route.
//!
//! A route finds its set by its position, and has it made by its first request. Counting adds to a handful of numbers,
//! and neither waits nor allocates. A set belongs to the name of its route: it goes on over a reload that keeps the
//! name, and is gone with the last configuration that has it.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use http::{Method, StatusCode};
use once_cell::race::OnceBox;

use super::RequestRecord;
use crate::cors::Reason;
use crate::counter::{Counter, Histogram};
use crate::decide::{Refusal, RequestKind};
use crate::snapshot::Route;

/// The name of the route that requests without one are counted as.
const UNROUTED: &str = "-/-";

/// What was counted of the routes of a configuration.
#[derive(Debug)]
pub struct RouteMetricsTable {
    /// Of each route, by its position. Routes of the same name share one.
    routes: Vec<Arc<Slot>>,
    /// Of requests that got no further than their form, host or path.
    unrouted: Arc<Slot>,
}

/// Empty until there is something to count.
type Slot = OnceBox<RouteMetrics>;

/// What was counted of a route.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    /// Requests, by method and status.
    pub(crate) requests: [[Counter; StatusClass::ALL.len()]; MethodClass::ALL.len()],
    /// What was decided about CORS, by kind and reason.
    pub(crate) decisions: [[Counter; Reason::ALL.len()]; RequestKind::ALL.len()],
    /// Requests that were refused for another cause, by [`Refusal::CODES`].
    pub(crate) refusals: [Counter; Refusal::CODES.len()],
    /// From the header of the request to the end of the response. WebSockets last as long as they are wanted, which
    /// says nothing, and are left out.
    pub duration: Histogram,
    /// From the first try to the header of the response.
    pub(crate) upstream_duration: Histogram,
    /// Bytes of the bodies of responses.
    pub(crate) sent: Counter,
}

/// A method, as far as it is told apart: clients can make up any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodClass {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Any other.
    Other,
}

/// A status, as far as it is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusClass {
    /// 1xx: the connection speaks another protocol from there on.
    Informational,
    /// 2xx
    Success,
    /// 3xx
    Redirection,
    /// 4xx
    ClientError,
    /// 5xx
    ServerError,
    /// One that HTTP does not have, and an upstream has sent all the same.
    Unknown,
    /// The client was given no response.
    None,
}

// === impl RouteMetricsTable ===

impl RouteMetricsTable {
    /// For these routes, beside those of the configuration before.
    pub(crate) fn new(routes: &[Route], before: Option<(&[Route], &RouteMetricsTable)>) -> Self {
        let mut by_name: HashMap<&str, Arc<Slot>> = HashMap::with_capacity(routes.len());
        if let Some((routes, route_metrics)) = before {
            by_name.insert(UNROUTED, route_metrics.unrouted.clone());
            by_name.extend(routes.iter().map(|route| &*route.name).zip(route_metrics.routes.iter().cloned()));
        }
        let mut slot = |name| by_name.entry(name).or_default().clone();
        RouteMetricsTable { unrouted: slot(UNROUTED), routes: routes.iter().map(|route| slot(&route.name)).collect() }
    }

    /// Counts a request that has ended.
    pub(crate) fn count(&self, record: &RequestRecord<'_>) {
        let route = record.route.and_then(|(index, _)| self.routes.get(index as usize));
        route.unwrap_or(&self.unrouted).get_or_init(Box::default).count(record);
    }

    /// What was counted of the route at this position; None: nothing yet.
    pub(crate) fn of(&self, route: usize) -> Option<&RouteMetrics> {
        self.routes.get(route)?.get()
    }

    /// What was counted: service, route, and the numbers, each name once. Those that nothing was counted of are left
    /// out. `routes` are those that this was made for.
    pub fn all<'a>(&'a self, routes: &'a [Route]) -> Vec<(&'a str, &'a str, &'a RouteMetrics)> {
        let unrouted = (UNROUTED, &self.unrouted);
        let routes = routes.iter().map(|route| &*route.name).zip(&self.routes);
        let mut seen = HashSet::new();
        let counted = std::iter::once(unrouted).chain(routes).filter_map(|(name, slot)| {
            let metrics = slot.get().filter(|_| seen.insert(Arc::as_ptr(slot)))?;
            let (service, route) = labels(name);
            Some((service, route, metrics))
        });
        counted.collect()
    }
}

/// Service and route out of the name of a route. A service has no `/` in its name; one without routes takes every path,
/// and no route can be called `*`.
fn labels(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((name, "*"))
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// All requests.
    pub(crate) fn total(&self) -> u64 {
        self.requests.iter().flatten().map(Counter::get).sum()
    }

    /// Those that have ended with this class of status.
    pub(crate) fn with(&self, status: StatusClass) -> u64 {
        self.requests.iter().map(|by_status| by_status[status as usize].get()).sum()
    }

    fn count(&self, record: &RequestRecord<'_>) {
        self.requests[record.method as usize][StatusClass::of(record.status) as usize].add(1);
        match record.reason {
            Some(reason) => self.decisions[record.kind as usize][reason as usize].add(1),
            None => {
                let code = Refusal::CODES.iter().position(|code| *code == record.code);
                code.iter().for_each(|code| self.refusals[*code].add(1));
            }
        }
        if record.status != Some(StatusCode::SWITCHING_PROTOCOLS) {
            self.duration.observe(record.took);
        }
        if let Some(took) = record.upstream.and_then(|upstream| upstream.took) {
            self.upstream_duration.observe(took);
        }
        self.sent.add(record.sent as u64);
    }
}

// === impl MethodClass, StatusClass ===

impl MethodClass {
    /// All of them, each at the position that it has as a number.
    pub(crate) const ALL: [MethodClass; 8] = [
        MethodClass::Get,
        MethodClass::Head,
        MethodClass::Post,
        MethodClass::Put,
        MethodClass::Patch,
        MethodClass::Delete,
        MethodClass::Options,
        MethodClass::Other,
    ];

    /// The one of a method.
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

    /// As metrics write it.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            MethodClass::Get => "GET",
            MethodClass::Head => "HEAD",
            MethodClass::Post => "POST",
            MethodClass::Put => "PUT",
            MethodClass::Patch => "PATCH",
            MethodClass::Delete => "DELETE",
            MethodClass::Options => "OPTIONS",
            MethodClass::Other => "other",
        }
    }
}

impl StatusClass {
    /// All of them, each at the position that it has as a number.
    pub(crate) const ALL: [StatusClass; 7] = [
        StatusClass::Informational,
        StatusClass::Success,
        StatusClass::Redirection,
        StatusClass::ClientError,
        StatusClass::ServerError,
        StatusClass::Unknown,
        StatusClass::None,
    ];

    /// The one of a response; None: there was none.
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

    /// As metrics write it.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            StatusClass::Informational => "1xx",
            StatusClass::Success => "2xx",
            StatusClass::Redirection => "3xx",
            StatusClass::ClientError => "4xx",
            StatusClass::ServerError => "5xx",
            StatusClass::Unknown => "other",
            StatusClass::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{CompileEnv, Loaded, Snapshot, load};

    /// A configuration with these routes of one service.
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
        route_metrics.routes[route].get_or_init(Box::default).sent.add(1);
    }

    fn sent(snapshot: &Snapshot, route_metrics: &RouteMetricsTable) -> Vec<(String, u64)> {
        let all = route_metrics.all(snapshot.routes());
        all.iter().map(|(_, route, metrics)| ((*route).to_owned(), metrics.sent.get())).collect()
    }

    #[test]
    fn what_a_route_has_counted_goes_with_its_name() {
        let (old, new) = (snapshot(&["a", "b", "c"]), snapshot(&["new", "c", "a"]));
        let before = RouteMetricsTable::new(old.routes(), None);
        (0..3).for_each(|route| send(&before, route));
        let after = RouteMetricsTable::new(new.routes(), Some((old.routes(), &before)));
        assert_eq!(sent(&new, &after), [("c".into(), 1), ("a".into(), 1)]);
        // Requests of before the reload may end after it; also the first of its route.
        let last = snapshot(&["new", "a"]);
        let latest = RouteMetricsTable::new(last.routes(), Some((new.routes(), &after)));
        send(&before, 0);
        send(&after, 0);
        assert_eq!(sent(&last, &latest), [("new".into(), 1), ("a".into(), 2)]);
    }

    #[test]
    fn nothing_is_kept_of_routes_that_are_gone() {
        let mut routes = snapshot(&["r0"]);
        let mut route_metrics = RouteMetricsTable::new(routes.routes(), None);
        for n in 1..100 {
            send(&route_metrics, 0);
            let gone = Arc::downgrade(&route_metrics.routes[0]);
            let next = snapshot(&[&format!("r{n}")]);
            route_metrics = RouteMetricsTable::new(next.routes(), Some((routes.routes(), &route_metrics)));
            routes = next;
            assert!(gone.upgrade().is_none());
        }
    }

    #[test]
    fn everything_stands_at_its_own_position() {
        assert!(Reason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
        assert!(RequestKind::ALL.iter().enumerate().all(|(i, kind)| *kind as usize == i));
        assert!(MethodClass::ALL.iter().enumerate().all(|(i, method)| *method as usize == i));
        assert!(StatusClass::ALL.iter().enumerate().all(|(i, status)| *status as usize == i));
    }

    #[test]
    fn every_refusal_has_a_code_that_is_counted_or_a_reason() {
        use Refusal::*;
        let allow = http::HeaderValue::from_static("GET");
        let all = [
            BadHost,
            BadTarget,
            AmbiguousPath,
            AmbiguousLength,
            OriginRejected(Reason::OriginNull),
            UnknownHost,
            UnknownPath,
            MethodNotAllowed(&allow),
            BodyTooLarge,
            UriTooLong,
            Misdirected,
            ClientConnectionLimit,
            ConnectionLimit,
            HeadersTooLarge,
        ];
        for refusal in all {
            let counted = Refusal::CODES.contains(&refusal.code());
            // Exhaustive, so that whoever adds one comes by here.
            let explained_by_cors = match refusal {
                OriginRejected(_) => true,
                BadHost | BadTarget | AmbiguousPath | AmbiguousLength | UnknownHost | UnknownPath => false,
                MethodNotAllowed(_) | BodyTooLarge | UriTooLong | Misdirected => false,
                ClientConnectionLimit | ConnectionLimit | HeadersTooLarge => false,
            };
            assert_ne!(counted, explained_by_cors, "{}", refusal.code());
        }
    }
}
