//! The CORS engine. [`Settings`] is a policy in the form of the configuration, [`Policy`] is the same policy compiled
//! for requests, and [`Decision`] is the result for one request.
//!
//! The engine is pure: no I/O, no clock, no Pingora types. A decision depends only on the policy and the request, so
//! the Origin of one client can never change the response to another. A decision is made once per request. Its
//! [`Edits`] are applied to every response of the request: the upstream's response and the gateway's own responses.
//!
//! ```
//! use corsgate::cors::{Origins, Policy, CorsRequest, Settings};
//! use corsgate::domain::{OwnOrigin, Scheme};
//! use corsgate::problem::{At, Problems};
//! use http::{HeaderMap, Method};
//!
//! let settings: Settings = serde_yaml::from_str("{ allow_origins: https://app.example, max_age: 600 }").unwrap();
//! let policy = Policy::compile(&settings, &Default::default(), &At::root(), &mut Problems::default()).unwrap();
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("Origin", "https://app.example".parse().unwrap());
//! let request = CorsRequest { method: &Method::GET, headers: &headers, own_origin: OwnOrigin::of(Scheme::Http, "api.example") };
//! let decision = policy.decide(&request);
//!
//! let mut response = HeaderMap::new();
//! decision.edits.apply(&mut response);
//! assert_eq!(response["access-control-allow-origin"], "https://app.example");
//! assert_eq!(response["vary"], "Origin");
//! ```

pub(crate) mod compare;
mod compile;
mod cross_site;
mod edits;
mod equivalent;
pub(crate) mod fetch_names;
mod host_template;
mod header_sets;
mod language;
mod names;
mod origin;
mod preflight;
mod regexes;
mod report_only;
mod settings;
pub mod witness;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

pub(crate) use self::cross_site::{is_unsafe, is_websocket};
pub(crate) use self::edits::vary_on_accept_encoding;
pub use self::edits::{Edits, Field, Vary};
pub(crate) use self::equivalent::equivalent_pattern;
pub(crate) use self::language::only_in;
pub(crate) use self::names::MAX_NAMES;
pub(crate) use self::names::MAX_NAMES_BYTES;
pub(crate) use self::origin::MAX_ORIGIN;
pub use self::origin::{OriginMatch, OriginPattern, OriginSet, TuplePattern};
pub(crate) use self::preflight::PreflightRequest;
pub use self::report_only::{ReportOnly, ReportedChange};
pub(crate) use self::settings::ALIAS;
pub use self::settings::{
    CrossSite, Danger, DisallowedOrigins, Patterns, PreflightMatch, PreflightSettings, ResourcePolicy, Settings,
    UpstreamHeaders,
};

use self::cross_site::FetchSite;
use self::edits::{Fields, Removal, Values};
use self::names::{AllowedMethods, RequestHeaders};
use self::regexes::OriginRegexes;
use crate::codes::coded_enum;
use crate::domain::OwnOrigin;
use crate::per_thread::FinishedValue;

/// A named list of origins (`origin_sets`), compiled once and shared by all policies that use it.
#[derive(Debug)]
pub struct Origins {
    set: OriginSet,
    /// Origins that a policy with credentials refuses or warns about, each with its text. A set has few of them, so a
    /// policy that uses a large set checks only these.
    restricted: Vec<(String, TuplePattern)>,
}

/// The compiled `origin_sets` by name. None for a set that has errors.
pub type OriginSets = HashMap<String, Option<Arc<Origins>>>;

/// A compiled policy: sets for lookups and finished header values.
#[derive(Debug)]
pub struct Policy {
    origins: Allowed,
    timing: Option<Allowed>,
    credentials: bool,
    methods: AllowedMethods,
    headers: RequestHeaders,
    expose: Option<FinishedValue>,
    max_age: FinishedValue,
    /// `Cross-Origin-Resource-Policy`.
    cross_origin_resource: Option<ResourcePolicy>,
    private_network: bool,
    preflight_match: PreflightMatch,
    status: StatusCode,
    refused_status: StatusCode,
    /// `Cache-Control` of answers to preflights.
    cache_control: Option<FinishedValue>,
    disallowed: DisallowedOrigins,
    cross_site: CrossSite,
    removal_allowed: Removal,
    vary: Vary,
    preflight_vary: Vary,
}

/// The parts of a request on which a decision depends.
#[derive(Debug, Clone, Copy)]
pub struct CorsRequest<'a> {
    /// The method of the request itself; OPTIONS for a preflight.
    pub method: &'a Method,
    /// All request headers, unchanged.
    pub headers: &'a HeaderMap,
    /// The origin of the URL that the client used.
    pub own_origin: OwnOrigin<'a>,
}

/// The result of a policy for one request.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Action of the gateway for the request.
    pub action: PolicyAction,
    /// Header edits for every response of this request, from the upstream or from the gateway.
    pub edits: Edits,
    /// The reason code of the decision.
    pub reason: Reason,
}

/// Action of the gateway for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyAction {
    /// The gateway forwards the request to the upstream.
    Forward,
    /// The gateway answers the request as a preflight, with this status and no body.
    AnswerPreflight(StatusCode),
    /// The gateway answers the request with 403.
    Reject,
}

coded_enum! {
    /// The reason of a decision. Logs, metrics and explanations use the same codes.
    pub enum Reason {
        /// Allowed: the policy allows any origin.
        AllowedAny = "allowed_any",
        /// Allowed: the origin is listed without a wildcard or a placeholder.
        AllowedExact = "allowed_exact",
        /// Allowed: a pattern with a wildcard or a placeholder matches the origin.
        AllowedPattern = "allowed_pattern",
        /// Allowed: a regular expression matches the origin.
        AllowedRegex = "allowed_regex",
        /// The request has no Origin, so it is not a cross-origin request of a browser.
        NoOrigin = "no_origin",
        /// The Origin is the request's own scheme, host and port.
        SameOrigin = "same_origin",
        /// The route has no policy.
        NoPolicy = "no_policy",
        /// Refused: no entry of the policy allows the origin.
        OriginNotAllowed = "origin_not_allowed",
        /// Refused: the Origin is `null`, and the policy does not allow it.
        OriginNull = "origin_null",
        /// Refused: two Origin fields, a list, or a value that no browser sends.
        OriginInvalid = "origin_invalid",
        /// Refused: a request that changes state, from a page of an origin that the policy does not allow
        /// (`cross_site: reject`).
        CrossSite = "cross_site",
        /// Refused: the preflight requests a method that is not allowed.
        MethodNotAllowed = "method_not_allowed",
        /// Refused: the preflight requests a header that is not allowed.
        HeaderNotAllowed = "header_not_allowed",
        /// Refused: the preflight requests more than 128 header names or 8 KiB of them.
        HeaderListTooLong = "header_list_too_long",
    }
}

/// The allowed origins of a policy, compiled.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per policy, and a box would be one more step per request")]
enum Allowed {
    /// Any origin, answered with `*`. The Origin is not read.
    Any,
    /// Any origin, answered with its own value, because `*` cannot be combined with credentials (Fetch, "CORS check").
    AnyByName {
        null: bool,
    },
    Listed {
        own: OriginSet,
        shared: Vec<Arc<Origins>>,
        regexes: Option<OriginRegexes>,
        null: bool,
    },
}

/// The Origin header of a request.
#[derive(Debug, Clone, Copy)]
enum OriginField<'a> {
    Absent,
    Invalid,
    One(&'a HeaderValue, &'a str),
}

/// The value of a header for an origin, or the reason why the header is not set.
enum OriginDecision {
    Granted(HeaderValue, Reason),
    Refused(Reason),
}

const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

// === impl Policy ===

impl Policy {
    /// Decides about one request. It allocates nothing and takes no lock. `MAX_ORIGIN`, `MAX_NAMES` and
    /// `MAX_NAMES_BYTES` limit its cost.
    pub fn decide(&self, request: &CorsRequest<'_>) -> Decision {
        let origin = OriginField::of(request.headers);
        let origin_decision = self.origins.decide(origin, request);
        if request.preflight().is_some_and(|preflight| self.answers(preflight)) {
            return self.answer_preflight(request, &origin_decision);
        }
        let reason = origin_decision.reason();
        let (action, reason) = match (self.disallowed, &origin_decision) {
            (DisallowedOrigins::Reject, OriginDecision::Refused(reason))
                if !matches!(reason, Reason::NoOrigin | Reason::SameOrigin) =>
            {
                (PolicyAction::Reject, *reason)
            }
            _ if self.rejects_as_cross_site(request, origin, &origin_decision) => {
                (PolicyAction::Reject, Reason::CrossSite)
            }
            _ => (PolicyAction::Forward, reason),
        };
        Decision { action, edits: self.ordinary_edits(origin, request, &origin_decision), reason }
    }

    /// Returns the edits for a response that is not an answer to a preflight, and the reason of the CORS decision. The
    /// gateway uses it for error responses to requests that it refuses for another reason than CORS.
    pub fn respond(&self, request: &CorsRequest<'_>) -> (Edits, Reason) {
        let origin = OriginField::of(request.headers);
        let origin_decision = self.origins.decide(origin, request);
        (self.ordinary_edits(origin, request, &origin_decision), origin_decision.reason())
    }

    fn ordinary_edits(&self, origin: OriginField<'_>, request: &CorsRequest<'_>, decision: &OriginDecision) -> Edits {
        let mut edits = self.edits(decision);
        if let Some(timing) = &self.timing
            && let OriginDecision::Granted(value, _) = timing.decide(origin, request)
        {
            edits.values.set(Field::TimingAllowOrigin, value);
        }
        edits.resource_policy = self.cross_origin_resource;
        edits
    }

    /// Returns the edits that answers to preflights and all other responses have in common.
    fn edits(&self, decision: &OriginDecision) -> Edits {
        let mut values = Values::default();
        let removal = match decision {
            OriginDecision::Refused(_) => Removal::AllAccessControl(self.timing_field()),
            OriginDecision::Granted(value, _) => {
                values.set(Field::AllowOrigin, value.clone());
                if self.credentials {
                    values.set(Field::AllowCredentials, TRUE);
                }
                if let Some(expose) = &self.expose {
                    values.set(Field::ExposeHeaders, expose.for_message());
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
    fn decide(&self, origin: OriginField<'_>, request: &CorsRequest<'_>) -> OriginDecision {
        if let Allowed::Any = self {
            return OriginDecision::Granted(ANY, Reason::AllowedAny);
        }
        let (value, text) = match origin {
            OriginField::Absent => return OriginDecision::Refused(Reason::NoOrigin),
            OriginField::Invalid => return OriginDecision::Refused(Reason::OriginInvalid),
            OriginField::One(value, text) => (value, text),
        };
        match self.find(text) {
            // Cloning a header value only increments a reference count.
            Some(reason) => OriginDecision::Granted(value.clone(), reason),
            // A form of the site's own page with `Referrer-Policy: no-referrer` sends the origin `null`. Pages cannot set
            // `Sec-Fetch-Site`, and a sandboxed frame sends `cross-site` (Fetch Metadata section 2.3).
            None if text == "null" && FetchSite::of(request.headers) == FetchSite::SameOrigin => {
                OriginDecision::Refused(Reason::SameOrigin)
            }
            None if text == "null" => OriginDecision::Refused(Reason::OriginNull),
            None if request.own_origin.is(text) => OriginDecision::Refused(Reason::SameOrigin),
            None => OriginDecision::Refused(Reason::OriginNotAllowed),
        }
    }

    /// Returns the reason why an origin is allowed. None if it is not allowed.
    fn find(&self, text: &str) -> Option<Reason> {
        match self {
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
    /// Accepts exactly one field with one value; an empty value counts as absent. The value is written into the
    /// response, so only visible ASCII without commas is accepted.
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(ORIGIN).iter();
        let Some(value) = fields.next() else { return OriginField::Absent };
        let bytes = value.as_bytes();
        if fields.next().is_some() {
            return OriginField::Invalid;
        }
        if bytes.is_empty() {
            return OriginField::Absent;
        }
        if bytes.len() > MAX_ORIGIN {
            return OriginField::Invalid;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if is_plain(bytes) => OriginField::One(value, text),
            _ => OriginField::Invalid,
        }
    }
}

/// Returns the Origin that a policy looks up. None if the request has no Origin or an invalid one.
pub(crate) fn origin_of(headers: &HeaderMap) -> Option<&str> {
    match OriginField::of(headers) {
        OriginField::One(_, text) => Some(text),
        OriginField::Absent | OriginField::Invalid => None,
    }
}

/// Whether all bytes are visible ASCII, without a comma.
#[expect(clippy::needless_bitwise_bool, reason = "without a branch for each byte, the loop uses vector instructions")]
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, b| plain & matches!(b, 0x21..=0x7e) & (*b != b','))
}

impl<'a> CorsRequest<'a> {
    /// Returns the request as a preflight. None if the method is not OPTIONS.
    pub(crate) fn preflight(&self) -> Option<PreflightRequest<'a>> {
        (self.method == Method::OPTIONS).then_some(PreflightRequest(self.headers))
    }
}

// === impl Reason ===

impl Reason {
    /// Whether the policy refuses the request to a page. False without an Origin, because no page is involved, and
    /// without a policy.
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
            | Reason::CrossSite
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_looks_up_one_plain_origin() {
        let long = format!("https://{}.test", "a".repeat(MAX_ORIGIN));
        for (values, expected) in [
            (&[][..], None),
            (&["https://a.test"], Some("https://a.test")),
            (&["null"], Some("null")),
            (&["https://a.test", "https://b.test"], None),
            (&["https://a.test, https://b.test"], None),
            (&["https://a b.test"], None),
            (&["https://\u{e4}.test"], None),
            (&[&*long], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(http::header::ORIGIN, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(origin_of(&headers), expected, "{values:?}");
        }
    }
}
