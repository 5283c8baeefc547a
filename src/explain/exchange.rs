//! One exchange: a request goes in, the head of the response comes out, as the running gateway would send it.
//!
//! The same steps as in the proxy, on plain values: judge, answer or let the upstream answer, apply the edits. Knows
//! nothing of browsers.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cors::Headers;
use crate::decide::local_reply::LocalReply;
use crate::decide::{Request, Verdict};
use crate::snapshot::Snapshot;

/// Stands for the value of a field that is another one for every request.
const UNKNOWN: &str = "...";

/// What came of one request.
#[derive(Debug, Clone)]
pub struct Exchange<'s> {
    /// What was decided.
    pub verdict: Verdict<'s>,
    /// What the client gets.
    pub response: Head,
}

/// The head of a response: its status, and its fields in the order and the spelling in which they go on the wire.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    map: HeaderMap,
    /// The names as written. Every change is made to both maps, so that they stay in one order.
    names: HeaderMap<String>,
}

impl<'s> Exchange<'s> {
    /// What the gateway does with a request. `target` is what the client asked for, with its query; `upstream` is what
    /// the upstream answers, when it is asked.
    pub fn of(
        snapshot: &'s Snapshot,
        request: &Request<'_>,
        target: &str,
        upstream: impl FnOnce() -> Head,
    ) -> Exchange<'s> {
        let mut verdict = snapshot.decide(request);
        verdict.edits.set_debug_request_id(|| HeaderValue::from_static(UNKNOWN));
        let authority_and_target = || (request.authority.unwrap_or_default().as_bytes(), target.as_bytes());
        let mut response = match LocalReply::for_action(verdict.action, authority_and_target) {
            Some(own) => Head::from(&own),
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

    /// Adds a field behind those that are there. What is no name of a field is left out.
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
    fn from(answer: &LocalReply) -> Self {
        let mut head = Head::new(answer.status);
        answer.fields().for_each(|(name, value)| head.append(name, value));
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
