//! The HTTP client of `probe`: sends one request on a new connection, and reads the head of the response.
//!
//! The server can be hostile. Each request has a deadline, and the head of a response has a size limit. Bodies are not
//! read. The client uses HTTP/2 if the server selects it by ALPN. It ignores the proxy settings of the environment.

mod limited;
mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::limited::Limited;
pub(crate) use self::tls::Trust;
use crate::domain::{Scheme, is_loopback_host, split_port};
use crate::explain::{Head, PageUrl};
use crate::probe::{Transport, Trouble, TroubleKind, WireReply, WireRequest};

/// Maximum size of a response head in bytes. Chromium has the same limit.
const LARGEST_HEAD: usize = 256 << 10;

/// Maximum number of header fields in a response over HTTP/1.1.
const MOST_FIELDS: usize = 1000;

/// Maximum number of addresses that are tried for one name.
const MOST_ADDRESSES: usize = 4;

/// Sends requests over TCP and TLS. It opens a new connection for each request.
pub(crate) struct HttpClient {
    runtime: Runtime,
    /// Deadline of one request, from the lookup of the name to the head of the response.
    timeout: Duration,
    /// Addresses that replace a DNS lookup.
    resolve: Vec<ResolvedName>,
    server: Option<PageUrl>,
    tls: Arc<rustls::ClientConfig>,
    /// Time between two requests.
    pause: Duration,
    is_first: bool,
}

/// The address of a server, from `--resolve HOST:PORT:ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedName {
    host: String,
    port: u16,
    address: IpAddr,
}

/// Settings of an [`HttpClient`].
#[derive(Debug)]
pub(crate) struct HttpClientSettings {
    pub(crate) timeout: Duration,
    pub(crate) pause: Duration,
    pub(crate) resolve: Vec<ResolvedName>,
    /// The server that receives the requests for every URL; its scheme selects TLS. None connects to the server of the
    /// URL.
    pub(crate) server: Option<PageUrl>,
    pub(crate) trust: Trust,
}

impl HttpClient {
    /// # Errors
    ///
    /// The certificates cannot be used, or the system gives no resources.
    pub(crate) fn new(settings: HttpClientSettings) -> Result<Self, String> {
        let HttpClientSettings { timeout, pause, resolve, server, trust } = settings;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start the client: {error}"))?;
        Ok(HttpClient { runtime, timeout, resolve, server, tls: tls::config(trust)?, pause, is_first: true })
    }

    async fn exchange(&self, request: &WireRequest) -> Result<WireReply, Trouble> {
        let server = self.server.as_ref().unwrap_or(&request.url);
        let (stream, peer) = self.connect(server).await?;
        match server.scheme {
            Scheme::Http => send_http1(stream, request, peer).await,
            Scheme::Https => {
                let host = split_port(&request.url.authority).0;
                let (stream, is_http2) = tls::handshake(&self.tls, host, stream).await?;
                match is_http2 {
                    true => send_http2(stream, request, peer).await,
                    false => send_http1(stream, request, peer).await,
                }
            }
        }
    }

    async fn connect(&self, server: &PageUrl) -> Result<(TcpStream, SocketAddr), Trouble> {
        let addresses = self.addresses(split_port(&server.authority).0, server.port()).await?;
        let mut faults = Vec::new();
        // Each address gets a part of the time, so an address that does not respond cannot use all of it.
        let each = self.timeout / u32::try_from(addresses.len() + 1).unwrap_or(2);
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Without TCP_NODELAY the request is only slower, so an error is ignored.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, address));
                }
                Ok(Err(error)) => faults.push(format!("{address}: {error}")),
                Err(_) => faults.push(format!("{address}: no answer in {each:.1?}")),
            }
        }
        let text = format!("no connection: {}; check host, port and firewall", faults.join(", "));
        Err(Trouble { kind: TroubleKind::Connect, text })
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
        let given = self.resolve.iter().find(|name| name.host.eq_ignore_ascii_case(host) && name.port == port);
        if let Some(given) = given {
            return Ok(vec![SocketAddr::new(given.address, port)]);
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // Browsers also resolve these names without DNS.
        if is_loopback_host(host) {
            let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(both.map(|address| SocketAddr::new(address, port)).into());
        }
        let failed = |error: &dyn std::fmt::Display| Trouble {
            kind: TroubleKind::Name,
            text: format!(
                "the name {host} has no address: {error}; check the URL, or use `--resolve {host}:{port}:ADDRESS`"
            ),
        };
        let found: Vec<_> = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.take(MOST_ADDRESSES).collect(),
            Err(error) => return Err(failed(&error)),
        };
        if found.is_empty() { Err(failed(&"the DNS response is empty")) } else { Ok(found) }
    }
}

impl Transport for HttpClient {
    fn send(&mut self, request: &WireRequest) -> Result<WireReply, Trouble> {
        if !std::mem::take(&mut self.is_first) && !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        let limit = self.timeout;
        let result = self.runtime.block_on(async { timeout(limit, self.exchange(request)).await });
        result.unwrap_or_else(|_| {
            let text = format!("the response was not complete after {limit:?}; `--timeout SECONDS` waits longer");
            Err(Trouble { kind: TroubleKind::Timeout, text })
        })
    }
}

/// A connection to a server, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

async fn send_http1(stream: impl Stream, request: &WireRequest, peer: SocketAddr) -> Result<WireReply, Trouble> {
    let message = message(request, request.url.path_and_query.clone(), true)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .handshake(TokioIo::new(Limited::new(stream)))
        .await
        .map_err(|error| trouble(&error))?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(message).await;
    connection.abort();
    reply(response, peer)
}

async fn send_http2(stream: impl Stream, request: &WireRequest, peer: SocketAddr) -> Result<WireReply, Trouble> {
    let message = message(request, request.url.to_string(), false)?;
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(u32::try_from(LARGEST_HEAD).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(Limited::new(stream)))
        .await
        .map_err(|error| trouble(&error))?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(message).await;
    connection.abort();
    reply(response, peer)
}

fn message(request: &WireRequest, target: String, has_host: bool) -> Result<Request<Empty<Bytes>>, Trouble> {
    let failed = |what: &dyn std::fmt::Display| Trouble {
        kind: TroubleKind::Response,
        text: format!("the request to {} cannot be sent: {what}", request.url),
    };
    let target = Uri::try_from(target).map_err(|error| failed(&error))?;
    let mut message = Request::builder().method(request.method.clone()).uri(target);
    if has_host {
        message = message.header(http::header::HOST, &request.url.authority);
    }
    for (name, value) in &request.fields {
        message = message.header(name, value);
    }
    message.body(Empty::new()).map_err(|error| failed(&error))
}

fn reply(response: hyper::Result<Response<Incoming>>, peer: SocketAddr) -> Result<WireReply, Trouble> {
    let (head, _) = response.map_err(|error| trouble(&error))?.into_parts();
    let version = if head.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
    Ok(WireReply { head: Head { status: head.status, headers: head.headers }, version, peer })
}

fn trouble(error: &hyper::Error) -> Trouble {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let text = if error.is_parse() {
        format!(
            "the response is not valid HTTP, or its head has more than {} KiB or {MOST_FIELDS} fields ({error}{cause}); \
             check that the port serves this scheme",
            LARGEST_HEAD >> 10
        )
    } else if error.is_incomplete_message() {
        "the server closed the connection before the end of the response's head; check that the port serves this scheme"
            .to_owned()
    } else {
        format!("the exchange failed: {error}{cause}")
    };
    Trouble { kind: TroubleKind::Response, text }
}

// === impl ResolvedName ===

impl std::str::FromStr for ResolvedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (host, rest) = match text.strip_prefix('[') {
                Some(inner) => inner.split_once(']').map(|(host, rest)| (format!("[{host}]"), rest))?,
                None => text.find(':').map(|colon| (text[..colon].to_owned(), &text[colon..]))?,
            };
            let (port, address) = rest.strip_prefix(':')?.split_once(':')?;
            let address = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
            Some(ResolvedName { host, port: port.parse().ok()?, address }).filter(|name| !name.host.is_empty())
        };
        parse().ok_or_else(|| "write HOST:PORT:ADDRESS, such as `api.example:443:127.0.0.1`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_resolved_as_in_curl() {
        for (text, expected) in [
            ("api.example:443:127.0.0.1", Some(("api.example", 443, "127.0.0.1"))),
            ("api.example:80:[::1]", Some(("api.example", 80, "::1"))),
            ("api.example:80:::1", Some(("api.example", 80, "::1"))),
            ("[::2]:80:::1", Some(("[::2]", 80, "::1"))),
            ("api.example:443", None),
            ("api.example:443:other.example", None),
            ("api.example:99999:127.0.0.1", None),
            (":443:127.0.0.1", None),
        ] {
            let expected = expected.map(|(host, port, address)| ResolvedName {
                host: host.to_owned(),
                port,
                address: address.parse().unwrap(),
            });
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
