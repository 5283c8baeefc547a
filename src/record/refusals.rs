//! The last requests that were refused, so that somebody can ask why.
//!
//! A fixed number is kept, in a fixed amount of memory; what a client sends is cut to a bounded length, and values of
//! cookies and credentials are not kept at all. Scanners ask for hosts and paths that do not exist all day long: they
//! have room of their own, and cannot push out what pages were refused.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, header};

use super::RequestRecord;
use crate::cors::Scheme;
use crate::decide::RequestKind;
use crate::terminal::printable;

/// At the end of what was cut.
pub(crate) const CUT: &str = "…";

/// How many requests of pages are remembered.
const MOST_OF_PAGES: usize = 384;
/// How many others are.
const MOST_OF_OTHERS: usize = 128;

/// The last requests that were refused.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Those with an Origin.
    pages: Ring,
    others: Ring,
    /// Those that were not remembered, because another thread was just remembering one.
    missed: AtomicU64,
}

/// A request that was refused, as far as it is remembered. Text of the client's is cut to a bounded length, and what is no
/// UTF-8 of it replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedRequest {
    /// When.
    pub(crate) at: SystemTime,
    /// Its `X-Request-Id`.
    pub(crate) id: String,
    /// Number of the configuration that refused it.
    pub(crate) generation: u64,
    /// Who it came from.
    pub(crate) client: IpAddr,
    /// How the client reached the gateway.
    pub(crate) scheme: Scheme,
    /// Host and port.
    pub(crate) authority: String,
    /// The path, without query.
    pub(crate) path: String,
    /// Its own method: OPTIONS for a preflight.
    pub(crate) method: String,
    /// `Origin`; several fields are joined by ", ".
    pub(crate) origin: Option<String>,
    /// `Access-Control-Request-Method`
    pub(crate) requested_method: Option<String>,
    /// `Access-Control-Request-Headers`
    pub(crate) requested_headers: Option<String>,
    /// Whether it had a cookie or credentials. Preflights never have.
    pub(crate) credentials: bool,
    /// What it was to CORS.
    pub(crate) kind: RequestKind,
    /// Why, in one word.
    pub(crate) code: &'static str,
    /// Its route; None when there was none.
    pub(crate) route: Option<String>,
    /// The status that the client was given.
    pub(crate) status: Option<u16>,
}

#[derive(Debug)]
struct Ring {
    most: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    kept: Vec<RefusedRequest>,
    /// Where the next one goes, once there are as many as are kept.
    oldest: usize,
}

// === impl Refusals ===

impl Refusals {
    /// All that are remembered, newest first.
    pub(crate) fn newest(&self) -> Vec<RefusedRequest> {
        let mut all = [&self.pages, &self.others].map(Ring::newest).concat();
        all.sort_by_key(|refused| std::cmp::Reverse(refused.at));
        all
    }

    /// The newest one with this id.
    pub(crate) fn find(&self, id: &str) -> Option<RefusedRequest> {
        self.newest().into_iter().find(|refused| refused.id == id)
    }

    /// How many were not remembered, because several came at the same instant.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Never waits: of two that come at the same instant, one is counted only.
    pub(super) fn remember(&self, record: &RequestRecord<'_>) {
        let Some(asked) = record.request else { return };
        let ring = if asked.headers.contains_key(header::ORIGIN) { &self.pages } else { &self.others };
        let Ok(mut entries) = ring.entries.try_lock() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
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
            kind: record.kind,
            code: record.code,
            route: record.route.map(|(_, route)| route.name.to_string()),
            status: record.status.map(|status| status.as_u16()),
        };
        entries.push(refused, ring.most);
    }
}

impl Default for Refusals {
    fn default() -> Self {
        let ring = |most| Ring { most, entries: Mutex::default() };
        Refusals { pages: ring(MOST_OF_PAGES), others: ring(MOST_OF_OTHERS), missed: AtomicU64::new(0) }
    }
}

impl Ring {
    fn newest(&self) -> Vec<RefusedRequest> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (newer, older) = entries.kept.split_at(entries.oldest);
        newer.iter().rev().chain(older.iter().rev()).cloned().collect()
    }
}

impl Entries {
    fn push(&mut self, refused: RefusedRequest, most: usize) {
        if self.kept.len() < most {
            self.kept.push(refused);
        } else if let Some(place) = self.kept.get_mut(self.oldest) {
            *place = refused;
            self.oldest = (self.oldest + 1) % most;
        }
    }
}

/// All fields of a name as one value, as Fetch's "get" has it.
fn fields(headers: &HeaderMap, name: &HeaderName, most: usize) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let first = text(values.next()?.as_bytes(), most);
    Some(values.take(8).fold(first, |all, value| match all.ends_with(CUT) {
        true => all,
        false => all + ", " + &text(value.as_bytes(), most),
    }))
}

/// At most so many bytes of it, and nothing that people who look at it could not see.
fn text(bytes: &[u8], most: usize) -> String {
    let text = printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(most)]));
    if bytes.len() > most { text + CUT } else { text }
}
