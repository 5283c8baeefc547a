//! A witness: a request that shows a finding, with the answers before and after the import.
//!
//! The answer after the import is computed. The snapshot of the imported file decides the request.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use crate::decide::{Action, ConnectionFacts, Framing, Refusal, Request, RouteRef, Verdict};
use crate::domain::{OwnOrigin, Scheme};
use crate::snapshot::Snapshot;

/// A request, and the answer of the source engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) origin: Option<String>,
    /// Further header fields.
    pub(super) fields: Vec<(String, String)>,
    /// For a preflight: the requested method and the requested headers.
    pub(super) asks_for: Option<(String, Vec<String>)>,
    pub(super) before: Answer,
    /// For [`Answer::Routed`]: the name of the route that takes the request in the source, with its service.
    pub(super) route: Option<String>,
}

/// The answer that a page gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The page may read the response only if the request has no credentials.
    Readable,
    /// The page may read the response, with or without credentials.
    WithCredentials,
    /// `*` with `Access-Control-Allow-Credentials: true`.
    StarWithCredentials,
    /// No page of this origin may read the response, even if the service sends CORS headers.
    Unreadable,
    /// The request goes to the service, and the CORS headers of the service decide.
    ServiceDecides,
    /// 404 or 405, without CORS headers.
    NotRouted,
    /// The request goes to a service.
    Routed,
    /// The request goes to a service by another route.
    OtherRoute,
    /// nginx redirects the path without its last slash to the path with the slash.
    RedirectsToSlash,
    /// `Access-Control-Max-Age` of an allowed preflight.
    MaxAge(i64),
}

impl Answer {
    const fn text(self) -> &'static str {
        match self {
            Answer::Readable => "the page may read the response, without credentials",
            Answer::WithCredentials => "the page may read the response, with credentials",
            Answer::StarWithCredentials => {
                "`*` with credentials: the page may read the response only without credentials"
            }
            Answer::Unreadable => "the page may not read the response",
            Answer::ServiceDecides => "goes to the service, whose own CORS headers decide",
            Answer::NotRouted => "no route: 404 or 405",
            Answer::Routed => "goes to the service",
            Answer::OtherRoute => "goes to another route",
            Answer::RedirectsToSlash => "301, a redirect to the path with the slash",
            Answer::MaxAge(_) => "Access-Control-Max-Age:",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Answer::MaxAge(seconds) => write!(f, " {seconds}"),
            _ => Ok(()),
        }
    }
}

/// The `Access-Control-Allow-Origin` of an imaginary service that allows every origin. If the gateway refuses an
/// origin, it removes this header.
const OF_SERVICE: &str = "*";

// === impl Witness ===

impl Witness {
    /// A request from a page.
    pub(super) fn request(method: &str, origin: &str, before: Answer) -> Self {
        Witness {
            method: method.to_owned(),
            host: String::new(),
            path: String::new(),
            origin: Some(origin.to_owned()),
            fields: Vec::new(),
            asks_for: None,
            before,
            route: None,
        }
    }

    /// A preflight.
    pub(super) fn preflight(asks_for: &str, origin: &str, before: Answer) -> Self {
        Witness { asks_for: Some((asks_for.to_owned(), Vec::new())), ..Self::request("OPTIONS", origin, before) }
    }

    /// A request for a path, to show which route takes it.
    pub(super) fn route(path: &str, before: Answer) -> Self {
        Witness { origin: None, path: path.to_owned(), ..Self::request("GET", "", before) }
    }

    /// Returns the same request for another host and path.
    pub(super) fn to(self, host: &str, path: &str) -> Self {
        Witness { host: host.to_owned(), path: path.to_owned(), ..self }
    }

    /// Returns the request as one line.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} {}{}", self.method, self.host, self.path);
        let mut field = |name: &str, value: &str| line.extend([", ", name, ": ", value]);
        self.fields.iter().for_each(|(name, value)| field(name, value));
        if let Some(origin) = &self.origin {
            field("Origin", origin);
        }
        if let Some((method, headers)) = &self.asks_for {
            field("Access-Control-Request-Method", method);
            if !headers.is_empty() {
                field("Access-Control-Request-Headers", &headers.join(","));
            }
        }
        line
    }

    /// Returns the request as a curl command.
    pub(super) fn curl(&self) -> String {
        let mut command = format!("curl -i -X {} -H 'Host: {}'", self.method, self.host);
        let mut field = |name: &str, value: &str| command.extend([" -H '", name, ": ", value, "'"]);
        self.fields.iter().for_each(|(name, value)| field(name, value));
        if let Some(origin) = &self.origin {
            field("Origin", origin);
        }
        if let Some((method, headers)) = &self.asks_for {
            field("Access-Control-Request-Method", method);
            if !headers.is_empty() {
                field("Access-Control-Request-Headers", &headers.join(","));
            }
        }
        format!("{command} http://GATEWAY{}", self.path)
    }

    /// Returns corsgate's answer to the request. Returns `None` if the method or a header value is invalid.
    pub(super) fn answer(&self, snapshot: &Snapshot) -> Option<Answer> {
        let headers = self.headers()?;
        let method = Method::from_bytes(self.method.as_bytes()).ok()?;
        let verdict = snapshot.decide(&Request {
            method: &method,
            path: self.path.as_bytes(),
            target_length: self.path.len(),
            version: Version::HTTP_11,
            own_origin: OwnOrigin::of(Scheme::Http, &self.host),
            authority: Some(&self.host),
            headers: &headers,
            framing: Framing::Clear,
            connection: ConnectionFacts::default(),
        });
        Some(self.seen(&verdict))
    }

    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut insert = |name: HeaderName, value: &str| Some(headers.insert(name, HeaderValue::from_str(value).ok()?));
        for (name, value) in &self.fields {
            insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value)?;
        }
        insert(header::HOST, &self.host)?;
        if let Some(origin) = &self.origin {
            insert(header::ORIGIN, origin)?;
        }
        if let Some((method, names)) = &self.asks_for {
            insert(header::ACCESS_CONTROL_REQUEST_METHOD, method)?;
            if !names.is_empty() {
                insert(header::ACCESS_CONTROL_REQUEST_HEADERS, &names.join(","))?;
            }
        }
        Some(headers)
    }

    fn seen(&self, verdict: &Verdict<'_>) -> Answer {
        let has_policy = match &verdict.action {
            Action::Refuse(Refusal::UnknownHost | Refusal::UnknownPath | Refusal::MethodNotAllowed(_)) => {
                return Answer::NotRouted;
            }
            _ if self.origin.is_none() => {
                let is_other =
                    |taken: &RouteRef<'_>| self.route.as_ref().is_some_and(|route| *taken.route.name != **route);
                return match verdict.route.as_ref().filter(|taken| self.before == Answer::Routed && is_other(taken)) {
                    Some(_) => Answer::OtherRoute,
                    None => Answer::Routed,
                };
            }
            Action::Forward(route) => route.route.policy.is_some(),
            _ => true,
        };
        if !has_policy {
            return Answer::ServiceDecides;
        }
        let mut response = HeaderMap::new();
        if let Action::Forward(_) = verdict.action {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(OF_SERVICE));
        }
        verdict.edits.apply(&mut response);
        let is_allowed = response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) && !verdict.is_refused();
        let max_age = response.get(header::ACCESS_CONTROL_MAX_AGE).and_then(|age| age.to_str().ok()?.parse().ok());
        match (self.before, max_age) {
            (Answer::MaxAge(_), Some(seconds)) if is_allowed => Answer::MaxAge(seconds),
            _ if !is_allowed => Answer::Unreadable,
            _ if response.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) => Answer::WithCredentials,
            _ => Answer::Readable,
        }
    }
}
