//! Records of requests: metrics, the access log, the list of refused requests, and observations.
//!
//! Each request is recorded once, at its end, as one [`RequestRecord`]. The counters, the access log and the list of
//! refusals use the same record, so their data agree. A request never waits for the recording.

pub(crate) mod access_log;
pub(crate) mod listeners;
mod observer;
mod refusals;
pub mod request_id;
mod route_metrics;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};

pub use self::access_log::AccessLogger;
use self::observer::Observer;
pub(crate) use self::refusals::{CUT, Refusals, RefusedRequest};
pub use self::route_metrics::MethodClass;
pub(crate) use self::route_metrics::StatusClass;
pub(crate) use self::route_metrics::{RouteMetricsTable, RouteSlot};

use crate::cors::ReportOnly;
use crate::counter::Running;
use crate::decide::{RequestKind, RequestOutcome};
use crate::domain::{OwnOrigin, Scheme};
use crate::record::request_id::RequestId;
use crate::snapshot::{Address, Snapshot};

/// Records the requests of the process.
#[derive(Debug)]
pub struct Recorder {
    /// False without an admin listener. Metrics and refusals are then not stored, because nothing can read them.
    has_admin: bool,
    /// Counts the running requests. A graceful shutdown waits until there are none.
    pub(crate) running: Running,
    pub(crate) refusals: Refusals,
    pub(crate) observer: Observer,
    pub(crate) access_log: Arc<AccessLogger>,
}

/// The record of a request, made at its end.
#[derive(Debug, Clone, Copy)]
pub struct RequestRecord<'a> {
    /// Number of the configuration generation that served the request.
    pub generation: u64,
    /// Name of the route. None if the request was refused before a route was chosen.
    pub route: Option<&'a str>,
    /// Whether the request is a preflight.
    pub kind: RequestKind,
    /// Reason of the CORS decision, or why the request was refused before one.
    pub outcome: RequestOutcome,
    /// True if the gateway refused the request or does not allow the page to read the response.
    pub refused: bool,
    /// Change by the report-only policy of the route. None without a change.
    pub report_only: Option<ReportOnly>,
    /// Address of the client. It is the address of the peer, or the address that a trusted proxy sent.
    pub client: IpAddr,
    /// Scheme that the client used for the gateway or for a trusted proxy.
    pub scheme: Scheme,
    /// Class of the method, for metrics.
    pub method: MethodClass,
    /// Request line and header fields. None if a timeout ended the request and its memory is already freed.
    pub request: Option<RequestLine<'a>>,
    /// Status sent to the client. None if no response was sent.
    pub status: Option<StatusCode>,
    /// Bytes of the response body sent to the client.
    pub body_bytes: usize,
    /// Time from the end of the request header to the end of the response.
    pub duration: Duration,
    /// Result at the upstream. None if the gateway did not forward the request.
    pub upstream: Option<UpstreamAttempt<'a>>,
    /// Failure after the decision, in one or two words. None if there was no failure.
    pub failure: Option<&'a str>,
    /// The cause of the failure, and a remedy. None if there was no failure, or if `failure` is enough.
    pub failure_detail: Option<&'a str>,
    /// Id of the request, the value of `X-Request-Id`.
    pub id: &'a RequestId,
}

/// Request line and header fields of the client, without the fields that the gateway removes because this client may not
/// send them.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// Method of the request. It is OPTIONS for a preflight.
    pub method: &'a Method,
    /// Host and port as the client wrote them. Empty if the request has no host.
    pub authority: &'a [u8],
    /// Origin of the URL that the client used. None if no trusted proxy sent another host than `authority`.
    pub forwarded: Option<OwnOrigin<'a>>,
    /// Path without query, not decoded.
    pub path: &'a [u8],
    /// HTTP version between client and gateway.
    pub version: Version,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// Result of a forwarded request at its upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamAttempt<'a> {
    /// Name of the upstream in the configuration.
    pub name: &'a str,
    /// Node that answered, or the node of the last attempt. None if no node was available.
    pub address: Option<&'a Address>,
    /// Time from the first attempt to the response header. None if there was no response.
    pub duration: Option<Duration>,
    /// Number of attempts. It is 1 if the first attempt succeeded.
    pub attempts: usize,
}

// === impl Recorder ===

impl Recorder {
    /// Creates a recorder with zero counts. `has_admin` tells whether the process has an admin listener.
    pub fn new(has_admin: bool, access_log: Arc<AccessLogger>) -> Self {
        Recorder {
            has_admin,
            running: Running::default(),
            refusals: Refusals::default(),
            observer: Observer::default(),
            access_log,
        }
    }

    /// Returns true if some output needs a record of each request. Otherwise requests do not collect the data of a
    /// record.
    pub(crate) fn is_recording(&self, snapshot: &Snapshot) -> bool {
        self.has_admin || snapshot.access_log().is_some()
    }

    /// Returns true if metrics are counted.
    pub(crate) fn counts(&self) -> bool {
        self.has_admin
    }

    /// Records a request that has ended. Call it once per request, with the metrics of its route in its configuration.
    pub fn record(&self, route_metrics: &RouteSlot, record: &RequestRecord<'_>) {
        if self.has_admin {
            route_metrics.count(record);
            self.refusals.remember(record);
            self.observer.observe(record);
        }
        self.access_log.write(record);
    }
}

#[cfg(test)]
mod tests {
    use super::listeners::{BadHeader, RefusedConnection};
    use super::*;
    use crate::cors::Reason;
    use crate::decide::RefusalCode;

    /// Dashboards, alerts and log queries of users depend on these codes. A changed code needs a line in the changelog.
    #[test]
    fn codes_do_not_change() {
        let reasons = [
            "allowed_any",
            "allowed_exact",
            "allowed_pattern",
            "allowed_regex",
            "no_origin",
            "same_origin",
            "no_policy",
            "origin_not_allowed",
            "origin_null",
            "origin_invalid",
            "cross_site",
            "method_not_allowed",
            "header_not_allowed",
            "header_list_too_long",
        ];
        let refusals = [
            "bad_host",
            "bad_target",
            "ambiguous_path",
            "ambiguous_length",
            "client_denied",
            "auth_refused",
            "auth_unavailable",
            "unknown_host",
            "unknown_path",
            "no_route_for_method",
            "body_too_large",
            "uri_too_long",
            "misdirected",
            "client_connection_limit",
            "rate_limited",
            "connection_limit",
            "headers_too_large",
            "upstream_full",
        ];
        assert_eq!(Reason::ALL.map(Reason::code), reasons);
        assert_eq!(RefusalCode::ALL.map(RefusalCode::code), refusals);
        assert_eq!(RequestKind::ALL.map(RequestKind::code), ["preflight", "actual"]);
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
        assert_eq!(MethodClass::ALL.map(MethodClass::code), methods);
        let statuses = ["1xx", "2xx", "3xx", "4xx", "5xx", "other", "none"];
        assert_eq!(StatusClass::ALL.map(StatusClass::code), statuses);
        let connections = ["connection_limit_hard", "untrusted", "proxy_header", "handshake", "late"];
        assert_eq!(RefusedConnection::ALL.map(RefusedConnection::code), connections);
        assert_eq!(BadHeader::ALL.map(BadHeader::code), ["late", "too_large", "malformed"]);
        assert!(refusals.iter().all(|code| !reasons.contains(code)), "one code has one meaning");
    }
}
