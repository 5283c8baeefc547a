//! Preflights: selects the OPTIONS requests that a policy answers, and makes the answers.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::edits::{Field, NO_STORE};
use super::names::{self, AllowedMethods, ListFault, RequestHeaders};
use super::{CorsRequest, Decision, OriginDecision, Policy, PolicyAction, PreflightMatch, Reason, TRUE};

/// The headers of an OPTIONS request. Only the methods of this type decide whether it is a preflight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreflightRequest<'a>(pub(super) &'a HeaderMap);

/// Value of `Access-Control-Request-Method`.
#[derive(Clone, Copy)]
enum RequestedMethod<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

// === impl PreflightRequest ===

impl<'a> PreflightRequest<'a> {
    /// Returns the requested method, which selects the route. None if the request is not a CORS-preflight request
    /// (Fetch): such a request has an Origin and exactly one requested method. Empty fields do not count.
    pub(crate) fn requested_method(self) -> Option<&'a str> {
        match RequestedMethod::of(self.0) {
            RequestedMethod::One(method) if !method.is_empty() && self.has(ORIGIN) => method.to_str().ok(),
            _ => None,
        }
    }

    /// Whether a policy with this setting answers the request as a preflight. Empty fields do not count.
    fn matches(self, rule: PreflightMatch) -> bool {
        match rule {
            PreflightMatch::Standard => self.has(ORIGIN) && self.has(ACCESS_CONTROL_REQUEST_METHOD),
            PreflightMatch::Origin => self.has(ORIGIN),
            PreflightMatch::Any => true,
        }
    }

    /// Returns true if the request has a non-empty field with this name.
    fn has(self, name: HeaderName) -> bool {
        self.0.get_all(name).iter().any(|value: &HeaderValue| !value.is_empty())
    }
}

// === impl Policy ===

impl Policy {
    /// Whether this policy answers an OPTIONS request itself, as a preflight.
    pub(crate) fn answers(&self, preflight: PreflightRequest<'_>) -> bool {
        preflight.matches(self.preflight_match)
    }

    /// Whether a browser may cache an answer to a preflight.
    pub(crate) fn allows_caching(&self) -> bool {
        *self.max_age != "0"
    }

    /// Returns the methods that the policy lists. None for `*`.
    pub(crate) fn listed_methods(&self) -> Option<&[Box<str>]> {
        match &self.methods {
            AllowedMethods::Any { .. } => None,
            AllowedMethods::Listed { names, .. } => Some(names),
        }
    }

    pub(super) fn answer_preflight(&self, request: &CorsRequest<'_>, decision: &OriginDecision) -> Decision {
        let mut edits = self.edits(decision);
        edits.vary = self.preflight_vary;
        // A cache must not keep an answer for each foreign origin.
        edits.cache_control = self.cache_control.as_ref().map(|_| NO_STORE);
        let OriginDecision::Granted(_, granted) = *decision else {
            return Decision {
                action: PolicyAction::AnswerPreflight(self.refused_status),
                edits,
                reason: decision.reason(),
            };
        };
        let requested = RequestedMethod::of(request.headers);
        let mut set = |field, value| edits.values.set(field, value);
        // The lists are complete even if the requested method or header is not in them. A browser then names the
        // missing one in its console.
        match (&self.methods, self.credentials) {
            (AllowedMethods::Listed { value, .. }, _) => {
                if let Some(value) = value {
                    set(Field::AllowMethods, value.for_message());
                }
            }
            (AllowedMethods::Any { value }, false) => set(Field::AllowMethods, value.for_message()),
            (AllowedMethods::Any { .. }, true) => {
                if let RequestedMethod::One(method) = requested
                    && names::is_token(method.as_bytes())
                {
                    set(Field::AllowMethods, method.clone());
                }
            }
        }
        let headers = self.headers.allow(request.headers, self.credentials);
        match (&self.headers, self.credentials) {
            (RequestHeaders::Any { value, .. }, false) => set(Field::AllowHeaders, value.for_message()),
            (RequestHeaders::Any { .. }, true) => {
                if let (Ok(()), Some(value)) = (headers, names::echoed(request.headers)) {
                    set(Field::AllowHeaders, value);
                }
            }
            (RequestHeaders::Listed { value, .. }, _) => {
                if let Some(value) = value {
                    set(Field::AllowHeaders, value.for_message());
                }
            }
        }
        set(Field::MaxAge, self.max_age.for_message());
        if self.private_network
            && request.headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value.as_bytes() == b"true")
        {
            set(Field::AllowPrivateNetwork, TRUE);
        }
        let method = match requested {
            RequestedMethod::None => true,
            RequestedMethod::One(method) => self.methods.allow(method.as_bytes()),
            RequestedMethod::Several => false,
        };
        let (status, reason) = match (method, headers) {
            (false, _) => (self.refused_status, Reason::MethodNotAllowed),
            (true, Err(ListFault::TooLong)) => (self.refused_status, Reason::HeaderListTooLong),
            (true, Err(ListFault::NotAllowed)) => (self.refused_status, Reason::HeaderNotAllowed),
            (true, Ok(())) => (self.status, granted),
        };
        // If the statuses are equal, the answer that refuses a method or a header equals the answer that allows it.
        if let Some(value) = &self.cache_control
            && status == self.status
        {
            edits.cache_control = Some(value.for_message());
        }
        Decision { action: PolicyAction::AnswerPreflight(status), edits, reason }
    }
}

// === impl RequestedMethod ===

impl<'a> RequestedMethod<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
        match (fields.next(), fields.next()) {
            (None, _) => RequestedMethod::None,
            (Some(method), None) => RequestedMethod::One(method),
            (Some(_), Some(_)) => RequestedMethod::Several,
        }
    }
}
