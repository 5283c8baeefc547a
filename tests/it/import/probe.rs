//! Requests of pages. They compare another gateway with the import of its configuration.

use std::net::SocketAddr;

use crate::support::client::fetch;
use crate::support::upstream::{Reply, Upstream};

pub(super) const ORIGIN: &str = "access-control-allow-origin";
pub(super) const METHODS: &str = "access-control-allow-methods";
pub(super) const HEADERS: &str = "access-control-allow-headers";
pub(super) const CREDENTIALS: &str = "access-control-allow-credentials";

/// A request from a page.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) origin: Option<String>,
    /// The requested method and the requested header of a preflight. The header may be empty.
    pub(super) asks_for: Option<(String, String)>,
    /// Other header fields.
    pub(super) fields: Vec<(String, String)>,
    /// The kind of the service's response: `plain` (no CORS headers), `cors` (its own CORS headers) or `error`.
    pub(super) service: &'static str,
}

/// The response to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) page: Page,
    /// True if the response comes from the service and not from the gateway.
    pub(super) is_of_service: bool,
    /// Number of seconds for which a browser caches the answer to an allowed preflight. The default of browsers is 5.
    pub(super) max_age: Option<String>,
}

/// The access of the page to the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Nothing,
    Reads,
    ReadsWithCredentials,
    StarWithCredentials,
}

/// Starts a service. `X-Service` of a probe selects the kind of its response.
pub(super) fn service() -> Upstream {
    Upstream::start(|request| {
        let reply = match request.header("X-Service") {
            Some("error") => Reply::new(500),
            Some("cors") => Reply::new(200)
                .header("Access-Control-Allow-Origin", "*")
                .header("Access-Control-Allow-Methods", "PUT, DELETE"),
            _ => Reply::new(200),
        };
        reply.header("X-Answered-By", "service")
    })
}

impl Probe {
    /// Sends the request to a gateway.
    pub(super) fn send(&self, address: SocketAddr) -> Seen {
        let mut headers = vec![("Host", &*self.host), ("X-Service", self.service)];
        headers.extend(self.fields.iter().map(|(name, value)| (&**name, &**value)));
        headers.extend(self.origin.as_deref().map(|origin| ("Origin", origin)));
        if let Some((method, header)) = &self.asks_for {
            headers.push(("Access-Control-Request-Method", method));
            if !header.is_empty() {
                headers.push(("Access-Control-Request-Headers", header));
            }
        }
        let response = fetch(address, &self.method, &self.path, &headers);
        let names = |name: &str| -> Vec<String> {
            let values = response.all(name);
            let names = values.iter().flat_map(|value| value.split(','));
            names.map(|one| one.trim().to_ascii_lowercase()).collect()
        };
        let with_credentials = response.all(CREDENTIALS) == ["true"];
        let lists = |header: &str, wanted: &str| {
            let listed = names(header);
            listed.contains(&wanted.to_ascii_lowercase()) || (listed.contains(&"*".to_owned()) && !with_credentials)
        };
        let is_allowed = match &self.asks_for {
            None => true,
            Some((method, header)) => {
                (200..300).contains(&response.status)
                    && (["GET", "POST"].contains(&&**method) || lists(METHODS, method))
                    && (header.is_empty() || lists(HEADERS, header))
            }
        };
        let page = match (&response.all(ORIGIN)[..], with_credentials) {
            _ if !is_allowed => Page::Nothing,
            (["*"], true) => Page::StarWithCredentials,
            (["*"], false) => Page::Reads,
            ([origin], _) if Some(*origin) != self.origin.as_deref() => Page::Nothing,
            ([_], true) => Page::ReadsWithCredentials,
            ([_], false) => Page::Reads,
            _ => Page::Nothing,
        };
        Seen {
            status: response.status,
            page,
            is_of_service: response.header("x-answered-by").is_some(),
            max_age: (self.asks_for.is_some() && page != Page::Nothing)
                .then(|| response.header("access-control-max-age").unwrap_or("5").to_owned()),
        }
    }
}

/// Returns requests of all kinds for a host and a path.
pub(super) fn probes(host: &str, path: &str) -> Vec<Probe> {
    let origins = [
        "https://a.example",
        "https://c.example",
        "https://x.c.example",
        "https://a.example.evil.test",
        "https://evilc.example",
        "https://c.example.evil.test",
        "https://evil.test",
        "null",
    ];
    let kinds = [
        ("GET", None),
        ("POST", None),
        ("DELETE", None),
        ("OPTIONS", Some(("GET", ""))),
        ("OPTIONS", Some(("PUT", ""))),
        ("OPTIONS", Some(("PUT", "x-custom"))),
        ("OPTIONS", Some(("DELETE", ""))),
    ];
    let all = origins.iter().flat_map(|origin| kinds.iter().map(move |kind| (origin, kind)));
    all.flat_map(|(origin, (method, asks_for))| {
        ["plain", "cors", "error"].map(|service| Probe {
            method: (*method).to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            origin: Some((*origin).to_owned()),
            fields: Vec::new(),
            asks_for: asks_for.map(|(method, header)| (method.to_owned(), header.to_owned())),
            service,
        })
    })
    .collect()
}
