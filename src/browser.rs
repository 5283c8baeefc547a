//! The browser's side: what a page's `fetch()` sends, and what the page gets to see.
//!
//! Written from the Fetch standard, with its steps beside the code, and from nothing that corsgate does: so that it can
//! say of corsgate's answers whether they work, in `explain` and in the tests.
//!
//! ```
//! use corsgate::browser::{Credentials, Fetch};
//!
//! let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
//! let fetch = Fetch { origin: "https://app.example", method: "post", headers: &headers, credentials: Credentials::Omit };
//! assert_eq!(fetch.unsafe_headers(), ["content-type"]);
//!
//! let mut answer = http::HeaderMap::new();
//! answer.insert("access-control-allow-origin", "*".parse().unwrap());
//! answer.insert("access-control-allow-headers", "*".parse().unwrap());
//! assert!(fetch.check_preflight(200.try_into().unwrap(), &answer).is_ok());
//! ```

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// A page's `fetch()` of another origin, in `cors` mode.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// The page's origin, serialised.
    pub origin: &'a str,
    /// As the page writes it.
    pub method: &'a str,
    /// Those that the page sets, with their values.
    pub headers: &'a [(String, String)],
    /// Whether cookies and the like go along.
    pub credentials: Credentials,
}

/// The credentials mode of a cross-origin request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// `omit`, or `same-origin`, which comes to the same here.
    Omit,
    /// `include`
    Include,
}

/// Why a page gets a network error instead of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkError {
    /// No `Access-Control-Allow-Origin`.
    NoAllowOrigin,
    /// `Access-Control-Allow-Origin` has this value, which is not the page's origin.
    AllowOriginMismatch(String),
    /// `*`, but the request has credentials.
    WildcardWithCredentials,
    /// The request has credentials, and `Access-Control-Allow-Credentials` is not `true`.
    NoAllowCredentials,
    /// The preflight's status is not 200 to 299.
    PreflightStatus(u16),
    /// A list in the preflight's answer cannot be read.
    MalformedList(&'static str),
    /// `Access-Control-Allow-Methods` lacks the method.
    Method(String),
    /// `Access-Control-Allow-Headers` lacks the header.
    Header(String),
}

/// What may be remembered of a preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflighted {
    /// Seconds.
    pub max_age: u64,
}

// === impl Fetch ===

impl Fetch<'_> {
    /// The method as it is sent (Fetch, "normalise a method").
    pub fn normalised_method(&self) -> String {
        let upper = self.method.to_ascii_uppercase();
        match upper.as_str() {
            "DELETE" | "GET" | "HEAD" | "OPTIONS" | "POST" | "PUT" => upper,
            _ => self.method.to_owned(),
        }
    }

    /// Whether the method alone asks for a preflight: it is not CORS-safelisted.
    pub fn is_method_unsafe(&self) -> bool {
        !is_safelisted_method(&self.normalised_method())
    }

    /// Fetch, "CORS-unsafe request-header names": lower case, sorted. What `Access-Control-Request-Headers` lists.
    pub fn unsafe_headers(&self) -> Vec<String> {
        let sent = || self.headers.iter().filter(|(name, _)| !is_forbidden(name));
        let is_safe = |name: &str, value: &str| is_safelisted_header(name, value);
        // More than 1024 bytes of safelisted values are suspicious together, each for itself or not.
        let safe_bytes: usize = sent().filter(|(name, value)| is_safe(name, value)).map(|(_, value)| value.len()).sum();
        let mut names: Vec<String> = sent()
            .filter(|(name, value)| safe_bytes > 1024 || !is_safe(name, value))
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether the browser asks first.
    pub fn needs_preflight(&self) -> bool {
        self.is_method_unsafe() || !self.unsafe_headers().is_empty()
    }

    /// The fields of the preflight that matter (Fetch, CORS-preflight fetch, steps 2 to 5). Never with credentials.
    pub fn preflight_headers(&self) -> Vec<(&'static str, String)> {
        let mut fields =
            vec![("Origin", self.origin.to_owned()), ("Access-Control-Request-Method", self.normalised_method())];
        let names = self.unsafe_headers();
        if !names.is_empty() {
            // Joined by "," without a space.
            fields.push(("Access-Control-Request-Headers", names.join(",")));
        }
        fields
    }

    /// Fetch, CORS-preflight fetch, from step 7 on.
    pub fn check_preflight(&self, status: StatusCode, headers: &HeaderMap) -> Result<Preflighted, NetworkError> {
        self.check(headers)?;
        if !status.is_success() {
            return Err(NetworkError::PreflightStatus(status.as_u16()));
        }
        let method = self.normalised_method();
        let methods = list(headers, &header::ACCESS_CONTROL_ALLOW_METHODS, "Access-Control-Allow-Methods")?;
        let names = list(headers, &header::ACCESS_CONTROL_ALLOW_HEADERS, "Access-Control-Allow-Headers")?;
        let includes = self.credentials == Credentials::Include;
        let wildcard = |list: &[String]| !includes && list.iter().any(|entry| entry == "*");
        if !methods.contains(&method) && !is_safelisted_method(&method) && !wildcard(&methods) {
            return Err(NetworkError::Method(method));
        }
        let listed = |name: &str| names.iter().any(|entry| entry.eq_ignore_ascii_case(name));
        for name in self.unsafe_headers() {
            // "CORS non-wildcard request-header name": there is one.
            let covered = wildcard(&names) && name != "authorization";
            if !listed(&name) && !covered {
                return Err(NetworkError::Header(name));
            }
        }
        let max_age = headers.get(header::ACCESS_CONTROL_MAX_AGE).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Preflighted { max_age: max_age.unwrap_or(5) })
    }

    /// Fetch, "CORS check": for the response to a preflight, and for the response itself.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), NetworkError> {
        let includes = self.credentials == Credentials::Include;
        let Some(allowed) = combined(headers, &header::ACCESS_CONTROL_ALLOW_ORIGIN) else {
            return Err(NetworkError::NoAllowOrigin);
        };
        match allowed.as_str() {
            "*" if !includes => return Ok(()),
            "*" => return Err(NetworkError::WildcardWithCredentials),
            origin if origin != self.origin => return Err(NetworkError::AllowOriginMismatch(allowed)),
            _ if !includes => return Ok(()),
            _ => {}
        }
        match combined(headers, &header::ACCESS_CONTROL_ALLOW_CREDENTIALS).as_deref() {
            Some("true") => Ok(()),
            _ => Err(NetworkError::NoAllowCredentials),
        }
    }

    /// The names of a response's fields that the page may read (Fetch, "CORS-filtered response").
    pub fn readable<'h>(&self, headers: &'h HeaderMap) -> Vec<&'h HeaderName> {
        let exposed = list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, "").unwrap_or_default();
        let all = self.credentials == Credentials::Omit && exposed.iter().any(|entry| entry == "*");
        let readable = |name: &HeaderName| {
            let hidden = matches!(name.as_str(), "set-cookie" | "set-cookie2");
            let safelisted = matches!(
                name.as_str(),
                "cache-control"
                    | "content-language"
                    | "content-length"
                    | "content-type"
                    | "expires"
                    | "last-modified"
                    | "pragma"
            );
            !hidden && (safelisted || all || exposed.iter().any(|entry| entry.eq_ignore_ascii_case(name.as_str())))
        };
        headers.keys().filter(|name| readable(name)).collect()
    }
}

// --- the standard's small definitions

/// Fetch, "CORS-safelisted method".
fn is_safelisted_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST")
}

/// Fetch, "CORS-safelisted request-header".
fn is_safelisted_header(name: &str, value: &str) -> bool {
    // "CORS-unsafe request-header byte"
    let unsafe_byte = |b: u8| {
        (b < 0x20 && b != b'\t')
            || matches!(
                b,
                b'"' | b'(' | b')' | b':' | b'<' | b'>' | b'?' | b'@' | b'[' | b'\\' | b']' | b'{' | b'}' | 0x7f
            )
    };
    let language_byte =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'*' | b',' | b'-' | b'.' | b';' | b'=');
    value.len() <= 128
        && match name.to_ascii_lowercase().as_str() {
            "accept" => !value.bytes().any(unsafe_byte),
            "accept-language" | "content-language" => value.bytes().all(language_byte),
            "content-type" => {
                let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                !value.bytes().any(unsafe_byte)
                    && ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
                        .contains(&essence.as_str())
            }
            "range" => is_simple_range(value),
            _ => false,
        }
}

/// `bytes=N-` or `bytes=N-M`; not `bytes=-N` (Fetch, "CORS-safelisted request-header", `range`).
fn is_simple_range(value: &str) -> bool {
    let Some((from, to)) = value.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return false };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(from), to) {
        (Some(_), "") => true,
        (Some(from), to) => number(to).is_some_and(|to| from <= to),
        (None, _) => false,
    }
}

/// Fetch, "forbidden request-header": silently not sent.
fn is_forbidden(name: &str) -> bool {
    crate::cors::is_forbidden_request_header(name)
}

/// Fetch, "get": all fields of a name as one value.
fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Fetch, "extract header list values", for fields that are lists of tokens.
fn list(headers: &HeaderMap, name: &HeaderName, written: &'static str) -> Result<Vec<String>, NetworkError> {
    let Some(value) = combined(headers, name) else { return Ok(Vec::new()) };
    let entries: Vec<String> = value.split(',').map(|entry| entry.trim().to_owned()).collect();
    let tokens = entries.iter().filter(|entry| !entry.is_empty());
    match tokens.clone().all(|entry| HeaderName::from_bytes(entry.as_bytes()).is_ok()) {
        true => Ok(tokens.cloned().collect()),
        false => Err(NetworkError::MalformedList(written)),
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAllowOrigin => f.write_str("the response has no Access-Control-Allow-Origin"),
            Self::AllowOriginMismatch(value) => {
                write!(f, "Access-Control-Allow-Origin is `{value}`, which is not the page's origin")
            }
            Self::WildcardWithCredentials => {
                f.write_str("Access-Control-Allow-Origin is `*`, which does not count for a request with credentials")
            }
            Self::NoAllowCredentials => {
                f.write_str("the request has credentials, and Access-Control-Allow-Credentials is not `true`")
            }
            Self::PreflightStatus(status) => write!(f, "the preflight was answered with {status}, which is no success"),
            Self::MalformedList(name) => write!(f, "{name} cannot be read as a list"),
            Self::Method(method) => write!(f, "Access-Control-Allow-Methods does not allow the method {method}"),
            Self::Header(name) => write!(f, "Access-Control-Allow-Headers does not allow the header {name}"),
        }
    }
}

impl std::error::Error for NetworkError {}
