//! Forbidden and CORS-safelisted method and header names of the Fetch standard, and the direction of registered header
//! names.
//!
//! The compiler of policies and the simulation of browsers both read these tables. The oracle in the tests has a copy of
//! its own on purpose.

/// Fetch, "forbidden method": `fetch()` refuses these, in any case.
pub(crate) fn is_forbidden_method(method: &str) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|forbidden| method.eq_ignore_ascii_case(forbidden))
}

/// Fetch, "CORS-safelisted method".
pub(crate) fn is_safelisted_method(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"POST")
}

/// Fetch, "normalize a method": browsers send these in upper case, however the page writes them. PATCH is not one of
/// them.
pub(crate) fn is_normalized_method(upper: &str) -> bool {
    matches!(upper, "DELETE" | "GET" | "HEAD" | "OPTIONS" | "POST" | "PUT")
}

/// Fetch, "forbidden request-header": browsers ignore a page's attempt to set one.
pub(crate) fn is_forbidden_request_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("sec-")
        || name.starts_with("proxy-")
        || matches!(
            &*name,
            "accept-charset"
                | "accept-encoding"
                | "access-control-request-headers"
                | "access-control-request-method"
                | "access-control-request-private-network"
                | "connection"
                | "content-length"
                | "cookie"
                | "cookie2"
                | "date"
                | "dnt"
                | "expect"
                | "host"
                | "keep-alive"
                | "origin"
                | "referer"
                | "set-cookie"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "via"
        )
}

/// Fetch, "forbidden request-header", for a field: some names are forbidden only with the value of a forbidden method.
pub(crate) fn is_dropped_request_header(name: &str, value: &str) -> bool {
    let overrides = ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"];
    is_forbidden_request_header(name)
        || (overrides.iter().any(|known| known.eq_ignore_ascii_case(name))
            && value.split(',').any(|method| is_forbidden_method(method.trim())))
}

/// Names of Fetch's "CORS-safelisted request-header". Whether a field with such a name is safelisted also depends on its
/// value.
pub(crate) fn is_safelisted_request_header_name(name: &str) -> bool {
    matches!(&*name.to_ascii_lowercase(), "accept" | "accept-language" | "content-language" | "content-type" | "range")
}

/// Fetch, "forbidden response-header name": pages can never read these.
pub(crate) fn is_forbidden_response_header(name: &str) -> bool {
    matches!(&*name.to_ascii_lowercase(), "set-cookie" | "set-cookie2")
}

/// Fetch, "CORS-safelisted response-header name", without the names that a response exposes.
pub(crate) fn is_safelisted_response_header(name: &str) -> bool {
    matches!(
        &*name.to_ascii_lowercase(),
        "cache-control"
            | "content-language"
            | "content-length"
            | "content-type"
            | "expires"
            | "last-modified"
            | "pragma"
    )
}

/// Whether a response header has permissions for the browser: `Access-Control-*` and `Timing-Allow-Origin`. Pages have
/// no use for these headers.
pub(crate) fn is_cors_response_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "timing-allow-origin"
        || name.strip_prefix("access-control-").is_some_and(|rest| !rest.starts_with("request-"))
}

/// Whether a header has a meaning in responses only.
pub(crate) fn is_response_header(name: &str) -> bool {
    direction(name) == Direction::Response
}

/// The messages in which a header field has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Only in requests.
    Request,
    /// Only in responses.
    Response,
    /// In both, or unknown. Applications use their own names in any direction.
    Any,
}

/// Returns the direction of a header name. The sources are the IANA registry of field names, the standards that it
/// refers to, and a few names in wide use.
///
/// Fields that describe a representation (`Content-Range`, `Content-Disposition`) or a hop (`Date`, `Via`) occur in both
/// directions. An upload may have a `Last-Modified` or `ETag` of its own, but no server reads them there.
pub(crate) fn direction(name: &str) -> Direction {
    let name = name.to_ascii_lowercase();
    if is_cors_response_header(&name) {
        return Direction::Response;
    }
    match &*name {
        _ if ["access-control-request-", "if-", "sec-fetch-", "sec-ch-", "x-forwarded-"]
            .iter()
            .any(|start| name.starts_with(start)) =>
        {
            Direction::Request
        }
        "accept"
        | "accept-charset"
        | "accept-language"
        | "alt-used"
        | "authorization"
        | "cookie"
        | "cookie2"
        | "depth"
        | "destination"
        | "dnt"
        | "early-data"
        | "expect"
        | "forwarded"
        | "from"
        | "host"
        | "if"
        | "last-event-id"
        | "max-forwards"
        | "origin"
        | "overwrite"
        | "prefer"
        | "proxy-authorization"
        | "range"
        | "referer"
        | "save-data"
        | "sec-gpc"
        | "sec-purpose"
        | "sec-websocket-key"
        | "te"
        | "upgrade-insecure-requests"
        | "user-agent"
        | "x-requested-with" => Direction::Request,
        "accept-ch"
        | "accept-patch"
        | "accept-post"
        | "accept-ranges"
        | "age"
        | "allow"
        | "alt-svc"
        | "authentication-info"
        | "cache-status"
        | "clear-site-data"
        | "content-security-policy"
        | "content-security-policy-report-only"
        | "cross-origin-embedder-policy"
        | "cross-origin-opener-policy"
        | "cross-origin-resource-policy"
        | "etag"
        | "expires"
        | "last-modified"
        | "location"
        | "nel"
        | "origin-agent-cluster"
        | "permissions-policy"
        | "preference-applied"
        | "proxy-authenticate"
        | "proxy-authentication-info"
        | "proxy-status"
        | "referrer-policy"
        | "refresh"
        | "report-to"
        | "reporting-endpoints"
        | "retry-after"
        | "sec-websocket-accept"
        | "server"
        | "server-timing"
        | "set-cookie"
        | "set-cookie2"
        | "sourcemap"
        | "strict-transport-security"
        | "vary"
        | "www-authenticate"
        | "x-content-type-options"
        | "x-frame-options"
        | "x-powered-by"
        | "x-xss-protection" => Direction::Response,
        _ => Direction::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_field_that_overrides_the_method_with_a_forbidden_one_is_dropped() {
        for (name, value, expected) in [
            ("X-HTTP-Method-Override", "TRACE", true),
            ("x-method-override", "GET, track", true),
            ("X-HTTP-Method", "DELETE", false),
            ("X-Other", "TRACE", false),
            ("Host", "a.example", true),
        ] {
            assert_eq!(is_dropped_request_header(name, value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn a_response_header_has_no_meaning_in_requests() {
        for (name, expected) in [("Set-Cookie", true), ("ETag", true), ("Cookie", false), ("X-Other", false)] {
            assert_eq!(is_response_header(name), expected, "{name}");
        }
    }
}
