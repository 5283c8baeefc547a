//! The request header: facts for the decision, and changes for the upstream.
//!
//! This module decides nothing. The caller decides which function to call.

use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request};
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::protocols::http::ServerSession;
use pingora::{ErrorType, OrErr, Result};
use pingora_proxy::Session;

use crate::behavior::clients::ClientAddress;
use crate::behavior::forward_auth::{AskedRequest, AuthService, PassedOn};
use crate::behavior::rate_limit::RateCheck;
use crate::behavior::rewrite::{Rewrite, UpstreamHost};
use crate::behavior::{Behaviors, RequestFacts};
use crate::decide::{ConnectionFacts, Framing, MaxForwards, Request};
use crate::domain::{OwnOrigin, Scheme};
use crate::read::Client;
use crate::record::request_id::RequestId;
use crate::snapshot::{Snapshot, UnderscoresInHeaders};
use crate::trusted_proxies::{
    self, FieldKind, IgnoredField, Peer, TrustedProxies, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// The sender of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteInfo {
    /// The TCP peer, or the source address of the PROXY header. It is [`Client::address`].
    pub(super) peer: IpAddr,
    /// The client. It is the peer, or an address from `X-Forwarded-For` if the peer is trusted.
    pub(super) client: IpAddr,
    /// False if `client` is only a placeholder, because the address is not known.
    client_known: bool,
    /// True if the peer is in `trusted_proxies`. The gateway then uses its forwarding headers.
    peer_trusted: bool,
    /// Scheme of the URL that the client used.
    pub(super) scheme: Scheme,
}

impl RemoteInfo {
    /// Returns the sender of a request. Also returns the origin of the URL that the client used, and an invalid field
    /// of the peer. `authority` is the result of [`authority`].
    pub(super) fn of<'a>(
        session: &'a ServerSession,
        authority: &'a str,
        trusted: &TrustedProxies,
    ) -> (Self, OwnOrigin<'a>, Option<IgnoredField>) {
        let headers = &session.req_header().headers;
        let client = Client::of(session);
        let peer = client.map_or(Peer::Hidden(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), |client| client.peer());
        let encrypted = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let scheme = if encrypted { Scheme::Https } else { Scheme::Http };
        let peer_trusted = !trusted.is_empty() && trusted.trusts(peer);
        let client = if peer_trusted { trusted.client(peer, headers) } else { peer.client() };
        let remote = RemoteInfo {
            peer: peer.address(),
            client: client.unwrap_or(peer.address()),
            client_known: client.is_some(),
            peer_trusted,
            scheme,
        };
        let (own_origin, ignored) = remote.own_origin(authority, headers);
        (RemoteInfo { scheme: own_origin.scheme, ..remote }, own_origin, ignored)
    }

    /// Returns the client for the lists of `clients`.
    pub(super) fn client_address(&self) -> ClientAddress {
        self.known_client().map_or(ClientAddress::Unknown, ClientAddress::Known)
    }

    /// Returns the client's address, if it is known.
    pub(super) fn known_client(&self) -> Option<IpAddr> {
        self.client_known.then_some(self.client)
    }

    fn own_origin<'a>(&self, authority: &'a str, headers: &'a HeaderMap) -> (OwnOrigin<'a>, Option<IgnoredField>) {
        match self.peer_trusted {
            true => trusted_proxies::own_origin(self.scheme, authority, headers),
            false => (OwnOrigin::of(self.scheme, authority), None),
        }
    }

    /// Returns the origin of the URL that the client used. Returns None if no trusted proxy names another host or port
    /// than the request.
    pub(super) fn forwarded<'a>(&self, request: &'a RequestHeader) -> Option<OwnOrigin<'a>> {
        if !self.peer_trusted {
            return None;
        }
        let authority = authority(request).unwrap_or_default();
        let own = self.own_origin(authority, &request.headers).0;
        let received = OwnOrigin::of(own.scheme, authority);
        Some(own).filter(|own| !own.host.is_empty() && *own != received)
    }
}

/// Returns the facts of a request for `Snapshot::decide`.
pub(super) fn request_facts<'a>(
    session: &'a ServerSession,
    authority: Option<&'a str>,
    own_origin: OwnOrigin<'a>,
    client: ClientAddress,
    snapshot: &'a Snapshot,
) -> Request<'a> {
    let request = session.req_header();
    let (target, absolute) = origin_form(request);
    let path: &[u8] = match target.split(|b| *b == b'?').next().unwrap_or_default() {
        // HTTP/2 clients may send another `:scheme`. The target is then not a path of this server.
        _ if request.uri.scheme_str().is_some_and(|scheme| !is_http(scheme.as_bytes())) => b"",
        [] if absolute.is_some() => b"/",
        path => path,
    };
    Request {
        method: &request.method,
        path,
        target_length: request.raw_path().len(),
        version: request.version,
        own_origin,
        authority,
        headers: &request.headers,
        framing: framing(session),
        connection: ConnectionFacts {
            client,
            ..Client::of(session).map(|client| client.connection_facts(snapshot)).unwrap_or_default()
        },
    }
}

/// Returns host and port as received. HTTP/2 has them in the URI, HTTP/1 in Host. Pingora rejects an absolute target
/// with another host than Host. HTTP/1.0 may have them only in an absolute target. If Host is not UTF-8, the result is
/// "?", because None means that Host is missing.
pub(super) fn authority(request: &RequestHeader) -> Option<&str> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.as_str());
    }
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| origin_form(request).1.filter(|_| request.version < Version::HTTP_11));
    host.map(|bytes| std::str::from_utf8(bytes).unwrap_or("?"))
}

/// Returns host and port as received, and the target in origin form.
pub(super) fn authority_and_target(request: &RequestHeader) -> (&[u8], &[u8]) {
    let (target, absolute) = origin_form(request);
    let authority = match request.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers.get(header::HOST).map(HeaderValue::as_bytes).or(absolute),
    };
    (authority.unwrap_or_default(), target)
}

/// Returns path and query as received, and the authority of a target in absolute form (RFC 9112 section 3.2.2). In the
/// absolute form the path may be empty, which means `/`. For a scheme other than http and https, it returns the whole
/// URL, which is not a valid path.
pub(super) fn origin_form(request: &RequestHeader) -> (&[u8], Option<&[u8]>) {
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { scheme, authority, path_and_query } if is_http(scheme) => {
            (path_and_query, Some(authority))
        }
        _ => (request.raw_path(), None),
    }
}

fn is_http(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// Changes header fields directly in the map. The methods of Pingora also update a second map with the case of the
/// names. The request loses that map here, so its names are sent in lower case, as in HTTP/2 (RFC 9113 section 8.2.1).
pub(super) fn change_request<T>(request: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> Result<T> {
    let uri_target = request.uri.path_and_query().map(|target| target.as_str().as_bytes());
    // The conversion keeps the URI. The URI may lack a part of the target, such as the authority of the absolute form.
    let target = (uri_target != Some(request.raw_path())).then(|| request.raw_path().to_vec());
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = request::Parts::from(mem::replace(request, empty));
    let result = change(&mut parts.headers);
    *request = parts.into();
    if let Some(target) = target {
        request.set_raw_path(&target)?;
    }
    Ok(result)
}

/// Removes fields that an upstream may trust, but that this peer may not send. Returns the number of fields that were
/// removed because of the form of their names. Also removes Pingora's map with the case of the names, so that Pingora
/// does not copy it for the upstream.
pub(super) fn remove_untrusted_fields(
    request: &mut RequestHeader,
    remote: &RemoteInfo,
    underscores: UnderscoresInHeaders,
) -> Result<usize> {
    change_request(request, |headers| {
        let kept = |kind| match kind {
            FieldKind::Ordinary => true,
            FieldKind::Forwarding => remote.peer_trusted,
            FieldKind::ForwardingLookalike => false,
            FieldKind::Underscore => underscores == UnderscoresInHeaders::Keep,
        };
        // One pass over the names is faster than a lookup of each field, because nearly all of these fields are
        // missing.
        let is_kept = |name: &HeaderName| kept(FieldKind::of(name.as_str()));
        let mut dropped = 0;
        if headers.keys().all(is_kept) {
            return dropped;
        }
        let removed: Vec<_> = headers.keys().filter(|name| !is_kept(name)).cloned().collect();
        for name in removed {
            if FieldKind::of(name.as_str()) != FieldKind::Forwarding {
                dropped += headers.get_all(&name).iter().count();
            }
            headers.remove(&name);
        }
        dropped
    })
}

/// Returns whether gateway and upstream could find different ends of the body, which makes request smuggling possible.
/// `read::check` checks the bytes of an HTTP/1 header for this. The frames of HTTP/2 are clear, but an HTTP/1 upstream
/// gets `Content-Length`. Pingora accepts several equal lengths and forwards all of them.
fn framing(session: &ServerSession) -> Framing {
    let headers = &session.req_header().headers;
    if let (ServerSession::H1(session), Some(client)) = (session, Client::of(session)) {
        return client.framing().unwrap_or_else(|| {
            let has_body =
                [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| headers.contains_key(name));
            if has_body { client.read_framing(&session.get_headers_raw_bytes()) } else { Framing::Clear }
        });
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match lengths.next().is_some_and(|length| length.as_bytes().contains(&b',')) || lengths.next().is_some() {
        true => Framing::Ambiguous,
        false => Framing::Clear,
    }
}

/// Returns the target in origin form with the path for the upstream. Returns None if the target does not change.
pub(super) fn target_for_upstream(request: &RequestHeader, rewrite: Option<&Rewrite>) -> Option<Vec<u8>> {
    let (target, authority) = origin_form(request);
    if rewrite.is_none() && authority.is_none() {
        return None;
    }
    let (path, query) = target.split_at(target.iter().position(|b| *b == b'?').unwrap_or(target.len()));
    let path = if path.is_empty() { b"/" } else { path };
    match rewrite.and_then(|rewrite| rewrite.path(path)) {
        Some(path) => Some([&path, query].concat()),
        None => authority.map(|_| [path, query].concat()),
    }
}

/// Sets `Host` and `X-Forwarded-Prefix` by the behaviors of the route. It is called after [`set_forwarded_headers`],
/// which reads the client's `Host`.
pub(super) fn set_behavior_fields(
    session: &Session,
    headers: &mut HeaderMap,
    behaviors: &Behaviors,
    node: impl FnOnce() -> Option<HeaderValue>,
    facts: &Facts<'_>,
) {
    let host = match &behaviors.upstream_host {
        None => None,
        Some(UpstreamHost::Node) => node(),
        Some(UpstreamHost::Name(name)) => Some(name.for_message()),
    };
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    let target = origin_form(session.req_header()).0;
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    if let Some(prefix) = behaviors.rewrite.as_ref().and_then(|rewrite| rewrite.prefix_of(path)) {
        // The prefixes that trusted proxies have removed come first. Prefixes from other peers are already deleted.
        let outer = headers.get_all(X_FORWARDED_PREFIX).iter().flat_map(|field| field.as_bytes().split(|b| *b == b','));
        let outer = outer.map(<[u8]>::trim_ascii).map(|prefix| prefix.strip_suffix(b"/").unwrap_or(prefix));
        let all: Vec<&[u8]> = outer.chain([prefix.as_bytes()]).collect();
        if let Ok(prefix) = HeaderValue::from_bytes(&all.concat()) {
            headers.insert(X_FORWARDED_PREFIX, prefix);
        }
    }
    if let Some(edits) = &behaviors.request_headers {
        edits.apply(headers, facts);
    }
}

/// The facts of a request that header values may contain.
pub(super) struct Facts<'a> {
    pub(super) request: &'a RequestHeader,
    pub(super) remote: &'a RemoteInfo,
    pub(super) id: &'a RequestId,
    pub(super) route: Option<&'a str>,
    pub(super) rate: Option<RateCheck>,
    pub(super) passed_on: Option<&'a PassedOn>,
}

impl RequestFacts for Facts<'_> {
    fn client_ip(&self) -> Option<IpAddr> {
        self.remote.known_client()
    }

    fn own_origin(&self) -> OwnOrigin<'_> {
        self.remote.own_origin(authority(self.request).unwrap_or_default(), &self.request.headers).0
    }

    fn route(&self) -> &str {
        self.route.unwrap_or_default()
    }

    fn request_id(&self) -> HeaderValue {
        self.id.value()
    }

    fn rate_check(&self) -> Option<RateCheck> {
        self.rate
    }

    fn passed_on(&self) -> Option<&PassedOn> {
        self.passed_on
    }
}

/// Decrements `Max-Forwards`. An invalid value is not forwarded.
pub(super) fn count_max_forwards(method: &Method, headers: &mut HeaderMap) {
    match MaxForwards::of(method, headers) {
        MaxForwards::Unlimited | MaxForwards::Zero => {}
        MaxForwards::Invalid => {
            headers.remove(header::MAX_FORWARDS);
        }
        MaxForwards::Next(value) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(value));
        }
    }
}

/// Sets the forwarding headers for the upstream: `X-Forwarded-*`, `Host` if it is missing, and `Client-Cert`. The
/// values of a trusted proxy are kept or extended. The values of other peers are already deleted, because a client can
/// send any value.
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
    let chain = forwarded_for(client, headers, remote);
    headers.insert(trusted_proxies::X_FORWARDED_FOR, chain);
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
        let forwarded = remote.forwarded(session.req_header()).map(|own| own.authority().to_string());
        let host = forwarded.and_then(|host| HeaderValue::try_from(host).ok()).unwrap_or(host);
        headers.insert(X_FORWARDED_HOST, host);
    }
    Ok(())
}

/// Returns `X-Forwarded-For` for the upstream: the received chain if a trusted proxy sent it, and the peer.
fn forwarded_for(client: Option<&Arc<Client>>, headers: &HeaderMap, remote: &RemoteInfo) -> HeaderValue {
    let peer =
        client.map_or_else(|| trusted_proxies::peer_address(remote.peer), |client| client.forwarded_for().clone());
    if remote.peer_trusted { trusted_proxies::append_peer(headers, &peer) } else { peer }
}

/// Returns the fields of the request to the service of `forward_auth`, without `Host`.
pub(super) fn auth_fields(auth: &AuthService, session: &Session, facts: &Facts<'_>) -> Result<HeaderMap> {
    let request = session.req_header();
    let own_origin = facts.own_origin();
    let host = HeaderValue::try_from(own_origin.authority().to_string());
    let target = match origin_form(request).0 {
        path @ ([b'/', ..] | b"*") => path.to_vec(),
        query => [b"/", query].concat(),
    };
    let client = Client::of(session.as_downstream());
    let asked = AskedRequest {
        method: &request.method,
        scheme: own_origin.scheme,
        host: host.or_err(ErrorType::InternalError, "host of a request")?,
        target: &target,
        client: facts.client_ip(),
        forwarded_for: forwarded_for(client, &request.headers, facts.remote),
        request_id: facts.request_id(),
    };
    let mut fields = auth.request(&request.headers, asked).or_err(ErrorType::InternalError, "fields of a request")?;
    join_cookies(&mut fields)?;
    if let Some(certificate) = client.and_then(|client| client.certificate()) {
        fields.insert(CLIENT_CERT, certificate.clone());
    }
    Ok(fields)
}

/// Removes an `Upgrade` field that is not forwarded. Only `Upgrade: websocket` is forwarded, and only if `Connection`
/// names the field (RFC 9110 section 7.8). Pingora handles any `Upgrade` field of HTTP/1.1 as a request to switch
/// protocols. Such a request gets its own connection and the timeouts of a WebSocket. `curl --http2` and Java's
/// HttpClient send `h2c` with ordinary requests.
pub(super) fn strip_ignored_upgrade(request: &mut RequestHeader) {
    let mut protocols = request.headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else { return };
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket") && protocols.next().is_none();
    let mut named = request.headers.get_all(header::CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    if !is_websocket || !named.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        request.remove_header(&header::UPGRADE);
    }
}

/// Returns whether a request without a body has `Content-Length: 0` (RFC 9110 section 8.6). Some servers answer 411
/// without this field.
pub(super) fn has_length_without_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Joins the `Cookie` fields of an HTTP/2 request into one field (RFC 9113 section 8.2.3). HTTP/1 servers may read only
/// the first field.
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

/// Returns the host of an HTTP/1.0 request without Host: the host of its absolute target, or the address to which the
/// client connected. The gateway uses HTTP/1.1 for the upstream, and HTTP/1.1 requires Host.
fn implied_host(session: &Session) -> Result<HeaderValue> {
    let request = session.req_header();
    let authority = match request.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => origin_form(request).1,
    };
    let address = || session.server_addr().map(ToString::to_string).unwrap_or_default();
    let host = authority.map_or_else(|| HeaderValue::try_from(address()), HeaderValue::from_bytes);
    host.or_err(ErrorType::InternalError, "no host for the upstream")
}
