//! Pingora's hooks: facts out of the session, the verdict onto the wire.
//!
//! There is no CORS and no routing here. A request is decided once, in `request_filter`; what follows from that is
//! kept in [`Ctx`], and every response, the upstream's or one of ours, gets its headers through `Ctx::edit`.

mod attempts;
mod request;
mod response;
mod timeouts;
mod timing;
mod websocket;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OkOrErr, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::attempts::Attempts;
use self::request::{
    RemoteInfo, authority_and_target, change_headers, drop_case_map, join_cookies, request_facts,
    set_forwarded_headers, strip_ignored_upgrade, target_for_upstream,
};
use self::response::{local_reply_header, local_reply_to_error, normalize_framing, reject_response, remove_hop_by_hop};
use self::timeouts::Body;
use self::timing::RequestTiming;
use crate::cors::{Edits, Headers, Reason};
use crate::decide::Action;
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::live::{Generation, Live};
use crate::logging::quoted;
use crate::read::Client;
use crate::read::watchdog::{self, Expired};
use crate::record::request_id::{self, RequestId, RequestIds};
use crate::record::{MethodClass, Recorder, RequestLine, RequestRecord, UpstreamAttempt};
use crate::snapshot::Route;
use crate::upstream::{Endpoint, RunningUpstream};

/// The gateway, as Pingora sees it.
pub(crate) struct Gateway {
    live: Arc<Live>,
    recorder: Arc<Recorder>,
    request_ids: RequestIds,
}

/// What is remembered of a request between hooks.
pub(crate) struct Ctx {
    /// What was decided. None before `request_filter`, and then no response gets any CORS header.
    decided: Option<Decided>,
    /// How it fares with the upstream.
    attempts: Attempts,
    /// What has come of the request body.
    body: Body,
    /// Interim responses so far.
    interim: u8,
    /// What is told of it when it has ended.
    timing: RequestTiming,
    recorder: Arc<Recorder>,
}

struct Decided {
    generation: Arc<Generation>,
    /// The route that the request belongs to, if any.
    route: Option<u32>,
    /// Whether it is forwarded, which only one with a route can be.
    forwarded: bool,
    edits: Edits,
    remote: RemoteInfo,
    id: RequestId,
}

/// More 100 and 103 than this nobody needs in front of one response.
const MOST_INTERIM: u8 = 32;

// === impl Gateway ===

impl Gateway {
    /// Serves what `live` says at the time of each request, and tells `recorder` of it.
    pub(crate) fn new(live: Arc<Live>, recorder: Arc<Recorder>) -> Self {
        Gateway { live, recorder, request_ids: RequestIds::new() }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.recorder.running.begin();
        Ctx {
            decided: None,
            attempts: Attempts::default(),
            body: Body::default(),
            interim: 0,
            timing: RequestTiming::default(),
            recorder: self.recorder.clone(),
        }
    }

    /// Pingora would add a compression module that is switched off, and costs allocations all the same.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let generation = self.live.current();
        timeouts::request_begins(session.as_downstream_mut(), generation.snapshot.limits());
        strip_ignored_upgrade(session.req_header_mut());
        if session.req_header().version < Version::HTTP_11 {
            // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
            session.set_ignore_info_resp(true);
        }
        let remote = RemoteInfo::of(session.as_downstream(), generation.snapshot.trusted_proxies());
        let mut verdict =
            generation.snapshot.decide(&request_facts(session.as_downstream(), &remote, &generation.snapshot));
        let id = self.request_ids.of(&session.req_header().headers);
        verdict.edits.say_for(|| id.value());
        if self.recorder.is_recording(&generation.snapshot) {
            ctx.timing.begin(&verdict, MethodClass::of(&session.req_header().method));
        }
        let reply = LocalReply::for_action(verdict.action, || authority_and_target(session.req_header()));
        if log::log_enabled!(log::Level::Debug) {
            let reason = verdict.outcome.reason().map_or("-", Reason::code);
            let outcome = match verdict.action {
                Action::Forward(found) => format!("route={}", found.route.name),
                Action::AnswerPreflight(status) => format!("preflight={}", status.as_u16()),
                Action::Redirect(port) => format!("redirect={port}"),
                Action::Refuse(refusal) => {
                    format!("refused={} text={}", refusal.status().as_u16(), quoted(refusal.explanation().trim_end()))
                }
            };
            log::debug!("decided reason={reason} {outcome} {}", self.request_summary(session, ctx));
        }
        let forwarded = matches!(verdict.action, Action::Forward(_));
        let route = verdict.route.map(|found| found.index);
        ctx.decided = Some(Decided { route, forwarded, edits: verdict.edits, generation, remote, id });
        let Some(reply) = reply else {
            drop_case_map(session.req_header_mut())?;
            if let Some((route, generation)) = ctx.forwarded() {
                let timeouts = &generation.upstream(route.upstream).settings().timeouts;
                timeouts::request_goes_on(session.as_downstream_mut(), generation.snapshot.limits(), timeouts);
            }
            return Ok(false);
        };
        let mut response = local_reply_header(&reply)?;
        ctx.edit(&mut response);
        // Over HTTP/2 Pingora would send the body of an answer to HEAD, which breaks the stream.
        let bodyless = reply.text.is_empty() || session.req_header().method == Method::HEAD;
        session.write_response_header(Box::new(response), bodyless).await?;
        if !bodyless {
            session.write_response_body(Some(Bytes::from_static(reply.text.as_bytes())), true).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (attempts, upstream, client) =
            ctx.toward_upstream().or_err(ErrorType::InternalError, "no route was chosen")?;
        let peer = attempts.peer(upstream, session.as_downstream(), client)?;
        ctx.timing.try_begins();
        let attempts = &ctx.attempts;
        watchdog::set_deadline(attempts.deadline(session.as_downstream()).map(Into::into));
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
            ctx.attempts.connected(reused);
        }
        Ok(())
    }

    fn fail_to_connect(&self, session: &mut Session, _peer: &HttpPeer, ctx: &mut Ctx, mut e: Box<Error>) -> Box<Error> {
        if let Some((attempts, upstream, client)) = ctx.toward_upstream() {
            attempts.connect_failed(upstream, session.as_downstream(), client, &mut e);
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
        // Whether it is tried again is ours to decide; an error that leaves it open would make Pingora panic.
        e.retry.decide_reuse(false);
        if let Some((attempts, upstream, client)) = ctx.toward_upstream() {
            let session = session.as_downstream_mut();
            let cut_off = expired(session) == Some(Expired::Deadline);
            attempts.on_error(upstream, session, client, &mut e, client_reused, cut_off);
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
        ctx.body.restart();
        if let Some((attempts, upstream, _)) = ctx.toward_upstream() {
            attempts.check_version(upstream, request.version)?;
        }
        let prefix = ctx.forwarded().and_then(|(route, _)| route.strip_prefix.as_deref());
        if let Some(target) = target_for_upstream(request, prefix) {
            request.set_raw_path(&target)?;
        }
        let Some(decided) = &ctx.decided else { return Ok(()) };
        change_headers(request, |headers| {
            if session.is_http2() {
                join_cookies(headers)?;
            }
            if let RequestId::Own(..) = decided.id {
                headers.insert(request_id::NAME, decided.id.value());
            }
            set_forwarded_headers(session, headers, &decided.remote)
        })?
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        // HTTP/2 clients may end a body with an empty frame, which Pingora 0.9.1 would write as an end of its own in
        // front of the real one: two requests to an HTTP/1 upstream.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(decided) = &ctx.decided else { return Ok(()) };
        let limits = decided.generation.snapshot.limits();
        // What goes over a WebSocket is no body, and has no end to wait for.
        if !session.was_upgraded() {
            ctx.body.take(body.as_ref().map_or(0, Bytes::len), limits)?;
        }
        if end_of_stream {
            timeouts::request_is_answered(session.as_downstream(), limits);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some((attempts, upstream, _)) = ctx.toward_upstream()
            && attempts.header_came(upstream, response.status)
        {
            ctx.timing.header_came();
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.as_downstream().is_upgrade_req() {
            return reject_response("the upstream switches protocols unasked");
        }
        // 100 and 103 are not the response; 101 is the last one of its connection that has headers.
        let interim = response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS;
        if interim && let Some(decided) = &ctx.decided {
            decided.edits.strip(&mut PingoraHeaders(response));
            ctx.interim += 1;
            if ctx.interim > MOST_INTERIM {
                return reject_response("the upstream sends interim responses without end");
            }
        }
        if !interim {
            remove_hop_by_hop(response);
            normalize_framing(response)?;
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
            if let Some((route, generation)) = ctx.forwarded() {
                if response.status == StatusCode::SWITCHING_PROTOCOLS {
                    let timeouts = &generation.upstream(route.upstream).settings().timeouts;
                    timeouts::becomes_websocket(session.as_downstream_mut(), timeouts);
                } else {
                    timeouts::request_is_answered(session.as_downstream(), generation.snapshot.limits());
                    // An upgrade that was refused has had its time to begin, and is a response like any other now.
                    watchdog::set_deadline(ctx.attempts.deadline(session.as_downstream()).map(Into::into));
                }
            }
            ctx.edit(response);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        let (kind, why) = match expired(session.as_downstream()) {
            Some(Expired::Deadline) => (Some(ReplyKind::UpstreamTimeout), "timeouts.total"),
            Some(Expired::Idle) => (None, "idle"),
            None => (local_reply_to_error(e), e.etype().as_str()),
        };
        let error_code = kind.map_or(0, |kind| kind.status().as_u16());
        let failed = FailToProxy { error_code, can_reuse_downstream: false };
        let Some(kind) = kind else { return failed };
        let status = kind.status();
        let upstream = ctx
            .forwarded()
            .map(|(route, generation)| (&route.name, &generation.upstream(route.upstream).settings().name));
        if let Some((route, upstream)) = upstream.filter(|_| status.is_server_error()) {
            match session.response_written() {
                Some(_) => log::warn!("response cut route={route} upstream={upstream} error={}", quoted(why)),
                None => {
                    let status = status.as_u16();
                    log::warn!(
                        "request failed status={status} route={route} upstream={upstream} error={}",
                        quoted(why)
                    );
                }
            }
        }
        let reply = LocalReply::new(kind);
        let written = match local_reply_header(&reply) {
            Ok(mut response) => {
                ctx.edit(&mut response);
                let bodyless = session.req_header().method == Method::HEAD;
                let body = Bytes::from_static(if bodyless { b"" } else { reply.text.as_bytes() });
                session.as_downstream_mut().write_error_response(response, body).await
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
        if ctx.timing.are_empty() {
            return;
        }
        let session = session.as_downstream();
        let (authority, target) = authority_and_target(session.req_header());
        let asked = RequestLine {
            method: &session.req_header().method,
            authority,
            path: target.split(|b| *b == b'?').next().unwrap_or_default(),
            version: session.req_header().version,
            headers: &session.req_header().headers,
        };
        let failure = e.map(|e| match expired(session) {
            Some(Expired::Deadline) => "timeouts.total",
            Some(Expired::Idle) => "idle",
            None => e.etype().as_str(),
        });
        let status = session.response_written().map(|response| response.status);
        ctx.note(Some(asked), status, session.body_bytes_sent(), failure);
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

// === impl Ctx ===

impl Ctx {
    /// The route of a request that is forwarded, with its configuration.
    fn forwarded(&self) -> Option<(&Route, &Generation)> {
        let decided = self.decided.as_ref().filter(|decided| decided.forwarded)?;
        Some((decided.generation.snapshot.route(decided.route?), &decided.generation))
    }

    /// The tries of a request that is forwarded, where they go, and who it comes from.
    fn toward_upstream(&mut self) -> Option<(&mut Attempts, &RunningUpstream, IpAddr)> {
        let Decided { generation, route, remote, .. } = self.decided.as_ref().filter(|decided| decided.forwarded)?;
        let upstream = generation.upstream(generation.snapshot.route((*route)?).upstream);
        Some((&mut self.attempts, upstream, remote.client))
    }

    /// Tells of the request, once, when it has ended. `asked` is None when the session is gone.
    fn note(&mut self, asked: Option<RequestLine<'_>>, status: Option<StatusCode>, sent: usize, failure: Option<&str>) {
        let (Some(decided), Some(noted)) = (&self.decided, self.timing.end()) else { return };
        let upstream = self.forwarded().map(|(route, generation)| UpstreamAttempt {
            name: &generation.upstream(route.upstream).settings().name,
            address: self.attempts.last().map(Endpoint::address),
            duration: noted.upstream_took,
            attempts: noted.tries,
        });
        self.recorder.record(
            decided.generation.route_metrics(),
            &RequestRecord {
                generation: decided.generation.number,
                route: decided.route.map(|route| (route, decided.generation.snapshot.route(route))),
                kind: noted.kind,
                outcome: noted.outcome,
                refused: noted.refused,
                client: decided.remote.client,
                scheme: decided.remote.scheme,
                method: noted.method,
                request: asked,
                status,
                body_bytes: sent,
                duration: noted.took,
                upstream,
                failure,
                id: &decided.id,
            },
        );
    }

    /// Gives a response what was decided for the request. Every response comes through here.
    fn edit(&self, response: &mut ResponseHeader) {
        if let Some(decided) = &self.decided {
            decided.edits.apply(&mut PingoraHeaders(response));
        }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // What a guard has dropped has passed no other hook.
        self.note(None, None, 0, Some("cut off"));
        self.recorder.running.end();
    }
}

/// Why we have ended a request, if we have: to Pingora it looks like a client that broke off.
fn expired(session: &ServerSession) -> Option<Expired> {
    Client::of(session).and_then(|client| client.expired_timeout())
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
