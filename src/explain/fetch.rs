//! The browser's side: what a page's `fetch()` sends, and what the page gets to see.
//!
//! Written from the Fetch standard, with its steps beside the code, and from nothing that corsgate does: so that it can
//! say of corsgate's answers whether they work, in `explain` and in the tests.
//!
//! ```
//! use corsgate::explain::fetch::{Credentials, Fetch};
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
    /// The preflight is answered with a redirect, which browsers do not follow.
    PreflightRedirect(u16),
    /// A list in the preflight's answer cannot be read.
    MalformedList(&'static str),
    /// `Access-Control-Allow-Methods` lacks the method.
    Method(String),
    /// `Access-Control-Allow-Headers` lacks the header.
    Header(String),
}

/// Which response fails a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// That to the preflight.
    Preflight,
    /// That to the request itself.
    Response,
}

/// Why a browser asks first, one for each thing that is not safelisted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsafe {
    /// The method.
    Method(String),
    /// A header by its name, as the page writes it.
    Header(String),
    /// A header whose name could pass, by its value.
    Value {
        /// As the page writes it.
        name: String,
        /// As the page sets it.
        value: String,
    },
    /// A header whose name could pass, and whose value nobody has said: it is taken for one that cannot.
    UnknownValue(String),
    /// Headers that could pass each for itself, but have so many bytes together.
    Bytes(usize),
}

/// What may be remembered of a preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflighted {
    /// Seconds.
    pub(crate) max_age: u64,
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
    pub(crate) fn is_method_unsafe(&self) -> bool {
        !is_safelisted_method(&self.normalised_method())
    }

    /// Fetch, "CORS-unsafe request-header names": lower case, sorted. What `Access-Control-Request-Headers` lists.
    pub fn unsafe_headers(&self) -> Vec<String> {
        let sent = || self.headers.iter().filter(|(name, _)| !is_forbidden(name));
        let is_safe = |name: &str, value: &str| is_safelisted_header(name, value);
        let safe_bytes: usize = sent().filter(|(name, value)| is_safe(name, value)).map(|(_, value)| value.len()).sum();
        let mut names: Vec<String> = sent()
            .filter(|(name, value)| safe_bytes > MOST_SAFE_BYTES || !is_safe(name, value))
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether the browser asks first.
    pub(crate) fn needs_preflight(&self) -> bool {
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
            // It is fetched without following redirects (CORS-preflight fetch, step 6), and what is left is no success.
            return Err(match status.is_redirection() {
                true => NetworkError::PreflightRedirect(status.as_u16()),
                false => NetworkError::PreflightStatus(status.as_u16()),
            });
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
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), NetworkError> {
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

    /// Whether the page may read a field of a response, by its name in any case; the field need not be there.
    pub(crate) fn can_read(&self, headers: &HeaderMap, name: &str) -> bool {
        let exposed = list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, "").unwrap_or_default();
        let all = self.credentials == Credentials::Omit && exposed.iter().any(|entry| entry == "*");
        let listed = || all || exposed.iter().any(|entry| entry.eq_ignore_ascii_case(name));
        !is_hidden(name) && (is_safelisted_response_header(name) || listed())
    }

    /// The names that a response exposes to the page, beside the safelisted ones; `*` for all.
    pub(crate) fn exposed(&self, headers: &HeaderMap) -> Vec<String> {
        let exposed = list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, "").unwrap_or_default();
        let counts = |name: &String| !is_hidden(name) && (name != "*" || self.credentials == Credentials::Omit);
        exposed.into_iter().filter(counts).collect()
    }

    /// Why the browser asks first; empty when it does not.
    pub(crate) fn why_preflight(&self) -> Vec<Unsafe> {
        let method = self.is_method_unsafe().then(|| Unsafe::Method(self.normalised_method()));
        let mut why: Vec<Unsafe> = method.into_iter().collect();
        let mut safe_bytes = 0;
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_forbidden(name)) {
            if is_safelisted_header(name, value) {
                safe_bytes += value.len();
            } else if is_sometimes_safelisted(name) {
                why.push(Unsafe::Value { name: name.clone(), value: value.clone() });
            } else {
                why.push(Unsafe::Header(name.clone()));
            }
        }
        if safe_bytes > MOST_SAFE_BYTES {
            why.push(Unsafe::Bytes(safe_bytes));
        }
        why
    }

    /// What a browser's console says of an error, in words like those that browsers use. `url` is what it fetches, in
    /// quotes, with where that was redirected from.
    pub(crate) fn console(&self, url: &str, stage: Stage, error: &NetworkError) -> String {
        let response = match stage {
            Stage::Preflight => "the response to the preflight request does not pass the access control check: ",
            Stage::Response => "",
        };
        let allow_origin = "'Access-Control-Allow-Origin' header";
        let fault = match error {
            NetworkError::NoAllowOrigin => format!("{response}no {allow_origin} is present on the requested resource"),
            NetworkError::AllowOriginMismatch(value) if value.contains(',') => {
                format!("{response}the {allow_origin} contains multiple values '{value}', but only one is allowed")
            }
            NetworkError::AllowOriginMismatch(value) => {
                format!("{response}the {allow_origin} has the value '{value}', which is not the page's origin")
            }
            NetworkError::WildcardWithCredentials => format!(
                "{response}the value of the {allow_origin} must not be the wildcard '*' when the request's \
                 credentials mode is 'include'"
            ),
            NetworkError::NoAllowCredentials => format!(
                "{response}the value of the 'Access-Control-Allow-Credentials' header must be 'true' when the \
                 request's credentials mode is 'include'"
            ),
            NetworkError::PreflightStatus(status) => {
                format!("{response}it does not have HTTP ok status, but {status}")
            }
            NetworkError::PreflightRedirect(status) => {
                format!("{response}redirect ({status}) is not allowed for a preflight request")
            }
            NetworkError::MalformedList(name) => format!("{response}the '{name}' header cannot be read as a list"),
            NetworkError::Method(method) => {
                format!("method {method} is not allowed by Access-Control-Allow-Methods in preflight response")
            }
            NetworkError::Header(name) => format!(
                "request header field {name} is not allowed by Access-Control-Allow-Headers in preflight response"
            ),
        };
        format!("fetch at {url} from origin '{}' is blocked by CORS policy: {fault}.", self.origin)
    }
}

impl Preflighted {
    /// The longest that Chromium remembers a preflight, in seconds; Firefox takes a day.
    pub(crate) const CHROMIUM: u64 = 7200;
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsafe::Method(method) => write!(f, "the method {method} is not GET, HEAD or POST"),
            Unsafe::Header(name) => write!(f, "the header {name} has to be asked for"),
            Unsafe::Value { name, value } if name.eq_ignore_ascii_case("content-type") => write!(
                f,
                "{name}: {value} is not one that a form can send (text/plain, multipart/form-data, \
                 application/x-www-form-urlencoded)"
            ),
            Unsafe::Value { name, value } if value.len() > LONGEST_SAFE_VALUE => {
                write!(
                    f,
                    "the value of {name} has {} bytes, and more than {LONGEST_SAFE_VALUE} have to be asked for",
                    value.len()
                )
            }
            Unsafe::Value { name, value } => write!(f, "this value of {name} has to be asked for: {value}"),
            Unsafe::UnknownValue(name) => {
                write!(f, "the value of {name} is not known, and taken for one that has to be asked for")
            }
            Unsafe::Bytes(bytes) => write!(
                f,
                "the headers that need no asking have {bytes} bytes together, and more than {MOST_SAFE_BYTES} do need it"
            ),
        }
    }
}

// --- the standard's small definitions

/// Values of safelisted headers are suspicious beyond that, together and each for itself (Fetch, "CORS-unsafe
/// request-header names", "CORS-safelisted request-header").
const MOST_SAFE_BYTES: usize = 1024;
const LONGEST_SAFE_VALUE: usize = 128;

/// The names of which some values are safelisted.
fn is_sometimes_safelisted(name: &str) -> bool {
    matches!(&*name.to_ascii_lowercase(), "accept" | "accept-language" | "content-language" | "content-type" | "range")
}

/// Fetch, "CORS-safelisted response-header name", but for those that are exposed.
fn is_safelisted_response_header(name: &str) -> bool {
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

/// Fetch, "forbidden response-header name".
fn is_hidden(name: &str) -> bool {
    matches!(&*name.to_ascii_lowercase(), "set-cookie" | "set-cookie2")
}

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
    value.len() <= LONGEST_SAFE_VALUE
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
            Self::PreflightRedirect(status) => {
                write!(f, "the preflight was answered with {status}, and browsers do not follow a redirect there")
            }
            Self::MalformedList(name) => write!(f, "{name} cannot be read as a list"),
            Self::Method(method) => write!(f, "Access-Control-Allow-Methods does not allow the method {method}"),
            Self::Header(name) => write!(f, "Access-Control-Allow-Headers does not allow the header {name}"),
        }
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn fetch<'a>(method: &'a str, headers: &'a [(String, String)], credentials: Credentials) -> Fetch<'a> {
        Fetch { origin: "https://app.example", method, headers, credentials }
    }

    /// Each reason for a preflight, and that there is one exactly when the browser asks.
    #[test]
    fn why_a_browser_asks_first() {
        let long = "a".repeat(129);
        for (method, set, why) in [
            ("get", &[][..], ""),
            ("POST", &[("Content-Type", "text/plain;charset=UTF-8")], ""),
            ("GET", &[("Range", "bytes=5-"), ("Accept-Language", "de, en;q=0.5")], ""),
            ("GET", &[("Sec-Custom", "1"), ("Cookie", "a")], ""),
            ("delete", &[], "the method DELETE is not GET, HEAD or POST"),
            ("GET", &[("X-Id", "7")], "the header X-Id has to be asked for"),
            ("GET", &[("Range", "bytes=-5")], "this value of Range has to be asked for: bytes=-5"),
            (
                "GET",
                &[("Accept", long.as_str())],
                "the value of Accept has 129 bytes, and more than 128 have to be asked for",
            ),
            ("GET", &[("Accept-Language", "de_DE")], "this value of Accept-Language has to be asked for: de_DE"),
        ] {
            let set = headers(set);
            let fetch = fetch(method, &set, Credentials::Omit);
            let all: Vec<String> = fetch.why_preflight().iter().map(ToString::to_string).collect();
            assert_eq!(all.join("; "), why);
            assert_eq!(fetch.needs_preflight(), !why.is_empty(), "{method} {set:?}");
        }
        let json = headers(&[("Content-Type", "application/json")]);
        assert!(
            fetch("POST", &json, Credentials::Omit).why_preflight()[0]
                .to_string()
                .contains("application/json is not one that a form")
        );
        // Each passes, but not nine of them.
        let nine = headers(&[("Accept", "a".repeat(120).as_str()); 9]);
        assert_eq!(fetch("GET", &nine, Credentials::Omit).why_preflight(), [Unsafe::Bytes(1080)]);
        assert_eq!(fetch("GET", &nine, Credentials::Omit).unsafe_headers(), ["accept"]);
    }

    #[test]
    fn what_a_page_can_read() {
        let mut response = HeaderMap::new();
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("X-Total, Set-Cookie"));
        let page = fetch("GET", &[], Credentials::Include);
        for (name, readable) in
            [("x-total", true), ("Content-Type", true), ("Set-Cookie", false), ("X-Other", false), ("Expires", true)]
        {
            assert_eq!(page.can_read(&response, name), readable, "{name}");
        }
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        assert!(!page.can_read(&response, "X-Other"), "with credentials `*` is a name like any other");
        assert!(fetch("GET", &[], Credentials::Omit).can_read(&response, "X-Other"));
        assert!(!fetch("GET", &[], Credentials::Omit).can_read(&response, "Set-Cookie"));
    }

    /// A browser does not follow a redirect of a preflight, and takes no other status for an answer than 200 to 299.
    #[test]
    fn a_preflight_needs_a_status_of_success() {
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
        let page = fetch("PUT", &[], Credentials::Omit);
        let status = |code| page.check_preflight(StatusCode::from_u16(code).unwrap(), &answer).map(drop);
        assert_eq!((status(200), status(204)), (Ok(()), Ok(())));
        assert_eq!(status(301), Err(NetworkError::PreflightRedirect(301)));
        assert_eq!(status(404), Err(NetworkError::PreflightStatus(404)));
        let said = page.console("'https://api.example/'", Stage::Preflight, &NetworkError::PreflightRedirect(301));
        assert!(said.contains("redirect (301) is not allowed for a preflight request"), "{said}");
    }
}
