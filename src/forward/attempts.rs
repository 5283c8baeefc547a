//! From an endpoint to Pingora's peer; and when a try fails, whose fault it was and whether there is another one.
//!
//! A request has its first try and up to `retries` more, each on a node that it has not been to:
//!
//! | what happened | tried again | counts against the node |
//! |---|---|---|
//! | no connection | any method | yes, unless the gateway could not even ask |
//! | broken off, reset, timed out, before the header of a response | idempotent methods, if the body is still there in full | yes, unless the client still owed its body, or the try had been given less than its time |
//! | the node said that it has not looked at it (HTTP/2) | any method, if the body is still there in full | yes |
//! | an answer that is no HTTP | no | no |
//! | anything after the header of a response | no | no |
//! | the client went away | no | no |
//!
//! Beside these there is one try for free on each node: a connection that was kept from an earlier request may have
//! ended while ours was on its way, and that says nothing about the node. It goes to the same node again, costs no retry
//! and counts against nobody. It has a new connection, for the other kept ones may be as dead; what fails on that one
//! too is a failure. Only idempotent requests have it (RFC 9110 section 9.2.2), or those of which HTTP/2 says that they
//! were not looked at.
//!
//! `timeouts.total` ends all of it: each try gets at most the time that is left, and when nothing is left there is none.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use pingora::protocols::http::ServerSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result, RetryType};

use super::request::origin_form;
use super::response::{fail, reject_response};
use super::websocket::BodyFirst;
use crate::decide::local_reply::ReplyKind;
use crate::logging::quoted;
use crate::snapshot::{Balance, HashOn};
use crate::upstream::peer::{explain, template};
use crate::upstream::{ActiveRequest, Endpoint, PickError, RunningUpstream, key};

/// How much earlier the timeouts of a try end than what cuts it off, which leaves no answer over HTTP/2.
const NOTICE: Duration = Duration::from_millis(100);

/// The tries of a request to get an answer from its upstream.
#[derive(Default)]
pub(super) struct Attempts {
    /// Where the request is now. Counts as under way there.
    at: Option<ActiveRequest>,
    /// Where it goes next, when the last try has failed.
    next: Option<ActiveRequest>,
    /// Where it has failed. Empty, and without memory, until it does.
    failed: Vec<Arc<Endpoint>>,
    /// Whether the try on the present node is the free one.
    retried_stale: bool,
    /// Whether the present try has less time than `timeouts.read`, because earlier ones have used it up.
    shortened: bool,
    /// Whether the header of the response has come.
    answered: bool,
    /// When all must be over.
    deadline: Option<Instant>,
    /// What the deadline is for.
    until: Until,
}

/// What must have happened at a deadline.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The response has ended.
    #[default]
    End,
    /// There is a response at all: a WebSocket has no end to wait for.
    Begin,
}

impl Attempts {
    /// When whatever still goes on is cut off: a little after `timeouts.total`; for a WebSocket, after it must have begun.
    /// None when there is no such time, or none any more. Known from the first try on.
    pub(super) fn deadline(&self, session: &ServerSession) -> Option<Instant> {
        let over = self.answered && (self.until == Until::Begin || session.was_upgraded());
        self.deadline.filter(|_| !over).map(|deadline| deadline + NOTICE)
    }

    /// The peer for the next try. `client` is who the request comes from.
    pub(super) fn peer(
        &mut self,
        upstream: &RunningUpstream,
        session: &ServerSession,
        client: IpAddr,
    ) -> Result<Box<HttpPeer>> {
        let at = match self.next.take() {
            Some(next) => next,
            None => {
                let key = hash_key(&upstream.settings().balance, session, client);
                match upstream.pick(key, &self.failed) {
                    Ok(at) => at,
                    Err(PickError::Unresolved) => {
                        let why = "no address is known for the upstream";
                        return fail(ReplyKind::NoNodeAvailable, ErrorSource::Upstream, why);
                    }
                    Err(PickError::AllUnhealthy | PickError::Exhausted) => {
                        let why = "no node of the upstream is available";
                        return fail(ReplyKind::NoNodeAvailable, ErrorSource::Upstream, why);
                    }
                }
            }
        };
        let timeouts = &upstream.settings().timeouts;
        let mut peer = Box::new(template(upstream, &at));
        let is_upgrade = session.is_upgrade_req();
        if self.retried_stale || is_upgrade {
            // A group that has no connections. The one that is made is good for this request, and soon closed.
            static GROUPS: AtomicU64 = AtomicU64::new(u64::MAX);
            peer.group_key = GROUPS.fetch_sub(1, Ordering::Relaxed);
            peer.options.idle_timeout = Some(Duration::from_millis(1));
        }
        if is_upgrade {
            peer.options.custom_l4 = Some(Arc::new(BodyFirst { timeout: timeouts.connect }));
            // These hold for the whole life of a connection, and cannot be changed once the protocol is.
            peer.options.read_timeout = Some(timeouts.websocket);
            peer.options.write_timeout = Some(timeouts.websocket);
            if timeouts.total.is_none() {
                self.until = Until::Begin;
            }
            let begin = timeouts.total.unwrap_or(timeouts.connect + timeouts.read);
            self.deadline.get_or_insert_with(|| Instant::now() + begin);
        } else if let Some(total) = timeouts.total {
            let now = Instant::now();
            let left = self.deadline.get_or_insert(now + total).saturating_duration_since(now);
            if left.is_zero() {
                return fail(ReplyKind::UpstreamTimeout, ErrorSource::Upstream, "timeouts.total is over");
            }
            self.shortened = !self.failed.is_empty() && left < timeouts.read;
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
        self.at = Some(at);
        Ok(peer)
    }

    /// There is a connection to the peer, made for this try or kept from an earlier request.
    pub(super) fn connected(&self, reused: bool) {
        let Some(at) = &self.at else { return };
        let counts = at.counts();
        let count = if reused { &counts.reuses } else { &counts.connects };
        count.add(1);
    }

    /// There is no connection to the peer. Says in the error whether there is another try.
    pub(super) fn connect_failed(
        &mut self,
        upstream: &RunningUpstream,
        session: &ServerSession,
        client: IpAddr,
        e: &mut Error,
    ) {
        let Some(at) = self.at.take() else { return };
        // With HTTP/2, to open a stream on a kept connection is a part of connecting.
        if upstream.settings().http2 && *e.etype() == ErrorType::H2Error && !self.retried_stale {
            return self.retry_stale_connection(upstream, at, e);
        }
        at.counts().connect_failures.add(1);
        let name = &upstream.settings().name;
        log::warn!("connect failed upstream={name} address={} error={}", at.address(), quoted(explain(e)));
        // What the system refuses to the gateway, such as one more socket, says nothing about the node.
        if !matches!(e.etype(), ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError) {
            record_failure(upstream, &at);
        }
        e.set_retry(self.next_attempt(upstream, &at, session, client));
    }

    /// The upstream speaks another version of HTTP than it should: there is no fallback.
    pub(super) fn check_version(&self, upstream: &RunningUpstream, version: Version) -> Result<()> {
        match &self.at {
            Some(at) if upstream.settings().http2 && version != Version::HTTP_2 => {
                log::warn!("no HTTP/2 upstream={} address={}", upstream.settings().name, at.address());
                reject_response("the upstream does not speak HTTP/2")
            }
            _ => Ok(()),
        }
    }

    /// The header of a response has come, maybe an interim one. True when it is that of the response itself.
    pub(super) fn header_came(&mut self, upstream: &RunningUpstream, status: StatusCode) -> bool {
        let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        let Some(at) = self.at.as_ref().filter(|_| !interim) else { return false };
        self.answered = true;
        upstream.succeeded(at);
        true
    }

    /// Where the request is, or has been last.
    pub(super) fn last(&self) -> Option<&Endpoint> {
        self.at.as_ref().map(ActiveRequest::endpoint).or(self.failed.last()).map(|endpoint| &**endpoint)
    }

    /// Something went wrong after there was a connection. Says in the error whether there is another try. `cut_off` is
    /// whether it was we who broke off, at the deadline.
    pub(super) fn on_error(
        &mut self,
        upstream: &RunningUpstream,
        session: &mut ServerSession,
        client: IpAddr,
        e: &mut Error,
        reused: bool,
        cut_off: bool,
    ) {
        let untouched = matches!(e.retry, RetryType::Decided(true));
        e.set_retry(false);
        let kind = match e.esource() {
            _ if cut_off => FailureKind::TimedOut,
            ErrorSource::Upstream => FailureKind::of(e.etype()),
            _ => FailureKind::Other,
        };
        if self.answered {
            return;
        }
        let Some(at) = self.at.take_if(|_| kind != FailureKind::Other) else { return };
        let repeatable =
            (untouched || session.req_header().method.is_idempotent()) && !session.retry_buffer_truncated();
        if kind == FailureKind::Broken && reused && repeatable && !self.retried_stale {
            return self.retry_stale_connection(upstream, at, e);
        }
        at.counts().no_responses.add(1);
        let name = &upstream.settings().name;
        log::warn!("no response upstream={name} address={} error={}", at.address(), quoted(e.etype().as_str()));
        // PickError can answer a request of which half is missing.
        let waited_for_client = kind == FailureKind::TimedOut && !session.is_body_done();
        if waited_for_client {
            return;
        }
        if kind == FailureKind::Broken || !self.shortened {
            record_failure(upstream, &at);
        }
        e.set_retry(repeatable && self.next_attempt(upstream, &at, session, client));
    }

    /// Another try on the same node, for free, with a new connection.
    fn retry_stale_connection(&mut self, upstream: &RunningUpstream, at: ActiveRequest, e: &mut Error) {
        let name = &upstream.settings().name;
        let error = quoted(e.etype().as_str());
        log::debug!("kept connection was closed upstream={name} address={} error={error}", at.address());
        upstream.counts().reconnects.add(1);
        self.retried_stale = true;
        self.next = Some(at);
        e.set_retry(true);
    }

    /// Whether there is another try on another node, which is chosen now: later it could be gone, and the client would
    /// be told something else than what has happened.
    fn next_attempt(
        &mut self,
        upstream: &RunningUpstream,
        at: &ActiveRequest,
        session: &ServerSession,
        client: IpAddr,
    ) -> bool {
        self.retried_stale = false;
        self.failed.push(at.endpoint().clone());
        if self.failed.len() > upstream.settings().retries || self.deadline.is_some_and(|end| end <= Instant::now()) {
            return false;
        }
        let key = hash_key(&upstream.settings().balance, session, client);
        self.next = upstream.pick(key, &self.failed).ok();
        upstream.counts().retries.add(u64::from(self.next.is_some()));
        self.next.is_some()
    }
}

/// What a node has done instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    TimedOut,
    Broken,
    /// It has answered something else, or we have refused what it answered.
    Other,
}

impl FailureKind {
    fn of(error: &ErrorType) -> Self {
        use ErrorType::*;
        match error {
            ReadTimedout | WriteTimedout => FailureKind::TimedOut,
            ReadError | WriteError | ConnectionClosed | H2Error | InvalidH2 | H2Downgrade => FailureKind::Broken,
            _ => FailureKind::Other,
        }
    }
}

fn record_failure(upstream: &RunningUpstream, at: &ActiveRequest) {
    if upstream.failed(at.endpoint(), Instant::now()).is_some() {
        let ejection = upstream.settings().ejection.as_ref();
        let seconds = ejection.map_or(Duration::ZERO, |ejection| ejection.time).as_secs_f64();
        log::warn!("node ejected upstream={} address={} for={seconds}s", upstream.settings().name, at.address());
    }
}

// --- what a request is hashed by

fn hash_key(balance: &Balance, session: &ServerSession, client: IpAddr) -> Option<u64> {
    let Balance::Hash(on) = balance else { return None };
    let request = session.req_header();
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

/// The value of a cookie. HTTP/2 may send each in a field of its own.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let mut pairs = fields.flat_map(|field| field.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
