//! The record of a request, for the access log and the metrics. Each request is recorded once, at its end.

use http::StatusCode;
use pingora::{Error, ErrorSource};
use pingora_proxy::Session;

use super::request::authority_and_target;
use super::response::is_interim;
use super::{Ctx, body_is_invalid, expired_timeout};
use crate::read::watchdog::Expired;
use crate::record::{RequestLine, RequestRecord, UpstreamAttempt};
use crate::upstream::Endpoint;
use crate::upstream::failure::{describe, describe_cut};

/// The failure of a request after the decision.
struct Failure<'a> {
    /// The failure in one or two words.
    code: &'a str,
    /// The cause and a remedy.
    detail: Option<String>,
}

/// Code of a request whose chunked body is invalid.
const INVALID_BODY: &str = "InvalidChunk";

impl<'a> Failure<'a> {
    fn of(code: &'a str) -> Self {
        Failure { code, detail: None }
    }
}

impl Ctx {
    /// Records a request that still has its session.
    pub(super) fn record_session(&mut self, session: &Session, e: Option<&Error>) {
        if self.timing.is_empty() {
            return;
        }
        let session = session.as_downstream();
        let (authority, target) = authority_and_target(session.req_header());
        let line = RequestLine {
            method: &session.req_header().method,
            authority,
            forwarded: self.request.as_ref().and_then(|request| request.remote.forwarded(session.req_header())),
            path: target.split(|b| *b == b'?').next().unwrap_or_default(),
            version: session.req_header().version,
            headers: &session.req_header().headers,
        };
        let status = session.response_written().map(|response| response.status);
        let is_cut = status.is_some_and(|status| !is_interim(status));
        let failure = e.map(|e| match expired_timeout(session) {
            Some(Expired::Deadline) => Failure::of("timeouts.total"),
            Some(Expired::Idle) => Failure::of("idle"),
            None if body_is_invalid(session) => Failure::of(INVALID_BODY),
            None => {
                let upstream = self.forwarded().map(|(_, upstream)| upstream);
                let upstream = upstream.filter(|_| *e.esource() == ErrorSource::Upstream);
                let describe = if is_cut { describe_cut } else { describe };
                Failure { code: e.etype().as_str(), detail: upstream.map(|upstream| describe(e, upstream)) }
            }
        });
        self.record(Some(line), status, session.body_bytes_sent(), failure.as_ref());
    }

    /// Records a request that the watchdog has ended. It does nothing if the request is already recorded.
    pub(super) fn record_dropped(&mut self) {
        self.record(None, None, 0, Some(&Failure::of("cut off")));
    }

    /// Records the request once, at its end. `line` is None if the session is already freed.
    fn record(
        &mut self,
        line: Option<RequestLine<'_>>,
        status: Option<StatusCode>,
        sent: usize,
        failure: Option<&Failure<'_>>,
    ) {
        let (Some(request), Some(finished)) = (&self.request, self.timing.finish()) else { return };
        let upstream = self.forwarded().map(|(_, upstream)| UpstreamAttempt {
            name: &upstream.settings().name,
            address: self.attempts.last().map(Endpoint::address),
            duration: finished.upstream_took,
            attempts: finished.attempts,
        });
        if let Some(upstream) = request.config.split_upstream() {
            upstream.count_split_response(status);
        }
        self.recorder.record(
            request.config.metrics(),
            &RequestRecord {
                generation: request.config.number(),
                route: request.config.route_name(),
                kind: finished.kind,
                outcome: finished.outcome,
                refused: finished.refused,
                report_only: finished.report_only,
                client: request.remote.client,
                scheme: request.remote.scheme,
                method: finished.method,
                request: line,
                status,
                body_bytes: sent,
                duration: finished.took,
                upstream,
                failure: failure.map(|failure| failure.code),
                failure_detail: failure.and_then(|failure| failure.detail.as_deref()),
                id: &request.id,
            },
        );
    }
}
