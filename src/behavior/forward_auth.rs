//! `forward_auth`: an authentication service decides whether a request may continue to the upstream.
//!
//! The gateway sends a GET request without a body to the service. Its `X-Forwarded-*` fields describe the client's
//! request. If the service answers with 2xx, the client's request continues. If the service refuses, the client gets
//! the response of the service. This module builds the header of the request to the service, and interprets the
//! response. `forward::auth` sends the request.
//!
//! A client cannot forge the header fields that the service sets for the upstream: [`ForwardAuth::remove_forged`]
//! removes them from the client's request, in every spelling that an upstream could read as the same field.

use std::net::IpAddr;

use http::header::{self, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headers::is_of_connection;
use crate::domain::Scheme;
use crate::notation::{Duration, List, WriteInstead, forms, given};
use crate::problem::{At, ProblemKind, Problems};

/// Asks a service about each request before the upstream gets the request. The service gets a GET request without a
/// body. If its status is 2xx, the upstream gets the client's request. If its status is 3xx or 4xx, except 304 and
/// 407, the client gets the response of the service. Without a usable answer, the client gets 503. corsgate never asks the
/// service about preflights that corsgate answers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound(deserialize = "U: Deserialize<'de>"))]
#[schemars(title = "Authentication by a service", rename = "ForwardAuth", extend("required" = ["upstream", "path"]))]
pub(crate) struct ForwardAuthSettings<U> {
    /// The service: the name of an upstream, or the keys of an upstream.
    #[serde(deserialize_with = "given")]
    pub(crate) upstream: Option<U>,
    /// Path of the request to the service, optionally with a query, such as `/oauth2/auth`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Target")]
    pub(crate) path: Option<String>,
    /// Header fields of the client's request that the service gets. corsgate adds `X-Forwarded-Method`, `-Proto`,
    /// `-Host`, `-Uri` and `-For`, `X-Real-IP` and `X-Request-Id`. `[]` means no fields of the client.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldNamesOrNone", extend("default" = DEFAULT_REQUEST_HEADERS))]
    pub(crate) request_headers: Option<List>,
    /// Header fields of the service's response that corsgate adds to the request for the upstream. The client's own
    /// fields with these names are removed first. Without this key, no fields are added.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldNames")]
    pub(crate) response_headers: Option<List>,
    /// Maximum time for the answer of the service, retries included.
    #[schemars(with = "forms::PositiveDuration")]
    pub(crate) timeout: Duration,
}

impl<U> WriteInstead for ForwardAuthSettings<U> {
    const EXAMPLE: &'static str = "a service such as `{ upstream: auth, path: /verify }`";
}

/// Default of `request_headers`: credentials, and fields that services use to choose between 401 and a redirect.
const DEFAULT_REQUEST_HEADERS: [&str; 5] = ["Accept", "Authorization", "Cookie", "User-Agent", "X-Requested-With"];

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `forward_auth` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardAuth {
    /// None: the route switches `forward_auth` off.
    pub(crate) service: Option<AuthService>,
    /// Header fields that only an authentication service may set: the service of this route, or the service that the
    /// route replaces or switches off.
    reserved: Box<[HeaderName]>,
}

/// The authentication service, and the header fields that it gets and returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthService {
    /// Index of the upstream in the snapshot.
    pub(crate) upstream: usize,
    /// Path and query, in origin form.
    pub(crate) path: Box<str>,
    request_headers: Box<[HeaderName]>,
    response_headers: Box<[HeaderName]>,
    pub(crate) timeout: std::time::Duration,
}

/// Values that describe a client's request to the service. The gateway sets all of them.
#[derive(Debug)]
pub(crate) struct AskedRequest<'a> {
    pub(crate) method: &'a Method,
    /// Scheme of the client's URL.
    pub(crate) scheme: Scheme,
    /// Host and port of the client's URL.
    pub(crate) host: HeaderValue,
    /// Path and query of the client's URL, as received.
    pub(crate) target: &'a [u8],
    /// None if the address is not known.
    pub(crate) client: Option<IpAddr>,
    /// Value of `X-Forwarded-For`.
    pub(crate) forwarded_for: HeaderValue,
    /// Value of `X-Request-Id`.
    pub(crate) request_id: HeaderValue,
}

/// Meaning of a response of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthDecision {
    /// The client's request continues to the upstream.
    Allowed,
    /// The client gets the response of the service.
    Refused,
    /// The response is not a decision, so the client gets 503.
    Undecided,
}

/// Header fields that an allowing response adds to the upstream's request and to the client's response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PassedOn {
    /// Fields for the upstream's request.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// `Set-Cookie` values for the client's response. Services renew sessions with them.
    cookies: Vec<HeaderValue>,
}

impl<U> Default for ForwardAuthSettings<U> {
    fn default() -> Self {
        ForwardAuthSettings {
            upstream: None,
            path: None,
            request_headers: None,
            response_headers: None,
            timeout: Duration::from_secs(5),
        }
    }
}

// === compile ===

impl ForwardAuth {
    /// Checks whether `forward_auth` is the same in two snapshots. `same_upstream` compares the upstreams at two
    /// indices.
    pub(crate) fn is_same(&self, other: &Self, same_upstream: &dyn Fn(usize, usize) -> bool) -> bool {
        let without_upstream = |auth: &Self| {
            let service = auth.service.clone().map(|service| AuthService { upstream: 0, ..service });
            ForwardAuth { service, ..auth.clone() }
        };
        let same_upstream = match (&self.service, &other.service) {
            (Some(service), Some(other)) => same_upstream(service.upstream, other.upstream),
            _ => true,
        };
        same_upstream && without_upstream(self) == without_upstream(other)
    }

    /// Compiles `forward_auth: false`: no service is asked. Clients still cannot forge the fields of the service
    /// `above`, because the route may have the same upstream as routes that ask this service.
    pub(crate) fn off(above: Option<&Self>) -> Option<Self> {
        above.map(|above| ForwardAuth { service: None, reserved: above.reserved.clone() })
    }

    /// Compiles the settings. `upstream` is the index of the service's upstream, or None if that upstream has errors.
    /// `above` is the `forward_auth` that these settings replace.
    pub(crate) fn compile<U>(
        settings: &ForwardAuthSettings<U>,
        upstream: Option<usize>,
        above: Option<&Self>,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let ForwardAuthSettings { upstream: _, path, request_headers, response_headers, timeout } = settings;
        let path = target(path.as_deref(), &at.key("path"), problems);
        let request_headers = match request_headers {
            Some(list) => names(list, Side::ToService, &at.key("request_headers"), problems),
            None => DEFAULT_REQUEST_HEADERS.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let at_response = at.key("response_headers");
        if response_headers.as_ref().is_some_and(|list| list.entries().is_empty()) {
            problems.add(&at_response, ProblemKind::EmptyList { required: false });
        }
        let response_headers =
            response_headers.as_ref().map(|list| names(list, Side::ToUpstream, &at_response, problems));
        let response_headers = response_headers.unwrap_or_default();
        let mut reserved = response_headers.clone();
        let above = above.iter().flat_map(|above| &above.reserved);
        reserved.extend(above.filter(|name| !response_headers.contains(name)).cloned());
        let service = AuthService {
            upstream: upstream?,
            path: path?,
            request_headers: request_headers.into(),
            response_headers: response_headers.into(),
            timeout: timeout.get(),
        };
        Some(ForwardAuth { service: Some(service), reserved: reserved.into() })
    }
}

fn target(path: Option<&str>, at: &At<'_>, problems: &mut Problems) -> Option<Box<str>> {
    let Some(path) = path else {
        problems.add(at, ProblemKind::Missing { example: "path: /oauth2/auth" });
        return None;
    };
    let is_plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    let is_target = is_plain && path.starts_with('/');
    if !is_target {
        let why = "it must begin with a slash and have only visible ASCII characters, without `#`";
        let write = if is_plain && !path.contains("://") { format!("/{path}") } else { "/oauth2/auth".to_owned() };
        problems.add(at, ProblemKind::BadPath { text: path.into(), why, write: Some(write) });
    }
    is_target.then(|| path.into())
}

/// The receiver of a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    ToService,
    ToUpstream,
}

fn names(list: &List, side: Side, at: &At<'_>, problems: &mut Problems) -> Vec<HeaderName> {
    let mut names = Vec::with_capacity(list.entries().len());
    for (i, text) in list.entries().iter().enumerate() {
        let kind = match HeaderName::from_bytes(text.as_bytes()) {
            _ if text.is_empty() => ProblemKind::EmptyEntry,
            Err(_) => ProblemKind::BadHeaderName { text: text.clone() },
            Ok(name) if is_of_connection(name.as_str()) => ProblemKind::HeaderOfConnection { name: text.clone() },
            Ok(name) if side == Side::ToUpstream && is_cors(&name) => ProblemKind::HeaderOfCors { name: text.clone() },
            Ok(name) => {
                names.push(name);
                continue;
            }
        };
        problems.add(&at.index(i), kind);
    }
    names
}

// === requests and responses ===

impl AuthService {
    /// Builds the header of the request to the service, without `Host`. `client` is the header of the client's request.
    /// Fields that only a trusted proxy may send must already be removed from it.
    pub(crate) fn request(&self, client: &HeaderMap, asked: AskedRequest<'_>) -> Result<HeaderMap, InvalidHeaderValue> {
        let AskedRequest { method, scheme, host, target, client: address, forwarded_for, request_id } = asked;
        let mut fields = HeaderMap::with_capacity(self.request_headers.len() + 8);
        // Clones the names in the client's header, not those in the settings: threads that clone the same name contend
        // for its reference count.
        for (name, value) in client.iter().filter(|(name, _)| self.request_headers.contains(name)) {
            fields.append(name.clone(), value.clone());
        }
        let scheme = match scheme {
            Scheme::Http => HeaderValue::from_static("http"),
            Scheme::Https => HeaderValue::from_static("https"),
        };
        fields.insert(X_FORWARDED_METHOD, HeaderValue::from_str(method.as_str())?);
        fields.insert(X_FORWARDED_PROTO, scheme);
        fields.insert(X_FORWARDED_HOST, host);
        fields.insert(X_FORWARDED_URI, HeaderValue::from_bytes(target)?);
        fields.insert(X_FORWARDED_FOR, forwarded_for);
        fields.insert(X_REQUEST_ID, request_id);
        match address {
            Some(address) => fields.insert(X_REAL_IP, HeaderValue::from_str(&address.to_canonical().to_string())?),
            None => fields.remove(X_REAL_IP),
        };
        Ok(fields)
    }

    /// Returns the fields that an allowing response adds, or None if it adds no fields.
    pub(crate) fn passed_on(&self, response: &HeaderMap) -> Option<Box<PassedOn>> {
        let (mut fields, mut cookies) = (Vec::new(), Vec::new());
        for (name, value) in response {
            if self.response_headers.contains(name) {
                fields.push((name.clone(), value.clone()));
            }
            if *name == header::SET_COOKIE {
                cookies.push(value.clone());
            }
        }
        (!fields.is_empty() || !cookies.is_empty()).then(|| Box::new(PassedOn { fields, cookies }))
    }
}

impl ForwardAuth {
    /// Removes fields of the client that the upstream could read as fields of the service. Many servers replace `-` by
    /// `_` in names, and some replace every character that is not a letter or digit.
    pub(crate) fn remove_forged(&self, client: &mut HeaderMap) {
        let is_forged = |name: &HeaderName| self.reserved.iter().any(|own| reads_as(name.as_str(), own.as_str()));
        while let Some(name) = client.keys().find(|name| is_forged(name)).cloned() {
            client.remove(name);
        }
    }
}

impl PassedOn {
    /// Adds the fields of the service to the upstream's request.
    pub(crate) fn add_to_request(&self, request: &mut HeaderMap) {
        for (name, value) in &self.fields {
            request.append(name, value.clone());
        }
    }

    /// Adds the cookies of the service to the client's response.
    pub(crate) fn add_to_response(&self, response: &mut HeaderMap) {
        for cookie in &self.cookies {
            response.append(header::SET_COOKIE, cookie.clone());
        }
    }
}

impl AuthDecision {
    /// Returns the meaning of a final status.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            status if status.is_success() => AuthDecision::Allowed,
            // 304 would tell the client that its stored response is still valid, but the service only answers for its
            // own URL. 407 is for a client of a forward proxy, and the gateway is not a forward proxy.
            StatusCode::NOT_MODIFIED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => AuthDecision::Undecided,
            status if status.is_redirection() || status.is_client_error() => AuthDecision::Refused,
            _ => AuthDecision::Undecided,
        }
    }
}

/// Changes the header of a refusing response for the client. Removes CORS fields, because the policy of the route adds
/// its own, and forbids caching if the response has no `Cache-Control`. Hop-by-hop fields must already be removed.
pub(crate) fn adapt_refusal(response: &mut HeaderMap) {
    while let Some(name) = response.keys().find(|name| is_cors(name)).cloned() {
        response.remove(name);
    }
    // For the same URL, another user can get another answer.
    if !response.contains_key(header::CACHE_CONTROL) {
        response.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn is_cors(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-") || name.as_str() == "timing-allow-origin"
}

/// Checks whether an upstream could read the header field `name` as the field `own`.
fn reads_as(name: &str, own: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (!a.is_ascii_alphanumeric() && !b.is_ascii_alphanumeric());
    name.len() == own.len() && name.bytes().zip(own.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> List {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn compiled(settings: ForwardAuthSettings<()>) -> ForwardAuth {
        let settings = ForwardAuthSettings { path: Some("/verify".into()), ..settings };
        let mut problems = Problems::default();
        let auth = ForwardAuth::compile(&settings, Some(0), None, &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        auth.unwrap()
    }

    fn service(settings: ForwardAuthSettings<()>) -> AuthService {
        compiled(settings).service.unwrap()
    }

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn asked() -> AskedRequest<'static> {
        AskedRequest {
            method: &Method::PUT,
            scheme: Scheme::Https,
            host: HeaderValue::from_static("api.test:8443"),
            target: b"/a%20b?c=d",
            client: "::ffff:192.0.2.7".parse().ok(),
            forwarded_for: HeaderValue::from_static("192.0.2.7"),
            request_id: HeaderValue::from_static("id"),
        }
    }

    /// The fields as lines, sorted.
    fn lines(fields: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<String> = fields.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_service_gets_the_chosen_fields_and_the_values_of_the_gateway() {
        let client = fields(&[
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("authorization", "Bearer x"),
            ("content-type", "text/plain"),
            ("x-tenant", "1"),
            ("x-tenant", "2"),
            // A trusted proxy may send these fields.
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/public"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ]);
        let of_gateway = [
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: api.test:8443",
            "x-forwarded-method: PUT",
            "x-forwarded-proto: https",
            "x-forwarded-uri: /a%20b?c=d",
            "x-real-ip: 192.0.2.7",
            "x-request-id: id",
        ];
        let none: &[&str] = &[];
        for (names, chosen) in [
            (None, &["authorization: Bearer x", "cookie: a=1", "cookie: b=2"][..]),
            (Some(&["X-Tenant", "X-Missing"][..]), &["x-tenant: 1", "x-tenant: 2"]),
            (Some(&["X-Forwarded-Uri", "X-Forwarded-For", "X-Real-IP"]), none),
            (Some(none), none),
        ] {
            let auth = service(ForwardAuthSettings { request_headers: names.map(list), ..Default::default() });
            let mut expected: Vec<&str> = chosen.iter().chain(&of_gateway).copied().collect();
            expected.sort_unstable();
            assert_eq!(lines(&auth.request(&client, asked()).unwrap()), expected, "{names:?}");
        }
    }

    #[test]
    fn the_service_gets_no_address_of_the_client_if_it_is_unknown() {
        let auth = service(ForwardAuthSettings { request_headers: Some(list(&["X-Real-IP"])), ..Default::default() });
        let client = fields(&[("x-real-ip", "10.0.0.1")]);
        let request = auth.request(&client, AskedRequest { client: None, ..asked() }).unwrap();
        assert!(!request.contains_key(X_REAL_IP));
    }

    #[test]
    fn fields_of_the_service_cannot_be_forged_in_any_spelling() {
        let response_headers = Some(list(&["X-User", "Remote_Groups", "Authorization"]));
        let auth = compiled(ForwardAuthSettings { response_headers, ..Default::default() });
        let mut client = fields(&[
            ("x-user", "root"),
            ("x-user", "admin"),
            ("x_user", "root"),
            ("x.user", "root"),
            ("remote-groups", "admins"),
            ("remote_groups", "admins"),
            ("remote~groups", "admins"),
            ("authorization", "Basic x"),
            ("x-users", "1"),
            ("xuser", "2"),
            ("x-user-id", "3"),
            ("cookie", "a=1"),
        ]);
        auth.remove_forged(&mut client);
        assert_eq!(lines(&client), ["cookie: a=1", "x-user-id: 3", "x-users: 1", "xuser: 2"]);
    }

    #[test]
    fn a_route_without_the_service_of_its_parent_protects_its_fields_too() {
        let with = |name| ForwardAuthSettings { response_headers: Some(list(&[name])), ..Default::default() };
        let above = compiled(with("X-User"));
        let other = ForwardAuthSettings { path: Some("/".into()), ..with("X-Role") };
        let other = ForwardAuth::compile::<()>(&other, Some(1), Some(&above), &At::root(), &mut Problems::default());
        let off = ForwardAuth::off(Some(&above)).unwrap();
        assert_eq!((off.service.is_some(), ForwardAuth::off(None)), (false, None));
        for (auth, left) in [(above, vec!["x-role: 2"]), (other.unwrap(), vec![]), (off, vec!["x-role: 2"])] {
            let mut client = fields(&[("x-user", "1"), ("x-role", "2")]);
            auth.remove_forged(&mut client);
            assert_eq!(lines(&client), left);
        }
    }

    #[test]
    fn only_the_chosen_fields_of_the_service_are_passed_on() {
        let response_headers = Some(list(&["X-User", "X-Groups"]));
        let auth = service(ForwardAuthSettings { response_headers, ..Default::default() });
        let response = fields(&[
            ("x-user", "alice"),
            ("x-groups", "a"),
            ("x-groups", "b"),
            ("x-secret", "s"),
            ("set-cookie", "session=2"),
            ("set-cookie", "csrf=3"),
        ]);
        let passed = auth.passed_on(&response).unwrap();
        let (mut request, mut answer) = (fields(&[("accept", "*/*")]), fields(&[("set-cookie", "own=1")]));
        passed.add_to_request(&mut request);
        passed.add_to_response(&mut answer);
        assert_eq!(lines(&request), ["accept: */*", "x-groups: a", "x-groups: b", "x-user: alice"]);
        assert_eq!(lines(&answer), ["set-cookie: csrf=3", "set-cookie: own=1", "set-cookie: session=2"]);
        assert_eq!(auth.passed_on(&fields(&[("x-secret", "s")])), None);
    }

    #[test]
    fn only_2xx_allows_and_5xx_decides_nothing() {
        use AuthDecision::{Allowed, Refused, Undecided};
        for (decision, statuses) in [
            (Allowed, &[200, 202, 204, 206, 299][..]),
            (Refused, &[300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 429, 499]),
            (Undecided, &[100, 101, 304, 407, 500, 502, 503, 504, 599, 600, 999]),
        ] {
            for status in statuses {
                assert_eq!(AuthDecision::of(StatusCode::from_u16(*status).unwrap()), decision, "{status}");
            }
        }
    }

    #[test]
    fn a_refusal_has_no_cors_fields_of_the_service_and_is_not_cached() {
        let mut response = fields(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://evil.test"),
            ("access-control-allow-credentials", "true"),
            ("timing-allow-origin", "*"),
            ("www-authenticate", "Bearer"),
        ]);
        adapt_refusal(&mut response);
        assert_eq!(lines(&response), ["cache-control: no-store", "www-authenticate: Bearer"]);
        let mut response = fields(&[("cache-control", "private, max-age=5")]);
        adapt_refusal(&mut response);
        assert_eq!(lines(&response), ["cache-control: private, max-age=5"]);
    }
}
