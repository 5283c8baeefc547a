//! `cross_site: reject`: rejects requests that may change state and come from a page of another origin that the policy
//! does not allow.
//!
//! The rules are those of `http.CrossOriginProtection` in Go. If the URL is on https or loopback, browsers send the
//! relation of page and URL in `Sec-Fetch-Site`. Pages cannot set this field. Without this field, `Origin` is compared
//! with `Host`. A request without both fields is not from a browser, or changes no state.

use http::header::UPGRADE;
use http::{HeaderMap, HeaderName};

use super::{Allowed, CorsRequest, CrossSite, OriginDecision, OriginField, Policy};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// `Sec-Fetch-Site` of a request (Fetch Metadata section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FetchSite {
    /// No field, or an empty one.
    Absent,
    /// `same-origin`
    SameOrigin,
    /// `none`: the user entered the URL.
    None,
    /// `same-site`, `cross-site`, a value that no browser sends, or more than one field.
    Other,
}

impl FetchSite {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut fields = headers.get_all(SEC_FETCH_SITE).iter();
        match (fields.next(), fields.next()) {
            (None, _) => FetchSite::Absent,
            (Some(_), Some(_)) => FetchSite::Other,
            (Some(site), None) => match site.as_bytes() {
                b"" => FetchSite::Absent,
                b"same-origin" => FetchSite::SameOrigin,
                b"none" => FetchSite::None,
                _ => FetchSite::Other,
            },
        }
    }
}

impl Policy {
    /// Whether `cross_site: reject` rejects a request.
    pub(super) fn rejects_as_cross_site(
        &self,
        request: &CorsRequest<'_>,
        origin: OriginField<'_>,
        decision: &OriginDecision,
    ) -> bool {
        if self.cross_site == CrossSite::Forward || !changes_state(request) {
            return false;
        }
        let is_trusted = match self.origins {
            // `*` without credentials only allows reading. It allows no origin to change state: a form sends cookies
            // without a preflight.
            Allowed::Any => false,
            Allowed::AnyByName { .. } | Allowed::Listed { .. } => matches!(decision, OriginDecision::Granted(..)),
        };
        match (origin, FetchSite::of(request.headers)) {
            (OriginField::Invalid, _) => true,
            _ if is_trusted => false,
            (_, FetchSite::SameOrigin | FetchSite::None) => false,
            (_, FetchSite::Other) => true,
            (OriginField::Absent, FetchSite::Absent) => false,
            // The scheme is not compared: without `Sec-Fetch-Site` the gateway may not know the client's.
            (OriginField::One(_, text), FetchSite::Absent) => !request.own_origin.has_authority_of(text),
        }
    }
}

/// Whether a method may change state (RFC 9110 section 9.2.1). TRACE counts, as in Go.
pub(crate) fn is_unsafe(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Whether a request opens a WebSocket. Such a request is a GET.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn changes_state(request: &CorsRequest<'_>) -> bool {
    is_unsafe(request.method.as_str()) || is_websocket(request.headers)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_websocket_is_recognised_by_its_upgrade_field() {
        for (fields, expected) in [
            (&["websocket"][..], true),
            (&["WebSocket"], true),
            (&["h2c", "websocket"], true),
            (&[], false),
            (&["h2c"], false),
            (&["websockets"], false),
        ] {
            let headers = fields.iter().map(|value| (UPGRADE, HeaderValue::from_static(value))).collect();
            assert_eq!(is_websocket(&headers), expected, "{fields:?}");
        }
    }
}
