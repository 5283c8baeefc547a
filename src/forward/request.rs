//! Facts out of a request, and what the upstream is told of it.

use std::mem;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request};
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::protocols::http::ServerSession;
use pingora::{ErrorType, OrErr, Result};
use pingora_proxy::Session;

use crate::cors::Scheme;
use crate::decide::{Framing, Request};
use crate::forwarded::{self, TrustedProxies};
use crate::read::Client;
use crate::snapshot::Snapshot;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Who a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteInfo {
    /// Who is connected to us.
    peer: IpAddr,
    /// Who is behind that, as far as it is to be peer_trusted.
    pub(super) client: IpAddr,
    /// Whether the peer is a trusted proxy.
    peer_trusted: bool,
    /// How the client has reached the first of us.
    pub(super) scheme: Scheme,
}

impl RemoteInfo {
    pub(super) fn of(session: &ServerSession, trusted: &TrustedProxies) -> Self {
        let headers = &session.req_header().headers;
        let peer = session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let encrypted = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let own = if encrypted { Scheme::Https } else { Scheme::Http };
        let is_identified = || Client::of(session).is_none_or(|client| client.is_identified());
        if trusted.is_empty() || !trusted.contains(peer) || !is_identified() {
            return RemoteInfo { peer, client: peer, peer_trusted: false, scheme: own };
        }
        let scheme = match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => Scheme::Http,
            _ => own,
        };
        RemoteInfo { peer, client: trusted.client(peer, headers), peer_trusted: true, scheme }
    }
}

pub(super) fn facts<'a>(session: &'a ServerSession, remote: &RemoteInfo, snapshot: &Snapshot) -> Request<'a> {
    let request = session.req_header();
    let (target, authority) = origin_form(request);
    let path = match target.split(|b| *b == b'?').next().unwrap_or_default() {
        [] if authority.is_some() => b"/",
        path => path,
    };
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    Request {
        method: &request.method,
        path,
        target_length: request.raw_path().len(),
        version: request.version,
        scheme: remote.scheme,
        // HTTP/2 has it in the URI, and HTTP/1 in Host; Pingora sees to it that an absolute target says the same. Only
        // HTTP/1.0 may leave Host out. What is no text is no host, but there is one.
        authority: match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => host
                .or(authority.filter(|_| request.version < Version::HTTP_11))
                .map(|bytes| std::str::from_utf8(bytes).unwrap_or("?")),
        },
        headers: &request.headers,
        framing: framing(session),
        connection: Client::of(session).map(|client| client.facts(snapshot)).unwrap_or_default(),
    }
}

/// Host and port as the client wrote them, and the target in origin form, for those who answer with a reference to it.
pub(super) fn authority_and_target(request: &RequestHeader) -> (&[u8], &[u8]) {
    let (target, absolute) = origin_form(request);
    let authority = match request.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers.get(header::HOST).map(HeaderValue::as_bytes).or(absolute),
    };
    (authority.unwrap_or_default(), target)
}

/// Path and query as the client wrote them, and the authority of the absolute form (RFC 9112 section 3.2.2), where the
/// path may be empty and means `/`.
pub(super) fn origin_form(request: &RequestHeader) -> (&[u8], Option<&[u8]>) {
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { authority, path_and_query, .. } => (path_and_query, Some(authority)),
        RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => (request.raw_path(), None),
    }
}

/// Changes header fields in the map that holds them. Pingora's own methods keep a second map in step, of names as they
/// were written; a request comes out of this without it, and its names are in lower case, as they are in HTTP/2 (RFC 9113
/// section 8.2.1).
pub(super) fn change_headers<T>(request: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> Result<T> {
    let of_uri = request.uri.path_and_query().map(|target| target.as_str().as_bytes());
    // The URI keeps no absolute target.
    let target = (of_uri != Some(request.raw_path())).then(|| request.raw_path().to_vec());
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = request::Parts::from(mem::replace(request, empty));
    let done = change(&mut parts.headers);
    *request = parts.into();
    if let Some(target) = target {
        request.set_raw_path(&target)?;
    }
    Ok(done)
}

/// Drops Pingora's second map, which keeps the case of names, from a request. Pingora copies the request for the upstream
/// with as many maps as it has.
pub(super) fn drop_case_map(request: &mut RequestHeader) -> Result<()> {
    change_headers(request, |_| ())
}

/// Whether the two sides could disagree about where the body ends, which smuggling is made of. Content-Length with
/// Transfer-Encoding: Pingora drops the length and goes on, so that only the bytes of the header still show it. More than
/// one length: it takes the first and hands all of them over. Codings other than chunked: it takes off the chunks, and
/// tells the upstream of no other coding.
fn framing(session: &ServerSession) -> Framing {
    let headers = &session.req_header().headers;
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if lengths.next().is_some_and(|length| length.as_bytes().contains(&b',')) || lengths.next().is_some() {
        return Framing::Ambiguous;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Framing::Clear };
    if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Framing::Ambiguous;
    }
    let ServerSession::H1(session) = session else { return Framing::Clear };
    let has_both = session.get_headers_raw_bytes().split(|b| *b == b'\n').any(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"content-length")
    });
    if has_both { Framing::Ambiguous } else { Framing::Clear }
}

/// The target in origin form and without the prefix; None when it can stay as it is.
pub(super) fn target_for_upstream(request: &RequestHeader, prefix: Option<&str>) -> Option<Vec<u8>> {
    let (target, authority) = origin_form(request);
    match prefix.and_then(|prefix| target.strip_prefix(prefix.as_bytes())) {
        // `//host/path` would be a reference to another host to whoever resolves it.
        Some([b'/', rest @ ..]) => {
            let slashes = rest.iter().take_while(|b| **b == b'/').count();
            Some([b"/", &rest[slashes..]].concat())
        }
        Some(rest @ ([] | [b'?', ..])) => Some([b"/", rest].concat()),
        _ => authority.map(|_| match target {
            [b'/', ..] => target.to_vec(),
            query => [b"/", query].concat(),
        }),
    }
}

/// Tells the upstream who the request comes from, and how. What a trusted proxy has said stands, and we add to it; what
/// anybody else claims about their own way here is replaced.
pub(super) fn set_forwarded_headers(session: &Session, headers: &mut HeaderMap, remote: &RemoteInfo) -> Result<()> {
    let host = match headers.get(header::HOST).cloned() {
        Some(host) => host,
        None => {
            let host = implied_host(session)?;
            headers.insert(header::HOST, host.clone());
            host
        }
    };
    let client = Client::of(session.as_downstream());
    let peer = client.map_or_else(|| forwarded::alone(remote.peer), |client| client.forwarded_for().clone());
    let chain = if remote.peer_trusted { forwarded::chain(headers, &peer) } else { peer };
    headers.insert(forwarded::X_FORWARDED_FOR, chain);
    // One look at each name is cheaper than looking up the ones that nearly no request has.
    while !remote.peer_trusted
        && let Some(name) = headers.keys().find(|name| is_untrusted_forwarding_header(name)).cloned()
    {
        headers.remove(&name);
    }
    if let Some(certificate) = client.and_then(|client| client.certificate()) {
        headers.insert(CLIENT_CERT, certificate.clone());
        headers.remove(CLIENT_CERT_CHAIN);
    }
    if !remote.peer_trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        let scheme = match remote.scheme {
            Scheme::Http => HeaderValue::from_static("http"),
            Scheme::Https => HeaderValue::from_static("https"),
        };
        headers.insert(X_FORWARDED_PROTO, scheme);
    }
    if !remote.peer_trusted || !headers.contains_key(X_FORWARDED_HOST) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    Ok(())
}

/// What only a trusted proxy can know, and is not said anew.
fn is_untrusted_forwarding_header(name: &HeaderName) -> bool {
    matches!(name.as_str(), "forwarded" | "x-forwarded-port" | "x-real-ip" | "client-cert" | "client-cert-chain")
}

/// Removes an `Upgrade` field that is not forwarded: only WebSocket is, and only when `Connection` names the field
/// (RFC 9110 section 7.8). Pingora takes any `Upgrade` field of HTTP/1.1 for a request to switch protocols. Such a request
/// gets a connection of its own and the timeouts of a WebSocket, also for the `h2c` that `curl --http2` and Java's
/// HttpClient send with ordinary requests.
pub(super) fn strip_ignored_upgrade(request: &mut RequestHeader) {
    let mut protocols = request.headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else { return };
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket") && protocols.next().is_none();
    let mut named = request.headers.get_all(header::CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    if !is_websocket || !named.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        request.remove_header(&header::UPGRADE);
    }
}

/// HTTP/2 sends cookies in several fields, which mean one (RFC 9113 section 8.2.3); servers of HTTP/1 may read the first
/// alone.
pub(super) fn join_cookies(headers: &mut HeaderMap) -> Result<()> {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return Ok(());
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&all.join(&b"; "[..])).or_err(ErrorType::InternalError, "cookies")?;
    headers.insert(header::COOKIE, joined);
    Ok(())
}

/// The host of a request without Host, which HTTP/1.0 allows and the HTTP/1.1 that we speak to the upstream does not:
/// that of its absolute target, else the address that the client has connected to.
fn implied_host(session: &Session) -> Result<HeaderValue> {
    let request = session.req_header();
    let named = match request.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => origin_form(request).1,
    };
    let address = || session.server_addr().map(ToString::to_string).unwrap_or_default();
    let host = named.map_or_else(|| HeaderValue::try_from(address()), HeaderValue::from_bytes);
    host.or_err(ErrorType::InternalError, "no host for the upstream")
}
