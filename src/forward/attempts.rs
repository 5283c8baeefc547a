//! The attempts of a request. This module chooses the node of each attempt, decides whether a failed attempt is
//! retried, and whether it counts as a failure of the node. [`crate::upstream`] balances and ejects the nodes.
//!
//! A request has one attempt and up to `retries` more, each on a node that was not tried yet:
//!
//! | failure | retried | counts for ejection |
//! |---|---|---|
//! | no connection | any method | yes, unless the gateway failed, for example for lack of sockets |
//! | connection broken or timed out before the response header | idempotent methods, if the whole body can be replayed | yes, unless the client had not sent its body, or the attempt had less time than `timeouts.read` |
//! | HTTP/2 says that the node did not process the request | any method, if the whole body can be replayed | yes |
//! | the response is not valid HTTP | no | no |
//! | any failure after the response header | no | no |
//! | the client went away | no | no |
//!
//! A node also gets one free retry. The upstream may have closed a reused connection while the gateway sent the
//! request. This is not a failure of the node. The free retry uses the same node, and counts neither as one of
//! `retries` nor for ejection. It makes a new connection, because other idle connections may be closed too. If the free
//! retry fails, the failure counts. Only two kinds of requests get a free retry: idempotent requests (RFC 9110 section
//! 9.2.2), and requests that the node did not process, according to HTTP/2. The second kind gets it once after a new
//! connection too, if no other node is left (RFC 9113 section 8.7).
//!
//! `timeouts.total` limits all attempts together. Each attempt gets at most the time that is left. Without time left,
//! there is no attempt.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};
use tokio::time::sleep;

use super::expired_timeout;
use super::request::origin_form;
use super::response::{fail, is_interim, refuse_full, reject_response};
use super::timeouts;
use super::websocket::WebSocketConnector;
use crate::decide::local_reply::ReplyKind;
use crate::logging::quoted;
use crate::read::Client;
use crate::read::watchdog::Expired;
use crate::snapshot::{Balance, HashOn, Limits, ProxyProtocol};
use crate::trusted_proxies::Peer;
use crate::upstream::failure::{ADD_TLS, describe, is_write_timeout};
use crate::upstream::peer::template;
use crate::upstream::proxy_protocol::{ProxyConnector, SentProxyHeader};
use crate::upstream::{ActiveRequest, Endpoint, PickError, RunningUpstream, key};

/// Time between the timeouts of an attempt and the deadline of the watchdog. The timeouts send a 504, but the watchdog
/// resets an HTTP/2 stream without a response.
const DEADLINE_MARGIN: Duration = Duration::from_millis(100);

/// State of the attempts of one request.
#[derive(Default)]
pub(super) struct Attempts {
    /// The endpoint of the current attempt. The attempt counts as an active request of the endpoint.
    current: Option<ActiveRequest>,
    /// The endpoint of the next attempt, chosen after the failure of the last attempt.
    next: Option<ActiveRequest>,
    /// The endpoints of failed attempts. An empty list allocates no memory.
    failed: Vec<Arc<Endpoint>>,
    /// Whether the current attempt is the free retry after a reused connection was closed.
    retried_stale: bool,
    unprocessed_retry: UnprocessedRetry,
    /// Whether the current attempt has less time than `timeouts.read`, because earlier attempts used it.
    time_was_cut: bool,
    /// Status of the response. None before its header has arrived.
    response: Option<StatusCode>,
    deadline: Option<Instant>,
    deadline_end: DeadlineEnd,
}

/// The event until which the deadline holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum DeadlineEnd {
    /// The end of the response.
    #[default]
    ResponseEnd,
    /// The response header. A WebSocket without `timeouts.total` has no deadline after it.
    ResponseHeader,
}

/// Whether the request has used its free retry on a node that had not processed it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum UnprocessedRetry {
    #[default]
    Unused,
    Used,
}

impl Attempts {
    /// Returns the deadline for the watchdog: `timeouts.total` plus [`DEADLINE_MARGIN`]. The deadline of a WebSocket
    /// ends with its 101. Returns None before the first attempt, and if the request has no deadline or its deadline has
    /// ended.
    pub(super) fn deadline(&self, session: &ServerSession) -> Option<Instant> {
        let over =
            self.response.is_some() && (self.deadline_end == DeadlineEnd::ResponseHeader || session.was_upgraded());
        self.deadline.filter(|_| !over).map(|deadline| deadline + DEADLINE_MARGIN)
    }

    /// Returns the peer for the next attempt. Returns None if all nodes are full; then [`Self::wait`] waits for one.
    /// `client` is the client's address, for `hash_on: client_address`.
    pub(super) fn peer(
        &mut self,
        upstream: &RunningUpstream,
        session: &ServerSession,
        client: IpAddr,
    ) -> Result<Option<Box<HttpPeer>>> {
        let current = match self.next.take() {
            Some(next) => next,
            None => {
                let key = hash_key(&upstream.settings().balance, session, client);
                match upstream.pick(key, &self.failed) {
                    Ok(picked) => picked,
                    Err(PickError::Full) => return Ok(None),
                    Err(error) => return no_node(error),
                }
            }
        };
        let timeouts = &upstream.settings().timeouts;
        let mut peer = Box::new(template(upstream, &current));
        let header = upstream.settings().proxy_protocol.map(|version| proxy_header(version, session, client));
        if let Some(header) = &header {
            peer.group_key = upstream.group_of(header);
        }
        let is_upgrade = session.is_upgrade_req();
        if is_upgrade {
            peer.options.custom_l4 = Some(Arc::new(WebSocketConnector { timeout: timeouts.connect, header }));
        } else if let Some(header) = header {
            peer.options.custom_l4 = Some(Arc::new(ProxyConnector::new(header, timeouts)));
        }
        if self.retried_stale || is_upgrade {
            use_new_connection(&mut peer);
        }
        if is_upgrade {
            // A WebSocket needs HTTP/1.1, even if the node has `http2`.
            peer.options.set_http_version(1, 1);
            // Pingora cannot change these timeouts after the 101, so they also apply before it. The deadline limits
            // that time.
            peer.options.read_timeout = Some(timeouts.websocket);
            peer.options.write_timeout = Some(timeouts.websocket);
            if timeouts.total.is_none() {
                self.deadline_end = DeadlineEnd::ResponseHeader;
            }
            let time = timeouts.total.unwrap_or(timeouts.connect + timeouts.read);
            self.deadline.get_or_insert_with(|| Instant::now() + time);
        } else if let Some(total) = timeouts.total {
            let now = Instant::now();
            let left = self.deadline.get_or_insert(now + total).saturating_duration_since(now);
            if left.is_zero() {
                return fail(ReplyKind::UpstreamTimeout, ErrorSource::Upstream, "timeouts.total is over");
            }
            self.time_was_cut = !self.failed.is_empty() && left < timeouts.read;
            let options = &mut peer.options;
            for timeout in [
                &mut options.connection_timeout,
                &mut options.total_connection_timeout,
                &mut options.read_timeout,
                &mut options.write_timeout,
            ] {
                *timeout = timeout.map(|timeout| timeout.min(left));
            }
        }
        self.current = Some(current);
        Ok(Some(peer))
    }

    /// Waits for a node that is not full, before the first attempt. Fails if the waiting time ends or the client closes
    /// its connection. `is_complete` tells whether the request has no body.
    pub(super) async fn wait(
        &mut self,
        upstream: &RunningUpstream,
        session: &mut ServerSession,
        client: IpAddr,
        limits: Option<&Limits>,
        is_complete: bool,
    ) -> Result<()> {
        let settings = upstream.settings();
        let mut longest = settings.limit.as_ref().map_or(Duration::ZERO, |limit| limit.timeout);
        if let Some(total) = settings.timeouts.total {
            let now = Instant::now();
            longest = longest.min(self.deadline.get_or_insert(now + total).saturating_duration_since(now));
        }
        if let Some(limits) = limits {
            timeouts::on_wait(session, limits, longest);
        }
        let mut wait = upstream.wait(hash_key(&settings.balance, session, client));
        // An HTTP/1 client that sends a body is not watched, because this would read the body.
        let is_watched = is_complete || session.is_http2();
        let client_gone = async {
            match is_watched {
                true => session.read_body_or_idle(true).await.map(drop),
                false => pending().await,
            }
        };
        let picked = tokio::select! {
            biased;
            picked = &mut wait => picked,
            gone = client_gone => return gone.map_err(Error::into_down),
            () = sleep(longest) => {
                wait.give_up();
                return refuse_full("no node was free within `queue.timeout`; see `max_connections`");
            }
        };
        drop(wait);
        if let Some(limits) = limits {
            timeouts::on_forward(session, limits, &settings.timeouts);
        }
        match picked {
            Ok(picked) => self.next = Some(picked),
            Err(PickError::Full) => {
                return refuse_full("all nodes have `max_connections` requests, and the queue is full");
            }
            Err(error) => return no_node(error),
        }
        Ok(())
    }

    /// Counts a connection to the peer, new or reused.
    pub(super) fn on_connected(&self, reused: bool) {
        let Some(current) = &self.current else { return };
        current.connected(reused);
    }

    /// Handles a failed connection to the peer. Sets in the error whether Pingora makes another attempt.
    pub(super) fn on_connect_error(
        &mut self,
        upstream: &RunningUpstream,
        session: &ServerSession,
        client: IpAddr,
        e: &mut Error,
    ) {
        let Some(attempt) = self.current.take() else { return };
        // Pingora opens an HTTP/2 stream on a reused connection as a part of connecting.
        if upstream.settings().http2 && *e.etype() == ErrorType::H2Error && !self.retried_stale {
            return self.retry_stale_connection(upstream, attempt, e);
        }
        attempt.counts().connect_failures.add(1);
        let name = &upstream.settings().name;
        let error = describe(e, upstream);
        log::warn!("connect failed upstream={name} address={} error={}", attempt.address(), quoted(&error));
        attempt.set_last_error(error);
        // Failures of these types are failures of the gateway, such as no free socket.
        if !matches!(e.etype(), ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError) {
            record_failure(upstream, &attempt);
        }
        e.set_retry(self.next_attempt(upstream, &attempt, session, client));
    }

    /// Fails if the upstream is configured for HTTP/2 and TLS selected another version. There is no fallback. A
    /// WebSocket always uses HTTP/1.1.
    pub(super) fn check_version(
        &self,
        upstream: &RunningUpstream,
        session: &ServerSession,
        version: Version,
    ) -> Result<()> {
        let http2 = upstream.settings().http2 && !session.is_upgrade_req();
        match &self.current {
            Some(attempt) if http2 && version != Version::HTTP_2 => {
                log::warn!("HTTP/2 not negotiated upstream={} address={}", upstream.settings().name, attempt.address());
                reject_response("the node does not offer HTTP/2; remove `http2: true`")
            }
            _ => Ok(()),
        }
    }

    /// Records the status of a response header. Returns false for an interim response.
    pub(super) fn on_response_header(&mut self, upstream: &RunningUpstream, status: StatusCode) -> bool {
        let Some(attempt) = self.current.as_ref().filter(|_| !is_interim(status)) else { return false };
        self.response = Some(status);
        upstream.succeeded(attempt);
        true
    }

    /// Checks a part of the response body for the texts with which servers answer plain HTTP on a TLS port. Such a
    /// response has the status 400.
    pub(super) fn on_response_body(&self, upstream: &RunningUpstream, body: &[u8]) {
        const TEXTS: [&[u8]; 3] = [
            b"plain HTTP request was sent to HTTPS port",
            b"HTTP request to an HTTPS server",
            b"speaking plain HTTP to an SSL-enabled server port",
        ];
        let Some(attempt) = self.current.as_ref().filter(|_| self.response == Some(StatusCode::BAD_REQUEST)) else {
            return;
        };
        let begin = &body[..body.len().min(1024)];
        let has = |text: &&[u8]| begin.windows(text.len()).any(|window| window == *text);
        if upstream.settings().tls.is_none() && TEXTS.iter().any(has) {
            log::warn!(
                "node expects TLS upstream={} address={} error={}",
                upstream.settings().name,
                attempt.address(),
                quoted(ADD_TLS)
            );
            attempt.set_last_error(ADD_TLS.to_owned());
        }
    }

    /// Returns the endpoint of the current or the last attempt.
    pub(super) fn last(&self) -> Option<&Endpoint> {
        self.current.as_ref().map(ActiveRequest::endpoint).or(self.failed.last()).map(|endpoint| &**endpoint)
    }

    /// Handles an error after the connection was made. Sets in the error whether Pingora makes another attempt.
    pub(super) fn on_error(
        &mut self,
        upstream: &RunningUpstream,
        session: &mut ServerSession,
        client: IpAddr,
        e: &mut Error,
        reused: bool,
    ) {
        let deadline_passed = expired_timeout(session) == Some(Expired::Deadline);
        let unprocessed = matches!(e.retry, RetryType::Decided(true));
        e.set_retry(false);
        let kind = match e.esource() {
            _ if deadline_passed => FailureKind::TimedOut,
            ErrorSource::Upstream if is_write_timeout(e) => FailureKind::TimedOut,
            ErrorSource::Upstream => FailureKind::of(e.etype()),
            _ => FailureKind::Other,
        };
        if self.response.is_some() {
            return;
        }
        let Some(attempt) = self.current.take_if(|_| kind != FailureKind::Other) else {
            if let Some(attempt) = self.current.as_ref().filter(|_| *e.esource() == ErrorSource::Upstream) {
                attempt.set_last_error(describe(e, upstream));
            }
            return;
        };
        let replayable =
            (unprocessed || session.req_header().method.is_idempotent()) && !session.retry_buffer_truncated();
        if kind == FailureKind::Broken && reused && replayable && !self.retried_stale {
            if unprocessed {
                self.unprocessed_retry = UnprocessedRetry::Used;
            }
            return self.retry_stale_connection(upstream, attempt, e);
        }
        // Most nodes respond only after the end of the request, so the client caused the timeout.
        let out_of_time = deadline_passed || self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if *e.etype() == ErrorType::ReadTimedout && !out_of_time && !session.is_body_done() {
            e.etype = ErrorType::HTTPStatus(ReplyKind::RequestTimeout.status().as_u16());
            e.esource = ErrorSource::Downstream;
            return;
        }
        attempt.counts().no_responses.add(1);
        let name = &upstream.settings().name;
        let error = if deadline_passed { "timeouts.total".to_owned() } else { describe(e, upstream) };
        log::warn!("no response upstream={name} address={} error={}", attempt.address(), quoted(&error));
        attempt.set_last_error(error);
        // Other timeouts during the request body are not failures of the node either.
        let waited_for_client = kind == FailureKind::TimedOut && !session.is_body_done();
        if waited_for_client {
            return;
        }
        if kind == FailureKind::Broken || !self.time_was_cut {
            record_failure(upstream, &attempt);
        }
        let retry = replayable
            && (self.next_attempt(upstream, &attempt, session, client)
                || unprocessed && self.retry_unprocessed(upstream, attempt));
        e.set_retry(retry);
    }

    /// Starts the free retry on a node that has not processed the request, if no other node is left.
    fn retry_unprocessed(&mut self, upstream: &RunningUpstream, attempt: ActiveRequest) -> bool {
        if self.unprocessed_retry == UnprocessedRetry::Used || self.deadline.is_some_and(|end| end <= Instant::now()) {
            return false;
        }
        upstream.counts().reconnects.add(1);
        (self.unprocessed_retry, self.retried_stale) = (UnprocessedRetry::Used, true);
        self.next = Some(attempt);
        true
    }

    /// Starts the free retry on the same node.
    fn retry_stale_connection(&mut self, upstream: &RunningUpstream, attempt: ActiveRequest, e: &mut Error) {
        let name = &upstream.settings().name;
        let error = quoted(e.etype().as_str());
        log::debug!("kept connection was closed upstream={name} address={} error={error}", attempt.address());
        upstream.counts().reconnects.add(1);
        self.retried_stale = true;
        self.next = Some(attempt);
        e.set_retry(true);
    }

    /// Picks another node for the next attempt. Returns false if there is no further attempt. The node is picked here,
    /// because without a node later the client would get a 503 instead of the error of this attempt.
    fn next_attempt(
        &mut self,
        upstream: &RunningUpstream,
        attempt: &ActiveRequest,
        session: &ServerSession,
        client: IpAddr,
    ) -> bool {
        self.retried_stale = false;
        self.failed.push(attempt.endpoint().clone());
        if self.failed.len() > upstream.settings().retries || self.deadline.is_some_and(|end| end <= Instant::now()) {
            return false;
        }
        let key = hash_key(&upstream.settings().balance, session, client);
        self.next = upstream.pick(key, &self.failed).ok();
        upstream.counts().retries.add(u64::from(self.next.is_some()));
        self.next.is_some()
    }
}

/// Makes Pingora use a new connection for the peer, because a unique group has no idle connections. The connection is
/// closed right after the request.
pub(super) fn use_new_connection(peer: &mut HttpPeer) {
    static GROUPS: AtomicU64 = AtomicU64::new(u64::MAX);
    peer.group_key = GROUPS.fetch_sub(1, Ordering::Relaxed);
    peer.options.idle_timeout = Some(Duration::from_millis(1));
}

/// The kind of a failure after the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    TimedOut,
    Broken,
    /// The response is not valid, or the failure does not belong to the upstream.
    Other,
}

impl FailureKind {
    pub(super) fn of(error: &ErrorType) -> Self {
        use ErrorType::*;
        match error {
            ReadTimedout | WriteTimedout => FailureKind::TimedOut,
            ReadError | WriteError | ConnectionClosed | H2Error | InvalidH2 | H2Downgrade => FailureKind::Broken,
            _ => FailureKind::Other,
        }
    }
}

fn no_node<T>(error: PickError) -> Result<T> {
    let why = match error {
        PickError::Unresolved => "no address of a node is known; see `name lookup failed` in the log",
        PickError::AllUnhealthy | PickError::Exhausted | PickError::Full => {
            "no node is available; see their errors in the log"
        }
    };
    fail(ReplyKind::NoNodeAvailable, ErrorSource::Upstream, why)
}

pub(super) fn record_failure(upstream: &RunningUpstream, attempt: &ActiveRequest) {
    if upstream.failed(attempt.endpoint(), Instant::now()).is_some() {
        let ejection = upstream.settings().ejection.as_ref();
        let seconds = ejection.map_or(Duration::ZERO, |ejection| ejection.time).as_secs_f64();
        log::warn!("node ejected upstream={} address={} for={seconds}s", upstream.settings().name, attempt.address());
    }
}

// === PROXY headers ===

/// Returns the PROXY header for the client of a request. It has the client's port only if the client is the peer of the
/// connection.
fn proxy_header(version: ProxyProtocol, session: &ServerSession, client: IpAddr) -> SentProxyHeader {
    let connection = Client::of(session).map(|connection| connection.peer());
    let is_known = match connection {
        Some(peer @ (Peer::Unix | Peer::Hidden(_))) => peer.address() != client,
        _ => true,
    };
    if !is_known {
        return SentProxyHeader::without_client(version);
    }
    let inet = |address: Option<&socket::SocketAddr>| address.and_then(socket::SocketAddr::as_inet).copied();
    let port = inet(session.client_addr()).filter(|peer| peer.ip().to_canonical() == client.to_canonical());
    // A connection over a Unix-domain socket has no destination address.
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let destination = inet(session.server_addr()).unwrap_or(nowhere);
    SentProxyHeader::new(version, SocketAddr::new(client, port.map_or(0, |peer| peer.port())), destination)
}

// === hash keys ===

/// Returns the hash for `balance: hash`. Returns None for other balancing, or if the request lacks the header or
/// cookie.
pub(super) fn hash_key(balance: &Balance, session: &ServerSession, client: IpAddr) -> Option<u64> {
    match balance {
        Balance::Hash(on) => hash_of(on, session.req_header(), client),
        _ => None,
    }
}

/// Returns the hash of this property of a request. Returns None if the request lacks the header or cookie.
pub(super) fn hash_of(on: &HashOn, request: &RequestHeader, client: IpAddr) -> Option<u64> {
    match on {
        HashOn::Header(name) => request.headers.get(name).map(|value| key(value.as_bytes())),
        HashOn::Cookie(name) => cookie(&request.headers, name).map(key),
        HashOn::Path => origin_form(request).0.split(|b| *b == b'?').next().map(key),
        HashOn::ClientAddress => Some(match client.to_canonical() {
            IpAddr::V4(ip) => key(&ip.octets()),
            IpAddr::V6(ip) => key(&ip.octets()),
        }),
    }
}

/// Returns the value of a cookie. HTTP/2 clients may send several `Cookie` fields.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let mut pairs = fields.flat_map(|field| field.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
