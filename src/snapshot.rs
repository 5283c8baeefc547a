//! A configuration, compiled: everything that requests read, and nothing that can still fail.
//!
//! [`Snapshot::read`] is the only way from text to a snapshot; start, reload and `check` all take it.
//! [`Snapshot::judge`] is the only way from a request to what happens to it; the proxy, the tests and explanations
//! all take that. Nothing ever goes back from here to the [`Document`].

mod compile;
mod spec;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

pub use self::spec::*;

use crate::config::{Cors, Document};
use crate::cors::{self, Edits, Policy, Reason, Scheme};
use crate::domain::HostName;
use crate::forwarded::TrustedProxies;
use crate::problem::{KeyPath, Kind, Problem, Problems, Step};
use crate::route::{Found, HostPattern, Path, Routes, is_ambiguous};
use crate::tls::Certificate;

/// A compiled configuration. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Snapshot {
    table: Routes<RouteId, Option<Arc<Policy>>>,
    routes: Vec<Route>,
    upstreams: Vec<Upstream>,
    listeners: Vec<Arc<Listener>>,
    trusted_proxies: TrustedProxies,
    /// For hosts that no service has.
    default_policy: Option<Arc<Policy>>,
    limits: Limits,
    access_log: Option<AccessLog>,
    admin_hosts: Vec<HostPattern>,
    debug_header: bool,
    fixed: Fixed,
}

/// A route, with all that was inherited.
#[derive(Debug, Clone)]
pub struct Route {
    /// `service/route`, for logs and metrics.
    pub name: Arc<str>,
    /// None: no CORS handling.
    pub policy: Option<Arc<Policy>>,
    /// Where requests go.
    pub upstream: UpstreamId,
    /// What is cut off the front of the path.
    pub strip_prefix: Option<Box<str>>,
    /// Where it stands in the file.
    pub place: RoutePlace,
    /// The nearest `cors`, which counts for it; None when there is none at any level.
    pub cors: Option<CorsPlace>,
}

/// Where a route stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePlace {
    /// Position of the service.
    pub service: u32,
    /// Position of the route in it; None for the one that a service without routes has.
    pub route: Option<u32>,
}

/// Which `cors` counts for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsPlace {
    /// Where the key stands.
    pub level: Level,
    /// The named policy that it chooses; None when it is written in place, or `false`.
    pub name: Option<Arc<str>>,
}

/// A place where `cors` can stand, from far to near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// At the top of the file.
    Top,
    /// At a service.
    Service,
    /// At a route.
    Route,
}

/// Position of an upstream in [`Snapshot::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamId(pub usize);

/// Position of a route in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RouteId(u32);

/// What only a restart can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Where clients connect, at least one; and whether in TLS.
    pub listeners: Vec<(SocketAddr, bool)>,
    /// Where operators connect; None: nowhere.
    pub admin: Option<SocketAddr>,
    /// Threads that serve requests; 0 = one per core.
    pub threads: usize,
    /// The longest that SIGTERM waits.
    pub grace_period: Duration,
    /// How long SIGTERM goes on accepting.
    pub drain_delay: Duration,
    /// Where SIGQUIT hands the sockets over; None: a place that the process finds.
    pub upgrade_socket: Option<Box<str>>,
}

/// What a configuration refers to outside of its text.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The contents of a file, by its path as written, or why it cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// Whether the folder is there in which a file is to be, by the path of that file as written.
    pub has_folder: &'a dyn Fn(&str) -> bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// A request as it came, as far as it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its own method.
    pub method: &'a Method,
    /// The path, without query, byte for byte.
    pub path: &'a [u8],
    /// Bytes of the request target as written.
    pub target_length: usize,
    /// HTTP/1.1 requests must name a host.
    pub version: Version,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: Option<&'a str>,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// Whether its length is beyond doubt.
    pub framing: Framing,
    /// What it came on.
    pub connection: Connection<'a>,
}

/// What a request came on, as far as it is judged by that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connection<'a> {
    /// None: plain HTTP, or a client that asked for no name.
    pub asked_for: Option<ServerName<'a>>,
    /// The port on https where requests should have come instead.
    pub redirect: Option<u16>,
    /// Whether there was room for it.
    pub crowd: Crowd,
}

/// What the client asked for in its TLS handshake, and was shown.
#[derive(Debug, Clone, Copy)]
pub struct ServerName<'a> {
    /// The name, in lower case.
    pub name: &'a str,
    /// The certificate that it was shown.
    pub certificate: &'a Certificate,
}

/// Whether there was room for a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Crowd {
    /// There was.
    #[default]
    Room,
    /// As many as can be are open.
    Full,
    /// The client has as many open as one can have.
    ClientFull,
}

/// Whether the length of a request's body is beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// None, one Content-Length, or chunked.
    Clear,
    /// Anything else: what request smuggling is made of (RFC 9112 section 11.2).
    Ambiguous,
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub struct Verdict<'s> {
    /// Who answers, and how.
    pub action: Action<'s>,
    /// For every response of the request, whoever makes it.
    pub edits: Edits,
    /// Why CORS is as it is; None when the request got no further than its form, host or path.
    pub reason: Option<Reason>,
    /// The route that it belongs to, whoever answers; None when it got no further than its form, host or path.
    pub route: Option<RouteRef<'s>>,
}

/// What a request is to CORS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Answered here, as a preflight.
    Preflight,
    /// Any other.
    Actual,
}

/// Who answers a request, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'s> {
    /// The upstream of this route.
    Forward(RouteRef<'s>),
    /// The gateway, as a preflight.
    Answer(StatusCode),
    /// The gateway: the same on https, at this port.
    Redirect(u16),
    /// The gateway, with an error.
    Refuse(Refusal<'s>),
}

/// A route of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct RouteRef<'s> {
    /// Its position, for [`Snapshot::route`] later on.
    pub index: u32,
    /// The route.
    pub route: &'s Route,
}

/// Why the gateway refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'s> {
    /// 400: no host, more than one, or one that cannot be read.
    BadHost,
    /// 400: a target that is no path.
    BadTarget,
    /// 400: a path that different servers understand differently.
    AmbiguousPath,
    /// 400: a body whose end different servers see in different places.
    AmbiguousLength,
    /// 403: the Origin is refused, and the policy says `disallowed_origins: reject`.
    OriginRejected(Reason),
    /// 404: no service has the host.
    UnknownHost,
    /// 404: the services of the host have no such path.
    UnknownPath,
    /// 405: the path has no route for the method. Holds the value of `Allow`.
    MethodNotAllowed(&'s HeaderValue),
    /// 413
    BodyTooLarge,
    /// 414
    UriTooLong,
    /// 421: the connection was made for another host.
    Misdirected,
    /// 429: one connection too many of this client.
    ClientCrowded,
    /// 431
    HeadersTooLarge,
    /// 503: one connection too many in all.
    Crowded,
}

// === impl Snapshot ===

impl Snapshot {
    /// Text to snapshot. None when one of the problems is an error; the others are worth showing in any case.
    pub fn read(text: &str, surroundings: Surroundings<'_>) -> (Option<Self>, Problems) {
        let mut form = Problems::default();
        let Some(document) = Document::parse(text, &mut form) else { return (None, form) };
        let mut problems = Problems::default();
        let snapshot = Self::compile(&document, surroundings, &mut problems);
        problems.retain(|problem| !form.iter().any(|cause| follows_from(problem, cause)));
        form.extend(problems);
        let usable = !form.any_errors();
        (snapshot.filter(|_| usable), form)
    }

    /// Judges a request: the one decision that everything which happens to it follows from. Reads nothing but the
    /// request and this snapshot.
    pub fn judge(&self, request: &Request<'_>) -> Verdict<'_> {
        let mut verdict = self.decide(request);
        if self.debug_header {
            verdict.edits.say(verdict.code());
        }
        verdict
    }

    fn decide(&self, request: &Request<'_>) -> Verdict<'_> {
        let authority = request.authority.unwrap_or_default();
        let facts =
            cors::Request { method: request.method, headers: request.headers, scheme: request.scheme, authority };
        let refuse = |refusal, policy: Option<&Policy>| Verdict {
            action: Action::Refuse(refusal),
            edits: policy.map(|policy| policy.respond(&facts).0).unwrap_or_default(),
            reason: None,
            route: None,
        };
        let host = match request.authority.map(HostName::parse) {
            Some(Some(host)) => Some(host),
            // Only HTTP/1.0 can do without a host.
            None if request.version < Version::HTTP_11 => None,
            _ => return refuse(Refusal::BadHost, self.default_policy.as_deref()),
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
        let too_much = self.limits.check(request);
        let (path, host_policy) = match self.table.find(host, request.path) {
            Found::Path(path, host_policy) => (path, host_policy.as_deref()),
            Found::UnknownPath(policy) => return refuse(too_much.unwrap_or(Refusal::UnknownPath), policy.as_deref()),
            Found::UnknownHost => {
                return refuse(too_much.unwrap_or(Refusal::UnknownHost), self.default_policy.as_deref());
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
            let reason = Some(Reason::NoPolicy);
            return Verdict { action: forward, edits: Edits::default(), reason, route: Some(chosen) };
        };
        let decision = policy.decide(&facts);
        let action = match decision.action {
            cors::Action::Forward => forward,
            cors::Action::Answer(status) => Action::Answer(status),
            cors::Action::Reject => Action::Refuse(Refusal::OriginRejected(decision.reason)),
        };
        Verdict { action, edits: decision.edits, reason: Some(decision.reason), route: Some(chosen) }
    }

    /// The policy for responses of the gateway's own that no route of the host is behind.
    fn host_policy(&self, host: &str) -> Option<&Policy> {
        match self.table.carried(host) {
            Some(policy) => policy.as_deref(),
            None => self.default_policy.as_deref(),
        }
    }

    /// A route by the position that a verdict gave.
    pub fn route(&self, index: u32) -> &Route {
        &self.routes[index as usize]
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// All upstreams that some route uses.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// Where clients connect, in the order of the file.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The listener behind a local address, which a listener on an unspecified address has many of.
    pub fn listener(&self, local: SocketAddr) -> Option<&Arc<Listener>> {
        let found = || self.listeners.iter().filter(|listener| listener.serves(local));
        found().find(|listener| !listener.address.ip().is_unspecified()).or_else(|| found().next())
    }

    /// Whose word about a client is believed.
    pub fn trusted_proxies(&self) -> &TrustedProxies {
        &self.trusted_proxies
    }

    /// What a client may do.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One line for each request; None: none.
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// Names by which the admin listener may be asked, beside addresses and `localhost`.
    pub fn admin_hosts(&self) -> &[HostPattern] {
        &self.admin_hosts
    }

    /// What only a restart can change.
    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// The route of a path for a request. A preflight goes where the request that it asks for would go. An OPTIONS
    /// that asks for nothing, as people type it into curl, goes to the first route whose policy would answer it.
    fn choose(&self, path: &Path<RouteId>, facts: &cors::Request<'_>) -> Option<RouteRef<'_>> {
        let id = match facts.preflighted_method() {
            Some(method) => path.route(method)?,
            None => path.route(facts.method.as_str()).or_else(|| {
                let takes = |id: &&RouteId| {
                    self.routes[id.0 as usize].policy.as_ref().is_some_and(|policy| policy.takes_as_preflight(facts))
                };
                path.routes().next().filter(takes)
            })?,
        };
        Some(RouteRef { index: id.0, route: &self.routes[id.0 as usize] })
    }

    /// The policy that all routes of a path share, if they do.
    fn common_policy(&self, path: &Path<RouteId>) -> Option<Option<&Policy>> {
        let mut policies = path.routes().map(|id| self.routes[id.0 as usize].policy.as_deref());
        let first = policies.next()?;
        let same = |other: Option<&Policy>| match (first, other) {
            (None, None) => true,
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            _ => false,
        };
        policies.all(same).then_some(first)
    }
}

/// Whether a problem is only what an unreadable value leaves behind: the reader has been told the cause already.
fn follows_from(problem: &Problem, cause: &Problem) -> bool {
    let is_left_out = matches!(
        problem.kind,
        Kind::Missing { .. } | Kind::MaxAgeLeftOut | Kind::AnyHeaderWithoutAuthorization | Kind::NoOrigins
    );
    problem.at.is_within(&cause.at)
        || match &problem.kind {
            _ if is_left_out && cause.kind.may_stand_for(&problem.at, &cause.at) => true,
            Kind::Missing { .. } | Kind::NoOrigins | Kind::EmptyList => cause.at.is_within(&problem.at),
            Kind::UnknownName { name, what, .. } => {
                let section = KeyPath(vec![Step::Key(section_of(what).into())]);
                cause.at == section
                    || cause.kind.may_stand_for(&section, &cause.at)
                    || cause.at.0.last() == Some(&Step::Key(name.clone()))
            }
            _ => false,
        }
}

/// Where things with a name are defined.
fn section_of(what: &str) -> &'static str {
    match what {
        "upstream" => "upstreams",
        "policy" => "cors_policies",
        _ => "origin_sets",
    }
}

// === impl Route, Verdict ===

impl Route {
    /// Where it stands: `services[0].routes[1]`.
    pub fn at(&self) -> KeyPath {
        self.place.at(Level::Route)
    }

    /// Where the `cors` stands that counts for it, be it a policy, the name of one, or `false`.
    pub fn cors_at(&self) -> Option<KeyPath> {
        let mut at = self.place.at(self.cors.as_ref()?.level);
        at.0.push(Step::Key("cors".into()));
        Some(at)
    }

    /// Where its policy is written; None without one.
    pub fn policy_at(&self) -> Option<KeyPath> {
        self.policy.as_ref()?;
        match &self.cors.as_ref()?.name {
            Some(name) => Some(KeyPath(vec![Step::Key("cors_policies".into()), Step::Key(name.to_string())])),
            None => self.cors_at(),
        }
    }
}

impl RoutePlace {
    /// The `cors` of a level, as a document has it for this route; None: there is none.
    pub fn cors(self, document: &Document, level: Level) -> Option<&Cors> {
        let service = || document.services.as_ref()?.get(self.service as usize);
        match level {
            Level::Top => document.cors.as_ref(),
            Level::Service => service()?.cors.as_ref(),
            Level::Route => service()?.routes.as_ref()?.get(self.route? as usize)?.cors.as_ref(),
        }
    }

    /// What of a level this route is in: the whole file, its service, or itself.
    pub fn at(self, level: Level) -> KeyPath {
        let RoutePlace { service, route } = self;
        let mut steps = Vec::new();
        if level >= Level::Service {
            steps.extend([Step::Key("services".into()), Step::Index(service as usize)]);
        }
        if let (Level::Route, Some(route)) = (level, route) {
            steps.extend([Step::Key("routes".into()), Step::Index(route as usize)]);
        }
        KeyPath(steps)
    }
}

impl Verdict<'_> {
    /// What the request is to CORS.
    pub fn kind(&self) -> RequestKind {
        match self.action {
            Action::Answer(_) => RequestKind::Preflight,
            Action::Forward(_) | Action::Redirect(_) | Action::Refuse(_) => RequestKind::Actual,
        }
    }

    /// Whether the gateway refuses the request, or refuses it to the page that made it.
    pub fn is_refused(&self) -> bool {
        matches!(self.action, Action::Refuse(_)) || self.reason.is_some_and(Reason::is_refusal)
    }

    /// Why it is so, in one word: the reason, or else why the gateway refuses.
    pub fn code(&self) -> &'static str {
        match (self.reason, self.action) {
            (Some(reason), _) => reason.code(),
            (None, Action::Refuse(refusal)) => refusal.code(),
            // Whatever is not refused has a reason.
            (None, Action::Forward(_) | Action::Answer(_) | Action::Redirect(_)) => "-",
        }
    }
}

impl RequestKind {
    /// Both, each at the position that it has as a number.
    pub const ALL: [RequestKind; 2] = [RequestKind::Preflight, RequestKind::Actual];

    /// As logs and metrics write it.
    pub const fn code(self) -> &'static str {
        match self {
            RequestKind::Preflight => "preflight",
            RequestKind::Actual => "actual",
        }
    }
}

// === impl Surroundings, Limits, Refusal ===

impl Surroundings<'static> {
    /// For a configuration that refers to nothing.
    pub const NONE: Self =
        Surroundings { file: &|_| Err("there are no files here".to_owned()), has_folder: &|_| true, now: 0 };
}

impl Limits {
    fn check(&self, request: &Request<'_>) -> Option<Refusal<'static>> {
        let headers = request.headers;
        match request.connection.crowd {
            Crowd::Room => {}
            Crowd::Full => return Some(Refusal::Crowded),
            Crowd::ClientFull => return Some(Refusal::ClientCrowded),
        }
        if request.target_length > self.uri {
            return Some(Refusal::UriTooLong);
        }
        let bytes = || headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        if headers.len() > self.header_count || bytes() > self.headers {
            return Some(Refusal::HeadersTooLarge);
        }
        let limit = self.body?;
        let length = headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
        (length > limit).then_some(Refusal::BodyTooLarge)
    }
}

impl Refusal<'_> {
    /// The codes of all that are not for CORS to explain.
    pub const CODES: [&'static str; 13] = [
        "bad_host",
        "bad_target",
        "ambiguous_path",
        "ambiguous_length",
        "unknown_host",
        "unknown_path",
        "no_route_for_method",
        "body_too_large",
        "uri_too_long",
        "misdirected",
        "client_crowded",
        "crowded",
        "headers_too_large",
    ];

    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::BadHost | Refusal::BadTarget | Refusal::AmbiguousPath | Refusal::AmbiguousLength => {
                StatusCode::BAD_REQUEST
            }
            Refusal::OriginRejected(_) => StatusCode::FORBIDDEN,
            Refusal::UnknownHost | Refusal::UnknownPath => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::UriTooLong => StatusCode::URI_TOO_LONG,
            Refusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Refusal::ClientCrowded => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Crowded => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// In one word, as logs and metrics write it. Where CORS refuses, it is the reason's.
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::BadHost => "bad_host",
            Refusal::BadTarget => "bad_target",
            Refusal::AmbiguousPath => "ambiguous_path",
            Refusal::AmbiguousLength => "ambiguous_length",
            Refusal::OriginRejected(reason) => reason.code(),
            Refusal::UnknownHost => "unknown_host",
            Refusal::UnknownPath => "unknown_path",
            Refusal::MethodNotAllowed(_) => "no_route_for_method",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::UriTooLong => "uri_too_long",
            Refusal::Misdirected => "misdirected",
            Refusal::ClientCrowded => "client_crowded",
            Refusal::Crowded => "crowded",
            Refusal::HeadersTooLarge => "headers_too_large",
        }
    }

    /// One line for the client. Never holds anything that the client sent.
    pub fn explanation(&self) -> &'static str {
        match self {
            Refusal::BadHost => "The request does not name one valid host.\n",
            Refusal::BadTarget => "The request target is not a path.\n",
            Refusal::AmbiguousPath => {
                "The path has dot segments, encoded slashes, backslashes or NULs, which servers understand differently.\n"
            }
            Refusal::AmbiguousLength => {
                "The body needs one Content-Length, or Transfer-Encoding: chunked, and nothing beside it.\n"
            }
            Refusal::OriginRejected(Reason::OriginInvalid) => {
                "Cross-origin request refused: not exactly one well-formed Origin (origin_invalid).\n"
            }
            Refusal::OriginRejected(Reason::OriginNull) => {
                "Cross-origin request refused: the origin null is not allowed (origin_null).\n"
            }
            Refusal::OriginRejected(_) => {
                "Cross-origin request refused: the origin is not allowed (origin_not_allowed).\n"
            }
            Refusal::UnknownHost => "No service has this host.\n",
            Refusal::UnknownPath => "No route has this path.\n",
            Refusal::MethodNotAllowed(_) => "No route of this path takes this method.\n",
            Refusal::BodyTooLarge => "The request body is longer than allowed.\n",
            Refusal::UriTooLong => "The request target is longer than allowed.\n",
            Refusal::Misdirected => {
                "This connection was made for another host: its server name (SNI) and its certificate are not for this one.\n"
            }
            Refusal::ClientCrowded => "This client has as many connections open as it may.\n",
            Refusal::Crowded => "As many connections are open as may be.\n",
            Refusal::HeadersTooLarge => "The request header is larger than allowed.\n",
        }
    }
}

impl PartialEq for RouteRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for RouteRef<'_> {}
