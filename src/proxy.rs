//! Pingora's hooks: facts out of the session, the verdict onto the wire.
//!
//! There is no CORS and no routing here. A request is judged once, in `request_filter`; what follows from that is
//! kept in [`Ctx`], and every response, the upstream's or one of ours, gets its headers through `Ctx::edit`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, OkOrErr, OrErr, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::cors::{Edits, Headers, Reason, Scheme};
use crate::live::{Generation, Live};
use crate::request_id::RequestIds;
use crate::snapshot::{Action, Framing, Refusal, Request, Route};

/// The gateway, as Pingora sees it.
pub struct Gateway {
    live: Arc<Live>,
    running: Arc<Running>,
    request_ids: RequestIds,
}

/// How many requests are under way: what a graceful stop waits for.
#[derive(Debug, Default)]
pub struct Running(AtomicUsize);

/// What is remembered of a request between hooks.
pub struct Ctx {
    /// What was decided. None before `request_filter`, and then no response gets any CORS header.
    judged: Option<Judged>,
    /// Addresses that could not be connected to.
    tried: Vec<SocketAddr>,
    /// Bytes of the request body so far, in this attempt.
    body: u64,
    running: Arc<Running>,
}

struct Judged {
    generation: Arc<Generation>,
    /// The route, for requests that are forwarded.
    route: Option<u32>,
    edits: Edits,
}

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

// === impl Gateway ===

impl Gateway {
    /// Serves what `live` says at the time of each request.
    pub fn new(live: Arc<Live>) -> Self {
        Gateway { live, running: Arc::default(), request_ids: RequestIds::new() }
    }

    /// The count of requests under way.
    pub fn running(&self) -> Arc<Running> {
        self.running.clone()
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.running.0.fetch_add(1, Ordering::Relaxed);
        Ctx { judged: None, tried: Vec::new(), body: 0, running: self.running.clone() }
    }

    /// Pingora would add a compression module that is switched off, and costs allocations all the same.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let generation = self.live.current();
        let downstream = session.as_downstream_mut();
        // Pingora would keep an idle connection for ever. A connection that is to be closed must stay so.
        if downstream.get_keepalive().is_some() {
            let keepalive = generation.snapshot.limits().keepalive.as_secs().max(1);
            downstream.set_keepalive(Some(keepalive));
        }
        let verdict = generation.snapshot.judge(&facts(session.as_downstream()));
        let (route, action) = match verdict.action {
            Action::Forward(found) => (Some(found.index), None),
            Action::Answer(status) => (None, Some((status, "", None))),
            Action::Refuse(refusal) => {
                let allow = match refusal {
                    Refusal::MethodNotAllowed(allow) => Some(allow.clone()),
                    _ => None,
                };
                (None, Some((refusal.status(), refusal.explanation(), allow)))
            }
        };
        if log::log_enabled!(log::Level::Debug) {
            let reason = verdict.reason.map_or("-", Reason::code);
            let outcome = match verdict.action {
                Action::Forward(found) => format!("route={}", found.route.name),
                Action::Answer(status) => format!("preflight={}", status.as_u16()),
                Action::Refuse(refusal) => {
                    format!("refused={} because=\"{}\"", refusal.status().as_u16(), refusal.explanation().trim_end())
                }
            };
            log::debug!("judged reason={reason} {outcome} {}", self.request_summary(session, ctx));
        }
        ctx.judged = Some(Judged { route, edits: verdict.edits, generation });
        let Some((status, text, allow)) = action else { return Ok(false) };
        let mut response = own_response(status, text)?;
        if let Some(allow) = allow {
            response.insert_header("Allow", allow)?;
        }
        ctx.edit(&mut response);
        session.write_response_header(Box::new(response), text.is_empty()).await?;
        if !text.is_empty() {
            session.write_response_body(Some(Bytes::from_static(text.as_bytes())), true).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (route, generation) = ctx.forwarded().or_err(ErrorType::InternalError, "no route was chosen")?;
        let upstream = generation.upstream(route.upstream);
        let address = upstream.pick(&ctx.tried).ok_or_else(|| {
            let mut error = Error::explain(ErrorType::HTTPStatus(503), "no address is known for the upstream");
            error.esource = ErrorSource::Upstream;
            error
        })?;
        let spec = upstream.spec();
        let mut peer = Box::new(HttpPeer::new(address, false, String::new()));
        peer.options.connection_timeout = Some(spec.connect_timeout);
        peer.options.total_connection_timeout = Some(spec.connect_timeout);
        peer.options.read_timeout = Some(spec.read_timeout);
        peer.options.write_timeout = Some(spec.write_timeout);
        peer.options.idle_timeout = Some(spec.idle_timeout);
        Ok(peer)
    }

    fn fail_to_connect(&self, _session: &mut Session, peer: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        if let Some((route, generation)) = ctx.forwarded() {
            let upstream = generation.upstream(route.upstream).spec();
            // Nothing was sent yet, so that any method may be tried again.
            e.set_retry(ctx.tried.len() < upstream.retries);
            log::warn!("connect failed upstream={} address={} error={:?}", upstream.name, peer._address, e.etype());
        }
        if let Some(address) = peer._address.as_inet() {
            ctx.tried.push(*address);
        }
        e
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Runs for each attempt, and a second one is given the whole body again.
        ctx.body = 0;
        let prefix = ctx.forwarded().and_then(|(route, _)| route.strip_prefix.as_deref());
        if let Some(target) = target_for_upstream(request, prefix) {
            request.set_raw_path(&target)?;
        }
        // What a client claims about its own way here is not believed; that of a trusted proxy will be, once there
        // are trusted proxies.
        match session.client_addr().and_then(|address| address.as_inet()) {
            Some(address) => request.insert_header("X-Forwarded-For", ip_value(address.ip()))?,
            None => drop(request.remove_header("X-Forwarded-For")),
        }
        request.insert_header("X-Forwarded-Proto", HeaderValue::from_static("http"))?;
        let host = match request.headers.get(header::HOST).cloned() {
            Some(host) => host,
            None => {
                let host = implied_host(session)?;
                request.insert_header("Host", host.clone())?;
                host
            }
        };
        request.insert_header("X-Forwarded-Host", host)?;
        request.remove_header(&header::FORWARDED);
        request.remove_header(&X_FORWARDED_PORT);
        let mut ids = request.headers.get_all(X_REQUEST_ID).iter();
        if !ids.next().is_some_and(RequestIds::is_usable) || ids.next().is_some() {
            request.insert_header("X-Request-Id", self.request_ids.next())?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.body += body.as_ref().map_or(0, |chunk| chunk.len() as u64);
        let limit = ctx.judged.as_ref().and_then(|judged| judged.generation.snapshot.limits().body);
        match limit {
            Some(limit) if ctx.body > limit => {
                let mut error = Error::explain(ErrorType::HTTPStatus(413), "request body longer than limits.body");
                error.esource = ErrorSource::Downstream;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.as_downstream().is_upgrade_req() {
            let mut error = Error::explain(ErrorType::HTTPStatus(502), "the upstream switches protocols unasked");
            error.esource = ErrorSource::Upstream;
            return Err(error);
        }
        // 100 and 103 are not the response; 101 is the last one of its connection that has headers.
        let interim = response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS;
        if interim && let Some(judged) = &ctx.judged {
            judged.edits.strip(&mut PingoraHeaders(response));
        }
        if !interim {
            remove_hop_by_hop(response);
            // The version is about one connection, not about both (RFC 9110 section 2.5).
            if response.version < Version::HTTP_11 {
                response.set_version(Version::HTTP_11);
            }
            // HTTP/1.0 does not know chunks (RFC 9112 section 6.1): there the body ends with the connection.
            if session.req_header().version < Version::HTTP_11
                && response.headers.contains_key(header::TRANSFER_ENCODING)
            {
                response.remove_header("transfer-encoding");
                session.set_keepalive(None);
            }
            ctx.edit(response);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let status = status_of(e);
        let failed = FailToProxy { error_code: status.map_or(0, |s| s.as_u16()), can_reuse_downstream: false };
        let Some(status) = status else { return failed };
        let upstream =
            ctx.forwarded().map(|(route, generation)| (&route.name, &generation.upstream(route.upstream).spec().name));
        if let Some((route, upstream)) = upstream.filter(|_| status.is_server_error()) {
            let status = status.as_u16();
            log::warn!("request failed status={status} route={route} upstream={upstream} error={:?}", e.etype());
        }
        let text = error_text(status);
        let written = match own_response(status, text) {
            Ok(mut response) => {
                ctx.edit(&mut response);
                let body = Bytes::from_static(text.as_bytes());
                session.as_downstream_mut().write_error_response(response, body).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            log::debug!("could not send the error response status={status} error={error}");
        }
        failed
    }

    /// Pingora's own line holds what the client sent, and a client can make any number of them; ours does not.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

// === impl Ctx, Running ===

impl Ctx {
    /// The route of a request that is forwarded, with its configuration.
    fn forwarded(&self) -> Option<(&Route, &Generation)> {
        let judged = self.judged.as_ref()?;
        let route = judged.route?;
        Some((judged.generation.snapshot.route(route), &judged.generation))
    }

    /// Gives a response what was decided for the request. Every response comes through here.
    fn edit(&self, response: &mut ResponseHeader) {
        if let Some(judged) = &self.judged {
            judged.edits.apply(&mut PingoraHeaders(response));
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        self.running.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Requests under way now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pingora keeps the case of names in a second map, which only its own methods keep in step.
struct PingoraHeaders<'a>(&'a mut ResponseHeader);

impl Headers for PingoraHeaders<'_> {
    fn map(&self) -> &HeaderMap {
        &self.0.headers
    }
    fn insert(&mut self, name: &'static str, value: HeaderValue) {
        // Fails only for an invalid name, and these are constants.
        let _ = self.0.insert_header(name, value);
    }
    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }
}

// --- requests

fn facts(session: &ServerSession) -> Request<'_> {
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
        scheme: Scheme::Http,
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
    }
}

/// Path and query as the client wrote them, and the authority of the absolute form (RFC 9112 section 3.2.2), where the
/// path may be empty and means `/`.
fn origin_form(request: &RequestHeader) -> (&[u8], Option<&[u8]>) {
    match raw_target_authority(request.raw_path()) {
        RawTargetAuthority::Absolute { authority, path_and_query, .. } => (path_and_query, Some(authority)),
        RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => (request.raw_path(), None),
    }
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
fn target_for_upstream(request: &RequestHeader, prefix: Option<&str>) -> Option<Vec<u8>> {
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

fn ip_value(ip: IpAddr) -> HeaderValue {
    // Listening on `[::]` makes IPv4 clients look like `::ffff:10.0.0.1`, which nobody's allow list has.
    HeaderValue::try_from(ip.to_canonical().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

// --- responses

/// A response of the gateway's own, complete but for the request's edits.
fn own_response(status: StatusCode, text: &str) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(status, Some(12))?;
    if !text.is_empty() {
        response.insert_header("Content-Type", HeaderValue::from_static("text/plain; charset=utf-8"))?;
        response.insert_header("Cache-Control", HeaderValue::from_static("no-store"))?;
    }
    // A 204 must not have a length (RFC 9110 section 8.6); any other status without one would end the connection.
    if status != StatusCode::NO_CONTENT {
        response.insert_header("Content-Length", HeaderValue::from(text.len()))?;
    }
    Ok(response)
}

/// What the client is told. None when there is nobody to tell.
fn status_of(e: &Error) -> Option<StatusCode> {
    use ErrorType::*;
    let status = match (e.etype(), e.esource()) {
        (HTTPStatus(code), _) => StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        (_, ErrorSource::Upstream) => StatusCode::BAD_GATEWAY,
        (WriteError | ReadError | ConnectionClosed, ErrorSource::Downstream) => return None,
        (ReadTimedout, ErrorSource::Downstream) => StatusCode::REQUEST_TIMEOUT,
        (_, ErrorSource::Downstream) => StatusCode::BAD_REQUEST,
        (_, ErrorSource::Internal | ErrorSource::Unset) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Some(status)
}

fn error_text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_GATEWAY => "The upstream could not be reached or broke off.\n",
        StatusCode::SERVICE_UNAVAILABLE => "No node of the upstream is available.\n",
        StatusCode::GATEWAY_TIMEOUT => "The upstream took too long.\n",
        StatusCode::REQUEST_TIMEOUT => "The request took too long to arrive.\n",
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge.explanation(),
        status if status.is_client_error() => "The request could not be understood.\n",
        _ => "The gateway failed.\n",
    }
}

/// Fields about the connection to the upstream, and those that it names as such (RFC 9110 section 7.6.1). `Connection`
/// and `Transfer-Encoding` are Pingora's, which writes its own; an upgrade needs both of its fields.
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    static HOP_BY_HOP: [HeaderName; 6] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
    // Most responses have none of them, and one look at the names is cheaper than looking each of them up.
    if response.headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in HOP_BY_HOP.iter().filter(|name| !upgraded || **name != header::UPGRADE) {
            response.remove_header(name);
        }
    }
    let names_nothing = |value: &HeaderValue| {
        [&b"keep-alive"[..], b"close"].iter().any(|plain| value.as_bytes().eq_ignore_ascii_case(plain))
    };
    if !response.headers.get_all(header::CONNECTION).iter().all(names_nothing) {
        let named: Vec<HeaderName> = (response.headers.get_all(header::CONNECTION).iter())
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_framing(name))
            .collect();
        for name in named {
            response.remove_header(&name);
        }
    }
}

/// Fields that `Connection` cannot take away: a response without them would be another one.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::CONNECTION].contains(name)
}
