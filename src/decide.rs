//! A request to what happens to it: one [`Verdict`], decided once.
//!
//! [`Snapshot::decide`] is the only way; the proxy, `explain` and the tests take it. It reads nothing but the request and
//! the snapshot.

pub(crate) mod local_reply;
mod refusal;
mod request;

use http::{Method, StatusCode, Version};

pub use self::refusal::{Refusal, RefusalCode};
pub(crate) use self::request::Capacity;
pub use self::request::{ConnectionFacts, Framing, Request, ServerName};

use crate::codes::coded_enum;
use crate::cors::{CorsRequest, Edits, Policy, PolicyAction, Reason, Scheme};
use crate::domain::HostName;
use crate::route::{Path, RouteMatch, is_ambiguous};
use crate::snapshot::{Limits, Route, RouteId, Snapshot};

/// What happens to one request.
#[derive(Debug, Clone)]
pub struct Verdict<'s> {
    /// Who answers, and how.
    pub action: Action<'s>,
    /// For every response of the request, whoever makes it.
    pub edits: Edits,
    /// Result of the request, as one code.
    pub outcome: Outcome,
    /// The route that it belongs to, whoever answers; None when it got no further than its form, host or path.
    pub(crate) route: Option<RouteRef<'s>>,
}

/// Result of a request, as one code in logs, metrics and explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The policy of the route decided about CORS, or the route has none.
    Cors(Reason),
    /// The gateway refused the request for another reason than CORS.
    Refused(RefusalCode),
}

coded_enum! {
    /// What a request is to CORS.
    pub enum RequestKind {
        /// A preflight that the gateway answers.
        Preflight = "preflight",
        /// Any other request.
        Actual = "actual",
    }
}

/// Who answers a request, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'s> {
    /// The upstream of this route.
    Forward(RouteRef<'s>),
    /// The gateway, as a preflight.
    AnswerPreflight(StatusCode),
    /// The gateway: the same on https, at this port.
    Redirect(u16),
    /// The gateway, with an error.
    Refuse(Refusal<'s>),
}

/// A route of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct RouteRef<'s> {
    /// Its position, for [`Snapshot::route`] later on.
    pub(crate) index: u32,
    /// The route.
    pub(crate) route: &'s Route,
}

// === impl Snapshot ===

impl Snapshot {
    /// Judges a request: the one decision that everything which happens to it follows from. Reads nothing but the
    /// request and this snapshot.
    pub fn decide(&self, request: &Request<'_>) -> Verdict<'_> {
        let mut verdict = self.judge(request);
        if self.debug_header() {
            verdict.edits.say(verdict.outcome.code());
        }
        verdict
    }

    fn judge(&self, request: &Request<'_>) -> Verdict<'_> {
        let authority = request.authority.unwrap_or_default();
        let facts = CorsRequest { method: request.method, headers: request.headers, scheme: request.scheme, authority };
        let refuse = |refusal, policy: Option<&Policy>| Verdict {
            action: Action::Refuse(refusal),
            edits: policy.map(|policy| policy.respond(&facts).0).unwrap_or_default(),
            outcome: Refusal::outcome(&refusal),
            route: None,
        };
        let host = match request.authority.map(HostName::parse) {
            Some(Some(host)) => Some(host),
            // Only HTTP/1.0 can do without a host.
            None if request.version < Version::HTTP_11 => None,
            _ => return refuse(Refusal::BadHost, self.default_policy()),
        };
        let host = host.as_ref().map(HostName::as_str).unwrap_or_default();
        // Of a request that may be two, only the host is believed.
        if request.framing == Framing::Ambiguous {
            return refuse(Refusal::AmbiguousLength, self.host_policy(host));
        }
        // RFC 9110 section 7.4. A connection can serve several hosts, as far as its certificate does.
        let asked_for = request.connection.asked_for;
        if asked_for.is_some_and(|server| server.name != host && !server.certificate.covers(host)) {
            return refuse(Refusal::Misdirected, self.host_policy(host));
        }
        // `*` is the server itself, and only OPTIONS asks for that (RFC 9112 section 3.2.4).
        if !request.path.starts_with(b"/") && (request.path != b"*" || *request.method != Method::OPTIONS) {
            return refuse(Refusal::BadTarget, self.host_policy(host));
        }
        if is_ambiguous(request.path) {
            return refuse(Refusal::AmbiguousPath, self.host_policy(host));
        }
        // What is too much is too much wherever it leads; where it leads only says whose policy the answer has.
        let too_much = check_limits(self.limits(), request);
        let (path, host_policy) = match self.find(host, request.path) {
            RouteMatch::Path(path, host_policy) => (path, host_policy.as_deref()),
            RouteMatch::UnknownPath(policy) => {
                return refuse(too_much.unwrap_or(Refusal::UnknownPath), policy.as_deref());
            }
            RouteMatch::UnknownHost => {
                return refuse(too_much.unwrap_or(Refusal::UnknownHost), self.default_policy());
            }
        };
        let Some(chosen) = self.choose(path, &facts) else {
            let policy = self.common_policy(path).unwrap_or(host_policy);
            return refuse(too_much.unwrap_or(Refusal::MethodNotAllowed(path.allow())), policy);
        };
        let policy = chosen.route.policy.as_deref();
        if let Some(too_much) = too_much {
            return Verdict { route: Some(chosen), ..refuse(too_much, policy) };
        }
        // Browsers do not follow a redirect of a preflight, so there is none.
        let redirect = request.connection.redirect.filter(|_| request.scheme == Scheme::Http);
        let forward = match redirect.filter(|_| facts.preflighted_method().is_none()) {
            Some(port) => Action::Redirect(port),
            None => Action::Forward(chosen),
        };
        let Some(policy) = policy else {
            let outcome = Outcome::Cors(Reason::NoPolicy);
            return Verdict { action: forward, edits: Edits::default(), outcome, route: Some(chosen) };
        };
        let decision = policy.decide(&facts);
        let action = match decision.action {
            PolicyAction::Forward => forward,
            PolicyAction::AnswerPreflight(status) => Action::AnswerPreflight(status),
            PolicyAction::Reject => Action::Refuse(Refusal::OriginRejected(decision.reason)),
        };
        Verdict { action, edits: decision.edits, outcome: Outcome::Cors(decision.reason), route: Some(chosen) }
    }

    /// The route of a path for a request. A preflight goes where the request that it asks for would go. An OPTIONS
    /// that asks for nothing, as people type it into curl, goes to the first route whose policy would answer it.
    fn choose(&self, path: &Path<RouteId>, facts: &CorsRequest<'_>) -> Option<RouteRef<'_>> {
        let id = match facts.preflighted_method() {
            Some(method) => path.route(method)?,
            None => path.route(facts.method.as_str()).or_else(|| {
                let takes = |id: &&RouteId| {
                    self.route(id.0).policy.as_ref().is_some_and(|policy| policy.takes_as_preflight(facts))
                };
                path.routes().next().filter(takes)
            })?,
        };
        Some(RouteRef { index: id.0, route: self.route(id.0) })
    }

    /// The policy that all routes of a path share, if they do.
    fn common_policy(&self, path: &Path<RouteId>) -> Option<Option<&Policy>> {
        let mut policies = path.routes().map(|id| self.route(id.0).policy.as_deref());
        let first = policies.next()?;
        let same = |other: Option<&Policy>| match (first, other) {
            (None, None) => true,
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            _ => false,
        };
        policies.all(same).then_some(first)
    }
}

fn check_limits(limits: &Limits, request: &Request<'_>) -> Option<Refusal<'static>> {
    let headers = request.headers;
    match request.connection.capacity {
        Capacity::Available => {}
        Capacity::ConnectionLimit => return Some(Refusal::ConnectionLimit),
        Capacity::ClientLimit => return Some(Refusal::ClientConnectionLimit),
    }
    if request.target_length > limits.uri {
        return Some(Refusal::UriTooLong);
    }
    let bytes = || headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if headers.len() > limits.header_count || bytes() > limits.headers {
        return Some(Refusal::HeadersTooLarge);
    }
    let limit = limits.body?;
    let length = headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    (length > limit).then_some(Refusal::BodyTooLarge)
}

// === impl Verdict, Outcome, RouteRef ===

impl Verdict<'_> {
    /// What the request is to CORS.
    pub(crate) fn kind(&self) -> RequestKind {
        match self.action {
            Action::AnswerPreflight(_) => RequestKind::Preflight,
            Action::Forward(_) | Action::Redirect(_) | Action::Refuse(_) => RequestKind::Actual,
        }
    }

    /// Whether the gateway refuses the request, or refuses it to the page that made it.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.action, Action::Refuse(_)) || self.outcome.reason().is_some_and(Reason::is_refusal)
    }
}

impl Outcome {
    /// Code in logs, metrics and explanations.
    pub const fn code(self) -> &'static str {
        match self {
            Outcome::Cors(reason) => reason.code(),
            Outcome::Refused(code) => code.code(),
        }
    }

    /// Reason of the CORS decision. None if the gateway refused the request before one.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Outcome::Cors(reason) => Some(reason),
            Outcome::Refused(_) => None,
        }
    }
}

impl PartialEq for RouteRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for RouteRef<'_> {}
