//! The CORS engine: a policy as it is written ([`Settings`]), as requests use it ([`Policy`]), and what one request
//! gets ([`Decision`]).
//!
//! Plain data in, plain data out: no I/O, no clock, nothing of Pingora. A decision depends on the policy and on the
//! request alone, so that one client's Origin can never change what another one gets, and it is taken once: every
//! response of the request, whoever makes it, gets the decision's [`Edits`].
//!
//! ```
//! use corsgate::cors::{Origins, Policy, Request, Scheme, Settings};
//! use corsgate::problem::{At, Problems};
//! use http::{HeaderMap, Method};
//!
//! let settings: Settings = serde_yaml::from_str("{ allow_origins: https://app.example, max_age: 600 }").unwrap();
//! let policy = Policy::compile(&settings, &Default::default(), &At::root(), &mut Problems::default()).unwrap();
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("Origin", "https://app.example".parse().unwrap());
//! let request = Request { method: &Method::GET, headers: &headers, scheme: Scheme::Http, authority: "api.example" };
//! let decision = policy.decide(&request);
//!
//! let mut response = HeaderMap::new();
//! decision.edits.apply(&mut response);
//! assert_eq!(response["access-control-allow-origin"], "https://app.example");
//! assert_eq!(response["vary"], "Origin");
//! ```

mod edits;
mod names;
mod origin;
mod regexes;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

pub use self::edits::{Edits, Field, Headers, Vary};
pub use self::names::{MAX_NAMES, MAX_NAMES_BYTES, is_forbidden_request_header};
pub use self::origin::{Found, MAX_ORIGIN, OriginPattern, OriginSet, TuplePattern};

use self::edits::{Fields, Removal, Values};
use self::names::{ListFault, Methods, RequestHeaders};
use self::regexes::OriginRegexes;
use crate::list::{List, given};
use crate::problem::{At, Kind, Problems, Severity};

/// A CORS policy, as written. Every key is optional, but at least one of the three that allow origins must be there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Origins that may read responses: `"*"` for any, or patterns such as `https://app.example`,
    /// `https://*.app.example`, `http://localhost:*`.
    #[serde(deserialize_with = "given")]
    pub allow_origins: Option<List>,
    /// Regular expressions that must match an Origin from its first byte to its last.
    #[serde(deserialize_with = "given")]
    pub allow_origins_by_regex: Option<Patterns>,
    /// Names from `origin_sets`.
    #[serde(deserialize_with = "given")]
    pub allow_origin_sets: Option<List>,
    /// Methods that a page may use; default `*`. GET, HEAD and POST always pass and need no listing.
    #[serde(deserialize_with = "given")]
    pub allow_methods: Option<List>,
    /// Request headers that a page may set; default `*`.
    #[serde(deserialize_with = "given")]
    pub allow_headers: Option<List>,
    /// Response headers that a page may read besides the safelisted ones; default none.
    #[serde(deserialize_with = "given")]
    pub expose_headers: Option<List>,
    /// Seconds for which a browser may remember a preflight's answer, 0 to 86400; default 5; -1 means 0.
    #[serde(deserialize_with = "given")]
    pub max_age: Option<i64>,
    /// Whether pages may send cookies and other credentials and still read the response; default false.
    #[serde(alias = "allow_credential")]
    pub allow_credentials: bool,
    /// Origins for `Timing-Allow-Origin`, in the forms of `allow_origins`; default: the header is left alone.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins: Option<List>,
    /// As `allow_origins_by_regex`, for `Timing-Allow-Origin`.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins_by_regex: Option<Patterns>,
    /// Answers `Access-Control-Request-Private-Network`; default false.
    pub allow_private_network: bool,
    /// Which OPTIONS requests are answered here, and with what status.
    pub preflight: PreflightSettings,
    /// What happens to the upstream's own CORS headers; default `override`.
    pub upstream_headers: UpstreamHeaders,
    /// What happens to a request whose Origin is refused; default `forward`.
    pub disallowed_origins: DisallowedOrigins,
    /// Accepts what is otherwise refused at load.
    #[serde(deserialize_with = "given")]
    pub dangerously_allow: Option<Vec<Danger>>,
}

/// `preflight` of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreflightSettings {
    /// Which OPTIONS requests are taken for preflights; default `origin`.
    #[serde(rename = "match")]
    pub matches: PreflightMatch,
    /// Status of an allowed preflight: 200 (default) or 204.
    pub status: u16,
    /// Status of a refused one: 200 (default), 204 or 403.
    pub refused_status: u16,
}

/// Which OPTIONS requests the gateway answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreflightMatch {
    /// With an Origin and a requested method: what browsers send.
    Standard,
    /// With an Origin.
    #[default]
    Origin,
    /// All.
    Any,
}

/// What happens to the upstream's own CORS headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHeaders {
    /// Those that the policy speaks of are replaced or removed.
    #[default]
    Override,
    /// All `Access-Control-*` are removed first.
    Replace,
}

/// What happens to a request whose Origin is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisallowedOrigins {
    /// It goes to the upstream; the browser withholds the response from the page.
    #[default]
    Forward,
    /// It gets 403 and never reaches the upstream.
    Reject,
}

/// What a policy may do only when it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// Allow the origin `null`.
    NullOrigin,
    /// Combine any origin with credentials.
    AnyOriginWithCredentials,
    /// Combine `http:` origins with credentials.
    InsecureOrigins,
    /// Combine wildcards directly under a public suffix with credentials.
    PublicSuffixSubdomains,
}

/// Regular expressions: a list, or one. A comma separates nothing here, it may be part of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "invalid value, expected a regular expression or a list of them")]
pub enum Patterns {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// A named list of origins (`origin_sets`), compiled once and shared by all policies that use it.
#[derive(Debug)]
pub struct Origins {
    set: OriginSet,
    /// Those that some policies must not have, with their text: few, so that a large set costs each policy little.
    remarkable: Vec<(String, TuplePattern)>,
}

/// The compiled `origin_sets`. None for one that has problems of its own.
pub type OriginSets = HashMap<String, Option<Arc<Origins>>>;

/// A policy, ready to decide: sets to look up and finished header values.
#[derive(Debug)]
pub struct Policy {
    origins: Allowed,
    timing: Option<Allowed>,
    credentials: bool,
    methods: Methods,
    headers: RequestHeaders,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    private_network: bool,
    preflight_match: PreflightMatch,
    status: StatusCode,
    refused_status: StatusCode,
    disallowed: DisallowedOrigins,
    removal_allowed: Removal,
    vary: Vary,
    preflight_vary: Vary,
}

/// The facts of a request that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The request's own method; a preflight's is OPTIONS.
    pub method: &'a Method,
    /// All request headers as they came.
    pub headers: &'a HeaderMap,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: &'a str,
}

/// How the client reached the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// What one request gets.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Who answers.
    pub action: Action,
    /// For every response of this request, whoever makes it.
    pub edits: Edits,
    /// Why.
    pub reason: Reason,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The upstream.
    Forward,
    /// The gateway, as a preflight: this status, no body.
    Answer(StatusCode),
    /// The gateway, with 403.
    Reject,
}

/// Why a decision is as it is: the same codes in logs, metrics and explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The policy allows any origin.
    AllowedAny,
    /// The origin is listed.
    AllowedExact,
    /// A pattern with a wildcard covers the origin.
    AllowedPattern,
    /// A regular expression matches the origin.
    AllowedRegex,
    /// The request has no Origin.
    NoOrigin,
    /// The Origin is the gateway's own.
    SameOrigin,
    /// The route has no policy.
    NoPolicy,
    /// Nothing allows the origin.
    OriginNotAllowed,
    /// The Origin is `null`, which nothing allows.
    OriginNull,
    /// Not exactly one well-formed Origin.
    OriginInvalid,
    /// The preflight asks for a method that is not allowed.
    MethodNotAllowed,
    /// The preflight asks for a header that is not allowed.
    HeaderNotAllowed,
    /// The preflight asks for more headers than are looked at.
    HeaderListTooLong,
}

/// Who is allowed, compiled.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per policy, and a box would be one more step per request")]
enum Allowed {
    /// Everyone, in the same words: the Origin is not even looked at.
    Any,
    /// Everyone, by name, because `*` cannot go with credentials.
    AnyByName { null: bool },
    /// Those that are listed.
    Listed { own: OriginSet, shared: Vec<Arc<Origins>>, regexes: Option<OriginRegexes>, null: bool },
}

/// The Origin of a request.
#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Absent,
    Invalid,
    One(&'a HeaderValue, &'a str),
}

/// What an origin gets of one header.
enum Verdict {
    Granted(HeaderValue, Reason),
    Refused(Reason),
}

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const DEFAULT_MAX_AGE: i64 = 5;

// === impl Policy: deciding ===

impl Policy {
    /// Decides about one request. Allocates nothing, takes no lock, and its cost has a bound that no request can move.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let origin = Given::of(request.headers);
        let verdict = self.origins.judge(origin, request);
        if self.takes_as_preflight(request) {
            return self.answer_preflight(request, &verdict);
        }
        let action = match (self.disallowed, &verdict) {
            (DisallowedOrigins::Reject, Verdict::Refused(reason))
                if !matches!(reason, Reason::NoOrigin | Reason::SameOrigin) =>
            {
                Action::Reject
            }
            _ => Action::Forward,
        };
        Decision { action, edits: self.ordinary_edits(origin, request, &verdict), reason: verdict.reason() }
    }

    /// What any response gets that is no answer to a preflight: for errors that are found before a decision can be
    /// acted on.
    pub fn respond(&self, request: &Request<'_>) -> (Edits, Reason) {
        let origin = Given::of(request.headers);
        let verdict = self.origins.judge(origin, request);
        (self.ordinary_edits(origin, request, &verdict), verdict.reason())
    }

    fn ordinary_edits(&self, origin: Given<'_>, request: &Request<'_>, verdict: &Verdict) -> Edits {
        let mut edits = self.edits(verdict);
        if let Some(timing) = &self.timing
            && let Verdict::Granted(value, _) = timing.judge(origin, request)
        {
            edits.values.set(Field::TimingAllowOrigin, value);
        }
        edits
    }

    /// Whether this policy answers a request itself, as a preflight.
    pub fn takes_as_preflight(&self, request: &Request<'_>) -> bool {
        let has = |name| request.headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
        request.method == Method::OPTIONS
            && match self.preflight_match {
                PreflightMatch::Standard => has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD),
                PreflightMatch::Origin => has(ORIGIN),
                PreflightMatch::Any => true,
            }
    }

    fn answer_preflight(&self, request: &Request<'_>, verdict: &Verdict) -> Decision {
        let mut edits = self.edits(verdict);
        edits.vary = self.preflight_vary;
        let Verdict::Granted(_, granted) = *verdict else {
            return Decision { action: Action::Answer(self.refused_status), edits, reason: verdict.reason() };
        };
        let requested = Requested::of(request.headers);
        let mut set = |field, value| edits.values.set(field, value);
        // The lists are always the true ones, also when what was asked for is not among them: then the browser's
        // console names the method or header that is missing.
        match (&self.methods, self.credentials) {
            (Methods::Listed { value, .. }, _) | (Methods::Any { value }, false) => {
                set(Field::AllowMethods, value.clone());
            }
            (Methods::Any { .. }, true) => {
                if let Requested::Method(method) = requested
                    && names::is_token(method.as_bytes())
                {
                    set(Field::AllowMethods, method.clone());
                }
            }
        }
        let headers = self.headers.allow(request.headers, self.credentials);
        match (&self.headers, self.credentials) {
            (RequestHeaders::Any { value, .. }, false) => set(Field::AllowHeaders, value.clone()),
            (RequestHeaders::Any { .. }, true) => {
                if let (Ok(()), Some(value)) = (headers, names::echoed(request.headers)) {
                    set(Field::AllowHeaders, value);
                }
            }
            (RequestHeaders::Listed { value, .. }, _) => {
                if let Some(value) = value {
                    set(Field::AllowHeaders, value.clone());
                }
            }
        }
        set(Field::MaxAge, self.max_age.clone());
        if self.private_network
            && request.headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value.as_bytes() == b"true")
        {
            set(Field::AllowPrivateNetwork, TRUE);
        }
        let method = match requested {
            Requested::None => true,
            Requested::Method(method) => self.methods.allow(method.as_bytes()),
            Requested::Several => false,
        };
        let (status, reason) = match (method, headers) {
            (false, _) => (self.refused_status, Reason::MethodNotAllowed),
            (true, Err(ListFault::TooLong)) => (self.refused_status, Reason::HeaderListTooLong),
            (true, Err(ListFault::NotAllowed)) => (self.refused_status, Reason::HeaderNotAllowed),
            (true, Ok(())) => (self.status, granted),
        };
        Decision { action: Action::Answer(status), edits, reason }
    }

    /// What both kinds of response have in common.
    fn edits(&self, verdict: &Verdict) -> Edits {
        let mut values = Values::default();
        let removal = match verdict {
            Verdict::Refused(_) => Removal::AllAccessControl(self.timing_field()),
            Verdict::Granted(value, _) => {
                values.set(Field::AllowOrigin, value.clone());
                if self.credentials {
                    values.set(Field::AllowCredentials, TRUE);
                }
                if let Some(expose) = &self.expose {
                    values.set(Field::ExposeHeaders, expose.clone());
                }
                self.removal_allowed
            }
        };
        Edits { removal, values, vary: self.vary }
    }

    fn timing_field(&self) -> Fields {
        match self.timing {
            Some(_) => Fields::of(&[Field::TimingAllowOrigin]),
            None => Fields::default(),
        }
    }
}

impl Allowed {
    fn judge(&self, origin: Given<'_>, request: &Request<'_>) -> Verdict {
        if let Allowed::Any = self {
            return Verdict::Granted(ANY, Reason::AllowedAny);
        }
        let (value, text) = match origin {
            Given::Absent => return Verdict::Refused(Reason::NoOrigin),
            Given::Invalid => return Verdict::Refused(Reason::OriginInvalid),
            Given::One(value, text) => (value, text),
        };
        let reason = match self {
            Allowed::Any => Some(Reason::AllowedAny),
            Allowed::AnyByName { null } => (text != "null" || *null).then_some(Reason::AllowedAny),
            Allowed::Listed { null, .. } if text == "null" => null.then_some(Reason::AllowedExact),
            Allowed::Listed { own, shared, regexes, .. } => std::iter::once(own)
                .chain(shared.iter().map(|origins| &origins.set))
                .find_map(|set| set.find(text))
                .map(|found| match found {
                    Found::Exact => Reason::AllowedExact,
                    Found::Pattern => Reason::AllowedPattern,
                })
                .or_else(|| regexes.as_ref().filter(|r| r.matches(text)).map(|_| Reason::AllowedRegex)),
        };
        match reason {
            // A clone of a header value counts a reference, it copies nothing.
            Some(reason) => Verdict::Granted(value.clone(), reason),
            None if text == "null" => Verdict::Refused(Reason::OriginNull),
            None if request.is_own_origin(text) => Verdict::Refused(Reason::SameOrigin),
            None => Verdict::Refused(Reason::OriginNotAllowed),
        }
    }

    fn depends_on_origin(&self) -> bool {
        !matches!(self, Allowed::Any)
    }
}

impl Verdict {
    fn reason(&self) -> Reason {
        match self {
            Verdict::Granted(_, reason) | Verdict::Refused(reason) => *reason,
        }
    }
}

impl<'a> Given<'a> {
    /// Exactly one field with one value; empty is absent. What is let through here is written into a response, so it
    /// is visible ASCII only, and no list.
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(ORIGIN).iter();
        let Some(value) = fields.next() else { return Given::Absent };
        let bytes = value.as_bytes();
        let plain = |b: &u8| matches!(b, 0x21..=0x7e) && *b != b',';
        if fields.next().is_some() {
            return Given::Invalid;
        }
        if bytes.is_empty() {
            return Given::Absent;
        }
        match value.to_str() {
            Ok(text) if bytes.len() <= MAX_ORIGIN && bytes.iter().all(plain) => Given::One(value, text),
            _ => Given::Invalid,
        }
    }
}

/// `Access-Control-Request-Method`.
#[derive(Clone, Copy)]
enum Requested<'a> {
    None,
    Method(&'a HeaderValue),
    Several,
}

impl<'a> Requested<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Requested::None,
            (Some(method), None) => Requested::Method(method),
            (Some(_), Some(_)) => Requested::Several,
        }
    }
}

impl Request<'_> {
    /// The method that a preflight asks for: what the real request will be routed by. None when this is no
    /// CORS-preflight request in the sense of Fetch.
    pub fn preflighted_method(&self) -> Option<&str> {
        let preflight = self.method == Method::OPTIONS && self.headers.contains_key(ORIGIN);
        match Requested::of(self.headers) {
            Requested::Method(method) if preflight => method.to_str().ok(),
            _ => None,
        }
    }

    /// Whether an Origin is this request's own scheme, host and port.
    fn is_own_origin(&self, origin: &str) -> bool {
        let (scheme, default_port) = match self.scheme {
            Scheme::Http => ("http://", ":80"),
            Scheme::Https => ("https://", ":443"),
        };
        let own = self.authority.strip_suffix(default_port).unwrap_or(self.authority);
        !own.is_empty() && origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(own))
    }
}

// === impl Policy: compiling ===

impl Policy {
    /// Reads a policy's settings; `at` is where they stand. None when there is an error among the problems that this
    /// adds, or when an origin set that it uses has one.
    pub fn compile(settings: &Settings, sets: &OriginSets, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let mut found = Problems::default();
        let policy = Self::compile_into(settings, sets, at, &mut found);
        let usable = !found.any_errors();
        problems.extend(found);
        policy.filter(|_| usable)
    }

    fn compile_into(settings: &Settings, sets: &OriginSets, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let credentials = settings.allow_credentials;
        let allowed = settings.dangerously_allow.as_deref().unwrap_or_default();
        let dangers = Dangers { at, allowed, used: RefCell::default() };
        if settings.dangerously_allow.as_ref().is_some_and(Vec::is_empty) {
            problems.add(&at.key("dangerously_allow"), Kind::EmptyList);
        }

        let keys = OriginKeys {
            list: ("allow_origins", settings.allow_origins.as_ref()),
            regexes: ("allow_origins_by_regex", settings.allow_origins_by_regex.as_ref()),
            sets: settings.allow_origin_sets.as_ref(),
        };
        if keys.are_absent() {
            problems.add(at, Kind::NoOrigins);
        }
        let origins = keys.compile(sets, credentials, &dangers, problems);
        let keys = OriginKeys {
            list: ("timing_allow_origins", settings.timing_allow_origins.as_ref()),
            regexes: ("timing_allow_origins_by_regex", settings.timing_allow_origins_by_regex.as_ref()),
            sets: None,
        };
        // Timing information is no credentialed content: `*` is fine there.
        let timing = match keys.are_absent() {
            true => None,
            false => Some(keys.compile(sets, false, &dangers, problems)?),
        };

        let methods = Methods::compile(settings.allow_methods.as_ref(), &at.key("allow_methods"), problems);
        let headers =
            RequestHeaders::compile(settings.allow_headers.as_ref(), credentials, &at.key("allow_headers"), problems);
        let expose = names::expose(settings.expose_headers.as_ref(), credentials, &at.key("expose_headers"), problems);
        let max_age = max_age(settings.max_age, &at.key("max_age"), problems);
        if settings.allow_private_network {
            problems.add(&at.key("allow_private_network"), Kind::PrivateNetworkGone);
        }
        let preflight = &settings.preflight;
        let at_preflight = at.key("preflight");
        let status = match preflight.status {
            200 => Some(StatusCode::OK),
            204 => Some(StatusCode::NO_CONTENT),
            value => {
                problems.add(&at_preflight.key("status"), Kind::BadPreflightStatus { value });
                None
            }
        };
        let refused_status = match preflight.refused_status {
            200 => Some(StatusCode::OK),
            204 => Some(StatusCode::NO_CONTENT),
            403 => Some(StatusCode::FORBIDDEN),
            value => {
                problems.add(&at_preflight.key("refused_status"), Kind::BadRefusedStatus { value });
                None
            }
        };
        // What a policy with errors needs or leaves out is not known yet.
        if problems.any_errors() {
            problems.retain(|problem| problem.kind.severity() != Severity::Hint);
        } else if origins.is_some() {
            dangers.note_unused(problems);
        }

        let (origins, status, refused_status) = (origins?, status?, refused_status?);
        let echoes_method = credentials && matches!(methods, Methods::Any { .. });
        let echoes_headers = credentials && matches!(headers, RequestHeaders::Any { .. });
        let statuses_differ = status != refused_status;
        let on_origin = Vary::default().and_if(origins.depends_on_origin(), Vary::ORIGIN);
        let mut policy = Policy {
            vary: on_origin.and_if(timing.as_ref().is_some_and(Allowed::depends_on_origin), Vary::ORIGIN),
            preflight_vary: on_origin
                .and_if(echoes_method || statuses_differ, Vary::REQUEST_METHOD)
                .and_if(echoes_headers || statuses_differ, Vary::REQUEST_HEADERS)
                .and_if(settings.allow_private_network, Vary::REQUEST_PRIVATE_NETWORK),
            removal_allowed: Removal::Nothing,
            origins,
            timing,
            credentials,
            methods,
            headers,
            expose,
            max_age,
            private_network: settings.allow_private_network,
            preflight_match: preflight.matches,
            status,
            refused_status,
            disallowed: settings.disallowed_origins,
        };
        policy.removal_allowed = match settings.upstream_headers {
            UpstreamHeaders::Replace => Removal::AllAccessControl(policy.timing_field()),
            UpstreamHeaders::Override => {
                // Allow-Credentials and Expose-Headers may be the upstream's, unless the policy sets its own.
                const OVERRIDDEN: Fields = Fields::of(&[
                    Field::AllowOrigin,
                    Field::AllowMethods,
                    Field::AllowHeaders,
                    Field::MaxAge,
                    Field::AllowPrivateNetwork,
                ]);
                Removal::Listed(match policy.timing {
                    Some(_) => OVERRIDDEN.with(Field::TimingAllowOrigin),
                    None => OVERRIDDEN,
                })
            }
        };
        Some(policy)
    }
}

impl Origins {
    /// Compiles a named set: only origins that mean the same in every policy.
    pub fn compile(list: &List, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let (mut patterns, mut remarkable) = (Vec::with_capacity(list.entries().len()), Vec::new());
        let mut faulty = list.entries().is_empty();
        if faulty {
            problems.add(at, Kind::EmptyList);
        }
        for (i, entry) in list.entries().iter().enumerate() {
            let fault = match OriginPattern::parse(entry) {
                Ok(OriginPattern::Tuple(pattern)) => {
                    if pattern.is_odd_scheme() || pattern.public_suffix().is_some() {
                        remarkable.push((entry.clone(), pattern.clone()));
                    }
                    patterns.push(pattern);
                    continue;
                }
                Ok(OriginPattern::Any) => Kind::AnyInSet,
                Ok(OriginPattern::Null) => Kind::NullInSet,
                Err(fault) => fault,
            };
            faulty = true;
            problems.add(&at.index(i), fault);
        }
        (!faulty).then(|| Origins { set: patterns.iter().collect(), remarkable })
    }
}

/// The keys that together say who is allowed, for CORS or for timing.
struct OriginKeys<'a> {
    list: (&'static str, Option<&'a List>),
    regexes: (&'static str, Option<&'a Patterns>),
    sets: Option<&'a List>,
}

impl OriginKeys<'_> {
    fn are_absent(&self) -> bool {
        self.list.1.is_none() && self.regexes.1.is_none() && self.sets.is_none()
    }

    fn compile(
        &self,
        sets: &OriginSets,
        credentials: bool,
        dangers: &Dangers<'_>,
        problems: &mut Problems,
    ) -> Option<Allowed> {
        let (mut any, mut null, mut own) = (false, false, Vec::new());
        let at_list = dangers.at.key(self.list.0);
        for (i, entry) in names::entries(self.list.1, &at_list, problems) {
            let at = at_list.index(i);
            match OriginPattern::parse(entry) {
                Err(fault) => problems.add(&at, fault),
                Ok(OriginPattern::Any) => any = true,
                Ok(OriginPattern::Null) => {
                    null = true;
                    if !dangers.allow(Danger::NullOrigin) {
                        problems.add(&at, Kind::NullOrigin);
                    }
                }
                Ok(OriginPattern::Tuple(pattern)) => {
                    dangers.look_at(entry, &pattern, credentials, &at, problems);
                    own.push(pattern);
                }
            }
        }
        let sources = self.regexes.1.map(Patterns::sources).unwrap_or_default();
        let at_regexes = dangers.at.key(self.regexes.0);
        if self.regexes.1.is_some() && sources.is_empty() {
            problems.add(&at_regexes, Kind::EmptyList);
        }
        for (i, source) in sources.iter().enumerate() {
            let (at_one, in_list) = (at_regexes, at_regexes.index(i));
            let at = if let Some(Patterns::One(_)) = self.regexes.1 { &at_one } else { &in_list };
            match regexes::check(source) {
                Err(fault) => problems.add(at, fault),
                Ok(()) => {
                    if let Some(warning) = regexes::lint(source) {
                        problems.add(at, warning);
                    }
                }
            }
        }
        let (mut shared, mut faulty) = (Vec::new(), false);
        let at_sets = dangers.at.key("allow_origin_sets");
        for (i, name) in names::entries(self.sets, &at_sets, problems) {
            let at = at_sets.index(i);
            match sets.get(name) {
                None => {
                    let mut known: Vec<String> = sets.keys().cloned().collect();
                    known.sort();
                    problems.add(&at, Kind::UnknownName { what: "origin set", name: name.into(), known });
                }
                // Its own problem is reported where it stands.
                Some(None) => faulty = true,
                Some(Some(origins)) => {
                    for (text, pattern) in &origins.remarkable {
                        dangers.look_at(text, pattern, credentials, &at, problems);
                    }
                    shared.push(origins.clone());
                }
            }
        }
        if faulty {
            return None;
        }
        if any {
            let beside_star =
                self.list.1.into_iter().flat_map(List::entries).any(|entry| entry != "*" && !entry.is_empty());
            if beside_star || !sources.is_empty() || !shared.is_empty() {
                problems.add(&at_list, Kind::AnyWithOthers);
            }
            return Some(match credentials {
                false => Allowed::Any,
                true => {
                    if !dangers.allow(Danger::AnyOriginWithCredentials) {
                        problems.add(&at_list, Kind::AnyOriginWithCredentials);
                    }
                    Allowed::AnyByName { null: dangers.allow(Danger::NullOrigin) }
                }
            });
        }
        let regexes = match sources.is_empty() {
            true => None,
            false => OriginRegexes::compile(sources.iter().map(String::as_str)),
        };
        Some(Allowed::Listed { own: own.iter().collect(), shared, regexes, null })
    }
}

impl Patterns {
    fn sources(&self) -> &[String] {
        match self {
            Patterns::One(source) => std::slice::from_ref(source),
            Patterns::Many(sources) => sources,
        }
    }
}

impl Danger {
    /// As a configuration writes it.
    const fn word(self) -> &'static str {
        match self {
            Danger::NullOrigin => "null_origin",
            Danger::AnyOriginWithCredentials => "any_origin_with_credentials",
            Danger::InsecureOrigins => "insecure_origins",
            Danger::PublicSuffixSubdomains => "public_suffix_subdomains",
        }
    }
}

/// `dangerously_allow`, asked about each pattern.
struct Dangers<'a> {
    /// The policy.
    at: &'a At<'a>,
    allowed: &'a [Danger],
    /// Those that something asked for.
    used: RefCell<Vec<Danger>>,
}

impl Dangers<'_> {
    fn allow(&self, danger: Danger) -> bool {
        self.used.borrow_mut().push(danger);
        self.allowed.contains(&danger)
    }

    fn note_unused(&self, problems: &mut Problems) {
        let at = self.at.key("dangerously_allow");
        for (i, danger) in self.allowed.iter().enumerate().filter(|(_, danger)| !self.used.borrow().contains(danger)) {
            problems.add(&at.index(i), Kind::UnusedDanger { word: danger.word() });
        }
    }

    fn look_at(&self, text: &str, pattern: &TuplePattern, credentials: bool, at: &At<'_>, problems: &mut Problems) {
        let own = || text.to_owned();
        if let Some(suffix) = pattern.public_suffix().map(str::to_owned) {
            // `scheme://*` without credentials is a way to say "any origin of this scheme", and says so.
            if credentials && !self.allow(Danger::PublicSuffixSubdomains) {
                problems.add(at, Kind::PublicSuffixWithCredentials { pattern: own(), suffix });
            } else if !credentials && suffix != "*" {
                problems.add(at, Kind::PublicSuffix { pattern: own(), suffix });
            }
        }
        if credentials && pattern.is_insecure() {
            if !self.allow(Danger::InsecureOrigins) {
                problems.add(at, Kind::InsecureOriginWithCredentials { pattern: own() });
            }
        } else if credentials && pattern.is_odd_scheme() {
            problems.add(at, Kind::OddSchemeWithCredentials { pattern: own() });
        }
    }
}

fn max_age(seconds: Option<i64>, at: &At<'_>, problems: &mut Problems) -> HeaderValue {
    if seconds.is_none() {
        problems.add(at, Kind::MaxAgeLeftOut);
    }
    let seconds = seconds.unwrap_or(DEFAULT_MAX_AGE);
    if !(-1..=86_400).contains(&seconds) {
        problems.add(at, Kind::BadMaxAge { value: seconds.to_string() });
    }
    HeaderValue::from(seconds.max(0))
}

impl Default for PreflightSettings {
    fn default() -> Self {
        PreflightSettings { matches: PreflightMatch::default(), status: 200, refused_status: 200 }
    }
}

// === impl Reason ===

impl Reason {
    /// The code, as logs, metrics and explanations write it.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::AllowedAny => "allowed_any",
            Reason::AllowedExact => "allowed_exact",
            Reason::AllowedPattern => "allowed_pattern",
            Reason::AllowedRegex => "allowed_regex",
            Reason::NoOrigin => "no_origin",
            Reason::SameOrigin => "same_origin",
            Reason::NoPolicy => "no_policy",
            Reason::OriginNotAllowed => "origin_not_allowed",
            Reason::OriginNull => "origin_null",
            Reason::OriginInvalid => "origin_invalid",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::HeaderNotAllowed => "header_not_allowed",
            Reason::HeaderListTooLong => "header_list_too_long",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
