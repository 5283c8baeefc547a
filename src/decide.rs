//! Decides about a request: [`Snapshot::decide`] returns one [`Verdict`].
//!
//! It checks the form of the request and the limits, finds the route, and lets the route's CORS policy decide. The
//! proxy, `explain` and the tests call the same function. The result depends only on the request and the snapshot. The
//! function does no I/O.

pub(crate) mod local_reply;
mod max_forwards;
mod refusal;
mod request;

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

pub(crate) use self::max_forwards::MaxForwards;
pub use self::refusal::{Refusal, RefusalCode};
pub(crate) use self::request::Capacity;
pub use self::request::{ConnectionFacts, Framing, Request, ServerName};

use crate::behavior::answer::Answer;
use crate::behavior::rewrite::BadRewrite;
use crate::behavior::{Behaviors, RequestFacts, ResponseSource};
use crate::codes::coded_enum;
use crate::cors::{CorsRequest, Decision, Edits, Field, Policy, PolicyAction, PreflightRequest, Reason, ReportOnly};
use crate::domain::{HostName, Scheme};
use crate::route::{Path, RouteMatch, is_ambiguous, plain_path};
use crate::snapshot::{End, Limits, Route, RouteId, Snapshot};

/// The decision about one request.
#[derive(Debug, Clone)]
pub struct Verdict<'s> {
    /// Action of the gateway: it forwards the request, or replies to it.
    pub action: Action<'s>,
    /// CORS header fields for every response of the request, from the upstream or from the gateway.
    pub edits: Edits,
    /// Result of the request, as one code.
    pub outcome: RequestOutcome,
    /// Change by the route's report-only policy. None without a change, without such a policy, and if the gateway
    /// refuses the request for another reason than CORS.
    pub report_only: Option<ReportOnly>,
    /// The route of the request, also if the gateway replies itself. None if the request was refused before a route was
    /// found.
    pub(crate) route: Option<RouteRef<'s>>,
}

/// Result of a request, as one code in logs, metrics and explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Reason of the CORS decision, also if the route has no policy.
    Cors(Reason),
    /// The gateway refused the request for another reason than CORS.
    Refused(RefusalCode),
}

coded_enum! {
    /// Whether the gateway answered the request as a preflight. A label of logs and metrics.
    pub enum RequestKind {
        /// A preflight that the gateway answers.
        Preflight = "preflight",
        /// Any other request.
        Actual = "actual",
    }
}

/// Action of the gateway for a request.
#[derive(Debug, Clone, Copy)]
pub enum Action<'s> {
    /// Forward it to the upstream of this route.
    Forward(RouteRef<'s>),
    /// Answer the preflight with this status and no body.
    AnswerPreflight(StatusCode),
    /// Answer the OPTIONS request, which may not be forwarded further, with 204 and this value of `Allow`.
    AnswerOptions(&'s HeaderValue),
    /// Redirect to https on this port, with 308.
    RedirectToHttps(u16),
    /// Send the answer of the route, which has no upstream.
    Answer(&'s Answer),
    /// Reply with an error.
    Refuse(Refusal<'s>),
}

/// A route and its position in the snapshot.
#[derive(Debug, Clone, Copy)]
pub struct RouteRef<'s> {
    /// Index of the route, for [`Snapshot::route`].
    pub(crate) index: u32,
    pub(crate) route: &'s Route,
}

// === impl Snapshot ===

impl Snapshot {
    /// Decides about a request. It is called once for each request.
    pub fn decide(&self, request: &Request<'_>) -> Verdict<'_> {
        let mut verdict = self.verdict(request);
        if self.debug_header() {
            verdict.edits.set_debug_reason(verdict.outcome.code());
        }
        verdict
    }

    fn verdict(&self, request: &Request<'_>) -> Verdict<'_> {
        let cors_request =
            CorsRequest { method: request.method, headers: request.headers, own_origin: request.own_origin };
        let refuse = |refusal, policy: Option<&Policy>| Verdict {
            action: Action::Refuse(refusal),
            edits: policy.map(|policy| policy.respond(&cors_request).0).unwrap_or_default(),
            outcome: Refusal::outcome(&refusal),
            report_only: None,
            route: None,
        };
        let host = match request.authority.map(HostName::parse) {
            Some(Some(host)) => Some(host),
            // Only HTTP/1.0 allows a request without a host (RFC 9112 section 3.2).
            None if request.version < Version::HTTP_11 => None,
            _ => return refuse(Refusal::BadHost, self.default_policy()),
        };
        let host = host.as_ref().map(HostName::as_str).unwrap_or_default();
        // The upstream may read such a request as two requests. Only the host is used: it selects the policy of the
        // error response.
        if request.framing == Framing::Ambiguous {
            return refuse(Refusal::AmbiguousLength, self.host_policy(host));
        }
        // RFC 9110 section 7.4. HTTP/2 clients use a connection for every host of its certificate.
        let server_name = request.connection.server_name;
        if server_name.is_some_and(|server| server.name != host && !server.certificate.covers(host)) {
            return refuse(Refusal::Misdirected, self.host_policy(host));
        }
        // `OPTIONS *` is about the server as a whole. No other method may have this target (RFC 9112 section 3.2.4).
        let is_path = request.path.starts_with(b"/") || (request.path == b"*" && *request.method == Method::OPTIONS);
        if !is_path || request.framing == Framing::RawTarget {
            return refuse(Refusal::BadTarget, self.host_policy(host));
        }
        if is_ambiguous(request.path) {
            return refuse(Refusal::AmbiguousPath, self.host_policy(host));
        }
        // A request over a limit is refused whether it has a route or not. Its route is found first, because the
        // route's policy decides whether a page may read the error.
        let over_limit = check_limits(self.limits(), request);
        let client = request.connection.client;
        let denied_here = || request.connection.clients.is_some_and(|clients| !clients.accept(client));
        let refusal = |otherwise| match over_limit {
            Some(limit) => limit,
            None if denied_here() => Refusal::ClientDenied,
            None => otherwise,
        };
        let (path, host_policy) = match self.find(host, request.path) {
            RouteMatch::Path(path, host_policy) => (path, host_policy.as_deref()),
            RouteMatch::UnknownPath(policy) => {
                return refuse(refusal(Refusal::UnknownPath), policy.as_deref());
            }
            RouteMatch::UnknownHost => {
                return refuse(refusal(Refusal::UnknownHost), self.default_policy());
            }
        };
        let Some(found) = self.route_for(path, &cors_request) else {
            let policy = self.common_policy(path).unwrap_or(host_policy);
            return refuse(refusal(Refusal::MethodNotAllowed(path.allow())), policy);
        };
        let policy = found.route.policy.as_deref();
        if let Some(refusal) = over_limit {
            return Verdict { route: Some(found), ..refuse(refusal, policy) };
        }
        if self.leads_around_a_guard(found, host, request.path, &cors_request) {
            return Verdict { route: Some(found), ..refuse(Refusal::AmbiguousPath, policy) };
        }
        // The final recipient of a TRACE would send the request back, with its cookies and credentials.
        let is_last = || MaxForwards::of(request.method, request.headers) == MaxForwards::Zero;
        if *request.method == Method::TRACE && is_last() {
            return Verdict { route: Some(found), ..refuse(Refusal::MethodNotAllowed(path.allow()), policy) };
        }
        // This closure is not called for a preflight that the gateway answers. Every client gets that answer, so that
        // the page of a denied client can read the 403.
        let forward = || {
            let behaviors = found.route.behaviors.as_deref();
            let clients = behaviors.and_then(|behaviors| behaviors.clients.as_deref());
            if denied_here() || clients.is_some_and(|clients| !clients.accept(client)) {
                return Action::Refuse(Refusal::ClientDenied);
            }
            // A preflight is not redirected: for browsers a redirect is a network error (Fetch, CORS-preflight fetch). A
            // certificate authority asks for its file over http (RFC 8555 section 8.3), before there is a certificate.
            let redirect = request.connection.redirect.filter(|_| {
                request.own_origin.scheme == Scheme::Http
                    && !request.path.starts_with(b"/.well-known/acme-challenge/")
                    && cors_request.preflight().and_then(PreflightRequest::requested_method).is_none()
            });
            match redirect {
                Some(port) => Action::RedirectToHttps(port),
                None if is_last() => Action::AnswerOptions(path.allow()),
                None => end(found, request),
            }
        };
        let Some(policy) = policy else {
            let (action, edits) = (forward(), Edits::default());
            let outcome = action.outcome(Reason::NoPolicy);
            return Verdict { action, edits, outcome, report_only: None, route: Some(found) };
        };
        let mut decision = policy.decide(&cors_request);
        let reported = found.route.report_only.as_deref();
        let report_only = reported.and_then(|reported| ReportOnly::of(&decision, &reported.decide(&cors_request)));
        if let PolicyAction::AnswerPreflight(_) = decision.action
            && self.common_policy(path).is_none()
        {
            self.limit_to_policy(&mut decision, policy, path, request.headers);
        }
        let action = match decision.action {
            PolicyAction::Forward => forward(),
            PolicyAction::AnswerPreflight(status) => Action::AnswerPreflight(status),
            PolicyAction::Reject => Action::Refuse(Refusal::OriginRejected(decision.reason)),
        };
        let outcome = action.outcome(decision.reason);
        let report_only = report_only.filter(|_| outcome.reason().is_some());
        Verdict { action, edits: decision.edits, outcome, report_only, route: Some(found) }
    }

    /// Whether the upstream may read the path as another path, whose route has other guards. Most servers read
    /// `//admin` and `/%61dmin` as `/admin`.
    fn leads_around_a_guard(
        &self,
        found: RouteRef<'_>,
        host: &str,
        path: &[u8],
        cors_request: &CorsRequest<'_>,
    ) -> bool {
        if !self.has_guards() {
            return false;
        }
        let Some(plain) = plain_path(path) else { return false };
        let RouteMatch::Path(path, _) = self.find(host, &plain) else { return false };
        self.route_for(path, cors_request).is_some_and(|other| !found.route.has_guards_of(other.route))
    }

    /// Returns the route of a path for a request. A preflight has the route of the request that follows it. An OPTIONS
    /// request without `Access-Control-Request-Method` has the route for OPTIONS; without such a route, the first route
    /// of the path if its policy answers this request as a preflight.
    fn route_for(&self, path: &Path<RouteId>, cors_request: &CorsRequest<'_>) -> Option<RouteRef<'_>> {
        let preflight = cors_request.preflight();
        let id = match preflight.and_then(PreflightRequest::requested_method) {
            Some(method) => path.route(method)?,
            None => path.route(cors_request.method.as_str()).or_else(|| {
                let preflight = preflight?;
                let answers =
                    |id: &&RouteId| self.route(id.0).policy.as_ref().is_some_and(|policy| policy.answers(preflight));
                path.routes().next().filter(answers)
            })?,
        };
        Some(RouteRef { index: id.0, route: self.route(id.0) })
    }

    /// Limits the answer to a preflight on a path whose methods have different policies. A browser that caches the answer,
    /// or finds a method of another policy in its list, sends requests that the other policy refuses.
    fn limit_to_policy(&self, decision: &mut Decision, policy: &Policy, path: &Path<RouteId>, headers: &HeaderMap) {
        decision.edits.forbid_caching();
        // A method without a route gets 405, so it can stay in the list.
        let is_ours = |method: &str| {
            let route = path.route(method).map(|id| self.route(id.0).policy.as_deref());
            route.is_none_or(|other| other.is_some_and(|other| std::ptr::eq(other, policy)))
        };
        if !policy.listed_methods().is_some_and(|methods| methods.iter().all(|method| is_ours(method))) {
            let requested = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
            let requested = requested.filter(|_| decision.reason != Reason::MethodNotAllowed);
            if decision.edits.value(Field::AllowMethods).is_some() {
                decision.edits.set_allowed_methods(requested);
            }
        }
    }

    /// Returns the policy of all routes of a path. None if the routes have different policies.
    pub(crate) fn common_policy(&self, path: &Path<RouteId>) -> Option<Option<&Policy>> {
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

/// Edits the header of a response as [`Verdict::edit_response`] does, for callers that no longer have the verdict.
pub(crate) fn edit_response<F: RequestFacts>(
    behaviors: Option<&Behaviors>,
    cors: &Edits,
    headers: &mut HeaderMap,
    source: ResponseSource,
    facts: impl FnOnce() -> F,
) {
    if let Some(behaviors) = behaviors {
        behaviors.edit_response(headers, source, &facts());
    }
    cors.apply(headers);
}

/// Returns the action at the end of a route: the answer of the route, or forwarding to its upstream.
fn end<'s>(found: RouteRef<'s>, request: &Request<'_>) -> Action<'s> {
    if let End::Answer(answer) = &found.route.end {
        return Action::Answer(answer);
    }
    let rewrite = found.route.behaviors.as_deref().and_then(|behaviors| behaviors.rewrite.as_deref());
    let query = request.target_length.saturating_sub(request.path.len());
    match rewrite.map_or(Ok(()), |rewrite| rewrite.check(request.path, query)) {
        Ok(()) => Action::Forward(found),
        Err(BadRewrite::Ambiguous) => Action::Refuse(Refusal::AmbiguousPath),
        Err(BadRewrite::TooLong) => Action::Refuse(Refusal::UriTooLong),
    }
}

fn check_limits(limits: &Limits, request: &Request<'_>) -> Option<Refusal<'static>> {
    let headers = request.headers;
    match request.connection.capacity {
        Capacity::Available => {}
        Capacity::ConnectionLimit => return Some(Refusal::ConnectionLimit),
        Capacity::ClientLimit => return Some(Refusal::ClientConnectionLimit),
    }
    if request.target_length > limits.uri || request.framing == Framing::TargetTooLong {
        return Some(Refusal::UriTooLong);
    }
    let bytes = || headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let too_many = headers.len() > limits.header_count || request.framing == Framing::TooManyFields;
    if too_many || bytes() > limits.headers {
        return Some(Refusal::HeadersTooLarge);
    }
    let limit = limits.body?;
    let length = headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    (length > limit).then_some(Refusal::BodyTooLarge)
}

// === impl Verdict, RequestOutcome, RouteRef ===

impl Verdict<'_> {
    /// Edits the header of a response to the request: the edits of the route come first, then those of CORS. Every
    /// response of the request gets these edits, from the upstream and from the gateway.
    pub(crate) fn edit_response(&self, headers: &mut HeaderMap, source: ResponseSource, facts: impl RequestFacts) {
        let behaviors = self.route.and_then(|found| found.route.behaviors.as_deref());
        edit_response(behaviors, &self.edits, headers, source, || facts);
    }

    /// Refuses the request, for a reason that only the running gateway knows. The edits of responses stay.
    pub(crate) fn refuse(&mut self, refusal: Refusal<'static>) {
        self.action = Action::Refuse(refusal);
        self.outcome = refusal.outcome();
        self.report_only = None;
        self.edits.change_debug_reason(self.outcome.code());
    }

    /// Whether the service of `forward_auth` is asked before the request is forwarded.
    pub(crate) fn asks_a_service(&self) -> bool {
        let goes_on = matches!(self.action, Action::Forward(_) | Action::Answer(_));
        let behaviors = self.route.and_then(|found| found.route.behaviors.as_deref()).filter(|_| goes_on);
        behaviors.and_then(|behaviors| behaviors.forward_auth.as_ref()).is_some_and(|auth| auth.service.is_some())
    }

    pub(crate) fn kind(&self) -> RequestKind {
        match self.action {
            Action::AnswerPreflight(_) => RequestKind::Preflight,
            Action::Forward(_)
            | Action::AnswerOptions(_)
            | Action::RedirectToHttps(_)
            | Action::Answer(_)
            | Action::Refuse(_) => RequestKind::Actual,
        }
    }

    /// Whether the gateway refuses the request, or the CORS check fails so that the page cannot read the response.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.action, Action::Refuse(_)) || self.outcome.reason().is_some_and(Reason::is_refusal)
    }
}

impl Action<'_> {
    /// Returns the result of a request with this action. `reason` is the reason of the CORS decision.
    fn outcome(&self, reason: Reason) -> RequestOutcome {
        match self {
            Action::Refuse(refusal) => refusal.outcome(),
            _ => RequestOutcome::Cors(reason),
        }
    }
}

impl RequestOutcome {
    /// Code in logs, metrics and explanations.
    pub const fn code(self) -> &'static str {
        match self {
            RequestOutcome::Cors(reason) => reason.code(),
            RequestOutcome::Refused(code) => code.code(),
        }
    }

    /// Reason of the CORS decision. None if the gateway refused the request for another reason than CORS.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            RequestOutcome::Cors(reason) => Some(reason),
            RequestOutcome::Refused(_) => None,
        }
    }
}

impl PartialEq for RouteRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for RouteRef<'_> {}

#[cfg(test)]
mod tests;
