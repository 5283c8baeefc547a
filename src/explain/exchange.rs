//! One exchange: a request, and the head of the response that the running gateway would send.
//!
//! The steps are those of the proxy, on plain values: decide, make or forward the response, apply the edits. Nothing
//! here depends on a browser.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cors::Headers;
use crate::decide::local_reply::LocalReply;
use crate::decide::{Request, Verdict};
use crate::snapshot::Snapshot;

/// Printed instead of a value that differs for each request, such as a request id.
const UNKNOWN: &str = "...";

/// The result of one request.
#[derive(Debug, Clone)]
pub struct Exchange<'s> {
    /// The gateway's decision.
    pub verdict: Verdict<'s>,
    /// The response that the client gets.
    pub response: Head,
}

/// The head of a response: its status, and its fields in the order and spelling of the wire.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The status of the response.
    pub status: StatusCode,
    map: HeaderMap,
    /// The names as written. Each change goes to both maps, so that both have the same order.
    names: HeaderMap<String>,
}

impl<'s> Exchange<'s> {
    /// Decides a request and makes its response. `target` is the request target with its query. `upstream` gives the
    /// response of the upstream, if the gateway forwards the request.
    pub fn of(
        snapshot: &'s Snapshot,
        request: &Request<'_>,
        target: &str,
        upstream: impl FnOnce() -> Head,
    ) -> Exchange<'s> {
        let mut verdict = snapshot.decide(request);
        verdict.edits.set_debug_request_id(|| HeaderValue::from_static(UNKNOWN));
        let host_and_target = || (request.own_origin.host, target.as_bytes());
        let mut response = match LocalReply::for_action(verdict.action, request.headers, host_and_target) {
            Some(reply) => Head::from(&reply),
            None => upstream(),
        };
        verdict.edits.apply(&mut response);
        Exchange { verdict, response }
    }
}

// === impl Head ===

impl Head {
    /// A response without fields.
    pub fn new(status: StatusCode) -> Self {
        Head { status, ..Head::default() }
    }

    /// Adds a field after the others. An invalid name is ignored.
    pub fn append(&mut self, name: &str, value: HeaderValue) {
        if let Ok(key) = HeaderName::from_bytes(name.as_bytes()) {
            self.map.append(key.clone(), value);
            self.names.append(key, name.to_owned());
        }
    }

    /// The fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.names.values().map(String::as_str).zip(self.map.values())
    }
}

impl From<&LocalReply> for Head {
    fn from(reply: &LocalReply) -> Self {
        let mut head = Head::new(reply.status);
        reply.fields().for_each(|(name, value)| head.append(name, value));
        head
    }
}

impl Headers for Head {
    fn map(&self) -> &HeaderMap {
        &self.map
    }
    fn insert(&mut self, name: &'static str, value: HeaderValue) {
        if let Ok(key) = HeaderName::from_bytes(name.as_bytes()) {
            self.map.insert(key.clone(), value);
            self.names.insert(key, name.to_owned());
        }
    }
    fn remove(&mut self, name: &HeaderName) {
        self.map.remove(name);
        self.names.remove(name);
    }
}
