//! Counts cross-origin requests while an observation is open, for `/observe` of the admin listener.
//!
//! Without an open observation, a request only reads one flag. With an open observation, a request tries to take one of
//! a few locks, and never waits. The memory of the counts has a bound. An observation is about one configuration. The
//! requests of later configurations are only counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use crossbeam_utils::CachePadded;
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, COOKIE, HeaderMap, HeaderName, ORIGIN,
};

use super::RequestRecord;
use crate::cors::{Reason, origin_of};
use crate::decide::{RequestKind, RequestOutcome};
use crate::domain::OwnOrigin;
use crate::learn::{Asked, MAX_ORIGINS, Observation, PoliciesInForce, Sighting, Tally, sum};
use crate::per_thread;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Maximum number of tables of one observation. There is at most one table for each core. A table takes at most 6 MiB.
const MOST_TABLES: usize = 4;
/// Maximum number of attempts to take the lock of a table. A thread holds the lock for about a microsecond.
const LOCK_ATTEMPTS: usize = 1000;

/// Observes the requests of the process. At most one observation is open at a time.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    is_open: CachePadded<AtomicBool>,
    current: ArcSwapOption<OpenObservation>,
}

/// An open observation. Dropping the guard ends it.
pub(crate) struct ObservationGuard<'o>(&'o Observer);

#[derive(Debug)]
struct OpenObservation {
    generation: u64,
    policies: PoliciesInForce,
    tables: Box<[CachePadded<Mutex<Tally>>]>,
    /// Number of requests of another generation.
    other_generation: AtomicU64,
    /// Number of requests that found their table locked.
    not_counted: AtomicU64,
}

// === impl Observer, ObservationGuard, OpenObservation ===

impl Observer {
    /// Starts an observation of the requests that these policies of a generation decide. Returns None if another
    /// observation is open.
    pub(crate) fn open(&self, generation: u64, policies: PoliciesInForce) -> Option<ObservationGuard<'_>> {
        let table = || CachePadded::new(Mutex::new(Tally::new(MAX_ORIGINS)));
        let new = Arc::new(OpenObservation {
            generation,
            policies,
            tables: (0..per_thread::threads().min(MOST_TABLES)).map(|_| table()).collect(),
            other_generation: AtomicU64::new(0),
            not_counted: AtomicU64::new(0),
        });
        let none: Option<Arc<OpenObservation>> = None;
        if self.current.compare_and_swap(&none, Some(new)).is_some() {
            return None;
        }
        self.is_open.store(true, Ordering::Relaxed);
        Some(ObservationGuard(self))
    }

    /// Counts a request if an observation is open.
    #[inline]
    pub(super) fn observe(&self, record: &RequestRecord<'_>) {
        if self.is_open.load(Ordering::Relaxed)
            && let Some(open) = &*self.current.load()
        {
            open.count(record);
        }
    }
}

impl ObservationGuard<'_> {
    /// Ends the observation and returns its counts.
    pub(crate) fn finish(self) -> Observation {
        self.0.is_open.store(false, Ordering::Relaxed);
        // The drop of the guard removes it. Until then, no other observation can begin.
        let current = self.0.current.load();
        let Some(open) = &*current else { return Observation::default() };
        let take = |table: &CachePadded<Mutex<Tally>>| {
            std::mem::replace(&mut *table.lock().unwrap_or_else(PoisonError::into_inner), Tally::new(0))
        };
        Observation {
            generation: open.generation,
            other_generation: open.other_generation.load(Ordering::Relaxed),
            not_counted: open.not_counted.load(Ordering::Relaxed),
            ..Observation::new(&open.policies, sum(open.tables.iter().map(take)))
        }
    }
}

impl Drop for ObservationGuard<'_> {
    fn drop(&mut self) {
        self.0.is_open.store(false, Ordering::Relaxed);
        self.0.current.store(None);
    }
}

impl OpenObservation {
    #[cold]
    fn count(&self, record: &RequestRecord<'_>) {
        let (Some(route), Some(line), RequestOutcome::Cors(reason)) = (record.route, record.request, record.outcome)
        else {
            return;
        };
        let headers = line.headers;
        if !headers.contains_key(ORIGIN) {
            return;
        }
        if record.generation != self.generation {
            self.other_generation.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(policy) = self.policies.position(route) else { return };
        let origin = origin_of(headers);
        let authority = std::str::from_utf8(line.authority).unwrap_or_default();
        let own = line.forwarded.unwrap_or(OwnOrigin::of(record.scheme, authority));
        let is_own = origin.is_some_and(|origin| own.is(origin));
        let sighting = Sighting {
            policy,
            origin,
            asked: match record.kind {
                RequestKind::Preflight => Asked::Preflight(value(headers, &ACCESS_CONTROL_REQUEST_METHOD)),
                RequestKind::Actual => Asked::Actual(Some(line.method.as_str())),
            },
            reason: if is_own { Reason::SameOrigin } else { reason },
            cookies: headers.contains_key(COOKIE),
            authorization: headers.contains_key(AUTHORIZATION),
            needs_permission: needs_permission(headers),
        };
        let table = &self.tables[per_thread::index() % self.tables.len()];
        for _ in 0..LOCK_ATTEMPTS {
            if let Ok(mut tally) = table.try_lock() {
                let fields = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
                let fields = fields.filter(|_| record.kind == RequestKind::Preflight);
                let names = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
                return tally.count(&sighting, names.map(str::trim));
            }
            std::hint::spin_loop();
        }
        self.not_counted.fetch_add(1, Ordering::Relaxed);
    }
}

fn value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether a page needs permission to read the response. Browsers do not send the field over plain http, so a
/// request without it may need permission.
fn needs_permission(headers: &HeaderMap) -> bool {
    !matches!(value(headers, &SEC_FETCH_MODE), Some("navigate" | "no-cors" | "same-origin" | "websocket"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::time::Duration;

    use http::{HeaderValue, Method, StatusCode, Version};

    use super::*;
    use crate::config::Document;
    use crate::decide::RefusalCode;
    use crate::domain::Scheme;
    use crate::problem::Problems;
    use crate::record::request_id::RequestId;
    use crate::record::{MethodClass, RequestLine};
    use crate::snapshot::{CompileEnv, load};

    const CONFIG: &str = "
listeners: [{ address: '127.0.0.1:1' }]
upstreams: { a: { nodes: [{ address: '127.0.0.1:2' }] } }
cors_policies: { pages: { allow_origins: '*' } }
services:
  - { name: one, hosts: [one.test], upstream: a, cors: pages }
  - { name: two, hosts: [two.test], upstream: a, cors: pages }
  - { name: own, hosts: [own.test], upstream: a, cors: { allow_origins: https://app.example } }
  - { name: raw, hosts: [raw.test], upstream: a, cors: false }
";

    fn policies(routes: &[&str]) -> PoliciesInForce {
        let snapshot = load(CONFIG, CompileEnv::NONE).snapshot.unwrap();
        let document = Document::parse(CONFIG, &mut Problems::default()).unwrap();
        let routes: Vec<String> = routes.iter().map(|route| (*route).to_owned()).collect();
        PoliciesInForce::of(&document, &snapshot, &routes).unwrap()
    }

    fn request(observer: &Observer, route: &str, outcome: RequestOutcome, generation: u64, headers: &HeaderMap) {
        observer.observe(&RequestRecord {
            generation,
            route: Some(route),
            kind: RequestKind::Actual,
            outcome,
            refused: false,
            report_only: None,
            client: IpAddr::from([127, 0, 0, 1]),
            scheme: Scheme::Http,
            method: MethodClass::Get,
            request: Some(RequestLine {
                method: &Method::GET,
                authority: b"one.test:8080",
                forwarded: None,
                path: b"/",
                version: Version::HTTP_11,
                headers,
            }),
            status: Some(StatusCode::OK),
            body_bytes: 0,
            duration: Duration::ZERO,
            upstream: None,
            failure: None,
            failure_detail: None,
            id: &RequestId::Own(*b"0123456789abcdef", 1),
        });
    }

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))])
    }

    const ALLOWED: RequestOutcome = RequestOutcome::Cors(Reason::AllowedAny);

    #[test]
    fn requests_are_counted_by_policy_while_an_observation_is_open() {
        let (observer, app) = (Observer::default(), from("https://app.example"));
        request(&observer, "one", ALLOWED, 7, &app);
        let guard = observer.open(7, policies(&[])).unwrap();
        assert!(observer.open(7, policies(&[])).is_none(), "one at a time");
        for route in ["one", "two", "own", "raw", "unknown"] {
            request(&observer, route, ALLOWED, 7, &app);
        }
        request(&observer, "one", ALLOWED, 8, &app);
        request(&observer, "one", RequestOutcome::Refused(RefusalCode::RateLimited), 7, &app);
        request(&observer, "one", RequestOutcome::Cors(Reason::NoPolicy), 7, &app);
        request(&observer, "one", ALLOWED, 7, &HeaderMap::new());
        request(&observer, "one", ALLOWED, 7, &from("http://one.test:8080"));
        request(&observer, "one", RequestOutcome::Cors(Reason::OriginNull), 7, &from("null"));
        let observation = guard.finish();
        request(&observer, "one", ALLOWED, 7, &app);
        let names: Vec<&str> = observation.policies.iter().map(|policy| &*policy.name).collect();
        assert_eq!((names, observation.unused_policies), (vec!["pages", "own"], 0));
        assert_eq!(observation.policies[0].routes, ["one", "two"]);
        let observed = &observation.observed;
        let counts: Vec<_> = observed.seen.iter().map(|seen| (seen.policy, &*seen.origin, seen.requests)).collect();
        assert_eq!(counts, [(0, "https://app.example", 2), (1, "https://app.example", 1)]);
        assert_eq!((observed.same_origin, observed.refused.len()), (1, 1));
        assert_eq!(observed.refused[0].reasons, BTreeMap::from([("origin_null".to_owned(), 1)]));
        assert_eq!((observation.generation, observation.other_generation, observation.not_counted), (7, 1, 0));
        assert!(observer.open(7, policies(&[])).is_some(), "the first one has ended");
    }

    #[test]
    fn a_dropped_guard_ends_the_observation() {
        let observer = Observer::default();
        drop(observer.open(1, policies(&["one"])));
        assert!(!observer.is_open.load(Ordering::Relaxed) && observer.current.load().is_none());
        let guard = observer.open(1, policies(&["one"])).unwrap();
        request(&observer, "two", ALLOWED, 1, &from("https://app.example"));
        request(&observer, "own", ALLOWED, 1, &from("https://app.example"));
        assert_eq!(guard.finish().observed.seen, [], "only the named route is observed");
    }

    #[test]
    fn an_observation_is_read_back_from_its_json() {
        let observer = Observer::default();
        let guard = observer.open(1, policies(&[])).unwrap();
        request(&observer, "own", ALLOWED, 1, &from("https://app.example"));
        let observation = guard.finish();
        let json = serde_json::to_string(&observation).unwrap();
        assert_eq!(serde_json::from_str::<Observation>(&json).unwrap(), observation);
        assert!(!json.contains("allow_origins_by_regex"), "{json}");
    }
}
