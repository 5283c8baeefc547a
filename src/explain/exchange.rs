//! One exchange: a request, and the head of the response that the running gateway would send.
//!
//! The steps are the same as in the proxy, but on plain values: decide, answer or forward, apply the edits. This module
//! does not depend on a browser.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::behavior::clients::ClientAddress;
use crate::behavior::{RequestFacts, ResponseSource};
use crate::decide::local_reply::LocalReply;
use crate::decide::{Request, Verdict};
use crate::domain::{OwnOrigin, Scheme};
use crate::snapshot::Snapshot;

/// Placeholder for a value that differs for each request, such as a request id.
const UNKNOWN: &str = "...";

/// The result of one request to the gateway.
#[derive(Debug, Clone)]
pub struct Exchange<'s> {
    /// The gateway's decision about the request.
    pub verdict: Verdict<'s>,
    /// The scheme for the gateway's decision. It differs from the scheme of the URL if another component terminates
    /// TLS.
    pub(crate) scheme: Scheme,
    /// The response to the client.
    pub response: Head,
}

/// The head of a response.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The status of the response.
    pub status: StatusCode,
    /// The header fields, in the order on the wire.
    pub headers: HeaderMap,
}

impl<'s> Exchange<'s> {
    /// Decides a request and creates its response. `target` is the request target with its query. If the gateway
    /// forwards the request, `upstream` returns the response of the upstream.
    pub fn of(
        snapshot: &'s Snapshot,
        request: &Request<'_>,
        target: &str,
        upstream: impl FnOnce() -> Head,
    ) -> Exchange<'s> {
        let mut verdict = snapshot.decide(request);
        verdict.edits.set_debug_request_id(|| HeaderValue::from_static(UNKNOWN));
        let host_and_target = || (request.own_origin.host, target.as_bytes());
        let reply = LocalReply::for_action(verdict.action, request.headers, host_and_target);
        let (mut response, source) = match reply {
            Some(reply) => (Head::from(&reply), ResponseSource::Gateway),
            None => (upstream(), ResponseSource::Upstream),
        };
        let route = verdict.route.map_or("", |found| &found.route.name);
        verdict.edit_response(&mut response.headers, source, Facts { request, route });
        Exchange { verdict, scheme: request.own_origin.scheme, response }
    }
}

/// Facts of a simulated request.
struct Facts<'a> {
    request: &'a Request<'a>,
    route: &'a str,
}

impl RequestFacts for Facts<'_> {
    fn client_ip(&self) -> Option<IpAddr> {
        match self.request.connection.client {
            ClientAddress::Known(address) => Some(address),
            ClientAddress::Unknown | ClientAddress::Accepted => None,
        }
    }

    fn own_origin(&self) -> OwnOrigin<'_> {
        self.request.own_origin
    }

    fn route(&self) -> &str {
        self.route
    }

    fn request_id(&self) -> HeaderValue {
        HeaderValue::from_static(UNKNOWN)
    }
}

// === impl Head ===

impl Head {
    /// Returns a response without header fields.
    pub fn new(status: StatusCode) -> Self {
        Head { status, ..Head::default() }
    }

    /// Adds a field after the other fields. An invalid name is ignored.
    pub fn append(&mut self, name: &str, value: HeaderValue) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            self.headers.append(name, value);
        }
    }

    /// Returns the fields in their order, with names in their usual spelling: `Content-Type`.
    pub fn fields(&self) -> impl Iterator<Item = (String, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (spelled(name), value))
    }
}

impl From<&LocalReply> for Head {
    fn from(reply: &LocalReply) -> Self {
        Head { status: reply.status, headers: reply.fields().into_iter().collect() }
    }
}

/// Returns the name with a capital letter at the beginning and after each hyphen.
fn spelled(name: &HeaderName) -> String {
    let mut after_hyphen = true;
    let capital = |c: char| {
        let first = std::mem::replace(&mut after_hyphen, c == '-');
        if first { c.to_ascii_uppercase() } else { c }
    };
    name.as_str().chars().map(capital).collect()
}
