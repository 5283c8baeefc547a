//! Pingora's hooks: they take the facts of a request from the session, and put the verdict into effect.
//!
//! Nothing about CORS or routing is decided here. `request_filter` asks for the verdict, once for each request, and
//! keeps it in [`Ctx`]. Every response header, from the upstream or from the gateway, gets its CORS header fields in
//! `Ctx::edit`.
//!
//! Order of the calls: `request_filter`; for each attempt `upstream_peer`, `connected_to_upstream` and
//! `upstream_request_filter`; the filters of request body and response; at last `logging`. After `fail_to_connect` or
//! `error_while_proxy` Pingora starts the next attempt, or calls `fail_to_proxy`.

mod attempts;
mod early_response;
mod ignored_fields;
mod request;
mod request_config;
mod request_record;
mod response;
mod timeouts;
mod timing;
mod websocket;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OkOrErr, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::attempts::Attempts;
use self::ignored_fields::IgnoredFieldLog;
use self::request::{
    RemoteInfo, authority, change_headers, count_max_forwards, has_length_without_body, join_cookies, origin_form,
    remove_untrusted_fields, request_facts, set_forwarded_headers, strip_ignored_upgrade, target_for_upstream,
};
use self::request_config::RequestConfig;
use self::response::{
    end_with_header, is_bodyless, is_interim, local_reply_header, local_reply_to_error, normalize_framing,
    reject_response, remove_hop_by_hop,
};
use self::timeouts::RequestBody;
use self::timing::RequestTiming;
use crate::cors::{Edits, Headers, Reason};
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::decide::{Action, Verdict};
use crate::live::Live;
use crate::logging::quoted;
use crate::read::Client;
use crate::read::watchdog::{self, Expired};
use crate::record::request_id::{self, RequestId, RequestIds};
use crate::record::{MethodClass, Recorder};
use crate::upstream::RunningUpstream;
use crate::upstream::failure::describe;

/// The proxy application.
pub(crate) struct Gateway {
    live: Arc<Live>,
    recorder: Arc<Recorder>,
    request_ids: RequestIds,
    ignored_fields: IgnoredFieldLog,
}

/// The state of a request between hooks.
pub(crate) struct Ctx {
    /// None before `request_filter`: a response gets no CORS header fields then, because no policy is known.
    request: Option<DecidedRequest>,
    attempts: Attempts,
    body: RequestBody,
    /// Interim responses so far.
    interim_responses: u8,
    timing: RequestTiming,
    recorder: Arc<Recorder>,
}

/// What `request_filter` found out about a request.
struct DecidedRequest {
    /// The configuration that was live then. Later hooks use it too, whatever is live by then.
    config: RequestConfig,
    edits: Edits,
    remote: RemoteInfo,
    id: RequestId,
}

/// Interim responses (100, 103) that an upstream may send before a response. More fail the request, because a malicious
/// upstream could send them without end.
const MAX_INTERIM_RESPONSES: u8 = 32;

// === impl Gateway ===

impl Gateway {
    /// Each request uses the configuration that is current in `live` at its first hook.
    pub(crate) fn new(live: Arc<Live>, recorder: Arc<Recorder>) -> Self {
        Gateway { live, recorder, request_ids: RequestIds::new(), ignored_fields: IgnoredFieldLog::default() }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.recorder.running.begin();
        Ctx {
            request: None,
            attempts: Attempts::default(),
            body: RequestBody::default(),
            interim_responses: 0,
            timing: RequestTiming::default(),
            recorder: self.recorder.clone(),
        }
    }

    /// Adds no module. Pingora's default adds a disabled compression module, which allocates for each request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let generation = self.live.current();
        timeouts::on_request_header(session.as_downstream_mut(), generation.snapshot.limits());
        strip_ignored_upgrade(session.req_header_mut());
        if session.req_header().version < Version::HTTP_11 {
            // HTTP/1.0 clients must not get interim responses (RFC 9110 section 15.2).
            session.set_ignore_info_resp(true);
        }
        let authority = authority(session.req_header());
        let (remote, own_origin, ignored) = RemoteInfo::of(
            session.as_downstream(),
            authority.unwrap_or_default(),
            generation.snapshot.trusted_proxies(),
        );
        if let Some(field) = ignored {
            self.ignored_fields.log(remote.peer, field, Instant::now());
        }
        let facts = request_facts(session.as_downstream(), authority, own_origin, &generation.snapshot);
        let mut verdict = generation.snapshot.decide(&facts);
        let id = self.request_ids.of(&session.req_header().headers);
        verdict.edits.set_debug_request_id(|| id.value());
        if self.recorder.is_recording(&generation.snapshot) {
            ctx.timing.start(&verdict, MethodClass::of(&session.req_header().method));
        }
        let reply = LocalReply::for_action(verdict.action, &session.req_header().headers, || {
            (own_origin.host, origin_form(session.req_header()).0)
        });
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("decided {} {}", described(&verdict), self.request_summary(session, ctx));
        }
        let forwarded = matches!(verdict.action, Action::Forward(_));
        let route = verdict.route.map(|found| found.index);
        let underscores = generation.snapshot.underscores_in_headers();
        let edits = verdict.edits;
        let config = RequestConfig::Complete { generation, route, forwarded };
        ctx.request = Some(DecidedRequest { config, edits, remote, id });
        let Some(reply) = reply else {
            let dropped = remove_untrusted_fields(session.req_header_mut(), &remote, underscores)?;
            if dropped > 0
                && let Some(client) = Client::of(session.as_downstream())
            {
                client.counts().dropped_fields.add(dropped as u64);
            }
            if let Some((config, upstream)) = ctx.forwarded() {
                timeouts::on_forward(session.as_downstream_mut(), config.limits(), &upstream.settings().timeouts);
            }
            return Ok(false);
        };
        let mut response = local_reply_header(&reply)?;
        ctx.edit(&mut response);
        let bodyless = is_bodyless(&reply, session);
        if bodyless && end_with_header(session.as_downstream_mut(), &response)? {
            return Ok(true);
        }
        session.write_response_header(Box::new(response), bodyless).await?;
        if !bodyless {
            session.write_response_body(Some(Bytes::from_static(reply.text.as_bytes())), true).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (attempts, upstream, client) =
            ctx.attempt_parts().or_err(ErrorType::InternalError, "no route was chosen")?;
        let peer = attempts.peer(upstream, session.as_downstream(), client)?;
        ctx.timing.on_attempt();
        watchdog::set_deadline(ctx.attempts.deadline(session.as_downstream()).map(Into::into));
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Ctx,
    ) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        if self.recorder.counts() {
            ctx.attempts.on_connected(reused);
        }
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _peer: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        if let Some((attempts, upstream, client)) = ctx.attempt_parts() {
            attempts.on_connect_error(upstream, session.as_downstream(), client, &mut e);
        }
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        // Pingora panics if the error leaves open whether to retry. `Attempts::on_error` decides.
        e.retry.decide_reuse(false);
        if let Some((attempts, upstream, client)) = ctx.attempt_parts() {
            let session = session.as_downstream_mut();
            attempts.on_error(upstream, session, client, &mut e, client_reused);
        }
        e
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // Called for each attempt. A retry sends the whole body again.
        ctx.body.restart();
        // For an HTTP/2 node, Pingora does not call `request_body_filter` if there is no body.
        if session.as_downstream_mut().is_body_empty() {
            timeouts::on_complete_request(session.as_downstream());
        }
        if let Some((attempts, upstream, _)) = ctx.attempt_parts() {
            attempts.check_version(upstream, session.as_downstream(), upstream_request.version)?;
        }
        let route = ctx.request.as_ref().and_then(|request| request.config.forwarded_route());
        let prefix = route.and_then(|route| route.strip_prefix.as_deref());
        if let Some(target) = target_for_upstream(upstream_request, prefix) {
            upstream_request.set_raw_path(&target)?;
        }
        let Some(request) = &ctx.request else { return Ok(()) };
        let needs_length = upstream_request.version != Version::HTTP_2
            && session.as_downstream_mut().is_body_empty()
            && has_length_without_body(&upstream_request.method);
        change_headers(upstream_request, |headers| {
            if needs_length && !headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            if session.is_http2() {
                join_cookies(headers)?;
            }
            // A client that names the field in `Connection` makes Pingora remove its own id.
            if matches!(request.id, RequestId::Own(..)) || !headers.contains_key(request_id::NAME) {
                headers.insert(request_id::NAME, request.id.value());
            }
            count_max_forwards(&session.req_header().method, headers);
            set_forwarded_headers(session, headers, &request.remote)
        })?
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // HTTP/2 clients may end a body with an empty frame. Pingora 0.9.1 would write it as a last chunk, in front of
        // the real last chunk: an HTTP/1 upstream would see two requests.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(request) = &ctx.request else { return Ok(()) };
        let limits = request.config.limits();
        // The data of a WebSocket is no request body.
        if !session.was_upgraded() {
            if let Some(body) = body {
                ctx.body.add(body.len(), limits)?;
            }
            if end_of_stream {
                timeouts::on_complete_request(session.as_downstream());
            }
        }
        if end_of_stream {
            timeouts::on_response(session.as_downstream(), limits);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some((attempts, upstream, _)) = ctx.attempt_parts()
            && attempts.on_response_header(upstream, response.status)
        {
            ctx.timing.on_response_header();
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if let Some(body) = body
            && let Some((attempts, upstream, _)) = ctx.attempt_parts()
        {
            attempts.on_response_body(upstream, body);
        }
        Ok(None)
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.as_downstream().is_upgrade_req() {
            return reject_response("the upstream switches protocols without an Upgrade request");
        }
        let interim = is_interim(response.status);
        if interim && let Some(request) = &ctx.request {
            request.edits.strip(&mut PingoraHeaders(response));
            // An interim response has no body (RFC 9110 section 8.6, RFC 9112 section 6.1).
            response.remove_header(&header::CONTENT_LENGTH);
            response.remove_header(&header::TRANSFER_ENCODING);
            ctx.interim_responses += 1;
            if ctx.interim_responses > MAX_INTERIM_RESPONSES {
                return reject_response("the upstream sends more than 32 interim responses");
            }
        }
        if !interim {
            remove_hop_by_hop(response);
            normalize_framing(response)?;
            // The version is that of the sender on this connection (RFC 9110 section 2.5), not the upstream's.
            if response.version < Version::HTTP_11 {
                response.set_version(Version::HTTP_11);
            }
            // HTTP/1.0 clients do not support chunks (RFC 9112 section 6.1): the end of the connection ends the body.
            if session.req_header().version < Version::HTTP_11
                && response.headers.contains_key(header::TRANSFER_ENCODING)
            {
                response.remove_header("transfer-encoding");
                session.set_keepalive(None);
            }
            if let Some((config, upstream)) = ctx.forwarded() {
                if response.status == StatusCode::SWITCHING_PROTOCOLS {
                    timeouts::on_websocket(session.as_downstream_mut(), &upstream.settings().timeouts);
                } else {
                    timeouts::on_response(session.as_downstream(), config.limits());
                    // An upgrade that the upstream refused has no deadline any more, unless `timeouts.total` is set.
                    watchdog::set_deadline(ctx.attempts.deadline(session.as_downstream()).map(Into::into));
                }
            }
            ctx.edit(response);
            if let Some(request) = &mut ctx.request {
                request.config.reduce();
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let expired = expired_timeout(session.as_downstream());
        let kind = match expired {
            Some(Expired::Deadline) => Some(ReplyKind::UpstreamTimeout),
            Some(Expired::Idle) => None,
            None if body_is_invalid(session.as_downstream()) => Some(ReplyKind::MalformedRequest),
            None => local_reply_to_error(e),
        };
        let error_code = kind.map_or(0, |kind| kind.status().as_u16());
        let failed = FailToProxy { error_code, can_reuse_downstream: false };
        let Some(kind) = kind else { return failed };
        let status = kind.status();
        if let Some((config, upstream)) = ctx.forwarded().filter(|_| status.is_server_error()) {
            let why = match expired {
                Some(_) => "timeouts.total".to_owned(),
                None => describe(e, upstream),
            };
            let route = config.route_name().unwrap_or("-");
            let (why, upstream, status) = (quoted(why), &upstream.settings().name, status.as_u16());
            if session.response_written().is_some_and(|response| !is_interim(response.status)) {
                log::warn!("response cut route={route} upstream={upstream} error={why}");
            } else {
                log::warn!("request failed status={status} route={route} upstream={upstream} error={why}");
            }
        }
        let reply = LocalReply::to(&session.req_header().headers, kind);
        let written = match local_reply_header(&reply) {
            Ok(mut response) => {
                ctx.edit(&mut response);
                let bodyless = is_bodyless(&reply, session);
                let body = Bytes::from_static(if bodyless { b"" } else { reply.text.as_bytes() });
                let session = session.as_downstream_mut();
                match if bodyless { end_with_header(session, &response) } else { Ok(false) } {
                    Ok(false) => session.write_error_response(response, body).await,
                    ended => ended.map(drop),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            log::debug!("error response not sent status={status} error={}", quoted(error));
        }
        failed
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Ctx)
    where
        Self::CTX: Send + Sync,
    {
        ctx.record_session(session, e);
        let http2 = ctx.forwarded().is_some_and(|(_, upstream)| upstream.settings().http2);
        // Without an error the response is complete.
        if http2 && e.is_none() {
            early_response::finish_connection(session).await;
        }
    }

    /// Pingora's log line contains data from the client, and a client can cause any number of lines. The access log is
    /// bounded in both.
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

// === impl Ctx ===

impl Ctx {
    /// The configuration and the upstream of a forwarded request.
    fn forwarded(&self) -> Option<(&RequestConfig, &RunningUpstream)> {
        let config = &self.request.as_ref()?.config;
        Some((config, config.upstream()?))
    }

    /// What the methods of [`Attempts`] need for a forwarded request: the attempts, the upstream, the client's address.
    fn attempt_parts(&mut self) -> Option<(&mut Attempts, &RunningUpstream, IpAddr)> {
        let request = self.request.as_ref()?;
        Some((&mut self.attempts, request.config.upstream()?, request.remote.client))
    }

    /// Applies the CORS edits of the verdict. Called for every response header except interim ones.
    fn edit(&self, response: &mut ResponseHeader) {
        if let Some(request) = &self.request {
            request.edits.apply(&mut PingoraHeaders(response));
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // The `logging` hook is not called if the watchdog dropped the request.
        self.record_dropped();
        self.recorder.running.end();
    }
}

/// A verdict in the debug log.
fn described(verdict: &Verdict<'_>) -> String {
    let reason = verdict.outcome.reason().map_or("-", Reason::code);
    let action = match verdict.action {
        Action::Forward(found) => format!("route={}", found.route.name),
        Action::AnswerPreflight(status) => format!("preflight={}", status.as_u16()),
        Action::AnswerOptions(_) => "options=204".to_owned(),
        Action::Redirect(port) => format!("redirect={port}"),
        Action::Refuse(refusal) => {
            format!("refused={} text={}", refusal.status().as_u16(), quoted(refusal.explanation().trim_end()))
        }
    };
    format!("reason={reason} {action}")
}

/// The timeout because of which the watchdog ended the request. To Pingora this looks like a read error of the client.
fn expired_timeout(session: &ServerSession) -> Option<Expired> {
    Client::of(session).and_then(|client| client.expired_timeout())
}

/// Whether the request ends because its chunked body is invalid. To Pingora this looks like a read error of the client.
fn body_is_invalid(session: &ServerSession) -> bool {
    Client::of(session).is_some_and(|client| client.body_is_invalid())
}

/// Pingora has a second map with the case of the names. Only its own methods change both.
struct PingoraHeaders<'a>(&'a mut ResponseHeader);

impl Headers for PingoraHeaders<'_> {
    fn map(&self) -> &HeaderMap {
        &self.0.headers
    }
    fn insert(&mut self, name: &'static str, value: HeaderValue) {
        // Fails only for an invalid name; these are constants.
        let _ = self.0.insert_header(name, value);
    }
    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }
}
