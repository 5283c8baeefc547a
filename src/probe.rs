//! Sends the requests of a browser to any server, and reports how the browser handles the responses.
//!
//! [`exchange`] sends the requests of a [`Question`] over a [`Transport`]. The simulated browser is the one of
//! [`explain`](crate::explain), so both commands have the same results. [`Report`] is the result of `probe`, and
//! [`audit`] has the result of `probe --audit`. This module does no I/O: the caller provides the transport.

pub(crate) mod audit;
mod remedy;
mod render;
mod report;

use std::fmt;
use std::net::SocketAddr;

use http::Method;

pub(crate) use self::render::{json, text};
pub(crate) use self::report::{ProbeVerdict, Report};
use crate::domain::{Scheme, is_loopback_host, split_port};
use crate::explain::fetch::Stage;
use crate::explain::{
    Head, Interrupted, PageRun, PageServer, PageUrl, Question, Reply, ResponseKind, SentRequest, browse,
};

/// Sends requests to servers.
pub(crate) trait Transport {
    /// Sends one request on a new connection. Returns the head of the final response.
    fn send(&mut self, request: &WireRequest) -> Result<WireReply, Trouble>;
}

/// A request for a [`Transport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireRequest {
    pub(crate) url: PageUrl,
    pub(crate) method: Method,
    /// Header fields without `Host`, which the transport adds.
    pub(crate) fields: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(crate) struct WireReply {
    pub(crate) head: Head,
    /// Protocol version of the response: `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: &'static str,
    /// Address and port of the server.
    pub(crate) peer: SocketAddr,
}

/// The failure of a request that has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    /// The fault and the remedy, as a phrase without a full stop.
    pub(crate) text: String,
}

/// The step of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// The lookup of the name finds no address.
    Name,
    /// No address accepts a connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The response is not valid HTTP, or the connection closes before the end of its head.
    Response,
    /// The response is not complete before the deadline.
    Timeout,
}

/// Selects the requests that are sent. Preflights are always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Requests with a safe method (RFC 9110 section 9.2.1).
    Safe,
    /// All requests.
    All,
    /// No requests, only preflights.
    PreflightOnly,
}

/// The servers that the command line names. `probe` sends requests to no other server.
#[derive(Debug, Clone)]
pub(crate) struct Scope(Vec<NamedServer>);

#[derive(Debug, Clone)]
struct NamedServer {
    host: String,
    /// None allows the default ports of http and https.
    port: Option<u16>,
}

/// The reason why a request has no response.
#[derive(Debug)]
pub(crate) enum NoReply {
    /// [`Sending`] excludes the request.
    NotSent { method: String },
    /// The request failed.
    Trouble { stage: Stage, url: String, trouble: Trouble },
}

/// The requests that a page makes to a server, with their responses.
pub(crate) type Exchanges = Result<PageRun<WireReply>, Interrupted<WireReply, NoReply>>;

/// Sends the requests that a browser sends for a question. The result has all exchanges until the first failure.
pub(crate) fn exchange(
    question: &Question,
    scope: &Scope,
    sending: Sending,
    transport: &mut dyn Transport,
) -> Exchanges {
    browse(question, &mut Network { scope, sending, transport })
}

/// Forwards the requests of the simulated browser to a transport.
struct Network<'a> {
    scope: &'a Scope,
    sending: Sending,
    transport: &'a mut dyn Transport,
}

impl PageServer for Network<'_> {
    type Reply = WireReply;
    type Error = NoReply;

    fn exchange(&mut self, sent: &SentRequest<'_>) -> Result<WireReply, NoReply> {
        let is_sent = match (sent.stage, self.sending) {
            (Stage::Preflight, _) | (Stage::Request, Sending::All) => true,
            (Stage::Request, Sending::Safe) => sent.method.is_safe(),
            (Stage::Request, Sending::PreflightOnly) => false,
        };
        if !is_sent {
            return Err(NoReply::NotSent { method: sent.method.to_string() });
        }
        let url = sent.url.to_string();
        let request = WireRequest {
            url: sent.url.clone(),
            method: sent.method.clone(),
            fields: wire_fields(sent.method, sent.url, sent.fields, sent.site),
        };
        self.transport.send(&request).map_err(|trouble| NoReply::Trouble { stage: sent.stage, url, trouble })
    }

    fn serves(&self, _: &PageUrl, to: &PageUrl) -> bool {
        self.scope.has(to)
    }

    /// Returns false, because [`wire_fields`] adds `Sec-Fetch-Site`.
    fn reads_fetch_site(&self) -> bool {
        false
    }
}

/// Returns the header fields of a request: the CORS fields, and the fields that every browser adds.
fn wire_fields(
    method: &Method,
    url: &PageUrl,
    fields: &[(String, String)],
    site: &'static str,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = fields.iter().filter(|(name, _)| name != "Host").cloned().collect();
    let mut add = |name: &str, value: &str| {
        if !fields.iter().any(|(present, _)| present.eq_ignore_ascii_case(name)) {
            all.push((name.to_owned(), value.to_owned()));
        }
    };
    // Fetch, "HTTP-network-or-cache fetch", step 8.5: the request has no body.
    if matches!(*method, Method::POST | Method::PUT) {
        add("Content-Length", "0");
    }
    add("Accept", "*/*");
    add("User-Agent", USER_AGENT);
    // Fetch Metadata, section 4: browsers send these fields only to potentially trustworthy URLs.
    if url.scheme == Scheme::Https || is_loopback_host(split_port(&url.authority).0) {
        add("Sec-Fetch-Site", site);
        add("Sec-Fetch-Mode", "cors");
        add("Sec-Fetch-Dest", "empty");
    }
    all
}

/// Value of `User-Agent`.
const USER_AGENT: &str = concat!("corsgate-probe/", env!("CARGO_PKG_VERSION"));

// === impl WireReply, Scope ===

impl Reply for WireReply {
    fn head(&self) -> &Head {
        &self.head
    }

    fn kind(&self) -> ResponseKind {
        ResponseKind::Ordinary
    }
}

impl Scope {
    /// Returns the scope with the server of a URL. If the URL has a default port, the scope also includes the other
    /// default port of the host, so that redirects from http to https are followed.
    pub(crate) fn of(url: &PageUrl) -> Self {
        let (host, port) = split_port(&url.authority);
        Scope(vec![NamedServer { host: host.to_owned(), port: port.and_then(|port| port.parse().ok()) }])
    }

    /// Adds another server: `HOST`, with the default ports, or `HOST:PORT`. Returns None if the text has another form.
    #[must_use]
    pub(crate) fn and(mut self, server: &str) -> Option<Self> {
        let (host, port) = split_port(server);
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok()?),
        };
        if host.is_empty() || host.contains(['/', '*', '@']) {
            return None;
        }
        self.0.push(NamedServer { host: host.to_owned(), port });
        Some(self)
    }

    fn has(&self, url: &PageUrl) -> bool {
        let (host, port) = split_port(&url.authority);
        self.0.iter().any(|named| {
            named.host.eq_ignore_ascii_case(host)
                && match named.port {
                    Some(port) => url.port() == port,
                    None => port.is_none(),
                }
        })
    }
}

impl<'u> FromIterator<&'u PageUrl> for Scope {
    /// Returns the scope with the servers of all URLs.
    fn from_iter<I: IntoIterator<Item = &'u PageUrl>>(urls: I) -> Self {
        Scope(urls.into_iter().flat_map(|url| Scope::of(url).0).collect())
    }
}

impl TroubleKind {
    /// Returns the code of the failure in the output.
    pub(crate) fn code(self) -> &'static str {
        match self {
            TroubleKind::Name => "name_not_resolved",
            TroubleKind::Connect => "connect_failed",
            TroubleKind::Tls => "tls_failed",
            TroubleKind::Response => "bad_response",
            TroubleKind::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
