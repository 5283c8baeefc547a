//! Asks any server what a browser would ask it, and says what the browser makes of the responses.
//!
//! [`exchange`] sends the requests of a [`Question`] over a [`Transport`]. The browser is the one of
//! [`explain`](crate::explain), so both commands judge alike. [`Report`] is the result of `probe`, and [`audit`] that of
//! `probe --audit`. Nothing here does I/O: the caller provides the transport.

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

/// A way to send requests.
pub(crate) trait Transport {
    /// Sends one request on a new connection. Returns the head of the final response.
    fn send(&mut self, request: &WireRequest) -> Result<WireReply, Trouble>;
}

/// A request for a [`Transport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireRequest {
    pub(crate) url: PageUrl,
    pub(crate) method: Method,
    /// Without `Host`, which the transport adds.
    pub(crate) fields: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(crate) struct WireReply {
    pub(crate) head: Head,
    /// `HTTP/1.1`, or `HTTP/2`.
    pub(crate) version: &'static str,
    /// The address of the server.
    pub(crate) peer: SocketAddr,
}

/// There is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    /// What happened and what to do, as a phrase without a full stop.
    pub(crate) text: String,
}

/// The step of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// The name has no address.
    Name,
    /// No address accepts a connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The response is not HTTP, or the connection ends before it.
    Response,
    /// The time is over.
    Timeout,
}

/// Which requests are sent. Preflights always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Requests with a safe method (RFC 9110 section 9.2.1).
    Safe,
    /// All requests.
    All,
    /// None.
    PreflightOnly,
}

/// The servers that the user has named. No other server is asked.
#[derive(Debug, Clone)]
pub(crate) struct Scope(Vec<NamedServer>);

#[derive(Debug, Clone)]
struct NamedServer {
    host: String,
    /// None: the default ports of both schemes.
    port: Option<u16>,
}

/// Why a request has no response.
#[derive(Debug)]
pub(crate) enum NoReply {
    /// [`Sending`] excludes this request.
    NotSent { method: String },
    /// The server gives no response.
    Trouble { stage: Stage, url: String, trouble: Trouble },
}

/// The requests that a page makes to a server, with their responses.
pub(crate) type Exchanges = Result<PageRun<WireReply>, Interrupted<WireReply, NoReply>>;

/// Sends the requests that a browser sends for a question.
pub(crate) fn exchange(
    question: &Question,
    scope: &Scope,
    sending: Sending,
    transport: &mut dyn Transport,
) -> Exchanges {
    browse(question, &mut Network { scope, sending, transport })
}

/// Servers on the network.
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

    /// [`wire_fields`] adds the field.
    fn reads_fetch_site(&self) -> bool {
        false
    }
}

/// The fields on the wire: the CORS fields, and the fields that every browser adds.
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
    // Fetch, "HTTP-network-or-cache fetch", step 8.5: there is no body.
    if matches!(*method, Method::POST | Method::PUT) {
        add("Content-Length", "0");
    }
    add("Accept", "*/*");
    add("User-Agent", USER_AGENT);
    // Fetch Metadata, section 4: only for URLs that are potentially trustworthy.
    if url.scheme == Scheme::Https || is_loopback_host(split_port(&url.authority).0) {
        add("Sec-Fetch-Site", site);
        add("Sec-Fetch-Mode", "cors");
        add("Sec-Fetch-Dest", "empty");
    }
    all
}

/// The product of the requests.
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
    /// The server of a URL. With a default port, also the other default port of its host, for redirects to https.
    pub(crate) fn of(url: &PageUrl) -> Self {
        let (host, port) = split_port(&url.authority);
        Scope(vec![NamedServer { host: host.to_owned(), port: port.and_then(|port| port.parse().ok()) }])
    }

    /// Adds another server: `HOST`, with the default ports, or `HOST:PORT`. None if the text is neither.
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
    /// The servers of all URLs.
    fn from_iter<I: IntoIterator<Item = &'u PageUrl>>(urls: I) -> Self {
        Scope(urls.into_iter().flat_map(|url| Scope::of(url).0).collect())
    }
}

impl TroubleKind {
    /// The code in the output.
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
