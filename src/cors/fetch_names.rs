//! Method and header names to which the Fetch standard gives a meaning: forbidden and CORS-safelisted ones.
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
