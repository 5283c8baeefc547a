//! Serves a request: collects its facts from Pingora's session, and applies the verdict.
//!
//! This module decides nothing about CORS or routing. [`Gateway::on_request`] requests the verdict once for each
//! request, and stores it in [`Ctx`]. Every response header gets the CORS header fields of the verdict: a response of
//! the upstream in [`Ctx::on_response`], a response of the gateway in [`LocalResponse::new`].
//!
//! Pingora calls the [`hooks`] in this order: first `request_filter`; then `upstream_peer`, `connected_to_upstream` and
//! `upstream_request_filter` for each attempt; then the filters of the request body and the response; and `logging` at
//! the end. After `fail_to_connect` or `error_while_proxy`, Pingora starts the next attempt or calls `fail_to_proxy`.

mod attempts;
mod auth;
mod compress;
mod early_response;
mod hooks;
mod ignored_fields;
mod request;
mod request_config;
mod request_record;
mod response;
mod timeouts;
mod timing;
mod websocket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OkOrErr, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use self::attempts::{Attempts, hash_key, hash_of};
use self::auth::{AuthClient, client_leaves};
use self::compress::BodyEncoder;
use self::ignored_fields::IgnoredFieldLog;
use self::request::{
    Facts, RemoteInfo, auth_fields, authority, change_request, count_max_forwards, has_length_without_body,
    join_cookies, origin_form, remove_untrusted_fields, request_facts, set_behavior_fields, set_forwarded_headers,
    strip_ignored_upgrade, target_for_upstream,
};
use self::request_config::RequestConfig;
use self::response::{
    LocalResponse, change_response, is_interim, local_reply_to_error, normalize_framing, reject_response,
    remove_hop_by_hop,
};
use self::timeouts::RequestBody;
use self::timing::RequestTiming;
use crate::behavior::compression::Compression;
use crate::behavior::forward_auth::{AuthDecision, PassedOn};
use crate::behavior::rate_limit::{BucketOutcome, BudgetKind, RateCheck};
use crate::behavior::{Behaviors, ResponseSource};
use crate::cors::{Edits, Reason};
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::decide::{Action, Refusal, Verdict, edit_response};
use crate::live::{Generation, Live};
use crate::logging::quoted;
use crate::per_thread::{Local, Shared};
use crate::read::Client;
use crate::read::watchdog::{self, Expired};
use crate::record::request_id::{self, RequestId, RequestIds};
use crate::record::{MethodClass, Recorder};
use crate::snapshot::{End, UpstreamId};
use crate::upstream::RunningUpstream;
use crate::upstream::failure::{describe, describe_cut};
use crate::upstream::peer::node_host;

/// The proxy application.
pub(crate) struct Gateway {
    live: Arc<Live>,
    recorder: Shared<Recorder>,
    request_ids: RequestIds,
    ignored_fields: IgnoredFieldLog,
    auth: AuthClient,
}

/// The step that follows the decision about a request.
enum Next {
    Forward,
    Reply(LocalResponse),
    /// The gateway asks the service of `forward_auth`. If the service allows the request, the gateway sends this reply,
    /// or forwards the request if there is no reply.
    Ask(Option<LocalReply>),
}

/// The state of a request between hooks.
pub(crate) struct Ctx {
    /// None before `request_filter`. A response then gets no CORS header fields, because no policy is known.
    request: Option<DecidedRequest>,
    attempts: Attempts,
    body: RequestBody,
    /// Number of interim responses from the upstream for this request.
    interim_responses: u8,
    /// None if the response body is sent without changes. The encoder is boxed, because most responses have none.
    encoder: Option<Box<BodyEncoder>>,
    timing: RequestTiming,
    recorder: Local<Recorder>,
}

/// Facts and results of a request from `request_filter`.
struct DecidedRequest {
    /// The configuration that was active in `request_filter`. Later hooks use it too, even after a reload.
    config: RequestConfig,
    edits: Edits,
    remote: RemoteInfo,
    id: RequestId,
    /// Result of the rate limit. None if the route has no limit, or if the gateway replies without the check.
    rate: Option<RateCheck>,
    /// Fields that the service of `forward_auth` adds. None if it adds no fields.
    passed_on: Option<Box<PassedOn>>,
}

/// Maximum number of interim responses (100, 103) that an upstream may send before a response. With more, the request
/// fails, because a malicious upstream could send them without end.
const MAX_INTERIM_RESPONSES: u8 = 32;

// === impl Gateway ===

impl Gateway {
    /// Creates the application. Each request uses the configuration that is active in `live` at its first hook.
    pub(crate) fn new(live: Arc<Live>, recorder: Arc<Recorder>) -> Self {
        let recorder = Shared::new(recorder);
        Gateway {
            live,
            recorder,
            request_ids: RequestIds::new(),
            ignored_fields: IgnoredFieldLog::default(),
            auth: AuthClient::default(),
        }
    }

    /// Returns the state of a new request.
    fn new_request(&self) -> Ctx {
        self.recorder.running.begin();
        Ctx {
            request: None,
            attempts: Attempts::default(),
            body: RequestBody::default(),
            interim_responses: 0,
            encoder: None,
            timing: RequestTiming::default(),
            recorder: self.recorder.local(),
        }
    }

    /// Decides a request, and prepares it for the next step.
    fn on_request(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Next> {
        let generation = self.live.for_request();
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
        let snapshot = &generation.snapshot;
        let facts = request_facts(session.as_downstream(), authority, own_origin, remote.client_address(), snapshot);
        let mut verdict = generation.snapshot.decide(&facts);
        let rate = check_rate_limit(&generation, &mut verdict, &session.req_header().headers, remote.known_client());
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
        let upstream = match verdict.action {
            Action::Forward(found) => upstream_of(&found.route.end, session.req_header(), remote.client),
            _ => None,
        };
        let asks = verdict.asks_a_service();
        let route = verdict.route.map(|found| found.index);
        let underscores = generation.snapshot.underscores_in_headers();
        let edits = verdict.edits;
        let config = RequestConfig::Complete { generation, route, upstream };
        let request = ctx.request.insert(DecidedRequest { config, edits, remote, id, rate, passed_on: None });
        let reply = match reply {
            Some(reply) if !asks => return Ok(Next::Reply(request.reply(reply, session))),
            reply => reply,
        };
        let dropped = remove_untrusted_fields(session.req_header_mut(), &remote, underscores)?;
        if dropped > 0
            && let Some(client) = Client::of(session.as_downstream())
        {
            client.counts().dropped_fields.add(dropped as u64);
        }
        if asks {
            // The service gets the client's own fields, so they are removed later.
            return Ok(Next::Ask(reply));
        }
        request.remove_forged(session)?;
        ctx.on_forward(session);
        Ok(Next::Forward)
    }

    /// Asks the service of `forward_auth`. Returns the response if the request is not forwarded.
    async fn ask(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        reply: Option<LocalReply>,
    ) -> Result<Option<LocalResponse>> {
        let request = ctx.request.as_mut().or_err(ErrorType::InternalError, "no decision")?;
        let (auth, upstream) = request.config.auth_service().or_err(ErrorType::InternalError, "no forward_auth")?;
        let key = hash_key(&upstream.settings().balance, session.as_downstream(), request.remote.client);
        let route = request.config.route_name().unwrap_or_default();
        timeouts::on_wait(session.as_downstream(), request.config.limits(), auth.timeout);
        let fields = auth_fields(auth, session, &request.facts(session.req_header()))?;
        let answer = tokio::select! {
            answer = self.auth.ask(auth, upstream, key, &fields, route) => answer,
            gone = client_leaves(session.as_downstream_mut()) => return Err(gone),
        };
        let (refusal, response) = match answer {
            Some(answer) if answer.decision == AuthDecision::Allowed => {
                request.passed_on = auth.passed_on(&answer.header.headers);
                request.remove_forged(session)?;
                if let Some(reply) = reply {
                    return Ok(Some(request.reply(reply, session)));
                }
                ctx.on_forward(session);
                return Ok(None);
            }
            Some(answer) => (Refusal::AuthRefused(answer.header.status), Some(answer)),
            None => (Refusal::AuthUnavailable, None),
        };
        ctx.timing.refuse(refusal);
        request.refuse(refusal);
        let headers = &session.req_header().headers;
        Ok(Some(match response {
            Some(answer) => LocalResponse::of_service(answer, |headers| {
                request.edit(headers, session.req_header(), ResponseSource::Gateway);
            }),
            None => request.reply(LocalReply::to(headers, ReplyKind::Refused(refusal)), session),
        }))
    }

    fn on_connected(&self, reused: bool, ctx: &mut Ctx) {
        if self.recorder.counts() {
            ctx.attempts.on_connected(reused);
        }
    }
}

// === impl Ctx ===

impl Ctx {
    /// Prepares the state and the timeouts of a request that will be forwarded.
    fn on_forward(&self, session: &mut Session) {
        if let Some((config, upstream)) = self.forwarded() {
            timeouts::on_forward(session.as_downstream_mut(), config.limits(), &upstream.settings().timeouts);
        }
    }

    /// Returns the peer of the next attempt. Returns None if the request must wait for a node.
    fn next_peer(&mut self, session: &mut Session) -> Result<Option<Box<HttpPeer>>> {
        let (attempts, upstream, client) =
            self.attempt_parts().or_err(ErrorType::InternalError, "no route was chosen")?;
        let Some(peer) = attempts.peer(upstream, session.as_downstream(), client)? else { return Ok(None) };
        self.timing.on_attempt();
        watchdog::set_deadline(self.attempts.deadline(session.as_downstream()).map(Into::into));
        Ok(Some(peer))
    }

    /// Waits until a node has fewer than `max_connections` requests. Returns the peer of the first attempt.
    async fn wait_for_peer(&mut self, session: &mut Session) -> Result<Box<HttpPeer>> {
        let config = self.request.as_ref().map(|request| &request.config);
        let limits = config.map(|config| config.limits().clone());
        let (attempts, upstream, client) =
            self.attempt_parts().or_err(ErrorType::InternalError, "no route was chosen")?;
        let session_of_client = session.as_downstream_mut();
        let is_complete = session_of_client.is_body_empty();
        if is_complete {
            timeouts::on_complete_request(session_of_client);
        }
        attempts.wait(upstream, session_of_client, client, limits.as_deref(), is_complete).await?;
        self.next_peer(session)?.or_err(ErrorType::InternalError, "the request has a node")
    }

    fn on_connect_error(&mut self, session: &Session, e: &mut Error) {
        if let Some((attempts, upstream, client)) = self.attempt_parts() {
            attempts.on_connect_error(upstream, session.as_downstream(), client, e);
        }
    }

    /// Handles an attempt that failed after its connection was made.
    fn on_error(&mut self, session: &mut Session, e: &mut Error, client_reused: bool) {
        // Pingora panics if the error does not say whether to retry. `Attempts::on_error` decides it.
        e.retry.decide_reuse(false);
        if let Some((attempts, upstream, client)) = self.attempt_parts() {
            attempts.on_error(upstream, session.as_downstream_mut(), client, e, client_reused);
        }
    }

    /// Completes the request header for an attempt.
    fn on_upstream_request(&mut self, session: &mut Session, upstream_request: &mut RequestHeader) -> Result<()> {
        // Pingora calls this hook for each attempt, and a retry sends the whole body again.
        self.body.restart();
        // For an HTTP/2 node, Pingora does not call `request_body_filter` for a request without a body.
        let is_body_empty = session.as_downstream_mut().is_body_empty();
        if is_body_empty {
            timeouts::on_complete_request(session.as_downstream());
        }
        if let Some((attempts, upstream, _)) = self.attempt_parts() {
            attempts.check_version(upstream, session.as_downstream(), upstream_request.version)?;
        }
        let Some(request) = &self.request else { return Ok(()) };
        let behaviors = request.behaviors();
        let rewrite = behaviors.and_then(|behaviors| behaviors.rewrite.as_deref());
        if let Some(target) = target_for_upstream(upstream_request, rewrite) {
            upstream_request.set_raw_path(&target)?;
        }
        let needs_length = upstream_request.version != Version::HTTP_2
            && is_body_empty
            && has_length_without_body(&upstream_request.method);
        change_request(upstream_request, |headers| {
            if needs_length && !headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            if session.is_http2() {
                join_cookies(headers)?;
            }
            // If a client names the field in `Connection`, Pingora removes the client's id.
            if matches!(request.id, RequestId::Own(..)) || !headers.contains_key(request_id::NAME) {
                headers.insert(request_id::NAME, request.id.value());
            }
            count_max_forwards(&session.req_header().method, headers);
            set_forwarded_headers(session, headers, &request.remote)?;
            if let Some(passed_on) = &request.passed_on {
                passed_on.add_to_request(headers);
            }
            if let Some(behaviors) = behaviors {
                let node = || self.attempts.last().zip(request.config.upstream()).and_then(|(e, u)| node_host(u, e));
                set_behavior_fields(session, headers, behaviors, node, &request.facts(session.req_header()));
            }
            Ok(())
        })?
    }

    /// Checks a piece of the request body before it is sent to the upstream.
    fn on_request_body(&mut self, session: &Session, body: &mut Option<Bytes>, end_of_stream: bool) -> Result<()> {
        // HTTP/2 clients may end a body with an empty frame. Pingora 0.9.1 would write it as a last chunk before the
        // real last chunk, so an HTTP/1 upstream would read two requests.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        let Some(request) = &self.request else { return Ok(()) };
        let limits = request.config.limits();
        // The data of a WebSocket is not a request body.
        if !session.was_upgraded() {
            if let Some(body) = body {
                self.body.add(body.len(), limits)?;
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

    /// Handles a response header of the upstream before it is changed.
    fn on_upstream_response(&mut self, response: &ResponseHeader) {
        if let Some((attempts, upstream, _)) = self.attempt_parts()
            && attempts.on_response_header(upstream, response.status)
        {
            self.timing.on_response_header();
        }
    }

    fn on_upstream_response_body(&mut self, body: Option<&mut Bytes>) {
        if let Some(body) = body
            && let Some((attempts, upstream, _)) = self.attempt_parts()
        {
            attempts.on_response_body(upstream, body);
        }
    }

    /// Changes a response header of the upstream for the client.
    fn on_response(&mut self, session: &mut Session, response: &mut ResponseHeader) -> Result<()> {
        let status = response.status;
        if status == StatusCode::SWITCHING_PROTOCOLS && !session.as_downstream().is_upgrade_req() {
            return reject_response("the upstream switches protocols without an Upgrade request");
        }
        if is_interim(status) {
            self.interim_responses += 1;
            if self.interim_responses > MAX_INTERIM_RESPONSES {
                return reject_response("the upstream sends more than 32 interim responses");
            }
            return change_response(response, |response| {
                if let Some(request) = &self.request {
                    request.edits.strip(&mut response.headers);
                }
                // An interim response has no body (RFC 9110 section 8.6, RFC 9112 section 6.1).
                response.headers.remove(header::CONTENT_LENGTH);
                response.headers.remove(header::TRANSFER_ENCODING);
                Ok(())
            });
        }
        let compression = self.request.as_ref().and_then(DecidedRequest::compression);
        // An encoded body ends without trailers. The next lines remove the `Trailer` field.
        let compression = compression.filter(|_| !response.headers.contains_key(header::TRAILER));
        change_response(response, |response| {
            remove_hop_by_hop(response);
            normalize_framing(response)?;
            // The version is the version of the gateway (RFC 9110 section 2.5), not the upstream's.
            response.version = response.version.max(Version::HTTP_11);
            // HTTP/1.0 clients do not support chunks (RFC 9112 section 6.1), so the end of the connection ends the
            // body.
            if session.req_header().version < Version::HTTP_11
                && response.headers.remove(header::TRANSFER_ENCODING).is_some()
            {
                session.set_keepalive(None);
            }
            if let Some(request) = &self.request {
                request.edit(&mut response.headers, session.req_header(), ResponseSource::Upstream);
            }
            // This comes after the edits, because they can change the type.
            if let Some(compression) = compression {
                self.encoder = BodyEncoder::prepare(compression, session.req_header(), response)?;
            }
            Ok(())
        })?;
        if let Some((config, upstream)) = self.forwarded() {
            if status == StatusCode::SWITCHING_PROTOCOLS {
                timeouts::on_websocket(session.as_downstream_mut(), &upstream.settings().timeouts);
            } else {
                timeouts::on_response(session.as_downstream(), config.limits());
                // If the upstream refused an upgrade, the response has no deadline unless `timeouts.total` is set.
                watchdog::set_deadline(self.attempts.deadline(session.as_downstream()).map(Into::into));
            }
        }
        if let Some(request) = &mut self.request {
            request.config.reduce();
        }
        Ok(())
    }

    /// Encodes a piece of the response body before it is sent to the client.
    fn on_response_body(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) -> Result<()> {
        match &mut self.encoder {
            None => Ok(()),
            Some(encoder) => encoder.encode(body, end_of_stream),
        }
    }

    /// Handles trailers at the end of the upstream's response. An error in this hook ends the request. An error in the
    /// next hook does not.
    fn on_upstream_trailers(&mut self) -> Result<()> {
        match &mut self.encoder {
            None => Ok(()),
            Some(encoder) => encoder.end_before_trailers(),
        }
    }

    fn instead_of_trailers(&mut self) -> Option<Bytes> {
        self.encoder.as_mut()?.instead_of_trailers()
    }

    /// Responds to a failed request, if the client can still get a response.
    async fn reply_to_failure(&mut self, session: &mut Session, e: &Error) -> FailToProxy {
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
        // Refused requests are only counted, because clients can cause any number of them.
        let is_failure = status.is_server_error() && !matches!(kind, ReplyKind::Refused(_));
        if let Some((config, upstream)) = self.forwarded().filter(|_| is_failure) {
            let is_cut = session.response_written().is_some_and(|response| !is_interim(response.status));
            let why = match expired {
                Some(_) => "timeouts.total".to_owned(),
                None if is_cut => describe_cut(e, upstream),
                None => describe(e, upstream),
            };
            let route = config.route_name().unwrap_or("-");
            let (why, upstream, status) = (quoted(why), &upstream.settings().name, status.as_u16());
            if is_cut {
                log::warn!("response cut route={route} upstream={upstream} error={why}");
            } else {
                log::warn!("request failed status={status} route={route} upstream={upstream} error={why}");
            }
        }
        let reply = LocalReply::to(&session.req_header().headers, kind);
        if let ReplyKind::Refused(refusal @ Refusal::UpstreamFull) = kind {
            self.timing.refuse(refusal);
            if let Some(request) = &mut self.request {
                request.edits.change_debug_reason(refusal.code());
            }
        }
        let response = LocalResponse::new(reply, |headers| {
            if let Some(request) = &self.request {
                request.edit(headers, session.req_header(), ResponseSource::Gateway);
            }
        });
        if let Err(error) = response.send_error(session).await {
            log::debug!("error response not sent status={status} error={}", quoted(error));
        }
        failed
    }

    /// Returns the configuration and the upstream of a forwarded request.
    fn forwarded(&self) -> Option<(&RequestConfig, &RunningUpstream)> {
        let config = &self.request.as_ref()?.config;
        Some((config, config.upstream()?))
    }

    /// Returns the data that the methods of [`Attempts`] need for a forwarded request: the attempts, the upstream, and
    /// the client's address.
    fn attempt_parts(&mut self) -> Option<(&mut Attempts, &RunningUpstream, IpAddr)> {
        let request = self.request.as_ref()?;
        Some((&mut self.attempts, request.config.upstream()?, request.remote.client))
    }
}

impl DecidedRequest {
    /// Returns the behaviors of the route. Returns None if the route has none, or if the response has begun.
    fn behaviors(&self) -> Option<&Behaviors> {
        self.config.route()?.behaviors.as_deref()
    }

    fn compression(&self) -> Option<&Compression> {
        self.behaviors()?.compression.as_deref()
    }

    /// Removes fields of the client that only the service of `forward_auth` may set.
    fn remove_forged(&self, session: &mut Session) -> Result<()> {
        match self.behaviors().and_then(|behaviors| behaviors.forward_auth.as_ref()) {
            Some(auth) => change_request(session.req_header_mut(), |headers| auth.remove_forged(headers)),
            None => Ok(()),
        }
    }

    /// Refuses the request after its decision. The CORS edits of the decision stay.
    fn refuse(&mut self, refusal: Refusal<'_>) {
        self.config.refuse();
        self.edits.change_debug_reason(refusal.code());
    }

    /// Builds a response of the gateway.
    fn reply(&self, reply: LocalReply, session: &Session) -> LocalResponse {
        LocalResponse::new(reply, |headers| self.edit(headers, session.req_header(), ResponseSource::Gateway))
    }

    /// Edits the header of a response to this request.
    fn edit(&self, headers: &mut HeaderMap, request: &RequestHeader, source: ResponseSource) {
        edit_response(self.behaviors(), &self.edits, headers, source, || self.facts(request));
    }

    fn facts<'a>(&'a self, request: &'a RequestHeader) -> Facts<'a> {
        let route = self.config.route_name();
        let passed_on = self.passed_on.as_deref();
        Facts { request, remote: &self.remote, id: &self.id, route, rate: self.rate, passed_on }
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // Pingora does not call the `logging` hook if the watchdog dropped the request.
        self.record_dropped();
        self.recorder.running.end();
    }
}

/// Takes the request from the budget of its route. If the budget is empty, changes the verdict to a refusal.
fn check_rate_limit(
    generation: &Generation,
    verdict: &mut Verdict<'_>,
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> Option<RateCheck> {
    let found = verdict.route?;
    found.route.behaviors.as_ref()?.rate_limit.as_ref()?;
    let budget = match verdict.action {
        Action::Forward(_) | Action::Answer(_) => BudgetKind::Requests,
        Action::AnswerPreflight(_) => BudgetKind::Preflights,
        Action::AnswerOptions(_) | Action::RedirectToHttps(_) | Action::Refuse(_) => return None,
    };
    let check = generation.rate_limiter(found.index)?.check(budget, headers, client, Instant::now())?;
    if let BucketOutcome::Refused { .. } = check.outcome {
        verdict.refuse(Refusal::RateLimited);
    }
    Some(check)
}

/// Returns the upstream of a request. It is called once for each request.
fn upstream_of(end: &End, request: &RequestHeader, client: IpAddr) -> Option<UpstreamId> {
    match end {
        End::Upstream(id) => Some(*id),
        End::Split(end) => {
            let key = end.sticky.as_ref().and_then(|on| hash_of(on, request, client));
            Some(end.split.choose(key, fastrand::u64(..)))
        }
        End::Answer(_) => None,
    }
}

/// Formats a verdict for the debug log.
fn described(verdict: &Verdict<'_>) -> String {
    let reason = verdict.outcome.reason().map_or("-", Reason::code);
    let action = match verdict.action {
        Action::Forward(found) => format!("route={}", found.route.name),
        Action::AnswerPreflight(status) => format!("preflight={}", status.as_u16()),
        Action::AnswerOptions(_) => "options=204".to_owned(),
        Action::RedirectToHttps(port) => format!("redirect={port}"),
        Action::Answer(answer) => format!("answer={}", answer.status.as_u16()),
        Action::Refuse(refusal) => {
            format!("refused={} text={}", refusal.status().as_u16(), quoted(refusal.explanation().trim_end()))
        }
    };
    format!("reason={reason} {action}")
}

/// Returns the timeout with which the watchdog ended the request. Pingora handles it as a read error of the client.
fn expired_timeout(session: &ServerSession) -> Option<Expired> {
    Client::of(session).and_then(|client| client.expired_timeout())
}

/// Returns true if the request ends because its chunked body is invalid. Pingora handles it as a read error of the
/// client.
fn body_is_invalid(session: &ServerSession) -> bool {
    Client::of(session).is_some_and(|client| client.body_is_invalid())
}
