//! The last refused requests, for `/refusals` and `corsgate why`.
//!
//! The number of requests is fixed, and values from clients are cut, so the memory has a bound. Values of cookies and
//! credentials are not stored. There are three lists: requests with an `Origin`, other requests, and requests that a
//! report-only policy would refuse. So the many requests of scanners for unknown hosts and paths cannot replace the
//! refusals of pages.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, header};

use super::RequestRecord;
use crate::cors::{ReportOnly, ReportedChange, is_websocket};
use crate::decide::RequestKind;
use crate::domain::Scheme;
use crate::terminal::printable;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The end of a value that was cut.
pub(crate) const CUT: &str = "…";

/// Maximum number of stored requests with an `Origin`.
const MOST_OF_PAGES: usize = 384;
/// Maximum number of other stored requests.
const MOST_OF_OTHERS: usize = 128;
/// Maximum number of stored requests that a report-only policy would refuse.
const MOST_OF_REPORTS: usize = 128;
/// Maximum number of attempts to take the lock of a list. A thread holds the lock for well under a microsecond.
const LOCK_ATTEMPTS: usize = 1000;

/// The last refused requests.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Refused requests with an `Origin`.
    pages: Ring,
    others: Ring,
    /// Requests that the policy in force allowed and the report-only policy would refuse.
    reports: Ring,
    /// Number of requests that were not stored, because another thread held the lock.
    missed: AtomicU64,
}

/// A refused request. Values from the client are cut, and bytes that are not UTF-8 are replaced by U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedRequest {
    pub(crate) at: SystemTime,
    /// Value of `X-Request-Id`.
    pub(crate) id: String,
    /// Number of the configuration generation that refused the request.
    pub(crate) generation: u64,
    pub(crate) client: IpAddr,
    pub(crate) scheme: Scheme,
    /// Host and port as the client wrote them.
    pub(crate) authority: String,
    /// Path without the query, because a query may contain secrets.
    pub(crate) path: String,
    /// Method of the request. It is OPTIONS for a preflight.
    pub(crate) method: String,
    /// Value of `Origin`. Several fields are joined by `, `.
    pub(crate) origin: Option<String>,
    /// Value of `Access-Control-Request-Method`.
    pub(crate) requested_method: Option<String>,
    /// Value of `Access-Control-Request-Headers`.
    pub(crate) requested_headers: Option<String>,
    /// True if the request had `Cookie` or `Authorization`. It is always false for preflights.
    pub(crate) credentials: bool,
    /// Value of `Sec-Fetch-Mode`. It is `websocket` for every WebSocket.
    pub(crate) fetch_mode: Option<String>,
    /// Value of `Sec-Fetch-Site`.
    pub(crate) fetch_site: Option<String>,
    pub(crate) kind: RequestKind,
    /// True if the request was not refused, but a report-only policy would refuse it.
    pub(crate) report_only: bool,
    /// Code of the outcome. With `report_only`, it is the code of the report-only policy.
    pub(crate) code: &'static str,
    /// None if no route was chosen.
    pub(crate) route: Option<String>,
    /// None if no response was sent.
    pub(crate) status: Option<u16>,
}

#[derive(Debug)]
struct Ring {
    most: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    kept: Vec<Arc<RefusedRequest>>,
    /// Position of the entry that the next request replaces when the ring is full.
    oldest: usize,
}

// === impl Refusals ===

impl Refusals {
    /// Returns all stored requests, newest first.
    pub(crate) fn newest(&self) -> Vec<RefusedRequest> {
        let mut all = [&self.pages, &self.others, &self.reports].map(Ring::newest).concat();
        all.sort_by_key(|refused| std::cmp::Reverse(refused.at));
        all
    }

    /// Returns the newest request with this id, and the number of other requests with this id. Clients can send any id,
    /// including the id of another client.
    pub(crate) fn find(&self, id: &str) -> Option<(RefusedRequest, usize)> {
        let mut found = self.newest().into_iter().filter(|refused| refused.id == id);
        Some((found.next()?, found.count()))
    }

    /// Returns the number of refused requests that were not stored, because another thread held the lock.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Stores a request that was refused, or that a report-only policy would refuse. If another thread holds the lock
    /// for more than about a microsecond, the request is only counted.
    pub(super) fn remember(&self, record: &RequestRecord<'_>) {
        let (report_only, code) = match (record.refused, record.report_only) {
            (true, _) => (false, record.outcome.code()),
            (false, Some(ReportOnly { change: ReportedChange::WouldRefuse, reason })) => (true, reason.code()),
            (false, Some(ReportOnly { change: ReportedChange::WouldAllow, .. }) | None) => return,
        };
        let Some(asked) = record.request else { return };
        let ring = match asked.headers.contains_key(header::ORIGIN) {
            _ if report_only => &self.reports,
            true => &self.pages,
            false => &self.others,
        };
        let has = |name: HeaderName| asked.headers.contains_key(name);
        let refused = RefusedRequest {
            at: SystemTime::now(),
            id: record.id.to_string(),
            generation: record.generation,
            client: record.client,
            scheme: record.scheme,
            authority: text(asked.authority, 300),
            path: text(asked.path, 512),
            method: text(asked.method.as_str().as_bytes(), 64),
            origin: fields(asked.headers, &header::ORIGIN, 300),
            requested_method: fields(asked.headers, &header::ACCESS_CONTROL_REQUEST_METHOD, 64),
            requested_headers: fields(asked.headers, &header::ACCESS_CONTROL_REQUEST_HEADERS, 1024),
            credentials: has(header::COOKIE) || has(header::AUTHORIZATION),
            fetch_mode: match is_websocket(asked.headers) {
                true => Some("websocket".to_owned()),
                false => fields(asked.headers, &SEC_FETCH_MODE, 16),
            },
            fetch_site: fields(asked.headers, &SEC_FETCH_SITE, 16),
            kind: record.kind,
            report_only,
            code,
            route: record.route.map(ToOwned::to_owned),
            status: record.status.map(|status| status.as_u16()),
        };
        // The entry is built before the lock is taken, so the lock is held only for storing it.
        let refused = Arc::new(refused);
        for _ in 0..LOCK_ATTEMPTS {
            if let Ok(mut entries) = ring.entries.try_lock() {
                return entries.push(refused, ring.most);
            }
            std::hint::spin_loop();
        }
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Refusals {
    fn default() -> Self {
        let ring = |most| Ring { most, entries: Mutex::default() };
        let (pages, others, reports) = (ring(MOST_OF_PAGES), ring(MOST_OF_OTHERS), ring(MOST_OF_REPORTS));
        Refusals { pages, others, reports, missed: AtomicU64::new(0) }
    }
}

impl Ring {
    fn newest(&self) -> Vec<RefusedRequest> {
        let newest: Vec<Arc<RefusedRequest>> = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let (newer, older) = entries.kept.split_at(entries.oldest);
            newer.iter().rev().chain(older.iter().rev()).cloned().collect()
        };
        newest.iter().map(|refused| RefusedRequest::clone(refused)).collect()
    }
}

impl Entries {
    fn push(&mut self, refused: Arc<RefusedRequest>, most: usize) {
        if self.kept.len() < most {
            self.kept.push(refused);
        } else if let Some(place) = self.kept.get_mut(self.oldest) {
            *place = refused;
            self.oldest = (self.oldest + 1) % most;
        }
    }
}

/// Joins the values of all fields of a name, as in Fetch's "get" for header lists.
fn fields(headers: &HeaderMap, name: &HeaderName, most: usize) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = text(values.next()?.as_bytes(), most);
    Some(values.take(8).fold(first, |all, value| match all.ends_with(CUT) {
        true => all,
        false => all + ", " + &text(value.as_bytes(), most),
    }))
}

/// Returns at most `most` bytes as text. Invisible characters are escaped.
fn text(bytes: &[u8], most: usize) -> String {
    let text = printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(most)]));
    if bytes.len() > most { text + CUT } else { text }
}
