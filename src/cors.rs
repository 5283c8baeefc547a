//! The CORS engine: a policy as it is written ([`Settings`]), as requests use it ([`Policy`]), and what one request
//! gets ([`Decision`]).
//!
//! Plain data in, plain data out: no I/O, no clock, nothing of Pingora. A decision depends on the policy and on the
//! request alone, so that one client's Origin can never change what another one gets, and it is taken once: every
//! response of the request, whoever makes it, gets the decision's [`Edits`].
//!
//! ```
//! use corsgate::cors::{Origins, Policy, CorsRequest, Scheme, Settings};
//! use corsgate::problem::{At, Problems};
//! use http::{HeaderMap, Method};
//!
//! let settings: Settings = serde_yaml::from_str("{ allow_origins: https://app.example, max_age: 600 }").unwrap();
//! let policy = Policy::compile(&settings, &Default::default(), &At::root(), &mut Problems::default()).unwrap();
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("Origin", "https://app.example".parse().unwrap());
//! let request = CorsRequest { method: &Method::GET, headers: &headers, scheme: Scheme::Http, authority: "api.example" };
//! let decision = policy.decide(&request);
//!
//! let mut response = HeaderMap::new();
//! decision.edits.apply(&mut response);
//! assert_eq!(response["access-control-allow-origin"], "https://app.example");
//! assert_eq!(response["vary"], "Origin");
//! ```

mod compile;
mod edits;
mod names;
mod origin;
mod regexes;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use self::edits::{Edits, Field, Headers, Vary};
pub(crate) use self::names::MAX_NAMES;
pub(crate) use self::names::MAX_NAMES_BYTES;
pub(crate) use self::names::is_forbidden_request_header;
pub(crate) use self::origin::MAX_ORIGIN;
pub use self::origin::{OriginMatch, OriginPattern, OriginSet, TuplePattern};
pub use self::settings::{
    Danger, DisallowedOrigins, Patterns, PreflightMatch, PreflightSettings, Settings, UpstreamHeaders,
};

use self::edits::{Fields, Removal, Values};
use self::names::{AllowedMethods, ListFault, RequestHeaders};
use self::regexes::OriginRegexes;
use crate::codes::coded_enum;

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
    methods: AllowedMethods,
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
pub struct CorsRequest<'a> {
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
    pub action: PolicyAction,
    /// For every response of this request, whoever makes it.
    pub edits: Edits,
    /// Why.
    pub reason: Reason,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyAction {
    /// The upstream.
    Forward,
    /// The gateway, as a preflight: this status, no body.
    AnswerPreflight(StatusCode),
    /// The gateway, with 403.
    Reject,
}

coded_enum! {
    /// Why a decision is as it is: the same codes in logs, metrics and explanations.
    pub enum Reason {
        /// The policy allows any origin.
        AllowedAny = "allowed_any",
        /// The origin is listed.
        AllowedExact = "allowed_exact",
        /// A pattern with a wildcard covers the origin.
        AllowedPattern = "allowed_pattern",
        /// A regular expression matches the origin.
        AllowedRegex = "allowed_regex",
        /// The request has no Origin.
        NoOrigin = "no_origin",
        /// The Origin is the gateway's own.
        SameOrigin = "same_origin",
        /// The route has no policy.
        NoPolicy = "no_policy",
        /// Nothing allows the origin.
        OriginNotAllowed = "origin_not_allowed",
        /// The Origin is `null`, which nothing allows.
        OriginNull = "origin_null",
        /// Not exactly one well-formed Origin.
        OriginInvalid = "origin_invalid",
        /// The preflight asks for a method that is not allowed.
        MethodNotAllowed = "method_not_allowed",
        /// The preflight asks for a header that is not allowed.
        HeaderNotAllowed = "header_not_allowed",
        /// The preflight asks for more headers than are looked at.
        HeaderListTooLong = "header_list_too_long",
    }
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
enum OriginField<'a> {
    Absent,
    Invalid,
    One(&'a HeaderValue, &'a str),
}

/// What an origin gets of one header.
enum OriginDecision {
    Granted(HeaderValue, Reason),
    Refused(Reason),
}

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

// === impl Policy ===

impl Policy {
    /// Decides about one request. Allocates nothing, takes no lock, and its cost has a bound that no request can move.
    pub fn decide(&self, request: &CorsRequest<'_>) -> Decision {
        let origin = OriginField::of(request.headers);
        let verdict = self.origins.judge(origin, request);
        if self.takes_as_preflight(request) {
            return self.answer_preflight(request, &verdict);
        }
        let action = match (self.disallowed, &verdict) {
            (DisallowedOrigins::Reject, OriginDecision::Refused(reason))
                if !matches!(reason, Reason::NoOrigin | Reason::SameOrigin) =>
            {
                PolicyAction::Reject
            }
            _ => PolicyAction::Forward,
        };
        Decision { action, edits: self.ordinary_edits(origin, request, &verdict), reason: verdict.reason() }
    }

    /// What any response gets that is no answer to a preflight: for errors that are found before a decision can be
    /// acted on.
    pub fn respond(&self, request: &CorsRequest<'_>) -> (Edits, Reason) {
        let origin = OriginField::of(request.headers);
        let verdict = self.origins.judge(origin, request);
        (self.ordinary_edits(origin, request, &verdict), verdict.reason())
    }

    fn ordinary_edits(&self, origin: OriginField<'_>, request: &CorsRequest<'_>, verdict: &OriginDecision) -> Edits {
        let mut edits = self.edits(verdict);
        if let Some(timing) = &self.timing
            && let OriginDecision::Granted(value, _) = timing.judge(origin, request)
        {
            edits.values.set(Field::TimingAllowOrigin, value);
        }
        edits
    }

    /// Whether this policy answers a request itself, as a preflight.
    pub(crate) fn takes_as_preflight(&self, request: &CorsRequest<'_>) -> bool {
        let has = |name| request.headers.get_all(name).iter().any(|value: &HeaderValue| !value.is_empty());
        request.method == Method::OPTIONS
            && match self.preflight_match {
                PreflightMatch::Standard => has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD),
                PreflightMatch::Origin => has(ORIGIN),
                PreflightMatch::Any => true,
            }
    }

    fn answer_preflight(&self, request: &CorsRequest<'_>, verdict: &OriginDecision) -> Decision {
        let mut edits = self.edits(verdict);
        edits.vary = self.preflight_vary;
        let OriginDecision::Granted(_, granted) = *verdict else {
            return Decision {
                action: PolicyAction::AnswerPreflight(self.refused_status),
                edits,
                reason: verdict.reason(),
            };
        };
        let requested = Requested::of(request.headers);
        let mut set = |field, value| edits.values.set(field, value);
        // The lists are always the true ones, also when what was asked for is not among them: then the browser's
        // console names the method or header that is missing.
        match (&self.methods, self.credentials) {
            (AllowedMethods::Listed { value, .. }, _) | (AllowedMethods::Any { value }, false) => {
                set(Field::AllowMethods, value.clone());
            }
            (AllowedMethods::Any { .. }, true) => {
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
        Decision { action: PolicyAction::AnswerPreflight(status), edits, reason }
    }

    /// What both kinds of response have in common.
    fn edits(&self, verdict: &OriginDecision) -> Edits {
        let mut values = Values::default();
        let removal = match verdict {
            OriginDecision::Refused(_) => Removal::AllAccessControl(self.timing_field()),
            OriginDecision::Granted(value, _) => {
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
        Edits::new(removal, values, self.vary)
    }

    fn timing_field(&self) -> Fields {
        match self.timing {
            Some(_) => Fields::of(&[Field::TimingAllowOrigin]),
            None => Fields::default(),
        }
    }
}

impl Allowed {
    fn judge(&self, origin: OriginField<'_>, request: &CorsRequest<'_>) -> OriginDecision {
        if let Allowed::Any = self {
            return OriginDecision::Granted(ANY, Reason::AllowedAny);
        }
        let (value, text) = match origin {
            OriginField::Absent => return OriginDecision::Refused(Reason::NoOrigin),
            OriginField::Invalid => return OriginDecision::Refused(Reason::OriginInvalid),
            OriginField::One(value, text) => (value, text),
        };
        let reason = match self {
            Allowed::Any => Some(Reason::AllowedAny),
            Allowed::AnyByName { null } => (text != "null" || *null).then_some(Reason::AllowedAny),
            Allowed::Listed { null, .. } if text == "null" => null.then_some(Reason::AllowedExact),
            Allowed::Listed { own, shared, regexes, .. } => std::iter::once(own)
                .chain(shared.iter().map(|origins| &origins.set))
                .find_map(|set| set.find(text))
                .map(|found| match found {
                    OriginMatch::Exact => Reason::AllowedExact,
                    OriginMatch::Pattern => Reason::AllowedPattern,
                })
                .or_else(|| regexes.as_ref().filter(|r| r.matches(text)).map(|_| Reason::AllowedRegex)),
        };
        match reason {
            // A clone of a header value counts a reference, it copies nothing.
            Some(reason) => OriginDecision::Granted(value.clone(), reason),
            None if text == "null" => OriginDecision::Refused(Reason::OriginNull),
            None if request.is_own_origin(text) => OriginDecision::Refused(Reason::SameOrigin),
            None => OriginDecision::Refused(Reason::OriginNotAllowed),
        }
    }

    fn depends_on_origin(&self) -> bool {
        !matches!(self, Allowed::Any)
    }
}

impl OriginDecision {
    fn reason(&self) -> Reason {
        match self {
            OriginDecision::Granted(_, reason) | OriginDecision::Refused(reason) => *reason,
        }
    }
}

impl<'a> OriginField<'a> {
    /// Exactly one field with one value; empty is absent. What is let through here is written into a response, so it
    /// is visible ASCII only, and no list.
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(ORIGIN).iter();
        let Some(value) = fields.next() else { return OriginField::Absent };
        let bytes = value.as_bytes();
        let plain = |b: &u8| matches!(b, 0x21..=0x7e) && *b != b',';
        if fields.next().is_some() {
            return OriginField::Invalid;
        }
        if bytes.is_empty() {
            return OriginField::Absent;
        }
        match value.to_str() {
            Ok(text) if bytes.len() <= MAX_ORIGIN && bytes.iter().all(plain) => OriginField::One(value, text),
            _ => OriginField::Invalid,
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

impl CorsRequest<'_> {
    /// The method that a preflight asks for: what the real request will be routed by. None when this is no
    /// CORS-preflight request in the sense of Fetch.
    pub(crate) fn preflighted_method(&self) -> Option<&str> {
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

// === impl Reason ===

impl Reason {
    /// Whether a page is refused something. A request without an Origin is of no page, and one without a policy has
    /// nobody who refuses.
    pub(crate) const fn is_refusal(self) -> bool {
        match self {
            Reason::AllowedAny
            | Reason::AllowedExact
            | Reason::AllowedPattern
            | Reason::AllowedRegex
            | Reason::NoOrigin
            | Reason::SameOrigin
            | Reason::NoPolicy => false,
            Reason::OriginNotAllowed
            | Reason::OriginNull
            | Reason::OriginInvalid
            | Reason::MethodNotAllowed
            | Reason::HeaderNotAllowed
            | Reason::HeaderListTooLong => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
