//! CORS in the browser: decides whether a page's `fetch()` needs a preflight, and which responses the page can read.
//!
//! The code follows the Fetch standard, and names its steps. It shares no code with the policy engine, so `explain` and
//! the tests can use it to check the responses of corsgate.
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

mod preflight_cache;

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

pub use self::preflight_cache::PreflightCache;

use crate::cors::ResourcePolicy;
use crate::cors::fetch_names::{
    is_dropped_request_header, is_forbidden_response_header, is_normalized_method, is_safelisted_method,
    is_safelisted_request_header_name, is_safelisted_response_header,
};

/// A page's `fetch()` to another origin, in `cors` mode.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// The serialised origin of the page.
    pub origin: &'a str,
    /// The method in the page's code, before normalisation.
    pub method: &'a str,
    /// Names and values of the headers that the page sets.
    pub headers: &'a [(String, String)],
    /// The credentials mode of the request.
    pub credentials: Credentials,
}

/// The credentials mode of a cross-origin request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The modes `omit` and `same-origin`, which send no credentials to another origin.
    Omit,
    /// The mode `include`, which sends cookies and other credentials.
    Include,
}

/// The reason why a page gets a network error instead of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkError {
    /// The response has no `Access-Control-Allow-Origin`.
    NoAllowOrigin,
    /// `Access-Control-Allow-Origin` has this value, which is neither `*` nor the page's origin.
    AllowOriginMismatch(String),
    /// `Access-Control-Allow-Origin` is `*`, but the request has credentials.
    WildcardWithCredentials,
    /// The request has credentials, and `Access-Control-Allow-Credentials` is not `true`.
    NoAllowCredentials,
    /// The status of the preflight's response is not 200 to 299.
    PreflightStatus(u16),
    /// The response to the preflight is a redirect, which browsers do not follow.
    PreflightRedirect(u16),
    /// The field with this name in the response to the preflight is not a list of tokens.
    MalformedList(&'static str),
    /// `Access-Control-Allow-Methods` does not allow the method.
    Method(String),
    /// `Access-Control-Allow-Headers` does not allow the header. The name is in lower case.
    Header(String),
    /// The request had more than 20 redirects.
    TooManyRedirects,
    /// The target of a redirect has a user name or a password, which is not allowed across origins.
    RedirectToUserPart,
    /// The value of `Location` is not an http or https URL.
    RedirectToNoUrl(String),
    /// The response to a WebSocket has this status instead of 101.
    NotSwitched(u16),
    /// `Cross-Origin-Resource-Policy` has this value, but the page has another origin or site.
    ResourcePolicy(ResourcePolicy),
}

/// The request to which a response belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The preflight.
    Preflight,
    /// The request of the page.
    Request,
}

/// A reason why a request needs a preflight. `Display` writes it as a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreflightReason {
    /// The method is not CORS-safelisted. It is normalised.
    Method(String),
    /// The header with this name is not CORS-safelisted with any value.
    Header(String),
    /// This value of the header is not CORS-safelisted, but other values are.
    Value {
        /// The name in the page's code.
        name: String,
        /// The value in the page's code.
        value: String,
    },
    /// The header with this name is CORS-safelisted only with some values, and its value is not known.
    UnknownValue(String),
    /// The values of all safelisted headers together have this number of bytes, which is more than 1024.
    Bytes(usize),
    /// The page has a listener for the progress of an upload.
    UploadListeners,
}

/// The parts of a passed preflight's answer that a browser caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightAnswer {
    /// Time in seconds: the value of `Access-Control-Max-Age`, or 5 without this field.
    pub(crate) max_age: u64,
    /// The entries of `Access-Control-Allow-Methods`.
    pub(crate) methods: Vec<String>,
    /// The entries of `Access-Control-Allow-Headers`.
    pub(crate) headers: Vec<String>,
}

// === impl Fetch ===

impl Fetch<'_> {
    /// Returns the method that the browser sends (Fetch, "normalize a method").
    pub fn normalised_method(&self) -> String {
        let upper = self.method.to_ascii_uppercase();
        match is_normalized_method(&upper) {
            true => upper,
            false => self.method.to_owned(),
        }
    }

    /// Returns true if the method alone needs a preflight.
    pub(crate) fn is_method_unsafe(&self) -> bool {
        !is_safelisted_method(self.normalised_method().as_bytes())
    }

    /// Returns the names for `Access-Control-Request-Headers`, in lower case and sorted (Fetch, "CORS-unsafe
    /// request-header names").
    pub fn unsafe_headers(&self) -> Vec<String> {
        let sent = || self.headers.iter().filter(|(name, value)| !is_dropped_request_header(name, value));
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

    /// Returns the CORS fields of the preflight (Fetch, "CORS-preflight fetch", steps 2 to 5). A preflight never has
    /// credentials.
    pub fn preflight_headers(&self) -> Vec<(&'static str, String)> {
        let mut fields =
            vec![("Origin", self.origin.to_owned()), ("Access-Control-Request-Method", self.normalised_method())];
        let names = self.unsafe_headers();
        if !names.is_empty() {
            // The names are joined with "," without a space.
            fields.push(("Access-Control-Request-Headers", names.join(",")));
        }
        fields
    }

    /// Checks the response to the preflight (Fetch, "CORS-preflight fetch", from step 7 on).
    ///
    /// # Errors
    ///
    /// Returns the first check that fails. The browser then does not send the request.
    pub fn check_preflight(&self, status: StatusCode, headers: &HeaderMap) -> Result<PreflightAnswer, NetworkError> {
        self.check(headers)?;
        if !status.is_success() {
            // A browser does not follow a redirect of the preflight (CORS-preflight fetch, step 6), and a redirect does
            // not have an ok status.
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
        if !methods.contains(&method) && !is_safelisted_method(method.as_bytes()) && !wildcard(&methods) {
            return Err(NetworkError::Method(method));
        }
        let listed = |name: &str| names.iter().any(|entry| entry.eq_ignore_ascii_case(name));
        for name in self.unsafe_headers() {
            // `Authorization` is the only "CORS non-wildcard request-header name".
            let covered = wildcard(&names) && name != "authorization";
            if !listed(&name) && !covered {
                return Err(NetworkError::Header(name));
            }
        }
        let max_age = headers.get(header::ACCESS_CONTROL_MAX_AGE).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(PreflightAnswer { max_age: max_age.unwrap_or(5), methods, headers: names })
    }

    /// Performs the "CORS check" of Fetch. It applies to the response to a preflight, and to the response to the
    /// request.
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

    /// Returns true if the page can read a field of a response. The name can be in any case. The response may not have
    /// the field.
    pub(crate) fn can_read(&self, headers: &HeaderMap, name: &str) -> bool {
        let exposed = list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, "").unwrap_or_default();
        let all = self.credentials == Credentials::Omit && exposed.iter().any(|entry| entry == "*");
        let listed = || all || exposed.iter().any(|entry| entry.eq_ignore_ascii_case(name));
        !is_forbidden_response_header(name) && (is_safelisted_response_header(name) || listed())
    }

    /// Returns the names that `Access-Control-Expose-Headers` exposes to the page. `*` stands for all names.
    pub(crate) fn exposed(&self, headers: &HeaderMap) -> Vec<String> {
        let exposed = list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, "").unwrap_or_default();
        let counts = |name: &String| {
            !is_forbidden_response_header(name) && (name != "*" || self.credentials == Credentials::Omit)
        };
        exposed.into_iter().filter(counts).collect()
    }

    /// Returns all reasons why the request needs a preflight. The list is empty if it needs none.
    pub(crate) fn preflight_reasons(&self) -> Vec<PreflightReason> {
        let method = self.is_method_unsafe().then(|| PreflightReason::Method(self.normalised_method()));
        let mut reasons: Vec<PreflightReason> = method.into_iter().collect();
        let mut safe_bytes = 0;
        for (name, value) in self.headers.iter().filter(|(name, value)| !is_dropped_request_header(name, value)) {
            if is_safelisted_header(name, value) {
                safe_bytes += value.len();
            } else if is_safelisted_request_header_name(name) {
                reasons.push(PreflightReason::Value { name: name.clone(), value: value.clone() });
            } else {
                reasons.push(PreflightReason::Header(name.clone()));
            }
        }
        if safe_bytes > MOST_SAFE_BYTES {
            reasons.push(PreflightReason::Bytes(safe_bytes));
        }
        reasons
    }

    /// Returns the message in the browser's console for an error, similar to the messages of browsers. `what` is the
    /// kind of the request, such as `fetch`. `url` is the URL in quotes, with the URL that redirected to it.
    pub(crate) fn console(&self, what: &str, url: &str, stage: Stage, error: &NetworkError) -> String {
        let response = match stage {
            Stage::Preflight => "the response to the preflight request does not pass the access control check: ",
            Stage::Request => "",
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
            NetworkError::RedirectToUserPart => {
                "the redirect location contains a username or a password, which is not allowed for cross-origin requests"
                    .to_owned()
            }
            NetworkError::TooManyRedirects | NetworkError::RedirectToNoUrl(_) => {
                return format!("{what} at {url} from origin '{}' failed: {error}.", self.origin);
            }
            NetworkError::ResourcePolicy(policy) => {
                let not_same = match policy {
                    ResourcePolicy::SameOrigin => "NotSameOrigin",
                    ResourcePolicy::SameSite | ResourcePolicy::CrossOrigin => "NotSameSite",
                };
                return format!("{what} at {url} failed: net::ERR_BLOCKED_BY_RESPONSE.{not_same}.");
            }
            NetworkError::NotSwitched(status) => {
                return format!("{what} connection to {url} failed: unexpected response code {status}.");
            }
        };
        format!("{what} at {url} from origin '{}' is blocked by CORS policy: {fault}.", self.origin)
    }
}

impl PreflightAnswer {
    /// Maximum of `max_age` in Chromium, in seconds. The maximum in Firefox is 86400.
    pub(crate) const CHROMIUM_LIMIT: u64 = 7200;
}

impl fmt::Display for PreflightReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PreflightReason::Method(method) => write!(f, "the method {method} is not GET, HEAD or POST"),
            PreflightReason::Header(name) => write!(f, "the header {name} is not safelisted"),
            PreflightReason::Value { name, value } if name.eq_ignore_ascii_case("content-type") => write!(
                f,
                "{name}: {value} is not safelisted (only text/plain, multipart/form-data and \
                 application/x-www-form-urlencoded are)"
            ),
            PreflightReason::Value { name, value } if value.len() > LONGEST_SAFE_VALUE => {
                write!(f, "the value of {name} has {} bytes; at most {LONGEST_SAFE_VALUE} are safelisted", value.len())
            }
            PreflightReason::Value { name, value } => write!(f, "this value of {name} is not safelisted: {value}"),
            PreflightReason::UnknownValue(name) => {
                write!(f, "the value of {name} is not known and is assumed not to be safelisted")
            }
            PreflightReason::Bytes(bytes) => write!(
                f,
                "the safelisted headers have {bytes} bytes together; at most {MOST_SAFE_BYTES} need no preflight"
            ),
            PreflightReason::UploadListeners => f.write_str("the page listens to the progress of the upload"),
        }
    }
}

// --- definitions of the Fetch standard

/// Maximum size of all safelisted values together in bytes (Fetch, "CORS-unsafe request-header names").
const MOST_SAFE_BYTES: usize = 1024;
/// Maximum size of one safelisted value in bytes (Fetch, "CORS-safelisted request-header").
const LONGEST_SAFE_VALUE: usize = 128;

/// Returns true for a "CORS-safelisted request-header" of Fetch.
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

/// Returns true for a "no-CORS-safelisted request-header" of Fetch. A header without a known value is not safelisted.
pub(crate) fn is_no_cors_safelisted(name: &str, value: Option<&str>) -> bool {
    !name.eq_ignore_ascii_case("range") && value.is_some_and(|value| is_safelisted_header(name, value))
}

/// Returns true for `bytes=N-` and `bytes=N-M`, but not for `bytes=-N` (Fetch, "CORS-safelisted request-header",
/// `range`).
fn is_simple_range(value: &str) -> bool {
    let Some((from, to)) = value.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return false };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(from), to) {
        (Some(_), "") => true,
        (Some(from), to) => number(to).is_some_and(|to| from <= to),
        (None, _) => false,
    }
}

/// Returns the value of `Cross-Origin-Resource-Policy` (Fetch, "cross-origin resource policy internal check", steps 3
/// and 4). Returns None without the header, and for an invalid value, such as the value of two fields.
pub(crate) fn resource_policy(headers: &HeaderMap) -> Option<ResourcePolicy> {
    let value = combined(headers, &HeaderName::from_static("cross-origin-resource-policy"))?;
    let all = [ResourcePolicy::SameOrigin, ResourcePolicy::SameSite, ResourcePolicy::CrossOrigin];
    all.into_iter().find(|policy| policy.word() == value)
}

/// Returns all fields of a name as one value (Fetch, "get").
fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Returns the entries of a field that is a list of tokens (Fetch, "extract header list values").
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
                f.write_str("Access-Control-Allow-Origin is `*`, which is not valid for a request with credentials")
            }
            Self::NoAllowCredentials => {
                f.write_str("the request has credentials, and Access-Control-Allow-Credentials is not `true`")
            }
            Self::PreflightStatus(status) => {
                write!(f, "the response to the preflight has the status {status}, not 200 to 299")
            }
            Self::PreflightRedirect(status) => {
                write!(f, "the response to the preflight is a redirect ({status}), which browsers do not follow")
            }
            Self::MalformedList(name) => write!(f, "{name} is not a valid list"),
            Self::Method(method) => write!(f, "Access-Control-Allow-Methods does not allow the method {method}"),
            Self::Header(name) => write!(f, "Access-Control-Allow-Headers does not allow the header {name}"),
            Self::TooManyRedirects => f.write_str("the browser gives up after 20 redirects"),
            Self::RedirectToUserPart => {
                f.write_str("the redirect is to a URL with a user part, which browsers refuse across origins")
            }
            Self::RedirectToNoUrl(location) => {
                write!(f, "the redirect to `{location}` is not to an http or https URL")
            }
            Self::ResourcePolicy(policy) => {
                write!(f, "Cross-Origin-Resource-Policy is `{}`, and the page is not", policy.word())
            }
            Self::NotSwitched(status) => write!(f, "a WebSocket needs the status 101, but the response has {status}"),
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

    /// The list of reasons must be empty exactly if the request needs no preflight.
    #[test]
    fn every_reason_for_a_preflight_is_named() {
        let long = "a".repeat(129);
        for (method, set, reasons) in [
            ("get", &[][..], ""),
            ("POST", &[("Content-Type", "text/plain;charset=UTF-8")], ""),
            ("GET", &[("Range", "bytes=5-"), ("Accept-Language", "de, en;q=0.5")], ""),
            ("GET", &[("Sec-Custom", "1"), ("Cookie", "a")], ""),
            ("delete", &[], "the method DELETE is not GET, HEAD or POST"),
            ("GET", &[("X-Id", "7")], "the header X-Id is not safelisted"),
            ("GET", &[("Range", "bytes=-5")], "this value of Range is not safelisted: bytes=-5"),
            ("GET", &[("Accept", long.as_str())], "the value of Accept has 129 bytes; at most 128 are safelisted"),
            ("GET", &[("Accept-Language", "de_DE")], "this value of Accept-Language is not safelisted: de_DE"),
        ] {
            let set = headers(set);
            let fetch = fetch(method, &set, Credentials::Omit);
            let all: Vec<String> = fetch.preflight_reasons().iter().map(ToString::to_string).collect();
            assert_eq!(all.join("; "), reasons);
        }
        let json = headers(&[("Content-Type", "application/json")]);
        assert!(
            fetch("POST", &json, Credentials::Omit).preflight_reasons()[0]
                .to_string()
                .contains("application/json is not safelisted (only text/plain")
        );
        // Each value is safelisted, but together the nine values are too long.
        let nine = headers(&[("Accept", "a".repeat(120).as_str()); 9]);
        assert_eq!(fetch("GET", &nine, Credentials::Omit).preflight_reasons(), [PreflightReason::Bytes(1080)]);
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
        assert!(!page.can_read(&response, "X-Other"), "with credentials `*` is an ordinary name");
        assert!(fetch("GET", &[], Credentials::Omit).can_read(&response, "X-Other"));
        assert!(!fetch("GET", &[], Credentials::Omit).can_read(&response, "Set-Cookie"));
    }

    /// A browser does not follow a redirect of a preflight, and accepts only a status of 200 to 299.
    #[test]
    fn a_preflight_needs_an_ok_status() {
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("*"));
        let page = fetch("PUT", &[], Credentials::Omit);
        let status = |code| page.check_preflight(StatusCode::from_u16(code).unwrap(), &answer).map(drop);
        assert_eq!((status(200), status(204)), (Ok(()), Ok(())));
        assert_eq!(status(301), Err(NetworkError::PreflightRedirect(301)));
        assert_eq!(status(404), Err(NetworkError::PreflightStatus(404)));
        let said =
            page.console("fetch", "'https://api.example/'", Stage::Preflight, &NetworkError::PreflightRedirect(301));
        assert!(said.contains("redirect (301) is not allowed for a preflight request"), "{said}");
    }
}
