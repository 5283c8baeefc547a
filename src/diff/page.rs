//! Runs a page's request through both snapshots, with the code that serves requests.

use std::fmt::Write as _;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use crate::decide::{Action, ConnectionFacts, Framing, Request};
use crate::domain::{OwnOrigin, Scheme};
use crate::explain::fetch::{Credentials, Fetch};
use crate::explain::{Exchange, Head};
use crate::snapshot::Snapshot;
use crate::terminal::shell_word;

/// A cross-origin request of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) host: String,
    pub(super) path: String,
    pub(super) method: String,
    pub(super) origin: String,
    /// Names of headers that the page sets. Their values need a preflight.
    pub(super) headers: Vec<String>,
    pub(super) credentials: Credentials,
    pub(super) needs: Need,
    pub(super) upstream: Upstreams,
}

/// The condition under which a request counts as allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// The page can read the response of the route.
    Response,
    /// The page can read the response, even if it is the gateway's own error.
    Error,
    /// The page can read this header of the response.
    Header(String),
    /// The page can read the details of `PerformanceResourceTiming`.
    Timing,
    /// A page can load the response without CORS. `same_site` is true for a page of the same site, and false for a page
    /// of another site.
    Load { same_site: bool },
    /// The answer to the preflight permits the private network.
    PrivateNetwork,
    /// The gateway forwards the request. It does not matter whether the page can read the response.
    Arrival,
    /// Like `Arrival`, but for a WebSocket.
    WebSocket,
}

/// The CORS headers of the upstream's responses. They are not in the configuration, so the comparison assumes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstreams {
    /// The upstream sends no CORS headers.
    Silent,
    /// The upstream sends CORS headers that allow every request.
    Permissive,
    /// The upstream sends `Cross-Origin-Resource-Policy: same-origin`.
    Restrictive,
}

/// The results of a request in the old and in the new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) old: Answer,
    pub(super) new: Answer,
}

/// The result of a page's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// True if the condition of [`Need`] is met.
    pub(super) is_allowed: bool,
    /// Status of the last response. If the preflight fails, this is the status of the answer to the preflight.
    pub(super) status: StatusCode,
    /// Code of the last decision. Logs have the same code.
    pub(super) reason: &'static str,
}

/// A header value that always needs a preflight.
const NOT_SAFELISTED: &str = "\"";

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

impl PageRequest {
    /// Runs the request through both snapshots.
    pub(super) fn run(&self, old: &Snapshot, new: &Snapshot) -> Answers {
        Answers { old: self.answer(old), new: self.answer(new) }
    }

    fn answer(&self, snapshot: &Snapshot) -> Answer {
        let headers = self.fields();
        let fetch = self.fetch(&headers);
        if self.has_preflight() {
            let exchange = self.exchange(snapshot, &Method::OPTIONS, &self.preflight_fields(&fetch));
            let (response, reason) = (&exchange.response, exchange.verdict.outcome.code());
            let is_allowed = fetch.check_preflight(response.status, &response.headers).is_ok()
                && (self.needs != Need::PrivateNetwork || response.headers.contains_key(ALLOW_PRIVATE_NETWORK));
            if !is_allowed || self.needs == Need::PrivateNetwork {
                return Answer { is_allowed, status: response.status, reason };
            }
        }
        let method = Method::from_bytes(self.method.as_bytes()).unwrap_or_default();
        let mut fields = self.origin_field();
        if self.needs == Need::WebSocket {
            fields.extend([(header::CONNECTION, "Upgrade".to_owned()), (header::UPGRADE, "websocket".to_owned())]);
        }
        let exchange = self.exchange(snapshot, &method, &fields);
        let (response, reason) = (&exchange.response, exchange.verdict.outcome.code());
        let arrives = !matches!(exchange.verdict.action, Action::Refuse(_));
        let readable = || fetch.check(&response.headers).is_ok();
        let is_allowed = match &self.needs {
            Need::Response => arrives && readable(),
            Need::Error => readable(),
            Need::Header(name) => readable() && fetch.can_read(&response.headers, name),
            Need::Timing => {
                let value = response.headers.get(TIMING_ALLOW_ORIGIN);
                value.is_some_and(|value| value == "*" || value.as_bytes() == self.origin.as_bytes())
            }
            Need::Load { same_site } => {
                let value = response.headers.get(RESOURCE_POLICY).and_then(|value| value.to_str().ok());
                let blocks = |word| match word {
                    "same-origin" => true,
                    "same-site" => !same_site,
                    _ => false,
                };
                arrives && !value.is_some_and(blocks)
            }
            Need::PrivateNetwork => false,
            Need::Arrival | Need::WebSocket => arrives,
        };
        Answer { is_allowed, status: response.status, reason }
    }

    fn exchange<'s>(&self, snapshot: &'s Snapshot, method: &Method, fields: &[(HeaderName, String)]) -> Exchange<'s> {
        let field = |(name, value): &(HeaderName, String)| Some((name.clone(), HeaderValue::from_str(value).ok()?));
        let headers: HeaderMap = fields.iter().filter_map(field).collect();
        let request = Request {
            method,
            path: self.path.as_bytes(),
            target_length: self.path.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(Scheme::Https, &self.host),
            authority: Some(&self.host),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        };
        Exchange::of(snapshot, &request, &self.path, || self.response_of_upstream())
    }

    fn response_of_upstream(&self) -> Head {
        let mut head = Head::new(StatusCode::OK);
        if self.upstream == Upstreams::Restrictive {
            head.append(RESOURCE_POLICY.as_str(), HeaderValue::from_static("same-origin"));
        }
        if self.upstream == Upstreams::Permissive {
            let names = match &self.needs {
                Need::Header(name) => name.clone(),
                _ => self.headers.join(","),
            };
            for (name, value) in [
                ("access-control-allow-origin", &self.origin),
                ("access-control-allow-credentials", &"true".to_owned()),
                ("access-control-allow-methods", &self.method),
                ("access-control-allow-headers", &self.headers.join(",")),
                ("access-control-expose-headers", &names),
                ("timing-allow-origin", &self.origin),
            ] {
                if let Ok(value) = HeaderValue::from_str(value) {
                    head.append(name, value);
                }
            }
        }
        head
    }

    fn fields(&self) -> Vec<(String, String)> {
        self.headers.iter().map(|name| (name.clone(), NOT_SAFELISTED.to_owned())).collect()
    }

    fn fetch<'a>(&'a self, headers: &'a [(String, String)]) -> Fetch<'a> {
        Fetch { origin: &self.origin, method: &self.method, headers, credentials: self.credentials }
    }

    /// Returns the `Origin` field of the request. A GET request without CORS has none.
    fn origin_field(&self) -> Vec<(HeaderName, String)> {
        match self.needs {
            Need::Load { .. } => Vec::new(),
            _ => vec![(header::ORIGIN, self.origin.clone())],
        }
    }

    /// Returns true if the browser sends a preflight.
    fn has_preflight(&self) -> bool {
        let headers = self.fields();
        let fetch = self.fetch(&headers);
        match self.needs {
            Need::PrivateNetwork => true,
            // Forms and WebSockets can send such a request without a preflight.
            Need::Arrival | Need::WebSocket | Need::Timing => false,
            // Requests without CORS never have a preflight.
            Need::Load { .. } => false,
            Need::Response | Need::Error | Need::Header(_) => {
                fetch.is_method_unsafe() || !fetch.unsafe_headers().is_empty()
            }
        }
    }

    fn preflight_fields(&self, fetch: &Fetch<'_>) -> Vec<(HeaderName, String)> {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap_or(header::ORIGIN);
        let mut fields: Vec<(HeaderName, String)> =
            fetch.preflight_headers().into_iter().map(|(field, value)| (name(field), value)).collect();
        if self.needs == Need::PrivateNetwork {
            fields.push((REQUEST_PRIVATE_NETWORK, "true".to_owned()));
        }
        fields
    }

    /// Returns the URL of the request, always with `https` and without a port. The configuration does not contain the
    /// scheme and the port that clients use.
    pub(super) fn url(&self) -> String {
        format!("https://{}{}", self.host, self.path)
    }

    /// Returns a curl command that sends the request, or its preflight.
    pub(super) fn curl(&self) -> String {
        let mut command = "curl -i".to_owned();
        if self.has_preflight() {
            command.push_str(" -X OPTIONS");
            for (name, value) in self.preflight_fields(&self.fetch(&self.fields())) {
                let _ = write!(command, " -H {}", shell_word(&format!("{}: {value}", spelled(&name))));
            }
        } else {
            match self.method.as_str() {
                "GET" => {}
                "HEAD" => command.push_str(" -I"),
                method => {
                    let _ = write!(command, " -X {}", shell_word(method));
                }
            }
            for (name, value) in self.origin_field() {
                let _ = write!(command, " -H {}", shell_word(&format!("{}: {value}", spelled(&name))));
            }
            if self.needs == Need::WebSocket {
                command.push_str(" -H 'Connection: Upgrade' -H 'Upgrade: websocket'");
            }
            if self.credentials == Credentials::Include {
                command.push_str(" -b session=1");
            }
        }
        command + " " + &shell_word(&self.url())
    }
}

/// Returns the name in its usual spelling, such as `Access-Control-Request-Method`.
fn spelled(name: &HeaderName) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}
